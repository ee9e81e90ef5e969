//! AMF3 (Adobe, Action Message Format AMF 3, 2013), read only: what Flash and AIR clients put
//! behind marker 0x11 when they asked for object encoding 3. We always answer in AMF0.
//!
//! Values come out as [`amf0::Value`](Value). String and trait references are resolved; an
//! object sent a second time by reference comes out as [`Value::Unsupported`], as in AMF0.
//! The reference tables begin empty at each marker 0x11 and end with its value.

use std::rc::Rc;

use super::amf0::{AmfError, AmfLimits, Budget, Value};
use crate::wire::{Reader, Truncated};

/// The AMF3 value that `bytes` begin with.
///
/// # Errors
/// Any [`AmfError`].
pub fn decode(bytes: &[u8], limits: AmfLimits) -> Result<Value, AmfError> {
    decode_value(&mut Reader::new(bytes), &mut Budget::new(limits), 0)
}

/// The AMF3 value after marker 0x11, at `depth` of the AMF0 around it.
pub(super) fn decode_value(
    reader: &mut Reader<'_>,
    budget: &mut Budget,
    depth: usize,
) -> Result<Value, AmfError> {
    let mut decoder = Decoder {
        reader,
        budget,
        strings: Vec::new(),
        traits: Vec::new(),
        objects: 0,
    };
    decoder.value(depth)
}

/// Reads one value with its reference tables. Each entry of a table took at least one byte and
/// one unit of the budget, so that they are bounded by both.
struct Decoder<'r, 'a> {
    reader: &'r mut Reader<'a>,
    budget: &'r mut Budget,
    strings: Vec<Rc<str>>,
    traits: Vec<Rc<Traits>>,
    /// How many objects, arrays, dates and the like were sent.
    objects: usize,
}

/// The shape of an object (3.12).
struct Traits {
    class_name: Rc<str>,
    is_externalizable: bool,
    is_dynamic: bool,
    sealed: Vec<Rc<str>>,
}

/// What an integer before a complex value says.
enum Header {
    /// The rest of the integer: a length, a count or flags.
    Inline(u32),
    /// The value was sent before.
    Reference,
}

impl<'a> Decoder<'_, 'a> {
    fn value(&mut self, depth: usize) -> Result<Value, AmfError> {
        self.budget.take_value()?;
        let marker = self.reader.u8()?;
        Ok(match marker {
            marker::UNDEFINED => Value::Undefined,
            marker::NULL => Value::Null,
            marker::FALSE => Value::Boolean(false),
            marker::TRUE => Value::Boolean(true),
            marker::INTEGER => {
                // 29 bits, two's complement.
                let value = (self.u29()? << 3) as i32 >> 3;
                Value::Number(f64::from(value))
            }
            marker::DOUBLE => Value::Number(self.reader.f64()?),
            marker::STRING => {
                let text = self.string()?;
                Value::String(self.owned(&text)?)
            }
            // All that follows can be a reference instead of a value.
            _ => match self.header(marker)? {
                Header::Reference => Value::Unsupported,
                Header::Inline(inline) => self.complex_value(marker, inline, depth)?,
            },
        })
    }

    /// The integer that begins each value of the object table (3.8 to 3.16).
    fn header(&mut self, marker: u8) -> Result<Header, AmfError> {
        if !(marker::XML_DOCUMENT..=marker::DICTIONARY).contains(&marker) {
            return Err(AmfError::UnknownMarker3 { marker });
        }
        let header = self.u29()?;
        if header & 1 == 0 {
            let index = header >> 1;
            check_reference(index, self.objects)?;
            return Ok(Header::Reference);
        }
        self.objects += 1;
        Ok(Header::Inline(header >> 1))
    }

    fn complex_value(&mut self, marker: u8, inline: u32, depth: usize) -> Result<Value, AmfError> {
        let depth = self.budget.enter(depth)?;
        Ok(match marker {
            marker::XML_DOCUMENT | marker::XML => {
                let bytes = self.bytes(inline, 1)?;
                Value::String(self.budget.take_text(bytes)?)
            }
            marker::DATE => Value::Date(self.reader.f64()?),
            marker::ARRAY => self.array(inline, depth)?,
            marker::OBJECT => self.object(inline, depth)?,
            marker::BYTE_ARRAY => {
                self.bytes(inline, 1)?;
                Value::Unsupported
            }
            marker::VECTOR_INT | marker::VECTOR_UINT => {
                let _is_fixed = self.reader.u8()?;
                let bytes = self.bytes(inline, 4)?;
                self.numbers(bytes.chunks_exact(4), |item| {
                    let value = Reader::new(item).u32()?;
                    Ok(match marker {
                        marker::VECTOR_INT => f64::from(value as i32),
                        _ => f64::from(value),
                    })
                })?
            }
            marker::VECTOR_DOUBLE => {
                let _is_fixed = self.reader.u8()?;
                let bytes = self.bytes(inline, 8)?;
                self.numbers(bytes.chunks_exact(8), |item| Reader::new(item).f64())?
            }
            marker::VECTOR_OBJECT => {
                let _is_fixed = self.reader.u8()?;
                let _type_name = self.string()?;
                self.values(inline, depth)?
            }
            // marker::DICTIONARY, the last of the range that `header` lets through.
            _ => self.dictionary(inline, depth)?,
        })
    }

    /// Named values up to an empty name, then `count` dense ones (3.11). With names, the
    /// dense ones are named by their index.
    fn array(&mut self, count: u32, depth: usize) -> Result<Value, AmfError> {
        let mut properties = self.named_values(depth)?;
        if properties.is_empty() {
            return self.values(count, depth);
        }
        for index in 0..count {
            let value = self.value(depth)?;
            properties.push((index.to_string(), value));
        }
        Ok(Value::EcmaArray(properties))
    }

    fn object(&mut self, flags: u32, depth: usize) -> Result<Value, AmfError> {
        let traits = self.traits(flags)?;
        if traits.is_externalizable {
            // These two wrap one value; all others have a form of their own.
            return match &*traits.class_name {
                "flex.messaging.io.ArrayCollection" | "flex.messaging.io.ObjectProxy" => {
                    self.value(depth)
                }
                _ => Err(AmfError::Externalizable),
            };
        }
        let mut properties = Vec::new();
        for name in &traits.sealed {
            let name = self.owned(name)?;
            properties.push((name, self.value(depth)?));
        }
        if traits.is_dynamic {
            properties.append(&mut self.named_values(depth)?);
        }
        Ok(if traits.class_name.is_empty() {
            Value::Object(properties)
        } else {
            Value::TypedObject {
                class_name: self.owned(&traits.class_name)?,
                properties,
            }
        })
    }

    /// Traits, by reference or in full. Of `flags`, bit 0 says in full, bit 1 externalizable,
    /// bit 2 dynamic, and the rest counts the sealed names.
    fn traits(&mut self, flags: u32) -> Result<Rc<Traits>, AmfError> {
        if flags & 1 == 0 {
            let index = flags >> 1;
            check_reference(index, self.traits.len())?;
            return Ok(Rc::clone(&self.traits[index as usize]));
        }
        let is_externalizable = flags & 2 != 0;
        let class_name = self.string()?;
        let mut sealed = Vec::new();
        if !is_externalizable {
            for _ in 0..flags >> 3 {
                // A name takes memory even if no object ever uses it.
                self.budget.take_value()?;
                sealed.push(self.string()?);
            }
        }
        let traits = Rc::new(Traits {
            class_name,
            is_externalizable,
            is_dynamic: flags & 4 != 0,
            sealed,
        });
        self.traits.push(Rc::clone(&traits));
        Ok(traits)
    }

    /// Keys of any type and their values (3.15). Keys that are not text or numbers
    /// have no name in our form.
    fn dictionary(&mut self, count: u32, depth: usize) -> Result<Value, AmfError> {
        let _has_weak_keys = self.reader.u8()?;
        let mut properties = Vec::new();
        for _ in 0..count {
            let name = match self.value(depth)? {
                Value::String(text) => text,
                Value::Number(number) => number.to_string(),
                _ => String::new(),
            };
            properties.push((name, self.value(depth)?));
        }
        Ok(Value::EcmaArray(properties))
    }

    fn named_values(&mut self, depth: usize) -> Result<Vec<(String, Value)>, AmfError> {
        let mut properties = Vec::new();
        loop {
            let name = self.string()?;
            if name.is_empty() {
                return Ok(properties);
            }
            let name = self.owned(&name)?;
            properties.push((name, self.value(depth)?));
        }
    }

    fn values(&mut self, count: u32, depth: usize) -> Result<Value, AmfError> {
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(self.value(depth)?);
        }
        Ok(Value::StrictArray(values))
    }

    fn numbers<'b>(
        &mut self,
        items: impl Iterator<Item = &'b [u8]>,
        decode: impl Fn(&[u8]) -> Result<f64, Truncated>,
    ) -> Result<Value, AmfError> {
        let mut values = Vec::new();
        for item in items {
            self.budget.take_value()?;
            values.push(Value::Number(decode(item)?));
        }
        Ok(Value::StrictArray(values))
    }

    /// A string, in full or by reference (1.3.2). The empty one is never referred to.
    fn string(&mut self) -> Result<Rc<str>, AmfError> {
        let header = self.u29()?;
        if header & 1 == 0 {
            let index = header >> 1;
            check_reference(index, self.strings.len())?;
            return Ok(Rc::clone(&self.strings[index as usize]));
        }
        let bytes = self.bytes(header >> 1, 1)?;
        let text: Rc<str> = self.budget.take_text(bytes)?.into();
        if !text.is_empty() {
            self.strings.push(Rc::clone(&text));
        }
        Ok(text)
    }

    /// A copy of `text`, accounted for: one byte of reference can ask for a long one.
    fn owned(&mut self, text: &str) -> Result<String, AmfError> {
        self.budget.take_string_bytes(text.len())?;
        Ok(text.to_owned())
    }

    fn bytes(&mut self, count: u32, item_bytes: usize) -> Result<&'a [u8], AmfError> {
        let length = usize::try_from(count).map_err(|_| Truncated)?;
        Ok(self.reader.take(length.saturating_mul(item_bytes))?)
    }

    /// An integer of 29 bits in one to four bytes (1.3.1).
    fn u29(&mut self) -> Result<u32, AmfError> {
        let mut value = 0;
        for _ in 0..3 {
            let byte = self.reader.u8()?;
            value = value << 7 | u32::from(byte & 0x7f);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Ok(value << 8 | u32::from(self.reader.u8()?))
    }
}

fn check_reference(index: u32, known: usize) -> Result<(), AmfError> {
    if (index as usize) < known {
        Ok(())
    } else {
        Err(AmfError::ReferenceOutOfRange { index, known })
    }
}

/// Type markers (AMF 3 section 3.1).
mod marker {
    pub(super) const UNDEFINED: u8 = 0x00;
    pub(super) const NULL: u8 = 0x01;
    pub(super) const FALSE: u8 = 0x02;
    pub(super) const TRUE: u8 = 0x03;
    pub(super) const INTEGER: u8 = 0x04;
    pub(super) const DOUBLE: u8 = 0x05;
    pub(super) const STRING: u8 = 0x06;
    pub(super) const XML_DOCUMENT: u8 = 0x07;
    pub(super) const DATE: u8 = 0x08;
    pub(super) const ARRAY: u8 = 0x09;
    pub(super) const OBJECT: u8 = 0x0a;
    pub(super) const XML: u8 = 0x0b;
    pub(super) const BYTE_ARRAY: u8 = 0x0c;
    pub(super) const VECTOR_INT: u8 = 0x0d;
    pub(super) const VECTOR_UINT: u8 = 0x0e;
    pub(super) const VECTOR_DOUBLE: u8 = 0x0f;
    pub(super) const VECTOR_OBJECT: u8 = 0x10;
    pub(super) const DICTIONARY: u8 = 0x11;
}

#[cfg(test)]
mod tests;

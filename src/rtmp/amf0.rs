//! AMF0 (Adobe, Action Message Format AMF 0, 2007): the values of commands and metadata.
//!
//! Reading is lenient where senders are: the counts of associative arrays are hints
//! (OBS writes 20 for fewer, ffmpeg 13), UTF-8 may be broken, and after marker 0x11 one value,
//! and only that one, is in AMF3. It is strict where memory or step is at stake.

use std::fmt;

use super::amf3;
use crate::wire::{Reader, Truncated, WriteExt};

/// Bounds of one [`decode_all`]. They hold for the whole body, so that memory follows its
/// length: a value of one byte takes some fifty in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AmfLimits {
    /// Nesting of objects and arrays. Real clients go to 3; each level takes a stack frame.
    pub depth_max: usize,
    /// Values in all, nested ones included. A `keyframes` index of a relayed file has some
    /// thousands.
    pub values_max: usize,
    /// Bytes of all strings and property names together.
    pub string_bytes_max: usize,
}

impl Default for AmfLimits {
    fn default() -> Self {
        Self {
            depth_max: 32,
            values_max: 16_384,
            string_bytes_max: 256 << 10,
        }
    }
}

/// One AMF value. AMF3 values come out in the same form.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number; AMF3 integers too.
    Number(f64),
    /// A boolean.
    Boolean(bool),
    /// A string, long string or XML document; invalid UTF-8 was replaced.
    String(String),
    /// An anonymous object, in wire order.
    Object(Vec<(String, Value)>),
    /// An associative array, in wire order.
    EcmaArray(Vec<(String, Value)>),
    /// A dense array.
    StrictArray(Vec<Value>),
    /// Null.
    Null,
    /// Undefined.
    Undefined,
    /// Milliseconds since 1970, UTC.
    Date(f64),
    /// An object of a named class.
    TypedObject {
        /// The class alias.
        class_name: String,
        /// In wire order.
        properties: Vec<(String, Value)>,
    },
    /// The unsupported marker, a reference, or an AMF3 byte array: known to be there, not kept.
    Unsupported,
}

impl Value {
    /// A string value.
    pub fn string(text: impl Into<String>) -> Self {
        Value::String(text.into())
    }

    /// An object of these properties.
    pub fn object<const N: usize>(properties: [(&str, Value); N]) -> Self {
        Value::Object(
            properties
                .map(|(key, value)| (key.to_owned(), value))
                .into(),
        )
    }

    /// The property `key` of an object or associative array; the last one of that name.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let (_, value) = self
            .properties()?
            .iter()
            .rev()
            .find(|(name, _)| name == key)?;
        Some(value)
    }

    /// The properties of an object or associative array.
    pub fn properties(&self) -> Option<&[(String, Value)]> {
        match self {
            Value::Object(properties)
            | Value::EcmaArray(properties)
            | Value::TypedObject { properties, .. } => Some(properties),
            _ => None,
        }
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The number.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The boolean.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Boolean(value) => Some(*value),
            _ => None,
        }
    }
}

/// All values of a command or data message body.
///
/// # Errors
/// Any [`AmfError`].
pub fn decode_all(bytes: &[u8], limits: AmfLimits) -> Result<Vec<Value>, AmfError> {
    match decode_prefix(bytes, limits) {
        (values, None) => Ok(values),
        (_, Some(error)) => Err(error),
    }
}

/// The values up to the first that cannot be read, and why: what a command says in its
/// first values counts although what follows is broken.
pub fn decode_prefix(bytes: &[u8], limits: AmfLimits) -> (Vec<Value>, Option<AmfError>) {
    let mut reader = Reader::new(bytes);
    let mut budget = Budget::new(limits);
    let mut values = Vec::new();
    while !reader.is_empty() {
        match decode_value(&mut reader, &mut budget, 0) {
            Ok(value) => values.push(value),
            Err(error) => return (values, Some(error)),
        }
    }
    (values, None)
}

/// Appends `value` in AMF0. A property name is cut at 65 535 bytes.
pub fn encode(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Number(number) => {
            out.push(marker::NUMBER);
            out.extend_from_slice(&number.to_be_bytes());
        }
        Value::Boolean(value) => out.extend_from_slice(&[marker::BOOLEAN, u8::from(*value)]),
        Value::String(text) => match u16::try_from(text.len()) {
            Ok(length) => {
                out.push(marker::STRING);
                out.put_u16_be(length);
                out.extend_from_slice(text.as_bytes());
            }
            Err(_) => {
                out.push(marker::LONG_STRING);
                out.put_u32_be(u32::try_from(text.len()).expect("no message is that long"));
                out.extend_from_slice(text.as_bytes());
            }
        },
        Value::Object(properties) => {
            out.push(marker::OBJECT);
            encode_properties(properties, out);
        }
        Value::EcmaArray(properties) => {
            out.push(marker::ECMA_ARRAY);
            out.put_u32_be(u32::try_from(properties.len()).unwrap_or(u32::MAX));
            encode_properties(properties, out);
        }
        Value::StrictArray(values) => {
            out.push(marker::STRICT_ARRAY);
            out.put_u32_be(u32::try_from(values.len()).expect("no message is that long"));
            for value in values {
                encode(value, out);
            }
        }
        Value::Null => out.push(marker::NULL),
        Value::Undefined => out.push(marker::UNDEFINED),
        Value::Date(millis) => {
            out.push(marker::DATE);
            out.extend_from_slice(&millis.to_be_bytes());
            out.put_u16_be(0);
        }
        Value::TypedObject {
            class_name,
            properties,
        } => {
            out.push(marker::TYPED_OBJECT);
            encode_name(class_name, out);
            encode_properties(properties, out);
        }
        Value::Unsupported => out.push(marker::UNSUPPORTED),
    }
}

fn encode_properties(properties: &[(String, Value)], out: &mut Vec<u8>) {
    for (name, value) in properties {
        encode_name(name, out);
        encode(value, out);
    }
    out.extend_from_slice(&[0, 0, marker::OBJECT_END]);
}

fn encode_name(name: &str, out: &mut Vec<u8>) {
    let mut length = name.len().min(usize::from(u16::MAX));
    while !name.is_char_boundary(length) {
        length -= 1;
    }
    // The cast keeps the value: it is at most u16::MAX.
    out.put_u16_be(length as u16);
    out.extend_from_slice(&name.as_bytes()[..length]);
}

fn decode_value(
    reader: &mut Reader<'_>,
    budget: &mut Budget,
    depth: usize,
) -> Result<Value, AmfError> {
    budget.take_value()?;
    Ok(match reader.u8()? {
        marker::NUMBER => Value::Number(reader.f64()?),
        marker::BOOLEAN => Value::Boolean(reader.u8()? != 0),
        marker::STRING => Value::String(decode_text(reader, budget)?),
        marker::OBJECT => Value::Object(decode_properties(reader, budget, depth)?),
        marker::NULL => Value::Null,
        marker::UNDEFINED => Value::Undefined,
        // Objects sent twice; no RTMP client was seen to. Its place is kept.
        marker::REFERENCE => {
            reader.u16()?;
            Value::Unsupported
        }
        marker::ECMA_ARRAY => {
            // The count is a hint that is often wrong; the end marker rules.
            reader.u32()?;
            Value::EcmaArray(decode_properties(reader, budget, depth)?)
        }
        marker::STRICT_ARRAY => {
            let count = reader.u32()?;
            let depth = budget.enter(depth)?;
            let mut values = Vec::new();
            for _ in 0..count {
                values.push(decode_value(reader, budget, depth)?);
            }
            Value::StrictArray(values)
        }
        marker::DATE => {
            let millis = reader.f64()?;
            // The time zone is reserved and to be ignored (2.13).
            reader.u16()?;
            Value::Date(millis)
        }
        marker::LONG_STRING | marker::XML_DOCUMENT => {
            // A length that no usize holds is longer than any body.
            let length = usize::try_from(reader.u32()?).map_err(|_| Truncated)?;
            Value::String(budget.take_text(reader.take(length)?)?)
        }
        marker::UNSUPPORTED => Value::Unsupported,
        marker::TYPED_OBJECT => Value::TypedObject {
            class_name: decode_text(reader, budget)?,
            properties: decode_properties(reader, budget, depth)?,
        },
        marker::AVMPLUS_OBJECT => amf3::decode_value(reader, budget, depth)?,
        marker => return Err(AmfError::UnknownMarker { marker }),
    })
}

/// Names and values up to the end marker 00 00 09.
fn decode_properties(
    reader: &mut Reader<'_>,
    budget: &mut Budget,
    depth: usize,
) -> Result<Vec<(String, Value)>, AmfError> {
    let depth = budget.enter(depth)?;
    let mut properties = Vec::new();
    loop {
        if let [0, 0, marker::OBJECT_END, ..] = reader.rest() {
            reader.take(3)?;
            return Ok(properties);
        }
        let name = decode_text(reader, budget)?;
        properties.push((name, decode_value(reader, budget, depth)?));
    }
}

fn decode_text(reader: &mut Reader<'_>, budget: &mut Budget) -> Result<String, AmfError> {
    let length = usize::from(reader.u16()?);
    budget.take_text(reader.take(length)?)
}

/// What of [`AmfLimits`] is left.
pub(super) struct Budget {
    limits: AmfLimits,
    values: usize,
    string_bytes: usize,
}

impl Budget {
    pub(super) const fn new(limits: AmfLimits) -> Self {
        Self {
            limits,
            values: limits.values_max,
            string_bytes: limits.string_bytes_max,
        }
    }

    /// Accounts for one more value.
    pub(super) fn take_value(&mut self) -> Result<(), AmfError> {
        self.values = self.values.checked_sub(1).ok_or(AmfError::TooManyValues {
            max: self.limits.values_max,
        })?;
        Ok(())
    }

    /// Accounts for a string of so many bytes.
    pub(super) fn take_string_bytes(&mut self, count: usize) -> Result<(), AmfError> {
        self.string_bytes =
            self.string_bytes
                .checked_sub(count)
                .ok_or(AmfError::StringsTooLong {
                    max: self.limits.string_bytes_max,
                })?;
        Ok(())
    }

    /// A string from a peer's bytes; what is not UTF-8 becomes U+FFFD.
    pub(super) fn take_text(&mut self, bytes: &[u8]) -> Result<String, AmfError> {
        self.take_string_bytes(bytes.len())?;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    /// The depth inside a container at `depth`.
    pub(super) fn enter(&self, depth: usize) -> Result<usize, AmfError> {
        if depth >= self.limits.depth_max {
            return Err(AmfError::TooDeep {
                max: self.limits.depth_max,
            });
        }
        Ok(depth + 1)
    }
}

/// Why AMF could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AmfError {
    // The peer broke a rule.
    /// The bytes ended inside a value.
    Truncated,
    /// A type marker that AMF does not define, or reserves (movie clip, record set).
    UnknownMarker {
        /// The marker.
        marker: u8,
    },
    /// A type marker that AMF3 does not define.
    UnknownMarker3 {
        /// The marker.
        marker: u8,
    },
    /// An AMF3 reference to what was not sent.
    ReferenceOutOfRange {
        /// Index into the table.
        index: u32,
        /// Entries in the table.
        known: usize,
    },
    // We do not support it.
    /// An AMF3 object of a class that writes its own bytes (1.12, externalizable), whose end
    /// nobody else knows.
    Externalizable,
    // A limit was reached.
    /// Nesting beyond [`AmfLimits::depth_max`].
    TooDeep {
        /// The limit.
        max: usize,
    },
    /// More values than [`AmfLimits::values_max`].
    TooManyValues {
        /// The limit.
        max: usize,
    },
    /// More text than [`AmfLimits::string_bytes_max`].
    StringsTooLong {
        /// The limit.
        max: usize,
    },
}

impl AmfError {
    /// A short name for counters.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Truncated => "amf_truncated",
            Self::UnknownMarker { .. } | Self::UnknownMarker3 { .. } => "amf_unknown_marker",
            Self::ReferenceOutOfRange { .. } => "amf_reference_out_of_range",
            Self::Externalizable => "amf_externalizable",
            Self::TooDeep { .. } => "amf_too_deep",
            Self::TooManyValues { .. } => "amf_too_many_values",
            Self::StringsTooLong { .. } => "amf_strings_too_long",
        }
    }
}

impl From<Truncated> for AmfError {
    fn from(Truncated: Truncated) -> Self {
        Self::Truncated
    }
}

impl fmt::Display for AmfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("AMF ends inside a value"),
            Self::UnknownMarker { marker } => write!(f, "unknown AMF0 marker {marker:#04x}"),
            Self::UnknownMarker3 { marker } => write!(f, "unknown AMF3 marker {marker:#04x}"),
            Self::ReferenceOutOfRange { index, known } => {
                write!(f, "AMF3 reference {index} of {known}")
            }
            Self::Externalizable => f.write_str("AMF3 object of an externalizable class"),
            Self::TooDeep { max } => write!(f, "AMF nested more than {max} deep"),
            Self::TooManyValues { max } => write!(f, "more than {max} AMF values"),
            Self::StringsTooLong { max } => write!(f, "more than {max} bytes of AMF strings"),
        }
    }
}

impl std::error::Error for AmfError {}

/// Type markers (AMF 0 section 2.1).
mod marker {
    pub(super) const NUMBER: u8 = 0x00;
    pub(super) const BOOLEAN: u8 = 0x01;
    pub(super) const STRING: u8 = 0x02;
    pub(super) const OBJECT: u8 = 0x03;
    pub(super) const NULL: u8 = 0x05;
    pub(super) const UNDEFINED: u8 = 0x06;
    pub(super) const REFERENCE: u8 = 0x07;
    pub(super) const ECMA_ARRAY: u8 = 0x08;
    pub(super) const OBJECT_END: u8 = 0x09;
    pub(super) const STRICT_ARRAY: u8 = 0x0a;
    pub(super) const DATE: u8 = 0x0b;
    pub(super) const LONG_STRING: u8 = 0x0c;
    pub(super) const UNSUPPORTED: u8 = 0x0d;
    pub(super) const XML_DOCUMENT: u8 = 0x0f;
    pub(super) const TYPED_OBJECT: u8 = 0x10;
    pub(super) const AVMPLUS_OBJECT: u8 = 0x11;
}

#[cfg(test)]
mod tests;

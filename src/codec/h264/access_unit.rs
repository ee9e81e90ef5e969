//! [`AccessUnit`]: one coded picture in the neutral form of the gateway.

use bytes::Bytes;

use super::{
    ACCESS_UNIT_BYTES_MAX, FORBIDDEN_BIT, H264Error, NAL_UNITS_MAX, PARAMETER_SET_BYTES_MAX,
    annex_b_nal_units, begins_with_start_code, nal_ref_idc, nal_type, nal_unit_type, next_avcc,
};
use crate::codec::bits::BitReader;
use crate::wire::{Reader, Truncated};

/// One access unit as AVCC with 4-byte lengths, and what its NAL units say.
///
/// The payload holds the coded slices (NAL unit types 1 to 5) and the SEI, which carries captions
/// and clocks that are the publisher's own business. Parameter sets are handed out beside it;
/// delimiters, filler and end-of-sequence NAL units upset more players than they help
/// (nginx-rtmp #742). The extensions of scalable and multiview streams go too, which leaves the base
/// layer, and so do types 0 and 24 to 31, which would be taken for packet headers in RTP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessUnit {
    /// The slices and SEI behind 4-byte lengths; empty where there is none, as in an access unit of
    /// parameter sets only.
    pub payload: Bytes,
    /// Whether a slice of an IDR picture is inside: the only thing that makes a key frame.
    pub idr: bool,
    /// Whether there are slices and no other picture refers to any of them (nal_ref_idc 0).
    pub disposable: bool,
    /// Whether a slice is of type B.
    pub has_b_slices: bool,
    /// Whether an SEI says that decoding may begin here without an IDR picture (section D.2.8), as
    /// with intra refresh.
    pub recovery_point: bool,
    /// The sequence parameter sets that came along, in order, each once. Owned, not slices of the
    /// payload.
    pub sps: Vec<Bytes>,
    /// The picture parameter sets that came along, in order, each once. Owned as well.
    pub pps: Vec<Bytes>,
    /// How many NAL units the payload holds.
    pub vcl_count: u16,
}

impl AccessUnit {
    /// Brings an AVCC payload with lengths of `length_size` bytes (1 to 4) to the neutral form.
    ///
    /// Copies nothing where the lengths have 4 bytes and what goes stands before or behind the
    /// slices: the payload is then a slice of the one given. A byte stream of Annex B in its place,
    /// as some encoders send (SRS #184), is recognised by being no AVCC.
    ///
    /// # Errors
    /// For a length past the end, a forbidden bit, an impossible parameter set, and the limits of
    /// [`NAL_UNITS_MAX`] and [`ACCESS_UNIT_BYTES_MAX`].
    pub fn from_avcc(payload: &Bytes, length_size: u8) -> Result<Self, H264Error> {
        let mut unit = AccessUnit::default();
        let mut counted = 0;
        let mut reader = Reader::new(payload);
        // The kept NAL units with their lengths, as long as they are one piece.
        let mut kept: Option<std::ops::Range<usize>> = None;
        let mut one_piece = length_size == 4;
        while !reader.is_empty() {
            let start = payload.len() - reader.len();
            let nal = match next_avcc(&mut reader, length_size) {
                Ok(nal) => nal,
                Err(_) if begins_with_start_code(payload) => return Self::from_annex_b(payload),
                Err(error) => return Err(error),
            };
            count_nal(&mut counted)?;
            if unit.note(nal)? {
                let end = payload.len() - reader.len();
                match &mut kept {
                    None => kept = Some(start..end),
                    Some(range) if range.end == start => range.end = end,
                    Some(_) => one_piece = false,
                }
            }
        }
        let Some(kept) = kept else {
            return Ok(unit);
        };
        if kept.len() > ACCESS_UNIT_BYTES_MAX {
            return Err(H264Error::AccessUnitTooLarge(kept.len()));
        }
        if one_piece {
            unit.payload = payload.slice(kept);
            return Ok(unit);
        }
        let mut builder = AccessUnitBuilder::with_capacity(payload.len());
        let mut reader = Reader::new(payload);
        while !reader.is_empty() {
            builder.push(next_avcc(&mut reader, length_size)?)?;
        }
        builder.finish()
    }

    /// Brings a byte stream of Annex B to the neutral form. Always copies.
    ///
    /// # Errors
    /// As [`AccessUnit::from_avcc`].
    pub fn from_annex_b(payload: &Bytes) -> Result<Self, H264Error> {
        let mut builder = AccessUnitBuilder::with_capacity(payload.len());
        for nal in annex_b_nal_units(payload) {
            builder.push(nal)?;
        }
        builder.finish()
    }

    /// Puts an access unit together from NAL units with their header bytes.
    ///
    /// # Errors
    /// As [`AccessUnit::from_avcc`].
    pub fn from_nal_units<'a>(nals: impl Iterator<Item = &'a [u8]>) -> Result<Self, H264Error> {
        let mut builder = AccessUnitBuilder::with_capacity(0);
        for nal in nals {
            builder.push(nal)?;
        }
        builder.finish()
    }

    /// Whether it holds a picture, and not parameter sets or SEI alone.
    pub const fn has_picture(&self) -> bool {
        self.vcl_count > 0
    }

    /// Takes in what one NAL unit says; answers whether it belongs into the payload.
    fn note(&mut self, nal: &[u8]) -> Result<bool, H264Error> {
        let Some((&header, body)) = nal.split_first() else {
            return Ok(false);
        };
        if header & FORBIDDEN_BIT != 0 {
            return Err(H264Error::ForbiddenBit);
        }
        let kind = nal_unit_type(header);
        match kind {
            1..=5 => {
                let disposable = nal_ref_idc(header) == 0;
                self.disposable = disposable && (self.disposable || self.vcl_count == 0);
                self.idr |= kind == nal_type::IDR;
                // Partitions B and C have no slice header of their own.
                if !matches!(kind, 3 | 4) {
                    self.has_b_slices |= slice_type(body) == Ok(SLICE_TYPE_B);
                }
                self.vcl_count = self
                    .vcl_count
                    .checked_add(1)
                    .ok_or(H264Error::TooManyNalUnits)?;
                Ok(true)
            }
            nal_type::SEI => {
                self.recovery_point |= has_recovery_point(body);
                Ok(true)
            }
            nal_type::SPS => keep_set(&mut self.sps, nal, SPS_MAX).map(|()| false),
            nal_type::PPS => keep_set(&mut self.pps, nal, PPS_MAX).map(|()| false),
            _ => Ok(false),
        }
    }
}

/// Puts an access unit together, whole NAL units and fragments alike, with one copy of each byte.
#[derive(Debug, Default)]
pub struct AccessUnitBuilder {
    buffer: Vec<u8>,
    /// Where the length of the NAL unit in the making stands.
    open: Option<usize>,
    nal_units: usize,
    unit: AccessUnit,
}

impl AccessUnitBuilder {
    /// A builder with room for `bytes`, at most [`ACCESS_UNIT_BYTES_MAX`] at first.
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            buffer: Vec::with_capacity(bytes.min(ACCESS_UNIT_BYTES_MAX)),
            ..Self::default()
        }
    }

    /// Adds a whole NAL unit; an empty one is passed over.
    pub fn push(&mut self, nal: &[u8]) -> Result<(), H264Error> {
        count_nal(&mut self.nal_units)?;
        if self.unit.note(nal)? {
            let len = self.buffer.len() + 4 + nal.len();
            if len > ACCESS_UNIT_BYTES_MAX {
                return Err(H264Error::AccessUnitTooLarge(len));
            }
            // Below ACCESS_UNIT_BYTES_MAX.
            self.buffer.extend((nal.len() as u32).to_be_bytes());
            self.buffer.extend_from_slice(nal);
        }
        Ok(())
    }

    /// Begins a NAL unit that comes in fragments, by its header byte. One that was open is dropped.
    pub fn begin(&mut self, header: u8) {
        self.abandon();
        self.open = Some(self.buffer.len());
        self.buffer.extend([0, 0, 0, 0, header]);
    }

    /// Adds to the NAL unit that was begun.
    ///
    /// # Errors
    /// [`H264Error::Truncated`] where none was begun, [`H264Error::AccessUnitTooLarge`].
    pub fn extend(&mut self, fragment: &[u8]) -> Result<(), H264Error> {
        if self.open.is_none() {
            return Err(H264Error::Truncated);
        }
        let len = self.buffer.len() + fragment.len();
        if len > ACCESS_UNIT_BYTES_MAX {
            return Err(H264Error::AccessUnitTooLarge(len));
        }
        self.buffer.extend_from_slice(fragment);
        Ok(())
    }

    /// Ends the NAL unit that was begun.
    ///
    /// # Errors
    /// [`H264Error::Truncated`] where none was begun; others as [`AccessUnit::from_avcc`].
    pub fn end(&mut self) -> Result<(), H264Error> {
        count_nal(&mut self.nal_units)?;
        let start = self.open.take().ok_or(H264Error::Truncated)?;
        let (lengths, nal) = self
            .buffer
            .get_mut(start..)
            .and_then(|open| open.split_at_mut_checked(4))
            .expect("begin wrote the length");
        // Below ACCESS_UNIT_BYTES_MAX.
        lengths.copy_from_slice(&(nal.len() as u32).to_be_bytes());
        if !self.unit.note(nal)? {
            self.buffer.truncate(start);
        }
        Ok(())
    }

    /// The header byte of the NAL unit that was begun and not ended.
    pub fn open_header(&self) -> Option<u8> {
        self.open
            .and_then(|start| self.buffer.get(start + 4))
            .copied()
    }

    /// The access unit.
    ///
    /// # Errors
    /// [`H264Error::Truncated`] if a NAL unit was begun and not ended.
    pub fn finish(mut self) -> Result<AccessUnit, H264Error> {
        if self.open.is_some() {
            return Err(H264Error::Truncated);
        }
        self.unit.payload = self.buffer.into();
        Ok(self.unit)
    }

    fn abandon(&mut self) {
        if let Some(start) = self.open.take() {
            self.buffer.truncate(start);
        }
    }
}

fn count_nal(count: &mut usize) -> Result<(), H264Error> {
    *count += 1;
    if *count > NAL_UNITS_MAX {
        return Err(H264Error::TooManyNalUnits);
    }
    Ok(())
}

fn keep_set(sets: &mut Vec<Bytes>, set: &[u8], max: usize) -> Result<(), H264Error> {
    if set.len() > PARAMETER_SET_BYTES_MAX {
        return Err(H264Error::ParameterSetTooLarge(set.len()));
    }
    if sets.iter().any(|known| known == set) {
        return Ok(());
    }
    if sets.len() == max {
        return Err(H264Error::TooManyParameterSets(max + 1));
    }
    sets.push(Bytes::copy_from_slice(set));
    Ok(())
}

/// slice_type modulo 5, from the first two elements of slice_header() (section 7.3.3).
fn slice_type(body: &[u8]) -> Result<u32, Truncated> {
    // Two Exp-Golomb codes of at most 63 bits each, with escapes.
    let mut reader = BitReader::of_nal_body(body.get(..24).unwrap_or(body));
    reader.ue()?; // first_mb_in_slice
    Ok(reader.ue()? % 5)
}

/// Whether one of the messages of an SEI NAL unit is a recovery point (section 7.3.2.3.1).
fn has_recovery_point(body: &[u8]) -> bool {
    let mut reader = BitReader::of_nal_body(body);
    let mut messages = || -> Result<bool, Truncated> {
        // Two bytes at least make a message; what is left at the end are trailing bits.
        while reader.bits_remaining() >= 24 {
            let payload_type = sei_number(&mut reader)?;
            let payload_size = sei_number(&mut reader)?;
            if payload_type == SEI_RECOVERY_POINT {
                return Ok(true);
            }
            reader.skip(payload_size.saturating_mul(8))?;
        }
        Ok(false)
    };
    messages().unwrap_or(false)
}

/// A payload type or size: bytes of 255 are added up with the first other one.
fn sei_number(reader: &mut BitReader<'_>) -> Result<usize, Truncated> {
    let mut number = 0;
    loop {
        let byte = reader.byte()?;
        number += usize::from(byte);
        if byte != 255 {
            return Ok(number);
        }
    }
}

/// slice_type 1 and 6, table 7-6.
pub(super) const SLICE_TYPE_B: u32 = 1;

/// slice_type 0 and 5.
pub(super) const SLICE_TYPE_P: u32 = 0;

/// payloadType of recovery_point(), section D.1.
const SEI_RECOVERY_POINT: usize = 6;

/// Most SPS and PPS that one access unit may bring, as many as there are ids for an SPS and as a
/// record can count of PPS.
const SPS_MAX: usize = 31;
const PPS_MAX: usize = 255;

//! H.264 (ITU-T H.264, ISO/IEC 14496-10): parameter sets, the AVCC and Annex B forms, access units.
//!
//! - [`AvcConfig`]: the parameter sets of a track, to and from the AVCDecoderConfigurationRecord of
//!   ISO/IEC 14496-15 section 5.3.3.1.
//! - [`SpsInfo`]: what a sequence parameter set says (section 7.3.2.1.1 and Annex E of H.264).
//! - [`AccessUnit`]: one picture in the gateway's neutral form, and what its NAL units say about
//!   it.
//! - [`References`]: whether pictures can do without the B-frames between them.
//!
//! Nothing is decoded beyond headers, and nothing here allocates more than the input is long.

mod access_unit;
mod avcc;
mod references;
mod sps;

use std::fmt;

use crate::wire::{Reader, Truncated};

pub use access_unit::{AccessUnit, AccessUnitBuilder};
pub use avcc::AvcConfig;
pub use references::{Anchor, References};
pub use sps::{FrameRate, SpsInfo, for_output_at_once};

/// nal_unit_type values, ITU-T H.264 table 7-1, and the packet types that RFC 6184 section 5.2
/// adds.
pub mod nal_type {
    /// Coded slice of a picture that is no IDR picture.
    pub const SLICE: u8 = 1;
    /// Coded slice data partition A.
    pub const PARTITION_A: u8 = 2;
    /// Coded slice of an IDR picture.
    pub const IDR: u8 = 5;
    /// Supplemental enhancement information.
    pub const SEI: u8 = 6;
    /// Sequence parameter set.
    pub const SPS: u8 = 7;
    /// Picture parameter set.
    pub const PPS: u8 = 8;
    /// Access unit delimiter.
    pub const ACCESS_UNIT_DELIMITER: u8 = 9;
    /// Single-time aggregation packet without decoding order number.
    pub const STAP_A: u8 = 24;
    /// Fragmentation unit without decoding order number.
    pub const FU_A: u8 = 28;
}

/// The nal_unit_type in the low five bits of a NAL unit's first byte.
pub const fn nal_unit_type(header: u8) -> u8 {
    header & 0x1f
}

/// The two bits that say whether other pictures refer to this NAL unit; 0 means none does.
pub const fn nal_ref_idc(header: u8) -> u8 {
    (header >> 5) & 3
}

/// Whether a slice of NAL unit bytes begins a picture: first_mb_in_slice is 0, one set bit after
/// the header. Meant for NAL types 1, 2 and 5.
pub fn begins_picture(nal: &[u8]) -> bool {
    nal.get(1).is_some_and(|byte| byte & 0x80 != 0)
}

/// Why H.264 bytes were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum H264Error {
    /// The bytes ended before the value did.
    Truncated,
    /// A configuration record of a version other than 1.
    RecordVersion(u8),
    /// A configuration record that carries no SPS or no PPS; they may come in-band. Not a fault of
    /// the peer by itself: frames can be read with this length size until the sets arrive.
    NoParameterSets {
        /// Bytes of a NAL unit's length in the frames, 1 to 4.
        length_size: u8,
    },
    /// A parameter set whose NAL unit type is another one.
    WrongNalType {
        /// The type that was wanted.
        wanted: u8,
        /// The type that was found.
        found: u8,
    },
    /// A NAL unit with forbidden_zero_bit set (section 7.4.1).
    ForbiddenBit,
    /// A syntax element of an SPS outside its range.
    SpsValue(&'static str),
    /// A picture without an area, or larger than [`PICTURE_SIDE_MAX`].
    PictureSize {
        /// Samples in a line, cropping applied.
        width: u32,
        /// Lines, cropping applied.
        height: u32,
    },
    /// A length size other than 1 to 4 bytes.
    LengthSize(u8),
    /// A parameter set longer than [`PARAMETER_SET_BYTES_MAX`].
    ParameterSetTooLarge(usize),
    /// More parameter sets than the record can count.
    TooManyParameterSets(usize),
    /// More NAL units in one access unit than [`NAL_UNITS_MAX`].
    TooManyNalUnits,
    /// An access unit of more than [`ACCESS_UNIT_BYTES_MAX`].
    AccessUnitTooLarge(usize),
}

impl H264Error {
    /// A short name for counters.
    pub const fn reason(&self) -> &'static str {
        match self {
            H264Error::Truncated => "h264_truncated",
            H264Error::RecordVersion(_) => "h264_record_version",
            H264Error::NoParameterSets { .. } => "h264_no_parameter_sets",
            H264Error::WrongNalType { .. } => "h264_wrong_nal_type",
            H264Error::ForbiddenBit => "h264_forbidden_bit",
            H264Error::SpsValue(_) => "h264_sps_value",
            H264Error::PictureSize { .. } => "h264_picture_size",
            H264Error::LengthSize(_) => "h264_length_size",
            H264Error::ParameterSetTooLarge(_) => "h264_parameter_set_too_large",
            H264Error::TooManyParameterSets(_) => "h264_too_many_parameter_sets",
            H264Error::TooManyNalUnits => "h264_too_many_nal_units",
            H264Error::AccessUnitTooLarge(_) => "h264_access_unit_too_large",
        }
    }
}

impl fmt::Display for H264Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            H264Error::Truncated => f.write_str("H.264 data ends early"),
            H264Error::RecordVersion(version) => {
                write!(f, "AVC configuration record of version {version}, not 1")
            }
            H264Error::NoParameterSets { .. } => {
                f.write_str("AVC configuration record without SPS and PPS")
            }
            H264Error::WrongNalType { wanted, found } => {
                write!(f, "NAL unit of type {found} where type {wanted} must be")
            }
            H264Error::ForbiddenBit => f.write_str("NAL unit with the forbidden bit set"),
            H264Error::SpsValue(element) => write!(f, "SPS: {element} out of range"),
            H264Error::PictureSize { width, height } => {
                write!(f, "SPS: no picture of {width}x{height} is possible here")
            }
            H264Error::LengthSize(size) => write!(f, "NAL unit lengths of {size} bytes"),
            H264Error::ParameterSetTooLarge(len) => write!(f, "parameter set of {len} bytes"),
            H264Error::TooManyParameterSets(count) => write!(f, "{count} parameter sets"),
            H264Error::TooManyNalUnits => {
                write!(f, "access unit of more than {NAL_UNITS_MAX} NAL units")
            }
            H264Error::AccessUnitTooLarge(len) => write!(f, "access unit of {len} bytes"),
        }
    }
}

impl std::error::Error for H264Error {}

impl From<Truncated> for H264Error {
    fn from(_: Truncated) -> Self {
        H264Error::Truncated
    }
}

/// Walks an AVCC payload, whose NAL units stand behind lengths of `length_size` bytes (1 to 4).
///
/// Empty NAL units are passed over. A length that reaches past the end is [`H264Error::Truncated`],
/// a wrong `length_size` is [`H264Error::LengthSize`]; either ends the walk.
pub fn avcc_nal_units(
    payload: &[u8],
    length_size: u8,
) -> impl Iterator<Item = Result<&[u8], H264Error>> {
    let mut reader = Reader::new(payload);
    std::iter::from_fn(move || {
        while !reader.is_empty() {
            let nal = next_avcc(&mut reader, length_size);
            match nal {
                Ok([]) => continue,
                Ok(nal) => return Some(Ok(nal)),
                Err(error) => {
                    reader = Reader::new(&[]);
                    return Some(Err(error));
                }
            }
        }
        None
    })
}

fn next_avcc<'a>(reader: &mut Reader<'a>, length_size: u8) -> Result<&'a [u8], H264Error> {
    let len = match length_size {
        1 => u32::from(reader.u8()?),
        2 => u32::from(reader.u16()?),
        3 => reader.u24()?,
        4 => reader.u32()?,
        other => return Err(H264Error::LengthSize(other)),
    };
    let len = usize::try_from(len).map_err(|_| H264Error::Truncated)?;
    Ok(reader.take(len)?)
}

/// Walks a byte stream of Annex B: NAL units behind start codes of three or four bytes.
///
/// What stands before the first start code is passed over, and so are empty NAL units and the zero
/// bytes that may trail one (section B.1).
pub fn annex_b_nal_units(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    let finder = memchr::memmem::Finder::new(START_CODE);
    let mut rest = finder
        .find(payload)
        .and_then(|at| payload.get(at + START_CODE.len()..));
    std::iter::from_fn(move || {
        while let Some(nal_and_more) = rest {
            let nal = match finder.find(nal_and_more) {
                Some(at) => {
                    rest = nal_and_more.get(at + START_CODE.len()..);
                    nal_and_more.get(..at).unwrap_or_default()
                }
                None => {
                    rest = None;
                    nal_and_more
                }
            };
            // A NAL unit never ends in a zero byte (section 7.4.1): these are trailing zeros or
            // the first byte of a four-byte start code.
            let len = nal
                .iter()
                .rposition(|byte| *byte != 0)
                .map_or(0, |at| at + 1);
            if len > 0 {
                return nal.get(..len);
            }
        }
        None
    })
}

/// Whether a payload that should be AVCC with 4-byte lengths is a byte stream of Annex B instead.
///
/// `00 00 01 xx` is also the length of an AVCC NAL unit of 256 to 511 bytes, so the payload must
/// begin with a start code *and* not be valid as AVCC.
pub fn is_annex_b(payload: &[u8]) -> bool {
    begins_with_start_code(payload) && avcc_nal_units(payload, 4).any(|nal| nal.is_err())
}

/// Whether the bytes begin with a start code and a plausible NAL unit header.
fn begins_with_start_code(payload: &[u8]) -> bool {
    let header = match payload {
        [0, 0, 1, header, ..] | [0, 0, 0, 1, header, ..] => *header,
        _ => return false,
    };
    header & FORBIDDEN_BIT == 0 && (1..=23).contains(&nal_unit_type(header))
}

/// The three bytes that announce a NAL unit in Annex B; a fourth, zero, may stand before them.
const START_CODE: &[u8] = &[0, 0, 1];

/// forbidden_zero_bit of the NAL unit header.
const FORBIDDEN_BIT: u8 = 0x80;

/// Longest SPS or PPS in bytes. Real ones have 10 to 100, with full scaling lists some 300; longer
/// is an error.
pub const PARAMETER_SET_BYTES_MAX: usize = 4096;

/// Most NAL units of one access unit. Encoders that cut slices to the packet size make some 800 for
/// a large IDR picture; beyond the limit the access unit is refused.
pub const NAL_UNITS_MAX: usize = 4096;

/// Longest access unit in bytes, as large as the largest picture of level 6.2 that a live source
/// sends. A longer one is refused.
pub const ACCESS_UNIT_BYTES_MAX: usize = 8 << 20;

/// Longest side of a picture in samples, that of level 6.2 (section A.3.1). A larger one is an
/// error.
pub const PICTURE_SIDE_MAX: u32 = 16_880;

#[cfg(test)]
mod tests;

//! [`Payload`]: what one RTP payload of H.264 carries (RFC 6184 section 5.4), and how payloads in
//! sequence make an [`AccessUnit`](crate::codec::h264::AccessUnit).
//!
//! Packetization-mode 1: single NAL unit packets, STAP-A, FU-A. The interleaved types of mode 2 are
//! never negotiated.

use std::fmt;

use crate::codec::h264::{AccessUnitBuilder, H264Error, begins_picture, nal_type, nal_unit_type};
use crate::wire::{Reader, Truncated};

/// Why a payload was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DepacketizeError {
    /// The payload ended before its headers did, or an aggregated NAL unit reaches past the end.
    Truncated,
    /// A packet type that packetization-mode 1 has not: 0, 25 to 27 or 29 to 31.
    PacketType(u8),
    /// A fragment of another NAL unit than the one that was begun, or of none; or a NAL unit that
    /// begins while another one is unfinished.
    FragmentOrder,
    /// The NAL unit inside is refused.
    H264(H264Error),
}

impl DepacketizeError {
    /// A short name for counters.
    pub const fn reason(&self) -> &'static str {
        match self {
            DepacketizeError::Truncated => "rtp_h264_truncated",
            DepacketizeError::PacketType(_) => "rtp_h264_packet_type",
            DepacketizeError::FragmentOrder => "rtp_h264_fragment_order",
            DepacketizeError::H264(error) => error.reason(),
        }
    }
}

impl fmt::Display for DepacketizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DepacketizeError::Truncated => f.write_str("H.264 RTP payload ends early"),
            DepacketizeError::PacketType(kind) => write!(f, "H.264 RTP packet of type {kind}"),
            DepacketizeError::FragmentOrder => f.write_str("H.264 fragments out of order"),
            DepacketizeError::H264(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DepacketizeError {}

impl From<Truncated> for DepacketizeError {
    fn from(_: Truncated) -> Self {
        DepacketizeError::Truncated
    }
}

impl From<H264Error> for DepacketizeError {
    fn from(error: H264Error) -> Self {
        DepacketizeError::H264(error)
    }
}

/// What one RTP payload carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// One NAL unit, header byte included.
    Single(&'a [u8]),
    /// NAL units behind 16-bit lengths.
    StapA(&'a [u8]),
    /// A piece of a NAL unit.
    FuA {
        /// The header byte of the NAL unit.
        header: u8,
        /// Whether it is the first piece.
        start: bool,
        /// Whether it is the last piece.
        end: bool,
        /// The piece, header byte left out.
        fragment: &'a [u8],
    },
}

impl<'a> Payload<'a> {
    /// Reads the headers of a payload.
    ///
    /// A fragment that is first and last at once (forbidden by section 5.8, sent all the same) is
    /// read as one.
    pub fn decode(payload: &'a [u8]) -> Result<Self, DepacketizeError> {
        let (&indicator, rest) = payload.split_first().ok_or(DepacketizeError::Truncated)?;
        match nal_unit_type(indicator) {
            1..=23 => Ok(Payload::Single(payload)),
            nal_type::STAP_A => Ok(Payload::StapA(rest)),
            nal_type::FU_A => {
                let (&fu, fragment) = rest.split_first().ok_or(DepacketizeError::Truncated)?;
                if !(1..=23).contains(&nal_unit_type(fu)) {
                    return Err(DepacketizeError::PacketType(nal_unit_type(fu)));
                }
                Ok(Payload::FuA {
                    header: (indicator & 0xe0) | nal_unit_type(fu),
                    start: fu & 0x80 != 0,
                    end: fu & 0x40 != 0,
                    fragment,
                })
            }
            other => Err(DepacketizeError::PacketType(other)),
        }
    }

    /// What the payload tells of the access unit that it belongs to.
    pub fn hint(&self) -> Hint {
        match *self {
            Payload::Single(nal) => Hint::of_nal(nal),
            Payload::StapA(units) => stap_nal_units(units)
                .map_while(Result::ok)
                .fold(Hint::default(), |hint, nal| hint.and(Hint::of_nal(nal))),
            Payload::FuA {
                header,
                start,
                fragment,
                ..
            } => {
                let first = fragment.first().copied().unwrap_or(0);
                let mut hint = Hint::of_nal(&[header, first]);
                if !start {
                    // The first byte of a later fragment is no slice header.
                    hint.sps = false;
                    hint.begins_picture = false;
                }
                hint
            }
        }
    }

    /// Adds the payload to an access unit in the making.
    pub fn append_to(&self, unit: &mut AccessUnitBuilder) -> Result<(), DepacketizeError> {
        match *self {
            Payload::FuA {
                header,
                start,
                end,
                fragment,
            } => {
                match (start, unit.open_header()) {
                    (true, None) => unit.begin(header),
                    // Some senders clear NRI in later fragments; only the type counts.
                    (false, Some(open)) if nal_unit_type(open) == nal_unit_type(header) => {}
                    _ => return Err(DepacketizeError::FragmentOrder),
                }
                unit.extend(fragment)?;
                if end {
                    unit.end()?;
                }
                Ok(())
            }
            _ if unit.open_header().is_some() => Err(DepacketizeError::FragmentOrder),
            Payload::Single(nal) => Ok(unit.push(nal)?),
            Payload::StapA(units) => {
                for nal in stap_nal_units(units) {
                    unit.push(nal?)?;
                }
                Ok(())
            }
        }
    }
}

/// What a payload tells of its access unit before all of it is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hint {
    /// A slice of an IDR picture is inside.
    pub idr: bool,
    /// A sequence parameter set is inside. It stands before all slices (H.264 section 7.4.1.2.3).
    pub sps: bool,
    /// A slice is inside that is the first of its picture.
    pub begins_picture: bool,
    /// A slice is inside that belongs to no IDR picture.
    pub other_slice: bool,
}

impl Hint {
    fn of_nal(nal: &[u8]) -> Self {
        let kind = nal.first().map_or(0, |header| nal_unit_type(*header));
        let slice = matches!(kind, nal_type::SLICE..=nal_type::IDR);
        Self {
            idr: kind == nal_type::IDR,
            sps: kind == nal_type::SPS,
            begins_picture: slice && !matches!(kind, 3 | 4) && begins_picture(nal),
            other_slice: slice && kind != nal_type::IDR,
        }
    }

    /// Whether no slice is inside: parameter sets, delimiters, SEI.
    pub const fn is_prelude(self) -> bool {
        !self.idr && !self.other_slice
    }

    const fn and(self, other: Self) -> Self {
        Self {
            idr: self.idr || other.idr,
            sps: self.sps || other.sps,
            begins_picture: self.begins_picture || other.begins_picture,
            other_slice: self.other_slice || other.other_slice,
        }
    }
}

/// The NAL units of a STAP-A behind its header byte; empty ones are passed over. A length past the
/// end ends the walk with an error.
pub fn stap_nal_units(units: &[u8]) -> impl Iterator<Item = Result<&[u8], Truncated>> {
    let mut reader = Reader::new(units);
    std::iter::from_fn(move || {
        while !reader.is_empty() {
            let nal = reader.u16().and_then(|len| reader.take(usize::from(len)));
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::codec::h264::AccessUnit;

    /// An access unit from its payloads in order.
    pub(in crate::rtp) fn assemble<P: AsRef<[u8]>>(
        payloads: &[P],
    ) -> Result<AccessUnit, DepacketizeError> {
        let mut unit = AccessUnitBuilder::default();
        for payload in payloads {
            Payload::decode(payload.as_ref())?.append_to(&mut unit)?;
        }
        Ok(unit.finish()?)
    }

    #[test]
    fn each_packet_type_is_read() {
        assert_eq!(Payload::decode(&[0x41, 1]), Ok(Payload::Single(&[0x41, 1])));
        assert_eq!(
            Payload::decode(&[0x78, 0, 1, 0x67]),
            Ok(Payload::StapA(&[0, 1, 0x67]))
        );
        let fragment: &[u8] = &[9, 8];
        assert_eq!(
            Payload::decode(&[0x7c, 0x85, 9, 8]),
            Ok(Payload::FuA {
                header: 0x65,
                start: true,
                end: false,
                fragment
            })
        );
        assert_eq!(
            Payload::decode(&[0x1c, 0x41, 9, 8]),
            Ok(Payload::FuA {
                header: 0x01,
                start: false,
                end: true,
                fragment
            })
        );
        for kind in [0u8, 25, 26, 27, 29, 30, 31] {
            assert_eq!(
                Payload::decode(&[0x60 | kind, 1, 2, 3]),
                Err(DepacketizeError::PacketType(kind))
            );
        }
        // A fragment of an aggregation packet.
        assert_eq!(
            Payload::decode(&[0x7c, 0x98, 1]),
            Err(DepacketizeError::PacketType(24))
        );
        assert_eq!(Payload::decode(&[]), Err(DepacketizeError::Truncated));
        assert_eq!(Payload::decode(&[0x7c]), Err(DepacketizeError::Truncated));
    }

    #[test]
    fn hints_tell_where_a_picture_begins() {
        let hint = |bytes: &[u8]| Payload::decode(bytes).expect("known").hint();
        // Chromium: SPS and PPS in a STAP-A; OBS: by themselves.
        assert!(hint(&[0x78, 0, 2, 0x67, 1, 0, 2, 0x68, 1]).sps);
        assert!(hint(&[0x67, 1]).sps && !hint(&[0x68, 1]).sps);
        // An IDR slice with first_mb_in_slice 0, then one further down.
        let first = hint(&[0x7c, 0x85, 0x88, 1]);
        assert!(first.idr && first.begins_picture && !first.other_slice);
        let later = hint(&[0x7c, 0x85, 0x21, 1]);
        assert!(later.idr && !later.begins_picture);
        // A middle fragment begins nothing, whatever its bytes.
        let middle = hint(&[0x7c, 0x05, 0x88, 1]);
        assert!(middle.idr && !middle.begins_picture);
        let other = hint(&[0x41, 0x9a]);
        assert!(other.other_slice && other.begins_picture && !other.idr);
        // Everything in one packet.
        let all = hint(&[0x78, 0, 2, 0x67, 1, 0, 2, 0x65, 0x88]);
        assert!(all.sps && all.idr && all.begins_picture);
    }

    /// CASES 40, the depacketizer's part: S and E are there, the middle is not.
    #[test]
    fn fragments_out_of_order_are_refused() {
        let whole: [&[u8]; 3] = [&[0x7c, 0x85, 1], &[0x7c, 0x05, 2], &[0x7c, 0x45, 3]];
        let unit = assemble(&whole).expect("whole");
        assert_eq!(unit.payload.as_ref(), [0, 0, 0, 4, 0x65, 1, 2, 3]);
        // The first is missing, a second one begins, another type goes on, a NAL unit comes
        // between.
        assert_eq!(assemble(&whole[1..]), Err(DepacketizeError::FragmentOrder));
        assert_eq!(
            assemble(&[whole[0], whole[0]]),
            Err(DepacketizeError::FragmentOrder)
        );
        let other: &[u8] = &[0x7c, 0x41, 3];
        assert_eq!(
            assemble(&[whole[0], other]),
            Err(DepacketizeError::FragmentOrder)
        );
        let single: &[u8] = &[0x41, 3];
        assert_eq!(
            assemble(&[whole[0], single]),
            Err(DepacketizeError::FragmentOrder)
        );
        // The last is missing.
        assert_eq!(
            assemble(&whole[..2]),
            Err(DepacketizeError::H264(H264Error::Truncated))
        );
        // First and last at once is forbidden and harmless.
        let both: &[u8] = &[0x7c, 0xc5, 7];
        assert_eq!(
            assemble(&[both]).expect("whole").payload.as_ref(),
            [0, 0, 0, 2, 0x65, 7]
        );
    }

    #[test]
    fn aggregates_are_checked_to_their_end() {
        let stap: &[u8] = &[0x78, 0, 2, 0x67, 1, 0, 0, 0, 3, 0x65, 0x88, 2];
        let unit = assemble(&[stap]).expect("whole");
        assert_eq!(unit.payload.as_ref(), [0, 0, 0, 3, 0x65, 0x88, 2]);
        assert_eq!(unit.sps.len(), 1);
        for len in 2..stap.len() {
            let cut = assemble(&[&stap[..len]]);
            // At the edges of the units inside, nothing shows that something is missing.
            assert_eq!(cut.is_ok(), matches!(len, 5 | 7), "{len}");
        }
    }

    #[test]
    fn damaged_payloads_are_answered() {
        for payload in [
            &[0x7c, 0x85, 1, 2][..],
            &[0x78, 0, 2, 0x67, 1, 0, 3, 0x65, 0x88, 2],
            &[0x65, 0x88, 1],
        ] {
            for len in 0..payload.len() {
                let _ = assemble(&[&payload[..len]]);
                let _ = Payload::decode(&payload[..len]).map(|payload| payload.hint());
            }
            for bit in 0..payload.len() * 8 {
                let mut damaged = payload.to_vec();
                damaged[bit / 8] ^= 1 << (bit % 8);
                let _ = assemble(&[&damaged]);
                let _ = Payload::decode(&damaged).map(|payload| payload.hint());
            }
        }
    }
}

//! [`packetize`]: an access unit as RTP payloads, RFC 6184 with packetization-mode 1.
//!
//! Done once per frame; all viewers share the payloads. Single NAL unit packets (section 5.6),
//! fragments (FU-A, section 5.8) of equal size, and one STAP-A (section 5.7.1) for the parameter
//! sets in front of an IDR picture.

use std::sync::Arc;

use bytes::Bytes;

use crate::codec::h264::{nal_type, nal_unit_type};
use crate::wire::WriteExt;

/// The payloads of one access unit, in order. All have its timestamp; the marker belongs to the
/// last one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RtpPayloads(pub Box<[Arc<[u8]>]>);

impl RtpPayloads {
    /// Packetizes an access unit, see [`packetize`].
    pub fn new(
        frame_avcc: &[u8],
        parameter_sets: Option<(&[Bytes], &[Bytes])>,
        payload_bytes_max: usize,
    ) -> Self {
        Self(packetize(frame_avcc, parameter_sets, payload_bytes_max).into())
    }

    /// Each payload with whether it carries the marker.
    pub fn with_markers(&self) -> impl Iterator<Item = (&Arc<[u8]>, bool)> {
        let last = self.0.len().wrapping_sub(1);
        let at = self.0.iter().enumerate();
        at.map(move |(index, payload)| (payload, index == last))
    }

    /// Bytes of all payloads.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|payload| payload.len()).sum()
    }
}

/// Cuts an access unit in neutral form (AVCC, 4-byte lengths) into RTP payloads of at most
/// `payload_bytes_max` bytes; none for an access unit without NAL units.
///
/// `parameter_sets` (SPS, PPS) go in front: in one STAP-A, or each by itself where that would be too
/// large. The fragments of a NAL unit have the same size but for the last, which may be smaller: made
/// for segmentation offload. No NAL unit becomes a single fragment. A limit below
/// [`PAYLOAD_BYTES_MIN`] is taken for that. NAL unit types that are packet types in RTP (0, 24 to 31),
/// and what follows a length that reaches past the end, are left out; a neutral frame has neither.
pub fn packetize(
    frame_avcc: &[u8],
    parameter_sets: Option<(&[Bytes], &[Bytes])>,
    payload_bytes_max: usize,
) -> Vec<Arc<[u8]>> {
    let max = payload_bytes_max.max(PAYLOAD_BYTES_MIN);
    let mut out = Vec::with_capacity(frame_avcc.len() / max + 2);
    if let Some((sps, pps)) = parameter_sets {
        push_parameter_sets(sps, pps, max, &mut out);
    }
    let mut rest = frame_avcc;
    while let Some((nal, unit, more)) = split_unit(rest) {
        push_nal(nal, unit, max, &mut out);
        rest = more;
    }
    out
}

/// The first NAL unit, the same with its length in front, and what follows. `None` at the end.
fn split_unit(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let len = usize::try_from(u32::from_be_bytes(*bytes.first_chunk()?)).ok()?;
    let (unit, rest) = bytes.split_at_checked(len.checked_add(4)?)?;
    Some((unit.get(4..)?, unit, rest))
}

/// Packetizes `nal`, which is the end of `unit`; what stands before it there may be anything, but
/// not nothing.
fn push_nal(nal: &[u8], unit: &[u8], max: usize, out: &mut Vec<Arc<[u8]>>) {
    let Some(&header) = nal.first() else {
        return;
    };
    if !(1..=23).contains(&nal_unit_type(header)) {
        return;
    }
    if nal.len() <= max {
        out.push(nal.into());
        return;
    }
    let body_len = nal.len() - 1;
    let body_start = unit.len() - body_len;
    let count = body_len.div_ceil(max - FU_HEADER_LEN);
    let fragment_len = body_len.div_ceil(count);
    // F and NRI go into the FU indicator, the type into the FU header.
    let indicator = (header & 0xe0) | nal_type::FU_A;
    let kind = nal_unit_type(header);
    let mut start = body_start;
    while start < unit.len() {
        let end = (start + fragment_len).min(unit.len());
        // One copy that begins two bytes early; these two then become the FU headers.
        let mut payload: Arc<[u8]> = unit
            .get(start - FU_HEADER_LEN..end)
            .expect("a length and a header stand before the body")
            .into();
        let [first, second, ..] = Arc::get_mut(&mut payload).expect("not shared yet") else {
            return;
        };
        *first = indicator;
        *second = kind
            | if start == body_start { FU_START } else { 0 }
            | if end == unit.len() { FU_END } else { 0 };
        out.push(payload);
        start = end;
    }
}

fn push_parameter_sets(sps: &[Bytes], pps: &[Bytes], max: usize, out: &mut Vec<Arc<[u8]>>) {
    let sets = || sps.iter().chain(pps).filter(|set| !set.is_empty());
    let len = 1 + sets().map(|set| 2 + set.len()).sum::<usize>();
    let fits = len <= max && sets().all(|set| u16::try_from(set.len()).is_ok());
    if fits && sets().nth(1).is_some() {
        // F is the or of all, NRI the highest (section 5.7).
        let forbidden = sets().fold(0, |bits, set| bits | (set[0] & 0x80));
        let importance = sets().map(|set| set[0] & 0x60).max().unwrap_or(0);
        let mut stap = Vec::with_capacity(len);
        stap.push(forbidden | importance | nal_type::STAP_A);
        for set in sets() {
            // Checked above.
            stap.put_u16_be(set.len() as u16);
            stap.extend_from_slice(set);
        }
        out.push(stap.into());
        return;
    }
    for set in sets() {
        // Too large for one packet, a set is cut like any other NAL unit.
        let unit: Vec<u8> = [0; 4].into_iter().chain(set.iter().copied()).collect();
        push_nal(set, &unit, max, out);
    }
}

/// FU indicator and FU header.
const FU_HEADER_LEN: usize = 2;
const FU_START: u8 = 0x80;
const FU_END: u8 = 0x40;

/// Smallest payload limit in bytes that makes sense; a smaller one is taken for this.
pub const PAYLOAD_BYTES_MIN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtp::h264_depacketizer::tests::assemble;

    fn unit(nals: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for nal in nals {
            out.extend((nal.len() as u32).to_be_bytes());
            out.extend_from_slice(nal);
        }
        out
    }

    fn slice(header: u8, len: usize) -> Vec<u8> {
        let mut nal: Vec<u8> = (0..len).map(|i| (i * 7 % 251) as u8 | 1).collect();
        nal[0] = header;
        nal
    }

    #[test]
    fn small_nal_units_go_alone() {
        let nals: [&[u8]; 2] = [&[0x41, 0x9a, 1], &[0x41, 0x30, 2]];
        let payloads = packetize(&unit(&nals), None, 1200);
        assert_eq!(payloads.len(), 2);
        assert_eq!((&payloads[0][..], &payloads[1][..]), (nals[0], nals[1]));
        let shared = RtpPayloads::new(&unit(&nals), None, 1200);
        let markers: Vec<bool> = shared.with_markers().map(|(_, marker)| marker).collect();
        assert_eq!((markers, shared.bytes()), (vec![false, true], 6));
        assert!(packetize(&[], None, 1200).is_empty());
    }

    #[test]
    fn parameter_sets_go_first_in_one_stap_a() {
        let sps = [Bytes::from_static(&[0x67, 0x42, 0xc0, 0x1e])];
        let pps = [
            Bytes::from_static(&[0x68, 0xce]),
            Bytes::from_static(&[0x28, 0xcf]),
        ];
        let payloads = packetize(&unit(&[&[0x65, 0x88]]), Some((&sps, &pps)), 1200);
        assert_eq!(payloads.len(), 2);
        assert_eq!(
            payloads[0][..],
            [
                0x78, 0, 4, 0x67, 0x42, 0xc0, 0x1e, 0, 2, 0x68, 0xce, 0, 2, 0x28, 0xcf
            ]
        );
        assert_eq!(payloads[1][..], [0x65, 0x88]);
        // One set needs no aggregation.
        let payloads = packetize(&[], Some((&sps, &[])), 1200);
        assert_eq!(payloads.len(), 1);
        assert_eq!(payloads[0][..], sps[0]);
    }

    #[test]
    fn parameter_sets_too_large_for_one_packet_go_alone() {
        let sps = [Bytes::from(slice(0x67, 60))];
        let pps = [Bytes::from(slice(0x68, 200))];
        let payloads = packetize(&unit(&[&[0x65, 0x88]]), Some((&sps, &pps)), 64);
        assert_eq!(payloads[0][..], sps[0]);
        assert!(
            payloads[1..5]
                .iter()
                .all(|p| p[0] == 0x7c && p[1] & 0x1f == 8)
        );
        let unit = assemble(&payloads).expect("whole");
        assert_eq!((unit.sps, unit.pps), (sps.to_vec(), pps.to_vec()));
    }

    #[test]
    fn fragments_are_equal_and_marked_at_both_ends() {
        // 1201 bytes at a limit of 1200: two fragments of 600 bytes and their headers.
        let nal = slice(0x65, 1201);
        let payloads = packetize(&unit(&[&nal]), None, 1200);
        let heads: Vec<[u8; 2]> = payloads.iter().map(|p| [p[0], p[1]]).collect();
        assert_eq!(heads, [[0x7c, 0x85], [0x7c, 0x45]]);
        assert_eq!((payloads[0].len(), payloads[1].len()), (602, 602));
        assert_eq!(payloads[0][2..], nal[1..601]);
        assert_eq!(payloads[1][2..], nal[601..]);
        // At the limit it is not cut: never a single fragment.
        assert_eq!(packetize(&unit(&[&nal[..1200]]), None, 1200).len(), 1);
        // NRI 0 and type 1 survive.
        let payloads = packetize(&unit(&[&slice(0x01, 3000)]), None, 1000);
        let heads: Vec<[u8; 2]> = payloads.iter().map(|p| [p[0], p[1]]).collect();
        assert_eq!(
            heads,
            [[0x1c, 0x81], [0x1c, 0x01], [0x1c, 0x01], [0x1c, 0x41]]
        );
    }

    /// CASES 38, the packetizer's part: a 300 kB IDR in equal packets.
    #[test]
    fn case_38_a_large_idr_is_cut_evenly() {
        let nal = slice(0x65, 300_000);
        let payloads = packetize(&unit(&[&nal]), None, 1200);
        assert_eq!(payloads.len(), 299_999usize.div_ceil(1198));
        let first = payloads[0].len();
        assert!(payloads.iter().rev().skip(1).all(|p| p.len() == first));
        let last = payloads.last().map_or(0, |p| p.len());
        assert!(last <= first && first - last < payloads.len());
        assert_eq!(
            assemble(&payloads).expect("whole").payload.as_ref(),
            unit(&[&nal])
        );
    }

    #[test]
    fn access_units_of_every_size_come_back() {
        let sps = [Bytes::from_static(&[0x67, 0x42, 0xc0, 0x1e])];
        let pps = [Bytes::from_static(&[0x68, 0xce])];
        for len in (2..400).chain([1199, 1200, 1201, 2397, 2398, 5000]) {
            for max in [64, 65, 100, 1200] {
                let (a, b) = (slice(0x65, len), slice(0x65, len / 2 + 2));
                let avcc = unit(&[&a, &b, &a]);
                let payloads = packetize(&avcc, Some((&sps, &pps)), max);
                assert!(payloads.iter().all(|p| p.len() <= max), "{len} at {max}");
                let whole = assemble(&payloads).expect("whole");
                assert_eq!(whole.payload.as_ref(), avcc, "{len} at {max}");
                assert_eq!((whole.vcl_count, whole.idr), (3, true));
                assert_eq!((&whole.sps[..], &whole.pps[..]), (&sps[..], &pps[..]));
            }
        }
    }

    #[test]
    fn nonsense_is_left_out() {
        let mut bytes = unit(&[&[0x78, 1, 2], &[0x41, 0x9a], &[], &[0x60, 1]]);
        bytes.extend([0, 0, 1, 0, 0x41]);
        let payloads = packetize(&bytes, None, 0);
        assert_eq!(payloads.len(), 1);
        assert_eq!(payloads[0][..], [0x41, 0x9a]);
    }
}

//! RTCP of a viewer: the reports we write, and what its reports say (RFC 3550 section 6,
//! RFC 4585 section 6, RFC 5104 section 4.3, RFC 3611).

use crate::wire::WriteExt;

/// What one report of a viewer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Report<'a> {
    /// How a source of ours arrives.
    Reception(Reception),
    /// Packets of a source of ours are missing.
    Nack { ssrc: u32, lost: Lost<'a> },
    /// A source of ours cannot be decoded: PLI, or FIR with its sequence number.
    KeyframeRequest { ssrc: u32, fir: Option<u8> },
    /// A receiver wants to know its round trip: the middle of its NTP time.
    ReferenceTime { from: u32, ntp_middle: u32 },
}

/// A reception report block (RFC 3550 section 6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reception {
    pub(super) ssrc: u32,
    /// In 1/256, since the report before.
    pub(super) fraction_lost: u8,
    /// The middle of the NTP time in our last report, 0 for none.
    pub(super) last_report: u32,
    /// How long ago that came, in 1/65,536 s.
    pub(super) delay: u32,
}

/// Sequence numbers of a NACK (RFC 4585 section 6.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lost<'a>(&'a [u8]);

impl<'a> Lost<'a> {
    /// As they stand in it.
    pub(super) fn sequences(self) -> impl Iterator<Item = u16> + use<'a> {
        self.0.chunks_exact(4).flat_map(|entry| {
            let first = u16::from_be_bytes([entry[0], entry[1]]);
            let mask = u16::from_be_bytes([entry[2], entry[3]]);
            let following = (0..16)
                .filter(move |bit| mask & (1 << bit) != 0)
                .map(move |bit| first.wrapping_add(bit + 1));
            std::iter::once(first).chain(following)
        })
    }
}

/// Reads a compound report up to its end or its first malformed part; other kinds are passed
/// over. The work is bounded by the datagram.
pub(super) fn decode<'a>(bytes: &'a [u8], mut tell: impl FnMut(Report<'a>)) {
    let mut rest = bytes;
    while let Some((kind, count, body, after)) = split(rest) {
        match kind {
            SENDER_REPORT => receptions(body.get(24..).unwrap_or_default(), count, &mut tell),
            RECEIVER_REPORT => receptions(body.get(4..).unwrap_or_default(), count, &mut tell),
            TRANSPORT_FEEDBACK if count == NACK => {
                if let (Some(ssrc), Some(lost)) = (word(body, 4), body.get(8..)) {
                    let lost = Lost(lost);
                    tell(Report::Nack { ssrc, lost });
                }
            }
            PAYLOAD_FEEDBACK if count == PLI => {
                if let Some(ssrc) = word(body, 4) {
                    tell(Report::KeyframeRequest { ssrc, fir: None });
                }
            }
            PAYLOAD_FEEDBACK if count == FIR => {
                for entry in body.get(8..).unwrap_or_default().chunks_exact(8) {
                    if let Some(ssrc) = word(entry, 0) {
                        let fir = Some(entry[4]);
                        tell(Report::KeyframeRequest { ssrc, fir });
                    }
                }
            }
            EXTENDED_REPORT => reference_times(body, &mut tell),
            _ => {}
        }
        rest = after;
    }
}

/// The first report of a compound: its type, its count or format, its body, what follows.
fn split(bytes: &[u8]) -> Option<(u8, u8, &[u8], &[u8])> {
    let header: &[u8; 4] = bytes.first_chunk()?;
    let [first, kind, length @ ..] = *header;
    if first >> 6 != 2 {
        return None;
    }
    let length = usize::from(u16::from_be_bytes(length)) * 4;
    let (body, after) = bytes.get(4..)?.split_at_checked(length)?;
    Some((kind, first & 0x1f, body, after))
}

fn receptions<'a>(blocks: &'a [u8], count: u8, tell: &mut impl FnMut(Report<'a>)) {
    for block in blocks.chunks_exact(24).take(usize::from(count)) {
        if let (Some(ssrc), Some(last_report), Some(delay)) =
            (word(block, 0), word(block, 16), word(block, 20))
        {
            tell(Report::Reception(Reception {
                ssrc,
                fraction_lost: block[4],
                last_report,
                delay,
            }));
        }
    }
}

/// Receiver reference times (RFC 3611 section 4.4).
fn reference_times<'a>(body: &'a [u8], tell: &mut impl FnMut(Report<'a>)) {
    let Some(from) = word(body, 0) else { return };
    let mut blocks = body.get(4..).unwrap_or_default();
    while let Some(header) = blocks.first_chunk::<4>() {
        let length = usize::from(u16::from_be_bytes([header[2], header[3]])) * 4;
        let Some((block, after)) = blocks[4..].split_at_checked(length) else {
            return;
        };
        if header[0] == REFERENCE_TIME
            && let (Some(high), Some(low)) = (word(block, 0), word(block, 4))
        {
            let ntp_middle = (high << 16) | (low >> 16);
            tell(Report::ReferenceTime { from, ntp_middle });
        }
        blocks = after;
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes: &[u8; 4] = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*bytes))
}

/// Appends a sender report: at `ntp` the track stood at `rtp_time`, and so much was sent.
pub(super) fn sender_report(
    out: &mut Vec<u8>,
    ssrc: u32,
    ntp: u64,
    rtp_time: u32,
    packets: u32,
    bytes: u32,
) {
    header(out, 0, SENDER_REPORT, 6);
    out.put_u32_be(ssrc);
    out.put_u32_be((ntp >> 32) as u32);
    out.put_u32_be(ntp as u32);
    out.put_u32_be(rtp_time);
    out.put_u32_be(packets);
    out.put_u32_be(bytes);
}

/// Appends the name that ties sources together. At most 255 bytes of it.
pub(super) fn source_description(out: &mut Vec<u8>, sources: &[u32], cname: &str) {
    let cname = &cname.as_bytes()[..cname.len().min(255)];
    // Each chunk ends with one to four zero bytes on a boundary of four.
    let chunk = 4 + (2 + cname.len()) / 4 * 4 + 4;
    header(
        out,
        sources.len() as u8,
        SOURCE_DESCRIPTION,
        sources.len() * chunk / 4,
    );
    for ssrc in sources {
        let end = out.len() + chunk;
        out.put_u32_be(*ssrc);
        out.push(CNAME);
        out.push(cname.len() as u8);
        out.extend_from_slice(cname);
        out.resize(end, 0);
    }
}

/// Appends the answer to a [`Report::ReferenceTime`] that came `delay` (in 1/65,536 s) ago
/// (RFC 3611 section 4.5).
pub(super) fn reference_answer(out: &mut Vec<u8>, ssrc: u32, to: u32, ntp_middle: u32, delay: u32) {
    header(out, 0, EXTENDED_REPORT, 5);
    out.put_u32_be(ssrc);
    out.extend_from_slice(&[REFERENCE_ANSWER, 0, 0, 3]);
    out.put_u32_be(to);
    out.put_u32_be(ntp_middle);
    out.put_u32_be(delay);
}

/// Appends the end of sources.
pub(super) fn goodbye(out: &mut Vec<u8>, sources: &[u32]) {
    header(out, sources.len() as u8, GOODBYE, sources.len());
    for ssrc in sources {
        out.put_u32_be(*ssrc);
    }
}

/// `count` is at most 31, `words` what follows the header.
fn header(out: &mut Vec<u8>, count: u8, kind: u8, words: usize) {
    out.extend_from_slice(&[0x80 | count, kind]);
    out.put_u16_be(words as u16);
}

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;
const TRANSPORT_FEEDBACK: u8 = 205;
const PAYLOAD_FEEDBACK: u8 = 206;
const EXTENDED_REPORT: u8 = 207;

/// Formats of feedback.
const NACK: u8 = 1;
const PLI: u8 = 1;
const FIR: u8 = 4;

/// Items and blocks.
const CNAME: u8 = 1;
const REFERENCE_TIME: u8 = 4;
const REFERENCE_ANSWER: u8 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Vec<Report<'_>> {
        let mut reports = Vec::new();
        decode(bytes, |report| reports.push(report));
        reports
    }

    #[test]
    fn a_browsers_compound_is_read_whole() {
        let mut bytes = vec![0x81, 201, 0, 7, 0, 0, 0, 1];
        bytes.extend([0, 0, 0, 9, 64, 0, 0, 2, 0, 0, 1, 0, 0, 0, 0, 5]);
        bytes.extend([1, 2, 3, 4, 0, 1, 0, 0]);
        // A reference time, a NACK of 65535, 0 and 15, a PLI, a FIR.
        bytes.extend([0x80, 207, 0, 4, 0, 0, 0, 1, 4, 0, 0, 2]);
        bytes.extend([1, 2, 3, 4, 5, 6, 7, 8]);
        bytes.extend([0x81, 205, 0, 3, 0, 0, 0, 1, 0, 0, 0, 9, 255, 255, 0x80, 1]);
        bytes.extend([0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 9]);
        bytes.extend([0x84, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0]);
        bytes.extend([0, 0, 0, 9, 7, 0, 0, 0]);
        let reports = read(&bytes);
        let reception = Report::Reception(Reception {
            ssrc: 9,
            fraction_lost: 64,
            last_report: 0x0102_0304,
            delay: 0x1_0000,
        });
        assert_eq!(reports[0], reception);
        let reference = Report::ReferenceTime {
            from: 1,
            ntp_middle: 0x0304_0506,
        };
        assert_eq!(reports[1], reference);
        let Report::Nack { ssrc: 9, lost } = reports[2] else {
            panic!("{reports:?}");
        };
        assert_eq!(lost.sequences().collect::<Vec<_>>(), [65_535, 0, 15]);
        let request = |fir| Report::KeyframeRequest { ssrc: 9, fir };
        assert_eq!(reports[3..], [request(None), request(Some(7))]);
        // Cut anywhere, it is read as far as it is whole.
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).len() < 5, "{length}");
        }
        // No bit makes it more than it is: nothing panics, little is made of it.
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&flipped).len() <= 8, "{bit}");
        }
    }

    #[test]
    fn our_reports_are_laid_out_as_specified() {
        let mut out = Vec::new();
        sender_report(&mut out, 7, 0x0102_0304_0506_0708, 9, 10, 11);
        assert_eq!(
            out,
            [
                0x80, 200, 0, 6, 0, 0, 0, 7, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 9, 0, 0, 0, 10, 0, 0,
                0, 11
            ]
        );
        out.clear();
        source_description(&mut out, &[7, 8], "ab");
        assert_eq!(
            out,
            [
                0x82, 202, 0, 6, 0, 0, 0, 7, 1, 2, b'a', b'b', 0, 0, 0, 0, 0, 0, 0, 8, 1, 2, b'a',
                b'b', 0, 0, 0, 0
            ]
        );
        out.clear();
        reference_answer(&mut out, 7, 1, 2, 3);
        assert_eq!(
            out,
            [
                0x80, 207, 0, 5, 0, 0, 0, 7, 5, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3
            ]
        );
        out.clear();
        goodbye(&mut out, &[7]);
        assert_eq!(out, [0x81, 203, 0, 1, 0, 0, 0, 7]);
    }
}

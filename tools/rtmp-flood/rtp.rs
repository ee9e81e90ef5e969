//! [`RtpPictures`] and [`RtpSound`]: RTP packets (RFC 6184, RFC 7587) put in order and judged,
//! without keeping what is in them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::stamp::{STAMP_BYTES, Stamp, Tail};
use crate::tally::Tally;

/// What stays of a packet of video.
#[derive(Clone, Copy, Debug)]
pub struct VideoPacket {
    /// Unwrapped.
    pub rtp_time: u64,
    /// Whether the picture ends here.
    pub marker: bool,
    /// Bytes of slices in it, their headers included.
    slice_bytes: u32,
    has_sps: bool,
    /// Whether a slice begins here, and whether it is of an IDR picture.
    begins: Option<bool>,
    end: [u8; STAMP_BYTES],
    end_bytes: usize,
}

impl VideoPacket {
    /// Looks at the payload of a packet.
    pub fn new(rtp_time: u64, marker: bool, payload: &[u8]) -> Self {
        let mut packet = Self {
            rtp_time,
            marker,
            slice_bytes: 0,
            has_sps: false,
            begins: None,
            end: [0; STAMP_BYTES],
            end_bytes: 0,
        };
        match payload {
            [header, rest @ ..] if header & 0x1f == STAP_A => {
                let mut rest = rest;
                while let Some((size, more)) = rest.split_first_chunk() {
                    let size = usize::from(u16::from_be_bytes(*size)).min(more.len());
                    let (nal, more) = more.split_at(size);
                    packet.nal(nal);
                    rest = more;
                }
            }
            [indicator, header, rest @ ..] if indicator & 0x1f == FU_A => {
                let kind = header & 0x1f;
                let is_first = header & 0x80 != 0;
                if is_slice(kind) {
                    packet.slice_bytes += rest.len() as u32 + u32::from(is_first);
                    packet.keep_end(rest);
                    if is_first {
                        packet.begins = Some(kind == IDR);
                    }
                }
                packet.has_sps |= kind == SPS;
            }
            nal => packet.nal(nal),
        }
        packet
    }

    fn nal(&mut self, nal: &[u8]) {
        let Some(kind) = nal.first().map(|header| header & 0x1f) else {
            return;
        };
        self.has_sps |= kind == SPS;
        if is_slice(kind) {
            self.slice_bytes += nal.len() as u32;
            self.begins = Some(kind == IDR);
            self.keep_end(nal);
        }
    }

    fn keep_end(&mut self, piece: &[u8]) {
        let piece = piece.last_chunk::<STAMP_BYTES>().map_or(piece, |end| end);
        self.end[..piece.len()].copy_from_slice(piece);
        self.end_bytes = piece.len();
    }
}

/// A picture that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtpPicture {
    /// Unwrapped.
    pub rtp_time: u64,
    /// Whether it is an IDR picture.
    pub key: bool,
    /// Bytes of its slices, their headers included.
    pub slice_bytes: u32,
    /// Whether an SPS came with it.
    pub has_sps: bool,
    /// What the publisher wrote.
    pub stamp: Option<Stamp>,
}

/// Puts packets in order and tells the whole pictures.
#[derive(Debug, Default)]
pub struct RtpPictures {
    next: Option<u64>,
    waiting: BTreeMap<u64, VideoPacket>,
    /// Since when a packet is missing.
    hole_since: Option<Instant>,
    picture: Option<Partial>,
    /// A packet was given up: what follows cannot be shown.
    needs_key: bool,
}

#[derive(Debug)]
struct Partial {
    picture: RtpPicture,
    tail: Tail,
    is_broken: bool,
}

impl RtpPictures {
    /// Takes a packet; each picture that is complete goes to `seen`.
    pub fn push(
        &mut self,
        now: Instant,
        sequence: u64,
        packet: VideoPacket,
        tally: &mut Tally,
        mut seen: impl FnMut(RtpPicture, &mut Tally),
    ) {
        let Some(next) = self.next.or_else(|| self.begin(now, sequence, &packet)) else {
            self.waiting.insert(sequence, packet);
            return;
        };
        if sequence < next {
            // Twice, or given up already.
            return;
        }
        if sequence == next {
            self.next = Some(next + 1);
            self.take(packet, &mut seen, tally);
        } else {
            self.waiting.insert(sequence, packet);
        }
        loop {
            let next = self.next.unwrap_or(0);
            let Some(first) = self.waiting.first_entry() else {
                self.hole_since = None;
                return;
            };
            if *first.key() > next {
                let since = *self.hole_since.get_or_insert(now);
                let is_late = now.saturating_duration_since(since) > HOLE_WAIT;
                if !is_late && self.waiting.len() < WAITING_MAX {
                    return;
                }
                let first = *self.waiting.keys().next().unwrap_or(&next);
                tally.faults.rtp_lost += first - next;
                self.next = Some(first);
                self.needs_key = true;
                if let Some(partial) = &mut self.picture {
                    partial.is_broken = true;
                }
                self.hole_since = None;
                continue;
            }
            let packet = first.remove();
            self.next = Some(next + 1);
            self.hole_since = None;
            self.take(packet, &mut seen, tally);
        }
    }

    /// Whether a key frame is needed to go on.
    pub fn needs_key(&self) -> bool {
        self.needs_key
    }

    /// Where to begin: with parameter sets, which are the first that servers send. If none
    /// come, with the earliest picture that came from its beginning.
    fn begin(&mut self, now: Instant, sequence: u64, packet: &VideoPacket) -> Option<u64> {
        if packet.has_sps {
            self.next = Some(sequence);
            // What came before them is not worth showing.
            self.waiting = self.waiting.split_off(&sequence);
            return self.next;
        }
        let since = *self.hole_since.get_or_insert(now);
        let is_late = now.saturating_duration_since(since) > HOLE_WAIT;
        if !is_late && self.waiting.len() < WAITING_MAX {
            return None;
        }
        self.needs_key = true;
        self.hole_since = None;
        let begins = self
            .waiting
            .iter()
            .find(|(_, packet)| packet.begins.is_some());
        let first = begins.map_or(sequence, |(first, _)| *first);
        self.waiting = self.waiting.split_off(&first);
        self.next = Some(first);
        self.next
    }

    fn take(
        &mut self,
        packet: VideoPacket,
        seen: &mut impl FnMut(RtpPicture, &mut Tally),
        tally: &mut Tally,
    ) {
        // Some senders set no marker: the next time ends a picture, too.
        if (self.picture.as_ref()).is_some_and(|p| p.picture.rtp_time != packet.rtp_time) {
            self.finish(seen, tally);
        }
        if packet.end_bytes == 0 && !packet.has_sps {
            // Padding, SEI, delimiters.
            if packet.marker {
                self.finish(seen, tally);
            }
            return;
        }
        let partial = self.picture.get_or_insert_with(|| Partial {
            picture: RtpPicture {
                rtp_time: packet.rtp_time,
                key: false,
                slice_bytes: 0,
                has_sps: false,
                stamp: None,
            },
            tail: Tail::default(),
            is_broken: false,
        });
        partial.picture.has_sps |= packet.has_sps;
        partial.picture.slice_bytes += packet.slice_bytes;
        partial.picture.key |= packet.begins == Some(true);
        partial.tail.push(&packet.end[..packet.end_bytes]);
        if packet.marker {
            self.finish(seen, tally);
        }
    }

    fn finish(&mut self, seen: &mut impl FnMut(RtpPicture, &mut Tally), tally: &mut Tally) {
        let Some(partial) = self.picture.take() else {
            return;
        };
        let mut picture = partial.picture;
        // Parameter sets alone are no picture; one with a hole shows itself by its number.
        if picture.slice_bytes > 0 && !partial.is_broken {
            picture.stamp = partial.tail.stamp();
            self.needs_key &= !picture.key;
            seen(picture, tally);
        }
    }
}

/// Judges the order of packets of sound.
#[derive(Clone, Copy, Debug, Default)]
pub struct RtpSound {
    last: Option<u64>,
}

impl RtpSound {
    /// Takes a packet; answers whether it is a new one at its place.
    pub fn push(&mut self, sequence: u64, tally: &mut Tally) -> bool {
        let faults = &mut tally.faults;
        match self.last {
            Some(last) if sequence <= last => {
                // It was counted as lost when a later one came.
                faults.rtp_lost = faults.rtp_lost.saturating_sub(u64::from(sequence < last));
                return false;
            }
            Some(last) => faults.rtp_lost += sequence - last - 1,
            None => {}
        }
        self.last = Some(sequence);
        true
    }
}

fn is_slice(kind: u8) -> bool {
    (1..=5).contains(&kind)
}

const IDR: u8 = 5;
const SPS: u8 = 7;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// How long a missing packet is waited for: longer than a server keeps it for retransmission
/// on any link that is worth watching.
const HOLE_WAIT: Duration = Duration::from_millis(600);
/// How many packets wait behind it: two seconds of 2 Mbit/s. Then it is given up.
const WAITING_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rtmp_gateway::rtp::h264_packetizer::packetize;

    use super::*;

    fn stamp(number: u64, slice_bytes: u32) -> Stamp {
        Stamp {
            publisher: 1,
            number,
            sent_us: 5,
            slice_bytes,
        }
    }

    /// The packets of some pictures of `size` bytes, the first an IDR picture.
    fn packets(count: u64, size: usize, payload_max: usize) -> Vec<VideoPacket> {
        let sets = (
            [Bytes::from_static(&[0x67; 9])],
            [Bytes::from_static(&[0x68; 4])],
        );
        let mut packets = Vec::new();
        for number in 0..count {
            let header = if number == 0 { 0x65 } else { 0x41 };
            let length = (size + STAMP_BYTES) as u32;
            let mut frame = length.to_be_bytes().to_vec();
            frame.push(header);
            frame.resize(4 + size, 0xaa);
            frame.extend(stamp(number, length).encode());
            let with_sets = (number == 0).then_some((&sets.0[..], &sets.1[..]));
            let payloads = packetize(&frame, with_sets, payload_max);
            let last = payloads.len() - 1;
            packets.extend(
                (payloads.iter().enumerate()).map(|(index, payload)| {
                    VideoPacket::new(number * 3_600, index == last, payload)
                }),
            );
        }
        packets
    }

    fn run(order: &[(u64, VideoPacket)], step: Duration) -> (Vec<RtpPicture>, Tally) {
        let (mut pictures, mut tally, mut seen) =
            (RtpPictures::default(), Tally::default(), vec![]);
        let now = Instant::now();
        for (index, (sequence, packet)) in order.iter().enumerate() {
            let now = now + step * index as u32;
            pictures.push(now, *sequence, *packet, &mut tally, |picture, _| {
                seen.push(picture)
            });
        }
        (seen, tally)
    }

    #[test]
    fn pictures_of_every_size_come_whole_with_their_stamps() {
        for (size, max) in [
            (1, 1_160),
            (1_000, 1_160),
            (1_200, 1_160),
            (5_000, 1_160),
            (300, 64),
        ] {
            let order: Vec<_> = (100..).zip(packets(3, size, max)).collect();
            let (seen, tally) = run(&order, Duration::ZERO);
            assert_eq!(tally.faults.rtp_lost, 0);
            let length = (size + STAMP_BYTES) as u32;
            let expected: Vec<_> = (0..3)
                .map(|number| RtpPicture {
                    rtp_time: number * 3_600,
                    key: number == 0,
                    slice_bytes: length,
                    has_sps: number == 0,
                    stamp: Some(stamp(number, length)),
                })
                .collect();
            assert_eq!(seen, expected, "{size} bytes in packets of {max}");
        }
    }

    #[test]
    fn packets_in_disorder_are_put_in_order() {
        let mut order: Vec<_> = (0..).zip(packets(3, 5_000, 1_160)).collect();
        let count = order.len();
        order[1..].reverse();
        let (seen, tally) = run(&order, Duration::ZERO);
        assert_eq!(
            (seen.len(), tally.faults.rtp_lost),
            (3, 0),
            "{count} packets"
        );
    }

    #[test]
    fn a_packet_that_never_comes_is_given_up_and_costs_its_picture() {
        let mut order: Vec<_> = (0..).zip(packets(4, 5_000, 1_160)).collect();
        // One of the second picture; five and the parameter sets are the first.
        order.remove(8);
        let (seen, tally) = run(&order, Duration::from_millis(100));
        let numbers: Vec<u64> = seen.iter().filter_map(|p| Some(p.stamp?.number)).collect();
        assert_eq!((numbers, tally.faults.rtp_lost), (vec![0, 2, 3], 1));
    }

    #[test]
    fn the_beginning_is_waited_for() {
        let packets = packets(3, 5_000, 1_160);
        // The parameter sets come third.
        let mut order: Vec<_> = (7..).zip(packets).collect();
        order[..3].rotate_left(1);
        let (seen, tally) = run(&order, Duration::from_millis(1));
        assert_eq!((seen.len(), tally.faults.rtp_lost), (3, 0));
        // They never come: from the next picture on, though it cannot be shown.
        let (seen, _) = run(&order[2..], Duration::from_millis(100));
        let numbers: Vec<u64> = seen.iter().filter_map(|p| Some(p.stamp?.number)).collect();
        assert_eq!(numbers, [1, 2]);
    }

    #[test]
    fn lost_sound_is_counted_and_what_comes_late_taken_back() {
        let (mut sound, mut tally) = (RtpSound::default(), Tally::default());
        let fresh: Vec<bool> = [5, 6, 9, 7, 9, 10]
            .map(|sequence| sound.push(sequence, &mut tally))
            .into();
        assert_eq!(fresh, [true, true, true, false, false, true]);
        assert_eq!(tally.faults.rtp_lost, 1);
    }
}

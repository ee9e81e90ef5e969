//! Hand-made sequences: the start, holes, limits. `sender_tests` has what senders do, `link_tests`
//! what links do at random.

use super::*;
use crate::rtp::h264_packetizer::packetize;

pub(super) const SPS: &[u8] = &[0x67, 0x42, 0xc0, 0x1e, 0xd9];
pub(super) const PPS: &[u8] = &[0x68, 0xcb, 0x83];

/// An access unit of `slices` slices of about `len` bytes, all different by `seed`.
pub(super) fn avcc(idr: bool, slices: usize, len: usize, seed: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for slice in 0..slices {
        let len = len.max(12) + slice;
        out.extend((len as u32).to_be_bytes());
        out.push(if idr { 0x65 } else { 0x41 });
        // first_mb_in_slice 0 in the first slice only; then slice type 7 (I) or 5 (P).
        out.push(match (slice, idr) {
            (0, true) => 0b1000_1000,
            (0, false) => 0b1001_1000,
            _ => 0b0100_1000,
        });
        out.extend(seed.to_be_bytes());
        out.extend((10..len).map(|at| (at as u64 * 31 + seed) as u8 | 1));
    }
    out
}

pub(super) fn packets_of(
    first: u64,
    rtp_time: u64,
    avcc: &[u8],
    sets: bool,
    payload_max: usize,
) -> Vec<Packet> {
    let (sps, pps) = ([Bytes::from_static(SPS)], [Bytes::from_static(PPS)]);
    let payloads = packetize(avcc, sets.then_some((&sps, &pps)), payload_max);
    let last = payloads.len() - 1;
    let packet = |(at, payload): (usize, std::sync::Arc<[u8]>)| Packet {
        sequence: first + at as u64,
        rtp_time,
        marker: at == last,
        payload: Bytes::from_owner(payload),
    };
    payloads.into_iter().enumerate().map(packet).collect()
}

/// A sender of frames and the assembler that gets what the test lets through.
pub(super) struct Bench {
    pub(super) assembler: FrameAssembler,
    start: Instant,
    pub(super) sequence: u64,
    pub(super) time: u64,
}

/// What came out, in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Idr(u64),
    P(u64),
    Ask(KeyframeReason),
}
pub(super) use Seen::{Ask, Idr, P};

impl Bench {
    pub(super) fn new() -> Self {
        Self::at_sequence(65_500)
    }

    pub(super) fn at_sequence(sequence: u64) -> Self {
        Self {
            assembler: FrameAssembler::new(Limits::default()),
            start: Instant::now(),
            sequence,
            time: 0,
        }
    }

    pub(super) fn at(&self, millis: u64) -> Instant {
        self.start + Duration::from_millis(millis)
    }

    /// The packets of the next frame: an IDR picture with sets, or a P picture, of so many packets
    /// and the sets.
    pub(super) fn frame(&mut self, idr: bool, packets: usize) -> Vec<Packet> {
        self.time += 1;
        let avcc = avcc(idr, 1, packets * 98 - 2, self.time);
        let out = packets_of(self.sequence, self.time, &avcc, idr, 100);
        self.sequence += out.len() as u64;
        out
    }

    pub(super) fn idr(&mut self, packets: usize) -> Vec<Packet> {
        let out = self.frame(true, packets);
        assert_eq!(out.len(), packets + 1);
        out
    }

    pub(super) fn p(&mut self, packets: usize) -> Vec<Packet> {
        let out = self.frame(false, packets);
        assert_eq!(out.len(), packets);
        out
    }

    pub(super) fn packet(&mut self, time: u64, marker: bool, payload: &[u8]) -> Packet {
        self.sequence += 1;
        Packet {
            sequence: self.sequence - 1,
            rtp_time: time,
            marker,
            payload: Bytes::copy_from_slice(payload),
        }
    }

    pub(super) fn push<'a>(
        &mut self,
        millis: u64,
        packets: impl IntoIterator<Item = &'a Packet>,
    ) -> Vec<Seen> {
        let now = self.at(millis);
        for packet in packets {
            self.assembler.push(now, packet.clone());
        }
        self.drain(millis)
    }

    pub(super) fn timeout(&mut self, millis: u64) -> Vec<Seen> {
        self.assembler.handle_timeout(self.at(millis));
        self.drain(millis)
    }

    pub(super) fn drain(&mut self, millis: u64) -> Vec<Seen> {
        let now = self.at(millis);
        std::iter::from_fn(|| self.assembler.poll(now))
            .map(|output| match output {
                Output::AccessUnit { rtp_time, unit, .. } if unit.idr => Idr(rtp_time),
                Output::AccessUnit { rtp_time, .. } => P(rtp_time),
                Output::KeyframeNeeded { reason } => Ask(reason),
            })
            .collect()
    }

    /// Everything up to and with the first IDR picture.
    pub(super) fn started() -> Self {
        let mut bench = Self::new();
        let idr = bench.idr(3);
        assert_eq!(bench.push(0, &idr), [Idr(1)]);
        bench
    }
}

#[test]
fn a_whole_frame_comes_out_at_its_last_packet() {
    let mut bench = Bench::new();
    let idr = bench.idr(3);
    assert_eq!(bench.push(0, &idr[..3]), []);
    assert_eq!(bench.push(1, &idr[3..]), [Idr(1)]);
    for time in 2..20 {
        let p = bench.p(3);
        assert_eq!(bench.push(2, &p[..2]), []);
        assert_eq!(bench.push(3, &p[2..]), [P(time)]);
        assert_eq!(bench.assembler.next_timeout(), None);
    }
    let counters = *bench.assembler.counters();
    assert_eq!(
        (counters.frames, counters.keyframes, counters.dropped),
        (19, 1, 0)
    );
    assert_eq!(bench.assembler.bytes_held(), 0);
}

#[test]
fn an_access_unit_says_when_it_came_and_what_came_with_it() {
    let mut bench = Bench::new();
    let idr = bench.idr(3);
    bench.push(5, &idr[1..]);
    bench.assembler.push(bench.at(9), idr[0].clone());
    let Some(Output::AccessUnit {
        rtp_time,
        arrival,
        unit,
        after_loss,
    }) = bench.assembler.poll(bench.at(9))
    else {
        panic!("a whole frame");
    };
    assert_eq!((rtp_time, arrival, after_loss), (1, bench.at(5), true));
    assert_eq!((&unit.sps[0][..], &unit.pps[0][..]), (SPS, PPS));
    assert_eq!(unit.payload, avcc(true, 1, 3 * 98 - 2, 1));
    let p = bench.p(1);
    bench.assembler.push(bench.at(40), p[0].clone());
    let output = bench.assembler.poll(bench.at(40));
    assert!(matches!(
        output,
        Some(Output::AccessUnit {
            after_loss: false,
            ..
        })
    ));
}

/// The network swaps the first packets of all.
#[test]
fn the_first_idr_survives_reordering() {
    let orders: [[usize; 4]; 6] = [
        [1, 0, 2, 3],
        [3, 2, 1, 0],
        [2, 3, 0, 1],
        [0, 2, 3, 1],
        [1, 2, 3, 0],
        [3, 0, 1, 2],
    ];
    for order in orders {
        let mut bench = Bench::new();
        let idr = bench.idr(3);
        let p = bench.p(1);
        for at in &order[..3] {
            assert_eq!(bench.push(*at as u64, [&idr[*at]]), [], "{order:?}");
        }
        assert_eq!(bench.push(10, [&idr[order[3]]]), [Idr(1)], "{order:?}");
        assert_eq!(bench.push(11, &p), [P(2)]);
        assert_eq!(bench.assembler.counters().keyframe_requests, 0);
    }
    // And where numbers begin, none can be before.
    let mut bench = Bench::at_sequence(0);
    let idr = bench.idr(2);
    assert_eq!(bench.push(0, idr.iter().rev()), [Idr(1)]);
}

#[test]
fn a_stream_joined_in_its_middle_is_asked_for_a_key_frame_at_once() {
    let mut bench = Bench::new();
    let p = bench.p(2);
    assert_eq!(bench.push(0, &p), [Ask(KeyframeReason::Start)]);
    for millis in [100, 200, 300, 400, 499] {
        let p = bench.p(2);
        assert_eq!(bench.push(millis, &p), [], "{millis}");
    }
    // Again while none comes, on evidence: not by the clock alone.
    let p = bench.p(1);
    assert_eq!(bench.push(500, &p), [Ask(KeyframeReason::Start)]);
    assert_eq!(bench.assembler.next_timeout(), None);
    assert_eq!(bench.timeout(5_000), []);
    let idr = bench.idr(2);
    assert_eq!(bench.push(5_001, &idr), [Idr(8)]);
    assert_eq!(bench.assembler.counters().dropped, 7);
}

#[test]
fn a_first_frame_whose_begin_is_lost_is_asked_for_again() {
    let mut bench = Bench::new();
    let idr = bench.idr(4);
    // Neither the sets nor the first fragment.
    assert_eq!(bench.push(0, &idr[2..]), []);
    assert_eq!(bench.assembler.next_timeout(), Some(bench.at(200)));
    assert_eq!(bench.timeout(199), []);
    assert_eq!(bench.timeout(200), [Ask(KeyframeReason::Start)]);
}

#[test]
fn a_sender_without_parameter_sets_in_band_is_understood() {
    let idr = |first, time| packets_of(first, time, &avcc(true, 1, 300, time), false, 100);
    let p = |first, time| packets_of(first, time, &avcc(false, 1, 10, time), false, 100);
    let mut bench = Bench::new();
    // The packet before the first one may have been the parameter sets.
    assert_eq!(bench.push(0, &idr(100, 1)), []);
    assert_eq!(bench.timeout(200), [Ask(KeyframeReason::Start)]);
    assert_eq!(bench.push(210, &p(104, 2)), []);
    // Now it is known that nothing is missing.
    assert_eq!(bench.push(220, &idr(105, 3)), [Idr(3)]);
    assert_eq!(bench.push(230, &p(109, 4)), [P(4)]);
    // And a hole before such a picture need not be waited for.
    assert_eq!(bench.push(240, &idr(111, 6)), [Idr(6)]);
    // With the sets from the SDP, the first one is as good as any.
    let mut bench = Bench::new();
    bench.assembler.expect_sets_out_of_band();
    assert_eq!(bench.push(0, &idr(100, 1)), [Idr(1)]);
}

/// CASES 40: the middle of a frame is lost for good.
#[test]
fn case_40_a_hole_costs_frames_up_to_the_next_idr() {
    let mut bench = Bench::started();
    let p = bench.p(4);
    assert_eq!(bench.push(100, [&p[0], &p[1], &p[3]]), []);
    assert_eq!(bench.assembler.next_timeout(), Some(bench.at(300)));
    for millis in [133, 166, 199, 233, 266] {
        let p = bench.p(1);
        assert_eq!(bench.push(millis, &p), [], "{millis}");
    }
    assert_eq!(bench.timeout(300), [Ask(KeyframeReason::Loss)]);
    for millis in [333, 366, 700, 799] {
        let p = bench.p(1);
        assert_eq!(bench.push(millis, &p), [], "{millis}");
    }
    // Once per interval while none comes.
    let p = bench.p(1);
    assert_eq!(bench.push(800, &p), [Ask(KeyframeReason::Loss)]);
    let idr = bench.idr(2);
    let time = bench.time;
    assert_eq!(bench.push(850, &idr), [Idr(time)]);
    let p = bench.p(2);
    assert_eq!(bench.push(883, &p), [P(time + 1)]);
    let counters = bench.assembler.counters();
    assert_eq!(
        (counters.holes, counters.holes_lost, counters.dropped),
        (1, 1, 11)
    );
    assert_eq!(counters.keyframe_requests, 2);
}

#[test]
fn a_retransmission_in_time_costs_nothing() {
    let mut bench = Bench::started();
    let p = bench.p(4);
    let later = [bench.p(1), bench.p(2)].concat();
    assert_eq!(bench.push(100, [&p[0], &p[1], &p[3]]), []);
    assert_eq!(bench.push(133, &later), []);
    assert_eq!(bench.push(180, [&p[2]]), [P(2), P(3), P(4)]);
    assert_eq!(bench.assembler.next_timeout(), None);
    assert_eq!(bench.assembler.counters().dropped, 0);
    assert_eq!(bench.assembler.counters().keyframe_requests, 0);
}

/// CASES 42: what comes after its time is ignored, and the order is kept.
#[test]
fn case_42_a_late_retransmission_is_ignored() {
    let mut bench = Bench::started();
    let p = bench.p(3);
    assert_eq!(bench.push(100, [&p[0], &p[2]]), []);
    assert_eq!(bench.timeout(300), [Ask(KeyframeReason::Loss)]);
    assert_eq!(bench.timeout(500), []);
    assert_eq!(bench.push(501, [&p[1]]), []);
    let idr = bench.idr(2);
    assert_eq!(bench.push(533, &idr), [Idr(3)]);
    assert_eq!(bench.push(534, [&p[1], &p[0], &idr[1]]), []);
    assert_eq!(bench.assembler.counters().late, 4);
    let p = bench.p(1);
    assert_eq!(bench.push(566, &p), [P(4)]);
}

/// Until the key frame is there, nothing else could be shown: what comes before it is.
#[test]
fn a_hole_is_mended_while_its_key_frame_is_on_its_way() {
    let mut bench = Bench::started();
    let p = bench.p(3);
    let later = bench.p(2);
    assert_eq!(bench.push(100, [&p[0], &p[2]]), []);
    assert_eq!(bench.push(133, &later), []);
    assert_eq!(bench.timeout(300), [Ask(KeyframeReason::Loss)]);
    assert_eq!(bench.assembler.next_timeout(), Some(bench.at(500)));
    assert_eq!(bench.push(450, [&p[1]]), [P(2), P(3)]);
    // It is not asked for again, and comes as any other.
    assert_eq!(bench.assembler.next_timeout(), None);
    let more = bench.p(1);
    assert_eq!(bench.push(900, &more), [P(4)]);
    let idr = bench.idr(2);
    assert_eq!(bench.push(933, &idr), [Idr(5)]);
    let counters = bench.assembler.counters();
    assert_eq!((counters.holes, counters.holes_lost), (1, 0));
    assert_eq!(counters.keyframe_requests, 1);
}

/// A player's wish outlives the loss that it was asked for along with.
#[test]
fn a_mended_hole_does_not_take_back_what_a_player_asked_for() {
    let mut bench = Bench::started();
    let p = bench.p(3);
    assert_eq!(bench.push(100, [&p[0], &p[2]]), []);
    assert_eq!(bench.timeout(300), [Ask(KeyframeReason::Loss)]);
    let now = bench.at(310);
    bench.assembler.request_keyframe(now);
    assert_eq!(bench.push(450, [&p[1]]), [P(2)]);
    let more = bench.p(1);
    assert_eq!(bench.push(801, &more).len(), 2, "a picture and a request");
}

#[test]
fn a_whole_idr_behind_a_hole_ends_the_wait() {
    let mut bench = Bench::started();
    let p = bench.p(3);
    let more = bench.p(2);
    let idr = bench.idr(3);
    let after = bench.p(1);
    assert_eq!(bench.push(100, [&p[0], &p[2]]), []);
    assert_eq!(bench.push(110, &more), []);
    assert_eq!(bench.push(120, &idr[..3]), []);
    assert_eq!(bench.push(121, &idr[3..]), [Idr(4)]);
    assert_eq!(bench.push(140, &after), [P(5)]);
    assert_eq!(bench.push(150, [&p[1]]), []);
    assert_eq!(bench.assembler.counters().keyframe_requests, 0);
    assert_eq!(bench.assembler.counters().dropped, 2);
    assert_eq!(bench.assembler.next_timeout(), None);
}

#[test]
fn an_idr_on_its_way_is_not_asked_for() {
    let mut bench = Bench::started();
    let p = bench.p(3);
    let idr = bench.idr(3);
    assert_eq!(bench.push(100, [&p[0], &p[2]]), []);
    assert_eq!(bench.push(290, &idr[..2]), []);
    assert_eq!(bench.timeout(300), []);
    assert_eq!(bench.push(310, &idr[2..]), [Idr(3)]);
    assert_eq!(bench.assembler.counters().keyframe_requests, 0);
}

#[test]
fn an_idr_with_a_hole_of_its_own_waits_and_is_asked_for_again() {
    let mut bench = Bench::started();
    let p = bench.p(3);
    let idr = bench.idr(3);
    assert_eq!(bench.push(100, [&p[0], &p[2]]), []);
    assert_eq!(bench.push(150, [&idr[0], &idr[1], &idr[3]]), []);
    assert_eq!(bench.timeout(300), []);
    assert_eq!(bench.assembler.next_timeout(), Some(bench.at(350)));
    assert_eq!(bench.timeout(350), [Ask(KeyframeReason::Loss)]);
    // And with the hole filled in time:
    let mut bench = Bench::started();
    let p = bench.p(3);
    let idr = bench.idr(3);
    assert_eq!(bench.push(100, [&p[0], &p[2]]), []);
    assert_eq!(bench.push(150, [&idr[0], &idr[1], &idr[3]]), []);
    assert_eq!(bench.push(340, [&idr[2]]), [Idr(3)]);
}

#[test]
fn lost_parameter_sets_are_waited_for_and_not_done_without() {
    let mut bench = Bench::started();
    // The STAP-A in front of the second IDR picture is lost: with it may go a new picture size.
    let idr = bench.idr(2);
    assert_eq!(bench.push(100, &idr[1..]), []);
    let p = bench.p(1);
    assert_eq!(bench.push(133, &p), []);
    assert_eq!(bench.timeout(300), [Ask(KeyframeReason::Loss)]);
    // In time, nothing is lost.
    let mut bench = Bench::started();
    let idr = bench.idr(2);
    assert_eq!(bench.push(100, &idr[1..]), []);
    assert_eq!(bench.push(299, &idr[..1]), [Idr(2)]);
}

/// CASES 41: large frames, and frames without an end.
#[test]
fn case_41_large_frames_come_out_and_endless_ones_are_bounded() {
    let mut bench = Bench::started();
    let p = bench.p(900);
    assert_eq!(bench.push(100, &p), [P(2)]);
    let idr = bench.idr(900);
    assert_eq!(bench.push(133, idr.iter().rev()), [Idr(3)]);

    // 100 MB that never end.
    let body = [&[0x7c, 0x05][..], &[1; 1_198]].concat();
    let mut asked = 0;
    for at in 0..84_000u64 {
        let packet = bench.packet(4, false, &body);
        asked += bench.push(200 + at / 50, [&packet]).len();
        assert!(bench.assembler.bytes_held() <= Limits::default().bytes_max);
    }
    // Within 1.7 s, and never more often than every 500 ms.
    assert!((1..=4).contains(&asked), "{asked}");
    assert!(bench.assembler.counters().overflows > 0);
    bench.time = 10;
    let idr = bench.idr(2);
    assert_eq!(bench.push(10_000, &idr), [Idr(11)]);

    // Unfinished frames, each with a hole.
    for _ in 0..20_000u64 {
        let p = bench.p(3);
        let _ = bench.push(10_001, [&p[0], &p[2]]);
        assert!(bench.assembler.bytes_held() <= Limits::default().packets_max * 100);
    }
    let idr = bench.idr(2);
    let time = bench.time;
    assert_eq!(bench.push(20_000, &idr).last(), Some(&Idr(time)));
}

#[test]
fn a_frame_over_the_byte_limit_is_dropped_by_name() {
    let mut bench = Bench::new();
    bench.assembler = FrameAssembler::new(Limits {
        bytes_max: 1_000,
        ..Limits::default()
    });
    let idr = bench.idr(9);
    assert_eq!(bench.push(0, &idr), [Idr(1)]);
    let p = bench.p(11);
    assert_eq!(bench.push(33, &p), [Ask(KeyframeReason::Overflow)]);
    assert_eq!(bench.assembler.counters().overflows, 1);
}

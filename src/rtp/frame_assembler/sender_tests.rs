//! What senders do: parameter sets apart, padding, no markers, nonsense, new sequences.

use super::tests::{Ask, Bench, Idr, P, PPS, SPS, avcc, packets_of};
use super::*;

/// CASES 43: parameter sets do not make a key frame.
#[test]
fn case_43_parameter_sets_before_a_p_frame_make_no_key_frame() {
    let mut bench = Bench::started();
    let alone = bench.packet(2, true, SPS);
    assert_eq!(bench.push(33, [&alone]), []);
    bench.time = 2;
    let p = bench.p(1);
    bench.assembler.push(bench.at(34), p[0].clone());
    let Some(Output::AccessUnit { unit, .. }) = bench.assembler.poll(bench.at(34)) else {
        panic!("a whole frame");
    };
    assert!(!unit.idr);
    assert_eq!(unit.sps, [Bytes::from_static(SPS)]);
    // Nor do they end the search for one.
    let mut bench = Bench::new();
    let p = packets_of(70, 5, &avcc(false, 1, 10, 5), true, 100);
    assert_eq!(bench.push(0, &p), [Ask(KeyframeReason::Start)]);
    assert_eq!(bench.assembler.counters().frames, 0);
}

/// OBS over WHIP sends SPS and PPS as packets of their own (SRS #3581); others give them markers or
/// timestamps of their own as well.
#[test]
fn parameter_sets_in_packets_of_their_own_belong_to_the_next_picture() {
    for (markers, times) in [
        (false, [1, 1]),
        (true, [1, 1]),
        (true, [7, 8]),
        (false, [7, 8]),
    ] {
        for start in [false, true] {
            let mut bench = if start {
                Bench::new()
            } else {
                Bench::started()
            };
            let sps = bench.packet(times[0] + 100, markers, SPS);
            let pps = bench.packet(times[1] + 100, markers, PPS);
            let first = bench.sequence;
            let idr = packets_of(first, 101, &avcc(true, 3, 150, 1), false, 100);
            for packet in [&sps, &pps].into_iter().chain(&idr) {
                bench.assembler.push(bench.at(10), packet.clone());
            }
            let Some(Output::AccessUnit { unit, .. }) = bench.assembler.poll(bench.at(10)) else {
                panic!("a whole frame: {markers} {times:?} {start}");
            };
            assert_eq!((&unit.sps[0][..], &unit.pps[0][..]), (SPS, PPS));
            assert_eq!((unit.idr, unit.vcl_count), (true, 3));
            assert_eq!(bench.assembler.counters().keyframe_requests, 0);
        }
    }
}

#[test]
fn padding_counts_in_the_sequence_and_is_nothing_else() {
    let mut bench = Bench::started();
    for time in 2..6 {
        let p = bench.p(2);
        assert_eq!(bench.push(time * 33, &p), [P(time)]);
        for _ in 0..3 {
            // Chromium's probes repeat the last timestamp.
            let padding = bench.packet(time, false, &[]);
            assert_eq!(bench.push(time * 33, [&padding]), []);
        }
    }
    assert_eq!(bench.assembler.counters().padding, 12);
    assert_eq!(bench.assembler.next_timeout(), None);
    // In the middle of a frame, and in front of the first one.
    let p = bench.p(2);
    let padding = bench.packet(6, false, &[]);
    let (mut first, mut last) = (p[0].clone(), p[1].clone());
    (first.sequence, last.sequence) = (p[0].sequence, p[1].sequence + 1);
    let padding = Packet {
        sequence: p[1].sequence,
        ..padding
    };
    assert_eq!(bench.push(300, [&first, &padding, &last]), [P(6)]);
    let mut bench = Bench::new();
    let padding = bench.packet(0, false, &[]);
    let idr = bench.idr(2);
    assert_eq!(bench.push(0, [&padding]), []);
    assert_eq!(bench.push(1, &idr), [Idr(1)]);
}

#[test]
fn a_lost_or_absent_marker_is_replaced_by_the_next_timestamp() {
    let mut bench = Bench::new();
    let mut all = [bench.idr(2), bench.p(1), bench.p(3), bench.p(1)];
    for packet in all.iter_mut().flatten() {
        packet.marker = false;
    }
    assert_eq!(bench.push(0, &all[0]), []);
    assert_eq!(bench.push(33, &all[1]), [Idr(1)]);
    assert_eq!(bench.push(66, &all[2]), [P(2)]);
    assert_eq!(bench.push(99, &all[3]), [P(3)]);
    // Behind a hole as well.
    let mut hole = bench.p(2);
    let mut idr = bench.idr(2);
    let p = bench.p(1);
    for packet in hole.iter_mut().chain(&mut idr) {
        packet.marker = false;
    }
    assert_eq!(bench.push(133, &hole[1..]), []);
    assert_eq!(bench.push(166, &idr), []);
    assert_eq!(bench.push(199, &p), [Idr(6), P(7)]);
}

#[test]
fn a_malformed_frame_is_a_lost_one() {
    let mut bench = Bench::started();
    // A fragment of another type in the middle: nothing is missing, and still it is no frame.
    let mut p = bench.p(3);
    let mut body = p[1].payload.to_vec();
    body[1] = 0x05;
    p[1].payload = body.into();
    assert_eq!(bench.push(33, &p), [Ask(KeyframeReason::Malformed)]);
    let p = bench.p(1);
    assert_eq!(bench.push(66, &p), []);
    let idr = bench.idr(1);
    assert_eq!(bench.push(99, &idr), [Idr(4)]);
    // A packet of a type that was never negotiated is counted and harms nobody.
    let odd = bench.packet(5, false, &[0x7d, 0, 1]);
    bench.time = 4;
    let p = bench.p(1);
    assert_eq!(bench.push(133, [&odd].into_iter().chain(&p)), [P(5)]);
    assert_eq!(bench.assembler.counters().malformed, 2);
}

#[test]
fn requests_from_outside_share_the_throttle() {
    let mut bench = Bench::started();
    bench.assembler.request_keyframe(bench.at(100));
    assert_eq!(bench.drain(100), [Ask(KeyframeReason::Requested)]);
    // A second player, and a hole that was given up, within the interval.
    bench.assembler.request_keyframe(bench.at(150));
    assert_eq!(bench.drain(150), []);
    assert_eq!(bench.assembler.next_timeout(), Some(bench.at(600)));
    assert_eq!(bench.timeout(600), [Ask(KeyframeReason::Requested)]);
    let idr = bench.idr(1);
    assert_eq!(bench.push(650, &idr), [Idr(2)]);
    let p = bench.p(1);
    assert_eq!(bench.push(2_000, &p), [P(3)]);
    assert_eq!(bench.assembler.next_timeout(), None);
}

#[test]
fn a_limit_without_room_is_not_taken_at_its_word() {
    let mut bench = Bench::new();
    bench.assembler = FrameAssembler::new(Limits {
        packets_max: 1,
        ..Limits::default()
    });
    let idr = bench.idr(60);
    assert_eq!(bench.push(0, &idr), [Idr(1)]);
}

#[test]
fn waits_follow_the_round_trip_time() {
    let mut assembler = FrameAssembler::new(Limits::default());
    assert_eq!(assembler.hole_wait(), Duration::from_millis(200));
    for (rtt, wait) in [
        (0, 100),
        (30, 160),
        (100, 300),
        (200, 500),
        (300, 700),
        (5_000, 800),
    ] {
        assembler.set_rtt(Duration::from_millis(rtt));
        assert_eq!(assembler.hole_wait(), Duration::from_millis(wait));
    }
    assembler.set_rtt(Duration::MAX);
    assert_eq!(assembler.hole_wait(), patience::ASK_MAX);
}

#[test]
fn jumps_of_the_sequence_are_survived() {
    let mut bench = Bench::started();
    // Ahead.
    bench.sequence += 100_000;
    let p = bench.p(1);
    assert_eq!(bench.push(100, &p), [Ask(KeyframeReason::Overflow)]);
    let idr = bench.idr(1);
    assert_eq!(bench.push(200, &idr), [Idr(3)]);
    // Back: a sender that began anew, with a clock of its own.
    bench.sequence -= 50_000;
    bench.time += 10_000_000;
    let mut seen = Vec::new();
    for at in 0..100 {
        let packets = if at % 30 == 0 {
            bench.idr(1)
        } else {
            bench.p(1)
        };
        seen.extend(bench.push(1_000 + at * 33, &packets));
    }
    assert!(
        seen.iter().filter(|seen| matches!(seen, P(_))).count() >= 8,
        "{seen:?}"
    );
    // Retransmissions in a row are not that.
    let before = bench.assembler.counters().overflows;
    let old: Vec<Packet> = (0..200).flat_map(|_| bench.p(1)).collect();
    bench.push(9_000, &old);
    bench.push(9_001, &old);
    assert_eq!(bench.assembler.counters().overflows, before);
    // Numbers that no extension makes.
    let far = Packet {
        sequence: u64::MAX,
        ..old[0].clone()
    };
    assert_eq!(bench.push(9_002, [&far]), []);
    assert_eq!(bench.assembler.counters().malformed, 1);
}

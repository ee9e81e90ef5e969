//! Seeded links that lose, delay, double and retransmit: what comes out is always true.

use std::collections::BTreeMap;

use super::tests::{avcc, packets_of};
use super::*;

/// xorshift64*, enough for a link.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What a link does to packets.
#[derive(Clone, Copy, Debug)]
struct Link {
    loss_percent: u64,
    /// Lost packets that come after all, and how late.
    retransmitted_percent: u64,
    retransmission_ms: u64,
    doubled_percent: u64,
    jitter_ms: u64,
    padding: bool,
    markers: bool,
    /// Whether there are key frames but the first. A whole one ends every wait before it, so that
    /// only without them nothing may be lost.
    key_frames: bool,
}

struct Report {
    sent: usize,
    emitted: usize,
    asked: usize,
}

const FRAME_MS: u64 = 33;
const SEQUENCE_START: u64 = 65_000;

/// Runs 300 frames over the link and checks each output against what was sent.
fn run(seed: u64, link: Link) -> Report {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut assembler = FrameAssembler::new(Limits::default());
    let start = Instant::now();
    let at = |millis: u64| start + Duration::from_millis(millis);
    // Time in ms, then a counter that keeps the order of sending.
    let mut in_flight: BTreeMap<(u64, u64), Packet> = BTreeMap::new();
    let mut sent: Vec<(Vec<u8>, bool)> = Vec::new();
    let mut sequence = SEQUENCE_START;
    let mut order = 0;
    let mut wants_idr = false;
    let mut last_emitted: Option<u64> = None;
    let mut last_asked: Option<u64> = None;
    let mut report = Report {
        sent: 0,
        emitted: 0,
        asked: 0,
    };
    for millis in 0..(300 * FRAME_MS + 2_000) {
        if millis % FRAME_MS == 0 && sent.len() < 300 {
            let index = sent.len() as u64;
            // A key frame where one was asked for, and seldom by itself.
            let idr = index == 0
                || (link.key_frames && (std::mem::take(&mut wants_idr) || random.percent(1)));
            let slices = 1 + random.below(3) as usize;
            let len = random.below(if idr { 3_000 } else { 900 }) as usize;
            let frame = avcc(idr, slices, len, index + 1);
            let mut packets = packets_of(sequence, index * 2_970, &frame, idr, 200);
            if link.padding && random.percent(20) {
                packets.push(Packet {
                    sequence: sequence + packets.len() as u64,
                    rtp_time: index * 2_970,
                    marker: false,
                    payload: Bytes::new(),
                });
            }
            sequence += packets.len() as u64;
            sent.push((frame, idr));
            for mut packet in packets {
                packet.marker &= link.markers;
                let mut arrives = millis + random.below(link.jitter_ms + 1);
                if random.percent(link.loss_percent) {
                    if !random.percent(link.retransmitted_percent) {
                        continue;
                    }
                    arrives += link.retransmission_ms;
                }
                if random.percent(link.doubled_percent) {
                    order += 1;
                    let again = arrives + random.below(400);
                    in_flight.insert((again, order), packet.clone());
                }
                order += 1;
                in_flight.insert((arrives, order), packet);
            }
        }
        while let Some(entry) = in_flight.first_entry()
            && entry.key().0 <= millis
        {
            assembler.push(at(millis), entry.remove());
        }
        if assembler
            .next_timeout()
            .is_some_and(|due| due <= at(millis))
        {
            assembler.handle_timeout(at(millis));
            let again = assembler.next_timeout();
            assert!(
                again.is_none_or(|due| due > at(millis)),
                "a due call moves something"
            );
        }
        while let Some(output) = assembler.poll(at(millis)) {
            match output {
                Output::AccessUnit {
                    rtp_time,
                    unit,
                    after_loss,
                    arrival,
                } => {
                    let index = rtp_time / 2_970;
                    let (frame, idr) = &sent[index as usize];
                    assert_eq!(unit.payload, frame, "seed {seed}: frame {index}");
                    assert_eq!((unit.idr, unit.sps.len()), (*idr, usize::from(*idr)));
                    assert!(arrival <= at(millis));
                    let previous = last_emitted.map_or(0, |last| last + 1);
                    assert!(index >= previous, "seed {seed}: order");
                    // Nothing that refers to a lost frame.
                    let gap = index > previous || last_emitted.is_none();
                    assert!(!gap || *idr, "seed {seed}: frame {index} after a hole");
                    // Without a gap, padding was lost.
                    assert!(!gap || after_loss, "seed {seed}: frame {index}");
                    last_emitted = Some(index);
                    report.emitted += 1;
                }
                Output::KeyframeNeeded { .. } => {
                    assert!(
                        last_asked.is_none_or(|last| millis - last >= 500),
                        "throttled"
                    );
                    last_asked = Some(millis);
                    report.asked += 1;
                    wants_idr = true;
                }
            }
        }
    }
    report.sent = sent.len();
    let counters = assembler.counters();
    assert_eq!(counters.frames, report.emitted as u64);
    assert_eq!(
        (counters.malformed, counters.overflows),
        (0, 0),
        "seed {seed}"
    );
    assert!(
        counters.frames + counters.dropped <= 300,
        "seed {seed}: {counters:?}"
    );
    report
}

const CLEAN: Link = Link {
    loss_percent: 0,
    retransmitted_percent: 0,
    retransmission_ms: 0,
    doubled_percent: 0,
    jitter_ms: 0,
    padding: true,
    markers: true,
    key_frames: true,
};

#[test]
fn a_clean_link_loses_nothing() {
    for seed in 1..10 {
        let report = run(seed, CLEAN);
        assert_eq!((report.emitted, report.asked), (report.sent, 0));
        // Without markers the last frame has no end.
        let report = run(
            seed,
            Link {
                markers: false,
                ..CLEAN
            },
        );
        assert_eq!((report.emitted, report.asked), (report.sent - 1, 0));
    }
}

#[test]
fn jitter_and_doubles_lose_nothing() {
    for seed in 1..40 {
        let link = Link {
            jitter_ms: 60,
            doubled_percent: 10,
            key_frames: false,
            ..CLEAN
        };
        let report = run(seed, link);
        assert_eq!(report.emitted, report.sent, "seed {seed}");
    }
}

#[test]
fn retransmissions_in_time_lose_nothing() {
    for seed in 1..40 {
        let link = Link {
            loss_percent: 10,
            retransmitted_percent: 100,
            retransmission_ms: 100,
            jitter_ms: 20,
            key_frames: false,
            ..CLEAN
        };
        let report = run(seed, link);
        assert_eq!(report.emitted, report.sent, "seed {seed}");
    }
}

/// CASES 40, 42: what is emitted is true whatever the link does, and the stream recovers.
#[test]
fn case_40_42_lossy_links_never_show_a_broken_picture() {
    let mut emitted = 0;
    for seed in 1..400 {
        let mut random = Random(seed + 77);
        let link = Link {
            loss_percent: 1 + random.below(8),
            retransmitted_percent: random.below(101),
            retransmission_ms: random.below(400),
            doubled_percent: random.below(10),
            jitter_ms: random.below(80),
            padding: random.percent(50),
            markers: random.percent(80),
            key_frames: true,
        };
        let report = run(seed, link);
        assert!(report.emitted > 0, "seed {seed}: {link:?}");
        emitted += report.emitted;
    }
    // Far from nothing on the whole.
    assert!(emitted > 399 * 300 / 4, "{emitted}");
}

/// One packet in a hundred lost for good: a key frame each time, at most one round trip of
/// darkness.
#[test]
fn light_loss_costs_little() {
    for seed in 1..20 {
        let link = Link {
            loss_percent: 1,
            retransmitted_percent: 90,
            retransmission_ms: 80,
            jitter_ms: 10,
            ..CLEAN
        };
        let report = run(seed, link);
        assert!(report.emitted > 220, "seed {seed}: {}", report.emitted);
        assert!(report.asked < 10, "seed {seed}: {}", report.asked);
    }
}

/// Packets of noise, in any order: bounded, answered, no panic.
#[test]
fn noise_is_survived() {
    for seed in 1..30 {
        let mut random = Random(seed * 977 + 1);
        let mut assembler = FrameAssembler::new(Limits::default());
        let start = Instant::now();
        for step in 0..5_000u64 {
            let now = start + Duration::from_millis(step * 3);
            let len = random.below(12) as usize;
            let mut payload: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
            if let Some(first) = payload.first_mut()
                && random.percent(80)
            {
                *first = [0x67, 0x65, 0x41, 0x78, 0x7c, 0x68][random.below(6) as usize];
            }
            let packet = Packet {
                sequence: step + random.below(20),
                rtp_time: (step / 4 + random.below(2)) * 3_000,
                marker: random.percent(30),
                payload: payload.into(),
            };
            assembler.push(now, packet);
            if assembler.next_timeout().is_some_and(|due| due <= now) {
                assembler.handle_timeout(now);
            }
            while assembler.poll(now).is_some() {}
            assert!(assembler.bytes_held() <= 12 * 4096);
        }
    }
}

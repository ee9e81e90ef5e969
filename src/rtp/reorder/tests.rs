use super::*;

const WAIT: Duration = Duration::from_millis(60);

struct Line {
    reorder: Reorder,
    start: Instant,
}

impl Line {
    fn new() -> Self {
        Self {
            reorder: Reorder::new(Limits::default()),
            start: Instant::now(),
        }
    }

    fn at(&self, millis: u64) -> Instant {
        self.start + Duration::from_millis(millis)
    }

    /// Pushes the packet and answers what comes out: sequence numbers, and gaps as negative counts.
    fn push(&mut self, millis: u64, sequence: u64) -> Vec<i64> {
        let payload = Bytes::from(sequence.to_be_bytes().to_vec());
        self.reorder
            .push(self.at(millis), sequence, sequence * 960, payload);
        self.drain(millis)
    }

    fn timeout(&mut self, millis: u64) -> Vec<i64> {
        self.reorder.handle_timeout(self.at(millis));
        self.drain(millis)
    }

    fn drain(&mut self, millis: u64) -> Vec<i64> {
        let now = self.at(millis);
        std::iter::from_fn(|| self.reorder.poll(now))
            .map(|output| match output {
                Output::Packet {
                    sequence,
                    rtp_time,
                    payload,
                    ..
                } => {
                    assert_eq!(payload.as_ref(), sequence.to_be_bytes());
                    assert_eq!(rtp_time, sequence * 960);
                    sequence as i64
                }
                Output::Lost { count } => -(count as i64),
            })
            .collect()
    }
}

#[test]
fn packets_in_order_come_out_at_once() {
    let mut line = Line::new();
    for sequence in 65_530..65_550 {
        assert_eq!(line.push(sequence, sequence), [sequence as i64]);
        assert_eq!(line.reorder.next_timeout(), None);
    }
}

/// CASES 45, the reordering part: lost packets are reported once, in their place, and the count is
/// exact.
#[test]
fn case_45_a_gap_is_reported_when_its_time_is_over() {
    let mut line = Line::new();
    assert_eq!(line.push(0, 10), [10]);
    assert!(line.push(20, 12).is_empty());
    assert!(line.push(40, 13).is_empty());
    let wait = line.reorder.wait();
    assert!(wait <= WAIT && wait > WAIT - Duration::from_millis(1));
    assert_eq!(line.reorder.next_timeout(), Some(line.at(20) + wait));
    assert!(line.timeout(78).is_empty());
    assert_eq!(line.timeout(80), [-1, 12, 13]);
    assert_eq!(line.reorder.next_timeout(), None);
    // What was given up comes after all, and is ignored.
    assert!(line.push(90, 11).is_empty());
    assert_eq!(line.push(100, 14), [14]);
    assert_eq!(line.reorder.counters().late, 1);
    assert_eq!(
        (
            line.reorder.counters().lost,
            line.reorder.counters().packets
        ),
        (1, 4)
    );
}

#[test]
fn a_gap_that_is_filled_in_time_is_none() {
    let mut line = Line::new();
    assert_eq!(line.push(0, 1), [1]);
    assert!(line.push(20, 4).is_empty());
    assert_eq!(line.push(25, 2), [2]);
    assert!(line.push(25, 4).is_empty());
    assert_eq!(line.push(30, 3), [3, 4]);
    assert_eq!(line.reorder.counters().duplicates, 1);
    assert_eq!(line.reorder.counters().lost, 0);
}

#[test]
fn padding_advances_the_sequence_only() {
    let mut line = Line::new();
    assert_eq!(line.push(0, 1), [1]);
    line.reorder.push(line.at(5), 2, 0, Bytes::new());
    assert_eq!(line.push(20, 3), [3]);
    assert_eq!(line.reorder.counters().padding, 1);
}

#[test]
fn a_jump_beyond_the_limit_ends_all_waits() {
    let mut line = Line::new();
    assert_eq!(line.push(0, 0), [0]);
    assert!(line.push(1, 256).is_empty());
    assert_eq!(line.push(2, 257), [-255, 256, 257]);
    assert_eq!(line.push(3, 5_000_000), [-4_999_742, 5_000_000]);
    assert_eq!(line.reorder.counters().overflows, 2);
}

#[test]
fn a_sequence_begun_anew_is_followed() {
    let mut line = Line::new();
    assert_eq!(line.push(0, 40_000), [40_000]);
    for sequence in 100..115 {
        assert!(line.push(1, sequence).is_empty());
    }
    assert_eq!(line.push(1, 115), [115]);
    assert_eq!(line.push(1, 116), [116]);
}

/// With loss, reordering and doubles from a seed: in order, each once, and all accounted for.
#[test]
fn case_45_random_loss_and_reordering_is_all_accounted_for() {
    for seed in 1..40u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut next = move || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        let mut arrivals = Vec::new();
        let count = 500;
        for sequence in 0..count {
            let copies = match next() % 100 {
                // The first and the last always come, so that the total is known.
                _ if sequence == 0 || sequence == count - 1 => 1,
                0..5 => 0,
                5..10 => 2,
                _ => 1,
            };
            for _ in 0..copies {
                let late = if sequence == 0 { 0 } else { next() % 50 };
                arrivals.push((sequence * 20 + late, sequence));
            }
        }
        arrivals.sort_unstable();
        let mut line = Line::new();
        let mut out = Vec::new();
        let mut expected = 0;
        for (millis, sequence) in arrivals {
            if let Some(due) = line.reorder.next_timeout()
                && due <= line.at(millis)
            {
                line.reorder.handle_timeout(due);
            }
            out.extend(line.push(millis, sequence));
        }
        out.extend(line.timeout(count * 20 + 1_000));
        for item in out {
            if item < 0 {
                expected -= item;
            } else {
                assert_eq!(item, expected, "seed {seed}");
                expected += 1;
            }
        }
        assert_eq!(expected, count as i64, "seed {seed}");
        let counters = line.reorder.counters();
        assert_eq!(counters.packets + counters.lost, count);
    }
}

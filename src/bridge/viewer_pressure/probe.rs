//! [`Probe`]: what echoes say of a path that does not carry the whole stream.
//!
//! The pictures that fit leave in small trains of packets. An echo is asked for in front of one
//! and another behind it: by how much longer the second takes, the train was held up by the
//! narrowest place of the path, whose rate that tells. So the end of a cap is seen within some
//! trains, without a packet more than the path is known to carry. And an echo by itself tells
//! how long the queue is, within a round trip.

use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Probe {
    asked_at: Option<Instant>,
    train: Option<Train>,
    /// The shortest echo of all.
    shortest: Option<Duration>,
    /// Echoes asked for since the last answer.
    unanswered: u32,
}

/// A train with an echo at each end.
#[derive(Clone, Copy, Debug)]
struct Train {
    front: u64,
    back: u64,
    bits: f64,
    /// How long the one in front took.
    took: Option<Duration>,
}

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Echo {
    /// How long it waited on its way.
    pub(super) queue: Duration,
    /// How fast its train came through, in bits a second, if it was behind one.
    pub(super) rate_bps: Option<f64>,
}

impl Probe {
    /// Of a path whose shortest round trip so far was `shortest`.
    pub(super) fn new(shortest: Option<Duration>) -> Self {
        Self {
            shortest,
            ..Self::default()
        }
    }

    /// Whether it is time to ask again.
    pub(super) fn is_due(&self, now: Instant, interval: Duration) -> bool {
        self.unanswered < UNANSWERED_MAX && self.asked_at.is_none_or(|at| now >= at + interval)
    }

    /// A train of `bits` left between two echoes.
    pub(super) fn asked(&mut self, now: Instant, front: u64, back: u64, bits: f64) {
        self.asked_at = Some(now);
        self.unanswered += 1;
        self.train = Some(Train {
            front,
            back,
            bits,
            took: None,
        });
    }

    /// The echo of this number is there.
    pub(super) fn answered(&mut self, number: u64, rtt: Duration) -> Echo {
        self.unanswered = 0;
        let shortest = self.shortest.map_or(rtt, |shortest| shortest.min(rtt));
        self.shortest = Some(shortest);
        let mut rate_bps = None;
        if let Some(train) = &mut self.train {
            if number == train.front {
                train.took = Some(rtt);
            } else if number == train.back
                && let Some(took) = train.took
            {
                let held_up = rtt.saturating_sub(took).max(HELD_UP_MIN);
                rate_bps = Some(train.bits / held_up.as_secs_f64());
            }
        }
        Echo {
            queue: rtt - shortest,
            rate_bps,
        }
    }
}

/// A peer that left so many unanswered is not asked any more.
const UNANSWERED_MAX: u32 = 10;

/// Clocks and schedulers are no more exact than this.
const HELD_UP_MIN: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_train_tells_the_rate_and_an_echo_the_queue() {
        let now = Instant::now();
        let mut probe = Probe::new(Some(40 * MS));
        probe.asked(now, 0, 1, 40_000.0);
        let front = probe.answered(0, 50 * MS);
        assert_eq!(
            front,
            Echo {
                queue: 10 * MS,
                rate_bps: None
            }
        );
        let back = probe.answered(1, 130 * MS);
        assert_eq!(back.queue, 90 * MS);
        assert_eq!(back.rate_bps.map(|bps| bps as u64), Some(500_000));
        // Of an open path: no faster than can be told.
        probe.asked(now, 2, 3, 40_000.0);
        probe.answered(2, 30 * MS);
        let back = probe.answered(3, 30 * MS);
        assert_eq!(back.queue, Duration::ZERO);
        assert_eq!(back.rate_bps.map(|bps| bps as u64), Some(40_000_000));
    }

    #[test]
    fn half_a_train_tells_no_rate() {
        let mut probe = Probe::default();
        probe.asked(Instant::now(), 0, 1, 40_000.0);
        assert_eq!(probe.answered(1, 50 * MS).rate_bps, None);
    }

    #[test]
    fn a_peer_that_never_answers_is_left_alone() {
        let mut now = Instant::now();
        let mut probe = Probe::default();
        let mut asked = 0;
        for _ in 0..100 {
            if probe.is_due(now, 100 * MS) {
                probe.asked(now, asked * 2, asked * 2 + 1, 40_000.0);
                asked += 1;
            }
            now += 50 * MS;
        }
        assert_eq!(asked, u64::from(UNANSWERED_MAX));
    }
}

//! [`Patience`]: how long a missing packet is worth waiting for, learnt from those that came late.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Follows the latest of the late packets up at once, and down slowly.
#[derive(Debug)]
pub(super) struct Patience {
    most: Duration,
    /// By how much packets came later than the first one behind them, lately at most.
    lateness: Duration,
    /// Packets that were given up: the first and the last of a gap, and when it was noticed.
    given_up: VecDeque<(u64, u64, Instant)>,
}

impl Patience {
    pub(super) fn new(most: Duration) -> Self {
        Self {
            most,
            lateness: START,
            given_up: VecDeque::new(),
        }
    }

    /// How long to wait at present.
    pub(super) fn wait(&self) -> Duration {
        let wait = self.lateness + self.lateness / 4;
        wait.max(LEAST).min(self.most)
    }

    /// A packet filled a gap that was noticed so long ago.
    pub(super) fn filled(&mut self, after: Duration) {
        self.lateness = self.lateness.max(after.min(self.most));
    }

    /// A packet came in order.
    pub(super) fn in_order(&mut self) {
        self.lateness -= self.lateness / DECAY;
    }

    /// A gap was given up.
    pub(super) fn gave_up(&mut self, first: u64, last: u64, noticed: Instant) {
        if self.given_up.len() == GIVEN_UP_MAX {
            self.given_up.pop_front();
        }
        self.given_up.push_back((first, last, noticed));
    }

    /// A packet came behind its time: perhaps it would have come in a little longer.
    pub(super) fn came_late(&mut self, now: Instant, sequence: u64) {
        let gap = self
            .given_up
            .iter()
            .find(|(first, last, _)| (*first..=*last).contains(&sequence));
        if let Some((_, _, noticed)) = gap {
            let after = now.saturating_duration_since(*noticed);
            // What could not have been waited for teaches nothing.
            if after <= self.most {
                self.filled(after);
            }
        }
    }
}

/// What is assumed before anything came late: with a quarter on top, 60 ms.
const START: Duration = Duration::from_millis(48);

/// The shortest wait: one packet of the usual length.
const LEAST: Duration = Duration::from_millis(20);

/// Of the lateness so much of a part is forgotten with each packet in order: half of it in seven
/// seconds of usual packets.
const DECAY: u32 = 512;

/// Gaps that are remembered.
const GIVEN_UP_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_quiet_network_is_waited_for_less_and_less() {
        let mut patience = Patience::new(120 * MS);
        assert_eq!(patience.wait(), 60 * MS);
        for _ in 0..50 * 20 {
            patience.in_order();
        }
        assert_eq!(patience.wait(), LEAST);
    }

    #[test]
    fn what_came_late_raises_the_wait_at_once_and_up_to_the_limit() {
        let mut patience = Patience::new(120 * MS);
        let now = Instant::now();
        patience.filled(80 * MS);
        assert_eq!(patience.wait(), 100 * MS);
        patience.gave_up(5, 7, now);
        patience.came_late(now + 110 * MS, 8);
        assert_eq!(patience.wait(), 100 * MS, "not one of them");
        patience.came_late(now + 110 * MS, 6);
        assert_eq!(patience.wait(), 120 * MS);
        // Half a second later is no reason to wait for half a second, or at all.
        let mut other = Patience::new(120 * MS);
        other.gave_up(5, 7, now);
        other.came_late(now + 500 * MS, 6);
        assert_eq!(other.wait(), 60 * MS);
    }
}

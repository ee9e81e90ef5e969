//! [`Link`]: the way of this tool's own datagrams, as bad as was asked for.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use mio::Token;

use crate::args::Impairment;
use crate::clock::Random;

/// Loses and delays datagrams both ways. Without anything to do it costs nothing.
pub struct Link {
    impairment: Impairment,
    random: Random,
    delayed: BinaryHeap<Reverse<Delayed>>,
    /// Keeps those of one time in order.
    count: u64,
    /// How many were lost on purpose.
    pub lost: u64,
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// From the server.
    In,
    /// To the server.
    Out,
}

/// A datagram that is due later.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Delayed {
    /// When it arrives or leaves.
    pub due: Instant,
    count: u64,
    /// Whose it is.
    pub token: Token,
    /// Which way.
    pub way: Way,
    /// Its contents.
    pub bytes: Vec<u8>,
}

impl Link {
    /// A link that does as asked.
    pub fn new(impairment: Impairment, seed: u64) -> Self {
        Self {
            impairment,
            random: Random(seed ^ 0x11_4c),
            delayed: BinaryHeap::new(),
            count: 0,
            lost: 0,
        }
    }

    /// Whether `bytes` pass at once. If not, they are lost or kept until they are due.
    pub fn pass(&mut self, now: Instant, token: Token, way: Way, bytes: &[u8]) -> bool {
        let Impairment {
            loss,
            delay,
            jitter,
        } = self.impairment;
        if loss > 0.0 && self.random.part() < loss {
            self.lost += 1;
            return false;
        }
        if delay.is_zero() && jitter.is_zero() {
            return true;
        }
        if self.delayed.len() < DELAYED_MAX {
            self.count += 1;
            self.delayed.push(Reverse(Delayed {
                due: now + delay + jitter.mul_f64(self.random.part()),
                count: self.count,
                token,
                way,
                bytes: bytes.to_vec(),
            }));
        } else {
            self.lost += 1;
        }
        false
    }

    /// When the next one is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.delayed.peek().map(|Reverse(delayed)| delayed.due)
    }

    /// Takes one that is due.
    pub fn take(&mut self, now: Instant) -> Option<Delayed> {
        if self.next_due()? > now {
            return None;
        }
        self.delayed.pop().map(|Reverse(delayed)| delayed)
    }

    /// The longest a datagram can take, both ways: what a server's answer is waited for more.
    pub fn round_trip_max(&self) -> Duration {
        (self.impairment.delay + self.impairment.jitter) * 2
    }
}

/// Datagrams under way: a second of 400 viewers of 2 Mbit/s. More are lost.
const DELAYED_MAX: usize = 200_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn link(loss: f64, delay: u64, jitter: u64) -> Link {
        let impairment = Impairment {
            loss,
            delay: Duration::from_millis(delay),
            jitter: Duration::from_millis(jitter),
        };
        Link::new(impairment, 1)
    }

    #[test]
    fn a_good_link_passes_everything_at_once() {
        let mut link = link(0.0, 0, 0);
        assert!((0..100).all(|_| link.pass(Instant::now(), Token(1), Way::In, b"x")));
        assert_eq!((link.next_due(), link.lost), (None, 0));
    }

    #[test]
    fn loss_is_about_as_asked() {
        let mut link = link(0.1, 0, 0);
        let passed = (0..10_000)
            .filter(|_| link.pass(Instant::now(), Token(1), Way::In, b"x"))
            .count();
        assert!((8_900..9_100).contains(&passed), "{passed}");
        assert_eq!(passed as u64 + link.lost, 10_000);
    }

    #[test]
    fn delayed_datagrams_keep_their_order_and_come_when_due() {
        let mut link = link(0.0, 40, 0);
        let now = Instant::now();
        for byte in 0..5 {
            assert!(!link.pass(now, Token(1), Way::Out, &[byte]));
        }
        let due = now + Duration::from_millis(40);
        assert_eq!(link.take(due - Duration::from_micros(1)), None);
        let order: Vec<u8> = std::iter::from_fn(|| link.take(due))
            .map(|delayed| delayed.bytes[0])
            .collect();
        assert_eq!(order, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn jitter_stays_within_its_bound() {
        let mut link = link(0.0, 40, 10);
        let now = Instant::now();
        (0..100).for_each(|_| assert!(!link.pass(now, Token(1), Way::In, b"x")));
        assert_eq!(link.round_trip_max(), Duration::from_millis(100));
        let last = now + Duration::from_millis(50);
        assert!(link.next_due() >= Some(now + Duration::from_millis(40)));
        assert_eq!(std::iter::from_fn(|| link.take(last)).count(), 100);
    }
}

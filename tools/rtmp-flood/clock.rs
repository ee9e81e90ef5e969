//! [`Clock`]: one time for stamps, the same in every process of the machine.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Turns [`Instant`]s into µs since 1970. Read from the system once, so that it never jumps.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    start_us: u64,
}

impl Clock {
    /// A clock that agrees with the system's now.
    pub fn new(start: Instant) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            start,
            start_us: since.unwrap_or(Duration::ZERO).as_micros() as u64,
        }
    }

    /// µs since 1970.
    pub fn us(&self, now: Instant) -> u64 {
        self.start_us + now.saturating_duration_since(self.start).as_micros() as u64
    }
}

/// What all that is random comes from: the same seed gives the same run, as far as the
/// network lets it (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to 1.
    pub fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

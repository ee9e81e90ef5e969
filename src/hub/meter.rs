//! [`Meter`]: what a track amounts to lately, in bits and frames a second.

use std::time::{Duration, Instant};

/// Counts frames and bytes, in all and over the last few seconds.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    /// Frames since the beginning.
    pub frames: u64,
    /// Bytes of payload since the beginning.
    pub bytes: u64,
    window: Option<Window>,
}

/// The window that is filling and the one that is full.
#[derive(Clone, Copy, Debug)]
struct Window {
    since: Instant,
    frames: u32,
    bytes: u64,
    last: Rate,
}

/// A rate over the last full window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// Frames a second.
    pub frames_per_second: f64,
    /// Bits of payload a second.
    pub bits_per_second: u64,
}

impl Meter {
    /// Counts one frame of `bytes` bytes.
    pub fn add(&mut self, now: Instant, bytes: usize) {
        self.frames += 1;
        self.bytes += bytes as u64;
        let window = self.window.get_or_insert(Window {
            since: now,
            frames: 0,
            bytes: 0,
            last: Rate::default(),
        });
        if now.saturating_duration_since(window.since) >= WINDOW {
            *window = Window {
                since: now,
                frames: 0,
                bytes: 0,
                last: window.rate(now),
            };
        }
        window.frames += 1;
        window.bytes += bytes as u64;
    }

    /// The rate of late; zero when nothing came for two windows.
    pub fn rate(&self, now: Instant) -> Rate {
        let Some(window) = &self.window else {
            return Rate::default();
        };
        let passed = now.saturating_duration_since(window.since);
        if passed >= WINDOW * 2 {
            Rate::default()
        } else if passed >= WINDOW || window.last == Rate::default() {
            window.rate(now)
        } else {
            window.last
        }
    }
}

impl Window {
    fn rate(&self, now: Instant) -> Rate {
        let seconds = now.saturating_duration_since(self.since).as_secs_f64();
        if seconds < 0.2 {
            return self.last;
        }
        Rate {
            frames_per_second: f64::from(self.frames) / seconds,
            bits_per_second: (self.bytes as f64 * 8.0 / seconds) as u64,
        }
    }
}

/// Long enough to see a whole group of pictures of common length.
const WINDOW: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_stream_reads_as_its_rate() {
        let start = Instant::now();
        let mut meter = Meter::default();
        for n in 0..200_u32 {
            meter.add(start + Duration::from_millis(40) * n, 5_000);
        }
        let now = start + Duration::from_millis(40) * 199;
        let rate = meter.rate(now);
        assert!((24.5..=25.5).contains(&rate.frames_per_second), "{rate:?}");
        assert!(
            (980_000..=1_020_000).contains(&rate.bits_per_second),
            "{rate:?}"
        );
        assert_eq!(meter.frames, 200);
        assert_eq!(meter.rate(now + WINDOW * 3), Rate::default());
    }
}

//! How far the input's timestamps have run away from its samples, and what is to be
//! done about it.
//!
//! Both count the same time, but with two quartzes (tens of ppm apart), in rounded
//! milliseconds, or with a sender report that moves the stream's clock by some
//! milliseconds a second. Only what persists counts: the error is smoothed over
//! [`SMOOTHING_SAMPLES`]. From [`START_SAMPLES`] on it is worked off, in steps
//! of at most [`STEP_MAX`] samples a frame and the fewer the smaller the error is, down to
//! [`STOP_SAMPLES`]. Between the two nothing is touched, and frames are exact copies.

use crate::media::MediaTime;

use super::{OUTPUT_RATE_HZ, Sync};

/// Time constant of the smoothing, in samples at 48 kHz: 1.3 s, long against the jitter
/// of a client that stamps its sound as it comes from the microphone.
const SMOOTHING_SAMPLES: f64 = 62_500.0;

/// Where correction begins: 10 ms, far above the rounding of milliseconds and below what
/// anybody sees between lips and sound. Each further 10 ms add a sample to the step.
const START_SAMPLES: f64 = 480.0;

/// Where correction ends: 1 ms.
const STOP_SAMPLES: f64 = 48.0;

/// Most samples by which one frame is stretched: 5 in 960 are 0.5 %, 9 cents, which is
/// not heard as a change of pitch; it follows a clock that moves by 5 ms a second.
const STEP_MAX: f64 = 5.0;

/// The smoothed error of one stream. See the module.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Drift {
    /// In samples at 48 kHz; positive: the timestamps are ahead of the samples.
    smoothed: f64,
    correcting: bool,
    /// Samples worked off in all.
    corrected: i64,
}

impl Drift {
    /// Takes note of how far the timestamp of a piece of input of `duration` is
    /// ahead of the sample count.
    pub(super) fn observe(&mut self, ahead: MediaTime, duration: MediaTime) {
        let weight = (in_samples(duration) / SMOOTHING_SAMPLES).clamp(0.0, 1.0);
        self.smoothed += (in_samples(ahead) - self.smoothed) * weight;
        let error = self.smoothed.abs();
        self.correcting = error > START_SAMPLES || self.correcting && error > STOP_SAMPLES;
    }

    /// By how many samples the next frame is to advance the sample count beyond the
    /// samples that it takes.
    pub(super) fn step(&self) -> isize {
        if !self.correcting {
            return 0;
        }
        let size = (self.smoothed.abs() / START_SAMPLES).ceil().min(STEP_MAX);
        size.copysign(self.smoothed) as isize
    }

    /// A frame was stretched by `step`.
    pub(super) fn corrected(&mut self, step: isize) {
        self.smoothed -= step as f64;
        self.corrected += step as i64;
    }

    /// The present error and what was worked off.
    pub(super) fn sync(&self) -> Sync {
        Sync {
            ahead: MediaTime::from_units(self.smoothed as i64, OUTPUT_RATE_HZ),
            corrected: MediaTime::from_units(self.corrected, OUTPUT_RATE_HZ),
        }
    }

    /// The sample count was set to the timestamps: no error is left.
    pub(super) fn reset(&mut self) {
        *self = Self {
            corrected: self.corrected,
            ..Self::default()
        };
    }
}

fn in_samples(time: MediaTime) -> f64 {
    time.as_secs_f64() * f64::from(OUTPUT_RATE_HZ)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: MediaTime = MediaTime::from_millis(20);

    fn after(millis: impl Fn(i64) -> i64) -> Drift {
        let mut drift = Drift::default();
        for n in 0..1_000 {
            drift.observe(MediaTime::from_millis(millis(n)), FRAME);
        }
        drift
    }

    #[test]
    fn jitter_moves_nothing() {
        assert_eq!(after(|n| n % 2).step(), 0);
        assert_eq!(after(|n| if n % 2 == 0 { 40 } else { -40 }).step(), 0);
        assert_eq!(after(|_| 9).step(), 0);
    }

    #[test]
    fn the_step_grows_with_the_error_and_is_bounded() {
        assert_eq!(after(|_| 11).step(), 2);
        assert_eq!(after(|_| -11).step(), -2);
        assert_eq!(after(|_| 35).step(), 4);
        assert_eq!(after(|_| -90).step(), -5);
    }

    #[test]
    fn correction_goes_on_until_little_is_left() {
        let mut drift = after(|_| 12);
        let mut corrected = 0;
        while drift.step() != 0 {
            corrected += drift.step();
            drift.corrected(drift.step());
            let left = 12 * 48 - corrected as i64;
            drift.observe(MediaTime::from_units(left, OUTPUT_RATE_HZ), FRAME);
        }
        assert!((11 * 48..12 * 48).contains(&corrected), "{corrected}");
    }

    /// A day of sound whose timestamps, in rounded milliseconds, run `ppm` faster than its
    /// samples: how far frames were off at most, after the first minute, and the most samples that
    /// one was stretched by. Counts only, as the framer does it.
    fn day(ppm: i64) -> (MediaTime, usize) {
        let (frame, rate) = (960_i64, i64::from(OUTPUT_RATE_HZ));
        let mut drift = Drift::default();
        let (mut held, mut emitted) = (0, 0);
        let (mut worst, mut largest) = (MediaTime::ZERO, 0);
        for n in 0..24 * 3_600 * 50_i64 {
            let exact_us = n * 20_000 + n * 20 * ppm / 1_000;
            let stamp = MediaTime::from_millis((exact_us + 500).div_euclid(1_000));
            let end = MediaTime::from_units(emitted + held, rate as u32);
            drift.observe(stamp - end, FRAME);
            if n > 60 * 50 {
                worst = worst.max((stamp - end).abs());
            }
            held += frame;
            loop {
                let step = drift.step();
                let taken = frame - step as i64;
                if held < taken + 2 {
                    break;
                }
                largest = largest.max(step.unsigned_abs());
                drift.corrected(step);
                held -= taken;
                emitted += frame;
            }
            assert!(held < 2 * frame, "sound piles up");
        }
        (worst, largest)
    }

    /// Case 48, the sound's half: `cargo test --lib a_day -- --nocapture` prints the figures.
    #[test]
    fn case_48_a_day_of_drift_between_timestamps_and_samples() {
        println!("| timestamps against samples | sound off by at most | a frame stretched by |");
        println!("| --- | --- | --- |");
        for ppm in [200, 100, 0, -100, -200] {
            let (worst, largest) = day(ppm);
            let worst_ms = worst.as_secs_f64() * 1e3;
            println!("| {ppm:+} ppm | {worst_ms:.1} ms | {largest} of 960 samples |");
            assert!(worst_ms < 13.0, "{ppm} ppm: {worst_ms} ms");
            assert!(largest <= 2, "{ppm} ppm: {largest}");
        }
    }
}

//! Any rate to 48 kHz by a polyphase filter, without any delay in the result.
//!
//! The sound is a row of segments. Within one, the output lies exactly where the input lies, and
//! [`Resampler::flush`] gets out at its end what the filter still holds. `n` samples in are
//! `n × 48000 / rate` samples out, rounded, no more and no less.
//!
//! Both rates are whole numbers of hertz, so each output sample lies on one of `48000 / gcd` places
//! between two input samples. A table has the filter for each place: a sinc under a Kaiser window.
//! An output sample is one dot product; a resampler by FFT is not cheaper at these lengths, waits for
//! a block, and its transforms for every length and processor were a tenth of the program.

use std::f64::consts::PI;

use crate::media::MediaTime;

use super::{Error, OUTPUT_RATE_HZ};

/// Rates that are taken, in Hz: those of the table in ISO/IEC 14496-3 section 1.6.3.4.
const RATES_HZ: std::ops::RangeInclusive<u32> = 7_350..=96_000;

/// Rates are rounded to a multiple of this: an odd one would need a table of 48 000
/// filters. What it is off by (0.7 % at most) is followed as drift.
const RATE_STEP_HZ: u32 = 50;

/// Input samples that an output sample is made of, for rates up to 48 kHz: a wait of 0.7 ms at
/// 44.1 kHz. For higher rates twice as many, so that the edge stays as steep in hertz.
const TAPS: usize = 64;

/// Sums that a dot product runs in parallel.
const LANES: usize = 8;

/// Where the filter has fallen to half, as a part of half the lower of the two rates. At 44.1 kHz
/// 19 kHz pass whole, and what a frequency leaves on the other side of 22 kHz is 80 dB below.
const CUTOFF: f64 = 0.94;

/// The shape of the Kaiser window: side lobes 80 dB down.
const KAISER_BETA: f64 = 7.86;

/// A stateful resampler to 48 kHz. See the module.
pub(super) struct Resampler {
    rate_hz: u32,
    channels: usize,
    /// None at 48 kHz.
    filter: Option<Filter>,
    /// Samples per channel taken in this segment.
    consumed: i64,
    /// Samples per channel given out in this segment.
    produced: i64,
}

/// The table, and where it stands in the sound.
struct Filter {
    /// Filters of `taps` each, one for each place.
    table: Box<[f32]>,
    taps: usize,
    places: usize,
    /// Places from one output sample to the next.
    step: usize,
    /// Sound of each channel that is still needed. Begins `taps / 2 - 1` samples before the one at
    /// or before the next output sample.
    history: Vec<Vec<f32>>,
    /// The place of the next output sample, behind the beginning of `history`: may be beyond the
    /// first sample's places.
    place: usize,
}

impl Resampler {
    /// A resampler of interleaved sound in `channels` channels.
    ///
    /// # Errors
    ///
    /// If the rate is none that AAC knows.
    pub(super) fn new(rate_hz: u32, channels: usize) -> Result<Self, Error> {
        if !RATES_HZ.contains(&rate_hz) {
            return Err(Error::Resampler { rate_hz });
        }
        let exact_hz = match MediaTime::TICKS_PER_SECOND % i64::from(rate_hz) {
            0 => rate_hz,
            _ => (rate_hz + RATE_STEP_HZ / 2) / RATE_STEP_HZ * RATE_STEP_HZ,
        };
        Ok(Self {
            rate_hz: exact_hz,
            channels,
            filter: (exact_hz != OUTPUT_RATE_HZ).then(|| Filter::new(exact_hz, channels)),
            consumed: 0,
            produced: 0,
        })
    }

    /// The input rate in Hz that is reckoned with.
    pub(super) fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    /// Takes interleaved sound and adds to `out` what is ready.
    pub(super) fn push(&mut self, pcm: &[f32], out: &mut Vec<f32>) {
        let samples = pcm.len() / self.channels;
        self.consumed += i64::try_from(samples).unwrap_or(0);
        let Some(filter) = &mut self.filter else {
            self.produced = self.consumed;
            out.extend_from_slice(pcm);
            return;
        };
        filter.feed(pcm);
        let made = filter.run(out);
        self.produced += i64::try_from(made).unwrap_or(0);
    }

    /// Ends the segment: adds to `out` all that is still inside.
    pub(super) fn flush(&mut self, out: &mut Vec<f32>) {
        let total = MediaTime::from_units(self.consumed, self.rate_hz).as_units(OUTPUT_RATE_HZ);
        if let Some(filter) = &mut self.filter {
            let missing = usize::try_from(total - self.produced).unwrap_or(0);
            let end = out.len() + missing * self.channels;
            // Silence pushes out what is inside; what it adds itself is cut off.
            filter.feed(&vec![0.0; (filter.taps + 1) * self.channels]);
            filter.run(out);
            out.truncate(end);
            filter.reset();
        }
        self.consumed = 0;
        self.produced = 0;
    }

    /// The length of the sound inside.
    pub(super) fn pending(&self) -> MediaTime {
        MediaTime::from_units(self.consumed, self.rate_hz)
            - MediaTime::from_units(self.produced, OUTPUT_RATE_HZ)
    }
}

impl Filter {
    fn new(rate_hz: u32, channels: usize) -> Self {
        let common = gcd(rate_hz, OUTPUT_RATE_HZ);
        let places = (OUTPUT_RATE_HZ / common) as usize;
        let taps = match rate_hz > OUTPUT_RATE_HZ {
            true => 2 * TAPS,
            false => TAPS,
        };
        // In cycles per input sample, twice.
        let cutoff = CUTOFF * f64::from(OUTPUT_RATE_HZ.min(rate_hz)) / f64::from(rate_hz);
        let mut table = Vec::with_capacity(places * taps);
        for place in 0..places {
            let between = place as f64 / places as f64;
            let filter: Vec<f64> = (0..taps)
                .map(|tap| {
                    let from_centre = tap as f64 - (taps / 2 - 1) as f64 - between;
                    let window = kaiser(from_centre / (taps / 2) as f64);
                    cutoff * sinc(cutoff * from_centre) * window
                })
                .collect();
            // Each lets a constant pass as it is.
            let sum: f64 = filter.iter().sum();
            table.extend(filter.iter().map(|tap| (tap / sum) as f32));
        }
        let mut filter = Self {
            table: table.into(),
            taps,
            places,
            step: (rate_hz / common) as usize,
            history: vec![Vec::new(); channels],
            place: 0,
        };
        filter.reset();
        filter
    }

    /// Before a segment there is silence.
    fn reset(&mut self) {
        for history in &mut self.history {
            history.clear();
            history.resize(self.taps / 2 - 1, 0.0);
        }
        self.place = 0;
    }

    fn feed(&mut self, pcm: &[f32]) {
        let channels = self.history.len();
        for (channel, history) in self.history.iter_mut().enumerate() {
            history.extend(pcm.iter().skip(channel).step_by(channels));
        }
    }

    /// Makes all output samples whose sound is there; answers how many.
    fn run(&mut self, out: &mut Vec<f32>) -> usize {
        let have = self.history.first().map_or(0, Vec::len);
        let before = out.len();
        let mut at = self.place / self.places;
        while at + self.taps <= have {
            let from = self.place % self.places * self.taps;
            let filter = self.table.get(from..from + self.taps).unwrap_or_default();
            for history in &self.history {
                out.push(dot(
                    filter,
                    history.get(at..at + self.taps).unwrap_or_default(),
                ));
            }
            self.place += self.step;
            at = self.place / self.places;
        }
        let used = at.min(have);
        for history in &mut self.history {
            history.drain(..used);
        }
        self.place -= used * self.places;
        (out.len() - before) / self.history.len().max(1)
    }
}

/// The sum of products, in an order that processors can do [`LANES`] at a time.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; LANES];
    let (a, _) = a.as_chunks::<LANES>();
    let (b, _) = b.as_chunks::<LANES>();
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum()
}

fn sinc(x: f64) -> f64 {
    match x == 0.0 {
        true => 1.0,
        false => (PI * x).sin() / (PI * x),
    }
}

/// The Kaiser window from -1 to 1.
fn kaiser(x: f64) -> f64 {
    let inside = 1.0 - x * x;
    match inside > 0.0 {
        true => bessel_i0(KAISER_BETA * inside.sqrt()) / bessel_i0(KAISER_BETA),
        false => 0.0,
    }
}

/// The modified Bessel function of order 0, by its series, which has converged by then.
fn bessel_i0(x: f64) -> f64 {
    let quarter = x * x / 4.0;
    let mut term = 1.0;
    let mut sum = 1.0;
    for k in 1..40 {
        term *= quarter / f64::from(k * k);
        sum += term;
    }
    sum
}

/// The greatest common divisor (Euclid).
fn gcd(a: u32, b: u32) -> u32 {
    match b {
        0 => a,
        _ => gcd(b, a % b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transcode::testing::{amplitude, click, click_position, tone};

    const RATES: [u32; 10] = [
        8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000,
    ];

    #[test]
    fn lengths_are_exact_at_every_rate_and_the_tone_stays() {
        for rate in RATES {
            let mut resampler = Resampler::new(rate, 2).unwrap();
            let sound = tone(1_000.0, rate, 2, rate as usize + 77);
            for _ in 0..2 {
                let mut out = Vec::new();
                for piece in sound.chunks(2 * 1024) {
                    resampler.push(piece, &mut out);
                    let whole = out.len() as i64 / 2 + resampler.pending().as_units(48_000);
                    assert!(whole >= 0);
                }
                resampler.flush(&mut out);
                let expected = (sound.len() as f64 / 2.0 * 48_000.0 / f64::from(rate)).round();
                assert_eq!(out.len() as f64 / 2.0, expected, "{rate}");
                assert_eq!(resampler.pending(), MediaTime::ZERO);
                let left: Vec<f32> = out.chunks(2).map(|pair| pair[0]).collect();
                let heard = amplitude(&left[4_800..43_200], 1_000.0, 48_000);
                assert!((heard - 0.5).abs() < 0.002, "{rate}: {heard}");
            }
        }
    }

    #[test]
    fn a_click_stays_where_it_is() {
        for rate in RATES {
            let mut resampler = Resampler::new(rate, 1).unwrap();
            let at = rate as usize / 2;
            let mut out = Vec::new();
            resampler.push(&click(rate as usize, at), &mut out);
            resampler.flush(&mut out);
            let error = click_position(&out) as i64 - 24_000;
            assert!(error.abs() <= 4, "{rate}: {error}");
        }
    }

    /// What a tone leaves elsewhere: none of it may be heard.
    #[test]
    fn a_high_tone_passes_and_leaves_no_images() {
        for (rate, hz, image_hz) in [
            (44_100, 18_000.0, 48_000.0 - 26_100.0),
            (16_000, 6_500.0, 9_500.0),
            (22_050, 9_000.0, 13_050.0),
            (96_000, 30_000.0, 18_000.0),
        ] {
            let mut resampler = Resampler::new(rate, 1).unwrap();
            let mut out = Vec::new();
            resampler.push(&tone(hz, rate, 1, rate as usize), &mut out);
            let heard = amplitude(&out[4_800..43_200], hz, 48_000);
            let image = amplitude(&out[4_800..43_200], image_hz, 48_000);
            let passes = if hz < 24_000.0 { 0.5 } else { 0.0 };
            assert!(
                (heard - passes).abs() < 0.005 || passes == 0.0,
                "{rate}: {heard}"
            );
            assert!(image < 0.5 / 3_000.0, "{rate}: {image}");
        }
    }

    #[test]
    fn odd_rates_are_rounded_and_foreign_ones_refused() {
        assert_eq!(Resampler::new(44_056, 1).unwrap().rate_hz(), 44_050);
        assert_eq!(Resampler::new(7_350, 1).unwrap().rate_hz(), 7_350);
        assert!(Resampler::new(0, 1).is_err());
        assert!(Resampler::new(192_000, 1).is_err());
    }
}

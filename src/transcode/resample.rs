//! Any rate to 48 kHz, by FFT, without any delay in the result.
//!
//! The sound is a row of segments. Within one, the output lies exactly where the
//! input lies: the filter's delay is cut off its beginning, and [`Resampler::flush`] gets
//! out at its end what the filter and the block in the making still hold. `n` samples in
//! are `n × 48000 / rate` samples out, rounded, no more and no less.

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler as _};

use crate::media::MediaTime;

use super::{Error, OUTPUT_RATE_HZ};

/// Rates that are taken, in Hz: those of the table in ISO/IEC 14496-3 section 1.6.3.4.
const RATES_HZ: std::ops::RangeInclusive<u32> = 7_350..=96_000;

/// Rates are rounded to a multiple of this: an odd one would need a transform of up to a
/// second. What it is off by (0.7 % at most) is followed as drift.
const RATE_STEP_HZ: u32 = 50;

/// Samples that one transform takes at least: the shorter, the sooner the sound is
/// out, and the wider the filter's edge. At 44.1 kHz, where it becomes 294, 95 % of the
/// band pass, and a block is 6.7 ms.
const BLOCK_SAMPLES: usize = 256;

/// The same for 24 kHz and less, where the wait would be longer than the sound is worth.
const BLOCK_SAMPLES_LOW: usize = 128;

/// A stateful resampler to 48 kHz. See the module.
pub(super) struct Resampler {
    rate_hz: u32,
    channels: usize,
    /// None at 48 kHz.
    fft: Option<Fft<f32>>,
    /// Interleaved input that is not a block yet.
    input: Vec<f32>,
    block: Vec<f32>,
    /// Samples per channel taken in this segment.
    consumed: i64,
    /// Samples per channel given out in this segment.
    produced: i64,
    /// Samples per channel of the filter's delay that are still to be cut off.
    lead: usize,
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
        let fft = if exact_hz == OUTPUT_RATE_HZ {
            None
        } else {
            let block = match exact_hz {
                ..=24_000 => BLOCK_SAMPLES_LOW,
                _ => BLOCK_SAMPLES,
            };
            let fft = Fft::new_custom(
                exact_hz as usize,
                OUTPUT_RATE_HZ as usize,
                block,
                1,
                channels,
                rubato::WindowFunction::BlackmanHarris2,
                FixedSync::Both,
            );
            Some(fft.map_err(|_| Error::Resampler { rate_hz })?)
        };
        Ok(Self {
            rate_hz: exact_hz,
            channels,
            input: Vec::new(),
            block: Vec::new(),
            consumed: 0,
            produced: 0,
            lead: fft.as_ref().map_or(0, |fft| fft.output_delay()),
            fft,
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
        if self.fft.is_none() {
            self.produced = self.consumed;
            out.extend_from_slice(pcm);
            return;
        }
        self.input.extend_from_slice(pcm);
        self.run(out);
    }

    /// Ends the segment: adds to `out` all that is still inside.
    pub(super) fn flush(&mut self, out: &mut Vec<f32>) {
        let total = MediaTime::from_units(self.consumed, self.rate_hz).as_units(OUTPUT_RATE_HZ);
        while let Some(fft) = &mut self.fft {
            let missing = usize::try_from(total - self.produced).unwrap_or(0);
            if missing == 0 {
                self.input.clear();
                fft.reset();
                self.lead = fft.output_delay();
                break;
            }
            let block = fft.input_frames_next() * self.channels;
            self.input.resize(self.input.len().max(block), 0.0);
            let from = out.len();
            self.run(out);
            out.truncate(out.len().min(from + missing * self.channels));
        }
        self.consumed = 0;
        self.produced = 0;
    }

    /// The length of the sound inside.
    pub(super) fn pending(&self) -> MediaTime {
        MediaTime::from_units(self.consumed, self.rate_hz)
            - MediaTime::from_units(self.produced, OUTPUT_RATE_HZ)
    }

    /// Transforms all whole blocks.
    fn run(&mut self, out: &mut Vec<f32>) {
        let Some(fft) = &mut self.fft else { return };
        let (taken, made) = (fft.input_frames_next(), fft.output_frames_next());
        let mut blocks = self.input.chunks_exact(taken * self.channels);
        for block in &mut blocks {
            self.block.resize(made * self.channels, 0.0);
            let source = InterleavedSlice::new(block, self.channels, taken);
            let target = InterleavedSlice::new_mut(&mut self.block, self.channels, made);
            let (Ok(source), Ok(mut target)) = (source, target) else {
                unreachable!("both are as long as asked for");
            };
            fft.process_into_buffer(&source, &mut target, None)
                .expect("both hold one block of the right channels");
            let cut = self.lead.min(made);
            self.lead -= cut;
            self.produced += i64::try_from(made - cut).unwrap_or(0);
            out.extend_from_slice(self.block.get(cut * self.channels..).unwrap_or_default());
        }
        let rest = blocks.remainder().len();
        self.input.drain(..self.input.len() - rest);
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

    #[test]
    fn odd_rates_are_rounded_and_foreign_ones_refused() {
        assert_eq!(Resampler::new(44_056, 1).unwrap().rate_hz(), 44_050);
        assert_eq!(Resampler::new(7_350, 1).unwrap().rate_hz(), 7_350);
        assert!(Resampler::new(0, 1).is_err());
        assert!(Resampler::new(192_000, 1).is_err());
    }
}

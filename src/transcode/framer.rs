//! Cuts sound at 48 kHz into frames of equal length and says when each one starts.
//!
//! The framer is the clock of a stream's transcoded sound: its time is the time of the
//! first sample plus the count of samples since. Filling a hole or cutting out an overlap
//! leaves two ends that do not fit; [`Framer::splice`] fades the old one out and the
//! new one in. Drift is worked off by stretching single frames ([`Drift`]).

use crate::media::MediaTime;

use super::drift::Drift;
use super::{OUTPUT_RATE_HZ, Sync};

/// Length of the fades around a splice, in samples: 5 ms, enough for no click.
const FADE_SAMPLES: usize = 240;

/// Samples beyond a stretched frame that its interpolation looks at.
const STRETCH_CONTEXT: usize = 2;

/// Frames from samples. See the module.
pub(super) struct Framer {
    /// Samples per channel of a frame.
    frame_samples: usize,
    channels: usize,
    /// Time of the sample that [`Self::emitted`] counts from.
    origin: Option<MediaTime>,
    /// Samples per channel from the origin to the next frame.
    emitted: i64,
    /// What is not a frame yet, interleaved; what lies before `head` was emitted.
    samples: Vec<f32>,
    head: usize,
    /// The last sample of each channel before `head`, for interpolation.
    before: [f32; 2],
    /// Whether the next sound comes after a splice, and how much of its fade is done.
    fade_in_from: Option<usize>,
    drift: Drift,
}

impl Framer {
    /// A framer that waits for [`Self::start`].
    pub(super) fn new(frame_samples: usize, channels: usize) -> Self {
        Self {
            frame_samples,
            channels: channels.clamp(1, 2),
            origin: None,
            emitted: 0,
            samples: Vec::new(),
            head: 0,
            before: [0.0; 2],
            fade_in_from: None,
            drift: Drift::default(),
        }
    }

    /// Sets the time of the first sample.
    pub(super) fn start(&mut self, at: MediaTime) {
        self.origin = Some(at);
    }

    /// The time just behind the last sample; none before the start.
    pub(super) fn end(&self) -> Option<MediaTime> {
        let held = i64::try_from(self.held()).unwrap_or(i64::MAX);
        let count = self.emitted.saturating_add(held);
        Some(self.origin? + MediaTime::from_units(count, OUTPUT_RATE_HZ))
    }

    /// When the next frame starts; none before the start.
    pub(super) fn next_start(&self) -> Option<MediaTime> {
        Some(self.origin? + MediaTime::from_units(self.emitted, OUTPUT_RATE_HZ))
    }

    /// One or two.
    pub(super) fn channels(&self) -> usize {
        self.channels
    }

    /// Samples per channel of a frame.
    pub(super) fn frame_samples(&self) -> usize {
        self.frame_samples
    }

    /// Adds interleaved sound.
    pub(super) fn push(&mut self, pcm: &[f32]) {
        let from = self.samples.len();
        self.samples.extend_from_slice(pcm);
        if let Some(done) = self.fade_in_from {
            let fresh = self.samples.get_mut(from..).unwrap_or_default();
            let mut position = done;
            for sample in fresh.chunks_mut(self.channels) {
                let gain = (position as f32 / FADE_SAMPLES as f32).min(1.0);
                sample.iter_mut().for_each(|value| *value *= gain);
                position += 1;
            }
            self.fade_in_from = (position < FADE_SAMPLES).then_some(position);
        }
    }

    /// Adds silence of `samples` per channel.
    pub(super) fn push_silence(&mut self, samples: usize) {
        let length = self.samples.len() + samples * self.channels;
        self.samples.resize(length, 0.0);
    }

    /// Marks that what comes next does not continue what was pushed: fades out
    /// what is still here, and fades in the next sound.
    pub(super) fn splice(&mut self) {
        let fade = FADE_SAMPLES.min(self.held());
        let from = self.samples.len() - fade * self.channels;
        let tail = self.samples.get_mut(from..).unwrap_or_default();
        for (index, sample) in tail.chunks_mut(self.channels).enumerate() {
            let gain = 1.0 - (index + 1) as f32 / fade as f32;
            sample.iter_mut().for_each(|value| *value *= gain);
        }
        self.fade_in_from = Some(0);
    }

    /// Lets the clock jump forward by whole frames, without sound for them.
    pub(super) fn skip_frames(&mut self, frames: i64) {
        let frame = i64::try_from(self.frame_samples).unwrap_or(i64::MAX);
        self.emitted = self.emitted.saturating_add(frames.saturating_mul(frame));
    }

    /// Takes note of how far the input's timestamp is ahead of the sample count.
    pub(super) fn observe(&mut self, ahead: MediaTime, duration: MediaTime) {
        self.drift.observe(ahead, duration);
    }

    /// How far the timestamps are ahead of the sample count.
    pub(super) fn sync(&self) -> Sync {
        self.drift.sync()
    }

    /// The sample count was just set right.
    pub(super) fn forget_drift(&mut self) {
        self.drift.reset();
    }

    /// Puts what is held into another number of channels: one is doubled, two are averaged.
    pub(super) fn set_channels(&mut self, channels: usize) {
        let channels = channels.clamp(1, 2);
        let held = self.samples.get(self.head..).unwrap_or_default();
        let converted = match (self.channels, channels) {
            (1, 2) => held.iter().flat_map(|value| [*value; 2]).collect(),
            (2, 1) => held
                .chunks(2)
                .map(|pair| pair.iter().sum::<f32>() / 2.0)
                .collect(),
            _ => return,
        };
        self.before = match (channels, self.before) {
            (1, [left, right]) => [(left + right) / 2.0; 2],
            (_, [mono, _]) => [mono; 2],
        };
        self.samples = converted;
        self.head = 0;
        self.channels = channels;
    }

    /// Writes the next frame to `out`, interleaved, and says when it starts; none if
    /// there are not enough samples.
    pub(super) fn next_frame(&mut self, out: &mut Vec<f32>) -> Option<MediaTime> {
        let start = self.next_start()?;
        let step = self.drift.step();
        let taken = self.frame_samples.checked_add_signed(-step)?;
        let context = if step == 0 { 0 } else { STRETCH_CONTEXT };
        if self.held() < taken + context {
            return None;
        }
        let channels = self.channels;
        let held = self.samples.get(self.head..)?;
        out.clear();
        if step == 0 {
            out.extend_from_slice(held.get(..taken * channels)?);
        } else {
            stretch(held, &self.before, channels, taken, self.frame_samples, out);
            self.drift.corrected(step);
        }
        let last = held.get((taken - 1) * channels..taken * channels)?;
        self.before = [*last.first()?, *last.last()?];
        self.head += taken * channels;
        self.emitted += i64::try_from(self.frame_samples).ok()?;
        // Moved down now and then only, not with every frame of a long piece.
        if self.head == self.samples.len() || self.head >= 8 * self.frame_samples * channels {
            self.samples.drain(..self.head);
            self.head = 0;
        }
        Some(start)
    }

    /// Samples per channel that are not emitted yet.
    fn held(&self) -> usize {
        self.samples.len().saturating_sub(self.head) / self.channels
    }
}

/// Makes `made` samples of the first `taken` of `held`, by interpolation with third-order
/// Hermite polynomials. The first sample stays where it is, and the one after the last is
/// the first of the next frame, so that stretched and exact frames join without a seam.
fn stretch(
    held: &[f32],
    before: &[f32; 2],
    channels: usize,
    taken: usize,
    made: usize,
    out: &mut Vec<f32>,
) {
    let at = |index: usize, channel: usize| held.get(index * channels + channel).copied();
    for n in 0..made {
        let index = n * taken / made;
        let fraction = (n * taken % made) as f32 / made as f32;
        for channel in 0..channels {
            let y1 = at(index, channel).unwrap_or_default();
            let y0 = match index.checked_sub(1) {
                Some(previous) => at(previous, channel),
                None => before.get(channel).copied(),
            };
            let y0 = y0.unwrap_or(y1);
            let y2 = at(index + 1, channel).unwrap_or(y1);
            let y3 = at(index + 2, channel).unwrap_or(y2);
            let c1 = (y2 - y0) / 2.0;
            let c2 = y0 - 2.5 * y1 + 2.0 * y2 - 0.5 * y3;
            let c3 = (y3 - y0) / 2.0 + 1.5 * (y1 - y2);
            out.push(((c3 * fraction + c2) * fraction + c1) * fraction + y1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transcode::testing::{amplitude, tone};

    fn started(channels: usize) -> Framer {
        let mut framer = Framer::new(960, channels);
        framer.start(MediaTime::ZERO);
        framer
    }

    #[test]
    fn frames_step_exactly_and_copy_exactly() {
        let mut framer = started(2);
        let sound = tone(440.0, 48_000, 2, 48_000);
        let mut heard = Vec::new();
        let mut frame = Vec::new();
        let mut next = MediaTime::ZERO;
        for piece in sound.chunks(2 * 1024) {
            framer.push(piece);
            while let Some(start) = framer.next_frame(&mut frame) {
                assert_eq!(start, next);
                next += MediaTime::from_millis(20);
                heard.extend_from_slice(&frame);
            }
        }
        assert_eq!(heard, sound);
        assert_eq!(framer.end(), Some(MediaTime::from_millis(1_000)));
    }

    /// Feeds `seconds` of a tone whose timestamps run `ppm` too fast; returns the worst
    /// error after the first minute and what was heard.
    fn run(ppm: i64, seconds: i64) -> (MediaTime, Vec<f32>) {
        let mut framer = started(1);
        let mut heard = Vec::new();
        let mut frame = Vec::new();
        let mut worst = MediaTime::ZERO;
        let piece = MediaTime::from_millis(20);
        let sound = tone(1_000.0, 48_000, 1, 960);
        for n in 0..seconds * 50 {
            let exact = n * 20_000 + n * 20 * ppm / 1_000;
            let rounded = MediaTime::from_millis((exact + 500).div_euclid(1_000));
            let ahead = rounded - framer.end().unwrap();
            worst = worst.max(ahead.abs());
            framer.observe(ahead, piece);
            framer.push(&sound);
            while framer.next_frame(&mut frame).is_some() {
                heard.extend_from_slice(&frame);
            }
        }
        (worst, heard)
    }

    #[test]
    fn an_hour_of_drift_is_followed() {
        for ppm in [200, -200] {
            let (worst, heard) = run(ppm, 3_600);
            assert!(worst < MediaTime::from_millis(13), "{worst:?}");
            let expected = 3_600 * 48_000 + 3_600 * 48 * ppm / 1_000;
            let error = expected - heard.len() as i64;
            assert!(error.abs() < 960 + 13 * 48, "{error}");
        }
        let (worst, _) = run(4_000, 60);
        assert!(worst < MediaTime::from_millis(60), "{worst:?}");
    }

    #[test]
    fn a_stretched_tone_has_no_clicks() {
        // All the while corrected: the largest step between neighbours stays that of
        // the tone, and nothing but the tone is left.
        let (_, heard) = run(3_000, 30);
        let slope = std::f32::consts::TAU * 1_000.0 / 48_000.0 * 0.5;
        let largest = heard
            .windows(2)
            .map(|pair| (pair[1] - pair[0]).abs())
            .fold(0.0, f32::max);
        assert!(largest < slope * 1.02, "{largest} {slope}");
    }

    #[test]
    fn a_splice_fades_both_ends() {
        let mut framer = started(1);
        framer.push(&[1.0; 500]);
        framer.splice();
        framer.push_silence(200);
        framer.push(&[1.0; 1_000]);
        let mut frame = Vec::new();
        framer.next_frame(&mut frame).unwrap();
        let largest = frame
            .windows(2)
            .map(|pair| (pair[1] - pair[0]).abs())
            .fold(0.0, f32::max);
        assert!(largest < 0.01, "{largest}");
        assert_eq!(frame[259], 1.0);
        assert_eq!(frame[600], 0.0);
        assert_eq!(frame[959], 1.0);
    }

    #[test]
    fn channels_change_without_moving_the_clock() {
        let mut framer = started(1);
        framer.push(&tone(500.0, 48_000, 1, 700));
        framer.set_channels(2);
        framer.push(&tone(500.0, 48_000, 2, 48_000));
        let mut frame = Vec::new();
        assert_eq!(framer.next_frame(&mut frame), Some(MediaTime::ZERO));
        assert_eq!(frame.len(), 1_920);
        framer.set_channels(1);
        framer.next_frame(&mut frame).unwrap();
        assert_eq!(frame.len(), 960);
        assert!((amplitude(&frame, 500.0, 48_000) - 0.5).abs() < 0.01);
        assert_eq!(framer.end(), Some(MediaTime::from_units(48_700, 48_000)));
    }
}

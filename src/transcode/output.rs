//! The half of a pipeline that both directions share: a [`Framer`] and an encoder behind
//! it.

use bytes::Bytes;

use crate::media::{Codec, Frame, MediaTime};

use super::framer::Framer;
use super::{Completed, Error, OUTPUT_RATE_HZ, Sync};

/// An encoder of frames of fixed length at 48 kHz.
pub(super) trait FrameEncoder {
    /// What it makes.
    const CODEC: Codec;

    /// Samples per channel by which the decoded sound is later than the encoded.
    fn delay_samples(&self) -> i64;

    /// Encodes one frame of interleaved samples. None is no error: this one is
    /// not to be sent.
    ///
    /// # Errors
    ///
    /// If the library failed.
    fn encode(&mut self, pcm: &[f32]) -> Result<Option<Bytes>, Error>;
}

/// The end of a pipeline. See the module.
pub(super) struct Output<E> {
    framer: Framer,
    encoder: E,
    pcm: Vec<f32>,
}

impl<E: FrameEncoder> Output<E> {
    /// Waits for [`Self::start`].
    pub(super) fn new(encoder: E, frame_samples: usize, channels: usize) -> Self {
        Self {
            framer: Framer::new(frame_samples, channels),
            encoder,
            pcm: Vec::new(),
        }
    }

    /// Sets the time of the first sample.
    pub(super) fn start(&mut self, at: MediaTime) {
        self.framer.start(at);
    }

    /// The time just behind the last sample; none before the start.
    pub(super) fn end(&self) -> Option<MediaTime> {
        self.framer.end()
    }

    /// One or two.
    pub(super) fn channels(&self) -> usize {
        self.framer.channels()
    }

    /// Adds interleaved sound.
    pub(super) fn push(&mut self, pcm: &[f32], done: &mut Completed) {
        self.framer.push(pcm);
        self.drain(done);
    }

    /// What comes next does not continue what came before.
    pub(super) fn splice(&mut self) {
        self.framer.splice();
    }

    /// Moves the end forward by `samples` per channel, with silence; if they are more than
    /// `fill_max`, only as far as the encoder needs to fall silent, and the
    /// clock jumps over the rest by whole frames.
    pub(super) fn extend(&mut self, samples: i64, fill_max: i64, done: &mut Completed) {
        if samples <= 0 {
            return;
        }
        self.framer.splice();
        let frame = i64::try_from(self.framer.frame_samples()).unwrap_or(i64::MAX);
        let mut silence = samples;
        if samples > fill_max {
            // What was heard before must be out before the clock jumps: a frame in the
            // making, and what the encoder holds back.
            let fall_silent = (self.encoder.delay_samples() + 2 * frame).min(samples);
            let jump = (samples - fall_silent) / frame;
            silence -= jump * frame;
            self.silence(fall_silent, done);
            silence -= fall_silent;
            self.framer.skip_frames(jump);
        }
        self.silence(silence, done);
    }

    /// Takes note of how far the input's timestamp is ahead of the sample count.
    pub(super) fn observe(&mut self, ahead: MediaTime, duration: MediaTime) {
        self.framer.observe(ahead, duration);
    }

    /// How far the timestamps are ahead of the sample count.
    pub(super) fn sync(&self) -> Sync {
        self.framer.sync()
    }

    /// The sample count was just set right.
    pub(super) fn forget_drift(&mut self) {
        self.framer.forget_drift();
    }

    /// Goes on with another encoder, of `channels` channels.
    pub(super) fn replace_encoder(&mut self, encoder: E, channels: usize) {
        self.encoder = encoder;
        self.framer.set_channels(channels);
    }

    /// The encoder.
    pub(super) fn encoder_mut(&mut self) -> &mut E {
        &mut self.encoder
    }

    /// Encodes `frames` frames of silence that move nothing: gets out what the encoder
    /// holds back, at the time where it belongs.
    pub(super) fn drain_encoder(&mut self, frames: i64, done: &mut Completed) {
        let Some(next) = self.framer.next_start() else {
            return;
        };
        let length = self.framer.frame_samples() * self.framer.channels();
        let silence = vec![0.0; length];
        let frame = i64::try_from(self.framer.frame_samples()).unwrap_or(i64::MAX);
        for n in 0..frames {
            let start = next + MediaTime::from_units(n * frame, OUTPUT_RATE_HZ);
            encode(&mut self.encoder, start, &silence, done);
        }
    }

    fn silence(&mut self, samples: i64, done: &mut Completed) {
        done.silence = done
            .silence
            .saturating_add(u32::try_from(samples).unwrap_or(u32::MAX));
        let mut left = usize::try_from(samples).unwrap_or(0);
        while left > 0 {
            let piece = left.min(self.framer.frame_samples());
            self.framer.push_silence(piece);
            self.drain(done);
            left -= piece;
        }
    }

    /// Encodes all whole frames.
    fn drain(&mut self, done: &mut Completed) {
        while let Some(start) = self.framer.next_frame(&mut self.pcm) {
            encode(&mut self.encoder, start, &self.pcm, done);
        }
    }
}

fn encode<E: FrameEncoder>(encoder: &mut E, start: MediaTime, pcm: &[f32], done: &mut Completed) {
    let pts = start - MediaTime::from_units(encoder.delay_samples(), OUTPUT_RATE_HZ);
    match encoder.encode(pcm) {
        Ok(Some(payload)) => done.frames.push(Frame {
            codec: E::CODEC,
            dts: pts,
            pts,
            key: true,
            disposable: false,
            payload,
        }),
        Ok(None) => {}
        Err(_) => done.errors += 1,
    }
}

//! AAC access units to Opus frames of 20 ms.
//!
//! An access unit belongs where its timestamp says, but what is counted are its samples
//! (see the parent module). The two are compared with each access unit:
//!
//! - Differences up to [`RESYNC_MAX`] are jitter or drift and are left to the
//!   [`Framer`](super::framer::Framer).
//! - A larger one is believed when the next access unit confirms it; a single stray
//!   timestamp moves nothing. A hole of up to [`FILL_MAX_SAMPLES`] is filled with silence,
//!   over a longer one the clock jumps by whole frames. A step back of up to [`CUT_MAX`] is
//!   cut out of the sound, so that lips and sound stay together; after a longer one the
//!   input is moved behind what was sent, until it jumps forward again.

use bytes::Bytes;

use crate::codec::aac::AudioSpecificConfig;
use crate::media::{Codec, Frame, MediaTime, TrackConfig};

use super::aac_decoder::AacDecoder;
use super::output::{FrameEncoder, Output};
use super::resample::Resampler;
use super::{
    Completed, Error, OPUS_FRAME_SAMPLES, OUTPUT_RATE_HZ, OpusSettings, PAYLOAD_BYTES_MAX, Sync,
};

/// Difference between timestamps and samples beyond which they are set equal again, rather
/// than brought together slowly. Clients stamp up to some tens of milliseconds wrong.
const RESYNC_MAX: MediaTime = MediaTime::from_millis(100);

/// Longest hole, in samples at 48 kHz, that is filled with silence: 1 s. For a longer one
/// the clock jumps; WebRTC receivers take that as silence.
const FILL_MAX_SAMPLES: i64 = 48_000;

/// Longest step back that is cut out of the sound.
const CUT_MAX: MediaTime = MediaTime::from_millis(1_000);

/// How far the count may be behind the timestamps for sound to be dropped as late
/// rather than to be put in its place: half a sample.
const HALF_SAMPLE: MediaTime = MediaTime::from_units(1, 2 * OUTPUT_RATE_HZ);

/// Bits per second and channel from which on Opus sounds as good in its low-delay mode
/// as with the 4 ms of look-ahead that the choice between speech and music needs.
const LOW_DELAY_BPS_PER_CHANNEL: u32 = 40_000;

/// Audio object types that are decoded: AAC-LC, SBR and PS (ISO/IEC 14496-3 table 1.17).
const OBJECT_TYPES: [u8; 3] = [2, 5, 29];

/// Room for an Opus packet: one frame has at most 1275 bytes and a byte for its table of
/// contents (RFC 6716 section 3.2.1).
const OPUS_BYTES_MAX: usize = 1_276;

/// One stream from AAC to Opus. See the module.
pub(super) struct AacToOpus {
    config: AudioSpecificConfig,
    settings: OpusSettings,
    /// None after a reconfiguration that failed.
    decoder: Option<AacDecoder>,
    resampler: Resampler,
    /// Rate of the resampler's input as the decoder told it.
    rate_hz: u32,
    output: Output<OpusEncoder>,
    /// Length of the last access unit.
    duration: MediaTime,
    /// How much later than its access unit's time the sound comes out of the decoder.
    decoder_delay: MediaTime,
    /// What is added to the input's timestamps since they jumped back.
    offset: MediaTime,
    /// Samples per channel at 48 kHz of the coming input that are late and are dropped.
    late_samples: usize,
    /// An access unit whose timestamp does not fit, until the next one tells why.
    suspect: Option<Frame>,
    /// Scratch: decoded, and resampled.
    decoded: Vec<f32>,
    resampled: Vec<f32>,
}

impl AacToOpus {
    /// Opens the codecs.
    ///
    /// # Errors
    ///
    /// If the AAC is none that can be decoded, or a library refuses a setting.
    pub(super) fn new(config: AudioSpecificConfig, settings: OpusSettings) -> Result<Self, Error> {
        let decoder = open_decoder(&config)?;
        // A guess until the first frame: SBR may be implicit, and PS makes mono stereo.
        let channels = if config.channels() == 1 { 1 } else { 2 };
        let rate_hz = config.output_sample_rate_hz();
        let encoder = OpusEncoder::new(channels, settings)?;
        Ok(Self {
            resampler: Resampler::new(rate_hz, channels)?,
            rate_hz,
            output: Output::new(encoder, OPUS_FRAME_SAMPLES, channels),
            duration: MediaTime::from_units(
                i64::from(config.frame_samples()),
                config.sample_rate_hz().max(1),
            ),
            decoder: Some(decoder),
            config,
            settings,
            decoder_delay: MediaTime::ZERO,
            offset: MediaTime::ZERO,
            late_samples: 0,
            suspect: None,
            decoded: Vec::new(),
            resampled: Vec::new(),
        })
    }

    /// How the output is to be decoded, as far as known now.
    pub(super) fn track_config(&self) -> TrackConfig {
        let channels = if self.output.channels() == 1 { 1 } else { 2 };
        TrackConfig::Opus { channels }
    }

    /// How far the input's timestamps are ahead of its samples.
    pub(super) fn sync(&self) -> Sync {
        self.output.sync()
    }

    /// Changes the codecs and goes on with the clock.
    ///
    /// # Errors
    ///
    /// As [`Self::new`]; frames are then counted as errors until the next change.
    pub(super) fn reconfigure(
        &mut self,
        config: AudioSpecificConfig,
        settings: OpusSettings,
        done: &mut Completed,
    ) -> Result<(), Error> {
        if settings != self.settings {
            self.output.encoder_mut().set(settings)?;
            self.settings = settings;
        }
        // Publishers repeat their sequence header: that is no change.
        if config == self.config && self.decoder.is_some() {
            return Ok(());
        }
        self.believe_suspect(done);
        self.decoder = None;
        self.decoder = Some(open_decoder(&config)?);
        self.config = config;
        Ok(())
    }

    /// Transcodes one access unit.
    pub(super) fn frame(&mut self, frame: Frame, done: &mut Completed) {
        let fits = (1..=PAYLOAD_BYTES_MAX).contains(&frame.payload.len());
        if frame.codec != Codec::Aac || !fits || self.decoder.is_none() {
            done.errors += 1;
            return;
        }
        let Some(ahead) = self.ahead(frame.pts) else {
            return self.decode(&frame, done);
        };
        if let Some(first) = self.suspect.take() {
            // Does this one continue the suspect's timestamp, or the count?
            let from_jump = frame.pts - (first.pts + self.duration);
            let from_count = ahead - self.duration;
            if from_jump.abs() < from_count.abs() {
                self.resync(first.pts, done);
            }
            self.decode(&first, done);
            return self.frame(frame, done);
        }
        if self.late_samples > 0 && ahead > HALF_SAMPLE {
            self.hole(ahead, done);
        } else if ahead.abs() > RESYNC_MAX {
            self.suspect = Some(frame);
            return;
        } else {
            self.output.observe(ahead, self.duration);
        }
        self.decode(&frame, done);
    }

    /// No input came: fills with silence up to `to`.
    pub(super) fn advance(&mut self, to: MediaTime, done: &mut Completed) {
        self.believe_suspect(done);
        if self.output.end().is_none() {
            self.output.start(to);
            return;
        }
        let Some(end) = self.output.end() else { return };
        let end = end + self.resampler.pending();
        let missing = (to + self.offset - end).as_units(OUTPUT_RATE_HZ);
        if missing > 0 {
            self.flush(done);
            self.output.extend(missing, FILL_MAX_SAMPLES, done);
            self.late_samples += usize::try_from(missing).unwrap_or(0);
        }
    }

    /// How far a timestamp is ahead of where the next access unit continues the sound;
    /// none before the start.
    fn ahead(&self, pts: MediaTime) -> Option<MediaTime> {
        let late = i64::try_from(self.late_samples).unwrap_or(i64::MAX);
        let position = self.output.end()? + self.resampler.pending()
            - MediaTime::from_units(late, OUTPUT_RATE_HZ);
        Some(pts + self.offset - self.decoder_delay - position)
    }

    /// Takes a suspect's timestamp for true, as nothing contradicts it.
    fn believe_suspect(&mut self, done: &mut Completed) {
        if let Some(frame) = self.suspect.take() {
            self.resync(frame.pts, done);
            self.decode(&frame, done);
        }
    }

    /// Sets the count to a timestamp, without going back in time.
    fn resync(&mut self, pts: MediaTime, done: &mut Completed) {
        done.resyncs += 1;
        self.flush(done);
        let Some(ahead) = self.ahead(pts) else { return };
        let unmoved = ahead - self.offset;
        if unmoved < -CUT_MAX {
            self.offset = self.offset - ahead;
        } else {
            self.offset = MediaTime::ZERO;
            if unmoved > MediaTime::ZERO {
                self.hole(unmoved, done);
            } else {
                self.cut(-unmoved);
            }
        }
        self.output.forget_drift();
    }

    /// Nothing came for `length` of the input: what was filled already is taken off, the rest
    /// is filled now.
    fn hole(&mut self, length: MediaTime, done: &mut Completed) {
        self.flush(done);
        let samples = length.as_units(OUTPUT_RATE_HZ);
        let filled = samples.min(i64::try_from(self.late_samples).unwrap_or(i64::MAX));
        self.late_samples -= usize::try_from(filled).unwrap_or(0);
        self.output.extend(samples - filled, FILL_MAX_SAMPLES, done);
        self.output.forget_drift();
    }

    /// The next `length` of input is dropped.
    fn cut(&mut self, length: MediaTime) {
        self.output.splice();
        self.late_samples += usize::try_from(length.as_units(OUTPUT_RATE_HZ)).unwrap_or(0);
    }

    fn decode(&mut self, frame: &Frame, done: &mut Completed) {
        let Some(decoder) = &mut self.decoder else {
            done.errors += 1;
            return;
        };
        let decoded = decoder.decode(&frame.payload).ok().filter(|decoded| {
            // More channels than asked for: a layout that the library cannot mix.
            decoded.channels <= 2
        });
        let Some(decoded) = decoded else {
            // As long as an access unit, and silent.
            done.errors += 1;
            if self.output.end().is_none() {
                self.output.start(frame.pts);
            }
            self.decoded.clear();
            let samples = self.duration.as_units(self.resampler.rate_hz());
            let length = usize::try_from(samples).unwrap_or(0) * self.output.channels();
            self.decoded.resize(length, 0.0);
            done.concealed = done
                .concealed
                .saturating_add(in_output_samples(self.duration));
            return self.place(done);
        };
        let samples = decoded.pcm.len() / decoded.channels;
        let (rate_hz, channels) = (decoded.rate_hz, decoded.channels);
        let (delay, concealed) = (decoded.delay, decoded.concealed);
        self.decoded.clear();
        let scaled = decoded
            .pcm
            .iter()
            .map(|sample| f32::from(*sample) / 32_768.0);
        self.decoded.extend(scaled);
        let changed = rate_hz != self.rate_hz || channels != self.output.channels();
        if changed && let Err(error) = self.change_format(rate_hz, channels, done) {
            done.errors += 1;
            done.error = Some(error.to_string());
            self.decoder = None;
            return;
        }
        let rate_hz = self.resampler.rate_hz();
        self.duration = MediaTime::from_units(i64::try_from(samples).unwrap_or(0), rate_hz);
        if concealed {
            done.errors += 1;
            done.concealed = done
                .concealed
                .saturating_add(in_output_samples(self.duration));
        }
        let delay = MediaTime::from_units(i64::from(delay), rate_hz);
        self.set_decoder_delay(delay, frame.pts, done);
        self.place(done);
    }

    /// The sound of the coming access unit has another rate or other channels.
    fn change_format(
        &mut self,
        rate_hz: u32,
        channels: usize,
        done: &mut Completed,
    ) -> Result<(), Error> {
        let resampler = Resampler::new(rate_hz, channels)?;
        self.flush(done);
        self.resampler = resampler;
        self.rate_hz = rate_hz;
        if channels != self.output.channels() {
            let encoder = OpusEncoder::new(channels, self.settings)?;
            self.output.replace_encoder(encoder, channels);
            done.config = Some(self.track_config());
        }
        Ok(())
    }

    /// Starts the clock with the first access unit; later, corrects it at once if
    /// the decoder's delay is another than before.
    fn set_decoder_delay(&mut self, delay: MediaTime, pts: MediaTime, done: &mut Completed) {
        let changed = delay != self.decoder_delay;
        self.decoder_delay = delay;
        if self.output.end().is_none() {
            self.output.start(pts - delay);
        } else if changed && let Some(ahead) = self.ahead(pts) {
            if ahead > MediaTime::ZERO {
                self.hole(ahead.min(RESYNC_MAX), done);
            } else {
                self.cut((-ahead).min(RESYNC_MAX));
            }
        }
    }

    /// Puts what was decoded behind what there is.
    fn place(&mut self, done: &mut Completed) {
        self.resampled.clear();
        self.resampler.push(&self.decoded, &mut self.resampled);
        self.give_out(done);
    }

    /// Gets out what the resampler holds.
    fn flush(&mut self, done: &mut Completed) {
        self.resampled.clear();
        self.resampler.flush(&mut self.resampled);
        self.give_out(done);
    }

    fn give_out(&mut self, done: &mut Completed) {
        let channels = self.output.channels();
        let late = self.late_samples.min(self.resampled.len() / channels);
        if late > 0 {
            done.late += 1;
            self.late_samples -= late;
        }
        let sound = self.resampled.get(late * channels..).unwrap_or_default();
        self.output.push(sound, done);
    }
}

fn open_decoder(config: &AudioSpecificConfig) -> Result<AacDecoder, Error> {
    if !OBJECT_TYPES.contains(&config.object_type()) {
        return Err(Error::ObjectType(config.object_type()));
    }
    AacDecoder::new(config.bytes())
}

fn in_output_samples(duration: MediaTime) -> u32 {
    u32::try_from(duration.as_units(OUTPUT_RATE_HZ)).unwrap_or(0)
}

/// The Opus encoder, set for frames of 20 ms.
pub(super) struct OpusEncoder {
    encoder: opus::Encoder,
    channels: usize,
    lookahead: i64,
    packet: Vec<u8>,
}

impl OpusEncoder {
    fn new(channels: usize, settings: OpusSettings) -> Result<Self, Error> {
        let (layout, bitrate) = match channels {
            1 => (opus::Channels::Mono, settings.bitrate_mono_bps),
            _ => (opus::Channels::Stereo, settings.bitrate_stereo_bps),
        };
        let per_channel = bitrate / if channels == 1 { 1 } else { 2 };
        let application = if per_channel >= LOW_DELAY_BPS_PER_CHANNEL {
            opus::Application::LowDelay
        } else {
            opus::Application::Audio
        };
        let refused = |error: opus::Error| Error::Opus(error.description());
        let mut encoder =
            opus::Encoder::new(OUTPUT_RATE_HZ, layout, application).map_err(refused)?;
        // Tones and voices get more bits than noise. That is worth more than what the encoder finds
        // out at a higher complexity, and costs nothing. No frame takes more than the double.
        encoder.set_vbr_constraint(false).map_err(refused)?;
        let lookahead = encoder.get_lookahead().map_err(refused)?;
        let mut encoder = Self {
            encoder,
            channels,
            lookahead: i64::from(lookahead),
            packet: vec![0; OPUS_BYTES_MAX],
        };
        encoder.set(settings)?;
        Ok(encoder)
    }

    fn set(&mut self, settings: OpusSettings) -> Result<(), Error> {
        let bitrate = match self.channels {
            1 => settings.bitrate_mono_bps,
            _ => settings.bitrate_stereo_bps,
        };
        let bitrate = i32::try_from(bitrate).unwrap_or(i32::MAX);
        let complexity = i32::from(settings.complexity.min(10));
        self.encoder
            .set_bitrate(opus::Bitrate::Bits(bitrate))
            .and_then(|()| self.encoder.set_complexity(complexity))
            .map_err(|error| Error::Opus(error.description()))
    }
}

impl FrameEncoder for OpusEncoder {
    const CODEC: Codec = Codec::Opus;

    fn delay_samples(&self) -> i64 {
        self.lookahead
    }

    fn encode(&mut self, pcm: &[f32]) -> Result<Option<Bytes>, Error> {
        let length = self
            .encoder
            .encode_float(pcm, &mut self.packet)
            .map_err(|error| Error::Opus(error.description()))?;
        let packet = self.packet.get(..length).unwrap_or_default();
        Ok(Some(Bytes::copy_from_slice(packet)))
    }
}

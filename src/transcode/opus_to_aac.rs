//! Opus packets to AAC-LC frames of 1024 samples at 48 kHz.
//!
//! Packets come in order, with holes where the network lost some or where the sender was
//! silent (DTX) or muted; both look the same here and are filled exactly as long
//! as their timestamps say: up to [`CONCEAL_MAX_SAMPLES`] with what the Opus decoder makes of
//! the sound before and, for the last lost packet, of the forward error correction in the
//! next one; then with silence. Nothing is filled twice: a packet for a time that was filled
//! is decoded, for the decoder's state, but not heard.

use bytes::Bytes;
use fdk_aac::enc;

use crate::codec::aac::AudioSpecificConfig;
use crate::media::{Codec, Frame, MediaTime, TrackConfig};

use super::output::{FrameEncoder, Output};
use super::{
    AAC_FRAME_SAMPLES, AacSettings, Completed, Error, OUTPUT_RATE_HZ, PAYLOAD_BYTES_MAX, Sync,
};

/// Longest concealment of one hole, in samples: 100 ms. What the decoder invents after
/// that is not like speech any more.
const CONCEAL_MAX_SAMPLES: usize = 4_800;

/// Longest hole, in samples, that is filled with silence at one go: 2 s, some 7 ms of
/// work. Over a longer one the clock jumps by whole frames. A stream that falls silent for
/// longer goes on without a jump if it is advanced in smaller steps meanwhile.
const FILL_MAX_SAMPLES: i64 = 2 * 48_000;

/// Opus works in steps of 2.5 ms (RFC 6716 section 2.1.4); holes have this many samples, or
/// a multiple.
const OPUS_STEP_SAMPLES: i64 = 120;

/// Timestamps less than this off are where they belong; the difference is drift.
const TOLERANCE: MediaTime = MediaTime::from_units(OPUS_STEP_SAMPLES / 2, OUTPUT_RATE_HZ);

/// Packets up to this much before their time are late or come twice, and are dropped.
/// Further back, the input's clock has jumped.
const LATE_MAX: MediaTime = MediaTime::from_millis(1_000);

/// Longest packet: 120 ms (RFC 6716 section 3.2.5).
const PACKET_SAMPLES_MAX: usize = 5_760;

/// One stream from Opus to AAC. See the module.
pub(super) struct OpusToAac {
    channels: u8,
    settings: AacSettings,
    decoder: opus::Decoder,
    output: Output<AacEncoder>,
    config: AudioSpecificConfig,
    /// Where the next packet continues the last one, on the input's clock.
    input_end: MediaTime,
    /// What is added to the input's timestamps since they jumped back.
    offset: MediaTime,
    /// Samples per channel of the coming input that are late and are dropped.
    late_samples: usize,
    /// Samples per channel that may still be concealed in the present hole.
    conceal_left: usize,
    /// Scratch: decoded sound.
    pcm: Vec<f32>,
}

impl OpusToAac {
    /// Opens the codecs.
    ///
    /// # Errors
    ///
    /// If there are not one or two channels, or a library refuses a setting.
    pub(super) fn new(channels: u8, settings: AacSettings) -> Result<Self, Error> {
        let encoder = AacEncoder::new(channels, settings)?;
        let config = encoder.config()?;
        let output = Output::new(encoder, AAC_FRAME_SAMPLES, usize::from(channels));
        Ok(Self {
            channels,
            settings,
            decoder: open_decoder(channels)?,
            output,
            config,
            input_end: MediaTime::ZERO,
            offset: MediaTime::ZERO,
            late_samples: 0,
            conceal_left: CONCEAL_MAX_SAMPLES,
            pcm: Vec::new(),
        })
    }

    /// How the output is to be decoded.
    pub(super) fn track_config(&self) -> TrackConfig {
        TrackConfig::Aac(self.config.clone())
    }

    /// How far the input's timestamps are ahead of its samples.
    pub(super) fn sync(&self) -> Sync {
        self.output.sync()
    }

    /// Changes the codecs and goes on with the clock: the old encoder gives out what it
    /// holds back, and what the new one would say about the same time is left out.
    ///
    /// # Errors
    ///
    /// As [`Self::new`]; nothing has changed then.
    pub(super) fn reconfigure(
        &mut self,
        channels: u8,
        settings: AacSettings,
        done: &mut Completed,
    ) -> Result<(), Error> {
        if channels == self.channels && settings == self.settings {
            return Ok(());
        }
        let mut encoder = AacEncoder::new(channels, settings)?;
        let config = encoder.config()?;
        let decoder = open_decoder(channels)?;
        if self.output.end().is_some() {
            let held_back = self.output.encoder_mut().delay_samples() / FRAME_SAMPLES;
            self.output.drain_encoder(held_back, done);
            encoder.withheld = encoder.delay / FRAME_SAMPLES;
        }
        self.output.replace_encoder(encoder, usize::from(channels));
        self.decoder = decoder;
        self.channels = channels;
        self.settings = settings;
        self.config = config;
        done.config = Some(self.track_config());
        Ok(())
    }

    /// Transcodes one packet.
    pub(super) fn frame(&mut self, frame: &Frame, done: &mut Completed) {
        let packet = &frame.payload;
        let Some(samples) = packet_samples(packet).filter(|_| frame.codec == Codec::Opus) else {
            done.errors += 1;
            return;
        };
        let duration = MediaTime::from_units(in_i64(samples), OUTPUT_RATE_HZ);
        if self.output.end().is_none() {
            self.start(frame.pts);
        }
        let gap = frame.pts - self.input_end;
        if gap < -LATE_MAX {
            // The input's clock jumped back: this is heard behind what was sent.
            done.resyncs += 1;
            self.offset = self.offset - self.ahead(frame.pts);
            self.output.forget_drift();
        } else if gap <= -TOLERANCE {
            done.late += 1;
            return;
        } else if gap >= TOLERANCE {
            // What the input jumped back once it now makes good.
            let makes_good = gap.min(self.offset).max(MediaTime::ZERO);
            self.offset = self.offset - makes_good;
            self.hole(self.ahead(frame.pts), packet, done);
        } else {
            let ahead = self.ahead(frame.pts);
            self.output.observe(ahead, duration);
        }
        self.decode(packet, samples, done);
        self.input_end = frame.pts + duration;
        self.conceal_left = CONCEAL_MAX_SAMPLES;
    }

    /// No input came: fills up to `to`.
    pub(super) fn advance(&mut self, to: MediaTime, done: &mut Completed) {
        let Some(end) = self.output.end() else {
            return self.start(to);
        };
        let missing = (to + self.offset - end).as_units(OUTPUT_RATE_HZ);
        let filled = self.fill(missing, &[], done);
        self.late_samples += usize::try_from(filled).unwrap_or(0);
    }

    fn start(&mut self, at: MediaTime) {
        self.output.start(at);
        self.input_end = at;
    }

    /// How far a timestamp is ahead of where the next packet continues the sound.
    fn ahead(&self, pts: MediaTime) -> MediaTime {
        let Some(end) = self.output.end() else {
            return MediaTime::ZERO;
        };
        let late = MediaTime::from_units(in_i64(self.late_samples), OUTPUT_RATE_HZ);
        pts + self.offset - (end - late)
    }

    /// Nothing came for `length` before `next`: what was filled already is taken off, the
    /// rest is filled now.
    fn hole(&mut self, length: MediaTime, next: &[u8], done: &mut Completed) {
        let samples = length.as_units(OUTPUT_RATE_HZ).max(0);
        let filled = samples.min(in_i64(self.late_samples));
        self.late_samples -= usize::try_from(filled).unwrap_or(0);
        let left = samples - filled + OPUS_STEP_SAMPLES / 2;
        let whole = left - left % OPUS_STEP_SAMPLES;
        // With sound of this very time filled in already, the next packet's error correction
        // would be for another one.
        let next = if filled == 0 { next } else { &[] };
        self.fill(whole, next, done);
    }

    /// Fills with `samples` per channel, or with a little fewer while there is
    /// concealment, which goes in steps. Returns how many.
    fn fill(&mut self, samples: i64, next: &[u8], done: &mut Completed) -> i64 {
        let steps = samples.min(in_i64(self.conceal_left)) / OPUS_STEP_SAMPLES;
        let concealed = (steps * OPUS_STEP_SAMPLES).max(0);
        if concealed > 0 {
            let count = usize::try_from(concealed).unwrap_or(0);
            self.conceal_left -= count;
            // Error correction covers what comes right before its packet.
            let next = if concealed == samples { next } else { &[] };
            self.conceal(count, next, done);
        }
        if self.conceal_left >= OPUS_STEP_SAMPLES as usize {
            return concealed;
        }
        self.output
            .extend(samples - concealed, FILL_MAX_SAMPLES, done);
        samples.max(concealed)
    }

    /// Fills with what the decoder makes of the past, and of `next` if there is one.
    fn conceal(&mut self, samples: usize, next: &[u8], done: &mut Completed) {
        self.pcm.clear();
        self.pcm.resize(samples * usize::from(self.channels), 0.0);
        let with_correction = !next.is_empty();
        let decoded = self
            .decoder
            .decode_float(next, &mut self.pcm, with_correction);
        if decoded.is_err() {
            self.pcm.fill(0.0);
        }
        let samples = u32::try_from(samples).unwrap_or(0);
        done.concealed = done.concealed.saturating_add(samples);
        self.output.push(&self.pcm, done);
    }

    fn decode(&mut self, packet: &[u8], samples: usize, done: &mut Completed) {
        let channels = usize::from(self.channels);
        self.pcm.clear();
        self.pcm.resize(samples * channels, 0.0);
        let decoded = self.decoder.decode_float(packet, &mut self.pcm, false);
        if !decoded.is_ok_and(|decoded| decoded == samples) {
            done.errors += 1;
            // The packet's head was good: its time is filled by concealment.
            if self
                .decoder
                .decode_float(&[], &mut self.pcm, false)
                .is_err()
            {
                self.pcm.fill(0.0);
            }
            let samples = u32::try_from(samples).unwrap_or(0);
            done.concealed = done.concealed.saturating_add(samples);
        }
        let late = self.late_samples.min(samples);
        if late > 0 {
            done.late += 1;
            self.late_samples -= late;
        }
        let sound = self.pcm.get(late * channels..).unwrap_or_default();
        self.output.push(sound, done);
    }
}

/// Samples per channel at 48 kHz of a packet, if its head is good (RFC 6716 section 3).
fn packet_samples(packet: &[u8]) -> Option<usize> {
    if packet.is_empty() || packet.len() > PAYLOAD_BYTES_MAX {
        return None;
    }
    opus::packet::get_nb_samples(packet, OUTPUT_RATE_HZ)
        .ok()
        .filter(|samples| (1..=PACKET_SAMPLES_MAX).contains(samples))
}

fn open_decoder(channels: u8) -> Result<opus::Decoder, Error> {
    let layout = match channels {
        1 => opus::Channels::Mono,
        2 => opus::Channels::Stereo,
        _ => return Err(Error::Channels(channels)),
    };
    opus::Decoder::new(OUTPUT_RATE_HZ, layout).map_err(|error| Error::Opus(error.description()))
}

fn in_i64(samples: usize) -> i64 {
    i64::try_from(samples).unwrap_or(i64::MAX)
}

const FRAME_SAMPLES: i64 = AAC_FRAME_SAMPLES as i64;

/// The AAC-LC encoder, one access unit for each 1024 samples.
pub(super) struct AacEncoder {
    encoder: enc::Encoder,
    delay: i64,
    /// Access units that are not to be given out: the time they are for was
    /// covered by the encoder before this one.
    withheld: i64,
    pcm: Vec<i16>,
    access_unit: Vec<u8>,
}

impl AacEncoder {
    fn new(channels: u8, settings: AacSettings) -> Result<Self, Error> {
        let (mode, bitrate) = match channels {
            1 => (enc::ChannelMode::Mono, settings.bitrate_mono_bps),
            2 => (enc::ChannelMode::Stereo, settings.bitrate_stereo_bps),
            _ => return Err(Error::Channels(channels)),
        };
        let refused = |error: enc::EncoderError| Error::AacEncoder(error.to_string());
        let encoder = enc::Encoder::new(enc::EncoderParams {
            bit_rate: enc::BitRate::Cbr(bitrate),
            sample_rate: OUTPUT_RATE_HZ,
            transport: enc::Transport::Raw,
            channels: mode,
            audio_object_type: enc::AudioObjectType::Mpeg4LowComplexity,
        })
        .map_err(refused)?;
        let info = encoder.info().map_err(refused)?;
        if usize::try_from(info.frameLength) != Ok(AAC_FRAME_SAMPLES) {
            return Err(Error::AacEncoder(format!("{} samples", info.frameLength)));
        }
        let room = usize::try_from(info.maxOutBufBytes).unwrap_or(0);
        Ok(Self {
            encoder,
            delay: i64::from(info.nDelay),
            withheld: 0,
            pcm: Vec::new(),
            access_unit: vec![0; room],
        })
    }

    fn config(&self) -> Result<AudioSpecificConfig, Error> {
        let info = self
            .encoder
            .info()
            .map_err(|error| Error::AacEncoder(error.to_string()))?;
        let length = usize::try_from(info.confSize).unwrap_or(0);
        let bytes = info.confBuf.get(..length).unwrap_or_default();
        AudioSpecificConfig::decode(bytes).map_err(|error| Error::AacEncoder(error.to_string()))
    }
}

impl FrameEncoder for AacEncoder {
    const CODEC: Codec = Codec::Aac;

    fn delay_samples(&self) -> i64 {
        self.delay
    }

    fn encode(&mut self, pcm: &[f32]) -> Result<Option<Bytes>, Error> {
        self.pcm.clear();
        // A float beyond the range of `i16` becomes its nearest end.
        let scaled = pcm.iter().map(|sample| (sample * 32_768.0).round() as i16);
        self.pcm.extend(scaled);
        let encoded = self
            .encoder
            .encode(&self.pcm, &mut self.access_unit)
            .map_err(|error| Error::AacEncoder(error.to_string()))?;
        let access_unit = self.access_unit.get(..encoded.output_size);
        let access_unit = access_unit.filter(|bytes| !bytes.is_empty());
        let access_unit = access_unit.ok_or_else(|| Error::AacEncoder("no output".into()))?;
        if self.withheld > 0 {
            self.withheld -= 1;
            return Ok(None);
        }
        Ok(Some(Bytes::copy_from_slice(access_unit)))
    }
}

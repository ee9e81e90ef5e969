//! What the tests of this part share: sounds, and ways to look at them.

use std::f64::consts::TAU;

use bytes::Bytes;
use fdk_aac::enc;

use crate::codec::aac::AudioSpecificConfig;
use crate::media::{Codec, Frame, MediaTime, TrackConfig};

use super::aac_decoder::AacDecoder;
use super::{Completed, Job, PipelineId, Spec, Work, Worker};

/// A sine of half the full scale, interleaved, the same in all channels.
pub(super) fn tone(hz: f64, rate_hz: u32, channels: usize, samples: usize) -> Vec<f32> {
    (0..samples)
        .flat_map(|n| {
            let value = 0.5 * (TAU * hz * n as f64 / f64::from(rate_hz)).sin();
            std::iter::repeat_n(value as f32, channels)
        })
        .collect()
}

/// Mono silence with a short click centred on sample `at`.
pub(super) fn click(samples: usize, at: usize) -> Vec<f32> {
    let mut sound = vec![0.0; samples];
    for (offset, value) in [(-2, 0.1), (-1, 0.4), (0, 0.8), (1, 0.4), (2, 0.1)] {
        sound[at.checked_add_signed(offset).unwrap()] = value;
    }
    sound
}

/// Where a mono sound is loudest.
pub(super) fn click_position(sound: &[f32]) -> usize {
    let loudness = |n: &usize| sound[*n].abs();
    (0..sound.len())
        .max_by(|a, b| loudness(a).total_cmp(&loudness(b)))
        .unwrap()
}

/// How strong a frequency is in a mono sound (Goertzel): 0.5 for [`tone`].
pub(super) fn amplitude(sound: &[f32], hz: f64, rate_hz: u32) -> f64 {
    let step = TAU * hz / f64::from(rate_hz);
    let (mut re, mut im) = (0.0, 0.0);
    for (n, value) in sound.iter().enumerate() {
        let window = 1.0 - (TAU * n as f64 / sound.len() as f64).cos();
        re += f64::from(*value) * window * (step * n as f64).cos();
        im += f64::from(*value) * window * (step * n as f64).sin();
    }
    2.0 * re.hypot(im) / sound.len() as f64
}

/// Root mean square, in dB of full scale.
pub(super) fn loudness_db(sound: &[f32]) -> f64 {
    let sum: f64 = sound.iter().map(|value| f64::from(*value).powi(2)).sum();
    10.0 * (sum / sound.len() as f64).log10()
}

/// AAC made by the library's encoder.
pub(super) struct AacSource {
    /// Its AudioSpecificConfig.
    pub(super) config: AudioSpecificConfig,
    /// Its access units.
    pub(super) units: Vec<Bytes>,
    /// Rate of the sound, in Hz.
    pub(super) rate_hz: u32,
    /// Samples at that rate in each access unit.
    pub(super) unit_samples: i64,
    /// Samples at that rate by which the sound is later than its access unit, for a
    /// decoder that makes up for its own delay.
    pub(super) delay: i64,
}

impl AacSource {
    /// AAC-LC.
    pub(super) fn lc(rate_hz: u32, channels: usize, sound: &[f32]) -> Self {
        let kind = enc::AudioObjectType::Mpeg4LowComplexity;
        let bitrate = match rate_hz {
            ..=16_000 => 24_000,
            16_001..=32_000 => 48_000,
            _ => 80_000,
        };
        Self::encode(kind, rate_hz, channels, bitrate * channels as u32, sound)
    }

    /// Encodes interleaved sound.
    pub(super) fn encode(
        kind: enc::AudioObjectType,
        rate_hz: u32,
        channels: usize,
        bitrate: u32,
        sound: &[f32],
    ) -> Self {
        let encoder = enc::Encoder::new(enc::EncoderParams {
            bit_rate: enc::BitRate::Cbr(bitrate),
            sample_rate: rate_hz,
            transport: enc::Transport::Raw,
            channels: match channels {
                1 => enc::ChannelMode::Mono,
                _ => enc::ChannelMode::Stereo,
            },
            audio_object_type: kind,
        })
        .unwrap();
        let info = encoder.info().unwrap();
        let config = &info.confBuf[..info.confSize as usize];
        let unit_samples = info.frameLength as usize;
        let mut units = Vec::new();
        let mut buffer = vec![0; 8192];
        for piece in sound.chunks_exact(unit_samples * channels) {
            let pcm: Vec<i16> = piece.iter().map(|v| (v * 32_768.0) as i16).collect();
            let encoded = encoder.encode(&pcm, &mut buffer).unwrap();
            assert_eq!(encoded.input_consumed, pcm.len());
            if encoded.output_size > 0 {
                units.push(Bytes::copy_from_slice(&buffer[..encoded.output_size]));
            }
        }
        Self {
            config: AudioSpecificConfig::decode(config).unwrap(),
            units,
            rate_hz,
            unit_samples: unit_samples as i64,
            delay: i64::from(info.nDelayCore),
        }
    }

    /// When access unit `n` starts, if the encoded sound started at `start`.
    pub(super) fn time(&self, start: MediaTime, n: usize) -> MediaTime {
        let samples = n as i64 * self.unit_samples - self.delay;
        start + MediaTime::from_units(samples, self.rate_hz)
    }
}

/// As RTMP does it.
pub(super) fn in_millis(time: MediaTime) -> MediaTime {
    MediaTime::from_millis(time.as_millis_rounded())
}

/// Opus packets of `samples` each, of interleaved sound at 48 kHz.
pub(super) fn opus_packets(channels: usize, samples: usize, sound: &[f32]) -> Vec<Bytes> {
    let layout = match channels {
        1 => opus::Channels::Mono,
        _ => opus::Channels::Stereo,
    };
    let mut encoder = opus::Encoder::new(48_000, layout, opus::Application::LowDelay).unwrap();
    encoder.set_bitrate(opus::Bitrate::Bits(96_000)).unwrap();
    encoder.set_complexity(2).unwrap();
    sound
        .chunks_exact(samples * channels)
        .map(|piece| encoder.encode_vec_float(piece, 4_000).unwrap().into())
        .collect()
}

/// Samples by which sound of [`opus_packets`] is later than its packets.
pub(super) const OPUS_DELAY: i64 = 120;

/// One pipeline, and all that came out of it.
pub(super) struct Rig {
    pub(super) worker: Worker,
    pub(super) pipeline: PipelineId,
    pub(super) frames: Vec<Frame>,
    /// Sums; `config` and `error` are the last ones.
    pub(super) totals: Completed,
}

impl Rig {
    pub(super) fn open(spec: Spec) -> Self {
        let mut rig = Self {
            worker: Worker::new(),
            pipeline: PipelineId(3),
            frames: Vec::new(),
            totals: Completed::default(),
        };
        let done = rig.run(Work::Open(Box::new(spec)));
        assert_eq!(done.error, None);
        assert!(done.config.is_some());
        rig
    }

    pub(super) fn run(&mut self, work: Work) -> Completed {
        let pipeline = self.pipeline;
        let done = self.worker.run(Job { pipeline, work }).unwrap();
        assert_eq!(done.pipeline, pipeline);
        self.frames.extend(done.frames.iter().cloned());
        self.totals.errors += done.errors;
        self.totals.concealed += done.concealed;
        self.totals.silence += done.silence;
        self.totals.late += done.late;
        self.totals.resyncs += done.resyncs;
        self.totals.config = done.config.clone().or(self.totals.config.take());
        self.totals.error = done.error.clone().or(self.totals.error.take());
        done
    }

    pub(super) fn feed(&mut self, codec: Codec, pts: MediaTime, payload: Bytes) -> Completed {
        self.run(Work::Frame(Frame {
            codec,
            dts: pts,
            pts,
            key: true,
            disposable: false,
            payload,
        }))
    }

    /// Time of the first frame.
    pub(super) fn start(&self) -> MediaTime {
        self.frames[0].pts
    }

    /// Just behind the last frame.
    pub(super) fn end(&self) -> MediaTime {
        let last = self.frames.last().unwrap();
        let samples = match last.codec {
            Codec::Opus => 960,
            _ => 1_024,
        };
        last.pts + MediaTime::from_units(samples, 48_000)
    }

    /// Checks that each frame starts where the one before ends, and that decoding and
    /// presentation are the same.
    pub(super) fn assert_gapless(&self) {
        for pair in self.frames.windows(2) {
            let samples = match pair[0].codec {
                Codec::Opus => 960,
                _ => 1_024,
            };
            let step = MediaTime::from_units(samples, 48_000);
            assert_eq!(pair[1].pts - pair[0].pts, step);
            assert_eq!(pair[1].pts, pair[1].dts);
        }
    }

    /// The output as heard, interleaved, from [`Self::start`] on.
    pub(super) fn heard(&self, channels: usize) -> Vec<f32> {
        let mut sound = Vec::new();
        match &self.totals.config {
            Some(TrackConfig::Aac(config)) => {
                let mut decoder = AacDecoder::new(config.bytes()).unwrap();
                for frame in &self.frames {
                    let decoded = decoder.decode(&frame.payload).unwrap();
                    assert!(!decoded.concealed);
                    assert_eq!(decoded.channels, channels);
                    assert_eq!((decoded.rate_hz, decoded.delay), (48_000, 0));
                    sound.extend(decoded.pcm.iter().map(|v| f32::from(*v) / 32_768.0));
                }
            }
            _ => {
                let layout = match channels {
                    1 => opus::Channels::Mono,
                    _ => opus::Channels::Stereo,
                };
                let mut decoder = opus::Decoder::new(48_000, layout).unwrap();
                let mut pcm = vec![0.0; 960 * channels];
                for frame in &self.frames {
                    let decoded = decoder.decode_float(&frame.payload, &mut pcm, false);
                    assert_eq!(decoded.unwrap(), 960);
                    sound.extend_from_slice(&pcm);
                }
            }
        }
        sound
    }

    /// One channel of what is heard between two times.
    pub(super) fn heard_between(
        &self,
        channels: usize,
        channel: usize,
        from: MediaTime,
        to: MediaTime,
    ) -> Vec<f32> {
        let index = |time: MediaTime| (time - self.start()).as_units(48_000) as usize;
        self.heard(channels)
            .chunks(channels)
            .map(|sample| sample[channel])
            .take(index(to))
            .skip(index(from))
            .collect()
    }
}

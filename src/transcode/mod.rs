//! Sound between the two worlds: AAC of RTMP to Opus of WebRTC and back.
//!
//! A [`Worker`] owns the codec state of the streams pinned to it and turns [`Job`]s
//! into [`Completed`]. It reads no clock and starts no thread: the world runs it
//! wherever it likes, one job after the other.
//!
//! ```text
//! AAC ──▶ AacDecoder ──▶ Resampler ─┐                    ┌─▶ Opus encoder ──▶ 960 samples
//!                                   ├─▶ Output (Framer) ─┤
//! Opus ─▶ Opus decoder (PLC, FEC) ──┘                    └─▶ AAC encoder ──▶ 1024 samples
//! ```
//!
//! # Time
//!
//! The output is a sample count: frame `n` starts `n` whole frames after the first
//! one, whatever the input's timestamps do, and the delay of every codec and
//! filter on the way is taken out of it, so that a click at time `t` of the input
//! is heard at time `t` of the output. The input's timestamps steer this count in
//! three ways, each bounded:
//!
//! - **Rounding and jitter** (RTMP counts in milliseconds) average out and
//!   move nothing.
//! - **Drift** between the input's timestamps and its samples (two quartzes, or a
//!   sender report moving the stream's clock) is followed when it has grown to 10 ms:
//!   a frame is then made of a few samples more or fewer, at most 0.5 %,
//!   stretched by interpolation so that nothing clicks.
//! - **Holes and jumps** are filled with concealment and silence, or cut out, so that
//!   the time on the wire stays that of the input. A hole too long to be filled makes
//!   the clock jump by whole frames. The output never goes back in time: input
//!   that jumps back by more than a second is moved behind what was sent already.

mod aac_decoder;
mod aac_to_opus;
mod drift;
mod framer;
mod opus_to_aac;
mod output;
mod resample;
mod worker;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use crate::codec::aac::AudioSpecificConfig;
use crate::media::{Frame, MediaTime, TrackConfig};

pub use worker::{PIPELINES_MAX, Worker};

/// The rate of both outputs: Opus has no other on the wire (RFC 7587 section 4.1), and
/// AAC takes it over.
pub const OUTPUT_RATE_HZ: u32 = 48_000;

/// Samples per channel of each Opus frame made here: 20 ms.
pub const OPUS_FRAME_SAMPLES: usize = 960;

/// Samples per channel of each AAC frame made here: 21.33 ms.
pub const AAC_FRAME_SAMPLES: usize = 1024;

/// Longest payload of one input frame, in bytes; a longer one is counted as an error.
///
/// An AAC access unit has at most 6144 bits per channel (ISO/IEC 14496-3 section 4.5.3),
/// and an Opus packet comes out of one datagram.
pub const PAYLOAD_BYTES_MAX: usize = 8 * 1024;

/// Names one stream's transcoding in one direction. Chosen by the caller, unique among
/// the pipelines of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PipelineId(pub u64);

/// What a pipeline turns into what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spec {
    /// AAC-LC or HE-AAC to Opus of the source's channels, at most two.
    AacToOpus {
        /// How the access units are to be decoded.
        config: AudioSpecificConfig,
        /// How the Opus encoder is set.
        settings: OpusSettings,
    },
    /// Opus to AAC-LC at 48 kHz.
    OpusToAac {
        /// Channels of the AAC, 1 or 2, whatever the single packets carry: two if the
        /// session description promised stereo (RFC 7587 section 7).
        channels: u8,
        /// How the AAC encoder is set.
        settings: AacSettings,
    },
}

/// Settings of the Opus encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpusSettings {
    /// 0 (cheapest) to 10 (best); higher values are taken as 10. From 1 on transients get short
    /// blocks, without which they are heard before they come. From 5 on a filter follows the
    /// pitch, which at these bitrates is worth less than the bits of a variable rate.
    pub complexity: u8,
    /// Bits per second of a mono stream: see [`Self::bitrate_stereo_bps`].
    pub bitrate_mono_bps: u32,
    /// Bits per second of a stereo stream, for sound that is neither easy nor hard. A frame takes
    /// what it needs, at most the double.
    pub bitrate_stereo_bps: u32,
}

impl Default for OpusSettings {
    fn default() -> Self {
        Self {
            complexity: 1,
            bitrate_mono_bps: 64_000,
            bitrate_stereo_bps: 96_000,
        }
    }
}

/// Settings of the AAC encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AacSettings {
    /// Bits per second of a mono stream.
    pub bitrate_mono_bps: u32,
    /// Bits per second of a stereo stream.
    pub bitrate_stereo_bps: u32,
}

impl Default for AacSettings {
    fn default() -> Self {
        Self {
            bitrate_mono_bps: 64_000,
            bitrate_stereo_bps: 128_000,
        }
    }
}

/// One piece of work for the worker that holds the pipeline.
#[derive(Clone, Debug)]
pub struct Job {
    /// Whose work it is.
    pub pipeline: PipelineId,
    /// What is to be done.
    pub work: Work,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Work {
    /// Makes the pipeline. An existing one of the same id is replaced.
    Open(Box<Spec>),
    /// Transcodes one frame. Frames come in the order of decoding.
    Frame(Frame),
    /// The source's configuration changed: the codecs change, the clock goes on. An
    /// unchanged configuration changes nothing.
    Reconfigure(Box<Spec>),
    /// No input came for a while: fills with concealment, then silence, up to this
    /// time of the input's clock. Input that comes late for what was filled is dropped,
    /// so that nothing is heard twice: to be called only when input is overdue by more
    /// than its frames are long. Before the first frame it starts the clock.
    Advance(MediaTime),
    /// Ends the pipeline and frees its codecs. What is not a whole frame yet is lost.
    Close,
}

/// What came of a job.
#[derive(Clone, Debug, Default)]
pub struct Completed {
    /// Whose job it was.
    pub pipeline: PipelineId,
    /// Opus frames of 960 or AAC frames of 1024 samples. Their times step by exactly
    /// that much; the first ones may lie before zero by the encoder's delay.
    pub frames: Vec<Frame>,
    /// How the frames are to be decoded: given when the pipeline opens, and again when
    /// it changes, before the first frame that needs it.
    pub config: Option<TrackConfig>,
    /// Input frames that could not be decoded, and frames lost in encoding.
    pub errors: u32,
    /// Samples per channel at 48 kHz that were concealed: invented from what was heard
    /// before, or taken from the next packet's forward error correction.
    pub concealed: u32,
    /// Samples per channel at 48 kHz of silence put where input was missing.
    pub silence: u32,
    /// Input frames that came too late, or twice, and were not used or not fully.
    pub late: u32,
    /// Jumps of the input's timestamps that were followed.
    pub resyncs: u32,
    /// How far the input's timestamps are ahead of its samples, after the job.
    pub sync: Sync,
    /// Why a codec could not be opened. The pipeline does not exist, or after
    /// [`Work::Reconfigure`] counts all further frames as errors until the next one.
    pub error: Option<String>,
    /// How long the job took. Filled in by whoever has a clock.
    pub busy: Duration,
}

/// How the timestamps of a pipeline's input stand to its samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sync {
    /// How far they are ahead, smoothed; what is still to be corrected.
    pub ahead: MediaTime,
    /// What was corrected so far, by stretching frames.
    pub corrected: MediaTime,
}

impl Default for PipelineId {
    fn default() -> Self {
        Self(u64::MAX)
    }
}

/// Why codecs cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The AAC decoder refused the configuration.
    AacDecoder {
        /// Error code of the library.
        code: u32,
    },
    /// AAC of this audio object type is not transcoded (ISO/IEC 14496-3 table 1.17);
    /// 2, 5 and 29 are.
    ObjectType(u8),
    /// The Opus library refused a setting.
    Opus(&'static str),
    /// The AAC encoder refused a setting.
    AacEncoder(String),
    /// The resampler refused a rate.
    Resampler {
        /// The refused rate.
        rate_hz: u32,
    },
    /// Neither one nor two channels were asked for.
    Channels(u8),
    /// A pipeline cannot change its direction.
    Direction,
    /// The worker holds [`PIPELINES_MAX`] already.
    TooManyPipelines,
    /// No such pipeline: it was never opened, failed to, or is closed.
    NoPipeline,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::AacDecoder { code } => write!(f, "AAC decoder: error {code:#06x}"),
            Error::ObjectType(kind) => write!(f, "AAC audio object type {kind} is not supported"),
            Error::Opus(what) => write!(f, "Opus: {what}"),
            Error::AacEncoder(what) => write!(f, "AAC encoder: {what}"),
            Error::Resampler { rate_hz } => write!(f, "no resampler for {rate_hz} Hz"),
            Error::Channels(channels) => write!(f, "{channels} channels"),
            Error::Direction => f.write_str("a pipeline cannot change its direction"),
            Error::TooManyPipelines => write!(f, "more than {PIPELINES_MAX} pipelines"),
            Error::NoPipeline => f.write_str("no such pipeline"),
        }
    }
}

impl std::error::Error for Error {}

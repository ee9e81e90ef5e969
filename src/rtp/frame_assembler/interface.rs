//! The words of the assembler's face: what goes in, what comes out, what is bounded and counted.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::codec::h264::{ACCESS_UNIT_BYTES_MAX, AccessUnit};

/// An RTP packet of the video stream, decrypted; retransmissions look like what they repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The extended sequence number; below 2^62.
    pub sequence: u64,
    /// The extended timestamp at 90 kHz.
    pub rtp_time: u64,
    /// The marker bit: the last packet of its access unit.
    pub marker: bool,
    /// The payload without padding; may be empty.
    pub payload: Bytes,
}

/// Bounds of a [`FrameAssembler`](super::FrameAssembler).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most packets, holes included, from the oldest one waited for to the newest. Beyond it
    /// everything held is dropped and a key frame is asked for. A frame cannot be longer. At least
    /// 128.
    pub packets_max: usize,
    /// Most payload bytes held, with the same consequence.
    pub bytes_max: usize,
    /// How long a hole waits for its retransmission before a key frame is asked for, as long as
    /// the round-trip time is unknown. What is held is dropped after twice that.
    pub hole_wait: Duration,
    /// The shortest time between two key frame requests.
    pub keyframe_interval: Duration,
}

impl Default for Limits {
    /// 4096 packets (a 4 MB frame), as many bytes as the largest access unit, 200 ms and 500 ms.
    fn default() -> Self {
        Self {
            packets_max: 4096,
            bytes_max: ACCESS_UNIT_BYTES_MAX,
            hole_wait: Duration::from_millis(200),
            keyframe_interval: Duration::from_millis(500),
        }
    }
}

/// What comes out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// A whole access unit with at least one slice, which may be decoded.
    AccessUnit {
        /// The extended timestamp at 90 kHz.
        rtp_time: u64,
        /// When the first of its packets to arrive did.
        arrival: Instant,
        /// The picture. Its parameter sets include those that came in access units of their own
        /// since the last picture.
        unit: AccessUnit,
        /// Whether packets were given up since the last access unit; always so for the first one.
        after_loss: bool,
    },
    /// The sender is to be asked for a key frame (PLI or FIR).
    KeyframeNeeded {
        /// Why it was wanted first.
        reason: KeyframeReason,
    },
}

/// Why a key frame is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyframeReason {
    /// The stream did not begin with one.
    Start,
    /// Packets were lost for good.
    Loss,
    /// A frame could not be put together although no packet of it was missing.
    Malformed,
    /// More was held than [`Limits`] allow.
    Overflow,
    /// [`request_keyframe`](super::FrameAssembler::request_keyframe) was called.
    Requested,
}

impl KeyframeReason {
    /// A short name for counters and logs.
    pub const fn name(self) -> &'static str {
        match self {
            KeyframeReason::Start => "start",
            KeyframeReason::Loss => "loss",
            KeyframeReason::Malformed => "malformed",
            KeyframeReason::Overflow => "overflow",
            KeyframeReason::Requested => "requested",
        }
    }
}

/// Totals since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Access units that came out.
    pub frames: u64,
    /// Of these, with an IDR picture.
    pub keyframes: u64,
    /// Timestamps of which packets were dropped.
    pub dropped: u64,
    /// Holes that were waited for.
    pub holes: u64,
    /// Holes that were given up. Not one that came after the key frame was asked for.
    pub holes_lost: u64,
    /// Packets whose place was passed: doubled, or later than the wait.
    pub late: u64,
    /// Packets that were held already.
    pub duplicates: u64,
    /// Packets without payload.
    pub padding: u64,
    /// Payloads that no access unit could use.
    pub malformed: u64,
    /// Times that a limit was reached or the sequence jumped, and everything held was dropped.
    pub overflows: u64,
    /// Key frame requests.
    pub keyframe_requests: u64,
}

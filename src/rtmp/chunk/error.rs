//! [`ChunkError`].

use std::fmt;

use super::CHUNK_SIZE_MAX;

/// Why a chunk stream cannot be read on. Ends the session: where the next chunk begins
/// is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkError {
    // The peer broke a rule.
    /// The first chunk of a chunk stream relies on fields that never came (fmt 2 or 3).
    HeaderWithoutMessage {
        /// The chunk stream.
        csid: u32,
        /// 2 or 3.
        fmt: u8,
    },
    /// Set Chunk Size with 0 or with the first bit set (RTMP 1.0 section 5.4.1).
    ChunkSizeInvalid {
        /// As it came.
        value: u32,
    },
    /// Set Chunk Size or Abort of fewer than four bytes.
    ControlTooShort {
        /// 1 or 2.
        type_id: u8,
        /// Payload bytes.
        length: usize,
    },
    // A limit was reached.
    /// A header claims a message longer than [`ChunkLimits::message_bytes_max`].
    MessageTooLong {
        /// The chunk stream.
        csid: u32,
        /// Bytes claimed.
        length: u32,
        /// The limit.
        max: u32,
    },
    /// One chunk stream more than [`ChunkLimits::chunk_streams_max`].
    TooManyChunkStreams {
        /// The one too many.
        csid: u32,
        /// The limit.
        max: u16,
    },
    /// Partial messages would hold more than [`ChunkLimits::partial_bytes_max`].
    PartialBytesExceeded {
        /// Bytes that would be held.
        held: usize,
        /// The limit.
        max: usize,
    },
}

impl ChunkError {
    /// A short name for counters.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::HeaderWithoutMessage { .. } => "chunk_header_without_message",
            Self::ChunkSizeInvalid { .. } => "chunk_size_invalid",
            Self::ControlTooShort { .. } => "control_too_short",
            Self::MessageTooLong { .. } => "message_too_long",
            Self::TooManyChunkStreams { .. } => "too_many_chunk_streams",
            Self::PartialBytesExceeded { .. } => "partial_bytes_exceeded",
        }
    }
}

impl fmt::Display for ChunkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HeaderWithoutMessage { csid, fmt } => {
                write!(f, "chunk stream {csid} begins with fmt {fmt}")
            }
            Self::ChunkSizeInvalid { value } => {
                write!(f, "chunk size {value} is not in 1..={CHUNK_SIZE_MAX}")
            }
            Self::ControlTooShort { type_id, length } => {
                write!(f, "control message {type_id} of {length} bytes")
            }
            Self::MessageTooLong { csid, length, max } => write!(
                f,
                "message of {length} bytes on chunk stream {csid}, the limit is {max}"
            ),
            Self::TooManyChunkStreams { csid, max } => {
                write!(f, "chunk stream {csid} is one more than the limit of {max}")
            }
            Self::PartialBytesExceeded { held, max } => write!(
                f,
                "partial messages would hold {held} bytes, the limit is {max}"
            ),
        }
    }
}

impl std::error::Error for ChunkError {}

//! The chunk stream (RTMP 1.0 section 5.3): [`ChunkReader`] puts messages together,
//! [`ChunkWriter`] and [`encode_shared`] cut them.

mod blocks;
mod error;
mod header;
mod reader;
mod streams;
mod writer;

pub use error::ChunkError;
pub use reader::{ChunkLimits, ChunkReader};
pub use writer::{ChunkWriter, encode_around, encode_shared};

/// The chunk size of both directions until a Set Chunk Size, bytes (RTMP 1.0 section 5.4.1).
pub const DEFAULT_CHUNK_SIZE: u32 = 128;

/// The largest chunk size: its first bit must be 0 (RTMP 1.0 section 5.4.1).
pub const CHUNK_SIZE_MAX: u32 = 0x7fff_ffff;

/// The longest message: its length has three bytes (RTMP 1.0 section 5.3.1.2.1).
pub const MESSAGE_BYTES_MAX: usize = 0xff_ffff;

/// The largest chunk stream ID (RTMP 1.0 section 5.3.1.1). The least is 2.
pub const CSID_MAX: u32 = 65_599;

/// A timestamp field of this value says that four more bytes hold the timestamp
/// (RTMP 1.0 section 5.3.1.3). Exactly this time needs them, too.
const EXTENDED_TIMESTAMP: u32 = 0xff_ffff;

/// The longest chunk header: three bytes of basic header, eleven of message header, four
/// of extended timestamp.
const HEADER_BYTES_MAX: usize = 18;

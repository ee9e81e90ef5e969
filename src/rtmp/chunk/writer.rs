//! [`ChunkWriter`] and [`encode_shared`]: messages become chunks (RTMP 1.0 section 5.3).

use bytes::Bytes;

use super::{CHUNK_SIZE_MAX, CSID_MAX, DEFAULT_CHUNK_SIZE, EXTENDED_TIMESTAMP, MESSAGE_BYTES_MAX};
use crate::rtmp::message::{Control, Message, type_id};
use crate::wire::WriteExt;

/// Cuts the messages of one connection into chunks, with header compression.
///
/// Every message on a chunk stream must go through the same writer: what [`encode_shared`]
/// made for others belongs on chunk streams of its own.
#[derive(Debug)]
pub struct ChunkWriter {
    chunk_size: u32,
    /// The last message of each chunk stream; a handful, so a list.
    streams: Vec<LastMessage>,
}

impl Default for ChunkWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl ChunkWriter {
    /// A writer with a chunk size of 128 bytes.
    pub const fn new() -> Self {
        Self {
            chunk_size: DEFAULT_CHUNK_SIZE,
            streams: Vec::new(),
        }
    }

    /// The chunks of `message`. A Set Chunk Size takes effect for the messages after it.
    ///
    /// A payload of more than 16 777 215 bytes has no form on the wire: the answer is empty.
    ///
    /// # Panics
    /// If the chunk stream ID is not in 2..=65 599, which is a bug of the caller.
    pub fn write(&mut self, message: &Message) -> Bytes {
        if message.payload.len() > MESSAGE_BYTES_MAX {
            return Bytes::new();
        }
        // The cast keeps the value: it has at most three bytes.
        let length = message.payload.len() as u32;
        let header = match self.streams.iter_mut().find(|s| s.csid == message.csid) {
            Some(last) => last.compress(message, length),
            None => {
                self.streams.push(LastMessage {
                    csid: message.csid,
                    timestamp: message.timestamp,
                    delta: None,
                    length,
                    type_id: message.type_id,
                    stream_id: message.stream_id,
                });
                Compression::Full
            }
        };
        let chunks = encode(
            &Outgoing {
                csid: message.csid,
                type_id: message.type_id,
                stream_id: message.stream_id,
                timestamp: message.timestamp,
                compression: header,
            },
            &[&message.payload],
            self.chunk_size,
        );
        if message.type_id == type_id::SET_CHUNK_SIZE
            && let Ok(Some(Control::SetChunkSize(bytes))) = Control::decode(message)
        {
            self.set_chunk_size(bytes);
        }
        chunks
    }

    /// Sets the chunk size in bytes, kept within 1..=0x7fff_ffff: the peer was told by other
    /// means than [`ChunkWriter::write`].
    pub fn set_chunk_size(&mut self, bytes: u32) {
        self.chunk_size = bytes.clamp(1, CHUNK_SIZE_MAX);
    }

    /// The chunk size in effect, bytes.
    pub const fn chunk_size(&self) -> u32 {
        self.chunk_size
    }
}

/// The chunks of one message for any number of connections: a full header and fmt 3
/// continuations, in one allocation of the exact size. The payload is given in `payload` parts,
/// which are copied once.
///
/// The extended timestamp is repeated on every continuation (RTMP 1.0 section 5.3.1.3): ffmpeg
/// 5.1 and rtmpdump 2.4 lose step without it.
///
/// A payload of more than 16 777 215 bytes has no form on the wire: the answer is empty.
///
/// # Panics
/// If `csid` is not in 2..=65 599, which is a bug of the caller.
pub fn encode_shared(
    csid: u32,
    timestamp: u32,
    type_id: u8,
    stream_id: u32,
    payload: &[&[u8]],
    chunk_size: u32,
) -> Bytes {
    let message = Outgoing {
        csid,
        type_id,
        stream_id,
        timestamp,
        compression: Compression::Full,
    };
    encode(&message, payload, chunk_size)
}

/// The same chunks for a payload of `head` and `body`, where `body` is shared instead of copied:
/// the pieces are to be written one after the other, and the first one begins with the
/// header.
///
/// # Panics
/// If `csid` is not in 2..=65 599, which is a bug of the caller.
pub fn encode_around(
    csid: u32,
    timestamp: u32,
    type_id: u8,
    stream_id: u32,
    head: &[u8],
    body: &Bytes,
    chunk_size: u32,
) -> Vec<Bytes> {
    let size = chunk_size.clamp(1, CHUNK_SIZE_MAX) as usize;
    let length = head.len() + body.len();
    if head.len() > size || length > MESSAGE_BYTES_MAX {
        let parts = [head, body];
        return vec![encode_shared(
            csid, timestamp, type_id, stream_id, &parts, chunk_size,
        )];
    }
    let message = Outgoing {
        csid,
        type_id,
        stream_id,
        timestamp,
        compression: Compression::Full,
    };
    let mut headers = Vec::with_capacity(2 * HEADER_BYTES_MAX + head.len());
    // The cast keeps the value: it has at most three bytes.
    message.put_header(length as u32, &mut headers);
    headers.extend_from_slice(head);
    let first = headers.len();
    if length > size {
        put_basic_header(3, csid, &mut headers);
        message.put_extended(&mut headers);
    }
    let headers = Bytes::from(headers);
    let continuation = headers.slice(first..);
    let mut pieces = vec![headers.slice(..first)];
    let mut rest = body.clone();
    let mut room = size - head.len();
    loop {
        let piece = rest.split_to(rest.len().min(room));
        if !piece.is_empty() {
            pieces.push(piece);
        }
        if rest.is_empty() {
            return pieces;
        }
        pieces.push(continuation.clone());
        room = size;
    }
}

/// What the peer remembers of a chunk stream.
#[derive(Debug)]
struct LastMessage {
    csid: u32,
    timestamp: u32,
    /// `None` after a full header: readers differ in what a fmt 3 message then adds (the
    /// timestamp in RTMP 1.0 section 5.3.1.2.4, nothing in nginx-rtmp).
    delta: Option<u32>,
    length: u32,
    type_id: u8,
    stream_id: u32,
}

impl LastMessage {
    /// The shortest header that says the difference, and remembers `message`.
    fn compress(&mut self, message: &Message, length: u32) -> Compression {
        let is_alike = self.length == length && self.type_id == message.type_id;
        // A full header where time goes back (5.3.1.2.1), wraps, or jumps so far that the
        // delta would need the extended field, which readers understand in two ways.
        let delta = message
            .timestamp
            .checked_sub(self.timestamp)
            .filter(|delta| *delta < EXTENDED_TIMESTAMP && self.stream_id == message.stream_id);
        let compression = match delta {
            None => Compression::Full,
            Some(delta) if !is_alike => Compression::NewLength { delta },
            Some(delta) if self.delta != Some(delta) => Compression::NewDelta { delta },
            Some(_) => Compression::None,
        };
        self.timestamp = message.timestamp;
        self.delta = delta;
        self.length = length;
        self.type_id = message.type_id;
        self.stream_id = message.stream_id;
        compression
    }
}

/// The message header to write (RTMP 1.0 section 5.3.1.2).
#[derive(Clone, Copy, Debug)]
enum Compression {
    /// fmt 0.
    Full,
    /// fmt 1.
    NewLength { delta: u32 },
    /// fmt 2.
    NewDelta { delta: u32 },
    /// fmt 3.
    None,
}

impl Compression {
    const fn fmt(self) -> u8 {
        match self {
            Compression::Full => 0,
            Compression::NewLength { .. } => 1,
            Compression::NewDelta { .. } => 2,
            Compression::None => 3,
        }
    }

    const fn header_bytes(self) -> usize {
        match self {
            Compression::Full => 11,
            Compression::NewLength { .. } => 7,
            Compression::NewDelta { .. } => 3,
            Compression::None => 0,
        }
    }
}

/// What goes into the header of a message.
struct Outgoing {
    csid: u32,
    type_id: u8,
    stream_id: u32,
    timestamp: u32,
    compression: Compression,
}

impl Outgoing {
    /// Appends the first chunk's header.
    fn put_header(&self, length: u32, out: &mut Vec<u8>) {
        put_basic_header(self.compression.fmt(), self.csid, out);
        match self.compression {
            Compression::Full => {
                out.put_u24_be(self.timestamp.min(EXTENDED_TIMESTAMP));
                out.put_u24_be(length);
                out.push(self.type_id);
                out.extend_from_slice(&self.stream_id.to_le_bytes());
                self.put_extended(out);
            }
            Compression::NewLength { delta } => {
                out.put_u24_be(delta);
                out.put_u24_be(length);
                out.push(self.type_id);
            }
            Compression::NewDelta { delta } => out.put_u24_be(delta),
            Compression::None => {}
        }
    }

    /// Appends the extended timestamp where one is due.
    fn put_extended(&self, out: &mut Vec<u8>) {
        if self.extended_bytes() > 0 {
            out.put_u32_be(self.timestamp);
        }
    }

    /// Only full headers have one: no larger delta is ever written.
    const fn extended_bytes(&self) -> usize {
        match self.compression {
            Compression::Full if self.timestamp >= EXTENDED_TIMESTAMP => 4,
            _ => 0,
        }
    }
}

fn encode(message: &Outgoing, parts: &[&[u8]], chunk_size: u32) -> Bytes {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    if length > MESSAGE_BYTES_MAX {
        return Bytes::new();
    }
    let chunk_size = chunk_size.clamp(1, CHUNK_SIZE_MAX) as usize;
    let basic = basic_header_bytes(message.csid);
    let extended = message.extended_bytes();
    let continuations = length.div_ceil(chunk_size).saturating_sub(1);
    let mut out = Vec::with_capacity(
        basic
            + message.compression.header_bytes()
            + extended
            + length
            + continuations * (basic + extended),
    );
    message.put_header(length as u32, &mut out);
    let mut chunk_left = chunk_size;
    for part in parts {
        let mut part = *part;
        while !part.is_empty() {
            if chunk_left == 0 {
                put_basic_header(3, message.csid, &mut out);
                message.put_extended(&mut out);
                chunk_left = chunk_size;
            }
            let (piece, rest) = part.split_at(part.len().min(chunk_left));
            out.extend_from_slice(piece);
            chunk_left -= piece.len();
            part = rest;
        }
    }
    debug_assert_eq!(out.len(), out.capacity(), "the size was computed exactly");
    Bytes::from(out)
}

/// A full header: three bytes of chunk stream, eleven of message, four of timestamp.
const HEADER_BYTES_MAX: usize = 3 + 11 + 4;

/// The length of the basic header (RTMP 1.0 section 5.3.1.1).
fn basic_header_bytes(csid: u32) -> usize {
    match csid {
        2..=63 => 1,
        64..=319 => 2,
        320..=CSID_MAX => 3,
        _ => panic!("chunk stream ID {csid} is not in 2..={CSID_MAX}"),
    }
}

fn put_basic_header(fmt: u8, csid: u32, out: &mut Vec<u8>) {
    let fmt = fmt << 6;
    // The casts keep what the ranges allow.
    match csid {
        0..=63 => out.push(fmt | csid as u8),
        64..=319 => out.extend_from_slice(&[fmt, (csid - 64) as u8]),
        _ => {
            let [low, high, ..] = (csid - 64).to_le_bytes();
            out.extend_from_slice(&[fmt | 1, low, high]);
        }
    }
}

#[cfg(test)]
mod tests;

//! [`ChunkReader`]: a peer's bytes become [`Message`]s (RTMP 1.0 section 5.3).
//!
//! ```text
//!            header complete                chunk complete
//!  header ───────────────────▶ payload ─────────────────────▶ header
//!   ▲  │ cut by the input          │ message complete: returned
//!   └──┘                           └────────────────────────▶ header
//! ```
//!
//! Each chunk stream has its own timestamp, header fields and partial message, so
//! messages of different chunk streams may be cut into one another.

use bytes::Bytes;

use super::blocks::Blocks;
use super::header::{Extended, ExtendedHabit, Fields, Header, Held, Time};
use super::streams::ChunkStreams;
use super::{CHUNK_SIZE_MAX, ChunkError, DEFAULT_CHUNK_SIZE};
use crate::rtmp::message::{Message, type_id};
use crate::wire::{Reader, Truncated};

/// What a [`ChunkReader`] accepts and holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkLimits {
    /// Longest message, bytes. A header can say 16 777 215 at most.
    pub message_bytes_max: u32,
    /// Chunk streams that one peer may open. Real clients use fewer than ten.
    pub chunk_streams_max: u16,
    /// Memory for all partial messages of one connection, bytes. At least `message_bytes_max`,
    /// or the longest messages cannot come in pieces.
    pub partial_bytes_max: usize,
}

impl Default for ChunkLimits {
    fn default() -> Self {
        Self {
            message_bytes_max: 4 << 20,
            chunk_streams_max: 64,
            partial_bytes_max: 8 << 20,
        }
    }
}

/// Puts a peer's chunks together.
///
/// Lenient where real writers stray: a chunk stream may begin with fmt 1, a header
/// with fields may cut a message short, and fmt 3 may leave out the extended timestamp.
/// Memory follows the bytes received, never the lengths claimed.
#[derive(Debug)]
pub struct ChunkReader {
    limits: ChunkLimits,
    chunk_size: u32,
    /// The chunk whose payload comes next; `None`: a header comes next.
    chunk: Option<Chunk>,
    /// Bytes taken from the input before their meaning was known; they precede it.
    held: Held,
    streams: ChunkStreams,
    /// Capacity of all partial messages.
    partial_bytes: usize,
    /// Where the last message that came in pieces was put together; empty, for the next one.
    spare: Vec<u8>,
    blocks: Blocks,
    habit: ExtendedHabit,
}

impl ChunkReader {
    /// A reader with a chunk size of 128 bytes.
    pub fn new(limits: ChunkLimits) -> Self {
        Self {
            limits,
            chunk_size: DEFAULT_CHUNK_SIZE,
            chunk: None,
            held: Held::default(),
            streams: ChunkStreams::default(),
            partial_bytes: 0,
            spare: Vec::new(),
            blocks: Blocks::default(),
            habit: ExtendedHabit::Unknown,
        }
    }

    /// Consumes from `input` up to the end of the next message. `None`: the input is used up;
    /// call until then.
    ///
    /// Set Chunk Size and Abort take effect here, on whatever chunk stream they come; they are
    /// returned all the same.
    ///
    /// # Errors
    /// Any [`ChunkError`]: the connection is out of step, nothing after it can be read.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<Message>, ChunkError> {
        loop {
            let chunk = match self.chunk.take() {
                Some(chunk) => chunk,
                None => match self.read_header(input)? {
                    Some(chunk) => chunk,
                    None => return Ok(None),
                },
            };
            match self.read_payload(chunk, input)? {
                Progress::Message(message) => {
                    self.on_message(&message)?;
                    return Ok(Some(message));
                }
                Progress::ChunkEnd => {}
                Progress::InputEnd => return Ok(None),
            }
        }
    }

    /// The peer's chunk size in effect, bytes.
    pub fn chunk_size(&self) -> u32 {
        self.chunk_size
    }

    /// Memory that partial messages hold now, bytes.
    pub fn partial_bytes(&self) -> usize {
        self.partial_bytes
    }

    /// A message of `length` bytes was of no use to anybody: whoever sends many such is not
    /// given memory that several messages share.
    pub fn note_dropped(&mut self, length: usize) {
        self.blocks.note_dropped(length);
    }

    /// Reads a chunk header; `None` holds its first bytes until the next input.
    fn read_header(&mut self, input: &mut &[u8]) -> Result<Option<Chunk>, ChunkError> {
        let header = if self.held.is_empty() {
            let mut reader = Reader::new(input);
            match Header::decode(&mut reader, &self.streams, self.habit) {
                Ok(header) => {
                    *input = reader.rest();
                    header
                }
                Err(Truncated) => {
                    self.held.fill(input);
                    return Ok(None);
                }
            }
        } else {
            let mut rest = *input;
            let mut held = self.held;
            held.fill(&mut rest);
            let mut reader = Reader::new(held.as_slice());
            match Header::decode(&mut reader, &self.streams, self.habit) {
                Ok(header) => {
                    let used = held.len() - reader.len();
                    let used_of_input = used.saturating_sub(self.held.len());
                    *input = input.get(used_of_input..).unwrap_or_default();
                    self.held.skip(used);
                    header
                }
                Err(Truncated) => {
                    self.held = held;
                    *input = rest;
                    return Ok(None);
                }
            }
        };
        self.begin_chunk(header).map(Some)
    }

    /// Applies a header to its chunk stream: the message it begins or continues.
    fn begin_chunk(&mut self, header: Header) -> Result<Chunk, ChunkError> {
        let Header { csid, fmt, fields } = header;
        let index = match self.streams.find(csid) {
            Some(index) => index,
            // librtmp answers pings by opening chunk stream 2 with fmt 1, and ffmpeg its
            // SetBufferLength: time then counts from 0. Less than that says too little.
            None if fmt >= 2 => return Err(ChunkError::HeaderWithoutMessage { csid, fmt }),
            None => self.streams.open(csid, self.limits.chunk_streams_max)?,
        };
        let stream = self.streams.get_mut(index);
        let continues = matches!(fields, Fields::None { .. }) && stream.partial.is_some();
        match fields {
            Fields::Full {
                timestamp,
                length,
                type_id,
                stream_id,
            } => {
                stream.timestamp = timestamp.value;
                // What a fmt 3 message right after adds: the timestamp itself (5.3.1.2.4).
                stream.delta = timestamp.value;
                stream.extended = timestamp.extended();
                stream.length = length;
                stream.type_id = type_id;
                stream.stream_id = stream_id;
            }
            Fields::NewLength {
                delta,
                length,
                type_id,
            } => {
                stream.advance(delta);
                stream.length = length;
                stream.type_id = type_id;
            }
            Fields::NewDelta { delta } => stream.advance(delta),
            Fields::None { extended } => {
                if continues {
                    match extended {
                        Extended::Absent => {}
                        Extended::Repeated(_) => self.habit = ExtendedHabit::Repeats,
                        Extended::Omitted => self.habit = ExtendedHabit::Omits,
                    }
                } else {
                    match extended {
                        Extended::Absent => {
                            stream.timestamp = stream.timestamp.wrapping_add(stream.delta);
                        }
                        Extended::Repeated(value) => stream.advance(Time {
                            value,
                            is_extended: true,
                        }),
                        // The writers that leave the field out use fmt 3 for a message of
                        // the same time (librtmp, RTMP_SendPacket).
                        Extended::Omitted => {}
                    }
                }
            }
        }
        if !continues {
            if stream.length > self.limits.message_bytes_max {
                return Err(ChunkError::MessageTooLong {
                    csid,
                    length: stream.length,
                    max: self.limits.message_bytes_max,
                });
            }
            // A message that was cut short by this header is given up.
            let old = stream.partial.replace(Vec::new());
            self.partial_bytes -= old.map_or(0, |partial| partial.capacity());
        }
        let received = stream.partial.as_ref().map_or(0, Vec::len);
        let missing = (stream.length as usize).saturating_sub(received);
        Ok(Chunk {
            stream: index,
            left: missing.min(self.chunk_size as usize),
        })
    }

    /// Moves payload of `chunk` into its message.
    fn read_payload(
        &mut self,
        mut chunk: Chunk,
        input: &mut &[u8],
    ) -> Result<Progress, ChunkError> {
        let index = chunk.stream;
        if !self.held.is_empty() && chunk.left > 0 {
            let held = self.held;
            let piece = held.as_slice();
            let piece = piece.get(..chunk.left).unwrap_or(piece);
            self.held.skip(piece.len());
            chunk.left -= piece.len();
            self.append(index, piece, input.len())?;
        }
        let piece = input.get(..chunk.left).unwrap_or(input);
        let stream = self.streams.get_mut(index);
        if stream.partial.as_ref().is_some_and(Vec::is_empty)
            && piece.len() == stream.length as usize
        {
            // The whole message lies in the input: one copy.
            stream.partial = None;
            *input = input.get(piece.len()..).unwrap_or_default();
            let payload = if self
                .blocks
                .takes(stream.type_id, stream.stream_id, piece.len())
            {
                self.blocks.lay(stream.stream_id, piece)
            } else {
                Bytes::copy_from_slice(piece)
            };
            return Ok(Progress::Message(stream.message(payload)));
        }
        let ahead = input.len();
        *input = input.get(piece.len()..).unwrap_or_default();
        chunk.left -= piece.len();
        self.append(index, piece, ahead)?;
        if chunk.left > 0 {
            self.chunk = Some(chunk);
            return Ok(Progress::InputEnd);
        }
        let stream = self.streams.get_mut(index);
        let length = stream.length as usize;
        match stream.partial.take_if(|partial| partial.len() >= length) {
            Some(mut whole) => {
                self.partial_bytes -= whole.capacity();
                if !self.blocks.takes(stream.type_id, stream.stream_id, length) {
                    return Ok(Progress::Message(stream.message(Bytes::from(whole))));
                }
                let payload = self.blocks.lay(stream.stream_id, &whole);
                // Copying out of memory that was just written costs less than
                // allocating and freeing some.
                whole.clear();
                if whole.capacity() <= SPARE_BYTES_MAX {
                    self.spare = whole;
                }
                Ok(Progress::Message(stream.message(payload)))
            }
            None => Ok(Progress::ChunkEnd),
        }
    }

    /// Appends `piece` to a partial message. `ahead` is how many bytes of input are at hand: as
    /// much may be reserved at once, as it is likely to be the rest of the message.
    fn append(&mut self, index: u16, piece: &[u8], ahead: usize) -> Result<(), ChunkError> {
        let stream = self.streams.get_mut(index);
        let length = stream.length as usize;
        let partial = stream.partial.get_or_insert_default();
        if piece.is_empty() {
            return Ok(());
        }
        if partial.capacity() == 0 && self.spare.capacity() >= piece.len() {
            *partial = std::mem::take(&mut self.spare);
            self.partial_bytes += partial.capacity();
        }
        let needed = partial.len() + piece.len();
        let capacity = partial.capacity();
        if needed > capacity {
            let target = (2 * capacity)
                .max(partial.len() + ahead)
                .max(PARTIAL_BYTES_MIN)
                .min(length)
                .max(needed);
            let held = self.partial_bytes - capacity + target;
            if held > self.limits.partial_bytes_max {
                return Err(ChunkError::PartialBytesExceeded {
                    held,
                    max: self.limits.partial_bytes_max,
                });
            }
            partial.reserve_exact(target - partial.len());
            self.partial_bytes = self.partial_bytes - capacity + partial.capacity();
        }
        partial.extend_from_slice(piece);
        Ok(())
    }

    /// Lets Set Chunk Size and Abort take effect (RTMP 1.0 sections 5.4.1 and 5.4.2).
    fn on_message(&mut self, message: &Message) -> Result<(), ChunkError> {
        if !matches!(message.type_id, type_id::SET_CHUNK_SIZE | type_id::ABORT) {
            return Ok(());
        }
        let value = Reader::new(&message.payload).u32().map_err(|Truncated| {
            ChunkError::ControlTooShort {
                type_id: message.type_id,
                length: message.payload.len(),
            }
        })?;
        if message.type_id == type_id::SET_CHUNK_SIZE {
            if !(1..=CHUNK_SIZE_MAX).contains(&value) {
                return Err(ChunkError::ChunkSizeInvalid { value });
            }
            self.chunk_size = value;
        } else if let Some(index) = self.streams.find(value) {
            let aborted = self.streams.get_mut(index).partial.take();
            self.partial_bytes -= aborted.map_or(0, |partial| partial.capacity());
        }
        Ok(())
    }
}

/// Where [`ChunkReader::read_payload`] came to.
enum Progress {
    Message(Message),
    ChunkEnd,
    InputEnd,
}

/// A chunk whose header was read.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    /// Index into [`ChunkStreams`].
    stream: u16,
    /// Payload bytes still to come.
    left: usize,
}

/// The least that a partial message reserves, unless it is shorter: spares the first doublings.
const PARTIAL_BYTES_MIN: usize = 256;

/// The largest memory that is kept for the next message in pieces: what a message that goes into a
/// block can have grown to.
const SPARE_BYTES_MAX: usize = 16 << 10;

#[cfg(test)]
mod tests;

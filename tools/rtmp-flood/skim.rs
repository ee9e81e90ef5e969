//! [`Skimmer`]: reads a chunk stream (RTMP 1.0 section 5.3) without keeping the media.
//!
//! Of an audio or video message only the first and last bytes are looked at; what lies between
//! is passed over. All other messages are put together whole. So a player costs what
//! its system calls cost, and thousands fit on a core.

use bytes::Bytes;

use rtmp_gateway::rtmp::message::{Message, type_id};

use crate::stamp::Tail;

/// The first bytes of a message that are kept: an FLV tag header of at most eight and the
/// beginning of the first NAL unit.
pub const HEAD_BYTES: usize = 16;

/// What a server may not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkimError {
    /// A header that says too little on a chunk stream that has had none.
    HeaderWithoutMessage,
    /// More chunk streams than any server uses.
    TooManyChunkStreams,
    /// A message other than media that is longer than makes sense.
    MessageTooLong,
    /// A Set Chunk Size of 0 or too short.
    ChunkSize,
}

impl SkimError {
    /// A short name for counters.
    pub fn reason(self) -> &'static str {
        match self {
            SkimError::HeaderWithoutMessage => "chunk_header_without_message",
            SkimError::TooManyChunkStreams => "chunk_too_many_streams",
            SkimError::MessageTooLong => "chunk_message_too_long",
            SkimError::ChunkSize => "chunk_size_invalid",
        }
    }
}

/// A message that came.
#[derive(Debug)]
pub enum Skimmed<'a> {
    /// Audio or video.
    Media(Media<'a>),
    /// Anything else, whole.
    Message(Message),
}

/// What is known of an audio or video message.
#[derive(Debug)]
pub struct Media<'a> {
    /// 8 or 9.
    pub type_id: u8,
    /// Milliseconds.
    pub timestamp: u32,
    /// Of the whole message.
    pub bytes: u32,
    /// Its first bytes, at most [`HEAD_BYTES`].
    pub head: &'a [u8],
    /// Its last bytes.
    pub tail: &'a Tail,
}

/// Reads one server's chunks, cut anywhere.
#[derive(Debug)]
pub struct Skimmer {
    chunk_size: u32,
    /// The chunk that is being read: index of its stream and bytes still to come.
    chunk: Option<(usize, u32)>,
    /// A header that the input cut.
    held: [u8; HEADER_BYTES_MAX],
    held_len: usize,
    streams: Vec<ChunkStream>,
}

/// A chunk header: how many bytes it has, and the chunk it announces.
struct Header {
    length: usize,
    chunk: (usize, u32),
}

#[derive(Debug, Default)]
struct ChunkStream {
    csid: u32,
    timestamp: u32,
    delta: u32,
    has_extended: bool,
    length: u32,
    type_id: u8,
    stream_id: u32,
    /// Bytes of the message so far; `None` between messages.
    received: Option<u32>,
    head: [u8; HEAD_BYTES],
    tail: Tail,
    /// The message, unless it is media.
    whole: Vec<u8>,
}

impl Skimmer {
    /// A reader with a chunk size of 128 bytes.
    pub fn new() -> Self {
        Self {
            chunk_size: 128,
            chunk: None,
            held: [0; HEADER_BYTES_MAX],
            held_len: 0,
            streams: Vec::new(),
        }
    }

    /// Consumes from `input` up to the end of the next message; `None` when it is used up.
    ///
    /// # Errors
    /// The stream is out of step then.
    pub fn read<'a>(&'a mut self, input: &mut &[u8]) -> Result<Option<Skimmed<'a>>, SkimError> {
        let index = loop {
            let (index, left) = match self.chunk {
                Some(chunk) => chunk,
                None => match self.read_header(input)? {
                    Some(chunk) => chunk,
                    None => return Ok(None),
                },
            };
            let piece = &input[..input.len().min(left as usize)];
            *input = &input[piece.len()..];
            let stream = &mut self.streams[index];
            let received = stream.append(piece);
            let left = left - piece.len() as u32;
            if left > 0 {
                self.chunk = Some((index, left));
                return Ok(None);
            }
            self.chunk = None;
            if received >= stream.length {
                break index;
            }
        };
        let stream = &mut self.streams[index];
        stream.received = None;
        if !stream.is_media() {
            let message = stream.take_message();
            if message.type_id == type_id::SET_CHUNK_SIZE {
                let size = message
                    .payload
                    .first_chunk()
                    .map(|b| u32::from_be_bytes(*b));
                let size = size.filter(|size| (1..=0x7fff_ffff).contains(size));
                self.chunk_size = size.ok_or(SkimError::ChunkSize)?;
            }
            return Ok(Some(Skimmed::Message(message)));
        }
        let stream = &self.streams[index];
        Ok(Some(Skimmed::Media(Media {
            type_id: stream.type_id,
            timestamp: stream.timestamp,
            bytes: stream.length,
            head: &stream.head[..HEAD_BYTES.min(stream.length as usize)],
            tail: &stream.tail,
        })))
    }

    /// Reads a chunk header. One that the input cuts is kept and read again from its start.
    fn read_header(&mut self, input: &mut &[u8]) -> Result<Option<(usize, u32)>, SkimError> {
        if self.held_len == 0 {
            return match self.header(input)? {
                Some(Header { length, chunk }) => {
                    *input = &input[length..];
                    Ok(Some(chunk))
                }
                None => {
                    self.held[..input.len()].copy_from_slice(input);
                    self.held_len = input.len();
                    *input = &[];
                    Ok(None)
                }
            };
        }
        let (held, held_len) = (self.held, self.held_len);
        let more = input.len().min(HEADER_BYTES_MAX - held_len);
        let mut bytes = held;
        bytes[held_len..held_len + more].copy_from_slice(&input[..more]);
        match self.header(&bytes[..held_len + more])? {
            Some(Header { length, chunk }) => {
                // What was held was too short for a header, so it is used up.
                *input = &input[length - held_len..];
                self.held_len = 0;
                Ok(Some(chunk))
            }
            None => {
                self.held = bytes;
                self.held_len += more;
                *input = &input[more..];
                Ok(None)
            }
        }
    }

    /// The header that `bytes` begin with: its length and the chunk it announces.
    fn header(&mut self, bytes: &[u8]) -> Result<Option<Header>, SkimError> {
        let Some((csid, basic)) = basic_header(bytes) else {
            return Ok(None);
        };
        let fmt = bytes[0] >> 6;
        let message_bytes = [11, 7, 3, 0][usize::from(fmt)];
        let Some(fields) = bytes.get(basic..basic + message_bytes) else {
            return Ok(None);
        };
        let mut length = basic + message_bytes;
        let index = self.streams.iter().position(|stream| stream.csid == csid);
        let time = fields.first_chunk().map(|[a, b, c]| u24(*a, *b, *c));
        let known = index.map(|index| &self.streams[index]);
        let has_extended = match time {
            Some(time) => time == EXTENDED,
            None => known.is_some_and(|stream| stream.has_extended),
        };
        let mut extended = 0;
        if has_extended {
            let Some(four) = bytes.get(length..).and_then(|rest| rest.first_chunk()) else {
                return Ok(None);
            };
            // Every server we know repeats it on fmt 3.
            extended = u32::from_be_bytes(*four);
            length += 4;
        }
        let index = match index {
            Some(index) => index,
            None if fmt >= 2 => return Err(SkimError::HeaderWithoutMessage),
            None if self.streams.len() == CHUNK_STREAMS_MAX => {
                return Err(SkimError::TooManyChunkStreams);
            }
            None => {
                self.streams.push(ChunkStream {
                    csid,
                    ..ChunkStream::default()
                });
                self.streams.len() - 1
            }
        };
        let stream = &mut self.streams[index];
        let continues = fmt == 3 && stream.received.is_some();
        if let Some(time) = time {
            let time = if has_extended { extended } else { time };
            stream.has_extended = has_extended;
            stream.delta = time;
            stream.timestamp = match fmt {
                0 => time,
                _ => stream.timestamp.wrapping_add(time),
            };
            if let [_, _, _, a, b, c, type_id, rest @ ..] = fields {
                stream.length = u24(*a, *b, *c);
                stream.type_id = *type_id;
                if let Some(id) = rest.first_chunk() {
                    stream.stream_id = u32::from_le_bytes(*id);
                }
            }
        } else if !continues {
            stream.timestamp = stream.timestamp.wrapping_add(stream.delta);
        }
        if !continues {
            if !stream.is_media() && stream.length > MESSAGE_BYTES_MAX {
                return Err(SkimError::MessageTooLong);
            }
            stream.received = Some(0);
            stream.whole.clear();
        }
        let missing = stream.length - stream.received.unwrap_or(0).min(stream.length);
        Ok(Some(Header {
            length,
            chunk: (index, missing.min(self.chunk_size)),
        }))
    }
}

impl ChunkStream {
    fn is_media(&self) -> bool {
        matches!(self.type_id, type_id::AUDIO | type_id::VIDEO)
    }

    /// Takes a piece of the message and answers how much of it there is now.
    fn append(&mut self, piece: &[u8]) -> u32 {
        let before = self.received.unwrap_or(0);
        let after = before + piece.len() as u32;
        if !self.is_media() {
            self.whole.extend_from_slice(piece);
        } else {
            if let Some(room) = self.head.get_mut(before as usize..) {
                let count = room.len().min(piece.len());
                room[..count].copy_from_slice(&piece[..count]);
            }
            self.tail.push(piece);
        }
        self.received = Some(after);
        after
    }

    fn take_message(&mut self) -> Message {
        Message {
            csid: self.csid,
            timestamp: self.timestamp,
            type_id: self.type_id,
            stream_id: self.stream_id,
            payload: Bytes::from(std::mem::take(&mut self.whole)),
        }
    }
}

/// The chunk stream ID and how many bytes it takes.
fn basic_header(bytes: &[u8]) -> Option<(u32, usize)> {
    let first = *bytes.first()?;
    match first & 0x3f {
        0 => Some((64 + u32::from(*bytes.get(1)?), 2)),
        1 => {
            let id = 64 + u32::from(*bytes.get(1)?) + 256 * u32::from(*bytes.get(2)?);
            Some((id, 3))
        }
        id => Some((u32::from(id), 1)),
    }
}

fn u24(a: u8, b: u8, c: u8) -> u32 {
    u32::from_be_bytes([0, a, b, c])
}

/// Three bytes of basic header, eleven of message header, four of extended timestamp.
const HEADER_BYTES_MAX: usize = 18;
/// A time field of this value says that four more bytes hold it.
const EXTENDED: u32 = 0xff_ffff;
/// Servers use three to six.
const CHUNK_STREAMS_MAX: usize = 64;
/// Longest message that is put together: commands and metadata have some hundred bytes.
const MESSAGE_BYTES_MAX: u32 = 1 << 20;

#[cfg(test)]
mod tests {
    use rtmp_gateway::rtmp::chunk::{ChunkLimits, ChunkReader, encode_shared};

    use super::*;
    use crate::stamp::Stamp;

    const STAMP: Stamp = Stamp {
        publisher: 1,
        number: 2,
        sent_us: 3,
        slice_bytes: 500,
    };

    /// Commands and media cut to `chunk_size`, some of it with long timestamps.
    fn wire(chunk_size: u32) -> Vec<u8> {
        let picture = [&[0x17; 400][..], &STAMP.encode()].concat();
        let size = chunk_size.to_be_bytes();
        let mut wire = encode_shared(2, 0, type_id::SET_CHUNK_SIZE, 0, &[&size], 128).to_vec();
        for (csid, timestamp, kind, payload) in [
            (3, 0, type_id::COMMAND_AMF0, &b"a command"[..]),
            (6, 40, type_id::VIDEO, &picture),
            (70, 41, type_id::AUDIO, b"sound"),
            (6, 0x0100_0000, type_id::VIDEO, &picture),
            (400, 42, type_id::DATA_AMF0, &[7; 300]),
        ] {
            wire.extend(encode_shared(
                csid,
                timestamp,
                kind,
                1,
                &[payload],
                chunk_size,
            ));
        }
        wire
    }

    #[test]
    fn it_reads_what_the_librarys_reader_reads_however_it_is_cut() {
        for (chunk_size, step) in [(128, 1), (128, 7), (33, 100), (4_096, 64), (60_000, 10_000)] {
            let wire = wire(chunk_size);
            let mut reader = ChunkReader::new(ChunkLimits::default());
            let mut rest = &wire[..];
            let mut expected = Vec::new();
            while let Some(message) = reader.read(&mut rest).expect("good chunks") {
                expected.push(message);
            }
            let mut expected = expected.into_iter();
            let mut skimmer = Skimmer::new();
            for mut piece in wire.chunks(step) {
                while let Some(skimmed) = skimmer.read(&mut piece).expect("good chunks") {
                    let message = expected.next().expect("no more than there were");
                    match skimmed {
                        Skimmed::Message(skimmed) => assert_eq!(skimmed, message),
                        Skimmed::Media(media) => {
                            assert_eq!(media.type_id, message.type_id);
                            assert_eq!(media.timestamp, message.timestamp);
                            assert_eq!(media.bytes as usize, message.payload.len());
                            assert!(message.payload.starts_with(media.head));
                            assert_eq!(media.tail.stamp(), Stamp::decode(&message.payload));
                        }
                    }
                }
                assert!(piece.is_empty());
            }
            assert_eq!(
                expected.next(),
                None,
                "chunks of {chunk_size}, cut at {step}"
            );
        }
    }

    #[test]
    fn compressed_headers_are_understood() {
        let wire = [
            // fmt 0 at 10 ms, fmt 1 and 2 with a delta of 5, fmt 3 with the same again.
            &[0x06, 0, 0, 10, 0, 0, 1, 9, 1, 0, 0, 0, 0xaa][..],
            &[0x46, 0, 0, 5, 0, 0, 2, 9, 0xaa, 0xbb],
            &[0x86, 0, 0, 5, 0xaa, 0xbb],
            &[0xc6, 0xaa, 0xbb],
        ]
        .concat();
        let mut skimmer = Skimmer::new();
        let mut input = &wire[..];
        let mut times = Vec::new();
        while let Some(Skimmed::Media(media)) = skimmer.read(&mut input).expect("good chunks") {
            times.push((media.timestamp, media.bytes));
        }
        assert_eq!(times, [(10, 1), (15, 2), (20, 2), (25, 2)]);
    }

    #[test]
    fn what_is_out_of_step_is_an_error() {
        for (wire, error) in [
            (&[0x86, 0, 0, 5][..], SkimError::HeaderWithoutMessage),
            (
                &[0x03, 0, 0, 0, 0xff, 0, 0, 20, 0, 0, 0, 0],
                SkimError::MessageTooLong,
            ),
            (
                &[0x02, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0],
                SkimError::ChunkSize,
            ),
        ] {
            let mut input = wire;
            let outcome = Skimmer::new().read(&mut input).map(|_| ());
            assert_eq!(outcome, Err(error));
        }
    }
}

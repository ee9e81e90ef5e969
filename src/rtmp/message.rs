//! RTMP messages, the protocol control messages and the aggregate (RTMP 1.0 sections
//! 5.4 and 7.1).

use std::fmt;

use bytes::Bytes;

use crate::wire::{Reader, Truncated, WriteExt};

/// Message type IDs (RTMP 1.0 sections 5.4 and 7.1).
pub mod type_id {
    /// Set Chunk Size (5.4.1).
    pub const SET_CHUNK_SIZE: u8 = 1;
    /// Abort Message (5.4.2).
    pub const ABORT: u8 = 2;
    /// Acknowledgement (5.4.3).
    pub const ACKNOWLEDGEMENT: u8 = 3;
    /// User Control Message (6.2).
    pub const USER_CONTROL: u8 = 4;
    /// Window Acknowledgement Size (5.4.4).
    pub const WINDOW_ACK_SIZE: u8 = 5;
    /// Set Peer Bandwidth (5.4.5).
    pub const SET_PEER_BANDWIDTH: u8 = 6;
    /// Audio (7.1.4).
    pub const AUDIO: u8 = 8;
    /// Video (7.1.5).
    pub const VIDEO: u8 = 9;
    /// Data with a leading format byte (7.1.2).
    pub const DATA_AMF3: u8 = 15;
    /// Shared object with a leading format byte (7.1.3).
    pub const SHARED_OBJECT_AMF3: u8 = 16;
    /// Command with a leading format byte (7.1.1).
    pub const COMMAND_AMF3: u8 = 17;
    /// Data in AMF0 (7.1.2).
    pub const DATA_AMF0: u8 = 18;
    /// Shared object in AMF0 (7.1.3).
    pub const SHARED_OBJECT_AMF0: u8 = 19;
    /// Command in AMF0 (7.1.1).
    pub const COMMAND_AMF0: u8 = 20;
    /// Aggregate (7.1.6).
    pub const AGGREGATE: u8 = 22;
}

/// The chunk stream of protocol control messages (RTMP 1.0 section 5.4).
pub const CONTROL_CSID: u32 = 2;

/// One whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The chunk stream it came or goes on: 2..=65599.
    pub csid: u32,
    /// Milliseconds, wrapping at 2^32.
    pub timestamp: u32,
    /// See [`type_id`].
    pub type_id: u8,
    /// Message stream ID; 0 is the NetConnection.
    pub stream_id: u32,
    /// The body, at most 16 777 215 bytes.
    pub payload: Bytes,
}

impl Message {
    /// The AMF0 values of a data, shared object or command message; `None` for other types.
    ///
    /// Types 15, 16 and 17 begin with a format byte 0, which is left out. Where it is
    /// missing the values begin at once: no value that can come first is a number, so
    /// a leading 0 is never one.
    pub fn amf0_body(&self) -> Option<&[u8]> {
        match self.type_id {
            type_id::DATA_AMF0 | type_id::SHARED_OBJECT_AMF0 | type_id::COMMAND_AMF0 => {
                Some(&self.payload)
            }
            type_id::DATA_AMF3 | type_id::SHARED_OBJECT_AMF3 | type_id::COMMAND_AMF3 => {
                Some(self.payload.strip_prefix(&[0]).unwrap_or(&self.payload))
            }
            _ => None,
        }
    }

    /// The messages inside an aggregate (type 22), sharing its payload.
    pub fn aggregate(&self) -> Aggregate {
        Aggregate {
            csid: self.csid,
            timestamp: self.timestamp,
            stream_id: self.stream_id,
            rest: self.payload.clone(),
            first_timestamp: None,
            count: 0,
        }
    }
}

/// How Set Peer Bandwidth is to be taken (RTMP 1.0 section 5.4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BandwidthLimit {
    /// 0: limit output to the window.
    Hard,
    /// 1: the smaller of this and the limit in effect.
    Soft,
    /// 2: hard if the last one was hard, else ignored. Unknown values are read as this, the
    /// one that asks for least.
    Dynamic,
}

/// A protocol control message: types 1 to 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Type 1, bytes: 1..=0x7fff_ffff. [`ChunkReader`](super::chunk::ChunkReader) refuses others.
    SetChunkSize(u32),
    /// Type 2: drop the partial message of this chunk stream.
    Abort {
        /// The chunk stream.
        csid: u32,
    },
    /// Type 3: total bytes received, wrapping at 2^32.
    Acknowledgement(u32),
    /// Type 4.
    User(UserControl),
    /// Type 5: bytes between two acknowledgements.
    WindowAckSize(u32),
    /// Type 6.
    SetPeerBandwidth {
        /// Bytes that may be unacknowledged.
        window: u32,
        /// How to take it.
        limit: BandwidthLimit,
    },
}

/// A user control event (RTMP 1.0 section 7.1.7). The plain number is a message
/// stream ID where nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserControl {
    /// 0: the stream can be used.
    StreamBegin(u32),
    /// 1: playback is over.
    StreamEof(u32),
    /// 2: no more data for the moment.
    StreamDry(u32),
    /// 3: the client's buffer.
    SetBufferLength {
        /// Message stream ID.
        stream_id: u32,
        /// Milliseconds.
        millis: u32,
    },
    /// 4: the stream is a recording.
    StreamIsRecorded(u32),
    /// 6: the sender's clock in milliseconds.
    PingRequest(u32),
    /// 7: the request's four bytes.
    PingResponse(u32),
    /// Any other event type, to be ignored: 26 and 27 are SWF verification, 31 and 32
    /// buffer events of FMS.
    Other(u16),
}

impl Control {
    /// Reads a control message; `None` for a message of another type. Bytes after the
    /// fields are ignored.
    ///
    /// # Errors
    /// [`MessageError::ControlTooShort`].
    pub fn decode(message: &Message) -> Result<Option<Self>, MessageError> {
        Self::decode_body(message.type_id, &message.payload).map_err(|Truncated| {
            MessageError::ControlTooShort {
                type_id: message.type_id,
                length: message.payload.len(),
            }
        })
    }

    fn decode_body(type_id: u8, body: &[u8]) -> Result<Option<Self>, Truncated> {
        let mut body = Reader::new(body);
        Ok(Some(match type_id {
            type_id::SET_CHUNK_SIZE => Control::SetChunkSize(body.u32()?),
            type_id::ABORT => Control::Abort { csid: body.u32()? },
            type_id::ACKNOWLEDGEMENT => Control::Acknowledgement(body.u32()?),
            type_id::USER_CONTROL => Control::User(UserControl::decode(&mut body)?),
            type_id::WINDOW_ACK_SIZE => Control::WindowAckSize(body.u32()?),
            type_id::SET_PEER_BANDWIDTH => Control::SetPeerBandwidth {
                window: body.u32()?,
                limit: match body.u8()? {
                    0 => BandwidthLimit::Hard,
                    1 => BandwidthLimit::Soft,
                    _ => BandwidthLimit::Dynamic,
                },
            },
            _ => return Ok(None),
        }))
    }

    /// The message that says this: chunk stream 2, message stream 0, timestamp 0
    /// (RTMP 1.0 section 5.4).
    pub fn to_message(self) -> Message {
        let mut payload = Vec::with_capacity(CONTROL_BYTES_MAX);
        let type_id = match self {
            Control::SetChunkSize(bytes) => {
                payload.put_u32_be(bytes);
                type_id::SET_CHUNK_SIZE
            }
            Control::Abort { csid } => {
                payload.put_u32_be(csid);
                type_id::ABORT
            }
            Control::Acknowledgement(sequence) => {
                payload.put_u32_be(sequence);
                type_id::ACKNOWLEDGEMENT
            }
            Control::User(event) => {
                event.encode(&mut payload);
                type_id::USER_CONTROL
            }
            Control::WindowAckSize(bytes) => {
                payload.put_u32_be(bytes);
                type_id::WINDOW_ACK_SIZE
            }
            Control::SetPeerBandwidth { window, limit } => {
                payload.put_u32_be(window);
                payload.push(match limit {
                    BandwidthLimit::Hard => 0,
                    BandwidthLimit::Soft => 1,
                    BandwidthLimit::Dynamic => 2,
                });
                type_id::SET_PEER_BANDWIDTH
            }
        };
        Message {
            csid: CONTROL_CSID,
            timestamp: 0,
            type_id,
            stream_id: 0,
            payload: Bytes::from(payload),
        }
    }
}

impl UserControl {
    fn decode(body: &mut Reader<'_>) -> Result<Self, Truncated> {
        Ok(match body.u16()? {
            0 => UserControl::StreamBegin(body.u32()?),
            1 => UserControl::StreamEof(body.u32()?),
            2 => UserControl::StreamDry(body.u32()?),
            3 => UserControl::SetBufferLength {
                stream_id: body.u32()?,
                millis: body.u32()?,
            },
            4 => UserControl::StreamIsRecorded(body.u32()?),
            6 => UserControl::PingRequest(body.u32()?),
            7 => UserControl::PingResponse(body.u32()?),
            event => UserControl::Other(event),
        })
    }

    fn encode(self, out: &mut Vec<u8>) {
        let (event, value) = match self {
            UserControl::StreamBegin(stream_id) => (0, Some(stream_id)),
            UserControl::StreamEof(stream_id) => (1, Some(stream_id)),
            UserControl::StreamDry(stream_id) => (2, Some(stream_id)),
            UserControl::SetBufferLength { stream_id, .. } => (3, Some(stream_id)),
            UserControl::StreamIsRecorded(stream_id) => (4, Some(stream_id)),
            UserControl::PingRequest(timestamp) => (6, Some(timestamp)),
            UserControl::PingResponse(timestamp) => (7, Some(timestamp)),
            UserControl::Other(event) => (event, None),
        };
        out.put_u16_be(event);
        if let Some(value) = value {
            out.put_u32_be(value);
        }
        if let UserControl::SetBufferLength { millis, .. } = self {
            out.put_u32_be(millis);
        }
    }
}

/// The messages of an aggregate, in order; see [`Message::aggregate`].
///
/// They take the aggregate's message stream, and its timestamp plus their distance from
/// the first of them (RTMP 1.0 section 7.1.6). After an error there are no more.
#[derive(Clone, Debug)]
pub struct Aggregate {
    csid: u32,
    timestamp: u32,
    stream_id: u32,
    rest: Bytes,
    first_timestamp: Option<u32>,
    count: usize,
}

impl Aggregate {
    /// Reads one message in the form of an FLV tag: type, length (3), timestamp (3 and the high
    /// byte), stream ID (3), data, back pointer (4).
    fn read(&mut self) -> Result<Message, MessageError> {
        if self.count == AGGREGATE_MESSAGES_MAX {
            return Err(MessageError::AggregateTooLong {
                max: AGGREGATE_MESSAGES_MAX,
            });
        }
        self.count += 1;
        let truncated = |Truncated| MessageError::AggregateTruncated { index: self.count };
        let mut header = Reader::new(&self.rest);
        let type_id = header.u8().map_err(truncated)?;
        let length = header.u24().map_err(truncated)? as usize;
        let low = header.u24().map_err(truncated)?;
        let timestamp = low | u32::from(header.u8().map_err(truncated)?) << 24;
        header.take(3).map_err(truncated)?;
        if header.len() < length {
            return Err(truncated(Truncated));
        }
        if type_id == type_id::AGGREGATE {
            return Err(MessageError::AggregateNested { index: self.count });
        }
        let _header = self.rest.split_to(self.rest.len() - header.len());
        let payload = self.rest.split_to(length);
        // The last back pointer may be missing; what it says does not matter.
        let _back_pointer = self.rest.split_to(self.rest.len().min(4));
        let first = *self.first_timestamp.get_or_insert(timestamp);
        Ok(Message {
            csid: self.csid,
            timestamp: self.timestamp.wrapping_add(timestamp.wrapping_sub(first)),
            type_id,
            stream_id: self.stream_id,
            payload,
        })
    }
}

impl Iterator for Aggregate {
    type Item = Result<Message, MessageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let message = self.read();
        if message.is_err() {
            self.rest = Bytes::new();
        }
        Some(message)
    }
}

/// Why a message could not be read. The chunk stream is in step all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageError {
    // The peer broke a rule.
    /// A control message is shorter than its fields.
    ControlTooShort {
        /// Message type, 1..=6.
        type_id: u8,
        /// Payload bytes.
        length: usize,
    },
    /// An aggregate ends inside a message.
    AggregateTruncated {
        /// Which one, from 1.
        index: usize,
    },
    /// An aggregate inside an aggregate.
    AggregateNested {
        /// Which one, from 1.
        index: usize,
    },
    // A limit was reached.
    /// More messages in an aggregate than are accepted.
    AggregateTooLong {
        /// The limit.
        max: usize,
    },
}

impl MessageError {
    /// A short name for counters.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::ControlTooShort { .. } => "control_too_short",
            Self::AggregateTruncated { .. } => "aggregate_truncated",
            Self::AggregateNested { .. } => "aggregate_nested",
            Self::AggregateTooLong { .. } => "aggregate_too_long",
        }
    }
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ControlTooShort { type_id, length } => {
                write!(f, "control message {type_id} of {length} bytes")
            }
            Self::AggregateTruncated { index } => {
                write!(f, "aggregate ends inside its message {index}")
            }
            Self::AggregateNested { index } => {
                write!(f, "message {index} of an aggregate is an aggregate")
            }
            Self::AggregateTooLong { max } => {
                write!(f, "aggregate of more than {max} messages")
            }
        }
    }
}

impl std::error::Error for MessageError {}

/// The longest control message that is written: SetBufferLength.
const CONTROL_BYTES_MAX: usize = 10;

/// Messages in one aggregate. FMS packs about a second of a stream; empty messages would
/// otherwise make a quarter of a million of 4 MB.
const AGGREGATE_MESSAGES_MAX: usize = 4_096;

#[cfg(test)]
mod tests;

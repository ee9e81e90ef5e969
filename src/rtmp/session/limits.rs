//! What a session allows, how long it waits, and how it ends.

use std::fmt;
use std::time::Duration;

use crate::rtmp::amf0::AmfLimits;
use crate::rtmp::chunk::{ChunkError, ChunkLimits};
use crate::rtmp::command::CommandError;
use crate::rtmp::handshake::HandshakeError;
use crate::rtmp::message::MessageError;

/// Bounds of one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// What the chunk reader accepts and holds.
    pub chunks: ChunkLimits,
    /// Bounds of one command or data message.
    pub amf: AmfLimits,
    /// See [`Timer::Handshake`]. Default 5 s.
    pub handshake_timeout: Duration,
    /// See [`Timer::Connect`]. Default 5 s.
    pub connect_timeout: Duration,
    /// See [`Timer::Request`]. Default 30 s.
    pub request_timeout: Duration,
    /// How long a publisher may be silent; a ping is sent at half of it. A mini program in
    /// the background still sends some pictures a second. Default 15 s.
    pub publish_silence: Duration,
    /// How long a player may neither send nor take anything; a ping is sent at half of it.
    /// Default 60 s.
    pub play_silence: Duration,
    /// The chunk size that the session announces and sends with, 128 to 65 536 bytes. One
    /// size for all players lets them share chunked messages; 60 000, that of ffmpeg and
    /// SRS, cuts few messages. Default 60 000.
    pub chunk_size_out: u32,
    /// Window Acknowledgement Size and Set Peer Bandwidth sent to the peer, bytes. Nothing
    /// depends on the peer's acknowledgements. Default 2 500 000.
    pub ack_window: u32,
    /// Whether Enhanced RTMP is announced to clients that speak of it. Default true.
    pub announce_enhanced: bool,
    /// NetStreams of one connection; one more is refused by `_error`. Default 8.
    pub net_streams_max: usize,
    /// Answers that may wait for a peer that asks and does not read, bytes; more end the
    /// session. Media is not counted. Default 256 KiB.
    pub reply_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            chunks: ChunkLimits::default(),
            amf: AmfLimits::default(),
            handshake_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            publish_silence: Duration::from_secs(15),
            play_silence: Duration::from_secs(60),
            chunk_size_out: 60_000,
            ack_window: 2_500_000,
            announce_enhanced: true,
            net_streams_max: 8,
            reply_bytes_max: 256 << 10,
        }
    }
}

/// What a session waits for. One is armed at any time until the session is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// When to give up on a peer that has not finished the handshake.
    Handshake,
    /// When to give up on a peer that has not sent connect.
    Connect,
    /// When to give up on a connected peer that neither publishes nor plays.
    Request,
    /// When to look whether a publisher or player shows signs of life.
    Silence,
}

/// Why a session ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The peer broke a rule of the handshake.
    Handshake(HandshakeError),
    /// The peer broke a rule of the chunk stream or reached a limit of it.
    Chunk(ChunkError),
    /// The peer sent a control message that makes no sense.
    Message(MessageError),
    /// The peer sent a command that makes no sense.
    Command(CommandError),
    /// The peer sent something other than connect first (section 7.2.1.1).
    NotConnected {
        /// Type of the message.
        type_id: u8,
    },
    /// The peer's connect carries a longer address than
    /// [`QUERY_BYTES_MAX`](crate::rtmp::stream_name::QUERY_BYTES_MAX).
    AddressTooLong,
    /// The peer asks faster than it reads: [`Limits::reply_bytes_max`].
    ReplyBacklog {
        /// Bytes that wait.
        bytes: usize,
    },
    /// Time ran out.
    TimedOut(Timer),
}

impl Error {
    /// A short name for counters.
    pub fn reason(&self) -> &'static str {
        match self {
            Error::Handshake(error) => error.reason(),
            Error::Chunk(error) => error.reason(),
            Error::Message(error) => error.reason(),
            Error::Command(error) => error.reason(),
            Error::NotConnected { .. } => "message_before_connect",
            Error::AddressTooLong => "connect_address_too_long",
            Error::ReplyBacklog { .. } => "reply_backlog",
            Error::TimedOut(Timer::Handshake) => "handshake_timeout",
            Error::TimedOut(Timer::Connect) => "connect_timeout",
            Error::TimedOut(Timer::Request) => "request_timeout",
            Error::TimedOut(Timer::Silence) => "silence_timeout",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Handshake(error) => error.fmt(f),
            Error::Chunk(error) => error.fmt(f),
            Error::Message(error) => error.fmt(f),
            Error::Command(error) => error.fmt(f),
            Error::NotConnected { type_id } => {
                write!(f, "message of type {type_id} before connect")
            }
            Error::AddressTooLong => f.write_str("app or tcUrl of connect is too long"),
            Error::ReplyBacklog { bytes } => {
                write!(
                    f,
                    "{bytes} bytes of answers wait for a peer that does not read"
                )
            }
            Error::TimedOut(Timer::Handshake) => f.write_str("no handshake in time"),
            Error::TimedOut(Timer::Connect) => f.write_str("no connect in time"),
            Error::TimedOut(Timer::Request) => f.write_str("neither publish nor play in time"),
            Error::TimedOut(Timer::Silence) => f.write_str("no sign of life"),
        }
    }
}

impl std::error::Error for Error {}

impl From<HandshakeError> for Error {
    fn from(error: HandshakeError) -> Self {
        Error::Handshake(error)
    }
}

impl From<ChunkError> for Error {
    fn from(error: ChunkError) -> Self {
        Error::Chunk(error)
    }
}

impl From<MessageError> for Error {
    fn from(error: MessageError) -> Self {
        Error::Message(error)
    }
}

impl From<CommandError> for Error {
    fn from(error: CommandError) -> Self {
        Error::Command(error)
    }
}

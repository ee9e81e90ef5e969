//! What a session tells the gateway.

use bytes::Bytes;

use crate::rtmp::amf0::Value;
use crate::rtmp::command::{ConnectInfo, PlayStart, PublishKind};
use crate::rtmp::stream_name::StreamName;

/// What happened on a session, in the order of the peer's messages.
///
/// `stream_id` is the message stream ID of the NetStream and the handle for decisions.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The peer connected and was accepted.
    Connect(Box<ConnectInfo>),
    /// The peer wants to publish: answer by `accept_publish` or `reject_publish`.
    Publish {
        /// The NetStream.
        stream_id: u32,
        /// What it wants to publish.
        request: Box<PublishRequest>,
    },
    /// The peer ended what it published, accepted or not.
    Unpublish {
        /// The NetStream.
        stream_id: u32,
    },
    /// The peer wants to play: answer by `accept_play`, `hold_play` or `reject_play`.
    Play {
        /// The NetStream.
        stream_id: u32,
        /// What it wants to play.
        request: Box<PlayRequest>,
    },
    /// The peer stopped playing, or waiting to play.
    StopPlay {
        /// The NetStream.
        stream_id: u32,
    },
    /// A video message of a publisher.
    Video {
        /// The NetStream.
        stream_id: u32,
        /// Milliseconds as sent: the origin is the publisher's, the value wraps.
        timestamp: u32,
        /// An FLV tag body, see [`VideoTag`](crate::rtmp::flv::VideoTag).
        payload: Bytes,
    },
    /// An audio message of a publisher.
    Audio {
        /// The NetStream.
        stream_id: u32,
        /// Milliseconds as sent: the origin is the publisher's, the value wraps.
        timestamp: u32,
        /// An FLV tag body, see [`AudioTag`](crate::rtmp::flv::AudioTag).
        payload: Bytes,
    },
    /// The publisher's `onMetaData`, with or without `@setDataFrame`.
    Metadata {
        /// The NetStream.
        stream_id: u32,
        /// Milliseconds as sent.
        timestamp: u32,
        /// The object or associative array, see
        /// [`StreamMetadata`](crate::rtmp::metadata::StreamMetadata).
        values: Value,
    },
    /// A player wants video, or none. Resumed video begins with headers and an IDR.
    ReceiveVideo {
        /// The NetStream.
        stream_id: u32,
        /// Whether it is wanted.
        on: bool,
    },
    /// A player wants audio, or none.
    ReceiveAudio {
        /// The NetStream.
        stream_id: u32,
        /// Whether it is wanted.
        on: bool,
    },
    /// A player pauses or resumes. A live stream goes on at its live point.
    Pause {
        /// The NetStream.
        stream_id: u32,
        /// Pause, or resume.
        on: bool,
    },
    /// The session refused a publish or play by itself, and told the peer.
    Refused {
        /// A short name for counters.
        reason: &'static str,
    },
    /// The session ended because of a decision: what is queued is to be flushed, then the
    /// connection closed. It is the last event. A session that ended by an error does not
    /// say so again here.
    Closed {
        /// A short name for counters.
        reason: &'static str,
    },
}

/// What a publisher wants.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishRequest {
    /// Which stream.
    pub name: StreamName,
    /// How; all are live here.
    pub kind: PublishKind,
}

/// What a player wants.
#[derive(Clone, Debug, PartialEq)]
pub struct PlayRequest {
    /// Which stream.
    pub name: StreamName,
    /// From where on.
    pub start: PlayStart,
    /// Whether audio is wanted now.
    pub receive_audio: bool,
    /// Whether video is wanted now.
    pub receive_video: bool,
}

/// Why a publisher is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishRefusal {
    /// The name is taken or is no name.
    BadName,
    /// The token is missing or wrong.
    BadAuth,
    /// Any other reason, such as a limit or an unsupported codec.
    Failed,
}

impl PublishRefusal {
    pub(super) const fn code(self) -> &'static str {
        match self {
            PublishRefusal::BadName => "NetStream.Publish.BadName",
            PublishRefusal::BadAuth => "NetStream.Publish.BadAuth",
            PublishRefusal::Failed => "NetStream.Publish.Failed",
        }
    }

    pub(super) const fn reason(self) -> &'static str {
        match self {
            PublishRefusal::BadName => "publish_bad_name",
            PublishRefusal::BadAuth => "publish_bad_auth",
            PublishRefusal::Failed => "publish_failed",
        }
    }
}

/// Why a player is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlayRefusal {
    /// Nobody publishes it. ffmpeg and rtmpdump exit at once.
    StreamNotFound,
    /// The token is missing or wrong.
    BadAuth,
    /// Any other reason.
    Failed,
}

impl PlayRefusal {
    pub(super) const fn code(self) -> &'static str {
        match self {
            PlayRefusal::StreamNotFound => "NetStream.Play.StreamNotFound",
            // librtmp knows no BadAuth and would wait; it exits on Failed.
            PlayRefusal::BadAuth | PlayRefusal::Failed => "NetStream.Play.Failed",
        }
    }

    pub(super) const fn reason(self) -> &'static str {
        match self {
            PlayRefusal::StreamNotFound => "play_stream_not_found",
            PlayRefusal::BadAuth => "play_bad_auth",
            PlayRefusal::Failed => "play_failed",
        }
    }
}

/// Why the gateway ends a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason<'a> {
    /// The process stops. A client that can (Enhanced RTMP v2) is asked to connect again.
    ShuttingDown,
    /// Another publisher took the stream over.
    Replaced,
    /// An operator or a limit ends it; the text is told to the peer.
    Kicked(&'a str),
    /// What it played or published is over.
    Finished,
}

impl CloseReason<'_> {
    pub(super) const fn reason(self) -> &'static str {
        match self {
            CloseReason::ShuttingDown => "shutting_down",
            CloseReason::Replaced => "replaced",
            CloseReason::Kicked(_) => "kicked",
            CloseReason::Finished => "finished",
        }
    }
}

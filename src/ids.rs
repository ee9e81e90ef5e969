//! Names of things that live in the gateway. Cheap to copy, never used twice.

use std::fmt;

/// One TCP connection, named by the world that accepted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// One WebRTC session (one PeerConnection of a browser or encoder).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// One stream of the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// Whoever publishes or plays a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerId {
    /// A NetStream of an RTMP connection.
    Rtmp {
        /// The connection.
        conn: ConnId,
        /// The message stream ID of the NetStream.
        message_stream: u32,
    },
    /// A WebRTC session, made by WHIP or WHEP.
    Webrtc(SessionId),
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerId::Rtmp { conn, .. } => conn.fmt(f),
            PeerId::Webrtc(session) => session.fmt(f),
        }
    }
}

impl fmt::Display for ConnId {
    /// The slot and how often it was used: `tcp#7.2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tcp#{}.{}", self.0 & 0xffff_ffff, self.0 >> 32)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rtc#{}", self.0)
    }
}

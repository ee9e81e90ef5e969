//! WebRTC sessions: one peer each, either publishing to us or viewing from us.
//!
//! A [`Session`] is sans-IO: datagrams and time go in, datagrams and [`Event`]s come out. Both
//! roles share what comes before media:
//!
//! - **SDP.** The offer is read by `sdp`, judged by `negotiate`, answered by `answer`. So
//!   every refusal has a name ([`OfferError`]), exactly one payload type per track is
//!   answered, and both tracks are in one MediaStream.
//! - **ICE.** `ice` answers the checks and selects the pair.
//! - **DTLS configuration**, which `dtls` builds once per process.
//!
//! A publisher's media is the str0m library's: loss, order, feedback. It is told what was
//! negotiated by its direct API, sees one peer at one address that never changes, and is
//! drained inside every method that changes it. A viewer's media is our own, for what a
//! packet costs: see `session/viewer.rs`.
//!
//! [`Engine`] is what all sessions share, [`Demux`] finds the session of a datagram on
//! the one UDP port, [`tcp_framing`] is ICE over TCP.
//!
//! ```text
//!            answer()            check passed, DTLS done
//!   offer ────────────▶ Connecting ─────────────────────▶ Connected
//!                           │ handshake_timeout               │ close_notify, silence_timeout,
//!                           ▼                                 ▼ error, close()
//!                         Closed ◀────────────────────────────┘
//! ```

use std::fmt;

mod answer;
mod demux;
pub mod dtls;
mod engine;
mod error;
mod ice;
mod negotiate;
mod sdp;
mod session;
mod stun;
pub mod tcp_framing;

pub use crate::ids::SessionId;
pub use demux::{ADDRESSES_MAX, Demux, Route};
pub use engine::{Engine, EngineConfig, EngineError};
pub use error::OfferError;
pub use ice::{Credentials, Pair};
pub use sdp::Direction;
pub use session::{
    CloseReason, Datagram, ECHO_PADDING_MAX, Event, FragmentError, Params, Received, Rtp, Session,
    Stats, StreamStart, TrackStats,
};

/// What a peer is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// It sends to us: WHIP.
    Publisher,
    /// It receives from us: WHEP.
    Viewer,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Publisher => "publisher",
            Role::Viewer => "viewer",
        })
    }
}

/// What carries the datagrams of a candidate pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP with the framing of [`tcp_framing`]; the peer connects.
    Tcp,
}

/// The longest offer that is read. Browsers send 3 to 9 KB.
pub const OFFER_BYTES_MAX: usize = 64 * 1024;

/// The most m-lines that are read: audio, video, a data channel, and some that are off.
pub const MEDIA_SECTIONS_MAX: usize = 16;

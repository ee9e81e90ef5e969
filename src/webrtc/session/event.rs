//! What comes out of a session.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use crate::media::TrackKind;
use crate::webrtc::Transport;

/// Datagrams to be sent, one or several that follow each other: a train.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// On TCP each wants [`crate::webrtc::tcp_framing::frame`] around them.
    pub transport: Transport,
    /// Our address: a candidate.
    pub source: SocketAddr,
    /// The peer's.
    pub destination: SocketAddr,
    /// One after the other: all of `segment` bytes but the last, which may be shorter.
    pub contents: Vec<u8>,
    /// Bytes of one, at most 1,500. Not 0.
    pub segment: usize,
}

impl Datagram {
    /// What each datagram holds.
    pub fn packets(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.contents.chunks(self.segment.max(1))
    }
}

/// Where the numbering of a track begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamStart {
    /// The first sequence number; below 32,768, so that no loss at the beginning leaves
    /// the peer with another rollover counter (RFC 3711 section 3.3.1).
    pub sequence: u16,
    /// What is added to every RTP time that is written.
    pub rtp_time: u32,
}

/// What an end of a session says to it.
pub(super) enum Said {
    /// Send this where we send; `segment` as in [`Datagram`].
    Send { contents: Vec<u8>, segment: usize },
    /// DTLS is up.
    Connected,
    /// Pass this on.
    Event(Event),
    /// It is over.
    Closed(CloseReason),
}

impl Said {
    /// Send one datagram.
    pub(super) fn send(contents: Vec<u8>) -> Self {
        let segment = contents.len();
        Said::Send { contents, segment }
    }

    /// It broke.
    pub(super) fn failed(error: &dyn fmt::Display) -> Self {
        Said::Closed(CloseReason::Error(error.to_string()))
    }
}

/// What a session tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// ICE and DTLS are up: media may flow.
    Connected,
    /// An RTP packet of a publisher, in order of arrival, never twice, with
    /// retransmissions turned back into what they repeat.
    Rtp(Rtp),
    /// A viewer cannot decode and asks for an IDR (PLI or FIR). Not throttled here.
    KeyframeRequested,
    /// What a viewer reports of the picture (RFC 3550 section 6.4.1).
    ReceiverReport {
        /// Share of packets lost, 0 to 1; repetitions do not make good for it.
        loss: f32,
        /// Round trip.
        rtt: Option<Duration>,
    },
    /// A viewer has answered [`Session::ask_echo`](super::Session::ask_echo).
    Echo {
        /// Which request.
        number: u64,
        /// Round trip.
        rtt: Duration,
    },
    /// A publisher's RTCP sender report: both times mean the same instant.
    SenderReport {
        /// Whose clock.
        kind: TrackKind,
        /// The NTP time, which need not have anything to do with ours.
        ntp: SystemTime,
        /// The RTP time in units of the track's clock (90 kHz or 48 kHz).
        rtp_time: u32,
        /// When the report arrived.
        arrival: Instant,
    },
    /// The end, once. Every later input is a no-op; what is queued may still be sent.
    Closed(CloseReason),
}

/// An RTP packet that was received.
#[derive(Clone, PartialEq, Eq)]
pub struct Rtp {
    /// The track.
    pub kind: TrackKind,
    /// The sequence number, extended past its 16 bits.
    pub sequence: u64,
    /// The RTP time, extended past its 32 bits, in units of 1/90,000 s (video) or
    /// 1/48,000 s (audio).
    pub rtp_time: u64,
    /// The marker bit: the end of an access unit.
    pub marker: bool,
    /// Without header and padding; empty when the packet was padding only.
    pub payload: Bytes,
    /// When the datagram arrived.
    pub arrival: Instant,
}

impl fmt::Debug for Rtp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Rtp({:?} {} at {}{} {} bytes)",
            self.kind,
            self.sequence,
            self.rtp_time,
            if self.marker { " marker" } else { "" },
            self.payload.len()
        )
    }
}

/// Why a session ended by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer said good-bye (DTLS close_notify).
    DtlsClosed,
    /// No check passed or DTLS did not finish in time.
    HandshakeTimeout,
    /// A connected peer was silent for too long.
    IceDisconnected,
    /// The connection broke: a wrong certificate, DTLS out of retries, ...
    Error(String),
}

impl CloseReason {
    /// The name under which the end is counted.
    pub fn reason(&self) -> &'static str {
        match self {
            CloseReason::DtlsClosed => "dtls_closed",
            CloseReason::HandshakeTimeout => "webrtc_handshake_timeout",
            CloseReason::IceDisconnected => "ice_disconnected",
            CloseReason::Error(_) => "webrtc_error",
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseReason::DtlsClosed => f.write_str("the peer closed the connection"),
            CloseReason::HandshakeTimeout => f.write_str("the peer did not connect in time"),
            CloseReason::IceDisconnected => f.write_str("the peer fell silent"),
            CloseReason::Error(error) => write!(f, "the connection failed: {error}"),
        }
    }
}

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Not ours: a wrong signature, an address that proved nothing, noise. To be counted.
    Dropped,
    /// Taken.
    Accepted,
    /// A connectivity check that authenticated a new pair: [`crate::webrtc::Demux::bind`] it.
    NewPair,
}

//! What passes between the gateway and its world: what happened, what is to be done, and what the
//! one is told of the other.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::callback::{Callback, CallbackRequest};
use crate::ids::ConnId;
use crate::transcode::{Completed, Job, PipelineId};

/// Which listener a TCP connection came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// RTMP.
    Rtmp,
    /// HTTP: the page, the API, WHIP and WHEP.
    Http,
    /// ICE-TCP (RFC 6544): RTP, RTCP, DTLS and STUN in RFC 4571 frames.
    IceTcp,
}

/// What happened in the world.
#[derive(Debug)]
pub enum Input<'a> {
    /// A connection was accepted.
    Accepted {
        /// Its name from now on.
        conn: ConnId,
        /// Where.
        listener: Listener,
        /// The other end.
        peer: SocketAddr,
        /// Our end.
        local: SocketAddr,
    },
    /// Bytes came.
    Received {
        /// From which connection.
        conn: ConnId,
        /// At least one.
        bytes: &'a [u8],
    },
    /// Some of a connection's [`TransmitQueue`](crate::transmit::TransmitQueue) was written.
    Transmitted {
        /// Which connection.
        conn: ConnId,
    },
    /// A connection is gone; nothing more can be read or written.
    Disconnected {
        /// Which connection.
        conn: ConnId,
        /// `None` if the peer closed it in order.
        error: Option<io::ErrorKind>,
    },
    /// A datagram came.
    Datagram {
        /// Who sent it.
        source: SocketAddr,
        /// Which of the announced addresses it came to.
        destination: SocketAddr,
        /// What it holds.
        bytes: &'a [u8],
    },
    /// A transcode job was done.
    Transcoded(Completed),
    /// A callback was done, or could not be.
    Callback(Callback),
    /// A worker's queue is full; the job was dropped.
    TranscodeRefused(PipelineId),
    /// The time of [`Gateway::next_timeout`](super::Gateway::next_timeout) has come.
    Timeout,
    /// No new sessions; tell players, end, and say [`Output::Stopped`].
    Drain,
}

/// What the world has to do.
#[derive(Debug)]
pub enum Output {
    /// Write what [`Gateway::transmit`](super::Gateway::transmit) holds for this connection.
    Transmit(ConnId),
    /// Write what is queued for a bounded time, close, then say [`Input::Disconnected`]. What
    /// comes in meanwhile is of no interest.
    Close(ConnId),
    /// Give a job to a worker.
    Transcode {
        /// Which worker, 0 to `workers` - 1.
        worker: usize,
        /// The job; jobs of one worker are done in order.
        job: Job,
    },
    /// Make an HTTP request, then say [`Input::Callback`]. Never asked for while the
    /// configuration names no server.
    Callback(CallbackRequest),
    /// All sessions have ended after [`Input::Drain`].
    Stopped,
}

/// Datagrams on their way out, one or several to one place: a train.
#[derive(Debug)]
pub struct Datagram {
    /// Which of the announced addresses to send it from.
    pub source: SocketAddr,
    /// Whom to send it to.
    pub destination: SocketAddr,
    /// One after the other: all of `segment` bytes but the last, which may be shorter.
    pub contents: Vec<u8>,
    /// Bytes of one. Not 0.
    pub segment: usize,
}

impl Datagram {
    /// What each datagram holds.
    pub fn packets(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.contents.chunks(self.segment.max(1))
    }
}

/// What the gateway is told of the world it lives in.
#[derive(Clone, Debug)]
pub struct World {
    /// Addresses announced to WebRTC clients, for UDP and, if the configuration has
    /// it, for TCP.
    pub candidates: Vec<SocketAddr>,
    /// How many transcode workers there are.
    pub workers: usize,
    /// Random and secret.
    pub seed: [u8; 32],
    /// The time of day: since 1970, UTC.
    pub unix_time: Duration,
}

/// What the world counts for `/metrics`, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorldCounters {
    /// Datagrams that the kernel did not take because its buffer was full.
    pub datagrams_dropped_full: u64,
    /// Datagrams that the kernel refused: no route, forbidden, too long.
    pub datagrams_dropped_refused: u64,
    /// Datagrams that came too long, or to or from an address that is none of ours or cannot be
    /// answered.
    pub datagrams_received_bad: u64,
    /// System calls that datagrams were sent with.
    pub datagram_send_calls: u64,
    /// Whether many datagrams leave as one message (GSO).
    pub has_gso: bool,
    /// TCP connections refused at a limit.
    pub connections_refused: u64,
    /// The longest turn of the loop, in microseconds.
    pub longest_turn_us: u64,
}

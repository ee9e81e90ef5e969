//! ICE-TCP connections (RFC 6544): datagrams in the frames of RFC 4571.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Connection, Fate, Gateway, Output};
use crate::ids::{ConnId, SessionId};
use crate::transmit::TransmitQueue;
use crate::webrtc::tcp_framing::{FrameReader, frame};
use crate::webrtc::{Received, Route, Transport};

/// An ICE-TCP connection. It belongs to the session whose checks came over it.
pub(super) struct IceTcpConnection {
    conn: ConnId,
    peer: SocketAddr,
    local: SocketAddr,
    reader: FrameReader,
    pub(super) transmit: TransmitQueue,
    session: Option<SessionId>,
    /// When it was opened or was last found to belong to a session.
    looked_at: Instant,
}

impl IceTcpConnection {
    /// A connection without a session is closed: no check came over it, or its session ended.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        Some(self.looked_at + ICE_TCP_IDLE)
    }
}

impl Gateway {
    pub(super) fn ice_tcp_accepted(
        &mut self,
        now: Instant,
        conn: ConnId,
        peer: SocketAddr,
        local: SocketAddr,
    ) -> IceTcpConnection {
        self.stats.session("ice_tcp");
        self.ice_tcp.insert(peer, conn);
        IceTcpConnection {
            conn,
            peer,
            local,
            reader: FrameReader::new(),
            transmit: TransmitQueue::new(),
            session: None,
            looked_at: now,
        }
    }

    pub(super) fn ice_tcp_received(
        &mut self,
        now: Instant,
        ice: &mut IceTcpConnection,
        mut bytes: &[u8],
    ) -> Fate {
        loop {
            let datagram = match ice.reader.read(&mut bytes) {
                Ok(Some(datagram)) => datagram,
                Ok(None) => break,
                Err(error) => {
                    self.stats.error(error.reason());
                    log::debug!("ice-tcp {} {}: {error}", ice.conn, ice.peer);
                    return Fate::Close;
                }
            };
            match self.demux.route(Transport::Tcp, ice.peer, &datagram) {
                Route::Session(id) => {
                    let received = self.session_received(
                        now,
                        id,
                        Transport::Tcp,
                        ice.peer,
                        ice.local,
                        &datagram,
                    );
                    if received == Received::NewPair {
                        ice.session = Some(id);
                    }
                }
                Route::UnknownStun | Route::Drop => self.stats.datagrams_unrouted += 1,
            }
            // The answers to what came over this connection were queued aside, because
            // the connection is being worked on.
            for datagram in self.tcp_datagrams.drain(..) {
                push_bounded(&mut ice.transmit, &datagram);
            }
        }
        let is_orphan = |id: SessionId| !self.sessions.contains_key(&id);
        if ice.session.is_some_and(is_orphan) {
            Fate::Close
        } else {
            Fate::Live
        }
    }

    /// A session's connections go with it, after its last words.
    pub(super) fn close_ice_tcp_of(&mut self, id: SessionId) {
        let conns: Vec<ConnId> = self.ice_tcp.values().copied().collect();
        for conn in conns {
            self.with_connection(conn, |_, connection| match connection {
                Connection::IceTcp(ice) if ice.session == Some(id) => Fate::Close,
                _ => Fate::Live,
            });
        }
    }

    pub(super) fn ice_tcp_timeout(&mut self, now: Instant, ice: &mut IceTcpConnection) -> Fate {
        if now < ice.looked_at + ICE_TCP_IDLE {
            return Fate::Live;
        }
        if ice
            .session
            .is_some_and(|id| self.sessions.contains_key(&id))
        {
            ice.looked_at = now;
            return Fate::Live;
        }
        if ice.session.is_none() {
            self.stats.error("ice_tcp_idle");
        }
        Fate::Close
    }

    pub(super) fn ice_tcp_gone(&mut self, ice: &IceTcpConnection) {
        // A peer may have come again from the same port before its first connection was missed.
        if self.ice_tcp.get(&ice.peer) != Some(&ice.conn) {
            return;
        }
        self.ice_tcp.remove(&ice.peer);
        self.demux.unbind(Transport::Tcp, ice.peer);
        if let Some(peer) = ice.session.and_then(|id| self.sessions.get_mut(&id)) {
            peer.session.handle_disconnect(ice.peer, ice.local);
        }
    }

    pub(super) fn send_over_tcp(&mut self, destination: SocketAddr, contents: &[u8]) {
        let Some(conn) = self.ice_tcp.get(&destination).copied() else {
            return;
        };
        match self.connections.get_mut(&conn) {
            Some(Connection::IceTcp(ice)) => {
                push_bounded(&mut ice.transmit, contents);
                self.outputs.push_back(Output::Transmit(conn));
            }
            // It is the one being worked on.
            _ => self.tcp_datagrams.push(contents.to_vec()),
        }
    }
}

/// A connection that does not take its datagrams loses them, like a full socket would.
fn push_bounded(transmit: &mut TransmitQueue, contents: &[u8]) {
    if transmit.len() < ICE_TCP_QUEUE_BYTES
        && let Some(framed) = frame(contents)
    {
        transmit.push(framed);
    }
}

/// An ICE-TCP connection without a session is closed after this time, and no later than
/// twice this time.
const ICE_TCP_IDLE: Duration = Duration::from_secs(10);

/// Bytes that wait for one ICE-TCP connection at most: half a second at 4 Mbit/s.
const ICE_TCP_QUEUE_BYTES: usize = 256 << 10;

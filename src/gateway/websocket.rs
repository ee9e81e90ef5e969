//! WebSockets: connections of the HTTP port over which rooms and calls are spoken.

use std::net::SocketAddr;
use std::time::Instant;

use super::{Connection, Fate, Gateway};
use crate::http::WebSocket;
use crate::http::websocket::{Close, Event};
use crate::ids::ConnId;
use crate::signaling::message::event::ByeReason;

/// One WebSocket.
pub(super) struct WebSocketConnection {
    conn: ConnId,
    pub(super) peer: SocketAddr,
    pub(super) websocket: WebSocket,
}

impl Gateway {
    /// Makes an HTTP connection a WebSocket.
    pub(super) fn upgrade(&mut self, now: Instant, connection: Connection) -> (Connection, Fate) {
        let Connection::Http(http) = connection else {
            return (connection, Fate::Live);
        };
        let http = *http;
        let (conn, peer) = (http.conn, http.peer);
        let Some((response, rtmp_base)) = http.upgrade else {
            return (Connection::Http(Box::new(http)), Fate::Close);
        };
        self.stats.session("websocket");
        let code = response.status().code();
        *self.stats.http_responses.entry(code).or_default() += 1;
        log::debug!("ws {conn} {peer}: opened");
        let (transmit, received) = http.session.upgrade(response);
        let bytes_max = self.config.signaling.message_bytes_max;
        let mut websocket = WebSocketConnection {
            conn,
            peer,
            websocket: WebSocket::new(bytes_max, transmit, received),
        };
        self.conversations.connected(now, conn, rtmp_base);
        let fate = self.websocket_events(now, &mut websocket);
        (Connection::WebSocket(Box::new(websocket)), fate)
    }

    pub(super) fn websocket_received(
        &mut self,
        now: Instant,
        websocket: &mut WebSocketConnection,
        bytes: &[u8],
    ) -> Fate {
        websocket.websocket.receive(bytes);
        self.websocket_events(now, websocket)
    }

    fn websocket_events(&mut self, now: Instant, websocket: &mut WebSocketConnection) -> Fate {
        let conn = websocket.conn;
        loop {
            match websocket.websocket.poll_event() {
                Ok(Some(Event::Text(text))) => self.conversations.text_received(now, conn, &text),
                Ok(Some(Event::Heard)) => self.conversations.heard(now, conn),
                Ok(None) if !websocket.websocket.is_over() => return Fate::Live,
                Ok(Some(Event::Closed) | None) => return Fate::Close,
                Err(error) => {
                    self.stats.error(error.reason());
                    log::debug!("ws {conn} {}: {error}", websocket.peer);
                    return Fate::Close;
                }
            }
        }
    }

    pub(super) fn websocket_send(&mut self, conn: ConnId, text: &str) {
        self.with_connection(conn, |gateway, connection| {
            let Connection::WebSocket(websocket) = connection else {
                return Fate::Live;
            };
            match websocket.websocket.send(text) {
                Ok(()) => Fate::Live,
                Err(error) => {
                    gateway.stats.error(error.reason());
                    log::debug!("ws {conn} {}: {error}", websocket.peer);
                    Fate::Close
                }
            }
        });
    }

    pub(super) fn websocket_close(&mut self, conn: ConnId, reason: ByeReason) {
        self.with_connection(conn, |_, connection| {
            let Connection::WebSocket(websocket) = connection else {
                return Fate::Live;
            };
            log::debug!("ws {conn} {}: closed ({})", websocket.peer, reason.as_str());
            websocket.websocket.close(match reason {
                ByeReason::Drain => Close::GoingAway,
                ByeReason::Replaced => Close::Normal,
                ByeReason::TooManyMessages | ByeReason::Heartbeat | ByeReason::Unauthorized => {
                    Close::Policy
                }
            });
            Fate::Close
        });
    }
}

//! Step 3 of a turn: datagrams, new connections and bytes, each up to a budget, and the
//! ends of connections.

use std::io;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use log::{debug, error, warn};
use mio::Interest;

use super::super::sockopt;
use super::super::tcp::{self, Connection, ReadOutcome, State};
use super::super::token;
use super::super::udp::Remaining;
use super::{DATAGRAMS_TIME, EventLoop, READS_TIME, Timer};
use crate::gateway::{ConnId, Input, Listener};

/// Connections accepted on one listener in one turn, so that a storm of them leaves time
/// for those that are there.
const ACCEPTS_PER_TURN: usize = 64;

/// Reads from one connection in one turn: a fast publisher waits for the others.
const READS_PER_TURN: usize = 2;

/// How long a listener rests when the process has no more file descriptors: without a
/// rest the same connection would fail again at once, and for ever.
const ACCEPT_REST: Duration = Duration::from_millis(500);

impl EventLoop {
    pub(super) fn receive_datagrams(&mut self, now: Instant) {
        if !self.udp_ready {
            return;
        }
        let gateway = &mut self.gateway;
        let begin = Instant::now();
        let remaining = self.udp.receive(|source, destination, bytes| {
            gateway.handle_input(
                now,
                Input::Datagram {
                    source,
                    destination,
                    bytes,
                },
            );
            if begin.elapsed() < DATAGRAMS_TIME {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        self.udp_ready = remaining == Remaining::Some;
    }

    pub(super) fn accept(&mut self, now: Instant) {
        for index in 0..self.listeners.len() {
            for _ in 0..ACCEPTS_PER_TURN {
                if !self.listeners[index].ready {
                    break;
                }
                self.accept_one(now, index);
            }
        }
    }

    fn accept_one(&mut self, now: Instant, index: usize) {
        let listener = &mut self.listeners[index];
        let (stream, peer) = match listener.socket.accept() {
            Ok(accepted) => accepted,
            Err(error) => {
                self.handle_accept_error(now, index, &error);
                return;
            }
        };
        if listener.connections >= listener.connections_max {
            self.connections_refused += 1;
            if let Some(count) = listener.refused.count(now) {
                warn!(
                    "{:?}: {count} connections refused, {} is the limit, the last one from {peer}",
                    listener.kind, listener.connections_max
                );
            }
            return;
        }
        let (kind, id) = (listener.kind, self.connections.next_id());
        let quick_reads = match kind {
            Listener::Rtmp => tcp::QUICK_READS,
            Listener::Http | Listener::IceTcp => 0,
        };
        let mut connection = Connection::new(stream, index, quick_reads);
        let registered = tcp::addresses(&connection.stream, peer).and_then(|addresses| {
            let token = token::of_connection(id);
            let registry = self.poll.registry();
            registry.register(&mut connection.stream, token, Interest::READABLE)?;
            Ok(addresses)
        });
        let (peer, mut local) = match registered {
            Ok(addresses) => addresses,
            Err(error) => {
                // Mostly: reset before we came to it.
                debug!("{kind:?}: accept from {peer}: {error}");
                return;
            }
        };
        if matches!(kind, Listener::IceTcp) {
            // A session knows its candidates only.
            local = self.udp.addresses().candidate(local.ip()).unwrap_or(local);
        }
        listener.connections += 1;
        let conn = self.connections.insert(connection);
        self.gateway.handle_input(
            now,
            Input::Accepted {
                conn,
                listener: kind,
                peer,
                local,
            },
        );
    }

    fn handle_accept_error(&mut self, now: Instant, index: usize, error: &io::Error) {
        let listener = &mut self.listeners[index];
        if error.kind() == io::ErrorKind::WouldBlock {
            listener.ready = false;
            return;
        }
        match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                listener.ready = false;
                self.timers
                    .insert((now + ACCEPT_REST, Timer::Accept(index)));
                if let Some(count) = self.out_of_files.count(now) {
                    error!(
                        "{:?}: cannot accept ({error}), {count} times: raise the limit of open \
                         files or lower connections_max",
                        listener.kind
                    );
                }
            }
            // One connection that died in the queue; the next one is another.
            _ => debug!("{:?}: accept: {error}", listener.kind),
        }
    }

    /// Reads those that have something. Whom it does not come to in time stays on the list, in
    /// its place.
    pub(super) fn read(&mut self, now: Instant) {
        let begin = Instant::now();
        // Those that are put back are for the next turn.
        for _ in 0..self.readable.len() {
            if let Some(id) = self.readable.pop_front() {
                self.read_connection(now, id);
            }
            if begin.elapsed() >= READS_TIME {
                return;
            }
        }
    }

    fn read_connection(&mut self, now: Instant, id: ConnId) {
        for _ in 0..READS_PER_TURN {
            let Some(connection) = self.connections.get_mut(id) else {
                return;
            };
            connection.is_readable = false;
            let outcome = connection.read(&mut self.buffer);
            if let Some(left) = connection.quick_reads.checked_sub(1) {
                connection.quick_reads = left;
                sockopt::acknowledge_at_once((&connection.stream).into());
            }
            let is_open = matches!(connection.state, State::Open);
            match outcome {
                ReadOutcome::More(count) | ReadOutcome::Last(count) => {
                    if is_open && count > 0 {
                        let bytes = &self.buffer[..count];
                        let input = Input::Received { conn: id, bytes };
                        self.gateway.handle_input(now, input);
                    }
                    if let ReadOutcome::Last(_) = outcome {
                        return;
                    }
                }
                ReadOutcome::End => return self.handle_end(now, id),
                ReadOutcome::Failed(kind) => return self.handle_failure(now, id, kind),
            }
        }
        if let Some(connection) = self.connections.get_mut(id) {
            connection.is_readable = true;
            self.readable.push_back(id);
        }
    }

    /// The peer has sent everything. It may still want to hear what it asked for: HTTP clients
    /// end their side with the request.
    fn handle_end(&mut self, now: Instant, id: ConnId) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        connection.has_fin = true;
        match &connection.state {
            State::Open => {
                self.begin_close(now, id);
                let input = Input::Disconnected {
                    conn: id,
                    error: None,
                };
                self.gateway.handle_input(now, input);
            }
            State::Closing { is_shut_down, .. } => {
                if *is_shut_down {
                    self.remove(id);
                }
            }
        }
    }

    pub(super) fn handle_failure(&mut self, now: Instant, id: ConnId, kind: io::ErrorKind) {
        let Some(connection) = self.remove(id) else {
            return;
        };
        if matches!(connection.state, State::Open) {
            let input = Input::Disconnected {
                conn: id,
                error: Some(kind),
            };
            self.gateway.handle_input(now, input);
        }
    }
}

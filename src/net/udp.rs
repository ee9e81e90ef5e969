//! The one UDP socket of all WebRTC sessions.
//!
//! In: `recvmmsg`, each datagram with the candidate address it was sent to. Out: a train of
//! datagrams to one peer becomes one GSO message, and messages of all peers leave by
//! `sendmmsg`. Nothing is ever queued here: what the kernel does not take at once is
//! dropped and counted, as the network would do, and no failure is one of the loop.

use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::os::fd::AsFd;

use log::{debug, warn};
use mio::net::UdpSocket;
use socket2::Socket;

use super::batch::{Group, RECEIVE_BATCH, ReceiveBatch, SEGMENTS_MAX, SEND_BATCH, SendBatch};
use super::interfaces::Addresses;
use super::sockopt;
use crate::gateway::Datagram;

/// Batches received in one turn of the loop, so that a flood of datagrams does not keep
/// it from everything else: 256 datagrams, a fifth of a millisecond.
const BATCHES_PER_TURN: usize = 8;

/// Payload of one GSO message: below what the length field of an IP packet can say
/// (65 535), headers taken off.
const GSO_BYTES_MAX: usize = 65_000;

/// The socket with its buffers and addresses.
pub(super) struct Udp {
    socket: UdpSocket,
    is_ipv6: bool,
    gso: bool,
    addresses: Addresses,
    receive: ReceiveBatch,
    send: SendBatch,
    groups: Vec<Group>,
    counters: Counters,
}

/// What happened to datagrams since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams received and passed on.
    pub received: u64,
    /// Received longer than any of WebRTC and thrown away.
    pub received_too_long: u64,
    /// Received at an address that is not announced, or from one that cannot be answered,
    /// and thrown away.
    pub received_astray: u64,
    /// Datagrams the kernel took.
    pub sent: u64,
    /// System calls it took them with.
    pub send_calls: u64,
    /// Dropped because the send buffer was full.
    pub dropped_full: u64,
    /// Dropped because the kernel refused them (no route, forbidden, too long).
    pub dropped_refused: u64,
}

/// Whether more waits in the kernel than was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remaining {
    /// Nothing: an event will come.
    Nothing,
    /// Perhaps: no event will come.
    Some,
}

impl Udp {
    /// Over `socket`, whose addresses are `addresses`.
    pub(super) fn new(socket: Socket, addresses: Addresses, gso: bool) -> io::Result<Self> {
        let is_ipv6 = socket.local_addr()?.is_ipv6();
        let gso = gso && sockopt::has_udp_gso(socket.as_fd());
        Ok(Self {
            socket: UdpSocket::from_std(socket.into()),
            is_ipv6,
            gso,
            addresses,
            receive: ReceiveBatch::new(),
            send: SendBatch::new(),
            groups: Vec::new(),
            counters: Counters::default(),
        })
    }

    /// What is to be registered with the poll.
    pub(super) fn source(&mut self) -> &mut UdpSocket {
        &mut self.socket
    }

    /// The addresses behind the socket.
    pub(super) fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Whether GSO is in use.
    pub(super) fn has_gso(&self) -> bool {
        self.gso
    }

    /// What happened so far.
    pub(super) fn counters(&self) -> Counters {
        self.counters
    }

    /// Takes what waits, up to the budget of a turn, and gives each datagram to `deliver`:
    /// its source, the candidate it was sent to, its contents. `deliver` answers `Break` when
    /// its time is used up; what was taken from the kernel by then is left to the next call.
    pub(super) fn receive(
        &mut self,
        mut deliver: impl FnMut(SocketAddr, SocketAddr, &[u8]) -> ControlFlow<()>,
    ) -> Remaining {
        if self.deliver_batch(&mut deliver).is_break() {
            return Remaining::Some;
        }
        for _ in 0..BATCHES_PER_TURN {
            let count = match self.receive.receive(self.socket.as_fd()) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Remaining::Nothing;
                }
                Err(error) => {
                    // An ICMP answer to something we sent long ago; the socket lives on.
                    debug!("receive: {error}");
                    continue;
                }
            };
            if self.deliver_batch(&mut deliver).is_break() {
                return Remaining::Some;
            }
            if count < RECEIVE_BATCH {
                return Remaining::Nothing;
            }
        }
        Remaining::Some
    }

    /// Passes on what is left of the batch that was received last.
    fn deliver_batch(
        &mut self,
        deliver: &mut impl FnMut(SocketAddr, SocketAddr, &[u8]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        while let Some(datagram) = self.receive.next() {
            if datagram.cut_off {
                self.counters.received_too_long += 1;
                continue;
            }
            let source = datagram.source;
            let local = datagram.local;
            let candidate = local
                .filter(|_| source.port() != 0)
                .and_then(|local| self.addresses.arrived(source, local));
            match candidate {
                Some(candidate) => {
                    self.counters.received += 1;
                    deliver(source, candidate, datagram.bytes)?;
                }
                None => self.counters.received_astray += 1,
            }
        }
        ControlFlow::Continue(())
    }

    /// Sends `datagrams` in their order.
    pub(super) fn send(&mut self, datagrams: &[Datagram]) {
        let mut groups = std::mem::take(&mut self.groups);
        groups.clear();
        self.group(datagrams, &mut groups);
        let mut rest = &groups[..];
        while let Some(first) = rest.first() {
            self.counters.send_calls += 1;
            match self
                .send
                .send(self.socket.as_fd(), self.is_ipv6, datagrams, rest)
            {
                Ok(taken) => {
                    let taken = &rest[..taken.min(rest.len())];
                    self.counters.sent += taken.iter().map(|g| g.count as u64).sum::<u64>();
                    rest = &rest[taken.len()..];
                    if taken.is_empty() {
                        // Cannot be: a call without an error takes at least one.
                        break;
                    }
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => {
                        // The buffer is full, and will be for the rest of this batch: a call
                        // for each of them would only say so again.
                        let full = &rest[..rest.len().min(SEND_BATCH)];
                        let lost: usize = full.iter().map(|group| group.count).sum();
                        self.counters.dropped_full += lost as u64;
                        rest = &rest[full.len()..];
                    }
                    _ => {
                        let refused = first.clone();
                        self.refused(datagrams, &refused, &error);
                        rest = &rest[1..];
                    }
                },
            }
        }
        self.groups = groups;
    }

    /// Cuts trains into messages.
    fn group(&self, trains: &[Datagram], groups: &mut Vec<Group>) {
        for (train, datagram) in trains.iter().enumerate() {
            let segment = datagram.segment.max(1);
            let together = if self.gso {
                (GSO_BYTES_MAX / segment).clamp(1, SEGMENTS_MAX)
            } else {
                1
            };
            let local = self
                .addresses
                .departure(datagram.source, datagram.destination);
            let length = datagram.contents.len();
            // Datagrams of a whole train fit one message as its maker knows; one more is cut.
            for start in (0..length).step_by(segment * together) {
                let end = length.min(start + segment * together);
                groups.push(Group {
                    train,
                    bytes: start..end,
                    count: (end - start).div_ceil(segment),
                    local,
                });
            }
        }
    }

    /// Deals with a message that the kernel refused for good.
    fn refused(&mut self, datagrams: &[Datagram], group: &Group, error: &io::Error) {
        let train = &datagrams[group.train];
        if group.count == 1 {
            self.counters.dropped_refused += 1;
            debug!("send to {}: {error}", train.destination);
            return;
        }
        let sent_before = self.counters.sent;
        let segment = train.segment.max(1);
        for start in group.bytes.clone().step_by(segment) {
            let single = Group {
                train: group.train,
                bytes: start..group.bytes.end.min(start + segment),
                count: 1,
                local: group.local,
            };
            self.counters.send_calls += 1;
            let one = std::slice::from_ref(&single);
            match self
                .send
                .send(self.socket.as_fd(), self.is_ipv6, datagrams, one)
            {
                Ok(_) => self.counters.sent += 1,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.counters.dropped_full += 1;
                }
                Err(error) => self.refused(datagrams, &single, &error),
            }
        }
        // EIO: the network card lacks checksum offload. EINVAL: its MTU is below our packets,
        // or an old kernel; or the address is bad, but then single ones failed too, and
        // one peer must not spoil it for all.
        let blamed = matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL));
        if self.gso && blamed && self.counters.sent > sent_before {
            self.gso = false;
            warn!("UDP GSO is refused ({error}): sending single datagrams from now on");
        }
    }
}

#[cfg(test)]
mod tests;

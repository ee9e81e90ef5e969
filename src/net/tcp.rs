//! TCP: listeners with their limits, and connections that are read in pieces and written
//! by vectors until the kernel refuses.
//!
//! ```text
//!          accept            Output::Close, peer's FIN            queue written
//!            │    ┌──────┐   (its queue is taken over)   ┌─────────┐  FIN sent   ┌──────────┐
//!            └───▶│ Open │──────────────────────────────▶│ Closing │────────────▶│ shut down│
//!                 └──┬───┘                               └────┬────┘             └────┬─────┘
//!                    │ error                                  │ error, time           │ FIN, time
//!                    ▼                                        ▼                       ▼
//!                  gone                                     gone                    gone
//! ```
//!
//! A connection is not just closed: what the peer still sends would make the kernel answer
//! with a reset, and a reset may take our last words away before the peer reads them.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};

use crate::gateway::Listener;
use crate::transmit::TransmitQueue;

/// Buffers given to one `writev`: a GOP's frames, or what is due in a turn. The kernel
/// takes 1024 at most; beyond some dozens it saves nothing more.
const SLICES_MAX: usize = 64;

/// Bytes written to one connection in one turn before others get theirs.
pub(super) const WRITE_BUDGET: usize = 512 * 1024;

/// Time for the writes of one round. Most take some microseconds, but a storm of new players is as
/// many bursts of cached pictures. Whom it does not come to keeps its place.
pub(super) const WRITES_TIME: Duration = Duration::from_millis(2);

/// Reads of an RTMP connection that are acknowledged at once: what it takes to begin publishing
/// or playing. ffmpeg writes its commands one by one with Nagle's algorithm on, so each
/// waits for the acknowledgement of the one before.
pub(super) const QUICK_READS: u8 = 24;

/// A TCP listener with the limit of its connections.
pub(super) struct Listening {
    /// The socket.
    pub(super) socket: TcpListener,
    /// What speaks here.
    pub(super) kind: Listener,
    /// Connections at once.
    pub(super) connections_max: usize,
    /// Connections there are.
    pub(super) connections: usize,
    /// Whether connections may wait in the kernel without an event to come.
    pub(super) ready: bool,
    /// Tells of refused connections, now and then.
    pub(super) refused: Throttle,
}

/// One accepted connection.
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    /// Number of its listener.
    pub(super) listener: usize,
    pub(super) state: State,
    /// Whether the poll tells when it can be written. Asked for when the kernel first
    /// refuses bytes, and then kept.
    pub(super) has_write_interest: bool,
    /// Whether the kernel refused bytes and has not yet said that it takes more.
    pub(super) is_blocked: bool,
    /// Whether it stands in the list of those to be read.
    pub(super) is_readable: bool,
    /// Whether it stands in the list of those to be written.
    pub(super) is_to_be_written: bool,
    /// Whether the poll has announced the peer's FIN, so that a read that
    /// brings less than it could is not the last one.
    pub(super) has_fin: bool,
    /// Reads that are still acknowledged at once; see [`QUICK_READS`].
    pub(super) quick_reads: u8,
}

/// Where a connection is in its life.
pub(super) enum State {
    /// The gateway knows it.
    Open,
    /// The gateway has done with it; see the drawing above.
    Closing {
        /// What is still to be delivered.
        rest: TransmitQueue,
        /// Whether our FIN is out.
        is_shut_down: bool,
        /// When it is cut, whatever is left.
        until: Instant,
    },
}

/// What a read brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ReadOutcome {
    /// So many bytes, and there may be more.
    More(usize),
    /// So many bytes, maybe none, and an event will come for the next ones.
    Last(usize),
    /// The peer has sent everything.
    End,
    /// The connection is broken.
    Failed(io::ErrorKind),
}

/// Why writing stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteOutcome {
    /// The queue is empty.
    Empty,
    /// The kernel takes no more; it will say when it does.
    Blocked,
    /// The budget of a turn is used up.
    Budget,
    /// The connection is broken.
    Failed(io::ErrorKind),
}

impl Connection {
    pub(super) fn new(stream: TcpStream, listener: usize, quick_reads: u8) -> Self {
        Self {
            stream,
            listener,
            state: State::Open,
            has_write_interest: false,
            is_blocked: false,
            is_readable: false,
            is_to_be_written: false,
            has_fin: false,
            quick_reads,
        }
    }

    /// Reads once.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> ReadOutcome {
        read_once(&mut self.stream, buffer, self.has_fin)
    }

    /// Writes `queue` until it is empty, the kernel refuses, or [`WRITE_BUDGET`] is used
    /// up. Answers how many bytes were taken, and why it stopped.
    pub(super) fn write(&mut self, queue: &mut TransmitQueue) -> (usize, WriteOutcome) {
        let (taken, outcome) = write_queue(&mut self.stream, queue, WRITE_BUDGET);
        self.is_blocked = outcome == WriteOutcome::Blocked;
        (taken, outcome)
    }

    /// Whether it is being closed and something is still to be delivered.
    pub(super) fn has_rest(&self) -> bool {
        matches!(
            self.state,
            State::Closing {
                is_shut_down: false,
                ..
            }
        )
    }

    /// Moves a closing connection on: writes the rest, then sends our FIN. Answers
    /// whether it is done with; a broken one is.
    pub(super) fn write_rest(&mut self) -> bool {
        let State::Closing {
            rest, is_shut_down, ..
        } = &mut self.state
        else {
            return false;
        };
        if *is_shut_down {
            return false;
        }
        let (_, outcome) = write_queue(&mut self.stream, rest, WRITE_BUDGET);
        self.is_blocked = outcome == WriteOutcome::Blocked;
        match outcome {
            WriteOutcome::Blocked | WriteOutcome::Budget => false,
            WriteOutcome::Failed(_) => true,
            WriteOutcome::Empty => {
                *is_shut_down = true;
                self.stream.shutdown(Shutdown::Write).is_err()
            }
        }
    }
}

fn read_once(stream: &mut impl Read, buffer: &mut [u8], has_fin: bool) -> ReadOutcome {
    loop {
        return match stream.read(buffer) {
            Ok(0) => ReadOutcome::End,
            // A stream socket that gives less than it could has no more (epoll(7), "using
            // as an edge-triggered interface"): saves the read that would say so.
            Ok(count) if count < buffer.len() && !has_fin => ReadOutcome::Last(count),
            Ok(count) => ReadOutcome::More(count),
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => continue,
                io::ErrorKind::WouldBlock => ReadOutcome::Last(0),
                kind => ReadOutcome::Failed(kind),
            },
        };
    }
}

fn write_queue(
    stream: &mut impl Write,
    queue: &mut TransmitQueue,
    budget: usize,
) -> (usize, WriteOutcome) {
    let mut total = 0;
    loop {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let filled = queue.gather(&mut slices);
        let slices = &slices[..filled];
        if slices.is_empty() {
            return (total, WriteOutcome::Empty);
        }
        if total >= budget {
            return (total, WriteOutcome::Budget);
        }
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        match stream.write_vectored(slices) {
            Ok(0) => return (total, WriteOutcome::Failed(io::ErrorKind::WriteZero)),
            Ok(taken) => {
                queue.advance(taken);
                total += taken;
                if taken < offered {
                    // As with reading: the kernel is full and has noted that it is to tell.
                    return (total, WriteOutcome::Blocked);
                }
            }
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => return (total, WriteOutcome::Blocked),
                kind => return (total, WriteOutcome::Failed(kind)),
            },
        }
    }
}

/// Lets through the first of many like messages, and then one every
/// [`Throttle::INTERVAL`], with the number of those in between.
#[derive(Default)]
pub(super) struct Throttle {
    next: Option<Instant>,
    held_back: u64,
}

impl Throttle {
    /// Time between two messages.
    const INTERVAL: Duration = Duration::from_secs(10);

    /// Counts one; answers how many there were since the last message if it is time for
    /// the next one.
    pub(super) fn count(&mut self, now: Instant) -> Option<u64> {
        self.held_back += 1;
        if self.next.is_some_and(|next| now < next) {
            return None;
        }
        self.next = Some(now + Self::INTERVAL);
        Some(std::mem::take(&mut self.held_back))
    }
}

/// Both addresses of an accepted connection, as peers write them.
pub(super) fn addresses(
    stream: &TcpStream,
    peer: SocketAddr,
) -> io::Result<(SocketAddr, SocketAddr)> {
    use super::sockopt::unmapped;
    Ok((unmapped(peer), unmapped(stream.local_addr()?)))
}

#[cfg(test)]
mod tests;

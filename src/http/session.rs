//! [`Session`]: the server's side of one HTTP/1.1 connection, without its socket.
//!
//! ```text
//!            byte                head whole           body whole
//!   Idle ───────────► Head ─────────────────► Body ─────────────► Ready
//!    ▲                                                              │ poll_event
//!    │ respond, connection kept                                     ▼
//!    └───────────────────────────────────────────────────────── Responding
//!                                                                   │ respond, not kept
//!   any state ──(error with a body on its way)──► Lingering ──► Closed
//! ```
//!
//! One request at a time: what is pipelined behind it waits as bytes, bounded, until it is
//! answered and most of the answer is written. An error is answered, returned once from
//! the call that met it, and the connection is to be closed when [`Session::is_closing`]
//! says so; what comes afterwards is ignored.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::body::BodyReader;
use super::request::Head;
use super::{Error, Limits, Method, Request, Response, Version};
use crate::transmit::TransmitQueue;

/// What happened on the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A request came whole; [`Session::respond`] (or [`Session::upgrade`]) is due.
    Request(Request),
}

/// One connection.
pub struct Session {
    limits: Limits,
    state: State,
    /// What was received and not yet consumed. Owns no memory between requests.
    input: BytesMut,
    /// How many bytes of `input` were searched for the end of a head.
    searched: usize,
    transmit: TransmitQueue,
}

enum State {
    /// Between requests.
    Idle { until: Instant },
    /// Some bytes of a head came.
    Head { until: Instant },
    /// A head came, its body is missing.
    Body {
        head: Box<Head>,
        reader: BodyReader,
        until: Instant,
    },
    /// A request is whole and waits to be polled.
    Ready { head: Box<Head>, until: Instant },
    /// The gateway has the request.
    Responding(Exchange),
    /// Answered with an error while the peer was still sending. Closing now would make its
    /// kernel throw the answer away (a reset), so its bytes are read over for a while.
    Lingering { until: Instant, bytes_left: u64 },
    /// Nothing more happens.
    Closed,
}

/// What of a request its response depends on.
#[derive(Clone, Copy)]
struct Exchange {
    version: Version,
    keep_alive: bool,
    /// HEAD: the response has no body, but its length.
    is_head: bool,
}

impl Session {
    /// A connection accepted at `now`.
    pub fn new(limits: Limits, now: Instant) -> Self {
        Self {
            limits,
            state: State::Idle {
                until: now + limits.head_timeout,
            },
            input: BytesMut::new(),
            searched: 0,
            transmit: TransmitQueue::new(),
        }
    }

    /// Takes what was read from the socket, in pieces of any size.
    ///
    /// # Errors
    /// The connection is over; its answer, if there is one, is queued.
    pub fn receive(&mut self, now: Instant, bytes: &[u8]) -> Result<(), Error> {
        match &mut self.state {
            State::Closed => return Ok(()),
            State::Lingering { bytes_left, .. } => {
                // A `usize` always fits on the machines we build for.
                *bytes_left = bytes_left.saturating_sub(bytes.len() as u64);
                if *bytes_left == 0 {
                    self.finish();
                }
                return Ok(());
            }
            _ => self.input.extend_from_slice(bytes),
        }
        let result = self.advance(now);
        self.settle(now, result)
    }

    /// Ends what took too long. A call before [`Self::next_timeout`] does nothing.
    ///
    /// # Errors
    /// As [`Self::receive`]. A connection that was merely idle ends without an error.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        if self.next_timeout().is_none_or(|due| now < due) {
            return Ok(());
        }
        let result = match self.state {
            State::Head { .. } => Err(Error::HeadTimeout),
            State::Body { .. } => Err(Error::BodyTimeout),
            State::Ready { .. } => Err(Error::Unread),
            State::Idle { .. } if !self.transmit.is_empty() => Err(Error::Unread),
            State::Idle { .. } | State::Lingering { .. } => {
                self.finish();
                Ok(())
            }
            State::Responding(_) | State::Closed => Ok(()),
        };
        self.settle(now, result)
    }

    /// The request that is due, if there is one. While more than
    /// [`TRANSMIT_BYTES_MAX`] of earlier responses wait to be written, pipelined requests
    /// are held back: ask again when some of it was written.
    pub fn poll_event(&mut self) -> Option<Event> {
        if self.transmit.len() > TRANSMIT_BYTES_MAX {
            return None;
        }
        if !matches!(self.state, State::Ready { .. }) {
            return None;
        }
        let State::Ready { head, .. } = std::mem::replace(&mut self.state, State::Closed) else {
            return None;
        };
        self.state = State::Responding(Exchange {
            version: head.request.version,
            keep_alive: head.keep_alive,
            is_head: head.request.method == Method::Head,
        });
        Some(Event::Request(head.request))
    }

    /// Answers the request that [`Self::poll_event`] gave. Without one, because the
    /// connection ended meanwhile, it does nothing.
    ///
    /// # Errors
    /// A pipelined request behind it is broken, as [`Self::receive`].
    pub fn respond(&mut self, now: Instant, response: Response) -> Result<(), Error> {
        let State::Responding(exchange) = self.state else {
            return Ok(());
        };
        let keep_alive = exchange.keep_alive && !response.closes();
        self.transmit
            .push(response.encode_head(exchange.version, keep_alive));
        self.transmit.push(response.wire_body(exchange.is_head));
        if !keep_alive {
            self.finish();
            return Ok(());
        }
        self.state = State::Idle {
            until: now + self.limits.keep_alive_timeout,
        };
        let result = self.advance(now);
        self.settle(now, result)
    }

    /// Answers the request with `101 Switching Protocols` and these headers, and gives the
    /// connection away: what waits to be written, and the bytes that came behind the
    /// request, which are the first of the new protocol.
    pub fn upgrade(mut self, response: Response) -> (TransmitQueue, Bytes) {
        if let State::Responding(exchange) = self.state {
            self.transmit
                .push(response.encode_head(exchange.version, true));
        }
        (self.transmit, self.input.freeze())
    }

    /// What waits to be written to the peer.
    pub fn transmit(&mut self) -> &mut TransmitQueue {
        &mut self.transmit
    }

    /// When [`Self::handle_timeout`] is due. While the gateway has a request it takes
    /// whatever time it likes.
    pub fn next_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Idle { until }
            | State::Head { until }
            | State::Body { until, .. }
            | State::Ready { until, .. }
            | State::Lingering { until, .. } => Some(until),
            State::Responding(_) | State::Closed => None,
        }
    }

    /// Whether the connection is to be closed once what is queued was written.
    pub fn is_closing(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Consumes input until a request is ready or more is needed.
    fn advance(&mut self, now: Instant) -> Result<(), Error> {
        loop {
            match &mut self.state {
                State::Idle { .. } => {
                    self.skip_blank_lines();
                    if self.input.is_empty() {
                        // A kept connection holds no buffer.
                        self.input = BytesMut::new();
                        return Ok(());
                    }
                    self.searched = 0;
                    self.state = State::Head {
                        until: now + self.limits.head_timeout,
                    };
                }
                State::Head { .. } => {
                    let Some(head) = self.take_head()? else {
                        return Ok(());
                    };
                    self.begin_body(now, head)?;
                }
                State::Body { head, reader, .. } => {
                    if !reader.read(&mut self.input)? {
                        // RFC 9110 section 10.1.1: not needed once the body is coming.
                        if head.expects_continue && reader.is_untouched() {
                            self.transmit.push(Bytes::from_static(CONTINUE));
                        }
                        head.expects_continue = false;
                        return Ok(());
                    }
                    self.body_done(now);
                }
                State::Ready { .. } | State::Responding(_) => {
                    let kept = self.limits.head_bytes_max + self.limits.body_bytes_max;
                    return match self.input.len() <= kept {
                        true => Ok(()),
                        false => Err(Error::PipelineTooLong),
                    };
                }
                State::Lingering { .. } | State::Closed => return Ok(()),
            }
        }
    }

    /// RFC 9112 section 2.2: some peers send an empty line behind a body.
    fn skip_blank_lines(&mut self) {
        let blank = |byte: &u8| matches!(byte, b'\r' | b'\n');
        let count = self.input.iter().take_while(|byte| blank(byte)).count();
        let _ = self.input.split_to(count);
    }

    /// Takes a whole head off the input. Each byte is searched once, however small the
    /// pieces it comes in.
    fn take_head(&mut self) -> Result<Option<Head>, Error> {
        // What is no HTTP at all (TLS, RTMP) does not get ten seconds to go on.
        if !self.input.first().is_some_and(u8::is_ascii_alphabetic) {
            return Err(Error::MalformedHead);
        }
        let Some(end) = self.find_head_end() else {
            self.searched = self.input.len();
            let limit = self.limits.target_bytes_max;
            let line = memchr::memchr(b'\n', &self.input);
            return if line.unwrap_or(self.input.len()) > limit {
                Err(Error::TargetTooLong)
            } else if self.input.len() > self.limits.head_bytes_max {
                Err(Error::HeadTooLarge)
            } else {
                Ok(None)
            };
        };
        let line = memchr::memchr(b'\n', &self.input);
        if line.is_some_and(|line| line > self.limits.target_bytes_max) {
            return Err(Error::TargetTooLong);
        }
        if end > self.limits.head_bytes_max {
            return Err(Error::HeadTooLarge);
        }
        let head = self.input.split_to(end);
        Head::parse(&head).map(Some)
    }

    /// Where the blank line behind the head ends. Bare line feeds count as line ends
    /// (RFC 9112 section 2.2).
    fn find_head_end(&self) -> Option<usize> {
        let new = self.input.get(self.searched..)?;
        memchr::memchr_iter(b'\n', new)
            .map(|index| self.searched + index)
            .find(|&end| {
                let before = self.input.get(..end).unwrap_or_default();
                before.ends_with(b"\n") || before.ends_with(b"\n\r")
            })
            .map(|end| end + 1)
    }

    fn begin_body(&mut self, now: Instant, head: Head) -> Result<(), Error> {
        let reader = BodyReader::new(head.framing, self.limits.body_bytes_max)?;
        self.state = State::Body {
            head: Box::new(head),
            reader,
            until: now + self.limits.body_timeout,
        };
        Ok(())
    }

    fn body_done(&mut self, now: Instant) {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Body {
                mut head, reader, ..
            } => {
                head.request.body = reader.into_body();
                self.state = State::Ready {
                    head,
                    until: now + self.limits.keep_alive_timeout,
                };
            }
            other => self.state = other,
        }
    }

    /// Answers an error, if it has an answer, and begins the end of the connection.
    fn settle(&mut self, now: Instant, result: Result<(), Error>) -> Result<(), Error> {
        let Err(error) = result else { return Ok(()) };
        self.input = BytesMut::new();
        let Some(response) = error.response() else {
            self.finish();
            return Err(error);
        };
        self.transmit
            .push(response.encode_head(Version::Http11, false));
        self.transmit.push(response.wire_body(false));
        match error {
            Error::BodyTooLarge
            | Error::HeadTooLarge
            | Error::TooManyHeaders
            | Error::TargetTooLong
            | Error::UnsupportedExpectation => {
                self.state = State::Lingering {
                    until: now + LINGER,
                    bytes_left: LINGER_BYTES_MAX,
                };
            }
            _ => self.finish(),
        }
        Err(error)
    }

    fn finish(&mut self) {
        self.state = State::Closed;
        self.input = BytesMut::new();
    }
}

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Bounds the responses that may wait for a peer that pipelines requests and does not
/// read; at this, further requests are held back.
pub const TRANSMIT_BYTES_MAX: usize = 256 * 1024;

/// How long, and for how many bytes, the rest of a refused request is read over, so that
/// the peer reads the refusal. A well-behaved peer closes before.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: u64 = 4 * 1024 * 1024;

#[cfg(test)]
mod tests;

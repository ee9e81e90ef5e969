//! [`WebSocket`]: the server's side of one WebSocket (RFC 6455), without its socket. Frames,
//! masks, fragments and control frames are `tungstenite`'s; bytes go in and out in memory.
//!
//! Text is all that is spoken here: a binary message ends the connection (1003), and so does
//! text that is not UTF-8 (1007), a message that is too long (1009) or a frame that breaks a
//! rule (1002). Ping frames are answered; none are sent. Extensions are not negotiated.

use std::fmt;
use std::io::{self, Read, Write};

use aws_lc_rs::digest;
use bytes::{Buf, Bytes, BytesMut};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Message, error::CapacityError};

use super::{Request, Response, Status};
use crate::transmit::TransmitQueue;

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A whole text message.
    Text(String),
    /// A ping or pong frame: the peer lives.
    Heard,
    /// The peer closes; its close frame is answered.
    Closed,
}

/// Why a WebSocket ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// A frame breaks a rule of RFC 6455.
    Malformed,
    /// A text message is not UTF-8.
    NotUtf8,
    /// A binary message.
    Binary,
    /// A message is longer than allowed.
    TooLong,
    /// The peer does not read what it is sent.
    Unread,
}

impl Error {
    /// A short name for counters.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "websocket_malformed",
            Self::NotUtf8 => "websocket_not_utf8",
            Self::Binary => "websocket_binary",
            Self::TooLong => "websocket_message_too_long",
            Self::Unread => "websocket_unread",
        }
    }

    /// The status code of the close frame (RFC 6455 section 7.4.1).
    const fn code(self) -> Close {
        match self {
            Self::Malformed => Close::Protocol,
            Self::NotUtf8 => Close::Invalid,
            Self::Binary => Close::Unsupported,
            Self::TooLong => Close::TooLong,
            Self::Unread => Close::Policy,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "a WebSocket frame breaks the protocol",
            Self::NotUtf8 => "a WebSocket text message is not UTF-8",
            Self::Binary => "a binary WebSocket message came; text is spoken here",
            Self::TooLong => "a WebSocket message is too long",
            Self::Unread => "the peer does not read its WebSocket",
        })
    }
}

impl std::error::Error for Error {}

/// With which status code the gateway closes (RFC 6455 section 7.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// 1000: what it was for is done.
    Normal,
    /// 1001: the gateway stops.
    GoingAway,
    /// 1002: a rule of the protocol was broken.
    Protocol,
    /// 1003: not text.
    Unsupported,
    /// 1007: not UTF-8.
    Invalid,
    /// 1008: a rule of ours was broken.
    Policy,
    /// 1009: too long.
    TooLong,
}

impl Close {
    const fn code(self) -> CloseCode {
        match self {
            Self::Normal => CloseCode::Normal,
            Self::GoingAway => CloseCode::Away,
            Self::Protocol => CloseCode::Protocol,
            Self::Unsupported => CloseCode::Unsupported,
            Self::Invalid => CloseCode::Invalid,
            Self::Policy => CloseCode::Policy,
            Self::TooLong => CloseCode::Size,
        }
    }
}

/// One WebSocket.
pub struct WebSocket {
    context: WebSocketContext,
    pipe: Pipe,
    /// An error or a close: nothing more is read.
    is_over: bool,
}

impl WebSocket {
    /// A WebSocket whose upgrade was answered; `transmit` holds what waits to be written, and
    /// `received` what came behind the request. Call [`Self::poll_event`] for it.
    pub fn new(message_bytes_max: usize, transmit: TransmitQueue, received: Bytes) -> Self {
        let config = WebSocketConfig::default()
            // Allocated at once for each connection.
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(message_bytes_max))
            .max_frame_size(Some(message_bytes_max));
        Self {
            context: WebSocketContext::new(Role::Server, Some(config)),
            pipe: Pipe {
                input: BytesMut::from(&received[..]),
                transmit,
            },
            is_over: false,
        }
    }

    /// Takes what was read from the socket. Poll all events before the next call: what is not
    /// taken waits as it came.
    pub fn receive(&mut self, bytes: &[u8]) {
        if !self.is_over {
            self.pipe.input.extend_from_slice(bytes);
        }
    }

    /// The next thing that came; `None` until more bytes do.
    ///
    /// # Errors
    /// The WebSocket is over; its close frame is queued.
    pub fn poll_event(&mut self) -> Result<Option<Event>, Error> {
        if self.is_over {
            return Ok(None);
        }
        let error = match self.context.read(&mut self.pipe) {
            Ok(Message::Text(text)) => return Ok(Some(Event::Text(text.as_str().to_owned()))),
            Ok(Message::Ping(_) | Message::Pong(_)) => {
                // The answer to a ping is written with the next read, which may be late.
                let _ = self.context.flush(&mut self.pipe);
                return self.check_unread().map(|()| Some(Event::Heard));
            }
            Ok(Message::Close(_)) => {
                let _ = self.context.flush(&mut self.pipe);
                self.is_over = true;
                return Ok(Some(Event::Closed));
            }
            Ok(Message::Binary(_) | Message::Frame(_)) => Error::Binary,
            Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                // An idle connection holds no input.
                if self.pipe.input.is_empty() {
                    self.pipe.input = BytesMut::new();
                }
                return Ok(None);
            }
            Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed) => {
                self.is_over = true;
                return Ok(Some(Event::Closed));
            }
            Err(tungstenite::Error::Capacity(CapacityError::MessageTooLong { .. })) => {
                Error::TooLong
            }
            Err(tungstenite::Error::Utf8(_)) => Error::NotUtf8,
            Err(_) => Error::Malformed,
        };
        self.close(error.code());
        Err(error)
    }

    /// Sends a text message.
    ///
    /// # Errors
    /// More than [`TRANSMIT_BYTES_MAX`] wait: the WebSocket is over.
    pub fn send(&mut self, text: &str) -> Result<(), Error> {
        if self.is_over {
            return Ok(());
        }
        // Writing into memory does not fail, and the state was just looked at.
        let _ = self.context.write(&mut self.pipe, Message::text(text));
        self.check_unread()
    }

    /// Ends the WebSocket with a close frame. The connection is to be closed when that is written.
    pub fn close(&mut self, close: Close) {
        if self.is_over {
            return;
        }
        let frame = CloseFrame {
            code: close.code(),
            reason: "".into(),
        };
        let _ = self.context.close(&mut self.pipe, Some(frame));
        self.is_over = true;
        self.pipe.input = BytesMut::new();
    }

    /// Whether nothing more happens: close the connection when what is queued was written.
    pub const fn is_over(&self) -> bool {
        self.is_over
    }

    /// What waits to be written.
    pub fn transmit(&mut self) -> &mut TransmitQueue {
        &mut self.pipe.transmit
    }

    fn check_unread(&mut self) -> Result<(), Error> {
        if self.pipe.transmit.len() <= TRANSMIT_BYTES_MAX {
            return Ok(());
        }
        self.close(Error::Unread.code());
        Err(Error::Unread)
    }
}

/// The answer to a well-formed opening handshake (RFC 6455 section 4.2.2).
pub fn accept(request: &Request) -> Response {
    let key = request.headers.get("sec-websocket-key").unwrap_or_default();
    Response::new(Status::SwitchingProtocols)
        .with_header("Upgrade", "websocket")
        .with_header("Connection", "Upgrade")
        .with_header("Sec-WebSocket-Accept", accept_key(key))
}

/// The answer to any other request for a WebSocket's URL.
pub fn refuse() -> Response {
    Response::problem(
        Status::UpgradeRequired,
        "websocket_needed",
        "This URL speaks WebSocket, version 13.",
    )
    .with_header("Upgrade", "websocket")
    .with_header("Sec-WebSocket-Version", "13")
    .with_cors()
}

fn accept_key(key: &str) -> String {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key.as_bytes());
    context.update(GUID);
    base64(context.finish().as_ref())
}

/// RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let index = (group >> (18 - 6 * place)) & 0x3f;
            text.push(match place <= chunk.len() {
                true => char::from(ALPHABET[index as usize]),
                false => '=',
            });
        }
    }
    text
}

/// What `tungstenite` takes for its stream.
struct Pipe {
    input: BytesMut,
    transmit: TransmitQueue,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(self.input.len());
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.input.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.transmit.push(Bytes::copy_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// RFC 6455 section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Messages are a few hundred bytes, offers a few thousand.
const READ_BUFFER_BYTES: usize = 4 << 10;

/// Bounds what may wait for a peer that does not read; at this its WebSocket ends, and it may
/// come again and resume.
pub const TRANSMIT_BYTES_MAX: usize = 512 << 10;

#[cfg(test)]
mod tests;

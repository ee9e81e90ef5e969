//! [`Signal`]: a client's side of the signalling (`src/signaling/PROTOCOL.md`) on a socket that
//! does not block.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use serde_json::{Value, json};
use tungstenite::protocol::{Role, WebSocket};
use tungstenite::{Error, Message};

use crate::http::{HttpUrl, tcp_reason};

/// One signed-in client.
pub struct Signal {
    state: State,
    next_id: u64,
    /// The newest event.
    seen: u64,
    ping_at: Option<Instant>,
}

enum State {
    /// The upgrade is under way: what is to be written, and what was read.
    Upgrading {
        stream: TcpStream,
        request: Vec<u8>,
        answer: Vec<u8>,
        hello: Value,
    },
    Open(Box<WebSocket<TcpStream>>),
    /// Between two states; and the end.
    Closed,
}

impl Signal {
    /// Begins to connect; `hello` is sent as soon as that is possible.
    pub fn new(address: SocketAddr, url: &HttpUrl, hello: Value) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let HttpUrl { authority, path } = url;
        // The key of RFC 6455's own example: nothing here is secret.
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        Ok(Self {
            state: State::Upgrading {
                stream,
                request: request.into_bytes(),
                answer: Vec::new(),
                hello,
            },
            next_id: 1,
            seen: 0,
            ping_at: None,
        })
    }

    /// The socket, to be registered.
    pub fn stream(&mut self) -> Option<&mut TcpStream> {
        match &mut self.state {
            State::Upgrading { stream, .. } => Some(stream),
            State::Open(socket) => Some(socket.get_mut()),
            State::Closed => None,
        }
    }

    /// The socket is ready: answers and events that came.
    ///
    /// # Errors
    /// A short reason.
    pub fn on_ready(&mut self, now: Instant) -> Result<Vec<Value>, String> {
        if let State::Upgrading { .. } = self.state {
            self.upgrade(now)?;
        }
        let State::Open(socket) = &mut self.state else {
            return Ok(Vec::new());
        };
        let mut messages = Vec::new();
        let mut pings = 0;
        loop {
            match socket.read() {
                Ok(Message::Text(text)) => {
                    let message: Value =
                        serde_json::from_str(&text).map_err(|_| "signal_malformed")?;
                    self.seen = message["seq"].as_u64().unwrap_or(0).max(self.seen);
                    match message["type"].as_str() {
                        Some("ping") => pings += 1,
                        _ => messages.push(message),
                    }
                }
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return Err("signal_closed".into()),
            }
        }
        for _ in 0..pings {
            self.write(&json!({ "type": "pong" }))?;
        }
        self.flush()?;
        Ok(messages)
    }

    /// Sends a request; answers its id.
    ///
    /// # Errors
    /// A short reason.
    pub fn request(&mut self, kind: &str, mut fields: Value) -> Result<u64, String> {
        let id = self.next_id;
        self.next_id += 1;
        fields["type"] = kind.into();
        fields["id"] = id.into();
        self.write(&fields)?;
        self.flush()?;
        Ok(id)
    }

    /// When [`Self::on_due`] is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.ping_at
    }

    /// Shows that it lives.
    ///
    /// # Errors
    /// A short reason.
    pub fn on_due(&mut self, now: Instant) -> Result<(), String> {
        if self.ping_at.is_some_and(|at| at <= now) {
            self.ping_at = Some(now + PING_INTERVAL);
            let seen = self.seen;
            self.request("ping", json!({ "seq": seen }))?;
        }
        Ok(())
    }

    fn upgrade(&mut self, now: Instant) -> Result<(), String> {
        let State::Upgrading {
            stream,
            request,
            answer,
            ..
        } = &mut self.state
        else {
            return Ok(());
        };
        if let Ok(Some(error)) = stream.take_error() {
            return Err(tcp_reason(error.kind()));
        }
        while !request.is_empty() {
            match stream.write(request) {
                Ok(count) => drop(request.drain(..count)),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::NotConnected => return Ok(()),
                    kind => return Err(tcp_reason(kind)),
                },
            }
        }
        let mut buffer = [0; 4_096];
        let end = loop {
            if let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            match stream.read(&mut buffer) {
                Ok(0) => return Err("signal_closed".into()),
                Ok(count) => answer.extend_from_slice(&buffer[..count]),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return Ok(()),
                    kind => return Err(tcp_reason(kind)),
                },
            }
        };
        if !answer.starts_with(b"HTTP/1.1 101 ") {
            return Err("signal_refused".into());
        }
        let rest = answer.split_off(end);
        if let State::Upgrading { stream, hello, .. } =
            std::mem::replace(&mut self.state, State::Closed)
        {
            let socket = WebSocket::from_partially_read(stream, rest, Role::Client, None);
            self.state = State::Open(Box::new(socket));
            self.ping_at = Some(now + PING_INTERVAL);
            self.request("hello", hello)?;
        }
        Ok(())
    }

    fn write(&mut self, message: &Value) -> Result<(), String> {
        let State::Open(socket) = &mut self.state else {
            return Err("signal_closed".into());
        };
        let text = Message::Text(message.to_string().into());
        match socket.write(text) {
            Ok(()) => Ok(()),
            // It is queued.
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(_) => Err("signal_closed".into()),
        }
    }

    fn flush(&mut self) -> Result<(), String> {
        let State::Open(socket) = &mut self.state else {
            return Ok(());
        };
        match socket.flush() {
            Ok(()) => Ok(()),
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(_) => Err("signal_closed".into()),
        }
    }
}

/// Well within any gateway's `heartbeat_ms`.
const PING_INTERVAL: Duration = Duration::from_secs(5);

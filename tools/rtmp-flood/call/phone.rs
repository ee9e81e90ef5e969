//! [`PhoneLegs`]: the media tags of one simulated mini-program, on sockets that do not block.

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rtmp_gateway::rtmp::client::RtmpUrl;

use crate::tags::{LivePlayer, LivePusher, Output, Phone, Tag};

/// One tag and its socket.
pub struct Leg<T> {
    /// The tag.
    pub tag: T,
    stream: Option<TcpStream>,
    is_connected: bool,
    token: Token,
    /// State codes.
    pub codes: Vec<i32>,
}

impl Leg<LivePusher> {
    /// `<live-pusher>` with camera and microphone.
    ///
    /// # Errors
    /// A short reason.
    pub fn push(url: &str, phone: &Phone, seed: u64, token: Token) -> Result<Self, String> {
        let tag = LivePusher::new(parse(url)?, phone.clone(), [true, true], seed);
        Ok(Self::new(tag, token))
    }
}

impl Leg<LivePlayer> {
    /// `<live-player>`.
    ///
    /// # Errors
    /// A short reason.
    pub fn play(url: &str, seed: u64, token: Token) -> Result<Self, String> {
        Ok(Self::new(LivePlayer::new(parse(url)?, seed), token))
    }
}

impl<T: Tag> Leg<T> {
    fn new(tag: T, token: Token) -> Self {
        Self {
            tag,
            stream: None,
            is_connected: false,
            token,
            codes: Vec::new(),
        }
    }

    /// Does what the tag wants.
    pub fn pump(&mut self, now: Instant, server: SocketAddr, registry: &Registry) {
        while let Some(output) = self.tag.poll_output() {
            match output {
                Output::Connect => match self.connect(server, registry) {
                    Ok(()) => {}
                    Err(_) => self.tag.handle_closed(now),
                },
                Output::Transmit => self.write(),
                Output::Close => {
                    self.write();
                    self.stream = None;
                }
                Output::Code(code) => self.codes.push(code),
            }
        }
    }

    /// The socket is ready.
    pub fn on_ready(&mut self, now: Instant, buffer: &mut [u8]) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        if !self.is_connected {
            if !matches!(stream.take_error(), Ok(None)) {
                self.stream = None;
                self.tag.handle_closed(now);
                return;
            }
            if stream.peer_addr().is_err() {
                return;
            }
            self.is_connected = true;
            self.tag.handle_connected();
        }
        self.write();
        while let Some(stream) = &mut self.stream {
            match stream.read(buffer) {
                Ok(count @ 1..) => {
                    self.tag.handle_received(now, &buffer[..count]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => {
                    self.stream = None;
                    self.tag.handle_closed(now);
                }
            }
        }
    }

    /// Does what is due.
    pub fn on_due(&mut self, now: Instant) {
        if self.tag.next_timeout().is_some_and(|at| at <= now) {
            self.tag.handle_timeout(now);
        }
    }

    fn connect(&mut self, server: SocketAddr, registry: &Registry) -> std::io::Result<()> {
        let mut stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut stream, self.token, interest)?;
        self.stream = Some(stream);
        self.is_connected = false;
        Ok(())
    }

    /// Writes what there is, as far as the kernel takes it; a broken connection shows in the next read.
    fn write(&mut self) {
        let Some(stream) = self.stream.as_mut().filter(|_| self.is_connected) else {
            return;
        };
        let queue = self.tag.transmit();
        while !queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); 32];
            let count = queue.gather(&mut slices);
            match stream.write_vectored(&slices[..count]) {
                Ok(count) => queue.advance(count),
                Err(_) => return,
            }
        }
    }
}

fn parse(url: &str) -> Result<RtmpUrl, String> {
    RtmpUrl::parse(url).map_err(|error| format!("{url:?}: {error}"))
}

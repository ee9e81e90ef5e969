//! [`RtmpPeer`]: a publisher or player by RTMP on its socket.

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use mio::net::TcpStream;

use rtmp_gateway::rtmp::client::{Client, ClientOptions, Event, Goal, RtmpUrl};
use rtmp_gateway::rtmp::message::type_id;

use crate::clip::What;
use crate::http::tcp_reason;
use crate::scope::Scope;
use crate::sender::Sender;
use crate::skim::{Media, Skimmed, Skimmer};
use crate::watch::{Picture, Watch};

/// One connection.
pub struct RtmpPeer {
    /// To be registered with the loop, and taken out of it at the end.
    pub stream: TcpStream,
    client: Client,
    goal: Goal,
    skimmer: Skimmer,
    /// Whether the handshake is over.
    has_chunks: bool,
    /// Whether the kernel took all that there was.
    is_blocked: bool,
    sender: Option<Sender>,
}

impl RtmpPeer {
    /// Begins to connect.
    pub fn new(address: SocketAddr, url: RtmpUrl, goal: Goal, seed: u64) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            client: Client::new(url, goal, ClientOptions::default(), seed),
            goal,
            skimmer: Skimmer::new(),
            has_chunks: false,
            is_blocked: true,
            sender: None,
        })
    }

    /// The socket can be written, or is connected.
    pub fn on_writable(&mut self, scope: &mut Scope<'_>) -> Result<(), String> {
        if let Ok(Some(error)) = self.stream.take_error() {
            return Err(tcp_reason(error.kind()));
        }
        self.is_blocked = false;
        self.flush(scope)
    }

    /// The socket can be read. `to_end`: the server has closed its side, so that there is no
    /// other event to come.
    pub fn on_readable(
        &mut self,
        to_end: bool,
        watch: &mut Watch,
        scope: &mut Scope<'_>,
    ) -> Result<(), String> {
        loop {
            // Lent out of the scope, because the scope goes along.
            let mut buffer = std::mem::take(&mut scope.buffers.tcp);
            let read = self.stream.read(&mut buffer);
            scope.now = Instant::now();
            let outcome = match &read {
                Ok(count) => self.receive(&buffer[..*count], watch, scope),
                Err(_) => Ok(()),
            };
            let buffer_bytes = buffer.len();
            scope.buffers.tcp = buffer;
            outcome?;
            match read {
                Ok(0) => return Err("closed_by_server".into()),
                // Less than there was room for: the socket is empty, as epoll(7) says.
                Ok(count) if count < buffer_bytes && !to_end => return self.flush(scope),
                Ok(_) => {}
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return self.flush(scope),
                    ErrorKind::Interrupted => {}
                    kind => return Err(tcp_reason(kind)),
                },
            }
        }
    }

    /// When the next thing is to be sent.
    pub fn next_due(&self, scope: &Scope<'_>) -> Option<Instant> {
        Some(self.sender.as_ref()?.due(scope.clip?.rtmp()))
    }

    /// Sends what is due.
    pub fn on_due(&mut self, scope: &mut Scope<'_>) -> Result<(), String> {
        let (Some(sender), Some(clip)) = (&mut self.sender, scope.clip) else {
            return Ok(());
        };
        while let Some(ready) = sender.take(clip.rtmp(), scope.now) {
            let now_us = scope.clock.us(scope.now);
            let message = clip.rtmp_message(
                ready.what,
                // Wraps as RTMP's does.
                ready.time.as_millis() as u32,
                CHUNK_SIZE,
                || sender.stamp(now_us),
                &mut scope.buffers.scratch,
            );
            match ready.what {
                What::Video(_) => scope.tally.flow.pictures += 1,
                What::Audio(_) => scope.tally.flow.sounds += 1,
            }
            scope.tally.flow.packets += 1;
            self.client.send_shared(&message);
        }
        if self.client.transmit().len() > BACKLOG_BYTES_MAX {
            scope.tally.faults.unsent += 1;
            return Err("server_reads_too_slowly".into());
        }
        self.flush(scope)
    }

    /// Says goodbye as far as the kernel takes it.
    pub fn leave(&mut self, scope: &mut Scope<'_>) {
        self.client.close();
        // The socket is closed next: what it does not take now is not worth waiting for.
        let _ = self.flush(scope);
    }

    fn receive(
        &mut self,
        bytes: &[u8],
        watch: &mut Watch,
        scope: &mut Scope<'_>,
    ) -> Result<(), String> {
        let mut input = bytes;
        if !self.has_chunks {
            self.has_chunks = (self.client.receive_handshake(&mut input))
                .map_err(|error| error.reason().to_owned())?;
        }
        if !self.has_chunks {
            return Ok(());
        }
        loop {
            let skimmed = self.skimmer.read(&mut input);
            match skimmed.map_err(|error| error.reason().to_owned())? {
                None => break,
                Some(Skimmed::Media(media)) => {
                    if self.goal == Goal::Play {
                        watch_media(&media, watch, scope);
                    }
                }
                Some(Skimmed::Message(message)) => {
                    (self.client.receive_message(message))
                        .map_err(|error| error.reason().to_owned())?;
                    self.on_events(watch, scope)?;
                }
            }
        }
        self.client.count_received(bytes.len() as u64);
        if self.goal == Goal::Play {
            scope.tally.flow.bytes += bytes.len() as u64;
        }
        if !watch.is_ready() && !self.client.transmit().is_empty() {
            // Up to there, the last command that goes out is the one that brings media.
            watch.ask(scope.now);
        }
        Ok(())
    }

    fn on_events(&mut self, watch: &mut Watch, scope: &mut Scope<'_>) -> Result<(), String> {
        while let Some(event) = self.client.poll_event() {
            match event {
                Event::Publishing => {
                    watch.ready(scope.now, scope.tally);
                    self.begin(scope);
                }
                Event::Playing => {
                    watch.ready(scope.now, scope.tally);
                }
                Event::Status { level, code, .. } if level == "error" => return Err(code),
                // Of connect, which has no level.
                Event::Status { code, .. } if code.contains("Rejected") => return Err(code),
                Event::Closed => return Err("closed_by_server".into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Media may be sent.
    fn begin(&mut self, scope: &mut Scope<'_>) {
        let Some(clip) = scope.clip else {
            return;
        };
        self.client.send_metadata(0, &clip.metadata);
        for header in clip.rtmp_headers(CHUNK_SIZE) {
            self.client.send_shared(&header);
        }
        let publisher = scope.random.next() as u32;
        let sender = Sender::new(publisher, clip.duration, scope.now);
        scope.published.insert(sender.publisher(), scope.now);
        self.sender = Some(sender);
    }

    fn flush(&mut self, scope: &mut Scope<'_>) -> Result<(), String> {
        let queue = self.client.transmit();
        while !self.is_blocked && !queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); 32];
            let filled = queue.gather(&mut slices);
            match self.stream.write_vectored(&slices[..filled]) {
                Ok(count) => {
                    queue.advance(count);
                    if self.goal == Goal::Publish {
                        scope.tally.flow.bytes += count as u64;
                    }
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::NotConnected => self.is_blocked = true,
                    ErrorKind::Interrupted => {}
                    kind => return Err(tcp_reason(kind)),
                },
            }
        }
        Ok(())
    }
}

/// Looks at the first and the last bytes of a message.
fn watch_media(media: &Media<'_>, watch: &mut Watch, scope: &mut Scope<'_>) {
    scope.tally.flow.packets += 1;
    let [first, second] = *media.head.first_chunk().unwrap_or(&[0; 2]);
    let timestamp = u64::from(media.timestamp);
    if media.type_id == type_id::AUDIO {
        let (is_coded, is_other) = match first >> 4 {
            AAC => (second == 1, false),
            EXTENDED_AUDIO => (first & 0x0f == 1, false),
            _ => (false, true),
        };
        if is_coded || is_other {
            watch.sound(timestamp, 1_000, scope.tally);
        }
        return;
    }
    // Enhanced RTMP has the packet type in the first byte and a FourCC behind it.
    let is_enhanced = first & 0x80 != 0;
    let (packet_type, header_bytes) = match is_enhanced {
        true if first & 0x0f == 3 => (1, 5),
        true => (first & 0x0f, 8),
        false => (second, 5),
    };
    match packet_type {
        0 => watch.headers(),
        1 if media.head.len() > header_bytes => {
            let stamp = media.tail.stamp();
            let published = match watch.has_key() {
                true => None,
                false => scope.published(stamp),
            };
            let picture = Picture {
                at: scope.now,
                at_us: scope.clock.us(scope.now),
                key: (first >> 4) & 7 == 1,
                timestamp,
                // One slice, or a little too much: only less is a fault.
                slice_bytes: media.bytes.saturating_sub(header_bytes as u32 + 4),
                stamp,
                published,
            };
            watch.picture(picture, scope.measured_from_us, scope.tally);
        }
        _ => {}
    }
}

/// FLV's number of AAC, and the one that announces the header of Enhanced RTMP.
const AAC: u8 = 10;
const EXTENDED_AUDIO: u8 = 9;

/// As ffmpeg.
const CHUNK_SIZE: u32 = 60_000;

/// A publisher with more than that unsent is not being read: at 1 Mbit/s, half a minute.
const BACKLOG_BYTES_MAX: usize = 4 << 20;

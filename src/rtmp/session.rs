//! [`Session`]: the server's side of one RTMP connection, without its socket.
//!
//! ```text
//!              C0 C1 C2               connect
//!  Handshaking ─────────▶ Connecting ─────────▶ Connected
//!       │                     │ refused             │  per NetStream:
//!       │ error, timeout      │ error, timeout      │
//!       ▼                     ▼                     │      publish            accept
//!     Closed ◀────────────────┴─────────────────────┤  Idle ──────▶ PublishAsked ─────▶ Publishing
//!                                error, timeout,    │   │ ▲ play      reject: closed
//!                                rejection, close   │   │ └──────────────────────────── stop
//!                                                   │   ▼        hold          publish_notify
//!                                                   │  PlayAsked ─────▶ Held ◀─────────────▶ Playing
//!                                                   │     └──────────── accept ────────────────▲
//!                                                   │   unpublish_notify leads back to Held
//! ```
//!
//! The session answers by itself whatever needs no decision: the handshake, acknowledgements,
//! pings, connect, createStream and the commands around them, known or not (RTMP 1.0 sections
//! 5 to 7). The gateway decides about publish and play ([`Event`]), gets a publisher's media
//! as events, and sends players [`SharedMessage`]s.
//!
//! Chunk streams out: 2 control, 3 commands, and 4, 5 and 6 for shared audio, data and
//! video; the last three never go through the connection's own header compression.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::amf0::{self, Value};
use super::chunk::{ChunkReader, ChunkWriter};
use super::command::ConnectInfo;
use super::handshake::ServerHandshake;
use super::message::{BandwidthLimit, Control, Message, UserControl, type_id};
use crate::transmit::TransmitQueue;

pub use event::{CloseReason, Event, PlayRefusal, PlayRequest, PublishRefusal, PublishRequest};
pub use limits::{Error, Limits, Timer};
pub use reply::Level;
pub use shared::SharedMessage;

mod commands;
mod decisions;
mod event;
mod limits;
mod reply;
pub(in crate::rtmp) mod shared;

#[cfg(test)]
mod tests;

/// The server's side of one connection. See the module's text.
///
/// Feed it with [`receive`](Self::receive) and [`handle_timeout`](Self::handle_timeout), then
/// drain [`poll_event`](Self::poll_event) and [`transmit`](Self::transmit). After its end every
/// input is without effect; what is queued can still be taken.
#[derive(Debug)]
pub struct Session {
    limits: Limits,
    state: State,
    /// What is waited for and when it is looked at; `None` once closed.
    timer: Option<(Timer, Instant)>,
    reader: ChunkReader,
    writer: ChunkWriter,
    transmit: TransmitQueue,
    events: VecDeque<Event>,
    streams: Vec<NetStream>,
    requests: Requests,
    /// Whether FCPublish was called, so that its callbacks are expected.
    calls_back_fc_publish: bool,
    /// Set when the gateway will not have this peer.
    refusal: Option<Box<str>>,
    flow: Flow,
    life: Life,
    stats: Stats,
}

/// Counters of oddities that do not end a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Media messages on a NetStream that does not publish.
    pub media_ignored: u64,
    /// Data messages that are not AMF or not for us.
    pub data_ignored: u64,
    /// Commands that nobody knows.
    pub commands_unknown: u64,
}

#[derive(Debug)]
enum State {
    /// Until C2 is through.
    Handshaking(Box<ServerHandshake>),
    /// Until connect.
    Connecting,
    /// Until the end.
    Connected(Box<ConnectInfo>),
    /// Every input is without effect.
    Closed,
}

/// One NetStream (section 7.2.2).
#[derive(Debug)]
struct NetStream {
    /// Message stream ID, above 0.
    id: u32,
    role: Role,
    /// Which of the session's requests the role comes from.
    request: u64,
    /// The name as the peer wrote it in publish or play.
    raw_name: Box<str>,
    receive_audio: bool,
    receive_video: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Created, or done.
    Idle,
    /// publish came; the gateway decides.
    PublishAsked,
    Publishing,
    /// play came; the gateway decides.
    PlayAsked {
        reset: bool,
    },
    /// Told that it plays, and waits for a publisher.
    Held,
    Playing,
}

impl Role {
    const fn is_publisher(self) -> bool {
        matches!(self, Role::PublishAsked | Role::Publishing)
    }

    const fn is_player(self) -> bool {
        matches!(self, Role::PlayAsked { .. } | Role::Held | Role::Playing)
    }
}

/// Publish and Play events, counted, so that a decision is never taken for one about a
/// request that the gateway has not seen yet.
#[derive(Debug, Default)]
struct Requests {
    queued: u64,
    polled: u64,
}

/// Byte counts of both directions.
#[derive(Debug)]
struct Flow {
    received: u64,
    /// The value of `received` in the last acknowledgement sent.
    acknowledged: u64,
    /// Bytes between two acknowledgements, as the peer asked.
    ack_window: u64,
    /// Window Acknowledgement Size last sent.
    ack_window_sent: u32,
    /// All bytes ever queued.
    queued: u64,
    /// Bytes of answers queued since the queue was last seen empty.
    replies: usize,
}

/// Signs of life.
#[derive(Debug)]
struct Life {
    began: Instant,
    last_sign: Instant,
    /// Bytes that had left the queue when it was last looked at.
    written: u64,
    is_pinged: bool,
}

impl Session {
    /// A session that waits for C0. `seed` fills the random parts of the handshake.
    pub fn new(limits: Limits, seed: u64, now: Instant) -> Self {
        Self {
            limits,
            state: State::Handshaking(Box::new(ServerHandshake::new(seed))),
            timer: Some((Timer::Handshake, now + limits.handshake_timeout)),
            reader: ChunkReader::new(limits.chunks),
            writer: ChunkWriter::new(),
            transmit: TransmitQueue::new(),
            events: VecDeque::new(),
            streams: Vec::new(),
            requests: Requests::default(),
            calls_back_fc_publish: false,
            refusal: None,
            flow: Flow {
                received: 0,
                acknowledged: 0,
                ack_window: u64::from(limits.ack_window),
                ack_window_sent: limits.ack_window,
                queued: 0,
                replies: 0,
            },
            life: Life {
                began: now,
                last_sign: now,
                written: 0,
                is_pinged: false,
            },
            stats: Stats::default(),
        }
    }

    /// Takes bytes from the peer, cut anywhere.
    ///
    /// The number of events and answers that it leads to is bounded by the number of bytes.
    ///
    /// # Errors
    /// An error ends the session. Events and answers to what came before it can still be taken.
    pub fn receive(&mut self, now: Instant, bytes: &[u8]) -> Result<(), Error> {
        if self.is_closed() {
            return Ok(());
        }
        self.life.last_sign = now;
        self.life.is_pinged = false;
        self.flow.received += bytes.len() as u64;
        if self.transmit.is_empty() {
            self.flow.replies = 0;
        }
        let outcome = self.consume(now, bytes);
        if outcome.is_err() {
            self.end();
        } else if !self.is_closed() {
            self.acknowledge();
        }
        outcome
    }

    /// Does what is due at `now`; too early, it does nothing.
    ///
    /// # Errors
    /// [`Error::TimedOut`] ends the session.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        let Some((timer, due)) = self.timer else {
            return Ok(());
        };
        if now < due {
            return Ok(());
        }
        if timer == Timer::Silence && self.look_for_life(now) {
            return Ok(());
        }
        self.end();
        Err(Error::TimedOut(timer))
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called. Changes rarely: bytes
    /// that arrive do not move it.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timer.map(|(_, due)| due)
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        if matches!(event, Some(Event::Publish { .. } | Event::Play { .. })) {
            self.requests.polled += 1;
        }
        let is_media = matches!(event, Some(Event::Video { .. } | Event::Audio { .. }));
        if self.events.is_empty() && (!is_media || self.events.capacity() > EVENTS_KEPT) {
            // A session that only plays, or is idle, holds no queue memory.
            self.events = VecDeque::new();
        }
        event
    }

    /// What is to be written to the peer.
    pub fn transmit(&mut self) -> &mut TransmitQueue {
        &mut self.transmit
    }

    /// Sends a message to the player on `stream_id`; the stream must be playing.
    ///
    /// It is shared, not copied. A stream that does not play gets nothing.
    pub fn send_shared(&mut self, stream_id: u32, message: &SharedMessage) {
        if self.role(stream_id) != Some(Role::Playing) {
            return;
        }
        if message.chunk_size() != self.writer.chunk_size() {
            self.queue(&Control::SetChunkSize(message.chunk_size()).to_message());
        }
        self.flow.queued += message.len() as u64;
        message.queue(stream_id, &mut self.transmit);
    }

    /// A media event with a payload of `bytes` bytes was of no use. Whoever sends much for
    /// nothing pays with memory of its own for each message.
    pub fn media_dropped(&mut self, bytes: usize) {
        self.reader.note_dropped(bytes);
    }

    /// Whether the session has ended.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// What the peer said when it connected.
    pub fn connect_info(&self) -> Option<&ConnectInfo> {
        match &self.state {
            State::Connected(info) => Some(info),
            _ => None,
        }
    }

    /// Bytes received, handshake included.
    pub fn bytes_received(&self) -> u64 {
        self.flow.received
    }

    /// Bytes ever queued for the peer, handshake not included.
    pub fn bytes_queued(&self) -> u64 {
        self.flow.queued
    }

    /// Counters of oddities.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    fn consume(&mut self, now: Instant, bytes: &[u8]) -> Result<(), Error> {
        let mut input = bytes;
        while !self.is_closed() {
            if let State::Handshaking(handshake) = &mut self.state {
                if !handshake.read(&mut input, &mut self.transmit)? {
                    break;
                }
                self.state = State::Connecting;
                self.timer = Some((Timer::Connect, now + self.limits.connect_timeout));
            }
            let Some(message) = self.reader.read(&mut input)? else {
                break;
            };
            self.on_message(now, message)?;
            if self.flow.replies > self.limits.reply_bytes_max {
                return Err(Error::ReplyBacklog {
                    bytes: self.flow.replies,
                });
            }
        }
        Ok(())
    }

    fn on_message(&mut self, now: Instant, message: Message) -> Result<(), Error> {
        match message.type_id {
            type_id::SET_CHUNK_SIZE..=type_id::SET_PEER_BANDWIDTH => self.on_control(&message),
            type_id::COMMAND_AMF0 | type_id::COMMAND_AMF3 => self.on_command(now, &message),
            type_id if !matches!(self.state, State::Connected(_)) => {
                Err(Error::NotConnected { type_id })
            }
            type_id::AGGREGATE => {
                for part in message.aggregate() {
                    // A broken aggregate loses its end, no more.
                    let Ok(mut part) = part else {
                        self.stats.media_ignored += 1;
                        break;
                    };
                    // One part that is kept must not keep all.
                    part.payload = Bytes::copy_from_slice(&part.payload);
                    self.on_media(part);
                }
                Ok(())
            }
            _ => {
                self.on_media(message);
                Ok(())
            }
        }
    }

    /// Section 5.4 and 6.2. Chunk sizes and aborts are the reader's affair.
    fn on_control(&mut self, message: &Message) -> Result<(), Error> {
        match Control::decode(message)? {
            Some(Control::WindowAckSize(window)) => {
                self.flow.ack_window = u64::from(window.max(ACK_WINDOW_MIN));
            }
            // Section 5.4.5: answered by a window size if it is another than the last one sent.
            Some(Control::SetPeerBandwidth { window, .. })
                if window != self.flow.ack_window_sent =>
            {
                self.flow.ack_window_sent = window;
                self.reply(&Control::WindowAckSize(window).to_message());
            }
            Some(Control::User(UserControl::PingRequest(time))) => {
                self.reply(&Control::User(UserControl::PingResponse(time)).to_message());
            }
            _ => {}
        }
        Ok(())
    }

    /// Audio, video and data.
    fn on_media(&mut self, message: Message) {
        let Some(stream_id) = self.publishing_stream(message.stream_id) else {
            self.stats.media_ignored += 1;
            self.media_dropped(message.payload.len());
            return;
        };
        let timestamp = message.timestamp;
        let event = match message.type_id {
            type_id::VIDEO => Event::Video {
                stream_id,
                timestamp,
                payload: message.payload,
            },
            type_id::AUDIO => Event::Audio {
                stream_id,
                timestamp,
                payload: message.payload,
            },
            type_id::DATA_AMF0 | type_id::DATA_AMF3 => match self.metadata(&message) {
                Some(values) => Event::Metadata {
                    stream_id,
                    timestamp,
                    values,
                },
                None => {
                    self.stats.data_ignored += 1;
                    return;
                }
            },
            // Shared objects and what else there may be.
            _ => return,
        };
        self.events.push_back(event);
    }

    /// The values of an `onMetaData` in a data message.
    fn metadata(&self, message: &Message) -> Option<Value> {
        let body = message.amf0_body()?;
        let values = amf0::decode_all(body, self.limits.amf).ok()?;
        let mut values = values.into_iter().peekable();
        // The wrapper is an order to the server and not for players; ZLMediaKit notes encoders
        // that leave it out.
        values.next_if(|value| value.as_str() == Some("@setDataFrame"));
        values.next_if(|value| value.as_str() == Some("onMetaData"))?;
        values.next()
    }

    /// The NetStream that media on `stream_id` belongs to.
    ///
    /// Some encoders put media on a message stream of their own choice: with one publication on
    /// the connection there is no doubt which one is meant.
    fn publishing_stream(&self, stream_id: u32) -> Option<u32> {
        let mut only = None;
        for stream in &self.streams {
            if stream.role.is_publisher() {
                if stream.id == stream_id {
                    return Some(stream_id);
                }
                only = match only {
                    None => Some(Some(stream.id)),
                    Some(_) => Some(None),
                };
            }
        }
        only.flatten()
    }

    /// Section 5.4.3: the count wraps at 4 GiB.
    fn acknowledge(&mut self) {
        let owed = self.flow.received - self.flow.acknowledged;
        if owed >= self.flow.ack_window && !matches!(self.state, State::Handshaking(_)) {
            self.flow.acknowledged = self.flow.received;
            // The low 32 bits are what is meant.
            let count = self.flow.received as u32;
            self.reply(&Control::Acknowledgement(count).to_message());
        }
    }

    /// The first messages of a server that was asked to connect.
    fn queue_windows(&mut self) {
        let window = self.limits.ack_window;
        self.reply(&Control::WindowAckSize(window).to_message());
        let bandwidth = Control::SetPeerBandwidth {
            window,
            limit: BandwidthLimit::Dynamic,
        };
        self.reply(&bandwidth.to_message());
        self.reply(&Control::SetChunkSize(self.limits.chunk_size_out).to_message());
    }

    /// Arms the timer that fits what the NetStreams do.
    fn arm(&mut self, now: Instant) {
        let active = self.streams.iter().any(|stream| stream.role != Role::Idle);
        self.timer = if self.is_closed() {
            None
        } else if active {
            Some((Timer::Silence, self.silence_due()))
        } else {
            Some((Timer::Request, now + self.limits.request_timeout))
        };
    }

    /// How long the peer may show no sign of life.
    fn silence_limit(&self) -> Duration {
        let publishes = self.streams.iter().any(|stream| stream.role.is_publisher());
        if publishes {
            self.limits.publish_silence
        } else {
            self.limits.play_silence
        }
    }

    fn silence_due(&self) -> Instant {
        let limit = self.silence_limit();
        let wait = if self.life.is_pinged {
            limit
        } else {
            limit / 2
        };
        self.life.last_sign + wait
    }

    /// The silence timer fired: pings or rearms. `false` when time is up.
    fn look_for_life(&mut self, now: Instant) -> bool {
        // A player needs not say anything: that it takes media is enough. The ping alone, which
        // a dead peer's socket buffer takes as well, is not.
        let written = self.flow.queued.saturating_sub(self.transmit.len() as u64);
        let publishes = self.streams.iter().any(|stream| stream.role.is_publisher());
        if !publishes && written > self.life.written + PING_BYTES {
            self.life.last_sign = now;
            self.life.is_pinged = false;
        }
        self.life.written = written;
        let silent = now.saturating_duration_since(self.life.last_sign);
        let limit = self.silence_limit();
        if silent >= limit {
            return false;
        }
        if silent >= limit / 2 && !self.life.is_pinged {
            self.life.is_pinged = true;
            let clock = now.saturating_duration_since(self.life.began).as_millis();
            // Section 7.1.7: the server's clock in milliseconds; the low 32 bits will do.
            let ping = Control::User(UserControl::PingRequest(clock as u32));
            self.queue(&ping.to_message());
        }
        self.timer = Some((Timer::Silence, self.silence_due()));
        true
    }

    fn stream_mut(&mut self, stream_id: u32) -> Option<&mut NetStream> {
        self.streams
            .iter_mut()
            .find(|stream| stream.id == stream_id)
    }

    /// The role of a NetStream, if the gateway knows the request that it comes from.
    fn decided_role(&self, stream_id: u32) -> Option<Role> {
        let stream = self.streams.iter().find(|stream| stream.id == stream_id)?;
        (stream.request <= self.requests.polled).then_some(stream.role)
    }

    fn role(&self, stream_id: u32) -> Option<Role> {
        let stream = self.streams.iter().find(|stream| stream.id == stream_id)?;
        Some(stream.role)
    }

    /// Queues an answer, which counts against [`Limits::reply_bytes_max`].
    fn reply(&mut self, message: &Message) {
        self.flow.replies += self.queue(message);
    }

    fn queue(&mut self, message: &Message) -> usize {
        let bytes = self.writer.write(message);
        let len = bytes.len();
        self.flow.queued += len as u64;
        self.transmit.push(bytes);
        len
    }

    /// Ends the session without a word.
    fn end(&mut self) {
        self.state = State::Closed;
        self.timer = None;
        self.streams = Vec::new();
        self.reader = ChunkReader::new(self.limits.chunks);
    }
}

/// The chunk stream of commands.
const COMMAND_CSID: u32 = 3;
/// A smaller window asked for by a peer counts as this one, so that a stream of small
/// messages is not answered each by an acknowledgement.
const ACK_WINDOW_MIN: u32 = 4_096;
/// Room for events that a publisher's session keeps: the messages of a usual read.
const EVENTS_KEPT: usize = 8;
/// A chunk with a ping: what a silent connection is given without being asked.
const PING_BYTES: u64 = 18;

//! The gateway as one state machine: facts and time go in, things to do come out.
//!
//! [`Gateway`] owns every session, the hub and what joins them, by `&mut`. It has no socket,
//! clock or thread: the world (`net`, or a test) tells it what happened by
//! [`Gateway::handle_input`] and then does what [`Gateway::poll_output`] asks, until it asks
//! for nothing more. The same inputs give the same outputs.
//!
//! | module | what it adds to [`Gateway`] |
//! | --- | --- |
//! | `admission` | who is let in |
//! | `callback` | an operator's server is told, and asked |
//! | `rtmp` | RTMP connections: publish, play, and messages on their way to players |
//! | `http` | the page, the API, WHIP and WHEP |
//! | `sessions` | WebRTC sessions come and go |
//! | `webrtc` | their datagrams, events and media |
//! | `ice_tcp` | ICE-TCP connections |
//! | `serve` | frames on their way to WebRTC viewers, in slices |
//! | `streams` | what joins them: publishers come and go, sound is transcoded |
//! | `websocket` | WebSockets: rooms and calls are spoken over them |
//! | `conversations` | what rooms and calls ask of the rest, and the rest of them |
//! | `api`, `metrics`, `health` | what is told to operators |
//!
//! `interface` has the inputs and outputs.

mod admission;
mod api;
mod callback;
mod conversations;
mod fanout;
mod health;
mod http;
mod ice_tcp;
mod interface;
mod metrics;
mod rtmp;
mod serve;
mod sessions;
mod stats;
mod streams;
mod transcoding;
mod webrtc;
mod websocket;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::access::Access;
use crate::config::Config;
use crate::deadlines::Deadlines;
use crate::hub::{self, Hub, RingLimits};
pub use crate::ids::ConnId;
use crate::ids::{IdMap, PeerId, SessionId, StreamId};
use crate::secrets::Secrets;
use crate::signaling::conversations::Conversations;
use crate::transcode::{AacSettings, OpusSettings};
use crate::transmit::TransmitQueue;
use crate::webrtc::{Demux, Engine, EngineConfig};
use admission::WallClock;
use callback::Callbacks;
pub use callback::{Callback, CallbackRequest, Outcome};
use fanout::Fanout;
pub use interface::{Datagram, Input, Listener, Output, World, WorldCounters};
use stats::Stats;
use transcoding::Transcoding;

/// Why a gateway could not be made.
#[derive(Debug)]
pub struct StartError(String);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

/// The whole gateway. See the [module](self).
pub struct Gateway {
    config: Arc<Config>,
    hub: Hub,
    connections: IdMap<ConnId, Connection>,
    /// Connections that are being worked on: not in `connections` meanwhile.
    at_work: Vec<ConnId>,
    /// What players on connections at work are to be told when that is done.
    waiting_news: Vec<(PeerId, rtmp::News)>,
    sessions: HashMap<SessionId, Box<sessions::Peer>>,
    /// WHIP and WHEP sessions by the unguessable name in their URL.
    resources: HashMap<String, SessionId>,
    next_session: u64,
    publishers: usize,
    engine: Engine,
    demux: Demux,
    /// ICE-TCP connections by the address of the other end.
    ice_tcp: HashMap<SocketAddr, ConnId>,
    transcoding: Transcoding,
    fanout: Fanout,
    batches: rtmp::Batches,
    /// A slice of the fan-out was done since the outputs were last drained.
    sliced: bool,
    conversations: Conversations,
    deadlines: Deadlines<Owner>,
    outputs: VecDeque<Output>,
    datagrams: Vec<Datagram>,
    /// What connections that are to be closed have still to write.
    closing: HashMap<ConnId, TransmitQueue>,
    /// A session's datagrams between it and `datagrams`; kept for its memory.
    session_datagrams: Vec<crate::webrtc::Datagram>,
    /// Datagrams for the ICE-TCP connection that is being worked on.
    tcp_datagrams: Vec<Vec<u8>>,
    secrets: Secrets,
    access: Access,
    callbacks: Callbacks,
    clock: WallClock,
    stats: Stats,
    world: WorldCounters,
    started: Instant,
    now: Instant,
    drain: Drain,
}

/// What lives on a TCP connection.
enum Connection {
    Rtmp(Box<rtmp::RtmpConnection>),
    Http(Box<http::HttpConnection>),
    IceTcp(Box<ice_tcp::IceTcpConnection>),
    WebSocket(Box<websocket::WebSocketConnection>),
}

/// Whom a deadline belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Owner {
    Connection(ConnId),
    Session(SessionId),
    /// When a stream without a publisher is to be let go.
    Stream(StreamId),
    /// When what was gathered for a stream's RTMP players is to be sent.
    Batch(StreamId),
    /// When a stream's transcoding is to be looked after.
    Transcode(StreamId),
    /// When a callback's answer comes too late.
    Callback(u64),
    /// When the health of streams is told.
    Health,
    /// Rooms and calls.
    Conversations,
    Drain,
}

/// How far the gateway is in ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drain {
    Running,
    Draining,
    Stopped,
}

impl Gateway {
    /// A gateway without sessions.
    ///
    /// # Errors
    /// If no certificate for DTLS can be made, or if a key for tokens is none.
    pub fn new(config: Arc<Config>, world: World, now: Instant) -> Result<Self, StartError> {
        let callbacks = Callbacks::new(&config.callback);
        let mut deadlines = Deadlines::new();
        deadlines.arm(Owner::Health, callbacks.health_at(now));
        let access = Access::new(&config.access).map_err(|error| StartError(error.to_string()))?;
        let mut engine = Engine::new(EngineConfig {
            candidates: world.candidates,
            tcp: config.webrtc.tcp,
            handshake_timeout: config.webrtc.connect_timeout,
            rtx_cache_packets: config.webrtc.rtx_packets_max,
            rtx_cache_duration: config.webrtc.rtx_duration,
            rtx_ratio_cap: Some(config.webrtc.rtx_ratio_max as f32),
            ..EngineConfig::default()
        })
        .map_err(|error| StartError(error.to_string()))?;
        engine.set_wallclock(now, world.unix_time);
        let mut secrets = Secrets::new(&world.seed);
        let conversations = Conversations::new(config.signaling.clone(), secrets.branch());
        Ok(Self {
            conversations,
            hub: Hub::new(hub_limits(&config)),
            connections: IdMap::default(),
            at_work: Vec::new(),
            waiting_news: Vec::new(),
            sessions: HashMap::new(),
            resources: HashMap::new(),
            next_session: 1,
            publishers: 0,
            engine,
            demux: Demux::new(),
            ice_tcp: HashMap::new(),
            transcoding: Transcoding::new(transcode_settings(&config, world.workers)),
            fanout: Fanout::default(),
            batches: rtmp::Batches::new(config.rtmp.merge),
            sliced: false,
            deadlines,
            outputs: VecDeque::new(),
            datagrams: Vec::new(),
            closing: HashMap::new(),
            session_datagrams: Vec::new(),
            tcp_datagrams: Vec::new(),
            secrets,
            access,
            callbacks,
            clock: WallClock::new(now, world.unix_time),
            stats: Stats::default(),
            world: WorldCounters::default(),
            started: now,
            now,
            drain: Drain::Running,
            config,
        })
    }

    /// Takes note of what happened at `now`. Never fails: what a peer does wrong ends that
    /// peer's session.
    pub fn handle_input(&mut self, now: Instant, input: Input<'_>) {
        self.now = now;
        match input {
            Input::Accepted {
                conn,
                listener,
                peer,
                local,
            } => {
                self.accept(now, conn, listener, peer, local);
            }
            Input::Received { conn, bytes } => {
                self.stats.tcp_received_bytes += bytes.len() as u64;
                self.with_connection(conn, |gateway, connection| match connection {
                    Connection::Rtmp(rtmp) => gateway.rtmp_received(now, rtmp, bytes),
                    Connection::Http(http) => gateway.http_received(now, http, bytes),
                    Connection::IceTcp(ice) => gateway.ice_tcp_received(now, ice, bytes),
                    Connection::WebSocket(websocket) => {
                        gateway.websocket_received(now, websocket, bytes)
                    }
                });
            }
            Input::Transmitted { conn } => match self.connections.get(&conn) {
                Some(Connection::Rtmp(_)) => self.rtmp_transmitted(conn),
                Some(Connection::Http(_)) => {
                    self.with_connection(conn, |gateway, connection| match connection {
                        Connection::Http(http) => gateway.http_transmitted(now, http),
                        _ => Fate::Live,
                    });
                }
                Some(Connection::IceTcp(_) | Connection::WebSocket(_)) | None => {}
            },
            Input::Disconnected { conn, error } => {
                if let Some(error) = error {
                    log::debug!("{conn}: {error}");
                }
                if let Some(mut connection) = self.connections.remove(&conn) {
                    self.leave(now, conn, &mut connection);
                }
                self.closing.remove(&conn);
                self.stop_when_drained();
            }
            Input::Datagram {
                source,
                destination,
                bytes,
            } => {
                self.stats.datagrams_received += 1;
                self.stats.datagram_received_bytes += bytes.len() as u64;
                self.datagram_received(now, source, destination, bytes);
            }
            Input::Transcoded(completed) => self.transcoded(now, completed),
            Input::TranscodeRefused(pipeline) => {
                self.stats.transcode_dropped_frames += 1;
                self.transcoding.refused(pipeline);
            }
            Input::Timeout => {}
            Input::Callback(done) => self.callback_done(now, done),
            Input::Drain => self.begin_drain(now),
        }
        self.call_due(now);
        self.drive_conversations(now);
    }

    /// The next thing to do. `None`: nothing until the next input; then take the datagrams.
    pub fn poll_output(&mut self, now: Instant) -> Option<Output> {
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return Some(output);
            }
            if self.sliced || !self.has_slices() {
                self.sliced = false;
                return None;
            }
            // One slice a turn: sockets are looked after in between.
            self.sliced = true;
            self.serve_slice(now);
            self.serve_rtmp_slice(now);
            self.drive_conversations(now);
        }
    }

    /// When to say [`Input::Timeout`]; not after now means that work waits and the sockets
    /// are only to be looked at.
    pub fn next_timeout(&self) -> Option<Instant> {
        if self.has_slices() {
            return Some(self.now);
        }
        self.deadlines.next()
    }

    /// Whether players wait for what has come: each drain of [`Gateway::poll_output`] serves one
    /// slice of them.
    pub fn has_slices(&self) -> bool {
        self.fanout.is_pending() || self.batches.is_due()
    }

    /// What is to be written to a connection.
    pub fn transmit(&mut self, conn: ConnId) -> Option<&mut TransmitQueue> {
        match self.connections.get_mut(&conn) {
            Some(connection) => Some(connection.transmit()),
            None => self.closing.get_mut(&conn),
        }
    }

    /// Takes note of what the world counted, for whoever asks.
    pub fn set_world_counters(&mut self, counters: WorldCounters) {
        self.world = counters;
    }

    /// Moves all datagrams that are due into `into`, in order.
    pub fn take_datagrams(&mut self, into: &mut Vec<Datagram>) {
        for datagram in &self.datagrams {
            self.stats.datagrams_sent += datagram.packets().len() as u64;
            self.stats.datagram_sent_bytes += datagram.contents.len() as u64;
        }
        into.append(&mut self.datagrams);
    }

    /// A connection is over: it leaves what it was part of.
    fn leave(&mut self, now: Instant, conn: ConnId, connection: &mut Connection) {
        self.deadlines.disarm(Owner::Connection(conn));
        self.callbacks.forget(conn);
        match connection {
            Connection::Rtmp(rtmp) => self.rtmp_gone(now, rtmp),
            Connection::Http(_) => {}
            Connection::IceTcp(ice) => self.ice_tcp_gone(ice),
            Connection::WebSocket(_) => self.conversations.disconnected(now, conn),
        }
    }

    fn accept(
        &mut self,
        now: Instant,
        conn: ConnId,
        listener: Listener,
        peer: SocketAddr,
        local: SocketAddr,
    ) {
        if self.drain != Drain::Running {
            self.outputs.push_back(Output::Close(conn));
            return;
        }
        let connection = match listener {
            Listener::Rtmp => Connection::Rtmp(Box::new(self.rtmp_accepted(now, conn, peer))),
            Listener::Http => Connection::Http(Box::new(self.http_accepted(now, conn, peer))),
            Listener::IceTcp => {
                Connection::IceTcp(Box::new(self.ice_tcp_accepted(now, conn, peer, local)))
            }
        };
        self.deadlines
            .arm(Owner::Connection(conn), connection.next_timeout());
        self.connections.insert(conn, connection);
    }

    /// Works on one connection with everything else at hand, then does what its state asks.
    fn with_connection(
        &mut self,
        conn: ConnId,
        work: impl FnOnce(&mut Self, &mut Connection) -> Fate,
    ) {
        let Some(mut connection) = self.connections.remove(&conn) else {
            return;
        };
        self.at_work.push(conn);
        let before = connection.next_timeout();
        let mut fate = work(self, &mut connection);
        if fate == Fate::Upgrade {
            (connection, fate) = self.upgrade(self.now, connection);
        }
        self.at_work.pop();
        match fate {
            Fate::Live => {
                // A publisher's bytes do not move it.
                let next = connection.next_timeout();
                if next != before {
                    self.deadlines.arm(Owner::Connection(conn), next);
                }
                if !connection.transmit().is_empty() {
                    self.outputs.push_back(Output::Transmit(conn));
                }
                self.connections.insert(conn, connection);
            }
            Fate::Close | Fate::Upgrade => {
                // Only what is queued stays, until the world has written it.
                self.closing
                    .insert(conn, std::mem::take(connection.transmit()));
                self.leave(self.now, conn, &mut connection);
                self.outputs.push_back(Output::Close(conn));
            }
        }
        self.tell_waiting(conn);
    }

    fn call_due(&mut self, now: Instant) {
        // Bounded: a deadline that is armed for now again waits for the next turn.
        for _ in 0..DUE_PER_TURN {
            let Some(owner) = self.deadlines.pop_due(now) else {
                return;
            };
            match owner {
                Owner::Connection(conn) => {
                    self.with_connection(conn, |gateway, connection| match connection {
                        Connection::Rtmp(rtmp) => gateway.rtmp_timeout(now, rtmp),
                        Connection::Http(http) => gateway.http_timeout(now, http),
                        Connection::IceTcp(ice) => gateway.ice_tcp_timeout(now, ice),
                        Connection::WebSocket(_) => Fate::Live,
                    });
                    // What was called is not armed any more, even for the same time.
                    if let Some(connection) = self.connections.get(&conn) {
                        let next = connection.next_timeout();
                        self.deadlines.arm(Owner::Connection(conn), next);
                    }
                }
                Owner::Session(session) => self.session_timeout(now, session),
                Owner::Stream(stream) => self.reap_stream(now, stream),
                Owner::Batch(stream) => self.end_rtmp_window(now, stream),
                Owner::Transcode(stream) => self.review_transcoding(now, stream),
                Owner::Callback(id) => self.callback_late(now, id),
                Owner::Health => self.tell_health(now),
                Owner::Conversations => self.conversations_due(now),
                Owner::Drain => {
                    self.drain = Drain::Stopped;
                    self.outputs.push_back(Output::Stopped);
                }
            }
        }
    }

    /// Tells everybody that it is over and gives them a moment to hear it.
    fn begin_drain(&mut self, now: Instant) {
        if self.drain != Drain::Running {
            return;
        }
        log::info!(
            "draining: {} connections, {} WebRTC sessions",
            self.connections.len(),
            self.sessions.len()
        );
        self.drain = Drain::Draining;
        self.conversations.drain(now);
        self.drive_conversations(now);
        self.end_all_sessions(now);
        self.end_all_connections(now);
        self.deadlines
            .arm(Owner::Drain, Some(now + self.config.sockets.close_linger));
        self.stop_when_drained();
    }

    fn stop_when_drained(&mut self) {
        if self.drain == Drain::Draining
            && self.connections.is_empty()
            && self.closing.is_empty()
            && self.sessions.is_empty()
        {
            self.deadlines.disarm(Owner::Drain);
            self.drain = Drain::Stopped;
            self.outputs.push_back(Output::Stopped);
        }
    }

    fn end_all_connections(&mut self, now: Instant) {
        let mut all: Vec<ConnId> = self.connections.keys().copied().collect();
        all.sort_unstable();
        for conn in all {
            self.with_connection(conn, |gateway, connection| {
                if let Connection::Rtmp(rtmp) = connection {
                    gateway.rtmp_farewell(now, rtmp);
                }
                Fate::Close
            });
        }
    }
}

/// What becomes of a connection after it was worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Live,
    /// An HTTP connection becomes a WebSocket.
    Upgrade,
    Close,
}

impl Connection {
    fn next_timeout(&self) -> Option<Instant> {
        match self {
            Connection::Rtmp(rtmp) => rtmp.next_timeout(),
            Connection::Http(http) => http.session.next_timeout(),
            Connection::IceTcp(ice) => ice.next_timeout(),
            Connection::WebSocket(_) => None,
        }
    }

    fn transmit(&mut self) -> &mut TransmitQueue {
        match self {
            Connection::Rtmp(rtmp) => rtmp.session.transmit(),
            Connection::Http(http) => http.session.transmit(),
            Connection::IceTcp(ice) => &mut ice.transmit,
            Connection::WebSocket(websocket) => websocket.websocket.transmit(),
        }
    }
}

fn hub_limits(config: &Config) -> hub::Limits {
    let streams = &config.streams;
    hub::Limits {
        streams_max: streams.streams_max,
        takeover_silence: streams.publisher_takeover_silence,
        publisher_grace: streams.publisher_grace,
        ring: RingLimits {
            gop_duration: streams.gop_duration_max,
            gop_bytes: streams.gop_bytes_max,
            gop_frames: streams.gop_frames_max,
            queue_duration: streams.player_queue_duration_max,
            queue_bytes: streams.player_queue_bytes_max,
        },
    }
}

fn transcode_settings(config: &Config, workers: usize) -> transcoding::Settings {
    let audio = &config.audio;
    transcoding::Settings {
        opus: OpusSettings {
            bitrate_mono_bps: audio.opus_bitrate_mono,
            bitrate_stereo_bps: audio.opus_bitrate_stereo,
            complexity: audio.opus_complexity,
        },
        aac: AacSettings {
            bitrate_mono_bps: audio.aac_bitrate_mono,
            bitrate_stereo_bps: audio.aac_bitrate_stereo,
        },
        idle_stop: audio.idle_stop,
        workers,
    }
}

/// Deadlines that one input calls at most; the rest waits for the sockets.
const DUE_PER_TURN: usize = 256;

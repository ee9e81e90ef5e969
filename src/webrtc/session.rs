//! [`Session`]: one WebRTC peer. See the drawing in the module above.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use log::debug;

use super::answer::{self, Tag};
use super::ice::{Credentials, IceLite, Pair};
use super::negotiate::negotiate;
use super::sdp::Offer;
use super::stun;
use super::{Engine, OfferError, Role, SessionId, Transport};
use crate::media::TrackKind;

mod echo;
mod event;
mod fragment;
mod library;
mod publisher;
mod react;
mod stats;
mod track;
mod viewer;

pub use event::{CloseReason, Datagram, Event, Received, Rtp, StreamStart};
pub use fragment::FragmentError;
pub use stats::{Stats, TrackStats};

use echo::Echoes;
use event::Said;
use publisher::Incoming;
use viewer::Outgoing;

/// What a session begins with, besides the offer.
#[derive(Clone, Debug)]
pub struct Params {
    /// Whom the offer came from.
    pub role: Role,
    /// The number of the session.
    pub id: SessionId,
    /// Our side of ICE: the fragment of [`SessionId::ufrag`] and a random password of
    /// 22 to 256 characters.
    pub credentials: Credentials,
    /// Makes sequence numbers and RTP times begin somewhere (RFC 3550 section 5.1).
    pub seed: u64,
    /// For a viewer: profile-level-id of the stream (the bytes 1 to 3 of its SPS), when
    /// it is known already.
    pub stream_profile: Option<[u8; 3]>,
}

#[derive(Debug)]
enum State {
    Connecting { deadline: Instant },
    Connected,
    Closed,
}

/// What the media goes through.
enum End {
    Publisher(Box<Incoming>),
    Viewer(Box<Outgoing>),
}

/// See the module's documentation.
pub struct Session {
    id: SessionId,
    role: Role,
    state: State,
    ice: IceLite,
    engine: Engine,
    end: End,
    /// DTLS of a viewer has begun.
    has_started: bool,
    tag: Tag,
    remote_ufrag: Option<String>,
    remote_password: Option<String>,
    /// On the heap, because few sessions ever ask for one.
    echoes: Option<Box<Echoes>>,
    seed: u64,
    profile_mismatch: bool,
    /// What `end` says; empty between the calls, and kept for its memory.
    said: Vec<Said>,
    datagrams: Vec<Datagram>,
    events: VecDeque<Event>,
    stats: Stats,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id)
            .field("role", &self.role)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Answers an offer: the session, and the SDP to send back.
    ///
    /// # Errors
    /// [`OfferError`] for every offer that cannot work; nothing is left behind then.
    pub fn answer(
        engine: &Engine,
        params: Params,
        offer: &str,
        now: Instant,
    ) -> Result<(Self, String), OfferError> {
        let offer = Offer::decode(offer)?;
        let plan = negotiate(&offer, params.role, params.stream_profile)?;
        let internal = OfferError::Internal;
        let (end, sources) = match params.role {
            Role::Publisher => {
                let end = Incoming::new(engine, params.id, &plan, now).map_err(internal)?;
                (End::Publisher(Box::new(end)), Vec::new())
            }
            Role::Viewer => {
                let (end, sources) =
                    Outgoing::new(engine, &plan, params.seed, now).map_err(internal)?;
                (End::Viewer(Box::new(end)), sources)
            }
        };
        let mut session = Self {
            id: params.id,
            role: params.role,
            state: State::Connecting {
                deadline: now + engine.config.handshake_timeout,
            },
            ice: IceLite::new(&params.credentials, now),
            engine: engine.clone(),
            end,
            has_started: false,
            tag: Tag::of(&offer, &plan),
            remote_ufrag: offer.ice_ufrag().map(str::to_owned),
            remote_password: offer.ice_pwd().map(str::to_owned),
            echoes: None,
            seed: params.seed,
            profile_mismatch: plan.profile_mismatch,
            said: Vec::new(),
            datagrams: Vec::new(),
            events: VecDeque::new(),
            stats: Stats::default(),
        };
        if let End::Publisher(end) = &mut session.end {
            end.drain(&mut session.said, &mut session.stats);
            session.listen();
        }
        if let Some(Event::Closed(reason)) = session.events.pop_front() {
            return Err(OfferError::Internal(reason.to_string()));
        }
        let sdp = answer::encode(
            engine,
            &offer,
            &plan,
            &params.credentials,
            params.id.0,
            &sources,
        );
        Ok((session, sdp))
    }

    /// Takes a datagram of the peer. `source` is its address (IPv4-mapped ones turned
    /// back), `destination` the candidate that it arrived at.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        transport: Transport,
        source: SocketAddr,
        destination: SocketAddr,
        bytes: &[u8],
    ) -> Received {
        if self.is_closed() {
            return Received::Dropped;
        }
        let pair = Pair {
            transport,
            remote: source,
            local: destination,
        };
        let received = if stun::is_stun(bytes) {
            self.handle_check(now, pair, bytes)
        } else {
            self.handle_traffic(now, pair, bytes)
        };
        match received {
            Received::Dropped => self.stats.datagrams_dropped += 1,
            Received::Accepted | Received::NewPair => {
                self.stats.datagrams_received += 1;
                self.stats.bytes_received += bytes.len() as u64;
            }
        }
        received
    }

    /// A TCP connection of the peer is gone, and with it the pair.
    pub fn handle_disconnect(&mut self, source: SocketAddr, destination: SocketAddr) {
        self.ice.remove(Pair {
            transport: Transport::Tcp,
            remote: source,
            local: destination,
        });
    }

    /// Time has passed. Too early a call does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.state {
            State::Closed => return,
            State::Connecting { deadline } if now >= deadline => {
                return self.end(CloseReason::HandshakeTimeout);
            }
            State::Connected if now >= self.silence_deadline() => {
                return self.end(CloseReason::IceDisconnected);
            }
            State::Connecting { .. } | State::Connected => {}
        }
        match &mut self.end {
            End::Publisher(end) => end.handle_timeout(now, &mut self.said, &mut self.stats),
            End::Viewer(end) => end.handle_timeout(now, &mut self.said),
        }
        self.listen();
    }

    /// When [`Session::handle_timeout`] is due; `None` once the session is over.
    pub fn next_timeout(&self) -> Option<Instant> {
        let own = match self.state {
            State::Closed => return None,
            State::Connecting { deadline } => deadline,
            State::Connected => self.silence_deadline(),
        };
        let end = match &self.end {
            End::Publisher(end) => Some(end.next_timeout()),
            End::Viewer(end) => end.next_timeout(),
        };
        Some(end.map_or(own, |end| end.min(own)))
    }

    /// The next event, if there is one.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Moves all datagrams that wait to the end of `into`, in order.
    pub fn take_datagrams(&mut self, into: &mut Vec<Datagram>) {
        into.append(&mut self.datagrams);
    }

    /// Whether video can be written: a viewer that is connected and offered it.
    pub fn ready_video(&self) -> bool {
        self.is_ready(TrackKind::Video)
    }

    /// Whether audio can be written.
    pub fn ready_audio(&self) -> bool {
        self.is_ready(TrackKind::Audio)
    }

    /// Writes an access unit, or a part of one: its RTP payloads in order. The marker goes on the
    /// last if the access unit `ends` with it.
    ///
    /// `rtp_time` is in 1/90,000 s on a clock of the caller's; `capture` the instant that
    /// it stands for, from which the sender reports are made. An instant after `now` is
    /// taken for `now`: a report about the future would be nonsense. [`Session::flush`] is to
    /// follow when all that is due was written. Answers whether it was taken.
    pub fn write_video(
        &mut self,
        now: Instant,
        payloads: &[Arc<[u8]>],
        rtp_time: u64,
        capture: Instant,
        ends: bool,
    ) -> bool {
        self.write(TrackKind::Video, now, payloads, rtp_time, capture, ends)
    }

    /// Writes one Opus packet; `rtp_time` in 1/48,000 s. Otherwise as
    /// [`Session::write_video`].
    pub fn write_audio(
        &mut self,
        now: Instant,
        payload: &Arc<[u8]>,
        rtp_time: u64,
        capture: Instant,
    ) -> bool {
        let payloads = std::slice::from_ref(payload);
        self.write(TrackKind::Audio, now, payloads, rtp_time, capture, true)
    }

    fn is_ready(&self, kind: TrackKind) -> bool {
        self.role == Role::Viewer && self.is_connected() && self.has_track(kind)
    }

    fn write(
        &mut self,
        kind: TrackKind,
        now: Instant,
        payloads: &[Arc<[u8]>],
        rtp_time: u64,
        capture: Instant,
        ends: bool,
    ) -> bool {
        let State::Connected = self.state else {
            return false;
        };
        let End::Viewer(end) = &mut self.end else {
            return false;
        };
        if payloads.is_empty() {
            return false;
        }
        let (said, stats) = (&mut self.said, &mut self.stats);
        let is_taken = end.write(
            kind,
            now,
            payloads,
            rtp_time as u32,
            capture,
            ends,
            said,
            stats,
        );
        self.listen();
        is_taken
    }

    /// Adds the reports that are due to what was written.
    pub fn flush(&mut self, now: Instant) {
        if let (State::Connected, End::Viewer(end)) = (&self.state, &mut self.end) {
            end.flush(now, &mut self.said);
            self.listen();
        }
    }

    /// Sets where the numbering of a track begins, before anything was written to it.
    pub fn set_stream_start(&mut self, kind: TrackKind, start: StreamStart) {
        if let End::Viewer(end) = &mut self.end {
            end.set_stream_start(kind, start);
        }
    }

    /// Asks a viewer for an echo, an [`Event::Echo`] of the number that is answered; `None` if that
    /// cannot be done. Over TCP it would say nothing of the path. The request is `padding` bytes longer
    /// than it has to be, at most [`ECHO_PADDING_MAX`].
    pub fn ask_echo(&mut self, now: Instant, padding: usize) -> Option<u64> {
        if self.role != Role::Viewer || !self.is_connected() {
            return None;
        }
        let pair = self.ice.selected();
        let pair = pair.filter(|pair| pair.transport == Transport::Udp)?;
        let echoes = match &mut self.echoes {
            Some(echoes) => echoes,
            none => {
                let (ufrag, password) =
                    (self.remote_ufrag.as_ref()?, self.remote_password.as_ref()?);
                let username = format!("{ufrag}:{}", self.ice.local_ufrag());
                none.insert(Box::new(Echoes::new(username, password, self.seed)))
            }
        };
        let (number, request) = echoes.ask(now, padding.min(ECHO_PADDING_MAX));
        let segment = request.len();
        self.push_datagram(pair, request, segment);
        Some(number)
    }

    /// Sends a publisher a PLI (RFC 4585 section 6.3.1). `false` if none of its video has
    /// been seen yet, so that there is nobody to ask. Throttling is the caller's.
    pub fn request_keyframe(&mut self, now: Instant) -> bool {
        let State::Connected = self.state else {
            return false;
        };
        let End::Publisher(end) = &mut self.end else {
            return false;
        };
        let is_asked = end.request_keyframe(now, &mut self.said, &mut self.stats);
        self.listen();
        is_asked
    }

    /// Ends the session from our side: RTCP BYE and DTLS close_notify are queued. No
    /// event follows.
    pub fn close(&mut self, now: Instant) {
        if self.is_closed() {
            return;
        }
        match &mut self.end {
            End::Publisher(end) => end.close(now, &mut self.said, &mut self.stats),
            End::Viewer(end) => end.close(now, &mut self.said),
        }
        self.listen();
        self.state = State::Closed;
        self.events.clear();
    }

    /// Takes the body of a PATCH request (`application/trickle-ice-sdpfrag`, RFC 8840).
    ///
    /// Candidates are acknowledged and forgotten: an ICE-lite agent learns the peer's
    /// addresses from its checks. New credentials of the peer are an ICE restart: then ours
    /// become `credentials`, and the answer is the body of the 200. The connection goes
    /// on as it was until the peer nominates a pair under the new ones.
    ///
    /// # Errors
    /// [`FragmentError`] if the body cannot be read; nothing has changed then.
    pub fn handle_fragment(
        &mut self,
        body: &str,
        credentials: &Credentials,
    ) -> Result<Option<String>, FragmentError> {
        let Some((ufrag, password)) = fragment::credentials(body)? else {
            return Ok(None);
        };
        if self.is_closed() || self.remote_ufrag.as_deref() == Some(ufrag) {
            return Ok(None);
        }
        self.remote_ufrag = Some(ufrag.to_owned());
        self.remote_password = Some(password.to_owned());
        self.echoes = None;
        self.ice.restart(credentials);
        debug!("[rtc {}] ICE restart", self.id.0);
        Ok(Some(answer::encode_fragment(
            &self.engine,
            &self.tag,
            credentials,
        )))
    }

    /// The number of the session.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// What the peer is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether ICE and DTLS are up.
    pub fn is_connected(&self) -> bool {
        matches!(self.state, State::Connected)
    }

    /// Whether the session is over.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// The peer's present ICE username fragment.
    pub fn remote_ufrag(&self) -> Option<&str> {
        self.remote_ufrag.as_deref()
    }

    /// The latest round trip time, if any was measured.
    pub fn rtt(&self) -> Option<std::time::Duration> {
        self.stats.rtt()
    }

    /// Share of the picture's packets that was lost lately, 0 to 1, if anybody told.
    pub fn loss(&self) -> Option<f32> {
        self.stats.video.loss
    }

    /// Bytes of the datagrams made so far.
    pub fn bytes_sent(&self) -> u64 {
        self.stats.bytes_sent
    }

    /// Video packets sent again so far because a viewer reported them lost.
    pub fn repeated(&self) -> u64 {
        self.stats.video.repeated
    }

    /// Whether the track was negotiated.
    pub fn has_track(&self, kind: TrackKind) -> bool {
        match &self.end {
            End::Publisher(end) => end.has_track(kind),
            End::Viewer(end) => end.has_track(kind),
        }
    }

    /// Whether a viewer was answered with an H.264 profile that is not the stream's,
    /// because it offered none that is.
    pub fn has_profile_mismatch(&self) -> bool {
        self.profile_mismatch
    }

    /// Counters and, if the engine is set to gather them, quality figures.
    pub fn stats(&self) -> Stats {
        Stats {
            selected: self.ice.selected(),
            ..self.stats.clone()
        }
    }
}

/// With its headers such a request is as long as a full packet of media.
pub const ECHO_PADDING_MAX: usize = 1_048;

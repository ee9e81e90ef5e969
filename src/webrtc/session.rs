//! [`Session`]: one WebRTC peer. See the drawing in the module above.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use log::debug;
use str0m::crypto::Fingerprint;
use str0m::media::KeyframeRequestKind;
use str0m::{Candidate, Rtc};

use super::answer::{self, Source, Tag};
use super::ice::{Credentials, IceLite, Pair};
use super::negotiate::{Plan, negotiate};
use super::sdp::Offer;
use super::stun;
use super::{Engine, OfferError, Role, SessionId, Transport};
use crate::media::TrackKind;

mod event;
mod fragment;
mod library;
mod react;
mod stats;
mod track;

pub use event::{CloseReason, Datagram, Event, Received, Rtp};
pub use fragment::FragmentError;
pub use stats::{Stats, TrackStats};
pub use track::StreamStart;

use library::VIRTUAL_LOCAL;
use track::Track;

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

/// See the module's documentation.
pub struct Session {
    id: SessionId,
    role: Role,
    state: State,
    rtc: Rtc,
    ice: IceLite,
    engine: Engine,
    video: Option<Track>,
    audio: Option<Track>,
    /// Packets say to which m-line they belong.
    has_mid_extension: bool,
    learned_sources: usize,
    /// SSRCs of the peer's RTP that the library was shown.
    sources: Vec<u32>,
    tag: Tag,
    remote_ufrag: Option<String>,
    profile_mismatch: bool,
    dtls_active: bool,
    has_data: bool,
    /// When the library was last told that the connection lives.
    last_nomination: Option<Instant>,
    transaction: u64,
    rtc_timeout: Instant,
    has_pending_writes: bool,
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
        let mut session = Self::new(engine, &params, &offer, &plan, now)?;
        let sources = session.open_tracks(&plan, params.seed);
        session.drain();
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

    fn new(
        engine: &Engine,
        params: &Params,
        offer: &Offer,
        plan: &Plan,
        now: Instant,
    ) -> Result<Self, OfferError> {
        let internal = |error: &dyn fmt::Display| OfferError::Internal(error.to_string());
        let mut rtc = library::rtc_config(engine, plan).build(now);
        let local = Candidate::host(VIRTUAL_LOCAL, "udp").map_err(|error| internal(&error))?;
        rtc.add_local_candidate(local);
        let mut api = rtc.direct_api();
        api.set_remote_ice_credentials(library::virtual_credentials());
        api.set_remote_fingerprint(Fingerprint {
            hash_func: plan.fingerprint.hash.clone(),
            bytes: plan.fingerprint.bytes.clone(),
        });
        if plan.transport_cc_extension.is_some() {
            api.enable_twcc_feedback();
        }
        Ok(Self {
            id: params.id,
            role: params.role,
            state: State::Connecting {
                deadline: now + engine.config.handshake_timeout,
            },
            rtc,
            ice: IceLite::new(&params.credentials, now),
            engine: engine.clone(),
            video: None,
            audio: None,
            has_mid_extension: plan.mid_extension.is_some(),
            learned_sources: 0,
            sources: Vec::new(),
            tag: Tag::of(offer, plan),
            remote_ufrag: offer.ice_ufrag().map(str::to_owned),
            profile_mismatch: plan.profile_mismatch,
            dtls_active: plan.dtls_active,
            has_data: plan.has_data(),
            last_nomination: None,
            transaction: 0,
            rtc_timeout: now,
            has_pending_writes: false,
            datagrams: Vec::new(),
            events: VecDeque::new(),
            stats: Stats::default(),
        })
    }

    /// Declares the negotiated m-lines to the library.
    fn open_tracks(&mut self, plan: &Plan, seed: u64) -> Vec<Option<Source>> {
        let mut sources = Vec::with_capacity(plan.media.len());
        for media in &plan.media {
            let mut api = self.rtc.direct_api();
            let (track, source) = Track::open(&mut api, plan.role, media, seed);
            *self.track_slot(media.kind) = Some(track);
            sources.push(source);
        }
        sources
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
        if now >= self.rtc_timeout || self.has_pending_writes {
            self.advance(now);
        }
    }

    /// When [`Session::handle_timeout`] is due; `None` once the session is over.
    pub fn next_timeout(&self) -> Option<Instant> {
        let own = match self.state {
            State::Closed => return None,
            State::Connecting { deadline } => deadline,
            State::Connected => self.silence_deadline(),
        };
        Some(own.min(self.rtc_timeout))
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
        self.is_ready() && self.video.is_some()
    }

    /// Whether audio can be written.
    pub fn ready_audio(&self) -> bool {
        self.is_ready() && self.audio.is_some()
    }

    /// Writes one access unit: its RTP payloads in order, the marker goes on the last.
    ///
    /// `rtp_time` is in 1/90,000 s on a clock of the caller's; `capture` the instant that
    /// it stands for, from which the sender reports are made. An instant after `now` is
    /// taken for `now`: a report about the future would be nonsense. Nothing is sent before
    /// [`Session::flush`]. Answers whether it was taken.
    pub fn write_video(
        &mut self,
        now: Instant,
        payloads: &[Arc<[u8]>],
        rtp_time: u64,
        capture: Instant,
    ) -> bool {
        self.write(TrackKind::Video, now, payloads, rtp_time, capture)
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
        self.write(TrackKind::Audio, now, payloads, rtp_time, capture)
    }

    /// Turns what was written into datagrams.
    pub fn flush(&mut self, now: Instant) {
        if self.has_pending_writes && !self.is_closed() {
            self.advance(now);
        }
    }

    /// Sets where the numbering of a track begins, before anything was written to it.
    pub fn set_stream_start(&mut self, kind: TrackKind, start: StreamStart) {
        if let Some(track) = self.track_slot(kind)
            && !track.is_declared
        {
            track.next_sequence = u64::from(start.sequence);
            track.rtp_time_offset = start.rtp_time;
        }
    }

    /// Sends a publisher a PLI (RFC 4585 section 6.3.1). `false` if none of its video has
    /// been seen yet, so that there is nobody to ask. Throttling is the caller's.
    pub fn request_keyframe(&mut self, now: Instant) -> bool {
        let State::Connected = self.state else {
            return false;
        };
        let Some(mid) = self.video.as_ref().map(|track| track.mid) else {
            return false;
        };
        let mut api = self.rtc.direct_api();
        let Some(stream) = api.stream_rx_by_mid(mid, None) else {
            return false;
        };
        stream.request_keyframe(KeyframeRequestKind::Pli);
        self.stats.video.plis += 1;
        self.advance(now);
        true
    }

    /// Ends the session from our side: RTCP BYE and DTLS close_notify are queued. No
    /// event follows.
    pub fn close(&mut self, now: Instant) {
        if self.is_closed() {
            return;
        }
        if self.rtc.close().is_ok() {
            self.advance(now);
        }
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
        let Some(ufrag) = fragment::ice_ufrag(body)? else {
            return Ok(None);
        };
        if self.is_closed() || self.remote_ufrag.as_deref() == Some(ufrag) {
            return Ok(None);
        }
        self.remote_ufrag = Some(ufrag.to_owned());
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

    /// Video packets sent again so far because a viewer reported them lost.
    pub fn repeated(&self) -> u64 {
        self.stats.video.repeated
    }

    /// Whether the track was negotiated.
    pub fn has_track(&self, kind: TrackKind) -> bool {
        match kind {
            TrackKind::Video => self.video.is_some(),
            TrackKind::Audio => self.audio.is_some(),
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

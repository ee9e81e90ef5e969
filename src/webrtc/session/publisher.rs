//! [`Incoming`]: media on its way from a publisher. One connection of the str0m library, which
//! is drained inside every method that changes it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use log::trace;
use str0m::crypto::Fingerprint;
use str0m::media::KeyframeRequestKind;
use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpPacket;
use str0m::{Candidate, Input, Output, Rtc};

use super::library::{self, VIRTUAL_LOCAL, VIRTUAL_PASSWORD, VIRTUAL_PEER, VIRTUAL_UFRAG};
use super::track::{Track, rtp_source};
use super::{CloseReason, Event, Rtp, Said, Stats};
use crate::media::TrackKind;
use crate::webrtc::negotiate::Plan;
use crate::webrtc::stun::{self, Password};
use crate::webrtc::{Engine, SessionId};

/// See the module's documentation.
pub(super) struct Incoming {
    id: SessionId,
    rtc: Rtc,
    video: Option<Track>,
    audio: Option<Track>,
    /// Packets say to which m-line they belong.
    has_mid_extension: bool,
    learned_sources: usize,
    /// SSRCs of the peer's RTP that the library was shown.
    sources: Vec<u32>,
    dtls_active: bool,
    has_data: bool,
    /// When the library was last told that the connection lives.
    last_nomination: Option<Instant>,
    transaction: u64,
    rtc_timeout: Instant,
}

impl Incoming {
    /// The tracks of `plan`.
    pub(super) fn new(
        engine: &Engine,
        id: SessionId,
        plan: &Plan,
        now: Instant,
    ) -> Result<Self, String> {
        let mut rtc = library::rtc_config(engine, plan).build(now);
        let local = Candidate::host(VIRTUAL_LOCAL, "udp").map_err(|error| error.to_string())?;
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
        let mut incoming = Self {
            id,
            rtc,
            video: None,
            audio: None,
            has_mid_extension: plan.mid_extension.is_some(),
            learned_sources: 0,
            sources: Vec::new(),
            dtls_active: plan.dtls_active,
            has_data: plan.has_data(),
            last_nomination: None,
            transaction: 0,
            rtc_timeout: now,
        };
        for media in &plan.media {
            let track = Track::open(&mut incoming.rtc.direct_api(), media);
            match media.kind {
                TrackKind::Video => incoming.video = Some(track),
                TrackKind::Audio => incoming.audio = Some(track),
            }
        }
        Ok(incoming)
    }

    /// Takes a datagram that is not STUN; whether it was taken.
    pub(super) fn handle_datagram(
        &mut self,
        now: Instant,
        bytes: &[u8],
        said: &mut Vec<Said>,
        stats: &mut Stats,
    ) -> bool {
        if rtp_source(bytes).is_some_and(|rtp| !self.admits_source(rtp.ssrc)) {
            return false;
        }
        self.learn_source(bytes);
        let Ok(receive) = Receive::new(Protocol::Udp, VIRTUAL_PEER, VIRTUAL_LOCAL, bytes) else {
            return false;
        };
        self.input(Input::Receive(now, receive), said, stats);
        true
    }

    /// Too early a call does nothing.
    pub(super) fn handle_timeout(&mut self, now: Instant, said: &mut Vec<Said>, stats: &mut Stats) {
        if now >= self.rtc_timeout {
            self.input(Input::Timeout(now), said, stats);
        }
    }

    /// When [`Incoming::handle_timeout`] is due.
    pub(super) fn next_timeout(&self) -> Instant {
        self.rtc_timeout
    }

    /// See [`super::Session::request_keyframe`].
    pub(super) fn request_keyframe(
        &mut self,
        now: Instant,
        said: &mut Vec<Said>,
        stats: &mut Stats,
    ) -> bool {
        let Some(mid) = self.video.as_ref().map(|track| track.mid) else {
            return false;
        };
        let mut api = self.rtc.direct_api();
        let Some(stream) = api.stream_rx_by_mid(mid, None) else {
            return false;
        };
        stream.request_keyframe(KeyframeRequestKind::Pli);
        stats.video.plis += 1;
        self.input(Input::Timeout(now), said, stats);
        true
    }

    /// Says good-bye by RTCP and DTLS.
    pub(super) fn close(&mut self, now: Instant, said: &mut Vec<Said>, stats: &mut Stats) {
        if self.rtc.close().is_ok() {
            self.input(Input::Timeout(now), said, stats);
        }
    }

    pub(super) fn has_track(&self, kind: TrackKind) -> bool {
        match kind {
            TrackKind::Video => self.video.is_some(),
            TrackKind::Audio => self.audio.is_some(),
        }
    }

    /// Lets the library know that the peer lives, by a check that it would have got. The first
    /// begins DTLS: a client's ClientHello is not repeated into the void before, and a stranger
    /// cannot begin a handshake.
    pub(super) fn keep_alive(&mut self, now: Instant, said: &mut Vec<Said>, stats: &mut Stats) {
        let is_fresh = |last: Instant| now.saturating_duration_since(last) < NOMINATION_INTERVAL;
        if self.last_nomination.is_some_and(is_fresh) {
            return;
        }
        let is_first = self.last_nomination.replace(now).is_none();
        self.transaction += 1;
        let mut transaction = [0; 12];
        transaction[4..].copy_from_slice(&self.transaction.to_be_bytes());
        let password = Password::new(VIRTUAL_PASSWORD);
        let bytes = stun::nomination(VIRTUAL_UFRAG, VIRTUAL_UFRAG, &password, transaction);
        if let Ok(receive) = Receive::new(Protocol::Udp, VIRTUAL_PEER, VIRTUAL_LOCAL, &bytes) {
            self.input(Input::Receive(now, receive), said, stats);
        }
        if is_first {
            self.start_dtls(said, stats);
        }
    }

    fn start_dtls(&mut self, said: &mut Vec<Said>, stats: &mut Stats) {
        let mut api = self.rtc.direct_api();
        if let Err(error) = api.start_dtls(self.dtls_active) {
            said.push(Said::failed(&error));
            return;
        }
        if self.has_data {
            api.start_sctp(self.dtls_active);
        }
        self.drain(said, stats);
    }

    /// Whether RTP of this SSRC is taken. The library remembers every SSRC for as long as the
    /// session lives, so their number is bounded here.
    fn admits_source(&mut self, ssrc: u32) -> bool {
        if self.sources.contains(&ssrc) {
            return true;
        }
        let has_room = self.sources.len() < SOURCES_MAX;
        if has_room {
            self.sources.push(ssrc);
        }
        has_room
    }

    /// Recognises a source by its payload type (RFC 8843 section 9.2), for publishers that
    /// neither name it in the offer nor put a mid into their packets.
    fn learn_source(&mut self, bytes: &[u8]) {
        let Some(rtp) = rtp_source(bytes) else {
            return;
        };
        let has_mid = self.has_mid_extension && rtp.has_extensions;
        let mut tracks = [self.video.as_mut(), self.audio.as_mut()];
        let mut tracks = tracks.iter_mut().flatten();
        if has_mid
            || self.learned_sources >= LEARNED_SOURCES_MAX
            || tracks.any(|track| track.knows(rtp.ssrc))
        {
            return;
        }
        let mut api = self.rtc.direct_api();
        for track in [self.video.as_mut(), self.audio.as_mut()]
            .into_iter()
            .flatten()
        {
            if track.learn(&mut api, rtp.pt, rtp.ssrc) {
                self.learned_sources += 1;
                return;
            }
        }
    }

    /// The one place where the library's state changes with time, and is drained.
    fn input(&mut self, input: Input<'_>, said: &mut Vec<Said>, stats: &mut Stats) {
        if let Err(error) = self.rtc.handle_input(input) {
            said.push(Said::failed(&error));
            return;
        }
        self.drain(said, stats);
    }

    pub(super) fn drain(&mut self, said: &mut Vec<Said>, stats: &mut Stats) {
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => {
                    self.rtc_timeout = at;
                    return;
                }
                Ok(Output::Transmit(transmit)) => {
                    let contents: Vec<u8> = transmit.contents.into();
                    // The answers to our own nominations are nobody's business.
                    if !stun::is_stun(&contents) {
                        said.push(Said::send(contents));
                    }
                }
                Ok(Output::Event(event)) => self.on_event(event, said, stats),
                Err(error) => {
                    said.push(Said::failed(&error));
                    return;
                }
            }
        }
    }

    fn on_event(&mut self, event: str0m::Event, said: &mut Vec<Said>, stats: &mut Stats) {
        match event {
            str0m::Event::Connected => said.push(Said::Connected),
            str0m::Event::RtpPacket(packet) => self.on_rtp(packet, said, stats),
            str0m::Event::SenderFeedback(feedback) => {
                if let Some(kind) = self.kind_of(|track| track.mid == feedback.mid) {
                    said.push(Said::Event(Event::SenderReport {
                        kind,
                        ntp: feedback.sender_info.ntp_time,
                        rtp_time: feedback.sender_info.rtp_time.numer() as u32,
                        arrival: feedback.received_at,
                    }));
                }
            }
            str0m::Event::Closed => said.push(Said::Closed(CloseReason::DtlsClosed)),
            str0m::Event::MediaIngressStats(figures) => {
                if let Some(kind) = self.kind_of(|track| track.mid == figures.mid) {
                    stats.track(kind).update_ingress(&figures);
                }
            }
            other => trace!("[rtc {}] {other:?}", self.id.0),
        }
    }

    fn on_rtp(&mut self, packet: RtpPacket, said: &mut Vec<Said>, stats: &mut Stats) {
        let pt = packet.header.payload_type;
        let accepted = self.kind_of(|track| track.pt == pt);
        let refused = || self.kind_of(|track| track.refused_pts.contains(&*pt));
        let Some(kind) = accepted.or_else(refused) else {
            stats.datagrams_dropped += 1;
            return;
        };
        // Of a payload type that was not accepted only the place in the sequence counts.
        let payload = match accepted {
            Some(_) => Bytes::from_owner(packet.payload),
            None => Bytes::new(),
        };
        stats.datagrams_dropped += u64::from(accepted.is_none());
        let track = stats.track(kind);
        track.packets += 1;
        track.bytes += payload.len() as u64;
        said.push(Said::Event(Event::Rtp(Rtp {
            kind,
            sequence: *packet.seq_no,
            rtp_time: packet.time.numer(),
            marker: packet.header.marker,
            payload,
            arrival: packet.timestamp,
        })));
    }

    fn kind_of(&self, is_meant: impl Fn(&Track) -> bool) -> Option<TrackKind> {
        if self.video.as_ref().is_some_and(&is_meant) {
            Some(TrackKind::Video)
        } else if self.audio.as_ref().is_some_and(&is_meant) {
            Some(TrackKind::Audio)
        } else {
            None
        }
    }
}

/// How often the library is told of a living peer; it gives up after 15 s without.
const NOMINATION_INTERVAL: Duration = Duration::from_secs(5);

/// SSRCs of one peer's RTP: two with their retransmissions are in use at a time, and a browser
/// that restarts its tracks takes new ones. Packets of one more are dropped.
const SOURCES_MAX: usize = 256;

/// How many sources a publisher may show without naming them, over its whole life; each
/// costs the library a few kilobytes. A track that changes its SSRC needs one or two.
const LEARNED_SOURCES_MAX: usize = 64;

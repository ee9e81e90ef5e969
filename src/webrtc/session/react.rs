//! What a session does by itself: it answers checks, passes datagrams to the library, drains
//! it after every change, and turns what it says into events.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use log::{debug, trace};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{RtpPacket, RtpWrite};
use str0m::{Input, Output};

use super::library::{VIRTUAL_LOCAL, VIRTUAL_PASSWORD, VIRTUAL_PEER, VIRTUAL_UFRAG};
use super::track::{Track, rtp_source};
use super::{CloseReason, Datagram, Event, Received, Rtp, Session, State};
use crate::media::TrackKind;
use crate::webrtc::Role;
use crate::webrtc::ice::{Checked, Pair};
use crate::webrtc::stun::{self, Password};

impl Session {
    pub(super) fn is_ready(&self) -> bool {
        self.role == Role::Viewer && self.is_connected()
    }

    pub(super) fn silence_deadline(&self) -> Instant {
        self.ice.last_heard() + self.engine.config.silence_timeout
    }

    pub(super) fn track_slot(&mut self, kind: TrackKind) -> &mut Option<Track> {
        match kind {
            TrackKind::Video => &mut self.video,
            TrackKind::Audio => &mut self.audio,
        }
    }

    pub(super) fn handle_check(&mut self, now: Instant, pair: Pair, bytes: &[u8]) -> Received {
        let before = self.ice.selected();
        let (reply, received) = match self.ice.handle_check(now, pair, bytes) {
            Checked::Ignored => return Received::Dropped,
            Checked::Conflict { reply } => (reply, Received::Accepted),
            Checked::Answered { reply, new_pair } => {
                let received = if new_pair {
                    Received::NewPair
                } else {
                    Received::Accepted
                };
                (reply, received)
            }
        };
        self.push_datagram(pair, reply);
        if self.ice.selected() != before {
            debug!("[rtc {}] sends to {:?}", self.id.0, self.ice.selected());
        }
        if self.ice.selected().is_some() {
            self.keep_alive(now);
        }
        received
    }

    pub(super) fn handle_traffic(&mut self, now: Instant, pair: Pair, bytes: &[u8]) -> Received {
        if !self.ice.handle_traffic(now, pair) {
            return Received::Dropped;
        }
        self.keep_alive(now);
        if rtp_source(bytes).is_some_and(|rtp| !self.admits_source(rtp.ssrc)) {
            return Received::Dropped;
        }
        if self.role == Role::Publisher {
            self.learn_source(bytes);
        }
        let Ok(receive) = Receive::new(Protocol::Udp, VIRTUAL_PEER, VIRTUAL_LOCAL, bytes) else {
            return Received::Dropped;
        };
        self.input(Input::Receive(now, receive));
        Received::Accepted
    }

    /// Lets the library know that the peer lives, by a check that it would have got.
    pub(super) fn keep_alive(&mut self, now: Instant) {
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
            self.input(Input::Receive(now, receive));
        }
        if is_first {
            self.start_dtls();
        }
    }

    /// Begins DTLS, once the peer has proved itself: a client's ClientHello is not repeated
    /// into the void before, and a stranger cannot begin a handshake.
    pub(super) fn start_dtls(&mut self) {
        let mut api = self.rtc.direct_api();
        if let Err(error) = api.start_dtls(self.dtls_active) {
            return self.end(CloseReason::Error(error.to_string()));
        }
        if self.has_data {
            api.start_sctp(self.dtls_active);
        }
        self.drain();
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
    pub(super) fn learn_source(&mut self, bytes: &[u8]) {
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

    pub(super) fn write(
        &mut self,
        kind: TrackKind,
        now: Instant,
        payloads: &[Arc<[u8]>],
        rtp_time: u64,
        capture: Instant,
    ) -> bool {
        if !self.is_ready() || payloads.is_empty() {
            return false;
        }
        let track = match kind {
            TrackKind::Video => self.video.as_mut(),
            TrackKind::Audio => self.audio.as_mut(),
        };
        let Some(track) = track else { return false };
        let Some((ssrc, rtx)) = track.source else {
            return false;
        };
        let mut api = self.rtc.direct_api();
        if !track.is_declared {
            track.is_declared = true;
            let config = &self.engine.config;
            api.declare_stream_tx(ssrc, rtx, track.mid, None)
                .set_rtx_cache(
                    if rtx.is_some() {
                        config.rtx_cache_packets
                    } else {
                        0
                    },
                    config.rtx_cache_duration,
                    config.rtx_ratio_cap,
                );
        }
        let Some(stream) = api.stream_tx(&ssrc) else {
            return false;
        };
        let time = (rtp_time as u32).wrapping_add(track.rtp_time_offset);
        let wallclock = capture.min(now);
        let last = payloads.len() - 1;
        for (index, payload) in payloads.iter().enumerate() {
            let sequence = track.next_sequence;
            track.next_sequence += 1;
            stream.write_rtp(
                RtpWrite::new(
                    track.pt,
                    sequence.into(),
                    time,
                    wallclock,
                    Arc::clone(payload),
                )
                .marker(kind == TrackKind::Video && index == last)
                .nackable(rtx.is_some()),
            );
        }
        self.has_pending_writes = true;
        true
    }

    pub(super) fn advance(&mut self, now: Instant) {
        self.has_pending_writes = false;
        self.input(Input::Timeout(now));
    }

    /// The one place where the library's state changes with time, and is drained.
    pub(super) fn input(&mut self, input: Input<'_>) {
        if let Err(error) = self.rtc.handle_input(input) {
            return self.end(CloseReason::Error(error.to_string()));
        }
        self.drain();
    }

    pub(super) fn drain(&mut self) {
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => {
                    self.rtc_timeout = at;
                    return;
                }
                Ok(Output::Transmit(transmit)) => {
                    let contents: Vec<u8> = transmit.contents.into();
                    // The answers to our own nominations are nobody's business.
                    if !stun::is_stun(&contents)
                        && let Some(pair) = self.ice.selected()
                    {
                        self.count_repeated(&contents);
                        self.push_datagram(pair, contents);
                    }
                }
                Ok(Output::Event(event)) => self.on_event(event),
                Err(error) => return self.end(CloseReason::Error(error.to_string())),
            }
        }
    }

    /// Retransmissions have an SSRC of their own (RFC 4588 section 4).
    fn count_repeated(&mut self, contents: &[u8]) {
        let rtx = self.video.as_ref().and_then(|track| track.source?.1);
        if let (Some(rtx), Some(source)) = (rtx, rtp_source(contents))
            && source.ssrc == *rtx
        {
            self.stats.video.repeated += 1;
        }
    }

    pub(super) fn push_datagram(&mut self, pair: Pair, contents: Vec<u8>) {
        self.stats.datagrams_sent += 1;
        self.stats.bytes_sent += contents.len() as u64;
        self.datagrams.push(Datagram {
            transport: pair.transport,
            source: pair.local,
            destination: pair.remote,
            contents,
        });
    }

    pub(super) fn on_event(&mut self, event: str0m::Event) {
        match event {
            str0m::Event::Connected => {
                if let State::Connecting { .. } = self.state {
                    self.state = State::Connected;
                    self.events.push_back(Event::Connected);
                }
            }
            str0m::Event::RtpPacket(packet) => self.on_rtp(packet),
            str0m::Event::KeyframeRequest(_) => {
                self.stats.video.plis += 1;
                self.events.push_back(Event::KeyframeRequested);
            }
            str0m::Event::SenderFeedback(feedback) => {
                if let Some(kind) = self.kind_of(|track| track.mid == feedback.mid) {
                    self.events.push_back(Event::SenderReport {
                        kind,
                        ntp: feedback.sender_info.ntp_time,
                        rtp_time: feedback.sender_info.rtp_time.numer() as u32,
                        arrival: feedback.received_at,
                    });
                }
            }
            str0m::Event::Closed => self.end(CloseReason::DtlsClosed),
            str0m::Event::MediaEgressStats(stats) => {
                if let Some(kind) = self.kind_of(|track| track.mid == stats.mid) {
                    self.stats.track(kind).update_egress(&stats);
                }
            }
            str0m::Event::MediaIngressStats(stats) => {
                if let Some(kind) = self.kind_of(|track| track.mid == stats.mid) {
                    self.stats.track(kind).update_ingress(&stats);
                }
            }
            other => trace!("[rtc {}] {other:?}", self.id.0),
        }
    }

    pub(super) fn on_rtp(&mut self, packet: RtpPacket) {
        let pt = packet.header.payload_type;
        let Some(kind) = self.kind_of(|track| track.pt == pt) else {
            self.stats.datagrams_dropped += 1;
            return;
        };
        let track = self.stats.track(kind);
        track.packets += 1;
        track.bytes += packet.payload.len() as u64;
        self.events.push_back(Event::Rtp(Rtp {
            kind,
            sequence: *packet.seq_no,
            rtp_time: packet.time.numer(),
            marker: packet.header.marker,
            payload: Bytes::from_owner(packet.payload),
            arrival: packet.timestamp,
        }));
    }

    pub(super) fn kind_of(&self, is_meant: impl Fn(&Track) -> bool) -> Option<TrackKind> {
        if self.video.as_ref().is_some_and(&is_meant) {
            Some(TrackKind::Video)
        } else if self.audio.as_ref().is_some_and(&is_meant) {
            Some(TrackKind::Audio)
        } else {
            None
        }
    }

    pub(super) fn end(&mut self, reason: CloseReason) {
        if !self.is_closed() {
            self.state = State::Closed;
            self.events.push_back(Event::Closed(reason));
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

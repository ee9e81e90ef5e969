//! WebRTC sessions at work: their datagrams, their events, their media.

use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use super::sessions::PeerRole;
use super::streams::Leave;
use super::{Datagram, Gateway, Owner};
use crate::bridge::viewer_pressure::Level;
use crate::bridge::webrtc_ingest::{Ingested, RtpPacket};
use crate::hub::Publisher;
use crate::ids::{PeerId, SessionId, StreamId};
use crate::media::{Codec, MediaTime};
use crate::signaling::message::event::MediaReason;
use crate::webrtc::{self, Event, Received, Route, Rtp, Transport};

impl Gateway {
    pub(super) fn datagram_received(
        &mut self,
        now: Instant,
        source: SocketAddr,
        destination: SocketAddr,
        bytes: &[u8],
    ) {
        match self.demux.route(Transport::Udp, source, bytes) {
            Route::Session(id) => {
                self.session_received(now, id, Transport::Udp, source, destination, bytes);
            }
            Route::UnknownStun | Route::Drop => self.stats.datagrams_unrouted += 1,
        }
    }

    pub(super) fn session_received(
        &mut self,
        now: Instant,
        id: SessionId,
        transport: Transport,
        source: SocketAddr,
        destination: SocketAddr,
        bytes: &[u8],
    ) -> Received {
        let Some(peer) = self.sessions.get_mut(&id) else {
            return Received::Dropped;
        };
        let received = peer
            .session
            .handle_datagram(now, transport, source, destination, bytes);
        match received {
            Received::NewPair => {
                peer.heard_at = now;
                self.demux.bind(transport, source, id);
            }
            Received::Dropped => self.stats.datagrams_unrouted += 1,
            Received::Accepted => peer.heard_at = now,
        }
        self.after_session(now, id);
        received
    }

    pub(super) fn session_timeout(&mut self, now: Instant, id: SessionId) {
        let Some(peer) = self.sessions.get_mut(&id) else {
            return;
        };
        peer.session.handle_timeout(now);
        if peer.pace_at.is_some_and(|at| at <= now) {
            peer.pace_at = None;
            self.serve_one_viewer(now, id);
        }
        let Some(peer) = self.sessions.get_mut(&id) else {
            return;
        };
        let stream_id = peer.stream;
        if let PeerRole::Publisher(ingest) = &mut peer.role {
            if ingest.next_timeout().is_some_and(|at| at <= now)
                && let Some(stream) = self.hub.get_mut(stream_id)
            {
                let ingested = ingest.handle_timeout(now, stream);
                self.ingested(now, id, stream_id, ingested);
            }
            let peer = self.sessions.get(&id);
            if peer.is_some_and(|peer| peer.silent_at() <= now) {
                self.stats.error("publish_silence");
                self.end_session(now, id, "no media came for too long");
                return;
            }
        }
        self.after_session(now, id);
    }

    /// Handles what a session says, takes its datagrams and arms its deadline.
    pub(super) fn after_session(&mut self, now: Instant, id: SessionId) {
        while let Some(peer) = self.sessions.get_mut(&id)
            && let Some(event) = peer.session.poll_event()
        {
            self.session_event(now, id, event);
        }
        self.take_session_datagrams(id);
        if let Some(peer) = self.sessions.get(&id) {
            self.deadlines.arm(Owner::Session(id), peer.next_timeout());
        }
    }

    /// Turns what was written to a session into datagrams.
    pub(super) fn flush_session(&mut self, now: Instant, id: SessionId) {
        if let Some(peer) = self.sessions.get_mut(&id) {
            peer.session.flush(now);
        }
        self.after_session(now, id);
    }

    fn session_event(&mut self, now: Instant, id: SessionId, event: Event) {
        let Some(peer) = self.sessions.get_mut(&id) else {
            return;
        };
        let stream_id = peer.stream;
        match event {
            Event::Connected => {
                log::debug!(
                    "{}: connected after {} ms",
                    peer.tag(id),
                    now.duration_since(peer.since).as_millis()
                );
                peer.was_connected = true;
                peer.last_media = now;
                if matches!(peer.role, PeerRole::Viewer(_)) {
                    self.viewer_connected(now, id, stream_id);
                }
            }
            Event::Rtp(rtp) => self.rtp_received(now, id, rtp),
            Event::SenderReport {
                kind,
                ntp,
                rtp_time,
                ..
            } => {
                if let PeerRole::Publisher(ingest) = &mut peer.role {
                    ingest.sender_report(kind, ntp_time(ntp), rtp_time);
                }
            }
            Event::KeyframeRequested => {
                self.stats.keyframe_requests_received += 1;
                peer.keyframe_requests += 1;
                let (PeerRole::Viewer(viewer), Some(stream)) =
                    (&mut peer.role, self.hub.get(stream_id))
                else {
                    return;
                };
                let publisher = stream.publisher.as_ref().map(|publisher| publisher.peer);
                let only_publisher = viewer.keyframe_requested(now, stream);
                if let (Some(PeerId::Webrtc(publisher)), true) = (publisher, only_publisher) {
                    self.ask_for_keyframe(now, publisher);
                }
                self.serve_one_viewer(now, id);
            }
            Event::ReceiverReport { loss, rtt } => {
                let (PeerRole::Viewer(viewer), Some(stream)) =
                    (&mut peer.role, self.hub.get(stream_id))
                else {
                    return;
                };
                let before = viewer.level();
                let sent = peer.session.bytes_sent();
                viewer.report(now, stream, loss, rtt, sent);
                let level = viewer.level();
                let budget_kbps = viewer.budget_bps().unwrap_or(0) / 1_000;
                if level != before {
                    log::debug!(
                        "{}: now gets: {} ({:.0} % lost, budget {budget_kbps} kbit/s)",
                        peer.tag(id),
                        level.name(),
                        loss * 100.0
                    );
                    self.stats.viewers_thinned += u64::from(before == Level::All);
                    self.serve_one_viewer(now, id);
                }
            }
            Event::Echo { number, rtt } => {
                self.stats.echoes_answered += 1;
                if let (PeerRole::Viewer(viewer), Some(stream)) =
                    (&mut peer.role, self.hub.get(stream_id))
                    && viewer.echo(now, stream, &peer.session, number, rtt)
                {
                    self.serve_one_viewer(now, id);
                }
            }
            Event::Closed(reason) => {
                self.stats.error(reason.reason());
                if let webrtc::CloseReason::Error(_) = reason {
                    let peer = PeerId::Webrtc(id);
                    self.conversations.leg_ended(peer, MediaReason::Error);
                }
                let leave = match reason {
                    webrtc::CloseReason::DtlsClosed => Leave::Clean,
                    _ => Leave::Lost,
                };
                self.take_session_datagrams(id);
                self.remove_session(now, id, leave, &reason.to_string());
            }
        }
    }

    fn viewer_connected(&mut self, now: Instant, id: SessionId, stream_id: StreamId) {
        self.serve_one_viewer(now, id);
        let Some(stream) = self.hub.get(stream_id) else {
            return;
        };
        // A WebRTC publisher sends key frames only when asked.
        let fresh = stream
            .ring
            .gop_start()
            .is_some_and(|start| stream.ring.lag(start) <= super::rtmp::FRESH_KEY_AGE);
        if let Some(Publisher {
            peer: PeerId::Webrtc(publisher),
            ..
        }) = stream.publisher
            && !fresh
        {
            self.ask_for_keyframe(now, publisher);
        }
    }

    /// Serves one viewer outside of the fan-out: it has just come, or catches up.
    fn serve_one_viewer(&mut self, now: Instant, id: SessionId) {
        let Some(peer) = self.sessions.get_mut(&id) else {
            return;
        };
        let (PeerRole::Viewer(viewer), Some(stream)) = (&mut peer.role, self.hub.get(peer.stream))
        else {
            return;
        };
        viewer.serve_audio(now, stream, &mut peer.session);
        let served = viewer.serve_video(now, stream, &mut peer.session);
        let sent = |kind| viewer.has_sent(kind);
        peer.first
            .note(&mut self.conversations, now, PeerId::Webrtc(id), sent);
        peer.pace_at = served.again;
        peer.session.flush(now);
        if served.wants_key {
            let stream = peer.stream;
            self.want_keyframe_of(now, stream);
        }
        self.take_session_datagrams(id);
        if let Some(peer) = self.sessions.get(&id) {
            self.deadlines.arm(Owner::Session(id), peer.next_timeout());
        }
    }

    fn rtp_received(&mut self, now: Instant, id: SessionId, rtp: Rtp) {
        let Some(peer) = self.sessions.get_mut(&id) else {
            return;
        };
        let stream_id = peer.stream;
        let rtt = peer.session.rtt();
        let (PeerRole::Publisher(ingest), Some(stream)) =
            (&mut peer.role, self.hub.get_mut(stream_id))
        else {
            return;
        };
        peer.last_media = now;
        if let Some(rtt) = rtt {
            ingest.set_rtt(rtt);
        }
        let packet = RtpPacket {
            kind: rtp.kind,
            sequence: rtp.sequence,
            rtp_time: rtp.rtp_time,
            marker: rtp.marker,
            payload: rtp.payload,
        };
        let ingested = ingest.packet(now, stream, packet);
        self.ingested(now, id, stream_id, ingested);
    }

    fn ingested(&mut self, now: Instant, id: SessionId, stream: StreamId, ingested: Ingested) {
        if ingested.keyframe_needed {
            self.request_keyframe(now, id);
        }
        if ingested.video {
            self.news(now, stream, Codec::H264);
        }
        for frame in &ingested.audio {
            self.sound_published(now, stream, frame);
        }
    }

    /// A player needs a key frame of a stream: a WebRTC publisher is asked for it, others
    /// cannot be.
    pub(super) fn want_keyframe_of(&mut self, now: Instant, stream: StreamId) {
        let publisher = self.hub.get(stream).and_then(|s| s.publisher.as_ref());
        if let Some(PeerId::Webrtc(publisher)) = publisher.map(|publisher| publisher.peer) {
            self.ask_for_keyframe(now, publisher);
        }
    }

    /// A player needs a key frame that only this publisher can give.
    pub(super) fn ask_for_keyframe(&mut self, now: Instant, id: SessionId) {
        let Some(peer) = self.sessions.get_mut(&id) else {
            return;
        };
        let stream_id = peer.stream;
        if let (PeerRole::Publisher(ingest), Some(stream)) =
            (&mut peer.role, self.hub.get_mut(stream_id))
        {
            let ingested = ingest.want_keyframe(now, stream);
            self.ingested(now, id, stream_id, ingested);
        }
        if let Some(peer) = self.sessions.get(&id) {
            self.deadlines.arm(Owner::Session(id), peer.next_timeout());
        }
    }

    fn request_keyframe(&mut self, now: Instant, id: SessionId) {
        let Some(peer) = self.sessions.get_mut(&id) else {
            return;
        };
        if peer.session.request_keyframe(now) {
            self.stats.keyframe_requests_sent += 1;
        }
        self.take_session_datagrams(id);
    }

    /// Sends a session's datagrams on their way, by UDP or over its TCP connection.
    pub(super) fn take_session_datagrams(&mut self, id: SessionId) {
        let Some(peer) = self.sessions.get_mut(&id) else {
            return;
        };
        let mut out = std::mem::take(&mut self.session_datagrams);
        peer.session.take_datagrams(&mut out);
        for datagram in out.drain(..) {
            match datagram.transport {
                Transport::Udp => self.datagrams.push(Datagram {
                    source: datagram.source,
                    destination: datagram.destination,
                    contents: datagram.contents,
                    segment: datagram.segment,
                }),
                Transport::Tcp => {
                    for packet in datagram.packets() {
                        self.send_over_tcp(datagram.destination, packet);
                    }
                }
            }
        }
        self.session_datagrams = out;
    }
}

/// NTP time on a scale of our own: only differences count. Zero is kept zero, because
/// it means that the sender has no clock (RFC 3550 section 6.4.1).
fn ntp_time(ntp: SystemTime) -> MediaTime {
    match ntp.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => MediaTime::from_duration(since),
        Err(_) => MediaTime::ZERO,
    }
}

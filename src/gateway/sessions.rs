//! WebRTC sessions come and go: what each is, how it begins and how it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::admission::Admitted;
use super::conversations::{FirstSent, is_members_stream};
use super::http::Refused;
use super::rtmp::stopped;
use super::streams::Leave;
use super::{Gateway, Owner};
use crate::access::Holder;
use crate::bridge::webrtc_egress::{Viewer, ViewerLimits};
use crate::bridge::webrtc_ingest::{IngestLimits, WebrtcIngest};
use crate::config::{CallbackEvent, GopCache};
use crate::http::{Response, Status};
use crate::ids::{PeerId, SessionId, StreamId};
use crate::rtp::{frame_assembler, reorder};
use crate::signaling::message::event::MediaReason;
use crate::signaling::{EntityTag, Fragment, Patch, answer};
use crate::webrtc::{Credentials, Params, Role, Session};

/// One WebRTC session and what it does.
pub(super) struct Peer {
    pub(super) session: Session,
    pub(super) role: PeerRole,
    pub(super) stream: StreamId,
    /// The stream's name, which the log still tells when the stream has ended.
    key: Arc<str>,
    /// Who it is, by its token.
    user: Option<String>,
    pub(super) client: SocketAddr,
    pub(super) since: Instant,
    /// ICE and DTLS were done once.
    pub(super) was_connected: bool,
    /// When a viewer that catches up is to be served again.
    pub(super) pace_at: Option<Instant>,
    /// Key frames that a viewer asked for.
    pub(super) keyframe_requests: u64,
    /// The generation of its ICE credentials, which the entity tag names.
    pub(super) ice_generation: u32,
    /// The secret in its URL.
    resource: String,
    holder: Holder,
    pub(super) last_media: Instant,
    /// How long a publisher may send no media.
    silence_max: Duration,
    /// When anything of its peer came.
    pub(super) heard_at: Instant,
    /// What its member's conversation knows of what was sent.
    pub(super) first: FirstSent,
}

/// Which way the media goes.
pub(super) enum PeerRole {
    Publisher(Box<WebrtcIngest>),
    Viewer(Box<Viewer>),
}

impl Peer {
    /// Who made the session with a token must show it, or another one of the same user, to
    /// change it.
    pub(super) fn may_change(&self, holder: &Holder) -> bool {
        self.holder.is_nobody() || self.holder.is_same(holder)
    }

    pub(super) fn round_trip_ms(&self) -> Option<f64> {
        let rtt = self.session.rtt()?;
        Some((rtt.as_secs_f64() * 1e4).round() / 10.0)
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let (ingest, silent) = match &self.role {
            PeerRole::Publisher(ingest) => (ingest.next_timeout(), Some(self.silent_at())),
            PeerRole::Viewer(_) => (None, None),
        };
        [self.session.next_timeout(), ingest, silent, self.pace_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// When a publisher that sends nothing more has been silent for too long.
    pub(super) fn silent_at(&self) -> Instant {
        self.last_media + self.silence_max
    }

    pub(super) fn tag(&self, id: SessionId) -> String {
        let protocol = match self.role {
            PeerRole::Publisher(_) => "whip",
            PeerRole::Viewer(_) => "whep",
        };
        format!("{protocol} {id} {}", self.client)
    }
}

impl Gateway {
    pub(super) fn session_params(&mut self, id: SessionId, role: Role) -> Params {
        Params {
            role,
            id,
            credentials: self.ice_credentials(id),
            seed: self.secrets.number(),
            stream_profile: None,
        }
    }

    /// Has an offer answered.
    pub(super) fn answer_offer(
        &mut self,
        now: Instant,
        params: Params,
        offer: &str,
    ) -> Result<(Session, String), Refused> {
        let role = params.role;
        let (session, sdp) =
            Session::answer(&self.engine, params, offer, now).map_err(|error| {
                self.stats.error(error.reason());
                log::info!("{role}: offer refused: {error}");
                let status = match error.status() {
                    406 => Status::NotAcceptable,
                    415 => Status::UnsupportedMediaType,
                    422 => Status::UnprocessableContent,
                    _ => Status::BadRequest,
                };
                Refused {
                    status,
                    reason: error.reason(),
                    text: error.to_string(),
                    retry: None,
                }
            })?;
        if session.has_profile_mismatch() {
            log::warn!(
                "{} {}: none of the offered H.264 profiles is the stream's; most browsers play it \
                 all the same",
                role,
                session.id()
            );
        }
        Ok((session, sdp))
    }

    /// Takes a publisher's session in; answers the secret of its URL.
    pub(super) fn add_publisher(
        &mut self,
        now: Instant,
        session: Session,
        stream: StreamId,
        client: SocketAddr,
        who: Admitted,
    ) -> String {
        let webrtc = &self.config.webrtc;
        let limits = IngestLimits {
            video: frame_assembler::Limits {
                hole_wait: webrtc.hole_wait,
                keyframe_interval: webrtc.keyframe_request_interval,
                ..frame_assembler::Limits::default()
            },
            audio: reorder::Limits {
                wait: webrtc.audio_reorder_wait,
                ..reorder::Limits::default()
            },
        };
        self.publishers += 1;
        let role = PeerRole::Publisher(Box::new(WebrtcIngest::new(limits)));
        self.add_session(now, session, role, stream, client, who)
    }

    /// Takes a viewer's session in; answers the secret of its URL.
    pub(super) fn add_viewer(
        &mut self,
        now: Instant,
        session: Session,
        stream: StreamId,
        client: SocketAddr,
        who: Admitted,
    ) -> String {
        let streams = &self.config.streams;
        let limits = ViewerLimits {
            fast_start: streams.gop_cache != GopCache::Off,
            fast_start_max: match streams.gop_cache {
                GopCache::Gop => streams.fast_start_max,
                GopCache::Idr | GopCache::Off => Duration::ZERO,
            },
            fast_start_rate: streams.fast_start_rate,
            payload_bytes: self.config.webrtc.payload_bytes_max,
        };
        let id = session.id();
        let role = PeerRole::Viewer(Box::new(Viewer::new(limits)));
        let resource = self.add_session(now, session, role, stream, client, who);
        self.player_came(now, stream, PeerId::Webrtc(id));
        resource
    }

    fn add_session(
        &mut self,
        now: Instant,
        session: Session,
        role: PeerRole,
        stream: StreamId,
        client: SocketAddr,
        who: Admitted,
    ) -> String {
        let id = session.id();
        let resource = self.secrets.name();
        self.demux.insert(id);
        self.resources.insert(resource.clone(), id);
        let stream_key = self.hub.get(stream).map(|stream| stream.key.clone());
        let peer = Peer {
            session,
            role,
            stream,
            key: stream_key.unwrap_or_default(),
            user: who.identity.user,
            client,
            since: now,
            was_connected: false,
            pace_at: None,
            keyframe_requests: 0,
            ice_generation: 0,
            resource: resource.clone(),
            holder: who.holder,
            last_media: now,
            silence_max: self.config.webrtc.publish_idle_timeout,
            heard_at: now,
            first: FirstSent::default(),
        };
        self.deadlines.arm(Owner::Session(id), peer.next_timeout());
        self.sessions.insert(id, Box::new(peer));
        resource
    }

    /// Ends a session against the peer's wish.
    pub(super) fn end_session(&mut self, now: Instant, id: SessionId, why: &str) {
        let Some(peer) = self.sessions.get_mut(&id) else {
            return;
        };
        peer.session.close(now);
        self.take_session_datagrams(id);
        self.remove_session(now, id, Leave::Lost, why);
    }

    /// Ends a session as its peer wished.
    pub(super) fn end_session_cleanly(&mut self, now: Instant, id: SessionId) {
        if let Some(peer) = self.sessions.get_mut(&id) {
            peer.session.close(now);
        }
        self.take_session_datagrams(id);
        self.remove_session(now, id, Leave::Clean, "its client ended it");
    }

    pub(super) fn end_all_sessions(&mut self, now: Instant) {
        let mut all: Vec<SessionId> = self.sessions.keys().copied().collect();
        all.sort_unstable();
        for id in all {
            self.end_session(now, id, "the gateway stops");
        }
    }

    /// A PATCH with new ICE credentials.
    pub(super) fn restart_ice(&mut self, id: SessionId, patch: &Patch) -> Response {
        let credentials = self.ice_credentials(id);
        let Some(peer) = self.sessions.get_mut(&id) else {
            return answer::unknown_session();
        };
        match peer
            .session
            .handle_fragment(&patch.fragment.encode(), &credentials)
        {
            Ok(Some(fragment)) => match Fragment::decode(fragment.as_bytes()) {
                Ok(fragment) => {
                    peer.ice_generation += 1;
                    answer::restarted(&EntityTag::of_generation(peer.ice_generation), &fragment)
                }
                Err(_) => answer::restart_refused(),
            },
            Ok(None) => answer::trickled(),
            Err(_) => answer::restart_refused(),
        }
    }

    fn ice_credentials(&mut self, id: SessionId) -> Credentials {
        let random = (self.secrets.number() >> 32) as u32;
        Credentials {
            ufrag: id.ufrag(random),
            password: self.secrets.name(),
        }
    }

    pub(super) fn remove_session(&mut self, now: Instant, id: SessionId, leave: Leave, why: &str) {
        let Some(peer) = self.sessions.remove(&id) else {
            return;
        };
        let reason = match leave {
            Leave::Clean => MediaReason::Closed,
            Leave::Lost => MediaReason::Timeout,
        };
        self.conversations.leg_ended(PeerId::Webrtc(id), reason);
        self.resources.remove(&peer.resource);
        self.demux.remove(id);
        self.deadlines.disarm(Owner::Session(id));
        let (tag, key) = (peer.tag(id), &peer.key);
        let after = now.duration_since(peer.since);
        let seconds = after.as_secs_f64();
        let viewer = match &peer.role {
            PeerRole::Viewer(viewer) => Some(viewer),
            PeerRole::Publisher(_) => None,
        };
        if !peer.was_connected && after >= CONNECTS_WITHIN {
            self.stats.error("webrtc_never_connected");
            log::warn!(
                "{tag}: left {key} after {seconds:.1} s and never connected ({why}): is the media \
                 port open for UDP and TCP, and webrtc.public_addresses right?"
            );
        } else if let Some(viewer) = viewer {
            log::info!(
                "{tag}: left {key} after {seconds:.1} s ({why}), {} key frame requests, {} skips",
                peer.keyframe_requests,
                viewer.skips
            );
        } else {
            log::info!("{tag}: left {key} after {seconds:.1} s ({why})");
        }
        match &peer.role {
            PeerRole::Publisher(_) => {
                self.publishers -= 1;
                self.publisher_left(now, peer.stream, PeerId::Webrtc(id), leave);
            }
            PeerRole::Viewer(_) => {
                let client = peer.client.to_string();
                if !is_members_stream(&peer.key) {
                    self.notify_callback(CallbackEvent::Stop, || {
                        let user = peer.user.as_deref();
                        stopped("whep", &client, user, &peer.key, after)
                    });
                }
                self.player_left(now, peer.stream, PeerId::Webrtc(id));
            }
        }
        self.close_ice_tcp_of(id);
        self.stop_when_drained();
    }
}

/// A client that needs longer than this to connect has no way for its media: pages give up
/// after some seconds, long before [`crate::config::WebRtc::connect_timeout`].
const CONNECTS_WITHIN: Duration = Duration::from_secs(4);

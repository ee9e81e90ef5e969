//! What RTMP publishers ask.

use std::time::Instant;

use super::RtmpConnection;
use crate::bridge::rtmp_ingest::{BFrames, IngestError, RtmpIngest};
use crate::config::BFramePolicy;
use crate::gateway::admission::Admitted;
use crate::gateway::conversations::is_members_stream;
use crate::gateway::streams::Leave;
use crate::gateway::{Fate, Gateway};
use crate::hub::{Announced, ClaimError, Publisher};
use crate::ids::{PeerId, StreamId};
use crate::rtmp::session::{CloseReason, PublishRefusal, PublishRequest};
use crate::signaling::message::event::MediaReason;

/// A NetStream that publishes.
pub(super) struct Publishing {
    pub(super) message_stream: u32,
    pub(super) stream: StreamId,
    pub(super) ingest: RtmpIngest,
}

impl Gateway {
    /// Has a NetStream publish; answers whether it does.
    pub(super) fn rtmp_publish(
        &mut self,
        now: Instant,
        rtmp: &mut RtmpConnection,
        message_stream: u32,
        request: PublishRequest,
        admitted: Admitted,
    ) -> bool {
        let key = &request.name.key;
        let peer = rtmp.peer_id(message_stream);
        if is_members_stream(key)
            && let Err(error) =
                self.conversations
                    .let_in(now, peer, key, true, request.name.token())
        {
            log::warn!("{}: may not publish {key}: {error}", rtmp.tag());
            self.stats.error(error.reason());
            let text = format!("Publishing {key} is refused: {error}.");
            rtmp.session
                .reject_publish(message_stream, PublishRefusal::BadAuth, &text);
            return false;
        }
        let program = rtmp
            .session
            .connect_info()
            .and_then(|info| info.flash_version.clone());
        let publisher = Publisher {
            peer,
            user: admitted.identity.user,
            holder: admitted.holder,
            protocol: "rtmp",
            client: format!("{} {}", rtmp.peer, program.as_deref().unwrap_or_default())
                .trim()
                .to_owned(),
            since: now,
            last_media: now,
        };
        let before = self.publisher_facts(now, &request.name.key);
        match self
            .hub
            .claim(&request.name.key, publisher, Announced::default())
        {
            Ok((id, displaced)) => {
                log::info!(
                    "{}: publishes {} by {:?}",
                    rtmp.tag(),
                    request.name.key,
                    program.unwrap_or_default()
                );
                self.stats.session("rtmp_publish");
                rtmp.session.accept_publish(message_stream);
                let b_frames = match self.config.streams.b_frames {
                    BFramePolicy::Drop => BFrames::Drop,
                    BFramePolicy::Refuse => BFrames::Refuse,
                    BFramePolicy::Pass => BFrames::Pass,
                };
                rtmp.publishing.push(Publishing {
                    message_stream,
                    stream: id,
                    ingest: RtmpIngest::new(b_frames),
                });
                if displaced.is_some() {
                    self.tell_unpublished(before);
                }
                match displaced {
                    // A client that publishes the same name twice on one connection.
                    Some(PeerId::Rtmp {
                        conn,
                        message_stream: old,
                    }) if conn == rtmp.conn => {
                        rtmp.publishing.retain(|p| p.message_stream != old);
                        let peer = rtmp.peer_id(old);
                        self.conversations.leg_ended(peer, MediaReason::Replaced);
                    }
                    Some(peer) => self.displace(now, peer),
                    None => {}
                }
                self.keep_members_stream(id);
                self.conversations.publishes(peer, id);
                self.publisher_came(now, id);
                true
            }
            Err(error) => {
                self.conversations.leg_ended(peer, MediaReason::Error);
                let refusal = match error {
                    ClaimError::Busy => PublishRefusal::BadName,
                    ClaimError::TooManyStreams => PublishRefusal::Failed,
                };
                log::warn!(
                    "{}: may not publish {}: {error}",
                    rtmp.tag(),
                    request.name.key
                );
                self.stats.error(match error {
                    ClaimError::Busy => "publish_busy",
                    ClaimError::TooManyStreams => "streams_max",
                });
                let text = format!("Stream {} is refused: {error}.", request.name.key);
                rtmp.session.reject_publish(message_stream, refusal, &text);
                false
            }
        }
    }

    pub(super) fn rtmp_unpublish(
        &mut self,
        now: Instant,
        rtmp: &mut RtmpConnection,
        message_stream: u32,
    ) {
        let at = rtmp
            .publishing
            .iter()
            .position(|p| p.message_stream == message_stream);
        let Some(at) = at else { return };
        let publishing = rtmp.publishing.swap_remove(at);
        let peer = rtmp.peer_id(message_stream);
        self.publisher_left(now, publishing.stream, peer, Leave::Clean);
    }

    /// Ends what a NetStream publishes or plays, because its member is gone or wants it so.
    pub(in crate::gateway) fn rtmp_end_leg(
        &mut self,
        now: Instant,
        rtmp: &mut RtmpConnection,
        message_stream: u32,
    ) -> Fate {
        if rtmp.ingest(message_stream).is_some() {
            self.rtmp_unpublish(now, rtmp, message_stream);
            let text = "The member is gone from its room.";
            rtmp.session
                .reject_publish(message_stream, PublishRefusal::Failed, text);
        } else {
            self.rtmp_end_play(now, rtmp, message_stream);
        }
        self.rtmp_events(now, rtmp)
    }

    pub(in crate::gateway) fn rtmp_displaced(
        &mut self,
        _now: Instant,
        rtmp: &mut RtmpConnection,
        message_stream: u32,
    ) -> Fate {
        log::info!("{}: another publisher took over", rtmp.tag());
        rtmp.publishing
            .retain(|publishing| publishing.message_stream != message_stream);
        rtmp.session.close(CloseReason::Replaced);
        Fate::Close
    }

    /// A publisher sent what cannot be carried.
    pub(super) fn refuse_media(
        &mut self,
        now: Instant,
        rtmp: &mut RtmpConnection,
        message_stream: u32,
        error: &IngestError,
    ) {
        log::warn!("{}: publisher refused: {error}", rtmp.tag());
        self.stats.error(error.reason());
        rtmp.session
            .reject_publish(message_stream, PublishRefusal::Failed, &error.to_string());
        self.rtmp_unpublish(now, rtmp, message_stream);
    }
}

pub(super) fn publishing(
    rtmp: &mut RtmpConnection,
    message_stream: u32,
) -> Option<&mut Publishing> {
    rtmp.publishing
        .iter_mut()
        .find(|publishing| publishing.message_stream == message_stream)
}

//! What RTMP publishers ask.

use std::time::Instant;

use super::RtmpConnection;
use crate::bridge::rtmp_ingest::{BFrames, IngestError, RtmpIngest};
use crate::config::BFramePolicy;
use crate::gateway::admission::Admitted;
use crate::gateway::streams::Leave;
use crate::gateway::{Fate, Gateway};
use crate::hub::{Announced, ClaimError, Publisher};
use crate::ids::{PeerId, StreamId};
use crate::rtmp::session::{CloseReason, PublishRefusal, PublishRequest};

/// A NetStream that publishes.
pub(super) struct Publishing {
    pub(super) message_stream: u32,
    pub(super) stream: StreamId,
    pub(super) ingest: RtmpIngest,
}

impl Gateway {
    pub(super) fn rtmp_publish(
        &mut self,
        now: Instant,
        rtmp: &mut RtmpConnection,
        message_stream: u32,
        request: PublishRequest,
        admitted: Admitted,
    ) {
        let program = rtmp
            .session
            .connect_info()
            .and_then(|info| info.flash_version.clone());
        let publisher = Publisher {
            peer: rtmp.peer_id(message_stream),
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
                    }
                    Some(peer) => self.displace(now, peer),
                    None => {}
                }
                self.publisher_came(now, id);
            }
            Err(error) => {
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

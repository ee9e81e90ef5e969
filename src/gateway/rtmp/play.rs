//! What RTMP players ask and are told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::RtmpConnection;
use crate::bridge::rtmp_egress::{GopStart, RtmpPlayer};
use crate::config::GopCache;
use crate::gateway::conversations::{FirstSent, is_members_stream};
use crate::gateway::{Connection, Fate, Gateway};
use crate::hub::{Publisher, Stream};
use crate::ids::{ConnId, PeerId, StreamId};
use crate::media::MediaTime;
use crate::rtmp::session::{CloseReason, PlayRefusal, PlayRequest};
use crate::signaling::message::event::MediaReason;

/// A NetStream that plays or waits to.
pub(in crate::gateway) struct Playing {
    pub(in crate::gateway) message_stream: u32,
    pub(in crate::gateway) stream: StreamId,
    /// The stream's name, which the log still tells when the stream has ended.
    pub(super) key: Arc<str>,
    /// Who plays, by its token.
    pub(super) user: Option<String>,
    pub(in crate::gateway) player: RtmpPlayer,
    pub(in crate::gateway) since: Instant,
    /// What its member's conversation knows of what was sent.
    pub(in crate::gateway) first: FirstSent,
    /// Until when it waits for a publisher.
    pub(super) held_until: Option<Instant>,
    /// When it stops waiting for a fresh key frame and takes the cached one.
    pub(super) impatient_at: Option<Instant>,
}

/// What a player is told about its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gateway) enum News {
    /// A publisher came.
    Published,
    /// The publisher ended it in order.
    Unpublished,
    /// The stream is gone.
    Ended,
}

impl RtmpConnection {
    /// The last word on a NetStream that played.
    pub(super) fn tell_end(&self, now: Instant, playing: &Playing) {
        log::info!(
            "{}: left {} after {:.1} s, {} messages, {} skips",
            self.tag(),
            playing.key,
            now.duration_since(playing.since).as_secs_f64(),
            playing.player.messages,
            playing.player.skips
        );
    }
}

impl Gateway {
    pub(super) fn rtmp_play(
        &mut self,
        now: Instant,
        rtmp: &mut RtmpConnection,
        message_stream: u32,
        request: PlayRequest,
        user: Option<String>,
    ) -> bool {
        let key = &request.name.key;
        let peer = rtmp.peer_id(message_stream);
        let is_members = is_members_stream(key);
        if is_members
            && let Err(error) =
                self.conversations
                    .let_in(now, peer, key, false, request.name.token())
        {
            log::warn!("{}: may not play {key}: {error}", rtmp.tag());
            self.stats.error(error.reason());
            let text = format!("Playing {key} is refused: {error}.");
            rtmp.session
                .reject_play(message_stream, PlayRefusal::BadAuth, &text);
            return false;
        }
        let published = self
            .hub
            .find(key)
            .filter(|id| self.hub.get(*id).is_some_and(is_worth_waiting_for));
        let wait = self.config.rtmp.play_wait;
        if published.is_none() && wait.is_zero() && !is_members {
            self.stats.error("play_stream_not_found");
            let text = format!("Stream {key} is not published.");
            rtmp.session
                .reject_play(message_stream, PlayRefusal::StreamNotFound, &text);
            return false;
        }
        let id = match self.hub.open(key) {
            Ok(id) => id,
            Err(error) => {
                self.stats.error("streams_max");
                self.conversations.leg_ended(peer, MediaReason::Error);
                rtmp.session
                    .reject_play(message_stream, PlayRefusal::Failed, &error.to_string());
                return false;
            }
        };
        self.stats.session("rtmp_play");
        if is_members {
            self.keep_members_stream(id);
        }
        let start = self.rtmp_start(now, id);
        let Some(stream) = self.hub.get(id) else {
            return false;
        };
        let mut player = RtmpPlayer::new(message_stream, stream, start);
        let sound_only = request.name.query_value("media") == Some("audio");
        player.receive_video(request.receive_video && !sound_only);
        player.wants_audio = request.receive_audio;
        let mut playing = Playing {
            message_stream,
            stream: id,
            key: stream.key.clone(),
            user,
            player,
            since: now,
            first: FirstSent::default(),
            held_until: None,
            impatient_at: (start != self.configured_start() && stream.ring.gop_start().is_some())
                .then(|| now + FRESH_KEY_WAIT),
        };
        if stream.publisher.is_some() {
            log::info!("{}: plays {key}", rtmp.tag());
            rtmp.session.accept_play(message_stream);
        } else {
            log::info!("{}: waits to play {key}", rtmp.tag());
            rtmp.session.hold_play(message_stream);
            // Who waits for a member waits as long as it is one.
            if stream.unpublished.is_none() && !is_members {
                playing.held_until = Some(now + wait);
            }
        }
        rtmp.playing.push(playing);
        self.player_came(now, id, rtmp.peer_id(message_stream));
        // The cached pictures go out in this turn.
        self.serve_connection(rtmp);
        true
    }

    /// Ends what a NetStream plays.
    pub(super) fn rtmp_end_play(
        &mut self,
        now: Instant,
        rtmp: &mut RtmpConnection,
        message_stream: u32,
    ) {
        let of_it = |playing: &Playing| playing.message_stream == message_stream;
        let Some(at) = rtmp.playing.iter().position(of_it) else {
            return;
        };
        let playing = rtmp.playing.swap_remove(at);
        self.rtmp_play_ended(now, rtmp, &playing);
        let peer = rtmp.peer_id(message_stream);
        self.player_left(now, playing.stream, peer);
        rtmp.session.unpublish_notify(message_stream);
        if rtmp.playing.is_empty() && rtmp.publishing.is_empty() {
            rtmp.session.close(CloseReason::Finished);
        }
    }

    pub(super) fn configured_start(&self) -> GopStart {
        match self.config.streams.gop_cache {
            GopCache::Gop => GopStart::Gop,
            GopCache::Idr => GopStart::Idr,
            GopCache::Off => GopStart::Off,
        }
    }

    /// Where a new player starts. A WebRTC publisher can be asked for a key frame, which
    /// is worth a moment's wait if the cached one is old.
    fn rtmp_start(&mut self, now: Instant, id: StreamId) -> GopStart {
        let configured = self.configured_start();
        let Some(stream) = self.hub.get(id) else {
            return configured;
        };
        let Some(Publisher {
            peer: PeerId::Webrtc(session),
            ..
        }) = stream.publisher
        else {
            return configured;
        };
        let fresh = stream
            .ring
            .gop_start()
            .is_some_and(|start| stream.ring.lag(start) <= FRESH_KEY_AGE);
        if fresh {
            return configured;
        }
        self.ask_for_keyframe(now, session);
        GopStart::Off
    }

    /// Tells an RTMP player about its stream; other players have no such words.
    pub(in crate::gateway) fn tell_rtmp_player(
        &mut self,
        now: Instant,
        player: PeerId,
        news: News,
    ) {
        let PeerId::Rtmp {
            conn,
            message_stream,
        } = player
        else {
            return;
        };
        if self.at_work.contains(&conn) {
            // It publishes, or tries to play, what it waits for itself.
            self.waiting_news.push((player, news));
            return;
        }
        self.with_connection(conn, |gateway, connection| {
            let Connection::Rtmp(rtmp) = connection else {
                return Fate::Live;
            };
            match news {
                News::Published => {
                    if let Some(playing) = rtmp.playing(message_stream) {
                        playing.held_until = None;
                    }
                    rtmp.session.publish_notify(message_stream);
                }
                News::Unpublished => {
                    // What came with the end comes before it.
                    gateway.serve_rest(rtmp, message_stream);
                    rtmp.session.unpublish_notify(message_stream);
                }
                News::Ended => {
                    let of_it = |p: &Playing| p.message_stream == message_stream;
                    if let Some(at) = rtmp.playing.iter().position(of_it) {
                        let playing = rtmp.playing.swap_remove(at);
                        gateway.rtmp_play_ended(now, rtmp, &playing);
                    }
                    rtmp.session.unpublish_notify(message_stream);
                    if rtmp.playing.is_empty() && rtmp.publishing.is_empty() {
                        rtmp.session.close(CloseReason::Finished);
                    }
                }
            }
            gateway.rtmp_events(now, rtmp)
        });
    }

    /// Tells players on `conn`, which is not worked on any more, what they could not be told.
    pub(in crate::gateway) fn tell_waiting(&mut self, conn: ConnId) {
        if self.waiting_news.is_empty() {
            return;
        }
        let is_meant =
            |player: &PeerId| matches!(player, PeerId::Rtmp { conn: of, .. } if *of == conn);
        for (player, news) in std::mem::take(&mut self.waiting_news) {
            if is_meant(&player) {
                self.tell_rtmp_player(self.now, player, news);
            } else {
                self.waiting_news.push((player, news));
            }
        }
    }
}

/// Whether a stream has a publisher or had one until a moment ago.
fn is_worth_waiting_for(stream: &Stream) -> bool {
    stream.publisher.is_some() || stream.unpublished.is_some()
}

/// A cached key frame of a WebRTC publisher that is older is not started from at once.
pub(in crate::gateway) const FRESH_KEY_AGE: MediaTime = MediaTime::from_millis(1_000);

/// How long a player waits for a fresh key frame before it takes the cached one: a round trip
/// and an encoder's turn, within the second that a player has for its first picture.
const FRESH_KEY_WAIT: Duration = Duration::from_millis(600);

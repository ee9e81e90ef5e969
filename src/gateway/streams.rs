//! What joins publishers, streams and players.

use std::time::Instant;

use super::{Connection, Gateway, Owner};
use crate::hub::{Patience, Stream};
use crate::ids::{PeerId, StreamId};
use crate::media::{Codec, Frame, TrackKind};
use crate::signaling::message::event::MediaReason;
use crate::transcode::Completed;

/// How a publisher left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// It said so: RTMP players are told at once.
    Clean,
    /// It vanished, or another one took over: players wait for a while.
    Lost,
}

impl Gateway {
    /// `peer` does not publish `id` any more.
    pub(super) fn publisher_left(
        &mut self,
        now: Instant,
        id: StreamId,
        peer: PeerId,
        leave: Leave,
    ) {
        let facts = match self.hub.get(id).map(|stream| stream.key.clone()) {
            Some(key) => self.publisher_facts(now, &key),
            None => None,
        };
        self.conversations.leg_ended(peer, MediaReason::Timeout);
        if !self.hub.unpublish(id, peer, now) {
            return;
        }
        self.tell_unpublished(facts);
        let Some(stream) = self.hub.get(id) else {
            return;
        };
        log::info!(
            "{}: no publisher now ({}), {} players",
            stream.key,
            match leave {
                Leave::Clean => "ended",
                Leave::Lost => "lost",
            },
            stream.players().count()
        );
        // Players of a member wait for it as long as it is one.
        if leave == Leave::Clean && stream.patience == Patience::Grace {
            for player in stream.rtmp_list().to_vec() {
                self.tell_rtmp_player(now, player, super::rtmp::News::Unpublished);
            }
        }
        self.review_transcoding(now, id);
        self.reap_stream(now, id);
    }

    /// A publisher has come to `id`: players that waited are told.
    pub(super) fn publisher_came(&mut self, now: Instant, id: StreamId) {
        self.deadlines.disarm(Owner::Stream(id));
        // Its sound has nothing to do with that of the one before.
        self.transcoding.close(id, &mut self.outputs);
        let Some(stream) = self.hub.get(id) else {
            return;
        };
        for player in stream.rtmp_list().to_vec() {
            self.tell_rtmp_player(now, player, super::rtmp::News::Published);
        }
        self.review_transcoding(now, id);
    }

    /// Ends whoever was displaced as a publisher.
    pub(super) fn displace(&mut self, now: Instant, peer: PeerId) {
        self.stats.error("publisher_displaced");
        self.conversations.leg_ended(peer, MediaReason::Replaced);
        match peer {
            PeerId::Rtmp {
                conn,
                message_stream,
            } => {
                self.with_connection(conn, |gateway, connection| match connection {
                    Connection::Rtmp(rtmp) => gateway.rtmp_displaced(now, rtmp, message_stream),
                    _ => super::Fate::Live,
                });
            }
            PeerId::Webrtc(session) => {
                self.end_session(now, session, "another publisher took over")
            }
        }
    }

    /// Adds a player to a stream and starts what it needs.
    pub(super) fn player_came(&mut self, now: Instant, id: StreamId, peer: PeerId) {
        if let Some(stream) = self.hub.get_mut(id) {
            stream.add_player(peer);
        }
        self.review_transcoding(now, id);
    }

    /// Removes a player from a stream and stops what only it needed.
    pub(super) fn player_left(&mut self, now: Instant, id: StreamId, peer: PeerId) {
        self.conversations.leg_ended(peer, MediaReason::Timeout);
        let Some(stream) = self.hub.get_mut(id) else {
            return;
        };
        if stream.remove_player(peer) {
            self.review_transcoding(now, id);
            self.reap_stream(now, id);
        }
    }

    /// A frame of `codec` came to a stream: those of its players who play that are to be served.
    pub(super) fn news(&mut self, now: Instant, id: StreamId, codec: Codec) {
        if codec == Codec::H264 {
            self.conversations.flowed(now, id, TrackKind::Video);
        }
        if codec != Codec::Opus {
            self.rtmp_news(now, id);
        }
        let viewers = self.hub.get(id).map_or(0, Stream::webrtc_players);
        if codec != Codec::Aac && viewers > 0 {
            self.fanout.mark(id, codec.kind());
        }
    }

    /// A publisher's sound came: players of its codec and the transcoder get it.
    pub(super) fn sound_published(&mut self, now: Instant, id: StreamId, frame: &Frame) {
        self.conversations.flowed(now, id, TrackKind::Audio);
        self.news(now, id, frame.codec);
        let Some(stream) = self.hub.get_mut(id) else {
            return;
        };
        let target = stream.transcode_target();
        let pipeline = self.transcoding.of_stream(id);
        if let Some(target) = target
            && !pipeline.is_some_and(|pipeline| pipeline.makes(target))
        {
            let again = self.transcoding.review(now, id, stream, &mut self.outputs);
            self.deadlines.arm(Owner::Transcode(id), again);
        }
        if !self
            .transcoding
            .feed(now, id, stream, frame, &mut self.outputs)
        {
            self.stats.transcode_dropped_frames += 1;
        }
    }

    /// Starts, goes on with or stops a stream's transcoding.
    pub(super) fn review_transcoding(&mut self, now: Instant, id: StreamId) {
        match self.hub.get_mut(id) {
            Some(stream) => {
                let again = self.transcoding.review(now, id, stream, &mut self.outputs);
                self.deadlines.arm(Owner::Transcode(id), again);
            }
            None => {
                self.transcoding.close(id, &mut self.outputs);
                self.deadlines.disarm(Owner::Transcode(id));
            }
        }
    }

    /// Sound came back from a worker.
    pub(super) fn transcoded(&mut self, now: Instant, completed: Completed) {
        self.stats.transcode_errors += u64::from(completed.errors);
        self.stats.transcode_concealed_samples += u64::from(completed.concealed);
        self.stats.transcode_silence_samples += u64::from(completed.silence);
        self.stats.transcode_busy_us += completed.busy.as_micros() as u64;
        self.stats.transcode_frames += completed.frames.len() as u64;
        // A stream may have ended meanwhile.
        let Some((id, target)) = self
            .transcoding
            .completed(completed.pipeline, completed.sync)
        else {
            return;
        };
        let Some(stream) = self.hub.get_mut(id) else {
            return;
        };
        if let Some(error) = &completed.error
            && self
                .transcoding
                .failed(now, completed.pipeline, &mut self.outputs)
        {
            log::warn!(
                "{}: transcoding to {target} failed, beginning anew: {error}",
                stream.key
            );
        }
        if let Some(config) = completed.config {
            stream.configure_transcoded(config);
        }
        let came = !completed.frames.is_empty();
        for frame in completed.frames {
            stream.publish_transcoded(frame, now);
        }
        if came {
            self.news(now, id, target);
        }
    }

    /// Lets a stream go that nobody needs any more, and tells the players left on it.
    pub(super) fn reap_stream(&mut self, now: Instant, id: StreamId) {
        let Some(ended) = self.hub.reap(id, now) else {
            self.deadlines.arm(Owner::Stream(id), self.hub.reap_at(id));
            return;
        };
        self.deadlines.disarm(Owner::Stream(id));
        self.review_transcoding(now, id);
        self.end_players(now, &ended);
    }

    fn end_players(&mut self, now: Instant, ended: &Stream) {
        if ended.has_players() {
            log::info!(
                "{}: ended with {} players",
                ended.key,
                ended.players().count()
            );
        }
        for player in ended.players() {
            self.conversations
                .leg_ended(player, MediaReason::MemberLeft);
            match player {
                PeerId::Rtmp { .. } => {
                    self.tell_rtmp_player(now, player, super::rtmp::News::Ended);
                }
                PeerId::Webrtc(session) => self.end_session(now, session, "the stream ended"),
            }
        }
    }
}

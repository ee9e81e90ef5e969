//! RTMP connections: what their sessions ask and what they get.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::streams::Leave;
use super::{Connection, Fate, Gateway};
use crate::bridge::rtmp_egress::{GopStart, RtmpPlayer};
use crate::bridge::rtmp_ingest::{BFrames, IngestError, RtmpIngest};
use crate::config::{BFramePolicy, GopCache};
use crate::hub::{Announced, ClaimError, Publisher, Stream};
use crate::ids::{ConnId, PeerId, StreamId};
use crate::media::{MediaTime, TrackKind};
use crate::rtmp::chunk::ChunkLimits;
use crate::rtmp::session::{
    CloseReason, Event, Limits, PlayRefusal, PlayRequest, PublishRefusal, PublishRequest,
};
use crate::rtmp::{self};

/// One RTMP connection with what its NetStreams do.
pub(super) struct RtmpConnection {
    pub(super) conn: ConnId,
    pub(super) session: rtmp::Session,
    pub(super) peer: SocketAddr,
    publishing: Vec<Publishing>,
    pub(super) playing: Vec<Playing>,
}

/// A NetStream that publishes.
struct Publishing {
    message_stream: u32,
    stream: StreamId,
    ingest: RtmpIngest,
}

/// A NetStream that plays or waits to.
pub(super) struct Playing {
    pub(super) message_stream: u32,
    pub(super) stream: StreamId,
    /// The stream's name, which the log still tells when the stream has ended.
    key: Arc<str>,
    pub(super) player: RtmpPlayer,
    pub(super) since: Instant,
    /// Until when it waits for a publisher.
    held_until: Option<Instant>,
    /// When it stops waiting for a fresh key frame and takes the cached one.
    impatient_at: Option<Instant>,
}

/// What a player is told about its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// A publisher came.
    Published,
    /// The publisher ended it in order.
    Unpublished,
    /// The stream is gone.
    Ended,
}

impl RtmpConnection {
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let playing = self.playing.iter();
        playing
            .flat_map(|playing| [playing.held_until, playing.impatient_at])
            .chain([self.session.next_timeout()])
            .flatten()
            .min()
    }

    fn tag(&self) -> String {
        format!("rtmp {} {}", self.conn, self.peer)
    }

    /// The last word on a NetStream that played.
    fn tell_end(&self, now: Instant, playing: &Playing) {
        log::info!(
            "{}: left {} after {:.1} s, {} messages, {} skips",
            self.tag(),
            playing.key,
            now.duration_since(playing.since).as_secs_f64(),
            playing.player.messages,
            playing.player.skips
        );
    }

    fn playing(&mut self, message_stream: u32) -> Option<&mut Playing> {
        self.playing
            .iter_mut()
            .find(|playing| playing.message_stream == message_stream)
    }

    /// How a NetStream's media comes in.
    pub(super) fn ingest(&self, message_stream: u32) -> Option<&RtmpIngest> {
        let mut publishing = self.publishing.iter();
        publishing
            .find(|p| p.message_stream == message_stream)
            .map(|p| &p.ingest)
    }

    fn peer_id(&self, message_stream: u32) -> PeerId {
        PeerId::Rtmp {
            conn: self.conn,
            message_stream,
        }
    }
}

impl Gateway {
    pub(super) fn rtmp_accepted(
        &mut self,
        now: Instant,
        conn: ConnId,
        peer: SocketAddr,
    ) -> RtmpConnection {
        self.stats.session("rtmp");
        let rtmp = &self.config.rtmp;
        let limits = Limits {
            chunks: ChunkLimits {
                message_bytes_max: rtmp.message_bytes_max as u32,
                partial_bytes_max: rtmp.partial_bytes_max,
                ..ChunkLimits::default()
            },
            handshake_timeout: rtmp.handshake_timeout,
            connect_timeout: rtmp.handshake_timeout,
            request_timeout: rtmp.idle_timeout,
            publish_silence: rtmp.publish_idle_timeout,
            chunk_size_out: rtmp.chunk_size,
            ack_window: rtmp.ack_window_bytes,
            announce_enhanced: rtmp.enhanced,
            ..Limits::default()
        };
        let seed = self.secrets.number();
        log::debug!("rtmp {conn} {peer}: connected");
        RtmpConnection {
            conn,
            session: rtmp::Session::new(limits, seed, now),
            peer,
            publishing: Vec::new(),
            playing: Vec::new(),
        }
    }

    pub(super) fn rtmp_received(
        &mut self,
        now: Instant,
        rtmp: &mut RtmpConnection,
        bytes: &[u8],
    ) -> Fate {
        let result = rtmp.session.receive(now, bytes);
        // What came before the error counts.
        let fate = self.rtmp_events(now, rtmp);
        self.rtmp_result(rtmp, result, fate)
    }

    pub(super) fn rtmp_timeout(&mut self, now: Instant, rtmp: &mut RtmpConnection) -> Fate {
        let result = rtmp.session.handle_timeout(now);
        let fate = self.rtmp_events(now, rtmp);
        let configured = self.configured_start();
        let has_waited = |playing: &Playing| playing.held_until.is_some_and(|until| until <= now);
        while let Some(at) = rtmp.playing.iter().position(has_waited) {
            let Playing {
                message_stream,
                stream,
                ..
            } = rtmp.playing.swap_remove(at);
            self.stats.error("play_wait_timeout");
            let text = "No publisher came in time.";
            rtmp.session
                .reject_play(message_stream, PlayRefusal::StreamNotFound, text);
            let peer = rtmp.peer_id(message_stream);
            self.player_left(now, stream, peer);
        }
        for playing in &mut rtmp.playing {
            if playing.impatient_at.is_some_and(|at| at <= now) {
                playing.impatient_at = None;
                if let Some(stream) = self.hub.get(playing.stream)
                    && !playing.player.has_started()
                {
                    playing.player.seek(stream, configured);
                    self.fanout.mark(playing.stream, TrackKind::Video);
                }
            }
        }
        let fate = match fate {
            Fate::Live => self.rtmp_events(now, rtmp),
            Fate::Close => Fate::Close,
        };
        self.rtmp_result(rtmp, result, fate)
    }

    /// The connection took some bytes: a player that was behind gets more.
    pub(super) fn rtmp_transmitted(&mut self, _now: Instant, rtmp: &mut RtmpConnection) -> Fate {
        self.serve_connection(rtmp);
        Fate::Live
    }

    fn serve_connection(&self, rtmp: &mut RtmpConnection) {
        let chunk_size = self.config.rtmp.chunk_size;
        for playing in &mut rtmp.playing {
            if let Some(stream) = self.hub.get(playing.stream) {
                playing
                    .player
                    .serve(stream, &mut rtmp.session, HIGH_WATER_BYTES, chunk_size);
            }
        }
    }

    /// The connection is over for whatever reason; leaves what it was part of.
    pub(super) fn rtmp_gone(&mut self, now: Instant, rtmp: &mut RtmpConnection) {
        for publishing in std::mem::take(&mut rtmp.publishing) {
            let peer = rtmp.peer_id(publishing.message_stream);
            self.publisher_left(now, publishing.stream, peer, Leave::Lost);
        }
        for playing in std::mem::take(&mut rtmp.playing) {
            let peer = rtmp.peer_id(playing.message_stream);
            rtmp.tell_end(now, &playing);
            self.player_left(now, playing.stream, peer);
        }
    }

    pub(super) fn rtmp_farewell(&mut self, _now: Instant, rtmp: &mut RtmpConnection) {
        rtmp.session.close(CloseReason::ShuttingDown);
    }

    pub(super) fn rtmp_displaced(
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

    /// Tells an RTMP player about its stream; other players have no such words.
    pub(super) fn tell_rtmp_player(&mut self, now: Instant, player: PeerId, news: News) {
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
                    gateway.serve_connection(rtmp);
                    rtmp.session.unpublish_notify(message_stream);
                }
                News::Ended => {
                    let of_it = |p: &Playing| p.message_stream == message_stream;
                    if let Some(at) = rtmp.playing.iter().position(of_it) {
                        let playing = rtmp.playing.swap_remove(at);
                        rtmp.tell_end(now, &playing);
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
    pub(super) fn tell_waiting(&mut self, conn: ConnId) {
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

    /// Turns the end of a session by an error into its close.
    fn rtmp_result(
        &mut self,
        rtmp: &RtmpConnection,
        result: Result<(), rtmp::session::Error>,
        fate: Fate,
    ) -> Fate {
        let Err(error) = result else { return fate };
        self.stats.error(error.reason());
        let idle = rtmp.publishing.is_empty() && rtmp.playing.is_empty();
        if idle {
            log::debug!("{}: closed: {error}", rtmp.tag());
        } else {
            log::warn!("{}: closed: {error}", rtmp.tag());
        }
        Fate::Close
    }

    fn rtmp_events(&mut self, now: Instant, rtmp: &mut RtmpConnection) -> Fate {
        while let Some(event) = rtmp.session.poll_event() {
            match event {
                Event::Connect(info) => {
                    log::debug!(
                        "{}: connect app {:?} by {:?}",
                        rtmp.tag(),
                        info.app,
                        info.flash_version
                    );
                }
                Event::Publish { stream_id, request } => {
                    self.rtmp_publish(now, rtmp, stream_id, *request);
                }
                Event::Play { stream_id, request } => {
                    self.rtmp_play(now, rtmp, stream_id, *request);
                }
                Event::Unpublish { stream_id } => self.rtmp_unpublish(now, rtmp, stream_id),
                Event::StopPlay { stream_id } => {
                    if rtmp.playing(stream_id).is_some() {
                        let peer = rtmp.peer_id(stream_id);
                        let at = rtmp
                            .playing
                            .iter()
                            .position(|p| p.message_stream == stream_id);
                        let playing = rtmp.playing.swap_remove(at.expect("it was just found"));
                        rtmp.tell_end(now, &playing);
                        self.player_left(now, playing.stream, peer);
                    }
                }
                Event::Video {
                    stream_id,
                    timestamp,
                    payload,
                } => {
                    let Some(publishing) = publishing(rtmp, stream_id) else {
                        continue;
                    };
                    let id = publishing.stream;
                    let Some(stream) = self.hub.get_mut(id) else {
                        continue;
                    };
                    match publishing.ingest.video(now, stream, timestamp, &payload) {
                        Ok(true) => self.news(id, TrackKind::Video),
                        Ok(false) => {}
                        Err(error) => self.refuse_media(now, rtmp, stream_id, &error),
                    }
                }
                Event::Audio {
                    stream_id,
                    timestamp,
                    payload,
                } => {
                    let Some(publishing) = publishing(rtmp, stream_id) else {
                        continue;
                    };
                    let id = publishing.stream;
                    let Some(stream) = self.hub.get_mut(id) else {
                        continue;
                    };
                    match publishing.ingest.audio(now, stream, timestamp, &payload) {
                        Ok(Some(frame)) => self.sound_published(now, id, &frame),
                        Ok(None) => {}
                        Err(error) => self.refuse_media(now, rtmp, stream_id, &error),
                    }
                }
                Event::Metadata { values, .. } => {
                    log::debug!("{}: metadata {values:?}", rtmp.tag());
                }
                Event::ReceiveVideo { stream_id, on } => {
                    if let Some(playing) = rtmp.playing(stream_id) {
                        playing.player.receive_video(on);
                    }
                }
                Event::ReceiveAudio { stream_id, on } => {
                    if let Some(playing) = rtmp.playing(stream_id) {
                        playing.player.wants_audio = on;
                    }
                }
                Event::Pause { stream_id, on } => {
                    let Some(playing) = rtmp.playing(stream_id) else {
                        continue;
                    };
                    if let Some(stream) = self.hub.get(playing.stream) {
                        playing.player.pause(stream, on);
                        self.fanout.mark(playing.stream, TrackKind::Video);
                    }
                }
                Event::Refused { reason } => {
                    log::warn!("{}: refused: {reason}", rtmp.tag());
                    self.stats.error(reason);
                }
                Event::Closed { reason } => {
                    log::debug!("{}: closed: {reason}", rtmp.tag());
                    return Fate::Close;
                }
            }
        }
        Fate::Live
    }

    fn rtmp_publish(
        &mut self,
        now: Instant,
        rtmp: &mut RtmpConnection,
        message_stream: u32,
        request: PublishRequest,
    ) {
        let program = rtmp
            .session
            .connect_info()
            .and_then(|info| info.flash_version.clone());
        let publisher = Publisher {
            peer: rtmp.peer_id(message_stream),
            token: request.name.token().map(str::to_owned),
            protocol: "rtmp",
            client: format!("{} {}", rtmp.peer, program.as_deref().unwrap_or_default())
                .trim()
                .to_owned(),
            since: now,
            last_media: now,
        };
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

    fn rtmp_unpublish(&mut self, now: Instant, rtmp: &mut RtmpConnection, message_stream: u32) {
        let at = rtmp
            .publishing
            .iter()
            .position(|p| p.message_stream == message_stream);
        let Some(at) = at else { return };
        let publishing = rtmp.publishing.swap_remove(at);
        let peer = rtmp.peer_id(message_stream);
        self.publisher_left(now, publishing.stream, peer, Leave::Clean);
    }

    fn rtmp_play(
        &mut self,
        now: Instant,
        rtmp: &mut RtmpConnection,
        message_stream: u32,
        request: PlayRequest,
    ) {
        let key = &request.name.key;
        let published = self
            .hub
            .find(key)
            .filter(|id| self.hub.get(*id).is_some_and(is_worth_waiting_for));
        let wait = self.config.rtmp.play_wait;
        if published.is_none() && wait.is_zero() {
            self.stats.error("play_stream_not_found");
            let text = format!("Stream {key} is not published.");
            rtmp.session
                .reject_play(message_stream, PlayRefusal::StreamNotFound, &text);
            return;
        }
        let id = match self.hub.open(key) {
            Ok(id) => id,
            Err(error) => {
                self.stats.error("streams_max");
                rtmp.session
                    .reject_play(message_stream, PlayRefusal::Failed, &error.to_string());
                return;
            }
        };
        self.stats.session("rtmp_play");
        let start = self.rtmp_start(now, id);
        let Some(stream) = self.hub.get(id) else {
            return;
        };
        let mut player = RtmpPlayer::new(message_stream, stream, start);
        player.receive_video(request.receive_video);
        player.wants_audio = request.receive_audio;
        let mut playing = Playing {
            message_stream,
            stream: id,
            key: stream.key.clone(),
            player,
            since: now,
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
            if stream.unpublished.is_none() {
                playing.held_until = Some(now + wait);
            }
        }
        rtmp.playing.push(playing);
        self.player_came(now, id, rtmp.peer_id(message_stream));
        // The cached pictures go out in this turn.
        if let (Some(stream), Some(playing)) = (self.hub.get(id), rtmp.playing.last_mut()) {
            let chunk_size = self.config.rtmp.chunk_size;
            playing
                .player
                .serve(stream, &mut rtmp.session, HIGH_WATER_BYTES, chunk_size);
        }
    }

    fn configured_start(&self) -> GopStart {
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

    /// A publisher sent what cannot be carried.
    fn refuse_media(
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

fn publishing(rtmp: &mut RtmpConnection, message_stream: u32) -> Option<&mut Publishing> {
    rtmp.publishing
        .iter_mut()
        .find(|publishing| publishing.message_stream == message_stream)
}

/// Whether a stream has a publisher or had one until a moment ago.
fn is_worth_waiting_for(stream: &Stream) -> bool {
    stream.publisher.is_some() || stream.unpublished.is_some()
}

/// Bytes a player's connection holds at most before the rest waits in the ring: a large key
/// frame, so that it leaves in one write.
pub(super) const HIGH_WATER_BYTES: usize = 256 << 10;

/// A cached key frame of a WebRTC publisher that is older is not started from at once.
pub(super) const FRESH_KEY_AGE: MediaTime = MediaTime::from_millis(1_000);

/// How long a player waits for a fresh key frame before it takes the cached one: a round trip
/// and an encoder's turn, within the second that a player has for its first picture.
const FRESH_KEY_WAIT: Duration = Duration::from_millis(600);

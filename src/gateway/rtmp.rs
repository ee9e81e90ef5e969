//! RTMP connections: what their sessions ask and what they get.

mod batches;
mod deliver;
mod held;
mod play;
mod publish;

use std::net::SocketAddr;
use std::time::Instant;

use super::streams::Leave;
use super::{Fate, Gateway};
use crate::bridge::rtmp_ingest::RtmpIngest;
use crate::ids::{ConnId, PeerId};
use crate::media::Codec;
use crate::rtmp;
use crate::rtmp::chunk::ChunkLimits;
use crate::rtmp::session::{CloseReason, Event, Limits, PlayRefusal};

pub(super) use batches::Batches;
pub(super) use held::stopped;
use held::{Held, Request};
pub(super) use play::{FRESH_KEY_AGE, News, Playing};
use publish::{Publishing, publishing};

/// One RTMP connection with what its NetStreams do.
pub(super) struct RtmpConnection {
    pub(super) conn: ConnId,
    pub(super) session: rtmp::Session,
    pub(super) peer: SocketAddr,
    /// When bytes last came or went.
    pub(super) moved_at: Instant,
    publishing: Vec<Publishing>,
    /// Requests that wait for a callback's answer.
    held: Vec<Held>,
    /// Requests that were held so far.
    held_made: u64,
    /// Its connect itself waits for one.
    is_asked_about: bool,
    pub(super) playing: Vec<Playing>,
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
            moved_at: now,
            publishing: Vec::new(),
            held: Vec::new(),
            held_made: 0,
            is_asked_about: false,
            playing: Vec::new(),
        }
    }

    pub(super) fn rtmp_received(
        &mut self,
        now: Instant,
        rtmp: &mut RtmpConnection,
        bytes: &[u8],
    ) -> Fate {
        rtmp.moved_at = now;
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
        let mut is_patient = true;
        for playing in &mut rtmp.playing {
            if playing.impatient_at.is_some_and(|at| at <= now) {
                playing.impatient_at = None;
                if let Some(stream) = self.hub.get(playing.stream)
                    && !playing.player.has_started()
                {
                    playing.player.seek(stream, configured);
                    is_patient = false;
                }
            }
        }
        if !is_patient {
            self.serve_connection(rtmp);
        }
        let fate = match fate {
            Fate::Live => self.rtmp_events(now, rtmp),
            other => other,
        };
        self.rtmp_result(rtmp, result, fate)
    }

    /// The connection is over for whatever reason; leaves what it was part of.
    pub(super) fn rtmp_gone(&mut self, now: Instant, rtmp: &mut RtmpConnection) {
        for publishing in std::mem::take(&mut rtmp.publishing) {
            let peer = rtmp.peer_id(publishing.message_stream);
            self.publisher_left(now, publishing.stream, peer, Leave::Lost);
        }
        for playing in std::mem::take(&mut rtmp.playing) {
            let peer = rtmp.peer_id(playing.message_stream);
            self.rtmp_play_ended(now, rtmp, &playing);
            self.player_left(now, playing.stream, peer);
        }
    }

    pub(super) fn rtmp_farewell(&mut self, _now: Instant, rtmp: &mut RtmpConnection) {
        rtmp.session.close(CloseReason::ShuttingDown);
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

    pub(super) fn rtmp_events(&mut self, now: Instant, rtmp: &mut RtmpConnection) -> Fate {
        while let Some(event) = rtmp.session.poll_event() {
            match event {
                Event::Connect(info) => {
                    log::debug!(
                        "{}: connect app {:?} by {:?}",
                        rtmp.tag(),
                        info.app,
                        info.flash_version
                    );
                    self.rtmp_ask_connect(now, rtmp, &info);
                }
                Event::Publish { stream_id, request } => {
                    self.rtmp_request(now, rtmp, stream_id, Request::Publish(*request));
                }
                Event::Play { stream_id, request } => {
                    self.rtmp_request(now, rtmp, stream_id, Request::Play(*request));
                }
                Event::Unpublish { stream_id } => {
                    rtmp.release(stream_id);
                    self.rtmp_unpublish(now, rtmp, stream_id);
                }
                Event::StopPlay { stream_id } => {
                    rtmp.release(stream_id);
                    if rtmp.playing(stream_id).is_some() {
                        let peer = rtmp.peer_id(stream_id);
                        let at = rtmp
                            .playing
                            .iter()
                            .position(|p| p.message_stream == stream_id);
                        let playing = rtmp.playing.swap_remove(at.expect("it was just found"));
                        self.rtmp_play_ended(now, rtmp, &playing);
                        self.player_left(now, playing.stream, peer);
                    }
                }
                Event::Video { .. } | Event::Audio { .. } => {
                    if let Some(event) = self.rtmp_hold_media(rtmp, event) {
                        self.rtmp_media(now, rtmp, event);
                    }
                }
                Event::Metadata { values, .. } => {
                    log::debug!("{}: metadata {values:?}", rtmp.tag());
                }
                Event::ReceiveVideo { stream_id, on } => {
                    if let Some(playing) = rtmp.playing(stream_id) {
                        let resumes = on && !playing.player.wants_video;
                        playing.player.receive_video(on);
                        let stream = playing.stream;
                        if resumes {
                            self.want_keyframe_of(now, stream);
                        }
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
                        self.serve_connection(rtmp);
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

    /// Passes a publisher's media on.
    fn rtmp_media(&mut self, now: Instant, rtmp: &mut RtmpConnection, event: Event) {
        let (Event::Video { stream_id, .. } | Event::Audio { stream_id, .. }) = &event else {
            return;
        };
        let message_stream = *stream_id;
        let Some(publishing) = publishing(rtmp, message_stream) else {
            return;
        };
        let id = publishing.stream;
        let Some(stream) = self.hub.get_mut(id) else {
            return;
        };
        let (result, bytes) = match &event {
            Event::Video {
                timestamp, payload, ..
            } => {
                let result = publishing.ingest.video(now, stream, *timestamp, payload);
                if let Ok(true) = result {
                    self.news(now, id, Codec::H264);
                }
                (result, payload.len())
            }
            Event::Audio {
                timestamp, payload, ..
            } => {
                let result = publishing.ingest.audio(now, stream, *timestamp, payload);
                if let Ok(Some(frame)) = &result {
                    self.sound_published(now, id, frame);
                }
                (result.map(|frame| frame.is_some()), payload.len())
            }
            _ => return,
        };
        if let Ok(false) = result {
            rtmp.session.media_dropped(bytes);
        }
        if let Err(error) = result {
            self.refuse_media(now, rtmp, message_stream, &error);
        }
    }
}

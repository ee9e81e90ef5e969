//! [`RtmpPlayer`]: frames of a stream become RTMP messages for one player.
//!
//! A player is a cursor into its stream's ring. Messages are cut into chunks once per frame
//! and shared; what a player owns is what it was last told: metadata and headers.
//!
//! A player whose connection does not keep up stays behind in the ring, not in a queue of
//! its own. Too far behind, it is moved to the newest key frame; nothing is cut in mid-message,
//! because whole messages are what it is given.

use std::sync::Arc;

use crate::hub::{Entry, Stream};
use crate::media::{Codec, MediaTime, TrackConfig, TrackKind};
use crate::rtmp::metadata::{AudioMetadata, StreamMetadata, VideoMetadata};
use crate::rtmp::{self, SharedMessage};

/// Where a player starts in the cached group of pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GopStart {
    /// At its key frame: a picture at once, late by the age of the group.
    Gop,
    /// With its key frame as a still; the moving picture follows with the next one, live.
    Idr,
    /// With the next key frame.
    Off,
}

/// One player's place in its stream.
#[derive(Debug)]
pub struct RtmpPlayer {
    message_stream: u32,
    cursor: u64,
    /// Pictures are left out up to the next key frame.
    await_key: bool,
    /// Index of a key frame that is sent though later ones are waited for.
    still: Option<u64>,
    /// Whether it stood at the newest frame since it began or was moved on.
    has_caught_up: bool,
    /// Whether the first picture, or sound of a stream without, was sent.
    started: bool,
    /// When a player that waits for its first picture began to, on the stream's clock.
    waiting_since: Option<MediaTime>,
    video: Option<Arc<TrackConfig>>,
    audio: Option<Arc<TrackConfig>>,
    metadata: Option<StreamMetadata>,
    /// The stream's revision and the wishes that `metadata` was looked at for.
    told: Option<(u64, bool, bool)>,
    /// What the player asked to get.
    pub wants_video: bool,
    /// What the player asked to get.
    pub wants_audio: bool,
    paused: bool,
    /// Times it was moved on because it did not keep up.
    pub skips: u64,
    /// Moved to a key frame that has not come yet.
    lacks_key: bool,
    /// Messages sent.
    pub messages: u64,
}

impl RtmpPlayer {
    /// A player on NetStream `message_stream` that joins `stream` now.
    pub fn new(message_stream: u32, stream: &Stream, start: GopStart) -> Self {
        let mut player = Self {
            message_stream,
            cursor: 0,
            await_key: true,
            still: None,
            has_caught_up: false,
            started: false,
            waiting_since: None,
            video: None,
            audio: None,
            metadata: None,
            told: None,
            wants_video: true,
            wants_audio: true,
            paused: false,
            skips: 0,
            lacks_key: false,
            messages: 0,
        };
        player.seek(stream, start);
        player
    }

    /// The oldest frame that it has still to get; the ring's head when it is paused.
    pub fn cursor(&self, stream: &Stream) -> u64 {
        if self.paused {
            stream.ring.head()
        } else {
            self.cursor
        }
    }

    /// Whether it got any picture or sound.
    pub const fn has_sent(&self, kind: TrackKind) -> bool {
        match kind {
            TrackKind::Video => self.video.is_some(),
            TrackKind::Audio => self.audio.is_some(),
        }
    }

    /// Whether it got any media.
    pub const fn has_started(&self) -> bool {
        self.started
    }

    /// Media time that it is behind.
    pub fn lag(&self, stream: &Stream) -> MediaTime {
        stream.ring.lag(self.cursor)
    }

    /// The player pauses or goes on: where it stopped, or at the newest key frame if that
    /// is newer or what lies between is gone.
    pub fn pause(&mut self, stream: &Stream, paused: bool) {
        if self.paused && !paused {
            let newest = stream.ring.gop_start();
            if newest.is_none_or(|start| start > self.cursor) {
                self.seek(stream, GopStart::Gop);
                self.await_key = stream.announced.video;
            }
        }
        self.paused = paused;
    }

    /// The player does or does not want pictures; they resume with headers and a key frame.
    pub fn receive_video(&mut self, on: bool) {
        if on && !self.wants_video {
            self.await_key = true;
            self.video = None;
        }
        self.wants_video = on;
    }

    /// Moves to where `start` says in `stream`'s cached group of pictures.
    pub fn seek(&mut self, stream: &Stream, start: GopStart) {
        let head = stream.ring.head();
        self.await_key = true;
        self.still = None;
        self.cursor = match (start, stream.ring.gop_start()) {
            (GopStart::Gop, Some(index)) => index,
            (GopStart::Idr, Some(index)) => {
                // If the key frame is the newest frame, going on from it loses nothing.
                self.still = (index + 1 < head).then_some(index);
                index
            }
            (GopStart::Off, _) | (_, None) => head,
        };
    }

    /// Gives the session what is due to it; answers how many bytes that is.
    ///
    /// A session that has not yet written what it was given gets nothing: what a player lags
    /// stands in the ring, where it can be skipped, but for one such helping.
    pub fn serve(
        &mut self,
        stream: &Stream,
        session: &mut rtmp::Session,
        chunk_size: u32,
    ) -> usize {
        if self.paused || self.cursor == stream.ring.head() {
            return 0;
        }
        let waiting = session.transmit().len();
        self.skip(stream, waiting);
        if waiting > LOW_WATER_BYTES {
            return 0;
        }
        self.serve_rest(stream, session, chunk_size);
        session.transmit().len() - waiting
    }

    /// Gives the session all there is, as far as it takes that: the stream ends.
    pub fn serve_rest(&mut self, stream: &Stream, session: &mut rtmp::Session, chunk_size: u32) {
        if self.paused {
            return;
        }
        while session.transmit().len() < HIGH_WATER_BYTES
            && let Some(entry) = stream.ring.get(self.cursor)
        {
            if self.is_due(stream, entry) {
                self.send(stream, session, entry, chunk_size);
            }
            self.cursor += 1;
        }
        self.has_caught_up |= self.cursor == stream.ring.head();
    }

    /// Moves on if it is too far behind, `waiting` bytes in its session among that: to the newest
    /// key frame or, if that is too far as well, to the next one.
    fn skip(&mut self, stream: &Stream, waiting: usize) {
        let ring = &stream.ring;
        let is_heavy = self.has_caught_up && ring.is_too_much_behind(self.cursor, waiting);
        if !is_heavy && !ring.is_too_far_behind(self.cursor) {
            return;
        }
        self.skips += 1;
        self.await_key = stream.announced.video;
        self.still = None;
        let newer = ring.gop_start().filter(|start| *start > self.cursor);
        self.lacks_key = newer.is_none() && self.await_key;
        // As a newcomer there it may be as far behind as the cached pictures reach.
        self.has_caught_up = newer.is_none();
        self.cursor = newer.unwrap_or(ring.head());
    }

    /// Whether it was moved on to a key frame that is still to come, and nobody was told yet:
    /// a WebRTC publisher sends none unless it is asked.
    pub fn take_lack_of_key(&mut self) -> bool {
        std::mem::take(&mut self.lacks_key)
    }

    fn is_due(&mut self, stream: &Stream, entry: &Entry) -> bool {
        match entry.frame.codec.kind() {
            TrackKind::Video => {
                if !self.wants_video {
                    return false;
                }
                if self.still == Some(self.cursor) {
                    self.still = None;
                    return true;
                }
                self.await_key &= !entry.frame.key;
                !self.await_key
            }
            TrackKind::Audio => {
                self.wants_audio && entry.frame.codec == Codec::Aac && self.may_sound(stream, entry)
            }
        }
    }

    /// Sound before the first picture would be heard over a black screen: it waits a while.
    fn may_sound(&mut self, stream: &Stream, entry: &Entry) -> bool {
        if self.started || !stream.announced.video || !self.wants_video {
            return true;
        }
        let since = *self.waiting_since.get_or_insert(entry.frame.dts);
        entry.frame.dts - since >= SOUND_WAITS_MAX
    }

    fn send(
        &mut self,
        stream: &Stream,
        session: &mut rtmp::Session,
        entry: &Entry,
        chunk_size: u32,
    ) {
        let timestamp = rtmp_timestamp(entry.frame.dts);
        self.tell_metadata(stream, session, chunk_size);
        let known = match entry.frame.codec.kind() {
            TrackKind::Video => &mut self.video,
            TrackKind::Audio => &mut self.audio,
        };
        if !known
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(known, &entry.config))
        {
            *known = Some(entry.config.clone());
            if let Some(header) = sequence_header(&entry.config, timestamp, chunk_size) {
                session.send_shared(self.message_stream, &header);
            }
        }
        let message = entry.rtmp.get_or_init(|| encode(entry, chunk_size));
        session.send_shared(self.message_stream, message);
        self.messages += 1;
        self.started = true;
    }

    /// Announces the tracks that flow, and again when they change.
    fn tell_metadata(&mut self, stream: &Stream, session: &mut rtmp::Session, chunk_size: u32) {
        let told = Some((stream.revision(), self.wants_video, self.wants_audio));
        if self.told == told {
            return;
        }
        self.told = told;
        let metadata = metadata(stream, self.wants_video, self.wants_audio);
        // Frames of the last publisher are no news of the present one, whose tracks are to come.
        let is_empty = metadata == StreamMetadata::default();
        if is_empty || self.metadata.as_ref() == Some(&metadata) {
            return;
        }
        // ffmpeg takes metadata at any other time than 0 for the beginning of a subtitle track.
        let message = SharedMessage::data(0, &metadata.encode(), chunk_size);
        session.send_shared(self.message_stream, &message);
        self.metadata = Some(metadata);
    }
}

/// What a player of `stream` is told of its tracks.
fn metadata(stream: &Stream, video: bool, audio: bool) -> StreamMetadata {
    let mut metadata = StreamMetadata::default();
    if video
        && let Some(track) = &stream.video
        && let TrackConfig::H264(config) = &*track.config
    {
        let info = config.info();
        metadata.video = Some(VideoMetadata {
            width: Some(info.width),
            height: Some(info.height),
            ..VideoMetadata::default()
        });
    }
    if audio
        && let Some(config) = stream.audio_config(Codec::Aac)
        && let TrackConfig::Aac(config) = &**config
    {
        metadata.audio = Some(AudioMetadata {
            sample_rate_hz: Some(config.output_sample_rate_hz()),
            channels: Some(config.output_channels()),
            ..AudioMetadata::default()
        });
    }
    metadata
}

/// The frame as an RTMP message, cut into chunks.
fn encode(entry: &Entry, chunk_size: u32) -> SharedMessage {
    let frame = &entry.frame;
    let timestamp = rtmp_timestamp(frame.dts);
    match frame.codec.kind() {
        TrackKind::Video => {
            let composition = (frame.pts - frame.dts).as_millis_rounded();
            let composition = i32::try_from(composition).unwrap_or(0);
            SharedMessage::avc_around(
                timestamp,
                frame.key,
                composition,
                &frame.payload,
                chunk_size,
            )
        }
        TrackKind::Audio => SharedMessage::aac(timestamp, &frame.payload, chunk_size),
    }
}

/// The sequence header of a configuration; Opus has none in RTMP.
fn sequence_header(config: &TrackConfig, timestamp: u32, chunk_size: u32) -> Option<SharedMessage> {
    match config {
        TrackConfig::H264(config) => Some(SharedMessage::avc_sequence_header(
            timestamp,
            &config.encode(),
            chunk_size,
        )),
        TrackConfig::Aac(config) => Some(SharedMessage::aac_sequence_header(
            timestamp,
            config.bytes(),
            chunk_size,
        )),
        TrackConfig::Opus { .. } => None,
    }
}

/// Milliseconds modulo 2^32 (RTMP 1.0 section 3); what lies before the stream's origin is
/// sent as the origin.
fn rtmp_timestamp(time: MediaTime) -> u32 {
    (time.as_millis_rounded().max(0) & 0xffff_ffff) as u32
}

/// Bytes a session is given at most: a large key frame, so that it leaves in one write.
const HIGH_WATER_BYTES: usize = 256 << 10;

/// A session that has no more than this to write, such as its answers to a new player, is given
/// more, so that all leaves in one write.
const LOW_WATER_BYTES: usize = 4 << 10;

/// How long sound waits for the first picture of a stream that announced one.
const SOUND_WAITS_MAX: MediaTime = MediaTime::from_millis(3_000);

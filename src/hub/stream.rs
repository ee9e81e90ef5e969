//! [`Stream`]: one publisher's media on its way to all players.
//!
//! A stream outlives its publisher: players stay attached through a restart, and
//! the media clock goes on, larger by the gap.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::live_clock::LiveClock;
use super::live_stamp::LiveStamp;
use super::meter::Meter;
use super::ring::{BrowserView, Ring, RingLimits};
use super::surge::Surge;
use crate::access::Holder;
use crate::ids::PeerId;
use crate::media::{Codec, Frame, MediaTime, TrackConfig, TrackKind};

/// A named stream with at most one publisher and any number of players.
#[derive(Debug)]
pub struct Stream {
    /// `app/name`, without any query.
    pub key: Arc<str>,
    /// Who publishes now.
    pub publisher: Option<Publisher>,
    /// How long players are kept without a publisher.
    pub patience: Patience,
    /// When the last publisher left, while players wait for it to return.
    pub unpublished: Option<Instant>,
    /// The picture.
    pub video: Option<Track>,
    /// The sound as it was published.
    pub audio: Option<Track>,
    /// The sound in the other codec, while somebody needs it.
    pub transcoded: Option<Track>,
    /// Configurations of the publisher before: the same bytes get the same pointer, so that
    /// players are not given headers that they have.
    former: Vec<Arc<TrackConfig>>,
    /// Changes with every change of a track's configuration.
    revision: u64,
    /// The latest frames.
    pub ring: Ring,
    rtmp: Players,
    webrtc: Players,
    /// What the publisher is known to send, whether or not it came yet.
    pub announced: Announced,
    /// Facts about the picture for the operator.
    pub health: VideoHealth,
    clock: Option<LiveClock>,
    /// Media that waited and comes at once.
    pub surge: Surge,
    live_stamp: LiveStamp,
    /// The newest sound of the publisher.
    pub newest_sound: Option<MediaTime>,
    /// Where the present publisher's time begins at the earliest.
    resume: MediaTime,
}

/// How long a stream keeps its players when nobody publishes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Patience {
    /// For [`crate::hub::Limits::publisher_grace`].
    #[default]
    Grace,
    /// Until somebody says otherwise: it belongs to a member of a room.
    Kept,
    /// Not at all: that member is gone.
    Over,
}

/// The tracks that a publisher said it would send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// A picture will come.
    pub video: bool,
    /// Sound will come.
    pub audio: bool,
}

/// Who publishes a stream.
#[derive(Clone, Debug)]
pub struct Publisher {
    /// The session.
    pub peer: PeerId,
    /// The user of its token, if it is one's.
    pub user: Option<String>,
    /// Whose it is; the same one may take the stream over at once.
    pub holder: Holder,
    /// "rtmp" or "whip".
    pub protocol: &'static str,
    /// Address and program, for people.
    pub client: String,
    /// When it began.
    pub since: Instant,
    /// When its last frame came, or when it began.
    pub last_media: Instant,
}

/// One track of a stream.
#[derive(Clone, Debug)]
pub struct Track {
    /// How its frames are to be decoded. Replaced, never changed.
    pub config: Arc<TrackConfig>,
    /// What it amounts to.
    pub meter: Meter,
}

/// The players of one protocol, which are served together.
#[derive(Debug, Default)]
struct Players {
    list: Vec<PeerId>,
    /// Changes with every change of `list`.
    roster: u64,
    /// The least cursor when all were last served.
    slowest: u64,
}

/// What is worth knowing about a stream's picture.
#[derive(Clone, Copy, Debug, Default)]
pub struct VideoHealth {
    /// Frames with B slices seen.
    pub b_frames: u64,
    /// Pictures that browsers do not get because of B-frames.
    pub b_frames_dropped: u64,
    /// Whether browsers get the pictures in the order of showing in spite of B-frames.
    pub is_in_order_for_browsers: bool,
    /// What is wrong with B-frames and its cure, once one was seen.
    pub b_frames_advice: Option<&'static str>,
    /// Key frames seen.
    pub key_frames: u64,
    /// The distance of the last two key frames.
    pub gop: Option<MediaTime>,
    last_key: Option<MediaTime>,
}

impl VideoHealth {
    /// Media time from the last key frame to the newest frame.
    pub fn since_key(&self, newest: MediaTime) -> Option<MediaTime> {
        self.last_key.map(|last| newest - last)
    }
}

impl Stream {
    /// A stream that nobody publishes or plays yet.
    pub fn new(key: Arc<str>, limits: RingLimits) -> Self {
        Self {
            key,
            publisher: None,
            patience: Patience::Grace,
            unpublished: None,
            video: None,
            audio: None,
            transcoded: None,
            former: Vec::new(),
            revision: 0,
            ring: Ring::new(limits),
            rtmp: Players::default(),
            webrtc: Players::default(),
            announced: Announced::default(),
            health: VideoHealth::default(),
            clock: None,
            surge: Surge::default(),
            live_stamp: LiveStamp::default(),
            newest_sound: None,
            resume: MediaTime::ZERO,
        }
    }

    /// Makes `publisher` the publisher. The media clock goes on; the tracks and the cached
    /// pictures of the one before are not its own.
    pub fn begin(&mut self, publisher: Publisher, announced: Announced) {
        self.ring.end_gop();
        // Sound and picture interleave loosely: the newest frame need not be the latest.
        if let Some(latest) = self.ring.since(0).map(|(_, entry)| entry.frame.dts).max() {
            self.resume = self.resume.max(latest + ENCODER_LEAD);
        }
        let tracks = [self.video.take(), self.audio.take(), self.transcoded.take()];
        let former: Vec<_> = tracks
            .into_iter()
            .flatten()
            .map(|track| track.config)
            .collect();
        if !former.is_empty() {
            self.former = former;
        }
        self.revision += 1;
        if self.clock.is_none() && !is_rtmp(publisher.peer) {
            self.resume = ENCODER_LEAD;
        }
        self.announced = announced;
        self.unpublished = None;
        self.health = VideoHealth::default();
        self.newest_sound = None;
        self.publisher = Some(publisher);
    }

    /// The publisher is gone.
    pub fn end(&mut self, now: Instant) {
        self.publisher = None;
        self.unpublished = Some(now);
        self.ring.end_gop();
    }

    /// Says how a published track's next frames are coded, and answers the
    /// configuration to attach to them: the old one if nothing changed.
    pub fn configure(&mut self, config: TrackConfig) -> Arc<TrackConfig> {
        let slot = match config.codec().kind() {
            TrackKind::Video => {
                self.announced.video = true;
                &mut self.video
            }
            TrackKind::Audio => {
                self.announced.audio = true;
                &mut self.audio
            }
        };
        set_config(slot, config, &self.former, &mut self.revision)
    }

    /// The same for the transcoded sound.
    pub fn configure_transcoded(&mut self, config: TrackConfig) -> Arc<TrackConfig> {
        set_config(
            &mut self.transcoded,
            config,
            &self.former,
            &mut self.revision,
        )
    }

    /// Nobody needs the transcoded sound any more.
    pub fn end_transcoded(&mut self) {
        if let Some(track) = self.transcoded.take() {
            self.former
                .retain(|config| config.codec() != track.config.codec());
            self.former.push(track.config);
            self.revision += 1;
        }
    }

    /// A number that changes with every change of a track's configuration.
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// Takes a frame of the publisher.
    pub fn publish(&mut self, frame: Frame, now: Instant) {
        self.publish_as(frame, BrowserView::Same, now);
    }

    /// The same for a frame of which browsers get something else.
    pub fn publish_as(&mut self, frame: Frame, browser: BrowserView, now: Instant) {
        let track = match frame.codec.kind() {
            TrackKind::Video => &mut self.video,
            TrackKind::Audio => &mut self.audio,
        };
        let Some(track) = track else { return };
        match &mut self.clock {
            Some(clock) => {
                let late = clock.live(now) - frame.dts;
                self.surge.observe(frame.dts, now, late);
                self.ring.shift = self.live_stamp.observe(frame.codec.kind(), now, late);
                clock.observe(frame.dts, now);
            }
            None => self.clock = Some(LiveClock::starting(frame.dts, now)),
        }
        track.meter.add(now, frame.payload.len());
        if let Some(publisher) = &mut self.publisher {
            publisher.last_media = now;
        }
        if frame.codec == Codec::H264 && frame.key {
            self.health.key_frames += 1;
            self.health.gop = self.health.last_key.map(|last| frame.dts - last);
            self.health.last_key = Some(frame.dts);
        }
        if browser == BrowserView::Skip {
            self.health.b_frames_dropped += 1;
        }
        if frame.codec.kind() == TrackKind::Audio {
            self.newest_sound = self.newest_sound.max(Some(frame.dts));
        }
        let config = track.config.clone();
        self.ring.push_as(frame, config, now, browser);
        self.trim_if_unwatched();
    }

    /// Takes a frame of the transcoder. It says nothing about the publisher's clock.
    pub fn publish_transcoded(&mut self, frame: Frame, now: Instant) {
        let Some(track) = &mut self.transcoded else {
            return;
        };
        track.meter.add(now, frame.payload.len());
        let config = track.config.clone();
        self.ring.push(frame, config, now);
        self.trim_if_unwatched();
    }

    /// The media time that is live at `now`: where a (re)starting publisher goes on, never
    /// behind what players have got of the one before.
    pub fn live(&self, now: Instant) -> MediaTime {
        self.clock
            .map_or(self.resume, |clock| clock.live(now).max(self.resume))
    }

    /// Whether any media came yet.
    pub const fn has_clock(&self) -> bool {
        self.clock.is_some()
    }

    /// When `media` was live; never later than `now`.
    pub fn instant_of(&self, media: MediaTime, now: Instant) -> Instant {
        self.clock.map_or(now, |clock| clock.instant_of(media, now))
    }

    /// The configuration of the sound in `codec`, as published or transcoded.
    pub fn audio_config(&self, codec: Codec) -> Option<&Arc<TrackConfig>> {
        [&self.audio, &self.transcoded]
            .into_iter()
            .flatten()
            .map(|track| &track.config)
            .find(|config| config.codec() == codec)
    }

    /// Whether media came within `span` of `now`.
    pub fn is_active(&self, now: Instant, span: Duration) -> bool {
        self.publisher
            .as_ref()
            .is_some_and(|publisher| now.saturating_duration_since(publisher.last_media) < span)
    }

    /// Whether nobody has ever published it: players wait for it.
    pub const fn is_only_waited_for(&self) -> bool {
        self.publisher.is_none() && self.unpublished.is_none()
    }

    /// Adds a player.
    pub fn add_player(&mut self, peer: PeerId) {
        self.players_like(peer).add(peer);
    }

    /// Removes a player; answers whether it was there.
    pub fn remove_player(&mut self, peer: PeerId) -> bool {
        let was_there = self.players_like(peer).remove(peer);
        if self.webrtc.list.is_empty() {
            self.ring.forget_rtp(self.ring.head());
        }
        if was_there && !self.has_players() {
            self.trim();
        }
        was_there
    }

    /// Who plays. The order is of no meaning.
    pub fn players(&self) -> impl Iterator<Item = PeerId> {
        self.rtmp.list.iter().chain(&self.webrtc.list).copied()
    }

    /// Whether anybody plays.
    pub const fn has_players(&self) -> bool {
        !self.rtmp.list.is_empty() || !self.webrtc.list.is_empty()
    }

    /// Who plays by RTMP.
    pub fn rtmp_list(&self) -> &[PeerId] {
        &self.rtmp.list
    }

    /// Who plays by WebRTC.
    pub fn webrtc_list(&self) -> &[PeerId] {
        &self.webrtc.list
    }

    /// A number that changes whenever an RTMP player comes or goes: places in
    /// [`Stream::rtmp_list`] hold as long as it stays.
    pub const fn rtmp_roster(&self) -> u64 {
        self.rtmp.roster
    }

    /// The same for [`Stream::webrtc_list`].
    pub const fn webrtc_roster(&self) -> u64 {
        self.webrtc.roster
    }

    /// How many RTMP players there are.
    pub const fn rtmp_players(&self) -> usize {
        self.rtmp.list.len()
    }

    /// How many WebRTC viewers there are.
    pub const fn webrtc_players(&self) -> usize {
        self.webrtc.list.len()
    }

    /// No RTMP player needs a frame before `slowest` any more. One that comes later stands at the
    /// cached key frame, which stays.
    pub fn rtmp_served_to(&mut self, slowest: u64) {
        self.rtmp.slowest = slowest;
        self.trim();
    }

    /// The same for WebRTC viewers.
    pub fn webrtc_served_to(&mut self, slowest: u64) {
        self.webrtc.slowest = slowest;
        self.ring.forget_rtp(slowest.min(self.ring.head()));
        self.trim();
    }

    /// The codec that the published sound must be transcoded to for somebody who plays.
    pub fn transcode_target(&self) -> Option<Codec> {
        let published = match &self.audio {
            Some(track) => track.config.codec(),
            // Only a WebRTC publisher announces sound before it sends some.
            None if self.announced.audio => Codec::Opus,
            None => return None,
        };
        match published {
            Codec::Aac if self.webrtc_players() > 0 => Some(Codec::Opus),
            Codec::Opus if self.rtmp_players() > 0 => Some(Codec::Aac),
            _ => None,
        }
    }

    fn players_like(&mut self, peer: PeerId) -> &mut Players {
        match peer {
            PeerId::Rtmp { .. } => &mut self.rtmp,
            PeerId::Webrtc(_) => &mut self.webrtc,
        }
    }

    fn trim_if_unwatched(&mut self) {
        if !self.has_players() {
            self.trim();
        }
    }

    /// Lets go of what nobody needs. Cursors only grow: what was the least one is a bound still.
    fn trim(&mut self) {
        let lists = [&self.rtmp, &self.webrtc].into_iter();
        let cursors = lists
            .filter(|players| !players.list.is_empty())
            .map(|players| players.slowest);
        self.ring
            .trim(cursors.min().unwrap_or(u64::MAX).min(self.ring.head()));
    }
}

impl Players {
    fn add(&mut self, peer: PeerId) {
        if self.list.is_empty() {
            // Nobody's cursor is known.
            self.slowest = 0;
        }
        self.list.push(peer);
        self.roster += 1;
    }

    fn remove(&mut self, peer: PeerId) -> bool {
        let Some(position) = self.list.iter().position(|player| *player == peer) else {
            return false;
        };
        self.list.swap_remove(position);
        self.roster += 1;
        true
    }
}

/// How long before a WebRTC publisher's time, and after the last publisher's, nothing is:
/// the AAC that is made of its sound begins earlier by the encoder's delay of 43 ms, RTMP
/// knows no times before zero, and no player's time may go back.
const ENCODER_LEAD: MediaTime = MediaTime::from_millis(50);

fn is_rtmp(peer: PeerId) -> bool {
    matches!(peer, PeerId::Rtmp { .. })
}

fn set_config(
    slot: &mut Option<Track>,
    config: TrackConfig,
    former: &[Arc<TrackConfig>],
    revision: &mut u64,
) -> Arc<TrackConfig> {
    if let Some(track) = slot
        && *track.config == config
    {
        return track.config.clone();
    }
    *revision += 1;
    let known = former.iter().find(|former| ***former == config).cloned();
    let config = known.unwrap_or_else(|| Arc::new(config));
    match slot {
        Some(track) => track.config = config.clone(),
        None => {
            *slot = Some(Track {
                config: config.clone(),
                meter: Meter::default(),
            })
        }
    }
    config
}

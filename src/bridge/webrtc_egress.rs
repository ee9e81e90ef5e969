//! [`Viewer`]: frames of a stream become RTP packets for one WebRTC viewer.
//!
//! Payloads are packetized once per frame and shared; a viewer is two cursors into the
//! stream's ring, because sound must never wait behind a large picture.
//!
//! A viewer that joins in mid-GOP gets the cached key frame at once and what followed at
//! about three times the stream's rate, every frame stamped with the time that is live at the
//! moment of its *sending*: stamps and arrivals then agree, and the browser neither
//! freezes nor lags. Sound is live from its first packet.
//!
//! A large picture leaves in slices, so that it does not overrun a buffer on the way. Under
//! [`Pressure`] all pictures are paced by the budget, sound goes first, and what waits does so
//! here, where it can be left out: pictures that no other refers to as soon as they wait,
//! then everything up to the next key frame.
//!
//! ```text
//!   Idle ── ready, cached GOP fit ──► CatchUp ── backlog out, or a new key frame ──► Live
//!     └── ready, a still at most ───► AwaitKey ───────── a key frame ──────────────►  │
//!                                        ▲                  too far behind            │
//!                                        └────────────────────────────────────────────┘
//!   Live, AwaitKey ── key frame requested, cached GOP fit ──► CatchUp
//!   CatchUp ── the path loses what is sent ──► AwaitKey
//!   Live ── under pressure, and too much waits ──► AwaitKey, or Live at a newer key frame
//! ```

mod catch_up;
mod live;
mod stamps;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use catch_up::Pace;
use live::Begun;
use stamps::{AUDIO_RATE_HZ, VIDEO_RATE_HZ, report_instant, rtp_time};

use super::sound_pace::SoundPace;
use super::viewer_pressure::{Level, Pressure, Report};
use crate::codec::h264::for_output_at_once;
use crate::hub::{BrowserView, Entry, Stream};
use crate::media::{Codec, MediaTime, TrackConfig, TrackKind};
use crate::rtp::h264_packetizer::packetize;
use crate::webrtc;

/// How a viewer is served.
#[derive(Clone, Copy, Debug)]
pub struct ViewerLimits {
    /// Whether a cached group of pictures is used at all.
    pub fast_start: bool,
    /// The longest backlog that is sent; beyond it the viewer waits for the next key frame.
    pub fast_start_max: Duration,
    /// How many times the stream's own rate the backlog is sent at.
    pub fast_start_rate: f64,
    /// Bytes of RTP payload in a packet at most.
    pub payload_bytes: usize,
}

/// One viewer's place in its stream.
#[derive(Debug)]
pub struct Viewer {
    phase: Phase,
    video: u64,
    audio: u64,
    audio_started: bool,
    sound_pace: SoundPace,
    /// The last RTP time of a sound and of a picture, as time on the stream's clock.
    sound_stamp: Option<MediaTime>,
    video_stamp: Option<MediaTime>,
    replayed: Option<Instant>,
    /// When the cached key frame is to be sent by itself, as a still, and how often it was.
    still: Option<(Instant, usize)>,
    limits: ViewerLimits,
    pressure: Pressure,
    /// The picture at `video` that has left in part.
    begun: Option<Begun>,
    /// When the next slice may leave.
    slice_at: Option<Instant>,
    /// Surges of the stream that it was taken past.
    surges: u64,
    /// When the publisher was asked for a key frame that there was room for again.
    asked: Option<Instant>,
    /// Pictures left out because the path does not carry all, and sounds.
    pub thinned: u64,
    /// Times it was moved on because it did not keep up.
    pub skips: u64,
    /// Key frame requests that were answered from the cache.
    pub replays: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// The transport is not up.
    Idle,
    /// Sending the cached group of pictures, paced.
    CatchUp(Pace),
    /// Pictures are left out up to the next key frame.
    AwaitKey,
    /// Every picture goes out as it comes.
    Live,
}

/// What serving a viewer came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// RTP packets written.
    pub packets: usize,
    /// When the viewer has to be served again though nothing new came.
    pub again: Option<Instant>,
    /// Whether the publisher is to be asked for a key frame.
    pub wants_key: bool,
}

impl Viewer {
    /// A viewer whose transport is not up yet.
    pub fn new(limits: ViewerLimits) -> Self {
        Self {
            phase: Phase::Idle,
            video: 0,
            audio: 0,
            audio_started: false,
            sound_pace: SoundPace::default(),
            sound_stamp: None,
            video_stamp: None,
            replayed: None,
            still: None,
            limits,
            pressure: Pressure::default(),
            begun: None,
            slice_at: None,
            surges: 0,
            asked: None,
            thinned: 0,
            skips: 0,
            replays: 0,
        }
    }

    /// The oldest picture that it has still to get. Sound does not count: it goes first in every
    /// turn, and none is waited for.
    pub fn cursor(&self, stream: &Stream) -> u64 {
        if self.phase == Phase::Idle {
            stream.ring.head()
        } else {
            self.video
        }
    }

    /// Media time that its picture is behind.
    pub fn lag(&self, stream: &Stream) -> MediaTime {
        if self.phase == Phase::Idle {
            MediaTime::ZERO
        } else {
            stream.ring.lag(self.video)
        }
    }

    /// Whether it got any picture or sound.
    pub const fn has_sent(&self, kind: TrackKind) -> bool {
        match kind {
            TrackKind::Video => self.video_stamp.is_some(),
            TrackKind::Audio => self.audio_started,
        }
    }

    /// How much of the stream it gets.
    pub fn level(&self) -> Level {
        self.pressure.level()
    }

    /// What its path is thought to carry, in bits a second, while it does not carry all.
    pub fn budget_bps(&self) -> Option<u64> {
        self.pressure.budget_bps().map(|bps| bps as u64)
    }

    /// Times that its path did not carry all.
    pub const fn times_thinned(&self) -> u64 {
        self.pressure.times
    }

    /// Takes a receiver report in.
    pub fn report(
        &mut self,
        now: Instant,
        stream: &Stream,
        loss: f32,
        rtt: Option<Duration>,
        bytes_sent: u64,
    ) {
        let rate_of = |track: &crate::hub::Track| track.meter.rate(now).bits_per_second as f64;
        let audio = stream.audio_config(Codec::Opus).and_then(|_| {
            let tracks = [&stream.audio, &stream.transcoded].into_iter().flatten();
            tracks
                .filter(|track| track.config.codec() == Codec::Opus)
                .map(rate_of)
                .next()
        });
        let audio_bps = audio.map_or(0.0, |bps| bps + AUDIO_HEADERS_BPS);
        let video_bps = stream.video.as_ref().map_or(0.0, rate_of);
        let was_open = self.pressure.is_open();
        self.pressure.report(
            now,
            Report {
                loss: f64::from(loss),
                rtt,
                bytes_sent,
                stream_bps: video_bps * HEADERS + audio_bps,
                audio_bps,
            },
        );
        self.note_judged(now, stream, was_open);
    }

    /// Takes the echo of a number in: see [`webrtc::Session::ask_echo`]. Answers whether the viewer
    /// is to be served for it.
    pub fn echo(
        &mut self,
        now: Instant,
        stream: &Stream,
        session: &webrtc::Session,
        number: u64,
        rtt: Duration,
    ) -> bool {
        let before = (self.pressure.is_open(), self.pressure.tries_all());
        let (repeated, sent) = (session.repeated(), session.bytes_sent());
        self.pressure.echo(now, number, rtt, repeated, sent);
        self.note_judged(now, stream, before.0);
        before != (self.pressure.is_open(), self.pressure.tries_all())
    }

    /// Goes on as the path was judged.
    fn note_judged(&mut self, now: Instant, stream: &Stream, was_open: bool) {
        if was_open != self.pressure.is_open() {
            self.slice_at = None;
            if was_open && matches!(self.phase, Phase::CatchUp(_)) {
                self.phase = Phase::AwaitKey;
                self.video = stream.ring.head();
            }
            if !was_open && self.phase == Phase::AwaitKey {
                // There is room again: as after a join.
                if let Some(start) = self.backlog(stream) {
                    self.begin_catch_up(now, stream, start);
                }
            }
        }
    }

    /// Whether the publisher is to be asked for a key frame: there is room for one again.
    fn wants_key(&mut self, now: Instant) -> bool {
        let recently = |at: Instant| now.saturating_duration_since(at) < KEY_FOR_ROOM_INTERVAL;
        let wants = self.phase == Phase::AwaitKey
            && self.pressure.level() == Level::Thinned
            && self.pressure.held_until().is_none()
            && !self.asked.is_some_and(recently);
        if wants {
            self.asked = Some(now);
        }
        wants
    }

    /// Writes the sound that is due.
    pub fn serve_audio(
        &mut self,
        now: Instant,
        stream: &Stream,
        session: &mut webrtc::Session,
    ) -> Served {
        let mut served = Served::default();
        if !session.ready_audio() {
            return served;
        }
        let head = stream.ring.head();
        if !self.audio_started {
            self.audio_started = true;
            self.audio = head.saturating_sub(1);
        }
        for (_, entry) in stream.ring.since(self.audio) {
            let waited = now.saturating_duration_since(entry.arrival);
            if entry.frame.codec != Codec::Opus || waited > AUDIO_WAITED_MAX {
                continue;
            }
            // What the transcoder had to wait with, or came with much else, is of the past.
            let newest = stream.newest_sound.unwrap_or(entry.frame.pts);
            if newest - entry.frame.pts > AUDIO_LATE_MAX {
                continue;
            }
            if self.pressure.level() == Level::Nothing {
                self.pressure.poll(now, session.repeated());
                self.thinned += 1;
                continue;
            }
            let stamp = entry.live_pts();
            // Where a stream comes in again, stamps go back: what would be played twice is left out.
            if self.sound_stamp.is_some_and(|last| stamp <= last)
                || !self.sound_pace.takes(now, stamp)
            {
                continue;
            }
            self.sound_stamp = Some(stamp);
            let rtp_time = rtp_time(stamp, AUDIO_RATE_HZ);
            let payloads = entry
                .rtp
                .get_or_init(|| [Arc::from(&*entry.frame.payload)].into());
            let capture = report_instant(stream, stamp, now);
            session.write_audio(now, &payloads[0], rtp_time, capture);
            served.packets += 1;
        }
        self.audio = head;
        self.pass_sound(stream);
        served
    }

    /// Moves the picture's cursor over sound: where only sound comes, nothing would.
    fn pass_sound(&mut self, stream: &Stream) {
        let is_sound = |entry: &Entry| entry.frame.codec.kind() == TrackKind::Audio;
        while stream.ring.get(self.video).is_some_and(is_sound) {
            self.video += 1;
        }
    }

    /// Writes the pictures that are due.
    pub fn serve_video(
        &mut self,
        now: Instant,
        stream: &Stream,
        session: &mut webrtc::Session,
    ) -> Served {
        let mut served = Served::default();
        if !session.ready_video() {
            return served;
        }
        if self.phase == Phase::Idle {
            self.surges = stream.surge.count();
            self.video = stream.ring.head();
            self.phase = Phase::AwaitKey;
            if let Some(start) = self.backlog(stream) {
                self.begin_catch_up(now, stream, start);
            } else if let Some(start) = stream.ring.gop_start()
                && start + 1 == stream.ring.head()
            {
                // The key frame has only just come: it is live.
                self.video = start;
            } else {
                // Too much to catch up with: a still is better than a black screen.
                self.still = self.limits.fast_start.then_some((now, 0));
            }
        }
        self.write_still(now, stream, session, &mut served);
        self.pass_surge(now, stream);
        if self.video < stream.ring.tail() || stream.ring.is_too_far_behind(self.video) {
            self.skips += 1;
            self.begun = None;
            match self.backlog(stream) {
                Some(start) => self.begin_catch_up(now, stream, start),
                None => {
                    self.phase = Phase::AwaitKey;
                    self.video = stream.ring.head();
                }
            }
        }
        self.try_room(now, stream, session);
        if let Phase::CatchUp(pace) = self.phase {
            self.catch_up(now, stream, session, pace, &mut served);
        }
        if !matches!(self.phase, Phase::CatchUp(_)) {
            self.send_live(now, stream, session, &mut served);
        }
        served
    }

    /// A trial of the whole stream begins as a join does: a picture at once, and enough traffic to
    /// show whether there is room.
    fn try_room(&mut self, now: Instant, stream: &Stream, session: &webrtc::Session) {
        if self.pressure.is_open() || self.phase != Phase::AwaitKey {
            return;
        }
        self.pressure.poll(now, session.repeated());
        if self.pressure.tries_all()
            && let Some(start) = self.backlog(stream)
        {
            self.begin_catch_up(now, stream, start);
        }
    }

    /// What comes all at once after it waited somewhere is not for a viewer, which has to stay
    /// live: it goes on as after a join.
    fn pass_surge(&mut self, now: Instant, stream: &Stream) {
        if stream.surge.is_active() {
            self.phase = Phase::AwaitKey;
            self.video = stream.ring.head();
            self.begun = None;
        } else if self.surges != stream.surge.count() {
            self.surges = stream.surge.count();
            self.skips += 1;
            self.begun = None;
            match self.backlog(stream) {
                Some(start) => self.begin_catch_up(now, stream, start),
                None => {
                    self.phase = Phase::AwaitKey;
                    self.video = stream.ring.head();
                }
            }
        }
    }

    /// The stamp of a picture: later than the last one's.
    fn stamp(&mut self, stamp: MediaTime) -> MediaTime {
        let tick = MediaTime::from_units(1, VIDEO_RATE_HZ);
        let stamp = self
            .video_stamp
            .map_or(stamp, |last| stamp.max(last + tick));
        self.video_stamp = Some(stamp);
        stamp
    }

    /// The viewer cannot decode and asks for a key frame (PLI or FIR). Answers whether only
    /// the publisher can help.
    pub fn keyframe_requested(&mut self, now: Instant, stream: &Stream) -> bool {
        if matches!(self.phase, Phase::Idle | Phase::CatchUp(_)) {
            return false;
        }
        let recently = |at: Instant| now.saturating_duration_since(at) < REPLAY_INTERVAL;
        if self.replayed.is_some_and(recently) {
            return false;
        }
        match self.backlog(stream) {
            Some(start) => {
                self.replays += 1;
                self.replayed = Some(now);
                self.begin_catch_up(now, stream, start);
                false
            }
            None => {
                // It has no picture at all: the still may have come before its keys were set.
                // A path that does not carry the stream has no room for one either.
                let has_none = self.phase == Phase::AwaitKey
                    && self.limits.fast_start
                    && self.pressure.is_open();
                self.still = has_none.then_some((now, 0));
                self.replayed = Some(now);
                true
            }
        }
    }

    /// Writes a whole picture at once.
    fn write(
        &mut self,
        now: Instant,
        stream: &Stream,
        session: &mut webrtc::Session,
        entry: &Entry,
        stamp: MediaTime,
    ) -> usize {
        let stamp = self.stamp(stamp);
        let payloads = entry
            .rtp
            .get_or_init(|| payloads(entry, self.limits.payload_bytes));
        let rtp_time = rtp_time(stamp, VIDEO_RATE_HZ);
        let capture = report_instant(stream, stamp, now);
        session.write_video(now, payloads, rtp_time, capture, true);
        payloads.len()
    }
}

/// The picture as RTP payloads; a key frame carries the parameter sets of its configuration.
fn payloads(entry: &Entry, payload_bytes: usize) -> Box<[Arc<[u8]>]> {
    let sps: Vec<Bytes>;
    let parameter_sets = match &*entry.config {
        TrackConfig::H264(config) if entry.frame.key && entry.browser == BrowserView::InOrder => {
            // What cannot be rewritten goes as it is.
            let rewrite = |sps: &Bytes| for_output_at_once(sps).map_or(sps.clone(), Bytes::from);
            sps = config.sps().iter().map(rewrite).collect();
            Some((&*sps, config.pps()))
        }
        TrackConfig::H264(config) if entry.frame.key => Some((config.sps(), config.pps())),
        _ => None,
    };
    packetize(&entry.frame.payload, parameter_sets, payload_bytes).into()
}

/// Sound that waited here for longer is not worth hearing: the viewer goes on with the newest.
const AUDIO_WAITED_MAX: Duration = Duration::from_millis(500);

/// Sound so much older than the newest that was published is not worth hearing either.
const AUDIO_LATE_MAX: MediaTime = MediaTime::from_millis(700);

/// Payloads to datagrams: RTP, SRTP, UDP and IP headers.
const HEADERS: f64 = 1.06;
const AUDIO_HEADERS_BPS: f64 = 50.0 * 60.0 * 8.0;

/// How often a publisher is asked for a key frame because there is room for one viewer again:
/// it costs all the others.
const KEY_FOR_ROOM_INTERVAL: Duration = Duration::from_secs(2);

/// A key frame request is answered from the cache at most this often.
const REPLAY_INTERVAL: Duration = Duration::from_secs(1);

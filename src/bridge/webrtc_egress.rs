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

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

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

/// A picture of which some packets have left.
#[derive(Clone, Copy, Debug)]
struct Begun {
    packets: usize,
    stamp: MediaTime,
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

/// How a catch-up goes.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Pace {
    next_send: Instant,
    bits_per_second: f64,
    /// Packets sent of the backlog.
    packets: usize,
    /// What the session had repeated when it began.
    repeated_before: Option<u64>,
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
        if let Phase::CatchUp(pace) = self.phase {
            self.catch_up(now, stream, session, pace, &mut served);
        }
        if !matches!(self.phase, Phase::CatchUp(_)) {
            self.send_live(now, stream, session, &mut served);
        }
        served
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

    /// Sends what is there, a slice at a time where it is much or the path is under pressure.
    fn send_live(
        &mut self,
        now: Instant,
        stream: &Stream,
        session: &mut webrtc::Session,
        served: &mut Served,
    ) {
        if !self.pressure.is_open() {
            self.pressure.poll(now, session.repeated());
            self.leave_out(stream);
            served.wants_key = self.wants_key(now);
        }
        while let Some(entry) = stream.ring.get(self.video) {
            if entry.frame.codec.kind() != TrackKind::Video
                || (self.begun.is_none() && !self.wants(now, stream, entry))
            {
                self.video += 1;
                continue;
            }
            let wait = self.slice_at.max(self.pressure.held_until());
            if let Some(at) = wait.filter(|at| *at > now) {
                served.again = Some(served.again.map_or(at, |earlier| earlier.min(at)));
                return;
            }
            self.write_slice(now, stream, session, entry, served);
            if self.begun.is_none() {
                self.video += 1;
            }
        }
    }

    /// Under pressure, what waits too long is left out up to a key frame: the newest one if it
    /// is there already. A key frame that has begun to leave does so to its end.
    fn leave_out(&mut self, stream: &Stream) {
        let begun_key = self.begun.is_some()
            && stream
                .ring
                .get(self.video)
                .is_some_and(|entry| entry.frame.key);
        if self.phase != Phase::Live || begun_key {
            return;
        }
        let newest_key = stream.ring.gop_start().filter(|start| *start > self.video);
        let waits_max = match newest_key {
            Some(_) => WAITS_KEY_MAX,
            None => WAITS_MAX,
        };
        if stream.ring.lag(self.video) <= waits_max {
            return;
        }
        let to = newest_key.unwrap_or(stream.ring.head());
        let pictures = stream.ring.since(self.video).take_while(|(at, _)| *at < to);
        self.thinned += pictures
            .filter(|(_, entry)| entry.frame.codec.kind() == TrackKind::Video)
            .count() as u64;
        self.begun = None;
        self.video = to;
        if newest_key.is_none() {
            self.phase = Phase::AwaitKey;
        }
    }

    /// Writes as much of a picture as may leave now; `begun` is there as long as some is left.
    fn write_slice(
        &mut self,
        now: Instant,
        stream: &Stream,
        session: &mut webrtc::Session,
        entry: &Entry,
        served: &mut Served,
    ) {
        let stamp = match self.begun {
            Some(begun) => begun.stamp,
            None => self.stamp(entry.live_pts()),
        };
        let from = self.begun.map_or(0, |begun| begun.packets);
        let payloads = entry
            .rtp
            .get_or_init(|| payloads(entry, self.limits.payload_bytes));
        let budget = self.pressure.video_bps();
        let most = match budget {
            None => SLICE_PACKETS,
            Some(_) => SLICE_PACKETS_PACED,
        };
        let left = payloads.get(from..).unwrap_or_default();
        let slice = left.get(..most).unwrap_or(left);
        let is_last = slice.len() == left.len();
        let capture = report_instant(stream, stamp, now);
        let rtp_time = rtp_time(stamp, VIDEO_RATE_HZ);
        session.write_video(now, slice, rtp_time, capture, is_last);
        served.packets += slice.len();
        self.begun = (!is_last).then_some(Begun {
            packets: from + slice.len(),
            stamp,
        });
        let bits = slice
            .iter()
            .map(|p| p.len() as f64 * 8.0 * HEADERS)
            .sum::<f64>();
        let rate = match budget {
            None if is_last => {
                self.slice_at = None;
                return;
            }
            None => SLICE_BPS,
            Some(bps) => bps,
        };
        // Time that was not used is not saved up.
        let begin = self.slice_at.map_or(now, |at| at.max(now - SLICE_LATE_MAX));
        self.slice_at = Some(begin + Duration::from_secs_f64(bits / rate));
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
                let has_none = self.phase == Phase::AwaitKey && self.limits.fast_start;
                self.still = has_none.then_some((now, 0));
                self.replayed = Some(now);
                true
            }
        }
    }

    /// Writes the still if it is due, and arranges for it to be sent again: a page that is
    /// not set up yet lets a lone picture go by.
    fn write_still(
        &mut self,
        now: Instant,
        stream: &Stream,
        session: &mut webrtc::Session,
        served: &mut Served,
    ) {
        let Some((at, sent)) = self.still.filter(|_| self.phase == Phase::AwaitKey) else {
            self.still = None;
            return;
        };
        if at <= now {
            let start = stream.ring.gop_start();
            if let Some(entry) = start.and_then(|start| stream.ring.get(start)) {
                let stamp = sending_time(now, stream);
                served.packets += self.write(now, stream, session, entry, stamp);
            }
            let again = STILL_AGAIN.get(sent);
            self.still = again.map(|wait| (now + *wait, sent + 1));
        }
        served.again = self.still.map(|(at, _)| at);
    }

    /// Where the cached group of pictures begins, if it is fit to be sent.
    fn backlog(&self, stream: &Stream) -> Option<u64> {
        let start = stream.ring.gop_start()?;
        let fits = self.limits.fast_start
            && self.pressure.is_open()
            && stream.ring.lag(start) <= MediaTime::from_duration(self.limits.fast_start_max)
            && stream.ring.gop_bytes() <= BACKLOG_BYTES_MAX
            && stream.ring.head() - start <= BACKLOG_FRAMES_MAX
            // In decoding order, times of sending would show B-frames in the wrong order.
            && (stream.health.b_frames == 0 || stream.health.is_in_order_for_browsers);
        fits.then_some(start)
    }

    fn begin_catch_up(&mut self, now: Instant, stream: &Stream, start: u64) {
        let span = stream.ring.lag(start).as_secs_f64().max(0.5);
        let own_rate = stream.ring.gop_bytes() as f64 * 8.0 / span;
        let bits_per_second =
            (own_rate * self.limits.fast_start_rate).clamp(CATCH_UP_BITS_MIN, CATCH_UP_BITS_MAX);
        self.video = start;
        self.begun = None;
        self.phase = Phase::CatchUp(Pace {
            next_send: now,
            bits_per_second,
            packets: 0,
            repeated_before: None,
        });
    }

    fn catch_up(
        &mut self,
        now: Instant,
        stream: &Stream,
        session: &mut webrtc::Session,
        mut pace: Pace,
        served: &mut Served,
    ) {
        // A newer key frame is live: what lies before it is not worth sending.
        if let Some(newest) = stream.ring.gop_start()
            && newest > self.video
        {
            self.video = newest;
            self.phase = Phase::Live;
            return;
        }
        let before = *pace.repeated_before.get_or_insert(session.repeated());
        let repeated = session.repeated() - before;
        if repeated >= REPEATED_MIN && repeated * REPEATED_SHARE > pace.packets as u64 {
            // The path does not carry the pace: more of it would drown the sound as well.
            self.phase = Phase::AwaitKey;
            self.video = stream.ring.head();
            return;
        }
        while pace.next_send <= now {
            let Some(entry) = stream.ring.get(self.video) else {
                self.phase = Phase::Live;
                return;
            };
            self.video += 1;
            if entry.frame.codec.kind() != TrackKind::Video || entry.browser == BrowserView::Skip {
                continue;
            }
            let packets = self.write(now, stream, session, entry, sending_time(now, stream));
            served.packets += packets;
            pace.packets += packets;
            let bits = entry.frame.payload.len() as f64 * 8.0;
            pace.next_send += Duration::from_secs_f64(bits / pace.bits_per_second);
        }
        self.phase = Phase::CatchUp(pace);
        served.again = Some(pace.next_send);
    }

    /// Whether a picture is to be sent as things stand.
    fn wants(&mut self, now: Instant, stream: &Stream, entry: &Entry) -> bool {
        if entry.browser == BrowserView::Skip {
            return false;
        }
        if self.phase == Phase::AwaitKey {
            if !entry.frame.key || !self.pressure.admits_key(now) {
                self.thinned += u64::from(!self.pressure.is_open());
                return false;
            }
            self.phase = Phase::Live;
        }
        if !self.pressure.is_open() && !entry.frame.key {
            let waits = stream.ring.lag(self.video);
            if self.pressure.level() != Level::Thinned {
                // The key frame was a trial.
                self.phase = Phase::AwaitKey;
                self.thinned += 1;
                return false;
            }
            if entry.frame.disposable && waits > WAITS_DISPOSABLE_MAX {
                self.thinned += 1;
                return false;
            }
        }
        true
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

/// The stamp of a picture that is sent now though it is older: what one that has just come
/// would carry. A publisher that paused while its timestamps stood still is behind the live
/// point for good, and stamps at that point would be ahead of all that follow.
fn sending_time(now: Instant, stream: &Stream) -> MediaTime {
    let live = stream.live(now);
    let Some(newest) = stream.ring.newest_picture() else {
        return live;
    };
    let waited = MediaTime::from_duration(now.saturating_duration_since(newest.arrival));
    live.min(newest.live_pts() + waited + JITTER_MAX)
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

/// A time of the stream's clock on an RTP clock, before the session's own random offset.
fn rtp_time(time: MediaTime, rate_hz: u32) -> u64 {
    (time + RTP_ORIGIN).as_units(rate_hz).max(0) as u64
}

/// The instant that sender reports give for a time of the stream's clock: when it was live,
/// and [`REPORT_LEAD`] earlier.
fn report_instant(stream: &Stream, time: MediaTime, now: Instant) -> Instant {
    stream.instant_of(time - REPORT_LEAD, now)
}

/// Pictures with a composition time are stamped ahead of their arrival, and a report cannot
/// speak of the future. Only the distance of sound and picture counts, so both are
/// reported as if this much older.
const REPORT_LEAD: MediaTime = MediaTime::from_millis(1_000);

/// Times a little before a stream's origin (sound that began before the picture, codec
/// delays taken out) are still positive RTP times.
const RTP_ORIGIN: MediaTime = MediaTime::from_millis(10_000);

/// RTP clock of H.264 (RFC 6184 section 8.2.1).
const VIDEO_RATE_HZ: u32 = 90_000;

/// RTP clock of Opus (RFC 7587 section 4.1).
const AUDIO_RATE_HZ: u32 = 48_000;

/// Sound that waited here for longer is not worth hearing: the viewer goes on with the newest.
const AUDIO_WAITED_MAX: Duration = Duration::from_millis(500);

/// Sound so much older than the newest that was published is not worth hearing either.
const AUDIO_LATE_MAX: MediaTime = MediaTime::from_millis(700);

/// A picture this much later than the least delayed one is no sign of another clock.
const JITTER_MAX: MediaTime = MediaTime::from_millis(100);

/// A backlog beyond this is not sent: the browser's socket buffer overran above 1.2 MB in
/// one burst, paced it held four.
const BACKLOG_BYTES_MAX: usize = 4 << 20;

/// Frames in a backlog at most, for slow decoders.
const BACKLOG_FRAMES_MAX: u64 = 600;

/// The slowest and fastest pace of a catch-up, in bits a second.
const CATCH_UP_BITS_MIN: f64 = 2e6;
const CATCH_UP_BITS_MAX: f64 = 40e6;

/// A catch-up of which more than one packet in so many had to be repeated is given up; a few
/// are the noise of a radio link, and giving up costs the picture up to the next key frame.
const REPEATED_SHARE: u64 = 16;
const REPEATED_MIN: u64 = 12;

/// How long after a still it is sent again, each time.
const STILL_AGAIN: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(600)];

/// Packets of a picture that leave at once, some 75 kB, and the rate of the slices: a key frame
/// of 300 kB takes 36 ms.
const SLICE_PACKETS: usize = 64;
const SLICE_BPS: f64 = 50e6;

/// The same for a viewer under pressure.
const SLICE_PACKETS_PACED: usize = 4;

/// A slice that was served late by so much does not delay the next one.
const SLICE_LATE_MAX: Duration = Duration::from_millis(20);

/// Under pressure pictures wait here: those that no other refers to so long; the others so long
/// before a newer key frame goes first, and so long before all up to the next one is left out.
/// Shorter waits mean fewer pictures: what fits of a group depends on it.
const WAITS_DISPOSABLE_MAX: MediaTime = MediaTime::from_millis(100);
const WAITS_KEY_MAX: MediaTime = MediaTime::from_millis(250);
const WAITS_MAX: MediaTime = MediaTime::from_millis(800);

/// Payloads to datagrams: RTP, SRTP, UDP and IP headers.
const HEADERS: f64 = 1.06;
const AUDIO_HEADERS_BPS: f64 = 50.0 * 60.0 * 8.0;

/// How often a publisher is asked for a key frame because there is room for one viewer again:
/// it costs all the others.
const KEY_FOR_ROOM_INTERVAL: Duration = Duration::from_secs(2);

/// A key frame request is answered from the cache at most this often.
const REPLAY_INTERVAL: Duration = Duration::from_secs(1);

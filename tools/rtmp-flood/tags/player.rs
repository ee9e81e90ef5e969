//! [`LivePlayer`]: `<live-player>` in RTC mode.
//!
//! The playing clock: a frame is due at its timestamp plus an offset. The offset is set by the
//! first frame and the cache, grows when a frame comes too late to be shown (a stutter), and
//! shrinks slowly (a player plays a little faster) while the cache is fuller than it may be.

use std::time::{Duration, Instant};

use rtmp_gateway::codec::h264::AvcConfig;
use rtmp_gateway::rtmp::client::{Event, Goal, RtmpUrl};
use rtmp_gateway::rtmp::flv::{AudioTag, VideoTag};
use rtmp_gateway::transmit::TransmitQueue;

use super::Tag;
use super::code;
use super::line::{Line, Output};

/// A player. See the [parent](super) for its shape.
pub struct LivePlayer {
    line: Line,
    clock: Option<Clock>,
    /// Width and height of the sequence header that came last.
    size: Option<(u32, u32)>,
    has_audio_header: bool,
    /// No picture is shown before a key frame.
    needs_key: bool,
    /// Newest timestamps, by which jumps are seen.
    last: [Option<u32>; 2],
    /// What was seen and heard so far.
    pub seen: Seen,
}

/// What a player saw and heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// When the first key frame came.
    pub first_picture: Option<Instant>,
    /// When the first sound came.
    pub first_sound: Option<Instant>,
    /// Pictures.
    pub pictures: u64,
    /// AAC frames.
    pub sounds: u64,
    /// Pictures that came without the sequence header or the key frame that they need.
    pub undecodable: u64,
    /// Times that something came too late to be shown in time.
    pub stutters: u64,
    /// Jumps of timestamps.
    pub discontinuities: u64,
    /// How full the cache is: how long after its arrival the newest frame is shown.
    pub cached: Duration,
    /// Bodies of what came, for ears and eyes: timestamp, whether video, tag body. Only kept if
    /// [`LivePlayer::keep`] was called.
    pub kept: Option<Vec<(u32, bool, bytes::Bytes)>>,
}

/// When what is shown.
struct Clock {
    base_at: Instant,
    base_ms: u32,
    offset: Duration,
}

impl LivePlayer {
    /// One that connects at once.
    pub fn new(url: RtmpUrl, seed: u64) -> Self {
        Self {
            line: Line::new(url, Goal::Play, seed),
            clock: None,
            size: None,
            has_audio_header: false,
            needs_key: true,
            last: [None; 2],
            seen: Seen::default(),
        }
    }

    /// Keeps what comes from now on in [`Seen::kept`].
    pub fn keep(&mut self) {
        self.seen.kept.get_or_insert_default();
    }

    fn lost(&mut self, now: Instant) {
        let code = match self.line.lost(now) {
            true => code::PLAY_RECONNECTING,
            false => code::PLAY_GAVE_UP,
        };
        self.line.tell(code);
        self.clock = None;
        self.needs_key = true;
        self.has_audio_header = false;
        self.last = [None; 2];
    }

    fn video(&mut self, now: Instant, timestamp: u32, body: &bytes::Bytes) {
        match VideoTag::decode(body) {
            Ok(VideoTag::SequenceHeader(record)) => {
                let Ok((config, _)) = AvcConfig::decode(&record) else {
                    self.seen.undecodable += 1;
                    return;
                };
                let size = (config.info().width, config.info().height);
                if self.size.replace(size).is_some_and(|before| before != size) {
                    self.line.tell(code::PLAY_RESOLUTION_CHANGED);
                    self.needs_key = true;
                }
            }
            Ok(VideoTag::Coded { key, .. }) => {
                if self.size.is_none() || (self.needs_key && !key) {
                    self.seen.undecodable += 1;
                    return;
                }
                self.needs_key = false;
                if self.seen.first_picture.is_none() {
                    self.seen.first_picture = Some(now);
                    self.line.tell(code::PLAY_FIRST_PICTURE);
                }
                self.seen.pictures += 1;
                self.show(now, timestamp, 0);
            }
            _ => return,
        }
        self.note(timestamp, true, body);
    }

    fn audio(&mut self, now: Instant, timestamp: u32, body: &bytes::Bytes) {
        match AudioTag::decode(body) {
            Ok(AudioTag::SequenceHeader(_)) => self.has_audio_header = true,
            Ok(AudioTag::Coded(_)) => {
                if !self.has_audio_header {
                    self.seen.undecodable += 1;
                    return;
                }
                self.seen.first_sound.get_or_insert(now);
                self.seen.sounds += 1;
                self.show(now, timestamp, 1);
            }
            _ => return,
        }
        self.note(timestamp, false, body);
    }

    /// Something with this timestamp came: is it in time?
    fn show(&mut self, now: Instant, timestamp: u32, track: usize) {
        let Some(clock) = &mut self.clock else {
            self.line.succeeded();
            self.line.tell(code::PLAY_BEGAN);
            self.clock = Some(Clock {
                base_at: now,
                base_ms: timestamp,
                offset: CACHE_MIN,
            });
            return;
        };
        if let Some(last) = self.last.get_mut(track) {
            let step = last
                .replace(timestamp)
                .map(|last| timestamp.wrapping_sub(last) as i32);
            if step.is_some_and(|step| !(0..=JUMP_MS).contains(&step)) {
                self.seen.discontinuities += 1;
                self.line.tell(code::PLAY_DISCONTINUITY);
            }
        }
        // Earlier than the first is possible for the other track.
        let since = timestamp.wrapping_sub(clock.base_ms) as i32;
        let since_base = Duration::from_millis(since.unsigned_abs().into());
        let due = match since < 0 {
            true => clock.base_at + clock.offset - since_base.min(clock.offset),
            false => clock.base_at + clock.offset + since_base,
        };
        match now.checked_duration_since(due) {
            Some(late) if !late.is_zero() => {
                clock.offset += late;
                self.seen.stutters += 1;
                self.seen.cached = Duration::ZERO;
                self.line.tell(code::PLAY_STUTTER);
            }
            _ => {
                self.seen.cached = due.saturating_duration_since(now);
                if self.seen.cached > CACHE_MAX {
                    let faster = since_base.min(FASTER);
                    clock.offset = clock.offset.saturating_sub(faster);
                }
            }
        }
    }

    fn note(&mut self, timestamp: u32, is_video: bool, body: &bytes::Bytes) {
        if let Some(kept) = &mut self.seen.kept {
            kept.push((timestamp, is_video, body.clone()));
        }
    }
}

impl Tag for LivePlayer {
    fn handle_connected(&mut self) {
        self.line.handle_connected();
    }

    fn handle_received(&mut self, now: Instant, bytes: &[u8]) {
        for event in self.line.receive(bytes) {
            match event {
                Event::Connected => self.line.tell(code::PLAY_CONNECTED),
                Event::Playing => self.line.tell(code::PLAY_STREAM_BEGAN),
                Event::Video { timestamp, payload } => self.video(now, timestamp, &payload),
                Event::Audio { timestamp, payload } => self.audio(now, timestamp, &payload),
                Event::Status { code: status, .. } if is_end(&status) => {
                    self.line.tell(code::PLAY_ENDED);
                }
                Event::Closed => {
                    self.line.tell(code::SERVER_CLOSED);
                    self.lost(now);
                }
                _ => {}
            }
        }
    }

    fn handle_closed(&mut self, now: Instant) {
        if !self.line.is_down() {
            self.lost(now);
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.line.handle_timeout(now);
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.line.next_timeout()
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.line.poll_output()
    }

    fn transmit(&mut self) -> &mut TransmitQueue {
        self.line.transmit()
    }

    fn url(&self) -> &RtmpUrl {
        self.line.url()
    }

    fn stop(&mut self) {
        self.line.stop();
    }

    fn is_over(&self) -> bool {
        self.line.is_down()
    }
}

fn is_end(status: &str) -> bool {
    matches!(
        status,
        "NetStream.Play.UnpublishNotify" | "NetStream.Play.Stop" | "NetStream.Play.Complete"
    )
}

/// `min-cache` and `max-cache` that WeChat recommends for RTC mode.
const CACHE_MIN: Duration = Duration::from_millis(200);
const CACHE_MAX: Duration = Duration::from_millis(800);
/// How much sooner each frame is shown while the cache is too full: about five per cent.
const FASTER: Duration = Duration::from_millis(2);
/// A larger step of timestamps is told as a discontinuity.
const JUMP_MS: i32 = 1_000;

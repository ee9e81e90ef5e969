//! [`Ring`]: a stream's latest frames, kept once for everybody.
//!
//! Players hold cursors (frame indices that only grow) instead of queues of their own. The
//! ring keeps the group of pictures that a newcomer starts with (the GOP cache) and what
//! the slowest player has still to get, both bounded in media time, bytes and frames.
//! Each frame carries its encodings, made by the first player that needs one
//! and shared by all.

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::media::{Codec, Frame, MediaTime, TrackConfig, TrackKind};
use crate::rtmp::SharedMessage;

/// What the ring may hold.
#[derive(Clone, Copy, Debug)]
pub struct RingLimits {
    /// The longest group of pictures that is kept for newcomers.
    pub gop_duration: Duration,
    /// Bytes of payload in it at most.
    pub gop_bytes: usize,
    /// Frames in it at most.
    pub gop_frames: usize,
    /// How far a player may lag before it is moved to a newer key frame.
    pub queue_duration: Duration,
    /// Bytes of payload between a player and the newest frame at most.
    pub queue_bytes: usize,
}

/// One frame with what was made of it.
#[derive(Debug)]
pub struct Entry {
    /// The frame itself.
    pub frame: Frame,
    /// The configuration it was coded with: a player that was last given another one
    /// (another pointer) is given this one first.
    pub config: Arc<TrackConfig>,
    /// Bytes of payload that were pushed before it.
    offset: u64,
    /// When the gateway had it whole.
    pub arrival: Instant,
    /// What a browser gets of it.
    pub browser: BrowserView,
    /// How much later than its own time it is stamped for browsers: see
    /// [`LiveStamp`](super::live_stamp::LiveStamp).
    shift: MediaTime,
    /// The frame as an RTMP message cut into chunks.
    pub rtmp: OnceCell<SharedMessage>,
    /// The frame as RTP payloads, in order; the marker belongs to the last.
    pub rtp: OnceCell<Box<[Arc<[u8]>]>>,
}

impl Entry {
    /// Its time of presentation as browsers are told it.
    pub fn live_pts(&self) -> MediaTime {
        self.frame.pts + self.shift
    }
}

/// What a browser, which cannot show pictures out of order, gets of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BrowserView {
    /// The frame as it is.
    #[default]
    Same,
    /// Nothing.
    Skip,
    /// The frame, of a stream without the pictures that come out of order: its parameter sets say
    /// so.
    InOrder,
}

/// The latest frames of a stream, oldest first.
#[derive(Debug)]
pub struct Ring {
    entries: VecDeque<Entry>,
    /// Index of `entries[0]`.
    first: u64,
    bytes: usize,
    /// Bytes of payload ever pushed.
    pushed: u64,
    /// Index of the key frame that a newcomer may start with.
    gop_start: Option<u64>,
    gop_bytes: usize,
    /// Before this index no frame has its RTP form any more.
    rtp_from: u64,
    /// The shift of what is pushed from now on.
    pub(super) shift: MediaTime,
    limits: RingLimits,
}

impl Ring {
    /// An empty ring.
    pub fn new(limits: RingLimits) -> Self {
        Self {
            entries: VecDeque::new(),
            first: 0,
            bytes: 0,
            pushed: 0,
            gop_start: None,
            gop_bytes: 0,
            rtp_from: 0,
            shift: MediaTime::ZERO,
            limits,
        }
    }

    /// Appends a frame and answers its index.
    pub fn push(&mut self, frame: Frame, config: Arc<TrackConfig>, arrival: Instant) -> u64 {
        self.push_as(frame, config, arrival, BrowserView::Same)
    }

    /// The same for a frame of which browsers get something else.
    pub fn push_as(
        &mut self,
        frame: Frame,
        config: Arc<TrackConfig>,
        arrival: Instant,
        browser: BrowserView,
    ) -> u64 {
        let index = self.head();
        let size = frame.payload.len();
        if frame.codec == Codec::H264 && frame.key {
            self.gop_start = Some(index);
            self.gop_bytes = 0;
        }
        if self.gop_start.is_some() {
            self.gop_bytes += size;
        }
        self.bytes += size;
        if self.entries.len() == self.entries.capacity() {
            // Doubling would leave half of it empty for as long as the stream lasts.
            let more = self.entries.len() / 4 + ENTRIES_MORE_MIN;
            self.entries.reserve_exact(more);
        }
        self.entries.push_back(Entry {
            frame,
            config,
            offset: self.pushed,
            arrival,
            browser,
            shift: self.shift,
            rtmp: OnceCell::new(),
            rtp: OnceCell::new(),
        });
        self.pushed += size as u64;
        self.forget_long_gop();
        self.bound();
        index
    }

    /// Lets go of what neither a newcomer nor `slowest` (the least cursor of all players,
    /// or [`Ring::head`] if there is none) needs.
    pub fn trim(&mut self, slowest: u64) {
        let keep = self.gop_start.unwrap_or(u64::MAX).min(slowest);
        while self.first < keep && !self.entries.is_empty() {
            self.pop();
        }
        // A burst does not leave its capacity behind.
        if self.entries.capacity() > 64 && self.entries.len() * 4 < self.entries.capacity() {
            self.entries.shrink_to(self.entries.len() * 2);
        }
    }

    /// Lets go of the RTP forms of frames before `slowest`, the least cursor of all WebRTC viewers
    /// or [`Ring::head`] if there is none, so that what is cached is not held twice. A viewer that
    /// comes later has those made again that it starts with, which costs a copy of them.
    pub fn forget_rtp(&mut self, slowest: u64) {
        // A newcomer stands further back than those before it did, and may have come from the start.
        let is_newcomer = slowest < self.rtp_from;
        let from = if is_newcomer { 0 } else { self.rtp_from }.max(self.first);
        let (skip, end) = (from - self.first, slowest.saturating_sub(self.first));
        let passed = self.entries.iter_mut().take(end as usize);
        for entry in passed.skip(skip as usize) {
            entry.rtp.take();
        }
        self.rtp_from = slowest;
    }

    /// Forgets the cached group of pictures: a new publisher's players never start with the
    /// pictures of the last one.
    pub fn end_gop(&mut self) {
        self.gop_start = None;
        self.gop_bytes = 0;
    }

    /// The index that the next frame will get.
    pub fn head(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Index of the oldest frame that is still here.
    pub const fn tail(&self) -> u64 {
        self.first
    }

    /// Index of the newest key frame, if it and all that followed are still here.
    pub const fn gop_start(&self) -> Option<u64> {
        self.gop_start
    }

    /// Bytes of payload since the newest key frame.
    pub const fn gop_bytes(&self) -> usize {
        self.gop_bytes
    }

    /// Bytes of payload held.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The entry of an index, if it is still or already here.
    pub fn get(&self, index: u64) -> Option<&Entry> {
        let offset = index.checked_sub(self.first)?;
        self.entries.get(usize::try_from(offset).ok()?)
    }

    /// The newest frame.
    pub fn newest(&self) -> Option<&Entry> {
        self.entries.back()
    }

    /// The newest picture.
    pub fn newest_picture(&self) -> Option<&Entry> {
        let is_picture = |entry: &&Entry| entry.frame.codec.kind() == TrackKind::Video;
        self.entries.iter().rev().find(is_picture)
    }

    /// The entries from `index` on with their indices.
    pub fn since(&self, index: u64) -> impl Iterator<Item = (u64, &Entry)> {
        let skip = usize::try_from(index.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let begin = self.first.max(index);
        (begin..).zip(self.entries.iter().skip(skip.min(self.entries.len())))
    }

    /// Media time between the frame at `index` and the newest one.
    pub fn lag(&self, index: u64) -> MediaTime {
        match (self.get(index.max(self.first)), self.newest()) {
            (Some(at), Some(newest)) => newest.frame.dts - at.frame.dts,
            _ => MediaTime::ZERO,
        }
    }

    /// Whether the payload from `index` on and `waiting` bytes that the player's connection has not
    /// taken are more than a player may be behind.
    pub fn is_too_much_behind(&self, index: u64, waiting: usize) -> bool {
        let behind = match self.get(index) {
            Some(entry) => self.pushed - entry.offset,
            None => 0,
        };
        behind + waiting as u64 > self.limits.queue_bytes as u64
    }

    /// Whether a player at `index` is further behind than a player may be. It then goes on at
    /// [`Ring::gop_start`] or, without one, at [`Ring::head`]; both lie before it.
    pub fn is_too_far_behind(&self, index: u64) -> bool {
        // In the newest group of pictures there is nothing newer to go on at, however long it is.
        let is_in_newest_gop = self.gop_start.is_some_and(|start| start <= index);
        let lags = self.lag(index) > MediaTime::from_duration(self.limits.queue_duration);
        index < self.first || (lags && !is_in_newest_gop)
    }

    /// A group of pictures that grew past its bounds is no start for anybody.
    fn forget_long_gop(&mut self) {
        let Some(start) = self.gop_start else { return };
        let frames = self.head() - start;
        let too_long = self.lag(start) > MediaTime::from_duration(self.limits.gop_duration);
        if too_long
            || self.gop_bytes > self.limits.gop_bytes
            || frames > self.limits.gop_frames as u64
        {
            self.end_gop();
        }
    }

    /// Holds memory to the greater of the two bounds, whatever the players do.
    fn bound(&mut self) {
        let bytes = self.limits.queue_bytes.max(self.limits.gop_bytes);
        let span =
            MediaTime::from_duration(self.limits.queue_duration.max(self.limits.gop_duration));
        while self.entries.len() > 1
            && (self.bytes > bytes
                || self.lag(self.first) > span
                || self.entries.len() > FRAMES_MAX)
        {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= entry.frame.payload.len();
            if self.gop_start == Some(self.first) {
                self.end_gop();
            }
            self.first += 1;
        }
    }
}

impl Entry {
    /// Whether this is a picture or sound of `audio`: what a player of that audio codec wants.
    pub fn is_for(&self, audio: Codec) -> bool {
        match self.frame.codec.kind() {
            TrackKind::Video => true,
            TrackKind::Audio => self.frame.codec == audio,
        }
    }
}

/// How many more frames there is room for when a ring is full, and a quarter of those it has.
const ENTRIES_MORE_MIN: usize = 16;

/// Frames that a ring holds whatever their size and time: a publisher whose timestamps
/// stand still does not fill memory with tiny frames.
const FRAMES_MAX: usize = 8_192;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const LIMITS: RingLimits = RingLimits {
        gop_duration: Duration::from_secs(4),
        gop_bytes: 1_000,
        gop_frames: 50,
        queue_duration: Duration::from_secs(2),
        queue_bytes: 2_000,
    };

    fn video(millis: i64, key: bool, size: usize) -> Frame {
        let time = MediaTime::from_millis(millis);
        Frame {
            codec: Codec::H264,
            dts: time,
            pts: time,
            key,
            disposable: false,
            payload: Bytes::from(vec![0; size]),
        }
    }

    fn push(ring: &mut Ring, frame: Frame) -> u64 {
        ring.push(frame, config(), Instant::now())
    }

    fn config() -> Arc<TrackConfig> {
        Arc::new(TrackConfig::Opus { channels: 1 })
    }

    #[test]
    fn a_new_key_frame_starts_the_cache_anew() {
        let mut ring = Ring::new(LIMITS);
        for n in 0..10 {
            push(&mut ring, video(n * 40, n % 5 == 0, 10));
            ring.trim(ring.head());
        }
        assert_eq!(ring.gop_start(), Some(5));
        assert_eq!((ring.tail(), ring.head()), (5, 10));
        assert_eq!(ring.gop_bytes(), 50);
        assert_eq!(ring.bytes(), 50);
    }

    #[test]
    fn what_a_slow_player_needs_is_kept_within_bounds() {
        let mut ring = Ring::new(LIMITS);
        for n in 0..40 {
            push(&mut ring, video(n * 40, n % 5 == 0, 10));
            ring.trim(3);
        }
        assert_eq!(ring.tail(), 3);
        assert!(!ring.is_too_far_behind(3));
        for n in 40..200 {
            push(&mut ring, video(n * 40, n % 5 == 0, 10));
            ring.trim(3);
        }
        assert!(ring.is_too_far_behind(3));
        assert!(ring.lag(ring.tail()) <= MediaTime::from_millis(4_000));
    }

    #[test]
    fn nobody_is_too_far_behind_in_the_newest_gop() {
        let mut ring = Ring::new(LIMITS);
        for n in 0..90 {
            push(&mut ring, video(n * 40, n == 0, 1));
            ring.trim(0);
            // The GOP is kept for 50 frames, a player may lag by 2 s, also of 50.
            assert_eq!(ring.is_too_far_behind(0), n > 50, "{n}");
        }
        push(&mut ring, video(3_600, true, 1));
        assert!(ring.is_too_far_behind(30));
        assert!(ring.gop_start().is_some_and(|start| start > 30));
    }

    #[test]
    fn a_gop_past_its_bounds_is_no_start() {
        let mut long = Ring::new(LIMITS);
        let mut heavy = Ring::new(LIMITS);
        let mut many = Ring::new(LIMITS);
        push(&mut long, video(0, true, 1));
        push(&mut long, video(4_001, false, 1));
        assert_eq!(long.gop_start(), None);
        push(&mut heavy, video(0, true, 600));
        push(&mut heavy, video(40, false, 401));
        assert_eq!(heavy.gop_start(), None);
        push(&mut many, video(0, true, 1));
        for n in 1..=50 {
            push(&mut many, video(n, false, 1));
        }
        assert_eq!(many.gop_start(), None);
    }

    #[test]
    fn standing_timestamps_do_not_fill_memory() {
        let mut ring = Ring::new(LIMITS);
        for _ in 0..(FRAMES_MAX * 2) {
            push(&mut ring, video(0, false, 0));
            ring.trim(0);
        }
        assert_eq!(ring.head() - ring.tail(), FRAMES_MAX as u64);
    }

    #[test]
    fn rtp_forms_are_kept_for_viewers_that_have_still_to_get_them() {
        let mut ring = Ring::new(LIMITS);
        let write = |ring: &Ring, from: u64| {
            for (_, entry) in ring.since(from) {
                entry.rtp.get_or_init(|| [Arc::from([0_u8; 4])].into());
            }
        };
        let formed = |ring: &Ring| -> Vec<u64> {
            let has_form = |(_, entry): &(u64, &Entry)| entry.rtp.get().is_some();
            ring.since(0).filter(has_form).map(|(n, _)| n).collect()
        };
        for n in 0..6 {
            push(&mut ring, video(n, n == 0, 1));
        }
        write(&ring, 0);
        ring.forget_rtp(4);
        assert_eq!(formed(&ring), [4, 5]);
        // A newcomer starts at the key frame.
        write(&ring, 0);
        ring.forget_rtp(2);
        assert_eq!(formed(&ring), [2, 3, 4, 5]);
        ring.forget_rtp(ring.head());
        assert!(formed(&ring).is_empty());
        ring.trim(3);
        push(&mut ring, video(6, true, 1));
        ring.trim(6);
        write(&ring, 0);
        ring.forget_rtp(0);
        assert_eq!(formed(&ring), [6]);
        ring.forget_rtp(u64::MAX);
        assert!(formed(&ring).is_empty());
    }

    #[test]
    fn since_counts_from_the_given_index() {
        let mut ring = Ring::new(LIMITS);
        for n in 0..4 {
            push(&mut ring, video(n, n == 0, 1));
        }
        let seen: Vec<u64> = ring.since(2).map(|(index, _)| index).collect();
        assert_eq!(seen, [2, 3]);
        assert_eq!(ring.since(9).count(), 0);
    }
}

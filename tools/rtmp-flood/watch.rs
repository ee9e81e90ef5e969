//! [`Watch`]: what one client sees of its stream, and whether it is in order.

use std::time::{Duration, Instant};

use crate::stamp::Stamp;
use crate::tally::Tally;

/// What is known of one player's stream. Media goes by; only this stays.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// When the client began, and when media could flow.
    began: Option<Instant>,
    asked: Option<Instant>,
    ready: Option<Instant>,
    has_headers: bool,
    has_picture: bool,
    has_key: bool,
    /// The last stamped picture, and when it came in µs since 1970.
    last: Option<(Stamp, u64)>,
    /// Pictures in a row that came as far apart as they were sent.
    on_time: u8,
    /// Whether a key frame was asked for.
    has_asked: bool,
    video_time: Option<u64>,
    audio_time: Option<u64>,
}

/// A picture that came whole.
#[derive(Clone, Copy, Debug)]
pub struct Picture {
    /// When its last byte was read.
    pub at: Instant,
    /// The same in µs since 1970.
    pub at_us: u64,
    /// Whether it is an IDR picture.
    pub key: bool,
    /// In the units of its track, unwrapped.
    pub timestamp: u64,
    /// Bytes of its slices.
    pub slice_bytes: u32,
    /// What the publisher wrote.
    pub stamp: Option<Stamp>,
}

impl Watch {
    /// The client began.
    pub fn begin(&mut self, now: Instant) {
        self.began = Some(now);
        self.asked = Some(now);
    }

    /// The last thing was asked before media can come.
    pub fn ask(&mut self, now: Instant) {
        self.asked = Some(now);
    }

    /// Media may flow.
    pub fn ready(&mut self, now: Instant, tally: &mut Tally) {
        if self.ready.is_some() {
            return;
        }
        self.ready = Some(now);
        tally.connected += 1;
        tally.up += 1;
        if let Some(began) = self.began {
            tally.setup.record(now - began);
        }
    }

    /// Whether media may flow.
    pub fn is_ready(&self) -> bool {
        self.ready.is_some()
    }

    /// A key frame is asked for: an older one may come in answer.
    pub fn ask_key(&mut self) {
        self.has_asked = true;
    }

    /// Whether pictures come as they are sent. Before that the client catches up with what
    /// the server had kept for it.
    pub fn is_live(&self) -> bool {
        self.on_time >= LIVE_AFTER
    }

    /// Whether a key frame came.
    pub fn has_key(&self) -> bool {
        self.has_key
    }

    /// Parameter sets came.
    pub fn headers(&mut self) {
        self.has_headers = true;
    }

    /// A picture came. Its latency counts once the client is live, and if it was sent at or
    /// after `measured_from_us`: what comes from a cache is not late.
    pub fn picture(&mut self, picture: Picture, measured_from_us: u64, tally: &mut Tally) {
        tally.flow.pictures += 1;
        if !self.has_picture {
            self.has_picture = true;
            if !picture.key || !self.has_headers {
                tally.faults.bad_start += 1;
            }
        }
        if picture.key && !self.has_key {
            self.has_key = true;
            let since = |from: Option<Instant>| {
                from.map_or(Duration::ZERO, |from| {
                    picture.at.saturating_duration_since(from)
                })
            };
            tally.first_key.record(since(self.began));
            tally.first_key_after.record(since(self.asked));
        }
        if self.video_time.is_some_and(|last| picture.timestamp < last) {
            tally.faults.timestamps += 1;
        }
        self.video_time = Some(picture.timestamp);
        let Some(stamp) = picture.stamp else {
            tally.faults.unstamped += 1;
            return;
        };
        if picture.slice_bytes < stamp.slice_bytes {
            tally.faults.short += 1;
        }
        let was_live = self.is_live();
        match self.last {
            Some((last, last_us)) if last.publisher == stamp.publisher => {
                let is_replay = picture.key && self.has_asked && stamp.number <= last.number;
                if is_replay {
                    // What a publisher cannot send again, the server does.
                    self.on_time = 0;
                } else if stamp.number <= last.number {
                    tally.faults.disorder += 1;
                } else {
                    let sent_step = stamp.sent_us.saturating_sub(last.sent_us);
                    let step = picture.at_us.saturating_sub(last_us);
                    // Still catching up if much closer together than they were sent.
                    let is_on_time = step * 4 >= sent_step * 3;
                    if !was_live {
                        self.on_time = if is_on_time { self.on_time + 1 } else { 0 };
                    }
                    let missing = stamp.number - last.number - 1;
                    match (missing, was_live, picture.key) {
                        (0, ..) => {}
                        // A new picture to begin with came while it caught up.
                        (_, false, true) => tally.faults.cut_starts += 1,
                        (_, _, true) => tally.faults.skips += 1,
                        (_, _, false) => tally.faults.breaks += 1,
                    }
                    if was_live || !picture.key {
                        tally.faults.lost += missing;
                    }
                }
            }
            // The first picture, or the publisher's place was taken.
            _ => self.on_time = 0,
        }
        self.has_asked &= !picture.key;
        self.last = Some((stamp, picture.at_us));
        if self.is_live() {
            if !was_live && let Some(began) = self.began.take() {
                tally
                    .live
                    .record(picture.at.saturating_duration_since(began));
            }
            let late = picture.at_us.saturating_sub(stamp.sent_us);
            tally.latency_now.record_us(late);
            if stamp.sent_us >= measured_from_us {
                tally.latency.record_us(late);
            }
        }
    }

    /// A piece of sound came, with its time in units of `rate_hz`.
    pub fn sound(&mut self, timestamp: u64, rate_hz: u64, tally: &mut Tally) {
        tally.flow.sounds += 1;
        if let Some(last) = self.audio_time {
            let step = timestamp.saturating_sub(last);
            if timestamp < last {
                tally.faults.timestamps += 1;
            } else if step * 1_000 > rate_hz * SOUND_GAP_MS {
                tally.faults.sound_gaps += 1;
            }
        }
        self.audio_time = Some(timestamp);
    }

    /// The client ends, by itself or not.
    pub fn end(&mut self, tally: &mut Tally) {
        if self.ready.take().is_some() {
            tally.up -= 1;
        }
    }

    /// At the end of the measurement or when it leaves, a player must have got a picture.
    pub fn judge(&mut self, now: Instant, tally: &mut Tally) {
        let waited = self.ready.map(|ready| now.saturating_duration_since(ready));
        if !self.has_picture && waited.is_some_and(|waited| waited > PATIENCE) {
            tally.faults.no_picture += 1;
        }
    }
}

/// More between two pieces of sound is a hole: they last 20 to 24 ms, and a millisecond of
/// rounding comes on top.
const SOUND_GAP_MS: u64 = 35;

/// So many pictures in a row on time make a client live: one alone may be by chance.
const LIVE_AFTER: u8 = 2;

/// A client that is up for longer must have got a picture.
const PATIENCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::Faults;

    struct Scene {
        watch: Watch,
        tally: Tally,
        now: Instant,
    }

    impl Scene {
        fn new() -> Self {
            let mut scene = Self {
                watch: Watch::default(),
                tally: Tally::default(),
                now: Instant::now(),
            };
            scene.watch.begin(scene.now);
            scene
                .watch
                .ready(scene.now + Duration::from_millis(3), &mut scene.tally);
            scene.watch.headers();
            scene
        }

        fn see(&mut self, number: u64, key: bool) {
            self.picture(number, key, 7);
        }

        fn picture(&mut self, number: u64, key: bool, publisher: u32) {
            self.add(number, key, publisher, 250);
        }

        fn late(&mut self, number: u64, key: bool, late_us: u64) {
            self.add(number, key, 7, late_us);
        }

        fn add(&mut self, number: u64, key: bool, publisher: u32, late_us: u64) {
            let sent_us = 1_000 + number * 40_000;
            let picture = Picture {
                at: self.now + Duration::from_millis(5),
                at_us: sent_us + late_us,
                key,
                timestamp: number * 40,
                slice_bytes: 100,
                stamp: Some(Stamp {
                    publisher,
                    number,
                    sent_us,
                    slice_bytes: 100,
                }),
            };
            self.watch.picture(picture, 0, &mut self.tally);
        }
    }

    #[test]
    fn an_orderly_stream_has_no_faults() {
        let mut scene = Scene::new();
        (0..10).for_each(|number| scene.see(number, number == 0));
        assert_eq!(scene.tally.faults, Faults::default());
        let tally = &scene.tally;
        // Live with the second picture after the first.
        assert_eq!(tally.latency.count(), 8);
        assert_eq!(tally.latency.max(), Some(Duration::from_micros(250)));
        assert_eq!(tally.setup.max(), Some(Duration::from_millis(3)));
        assert_eq!(tally.first_key.max(), Some(Duration::from_millis(5)));
        assert_eq!(tally.live.count(), 1);
    }

    #[test]
    fn a_jump_to_a_key_frame_is_a_skip_and_any_other_a_break() {
        let mut scene = Scene::new();
        for number in [0, 1, 2, 6, 7, 9] {
            scene.see(number, number % 6 == 0);
        }
        let expected = Faults {
            lost: 4,
            skips: 1,
            breaks: 1,
            ..Faults::default()
        };
        assert_eq!(scene.tally.faults, expected);
    }

    #[test]
    fn disorder_and_times_that_go_back_are_seen() {
        let mut scene = Scene::new();
        for number in [0, 1, 3, 2, 4] {
            scene.see(number, number == 0);
        }
        let faults = scene.tally.faults;
        assert_eq!((faults.disorder, faults.timestamps), (1, 1));
    }

    #[test]
    fn a_start_without_key_frame_or_parameter_sets_is_seen() {
        let mut scene = Scene::new();
        scene.see(1, false);
        let mut other = Scene::new();
        other.watch.has_headers = false;
        other.see(0, true);
        assert_eq!(
            (scene.tally.faults.bad_start, other.tally.faults.bad_start),
            (1, 1)
        );
    }

    #[test]
    fn another_publisher_counts_from_its_own_beginning() {
        let mut scene = Scene::new();
        scene.picture(100, true, 1);
        scene.watch.video_time = None;
        scene.picture(0, true, 2);
        assert_eq!(scene.tally.faults, Faults::default());
    }

    #[test]
    fn what_comes_from_a_cache_is_not_late_and_may_be_cut_short() {
        let mut scene = Scene::new();
        // Ten pictures at once, then a new key frame, and all the rest on time.
        (0..10).for_each(|number| scene.late(number, number == 0, 600_000 - number * 40_000));
        scene.see(15, true);
        assert_eq!(
            (scene.tally.latency.count(), scene.watch.is_live()),
            (0, false)
        );
        (16..20).for_each(|number| scene.see(number, false));
        let expected = Faults {
            cut_starts: 1,
            ..Faults::default()
        };
        assert_eq!(scene.tally.faults, expected);
        assert_eq!(scene.tally.latency.count(), 3);
    }

    #[test]
    fn a_delay_that_does_not_shrink_is_late_from_the_beginning() {
        let mut scene = Scene::new();
        (0..10).for_each(|number| scene.late(number, number == 0, 5_000_000));
        assert_eq!(scene.tally.latency.count(), 8);
        assert_eq!(scene.tally.latency.max(), Some(Duration::from_secs(5)));
    }

    #[test]
    fn an_older_key_frame_is_in_order_only_if_one_was_asked_for() {
        for asked in [true, false] {
            let mut scene = Scene::new();
            (0..5).for_each(|number| scene.see(number, number == 0));
            if asked {
                scene.watch.ask_key();
            }
            scene.watch.video_time = None;
            scene.late(0, true, 250_000);
            assert_eq!(scene.tally.faults.disorder, u64::from(!asked));
            assert_eq!(scene.watch.is_live(), !asked);
        }
    }

    #[test]
    fn a_picture_that_is_not_whole_is_seen() {
        let mut scene = Scene::new();
        let stamp = Stamp {
            publisher: 1,
            number: 0,
            sent_us: 0,
            slice_bytes: 101,
        };
        let picture = Picture {
            at: scene.now,
            at_us: 0,
            key: true,
            timestamp: 0,
            slice_bytes: 100,
            stamp: Some(stamp),
        };
        scene.watch.picture(picture, 0, &mut scene.tally);
        assert_eq!(scene.tally.faults.short, 1);
    }

    #[test]
    fn missing_sound_is_seen() {
        let mut scene = Scene::new();
        for time in [0, 21, 43, 64, 107, 128] {
            scene.watch.sound(time, 1_000, &mut scene.tally);
        }
        for time in [480_000, 480_960, 482_880] {
            Watch::sound(&mut scene.watch, time, 48_000, &mut scene.tally);
        }
        assert_eq!(scene.tally.faults.sound_gaps, 3);
    }

    #[test]
    fn who_got_no_picture_in_time_is_counted() {
        let mut scene = Scene::new();
        let now = scene.now;
        scene
            .watch
            .judge(now + Duration::from_secs(1), &mut scene.tally);
        assert_eq!((scene.tally.faults.no_picture, scene.tally.up), (0, 1));
        scene
            .watch
            .judge(now + Duration::from_secs(3), &mut scene.tally);
        scene.watch.end(&mut scene.tally);
        scene.watch.end(&mut scene.tally);
        assert_eq!((scene.tally.faults.no_picture, scene.tally.up), (1, 0));
    }
}

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
    /// The last stamped picture.
    last: Option<Stamp>,
    /// When the last picture came.
    last_at: Option<Instant>,
    /// The time between the sending of the last two.
    interval: Option<Duration>,
    /// The least that a picture was late since the client began to catch up, µs.
    least_late_us: u64,
    /// Pictures in a row that did not come much less late than that, and when the first did.
    on_time: u8,
    on_time_since: Option<Instant>,
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
    /// When the server let that publisher in, if that is known; only the first key frame's
    /// matters.
    pub published: Option<Instant>,
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
            // Who was there before the publisher.
            if picture.published > self.asked {
                tally.first_key_waiting.record(since(picture.published));
            }
        }
        if self.video_time.is_some_and(|last| picture.timestamp < last) {
            tally.faults.timestamps += 1;
        }
        self.video_time = Some(picture.timestamp);
        self.last_at = Some(picture.at);
        let Some(stamp) = picture.stamp else {
            tally.faults.unstamped += 1;
            return;
        };
        if picture.slice_bytes < stamp.slice_bytes {
            tally.faults.short += 1;
        }
        let was_live = self.is_live();
        let late_us = picture.at_us.saturating_sub(stamp.sent_us);
        match self.last {
            Some(last) if last.publisher == stamp.publisher => {
                let is_replay = picture.key && self.has_asked && stamp.number <= last.number;
                if is_replay {
                    // What a publisher cannot send again, the server does.
                    self.catch_up(late_us);
                } else if stamp.number <= last.number {
                    tally.faults.disorder += 1;
                } else {
                    let sent_step = stamp.sent_us.saturating_sub(last.sent_us);
                    if !was_live {
                        // While it catches up, each comes less late than the one before.
                        let is_on_time = late_us + sent_step / 4 >= self.least_late_us;
                        self.on_time = if is_on_time { self.on_time + 1 } else { 0 };
                        if self.on_time == 1 {
                            self.on_time_since = Some(picture.at);
                        }
                        self.least_late_us = self.least_late_us.min(late_us);
                    }
                    let missing = stamp.number - last.number - 1;
                    let steps = u32::try_from(missing + 1).unwrap_or(u32::MAX);
                    self.interval = Some(Duration::from_micros(sent_step) / steps);
                    match (missing, was_live, picture.key) {
                        (0, ..) => {}
                        // A new picture to begin with came while it caught up.
                        (_, false, true) => tally.faults.cut_starts += 1,
                        (_, _, true) => tally.faults.skips += 1,
                        (_, _, false) => tally.faults.breaks += 1,
                    }
                    if was_live || !picture.key {
                        tally.faults.lost += missing;
                        tally.flow.missing += missing;
                    }
                }
            }
            // The first picture, or the publisher's place was taken.
            _ => self.catch_up(late_us),
        }
        self.has_asked &= !picture.key;
        self.last = Some(stamp);
        if self.is_live() {
            if !was_live && let Some(began) = self.began.take() {
                let live = self.on_time_since.unwrap_or(picture.at);
                tally.live.record(live.saturating_duration_since(began));
            }
            tally.latency_now.record_us(late_us);
            if stamp.sent_us >= measured_from_us {
                tally.latency.record_us(late_us);
            }
        }
    }

    /// What comes next may be from a cache, up to where it is not late any more.
    fn catch_up(&mut self, late_us: u64) {
        self.on_time = 0;
        self.least_late_us = late_us;
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

    /// At the end of the measurement, which began at `from`, or when it leaves, a player must
    /// have got a picture, and lately. `per_second` is the rate of a player without any.
    pub fn judge(&mut self, now: Instant, from: Instant, per_second: f64, tally: &mut Tally) {
        let Some(ready) = self.ready else {
            return;
        };
        let since = self.last_at.unwrap_or(ready).max(ready);
        let waited = now.saturating_duration_since(since);
        let patience = match self.has_picture {
            true => STALL,
            false => PATIENCE,
        };
        if waited <= patience {
            return;
        }
        match self.has_picture {
            true => tally.faults.stalled += 1,
            false => tally.faults.no_picture += 1,
        }
        let per_second = match self.interval {
            Some(interval) => 1.0 / interval.as_secs_f64().max(0.001),
            None => per_second,
        };
        let measured = now.saturating_duration_since(since.max(from));
        tally.flow.missing += (measured.as_secs_f64() * per_second) as u64;
    }
}

/// More between two pieces of sound is a hole: they last 20 to 24 ms, and a millisecond of
/// rounding comes on top.
const SOUND_GAP_MS: u64 = 35;

/// So many pictures in a row on time make a client live: fewer may be by chance, when a busy
/// machine holds up what catches up.
const LIVE_AFTER: u8 = 5;

/// A client that is up for longer must have got a picture.
const PATIENCE: Duration = Duration::from_secs(2);

/// Pictures that do not come for longer have stopped: longer than most wait for the next
/// key frame.
const STALL: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::Faults;

    struct Scene {
        published: Option<Instant>,
        watch: Watch,
        tally: Tally,
        now: Instant,
    }

    impl Scene {
        fn new() -> Self {
            let mut scene = Self {
                published: None,
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
                published: self.published,
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
        // Live with the fifth picture after the first.
        assert_eq!(tally.latency.count(), 5);
        assert_eq!(tally.latency.max(), Some(Duration::from_micros(250)));
        assert_eq!(tally.setup.max(), Some(Duration::from_millis(3)));
        assert_eq!(tally.first_key.max(), Some(Duration::from_millis(5)));
        assert_eq!(tally.live.count(), 1);
    }

    #[test]
    fn who_was_there_before_the_publisher_has_its_wait_measured_from_then() {
        for (published_ms, counted) in [(2, 1), (0, 0)] {
            let mut scene = Scene::new();
            scene.watch.ask(scene.now + Duration::from_millis(1));
            scene.published = Some(scene.now + Duration::from_millis(published_ms));
            (0..2).for_each(|number| scene.see(number, number == 0));
            let waiting = &scene.tally.first_key_waiting;
            assert_eq!(waiting.count(), counted);
            let expected = (counted > 0).then_some(Duration::from_millis(3));
            assert_eq!(waiting.max(), expected);
        }
    }

    #[test]
    fn a_jump_to_a_key_frame_is_a_skip_and_any_other_a_break() {
        let mut scene = Scene::new();
        for number in (0..9).chain([12, 13, 15]) {
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
        (16..23).for_each(|number| scene.see(number, false));
        let expected = Faults {
            cut_starts: 1,
            ..Faults::default()
        };
        assert_eq!(scene.tally.faults, expected);
        assert_eq!(scene.tally.latency.count(), 3);
    }

    #[test]
    fn pictures_that_come_in_bursts_are_late_by_what_they_waited() {
        let mut scene = Scene::new();
        // Each eighth brings those before it along.
        for number in 0..32 {
            scene.late(number, number == 0, (7 - number % 8) * 40_000);
        }
        // Live with the fifth picture of the second burst.
        assert_eq!(scene.tally.latency.count(), 20);
        assert_eq!(
            scene.tally.latency.max(),
            Some(Duration::from_millis(7 * 40))
        );
    }

    #[test]
    fn a_delay_that_does_not_shrink_is_late_from_the_beginning() {
        let mut scene = Scene::new();
        (0..10).for_each(|number| scene.late(number, number == 0, 5_000_000));
        assert_eq!(scene.tally.latency.count(), 5);
        assert_eq!(scene.tally.latency.max(), Some(Duration::from_secs(5)));
    }

    #[test]
    fn an_older_key_frame_is_in_order_only_if_one_was_asked_for() {
        for asked in [true, false] {
            let mut scene = Scene::new();
            (0..8).for_each(|number| scene.see(number, number == 0));
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
            published: None,
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
        let after = |seconds| scene.now + Duration::from_secs(seconds);
        let (from, early, late) = (after(2), after(1), after(3));
        let Scene { watch, tally, .. } = &mut scene;
        watch.judge(early, from, 25.0, tally);
        assert_eq!((tally.faults.no_picture, tally.up), (0, 1));
        watch.judge(late, from, 25.0, tally);
        // Of the three seconds one is of the measurement.
        assert_eq!((tally.faults.no_picture, tally.flow.expected()), (1, 25));
        watch.end(tally);
        watch.end(tally);
        assert_eq!(tally.up, 0);
    }

    #[test]
    fn who_gets_no_more_pictures_is_counted_with_those_that_are_missing() {
        let mut scene = Scene::new();
        (0..10).for_each(|number| scene.see(number, number == 0));
        let last = scene.now + Duration::from_millis(5);
        let Scene { watch, tally, .. } = &mut scene;
        watch.judge(last + STALL, last, 0.0, tally);
        assert_eq!(tally.faults, Faults::default());
        watch.judge(last + Duration::from_secs(4), last, 0.0, tally);
        // Ten came, and four seconds of one each 40 ms did not.
        assert_eq!((tally.faults.stalled, tally.flow.expected()), (1, 110));
    }
}

//! What a browser makes of our sender reports: sound and picture of one instant are together from
//! the second report on, whatever the viewer joined into and whatever the publisher does.

use std::time::{Instant, SystemTime};

use crate::common::browser::Kind;
use crate::common::clip::{Clip, Feed};
use crate::common::watch::{pictures, reports, sounds};
use crate::common::world::World;

/// Chromium's mapping from RTP time to the sender's clock: the line nearest to the last twenty
/// reports (`RtpToNtpEstimator` of libwebrtc).
#[derive(Default)]
struct Estimator {
    /// RTP time and NTP time in seconds.
    samples: Vec<(f64, f64)>,
}

impl Estimator {
    fn take(&mut self, rtp: f64, ntp: f64) {
        if let Some(last) = self.samples.last() {
            assert!(
                rtp > last.0 && ntp > last.1,
                "{last:?} before {:?}",
                (rtp, ntp)
            );
        }
        self.samples.push((rtp, ntp));
        if self.samples.len() > 20 {
            self.samples.remove(0);
        }
    }

    fn ntp(&self, rtp: f64) -> Option<f64> {
        let count = self.samples.len() as f64;
        if count < 2.0 {
            return None;
        }
        let mean = |of: fn(&(f64, f64)) -> f64| self.samples.iter().map(of).sum::<f64>() / count;
        let (x, y) = (mean(|s| s.0), mean(|s| s.1));
        let (mut xy, mut xx) = (0.0, 0.0);
        for (rtp, ntp) in &self.samples {
            xy += (rtp - x) * (ntp - y);
            xx += (rtp - x) * (rtp - x);
        }
        Some(y + (rtp - x) * xy / xx)
    }
}

/// Seconds of an RTP time since a first one, across wraps.
fn since(rtp_time: u32, first: u64, rate_hz: f64) -> f64 {
    f64::from(rtp_time.wrapping_sub(first as u32) as i32) / rate_hz
}

/// What came of a track: RTP times in seconds since its first, and its reports.
struct Heard {
    media: Vec<(Instant, f64)>,
    reports: Vec<(Instant, f64, f64)>,
}

impl Heard {
    fn new(world: &World, viewer: usize, kind: Kind) -> Self {
        let peer = world.browser(viewer);
        let (rate_hz, media): (f64, Vec<(Instant, u64)>) = match kind {
            Kind::Video => {
                let all = pictures(peer);
                (90_000.0, all.iter().map(|p| (p.at, p.rtp_time)).collect())
            }
            Kind::Audio => {
                let all = sounds(peer);
                (48_000.0, all.iter().map(|s| (s.at, s.rtp_time)).collect())
            }
        };
        let first = media[0].1;
        let place = |rtp: u32| since(rtp, first, rate_hz);
        let told = reports(peer, kind).into_iter().map(|(at, ntp, rtp)| {
            let ntp = ntp.duration_since(SystemTime::UNIX_EPOCH).unwrap();
            (at, place(rtp), ntp.as_secs_f64() - 1.7e9)
        });
        Self {
            reports: told.collect(),
            media: media
                .iter()
                .map(|(at, rtp)| (*at, place(*rtp as u32)))
                .collect(),
        }
    }

    /// The clock as the last report has it, less the media's.
    fn origin(&self) -> f64 {
        let (_, rtp, ntp) = self.reports.last().unwrap();
        ntp - rtp
    }

    /// Where a browser puts what came last up to `at`, less the media's clock.
    fn origin_at(&self, at: Instant) -> Option<f64> {
        let mut estimator = Estimator::default();
        for (_, rtp, ntp) in self.reports.iter().filter(|report| report.0 <= at) {
            estimator.take(*rtp, *ntp);
        }
        let (_, place) = self.media.iter().rev().find(|media| media.0 <= at)?;
        Some(estimator.ntp(*place)? - place)
    }
}

/// How late the first reports of both tracks came after their first packets, and by how much a
/// browser is wrong about sound and picture at worst. In milliseconds.
fn judge(world: &World, viewer: usize) -> (f64, f64) {
    let video = Heard::new(world, viewer, Kind::Video);
    let audio = Heard::new(world, viewer, Kind::Audio);
    let late = [&video, &audio].map(|track| (track.reports[0].0 - track.media[0].0).as_secs_f64());
    // What lies between the tracks' clocks is the same for ever.
    let truth = video.origin() - audio.origin();
    let wrong = video.media.iter().filter_map(|(at, _)| {
        let told = video.origin_at(*at)? - audio.origin_at(*at)?;
        Some((told - truth).abs())
    });
    (late[0].max(late[1]) * 1e3, wrong.fold(0.0, f64::max) * 1e3)
}

fn watched(feed: Feed, after_ms: u64, watch_ms: u64) -> (f64, f64) {
    let mut world = World::new();
    world.rtmp_publish_feed("live/a", feed);
    world.run_ms(after_ms);
    let viewer = world.whep("live/a").expect("accepted");
    world.run_ms(watch_ms);
    judge(&world, viewer)
}

#[track_caller]
fn assert_together((late, wrong): (f64, f64)) {
    println!("late {late:.2} wrong {wrong:.2}");
    assert!(
        late <= 1.0,
        "the first reports come {late} ms after the first packets"
    );
    assert!(wrong <= 1.0, "{wrong} ms");
}

/// Wherever a viewer joins: on a key frame, or into a group that it gets as a fast start.
#[test]
fn case_37_a_browser_has_lips_in_step_from_the_second_report_on() {
    for phase in 0..21 {
        assert_together(watched(Clip::load().feed(), 2_000 + phase * 97, 5_000));
    }
}

/// Pictures come later than sound where a key frame is waited for.
#[test]
fn case_37_a_viewer_who_waits_for_the_key_frame_has_lips_in_step() {
    let feed = || Clip::load().feed().gop(200);
    for after_ms in [4_500, 7_500] {
        assert_together(watched(feed(), after_ms, 9_000));
    }
}

/// What a publisher's network holds back comes in bursts.
#[test]
fn case_37_a_stuttering_publisher_moves_no_lips() {
    for hold in [100, 400, 900] {
        let feed = Clip::load().feed().map(move |(time, mut tag)| {
            tag.timestamp = time as u32;
            (time.next_multiple_of(hold), tag)
        });
        assert_together(watched(feed.own_timestamps(), 2_350, 8_000));
    }
}

#[test]
fn case_37_a_publisher_that_comes_back_moves_no_lips() {
    let mut world = World::new();
    let publisher = world.rtmp_publish("live/a");
    world.run_ms(2_300);
    let viewer = world.whep("live/a").expect("accepted");
    world.run_ms(3_010);
    world.rtmp_kill(publisher);
    world.run_ms(1_700);
    world.rtmp_publish("live/a");
    world.run_ms(4_000);
    assert_together(judge(&world, viewer));
}

#[test]
fn case_37_a_browser_that_publishes_for_another_moves_no_lips() {
    let mut world = World::new();
    let _ = world.whip("live/a").expect("accepted");
    world.run_ms(1_300);
    let viewer = world.whep("live/a").expect("accepted");
    world.run_ms(6_000);
    assert_together(judge(&world, viewer));
}

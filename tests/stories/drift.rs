//! Clocks that run apart, through the whole gateway with real codecs: what a player gets stays in
//! step and nothing grows. `src/hub/timeline` and `src/transcode` have a whole day of it in seconds;
//! here it is a quarter of an hour, or as long as the environment says:
//!
//! ```text
//! GATEWAY_DRIFT_HOURS=24 cargo test --test stories drift:: -- --nocapture
//! ```

use std::time::SystemTime;

use rtmp_gateway::rtmp::client::Event;
use rtmp_gateway::rtmp::flv::Tag;

use crate::common::browser::{Kind, Seen};
use crate::common::clip::{AUDIO, Clip, Feed, VIDEO};
use crate::common::watch::ntp_seconds;
use crate::common::world::World;

/// Simulated time of one story, in minutes.
fn minutes() -> u64 {
    match std::env::var("GATEWAY_DRIFT_HOURS") {
        Ok(hours) => (hours.parse::<f64>().expect("hours") * 60.0) as u64,
        Err(_) => 15,
    }
}

/// What a player got of a track, judged as it comes.
struct Track {
    /// Media time from one frame to the next, by the track's own clock.
    span_ms: f64,
    last_ms: Option<f64>,
    /// The largest step beyond that span.
    step: f64,
    /// By how much the clock is too fast that media time follows, in millionths.
    follows_ppm: i64,
    /// Media time less time of arrival by that clock, in milliseconds: the least delayed of
    /// each second.
    seconds: Vec<f64>,
}

impl Track {
    fn new(span_ms: f64, follows_ppm: i64) -> Self {
        Self {
            span_ms,
            last_ms: None,
            step: 0.0,
            follows_ppm,
            seconds: Vec::new(),
        }
    }

    /// A frame came after `arrived_s` with this timestamp, which stands for `media_ms` of the
    /// clock that both tracks share.
    fn take(&mut self, arrived_s: f64, stamp_ms: f64, media_ms: f64) {
        if arrived_s > SETTLED_S as f64
            && let Some(last) = self.last_ms
        {
            self.step = self.step.max((stamp_ms - last - self.span_ms).abs());
        }
        self.last_ms = Some(stamp_ms);
        let second = arrived_s as usize;
        self.seconds
            .resize((second + 1).max(self.seconds.len()), f64::MIN);
        let arrived_ms = arrived_s * (1e3 + self.follows_ppm as f64 / 1e3);
        self.seconds[second] = self.seconds[second].max(media_ms - arrived_ms);
    }

    /// The whole seconds after the first ones.
    fn settled(&self) -> &[f64] {
        &self.seconds[SETTLED_S..self.seconds.len() - 1]
    }
}

/// By how much the largest and the first of some values differ at most.
fn moved(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let first = values.clone().next().expect("some seconds");
    values.map(|now| (now - first).abs()).fold(0.0, f64::max)
}

/// Prints and judges what a player got.
fn judge(direction: &str, [video, audio]: [i64; 2], picture: &Track, sound: &Track, held: u64) {
    let both = picture.settled().iter().zip(sound.settled());
    let offset = moved(both.map(|(picture, sound)| picture - sound));
    let tracks = [picture, sound];
    let step = tracks
        .iter()
        .flat_map(|track| track.settled().windows(2))
        .map(|pair| (pair[1] - pair[0]).abs())
        .chain(tracks.map(|track| track.step))
        .fold(0.0, f64::max);
    let behind = tracks.map(|track| moved(track.settled().iter().copied()));
    let behind = behind[0].max(behind[1]);
    println!(
        "| {direction} | {} min | {video:+} | {audio:+} | {offset:.1} ms | {step:.1} ms | \
         {behind:.1} ms | {held} ms |",
        minutes()
    );
    let case = format!("{direction} {video} {audio}");
    assert!(offset < 60.0, "{case}: the tracks are {offset} ms apart");
    assert!(step < 20.0, "{case}: a step of {step} ms");
    assert!(behind < 60.0, "{case}: {behind} ms from the live point");
    assert!(held < 100, "{case}: {held} ms are held");
    let length = minutes() as usize * 60;
    assert!(picture.seconds.len() + 2 > length && sound.seconds.len() + 2 > length);
    assert!(
        tracks
            .iter()
            .all(|track| !track.seconds[SETTLED_S..length].contains(&f64::MIN))
    );
}

fn head() {
    println!(
        "| direction | length | picture ppm | sound ppm | A/V offset moved by | largest step | from the live point | held |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
}

/// Media time that waits anywhere in the gateway.
fn held_ms(stream: &serde_json::Value) -> u64 {
    let parts = stream["held"].as_object().expect("figures").values();
    parts.filter_map(serde_json::Value::as_u64).sum()
}

/// Case 48. The publisher's clocks run apart from each other and from ours.
#[test]
fn case_48_clocks_that_run_apart_stay_in_step_from_webrtc_to_rtmp() {
    head();
    for ppm in DRIFTS {
        let mut world = World::new();
        let player = world.rtmp_play("live/a");
        world.run_ms(10);
        let browser = world.whip("live/a").expect("accepted");
        let source = world.source_mut(browser);
        source.set_pictures(Clip::small().rtp_pictures());
        source.ppm = ppm;
        // Time follows the publisher's sound.
        let (mut picture, mut sound) =
            (Track::new(40.0, ppm[1]), Track::new(1_024.0 / 48.0, ppm[1]));
        let mut held = 0;
        for _ in 0..minutes() {
            world.run_ms(60_000);
            let start = world.start;
            for (at, event) in std::mem::take(&mut world.rtmp_mut(player).events) {
                let arrived_s = (at - start).as_secs_f64();
                let (track, timestamp, payload) = match event {
                    Event::Video { timestamp, payload } => (&mut picture, timestamp, payload),
                    Event::Audio { timestamp, payload } => (&mut sound, timestamp, payload),
                    _ => continue,
                };
                // Sequence headers are none.
                if payload.get(1) == Some(&1) {
                    let stamp = f64::from(timestamp);
                    track.take(arrived_s, stamp, stamp);
                }
            }
            let source = world.source_mut(browser);
            source.sent_pictures.truncate(1);
            source.sound_times.clear();
            held = held.max(held_ms(&world.stream("live/a").expect("live")));
        }
        judge("WebRTC to RTMP", ppm, &picture, &sound, held);
        let stream = world.stream("live/a").expect("live");
        assert_eq!(stream["transcode"]["queue"], 0);
        let rtp = &stream["publisher"]["ingest"]["rtp"];
        // What the clocks ran apart by was made good, and the API says so.
        let apart = (ppm[0] - ppm[1]) as f64 * minutes() as f64 * 0.06;
        let corrected = rtp["video_correction_ms"].as_f64().expect("a figure")
            - rtp["audio_correction_ms"].as_f64().expect("a figure");
        assert!((corrected + apart).abs() < 40.0, "{apart} {rtp}");
        assert!(
            rtp["skew_ms"].as_i64().expect("a figure").abs() < 20,
            "{rtp}"
        );
    }
}

/// Case 48. The sound card counts too fast or too slowly for the timestamps.
#[test]
fn case_48_clocks_that_run_apart_stay_in_step_from_rtmp_to_webrtc() {
    head();
    for ppm in DRIFTS {
        let mut world = World::new();
        world.rtmp_publish_feed("live/a", drifting(ppm));
        world.run_ms(500);
        let viewer = world.whep("live/a").expect("accepted");
        let (mut picture, mut sound) = (Track::new(40.0, 0), Track::new(20.0, 0));
        let mut told = [None; 2];
        let mut origin = None;
        let mut held = 0;
        for _ in 0..minutes() {
            world.run_ms(60_000);
            let start = world.start;
            let seen = &mut world.browser_mut(viewer).seen;
            // A source looks among them for the connection.
            let is_media =
                |seen: &Seen| matches!(seen, Seen::Rtp { .. } | Seen::SenderReport { .. });
            let media = seen.extract_if(.., |(_, seen)| is_media(seen));
            for (at, seen) in media {
                match seen {
                    Seen::SenderReport {
                        kind,
                        ntp,
                        rtp_time,
                        ..
                    } => {
                        told[usize::from(kind == Kind::Audio)] = Some((at, ntp, rtp_time));
                    }
                    Seen::Rtp {
                        kind,
                        rtp_time,
                        marker,
                        ..
                    } => {
                        let is_sound = kind == Kind::Audio;
                        let Some(report) = &told[usize::from(is_sound)] else {
                            continue;
                        };
                        if !is_sound && !marker {
                            continue;
                        }
                        let rate_hz = if is_sound { 48_000 } else { 90_000 };
                        let clock_s =
                            ntp_seconds(report, rtp_time, rate_hz, SystemTime::UNIX_EPOCH);
                        let media_ms = (clock_s - *origin.get_or_insert(clock_s)) * 1e3;
                        let stamp_ms = rtp_time as f64 / f64::from(rate_hz) * 1e3;
                        let track = if is_sound { &mut sound } else { &mut picture };
                        track.take((at - start).as_secs_f64(), stamp_ms, media_ms);
                    }
                    _ => {}
                }
            }
            held = held.max(held_ms(&world.stream("live/a").expect("live")));
        }
        judge("RTMP to WebRTC", ppm, &picture, &sound, held);
        assert!(sound.step < 1e-3, "sound follows its samples");
        let transcode = world.stream("live/a").expect("live")["transcode"].clone();
        assert_eq!(transcode["queue"], 0);
        let corrected = transcode["correction_ms"].as_f64().expect("a figure");
        // Too fast a clock gives its frames shorter spans.
        let apart = ppm[1] as f64 * minutes() as f64 * 0.06;
        assert!((corrected + apart).abs() < 15.0, "{apart} {transcode}");
    }
}

/// The clip from an encoder whose two clocks are too fast by so many millionths: what they count
/// comes sooner.
fn drifting([video, audio]: [i64; 2]) -> Feed {
    let track = |kind, ppm: i64| {
        let frames = Clip::load().feed().only(kind).frames;
        frames.map(move |(time, tag)| {
            let exact_us = time as i64 * 1_000 - time as i64 * ppm / 1_000;
            (((exact_us + 500) / 1_000) as u64, tag)
        })
    };
    let mut pictures = track(VIDEO, video).peekable();
    let mut sounds = track(AUDIO, audio).peekable();
    let frames = std::iter::from_fn(move || -> Option<(u64, Tag)> {
        match pictures.peek()?.0 <= sounds.peek()?.0 {
            true => pictures.next(),
            false => sounds.next(),
        }
    });
    Feed {
        frames: Box::new(frames),
        ..Clip::load().feed()
    }
}

/// Millionths by which the clocks of picture and sound are too fast.
const DRIFTS: [[i64; 2]; 2] = [[200, -200], [-200, 200]];

/// Seconds until a story is judged: reports have come, and a first offset was made good.
const SETTLED_S: usize = 10;

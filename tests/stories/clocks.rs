//! Clocks that wrap, drift and disagree. `src/hub/timeline` and `src/transcode` have a whole day of
//! it; here some minutes go through everything.

use std::time::{Duration, Instant};

use rtmp_gateway::rtmp::flv::Tag;

use crate::common::browser::{BrowserConfig, Does, Kind};
use crate::common::clip::{AUDIO, Clip, Feed, VIDEO};
use crate::common::watch::{assert_ms, ntp_seconds, pictures, reports, sounds};
use crate::common::world::{World, coded};

/// Case 39, from a publisher: numbers and times of both tracks wrap within the first second, which
/// changes the rollover counter of SRTP (RFC 3711 section 3.3.1) while packets overtake one another.
#[test]
fn case_39_sequence_numbers_and_times_that_wrap_at_once_lose_nothing() {
    let mut world = World::new();
    world.link.jitter = Duration::from_millis(8);
    let player = world.rtmp_play("live/a");
    world.run_ms(10);
    let mut config = BrowserConfig::new(Does::Publish);
    config.first_sequence = 65_520;
    let browser = world.whip_as("live/a", config, &[]).expect("accepted");
    world
        .source_mut(browser)
        .set_rtp_times(0_u32.wrapping_sub(45_000), 0_u32.wrapping_sub(24_000));
    world.run_ms(10_000);
    let peer = world.rtmp_peer(player);
    let (video, audio) = (coded(peer, VIDEO), coded(peer, AUDIO));
    assert!(video.len() > 230 && audio.len() > 440);
    assert!(steps(&video).all(|step| (38..=42).contains(&step)));
    assert!(steps(&audio).all(|step| (21..=22).contains(&step)));
    let rtp = &world.stream("live/a").unwrap()["publisher"]["ingest"]["rtp"];
    // What came before the first key frame.
    assert!(rtp["frames_dropped"].as_u64().unwrap() <= 2, "{rtp}");
    assert_eq!(rtp["audio_packets_lost"], 0, "{rtp}");
}

fn steps(messages: &[(Instant, u32, bytes::Bytes)]) -> impl Iterator<Item = u32> {
    messages.windows(2).map(|pair| pair[1].1 - pair[0].1)
}

/// Media time less time of arrival, in milliseconds: the least delayed of each second.
fn by_second(world: &World, media_ms: impl Iterator<Item = (Instant, f64)>) -> Vec<f64> {
    let mut seconds: Vec<f64> = Vec::new();
    for (at, media) in media_ms {
        let arrived = (at - world.start).as_secs_f64();
        let second = arrived as usize;
        seconds.resize((second + 1).max(seconds.len()), f64::MIN);
        seconds[second] = seconds[second].max(media - arrived * 1e3);
    }
    seconds
}

/// How far sound and picture moved against each other, and the largest step of either in a second,
/// after the first ten.
fn figures(sound: &[f64], picture: &[f64]) -> (f64, f64) {
    let apart: Vec<f64> = sound.iter().zip(picture).map(|(s, p)| p - s).collect();
    let settled = &apart[10..apart.len() - 1];
    let moved = settled
        .iter()
        .map(|now| (now - settled[0]).abs())
        .fold(0.0, f64::max);
    let step = [sound, picture]
        .iter()
        .flat_map(|track| track[10..track.len() - 1].windows(2))
        .map(|pair| (pair[1] - pair[0]).abs())
        .fold(0.0, f64::max);
    (moved, step)
}

fn row(direction: &str, [video, audio]: [i64; 2], (moved, step): (f64, f64)) {
    println!("| {direction} | {video:+} | {audio:+} | {moved:.1} ms | {step:.1} ms |");
    assert!(moved < 60.0, "{direction} {video} {audio}: {moved} ms");
    assert!(step < 20.0, "{direction} {video} {audio}: {step} ms");
}

const DRIFTS: [[i64; 2]; 2] = [[200, -200], [-200, 200]];

/// Case 48: four minutes through the whole gateway; a day of it is in the unit tests.
#[test]
fn case_48_minutes_of_drift_from_webrtc_to_rtmp() {
    println!("| direction | picture ppm | sound ppm | A/V offset moved by | largest step |");
    println!("| --- | --- | --- | --- | --- |");
    for ppm in DRIFTS {
        let mut world = World::new();
        let player = world.rtmp_play("live/a");
        world.run_ms(10);
        let browser = world.whip("live/a").expect("accepted");
        world.source_mut(browser).ppm = ppm;
        world.run_ms(240_000);
        let peer = world.rtmp_peer(player);
        let track = |kind| {
            let messages = coded(peer, kind);
            let times = messages.into_iter().map(|(at, ms, _)| (at, f64::from(ms)));
            by_second(&world, times)
        };
        row("WebRTC to RTMP", ppm, figures(&track(AUDIO), &track(VIDEO)));
        let stream = world.stream("live/a").unwrap();
        assert_eq!(stream["transcode"]["queue"], 0);
        let rtp = &stream["publisher"]["ingest"]["rtp"];
        // What the clocks ran apart by was made good, and the API says so.
        let apart = (ppm[0] - ppm[1]) as f64 * 0.24;
        let corrected = rtp["video_correction_ms"].as_f64().unwrap();
        assert!((corrected + apart).abs() < 40.0, "{apart} {rtp}");
        assert!(rtp["skew_ms"].as_i64().unwrap().abs() < 20, "{rtp}");
    }
}

#[test]
fn case_48_minutes_of_drift_from_rtmp_to_webrtc() {
    println!("| direction | picture ppm | sound ppm | A/V offset moved by | largest step |");
    println!("| --- | --- | --- | --- | --- |");
    for ppm in DRIFTS {
        let mut world = World::new();
        world.rtmp_publish_feed("live/a", drifting(ppm));
        world.run_ms(500);
        let viewer = world.whep("live/a").expect("accepted");
        world.run_ms(240_000);
        let peer = world.browser(viewer);
        let epoch = std::time::SystemTime::UNIX_EPOCH;
        let mapped = |kind, rate, at, rtp_time| {
            let all = reports(peer, kind);
            let upto = all.partition_point(|(told, _, _)| *told <= at);
            let report = all[upto.saturating_sub(1)];
            (at, ntp_seconds(&report, rtp_time, rate, epoch) * 1e3)
        };
        let origin = mapped(Kind::Video, 90_000, world.start, pictures(peer)[0].rtp_time).1;
        let relative = |(at, ms): (Instant, f64)| (at, ms - origin);
        let all = pictures(peer);
        let shown = all
            .iter()
            .map(|p| relative(mapped(Kind::Video, 90_000, p.at, p.rtp_time)));
        let shown = by_second(&world, shown);
        let all = sounds(peer);
        assert!(all.windows(2).all(|p| p[1].rtp_time - p[0].rtp_time == 960));
        let heard = all
            .iter()
            .map(|s| relative(mapped(Kind::Audio, 48_000, s.at, s.rtp_time)));
        let heard = by_second(&world, heard);
        row("RTMP to WebRTC", ppm, figures(&heard, &shown));
        let transcode = world.stream("live/a").unwrap()["transcode"].clone();
        assert_eq!(transcode["queue"], 0);
        let corrected = transcode["correction_ms"].as_f64().unwrap();
        // Too fast a clock gives its frames shorter spans.
        let apart = ppm[1] as f64 * 0.24;
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

/// RTMP timestamps that wrap at 2^31, as those of ffmpeg and OBS, and at 2^32, in mid-stream.
#[test]
fn timestamps_that_wrap_are_no_jump_for_anybody() {
    for offset in [(1_u32 << 31) - 3_000, u32::MAX - 3_000] {
        let mut world = World::new();
        world.rtmp_publish_tracks("live/a", true, true, offset);
        world.run_ms(500);
        let player = world.rtmp_play("live/a");
        let viewer = world.whep("live/a").expect("accepted");
        world.run_ms(6_000);
        let peer = world.rtmp_peer(player);
        assert!(steps(&coded(peer, VIDEO)).all(|step| step == 40));
        assert!(steps(&coded(peer, AUDIO)).all(|step| (21..=22).contains(&step)));
        let all = sounds(world.browser(viewer));
        assert!(all.windows(2).all(|p| p[1].rtp_time - p[0].rtp_time == 960));
        let stream = world.stream("live/a").unwrap();
        assert_eq!(stream["publisher"]["ingest"]["timestamp_jumps"], 0);
    }
}

/// Case 59: workers that do nothing for five seconds cost the sound of that time and nothing else.
#[test]
fn case_59_overloaded_workers_cost_sound_and_never_pictures() {
    let mut world = World::new();
    world.rtmp_publish("live/a");
    world.run_ms(500);
    let viewer = world.whep("live/a").expect("accepted");
    world.run_ms(3_000);
    world.hold_workers(true);
    let held = world.now;
    world.run_ms(5_000);
    let stream = world.stream("live/a").unwrap();
    let queue = stream["transcode"]["queue"].as_u64().unwrap();
    assert!((40..=100).contains(&queue), "bounded: {queue}");
    let dropped = world.metric("rtmp_gateway_transcode_dropped_frames_total");
    assert!(dropped > 100.0, "counted: {dropped}");
    world.hold_workers(false);
    let released = world.now;
    world.run_ms(5_000);
    let all = pictures(world.browser(viewer));
    let meanwhile = all.iter().filter(|p| (held..released).contains(&p.at));
    assert!((124..=126).contains(&meanwhile.count()), "pictures go on");
    let heard = sounds(world.browser(viewer));
    let after: Vec<_> = heard.iter().filter(|s| s.at >= released).collect();
    assert!(after.len() >= 240, "{}", after.len());
    // Sound and pictures of one instant are together again.
    let (sound, picture) = (heard.last().unwrap(), all.last().unwrap());
    let epoch = std::time::SystemTime::UNIX_EPOCH;
    let told = |kind| *reports(world.browser(viewer), kind).last().unwrap();
    let heard_at = ntp_seconds(&told(Kind::Audio), sound.rtp_time, 48_000, epoch);
    let shown_at = ntp_seconds(&told(Kind::Video), picture.rtp_time, 90_000, epoch);
    let apart = (heard_at - shown_at).abs();
    assert!(apart < 0.1, "{apart} s");
    assert_ms(world.now - sound.at, 0..=60);
}

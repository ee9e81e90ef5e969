//! RTMP to WebRTC: a viewer has a picture at once, in step with the sound, and stays live.

use std::time::{Duration, Instant, SystemTime};

use rtmp_gateway::config::{Config, GopCache};

use crate::common::browser::{Kind, Seen};
use crate::common::clip::{AUDIO, Clip, Feed, VIDEO};
use crate::common::watch::{
    Picture, assert_ms, decode_opus, ntp_seconds, onsets, pictures, reports, sounds,
};
use crate::common::world::World;

/// A viewer that joins `after_ms` into the stream and watches for `watch_ms`.
fn watch(feed: Feed, after_ms: u64, watch_ms: u64) -> (World, usize, Instant) {
    watch_with(Config::default(), feed, after_ms, watch_ms)
}

fn watch_with(config: Config, feed: Feed, after_ms: u64, watch_ms: u64) -> (World, usize, Instant) {
    let mut world = World::with_config(config);
    world.rtmp_publish_feed("live/a", feed);
    world.run_ms(after_ms);
    let viewer = world.whep("live/a").expect("accepted");
    world.run_ms(watch_ms);
    let connected = world.connected_at(viewer).expect("connected");
    (world, viewer, connected)
}

/// Which picture of the clip, counted from its beginning, each one is.
fn places(pictures: &[Picture]) -> Vec<usize> {
    let units = Clip::load().access_units();
    pictures
        .iter()
        .map(|picture| {
            let avcc = picture.avcc();
            let place = units.iter().position(|unit| unit.payload == avcc);
            place.expect("a picture of the clip")
        })
        .collect()
}

#[test]
fn a_viewer_in_mid_gop_has_the_key_frame_at_once_and_catches_up_in_step() {
    let (world, viewer, connected) = watch(Clip::load().feed(), 3_200, 4_000);
    let all = pictures(world.browser(viewer));
    assert!(all[0].is_key());
    assert_ms(all[0].at - connected, 0..=10);
    // Each picture once, in order, none left out until a key frame cuts the rest short.
    let places = places(&all);
    let live = all
        .iter()
        .skip(1)
        .position(|p| p.is_key())
        .expect("a second key frame")
        + 1;
    assert!(
        places[..live].windows(2).all(|pair| pair[1] == pair[0] + 1),
        "{places:?}"
    );
    // The backlog of 1.2 s takes about 0.6 s at three times the rate.
    let caught_up = all
        .windows(2)
        .find(|pair| pair[1].at - pair[0].at >= Duration::from_millis(39))
        .map(|pair| pair[0].at - connected)
        .expect("live some time");
    assert_ms(caught_up, 100..=900);
    // Stamps are the times of sending: they differ from arrivals by a constant.
    let base = (all[0].at, all[0].rtp_time);
    for picture in &all {
        let sent = (picture.at - base.0).as_secs_f64();
        let stamp = (picture.rtp_time - base.1) as f64 / 90_000.0;
        assert!((sent - stamp).abs() < 0.002, "{sent} {stamp}");
    }
}

/// Every phase of the group of pictures, in steps of 200 ms.
#[test]
fn wherever_a_viewer_joins_its_times_never_go_back_and_it_is_live_within_the_group() {
    for phase in 0..10 {
        let (world, viewer, connected) = watch(Clip::load().feed(), 2_000 + phase * 200, 3_000);
        let all = pictures(world.browser(viewer));
        assert_ms(all[0].at - connected, 0..=10);
        let last = all.last().unwrap();
        let late = world.now - last.at;
        assert!(late <= Duration::from_millis(45), "phase {phase}: {late:?}");
        let tail = &all[all.len() - 20..];
        assert!(
            tail.windows(2)
                .all(|pair| pair[1].rtp_time - pair[0].rtp_time == 3_600)
        );
    }
}

#[test]
fn sound_is_live_from_its_first_packet_and_gapless() {
    let (world, viewer, connected) = watch(Clip::load().feed(), 3_200, 10_000);
    let all = sounds(world.browser(viewer));
    assert_ms(all[0].at - connected, 0..=45);
    assert!(
        all.windows(2)
            .all(|pair| pair[1].rtp_time - pair[0].rtp_time == 960)
    );
    let passed = (all.last().unwrap().at - all[0].at).as_secs_f64() * 50.0;
    assert!(
        (all.len() as f64 - 1.0 - passed).abs() < 2.0,
        "{} {passed}",
        all.len()
    );
}

/// Case 37.
#[test]
fn the_first_reports_come_within_a_second_and_put_both_clocks_on_one() {
    let (world, viewer, connected) = watch(Clip::load().feed(), 3_000, 6_000);
    let peer = world.browser(viewer);
    let epoch = SystemTime::UNIX_EPOCH;
    let pictures = pictures(peer);
    let sounds = sounds(peer);
    let video = reports(peer, Kind::Video);
    let audio = reports(peer, Kind::Audio);
    assert_ms(video[0].0 - connected, 0..=1_500);
    assert_ms(audio[0].0 - connected, 0..=1_500);
    // Live pictures and sounds that arrive together belong together.
    let tail = &pictures[pictures.len() - 25..];
    for (video, audio) in video.iter().zip(&audio) {
        for picture in tail {
            let sound = sounds
                .iter()
                .min_by_key(|sound| sound.at.max(picture.at) - sound.at.min(picture.at))
                .unwrap();
            let shown = ntp_seconds(video, picture.rtp_time, 90_000, epoch);
            let heard = ntp_seconds(audio, sound.rtp_time, 48_000, epoch);
            let apart =
                (picture.at - world.start).as_secs_f64() - (sound.at - world.start).as_secs_f64();
            // Sound leaves when a whole Opus frame of it is there.
            let skew = shown - heard - apart;
            assert!((-0.005..0.065).contains(&skew), "{skew}");
        }
    }
}

/// Case 37, measured on the sound itself: beeps that begin with known pictures.
fn lip_sync(composition_ms: i32) -> f64 {
    let beeps = super::audio_bridge::beeping_clip();
    let feed = beeps.map(move |(time, mut tag)| {
        if tag.type_id == VIDEO {
            let mut body = tag.payload.to_vec();
            body[2..5].copy_from_slice(&composition_ms.to_be_bytes()[1..]);
            tag.payload = body.into();
        }
        (time, tag)
    });
    let (world, viewer, _) = watch(feed, 2_100, 8_000);
    let peer = world.browser(viewer);
    let epoch = SystemTime::UNIX_EPOCH;
    let all = pictures(peer);
    let video = *reports(peer, Kind::Video).last().unwrap();
    let audio = *reports(peer, Kind::Audio).last().unwrap();
    let heard = sounds(peer);
    let pcm = decode_opus(&heard);
    let onsets = onsets(&pcm);
    assert!(onsets.len() >= 5, "{onsets:?}");
    // The first key frame was stamped with the time of its sending.
    let keys: Vec<f64> = all[1..]
        .iter()
        .filter(|p| p.is_key())
        .map(|p| ntp_seconds(&video, p.rtp_time, 90_000, epoch))
        .collect();
    assert!(keys.len() >= 3);
    // A beep begins with each key frame's time of decoding, and with each second in between.
    let skew_at = |key: &f64| {
        let decoded = key - f64::from(composition_ms) / 1e3;
        let onsets = onsets.iter().map(|at| heard[0].rtp_time + *at as u64);
        let skews = onsets.map(|at| ntp_seconds(&audio, at, 48_000, epoch) - decoded);
        skews.min_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap()
    };
    skew_at(&keys[1])
}

#[test]
fn case_37_lips_and_voice_agree() {
    let skew = lip_sync(0);
    assert!(skew.abs() < 0.02, "{skew}");
}

/// Case 31: an encoder that reserves a composition delay has pictures and sound in step all the
/// same.
#[test]
fn a_constant_composition_time_moves_no_lips() {
    for composition_ms in [80, 400] {
        let skew = lip_sync(composition_ms);
        assert!(skew.abs() < 0.02, "{composition_ms} ms: {skew}");
    }
}

#[test]
fn a_viewer_that_joins_on_a_key_frame_is_live_from_it() {
    let (world, viewer, connected) = watch(Clip::load().feed(), 1_985, 1_000);
    let all = pictures(world.browser(viewer));
    assert!(all[0].is_key());
    assert_ms(all[0].at - connected, 0..=60);
    assert!(all.len() >= 22, "{}", all.len());
}

/// More than may be caught up with: a still, repeated for a page that was not set up yet, then
/// nothing until the key frame, then live.
#[test]
fn a_viewer_of_a_long_group_sees_a_still_and_is_live_with_the_next_key_frame() {
    let (world, viewer, connected) = watch(Clip::load().feed().gop(200), 6_000, 4_000);
    let all = pictures(world.browser(viewer));
    assert!(all[..4].iter().all(|picture| picture.is_key()));
    assert_ms(all[0].at - connected, 0..=10);
    assert_ms(all[1].at - all[0].at, 195..=210);
    assert_ms(all[2].at - all[1].at, 595..=610);
    assert_ms(all[3].at - all[0].at, 1_800..=2_400);
    assert!(
        all[4..]
            .windows(2)
            .all(|pair| pair[1].rtp_time - pair[0].rtp_time == 3_600)
    );
}

/// A backlog that fits `fast_start_max` though it is longer than what a player may lag.
#[test]
fn a_backlog_longer_than_a_players_queue_is_still_sent_in_step() {
    let (world, viewer, connected) = watch(Clip::load().feed().gop(500), 3_700, 4_000);
    let all = pictures(world.browser(viewer));
    assert_ms(all[0].at - connected, 0..=10);
    let base = (all[0].at, all[0].rtp_time);
    for picture in &all {
        let sent = (picture.at - base.0).as_secs_f64();
        let stamp = (picture.rtp_time - base.1) as f64 / 90_000.0;
        assert!((sent - stamp).abs() < 0.002, "{sent} {stamp}");
    }
    let burst = all
        .iter()
        .filter(|p| p.at - connected < Duration::from_millis(20))
        .count();
    assert!(burst <= 6, "{burst} pictures at once");
}

#[test]
fn without_a_cache_a_viewer_waits_for_the_next_key_frame() {
    let mut config = Config::default();
    config.streams.gop_cache = GopCache::Off;
    let (world, viewer, connected) = watch_with(config, Clip::load().feed(), 3_000, 3_000);
    let all = pictures(world.browser(viewer));
    assert!(all[0].is_key());
    assert_ms(all[0].at - connected, 900..=1_050);
}

/// Case 33: 100 PLIs a second for a publisher that cannot be asked.
#[test]
fn a_storm_of_keyframe_requests_is_bounded_work() {
    let mut world = World::new();
    world.rtmp_publish("live/a");
    world.run_ms(2_500);
    let viewer = world.whep("live/a").expect("accepted");
    let quiet = world.whep("live/a").expect("accepted");
    world.run_ms(2_000);
    for _ in 0..500 {
        world.request_keyframe(viewer);
        world.run_ms(10);
    }
    let stormy = pictures(world.browser(viewer));
    let calm = pictures(world.browser(quiet));
    assert!(
        stormy.len() < calm.len() + 5 * 50,
        "{} {}",
        stormy.len(),
        calm.len()
    );
    let gap = stormy
        .windows(2)
        .map(|pair| pair[1].at - pair[0].at)
        .max()
        .unwrap();
    assert!(gap < Duration::from_millis(100), "{gap:?}");
    let keys = stormy.iter().filter(|p| p.is_key()).count();
    assert!((4..=12).contains(&keys), "{keys}");
}

/// Chromium sends its PLI some time after a loss: the cached group mends it at once.
#[test]
fn a_keyframe_request_is_answered_from_the_cache_in_step() {
    let mut world = World::new();
    world.rtmp_publish_feed("live/a", Clip::load().feed().gop(250));
    world.run_ms(300);
    let viewer = world.whep("live/a").expect("accepted");
    world.run_ms(2_000);
    let asked = world.now;
    world.request_keyframe(viewer);
    world.run_ms(3_000);
    let all = pictures(world.browser(viewer));
    let key = all
        .iter()
        .find(|p| p.at > asked && p.is_key())
        .expect("a key frame");
    assert_ms(key.at - asked, 0..=10);
    let base = (key.at, key.rtp_time);
    for picture in all.iter().filter(|p| p.at >= key.at) {
        let sent = (picture.at - base.0).as_secs_f64();
        let stamp = (picture.rtp_time - base.1) as f64 / 90_000.0;
        assert!((sent - stamp).abs() < 0.002, "{sent} {stamp}");
    }
    assert!(world.now - all.last().unwrap().at < Duration::from_millis(45));
}

#[test]
fn sound_alone_and_pictures_alone_play() {
    for kind in [VIDEO, AUDIO] {
        let (world, viewer, connected) = watch(Clip::load().feed().only(kind), 2_500, 2_000);
        let peer = world.browser(viewer);
        let (pictures, sounds) = (pictures(peer), sounds(peer));
        assert_eq!(pictures.is_empty(), kind == AUDIO);
        assert_eq!(sounds.is_empty(), kind == VIDEO);
        let first = pictures
            .first()
            .map(|p| p.at)
            .or(sounds.first().map(|s| s.at))
            .unwrap();
        assert_ms(first - connected, 0..=60);
    }
}

/// Case 66.
#[test]
fn an_absent_stream_is_refused_with_a_time_to_come_again_and_accepted_then() {
    let mut world = World::new();
    let refused = world.whep("live/a").expect_err("absent");
    assert_eq!(refused.status, 409);
    assert_eq!(refused.header("Retry-After"), Some("1"));
    world.rtmp_publish("live/a");
    world.run_ms(500);
    let viewer = world.whep("live/a").expect("accepted");
    world.run_ms(500);
    assert!(!pictures(world.browser(viewer)).is_empty());
}

/// A player that waits over RTMP makes the stream known, but not live.
#[test]
fn a_stream_that_is_only_waited_for_is_absent_for_viewers() {
    let mut world = World::new();
    world.rtmp_play("live/a");
    world.run_ms(100);
    assert_eq!(world.whep("live/a").expect_err("absent").status, 409);
}

/// Cases 60 and 63.
#[test]
fn a_session_is_deleted_once() {
    let mut world = World::new();
    world.rtmp_publish("live/a");
    world.run_ms(500);
    let viewer = world.whep("live/a").expect("accepted");
    world.run_ms(500);
    let session = world.browser(viewer).session.clone();
    assert!(session.starts_with("/session/"), "{session}");
    let deleted = world.http("DELETE", &session, &[("If-Match", "\"nonsense\"")], "");
    assert_eq!(deleted.status, 200);
    world.run_ms(100);
    let closed = world.first_seen(viewer, world.start, |seen| matches!(seen, Seen::Closed));
    assert!(closed.is_some(), "DTLS says so too");
    assert_eq!(world.http("DELETE", &session, &[], "").status, 404);
    assert_eq!(world.stream("live/a").unwrap()["players"]["whep"], 0);
    let count = world.browser(viewer).seen.len();
    world.run_ms(500);
    assert_eq!(
        world.browser(viewer).seen.len(),
        count,
        "no media after the end"
    );
}

#[test]
fn viewers_are_kept_for_the_grace_after_the_end_and_then_closed() {
    let mut world = World::new();
    let publisher = world.rtmp_publish("live/a");
    world.run_ms(500);
    let viewer = world.whep("live/a").expect("accepted");
    world.run_ms(1_000);
    let ended = world.now;
    world.rtmp_stop(publisher);
    world.run_ms(14_900);
    let is_closed = |seen: &Seen| matches!(seen, Seen::Closed);
    assert_eq!(world.first_seen(viewer, ended, is_closed), None);
    world.run_ms(300);
    let closed = world.first_seen(viewer, ended, is_closed).expect("closed");
    assert_ms(closed, 15_000..=15_050);
    assert_eq!(
        world.metric("rtmp_gateway_webrtc_sessions{role=\"viewer\"}"),
        0.0
    );
    assert_eq!(world.metric("rtmp_gateway_streams"), 0.0);
}

/// Case 35 and 48: the clock of the sound is that of the samples, whatever RTMP's milliseconds do.
#[test]
fn ten_minutes_of_sound_have_no_gap_and_no_drift() {
    let (world, viewer, connected) = watch(Clip::load().feed().only(AUDIO), 500, 600_000);
    let all = sounds(world.browser(viewer));
    assert!(
        all.windows(2)
            .all(|pair| pair[1].rtp_time - pair[0].rtp_time == 960)
    );
    let expected = (world.now - connected).as_secs_f64() * 50.0;
    assert!(
        (all.len() as f64 - expected).abs() <= 3.0,
        "{} {expected}",
        all.len()
    );
}

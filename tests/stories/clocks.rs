//! Clocks that wrap and disagree; `drift` has those that run apart.

use std::time::{Duration, Instant};

use crate::common::browser::{BrowserConfig, Does, Kind};
use crate::common::clip::{AUDIO, VIDEO};
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

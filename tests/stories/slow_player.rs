//! A player that does not keep up costs itself pictures and nobody else anything.

use crate::common::clip::{AUDIO, Clip, VIDEO};
use crate::common::watch::assert_ms;
use crate::common::world::{World, coded};

/// Stops reading for `stall_ms`, then reads on; answers the times of the pictures it got.
fn stall(gop: u64, stall_ms: u64) -> (World, rtmp_gateway::gateway::ConnId, usize) {
    let mut world = World::new();
    world.rtmp_publish_feed("live/a", Clip::load().feed().gop(gop));
    let steady = world.rtmp_play("live/a");
    let slow = world.rtmp_play("live/a");
    world.run_ms(2_000);
    world.rtmp_reads(slow, Some(0));
    world.run_ms(stall_ms);
    let before = coded(world.rtmp_peer(slow), VIDEO).len();
    let resumed = world.now;
    world.rtmp_reads(slow, None);
    world.run_ms(3_000);
    // The others saw nothing of it.
    let video = coded(world.rtmp_peer(steady), VIDEO);
    assert!(video.windows(2).all(|pair| pair[1].1 - pair[0].1 == 40));
    assert!(
        video
            .windows(2)
            .all(|pair| pair[1].0 - pair[0].0 < std::time::Duration::from_millis(60))
    );
    // Live again within two seconds.
    let video = coded(world.rtmp_peer(slow), VIDEO);
    let live = |at: std::time::Instant| (at - world.start).as_millis() as i64;
    let back = video[before..]
        .iter()
        .find(|(at, time, _)| live(*at) - i64::from(*time) < 100)
        .expect("live again");
    assert_ms(back.0 - resumed, 0..=2_000);
    (world, slow, before)
}

#[test]
fn a_short_stall_loses_nothing() {
    let (world, slow, _) = stall(50, 2_000);
    for kind in [VIDEO, AUDIO] {
        let got = coded(world.rtmp_peer(slow), kind);
        assert!(
            got.windows(2).all(|pair| pair[1].1 - pair[0].1 <= 48),
            "kind {kind}"
        );
    }
}

#[test]
fn a_long_stall_is_skipped_to_a_key_frame() {
    let (mut world, slow, _) = stall(50, 20_000);
    let video = coded(world.rtmp_peer(slow), VIDEO);
    let skips: Vec<_> = video
        .windows(2)
        .filter(|pair| pair[1].1 - pair[0].1 != 40)
        .collect();
    assert_eq!(skips.len(), 1, "one skip");
    assert_eq!(skips[0][1].2[0], 0x17, "to a key frame");
    let audio = coded(world.rtmp_peer(slow), AUDIO);
    assert!(audio.windows(2).all(|pair| pair[0].1 < pair[1].1));
    let stream = world.stream("live/a").unwrap();
    let list = stream["player_list"].as_array().unwrap();
    let skips: u64 = list
        .iter()
        .map(|player| player["skips"].as_u64().unwrap())
        .sum();
    assert!(skips >= 1, "{stream}");
}

/// The newest key frame lies further back than a player may lag.
#[test]
fn a_stall_in_a_long_group_of_pictures_never_goes_back() {
    let (world, slow, _) = stall(250, 14_000);
    for kind in [VIDEO, AUDIO] {
        let got = coded(world.rtmp_peer(slow), kind);
        assert!(
            got.windows(2).all(|pair| pair[0].1 < pair[1].1),
            "kind {kind}"
        );
    }
}

#[test]
fn a_player_slower_than_the_stream_gets_whole_groups_and_does_not_grow() {
    let mut world = World::new();
    world.rtmp_publish("live/a");
    let slow = world.rtmp_play("live/a");
    world.rtmp_reads(slow, Some(15_000));
    for _ in 0..30 {
        world.run_ms(1_000);
        let stream = world.stream("live/a").unwrap();
        let queued = stream["player_list"][0]["queued_bytes"].as_u64().unwrap();
        assert!(queued < 600_000, "{queued}");
        assert!(stream["cache"]["bytes"].as_u64().unwrap() < 2_000_000);
    }
    let video = coded(world.rtmp_peer(slow), VIDEO);
    assert!(!video.is_empty());
    for pair in video.windows(2) {
        assert!(pair[1].1 > pair[0].1);
        assert!(
            pair[1].1 - pair[0].1 == 40 || pair[1].2[0] == 0x17,
            "a skip ends at a key frame"
        );
    }
}

#[test]
fn a_player_that_never_reads_again_is_let_go() {
    let mut world = World::new();
    world.rtmp_publish("live/a");
    let dead = world.rtmp_play("live/a");
    world.run_ms(2_000);
    world.rtmp_reads(dead, Some(0));
    world.run_ms(120_000);
    assert!(world.rtmp_peer(dead).closed_at.is_some());
    assert_eq!(world.stream("live/a").unwrap()["players"]["rtmp"], 0);
}

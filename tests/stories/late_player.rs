//! Players that come late get a picture at once.

use std::time::Duration;

use rtmp_gateway::config::{Config, GopCache};

use crate::common::clip::{AUDIO, Clip, VIDEO};
use crate::common::watch::assert_ms;
use crate::common::world::{World, coded, media};

#[test]
fn a_late_player_starts_with_headers_and_an_idr_at_once() {
    let mut world = World::new();
    world.rtmp_publish("live/a");
    world.run_ms(3_000);
    let joined = world.now;
    let player = world.rtmp_play("live/a");
    world.run_ms(500);
    let video = media(world.rtmp_peer(player), VIDEO);
    assert_eq!(video[0].2[..2], [0x17, 0x00], "sequence header first");
    assert_eq!(video[1].2[..2], [0x17, 0x01], "then a key frame");
    assert_ms(video[1].0 - joined, 0..=20);
    // The clip's group of pictures began one second before.
    assert!(video.len() > 25, "{}", video.len());
    let audio = media(world.rtmp_peer(player), AUDIO);
    assert_eq!(audio[0].2[..2], [0xaf, 0x00]);
    assert!(audio.windows(2).all(|pair| pair[0].1 <= pair[1].1));
    assert!(video.windows(2).all(|pair| pair[0].1 <= pair[1].1));
}

/// A group of pictures longer than what a player may lag, and larger than what its connection takes
/// at once.
#[test]
fn a_late_player_of_a_long_group_gets_each_frame_once() {
    let mut world = World::new();
    world.rtmp_publish_feed("live/a", Clip::load().feed().gop(500));
    world.run_ms(8_000);
    let player = world.rtmp_play("live/a");
    world.run_ms(1_000);
    for kind in [VIDEO, AUDIO] {
        let got = coded(world.rtmp_peer(player), kind);
        let times: Vec<u32> = got.iter().map(|(_, time, _)| *time).collect();
        assert!(
            times.windows(2).all(|pair| pair[0] < pair[1]),
            "kind {kind}: {times:?}"
        );
        assert!(*times.last().unwrap() > 8_900, "live: {:?}", times.last());
    }
    let stream = world.stream("live/a").expect("a stream");
    assert_eq!(stream["player_list"][0]["skips"], 0);
}

/// The same on a connection that is slower than the burst and faster than the stream.
#[test]
fn a_late_player_of_a_long_group_on_a_slow_connection_is_not_sent_round_in_circles() {
    let mut world = World::new();
    world.rtmp_publish_feed("live/a", Clip::load().feed().gop(250));
    world.run_ms(8_000);
    let player = world.rtmp_play("live/a");
    world.rtmp_reads(player, Some(150_000));
    world.run_ms(12_000);
    for kind in [VIDEO, AUDIO] {
        let got = coded(world.rtmp_peer(player), kind);
        let times: Vec<u32> = got.iter().map(|(_, time, _)| *time).collect();
        assert!(
            times.windows(2).all(|pair| pair[0] < pair[1]),
            "kind {kind}: {times:?}"
        );
        assert!(*times.last().unwrap() > 18_500, "live: {:?}", times.last());
    }
}

#[test]
fn with_gop_cache_idr_a_still_comes_first_and_the_rest_from_the_next_key_frame() {
    let mut config = Config::default();
    config.streams.gop_cache = GopCache::Idr;
    let mut world = World::with_config(config);
    world.rtmp_publish("live/a");
    world.run_ms(3_000);
    let joined = world.now;
    let player = world.rtmp_play("live/a");
    world.run_ms(2_000);
    let video = coded(world.rtmp_peer(player), VIDEO);
    assert_ms(video[0].0 - joined, 0..=20);
    assert_eq!(video[0].2[0], 0x17);
    assert_eq!(video[1].2[0], 0x17, "nothing in between");
    assert_eq!(video[1].1 - video[0].1, 2_000);
    assert_eq!(video[2].2[0], 0x27);
}

#[test]
fn with_gop_cache_off_a_player_waits_for_the_next_key_frame() {
    let mut config = Config::default();
    config.streams.gop_cache = GopCache::Off;
    let mut world = World::with_config(config);
    world.rtmp_publish("live/a");
    world.run_ms(3_000);
    let joined = world.now;
    let player = world.rtmp_play("live/a");
    world.run_ms(2_000);
    let video = coded(world.rtmp_peer(player), VIDEO);
    assert_eq!(video[0].2[0], 0x17);
    assert_ms(video[0].0 - joined, 950..=1_050);
}

#[test]
fn a_player_of_sound_alone_hears_it_at_once() {
    let mut world = World::new();
    world.rtmp_publish_feed("live/a", Clip::load().feed().only(AUDIO));
    world.run_ms(3_000);
    let joined = world.now;
    let player = world.rtmp_play("live/a");
    world.run_ms(500);
    let audio = media(world.rtmp_peer(player), AUDIO);
    assert_eq!(audio[0].2[..2], [0xaf, 0]);
    assert_ms(audio[1].0 - joined, 0..=50);
    assert!(media(world.rtmp_peer(player), VIDEO).is_empty());
}

#[test]
fn many_players_of_one_stream_get_the_same() {
    let mut world = World::new();
    world.rtmp_publish("live/a");
    world.run_ms(1_500);
    let players: Vec<_> = (0..60)
        .map(|_| {
            world.run_for(Duration::from_millis(7));
            world.rtmp_play("live/a")
        })
        .collect();
    world.run_ms(2_000);
    let of = |world: &World, player| -> Vec<(u32, usize)> {
        let all = coded(world.rtmp_peer(player), VIDEO).into_iter();
        all.map(|(_, time, body)| (time, body.len())).collect()
    };
    let first = of(&world, players[0]);
    for player in &players[1..] {
        let got = of(&world, *player);
        let from = first.iter().position(|frame| *frame == got[0]);
        assert_eq!(
            first[from.expect("a frame of the first")..],
            got,
            "{player:?}"
        );
    }
}

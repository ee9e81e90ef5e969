//! Many RTMP players of one stream: what each costs the others, and when each gets what.

use std::time::{Duration, Instant};

use rtmp_gateway::config::{Config, Merge};
use rtmp_gateway::gateway::ConnId;

use crate::common::clip::{AUDIO, Clip, VIDEO};
use crate::common::watch::assert_ms;
use crate::common::world::{World, coded, media};

/// When a player got each picture and sound, with the timestamps.
fn arrivals(world: &World, player: ConnId) -> Vec<(Duration, u32)> {
    let peer = world.rtmp_peer(player);
    let both = [media(peer, VIDEO), media(peer, AUDIO)].concat();
    let mut all: Vec<_> = both
        .into_iter()
        .map(|(at, timestamp, _)| (at - world.start, timestamp))
        .collect();
    all.sort();
    all
}

/// How long after its timestamp's time each message came, but for what came with the join.
fn delays(world: &World, player: ConnId, since: Instant) -> Vec<i64> {
    let since = (since - world.start).as_millis() as i64;
    arrivals(world, player)
        .into_iter()
        .map(|(at, timestamp)| (at.as_millis() as i64, i64::from(timestamp)))
        .filter(|(_, timestamp)| *timestamp > since)
        .map(|(at, timestamp)| at - timestamp)
        .collect()
}

#[test]
fn a_hundred_players_that_stop_reading_delay_nobody_by_a_microsecond() {
    let mut runs = Vec::new();
    for stops in [false, true] {
        let mut world = World::new();
        world.rtmp_publish("live/a");
        let steady: Vec<ConnId> = (0..10).map(|_| world.rtmp_play("live/a")).collect();
        let others: Vec<ConnId> = (0..100).map(|_| world.rtmp_play("live/a")).collect();
        world.run_ms(1_000);
        if stops {
            for player in &others {
                world.rtmp_reads(*player, Some(0));
            }
        }
        world.run_ms(4_000);
        let got: Vec<_> = steady.iter().map(|p| arrivals(&world, *p)).collect();
        assert!(got[0].len() > 200, "{}", got[0].len());
        runs.push(got);
    }
    assert_eq!(runs[0], runs[1], "the others' messages and their times");
}

/// As many messages as a second's storm of joins makes, with the cached pictures of each.
#[test]
fn a_thousand_players_that_join_in_a_second_delay_nobody() {
    let mut world = World::new();
    world.rtmp_publish_feed("live/a", Clip::small().feed().gop(25));
    let present: Vec<ConnId> = (0..5).map(|_| world.rtmp_play("live/a")).collect();
    world.run_ms(1_000);
    let storm = world.now;
    let mut joined = Vec::new();
    for _ in 0..1_000 {
        joined.push((world.now, world.rtmp_play("live/a")));
        world.run_ms(1);
    }
    world.run_ms(200);
    for player in present {
        let late = delays(&world, player, storm).into_iter().max();
        assert!(late.is_some_and(|late| late <= 30), "{late:?} ms");
        let video = coded(world.rtmp_peer(player), VIDEO);
        assert!(video.windows(2).all(|pair| pair[1].1 - pair[0].1 == 40));
    }
    for (at, player) in joined {
        let video = media(world.rtmp_peer(player), VIDEO);
        assert_eq!(video[0].2[..2], [0x17, 0], "a header first");
        assert_eq!(video[1].2[..2], [0x17, 1], "then a key frame");
        // Three trips for the handshake, connect, createStream and play, no wait of ours.
        assert_ms(video[1].0 - at, 0..=12);
    }
    let most = world.most_transmits;
    assert!(
        (20..=64).contains(&most),
        "{most} connections were written to between two looks at the sockets"
    );
}

#[test]
fn few_players_get_each_message_in_the_turn_it_came_in() {
    let mut world = World::new();
    world.rtmp_publish("live/a");
    let players: Vec<ConnId> = (0..20).map(|_| world.rtmp_play("live/a")).collect();
    world.run_ms(500);
    let since = world.now;
    world.run_ms(3_000);
    let first = delays(&world, players[0], since);
    assert!(first.len() > 200);
    // The way there, the way on, and what the publisher's handshake took.
    let least = first.iter().min().expect("messages");
    assert!(first.iter().all(|delay| delay - least <= 1), "{first:?}");
    for player in players {
        assert_eq!(delays(&world, player, since), first);
    }
}

#[test]
fn messages_are_gathered_for_as_long_as_configured_and_no_longer() {
    let mut config = Config::default();
    config.rtmp.merge = Merge::Fixed(Duration::from_millis(350));
    let mut world = World::with_config(config);
    let early = world.rtmp_play("live/a");
    world.run_ms(100);
    let began = world.now;
    world.rtmp_publish("live/a");
    world.run_ms(2_010);
    let joined = world.now;
    let late = world.rtmp_play("live/a");
    world.run_ms(3_000);
    // Who waits for the stream or joins it has a picture at once.
    for (player, since) in [(early, began), (late, joined)] {
        let video = coded(world.rtmp_peer(player), VIDEO);
        assert_ms(video[0].0 - since, 0..=20);
        assert_eq!(video[0].2[0], 0x17);
    }
    let settled = joined + Duration::from_millis(500);
    for player in [early, late] {
        let delays = delays(&world, player, settled);
        let (least, most) = (delays.iter().min(), delays.iter().max());
        let span = most.expect("messages") - least.expect("messages");
        assert!((300..=351).contains(&span), "{span} ms");
        let mut writes: Vec<Duration> = arrivals(&world, player)
            .into_iter()
            .map(|(at, _)| at)
            .filter(|at| world.start + *at > settled)
            .collect();
        writes.dedup();
        assert!((6..=8).contains(&writes.len()), "{} in 2.5 s", writes.len());
        let video = coded(world.rtmp_peer(player), VIDEO);
        assert!(video.windows(2).all(|pair| pair[1].1 - pair[0].1 == 40));
    }
}

/// `player_queue_bytes_max` bounds each player, whatever the media time is.
#[test]
fn a_player_too_many_bytes_behind_goes_on_at_a_key_frame() {
    let mut config = Config::default();
    config.streams.player_queue_bytes_max = 100_000;
    config.streams.player_queue_duration_max = Duration::from_secs(20);
    let mut world = World::with_config(config);
    world.rtmp_publish_feed("live/a", Clip::load().feed().gop(50));
    let steady = world.rtmp_play("live/a");
    let slow = world.rtmp_play("live/a");
    world.run_ms(3_000);
    world.rtmp_reads(slow, Some(0));
    world.run_ms(6_000);
    world.rtmp_reads(slow, None);
    world.run_ms(3_000);
    let video = coded(world.rtmp_peer(slow), VIDEO);
    let skips: Vec<_> = video
        .windows(2)
        .filter(|pair| pair[1].1 - pair[0].1 != 40)
        .collect();
    assert_eq!(skips.len(), 1, "one skip");
    assert_eq!(skips[0][1].2[0], 0x17, "to a key frame");
    let audio = coded(world.rtmp_peer(slow), AUDIO);
    assert!(audio.windows(2).all(|pair| pair[0].1 < pair[1].1));
    let video = coded(world.rtmp_peer(steady), VIDEO);
    assert!(video.windows(2).all(|pair| pair[1].1 - pair[0].1 == 40));
}

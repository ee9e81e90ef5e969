//! Growing delay is impossible: whatever stalls, players are back at the live edge within two
//! seconds, and what is held meanwhile is bounded and told.

use std::time::{Duration, Instant};

use crate::common::browser::{Kind, Seen};
use crate::common::clip::{AUDIO, Clip, Feed, VIDEO};
use crate::common::world::{Link, World, coded};

/// What a viewer got of a track: arrival and RTP time.
fn got(world: &World, viewer: usize, wanted: Kind) -> Vec<(Instant, u64)> {
    let seen = world.browser(viewer).seen.iter();
    seen.filter_map(|(at, seen)| match seen {
        Seen::Rtp {
            kind,
            rtp_time,
            marker,
            ..
        } if *kind == wanted && (*marker || wanted == Kind::Audio) => Some((*at, *rtp_time)),
        _ => None,
    })
    .collect()
}

/// After `from` everything comes, and none of it later than `late_max` beyond the least delayed.
#[track_caller]
fn assert_live(all: &[(Instant, u64)], rate_hz: f64, step: u64, from: Instant, late_max: f64) {
    let (origin, first) = all[0];
    let offset = |(at, time): &(Instant, u64)| {
        (*at - origin).as_secs_f64() - (*time as f64 - first as f64) / rate_hz
    };
    let least = all.iter().map(offset).fold(f64::MAX, f64::min);
    let after: Vec<_> = all.iter().filter(|(at, _)| *at >= from).copied().collect();
    assert!(after.len() > 20, "{} after the stall", after.len());
    for pair in after.windows(2) {
        assert!(pair[1].1 - pair[0].1 <= step, "a gap after the stall");
    }
    for one in &after {
        let late = offset(one) - least;
        assert!(late < late_max, "late by {late} s");
    }
}

/// The publisher's network hangs for five seconds, then it sends them all at once.
#[test]
fn a_publisher_that_stalls_and_sends_all_at_once_leaves_viewers_live_and_players_whole() {
    for stall_ms in [1_500, 5_000, 7_000] {
        let mut world = World::new();
        let publisher = world.rtmp_publish("live/a");
        let player = world.rtmp_play("live/a");
        world.run_ms(2_500);
        let viewer = world.whep("live/a").expect("accepted");
        world.run_ms(4_000);
        world.rtmp_stalls(publisher, stall_ms);
        world.run_ms(stall_ms);
        let over = world.now;
        world.run_ms(6_000);
        // RTMP players have buffers of their own: they get all of it.
        for (kind, step) in [(VIDEO, 40), (AUDIO, 24)] {
            let all = coded(world.rtmp_peer(player), kind);
            // But for what is more than a player may be behind.
            let is_long = stall_ms >= 5_000;
            let is_fine = |pair: &[(Instant, u32, bytes::Bytes)]| {
                let skips = kind == AUDIO || pair[1].2[0] == 0x17;
                pair[1].1 - pair[0].1 <= step || (is_long && skips)
            };
            assert!(all.windows(2).all(is_fine), "{stall_ms}: kind {kind}");
        }
        let from = over + Duration::from_secs(2);
        let pictures = got(&world, viewer, Kind::Video);
        assert_live(&pictures, 90_000.0, 3_600, from, 0.1);
        let sounds = got(&world, viewer, Kind::Audio);
        assert_live(&sounds, 48_000.0, 960, from, 0.15);
        // The five seconds are not sent into the viewer's buffers.
        let at_once = sounds
            .iter()
            .filter(|(at, _)| (over..over + Duration::from_millis(100)).contains(at))
            .count();
        assert!(at_once <= 60, "{stall_ms}: {at_once} sounds at once");
    }
}

/// A viewer that heard nothing for five seconds.
#[test]
fn a_viewer_whose_network_was_dead_is_live_again_within_two_seconds() {
    let mut world = World::new().seed(3);
    world.rtmp_publish("live/a");
    world.run_ms(2_500);
    let viewer = world.whep("live/a").expect("accepted");
    world.run_ms(4_000);
    world.browser_mut(viewer).down = Some(Link {
        loss_permille: 1_000,
        ..Link::default()
    });
    world.run_ms(5_000);
    world.browser_mut(viewer).down = None;
    let over = world.now;
    world.run_ms(9_000);
    let from = over + Duration::from_secs(2);
    assert_live(&got(&world, viewer, Kind::Audio), 48_000.0, 960, from, 0.1);
    let pictures = got(&world, viewer, Kind::Video);
    assert_live(&pictures, 90_000.0, 3_600, from, 0.1);
}

/// Workers that take three times too long for five seconds.
#[test]
fn late_workers_delay_sound_by_less_than_a_second_and_then_not_at_all() {
    let mut world = World::new();
    world.rtmp_publish("live/a");
    world.run_ms(2_500);
    let viewer = world.whep("live/a").expect("accepted");
    world.run_ms(4_000);
    world.worker_delay = Duration::from_millis(60);
    let mut most = 0;
    for _ in 0..10 {
        world.run_ms(500);
        let stream = world.stream("live/a").unwrap();
        most = most.max(stream["held"]["transcode_ms"].as_u64().unwrap());
    }
    assert!(most <= 64 * 20, "{most}");
    let stream = world.stream("live/a").unwrap();
    assert!(
        stream["warnings"].to_string().contains("transcode_late"),
        "{stream}"
    );
    world.worker_delay = Duration::ZERO;
    let over = world.now;
    world.run_ms(8_000);
    let sounds = got(&world, viewer, Kind::Audio);
    // A queue of 64 jobs at 60 ms each is still in the workers' hands when they are quick again.
    assert_live(&sounds, 48_000.0, 960, over + Duration::from_secs(5), 0.15);
    // The picture saw nothing of it.
    let pictures = got(&world, viewer, Kind::Video);
    let start = over - Duration::from_secs(5);
    assert_live(&pictures, 90_000.0, 3_600, start, 0.1);
}

/// What waits on the way in is bounded by the waits that the API tells.
#[test]
fn a_lossy_publisher_holds_no_more_than_its_waits() {
    let mut world = World::new().seed(4);
    world.rtmp_play("live/a");
    world.whip("live/a").expect("accepted");
    world.run_ms(3_000);
    world.link.loss_permille = 100;
    world.link.delay = Duration::from_millis(50);
    for _ in 0..200 {
        world.run_ms(50);
        let stream = world.stream("live/a").unwrap();
        let held = stream["held"]["ingest_ms"].as_u64().unwrap();
        let rtp = &stream["publisher"]["ingest"]["rtp"];
        let wait = rtp["picture_wait_ms"].as_u64().unwrap();
        assert!(wait <= 500, "{rtp}");
        assert!(rtp["sound_wait_ms"].as_u64().unwrap() <= 120, "{rtp}");
        // Holes that follow one another each have their own wait.
        assert!(held <= 2 * wait + 50, "{held} of {wait}");
    }
}

/// The clip over a path that is dead from `from_ms` for `dead_ms`, and then carries `percent` of the
/// stream's rate until all is there.
fn held_back(from_ms: u64, dead_ms: u64, percent: u64) -> Feed {
    let due = move |time: u64| {
        let after = time.saturating_sub(from_ms);
        match time >= from_ms {
            true => time.max(from_ms + dead_ms + after * 100 / percent),
            false => time,
        }
    };
    let feed = Clip::load().feed().map(move |(time, mut tag)| {
        tag.timestamp = time as u32;
        (due(time), tag)
    });
    feed.own_timestamps()
}

/// A publisher's network is dead for three seconds, and then brings what waited quickly, or hardly
/// quicker than it was made. A browser must not take this for a bad network of its own: what
/// it gets is never late against its stamps, and sound and picture stay together.
#[test]
fn what_a_publisher_held_back_is_live_by_its_stamps() {
    for percent in [5_000, 400, 180, 130] {
        let mut world = World::new();
        world.rtmp_publish_feed("live/a", held_back(6_500, 3_000, percent));
        world.run_ms(2_500);
        let viewer = world.whep("live/a").expect("accepted");
        world.run_ms(7_000);
        let over = world.now;
        world.run_ms(20_000);
        let mut late: Vec<Vec<(Instant, f64)>> = Vec::new();
        for (kind, rate) in [(Kind::Video, 90_000.0), (Kind::Audio, 48_000.0)] {
            let all = got(&world, viewer, kind);
            let (origin, first) = all[0];
            let offset = |(at, time): &(Instant, u64)| {
                (*at - origin).as_secs_f64() - (*time as f64 - first as f64) / rate
            };
            let least = all.iter().map(offset).fold(f64::MAX, f64::min);
            let after: Vec<_> = all.iter().filter(|(at, _)| *at >= over).collect();
            late.push(
                after
                    .iter()
                    .map(|one| (one.0, offset(one) - least))
                    .collect(),
            );
        }
        // Before this, pictures and sound were three seconds late, and as long as the backlog took.
        let [pictures, sounds] = &late[..] else {
            unreachable!("two tracks");
        };
        for (at, late) in pictures.iter().chain(sounds) {
            let after = at.duration_since(over);
            assert!(*late < 0.1, "{percent}: {late} s late {after:?} after");
        }
        let mut apart = 0.0_f64;
        for (at, late) in pictures {
            let near = sounds.iter().rfind(|(sound, _)| sound <= at);
            if let Some((_, sound)) = near {
                apart = apart.max((late - sound).abs());
            }
        }
        assert!(
            apart <= 0.06,
            "{percent}: sound and picture {apart} s apart"
        );
    }
}

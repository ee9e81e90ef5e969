//! RTMP to RTMP: what a publisher sends is what players get, from play to end.

use std::time::Duration;

use rtmp_gateway::config::Config;
use rtmp_gateway::rtmp::client::Event;
use rtmp_gateway::rtmp::flv::Tag;

use crate::common::clip::{AUDIO, Clip, VIDEO};
use crate::common::watch::assert_ms;
use crate::common::world::{World, coded, media};

#[test]
fn what_players_get_is_what_was_published_byte_by_byte() {
    let mut world = World::new();
    let player = world.rtmp_play("live/a");
    world.run_ms(50);
    world.rtmp_publish("live/a");
    world.run_ms(5_000);
    let clip = Clip::load();
    let units = clip.access_units();
    let peer = world.rtmp_peer(player);
    let video = coded(peer, VIDEO);
    assert!(video.len() > 120, "{}", video.len());
    for (index, (_, _, body)) in video.iter().enumerate() {
        assert_eq!(
            body[5..],
            units[index % units.len()].payload,
            "picture {index}"
        );
    }
    let sent = clip.frames().filter(|(_, tag)| tag.type_id == AUDIO);
    let audio = coded(peer, AUDIO);
    assert!(audio.len() > 200, "{}", audio.len());
    for (index, ((_, _, got), (_, sent))) in audio.iter().zip(sent).enumerate() {
        assert_eq!(got[2..], sent.payload[2..], "sound {index}");
    }
}

#[test]
fn timestamps_keep_the_publishers_distances() {
    let mut world = World::new();
    let player = world.rtmp_play("live/a");
    world.run_ms(50);
    world.rtmp_publish("live/a");
    world.run_ms(4_000);
    let clip = Clip::load();
    for kind in [VIDEO, AUDIO] {
        let got = coded(world.rtmp_peer(player), kind);
        let sent = clip.frames().filter(|(_, tag)| tag.type_id == kind);
        for ((_, timestamp, _), (time, _)) in got.iter().zip(sent) {
            assert_eq!(u64::from(*timestamp), time, "kind {kind}");
        }
    }
}

/// Case 22: a player that comes first is held and told when its publisher comes.
#[test]
fn a_player_that_came_first_is_told_and_served() {
    let mut world = World::new();
    let player = world.rtmp_play("live/a");
    world.run_ms(10_000);
    assert!(world.rtmp_peer(player).closed_at.is_none());
    assert!(media(world.rtmp_peer(player), VIDEO).is_empty());
    world.rtmp_publish("live/a");
    world.run_ms(1_000);
    let peer = world.rtmp_peer(player);
    let statuses = peer.statuses();
    let place = |code: &str| statuses.iter().position(|status| *status == code);
    let notified = place("NetStream.Play.PublishNotify").expect("told");
    let started = place("NetStream.Play.Start").expect("started");
    assert!(
        started < notified || notified < statuses.len(),
        "{statuses:?}"
    );
    let video = media(peer, VIDEO);
    assert_eq!(video[0].2[..2], [0x17, 0], "a header first");
    assert_eq!(video[1].2[..2], [0x17, 1], "then a key frame");
    assert!(video.len() > 20, "{}", video.len());
}

/// Case 22: nobody published in time.
#[test]
fn a_player_that_waited_in_vain_is_told_stream_not_found_and_nothing_is_left() {
    let mut world = World::new();
    let began = world.now;
    let player = world.rtmp_play("live/a");
    world.run_ms(31_000);
    let peer = world.rtmp_peer(player);
    let told = peer
        .status_at("NetStream.Play.StreamNotFound")
        .expect("told");
    assert_ms(told - began, 30_000..=30_050);
    assert_eq!(world.streams()["streams"].as_array().unwrap().len(), 0);
    world.rtmp_kill(player);
    world.run_ms(100);
    assert_eq!(world.metric("rtmp_gateway_connections{kind=\"rtmp\"}"), 0.0);
    assert_eq!(world.metric("rtmp_gateway_streams"), 0.0);
}

#[test]
fn without_a_wait_an_absent_stream_is_not_found_at_once() {
    let mut config = Config::default();
    config.rtmp.play_wait = Duration::ZERO;
    let mut world = World::with_config(config);
    let player = world.rtmp_play("live/a");
    world.run_ms(100);
    let statuses = world.rtmp_peer(player).statuses();
    assert!(
        statuses.contains(&"NetStream.Play.StreamNotFound"),
        "{statuses:?}"
    );
    assert_eq!(world.metric("rtmp_gateway_streams"), 0.0);
}

#[test]
fn the_end_of_a_stream_is_told_at_once_and_players_are_let_go_after_the_grace() {
    let mut world = World::new();
    let publisher = world.rtmp_publish("live/a");
    world.run_ms(1_000);
    let player = world.rtmp_play("live/a");
    world.run_ms(1_000);
    let ended = world.now;
    world.rtmp_stop(publisher);
    world.run_ms(100);
    let peer = world.rtmp_peer(player);
    let told = peer
        .status_at("NetStream.Play.UnpublishNotify")
        .expect("told");
    assert_ms(told - ended, 0..=10);
    world.run_ms(16_000);
    let closed = world.rtmp_peer(player).closed_at.expect("let go");
    assert_ms(closed - ended, 14_990..=15_050);
    assert_eq!(world.metric("rtmp_gateway_streams"), 0.0);
}

#[test]
fn a_pause_within_a_group_of_pictures_repeats_and_skips_nothing() {
    let mut world = World::new();
    world.rtmp_publish_feed("live/a", Clip::load().feed().gop(200));
    world.run_ms(500);
    let player = world.rtmp_play("live/a");
    world.run_ms(1_500);
    world.rtmp_call(player, "pause", true);
    world.run_ms(300);
    let paused = coded(world.rtmp_peer(player), VIDEO).len();
    world.run_ms(400);
    assert_eq!(
        coded(world.rtmp_peer(player), VIDEO).len(),
        paused,
        "paused"
    );
    world.rtmp_call(player, "pause", false);
    world.run_ms(500);
    let peer = world.rtmp_peer(player);
    for kind in [VIDEO, AUDIO] {
        let times: Vec<u32> = coded(peer, kind).iter().map(|(_, time, _)| *time).collect();
        assert!(
            times.windows(2).all(|pair| pair[0] < pair[1]),
            "kind {kind}: {times:?}"
        );
        let gap = times
            .windows(2)
            .map(|pair| pair[1] - pair[0])
            .max()
            .unwrap();
        assert!(gap <= 48, "kind {kind}: {gap}");
    }
}

#[test]
fn a_pause_over_a_key_frame_goes_on_with_one() {
    let mut world = World::new();
    world.rtmp_publish("live/a");
    world.run_ms(500);
    let player = world.rtmp_play("live/a");
    world.run_ms(1_000);
    world.rtmp_call(player, "pause", true);
    world.run_ms(3_000);
    let paused = coded(world.rtmp_peer(player), VIDEO).len();
    world.rtmp_call(player, "pause", false);
    world.run_ms(500);
    let video = coded(world.rtmp_peer(player), VIDEO);
    assert_eq!(video[paused].2[0], 0x17);
    assert!(video.windows(2).all(|pair| pair[0].1 < pair[1].1));
}

/// Case 24.
#[test]
fn pictures_turned_off_and_on_resume_with_a_header_and_a_key_frame() {
    let mut world = World::new();
    world.rtmp_publish("live/a");
    let player = world.rtmp_play("live/a");
    world.run_ms(1_000);
    world.rtmp_call(player, "receiveVideo", false);
    world.run_ms(100);
    let before = media(world.rtmp_peer(player), VIDEO).len();
    let sounds = coded(world.rtmp_peer(player), AUDIO).len();
    world.run_ms(1_500);
    assert_eq!(media(world.rtmp_peer(player), VIDEO).len(), before);
    assert!(
        coded(world.rtmp_peer(player), AUDIO).len() > sounds + 50,
        "sound goes on"
    );
    world.rtmp_call(player, "receiveVideo", true);
    world.run_ms(2_100);
    let video = media(world.rtmp_peer(player), VIDEO);
    assert_eq!(video[before].2[..2], [0x17, 0]);
    assert_eq!(video[before + 1].2[..2], [0x17, 1]);
    world.rtmp_call(player, "receiveAudio", false);
    world.run_ms(100);
    let sounds = coded(world.rtmp_peer(player), AUDIO).len();
    world.run_ms(500);
    assert_eq!(coded(world.rtmp_peer(player), AUDIO).len(), sounds);
    world.rtmp_call(player, "receiveAudio", true);
    world.run_ms(500);
    assert!(coded(world.rtmp_peer(player), AUDIO).len() > sounds + 15);
}

/// Case 28: headers at 0, media at 16776920, which is also where timestamps get extended.
#[test]
fn a_publisher_whose_clock_runs_for_hours_starts_near_zero() {
    let mut world = World::new();
    let player = world.rtmp_play("live/a");
    world.run_ms(10);
    world.rtmp_publish_feed("live/a", Clip::load().feed().offset(16_776_920));
    world.run_ms(2_000);
    for kind in [VIDEO, AUDIO] {
        let got = media(world.rtmp_peer(player), kind);
        assert!(
            got[0].1 < 100 && got.last().unwrap().1 < 2_100,
            "{:?}",
            got[0].1
        );
        assert!(got.windows(2).all(|pair| pair[1].1 - pair[0].1 < 50));
    }
}

#[test]
fn timestamps_that_wrap_at_31_or_32_bits_are_continuous_for_players() {
    for (bits, mask) in [(31, 0x7fff_ffff_u32), (32, u32::MAX)] {
        let mut world = World::new();
        let player = world.rtmp_play("live/a");
        world.run_ms(10);
        let feed = Clip::load().feed().map(move |(time, tag)| {
            let wrapped = (mask - 900).wrapping_add(time as u32) & mask;
            (
                time,
                Tag {
                    timestamp: wrapped,
                    ..tag
                },
            )
        });
        world.rtmp_publish_feed("live/a", feed.own_timestamps());
        world.run_ms(3_000);
        for kind in [VIDEO, AUDIO] {
            let got = coded(world.rtmp_peer(player), kind);
            let last = got.last().unwrap().1;
            assert!(
                (2_900..3_000).contains(&last),
                "{bits} bits, kind {kind}: {last}"
            );
            assert!(
                got.windows(2)
                    .all(|pair| (1..=48).contains(&(pair[1].1 - pair[0].1)))
            );
        }
    }
}

/// Beyond 0xffffff milliseconds (4.66 h) timestamps are extended (RTMP 1.0 section 5.3.1.3), in all
/// chunks of a message.
#[test]
fn a_stream_of_five_hours_stays_in_step() {
    let mut world = World::new();
    let clip = Clip::load();
    let key = clip
        .frames()
        .find(|(_, tag)| tag.type_id == VIDEO)
        .expect("a picture")
        .1;
    let mut feed = clip.feed().only(VIDEO);
    // One key frame in 8 s, the last ones beyond the limit.
    feed.frames = Box::new((0..2_150_u64).map(move |n| (n * 8_000, key.clone())));
    world.rtmp_publish_feed("live/a", feed);
    let early = world.rtmp_play("live/a");
    world.run_for(Duration::from_secs(2_140 * 8 + 1));
    let late = world.rtmp_play("live/a");
    world.run_for(Duration::from_secs(60));
    let video = coded(world.rtmp_peer(early), VIDEO);
    assert_eq!(video.len(), 2_148);
    assert!(video.last().unwrap().1 > 0xff_ffff);
    let steps = video.windows(2).map(|pair| pair[1].1 - pair[0].1);
    assert!(
        steps.clone().all(|step| step == 8_000),
        "{:?}",
        steps.collect::<Vec<_>>()
    );
    let video = coded(world.rtmp_peer(late), VIDEO);
    assert_eq!(video[0].1, 2_140 * 8_000);
    let statuses = world.rtmp_peer(late).events.iter();
    assert!(
        statuses
            .clone()
            .all(|(_, event)| !matches!(event, Event::Closed))
    );
}

//! Streams that change: tracks that start late, stop and return, pictures that stand still.

use std::time::Duration;

use rtmp_gateway::rtmp::client::Event;

use crate::common::browser::Seen;
use crate::common::clip::{AUDIO, Clip, Feed, VIDEO};
use crate::common::watch::{assert_ms, pictures, sounds};
use crate::common::world::{World, coded};

/// The clip's pictures, of which those of `paused` seconds are left out, with all of its sound.
fn without_pictures(paused: std::ops::Range<u64>) -> Feed {
    let mut feed = Clip::load().feed();
    let is_left_out = move |time: u64| (paused.start * 1_000..paused.end * 1_000).contains(&time);
    feed.frames = Box::new(
        feed.frames
            .filter(move |(time, tag)| tag.type_id == AUDIO || !is_left_out(*time)),
    );
    feed
}

/// A mini-program in the background sends a still picture five times a second.
#[test]
fn case_55_a_still_picture_for_three_minutes_is_no_stall() {
    let mut feed = Clip::load().feed();
    let mut count = 0;
    feed.frames = Box::new(feed.frames.filter(move |(time, tag)| {
        if tag.type_id == AUDIO || *time < 4_000 {
            return true;
        }
        count += 1;
        tag.payload[0] >> 4 == 1 || (count % 5 == 0 && tag.payload.len() < 1_000)
    }));
    let mut world = World::new();
    let publisher = world.rtmp_publish_feed("live/a", feed);
    let player = world.rtmp_play("live/a");
    world.run_ms(500);
    let viewer = world.whep("live/a").expect("accepted");
    world.run_ms(184_000);
    assert!(world.rtmp_peer(publisher).closed_at.is_none());
    let stream = world.stream("live/a").unwrap();
    assert!(stream["publisher"]["silent_ms"].as_u64().unwrap() < 100);
    for player in stream["player_list"].as_array().unwrap() {
        assert_eq!(player["skips"], 0, "{player}");
        assert_eq!(player["replays"].as_u64().unwrap_or(0), 0, "{player}");
    }
    let last = pictures(world.browser(viewer)).last().unwrap().at;
    assert_ms(world.now - last, 0..=1_000);
    let video = coded(world.rtmp_peer(player), VIDEO);
    let waits = video.windows(2).map(|pair| pair[1].0 - pair[0].0);
    assert!(waits.max().unwrap() <= Duration::from_millis(2_100));
}

/// Sound begins five seconds after the pictures: viewers hear it, and players are told of it.
#[test]
fn sound_that_starts_late_is_told_of_and_heard() {
    let mut feed = Clip::load().feed();
    let late = |kind: u8, time: u64| kind == AUDIO && time < 5_000;
    let audio: Vec<_> = feed
        .headers
        .extract_if(.., |tag| tag.type_id == AUDIO)
        .collect();
    let headers = audio.into_iter().map(|tag| (5_000, tag));
    let mut frames = feed
        .frames
        .filter(move |(time, tag)| !late(tag.type_id, *time));
    let before: Vec<_> = frames
        .by_ref()
        .take_while(|(time, _)| *time < 5_000)
        .collect();
    feed.frames = Box::new(before.into_iter().chain(headers).chain(frames));
    let mut world = World::new();
    world.rtmp_publish_feed("live/a", feed);
    let player = world.rtmp_play("live/a");
    world.run_ms(1_000);
    let viewer = world.whep("live/a").expect("accepted");
    world.run_ms(9_000);
    let heard = sounds(world.browser(viewer));
    assert!(heard.len() > 220, "{}", heard.len());
    let told: Vec<bool> = world
        .rtmp_peer(player)
        .events
        .iter()
        .filter_map(|(_, event)| match event {
            Event::Metadata(values) => Some(values.get("audiocodecid").is_some()),
            _ => None,
        })
        .collect();
    assert_eq!(told, [false, true], "only what flows is announced");
    assert!(coded(world.rtmp_peer(player), AUDIO).len() > 200);
}

/// Pictures stop for twenty seconds while sound goes on, and are in step with it when they return.
#[test]
fn pictures_that_stop_and_return_are_where_the_sound_is() {
    let mut world = World::new();
    world.rtmp_publish_feed("live/a", without_pictures(4..24));
    let player = world.rtmp_play("live/a");
    world.run_ms(500);
    let viewer = world.whep("live/a").expect("accepted");
    world.run_ms(30_000);
    let peer = world.rtmp_peer(player);
    let (video, audio) = (coded(peer, VIDEO), coded(peer, AUDIO));
    let waits = audio.windows(2).map(|pair| pair[1].0 - pair[0].0);
    assert!(
        waits.max().unwrap() < Duration::from_millis(60),
        "sound goes on"
    );
    let apart = i64::from(video.last().unwrap().1) - i64::from(audio.last().unwrap().1);
    assert!(apart.abs() < 60, "{apart}");
    let shown = pictures(world.browser(viewer));
    let gap = shown
        .windows(2)
        .map(|pair| pair[1].rtp_time - pair[0].rtp_time)
        .max();
    let gap_ms = gap.unwrap() / 90;
    assert!((19_900..=20_200).contains(&gap_ms), "{gap_ms}");
    assert!(sounds(world.browser(viewer)).len() > 1_450);
}

/// Case 24: a player of a browser's stream that wants pictures again need not wait for one: the
/// browser is asked.
#[test]
fn case_24_pictures_wanted_again_are_asked_of_a_browser() {
    let mut world = World::new();
    let player = world.rtmp_play("live/a");
    world.run_ms(10);
    let browser = world.whip("live/a").expect("accepted");
    world.source_mut(browser).keys_on_request = true;
    world.run_ms(5_000);
    world.rtmp_call(player, "receiveVideo", false);
    world.run_ms(5_000);
    let asked = world.now;
    world.rtmp_call(player, "receiveVideo", true);
    world.run_ms(1_000);
    assert!(
        world
            .first_seen(browser, asked, |seen| matches!(
                seen,
                Seen::KeyframeRequested
            ))
            .is_some()
    );
    let video = coded(world.rtmp_peer(player), VIDEO);
    let first = video.iter().find(|(at, _, _)| *at > asked).unwrap();
    assert_ms(first.0 - asked, 0..=120);
    assert_eq!(first.2[0], 0x17);
}

/// A browser that is connected and sends nothing more is noticed on time.
#[test]
fn a_silent_browser_is_noticed_when_its_time_is_over() {
    let mut world = World::new();
    let browser = world.whip("live/a").expect("accepted");
    world.run_ms(3_000);
    world.source_mut(browser).video = false;
    world.source_mut(browser).audio = false;
    world.run_ms(14_900);
    assert!(!world.stream("live/a").unwrap()["publisher"].is_null());
    world.run_ms(150);
    let stream = world.stream("live/a");
    assert!(stream.is_none_or(|stream| stream["publisher"].is_null()));
}

/// GStreamer's rtmp2sink: the first frames all have timestamp 0, and their composition times tell
/// them apart.
#[test]
fn first_frames_that_share_timestamp_0_are_shown_at_their_own_times() {
    let feed = Clip::load().feed().map(|(time, mut tag)| {
        tag.timestamp = (time as u32).saturating_sub(80);
        if tag.type_id == VIDEO && tag.payload[1] == 1 {
            let composition = time as u32 - tag.timestamp;
            let mut body = tag.payload.to_vec();
            body[2..5].copy_from_slice(&composition.to_be_bytes()[1..]);
            tag.payload = body.into();
        }
        (time, tag)
    });
    let mut world = World::new();
    world.rtmp_publish_feed("live/a", feed.own_timestamps());
    let player = world.rtmp_play("live/a");
    world.run_ms(3_000);
    let video = coded(world.rtmp_peer(player), VIDEO);
    let shown: Vec<u32> = video
        .iter()
        .map(|(_, time, body)| time + u32::from_be_bytes([0, body[2], body[3], body[4]]))
        .collect();
    assert!(
        shown.windows(2).all(|pair| pair[1] - pair[0] == 40),
        "{:?}",
        &shown[..6]
    );
    assert!(video.windows(2).all(|pair| pair[1].1 > pair[0].1));
}

//! A publisher that comes back finds its players, and they notice nothing but a pause.

use crate::common::browser::Seen;
use crate::common::clip::{AUDIO, Clip, VIDEO};
use crate::common::watch::{assert_ms, pictures, sounds};
use crate::common::world::{World, coded, media};

/// Case 36: killed, and back within a second with timestamps from zero.
#[test]
fn players_go_on_through_a_restart_and_time_grows_by_the_gap() {
    let mut world = World::new();
    let publisher = world.rtmp_publish("live/a");
    world.run_ms(1_000);
    let player = world.rtmp_play("live/a");
    let viewer = world.whep("live/a").expect("accepted");
    world.run_ms(2_010);
    world.rtmp_kill(publisher);
    world.run_ms(700);
    let back = world.now;
    world.rtmp_publish("live/a");
    world.run_ms(4_000);
    // The pictures' and the sound's sequences have no gap and their times never go back: `pictures` and
    // `sounds` see to it.
    let all = pictures(world.browser(viewer));
    let fresh = all
        .iter()
        .position(|p| p.at > back)
        .expect("pictures again");
    assert!(all[fresh].is_key());
    assert_ms(all[fresh].at - back, 0..=50);
    let gap_at = (all[fresh].at - all[fresh - 1].at).as_secs_f64();
    let gap_rtp = (all[fresh].rtp_time - all[fresh - 1].rtp_time) as f64 / 90_000.0;
    assert!((gap_at - gap_rtp).abs() < 0.05, "{gap_at} {gap_rtp}");
    let heard = sounds(world.browser(viewer));
    assert!(heard.windows(2).all(|p| p[1].rtp_time > p[0].rtp_time));
    let seams = heard
        .windows(2)
        .filter(|p| p[1].rtp_time - p[0].rtp_time != 960);
    assert_eq!(seams.count(), 1, "the restart alone");
    let quiet = heard.windows(2).map(|p| p[1].at - p[0].at).max().unwrap();
    assert_ms(quiet, 500..=900);
    for kind in [VIDEO, AUDIO] {
        let got = coded(world.rtmp_peer(player), kind);
        assert!(got.windows(2).all(|p| p[1].1 > p[0].1), "kind {kind}");
        let last = got.last().unwrap();
        let lag = (last.0 - world.start).as_millis() as i64 - i64::from(last.1);
        assert!((0..60).contains(&lag), "kind {kind}: {lag}");
    }
    assert!(world.rtmp_peer(player).closed_at.is_none());
    let video = media(world.rtmp_peer(player), VIDEO);
    let fresh = video.iter().position(|(at, _, _)| *at > back).unwrap();
    let kinds: Vec<u8> = video[fresh..fresh + 2]
        .iter()
        .map(|(_, _, body)| body[0])
        .collect();
    assert!(kinds.contains(&0x17), "{kinds:?}");
}

#[test]
fn ten_restarts_in_a_row() {
    let mut world = World::new();
    let mut publisher = world.rtmp_publish("live/a");
    world.run_ms(100);
    let player = world.rtmp_play("live/a");
    let viewer = world.whep("live/a").expect("accepted");
    for round in 0..10_u32 {
        world.run_ms(1_300);
        world.rtmp_kill(publisher);
        world.run_ms(400);
        let feed = Clip::load().feed().offset(round.wrapping_mul(0x3000_0000));
        publisher = world.rtmp_publish_feed("live/a", feed);
    }
    world.run_ms(2_000);
    for kind in [VIDEO, AUDIO] {
        let got = coded(world.rtmp_peer(player), kind);
        assert!(got.windows(2).all(|p| p[1].1 > p[0].1), "kind {kind}");
        let last = got.last().unwrap();
        let lag = (last.0 - world.start).as_millis() as i64 - i64::from(last.1);
        assert!((-60..60).contains(&lag), "kind {kind}: {lag}");
    }
    let all = pictures(world.browser(viewer));
    assert!(world.now - all.last().unwrap().at < std::time::Duration::from_millis(45));
    let heard = sounds(world.browser(viewer));
    assert!(heard.windows(2).all(|p| p[1].rtp_time > p[0].rtp_time));
}

/// A relay that is cut in begins with pictures that refer to ones nobody has.
#[test]
fn pictures_before_the_first_key_frame_of_a_restart_reach_nobody() {
    let mut world = World::new();
    let publisher = world.rtmp_publish("live/a");
    world.run_ms(500);
    let player = world.rtmp_play("live/a");
    let viewer = world.whep("live/a").expect("accepted");
    world.run_ms(1_000);
    world.rtmp_kill(publisher);
    world.run_ms(300);
    let back = world.now;
    world.rtmp_publish_feed("live/a", Clip::load().feed().from(1_000));
    world.run_ms(3_000);
    let all = pictures(world.browser(viewer));
    let first = all.iter().find(|p| p.at > back).expect("pictures again");
    assert!(
        first.is_key(),
        "a viewer was sent a picture that it cannot decode"
    );
    let video = coded(world.rtmp_peer(player), VIDEO);
    let first = video
        .iter()
        .find(|(at, _, _)| *at > back)
        .expect("pictures again");
    assert_eq!(
        first.2[0], 0x17,
        "a player was sent a picture that it cannot decode"
    );
}

/// The second one sends sound alone: nobody is promised pictures any more.
#[test]
fn tracks_of_the_publisher_before_are_not_announced() {
    let mut world = World::new();
    let publisher = world.rtmp_publish("live/a");
    let keeper = world.rtmp_play("live/a");
    world.run_ms(1_000);
    world.rtmp_kill(publisher);
    world.run_ms(300);
    world.rtmp_publish_feed("live/a", Clip::load().feed().only(AUDIO));
    world.run_ms(1_000);
    let joined = world.now;
    let player = world.rtmp_play("live/a");
    world.run_ms(500);
    let audio = coded(world.rtmp_peer(player), AUDIO);
    assert!(
        !audio.is_empty(),
        "sound waits for pictures that never come"
    );
    assert_ms(audio[0].0 - joined, 0..=60);
    let metadata = world
        .rtmp_peer(player)
        .events
        .iter()
        .find_map(|(_, event)| match event {
            rtmp_gateway::rtmp::client::Event::Metadata(values) => Some(values.clone()),
            _ => None,
        });
    assert!(metadata.expect("metadata").get("width").is_none());
    let tracks = world.stream("live/a").unwrap()["tracks"].clone();
    assert_eq!(tracks.as_array().unwrap().len(), 1, "{tracks}");
    assert!(!coded(world.rtmp_peer(keeper), AUDIO).is_empty());
}

/// From RTMP with AAC to a browser with Opus and back.
#[test]
fn players_go_on_when_the_publisher_changes_its_protocol() {
    let mut world = World::new();
    let publisher = world.rtmp_publish("live/a");
    world.run_ms(500);
    let player = world.rtmp_play("live/a");
    let viewer = world.whep("live/a").expect("accepted");
    world.run_ms(1_500);
    world.rtmp_kill(publisher);
    world.run_ms(300);
    let browser = world.whip("live/a").expect("accepted");
    world.run_ms(3_000);
    let lag = |world: &World, kind| {
        let last = coded(world.rtmp_peer(player), kind).last().unwrap().0;
        world.now - last
    };
    assert!(lag(&world, VIDEO).as_millis() < 60);
    assert!(lag(&world, AUDIO).as_millis() < 60);
    world.close_browser(browser);
    world.run_ms(300);
    world.rtmp_publish("live/a");
    world.run_ms(3_000);
    assert!(lag(&world, VIDEO).as_millis() < 60);
    assert!(lag(&world, AUDIO).as_millis() < 60);
    for kind in [VIDEO, AUDIO] {
        let got = coded(world.rtmp_peer(player), kind);
        assert!(got.windows(2).all(|p| p[1].1 > p[0].1), "kind {kind}");
    }
    let all = pictures(world.browser(viewer));
    assert!(world.now - all.last().unwrap().at < std::time::Duration::from_millis(45));
    let heard = sounds(world.browser(viewer));
    assert!(world.now - heard.last().unwrap().at < std::time::Duration::from_millis(45));
    assert!(heard.windows(2).all(|p| p[1].rtp_time > p[0].rtp_time));
    let closed = world.first_seen(viewer, world.start, |seen| matches!(seen, Seen::Closed));
    assert!(closed.is_none());
}

/// ffmpeg with `-reconnect` and OBS end their stream in order and begin it again on the same
/// connection (case 20).
#[test]
fn a_stream_that_ends_and_begins_again_is_told_both_times() {
    let mut world = World::new();
    let publisher = world.rtmp_publish_feed("live/a", Clip::load().feed().until(1_000));
    world.run_ms(100);
    let player = world.rtmp_play("live/a");
    world.run_ms(1_500);
    world.rtmp_mut(publisher).client.stop();
    world.pump_rtmp(publisher);
    world.run_ms(500);
    world.rtmp_feed_again(publisher, Clip::load().feed());
    world.run_ms(1_000);
    let statuses = world.rtmp_peer(player).statuses();
    let end = statuses
        .iter()
        .position(|s| *s == "NetStream.Play.UnpublishNotify")
        .expect("end");
    let again = statuses
        .iter()
        .rposition(|s| *s == "NetStream.Play.PublishNotify")
        .expect("again");
    assert!(end < again, "{statuses:?}");
    let video = coded(world.rtmp_peer(player), VIDEO);
    assert!(video.windows(2).all(|p| p[1].1 > p[0].1));
    assert!(world.now - video.last().unwrap().0 < std::time::Duration::from_millis(60));
}

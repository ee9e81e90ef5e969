//! Who may publish: one at a time, but a crashed publisher does not lock its stream.

use rtmp_gateway::config::Config;

use crate::common::browser::Seen;
use crate::common::clip::{AUDIO, VIDEO};
use crate::common::watch::{pictures, sounds};
use crate::common::world::{World, coded};

const SECRET: [(&str, &str); 1] = [("Authorization", "Bearer secret")];

#[test]
fn a_second_publisher_is_refused_by_name_over_both_protocols() {
    let mut world = World::new();
    world.rtmp_publish("live/a");
    world.whip("live/b").expect("accepted");
    world.run_ms(1_000);
    for name in ["live/a", "live/b"] {
        let second = world.rtmp_publish(name);
        world.run_ms(100);
        let peer = world.rtmp_peer(second);
        assert_eq!(peer.statuses(), ["NetStream.Publish.BadName"], "{name}");
        assert!(peer.closed_at.is_some(), "closed after the status");
        let refused = world.whip(name).expect_err("busy");
        assert_eq!(refused.status, 409, "{name}");
        assert!(refused.header("Retry-After").is_some());
        let other = [("Authorization", "Bearer guess")];
        assert_eq!(
            world
                .whip_with(name, true, true, &other)
                .expect_err("busy")
                .status,
            409
        );
    }
    world.run_ms(1_000);
    assert_eq!(
        world.stream("live/a").unwrap()["publisher"]["protocol"],
        "rtmp"
    );
    assert_eq!(
        world.stream("live/b").unwrap()["publisher"]["protocol"],
        "whip"
    );
    assert!(
        world.stream("live/a").unwrap()["publisher"]["silent_ms"]
            .as_u64()
            .unwrap()
            < 100
    );
}

#[test]
fn the_same_token_takes_over_at_once_from_rtmp_to_whip_and_back() {
    let mut world = World::new();
    let first = world.rtmp_publish("live/a?token=secret");
    world.run_ms(1_000);
    let player = world.rtmp_play("live/a");
    let viewer = world.whep("live/a").expect("accepted");
    world.run_ms(1_000);
    let browser = world
        .whip_with("live/a", true, true, &SECRET)
        .expect("takes over");
    world.run_ms(1_000);
    assert!(
        world.rtmp_peer(first).closed_at.is_some(),
        "the displaced one is closed"
    );
    assert_eq!(
        world.stream("live/a").unwrap()["publisher"]["protocol"],
        "whip"
    );
    let taken = world.now;
    let third = world.rtmp_publish("live/a?token=secret");
    world.run_ms(1_500);
    let closed = world.first_seen(browser, taken, |seen| matches!(seen, Seen::Closed));
    assert!(closed.is_some(), "the displaced one is told");
    assert!(world.rtmp_peer(third).closed_at.is_none());
    let fourth = world.rtmp_publish("live/a?token=secret");
    world.run_ms(1_500);
    assert!(world.rtmp_peer(third).closed_at.is_some());
    assert!(world.rtmp_peer(fourth).closed_at.is_none());
    let video = coded(world.rtmp_peer(player), VIDEO);
    assert!(video.windows(2).all(|p| p[1].1 > p[0].1));
    assert!(world.now - video.last().unwrap().0 < std::time::Duration::from_millis(60));
    let all = pictures(world.browser(viewer));
    assert!(world.now - all.last().unwrap().at < std::time::Duration::from_millis(60));
    let audio = coded(world.rtmp_peer(player), AUDIO);
    assert!(audio.windows(2).all(|p| p[1].1 > p[0].1));
    assert!(world.now - audio.last().unwrap().0 < std::time::Duration::from_millis(60));
    let heard = sounds(world.browser(viewer));
    assert!(heard.windows(2).all(|p| p[1].rtp_time > p[0].rtp_time));
    assert!(world.now - heard.last().unwrap().at < std::time::Duration::from_millis(60));
    let session = world.browser(browser).session.clone();
    assert_eq!(
        world.http("DELETE", &session, &SECRET, "").status,
        404,
        "its session is over"
    );
    assert_eq!(
        world.metric("rtmp_gateway_webrtc_sessions{role=\"publisher\"}"),
        0.0
    );
}

/// A crashed browser says nothing; after three seconds of silence its stream is anybody's.
#[test]
fn a_crashed_browser_does_not_lock_its_stream() {
    let mut world = World::new();
    let browser = world.whip("live/a").expect("accepted");
    let player = world.rtmp_play("live/a");
    world.run_ms(2_000);
    world.browser_mut(browser).online = false;
    world.run_ms(2_800);
    assert_eq!(world.whip("live/a").expect_err("too soon").status, 409);
    world.run_ms(300);
    let back = world.now;
    world.whip("live/a").expect("taken over");
    world.run_ms(2_000);
    let video = coded(world.rtmp_peer(player), VIDEO);
    let first = video
        .iter()
        .find(|(at, _, _)| *at > back)
        .expect("pictures again");
    assert_eq!(first.2[0], 0x17);
    assert!(video.windows(2).all(|p| p[1].1 > p[0].1));
    assert_eq!(
        world.metric("rtmp_gateway_webrtc_sessions{role=\"publisher\"}"),
        1.0
    );
}

/// Case 54: a publisher whose network vanished without a FIN.
#[test]
fn a_frozen_rtmp_publisher_is_taken_over_or_ends_by_itself() {
    let mut world = World::new();
    let frozen = world.rtmp_publish("live/a");
    let player = world.rtmp_play("live/a");
    world.run_ms(1_000);
    world.rtmp_freeze(frozen);
    world.run_ms(3_100);
    let second = world.rtmp_publish("live/a");
    world.run_ms(1_000);
    assert!(world.rtmp_peer(frozen).closed_at.is_some());
    assert!(world.rtmp_peer(second).closed_at.is_none());
    let silent = world.now;
    world.rtmp_freeze(second);
    world.run_ms(16_000);
    let closed = world.rtmp_peer(second).closed_at.expect("timed out");
    crate::common::watch::assert_ms(closed - silent, 14_900..=15_100);
    assert!(
        world.rtmp_peer(player).closed_at.is_none(),
        "within the grace"
    );
    world.run_ms(15_000);
    assert!(world.rtmp_peer(player).closed_at.is_some());
    assert!(world.stream("live/a").is_none());
}

/// Where there is no room for one more, a page that is loaded again still gets its place back.
#[test]
fn a_takeover_needs_no_place_of_its_own() {
    let mut config = Config::default();
    config.webrtc.publishers_max = 1;
    let mut world = World::with_config(config);
    let taken = |world: &mut World| world.whip_with("live/a", true, true, &SECRET);
    taken(&mut world).expect("accepted");
    world.run_ms(500);
    assert_eq!(world.whip("live/b").expect_err("full").status, 503);
    assert_eq!(world.whip("live/a").expect_err("full").status, 503);
    taken(&mut world).expect("takes over");
    world.run_ms(500);
    assert_eq!(
        world.metric("rtmp_gateway_webrtc_sessions{role=\"publisher\"}"),
        1.0
    );
}

//! How sessions, streams and the gateway itself come to an end.

use std::time::Duration;

use rtmp_gateway::config::Config;
use rtmp_gateway::gateway::{Input, Listener};
use rtmp_gateway::rtmp::client::{ClientOptions, Goal};
use rtmp_gateway::rtmp::handshake::Form;

use crate::common::browser::Seen;
use crate::common::clip::VIDEO;
use crate::common::watch::assert_ms;
use crate::common::world::{World, coded};

#[test]
fn a_drain_tells_everybody_and_stops() {
    let mut world = World::new();
    let publisher = world.rtmp_publish("live/a");
    let browser = world.whip("live/b").expect("accepted");
    world.run_ms(500);
    let player = world.rtmp_play("live/a");
    let waiting = world.rtmp_play("live/none");
    let viewer = world.whep("live/b").expect("accepted");
    world.run_ms(1_000);
    let drained = world.now;
    world.input(Input::Drain);
    world.run_ms(100);
    for conn in [publisher, player, waiting] {
        let peer = world.rtmp_peer(conn);
        assert_eq!(peer.closed_at, Some(drained));
        assert!(!peer.statuses().is_empty());
    }
    assert!(
        world
            .rtmp_peer(player)
            .status_at("NetStream.Play.UnpublishNotify")
            .is_some()
    );
    for index in [browser, viewer] {
        let closed = world.first_seen(index, drained, |seen| matches!(seen, Seen::Closed));
        assert_ms(closed.expect("told"), 0..=10);
    }
    assert_ms(world.stopped.expect("stopped") - drained, 0..=10);
    // Who comes now is shown the door.
    let late = world.connect(Listener::Rtmp);
    assert!(world.raw_peer(late).closed);
}

#[test]
fn a_drain_of_an_idle_gateway_stops_at_once() {
    let mut world = World::new();
    world.input(Input::Drain);
    assert_eq!(world.stopped, Some(world.now));
}

/// Everything that was ever had is given back.
#[test]
fn nothing_is_left_of_a_busy_minute() {
    let mut world = World::new();
    let mut browsers = Vec::new();
    let mut conns = Vec::new();
    for round in 0..10 {
        let name = format!("live/{}", round % 3);
        conns.push(world.rtmp_publish(&format!("{name}?token=t")));
        world.run_ms(400);
        conns.push(world.rtmp_play(&name));
        browsers.extend(world.whep(&name).ok());
        world.run_ms(400);
        browsers.extend(
            world
                .whip_with(&name, true, true, &[("Authorization", "Bearer t")])
                .ok(),
        );
        world.run_ms(1_000);
        conns.push(world.rtmp_play("live/nothing"));
        conns.push(world.connect(Listener::Http));
        conns.push(world.connect(Listener::Rtmp));
    }
    for (n, browser) in browsers.into_iter().enumerate() {
        match n % 3 {
            0 => world.close_browser(browser),
            1 => {
                let session = world.browser(browser).session.clone();
                let auth = [("Authorization", "Bearer t")];
                world.http("DELETE", &session, &auth, "");
            }
            _ => world.browser_mut(browser).online = false,
        }
    }
    for conn in conns {
        world.hang_up_raw(conn);
    }
    world.run_for(Duration::from_secs(60));
    for line in [
        "rtmp_gateway_connections{kind=\"rtmp\"}",
        "rtmp_gateway_connections{kind=\"ice_tcp\"}",
        "rtmp_gateway_webrtc_sessions{role=\"publisher\"}",
        "rtmp_gateway_webrtc_sessions{role=\"viewer\"}",
        "rtmp_gateway_streams",
        "rtmp_gateway_transcode_pipelines",
        "rtmp_gateway_transcode_pending_jobs",
    ] {
        assert_eq!(world.metric(line), 0.0, "{line}");
    }
    assert_eq!(world.metric("rtmp_gateway_connections{kind=\"http\"}"), 0.0);
    assert_eq!(world.pipelines(), 0);
    // A gateway without sessions has nothing to wake up for, but for that question's connection.
    let inputs = world.inputs;
    world.run_for(Duration::from_secs(600));
    assert!(
        world.inputs - inputs <= 3,
        "{} turns",
        world.inputs - inputs
    );
}

/// An idle second of a watched stream does not spin.
#[test]
fn a_watched_stream_takes_as_many_turns_as_it_has_packets() {
    let mut world = World::new();
    world.rtmp_publish("live/a");
    world.run_ms(500);
    world.whep("live/a").expect("accepted");
    world.run_ms(5_000);
    let inputs = world.inputs;
    world.run_ms(10_000);
    let a_second = (world.inputs - inputs) / 10;
    assert!(a_second < 600, "{a_second} turns a second");
}

/// Case 53: connections that say nothing are closed in time.
#[test]
fn silent_connections_are_closed() {
    let mut world = World::new();
    let opened = world.now;
    let conns: Vec<_> = [Listener::Rtmp, Listener::Http, Listener::IceTcp]
        .into_iter()
        .flat_map(|listener| std::iter::repeat_n(listener, 300))
        .map(|listener| world.connect(listener))
        .collect();
    world.run_for(Duration::from_secs(35));
    assert!(conns.iter().all(|conn| world.raw_peer(*conn).closed));
    assert_ms(world.now - opened, 35_000..=35_000);
    assert_eq!(world.metric("rtmp_gateway_connections{kind=\"rtmp\"}"), 0.0);
}

/// Case 2 and part 10: what is not RTMP or HTTP is answered or closed, and counted.
#[test]
fn garbage_on_each_port_is_closed_and_disturbs_nobody() {
    let mut world = World::new();
    world.rtmp_publish("live/a");
    let player = world.rtmp_play("live/a");
    world.run_ms(500);
    for listener in [Listener::Rtmp, Listener::Http, Listener::IceTcp] {
        for seed in 0..50_u32 {
            let conn = world.connect(listener);
            let noise: Vec<u8> = (0..5_000_u32)
                .map(|n| (n.wrapping_mul(2_654_435_761).wrapping_add(seed * 77) >> 13) as u8)
                .collect();
            world.raw_send(conn, &noise);
            if listener == Listener::Rtmp {
                let mut greeted = vec![3; 1 + 2 * 1_536];
                greeted.extend_from_slice(&noise);
                let conn = world.connect(listener);
                world.raw_send(conn, &greeted);
            }
        }
    }
    world.run_ms(35_000);
    assert_eq!(world.metric("rtmp_gateway_connections{kind=\"rtmp\"}"), 2.0);
    assert_eq!(
        world.metric("rtmp_gateway_connections{kind=\"ice_tcp\"}"),
        0.0
    );
    let video = coded(world.rtmp_peer(player), VIDEO);
    assert!(video.windows(2).all(|p| p[1].1 - p[0].1 == 40));
    let page = world.http("GET", "/metrics", &[], "").body;
    let errors = page
        .lines()
        .filter(|line| line.starts_with("rtmp_gateway_errors_total"));
    assert!(errors.count() >= 2, "{page}");
}

/// A whole session cut at any place: the digest handshake, small chunks, one byte at a time.
#[test]
fn a_publisher_with_tiny_chunks_and_the_digest_handshake_is_understood() {
    let mut world = World::new();
    let options = ClientOptions {
        handshake: Form::Digest,
        chunk_size_out: 128,
        ..ClientOptions::default()
    };
    let publisher = world.rtmp_with(Goal::Publish, "live/a", options);
    world.feed(publisher, crate::common::clip::Clip::load().feed());
    let player = world.rtmp_play("live/a");
    world.run_ms(2_000);
    assert!(coded(world.rtmp_peer(player), VIDEO).len() > 40);
}

/// The browser's last word gets lost: it is missed within its consent's time.
#[test]
fn a_viewer_that_vanishes_is_let_go() {
    let mut world = World::new();
    world.rtmp_publish("live/a");
    world.run_ms(500);
    let viewer = world.whep("live/a").expect("accepted");
    world.run_ms(1_000);
    world.browser_mut(viewer).online = false;
    world.run_for(Duration::from_secs(45));
    assert_eq!(world.stream("live/a").unwrap()["players"]["whep"], 0);
    assert_eq!(world.pipelines(), 0);
}

#[test]
fn a_grace_of_zero_ends_players_at_once() {
    let mut config = Config::default();
    config.streams.publisher_grace = Duration::ZERO;
    let mut world = World::with_config(config);
    let publisher = world.rtmp_publish("live/a");
    let player = world.rtmp_play("live/a");
    world.run_ms(500);
    let viewer = world.whep("live/a").expect("accepted");
    world.run_ms(500);
    let killed = world.now;
    world.rtmp_kill(publisher);
    world.run_ms(100);
    assert_ms(
        world.rtmp_peer(player).closed_at.expect("let go") - killed,
        0..=10,
    );
    let closed = world.first_seen(viewer, killed, |seen| matches!(seen, Seen::Closed));
    assert_ms(closed.expect("told"), 0..=10);
    assert!(world.stream("live/a").is_none());
}

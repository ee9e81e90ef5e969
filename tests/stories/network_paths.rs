//! By which way datagrams go: several addresses, a new network in mid-call, TCP.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::common::browser::{BrowserConfig, Does};
use crate::common::clip::VIDEO;
use crate::common::watch::{pictures, sounds};
use crate::common::world::{World, coded};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// How many datagrams came to an address after `from`.
fn arrived(world: &World, browser: usize, address: &str, from: Instant) -> usize {
    let arrived = &world.browser(browser).arrived;
    let all = arrived.iter().filter(|(to, _)| to.ip() == ip(address));
    all.flat_map(|(_, times)| times)
        .filter(|at| **at >= from)
        .count()
}

#[test]
fn a_viewer_with_two_addresses_is_served_on_one() {
    let mut world = World::new();
    world.rtmp_publish("live/a");
    world.run_ms(500);
    let mut config = BrowserConfig::new(Does::View);
    config
        .addresses
        .push((SocketAddr::from(([198, 51, 100, 11], 0)), false));
    let viewer = world.browse("/whep/live/a", config, &[]).expect("accepted");
    world.run_ms(3_000);
    let from = world.now;
    world.run_ms(2_000);
    let counts = [
        arrived(&world, viewer, "198.51.100.10", from),
        arrived(&world, viewer, "198.51.100.11", from),
    ];
    assert!(counts.iter().max().unwrap() > &150, "{counts:?}");
    assert!(
        counts.iter().min().unwrap() < &20,
        "only checks on the other: {counts:?}"
    );
    assert!(pictures(world.browser(viewer)).len() > 100);
}

#[test]
fn a_viewer_of_whose_addresses_only_one_works_is_served_on_that() {
    for dead in ["198.51.100.10", "198.51.100.11"] {
        let mut world = World::new();
        world.rtmp_publish("live/a");
        world.run_ms(500);
        let mut config = BrowserConfig::new(Does::View);
        config
            .addresses
            .push((SocketAddr::from(([198, 51, 100, 11], 0)), false));
        let viewer = world.browse("/whep/live/a", config, &[]).expect("accepted");
        world.browser_mut(viewer).dead.insert(ip(dead));
        world.run_ms(4_000);
        assert!(pictures(world.browser(viewer)).len() > 50, "{dead} dead");
    }
}

/// Case 68: the network gives the browser another address in mid-call.
#[test]
fn media_follows_a_browser_to_its_new_address() {
    let mut world = World::new();
    world.rtmp_publish("live/a");
    let publisher = world.whip("live/b").expect("accepted");
    let player = world.rtmp_play("live/b");
    world.run_ms(500);
    let viewer = world.whep("live/a").expect("accepted");
    world.run_ms(2_000);
    for browser in [publisher, viewer] {
        world.browser_mut(browser).nat = Some(ip("203.0.113.77"));
    }
    let moved = world.now;
    world.run_ms(10_000);
    assert!(arrived(&world, viewer, "203.0.113.77", moved) > 200);
    let seen = &world.browser(viewer).seen;
    let last = seen.last().expect("media").0;
    assert!(
        world.now - last < Duration::from_millis(100),
        "{:?}",
        world.now - last
    );
    let video = coded(world.rtmp_peer(player), VIDEO);
    let last = video.last().unwrap().0;
    assert!(
        world.now - last < Duration::from_millis(100),
        "{:?}",
        world.now - last
    );
}

/// Case 68: a check that is not signed with the password moves nothing.
#[test]
fn a_forged_check_moves_nothing() {
    let mut world = World::new();
    world.rtmp_publish("live/a");
    world.run_ms(500);
    let viewer = world.whep("live/a").expect("accepted");
    world.run_ms(1_000);
    let thief = SocketAddr::from(([203, 0, 113, 66], 50_000));
    let from = world.now;
    for _ in 0..10 {
        let forged = world.browser(viewer).browser.forged_check_from(thief);
        world.send_datagram(viewer, forged);
        world.run_ms(100);
    }
    assert_eq!(arrived(&world, viewer, "203.0.113.66", from), 0);
    assert!(arrived(&world, viewer, "198.51.100.10", from) > 50);
    assert!(world.metric("rtmp_gateway_datagrams_unrouted_total") >= 10.0);
}

#[test]
fn a_viewer_behind_a_wall_that_lets_only_tcp_out_plays() {
    let mut world = World::new();
    world.rtmp_publish("live/a");
    world.run_ms(2_500);
    let mut config = BrowserConfig::new(Does::View);
    config.addresses[0].1 = true;
    let viewer = world.browse("/whep/live/a", config, &[]).expect("accepted");
    world.run_ms(3_000);
    let all = pictures(world.browser(viewer));
    let connected = world.connected_at(viewer).expect("connected");
    crate::common::watch::assert_ms(all[0].at - connected, 0..=10);
    assert!(all.len() > 60, "{}", all.len());
    assert!(sounds(world.browser(viewer)).len() > 100);
    assert_eq!(
        world.metric("rtmp_gateway_connections{kind=\"ice_tcp\"}"),
        1.0
    );
    assert!(world.browser(viewer).arrived.is_empty(), "nothing by UDP");
    world.close_browser(viewer);
    world.run_ms(12_000);
    assert_eq!(
        world.metric("rtmp_gateway_webrtc_sessions{role=\"viewer\"}"),
        0.0
    );
    assert_eq!(
        world.metric("rtmp_gateway_connections{kind=\"ice_tcp\"}"),
        0.0
    );
}

#[test]
fn a_publisher_behind_such_a_wall_publishes() {
    let mut world = World::new();
    let player = world.rtmp_play("live/a");
    let mut config = BrowserConfig::new(Does::Publish);
    config.addresses[0].1 = true;
    let publisher = world.whip_as("live/a", config, &[]).expect("accepted");
    world.run_ms(3_000);
    assert!(world.connected_at(publisher).is_some());
    let video = coded(world.rtmp_peer(player), VIDEO);
    assert!(video.len() > 60, "{}", video.len());
}

/// Case 69: what belongs to nobody, or was changed on its way, costs nothing but a counter.
#[test]
fn noise_on_the_port_disturbs_nobody() {
    let mut world = World::new();
    world.rtmp_publish("live/a");
    world.run_ms(500);
    let viewer = world.whep("live/a").expect("accepted");
    let publisher = world.whip("live/b").expect("accepted");
    world.run_ms(1_000);
    for round in 0..2_000_u32 {
        for browser in [viewer, publisher] {
            let mut noise = world.browser(browser).browser.check_from(
                SocketAddr::from(([198, 51, 100, 10], 50_000 + browser as u16)),
                false,
            );
            let size = (round as usize * 7) % 200 + 1;
            noise.contents = (0..size).map(|n| (n as u32 * 31 + round) as u8).collect();
            noise.contents[0] = [0x80, 0x81, 20, 22, 23, 0, 1, 200][round as usize % 8];
            if size > 1 {
                noise.contents[1] = [96, 102, 200, 201, 203, 205, 206, 111][round as usize / 8 % 8];
            }
            world.send_datagram(browser, noise);
        }
        world.run_ms(2);
    }
    world.run_ms(500);
    assert!(
        world.now - pictures(world.browser(viewer)).last().unwrap().at < Duration::from_millis(60)
    );
    assert!(
        world.stream("live/b").unwrap()["publisher"]["silent_ms"]
            .as_u64()
            .unwrap()
            < 100
    );
}

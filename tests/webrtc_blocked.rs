//! A client whose media cannot get through: what its operator is told.

mod common;

use common::world::World;

fn errors(world: &mut World, reason: &str) -> u64 {
    let page = world.http("GET", "/metrics", &[], "").body;
    let sample = format!("rtmp_gateway_errors_total{{reason=\"{reason}\"}} ");
    page.lines()
        .find_map(|line| line.strip_prefix(&sample))
        .map_or(0, |count| count.parse().expect("a number"))
}

/// The page deletes its session before the gateway's own time is over: that must not look
/// like a viewer who had seen enough.
#[test]
fn a_viewer_that_gave_up_before_it_was_connected_is_counted() {
    let mut world = World::new();
    world.rtmp_publish("live/a");
    world.run_ms(1_000);
    let viewer = world.whep("live/a").expect("an answer");
    world.browser_mut(viewer).online = false;
    world.run_ms(12_000);
    let session = world.browser(viewer).session.clone();
    assert_eq!(world.http("DELETE", &session, &[], "").status, 200);
    assert_eq!(errors(&mut world, "webrtc_never_connected"), 1);
}

#[test]
fn a_viewer_that_left_or_changed_its_mind_is_not() {
    let mut world = World::new();
    world.rtmp_publish("live/a");
    world.run_ms(1_000);
    // One watches and leaves, one leaves at once.
    let viewer = world.whep("live/a").expect("an answer");
    world.run_ms(12_000);
    let other = world.whep("live/a").expect("an answer");
    world.browser_mut(other).online = false;
    world.run_ms(500);
    for index in [viewer, other] {
        let session = world.browser(index).session.clone();
        assert_eq!(world.http("DELETE", &session, &[], "").status, 200);
    }
    assert_eq!(errors(&mut world, "webrtc_never_connected"), 0);
}

/// One that waits silently meets the gateway's own limit.
#[test]
fn a_viewer_that_never_connects_is_removed_and_counted() {
    let mut world = World::new();
    world.rtmp_publish("live/a");
    world.run_ms(1_000);
    let viewer = world.whep("live/a").expect("an answer");
    world.browser_mut(viewer).online = false;
    world.run_ms(16_000);
    assert_eq!(errors(&mut world, "webrtc_handshake_timeout"), 1);
    assert_eq!(errors(&mut world, "webrtc_never_connected"), 1);
    let session = world.browser(viewer).session.clone();
    assert_eq!(world.http("DELETE", &session, &[], "").status, 404);
}

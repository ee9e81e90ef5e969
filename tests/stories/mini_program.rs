//! `<live-pusher>` and `<live-player>` against the gateway: what their pages are told.

use std::time::Duration;

use crate::common::watch;
use crate::common::world::World;
use crate::common::world::tags::code;

const PATH: &str = "live/phone";

#[test]
fn a_mini_program_publishes_and_another_one_plays() {
    let mut world = World::new();
    let pusher = world.live_pusher(PATH, [true, true]);
    world.run_ms(1_000);
    let player = world.live_player(PATH);
    world.run_ms(10_000);
    assert_eq!(
        world.codes(pusher),
        [
            code::CAMERA_OPENED,
            code::ENCODER_STARTED,
            code::PUSH_CONNECTED,
            code::PUSH_BEGAN
        ]
    );
    assert_eq!(
        world.codes(player),
        [
            code::PLAY_CONNECTED,
            code::PLAY_STREAM_BEGAN,
            code::PLAY_FIRST_PICTURE,
            code::PLAY_BEGAN
        ]
    );
    let seen = &world.player(player).seen;
    // 15 pictures and 46.9 sounds a second, and what was cached.
    assert!((148..=170).contains(&seen.pictures), "{seen:?}");
    assert!((465..=530).contains(&seen.sounds), "{seen:?}");
    assert_eq!(
        (seen.undecodable, seen.stutters, seen.discontinuities),
        (0, 0, 0)
    );
}

#[test]
fn a_weak_uplink_makes_the_picture_smaller_and_players_follow() {
    let mut world = World::new();
    let pusher = world.live_pusher(PATH, [true, true]);
    let player = world.live_player(PATH);
    let browser = {
        world.run_ms(500);
        world.whep(PATH).expect("an answer")
    };
    world.run_ms(2_000);
    world.pusher(pusher).set_uplink(true);
    world.run_ms(4_000);
    world.pusher(pusher).set_uplink(false);
    world.run_ms(4_000);
    let changes = |codes: Vec<i32>, code: i32| codes.iter().filter(|&&c| c == code).count();
    assert_eq!(
        changes(world.codes(pusher), code::PUSH_RESOLUTION_CHANGED),
        2
    );
    assert_eq!(
        changes(world.codes(player), code::PLAY_RESOLUTION_CHANGED),
        2
    );
    assert_eq!(world.player(player).seen.undecodable, 0);
    assert!(watch::pictures(world.browser(browser)).len() > 100);
}

/// CASES 55: a picture of 5 a second for three minutes is no stall.
#[test]
fn case_55_the_waiting_picture_of_an_app_in_the_background_is_no_stall() {
    let mut world = World::new();
    let pusher = world.live_pusher(PATH, [true, true]);
    world.run_ms(1_000);
    let player = world.live_player(PATH);
    world.run_ms(1_000);
    world.pusher(pusher).set_background(true);
    world.run_for(Duration::from_secs(180));
    world.pusher(pusher).set_background(false);
    world.run_ms(5_000);
    let codes = world.codes(player);
    assert!(!codes.contains(&code::PLAY_STUTTER), "{codes:?}");
    assert!(!codes.contains(&code::PLAY_RECONNECTING), "{codes:?}");
    assert_eq!(world.player(player).seen.undecodable, 0);
    let warnings = world.metric("rtmp_gateway_errors_total{reason=\"publish_timeout\"}");
    assert_eq!(warnings, 0.0);
}

#[test]
fn a_phone_that_changes_its_network_takes_its_stream_again() {
    let mut world = World::new();
    let pusher = world.live_pusher(PATH, [true, true]);
    world.run_ms(1_000);
    let player = world.live_player(PATH);
    world.run_ms(2_000);
    let before = world.player(player).seen.pictures;
    // The gateway learns nothing: for it the old connection is merely silent.
    world.lose_network(pusher);
    world.run_ms(12_000);
    let codes = world.codes(pusher);
    assert!(codes.contains(&code::PUSH_RECONNECTING), "{codes:?}");
    assert_eq!(codes.last(), Some(&code::PUSH_BEGAN), "{codes:?}");
    let codes = world.codes(player);
    assert!(!codes.contains(&code::PLAY_ENDED), "{codes:?}");
    assert!(!codes.contains(&code::PLAY_RECONNECTING), "{codes:?}");
    let seen = &world.player(player).seen;
    assert!(seen.pictures > before + 60, "{seen:?}");
    // The gap is told once for the picture and once for the sound.
    assert_eq!((seen.undecodable, seen.discontinuities), (0, 2));
}

#[test]
fn a_mini_program_gives_up_after_three_retries() {
    let mut world = World::new();
    let other = world.live_pusher(PATH, [true, true]);
    world.run_ms(1_000);
    // The name is taken by somebody who goes on sending.
    let pusher = world.live_pusher(PATH, [true, true]);
    world.run_ms(15_000);
    let codes = world.codes(pusher);
    let retries = codes
        .iter()
        .filter(|&&code| code == code::PUSH_RECONNECTING);
    assert_eq!(retries.count(), 3, "{codes:?}");
    assert_eq!(codes.last(), Some(&code::PUSH_GAVE_UP));
    assert_eq!(world.codes(other).last(), Some(&code::PUSH_BEGAN));
}

#[test]
fn a_voice_without_a_camera_is_heard() {
    let mut world = World::new();
    let _pusher = world.live_pusher(PATH, [false, true]);
    world.run_ms(500);
    let player = world.live_player(PATH);
    world.run_ms(5_000);
    let seen = &world.player(player).seen;
    assert_eq!((seen.pictures, seen.stutters), (0, 0), "{seen:?}");
    assert!(seen.sounds > 220, "{seen:?}");
}

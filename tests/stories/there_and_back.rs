//! RTMP through WebRTC and back to RTMP.

use crate::common::browser::{BrowserConfig, Does};
use crate::common::clip::{AUDIO, Clip, VIDEO};
use crate::common::watch::assert_ms;
use crate::common::world::{World, coded};

/// Case 72: a page passes on what it plays. Pictures are the same bytes in the end, the sound is in
/// step with them, and the first picture is there at once.
#[test]
fn case_72_pictures_are_the_same_bytes_behind_two_legs_of_webrtc() {
    let mut world = World::new();
    world.rtmp_publish("live/a");
    world.run_ms(500);
    let config = BrowserConfig::new(Does::Publish);
    let sender = world.browse("/whip/live/b", config, &[]).expect("accepted");
    let player = world.rtmp_play("live/b");
    while world.connected_at(sender).is_none() {
        world.run_ms(5);
    }
    let called = world.now;
    let viewer = world.whep("live/a").expect("accepted");
    let mut passed = 0;
    for _ in 0..1_600 {
        world.run_ms(5);
        passed = world.pass_on(viewer, sender, passed);
    }
    let peer = world.rtmp_peer(player);
    let (video, audio) = (coded(peer, VIDEO), coded(peer, AUDIO));
    assert_ms(video[0].0 - called, 0..=1_000);
    assert!(video.len() > 180, "{}", video.len());
    let units = Clip::load().access_units();
    let index = |body: &[u8]| units.iter().position(|unit| body[5..] == unit.payload);
    let first = index(&video[0].2).expect("a picture of the clip");
    for (n, (_, _, body)) in video.iter().enumerate() {
        let wanted = &units[(first + n) % units.len()].payload;
        assert!(body[5..] == **wanted, "picture {n} is another one");
    }
    let (last, sound) = (video.last().unwrap(), audio.last().unwrap());
    let apart = (i64::from(last.1) - i64::from(sound.1)).abs();
    assert!(apart < 150, "{apart} ms");
    assert!(
        audio
            .windows(2)
            .all(|p| (21..=22).contains(&(p[1].1 - p[0].1)))
    );
}

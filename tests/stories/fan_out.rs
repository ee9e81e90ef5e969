//! One stream for many viewers: nobody waits for another's picture, or for another's joining.

use std::time::Duration;

use rtmp_gateway::gateway::{Input, Output};

use crate::common::browser::Seen;
use crate::common::clip::{AUDIO, Clip};
use crate::common::watch::{assert_ms, pictures};
use crate::common::world::World;

/// RTP packets of one slice, and of the one viewer that it may exceed that by.
const SLICE_PACKETS: usize = 512 + 64;

/// What the gateway asks for and sends in one drain: how many jobs for audio workers, and how many
/// datagrams.
fn drain(world: &mut World) -> (usize, usize) {
    let mut jobs = 0;
    while let Some(output) = world.gateway.poll_output(world.now) {
        jobs += usize::from(matches!(output, Output::Transcode { .. }));
    }
    let mut datagrams = Vec::new();
    world.gateway.take_datagrams(&mut datagrams);
    let sent = datagrams.iter().map(|train| train.packets().len()).sum();
    (jobs, sent)
}

#[test]
fn a_key_frame_for_many_viewers_goes_in_slices_and_sound_goes_in_between() {
    let mut world = World::new();
    let publisher = world.rtmp_publish_feed("live/a", Clip::load().feed().until(1_000));
    world.run_ms(500);
    let viewers: Vec<usize> = (0..40)
        .map(|_| world.whep("live/a").expect("accepted"))
        .collect();
    world.run_ms(2_000);
    for viewer in &viewers {
        world.connected_at(*viewer).expect("connected");
    }
    // A key frame of 60 kB: more than fifty packets for each viewer.
    let mut picture = vec![0x17, 1, 0, 0, 0];
    picture.extend_from_slice(&60_000_u32.to_be_bytes());
    picture.extend([0x65; 60_000]);
    let client = &mut world.rtmp_mut(publisher).client;
    client.send_video(4_000, &[], &picture);
    let bytes: Vec<u8> = std::iter::from_fn(|| client.transmit().pop())
        .flatten()
        .collect();
    let sound = Clip::load()
        .frames()
        .find(|(_, tag)| tag.type_id == AUDIO)
        .expect("the clip has sound")
        .1;
    client.send_audio(4_000, &[], &sound.payload);
    let sound: Vec<u8> = std::iter::from_fn(|| client.transmit().pop())
        .flatten()
        .collect();

    let (now, conn) = (world.now, publisher);
    let bytes = &bytes;
    world
        .gateway
        .handle_input(now, Input::Received { conn, bytes });
    let (jobs, first) = drain(&mut world);
    assert_eq!(jobs, 0);
    assert!((1..=SLICE_PACKETS).contains(&first), "{first} packets");
    assert!(world.gateway.has_slices());
    // What arrives now is not kept waiting by the viewers who have not got theirs.
    let bytes = &sound;
    world
        .gateway
        .handle_input(now, Input::Received { conn, bytes });
    let (jobs, second) = drain(&mut world);
    assert_eq!(jobs, 1, "the sound is on its way to its worker");
    assert!(second <= SLICE_PACKETS, "{second} packets");
    assert!(world.gateway.has_slices(), "pictures are still to come");
    let mut sent = first + second;
    let mut slices = 2;
    while world.gateway.has_slices() {
        let (_, more) = drain(&mut world);
        assert!(more <= SLICE_PACKETS, "{more} packets");
        sent += more;
        slices += 1;
        assert!(slices < 20);
    }
    assert!(slices >= 4, "{slices}");
    // One packet in each second is a report.
    let each = sent / 40;
    assert!((50..=60).contains(&each), "{each} packets for each viewer");
}

#[test]
fn two_hundred_joins_in_a_second_leave_those_present_their_pictures_on_time() {
    let mut world = World::new();
    world.rtmp_publish_feed("live/a", Clip::load().feed());
    world.run_ms(100);
    let present: Vec<usize> = (0..3).map(|_| world.whep("live/a").unwrap()).collect();
    world.run_ms(2_900);
    let storm = world.now;
    let joined: Vec<(usize, std::time::Instant)> = (0..200)
        .map(|_| {
            let viewer = world.whep("live/a").expect("accepted");
            let at = world.now;
            world.run_ms(5);
            (viewer, at)
        })
        .collect();
    world.run_ms(100);
    for viewer in present {
        let all = pictures(world.browser(viewer));
        let during: Vec<_> = all.iter().filter(|picture| picture.at >= storm).collect();
        assert!(during.len() >= 25, "{} pictures", during.len());
        for pair in during.windows(2) {
            assert_ms(pair[1].at - pair[0].at, 0..=50);
            assert_eq!(pair[1].rtp_time - pair[0].rtp_time, 3_600, "none left out");
        }
    }
    for (viewer, at) in joined {
        let all = pictures(world.browser(viewer));
        let first = all.first().expect("a picture");
        assert!(first.is_key());
        assert_ms(first.at - at, 0..=100);
    }
}

#[test]
fn a_gateway_whose_streams_have_gone_has_nothing_to_wake_for() {
    let mut world = World::new();
    let publisher = world.rtmp_publish_feed("live/a", Clip::load().feed());
    world.run_ms(500);
    let viewer = world.whep("live/a").expect("accepted");
    world.run_ms(2_000);
    assert!(world.connected_at(viewer).is_some());
    world.close_browser(viewer);
    world.rtmp_kill(publisher);
    world.run_for(Duration::from_secs(90));
    assert_eq!(world.gateway.next_timeout(), None);
    let before = world.inputs;
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.inputs, before);
    let seen = &world.browser(viewer).seen;
    assert!(seen.iter().any(|(_, seen)| matches!(seen, Seen::Connected)));
}

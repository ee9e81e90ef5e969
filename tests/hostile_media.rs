//! Publishers whose media lies: absurd times, absurd configurations, none at all. The innocent
//! go on unharmed, and the liar's own players get what there is, in order.

mod common;
mod hostile;

use common::browser::Kind;
use common::clip::{AUDIO, Clip, VIDEO, opus_tone};
use common::world::media;
use hostile::Random;
use hostile::bare::Bare;
use hostile::scene::{Scene, open};
use hostile::speaker::Speaker;
use rtmp_gateway::config::Config;
use rtmp_gateway::gateway::{ConnId, Listener};
use rtmp_gateway::rtmp::amf0::{self, Value};
use rtmp_gateway::rtmp::message::Control;

/// Publishes `live/liar` with RTMP and WHEP players; each of `count` turns says what `tell` does
/// and takes `turn_ms`.
fn lie(
    scene: &mut Scene,
    count: u32,
    turn_ms: u64,
    mut tell: impl FnMut(&mut Speaker, u32),
) -> (ConnId, ConnId) {
    let mut speaker = Speaker::publisher("liar");
    for header in Clip::load().headers() {
        speaker.media(header.type_id, 1, 0, &header.payload);
    }
    let conn = open(scene, &mut speaker);
    let player = scene.world.rtmp_play("live/liar");
    scene.world.whep("live/liar").expect("it is live");
    scene.world.run_ms(1_000);
    for n in 0..count {
        tell(&mut speaker, n);
        scene.world.raw_send(conn, &speaker.take());
        scene.world.run_ms(turn_ms);
    }
    (conn, player)
}

fn coded(kind: u8) -> Vec<Vec<u8>> {
    let frames = Clip::load().frames();
    let of_kind = frames.take(600).filter(|(_, tag)| tag.type_id == kind);
    of_kind.map(|(_, tag)| tag.payload.to_vec()).collect()
}

#[test]
fn timestamps_that_jump_are_not_made_good_with_endless_silence() {
    let sound = coded(AUDIO);
    let mut scene = Scene::new();
    let frames = "rtmp_gateway_transcode_frames_total";
    let before = scene.metrics().get(frames);
    // Each message is almost five seconds after the last one, a hundred a second.
    lie(&mut scene, 500, 10, |speaker, n| {
        speaker.media(
            AUDIO,
            1,
            n.wrapping_mul(4_900),
            &sound[n as usize % sound.len()],
        );
    });
    let made = scene.metrics().get(frames) - before;
    // Six seconds of the innocents' sound, to Opus and to AAC, and for each message of the
    // liar what falls silent before the jump and itself.
    assert!(made < 300 + 282 + 500 * 5, "{made} frames");
    scene.assert_unharmed();
}

#[test]
fn a_flood_of_sound_leaves_the_worker_room_for_others() {
    let sound = coded(AUDIO);
    let mut bare = Bare::new(Config::default());
    bare.reads = true;
    let mut speaker = Speaker::publisher("flood");
    for header in Clip::load().headers() {
        speaker.media(header.type_id, 1, 0, &header.payload);
    }
    let conn = bare.connect(Listener::Rtmp);
    bare.send(conn, &speaker.take());
    let viewer = bare.connect(Listener::Http);
    let offer = include_str!("fixtures/offers/chromium-156-recvonly.sdp");
    let request = format!(
        "POST /whep/live/flood HTTP/1.1\r\nHost: a\r\nContent-Type: application/sdp\r\n\
         Content-Length: {}\r\n\r\n{offer}",
        offer.len()
    );
    bare.send(viewer, request.as_bytes());
    assert_eq!(bare.jobs, 1, "the pipeline is opened");
    bare.stalls = true;
    for n in 0..5_000 {
        speaker.media(AUDIO, 1, n * 21, &sound[n as usize % sound.len()]);
    }
    let flood = speaker.take();
    bare.send(conn, &flood);
    // Of the 256 places in the worker's queue.
    assert_eq!(bare.jobs, 1 + 64);
}

/// The timestamp of a message by its number.
type Stamp<'a> = &'a dyn Fn(u32, &mut Random) -> u32;

#[test]
fn timestamps_of_all_sorts_disturb_nobody() {
    let pictures = coded(VIDEO);
    let sound = coded(AUDIO);
    let stamps: [Stamp<'_>; 6] = [
        &|_, _| 0,
        &|n, _| 0_u32.wrapping_sub(n * 40),
        &|n, _| n.wrapping_mul(0x7fff_ffff),
        &|_, random| random.draw() as u32,
        &|n, _| if n % 2 == 0 { n * 40 } else { u32::MAX - n },
        &|n, _| 0xffff_ff00_u32.wrapping_add(n * 40),
    ];
    for (index, stamp) in stamps.iter().enumerate() {
        let mut scene = Scene::new();
        let mut random = Random::new(index as u64);
        let (conn, player) = lie(&mut scene, 150, 40, |speaker, n| {
            let at = n as usize;
            speaker.media(
                VIDEO,
                1,
                stamp(n, &mut random),
                &pictures[at % pictures.len()],
            );
            for half in 0..2 {
                let body = &sound[(2 * at + half) % sound.len()];
                speaker.media(AUDIO, 1, stamp(2 * n + half as u32, &mut random), body);
            }
        });
        assert!(!scene.world.raw_peer(conn).closed);
        let got = media(scene.world.rtmp_peer(player), VIDEO);
        assert!(
            got.len() > 10,
            "{index}: its own players get pictures: {}",
            got.len()
        );
        assert!(
            got.windows(2).all(|pair| pair[0].1 <= pair[1].1),
            "{index}: in order"
        );
        scene.assert_unharmed();
    }
}

#[test]
fn a_late_player_of_a_long_group_of_pictures_gets_each_picture_once() {
    let mut scene = Scene::new();
    let mut speaker = Speaker::publisher("long");
    let header = Clip::load()
        .headers()
        .find(|tag| tag.type_id == VIDEO)
        .cloned();
    speaker.media(VIDEO, 1, 0, &header.expect("a header").payload);
    let conn = open(&mut scene, &mut speaker);
    // Ten seconds, 2.5 MB: more than a player is given at once, and longer than it may be
    // behind once it has caught up.
    for n in 0..250 {
        // An IDR slice of type I, then slices of type P.
        let (tag, nal, slice) = if n == 0 {
            (0x17, 0x65, 0x88)
        } else {
            (0x27, 0x41, 0x9a)
        };
        let mut body = vec![tag, 1, 0, 0, 0];
        body.extend_from_slice(&10_000_u32.to_be_bytes());
        body.extend_from_slice(&[nal, slice]);
        body.resize(9 + 10_000, 0x55);
        speaker.media(VIDEO, 1, n * 40, &body);
        scene.world.raw_send(conn, &speaker.take());
        scene.world.run_ms(40);
    }
    let player = scene.world.rtmp_play("live/long");
    scene.world.run_ms(1_000);
    let got = media(scene.world.rtmp_peer(player), VIDEO);
    let stamps: Vec<u32> = got.iter().map(|(_, timestamp, _)| *timestamp).collect();
    assert_eq!(got.len(), 251, "the header and each picture: {stamps:?}");
    assert!(
        stamps[1..].windows(2).all(|pair| pair[1] == pair[0] + 40),
        "{stamps:?}"
    );
    scene.assert_unharmed();
}

#[test]
fn media_without_configuration_and_configuration_without_media_disturb_nobody() {
    let pictures = coded(VIDEO);
    let sound = coded(AUDIO);
    let mut scene = Scene::new();
    let mut speaker = Speaker::publisher("bare");
    let conn = open(&mut scene, &mut speaker);
    for n in 0..200 {
        speaker.media(VIDEO, 1, n * 40, &pictures[n as usize % pictures.len()]);
        speaker.media(AUDIO, 1, n * 40, &sound[n as usize % sound.len()]);
    }
    scene.world.raw_send(conn, &speaker.take());
    assert!(!scene.world.raw_peer(conn).closed);
    let mut speaker = Speaker::publisher("silent");
    for header in Clip::load().headers() {
        speaker.media(header.type_id, 1, 0, &header.payload);
    }
    open(&mut scene, &mut speaker);
    scene.world.rtmp_play("live/silent");
    scene.world.whep("live/silent").expect("it is live");
    scene.world.run_ms(5_000);
    scene.assert_unharmed();
    let api = scene.world.http("GET", "/api/v1/streams", &[], "").body;
    assert!(
        api.contains("\"malformed\":400"),
        "what was not understood is told: {api}"
    );
}

#[test]
fn large_messages_in_chunks_of_one_byte_disturb_nobody() {
    let mut scene = Scene::new();
    let mut speaker = Speaker::publisher("grain");
    speaker.control(Control::SetChunkSize(1));
    let mut body = vec![0x17, 1, 0, 0, 0];
    body.resize(1 << 20, 0x55);
    speaker.media(VIDEO, 1, 0, &body);
    let conn = open(&mut scene, &mut speaker);
    scene.world.run_ms(100);
    assert!(
        !scene.world.raw_peer(conn).closed,
        "it is slow and in order"
    );
    scene.assert_unharmed();
}

#[test]
fn a_flood_of_metadata_disturbs_nobody() {
    let mut scene = Scene::new();
    let properties = (0..100).map(|n| (format!("key{n}"), Value::string("x".repeat(100))));
    let values = Value::EcmaArray(properties.collect());
    let mut body = Vec::new();
    for value in [
        Value::string("@setDataFrame"),
        Value::string("onMetaData"),
        values,
    ] {
        amf0::encode(&value, &mut body);
    }
    let (conn, player) = lie(&mut scene, 50, 20, |speaker, n| {
        for _ in 0..20 {
            speaker.media(18, 1, n * 20, &body);
        }
    });
    assert!(!scene.world.raw_peer(conn).closed);
    assert!(!scene.world.rtmp_peer(player).closed);
    scene.assert_unharmed();
}

#[test]
fn absurd_sound_is_refused_or_ignored() {
    let pictures = coded(VIDEO);
    for config in [
        &[][..],
        &[0x12],
        &[0xff, 0xff],
        &[0x12, 0x78],
        &[0xfa, 0xff, 0xff, 0xff, 0xff],
        &[0x17, 0x80, 0x00, 0x01, 0x08],
        &[0x0a, 0x10],
        &[0x2a, 0x10],
        &[0x13, 0x90, 0x56, 0xe5],
        &[0x11, 0xb8],
        &[0x17, 0x7f, 0xff, 0xff, 0x88],
    ] {
        let mut scene = Scene::new();
        lie(&mut scene, 30, 40, |speaker, n| {
            let mut body = vec![0xaf, 0];
            body.extend_from_slice(config);
            speaker.media(AUDIO, 1, n * 40, &body);
            speaker.media(
                AUDIO,
                1,
                n * 40,
                &[0xaf, 1, 0x21, 0x10, 0x04, 0xff, n as u8],
            );
            speaker.media(AUDIO, 1, n * 40 + 20, &vec![0xaf; 100_000]);
            speaker.media(VIDEO, 1, n * 40, &pictures[n as usize % pictures.len()]);
        });
        scene.assert_unharmed();
    }
}

#[test]
fn sound_and_times_of_a_lying_browser_disturb_nobody() {
    let mut scene = Scene::new();
    let bad = scene.world.whip("live/bad").expect("taken");
    scene.world.rtmp_play("live/bad");
    scene.world.run_ms(1_000);
    let sound = opus_tone(4);
    let mut random = Random::new(1);
    for _ in 0..300 {
        let now = scene.world.now;
        let stamp = random.draw() as u32;
        let payload: std::sync::Arc<[u8]> = match random.below(4) {
            0 => sound[0].clone(),
            // 120 ms of 2.5 ms frames; a head that promises 48 frames; empty.
            1 => vec![3 | 16 << 3, 48, 0, 0].into(),
            2 => vec![0xff; 1_300].into(),
            _ => Vec::new().into(),
        };
        scene
            .world
            .browser_mut(bad)
            .browser
            .write(now, Kind::Audio, &[payload], stamp);
        scene.world.run_ms(20);
    }
    scene.assert_unharmed();
}

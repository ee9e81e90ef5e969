//! Pictures that change their size, and pictures that browsers cannot show.

use rtmp_gateway::codec::h264::SpsInfo;
use rtmp_gateway::config::{BFramePolicy, Config};
use rtmp_gateway::rtmp::client::Event;

use crate::common::clip::{Clip, Feed, VIDEO};
use crate::common::watch::{assert_ms, pictures};
use crate::common::world::{World, coded, media};

fn changing() -> Feed {
    Clip::load()
        .feed()
        .only(VIDEO)
        .then(2_000, Clip::small().feed())
}

/// Case 30: the next key frame carries the new parameter sets, and the old ones never come back.
#[test]
fn a_new_size_comes_with_its_parameter_sets_and_the_old_ones_never_reappear() {
    let mut world = World::new();
    world.rtmp_publish_feed("live/a", changing());
    world.run_ms(300);
    let viewer = world.whep("live/a").expect("accepted");
    world.run_ms(6_000);
    let all = pictures(world.browser(viewer));
    let sizes: Vec<(u32, u32)> = all
        .iter()
        .filter_map(|p| SpsInfo::decode(p.sps()?).ok())
        .map(|info| (info.width, info.height))
        .collect();
    assert_eq!(sizes[0], (640, 360));
    assert!(sizes.len() >= 3, "{sizes:?}");
    assert!(
        sizes[1..].iter().all(|size| *size == (180, 320)),
        "{sizes:?}"
    );
    assert!(
        all.windows(2)
            .all(|p| p[1].rtp_time - p[0].rtp_time <= 3_601)
    );
    let tracks = world.stream("live/a").unwrap()["tracks"].clone();
    assert_eq!(
        (tracks[0]["width"].as_u64(), tracks[0]["height"].as_u64()),
        (Some(180), Some(320))
    );
}

/// Cases 30 and 50.
#[test]
fn players_get_the_new_header_and_metadata_before_the_new_pictures() {
    let mut world = World::new();
    let player = world.rtmp_play("live/a");
    world.run_ms(10);
    world.rtmp_publish_feed("live/a", changing());
    world.run_ms(4_000);
    let peer = world.rtmp_peer(player);
    let video = media(peer, VIDEO);
    let headers: Vec<usize> = (0..video.len())
        .filter(|at| video[*at].2[..2] == [0x17, 0])
        .collect();
    assert_eq!(headers.len(), 2);
    assert_eq!(
        video[headers[1] + 1].2[..2],
        [0x17, 1],
        "a key frame follows"
    );
    assert_eq!(video[headers[1] + 1].1, 2_000);
    let widths: Vec<f64> = peer
        .events
        .iter()
        .filter_map(|(_, event)| match event {
            Event::Metadata(values) => values.get("width")?.as_f64(),
            _ => None,
        })
        .collect();
    assert_eq!(widths, [640.0, 180.0]);
}

/// Case 50: a phone is turned round.
#[test]
fn a_browser_that_changes_its_size_gets_a_new_header_to_players() {
    let mut world = World::new();
    let player = world.rtmp_play("live/a");
    let browser = world.whip("live/a").expect("accepted");
    world.run_ms(2_000);
    world
        .source_mut(browser)
        .set_pictures(Clip::small().rtp_pictures());
    world.run_ms(2_000);
    let video = media(world.rtmp_peer(player), VIDEO);
    let headers: Vec<usize> = (0..video.len())
        .filter(|at| video[*at].2[..2] == [0x17, 0])
        .collect();
    assert_eq!(headers.len(), 2);
    assert_eq!(video[headers[1] + 1].2[..2], [0x17, 1]);
    let viewer = world.whep("live/a").expect("accepted");
    world.run_ms(500);
    let all = pictures(world.browser(viewer));
    let info = SpsInfo::decode(all[0].sps().unwrap()).unwrap();
    assert_eq!((info.width, info.height), (180, 320));
}

/// Case 31: B-frames are left out for browsers, and told of; players get everything.
#[test]
fn case_31_b_frames_are_dropped_for_browsers_and_only_for_them() {
    let mut world = World::new();
    let player = world.rtmp_play("live/a");
    world.run_ms(10);
    world.rtmp_publish_feed("live/a", Clip::b_frames().feed());
    world.run_ms(300);
    let viewer = world.whep("live/a").expect("accepted");
    world.run_ms(5_000);
    let all = pictures(world.browser(viewer));
    let sent = Clip::b_frames().access_units();
    let kept: Vec<_> = sent.iter().filter(|unit| !unit.has_b_slices).collect();
    assert!(kept.len() < sent.len() / 2);
    for picture in &all {
        let avcc = picture.avcc();
        assert!(
            kept.iter().any(|unit| unit.payload == avcc),
            "a B-frame at a viewer"
        );
    }
    // From the second key frame on it is live: pictures are three frames apart, but at the seams.
    let live: Vec<_> = all
        .iter()
        .skip_while(|p| p.at < world.start + std::time::Duration::from_millis(2_300))
        .collect();
    assert!(live.len() > 24, "{}", live.len());
    assert!(
        live.windows(2)
            .all(|p| p[1].rtp_time - p[0].rtp_time <= 3 * 3_600)
    );
    assert_shows_at_once(all[0].sps().unwrap());
    let video = coded(world.rtmp_peer(player), VIDEO);
    assert!(video.len() >= 130, "{}", video.len());
    for ((_, _, body), unit) in video.iter().zip(sent.iter().cycle()) {
        assert_eq!(body[5..], unit.payload);
    }
    let tracks = world.stream("live/a").unwrap()["tracks"].clone();
    assert!(tracks[0]["b_frames"].as_u64().unwrap() > 50, "{tracks}");
    assert!(tracks[0]["b_frames_dropped"].as_u64().unwrap() > 50);
    let advice = tracks[0]["advice"].as_str().expect("advice");
    assert!(advice.contains("bframes=0"), "{advice}");
    let metric = "rtmp_gateway_stream_b_frames_dropped_total{stream=\"live/a\"}";
    assert!(world.metric(metric) > 50.0);
}

/// Decoders are told not to wait for pictures that come out of order.
fn assert_shows_at_once(sps: &[u8]) {
    let info = SpsInfo::decode(sps).expect("an SPS");
    assert_eq!(info.max_num_reorder_frames, Some(0));
    assert!(!info.may_reorder());
}

/// Case 31: P pictures refer to B pictures, as x264 makes them without any setting. What cannot
/// be decoded without them is not sent.
#[test]
fn case_31_pictures_that_need_b_frames_are_left_out_up_to_the_next_key_frame() {
    let mut world = World::new();
    world.rtmp_publish_feed("live/a", Clip::b_pyramid().feed());
    world.run_ms(300);
    let viewer = world.whep("live/a").expect("accepted");
    world.run_ms(8_000);
    let all = pictures(world.browser(viewer));
    let sent = Clip::b_pyramid().access_units();
    let first_b = sent.iter().position(|unit| unit.has_b_slices).unwrap();
    // In order of decoding: an I picture, a P picture, the B pictures between them.
    let intact: Vec<_> = sent[..first_b].iter().collect();
    assert!(all.len() >= 3 * intact.len(), "{}", all.len());
    for picture in &all {
        let avcc = picture.avcc();
        assert!(intact.iter().any(|unit| unit.payload == avcc));
    }
    assert_shows_at_once(all[0].sps().unwrap());
    let tracks = world.stream("live/a").unwrap()["tracks"].clone();
    let advice = tracks[0]["advice"].as_str().expect("advice");
    assert!(advice.contains("b-pyramid=none"), "{advice}");
}

#[test]
fn case_31_a_publisher_of_b_frames_is_refused_where_configured() {
    let mut config = Config::default();
    config.streams.b_frames = BFramePolicy::Refuse;
    let mut world = World::with_config(config);
    let publisher = world.rtmp_publish_feed("live/a", Clip::b_frames().feed());
    world.run_ms(1_000);
    let peer = world.rtmp_peer(publisher);
    assert_eq!(
        peer.statuses(),
        ["NetStream.Publish.Start", "NetStream.Publish.Failed"]
    );
    assert!(peer.closed_at.is_some());
    assert!(world.stream("live/a").is_none());
}

/// Case 31: all composition times alike are no B-frames.
#[test]
fn case_31_a_constant_composition_time_is_no_b_frame() {
    let mut config = Config::default();
    config.streams.b_frames = BFramePolicy::Refuse;
    let mut world = World::with_config(config);
    let feed = Clip::load().feed().map(|(time, mut tag)| {
        if tag.type_id == VIDEO {
            let mut body = tag.payload.to_vec();
            body[2..5].copy_from_slice(&80_u32.to_be_bytes()[1..]);
            tag.payload = body.into();
        }
        (time, tag)
    });
    let publisher = world.rtmp_publish_feed("live/a", feed);
    world.run_ms(1_500);
    let viewer = world.whep("live/a").expect("accepted");
    let player = world.rtmp_play("live/a");
    world.run_ms(3_000);
    assert!(world.rtmp_peer(publisher).closed_at.is_none());
    let connected = world.connected_at(viewer).unwrap();
    let all = pictures(world.browser(viewer));
    assert_ms(all[0].at - connected, 0..=10);
    let tail = &all[all.len() - 20..];
    assert!(
        tail.windows(2)
            .all(|p| p[1].rtp_time - p[0].rtp_time == 3_600)
    );
    let video = coded(world.rtmp_peer(player), VIDEO);
    assert!(video.iter().all(|(_, _, body)| body[2..5] == [0, 0, 80]));
}

//! Players that join late or lag, publishers that follow one another, connections that do
//! both: nobody gets a picture twice, nobody is forgotten, nothing is left behind.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::browser::{BrowserConfig, Does, Kind, Seen};
use common::clip::{AUDIO, Clip, VIDEO};
use common::world::{World, media};
use rtmp_gateway::gateway::{ConnId, WorldCounters};
use rtmp_gateway::rtmp::amf0::{self, Value};
use rtmp_gateway::rtmp::chunk::encode_shared;
use rtmp_gateway::rtmp::client::{Event, Goal};

// ---- Publishers of our own make ----

/// A coded video tag of one slice.
fn picture(key: bool, bytes: usize) -> Bytes {
    let mut body = vec![if key { 0x17 } else { 0x27 }, 1, 0, 0, 0];
    body.extend_from_slice(&(bytes as u32).to_be_bytes());
    body.extend_from_slice(if key {
        &[0x65, 0x88, 0x84]
    } else {
        &[0x41, 0x9a, 0x24]
    });
    body.resize(9 + bytes, 0xaa);
    body.into()
}

/// Publishes 25 pictures a second for `seconds`, the first one a key frame.
fn publish_long_gop(world: &mut World, conn: ConnId, seconds: u32, bytes: usize) {
    for tag in Clip::load().headers().filter(|tag| tag.type_id == VIDEO) {
        world.rtmp_mut(conn).client.send_video(0, &[], &tag.payload);
    }
    for n in 0..seconds * 25 {
        world
            .rtmp_mut(conn)
            .client
            .send_video(n * 40, &[], &picture(n == 0, bytes));
        world.pump_rtmp(conn);
        world.run_ms(40);
    }
}

/// A message on any NetStream of a client's connection, past the client.
fn send(world: &mut World, conn: ConnId, type_id: u8, stream_id: u32, payload: &[u8]) {
    let bytes = encode_shared(8, 0, type_id, stream_id, &[payload], 128);
    world.rtmp_mut(conn).client.transmit().push(bytes);
    world.pump_rtmp(conn);
}

fn command(world: &mut World, conn: ConnId, stream_id: u32, values: &[Value]) {
    let mut body = Vec::new();
    for value in values {
        amf0::encode(value, &mut body);
    }
    send(world, conn, 20, stream_id, &body);
}

fn play_on(world: &mut World, conn: ConnId, stream_id: u32, name: &str) {
    let values = [
        Value::string("play"),
        Value::Number(9.0),
        Value::Null,
        Value::string(name),
    ];
    command(world, conn, stream_id, &values);
}

fn publish_on(world: &mut World, conn: ConnId, stream_id: u32, name: &str) {
    let values = [
        Value::string("publish"),
        Value::Number(9.0),
        Value::Null,
        Value::string(name),
        Value::string("live"),
    ];
    command(world, conn, stream_id, &values);
}

fn statuses(world: &World, conn: ConnId) -> Vec<String> {
    let events = world.rtmp_peer(conn).events.iter();
    events
        .filter_map(|(_, event)| match event {
            Event::Status { code, .. } => Some(code.clone()),
            _ => None,
        })
        .collect()
}

fn timestamps(world: &World, conn: ConnId, kind: u8) -> Vec<u32> {
    media(world.rtmp_peer(conn), kind)
        .iter()
        .filter(|(_, _, body)| body[1] == 1)
        .map(|(_, timestamp, _)| *timestamp)
        .collect()
}

fn api(world: &mut World, path: &str) -> serde_json::Value {
    let answer = world.http("GET", path, &[], "");
    serde_json::from_str(&answer.body).expect("JSON")
}

fn rtp(world: &World, browser: usize, wanted: Kind) -> Vec<(Duration, usize, u64)> {
    let seen = world.browser(browser).seen.iter();
    seen.filter_map(|(at, seen)| match seen {
        Seen::Rtp {
            kind,
            payload,
            rtp_time,
            ..
        } if *kind == wanted => Some((*at - world.start, payload.len(), *rtp_time)),
        _ => None,
    })
    .collect()
}

// ---- Joining late ----

#[test]
fn a_late_player_in_a_long_gop_gets_each_picture_once() {
    let mut world = World::new();
    let publisher = world.rtmp(Goal::Publish, "live/a");
    world.run_ms(50);
    publish_long_gop(&mut world, publisher, 5, 8_000);
    let player = world.rtmp_play("live/a");
    world.run_ms(100);
    let got = timestamps(&world, player, VIDEO);
    assert_eq!(got.len(), 125);
    assert!(got.windows(2).all(|pair| pair[0] < pair[1]), "{got:?}");
}

#[test]
fn a_slow_player_never_goes_back() {
    let mut world = World::new();
    let publisher = world.rtmp(Goal::Publish, "live/a");
    world.run_ms(50);
    let player = world.rtmp_play("live/a");
    world.run_ms(50);
    world.rtmp_mut(player).reads = false;
    publish_long_gop(&mut world, publisher, 8, 8_000);
    world.resume_reading(player);
    world.run_ms(100);
    let got = timestamps(&world, player, VIDEO);
    assert_eq!(
        got[0],
        got[0].min(40),
        "the key frame came before it stopped reading"
    );
    assert!(got.windows(2).all(|pair| pair[0] < pair[1]), "{got:?}");
}

#[test]
fn a_viewer_in_a_gop_of_four_seconds_is_paced() {
    let mut world = World::new();
    let publisher = world.rtmp(Goal::Publish, "live/a");
    world.run_ms(50);
    publish_long_gop(&mut world, publisher, 3, 10_000);
    // Beyond what a player may lag, within what a viewer catches up on.
    for n in 75..95 {
        world
            .rtmp_mut(publisher)
            .client
            .send_video(n * 40, &[], &picture(false, 10_000));
        world.pump_rtmp(publisher);
        world.run_ms(40);
    }
    let viewer = world.whep("live/a").expect("a viewer");
    world.run_ms(2_000);
    let got = rtp(&world, viewer, Kind::Video);
    let first = got[0].0;
    let soon: usize = got
        .iter()
        .filter(|(at, ..)| *at - first < Duration::from_millis(100))
        .map(|(_, bytes, _)| bytes)
        .sum();
    // 2 Mbit/s, three times that for 100 ms, and the key frame.
    assert!((50_000..110_000).contains(&soon), "{soon}");
    let all: usize = got.iter().map(|(_, bytes, _)| bytes).sum();
    assert!(all >= 95 * 10_000, "{all}");
}

// ---- One connection that does several things ----

#[test]
fn a_connection_that_waits_for_what_it_publishes_itself_is_told() {
    let mut world = World::new();
    let conn = world.rtmp_play("live/b");
    world.run_ms(50);
    publish_on(&mut world, conn, 2, "b");
    world.run_ms(50);
    let codes = statuses(&world, conn);
    assert!(
        codes
            .iter()
            .any(|code| code == "NetStream.Play.PublishNotify"),
        "{codes:?}"
    );
    for tag in Clip::load().headers().filter(|tag| tag.type_id == VIDEO) {
        send(&mut world, conn, VIDEO, 2, &tag.payload);
    }
    send(&mut world, conn, VIDEO, 2, &picture(true, 90));
    world.run_ms(50);
    assert_eq!(timestamps(&world, conn, VIDEO).len(), 1);
}

#[test]
fn a_play_that_waited_in_vain_leaves_nothing_behind() {
    let mut world = World::new();
    let conn = world.rtmp_publish("live/a");
    world.run_ms(50);
    play_on(&mut world, conn, 2, "b");
    world.run_ms(1_000);
    assert_eq!(
        api(&mut world, "/api/v1/streams")["streams"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
    world.run_ms(31_000);
    let codes = statuses(&world, conn);
    assert!(
        codes
            .iter()
            .any(|code| code == "NetStream.Play.StreamNotFound"),
        "{codes:?}"
    );
    let streams = api(&mut world, "/api/v1/streams");
    let names: Vec<_> = streams["streams"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|s| &s["name"])
        .collect();
    assert_eq!(names, ["live/a"], "the publisher goes on");
}

// ---- The end of a stream ----

#[test]
fn the_last_picture_before_the_end_reaches_the_players() {
    let mut world = World::new();
    let publisher = world.rtmp(Goal::Publish, "live/a");
    world.run_ms(50);
    let player = world.rtmp_play("live/a");
    world.run_ms(50);
    publish_long_gop(&mut world, publisher, 1, 500);
    // ffmpeg's last write: the rest of its pictures, and the end of the stream.
    world
        .rtmp_mut(publisher)
        .client
        .send_video(1_000, &[], &picture(false, 500));
    world.rtmp_stop(publisher);
    world.run_ms(50);
    let events = &world.rtmp_peer(player).events;
    let last = events.iter().rposition(
        |(_, event)| matches!(event, Event::Video { timestamp, .. } if *timestamp >= 1_000),
    );
    let end = events.iter().position(|(_, event)| {
        matches!(event, Event::Status { code, .. } if code == "NetStream.Play.UnpublishNotify")
    });
    assert!(last.expect("the last picture") < end.expect("the end"));
}

// ---- One publisher after the other ----

#[test]
fn headers_are_not_repeated_after_a_restart_with_the_same_ones() {
    let mut world = World::new();
    let first = world.rtmp_publish("live/a");
    world.run_ms(500);
    let player = world.rtmp_play("live/a");
    world.run_ms(500);
    world.rtmp_kill(first);
    world.run_ms(500);
    world.rtmp_publish("live/a");
    world.run_ms(1_000);
    for kind in [VIDEO, AUDIO] {
        let all = media(world.rtmp_peer(player), kind);
        let headers = all.iter().filter(|(_, _, body)| body[1] == 0).count();
        assert_eq!(headers, 1, "kind {kind}");
        let got = timestamps(&world, player, kind);
        assert!(got.windows(2).all(|pair| pair[0] <= pair[1]), "{got:?}");
    }
}

#[test]
fn the_sound_of_the_publisher_before_is_not_announced() {
    let mut world = World::new();
    let first = world.rtmp_publish("live/a");
    world.run_ms(500);
    let player = world.rtmp_play("live/a");
    world.run_ms(500);
    world.rtmp_kill(first);
    world.run_ms(500);
    world.rtmp_publish_tracks("live/a", true, false, 0);
    world.run_ms(1_000);
    let stream = api(&mut world, "/api/v1/streams/live/a");
    let kinds: Vec<_> = stream["tracks"]
        .as_array()
        .expect("tracks")
        .iter()
        .map(|t| &t["kind"])
        .collect();
    assert_eq!(kinds, ["video"]);
    let late = world.rtmp_play("live/a");
    world.run_ms(200);
    for conn in [player, late] {
        let events = world.rtmp_peer(conn).events.iter();
        let last = events.filter_map(|(_, event)| match event {
            Event::Metadata(values) => Some(values),
            _ => None,
        });
        let last = last.last().expect("metadata");
        assert!(last.get("videocodecid").is_some());
        assert_eq!(last.get("audiocodecid"), None);
    }
}

#[test]
fn everybody_hears_a_browser_that_takes_over_from_an_encoder() {
    let mut world = World::new();
    let encoder = world.rtmp_publish("live/a");
    world.run_ms(500);
    let player = world.rtmp_play("live/a");
    let viewer = world.whep("live/a").expect("a viewer");
    world.run_ms(1_500);
    world.rtmp_kill(encoder);
    world.run_ms(500);
    world.whip("live/a").expect("free");
    world.run_ms(1_000);
    let from = world.now;
    world.run_ms(2_000);
    let since = from - world.start;
    let heard: Vec<_> = rtp(&world, viewer, Kind::Audio)
        .into_iter()
        .filter(|(at, ..)| *at >= since)
        .collect();
    assert!(
        (98..=102).contains(&heard.len()),
        "{} Opus packets",
        heard.len()
    );
    assert!(heard.windows(2).all(|pair| pair[0].2 < pair[1].2));
    let sounds = media(world.rtmp_peer(player), AUDIO);
    let aac = sounds
        .iter()
        .filter(|(at, _, body)| *at >= from && body[1] == 1)
        .count();
    assert!((90..=97).contains(&aac), "{aac} AAC frames");
    let stream = api(&mut world, "/api/v1/streams/live/a");
    assert_eq!(stream["transcode"]["aac_to_opus"], false);
    assert_eq!(stream["transcode"]["opus_to_aac"], true);
}

#[test]
fn pictures_before_the_first_key_frame_of_a_publisher_are_left_out() {
    let mut world = World::new();
    let first = world.rtmp_publish_tracks("live/a", true, false, 0);
    world.run_ms(500);
    let player = world.rtmp_play("live/a");
    world.run_ms(500);
    world.rtmp_kill(first);
    world.run_ms(100);
    let before = timestamps(&world, player, VIDEO).len();
    let second = world.rtmp(Goal::Publish, "live/a");
    world.run_ms(50);
    for tag in Clip::load().headers().filter(|tag| tag.type_id == VIDEO) {
        world
            .rtmp_mut(second)
            .client
            .send_video(0, &[], &tag.payload);
    }
    for (n, key) in [false, false, true, false].into_iter().enumerate() {
        world
            .rtmp_mut(second)
            .client
            .send_video(n as u32 * 40, &[], &picture(key, 100));
    }
    world.pump_rtmp(second);
    world.run_ms(50);
    assert_eq!(timestamps(&world, player, VIDEO).len() - before, 2);
}

// ---- What is left behind ----

#[test]
fn the_tcp_connection_of_a_session_that_ended_is_closed() {
    let mut world = World::new();
    world.rtmp_publish("live/a");
    world.run_ms(500);
    let mut config = BrowserConfig::new(Does::View);
    config.addresses = vec![(std::net::SocketAddr::from(([198, 51, 100, 10], 0)), true)];
    let viewer = world.browse("/whep/live/a", config, &[]).expect("a viewer");
    world.run_ms(1_000);
    assert!(
        !rtp(&world, viewer, Kind::Video).is_empty(),
        "it plays over TCP"
    );
    // The publisher, the POST, and then the viewer's own.
    let tcp = ConnId(3);
    let session = world.browser(viewer).session.clone();
    assert_eq!(world.http("DELETE", &session, &[], "").status, 200);
    world.browser_mut(viewer).online = false;
    world.run_ms(15_000);
    assert!(world.raw_peer(tcp).closed);
}

#[test]
fn a_stream_without_sound_keeps_no_more_than_its_gop_for_a_viewer() {
    let mut world = World::new();
    world.rtmp_publish_tracks("live/a", true, false, 0);
    world.run_ms(500);
    world.whep("live/a").expect("a viewer");
    world.run_ms(9_990);
    let cache = api(&mut world, "/api/v1/streams/live/a")["cache"].clone();
    assert_eq!(cache["bytes"], cache["gop_bytes"], "{cache}");
}

#[test]
fn the_first_sound_after_a_silence_is_heard() {
    let mut world = World::new();
    let publisher = world.whip("live/a").expect("a publisher");
    world.run_ms(500);
    let viewer = world.whep("live/a").expect("a viewer");
    world.run_ms(2_000);
    world.whip_sound(publisher, false);
    world.run_ms(2_000);
    world.whip_sound(publisher, true);
    let from = world.now - world.start;
    world.run_ms(200);
    let heard = rtp(&world, viewer, Kind::Audio);
    let first = heard
        .iter()
        .find(|(at, ..)| *at >= from + Duration::from_millis(2))
        .expect("sound");
    assert!(
        first.0 - from <= Duration::from_millis(23),
        "{:?}",
        first.0 - from
    );
}

// ---- Key frames of browsers ----

#[test]
fn a_lost_key_frame_request_is_repeated() {
    let mut world = World::new();
    let publisher = world.whip("live/a").expect("a publisher");
    // Its key frame is old, and it has just sent a picture and a packet of sound.
    world.run_ms(1_301);
    let is_request = |seen: &Seen| matches!(seen, Seen::KeyframeRequested);
    world.link.loss_permille = 1_000;
    let joined = world.now;
    world.rtmp_play("live/a");
    world.run_ms(15);
    world.link.loss_permille = 0;
    assert_eq!(world.first_seen(publisher, joined, is_request), None);
    world.run_ms(1_000);
    let asked = world
        .first_seen(publisher, joined, is_request)
        .expect("asked again");
    assert!(asked < Duration::from_millis(600), "{asked:?}");
    // And no more once it came.
    let answered = world.now;
    world.run_ms(3_000);
    assert_eq!(world.first_seen(publisher, answered, is_request), None);
}

// ---- Publishers that stop for a while ----

#[test]
fn a_viewer_of_a_publisher_that_paused_without_a_gap_gets_even_stamps() {
    let mut world = World::new();
    let publisher = world.rtmp(Goal::Publish, "live/a");
    world.run_ms(50);
    publish_long_gop(&mut world, publisher, 1, 500);
    // A program in the background: time passes, its timestamps do not.
    world.run_ms(10_000);
    let go_on = |world: &mut World, from: u32, to: u32| {
        for n in from..to {
            world
                .rtmp_mut(publisher)
                .client
                .send_video(n * 40, &[], &picture(n == 25, 500));
            world.pump_rtmp(publisher);
            world.run_ms(40);
        }
    };
    go_on(&mut world, 25, 45);
    let viewer = world.whep("live/a").expect("a viewer");
    go_on(&mut world, 45, 145);
    let got = rtp(&world, viewer, Kind::Video);
    // The last three seconds are live.
    let steps: Vec<u64> = got.windows(2).map(|pair| pair[1].2 - pair[0].2).collect();
    assert!(
        steps
            .iter()
            .rev()
            .take(75)
            .all(|step| (3_599..=3_601).contains(step)),
        "{steps:?}"
    );
}

// ---- What operators see ----

#[test]
fn the_counters_of_the_world_are_among_the_metrics() {
    let mut world = World::new();
    world.gateway.set_world_counters(WorldCounters {
        datagrams_dropped_full: 3,
        connections_refused: 4,
        has_gso: true,
        longest_turn_us: 2_500,
        ..WorldCounters::default()
    });
    let page = world.http("GET", "/metrics", &[], "").body;
    for line in [
        "rtmp_gateway_datagrams_dropped_total{cause=\"full\"} 3",
        "rtmp_gateway_connections_refused_total 4",
        "rtmp_gateway_udp_gso 1",
        "rtmp_gateway_longest_turn_seconds 0.0025",
    ] {
        assert!(page.lines().any(|l| l == line), "{line}\n{page}");
    }
}

// ---- Paths that are too narrow ----

/// How many pictures a viewer got of a GOP that it joined three seconds in, before the next one.
fn caught_up(loss_permille: u64) -> usize {
    let mut world = World::new();
    let publisher = world.rtmp(Goal::Publish, "live/a");
    world.run_ms(50);
    publish_long_gop(&mut world, publisher, 3, 10_000);
    let viewer = world.whep("live/a").expect("a viewer");
    let up = |world: &World| {
        world
            .browser(viewer)
            .seen
            .iter()
            .any(|(_, seen)| matches!(seen, Seen::Connected))
    };
    assert!(world.run_until_ms(1_000, up));
    world.link.loss_permille = loss_permille;
    for n in 75..125 {
        world
            .rtmp_mut(publisher)
            .client
            .send_video(n * 40, &[], &picture(false, 10_000));
        world.pump_rtmp(publisher);
        world.run_ms(40);
    }
    let seen = world.browser(viewer).seen.iter();
    seen.filter(|(_, seen)| {
        matches!(
            seen,
            Seen::Rtp {
                kind: Kind::Video,
                marker: true,
                ..
            }
        )
    })
    .count()
}

#[test]
fn a_catch_up_that_the_path_does_not_carry_is_given_up() {
    assert_eq!(caught_up(0), 125);
    assert!(caught_up(5) >= 120, "a little loss is mended");
    let lossy = caught_up(200);
    assert!(lossy < 60, "{lossy}");
}

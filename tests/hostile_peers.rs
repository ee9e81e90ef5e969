//! Peers that keep to the letter of the protocols and mean harm: storms, floods, bombs and
//! lies. The innocent go on unharmed, limits are kept, and everything is given back.

mod common;
mod hostile;

use common::browser::{BrowserConfig, Does};
use common::clip::{AUDIO, Clip, VIDEO};
use hostile::Random;
use hostile::scene::{Scene, open};
use hostile::speaker::Speaker;
use rtmp_gateway::config::Config;
use rtmp_gateway::gateway::{ConnId, Input, Listener};
use rtmp_gateway::rtmp::amf0::Value;

fn disconnect(scene: &mut Scene, conn: ConnId) {
    scene.world.input(Input::Disconnected { conn, error: None });
}

fn name(text: &str) -> Vec<Value> {
    vec![Value::string(text)]
}

/// What the gateway said on a connection, as text to look for status codes in.
fn heard(scene: &Scene, conn: ConnId) -> String {
    String::from_utf8_lossy(&scene.world.raw_peer(conn).received).into_owned()
}

// ---- RTMP commands ----

#[test]
fn a_storm_of_publish_and_play_on_one_connection_leaves_nothing() {
    let mut scene = Scene::new();
    let base = scene.metrics();
    for seed in 0..20 {
        let mut random = Random::new(seed);
        let mut speaker = Speaker::connected();
        let conn = open(&mut scene, &mut speaker);
        for _ in 0..300 {
            let stream_id = random.below(10) as u32;
            let key = ["storm", "storm2", "innocent", "camera", "a/b", ""][random.below(6)];
            match random.below(9) {
                0 | 1 => speaker.call(stream_id, "publish", name(key)),
                2 | 3 => speaker.call(stream_id, "play", name(key)),
                4 => speaker.call(0, "deleteStream", vec![Value::Number(f64::from(stream_id))]),
                5 => speaker.call(stream_id, "closeStream", vec![]),
                6 => speaker.call(0, "createStream", vec![]),
                7 => speaker.call(0, "FCUnpublish", name(key)),
                _ => speaker.call(
                    stream_id,
                    "pause",
                    vec![Value::Boolean(random.below(2) == 0)],
                ),
            }
            if random.below(3) == 0 {
                scene.world.raw_send(conn, &speaker.take());
                scene.world.run_ms(1);
            }
        }
        scene.world.raw_send(conn, &speaker.take());
        scene.world.run_ms(20);
        disconnect(&mut scene, conn);
    }
    scene.world.run_ms(20_000);
    scene.assert_unharmed();
    let after = scene.metrics();
    assert_eq!(after.connections("rtmp"), base.connections("rtmp"));
    assert_eq!(after.get("rtmp_gateway_streams"), 2);
    let players = "rtmp_gateway_stream_players{stream=\"live/innocent\",protocol=\"rtmp\"}";
    assert_eq!(after.get(players), 1);
}

#[test]
fn a_player_that_waits_on_its_publishers_connection_is_served() {
    let mut scene = Scene::new();
    let clip = Clip::load();
    let mut speaker = Speaker::connected();
    speaker.call(0, "createStream", vec![]);
    speaker.call(0, "createStream", vec![]);
    speaker.call(2, "play", name("own"));
    speaker.call(1, "publish", name("own"));
    let conn = open(&mut scene, &mut speaker);
    for (time, tag) in clip.frames().take_while(|(time, _)| *time < 40_000) {
        if time == 0 {
            for header in clip.headers() {
                speaker.media(header.type_id, 1, 0, &header.payload);
            }
        }
        speaker.media(tag.type_id, 1, time as u32, &tag.payload);
        if tag.type_id == VIDEO {
            scene.world.raw_send(conn, &speaker.take());
            scene.world.run_ms(40);
        }
    }
    assert!(!scene.world.raw_peer(conn).closed);
    let heard = heard(&scene, conn);
    assert!(
        heard.contains("NetStream.Play.PublishNotify"),
        "it was told"
    );
    assert!(!heard.contains("StreamNotFound"), "it did not wait in vain");
    assert!(
        scene.world.raw_peer(conn).received.len() > 1_000_000,
        "it got the stream"
    );
    scene.assert_unharmed();
}

#[test]
fn a_player_whose_wait_is_over_leaves_no_stream_while_its_connection_lives() {
    let mut scene = Scene::new();
    let base = scene.metrics().get("rtmp_gateway_streams");
    let mut speaker = Speaker::publisher("busy");
    speaker.call(0, "createStream", vec![]);
    let conn = open(&mut scene, &mut speaker);
    for round in 0..5 {
        speaker.call(2, "play", name(&format!("absent{round}")));
        scene.world.raw_send(conn, &speaker.take());
        for _ in 0..32 {
            speaker.media(AUDIO, 1, 0, &[0xaf, 1, 0]);
            scene.world.raw_send(conn, &speaker.take());
            scene.world.run_ms(1_000);
        }
    }
    let after = scene.metrics();
    assert_eq!(after.error("play_wait_timeout"), 5);
    assert_eq!(
        after.get("rtmp_gateway_streams"),
        base + 1,
        "but for its own"
    );
}

#[test]
fn players_that_wait_do_not_take_the_publishers_room() {
    let mut config = Config::default();
    config.streams.streams_max = 50;
    let mut scene = Scene::with_config(config);
    for conn in 0..20 {
        let mut speaker = Speaker::connected();
        for n in 0..8 {
            speaker.call(n + 1, "play", name(&format!("nobody{conn}-{n}")));
        }
        open(&mut scene, &mut speaker);
    }
    let waiting = scene.metrics();
    assert!(waiting.get("rtmp_gateway_streams") <= 2 + 50);
    assert!(waiting.error("streams_max") > 0);
    let late = scene.world.rtmp_publish("live/late");
    scene.world.run_ms(1_000);
    assert!(
        !scene.world.rtmp_peer(late).closed,
        "there is room for a publisher"
    );
    scene.assert_unharmed();
}

#[test]
fn ten_thousand_names_end_at_the_limit() {
    let mut config = Config::default();
    config.streams.streams_max = 100;
    let mut scene = Scene::with_config(config);
    let mut conns = Vec::new();
    for conn in 0..1_250 {
        let mut speaker = Speaker::connected();
        for n in 0..8 {
            speaker.call(n + 1, "publish", name(&format!("name{conn}-{n}")));
        }
        conns.push(open(&mut scene, &mut speaker));
    }
    let full = scene.metrics();
    assert_eq!(full.get("rtmp_gateway_streams"), 100);
    assert!(
        full.error("streams_max") >= 1_000,
        "{}",
        full.error("streams_max")
    );
    scene.world.run_ms(500);
    scene.assert_unharmed();
    for conn in conns {
        disconnect(&mut scene, conn);
    }
    scene.world.run_ms(100);
    assert_eq!(scene.metrics().get("rtmp_gateway_streams"), 2);
    scene.assert_unharmed();
}

#[test]
fn thousands_of_net_streams_are_refused_past_the_limit() {
    let mut scene = Scene::new();
    let mut speaker = Speaker::connected();
    for _ in 0..2_000 {
        speaker.call(0, "createStream", vec![]);
    }
    let conn = open(&mut scene, &mut speaker);
    let heard = heard(&scene, conn);
    assert_eq!(heard.matches("Too many streams").count() + 8, 2_000);
    scene.assert_unharmed();
}

#[test]
fn refused_names_are_counted() {
    let mut scene = Scene::new();
    for (text, reason) in [
        ("..", "stream_name_bad_character"),
        ("a\u{1}b", "stream_name_bad_character"),
        ("%ff", "stream_name_bad_character"),
    ] {
        for command in ["publish", "play"] {
            let before = scene.metrics().error(reason);
            let mut speaker = Speaker::connected();
            speaker.call(1, command, name(text));
            let conn = open(&mut scene, &mut speaker);
            assert!(scene.world.raw_peer(conn).closed, "{text:?}");
            assert_eq!(
                scene.metrics().error(reason),
                before + 1,
                "{command} {text:?}"
            );
        }
    }
}

// ---- Idle, slow and half ----

#[test]
fn a_thousand_idle_connections_are_all_let_go() {
    let mut scene = Scene::new();
    let base = scene.metrics();
    let hello = hostile::speaker::handshake();
    for n in 0..1_000 {
        let listener = [Listener::Rtmp, Listener::Http][n % 2];
        let conn = scene.world.connect(listener);
        let said: &[u8] = match n % 10 {
            0 => &hello[..1],
            1 => b"G",
            2 => &hello[..1_537],
            3 => b"POST /whip/live/x HTTP/1.1\r\nContent-Length: 10\r\n\r\n",
            4 => &hello,
            5 => b"GET / HTTP/1.1\r\nA: ",
            _ => b"",
        };
        if !said.is_empty() {
            scene.world.raw_send(conn, said);
        }
    }
    assert_eq!(
        scene.metrics().connections("rtmp"),
        base.connections("rtmp") + 500
    );
    scene.world.run_ms(10_100);
    scene.assert_unharmed();
    let after = scene.metrics();
    assert_eq!(after.connections("rtmp"), base.connections("rtmp"));
    assert_eq!(after.connections("http"), base.connections("http"));
    assert_eq!(after.error("handshake_timeout"), 400);
    assert_eq!(after.error("connect_timeout"), 100);
}

#[test]
fn bytes_one_by_one_do_not_stretch_a_deadline() {
    let mut scene = Scene::new();
    let base = scene.metrics();
    let request = b"POST /whip/live/x HTTP/1.1\r\nHost: a\r\nA: aaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    let hello = hostile::speaker::handshake();
    let http = scene.world.connect(Listener::Http);
    let rtmp = scene.world.connect(Listener::Rtmp);
    for n in 0..60 {
        scene.world.raw_send(http, &request[n..=n]);
        scene.world.raw_send(rtmp, &hello[n..=n]);
        scene.world.run_ms(200);
    }
    assert!(scene.world.raw_peer(http).closed && scene.world.raw_peer(rtmp).closed);
    assert!(heard(&scene, http).starts_with("HTTP/1.1 408"));
    let after = scene.metrics();
    assert_eq!(after.connections("http"), base.connections("http"));
    assert_eq!(after.error("handshake_timeout"), 1);
    scene.assert_unharmed();
}

// ---- WHIP and WHEP ----

#[test]
fn a_storm_of_whip_posts_ends_at_the_limit_and_is_forgotten() {
    let mut config = Config::default();
    config.webrtc.publishers_max = 20;
    let mut scene = Scene::with_config(config);
    let offer = include_str!("fixtures/offers/obs-30-whip.sdp");
    let header = [("Content-Type", "application/sdp")];
    let mut taken = 0;
    for n in 0..100 {
        let answer = scene
            .world
            .http("POST", &format!("/whip/live/w{n}"), &header, offer);
        match answer.status {
            201 => taken += 1,
            503 => assert!(answer.header("Retry-After").is_some()),
            other => panic!("{other}: {}", answer.body),
        }
    }
    assert_eq!(taken, 19, "the camera is the twentieth");
    assert_eq!(scene.metrics().error("publishers_max"), 81);
    // None of them ever connects.
    scene.world.run_ms(16_000);
    let after = scene.metrics();
    assert_eq!(
        after.get("rtmp_gateway_webrtc_sessions{role=\"publisher\"}"),
        1
    );
    assert_eq!(after.get("rtmp_gateway_streams"), 2);
    scene.assert_unharmed();
}

#[test]
fn sessions_cannot_be_changed_without_their_name_and_token() {
    let mut scene = Scene::new();
    let token = [("Authorization", "Bearer secret")];
    let victim = scene
        .world
        .whip_with("live/victim", true, true, &token)
        .expect("taken");
    scene.world.run_ms(500);
    let path = scene.world.browser(victim).session.clone();
    let kind = ("Content-Type", "application/trickle-ice-sdpfrag");
    let fragment = "a=ice-ufrag:evil\r\na=ice-pwd:0123456789012345678901\r\n";
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let guess: String = (0..22)
            .map(|_| *random.of(&['a', 'b', 'Z', '0', '_', '-']))
            .collect();
        let wrong = format!("{}/{guess}", path.rsplit_once('/').expect("a path").0);
        assert_eq!(scene.world.http("DELETE", &wrong, &[], "").status, 404);
        assert_eq!(
            scene.world.http("PATCH", &wrong, &[kind], fragment).status,
            404
        );
        let guess = [("Authorization", "Bearer guess"), kind];
        for headers in [&[kind][..], &guess] {
            assert_eq!(scene.world.http("DELETE", &path, headers, "").status, 401);
            assert_eq!(
                scene.world.http("PATCH", &path, headers, fragment).status,
                401
            );
        }
    }
    scene.assert_unharmed();
    assert_eq!(scene.world.http("DELETE", &path, &token, "").status, 200);
    assert_eq!(scene.world.http("DELETE", &path, &token, "").status, 404);
    scene.assert_unharmed();
}

#[test]
fn an_ice_tcp_connection_does_not_outlive_its_session() {
    let mut scene = Scene::new();
    let mut config = BrowserConfig::new(Does::View);
    config.addresses = vec![(([198, 51, 100, 10], 0).into(), true)];
    let viewer = scene
        .world
        .browse("/whep/live/innocent", config, &[])
        .expect("taken");
    scene.world.run_ms(1_000);
    assert_eq!(scene.metrics().connections("ice_tcp"), 1);
    let path = scene.world.browser(viewer).session.clone();
    scene.world.browser_mut(viewer).online = false;
    assert_eq!(scene.world.http("DELETE", &path, &[], "").status, 200);
    scene.world.run_ms(15_000);
    assert_eq!(scene.metrics().connections("ice_tcp"), 0);
    scene.assert_unharmed();
}

#[test]
fn a_viewer_that_asks_for_key_frames_all_the_time_disturbs_nobody() {
    let mut scene = Scene::new();
    let storm = scene.world.whep("live/innocent").expect("taken");
    let other = scene.world.whep("live/camera").expect("taken");
    scene.world.run_ms(1_000);
    let before = scene.metrics();
    let sent = before.get("rtmp_gateway_datagrams_sent_total");
    for _ in 0..400 {
        let now = scene.world.now;
        for viewer in [storm, other] {
            scene
                .world
                .browser_mut(viewer)
                .browser
                .request_keyframe(now);
        }
        scene.world.run_ms(10);
    }
    let after = scene.metrics();
    let asked = "rtmp_gateway_keyframe_requests_received_total";
    assert!(after.get(asked) - before.get(asked) > 100);
    // The publisher is asked every 500 ms at most.
    let asks = "rtmp_gateway_keyframe_requests_sent_total";
    let asks = after.get(asks) - before.get(asks);
    assert!(asks <= 9, "{asks} requests in four seconds");
    // Five media receivers; catching up costs one viewer at most a group of pictures a second.
    let sent = after.get("rtmp_gateway_datagrams_sent_total") - sent;
    assert!(sent < 16_000, "{sent} datagrams in four seconds");
    scene.assert_unharmed();
}

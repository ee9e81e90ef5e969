//! WebRTC to RTMP and to WebRTC: a browser publishes, everybody has a picture at once.

use std::time::Duration;

use rtmp_gateway::config::Config;
use rtmp_gateway::rtmp::amf0::Value;
use rtmp_gateway::rtmp::client::Event;

use crate::common::browser::{Browser, BrowserConfig, Does, Seen, attribute};
use crate::common::clip::{AUDIO, Clip, VIDEO, opus_tone};
use crate::common::watch::{assert_ms, pictures, sounds};
use crate::common::world::{RtmpPeer, World, coded, media};

fn metadata(peer: &RtmpPeer) -> Vec<Value> {
    let events = peer.events.iter();
    events
        .filter_map(|(_, event)| match event {
            Event::Metadata(values) => Some(values.clone()),
            _ => None,
        })
        .collect()
}

fn requests(world: &World, browser: usize) -> usize {
    let seen = world.browser(browser).seen.iter();
    seen.filter(|(_, seen)| matches!(seen, Seen::KeyframeRequested))
        .count()
}

#[test]
fn a_waiting_player_gets_headers_a_key_frame_and_sound_within_a_moment() {
    let mut world = World::new();
    let player = world.rtmp_play("live/a");
    world.run_ms(100);
    let browser = world.whip("live/a").expect("accepted");
    world.run_ms(3_000);
    let connected = world.connected_at(browser).expect("connected");
    let peer = world.rtmp_peer(player);
    let video = media(peer, VIDEO);
    let audio = media(peer, AUDIO);
    assert_eq!(video[0].2[..2], [0x17, 0]);
    assert_eq!(video[1].2[..2], [0x17, 1]);
    assert_ms(video[1].0 - connected, 0..=50);
    assert_eq!(audio[0].2[..2], [0xaf, 0]);
    assert_ms(audio[1].0 - connected, 0..=150);
    // Pictures untouched, in order, 40 ms apart.
    let units = Clip::load().access_units();
    for (index, (_, _, body)) in video[1..].iter().enumerate() {
        assert_eq!(
            body[5..],
            units[index % units.len()].payload,
            "picture {index}"
        );
    }
    assert!(
        video[1..]
            .windows(2)
            .all(|pair| (39..=41).contains(&(pair[1].1 - pair[0].1)))
    );
    assert!(video[1].1 < 100 && audio[1].1 < 100);
    let told = metadata(peer);
    let last = told.last().expect("metadata");
    assert_eq!(last.get("width").and_then(Value::as_f64), Some(640.0));
    assert_eq!(
        last.get("audiosamplerate").and_then(Value::as_f64),
        Some(48_000.0)
    );
}

#[test]
fn a_late_player_has_its_first_picture_within_a_second_though_keys_come_only_when_asked_for() {
    let mut world = World::new();
    let browser = world.whip("live/a").expect("accepted");
    world.source_mut(browser).keys_on_request = true;
    world.run_ms(20_000);
    let joined = world.now;
    let asked = requests(&world, browser);
    let player = world.rtmp_play("live/a");
    world.run_ms(3_000);
    let video = media(world.rtmp_peer(player), VIDEO);
    assert_eq!(video[0].2[..2], [0x17, 0]);
    assert_eq!(video[1].2[..2], [0x17, 1]);
    assert_ms(video[1].0 - joined, 0..=200);
    assert_eq!(requests(&world, browser), asked + 1, "asked once");
    assert!(
        video[1..]
            .windows(2)
            .all(|pair| (39..=41).contains(&(pair[1].1 - pair[0].1)))
    );
}

#[test]
fn a_crowd_that_comes_at_once_costs_the_publisher_one_key_frame() {
    let mut world = World::new();
    let browser = world.whip("live/a").expect("accepted");
    world.source_mut(browser).keys_on_request = true;
    world.run_ms(20_000);
    let asked = requests(&world, browser);
    let joined = world.now;
    let players: Vec<_> = (0..10).map(|_| world.rtmp_play("live/a")).collect();
    let viewers: Vec<_> = (0..5)
        .map(|_| world.whep("live/a").expect("accepted"))
        .collect();
    world.run_ms(450);
    assert_eq!(requests(&world, browser), asked + 1);
    for player in players {
        let video = coded(world.rtmp_peer(player), VIDEO);
        assert_eq!(video[0].2[0], 0x17);
        assert_ms(video[0].0 - joined, 0..=300);
    }
    for viewer in viewers {
        assert!(pictures(world.browser(viewer))[0].is_key());
    }
}

/// The request is a datagram and may be lost: it is sent again while nothing comes of it.
#[test]
fn a_lost_keyframe_request_is_repeated() {
    let mut world = World::new();
    let browser = world.whip("live/a").expect("accepted");
    world.source_mut(browser).keys_on_request = true;
    world.run_ms(20_000);
    let joined = world.now;
    let viewer = world.whep("live/a").expect("accepted");
    world.run_ms(20);
    world.source_mut(browser).deaf_until = Some(joined + Duration::from_millis(400));
    world.run_ms(1_500);
    let all = pictures(world.browser(viewer));
    let keys: Vec<_> = all.iter().filter(|p| p.is_key()).collect();
    let moving = all
        .windows(2)
        .any(|pair| pair[0].is_key() && pair[1].at - pair[0].at < Duration::from_millis(60));
    assert!(moving, "{} key frames, {} pictures", keys.len(), all.len());
}

/// Case 49.
#[test]
fn what_does_not_flow_is_not_announced() {
    for (has_video, has_audio) in [(true, false), (false, true)] {
        let mut world = World::new();
        let player = world.rtmp_play("live/a");
        world.run_ms(100);
        let began = world.now;
        world
            .whip_with("live/a", has_video, has_audio, &[])
            .expect("accepted");
        world.run_ms(2_000);
        let peer = world.rtmp_peer(player);
        let told = metadata(peer);
        assert!(!told.is_empty());
        for values in told {
            assert_eq!(values.get("width").is_some(), has_video, "{values:?}");
            assert_eq!(
                values.get("videocodecid").is_some(),
                has_video,
                "{values:?}"
            );
            assert_eq!(
                values.get("audiocodecid").is_some(),
                has_audio,
                "{values:?}"
            );
        }
        assert_eq!(media(peer, VIDEO).is_empty(), !has_video);
        assert_eq!(media(peer, AUDIO).is_empty(), !has_audio);
        let first = media(peer, VIDEO)
            .first()
            .or(media(peer, AUDIO).first())
            .unwrap()
            .0;
        assert_ms(first - began, 0..=300);
    }
}

/// Case 44: both RTP clocks wrap, and sender reports on either side of it.
#[test]
fn rtp_clocks_that_wrap_are_continuous_for_players() {
    let mut world = World::new();
    let player = world.rtmp_play("live/a");
    world.run_ms(10);
    let browser = world.whip("live/a").expect("accepted");
    world.source_mut(browser).set_rtp_times(
        0_u32.wrapping_sub(2 * 90_000),
        0_u32.wrapping_sub(5 * 48_000),
    );
    world.run_ms(12_000);
    let peer = world.rtmp_peer(player);
    let video = coded(peer, VIDEO);
    let audio = coded(peer, AUDIO);
    assert!(
        video
            .windows(2)
            .all(|pair| (38..=42).contains(&(pair[1].1 - pair[0].1)))
    );
    assert!(
        audio
            .windows(2)
            .all(|pair| (21..=22).contains(&(pair[1].1 - pair[0].1)))
    );
    assert!(video.len() > 280 && audio.len() > 530);
}

/// Pictures leave 300 ms after the sound of the same instant: sender reports say so, and the picture
/// is moved there little by little.
#[test]
fn sender_reports_move_the_picture_without_a_step() {
    let mut world = World::new();
    let player = world.rtmp_play("live/a");
    world.run_ms(10);
    let browser = world.whip("live/a").expect("accepted");
    world.source_mut(browser).video_delay = Duration::from_millis(300);
    world.run_ms(60_000);
    let peer = world.rtmp_peer(player);
    let video = coded(peer, VIDEO);
    let audio = coded(peer, AUDIO);
    for (pairs, least, most) in [(&video, 38, 42), (&audio, 21, 22)] {
        let steps: Vec<u32> = pairs.windows(2).map(|pair| pair[1].1 - pair[0].1).collect();
        assert!(
            steps.iter().all(|step| (least..=most).contains(step)),
            "{steps:?}"
        );
    }
    // What arrives together is 300 ms apart in the end.
    let last = video.last().unwrap();
    let sound = audio.iter().rfind(|(at, _, _)| *at <= last.0).unwrap();
    let apart = i64::from(sound.1) - i64::from(last.1);
    assert!((230..=330).contains(&apart), "{apart} ms");
}

#[test]
fn a_viewer_of_a_browser_gets_its_pictures_and_sound_untouched() {
    let mut world = World::new();
    world.whip("live/a").expect("accepted");
    world.run_ms(2_700);
    let viewer = world.whep("live/a").expect("accepted");
    world.run_ms(3_000);
    let connected = world.connected_at(viewer).expect("connected");
    let all = pictures(world.browser(viewer));
    assert!(all[0].is_key());
    assert_ms(all[0].at - connected, 0..=10);
    let units = Clip::load().access_units();
    for picture in &all {
        let avcc = picture.avcc();
        assert!(units.iter().any(|unit| unit.payload == avcc));
    }
    let tone = opus_tone(500);
    let heard = sounds(world.browser(viewer));
    assert!(heard.len() > 140);
    for sound in &heard {
        assert!(tone.iter().any(|packet| **packet == *sound.payload));
    }
    assert!(
        heard
            .windows(2)
            .all(|pair| pair[1].rtp_time - pair[0].rtp_time == 960)
    );
}

/// A viewer's PLI reaches the browser that publishes when the cache cannot help.
#[test]
fn a_viewers_request_reaches_the_publisher_when_the_cache_cannot_help() {
    let mut world = World::new();
    let browser = world.whip("live/a").expect("accepted");
    world.source_mut(browser).keys_on_request = true;
    let viewer = world.whep("live/a").expect("accepted");
    world.run_ms(14_000);
    let asked = requests(&world, browser);
    let before = world.now;
    world.request_keyframe(viewer);
    world.run_ms(500);
    assert_eq!(requests(&world, browser), asked + 1);
    let all = pictures(world.browser(viewer));
    let key = all
        .iter()
        .find(|p| p.at > before && p.is_key())
        .expect("a key frame");
    assert_ms(key.at - before, 0..=100);
}

/// Cases 60, 62, 63 and 65.
#[test]
fn the_session_url_answers_as_the_rfc_says() {
    let mut world = World::new();
    let auth = [("Authorization", "Bearer secret")];
    let config = BrowserConfig::new(Does::Publish);
    let browser = world
        .browse("/whip/live/a", config, &auth)
        .expect("accepted");
    world.run_ms(200);
    let session = world.browser(browser).session.clone();
    let etag = world.browser(browser).etag.clone();
    assert!(session.starts_with("/session/"), "{session}");
    assert!(etag.starts_with('"') && etag.ends_with('"'), "{etag}");
    let trickle = "a=ice-ufrag:xxxx\r\na=ice-pwd:yyyyyyyyyyyyyyyyyyyyyyyy\r\n";
    let kind = ("Content-Type", "application/trickle-ice-sdpfrag");
    let patch = |world: &mut World, headers: &[(&str, &str)], body: &str| {
        let mut all = vec![("Authorization", "Bearer secret")];
        all.extend_from_slice(headers);
        world.http("PATCH", &session, &all, body).status
    };
    assert_eq!(patch(&mut world, &[kind], trickle), 428);
    assert_eq!(
        patch(&mut world, &[kind, ("If-Match", "\"stale\"")], trickle),
        412
    );
    assert_eq!(
        patch(
            &mut world,
            &[("Content-Type", "text/plain"), ("If-Match", &etag)],
            trickle
        ),
        415
    );
    let unknown = world.http(
        "PATCH",
        "/session/nothing",
        &[kind, ("If-Match", "*")],
        trickle,
    );
    assert_eq!(unknown.status, 404);
    let wrong = world.http("DELETE", &session, &[("Authorization", "Bearer other")], "");
    assert_eq!(wrong.status, 401);
    assert!(wrong.header("WWW-Authenticate").is_some());
    assert_eq!(world.http("DELETE", &session, &[], "").status, 401);
    assert!(world.stream("live/a").is_some());
    assert_eq!(world.http("DELETE", &session, &auth, "").status, 200);
    assert!(world.stream("live/a").is_none());
    assert_eq!(world.http("DELETE", &session, &auth, "").status, 404);
}

/// An ICE restart in mid-stream: new credentials, the same media.
#[test]
fn an_ice_restart_by_patch_changes_the_tag_and_disturbs_nothing() {
    let mut world = World::new();
    let player = world.rtmp_play("live/a");
    let browser = world.whip("live/a").expect("accepted");
    world.run_ms(1_000);
    let session = world.browser(browser).session.clone();
    let etag = world.browser(browser).etag.clone();
    let offer = world.browser(browser).browser.offer().to_owned();
    let mid = attribute(&offer, "mid").unwrap();
    let body = format!(
        "a=ice-ufrag:NEWu\r\na=ice-pwd:NEWpwdNEWpwdNEWpwdNEWpwd\r\n\
         m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:{mid}\r\n"
    );
    let headers = [
        ("Content-Type", "application/trickle-ice-sdpfrag"),
        ("If-Match", "*"),
    ];
    let answer = world.http("PATCH", &session, &headers, &body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_ne!(answer.header("ETag"), Some(etag.as_str()));
    assert!(
        attribute(&answer.body, "ice-ufrag").is_some(),
        "{}",
        answer.body
    );
    let stale = [headers[0], ("If-Match", etag.as_str())];
    assert_eq!(world.http("PATCH", &session, &stale, &body).status, 412);
    world.run_ms(1_000);
    let video = coded(world.rtmp_peer(player), VIDEO);
    assert!(
        video
            .windows(2)
            .all(|pair| (39..=41).contains(&(pair[1].1 - pair[0].1)))
    );
}

#[test]
fn a_publisher_that_falls_silent_is_ended_after_the_timeout() {
    let mut world = World::new();
    let browser = world.whip("live/a").expect("accepted");
    let player = world.rtmp_play("live/a");
    world.run_ms(2_000);
    world.source_mut(browser).video = false;
    world.source_mut(browser).audio = false;
    let silent = world.now;
    world.run_ms(14_000);
    assert!(world.stream("live/a").unwrap()["publisher"].is_object());
    world.run_ms(2_500);
    assert!(world.stream("live/a").unwrap()["publisher"].is_null());
    let closed = world.first_seen(browser, silent, |seen| matches!(seen, Seen::Closed));
    // It is looked at with each of its session's timers, of which one is due each second.
    assert_ms(closed.expect("told"), 14_900..=16_100);
    world.run_ms(16_000);
    assert!(world.rtmp_peer(player).closed_at.is_some());
    assert!(world.stream("live/a").is_none());
}

#[test]
fn a_page_that_is_closed_ends_its_stream_in_order() {
    let mut world = World::new();
    let browser = world.whip("live/a").expect("accepted");
    let player = world.rtmp_play("live/a");
    world.run_ms(1_000);
    let closed = world.now;
    world.close_browser(browser);
    world.run_ms(100);
    let told = world
        .rtmp_peer(player)
        .status_at("NetStream.Play.UnpublishNotify");
    assert_ms(told.expect("told") - closed, 0..=20);
}

#[test]
fn an_offer_whose_browser_never_comes_is_let_go() {
    let mut world = World::new();
    let offer = Browser::new(BrowserConfig::new(Does::Publish), world.now)
        .offer()
        .to_owned();
    let headers = [("Content-Type", "application/sdp")];
    assert_eq!(
        world.http("POST", "/whip/live/a", &headers, &offer).status,
        201
    );
    assert!(world.stream("live/a").is_some());
    world.run_ms(15_100);
    assert!(world.stream("live/a").is_none());
    assert_eq!(
        world.metric("rtmp_gateway_webrtc_sessions{role=\"publisher\"}"),
        0.0
    );
}

/// Cases 51, 64 and 67.
#[test]
fn offers_that_cannot_work_are_refused_and_leave_nothing() {
    let mut world = World::new();
    world.rtmp_publish("live/a");
    world.run_ms(500);
    let publish = Browser::new(BrowserConfig::new(Does::Publish), world.now)
        .offer()
        .to_owned();
    let view = Browser::new(BrowserConfig::new(Does::View), world.now)
        .offer()
        .to_owned();
    let vp8 = publish.replace("H264/90000", "VP8/90000");
    let no_fingerprint: String = publish
        .lines()
        .filter(|line| !line.starts_with("a=fingerprint"))
        .map(|line| format!("{line}\r\n"))
        .collect();
    let sdp = [("Content-Type", "application/sdp")];
    for (path, body) in [
        ("/whip/live/b", view.as_str()),
        ("/whep/live/a", publish.as_str()),
        ("/whip/live/b", vp8.as_str()),
        ("/whip/live/b", no_fingerprint.as_str()),
        ("/whip/live/b", "hello"),
        ("/whip/live/b", ""),
    ] {
        let answer = world.http("POST", path, &sdp, body);
        assert!(
            (400..500).contains(&answer.status),
            "{path}: {}",
            answer.status
        );
        assert!(answer.body.len() > 10, "a reason");
    }
    let huge = format!("{publish}{}", "a=x:y\r\n".repeat(200_000));
    assert_eq!(world.http("POST", "/whip/live/b", &sdp, &huge).status, 413);
    let plain = [("Content-Type", "text/plain")];
    assert_eq!(
        world.http("POST", "/whip/live/b", &plain, &publish).status,
        415
    );
    assert!(world.stream("live/b").is_none());
    assert_eq!(
        world.metric("rtmp_gateway_webrtc_sessions{role=\"publisher\"}"),
        0.0
    );
    assert_eq!(
        world.metric("rtmp_gateway_webrtc_sessions{role=\"viewer\"}"),
        0.0
    );
}

#[test]
fn as_many_publishers_and_viewers_as_configured() {
    let mut config = Config::default();
    config.webrtc.publishers_max = 1;
    config.webrtc.viewers_max = 1;
    config.streams.streams_max = 2;
    let mut world = World::with_config(config);
    let first = world.whip("live/a").expect("accepted");
    assert_eq!(world.whip("live/b").expect_err("full").status, 503);
    world.run_ms(300);
    let viewer = world.whep("live/a").expect("accepted");
    assert_eq!(world.whep("live/a").expect_err("full").status, 503);
    world.rtmp_publish("live/c");
    world.run_ms(100);
    let third = world.rtmp_publish("live/d");
    world.run_ms(100);
    let statuses = world.rtmp_peer(third).statuses();
    assert_eq!(statuses, ["NetStream.Publish.Failed"]);
    world.close_browser(viewer);
    world.run_ms(100);
    world.whep("live/a").expect("room again");
    world.close_browser(first);
    world.run_ms(100);
    world.whip("live/a").expect("room again");
}

/// Cases 60, 61 and 65, where a proxy ends TLS before the gateway.
#[test]
fn the_session_url_is_whole_where_the_public_url_is_known() {
    let mut config = Config::default();
    config.http.public_url = "https://gateway.example".into();
    config.http.cors_allow_origin = "https://site.example".into();
    let mut world = World::with_config(config);
    let offer = Browser::new(BrowserConfig::new(Does::Publish), world.now)
        .offer()
        .to_owned();
    let headers = [("Content-Type", "application/sdp")];
    let answer = world.http("POST", "/whip/live/a", &headers, &offer);
    let location = answer.header("Location").expect("a Location");
    assert!(
        location.starts_with("https://gateway.example/session/"),
        "{location}"
    );
    let origin = answer.header("Access-Control-Allow-Origin");
    assert_eq!(origin, Some("https://site.example"));
    let exposed = answer
        .header("Access-Control-Expose-Headers")
        .expect("exposed");
    assert!(
        exposed.to_ascii_lowercase().contains("location"),
        "{exposed}"
    );
    let preflight = world.http("OPTIONS", "/whip/live/a", &[("Origin", "https://x")], "");
    assert_eq!(preflight.header("Access-Control-Allow-Origin"), origin);
    let mut config = Config::default();
    config.http.cors_allow_origin = String::new();
    let mut world = World::with_config(config);
    let answer = world.http("GET", "/api/v1/streams", &[], "");
    assert_eq!(answer.header("Access-Control-Allow-Origin"), None);
    assert_eq!(answer.header("Access-Control-Expose-Headers"), None);
}

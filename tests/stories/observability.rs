//! What operators are told: the API, the metrics, the health check.

use std::collections::{BTreeMap, BTreeSet};

use crate::common::clip::Clip;
use crate::common::world::World;

/// A gateway with something of everything.
fn busy() -> World {
    let mut world = World::new();
    world.rtmp_publish("live/a");
    world.whip("live/b").expect("accepted");
    world.run_ms(2_100);
    world.rtmp_play("live/a");
    world.rtmp_play("live/b");
    world.rtmp_play("live/waiting");
    world.whep("live/a").expect("accepted");
    world.whep("live/b").expect("accepted");
    world.run_ms(5_000);
    world
}

#[test]
fn the_api_tells_of_each_stream_what_the_page_shows() {
    let mut world = busy();
    let all = world.streams();
    assert_eq!(all["rtmp_port"], 1935);
    let streams = all["streams"].as_array().unwrap();
    let names: Vec<&str> = streams
        .iter()
        .map(|s| s["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["live/a", "live/b", "live/waiting"]);
    let a = &streams[0];
    assert_eq!(
        (a["app"].as_str(), a["stream"].as_str()),
        (Some("live"), Some("a"))
    );
    assert_eq!(a["publisher"]["protocol"], "rtmp");
    assert!(
        a["publisher"]["client"]
            .as_str()
            .unwrap()
            .contains("198.51.100.7")
    );
    assert!((7.0..7.2).contains(&a["publisher"]["uptime_s"].as_f64().unwrap()));
    let video = &a["tracks"][0];
    assert_eq!(video["kind"], "video");
    assert_eq!(video["codec"], "H264");
    assert_eq!(
        (video["width"].as_u64(), video["height"].as_u64()),
        (Some(640), Some(360))
    );
    assert_eq!(video["gop_ms"], 2_000);
    assert!(
        (24.0..26.0).contains(&video["fps"].as_f64().unwrap()),
        "{video}"
    );
    assert!(video["bitrate_bps"].as_u64().unwrap() > 50_000, "{video}");
    assert_eq!(video["b_frames"], 0);
    let audio = &a["tracks"][1];
    assert_eq!(
        (audio["kind"].as_str(), audio["codec"].as_str()),
        (Some("audio"), Some("AAC"))
    );
    assert_eq!(a["players"], serde_json::json!({"rtmp": 1, "whep": 1}));
    assert_eq!(a["transcode"]["aac_to_opus"], true);
    assert!(
        a["transcode"]["bitrate_bps"].as_u64().unwrap() > 20_000,
        "{a}"
    );
    let b = &streams[1];
    assert_eq!(b["publisher"]["protocol"], "whip");
    assert_eq!(b["transcode"]["opus_to_aac"], true);
    assert_eq!(b["publisher"]["ingest"]["rtp"]["frames_dropped"], 0, "{b}");
    let waiting = &streams[2];
    assert!(waiting["publisher"].is_null());
    assert_eq!(waiting["players"]["rtmp"], 1);
}

#[test]
fn the_api_lists_each_player_of_one_stream() {
    let mut world = busy();
    let a = world.stream("live/a").unwrap();
    let list = a["player_list"].as_array().unwrap();
    let protocols: BTreeSet<&str> = list
        .iter()
        .map(|player| player["protocol"].as_str().unwrap())
        .collect();
    assert_eq!(protocols, BTreeSet::from(["rtmp", "whep"]));
    for player in list {
        assert!(player["lag_ms"].as_i64().unwrap().abs() < 100, "{player}");
        assert_eq!(player["skips"], 0);
        assert!(player["uptime_s"].as_f64().unwrap() > 4.9);
    }
    assert_eq!(
        world
            .http("GET", "/api/v1/streams/live/none", &[], "")
            .status,
        404
    );
}

/// Every family has HELP and TYPE before its samples, no value is absurd, no series comes twice.
#[test]
fn the_metrics_are_what_prometheus_reads() {
    let mut world = busy();
    let answer = world.http("GET", "/metrics", &[], "");
    assert!(
        answer
            .header("Content-Type")
            .unwrap()
            .starts_with("text/plain")
    );
    let mut families: BTreeMap<String, (bool, Option<String>)> = BTreeMap::new();
    let mut series = BTreeSet::new();
    let mut current = String::new();
    for line in answer.body.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            current = rest.split(' ').next().unwrap().to_owned();
            let fresh = families.insert(current.clone(), (true, None)).is_none();
            assert!(fresh, "{current} comes twice");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, current);
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            families.get_mut(name).unwrap().1 = Some(kind.to_owned());
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let sample = name.split('{').next().unwrap();
            // A histogram's samples have names of their own.
            let family = match families[&current].1.as_deref() {
                Some("histogram") => ["_bucket", "_sum", "_count"]
                    .iter()
                    .find_map(|suffix| sample.strip_suffix(suffix))
                    .unwrap_or(sample),
                _ => sample,
            };
            assert_eq!(family, current, "{line}");
            assert!(value.parse::<f64>().unwrap().is_finite(), "{line}");
            assert!(value.parse::<f64>().unwrap() >= 0.0, "{line}");
            assert!(series.insert(name.to_owned()), "{name} comes twice");
            let kind = families[family].1.as_deref();
            assert_eq!(
                kind == Some("counter"),
                family.ends_with("_total"),
                "{line} {kind:?}"
            );
        }
    }
    assert!(families.len() > 20);
    assert!(series.contains("rtmp_gateway_stream_players{stream=\"live/a\",protocol=\"rtmp\"}"));
}

/// Names come from peers.
#[test]
fn a_stream_name_cannot_break_the_metrics_or_the_api() {
    let mut world = World::new();
    world.rtmp_publish("live/\"}\\%0a{x");
    world.run_ms(1_000);
    let page = world.http("GET", "/metrics", &[], "").body;
    for line in page.lines().filter(|line| line.contains("live/")) {
        let open = line.find("stream=\"").unwrap() + 8;
        let mut escaped = false;
        let mut end = None;
        for (at, c) in line[open..].char_indices() {
            match c {
                '\\' if !escaped => escaped = true,
                '"' if !escaped => {
                    end = Some(open + at);
                    break;
                }
                _ => escaped = false,
            }
        }
        let after = &line[end.unwrap() + 1..];
        assert!(after.starts_with(',') || after.starts_with('}'), "{line}");
    }
    world.streams();
}

#[test]
fn the_counters_of_metrics_count() {
    let mut world = busy();
    assert_eq!(
        world.metric("rtmp_gateway_sessions_total{kind=\"rtmp_publish\"}"),
        1.0
    );
    assert_eq!(
        world.metric("rtmp_gateway_sessions_total{kind=\"rtmp_play\"}"),
        3.0
    );
    assert_eq!(
        world.metric("rtmp_gateway_sessions_total{kind=\"whip\"}"),
        1.0
    );
    assert_eq!(
        world.metric("rtmp_gateway_sessions_total{kind=\"whep\"}"),
        2.0
    );
    assert_eq!(world.metric("rtmp_gateway_streams"), 3.0);
    assert_eq!(world.metric("rtmp_gateway_transcode_pipelines"), 2.0);
    assert_eq!(world.metric("rtmp_gateway_transcode_pending_jobs"), 0.0);
    let a = "rtmp_gateway_stream_received_frames_total{stream=\"live/a\",track=\"video\"}";
    assert!(
        (175.0..180.0).contains(&world.metric(a)),
        "{}",
        world.metric(a)
    );
    assert!(world.metric("rtmp_gateway_uptime_seconds") > 7.0);
    world.http("GET", "/nothing", &[], "");
    assert_eq!(
        world.metric("rtmp_gateway_http_responses_total{code=\"404\"}"),
        1.0
    );
}

#[test]
fn the_health_check_says_ok() {
    let mut world = World::new();
    let answer = world.http("GET", "/healthz", &[], "");
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"));
    let page = world.http("GET", "/", &[], "");
    assert_eq!(page.status, 200);
    assert!(
        page.header("Content-Type")
            .unwrap()
            .starts_with("text/html")
    );
}

/// One URL tells what is wrong with a stream, and the cure.
#[test]
fn a_stream_tells_its_faults_with_their_cures() {
    let mut world = World::new();
    let publisher = world.rtmp_publish_feed("live/a", Clip::load().feed().gop(250));
    world.run_ms(25_000);
    let stream = world.stream("live/a").unwrap();
    let codes = |stream: &serde_json::Value| -> Vec<String> {
        let warnings = stream["warnings"].as_array().unwrap().iter();
        warnings
            .map(|warning| {
                assert!(warning["text"].as_str().unwrap().ends_with('.'));
                warning["code"].as_str().unwrap().to_owned()
            })
            .collect()
    };
    assert_eq!(codes(&stream), ["rare_key_frames"], "{stream}");
    world.rtmp_stalls(publisher, 10_000);
    world.run_ms(4_000);
    let stream = world.stream("live/a").unwrap();
    assert!(codes(&stream).contains(&"silent".to_owned()), "{stream}");
    // Digits that say something.
    let uptime = stream["publisher"]["uptime_s"].to_string();
    assert!(uptime.len() <= 5, "{uptime}");

    let mut world = World::new();
    world.rtmp_publish_feed("live/b", Clip::b_frames().feed());
    world.run_ms(3_000);
    let stream = world.stream("live/b").unwrap();
    assert_eq!(codes(&stream), ["b_frames"], "{stream}");
    let mut world = World::new();
    world.rtmp_publish("live/c");
    world.rtmp_play("live/c");
    world.run_ms(5_000);
    let stream = world.stream("live/c").unwrap();
    assert!(codes(&stream).is_empty(), "{stream}");
}

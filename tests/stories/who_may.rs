//! Who may: tokens are asked for where something begins, over each protocol alike.

use rtmp_gateway::config::{Config, Right, Secret};
use rtmp_gateway::rtmp::client::Event;
use serde_json::json;

use crate::common::browser::{BrowserConfig, Does};
use crate::common::jwt::{self, hs256};
use crate::common::world::{RtmpPeer, UNIX_START, World};

/// A gateway that lets nobody in without a token, except for `anonymous`.
fn closed(anonymous: &[Right]) -> World {
    let mut config = Config::default();
    config.access.anonymous = anonymous.to_vec();
    config.access.jwt_secret = Secret::new(jwt::SECRET);
    config.access.secret = Secret::new("swordfish");
    World::with_config(config)
}

/// A token of a user for an hour.
fn token(user: &str, rights: &[&str], streams: &[&str]) -> String {
    expiring(user, rights, streams, 3_600)
}

fn expiring(user: &str, rights: &[&str], streams: &[&str], seconds: u64) -> String {
    let exp = UNIX_START.as_secs() + seconds;
    hs256(&json!({"sub": user, "rights": rights, "streams": streams, "exp": exp}))
}

/// What a refused client is told, as ffmpeg prints it behind "Server error:".
fn told(peer: &RtmpPeer) -> (&str, &str) {
    let mut events = peer.events.iter().rev();
    events
        .find_map(|(_, event)| match event {
            Event::Status {
                level,
                code,
                description,
            } if level == "error" => Some((code.as_str(), description.as_str())),
            _ => None,
        })
        .expect("an error")
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[test]
fn case_21_rtmp_without_a_good_token_is_told_why_and_closed() {
    let mut world = closed(&[]);
    let play_only = token("anna", &["play"], &["live/a"]);
    let expired = expiring("anna", &["publish", "play"], &["live/a"], 0);
    world.run_ms(31_000);
    for (query, says) in [
        ("", "a token is needed"),
        ("?token=", "a token is needed"),
        ("?token=guess", "not known here"),
        (&format!("?token={play_only}"), "\"publish\" does not reach"),
        (&format!("?token={expired}"), "has expired"),
        (&format!("?token={play_only}x"), "signature is wrong"),
    ] {
        let conn = world.rtmp_publish(&format!("live/a{query}"));
        world.run_ms(200);
        let peer = world.rtmp_peer(conn);
        let (code, text) = told(peer);
        assert_eq!(code, "NetStream.Publish.BadAuth");
        assert!(text.contains(says), "{text}");
        assert!(peer.closed_at.is_some(), "closed after the text");
    }
    assert!(world.stream("live/a").is_none());
    let conn = world.rtmp_play(&format!("live/b?token={play_only}"));
    world.run_ms(200);
    let (code, text) = told(world.rtmp_peer(conn));
    assert_eq!(code, "NetStream.Play.Failed");
    assert_eq!(
        text,
        "Playing live/b is refused: the right \"play\" does not reach so far."
    );
    assert!(world.rtmp_peer(conn).closed_at.is_some());
}

#[test]
fn a_good_token_publishes_and_plays_what_it_names() {
    let mut world = closed(&[]);
    let anna = token("anna", &["publish"], &["live/anna"]);
    let guest = token("guest", &["play"], &["live/*"]);
    let publisher = world.rtmp_publish(&format!("live/anna?token={anna}"));
    world.run_ms(1_000);
    let player = world.rtmp_play(&format!("live/anna?token={guest}"));
    let viewer = world.browse(
        "/whep/live/anna",
        BrowserConfig::new(Does::View),
        &[("Authorization", &bearer(&guest))],
    );
    world.run_ms(1_000);
    assert!(world.rtmp_peer(publisher).closed_at.is_none());
    assert!(world.rtmp_peer(player).events.len() > 20);
    assert!(world.connected_at(viewer.expect("let in")).is_some());
    // The secret opens everything, the API too.
    let operator = [("Authorization", "Bearer swordfish")];
    let answer = world.http("GET", "/api/v1/streams/live/anna", &operator, "");
    let stream: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!(stream["publisher"]["user"], "anna");
    assert_eq!(stream["player_list"].as_array().map(Vec::len), Some(2));
}

#[test]
fn case_65_whip_and_whep_answer_401_or_403_that_any_page_can_read() {
    let mut world = closed(&[]);
    let options = world.http("OPTIONS", "/whip/live/a", &[], "");
    assert!(options.status < 300, "a preflight has no token");
    let anna = token("anna", &["publish", "play"], &["live/anna"]);
    let expired = expiring("anna", &["publish"], &["live/a"], 0);
    world.run_ms(31_000);
    for (shown, status, reason, error) in [
        (None, 401, "token_missing", None),
        (
            Some("guess".to_owned()),
            401,
            "token_invalid",
            Some("invalid_token"),
        ),
        (Some(expired), 401, "token_expired", Some("invalid_token")),
        (
            Some(anna.clone()),
            403,
            "forbidden",
            Some("insufficient_scope"),
        ),
    ] {
        let header = shown.map(|token| bearer(&token));
        let headers: Vec<_> = header
            .iter()
            .map(|h| ("Authorization", h.as_str()))
            .collect();
        let whep = BrowserConfig::new(Does::View);
        for refused in [
            world
                .whip_with("live/a", true, true, &headers)
                .expect_err(reason),
            world
                .browse("/whep/live/a", whep, &headers)
                .expect_err(reason),
        ] {
            assert_eq!(refused.status, status, "{reason}");
            assert_eq!(refused.header("access-control-allow-origin"), Some("*"));
            let challenge = refused.header("www-authenticate").expect("a challenge");
            assert!(challenge.starts_with("Bearer realm="), "{challenge}");
            let named = error.map(|error| format!("error=\"{error}\""));
            assert!(
                named.is_none_or(|named| challenge.contains(&named)),
                "{challenge}"
            );
            let body: serde_json::Value = serde_json::from_str(&refused.body).expect("JSON");
            assert_eq!(body["reason"], reason);
        }
    }
    // As a query too, for clients that can send no header field.
    let query = format!("live/anna?token={anna}");
    assert!(world.whip(&query).is_ok());
}

#[test]
fn anonymous_rights_are_those_that_the_configuration_says() {
    let mut world = closed(&[Right::Play]);
    let anna = token("anna", &["publish"], &["live/anna"]);
    world.rtmp_publish(&format!("live/anna?token={anna}"));
    world.run_ms(500);
    let viewer = world.whep("live/anna").expect("everybody may play");
    let player = world.rtmp_play("live/anna");
    world.run_ms(500);
    assert!(world.connected_at(viewer).is_some());
    assert!(world.rtmp_peer(player).closed_at.is_none());
    assert_eq!(world.whip("live/b").expect_err("refused").status, 401);
    assert_eq!(world.http("GET", "/api/v1/streams", &[], "").status, 401);
    // A token that is shown must be good, even where none is needed.
    let refused = world.whep("live/anna?token=guess").expect_err("refused");
    assert_eq!(refused.status, 401);
}

#[test]
fn the_api_tells_addresses_only_to_those_who_may_read_it() {
    let mut world = closed(&[]);
    for name in ["anna", "bob"] {
        let token = token(name, &["publish"], &["live/*"]);
        world.rtmp_publish(&format!("live/{name}?token={token}"));
    }
    world.run_ms(500);
    let get = |world: &mut World, path: &str, token: &str| {
        let header = bearer(token);
        let headers: &[(&str, &str)] = match token {
            "" => &[],
            _ => &[("Authorization", &header)],
        };
        world.http("GET", path, headers, "")
    };
    let viewer = token("guest", &["play"], &["live/anna"]);
    let operator = token("operator", &["api"], &[]);
    let publisher = token("anna", &["publish"], &["live/*"]);
    for (path, token, status) in [
        ("/healthz", "", 200),
        ("/", "", 200),
        ("/app.js", "", 200),
        ("/metrics", "", 401),
        ("/metrics", viewer.as_str(), 403),
        ("/metrics", operator.as_str(), 200),
        ("/api/v1/streams", "", 401),
        ("/api/v1/streams", publisher.as_str(), 403),
        ("/api/v1/streams/live/bob", viewer.as_str(), 404),
    ] {
        assert_eq!(get(&mut world, path, token).status, status, "{path}");
    }
    let seen = get(&mut world, "/api/v1/streams", &viewer).body;
    let list: serde_json::Value = serde_json::from_str(&seen).expect("JSON");
    let names = list["streams"].as_array().expect("a list");
    assert_eq!(names.len(), 1, "{seen}");
    assert_eq!(names[0]["name"], "live/anna");
    let one = get(&mut world, "/api/v1/streams/live/anna", &viewer).body;
    for secret in ["198.51.100.7", "client", "player_list", "user"] {
        assert!(!seen.contains(secret) && !one.contains(secret), "{secret}");
    }
    let all = get(&mut world, "/api/v1/streams", &operator).body;
    assert!(all.contains("live/bob") && all.contains("198.51.100.7"));
}

#[test]
fn prometheus_needs_no_token_where_the_configuration_says_so() {
    let mut config = Config::default();
    config.access.anonymous = Vec::new();
    config.access.guard_metrics = false;
    let mut world = World::with_config(config);
    assert_eq!(world.http("GET", "/metrics", &[], "").status, 200);
    assert_eq!(world.http("GET", "/api/v1/streams", &[], "").status, 401);
}

#[test]
fn the_same_user_takes_over_with_a_fresh_token_and_another_one_does_not() {
    let mut world = closed(&[]);
    let first = expiring("anna", &["publish"], &["live/*"], 60);
    let second = expiring("anna", &["publish"], &["live/*"], 120);
    let other = token("bob", &["publish"], &["live/*"]);
    let anna = world.rtmp_publish(&format!("live/a?token={first}"));
    world.run_ms(1_000);
    let bob = world.rtmp_publish(&format!("live/a?token={other}"));
    world.run_ms(500);
    assert_eq!(told(world.rtmp_peer(bob)).0, "NetStream.Publish.BadName");
    assert!(world.rtmp_peer(anna).closed_at.is_none());
    let header = bearer(&second);
    let again = world
        .whip_with("live/a", true, true, &[("Authorization", &header)])
        .expect("her own stream");
    world.run_ms(500);
    assert!(world.rtmp_peer(anna).closed_at.is_some());
    // Her session is hers as well: another user's token does not end it, a new one of hers does.
    let session = world.browser(again).session.clone();
    let wrong = bearer(&other);
    let right = bearer(&first);
    let delete = |world: &mut World, header: &str| {
        world
            .http("DELETE", &session, &[("Authorization", header)], "")
            .status
    };
    assert_eq!(delete(&mut world, &wrong), 401);
    assert_eq!(world.http("DELETE", &session, &[], "").status, 401);
    assert_eq!(delete(&mut world, &right), 200);
}

#[test]
fn what_has_begun_outlives_its_token_and_can_still_be_ended_with_it() {
    let mut world = closed(&[]);
    let short = expiring("anna", &["publish"], &["live/a"], 2);
    let header = bearer(&short);
    let headers = [("Authorization", header.as_str())];
    let browser = world
        .whip_with("live/a", true, true, &headers)
        .expect("in time");
    world.run_ms(40_000);
    let late = world
        .whip_with("live/b", true, true, &headers)
        .expect_err("too late");
    assert_eq!(late.status, 401);
    let operator = [("Authorization", "Bearer swordfish")];
    assert_eq!(
        world
            .http("GET", "/api/v1/streams/live/a", &operator, "")
            .status,
        200
    );
    let session = world.browser(browser).session.clone();
    assert_eq!(world.http("DELETE", &session, &headers, "").status, 200);
}

#[test]
fn names_of_rooms_are_not_for_streams_by_url() {
    let mut world = World::new();
    let conn = world.rtmp_publish("room/ward-3/m1");
    world.run_ms(200);
    assert_eq!(told(world.rtmp_peer(conn)).0, "NetStream.Publish.BadAuth");
    assert_eq!(
        world.whip("room/ward-3/m1").expect_err("refused").status,
        403
    );
    assert_eq!(
        world.whep("room/ward-3/m1").expect_err("refused").status,
        403
    );
}

/// Who signs in at `/ws` is who the token says, and may what it says.
#[test]
fn signing_in_by_a_token_gives_its_user_and_its_rights() {
    let mut world = closed(&[]);
    let exp = UNIX_START.as_secs() + 3_600;
    let claims = json!({
        "sub": "dr-li", "name": "Dr. Li", "rights": ["call", "room"], "rooms": ["ward-*"], "exp": exp,
    });
    let good = hs256(&claims);
    let hello = |world: &mut World, fields: serde_json::Value| {
        let client = world.ws();
        (client, world.hello(client, fields))
    };

    let (client, answer) = hello(&mut world, json!({"kind": "webrtc", "token": good}));
    assert_eq!(
        (&answer["user"], &answer["name"]),
        (&json!("dr-li"), &json!("Dr. Li")),
        "{answer}"
    );
    let joined = world.ask(
        client,
        json!({"type": "room.join", "room": "ward-3", "create": true}),
    );
    assert_eq!(joined["type"], "ok", "{joined}");
    world.ask_ok(client, json!({"type": "room.leave", "room": "ward-3"}));
    let outside = world.ask(
        client,
        json!({"type": "room.join", "room": "board", "create": true}),
    );
    assert_eq!(outside["reason"], "forbidden", "{outside}");

    // The field must be absent or equal.
    let (_, same) = hello(
        &mut world,
        json!({"kind": "rtmp", "token": good, "user": "dr-li"}),
    );
    assert_eq!(same["type"], "ok", "{same}");
    let (_, other) = hello(
        &mut world,
        json!({"kind": "rtmp", "token": good, "user": "anna"}),
    );
    assert_eq!(other["reason"], "unauthorized", "{other}");

    let caller = hs256(&json!({"sub": "anna", "rights": ["call"], "exp": exp}));
    let (anna, answer) = hello(&mut world, json!({"kind": "rtmp", "token": caller}));
    assert_eq!(answer["type"], "ok", "{answer}");
    let joined = world.ask(
        anna,
        json!({"type": "room.join", "room": "ward-3", "create": true}),
    );
    assert_eq!(joined["reason"], "forbidden", "{joined}");
    let rung = world.ask(
        anna,
        json!({"type": "call.invite", "to": "dr-li", "audio": true, "video": true}),
    );
    assert_eq!(rung["state"], "inviting", "{rung}");

    for (token, reason) in [
        (expiring("x", &["call"], &[], 0), "token_expired"),
        (token("x", &["publish", "play"], &["*"]), "forbidden"),
        (format!("{good}x"), "unauthorized"),
        ("guess".to_owned(), "unauthorized"),
    ] {
        world.run_ms(31_000);
        let (_, refused) = hello(
            &mut world,
            json!({"kind": "webrtc", "token": token, "user": "x"}),
        );
        assert_eq!(
            (&refused["type"], &refused["reason"]),
            (&json!("error"), &json!(reason)),
            "{refused}"
        );
    }
    let (_, nobody) = hello(&mut world, json!({"kind": "webrtc", "user": "x"}));
    assert_eq!(nobody["reason"], "unauthorized", "{nobody}");
    let (_, secret) = hello(
        &mut world,
        json!({"kind": "webrtc", "user": "x", "token": "swordfish"}),
    );
    assert_eq!(secret["user"], "x", "{secret}");
}

//! What rooms and calls refuse: limits, and messages that are none.

use rtmp_gateway::config::Config;
use serde_json::{Value, json};

use crate::common::world::World;

fn world(change: impl FnOnce(&mut Config)) -> World {
    let mut config = Config::default();
    change(&mut config);
    World::with_config(config)
}

#[test]
fn every_limit_has_its_name() {
    let mut world = world(|config| {
        let signaling = &mut config.signaling;
        signaling.room_members_max = 2;
        signaling.rooms_max = 1;
        signaling.calls_max = 1;
        signaling.sessions_max = 6;
        signaling.devices_per_user_max = 2;
    });
    let users = ["a", "b", "c", "d"].map(|user| world.sign_in(user, "webrtc"));
    world.sign_in("a", "rtmp");
    let third = world.ws();
    let answer = world.hello(third, json!({"kind": "rtmp", "user": "a"}));
    assert_eq!(answer["reason"], "too_many_devices");
    world.sign_in("e", "rtmp");
    let seventh = world.ws();
    let answer = world.hello(seventh, json!({"kind": "rtmp", "user": "f"}));
    assert_eq!(answer["reason"], "too_many_sessions");
    let join = |room: &str| json!({"type": "room.join", "room": room, "create": true});
    world.ask_ok(users[0], join("r"));
    assert_eq!(world.ask(users[0], join("s"))["reason"], "already_in_room");
    assert_eq!(world.ask(users[1], join("s"))["reason"], "too_many_rooms");
    world.ask_ok(users[1], join("r"));
    assert_eq!(world.ask(users[2], join("r"))["reason"], "room_full");
    let join = json!({"type": "room.join", "room": "nowhere"});
    assert_eq!(world.ask(users[2], join)["reason"], "no_such_room");
    let create = json!({"type": "room.create", "room": "r"});
    world.ask_ok(users[0], create.clone());
    assert_eq!(world.ask(users[2], create)["reason"], "room_exists");
    world.ask_ok(users[2], json!({"type": "call.invite", "to": "d"}));
    // Of the users left, e is free; the caller must be too.
    let answer = world.ask(users[0], json!({"type": "call.invite", "to": "e"}));
    assert_eq!(answer["reason"], "already_in_room");
    world.ask_ok(users[0], json!({"type": "room.leave", "room": "r"}));
    let answer = world.ask(users[0], json!({"type": "call.invite", "to": "e"}));
    assert_eq!(answer["reason"], "too_many_calls");
}

/// An app that was killed has lost its secret: its dead sessions make room for new ones.
#[test]
fn a_dead_device_makes_room_for_a_new_one() {
    let mut world = world(|config| config.signaling.devices_per_user_max = 1);
    for _ in 0..5 {
        let phone = world.sign_in("anna", "rtmp");
        world.drop_ws(phone);
    }
    assert_eq!(
        world.metric("rtmp_gateway_conversations{kind=\"session\"}"),
        1.0
    );
}

#[test]
fn whoever_talks_too_fast_is_told_and_then_let_go() {
    let mut world = world(|config| config.signaling.messages_per_second_max = 10);
    let anna = world.sign_in("anna", "webrtc");
    let ping = json!({"type": "ping"});
    let answers: Vec<Value> = (0..20).map(|_| world.ask(anna, ping.clone())).collect();
    let refused = answers
        .iter()
        .filter(|a| a["reason"] == "too_many_messages");
    assert_eq!(refused.count(), 11);
    // A second later all is well.
    world.run_ms(1_000);
    world.ask_ok(anna, ping.clone());
    for _ in 0..4 {
        world.run_ms(1_000);
        for _ in 0..20 {
            world.ask(anna, ping.clone());
        }
    }
    assert_eq!(
        world.member(anna).event("bye")["reason"],
        "too_many_messages"
    );
    assert_eq!(world.member(anna).close_code, Some(1008));
    // Far too fast does not take seconds.
    let bob = world.sign_in("bob", "webrtc");
    for _ in 0..120 {
        world.say_text(bob, "{");
    }
    assert_eq!(
        world.member(bob).event("bye")["reason"],
        "too_many_messages"
    );
}

#[test]
fn nothing_is_done_before_hello() {
    let mut world = World::new();
    let anna = world.ws();
    let answer = world.ask(anna, json!({"type": "users"}));
    assert_eq!(answer["reason"], "hello_required");
    let answer = world.hello(
        anna,
        json!({"kind": "webrtc", "user": "anna", "version": 2}),
    );
    assert_eq!(answer["reason"], "unsupported_version");
    let answer = world.hello(anna, json!({"kind": "webrtc", "user": "anna"}));
    assert_eq!(answer["type"], "ok");
    let answer = world.hello(anna, json!({"kind": "webrtc", "user": "bob"}));
    assert_eq!(answer["reason"], "wrong_state");
    // Nobody in particular is nobody.
    let other = world.ws();
    let answer = world.hello(other, json!({"kind": "webrtc"}));
    assert_eq!(answer["reason"], "unauthorized");
    assert_eq!(world.member(other).event("bye")["reason"], "unauthorized");
    // And who says nothing at all is closed.
    let silent = world.ws();
    world.run_alive(24_900);
    assert!(world.member(silent).events("bye").is_empty());
    world.run_ms(25_000);
    assert_eq!(world.member(silent).event("bye")["reason"], "heartbeat");
}

#[test]
fn heartbeats_go_both_ways() {
    let mut world = World::new();
    let anna = world.sign_in("anna", "rtmp");
    world.run_ms(9_900);
    assert!(world.member(anna).events("ping").is_empty());
    world.run_ms(200);
    assert_eq!(world.member(anna).events("ping").len(), 1);
    for _ in 0..10 {
        world.say(anna, &json!({"type": "pong"}));
        world.run_ms(10_000);
    }
    assert!(world.member(anna).events("bye").is_empty());
    // A ping frame is answered and counts.
    world.say_frame(anna, 0x89, b"");
    assert!(
        world
            .member(anna)
            .got
            .iter()
            .any(|(_, m)| m["frame"] == "pong")
    );
    world.run_ms(24_900);
    assert!(world.member(anna).events("bye").is_empty());
    world.run_ms(200);
    assert_eq!(world.member(anna).event("bye")["reason"], "heartbeat");
}

/// Truncated and broken messages are answered by name or end the WebSocket; everybody else
/// goes on.
#[test]
fn broken_messages_are_refused_by_name() {
    let mut world = world(|config| config.signaling.messages_per_second_max = 10_000);
    let bystander = world.sign_in("bob", "webrtc");
    let mut anna = world.sign_in("anna", "webrtc");
    for (text, reason) in [
        ("", "bad_message"),
        ("[]", "bad_message"),
        ("{}", "bad_message"),
        ("{\"type\":5,\"id\":1}", "bad_message"),
        ("{\"type\":\"ping\"}", "bad_message"),
        ("{\"type\":\"ping\",\"id\":[]}", "bad_message"),
        ("{\"type\":\"dance\",\"id\":1}", "unknown_type"),
        ("{\"type\":\"room.join\",\"id\":1}", "bad_message"),
        (
            "{\"type\":\"room.join\",\"id\":1,\"room\":\"a b\"}",
            "bad_message",
        ),
        (
            "{\"type\":\"room.join\",\"id\":1,\"room\":\"..\"}",
            "bad_message",
        ),
        (
            "{\"type\":\"room.join\",\"id\":1,\"room\":\"\"}",
            "bad_message",
        ),
        (
            "{\"type\":\"room.join\",\"id\":1,\"room\":7}",
            "bad_message",
        ),
        (
            "{\"type\":\"call.invite\",\"id\":1,\"to\":\"x\",\"audio\":1}",
            "bad_message",
        ),
    ] {
        world.say_text(anna, text);
        let (_, last) = world.member(anna).got.last().expect("an answer");
        assert_eq!(last["reason"], reason, "{text}");
    }
    let deep = "[".repeat(60_000);
    world.say_text(anna, &deep);
    assert_eq!(
        world.member(anna).got.last().expect("an answer").1["reason"],
        "bad_message"
    );
    let messages = [
        json!({"type": "room.join", "id": "x", "room": "r", "create": true}),
        json!({"type": "call.invite", "id": 9, "to": "bob", "video": false}),
        json!({"type": "publish", "id": 3, "room": "r", "offer": "v=0\r\n"}),
        json!({"type": "hello", "id": 4, "version": 1, "kind": "rtmp",
               "resume": {"session": "x", "seq": 4}}),
    ];
    for message in messages {
        let text = message.to_string();
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let first = 0x81;
                world.say_frame(anna, first, &bytes);
                world.say_frame(anna, first, &bytes[..at]);
                if world.member(anna).close_code.is_some() {
                    anna = world.sign_in("anna", "webrtc");
                }
            }
            world.run_ms(10);
        }
    }
    // A message that is too long, and a binary one.
    world.say_text(anna, &"x".repeat(70_000));
    assert_eq!(world.member(anna).close_code, Some(1009));
    let anna = world.sign_in("anna", "webrtc");
    world.say_frame(anna, 0x82, b"{}");
    assert_eq!(world.member(anna).close_code, Some(1003));
    world.ask_ok(bystander, json!({"type": "ping"}));
}

/// Other requests for the WebSocket's URL, and RTMP URLs that fit the way the client came.
#[test]
fn the_url_is_for_websockets() {
    let mut world = World::new();
    let answer = world.http("GET", "/ws", &[], "");
    assert_eq!(answer.status, 426);
    assert_eq!(answer.header("Upgrade"), Some("websocket"));
    let mut world = self::world(|config| {
        config.rtmp.public_url = "rtmp://media.example:19350".into();
    });
    let anna = world.sign_in("anna", "rtmp");
    let state = world.ask_ok(
        anna,
        json!({"type": "room.join", "room": "r", "create": true}),
    );
    let url = state["push"]["url"].as_str().expect("a URL");
    assert!(
        url.starts_with("rtmp://media.example:19350/room/r/m"),
        "{url}"
    );
}

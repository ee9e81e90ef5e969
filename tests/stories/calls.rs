//! Calls between mini-programs (RTMP) and browsers (WebRTC), whoever rings first: every way
//! they begin, go on and end.

use serde_json::{Value, json};

use crate::common::browser::Kind;
use crate::common::clip::{AUDIO, VIDEO};
use crate::common::watch::{pictures, sounds};
use crate::common::world::{World, coded};

/// What a client of one kind has for its media in a call.
pub(super) enum Media {
    Rtmp {
        push: rtmp_gateway::gateway::ConnId,
        play: rtmp_gateway::gateway::ConnId,
    },
    Webrtc {
        watch: (usize, u64),
        publish: usize,
    },
}

/// A client does for its media what a program of its kind does when a room begins.
fn begin(world: &mut World, member: usize, room: &Value) -> Media {
    let name = room["room"].as_str().expect("a room").to_owned();
    let other = &room["members"][0];
    match room["push"]["url"].as_str() {
        Some(push) => Media::Rtmp {
            push: world.push_url(push),
            play: world.play_url(other["play"]["url"].as_str().expect("a URL")),
        },
        None => {
            let publish = world.publish_offer(member, &name);
            let other = other["member"].as_str().expect("a member");
            let watch = world.subscribe_offer(member, &name, other);
            Media::Webrtc { watch, publish }
        }
    }
}

/// Takes the answer to a subscribe that had to wait.
fn settle(world: &mut World, member: usize, media: &Media) {
    if let Media::Webrtc { watch, .. } = media
        && world.browser(watch.0).answer.is_empty()
    {
        world.accept_late(member, *watch);
    }
}

/// Pictures and sounds that a client got.
pub(super) fn got(world: &World, media: &Media) -> (usize, usize) {
    match media {
        Media::Rtmp { play, .. } => {
            let peer = world.rtmp_peer(*play);
            (coded(peer, VIDEO).len(), coded(peer, AUDIO).len())
        }
        Media::Webrtc { watch, .. } => {
            let peer = world.browser(watch.0);
            (pictures(peer).len(), sounds(peer).len())
        }
    }
}

/// Two clients in an accepted call, with their media.
pub(super) struct Talk {
    pub(super) world: World,
    pub(super) call: String,
    pub(super) caller: usize,
    pub(super) callee: usize,
    pub(super) media: [Media; 2],
}

fn invite(world: &mut World, caller: usize, to: &str) -> String {
    let answer = world.ask_ok(caller, json!({"type": "call.invite", "to": to}));
    assert_eq!(answer["state"], "inviting");
    answer["call"].as_str().expect("a call").to_owned()
}

pub(super) fn talk(caller_kind: &str, callee_kind: &str) -> Talk {
    let mut world = World::new();
    let caller = world.sign_in("anna", caller_kind);
    let callee = world.sign_in("dr-li", callee_kind);
    let call = invite(&mut world, caller, "dr-li");
    let incoming = world.member(callee).event("call.incoming").clone();
    assert_eq!(incoming["from"]["user"], "anna");
    assert_eq!(incoming["from"]["kind"], caller_kind);
    world.ask_ok(callee, json!({"type": "call.ringing", "call": call}));
    assert_eq!(
        world.member(caller).event("call.ringing")["call"],
        call.as_str()
    );
    world.run_ms(1_000);
    let accepted = world.ask_ok(callee, json!({"type": "call.accept", "call": call}));
    assert_eq!(accepted["state"], "accepted");
    let to_caller = world.member(caller).event("call.accepted").clone();
    let one = begin(&mut world, caller, &to_caller);
    let other = begin(&mut world, callee, &accepted);
    world.run_ms(200);
    settle(&mut world, caller, &one);
    settle(&mut world, callee, &other);
    Talk {
        world,
        call,
        caller,
        callee,
        media: [one, other],
    }
}

/// Nothing is left of rooms and calls but the sessions.
pub(super) fn assert_free(world: &mut World, sessions: usize) {
    world.run_ms(100);
    let answer = world.http("GET", "/api/v1/rooms", &[], "");
    let body: Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!(
        body["totals"],
        json!({
            "websockets": body["totals"]["websockets"], "sessions": sessions,
            "users": body["totals"]["users"], "rooms": 0, "members": 0, "calls": 0,
            "legs": 0, "tokens": 0, "waiting": 0,
        })
    );
    assert_eq!(world.streams()["streams"], json!([]), "streams are left");
    assert_eq!(
        world.metric("rtmp_gateway_webrtc_sessions{role=\"publisher\"}"),
        0.0
    );
    assert_eq!(
        world.metric("rtmp_gateway_webrtc_sessions{role=\"viewer\"}"),
        0.0
    );
}

/// Both directions, with each pair of kinds: both see and hear each other, and the gateway
/// itself says how long it took from the acceptance.
#[test]
fn whoever_rings_both_see_and_hear_each_other_soon() {
    for (caller, callee) in [
        ("rtmp", "webrtc"),
        ("webrtc", "rtmp"),
        ("rtmp", "rtmp"),
        ("webrtc", "webrtc"),
    ] {
        let mut talk = talk(caller, callee);
        talk.world.run_alive(5_000);
        for media in &talk.media {
            let (pictures, sounds) = got(&talk.world, media);
            assert!(pictures > 100, "{caller} {callee}: {pictures} pictures");
            assert!(sounds > 180, "{caller} {callee}: {sounds} sounds");
        }
        let page = talk.world.http("GET", "/api/v1/calls", &[], "").body;
        let page: Value = serde_json::from_str(&page).expect("JSON");
        let took = page["calls"][0]["set_up_ms"].as_u64().expect("set up");
        assert!(took < 500, "{caller} {callee}: {took} ms");
        let count = talk.world.metric("rtmp_gateway_call_setup_seconds_count");
        assert_eq!(count, 1.0);
        let half = talk
            .world
            .metric("rtmp_gateway_call_setup_seconds_bucket{le=\"0.5\"}");
        assert_eq!(half, 1.0);

        let hangup = json!({"type": "call.hangup", "call": talk.call});
        talk.world.ask_ok(talk.caller, hangup);
        let ended = talk.world.member(talk.callee).event("call.ended").clone();
        assert_eq!(ended["reason"], "hangup");
        assert_eq!(ended["by"], "anna");
        assert!(ended["duration_ms"].as_u64().expect("a time") >= 5_000);
        let closed = talk.world.member(talk.callee).event("room.closed");
        assert_eq!(closed["reason"], "call_ended");
        assert!(
            talk.world
                .member(talk.caller)
                .events("call.ended")
                .is_empty()
        );
        for media in &talk.media {
            if let Media::Rtmp { push, play } = media {
                talk.world.run_ms(10);
                assert!(talk.world.rtmp_peer(*push).closed, "the push goes on");
                assert!(talk.world.rtmp_peer(*play).closed, "the play goes on");
            }
        }
        assert_free(&mut talk.world, 2);
    }
}

/// CASES 58: both hang up at once, and everything of both is freed.
#[test]
fn case_58_both_hang_up_at_once_and_nothing_is_left() {
    for (caller, callee) in [("rtmp", "webrtc"), ("webrtc", "rtmp")] {
        let mut talk = talk(caller, callee);
        talk.world.run_ms(2_000);
        let hangup = json!({"type": "call.hangup", "call": talk.call});
        talk.world.ask_ok(talk.caller, hangup.clone());
        let second = talk.world.ask_ok(talk.callee, hangup.clone());
        assert_eq!(second["state"], "ended");
        assert_eq!(second["reason"], "hangup");
        // However often it is said.
        let third = talk.world.ask_ok(talk.callee, hangup);
        assert_eq!(third["state"], "ended");
        assert_free(&mut talk.world, 2);
    }
}

#[test]
fn a_callee_says_no() {
    for kinds in [("rtmp", "webrtc"), ("webrtc", "rtmp")] {
        let mut world = World::new();
        let caller = world.sign_in("anna", kinds.0);
        let callee = world.sign_in("dr-li", kinds.1);
        let call = invite(&mut world, caller, "dr-li");
        world.ask_ok(callee, json!({"type": "call.reject", "call": call}));
        let ended = world.member(caller).event("call.ended");
        assert_eq!(ended["reason"], "rejected");
        assert_eq!(ended["by"], "dr-li");
        assert!(ended.get("duration_ms").is_none());
        let late = world.ask_ok(callee, json!({"type": "call.accept", "call": call}));
        assert_eq!(
            (&late["state"], &late["reason"]),
            (&json!("ended"), &json!("rejected"))
        );
        assert_free(&mut world, 2);
    }
}

#[test]
fn a_caller_gives_up() {
    for kinds in [("rtmp", "webrtc"), ("webrtc", "rtmp")] {
        let mut world = World::new();
        let caller = world.sign_in("anna", kinds.0);
        let callee = world.sign_in("dr-li", kinds.1);
        let call = invite(&mut world, caller, "dr-li");
        world.ask_ok(caller, json!({"type": "call.hangup", "call": call}));
        assert_eq!(
            world.member(callee).event("call.ended")["reason"],
            "cancelled"
        );
        let late = world.ask_ok(callee, json!({"type": "call.accept", "call": call}));
        assert_eq!(late["reason"], "cancelled");
        assert_free(&mut world, 2);
    }
}

#[test]
fn nobody_answers() {
    let mut world = World::new();
    let caller = world.sign_in("anna", "webrtc");
    let callee = world.sign_in("dr-li", "rtmp");
    invite(&mut world, caller, "dr-li");
    world.run_alive(44_900);
    assert!(world.member(caller).events("call.ended").is_empty());
    world.run_alive(200);
    for member in [caller, callee] {
        assert_eq!(
            world.member(member).event("call.ended")["reason"],
            "no_answer"
        );
    }
    assert_free(&mut world, 2);
}

#[test]
fn nobody_is_there_or_only_oneself() {
    let mut world = World::new();
    let caller = world.sign_in("anna", "webrtc");
    for (to, reason) in [("dr-li", "offline"), ("anna", "yourself")] {
        let answer = world.ask(caller, json!({"type": "call.invite", "to": to}));
        assert_eq!(answer["reason"], reason);
    }
    assert_free(&mut world, 1);
}

/// Ringing and talking are both busy, for others and for oneself.
#[test]
fn a_line_is_busy() {
    let mut world = World::new();
    let anna = world.sign_in("anna", "rtmp");
    let li = world.sign_in("dr-li", "webrtc");
    let bob = world.sign_in("bob", "webrtc");
    let call = invite(&mut world, anna, "dr-li");
    for accepted in [false, true] {
        if accepted {
            world.ask_ok(li, json!({"type": "call.accept", "call": call}));
        }
        for to in ["anna", "dr-li"] {
            let answer = world.ask(bob, json!({"type": "call.invite", "to": to}));
            assert_eq!(answer["reason"], "busy", "{to}");
        }
        for member in [anna, li] {
            let answer = world.ask(member, json!({"type": "call.invite", "to": "bob"}));
            assert_eq!(answer["reason"], "busy_yourself");
        }
    }
    world.ask_ok(li, json!({"type": "call.hangup", "call": call}));
    invite(&mut world, bob, "dr-li");
}

#[test]
fn a_callee_on_two_devices_takes_it_on_one() {
    let mut world = World::new();
    let caller = world.sign_in("anna", "webrtc");
    let phone = world.sign_in("dr-li", "rtmp");
    let desk = world.sign_in("dr-li", "webrtc");
    let call = invite(&mut world, caller, "dr-li");
    for device in [phone, desk] {
        assert_eq!(
            world.member(device).event("call.incoming")["call"],
            call.as_str()
        );
        world.ask_ok(device, json!({"type": "call.ringing", "call": call}));
    }
    assert_eq!(world.member(caller).events("call.ringing").len(), 1);
    world.ask_ok(desk, json!({"type": "call.accept", "call": call}));
    assert_eq!(
        world.member(phone).event("call.ended")["reason"],
        "answered_elsewhere"
    );
    let late = world.ask(phone, json!({"type": "call.accept", "call": call}));
    assert_eq!(late["reason"], "answered_elsewhere");
    // The phone has no say in it any more, and is free.
    world.ask(phone, json!({"type": "call.hangup", "call": call}));
    assert!(world.member(desk).events("call.ended").is_empty());
    let bob = world.sign_in("bob", "webrtc");
    let second = invite(&mut world, bob, "dr-li");
    assert_eq!(
        world.member(phone).event("call.incoming")["call"],
        second.as_str()
    );
    assert_eq!(world.member(desk).events("call.incoming").len(), 1);
}

#[test]
fn a_callee_on_two_devices_says_no_on_one() {
    let mut world = World::new();
    let caller = world.sign_in("anna", "rtmp");
    let phone = world.sign_in("dr-li", "rtmp");
    let desk = world.sign_in("dr-li", "webrtc");
    let call = invite(&mut world, caller, "dr-li");
    world.ask_ok(phone, json!({"type": "call.reject", "call": call}));
    assert_eq!(
        world.member(desk).event("call.ended")["reason"],
        "rejected_elsewhere"
    );
    assert_eq!(
        world.member(caller).event("call.ended")["reason"],
        "rejected"
    );
    assert_free(&mut world, 3);
}

/// Both ring each other: one call comes of it, and both are in it.
#[test]
fn invitations_that_cross_are_one_call() {
    for kinds in [("rtmp", "webrtc"), ("webrtc", "rtmp"), ("webrtc", "webrtc")] {
        let mut world = World::new();
        let anna = world.sign_in("anna", kinds.0);
        let li = world.sign_in("dr-li", kinds.1);
        let call = invite(&mut world, anna, "dr-li");
        let answer = world.ask_ok(li, json!({"type": "call.invite", "to": "anna"}));
        assert_eq!(answer["call"], call.as_str());
        assert_eq!(answer["state"], "accepted");
        assert_eq!(answer["room"], call.as_str());
        let accepted = world.member(anna).event("call.accepted");
        assert_eq!(accepted["members"][0]["user"], "dr-li");
        assert_eq!(accepted["push"].is_object(), kinds.0 == "rtmp");
        assert_eq!(
            world.metric("rtmp_gateway_conversations{kind=\"call\"}"),
            1.0
        );
    }
}

/// Retried, late and stray messages change nothing.
#[test]
fn what_is_said_twice_or_late_changes_nothing() {
    let mut world = World::new();
    let anna = world.sign_in("anna", "webrtc");
    let li = world.sign_in("dr-li", "webrtc");
    let stranger = world.sign_in("bob", "webrtc");
    let request = json!({"type": "call.invite", "id": "a", "to": "dr-li"});
    world.say(anna, &request);
    world.say(anna, &request);
    let answers = world
        .member(anna)
        .got
        .iter()
        .filter(|(_, m)| m["id"] == "a");
    let answers: Vec<_> = answers.map(|(_, m)| m.clone()).collect();
    assert_eq!(answers.len(), 2);
    assert_eq!(answers[0], answers[1]);
    assert_eq!(world.member(li).events("call.incoming").len(), 1);
    let call = answers[0]["call"].as_str().expect("a call").to_owned();
    // Whose call it is not.
    for request in ["call.accept", "call.reject", "call.hangup", "call.ringing"] {
        let answer = world.ask(stranger, json!({"type": request, "call": call}));
        assert_eq!(answer["reason"], "no_such_call", "{request}");
    }
    let answer = world.ask(anna, json!({"type": "call.accept", "call": call}));
    assert_eq!(answer["reason"], "wrong_state");
    let accept = json!({"type": "call.accept", "id": 1_000, "call": call});
    world.say(li, &accept);
    world.say(li, &accept);
    let other_id = world.ask_ok(li, json!({"type": "call.accept", "call": call}));
    let first = world.member(li).answer(1_000).expect("an answer").clone();
    assert_eq!(other_id["member"], first["member"]);
    assert_eq!(world.member(anna).events("call.accepted").len(), 1);
    // Late: the call rings no more.
    world.ask(li, json!({"type": "call.ringing", "call": call}));
    assert!(world.member(anna).events("call.ringing").is_empty());
    world.ask_ok(li, json!({"type": "call.hangup", "call": call}));
    world.say(li, &accept);
    assert_eq!(world.member(anna).events("call.accepted").len(), 1);
    assert_free(&mut world, 3);
}

/// Whoever talks by sound alone waits for no picture, and a browser's picture is not sent to
/// an audio-only player.
#[test]
fn a_call_of_voices_is_set_up_without_pictures() {
    let mut world = World::new();
    let anna = world.sign_in("anna", "rtmp");
    let li = world.sign_in("dr-li", "webrtc");
    let invite = json!({"type": "call.invite", "to": "dr-li", "video": false});
    let call = world.ask_ok(anna, invite)["call"].clone();
    assert_eq!(world.member(li).event("call.incoming")["video"], false);
    let accepted = world.ask_ok(li, json!({"type": "call.accept", "call": call}));
    let to_anna = world.member(anna).event("call.accepted").clone();
    let push = to_anna["push"]["url"].as_str().expect("a URL");
    let path = push.strip_prefix("rtmp://gateway.test/").expect("our host");
    world.rtmp_publish_tracks(path, false, true, 0);
    let play = to_anna["members"][0]["play"]["audio_url"]
        .as_str()
        .expect("a URL");
    let play = world.play_url(play);
    world.publish_offer(li, call.as_str().expect("a call"));
    let other = accepted["members"][0]["member"].as_str().expect("a member");
    let watch = world.subscribe_offer(li, call.as_str().expect("a call"), other);
    world.run_ms(500);
    if world.browser(watch.0).answer.is_empty() {
        world.accept_late(li, watch);
    }
    world.run_alive(4_000);
    assert!(coded(world.rtmp_peer(play), AUDIO).len() > 150);
    assert!(coded(world.rtmp_peer(play), VIDEO).is_empty());
    assert!(sounds(world.browser(watch.0)).len() > 150);
    let first = world.first_seen(watch.0, world.start, |seen| {
        matches!(
            seen,
            crate::common::browser::Seen::Rtp {
                kind: Kind::Video,
                ..
            }
        )
    });
    assert!(first.is_none());
}

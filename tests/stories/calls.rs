//! Calls between mini-programs (RTMP) and browsers (WebRTC), whoever rings first: every way
//! they begin, go on and end.

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::browser::Kind;
use crate::common::clip::{AUDIO, VIDEO};
use crate::common::watch::{assert_ms, pictures, sounds};
use crate::common::world::{World, coded};

/// What a client of one kind has for its media in a call.
enum Media {
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
fn got(world: &World, media: &Media) -> (usize, usize) {
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
struct Talk {
    world: World,
    call: String,
    caller: usize,
    callee: usize,
    media: [Media; 2],
}

fn invite(world: &mut World, caller: usize, to: &str) -> String {
    let answer = world.ask_ok(caller, json!({"type": "call.invite", "to": to}));
    assert_eq!(answer["state"], "inviting");
    answer["call"].as_str().expect("a call").to_owned()
}

fn talk(caller_kind: &str, callee_kind: &str) -> Talk {
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
fn assert_free(world: &mut World, sessions: usize) {
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

/// CASES 56: a mini-program in the background loses its WebSocket, not its call: ten seconds
/// later it goes on with the same session, and not one frame was lost meanwhile.
#[test]
fn case_56_a_call_outlives_its_websocket_without_a_hair_of_media_lost() {
    for kinds in [("rtmp", "webrtc"), ("webrtc", "rtmp")] {
        let mut talk = talk(kinds.0, kinds.1);
        talk.world.run_alive(3_000);
        let before: Vec<_> = talk.media.iter().map(|m| got(&talk.world, m)).collect();
        talk.world.drop_ws(talk.caller);
        for _ in 0..2 {
            talk.world.run_ms(5_000);
            talk.world.ask_ok(talk.callee, json!({"type": "ping"}));
        }
        // What happens meanwhile is not lost.
        let mute = json!({"type": "room.mute", "room": talk.call, "audio": true, "video": false});
        talk.world.ask_ok(talk.callee, mute);
        assert!(
            talk.world
                .member(talk.caller)
                .events("member.muted")
                .is_empty()
        );
        let answer = talk.world.resume(talk.caller);
        assert_eq!(answer["resumed"], true, "{answer}");
        assert_eq!(answer["calls"][0]["call"], talk.call.as_str());
        assert_eq!(answer["calls"][0]["state"], "accepted");
        assert_eq!(answer["calls"][0]["with"], "dr-li");
        assert_eq!(
            answer["rooms"][0]["members"].as_array().map(Vec::len),
            Some(1)
        );
        assert_eq!(
            talk.world.member(talk.caller).events("member.muted").len(),
            1
        );
        assert!(
            talk.world
                .member(talk.callee)
                .events("member.left")
                .is_empty()
        );
        assert!(
            talk.world
                .member(talk.callee)
                .events("call.ended")
                .is_empty()
        );
        talk.world.run_ms(1_000);
        for (media, before) in talk.media.iter().zip(before) {
            let (pictures, sounds) = got(&talk.world, media);
            // 11 s at 25 pictures a second, to a frame.
            assert_ms(
                Duration::from_millis((pictures - before.0) as u64),
                274..=276,
            );
            let rate = match media {
                Media::Rtmp { .. } => 48_000.0 / 1_024.0,
                Media::Webrtc { .. } => 50.0,
            };
            let expected = (11.0 * rate) as usize;
            assert!(
                (sounds - before.1).abs_diff(expected) <= 2,
                "{}",
                sounds - before.1
            );
        }
    }
}

/// Case 54 for a call: the phone is gone without a word, and the other side is told within
/// heartbeat time-out, resume time and grace together.
#[test]
fn case_54_a_side_that_dies_without_a_word_ends_the_call_in_time() {
    for (kinds, dies_rtmp) in [(("rtmp", "webrtc"), true), (("rtmp", "webrtc"), false)] {
        let mut talk = talk(kinds.0, kinds.1);
        talk.world.run_alive(2_000);
        let (dead, alive) = match dies_rtmp {
            true => (talk.caller, talk.callee),
            false => (talk.callee, talk.caller),
        };
        // The network of one side is gone: nothing comes, nothing goes, nobody closes.
        for media in &talk.media {
            match media {
                Media::Rtmp { push, play } if dies_rtmp => {
                    talk.world.rtmp_freeze(*push);
                    talk.world.rtmp_freeze(*play);
                }
                Media::Webrtc { watch, publish } if !dies_rtmp => {
                    talk.world.browser_mut(watch.0).online = false;
                    talk.world.browser_mut(*publish).online = false;
                }
                _ => {}
            }
        }
        let died = talk.world.now;
        let mut ended = None;
        for _ in 0..120 {
            talk.world.run_ms(500);
            talk.world.ask_ok(alive, json!({"type": "ping"}));
            if !talk.world.member(alive).events("call.ended").is_empty() {
                ended = Some(talk.world.now - died);
                break;
            }
        }
        let ended = ended.expect("the call ends");
        assert!(ended <= Duration::from_secs(61), "{ended:?}");
        let event = talk.world.member(alive).event("call.ended");
        assert_eq!(event["reason"], "lost");
        assert_eq!(talk.world.member(dead).event("bye")["reason"], "heartbeat");
        assert_eq!(talk.world.member(dead).close_code, Some(1008));
        // Sooner, the other side sees that nothing flows.
        let media = talk.world.member(alive).event("member.media");
        assert_eq!(
            (&media["audio"], &media["video"]),
            (&json!(false), &json!(false))
        );
        assert_free(&mut talk.world, 1);
    }
}

/// Missed heartbeats with live media end nothing, however long.
#[test]
fn a_call_lives_on_its_media_alone() {
    for (kinds, silent) in [(("rtmp", "webrtc"), 0), (("rtmp", "webrtc"), 1)] {
        let mut talk = talk(kinds.0, kinds.1);
        talk.world.run_ms(500);
        let (quiet, alive) = match silent {
            0 => (talk.caller, talk.callee),
            _ => (talk.callee, talk.caller),
        };
        talk.world.drop_ws(quiet);
        for _ in 0..24 {
            talk.world.run_ms(5_000);
            talk.world.ask_ok(alive, json!({"type": "ping"}));
        }
        assert!(talk.world.member(alive).events("call.ended").is_empty());
        assert_eq!(talk.world.resume(quiet)["resumed"], true);
        // Its media stops too: it is over when both times are.
        talk.world.drop_ws(quiet);
        match &talk.media[silent] {
            Media::Rtmp { push, play } => {
                talk.world.rtmp_kill(*push);
                talk.world.rtmp_kill(*play);
            }
            Media::Webrtc { watch, publish } => {
                talk.world.browser_mut(watch.0).online = false;
                talk.world.browser_mut(*publish).online = false;
            }
        }
        for _ in 0..6 {
            talk.world.run_ms(5_100);
            talk.world.ask_ok(alive, json!({"type": "ping"}));
        }
        assert_eq!(
            talk.world.member(alive).event("call.ended")["reason"],
            "lost"
        );
        assert_free(&mut talk.world, 1);
    }
}

/// A live WebSocket and dead media end nothing: a push that dies and returns takes its place
/// again, and whoever watches goes on watching.
#[test]
fn a_push_that_dies_and_returns_keeps_its_place() {
    let mut talk = talk("rtmp", "webrtc");
    talk.world.run_ms(3_000);
    let url = talk.world.member(talk.caller).event("call.accepted")["push"]["url"]
        .as_str()
        .expect("a URL")
        .to_owned();
    let Media::Rtmp { push, .. } = &talk.media[0] else {
        panic!("the caller is a mini-program");
    };
    talk.world.rtmp_kill(*push);
    talk.world.run_alive(20_000);
    let media = talk.world.member(talk.callee).event("member.media").clone();
    assert_eq!(media["video"], false);
    assert!(
        talk.world
            .member(talk.callee)
            .events("media.ended")
            .is_empty()
    );
    assert!(
        talk.world
            .member(talk.callee)
            .events("call.ended")
            .is_empty()
    );
    let (before, _) = got(&talk.world, &talk.media[1]);
    let again = talk.world.push_url(&url);
    talk.world.run_alive(2_000);
    assert!(!talk.world.rtmp_peer(again).closed);
    assert_eq!(
        talk.world.member(talk.callee).event("member.media")["video"],
        true
    );
    let (after, _) = got(&talk.world, &talk.media[1]);
    assert!(after - before > 40, "{}", after - before);
    // Once more while the old connection still looks alive.
    let third = talk.world.push_url(&url);
    talk.world.run_alive(1_000);
    assert!(talk.world.rtmp_peer(again).closed);
    assert!(!talk.world.rtmp_peer(third).closed);
    let (last, _) = got(&talk.world, &talk.media[1]);
    assert!(last - after > 15, "{}", last - after);
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

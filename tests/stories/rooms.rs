//! Rooms: mini-programs and browsers together, each with the media of each other one.

use serde_json::{Value, json};

use crate::common::clip::{AUDIO, VIDEO};
use crate::common::watch::{pictures, sounds};
use crate::common::world::{World, coded};

fn join(world: &mut World, member: usize, room: &str) -> Value {
    world.ask_ok(
        member,
        json!({"type": "room.join", "room": room, "create": true}),
    )
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no text"))
        .to_owned()
}

/// What is left of rooms and calls.
fn totals(world: &mut World) -> Value {
    let body = world.http("GET", "/api/v1/rooms", &[], "").body;
    let body: Value = serde_json::from_str(&body).expect("JSON");
    body["totals"].clone()
}

#[test]
fn three_mini_programs_and_three_browsers_see_and_hear_each_other() {
    let mut world = World::new();
    let mut members = Vec::new();
    let mut states: Vec<Value> = Vec::new();
    for index in 0..6 {
        let kind = if index % 2 == 0 { "rtmp" } else { "webrtc" };
        let member = world.sign_in(&format!("user-{index}"), kind);
        let state = join(&mut world, member, "ward-3");
        assert_eq!(state["members"].as_array().map(Vec::len), Some(index));
        assert_eq!(state["push"].is_object(), kind == "rtmp");
        members.push(member);
        states.push(state);
    }
    // Who came earlier was told of the others.
    for (index, member) in members.iter().enumerate() {
        let joined = world.member(*member).events("member.joined");
        assert_eq!(joined.len(), 5 - index);
        for event in joined {
            assert_eq!(event["member"]["play"].is_object(), index % 2 == 0);
        }
    }
    let ids: Vec<String> = states.iter().map(|state| text(&state["member"])).collect();
    let mut plays = Vec::new();
    let mut watches = Vec::new();
    for (index, member) in members.iter().enumerate() {
        if index % 2 == 0 {
            let urls = world.ask_ok(*member, json!({"type": "room.urls", "room": "ward-3"}));
            for play in urls["play"].as_array().expect("URLs") {
                plays.push(world.play_url(play["url"].as_str().expect("a URL")));
            }
            world.push_url(urls["push"]["url"].as_str().expect("a URL"));
        } else {
            world.publish_offer(*member, "ward-3");
            for other in ids.iter().filter(|id| **id != ids[index]) {
                watches.push((*member, world.subscribe_offer(*member, "ward-3", other)));
            }
        }
    }
    world.run_ms(500);
    for (member, watch) in &watches {
        if world.browser(watch.0).answer.is_empty() {
            world.accept_late(*member, *watch);
        }
    }
    world.run_alive(4_000);
    assert_eq!((plays.len(), watches.len()), (15, 15));
    for play in &plays {
        let peer = world.rtmp_peer(*play);
        assert!(
            coded(peer, VIDEO).len() > 80,
            "{}",
            coded(peer, VIDEO).len()
        );
        assert!(
            coded(peer, AUDIO).len() > 150,
            "{}",
            coded(peer, AUDIO).len()
        );
    }
    for (_, watch) in &watches {
        let peer = world.browser(watch.0);
        assert!(pictures(peer).len() > 70, "{}", pictures(peer).len());
        assert!(sounds(peer).len() > 140, "{}", sounds(peer).len());
    }
    let body = world.http("GET", "/api/v1/rooms", &[], "").body;
    let body: Value = serde_json::from_str(&body).expect("JSON");
    let listed = body["rooms"][0]["members"].as_array().expect("members");
    assert_eq!(listed.len(), 6);
    for member in listed {
        assert_eq!(
            (&member["audio"], &member["video"]),
            (&json!(true), &json!(true))
        );
        assert_eq!(member["legs"], 6);
    }
    // One after the other leaves; the rest is told, and in the end nothing is left.
    for (index, member) in members.iter().enumerate() {
        world.ask_ok(*member, json!({"type": "room.leave", "room": "ward-3"}));
        for other in &members[index + 1..] {
            let left = world.member(*other).event("member.left");
            assert_eq!(left["member"], ids[index].as_str());
            assert_eq!(left["reason"], "left");
        }
    }
    world.run_ms(100);
    assert!(plays.iter().all(|play| world.rtmp_peer(*play).closed));
    let totals = totals(&mut world);
    for (what, count) in [("members", 0), ("legs", 0), ("tokens", 0), ("rooms", 1)] {
        assert_eq!(totals[what], count, "{what}");
    }
    world.run_alive(60_100);
    assert_eq!(
        world.metric("rtmp_gateway_conversations{kind=\"room\"}"),
        0.0
    );
    assert_eq!(world.streams()["streams"], json!([]));
}

/// A token is good for its holder, its stream and its direction, within its time, and once it
/// was used as long as the membership.
#[test]
fn strangers_get_neither_in_nor_out() {
    let mut world = World::new();
    let anna = world.sign_in("anna", "rtmp");
    let bob = world.sign_in("bob", "rtmp");
    join(&mut world, anna, "r");
    let state = join(&mut world, bob, "r");
    let push = text(&state["push"]["url"]);
    let play = text(&state["members"][0]["play"]["url"]);
    let swap = |from: &str, to: &str| {
        let token = |url: &str| url.split_once("?token=").expect("a token").1.to_owned();
        from.replace(&token(from), &token(to))
    };
    let mut refused = Vec::new();
    // Another's stream, the other direction, no token, an unknown one, a stranger's room.
    let anna_s = play.split('?').next().expect("a path").to_owned();
    let own = push.split('?').next().expect("a path").to_owned();
    for url in [
        swap(&play, &push),
        play.clone(),
        own.clone(),
        format!("{own}?token=00000000000000000000000000000000"),
        anna_s.replace("/r/", "/other/"),
    ] {
        refused.push((world.push_url(&url), "NetStream.Publish.BadAuth"));
    }
    for url in [swap(&push, &push), swap(&play, &push), anna_s, own] {
        refused.push((world.play_url(&url), "NetStream.Play.Failed"));
    }
    world.run_ms(100);
    for (conn, code) in refused {
        let peer = world.rtmp_peer(conn);
        assert!(peer.closed);
        assert_eq!(peer.statuses().last(), Some(&code));
    }
    let offer = |world: &mut World, path: &str| {
        let answer = match path.starts_with("whip") {
            true => world.whip(&path[5..]).map(|_| ()),
            false => world.whep(&path[5..]).map(|_| ()),
        };
        answer.map_err(|answer| answer.status)
    };
    let stream = text(&state["members"][0]["member"]);
    assert_eq!(
        offer(&mut world, &format!("whip/room/r/{stream}")),
        Err(403)
    );
    // A push that was used goes on being good; one that was not is too old after its time.
    let first = world.push_url(&push);
    world.run_ms(500);
    assert_eq!(
        offer(&mut world, &format!("whep/room/r/{stream}")),
        Err(403)
    );
    world.rtmp_kill(first);
    world.run_alive(130_000);
    let late = world.play_url(&play);
    let again = world.push_url(&push);
    world.run_ms(200);
    assert!(world.rtmp_peer(late).closed);
    assert!(!world.rtmp_peer(again).closed);
    assert_eq!(
        world.metric("rtmp_gateway_errors_total{reason=\"room_token_expired\"}"),
        1.0
    );
    let fresh = world.ask_ok(bob, json!({"type": "room.urls", "room": "r"}));
    let play = world.play_url(&text(&fresh["play"][0]["url"]));
    world.run_ms(200);
    assert!(!world.rtmp_peer(play).closed);
    // With the membership the tokens end.
    world.ask_ok(bob, json!({"type": "room.leave", "room": "r"}));
    world.run_ms(50);
    assert!(world.rtmp_peer(again).closed && world.rtmp_peer(play).closed);
    let gone = world.push_url(&push);
    world.run_ms(100);
    assert!(world.rtmp_peer(gone).closed);
}

/// A player that comes before its member sends is held as long as that is a member, and gets
/// the picture when it comes.
#[test]
fn a_player_waits_for_its_member() {
    let mut world = World::new();
    let anna = world.sign_in("anna", "rtmp");
    let bob = world.sign_in("bob", "rtmp");
    let push = text(&join(&mut world, anna, "r")["push"]["url"]);
    let state = join(&mut world, bob, "r");
    let play = world.play_url(&text(&state["members"][0]["play"]["url"]));
    world.run_alive(60_000);
    assert!(!world.rtmp_peer(play).closed);
    let push = world.push_url(&push);
    world.run_ms(1_000);
    assert!(coded(world.rtmp_peer(play), VIDEO).len() > 20);
    // live-pusher stops in order and begins again: its players stay.
    world.rtmp_stop(push);
    world.run_alive(20_000);
    assert!(!world.rtmp_peer(play).closed);
    world.ask_ok(anna, json!({"type": "room.leave", "room": "r"}));
    world.run_ms(10);
    assert!(world.rtmp_peer(play).closed);
}

#[test]
fn mute_and_media_are_told_to_the_others() {
    let mut world = World::new();
    let anna = world.sign_in("anna", "rtmp");
    let bob = world.sign_in("bob", "webrtc");
    let push = text(&join(&mut world, anna, "r")["push"]["url"]);
    join(&mut world, bob, "r");
    let conn = world.push_url(&push);
    world.run_ms(500);
    let media = world.member(bob).event("member.media");
    assert_eq!(
        (&media["audio"], &media["video"]),
        (&json!(true), &json!(true))
    );
    assert!(world.member(bob).events("member.media").len() <= 2);
    let mute = json!({"type": "room.mute", "room": "r", "audio": true, "video": false});
    world.ask_ok(anna, mute.clone());
    world.ask_ok(anna, mute);
    assert_eq!(world.member(bob).events("member.muted").len(), 1);
    assert!(world.member(anna).events("member.muted").is_empty());
    world.rtmp_freeze(conn);
    world.run_alive(5_200);
    let media = world.member(bob).event("member.media");
    assert_eq!(
        (&media["audio"], &media["video"]),
        (&json!(false), &json!(false))
    );
    // Who comes later sees the state.
    let carl = world.sign_in("carl", "webrtc");
    let state = join(&mut world, carl, "r");
    assert_eq!(state["members"][0]["muted_audio"], true);
    assert_eq!(state["members"][0]["audio"], false);
}

/// A subscribe that comes before anything flows is answered when something does, or refused
/// in time; whoever leaves meanwhile gets an end of it.
#[test]
fn a_subscribe_waits_for_media_but_not_for_ever() {
    let mut world = World::new();
    let anna = world.sign_in("anna", "rtmp");
    let bob = world.sign_in("bob", "webrtc");
    let push = text(&join(&mut world, anna, "r")["push"]["url"]);
    let state = join(&mut world, bob, "r");
    let other = text(&state["members"][0]["member"]);
    let (_, id) = world.subscribe_offer(bob, "r", &other);
    assert!(world.member(bob).answer(id).is_none());
    // The second takes the place of the first.
    let second = world.subscribe_offer(bob, "r", &other);
    assert_eq!(
        world.member(bob).answer(id).expect("an answer")["reason"],
        "not_published"
    );
    world.run_alive(10_100);
    let answer = world.member(bob).answer(second.1).expect("an answer");
    assert_eq!(answer["reason"], "not_published");
    let third = world.subscribe_offer(bob, "r", &other);
    world.push_url(&push);
    world.run_ms(100);
    world.accept_late(bob, third);
    world.run_ms(2_000);
    assert!(pictures(world.browser(third.0)).len() > 30);
    // Once more: the first PeerConnection ends.
    world.subscribe_offer(bob, "r", &other);
    assert_eq!(world.member(bob).event("media.ended")["reason"], "replaced");
    // The member goes: so does what is watched of it.
    world.ask_ok(anna, json!({"type": "room.leave", "room": "r"}));
    assert_eq!(
        world.member(bob).event("media.ended")["reason"],
        "member_left"
    );
    let answer = world.ask(
        bob,
        json!({"type": "subscribe", "room": "r", "member": other, "offer": "v=0"}),
    );
    assert_eq!(answer["reason"], "no_such_member");
}

#[test]
fn media_is_closed_replaced_and_refused_by_name() {
    let mut world = World::new();
    let anna = world.sign_in("anna", "webrtc");
    let bob = world.sign_in("bob", "rtmp");
    join(&mut world, anna, "r");
    let state = join(&mut world, bob, "r");
    let play = world.play_url(&text(&state["members"][0]["play"]["url"]));
    let first = world.publish_offer(anna, "r");
    world.run_ms(2_000);
    let second = world.publish_offer(anna, "r");
    world.run_ms(2_000);
    assert_eq!(
        world.member(anna).event("media.ended")["reason"],
        "replaced"
    );
    assert_eq!(world.member(anna).event("media.ended")["media"], "p1");
    assert!(!world.rtmp_peer(play).closed);
    let seen = coded(world.rtmp_peer(play), VIDEO).len();
    assert!(seen > 60, "{seen}");
    let _ = (first, second);
    world.ask_ok(anna, json!({"type": "media.close", "media": "p2"}));
    assert_eq!(
        world.metric("rtmp_gateway_webrtc_sessions{role=\"publisher\"}"),
        0.0
    );
    for (member, request, reason) in [
        (
            anna,
            json!({"type": "media.close", "media": "p2"}),
            "no_such_media",
        ),
        (
            anna,
            json!({"type": "publish", "room": "r", "offer": "v=0"}),
            "offer_refused",
        ),
        (
            anna,
            json!({"type": "publish", "room": "x", "offer": "v=0"}),
            "no_such_room",
        ),
        (
            bob,
            json!({"type": "publish", "room": "r", "offer": "v=0"}),
            "wrong_kind",
        ),
        (
            anna,
            json!({"type": "room.urls", "room": "r"}),
            "wrong_kind",
        ),
    ] {
        let answer = world.ask(member, request);
        assert_eq!(answer["reason"], reason, "{answer}");
    }
}

/// A session that resumes meets what it left: its room, its URLs and what it missed. A second
/// WebSocket takes the session from the first.
#[test]
fn case_56_a_room_is_resumed_without_a_second_join() {
    let mut world = World::new();
    let anna = world.sign_in("anna", "rtmp");
    let bob = world.sign_in("bob", "webrtc");
    let state = join(&mut world, anna, "r");
    world.drop_ws(anna);
    world.run_ms(10_000);
    join(&mut world, bob, "r");
    let resumed = world.resume(anna);
    assert_eq!(resumed["resumed"], true);
    assert_eq!(resumed["rooms"][0]["member"], state["member"]);
    assert_eq!(resumed["rooms"][0]["push"], state["push"]);
    assert_eq!(world.member(anna).events("member.joined").len(), 1);
    assert!(world.member(bob).events("member.joined").is_empty());
    // An event comes once for all resumes after it was seen.
    world.resume(anna);
    assert_eq!(world.member(anna).events("member.joined").len(), 1);
    assert_eq!(totals(&mut world)["members"], 2);
    // Joining once more is the same membership.
    let again = join(&mut world, anna, "r");
    assert_eq!(again["member"], state["member"]);
    // The first WebSocket is told when another takes over.
    let thief = world.ws();
    let session = world.member(anna).session.clone();
    world.hello(
        thief,
        json!({"kind": "rtmp", "resume": {"session": session, "seq": 0}}),
    );
    assert_eq!(world.member(anna).event("bye")["reason"], "replaced");
    // What was seen is not told again.
    assert!(world.member(thief).events("member.joined").is_empty());
    // After its time the session is gone, and so is its place.
    world.drop_ws(thief);
    world.ask_ok(bob, json!({"type": "ping"}));
    world.run_ms(20_000);
    world.ask_ok(bob, json!({"type": "ping"}));
    world.run_ms(10_100);
    assert_eq!(world.member(bob).event("member.left")["reason"], "lost");
    world.ws_again(anna);
    let session = world.member(anna).session.clone();
    let answer = world.hello(
        anna,
        json!({"kind": "rtmp", "resume": {"session": session}}),
    );
    assert_eq!(answer["reason"], "no_such_session");
}

/// Who is there, free and busy, with changes for those who want to know.
#[test]
fn users_are_seen_coming_ringing_and_going() {
    let mut world = World::new();
    let anna = world.sign_in("anna", "webrtc");
    let list = world.ask_ok(anna, json!({"type": "users", "watch": true}));
    assert_eq!(list["users"], json!([]));
    let bob = world.sign_in("bob", "rtmp");
    let event = world.member(anna).event("user").clone();
    assert_eq!(
        (&event["user"], &event["state"]),
        (&json!("bob"), &json!("free"))
    );
    assert_eq!(event["kinds"], json!(["rtmp"]));
    let desk = world.sign_in("bob", "webrtc");
    assert_eq!(
        world.member(anna).event("user")["kinds"],
        json!(["rtmp", "webrtc"])
    );
    world.ask_ok(anna, json!({"type": "call.invite", "to": "bob"}));
    assert_eq!(world.member(anna).event("user")["state"], "busy");
    world.drop_ws(bob);
    world.drop_ws(desk);
    world.run_ms(20_000);
    world.ask_ok(anna, json!({"type": "ping"}));
    world.run_ms(10_100);
    assert_eq!(world.member(anna).event("user")["state"], "offline");
    // Nobody of them is left to answer.
    assert_eq!(world.member(anna).event("call.ended")["reason"], "lost");
    let before = world.member(anna).events("user").len();
    world.ask_ok(anna, json!({"type": "users"}));
    world.sign_in("carl", "rtmp");
    assert_eq!(world.member(anna).events("user").len(), before);
}

/// The gateway stops: everybody is told, and it stops in time.
#[test]
fn a_drain_ends_rooms_and_calls_in_words() {
    let mut world = World::new();
    let anna = world.sign_in("anna", "rtmp");
    let bob = world.sign_in("bob", "webrtc");
    let carl = world.sign_in("carl", "webrtc");
    let call = world.ask_ok(anna, json!({"type": "call.invite", "to": "bob"}))["call"].clone();
    world.ask_ok(bob, json!({"type": "call.accept", "call": call}));
    join(&mut world, carl, "r");
    world.publish_offer(bob, &text(&call));
    world.run_ms(500);
    world.input(rtmp_gateway::gateway::Input::Drain);
    for member in [anna, bob] {
        assert_eq!(world.member(member).event("call.ended")["reason"], "drain");
    }
    for member in [anna, bob, carl] {
        assert_eq!(world.member(member).event("room.closed")["reason"], "drain");
        assert_eq!(world.member(member).event("bye")["reason"], "drain");
        assert_eq!(world.member(member).close_code, Some(1001));
    }
    assert!(world.run_until_ms(2_100, |world| world.stopped.is_some()));
}

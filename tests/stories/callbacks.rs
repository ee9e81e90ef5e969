//! Callbacks: an operator's server is told and asked, and nothing ever waits for it but what is
//! asked about, for a bounded time.

use std::time::Duration;

use rtmp_gateway::config::Config;
use rtmp_gateway::gateway::{Callback, CallbackRequest, ConnId, Input, Listener, Outcome};
use rtmp_gateway::rtmp::client::Event;
use serde_json::json;

use crate::common::browser::{Browser, BrowserConfig, Does};
use crate::common::clip::VIDEO;
use crate::common::world::{World, coded};

fn world(events: &str, change: impl FnOnce(&mut Config)) -> World {
    let text = format!("[callback]\nurl = \"http://127.0.0.1:9/\"\nevents = [{events}]\n");
    let mut config = Config::parse("test", &text).expect("a good file");
    change(&mut config);
    World::with_config(config)
}

fn body(request: &CallbackRequest) -> serde_json::Value {
    serde_json::from_str(&request.body).expect("JSON")
}

fn answer(world: &mut World, id: u64, outcome: Outcome) {
    let took = Duration::from_millis(5);
    world.input(Input::Callback(Callback { id, outcome, took }));
}

fn answered(status: u16, body: &str) -> Outcome {
    Outcome::Answered {
        status,
        body: body.into(),
    }
}

/// The one question that waits.
fn question(world: &mut World, event: &str) -> u64 {
    let asked = world.callbacks.pop().expect("a question");
    assert!(asked.is_question && world.callbacks.is_empty());
    assert_eq!(body(&asked)["event"], event);
    asked.id
}

fn error_text(world: &World, conn: ConnId) -> Option<String> {
    let mut events = world.rtmp_peer(conn).events.iter();
    events.find_map(|(_, event)| match event {
        Event::Status {
            level, description, ..
        } if level == "error" => Some(description.clone()),
        _ => None,
    })
}

#[test]
fn an_rtmp_publisher_is_held_until_the_answer_and_loses_nothing() {
    let mut world = world(r#""publish", "unpublish""#, |_| {});
    let conn = world.rtmp_publish("live/a?token=t");
    world.run_ms(500);
    let asked = body(&world.callbacks[0]);
    assert_eq!(asked["stream"], "live/a");
    assert_eq!(asked["token"], "t");
    assert_eq!(asked["protocol"], "rtmp");
    assert!(world.stream("live/a").is_none());
    assert!(world.rtmp_peer(conn).statuses().is_empty());
    let id = question(&mut world, "publish");
    answer(&mut world, id, answered(200, ""));
    world.run_ms(1_000);
    let player = world.rtmp_play("live/a");
    world.run_ms(500);
    assert!(!coded(world.rtmp_peer(player), VIDEO).is_empty());
    world.rtmp_stop(conn);
    world.run_ms(100);
    let news = world.callbacks.pop().expect("news");
    assert!(!news.is_question);
    assert_eq!(body(&news)["event"], "unpublish");
    assert_eq!(body(&news)["client"], asked["client"]);
    assert!(world.callbacks.is_empty(), "told once");
}

#[test]
fn a_refusal_is_told_with_its_reason_over_each_protocol() {
    let mut world = world(r#""connect", "publish", "play""#, |_| {});
    let no = || answered(200, r#"{"allow":false,"reason":"the school is closed"}"#);
    let conn = world.rtmp_publish("live/a");
    world.run_ms(200);
    let id = question(&mut world, "connect");
    answer(&mut world, id, no());
    world.run_ms(200);
    let text = error_text(&world, conn).expect("told");
    assert_eq!(text, "Connecting is refused: the school is closed.");
    assert!(world.rtmp_peer(conn).closed_at.is_some());
    for publishes in [true, false] {
        let conn = match publishes {
            true => world.rtmp_publish("live/a"),
            false => world.rtmp_play("live/a"),
        };
        world.run_ms(200);
        let id = question(&mut world, "connect");
        answer(&mut world, id, answered(204, ""));
        world.run_ms(200);
        let id = question(&mut world, if publishes { "publish" } else { "play" });
        answer(&mut world, id, no());
        world.run_ms(200);
        let text = error_text(&world, conn).expect("told");
        assert!(
            text.ends_with("live/a is refused: the school is closed."),
            "{text}"
        );
        assert!(world.rtmp_peer(conn).closed_at.is_some());
    }
    let (whip, held) = post_whip(&mut world);
    assert!(held.is_empty());
    let id = question(&mut world, "publish");
    answer(&mut world, id, answered(403, r#"{"reason":"not you"}"#));
    let text = String::from_utf8_lossy(&world.raw_peer(whip).received).into_owned();
    assert!(text.starts_with("HTTP/1.1 403"), "{text}");
    assert!(text.contains("This is refused: not you.") && text.contains("Access-Control"));
    assert_eq!(world.metric("rtmp_gateway_callbacks_refused_total"), 4.0);
}

/// Sends a WHIP offer; answers its connection and what has come back.
fn post_whip(world: &mut World) -> (ConnId, Vec<u8>) {
    post(world, Does::Publish, "/whip/live/w")
}

/// The same with an offer of either kind, to this path.
fn post(world: &mut World, does: Does, path: &str) -> (ConnId, Vec<u8>) {
    let browser = Browser::new(BrowserConfig::new(does), world.now);
    let offer = browser.offer().to_owned();
    let conn = world.connect(Listener::Http);
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/sdp\r\n\
         Content-Length: {}\r\n\r\n{offer}",
        offer.len()
    );
    world.raw_send(conn, request.as_bytes());
    let came = world.raw_peer(conn).received.clone();
    (conn, came)
}

#[test]
fn a_whip_request_is_held_and_then_answered() {
    let mut world = world(r#""publish""#, |_| {});
    let (conn, came) = post_whip(&mut world);
    assert!(came.is_empty(), "nothing yet");
    let id = question(&mut world, "publish");
    answer(&mut world, id, answered(200, r#"{"allow":true}"#));
    let text = String::from_utf8_lossy(&world.raw_peer(conn).received).into_owned();
    assert!(text.starts_with("HTTP/1.1 201"), "{text}");
    // A second answer to the same question, and one to a question that nobody asked.
    answer(&mut world, id, answered(403, ""));
    answer(&mut world, 999, answered(403, ""));
    assert!(world.stream("live/w").is_some());
}

#[test]
fn a_server_that_does_not_answer_costs_its_time_out_and_then_counts_as_configured() {
    for required in [true, false] {
        let mut world = world(r#""play""#, |config| config.callback.required = required);
        let publisher = world.rtmp_publish("live/a");
        world.run_ms(500);
        let player = world.rtmp_play("live/a");
        world.run_ms(2_900);
        assert!(error_text(&world, player).is_none(), "held");
        world.run_ms(500);
        let got = coded(world.rtmp_peer(player), VIDEO).len();
        assert_eq!(error_text(&world, player).is_some(), required);
        assert_eq!(got > 0, !required);
        assert!(
            world.rtmp_peer(publisher).closed_at.is_none(),
            "media flows on"
        );
        assert_eq!(world.metric("rtmp_gateway_callbacks_failed_total"), 1.0);
        // The answer comes after all.
        let late = world.callbacks.pop().expect("the question").id;
        answer(&mut world, late, answered(403, ""));
        world.run_ms(200);
        assert_eq!(world.rtmp_peer(player).closed_at.is_some(), required);
        let player = world.rtmp_play("live/a");
        world.run_ms(100);
        let id = question(&mut world, "play");
        answer(&mut world, id, Outcome::Failed("refused".into()));
        world.run_ms(500);
        assert_eq!(error_text(&world, player).is_some(), required, "down");
    }
}

#[test]
fn who_leaves_while_it_is_asked_about_leaves_nothing_behind() {
    let mut world = world(r#""connect", "publish", "play""#, |_| {});
    let mut ids = Vec::new();
    for _ in 0..20 {
        let conn = world.rtmp_publish("live/a");
        world.run_ms(50);
        world.rtmp_kill(conn);
        let (whip, _) = post_whip(&mut world);
        world.hang_up_raw(whip);
        world.run_ms(50);
        ids.extend(world.callbacks.drain(..).map(|request| request.id));
    }
    for id in ids {
        answer(&mut world, id, answered(200, ""));
    }
    assert_eq!(world.metric("rtmp_gateway_callbacks_pending"), 0.0);
    world.run_ms(5_000);
    assert!(world.stream("live/a").is_none());
    assert_eq!(world.metric("rtmp_gateway_streams"), 0.0);
}

#[test]
fn questions_are_bounded_and_one_more_counts_as_unanswered() {
    let mut world = world(r#""play""#, |config| config.callback.queue_max = 8);
    let players: Vec<_> = (0..20).map(|_| world.rtmp_play("live/a")).collect();
    world.run_ms(500);
    assert_eq!(world.callbacks.len(), 8);
    let refused = players
        .iter()
        .filter(|conn| error_text(&world, **conn).is_some());
    assert_eq!(refused.count(), 12);
    assert_eq!(world.metric("rtmp_gateway_callbacks_dropped_total"), 12.0);
    // News that the world has no room for are counted, and that is all.
    answer(&mut world, 5_000, Outcome::Dropped);
    assert_eq!(world.metric("rtmp_gateway_callbacks_dropped_total"), 13.0);
}

#[test]
fn the_health_of_each_stream_is_told_now_and_then() {
    let mut world = world(r#""health""#, |config| {
        config.callback.health_interval = Duration::from_secs(5);
    });
    world.rtmp_publish("live/a");
    world.rtmp_publish("live/b");
    world.rtmp_play("live/nobody");
    world.run_ms(10_500);
    let told: Vec<_> = world.callbacks.iter().map(body).collect();
    let names: Vec<_> = told.iter().filter_map(|t| t["stream"].as_str()).collect();
    assert_eq!(names, ["live/a", "live/b", "live/a", "live/b"]);
    assert_eq!(told[2]["health"]["tracks"][0]["codec"], "H264");
    assert!(world.callbacks.iter().all(|request| !request.is_question));
}

#[test]
fn who_was_let_in_but_left_meanwhile_is_taken_back() {
    let mut world = world(r#""publish", "unpublish""#, |_| {});
    let conn = world.rtmp_publish("live/a");
    world.run_ms(200);
    world.rtmp_kill(conn);
    world.run_ms(50);
    let id = question(&mut world, "publish");
    answer(&mut world, id, answered(200, ""));
    let news = body(&world.callbacks.pop().expect("news"));
    assert_eq!(news["event"], "unpublish");
    assert_eq!(news["stream"], "live/a");
    assert!(world.callbacks.is_empty());
}

#[test]
fn a_sign_in_a_join_and_an_invitation_are_held_allowed_and_refused() {
    let mut world = world(r#""connect", "join", "leave", "call""#, |_| {});
    let no = || answered(403, r#"{"reason":"not today"}"#);
    let [anna, bob] = ["anna", "bob"].map(|user| {
        let member = world.ws();
        let hello =
            json!({"type": "hello", "version": 1, "id": 100, "kind": "webrtc", "user": user});
        world.say(member, &hello);
        let id = question(&mut world, "connect");
        answer(&mut world, id, no());
        let refused = world.member(member).answer(100).expect("an answer");
        assert_eq!(refused["reason"], "refused");
        assert_eq!(refused["message"], "not today");
        let hello =
            json!({"type": "hello", "version": 1, "id": 101, "kind": "webrtc", "user": user});
        world.say(member, &hello);
        world.say(member, &hello);
        let id = question(&mut world, "connect");
        answer(&mut world, id, answered(204, ""));
        assert_eq!(world.member(member).answer(101).expect("one")["type"], "ok");
        member
    });
    for (id, status, kind) in [(1_001, 403, "error"), (1_002, 200, "ok")] {
        let join = json!({"type": "room.join", "id": id, "room": "ward", "create": true});
        world.say(anna, &join);
        world.say(anna, &join);
        let asked = question(&mut world, "join");
        assert!(world.member(anna).answer(id).is_none(), "held");
        world.ask_ok(anna, json!({"type": "ping"}));
        answer(&mut world, asked, answered(status, ""));
        assert_eq!(world.member(anna).answer(id).expect("one")["type"], kind);
    }
    world.ask_ok(anna, json!({"type": "room.leave", "room": "ward"}));
    let news = body(&world.callbacks.pop().expect("news"));
    assert_eq!(
        (&news["event"], &news["reason"]),
        (&json!("leave"), &json!("left"))
    );
    // Whoever leaves while it is held is not let in later, and the yes is taken back.
    world.say(
        anna,
        &json!({"type": "room.join", "id": 1_003, "room": "ward", "create": true}),
    );
    let asked = question(&mut world, "join");
    world.ask_ok(anna, json!({"type": "room.leave", "room": "ward"}));
    let answered_so = world.member(anna).answer(1_003).expect("one")["reason"].clone();
    assert_eq!(answered_so, "not_in_room");
    answer(&mut world, asked, answered(200, ""));
    let news = body(&world.callbacks.pop().expect("news"));
    assert_eq!(
        (&news["event"], &news["reason"]),
        (&json!("leave"), &json!("not_begun"))
    );
    for (id, outcome) in [(1_004, no()), (1_005, answered(200, ""))] {
        world.say(anna, &json!({"type": "call.invite", "id": id, "to": "bob"}));
        let asked = question(&mut world, "call");
        assert!(world.member(bob).events("call.incoming").is_empty(), "held");
        answer(&mut world, asked, outcome);
    }
    let call = world.member(bob).event("call.incoming")["call"].clone();
    world.ask_ok(bob, json!({"type": "call.ringing", "call": call}));
    world.ask_ok(bob, json!({"type": "call.accept", "call": call}));
    world.ask_ok(bob, json!({"type": "call.hangup", "call": call}));
    let told: Vec<_> = world.callbacks.drain(..).map(|news| body(&news)).collect();
    let states: Vec<_> = told
        .iter()
        .filter_map(|news| news["state"].as_str())
        .collect();
    assert_eq!(states, ["calling", "ringing", "accepted", "ended"]);
    assert_eq!(told[3]["reason"], "hangup");
    // Down or slow: refused after the time-out.
    world.say(
        anna,
        &json!({"type": "call.invite", "id": 1_006, "to": "bob"}),
    );
    world.run_ms(3_100);
    let refused = world.member(anna).answer(1_006).expect("one")["reason"].clone();
    assert_eq!(refused, "refused");
}

/// What can be asked about, by the one event that is asked.
#[derive(Clone, Copy, Debug)]
enum Wish {
    RtmpConnect,
    SignIn,
    Join,
    Call,
    RtmpPublish,
    Whip,
    RtmpPlay,
    Whep,
}

impl Wish {
    const ALL: [(Self, &str); 8] = [
        (Self::RtmpConnect, "connect"),
        (Self::SignIn, "connect"),
        (Self::Join, "join"),
        (Self::Call, "call"),
        (Self::RtmpPublish, "publish"),
        (Self::Whip, "publish"),
        (Self::RtmpPlay, "play"),
        (Self::Whep, "play"),
    ];

    /// What there must be before it.
    fn prepare(self, world: &mut World) {
        match self {
            Self::Join => drop(world.sign_in("anna", "webrtc")),
            Self::Call => {
                world.sign_in("anna", "webrtc");
                world.sign_in("bob", "webrtc");
            }
            Self::RtmpPlay | Self::Whep => {
                world.rtmp_publish("live/a");
                world.run_ms(500);
            }
            _ => {}
        }
    }

    /// Says it, as the member or by the connection that is answered.
    fn say(self, world: &mut World) -> Asks {
        let request = match self {
            Self::RtmpConnect | Self::RtmpPublish => {
                return Asks::Rtmp(world.rtmp_publish("live/a"));
            }
            Self::RtmpPlay => return Asks::Rtmp(world.rtmp_play("live/a")),
            Self::Whip => return Asks::Http(post(world, Does::Publish, "/whip/live/w").0),
            Self::Whep => return Asks::Http(post(world, Does::View, "/whep/live/a").0),
            Self::SignIn => {
                json!({"type": "hello", "version": 1, "id": 900, "kind": "webrtc", "user": "anna"})
            }
            Self::Join => json!({"type": "room.join", "id": 900, "room": "ward", "create": true}),
            Self::Call => json!({"type": "call.invite", "id": 900, "to": "bob"}),
        };
        let member = match self {
            Self::SignIn => world.ws(),
            _ => 0,
        };
        world.say(member, &request);
        Asks::Member(member)
    }
}

/// Who waits for an answer.
#[derive(Clone, Copy, Debug)]
enum Asks {
    Rtmp(ConnId),
    Http(ConnId),
    Member(usize),
}

impl Asks {
    /// Whether it was let in; `None`: it is held.
    fn is_let_in(self, world: &World) -> Option<bool> {
        match self {
            Self::Rtmp(conn) => match error_text(world, conn) {
                Some(text) => {
                    assert!(text.contains("does not answer"), "{text}");
                    Some(false)
                }
                None => {
                    let begun = ["NetStream.Publish.Start", "NetStream.Play.Start"];
                    let peer = world.rtmp_peer(conn);
                    peer.statuses()
                        .iter()
                        .any(|code| begun.contains(code))
                        .then_some(true)
                }
            },
            Self::Http(conn) => {
                let text = String::from_utf8_lossy(&world.raw_peer(conn).received);
                let status = text.split(' ').nth(1)?;
                assert!(["201", "403"].contains(&status), "{text}");
                Some(status == "201")
            }
            Self::Member(member) => {
                let answer = world.member(member).answer(900)?;
                assert!(
                    answer["type"] == "ok" || answer["reason"] == "refused",
                    "{answer}"
                );
                Some(answer["type"] == "ok")
            }
        }
    }
}

/// Each question by itself, a server that is down and one that is slow, `required` both ways.
#[test]
fn every_question_without_an_answer_is_decided_as_configured_and_media_flows_on() {
    for (wish, event) in Wish::ALL {
        for (required, slow) in [(true, true), (true, false), (false, true), (false, false)] {
            let case = format!("{wish:?}, required {required}, slow {slow}");
            let mut world = world(&format!("{event:?}"), |config| {
                config.callback.required = required;
            });
            let bystander = world.rtmp_publish("live/bystander");
            for _ in 0..2 {
                world.run_ms(200);
                for asked in std::mem::take(&mut world.callbacks) {
                    answer(&mut world, asked.id, answered(204, ""));
                }
            }
            let prepared = world.callbacks.len();
            assert_eq!(prepared, 0, "{case}");
            wish.prepare(&mut world);
            for asked in std::mem::take(&mut world.callbacks) {
                answer(&mut world, asked.id, answered(204, ""));
            }
            let asks = wish.say(&mut world);
            world.run_ms(200);
            let id = question(&mut world, event);
            assert_eq!(asks.is_let_in(&world), None, "{case}: held");
            let media = |world: &mut World| world.metric("rtmp_gateway_tcp_received_bytes_total");
            let before = media(&mut world);
            if slow {
                world.run_ms(2_700);
                assert_eq!(asks.is_let_in(&world), None, "{case}: held to the end");
            } else {
                answer(&mut world, id, Outcome::Failed("connection refused".into()));
            }
            world.run_ms(400);
            assert_eq!(asks.is_let_in(&world), Some(!required), "{case}");
            // What comes after all changes nothing.
            let late = if required { 200 } else { 403 };
            answer(&mut world, id, answered(late, ""));
            world.run_ms(200);
            assert_eq!(asks.is_let_in(&world), Some(!required), "{case}: late");
            assert!(media(&mut world) > before, "{case}");
            assert!(world.rtmp_peer(bystander).closed_at.is_none(), "{case}");
            assert_eq!(world.metric("rtmp_gateway_callbacks_failed_total"), 1.0);
            assert_eq!(
                world.metric("rtmp_gateway_callbacks_pending"),
                0.0,
                "{case}"
            );
        }
    }
}

/// How much there is of rooms and calls.
fn totals(world: &mut World) -> serde_json::Value {
    let text = world.http("GET", "/api/v1/rooms", &[], "").body;
    let body: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    body["totals"].clone()
}

/// Whether the answer is yes, no, or never comes: before the session is given up, or after.
#[test]
fn a_websocket_lost_while_its_request_is_held_leaves_nothing_behind() {
    for (wish, event) in [
        (Wish::SignIn, "connect"),
        (Wish::Join, "join"),
        (Wish::Call, "call"),
    ] {
        for status in [Some(200), Some(403), None] {
            for answered_after_ms in [10, 40_000] {
                let case = format!("{wish:?} {status:?} {answered_after_ms}");
                let mut world = world(&format!("{event:?}"), |config| {
                    config.callback.timeout = Duration::from_secs(50);
                });
                let base = totals(&mut world);
                wish.prepare(&mut world);
                let Asks::Member(member) = wish.say(&mut world) else {
                    panic!("{case}: no member")
                };
                let id = question(&mut world, event);
                assert_eq!(totals(&mut world)["waiting"], 1, "{case}");
                world.drop_ws(member);
                world.run_ms(answered_after_ms);
                if let Some(status) = status {
                    answer(&mut world, id, answered(status, ""));
                }
                // An invitation that was let in rings until its time is over.
                world.run_ms(120_000);
                assert_eq!(totals(&mut world), base, "{case}");
                assert_eq!(
                    world.metric("rtmp_gateway_callbacks_pending"),
                    0.0,
                    "{case}"
                );
            }
        }
    }
}

/// A mini-program in a lift: it comes back with its session, and finds itself where it asked to be.
#[test]
fn who_comes_back_while_its_join_is_held_is_let_in() {
    for is_back_first in [true, false] {
        let mut world = world(r#""join""#, |_| {});
        let anna = world.sign_in("anna", "webrtc");
        world.say(
            anna,
            &json!({"type": "room.join", "id": 900, "room": "ward", "create": true}),
        );
        let id = question(&mut world, "join");
        world.drop_ws(anna);
        if !is_back_first {
            answer(&mut world, id, answered(200, ""));
        }
        let hello = world.resume(anna);
        assert_eq!(hello["type"], "ok", "{hello}");
        if is_back_first {
            answer(&mut world, id, answered(200, ""));
        }
        world.say(
            anna,
            &json!({"type": "room.join", "id": 900, "room": "ward", "create": true}),
        );
        let found = world.member(anna).answer(900).expect("an answer");
        assert_eq!(found["type"], "ok", "{found}");
        let totals = totals(&mut world);
        assert_eq!(
            (&totals["members"], &totals["waiting"]),
            (&json!(1), &json!(0))
        );
        assert!(world.callbacks.is_empty(), "asked once");
    }
}

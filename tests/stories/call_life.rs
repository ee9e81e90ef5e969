//! What a call lives on: its media and its signalling, and the one without the other.

use std::time::Duration;

use serde_json::json;

use super::calls::{Media, assert_free, got, talk};
use crate::common::watch::assert_ms;

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

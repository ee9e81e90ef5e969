//! Timers, and how sessions end.

use std::time::Duration;

use super::peer::{Peer, handshake, media};
use crate::rtmp::amf0::Value;
use crate::rtmp::message::{Control, UserControl, type_id};
use crate::rtmp::session::{CloseReason, Error, Event, Limits, SharedMessage, Timer};

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn pings(peer: &mut Peer) -> usize {
    let replies = peer.replies();
    let controls = replies.iter().filter_map(|reply| reply.control());
    controls
        .filter(|control| matches!(control, Control::User(UserControl::PingRequest(_))))
        .count()
}

/// Case 2 and 53, the parts that concern a session.
#[test]
fn a_handshake_that_never_ends_runs_out_of_time() {
    let bytes = handshake();
    for sent in [0, 1, 1_536, 1_537, 3_072] {
        let mut peer = Peer::new(Limits::default());
        peer.send_bytes(&bytes[..sent])
            .expect("part of a handshake");
        peer.wait(Duration::from_millis(4_999)).expect("not yet");
        // Bytes do not prolong it.
        peer.send_bytes(&bytes[sent..sent]).expect("nothing");
        assert_eq!(
            peer.wait(Duration::from_millis(1)),
            Err(Error::TimedOut(Timer::Handshake))
        );
        assert!(peer.session.is_closed());
        assert_eq!(peer.session.next_timeout(), None);
        assert_eq!(peer.wait(seconds(100)), Ok(()));
    }
}

#[test]
fn a_peer_that_never_connects_or_asks_runs_out_of_time() {
    let mut peer = Peer::new(Limits::default());
    peer.send_bytes(&handshake()).expect("a handshake");
    assert_eq!(peer.wait(seconds(5)), Err(Error::TimedOut(Timer::Connect)));

    let mut peer = Peer::connected();
    peer.create_stream();
    peer.wait(Duration::from_millis(29_999)).expect("not yet");
    assert_eq!(
        peer.wait(Duration::from_millis(1)),
        Err(Error::TimedOut(Timer::Request))
    );
}

#[test]
fn a_publisher_that_stopped_has_time_to_publish_again() {
    let mut peer = Peer::connected();
    let stream_id = peer.publish("s");
    peer.wait(seconds(10)).expect("silent, not too long");
    peer.command(stream_id, "closeStream", 0.0, vec![]);
    peer.wait(seconds(29)).expect("not yet");
    peer.command(
        stream_id,
        "publish",
        0.0,
        vec![Value::Null, Value::string("s")],
    );
    peer.wait(seconds(14)).expect("silent, not too long");
    assert_eq!(peer.wait(seconds(1)), Err(Error::TimedOut(Timer::Silence)));
}

/// Case 54 and 55, the parts that concern a session.
#[test]
fn a_silent_publisher_is_pinged_and_then_given_up() {
    let mut peer = Peer::connected();
    peer.publish("s");
    // Five pictures a second from the background for minutes.
    for _ in 0..600 {
        peer.wait(Duration::from_millis(200)).expect("alive");
        peer.send(&media(type_id::VIDEO, 1, 0, &[0x27, 1, 0, 0, 0, 9]))
            .expect("a picture");
    }
    assert_eq!(pings(&mut peer), 0);
    peer.wait(Duration::from_millis(7_499)).expect("not yet");
    assert_eq!(pings(&mut peer), 0);
    peer.wait(Duration::from_millis(1)).expect("a ping");
    assert_eq!(pings(&mut peer), 1);
    peer.wait(Duration::from_millis(7_499)).expect("not yet");
    assert_eq!(pings(&mut peer), 0, "one ping is enough");
    assert_eq!(
        peer.wait(Duration::from_millis(1)),
        Err(Error::TimedOut(Timer::Silence))
    );
}

#[test]
fn an_answered_ping_is_a_sign_of_life() {
    let mut peer = Peer::connected();
    peer.publish("s");
    for _ in 0..20 {
        peer.wait(seconds(8)).expect("alive");
        assert_eq!(pings(&mut peer), 1);
        let pong = Control::User(UserControl::PingResponse(0));
        peer.send(&pong.to_message()).expect("a pong");
    }
}

/// Case 15: a player that answers no ping lives as long as it takes media.
#[test]
fn a_mute_player_lives_while_it_takes_media() {
    let mut peer = Peer::connected();
    peer.play("s");
    let video = SharedMessage::avc(0, true, 0, &[7; 1_000], 60_000);
    for _ in 0..300 {
        peer.wait(seconds(1)).expect("alive");
        peer.session.send_shared(1, &video);
        peer.replies();
    }
    // It takes nothing any more.
    let mut outcome = Ok(());
    let mut waited = 0;
    while outcome.is_ok() {
        outcome = peer.wait(seconds(1));
        peer.session.send_shared(1, &video);
        waited += 1;
    }
    assert_eq!(outcome, Err(Error::TimedOut(Timer::Silence)));
    assert!((60..=91).contains(&waited), "{waited} s");
}

#[test]
fn a_mute_held_player_is_given_up() {
    let mut peer = Peer::connected();
    let stream_id = peer.create_stream();
    peer.command(
        stream_id,
        "play",
        0.0,
        vec![Value::Null, Value::string("s")],
    );
    peer.session.poll_event();
    peer.session.hold_play(stream_id);
    peer.replies();
    // The ping leaves the queue, and is no sign of life.
    let mut outcome = Ok(());
    let mut waited = 0;
    while outcome.is_ok() {
        outcome = peer.wait(seconds(1));
        peer.replies();
        waited += 1;
    }
    assert_eq!(outcome, Err(Error::TimedOut(Timer::Silence)));
    assert!((60..=91).contains(&waited), "{waited} s");
}

#[test]
fn bytes_do_not_move_the_deadline() {
    let mut peer = Peer::connected();
    peer.publish("s");
    let due = peer.session.next_timeout();
    for _ in 0..30 {
        peer.now += Duration::from_millis(200);
        peer.send(&media(type_id::AUDIO, 1, 0, &[0xaf, 1, 1]))
            .expect("audio");
    }
    assert_eq!(peer.session.next_timeout(), due);
    peer.wait(seconds(2)).expect("alive");
    assert!(peer.session.next_timeout() > due);
}

#[test]
fn a_call_too_early_does_nothing() {
    let mut peer = Peer::connected();
    peer.publish("s");
    let due = peer.session.next_timeout();
    peer.session.handle_timeout(peer.now).expect("early");
    assert_eq!(peer.session.next_timeout(), due);
    assert!(peer.replies().is_empty());
}

#[test]
fn a_closed_session_tells_players_and_publishers() {
    for (reason, expected) in [
        (
            CloseReason::ShuttingDown,
            "NetConnection.Connect.AppShutdown",
        ),
        (CloseReason::Replaced, "NetStream.Publish.BadName"),
        (CloseReason::Kicked("by name"), "NetStream.Publish.Failed"),
        (CloseReason::Finished, "NetStream.Unpublish.Success"),
    ] {
        let mut peer = Peer::connected();
        peer.publish("a");
        peer.play("b");
        peer.session.close(reason);
        let codes = peer.codes();
        assert_eq!(
            codes,
            [
                (1, expected.to_owned()),
                (2, "NetStream.Play.UnpublishNotify".to_owned()),
                (2, "NetStream.Play.Stop".to_owned()),
            ]
        );
        assert!(peer.session.is_closed());
        assert!(matches!(peer.events().as_slice(), [Event::Closed { .. }]));
        peer.session.close(reason);
        assert!(peer.events().is_empty() && peer.replies().is_empty());
    }
}

#[test]
fn a_client_that_can_is_asked_to_connect_again() {
    let mut peer = Peer::new(Limits::default());
    peer.send_bytes(&handshake()).expect("a handshake");
    let object = Value::object([
        ("app", Value::string("live")),
        ("capsEx", Value::Number(1.0)),
    ]);
    peer.command(0, "connect", 1.0, vec![object]);
    peer.replies();
    peer.events();
    peer.play("s");
    peer.session.close(CloseReason::ShuttingDown);
    assert_eq!(
        peer.codes().first(),
        Some(&(0, "NetConnection.Connect.ReconnectRequest".to_owned()))
    );
}

//! What players say, and what they are told.

use super::peer::{Peer, Reply};
use crate::rtmp::amf0::Value;
use crate::rtmp::command::{Command, PlayStart};
use crate::rtmp::message::{Control, Message, UserControl};
use crate::rtmp::session::{Event, PlayRefusal, SharedMessage};

const CHUNK_SIZE: u32 = 60_000;

fn play(name: &str, arguments: &[f64]) -> Vec<Value> {
    let mut values = vec![Value::Null, Value::string(name)];
    values.extend(arguments.iter().map(|&number| Value::Number(number)));
    values
}

fn on_one(codes: &[&str]) -> Vec<(u32, String)> {
    codes.iter().map(|code| (1, (*code).to_owned())).collect()
}

fn begins(replies: &[Reply]) -> bool {
    let begin = Control::User(UserControl::StreamBegin(1));
    replies.iter().any(|reply| reply.control() == Some(begin))
}

/// ffmpeg 5.1.9 as a player.
#[test]
fn ffmpegs_play_order_reaches_play_start() {
    let mut peer = Peer::connected();
    let messages = [
        Command::new("createStream", 2.0, vec![Value::Null]).to_message(3, 0),
        Command::new("getStreamLength", 3.0, play("s?token=x", &[])).to_message(8, 0),
        Command::new("play", 4.0, play("s?token=x", &[-2_000.0])).to_message(8, 1),
        Message {
            timestamp: 1,
            ..Control::User(UserControl::SetBufferLength {
                stream_id: 1,
                millis: 3_000,
            })
            .to_message()
        },
    ];
    let bytes = peer.encode(&messages);
    peer.send_bytes(&bytes).expect("a burst");
    let events = peer.events();
    let [
        Event::Play {
            stream_id: 1,
            request,
        },
    ] = events.as_slice()
    else {
        panic!("{events:?}");
    };
    assert_eq!(request.name.key, "live/s");
    assert_eq!(request.name.token(), Some("x"));
    peer.session.accept_play(1);
    let replies = peer.replies();
    assert!(begins(&replies));
    let codes: Vec<_> = replies.iter().filter_map(Reply::code).collect();
    assert_eq!(
        codes,
        on_one(&["NetStream.Play.Reset", "NetStream.Play.Start"])
    );
    // ffmpeg would show it as a stream of its own.
    assert_eq!(replies.iter().filter_map(Reply::data).count(), 0);
}

/// rtmpdump 2.4: the buffer length first, FCSubscribe, and the start in thousands.
#[test]
fn rtmpdumps_play_order_reaches_play_start() {
    let mut peer = Peer::connected();
    let buffer = |stream_id, millis| {
        Control::User(UserControl::SetBufferLength { stream_id, millis }).to_message()
    };
    let messages = [
        buffer(0, 300),
        Command::new("createStream", 2.0, vec![Value::Null]).to_message(3, 0),
        Command::new("FCSubscribe", 3.0, play("s", &[])).to_message(3, 0),
        Command::new("play", 4.0, play("s", &[-1_000.0])).to_message(8, 1),
        buffer(1, 36_000_000),
    ];
    let bytes = peer.encode(&messages);
    peer.send_bytes(&bytes).expect("a burst");
    let replies = peer.replies();
    assert!(replies.iter().any(|reply| reply.name() == "onFCSubscribe"));
    let events = peer.events();
    assert!(
        matches!(events.as_slice(), [Event::Play { request, .. }]
            if request.start == PlayStart::Live),
        "{events:?}"
    );
}

/// Case 22.
#[test]
fn a_player_before_its_publisher_is_held_and_told() {
    let mut peer = Peer::connected();
    peer.create_stream();
    peer.command(1, "play", 4.0, play("s", &[]));
    peer.session.poll_event();
    peer.session.hold_play(1);
    let replies = peer.replies();
    assert!(begins(&replies));
    let codes: Vec<_> = replies.iter().filter_map(Reply::code).collect();
    assert_eq!(
        codes,
        on_one(&["NetStream.Play.Reset", "NetStream.Play.Start"])
    );
    assert!(replies.iter().all(|reply| reply.data().is_none()));
    // Nothing flows to a player that is held.
    let video = SharedMessage::avc(0, true, 0, &[1], CHUNK_SIZE);
    peer.session.send_shared(1, &video);
    assert!(peer.replies().is_empty());
    // The publisher comes, goes, and comes again.
    for _ in 0..2 {
        peer.session.publish_notify(1);
        let replies = peer.replies();
        let codes: Vec<_> = replies.iter().filter_map(Reply::code).collect();
        assert_eq!(codes, on_one(&["NetStream.Play.PublishNotify"]));
        assert_eq!(replies.iter().filter_map(Reply::data).count(), 0);
        peer.session.send_shared(1, &video);
        assert_eq!(peer.replies().len(), 1);
        peer.session.unpublish_notify(1);
        peer.replies();
    }
}

/// Case 22, the other setting.
#[test]
fn a_player_without_publisher_is_refused() {
    let mut peer = Peer::connected();
    peer.create_stream();
    peer.command(1, "play", 4.0, play("s", &[]));
    peer.session.poll_event();
    peer.session
        .reject_play(1, PlayRefusal::StreamNotFound, "nobody publishes live/s");
    let replies = peer.replies();
    assert_eq!(
        replies[0].code(),
        Some((1, "NetStream.Play.StreamNotFound".to_owned()))
    );
    assert_eq!(
        replies[0].text("description").as_deref(),
        Some("nobody publishes live/s")
    );
    assert!(peer.session.is_closed());
}

/// Case 23.
#[test]
fn every_start_plays_live() {
    for arguments in [
        &[][..],
        &[-2.0],
        &[-1.0],
        &[0.0],
        &[-2_000.0],
        &[-1_000.0],
        &[0.0, -1.0, 1.0],
    ] {
        let mut peer = Peer::connected();
        peer.create_stream();
        peer.command(1, "play", 0.0, play("s", arguments));
        assert!(matches!(
            peer.session.poll_event(),
            Some(Event::Play { .. })
        ));
        peer.session.accept_play(1);
        assert!(
            peer.codes()
                .contains(&(1, "NetStream.Play.Start".to_owned())),
            "{arguments:?}"
        );
    }
}

#[test]
fn a_player_that_asks_for_no_reset_gets_none() {
    let mut peer = Peer::connected();
    peer.create_stream();
    let mut values = play("s", &[-2.0, -1.0]);
    values.push(Value::Boolean(false));
    peer.command(1, "play", 0.0, values);
    peer.session.poll_event();
    peer.session.accept_play(1);
    assert_eq!(peer.codes(), on_one(&["NetStream.Play.Start"]));
}

/// The end of a publisher, as ffmpeg and rtmpdump need to hear it.
#[test]
fn the_end_of_the_publisher_is_told_by_status() {
    let mut peer = Peer::connected();
    peer.play("s");
    peer.session.unpublish_notify(1);
    let replies = peer.replies();
    assert_eq!(
        replies[0].control(),
        Some(Control::User(UserControl::StreamEof(1)))
    );
    let codes: Vec<_> = replies.iter().filter_map(Reply::code).collect();
    assert_eq!(
        codes,
        on_one(&["NetStream.Play.UnpublishNotify", "NetStream.Play.Stop"])
    );
    assert!(!peer.session.is_closed());
}

/// Case 24, the part that concerns the session.
#[test]
fn receive_video_off_and_on_is_told() {
    let mut peer = Peer::connected();
    // Before play, it is a wish that play carries.
    peer.create_stream();
    peer.command(
        1,
        "receiveAudio",
        0.0,
        vec![Value::Null, Value::Boolean(false)],
    );
    assert!(peer.events().is_empty());
    peer.command(1, "play", 0.0, play("s", &[]));
    match peer.session.poll_event() {
        Some(Event::Play { request, .. }) => {
            assert!(!request.receive_audio && request.receive_video);
        }
        other => panic!("{other:?}"),
    }
    peer.session.accept_play(1);
    peer.replies();
    for on in [false, true] {
        for _ in 0..2 {
            peer.command(
                1,
                "receiveVideo",
                0.0,
                vec![Value::Null, Value::Boolean(on)],
            );
        }
        assert_eq!(peer.events(), [Event::ReceiveVideo { stream_id: 1, on }]);
        let expected: &[&str] = if on {
            &["NetStream.Seek.Notify", "NetStream.Play.Start"]
        } else {
            &[]
        };
        assert_eq!(peer.codes(), on_one(expected));
    }
    peer.command(
        1,
        "receiveAudio",
        0.0,
        vec![Value::Null, Value::Boolean(true)],
    );
    assert_eq!(
        peer.events(),
        [Event::ReceiveAudio {
            stream_id: 1,
            on: true
        }]
    );
}

#[test]
fn pause_and_seek_are_answered() {
    let mut peer = Peer::connected();
    peer.play("s");
    for (on, code) in [
        (true, "NetStream.Pause.Notify"),
        (false, "NetStream.Unpause.Notify"),
    ] {
        let values = vec![Value::Null, Value::Boolean(on), Value::Number(0.0)];
        peer.command(1, "pause", 0.0, values);
        assert_eq!(peer.events(), [Event::Pause { stream_id: 1, on }]);
        assert_eq!(peer.codes(), on_one(&[code]));
    }
    peer.command(1, "seek", 0.0, vec![Value::Null, Value::Number(5_000.0)]);
    assert_eq!(peer.codes(), on_one(&["NetStream.Seek.Notify"]));
    peer.command(9, "pause", 0.0, vec![Value::Null]);
    peer.command(9, "seek", 0.0, vec![Value::Null]);
    assert!(peer.events().is_empty() && peer.replies().is_empty());
}

#[test]
fn a_player_may_stop_and_play_another_stream() {
    let mut peer = Peer::connected();
    peer.play("a");
    peer.command(1, "play", 0.0, play("b", &[]));
    let events = peer.events();
    assert_eq!(events[0], Event::StopPlay { stream_id: 1 });
    assert!(matches!(&events[1], Event::Play { request, .. } if request.name.name == "b"));
    peer.session.accept_play(1);
    peer.command(1, "closeStream", 0.0, vec![]);
    assert_eq!(peer.events(), [Event::StopPlay { stream_id: 1 }]);
    let options = Value::object([("streamName", Value::string("c"))]);
    peer.command(1, "play2", 0.0, vec![Value::Null, options]);
    let events = peer.events();
    assert!(matches!(&events[0], Event::Play { request, .. } if request.name.name == "c"));
}

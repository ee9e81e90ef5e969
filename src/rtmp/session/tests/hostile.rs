//! Garbage, cuts, flipped bits and limits.

use super::peer::{Peer, data, handshake, media};
use crate::rtmp::amf0::Value;
use crate::rtmp::command::Command;
use crate::rtmp::message::{Control, Message, UserControl, type_id};
use crate::rtmp::session::{Error, Event, Limits, Session};

/// A publisher and player on one connection, from connect on.
fn recorded() -> Vec<u8> {
    let command =
        |stream_id, name: &str, values| Command::new(name, 2.0, values).to_message(3, stream_id);
    let name = |text: &str| vec![Value::Null, Value::string(text)];
    let messages = [
        Control::SetChunkSize(4_096).to_message(),
        command(
            0,
            "connect",
            vec![Value::object([
                ("app", Value::string("live?k=v")),
                ("tcUrl", Value::string("rtmp://h/live")),
            ])],
        ),
        command(0, "releaseStream", name("s")),
        command(0, "createStream", vec![Value::Null]),
        command(0, "createStream", vec![Value::Null]),
        command(1, "publish", name("s?token=abc")),
        command(2, "play", name("mp4:t")),
        Control::User(UserControl::SetBufferLength {
            stream_id: 2,
            millis: 3_000,
        })
        .to_message(),
        data(
            1,
            &[
                Value::string("@setDataFrame"),
                Value::string("onMetaData"),
                Value::EcmaArray(vec![("width".to_owned(), Value::Number(640.0))]),
            ],
        ),
        media(type_id::VIDEO, 1, 0, &[0x17, 0, 0, 0, 0, 1, 2, 3]),
        media(type_id::AUDIO, 1, 0, &[0xaf, 0, 0x12, 0x10]),
        media(type_id::VIDEO, 1, 0, &[0x17, 1, 0, 0, 0, 0, 0, 0, 1, 0x65]),
        media(type_id::AUDIO, 1, 0x0100_0000, &[0xaf, 1, 0x21]),
        Control::User(UserControl::PingRequest(77)).to_message(),
        command(2, "pause", vec![Value::Null, Value::Boolean(true)]),
        command(0, "FCUnpublish", name("s?token=abc")),
        command(0, "deleteStream", vec![Value::Null, Value::Number(2.0)]),
    ];
    let mut bytes = handshake();
    bytes.extend(Peer::new(Limits::default()).encode(&messages));
    bytes
}

/// Events and answers of a session that gets `pieces`, with every request accepted.
fn run<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Event>, Vec<u8>, Result<(), Error>) {
    let mut peer = Peer::new(Limits::default());
    let mut events = Vec::new();
    let mut outcome = Ok(());
    for piece in pieces {
        let fed = peer.send_bytes(piece);
        outcome = outcome.and(fed);
        events.extend(peer.events());
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = peer.session.transmit().pop() {
        bytes.extend_from_slice(&chunk);
    }
    (events, bytes, outcome)
}

#[test]
fn a_session_does_not_depend_on_where_it_is_cut() {
    let bytes = recorded();
    let whole = run([bytes.as_slice()]);
    assert_eq!(whole.2, Ok(()));
    assert_eq!(whole.0.len(), 11, "{:?}", whole.0);
    assert_eq!(run(bytes.chunks(1)), whole);
    for at in 0..bytes.len() {
        let (head, tail) = bytes.split_at(at);
        assert!(run([head, tail]) == whole, "cut at {at}");
    }
}

#[test]
fn every_flipped_bit_ends_well() {
    let bytes = recorded();
    for bit in 0..bytes.len() * 8 {
        // The random parts of the handshake have nothing to say.
        if (16..3_000).contains(&(bit / 8)) && bit % 97 != 0 {
            continue;
        }
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let (events, _, outcome) = run(flipped.chunks(1_000));
        assert!(events.len() <= 40, "bit {bit}");
        if let Err(error) = outcome {
            assert!(!error.reason().is_empty() && !error.to_string().is_empty());
        }
    }
}

#[test]
fn every_truncation_waits_for_more() {
    let bytes = recorded();
    for end in 0..bytes.len() {
        let (_, _, outcome) = run([&bytes[..end]]);
        assert_eq!(outcome, Ok(()), "{end} bytes");
    }
}

#[test]
fn garbage_ends_well() {
    // A small generator, so that a failure repeats.
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    for length in (0..400).chain([5_000, 20_000]) {
        let garbage: Vec<u8> = (0..length).map(|_| next()).collect();
        let _ = run(garbage.chunks(100));
        let mut after_handshake = handshake();
        after_handshake.extend_from_slice(&garbage);
        let _ = run(after_handshake.chunks(1_460));
        let connect = &recorded()[..3_300];
        let _ = run([connect, garbage.as_slice()]);
    }
}

/// Case 2.
#[test]
fn http_is_recognised_at_its_first_byte() {
    let mut peer = Peer::new(Limits::default());
    let error = peer
        .send_bytes(b"GET / HTTP/1.1\r\n")
        .expect_err("not RTMP");
    assert!(matches!(error, Error::Handshake(_)));
    assert!(peer.session.is_closed());
    peer.send_bytes(b"Host: h\r\n").expect("without effect");
}

#[test]
fn whoever_does_not_connect_first_is_shown_out() {
    for message in [
        Command::new("createStream", 2.0, vec![Value::Null]).to_message(3, 0),
        media(type_id::VIDEO, 1, 0, &[0x17]),
        media(type_id::AGGREGATE, 1, 0, &[]),
        media(200, 1, 0, &[]),
    ] {
        let mut peer = Peer::new(Limits::default());
        peer.send_bytes(&handshake()).expect("a handshake");
        let type_id = message.type_id;
        assert_eq!(peer.send(&message), Err(Error::NotConnected { type_id }));
    }
}

#[test]
fn net_streams_are_bounded() {
    let mut peer = Peer::connected();
    for expected in 1..=8 {
        assert_eq!(peer.create_stream(), expected);
    }
    peer.command(0, "createStream", 9.0, vec![Value::Null]);
    let replies = peer.replies();
    assert_eq!(replies[0].name(), "_error");
    assert_eq!(
        replies[0].text("description").as_deref(),
        Some("Too many streams.")
    );
    for name in ["publish", "play"] {
        peer.command(77, name, 0.0, vec![Value::Null, Value::string("s")]);
        assert_eq!(peer.replies()[0].text("level").as_deref(), Some("error"));
    }
    // Each is told for the counters, and the connection lives.
    let refused = Event::Refused {
        reason: "net_streams_max",
    };
    assert_eq!(peer.events(), vec![refused; 3]);
    assert!(!peer.session.is_closed());
    peer.command(
        0,
        "deleteStream",
        0.0,
        vec![Value::Null, Value::Number(3.0)],
    );
    assert_eq!(peer.create_stream(), 3);
}

#[test]
fn a_peer_that_asks_and_does_not_read_is_shown_out() {
    let mut peer = Peer::connected();
    let ping = Control::User(UserControl::PingRequest(1)).to_message();
    let bytes = peer.encode(&vec![ping; 100]);
    let mut outcome = Ok(());
    let mut rounds = 0;
    while outcome.is_ok() {
        outcome = peer.send_bytes(&bytes);
        rounds += 1;
        assert!(rounds < 1_000);
    }
    assert!(matches!(outcome, Err(Error::ReplyBacklog { bytes }) if bytes < 300 << 10));
    assert!(peer.session.transmit().len() < 300 << 10);

    // One that reads may ask for ever.
    let mut peer = Peer::connected();
    let ping = Control::User(UserControl::PingRequest(1)).to_message();
    let bytes = peer.encode(&vec![ping; 100]);
    for _ in 0..1_000 {
        peer.send_bytes(&bytes).expect("it reads");
        peer.replies();
    }
}

#[test]
fn an_address_beyond_its_limit_is_refused() {
    for (app, url) in [
        ("a".repeat(4_097), String::new()),
        (String::new(), "u".repeat(4_097)),
    ] {
        let mut peer = Peer::new(Limits::default());
        peer.send_bytes(&handshake()).expect("a handshake");
        let object = Value::object([("app", Value::string(app)), ("tcUrl", Value::string(url))]);
        let connect = Command::new("connect", 1.0, vec![object]).to_message(3, 0);
        assert_eq!(peer.send(&connect), Err(Error::AddressTooLong));
    }
}

#[test]
fn a_malformed_command_ends_the_session_and_keeps_what_came_before() {
    let mut peer = Peer::connected();
    peer.publish("s");
    let broken = Message {
        payload: vec![2, 0, 9, b'x'].into(),
        ..media(type_id::COMMAND_AMF0, 0, 0, &[])
    };
    let bytes = peer.encode(&[media(type_id::AUDIO, 1, 0, &[0xaf, 1, 1]), broken]);
    assert!(matches!(peer.send_bytes(&bytes), Err(Error::Command(_))));
    assert!(matches!(peer.events().as_slice(), [Event::Audio { .. }]));
}

#[test]
fn a_session_is_small() {
    assert!(size_of::<Session>() <= 1_024, "{}", size_of::<Session>());
    assert!(size_of::<Event>() <= 64, "{}", size_of::<Event>());
}

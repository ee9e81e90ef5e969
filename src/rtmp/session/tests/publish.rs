//! What publishers say, as real programs say it.

use super::peer::{Peer, data, handshake, media};
use crate::rtmp::amf0::Value;
use crate::rtmp::command::{Command, PublishKind};
use crate::rtmp::message::{Control, Message, type_id};
use crate::rtmp::session::{Event, Limits, PublishRefusal};

fn name(text: &str) -> Vec<Value> {
    vec![Value::Null, Value::string(text)]
}

fn publish_event(events: &[Event]) -> (u32, &str, Option<&str>) {
    let found = events.iter().find_map(|event| match event {
        Event::Publish { stream_id, request } => {
            Some((*stream_id, request.name.key.as_str(), request.name.token()))
        }
        _ => None,
    });
    found.expect("a publish event")
}

/// ffmpeg 5.1.9 after the connect result: one burst without waiting for any answer.
fn ffmpeg_burst() -> Vec<Message> {
    let command = |csid, stream_id, name: &str, id, values| {
        Command::new(name, id, values).to_message(csid, stream_id)
    };
    let mut publish = name("s?token=abc");
    publish.push(Value::string("live"));
    vec![
        command(3, 0, "releaseStream", 2.0, name("s?token=abc")),
        command(3, 0, "FCPublish", 3.0, name("s?token=abc")),
        command(3, 0, "createStream", 4.0, vec![Value::Null]),
        command(8, 1, "publish", 5.0, publish),
    ]
}

#[test]
fn ffmpegs_burst_reaches_publish_start() {
    let mut peer = Peer::connected();
    let burst = peer.encode(&ffmpeg_burst());
    peer.send_bytes(&burst).expect("a burst");
    let events = peer.events();
    assert_eq!(publish_event(&events), (1, "live/s", Some("abc")));
    peer.session.accept_publish(1);
    let replies = peer.replies();
    let names: Vec<_> = replies.iter().map(|reply| reply.name()).collect();
    assert_eq!(
        names,
        ["_result", "_result", "_result", "onFCPublish", "onStatus"]
    );
    assert_eq!(
        replies.last().and_then(|reply| reply.code()),
        Some((1, "NetStream.Publish.Start".to_owned()))
    );
}

#[test]
fn ffmpegs_end_is_an_unpublish() {
    let mut peer = Peer::connected();
    let burst = peer.encode(&ffmpeg_burst());
    peer.send_bytes(&burst).expect("a burst");
    peer.session.poll_event();
    peer.session.accept_publish(1);
    peer.send(&media(type_id::VIDEO, 1, 40, &[0x17, 2, 0, 0, 0]))
        .expect("the end of sequence");
    peer.command(0, "FCUnpublish", 6.0, name("s?token=abc"));
    peer.command(
        0,
        "deleteStream",
        7.0,
        vec![Value::Null, Value::Number(1.0)],
    );
    let events = peer.events();
    assert_eq!(events.len(), 2, "{events:?}");
    assert!(matches!(events[0], Event::Video { timestamp: 40, .. }));
    assert_eq!(events[1], Event::Unpublish { stream_id: 1 });
    assert!(!peer.session.is_closed());
}

/// OBS 30 sets its chunk size before it connects and waits for every answer that it needs.
#[test]
fn obs_publishes() {
    let mut peer = Peer::new(Limits::default());
    peer.send_bytes(&handshake()).expect("a handshake");
    peer.send(&Control::SetChunkSize(4_096).to_message())
        .expect("a chunk size");
    let connect = Value::object([
        ("app", Value::string("live")),
        ("type", Value::string("nonprivate")),
        ("flashVer", Value::string("FMLE/3.0 (compatible; FMSc/1.0)")),
        ("swfUrl", Value::string("rtmp://h/live")),
        ("tcUrl", Value::string("rtmp://h/live")),
    ]);
    peer.command(0, "connect", 1.0, vec![connect]);
    let replies = peer.replies();
    assert_eq!(replies.last().map(|reply| reply.name()), Some("_result"));
    assert_eq!(
        replies
            .last()
            .and_then(|reply| reply.text("code"))
            .as_deref(),
        Some("NetConnection.Connect.Success")
    );
    peer.command(0, "releaseStream", 2.0, name("s"));
    peer.command(0, "FCPublish", 3.0, name("s"));
    assert_eq!(peer.create_stream(), 1);
    let mut values = name("s");
    values.push(Value::string("live"));
    peer.command(1, "publish", 5.0, values);
    assert_eq!(publish_event(&peer.events()), (1, "live/s", None));
    peer.session.accept_publish(1);
    peer.send(&data(
        1,
        &[
            Value::string("@setDataFrame"),
            Value::string("onMetaData"),
            Value::EcmaArray(vec![("width".to_owned(), Value::Number(640.0))]),
        ],
    ))
    .expect("metadata");
    let events = peer.events();
    let [Event::Metadata { values, .. }] = events.as_slice() else {
        panic!("{events:?}");
    };
    assert_eq!(values.get("width"), Some(&Value::Number(640.0)));
}

/// FMLE 3 waits for the callbacks of FCPublish and FCUnpublish.
#[test]
fn fmle_publishes_and_ends() {
    let mut peer = Peer::connected();
    peer.command(0, "releaseStream", 2.0, name("s"));
    peer.command(0, "FCPublish", 3.0, name("s"));
    peer.replies();
    assert_eq!(peer.create_stream(), 1);
    let mut values = name("s");
    values.push(Value::string("live"));
    peer.command(1, "publish", 5.0, values);
    assert_eq!(publish_event(&peer.events()), (1, "live/s", None));
    peer.session.accept_publish(1);
    let replies = peer.replies();
    let told: Vec<_> = replies
        .iter()
        .map(|reply| (reply.name(), reply.text("code").unwrap_or_default()))
        .collect();
    let start = "NetStream.Publish.Start".to_owned();
    assert_eq!(told, [("onFCPublish", start.clone()), ("onStatus", start)]);
    peer.command(0, "FCUnpublish", 6.0, name("s"));
    let replies = peer.replies();
    let names: Vec<_> = replies.iter().map(|reply| reply.name()).collect();
    assert_eq!(names, ["onFCUnpublish", "_result", "onStatus"]);
    assert_eq!(peer.events(), [Event::Unpublish { stream_id: 1 }]);
    // What still comes is nobody's; then it publishes again on the same NetStream.
    peer.send(&media(type_id::AUDIO, 1, 0, &[0xaf, 1, 1]))
        .expect("late audio");
    peer.command(1, "publish", 7.0, name("s"));
    let events = peer.events();
    assert_eq!(events.len(), 1);
    assert_eq!(publish_event(&events).0, 1);
}

/// The connect answer as clients need it: windows, chunk size, then the result.
#[test]
fn connect_is_answered_in_order() {
    let mut peer = Peer::new(Limits::default());
    peer.send_bytes(&handshake()).expect("a handshake");
    let object = Value::object([
        ("app", Value::string("live")),
        ("objectEncoding", Value::Number(3.0)),
        ("fourCcList", Value::StrictArray(vec![Value::string("*")])),
        (
            "videoFourCcInfoMap",
            Value::object([("*", Value::Number(7.0))]),
        ),
        ("capsEx", Value::Number(15.0)),
    ]);
    peer.command(0, "connect", 1.0, vec![object]);
    let replies = peer.replies();
    let controls: Vec<_> = replies.iter().filter_map(|reply| reply.control()).collect();
    assert!(matches!(controls[0], Control::WindowAckSize(2_500_000)));
    assert!(matches!(controls[1], Control::SetPeerBandwidth { .. }));
    assert!(matches!(controls[2], Control::SetChunkSize(60_000)));
    let result = replies.last().and_then(|reply| reply.command.as_ref());
    let result = result.expect("a result");
    assert_eq!(result.transaction_id, 1.0);
    let properties = result.object().expect("properties");
    let information = result.argument(0).expect("information");
    assert_eq!(information.get("objectEncoding"), Some(&Value::Number(3.0)));
    for object in [properties, information] {
        assert_eq!(object.get("capsEx"), Some(&Value::Number(5.0)));
        let list = ["avc1", "mp4a"].map(Value::string).to_vec();
        assert_eq!(object.get("fourCcList"), Some(&Value::StrictArray(list)));
        let video = object.get("videoFourCcInfoMap").expect("a map");
        assert_eq!(video.get("avc1"), Some(&Value::Number(4.0)));
    }
}

/// What an operator turned off is not announced, whatever the client says.
#[test]
fn enhanced_rtmp_is_not_announced_when_turned_off() {
    let mut peer = Peer::new(Limits {
        announce_enhanced: false,
        ..Limits::default()
    });
    peer.send_bytes(&handshake()).expect("a handshake");
    let object = Value::object([
        ("app", Value::string("live")),
        ("fourCcList", Value::StrictArray(vec![Value::string("*")])),
        ("capsEx", Value::Number(15.0)),
    ]);
    peer.command(0, "connect", 1.0, vec![object]);
    let replies = peer.replies();
    let result = replies.last().and_then(|reply| reply.command.as_ref());
    let properties = result
        .and_then(|result| result.object())
        .expect("properties");
    assert_eq!(properties.get("fourCcList"), None);
    assert_eq!(properties.get("capsEx"), None);
}

/// Case 18.
#[test]
fn commands_around_publish_are_answered_and_do_not_stop_it() {
    let mut peer = Peer::connected();
    for (id, command) in [
        "releaseStream",
        "FCPublish",
        "_checkbw",
        "getStreamLength",
        "FCSubscribe",
    ]
    .into_iter()
    .enumerate()
    {
        let id = 10.0 + id as f64;
        peer.command(0, command, id, name("s"));
        let replies = peer.replies();
        let result = replies.iter().find(|reply| reply.name() == "_result");
        let command = result.and_then(|reply| reply.command.as_ref());
        assert_eq!(command.expect("a result").transaction_id, id);
    }
    peer.command(0, "doAbracadabra", 20.0, name("s"));
    let replies = peer.replies();
    assert_eq!(replies[0].name(), "_error");
    assert_eq!(
        replies[0]
            .command
            .as_ref()
            .map(|command| command.transaction_id),
        Some(20.0)
    );
    peer.command(0, "doAbracadabra", 0.0, vec![]);
    assert!(peer.replies().is_empty(), "nobody waits for an answer");
    assert_eq!(peer.session.stats().commands_unknown, 2);
    let stream_id = peer.create_stream();
    peer.command(stream_id, "publish", 5.0, name("s"));
    peer.session.poll_event();
    peer.session.accept_publish(stream_id);
    assert_eq!(
        peer.codes(),
        [(stream_id, "NetStream.Publish.Start".to_owned())]
    );
}

/// Case 19.
#[test]
fn publish_may_come_before_the_stream_is_known() {
    // On the connection itself, after a createStream whose answer was not awaited, with
    // transaction 0.
    let mut peer = Peer::connected();
    assert_eq!(peer.create_stream(), 1);
    peer.command(0, "publish", 0.0, name("s"));
    assert_eq!(publish_event(&peer.events()).0, 1);
    peer.session.accept_publish(1);
    assert_eq!(peer.codes(), [(1, "NetStream.Publish.Start".to_owned())]);
    peer.send(&media(type_id::AUDIO, 0, 0, &[0xaf, 1, 1]))
        .expect("audio on stream 0");
    assert!(matches!(
        peer.events().as_slice(),
        [Event::Audio { stream_id: 1, .. }]
    ));

    // Without any createStream, on a stream of its own choice.
    let mut peer = Peer::connected();
    peer.command(5, "publish", 3.0, name("s"));
    assert_eq!(publish_event(&peer.events()).0, 5);
    peer.session.accept_publish(5);
    assert_eq!(peer.codes(), [(5, "NetStream.Publish.Start".to_owned())]);
}

/// Case 20.
#[test]
fn a_connection_may_publish_again() {
    let mut peer = Peer::connected();
    for round in 0..3 {
        let stream_id = peer.publish("s");
        assert_eq!(stream_id, 1, "round {round}");
        if round == 1 {
            peer.command(stream_id, "closeStream", 0.0, vec![Value::Null]);
        }
        let id = Value::Number(f64::from(stream_id));
        peer.command(0, "deleteStream", 0.0, vec![Value::Null, id]);
        assert_eq!(peer.events(), [Event::Unpublish { stream_id }]);
        assert_eq!(
            peer.codes(),
            [(stream_id, "NetStream.Unpublish.Success".to_owned())]
        );
    }
    // Without deleting: the new name takes the place of the old one.
    let stream_id = peer.publish("a");
    peer.command(stream_id, "publish", 5.0, name("b"));
    let events = peer.events();
    assert_eq!(events[0], Event::Unpublish { stream_id });
    assert_eq!(publish_event(&events).1, "live/b");
}

/// Case 21.
#[test]
fn a_refused_publisher_is_told_why_and_closed() {
    let mut peer = Peer::connected();
    let burst = peer.encode(&ffmpeg_burst());
    peer.send_bytes(&burst).expect("a burst");
    peer.send(&media(type_id::AUDIO, 1, 0, &[0xaf, 0, 0x12, 0x10]))
        .expect("audio");
    assert!(matches!(
        peer.session.poll_event(),
        Some(Event::Publish { .. })
    ));
    peer.session
        .reject_publish(1, PublishRefusal::BadAuth, "wrong token");
    let replies = peer.replies();
    let status = replies.last().expect("a status");
    assert_eq!(
        status.code(),
        Some((1, "NetStream.Publish.BadAuth".to_owned()))
    );
    assert_eq!(status.text("level").as_deref(), Some("error"));
    assert_eq!(status.text("description").as_deref(), Some("wrong token"));
    assert!(peer.session.is_closed());
    // The media that came along is void.
    assert_eq!(
        peer.events(),
        [Event::Closed {
            reason: "publish_bad_auth"
        }]
    );
    peer.send_bytes(&burst).expect("no input has an effect");
    assert!(peer.replies().is_empty() && peer.events().is_empty());
    assert_eq!(peer.session.next_timeout(), None);
}

#[test]
fn a_connection_that_is_not_wanted_is_refused_at_connect() {
    let mut peer = Peer::new(Limits::default());
    peer.session.refuse_connect("too many connections");
    peer.send_bytes(&handshake()).expect("a handshake");
    peer.command(0, "connect", 1.0, vec![]);
    let replies = peer.replies();
    assert_eq!(replies[0].name(), "_error");
    assert_eq!(
        replies[0].text("code").as_deref(),
        Some("NetConnection.Connect.Rejected")
    );
    assert_eq!(
        replies[0].text("description").as_deref(),
        Some("too many connections")
    );
    assert!(peer.session.is_closed());
}

#[test]
fn a_name_that_names_nothing_is_refused_without_asking() {
    let mut peer = Peer::connected();
    let stream_id = peer.create_stream();
    peer.command(stream_id, "publish", 5.0, name("?token=abc"));
    let replies = peer.replies();
    assert_eq!(
        replies[0].code(),
        Some((1, "NetStream.Publish.BadName".to_owned()))
    );
    assert_eq!(
        replies[0].text("description").as_deref(),
        Some("the stream name is empty")
    );
    assert!(peer.session.is_closed());
}

/// A decision is about the request that the gateway has seen, not about the next one.
#[test]
fn a_late_decision_does_not_let_another_request_in() {
    let mut peer = Peer::connected();
    let stream_id = peer.create_stream();
    let requests = ["allowed", "forbidden"]
        .map(|text| Command::new("publish", 0.0, name(text)).to_message(3, stream_id));
    let bytes = peer.encode(&requests);
    peer.send_bytes(&bytes).expect("two requests");
    let first = peer.session.poll_event();
    assert!(matches!(first, Some(Event::Publish { .. })));
    peer.session.accept_publish(stream_id);
    let codes = peer.codes();
    assert_eq!(codes, [(1, "NetStream.Unpublish.Success".to_owned())]);
    assert_eq!(
        peer.session.poll_event(),
        Some(Event::Unpublish { stream_id })
    );
    let second = peer.session.poll_event().expect("the second request");
    assert_eq!(publish_event(&[second]).1, "live/forbidden");
    peer.session
        .reject_publish(stream_id, PublishRefusal::BadAuth, "no");
    assert_eq!(peer.codes(), [(1, "NetStream.Publish.BadAuth".to_owned())]);
}

#[test]
fn the_publishing_type_is_told() {
    for (arguments, kind) in [
        (vec![], PublishKind::Live),
        (vec![Value::string("record")], PublishKind::Record),
        (vec![Value::string("nonsense")], PublishKind::Live),
    ] {
        let mut peer = Peer::connected();
        let stream_id = peer.create_stream();
        let mut values = name("s");
        values.extend(arguments);
        peer.command(stream_id, "publish", 5.0, values);
        match peer.session.poll_event() {
            Some(Event::Publish { request, .. }) => assert_eq!(request.kind, kind),
            other => panic!("{other:?}"),
        }
    }
}

/// Case 11, the part that concerns commands and data.
#[test]
fn amf3_messages_are_handled_as_amf0_ones() {
    let mut peer = Peer::connected();
    let amf3 = |message: Message, type_id| Message {
        type_id,
        payload: [&[0], message.payload.as_ref()].concat().into(),
        ..message
    };
    let create = Command::new("createStream", 2.0, vec![Value::Null]).to_message(3, 0);
    peer.send(&amf3(create, type_id::COMMAND_AMF3))
        .expect("createStream");
    assert_eq!(peer.replies()[0].name(), "_result");
    let publish = Command::new("publish", 3.0, name("s")).to_message(3, 1);
    peer.send(&amf3(publish, type_id::COMMAND_AMF3))
        .expect("publish");
    assert_eq!(publish_event(&peer.events()).1, "live/s");
    peer.session.accept_publish(1);
    let metadata = data(
        1,
        &[
            Value::string("onMetaData"),
            Value::object([("height", Value::Number(360.0))]),
        ],
    );
    peer.send(&amf3(metadata, type_id::DATA_AMF3))
        .expect("metadata");
    let events = peer.events();
    assert!(
        matches!(events.as_slice(), [Event::Metadata { values, .. }]
            if values.get("height") == Some(&Value::Number(360.0))),
        "{events:?}"
    );
}

#[test]
fn two_streams_of_one_connection_are_kept_apart() {
    let mut peer = Peer::connected();
    let (first, second) = (peer.publish("a"), peer.publish("b"));
    assert_eq!((first, second), (1, 2));
    for stream_id in [2, 1, 7] {
        peer.send(&media(type_id::VIDEO, stream_id, 0, &[0x27, 1, 0, 0, 0, 1]))
            .expect("video");
    }
    let streams: Vec<_> = peer
        .events()
        .iter()
        .map(|event| match event {
            Event::Video { stream_id, .. } => *stream_id,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(streams, [2, 1], "stream 7 belongs to nobody");
    assert_eq!(peer.session.stats().media_ignored, 1);
    peer.session
        .reject_publish(1, PublishRefusal::BadName, "taken");
    assert!(!peer.session.is_closed(), "stream 2 is in use");
}

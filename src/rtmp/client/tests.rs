//! Our client against our session, in memory.

use std::time::Instant;

use super::*;
use crate::rtmp::flv::{AAC_HEADER, AudioTag, VideoTag, avc_header};
use crate::rtmp::metadata::VideoMetadata;
use crate::rtmp::session::{
    CloseReason, Event as ServerEvent, Limits, PlayRefusal, PublishRefusal, Session,
};

/// A client, a session, and the wire between them.
struct Link {
    client: Client,
    session: Session,
    now: Instant,
    /// The most bytes that arrive in one piece.
    step: usize,
}

impl Link {
    fn new(goal: Goal, handshake: Form, step: usize) -> Self {
        let url = RtmpUrl::parse("rtmp://h/live/s?token=abc").expect("an address");
        let options = ClientOptions {
            handshake,
            ..ClientOptions::default()
        };
        let now = Instant::now();
        Self {
            client: Client::new(url, goal, options, 1),
            session: Session::new(Limits::default(), 2, now),
            now,
            step,
        }
    }

    /// Moves bytes both ways until nothing moves.
    fn settle(&mut self) {
        loop {
            let up = drain(self.client.transmit());
            let down = drain(self.session.transmit());
            if up.is_empty() && down.is_empty() {
                return;
            }
            for piece in up.chunks(self.step) {
                self.session
                    .receive(self.now, piece)
                    .expect("a good client");
            }
            for piece in down.chunks(self.step) {
                self.client.receive(piece).expect("a good server");
            }
        }
    }

    fn server_events(&mut self) -> Vec<ServerEvent> {
        self.settle();
        std::iter::from_fn(|| self.session.poll_event()).collect()
    }

    fn client_events(&mut self) -> Vec<Event> {
        self.settle();
        std::iter::from_fn(|| self.client.poll_event()).collect()
    }

    /// Runs up to the gateway's decision.
    fn asked(goal: Goal) -> Self {
        let mut link = Self::new(goal, Form::Simple, 4_096);
        let events = link.server_events();
        assert!(matches!(
            events.last(),
            Some(ServerEvent::Publish { .. } | ServerEvent::Play { .. })
        ));
        assert_eq!(link.client_events(), [Event::Connected]);
        link
    }

    fn publishing() -> Self {
        let mut link = Self::asked(Goal::Publish);
        link.session.accept_publish(1);
        assert!(link.client_events().contains(&Event::Publishing));
        link
    }
}

fn drain(queue: &mut TransmitQueue) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(chunk) = queue.pop() {
        bytes.extend_from_slice(&chunk);
    }
    bytes
}

fn codes(events: &[Event]) -> Vec<&str> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Status { code, .. } => Some(code.as_str()),
            _ => None,
        })
        .collect()
}

#[test]
fn a_stream_is_published_with_either_handshake_in_pieces_of_any_size() {
    for handshake in [Form::Simple, Form::Digest] {
        for step in [1, 7, 1_460, usize::MAX] {
            let mut link = Link::new(Goal::Publish, handshake, step);
            let events = link.server_events();
            let [
                ServerEvent::Connect(info),
                ServerEvent::Publish {
                    stream_id: 1,
                    request,
                },
            ] = events.as_slice()
            else {
                panic!("{events:?}");
            };
            assert_eq!(info.app, "live");
            assert_eq!(request.name.key, "live/s");
            assert_eq!(request.name.token(), Some("abc"));
            link.session.accept_publish(1);
            let events = link.client_events();
            assert!(events.contains(&Event::Publishing), "{events:?}");
            let metadata = StreamMetadata {
                video: Some(VideoMetadata {
                    width: Some(640),
                    height: Some(360),
                    ..VideoMetadata::default()
                }),
                ..StreamMetadata::default()
            };
            let picture = vec![0x65; 100_000];
            link.client.send_metadata(0, &metadata);
            link.client.send_video(40, &avc_header(true, 0), &picture);
            link.client.send_audio(0x0123_4567, &AAC_HEADER, &[0x21]);
            link.client.close();
            let events = link.server_events();
            let [
                ServerEvent::Metadata { values, .. },
                ServerEvent::Video {
                    timestamp: 40,
                    payload: video,
                    ..
                },
                ServerEvent::Audio {
                    timestamp: 0x0123_4567,
                    payload: audio,
                    ..
                },
                ServerEvent::Unpublish { stream_id: 1 },
            ] = events.as_slice()
            else {
                panic!("{events:?}");
            };
            assert_eq!(StreamMetadata::decode(values), metadata);
            assert!(matches!(
                VideoTag::decode(video),
                Ok(VideoTag::Coded { key: true, payload, .. }) if payload == picture
            ));
            assert_eq!(
                AudioTag::decode(audio),
                Ok(AudioTag::Coded(Bytes::from_static(&[0x21])))
            );
        }
    }
}

#[test]
fn a_stream_is_played() {
    let mut link = Link::asked(Goal::Play);
    link.session.accept_play(1);
    let chunk_size = Limits::default().chunk_size_out;
    let metadata = StreamMetadata::default();
    link.session
        .send_shared(1, &SharedMessage::data(0, &metadata.encode(), chunk_size));
    link.session
        .send_shared(1, &SharedMessage::avc(9, true, 0, &[5; 70_000], chunk_size));
    link.session
        .send_shared(1, &SharedMessage::aac(9, &[6], chunk_size));
    let events = link.client_events();
    assert_eq!(
        codes(&events),
        ["NetStream.Play.Reset", "NetStream.Play.Start"]
    );
    assert!(events.contains(&Event::Playing));
    let [
        Event::Metadata(_),
        Event::Video {
            timestamp: 9,
            payload,
        },
        Event::Audio { timestamp: 9, .. },
    ] = &events[events.len() - 3..]
    else {
        panic!("{events:?}");
    };
    assert_eq!(payload.len(), 70_005);
    link.session.unpublish_notify(1);
    assert_eq!(
        codes(&link.client_events()),
        ["NetStream.Play.UnpublishNotify", "NetStream.Play.Stop"]
    );
    link.client.close();
    assert_eq!(
        link.server_events(),
        [ServerEvent::StopPlay { stream_id: 1 }]
    );
    assert_eq!(link.client_events(), [Event::Closed]);
}

#[test]
fn a_refusal_ends_the_client_with_its_reason() {
    let mut link = Link::asked(Goal::Publish);
    link.session
        .reject_publish(1, PublishRefusal::BadName, "taken");
    let events = link.client_events();
    let [
        Event::Status {
            level,
            code,
            description,
        },
        Event::Closed,
    ] = events.as_slice()
    else {
        panic!("{events:?}");
    };
    assert_eq!(
        (level.as_str(), code.as_str(), description.as_str()),
        ("error", "NetStream.Publish.BadName", "taken")
    );

    let mut link = Link::asked(Goal::Play);
    link.session
        .reject_play(1, PlayRefusal::StreamNotFound, "nobody");
    assert_eq!(
        codes(&link.client_events()),
        ["NetStream.Play.StreamNotFound"]
    );
    assert!(link.client.is_closed());

    let mut link = Link::new(Goal::Play, Form::Simple, 100);
    link.session.refuse_connect("full");
    let events = link.client_events();
    assert_eq!(codes(&events), ["NetConnection.Connect.Rejected"]);
    assert_eq!(events.last(), Some(&Event::Closed));
}

#[test]
fn a_replaced_publisher_hears_of_it() {
    let mut link = Link::publishing();
    link.session.close(CloseReason::Replaced);
    let events = link.client_events();
    assert_eq!(codes(&events), ["NetStream.Publish.BadName"]);
    assert_eq!(events.last(), Some(&Event::Closed));
}

/// Case 20.
#[test]
fn a_client_publishes_again_on_its_connection() {
    let mut link = Link::publishing();
    for _ in 0..3 {
        link.client.stop();
        assert_eq!(
            link.server_events(),
            [ServerEvent::Unpublish { stream_id: 1 }]
        );
        link.client.start_again();
        let events = link.server_events();
        assert!(matches!(
            events.as_slice(),
            [ServerEvent::Publish { stream_id: 1, .. }]
        ));
        link.session.accept_publish(1);
        assert!(link.client_events().contains(&Event::Publishing));
    }
}

#[test]
fn media_before_the_start_or_after_the_end_is_not_sent() {
    let mut link = Link::asked(Goal::Publish);
    link.client.send_audio(0, &AAC_HEADER, &[1]);
    assert!(link.server_events().is_empty());
    link.session.accept_publish(1);
    link.settle();
    link.client.send_audio(0, &AAC_HEADER, &[1]);
    assert_eq!(link.server_events().len(), 1);
    link.client.close();
    link.client.send_audio(0, &AAC_HEADER, &[1]);
    link.client.start_again();
    assert_eq!(
        link.server_events(),
        [ServerEvent::Unpublish { stream_id: 1 }]
    );
}

#[test]
fn calls_of_the_net_stream_reach_the_server() {
    let mut link = Link::asked(Goal::Play);
    link.session.accept_play(1);
    link.settle();
    let values = vec![Value::Null, Value::Boolean(false)];
    link.client.call("receiveVideo", 0.0, values);
    assert_eq!(
        link.server_events(),
        [ServerEvent::ReceiveVideo {
            stream_id: 1,
            on: false
        }]
    );
}

#[test]
fn a_client_acknowledges_what_it_gets() {
    let mut link = Link::asked(Goal::Play);
    link.session.accept_play(1);
    link.settle();
    let before = link.session.bytes_received();
    let picture = vec![0; 1_000_000];
    let video = SharedMessage::avc(0, true, 0, &picture, 60_000);
    for _ in 0..6 {
        link.session.send_shared(1, &video);
        link.client_events();
    }
    // Two windows of 2.5 MB: an acknowledgement is 4 bytes in a chunk of 8 to 16.
    let acknowledgements = link.session.bytes_received() - before;
    assert!((16..=32).contains(&acknowledgements), "{acknowledgements}");
}

#[test]
fn a_bad_server_ends_the_client_and_nothing_else() {
    let mut recorded = Vec::new();
    let mut link = Link::new(Goal::Play, Form::Simple, usize::MAX);
    loop {
        let up = drain(link.client.transmit());
        if !up.is_empty() {
            link.session.receive(link.now, &up).expect("a good client");
        }
        if let Some(ServerEvent::Play { .. }) = link.session.poll_event() {
            link.session.accept_play(1);
        }
        let down = drain(link.session.transmit());
        if up.is_empty() && down.is_empty() && link.client.is_running() {
            break;
        }
        link.client.receive(&down).expect("a good server");
        recorded.extend_from_slice(&down);
    }
    for bit in 3_073 * 8..recorded.len() * 8 {
        let mut flipped = recorded.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let mut client = Link::new(Goal::Play, Form::Simple, 1).client;
        if let Err(error) = client.receive(&flipped) {
            assert!(client.is_closed() && !error.reason().is_empty());
        }
    }
    for end in 0..recorded.len() {
        let mut client = Link::new(Goal::Play, Form::Simple, 1).client;
        client.receive(&recorded[..end]).expect("it waits for more");
    }
}

/// Somebody who reads the chunks in place of the client and keeps the media back.
#[test]
fn a_client_whose_chunks_are_read_for_it_plays_all_the_same() {
    let mut link = Link::new(Goal::Play, Form::Simple, 4_096);
    let mut reader = ChunkReader::new(ChunkLimits::default());
    let mut has_chunks = false;
    let (mut media, mut events) = (Vec::new(), Vec::new());
    let mut is_accepted = false;
    loop {
        let up = drain(link.client.transmit());
        link.session.receive(link.now, &up).expect("a good client");
        while let Some(event) = link.session.poll_event() {
            if let ServerEvent::Play { stream_id, .. } = event {
                link.session.accept_play(stream_id);
                link.session.send_shared(
                    stream_id,
                    &SharedMessage::avc(40, true, 0, &[7; 3_000_000], 4_096),
                );
                is_accepted = true;
            }
        }
        let down = drain(link.session.transmit());
        if up.is_empty() && down.is_empty() {
            break;
        }
        for piece in down.chunks(1_000) {
            let mut input = piece;
            if !has_chunks {
                has_chunks = link
                    .client
                    .receive_handshake(&mut input)
                    .expect("a good server");
            }
            while let Some(message) = reader.read(&mut input).expect("good chunks") {
                match message.type_id {
                    type_id::VIDEO => media.push((message.timestamp, message.payload.len())),
                    _ => link.client.receive_message(message).expect("a good server"),
                }
            }
            link.client.count_received(piece.len() as u64);
        }
        events.extend(std::iter::from_fn(|| link.client.poll_event()));
    }
    assert!(is_accepted && link.client.is_running());
    assert!(events.contains(&Event::Playing), "{events:?}");
    assert_eq!(media, [(40, 3_000_005)]);
    assert!(
        link.client.acknowledged >= 2_500_000,
        "what was kept back is acknowledged"
    );
}

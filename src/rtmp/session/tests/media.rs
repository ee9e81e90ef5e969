//! Media in both directions, acknowledgements and shared messages.

use bytes::Bytes;

use super::peer::{Peer, data, media};
use crate::rtmp::amf0::Value;
use crate::rtmp::flv::{AudioTag, VideoTag};
use crate::rtmp::message::{Control, Message, UserControl, type_id};
use crate::rtmp::metadata::{StreamMetadata, VideoMetadata};
use crate::rtmp::session::{Event, Limits, SharedMessage};

const CHUNK_SIZE: u32 = 60_000;

#[test]
fn media_comes_out_in_order_with_its_bytes() {
    let mut peer = Peer::connected();
    peer.publish("s");
    let messages = [
        data(1, &[Value::string("onMetaData"), Value::object([])]),
        media(type_id::VIDEO, 1, 0, &[0x17, 0, 0, 0, 0, 1]),
        media(type_id::AUDIO, 1, 0, &[0xaf, 0, 0x12, 0x10]),
        media(type_id::VIDEO, 1, 0xffff_fff0, &[0x17; 300]),
        media(type_id::AUDIO, 1, 7, &[]),
    ];
    let bytes = peer.encode(&messages);
    peer.send_bytes(&bytes).expect("media");
    let events = peer.events();
    assert_eq!(events.len(), 5);
    assert!(matches!(events[0], Event::Metadata { .. }));
    for (event, message) in events.iter().zip(&messages).skip(1) {
        match event {
            Event::Video {
                timestamp, payload, ..
            }
            | Event::Audio {
                timestamp, payload, ..
            } => {
                assert_eq!((*timestamp, payload), (message.timestamp, &message.payload));
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Case 29, the part that concerns the session: the tag is the gateway's to judge, and whatever
/// it is, the connection lives.
#[test]
fn tags_of_other_codecs_do_not_end_the_session() {
    let mut peer = Peer::connected();
    peer.publish("s");
    for tag in [
        &[0x57, 0][..],
        b"\x90hvc1\x01",
        b"\x91av01\x01",
        b"\x97\x00\xaa\x01hvc1",
        &[0x96],
        &[],
    ] {
        peer.send(&media(type_id::VIDEO, 1, 0, tag)).expect("video");
        let events = peer.events();
        let [Event::Video { payload, .. }] = events.as_slice() else {
            panic!("{events:?}");
        };
        assert!(!matches!(
            VideoTag::decode(payload),
            Ok(VideoTag::Coded { .. } | VideoTag::SequenceHeader(_))
        ));
    }
    assert!(!peer.session.is_closed());
}

#[test]
fn data_that_is_no_metadata_is_counted_and_dropped() {
    let mut peer = Peer::connected();
    peer.publish("s");
    peer.send(&media(type_id::DATA_AMF0, 1, 0, &[2, 0xff, 0xff]))
        .expect("broken AMF");
    peer.send(&data(1, &[Value::string("onTextData"), Value::Null]))
        .expect("text");
    peer.send(&data(1, &[Value::string("@setDataFrame")]))
        .expect("half an order");
    assert!(peer.events().is_empty());
    assert_eq!(peer.session.stats().data_ignored, 3);
}

#[test]
fn an_aggregate_is_taken_apart() {
    let mut peer = Peer::connected();
    peer.publish("s");
    let mut body = Vec::new();
    for (type_id, timestamp, payload) in [
        (9, 1_000u32, &[0x27u8, 1, 0, 0, 0, 9][..]),
        (8, 1_010, &[0xaf, 1, 5]),
    ] {
        let len = payload.len() as u32;
        body.push(type_id);
        body.extend_from_slice(&len.to_be_bytes()[1..]);
        body.extend_from_slice(&timestamp.to_be_bytes()[1..]);
        body.extend_from_slice(&[0; 4]);
        body.extend_from_slice(payload);
        body.extend_from_slice(&(len + 11).to_be_bytes());
    }
    peer.send(&media(type_id::AGGREGATE, 1, 5_000, &body))
        .expect("an aggregate");
    let events = peer.events();
    assert!(
        matches!(
            events.as_slice(),
            [
                Event::Video {
                    timestamp: 5_000,
                    stream_id: 1,
                    ..
                },
                Event::Audio {
                    timestamp: 5_010,
                    stream_id: 1,
                    ..
                }
            ]
        ),
        "{events:?}"
    );
}

/// Case 14, with a small window.
#[test]
fn received_bytes_are_acknowledged_every_window() {
    let mut peer = Peer::connected();
    peer.publish("s");
    peer.send(&Control::WindowAckSize(10_000).to_message())
        .expect("a window");
    peer.replies();
    let mut last = 0;
    let mut acknowledgements = 0;
    for _ in 0..100 {
        peer.send(&media(type_id::VIDEO, 1, 0, &[0x27; 1_000]))
            .expect("video");
        for reply in peer.replies() {
            match reply.control() {
                Some(Control::Acknowledgement(count)) => {
                    assert_eq!(u64::from(count), peer.session.bytes_received());
                    assert!(count - last >= 10_000 && count - last < 12_500);
                    last = count;
                    acknowledgements += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(acknowledgements, 10);
}

/// Case 14: the count wraps at 4 GiB, and nobody is disconnected for not acknowledging.
#[test]
fn acknowledgements_go_on_beyond_4_gib() {
    let mut peer = Peer::connected();
    peer.publish("s");
    let already = peer.session.bytes_received();
    peer.session.flow.received = (1 << 32) - 100;
    peer.session.flow.acknowledged = (1 << 32) - 100 - already;
    peer.session.flow.ack_window = 4_096;
    peer.send(&media(type_id::VIDEO, 1, 0, &[0x27; 4_000]))
        .expect("video");
    let replies = peer.replies();
    let Some(Control::Acknowledgement(count)) = replies[0].control() else {
        panic!("{replies:?}");
    };
    let total = peer.session.bytes_received();
    assert!(total > 1 << 32);
    assert_eq!(u64::from(count), total - (1 << 32));
    assert!(!peer.session.is_closed());
}

#[test]
fn a_tiny_window_does_not_make_an_answer_of_every_byte() {
    let mut peer = Peer::connected();
    peer.publish("s");
    peer.send(&Control::WindowAckSize(1).to_message())
        .expect("a window");
    peer.replies();
    for _ in 0..400 {
        peer.send_bytes(&[]).expect("nothing");
    }
    let audio = media(type_id::AUDIO, 1, 0, &[0xaf; 3_000]);
    let bytes = peer.encode(&[audio]);
    for byte in &bytes {
        peer.send_bytes(&[*byte]).expect("a byte");
    }
    assert!(peer.replies().len() <= 1);
}

/// Case 15.
#[test]
fn a_ping_is_answered_with_its_four_bytes() {
    let mut peer = Peer::connected();
    let ping = Control::User(UserControl::PingRequest(0xdead_beef));
    peer.send(&ping.to_message()).expect("a ping");
    assert_eq!(
        peer.replies()[0].control(),
        Some(Control::User(UserControl::PingResponse(0xdead_beef)))
    );
    peer.send(
        &Control::SetPeerBandwidth {
            window: 5_000_000,
            limit: crate::rtmp::message::BandwidthLimit::Dynamic,
        }
        .to_message(),
    )
    .expect("a bandwidth");
    assert_eq!(
        peer.replies()[0].control(),
        Some(Control::WindowAckSize(5_000_000))
    );
}

#[test]
fn shared_messages_decode_to_what_was_shared() {
    let mut peer = Peer::connected();
    peer.play("s");
    let metadata = StreamMetadata {
        video: Some(VideoMetadata::default()),
        ..StreamMetadata::default()
    };
    let picture = vec![0x65; 150_000];
    for timestamp in [0, 40, 0xff_fffe, 0xff_ffff, 0x0100_0000, u32::MAX, 3] {
        for message in [
            SharedMessage::data(timestamp, &metadata.encode(), CHUNK_SIZE),
            SharedMessage::avc_sequence_header(timestamp, &[1, 2], CHUNK_SIZE),
            SharedMessage::aac_sequence_header(timestamp, &[0x12, 0x10], CHUNK_SIZE),
            SharedMessage::avc(timestamp, true, -3, &picture, CHUNK_SIZE),
            SharedMessage::aac(timestamp, &[1, 2, 3], CHUNK_SIZE),
        ] {
            peer.session.send_shared(1, &message);
        }
        // Answers in between do not disturb, nor are they disturbed.
        peer.command(1, "seek", 0.0, vec![Value::Null]);
        let replies = peer.replies();
        let messages: Vec<&Message> = replies.iter().map(|reply| &reply.message).collect();
        assert_eq!(messages.len(), 6);
        assert!(
            messages[..5]
                .iter()
                .all(|m| m.timestamp == timestamp && m.stream_id == 1)
        );
        assert_eq!(
            VideoTag::decode(&messages[1].payload),
            Ok(VideoTag::SequenceHeader(Bytes::from_static(&[1, 2])))
        );
        assert_eq!(
            AudioTag::decode(&messages[2].payload),
            Ok(AudioTag::SequenceHeader(Bytes::from_static(&[0x12, 0x10])))
        );
        assert_eq!(
            VideoTag::decode(&messages[3].payload),
            Ok(VideoTag::Coded {
                key: true,
                composition_time_ms: -3,
                payload: picture.clone().into()
            })
        );
        assert_eq!(
            AudioTag::decode(&messages[4].payload),
            Ok(AudioTag::Coded(Bytes::from_static(&[1, 2, 3])))
        );
        assert_eq!(replies[5].name(), "onStatus");
    }
}

#[test]
fn a_shared_message_is_not_copied_and_fits_any_stream_id() {
    let mut peer = Peer::connected();
    let (first, second) = (peer.play("s"), peer.play("s"));
    assert_eq!((first, second), (1, 2));
    let message = SharedMessage::avc(0x0123_4567, false, 40, &[7; 130_000], CHUNK_SIZE);
    peer.session.send_shared(1, &message);
    peer.session.send_shared(2, &message);
    let whole = peer.session.transmit().pop().expect("the shared chunks");
    let header = peer.session.transmit().pop().expect("a header of its own");
    let rest = peer.session.transmit().pop().expect("the shared rest");
    assert_eq!(whole.len(), message.len());
    assert_eq!(header.len(), 12);
    assert_eq!(rest.as_ptr(), whole[12..].as_ptr(), "shared, not copied");
    for (stream_id, bytes) in [(1, whole.to_vec()), (2, [header, rest].concat())] {
        let mut reader = crate::rtmp::chunk::ChunkReader::new(Default::default());
        let size = Control::SetChunkSize(CHUNK_SIZE).to_message();
        let size = crate::rtmp::chunk::ChunkWriter::new().write(&size);
        reader.read(&mut &size[..]).expect("a chunk size");
        let decoded = reader.read(&mut &bytes[..]).expect("chunks").expect("one");
        assert_eq!(decoded.stream_id, stream_id);
        assert_eq!(decoded.timestamp, 0x0123_4567);
        assert_eq!(decoded.payload.len(), 130_005);
    }
}

#[test]
fn a_picture_is_shared_in_its_frame_and_reads_the_same() {
    for size in [0, 100, 600, 4_091, 4_092, 4_096, 70_000] {
        let picture = Bytes::from(vec![0x65; size]);
        for timestamp in [40, 0x0123_4567] {
            let copied = SharedMessage::avc(timestamp, true, 7, &picture, 4_096);
            let around = SharedMessage::avc_around(timestamp, true, 7, &picture, 4_096);
            assert_eq!(around.len(), copied.len());
            let wire = [copied, around.clone()].map(|message| {
                let mut peer = Peer::connected_with(Limits {
                    chunk_size_out: 4_096,
                    ..Limits::default()
                });
                let (first, second) = (peer.play("s"), peer.play("s"));
                [first, second].map(|stream_id| {
                    peer.session.send_shared(stream_id, &message);
                    let queue = peer.session.transmit();
                    std::iter::from_fn(|| queue.pop()).collect::<Vec<_>>()
                })
            });
            for (copied, around) in wire[0].iter().zip(&wire[1]) {
                assert_eq!(copied.concat(), around.concat(), "{size} bytes");
            }
            if size >= 600 {
                assert_eq!(wire[1][0][1].as_ptr(), picture.as_ptr(), "not copied");
            }
        }
    }
}

#[test]
fn another_chunk_size_is_announced_before_it_is_used() {
    let limits = Limits {
        chunk_size_out: 4_096,
        ..Limits::default()
    };
    let mut peer = Peer::connected_with(limits);
    peer.play("s");
    for (chunk_size, messages) in [(4_096, 1), (60_000, 2), (60_000, 1)] {
        let message = SharedMessage::avc(0, true, 0, &[7; 10_000], chunk_size);
        peer.session.send_shared(1, &message);
        let replies = peer.replies();
        assert_eq!(replies.len(), messages);
        let last = replies.last().expect("video");
        assert_eq!(last.message.payload.len(), 10_005);
    }
}

//! What real programs sent (`tests/fixtures/rtmp/README.md`), replayed into a session.

use super::peer::Peer;
use crate::rtmp::command::PlayStart;
use crate::rtmp::flv::{AudioTag, VideoTag};
use crate::rtmp::metadata::StreamMetadata;
use crate::rtmp::session::{Event, Limits};

const FFMPEG_PUBLISH: &[u8] = include_bytes!("../../../../tests/fixtures/rtmp/ffmpeg_publish.bin");
const FFMPEG_PLAY: &[u8] = include_bytes!("../../../../tests/fixtures/rtmp/ffmpeg_play.bin");
const GSTREAMER_PUBLISH: &[u8] =
    include_bytes!("../../../../tests/fixtures/rtmp/gstreamer_publish.bin");
const RTMPDUMP_PLAY: &[u8] = include_bytes!("../../../../tests/fixtures/rtmp/rtmpdump_play.bin");

/// The events of a session that gets `pieces`, with every request accepted.
fn replay<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Event> {
    let mut peer = Peer::new(Limits::default());
    let mut events = Vec::new();
    for piece in pieces {
        peer.send_bytes(piece).expect("a well-behaved program");
        while let Some(event) = peer.session.poll_event() {
            match &event {
                Event::Publish { stream_id, .. } => peer.session.accept_publish(*stream_id),
                Event::Play { stream_id, .. } => peer.session.accept_play(*stream_id),
                _ => {}
            }
            events.push(event);
        }
        peer.replies();
    }
    assert_eq!(peer.session.stats(), Default::default());
    events
}

/// What a publisher's events come to.
#[derive(Debug, Default, PartialEq)]
struct Summary {
    keys: Vec<String>,
    pictures: usize,
    key_pictures: usize,
    sounds: usize,
    headers: usize,
    ends: usize,
    unpublished: usize,
}

fn summarize(events: &[Event]) -> Summary {
    let mut summary = Summary::default();
    for event in events {
        match event {
            Event::Publish { request, .. } => summary.keys.push(request.name.key.clone()),
            Event::Unpublish { .. } => summary.unpublished += 1,
            Event::Video { payload, .. } => match VideoTag::decode(payload).expect("H.264") {
                VideoTag::SequenceHeader(_) => summary.headers += 1,
                VideoTag::Coded { key, .. } => {
                    summary.pictures += 1;
                    summary.key_pictures += usize::from(key);
                }
                VideoTag::EndOfSequence => summary.ends += 1,
                VideoTag::Ignored(what) => panic!("{what}"),
            },
            Event::Audio { payload, .. } => match AudioTag::decode(payload).expect("AAC") {
                AudioTag::SequenceHeader(_) => summary.headers += 1,
                AudioTag::Coded(_) => summary.sounds += 1,
                other => panic!("{other:?}"),
            },
            _ => {}
        }
    }
    summary
}

#[test]
fn ffmpegs_publication_is_understood() {
    let events = replay([FFMPEG_PUBLISH]);
    assert_eq!(
        summarize(&events),
        Summary {
            keys: vec!["live/room1/s".to_owned()],
            pictures: 10,
            key_pictures: 2,
            sounds: 45,
            headers: 2,
            ends: 1,
            unpublished: 1,
        }
    );
    let metadata = events.iter().find_map(|event| match event {
        Event::Metadata { values, .. } => Some(StreamMetadata::decode(values)),
        _ => None,
    });
    let metadata = metadata.expect("metadata");
    let video = metadata.video.expect("video");
    assert_eq!((video.width, video.height), (Some(64), Some(48)));
    let audio = metadata.audio.expect("audio");
    assert_eq!(
        (audio.sample_rate_hz, audio.channels),
        (Some(44_100), Some(1))
    );
}

/// GStreamer 1.22 publishes video only, and says so.
#[test]
fn gstreamers_publication_is_understood() {
    let events = replay([GSTREAMER_PUBLISH]);
    let summary = summarize(&events);
    assert_eq!(summary.keys, ["live/room1/s"]);
    assert_eq!((summary.pictures, summary.sounds), (3, 0));
    assert_eq!(summary.unpublished, 1);
    for event in &events {
        if let Event::Metadata { values, .. } = event {
            assert_eq!(StreamMetadata::decode(values).audio, None);
        }
    }
}

#[test]
fn players_are_understood() {
    for (bytes, start) in [
        (FFMPEG_PLAY, PlayStart::LiveOrRecorded),
        (RTMPDUMP_PLAY, PlayStart::Live),
    ] {
        let events = replay([bytes]);
        let request = events.iter().find_map(|event| match event {
            Event::Play { request, .. } => Some(request),
            _ => None,
        });
        let request = request.expect("a play");
        assert_eq!(request.name.key, "live/s");
        assert_eq!(request.start, start);
    }
}

/// Case 1.
#[test]
fn recorded_bytes_may_be_cut_anywhere() {
    for (bytes, step) in [
        (FFMPEG_PUBLISH, 11),
        (FFMPEG_PLAY, 1),
        (GSTREAMER_PUBLISH, 5),
        (RTMPDUMP_PLAY, 1),
    ] {
        let whole = replay([bytes]);
        assert!(replay(bytes.chunks(1)) == whole);
        for at in (0..bytes.len()).step_by(step) {
            let (head, tail) = bytes.split_at(at);
            assert!(replay([head, tail]) == whole, "cut at {at}");
        }
    }
}

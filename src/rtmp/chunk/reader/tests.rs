use super::*;
use crate::rtmp::chunk::{ChunkWriter, encode_shared};
use crate::rtmp::message::Control;

mod extended;
mod limits;

/// What ffmpeg 5.1.9 sends as a publisher, from the handshake on.
const FFMPEG: &[u8] = include_bytes!("../../../../tests/fixtures/rtmp/ffmpeg_publish.bin");
/// C0, C1 and C2.
const HANDSHAKE_BYTES: usize = 3_073;

/// Bytes from spaced hex.
fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).expect("hex"))
        .collect()
}

fn reader() -> ChunkReader {
    ChunkReader::new(ChunkLimits::default())
}

/// Feeds `bytes` and collects what comes out.
fn feed(reader: &mut ChunkReader, mut bytes: &[u8]) -> Result<Vec<Message>, ChunkError> {
    let mut messages = Vec::new();
    while let Some(message) = reader.read(&mut bytes)? {
        messages.push(message);
    }
    assert!(bytes.is_empty(), "None says that the input is used up");
    Ok(messages)
}

fn read(text: &str) -> Result<Vec<Message>, ChunkError> {
    feed(&mut reader(), &hex(text))
}

/// Chunk stream, timestamp, and payload as text.
fn brief(messages: &[Message]) -> Vec<(u32, u32, String)> {
    messages
        .iter()
        .map(|m| {
            let text = String::from_utf8_lossy(&m.payload).into_owned();
            (m.csid, m.timestamp, text)
        })
        .collect()
}

fn brief_of(text: &str) -> Vec<(u32, u32, String)> {
    brief(&read(text).expect("chunks"))
}

fn entry(csid: u32, timestamp: u32, text: &str) -> (u32, u32, String) {
    (csid, timestamp, text.to_owned())
}

/// Whatever the cuts, the messages are the same, and nothing is held in the end.
fn assert_cuts_do_not_matter(bytes: &[u8]) -> Vec<Message> {
    let whole = feed(&mut reader(), bytes).expect("chunks");
    for cut in 0..=bytes.len() {
        let mut reader = reader();
        let mut messages = feed(&mut reader, &bytes[..cut]).expect("the first piece");
        messages.extend(feed(&mut reader, &bytes[cut..]).expect("the second piece"));
        assert_eq!(messages, whole, "cut at {cut}");
    }
    for size in [1, 2, 3, 5] {
        let mut reader = reader();
        let messages: Vec<_> = bytes
            .chunks(size)
            .flat_map(|piece| feed(&mut reader, piece).expect("a piece"))
            .collect();
        assert_eq!(messages, whole, "pieces of {size}");
        assert_eq!(reader.partial_bytes(), 0);
    }
    whole
}

fn set_chunk_size(value: u32) -> Vec<u8> {
    let [a, b, c, d] = value.to_be_bytes();
    vec![2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, a, b, c, d]
}

#[test]
fn a_full_header_says_everything() {
    // RTMP 1.0 section 5.3.1.2.1; the message stream ID alone is little-endian.
    let messages = read("04 00 03 e8 00 00 03 09 04 03 02 01 61 62 63").expect("a message");
    assert_eq!(
        messages,
        [Message {
            csid: 4,
            timestamp: 1_000,
            type_id: 9,
            stream_id: 0x0102_0304,
            payload: Bytes::from_static(b"abc"),
        }]
    );
}

#[test]
fn shorter_headers_keep_what_they_do_not_say() {
    let messages = read(
        "04 00 03 e8 00 00 02 08 01 00 00 00 61 61 \
         44 00 00 17 00 00 01 09 62 \
         84 00 00 18 63 \
         c4 64",
    )
    .expect("messages");
    assert_eq!(
        brief(&messages),
        [
            entry(4, 1_000, "aa"),
            entry(4, 1_023, "b"),
            entry(4, 1_047, "c"),
            entry(4, 1_071, "d"),
        ]
    );
    assert!(messages.iter().all(|m| m.stream_id == 1));
    assert_eq!(messages[3].type_id, 9);
}

/// RTMP 1.0 section 5.3.1.2.4, and rtmpdump's second SetBufferLength.
#[test]
fn fmt_3_right_after_a_full_header_adds_its_timestamp() {
    assert_eq!(
        brief_of("04 00 00 14 00 00 01 08 01 00 00 00 61 c4 62 c4 63"),
        [entry(4, 20, "a"), entry(4, 40, "b"), entry(4, 60, "c")]
    );
}

#[test]
fn empty_messages_are_messages() {
    assert_eq!(
        brief_of("04 00 00 14 00 00 00 08 01 00 00 00 84 00 00 17 c4"),
        [entry(4, 20, ""), entry(4, 43, ""), entry(4, 66, "")]
    );
}

/// CASE 3: every chunk size from 1 to 0x7fffffff.
#[test]
fn case_03_any_legal_chunk_size() {
    let payload: Vec<u8> = (0..70_000_u32).map(|i| i as u8).collect();
    for size in [1, 127, 128, 65_536, 0x7fff_ffff] {
        let mut reader = reader();
        let mut bytes = set_chunk_size(size);
        bytes.extend_from_slice(&encode_shared(6, 40, 9, 1, &[&payload], size));
        let messages = feed(&mut reader, &bytes).expect("messages");
        assert_eq!(reader.chunk_size(), size);
        assert_eq!(
            Control::decode(&messages[0]),
            Ok(Some(Control::SetChunkSize(size)))
        );
        assert_eq!(messages[1].payload, payload, "chunk size {size}");
        assert_eq!(reader.partial_bytes(), 0);
    }
}

/// CASE 3: a chunk size of 0 or with the first bit set.
#[test]
fn case_03_an_illegal_chunk_size_ends_the_session() {
    for value in [0, 0x8000_0000, u32::MAX] {
        let error = feed(&mut reader(), &set_chunk_size(value)).expect_err("illegal");
        assert_eq!(error, ChunkError::ChunkSizeInvalid { value });
    }
    assert_eq!(
        read("02 00 00 00 00 00 03 01 00 00 00 00 00 00 01"),
        Err(ChunkError::ControlTooShort {
            type_id: 1,
            length: 3
        })
    );
}

/// CASE 4: the new size holds for the rest of a half message.
#[test]
fn case_04_the_chunk_size_changes_in_mid_message() {
    let payload: Vec<u8> = (0..400_u32).map(|i| i as u8).collect();
    let mut bytes = hex("06 00 00 28 00 01 90 09 01 00 00 00");
    bytes.extend_from_slice(&payload[..128]);
    bytes.extend(set_chunk_size(200));
    bytes.push(0xc6);
    bytes.extend_from_slice(&payload[128..328]);
    bytes.extend(set_chunk_size(50));
    for piece in payload[328..].chunks(50) {
        bytes.push(0xc6);
        bytes.extend_from_slice(piece);
    }
    let messages = assert_cuts_do_not_matter(&bytes);
    assert_eq!(messages.len(), 3);
    assert_eq!(messages[2].payload, payload);
}

/// CASE 5: librtmp's ping reply and ffmpeg's SetBufferLength open chunk stream 2 by fmt 1.
#[test]
fn case_05_fmt_1_may_be_the_first() {
    let messages = read("42 00 00 01 00 00 06 04 00 07 00 00 00 05 c2 00 07 00 00 00 06");
    let messages = messages.expect("two pongs");
    assert_eq!((messages[0].timestamp, messages[0].stream_id), (1, 0));
    assert_eq!((messages[1].timestamp, messages[1].stream_id), (2, 0));
    for (bytes, fmt) in [("82 00 00 01", 2), ("c2", 3)] {
        assert_eq!(
            read(bytes),
            Err(ChunkError::HeaderWithoutMessage { csid: 2, fmt })
        );
    }
}

/// CASE 6: 64 to 319 in two and three bytes, little-endian above.
#[test]
fn case_06_all_forms_of_chunk_stream_ids() {
    let body = "00 00 00 00 00 01 08 00 00 00 00";
    for (form, csid) in [
        ("02", 2),
        ("3f", 63),
        ("00 00", 64),
        ("01 00 00", 64),
        ("00 ff", 319),
        ("01 ff 00", 319),
        ("01 00 01", 320),
        ("01 01 00", 65),
        ("01 ff ff", 65_599),
    ] {
        assert_eq!(
            brief_of(&format!("{form} {body} 61")),
            [entry(csid, 0, "a")],
            "{form}"
        );
    }
}

/// CASE 6: four chunk streams cut into one another; 64 and 319 in either form are one.
#[test]
fn case_06_chunk_streams_are_kept_apart() {
    let header = |form: &str| hex(&format!("{form} 00 00 00 00 00 03 08 00 00 00 00"));
    let mut bytes = set_chunk_size(1);
    for (form, letter) in [
        ("00 00", b'a'),
        ("00 ff", b'b'),
        ("01 00 01", b'c'),
        ("01 ff ff", b'd'),
    ] {
        bytes.extend(header(form));
        bytes.push(letter);
    }
    for round in [
        "c1 00 00 61 c1 ff 00 62 c1 00 01 63 c1 ff ff 64",
        "c0 00 41 c0 ff 42 c1 00 01 43 c1 ff ff 44",
    ] {
        bytes.extend(hex(round));
    }
    assert_eq!(
        brief(&assert_cuts_do_not_matter(&bytes)[1..]),
        [
            entry(64, 0, "aaA"),
            entry(319, 0, "bbB"),
            entry(320, 0, "ccC"),
            entry(65_599, 0, "ddD"),
        ]
    );
}

/// CASE 7: an extended delta is a delta; exactly 0xffffff is extended, too.
#[test]
fn case_07_extended_deltas_are_added() {
    assert_eq!(
        brief_of(
            "04 00 03 e8 00 00 01 08 01 00 00 00 61 \
             44 ff ff ff 00 00 01 08 01 00 00 00 62 \
             84 ff ff ff 00 ff ff ff 63 \
             84 00 00 01 64"
        ),
        [
            entry(4, 1_000, "a"),
            entry(4, 0x0100_03e8, "b"),
            entry(4, 0x0200_03e7, "c"),
            entry(4, 0x0200_03e8, "d"),
        ]
    );
    assert_eq!(
        brief_of("04 ff ff ff 00 00 01 08 01 00 00 00 00 ff ff ff 61 84 00 00 01 62"),
        [entry(4, 0xff_ffff, "a"), entry(4, 0x0100_0000, "b")]
    );
    assert_eq!(
        brief_of("04 ff ff fe 00 00 01 08 01 00 00 00 61"),
        [entry(4, 0xff_fffe, "a")]
    );
}

/// CASE 8: timestamps wrap at 2^32, on each chunk stream for itself.
#[test]
fn case_08_timestamps_wrap() {
    assert_eq!(
        brief_of(
            "04 ff ff ff 00 00 01 08 01 00 00 00 ff ff ff fe 61 \
             06 00 00 05 00 00 01 09 01 00 00 00 76 \
             84 00 00 17 62 c4 63 \
             86 ff ff ff ff ff ff fe 77"
        ),
        [
            entry(4, 0xffff_fffe, "a"),
            entry(6, 5, "v"),
            entry(4, 21, "b"),
            entry(4, 44, "c"),
            entry(6, 3, "w"),
        ]
    );
}

/// CASE 9: audio cut into a video message.
#[test]
fn case_09_messages_are_cut_into_one_another() {
    let bytes = [
        set_chunk_size(4),
        hex("06 00 00 28 00 00 0a 09 01 00 00 00 61 61 61 61 \
             04 00 00 2a 00 00 06 08 01 00 00 00 73 73 73 73 \
             c6 62 62 62 62 \
             c4 74 74 \
             84 00 00 17 75 75 75 75 \
             c6 63 63 \
             c4 76 76"),
    ]
    .concat();
    assert_eq!(
        brief(&assert_cuts_do_not_matter(&bytes)[1..]),
        [
            entry(4, 42, "sssstt"),
            entry(6, 40, "aaaabbbbcc"),
            entry(4, 65, "uuuuvv"),
        ]
    );
}

/// CASE 10: after an Abort, fmt 3 on that chunk stream begins a new message.
#[test]
fn case_10_abort_drops_a_partial_message() {
    let bytes = [
        set_chunk_size(4),
        hex("06 00 00 28 00 00 06 09 01 00 00 00 61 61 61 61 \
             02 00 00 00 00 00 04 02 00 00 00 00 00 00 00 06 \
             c6 62 62 62 62 c6 63 63 \
             02 00 00 00 00 00 04 02 00 00 00 00 00 00 00 63 \
             86 00 00 01 64 64 64 64 c6 65 65"),
    ]
    .concat();
    let messages = assert_cuts_do_not_matter(&bytes);
    assert_eq!(
        Control::decode(&messages[1]),
        Ok(Some(Control::Abort { csid: 6 }))
    );
    let video: Vec<_> = messages.into_iter().filter(|m| m.csid == 6).collect();
    assert_eq!(
        brief(&video),
        [entry(6, 80, "bbbbcc"), entry(6, 81, "ddddee")]
    );
}

/// A header with fields cuts a message short, and its length counts: no byte of the old one stays.
#[test]
fn a_new_header_in_mid_message_begins_a_new_message() {
    for (header, timestamp) in [
        ("06 00 00 29 00 00 LL 09 01 00 00 00", 41),
        ("46 00 00 01 00 00 LL 09", 41),
    ] {
        for (length, text) in [
            ("02", "bb"),
            ("06", "bbbbbb"),
            ("0a", "bbbbbbbbbb"),
            ("00", ""),
        ] {
            let chunks: String = text
                .as_bytes()
                .chunks(4)
                .enumerate()
                .map(|(i, piece)| {
                    let bytes: String = piece.iter().map(|b| format!("{b:02x} ")).collect();
                    if i == 0 { bytes } else { format!("c6 {bytes}") }
                })
                .collect();
            let bytes = [
                set_chunk_size(4),
                hex("06 00 00 28 00 00 08 09 01 00 00 00 61 61 61 61"),
                hex(&header.replace("LL", length)),
                hex(&chunks),
            ]
            .concat();
            assert_eq!(
                brief(&assert_cuts_do_not_matter(&bytes)[1..]),
                [entry(6, timestamp, text)],
                "{header} {length}"
            );
        }
    }
    // fmt 2 keeps the length.
    let bytes = [
        set_chunk_size(4),
        hex("06 00 00 28 00 00 08 09 01 00 00 00 61 61 61 61 \
             86 00 00 02 62 62 62 62 c6 62 62 62 62"),
    ]
    .concat();
    assert_eq!(
        brief(&assert_cuts_do_not_matter(&bytes)[1..]),
        [entry(6, 42, "bbbbbbbb")]
    );
}

#[test]
fn a_message_whole_in_the_input_holds_no_partial_memory() {
    let payload = vec![3; 40_000];
    let mut reader = reader();
    feed(&mut reader, &set_chunk_size(60_000)).expect("a chunk size");
    let bytes = encode_shared(6, 0, 9, 1, &[&payload], 60_000);
    assert_eq!(
        feed(&mut reader, &bytes).expect("a message")[0].payload,
        payload
    );
    assert_eq!(reader.partial_bytes(), 0);
    // In two pieces: the first reserves what it has, the second what is missing.
    assert_eq!(feed(&mut reader, &bytes[..1_012]), Ok(vec![]));
    assert_eq!(reader.partial_bytes(), 1_000);
    assert_eq!(
        feed(&mut reader, &bytes[1_012..]).expect("a message")[0].payload,
        payload
    );
    assert_eq!(reader.partial_bytes(), 0);
}

#[test]
fn reads_what_ffmpeg_publishes() {
    let stream = &FFMPEG[HANDSHAKE_BYTES..];
    let mut reader = reader();
    let messages = feed(&mut reader, stream).expect("a stream");
    assert_eq!(reader.partial_bytes(), 0);
    let types: Vec<u8> = messages.iter().map(|m| m.type_id).collect();
    // connect, releaseStream, FCPublish, createStream, publish, @setDataFrame.
    assert_eq!(types[..6], [20, 20, 20, 20, 20, 18]);
    let of = |type_id: u8| messages.iter().filter(move |m| m.type_id == type_id);
    assert_eq!(of(type_id::COMMAND_AMF0).count(), 7);
    assert_eq!(of(type_id::DATA_AMF0).count(), 1);
    // A sequence header, ten pictures, an end of sequence.
    let video: Vec<_> = of(type_id::VIDEO).collect();
    assert_eq!(video.len(), 12);
    assert_eq!(video[0].payload[..5], [0x17, 0, 0, 0, 0]);
    assert_eq!(video[11].payload[..5], [0x17, 2, 0, 0, 0]);
    let times: Vec<u32> = video[1..11].iter().map(|m| m.timestamp).collect();
    assert_eq!(
        times,
        (0..10).map(|i| times[0] + i * 100).collect::<Vec<_>>()
    );
    // Audio steps of 1024 samples at 44.1 kHz, in rounded milliseconds.
    let audio: Vec<u32> = of(type_id::AUDIO).skip(1).map(|m| m.timestamp).collect();
    assert!(audio.windows(2).all(|w| (23..=24).contains(&(w[1] - w[0]))));
    assert!(messages.iter().all(|m| m.stream_id <= 1));
}

#[test]
fn every_cut_of_a_recorded_stream_gives_the_same_messages() {
    // Commands, metadata, headers and the first frames.
    let stream = &FFMPEG[HANDSHAKE_BYTES..HANDSHAKE_BYTES + 4_000];
    let whole = feed(&mut reader(), stream).expect("a stream");
    for cut in 0..=stream.len() {
        let mut reader = reader();
        let mut messages = feed(&mut reader, &stream[..cut]).expect("the first piece");
        messages.extend(feed(&mut reader, &stream[cut..]).expect("the second piece"));
        assert_eq!(messages, whole, "cut at {cut}");
    }
}

#[test]
fn errors_have_names_and_words() {
    for (error, reason) in [
        (
            ChunkError::HeaderWithoutMessage { csid: 2, fmt: 3 },
            "chunk_header_without_message",
        ),
        (
            ChunkError::ChunkSizeInvalid { value: 0 },
            "chunk_size_invalid",
        ),
        (
            ChunkError::ControlTooShort {
                type_id: 1,
                length: 3,
            },
            "control_too_short",
        ),
        (
            ChunkError::MessageTooLong {
                csid: 6,
                length: 2,
                max: 1,
            },
            "message_too_long",
        ),
        (
            ChunkError::TooManyChunkStreams { csid: 6, max: 1 },
            "too_many_chunk_streams",
        ),
        (
            ChunkError::PartialBytesExceeded { held: 2, max: 1 },
            "partial_bytes_exceeded",
        ),
    ] {
        assert_eq!(error.reason(), reason);
        assert!(error.to_string().len() > 10);
    }
}

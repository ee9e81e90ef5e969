use super::*;
use crate::rtmp::chunk::{ChunkLimits, ChunkReader};
use crate::rtmp::message::Control;

/// Bytes from spaced hex.
fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).expect("hex"))
        .collect()
}

fn message(csid: u32, timestamp: u32, payload: &[u8]) -> Message {
    Message {
        csid,
        timestamp,
        type_id: 8,
        stream_id: 1,
        payload: Bytes::copy_from_slice(payload),
    }
}

fn read_all(reader: &mut ChunkReader, mut bytes: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some(message) = reader.read(&mut bytes).expect("chunks") {
        messages.push(message);
    }
    messages
}

#[test]
fn headers_shrink_as_far_as_the_messages_allow() {
    let mut writer = ChunkWriter::new();
    for (timestamp, payload, expected) in [
        // Full, with the message stream ID in little-endian.
        (1_000, "aa", "04 00 03 e8 00 00 02 08 01 00 00 00 61 61"),
        // Never fmt 3 right after a full header.
        (2_000, "bb", "84 00 03 e8 62 62"),
        (3_000, "cc", "c4 63 63"),
        (4_000, "dd", "c4 64 64"),
        (4_023, "ee", "84 00 00 17 65 65"),
        (4_046, "fff", "44 00 00 17 00 00 03 08 66 66 66"),
        (4_069, "ggg", "c4 67 67 67"),
        // Backwards: full.
        (4_000, "hhh", "04 00 0f a0 00 00 03 08 01 00 00 00 68 68 68"),
        (4_000, "iii", "84 00 00 00 69 69 69"),
        (4_000, "", "44 00 00 00 00 00 00 08"),
        (4_000, "", "c4"),
    ] {
        let chunks = writer.write(&message(4, timestamp, payload.as_bytes()));
        assert_eq!(chunks[..], hex(expected), "{timestamp} {payload}");
    }
    // Another message stream: full.
    let mut other = message(4, 4_000, b"");
    other.stream_id = 0x0102_0304;
    assert_eq!(
        writer.write(&other)[..],
        hex("04 00 0f a0 00 00 00 08 04 03 02 01")
    );
}

#[test]
fn large_steps_and_wraps_take_a_full_header() {
    let mut writer = ChunkWriter::new();
    writer.write(&message(4, 0, b"a"));
    for (timestamp, expected) in [
        (0xff_fffe, "84 ff ff fe 61"),
        // A delta of exactly 0xffffff would be extended.
        (
            0x1ff_fffd,
            "04 ff ff ff 00 00 01 08 01 00 00 00 01 ff ff fd 61",
        ),
        (0x1ff_fffe, "84 00 00 01 61"),
        (
            u32::MAX,
            "04 ff ff ff 00 00 01 08 01 00 00 00 ff ff ff ff 61",
        ),
        (22, "04 00 00 16 00 00 01 08 01 00 00 00 61"),
    ] {
        let chunks = writer.write(&message(4, timestamp, b"a"));
        assert_eq!(chunks[..], hex(expected), "{timestamp:#x}");
    }
}

#[test]
fn the_extended_timestamp_stands_in_every_chunk() {
    let parts = [&[0xaa; 3][..], &[], &[0xbb; 6]];
    for (timestamp, field, extended) in [
        (0xff_fffe, "ff ff fe", ""),
        (0xff_ffff, "ff ff ff", "00 ff ff ff"),
        (0x0100_0000, "ff ff ff", "01 00 00 00"),
    ] {
        let chunks = encode_shared(6, timestamp, 9, 1, &parts, 4);
        let expected = hex(&format!(
            "06 {field} 00 00 09 09 01 00 00 00 {extended} aa aa aa bb \
             c6 {extended} bb bb bb bb c6 {extended} bb"
        ));
        assert_eq!(chunks[..], expected, "{timestamp:#x}");
    }
}

#[test]
fn shared_chunks_have_the_size_of_their_payload() {
    // One chunk, exactly full; then one byte more.
    assert_eq!(encode_shared(6, 0, 9, 1, &[&[1; 128]], 128).len(), 12 + 128);
    let two = encode_shared(6, 0, 9, 1, &[&[1; 129]], 128);
    assert_eq!(two.len(), 12 + 129 + 1);
    assert_eq!(two[12 + 128], 0xc6);
    assert_eq!(encode_shared(6, 0, 9, 1, &[], 128).len(), 12);
    assert_eq!(encode_shared(6, 0, 9, 1, &[&[1; 3]], 1).len(), 12 + 3 + 2);
    // A chunk size of 0 cannot be; 1 is the least.
    assert_eq!(encode_shared(6, 0, 9, 1, &[&[1; 3]], 0).len(), 12 + 3 + 2);
}

#[test]
fn a_payload_without_a_form_is_not_written() {
    let long = vec![0; MESSAGE_BYTES_MAX + 1];
    assert!(encode_shared(6, 0, 9, 1, &[&long], 65_536).is_empty());
    let most = &long[1..];
    assert!(encode_shared(6, 0, 9, 1, &[most], 65_536).len() > MESSAGE_BYTES_MAX);
    let mut writer = ChunkWriter::new();
    assert!(writer.write(&message(4, 0, &long)).is_empty());
    // The next one begins as if nothing had been.
    assert_eq!(writer.write(&message(4, 9, b"a"))[0], 0x04);
}

/// CASE 6: all three forms of the basic header, little-endian in the third.
#[test]
fn case_06_chunk_stream_ids_take_their_shortest_form() {
    for (csid, expected) in [
        (2, "02"),
        (63, "3f"),
        (64, "00 00"),
        (319, "00 ff"),
        (320, "01 00 01"),
        (65_599, "01 ff ff"),
    ] {
        let chunks = encode_shared(csid, 0, 8, 0, &[b"a"], 128);
        let expected = hex(&format!("{expected} 00 00 00 00 00 01 08 00 00 00 00 61"));
        assert_eq!(chunks[..], expected, "{csid}");
    }
}

#[test]
#[should_panic(expected = "chunk stream ID 1 is not in 2..=65599")]
fn a_chunk_stream_id_that_cannot_be_is_a_bug() {
    encode_shared(1, 0, 8, 0, &[], 128);
}

#[test]
fn a_set_chunk_size_takes_effect_after_itself() {
    let mut writer = ChunkWriter::new();
    writer.set_chunk_size(2);
    let set = writer.write(&Control::SetChunkSize(60_000).to_message());
    assert_eq!(set.len(), 12 + 4 + 1);
    assert_eq!(writer.chunk_size(), 60_000);
    writer.set_chunk_size(0);
    assert_eq!(writer.chunk_size(), 1);
}

/// What the writer says, the reader understands: a long row of messages drawn from a seed,
/// with steps of all sizes, on chunk streams of all forms.
#[test]
fn the_reader_understands_the_writer() {
    let mut random = 1_u64;
    let mut draw = move |below: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let mut writer = ChunkWriter::new();
    let mut reader = ChunkReader::new(ChunkLimits::default());
    let mut timestamp = 0_u32;
    for round in 0..5_000 {
        if round % 500 == 499 {
            let set = Control::SetChunkSize(1 + draw(5_000) as u32).to_message();
            assert_eq!(read_all(&mut reader, &writer.write(&set)), [set]);
        }
        timestamp = match draw(50) {
            0 => timestamp.wrapping_sub(draw(100) as u32),
            1 => timestamp.wrapping_add(0xff_fffe + draw(4) as u32),
            2 => timestamp.wrapping_add(draw(1 << 31) as u32),
            _ => timestamp.wrapping_add(23),
        };
        let length = [0, 1, 2, 127, 128, 129, 1_000][draw(7) as usize];
        let sent = Message {
            csid: [2, 4, 63, 64, 319, 320, 65_599][draw(7) as usize],
            timestamp,
            type_id: 8 + draw(2) as u8,
            stream_id: draw(2) as u32,
            payload: (0..length).map(|_| draw(256) as u8).collect(),
        };
        let chunks = writer.write(&sent);
        assert_eq!(read_all(&mut reader, &chunks), [sent], "round {round}");
    }
}

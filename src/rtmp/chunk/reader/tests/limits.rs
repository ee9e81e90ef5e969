//! What a hostile peer may make a reader hold.

use super::*;

/// CASE 13: 16 MB claimed on each of 5 000 chunk streams, one byte sent on each.
#[test]
fn case_13_memory_follows_what_was_received() {
    let claim = |csid: u32| {
        let [low, high, ..] = (csid - 64).to_le_bytes();
        let mut bytes = vec![1, low, high];
        bytes.extend(hex("00 00 00 ff ff ff 09 01 00 00 00"));
        bytes.push(b'x');
        bytes
    };
    // Each chunk ends after a byte, so that the next claim may follow.
    let mut input = set_chunk_size(1);
    (64..5_064).for_each(|csid| input.extend(claim(csid)));

    // By default the claim itself is too long.
    assert_eq!(
        feed(&mut reader(), &input),
        Err(ChunkError::MessageTooLong {
            csid: 64,
            length: 0xff_ffff,
            max: 4 << 20
        })
    );
    // If such messages are allowed, the chunk streams are too many.
    let limits = ChunkLimits {
        message_bytes_max: 0xff_ffff,
        ..ChunkLimits::default()
    };
    for piece_bytes in [1, 15, 100, input.len()] {
        let mut reader = ChunkReader::new(limits);
        let error = input
            .chunks(piece_bytes)
            .find_map(|piece| feed(&mut reader, piece).err());
        assert_eq!(
            error,
            Some(ChunkError::TooManyChunkStreams { csid: 127, max: 64 })
        );
        // Chunk stream 2 is one of the 64. What each may reserve ahead is what the input held.
        assert!(reader.partial_bytes() <= 64 * piece_bytes.max(PARTIAL_BYTES_MIN));
    }
    // If those are allowed, too, memory is what ends it.
    let mut reader = ChunkReader::new(ChunkLimits {
        chunk_streams_max: u16::MAX,
        partial_bytes_max: 100_000,
        ..limits
    });
    let error = feed(&mut reader, &input).expect_err("too much");
    assert!(matches!(
        error,
        ChunkError::PartialBytesExceeded { max: 100_000, .. }
    ));
    assert!(reader.partial_bytes() <= 100_000);
}

#[test]
fn limits_are_exact() {
    let limits = ChunkLimits {
        message_bytes_max: 300,
        chunk_streams_max: 2,
        partial_bytes_max: 300,
    };
    let payload = [7; 301];
    let mut reader = ChunkReader::new(limits);
    let most = encode_shared(4, 0, 8, 1, &[&payload[1..]], 128);
    assert_eq!(feed(&mut reader, &most).map(|m| m.len()), Ok(1));
    let more = encode_shared(4, 0, 8, 1, &[&payload], 128);
    assert_eq!(
        feed(&mut reader, &more),
        Err(ChunkError::MessageTooLong {
            csid: 4,
            length: 301,
            max: 300
        })
    );

    let mut reader = ChunkReader::new(limits);
    for csid in [70, 5, 70, 5] {
        let bytes = encode_shared(csid, 0, 8, 1, &[b"a"], 128);
        assert!(feed(&mut reader, &bytes).is_ok());
    }
    let third = encode_shared(6, 0, 8, 1, &[b"a"], 128);
    assert_eq!(
        feed(&mut reader, &third),
        Err(ChunkError::TooManyChunkStreams { csid: 6, max: 2 })
    );

    // Two partial messages of 200 bytes each.
    let mut reader = ChunkReader::new(limits);
    let first = encode_shared(4, 0, 8, 1, &[&[1; 200]], 128);
    let second = encode_shared(5, 0, 8, 1, &[&[1; 200]], 128);
    assert_eq!(feed(&mut reader, &first[..140]), Ok(vec![]));
    assert_eq!(reader.partial_bytes(), 200);
    assert_eq!(
        feed(&mut reader, &second[..140]),
        Err(ChunkError::PartialBytesExceeded {
            held: 400,
            max: 300
        })
    );
}

/// A stream with everything in it, each bit wrong once: reading returns, and memory stays
/// within the limit.
#[test]
fn every_flipped_bit_returns_within_the_limits() {
    let mut writer = ChunkWriter::new();
    let mut stream = Vec::new();
    for (i, timestamp) in [0, 20, 40, 0x0123_4567, 0x0123_4568, 5]
        .into_iter()
        .enumerate()
    {
        for csid in [4, 6, 70, 400] {
            stream.extend_from_slice(&writer.write(&Message {
                csid,
                timestamp,
                type_id: 8,
                stream_id: 1,
                payload: Bytes::from(vec![i as u8; 100 * i]),
            }));
        }
        stream.extend_from_slice(&writer.write(&Control::SetChunkSize(60 + i as u32).to_message()));
    }
    let limits = ChunkLimits {
        message_bytes_max: 100_000,
        chunk_streams_max: 8,
        partial_bytes_max: 20_000,
    };
    assert_eq!(
        feed(&mut ChunkReader::new(limits), &stream).map(|m| m.len()),
        Ok(30)
    );
    for bit in 0..stream.len() * 8 {
        let mut flipped = stream.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let mut reader = ChunkReader::new(limits);
        for piece in flipped.chunks(1_000) {
            // Even after an error, though nobody asks then.
            let _ = feed(&mut reader, piece);
        }
        assert!(reader.partial_bytes() <= limits.partial_bytes_max);
        let held: usize = reader
            .streams
            .all
            .iter()
            .filter_map(|s| s.partial.as_ref())
            .map(Vec::capacity)
            .sum();
        assert_eq!(held, reader.partial_bytes(), "bit {bit}");
    }
}

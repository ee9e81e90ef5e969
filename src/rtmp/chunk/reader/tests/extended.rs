//! Extended timestamps (RTMP 1.0 section 5.3.1.3) in the habits of real writers.

use super::*;

/// The habit of RTMP 1.0 section 5.3.1.3, ffmpeg and our own writer.
#[test]
fn extended_timestamps_repeated_on_continuations() {
    let bytes = [
        set_chunk_size(4),
        encode_shared(6, 0x0123_4567, 9, 1, &[b"aaaabbbbcc"], 4).to_vec(),
        // A new message by fmt 3 brings its own delta.
        hex("c6 01 00 00 00 64 64 64 64 c6 01 00 00 00 65 65 65 65 c6 01 00 00 00 66 66"),
        // A short one ends the need.
        hex("86 00 00 01 67 67 67 67 c6 68 68 68 68 c6 69 69"),
    ]
    .concat();
    assert_eq!(
        brief(&assert_cuts_do_not_matter(&bytes)[1..]),
        [
            entry(6, 0x0123_4567, "aaaabbbbcc"),
            entry(6, 0x0223_4567, "ddddeeeeff"),
            entry(6, 0x0223_4568, "gggghhhhii"),
        ]
    );
}

/// The habit of librtmp: rtmpdump 2.4, OBS before obs-studio#10097.
#[test]
fn extended_timestamps_left_out_on_continuations() {
    let bytes = [
        set_chunk_size(4),
        hex("06 ff ff ff 00 00 0a 09 01 00 00 00 01 23 45 67 \
             61 61 61 61 c6 62 62 62 62 c6 63 63 \
             04 ff ff ff 00 00 06 08 01 00 00 00 01 23 45 68 \
             64 64 64 64 c4 65 65 \
             c4 66 66 66 66 c4 67 67"),
    ]
    .concat();
    assert_eq!(
        brief(&assert_cuts_do_not_matter(&bytes)[1..]),
        [
            entry(6, 0x0123_4567, "aaaabbbbcc"),
            entry(4, 0x0123_4568, "ddddee"),
            // librtmp uses fmt 3 for a message of the same time.
            entry(4, 0x0123_4568, "ffffgg"),
        ]
    );
}

/// The payload of the first continuation begins like the field, and the chunk ends
/// before the difference shows: what was looked at is payload and the next header.
#[test]
fn a_left_out_timestamp_is_told_from_a_payload_that_resembles_it() {
    for (tail, next) in [
        ("01", "c4"),
        ("01 23", "c4"),
        ("01 23 45", "c4"),
        ("01", "04 00 00 00"),
    ] {
        let length = 4 + hex(tail).len();
        let bytes = [
            set_chunk_size(4),
            hex(&format!(
                "04 00 00 05 00 00 01 08 01 00 00 00 62 \
                 06 ff ff ff 00 00 {length:02x} 09 01 00 00 00 01 23 45 67 \
                 61 61 61 61 c6 {tail} \
                 {next}"
            )),
            if next == "c4" {
                hex("63")
            } else {
                hex("00 00 01 08 01 00 00 00 63")
            },
        ]
        .concat();
        let messages = assert_cuts_do_not_matter(&bytes);
        assert_eq!(messages[2].payload[4..], hex(tail), "{tail}");
        assert_eq!(messages[3].payload[..], b"c"[..], "{tail}");
    }
}

/// After an extended delta, either the delta or the absolute time may be repeated.
#[test]
fn an_extended_delta_is_repeated_as_delta_or_as_time() {
    for repeated in ["01 00 00 00", "01 00 03 e8"] {
        let bytes = [
            set_chunk_size(4),
            hex(&format!(
                "04 00 03 e8 00 00 01 08 01 00 00 00 61 \
                 44 ff ff ff 00 00 06 08 01 00 00 00 62 62 62 62 c4 {repeated} 63 63"
            )),
        ]
        .concat();
        assert_eq!(
            brief(&assert_cuts_do_not_matter(&bytes)[2..]),
            [entry(4, 0x0100_03e8, "bbbbcc")]
        );
    }
}

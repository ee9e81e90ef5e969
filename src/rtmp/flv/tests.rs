use super::*;

fn hex(text: &str) -> Bytes {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| {
            u8::from_str_radix(std::str::from_utf8(pair).expect("ascii"), 16).expect("hex digits")
        })
        .collect()
}

fn video(text: &str) -> Result<VideoTag, FlvError> {
    VideoTag::decode(&hex(text))
}

fn audio(text: &str) -> Result<AudioTag, FlvError> {
    AudioTag::decode(&hex(text))
}

fn coded(key: bool, composition_time_ms: i32, payload: &str) -> Result<VideoTag, FlvError> {
    Ok(VideoTag::Coded {
        key,
        composition_time_ms,
        payload: hex(payload),
    })
}

fn unsupported<T>(name: &'static str) -> Result<T, FlvError> {
    Err(FlvError::UnsupportedCodec { name })
}

#[test]
fn classic_avc_is_decoded() {
    assert_eq!(
        video("17 00 000000 0142c01e"),
        Ok(VideoTag::SequenceHeader(hex("0142c01e")))
    );
    assert_eq!(
        video("17 01 000050 00000001 65"),
        coded(true, 80, "00000001 65")
    );
    assert_eq!(
        video("27 01 ffffd7 00000001 41"),
        coded(false, -41, "00000001 41")
    );
    assert_eq!(
        video("47 01 000000 00000001 65"),
        coded(true, 0, "00000001 65")
    );
}

#[test]
fn ffmpegs_end_of_sequence_is_no_key_frame() {
    assert_eq!(video("17 02 00 00 00"), Ok(VideoTag::EndOfSequence));
    assert_eq!(video("17 02"), Ok(VideoTag::EndOfSequence));
    assert_eq!(
        video("17 01 00 00 00"),
        Ok(VideoTag::Ignored("picture without NAL units"))
    );
}

/// Case 29, the part that concerns tags.
#[test]
fn command_frames_and_unknown_packet_types_are_skipped() {
    assert_eq!(video("57 00"), Ok(VideoTag::Ignored("command frame")));
    assert_eq!(video("52 01"), Ok(VideoTag::Ignored("command frame")));
    assert_eq!(video("d1 00"), Ok(VideoTag::Ignored("command frame")));
    assert_eq!(video(""), Ok(VideoTag::Ignored("empty message")));
    assert_eq!(
        video("27 09 000000 00"),
        Ok(VideoTag::Ignored("unknown AVCPacketType"))
    );
    assert_eq!(
        video("95 61766331 00"),
        Ok(VideoTag::Ignored("unknown VideoPacketType"))
    );
    assert_eq!(
        video("94 68766331 00"),
        Ok(VideoTag::Ignored("video metadata"))
    );
}

#[test]
fn other_video_codecs_are_refused_by_name() {
    for (tag, name) in [
        ("1c 01 000000 00", "HEVC"),
        ("1d 01 000000 00", "AV1"),
        ("12 00", "Sorenson H.263"),
        ("14 00", "VP6"),
        ("1f 00", "unknown video codec"),
        ("90 68766331 01", "HEVC"),
        ("91 61763031 01", "AV1"),
        ("91 76703039 01", "VP9"),
        ("91 78787878 01", "unknown FourCC"),
    ] {
        assert_eq!(video(tag), unsupported(name), "{tag}");
    }
}

#[test]
fn enhanced_avc_is_decoded() {
    let avc1 = "61766331";
    assert_eq!(
        video(&format!("90 {avc1} 0142c01e")),
        Ok(VideoTag::SequenceHeader(hex("0142c01e")))
    );
    assert_eq!(
        video(&format!("91 {avc1} ffffff 00000001 65")),
        coded(true, -1, "00000001 65")
    );
    assert_eq!(
        video(&format!("a3 {avc1} 00000001 41")),
        coded(false, 0, "00000001 41")
    );
    assert_eq!(video(&format!("92 {avc1}")), Ok(VideoTag::EndOfSequence));
}

#[test]
fn mod_ex_of_every_length_is_skipped() {
    // TimestampOffsetNano of three bytes, then CodedFramesX.
    assert_eq!(
        video("97 02 0003e8 03 61766331 00000001 65"),
        coded(true, 0, "00000001 65")
    );
    // Two in a row.
    assert_eq!(
        video("97 00 aa 17 00 bb 03 61766331 01"),
        coded(true, 0, "01")
    );
    // The long form: ff, then a 16-bit size minus one.
    let long = format!("97 ff 0100 {} f3 61766331 01", "00".repeat(257));
    assert_eq!(video(&long), coded(true, 0, "01"));
    assert_eq!(video("97 ff 0100 00"), Err(FlvError::Truncated));
    assert_eq!(
        audio("97 00 aa 01 6d703461 21"),
        Ok(AudioTag::Coded(hex("21")))
    );
}

#[test]
fn multitrack_gives_track_0_and_skips_the_others() {
    // OneTrack.
    assert_eq!(video("96 03 61766331 00 aabb"), coded(true, 0, "aabb"));
    assert_eq!(
        video("96 03 61766331 01 aabb"),
        Ok(VideoTag::Ignored("track other than 0"))
    );
    // ManyTracks: 1, then 0.
    assert_eq!(
        video("a6 13 61766331 01 000002 cccc 00 000001 dd"),
        coded(false, 0, "dd")
    );
    // ManyTracksManyCodecs: HEVC as track 1, H.264 as track 0.
    assert_eq!(
        video("96 21 68766331 01 000002 cccc 61766331 00 000004 000007 dd"),
        coded(true, 7, "dd")
    );
    assert_eq!(video("96 21 68766331 00 000002 cccc"), unsupported("HEVC"));
    // A size past the end.
    assert_eq!(
        video("96 13 61766331 00 0000ff dd"),
        Err(FlvError::Truncated)
    );
    assert_eq!(
        audio("95 00 6d703461 00 1210"),
        Ok(AudioTag::SequenceHeader(hex("1210")))
    );
    assert_eq!(
        audio("95 11 6d703461 02 000001 21"),
        Ok(AudioTag::Ignored("track other than 0"))
    );
}

/// Case 25, the part that concerns tags: the FLV bits say 44.1 kHz stereo whatever is inside.
#[test]
fn aac_rate_and_channel_bits_are_not_looked_at() {
    for first in 0xa0..=0xafu8 {
        let body: Bytes = [&[first, 0][..], &hex("12 10 56 e5 00")].concat().into();
        assert_eq!(
            AudioTag::decode(&body),
            Ok(AudioTag::SequenceHeader(hex("1210 56e500")))
        );
    }
    assert_eq!(audio("af 01 2110"), Ok(AudioTag::Coded(hex("2110"))));
}

#[test]
fn empty_audio_is_silence_and_never_a_frame() {
    assert_eq!(audio(""), Ok(AudioTag::Silence));
    assert_eq!(audio("af"), Err(FlvError::Truncated));
    assert_eq!(audio("af01"), Ok(AudioTag::Ignored("empty AAC frame")));
    assert_eq!(
        audio("af00"),
        Ok(AudioTag::Ignored("empty AudioSpecificConfig"))
    );
    assert_eq!(
        audio("af02"),
        Ok(AudioTag::Ignored("unknown AACPacketType"))
    );
}

#[test]
fn other_audio_codecs_are_refused_by_name() {
    for (tag, name) in [
        ("2f 00", "MP3"),
        ("b6 00", "Speex"),
        ("72 00", "G.711 A-law"),
        ("d2 00", "Opus"),
        ("90 4f707573 00", "Opus"),
        ("91 2e6d7033 00", "MP3"),
        ("91 664c6143 00", "FLAC"),
    ] {
        assert_eq!(audio(tag), unsupported(name), "{tag}");
    }
    assert_eq!(
        audio("92 6d703461"),
        Ok(AudioTag::Ignored("end of sequence"))
    );
    assert_eq!(
        audio("94 6d703461 00 02"),
        Ok(AudioTag::Ignored("multichannel configuration"))
    );
}

#[test]
fn headers_for_output_decode_to_what_they_say() {
    for (key, cts) in [(true, 0), (false, -8_388_608), (true, 8_388_607)] {
        let body: Bytes = [&avc_header(key, cts)[..], &[1, 2]].concat().into();
        assert_eq!(VideoTag::decode(&body), coded(key, cts, "0102"));
    }
    assert_eq!(avc_header(true, i32::MAX), avc_header(true, 8_388_607));
    assert_eq!(avc_header(true, i32::MIN), avc_header(true, -8_388_608));
    let body: Bytes = [&AVC_SEQUENCE_HEADER[..], &[1]].concat().into();
    assert_eq!(
        VideoTag::decode(&body),
        Ok(VideoTag::SequenceHeader(hex("01")))
    );
    let end = Bytes::from_static(&AVC_END_OF_SEQUENCE);
    assert_eq!(VideoTag::decode(&end), Ok(VideoTag::EndOfSequence));
    let body: Bytes = [&AAC_HEADER[..], &[1]].concat().into();
    assert_eq!(AudioTag::decode(&body), Ok(AudioTag::Coded(hex("01"))));
    let body: Bytes = [&AAC_SEQUENCE_HEADER[..], &[1]].concat().into();
    assert_eq!(
        AudioTag::decode(&body),
        Ok(AudioTag::SequenceHeader(hex("01")))
    );
}

#[test]
fn every_truncation_and_bit_flip_of_the_examples_returns() {
    let examples = [
        "17 00 000000 0142c01e",
        "17 01 000050 00000001 65",
        "97 02 0003e8 03 61766331 00000001 65",
        "96 21 68766331 01 000002 cccc 61766331 00 000004 000007 dd",
        "95 11 6d703461 02 000001 21",
        "af 00 1210 56e500",
    ];
    for example in examples.map(hex) {
        for end in 0..=example.len() {
            let _ = VideoTag::decode(&example.slice(..end));
            let _ = AudioTag::decode(&example.slice(..end));
        }
        for bit in 0..example.len() * 8 {
            let mut flipped = example.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let flipped = Bytes::from(flipped);
            let _ = VideoTag::decode(&flipped);
            let _ = AudioTag::decode(&flipped);
            let _ = Tags::new(flipped).count();
        }
    }
}

const FILE: &str = "464c56 01 05 00000009 00000000 \
     08 000002 000017 00 000000 af01 0000000d \
     09 000003 fffffe 01 000000 170200 0000000e \
     12 000000 000000 00 000000 0000000b";

#[test]
fn a_file_gives_its_tags() {
    let file = FileReader::new(hex(FILE)).expect("a file");
    let tags: Vec<_> = file.tags().collect::<Result<_, _>>().expect("whole tags");
    let summary: Vec<_> = tags
        .iter()
        .map(|tag| (tag.type_id, tag.timestamp, tag.payload.len()))
        .collect();
    assert_eq!(summary, [(8, 23, 2), (9, 0x01ff_fffe, 3), (18, 0, 0)]);
}

#[test]
fn a_cut_file_gives_its_whole_tags_and_an_error() {
    let whole = hex(FILE);
    for end in 0..whole.len() {
        match FileReader::new(whole.slice(..end)) {
            Err(error) => assert!(error == FlvError::NotAnFlvFile && end < 13, "{end}"),
            Ok(file) => {
                let good = file.tags().filter(Result::is_ok).count();
                let expected = [26, 44, 59].iter().filter(|&&at| end >= at).count();
                assert_eq!(good, expected, "cut at {end}");
                assert!(file.tags().count() <= good + 1);
            }
        }
    }
    for wrong in [
        "464c57 01 05 00000009 00000000",
        "464c56 01 05 00000008 00000000",
        "464c56 01 05 ffffffff 00000000",
    ] {
        assert_eq!(
            FileReader::new(hex(wrong)).err(),
            Some(FlvError::NotAnFlvFile)
        );
    }
}

use super::*;

fn decode(hex: &str) -> Result<AudioSpecificConfig, AacError> {
    let bytes: Vec<u8> = hex
        .split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).expect("hex"))
        .collect();
    AudioSpecificConfig::decode(&bytes)
}

/// CASES 25: what real encoders send and the edges of the syntax.
#[test]
fn case_25_configurations_of_the_field() {
    // ffmpeg 5.1.9: AAC-LC 44.1 kHz stereo and "there is no SBR".
    let config = decode("12 10 56 e5 00").expect("whole");
    assert_eq!(config.object_type(), 2);
    assert_eq!(config.sample_rate_hz(), 44_100);
    assert_eq!(config.output_sample_rate_hz(), 44_100);
    assert_eq!((config.channels(), config.output_channels()), (2, 2));
    assert_eq!(config.frame_samples(), 1024);
    assert_eq!(config.sbr(), Sbr::Absent);
    assert!(config.is_supported());
    assert_eq!(config.bytes().as_ref(), [0x12, 0x10, 0x56, 0xe5, 0x00]);

    // OBS, LiteAV: two bytes.
    let config = decode("11 90").expect("whole");
    assert_eq!((config.sample_rate_hz(), config.channels()), (48_000, 2));
    assert_eq!(config.sbr(), Sbr::Implicit);

    // 16 kHz mono, the `low` quality of the mini program.
    let config = decode("14 08").expect("whole");
    assert_eq!((config.sample_rate_hz(), config.channels()), (16_000, 1));
    assert_eq!(config.profile_name(), "AAC-LC");

    // HE-AAC, explicit: 5, 22.05 kHz core, stereo, 44.1 kHz, core LC.
    let config = decode("2b 92 08 00").expect("whole");
    assert_eq!((config.object_type(), config.core_object_type()), (5, 2));
    assert_eq!(config.sample_rate_hz(), 22_050);
    assert_eq!(config.output_sample_rate_hz(), 44_100);
    assert_eq!((config.channels(), config.sbr()), (2, Sbr::Present));
    assert!(config.is_supported());

    // HE-AAC v2, explicit: 29, 24 kHz core, mono, 48 kHz, core LC.
    let config = decode("eb 09 88 00").expect("whole");
    assert_eq!((config.object_type(), config.core_object_type()), (29, 2));
    assert_eq!(config.output_sample_rate_hz(), 48_000);
    assert_eq!((config.channels(), config.output_channels()), (1, 2));
    assert!(config.is_supported());

    // HE-AAC, backward-compatible: LC 22.05 kHz stereo, 0x2b7, 5, SBR, 44.1 kHz.
    let config = decode("13 90 56 e5 a0").expect("whole");
    assert_eq!(config.object_type(), 2);
    assert_eq!(config.profile_name(), "HE-AAC");
    assert_eq!(config.sbr(), Sbr::Present);
    assert_eq!(config.output_sample_rate_hz(), 44_100);
    // And with parametric stereo behind it: 0x548, 1.
    let config = decode("13 88 56 e5 a5 48 80").expect("whole");
    assert_eq!(config.profile_name(), "HE-AAC v2");
    assert!(config.parametric_stereo());
    assert_eq!((config.channels(), config.output_channels()), (1, 2));

    // Index 15: the rate in 24 bits, 12 345 Hz = 0x003039, mono.
    // 00010 1111 000000000011000000111001 0001 000 (40 bits)
    let config = decode("17 80 18 1c 88").expect("whole");
    assert_eq!((config.sample_rate_hz(), config.channels()), (12_345, 1));
    // A rate that no AAC has.
    assert_eq!(decode("17 80 00 00 08"), Err(AacError::Rate(0)));
}

#[test]
fn reserved_values_are_refused_by_name() {
    // Index 13 and 14.
    assert_eq!(decode("16 90"), Err(AacError::ReservedRate(13)));
    assert_eq!(decode("17 10"), Err(AacError::ReservedRate(14)));
    // channelConfiguration 8.
    assert_eq!(decode("12 40"), Err(AacError::ReservedChannels(8)));
    assert_eq!(decode("02 10"), Err(AacError::NoObjectType));
    assert_eq!(decode(""), Err(AacError::Truncated));
    assert_eq!(decode("12"), Err(AacError::Truncated));
    let long = vec![0x12; CONFIG_BYTES_MAX + 1];
    assert_eq!(
        AudioSpecificConfig::decode(&long),
        Err(AacError::TooLarge(CONFIG_BYTES_MAX + 1))
    );
}

#[test]
fn what_cannot_be_decoded_is_known() {
    for (hex, name) in [
        ("0a 10", "AAC Main"),
        ("1a 10", "AAC SSR"),
        ("22 10", "AAC LTP"),
        // Object type 23 with a resilience-free GASpecificConfig.
        ("ba 10 00", "ER AAC LD"),
        // The escape: 11111 000111 is 39.
        ("f8 e8 40 00", "ER AAC ELD"),
    ] {
        let config = decode(hex).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(config.profile_name(), name);
        assert!(!config.is_supported(), "{name}");
    }
    // LC with frames of 960 samples.
    let config = decode("12 14").expect("whole");
    assert_eq!(config.frame_samples(), 960);
    assert!(!config.is_supported());
    // LC with 5.1 channels is mixed down.
    let config = decode("12 30").expect("whole");
    assert_eq!(config.channels(), 6);
    assert!(config.is_supported());
}

#[test]
fn program_config_element_tells_the_channels() {
    // LC 44.1 kHz, channelConfiguration 0, then: tag 0000, object_type 01, index 0100, front 0001,
    // side 0000, back 0000, lfe 00, assoc 000, cc 0000, three absent mixdowns 000, front: pair 1
    // tag 0000, alignment, comment length 0. 00010 0100 0000 000 | 0000 01 0100 0001 0000 0000 00
    // 000 0000 000 1 0000 0 | 00000000
    let config = decode("12 00 05 04 00 00 20 00").expect("whole");
    assert_eq!(config.channels(), 2);
    assert!(config.is_supported());
    // Without a single element.
    assert_eq!(decode("12 00 05 00 00 00 00 00"), Err(AacError::NoChannels));
    // The element is missing altogether.
    assert_eq!(decode("12 00"), Err(AacError::Truncated));
}

#[test]
fn lc_makes_what_decode_reads() {
    for rate_hz in RATES_HZ.into_iter().chain([12_345, 37_000]) {
        for channels in [1, 2] {
            let config = AudioSpecificConfig::lc(rate_hz, channels).expect("possible");
            assert_eq!(config.object_type(), 2);
            assert_eq!(
                (config.sample_rate_hz(), config.channels()),
                (rate_hz, channels)
            );
            assert!(config.is_supported());
        }
    }
    let bytes =
        |rate, channels| AudioSpecificConfig::lc(rate, channels).map(|c| c.bytes().to_vec());
    assert_eq!(bytes(44_100, 2), Ok(vec![0x12, 0x10]));
    assert_eq!(bytes(48_000, 2), Ok(vec![0x11, 0x90]));
    assert_eq!(bytes(16_000, 1), Ok(vec![0x14, 0x08]));
    assert_eq!(bytes(12_345, 1), Ok(vec![0x17, 0x80, 0x18, 0x1c, 0x88]));
    assert_eq!(bytes(96_001, 2), Err(AacError::Rate(96_001)));
    assert_eq!(bytes(48_000, 0), Err(AacError::Channels(0)));
    assert_eq!(bytes(48_000, 3), Err(AacError::Channels(3)));
}

#[test]
fn damaged_configurations_are_answered() {
    for hex in [
        "12 10 56 e5 00",
        "2b 92 08 00",
        "eb 09 88 00",
        "13 88 56 e5 a5 48 80",
        "17 80 18 1c 88",
        "12 00 05 04 00 00 20 00",
        "f8 e8 40 00",
    ] {
        let whole = decode(hex).expect("whole").bytes().to_vec();
        for len in 0..whole.len() {
            let _ = AudioSpecificConfig::decode(&whole[..len]);
        }
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            if let Ok(config) = AudioSpecificConfig::decode(&damaged) {
                assert!(config.channels() > 0 && config.sample_rate_hz() > 0);
                assert!(config.output_sample_rate_hz() > 0);
            }
        }
    }
}

/// The constants are silence to a real decoder, at every rate.
#[test]
fn silent_frames_decode_as_silence() {
    for channels in [1u8, 2] {
        for rate_hz in RATES_HZ {
            let config = AudioSpecificConfig::lc(rate_hz, channels).expect("possible");
            let mut decoder = fdk_aac::dec::Decoder::new(fdk_aac::dec::Transport::Raw);
            decoder.config_raw(config.bytes()).expect("configuration");
            let frame = silent_frame(channels);
            for _ in 0..5 {
                assert_eq!(decoder.fill(&frame), Ok(frame.len()));
                let mut pcm = [1i16; 8192];
                decoder.decode_frame(&mut pcm).expect("a frame");
                let info = decoder.stream_info();
                let seen = (
                    info.numChannels,
                    info.aacSampleRate,
                    info.aacSamplesPerFrame,
                );
                assert_eq!(seen, (i32::from(channels), rate_hz as i32, 1024));
                let samples = decoder.decoded_frame_size();
                assert!(samples >= 1024 * usize::from(channels), "{samples}");
                assert!(pcm[..samples].iter().all(|sample| *sample == 0));
            }
        }
    }
}

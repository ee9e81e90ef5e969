//! Sequence parameter sets: what encoders write, and what nobody may write.

use super::*;

#[test]
fn parameter_sets_of_x264_say_what_was_encoded() {
    let expected = [
        ("Constrained Baseline", 30, 640, 360, Some(0), 25.0, false),
        ("Main", 40, 1920, 1080, Some(0), 30.0, false),
        ("High", 40, 1920, 1080, Some(2), 30.0, true),
        ("High", 31, 854, 480, Some(0), 29.97, false),
        ("High", 30, 720, 576, Some(2), 25.0, true),
        ("High 4:4:4 Predictive", 13, 320, 240, Some(2), 25.0, true),
        ("High", 32, 1280, 720, Some(2), 50.0, true),
        ("High 10", 13, 320, 240, Some(2), 25.0, true),
        ("High", 13, 320, 240, Some(2), 25.0, true),
        ("High 4:2:2", 13, 320, 240, Some(2), 25.0, true),
        ("Main", 13, 318, 238, Some(0), 25.0, false),
    ];
    for (text, (profile, level, width, height, reorder, rate, may_reorder)) in
        ALL.into_iter().zip(expected)
    {
        let info = info(text);
        assert_eq!(info.profile_name(), profile, "{text}");
        assert_eq!(info.level_idc, level, "{text}");
        assert_eq!((info.width, info.height), (width, height), "{text}");
        assert_eq!(info.max_num_reorder_frames, reorder, "{text}");
        assert_eq!(info.may_reorder(), may_reorder, "{text}");
        let hz = info.frame_rate.expect("x264 writes it").hz();
        assert!((hz - rate).abs() < 0.01, "{text}: {hz}");
    }
    let open = info(OPENH264);
    assert_eq!((open.width, open.height, open.frame_rate), (640, 360, None));
    assert!(!open.may_reorder());
    assert_eq!(info(BASELINE).profile_level_id(), [0x42, 0xc0, 0x1e]);
    assert!(!info(HIGH_INTERLACED).frame_mbs_only);
    assert_eq!(info(HIGH_444).chroma_format_idc, 3);
    assert_eq!(info(HIGH_422).chroma_format_idc, 2);
    assert_eq!(info(HIGH_GRAY).chroma_format_idc, 0);
    let ten = info(HIGH_10);
    assert_eq!((ten.bit_depth_luma, ten.bit_depth_chroma), (10, 10));
}

#[test]
fn an_sps_without_vui_may_reorder_unless_its_order_says_no() {
    // Main, level 3.0, id 0, log2_max_frame_num 4, pic_order_cnt_type 0 with 4 bits, 1 reference,
    // no gaps, 1x1 macroblocks, frames, direct 8x8, no cropping, no VUI: 1 1 1 1 010 0 1 1 1 1 0 0
    // then the stop bit.
    let sps = hex("67 4d 00 1e f4 f2");
    let info = SpsInfo::decode(&sps).expect("whole");
    assert_eq!((info.width, info.height), (16, 16));
    assert_eq!(info.max_num_reorder_frames, None);
    assert_eq!(info.frame_rate, None);
    assert!(info.may_reorder());
    // pic_order_cnt_type 2: 1 1 011 010 0 1 1 1 1 0 0 1.
    let sps = hex("67 4d 00 1e da 79");
    let info = SpsInfo::decode(&sps).expect("whole");
    assert_eq!(info.pic_order_cnt_type, 2);
    assert!(!info.may_reorder());
    // The same as Baseline with type 0: Baseline has no B slices.
    assert!(
        !SpsInfo::decode(&hex("67 42 00 1e f4 f2"))
            .expect("whole")
            .may_reorder()
    );
}

#[test]
fn scaling_lists_are_passed_over() {
    // High, id 0, 4:2:0 (010), 8 bits (1 1), no bypass (0), matrix present (1), list 0 present with
    // delta_scale -8 first, which ends it (1, se 00010001), list 1 present with 16 deltas of 0 (1,
    // sixteen ones), lists 2 to 5 absent (0000), lists 6 and 7 absent (00); then as the Main SPS
    // above.
    let bits = "1 010 1 1 0 1 1 000010001 1 1111111111111111 0000 00 1 1 1 010 0 1 1 1 1 0 0 1";
    let mut bits: Vec<u8> = bits
        .bytes()
        .filter(u8::is_ascii_digit)
        .map(|b| b - b'0')
        .collect();
    bits.resize(bits.len().next_multiple_of(8), 0);
    let mut sps = hex("67 64 00 1e");
    sps.extend(
        bits.chunks(8)
            .map(|byte| byte.iter().fold(0, |value, bit| value << 1 | bit)),
    );
    let info = SpsInfo::decode(&sps).expect("whole");
    assert_eq!((info.width, info.height), (16, 16));
    assert_eq!(info.max_num_ref_frames, 1);
}

#[test]
fn impossible_sps_are_refused() {
    assert_eq!(SpsInfo::decode(&[]), Err(H264Error::Truncated));
    assert_eq!(
        SpsInfo::decode(&hex(PPS)),
        Err(H264Error::WrongNalType {
            wanted: 7,
            found: 8
        })
    );
    let mut forbidden = hex(BASELINE);
    forbidden[0] |= 0x80;
    assert_eq!(SpsInfo::decode(&forbidden), Err(H264Error::ForbiddenBit));
    let mut long = hex(BASELINE);
    long.resize(PARAMETER_SET_BYTES_MAX, 0);
    assert!(SpsInfo::decode(&long).is_ok());
    long.push(0);
    assert_eq!(
        SpsInfo::decode(&long),
        Err(H264Error::ParameterSetTooLarge(PARAMETER_SET_BYTES_MAX + 1))
    );
}

#[test]
fn damaged_sps_are_answered() {
    for text in ALL {
        let whole = hex(text);
        for len in 0..whole.len() {
            if let Ok(info) = SpsInfo::decode(&whole[..len]) {
                assert!(info.width > 0 && info.width <= PICTURE_SIDE_MAX);
            }
        }
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            if let Ok(info) = SpsInfo::decode(&damaged) {
                assert!(info.width > 0 && info.width <= PICTURE_SIDE_MAX);
                assert!(info.height > 0 && info.height <= PICTURE_SIDE_MAX);
                let _ = (info.may_reorder(), info.profile_name());
            }
        }
    }
}

#[test]
fn an_sps_for_output_at_once_says_so_and_nothing_else_is_changed() {
    for text in ALL.into_iter().chain([OPENH264]) {
        let rewritten = for_output_at_once(&hex(text)).expect("rewritten");
        let now = SpsInfo::decode(&rewritten).expect("an SPS");
        assert!(!now.may_reorder(), "{text}");
        let mut before = info(text);
        before.max_num_reorder_frames = Some(0);
        assert_eq!(now, before);
        // Once is enough.
        assert_eq!(for_output_at_once(&rewritten).as_deref(), Ok(&*rewritten));
        assert!(
            !rewritten
                .windows(3)
                .any(|bytes| bytes[..2] == [0, 0] && bytes[2] < 3)
        );
    }
    assert!(for_output_at_once(&hex(PPS)).is_err());
    assert!(for_output_at_once(&[]).is_err());
    let whole = hex(HIGH_1080_B);
    for length in 0..whole.len() {
        let _ = for_output_at_once(&whole[..length]);
    }
}

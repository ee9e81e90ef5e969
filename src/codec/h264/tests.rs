use super::*;

use bytes::Bytes;

mod sps;

fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).expect("hex"))
        .collect()
}

// Parameter sets of x264 (core 164, ffmpeg 5.1.9): ffmpeg -f lavfi -i testsrc=size=SIZE:rate=RATE
// -frames:v 30 -c:v libx264 OPTIONS -bsf:v h264_mp4toannexb out.h264

/// SIZE 640x360, RATE 25, `-profile:v baseline`.
const BASELINE: &str = "67 42 c0 1e d9 00 a0 2f f9 70 11 00 00 03 00 01 00 00 03 00 32 0f 16 2e 48";
/// SIZE 1920x1080, RATE 30, `-profile:v main -bf 0`.
const MAIN_1080: &str =
    "67 4d 40 28 d9 00 78 02 27 e5 c0 44 00 00 03 00 04 00 00 03 00 f0 3c 60 c9 20";
/// SIZE 1920x1080, RATE 30, `-profile:v high -bf 3`.
const HIGH_1080_B: &str =
    "67 64 00 28 ac d9 40 78 02 27 e5 c0 44 00 00 03 00 04 00 00 03 00 f0 3c 60 c6 58";
/// SIZE 854x480, RATE 30000/1001, `-profile:v high -tune zerolatency`.
const HIGH_480_ZEROLATENCY: &str =
    "67 64 00 1f ac b2 01 b0 7b cd e0 22 00 00 07 d2 00 01 d4 c1 1e 30 64 90";
/// SIZE 720x576, RATE 25, `-profile:v high -flags +ildct+ilme -x264opts tff=1`.
const HIGH_INTERLACED: &str =
    "67 64 00 1e ac d9 40 b4 24 d8 08 80 00 00 03 00 80 00 00 19 0f 8a 14 cb";
/// SIZE 320x240, RATE 25, `-profile:v high444 -pix_fmt yuv444p`.
const HIGH_444: &str = "67 f4 00 0d 91 9b 28 28 3f 60 22 00 00 03 00 02 00 00 03 00 64 1e 28 53 2c";
/// SIZE 1280x720, RATE 50, `-x264-params nal-hrd=cbr -b:v 1M -maxrate 1M -minrate 1M -bufsize 1M`.
const HIGH_HRD: &str = "67 64 00 20 ac d9 40 50 05 bb 01 10 00 00 03 00 10 00 00 06 46 04 00 0f 42 40 01 e8 4e 4d \
     38 07 8c 18 cb";
/// SIZE 320x240, RATE 25, `-profile:v high10 -pix_fmt yuv420p10le`.
const HIGH_10: &str = "67 6e 00 0d a6 cd 94 14 1f b0 11 00 00 03 00 01 00 00 03 00 32 0f 14 29 96";
/// SIZE 320x240, RATE 25, `-pix_fmt gray`.
const HIGH_GRAY: &str =
    "67 64 00 0d f3 65 05 07 ec 05 b2 00 00 03 00 02 00 00 03 00 64 1e 28 53 2c";
/// SIZE 320x240, RATE 25, `-profile:v high422 -pix_fmt yuv422p`.
const HIGH_422: &str = "67 7a 00 0d bc d9 41 41 fb 01 10 00 00 03 00 10 00 00 03 03 20 f1 42 99 60";
/// SIZE 318x238, RATE 25, `-profile:v main -bf 0 -x264-params intra-refresh=1:keyint=20`.
const MAIN_ODD: &str = "67 4d 40 0d a6 81 41 fe ab 01 10 00 00 03 00 10 00 00 03 03 20 f1 42 aa";
/// OpenH264 (GStreamer 1.22): `gst-launch-1.0 videotestsrc ! video/x-raw,width=640,height=360 ! openh264enc`.
const OPENH264: &str = "67 42 c0 1e 8c 8d 40 50 17 fc b0 0f 08 84 6a";
/// The PPS of [`HIGH_1080_B`].
const PPS: &str = "68 eb e3 cb 22 c0";

const ALL: [&str; 11] = [
    BASELINE,
    MAIN_1080,
    HIGH_1080_B,
    HIGH_480_ZEROLATENCY,
    HIGH_INTERLACED,
    HIGH_444,
    HIGH_HRD,
    HIGH_10,
    HIGH_GRAY,
    HIGH_422,
    MAIN_ODD,
];

fn info(text: &str) -> SpsInfo {
    SpsInfo::decode(&hex(text)).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// A record around the given sets, with the given reserved bits and tail.
fn record(
    sps: &[&str],
    pps: &[&str],
    length_size_byte: u8,
    sps_reserved: u8,
    tail: &str,
) -> Vec<u8> {
    let mut out = vec![1];
    out.extend(
        sps.first()
            .map_or(vec![0x64, 0, 0x1f], |sps| hex(sps)[1..4].to_vec()),
    );
    out.push(length_size_byte);
    out.push(sps_reserved | sps.len() as u8);
    for set in sps {
        let set = hex(set);
        out.extend((set.len() as u16).to_be_bytes());
        out.extend(set);
    }
    out.push(pps.len() as u8);
    for set in pps {
        let set = hex(set);
        out.extend((set.len() as u16).to_be_bytes());
        out.extend(set);
    }
    out.extend(hex(tail));
    out
}

#[test]
fn a_record_comes_back_as_it_went() {
    for sps in ALL {
        let config = AvcConfig::from_parameter_sets(vec![hex(sps).into()], vec![hex(PPS).into()])
            .expect("whole");
        let (again, length_size) = AvcConfig::decode(&config.encode()).expect("whole");
        assert_eq!((again, length_size), (config, 4));
    }
    // What ffmpeg writes for High: reserved bits 1, the tail at the end.
    let ours = AvcConfig::from_parameter_sets(vec![hex(HIGH_1080_B).into()], vec![hex(PPS).into()]);
    assert_eq!(
        ours.expect("whole").encode().as_ref(),
        record(&[HIGH_1080_B], &[PPS], 0xff, 0xe0, "fd f8 f8 00")
    );
    // And for Baseline: no tail.
    let ours = AvcConfig::from_parameter_sets(vec![hex(BASELINE).into()], vec![hex(PPS).into()]);
    assert_eq!(
        ours.expect("whole").encode().as_ref(),
        record(&[BASELINE], &[PPS], 0xff, 0xe0, "")
    );
}

#[test]
fn sets_that_come_in_band_change_the_configuration_only_where_they_differ() {
    let set = |text: &str| vec![Bytes::from(hex(text))];
    let config = AvcConfig::from_parameter_sets(set(MAIN_1080), set(PPS)).expect("whole");
    assert_eq!(config.updated(&[], &[]), Ok(None));
    assert_eq!(config.updated(&set(MAIN_1080), &set(PPS)), Ok(None));
    let smaller = config
        .updated(&set(BASELINE), &[])
        .expect("whole")
        .expect("another SPS");
    assert_eq!((smaller.info().width, smaller.pps()), (640, config.pps()));
    let other = config
        .updated(&[], &set("68 cb 83 cb 20"))
        .expect("whole")
        .expect("another PPS");
    assert_eq!(
        (other.sps(), other.pps()),
        (config.sps(), &set("68 cb 83 cb 20")[..])
    );
    assert!(config.updated(&set(PPS), &[]).is_err());
}

/// CASES 26: the length size is what the record says.
#[test]
fn case_26_length_sizes_split_right() {
    for (minus1, size) in [(0u8, 1u8), (1, 2), (2, 3), (3, 4)] {
        let bytes = record(&[BASELINE], &[PPS], 0xfc | minus1, 0xe0, "");
        let (_, length_size) = AvcConfig::decode(&bytes).expect("whole");
        assert_eq!(length_size, size);
        let mut payload = Vec::new();
        let nals: [&[u8]; 3] = [
            &[0x06, 5, 0, 0x80],
            &[0x65, 0x88, 1, 2, 3],
            &[0x65, 0x20, 9],
        ];
        for nal in nals {
            payload.extend(&(nal.len() as u32).to_be_bytes()[4 - usize::from(size)..]);
            payload.extend(nal);
        }
        let split: Result<Vec<&[u8]>, _> = avcc_nal_units(&payload, size).collect();
        assert_eq!(split.expect("whole"), nals);
        let unit = AccessUnit::from_avcc(&payload.into(), size).expect("whole");
        assert_eq!(
            unit.payload.as_ref(),
            hex("00 00 00 04 06 05 00 80 00 00 00 05 65 88 01 02 03 00 00 00 03 65 20 09")
        );
        assert_eq!((unit.idr, unit.vcl_count), (true, 2));
    }
    let mut walk = avcc_nal_units(&[1, 2], 5);
    assert_eq!(walk.next(), Some(Err(H264Error::LengthSize(5))));
    assert_eq!(walk.next(), None);
}

/// CASES 27: records as careless encoders write them.
#[test]
fn case_27_unusual_records_are_read_or_refused_by_name() {
    // Several sets.
    let several = record(
        &[HIGH_1080_B, BASELINE],
        &[PPS, "68 cb 83 cb 20"],
        0xff,
        0xe0,
        "",
    );
    let (config, _) = AvcConfig::decode(&several).expect("several sets");
    assert_eq!((config.sps().len(), config.pps().len()), (2, 2));
    assert_eq!(config.info().width, 1920);
    // Reserved bits 0 (SRS #3551), the tail missing or longer than it should be.
    for tail in ["", "fd", "fd f8 f8 00", "fd f8 f8 00 00 01 02 03"] {
        let bytes = record(&[HIGH_1080_B], &[PPS], 0x03, 0x00, tail);
        let (config, length_size) = AvcConfig::decode(&bytes).expect(tail);
        assert_eq!((config.info().height, length_size), (1080, 4));
        assert_eq!(config.pps(), [Bytes::from(hex(PPS))]);
    }
    // An SPS longer than 255 bytes.
    let mut long = hex(HIGH_1080_B);
    long.resize(300, 0x11);
    let bytes = {
        let text: Vec<String> = long.iter().map(|byte| format!("{byte:02x}")).collect();
        record(&[&text.join(" ")], &[PPS], 0xff, 0xe0, "")
    };
    assert_eq!(
        AvcConfig::decode(&bytes).expect("whole").0.sps()[0].len(),
        300
    );
    // The sets come in-band only: the length size is known all the same.
    for bytes in [
        record(&[], &[], 0xfd, 0xe0, ""),
        record(&[BASELINE], &[], 0xfd, 0xe0, ""),
    ] {
        let error = AvcConfig::decode(&bytes).expect_err("no sets");
        assert_eq!(error, H264Error::NoParameterSets { length_size: 2 });
        assert_eq!(error.reason(), "h264_no_parameter_sets");
    }
    // Annex B in place of the record.
    let mut stream = hex("00 00 00 01");
    stream.extend(hex(BASELINE));
    stream.extend(hex("00 00 01"));
    stream.extend(hex(PPS));
    let (config, length_size) = AvcConfig::decode(&stream).expect("Annex B");
    assert_eq!((config.info().width, length_size), (640, 4));
    assert_eq!(config.sps(), [Bytes::from(hex(BASELINE))]);
    // Neither.
    assert_eq!(
        AvcConfig::decode(&[2, 0, 0, 0, 0, 0]),
        Err(H264Error::RecordVersion(2))
    );
    assert_eq!(AvcConfig::decode(&[]), Err(H264Error::Truncated));
    let swapped = record(&[PPS], &[BASELINE], 0xff, 0xe0, "");
    assert_eq!(
        AvcConfig::decode(&swapped),
        Err(H264Error::WrongNalType {
            wanted: 7,
            found: 8
        })
    );
}

/// CASES 27: a byte stream of Annex B as the payload of an RTMP message.
#[test]
fn case_27_annex_b_in_rtmp_is_recognised() {
    let stream = hex("00 00 00 01 09 f0 00 00 01 65 88 01 02 00 00 00 01 65 20 03 00 00");
    assert!(is_annex_b(&stream));
    let unit = AccessUnit::from_avcc(&stream.into(), 4).expect("Annex B");
    assert_eq!(
        unit.payload.as_ref(),
        hex("00 00 00 04 65 88 01 02 00 00 00 03 65 20 03")
    );
    assert!(unit.idr);
    // AVCC whose first length looks like a start code: 0x1a3 bytes.
    let mut avcc = hex("00 00 01 a3 65 88");
    avcc.resize(4 + 0x1a3, 7);
    assert!(!is_annex_b(&avcc));
    let unit = AccessUnit::from_avcc(&avcc.clone().into(), 4).expect("AVCC");
    assert_eq!(unit.payload.as_ref(), avcc);
    // A NAL unit of one byte, as an end of sequence is.
    assert!(!is_annex_b(&hex("00 00 00 01 0a")));
    assert!(!is_annex_b(&[]));
    assert!(!is_annex_b(&hex("00 00 00 05 65 01 02 03 04")));
}

#[test]
fn annex_b_is_walked_by_its_start_codes() {
    let nals = |text: &str| -> Vec<Vec<u8>> {
        annex_b_nal_units(&hex(text)).map(<[u8]>::to_vec).collect()
    };
    assert_eq!(nals("00 00 01 65 aa"), [hex("65 aa")]);
    assert_eq!(
        nals("00 00 00 00 01 65 aa 00 00 00 00 01 41 00 bb"),
        [hex("65 aa"), hex("41 00 bb")]
    );
    assert_eq!(nals("ff ff 00 00 01 00 00 01 65 00 00"), [hex("65")]);
    assert!(nals("").is_empty());
    assert!(nals("00 00 01").is_empty());
    assert!(nals("65 88 00 00").is_empty());
}

#[test]
fn what_surrounds_the_slices_goes_without_a_copy() {
    // Delimiter, SPS, PPS, SEI, then two slices, then filler and end of sequence.
    let mut payload = hex("00 00 00 02 09 10 00 00 00 19");
    payload.extend(hex(BASELINE));
    payload.extend(hex("00 00 00 06"));
    payload.extend(hex(PPS));
    let slices = payload.len();
    payload.extend(hex("00 00 00 05 06 06 01 c4 80"));
    payload.extend(hex("00 00 00 04 41 9a 01 02 00 00 00 03 41 60 03"));
    let end = payload.len();
    payload.extend(hex("00 00 00 02 0c ff 00 00 00 01 0a"));
    let payload = Bytes::from(payload);
    let unit = AccessUnit::from_avcc(&payload, 4).expect("whole");
    assert_eq!(unit.payload, payload.slice(slices..end));
    assert_eq!(
        unit.payload.as_ptr(),
        payload[slices..].as_ptr(),
        "not copied"
    );
    assert_eq!(unit.sps, [Bytes::from(hex(BASELINE))]);
    assert_eq!(unit.pps, [Bytes::from(hex(PPS))]);
    assert!(unit.recovery_point && !unit.idr && !unit.disposable && !unit.has_b_slices);
    assert_eq!(unit.vcl_count, 2);
    // Something in the middle costs a copy and nothing else.
    let middle = Bytes::from(hex(
        "00 00 00 03 41 9a 01 00 00 00 02 0c ff 00 00 00 03 41 60 03",
    ));
    let unit = AccessUnit::from_avcc(&middle, 4).expect("whole");
    assert_eq!(
        unit.payload.as_ref(),
        hex("00 00 00 03 41 9a 01 00 00 00 03 41 60 03")
    );
}

#[test]
fn the_end_of_an_ffmpeg_stream_is_no_picture() {
    // ffmpeg ends with `17 02 00 00 00`: a key frame by its flag and no NAL unit.
    for unit in [
        AccessUnit::from_avcc(&Bytes::new(), 4),
        AccessUnit::from_avcc(&hex("00 00 00 00").into(), 4),
        AccessUnit::from_nal_units(std::iter::empty()),
    ] {
        let unit = unit.expect("empty");
        assert!(!unit.idr && !unit.disposable && !unit.has_picture());
        assert!(unit.payload.is_empty());
    }
}

/// CASES 43, the codec's part: parameter sets alone make no key frame.
#[test]
fn case_43_parameter_sets_are_no_key_frame() {
    let (sps, pps) = (hex(BASELINE), hex(PPS));
    let unit = AccessUnit::from_nal_units([&sps[..], &pps, &sps].into_iter()).expect("whole");
    assert!(!unit.idr && !unit.has_picture());
    assert_eq!((unit.sps.len(), unit.pps.len()), (1, 1));
    let p: &[u8] = &[0x41, 0x9a, 0x02];
    let unit = AccessUnit::from_nal_units([&sps[..], &pps, p].into_iter()).expect("whole");
    assert!(!unit.idr && unit.has_picture());
}

#[test]
fn slices_say_whether_they_are_b_and_disposable() {
    // first_mb_in_slice 0 (1), slice_type 1 (010) or 6 (00111): B; 0 (1) and 5 (00110): P.
    let of = |nals: &[&[u8]]| AccessUnit::from_nal_units(nals.iter().copied()).expect("whole");
    assert!(of(&[&[0x01, 0b1010_0000, 0]]).has_b_slices);
    assert!(of(&[&[0x01, 0b1001_1100, 0]]).has_b_slices);
    assert!(!of(&[&[0x01, 0b1100_0000, 0]]).has_b_slices);
    assert!(!of(&[&[0x01, 0b1001_1000, 0]]).has_b_slices);
    // x264 zerolatency: three IDR slices, first_mb 0, then larger.
    let idr = of(&[
        &[0x65, 0x88, 0x84],
        &[0x65, 0x01, 0x48],
        &[0x65, 0x00, 0xa2],
    ]);
    assert_eq!((idr.idr, idr.vcl_count, idr.disposable), (true, 3, false));
    // nal_ref_idc 0 in all slices, or not in all.
    assert!(of(&[&[0x01, 0xa0, 0], &[0x01, 0x20, 0]]).disposable);
    assert!(!of(&[&[0x01, 0xa0, 0], &[0x41, 0x20, 0]]).disposable);
    assert!(!of(&[&[0x41, 0xa0, 0], &[0x01, 0x20, 0]]).disposable);
    // A slice without a header is kept and says nothing.
    assert!(!of(&[&[0x41]]).has_b_slices);
}

#[test]
fn sei_messages_are_walked_to_the_recovery_point() {
    let of = |nal: &[u8]| AccessUnit::from_nal_units(std::iter::once(nal)).expect("whole");
    // Buffering period of 2 bytes, then recovery point.
    assert!(of(&hex("06 00 02 aa bb 06 01 c4 80")).recovery_point);
    // User data of 3 bytes whose content looks like one.
    assert!(!of(&hex("06 05 03 06 01 c4 80")).recovery_point);
    // A size of 255 + 5 that is not there.
    assert!(!of(&hex("06 05 ff 05 06 01 c4 80")).recovery_point);
    assert!(!of(&hex("06")).recovery_point);
}

#[test]
fn types_that_mean_something_else_in_rtp_are_left_out() {
    let unit = AccessUnit::from_nal_units(
        (0u8..32)
            .map(|kind| [[0x60 | kind, 0x88, 1]])
            .collect::<Vec<_>>()
            .iter()
            .map(|n| &n[0][..]),
    )
    .expect("whole");
    assert_eq!(unit.vcl_count, 5);
    let kept: Vec<u8> = avcc_nal_units(&unit.payload, 4)
        .map(|nal| nal_unit_type(nal.expect("whole")[0]))
        .collect();
    assert_eq!(kept, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn limits_of_an_access_unit_are_exact() {
    let slice: &[u8] = &[0x41, 0x9a];
    let many = |count| AccessUnit::from_nal_units(std::iter::repeat_n(slice, count));
    assert_eq!(many(NAL_UNITS_MAX).map(|unit| unit.vcl_count), Ok(4096));
    assert_eq!(many(NAL_UNITS_MAX + 1), Err(H264Error::TooManyNalUnits));
    let mut large = vec![0x41; ACCESS_UNIT_BYTES_MAX - 4];
    assert!(AccessUnit::from_nal_units(std::iter::once(&large[..])).is_ok());
    large.push(0);
    assert_eq!(
        AccessUnit::from_nal_units(std::iter::once(&large[..])),
        Err(H264Error::AccessUnitTooLarge(ACCESS_UNIT_BYTES_MAX + 1))
    );
}

#[test]
fn fragments_make_the_same_unit_as_whole_nal_units() {
    let nal = hex("65 88 84 00 10 ff");
    let mut builder = AccessUnitBuilder::with_capacity(64);
    assert_eq!(builder.extend(&[1]), Err(H264Error::Truncated));
    assert_eq!(builder.end(), Err(H264Error::Truncated));
    builder.begin(0x41);
    builder.extend(&[1, 2, 3]).expect("open");
    // The end never came: the next one begins.
    builder.begin(0x65);
    assert_eq!(builder.open_header(), Some(0x65));
    builder.extend(&nal[1..3]).expect("open");
    builder.extend(&nal[3..]).expect("open");
    builder.end().expect("open");
    // A filler in fragments leaves nothing.
    builder.begin(0x0c);
    builder.extend(&[0xff; 9]).expect("open");
    builder.end().expect("open");
    let whole = AccessUnit::from_nal_units(std::iter::once(&nal[..]));
    assert_eq!(builder.finish(), whole);
    let mut builder = AccessUnitBuilder::default();
    builder.begin(0x65);
    assert_eq!(builder.finish(), Err(H264Error::Truncated));
}

#[test]
fn damaged_records_and_payloads_are_answered() {
    let whole = record(&[HIGH_1080_B, BASELINE], &[PPS], 0xff, 0xe0, "fd f8 f8 00");
    let mut payload = hex("00 00 00 02 09 10 00 00 00 05 06 06 01 c4 80");
    payload.extend(hex("00 00 00 04 65 88 01 02 00 00 00 03 65 60 03"));
    let feed = |bytes: &[u8]| {
        let _ = AvcConfig::decode(bytes);
        for length_size in 0..6 {
            let _ = AccessUnit::from_avcc(&Bytes::copy_from_slice(bytes), length_size);
        }
        let _ = AccessUnit::from_annex_b(&Bytes::copy_from_slice(bytes));
    };
    for bytes in [&whole, &payload] {
        for len in 0..bytes.len() {
            feed(&bytes[..len]);
        }
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            feed(&damaged);
        }
    }
}

/// What a stream of an FLV file without pyramid and with one says of its P pictures.
#[test]
fn case_31_references_to_b_pictures_are_seen_in_slice_headers() {
    let files: [(&[u8], bool); 3] = [
        (
            include_bytes!("../../../tests/fixtures/flv/small.flv"),
            false,
        ),
        (
            include_bytes!("../../../tests/fixtures/flv/b_frames.flv"),
            false,
        ),
        (
            include_bytes!("../../../tests/fixtures/flv/b_pyramid.flv"),
            true,
        ),
    ];
    for (file, needs_b) in files {
        let mut references = None;
        let mut seen = Vec::new();
        // FLV: 9 bytes and the size of no tag; then tags of 11 bytes, a body, and 4 bytes.
        let mut at = 13;
        while let Some(head) = file.get(at..at + 11) {
            let size = u32::from_be_bytes([0, head[1], head[2], head[3]]) as usize;
            let body = &file[at + 11..at + 11 + size];
            at += 11 + size + 4;
            match body {
                [_, 0, _, _, _, record @ ..] if head[0] == 9 => {
                    let (config, _) = AvcConfig::decode(record).expect("a record");
                    references = Some(References::new(&config));
                }
                [_, 1, _, _, _, unit @ ..] if head[0] == 9 => {
                    let unit = Bytes::copy_from_slice(unit);
                    let unit = AccessUnit::from_avcc(&unit, 4).expect("a picture");
                    let references = references.as_mut().expect("a record came first");
                    let anchor = references.picture(&unit.payload, unit.has_b_slices);
                    if !unit.has_b_slices {
                        seen.push(anchor);
                    }
                }
                _ => {}
            }
        }
        assert!(seen.len() >= 12, "{}", seen.len());
        assert_eq!(seen.contains(&Anchor::NeedsB), needs_b, "{seen:?}");
        assert_eq!(seen[0], Anchor::Independent);
    }
}

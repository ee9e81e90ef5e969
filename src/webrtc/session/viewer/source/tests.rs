use dimpl::{KeyingMaterial, SrtpProfile};

use super::*;
use crate::webrtc::session::viewer::srtp;

const LIMITS: HistoryLimits = HistoryLimits {
    packets: 100,
    duration: Duration::from_secs(1),
    ratio: Some(0.1),
};

fn sealer() -> Sealer {
    let material: Vec<u8> = (0..88).collect();
    let material = KeyingMaterial::new(&material);
    let keys = srtp::contexts(&material, SrtpProfile::AEAD_AES_256_GCM, false);
    keys.unwrap().0
}

fn source(limits: HistoryLimits, now: Instant) -> Source {
    let media = Media {
        kind: TrackKind::Video,
        mid: "0".into(),
        pt: 96,
        rtx_pt: Some(97),
        refused_pts: Vec::new(),
        fmtp: String::new(),
        feedback: Vec::new(),
        extensions: Vec::new(),
        nack: false,
        remote_ssrc: None,
    };
    let mut source = Source::new(&media, [7, 8], 0, limits, now);
    source.set_start(StreamStart {
        sequence: 65_000,
        rtp_time: 0,
    });
    source
}

fn frame(sizes: &[usize]) -> Vec<Arc<[u8]>> {
    sizes.iter().map(|size| vec![5; *size].into()).collect()
}

/// The trains that a frame of these sizes leaves as: how many datagrams of which size each.
fn trains(
    source: &mut Source,
    now: Instant,
    mid: Option<u8>,
    sizes: &[usize],
) -> Vec<Vec<Vec<u8>>> {
    let mut said = Vec::new();
    source
        .write(now, &sealer(), mid, &frame(sizes), 90, now, true, &mut said)
        .unwrap();
    said.into_iter()
        .map(|said| match said {
            Said::Send { contents, segment } => {
                contents.chunks(segment).map(<[u8]>::to_vec).collect()
            }
            _ => panic!("nothing but datagrams"),
        })
        .collect()
}

fn repeats(source: &mut Source, now: Instant, sequences: impl Iterator<Item = u16>) -> usize {
    let (sealer, mut said) = (sealer(), Vec::new());
    let again_after = Duration::from_millis(20);
    let sent = sequences.filter(|sequence| {
        source
            .repeat(now, &sealer, None, *sequence, again_after, &mut said)
            .unwrap()
    });
    let count = sent.count();
    assert_eq!(said.len(), count);
    count
}

#[test]
fn a_frame_leaves_as_trains_of_equal_datagrams() {
    let now = Instant::now();
    let mut source = source(LIMITS, now);
    // Parameter sets, equal fragments, a shorter one.
    let sent = trains(&mut source, now, None, &[40, 1_000, 1_000, 1_000, 700]);
    let sizes: Vec<Vec<usize>> = sent
        .iter()
        .map(|train| train.iter().map(Vec::len).collect())
        .collect();
    assert_eq!(sizes, [vec![68], vec![1_028, 1_028, 1_028, 728]]);
    let headers: Vec<[u8; 12]> = sent
        .iter()
        .flatten()
        .map(|packet| *packet.first_chunk().unwrap())
        .collect();
    for (n, header) in headers.iter().enumerate() {
        let sequence = 65_000 + n as u16;
        let [high, low] = sequence.to_be_bytes();
        let pt = if n == 4 { 0xe0 } else { 0x60 };
        assert_eq!(*header, [0x80, pt, high, low, 0, 0, 0, 90, 0, 0, 0, 7]);
    }
    assert_eq!(source.report(now), Some((90, 5, 3_740)));
    assert_eq!(
        source.report(now + Duration::from_secs(1)),
        Some((90_090, 5, 3_740))
    );
}

#[test]
fn a_train_is_what_the_kernel_takes_at_once() {
    let counts = |sizes: &[usize]| train_length(&frame(sizes), 28);
    assert_eq!(counts(&[]), 0);
    assert_eq!(counts(&[100]), 1);
    assert_eq!(counts(&[100, 101]), 1);
    assert_eq!(counts(&[100, 99, 100]), 2);
    assert_eq!(counts(&[100; 200]), TRAIN_PACKETS_MAX);
    assert_eq!(counts(&[1_172; 64]), 54);
}

#[test]
fn a_mid_is_told_until_the_viewer_has_reported() {
    let now = Instant::now();
    let mut source = source(LIMITS, now);
    let sent = trains(&mut source, now, Some(4), &[100]);
    assert_eq!(sent[0][0][0], 0x90);
    assert_eq!(sent[0][0][12..20], [0xbe, 0xde, 0, 1, 0x40, b'0', 0, 0]);
    source.note_report();
    let sent = trains(&mut source, now, Some(4), &[100]);
    assert_eq!((sent[0][0][0], sent[0][0].len()), (0x80, 128));
}

#[test]
fn lost_packets_are_repeated_across_the_wrap_of_their_numbers() {
    let now = Instant::now();
    let mut source = source(LIMITS, now);
    for _ in 0..6 {
        trains(&mut source, now, None, &[100; 100]);
    }
    // 65,000 to 65,599: the last 100 are 65,500 to 65,535 and 0 to 63.
    assert_eq!(repeats(&mut source, now, [65_499, 64].into_iter()), 0);
    assert_eq!(repeats(&mut source, now, 65_500..=65_535), 36);
    assert_eq!(repeats(&mut source, now, 0..64), 64);
    // One that asks again within the round trip has not seen the answer yet.
    let soon = now + Duration::from_millis(19);
    assert_eq!(repeats(&mut source, soon, 0..64), 0);
    let later = now + Duration::from_millis(21);
    assert_eq!(repeats(&mut source, later, 0..64), 64);
    let much_later = now + Duration::from_millis(1_002);
    assert_eq!(repeats(&mut source, much_later, 0..64), 0);
}

#[test]
fn a_repetition_is_the_packet_in_a_stream_of_its_own() {
    let now = Instant::now();
    let mut source = source(LIMITS, now);
    trains(&mut source, now, None, &[100, 100]);
    let mut said = Vec::new();
    let again = Duration::ZERO;
    source
        .repeat(now, &sealer(), None, 65_001, again, &mut said)
        .unwrap();
    let Some(Said::Send { contents, .. }) = said.pop() else {
        panic!("nothing was sent");
    };
    // The marker and the time are the packet's, number and SSRC are not; two bytes more.
    assert_eq!(contents[..2], [0x80, 0xe1]);
    assert_eq!(contents[4..12], [0, 0, 0, 90, 0, 0, 0, 8]);
    assert_eq!(contents.len(), 12 + 2 + 100 + 16);
    // Nothing of it counts as sent by the stream itself.
    assert_eq!(source.report(now), Some((90, 2, 200)));
}

#[test]
fn a_storm_of_requests_gets_its_share_and_no_more() {
    let begin = Instant::now();
    let mut source = source(LIMITS, begin);
    let mut bytes = 0;
    // Ten seconds of 100 kB/s, each packet of which is asked for ten times.
    for turn in 0..100 {
        let now = begin + Duration::from_millis(100 * turn);
        trains(&mut source, now, None, &[1_000; 10]);
        for ask in 0..10 {
            let now = now + Duration::from_millis(1 + 9 * ask);
            let newest = 65_000_u16.wrapping_add(10 * turn as u16 + 9);
            let asked = (0..100).map(|back| newest.wrapping_sub(back));
            bytes += 1_000 * repeats(&mut source, now, asked);
        }
    }
    let share = 1_000_000.0 * 0.1 + REPEAT_BURST;
    assert!(bytes as f32 <= share, "{bytes} of {share}");
    assert!(bytes as f32 > share - 2_000.0, "{bytes} of {share}");
}

#[test]
fn what_is_kept_is_bounded_and_nothing_is_kept_for_who_cannot_ask() {
    let now = Instant::now();
    let mut one = source(LIMITS, now);
    for _ in 0..50 {
        trains(&mut one, now, None, &[100; 10]);
    }
    assert_eq!(one.history.sent.len(), 100);
    trains(&mut one, now + Duration::from_secs(2), None, &[100]);
    assert_eq!(one.history.sent.len(), 1);
    let mut other = source(LIMITS, now);
    other.repeats = None;
    other.history.limits.packets = 0;
    trains(&mut other, now, None, &[100; 10]);
    assert_eq!(other.history.sent.len(), 0);
    assert_eq!(repeats(&mut other, now, 65_000..65_010), 0);
}

/// CASES 38: with the defaults of `gateway.toml` each packet of a key frame of 300 kB can be
/// repeated for a second, while the stream goes on.
#[test]
fn case_38_any_packet_of_a_large_key_frame_is_repeated_for_a_second() {
    let limits = HistoryLimits {
        packets: 1_000,
        duration: Duration::from_secs(1),
        ratio: Some(0.3),
    };
    let payload = 1_160;
    let packets = 300_000_usize.div_ceil(payload);
    for lost in 0..packets as u16 {
        let begin = Instant::now();
        let mut source = source(limits, begin);
        trains(&mut source, begin, None, &vec![payload; packets]);
        // 5 Mbit/s.
        for n in 1..=24 {
            let now = begin + Duration::from_millis(40 * n);
            trains(&mut source, now, None, &[payload; 21]);
        }
        let now = begin + Duration::from_millis(990);
        let asked = 65_000_u16.wrapping_add(lost);
        assert_eq!(
            repeats(&mut source, now, [asked].into_iter()),
            1,
            "packet {lost}"
        );
    }
}

//! Opus to AAC.

use bytes::Bytes;

use super::*;
use crate::transcode::testing::{
    OPUS_DELAY, amplitude, click, click_position, loudness_db, opus_packets, tone,
};

const START: MediaTime = MediaTime::from_ticks(987_654_321);

/// Samples by which AAC is later than its access units.
const AAC_DELAY: i64 = 2_048;

fn samples(count: i64) -> MediaTime {
    MediaTime::from_units(count, 48_000)
}

fn feed(rig: &mut Rig, n: usize, packet: &Bytes) -> Completed {
    let duration = opus::packet::get_nb_samples(packet, 48_000).unwrap();
    let pts = START + samples((n * duration) as i64);
    rig.feed(Codec::Opus, pts, packet.clone())
}

/// Time at which the `n`th sample of what [`opus_packets`] encoded is heard.
fn heard_at(n: i64) -> MediaTime {
    START + samples(n + OPUS_DELAY)
}

/// Checks that the output is as long as `duration` of input, to the frame.
fn assert_length(rig: &Rig, duration: i64) {
    rig.assert_gapless();
    assert_eq!(rig.start(), START - samples(AAC_DELAY));
    assert_eq!(rig.frames.len() as i64, duration / 1_024);
}

#[test]
fn packets_of_every_length_keep_time_pitch_and_loudness() {
    for length in [120, 240, 480, 960, 1_920, 2_880, 5_760] {
        for channels in [1, 2] {
            let sound = tone(1_000.0, 48_000, channels, 3 * 48_000);
            let packets = opus_packets(channels, length, &sound);
            let mut rig = Rig::open(opus_to_aac(channels as u8));
            for (n, packet) in packets.iter().enumerate() {
                feed(&mut rig, n, packet);
            }
            assert_length(&rig, (packets.len() * length) as i64);
            let heard = rig.heard_between(channels, 0, heard_at(48_000), heard_at(96_000));
            let pitch = amplitude(&heard, 1_000.0, 48_000);
            assert!((pitch - 0.5).abs() < 0.017, "{length}: {pitch}");
            let change = loudness_db(&heard) - loudness_db(&sound);
            assert!(change.abs() < 0.3, "{length} {channels}: {change} dB");
            assert_eq!(
                rig.totals.errors + rig.totals.concealed + rig.totals.late,
                0
            );
        }
    }
}

#[test]
fn a_click_is_heard_at_its_time() {
    let packets = opus_packets(1, 960, &click(96_000, 48_000));
    let mut rig = Rig::open(opus_to_aac(1));
    for (n, packet) in packets.iter().enumerate() {
        feed(&mut rig, n, packet);
    }
    let from = heard_at(48_000 - 9_600);
    let heard = rig.heard_between(1, 0, from, heard_at(48_000 + 9_600));
    let error = click_position(&heard) as i64 - 9_600;
    assert!(error.abs() <= 48, "{error} samples");
}

#[test]
fn timestamps_rounded_for_rtmp_step_by_21_and_22_ms() {
    let packets = opus_packets(1, 960, &tone(300.0, 48_000, 1, 48_000));
    let mut rig = Rig::open(opus_to_aac(1));
    for n in 0..600 * 50 {
        feed(&mut rig, n, &packets[n % packets.len()]);
    }
    assert_length(&rig, 600 * 48_000);
    let millis: Vec<i64> = rig
        .frames
        .iter()
        .map(|frame| frame.pts.as_millis_rounded())
        .collect();
    for three in millis.windows(4) {
        assert_eq!(three[3] - three[0], 64);
        assert!(
            three
                .windows(2)
                .all(|pair| (21..=22).contains(&(pair[1] - pair[0])))
        );
    }
}

#[test]
fn mono_and_stereo_packets_may_alternate() {
    let mono = opus_packets(1, 960, &tone(1_000.0, 48_000, 1, 4 * 48_000));
    let stereo = opus_packets(2, 960, &tone(1_000.0, 48_000, 2, 4 * 48_000));
    for channels in [1, 2] {
        let mut rig = Rig::open(opus_to_aac(channels as u8));
        for n in 0..mono.len() {
            let source = if n / 40 % 2 == 0 { &mono } else { &stereo };
            feed(&mut rig, n, &source[n]);
        }
        assert_length(&rig, mono.len() as i64 * 960);
        for channel in 0..channels {
            let heard = rig.heard_between(channels, channel, heard_at(48_000), heard_at(144_000));
            let change = loudness_db(&heard) + 9.03;
            assert!(change.abs() < 0.3, "{channels}: {change} dB");
        }
    }
}

#[test]
fn one_byte_packets_and_garbage_keep_the_count() {
    let packets = opus_packets(1, 960, &tone(440.0, 48_000, 1, 2 * 48_000));
    let mut rig = Rig::open(opus_to_aac(1));
    let mut bad = 0;
    for (n, packet) in packets.iter().enumerate() {
        let pts = START + samples(n as i64 * 960);
        let payload = match n % 10 {
            // CELT, 20 ms, nothing inside: DTX.
            3 => Bytes::from_static(&[0xf8]),
            // Code 3 without its count of frames.
            5 => Bytes::from_static(&[0xfb]),
            // Code 3 with 63 frames.
            7 => Bytes::from_static(&[0xfb, 0x3f, 1, 2, 3]),
            8 => {
                let mut packet = packet.to_vec();
                packet.iter_mut().skip(1).for_each(|byte| *byte ^= 0xa5);
                packet.into()
            }
            _ => packet.clone(),
        };
        bad += u32::from(n % 10 == 5 || n % 10 == 7);
        rig.feed(Codec::Opus, pts, payload);
    }
    assert_length(&rig, packets.len() as i64 * 960);
    assert_eq!(rig.totals.errors, bad);
    assert_eq!(rig.totals.concealed, bad * 960);
}

#[test]
fn five_percent_of_loss_keep_the_count() {
    for length in [120_usize, 960, 2_880] {
        let packets = opus_packets(2, length, &tone(440.0, 48_000, 2, 10 * 48_000));
        let mut rig = Rig::open(opus_to_aac(2));
        let (mut random, mut lost) = (1_u32, 0);
        let last = packets.len() - 1;
        for (n, packet) in packets.iter().enumerate() {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if (random >> 16) % 100 < 5 && n != 0 && n != last {
                lost += 1;
                continue;
            }
            feed(&mut rig, n, packet);
        }
        assert!(lost > 3);
        assert_length(&rig, (packets.len() * length) as i64);
        let missing = (lost * length) as u32;
        assert_eq!(rig.totals.concealed + rig.totals.silence, missing);
        // Two lost in a row may be longer than what is concealed.
        assert!(length > 2_400 || rig.totals.silence == 0);
        let heard = rig.heard_between(2, 0, heard_at(0), heard_at(9 * 48_000));
        let change = loudness_db(&heard) + 9.03;
        // Packets of 2.5 ms tell energies by differences only, and take long to find
        // back to them after a loss.
        let least = if length == 120 { -9.0 } else { -1.0 };
        assert!((least..0.5).contains(&change), "{length}: {change} dB");
    }
}

#[test]
fn a_hole_is_concealed_for_100_ms_and_then_silent() {
    let packets = opus_packets(1, 960, &tone(440.0, 48_000, 1, 10 * 48_000));
    for (lost, silence) in [(1, 0), (5, 0), (6, 960), (50, 45 * 960), (99, 94 * 960)] {
        let mut rig = Rig::open(opus_to_aac(1));
        for (n, packet) in packets.iter().enumerate() {
            if !(100..100 + lost).contains(&n) {
                feed(&mut rig, n, packet);
            }
        }
        assert_length(&rig, packets.len() as i64 * 960);
        assert_eq!(rig.totals.silence, silence);
        assert_eq!(rig.totals.concealed + silence, lost as u32 * 960);
    }
}

#[test]
fn over_a_hole_too_long_the_clock_jumps_by_whole_frames() {
    let packets = opus_packets(1, 960, &tone(440.0, 48_000, 1, 48_000));
    let mut rig = Rig::open(opus_to_aac(1));
    for n in (0..100).chain(5_000..5_100) {
        feed(&mut rig, n, &packets[n % packets.len()]);
    }
    let steps: Vec<i64> = rig
        .frames
        .windows(2)
        .map(|pair| (pair[1].pts - pair[0].pts).as_units(48_000))
        .filter(|step| *step != 1_024)
        .collect();
    assert_eq!(steps.len(), 1);
    assert_eq!(steps[0] % 1_024, 0);
    assert!(rig.frames.len() < 300);
    let end = START + samples(5_100 * 960 - AAC_DELAY);
    assert!((0..1_024).contains(&(end - rig.end()).as_units(48_000)));
}

#[test]
fn late_packets_are_not_heard_after_they_were_filled() {
    let packets = opus_packets(1, 960, &tone(440.0, 48_000, 1, 10 * 48_000));
    let mut rig = Rig::open(opus_to_aac(1));
    let advance = |rig: &mut Rig, n: i64| rig.run(Work::Advance(START + samples(n * 960)));
    for (n, packet) in packets.iter().enumerate() {
        // A stall of 400 ms: filled as time goes by, then all come at once.
        if n == 100 {
            for to in 101..=120 {
                advance(&mut rig, to);
            }
            assert_eq!(rig.totals.concealed, 4_800);
            assert_eq!(rig.totals.silence, 15 * 960);
            // Nothing is filled for a time that has been.
            assert!(advance(&mut rig, 90).frames.is_empty());
        }
        // A hole of 200 ms, of which 60 were filled before the next packet came.
        if n == 200 {
            advance(&mut rig, 203);
        }
        if !(200..210).contains(&n) {
            feed(&mut rig, n, packet);
        }
    }
    assert_length(&rig, packets.len() as i64 * 960);
    assert_eq!(rig.totals.late, 20);
    assert_eq!(rig.totals.concealed, 2 * 4_800);
    assert_eq!(rig.totals.silence, 15 * 960 + 5 * 960);
}

#[test]
fn packets_that_come_twice_or_out_of_order_are_dropped() {
    let packets = opus_packets(1, 960, &tone(440.0, 48_000, 1, 48_000));
    let mut rig = Rig::open(opus_to_aac(1));
    for n in [0, 1, 2, 2, 3, 5, 4, 6, 7, 3, 8, 9] {
        feed(&mut rig, n, &packets[n]);
    }
    assert_length(&rig, 10 * 960);
    assert_eq!(rig.totals.late, 3);
}

#[test]
fn silence_comes_before_the_first_packet() {
    let packets = opus_packets(1, 960, &tone(440.0, 48_000, 1, 48_000));
    let mut rig = Rig::open(opus_to_aac(1));
    rig.run(Work::Advance(START));
    assert!(rig.frames.is_empty());
    rig.run(Work::Advance(START + MediaTime::from_millis(1_000)));
    assert_length(&rig, 48_000);
    for n in 40..90 {
        feed(&mut rig, n, &packets[n - 40]);
    }
    assert_length(&rig, 90 * 960);
}

#[test]
fn a_clock_that_leaps_back_is_moved_behind() {
    let packets = opus_packets(1, 960, &tone(440.0, 48_000, 1, 10 * 48_000));
    let mut rig = Rig::open(opus_to_aac(1));
    for n in (200..400).chain(0..100) {
        feed(&mut rig, n, &packets[n]);
    }
    rig.assert_gapless();
    assert_eq!(rig.frames.len(), 300 * 960 / 1_024);
    assert_eq!(rig.totals.resyncs, 1);
    // And back on the old clock: in its place again.
    for n in 500..550 {
        feed(&mut rig, n, &packets[n % 500]);
    }
    rig.assert_gapless();
    let end = START + samples(550 * 960 - AAC_DELAY);
    assert!((0..1_024).contains(&(end - rig.end()).as_units(48_000)));
}

#[test]
fn a_slowly_moving_clock_is_followed() {
    // What a sender report does to the clock of a stream: 3 ms a second.
    for ppm in [3_000, -3_000] {
        let packets = opus_packets(1, 960, &tone(440.0, 48_000, 1, 48_000));
        let mut rig = Rig::open(opus_to_aac(1));
        let mut end = START;
        for n in 0..30 * 50 {
            end = START + samples(n * 960) + MediaTime::from_ticks(n * 1_411_200 / 1_000_000 * ppm);
            rig.feed(Codec::Opus, end, packets[n as usize % 50].clone());
        }
        rig.assert_gapless();
        assert_eq!(
            rig.totals.concealed + rig.totals.silence + rig.totals.late,
            0
        );
        let lag = (end - samples(AAC_DELAY) - rig.end()).as_millis();
        assert!((-60..60).contains(&lag), "{ppm}: {lag}");
    }
}

#[test]
fn new_channels_go_on_with_the_clock() {
    let packets = opus_packets(2, 960, &tone(440.0, 48_000, 2, 6 * 48_000));
    let mut rig = Rig::open(opus_to_aac(2));
    let mut mono = Rig::open(opus_to_aac(1));
    for (n, packet) in packets.iter().enumerate() {
        if n == 150 {
            let done = rig.run(Work::Reconfigure(Box::new(opus_to_aac(1))));
            assert_eq!(done.config, mono.totals.config);
            let again = rig.run(Work::Reconfigure(Box::new(opus_to_aac(1))));
            assert_eq!(again.config, None);
        }
        feed(&mut rig, n, packet);
        feed(&mut mono, n, packet);
    }
    rig.assert_gapless();
    assert_eq!(rig.frames.len(), mono.frames.len());
    let change = 150 * 960 / 1_024 + 3;
    rig.frames.drain(..change);
    let heard = rig.heard_between(1, 0, heard_at(4 * 48_000), heard_at(5 * 48_000));
    assert!((loudness_db(&heard) + 9.03).abs() < 0.3);
}

#[test]
fn a_lost_packet_is_taken_from_the_next_ones_error_correction() {
    let mut encoder =
        opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Voip).unwrap();
    encoder.set_bitrate(opus::Bitrate::Bits(28_000)).unwrap();
    encoder.set_inband_fec(true).unwrap();
    encoder.set_packet_loss_perc(25).unwrap();
    encoder.set_signal(opus::Signal::Voice).unwrap();
    encoder
        .set_max_bandwidth(opus::Bandwidth::Wideband)
        .unwrap();
    // A tone that begins with the lost packet: nothing before it tells of it.
    let lost = 50;
    let mut sound = vec![0.0; lost * 960];
    sound.extend(tone(300.0, 48_000, 1, 48_000));
    let packets: Vec<Bytes> = sound
        .chunks_exact(960)
        .map(|piece| encoder.encode_vec_float(piece, 4_000).unwrap().into())
        .collect();
    let mut heard = Vec::new();
    for with_next in [true, false] {
        let mut rig = Rig::open(opus_to_aac(1));
        for (n, packet) in packets.iter().enumerate() {
            if n == lost && !with_next {
                let until = START + samples((lost as i64 + 1) * 960);
                rig.run(Work::Advance(until));
            }
            if n != lost {
                feed(&mut rig, n, packet);
            }
        }
        assert_length(&rig, packets.len() as i64 * 960);
        assert_eq!(rig.totals.concealed, 960);
        let from = START + samples(lost as i64 * 960 + 480);
        heard.push(loudness_db(&rig.heard_between(
            1,
            0,
            from,
            from + samples(480),
        )));
    }
    assert!(heard[0] > -15.0, "{heard:?}");
    assert!(heard[1] < -30.0, "{heard:?}");
}

#[test]
fn any_cut_and_any_flipped_bit_keep_the_count() {
    let packets = opus_packets(2, 960, &tone(440.0, 48_000, 2, 4_800));
    let packet = &packets[3];
    let mut damaged: Vec<Vec<u8>> = (1..packet.len()).map(|n| packet[..n].to_vec()).collect();
    for bit in 0..packet.len() * 8 {
        let mut flipped = packet.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        damaged.push(flipped);
    }
    let mut rig = Rig::open(opus_to_aac(2));
    let count = damaged.len();
    for (n, payload) in damaged.into_iter().enumerate() {
        let pts = START + samples(n as i64 * 5_760);
        rig.feed(Codec::Opus, pts, payload.into());
    }
    rig.assert_gapless();
    let length = rig.frames.len() * 1_024;
    assert!(length > (count - 2) * 5_760 && length <= count * 5_760);
}

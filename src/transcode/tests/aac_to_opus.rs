//! AAC to Opus.

use fdk_aac::enc::AudioObjectType;

use super::*;
use crate::transcode::testing::{
    AacSource, amplitude, click, click_position, in_millis, loudness_db, tone,
};

/// A start that is no whole number of anything.
const START: MediaTime = MediaTime::from_ticks(123_456_789);

/// Feeds all access units with timestamps as RTMP has them.
fn transcode(source: &AacSource) -> Rig {
    let mut rig = Rig::open(aac_to_opus(source.config.clone()));
    feed(&mut rig, source, START, 0..source.units.len());
    rig
}

fn feed(rig: &mut Rig, source: &AacSource, start: MediaTime, units: std::ops::Range<usize>) {
    for n in units {
        let pts = in_millis(source.time(start, n));
        let unit = source.units[n % source.units.len()].clone();
        rig.feed(Codec::Aac, pts, unit);
    }
}

fn second(n: i64) -> MediaTime {
    START + MediaTime::from_millis(n * 1_000)
}

/// Case 34.
#[test]
fn ten_minutes_of_44_1_khz_step_by_960_exactly() {
    let source = AacSource::lc(44_100, 2, &tone(440.0, 44_100, 2, 20 * 44_100));
    let units = 600 * 44_100 / 1_024;
    let mut rig = Rig::open(aac_to_opus(source.config.clone()));
    feed(&mut rig, &source, START, 0..units);
    rig.assert_gapless();
    let expected = units as i64 * 1_024 * 48_000 / 44_100;
    let error = expected - rig.frames.len() as i64 * 960;
    assert!((0..2 * 960).contains(&error), "{error}");
    assert_eq!(rig.totals.errors + rig.totals.late + rig.totals.resyncs, 0);
    assert_eq!(rig.totals.concealed + rig.totals.silence, 0);
}

#[test]
fn sixteen_khz_mono_never_bursts() {
    let source = AacSource::lc(16_000, 1, &tone(440.0, 16_000, 1, 10 * 16_000));
    let mut rig = Rig::open(aac_to_opus(source.config.clone()));
    for (n, unit) in source.units.iter().enumerate() {
        let pts = in_millis(source.time(START, n));
        let done = rig.feed(Codec::Aac, pts, unit.clone());
        // 64 ms are 3.2 frames.
        assert!((2..=4).contains(&done.frames.len()));
        for frame in done.frames {
            assert_eq!(
                opus::packet::get_nb_samples(&frame.payload, 48_000).unwrap(),
                960
            );
        }
    }
    rig.assert_gapless();
    assert_eq!(rig.totals.config, Some(TrackConfig::Opus { channels: 1 }));
}

#[test]
fn every_rate_keeps_pitch_and_loudness() {
    for (rate, channels) in [
        (8_000, 1),
        (11_025, 1),
        (12_000, 2),
        (16_000, 1),
        (22_050, 2),
        (24_000, 1),
        (32_000, 2),
        (44_100, 1),
        (44_100, 2),
        (48_000, 1),
        (48_000, 2),
    ] {
        let sound = tone(1_000.0, rate, channels, 3 * rate as usize);
        let rig = transcode(&AacSource::lc(rate, channels, &sound));
        rig.assert_gapless();
        let heard = rig.heard_between(channels, channels - 1, second(1), second(2));
        let pitch = amplitude(&heard, 1_000.0, 48_000);
        assert!((pitch - 0.5).abs() < 0.017, "{rate} {channels}: {pitch}");
        let change = loudness_db(&heard) - loudness_db(&sound);
        assert!(change.abs() < 0.3, "{rate} {channels}: {change} dB");
    }
}

#[test]
fn a_click_is_heard_at_its_time() {
    for rate in [8_000, 16_000, 22_050, 32_000, 44_100, 48_000] {
        let sound = click(2 * rate as usize, rate as usize);
        let rig = transcode(&AacSource::lc(rate, 1, &sound));
        assert_click_at(&rig, 1, second(1), rate);
    }
}

fn assert_click_at(rig: &Rig, channels: usize, time: MediaTime, rate: u32) {
    let tenth = MediaTime::from_millis(200);
    let heard = rig.heard_between(channels, 0, time - tenth, time + tenth);
    let error = click_position(&heard) as i64 - 200 * 48;
    // One millisecond, of which half is the rounding of the timestamps.
    assert!(error.abs() <= 48, "{rate}: {error} samples");
}

#[test]
fn he_aac_is_heard_at_its_rate_and_time() {
    let cases = [
        // Parametric stereo may begin at any time: the decoder is ready for it.
        (AudioObjectType::Mpeg4HeAac, 44_100, 1, 2),
        (AudioObjectType::Mpeg4HeAac, 48_000, 2, 2),
        (AudioObjectType::Mpeg4HeAac, 32_000, 2, 2),
        (AudioObjectType::Mpeg4HeAacV2, 48_000, 2, 2),
        (AudioObjectType::Mpeg4HeAacV2, 44_100, 2, 2),
    ];
    for (kind, rate, channels, heard_channels) in cases {
        let bitrate = 24_000 * channels as u32;
        let encode = |sound: &[f32]| AacSource::encode(kind, rate, channels, bitrate, sound);
        let second_samples = rate as usize;
        let sound = tone(1_000.0, rate, channels, 3 * second_samples);
        let clicks: Vec<f32> = click(3 * second_samples, second_samples)
            .iter()
            .flat_map(|value| std::iter::repeat_n(*value, channels))
            .collect();
        for implicit in [false, true] {
            let as_sent = |mut source: AacSource| {
                assert_eq!(source.unit_samples, 2_048);
                if implicit {
                    let core = if matches!(kind, AudioObjectType::Mpeg4HeAacV2) {
                        1
                    } else {
                        channels as u8
                    };
                    source.config = AudioSpecificConfig::lc(rate / 2, core).unwrap();
                }
                source
            };
            let rig = transcode(&as_sent(encode(&sound)));
            rig.assert_gapless();
            assert_eq!(rig.totals.errors, 0);
            assert_eq!(
                rig.totals.config,
                Some(TrackConfig::Opus {
                    channels: heard_channels as u8
                })
            );
            let length = (rig.end() - rig.start()).as_millis();
            assert!(
                (2_900..3_010).contains(&length),
                "{rate} {implicit}: {length}"
            );
            let heard = rig.heard_between(heard_channels, 0, second(1), second(2));
            let pitch = amplitude(&heard, 1_000.0, 48_000);
            assert!((pitch - 0.5).abs() < 0.03, "{rate} {implicit}: {pitch}");
            let rig = transcode(&as_sent(encode(&clicks)));
            assert_click_at(&rig, heard_channels, second(1), rate);
        }
    }
}

/// ffmpeg 5.1.9: `-f lavfi -i sine=1000:sample_rate=48000:duration=0.5,volume=6dB -af
/// pan=5.1|FC=c0 -c:a aac -b:a 64k -f adts`: a tone of amplitude 0.25 in the centre.
const SIX_CHANNELS: &[u8] = include_bytes!("six_channels.adts");

#[test]
fn six_channels_are_mixed_down() {
    let config = AudioSpecificConfig::decode(&[0x11, 0xb0]).unwrap();
    let mut rig = Rig::open(aac_to_opus(config));
    let mut rest = SIX_CHANNELS;
    let mut pts = START;
    while let [_, _, _, high, middle, low, _, ..] = *rest {
        let bits = [high & 3, middle, low].map(usize::from);
        let length = bits[0] << 11 | bits[1] << 3 | bits[2] >> 5;
        rig.feed(Codec::Aac, in_millis(pts), rest[7..length].to_vec().into());
        rest = &rest[length..];
        pts += MediaTime::from_units(1_024, 48_000);
    }
    assert_eq!(rig.totals.config, Some(TrackConfig::Opus { channels: 2 }));
    assert_eq!(rig.totals.errors, 0);
    rig.assert_gapless();
    let millis = |n| START + MediaTime::from_millis(n);
    for channel in [0, 1] {
        let heard = rig.heard_between(2, channel, millis(200), millis(400));
        let tone = amplitude(&heard, 1_000.0, 48_000);
        // Alike on both sides, between -12 dB (safe against clipping) and -3 dB.
        assert!((0.06..0.18).contains(&tone), "{tone}");
    }
}

#[test]
fn damaged_access_units_keep_the_count() {
    let sound = tone(440.0, 44_100, 2, 4 * 44_100);
    let source = AacSource::lc(44_100, 2, &sound);
    let mut rig = Rig::open(aac_to_opus(source.config.clone()));
    let mut damage = 12_345_u32;
    for (n, unit) in source.units.iter().enumerate() {
        let mut unit = unit.to_vec();
        if n % 5 == 3 {
            for byte in &mut unit {
                damage = damage.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *byte ^= (damage >> 24) as u8;
            }
        }
        if n % 7 == 2 {
            unit.truncate(1 + n % 30);
        }
        rig.feed(Codec::Aac, in_millis(source.time(START, n)), unit.into());
    }
    rig.assert_gapless();
    assert!(rig.totals.errors > 10);
    assert!(rig.totals.concealed >= 10 * 1_024);
    let expected = source.units.len() as i64 * 1_024 * 48_000 / 44_100;
    let error = expected - rig.frames.len() as i64 * 960;
    assert!((0..2 * 960).contains(&error), "{error}");
}

#[test]
fn any_cut_and_any_flipped_bit_keep_the_count() {
    for kind in [
        AudioObjectType::Mpeg4LowComplexity,
        AudioObjectType::Mpeg4HeAac,
    ] {
        let sound = tone(440.0, 48_000, 2, 48_000);
        let source = AacSource::encode(kind, 48_000, 2, 48_000, &sound);
        let unit = &source.units[7];
        let mut damaged: Vec<Vec<u8>> = (1..unit.len()).map(|n| unit[..n].to_vec()).collect();
        for bit in 0..unit.len() * 8 {
            let mut flipped = unit.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            damaged.push(flipped);
        }
        let mut rig = Rig::open(aac_to_opus(source.config.clone()));
        feed(&mut rig, &source, START, 0..7);
        for (n, payload) in damaged.iter().enumerate() {
            let pts = in_millis(source.time(START, n + 7));
            rig.feed(Codec::Aac, pts, payload.clone().into());
        }
        rig.assert_gapless();
        let expected = (damaged.len() as i64 + 7) * source.unit_samples;
        let error = expected - rig.frames.len() as i64 * 960;
        assert!((-960..2 * 960).contains(&error), "{error}");
        assert!(rig.totals.errors > 100);
    }
}

#[test]
fn garbage_from_the_first_unit_on_is_silence_of_the_right_length() {
    let config = AudioSpecificConfig::lc(48_000, 2).unwrap();
    let mut rig = Rig::open(aac_to_opus(config));
    for n in 0..100 {
        let pts = MediaTime::from_units(n * 1_024, 48_000);
        rig.feed(Codec::Aac, pts, vec![0xff; 1 + n as usize].into());
    }
    assert_eq!(rig.totals.errors, 100);
    assert_eq!(rig.frames.len(), 100 * 1_024 / 960);
    rig.assert_gapless();
}

/// Ten seconds of 48 kHz mono, and a pipeline that has heard the first four (188 units).
fn four_seconds() -> (AacSource, Rig) {
    let source = AacSource::lc(48_000, 1, &tone(440.0, 48_000, 1, 10 * 48_000));
    let mut rig = Rig::open(aac_to_opus(source.config.clone()));
    feed(&mut rig, &source, START, 0..188);
    (source, rig)
}

/// Feeds the units from 188 on, moved by `millis`.
fn feed_moved(rig: &mut Rig, source: &AacSource, millis: i64, units: std::ops::Range<usize>) {
    feed(rig, source, START + MediaTime::from_millis(millis), units);
}

/// How far the end of the output is from the end of the input up to unit `units`.
fn lag_millis(rig: &Rig, source: &AacSource, millis: i64, units: usize) -> i64 {
    let end = source.time(START + MediaTime::from_millis(millis), units);
    (end - rig.end()).as_millis()
}

#[test]
fn a_short_hole_becomes_silence() {
    let (source, mut rig) = four_seconds();
    feed_moved(&mut rig, &source, 500, 188..300);
    rig.assert_gapless();
    assert_eq!(rig.totals.resyncs, 1);
    assert!(
        rig.totals.silence.abs_diff(24_000) < 100,
        "{}",
        rig.totals.silence
    );
    assert!((0..25).contains(&lag_millis(&rig, &source, 500, 300)));
}

#[test]
fn over_a_long_hole_the_clock_jumps_by_whole_frames() {
    let (source, mut rig) = four_seconds();
    let before = rig.frames.len();
    feed_moved(&mut rig, &source, 7_777, 188..300);
    let steps: Vec<i64> = rig
        .frames
        .windows(2)
        .map(|pair| (pair[1].pts - pair[0].pts).as_units(48_000))
        .filter(|step| *step != 960)
        .collect();
    assert_eq!(steps.len(), 1);
    assert_eq!(steps[0] % 960, 0);
    assert!(steps[0] > 7 * 48_000);
    assert!((0..25).contains(&lag_millis(&rig, &source, 7_777, 300)));
    assert!(rig.frames.len() - before < 125, "no burst");
}

#[test]
fn a_stray_timestamp_moves_nothing() {
    let (source, mut rig) = four_seconds();
    for (unit, millis) in [
        (188, 400),
        (189, 0),
        (190, -700),
        (191, 0),
        (192, 90_000),
        (193, 0),
    ] {
        feed_moved(&mut rig, &source, millis, unit..unit + 1);
    }
    feed_moved(&mut rig, &source, 0, 194..300);
    rig.assert_gapless();
    assert_eq!(rig.totals.resyncs + rig.totals.silence + rig.totals.late, 0);
    assert!((0..25).contains(&lag_millis(&rig, &source, 0, 300)));
}

#[test]
fn a_step_back_is_cut_out_and_a_leap_back_moved_behind() {
    let (source, mut rig) = four_seconds();
    feed_moved(&mut rig, &source, -400, 188..250);
    rig.assert_gapless();
    assert!(rig.totals.late > 10);
    assert!((0..25).contains(&lag_millis(&rig, &source, -400, 250)));
    // As if the publisher had begun anew.
    feed_moved(&mut rig, &source, -3_900, 250..350);
    rig.assert_gapless();
    assert_eq!(rig.totals.resyncs, 2);
    let lag = lag_millis(&rig, &source, -400, 350);
    assert!((0..25).contains(&lag), "{lag}");
    // And once more on the old clock: in its place again.
    feed_moved(&mut rig, &source, -400, 350..450);
    rig.assert_gapless();
    let lag = lag_millis(&rig, &source, -400, 450);
    assert!((0..25).contains(&lag), "{lag}");
}

#[test]
fn what_was_filled_is_not_filled_twice() {
    let (source, mut rig) = four_seconds();
    // 300 ms pass without input, of which 200 were only late.
    let position = source.time(START, 188);
    for millis in [100, 200, 300] {
        rig.run(Work::Advance(position + MediaTime::from_millis(millis)));
    }
    let filled = rig.totals.silence;
    assert!(filled.abs_diff(300 * 48) < 100, "{filled}");
    feed_moved(&mut rig, &source, 0, 188..300);
    rig.assert_gapless();
    assert_eq!(rig.totals.silence, filled);
    assert!(rig.totals.late > 10);
    assert!((0..25).contains(&lag_millis(&rig, &source, 0, 300)));
    // The same, but they never come.
    let position = source.time(START, 300);
    rig.run(Work::Advance(position + MediaTime::from_millis(60)));
    feed_moved(&mut rig, &source, 80, 300..400);
    rig.assert_gapless();
    assert!((0..25).contains(&lag_millis(&rig, &source, 80, 400)));
}

#[test]
fn drift_of_the_timestamps_is_followed() {
    for ppm in [1_500, -1_500] {
        let source = AacSource::lc(44_100, 1, &tone(440.0, 44_100, 1, 10 * 44_100));
        let mut rig = Rig::open(aac_to_opus(source.config.clone()));
        let mut end = START;
        for n in 0..60 * 43 {
            let time = source.time(START, n);
            let elapsed = (time - START).ticks();
            let pts = time + MediaTime::from_ticks(elapsed / 1_000_000 * ppm);
            let unit = source.units[n % source.units.len()].clone();
            rig.feed(Codec::Aac, in_millis(pts), unit);
            end = pts;
        }
        rig.assert_gapless();
        assert_eq!(rig.totals.resyncs, 0);
        let lag = (end - rig.end()).as_millis();
        assert!((-35..35).contains(&lag), "{ppm}: {lag}");
        let middle = second(30);
        let heard = rig.heard_between(1, 0, middle, middle + MediaTime::from_millis(1_000));
        assert!((loudness_db(&heard) + 9.03).abs() < 0.3);
    }
}

#[test]
fn a_new_configuration_goes_on_with_the_clock() {
    let first = AacSource::lc(44_100, 2, &tone(440.0, 44_100, 2, 3 * 44_100));
    let mut rig = transcode(&first);
    let mut at = first.time(START, first.units.len());
    for (rate, channels) in [(48_000, 1), (22_050, 2), (22_050, 1)] {
        let sound = tone(700.0, rate, channels, 3 * rate as usize);
        let next = AacSource::lc(rate, channels, &sound);
        let done = rig.run(Work::Reconfigure(Box::new(aac_to_opus(
            next.config.clone(),
        ))));
        assert_eq!(done.error, None);
        let start = at + MediaTime::from_units(next.delay, rate);
        feed(&mut rig, &next, start, 0..next.units.len());
        at = next.time(start, next.units.len());
        rig.assert_gapless();
        let expected = TrackConfig::Opus {
            channels: channels as u8,
        };
        assert_eq!(rig.totals.config, Some(expected));
        let to = rig.end() - MediaTime::from_millis(200);
        let second = MediaTime::from_millis(1_000);
        let heard = rig.heard_between(2, 0, to - second, to);
        assert!((amplitude(&heard, 700.0, 48_000) - 0.5).abs() < 0.02);
    }
    assert_eq!(rig.totals.resyncs + rig.totals.errors, 0);
}

#[test]
fn a_repeated_configuration_changes_nothing() {
    let source = AacSource::lc(48_000, 1, &tone(440.0, 48_000, 1, 2 * 48_000));
    let mut rig = Rig::open(aac_to_opus(source.config.clone()));
    let mut again = Rig::open(aac_to_opus(source.config.clone()));
    for n in 0..source.units.len() {
        feed(&mut rig, &source, START, n..n + 1);
        again.run(Work::Reconfigure(Box::new(aac_to_opus(
            source.config.clone(),
        ))));
        feed(&mut again, &source, START, n..n + 1);
    }
    assert_eq!(rig.frames, again.frames);
}

#[test]
fn a_configuration_that_fails_is_told_and_the_next_one_mends_it() {
    let (source, mut rig) = four_seconds();
    if let Ok(main) = AudioSpecificConfig::decode(&[0x0a, 0x10]) {
        let done = rig.run(Work::Reconfigure(Box::new(aac_to_opus(main))));
        assert!(done.error.is_some());
        let errors = rig.totals.errors;
        feed_moved(&mut rig, &source, 0, 188..190);
        assert_eq!(rig.totals.errors, errors + 2);
    }
    rig.run(Work::Reconfigure(Box::new(aac_to_opus(
        source.config.clone(),
    ))));
    feed_moved(&mut rig, &source, 0, 190..300);
    rig.assert_gapless();
    assert!((-25..50).contains(&lag_millis(&rig, &source, 0, 300)));
}

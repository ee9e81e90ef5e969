//! A day of a WebRTC publisher whose clocks disagree, in a few seconds.

use super::*;
use crate::hub::LiveClock;

const VIDEO: u32 = 90_000;
const AUDIO: u32 = 48_000;

/// Pictures and pieces of sound a second.
const RATE: i64 = 2;

/// What the sender reports of a day are like.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Reports {
    /// Every second, and true.
    True,
    /// None.
    Missing,
    /// None in the first hour, then true.
    Late,
    /// Of the sound only.
    OfSoundOnly,
    /// NTP time 0, as senders without a clock give it.
    WithoutClock,
    /// True, but the sender's wall clock is set every two hours: by half a second, then by an hour.
    ClockIsSet,
}

/// The publisher of a day.
#[derive(Clone, Copy, Debug)]
struct Source {
    /// By how much the clocks are too fast against ours, in millionths.
    audio_ppm: i64,
    video_ppm: i64,
    wall_ppm: i64,
    reports: Reports,
    /// Its camera is off for ten minutes of every three hours.
    pauses: bool,
}

const EVEN: Source = Source {
    audio_ppm: 0,
    video_ppm: 0,
    wall_ppm: 0,
    reports: Reports::True,
    pauses: false,
};

/// The figures of a day, in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    /// How far apart sound and picture of one instant were mapped at most.
    offset: f64,
    /// The largest step of a track beyond its own clock's.
    step: f64,
    /// How far behind the live point a track was at most.
    behind: f64,
}

/// Pictures and sound every half second; pictures take 30 ms longer, and each up to 20 ms by chance.
fn day(source: Source) -> Figures {
    let start = Instant::now();
    let mut timeline = RtpTimeline::default();
    let mut clock: Option<LiveClock> = None;
    let mut random = 1_u64;
    let mut figures = Figures::default();
    let mut before: [Option<(i64, MediaTime)>; 2] = [None; 2];
    let mut wall_set = MediaTime::ZERO;
    for n in 0..24 * 3_600 * RATE {
        let captured_us = n * 1_000_000 / RATE;
        let of_clock = |ppm: i64| captured_us + captured_us / 1_000_000 * ppm;
        let is_paused = source.pauses && n % (3 * 3_600 * RATE) < 600 * RATE && n > 3_600 * RATE;
        let mut mapped = [None; 2];
        for (at, kind, ppm, rate) in [
            (0, TrackKind::Audio, source.audio_ppm, AUDIO),
            (1, TrackKind::Video, source.video_ppm, VIDEO),
        ] {
            if is_paused && kind == TrackKind::Video {
                before[at] = None;
                continue;
            }
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let travel_us = 30_000 * at as u64 + (random >> 33) % 20_000;
            let now = start + Duration::from_micros(captured_us as u64 + travel_us);
            let rtp_time = (of_clock(ppm) as i128 * i128::from(rate) / 1_000_000) as u64;
            let live = clock.map_or(MediaTime::ZERO, |clock| clock.live(now));
            let out = timeline.map(kind, rtp_time, rate, now, live);
            clock
                .get_or_insert_with(|| LiveClock::starting(out, now))
                .observe(out, now);
            figures.behind = figures.behind.max((live - out).as_secs_f64() * 1e3);
            if let Some((then, last)) = before[at] {
                let own = (of_clock(ppm) - then) as f64 / 1e3;
                let step = ((out - last).as_secs_f64() * 1e3 - own).abs();
                figures.step = figures.step.max(step);
            }
            before[at] = Some((of_clock(ppm), out));
            mapped[at] = Some(out);
            if n % RATE == 1 && kind == TrackKind::Video && source.reports == Reports::ClockIsSet {
                // Between the reports of the two tracks: one of them tells of the old clock.
                if n % (4 * 3_600 * RATE) == 1 && n > RATE {
                    wall_set += ms(500);
                } else if n % (4 * 3_600 * RATE) == 2 * 3_600 * RATE + 1 {
                    wall_set += ms(3_600_000);
                }
            }
            let is_told = match source.reports {
                Reports::Missing => false,
                Reports::Late => n > 3_600 * RATE,
                Reports::OfSoundOnly => kind == TrackKind::Audio,
                _ => true,
            };
            if n % RATE == 1 && is_told {
                let ntp = match source.reports {
                    Reports::WithoutClock => MediaTime::ZERO,
                    _ => ms(3_900_000_000_000 + of_clock(source.wall_ppm) / 1_000) + wall_set,
                };
                timeline.sender_report(kind, ntp, rtp_time);
            }
        }
        if let [Some(sound), Some(picture)] = mapped {
            let apart = (picture - sound).as_secs_f64() * 1e3;
            figures.offset = figures.offset.max(apart.abs());
        }
    }
    figures
}

fn row(what: &str, source: Source) {
    let figures = day(source);
    println!(
        "| {what} | {:+} | {:+} | {:+} | {:.1} ms | {:.1} ms | {:.0} ms |",
        source.audio_ppm,
        source.video_ppm,
        source.wall_ppm,
        figures.offset,
        figures.step,
        figures.behind
    );
    assert!(figures.offset < 60.0, "{source:?}: {figures:?}");
    assert!(figures.step < 20.0, "{source:?}: {figures:?}");
    assert!(figures.behind < 200.0, "{source:?}: {figures:?}");
}

/// Case 48, the clocks' half: `cargo test --lib a_day -- --nocapture` prints the figures.
#[test]
fn case_48_a_day_of_drift_between_sound_picture_and_our_clock() {
    println!("| reports | sound ppm | picture ppm | wall ppm | A/V offset | step | behind live |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for (audio_ppm, video_ppm, wall_ppm) in [
        (0, 0, 0),
        (200, 200, 200),
        (-200, -200, -200),
        (200, -200, 0),
        (-200, 200, 0),
        (200, 0, -200),
        (-200, 0, 200),
        (0, 200, -200),
    ] {
        let source = Source {
            audio_ppm,
            video_ppm,
            wall_ppm,
            ..EVEN
        };
        row("true", source);
    }
    for (what, reports) in [
        ("missing", Reports::Missing),
        ("late by an hour", Reports::Late),
        ("of the sound only", Reports::OfSoundOnly),
        ("without a clock", Reports::WithoutClock),
        ("clock set every 2 h", Reports::ClockIsSet),
    ] {
        for ppm in [200, -200] {
            let source = Source {
                audio_ppm: ppm,
                video_ppm: -ppm,
                reports,
                ..EVEN
            };
            row(what, source);
        }
    }
    let source = Source {
        audio_ppm: 200,
        video_ppm: -200,
        pauses: true,
        ..EVEN
    };
    row("true, camera off at times", source);
}

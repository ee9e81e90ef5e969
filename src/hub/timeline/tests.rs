use std::time::{Duration, Instant};

use super::*;

mod day;

fn ms(millis: i64) -> MediaTime {
    MediaTime::from_millis(millis)
}

fn after(start: Instant, millis: u64) -> Instant {
    start + Duration::from_millis(millis)
}

mod rtmp {
    use super::*;

    /// Feeds `(kind, raw, arrival)` and gives the mapped milliseconds.
    fn run(frames: &[(TrackKind, u32, u64)]) -> Vec<i64> {
        let start = Instant::now();
        let mut timeline = RtmpTimeline::default();
        frames
            .iter()
            .map(|&(kind, raw, at)| {
                timeline
                    .map(kind, raw, after(start, at), MediaTime::ZERO)
                    .as_millis()
            })
            .collect()
    }

    use TrackKind::{Audio, Video};

    #[test]
    fn first_frame_is_the_origin_wherever_it_begins() {
        // CASE 28: headers came at 0, the first frame at 16776920.
        let out = run(&[
            (Video, 16_776_920, 0),
            (Audio, 16_776_897, 1),
            (Video, 16_776_960, 40),
        ]);
        assert_eq!(out, [0, -23, 40]);
    }

    #[test]
    fn wraps_at_2_to_the_31_and_at_2_to_the_32() {
        // As ffmpeg writes it: ..., 2147483612, 4.
        let out = run(&[
            (Video, 2_147_483_572, 0),
            (Video, 2_147_483_612, 40),
            (Video, 4, 80),
            (Audio, 2_147_483_641, 81),
            (Audio, 17, 100),
        ]);
        assert_eq!(out, [0, 40, 80, 69, 93]);
        let out = run(&[(Video, u32::MAX - 19, 0), (Video, 20, 40)]);
        assert_eq!(out, [0, 40]);
    }

    #[test]
    fn small_steps_back_are_held() {
        let out = run(&[(Video, 1_000, 0), (Video, 960, 10), (Video, 1_040, 40)]);
        assert_eq!(out, [0, 1, 40]);
    }

    /// GStreamer's rtmp2sink, whose first frames all have timestamp 0.
    #[test]
    fn frames_that_share_a_timestamp_are_decoded_in_turn_and_mean_what_they_say() {
        let start = Instant::now();
        let mut timeline = RtmpTimeline::default();
        let mut place = |raw, at| {
            let placed = timeline.place(Video, raw, after(start, at), ms(0));
            (placed.dts.as_millis(), placed.meant.as_millis())
        };
        assert_eq!(place(0, 0), (0, 0));
        assert_eq!(place(0, 1), (1, 0));
        assert_eq!(place(0, 2), (2, 0));
        assert_eq!(place(40, 40), (40, 40));
    }

    #[test]
    fn both_tracks_jump_by_the_same_amount() {
        let out = run(&[
            (Video, 1_000, 0),
            (Audio, 1_010, 10),
            (Video, 1_040, 40),
            (Audio, 1_031, 31),
            (Video, 900_000, 80),
            (Audio, 899_975, 75),
            (Video, 900_040, 120),
            (Audio, 899_996, 96),
        ]);
        assert_eq!(out[4], 80);
        assert_eq!(out[5], 80 - 25, "sound keeps its distance to the picture");
        assert_eq!(&out[6..], [120, 76]);
    }

    #[test]
    fn a_long_silence_is_a_gap_and_no_jump() {
        let out = run(&[(Video, 0, 0), (Video, 8_000, 8_000)]);
        assert_eq!(out, [0, 8_000]);
    }

    #[test]
    fn a_restarted_publisher_goes_on_at_the_live_point() {
        let start = Instant::now();
        let mut timeline = RtmpTimeline::default();
        assert_eq!(timeline.map(Video, 0, start, ms(65_000)), ms(65_000));
        assert_eq!(
            timeline.map(Audio, 20, after(start, 15), ms(65_015)),
            ms(65_020)
        );
    }
}

mod rtp {
    use super::*;

    const VIDEO: u32 = 90_000;
    const AUDIO: u32 = 48_000;

    #[test]
    fn tracks_are_placed_by_arrival_at_once() {
        let start = Instant::now();
        let mut timeline = RtpTimeline::default();
        let audio = timeline.map(TrackKind::Audio, 5_000_000, AUDIO, start, ms(0));
        let video = timeline.map(TrackKind::Video, 1 << 31, VIDEO, after(start, 30), ms(30));
        assert_eq!((audio, video), (ms(0), ms(30)));
        let next = timeline.map(
            TrackKind::Video,
            (1 << 31) + 3_600,
            VIDEO,
            after(start, 70),
            ms(70),
        );
        assert_eq!(next, ms(70));
    }

    /// Two tracks of one source; the picture's first frame came 100 ms late.
    fn late_picture(
        timeline: &mut RtpTimeline,
        start: Instant,
        seconds: u64,
        reports: bool,
    ) -> Vec<(u64, i64)> {
        let mut out = Vec::new();
        for at in (0..seconds * 1_000).step_by(20) {
            let now = after(start, at);
            timeline.map(TrackKind::Audio, at * 48, AUDIO, now, ms(at as i64));
            if at % 40 == 0 && at >= 100 {
                let captured = if at < 200 { at - 100 } else { at };
                let mapped =
                    timeline.map(TrackKind::Video, captured * 90, VIDEO, now, ms(at as i64));
                out.push((captured, mapped.as_millis()));
            }
            if reports && at % 1_000 == 500 {
                let ntp = ms(3_900_000_000_000 + at as i64);
                timeline.sender_report(TrackKind::Audio, ntp, at * 48);
                timeline.sender_report(TrackKind::Video, ntp, at * 90);
            }
        }
        out
    }

    #[test]
    fn sender_reports_move_the_picture_without_a_step() {
        let mut timeline = RtpTimeline::default();
        let out = late_picture(&mut timeline, Instant::now(), 15, true);
        let offset = |(captured, mapped): &(u64, i64)| mapped - *captured as i64;
        assert!((100..=120).contains(&offset(&out[0])), "{:?}", out[0]);
        let last = offset(out.last().expect("frames"));
        assert!(last.abs() <= 1, "{last}");
        for pair in out.windows(2).skip(3) {
            let step = offset(&pair[1]) - offset(&pair[0]);
            assert!(step.abs() <= 1, "{pair:?}");
        }
    }

    #[test]
    fn without_reports_the_least_delayed_arrivals_do_it() {
        let mut timeline = RtpTimeline::default();
        let out = late_picture(&mut timeline, Instant::now(), 20, false);
        let (captured, mapped) = out.last().expect("frames");
        assert!(
            (mapped - *captured as i64).abs() <= 1,
            "{mapped} for {captured}"
        );
    }

    #[test]
    fn absurd_reports_are_not_believed() {
        let start = Instant::now();
        let mut timeline = RtpTimeline::default();
        timeline.map(TrackKind::Audio, 0, AUDIO, start, ms(0));
        timeline.map(TrackKind::Video, 0, VIDEO, start, ms(0));
        timeline.sender_report(TrackKind::Audio, MediaTime::ZERO, 0);
        timeline.sender_report(TrackKind::Audio, ms(1_000_000), 0);
        timeline.sender_report(TrackKind::Video, ms(9_000_000), 0);
        assert_eq!(timeline.absurd_reports, 2);
        let mapped = timeline.map(
            TrackKind::Video,
            90_000,
            VIDEO,
            after(start, 1_000),
            ms(1_000),
        );
        assert_eq!(mapped, ms(1_000));
    }

    #[test]
    fn a_clock_that_leaves_is_placed_anew() {
        let start = Instant::now();
        let mut timeline = RtpTimeline::default();
        timeline.map(TrackKind::Video, 1_000, VIDEO, start, ms(0));
        let far = timeline.map(
            TrackKind::Video,
            1_000 + 90_000 * 600,
            VIDEO,
            after(start, 40),
            ms(40),
        );
        assert_eq!(far, ms(40));
        assert_eq!(timeline.jumps, 1);
    }
}

//! A browser in, RTMP out: Chromium publishes by WHIP, ffmpeg and rtmpdump play.

use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::json;

use crate::GATEWAY;
use crate::support::rtmp_tools::Rtmpdump;
use crate::support::{Browser, Gateway, Lab, alone, analysis, ffmpeg, flv, median, scratch_dir};

#[test]
fn ffmpeg_decodes_from_the_first_packet_on() {
    alone(|| {
        let gateway = Gateway::start(GATEWAY);
        let browser = Browser::start();
        let lab = Lab::open(&browser);
        lab.publish("cam", &gateway.whip("cam"), json!({ "toneHz": 520 }));
        gateway.wait_until_live("cam");
        let file = scratch_dir("whip").join("cam.flv");
        let mut recorder = ffmpeg::record(&gateway.rtmp("cam"), Some(7), &file);
        let mut player = ffmpeg::decode(&gateway.rtmp("cam"), Some(5));
        let dump = Rtmpdump::play(&gateway.rtmp("cam"));
        let status = player.wait(Duration::from_secs(20));
        assert!(status.success(), "the player ends with {status}");
        assert_eq!(
            player.stderr(),
            "",
            "nothing to complain about while playing"
        );
        assert!(recorder.wait(Duration::from_secs(20)).success());
        let tags = dump.tags();
        println!("{:?}", lab.report("cam").0["video"]["framesPerSecond"]);

        // As it came over the wire.
        flv::assert_in_order(&tags);
        let pictures = tags.iter().filter(|tag| tag.is_picture()).count();
        let sounds = tags.iter().filter(|tag| tag.is_sound()).count();
        assert!(pictures > 60, "{pictures} pictures");
        assert!(sounds > 150, "{sounds} AAC frames");
        let starts: Vec<u32> = [8, 9]
            .iter()
            .filter_map(|kind| {
                tags.iter()
                    .find(|tag| tag.kind == *kind && (tag.is_sound() || tag.is_picture()))
                    .map(|tag| tag.timestamp_ms)
            })
            .collect();
        assert!(
            matches!(starts[..], [sound, picture] if sound.abs_diff(picture) < 500),
            "both tracks start together: {starts:?}"
        );

        // As ffmpeg keeps it.
        assert_eq!(analysis::decode_faults(&file), "");
        let description = analysis::describe(&file);
        assert!(description.contains("codec_name=h264"), "{description}");
        assert!(description.contains("codec_name=aac"), "{description}");
        assert!(description.contains("width=640"), "{description}");
        let sound = analysis::samples(&file, 0);
        let pitch = analysis::pitch_hz(&sound);
        assert!((pitch - 520.0).abs() < 6.0, "{pitch} Hz");
        let offsets = analysis::lip_sync_ms(&file);
        println!("sound minus picture: {offsets:.0?} ms");
        assert!(
            offsets.len() >= 3,
            "flashes and beeps are in the recording: {offsets:?}"
        );
        assert!(median(&offsets).abs() < 120.0, "{offsets:.0?}");
    });
}

#[test]
fn waiting_and_late_players_get_a_picture_within_a_second() {
    alone(|| {
        let gateway = Gateway::start(GATEWAY);
        let browser = Browser::start();
        let lab = Lab::open(&browser);
        // It is there before anybody publishes, and is held.
        let mut waiting = Rtmpdump::play(&gateway.rtmp("cam"));
        let mut waiting_ffmpeg = ffmpeg::decode(&gateway.rtmp("cam"), Some(2));
        thread::sleep(Duration::from_millis(1500));
        assert!(
            waiting.process_mut().is_running(),
            "a player is held, not refused"
        );
        lab.publish("cam", &gateway.whip("cam"), json!({}));
        let answered = lab.tab().eval("lab.publishers.cam.answerAtEpochMs");
        let answered = UNIX_EPOCH + Duration::from_millis(answered.as_u64().expect("a time"));
        let picture = waiting.first_picture(Duration::from_secs(10));
        let since_answer = answered.elapsed().expect("it was before now") - picture.elapsed();
        println!("WHIP answer to the waiting player's first picture: {since_answer:?}");
        assert!(since_answer < Duration::from_secs(1), "{since_answer:?}");

        // The browser sends no further IDR by itself: a late player has one at once
        // because it is cached or asked for.
        thread::sleep(Duration::from_secs(3));
        for _ in 0..3 {
            let late = Rtmpdump::play(&gateway.rtmp("cam"));
            let wait = late.first_picture(Duration::from_secs(10)) - late.started();
            println!("late player's first picture: {wait:?}");
            assert!(wait < Duration::from_secs(1), "{wait:?}");
            thread::sleep(Duration::from_millis(300));
            flv::assert_in_order(&late.tags());
        }
        flv::assert_in_order(&waiting.tags());
        assert!(waiting_ffmpeg.wait(Duration::from_secs(20)).success());
        assert_eq!(waiting_ffmpeg.stderr(), "");
    });
}

#[test]
fn players_end_when_the_page_stops() {
    alone(|| {
        let gateway = Gateway::start(GATEWAY);
        let browser = Browser::start();
        let lab = Lab::open(&browser);
        lab.publish("cam", &gateway.whip("cam"), json!({}));
        gateway.wait_until_live("cam");
        let mut player = ffmpeg::decode(&gateway.rtmp("cam"), None);
        let mut dump = Rtmpdump::play(&gateway.rtmp("cam"));
        dump.first_picture(Duration::from_secs(5));
        thread::sleep(Duration::from_secs(3));
        assert_eq!(lab.stop("cam"), 200, "DELETE of the session URL");
        dump.process_mut().wait(Duration::from_secs(10));
        let status = player.wait(Duration::from_secs(10));
        assert!(status.success(), "{status}");
        assert_eq!(player.stderr(), "");
    });
}

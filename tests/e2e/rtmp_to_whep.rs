//! RTMP in, a browser out: ffmpeg publishes, Chromium plays by WHEP.

use std::thread;
use std::time::Duration;

use crate::GATEWAY;
use crate::support::lab::Report;
use crate::support::{Browser, Gateway, Lab, Source, alone, assert_lip_sync, median};

#[test]
fn plays_48000_hz_mono_baseline() {
    alone(|| {
        plays(&Source {
            profile: "baseline",
            audio_rate_hz: 48_000,
            tones_hz: &[440],
            ..Source::default()
        });
    });
}

#[test]
fn plays_44100_hz_stereo_high() {
    alone(|| {
        plays(&Source {
            profile: "high",
            audio_rate_hz: 44_100,
            tones_hz: &[440, 880],
            ..Source::default()
        });
    });
}

#[test]
fn plays_44100_hz_mono_main_at_720p() {
    alone(|| {
        plays(&Source {
            width: 1280,
            height: 720,
            profile: "main",
            audio_rate_hz: 44_100,
            tones_hz: &[660],
            ..Source::default()
        });
    });
}

#[test]
fn plays_48000_hz_stereo_with_sliced_pictures() {
    alone(|| {
        plays(&Source {
            slices: 4,
            profile: "high",
            fps: 30,
            audio_rate_hz: 48_000,
            tones_hz: &[520, 390],
            ..Source::default()
        });
    });
}

/// Publishes `source`, plays it, and judges everything a viewer would notice.
fn plays(source: &Source) {
    let gateway = Gateway::start(GATEWAY);
    let publisher = source.publish(&gateway.rtmp("x"));
    let browser = Browser::start();
    let lab = Lab::open(&browser);
    gateway.wait_until_live("x");
    lab.play("viewer", &gateway.whep("x"));
    lab.wait_for_picture("viewer", Duration::from_secs(5));
    // The browser's jitter buffers settle in the first moments.
    thread::sleep(Duration::from_secs(2));
    lab.forget("viewer");
    let before = lab.report("viewer");
    thread::sleep(Duration::from_secs(4));
    let report = lab.report("viewer");
    println!("{}", summary(&report));

    assert_eq!(
        (report.number("/width"), report.number("/height")),
        (f64::from(source.width), f64::from(source.height)),
    );
    assert_eq!(report.text("/video/mimeType"), "video/H264");
    assert_eq!(report.text("/audio/mimeType"), "audio/opus");
    assert_eq!(
        report.number("/streams"),
        1.0,
        "one MediaStream for both tracks"
    );
    assert_eq!(report.0["tracks"].as_array().map(Vec::len), Some(2));

    let rate = report.picture_rate(&before);
    let wanted = f64::from(source.fps);
    assert!(
        (rate - wanted).abs() < wanted * 0.08,
        "{rate} pictures a second, not {wanted}"
    );
    assert_eq!(
        report.number("/video/packetsLost"),
        0.0,
        "loopback loses nothing"
    );
    assert_eq!(report.number("/video/pliCount"), 0.0, "nothing was missing");
    assert_eq!(
        report.number("/video/freezeCount"),
        0.0,
        "longest hold {} ms",
        report.number("/longestHoldMs")
    );

    for channel in 0..2 {
        let hz = source.tones_hz.get(channel).or(source.tones_hz.first());
        let hz = f64::from(*hz.expect("a source has a tone"));
        let pitch = report.number(&format!("/pitchHz/{channel}"));
        assert!(
            (pitch - hz).abs() < hz * 0.015,
            "channel {channel}: {pitch} Hz, not {hz}"
        );
    }

    assert_lip_sync(&lab, "viewer", 80.0);
    drop(publisher);
}

#[test]
fn shows_the_first_picture_at_once_in_mid_gop() {
    alone(|| {
        let gateway = Gateway::start(GATEWAY);
        let source = Source {
            gop_seconds: 8,
            ..Source::default()
        };
        let _publisher = source.publish(&gateway.rtmp("x"));
        let browser = Browser::start();
        let lab = Lab::open(&browser);
        gateway.wait_until_live("x");
        // Join 1.5 s into a GOP, and 1.6 s later each time: whoever waits for the
        // next IDR would show nothing for seconds.
        thread::sleep(Duration::from_millis(1500));
        let mut times = Vec::new();
        for turn in 0..3 {
            let name = format!("viewer{turn}");
            lab.play(&name, &gateway.whep("x"));
            let report = lab.wait_for_picture(&name, Duration::from_secs(9));
            times.push(report.number("/firstPictureMs"));
            println!("{}", summary(&report));
            thread::sleep(Duration::from_millis(800));
            let report = lab.report(&name);
            assert_eq!(
                report.number("/video/freezeCount"),
                0.0,
                "{}",
                summary(&report)
            );
            assert_eq!(lab.stop(&name), 200);
        }
        let typical = median(&times);
        assert!(typical <= 500.0, "first picture after {times:.0?} ms");
        assert!(
            times.iter().all(|time| *time < 1_500.0),
            "first picture after {times:.0?} ms"
        );
    });
}

#[test]
fn viewers_stay_over_the_publishers_restart() {
    alone(|| {
        let gateway = Gateway::start(GATEWAY);
        let browser = Browser::start();
        let lab = Lab::open(&browser);
        let source = Source::default();
        let mut first = source.publish(&gateway.rtmp("x"));
        gateway.wait_until_live("x");
        lab.play("viewer", &gateway.whep("x"));
        lab.wait_for_picture("viewer", Duration::from_secs(5));
        thread::sleep(Duration::from_secs(1));
        first.kill();
        thread::sleep(Duration::from_millis(500));
        let _second = source.publish(&gateway.rtmp("x"));
        thread::sleep(Duration::from_secs(3));
        let before = lab.report("viewer");
        thread::sleep(Duration::from_secs(3));
        let report = lab.report("viewer");
        println!("{}", summary(&report));
        let rate = report.picture_rate(&before);
        assert!(
            (rate - 25.0).abs() < 2.5,
            "{rate} pictures a second after the restart"
        );
        assert_eq!(report.text("/state"), "connected");
        let pitch = report.number("/pitchHz/0");
        assert!((pitch - 440.0).abs() < 7.0, "{pitch} Hz after the restart");
    });
}

/// OBS's x264: three B-frames, of which one is referred to, but not by any P picture.
#[test]
fn case_31_shows_the_pictures_between_b_frames_of_preset_veryfast() {
    alone(|| {
        shows_the_pictures_between_b_frames(&Source {
            profile: "high",
            b_frames: 3,
            ..Source::default()
        });
    });
}

/// x264 with more reference frames, told to be strict about the pyramid.
#[test]
fn case_31_shows_the_pictures_between_b_frames_of_a_strict_pyramid() {
    alone(|| {
        shows_the_pictures_between_b_frames(&Source {
            profile: "main",
            preset: "medium",
            b_frames: 3,
            pyramid: "strict",
            ..Source::default()
        });
    });
}

fn shows_the_pictures_between_b_frames(source: &Source) {
    let gateway = Gateway::start(GATEWAY);
    let _publisher = source.publish(&gateway.rtmp("x"));
    let browser = Browser::start();
    let lab = Lab::open(&browser);
    gateway.wait_until_live("x");
    thread::sleep(Duration::from_secs(3));
    lab.play("viewer", &gateway.whep("x"));
    lab.wait_for_picture("viewer", Duration::from_secs(5));
    thread::sleep(Duration::from_secs(3));
    let before = lab.report("viewer");
    lab.forget("viewer");
    thread::sleep(Duration::from_secs(6));
    let report = lab.report("viewer");
    println!("{}", summary(&report));
    // One of four is none.
    let rate = report.picture_rate(&before);
    assert!((5.5..=7.0).contains(&rate), "{rate} pictures a second");
    let longest = report.number("/longestHoldMs");
    // A decoder that misses something stands for seconds, an encoder short of CPU for half of one.
    assert!(longest < 1_000.0, "the picture stood for {longest} ms");
    assert_eq!(
        report.number("/video/pliCount"),
        before.number("/video/pliCount"),
        "nothing is missing to the decoder"
    );
    assert_lip_sync(&lab, "viewer", 120.0);
}

/// One line of what was measured, for the log of the test.
fn summary(report: &Report) -> String {
    format!(
        "{}x{}, first picture {:.0} ms (answer {:.0}, connected {:.0}), decoded {}, lost {}, nack {}, pli {}, \
         freezes {}, longest hold {:.0} ms, pitch {:.0?} Hz, sound minus picture {:.0?} ms",
        report.number("/width"),
        report.number("/height"),
        report.number("/firstPictureMs"),
        report.number("/answerMs"),
        report.number("/connectedMs"),
        report.number("/video/framesDecoded"),
        report.number("/video/packetsLost"),
        report.number("/video/nackCount"),
        report.number("/video/pliCount"),
        report.number("/video/freezeCount"),
        report.number("/longestHoldMs"),
        report.numbers("/pitchHz"),
        report.numbers("/lipSyncMs"),
    )
}

//! RTMP in, RTMP out, with the programs people really use: ffmpeg, rtmpdump,
//! GStreamer.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::GATEWAY;
use crate::support::rtmp_tools::{self, Rtmpdump};
use crate::support::{Gateway, Source, alone, analysis, ffmpeg, flv, scratch_dir, wait_for};

/// The demo clip: H.264 and AAC that need no encoder to be published.
pub const CLIP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/demo/clip.flv");

/// Case 71.
#[test]
fn frames_pass_untouched() {
    alone(|| {
        let gateway = Gateway::start(GATEWAY);
        let _publisher = ffmpeg::publish_file(Path::new(CLIP), &gateway.rtmp("x"));
        gateway.wait_until_live("x");
        let file = scratch_dir("relay").join("x.flv");
        let mut recorder = ffmpeg::record(&gateway.rtmp("x"), Some(5), &file);
        let dump = Rtmpdump::play(&gateway.rtmp("x"));
        assert!(recorder.wait(Duration::from_secs(20)).success());
        assert_eq!(recorder.stderr(), "");

        for stream in ["v:0", "a:0"] {
            let sent = packet_hashes(Path::new(CLIP), stream);
            let received = packet_hashes(&file, stream);
            assert!(received.len() > 100, "{stream}: {} packets", received.len());
            // The clip is sent over and over: what came is a run of that.
            let endless: Vec<&String> = sent.iter().chain(&sent).chain(&sent).collect();
            let run: Vec<&String> = received.iter().collect();
            assert!(
                endless.windows(run.len()).any(|window| window == run),
                "{stream}: packets changed, were lost or came twice"
            );
        }
        flv::assert_in_order(&dump.tags());
        assert_eq!(analysis::decode_faults(&file), "");
        assert_start_together(&file);
    });
}

#[test]
fn ffmpeg_and_rtmpdump_end_with_the_publisher() {
    alone(|| {
        let gateway = Gateway::start(GATEWAY);
        let source = Source {
            audio_rate_hz: 44_100,
            ..Source::default()
        };
        let mut publisher = source.publish(&gateway.rtmp("x"));
        gateway.wait_until_live("x");
        let mut player = ffmpeg::decode(&gateway.rtmp("x"), None);
        let mut dump = Rtmpdump::play(&gateway.rtmp("x"));
        dump.first_picture(Duration::from_secs(5));
        thread::sleep(Duration::from_secs(3));
        publisher.interrupt();
        publisher.wait(Duration::from_secs(5));
        let status = player.wait(Duration::from_secs(8));
        assert!(status.success(), "ffmpeg: {status}");
        assert_eq!(player.stderr(), "");
        dump.process_mut().wait(Duration::from_secs(8));
        assert!(dump.pictures() > 40, "{} pictures", dump.pictures());
    });
}

#[test]
fn players_go_on_when_the_publisher_crashes_and_returns() {
    alone(|| {
        let gateway = Gateway::start(GATEWAY);
        let clip = Path::new(CLIP);
        let mut first = ffmpeg::publish_file(clip, &gateway.rtmp("x"));
        gateway.wait_until_live("x");
        let file = scratch_dir("restart").join("x.flv");
        let mut recorder = ffmpeg::record(&gateway.rtmp("x"), Some(9), &file);
        let mut dump = Rtmpdump::play(&gateway.rtmp("x"));
        dump.first_picture(Duration::from_secs(5));
        thread::sleep(Duration::from_secs(3));
        first.kill();
        thread::sleep(Duration::from_millis(700));
        let before = dump.pictures();
        let _second = ffmpeg::publish_file(clip, &gateway.rtmp("x"));
        wait_for("pictures come again", Duration::from_secs(4), || {
            (dump.pictures() > before + 25).then_some(())
        });
        assert!(
            dump.process_mut().is_running(),
            "rtmpdump was not thrown out"
        );
        let status = recorder.wait(Duration::from_secs(30));
        assert!(status.success(), "ffmpeg was not thrown out: {status}");
        assert_eq!(recorder.stderr(), "", "no timestamp went back");
        flv::assert_in_order(&dump.tags());
        assert_eq!(analysis::decode_faults(&file), "");
        // Time goes on by the gap: neither by nothing nor by hours.
        let pictures: Vec<u32> = dump
            .tags()
            .iter()
            .filter(|tag| tag.is_picture())
            .map(|tag| tag.timestamp_ms)
            .collect();
        let longest = pictures.windows(2).map(|pair| pair[1] - pair[0]).max();
        assert!(
            longest.is_some_and(|gap| (300..4_000).contains(&gap)),
            "the gap in time is {longest:?} ms"
        );
    });
}

#[test]
fn late_player_starts_with_a_picture_at_once() {
    alone(|| {
        let gateway = Gateway::start(GATEWAY);
        let source = Source {
            gop_seconds: 8,
            ..Source::default()
        };
        let _publisher = source.publish(&gateway.rtmp("x"));
        gateway.wait_until_live("x");
        thread::sleep(Duration::from_millis(1500));
        for _ in 0..3 {
            let dump = Rtmpdump::play(&gateway.rtmp("x"));
            let wait = dump.first_picture(Duration::from_secs(10)) - dump.started();
            println!("first picture after {wait:?}");
            assert!(wait < Duration::from_secs(1), "{wait:?}");
            thread::sleep(Duration::from_millis(500));
            flv::assert_in_order(&dump.tags());
        }
    });
}

#[test]
fn gstreamer_publishes() {
    alone(|| {
        let gateway = Gateway::start(GATEWAY);
        let _publisher = rtmp_tools::gstreamer_publish(&gateway.rtmp("x"));
        gateway.wait_until_live("x");
        let file = scratch_dir("gst-publish").join("x.flv");
        let mut recorder = ffmpeg::record(&gateway.rtmp("x"), Some(4), &file);
        let dump = Rtmpdump::play(&gateway.rtmp("x"));
        assert!(recorder.wait(Duration::from_secs(20)).success());
        flv::assert_in_order(&dump.tags());
        assert_eq!(analysis::decode_faults(&file), "");
        let pitch = analysis::pitch_hz(&analysis::samples(&file, 0));
        assert!((pitch - 440.0).abs() < 5.0, "{pitch} Hz");
    });
}

#[test]
fn gstreamer_plays_and_ends_with_the_publisher() {
    alone(|| {
        let gateway = Gateway::start(GATEWAY);
        let mut publisher = Source::default().publish(&gateway.rtmp("x"));
        gateway.wait_until_live("x");
        let file = scratch_dir("gst-play").join("x.flv");
        let mut player = rtmp_tools::gstreamer_record(&gateway.rtmp("x"), &file);
        thread::sleep(Duration::from_secs(4));
        assert!(player.is_running(), "GStreamer plays: {}", player.stderr());
        publisher.interrupt();
        publisher.wait(Duration::from_secs(5));
        player.wait(Duration::from_secs(10));
        flv::assert_in_order(&flv::tags_of(
            &std::fs::read(&file).expect("a file was written"),
        ));
        assert_eq!(analysis::decode_faults(&file), "");
        let pitch = analysis::pitch_hz(&analysis::samples(&file, 0));
        assert!((pitch - 440.0).abs() < 5.0, "{pitch} Hz");
    });
}

/// A second publisher of a live stream is refused by name, and the first one
/// does not notice.
#[test]
fn second_publisher_is_refused() {
    alone(|| {
        let gateway = Gateway::start(GATEWAY);
        let mut first = ffmpeg::publish_file(Path::new(CLIP), &gateway.rtmp("x"));
        gateway.wait_until_live("x");
        let mut second = ffmpeg::publish_file(Path::new(CLIP), &gateway.rtmp("x"));
        let status = second.wait(Duration::from_secs(8));
        assert!(!status.success(), "the second publisher is refused");
        assert!(first.is_running(), "the first one goes on");
    });
}

/// The MD5 of each packet of one stream, without its timestamps.
pub fn packet_hashes(file: &Path, stream: &str) -> Vec<String> {
    let output = Command::new("ffmpeg")
        .args(["-hide_banner", "-nostdin", "-loglevel", "error", "-i"])
        .arg(file)
        .args([
            "-map",
            &format!("0:{stream}"),
            "-c",
            "copy",
            "-f",
            "framemd5",
            "-",
        ])
        .output()
        .expect("ffmpeg starts");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit(',').next().map(|hash| hash.trim().to_owned()))
        .collect()
}

/// Sound and picture of a recording begin within 50 ms of one another, or one
/// GOP replay's worth of interleaving.
fn assert_start_together(file: &Path) {
    let tags = flv::tags_of(&std::fs::read(file).expect("the recording is there"));
    let start = |wanted: fn(&flv::Tag) -> bool| {
        tags.iter()
            .find(|tag| wanted(tag))
            .map(|tag| tag.timestamp_ms)
            .expect("the track is there")
    };
    let (sound, picture) = (start(flv::Tag::is_sound), start(flv::Tag::is_picture));
    assert!(
        sound.abs_diff(picture) < 50,
        "sound starts at {sound} ms, the picture at {picture} ms"
    );
}

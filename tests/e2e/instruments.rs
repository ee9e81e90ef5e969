//! The instruments themselves: before they judge the gateway, they are shown
//! something known.

use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::support::{
    Browser, Lab, Source, alone, analysis, assert_lip_sync, flv, median, scratch_dir,
};

/// Two peer connections of the same page stand in for the gateway: what the
/// laboratory measures here is its own error.
#[test]
fn laboratory_measures_a_browser_pair() {
    alone(|| {
        let browser = Browser::start();
        let lab = Lab::open(&browser);
        lab.tab().eval(STAND_IN);
        lab.publish(
            "cam",
            "stand-in",
            json!({ "toneHz": 520, "width": 320, "height": 180 }),
        );
        lab.play("viewer", "stand-in");
        lab.wait_for_picture("viewer", Duration::from_secs(10));
        thread::sleep(Duration::from_secs(3));
        lab.forget("viewer");
        let before = lab.report("viewer");
        thread::sleep(Duration::from_secs(4));
        let report = lab.report("viewer");

        let pitch = report.number("/pitchHz/0");
        assert!((pitch - 520.0).abs() < 8.0, "{pitch} Hz, {report:?}");
        let rate = report.picture_rate(&before);
        let sent = lab.report("cam").number("/video/framesPerSecond");
        assert!(
            (rate - sent).abs() < 4.0,
            "{rate} pictures a second of {sent}"
        );
        assert_eq!(report.text("/video/mimeType"), "video/H264");
        assert_eq!(report.number("/streams"), 1.0);
        assert_lip_sync(&lab, "viewer", 120.0);
    });
}

/// ffmpeg's source, written to a file, has the flash and the beep together, the
/// tone in each channel, and the shape that was asked for.
#[test]
fn source_is_what_it_claims() {
    alone(|| {
        let file = scratch_dir("source").join("source.flv");
        let source = Source {
            profile: "high",
            slices: 4,
            audio_rate_hz: 44_100,
            tones_hz: &[440, 880],
            seconds: 5,
            ..Source::default()
        };
        let status = source
            .publish(file.to_str().expect("the path is text"))
            .wait(Duration::from_secs(30));
        assert!(status.success());

        assert_eq!(analysis::decode_faults(&file), "");
        let description = analysis::describe(&file);
        for word in [
            "codec_name=h264",
            "profile=High",
            "width=640",
            "sample_rate=44100",
            "channels=2",
        ] {
            assert!(description.contains(word), "{word}: {description}");
        }
        for (channel, hz) in [(0, 440.0), (1, 880.0)] {
            let pitch = analysis::pitch_hz(&analysis::samples(&file, channel));
            assert!((pitch - hz).abs() < 5.0, "channel {channel}: {pitch} Hz");
        }
        let offset = median(&analysis::lip_sync_ms(&file));
        assert!(offset.abs() < 25.0, "{offset} ms");

        let tags = flv::tags_of(&std::fs::read(&file).expect("the file is there"));
        flv::assert_in_order(&tags);
        let slices = tags.iter().filter(|tag| tag.is_picture()).map(|tag| {
            tag.nal_types()
                .iter()
                .filter(|kind| matches!(kind, 1 | 5))
                .count()
        });
        assert_eq!(slices.max(), Some(4), "slices of a picture");
        assert_eq!(slices_min(&tags), 4);
    });
}

fn slices_min(tags: &[flv::Tag]) -> usize {
    tags.iter()
        .filter(|tag| tag.is_picture())
        .map(|tag| {
            tag.nal_types()
                .iter()
                .filter(|kind| matches!(kind, 1 | 5))
                .count()
        })
        .min()
        .unwrap_or(0)
}

/// Replaces `post` in the page: an offer that receives is answered with what the
/// publisher sends, one hop from the source as through the gateway.
const STAND_IN: &str = r"
(() => {
  globalThis.post = async (url, offer) => {
    const peer = new RTCPeerConnection();
    (globalThis.peers ??= []).push(peer);
    const sends = offer.includes('a=sendonly');
    // An answer keeps the order of the offer, and the first codec is sent.
    const h264 = [...offer.matchAll(/a=rtpmap:(\d+) H264/g)].map((match) => match[1]);
    offer = offer.replace(/(m=video \d+ \S+) (.*)/, (_, head, all) =>
      [head, ...h264, ...all.trim().split(' ').filter((pt) => !h264.includes(pt))].join(' '));
    await peer.setRemoteDescription({ type: 'offer', sdp: offer });
    const { stream } = lab.publishers.cam;
    if (!sends) for (const track of stream.getTracks()) peer.addTrack(track, stream);
    await peer.setLocalDescription(await peer.createAnswer());
    await new Promise((done) => {
      peer.onicegatheringstatechange = () => peer.iceGatheringState === 'complete' && done();
      if (peer.iceGatheringState === 'complete') done();
    });
    return { answer: peer.localDescription.sdp, location: location.href };
  };
})()";

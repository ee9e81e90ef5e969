//! A browser in, a browser out: one page publishes by WHIP, another plays by WHEP.

use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::GATEWAY;
use crate::support::{Browser, Gateway, Lab, alone, assert_lip_sync};

#[test]
fn page_plays_what_another_page_publishes() {
    alone(|| {
        let gateway = Gateway::start(GATEWAY);
        let browser = Browser::start();
        let sender = Lab::open(&browser);
        let receiver = Lab::open(&browser);
        sender.publish("cam", &gateway.whip("cam"), json!({ "toneHz": 520 }));
        gateway.wait_until_live("cam");
        // Not at once: there is no fresh IDR unless the gateway kept or asked for one.
        thread::sleep(Duration::from_secs(2));
        receiver.play("viewer", &gateway.whep("cam"));
        let first = receiver.wait_for_picture("viewer", Duration::from_secs(5));
        let wait = first.number("/firstPictureMs");
        assert!(wait < 1_000.0, "first picture after {wait:.0} ms");
        thread::sleep(Duration::from_secs(2));
        receiver.forget("viewer");
        let before = receiver.report("viewer");
        thread::sleep(Duration::from_secs(5));
        let report = receiver.report("viewer");

        assert_eq!(report.number("/streams"), 1.0);
        assert_eq!(
            (report.number("/width"), report.number("/height")),
            (640.0, 360.0)
        );
        let sent = sender.report("cam").number("/video/framesPerSecond");
        let rate = report.picture_rate(&before);
        assert!(
            (rate - sent).abs() < 4.0,
            "{rate} pictures a second of {sent}"
        );
        let pitch = report.number("/pitchHz/0");
        assert!((pitch - 520.0).abs() < 8.0, "{pitch} Hz");
        println!("first picture after {wait:.0} ms");
        // What the page makes is not exact itself: see `instruments`.
        assert_lip_sync(&receiver, "viewer", 120.0);
        assert_eq!(receiver.stop("viewer"), 200);
        assert_eq!(sender.stop("cam"), 200);
    });
}

/// A crashed browser must not lock its stream: the next publisher of the same
/// name takes over once the first has been silent for some seconds.
#[test]
fn stream_is_free_again_after_its_browser_crashed() {
    alone(|| {
        let gateway = Gateway::start(GATEWAY);
        let crashing = Browser::start();
        let lab = Lab::open(&crashing);
        lab.publish("first", &gateway.whip("cam"), json!({}));
        gateway.wait_until_live("cam");
        thread::sleep(Duration::from_secs(1));
        // SIGKILL: no DELETE, no DTLS close_notify.
        drop(lab);
        drop(crashing);
        let browser = Browser::start();
        let lab = Lab::open(&browser);
        // Three seconds of silence by default, with room.
        thread::sleep(Duration::from_secs(4));
        lab.publish("second", &gateway.whip("cam"), json!({}));
        lab.play("viewer", &gateway.whep("cam"));
        lab.wait_for_picture("viewer", Duration::from_secs(10));
    });
}

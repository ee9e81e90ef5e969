//! The gateway's own page, as a visitor sees it: deep links, figures, looks.

use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::GATEWAY;
use crate::support::{Browser, Gateway, Source, Tab, alone, wait_for};

/// What the page's video element shows, and what stands on the page.
const LOOK: &str = r"(() => {
  const video = [...document.querySelectorAll('video')].find((v) => v.videoWidth > 0);
  return {
    width: video ? video.videoWidth : 0,
    height: video ? video.videoHeight : 0,
    time: video ? video.currentTime : 0,
    paused: video ? video.paused : true,
    frames: video ? video.getVideoPlaybackQuality().totalVideoFrames : 0,
    text: document.body.innerText,
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  };
})()";

#[test]
fn deep_link_plays_and_figures_appear() {
    alone(|| {
        let gateway = Gateway::start(GATEWAY);
        let _publisher = Source::default().publish(&gateway.rtmp("me"));
        gateway.wait_until_live("me");
        let browser = Browser::start();
        let tab = browser.open(&gateway.http("/?play=live/me"), 1280, 800);
        let look = plays(&tab);
        assert_eq!(
            (&look["width"], &look["height"]),
            (&640.into(), &360.into())
        );
        // Figures are refreshed about once a second.
        thread::sleep(Duration::from_secs(4));
        let desktop = tab.screenshot("page-desktop");
        let text = tab.eval(LOOK)["text"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        for figure in ["640", "360", "25", "live/me"] {
            assert!(text.contains(figure), "{figure} is not on the page: {text}");
        }
        for word in ["bit/s", "fps"] {
            assert!(text.contains(word), "{word} is not on the page: {text}");
        }

        tab.set_size(390, 844, true);
        thread::sleep(Duration::from_secs(1));
        let look = tab.eval(LOOK);
        let phone = tab.screenshot("page-phone");
        assert!(
            look["overflow"].as_i64() <= Some(0),
            "the phone view scrolls sideways"
        );
        println!("{} {}", desktop.display(), phone.display());
        assert_no_faults(&tab);
    });
}

#[test]
fn list_shows_live_streams() {
    alone(|| {
        let gateway = Gateway::start(GATEWAY);
        let _publisher = Source::default().publish(&gateway.rtmp("me"));
        gateway.wait_until_live("me");
        let browser = Browser::start();
        let tab = browser.open(&gateway.http("/"), 1280, 800);
        wait_for("the list names the stream", Duration::from_secs(8), || {
            tab.eval(LOOK)["text"]
                .as_str()
                .unwrap_or_default()
                .contains("live/me")
                .then_some(())
        });
        tab.screenshot("page-list");
        assert_no_faults(&tab);
    });
}

#[test]
fn demo_plays_in_the_page() {
    alone(|| {
        let gateway = Gateway::start_with(GATEWAY, &["--demo"], "");
        let browser = Browser::start();
        let tab = browser.open(&gateway.http("/?play=live/demo"), 1280, 800);
        let look = plays(&tab);
        assert_eq!(
            (&look["width"], &look["height"]),
            (&640.into(), &360.into())
        );
        thread::sleep(Duration::from_secs(2));
        tab.screenshot("page-demo");
        // Over the seam of the clip, which is 16 s long, the picture goes on.
        let before = tab.eval(LOOK)["frames"].as_f64().unwrap_or(0.0);
        thread::sleep(Duration::from_secs(16));
        let pictures = tab.eval(LOOK)["frames"].as_f64().unwrap_or(0.0) - before;
        assert!(
            (380.0..=430.0).contains(&pictures),
            "{pictures} pictures in 16 s"
        );
        assert_no_faults(&tab);
    });
}

#[test]
fn test_picture_is_published_by_deep_link() {
    alone(|| {
        let gateway = Gateway::start(GATEWAY);
        let browser = Browser::start();
        let sender = browser.open(&gateway.http("/?publish=live/me&source=test"), 1280, 800);
        gateway.wait_until_live("me");
        let viewer = browser.open(&gateway.http("/?play=live/me"), 1280, 800);
        plays(&viewer);
        thread::sleep(Duration::from_secs(2));
        sender.screenshot("page-publish");
        assert_no_faults(&viewer);
    });
}

/// Waits until the page's video moves.
fn plays(tab: &Tab<'_>) -> Value {
    let before = wait_for("the page shows a picture", Duration::from_secs(10), || {
        let look = tab.eval(LOOK);
        (look["frames"].as_f64() > Some(0.0)).then_some(look)
    });
    thread::sleep(Duration::from_secs(2));
    let after = tab.eval(LOOK);
    assert_eq!(after["paused"], false, "{after}");
    let moved = after["frames"].as_f64().unwrap_or(0.0) - before["frames"].as_f64().unwrap_or(0.0);
    assert!(moved > 30.0, "the picture moves: {moved} pictures in 2 s");
    after
}

/// The page's console has neither exceptions nor errors.
fn assert_no_faults(tab: &Tab<'_>) {
    let faults: Vec<String> = tab
        .console()
        .into_iter()
        .filter(|line| line.starts_with("exception") || line.starts_with("error"))
        .collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

//! The gateway's own page, as a visitor sees it: deep links, figures, looks.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

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

/// What the health panel says. The clipboard is replaced by a variable.
const HEALTH: &str = r"(() => {
  const panel = document.getElementById('health');
  const words = (id) => panel.querySelector(`[data-testid='health-${id}']`)?.innerText ?? '';
  const frame = document.getElementById('stage').getBoundingClientRect();
  return {
    open: !panel.hidden,
    verdict: words('verdict'),
    note: words('note'),
    warnings: [...panel.querySelectorAll(`[data-testid='health-warning']`)].map((w) => w.innerText),
    size: words('size'), fps: words('fps'), bitrate: words('video-bitrate'), gop: words('gop'),
    key: words('since-key'), b: words('b-frames'), transcode: words('transcode'),
    queue: words('transcode-queue'), clock: words('clock-offset'), faults: words('faults'),
    players: words('players'),
    focus: document.activeElement?.id,
    markup: panel.querySelectorAll('img, script').length,
    picture: frame.top >= -1 && frame.bottom <= innerHeight + 1,
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  };
})()";

/// Presses a key in the page, as a keyboard does.
fn press(tab: &Tab<'_>, key: &str, text: &str) {
    for kind in ["keyDown", "keyUp"] {
        let code = if key == "Enter" { 13 } else { 27 };
        let mut event =
            json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
        if kind == "keyDown" && !text.is_empty() {
            event["text"] = text.into();
        }
        tab.call("Input.dispatchKeyEvent", event);
    }
}

#[test]
fn health_panel_tells_what_is_wrong_and_keeps_the_picture_in_sight() {
    alone(|| {
        let gateway = Gateway::start(GATEWAY);
        let source = Source {
            b_frames: 2,
            profile: "main",
            ..Source::default()
        };
        let _publisher = source.publish(&gateway.rtmp("me"));
        gateway.wait_until_live("me");
        let browser = Browser::start();
        let tab = browser.open(&gateway.http("/?play=live/me"), 1280, 1400);
        wait_for("a picture", Duration::from_secs(10), || {
            (tab.eval(LOOK)["frames"].as_f64() > Some(0.0)).then_some(())
        });
        // By keyboard alone: open, read, close, and the focus is back.
        tab.eval("document.getElementById('health-open').focus()");
        press(&tab, "Enter", "\r");
        let health = wait_for("the figures", Duration::from_secs(10), || {
            let health = tab.eval(HEALTH);
            let text = |key: &str| health[key].as_str().unwrap_or_default().to_owned();
            let fps = text("fps")
                .split_whitespace()
                .find_map(|word| word.parse::<f64>().ok());
            let is_settled = fps.is_some_and(|fps| (24.0..=26.0).contains(&fps));
            (text("gop").contains("2 s") && is_settled).then_some(health)
        });
        assert_eq!(health["focus"], "health-title", "{health}");
        let text = |key: &str| health[key].as_str().unwrap_or_default().to_owned();
        assert!(text("verdict").contains("warning"), "{health}");
        let warnings = health["warnings"].to_string();
        assert!(warnings.contains("has B-frames") && warnings.contains("bframes=0"));
        for (key, word) in [
            ("size", "640×360"),
            ("size", "Main"),
            ("bitrate", "bit/s"),
            ("key", "so far"),
            ("b", "left out for browsers"),
            ("transcode", "AAC → Opus"),
            ("queue", "frame"),
            ("clock", "ms"),
            ("faults", "none"),
            ("players", "WHEP"),
            ("players", "everything"),
        ] {
            assert!(text(key).contains(word), "{key}: {word}: {health}");
        }
        let desktop = tab.screenshot("page-health-desktop");
        // All of the one URL, fit for a bug report.
        tab.eval("navigator.clipboard.writeText = async (text) => { window.copied = text; }");
        tab.eval("document.getElementById('health-copy').click()");
        let copied = wait_for("a copy", Duration::from_secs(2), || {
            tab.eval("window.copied ?? null")
                .as_str()
                .map(str::to_owned)
        });
        let copied: Value = serde_json::from_str(&copied).expect("JSON");
        assert_eq!(copied["name"], "live/me");
        assert_eq!(copied["player_list"].as_array().map(Vec::len), Some(1));
        assert!(copied["tracks"][0]["b_frames"].as_u64() > Some(10));
        assert!(copied["publisher"]["client"].is_string());
        // It asks gently, and not at all once it is closed.
        let asks = "performance.getEntriesByType('resource')\
            .filter((e) => e.name.endsWith('/api/v1/streams/live/me')).length";
        let before = tab.eval(asks).as_f64().unwrap_or(0.0);
        thread::sleep(Duration::from_secs(6));
        let during = tab.eval(asks).as_f64().unwrap_or(0.0) - before;
        assert!((2.0..=4.0).contains(&during), "{during} requests in 6 s");

        tab.set_size(390, 844, true);
        thread::sleep(Duration::from_secs(1));
        tab.eval("document.getElementById('health').scrollIntoView()");
        thread::sleep(Duration::from_millis(600));
        let top = tab.screenshot("page-health-phone");
        let look = tab.eval(HEALTH);
        assert_eq!(look["picture"], true, "{look}");
        tab.eval("document.getElementById('health-players').scrollIntoView({ block: 'end' })");
        thread::sleep(Duration::from_millis(600));
        let look = tab.eval(HEALTH);
        assert_eq!(look["picture"], true, "the end of the panel too: {look}");
        assert!(look["overflow"].as_i64() <= Some(0), "{look}");
        let end = tab.screenshot("page-health-phone-end");
        for shot in [desktop, top, end] {
            println!("{}", shot.display());
        }
        tab.eval("document.getElementById('health-close').focus()");
        press(&tab, "Escape", "");
        let look = tab.eval(HEALTH);
        assert_eq!(look["open"], false);
        assert_eq!(look["focus"], "health-open");
        // What it still asked is noted by now.
        thread::sleep(Duration::from_millis(500));
        let before = tab.eval(asks);
        thread::sleep(Duration::from_secs(3));
        assert_eq!(tab.eval(asks), before, "closed, it asks nothing");
        assert_no_faults(&tab);
    });
}

#[test]
fn health_panel_says_what_is_missing_without_the_right_and_escapes_names() {
    alone(|| {
        let access = "[access]\nanonymous = [\"publish\"]\nsecret = \"swordfish\"\n";
        let gateway = Gateway::start_with(GATEWAY, &[], access);
        let publisher = Source::default().publish(&gateway.rtmp("me"));
        let browser = Browser::start();
        let tab = browser.open(&gateway.http("/?health=live/me"), 1280, 1000);
        said(&tab, "note", "Token field");
        tab.screenshot("page-health-closed");
        tab.eval("document.getElementById('token').value = 'swordfish'");
        said(&tab, "verdict", "all well");
        drop(publisher);
        let name = "/?token=swordfish&health=live/%3Cimg%20src=x%20onerror=alert(1)%3E";
        let tab = browser.open(&gateway.http(name), 1280, 1000);
        let look = said(&tab, "note", "<img src=x onerror=alert(1)>");
        assert_eq!(look["markup"], 0);
    });
}

/// Waits until the health panel says so.
fn said(tab: &Tab<'_>, key: &str, word: &str) -> Value {
    wait_for(word, Duration::from_secs(10), || {
        let health = tab.eval(HEALTH);
        let says = health[key].as_str().unwrap_or_default().contains(word);
        says.then_some(health)
    })
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

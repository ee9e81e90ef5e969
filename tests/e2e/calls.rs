//! Conversations: a browser on the gateway's call page and mini-programs, whoever rings first. A
//! mini-program is its own signalling code under Node with the simulated media tags.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::GATEWAY;
use crate::support::analysis::{decode_faults, pitch_hz, samples};
use crate::support::tags::player::Seen;
use crate::support::{Browser, Gateway, MiniProgram, Tab, alone, wait_for};

/// Strength of the tone that the tiles play, near 440 Hz against elsewhere, by user: what a person hears.
const LISTEN: &str = r"(async () => {
  const context = new AudioContext();
  await context.resume();
  const heard = {};
  const tiles = [...document.querySelectorAll('.tile')];
  await Promise.all(tiles.map(async (tile) => {
    const stream = tile.querySelector('video').srcObject;
    const analyser = new AnalyserNode(context, { fftSize: 16384 });
    context.createMediaStreamSource(stream).connect(analyser);
    await new Promise((resolve) => setTimeout(resolve, 1500));
    const bins = new Float32Array(analyser.frequencyBinCount);
    analyser.getFloatFrequencyData(bins);
    const at = bins.indexOf(Math.max(...bins));
    heard[tile.dataset.user] = Math.round(at * context.sampleRate / analyser.fftSize);
  }));
  await context.close();
  return heard;
})()";

fn page(gateway: &Gateway, user: &str, more: &str) -> String {
    gateway.http(&format!("/call?user={user}&source=test{more}"))
}

fn ws(gateway: &Gateway) -> String {
    gateway.http("/ws").replacen("http", "ws", 1)
}

fn state(tab: &Tab<'_>) -> Value {
    tab.eval("window.gatewayCall ?? null")
}

fn wait_state(tab: &Tab<'_>, wanted: &str) {
    let what = format!("the page is {wanted}");
    wait_for(&what, Duration::from_secs(10), || {
        (state(tab)["state"] == wanted).then_some(())
    });
}

fn click(tab: &Tab<'_>, testid: &str) {
    let find = format!("document.querySelector('[data-testid=\"{testid}\"]')");
    let what = format!("{testid} can be clicked");
    wait_for(&what, Duration::from_secs(10), || {
        let is_there = format!(
            "(() => {{ const b = {find}; return !!b && !b.disabled && b.offsetParent !== null }})()"
        );
        (tab.eval(&is_there) == true).then_some(())
    });
    tab.eval(&format!("{find}.click()"));
}

/// The page sees and hears everybody of `users`.
fn page_sees(tab: &Tab<'_>, users: &[&str]) {
    let seen = wait_for("the page sees everybody", Duration::from_secs(15), || {
        let members = state(tab)["members"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let moving = members
            .iter()
            .filter(|member| member["frames_decoded"].as_u64() > Some(20));
        (moving.count() == users.len()).then_some(members)
    });
    for member in seen {
        assert!(member["width"].as_u64() > Some(0), "{member}");
    }
    let heard = tab.eval(LISTEN);
    for user in users {
        let hertz = heard[*user].as_f64().unwrap_or(0.0);
        assert!((430.0..=450.0).contains(&hertz), "{user}: {heard}");
    }
}

/// The mini-program gets picture and tone of everybody of `users`.
fn phone_sees(phone: &MiniProgram, users: &[&str]) {
    for user in users {
        let until = Instant::now() + Duration::from_secs(15);
        loop {
            let (codes, seen) = phone.of(user);
            if seen.pictures > 40 && seen.sounds > 100 {
                break;
            }
            let seen = Seen { kept: None, ..seen };
            assert!(Instant::now() < until, "{user}: {codes:?} {seen:?}");
            thread::sleep(Duration::from_millis(100));
        }
        let (codes, seen) = phone.of(user);
        assert_eq!(seen.undecodable, 0, "{user}: {codes:?}");
        let file = phone.record(user);
        assert_eq!(decode_faults(&file), "", "{user}");
        let hertz = pitch_hz(&samples(&file, 0));
        assert!((430.0..=450.0).contains(&hertz), "{user}: {hertz} Hz");
    }
}

/// The page's console has neither exceptions nor errors.
fn assert_no_faults(tab: &Tab<'_>) {
    let console = tab.console();
    let faults: Vec<&String> = console
        .iter()
        .filter(|line| line.starts_with("exception") || line.starts_with("error"))
        .collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn a_browser_calls_a_mini_program() {
    alone(|| {
        let gateway = Gateway::start(GATEWAY);
        let mut phone = MiniProgram::start(&ws(&gateway), "anna");
        let browser = Browser::start();
        let tab = browser.open(&page(&gateway, "dr-li", ""), 1280, 800);
        wait_state(&tab, "free");
        tab.screenshot("call-lobby");
        click(&tab, "call-anna");
        phone.wait("it rings at the phone", 10, |now| now["state"] == "ringing");
        wait_state(&tab, "inviting");
        tab.screenshot("call-inviting");
        phone.act("accept");
        wait_state(&tab, "talking");
        page_sees(&tab, &["anna"]);
        phone_sees(&phone, &["dr-li"]);
        tab.screenshot("call-talking");
        tab.set_size(390, 844, true);
        thread::sleep(Duration::from_secs(1));
        tab.screenshot("call-talking-phone");

        // The app goes to the background: its socket dies, its call does not.
        let before = phone.of("dr-li").1.pictures;
        phone.act_with("away", serde_json::json!({ "isSudden": true }));
        thread::sleep(Duration::from_secs(4));
        assert_eq!(state(&tab)["state"], "talking");
        phone.act("back");
        phone.wait("it is back", 10, |now| now["online"] == "online");
        let (codes, seen) = phone.of("dr-li");
        assert!(seen.pictures > before + 60, "{codes:?} {}", seen.pictures);
        assert_eq!(
            (seen.undecodable, seen.discontinuities),
            (0, 0),
            "{codes:?}"
        );

        click(&tab, "hangup");
        phone.wait("the phone is told", 10, |now| now["state"] == "free");
        assert_eq!(phone.conversation()["ended"], "hangup");
        wait_state(&tab, "free");
        assert_no_faults(&tab);
    });
}

#[test]
fn a_mini_program_calls_a_browser() {
    alone(|| {
        let gateway = Gateway::start(GATEWAY);
        let mut phone = MiniProgram::start(&ws(&gateway), "anna");
        let browser = Browser::start();
        let tab = browser.open(&page(&gateway, "dr-li", ""), 390, 844);
        tab.set_size(390, 844, true);
        wait_state(&tab, "free");
        phone.act_with("invite", serde_json::json!({ "user": "dr-li" }));
        wait_state(&tab, "ringing");
        phone.wait("the phone hears that it rings", 10, |now| {
            now["isRinging"] == true
        });
        tab.screenshot("call-ringing-phone");
        click(&tab, "accept");
        phone.wait("the call stands", 10, |now| now["state"] == "talking");
        page_sees(&tab, &["anna"]);
        phone_sees(&phone, &["dr-li"]);

        phone.act("hangup");
        wait_state(&tab, "free");
        assert_eq!(state(&tab)["ended"]["reason"], "hangup");
        thread::sleep(Duration::from_millis(500));
        tab.screenshot("call-ended-phone");
        assert_no_faults(&tab);
    });
}

#[test]
fn three_browsers_and_three_mini_programs_meet_in_a_room() {
    alone(|| {
        let gateway = Gateway::start(GATEWAY);
        let mut phones: Vec<MiniProgram> = ["p1", "p2", "p3"]
            .map(|user| MiniProgram::start(&ws(&gateway), user))
            .into();
        for phone in &mut phones {
            phone.act_with("join", serde_json::json!({ "room": "ward-3" }));
        }
        let browser = Browser::start();
        let tabs = ["b1", "b2", "b3"]
            .map(|user| browser.open(&page(&gateway, user, "&room=ward-3"), 1280, 800));
        let all = ["b1", "b2", "b3", "p1", "p2", "p3"];
        let others =
            |me: &str| -> Vec<&str> { all.into_iter().filter(|&user| user != me).collect() };
        for (tab, user) in tabs.iter().zip(["b1", "b2", "b3"]) {
            page_sees(tab, &others(user));
        }
        for (phone, user) in phones.iter().zip(["p1", "p2", "p3"]) {
            phone_sees(phone, &others(user));
        }
        tabs[0].screenshot("call-room");
        // One leaves, and the others' tiles close up.
        phones[2].act("hangup");
        wait_for("its tile is gone", Duration::from_secs(10), || {
            (state(&tabs[0])["members"].as_array().map(Vec::len) == Some(4)).then_some(())
        });
        assert_no_faults(&tabs[0]);
    });
}

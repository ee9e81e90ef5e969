//! After whatever trouble of its network a viewer is at the live edge in about two seconds, and
//! soon has all pictures again.

use std::time::{Duration, Instant};

use crate::common::screen::{Figures, Screen};
use crate::common::world::{Cap, Link, World};

/// What a viewer's network does for a while.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// Nothing arrives, neither way.
    Blackout,
    /// So much of the stream's rate fits, behind a queue of so many ms.
    Cap(f64, u64),
}

/// When a viewer was well again, after the end of the trouble.
#[derive(Clone, Copy, Debug)]
struct Recovery {
    /// What is shown is as fresh as before, for the first time.
    first_live: Duration,
    /// And from when on it stays so.
    live: Duration,
    /// All pictures come from here on.
    whole: Duration,
}

const FAR: Link = Link {
    delay: Duration::from_millis(20),
    jitter: Duration::ZERO,
    loss_permille: 0,
    burst: None,
    duplicate_permille: 0,
    cap: None,
};

/// `shift_ms` moves the trouble against the key frames and the receiver's reports.
fn recover(trouble: Trouble, seconds: u64, shift_ms: u64) -> (Recovery, Figures) {
    let mut world = World::new().seed(shift_ms + 1);
    world.rtmp_publish("live/a");
    world.run_ms(2_500);
    let viewer = world.whep("live/a").expect("accepted");
    let browser = world.browser_mut(viewer);
    (browser.up, browser.down) = (Some(FAR), Some(FAR));
    let mut screen = Screen::new(FAR.delay * 2);
    screen.run_ms(&mut world, viewer, 5_000 + shift_ms);
    let stream = world.stream("live/a").expect("published");
    let rate = stream["tracks"][0]["bitrate_bps"].as_f64().unwrap() + 96_000.0;
    let begun = world.now;
    let browser = world.browser_mut(viewer);
    match trouble {
        Trouble::Blackout => browser.online = false,
        Trouble::Cap(share, queue_ms) => {
            let cap = Cap {
                bits_per_second: (rate * share) as u64,
                queue: Duration::from_millis(queue_ms),
            };
            browser.down = Some(Link {
                cap: Some(cap),
                ..FAR
            });
        }
    }
    screen.run_ms(&mut world, viewer, seconds * 1_000);
    let over = world.now;
    let browser = world.browser_mut(viewer);
    browser.online = true;
    browser.down = Some(FAR);
    screen.run_ms(&mut world, viewer, 15_000);
    let settles = match seconds >= 30 {
        true => SETTLES,
        false => Duration::ZERO,
    };
    let span = (begun + settles, over);
    let during = Figures::of_viewer(&world, viewer, &screen, span);
    (recovery(&screen.shown, over), during)
}

fn recovery(shown: &[(Instant, u64)], over: Instant) -> Recovery {
    let media = |time: u64| Duration::from_secs_f64((time - shown[0].1) as f64 / 90_000.0);
    let zero = shown.iter().map(|(at, time)| *at - media(*time)).min();
    let zero = zero.expect("shown");
    let is_fresh = |(at, time): &(Instant, u64)| *at - (zero + media(*time)) <= FRESH;
    let since_over = |at: Instant| at.saturating_duration_since(over);
    let first = shown.iter().find(|one| one.0 > over && is_fresh(one));
    // Shown late, or as old as that because the next one did not come.
    let stale = shown.windows(2).rfind(|pair| {
        let is_gap = pair[1].0 - (zero + media(pair[0].1)) > FRESH + PICTURE * 2;
        is_gap || !is_fresh(&pair[1])
    });
    let gap = shown
        .windows(2)
        .rfind(|pair| media(pair[1].1) - media(pair[0].1) > PICTURE + PICTURE / 8);
    Recovery {
        first_live: since_over(first.expect("live").0),
        live: stale.map_or(Duration::ZERO, |pair| since_over(pair[1].0)),
        whole: gap.map_or(Duration::ZERO, |pair| since_over(pair[1].0)),
    }
}

const PICTURE: Duration = Duration::from_millis(40);
const FRESH: Duration = Duration::from_millis(100);

/// A cap needs so long to be seen and to be answered.
const SETTLES: Duration = Duration::from_secs(6);

/// Ten ends of the trouble, spread over two seconds: the distance of key frames, and more than
/// that of reports.
fn measured(trouble: Trouble, seconds: u64) -> Vec<Recovery> {
    let mut all = Vec::new();
    let mut during = Vec::new();
    for shift in 0..10 {
        let (recovery, figures) = recover(trouble, seconds, shift * 215);
        all.push(recovery);
        during.push((figures.concealed, figures.sound_late, figures.delivered));
    }
    let spread = |of: fn(&Recovery) -> Duration| {
        let mut all: Vec<Duration> = all.iter().map(of).collect();
        all.sort_unstable();
        format!("{:?} ({:?})", all[all.len() / 2], all[all.len() - 1])
    };
    println!(
        "{trouble:?} {seconds} s: first live {}, live {}, whole {}; sound missing, late, pictures: {during:.3?}",
        spread(|one| one.first_live),
        spread(|one| one.live),
        spread(|one| one.whole)
    );
    all
}

/// An outage is no lack of room: what comes after it is sent at once.
#[test]
fn after_an_outage_a_viewer_is_live_and_has_all_pictures_at_once() {
    for seconds in [1, 3, 10] {
        for one in measured(Trouble::Blackout, seconds) {
            let longest = one.live.max(one.whole).max(one.first_live);
            assert!(
                longest <= Duration::from_millis(500),
                "{seconds} s: {one:?}"
            );
        }
    }
}

/// Echoes show the end of a cap within some hundred ms.
#[test]
fn after_a_cap_a_viewer_is_live_and_has_all_pictures_in_about_two_seconds() {
    for (share, seconds) in [(0.5, 5), (0.5, 30), (0.8, 30)] {
        for one in measured(Trouble::Cap(share, 300), seconds) {
            let longest = one.live.max(one.whole).max(one.first_live);
            assert!(
                longest <= Duration::from_millis(2_250),
                "{share}, {seconds} s: {one:?}"
            );
        }
    }
}

/// The figures of the loss table, where the right ones are known: nothing lost, and a second in
/// which nothing arrives.
#[test]
fn figures_say_what_happened() {
    let mut world = World::new();
    world.rtmp_publish("live/a");
    world.run_ms(2_500);
    let viewer = world.whep("live/a").expect("accepted");
    world.browser_mut(viewer).down = Some(FAR);
    let mut screen = Screen::new(FAR.delay * 2);
    screen.run_ms(&mut world, viewer, 5_000);
    let span = |world: &World, from: Instant| (from + FAR.delay, world.now + FAR.delay);
    let from = world.now;
    let asked = screen.run_ms(&mut world, viewer, 10_000);
    let clean = span(&world, from);
    let from = world.now;
    screen.run_ms(&mut world, viewer, 3_000);
    world.browser_mut(viewer).online = false;
    screen.run_ms(&mut world, viewer, 1_000);
    world.browser_mut(viewer).online = true;
    screen.run_ms(&mut world, viewer, 6_000);
    let cut = span(&world, from);
    screen.run_ms(&mut world, viewer, 2_000);

    let figures = Figures::of_viewer(&world, viewer, &screen, clean);
    assert_eq!(
        (figures.delivered, figures.concealed),
        (1.0, 0.0),
        "{figures:?}"
    );
    assert_eq!(
        (figures.freezes, figures.recovery, asked),
        (0, 0, 0),
        "{figures:?}"
    );
    // The screen's turn; and sound of 20 ms is made of AAC frames of 21 to 23 ms.
    assert!(figures.late.1 <= 10, "{figures:?}");
    assert!(figures.sound_late <= 25, "{figures:?}");

    let figures = Figures::of_viewer(&world, viewer, &screen, cut);
    assert_eq!(figures.freezes, 1, "{figures:?}");
    // A second, and what the next decodable picture takes: the pause is from the last picture
    // before, the recovery from the first that is missing.
    assert!((1_000..=1_500).contains(&figures.longest), "{figures:?}");
    assert!(
        (35..=45).contains(&(figures.longest - figures.recovery)),
        "{figures:?}"
    );
    let missing_ms = (1.0 - figures.delivered) * 10_000.0;
    assert!(
        (missing_ms - figures.recovery as f64).abs() <= 20.0,
        "{figures:?}"
    );
    assert!((0.098..=0.102).contains(&figures.concealed), "{figures:?}");
}

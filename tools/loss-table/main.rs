//! Prints what a bad network costs, both ways, as a table: pictures, freezes, recovery, delay and
//! sound.
//!
//! The whole gateway runs in memory with a publisher and a player, under a virtual clock;
//! losses are drawn from a seed. So the figures are the gateway's own and are the same on
//! every machine, but for what DTLS draws itself. Run by `tools/loss-table/run`.

#[path = "../../tests/common/mod.rs"]
mod common;

use std::collections::HashMap;
use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use common::clip::{AUDIO, Clip, VIDEO};
use common::screen::{Figures, Screen, Trip};
use common::world::{Burst, Link, World, coded};

fn main() -> ExitCode {
    let mut seconds = 60;
    let mut into_readme = false;
    for word in std::env::args().skip(1) {
        match word.parse() {
            Ok(number) if (5..=3_600).contains(&number) => seconds = number,
            _ if word == "--readme" => into_readme = true,
            _ => {
                eprintln!("loss-table: --readme, or how many virtual seconds, 5 to 3600");
                return ExitCode::from(2);
            }
        }
    }
    check_uplink();
    let text = tables(seconds);
    if into_readme && let Err(reason) = put_into_readme(&text) {
        eprintln!("loss-table: {reason}");
        return ExitCode::from(1);
    }
    ExitCode::SUCCESS
}

/// Prints each row as it is measured; answers with all of them.
fn tables(seconds: u64) -> String {
    let mut text = String::new();
    let mut say = |line: &str| {
        println!("{line}");
        text.push_str(line);
        text.push('\n');
    };
    say(&format!(
        "{seconds} s of each network, 25 pictures and 50 sound packets a second, both ways alike."
    ));
    for (title, run) in [
        (
            "WebRTC publisher to RTMP player",
            uplink as fn(Link, u64) -> Figures,
        ),
        ("RTMP publisher to WebRTC viewer", downlink),
    ] {
        say(&format!("\n## {title}\n"));
        say(
            "| round trip | network | pictures | freezes | longest | recovery mean | late p50 | late p99 | sound made up | sound late p99 | key frames asked |",
        );
        say("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
        for rtt in [20, 100, 300] {
            for (name, network) in networks() {
                let link = Link {
                    delay: Duration::from_millis(rtt / 2),
                    ..network
                };
                let figures = run(link, seconds);
                say(&format!(
                    "| {rtt} ms | {name} | {:.2} % | {} | {} ms | {} ms | {} ms | {} ms | {:.2} % | {} ms | {} |",
                    figures.delivered * 100.0,
                    figures.freezes,
                    figures.longest,
                    figures.recovery,
                    figures.late.0,
                    figures.late.1,
                    figures.concealed * 100.0,
                    figures.sound_late,
                    figures.asked
                ));
            }
        }
    }
    text
}

fn put_into_readme(text: &str) -> Result<(), String> {
    const FILE: &str = "tools/loss-table/README.md";
    const BEGIN: &str = "<!-- tables: begin -->";
    const END: &str = "<!-- tables: end -->";
    let readme = fs::read_to_string(FILE).map_err(|error| format!("{FILE}: {error}"))?;
    let (before, rest) = (readme.split_once(BEGIN)).ok_or(format!("{FILE} has no {BEGIN}"))?;
    let (_, after) = rest.split_once(END).ok_or(format!("{FILE} has no {END}"))?;
    let readme = format!("{before}{BEGIN}\n\n{text}\n{END}{after}");
    fs::write(FILE, readme).map_err(|error| format!("{FILE}: {error}"))
}

fn networks() -> Vec<(&'static str, Link)> {
    let clean = Link::default();
    let random = |percent: u64| Link {
        loss_permille: percent * 10,
        ..clean
    };
    // Of bursts of five packets, so that `percent` of all are in one.
    let bursts = |percent: u64| Link {
        burst: Some(Burst {
            begins: percent * 10_000 / (5 * (100 - percent)),
            length: 5,
        }),
        ..clean
    };
    vec![
        ("1 % lost", random(1)),
        ("5 % lost", random(5)),
        ("10 % lost", random(10)),
        ("1 % in bursts", bursts(1)),
        ("5 % in bursts", bursts(5)),
        ("10 % in bursts", bursts(10)),
        (
            "reordered over 20 ms",
            Link {
                jitter: Duration::from_millis(20),
                ..clean
            },
        ),
        (
            "5 % doubled",
            Link {
                duplicate_permille: 50,
                ..clean
            },
        ),
    ]
}

/// Networks of known answers: the figures are only worth printing if these are right.
fn check_uplink() {
    let delay = Duration::from_millis(50);
    let clean = Link {
        delay,
        ..Link::default()
    };
    let nothing_lost = uplink(clean, 10);
    assert_eq!(nothing_lost.delivered, 1.0, "{nothing_lost:?}");
    assert_eq!((nothing_lost.freezes, nothing_lost.asked), (0, 0));
    assert_eq!(nothing_lost.concealed, 0.0, "{nothing_lost:?}");
    assert!(nothing_lost.late.1 <= 1, "{nothing_lost:?}");
    // A sound of 21.3 ms ends with one of two packets of 20 ms.
    assert!(nothing_lost.sound_late <= 20, "{nothing_lost:?}");

    // Dead for two seconds of ten, while 50 pictures are sent.
    let dead = Duration::from_secs(2);
    let figures = uplink_through(clean, 10, Some(dead));
    let lost = (1.0 - figures.delivered) * 250.0;
    assert!((50.0..=62.0).contains(&lost), "{figures:?}");
    assert_eq!((figures.freezes, figures.asked), (1, 1), "{figures:?}");
    // From the picture before to the key frame, which is asked for when packets come again.
    let longest = dead.as_millis();
    assert!(
        (longest..=longest + 500).contains(&figures.longest),
        "{figures:?}"
    );
    assert!(
        figures.recovery.abs_diff(figures.longest - 40) <= 40,
        "{figures:?}"
    );
    // Two of ten seconds.
    assert!((figures.concealed - 0.2).abs() < 0.02, "{figures:?}");
}

fn uplink(link: Link, seconds: u64) -> Figures {
    uplink_through(link, seconds, None)
}

/// A browser publishes over the bad network, as browsers do: key frames only when asked. In the
/// middle of the time the path may be dead for a while.
fn uplink_through(link: Link, seconds: u64, dead: Option<Duration>) -> Figures {
    let mut world = World::new();
    let player = world.rtmp_play("live/a");
    world.run_ms(10);
    let browser = world.whip("live/a").expect("accepted");
    world.source_mut(browser).keys_on_request = true;
    world.link.delay = link.delay;
    world.run_ms(3_000);
    world.reseed(SEED);
    world.link = link;
    let (from, until) = (world.now, world.now + Duration::from_secs(seconds));
    let (made_up, asked) = (made_up_seconds(&mut world), key_frames_asked(&mut world));
    match dead {
        None => world.run_ms(seconds * 1_000),
        Some(dead) => {
            world.run_ms(seconds * 500);
            world.link.loss_permille = 1_000;
            world.run_ms(dead.as_millis() as u64);
            world.link = link;
            let left = until.saturating_duration_since(world.now);
            world.run_ms(left.as_millis() as u64);
        }
    }
    let made_up = made_up_seconds(&mut world) - made_up;
    let asked = key_frames_asked(&mut world) - asked;
    world.link = Link {
        delay: link.delay,
        ..Link::default()
    };
    world.run_ms(3_000);

    let units = Clip::load().access_units();
    let payloads = units.iter().enumerate();
    let place: HashMap<&[u8], usize> = payloads.map(|(at, unit)| (&unit.payload[..], at)).collect();
    let sent = world.source_mut(browser).sent_pictures.clone();
    let mut pictures: Vec<Trip> = sent.iter().map(|(at, _, _)| (*at, None)).collect();
    let mut next = 0;
    for (at, _, body) in coded(world.rtmp_peer(player), VIDEO) {
        let index = place[&body[5..]];
        let skipped = sent[next..].iter().position(|(_, sent, _)| *sent == index);
        next += skipped.expect("it was sent");
        pictures[next].1 = Some(at);
        next += 1;
    }
    pictures.retain(|(at, _)| (from..until).contains(at));
    // The sound is made anew: its own clock says when it was due.
    let sound = coded(world.rtmp_peer(player), AUDIO);
    let start = world.start;
    let sounds: Vec<Trip> = sound
        .iter()
        .filter(|(at, _, _)| (from..until).contains(at))
        // The stream's time began after the world's, so none is early.
        .map(|(at, time, _)| (start + Duration::from_millis(u64::from(*time)), Some(*at)))
        .collect();
    Figures {
        concealed: made_up / seconds as f64,
        asked,
        ..Figures::of(&pictures, &sounds)
    }
}

/// A viewer behind the bad network, as browsers are: it shows whole pictures only, and asks for a
/// key frame when it has lost one for good.
fn downlink(link: Link, seconds: u64) -> Figures {
    let mut world = World::new();
    world.rtmp_publish("live/a");
    world.run_ms(2_500);
    world.link.delay = link.delay;
    let viewer = world.whep("live/a").expect("accepted");
    let mut screen = Screen::new(link.delay * 2);
    // Joined, and on with the next key frame.
    screen.run_ms(&mut world, viewer, 5_000);
    world.reseed(SEED);
    world.link = link;
    // What is sent in a time is due at the viewer so much later.
    let from = world.now + link.delay;
    let asked = screen.run_ms(&mut world, viewer, seconds * 1_000);
    let until = world.now + link.delay;
    world.link = Link {
        delay: link.delay,
        ..Link::default()
    };
    screen.run_ms(&mut world, viewer, 3_000);
    Figures {
        asked,
        ..Figures::of_viewer(&world, viewer, &screen, (from, until))
    }
}

/// Concealed, or silent where that was too long.
fn made_up_seconds(world: &mut World) -> f64 {
    world.metric("rtmp_gateway_transcode_concealed_seconds_total")
        + world.metric("rtmp_gateway_transcode_silence_seconds_total")
}

/// As many as were sent to the publisher, whether or not they arrived.
fn key_frames_asked(world: &mut World) -> usize {
    world.metric("rtmp_gateway_keyframe_requests_sent_total") as usize
}

const SEED: u64 = 1;

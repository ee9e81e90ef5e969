//! A viewer whose path does not carry the stream gets what fits, and all of it again afterwards.
//! Cases 33 and 38 too.

use std::time::{Duration, Instant};

use crate::common::browser::{Kind, Seen};
use crate::common::world::{Burst, Cap, Link, World};

/// A picture that a viewer got whole: arrival of its last packet, RTP time.
fn pictures(world: &World, viewer: usize, from: Instant) -> Vec<(Instant, u64)> {
    let seen = world.browser(viewer).seen.iter();
    seen.filter_map(|(at, seen)| match seen {
        Seen::Rtp {
            kind: Kind::Video,
            rtp_time,
            marker: true,
            ..
        } if *at >= from => Some((*at, *rtp_time)),
        _ => None,
    })
    .collect()
}

fn sounds(world: &World, viewer: usize, from: Instant, until: Instant) -> Vec<(Instant, u64)> {
    let seen = world.browser(viewer).seen.iter();
    seen.filter_map(|(at, seen)| match seen {
        Seen::Rtp {
            kind: Kind::Audio,
            rtp_time,
            ..
        } if (from..until).contains(at) => Some((*at, *rtp_time)),
        _ => None,
    })
    .collect()
}

/// How much later than the least delayed one each arrives, in ms.
fn delays(got: &[(Instant, u64)], rate_hz: f64, all: &[(Instant, u64)]) -> Vec<f64> {
    let (origin, first) = all[0];
    let offset = |(at, time): &(Instant, u64)| {
        (*at - origin).as_secs_f64() - (*time as f64 - first as f64) / rate_hz
    };
    let least = all.iter().map(offset).fold(f64::MAX, f64::min);
    got.iter().map(|one| (offset(one) - least) * 1e3).collect()
}

fn link(bits_per_second: Option<u64>, queue_ms: u64) -> Link {
    Link {
        delay: Duration::from_millis(20),
        cap: bits_per_second.map(|bits_per_second| Cap {
            bits_per_second,
            queue: Duration::from_millis(queue_ms),
        }),
        ..Link::default()
    }
}

/// What the stream of the clip takes on the wire, in bits a second.
fn stream_bps(world: &mut World) -> f64 {
    let stream = world.stream("live/a").expect("published");
    let tracks = stream["tracks"].as_array().expect("tracks");
    let video = tracks[0]["bitrate_bps"].as_f64().expect("a rate");
    video + 96_000.0
}

/// A cap below the stream's rate: bounded delay of sound and picture, key frames and what fits
/// after them; some seconds after its end all is as before.
#[test]
fn a_viewer_behind_a_narrow_path_gets_what_fits_and_all_of_it_afterwards() {
    for (share, queue_ms) in [(0.7, 300), (0.4, 300), (0.7, 1_500), (0.85, 100)] {
        let what = format!("{share} of the rate, queue of {queue_ms} ms");
        let mut world = World::new().seed(3);
        world.rtmp_publish("live/a");
        world.run_ms(2_500);
        let viewer = world.whep("live/a").expect("accepted");
        let healthy = world.whep("live/a").expect("accepted");
        world.browser_mut(viewer).down = Some(link(None, 0));
        world.run_ms(5_000);
        let rate = stream_bps(&mut world);
        let start = world.now;
        let joined = world.start;
        world.browser_mut(viewer).down = Some(link(Some((rate * share) as u64), queue_ms));
        world.run_ms(6_000);
        // From here on it has settled.
        let settled = world.now;
        world.run_ms(24_000);
        let lifted = world.now;
        let info = world.stream("live/a").unwrap();
        let path = &info["player_list"]
            .as_array()
            .unwrap()
            .iter()
            .max_by_key(|player| player["path"]["times_thinned"].as_u64())
            .unwrap()["path"];
        assert!(
            path["times_thinned"].as_u64().unwrap() >= 1,
            "{what}: {info}"
        );
        world.browser_mut(viewer).down = Some(link(None, 0));
        world.run_ms(8_000);

        let all = pictures(&world, viewer, joined);
        let all_sound = sounds(&world, viewer, joined, world.now);
        let sound = sounds(&world, viewer, settled, lifted);
        let under: Vec<_> = all
            .iter()
            .filter(|(at, _)| (settled..lifted).contains(at))
            .copied()
            .collect();
        let mut late = delays(&sound, 48_000.0, &all_sound);
        late.sort_by(f64::total_cmp);
        let (p50, p95) = (late[late.len() / 2], late[late.len() * 95 / 100]);
        let heard = sound.len() as f64 / (24.0 * 50.0);
        let late = delays(&under, 90_000.0, &all);
        let worst = late.iter().copied().fold(0.0, f64::max);
        let fits = under.len() as f64 / (24.0 * 25.0);
        // Every picture from here on, and without delay from there on.
        let late = delays(&all, 90_000.0, &all);
        let gap = all.windows(2).rfind(|pair| pair[1].1 - pair[0].1 > 3_600);
        let whole = gap.map_or(Duration::ZERO, |pair| {
            pair[1].0.saturating_duration_since(lifted)
        });
        let last_late = all.iter().zip(&late).rfind(|(_, late)| **late > 100.0);
        let live = last_late.map_or(Duration::ZERO, |((at, _), _)| {
            at.saturating_duration_since(lifted)
        });
        println!(
            "{what}: {heard:.3} of the sound, late {p50:.0} / {p95:.0} ms; {fits:.2} of the pictures, late {worst:.0} ms at worst; whole {whole:?}, live {live:?} after; {path}"
        );
        // Sound goes first, and its delay is bounded by the path's own queue. It shares the
        // losses where that queue is shorter than a key frame (0.83 of it behind one of 100 ms).
        assert!(heard > 0.8, "{what}: {heard} of the sound");
        assert!(
            p95 < queue_ms as f64 + 50.0,
            "{what}: sound late by {p95} ms"
        );
        assert!(worst < 2_800.0, "{what}: picture late by {worst} ms");
        assert!(
            whole <= Duration::from_secs(6),
            "{what}: whole after {whole:?}"
        );
        assert!(
            live <= Duration::from_secs(7),
            "{what}: live after {live:?}"
        );
        // The other one saw nothing of all that.
        let other = pictures(&world, healthy, start);
        assert!(other.windows(2).all(|pair| pair[1].1 - pair[0].1 == 3_600));
        println!(
            "{what}: sound late {p50:.0} / {p95:.0} ms, picture {worst:.0} ms, {fits:.2} of the pictures"
        );
    }
}

/// Ordinary loss thins nothing; retransmission mends it.
#[test]
fn ordinary_loss_does_not_thin() {
    for (loss_permille, burst) in [
        (10, None),
        (20, None),
        (
            0,
            Some(Burst {
                begins: 20,
                length: 5,
            }),
        ),
    ] {
        let mut world = World::new().seed(11);
        world.rtmp_publish("live/a");
        world.run_ms(2_500);
        let viewer = world.whep("live/a").expect("accepted");
        world.run_ms(1_000);
        world.browser_mut(viewer).down = Some(Link {
            loss_permille,
            burst,
            ..link(None, 0)
        });
        world.run_ms(60_000);
        let info = world.stream("live/a").unwrap();
        let path = &info["player_list"][0]["path"];
        assert_eq!(path["times_thinned"], 0, "{loss_permille}: {path}");
        assert_eq!(path["left_out"], 0);
        assert_eq!(path["gets"], "all");
    }
}

/// The bytes that go to a viewer whose path is dead do not grow, and it is back at once.
#[test]
fn a_dead_path_is_not_flooded() {
    let mut world = World::new().seed(5);
    world.rtmp_publish("live/a");
    world.run_ms(2_500);
    let viewer = world.whep("live/a").expect("accepted");
    world.run_ms(4_000);
    let rate = stream_bps(&mut world);
    let narrow = link(Some((rate * 0.05) as u64), 500);
    world.browser_mut(viewer).down = Some(narrow);
    world.run_ms(8_000);
    let before = world.metric("rtmp_gateway_datagrams_sent_bytes_total");
    world.run_ms(20_000);
    let sent = world.metric("rtmp_gateway_datagrams_sent_bytes_total") - before;
    assert!(
        sent * 8.0 / 20.0 < rate * 0.45,
        "{} bit/s of {rate}",
        sent * 8.0 / 20.0
    );
    world.browser_mut(viewer).down = Some(link(None, 0));
    world.run_ms(15_000);
    let info = world.stream("live/a").unwrap();
    assert_eq!(info["player_list"][0]["path"]["gets"], "all");
}

/// A WebRTC publisher sends key frames only when asked: a viewer with room for one again has it
/// asked, and not too often.
#[test]
fn a_publisher_without_periodic_key_frames_is_asked_when_there_is_room_again() {
    let mut world = World::new().seed(7);
    let publisher = world.whip("live/a").expect("accepted");
    world.source_mut(publisher).keys_on_request = true;
    world.run_ms(2_000);
    let viewer = world.whep("live/a").expect("accepted");
    world.run_ms(4_000);
    let rate = stream_bps(&mut world);
    let asked = |world: &World| {
        let seen = world.browser(publisher).seen.iter();
        seen.filter(|(_, seen)| matches!(seen, Seen::KeyframeRequested))
            .count()
    };
    let before = asked(&world);
    world.browser_mut(viewer).down = Some(link(Some((rate * 0.5) as u64), 300));
    world.run_ms(20_000);
    let requests = asked(&world) - before;
    assert!((1..=16).contains(&requests), "{requests}");
    world.browser_mut(viewer).down = Some(link(None, 0));
    let lifted = world.now;
    world.run_ms(10_000);
    let back = pictures(&world, viewer, lifted + Duration::from_secs(7));
    assert!(back.windows(2).all(|pair| pair[1].1 - pair[0].1 == 3_600));
    assert!(back.len() >= 70, "{}", back.len());
}

use super::*;

/// A path with a bottleneck and its queue, reported on once a second.
struct Path {
    now: Instant,
    pressure: Pressure,
    sent: f64,
    /// Bits in the queue, and the most there were in the last second.
    queued: f64,
    worst: Duration,
    repeated: f64,
}

const STREAM: f64 = 1_000_000.0;
const STEP: f64 = 0.02;

impl Path {
    fn new() -> Self {
        Self {
            now: Instant::now(),
            pressure: Pressure::default(),
            sent: 0.0,
            queued: 0.0,
            worst: Duration::ZERO,
            repeated: 0.0,
        }
    }

    /// A second in which the stream, or the budget, is sent through `cap` bits a second with
    /// a queue of 300 ms; `own` is the path's own loss. Answers the share lost.
    fn second(&mut self, cap: f64, own: f64) -> f64 {
        let (mut into, mut lost) = (0.0, 0.0);
        self.worst = Duration::ZERO;
        for _ in 0..50 {
            self.now += Duration::from_secs_f64(STEP);
            self.pressure.poll(self.now, self.repeated as u64);
            let rate = match self.pressure.held_until() {
                Some(_) => 64_000.0,
                None => self.pressure.budget_bps().map_or(STREAM, |b| b.min(STREAM)),
            };
            let bits = rate * STEP;
            self.sent += bits / 8.0;
            self.queued = (self.queued + bits * (1.0 - own) - cap * STEP).max(0.0);
            let dropped = (self.queued - cap * 0.3).max(0.0);
            self.queued -= dropped;
            self.repeated += (dropped + bits * own) / 8_000.0;
            into += bits;
            lost += dropped + bits * own;
            self.worst = self.worst.max(Duration::from_secs_f64(self.queued / cap));
        }
        let rtt = Duration::from_millis(40) + Duration::from_secs_f64(self.queued / cap);
        self.pressure.report(
            self.now,
            Report {
                loss: (lost / into).min(1.0),
                rtt: Some(rtt),
                bytes_sent: self.sent as u64,
                stream_bps: STREAM,
                audio_bps: 64_000.0,
            },
        );
        lost / into
    }
}

#[test]
fn ordinary_loss_thins_nothing() {
    let mut path = Path::new();
    for n in 0..120 {
        // 0 to 10 %, one time 14.
        let own = if n == 60 {
            0.14
        } else {
            f64::from(n % 11) / 100.0
        };
        path.second(10e6, own);
        assert!(path.pressure.is_open(), "second {n}");
    }
}

#[test]
fn a_cap_leads_to_a_budget_near_it_little_loss_and_no_standing_queue() {
    for cap in [900_000.0, 700_000.0, 400_000.0, 200_000.0] {
        let mut path = Path::new();
        for _ in 0..5 {
            path.second(10e6, 0.0);
        }
        for _ in 0..10 {
            path.second(cap, 0.0);
        }
        let (mut budgets, mut lost, mut empty) = (0.0, 0.0, 0);
        for _ in 0..60 {
            lost += path.second(cap, 0.0);
            budgets += path.pressure.budget_bps().unwrap_or(STREAM);
            empty += u32::from(path.queued < cap * 0.05);
        }
        assert!(lost / 60.0 < 0.04, "{cap}: {} lost", lost / 60.0);
        assert!(empty >= 15, "{cap}: no queue in {empty} seconds");
        let share = budgets / 60.0 / cap;
        assert!((0.7..1.35).contains(&share), "{cap}: {share}");
    }
}

#[test]
fn some_seconds_after_the_end_of_a_cap_all_is_sent() {
    for before in 20..30 {
        let mut path = Path::new();
        for _ in 0..5 {
            path.second(10e6, 0.0);
        }
        for _ in 0..before {
            path.second(700_000.0, 0.0);
        }
        for _ in 0..4 {
            path.second(10e6, 0.0);
        }
        let budget = path.pressure.budget_bps().unwrap_or(STREAM);
        assert!(budget >= STREAM * 0.99, "{before}: {budget}");
        for _ in 0..3 {
            path.second(10e6, 0.0);
        }
        assert!(path.pressure.is_open(), "{before}");
    }
}

#[test]
fn loss_that_sending_less_does_not_cure_is_the_paths_own() {
    let mut path = Path::new();
    for _ in 0..5 {
        path.second(10e6, 0.0);
    }
    let thinned = (0..60)
        .filter(|_| {
            path.second(10e6, 0.2);
            !path.pressure.is_open()
        })
        .count();
    assert!(thinned <= 6, "{thinned} of 60 s");
    assert_eq!(path.pressure.times, 1);
    // A real bottleneck is still seen.
    for _ in 0..4 {
        path.second(400_000.0, 0.2);
    }
    assert!(!path.pressure.is_open());
}

#[test]
fn where_nothing_arrives_even_sound_stops_and_comes_back() {
    let mut path = Path::new();
    for _ in 0..5 {
        path.second(10e6, 0.0);
    }
    let mut levels = Vec::new();
    for _ in 0..12 {
        path.second(10e6, 0.9);
        levels.push(path.pressure.level());
    }
    assert!(levels.contains(&Level::Sound), "{levels:?}");
    assert!(levels.contains(&Level::Nothing), "{levels:?}");
    for _ in 0..16 {
        path.second(10e6, 0.0);
    }
    assert_eq!(path.pressure.level(), Level::All);
}

#[test]
fn without_room_for_pictures_a_key_frame_is_tried_now_and_then() {
    let mut path = Path::new();
    for _ in 0..5 {
        path.second(10e6, 0.0);
    }
    while path.pressure.level() != Level::Sound {
        path.second(10e6, 0.5);
    }
    let start = path.now;
    let tries = (0..100)
        .filter(|n| {
            path.pressure
                .admits_key(start + Duration::from_millis(100) * *n)
        })
        .count();
    assert!((4..=5).contains(&tries), "{tries} in ten seconds");
}

/// Trains of 26 kbit, ten a second, until the whole stream is tried: how many it took. Each is held
/// up for so long.
fn trains_until_tried(path: &mut Path, number: &mut u64, held_up: Duration) -> Option<usize> {
    let base = Duration::from_millis(40);
    (1..=50).find(|_| {
        path.now += Duration::from_millis(100);
        path.pressure.poll(path.now, 0);
        let (front, back) = (*number, *number + 1);
        *number += 2;
        path.pressure.asked_echoes(path.now, front, back, 26_000.0);
        path.pressure.echo(path.now, front, base, 0, 0);
        path.pressure.echo(path.now, back, base + held_up, 0, 0);
        path.pressure.tries_all()
    })
}

fn capped() -> Path {
    let mut path = Path::new();
    for _ in 0..5 {
        path.second(10e6, 0.0);
    }
    for _ in 0..5 {
        path.second(500_000.0, 0.0);
    }
    assert!(!path.pressure.is_open());
    path
}

#[test]
fn echoes_see_the_end_of_a_cap_within_a_second_and_that_all_fits() {
    let mut path = capped();
    let mut number = 0;
    let tried = trains_until_tried(&mut path, &mut number, Duration::ZERO);
    // It may hold back for a moment first.
    assert!(tried.is_some_and(|trains| trains <= 10), "{tried:?}");
    let mut sent = 0;
    let clear = (1..=20).find(|_| {
        path.now += Duration::from_millis(100);
        sent += (STREAM / 8.0 / 10.0) as u64;
        path.pressure.asked_echoes(path.now, number, number, 0.0);
        let rtt = Duration::from_millis(45);
        path.pressure.echo(path.now, number, rtt, 0, sent);
        number += 1;
        path.pressure.is_open()
    });
    assert!(clear.is_some_and(|echoes| echoes <= 6), "{clear:?}");
}

#[test]
fn a_path_that_is_as_narrow_as_before_is_not_tried_for_what_its_trains_say() {
    let mut path = capped();
    // 26 kbit in 52 ms: half a megabit.
    let tried = trains_until_tried(&mut path, &mut 0, Duration::from_millis(52));
    assert!(tried.is_none_or(|trains| trains > 10), "{tried:?}");
}

/// A limit that lets short bursts pass looks wide and is not.
#[test]
fn who_is_misled_by_trains_asks_for_more_of_them() {
    let mut path = capped();
    let mut number = 0;
    let mut needed = Vec::new();
    for _ in 0..3 {
        // Just wide enough, so that each train counts once.
        let tried = trains_until_tried(&mut path, &mut number, Duration::from_millis(15));
        needed.push(tried.expect("tried"));
        path.now += Duration::from_millis(200);
        path.pressure.asked_echoes(path.now, number, number, 0.0);
        let full = Duration::from_millis(240);
        path.pressure.echo(path.now, number, full, 0, 0);
        number += 1;
        assert!(!path.pressure.tries_all() && !path.pressure.is_open());
    }
    assert!(needed[1] > needed[0] && needed[2] > needed[1], "{needed:?}");
}

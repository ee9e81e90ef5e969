use super::*;

const STREAM: StreamId = StreamId(1);

fn at(start: Instant, millis: u64) -> Instant {
    start + Duration::from_millis(millis)
}

/// Walks over everybody who is due; answers how many walks that took.
fn walk_all(batches: &mut Batches, now: Instant) -> usize {
    let mut walks = 0;
    while let Some(walk) = batches.take() {
        batches.finish(now, walk);
        walks += 1;
    }
    walks
}

/// A second of 25 pictures and 47 sounds for `players`; answers the batches and the longest
/// that a picture and a sound waited.
fn second(batches: &mut Batches, start: Instant, players: usize) -> (usize, Duration, Duration) {
    let pictures = (0..25).map(|n| (Duration::from_millis(40) * n, Arrived::Picture));
    let sounds = (0..47).map(|n| (Duration::from_micros(9_000 + 21_333 * n), Arrived::Sound));
    let mut all: Vec<_> = pictures.chain(sounds).collect();
    all.sort_by_key(|(time, _)| *time);
    let (mut walks, mut picture, mut sound) = (0, Duration::ZERO, Duration::ZERO);
    let (mut waiting, mut end) = (Vec::new(), None);
    let mut served = |batches: &mut Batches, waiting: &mut Vec<(Instant, Arrived)>, at: Instant| {
        for (since, arrived) in waiting.drain(..) {
            let longest = match arrived {
                Arrived::Sound => &mut sound,
                _ => &mut picture,
            };
            *longest = (at - since).max(*longest);
        }
        walk_all(batches, at)
    };
    for (time, arrived) in all {
        let time = start + time;
        if let Some(at) = end.filter(|at| *at <= time) {
            assert_eq!(batches.end_window(at, STREAM), None);
            walks += served(batches, &mut waiting, at);
            end = None;
        }
        waiting.push((time, arrived));
        end = batches.mark(time, STREAM, players, arrived).or(end);
        if batches.is_due() {
            walks += served(batches, &mut waiting, time);
            end = None;
        }
    }
    if let Some(at) = end {
        assert_eq!(batches.end_window(at, STREAM), None);
        walks += served(batches, &mut waiting, at);
    }
    (walks, picture, sound)
}

#[test]
fn few_players_get_each_message_at_once() {
    let mut batches = Batches::new(Merge::Auto);
    let start = Instant::now();
    for n in 0..5 {
        let second = second(&mut batches, start + Duration::from_secs(n), 130);
        assert_eq!(second, (72, Duration::ZERO, Duration::ZERO));
    }
}

#[test]
fn many_players_get_a_picture_and_its_sound_in_one_write() {
    let mut batches = Batches::new(Merge::Auto);
    let start = Instant::now();
    for n in 0..3 {
        second(&mut batches, start + Duration::from_secs(n), 1_000);
    }
    let (walks, picture, sound) = second(&mut batches, start + Duration::from_secs(3), 1_000);
    assert!(walks <= 27, "{walks}");
    // But for the first one of the second, which no sound precedes.
    assert!(picture <= WINDOW_MAX, "{picture:?}");
    assert!(sound <= 2 * WINDOW_MAX, "{sound:?}");
}

#[test]
fn the_window_grows_with_the_load_and_goes_with_it() {
    let mut batches = Batches::new(Merge::Auto);
    let start = Instant::now();
    let mut before = Duration::ZERO;
    for (n, players) in [100, 200, 300, 400, 500].into_iter().enumerate() {
        let begin = start + Duration::from_secs(10 * n as u64);
        for second_of in 0..10 {
            second(
                &mut batches,
                begin + Duration::from_secs(second_of),
                players,
            );
        }
        let window = batches.window(begin + Duration::from_secs(10));
        assert!(window >= before && window <= WINDOW_MAX, "{window:?}");
        before = window;
    }
    assert_eq!(before, WINDOW_MAX);
    assert_eq!(batches.window(at(start, 55_000)), Duration::ZERO);
}

#[test]
fn a_fixed_window_is_kept_at_any_load() {
    let start = Instant::now();
    let mut batches = Batches::new(Merge::Fixed(Duration::from_millis(350)));
    let end = batches.mark(start, STREAM, 1, Arrived::Start);
    assert_eq!(end, Some(at(start, 350)));
    assert_eq!(
        batches.mark(at(start, 300), STREAM, 1, Arrived::Start),
        None
    );
    assert_eq!(batches.end_window(at(start, 349), STREAM), end);
    assert!(!batches.is_due());
    assert_eq!(batches.end_window(at(start, 350), STREAM), None);
    assert_eq!(walk_all(&mut batches, at(start, 350)), 1);
    let mut never = Batches::new(Merge::Fixed(Duration::ZERO));
    assert_eq!(never.mark(start, STREAM, 100_000, Arrived::Picture), None);
    assert!(never.is_due());
}

#[test]
fn a_first_picture_ends_the_window() {
    let start = Instant::now();
    let mut batches = Batches::new(Merge::Fixed(Duration::from_millis(350)));
    batches.await_start(STREAM);
    assert!(batches.mark(start, STREAM, 1, Arrived::Picture).is_some());
    assert!(!batches.is_due(), "nobody can begin with a sound");
    assert_eq!(batches.mark(at(start, 20), STREAM, 1, Arrived::Start), None);
    assert!(batches.is_due());
    walk_all(&mut batches, at(start, 20));
    // Everybody has one now.
    assert!(
        batches
            .mark(at(start, 30), STREAM, 1, Arrived::Start)
            .is_some()
    );
}

#[test]
fn news_during_a_walk_make_another_batch() {
    let start = Instant::now();
    let mut batches = Batches::new(Merge::Fixed(Duration::ZERO));
    batches.mark(start, STREAM, 3, Arrived::Picture);
    let mut walk = batches.take().expect("marked");
    walk.visited = 2;
    batches.put_back(walk);
    batches.mark(start, STREAM, 3, Arrived::Picture);
    let walk = batches.take().expect("put back");
    assert!(!batches.is_due());
    batches.finish(start, walk);
    assert!(batches.is_due());
}

#[test]
fn a_message_that_came_during_a_walk_waits_from_then_on() {
    let start = Instant::now();
    let mut batches = Batches::new(Merge::Fixed(Duration::from_millis(20)));
    batches.mark(start, STREAM, 3, Arrived::Picture);
    batches.end_window(at(start, 20), STREAM);
    let mut walk = batches.take().expect("due");
    walk.visited = 2;
    batches.put_back(walk);
    assert_eq!(
        batches.mark(at(start, 25), STREAM, 3, Arrived::Picture),
        None
    );
    assert_eq!(
        batches.mark(at(start, 28), STREAM, 3, Arrived::Picture),
        None
    );
    let walk = batches.take().expect("put back");
    assert_eq!(batches.finish(at(start, 30), walk), Some(at(start, 45)));
}

#[test]
fn whoever_moves_in_the_list_is_served_by_the_next_walk() {
    let start = Instant::now();
    let mut batches = Batches::new(Merge::Fixed(Duration::ZERO));
    batches.mark(start, STREAM, 3, Arrived::Picture);
    let mut walk = batches.take().expect("marked");
    walk.slowest = 7;
    walk.note_roster(start, 3);
    walk.note_roster(start, 3);
    assert_eq!((walk.slowest, walk.again), (7, None));
    walk.note_roster(start, 4);
    assert_eq!((walk.slowest, walk.again), (0, Some(start)));
    batches.finish(start, walk);
    assert!(batches.is_due());
}

#[test]
fn streams_take_turns() {
    let start = Instant::now();
    let mut batches = Batches::new(Merge::Fixed(Duration::ZERO));
    batches.mark(start, STREAM, 1_000, Arrived::Picture);
    batches.mark(start, StreamId(2), 1, Arrived::Picture);
    let first = batches.take().expect("marked");
    batches.put_back(first);
    let second = batches.take().expect("marked");
    assert_eq!((first.stream, second.stream), (STREAM, StreamId(2)));
}

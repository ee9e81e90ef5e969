//! [`Surge`]: media that waited somewhere before it came and now comes all at once.
//!
//! A publisher whose network hung sends the seconds it could not. RTMP players get them all:
//! they have buffers of their own. A browser has to stay live: nothing of that is
//! of use to it but the newest key frame and what followed.

use std::time::Instant;

use crate::media::MediaTime;

/// Tells surges from a publisher that is late for good, because its timestamps stood still.
#[derive(Clone, Copy, Debug, Default)]
pub struct Surge {
    /// Where the present look at the pace began.
    from: Option<(MediaTime, Instant)>,
    active: bool,
    count: u64,
}

impl Surge {
    /// Whether what comes now is of the past.
    pub const fn is_active(&self) -> bool {
        self.active
    }

    /// How many there were.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Takes note of a frame of time `media` that came at `now`, `late` behind the live point.
    pub(super) fn observe(&mut self, media: MediaTime, now: Instant, late: MediaTime) {
        let (from, since) = *self.from.get_or_insert((media, now));
        let wall = MediaTime::from_duration(now.saturating_duration_since(since));
        let came = media - from;
        if self.active && (late < LATE_ENDS || (wall >= LOOK_MIN && came < wall + wall)) {
            self.active = false;
        }
        if !self.active && late > LATE_BEGINS && came >= LOOK_MIN && came > wall + wall {
            self.active = true;
            self.count += 1;
        }
        if wall >= LOOK_MAX || came < MediaTime::ZERO || late < LATE_ENDS {
            self.from = Some((media, now));
        }
    }
}

/// How late media is that waited: more than networks usually do, and when it is over.
const LATE_BEGINS: MediaTime = MediaTime::from_millis(700);
const LATE_ENDS: MediaTime = MediaTime::from_millis(300);

/// How much media shows the pace, and for how long a look is.
const LOOK_MIN: MediaTime = MediaTime::from_millis(200);
const LOOK_MAX: MediaTime = MediaTime::from_millis(400);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ms(millis: i64) -> MediaTime {
        MediaTime::from_millis(millis)
    }

    /// Frames every 40 ms that come at the times that `arrival` tells; answers how many came
    /// while a surge was on, and how many surges there were.
    fn run(late: impl Fn(i64) -> i64) -> (usize, u64) {
        let start = Instant::now();
        let mut surge = Surge::default();
        let mut during = 0;
        for n in 0..500 {
            let late = late(n * 40);
            let at = start + Duration::from_millis((n * 40 + late) as u64);
            surge.observe(ms(n * 40), at, ms(late));
            during += usize::from(surge.is_active());
        }
        (during, surge.count())
    }

    #[test]
    fn seconds_that_come_at_once_are_a_surge() {
        // What was due from 5 to 10 s leaves at 10 s.
        let (during, count) = run(|due| match due {
            5_000..10_000 => 10_000 - due,
            _ => 0,
        });
        assert_eq!(count, 1);
        assert!((90..=120).contains(&during), "{during}");
    }

    #[test]
    fn jitter_and_a_pause_of_the_timestamps_are_none() {
        assert_eq!(run(|due| due * 7 % 300), (0, 0));
        // Five seconds late from then on, at the usual pace.
        let (_, count) = run(|due| if due < 5_000 { 0 } else { 5_000 });
        assert_eq!(count, 0);
    }
}

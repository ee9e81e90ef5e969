//! [`LiveStamp`]: stamps that a browser does not take for a bad network.
//!
//! A browser judges its network by how late a packet is against its stamp, and keeps picture
//! and sound back for as long as that, for a minute and more. What a publisher held back,
//! because its own network stalled or is too slow, must not look like this: it is stamped
//! as if it were live, and so is what follows until it is live again.
//!
//! Sound and picture are shifted by the same time, so that they stay together. It changes in
//! whole packets of sound: a browser throws one away that overlaps the one before.

use std::time::Instant;

use crate::media::{MediaTime, TrackKind};

/// How much later than their own time the frames of a stream are stamped.
#[derive(Clone, Copy, Debug, Default)]
pub struct LiveStamp {
    shift: MediaTime,
    /// When a frame of the picture and of the sound last came, and how late it was.
    last: [Option<(Instant, MediaTime)>; 2],
}

impl LiveStamp {
    /// What is added to the time of a frame of `kind` that came at `now`, `late` behind the live
    /// point. Stamps step back when a stream comes in again: who sends them keeps their order.
    pub(super) fn observe(&mut self, kind: TrackKind, now: Instant, late: MediaTime) -> MediaTime {
        self.last[kind as usize] = Some((now, late));
        // A track that is always later than the other one is so on purpose.
        let late = (self.last.iter().flatten())
            .filter(|(at, _)| now.saturating_duration_since(*at) < TRACK_AGE)
            .map(|(_, late)| *late)
            .min()
            .unwrap_or(late);
        if late > self.shift + LATE_MAX || late < self.shift - STEP {
            let steps = late.ticks() / STEP.ticks();
            self.shift = MediaTime::from_ticks(steps.max(0) * STEP.ticks());
        }
        self.shift
    }
}

/// Lateness that a browser's own buffers are for. They grow to it and stay there for a while.
const LATE_MAX: MediaTime = MediaTime::from_millis(600);

/// What the shift is a multiple of: the usual packet of sound.
const STEP: MediaTime = MediaTime::from_millis(20);

/// Of a track that did not come for so long nothing is known.
const TRACK_AGE: std::time::Duration = std::time::Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ms(millis: i64) -> MediaTime {
        MediaTime::from_millis(millis)
    }

    /// The shifts of pictures every 40 ms that are as late as `late` tells, in ms.
    fn shifts(late: impl Fn(i64) -> i64) -> Vec<i64> {
        let (mut stamp, start) = (LiveStamp::default(), Instant::now());
        (0..500)
            .map(|n| {
                let now = start + Duration::from_millis((n * 40 + late(n * 40)) as u64);
                let shift = stamp.observe(TrackKind::Video, now, ms(late(n * 40)));
                shift.as_millis()
            })
            .collect()
    }

    #[test]
    fn what_comes_in_time_keeps_its_own_time() {
        assert!(shifts(|due| due * 37 % 500).iter().all(|shift| *shift == 0));
    }

    #[test]
    fn a_backlog_is_stamped_as_live_all_the_time_and_then_all_is_as_before() {
        // Three seconds are caught up in ten.
        let late = |due: i64| match due {
            5_000.. => (3_000 - (due - 5_000) * 3 / 10).max(0),
            _ => 0,
        };
        for (n, shift) in shifts(late).into_iter().enumerate() {
            let rest = late(n as i64 * 40) - shift;
            assert!((-20..20).contains(&rest), "{rest} at {n}");
            assert_eq!(shift % 20, 0);
        }
    }

    #[test]
    fn a_publisher_that_falls_behind_for_good_is_shifted_for_good() {
        let all = shifts(|due| {
            if due < 5_000 {
                0
            } else {
                2_000 + due * 7 % 300
            }
        });
        // It settles at the least late frame, and stays there.
        let settled = &all[200..];
        assert!((1_980..=2_020).contains(&settled[0]), "{}", settled[0]);
        assert!(settled.iter().all(|shift| *shift == settled[0]));
    }

    #[test]
    fn a_sound_that_is_always_later_than_the_picture_is_left_alone() {
        let (mut stamp, start) = (LiveStamp::default(), Instant::now());
        for n in 0..500 {
            let now = start + Duration::from_millis(n * 40);
            let (kind, late) = match n % 2 {
                0 => (TrackKind::Video, 10),
                _ => (TrackKind::Audio, 1_500),
            };
            let shift = stamp.observe(kind, now, ms(late));
            assert_eq!(shift, MediaTime::ZERO);
        }
    }
}

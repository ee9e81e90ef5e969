//! [`SetUp`]: from the acceptance of a call until both see and hear each other, as far as each
//! means to send picture and sound. The gateway measures it where media leaves.

use std::time::{Duration, Instant};

use super::{CallKey, Conversations, MemberKey};
use crate::ids::PeerId;
use crate::media::TrackKind;
use crate::signaling::message::Means;

/// A call that is not set up yet.
#[derive(Debug)]
pub(super) struct SetUp {
    since: Instant,
    sides: [Side; 2],
}

/// What a member has still to get.
#[derive(Debug)]
struct Side {
    member: MemberKey,
    lacks: Means,
}

impl SetUp {
    /// A call accepted at `now` of two members who mean to send something.
    pub(super) fn new(now: Instant, a: (MemberKey, Means), b: (MemberKey, Means)) -> Option<Self> {
        let side = |(member, _), (_, lacks)| Side { member, lacks };
        let sends = |means: Means| means.audio || means.video;
        (sends(a.1) || sends(b.1)).then(|| Self {
            since: now,
            sides: [side(a, b), side(b, a)],
        })
    }

    fn sent(&mut self, member: MemberKey, kind: TrackKind) {
        for side in self.sides.iter_mut().filter(|side| side.member == member) {
            match kind {
                TrackKind::Audio => side.lacks.audio = false,
                TrackKind::Video => side.lacks.video = false,
            }
        }
    }

    fn is_done(&self) -> bool {
        let mut sides = self.sides.iter();
        sides.all(|side| !side.lacks.audio && !side.lacks.video)
    }
}

impl Conversations {
    /// The first picture or sound went out to a player.
    pub fn first_sent(&mut self, now: Instant, peer: PeerId, kind: TrackKind) {
        let Some(holder) = self.legs.get(&peer).map(|leg| leg.holder) else {
            return;
        };
        let Some(key) = self.room_of(holder).and_then(|room| room.call) else {
            return;
        };
        if let Some(took) = self.set_up_by(now, key, holder, kind) {
            log::info!("call {key}: set up in {} ms", took.as_millis());
            self.set_up.add(took);
        }
    }

    fn set_up_by(
        &mut self,
        now: Instant,
        key: CallKey,
        holder: MemberKey,
        kind: TrackKind,
    ) -> Option<Duration> {
        let talk = self.calls.get_mut(&key)?.talk.as_mut()?;
        let set_up = talk.set_up.as_mut()?;
        set_up.sent(holder, kind);
        if !set_up.is_done() {
            return None;
        }
        let took = now.saturating_duration_since(set_up.since);
        talk.set_up = None;
        talk.took = Some(took);
        Some(took)
    }

    /// How long calls took to be set up.
    pub const fn set_up_times(&self) -> &SetUpTimes {
        &self.set_up
    }
}

/// How long calls took, as a histogram.
#[derive(Clone, Debug, Default)]
pub struct SetUpTimes {
    /// Calls in each of [`SetUpTimes::BOUNDS_MS`] and not in the one before.
    counts: [u64; Self::BOUNDS_MS.len()],
    total: u64,
    sum: Duration,
}

impl SetUpTimes {
    /// Upper bounds in milliseconds.
    pub const BOUNDS_MS: [u64; 10] = [50, 100, 200, 300, 500, 750, 1_000, 2_000, 5_000, 10_000];

    fn add(&mut self, took: Duration) {
        let bounds = Self::BOUNDS_MS.iter().zip(&mut self.counts);
        let fits = |bound: u64| took <= Duration::from_millis(bound);
        if let Some((_, count)) = { bounds }.find(|(bound, _)| fits(**bound)) {
            *count += 1;
        }
        self.total += 1;
        self.sum += took;
    }

    /// Calls not above each bound, in seconds.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut below = 0;
        let bounds = Self::BOUNDS_MS.iter().zip(&self.counts);
        bounds.map(move |(bound, count)| {
            below += count;
            (*bound as f64 / 1e3, below)
        })
    }

    /// Calls in all.
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// Their times together.
    pub const fn sum(&self) -> Duration {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_get_what_the_other_means_to_send() {
        let now = Instant::now();
        let all = Means {
            audio: true,
            video: true,
        };
        let sound = Means {
            audio: true,
            video: false,
        };
        let (a, b) = (MemberKey(1), MemberKey(2));
        let mut set_up = SetUp::new(now, (a, all), (b, sound)).expect("they send");
        set_up.sent(a, TrackKind::Audio);
        set_up.sent(b, TrackKind::Audio);
        assert!(!set_up.is_done());
        set_up.sent(b, TrackKind::Video);
        assert!(set_up.is_done());
        let silent = Means {
            audio: false,
            video: false,
        };
        assert!(SetUp::new(now, (a, silent), (b, silent)).is_none());
    }

    #[test]
    fn buckets_grow() {
        let mut times = SetUpTimes::default();
        for millis in [10, 50, 51, 400, 60_000] {
            times.add(Duration::from_millis(millis));
        }
        let buckets: Vec<u64> = times.buckets().map(|(_, count)| count).collect();
        assert_eq!(buckets, [2, 3, 3, 3, 4, 4, 4, 4, 4, 4]);
        assert_eq!((times.total(), times.sum().as_millis()), (5, 60_511));
    }
}

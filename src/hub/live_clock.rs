//! [`LiveClock`]: where a stream's media clock stands in real time.
//!
//! The least delayed arrivals show it best, so the mapping is the running minimum of
//! (arrival − media time). It may rise slowly too, so that a publisher whose crystal runs
//! slow does not age. Sound and picture of a stream share one mapping: the sender
//! reports that viewers synchronise by are made from it (RFC 3550 section 6.4.1).

use std::time::Instant;

use crate::media::MediaTime;

/// The mapping between a stream's media clock and the local monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct LiveClock {
    /// When media time zero was (or would have been) live.
    origin: Origin,
    updated: Instant,
}

/// A point of the monotonic clock shifted by a signed span, because `Instant` cannot go
/// before the machine's start.
#[derive(Clone, Copy, Debug)]
struct Origin {
    epoch: Instant,
    shift: MediaTime,
}

impl LiveClock {
    /// A clock on which `media` is live at `arrival`.
    pub fn starting(media: MediaTime, arrival: Instant) -> Self {
        Self {
            origin: Origin {
                epoch: arrival,
                shift: -media,
            },
            updated: arrival,
        }
    }

    /// Takes note that a frame of time `media` arrived at `arrival`.
    pub fn observe(&mut self, media: MediaTime, arrival: Instant) {
        let seen = self.span(arrival) - media;
        let waited = MediaTime::from_duration(arrival.saturating_duration_since(self.updated));
        self.updated = self.updated.max(arrival);
        if seen < self.origin.shift {
            self.origin.shift = seen;
        } else {
            let rise = MediaTime::from_ticks(waited.ticks() / RISE_DIVISOR);
            self.origin.shift += rise.min(seen - self.origin.shift);
        }
    }

    /// The media time that is live at `now`.
    pub fn live(&self, now: Instant) -> MediaTime {
        self.span(now) - self.origin.shift
    }

    /// When `media` is or was live; never later than `now`.
    ///
    /// str0m writes a sender report with RTP time zero for a wall clock that lies in the
    /// future, hence the bound.
    pub fn instant_of(&self, media: MediaTime, now: Instant) -> Instant {
        let since = media + self.origin.shift;
        let instant = if since >= MediaTime::ZERO {
            self.origin.epoch.checked_add(since.to_duration())
        } else {
            self.origin.epoch.checked_sub((-since).to_duration())
        };
        instant.unwrap_or(now).min(now)
    }

    fn span(&self, at: Instant) -> MediaTime {
        match at.checked_duration_since(self.origin.epoch) {
            Some(after) => MediaTime::from_duration(after),
            None => -MediaTime::from_duration(self.origin.epoch.duration_since(at)),
        }
    }
}

/// The mapping rises by at most one part in this many: 500 ppm, more than twice the worst
/// crystal, and little enough that a stall of seconds does not move it.
const RISE_DIVISOR: i64 = 2_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_least_delayed_frame_decides() {
        let start = Instant::now();
        let mut clock = LiveClock::starting(MediaTime::ZERO, start + ms(30));
        clock.observe(MediaTime::from_millis(40), start + ms(45));
        clock.observe(MediaTime::from_millis(80), start + ms(120));
        let live = clock.live(start + ms(125)).as_millis();
        assert!((119..=120).contains(&live), "{live}");
        let when = clock.instant_of(MediaTime::from_millis(40), start + ms(125)) - start;
        assert!(
            (ms(45)..ms(46)).contains(&when),
            "{when:?}: 45 ms, but for the slow rise"
        );
    }

    #[test]
    fn never_in_the_future() {
        let start = Instant::now();
        let clock = LiveClock::starting(MediaTime::ZERO, start);
        assert_eq!(
            clock.instant_of(MediaTime::from_millis(500), start + ms(1)),
            start + ms(1)
        );
    }

    #[test]
    fn a_slow_crystal_is_followed() {
        let start = Instant::now();
        let mut clock = LiveClock::starting(MediaTime::ZERO, start);
        // 200 ppm slow for an hour: media loses 720 ms against us.
        for second in 1..=3_600_u64 {
            let media = MediaTime::from_ticks(
                second as i64 * (MediaTime::TICKS_PER_SECOND - MediaTime::TICKS_PER_SECOND / 5_000),
            );
            clock.observe(media, start + Duration::from_secs(second));
        }
        let media = MediaTime::from_millis(3_600_000 - 720);
        let lag = clock.live(start + Duration::from_secs(3_600)) - media;
        assert!(lag.abs() < MediaTime::from_millis(2), "{lag:?}");
    }

    #[test]
    fn media_before_the_origin_maps_too() {
        let start = Instant::now() + ms(1_000);
        let clock = LiveClock::starting(MediaTime::ZERO, start);
        let early = clock.instant_of(MediaTime::from_millis(-23), start + ms(10));
        assert_eq!(start - early, ms(23));
    }
}

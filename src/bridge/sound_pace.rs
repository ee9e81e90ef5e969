//! [`SoundPace`]: no more sound for a browser than it can play.
//!
//! After a publisher's path stalled, what it held back comes all at once. A browser plays
//! that one after the other, a little faster than in real time, and keeps the picture
//! back with it: after a stall of three seconds it is late for half a minute. So what comes
//! faster than it can be played, beyond a small reserve, is left out, and the browser goes
//! on at the live edge.

use std::time::Instant;

use crate::media::MediaTime;

/// How much sound a browser has been given that it has still to play.
#[derive(Clone, Copy, Debug, Default)]
pub struct SoundPace {
    ahead: MediaTime,
    /// The last packet: when it came here, and its time.
    last: Option<(Instant, MediaTime)>,
}

impl SoundPace {
    /// Whether a packet of time `pts` that has come at `now` is to be sent.
    pub fn takes(&mut self, now: Instant, pts: MediaTime) -> bool {
        let Some((at, before)) = self.last.replace((now, pts)) else {
            return true;
        };
        let played = now.saturating_duration_since(at).mul_f64(PLAYS_FASTER);
        self.ahead = (self.ahead - MediaTime::from_duration(played)).max(MediaTime::ZERO);
        if self.ahead > AHEAD_MAX {
            return false;
        }
        self.ahead += (pts - before).clamp(MediaTime::ZERO, PACKET_MAX);
        true
    }
}

/// What a browser may have to play besides its own reserve. Publishers hand sound over in
/// pieces, and our workers too; ffmpeg's and OBS' are below 100 ms.
const AHEAD_MAX: MediaTime = MediaTime::from_millis(400);

/// A sound that runs faster than the clock here, by the drift of crystals or by a path that
/// is emptying slowly, is no backlog: browsers play it that much faster unheard.
const PLAYS_FASTER: f64 = 1.02;

/// The longest Opus packet (RFC 6716 section 2.1.4). A greater step is a gap.
const PACKET_MAX: MediaTime = MediaTime::from_millis(120);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const STEP: Duration = Duration::from_millis(20);

    /// Hands in `count` packets of 20 ms from `pts` on, `every` so long; how many are taken.
    fn feed(
        pace: &mut SoundPace,
        now: &mut Instant,
        pts: &mut MediaTime,
        count: u32,
        every: Duration,
    ) -> u32 {
        let mut taken = 0;
        for _ in 0..count {
            taken += u32::from(pace.takes(*now, *pts));
            *now += every;
            *pts += MediaTime::from_millis(20);
        }
        taken
    }

    #[test]
    fn sound_in_its_own_time_is_all_sent_for_a_day() {
        let (mut pace, mut now, mut pts) = (
            SoundPace::default(),
            Instant::now(),
            MediaTime::from_millis(0),
        );
        // A crystal that runs 500 ppm too fast.
        let every = STEP.mul_f64(0.9995);
        let count = 24 * 3600 * 50;
        assert_eq!(feed(&mut pace, &mut now, &mut pts, count, every), count);
    }

    #[test]
    fn sound_in_pieces_of_a_third_of_a_second_is_all_sent() {
        let (mut pace, mut now, mut pts) = (
            SoundPace::default(),
            Instant::now(),
            MediaTime::from_millis(0),
        );
        for _ in 0..100 {
            assert_eq!(feed(&mut pace, &mut now, &mut pts, 16, Duration::ZERO), 16);
            now += 16 * STEP;
        }
    }

    #[test]
    fn of_what_comes_all_at_once_after_a_stall_only_a_reserve_is_sent() {
        let (mut pace, mut now, mut pts) = (
            SoundPace::default(),
            Instant::now(),
            MediaTime::from_millis(0),
        );
        feed(&mut pace, &mut now, &mut pts, 500, STEP);
        now += Duration::from_secs(3);
        let taken = feed(
            &mut pace,
            &mut now,
            &mut pts,
            150,
            Duration::from_micros(500),
        );
        assert!((20..=26).contains(&taken), "{taken} of 150");
        // Live sound afterwards loses at most one packet more.
        assert!(feed(&mut pace, &mut now, &mut pts, 500, STEP) >= 499);
    }

    #[test]
    fn a_gap_in_the_sound_is_no_backlog() {
        let (mut pace, now) = (SoundPace::default(), Instant::now());
        assert!(pace.takes(now, MediaTime::from_millis(0)));
        assert!(pace.takes(now + STEP, MediaTime::from_millis(60_000)));
        assert!(pace.takes(now + 2 * STEP, MediaTime::from_millis(60_020)));
    }
}

//! [`Sender`]: where a publisher is in its clip.

use std::time::{Duration, Instant};

use crate::clip::{Due, What};
use crate::stamp::Stamp;

/// One publisher's way through the clip, over and over, in real time.
#[derive(Clone, Debug)]
pub struct Sender {
    publisher: u32,
    /// Number of the next picture.
    number: u64,
    /// Where timestamps are 0.
    epoch: Instant,
    /// When this turn of the clip began.
    turn: Instant,
    index: usize,
    duration: Duration,
}

/// One thing that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// What it is.
    pub what: What,
    /// Its time from the beginning of the stream.
    pub time: Duration,
}

impl Sender {
    /// A stream that begins now. `publisher` is what its stamps say.
    pub fn new(publisher: u32, duration: Duration, now: Instant) -> Self {
        Self {
            publisher: publisher & 0x0fff_ffff,
            number: 0,
            epoch: now,
            turn: now,
            index: 0,
            duration,
        }
    }

    /// What its stamps say.
    pub fn publisher(&self) -> u32 {
        self.publisher
    }

    /// When the next thing is due.
    pub fn due(&self, clip: &[Due]) -> Instant {
        self.turn + clip[self.index].at
    }

    /// Takes what is due, one at a time.
    pub fn take(&mut self, clip: &[Due], now: Instant) -> Option<Ready> {
        let due = self.due(clip);
        if due > now {
            return None;
        }
        let what = clip[self.index].what;
        self.index += 1;
        if self.index == clip.len() {
            self.index = 0;
            self.turn += self.duration;
        }
        Some(Ready {
            what,
            time: due - self.epoch,
        })
    }

    /// The stamp of the next picture, which is sent now.
    pub fn stamp(&mut self, now_us: u64) -> Stamp {
        let number = self.number;
        self.number += 1;
        Stamp {
            publisher: self.publisher,
            number,
            sent_us: now_us,
            slice_bytes: 0,
        }
    }

    /// Jumps to the next thing for which `is_key` holds, which is then due at once; time goes
    /// on. So a clip answers who asks for a key frame, as an encoder would.
    pub fn jump(&mut self, clip: &[Due], now: Instant, is_key: impl Fn(What) -> bool) {
        let ahead = (self.index..clip.len()).chain(0..self.index);
        for index in ahead {
            if is_key(clip[index].what) {
                // Never back, or timestamps would.
                let due = now.max(self.due(clip));
                self.index = index;
                self.turn = due.checked_sub(clip[index].at).unwrap_or(self.turn);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clip() -> Vec<Due> {
        let at = |ms, what| Due {
            at: Duration::from_millis(ms),
            what,
        };
        vec![
            at(0, What::Video(0)),
            at(10, What::Audio(0)),
            at(40, What::Video(1)),
            at(80, What::Video(2)),
        ]
    }

    const TURN: Duration = Duration::from_millis(120);

    #[test]
    fn time_goes_on_from_turn_to_turn() {
        let (clip, now) = (clip(), Instant::now());
        let mut sender = Sender::new(7, TURN, now);
        let later = now + Duration::from_millis(200);
        let times: Vec<u128> = std::iter::from_fn(|| sender.take(&clip, later))
            .map(|ready| ready.time.as_millis())
            .collect();
        assert_eq!(times, [0, 10, 40, 80, 120, 130, 160, 200]);
        assert_eq!(sender.due(&clip), now + TURN * 2);
    }

    #[test]
    fn pictures_are_numbered() {
        let mut sender = Sender::new(u32::MAX, TURN, Instant::now());
        assert_eq!(sender.stamp(5).number, 0);
        let stamp = sender.stamp(6);
        assert_eq!(
            (stamp.number, stamp.sent_us, stamp.publisher),
            (1, 6, 0x0fff_ffff)
        );
    }

    #[test]
    fn a_jump_is_due_at_once_and_time_goes_on() {
        let (clip, now) = (clip(), Instant::now());
        let mut sender = Sender::new(7, TURN, now);
        let later = now + Duration::from_millis(10);
        while sender.take(&clip, later).is_some() {}
        let asked = now + Duration::from_millis(41);
        sender.jump(&clip, asked, |what| what == What::Video(0));
        let ready = sender.take(&clip, asked).expect("due at once");
        assert_eq!(ready.what, What::Video(0));
        assert_eq!(ready.time, Duration::from_millis(41));
        assert_eq!(sender.due(&clip), asked + Duration::from_millis(10));
    }
}

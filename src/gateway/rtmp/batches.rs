//! [`Batches`]: when a stream's RTMP players are served, so that one write carries much.
//!
//! A write to a socket costs the kernel about the same whatever it carries, some
//! microseconds, and the messages of a live stream are small: what a thousand players cost is
//! the number of their writes. So messages are gathered for a *window* and then all
//! players of the stream are given all of them, each in one write.
//!
//! By itself (`rtmp.merge_ms = "auto"`) the window is zero while writes are few, and every
//! message leaves in the turn it came in. It grows with the number of messages a second,
//! all streams together, up to [`WINDOW_MAX`]: a little more than one AAC frame, so that each
//! picture leaves with the sound around it. A picture ends a window that is half over, and sound
//! waits twice as long for one: the picture, which is what people see come late, then waits
//! for its turn in the walk alone. Of 72 messages a second (25 pictures a second, AAC at 48 kHz)
//! that makes 25 writes. A fixed `rtmp.merge_ms` is the window whatever the load.
//!
//! Whoever has had no picture yet does not wait: its join is served outside of any batch,
//! and a key frame that somebody waits for ends the window.
//!
//! Players are visited in slices ([`Walk`]), between which the world looks after its sockets.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::Merge;
use crate::ids::{IdMap, StreamId};

/// Streams whose RTMP players have something to get.
#[derive(Debug)]
pub struct Batches {
    merge: Merge,
    load: Load,
    streams: IdMap<StreamId, Batch>,
    /// Those of `streams` whose window has ended, in the order of its end.
    due: VecDeque<StreamId>,
    /// Streams with a player that waits for its first picture.
    awaited: IdMap<StreamId, ()>,
    turns: usize,
}

/// What the players of one stream wait for.
#[derive(Clone, Copy, Debug)]
enum Batch {
    /// For the end of the window, or a picture.
    Gathering { since: Instant, until: Instant },
    /// For their turn.
    Due(Walk),
}

/// What came for the players of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// Sound, of a stream that has pictures.
    Sound,
    /// A picture that nobody can begin with.
    Picture,
    /// A key frame, or sound where there are no pictures: who waits begins with it.
    Start,
}

/// One walk over a stream's RTMP players.
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    /// Whose players.
    pub stream: StreamId,
    /// Players visited so far.
    pub visited: usize,
    /// Where in the list of players it began; rotates, so that nobody is always last.
    pub start: usize,
    /// The least cursor of the players visited.
    pub slowest: u64,
    /// Whether one of the players visited waits for its first picture.
    pub is_awaited: bool,
    /// The state of the list of players that `visited` counts in.
    roster: Option<u64>,
    /// When news came after the first players were visited.
    again: Option<Instant>,
    /// Whether there was only sound among it.
    is_sound: bool,
}

impl Batches {
    /// No news yet.
    pub fn new(merge: Merge) -> Self {
        Self {
            merge,
            load: Load::default(),
            streams: IdMap::default(),
            due: VecDeque::new(),
            awaited: IdMap::default(),
            turns: 0,
        }
    }

    /// `stream` has a message for its `players` RTMP players. Answers when to say
    /// [`Batches::end_window`], if that is to be.
    pub fn mark(
        &mut self,
        now: Instant,
        stream: StreamId,
        players: usize,
        arrived: Arrived,
    ) -> Option<Instant> {
        self.load.add(now, players);
        let is_awaited = arrived == Arrived::Start && self.awaited.contains_key(&stream);
        let is_sound = arrived == Arrived::Sound;
        let window = self.window(now);
        let may_end = self.merge == Merge::Auto && !is_sound;
        match self.streams.get_mut(&stream) {
            Some(Batch::Due(walk)) => {
                if walk.visited > 0 {
                    walk.is_sound = is_sound && walk.is_sound;
                    walk.again.get_or_insert(now);
                }
                None
            }
            Some(Batch::Gathering { since, until }) => {
                let is_half_over = now.saturating_duration_since(*since) >= window / 2;
                if is_awaited || (may_end && is_half_over) {
                    self.make_due(stream);
                    return None;
                }
                if may_end {
                    // Sound waited for it, but not for others.
                    *until = (*until).min(*since + window);
                    return Some(*until);
                }
                None
            }
            None if is_awaited => {
                self.make_due(stream);
                None
            }
            None => self.begin(now, now, stream, is_sound),
        }
    }

    /// A player of `stream` waits for its first picture.
    pub fn await_start(&mut self, stream: StreamId) {
        self.awaited.insert(stream, ());
    }

    /// The time that [`Batches::mark`] named may have come. Answers when to ask again if not.
    pub fn end_window(&mut self, now: Instant, stream: StreamId) -> Option<Instant> {
        let Some(Batch::Gathering { until, .. }) = self.streams.get(&stream) else {
            return None;
        };
        if now < *until {
            return Some(*until);
        }
        self.make_due(stream);
        None
    }

    /// Takes the walk that is to go on. It is put back or finished before the next one is taken.
    pub fn take(&mut self) -> Option<Walk> {
        let stream = self.due.pop_front()?;
        match self.streams.get(&stream) {
            Some(Batch::Due(walk)) => Some(*walk),
            _ => None,
        }
    }

    /// Puts an unfinished walk back, behind those of other streams.
    pub fn put_back(&mut self, walk: Walk) {
        self.streams.insert(walk.stream, Batch::Due(walk));
        self.due.push_back(walk.stream);
    }

    /// A walk has visited everybody. Answers as [`Batches::mark`] does if news came meanwhile.
    pub fn finish(&mut self, now: Instant, walk: Walk) -> Option<Instant> {
        self.streams.remove(&walk.stream);
        if walk.is_awaited {
            self.awaited.insert(walk.stream, ());
        } else {
            self.awaited.remove(&walk.stream);
        }
        // The walk's time is part of the next window: those visited first wait since then.
        let since = walk.again?;
        if walk.is_awaited {
            self.make_due(walk.stream);
            return None;
        }
        self.begin(now, since, walk.stream, walk.is_sound)
    }

    /// Whether somebody is to be served now.
    pub fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// How long messages are gathered now.
    pub fn window(&self, now: Instant) -> Duration {
        match self.merge {
            Merge::Fixed(window) => window,
            Merge::Auto => {
                let load = (self.load.at(now) - CALM) / (BUSY - CALM);
                WINDOW_MAX.mul_f64(load.clamp(0.0, 1.0))
            }
        }
    }

    /// Begins a batch whose first message came at `since`; `is_sound` if it waits for a picture.
    fn begin(
        &mut self,
        now: Instant,
        since: Instant,
        stream: StreamId,
        is_sound: bool,
    ) -> Option<Instant> {
        let window = self.window(now);
        let waits_longer = is_sound && self.merge == Merge::Auto;
        let until = since + if waits_longer { 2 * window } else { window };
        if until <= now {
            self.make_due(stream);
            return None;
        }
        let batch = Batch::Gathering { since, until };
        self.streams.insert(stream, batch);
        Some(until)
    }

    fn make_due(&mut self, stream: StreamId) {
        self.turns = self.turns.wrapping_add(1);
        let walk = Walk {
            stream,
            visited: 0,
            start: self.turns.wrapping_mul(STRIDE),
            slowest: u64::MAX,
            is_awaited: false,
            roster: None,
            again: None,
            is_sound: true,
        };
        self.streams.insert(stream, Batch::Due(walk));
        self.due.push_back(stream);
    }
}

impl Walk {
    /// The list of players is as `roster` says. Who moved in it since the last visit may be passed
    /// over now: nothing is let go of, and the next walk comes to everybody.
    pub fn note_roster(&mut self, now: Instant, roster: u64) {
        if self
            .roster
            .replace(roster)
            .is_some_and(|before| before != roster)
        {
            self.slowest = 0;
            self.is_sound = false;
            self.again.get_or_insert(now);
        }
    }
}

/// Messages for players in about the last second: each counts less the longer ago it was.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    messages: f64,
    counted_at: Option<Instant>,
}

impl Load {
    fn add(&mut self, now: Instant, players: usize) {
        self.messages = self.at(now) + players as f64;
        self.counted_at = Some(now);
    }

    /// Messages a second at `now`.
    fn at(&self, now: Instant) -> f64 {
        let Some(counted_at) = self.counted_at else {
            return 0.0;
        };
        let passed = now.saturating_duration_since(counted_at).as_secs_f64();
        self.messages * (-passed).exp()
    }
}

/// Messages a second up to which each is written at once: 140 players of a usual stream, a
/// tenth of a core.
const CALM: f64 = 10_000.0;

/// Messages a second from which on the window is at its largest: 420 players.
const BUSY: f64 = 30_000.0;

/// The window under load. An AAC frame lasts 21.3 ms (48 kHz) or 23.2 ms (44.1 kHz): in a shorter
/// window the second sound beside each picture makes a write of its own, twice as
/// many in all.
const WINDOW_MAX: Duration = Duration::from_millis(24);

/// How far the beginning of one walk lies from that of the one before; odd, and no divisor of
/// usual numbers of players.
const STRIDE: usize = 379;

#[cfg(test)]
mod tests;

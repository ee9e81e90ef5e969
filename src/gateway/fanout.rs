//! [`Fanout`]: whose players are to be served next, in slices.
//!
//! One key frame for a thousand viewers is tens of milliseconds of work. Cut into slices, with
//! the world's sockets looked after in between, it delays nobody's sound and no
//! publisher: sound has a queue of its own that goes first.

use std::collections::{HashMap, VecDeque};

use crate::ids::StreamId;
use crate::media::TrackKind;

/// Streams with news, in the order they got them.
#[derive(Debug, Default)]
pub struct Fanout {
    audio: Queue,
    video: Queue,
    turns: usize,
}

/// Passes of one kind, at most one for each stream.
#[derive(Debug, Default)]
struct Queue {
    order: VecDeque<StreamId>,
    passes: HashMap<StreamId, Pass>,
}

/// One walk over a stream's players.
#[derive(Clone, Copy, Debug)]
pub struct Pass {
    /// Whose players.
    pub stream: StreamId,
    /// What for.
    pub kind: TrackKind,
    /// Players visited so far.
    pub visited: usize,
    /// Where in the list of players it began; rotates, so that nobody is always last.
    pub start: usize,
    /// The least cursor of the players visited.
    pub slowest: u64,
    /// The state of the list of players that `visited` counts in.
    pub roster: Option<u64>,
    /// News came after the first players were visited.
    again: bool,
}

impl Fanout {
    /// `stream` has news of `kind`.
    pub fn mark(&mut self, stream: StreamId, kind: TrackKind) {
        self.turns = self.turns.wrapping_add(1);
        let start = self.turns;
        let queue = self.queue(kind);
        match queue.passes.get_mut(&stream) {
            Some(pass) => pass.again |= pass.visited > 0,
            None => queue.push(Pass {
                stream,
                kind,
                visited: 0,
                start,
                slowest: u64::MAX,
                roster: None,
                again: false,
            }),
        }
    }

    /// Takes the pass that is to go on.
    pub fn take(&mut self) -> Option<Pass> {
        self.audio.pop().or_else(|| self.video.pop())
    }

    /// Puts an unfinished pass back, behind the other streams' of its kind.
    pub fn put_back(&mut self, mut pass: Pass) {
        let queue = self.queue(pass.kind);
        match queue.passes.get_mut(&pass.stream) {
            // News came while it was out.
            Some(newer) => {
                pass.again = true;
                *newer = pass;
            }
            None => queue.push(pass),
        }
    }

    /// A pass has visited everybody. Goes round again if news came meanwhile.
    pub fn finish(&mut self, pass: Pass) {
        if pass.again {
            self.mark(pass.stream, pass.kind);
        }
    }

    /// Whether somebody is to be served.
    pub fn is_pending(&self) -> bool {
        !self.audio.order.is_empty() || !self.video.order.is_empty()
    }

    fn queue(&mut self, kind: TrackKind) -> &mut Queue {
        match kind {
            TrackKind::Audio => &mut self.audio,
            TrackKind::Video => &mut self.video,
        }
    }
}

impl Queue {
    fn push(&mut self, pass: Pass) {
        self.order.push_back(pass.stream);
        self.passes.insert(pass.stream, pass);
    }

    fn pop(&mut self) -> Option<Pass> {
        let stream = self.order.pop_front()?;
        self.passes.remove(&stream)
    }
}

impl Pass {
    /// The list of players is as `roster` says. Who moved in it since the last visit may be passed
    /// over now: nothing is let go of, and the next pass comes to everybody.
    pub fn note_roster(&mut self, roster: u64) {
        if self
            .roster
            .replace(roster)
            .is_some_and(|before| before != roster)
        {
            self.slowest = 0;
            self.again = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sound_goes_before_pictures() {
        let mut fanout = Fanout::default();
        fanout.mark(StreamId(1), TrackKind::Video);
        fanout.mark(StreamId(2), TrackKind::Audio);
        fanout.mark(StreamId(2), TrackKind::Audio);
        let order: Vec<_> = std::iter::from_fn(|| fanout.take())
            .map(|pass| (pass.stream.0, pass.kind))
            .collect();
        assert_eq!(order, [(2, TrackKind::Audio), (1, TrackKind::Video)]);
    }

    #[test]
    fn news_during_a_pass_makes_another_one() {
        let mut fanout = Fanout::default();
        fanout.mark(StreamId(1), TrackKind::Video);
        let mut pass = fanout.take().expect("marked");
        pass.visited = 5;
        fanout.put_back(pass);
        fanout.mark(StreamId(1), TrackKind::Video);
        let pass = fanout.take().expect("put back");
        assert!(!fanout.is_pending());
        fanout.finish(pass);
        assert!(fanout.is_pending());
    }

    #[test]
    fn whoever_moves_in_the_list_is_served_by_the_next_pass() {
        let mut fanout = Fanout::default();
        fanout.mark(StreamId(1), TrackKind::Video);
        let mut pass = fanout.take().expect("marked");
        pass.slowest = 7;
        pass.note_roster(3);
        pass.note_roster(3);
        assert_eq!((pass.slowest, pass.again), (7, false));
        pass.note_roster(4);
        assert_eq!((pass.slowest, pass.again), (0, true));
    }

    #[test]
    fn news_while_a_pass_is_out_do_not_double_it() {
        let mut fanout = Fanout::default();
        fanout.mark(StreamId(1), TrackKind::Video);
        let mut pass = fanout.take().expect("marked");
        pass.visited = 5;
        fanout.mark(StreamId(1), TrackKind::Video);
        fanout.put_back(pass);
        let pass = fanout.take().expect("put back");
        assert_eq!((pass.visited, pass.again), (5, true));
        assert!(!fanout.is_pending());
    }
}

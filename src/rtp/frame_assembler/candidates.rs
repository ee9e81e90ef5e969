//! [`Candidates`]: IDR pictures behind a hole, on their way to be whole.

use std::time::Instant;

use super::super::ring::Ring;
use super::Slot;
use super::patience::{Deadlines, Patience};

/// The few IDR pictures that are being received behind a hole, oldest first; one per timestamp.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    list: Vec<Candidate>,
}

#[derive(Debug)]
struct Candidate {
    /// Its first packet known so far.
    start: u64,
    /// Behind the packets that were looked at, all there.
    next: u64,
    rtp_time: u64,
    has_idr: bool,
    /// Nothing of it is missing in front: it begins with an SPS, or what is before it is there.
    begin_known: bool,
    /// All up to its end is there.
    ended: bool,
    /// Until when it waits: for what is missing at `next`, or for what may be missing in front.
    wait: Option<(u64, Deadlines)>,
}

/// What came of looking at the deadlines.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Expired {
    /// One waits so long already that another key frame is to be asked for.
    pub(super) ask: bool,
    /// One was given up.
    pub(super) given_up: bool,
}

impl Candidates {
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether one may be whole before an answer to a request would.
    pub(super) fn are_promising(&self) -> bool {
        let waits = self.list.iter().map(|candidate| candidate.wait);
        let mut waits = waits.map(|wait| wait.is_some_and(|(_, wait)| wait.has_asked()));
        waits.any(|has_asked| !has_asked)
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
    }

    /// Forgets those that begin before `sequence`.
    pub(super) fn drop_before(&mut self, sequence: u64) {
        self.list.retain(|candidate| candidate.start >= sequence);
    }

    /// Where the first one begins.
    pub(super) fn first_start(&self) -> Option<u64> {
        self.list.first().map(|candidate| candidate.start)
    }

    /// Where the oldest whole one begins.
    pub(super) fn ready(&self) -> Option<u64> {
        let mut list = self.list.iter();
        let ready = list.find(|candidate| candidate.ended && candidate.begin_known)?;
        Some(ready.start)
    }

    /// When [`Candidates::expire`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let waits = self.list.iter().filter_map(|candidate| candidate.wait);
        waits.map(|(_, wait)| wait.next()).min()
    }

    /// Takes account of the packet at `sequence`, which the ring holds.
    ///
    /// `sure` says that IDR pictures of this sender begin with their first slice.
    pub(super) fn note(
        &mut self,
        ring: &Ring<Slot>,
        sequence: u64,
        now: Instant,
        patience: Patience,
        sure: bool,
    ) {
        let Some(slot) = ring.get(sequence) else {
            return;
        };
        let begins = slot.hint.sps || (slot.hint.idr && slot.hint.begins_picture);
        let same = self
            .list
            .iter()
            .position(|known| known.rtp_time == slot.rtp_time);
        match same {
            Some(at) if begins => {
                if let Some(known) = self.list.get_mut(at)
                    && sequence < known.start
                {
                    // Its real begin came late.
                    *known = Candidate::new(sequence, slot);
                }
            }
            None if begins && self.list.len() < CANDIDATES_MAX => {
                let at = self.list.partition_point(|known| known.start < sequence);
                self.list.insert(at, Candidate::new(sequence, slot));
            }
            _ => {}
        }
        self.list.retain_mut(|candidate| {
            let touched = candidate.next == sequence
                || candidate.start == sequence
                || candidate.start == sequence + 1
                || (candidate.wait.is_none() && !candidate.ended);
            !touched || candidate.update(ring, now, patience, sure)
        });
    }

    /// Gives up those whose time has passed. One that is whole but for what is missing in front is
    /// given up too: that was its parameter sets, and with them may have come a new size of the
    /// picture.
    pub(super) fn expire(&mut self, now: Instant) -> Expired {
        let mut expired = Expired::default();
        self.list.retain_mut(|candidate| {
            let Some((_, wait)) = &mut candidate.wait else {
                return true;
            };
            expired.ask |= wait.asks(now);
            let is_over = wait.is_over(now);
            expired.given_up |= is_over;
            !is_over
        });
        expired
    }
}

impl Candidate {
    fn new(sequence: u64, slot: &Slot) -> Self {
        Self {
            start: sequence,
            next: sequence,
            rtp_time: slot.rtp_time,
            has_idr: false,
            begin_known: slot.hint.sps,
            ended: false,
            wait: None,
        }
    }

    /// Looks at what came; answers whether it can still be an IDR picture.
    fn update(&mut self, ring: &Ring<Slot>, now: Instant, patience: Patience, sure: bool) -> bool {
        self.extend_backward(ring, sure);
        while !self.ended
            && let Some(slot) = ring.get(self.next)
        {
            let padding = slot.payload.is_empty();
            if !padding && slot.rtp_time != self.rtp_time {
                self.ended = true;
            } else if slot.hint.other_slice && !self.has_idr {
                return false;
            } else {
                self.has_idr |= slot.hint.idr;
                self.ended = slot.marker && slot.rtp_time == self.rtp_time;
                self.next += 1;
            }
        }
        if self.ended && !self.has_idr {
            return false;
        }
        // What it waits for: a packet in its middle while later ones are there, or one in front.
        let waits_at = if self.ended {
            (!self.begin_known).then_some(self.start)
        } else {
            (ring.end() > self.next).then_some(self.next)
        };
        self.wait = match (waits_at, self.wait) {
            (Some(at), Some((known, wait))) if known == at => Some((at, wait)),
            (Some(at), _) => Some((at, Deadlines::new(now, patience))),
            (None, _) => None,
        };
        true
    }

    /// Takes in what belongs in front of the first slice: parameter sets, delimiter, SEI, with or
    /// without markers and timestamps of their own.
    fn extend_backward(&mut self, ring: &Ring<Slot>, sure: bool) {
        for _ in 0..PRELUDE_PACKETS_MAX {
            let before = self.start.checked_sub(1).and_then(|at| ring.get(at));
            let Some(before) = before else {
                self.begin_known |= sure;
                return;
            };
            if !before.hint.is_prelude() {
                // The end of another picture: nothing is missing.
                self.begin_known = true;
                return;
            }
            self.begin_known |= before.hint.sps;
            self.start -= 1;
        }
    }
}

/// Most IDR pictures that are followed at once; further ones are not looked at until one of these
/// is given up.
const CANDIDATES_MAX: usize = 8;

/// Most packets that are taken for the prelude of a picture.
const PRELUDE_PACKETS_MAX: usize = 16;

//! [`FrameAssembler`]: whole access units out of H.264 RTP packets that may be lost, late, doubled
//! or out of order.
//!
//! A frame is whole when its packets are contiguous from the end of the frame before it to its own
//! end, which is a marker or the next timestamp. Nothing else proves it: first and last fragment
//! are there in a frame whose middle is lost, and markers get lost or are left out (SRS #4160).
//!
//! ```text
//!            a whole IDR picture whose begin is known
//!   Seeking ------------------------------------------> Following
//!      ^                                                    |
//!      |  a hole was not filled in time, a frame was        |
//!      +-- malformed, or a limit was reached ---------------+
//! ```
//!
//! - *Following*: each frame comes out at the push of its last packet. A hole waits for its
//!   retransmission; a key frame is asked for where two tries of it failed (`patience`), and a
//!   whole IDR picture behind it ends the wait. Nothing is held for longer than 1.6 s.
//! - *Seeking*: at the start and after a loss. Frames are dropped up to the next IDR picture, which
//!   is asked for at once, unless one is on its way. No frame that refers to a lost one ever comes
//!   out.
//!
//! Packets without payload (bandwidth probes) count in the sequence and are nothing else. Frames
//! come out in decoding order; timestamps that go back are the reader's business.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::h264_depacketizer::{DepacketizeError, Hint, Payload};
use super::ring::{Place, Ring};
use crate::codec::h264::{AccessUnit, AccessUnitBuilder};

use candidates::Candidates;
use keyframe_requests::KeyframeRequests;
use patience::{Deadlines, NACK_DELAY, Patience};

mod candidates;
mod interface;
mod keyframe_requests;
mod patience;

pub use interface::{Counters, KeyframeReason, Limits, Output, Packet};

/// Puts access units together. Feed packets, then drain [`FrameAssembler::poll`].
#[derive(Debug)]
pub struct FrameAssembler {
    limits: Limits,
    patience: Patience,
    state: State,
    ring: Ring<Slot>,
    bytes: usize,
    candidates: Candidates,
    requests: KeyframeRequests,
    /// Parameter sets that came without a picture, for the next one.
    sets: AccessUnit,
    /// Whether the IDR pictures of this sender come without their parameter sets.
    sets_out_of_band: bool,
    after_loss: bool,
    /// The timestamp of the last slot that was dropped, for the count of frames.
    dropped_time: Option<u64>,
    late_run: LateRun,
    outputs: VecDeque<Output>,
    counters: Counters,
}

/// Where the assembler stands; the drawing is in the module's documentation.
#[derive(Clone, Copy, Debug)]
enum State {
    /// No packet came yet.
    Idle,
    /// No frame may come out before an IDR picture.
    Seeking,
    /// The frame in the making begins at the ring's base.
    Following {
        /// How many of its slots were looked at: all there, none of them its end.
        scanned: usize,
        /// The slot behind them, if it is waited for while later ones are there, and until when.
        hole: Option<(u64, Deadlines)>,
        /// Whether the IDR picture that ended the search is still to come out.
        fresh: bool,
    },
}

#[derive(Debug)]
struct Slot {
    rtp_time: u64,
    marker: bool,
    hint: Hint,
    arrival: Instant,
    payload: Bytes,
}

/// Packets in a row that were all late: a sender that began its sequence anew.
#[derive(Clone, Copy, Debug, Default)]
struct LateRun {
    next: u64,
    count: u32,
    newest_time: u64,
}

impl FrameAssembler {
    /// An assembler that waits for its first packet.
    pub fn new(mut limits: Limits) -> Self {
        // Room for what the network reorders, whatever the limit says.
        limits.packets_max = limits.packets_max.max(2 * REORDER_WINDOW as usize);
        Self {
            limits,
            patience: Patience::new(limits.hole_wait),
            state: State::Idle,
            ring: Ring::new(0),
            bytes: 0,
            candidates: Candidates::default(),
            requests: KeyframeRequests::new(limits.keyframe_interval),
            sets: AccessUnit::default(),
            sets_out_of_band: false,
            after_loss: true,
            dropped_time: None,
            late_run: LateRun::default(),
            outputs: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// Takes a packet in.
    pub fn push(&mut self, now: Instant, packet: Packet) {
        if packet.sequence > SEQUENCE_MAX {
            self.counters.malformed += 1;
            return;
        }
        if matches!(self.state, State::Idle) {
            self.restart(packet.sequence);
            self.requests
                .want(KeyframeReason::Start, now + self.patience.ask);
        }
        let mut place = self.ring.place(packet.sequence, self.limits.packets_max);
        if place == Place::Before && self.late_run.extends_to_restart(&packet) {
            place = Place::Beyond;
        }
        let fits = self.bytes + packet.payload.len() <= self.limits.bytes_max;
        if place == Place::Beyond || (matches!(place, Place::Free(_)) && !fits) {
            self.overflow(now, packet.sequence);
            place = self.ring.place(packet.sequence, self.limits.packets_max);
        }
        match place {
            Place::Free(offset) => self.insert(now, offset, packet),
            Place::Before | Place::Beyond => self.counters.late += 1,
            Place::Taken => self.counters.duplicates += 1,
        }
        self.expire(now);
    }

    /// Looks at what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.expire(now);
    }

    /// The next thing to be done; `None` once all is.
    pub fn poll(&mut self, _now: Instant) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`FrameAssembler::handle_timeout`] wants to be called, as things stand.
    pub fn next_timeout(&self) -> Option<Instant> {
        let hole = match self.state {
            State::Following { hole, .. } => hole.map(|(_, deadlines)| deadlines.next()),
            _ => None,
        };
        // A request is held back while a key frame seems to be on its way.
        let request = self.requests.next_timeout();
        let request = request.filter(|_| !self.candidates.are_promising());
        let deadlines = [hole, self.candidates.next_deadline(), request];
        deadlines.into_iter().flatten().min()
    }

    /// A key frame is wanted by somebody else, a player that joined say: asks for it unless that
    /// was just done, and again while packets come and no IDR picture does.
    pub fn request_keyframe(&mut self, now: Instant) {
        self.requests.want(KeyframeReason::Requested, now);
        self.expire(now);
    }

    /// The parameter sets are known otherwise (`sprop-parameter-sets` of RFC 6184 section 8.1): the
    /// first IDR picture need not bring them. Later ones teach the assembler what this sender does.
    pub const fn expect_sets_out_of_band(&mut self) {
        self.sets_out_of_band = true;
    }

    /// Fits the waits to the round-trip time: a hole waits for two tries of a retransmission, 100
    /// to 800 ms, before a key frame is asked for. Where the first try is lost too, the second
    /// costs less than a new key frame, which takes a round trip and its own size.
    pub fn set_rtt(&mut self, rtt: Duration) {
        self.patience = Patience::for_rtt(rtt);
        let answer = rtt
            .saturating_add(NACK_DELAY * 2)
            .min(KEYFRAME_INTERVAL_MAX);
        self.requests
            .set_interval(answer.max(self.limits.keyframe_interval));
    }

    /// How long a hole waits at present until a key frame is asked for; twice as long until what
    /// is held is dropped, unless that key frame comes first.
    pub const fn hole_wait(&self) -> Duration {
        self.patience.ask
    }

    /// Totals since the start.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// For how long what is held has waited for a hole to be filled.
    pub fn held(&self, now: Instant) -> Duration {
        let State::Following { hole: Some(_), .. } = self.state else {
            return Duration::ZERO;
        };
        let oldest = self.ring.next_from(self.ring.base());
        oldest.map_or(Duration::ZERO, |(_, slot)| {
            now.saturating_duration_since(slot.arrival)
        })
    }

    /// Payload bytes held at present.
    pub const fn bytes_held(&self) -> usize {
        self.bytes
    }

    fn insert(&mut self, now: Instant, offset: usize, packet: Packet) {
        self.late_run.count = 0;
        self.late_run.newest_time = self.late_run.newest_time.max(packet.rtp_time);
        self.requests.saw_packet();
        let hint = if packet.payload.is_empty() {
            self.counters.padding += 1;
            Hint::default()
        } else {
            // What is malformed is found when its frame is put together.
            Payload::decode(&packet.payload).map_or(Hint::default(), |payload| payload.hint())
        };
        self.bytes += packet.payload.len();
        let slot = Slot {
            rtp_time: packet.rtp_time,
            marker: packet.marker,
            hint,
            arrival: now,
            payload: packet.payload,
        };
        self.ring.fill(offset, slot);
        match self.state {
            State::Following { scanned, .. } if offset == scanned => self.follow(now),
            State::Following { hole: None, .. } => self.follow(now),
            _ => {}
        }
        // In order and in step, there is nothing to look for.
        if !matches!(self.state, State::Following { hole: None, .. }) {
            self.seek(now, packet.sequence);
        }
    }

    /// Takes out every frame that is whole.
    fn follow(&mut self, now: Instant) {
        while let State::Following { scanned, hole, .. } = &mut self.state {
            let base = self.ring.base();
            let at = base + *scanned as u64;
            let Some(slot) = self.ring.get(at) else {
                self.note_hole(now, at);
                return;
            };
            if hole.take().is_some_and(|(_, wait)| wait.has_asked()) {
                // Mended after all.
                self.requests.withdraw(KeyframeReason::Loss);
            }
            let padding = slot.payload.is_empty();
            let other_frame = self
                .ring
                .get(base)
                .is_some_and(|first| first.rtp_time != slot.rtp_time);
            if padding && *scanned == 0 {
                self.discard_first();
            } else if !padding && other_frame {
                // Its marker was lost or left out.
                let count = *scanned;
                self.finish_frame(now, count);
            } else if slot.marker && !other_frame {
                let count = *scanned + 1;
                self.finish_frame(now, count);
            } else {
                *scanned += 1;
            }
        }
    }

    /// Nothing stands at `at`, where the frame in the making should go on: a hole, if there is
    /// something behind.
    fn note_hole(&mut self, now: Instant, at: u64) {
        let behind = self.ring.next_from(at).map(|(_, slot)| slot.arrival);
        let State::Following { hole, .. } = &mut self.state else {
            return;
        };
        match (behind, *hole) {
            (None, _) => {
                *hole = None;
                self.candidates.clear();
            }
            (Some(_), Some((known, _))) if known == at => {}
            (Some(arrival), _) => {
                self.counters.holes += 1;
                *hole = Some((at, Deadlines::new(arrival.min(now), self.patience)));
                self.candidates.drop_before(at);
            }
        }
    }

    /// Puts the first `count` slots together and lets the frame out.
    fn finish_frame(&mut self, now: Instant, count: usize) {
        let base = self.ring.base();
        let slots = || {
            (base..)
                .take(count)
                .filter_map(|sequence| self.ring.get(sequence))
        };
        let rtp_time = slots().next().map_or(0, |slot| slot.rtp_time);
        let arrival = slots().map(|slot| slot.arrival).min().unwrap_or(now);
        let bytes = slots().map(|slot| slot.payload.len() + LENGTH_LEN).sum();
        let mut builder = AccessUnitBuilder::with_capacity(bytes);
        let mut malformed = 0;
        let mut damaged = false;
        for slot in slots().filter(|slot| !slot.payload.is_empty()) {
            let payload = Payload::decode(&slot.payload);
            match payload.and_then(|payload| payload.append_to(&mut builder)) {
                Ok(()) => {}
                // A packet of a type that was not negotiated is no part of the picture.
                Err(DepacketizeError::PacketType(_)) => malformed += 1,
                Err(_) => {
                    malformed += 1;
                    damaged = true;
                }
            }
        }
        let unit = builder.finish().ok().filter(|_| !damaged);
        self.counters.malformed += malformed;
        let keeps_promise = |unit: &AccessUnit| {
            // What was taken for an IDR picture may turn out to be none.
            !matches!(self.state, State::Following { fresh: true, .. })
                || unit.idr
                || unit.vcl_count == 0
        };
        match unit.filter(keeps_promise) {
            Some(unit) => {
                for _ in 0..count {
                    self.take_first();
                }
                let fresh = matches!(self.state, State::Following { fresh: true, .. });
                self.state = State::Following {
                    scanned: 0,
                    hole: None,
                    fresh: fresh && !unit.has_picture(),
                };
                self.emit(rtp_time, arrival, unit);
            }
            None => {
                for _ in 0..count {
                    self.discard_first();
                }
                self.lose(now, KeyframeReason::Malformed);
            }
        }
    }

    fn emit(&mut self, rtp_time: u64, arrival: Instant, mut unit: AccessUnit) {
        if !unit.has_picture() {
            // In a frame of their own, or before a marker of their own (OBS over WHIP).
            for (kept, new) in [
                (&mut self.sets.sps, unit.sps),
                (&mut self.sets.pps, unit.pps),
            ] {
                if !new.is_empty() {
                    *kept = new;
                }
            }
            return;
        }
        for (kept, own) in [
            (&mut self.sets.sps, &mut unit.sps),
            (&mut self.sets.pps, &mut unit.pps),
        ] {
            let kept = std::mem::take(kept);
            if own.is_empty() {
                *own = kept;
            }
        }
        self.counters.frames += 1;
        if unit.idr {
            self.counters.keyframes += 1;
            self.sets_out_of_band = unit.sps.is_empty();
            self.requests.satisfied();
        }
        self.dropped_time = None;
        self.outputs.push_back(Output::AccessUnit {
            rtp_time,
            arrival,
            unit,
            after_loss: std::mem::take(&mut self.after_loss),
        });
    }

    /// Looks whether the packet at `sequence` begins or completes an IDR picture behind a hole.
    fn seek(&mut self, now: Instant, sequence: u64) {
        let sure = self.sets_out_of_band;
        self.candidates
            .note(&self.ring, sequence, now, self.patience, sure);
        if let State::Seeking = self.state {
            self.trim();
            let other = self
                .ring
                .get(sequence)
                .is_some_and(|slot| slot.hint.other_slice);
            if other && self.candidates.is_empty() {
                // The stream goes on without an IDR picture.
                self.requests.want(KeyframeReason::Start, now);
            }
        }
        self.jump(now);
    }

    /// Goes on at a whole IDR picture, if there is one; drops what is before it.
    fn jump(&mut self, now: Instant) {
        while let Some(start) = self.candidates.ready() {
            while self.ring.base() < start && !self.ring.is_empty() {
                self.discard_first();
            }
            self.after_loss = true;
            self.candidates.drop_before(start + 1);
            self.state = State::Following {
                scanned: 0,
                hole: None,
                fresh: true,
            };
            self.follow(now);
        }
    }

    /// Deals with every deadline that has passed.
    fn expire(&mut self, now: Instant) {
        if let State::Following {
            hole: Some((_, wait)),
            ..
        } = &mut self.state
        {
            let asks = wait.asks(now);
            if wait.is_over(now) {
                self.counters.holes_lost += 1;
                self.lose(now, KeyframeReason::Loss);
            } else if asks {
                self.requests.want(KeyframeReason::Loss, now);
            }
        }
        let expired = self.candidates.expire(now);
        if matches!(self.state, State::Seeking) && (expired.ask || expired.given_up) {
            self.counters.holes_lost += u64::from(expired.given_up);
            self.requests.want(KeyframeReason::Loss, now);
        }
        self.jump(now);
        if !self.candidates.are_promising()
            && let Some(reason) = self.requests.poll(now)
        {
            self.counters.keyframe_requests += 1;
            self.outputs.push_back(Output::KeyframeNeeded { reason });
        }
    }

    /// The frame in the making is lost, and with it all up to the next IDR picture.
    fn lose(&mut self, now: Instant, reason: KeyframeReason) {
        if let State::Following {
            hole: Some((at, _)),
            ..
        } = self.state
        {
            while self.ring.base() <= at && !self.ring.is_empty() {
                self.discard_first();
            }
        }
        self.state = State::Seeking;
        self.after_loss = true;
        self.requests.want(reason, now);
        self.candidates.drop_before(self.ring.base());
        // Once per loss, not per packet: what is held may contain an IDR picture.
        let sure = self.sets_out_of_band;
        for sequence in self.ring.base()..self.ring.end() {
            self.candidates
                .note(&self.ring, sequence, now, self.patience, sure);
        }
        self.trim();
    }

    /// Drops everything held: it is too much, or the sequence jumped.
    fn overflow(&mut self, now: Instant, sequence: u64) {
        self.counters.overflows += 1;
        while !self.ring.is_empty() {
            self.discard_first();
        }
        self.candidates.clear();
        self.restart(sequence);
        self.lose(now, KeyframeReason::Overflow);
    }

    /// Begins with the packet at `sequence`, leaving room for some before it.
    fn restart(&mut self, sequence: u64) {
        self.ring = Ring::new(sequence.saturating_sub(REORDER_WINDOW));
        self.late_run = LateRun::default();
        self.state = State::Seeking;
    }

    /// Drops what no IDR picture can need any more.
    fn trim(&mut self) {
        let end = self.candidates.first_start().unwrap_or(self.ring.end());
        let floor = end.saturating_sub(REORDER_WINDOW);
        while self.ring.base() < floor && !self.ring.is_empty() {
            self.discard_first();
        }
    }

    fn discard_first(&mut self) {
        if let Some(slot) = self.take_first()
            && !slot.payload.is_empty()
            && self.dropped_time != Some(slot.rtp_time)
        {
            self.dropped_time = Some(slot.rtp_time);
            self.counters.dropped += 1;
        }
    }

    fn take_first(&mut self) -> Option<Slot> {
        let slot = self.ring.pop().flatten()?;
        self.bytes -= slot.payload.len();
        Some(slot)
    }
}

impl LateRun {
    /// Counts a late packet; answers whether so many came in a row that the sender must have begun
    /// anew.
    fn extends_to_restart(&mut self, packet: &Packet) -> bool {
        // The time of a retransmission is a recent one.
        let repeated = packet.rtp_time <= self.newest_time
            && self.newest_time - packet.rtp_time < RETRANSMISSION_AGE_MAX;
        self.count = match self.next == packet.sequence {
            _ if repeated => 0,
            true => self.count + 1,
            false => 1,
        };
        self.next = packet.sequence + 1;
        self.count >= LATE_RUN_MAX
    }
}

/// Packets before the first one that are taken in, and that are kept while no IDR picture is in
/// sight: what the network may reorder. Earlier ones are late.
const REORDER_WINDOW: u64 = 64;

/// Late packets in an unbroken row that are taken for a new sequence; all that is held is dropped
/// then.
const LATE_RUN_MAX: u32 = 64;

/// Oldest timestamp of a retransmission, 10 s at 90 kHz before the newest one.
const RETRANSMISSION_AGE_MAX: u64 = 900_000;

/// Largest sequence number: far from what 64 bits hold, so that sums cannot wrap. Packets above are
/// malformed.
const SEQUENCE_MAX: u64 = 1 << 62;

/// Bytes of a NAL unit's length in front of it.
const LENGTH_LEN: usize = 4;

/// Longest time between key frame requests that a round-trip time can bring about.
const KEYFRAME_INTERVAL_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;

#[cfg(test)]
mod link_tests;
#[cfg(test)]
mod sender_tests;

//! [`Reorder`]: audio packets in the order of their sequence numbers, each at once where none is
//! missing.
//!
//! A missing packet is waited for a bounded time, since sound is worth less late than concealed;
//! then the gap is reported and what comes late is ignored. The wait follows what the network
//! reorders (`patience`), so that a loss delays the sound no longer than need be. Timestamps are not looked at: a sender
//! in discontinuous transmission skips time, not numbers.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::ring::{Place, Ring};
use patience::Patience;

mod patience;

/// Bounds of a [`Reorder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a missing packet is waited for at most, from the arrival of the first one behind it.
    pub wait: Duration,
    /// Most packets, missing ones included, from the one waited for to the newest. A packet beyond
    /// ends all waits: what is held comes out with its gaps.
    pub packets_max: usize,
}

impl Default for Limits {
    /// 120 ms, which is more than networks usually reorder; 256 packets.
    fn default() -> Self {
        Self {
            wait: Duration::from_millis(120),
            packets_max: 256,
        }
    }
}

/// What comes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// The next packet.
    Packet {
        /// The extended sequence number.
        sequence: u64,
        /// The extended timestamp.
        rtp_time: u64,
        /// When it arrived.
        arrival: Instant,
        /// The payload; never empty.
        payload: Bytes,
    },
    /// Packets before the next one were not received in time. How much sound that was, the next
    /// timestamp tells.
    Lost {
        /// How many, at least 1.
        count: u64,
    },
}

/// Totals since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that came out.
    pub packets: u64,
    /// Packets that were reported lost.
    pub lost: u64,
    /// Packets whose place was passed, doubled ones among them.
    pub late: u64,
    /// Packets that were held already.
    pub duplicates: u64,
    /// Packets without payload.
    pub padding: u64,
    /// Times that a packet came from beyond the limit.
    pub overflows: u64,
}

/// Puts packets in order. Feed packets, then drain [`Reorder::poll`].
#[derive(Debug)]
pub struct Reorder {
    limits: Limits,
    /// Its base is the packet waited for; `None` before the first.
    ring: Option<Ring<Slot>>,
    outputs: VecDeque<Output>,
    patience: Patience,
    late_run: (u64, u32),
    counters: Counters,
}

#[derive(Debug)]
struct Slot {
    rtp_time: u64,
    arrival: Instant,
    payload: Bytes,
}

impl Reorder {
    /// A reorderer that begins with the first packet it gets.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            ring: None,
            outputs: VecDeque::new(),
            patience: Patience::new(limits.wait),
            late_run: (0, 0),
            counters: Counters {
                packets: 0,
                lost: 0,
                late: 0,
                duplicates: 0,
                padding: 0,
                overflows: 0,
            },
        }
    }

    /// Takes a packet in: its extended sequence number and timestamp and its payload without
    /// padding. One without payload counts in the sequence and does not come out.
    pub fn push(&mut self, now: Instant, sequence: u64, rtp_time: u64, payload: Bytes) {
        let ring = self.ring.get_or_insert_with(|| Ring::new(sequence));
        let slot = Slot {
            rtp_time,
            arrival: now,
            payload,
        };
        match ring.place(sequence, self.limits.packets_max) {
            Place::Free(offset) => {
                self.late_run = (0, 0);
                match ring.next_from(sequence) {
                    Some((_, behind)) => {
                        let after = now.saturating_duration_since(behind.arrival);
                        self.patience.filled(after);
                    }
                    None => self.patience.in_order(),
                }
                ring.fill(offset, slot);
            }
            Place::Taken => self.counters.duplicates += 1,
            Place::Before => {
                self.counters.late += 1;
                self.patience.came_late(now, sequence);
                self.note_late(sequence, slot);
            }
            Place::Beyond => {
                self.counters.overflows += 1;
                self.flush();
                let missing = sequence - self.base();
                self.begin_at(sequence, slot);
                self.lose(missing);
            }
        }
        self.advance(now);
    }

    /// Looks at what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
    }

    /// The next packet or gap; `None` once all are out.
    pub fn poll(&mut self, _now: Instant) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Reorder::handle_timeout`] wants to be called: the end of the present wait.
    pub fn next_timeout(&self) -> Option<Instant> {
        let ring = self.ring.as_ref()?;
        let (_, waiting) = ring.next_from(ring.base())?;
        Some(waiting.arrival + self.patience.wait())
    }

    /// For how long what is held has waited for a missing packet.
    pub fn held(&self, now: Instant) -> Duration {
        let waiting = self
            .ring
            .as_ref()
            .and_then(|ring| ring.next_from(ring.base()));
        waiting.map_or(Duration::ZERO, |(_, slot)| {
            now.saturating_duration_since(slot.arrival)
        })
    }

    /// How long a missing packet is waited for at present.
    pub fn wait(&self) -> Duration {
        self.patience.wait()
    }

    /// Totals since the start.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Lets out all that is there or has waited long enough.
    fn advance(&mut self, now: Instant) {
        while let Some(ring) = &self.ring
            && let Some((sequence, slot)) = ring.next_from(ring.base())
        {
            let missing = sequence - ring.base();
            if missing > 0 {
                let noticed = slot.arrival;
                if now < noticed + self.patience.wait() {
                    return;
                }
                let first = ring.base();
                self.patience.gave_up(first, sequence - 1, noticed);
            }
            self.let_out(missing);
        }
    }

    /// Lets all out, with gaps.
    fn flush(&mut self) {
        while let Some(ring) = &self.ring
            && let Some((sequence, _)) = ring.next_from(ring.base())
        {
            self.let_out(sequence - ring.base());
        }
    }

    /// Reports `missing` slots lost and lets the one behind them out.
    fn let_out(&mut self, missing: u64) {
        self.lose(missing);
        let Some(ring) = &mut self.ring else {
            return;
        };
        for _ in 0..missing {
            ring.pop();
        }
        let sequence = ring.base();
        let Some(slot) = ring.pop().flatten() else {
            return;
        };
        if slot.payload.is_empty() {
            self.counters.padding += 1;
            return;
        }
        self.counters.packets += 1;
        self.outputs.push_back(Output::Packet {
            sequence,
            rtp_time: slot.rtp_time,
            arrival: slot.arrival,
            payload: slot.payload,
        });
    }

    fn lose(&mut self, count: u64) {
        if count > 0 {
            self.counters.lost += count;
            self.outputs.push_back(Output::Lost { count });
        }
    }

    /// A sender that begins its sequence anew looks late for ever: an unbroken row of late packets
    /// is taken for one.
    fn note_late(&mut self, sequence: u64, slot: Slot) {
        let (next, count) = self.late_run;
        let count = if next == sequence { count + 1 } else { 1 };
        self.late_run = (sequence.saturating_add(1), count);
        if count >= LATE_RUN_MAX {
            self.counters.overflows += 1;
            self.flush();
            self.begin_at(sequence, slot);
        }
    }

    fn begin_at(&mut self, sequence: u64, slot: Slot) {
        let mut ring = Ring::new(sequence);
        ring.fill(0, slot);
        self.ring = Some(ring);
        self.late_run = (0, 0);
    }

    fn base(&self) -> u64 {
        self.ring.as_ref().map_or(0, Ring::base)
    }
}

/// Late packets in an unbroken row that are taken for a new sequence: 320 ms of sound, more than is
/// ever retransmitted in one piece.
const LATE_RUN_MAX: u32 = 16;

#[cfg(test)]
mod tests;

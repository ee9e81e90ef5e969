//! [`Patience`]: how long what is missing is worth waiting for, by the round-trip time.
//!
//! A hole has two deadlines. At the first, two tries of a retransmission have failed and a key
//! frame is asked for. Until that one is whole there is nothing else to show, so that the hole
//! goes on being waited for up to the second deadline: whichever comes first, the missing packet
//! or the key frame, ends the freeze. No picture comes later for it than it would by the key
//! frame alone, and a network that answers the first two tries never sees the second deadline.

use std::time::{Duration, Instant};

/// The two waits of a hole, from the arrival of the first packet behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Patience {
    /// Until a key frame is asked for.
    pub(super) ask: Duration,
    /// Until what is held is dropped.
    pub(super) give_up: Duration,
}

/// The deadlines of one hole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    /// `None` once it has passed.
    ask_at: Option<Instant>,
    give_up_at: Instant,
}

impl Patience {
    pub(super) fn new(ask: Duration) -> Self {
        Self {
            ask,
            give_up: ask.saturating_mul(2),
        }
    }

    /// Two tries of a retransmission fit before a key frame is asked for, and about five, after
    /// which nobody asks for the packet again, before what is held is dropped.
    pub(super) fn for_rtt(rtt: Duration) -> Self {
        let tries = rtt.saturating_mul(2).saturating_add(NACK_DELAY * 2);
        Self::new(tries.clamp(ASK_MIN, ASK_MAX))
    }
}

impl Deadlines {
    pub(super) fn new(since: Instant, patience: Patience) -> Self {
        Self {
            ask_at: Some(since + patience.ask),
            give_up_at: since + patience.give_up,
        }
    }

    /// The next of the two.
    pub(super) fn next(&self) -> Instant {
        self.ask_at.unwrap_or(self.give_up_at)
    }

    /// Whether the first one has passed just now: answers so once.
    pub(super) fn asks(&mut self, now: Instant) -> bool {
        self.ask_at.take_if(|at| *at <= now).is_some()
    }

    /// Whether the first one has passed.
    pub(super) const fn has_asked(&self) -> bool {
        self.ask_at.is_none()
    }

    /// Whether the second one has passed.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.give_up_at <= now
    }
}

/// What a receiver takes to notice a hole and send its NACK.
pub(super) const NACK_DELAY: Duration = Duration::from_millis(50);

/// Bounds of the wait until a key frame is asked for: shorter asks for what one try would have
/// saved, longer is a freeze that a key frame ends sooner. What is held is never older than
/// twice the upper one.
const ASK_MIN: Duration = Duration::from_millis(100);
pub(super) const ASK_MAX: Duration = Duration::from_millis(800);

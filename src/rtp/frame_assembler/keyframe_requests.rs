//! [`KeyframeRequests`]: when to ask a sender for a key frame.

use std::time::{Duration, Instant};

use super::KeyframeReason;

/// Asks on evidence, not too often, and again while no key frame comes but packets do.
#[derive(Debug)]
pub(super) struct KeyframeRequests {
    /// Why a key frame is wanted; `None` while none is.
    wanted: Option<KeyframeReason>,
    /// The earliest time of the next request.
    not_before: Option<Instant>,
    asked: Option<Instant>,
    /// Whether something happened since the last request that shows the sender to be there.
    evidence: bool,
    interval: Duration,
}

impl KeyframeRequests {
    pub(super) const fn new(interval: Duration) -> Self {
        Self {
            wanted: None,
            not_before: None,
            asked: None,
            evidence: false,
            interval,
        }
    }

    pub(super) const fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// A key frame is wanted, to be asked for at `when` or as soon after as the interval allows.
    /// The first reason stays, but a player's wish stands above a loss, which may yet be mended.
    pub(super) fn want(&mut self, reason: KeyframeReason, when: Instant) {
        let replaces_loss = reason == KeyframeReason::Requested;
        match self.wanted {
            Some(KeyframeReason::Loss) if replaces_loss => self.wanted = Some(reason),
            Some(_) => {}
            None => self.wanted = Some(reason),
        }
        self.evidence = true;
        let allowed = self
            .asked
            .map_or(when, |asked| when.max(asked + self.interval));
        self.not_before = Some(
            self.not_before
                .map_or(allowed, |earlier| earlier.min(allowed)),
        );
    }

    /// A packet came.
    pub(super) const fn saw_packet(&mut self) {
        self.evidence = true;
    }

    /// A key frame came.
    pub(super) const fn satisfied(&mut self) {
        self.wanted = None;
        self.not_before = None;
    }

    /// `reason` is gone: no key frame is wanted if it was for that.
    pub(super) fn withdraw(&mut self, reason: KeyframeReason) {
        if self.wanted == Some(reason) {
            self.satisfied();
        }
    }

    /// The reason to be sent now, if it is time.
    pub(super) fn poll(&mut self, now: Instant) -> Option<KeyframeReason> {
        if self.next_timeout()? > now {
            return None;
        }
        self.asked = Some(now);
        self.not_before = Some(now + self.interval);
        self.evidence = false;
        self.wanted
    }

    /// When [`KeyframeRequests::poll`] will answer, as things stand.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.wanted.filter(|_| self.evidence).and(self.not_before)
    }
}

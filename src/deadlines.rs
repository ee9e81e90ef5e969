//! [`Deadlines`]: one ordered set of everything somebody waits for.
//!
//! Each owner has at most one deadline. One that moves later is left where it is: it comes
//! up early, does nothing and is armed again, which is cheaper than moving it with every
//! packet.

use std::collections::BTreeSet;
use std::hash::Hash;
use std::time::Instant;

use crate::ids::IdMap;

/// Deadlines of owners of type `T`, earliest first.
#[derive(Debug)]
pub struct Deadlines<T> {
    order: BTreeSet<(Instant, T)>,
    armed: IdMap<T, Instant>,
}

impl<T: Copy + Ord + Hash> Default for Deadlines<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Copy + Ord + Hash> Deadlines<T> {
    /// No deadlines.
    pub fn new() -> Self {
        Self {
            order: BTreeSet::new(),
            armed: IdMap::default(),
        }
    }

    /// Has `owner` called at `at` or, if a call is due before, then first.
    pub fn arm(&mut self, owner: T, at: Option<Instant>) {
        let Some(at) = at else {
            self.disarm(owner);
            return;
        };
        if let Some(armed) = self.armed.get(&owner) {
            if *armed <= at {
                return;
            }
            self.order.remove(&(*armed, owner));
        }
        self.armed.insert(owner, at);
        self.order.insert((at, owner));
    }

    /// Forgets an owner.
    pub fn disarm(&mut self, owner: T) {
        if let Some(armed) = self.armed.remove(&owner) {
            self.order.remove(&(armed, owner));
        }
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes the earliest owner whose deadline is not after `now`.
    pub fn pop_due(&mut self, now: Instant) -> Option<T> {
        let (at, owner) = *self.order.first()?;
        if at > now {
            return None;
        }
        self.order.pop_first();
        self.armed.remove(&owner);
        Some(owner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn earliest_first_and_only_when_due() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut deadlines = Deadlines::new();
        deadlines.arm('a', Some(at(30)));
        deadlines.arm('b', Some(at(10)));
        assert_eq!(deadlines.next(), Some(at(10)));
        assert_eq!(deadlines.pop_due(at(9)), None);
        assert_eq!(deadlines.pop_due(at(30)), Some('b'));
        assert_eq!(deadlines.pop_due(at(30)), Some('a'));
        assert_eq!(deadlines.pop_due(at(30)), None);
    }

    #[test]
    fn a_deadline_moves_earlier_at_once_and_later_by_an_idle_call() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut deadlines = Deadlines::new();
        deadlines.arm('a', Some(at(30)));
        deadlines.arm('a', Some(at(20)));
        assert_eq!(deadlines.next(), Some(at(20)));
        deadlines.arm('a', Some(at(50)));
        assert_eq!(deadlines.next(), Some(at(20)));
        deadlines.arm('a', None);
        assert_eq!(deadlines.next(), None);
    }
}

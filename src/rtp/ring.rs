//! [`Ring`]: what arrived out of order, found by its sequence number without a search.

use std::collections::VecDeque;

/// Slots for consecutive sequence numbers from a base on; a slot is empty until its packet comes.
///
/// The last slot is never empty. Every operation is O(1) but for one that passes over a gap, which
/// costs the length of the gap once.
#[derive(Debug)]
pub(super) struct Ring<T> {
    base: u64,
    slots: VecDeque<Option<T>>,
}

impl<T> Ring<T> {
    pub(super) const fn new(base: u64) -> Self {
        Self {
            base,
            slots: VecDeque::new(),
        }
    }

    /// The sequence number of the first slot.
    pub(super) const fn base(&self) -> u64 {
        self.base
    }

    /// One more than the highest sequence number held; the base if nothing is.
    pub(super) fn end(&self) -> u64 {
        self.base.saturating_add(self.slots.len() as u64)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn get(&self, sequence: u64) -> Option<&T> {
        let offset = sequence.checked_sub(self.base)?;
        self.slots.get(usize::try_from(offset).ok()?)?.as_ref()
    }

    /// Where `sequence` would stand, and whether it can.
    pub(super) fn place(&self, sequence: u64, len_max: usize) -> Place {
        let Some(offset) = sequence.checked_sub(self.base) else {
            return Place::Before;
        };
        match usize::try_from(offset) {
            Ok(offset) if offset < len_max => match self.slots.get(offset) {
                Some(Some(_)) => Place::Taken,
                _ => Place::Free(offset),
            },
            _ => Place::Beyond,
        }
    }

    /// Fills the slot at an offset that [`Ring::place`] found free.
    pub(super) fn fill(&mut self, offset: usize, value: T) {
        while self.slots.len() <= offset {
            self.slots.push_back(None);
        }
        if let Some(slot) = self.slots.get_mut(offset) {
            *slot = Some(value);
        }
    }

    /// Takes the first slot off. `None` where there is none; the base moves on otherwise.
    pub(super) fn pop(&mut self) -> Option<Option<T>> {
        let slot = self.slots.pop_front()?;
        self.base = self.base.saturating_add(1);
        if self.slots.is_empty() && self.slots.capacity() > IDLE_SLOTS_MAX {
            self.slots = VecDeque::new();
        }
        Some(slot)
    }

    /// The first packet at or behind `sequence`, and where it stands.
    pub(super) fn next_from(&self, sequence: u64) -> Option<(u64, &T)> {
        let skip = usize::try_from(sequence.saturating_sub(self.base)).ok()?;
        let first = self.base.max(sequence);
        self.slots
            .range(skip.min(self.slots.len())..)
            .zip(first..)
            .find_map(|(slot, sequence)| Some((sequence, slot.as_ref()?)))
    }
}

/// Where a packet belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Before the base: too late.
    Before,
    /// At an offset where nothing is yet.
    Free(usize),
    /// Where its twin is already.
    Taken,
    /// Further ahead than may be held.
    Beyond,
}

/// Slots whose memory an empty ring keeps.
const IDLE_SLOTS_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_stand_by_their_numbers() {
        let mut ring = Ring::new(100);
        assert_eq!((ring.base(), ring.end(), ring.is_empty()), (100, 100, true));
        assert_eq!(ring.place(99, 8), Place::Before);
        assert_eq!(ring.place(107, 8), Place::Free(7));
        assert_eq!(ring.place(108, 8), Place::Beyond);
        assert_eq!(ring.place(u64::MAX, 8), Place::Beyond);
        ring.fill(2, 'c');
        assert_eq!(
            (ring.get(101), ring.get(102), ring.end()),
            (None, Some(&'c'), 103)
        );
        assert_eq!(ring.place(102, 8), Place::Taken);
        assert_eq!(ring.place(101, 8), Place::Free(1));
        assert_eq!(ring.next_from(0), Some((102, &'c')));
        assert_eq!(ring.next_from(103), None);
        ring.fill(0, 'a');
        assert_eq!(ring.next_from(101), Some((102, &'c')));
        assert_eq!(ring.pop(), Some(Some('a')));
        assert_eq!(ring.pop(), Some(None));
        assert_eq!(ring.pop(), Some(Some('c')));
        assert_eq!(ring.pop(), None);
        assert_eq!(ring.base(), 103);
    }
}

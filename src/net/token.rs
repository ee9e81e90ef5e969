//! Names: what an event of the kernel is about, and [`Slab`], which gives each
//! connection an id that is never that of another one.

use mio::Token;

use crate::gateway::ConnId;

/// Audio workers, the [`super::Stopper`].
pub(super) const WAKER: Token = Token(0);
/// The pipe that signal handlers write to.
pub(super) const SIGNALS: Token = Token(1);
/// The UDP socket of all WebRTC sessions.
pub(super) const UDP: Token = Token(2);
/// The first TCP listener; the others follow.
const LISTENERS: usize = 3;
/// Tokens from here on are those of connections: generations begin with 1.
const CONNECTIONS: usize = 1 << GENERATION_SHIFT;
const GENERATION_SHIFT: u32 = 32;

const _: () = assert!(usize::BITS == 64, "a token holds a slot and its generation");

/// The token of listener number `index`.
pub(super) const fn of_listener(index: usize) -> Token {
    Token(LISTENERS + index)
}

/// The listener that `token` names, if it is not one of the fixed ones above.
pub(super) const fn listener(token: Token) -> Option<usize> {
    if token.0 < CONNECTIONS {
        token.0.checked_sub(LISTENERS)
    } else {
        None
    }
}

/// The token of a connection.
pub(super) const fn of_connection(id: ConnId) -> Token {
    Token(id.0 as usize)
}

/// The connection that `token` names.
pub(super) const fn connection(token: Token) -> Option<ConnId> {
    if token.0 >= CONNECTIONS {
        Some(ConnId(token.0 as u64))
    } else {
        None
    }
}

/// Connections by id. An id is a slot and how often that slot was used, so that an
/// event or an output that comes late for a connection finds nothing, not its successor.
pub(super) struct Slab<T> {
    slots: Vec<Slot<T>>,
    /// Free slots, the one to be used next last.
    free: Vec<u32>,
}

struct Slot<T> {
    /// From 1; wraps after four billion connections, past 0.
    generation: u32,
    value: Option<T>,
}

impl<T> Slab<T> {
    pub(super) const fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    /// The id that the next [`Slab::insert`] will give.
    pub(super) fn next_id(&self) -> ConnId {
        let slot = self.free.last().copied();
        let slot = slot.unwrap_or(self.slots.len() as u32);
        let generation = self.slots.get(slot as usize).map_or(1, |s| s.generation);
        ConnId(u64::from(generation) << GENERATION_SHIFT | u64::from(slot))
    }

    pub(super) fn insert(&mut self, value: T) -> ConnId {
        let id = self.next_id();
        match self.free.pop() {
            Some(slot) => self.slots[slot as usize].value = Some(value),
            None => self.slots.push(Slot {
                generation: 1,
                value: Some(value),
            }),
        }
        id
    }

    pub(super) fn get_mut(&mut self, id: ConnId) -> Option<&mut T> {
        self.slot_mut(id)?.value.as_mut()
    }

    pub(super) fn remove(&mut self, id: ConnId) -> Option<T> {
        let slot = self.slot_mut(id)?;
        let value = slot.value.take()?;
        slot.generation = slot.generation.checked_add(1).unwrap_or(1);
        self.free.push(id.0 as u32);
        Some(value)
    }

    /// All that are there.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|slot| slot.value.as_ref())
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn slot_mut(&mut self, id: ConnId) -> Option<&mut Slot<T>> {
        // The low half is the slot, the high half its generation.
        let slot = self.slots.get_mut(id.0 as u32 as usize)?;
        (u64::from(slot.generation) == id.0 >> GENERATION_SHIFT).then_some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_id_does_not_find_its_successor() {
        let mut slab = Slab::new();
        let first = slab.insert("first");
        let other = slab.insert("other");
        assert_eq!(slab.remove(first), Some("first"));
        let second = slab.insert("second");
        assert_eq!(first.0 as u32, second.0 as u32, "the slot is used again");
        assert_eq!(slab.get_mut(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get_mut(second).copied(), Some("second"));
        assert_eq!(slab.get_mut(other).copied(), Some("other"));
        assert_eq!(slab.len(), 2);
    }

    #[test]
    fn next_id_is_what_insert_gives() {
        let mut slab = Slab::new();
        for _ in 0..3 {
            let next = slab.next_id();
            assert_eq!(slab.insert(()), next);
        }
        let id = ConnId(1 << 32 | 1);
        slab.remove(id);
        let next = slab.next_id();
        assert_ne!(next, id);
        assert_eq!(slab.insert(()), next);
    }

    #[test]
    fn generations_wrap_past_zero() {
        let mut slab = Slab::new();
        let id = slab.insert(());
        slab.slots[0].generation = u32::MAX;
        assert_eq!(slab.get_mut(id), None);
        slab.remove(ConnId(u64::from(u32::MAX) << 32));
        assert_eq!(slab.insert(()), id);
    }

    #[test]
    fn tokens_tell_what_they_name() {
        for token in [WAKER, SIGNALS, UDP] {
            assert_eq!((listener(token), connection(token)), (None, None));
        }
        assert_eq!(listener(of_listener(2)), Some(2));
        assert_eq!(connection(of_listener(2)), None);
        let id = ConnId(7 << 32 | 5);
        assert_eq!(connection(of_connection(id)), Some(id));
        assert_eq!(listener(of_connection(id)), None);
    }
}

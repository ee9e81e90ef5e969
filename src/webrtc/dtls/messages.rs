//! [`Messages`]: a peer's handshake messages, whole and one at a time, whatever records and
//! datagrams they come in.
//!
//! dimpl 0.9 judges a datagram by its first message: if it has that one already, it drops the
//! rest too, and pieces of a message that do not begin where the last one ended are never put
//! together. So a flight of which only the first records arrived, and that is then repeated in
//! other datagrams or smaller pieces (RFC 6347 section 4.2.3 lets the sender choose), would stall
//! the handshake for good. Here every message of epoch 0 is put together first, as section 4.2.2
//! has it, and handed on in a record of its own, each once and in order. What is repeated is
//! handed on as it came, since dimpl answers some of it by its own flight.

use std::collections::VecDeque;

/// Puts messages together up to the end of the handshake.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// The number of the first message that was not handed on.
    next: u16,
    /// From that one on, what is there of each.
    parts: VecDeque<Option<Message>>,
}

/// A message in the making.
#[derive(Debug)]
struct Message {
    kind: u8,
    body: Vec<u8>,
    /// Which parts of the body are there: begin and end, ascending, apart from one another.
    spans: Vec<(usize, usize)>,
}

/// One fragment of a message (RFC 6347 section 4.2.2).
#[derive(Clone, Copy, Debug)]
struct Fragment<'a> {
    kind: u8,
    /// Of the whole message.
    length: usize,
    number: u16,
    offset: usize,
    bytes: &'a [u8],
    /// The fragment with its header.
    whole: &'a [u8],
}

impl Messages {
    /// Takes a record and hands on what is ready: records of one message each.
    ///
    /// # Errors
    /// The first one that `hand_on` answers with.
    pub(super) fn take<E>(
        &mut self,
        record: &[u8],
        mut hand_on: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(fragments) = fragments(record) else {
            return hand_on(record);
        };
        for fragment in fragments {
            match usize::from(fragment.number).checked_sub(usize::from(self.next)) {
                Some(ahead) if fragment.length <= MESSAGE_BYTES_MAX => self.keep(ahead, fragment),
                _ => hand_on(&wrapped(record, fragment.whole))?,
            }
            while let Some(message) = self.pop_whole() {
                hand_on(&wrapped(record, &message))?;
            }
        }
        Ok(())
    }

    fn keep(&mut self, ahead: usize, fragment: Fragment<'_>) {
        if ahead >= AHEAD_MAX {
            return;
        }
        while self.parts.len() <= ahead {
            self.parts.push_back(None);
        }
        let Some(place) = self.parts.get_mut(ahead) else {
            return;
        };
        let is_same = |message: &Message| {
            message.kind == fragment.kind && message.body.len() == fragment.length
        };
        if !place.as_ref().is_some_and(is_same) {
            *place = None;
        }
        place
            .get_or_insert_with(|| Message::new(&fragment))
            .fill(&fragment);
    }

    /// The next message with its header, as if it had never been in pieces.
    fn pop_whole(&mut self) -> Option<Vec<u8>> {
        let front = self.parts.front()?.as_ref()?;
        if !front.is_whole() {
            return None;
        }
        let number = self.next;
        let message = self.parts.pop_front().flatten()?;
        self.next = number.checked_add(1)?;
        Some(message.encode(number))
    }
}

impl Message {
    fn new(fragment: &Fragment<'_>) -> Self {
        Self {
            kind: fragment.kind,
            body: vec![0; fragment.length],
            spans: Vec::new(),
        }
    }

    fn fill(&mut self, fragment: &Fragment<'_>) {
        let (mut begin, mut end) = (fragment.offset, fragment.offset + fragment.bytes.len());
        let Some(place) = self.body.get_mut(begin..end) else {
            return;
        };
        if self.spans.len() >= SPANS_MAX {
            return;
        }
        place.copy_from_slice(fragment.bytes);
        self.spans.retain(|span| {
            let touches = span.0 <= end && begin <= span.1;
            if touches {
                begin = begin.min(span.0);
                end = end.max(span.1);
            }
            !touches
        });
        let at = self.spans.partition_point(|span| span.0 < begin);
        self.spans.insert(at, (begin, end));
    }

    fn is_whole(&self) -> bool {
        self.spans == [(0, self.body.len())]
    }

    fn encode(&self, number: u16) -> Vec<u8> {
        let length = u32::try_from(self.body.len()).unwrap_or(0).to_be_bytes();
        let mut bytes = Vec::with_capacity(MESSAGE_HEADER_BYTES + self.body.len());
        bytes.push(self.kind);
        bytes.extend_from_slice(&length[1..]);
        bytes.extend_from_slice(&number.to_be_bytes());
        bytes.extend_from_slice(&[0; 3]);
        bytes.extend_from_slice(&length[1..]);
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// The fragments of a record of plain handshake messages; `None` if it is something else or
/// malformed, and dimpl is to judge it.
fn fragments(record: &[u8]) -> Option<Vec<Fragment<'_>>> {
    let (header, mut body) = record.split_first_chunk::<RECORD_HEADER_BYTES>()?;
    let [HANDSHAKE, _, _, 0, 0, ..] = *header else {
        return None;
    };
    let mut fragments = Vec::new();
    while !body.is_empty() {
        let (header, rest) = body.split_first_chunk::<MESSAGE_HEADER_BYTES>()?;
        let [kind, a, b, c, high, low, d, e, f, g, h, i] = *header;
        let number = |bytes: [u8; 3]| {
            let [high, middle, low] = bytes.map(usize::from);
            high << 16 | middle << 8 | low
        };
        let (length, offset, count) = (number([a, b, c]), number([d, e, f]), number([g, h, i]));
        if offset + count > length {
            return None;
        }
        let (whole, behind) = body.split_at_checked(MESSAGE_HEADER_BYTES + count)?;
        fragments.push(Fragment {
            kind,
            length,
            number: u16::from_be_bytes([high, low]),
            offset,
            bytes: rest.get(..count)?,
            whole,
        });
        body = behind;
    }
    Some(fragments)
}

/// `bytes` in a record like `record`.
fn wrapped(record: &[u8], bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(0);
    let mut made = Vec::with_capacity(RECORD_HEADER_BYTES + bytes.len());
    made.extend_from_slice(record.get(..RECORD_HEADER_BYTES - 2).unwrap_or_default());
    made.extend_from_slice(&length.to_be_bytes());
    made.extend_from_slice(bytes);
    made
}

/// Content type of handshake messages (RFC 5246 section 6.2.1).
const HANDSHAKE: u8 = 22;

/// Content type, version, epoch, sequence number, length.
pub(super) const RECORD_HEADER_BYTES: usize = 13;

/// Type, length, message number, fragment's offset, fragment's length.
const MESSAGE_HEADER_BYTES: usize = 12;

/// The longest message that fits a record (RFC 5246 section 6.2.1: 2^14 bytes). A longer one goes
/// on in its pieces.
const MESSAGE_BYTES_MAX: usize = 16_384 - MESSAGE_HEADER_BYTES;

/// Messages that are kept before their turn: the longest flight of a handshake has five. One more
/// is dropped, and comes again.
const AHEAD_MAX: usize = 8;

/// Pieces of one message that lie apart. One more is dropped, and comes again.
const SPANS_MAX: usize = 32;

#[cfg(test)]
mod tests;

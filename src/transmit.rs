//! [`TransmitQueue`]: bytes that wait to be written to one TCP connection.
//!
//! A protocol session puts shared buffers in; the loop gathers them into one vectored
//! write and takes off what the kernel accepted. Nothing is copied per connection.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;

/// Bytes queued for one connection, in order. Knows its length; its bound is
/// the business of whoever fills it.
#[derive(Debug, Default)]
pub struct TransmitQueue {
    chunks: VecDeque<Bytes>,
    /// Bytes of the first chunk that were written already.
    head_written: usize,
    len: usize,
}

impl TransmitQueue {
    /// An empty queue that owns no memory.
    pub const fn new() -> Self {
        Self {
            chunks: VecDeque::new(),
            head_written: 0,
            len: 0,
        }
    }

    /// Appends `bytes`; an empty buffer is not kept.
    pub fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.len += bytes.len();
            self.chunks.push_back(bytes);
        }
    }

    /// Takes the first `count` bytes off: the kernel has them.
    ///
    /// # Panics
    /// If more is taken off than is queued, which is a bug of the caller.
    pub fn advance(&mut self, count: usize) {
        self.len = self
            .len
            .checked_sub(count)
            .expect("no more is written than was queued");
        let mut left = self.head_written + count;
        while let Some(head) = self.chunks.front()
            && left >= head.len()
        {
            left -= head.len();
            self.chunks.pop_front();
        }
        self.head_written = left;
        if self.chunks.is_empty() {
            // An idle connection holds no queue memory.
            self.chunks = VecDeque::new();
        }
    }

    /// Fills `slices` with the front of the queue and answers how many were filled.
    pub fn gather<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slot, chunk) in slices.iter_mut().zip(&self.chunks) {
            let skip = if filled == 0 { self.head_written } else { 0 };
            *slot = IoSlice::new(&chunk[skip..]);
            filled += 1;
        }
        filled
    }

    /// Moves all of `other` to the end of this queue.
    pub fn append(&mut self, other: &mut TransmitQueue) {
        debug_assert_eq!(
            other.head_written, 0,
            "a queue in mid-write is not appended"
        );
        self.len += other.len;
        self.chunks.append(&mut other.chunks);
        other.len = 0;
    }

    /// Takes the first buffer whole, for callers that move bytes in memory.
    pub fn pop(&mut self) -> Option<Bytes> {
        let mut head = self.chunks.pop_front()?;
        let head = head.split_off(std::mem::take(&mut self.head_written));
        self.len -= head.len();
        Some(head)
    }

    /// How many bytes wait.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing waits.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queue: &mut TransmitQueue, step: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while !queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); 2];
            let filled = queue.gather(&mut slices);
            let all: Vec<u8> = slices[..filled]
                .iter()
                .flat_map(|s| s.iter().copied())
                .collect();
            let took = step.min(all.len());
            out.extend_from_slice(&all[..took]);
            queue.advance(took);
        }
        out
    }

    #[test]
    fn partial_writes_of_every_size_keep_the_order() {
        for step in 1..12 {
            let mut queue = TransmitQueue::new();
            for part in ["abc", "", "d", "efghij"] {
                queue.push(Bytes::from_static(part.as_bytes()));
            }
            assert_eq!(queue.len(), 10);
            assert_eq!(drain(&mut queue, step), b"abcdefghij", "step {step}");
        }
    }

    #[test]
    fn pop_gives_what_was_not_written() {
        let mut queue = TransmitQueue::new();
        queue.push(Bytes::from_static(b"hello"));
        queue.push(Bytes::from_static(b"world"));
        queue.advance(2);
        assert_eq!(queue.pop().as_deref(), Some(&b"llo"[..]));
        assert_eq!(queue.len(), 5);
        assert_eq!(queue.pop().as_deref(), Some(&b"world"[..]));
        assert_eq!(queue.pop(), None);
    }
}

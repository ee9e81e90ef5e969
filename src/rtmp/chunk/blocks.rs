//! [`Blocks`]: memory for the messages of a publisher, several in one piece.
//!
//! A stream has some seventy messages a second and the hub keeps each for seconds. An allocation for
//! each would make malloc and free of memory that no cache holds any more a quarter of what a
//! publisher costs. So messages are laid one behind the other into blocks, and each is a slice that
//! keeps its block alive.
//!
//! A block lives as long as the last of its messages, so what nobody wants could be kept
//! by what somebody wants. That is bounded: only sound and pictures of one NetStream go into blocks,
//! which the hub lets go of in the order they came; large ones have memory of their own; and whoever
//! sends much that is dropped loses the blocks ([`Blocks::note_dropped`]). What is held is at most
//! twice what is wanted and some 200 KB.

use bytes::{Bytes, BytesMut};

use crate::rtmp::message::type_id;

/// Where a connection's messages are laid.
#[derive(Debug)]
pub(super) struct Blocks {
    /// The free end of the newest block.
    newest: BytesMut,
    /// The largest free end of an older one: what is left behind pictures is filled with sound.
    older: BytesMut,
    /// The message stream ID whose media goes into blocks: that of the first media.
    stream_id: Option<u32>,
    /// Bytes that may still be laid for nothing.
    credit: usize,
}

impl Default for Blocks {
    fn default() -> Self {
        Self {
            newest: BytesMut::new(),
            older: BytesMut::new(),
            stream_id: None,
            credit: CREDIT_MAX,
        }
    }
}

impl Blocks {
    /// Whether a message of `length` bytes is laid into a block.
    pub(super) fn takes(&self, type_id: u8, stream_id: u32, length: usize) -> bool {
        matches!(type_id, type_id::AUDIO | type_id::VIDEO)
            && length <= SHARED_BYTES_MAX
            && self.credit > 0
            && self.stream_id.is_none_or(|of| of == stream_id)
    }

    /// Lays a message, for which [`Blocks::takes`], into a block.
    pub(super) fn lay(&mut self, stream_id: u32, message: &[u8]) -> Bytes {
        self.stream_id = Some(stream_id);
        self.credit = (self.credit + message.len()).min(CREDIT_MAX);
        let block = if message.len() <= self.older.capacity() {
            &mut self.older
        } else {
            if message.len() > self.newest.capacity() {
                let old = std::mem::replace(&mut self.newest, BytesMut::with_capacity(BLOCK_BYTES));
                if old.capacity() > self.older.capacity() {
                    self.older = old;
                }
            }
            &mut self.newest
        };
        block.extend_from_slice(message);
        block.split().freeze()
    }

    /// A message of `length` bytes was of no use to anybody.
    pub(super) fn note_dropped(&mut self, length: usize) {
        // Once for what it brought in, once for what it costs.
        self.credit = self.credit.saturating_sub(2 * length);
        if self.credit == 0 {
            *self = Self {
                credit: 0,
                ..Self::default()
            };
        }
    }
}

/// Some ten messages of a usual stream, an eighth of a second.
const BLOCK_BYTES: usize = 16 << 10;

/// A longer message is worth an allocation, and would leave too much of a block unused.
const SHARED_BYTES_MAX: usize = BLOCK_BYTES / 2;

/// What may be sent for nothing at once: the headers of a beginning, pictures before the first key
/// frame.
const CREDIT_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: u32 = 1;

    #[test]
    fn messages_are_whole_and_lie_side_by_side() {
        let mut blocks = Blocks::default();
        let messages: Vec<Vec<u8>> = (0..40).map(|n| vec![n; 1_000]).collect();
        let laid: Vec<Bytes> = messages.iter().map(|m| blocks.lay(ONE, m)).collect();
        assert!(laid.iter().zip(&messages).all(|(laid, m)| laid == m));
        let behind = |two: &[Bytes]| two[0].as_ptr_range().end == two[1].as_ptr();
        let neighbours = laid.windows(2).filter(|two| behind(two)).count();
        // Sixteen go into a block.
        assert!(neighbours >= 37, "{neighbours}");
    }

    #[test]
    fn what_is_left_behind_a_picture_is_filled_with_sound() {
        let mut blocks = Blocks::default();
        let picture = [1; 6_000];
        let pictures: Vec<Bytes> = (0..3).map(|_| blocks.lay(ONE, &picture)).collect();
        let sound = blocks.lay(ONE, &[2; 300]);
        assert_eq!(pictures[1].as_ptr_range().end, sound.as_ptr());
        let third = blocks.lay(ONE, &picture);
        assert_eq!(pictures[2].as_ptr_range().end, third.as_ptr());
    }

    #[test]
    fn only_media_of_one_stream_and_of_moderate_size_is_laid() {
        let mut blocks = Blocks::default();
        assert!(blocks.takes(type_id::AUDIO, ONE, SHARED_BYTES_MAX));
        assert!(!blocks.takes(type_id::VIDEO, ONE, SHARED_BYTES_MAX + 1));
        assert!(!blocks.takes(type_id::COMMAND_AMF0, ONE, 10));
        blocks.lay(ONE, &[0; 10]);
        assert!(blocks.takes(type_id::VIDEO, ONE, 10));
        assert!(!blocks.takes(type_id::VIDEO, ONE + 1, 10));
    }

    #[test]
    fn whoever_sends_for_nothing_loses_the_blocks() {
        let mut blocks = Blocks::default();
        let mut lay = |is_dropped| {
            let is_laid = blocks.takes(type_id::VIDEO, ONE, 1_000);
            if is_laid {
                blocks.lay(ONE, &[0; 1_000]);
            }
            if is_dropped {
                blocks.note_dropped(1_000);
            }
            is_laid
        };
        // One in three does not hurt, two in three do.
        assert!((0..900).all(|n| lay(n % 3 == 0)));
        let laid = (0..900).take_while(|n| lay(n % 3 != 0)).count();
        assert!((150..=200).contains(&laid), "{laid}");
        assert!((0..10).all(|_| !lay(false)));
    }
}

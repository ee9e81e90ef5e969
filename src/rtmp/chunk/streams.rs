//! What a reader keeps of each chunk stream.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::ChunkError;
use super::header::Time;
use crate::rtmp::message::Message;

/// What is kept of one chunk stream.
#[derive(Debug, Default)]
pub(super) struct ChunkStream {
    pub(super) csid: u32,
    /// Of the message in work or the last one, milliseconds, wrapping.
    pub(super) timestamp: u32,
    /// What a new message with fmt 3 adds.
    pub(super) delta: u32,
    /// The extended field, if the last header with fields had one.
    pub(super) extended: Option<u32>,
    pub(super) length: u32,
    pub(super) type_id: u8,
    pub(super) stream_id: u32,
    /// Payload so far; `None` between messages.
    pub(super) partial: Option<Vec<u8>>,
}

impl ChunkStream {
    pub(super) fn advance(&mut self, delta: Time) {
        self.timestamp = self.timestamp.wrapping_add(delta.value);
        self.delta = delta.value;
        self.extended = delta.extended();
    }

    pub(super) fn message(&self, payload: Bytes) -> Message {
        Message {
            csid: self.csid,
            timestamp: self.timestamp,
            type_id: self.type_id,
            stream_id: self.stream_id,
            payload,
        }
    }
}

/// The chunk streams of one peer, found by ID: directly for the one-byte IDs that
/// all real clients use, by a map for the others.
#[derive(Debug)]
pub(super) struct ChunkStreams {
    pub(super) all: Vec<ChunkStream>,
    low: [u16; 64],
    high: BTreeMap<u32, u16>,
}

impl Default for ChunkStreams {
    fn default() -> Self {
        Self {
            all: Vec::new(),
            low: [Self::NONE; 64],
            high: BTreeMap::new(),
        }
    }
}

impl ChunkStreams {
    const NONE: u16 = u16::MAX;

    pub(super) fn find(&self, csid: u32) -> Option<u16> {
        match self.low.get(csid as usize) {
            Some(&Self::NONE) => None,
            Some(&index) => Some(index),
            None => self.high.get(&csid).copied(),
        }
    }

    pub(super) fn open(&mut self, csid: u32, max: u16) -> Result<u16, ChunkError> {
        let index = u16::try_from(self.all.len())
            .ok()
            .filter(|&index| index < max)
            .ok_or(ChunkError::TooManyChunkStreams { csid, max })?;
        self.all.push(ChunkStream {
            csid,
            ..ChunkStream::default()
        });
        match self.low.get_mut(csid as usize) {
            Some(slot) => *slot = index,
            None => {
                self.high.insert(csid, index);
            }
        }
        Ok(index)
    }

    pub(super) fn get(&self, index: u16) -> &ChunkStream {
        &self.all[usize::from(index)]
    }

    pub(super) fn get_mut(&mut self, index: u16) -> &mut ChunkStream {
        &mut self.all[usize::from(index)]
    }
}

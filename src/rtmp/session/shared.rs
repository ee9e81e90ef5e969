//! [`SharedMessage`]: one message in chunks for all who play a stream.

use bytes::{Bytes, BytesMut};

use crate::rtmp::chunk::{encode_around, encode_shared};
use crate::rtmp::flv;
use crate::rtmp::message::type_id;
use crate::transmit::TransmitQueue;

/// An audio, video or data message, cut into chunks once.
///
/// It begins with a full header (fmt 0) on a chunk stream that no [`ChunkWriter`] of ours
/// uses, so it fits into any connection between two messages and leaves no trace in the
/// state of either side's header compression. Its message stream ID is 1, which is the one nearly
/// every player has; another ID costs the player 12 bytes of its own, not a copy.
///
/// A picture is not copied for it either: its chunks are headers and slices of the frame, so a
/// cached group of pictures stands in memory once, whoever plays it.
///
/// [`ChunkWriter`]: crate::rtmp::chunk::ChunkWriter
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedMessage {
    /// One after the other; the first one begins with the header.
    pieces: Box<[Bytes]>,
    len: usize,
    chunk_size: u32,
}

impl SharedMessage {
    /// A video message whose body is `header` and `payload`.
    pub fn video(timestamp: u32, header: &[u8], payload: &[u8], chunk_size: u32) -> Self {
        Self::new(
            VIDEO_CSID,
            timestamp,
            type_id::VIDEO,
            &[header, payload],
            chunk_size,
        )
    }

    /// A video message with an AVCDecoderConfigurationRecord.
    pub fn avc_sequence_header(timestamp: u32, record: &[u8], chunk_size: u32) -> Self {
        Self::video(timestamp, &flv::AVC_SEQUENCE_HEADER, record, chunk_size)
    }

    /// A video message with one access unit in AVCC form.
    pub fn avc(
        timestamp: u32,
        key: bool,
        composition_time_ms: i32,
        payload: &[u8],
        chunk_size: u32,
    ) -> Self {
        let header = flv::avc_header(key, composition_time_ms);
        Self::video(timestamp, &header, payload, chunk_size)
    }

    /// [`SharedMessage::avc`] that shares the access unit, unless a copy costs less.
    pub fn avc_around(
        timestamp: u32,
        key: bool,
        composition_time_ms: i32,
        payload: &Bytes,
        chunk_size: u32,
    ) -> Self {
        if payload.len() < SHARED_BYTES_MIN {
            return Self::avc(timestamp, key, composition_time_ms, payload, chunk_size);
        }
        let header = flv::avc_header(key, composition_time_ms);
        let pieces = encode_around(
            VIDEO_CSID,
            timestamp,
            type_id::VIDEO,
            SHARED_STREAM_ID,
            &header,
            payload,
            chunk_size,
        );
        Self::of(pieces, chunk_size)
    }

    /// An audio message whose body is `header` and `payload`.
    pub fn audio(timestamp: u32, header: &[u8], payload: &[u8], chunk_size: u32) -> Self {
        Self::new(
            AUDIO_CSID,
            timestamp,
            type_id::AUDIO,
            &[header, payload],
            chunk_size,
        )
    }

    /// An audio message with an AudioSpecificConfig.
    pub fn aac_sequence_header(timestamp: u32, config: &[u8], chunk_size: u32) -> Self {
        Self::audio(timestamp, &flv::AAC_SEQUENCE_HEADER, config, chunk_size)
    }

    /// An audio message with one raw AAC access unit.
    pub fn aac(timestamp: u32, payload: &[u8], chunk_size: u32) -> Self {
        Self::audio(timestamp, &flv::AAC_HEADER, payload, chunk_size)
    }

    /// A data message of AMF0 values, such as
    /// [`StreamMetadata::encode`](crate::rtmp::metadata::StreamMetadata::encode) gives.
    pub fn data(timestamp: u32, body: &[u8], chunk_size: u32) -> Self {
        Self::new(
            DATA_CSID,
            timestamp,
            type_id::DATA_AMF0,
            &[body],
            chunk_size,
        )
    }

    /// How many bytes it puts on the wire, headers included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: a message has a header at least.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The chunk size that it is cut to.
    pub fn chunk_size(&self) -> u32 {
        self.chunk_size
    }

    fn new(csid: u32, timestamp: u32, type_id: u8, payload: &[&[u8]], chunk_size: u32) -> Self {
        let chunks = encode_shared(
            csid,
            timestamp,
            type_id,
            SHARED_STREAM_ID,
            payload,
            chunk_size,
        );
        Self::of(vec![chunks], chunk_size)
    }

    fn of(pieces: Vec<Bytes>, chunk_size: u32) -> Self {
        Self {
            len: pieces.iter().map(Bytes::len).sum(),
            pieces: pieces.into(),
            chunk_size,
        }
    }

    /// Queues the wire form for a message stream, with a header of its own where that has to be
    /// another one.
    pub(in crate::rtmp) fn queue(&self, stream_id: u32, transmit: &mut TransmitQueue) {
        let mut pieces = self.pieces.iter();
        if stream_id != SHARED_STREAM_ID
            && let Some(first) = pieces.next()
        {
            let mut rest = first.clone();
            let before = rest.split_to(STREAM_ID_AT.min(rest.len()));
            let _ = rest.split_to(STREAM_ID_BYTES.min(rest.len()));
            let mut header = BytesMut::with_capacity(STREAM_ID_AT + STREAM_ID_BYTES);
            header.extend_from_slice(&before);
            // The one little-endian field of RTMP (section 5.3.1.2.1).
            header.extend_from_slice(&stream_id.to_le_bytes());
            transmit.push(header.freeze());
            transmit.push(rest);
        }
        for piece in pieces {
            transmit.push(piece.clone());
        }
    }
}

/// The chunk stream of shared audio.
pub(in crate::rtmp) const AUDIO_CSID: u32 = 4;
/// The chunk stream of shared data messages.
pub(in crate::rtmp) const DATA_CSID: u32 = 5;
/// The chunk stream of shared video.
pub(in crate::rtmp) const VIDEO_CSID: u32 = 6;
/// The message stream ID in the shared header: what createStream gives first.
const SHARED_STREAM_ID: u32 = 1;
/// Where the message stream ID stands: one byte of basic header, three each of timestamp and
/// length, one of type.
const STREAM_ID_AT: usize = 8;
const STREAM_ID_BYTES: usize = 4;
/// A shorter picture is copied behind its header: one piece more for each player costs more.
const SHARED_BYTES_MIN: usize = 512;

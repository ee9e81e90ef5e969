//! FLV tags one after another: in a file (Annex E.3) and in an aggregate message.

use bytes::Bytes;

use super::FlvError;
use crate::wire::Reader;

/// One tag (Annex E.4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// 8 audio, 9 video, 18 script data: the same numbers as RTMP message types.
    pub type_id: u8,
    /// Milliseconds; TimestampExtended is its high byte.
    pub timestamp: u32,
    /// The tag's body.
    pub payload: Bytes,
}

/// Walks over tags, each followed by the size of itself.
///
/// The first malformed tag ends the walk with an error. What comes after the last
/// body is not insisted upon: encoders leave out the last size, and files are cut.
#[derive(Clone, Debug)]
pub struct Tags {
    rest: Bytes,
}

impl Tags {
    /// A walk over `bytes`, which begin with a tag header.
    pub const fn new(bytes: Bytes) -> Self {
        Self { rest: bytes }
    }

    fn decode(&mut self) -> Result<Tag, FlvError> {
        let mut reader = Reader::new(&self.rest);
        // Bit 5 says that the body is encrypted, which nobody has done for years.
        let type_id = reader.u8()? & 0x1f;
        let size = usize::try_from(reader.u24()?).map_err(|_| FlvError::Truncated)?;
        let low = reader.u24()?;
        let high = u32::from(reader.u8()?);
        reader.take(STREAM_ID_BYTES)?;
        let start = self.rest.len() - reader.len();
        reader.take(size)?;
        let payload = self.rest.slice(start..start + size);
        // The back pointer. Its value is a convenience for rewinding and is wrong often.
        let _ = reader.take(BACK_POINTER_BYTES.min(reader.len()));
        let consumed = self.rest.len() - reader.len();
        self.rest = self.rest.slice(consumed..);
        Ok(Tag {
            type_id,
            timestamp: (high << 24) | low,
            payload,
        })
    }
}

impl Iterator for Tags {
    type Item = Result<Tag, FlvError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let tag = self.decode();
        if tag.is_err() {
            self.rest = Bytes::new();
        }
        Some(tag)
    }
}

/// An FLV file held in memory.
///
/// It serves files of one's own, such as a clip in the binary: the whole file
/// is there at once, and its size is its bound.
#[derive(Clone, Debug)]
pub struct FileReader {
    tags: Bytes,
}

impl FileReader {
    /// Looks at the file's header.
    ///
    /// # Errors
    /// [`FlvError::NotAnFlvFile`] when the signature, the version or the header's length is wrong.
    pub fn new(file: Bytes) -> Result<Self, FlvError> {
        let mut reader = Reader::new(&file);
        let header = (|| {
            let signature = reader.array::<3>()?;
            let version = reader.u8()?;
            reader.u8()?;
            Ok::<_, FlvError>((signature, version, reader.u32()?))
        })();
        let Ok((signature, 1, header_bytes)) = header else {
            return Err(FlvError::NotAnFlvFile);
        };
        if &signature != b"FLV" {
            return Err(FlvError::NotAnFlvFile);
        }
        // PreviousTagSize0 follows the header.
        let first = usize::try_from(header_bytes)
            .ok()
            .filter(|&bytes| bytes >= FILE_HEADER_BYTES)
            .and_then(|bytes| bytes.checked_add(BACK_POINTER_BYTES))
            .filter(|&first| first <= file.len())
            .ok_or(FlvError::NotAnFlvFile)?;
        Ok(Self {
            tags: file.slice(first..),
        })
    }

    /// The file's tags from the first one on.
    pub fn tags(&self) -> Tags {
        Tags::new(self.tags.clone())
    }
}

/// Signature, version, flags and DataOffset (Annex E.2).
const FILE_HEADER_BYTES: usize = 9;
/// PreviousTagSize in files, back pointer in aggregates.
const BACK_POINTER_BYTES: usize = 4;
/// The tag's StreamID, always 0.
const STREAM_ID_BYTES: usize = 3;

//! Chunk headers as they stand on the wire (RTMP 1.0 sections 5.3.1.1 to 5.3.1.3). Reading
//! one changes nothing: a header that the input cuts is read again from its start.

use super::streams::{ChunkStream, ChunkStreams};
use super::{EXTENDED_TIMESTAMP, HEADER_BYTES_MAX};
use crate::wire::{Reader, Truncated};

/// A chunk header as it stands on the wire.
pub(super) struct Header {
    pub(super) csid: u32,
    pub(super) fmt: u8,
    pub(super) fields: Fields,
}

impl Header {
    /// Reads the basic header, the message header and the extended timestamp.
    pub(super) fn decode(
        reader: &mut Reader<'_>,
        streams: &ChunkStreams,
        habit: ExtendedHabit,
    ) -> Result<Self, Truncated> {
        let first = reader.u8()?;
        let csid = match first & 0x3f {
            0 => 64 + u32::from(reader.u8()?),
            // Little-endian, unlike all else: the third byte counts 256.
            1 => 64 + u32::from(reader.u8()?) + 256 * u32::from(reader.u8()?),
            csid => u32::from(csid),
        };
        let fmt = first >> 6;
        let fields = match fmt {
            0 => {
                let field = reader.u24()?;
                let (length, type_id) = (reader.u24()?, reader.u8()?);
                let stream_id = reader.u32_le()?;
                Fields::Full {
                    timestamp: Time::decode(field, reader)?,
                    length,
                    type_id,
                    stream_id,
                }
            }
            1 => {
                let field = reader.u24()?;
                let (length, type_id) = (reader.u24()?, reader.u8()?);
                Fields::NewLength {
                    delta: Time::decode(field, reader)?,
                    length,
                    type_id,
                }
            }
            2 => {
                let field = reader.u24()?;
                Fields::NewDelta {
                    delta: Time::decode(field, reader)?,
                }
            }
            _ => Fields::None {
                extended: match streams.find(csid) {
                    Some(index) => Extended::decode(reader, streams.get(index), habit)?,
                    None => Extended::Absent,
                },
            },
        };
        Ok(Self { csid, fmt, fields })
    }
}

/// The message header (RTMP 1.0 section 5.3.1.2).
pub(super) enum Fields {
    /// fmt 0.
    Full {
        timestamp: Time,
        length: u32,
        type_id: u8,
        stream_id: u32,
    },
    /// fmt 1.
    NewLength {
        delta: Time,
        length: u32,
        type_id: u8,
    },
    /// fmt 2.
    NewDelta { delta: Time },
    /// fmt 3.
    None { extended: Extended },
}

/// A timestamp or a timestamp delta, milliseconds.
#[derive(Clone, Copy)]
pub(super) struct Time {
    pub(super) value: u32,
    /// Whether it stood in the extended field.
    pub(super) is_extended: bool,
}

impl Time {
    fn decode(field: u32, reader: &mut Reader<'_>) -> Result<Self, Truncated> {
        let is_extended = field == EXTENDED_TIMESTAMP;
        Ok(Self {
            value: if is_extended { reader.u32()? } else { field },
            is_extended,
        })
    }

    pub(super) fn extended(self) -> Option<u32> {
        self.is_extended.then_some(self.value)
    }
}

/// What became of the extended timestamp on a fmt 3 header.
pub(super) enum Extended {
    /// The last header with fields had none.
    Absent,
    /// Four bytes: the last field again, or the delta of a new message.
    Repeated(u32),
    /// Due, but the peer left it out.
    Omitted,
}

impl Extended {
    /// Reads the extended timestamp of a fmt 3 header, if it is there.
    ///
    /// RTMP 1.0 section 5.3.1.3 and ffmpeg repeat it when the last header with fields had one.
    /// librtmp (rtmpdump 2.4; OBS before obs-studio#10097) and some phones leave it out. A peer keeps to
    /// one habit, and the first continuation chunk shows it: its next four bytes are the
    /// field again, or they are payload. The start of a new message shows nothing, as its field may
    /// differ: it is taken for there unless the peer is known to leave it out.
    fn decode(
        reader: &mut Reader<'_>,
        stream: &ChunkStream,
        habit: ExtendedHabit,
    ) -> Result<Self, Truncated> {
        let Some(field) = stream.extended else {
            return Ok(Self::Absent);
        };
        match habit {
            ExtendedHabit::Repeats => Ok(Self::Repeated(reader.u32()?)),
            ExtendedHabit::Omits => Ok(Self::Omitted),
            ExtendedHabit::Unknown if stream.partial.is_none() => Ok(Self::Repeated(reader.u32()?)),
            ExtendedHabit::Unknown => {
                // After a delta, some repeat the absolute time instead (SRS).
                for expected in [field, stream.timestamp] {
                    let matching = expected
                        .to_be_bytes()
                        .iter()
                        .zip(reader.rest())
                        .take_while(|(a, b)| a == b)
                        .count();
                    if matching == 4 {
                        return Ok(Self::Repeated(reader.u32()?));
                    }
                    if matching == reader.len() {
                        return Err(Truncated);
                    }
                }
                Ok(Self::Omitted)
            }
        }
    }
}

/// Whether a peer repeats the extended timestamp on fmt 3 headers.
#[derive(Clone, Copy, Debug)]
pub(super) enum ExtendedHabit {
    Unknown,
    Repeats,
    Omits,
}

/// A few bytes that precede the input.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held {
    bytes: [u8; HEADER_BYTES_MAX],
    len: usize,
}

impl Held {
    /// Takes from the front of `input` what fits.
    pub(super) fn fill(&mut self, input: &mut &[u8]) {
        let room = &mut self.bytes[self.len..];
        let count = room.len().min(input.len());
        let (taken, rest) = input.split_at(count);
        room[..count].copy_from_slice(taken);
        self.len += count;
        *input = rest;
    }

    /// Drops the first `count` bytes, or all.
    pub(super) fn skip(&mut self, count: usize) {
        let count = count.min(self.len);
        self.bytes.copy_within(count..self.len, 0);
        self.len -= count;
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

//! [`Stamp`]: the send time of a picture, carried inside it from publisher to player.
//!
//! It stands at the very end of the picture's last slice, behind the slice data. There it
//! survives every bridge that leaves pictures alone: a slice must be forwarded whole, while
//! SEI messages, which would be the proper place, are taken out by many servers (this gateway
//! among them). Decoders stop at the end of the slice data and do not mind: ffmpeg 5.1, told
//! to stop at any error, shows the pictures bit for bit as without it. And it is cheap to find:
//! who receives looks at the last bytes of a message and at nothing before them.
//!
//! Every byte has its highest bit set, so there is nothing in it that an emulation prevention
//! byte would have to be put into (H.264 section 7.4.1), and no zero at the end.

/// How many bytes a stamp has.
pub const STAMP_BYTES: usize = 28;

/// What is written into a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Which publisher, drawn at its start: 28 bits. Another one at the same place means
    /// that the publisher was replaced.
    pub publisher: u32,
    /// Number of the picture, from 0: 35 bits.
    pub number: u64,
    /// When it was sent, in µs since 1970 by the clock of the machine: 63 bits.
    pub sent_us: u64,
    /// Bytes of the slices of the picture, without lengths or start codes: 28 bits. Less at
    /// the receiver means that a part got lost.
    pub slice_bytes: u32,
}

impl Stamp {
    /// The bytes to append to the last slice. Higher bits of the fields are lost.
    pub fn encode(&self) -> [u8; STAMP_BYTES] {
        let mut bytes = [0; STAMP_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        let fields = [
            (u64::from(self.publisher), 4),
            (self.number, 5),
            (self.sent_us, 9),
            (u64::from(self.slice_bytes), 4),
        ];
        let mut at = 4;
        for (value, groups) in fields {
            for group in (0..groups).rev() {
                bytes[at] = 0x80 | (value >> (7 * group)) as u8;
                at += 1;
            }
        }
        let sum = checksum(&bytes[..at]);
        bytes[at..].copy_from_slice(&sum);
        bytes
    }

    /// Reads the stamp that `tail` ends with, if there is one.
    pub fn decode(tail: &[u8]) -> Option<Self> {
        let (_, bytes) = tail.split_last_chunk::<STAMP_BYTES>()?;
        let (fields, sum) = bytes.split_last_chunk::<2>()?;
        if !fields.starts_with(&MAGIC) || *sum != checksum(fields) {
            return None;
        }
        let mut groups = fields[4..].iter().map(|byte| u64::from(byte & 0x7f));
        let mut field =
            |count| (groups.by_ref().take(count)).fold(0, |value, group| (value << 7) | group);
        Some(Self {
            publisher: field(4) as u32,
            number: field(5),
            sent_us: field(9),
            slice_bytes: field(4) as u32,
        })
    }
}

/// What a stamp begins with.
const MAGIC: [u8; 4] = [0xf1, 0x8d, 0xe3, 0x97];

/// 14 bits over the bytes before, so that a picture which happens to hold the four bytes
/// above is not taken for a stamped one.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let sum = bytes.iter().fold(0x5a5a_u32, |sum, byte| {
        sum.rotate_left(5).wrapping_mul(0x9e37_79b1) ^ u32::from(*byte)
    });
    [0x80 | (sum >> 7) as u8, 0x80 | sum as u8]
}

/// The last [`STAMP_BYTES`] bytes of something that comes in pieces.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tail {
    bytes: [u8; STAMP_BYTES],
}

impl Tail {
    /// Appends a piece.
    pub fn push(&mut self, piece: &[u8]) {
        match piece.last_chunk() {
            Some(end) => self.bytes = *end,
            None => {
                self.bytes.copy_within(piece.len().., 0);
                self.bytes[STAMP_BYTES - piece.len()..].copy_from_slice(piece);
            }
        }
    }

    /// The stamp that everything pushed ends with.
    pub fn stamp(&self) -> Option<Stamp> {
        Stamp::decode(&self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp {
        publisher: 0x0fed_cba9,
        number: 0x7_1234_5678,
        sent_us: 1_795_219_200_123_456,
        slice_bytes: 0x0abc_def1,
    };

    #[test]
    fn a_stamp_is_read_as_it_was_written() {
        let least = Stamp {
            publisher: 0,
            number: 0,
            sent_us: 0,
            slice_bytes: 0,
        };
        for stamp in [STAMP, least] {
            let slice = [&[0x65, 0, 0, 3][..], &stamp.encode()].concat();
            assert_eq!(Stamp::decode(&slice), Some(stamp));
        }
    }

    #[test]
    fn a_stamp_needs_no_emulation_prevention() {
        assert!(STAMP.encode().iter().all(|byte| *byte >= 0x80));
    }

    #[test]
    fn what_is_no_stamp_is_not_read_as_one() {
        let good = STAMP.encode();
        assert_eq!(Stamp::decode(&good[1..]), None);
        assert_eq!(Stamp::decode(&[]), None);
        for at in 0..STAMP_BYTES {
            for bit in 0..8 {
                let mut bad = good;
                bad[at] ^= 1 << bit;
                assert_ne!(Stamp::decode(&bad), Some(STAMP), "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn a_stamp_cut_anywhere_is_put_together() {
        let bytes = [&[0xaa; 40][..], &STAMP.encode()].concat();
        for step in 1..=bytes.len() {
            let mut tail = Tail::default();
            for piece in bytes.chunks(step) {
                tail.push(piece);
            }
            assert_eq!(tail.stamp(), Some(STAMP), "pieces of {step}");
        }
    }
}

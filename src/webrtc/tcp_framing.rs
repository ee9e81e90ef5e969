//! The framing of ICE over TCP: each datagram behind its length in two bytes
//! (RFC 4571 section 2, RFC 6544 section 3).

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

/// Cuts a byte stream into datagrams, whatever pieces it arrives in.
#[derive(Debug, Default)]
pub struct FrameReader {
    /// The beginning of a frame that is not complete; nothing while none is.
    partial: BytesMut,
}

/// The peer announced a frame that no WebRTC peer sends: the connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramingError {
    /// A frame longer than [`FRAME_BYTES_MAX`].
    TooLong {
        /// What its length field says.
        len: u16,
    },
}

impl FramingError {
    /// The name under which the error is counted.
    pub fn reason(&self) -> &'static str {
        match self {
            FramingError::TooLong { .. } => "ice_tcp_frame_too_long",
        }
    }
}

impl fmt::Display for FramingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FramingError::TooLong { len } => {
                write!(f, "frame of {len} bytes, more than {FRAME_BYTES_MAX}")
            }
        }
    }
}

impl std::error::Error for FramingError {}

impl FrameReader {
    /// A reader that owns no memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next datagram of what arrived. `input` is advanced past what was used;
    /// `None` means all of it was and more is needed. Empty frames are skipped.
    ///
    /// # Errors
    /// [`FramingError`]: the stream cannot be followed any further.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<Bytes>, FramingError> {
        loop {
            while self.partial.len() < 2 {
                let Some((first, rest)) = input.split_first() else {
                    return Ok(None);
                };
                self.partial.put_u8(*first);
                *input = rest;
            }
            let [high, low, ..] = self.partial[..] else {
                return Ok(None);
            };
            let len = u16::from_be_bytes([high, low]);
            if usize::from(len) > FRAME_BYTES_MAX {
                return Err(FramingError::TooLong { len });
            }
            let missing = 2 + usize::from(len) - self.partial.len();
            let (head, rest) = input.split_at(missing.min(input.len()));
            self.partial.extend_from_slice(head);
            *input = rest;
            if head.len() < missing {
                return Ok(None);
            }
            let frame = std::mem::take(&mut self.partial).freeze();
            if len > 0 {
                return Ok(Some(frame.slice(2..)));
            }
        }
    }
}

/// A datagram with its length before it. `None` if it does not fit a frame, which no
/// datagram of ours does.
pub fn frame(datagram: &[u8]) -> Option<Bytes> {
    let len = u16::try_from(datagram.len()).ok()?;
    let mut out = BytesMut::with_capacity(2 + datagram.len());
    out.put_u16(len);
    out.extend_from_slice(datagram);
    Some(out.freeze())
}

/// The longest frame accepted. Peers send datagrams of UDP size here, 1,500 bytes at
/// most; a longer one ends the connection, because whoever sends it speaks something else.
pub const FRAME_BYTES_MAX: usize = 2_048;

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(reader: &mut FrameReader, mut input: &[u8]) -> Vec<Bytes> {
        let mut frames = Vec::new();
        while let Some(frame) = reader.read(&mut input).unwrap() {
            frames.push(frame);
        }
        assert!(input.is_empty());
        frames
    }

    fn stream() -> (Vec<u8>, Vec<Vec<u8>>) {
        let datagrams: Vec<Vec<u8>> = [1, 2, 200, FRAME_BYTES_MAX]
            .iter()
            .map(|len| (0..*len).map(|i| i as u8).collect())
            .collect();
        let mut bytes = vec![0, 0];
        for datagram in &datagrams {
            bytes.extend_from_slice(&frame(datagram).unwrap());
        }
        (bytes, datagrams)
    }

    #[test]
    fn every_cut_gives_the_same_datagrams() {
        let (bytes, datagrams) = stream();
        for cut in 0..=bytes.len() {
            let mut reader = FrameReader::new();
            let mut frames = read_all(&mut reader, &bytes[..cut]);
            frames.extend(read_all(&mut reader, &bytes[cut..]));
            assert!(frames.iter().eq(&datagrams), "cut {cut}");
        }
    }

    #[test]
    fn byte_by_byte_gives_the_same_datagrams() {
        let (bytes, datagrams) = stream();
        let mut reader = FrameReader::new();
        let frames: Vec<Bytes> = bytes
            .iter()
            .flat_map(|byte| read_all(&mut reader, &[*byte]))
            .collect();
        assert!(frames.iter().eq(&datagrams));
    }

    #[test]
    fn an_http_request_is_refused_by_its_length() {
        let mut reader = FrameReader::new();
        let mut input: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
        assert_eq!(
            reader.read(&mut input),
            Err(FramingError::TooLong { len: 0x4745 })
        );
    }

    #[test]
    fn the_longest_frame_passes_and_one_more_does_not() {
        let mut reader = FrameReader::new();
        let mut input: &[u8] = &(FRAME_BYTES_MAX as u16).to_be_bytes();
        assert_eq!(reader.read(&mut input), Ok(None));
        let mut reader = FrameReader::new();
        let mut input: &[u8] = &(FRAME_BYTES_MAX as u16 + 1).to_be_bytes();
        assert!(reader.read(&mut input).is_err());
        assert_eq!(frame(&[0; 70_000]), None);
    }
}

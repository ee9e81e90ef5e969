//! [`BodyReader`]: a request's body, by length or in chunks (RFC 9112 sections 6 and 7).

use bytes::{Buf, Bytes, BytesMut};

use super::Error;
use super::request::Framing;

/// Collects one body from the connection's input.
#[derive(Debug)]
pub(super) struct BodyReader {
    state: State,
    body: BytesMut,
    bytes_max: usize,
}

/// Where the reader stands.
///
/// ```text
/// Fixed ─────────────────────────────────────────────► Done
/// Size ─(n > 0)─► Data ─► DataEnd ─► Size
///      └(n = 0)─► Trailer ─(empty line)──────────────► Done
/// ```
#[derive(Debug)]
enum State {
    /// So many bytes of a body of known length are missing.
    Fixed(usize),
    /// A chunk's size line is next.
    Size,
    /// So many bytes of a chunk are missing.
    Data(usize),
    /// The line end behind a chunk is next.
    DataEnd,
    /// Trailer lines are next; so many bytes of them are still allowed.
    Trailer(usize),
    Done,
}

impl BodyReader {
    /// A reader for a body of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// [`Error::BodyTooLarge`] at once if the length announced is larger.
    pub fn new(framing: Framing, bytes_max: usize) -> Result<Self, Error> {
        let state = match framing {
            Framing::Length(0) => State::Done,
            Framing::Length(length) => match usize::try_from(length) {
                Ok(length) if length <= bytes_max => State::Fixed(length),
                _ => return Err(Error::BodyTooLarge),
            },
            Framing::Chunked => State::Size,
        };
        Ok(Self {
            state,
            body: BytesMut::new(),
            bytes_max,
        })
    }

    /// Takes what belongs to the body from the front of `input`; true once it is whole.
    ///
    /// # Errors
    /// [`Error::MalformedChunk`] and [`Error::BodyTooLarge`].
    pub fn read(&mut self, input: &mut BytesMut) -> Result<bool, Error> {
        loop {
            match self.state {
                State::Done => return Ok(true),
                State::Fixed(missing) => {
                    let missing = missing - self.take(input, missing);
                    if missing > 0 {
                        self.state = State::Fixed(missing);
                        return Ok(false);
                    }
                    self.state = State::Done;
                }
                State::Size => {
                    let Some(line) = take_line(input, SIZE_LINE_BYTES_MAX)? else {
                        return Ok(false);
                    };
                    self.state = match chunk_size(&line)? {
                        0 => State::Trailer(TRAILER_BYTES_MAX),
                        size => match usize::try_from(size) {
                            Ok(size) if size <= self.bytes_max - self.body.len() => {
                                State::Data(size)
                            }
                            _ => return Err(Error::BodyTooLarge),
                        },
                    };
                }
                State::Data(missing) => {
                    let missing = missing - self.take(input, missing);
                    if missing > 0 {
                        self.state = State::Data(missing);
                        return Ok(false);
                    }
                    self.state = State::DataEnd;
                }
                State::DataEnd => {
                    let Some(line) = take_line(input, 2)? else {
                        return Ok(false);
                    };
                    if !line.is_empty() {
                        return Err(Error::MalformedChunk);
                    }
                    self.state = State::Size;
                }
                State::Trailer(allowed) => {
                    let Some(line) = take_line(input, allowed)? else {
                        return Ok(false);
                    };
                    // Trailer fields are read over (RFC 9112 section 7.1.2).
                    self.state = match line.len() {
                        0 => State::Done,
                        len => State::Trailer(allowed.saturating_sub(len + 2)),
                    };
                }
            }
        }
    }

    /// Whether not a single byte of the body has come yet.
    pub fn is_untouched(&self) -> bool {
        self.body.is_empty() && matches!(self.state, State::Fixed(_) | State::Size)
    }

    /// The body, after [`Self::read`] answered true.
    pub fn into_body(self) -> Bytes {
        self.body.freeze()
    }

    fn take(&mut self, input: &mut BytesMut, missing: usize) -> usize {
        let took = missing.min(input.len());
        self.body.extend_from_slice(&input.split_to(took));
        took
    }
}

/// Takes one line off `input` and returns it without its end; `None` if its end has not
/// come. The end must be CR LF: a bare LF is where parsers in a row disagree.
fn take_line(input: &mut BytesMut, bytes_max: usize) -> Result<Option<BytesMut>, Error> {
    let Some(end) = input.iter().take(bytes_max).position(|&b| b == b'\n') else {
        return match input.len() < bytes_max {
            true => Ok(None),
            false => Err(Error::MalformedChunk),
        };
    };
    let mut line = input.split_to(end);
    input.advance(1);
    match line.last() {
        Some(b'\r') => {
            line.truncate(line.len() - 1);
            match line.contains(&b'\r') {
                true => Err(Error::MalformedChunk),
                false => Ok(Some(line)),
            }
        }
        _ => Err(Error::MalformedChunk),
    }
}

/// The size in a chunk's first line; extensions behind `;` are read over.
fn chunk_size(line: &[u8]) -> Result<u64, Error> {
    let digits = line.split(|&byte| byte == b';').next().unwrap_or_default();
    let digits = std::str::from_utf8(digits).map_err(|_| Error::MalformedChunk)?;
    // Blanks before the semicolon are tolerated by RFC 9112 section 7.1.1.
    let digits = digits.trim_end_matches([' ', '\t']);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Error::MalformedChunk);
    }
    let digits = match digits.trim_start_matches('0') {
        "" => return Ok(0),
        digits => digits,
    };
    u64::from_str_radix(digits, 16).map_err(|_| Error::BodyTooLarge)
}

/// Bounds a chunk's size line with its extensions, which nobody uses.
const SIZE_LINE_BYTES_MAX: usize = 256;
/// Bounds all trailer lines together.
const TRAILER_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `wire` handed over in pieces of `step` bytes; `None` if it never ended.
    fn read(
        framing: Framing,
        wire: &[u8],
        max: usize,
        step: usize,
    ) -> Result<Option<(Bytes, Bytes)>, Error> {
        let mut reader = BodyReader::new(framing, max)?;
        let mut input = BytesMut::new();
        let mut done = reader.read(&mut input)?;
        for piece in wire.chunks(step) {
            input.extend_from_slice(piece);
            done = done || reader.read(&mut input)?;
        }
        Ok(done.then(|| (reader.into_body(), input.freeze())))
    }

    fn chunked(wire: &[u8]) -> Result<Option<(Bytes, Bytes)>, Error> {
        let whole = read(Framing::Chunked, wire, 16, wire.len().max(1));
        for step in 1..wire.len() {
            assert_eq!(read(Framing::Chunked, wire, 16, step), whole, "step {step}");
        }
        whole
    }

    #[test]
    fn a_body_of_known_length_leaves_what_follows() {
        for step in 1..8 {
            let (body, rest) = read(Framing::Length(5), b"helloGET", 5, step)
                .expect("valid")
                .expect("whole");
            assert_eq!((&body[..], &rest[..]), (&b"hello"[..], &b"GET"[..]));
        }
        assert_eq!(read(Framing::Length(5), b"hell", 5, 1), Ok(None));
        let (body, _) = read(Framing::Length(0), b"", 5, 1)
            .expect("valid")
            .expect("whole");
        assert!(body.is_empty());
        assert_eq!(
            read(Framing::Length(6), b"", 5, 1),
            Err(Error::BodyTooLarge)
        );
        assert_eq!(
            read(Framing::Length(u64::MAX), b"", 5, 1),
            Err(Error::BodyTooLarge)
        );
    }

    #[test]
    fn chunks_are_joined_however_they_are_cut() {
        let (body, rest) =
            chunked(b"5;x=\"y\"\r\nhello\r\n00a \r\n0123456789\r\n0\r\nT: v\r\n\r\nnext")
                .expect("valid")
                .expect("whole");
        assert_eq!(&body[..], b"hello0123456789");
        assert_eq!(&rest[..], b"next");
        assert_eq!(chunked(b"5\r\nhello\r\n0\r\n"), Ok(None));
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for wire in [
            &b"\r\n"[..],
            b"x\r\n",
            b"+5\r\nhello\r\n",
            b"0x5\r\nhello\r\n",
            b"5\nhello\r\n",
            b"5\r\nhelloX\r\n",
            b"5\r\nhello\n",
            b"5\rX\r\nhello\r\n",
            b"5\r\nhello\r\n0\r\nT: v\n",
            b"-1\r\n",
        ] {
            assert_eq!(chunked(wire), Err(Error::MalformedChunk), "{wire:?}");
        }
    }

    #[test]
    fn chunks_are_bounded() {
        assert_eq!(chunked(b"11\r\n"), Err(Error::BodyTooLarge));
        assert_eq!(chunked(b"8\r\n01234567\r\n9\r\n"), Err(Error::BodyTooLarge));
        assert_eq!(chunked(b"ffffffffffffffff\r\n"), Err(Error::BodyTooLarge));
        assert_eq!(chunked(b"1ffffffffffffffff\r\n"), Err(Error::BodyTooLarge));
        assert_eq!(chunked(b"0000000000000000000005\r\nhello\r\n"), Ok(None));
        assert_eq!(chunked(&[b'1'; 300]), Err(Error::MalformedChunk));
        let mut trailers = b"0\r\n".to_vec();
        for _ in 0..400 {
            trailers.extend_from_slice(b"a: bcdefg\r\n");
        }
        let read = read(Framing::Chunked, &trailers, 16, 64);
        assert_eq!(read, Err(Error::MalformedChunk));
    }
}

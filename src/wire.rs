//! Bounded reading and writing of big-endian wire formats.
//!
//! [`Reader`] never reads past its slice and never panics: every accessor
//! answers [`Truncated`] when the bytes are not there.

use std::fmt;

/// The bytes ended before the value did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated;

impl fmt::Display for Truncated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("truncated")
    }
}

impl std::error::Error for Truncated {}

/// A cursor over bytes that came from a peer.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader over all of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// What is left to read.
    pub const fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    /// How many bytes are left.
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing is left.
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Truncated> {
        let (head, tail) = self.bytes.split_at_checked(count).ok_or(Truncated)?;
        self.bytes = tail;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        let (head, tail) = self.bytes.split_first_chunk::<N>().ok_or(Truncated)?;
        self.bytes = tail;
        Ok(*head)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Truncated> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Two bytes, big-endian.
    pub fn u16(&mut self) -> Result<u16, Truncated> {
        self.array().map(u16::from_be_bytes)
    }

    /// Three bytes, big-endian.
    pub fn u24(&mut self) -> Result<u32, Truncated> {
        self.array::<3>()
            .map(|[a, b, c]| u32::from_be_bytes([0, a, b, c]))
    }

    /// Three bytes, big-endian, two's complement (SI24 of the FLV specification).
    pub fn i24(&mut self) -> Result<i32, Truncated> {
        self.u24().map(|value| ((value << 8) as i32) >> 8)
    }

    /// Four bytes, big-endian.
    pub fn u32(&mut self) -> Result<u32, Truncated> {
        self.array().map(u32::from_be_bytes)
    }

    /// Four bytes, little-endian: the RTMP message stream ID alone.
    pub fn u32_le(&mut self) -> Result<u32, Truncated> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes, big-endian, IEEE 754.
    pub fn f64(&mut self) -> Result<f64, Truncated> {
        self.array().map(f64::from_be_bytes)
    }
}

/// Appends big-endian values to a byte buffer.
pub trait WriteExt {
    /// Two bytes.
    fn put_u16_be(&mut self, value: u16);
    /// The low three bytes.
    fn put_u24_be(&mut self, value: u32);
    /// Four bytes.
    fn put_u32_be(&mut self, value: u32);
}

impl WriteExt for Vec<u8> {
    fn put_u16_be(&mut self, value: u16) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_u24_be(&mut self, value: u32) {
        self.extend_from_slice(&value.to_be_bytes()[1..]);
    }

    fn put_u32_be(&mut self, value: u32) {
        self.extend_from_slice(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_there_and_nothing_more() {
        let mut reader = Reader::new(&[0x01, 0x02, 0x03, 0xff, 0xff, 0xfe, 0x78, 0x56, 0x34, 0x12]);
        assert_eq!(reader.u24(), Ok(0x010203));
        assert_eq!(reader.i24(), Ok(-2));
        assert_eq!(reader.u32_le(), Ok(0x12345678));
        assert!(reader.is_empty());
        assert_eq!(reader.u8(), Err(Truncated));
    }

    #[test]
    fn a_failed_read_consumes_nothing() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert_eq!(reader.u32(), Err(Truncated));
        assert_eq!(reader.take(4), Err(Truncated));
        assert_eq!(reader.len(), 3);
        assert_eq!(reader.u24(), Ok(0x010203));
    }

    #[test]
    fn writes_what_it_reads() {
        let mut out = Vec::new();
        out.put_u16_be(0x0102);
        out.put_u24_be(0x00ffee);
        out.put_u32_be(0xdeadbeef);
        let mut reader = Reader::new(&out);
        assert_eq!(
            (reader.u16(), reader.u24(), reader.u32()),
            (Ok(0x0102), Ok(0x00ffee), Ok(0xdeadbeef))
        );
    }
}

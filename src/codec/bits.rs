//! [`BitReader`]: bits, most significant first, over bytes that came from a peer.
//!
//! Shared by the AudioSpecificConfig and by H.264, where it also takes out the emulation prevention
//! bytes while it reads (ITU-T H.264 section 7.3.1), so that nothing is copied to be parsed.

use crate::wire::Truncated;

/// A cursor over bits. A read past the end is [`Truncated`], never a panic.
#[derive(Clone, Debug)]
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    /// The next byte to load.
    next: usize,
    /// The byte that is being read, and how many of its bits are left.
    current: u8,
    bits_left: u8,
    /// Whether `00 00 03` stands for `00 00`.
    escaped: bool,
    /// Zero bytes in a row that were loaded last.
    zeros: u8,
    /// Bits taken so far, emulation prevention not counted.
    position: usize,
}

impl<'a> BitReader<'a> {
    /// A reader over plain bytes.
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            next: 0,
            current: 0,
            bits_left: 0,
            escaped: false,
            zeros: 0,
            position: 0,
        }
    }

    /// A reader over the body of an H.264 NAL unit, its header byte left out.
    pub(crate) const fn of_nal_body(bytes: &'a [u8]) -> Self {
        let mut reader = Self::new(bytes);
        reader.escaped = true;
        reader
    }

    /// One bit.
    pub(crate) fn bit(&mut self) -> Result<bool, Truncated> {
        if self.bits_left == 0 {
            self.current = self.load()?;
            self.bits_left = 8;
        }
        self.bits_left -= 1;
        self.position += 1;
        Ok((self.current >> self.bits_left) & 1 == 1)
    }

    /// The next `count` bits, at most 32, as an unsigned number: u(n) of H.264, uimsbf of MPEG-4.
    pub(crate) fn bits(&mut self, count: u8) -> Result<u32, Truncated> {
        debug_assert!(count <= 32, "a u32 holds 32 bits");
        let mut value = 0;
        for _ in 0..count {
            value = (value << 1) | u32::from(self.bit()?);
        }
        Ok(value)
    }

    /// The next eight bits.
    pub(crate) fn byte(&mut self) -> Result<u8, Truncated> {
        // Eight bits fit a byte.
        Ok(self.bits(8)? as u8)
    }

    /// Passes over `count` bits.
    pub(crate) fn skip(&mut self, count: usize) -> Result<(), Truncated> {
        let in_current = count.min(usize::from(self.bits_left));
        // At most eight.
        self.bits_left -= in_current as u8;
        self.position += in_current;
        let count = count - in_current;
        for _ in 0..count / 8 {
            self.current = self.load()?;
            self.position += 8;
        }
        for _ in 0..count % 8 {
            self.bit()?;
        }
        Ok(())
    }

    /// ue(v), ITU-T H.264 section 9.1. A code of more than 32 bits of value is [`Truncated`]: no
    /// syntax element has one.
    pub(crate) fn ue(&mut self) -> Result<u32, Truncated> {
        let mut leading_zeros = 0;
        while !self.bit()? {
            leading_zeros += 1;
            if leading_zeros > 31 {
                return Err(Truncated);
            }
        }
        let suffix = self.bits(leading_zeros)?;
        Ok((1u32 << leading_zeros) - 1 + suffix)
    }

    /// se(v), ITU-T H.264 section 9.1.1.
    pub(crate) fn se(&mut self) -> Result<i32, Truncated> {
        let code = i64::from(self.ue()?);
        let magnitude = (code + 1) / 2;
        // A code below 2^32 has a magnitude of at most 2^31.
        let value = if code % 2 == 1 { magnitude } else { -magnitude };
        i32::try_from(value).map_err(|_| Truncated)
    }

    /// How many bits were taken, emulation prevention bytes not counted.
    pub(crate) const fn position(&self) -> usize {
        self.position
    }

    /// How many bits are left at most: emulation prevention bytes ahead are counted.
    pub(crate) const fn bits_remaining(&self) -> usize {
        (self.bytes.len() - self.next) * 8 + self.bits_left as usize
    }

    fn load(&mut self) -> Result<u8, Truncated> {
        let mut byte = *self.bytes.get(self.next).ok_or(Truncated)?;
        self.next += 1;
        if self.escaped && self.zeros >= 2 && byte == 3 {
            self.zeros = 0;
            byte = *self.bytes.get(self.next).ok_or(Truncated)?;
            self.next += 1;
        }
        self.zeros = if byte == 0 {
            self.zeros.saturating_add(1)
        } else {
            0
        };
        Ok(byte)
    }
}

/// Writes bits, most significant first, for a NAL unit of H.264.
#[derive(Debug, Default)]
pub(crate) struct BitWriter {
    bytes: Vec<u8>,
    /// Bits of the last byte that are still free.
    free: u8,
}

impl BitWriter {
    /// One bit.
    pub(crate) fn bit(&mut self, bit: bool) {
        if self.free == 0 {
            self.bytes.push(0);
            self.free = 8;
        }
        self.free -= 1;
        if let Some(last) = self.bytes.last_mut() {
            *last |= u8::from(bit) << self.free;
        }
    }

    /// ue(v), ITU-T H.264 section 9.1.
    pub(crate) fn ue(&mut self, value: u32) {
        let code = u64::from(value) + 1;
        let length = 64 - code.leading_zeros();
        (1..length).for_each(|_| self.bit(false));
        (0..length)
            .rev()
            .for_each(|shift| self.bit((code >> shift) & 1 == 1));
    }

    /// The NAL unit: its header, then the bits with their stop bit and with emulation
    /// prevention (section 7.3.1).
    pub(crate) fn into_nal(mut self, header: u8) -> Vec<u8> {
        self.bit(true); // rbsp_stop_one_bit
        let mut nal = Vec::with_capacity(self.bytes.len() + 4);
        nal.push(header);
        let mut zeros = 0;
        for byte in self.bytes {
            if zeros == 2 && byte <= 3 {
                nal.push(3);
                zeros = 0;
            }
            zeros = if byte == 0 { zeros + 1 } else { 0 };
            nal.push(byte);
        }
        nal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_golomb_codes_of_the_specification() {
        // Table 9-2: 1, 010, 011, 00100, 00101 are 0 to 4; then 0001000 is 7.
        let mut reader = BitReader::new(&[0b1010_0110, 0b0100_0010, 0b1000_1000]);
        let values: Vec<u32> = (0..6).map(|_| reader.ue().expect("there")).collect();
        assert_eq!(values, [0, 1, 2, 3, 4, 7]);
        // Table 9-3: 0 to 4 stand for 0, 1, -1, 2, -2.
        let mut reader = BitReader::new(&[0b1010_0110, 0b0100_0010, 0b1000_0000]);
        let values: Vec<i32> = (0..5).map(|_| reader.se().expect("there")).collect();
        assert_eq!(values, [0, 1, -1, 2, -2]);
    }

    #[test]
    fn the_largest_code_fits_and_a_longer_one_is_refused() {
        let mut bytes = vec![0, 0, 0, 1];
        bytes.extend([0xff, 0xff, 0xff, 0xff]);
        // 31 zeros, a one, 31 ones: 2^32 - 2.
        assert_eq!(BitReader::new(&bytes).ue(), Ok(u32::MAX - 1));
        assert_eq!(BitReader::new(&[0; 16]).ue(), Err(Truncated));
    }

    #[test]
    fn emulation_prevention_is_taken_out() {
        let mut reader = BitReader::of_nal_body(&[0, 0, 3, 1, 0, 0, 3, 0, 0, 3, 3, 3]);
        let mut out = Vec::new();
        while let Ok(byte) = reader.byte() {
            out.push(byte);
        }
        assert_eq!(out, [0, 0, 1, 0, 0, 0, 0, 3, 3]);
        assert_eq!(reader.position(), 72);
        // A trailing escape belongs to no byte.
        let mut reader = BitReader::of_nal_body(&[0, 0, 3]);
        assert_eq!(reader.bits(16), Ok(0));
        assert_eq!(reader.bit(), Err(Truncated));
    }

    #[test]
    fn reads_end_where_the_bytes_end() {
        let mut reader = BitReader::new(&[0xa5]);
        assert_eq!(reader.bits(5), Ok(0b10100));
        assert_eq!(reader.bits_remaining(), 3);
        assert_eq!(reader.bits(4), Err(Truncated));
        assert_eq!(BitReader::new(&[]).bit(), Err(Truncated));
        assert_eq!(BitReader::new(&[1, 2]).skip(17), Err(Truncated));
    }
}

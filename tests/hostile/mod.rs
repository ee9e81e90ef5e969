//! What attacks have in common: chance, an allocator that counts, words of RTMP, and the
//! innocent.

#![allow(dead_code, missing_docs)]

pub mod bare;
pub mod heap;
pub mod scene;
pub mod speaker;

/// Chance from a seed, so that a failure is replayed by its seed (SplitMix64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0xd134_2543_de82_ef95))
    }

    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`, or 0.
    pub fn below(&mut self, end: usize) -> usize {
        match end {
            0 => 0,
            _ => (self.draw() % end as u64) as usize,
        }
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.draw() as u8).collect()
    }

    pub fn of<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// `good` with one to four damages: bits flipped, bytes replaced by telling ones,
    /// pieces left out, repeated, exchanged, filled in, or the end cut off.
    pub fn damage(&mut self, good: &[u8]) -> Vec<u8> {
        let mut bytes = good.to_vec();
        for _ in 0..1 + self.below(4) {
            let at = self.below(bytes.len());
            let len = 1 + self.below(32.min(bytes.len() - at));
            let end = (at + len).min(bytes.len());
            match self.below(8) {
                0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                2 if !bytes.is_empty() => bytes[at] = *self.of(&TELLING),
                3 => bytes.truncate(at),
                4 => drop(bytes.drain(at..end)),
                5 => {
                    let piece = bytes[at..end].to_vec();
                    let to = self.below(bytes.len());
                    bytes.splice(to..to, piece);
                }
                6 => {
                    let noise = self.bytes(len);
                    bytes.splice(at..end, noise);
                }
                _ if bytes.len() >= 8 => {
                    let other = self.below(bytes.len());
                    let len = len.min(bytes.len() - at.max(other));
                    for n in 0..len {
                        bytes.swap(at + n, other + n);
                    }
                }
                _ => bytes.push(self.draw() as u8),
            }
        }
        bytes
    }

    /// `bytes` in pieces of chance lengths.
    pub fn cut<'a>(&mut self, mut bytes: &'a [u8]) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(1 + self.below(bytes.len()));
            pieces.push(piece);
            bytes = rest;
        }
        pieces
    }
}

/// Bytes at the ends of ranges.
const TELLING: [u8; 12] = [0, 1, 2, 3, 0x7f, 0x80, 0x81, 0xc0, 0xfe, 0xff, b'\r', b'\n'];

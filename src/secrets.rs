//! [`Secrets`]: unguessable names, made from one seed that the world drew.
//!
//! HMAC-SHA-256 of a counter under the seed is a pseudo-random function: whoever has seen
//! some names cannot tell the next. A test that gives the same seed gets the same names.

use aws_lc_rs::hmac;

/// A source of unguessable values.
pub struct Secrets {
    key: hmac::Key,
    drawn: u64,
}

impl Secrets {
    /// A source on `seed`, which must be random and secret.
    pub fn new(seed: &[u8; 32]) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, seed),
            drawn: 0,
        }
    }

    /// A source of its own, whose names say nothing of this one's.
    pub fn branch(&mut self) -> Self {
        let mut seed = [0; 32];
        let drawn = self.draw();
        for (to, from) in seed.iter_mut().zip(drawn.as_ref()) {
            *to = *from;
        }
        Self::new(&seed)
    }

    /// 64 random bits.
    pub fn number(&mut self) -> u64 {
        let bytes = self.draw();
        let (head, _) = bytes
            .as_ref()
            .split_first_chunk()
            .expect("a tag has 32 bytes");
        u64::from_be_bytes(*head)
    }

    /// A name of 128 random bits in lower-case hexadecimal, fit for URLs, ICE and SDP.
    pub fn name(&mut self) -> String {
        let bytes = self.draw();
        bytes
            .as_ref()
            .iter()
            .take(16)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    fn draw(&mut self) -> hmac::Tag {
        self.drawn += 1;
        hmac::sign(&self.key, &self.drawn.to_be_bytes())
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({} drawn)", self.drawn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_follow_the_seed() {
        let mut one = Secrets::new(&[7; 32]);
        let mut same = Secrets::new(&[7; 32]);
        let mut other = Secrets::new(&[8; 32]);
        let first = one.name();
        assert_eq!(first.len(), 32);
        assert_eq!(first, same.name());
        assert_ne!(first, one.name());
        assert_ne!(first, other.name());
    }
}

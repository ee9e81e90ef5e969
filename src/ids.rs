//! Names of things that live in the gateway. Cheap to copy, never used twice.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

/// One TCP connection, named by the world that accepted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// One WebRTC session (one PeerConnection of a browser or encoder).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// One stream of the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// Whoever publishes or plays a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerId {
    /// A NetStream of an RTMP connection.
    Rtmp {
        /// The connection.
        conn: ConnId,
        /// The message stream ID of the NetStream.
        message_stream: u32,
    },
    /// A WebRTC session, made by WHIP or WHEP.
    Webrtc(SessionId),
}

/// A map by names of ours. Nobody else chooses them, so its hash is as cheap as can be.
pub type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// The hash of [`IdMap`]: one multiplication for each number.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        // The map takes both ends of it; a product's variety is in its upper half.
        self.0 ^ self.0 >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        // Knuth's multiplicative hash: 2^64 divided by the golden ratio.
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_isize(&mut self, number: isize) {
        // Which variant of an enum it is.
        self.write_u64(number as u64);
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerId::Rtmp { conn, .. } => conn.fmt(f),
            PeerId::Webrtc(session) => session.fmt(f),
        }
    }
}

impl fmt::Display for ConnId {
    /// The slot and how often it was used: `tcp#7.2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tcp#{}.{}", self.0 & 0xffff_ffff, self.0 >> 32)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rtc#{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::BuildHasher;

    use super::*;

    /// What a map of 1,000 names looks at: the low bits of the hash and its upper seven.
    #[test]
    fn names_in_a_row_are_spread() {
        let build = BuildHasherDefault::<IdHasher>::default();
        let names = (0..1_000_u64).map(|slot| ConnId(1 << 32 | slot));
        let hashes: Vec<u64> = names.map(|name| build.hash_one(name)).collect();
        let low: HashSet<u64> = hashes.iter().map(|hash| hash & 0x7ff).collect();
        let high: HashSet<u64> = hashes.iter().map(|hash| hash >> 57).collect();
        assert!(low.len() > 600, "{}", low.len());
        assert!(high.len() > 100, "{}", high.len());
    }
}

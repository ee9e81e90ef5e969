//! [`Scope`]: what a client is lent while something happens to it.

use std::collections::HashMap;
use std::time::Instant;

use crate::clip::Clip;
use crate::clock::{Clock, Random};
use crate::link::Link;
use crate::stamp::Stamp;
use crate::tally::Tally;

/// What belongs to all clients, and the counters of the client's group.
pub struct Scope<'a> {
    /// Now; read again after each read of a socket.
    pub now: Instant,
    /// For stamps.
    pub clock: Clock,
    /// From when latency is measured, µs since 1970.
    pub measured_from_us: u64,
    /// What is published.
    pub clip: Option<&'a Clip>,
    /// When the server let each publisher of this run in.
    pub published: &'a mut HashMap<u32, Instant>,
    /// Counters of the client's group.
    pub tally: &'a mut Tally,
    /// For all that is random.
    pub random: &'a mut Random,
    /// For bytes in passing.
    pub buffers: &'a mut Buffers,
    /// Where datagrams go.
    pub link: &'a mut Link,
    /// Names the client to `link`.
    pub token: mio::Token,
}

impl Scope<'_> {
    /// When the publisher of a picture was let in, if it is one of this run.
    pub fn published(&self, stamp: Option<Stamp>) -> Option<Instant> {
        self.published.get(&stamp?.publisher).copied()
    }
}

/// Buffers that all clients share, one after the other.
pub struct Buffers {
    /// What a TCP socket had.
    pub tcp: Box<[u8]>,
    /// One datagram.
    pub udp: Box<[u8]>,
    /// A picture that is being made.
    pub scratch: Vec<u8>,
}

impl Buffers {
    /// Buffers for one loop.
    pub fn new() -> Self {
        Self {
            // A second of 2 Mbit/s: one read is nearly always enough.
            tcp: vec![0; 256 * 1024].into(),
            udp: vec![0; 2_048].into(),
            scratch: Vec::new(),
        }
    }
}

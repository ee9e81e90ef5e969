//! How datagrams travel between a browser and the gateway: loss by chance and in bursts, delay,
//! jitter, doubling, and a bottleneck with its queue.

use std::time::{Duration, Instant};

use super::World;

/// One way of a path.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    pub delay: Duration,
    /// Up to so much is added, by chance: packets overtake one another.
    pub jitter: Duration,
    /// Of a thousand datagrams, so many are lost.
    pub loss_permille: u64,
    /// Losses that come together, besides.
    pub burst: Option<Burst>,
    /// Of a thousand datagrams, so many arrive twice.
    pub duplicate_permille: u64,
    /// The narrowest place of the path.
    pub cap: Option<Cap>,
}

/// A path that is now and then dead for a moment (Gilbert's model).
#[derive(Clone, Copy, Debug)]
pub struct Burst {
    /// Of ten thousand datagrams, before so many a burst begins.
    pub begins: u64,
    /// Datagrams of a burst on average; all are lost.
    pub length: u64,
}

/// A bottleneck.
#[derive(Clone, Copy, Debug)]
pub struct Cap {
    pub bits_per_second: u64,
    /// What is behind so much in its queue is dropped.
    pub queue: Duration,
}

/// Which way of a browser's path.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    Up,
    Down,
}

/// What a way remembers.
#[derive(Clone, Copy, Debug, Default)]
pub struct PathState {
    in_burst: bool,
    /// When the bottleneck will have sent all that it holds.
    busy_until: Option<Instant>,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(1),
            jitter: Duration::ZERO,
            loss_permille: 0,
            burst: None,
            duplicate_permille: 0,
            cap: None,
        }
    }
}

impl World {
    /// How long a datagram travels: once for each copy that arrives.
    pub(super) fn travel(&mut self, browser: usize, way: Way, bytes: usize) -> Vec<Duration> {
        let peer = &self.browsers[browser];
        let own = match way {
            Way::Up => peer.up,
            Way::Down => peer.down,
        };
        let link = own.unwrap_or(self.link);
        let mut path = peer.paths[way as usize];
        let arrives = self.passes(link, &mut path);
        let waits = match link.cap {
            Some(cap) => path.queue(self.now, cap, bytes),
            None => Some(Duration::ZERO),
        };
        self.browsers[browser].paths[way as usize] = path;
        let Some(waits) = waits.filter(|_| arrives) else {
            return Vec::new();
        };
        let doubled = link.duplicate_permille > 0 && self.draw() % 1_000 < link.duplicate_permille;
        (0..1 + usize::from(doubled))
            .map(|_| {
                let jitter = match link.jitter.as_micros() as u64 {
                    0 => 0,
                    most => self.draw() % most,
                };
                waits + link.delay + Duration::from_micros(jitter)
            })
            .collect()
    }

    fn passes(&mut self, link: Link, path: &mut PathState) -> bool {
        let is_lost = self.draw() % 1_000 < link.loss_permille;
        if let Some(burst) = link.burst {
            let changes = match path.in_burst {
                true => self.draw().is_multiple_of(burst.length.max(1)),
                false => self.draw() % 10_000 < burst.begins,
            };
            path.in_burst ^= changes;
        } else {
            path.in_burst = false;
        }
        !is_lost && !path.in_burst
    }
}

impl PathState {
    /// How long a datagram is in the bottleneck; `None` if there is no room for it.
    fn queue(&mut self, now: Instant, cap: Cap, bytes: usize) -> Option<Duration> {
        let begins = self.busy_until.map_or(now, |until| until.max(now));
        if begins - now > cap.queue {
            return None;
        }
        // IPv4 and UDP headers.
        let bits = (bytes as u64 + 28) * 8;
        let takes = Duration::from_nanos(bits * 1_000_000_000 / cap.bits_per_second);
        self.busy_until = Some(begins + takes);
        Some(begins + takes - now)
    }
}

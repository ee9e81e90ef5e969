//! One direction of a bad network link, sans-IO: packets and time go in, packets and
//! times come out. What happens to a packet is drawn from a seed.
//!
//! ```text
//! push ─ is the link up? ─ loss ─ queue, bounded ─ rate ─ delay and jitter ─▶ pop
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

/// What a link does to packets. The default does nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conditions {
    /// The part of all packets that is lost, each by itself, 0 to 1.
    pub loss: f64,
    /// Losses that come together.
    pub burst: Option<Burst>,
    /// How long each packet takes, besides its turn in the queue.
    pub delay: Duration,
    /// The most that is added to the delay, evenly spread.
    pub jitter: Duration,
    /// Whether a packet with little jitter may overtake one with more.
    pub order: Order,
    /// The part of all packets that arrives twice, 0 to 1.
    pub duplicate: f64,
    /// Bits a second that the link carries; 0 = without limit.
    pub rate_bps: u64,
    /// How many bytes may wait for their turn at that rate. What comes on top is lost.
    pub queue_bytes_max: usize,
    /// False loses everything: a tunnel, a lift, a change of cells.
    pub is_up: bool,
}

/// Losses by a link with a good and a bad state (Gilbert): in the bad one all is lost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Burst {
    /// The part of all packets that is lost, 0 to below 1.
    pub loss: f64,
    /// How many are lost together on average, at least 1.
    pub packets: f64,
}

/// What jitter does to the order of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// A packet waits for the one before it.
    Kept,
    /// Packets overtake one another.
    Mixed,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            loss: 0.0,
            burst: None,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            order: Order::Kept,
            duplicate: 0.0,
            rate_bps: 0,
            queue_bytes_max: 64 << 10,
            is_up: true,
        }
    }
}

/// What became of the packets so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets that were handed in.
    pub taken: u64,
    /// Lost by chance or because the link was down.
    pub lost: u64,
    /// Lost because the queue was full.
    pub overflowed: u64,
    /// Packets that came out, copies included.
    pub delivered: u64,
}

/// One direction of a link.
#[derive(Debug)]
pub struct Impairment {
    conditions: Conditions,
    random: u64,
    /// In the bad state of [`Burst`].
    is_bad: bool,
    /// Waits for the rate.
    queue: VecDeque<(Instant, Vec<u8>)>,
    queue_bytes: usize,
    /// When the last packet that left the queue was through.
    free_at: Option<Instant>,
    /// Packets under way by number, and when they arrive.
    flights: BTreeMap<u64, Vec<u8>>,
    arrivals: BinaryHeap<Reverse<(Instant, u64)>>,
    next_number: u64,
    last_arrival: Option<Instant>,
    counts: Counts,
}

impl Impairment {
    /// A link that does nothing to packets, until [`Impairment::set`].
    pub fn new(seed: u64) -> Self {
        Self {
            conditions: Conditions::default(),
            random: seed,
            is_bad: false,
            queue: VecDeque::new(),
            queue_bytes: 0,
            free_at: None,
            flights: BTreeMap::new(),
            arrivals: BinaryHeap::new(),
            next_number: 0,
            last_arrival: None,
            counts: Counts::default(),
        }
    }

    /// Changes the conditions. Packets under way arrive as they were to; those in the
    /// queue go on at the new rate.
    pub fn set(&mut self, conditions: Conditions, now: Instant) {
        self.advance(now);
        self.conditions = conditions;
        self.is_bad = false;
    }

    /// Takes a packet.
    pub fn push(&mut self, packet: Vec<u8>, now: Instant) {
        self.advance(now);
        self.counts.taken += 1;
        if self.is_lost() {
            self.counts.lost += 1;
        } else if self.conditions.rate_bps > 0
            && self.queue_bytes + packet.len() > self.conditions.queue_bytes_max
        {
            self.counts.overflowed += 1;
        } else {
            self.queue_bytes += packet.len();
            self.queue.push_back((now, packet));
            self.advance(now);
        }
    }

    /// The next packet that has arrived by `now`.
    pub fn pop(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.advance(now);
        let Reverse((arrival, number)) = *self.arrivals.peek()?;
        if arrival > now {
            return None;
        }
        self.arrivals.pop();
        self.counts.delivered += 1;
        self.flights.remove(&number)
    }

    /// When [`Impairment::pop`] is to be called next.
    pub fn next_due(&self) -> Option<Instant> {
        let arrival = self.arrivals.peek().map(|Reverse((at, _))| *at);
        let leaves = self.queue.front().map(|(came, packet)| {
            self.free_at.map_or(*came, |free| free.max(*came)) + self.time_for(packet)
        });
        [arrival, leaves].into_iter().flatten().min()
    }

    /// What became of the packets so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Moves what has left the queue by `now` under way.
    fn advance(&mut self, now: Instant) {
        while let Some((came, packet)) = self.queue.front() {
            let begins = self.free_at.map_or(*came, |free| free.max(*came));
            let through = begins + self.time_for(packet);
            if through > now {
                break;
            }
            self.free_at = Some(through);
            let (_, packet) = self.queue.pop_front().expect("it was looked at");
            self.queue_bytes -= packet.len();
            if self.draw() < self.conditions.duplicate {
                self.depart(packet.clone(), through);
            }
            self.depart(packet, through);
        }
    }

    fn depart(&mut self, packet: Vec<u8>, at: Instant) {
        let jitter = self.conditions.jitter.mul_f64(self.draw());
        let mut arrival = at + self.conditions.delay + jitter;
        if self.conditions.order == Order::Kept
            && let Some(last) = self.last_arrival
        {
            arrival = arrival.max(last);
        }
        self.last_arrival = Some(arrival);
        self.arrivals.push(Reverse((arrival, self.next_number)));
        self.flights.insert(self.next_number, packet);
        self.next_number += 1;
    }

    fn time_for(&self, packet: &[u8]) -> Duration {
        match self.conditions.rate_bps {
            0 => Duration::ZERO,
            rate => Duration::from_secs_f64(packet.len() as f64 * 8.0 / rate as f64),
        }
    }

    fn is_lost(&mut self) -> bool {
        if !self.conditions.is_up {
            return true;
        }
        if let Some(Burst { loss, packets }) = self.conditions.burst {
            // The mean stay in the bad state, and its share of all packets, give both odds.
            let leaves = 1.0 / packets.max(1.0);
            let enters = leaves * loss / (1.0 - loss);
            let odds = if self.is_bad { leaves } else { enters };
            if self.draw() < odds {
                self.is_bad = !self.is_bad;
            }
            if self.is_bad {
                return true;
            }
        }
        self.draw() < self.conditions.loss
    }

    /// The next random number, 0 to below 1 (SplitMix64).
    fn draw(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Sends `count` packets of `size` bytes, one each `every`; the number of each that
    /// arrives, with its time after the first sending in ms.
    fn run(
        conditions: Conditions,
        count: u32,
        size: usize,
        every: Duration,
    ) -> (Vec<(u32, f64)>, Counts) {
        let start = Instant::now();
        let mut link = Impairment::new(7);
        link.set(conditions, start);
        let mut arrived = Vec::new();
        let mut sent = 0;
        loop {
            let sending = (sent < count).then(|| start + every * sent);
            let Some(now) = [sending, link.next_due()].into_iter().flatten().min() else {
                return (arrived, link.counts());
            };
            if sending == Some(now) {
                let mut packet = vec![0; size];
                packet[..4].copy_from_slice(&sent.to_be_bytes());
                link.push(packet, now);
                sent += 1;
            }
            while let Some(packet) = link.pop(now) {
                let number = u32::from_be_bytes(packet[..4].try_into().unwrap());
                arrived.push((number, (now - start).as_secs_f64() * 1000.0));
            }
        }
    }

    fn numbers(arrived: &[(u32, f64)]) -> Vec<u32> {
        arrived.iter().map(|(number, _)| *number).collect()
    }

    #[test]
    fn a_good_link_passes_everything_at_once_and_in_order() {
        let (arrived, counts) = run(Conditions::default(), 100, 1200, MS);
        assert_eq!(numbers(&arrived), (0..100).collect::<Vec<_>>());
        assert!(
            arrived
                .iter()
                .all(|(number, at)| (at - f64::from(*number)).abs() < 1e-3)
        );
        assert_eq!((counts.taken, counts.delivered), (100, 100));
    }

    #[test]
    fn loses_the_part_that_was_asked_for() {
        let conditions = Conditions {
            loss: 0.02,
            ..Conditions::default()
        };
        let (_, counts) = run(conditions, 20_000, 100, MS);
        assert!((350..450).contains(&counts.lost), "{counts:?}");
    }

    #[test]
    fn burst_losses_come_together() {
        let conditions = Conditions {
            burst: Some(Burst {
                loss: 0.05,
                packets: 4.0,
            }),
            ..Conditions::default()
        };
        let (arrived, counts) = run(conditions, 40_000, 100, MS);
        assert!((1_700..2_300).contains(&counts.lost), "{counts:?}");
        let holes = numbers(&arrived)
            .windows(2)
            .filter(|pair| pair[1] > pair[0] + 1)
            .count();
        let mean = counts.lost as f64 / holes as f64;
        assert!((3.5..4.5).contains(&mean), "{mean} lost together");
    }

    #[test]
    fn jitter_keeps_or_mixes_the_order_as_told() {
        let kept = Conditions {
            delay: 20 * MS,
            jitter: 30 * MS,
            ..Conditions::default()
        };
        let (arrived, _) = run(kept, 1_000, 100, MS);
        assert_eq!(numbers(&arrived), (0..1_000).collect::<Vec<_>>());
        let mixed = Conditions {
            order: Order::Mixed,
            ..kept
        };
        let (arrived, _) = run(mixed, 1_000, 100, MS);
        assert_eq!(arrived.len(), 1_000);
        assert!(numbers(&arrived).windows(2).any(|pair| pair[1] < pair[0]));
        for (number, at) in arrived {
            let took = at - f64::from(number);
            assert!(
                (20.0..50.001).contains(&took),
                "{number} came after {took} ms"
            );
        }
    }

    #[test]
    fn some_arrive_twice() {
        let conditions = Conditions {
            duplicate: 0.1,
            ..Conditions::default()
        };
        let (arrived, counts) = run(conditions, 10_000, 100, MS);
        assert!((10_900..11_100).contains(&arrived.len()), "{counts:?}");
    }

    #[test]
    fn a_rate_spaces_packets_and_its_queue_is_bounded() {
        // 1,250 bytes take 10 ms at 1 Mbit/s, and come each 5 ms.
        let conditions = Conditions {
            rate_bps: 1_000_000,
            queue_bytes_max: 5_000,
            ..Conditions::default()
        };
        let (arrived, counts) = run(conditions, 100, 1_250, 5 * MS);
        assert!(counts.overflowed > 40, "{counts:?}");
        assert_eq!(counts.overflowed + counts.delivered, 100);
        for pair in arrived.windows(2) {
            assert!((pair[1].1 - pair[0].1 - 10.0).abs() < 1e-3, "{pair:?}");
        }
        let longest = arrived
            .iter()
            .map(|(number, at)| at - 5.0 * f64::from(*number))
            .fold(0.0, f64::max);
        assert!(longest <= 40.001, "{longest} ms for 5,000 bytes");
    }

    #[test]
    fn the_queue_empties_when_the_rate_is_lifted() {
        let start = Instant::now();
        let mut link = Impairment::new(1);
        let slow = Conditions {
            rate_bps: 8_000,
            ..Conditions::default()
        };
        link.set(slow, start);
        for _ in 0..10 {
            link.push(vec![0; 1_000], start);
        }
        assert!(link.pop(start + 900 * MS).is_none(), "one takes a second");
        link.set(Conditions::default(), start + 1_500 * MS);
        let now = start + 1_501 * MS;
        assert_eq!(std::iter::from_fn(|| link.pop(now)).count(), 10);
        assert_eq!(link.next_due(), None);
    }

    #[test]
    fn a_link_that_is_down_loses_everything_until_it_is_up() {
        let start = Instant::now();
        let mut link = Impairment::new(1);
        let down = Conditions {
            is_up: false,
            ..Conditions::default()
        };
        link.set(down, start);
        link.push(vec![1], start);
        link.set(Conditions::default(), start + MS);
        link.push(vec![2], start + MS);
        assert_eq!(link.pop(start + MS), Some(vec![2]));
        assert_eq!(link.pop(start + MS), None);
    }

    #[test]
    fn one_seed_gives_one_fate() {
        let conditions = Conditions {
            loss: 0.1,
            jitter: 10 * MS,
            order: Order::Mixed,
            duplicate: 0.1,
            ..Conditions::default()
        };
        let once = run(conditions, 500, 200, MS);
        assert_eq!(once, run(conditions, 500, 200, MS));
    }
}

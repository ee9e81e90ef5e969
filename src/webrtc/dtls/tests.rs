//! Handshakes between two of us, over paths that lose, cut and repack.

use std::collections::VecDeque;

use super::*;

#[test]
fn one_configuration_serves_every_connection() {
    crypto_provider().unwrap();
    let first = PROVIDER.config().unwrap();
    let second = PROVIDER.config().unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(first.flight_start_rto(), FLIGHT_START_RTO);
}

/// A client (0) and a server (1).
struct Pair {
    ends: [Instance; 2],
    timeouts: [Instant; 2],
    connected: [bool; 2],
    now: Instant,
}

impl Pair {
    fn new() -> Self {
        let now = Instant::now();
        let mut ends = [(); 2].map(|()| instance(&certificate().unwrap(), now).unwrap());
        ends[0].set_active(true);
        ends[1].set_active(false);
        Self {
            ends,
            timeouts: [now; 2],
            connected: [false; 2],
            now,
        }
    }

    fn drain(&mut self, end: usize, sent: &mut VecDeque<(usize, Vec<u8>)>) {
        let mut buffer = vec![0; OUTPUT_BYTES];
        loop {
            match self.ends[end].poll_output(&mut buffer) {
                DtlsOutput::Packet(bytes) => sent.push_back((end, bytes.to_vec())),
                DtlsOutput::Timeout(at) => {
                    self.timeouts[end] = at;
                    return;
                }
                DtlsOutput::Connected => self.connected[end] = true,
                DtlsOutput::CloseNotify => panic!("closed"),
                _ => {}
            }
        }
    }

    /// Runs until both are connected; `path` makes of each datagram, its sender and its number
    /// what arrives. How long it took.
    fn connect(self, path: impl FnMut(usize, usize, &[u8]) -> Vec<Vec<u8>>) -> Duration {
        self.try_connect(path).expect("connected within 20 s")
    }

    /// The same; `None` if it takes too long.
    fn try_connect(
        mut self,
        mut path: impl FnMut(usize, usize, &[u8]) -> Vec<Vec<u8>>,
    ) -> Option<Duration> {
        let begun = self.now;
        let mut sent = VecDeque::new();
        let mut count = 0;
        loop {
            for end in 0..2 {
                if self.timeouts[end] <= self.now {
                    self.ends[end].handle_timeout(self.now).unwrap();
                }
                self.drain(end, &mut sent);
            }
            while let Some((from, datagram)) = sent.pop_front() {
                for arriving in path(from, count, &datagram) {
                    self.ends[1 - from].handle_packet(&arriving).unwrap();
                    self.drain(1 - from, &mut sent);
                }
                count += 1;
            }
            if self.connected == [true; 2] {
                return Some(self.now - begun);
            }
            self.now = self.timeouts[0].min(self.timeouts[1]).max(self.now);
            if self.now - begun >= Duration::from_secs(20) {
                return None;
            }
        }
    }
}

fn records(mut datagram: &[u8]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    while let Some((record, behind)) = split_record(datagram) {
        records.push(record.to_vec());
        datagram = behind;
    }
    records
}

#[test]
fn a_flight_of_which_only_the_first_records_came_goes_on_from_its_repetition() {
    let mut cuts = 0;
    for cut in 0..8 {
        for kept in 0..8 {
            let took = Pair::new().connect(|_, number, datagram| {
                if number != cut {
                    return vec![datagram.to_vec()];
                }
                cuts += 1;
                let first: Vec<u8> = records(datagram).into_iter().take(kept).flatten().collect();
                // A datagram of no record is none.
                Vec::from_iter(Some(first).filter(|first| !first.is_empty()))
            });
            // One repetition.
            assert!(took < Duration::from_millis(600), "{cut} {kept}: {took:?}");
        }
    }
    assert!(cuts > 30, "{cuts}");
}

#[test]
fn each_record_lost_for_itself_is_made_good() {
    for lost in 0..40 {
        let mut number = 0;
        let took = Pair::new().connect(|_, _, datagram| {
            let mut arriving = records(datagram);
            arriving.retain(|_| {
                number += 1;
                number != lost + 1
            });
            arriving
        });
        assert!(took < Duration::from_millis(600), "{lost}: {took:?}");
    }
}

/// Repeated flights come in smaller pieces, as of a peer that looks for the path's MTU.
#[test]
fn a_flight_repeated_in_other_pieces_goes_on() {
    for lost in 0..8 {
        let took = Pair::new().connect(|_, number, datagram| match number {
            number if number == lost => {
                let first = records(datagram).into_iter().next();
                Vec::from_iter(first.map(|first| halves(&first)[0].clone()))
            }
            number if number > lost => {
                let mut pieces: Vec<_> = records(datagram).iter().flat_map(|r| thirds(r)).collect();
                // Those of one message overtake one another.
                if let [first, second, ..] = &mut pieces[..] {
                    std::mem::swap(first, second);
                }
                pieces
            }
            _ => vec![datagram.to_vec()],
        });
        assert!(took < Duration::from_secs(2), "{lost}: {took:?}");
    }
}

/// Each flight may be lost again and again, with twice the wait each time: a few take too long.
#[test]
fn one_datagram_in_five_lost_each_way_is_survived() {
    let took: Vec<Duration> = (1..60_u64)
        .filter_map(|seed| {
            let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            Pair::new().try_connect(|_, _, datagram| {
                random ^= random >> 12;
                random ^= random << 25;
                random ^= random >> 27;
                match random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32 {
                    draw if draw % 5 == 0 => Vec::new(),
                    _ => vec![datagram.to_vec()],
                }
            })
        })
        .collect();
    assert!(took.len() >= 54, "{} of 59 connected", took.len());
    let soon = took.iter().filter(|took| took.as_secs() < 4);
    assert!(soon.count() >= 40, "{took:?}");
}

fn halves(record: &[u8]) -> Vec<Vec<u8>> {
    pieces(record, 2)
}

fn thirds(record: &[u8]) -> Vec<Vec<u8>> {
    pieces(record, 3)
}

/// A record of one plain message in so many pieces; another one whole.
fn pieces(record: &[u8], count: usize) -> Vec<Vec<u8>> {
    let (header, message) = record.split_at(RECORD_HEADER_BYTES);
    if header[0] != 22 || header[4] != 0 {
        return vec![record.to_vec()];
    }
    let (head, body) = message.split_at(12);
    let size = body.len().div_ceil(count).max(1);
    let mut made = Vec::new();
    for (n, piece) in body.chunks(size).enumerate() {
        let mut bytes = header[..11].to_vec();
        bytes.extend(((12 + piece.len()) as u16).to_be_bytes());
        bytes.extend_from_slice(&head[..6]);
        bytes.extend(&((n * size) as u32).to_be_bytes()[1..]);
        bytes.extend(&(piece.len() as u32).to_be_bytes()[1..]);
        bytes.extend_from_slice(piece);
        made.push(bytes);
    }
    if made.is_empty() {
        made.push(record.to_vec());
    }
    made
}

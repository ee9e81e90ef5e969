//! The virtual clock and everything on its way.

use std::cmp::Reverse;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rtmp_gateway::gateway::{ConnId, Input, Output};
use rtmp_gateway::rtmp::client::Event;
use rtmp_gateway::transmit::TransmitQueue;

use super::sources::{FlvSource, RtpSource};
use super::{Raw, World};

#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OnWay {
    at: Instant,
    sequence: u64,
    what: What,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    TcpToGateway {
        conn: ConnId,
        bytes: Vec<u8>,
    },
    TcpToPeer {
        conn: ConnId,
        bytes: Vec<u8>,
    },
    PeerClosed {
        conn: ConnId,
    },
    /// The gateway closed a mini-program's connection.
    PhoneClosed {
        leg: usize,
    },
    /// A slow reader takes what its rate allows.
    PeerReads {
        conn: ConnId,
    },
    UdpToGateway {
        source: SocketAddr,
        destination: SocketAddr,
        bytes: Vec<u8>,
    },
    UdpToBrowser {
        browser: usize,
        source: SocketAddr,
        destination: SocketAddr,
        bytes: Vec<u8>,
    },
}

impl World {
    pub fn run_for(&mut self, span: Duration) {
        self.run_until(self.now + span, |_| false);
    }

    pub fn run_ms(&mut self, millis: u64) {
        self.run_for(Duration::from_millis(millis));
    }

    /// Runs until `done` or for `millis` at most; answers whether it was done.
    pub fn run_until_ms(&mut self, millis: u64, done: impl Fn(&Self) -> bool) -> bool {
        self.run_until(self.now + Duration::from_millis(millis), done)
    }

    fn run_until(&mut self, end: Instant, done: impl Fn(&Self) -> bool) -> bool {
        // Bounded: a gateway that asks for a turn again and again at the same time spins.
        let mut turns = 0;
        loop {
            if done(self) {
                return true;
            }
            let next = self.next_event();
            if next > end {
                self.now = end;
                return false;
            }
            turns = if next > self.now { 0 } else { turns + 1 };
            assert!(turns < TURNS_AT_ONCE_MAX, "time stands still");
            self.now = self.now.max(next);
            self.step();
        }
    }

    fn next_event(&self) -> Instant {
        let on_way = self.on_way.peek().map(|Reverse(on_way)| on_way.at);
        let browsers = self.browsers.iter().flat_map(|peer| {
            let source = peer.source.as_ref().map(RtpSource::next_at);
            [Some(peer.browser.next_timeout()), source]
        });
        let sources = self.rtmp.values().map(|peer| {
            let running = peer.client.is_running();
            let source = peer.source.as_ref().filter(|_| running);
            source.and_then(FlvSource::next_at)
        });
        browsers
            .chain(sources)
            .chain([on_way, self.gateway.next_timeout(), self.next_leg_timeout()])
            .chain([self.late_work.front().map(|(at, _)| *at)])
            .flatten()
            .min()
            .unwrap_or(self.now + Duration::from_secs(3_600))
    }

    fn step(&mut self) {
        while self
            .on_way
            .peek()
            .is_some_and(|Reverse(on_way)| on_way.at <= self.now)
        {
            let Reverse(on_way) = self.on_way.pop().expect("it was just seen");
            self.arrive(on_way.what);
        }
        while self
            .late_work
            .front()
            .is_some_and(|(at, _)| *at <= self.now)
        {
            let (_, done) = self.late_work.pop_front().expect("it was just seen");
            self.input(Input::Transcoded(done));
        }
        if self.gateway.next_timeout().is_some_and(|at| at <= self.now) {
            self.input(Input::Timeout);
        }
        for index in 0..self.browsers.len() {
            let now = self.now;
            let peer = &mut self.browsers[index];
            if peer.browser.next_timeout() <= now {
                peer.browser.handle_timeout(now);
            }
            if let Some(source) = &mut peer.source {
                source.play(now, &mut peer.browser, &peer.seen);
            }
            self.pump_browser(index);
        }
        let publishing: Vec<ConnId> = self.rtmp.keys().copied().collect();
        for conn in publishing {
            let now = self.now;
            let peer = self.rtmp.get_mut(&conn).expect("it was just seen");
            if let (Some(source), true) = (&mut peer.source, peer.client.is_running()) {
                source.play(now, &mut peer.client);
                self.pump_rtmp(conn);
            }
        }
        self.run_legs();
    }

    fn arrive(&mut self, what: What) {
        match what {
            What::TcpToGateway { conn, bytes } => {
                if !self.raw[&conn].closed {
                    self.input(Input::Received {
                        conn,
                        bytes: &bytes,
                    });
                }
            }
            What::TcpToPeer { conn, bytes } => self.tcp_arrived(conn, &bytes),
            What::PeerClosed { conn } => {
                let raw = self.raw.get_mut(&conn).expect("a connection");
                if !std::mem::replace(&mut raw.closed, true) {
                    self.input(Input::Disconnected { conn, error: None });
                }
            }
            What::PhoneClosed { leg } => self.leg_closed(leg),
            What::PeerReads { conn } => {
                self.rtmp_mut(conn).is_draining = false;
                self.drain_socket(conn);
                self.transmit(conn);
                self.input(Input::Timeout);
            }
            What::UdpToGateway {
                source,
                destination,
                bytes,
            } => {
                if let Some(tap) = &mut self.tap {
                    tap.push((source, destination, bytes.clone()));
                }
                self.input(Input::Datagram {
                    source,
                    destination,
                    bytes: &bytes,
                });
            }
            What::UdpToBrowser {
                browser,
                source,
                destination,
                bytes,
            } => self.datagram_arrived(browser, source, destination, &bytes),
        }
    }

    fn tcp_arrived(&mut self, conn: ConnId, bytes: &[u8]) {
        let now = self.now;
        if let Some(peer) = self.rtmp.get_mut(&conn) {
            peer.client.receive(bytes).expect("the gateway speaks RTMP");
            while let Some(event) = peer.client.poll_event() {
                if let (Event::Publishing, Some(source)) = (&event, &mut peer.source) {
                    source.begin(now, &mut peer.client);
                }
                peer.events.push((now, event));
            }
            self.pump_rtmp(conn);
        } else if let Some(browser) = self.browser_of_tcp(conn) {
            self.frames_arrived(browser, conn, bytes);
        } else if let Some(leg) = self.leg_of(conn) {
            self.leg_arrived(leg, bytes);
        } else if !self.ws_arrived(conn, bytes) {
            self.raw_mut(conn).received.extend_from_slice(bytes);
        }
    }

    /// Tells the gateway and does what it asks.
    pub fn input(&mut self, input: Input<'_>) {
        self.inputs += 1;
        self.gateway.handle_input(self.now, input);
        loop {
            let mut completed = Vec::new();
            let mut transmits = 0;
            while let Some(output) = self.gateway.poll_output(self.now) {
                match output {
                    Output::Transmit(conn) => {
                        transmits += 1;
                        self.transmit(conn);
                    }
                    Output::Close(conn) => self.close(conn),
                    Output::Transcode { worker, job } => match &mut self.held_jobs {
                        Some(held) => held.push((worker, job)),
                        None => {
                            let done = self.workers[worker].run(job);
                            if self.worker_delay.is_zero() && self.late_work.is_empty() {
                                completed.extend(done);
                            } else {
                                // One job after the other.
                                let free = self.late_work.back().map_or(self.now, |(at, _)| *at);
                                let at = free.max(self.now) + self.worker_delay;
                                self.late_work.extend(done.map(|done| (at, done)));
                            }
                        }
                    },
                    Output::Callback(request) => self.callbacks.push(request),
                    Output::Stopped => {
                        self.stopped.get_or_insert(self.now);
                    }
                }
            }
            self.most_transmits = self.most_transmits.max(transmits);
            if completed.is_empty() {
                break;
            }
            for done in completed {
                self.gateway.handle_input(self.now, Input::Transcoded(done));
            }
        }
        let mut datagrams = Vec::new();
        self.gateway.take_datagrams(&mut datagrams);
        if let Some(unheard) = &mut self.unheard {
            unheard.datagrams += datagrams.len() as u64;
            return;
        }
        for datagram in datagrams {
            for packet in datagram.packets() {
                self.send_to_browser(datagram.source, datagram.destination, packet.to_vec());
            }
        }
    }

    fn close(&mut self, conn: ConnId) {
        self.transmit(conn);
        self.raw_mut(conn).closed = true;
        if let Some(peer) = self.rtmp.get_mut(&conn) {
            peer.closed = true;
            peer.closed_at = Some(self.now);
            peer.source = None;
        }
        self.gateway
            .handle_input(self.now, Input::Disconnected { conn, error: None });
        if let Some(leg) = self.leg_of(conn) {
            self.send(TCP_DELAY, What::PhoneClosed { leg });
        }
    }

    /// Takes from the gateway's queue what the connection has room for.
    pub(super) fn transmit(&mut self, conn: ConnId) {
        if self.rtmp.get(&conn).is_some_and(|peer| !peer.reads) {
            return;
        }
        let is_slow = self.rtmp.get(&conn).is_some_and(|peer| peer.rate.is_some());
        let room = match self.rtmp.get(&conn) {
            Some(peer) if is_slow => SOCKET_BYTES.saturating_sub(peer.socket.len()),
            _ => usize::MAX,
        };
        let Some(queue) = self.gateway.transmit(conn) else {
            return;
        };
        if let (Some(unheard), true) = (&mut self.unheard, self.rtmp.contains_key(&conn)) {
            unheard.tcp_bytes += queue.len() as u64;
            queue.advance(queue.len());
            self.gateway
                .handle_input(self.now, Input::Transmitted { conn });
            return;
        }
        let bytes = take(queue, room);
        if bytes.is_empty() {
            return;
        }
        if is_slow {
            self.rtmp_mut(conn).socket.extend(bytes);
            self.drain_socket(conn);
        } else if self.rtmp.contains_key(&conn)
            || self.browser_of_tcp(conn).is_some()
            || self.leg_of(conn).is_some()
        {
            self.send(TCP_DELAY, What::TcpToPeer { conn, bytes });
        } else {
            // HTTP and raw peers read at once; the others after the way.
            self.tcp_arrived(conn, &bytes);
        }
        self.gateway
            .handle_input(self.now, Input::Transmitted { conn });
    }

    /// A slow reader reads on, at its rate.
    pub(super) fn drain_socket(&mut self, conn: ConnId) {
        let peer = self.rtmp_mut(conn);
        if peer.is_draining || peer.socket.is_empty() {
            return;
        }
        let most = match peer.rate {
            None => peer.socket.len(),
            Some(rate) => (rate as usize / READS_A_SECOND).min(peer.socket.len()),
        };
        let bytes: Vec<u8> = peer.socket.drain(..most).collect();
        let more = most > 0 && !peer.socket.is_empty();
        peer.is_draining = peer.rate.is_some_and(|rate| rate > 0);
        if peer.is_draining || more {
            let turn = Duration::from_secs(1) / READS_A_SECOND as u32;
            self.send(turn, What::PeerReads { conn });
        }
        if !bytes.is_empty() {
            self.send(TCP_DELAY, What::TcpToPeer { conn, bytes });
        }
    }

    pub(super) fn send_to_gateway(&mut self, conn: ConnId, bytes: Vec<u8>) {
        self.send(TCP_DELAY, What::TcpToGateway { conn, bytes });
    }

    pub(super) fn hang_up(&mut self, conn: ConnId) {
        self.send(TCP_DELAY, What::PeerClosed { conn });
    }

    pub(super) fn send(&mut self, delay: Duration, what: What) {
        self.sequence += 1;
        self.on_way.push(Reverse(OnWay {
            at: self.now + delay,
            sequence: self.sequence,
            what,
        }));
    }

    pub(super) fn draw(&mut self) -> u64 {
        // SplitMix64.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn raw_mut(&mut self, conn: ConnId) -> &mut Raw {
        self.raw.get_mut(&conn).expect("a connection")
    }
}

/// Takes `most` bytes at most from a queue, as a socket does.
fn take(queue: &mut TransmitQueue, most: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < most && !queue.is_empty() {
        let mut slices = [IoSlice::new(&[])];
        queue.gather(&mut slices);
        let part = slices[0].len().min(most - bytes.len());
        bytes.extend_from_slice(&slices[0][..part]);
        queue.advance(part);
    }
    bytes
}

const TCP_DELAY: Duration = Duration::from_millis(1);

/// What a slow reader's kernel and ours hold for it.
const SOCKET_BYTES: usize = 64 << 10;

/// How often a slow reader reads.
const READS_A_SECOND: usize = 100;

/// Turns at one instant of the clock at most.
const TURNS_AT_ONCE_MAX: usize = 100_000;

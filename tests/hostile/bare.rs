//! [`Bare`]: a gateway alone with its attackers, who neither read nor keep anything, so that
//! the heap of the thread is the gateway's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rtmp_gateway::config::Config;
use rtmp_gateway::gateway::{ConnId, Gateway, Input, Listener, Output, World};
use rtmp_gateway::transcode::Worker;

use crate::common::world::CANDIDATE;

pub struct Bare {
    pub gateway: Gateway,
    pub now: Instant,
    /// How often the gateway closed a connection.
    pub closed: u64,
    /// Whether attackers take what is written to them.
    pub reads: bool,
    workers: Vec<Worker>,
    next_conn: u64,
    /// Jobs given to workers.
    pub jobs: u64,
    /// Whether the workers are behind: they do nothing.
    pub stalls: bool,
}

impl Bare {
    pub fn new(config: Config) -> Self {
        let now = Instant::now();
        let world = World {
            candidates: vec![CANDIDATE],
            workers: 1,
            seed: [9; 32],
            unix_time: std::time::Duration::from_secs(1_800_000_000),
        };
        Self {
            gateway: Gateway::new(Arc::new(config), world, now).expect("a gateway"),
            now,
            closed: 0,
            reads: false,
            workers: vec![Worker::new()],
            next_conn: 1,
            jobs: 0,
            stalls: false,
        }
    }

    pub fn connect(&mut self, listener: Listener) -> ConnId {
        let conn = ConnId(self.next_conn);
        self.next_conn += 1;
        let port = 1_024 + (conn.0 % 60_000) as u16;
        let peer = (
            std::net::Ipv4Addr::new(203, 0, 113, (conn.0 / 60_000) as u8),
            port,
        )
            .into();
        self.input(Input::Accepted {
            conn,
            listener,
            peer,
            local: CANDIDATE,
        });
        conn
    }

    /// Sends in reads of the size that the event loop has.
    pub fn send(&mut self, conn: ConnId, bytes: &[u8]) {
        for piece in bytes.chunks(READ_BYTES) {
            self.input(Input::Received { conn, bytes: piece });
        }
    }

    pub fn disconnect(&mut self, conn: ConnId) {
        self.input(Input::Disconnected { conn, error: None });
    }

    pub fn input(&mut self, input: Input<'_>) {
        self.gateway.handle_input(self.now, input);
        loop {
            let mut completed = Vec::new();
            while let Some(output) = self.gateway.poll_output(self.now) {
                match output {
                    Output::Transmit(conn) if self.reads => {
                        if let Some(queue) = self.gateway.transmit(conn) {
                            while queue.pop().is_some() {}
                        }
                        self.gateway
                            .handle_input(self.now, Input::Transmitted { conn });
                    }
                    Output::Close(conn) => {
                        self.closed += 1;
                        let error = None;
                        self.gateway
                            .handle_input(self.now, Input::Disconnected { conn, error });
                    }
                    Output::Transcode { worker, job } => {
                        self.jobs += 1;
                        if !self.stalls {
                            completed.extend(self.workers[worker].run(job));
                        }
                    }
                    Output::Transmit(_) | Output::Callback(_) | Output::Stopped => {}
                }
            }
            if completed.is_empty() {
                break;
            }
            for done in completed {
                self.gateway.handle_input(self.now, Input::Transcoded(done));
            }
        }
        self.gateway.take_datagrams(&mut Vec::new());
    }

    pub fn run_ms(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        while let Some(at) = self.gateway.next_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.input(Input::Timeout);
        }
        self.now = end;
    }
}

/// What the event loop reads at once.
pub const READ_BYTES: usize = 64 << 10;

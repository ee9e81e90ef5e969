//! The loop: the one place where time passes and bytes move.
//!
//! A turn:
//!
//! 1. Wait for the kernel, a worker or the next deadline; not at all if work is left.
//! 2. Take the time, once for the whole turn.
//! 3. Feed what arrived, each source up to a budget of work and of time: datagrams, new
//!    connections, bytes of connections.
//! 4. Feed finished transcodes and callbacks.
//! 5. Feed what is due: requests to stop, timers of this floor, the gateway's timeout.
//! 6. Drain the gateway's outputs: hand out jobs, note whom to write to and whom to close.
//! 7. Send datagrams; write each noted connection until the kernel refuses, and only then
//!    ask to be told when it takes more.
//! 8. Close what is to be closed.
//!
//! Steps 6 to 8 feed the gateway in turn (bytes written, jobs refused, connections
//! broken) or do a slice of its fan-out, so they are repeated until nothing moves or the
//! turn's time is up. A picture for a thousand players, or a storm of joins, is
//! so many turns, and whatever else arrives is looked at in each.
//!
//! The poll is edge-triggered: whoever leaves something in the kernel stands on a list
//! of this loop, and as long as a list is not empty step 1 does not wait.

mod arrivals;

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use log::{debug, error, info};
use mio::event::Event;
use mio::{Events, Interest, Poll, Token};

use super::Requests;
use super::callbacks::Callbacks;
use super::signals::Signals;
use super::tcp::{self, Connection, Listening, State, Throttle, WriteOutcome};
use super::token::{self, Slab};
use super::udp::Udp;
use super::workers::Workers;
use crate::gateway::{ConnId, Datagram, Gateway, Input, Output, WorldCounters};

/// Events taken from the kernel at once; what is beyond comes with the next turn.
const EVENTS_PER_TURN: usize = 1_024;

/// Bytes one read asks for: one buffer for all connections.
const READ_BYTES: usize = 64 * 1024;

/// Time for the datagrams of one turn. Most take a microsecond, but a handshake's signature or a
/// join's answer takes two hundred: a hundred of them are not to hold up what plays.
const DATAGRAMS_TIME: Duration = Duration::from_millis(2);

/// Time for bytes of connections in one turn, offers of WebRTC clients among them.
const READS_TIME: Duration = Duration::from_millis(2);

/// When a turn is old enough that steps 6 to 8 are not repeated: with the one slice that may
/// begin just before, a turn stays below ten milliseconds. What still moves goes on in the
/// next one.
const TURN_TIME: Duration = Duration::from_millis(4);

/// A gateway with its sockets.
pub(super) struct EventLoop {
    pub(super) poll: Poll,
    pub(super) gateway: Gateway,
    pub(super) udp: Udp,
    pub(super) listeners: Vec<Listening>,
    pub(super) workers: Workers,
    pub(super) callbacks: Option<Callbacks>,
    pub(super) requests: Arc<Requests>,
    pub(super) signals: Option<Signals>,
    pub(super) close_linger: Duration,
    connections: Slab<Connection>,
    timers: BTreeSet<(Instant, Timer)>,
    /// Connections with bytes that may wait in the kernel without an event to come.
    readable: VecDeque<ConnId>,
    /// Connections with something to be written and a kernel that may take it.
    to_write: VecDeque<ConnId>,
    to_close: Vec<ConnId>,
    datagrams: Vec<Datagram>,
    buffer: Box<[u8]>,
    /// Whether datagrams may wait in the kernel without an event to come.
    udp_ready: bool,
    /// Whether the gateway may have outputs that were not drained.
    is_unsettled: bool,
    /// Whether the gateway has drained: only last words are still being delivered.
    is_drained: bool,
    is_stopped: bool,
    out_of_files: Throttle,
    pub(super) connections_refused: u64,
    longest_turn: Duration,
}

/// A deadline of this floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// When to cut a connection that is being closed.
    Linger(u64),
    /// When to accept again on a listener that rested.
    Accept(usize),
}

/// What a loop is made of.
pub(super) struct Parts {
    pub(super) poll: Poll,
    pub(super) gateway: Gateway,
    pub(super) udp: Udp,
    pub(super) listeners: Vec<Listening>,
    pub(super) workers: Workers,
    pub(super) callbacks: Option<Callbacks>,
    pub(super) requests: Arc<Requests>,
    pub(super) close_linger: Duration,
}

impl EventLoop {
    /// Registers the sockets with the poll.
    pub(super) fn new(parts: Parts) -> io::Result<Self> {
        let mut event_loop = Self {
            poll: parts.poll,
            gateway: parts.gateway,
            udp: parts.udp,
            listeners: parts.listeners,
            workers: parts.workers,
            callbacks: parts.callbacks,
            requests: parts.requests,
            signals: None,
            close_linger: parts.close_linger,
            connections: Slab::new(),
            timers: BTreeSet::new(),
            readable: VecDeque::new(),
            to_write: VecDeque::new(),
            to_close: Vec::new(),
            datagrams: Vec::new(),
            buffer: vec![0; READ_BYTES].into(),
            udp_ready: false,
            is_unsettled: true,
            is_drained: false,
            is_stopped: false,
            out_of_files: Throttle::default(),
            connections_refused: 0,
            longest_turn: Duration::ZERO,
        };
        let registry = event_loop.poll.registry();
        let udp = event_loop.udp.source();
        registry.register(udp, token::UDP, Interest::READABLE)?;
        for (index, listener) in event_loop.listeners.iter_mut().enumerate() {
            let token = token::of_listener(index);
            registry.register(&mut listener.socket, token, Interest::READABLE)?;
        }
        Ok(event_loop)
    }

    /// Lets signals drain the gateway.
    pub(super) fn watch_signals(&mut self) -> io::Result<()> {
        let mut signals = Signals::install()?;
        let registry = self.poll.registry();
        registry.register(signals.source(), token::SIGNALS, Interest::READABLE)?;
        self.signals = Some(signals);
        Ok(())
    }

    /// Runs until the gateway has drained or is to stop.
    ///
    /// # Errors
    /// Only if the kernel cannot be waited for.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        while !self.is_stopped {
            // 1. Wait.
            let timeout = self.timeout();
            if let Err(error) = self.poll.poll(&mut events, timeout) {
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
                events.clear();
            }
            // 2. Take the time.
            let now = Instant::now();
            self.turn(now, &events);
            self.longest_turn = self.longest_turn.max(now.elapsed());
        }
        let udp = self.udp.counters();
        info!(
            "stopped, {} connections cut, {} datagrams in, {} out in {} calls, {} dropped, longest \
             turn {:.1} ms",
            self.connections.len(),
            udp.received,
            udp.sent,
            udp.send_calls,
            udp.dropped_full + udp.dropped_refused,
            self.longest_turn.as_secs_f64() * 1_000.0,
        );
        Ok(())
    }

    fn turn(&mut self, now: Instant, events: &Events) {
        self.gateway.set_world_counters(self.counters());
        self.gateway.set_unix_time(now, super::unix_time());
        // 3. Feed what arrived.
        for event in events {
            self.note(event);
        }
        self.receive_datagrams(now);
        self.accept(now);
        self.read(now);
        // 4. Feed finished transcodes.
        while let Some(completed) = self.workers.take() {
            self.gateway.handle_input(now, Input::Transcoded(completed));
        }
        while let Some(done) = self.callbacks.as_ref().and_then(Callbacks::take) {
            self.gateway.handle_input(now, Input::Callback(done));
        }
        // 5. Feed what is due.
        self.handle_requests(now);
        self.handle_timers(now);
        if self.gateway.next_timeout().is_some_and(|at| at <= now) {
            self.gateway.handle_input(now, Input::Timeout);
        }
        // 6. to 8.
        self.settle(now);
        // Each is delivered or cut in the linger time, and nobody new comes.
        self.is_stopped |= self.is_drained && !self.connections.iter().any(Connection::has_rest);
    }

    fn counters(&self) -> WorldCounters {
        let udp = self.udp.counters();
        WorldCounters {
            datagrams_dropped_full: udp.dropped_full,
            datagrams_dropped_refused: udp.dropped_refused,
            datagrams_received_bad: udp.received_too_long + udp.received_astray,
            datagram_send_calls: udp.send_calls,
            has_gso: self.udp.has_gso(),
            connections_refused: self.connections_refused,
            longest_turn_us: self.longest_turn.as_micros() as u64,
        }
    }

    /// How long step 1 may wait; None is for ever.
    fn timeout(&self) -> Option<Duration> {
        let work_is_left = self.is_unsettled
            || self.udp_ready
            || !self.readable.is_empty()
            || !self.to_write.is_empty()
            || self.listeners.iter().any(|listener| listener.ready);
        if work_is_left {
            return Some(Duration::ZERO);
        }
        let own = self.timers.first().map(|(at, _)| *at);
        let next = own.into_iter().chain(self.gateway.next_timeout()).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// Puts the source of an event on its list.
    fn note(&mut self, event: &Event) {
        match event.token() {
            // Results and requests are looked for in every turn.
            token::WAKER => {}
            token::SIGNALS => {
                if self.signals.as_mut().is_some_and(Signals::take) {
                    self.requests.drain.store(true, Ordering::Relaxed);
                }
            }
            token::UDP => self.udp_ready = true,
            token => {
                if let Some(index) = token::listener(token) {
                    self.note_listener(index);
                } else if let Some(id) = token::connection(token) {
                    self.note_connection(id, event);
                }
            }
        }
    }

    fn note_listener(&mut self, index: usize) {
        if let Some(listener) = self.listeners.get_mut(index) {
            listener.ready = true;
        }
    }

    fn note_connection(&mut self, id: ConnId, event: &Event) {
        // It may have gone since: the kernel hands events out in batches.
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            connection.has_fin |= event.is_read_closed() || event.is_error();
            if !connection.is_readable {
                connection.is_readable = true;
                self.readable.push_back(id);
            }
        }
        if event.is_writable() && connection.is_blocked {
            connection.is_blocked = false;
            self.write_later(id);
        }
    }

    // Step 5.

    fn handle_requests(&mut self, now: Instant) {
        if self.requests.stop.load(Ordering::Relaxed) {
            self.is_stopped = true;
        }
        if self.requests.drain.swap(false, Ordering::Relaxed) {
            info!("draining");
            self.gateway.handle_input(now, Input::Drain);
        }
    }

    fn handle_timers(&mut self, now: Instant) {
        while let Some(&(at, timer)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            match timer {
                Timer::Accept(index) => self.note_listener(index),
                Timer::Linger(id) => {
                    self.remove(ConnId(id));
                }
            }
        }
    }

    // Steps 6 to 8.

    fn settle(&mut self, now: Instant) {
        loop {
            let has_moved = self.drain_outputs(now);
            self.send_datagrams();
            let has_written = self.write(now);
            self.close(now);
            self.is_unsettled = has_moved || has_written;
            let moves = self.is_unsettled || self.gateway.has_slices();
            if !moves || now.elapsed() >= TURN_TIME {
                return;
            }
        }
    }

    /// Step 6. Answers whether there was anything.
    fn drain_outputs(&mut self, now: Instant) -> bool {
        let mut has_moved = false;
        while let Some(output) = self.gateway.poll_output(now) {
            has_moved = true;
            match output {
                Output::Transmit(id) => self.write_later(id),
                Output::Close(id) => self.to_close.push(id),
                Output::Transcode { worker, job } => {
                    if let Err(pipeline) = self.workers.submit(worker, job) {
                        let input = Input::TranscodeRefused(pipeline);
                        self.gateway.handle_input(now, input);
                    }
                }
                Output::Callback(request) => {
                    let callbacks = self.callbacks.as_ref();
                    if let Some(Err(done)) = callbacks.map(|all| all.submit(request)) {
                        self.gateway.handle_input(now, Input::Callback(done));
                    }
                }
                Output::Stopped => {
                    self.is_drained = true;
                    self.listeners.clear();
                }
            }
        }
        has_moved
    }

    /// Puts a connection on the list of step 7, unless it waits for the kernel.
    fn write_later(&mut self, id: ConnId) {
        if let Some(connection) = self.connections.get_mut(id)
            && !connection.is_blocked
            && !connection.is_to_be_written
        {
            connection.is_to_be_written = true;
            self.to_write.push_back(id);
        }
    }

    /// Step 7, first half.
    fn send_datagrams(&mut self) {
        self.gateway.take_datagrams(&mut self.datagrams);
        if !self.datagrams.is_empty() {
            self.udp.send(&self.datagrams);
            self.datagrams.clear();
        }
    }

    /// Step 7, second half. Answers whether the gateway was told anything.
    fn write(&mut self, now: Instant) -> bool {
        let mut has_fed = false;
        let begin = Instant::now();
        // Those that used up their budget are put back for the next turn.
        for count in 1..=self.to_write.len() {
            if let Some(id) = self.to_write.pop_front() {
                has_fed |= self.write_connection(now, id);
            }
            // The clock is not for nothing beside a small write.
            if count % 8 == 0 && begin.elapsed() >= tcp::WRITES_TIME {
                break;
            }
        }
        has_fed
    }

    fn write_connection(&mut self, now: Instant, id: ConnId) -> bool {
        let Some(connection) = self.connections.get_mut(id) else {
            return false;
        };
        connection.is_to_be_written = false;
        if !matches!(connection.state, State::Open) {
            self.move_on(id);
            return false;
        }
        let Some(queue) = self.gateway.transmit(id) else {
            return false;
        };
        let (taken, outcome) = connection.write(queue);
        match outcome {
            WriteOutcome::Empty => {}
            WriteOutcome::Budget => self.write_later(id),
            WriteOutcome::Blocked => self.ask_for_writable(id),
            WriteOutcome::Failed(kind) => {
                self.handle_failure(now, id, kind);
                return true;
            }
        }
        if taken > 0 {
            let input = Input::Transmitted { conn: id };
            self.gateway.handle_input(now, input);
        }
        taken > 0
    }

    /// Asks the poll to tell when `id` can be written. From then on it does so for good:
    /// the kernel tells only after it has refused bytes.
    fn ask_for_writable(&mut self, id: ConnId) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        if connection.has_write_interest {
            return;
        }
        connection.has_write_interest = true;
        let interest = Interest::READABLE | Interest::WRITABLE;
        let token: Token = token::of_connection(id);
        let registry = self.poll.registry();
        if let Err(error) = registry.reregister(&mut connection.stream, token, interest) {
            // Cannot be for a registered socket; the user timeout or a limit ends it.
            error!("cannot ask for writability: {error}");
        }
    }

    /// Step 8.
    fn close(&mut self, now: Instant) {
        while let Some(id) = self.to_close.pop() {
            self.begin_close(now, id);
            // What was queued has been taken over: the gateway is rid of it.
            let input = Input::Disconnected {
                conn: id,
                error: None,
            };
            self.gateway.handle_input(now, input);
        }
    }

    /// Takes over what the gateway has queued for an open connection and sees to it
    /// that it is delivered, within the linger time.
    fn begin_close(&mut self, now: Instant, id: ConnId) {
        let rest = self.gateway.transmit(id).map(std::mem::take);
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        if !matches!(connection.state, State::Open) {
            return;
        }
        let until = now + self.close_linger;
        connection.state = State::Closing {
            rest: rest.unwrap_or_default(),
            is_shut_down: false,
            until,
        };
        self.timers.insert((until, Timer::Linger(id.0)));
        if !connection.is_blocked {
            self.move_on(id);
        }
    }

    /// Moves a closing connection on as far as it goes now.
    fn move_on(&mut self, id: ConnId) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        let is_done = connection.write_rest();
        let is_shut_down = matches!(
            connection.state,
            State::Closing {
                is_shut_down: true,
                ..
            }
        );
        if is_done || (is_shut_down && connection.has_fin) {
            self.remove(id);
        } else if connection.is_blocked {
            self.ask_for_writable(id);
        } else if !is_shut_down {
            self.write_later(id);
        }
    }

    /// Forgets a connection; dropping its socket closes it.
    fn remove(&mut self, id: ConnId) -> Option<Connection> {
        let mut connection = self.connections.remove(id)?;
        if let State::Closing { until, .. } = &connection.state {
            self.timers.remove(&(*until, Timer::Linger(id.0)));
        }
        if let Some(listener) = self.listeners.get_mut(connection.listener) {
            listener.connections -= 1;
        }
        if let Err(error) = self.poll.registry().deregister(&mut connection.stream) {
            debug!("deregister: {error}");
        }
        Some(connection)
    }
}

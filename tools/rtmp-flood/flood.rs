//! [`Flood`]: all clients of a run on one loop of one thread.
//!
//! One turn: begin who is due; do what timers want; move datagrams that were kept back; tell
//! progress; wait for the sockets, and let each client that is ready read and write.
//!
//! ```text
//!  begin ──all up or failed──▶ settle ──▶ measure ──duration──▶ leave ──all gone──▶ report
//! ```

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Interest, Poll, Token};
use rtmp_gateway::rtmp::client::{Goal, RtmpUrl};

use crate::args::{Group, Plan, Role};
use crate::clip::{Clip, ClipOptions};
use crate::clock::{Clock, Random};
use crate::http::{HttpUrl, first_address, tcp_reason};
use crate::link::{Delayed, Link, Way};
use crate::process::Usage;
use crate::progress::Progress;
use crate::report::{GroupReport, Report, ServerReport};
use crate::rtmp::RtmpPeer;
use crate::scope::{Buffers, Scope};
use crate::tally::{Flow, Tally};
use crate::watch::Watch;
use crate::webrtc::{Crypto, RtcPeer};

/// A run.
pub struct Flood {
    plan: Plan,
    clip: Option<Clip>,
    crypto: Option<Crypto>,
    groups: Vec<Running>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    poll: Poll,
    clock: Clock,
    random: Random,
    link: Link,
    buffers: Buffers,
    addresses: HashMap<String, SocketAddr>,
    measured_from_us: u64,
}

/// A group and where it is.
struct Running {
    plan: Group,
    tally: Tally,
    next_start: Instant,
    next_churn: Option<Instant>,
    /// What had come when the measurement began.
    before: Flow,
}

#[derive(Default)]
struct Slot {
    /// Tells the events of a client from those of the one before at this place.
    generation: usize,
    client: Option<Box<Client>>,
}

struct Client {
    group: usize,
    number: u32,
    began: Instant,
    peer: Peer,
    watch: Watch,
    /// The earliest timer of this client.
    armed: Option<Instant>,
    is_leaving: bool,
}

enum Peer {
    Rtmp(Box<RtmpPeer>),
    Rtc(Box<RtcPeer>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Begin,
    Settle { until: Instant },
    Measure { until: Instant },
    Leave { until: Instant },
}

/// What the measurement began with.
struct Before {
    at: Instant,
    own: Usage,
    server: Option<Usage>,
}

/// What became of a client that something happened to.
enum Outcome {
    Stays,
    Gone,
}

impl Flood {
    /// Prepares a run.
    ///
    /// # Errors
    /// For people.
    pub fn new(plan: Plan) -> Result<Self, String> {
        let roles = |wanted: &[Role]| plan.groups.iter().any(|group| wanted.contains(&group.role));
        let options = ClipOptions {
            video_bps: plan.video_bps,
            opus: roles(&[Role::Whip]),
        };
        let clip = match (&plan.file, roles(&[Role::Publish, Role::Whip])) {
            (_, false) => None,
            (Some(file), true) => Some(Clip::load(file, &options)?),
            (None, true) => Some(Clip::built_in(&options)?),
        };
        let crypto = match roles(&[Role::Whip, Role::Whep]) {
            true => Some(Crypto::new()?),
            false => None,
        };
        let now = Instant::now();
        let groups = plan.groups.iter().map(|group| Running {
            plan: group.clone(),
            tally: Tally::default(),
            next_start: now + group.after,
            next_churn: None,
            before: Flow::default(),
        });
        let mut flood = Self {
            groups: groups.collect(),
            clip,
            crypto,
            slots: Vec::new(),
            free: Vec::new(),
            timers: BinaryHeap::new(),
            poll: Poll::new().map_err(|error| error.to_string())?,
            clock: Clock::new(now),
            // Two runs of one seed at the same server must not look like one publisher.
            random: Random(plan.seed ^ u64::from(std::process::id()) << 32),
            link: Link::new(plan.impairment, plan.seed),
            buffers: Buffers::new(),
            addresses: HashMap::new(),
            measured_from_us: u64::MAX,
            plan,
        };
        // Wrong addresses show before anything begins.
        for group in &flood.plan.groups.clone() {
            flood.address(group.role, &group.url_of(0))?;
        }
        Ok(flood)
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// If the machine does not let us; what servers do is in the report.
    pub fn run(mut self) -> Result<Report, String> {
        let told = |error: io::Error| error.to_string();
        let pid = self.plan.pid;
        let server_usage = || {
            let usage =
                pid.map(|pid| Usage::of(Some(pid)).map_err(|e| format!("--pid {pid}: {e}")));
            usage.transpose()
        };
        let idle = server_usage()?;
        let mut events = Events::with_capacity(1_024);
        let mut progress = Progress::new(&self.plan, Instant::now());
        let mut phase = Phase::Begin;
        let mut before: Option<Before> = None;
        let mut report = None;
        loop {
            let now = Instant::now();
            self.start_due(now, phase);
            self.run_timers(now);
            self.move_delayed(now);
            if progress.is_due(now) {
                self.end_overdue(now);
                let (rtc_lost, groups) = (self.link.lost, &mut self.groups);
                let tallies = groups
                    .iter_mut()
                    .map(|group| (group.plan.role, &mut group.tally));
                progress.tell(now, tallies, rtc_lost, server_usage().ok().flatten());
            }
            phase = match phase {
                Phase::Begin if self.has_begun(now) => Phase::Settle {
                    until: now + self.plan.settle,
                },
                Phase::Settle { until } if now >= until => {
                    self.begin_measurement(now);
                    before = Some(Before {
                        at: now,
                        own: Usage::of(None).map_err(told)?,
                        server: server_usage()?,
                    });
                    Phase::Measure {
                        until: now + self.plan.duration,
                    }
                }
                Phase::Measure { until } if now >= until => {
                    let before = before.take().expect("a measurement begins before it ends");
                    report = Some(self.report(now, &before, idle, server_usage()?));
                    self.leave_all(now);
                    Phase::Leave {
                        until: now + LEAVE_TIME,
                    }
                }
                Phase::Leave { until } if now >= until || self.is_empty() => {
                    return Ok(report.expect("a measurement ends before all leave"));
                }
                other => other,
            };
            let wait = self.next_due(now, phase).min(progress.next());
            let wait = wait.saturating_duration_since(Instant::now());
            match self.poll.poll(&mut events, Some(wait)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.to_string()),
            }
            for event in &events {
                self.on_event(event);
            }
        }
    }

    /// Begins clients whose time has come.
    fn start_due(&mut self, now: Instant, phase: Phase) {
        for index in 0..self.groups.len() {
            for _ in 0..STARTS_PER_TURN {
                let group = &mut self.groups[index];
                let has_all = group.tally.started >= u64::from(group.plan.count);
                if has_all || group.next_start > now {
                    break;
                }
                let number = group.tally.started as u32;
                group.next_start += Duration::from_secs_f64(1.0 / group.plan.ramp_per_second);
                self.start(index, number, now);
            }
            self.churn(index, now, phase);
        }
    }

    /// Lets clients leave and others come in their place.
    fn churn(&mut self, index: usize, now: Instant, phase: Phase) {
        let group = &mut self.groups[index];
        if group.plan.churn_per_second <= 0.0 || !matches!(phase, Phase::Measure { .. }) {
            return;
        }
        let step = Duration::from_secs_f64(1.0 / group.plan.churn_per_second);
        let due = *group.next_churn.get_or_insert(now + step);
        if due > now {
            return;
        }
        group.next_churn = Some(due + step);
        let is_up = |slot: &Slot| {
            (slot.client.as_ref())
                .is_some_and(|c| c.group == index && !c.is_leaving && c.watch.is_ready())
        };
        let up: Vec<usize> = (0..self.slots.len())
            .filter(|&slot| is_up(&self.slots[slot]))
            .collect();
        if up.is_empty() {
            return;
        }
        let chosen = up[self.random.below(up.len())];
        let number = self.slots[chosen].client.as_ref().map_or(0, |c| c.number);
        self.leave(chosen, now);
        self.start(index, number, now);
    }

    fn start(&mut self, group: usize, number: u32, now: Instant) {
        self.groups[group].tally.started += 1;
        if let Err(reason) = self.try_start(group, number, now) {
            *self.groups[group].tally.failed.entry(reason).or_default() += 1;
        }
    }

    fn try_start(&mut self, group: usize, number: u32, now: Instant) -> Result<(), String> {
        let Group { role, .. } = self.groups[group].plan;
        let url = self.groups[group].plan.url_of(number);
        let address = self.address(role, &url)?;
        let io_reason = |error: io::Error| tcp_reason(error.kind());
        let mut peer = match role {
            Role::Publish | Role::Play => {
                let goal = match role.sends() {
                    true => Goal::Publish,
                    false => Goal::Play,
                };
                let url = RtmpUrl::parse(&url).map_err(|error| error.to_string())?;
                let seed = self.random.next();
                Peer::Rtmp(Box::new(
                    RtmpPeer::new(address, url, goal, seed).map_err(io_reason)?,
                ))
            }
            Role::Whip | Role::Whep => {
                let crypto = self.crypto.as_ref().expect("made for such roles");
                let url = HttpUrl::parse(&url)?;
                Peer::Rtc(Box::new(RtcPeer::new(
                    address,
                    url,
                    role.sends(),
                    crypto,
                    now,
                )?))
            }
        };
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        let (tcp, udp) = (self.token(index, TCP), self.token(index, UDP));
        let registry = self.poll.registry();
        let both = Interest::READABLE | Interest::WRITABLE;
        let registered = match &mut peer {
            Peer::Rtmp(peer) => registry.register(&mut peer.stream, tcp, both),
            Peer::Rtc(peer) => registry
                .register(&mut peer.udp, udp, Interest::READABLE)
                .and_then(|()| match &mut peer.http {
                    Some(http) => registry.register(&mut http.stream, tcp, both),
                    None => Ok(()),
                }),
        };
        if let Err(error) = registered {
            self.free.push(index);
            return Err(io_reason(error));
        }
        let mut watch = Watch::default();
        watch.begin(now);
        self.slots[index].client = Some(Box::new(Client {
            group,
            number,
            began: now,
            peer,
            watch,
            armed: None,
            is_leaving: false,
        }));
        Ok(())
    }

    /// The server of an address, looked up once.
    fn address(&mut self, role: Role, url: &str) -> Result<SocketAddr, String> {
        let authority = match role {
            Role::Publish | Role::Play => {
                let url = RtmpUrl::parse(url).map_err(|error| format!("{url}: {error}"))?;
                match url.host().contains(':') {
                    true => format!("[{}]:{}", url.host(), url.port()),
                    false => format!("{}:{}", url.host(), url.port()),
                }
            }
            Role::Whip | Role::Whep => HttpUrl::parse(url)?.authority,
        };
        if let Some(address) = self.addresses.get(&authority) {
            return Ok(*address);
        }
        let address = match role {
            Role::Publish | Role::Play => first_address(&authority)?,
            Role::Whip | Role::Whep => HttpUrl::parse(url)?.resolve()?,
        };
        self.addresses.insert(authority, address);
        Ok(address)
    }

    fn token(&self, index: usize, socket: usize) -> Token {
        Token(self.slots[index].generation << GENERATION_SHIFT | index << 1 | socket)
    }

    /// The slot that a token names, if it is still the same client's.
    fn slot(&self, token: Token) -> Option<usize> {
        let index = (token.0 & ((1 << GENERATION_SHIFT) - 1)) >> 1;
        let slot = self.slots.get(index)?;
        (slot.generation == token.0 >> GENERATION_SHIFT && slot.client.is_some()).then_some(index)
    }

    /// Lets something happen to a client, then does what follows from it.
    fn with(
        &mut self,
        index: usize,
        now: Instant,
        act: impl FnOnce(&mut Client, &mut Scope<'_>) -> Result<Outcome, String>,
    ) {
        let Some(mut client) = self.slots[index].client.take() else {
            return;
        };
        let token = self.token(index, UDP);
        let mut scope = Scope {
            now,
            clock: self.clock,
            measured_from_us: self.measured_from_us,
            clip: self.clip.as_ref(),
            tally: &mut self.groups[client.group].tally,
            random: &mut self.random,
            buffers: &mut self.buffers,
            link: &mut self.link,
            token,
        };
        let outcome = act(&mut client, &mut scope);
        match outcome {
            Ok(Outcome::Stays) => {
                let due = match &client.peer {
                    Peer::Rtmp(peer) => peer.next_due(&scope),
                    Peer::Rtc(peer) => peer.next_due(&scope),
                };
                if let Some(due) = due
                    && client.armed.is_none_or(|armed| due < armed)
                {
                    client.armed = Some(due);
                    self.timers.push(Reverse((due, token.0)));
                }
                self.slots[index].client = Some(client);
            }
            Ok(Outcome::Gone) => self.remove(index),
            Err(reason) => {
                let tally = &mut self.groups[client.group].tally;
                if !client.is_leaving {
                    let counts = match client.watch.is_ready() {
                        true => &mut tally.dropped,
                        false => &mut tally.failed,
                    };
                    *counts.entry(reason).or_default() += 1;
                    client.watch.end(tally);
                }
                self.remove(index);
            }
        }
    }

    /// The client at this place is gone; its sockets are closed with it.
    fn remove(&mut self, index: usize) {
        self.slots[index].client = None;
        self.slots[index].generation += 1;
        self.free.push(index);
    }

    fn on_event(&mut self, event: &Event) {
        let token = event.token();
        let Some(index) = self.slot(token) else {
            return;
        };
        let is_tcp = token.0 & 1 == TCP;
        // Of the event alone: time is read again with each read.
        let now = Instant::now();
        self.with(index, now, |client, scope| {
            let Client {
                peer,
                watch,
                is_leaving,
                ..
            } = client;
            match peer {
                Peer::Rtmp(peer) => {
                    if event.is_writable() {
                        peer.on_writable(scope)?;
                    }
                    if event.is_readable() {
                        let to_end = event.is_read_closed() || event.is_error();
                        peer.on_readable(to_end, watch, scope)?;
                    }
                }
                Peer::Rtc(peer) if is_tcp => {
                    if peer.on_http(watch, scope)? {
                        peer.http = None;
                        if *is_leaving {
                            return Ok(Outcome::Gone);
                        }
                    }
                }
                Peer::Rtc(peer) => peer.on_datagrams(watch, scope)?,
            }
            Ok(Outcome::Stays)
        });
    }

    fn run_timers(&mut self, now: Instant) {
        while let Some(&Reverse((due, token))) = self.timers.peek()
            && due <= now
        {
            self.timers.pop();
            let Some(index) = self.slot(Token(token)) else {
                continue;
            };
            self.with(index, Instant::now(), |client, scope| {
                // An earlier one of the same client did this one's work.
                if client.armed.is_some_and(|armed| armed <= due) {
                    client.armed = None;
                    match &mut client.peer {
                        Peer::Rtmp(peer) => peer.on_due(scope)?,
                        Peer::Rtc(peer) => peer.on_due(&mut client.watch, scope)?,
                    }
                }
                Ok(Outcome::Stays)
            });
        }
    }

    fn move_delayed(&mut self, now: Instant) {
        while let Some(Delayed {
            token, way, bytes, ..
        }) = self.link.take(now)
        {
            let Some(index) = self.slot(token) else {
                continue;
            };
            self.with(index, Instant::now(), |client, scope| {
                if let Peer::Rtc(peer) = &mut client.peer {
                    match way {
                        Way::In => peer.receive(&bytes, &mut client.watch, scope)?,
                        Way::Out => peer.send(&bytes),
                    }
                }
                Ok(Outcome::Stays)
            });
        }
    }

    /// Ends clients that take too long.
    fn end_overdue(&mut self, now: Instant) {
        let patience = self.plan.connect_timeout + self.link.round_trip_max();
        for index in 0..self.slots.len() {
            let is_overdue = self.slots[index].client.as_ref().is_some_and(|client| {
                !client.watch.is_ready() && !client.is_leaving && now > client.began + patience
            });
            if is_overdue {
                self.with(index, now, |_, _| Err("timeout".into()));
            }
        }
    }

    /// Whether all clients that are waited for are up or failed.
    fn has_begun(&self, now: Instant) -> bool {
        let all_started = (self.groups.iter())
            .filter(|group| !group.plan.late)
            .all(|group| group.tally.started >= u64::from(group.plan.count));
        let waits = |client: &Client| {
            !client.watch.is_ready()
                && !self.groups[client.group].plan.late
                && now < client.began + self.plan.connect_timeout
        };
        all_started
            && !self
                .slots
                .iter()
                .filter_map(|slot| slot.client.as_deref())
                .any(waits)
    }

    fn is_empty(&self) -> bool {
        self.slots.iter().all(|slot| slot.client.is_none())
    }

    fn begin_measurement(&mut self, now: Instant) {
        self.measured_from_us = self.clock.us(now);
        for group in &mut self.groups {
            group.before = group.tally.flow;
        }
    }

    fn report(
        &mut self,
        now: Instant,
        before: &Before,
        idle: Option<Usage>,
        server: Option<Usage>,
    ) -> Report {
        let window = now - before.at;
        let share = |from: Usage, to: Usage| {
            to.cpu.saturating_sub(from.cpu).as_secs_f64() / window.as_secs_f64()
        };
        let own = Usage::of(None).unwrap_or(before.own);
        let server = before.server.zip(server).map(|(from, to)| ServerReport {
            cpu: share(from, to),
            rss_bytes: to.rss_bytes,
            rss_idle_bytes: idle.unwrap_or(to).rss_bytes,
        });
        // Who waits for a picture now is counted now.
        for slot in &mut self.slots {
            if let Some(client) = &mut slot.client
                && !self.groups[client.group].plan.role.sends()
            {
                client
                    .watch
                    .judge(now, &mut self.groups[client.group].tally);
            }
        }
        let groups = self.groups.iter().map(|group| GroupReport {
            role: group.plan.role,
            url: group.plan.url.clone(),
            count: group.plan.count,
            flow: group.tally.flow.since(&group.before),
            tally: group.tally.clone(),
        });
        Report {
            window,
            groups: groups.collect(),
            own_cpu: share(before.own, own),
            own_rss_bytes: own.rss_bytes,
            server,
            datagrams_lost: self.link.lost,
            clip: self
                .clip
                .as_ref()
                .map(|clip| (clip.video_bps(), clip.frames_per_second())),
        }
    }

    fn leave_all(&mut self, now: Instant) {
        for index in 0..self.slots.len() {
            self.leave(index, now);
        }
    }

    fn leave(&mut self, index: usize, now: Instant) {
        let tcp = self.token(index, TCP);
        let group = self.slots[index].client.as_ref().map(|client| client.group);
        let is_sender = group.is_some_and(|group| self.groups[group].plan.role.sends());
        let Ok(registry) = self.poll.registry().try_clone() else {
            return;
        };
        self.with(index, now, |client, scope| {
            if client.is_leaving {
                return Ok(Outcome::Stays);
            }
            client.is_leaving = true;
            if !is_sender {
                client.watch.judge(scope.now, scope.tally);
            }
            client.watch.end(scope.tally);
            scope.tally.left += 1;
            match &mut client.peer {
                Peer::Rtmp(peer) => {
                    peer.leave(scope);
                    Ok(Outcome::Gone)
                }
                Peer::Rtc(peer) => {
                    let is_asked = peer.leave();
                    let Some(http) = peer.http.as_mut().filter(|_| is_asked) else {
                        return Ok(Outcome::Gone);
                    };
                    let both = Interest::READABLE | Interest::WRITABLE;
                    match registry.register(&mut http.stream, tcp, both) {
                        Ok(()) => Ok(Outcome::Stays),
                        Err(_) => Ok(Outcome::Gone),
                    }
                }
            }
        });
    }

    /// When there is something to do, if no socket is ready before.
    fn next_due(&self, now: Instant, phase: Phase) -> Instant {
        let phase_end = match phase {
            // Looked at again soon: what it waits for are the clients.
            Phase::Begin => now + BEGIN_STEP,
            Phase::Leave { until } => until.min(now + BEGIN_STEP),
            Phase::Settle { until } | Phase::Measure { until } => until,
        };
        let starts = self.groups.iter().filter_map(|group| {
            let has_all = group.tally.started >= u64::from(group.plan.count);
            match has_all {
                true => group.next_churn,
                false => Some(group.next_start),
            }
        });
        let timer = self.timers.peek().map(|Reverse((due, _))| *due);
        let others = starts.chain(timer).chain(self.link.next_due());
        others.min().map_or(phase_end, |due| due.min(phase_end))
    }
}

/// Sockets of a client, as they stand in the lowest bit of a token.
const TCP: usize = 0;
const UDP: usize = 1;
const GENERATION_SHIFT: u32 = 32;

/// Clients of a group that begin in one turn: those who are up must not wait for more.
const STARTS_PER_TURN: u32 = 32;

/// How often it is looked whether all have begun, or all are gone.
const BEGIN_STEP: Duration = Duration::from_millis(50);

/// How long servers may take to answer who leaves.
const LEAVE_TIME: Duration = Duration::from_secs(3);

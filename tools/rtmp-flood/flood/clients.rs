//! The clients of a run: how each begins, what happens to it, how it ends.
//!
//! A client is taken out of its slot while something happens to it, so that it may be
//! lent everything else of the run, and put back if it stays.

use std::cmp::Reverse;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Interest, Token};
use rtmp_gateway::rtmp::client::{Goal, RtmpUrl};

use super::{Flood, Phase, Running};
use crate::args::{Group, Role};
use crate::http::{HttpUrl, first_address, tcp_reason};
use crate::link::{Delayed, Way};
use crate::rtmp::RtmpPeer;
use crate::scope::Scope;
use crate::watch::Watch;
use crate::webrtc::RtcPeer;

/// A place for a client.
#[derive(Default)]
pub(super) struct Slot {
    /// Tells the events of a client from those of the one before at this place.
    generation: usize,
    pub(super) client: Option<Box<Client>>,
}

/// One publisher or player.
pub(super) struct Client {
    pub(super) group: usize,
    number: u32,
    pub(super) began: Instant,
    /// Index of what it publishes.
    clip: Option<usize>,
    peer: Peer,
    pub(super) watch: Watch,
    /// The earliest timer of this client.
    armed: Option<Instant>,
    is_leaving: bool,
}

enum Peer {
    Rtmp(Box<RtmpPeer>),
    Rtc(Box<RtcPeer>),
}

/// What became of a client that something happened to.
enum Outcome {
    Stays,
    Gone,
}

impl Flood {
    /// Begins clients whose time has come.
    pub(super) fn start_due(&mut self, now: Instant, phase: Phase) {
        for index in 0..self.groups.len() {
            for _ in 0..STARTS_PER_TURN {
                let group = &self.groups[index];
                let has_all = group.tally.started >= u64::from(group.plan.count);
                if has_all || group.next_start > now || !self.may_start(group) {
                    break;
                }
                let number = group.tally.started as u32;
                let group = &mut self.groups[index];
                group.next_start += Duration::from_secs_f64(1.0 / group.plan.ramp_per_second);
                self.start(index, number, now);
            }
            self.churn(index, now, phase);
        }
    }

    /// Players without a time of their own wait for the publishers of the run.
    pub(super) fn may_start(&self, group: &Running) -> bool {
        self.has_publishers || group.plan.role.sends() || group.plan.late
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
        let rate = self.groups[group].plan.bit_rate_of(number);
        let clip = (self.clips.iter())
            .position(|(other, _)| *other == rate)
            .filter(|_| role.sends());
        let mut watch = Watch::default();
        watch.begin(now);
        self.slots[index].client = Some(Box::new(Client {
            group,
            number,
            began: now,
            clip,
            peer,
            watch,
            armed: None,
            is_leaving: false,
        }));
        Ok(())
    }

    /// The server of an address, looked up once.
    pub(super) fn address(&mut self, role: Role, url: &str) -> Result<SocketAddr, String> {
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
            measured_from_us: (self.measured_from).map_or(u64::MAX, |from| self.clock.us(from)),
            clip: (client.clip.and_then(|index| self.clips.get(index))).map(|(_, clip)| clip),
            published: &mut self.published,
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

    pub(super) fn on_event(&mut self, event: &Event) {
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

    pub(super) fn run_timers(&mut self, now: Instant) {
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

    pub(super) fn move_delayed(&mut self, now: Instant) {
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
    pub(super) fn end_overdue(&mut self, now: Instant) {
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

    pub(super) fn leave_all(&mut self, now: Instant) {
        for index in 0..self.slots.len() {
            self.leave(index, now);
        }
    }

    /// Counts what a player still waits for.
    pub(super) fn judge(&mut self, index: usize, now: Instant) {
        let Some(client) = &mut self.slots[index].client else {
            return;
        };
        let group = &mut self.groups[client.group];
        if !group.plan.role.sends() && !client.is_leaving {
            let per_second = self
                .clips
                .first()
                .map_or(0.0, |(_, clip)| clip.frames_per_second());
            let from = self.measured_from.unwrap_or(now);
            client.watch.judge(now, from, per_second, &mut group.tally);
        }
    }

    fn leave(&mut self, index: usize, now: Instant) {
        let tcp = self.token(index, TCP);
        self.judge(index, now);
        let Ok(registry) = self.poll.registry().try_clone() else {
            return;
        };
        self.with(index, now, |client, scope| {
            if client.is_leaving {
                return Ok(Outcome::Stays);
            }
            client.is_leaving = true;
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
}

/// Sockets of a client, as they stand in the lowest bit of a token.
const TCP: usize = 0;
const UDP: usize = 1;
const GENERATION_SHIFT: u32 = 32;

/// Clients of a group that begin in one turn: those who are up must not wait for more.
const STARTS_PER_TURN: u32 = 32;

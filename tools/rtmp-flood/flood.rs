//! [`Flood`]: all clients of a run on one loop of one thread.
//!
//! One turn: begin who is due; do what timers want; move datagrams that were kept back; tell
//! progress; wait for the sockets, and let each client that is ready read and write.
//!
//! ```text
//!  begin ──all up or failed──▶ settle ──▶ measure ──duration──▶ leave ──all gone──▶ report
//! ```
//!
//! `clients` has what happens to one of them.

mod clients;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Events, Poll};

use crate::args::{Group, Plan, Role};
use crate::clip::{Clip, ClipOptions};
use crate::clock::{Clock, Random};
use crate::link::Link;
use crate::process::Usage;
use crate::progress::Progress;
use crate::report::{GroupReport, Report, ServerReport};
use crate::scope::Buffers;
use crate::tally::{Flow, Tally};
use crate::webrtc::Crypto;

use clients::Slot;

/// A run.
pub struct Flood {
    plan: Plan,
    /// What is published, at each bit rate that was asked for.
    clips: Vec<(Option<u64>, Clip)>,
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
    published: HashMap<u32, Instant>,
    /// When the measurement began.
    measured_from: Option<Instant>,
    /// Whether players may begin: those who publish for them are up, or failed.
    has_publishers: bool,
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

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Whether all have begun is looked at then.
    Begin {
        look: Instant,
    },
    Settle {
        until: Instant,
    },
    Measure {
        until: Instant,
    },
    Leave {
        until: Instant,
    },
}

/// What the measurement began with.
struct Before {
    at: Instant,
    own: Usage,
    server: Option<Usage>,
}

impl Flood {
    /// Prepares a run.
    ///
    /// # Errors
    /// For people.
    pub fn new(plan: Plan) -> Result<Self, String> {
        let roles = |wanted: &[Role]| plan.groups.iter().any(|group| wanted.contains(&group.role));
        let mut clips: Vec<(Option<u64>, Clip)> = Vec::new();
        for group in plan.groups.iter().filter(|group| group.role.sends()) {
            // One for each rate of the list, or the one for none.
            for number in 0..group.bit_rates.len().max(1) as u32 {
                let rate = group.bit_rate_of(number);
                if clips.iter().any(|(other, _)| *other == rate) {
                    continue;
                }
                let options = ClipOptions {
                    video_bps: rate,
                    opus: roles(&[Role::Whip]),
                };
                let clip = match &plan.file {
                    Some(file) => Clip::load(file, &options)?,
                    None => Clip::built_in(&options)?,
                };
                clips.push((rate, clip));
            }
        }
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
            clips,
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
            published: HashMap::new(),
            measured_from: None,
            has_publishers: false,
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
        let mut phase = Phase::Begin {
            look: Instant::now(),
        };
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
                Phase::Begin { look } if now >= look => match self.has_begun(now) {
                    true => Phase::Settle {
                        until: now + self.plan.settle,
                    },
                    false => Phase::Begin {
                        look: now + BEGIN_STEP,
                    },
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

    /// Whether all clients that are waited for are up or failed.
    fn has_begun(&mut self, now: Instant) -> bool {
        if !self.has_publishers && self.are_up(now, |group| group.role.sends()) {
            self.has_publishers = true;
            let players = (self.groups.iter_mut()).filter(|group| !group.plan.role.sends());
            players.for_each(|group| group.next_start = group.next_start.max(now));
        }
        self.has_publishers && self.are_up(now, |_| true)
    }

    /// Whether all clients of these groups are up or failed, but for late ones.
    fn are_up(&self, now: Instant, of: impl Fn(&Group) -> bool) -> bool {
        let counts = |group: &Group| !group.late && of(group);
        let all_started = (self.groups.iter())
            .filter(|group| counts(&group.plan))
            .all(|group| group.tally.started >= u64::from(group.plan.count));
        let waits = |client: &clients::Client| {
            !client.watch.is_ready()
                && counts(&self.groups[client.group].plan)
                && now < client.began + self.plan.connect_timeout
        };
        all_started
            && !self
                .slots
                .iter()
                .filter_map(|slot| slot.client.as_deref())
                .any(waits)
    }

    /// Whether all clients are gone.
    fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    fn begin_measurement(&mut self, now: Instant) {
        self.measured_from = Some(now);
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
        for index in 0..self.slots.len() {
            self.judge(index, now);
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
            sources: (self.clips.iter())
                .map(|(_, clip)| (clip.video_bps(), clip.frames_per_second()))
                .collect(),
        }
    }

    /// When there is something to do, if no socket is ready before.
    fn next_due(&self, now: Instant, phase: Phase) -> Instant {
        let phase_end = match phase {
            Phase::Begin { look } => look,
            Phase::Leave { until } => until.min(now + BEGIN_STEP),
            Phase::Settle { until } | Phase::Measure { until } => until,
        };
        let starts = self.groups.iter().filter_map(|group| {
            let has_all = group.tally.started >= u64::from(group.plan.count);
            match has_all {
                true => group.next_churn,
                false if !self.may_start(group) => None,
                false => Some(group.next_start),
            }
        });
        let timer = self.timers.peek().map(|Reverse((due, _))| *due);
        let others = starts.chain(timer).chain(self.link.next_due());
        others.min().map_or(phase_end, |due| due.min(phase_end))
    }
}

/// How often it is looked whether all have begun, or all are gone.
const BEGIN_STEP: Duration = Duration::from_millis(50);

/// How long servers may take to answer who leaves.
const LEAVE_TIME: Duration = Duration::from_secs(3);

//! [`Progress`]: one line each second while a run goes on.

use std::time::{Duration, Instant};

use crate::args::{Plan, Role};
use crate::process::Usage;
use crate::tally::{Flow, Tally};

/// Tells how a run goes, on standard error.
pub struct Progress {
    is_quiet: bool,
    start: Instant,
    last: Instant,
    before: Vec<Flow>,
    server_before: Option<Usage>,
}

impl Progress {
    /// The first line is due in a second.
    pub fn new(plan: &Plan, now: Instant) -> Self {
        Self {
            is_quiet: plan.quiet,
            start: now,
            last: now,
            before: vec![Flow::default(); plan.groups.len()],
            server_before: None,
        }
    }

    /// Whether a line is due.
    pub fn is_due(&self, now: Instant) -> bool {
        now >= self.next()
    }

    /// When the next line is due.
    pub fn next(&self) -> Instant {
        self.last + STEP
    }

    /// Writes a line and begins the next second.
    pub fn tell<'a>(
        &mut self,
        now: Instant,
        groups: impl Iterator<Item = (Role, &'a mut Tally)>,
        datagrams_lost: u64,
        server: Option<Usage>,
    ) {
        let seconds = (now - self.last).as_secs_f64();
        let mut line = format!("{:>4.0} s", (now - self.start).as_secs_f64());
        for ((role, tally), before) in groups.zip(&mut self.before) {
            let flow = tally.flow.since(before);
            *before = tally.flow;
            line += &format!(" | {role} {} up", tally.up);
            let failures = tally.failures();
            if failures > 0 {
                line += &format!(" {failures} failed");
            }
            line += &format!(
                " {:.0} fps {:.1} Mbit/s",
                flow.pictures as f64 / seconds,
                flow.bytes as f64 * 8e-6 / seconds
            );
            let latency = &mut tally.latency_now;
            if let (Some(p50), Some(p99)) = (latency.quantile(0.5), latency.quantile(0.99)) {
                line += &format!(" p50 {} p99 {} ms", millis(p50), millis(p99));
            }
            latency.clear();
        }
        if datagrams_lost > 0 {
            line += &format!(" | lost {datagrams_lost}");
        }
        if let (Some(from), Some(to)) = (self.server_before, server) {
            let cpu = to.cpu.saturating_sub(from.cpu).as_secs_f64() / seconds;
            line += &format!(
                " | server {:.0} % {:.0} MB",
                cpu * 100.0,
                to.rss_bytes as f64 / 1e6
            );
        }
        self.server_before = server;
        self.last = now;
        if !self.is_quiet {
            eprintln!("{line}");
        }
    }
}

/// A time in ms, with as many digits as matter.
pub fn millis(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    match ms {
        ..10.0 => format!("{ms:.2}"),
        ..100.0 => format!("{ms:.1}"),
        _ => format!("{ms:.0}"),
    }
}

const STEP: Duration = Duration::from_secs(1);

//! [`Report`]: how the calls went.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::conversation::{Call, Outcome, State};
use super::options::Options;
use crate::histogram::Histogram;
use crate::process::Usage;

/// What all calls came to.
pub struct Report {
    calls: usize,
    failed: BTreeMap<String, u64>,
    /// Calls without picture or sound on a side.
    incomplete: u64,
    setup: Histogram,
    /// To the mini-program's picture and sound, to the browser's.
    firsts: [(&'static str, Histogram); 4],
    sum: Outcome,
    /// CPU as a share of one core, and memory, over the time that all calls stood.
    server: Option<(f64, u64)>,
    window: Duration,
}

impl Report {
    /// Adds the calls up.
    pub fn new(
        calls: Vec<Call>,
        measured: Option<(Duration, Option<Usage>, Option<Usage>)>,
    ) -> Self {
        let mut report = Self {
            calls: calls.len(),
            failed: BTreeMap::new(),
            incomplete: 0,
            setup: Histogram::default(),
            firsts: [
                "phone_picture",
                "phone_sound",
                "browser_picture",
                "browser_sound",
            ]
            .map(|name| (name, Histogram::default())),
            sum: Outcome::default(),
            server: None,
            window: measured.map_or(Duration::ZERO, |(window, ..)| window),
        };
        if let Some((window, Some(from), Some(to))) = measured {
            let cpu = to.cpu.saturating_sub(from.cpu).as_secs_f64() / window.as_secs_f64();
            report.server = Some((cpu, to.rss_bytes));
        }
        for call in calls {
            if let State::Over(Some(reason)) = &call.state {
                *report.failed.entry(reason.clone()).or_default() += 1;
            }
            report.add(call.outcome.unwrap_or_default());
        }
        report
    }

    fn add(&mut self, outcome: Outcome) {
        match outcome.setup {
            Some(setup) => self.setup.record(setup),
            None => self.incomplete += 1,
        }
        let firsts = outcome.phone.into_iter().chain(outcome.browser);
        for ((_, histogram), first) in self.firsts.iter_mut().zip(firsts) {
            if let Some(first) = first {
                histogram.record(first);
            }
        }
        for index in 0..2 {
            self.sum.phone_got[index] += outcome.phone_got[index];
            self.sum.browser_got[index] += outcome.browser_got[index];
        }
        self.sum.stutters += outcome.stutters;
        self.sum.undecodable += outcome.undecodable;
        self.sum.sounds_late += outcome.sounds_late;
        self.sum.sounds_missing += outcome.sounds_missing;
    }

    /// What is not as it should be.
    fn complaints(&self, options: &Options) -> Vec<String> {
        let mut complaints: Vec<String> = self
            .failed
            .iter()
            .map(|(reason, count)| format!("{count} calls failed: {reason}"))
            .collect();
        let sum = &self.sum;
        for (count, what) in [
            (
                self.incomplete,
                "calls without picture and sound on both sides",
            ),
            (
                sum.undecodable,
                "pictures that a mini-program could not decode",
            ),
            (
                sum.stutters,
                "pictures or sounds that came too late to a mini-program",
            ),
            (sum.sounds_late, "sounds that came too late to a browser"),
            (sum.sounds_missing, "sounds that never came to a browser"),
        ] {
            if count > 0 {
                complaints.push(format!("{count} {what}"));
            }
        }
        if let (Some(bound), Some(p99)) = (options.max_setup_p99, self.setup.quantile(0.99))
            && p99 > bound
        {
            complaints.push(format!(
                "set-up p99 {} above {}",
                millis(p99),
                millis(bound)
            ));
        }
        complaints
    }

    /// Tells it to people and, if wanted, programs.
    pub fn tell(&self, options: &Options) -> ExitCode {
        let complaints = self.complaints(options);
        let json = format!("{:#}\n", self.json(&complaints));
        match options.json.as_deref() {
            Some("-") => print!("{json}"),
            Some(file) => {
                if let Err(error) = std::fs::write(file, json) {
                    eprintln!("rtmp-flood call: {file}: {error}");
                    return ExitCode::FAILURE;
                }
                self.print();
            }
            None => self.print(),
        }
        for complaint in &complaints {
            eprintln!("not clean: {complaint}");
        }
        match complaints.is_empty() {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        }
    }

    fn print(&self) {
        let row = |name: &str, histogram: &Histogram| {
            let at = |part| histogram.quantile(part).map_or("-".to_owned(), millis);
            let max = histogram.max().map_or("-".to_owned(), millis);
            println!(
                "{name:<18} p50 {:>9}  p95 {:>9}  p99 {:>9}  max {max:>9}",
                at(0.5),
                at(0.95),
                at(0.99)
            );
        };
        println!(
            "{} calls, all up for {:.1} s",
            self.calls,
            self.window.as_secs_f64()
        );
        row("set-up", &self.setup);
        for (name, histogram) in &self.firsts {
            row(&name.replace('_', " "), histogram);
        }
        let sum = &self.sum;
        println!(
            "mini-programs got {} pictures and {} sounds, {} late, {} not decodable",
            sum.phone_got[0], sum.phone_got[1], sum.stutters, sum.undecodable
        );
        println!(
            "browsers got      {} pictures and {} sounds, {} late, {} missing",
            sum.browser_got[0], sum.browser_got[1], sum.sounds_late, sum.sounds_missing
        );
        if let Some((cpu, rss)) = self.server {
            println!(
                "gateway           {:.1} % of a core, {} MB",
                cpu * 100.0,
                rss >> 20
            );
        }
    }

    fn json(&self, complaints: &[String]) -> Value {
        let times = |histogram: &Histogram| {
            let ms = |time: Option<Duration>| time.map(|time| time.as_secs_f64() * 1e3);
            let at = |part| ms(histogram.quantile(part));
            json!({
                "count": histogram.count(), "p50": at(0.5), "p95": at(0.95), "p99": at(0.99),
                "max": ms(histogram.max()),
            })
        };
        let firsts: serde_json::Map<String, Value> = self
            .firsts
            .iter()
            .map(|(name, histogram)| (format!("{name}_ms"), times(histogram)))
            .collect();
        let sum = &self.sum;
        json!({
            "calls": self.calls,
            "failed": self.failed,
            "incomplete": self.incomplete,
            "window_s": self.window.as_secs_f64(),
            "setup_ms": times(&self.setup),
            "first": firsts,
            "phones": {
                "pictures": sum.phone_got[0], "sounds": sum.phone_got[1], "late": sum.stutters,
                "undecodable": sum.undecodable,
            },
            "browsers": {
                "pictures": sum.browser_got[0], "sounds": sum.browser_got[1],
                "sounds_late": sum.sounds_late, "sounds_missing": sum.sounds_missing,
            },
            "server": self.server.map(|(cpu, rss)| json!({ "cpu": cpu, "rss_bytes": rss })),
            "complaints": complaints,
        })
    }
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

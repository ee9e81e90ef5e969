//! [`Sample`]: one run of one row against one fresh server.

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::rows::{Job, Row};
use crate::server::{Kind, Programs, Server};

/// What one run said.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// By the key of a figure; what there is none of is not there.
    pub values: BTreeMap<&'static str, f64>,
    /// Pictures received of those expected, if there were players.
    pub delivered: Option<f64>,
    /// What the load tool did not find clean.
    pub complaints: Vec<String>,
    /// CPU that other processes took, percent of one core.
    pub others: f64,
}

impl Sample {
    /// Runs a row once, with a window of `seconds`.
    ///
    /// # Errors
    /// Why there is nothing to show.
    pub fn measure(
        row: &Row,
        kind: Kind,
        programs: &Programs,
        seconds: u32,
    ) -> Result<Self, String> {
        match row.job {
            Job::Flood { arguments, group } => {
                let server = Server::start(programs, kind)?;
                let run = Run::new(programs, &server, arguments, &["--bitrate", "1M"], seconds)?;
                run.sample(group, &server, kind)
            }
            Job::Joins { per_second } => joins(programs, kind, per_second, seconds),
            Job::Idle => idle(programs, kind, seconds),
        }
    }

    fn set(&mut self, key: &'static str, value: &Value) {
        if let Some(value) = value.as_f64() {
            self.values.insert(key, value);
        }
    }
}

/// One run of the load tool.
struct Run {
    report: Value,
    others: f64,
}

impl Run {
    fn new(
        programs: &Programs,
        server: &Server,
        arguments: &[&str],
        more: &[&str],
        seconds: u32,
    ) -> Result<Self, String> {
        let arguments = arguments.iter().map(|argument| {
            let argument = argument.replace("RTMP", &format!("rtmp://127.0.0.1:{}", server.rtmp));
            argument.replace("HTTP", &format!("http://127.0.0.1:{}", server.http))
        });
        let busy = busy_seconds();
        let start = Instant::now();
        let output = (programs.flood())
            .arg("mixed")
            .args(["--ramp", "500/s"])
            .args(arguments)
            .args(more)
            .args(["--duration", &format!("{seconds}s"), "--quiet"])
            .args(["--json", "-", "--pid", &server.pid.to_string()])
            .stderr(Stdio::piped())
            .output()
            .map_err(|error| format!("the load tool does not start: {error}"))?;
        let all = (busy_seconds() - busy) * 100.0 / start.elapsed().as_secs_f64();
        let report: Value = serde_json::from_slice(&output.stdout).map_err(|_| {
            let told = String::from_utf8_lossy(&output.stderr);
            format!(
                "the load tool: {}",
                told.lines().next().unwrap_or("no report")
            )
        })?;
        let used = |who: &str| report[who]["cpu_percent"].as_f64().unwrap_or(0.0);
        let others = (all - used("server") - used("flood")).max(0.0);
        Ok(Self { report, others })
    }

    fn cpu(&self) -> f64 {
        self.report["server"]["cpu_percent"]
            .as_f64()
            .unwrap_or(f64::NAN)
    }

    fn complaints(&self) -> Vec<String> {
        let all = self.report["complaints"].as_array();
        let texts = all.into_iter().flatten().filter_map(Value::as_str);
        texts.map(str::to_owned).collect()
    }

    fn sample(&self, group: usize, server: &Server, kind: Kind) -> Result<Sample, String> {
        let mut sample = Sample {
            complaints: self.complaints(),
            others: self.others,
            ..Sample::default()
        };
        let groups = self.report["groups"]
            .as_array()
            .ok_or("a report without groups")?;
        let number = |value: &Value| value.as_f64().unwrap_or(0.0);
        let clients: f64 = (groups.iter().skip(group))
            .map(|group| number(&group["up"]))
            .sum();
        if clients == 0.0 {
            let why = sample.complaints.first().map_or("", String::as_str);
            return Err(format!("no client was up at the end: {why}"));
        }
        let server_report = &self.report["server"];
        let grown = number(&server_report["rss_bytes"]) - number(&server_report["rss_idle_bytes"]);
        sample.values.extend([
            ("cpu", self.cpu() / clients),
            ("cpu100", self.cpu() / clients * 100.0),
            ("kb", grown / clients / 1e3),
        ]);
        let group = &groups[group];
        for (key, times, part) in [
            ("p50", "latency_ms", "p50"),
            ("p99", "latency_ms", "p99"),
            ("first_key_p50", "first_key_ms", "p50"),
            ("first_key_p99", "first_key_ms", "p99"),
            ("after_play_p50", "first_key_after_play_ms", "p50"),
            ("after_publish_p50", "first_key_after_publish_ms", "p50"),
        ] {
            sample.set(key, &group[times][part]);
        }
        let players = groups.iter().filter(|group| {
            let role = &group["role"];
            role == "play" || role == "whep"
        });
        let (came, expected) = players.fold((0.0, 0.0), |(came, expected), group| {
            let of = |key: &str| number(&group[key]);
            (came + of("pictures"), expected + of("pictures_expected"))
        });
        sample.delivered = (expected > 0.0).then_some(came / expected);
        if let Kind::Gateway(_) = kind {
            let busy = threads_seconds(server.pid)?;
            let frames = server.metric("rtmp_gateway_transcode_frames_total")?;
            let turn = server.metric("rtmp_gateway_longest_turn_seconds")?;
            sample.values.insert("turn_ms", turn * 1e3);
            sample.values.insert("opus_frames", frames);
            if frames > 0.0 {
                // Each frame of 20 ms is 20 ms of one stream.
                sample.values.insert("opus", busy / (frames * 0.02) * 100.0);
            }
        }
        Ok(sample)
    }
}

/// What a viewer costs that comes and goes, beyond those that stay.
fn joins(programs: &Programs, kind: Kind, per_second: u32, seconds: u32) -> Result<Sample, String> {
    let churning = format!("10@HTTP/whep/live/s churn={per_second}/s");
    let mut runs = Vec::new();
    for viewers in ["10@HTTP/whep/live/s", &churning] {
        let server = Server::start(programs, kind)?;
        let arguments = ["--publish", "1@RTMP/live/s", "--whep", viewers];
        runs.push(Run::new(programs, &server, &arguments, &[], seconds)?);
    }
    let [without, with] = &runs[..] else {
        return Err("two runs".into());
    };
    let left = with.report["groups"][1]["left"].as_f64().unwrap_or(0.0);
    let window = with.report["window_s"].as_f64().unwrap_or(0.0);
    if left == 0.0 {
        return Err("nobody came and went".into());
    }
    let seconds_each = (with.cpu() - without.cpu()) / 100.0 * window / left;
    let complaints = runs.iter().flat_map(Run::complaints).collect();
    Ok(Sample {
        values: BTreeMap::from([("join_ms", seconds_each * 1e3)]),
        delivered: None,
        complaints,
        others: with.others,
    })
}

/// What a server costs that nobody uses.
fn idle(programs: &Programs, kind: Kind, seconds: u32) -> Result<Sample, String> {
    // Placed by the scheduler: `taskset` would count into the start.
    let programs = Programs {
        is_pinned: false,
        ..programs.clone()
    };
    let mut starts = Vec::new();
    for _ in 0..5 {
        starts.push(Server::start(&programs, kind)?.start.as_secs_f64() * 1e3);
    }
    starts.sort_by(f64::total_cmp);
    let server = Server::start(&programs, kind)?;
    let told = |error: std::io::Error| format!("/proc: {error}");
    let read =
        |file: &str| fs::read_to_string(format!("/proc/{}/{file}", server.pid)).map_err(told);
    let ticks = || -> Result<f64, String> {
        let stat = read("stat")?;
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let fields = fields.split_whitespace().skip(11).take(2);
        Ok(fields.filter_map(|field| field.parse::<f64>().ok()).sum())
    };
    // What it does after its start is not idling.
    thread::sleep(Duration::from_secs(1));
    let before = ticks()?;
    thread::sleep(Duration::from_secs(seconds.into()));
    let used = (ticks()? - before) / TICKS_PER_SECOND / f64::from(seconds) * 100.0;
    let pages = read("statm")?;
    let pages = pages
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse::<f64>().ok());
    let files = match (kind, &programs.nginx) {
        (Kind::Nginx, Some((program, module))) => vec![program.clone(), module.clone()],
        _ => vec![programs.gateway.clone()],
    };
    let mut bytes = 0;
    for file in files {
        bytes += fs::metadata(&file).map_err(told)?.len();
    }
    Ok(Sample {
        values: BTreeMap::from([
            ("start_ms", starts[starts.len() / 2]),
            ("idle_cpu", used),
            ("idle_mb", pages.unwrap_or(f64::NAN) * PAGE_BYTES / 1e6),
            ("binary_mb", bytes as f64 / 1e6),
        ]),
        ..Sample::default()
    })
}

/// CPU time of the threads of a process but the first one: of the gateway, the audio workers.
fn threads_seconds(pid: u32) -> Result<f64, String> {
    let told = |error: std::io::Error| format!("/proc: {error}");
    let mut nanoseconds = 0.0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).map_err(told)? {
        let thread = thread.map_err(told)?;
        if thread.file_name().to_string_lossy() == pid.to_string() {
            continue;
        }
        let text = fs::read_to_string(thread.path().join("schedstat")).map_err(told)?;
        let first = text.split_whitespace().next();
        nanoseconds += first
            .and_then(|first| first.parse::<f64>().ok())
            .unwrap_or(0.0);
    }
    Ok(nanoseconds / 1e9)
}

/// CPU time that the whole machine spent since its start, idling left out.
fn busy_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks: Vec<f64> = (stat.lines().next().unwrap_or_default())
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let idle: f64 = ticks.iter().skip(3).take(2).sum();
    // Guests are in user time already.
    (ticks.iter().take(8).sum::<f64>() - idle) / TICKS_PER_SECOND
}

/// `USER_HZ` of Linux.
const TICKS_PER_SECOND: f64 = 100.0;
const PAGE_BYTES: f64 = 4_096.0;

//! The soak itself, for the tool and for its short version among the tests.
//!
//! ```text
//!  start ─▶ a round to warm up ─▶ idle: the base ─▶ rounds ... ─▶ idle: the end ─▶ compare
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::support::Gateway;

/// What is soaked, and by what.
pub struct Programs {
    /// `rtmp-gateway`.
    pub gateway: PathBuf,
    /// `rtmp-flood`.
    pub flood: PathBuf,
}

/// How long.
pub struct Plan {
    /// One round of all loads.
    pub round: Duration,
    /// All rounds together, without the one to warm up.
    pub lasts: Duration,
    /// What the base is taken after.
    pub warm_up: WarmUp,
}

/// Whether a round goes before the base.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum WarmUp {
    /// So the base has what is only made once: codecs' tables, the allocator's arenas.
    Round,
    /// Memory may then grow by what that is.
    None,
}

/// One `rtmp-flood` of a round.
struct Load {
    name: &'static str,
    end: End,
    kind: Kind,
    /// Arguments; `RTMP` and `HTTP` stand for the gateway's addresses.
    clients: &'static [&'static str],
}

/// Which part of `rtmp-flood` it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Streams by URL.
    Streams,
    /// Calls between mini-programs and browsers.
    Calls,
}

/// How a load ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// In good order, with a report.
    Leaves,
    /// Killed in the middle of the round: what dies without a word.
    Dies,
    /// Stopped for a while with everything open, then killed.
    Freezes,
}

/// What runs at the same time in each round.
const LOADS: &[Load] = &[
    Load {
        name: "publishers restart, players and viewers come and go",
        end: End::Leaves,
        kind: Kind::Streams,
        clients: &[
            "--publish",
            "2@RTMP/live/a{n} churn=0.2/s",
            "--whip",
            "2@HTTP/whip/live/b{n} churn=0.2/s",
            "--play",
            "6@RTMP/live/a{n%2} churn=2/s",
            "--play",
            "4@RTMP/live/b{n%2} churn=1/s",
            "--whep",
            "4@HTTP/whep/live/a{n%2} churn=1/s",
            "--whep",
            "4@HTTP/whep/live/b{n%2} churn=1/s",
        ],
    },
    Load {
        name: "publishers take one another's place",
        end: End::Leaves,
        kind: Kind::Streams,
        clients: &[
            "--publish",
            "1@RTMP/live/t?token=soak",
            "--publish",
            "1@RTMP/live/t?token=soak after=1500ms",
            "--whip",
            "1@HTTP/whip/live/t?token=soak after=3s",
            "--play",
            "2@RTMP/live/t",
            "--whep",
            "2@HTTP/whep/live/t",
        ],
    },
    Load {
        name: "all kinds die without a word",
        end: End::Dies,
        kind: Kind::Streams,
        clients: &[
            "--publish",
            "2@RTMP/live/c{n}",
            "--whip",
            "2@HTTP/whip/live/d{n}",
            "--play",
            "4@RTMP/live/c{n%2}",
            "--whep",
            "4@HTTP/whep/live/d{n%2}",
        ],
    },
    Load {
        name: "all kinds freeze, then die",
        end: End::Freezes,
        kind: Kind::Streams,
        clients: &[
            "--publish",
            "1@RTMP/live/e",
            "--whip",
            "1@HTTP/whip/live/f",
            "--play",
            "2@RTMP/live/a0",
            "--whep",
            "2@HTTP/whep/live/a1",
            "--play",
            "2@RTMP/live/f",
            "--whep",
            "2@HTTP/whep/live/e",
        ],
    },
    Load {
        name: "calls stand for the round and are hung up",
        end: End::Leaves,
        kind: Kind::Calls,
        clients: &["--calls", "4", "--rate", "10", "WS/ws"],
    },
    Load {
        name: "both sides of calls die without a word",
        end: End::Dies,
        kind: Kind::Calls,
        clients: &["--calls", "3", "--rate", "10", "WS/ws"],
    },
];

/// Everything sooner than by default, so that a short soak sees the end of it too.
const CONFIG: &str = "
publish_idle_timeout_ms = 3000
connect_timeout_ms = 4000

[streams]
publisher_grace_ms = 2000

[signaling]
resume_ms = 2000
media_grace_ms = 2000
empty_room_ms = 2000

[sockets]
tcp_user_timeout_ms = 4000
";

/// Runs the plan and prints how it goes. What stayed behind, or went wrong: empty is good.
pub fn run(programs: &Programs, plan: &Plan) -> Vec<String> {
    let gateway = Gateway::start_with(&programs.gateway, &[], CONFIG);
    let pid = gateway.id();
    let mut complaints = Vec::new();
    if plan.warm_up == WarmUp::Round {
        round(programs, &gateway, plan.round, &mut complaints);
    }
    let base = settled(&gateway);
    println!("{:>8}  {}", "base", base.line());

    let start = Instant::now();
    let mut peak = base.clone();
    let mut rounds = 0;
    while rounds == 0 || start.elapsed() + plan.round <= plan.lasts {
        let busiest = round(programs, &gateway, plan.round, &mut complaints);
        println!("{:>6} s  {}", start.elapsed().as_secs(), busiest.line());
        peak.raise_to(&busiest);
        rounds += 1;
    }
    let end = settled(&gateway);
    println!("{:>8}  {}", "end", end.line());
    println!("\n{rounds} rounds of {:?}, pid {pid}", plan.round);
    println!(
        "{:<52} {:>9} {:>9} {:>9}  may grow",
        "", "base", "peak", "end"
    );
    for (name, before) in &base.values {
        let after = end.values.get(name).copied().unwrap_or(f64::NAN);
        let peak = peak.values.get(name).copied().unwrap_or(f64::NAN);
        let grows = may_grow(name, *before, plan.warm_up);
        println!("{name:<52} {before:>9.1} {peak:>9.1} {after:>9.1}  {grows:.1}");
        if after.is_nan() || after > before + grows {
            complaints.push(format!("{name}: {after:.1} at the end, {before:.1} before"));
        }
    }
    complaints
}

/// How much of something may be left over. Memory is the allocator's to give back, in
/// pieces of its own; the last question's connection may not be closed yet; everything else
/// must be gone.
fn may_grow(name: &str, base: f64, warm_up: WarmUp) -> f64 {
    match name {
        FILES => 1.0,
        RSS if warm_up == WarmUp::None => 24.0,
        RSS => 4.0 + base * 0.2,
        _ => 0.0,
    }
}

/// All loads once, at the same time; the most that the gateway held meanwhile.
fn round(
    programs: &Programs,
    gateway: &Gateway,
    lasts: Duration,
    complaints: &mut Vec<String>,
) -> Held {
    let start = Instant::now();
    let mut runs: Vec<(&Load, Flood)> = LOADS
        .iter()
        .map(|load| (load, Flood::start(&programs.flood, gateway, load, lasts)))
        .collect();
    let mut busiest = Held::default();
    // The others come to an end after half of it.
    let half = lasts / 2;
    let mut is_frozen = false;
    while start.elapsed() < lasts {
        thread::sleep(Duration::from_millis(500).min(lasts / 8));
        busiest.raise_to(&Held::of(gateway));
        for (load, run) in &mut runs {
            match load.end {
                End::Freezes if !is_frozen && start.elapsed() > half / 2 => {
                    run.freeze();
                    is_frozen = true;
                }
                End::Dies | End::Freezes if start.elapsed() > half => run.kill(),
                _ => {}
            }
        }
    }
    for (load, run) in runs {
        if load.end == End::Leaves
            && let Some(what) = run.complaint()
        {
            complaints.push(format!("{}: {what}", load.name));
        }
    }
    busiest
}

/// What the gateway holds once nobody is there any more: when nothing has changed for a
/// while, at most so long after the last one left.
fn settled(gateway: &Gateway) -> Held {
    let start = Instant::now();
    let mut held = Held::of(gateway);
    let mut since = Instant::now();
    while since.elapsed() < Duration::from_millis(1_500) && start.elapsed() < SETTLES_WITHIN {
        thread::sleep(Duration::from_millis(250));
        let now = Held::of(gateway);
        let is_empty = now.is_empty();
        if !is_empty || now.values.get(FILES) != held.values.get(FILES) {
            since = Instant::now();
        }
        held = now;
    }
    held
}

/// A running `rtmp-flood`, killed on drop.
struct Flood {
    child: Child,
    report: PathBuf,
}

impl Flood {
    fn start(program: &Path, gateway: &Gateway, load: &Load, lasts: Duration) -> Self {
        let rtmp = format!("rtmp://127.0.0.1:{}", gateway.rtmp_port());
        let http = gateway.http("");
        let report = super::support::scratch_dir("soak").join("report.json");
        let seconds = lasts.saturating_sub(AROUND).as_secs_f64();
        let ws = http.replacen("http", "ws", 1);
        let (command, lasts) = match load.kind {
            Kind::Streams => ("mixed", "--duration"),
            Kind::Calls => ("call", "--hold"),
        };
        let child = Command::new(program)
            .arg(command)
            .args(load.clients.iter().map(|word| {
                word.replace("RTMP", &rtmp)
                    .replace("HTTP", &http)
                    .replace("WS", &ws)
            }))
            .args(["--quiet", lasts, &format!("{seconds}s"), "--json"])
            .arg(&report)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("rtmp-flood starts");
        Self { child, report }
    }

    /// All its sockets stay open and nobody reads or answers.
    fn freeze(&mut self) {
        let status = Command::new("kill")
            .args(["-STOP", &self.child.id().to_string()])
            .status();
        assert!(status.is_ok_and(|status| status.success()), "kill -STOP");
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end; what of its report is the gateway's fault. Who is cut off when a
    /// publisher goes, or loses pictures over that, is not.
    fn complaint(mut self) -> Option<String> {
        let start = Instant::now();
        while self.child.try_wait().ok()?.is_none() {
            if start.elapsed() > Duration::from_secs(20) {
                return Some("rtmp-flood does not end".into());
            }
            thread::sleep(Duration::from_millis(50));
        }
        let text = fs::read_to_string(&self.report).unwrap_or_default();
        let Ok(report) = serde_json::from_str::<Value>(&text) else {
            return Some("rtmp-flood has left no report".into());
        };
        if report["setup_ms"]["count"] == 0 {
            return Some(format!("no call stood: {}", report["failed"]));
        }
        let groups = report["groups"].as_array().cloned().unwrap_or_default();
        let idle: Vec<String> = groups
            .iter()
            .filter(|group| group["connected"].as_u64().unwrap_or(0) == 0)
            .map(|group| format!("{}: {}", group["url"], group["failed"]))
            .collect();
        (!idle.is_empty()).then(|| format!("nobody got through: {}", idle.join(", ")))
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What the gateway's process holds.
#[derive(Clone, Debug, Default)]
struct Held {
    values: BTreeMap<String, f64>,
}

impl Held {
    fn of(gateway: &Gateway) -> Self {
        let mut values = BTreeMap::new();
        let (_, metrics) = gateway.get("/metrics");
        for line in metrics.lines() {
            let Some((name, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let short = name.strip_prefix("rtmp_gateway_").unwrap_or(name);
            if TABLES.iter().any(|table| short.starts_with(table)) {
                values.insert(short.to_owned(), value.parse().unwrap_or(f64::NAN));
            }
        }
        let process = PathBuf::from(format!("/proc/{}", gateway.id()));
        let entries = |name: &str| fs::read_dir(process.join(name)).map_or(0, Iterator::count);
        values.insert(FILES.into(), entries("fd") as f64);
        values.insert("threads".into(), entries("task") as f64);
        values.insert("ports".into(), ports(&process).len() as f64);
        values.insert(RSS.into(), rss_megabytes(&process));
        Self { values }
    }

    /// Whether all tables but the one that has the question itself are empty.
    fn is_empty(&self) -> bool {
        (self.values.iter())
            .filter(|(name, _)| TABLES.iter().any(|table| name.starts_with(table)))
            .all(|(name, value)| *value == 0.0 || name.contains("kind=\"http\""))
    }

    fn raise_to(&mut self, other: &Self) {
        for (name, value) in &other.values {
            let most = self.values.entry(name.clone()).or_insert(*value);
            *most = most.max(*value);
        }
    }

    /// The main figures, for the line that tells how it goes.
    fn line(&self) -> String {
        let value = |name: &str| self.values.get(name).copied().unwrap_or(0.0);
        format!(
            "streams {:3}, RTMP {:3}, WebRTC {:2} in {:3} out, files {:3}, threads {:2}, {:6.1} MB",
            value("streams"),
            value("connections{kind=\"rtmp\"}"),
            value("webrtc_sessions{role=\"publisher\"}"),
            value("webrtc_sessions{role=\"viewer\"}"),
            value(FILES),
            value("threads"),
            value(RSS),
        )
    }
}

/// The local ports of a process's TCP and UDP sockets.
fn ports(process: &Path) -> BTreeSet<(String, String)> {
    let links = fs::read_dir(process.join("fd"))
        .into_iter()
        .flatten()
        .flatten();
    let inodes: BTreeSet<String> = links
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter_map(|link| {
            let text = link.to_string_lossy().into_owned();
            Some(text.strip_prefix("socket:[")?.trim_end_matches(']').into())
        })
        .collect();
    let mut ports = BTreeSet::new();
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        let text = fs::read_to_string(process.join("net").join(table)).unwrap_or_default();
        for line in text.lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (Some(local), Some(inode)) = (words.get(1), words.get(9)) else {
                continue;
            };
            if inodes.contains(*inode)
                && let Some((_, port)) = local.rsplit_once(':')
            {
                ports.insert((table.trim_end_matches('6').into(), port.into()));
            }
        }
    }
    ports
}

fn rss_megabytes(process: &Path) -> f64 {
    let status = fs::read_to_string(process.join("status")).unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap_or_default();
    line.trim()
        .trim_end_matches(" kB")
        .parse::<f64>()
        .unwrap_or(f64::NAN)
        / 1024.0
}

const FILES: &str = "file descriptors";
const RSS: &str = "resident memory, MB";

/// Metrics that count what is there now.
const TABLES: &[&str] = &[
    "conversations",
    "connections{",
    "webrtc_sessions",
    "streams",
    "transcode_pipelines",
    "transcode_pending_jobs",
];

/// The longest time after which nothing of those that left may be there: a browser that
/// vanished is noticed by its silence, a player that waits for a publisher is held.
const SETTLES_WITHIN: Duration = Duration::from_secs(45);

/// What `rtmp-flood` takes before and after its measurement.
const AROUND: Duration = Duration::from_secs(3);

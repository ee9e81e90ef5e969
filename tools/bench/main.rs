//! The load matrix: each row is one run of `rtmp-flood` against a fresh server, the gateway
//! and nginx in turn, round after round. `tools/bench/run` builds and starts it.
//!
//! CPU is user and system time of the server's process over the measured window, in percent of
//! one core. A figure counts only with its delivered quality beside it: the latency, and
//! whether the run was clean. What the rest of the machine did meanwhile stands in the last
//! column; side by side is what counts, not one figure alone.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// One line of the table.
struct Row {
    name: &'static str,
    what: &'static str,
    /// What the cost is divided by: `clients` of the measured group, times so many.
    per: u32,
    /// The group of the report that is measured.
    group: usize,
    /// Whether nginx can do it.
    rtmp_only: bool,
    budget: &'static str,
    /// Arguments; `RTMP` and `HTTP` stand for the server's addresses.
    arguments: &'static [&'static str],
}

const ROWS: &[Row] = &[
    Row {
        name: "play-60",
        what: "RTMP play, 60 players, per 100",
        per: 100,
        group: 1,
        rtmp_only: true,
        budget: "p50 0.6, p99 2 ms",
        arguments: &["--publish", "1@RTMP/live/s", "--play", "60@RTMP/live/s"],
    },
    Row {
        name: "play-1000",
        what: "RTMP play, 1,000 players, per 100",
        per: 100,
        group: 1,
        rtmp_only: true,
        budget: "1.7 %, p99 30 ms, 8 KB",
        arguments: &["--publish", "1@RTMP/live/s", "--play", "1000@RTMP/live/s"],
    },
    Row {
        name: "ingest-500",
        what: "RTMP ingest, 500 publishers, each",
        per: 1,
        group: 0,
        rtmp_only: true,
        budget: "0.04 %, 60 KB + cache",
        arguments: &["--publish", "500@RTMP/live/p{n}"],
    },
    Row {
        name: "whep-3",
        what: "RTMP to WHEP, 3 viewers, each",
        per: 1,
        group: 1,
        rtmp_only: false,
        budget: "p50 0.3, p99 2 ms",
        arguments: &["--publish", "1@RTMP/live/s", "--whep", "3@HTTP/whep/live/s"],
    },
    Row {
        name: "whep-400",
        what: "RTMP to WHEP, 400 viewers, each",
        per: 1,
        group: 1,
        rtmp_only: false,
        budget: "0.06 %, p99 25 ms, 180 KB",
        arguments: &[
            "--publish",
            "1@RTMP/live/s",
            "--whep",
            "400@HTTP/whep/live/s",
        ],
    },
    Row {
        name: "storm-play",
        what: "100 players while 1,000 join in 1 s, per 100 of all",
        per: 100,
        group: 1,
        rtmp_only: true,
        budget: "p99 50 ms",
        arguments: &[
            "--publish",
            "1@RTMP/live/s",
            "--play",
            "100@RTMP/live/s",
            "--play",
            "1000@RTMP/live/s ramp=1000/s after=4s",
        ],
    },
    Row {
        name: "storm-whep",
        what: "100 viewers while 200 join in 1 s, each of all",
        per: 1,
        group: 1,
        rtmp_only: false,
        budget: "p99 50 ms",
        arguments: &[
            "--publish",
            "1@RTMP/live/s",
            "--whep",
            "100@HTTP/whep/live/s",
            "--whep",
            "200@HTTP/whep/live/s ramp=200/s after=4s",
        ],
    },
];

/// What one run said.
#[derive(Clone, Debug, Default)]
struct Sample {
    cpu: f64,
    p50_ms: f64,
    p99_ms: f64,
    rss_kb: f64,
    first_key_p99_ms: f64,
    other_cpu: f64,
    is_clean: bool,
}

fn main() {
    let mut rounds = 3;
    let mut wanted = Vec::new();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "--rounds" {
            let value = words.next().and_then(|value| value.parse().ok());
            rounds = value.expect("--rounds needs a number");
        } else {
            wanted.push(word);
        }
    }
    println!("{}\n", machine());
    println!(
        "| what | budget | CPU % | nginx | ratio | p50 / p99 ms | nginx | first key p99 ms | \
         KB each | nginx | clean | others % |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    let nginx = program("NGINX").filter(|path| path.exists());
    let module = program("NGINX_RTMP_MODULE").filter(|path| path.exists());
    let nginx = nginx.zip(module);
    for row in ROWS {
        let is_wanted = wanted
            .iter()
            .any(|wish| row.name.starts_with(wish.as_str()));
        if !wanted.is_empty() && !is_wanted {
            continue;
        }
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            ours.push(measure(row, &Server::gateway()));
            if let (true, Some((nginx, module))) = (row.rtmp_only, &nginx) {
                theirs.push(measure(row, &Server::nginx(nginx, module)));
            }
        }
        println!("{}", line(row, &ours, &theirs));
    }
}

fn line(row: &Row, ours: &[Sample], theirs: &[Sample]) -> String {
    // What there is none of, such as the latency of publishers, is a dash.
    let cell = |samples: &[Sample], digits: usize, value: fn(&Sample) -> f64| {
        let middle = median(samples, value);
        match middle.is_nan() {
            true => "-".to_owned(),
            false => format!("{middle:.digits$}"),
        }
    };
    let latency = |samples: &[Sample]| {
        let p50 = cell(samples, 2, |sample| sample.p50_ms);
        format!("{p50} / {}", cell(samples, 1, |sample| sample.p99_ms))
    };
    let cost = |sample: &Sample| sample.cpu;
    let ratio = match median(ours, cost) / median(theirs, cost) {
        ratio if ratio.is_nan() => "-".to_owned(),
        ratio => format!("{ratio:.2}"),
    };
    let clean = ours.iter().filter(|sample| sample.is_clean).count();
    format!(
        "| {} | {} | {} | {} | {ratio} | {} | {} | {} | {} | {} | {clean} of {} | {} |",
        row.what,
        row.budget,
        cell(ours, 3, cost),
        cell(theirs, 3, cost),
        latency(ours),
        latency(theirs),
        cell(ours, 1, |sample| sample.first_key_p99_ms),
        cell(ours, 1, |sample| sample.rss_kb),
        cell(theirs, 1, |sample| sample.rss_kb),
        ours.len(),
        cell(ours, 0, |sample| sample.other_cpu),
    )
}

/// One run of the load tool against a fresh server.
fn measure(row: &Row, server: &Server) -> Sample {
    let arguments = row.arguments.iter().map(|argument| {
        let argument = argument.replace("RTMP", &format!("rtmp://127.0.0.1:{}", server.rtmp));
        argument.replace("HTTP", &format!("http://127.0.0.1:{}", server.http))
    });
    let flood = program("RTMP_FLOOD").expect("RTMP_FLOOD names the load tool");
    let busy = busy_seconds();
    let start = Instant::now();
    let output = Command::new(flood)
        .arg("mixed")
        .args(arguments)
        .args([
            "--ramp",
            "500/s",
            "--bitrate",
            "1M",
            "--duration",
            "5s",
            "--quiet",
        ])
        .args(["--json", "-", "--pid", &server.pid.to_string()])
        .stderr(Stdio::null())
        .output()
        .expect("the load tool starts");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let group = &report["groups"][row.group];
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let clients: f64 = (report["groups"].as_array().into_iter().flatten())
        .skip(row.group)
        .map(|group| number(&group["up"]))
        .sum();
    let server_cpu = number(&report["server"]["cpu_percent"]);
    let rss = number(&report["server"]["rss_bytes"]) - number(&report["server"]["rss_idle_bytes"]);
    let all = (busy_seconds() - busy) * 100.0 / start.elapsed().as_secs_f64();
    Sample {
        cpu: server_cpu * f64::from(row.per) / clients,
        p50_ms: number(&group["latency_ms"]["p50"]),
        p99_ms: number(&group["latency_ms"]["p99"]),
        rss_kb: rss / clients / 1e3,
        first_key_p99_ms: number(&group["first_key_ms"]["p99"]),
        other_cpu: (all - server_cpu - number(&report["flood"]["cpu_percent"])).max(0.0),
        is_clean: output.status.success(),
    }
}

/// A server that ends with this value.
struct Server {
    child: Child,
    /// The process that does the work.
    pid: u32,
    rtmp: u16,
    http: u16,
    directory: PathBuf,
}

impl Server {
    fn gateway() -> Self {
        let [rtmp, http, webrtc] = free_ports();
        let config = format!(
            "[log]\nlevel = \"warn\"\n[rtmp]\nlisten = \"127.0.0.1:{rtmp}\"\n\
             [http]\nlisten = \"127.0.0.1:{http}\"\n[webrtc]\nlisten = \"127.0.0.1:{webrtc}\"\n"
        );
        let program = program("RTMP_GATEWAY").expect("RTMP_GATEWAY names the gateway");
        Self::start(config, rtmp, http, |file, _| {
            let mut command = Command::new(program);
            command.arg("--config").arg(file);
            command
        })
    }

    /// With the options of BASELINES: one worker, low delay, nothing recorded or logged.
    fn nginx(program: &Path, module: &Path) -> Self {
        let [rtmp, http, _] = free_ports();
        let config = format!(
            "load_module {};\ndaemon off; master_process off; worker_processes 1;\n\
             worker_rlimit_nofile 8192; error_log stderr crit; pid nginx.pid;\n\
             events {{ worker_connections 8000; }}\n\
             rtmp {{ server {{ listen 127.0.0.1:{rtmp}; chunk_size 4096; access_log off;\n\
             application live {{ live on; record off; }} }} }}\n",
            module.display()
        );
        Self::start(config, rtmp, http, |file, directory| {
            let mut command = Command::new(program);
            command.arg("-c").arg(file).arg("-p").arg(directory);
            command
        })
    }

    fn start(
        config: String,
        rtmp: u16,
        http: u16,
        command: impl FnOnce(&Path, &Path) -> Command,
    ) -> Self {
        let name = format!("rtmp-gateway-bench-{}-{rtmp}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).expect("a directory for the configuration");
        let file = directory.join("server.conf");
        fs::write(&file, config).expect("the configuration is written");
        let child = command(&file, &directory)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server starts");
        let patience = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", rtmp)).is_err() {
            assert!(Instant::now() < patience, "the server does not listen");
            thread::sleep(Duration::from_millis(10));
        }
        thread::sleep(Duration::from_millis(200));
        Self {
            pid: child.id(),
            child,
            rtmp,
            http,
            directory,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Ports that nobody uses now.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] =
        std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("bound").port())
}

fn program(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from)
}

fn median(samples: &[Sample], value: fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
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

/// The machine in one line.
fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = (cpu.lines())
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown CPU", |(_, model)| model.trim());
    let cores = cpu
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{cores} x {model}, Linux {}; load tool and server share it",
        kernel.trim()
    )
}

/// `USER_HZ` of Linux.
const TICKS_PER_SECOND: f64 = 100.0;

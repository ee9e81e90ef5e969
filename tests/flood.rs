//! The load tool against a gateway on real sockets of this machine: what is clean, what is
//! not, and that it says why.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Command, Output};
use std::thread::{self, JoinHandle};

use rtmp_gateway::config::Config;
use rtmp_gateway::net::{Server, Stopper};
use serde_json::Value;

/// A gateway in a thread of its own.
struct Running {
    rtmp: SocketAddr,
    http: SocketAddr,
    stopper: Stopper,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Running {
    fn start() -> Self {
        let mut config = Config::default();
        for listen in [
            &mut config.rtmp.listen,
            &mut config.http.listen,
            &mut config.webrtc.listen,
        ] {
            listen.set_port(0);
        }
        config.audio.workers = 1;
        let server = Server::bind(config).expect("any port will do");
        let local =
            |address: SocketAddr| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port());
        Self {
            rtmp: local(server.rtmp_addr),
            http: local(server.http_addr),
            stopper: server.stopper(),
            thread: Some(thread::spawn(|| server.run())),
        }
    }

    fn rtmp(&self, count: u32, name: &str) -> String {
        format!("{count}@rtmp://{}/live/{name}", self.rtmp)
    }

    fn http(&self, count: u32, kind: &str, name: &str) -> String {
        format!("{count}@http://{}/{kind}/live/{name}", self.http)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take()
            && !thread::panicking()
        {
            thread.join().expect("no panic").expect("no error");
        }
    }
}

/// What a run left.
struct Run {
    status: Option<i32>,
    report: Value,
    told: String,
}

impl Run {
    fn new(arguments: &[&str]) -> Self {
        let Output {
            status,
            stdout,
            stderr,
        } = Command::new(env!("CARGO_BIN_EXE_rtmp-flood"))
            .args(arguments)
            .args(["--json", "-"])
            .output()
            .expect("the tool is built with the tests");
        Self {
            status: status.code(),
            report: serde_json::from_slice(&stdout).unwrap_or_default(),
            told: String::from_utf8_lossy(&stderr).into_owned(),
        }
    }

    fn group(&self, index: usize) -> &Value {
        &self.report["groups"][index]
    }

    #[track_caller]
    fn assert_clean(&self) {
        assert_eq!(self.status, Some(0), "{}\n{:#}", self.told, self.report);
        assert_eq!(self.report["clean"], true);
    }
}

#[test]
fn publishers_players_and_viewers_are_served_in_order() {
    let gateway = Running::start();
    let run = Run::new(&[
        "mixed",
        "--publish",
        &gateway.rtmp(1, "s"),
        "--whip",
        &gateway.http(2, "whip", "w{n}"),
        "--play",
        &gateway.rtmp(20, "s"),
        "--whep",
        &gateway.http(5, "whep", "s"),
        // Each way across the bridge, from WebRTC too.
        "--play",
        &gateway.rtmp(2, "w{n}"),
        "--whep",
        &gateway.http(2, "whep", "w{n}"),
        "--duration",
        "3s",
        "--bitrate",
        "1M",
    ]);
    run.assert_clean();
    for (index, (clients, sends)) in [
        (1, true),
        (2, true),
        (20, false),
        (5, false),
        (2, false),
        (2, false),
    ]
    .into_iter()
    .enumerate()
    {
        let group = run.group(index);
        assert_eq!(group["connected"], clients, "{group:#}");
        assert_eq!(group["up"], clients, "{group:#}");
        assert_eq!(group["setup_ms"]["count"], clients, "{group:#}");
        // 25 in each second, and at either end of the measurement some that belong to
        // neighbouring seconds.
        let pictures = group["pictures"].as_u64().expect("a number");
        let each = pictures / clients;
        assert!((65..=85).contains(&each), "{group:#}");
        if !sends {
            assert_eq!(group["first_key_ms"]["count"], clients, "{group:#}");
            let measured = group["latency_ms"]["count"].as_u64();
            assert!(measured >= Some(60 * clients), "{group:#}");
        }
    }
}

#[test]
fn clients_that_come_and_go_are_counted() {
    let gateway = Running::start();
    let run = Run::new(&[
        "mixed",
        "--publish",
        &gateway.rtmp(1, "s"),
        "--play",
        &format!("{} churn=10/s", gateway.rtmp(5, "s")),
        "--whep",
        &format!("{} churn=5/s", gateway.http(2, "whep", "s")),
        "--duration",
        "2s",
    ]);
    run.assert_clean();
    for (index, clients, churned) in [(1, 5, 15..=20), (2, 2, 7..=10)] {
        let group = run.group(index);
        let left = group["left"].as_u64().expect("a number");
        assert!(churned.contains(&left), "{group:#}");
        assert_eq!(group["started"], clients + left, "{group:#}");
    }
}

#[test]
fn a_broken_bound_ends_with_status_1_and_says_which() {
    let gateway = Running::start();
    let run = Run::new(&[
        "mixed",
        "--publish",
        &gateway.rtmp(1, "s"),
        "--play",
        &gateway.rtmp(1, "s"),
        "--duration",
        "1s",
        "--max-p99",
        "1us",
        "--max-p50",
        "10s",
    ]);
    assert_eq!(run.status, Some(1), "{}", run.told);
    let complaints = run.report["complaints"].as_array().expect("a list");
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    let told = complaints[0].as_str().expect("a text");
    assert!(told.starts_with("play latency p99 "), "{told}");
    assert!(run.told.contains(told), "{}", run.told);
}

#[test]
fn refusals_are_counted_by_reason() {
    // A port on which nobody listens.
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("any port");
        listener.local_addr().expect("bound")
    };
    let gateway = Running::start();
    let run = Run::new(&[
        "mixed",
        "--publish",
        &gateway.rtmp(2, "same"),
        "--play",
        &format!("3@rtmp://{closed}/live/s"),
        "--whep",
        &format!("1@http://{}/nothing/here", gateway.http),
        "--settle",
        "0",
        "--duration",
        "1s",
    ]);
    assert_eq!(run.status, Some(1), "{}", run.told);
    let failed = |index: usize| &run.group(index)["failed"];
    assert_eq!(failed(0)["NetStream.Publish.BadName"], 1);
    assert_eq!(failed(1)["tcp_refused"], 3);
    assert_eq!(failed(2)["http_404"], 1);
    assert_eq!(run.group(0)["connected"], 1);
}

#[test]
fn a_lossy_link_loses_packets_and_keeps_order() {
    let gateway = Running::start();
    let run = Run::new(&[
        "mixed",
        "--publish",
        &gateway.rtmp(1, "s"),
        "--whep",
        &gateway.http(3, "whep", "s"),
        "--duration",
        "3s",
        "--loss",
        "2%",
        "--delay",
        "20ms",
        "--jitter",
        "5ms",
        "--max-lost",
        "100",
    ]);
    run.assert_clean();
    assert!(run.report["datagrams_lost"].as_u64() > Some(10));
    let p50 = run.group(1)["latency_ms"]["p50"].as_f64();
    assert!(p50 > Some(20.0), "{p50:?}");
}

#[test]
fn wrong_arguments_end_with_status_2() {
    for arguments in [
        &["play"][..],
        &["play", "http://h/live/s"],
        &["play", "rtmp://h/live/s", "--unknown"],
        &[
            "publish",
            "rtmp://127.0.0.1/live/s",
            "--file",
            "/nowhere.flv",
        ],
    ] {
        let run = Run::new(arguments);
        assert_eq!(run.status, Some(2), "{arguments:?}: {}", run.told);
        assert!(run.told.starts_with("rtmp-flood: "), "{}", run.told);
    }
}

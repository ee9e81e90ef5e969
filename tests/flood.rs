//! The load tool against a gateway on real sockets of this machine: what is clean, what is
//! not, and that it says why.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::thread::{self, JoinHandle};

use rtmp_gateway::config::Config;
use rtmp_gateway::net::{Server, Stopper};
use rtmp_gateway::rtmp::client::{Client, ClientOptions, Event, Goal, RtmpUrl};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

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

    /// A run of several groups. In the arguments `RTMP` and `HTTP` stand for the gateway.
    fn mixed(&self, arguments: &[&str]) -> Run {
        let arguments = arguments.iter().map(|argument| {
            (argument.replace("RTMP", &format!("rtmp://{}", self.rtmp)))
                .replace("HTTP", &format!("http://{}", self.http))
        });
        let arguments: Vec<String> = arguments.collect();
        let words = ["mixed"].into_iter();
        Run::new(
            &words
                .chain(arguments.iter().map(String::as_str))
                .collect::<Vec<_>>(),
        )
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
    let run = gateway.mixed(&[
        "--publish",
        "1@RTMP/live/s",
        "--whip",
        "2@HTTP/whip/live/w{n}",
        "--play",
        "20@RTMP/live/s",
        "--whep",
        "5@HTTP/whep/live/s",
        // Each way across the bridge, from WebRTC too.
        "--play",
        "2@RTMP/live/w{n}",
        "--whep",
        "2@HTTP/whep/live/w{n}",
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
        // As many as were sent, but for those of the last moment before the measurement.
        let pictures = group["pictures"].as_u64().expect("a number");
        let (each, sent) = (pictures / clients, run.group(0)["pictures"].as_u64());
        assert!(each.abs_diff(sent.expect("a number")) < 25, "{group:#}");
        assert_eq!(group["pictures_expected"], pictures, "{group:#}");
        if !sends {
            assert_eq!(group["first_key_ms"]["count"], clients, "{group:#}");
            let measured = group["latency_ms"]["count"].as_u64();
            assert!(measured >= Some(50 * clients), "{group:#}");
        }
    }
}

#[test]
fn publishers_of_a_file_take_turns_at_several_bit_rates() {
    let gateway = Running::start();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/flv/small.flv");
    let run = gateway.mixed(&[
        "--publish",
        "4@RTMP/live/s{n} bitrate=500k,2M",
        "--play",
        "2@RTMP/live/s0",
        "--play",
        "2@RTMP/live/s3",
        "--file",
        file,
        "--duration",
        "3s",
    ]);
    run.assert_clean();
    let sources = run.report["sources"].as_array().expect("a list");
    let rates: Vec<u64> = (sources.iter())
        .map(|source| source["video_bps"].as_u64().expect("a number"))
        .collect();
    assert_eq!(rates, [500_000, 2_000_000], "{sources:?}");
    let mbps = |group: usize| run.group(group)["mbit_per_s"].as_f64().expect("a number");
    assert!(
        mbps(2) > 2.5 * mbps(1),
        "{} and {} Mbit/s",
        mbps(1),
        mbps(2)
    );
}

/// The load tool's players beside a hundred that do not read: the stream is clean and on time.
#[test]
fn players_that_stop_reading_cost_the_others_nothing() {
    let gateway = Running::start();
    let stuck: Vec<TcpStream> = (0..100).map(|_| stuck_player(gateway.rtmp)).collect();
    let run = gateway.mixed(&[
        "--publish",
        "1@RTMP/live/s",
        "--play",
        "20@RTMP/live/s",
        "--bitrate",
        "4M",
        "--duration",
        "4s",
        "--max-p99",
        "250ms",
    ]);
    run.assert_clean();
    drop(stuck);
}

/// A player of `live/s` that reads nothing once it plays.
fn stuck_player(server: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    // So that the kernel does not read in its place.
    socket.set_recv_buffer_size(4_096).expect("a size");
    socket.connect(&server.into()).expect("the gateway listens");
    let mut stream = TcpStream::from(socket);
    let url = RtmpUrl::parse(&format!("rtmp://{server}/live/s")).expect("a URL");
    let mut client = Client::new(url, Goal::Play, ClientOptions::default(), 1);
    let mut buffer = [0; 4_096];
    loop {
        while let Some(part) = client.transmit().pop() {
            stream.write_all(&part).expect("the gateway reads");
        }
        while let Some(event) = client.poll_event() {
            if event == Event::Playing {
                return stream;
            }
        }
        let count = stream.read(&mut buffer).expect("the gateway answers");
        client.receive(&buffer[..count]).expect("RTMP");
    }
}

#[test]
fn clients_that_come_and_go_are_counted() {
    let gateway = Running::start();
    let run = gateway.mixed(&[
        "--publish",
        "1@RTMP/live/s",
        "--play",
        "5@RTMP/live/s churn=10/s",
        "--whep",
        "2@HTTP/whep/live/s churn=5/s",
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
    let run = gateway.mixed(&[
        "--publish",
        "1@RTMP/live/s",
        "--play",
        "1@RTMP/live/s",
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
    let run = gateway.mixed(&[
        "--publish",
        "2@RTMP/live/same",
        "--play",
        &format!("3@rtmp://{closed}/live/s"),
        "--whep",
        "1@HTTP/nothing/here",
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
fn players_of_a_stream_that_nobody_publishes_are_told_as_not_clean() {
    let gateway = Running::start();
    let run = gateway.mixed(&[
        "--publish",
        "1@RTMP/live/s",
        "--play",
        "3@RTMP/live/other",
        "--duration",
        "3s",
    ]);
    assert_eq!(run.status, Some(1), "{}", run.told);
    let group = run.group(1);
    assert_eq!(group["faults"]["no_picture"], 3, "{group:#}");
    assert_eq!(group["pictures"], 0);
    // What they would have got of the clip.
    let expected = group["pictures_expected"].as_u64().expect("a number");
    assert!((3 * 70..=3 * 80).contains(&expected), "{group:#}");
}

#[test]
fn a_lossy_link_loses_packets_and_keeps_order() {
    let gateway = Running::start();
    let run = gateway.mixed(&[
        "--publish",
        "1@RTMP/live/s",
        "--whep",
        "3@HTTP/whep/live/s",
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
fn it_tells_each_second_and_ends_with_tables() {
    let gateway = Running::start();
    let Output { stdout, stderr, .. } = Command::new(env!("CARGO_BIN_EXE_rtmp-flood"))
        .args(["publish", &format!("rtmp://{}/live/s", gateway.rtmp)])
        .args(["--duration", "2s", "--pid", &std::process::id().to_string()])
        .output()
        .expect("the tool is built with the tests");
    let (stdout, stderr) = (
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr),
    );
    let lines = stderr
        .lines()
        .filter(|line| line.contains("| publish 1 up"));
    assert!(lines.count() >= 2, "{stderr}");
    assert!(stderr.contains("| server "), "{stderr}");
    for told in ["connected", "p95", "set-up", "in order", "server     CPU "] {
        assert!(stdout.contains(told), "{told} is not in\n{stdout}");
    }
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

#[test]
fn calls_stand_with_picture_and_sound_on_both_sides() {
    let gateway = Running::start();
    let signalling = format!("ws://{}/ws", gateway.http);
    // Both kinds of callers.
    let arguments = [
        "call",
        "--calls",
        "4",
        "--rate",
        "20",
        "--hold",
        "2s",
        &signalling,
    ];
    let run = Run::new(&arguments);
    let report = &run.report;
    assert_eq!(report["setup_ms"]["count"], 4, "{}\n{report:#}", run.told);
    assert_eq!(report["failed"], serde_json::json!({}), "{report:#}");
    assert_eq!(report["phones"]["undecodable"], 0, "{report:#}");
    assert_eq!(report["browsers"]["sounds_missing"], 0, "{report:#}");
    for (side, pictures, sounds) in [("phones", 100, 300), ("browsers", 100, 300)] {
        assert!(
            report[side]["pictures"].as_u64() > Some(pictures),
            "{report:#}"
        );
        assert!(report[side]["sounds"].as_u64() > Some(sounds), "{report:#}");
    }
    // A bound that cannot be kept is said to be broken.
    let strict = Run::new(&[&arguments[..], &["--max-setup-p99", "1us"]].concat());
    assert_eq!(strict.status, Some(1));
    assert!(strict.told.contains("set-up p99"), "{}", strict.told);
}

//! BBR beside CUBIC on a path that loses packets: RTMP players pull a stream through a
//! link that loses, and what arrives, and when, is told. `tools/bench/lossy` builds and
//! starts it.
//!
//! Publisher and players are one `rtmp-flood` in the far namespace, so that both ends of
//! the delay are on one clock. The publisher comes in by a second link, which only delays.

#[allow(dead_code, unused_imports)]
#[path = "../../tests/e2e/support/mod.rs"]
mod support;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use support::{Conditions, Gateway, Network, Way, namespace, scratch_dir};

fn main() {
    let program = |name: &str| {
        PathBuf::from(std::env::var_os(name).unwrap_or_else(|| panic!("{name} names a program")))
    };
    let (gateway, flood) = (program("RTMP_GATEWAY"), program("RTMP_FLOOD"));
    let available = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control")
        .unwrap_or_default();
    namespace::enter();
    println!(
        "| round trip, loss | congestion control | pictures delivered | delay p50 | p99 | skips |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    for loss in LOSSES {
        for control in ["bbr", "cubic"] {
            let what = format!("60 ms, {} % | {control}", loss * 100.0);
            if available.split_whitespace().any(|name| name == control) {
                println!("| {what} | {} |", measure(&gateway, &flood, *loss, control));
            } else {
                println!("| {what} | not in this kernel | | | |");
            }
        }
    }
}

/// Runs the players once and tells the last columns of the table.
fn measure(program: &PathBuf, flood: &PathBuf, loss: f64, control: &str) -> String {
    let network = Network::new(2);
    let delay = Conditions {
        delay: Duration::from_millis(30),
        ..Conditions::default()
    };
    let lossy = Conditions { loss, ..delay };
    for way in [Way::Down, Way::Up] {
        network.set_way(0, way, lossy);
        network.set_way(1, way, delay);
    }
    let config = format!("\n[sockets]\ntcp_congestion = \"{control}\"\n");
    let gateway = Gateway::start_on(program, "0.0.0.0", &[], &config);
    let rtmp = |link| {
        format!(
            "rtmp://{}:{}",
            Network::near_address(link),
            gateway.rtmp_port()
        )
    };
    let report = scratch_dir("lossy").join("report.json");
    let mut command = Command::new(flood);
    command
        .args(["mixed", "--quiet", "--bitrate", BITRATE, "--duration"])
        .arg(format!("{}s", MEASURED.as_secs()))
        .arg("--publish")
        .arg(format!("1@{}/live/s", rtmp(1)))
        .arg("--play")
        .arg(format!("{PLAYERS}@{}/live/s", rtmp(0)))
        .arg("--json")
        .arg(&report)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = network.in_far(|| command.spawn().expect("rtmp-flood starts"));
    let skips = last_skips(&gateway, &mut child);
    let report = std::fs::read_to_string(&report).unwrap_or_default();
    let report: Value = serde_json::from_str(&report).unwrap_or_default();
    let group = &report["groups"][1];
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let sent = number(&report["groups"][0]["pictures"]) * f64::from(PLAYERS);
    format!(
        "{:.1} % | {:.0} ms | {:.0} ms | {skips}",
        number(&group["pictures"]) * 100.0 / sent,
        number(&group["latency_ms"]["p50"]),
        number(&group["latency_ms"]["p99"]),
    )
}

/// How often the gateway had to move its players on, as it told last before they left.
fn last_skips(gateway: &Gateway, child: &mut Child) -> u64 {
    let mut skips = 0;
    let start = Instant::now();
    while child.try_wait().is_ok_and(|status| status.is_none()) {
        assert!(start.elapsed() < MEASURED * 3, "rtmp-flood does not end");
        let (_, text) = gateway.get("/api/v1/streams/live/s");
        let stream: Value = serde_json::from_str(&text).unwrap_or_default();
        let players = stream["player_list"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let sum: u64 = players.iter().filter_map(|it| it["skips"].as_u64()).sum();
        skips = skips.max(sum);
        thread::sleep(Duration::from_millis(200));
    }
    skips
}

/// The losses, in each direction.
const LOSSES: &[f64] = &[0.0, 0.01, 0.03];

/// Each player has a connection of its own, so each is a sample of its own.
const PLAYERS: u32 = 4;

/// Of the pictures.
const BITRATE: &str = "2500k";

/// From a second after all have begun.
const MEASURED: Duration = Duration::from_secs(20);

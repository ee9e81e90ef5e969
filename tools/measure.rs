//! Measures the gateway with real programs: times to the first picture each
//! way, end-to-end latency, CPU, memory, size. `tools/measure` builds and starts
//! it; the numbers go to standard output, one line each.
//!
//! Everything shares the machine (encoder, browser, gateway), so the times are
//! those of a whole small system and not of the gateway alone.

#[allow(dead_code, unused_imports)]
#[path = "../tests/e2e/support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

use support::rtmp_tools::Rtmpdump;
use support::{Browser, Gateway, Lab, Process, Source, median, namespace, wait_for};

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let program = PathBuf::from(
        std::env::var_os("RTMP_GATEWAY").expect("RTMP_GATEWAY names the program to measure"),
    );
    namespace::enter();
    let measurements: [(&str, Measurement); 7] = [
        ("idle", idle),
        ("rtmp-whep", first_picture_rtmp_to_whep),
        ("whip-rtmp", first_picture_whip_to_rtmp),
        ("rtmp-rtmp", first_picture_rtmp_to_rtmp),
        ("whip-whep", first_picture_whip_to_whep),
        ("latency", latency),
        ("cpu", cpu),
    ];
    for (name, measure) in measurements {
        if wanted.is_empty() || wanted.iter().any(|wish| wish == name) {
            measure(&program);
        }
    }
}

/// Measures one thing of the given program and prints it.
type Measurement = fn(&Path);

/// The program's size, the time from its start to its first answer, and what it
/// takes while it has nothing to do.
fn idle(program: &Path) {
    let size = std::fs::metadata(program)
        .expect("the program is there")
        .len();
    println!("binary size: {:.2} MB", size as f64 / 1e6);
    let start = Instant::now();
    let gateway = Gateway::start(program);
    println!(
        "start to first answer of /healthz, asked every 20 ms: {:.0} ms",
        millis(start.elapsed())
    );
    thread::sleep(Duration::from_secs(1));
    println!("idle RSS: {:.2} MB", rss_bytes(gateway.id()) / 1e6);
    println!(
        "idle CPU: {:.2} % of a core",
        cpu_share(gateway.id(), Duration::from_secs(5))
    );
}

/// WHEP POST to the first picture on the page, joining anywhere in the GOP.
fn first_picture_rtmp_to_whep(program: &Path) {
    for gop_seconds in [2, 8] {
        let gateway = Gateway::start(program);
        let source = Source {
            gop_seconds,
            ..Source::default()
        };
        let _publisher = source.publish(&gateway.rtmp("x"));
        let browser = Browser::start();
        let lab = Lab::open(&browser);
        gateway.wait_until_live("x");
        thread::sleep(Duration::from_secs(2));
        let (mut pictures, mut connects) = (Vec::new(), Vec::new());
        for turn in 0..RUNS {
            let name = format!("viewer{turn}");
            lab.play(&name, &gateway.whep("x"));
            let report = lab.wait_for_picture(&name, Duration::from_secs(10));
            pictures.push(report.number("/firstPictureMs"));
            connects.push(report.number("/connectedMs"));
            lab.stop(&name);
            // Joins drift through the GOP: 370 ms is no divisor of it.
            thread::sleep(Duration::from_millis(370));
        }
        print_times(
            &format!("RTMP to WHEP, GOP {gop_seconds} s: POST to connected"),
            &connects,
        );
        print_times(
            &format!("RTMP to WHEP, GOP {gop_seconds} s: POST to first picture"),
            &pictures,
        );
    }
}

/// WHIP answer to the first picture at an RTMP player that waits, and from the
/// start of a player that comes late to its first picture.
fn first_picture_whip_to_rtmp(program: &Path) {
    let gateway = Gateway::start(program);
    let browser = Browser::start();
    let lab = Lab::open(&browser);
    let (mut waiting_times, mut late_times) = (Vec::new(), Vec::new());
    for turn in 0..RUNS {
        let name = format!("cam{turn}");
        let waiting = Rtmpdump::play(&gateway.rtmp(&name));
        thread::sleep(Duration::from_millis(400));
        lab.publish(&name, &gateway.whip(&name), json!({}));
        let answered = lab
            .tab()
            .eval(&format!("lab.publishers.{name}.answerAtEpochMs"));
        let answered = UNIX_EPOCH + Duration::from_millis(answered.as_u64().unwrap_or(0));
        let picture = waiting.first_picture(Duration::from_secs(10));
        let since_answer = answered
            .elapsed()
            .unwrap_or_default()
            .saturating_sub(picture.elapsed());
        waiting_times.push(millis(since_answer));
        thread::sleep(Duration::from_millis(700));
        let late = Rtmpdump::play(&gateway.rtmp(&name));
        late_times.push(millis(
            late.first_picture(Duration::from_secs(10)) - late.started(),
        ));
        lab.stop(&name);
    }
    print_times(
        "WHIP to RTMP: answer to the waiting player's first picture",
        &waiting_times,
    );
    print_times(
        "WHIP to RTMP: start of a late rtmpdump to its first picture",
        &late_times,
    );
}

/// From the start of rtmpdump to its first picture.
fn first_picture_rtmp_to_rtmp(program: &Path) {
    let gateway = Gateway::start(program);
    let _publisher = Source::default().publish(&gateway.rtmp("x"));
    gateway.wait_until_live("x");
    thread::sleep(Duration::from_secs(2));
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let dump = Rtmpdump::play(&gateway.rtmp("x"));
        times.push(millis(
            dump.first_picture(Duration::from_secs(10)) - dump.started(),
        ));
        thread::sleep(Duration::from_millis(370));
    }
    print_times(
        "RTMP to RTMP: start of rtmpdump to its first picture",
        &times,
    );
}

/// WHEP POST to the first picture of a browser's stream.
fn first_picture_whip_to_whep(program: &Path) {
    let gateway = Gateway::start(program);
    let browser = Browser::start();
    let lab = Lab::open(&browser);
    lab.publish("cam", &gateway.whip("cam"), json!({}));
    gateway.wait_until_live("cam");
    thread::sleep(Duration::from_secs(2));
    let mut times = Vec::new();
    for turn in 0..RUNS {
        let name = format!("viewer{turn}");
        lab.play(&name, &gateway.whep("cam"));
        times.push(
            lab.wait_for_picture(&name, Duration::from_secs(10))
                .number("/firstPictureMs"),
        );
        lab.stop(&name);
        thread::sleep(Duration::from_millis(370));
    }
    print_times("WHIP to WHEP: POST to first picture", &times);
}

/// From the moment a picture is handed to the encoder to the moment the page
/// shows it: encoder, RTMP, gateway, jitter buffer, decoder, compositor.
fn latency(program: &Path) {
    let gateway = Gateway::start(program);
    let camera = Camera::publish(&gateway.rtmp("x"));
    let browser = Browser::start();
    let lab = Lab::open(&browser);
    gateway.wait_until_live("x");
    lab.play("viewer", &gateway.whep("x"));
    lab.wait_for_picture("viewer", Duration::from_secs(10));
    thread::sleep(Duration::from_secs(3));
    lab.tab().eval(READ_STAMPS);
    thread::sleep(Duration::from_secs(15));
    let latencies: Vec<f64> = lab
        .tab()
        .eval("lab.latencies")
        .as_array()
        .map(|values| {
            values
                .iter()
                .filter_map(serde_json::Value::as_f64)
                .collect()
        })
        .unwrap_or_default();
    print_times(
        "RTMP to WHEP: end-to-end latency, encoder and browser included",
        &latencies,
    );
    let report = lab.report("viewer");
    let buffered = |kind: &str| {
        report.number(&format!("/{kind}/jitterBufferDelay")) * 1000.0
            / report.number(&format!("/{kind}/jitterBufferEmittedCount"))
    };
    println!(
        "    of that in the browser's jitter buffer: {:.0} ms",
        buffered("video")
    );
    camera.stop();
}

/// CPU of the gateway with one stream of 1 Mbit/s, without and with viewers.
fn cpu(program: &Path) {
    let gateway = Gateway::start(program);
    let source = Source {
        width: 1280,
        height: 720,
        video_bits: 1_000_000,
        profile: "main",
        ..Source::default()
    };
    let _publisher = source.publish(&gateway.rtmp("x"));
    gateway.wait_until_live("x");
    thread::sleep(Duration::from_secs(2));
    let window = Duration::from_secs(10);
    println!(
        "CPU, 1 Mbit/s stream, nobody watches: {:.2} % of a core",
        cpu_share(gateway.id(), window)
    );
    let dump = Rtmpdump::play(&gateway.rtmp("x"));
    dump.first_picture(Duration::from_secs(10));
    println!(
        "CPU, 1 Mbit/s stream, one RTMP player: {:.2} % of a core",
        cpu_share(gateway.id(), window)
    );
    drop(dump);
    let browser = Browser::start();
    let lab = Lab::open(&browser);
    lab.play("viewer", &gateway.whep("x"));
    lab.wait_for_picture("viewer", Duration::from_secs(10));
    thread::sleep(Duration::from_secs(2));
    println!(
        "CPU, 1 Mbit/s stream, one WHEP viewer: {:.2} % of a core",
        cpu_share(gateway.id(), window)
    );
    println!("RSS with that: {:.2} MB", rss_bytes(gateway.id()) / 1e6);
}

/// A camera that stamps each picture with the time at which it was taken, as 32
/// black or white cells along the upper edge.
struct Camera {
    running: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

impl Camera {
    fn publish(url: &str) -> Self {
        let mut command = Command::new("ffmpeg");
        command
            .args([
                "-hide_banner",
                "-loglevel",
                "warning",
                "-f",
                "rawvideo",
                "-pix_fmt",
                "yuv420p",
            ])
            .args(["-s", "640x360", "-r", "25", "-i", "-"])
            .args(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000"])
            .args([
                "-c:v",
                "libx264",
                "-preset",
                "veryfast",
                "-tune",
                "zerolatency",
                "-threads",
                "1",
            ])
            .args([
                "-profile:v",
                "baseline",
                "-g",
                "50",
                "-b:v",
                "1M",
                "-c:a",
                "aac",
                "-b:a",
                "96k",
            ])
            .args(["-flush_packets", "1", "-f", "flv", url]);
        let mut encoder = Process::spawn("ffmpeg camera", &mut command);
        let running = Arc::new(AtomicBool::new(true));
        let still = Arc::clone(&running);
        let thread = thread::spawn(move || {
            let start = Instant::now();
            let mut picture = vec![128_u8; 640 * 360 * 3 / 2];
            for number in 0_u32.. {
                if !still.load(Ordering::Relaxed) {
                    break;
                }
                let due = Duration::from_millis(40) * number;
                thread::sleep(due.saturating_sub(start.elapsed()));
                for (index, sample) in picture.iter_mut().take(640 * 360).enumerate() {
                    let (x, y) = (index % 640, index / 640);
                    *sample = (60 + (x / 5 + y / 3 + number as usize * 2) % 120) as u8;
                }
                let now = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default();
                let stamp = now.as_millis() as u32;
                for row in picture.chunks_exact_mut(640).take(40) {
                    for (cell, samples) in row.chunks_exact_mut(20).enumerate() {
                        samples.fill(if stamp & (1 << (31 - cell)) == 0 {
                            16
                        } else {
                            235
                        });
                    }
                }
                if !encoder.write_stdin(&picture) {
                    break;
                }
            }
        });
        Self { running, thread }
    }

    fn stop(self) {
        self.running.store(false, Ordering::Relaxed);
        let _ = self.thread.join();
    }
}

/// Reads the camera's stamps on the page.
const READ_STAMPS: &str = r"(() => {
  lab.latencies = [];
  const canvas = new OffscreenCanvas(640, 40);
  const pen = canvas.getContext('2d', { willReadFrequently: true });
  lab.players.viewer.onPicture = (picture, video) => {
    pen.drawImage(video, 0, 0, 640, 40, 0, 0, 640, 40);
    const row = pen.getImageData(0, 20, 640, 1).data;
    let stamp = 0;
    for (let cell = 0; cell < 32; cell++) stamp = stamp * 2 + (row[(cell * 20 + 10) * 4 + 1] > 128 ? 1 : 0);
    const shown = (performance.timeOrigin + picture.presentationTime) % 2 ** 32;
    lab.latencies.push(shown - stamp);
  };
})()";

/// Prints median and worst of some times in ms.
fn print_times(what: &str, times: &[f64]) {
    if times.is_empty() {
        println!("{what}: nothing measured");
        return;
    }
    let worst = times.iter().copied().fold(0.0, f64::max);
    println!(
        "{what}: median {:.0} ms, worst of {} {worst:.0} ms",
        median(times),
        times.len()
    );
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// The CPU time of a process over `window`, in percent of one core.
fn cpu_share(pid: u32, window: Duration) -> f64 {
    let before = cpu_seconds(pid);
    let start = Instant::now();
    thread::sleep(window);
    (cpu_seconds(pid) - before) * 100.0 / start.elapsed().as_secs_f64()
}

/// User and system time of all threads, from `schedstat` in ns: the ticks of
/// `stat` are too coarse for a fraction of a percent.
fn cpu_seconds(pid: u32) -> f64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|text| text.split(' ').next()?.parse::<f64>().ok())
        .sum::<f64>()
        / 1e9
}

/// Resident memory of a process.
fn rss_bytes(pid: u32) -> f64 {
    wait_for("VmRSS", Duration::from_secs(1), || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().trim_end_matches(" kB").parse::<f64>().ok()
    }) * 1024.0
}

/// Joins per median: the worst of 20 is what one viewer in twenty may meet.
const RUNS: u32 = 20;

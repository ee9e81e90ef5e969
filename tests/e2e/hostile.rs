//! Attacks on the sockets of the program while ffmpeg publishes and ffmpeg plays: the player
//! gets every packet, and the program gives back what the attack made it hold.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::GATEWAY;
use crate::rtmp_to_rtmp::{CLIP, packet_hashes};
use crate::support::{Gateway, alone, ffmpeg, scratch_dir, wait_for};

#[test]
fn a_player_misses_nothing_while_every_port_is_attacked() {
    alone(|| {
        let gateway = Gateway::start_with(GATEWAY, &[], "tcp_connections_max = 100");
        let _publisher = ffmpeg::publish_file(Path::new(CLIP), &gateway.rtmp("x"));
        gateway.wait_until_live("x");
        let file = scratch_dir("attacked").join("x.flv");
        let mut recorder = ffmpeg::record(&gateway.rtmp("x"), Some(18), &file);
        thread::sleep(Duration::from_secs(2));
        let ports = Ports::of(&gateway);
        let base = Held::by(&gateway);

        let mut held = half_handshakes(&ports);
        held.extend(half_closed(&ports));
        random_bytes(&ports);
        resets(&ports);
        let crowd = crowd(ports.webrtc, 300);
        drip(&mut held, Duration::from_secs(3));
        let during = Held::by(&gateway);
        println!("before {base:?}, during {during:?}");
        assert!(
            during.rss_kb < base.rss_kb + 48 * 1024,
            "{base:?} {during:?}"
        );
        // A request among all that is answered at once.
        let asked = Instant::now();
        assert_eq!(gateway.get("/healthz").0, 200);
        assert!(
            asked.elapsed() < Duration::from_millis(500),
            "{:?}",
            asked.elapsed()
        );

        // Everybody is shown out who only waits: after 5 seconds over RTMP, 10 over HTTP and
        // ICE-TCP, and 2 more for who does not hear the end.
        let files = || Some(Held::by(&gateway)).filter(|now| now.files <= base.files);
        let after = wait_for("files are given back", Duration::from_secs(20), files);
        println!("after {after:?}");
        assert!(after.rss_kb < base.rss_kb + 32 * 1024, "{base:?} {after:?}");
        drop((held, crowd));
        let (_, metrics) = gateway.get("/metrics");
        for reason in [
            "handshake_timeout",
            "head_timeout",
            "ice_tcp_idle",
            "ice_tcp_frame_too_long",
        ] {
            let counted = format!("errors_total{{reason=\"{reason}\"}}");
            assert!(
                metrics.contains(&counted),
                "{reason} is not counted: {metrics}"
            );
        }

        assert!(recorder.wait(Duration::from_secs(25)).success());
        assert_eq!(recorder.stderr(), "");
        for stream in ["v:0", "a:0"] {
            let sent = packet_hashes(Path::new(CLIP), stream);
            let received = packet_hashes(&file, stream);
            assert!(received.len() > 400, "{stream}: {} packets", received.len());
            // The clip is sent over and over: what came is a run of that.
            let endless: Vec<&String> = std::iter::repeat_n(&sent, 8).flatten().collect();
            let run: Vec<&String> = received.iter().collect();
            assert!(
                endless.windows(run.len()).any(|window| window == run),
                "{stream}: packets changed, were lost or came twice"
            );
        }
    });
}

struct Ports {
    rtmp: u16,
    http: u16,
    webrtc: u16,
}

impl Ports {
    fn of(gateway: &Gateway) -> Self {
        Self {
            rtmp: gateway.rtmp_port(),
            http: gateway.http_port(),
            webrtc: gateway.webrtc_port(),
        }
    }

    fn all(&self) -> [u16; 3] {
        [self.rtmp, self.http, self.webrtc]
    }
}

/// What the process holds.
#[derive(Debug)]
struct Held {
    rss_kb: u64,
    files: usize,
}

impl Held {
    fn by(gateway: &Gateway) -> Self {
        let process = format!("/proc/{}", gateway.id());
        let status = std::fs::read_to_string(format!("{process}/status")).expect("it runs");
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let rss = rss
            .and_then(|rss| rss.split_whitespace().next())
            .expect("a number of kB");
        let files = std::fs::read_dir(format!("{process}/fd")).expect("it runs");
        Self {
            rss_kb: rss.parse().expect("a number"),
            files: files.count(),
        }
    }
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("a listener");
    stream.set_nodelay(true).expect("no delay");
    stream
}

/// A thousand connections that begin to speak and stop.
fn half_handshakes(ports: &Ports) -> Vec<TcpStream> {
    let mut hello = vec![0; 1 + 2 * 1_536];
    hello[0] = 3;
    let request = b"POST /whip/live/x HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\nv=0\r\n";
    (0..1_000)
        .map(|n| {
            let (port, said) = match n % 5 {
                0 => (ports.rtmp, &hello[..1 + n]),
                1 => (ports.http, &request[..1 + n % (request.len() - 1)]),
                2 => (ports.http, &b""[..]),
                _ => (ports.rtmp, &hello[..n / 4]),
            };
            let mut stream = connect(port);
            stream.write_all(said).expect("sent");
            stream
        })
        .collect()
}

/// Connections that have said that nothing more will come, in the middle of a word.
fn half_closed(ports: &Ports) -> Vec<TcpStream> {
    let close = |port: u16| {
        let mut stream = connect(port);
        stream.write_all(b"\x03half").expect("sent");
        stream.shutdown(Shutdown::Write).expect("half closed");
        stream
    };
    ports
        .all()
        .into_iter()
        .flat_map(|port| (0..50).map(move |_| port))
        .map(close)
        .collect()
}

/// More connections than there may be.
fn crowd(port: u16, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| connect(port)).collect()
}

fn random_bytes(ports: &Ports) {
    let mut state = 7_u64;
    let mut noise = |len: usize| -> Vec<u8> {
        let draw = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        std::iter::repeat_with(draw).take(len).collect()
    };
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    for n in 0..10_000 {
        let _ = udp.send_to(&noise(n % 1_500), ("127.0.0.1", ports.webrtc));
    }
    for port in ports.all() {
        for n in 0..100 {
            // It may be closed before all is sent.
            let _ = connect(port).write_all(&noise(200 * n));
        }
    }
}

/// Connections that end by a reset, because their answer is not read: in a handshake, in a
/// message, in a request.
fn resets(ports: &Ports) {
    let mut hello = vec![0; 1 + 2 * 1_536];
    hello[0] = 3;
    // A message of a megabyte, of which 100 bytes come.
    let mut message = hello.clone();
    message.extend_from_slice(&[4, 0, 0, 0, 0x10, 0, 0, 20, 0, 0, 0, 0]);
    message.resize(message.len() + 100, 0);
    for n in 0..300 {
        let (port, said) = match n % 3 {
            0 => (ports.rtmp, &hello[..]),
            1 => (ports.rtmp, &message[..]),
            _ => (
                ports.http,
                &b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HT"[..],
            ),
        };
        let mut stream = connect(port);
        stream.write_all(said).expect("sent");
        // The answer is there and is thrown away: the system resets.
        let _ = stream.peek(&mut [0]);
    }
}

/// A byte now and then over each connection, as if there were more to come.
fn drip(held: &mut [TcpStream], span: Duration) {
    let end = Instant::now() + span;
    while Instant::now() < end {
        for stream in held.iter_mut() {
            let _ = stream.write(b"a");
        }
        thread::sleep(Duration::from_millis(300));
    }
    for stream in held.iter_mut() {
        stream.set_nonblocking(true).expect("a socket");
        let _ = stream.read(&mut [0; 64]);
    }
}

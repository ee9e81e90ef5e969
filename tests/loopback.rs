//! The shell around the gateway on real sockets of this machine: the promises that no test
//! in memory can prove. Each test has a server of its own, on ports of the system's choice.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rtmp_gateway::config::Config;
use rtmp_gateway::net::{BindError, Server, Stopper};

/// A gateway in a thread of its own.
struct Running {
    rtmp: SocketAddr,
    http: SocketAddr,
    udp: SocketAddr,
    stopper: Stopper,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Running {
    fn start(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        for listen in [
            &mut config.rtmp.listen,
            &mut config.http.listen,
            &mut config.webrtc.listen,
        ] {
            listen.set_port(0);
        }
        config.audio.workers = 1;
        change(&mut config);
        let server = Server::bind(config).expect("any port will do");
        let local =
            |address: SocketAddr| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port());
        Self {
            rtmp: local(server.rtmp_addr),
            http: local(server.http_addr),
            udp: local(server.udp_addr),
            stopper: server.stopper(),
            thread: Some(thread::spawn(|| server.run())),
        }
    }

    /// Waits for the end of the loop.
    fn join(&mut self) {
        let thread = self.thread.take().expect("joined once");
        thread.join().expect("no panic").expect("no error");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.thread.is_some() && !thread::panicking() {
            self.stopper.stop();
            self.join();
        }
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a listener");
    let timeout = Some(Duration::from_secs(10));
    stream.set_read_timeout(timeout).expect("a timeout");
    stream
}

/// Sends a request.
fn ask(stream: &mut TcpStream) {
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("sent");
}

/// Reads one response and answers its status line.
fn answer(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a whole head");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("text");
    let length = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, value)| value.trim().parse().expect("a number"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("a whole body");
    head.lines().next().unwrap_or_default().to_owned()
}

/// Whether the peer has closed: by a FIN or, if it threw away what we sent, a reset.
fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = [0; 4_096];
    loop {
        match stream.read(&mut rest) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return true,
            Err(_) => return false,
        }
    }
}

const OK: &str = "HTTP/1.1 200 OK";

#[test]
fn requests_are_answered_one_after_the_other() {
    let gateway = Running::start(|_| {});
    let mut stream = connect(gateway.http);
    for _ in 0..3 {
        ask(&mut stream);
        assert_eq!(answer(&mut stream), OK);
    }
}

#[test]
fn ipv6_is_heard_where_the_system_has_it() {
    let gateway = Running::start(|_| {});
    let address = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], gateway.http.port()));
    match TcpStream::connect(address) {
        Ok(mut stream) => {
            ask(&mut stream);
            assert_eq!(answer(&mut stream), OK);
        }
        Err(error) => assert_ne!(error.kind(), ErrorKind::ConnectionRefused),
    }
}

#[test]
fn a_client_that_ends_its_side_with_the_request_gets_its_answer() {
    let gateway = Running::start(|_| {});
    for _ in 0..20 {
        let mut stream = connect(gateway.http);
        ask(&mut stream);
        stream.shutdown(Shutdown::Write).expect("half closed");
        assert_eq!(answer(&mut stream), OK);
        assert!(is_closed(&mut stream));
    }
}

#[test]
fn a_refusal_reaches_a_client_that_goes_on_sending() {
    let gateway = Running::start(|_| {});
    let mut stream = connect(gateway.http);
    stream.write_all(b"\x00\x01garbage\r\n\r\n").expect("sent");
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(5));
        if stream.write_all(&[b'x'; 1_000]).is_err() {
            break;
        }
    }
    assert_eq!(answer(&mut stream), "HTTP/1.1 400 Bad Request");
    assert!(is_closed(&mut stream));
}

#[test]
fn a_crowd_that_comes_at_once_is_served() {
    let gateway = Running::start(|_| {});
    let mut crowd: Vec<TcpStream> = (0..300).map(|_| connect(gateway.http)).collect();
    crowd.iter_mut().for_each(ask);
    for stream in &mut crowd {
        assert_eq!(answer(stream), OK);
    }
}

#[test]
fn one_connection_more_than_the_limit_is_closed_and_room_is_made_again() {
    let gateway = Running::start(|config| config.http.connections_max = 2);
    let mut one = connect(gateway.http);
    let mut two = connect(gateway.http);
    for stream in [&mut one, &mut two] {
        ask(stream);
        assert_eq!(answer(stream), OK);
    }
    assert!(is_closed(&mut connect(gateway.http)));
    drop(one);
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let mut next = connect(gateway.http);
        let _ = next.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let mut byte = [0];
        if let Ok(1) = next.read(&mut byte) {
            break;
        }
        assert!(Instant::now() < end, "the place was not given back");
    }
    ask(&mut two);
    assert_eq!(answer(&mut two), OK);
}

#[test]
fn a_handshake_cut_into_bytes_is_answered() {
    let gateway = Running::start(|_| {});
    let mut stream = connect(gateway.rtmp);
    stream.set_nodelay(true).expect("no delay");
    // C0 and C1 (RTMP 1.0 section 5.2).
    let mut hello = [0; 1 + 1_536];
    hello[0] = 3;
    for byte in hello.chunks(1) {
        stream.write_all(byte).expect("sent");
    }
    let mut reply = [0; 1 + 1_536];
    stream.read_exact(&mut reply).expect("S0 and S1");
    assert_eq!(reply[0], 3);
}

#[test]
fn datagrams_of_nobody_disturb_nobody() {
    let gateway = Running::start(|_| {});
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    for n in 0..2_000_usize {
        let length = n % 1_500;
        let _ = socket.send_to(&vec![n as u8; length], gateway.udp);
    }
    let mut stream = connect(gateway.http);
    ask(&mut stream);
    assert_eq!(answer(&mut stream), OK);
}

#[test]
fn ice_tcp_is_on_the_number_of_the_udp_port() {
    let gateway = Running::start(|_| {});
    connect(gateway.udp);
    let gateway = Running::start(|config| config.webrtc.tcp = false);
    let refused = TcpStream::connect(gateway.udp).expect_err("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn draining_ends_the_loop() {
    let mut gateway = Running::start(|_| {});
    let mut stream = connect(gateway.http);
    ask(&mut stream);
    assert_eq!(answer(&mut stream), OK);
    gateway.stopper.drain();
    gateway.join();
    assert!(is_closed(&mut stream));
    TcpStream::connect(gateway.http).expect_err("nobody listens");
}

#[test]
fn a_taken_address_is_told_by_its_key() {
    let gateway = Running::start(|_| {});
    let mut config = Config::default();
    config.rtmp.listen = gateway.rtmp;
    let Err(error) = Server::bind(config) else {
        panic!("two listeners on one address");
    };
    assert!(matches!(error, BindError::Socket { .. }));
    let told = error.to_string();
    let expected = format!("rtmp.listen: cannot listen on {}: ", gateway.rtmp);
    assert!(told.starts_with(&expected), "{told}");
}

/// Answers each POST with what `reply` says of its body; gives the bodies on.
fn hook(
    reply: impl Fn(&str) -> &'static str + Send + 'static,
) -> (SocketAddr, std::sync::mpsc::Receiver<(String, String)>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (told, bodies) = std::sync::mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).to_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            if stream.read_exact(&mut body).is_err() {
                continue;
            }
            let body = String::from_utf8(body).expect("text");
            let _ = stream.write_all(reply(&body).as_bytes());
            if told.send((head, body)).is_err() {
                return;
            }
        }
    });
    (address, bodies)
}

/// Asks to play by WHEP and answers the status line.
fn whep(gateway: &Running, stream: &str) -> String {
    let offer = include_str!("fixtures/offers/chromium-156-recvonly.sdp");
    let mut connection = connect(gateway.http);
    let request = format!(
        "POST /whep/live/{stream} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/sdp\r\n\
         Content-Length: {}\r\n\r\n{offer}",
        offer.len()
    );
    connection.write_all(request.as_bytes()).expect("sent");
    answer(&mut connection)
}

#[test]
fn a_real_server_is_asked_by_signed_posts_and_redirects_lead_nowhere() {
    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    const NO: &str = "HTTP/1.1 403 Forbidden\r\nContent-Length: 17\r\nConnection: close\r\n\r\n\
                      {\"reason\":\"never\"}";
    const AWAY: &str = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\
                        Content-Length: 0\r\nConnection: close\r\n\r\n";
    let (address, bodies) = hook(|body| match body {
        _ if body.contains("live/good") => OK,
        _ if body.contains("live/away") => AWAY,
        _ => NO,
    });
    let gateway = Running::start(|config| {
        config.callback.url = format!("http://{address}/hook?a=b");
        config.callback.secret = rtmp_gateway::config::Secret::new("key");
    });
    // Nobody publishes it: being let in is answered by 409, being refused by 403.
    for (stream, is_refused) in [("good", false), ("bad", true), ("away", true)] {
        let status = whep(&gateway, stream);
        assert_eq!(status.contains(" 403 "), is_refused, "{stream}: {status}");
    }
    let (head, body) = bodies.recv_timeout(Duration::from_secs(5)).expect("asked");
    assert!(head.starts_with("post /hook?a=b http/1.1"), "{head}");
    assert!(head.contains("content-type: application/json"), "{head}");
    assert!(head.contains("x-gateway-signature: sha256="), "{head}");
    assert!(body.contains("\"event\":\"play\""), "{body}");
}

#[test]
fn a_callback_server_that_hangs_holds_up_nothing_else() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let gateway = Running::start(|config| {
        config.callback.url = format!("http://{address}/");
        config.callback.timeout = Duration::from_millis(400);
    });
    let begin = Instant::now();
    thread::scope(|scope| {
        let waits = scope.spawn(|| (whep(&gateway, "a"), begin.elapsed()));
        let mut stream = connect(gateway.http);
        for _ in 0..10 {
            ask(&mut stream);
            assert_eq!(answer(&mut stream), OK);
        }
        let healthy = begin.elapsed();
        let (status, after) = waits.join().expect("no panic");
        assert!(status.contains(" 403 "), "{status}");
        assert!(
            after >= Duration::from_millis(400) && healthy < after,
            "{healthy:?} {after:?}"
        );
    });
    drop(listener);
}

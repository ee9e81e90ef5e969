use super::*;
use crate::http::{Status, Version};

/// Everything a session did with some input, for comparing cuts.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    requests: Vec<Request>,
    sent: Vec<u8>,
    error: Option<Error>,
    closing: bool,
}

fn sent(session: &mut Session) -> String {
    let mut all = Vec::new();
    while let Some(bytes) = session.transmit().pop() {
        all.extend_from_slice(&bytes);
    }
    String::from_utf8(all).expect("text")
}

/// Feeds `pieces` and answers each request with its own path.
fn run<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Seen {
    let now = Instant::now();
    let mut session = Session::new(Limits::default(), now);
    let mut seen = Seen::default();
    for piece in pieces {
        seen.error = seen.error.or(session.receive(now, piece).err());
        while let Some(Event::Request(request)) = session.poll_event() {
            let answer = Response::text(request.path.join("/"));
            seen.requests.push(request);
            seen.error = seen.error.or(session.respond(now, answer).err());
        }
    }
    seen.sent = sent(&mut session).into_bytes();
    seen.closing = session.is_closing();
    seen
}

/// One answer for all cuts: whole, at every byte, and byte by byte.
fn run_every_cut(wire: &[u8]) -> Seen {
    let whole = run([wire]);
    for at in 1..wire.len() {
        let (first, second) = wire.split_at(at);
        let cut = run([first, second]);
        // `100 Continue` is sent only if the body did not come along with the head.
        assert_eq!(cut.requests, whole.requests, "cut at {at}");
        assert_eq!(cut.error, whole.error, "cut at {at}");
        assert_eq!(cut.closing, whole.closing, "cut at {at}");
    }
    let bytes = run(wire.chunks(1));
    assert_eq!(bytes.requests, whole.requests, "byte by byte");
    assert_eq!(bytes.error, whole.error, "byte by byte");
    whole
}

fn error_of(wire: &str) -> Option<Error> {
    let seen = run_every_cut(wire.as_bytes());
    assert_eq!(seen.requests, [], "{wire:?}");
    seen.error
}

#[test]
fn a_request_is_the_same_however_it_is_cut() {
    let wire = b"\r\nPOST /whip/live/d%C3%A9mo?token=a%20b HTTP/1.1\r\n\
        Host: gw:8080\r\ncontent-TYPE: Application/SDP; charset=x\r\n\
        Content-Length: 7\r\nX-Empty:\r\n\r\nv=0\r\nab\r\nGET / HTTP/1.1\nHost: h\n\n";
    let seen = run_every_cut(wire);
    assert_eq!((seen.error, seen.closing), (None, false));
    let [post, get] = &seen.requests[..] else {
        panic!("{:?}", seen.requests)
    };
    assert_eq!(post.method, Method::Post);
    assert_eq!(post.path, ["whip", "live", "démo"]);
    assert_eq!(post.query("token"), Some("a b"));
    assert_eq!(post.content_type().as_deref(), Some("application/sdp"));
    assert_eq!(post.headers.get("x-empty"), Some(""));
    assert_eq!(post.host.as_deref(), Some("gw:8080"));
    assert_eq!(&post.body[..], b"v=0\r\nab");
    assert_eq!((get.method, get.path.len()), (Method::Get, 0));
    let sent = String::from_utf8(seen.sent).expect("text");
    assert_eq!(sent.matches("HTTP/1.1 200 OK\r\n").count(), 2);
    assert!(sent.contains("\r\n\r\nwhip/live/démoHTTP/1.1"), "{sent}");
}

#[test]
fn chunked_bodies_are_joined_however_they_are_cut() {
    let wire = b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n\
        3\r\nabc\r\n2;x\r\nde\r\n0\r\nTrailer: x\r\n\r\nGET /b HTTP/1.0\r\n\r\n";
    let seen = run_every_cut(wire);
    assert_eq!(&seen.requests[0].body[..], b"abcde");
    assert_eq!(seen.requests[1].version, Version::Http10);
    assert!(seen.closing, "HTTP/1.0 is closed behind the answer");
}

#[test]
fn pipelined_requests_wait_for_their_turn() {
    let now = Instant::now();
    let mut session = Session::new(Limits::default(), now);
    let wire = b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n";
    session.receive(now, wire).expect("valid");
    let Some(Event::Request(first)) = session.poll_event() else {
        panic!("the first is whole")
    };
    assert_eq!(first.path, ["1"]);
    assert_eq!(session.poll_event(), None);
    assert_eq!(
        session.next_timeout(),
        None,
        "the gateway may take its time"
    );
    session.respond(now, Response::text("one")).expect("valid");
    let Some(Event::Request(second)) = session.poll_event() else {
        panic!("the second is whole")
    };
    assert_eq!(second.path, ["2"]);
}

#[test]
fn a_peer_that_does_not_read_gets_no_more_answers() {
    let now = Instant::now();
    let limits = Limits::default();
    let mut session = Session::new(limits, now);
    let wire = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".repeat(100);
    session.receive(now, &wire).expect("valid");
    let mut answered = 0;
    while session.poll_event().is_some() {
        let body = "x".repeat(100_000);
        session.respond(now, Response::text(body)).expect("valid");
        answered += 1;
    }
    assert_eq!(answered, 3);
    let due = now + limits.keep_alive_timeout;
    assert_eq!(session.next_timeout(), Some(due));
    session.transmit().pop();
    session.transmit().pop();
    assert!(session.poll_event().is_some(), "written: the next one");
    // And one that sends on, never reading, is closed.
    let mut session = Session::new(limits, now);
    session.receive(now, &wire[..27]).expect("valid");
    assert!(session.poll_event().is_some());
    let mut fed = 0;
    while session.receive(now, &wire).is_ok() {
        fed += wire.len();
        assert!(fed <= limits.head_bytes_max + limits.body_bytes_max);
    }
    assert!(session.is_closing());
    assert!(session.transmit().is_empty(), "no answer out of turn");
    session
        .respond(now, Response::text("late"))
        .expect("ignored");
    assert!(session.transmit().is_empty());
}

#[test]
fn the_connection_is_kept_by_the_rules_of_each_version() {
    let kept = |head: &str| {
        let seen = run_every_cut(format!("GET / HTTP/{head}\r\n\r\n").as_bytes());
        assert_eq!(seen.requests.len(), 1);
        let sent = String::from_utf8(seen.sent).expect("text");
        let said = sent
            .lines()
            .find_map(|line| line.strip_prefix("Connection: "))
            .map(str::to_owned);
        (!seen.closing, said.unwrap_or_default())
    };
    assert_eq!(kept("1.1\r\nHost: h"), (true, String::new()));
    let close = (false, "close".to_owned());
    assert_eq!(kept("1.1\r\nHost: h\r\nConnection: x, Close"), close);
    assert_eq!(kept("1.0"), close);
    let kept_alive = (true, "keep-alive".to_owned());
    assert_eq!(kept("1.0\r\nConnection: Keep-Alive"), kept_alive);
}

#[test]
fn a_head_request_gets_the_length_but_no_body() {
    let seen = run_every_cut(b"HEAD /abc HTTP/1.1\r\nHost: h\r\n\r\n");
    let sent = String::from_utf8(seen.sent).expect("text");
    assert!(sent.contains("Content-Length: 3\r\n"), "{sent}");
    assert!(sent.ends_with("\r\n\r\n"), "{sent}");
}

#[test]
fn continue_is_sent_once_and_only_to_a_peer_that_waits() {
    let head = "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n";
    let seen = run([head.as_bytes()]);
    assert_eq!(seen.sent, CONTINUE);
    let seen = run([head.as_bytes(), b"a", b"b"]);
    assert_eq!(&seen.requests[0].body[..], b"ab");
    let sent = String::from_utf8(seen.sent).expect("text");
    assert_eq!(sent.matches("100 Continue").count(), 1);
    let eager = format!("{head}ab");
    let sent = String::from_utf8(run([eager.as_bytes()]).sent).expect("text");
    assert!(!sent.contains("100 Continue"));
    let old = head.replace("HTTP/1.1", "HTTP/1.0");
    assert_eq!(run([old.as_bytes()]).sent, b"");
    let large = head.replace("Length: 2", "Length: 999999");
    let seen = run([large.as_bytes()]);
    assert_eq!(seen.error, Some(Error::BodyTooLarge));
    assert!(seen.sent.starts_with(b"HTTP/1.1 413 "), "no invitation");
}

#[test]
fn whatever_two_servers_could_read_differently_is_refused() {
    let post = |fields: &str| {
        error_of(&format!(
            "POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n0\r\n\r\n"
        ))
    };
    let ambiguous = Some(Error::AmbiguousFraming);
    assert_eq!(
        post("Content-Length: 5\r\nTransfer-Encoding: chunked"),
        ambiguous
    );
    assert_eq!(
        post("Transfer-Encoding: chunked\r\nContent-Length: 5"),
        ambiguous
    );
    assert_eq!(post("Transfer-Encoding: gzip"), ambiguous);
    assert_eq!(post("Transfer-Encoding: chunked, gzip"), ambiguous);
    assert_eq!(post("Transfer-Encoding:"), ambiguous);
    assert_eq!(post("Transfer-Encoding: xchunked"), ambiguous);
    assert_eq!(
        error_of("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ambiguous
    );
    let coding = Some(Error::UnsupportedCoding);
    assert_eq!(post("Transfer-Encoding: gzip, chunked"), coding);
    assert_eq!(
        post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        coding
    );
    let length = Some(Error::BadContentLength);
    for fields in [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 6",
        "Content-Length: +5",
        "Content-Length: -1",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        "Content-Length:",
        "Content-Length: 5,",
        "Content-Length: \u{663}",
    ] {
        assert_eq!(post(fields), length, "{fields}");
    }
    let head = Some(Error::MalformedHead);
    assert_eq!(post("Content-Length : 5"), head);
    assert_eq!(post("X: y\r\n Content-Length: 5"), head);
    assert_eq!(post("Content-Length: 5\rX: y"), head);
    let host = Some(Error::BadHost);
    assert_eq!(error_of("GET / HTTP/1.1\r\n\r\n"), host);
    assert_eq!(
        error_of("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        host
    );
    assert_eq!(error_of("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"), host);
    // Said twice alike, it is no contradiction.
    let seen = run([&b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2, 2\r\n\r\nab"[..]]);
    assert_eq!(seen.requests.len(), 1);
}

#[test]
fn each_error_has_its_status_and_a_problem_body_any_origin_may_read() {
    let cases = [
        ("\u{16}\u{3}\u{1}", 400, "malformed_head"),
        ("G\0T / HTTP/1.1\r\n\r\n", 400, "malformed_head"),
        (
            "GET /% HTTP/1.1\r\nHost: h\r\n\r\n",
            400,
            "malformed_target",
        ),
        ("PRI * HTTP/2.0\r\n\r\n", 505, "unsupported_version"),
        (
            "CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n",
            501,
            "unsupported_method",
        ),
        (
            "get / HTTP/1.1\r\nHost: h\r\n\r\n",
            501,
            "unsupported_method",
        ),
        (
            "GET / HTTP/1.1\r\nHost: h\r\nExpect: tea\r\n\r\n",
            417,
            "unsupported_expectation",
        ),
    ];
    for (wire, status, reason) in cases {
        let seen = run_every_cut(wire.as_bytes());
        let sent = String::from_utf8(seen.sent).expect("text");
        assert!(sent.starts_with(&format!("HTTP/1.1 {status} ")), "{sent}");
        assert!(sent.contains("\r\nConnection: close\r\n"), "{sent}");
        assert!(
            sent.contains("\r\nAccess-Control-Allow-Origin: *\r\n"),
            "{sent}"
        );
        let (_, body) = sent.split_once("\r\n\r\n").expect("a body");
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(body["status"], status);
        assert_eq!(body["reason"], reason);
    }
}

#[test]
fn heads_are_bounded_to_the_byte() {
    let limits = Limits::default();
    let head_of = |bytes: usize| {
        let start = "GET / HTTP/1.1\r\nHost: h\r\nX: ";
        let fill = "x".repeat(bytes - start.len() - 4);
        format!("{start}{fill}\r\n\r\n").into_bytes()
    };
    for step in [1, 4096, usize::MAX] {
        let step = step.min(limits.head_bytes_max + 1);
        let fits = run(head_of(limits.head_bytes_max).chunks(step));
        assert_eq!((fits.requests.len(), fits.error), (1, None));
        let over = run(head_of(limits.head_bytes_max + 1).chunks(step));
        assert_eq!(over.error, Some(Error::HeadTooLarge));
    }
    let line_of = |bytes: usize| {
        let fill = "x".repeat(bytes - "GET / HTTP/1.1\r".len());
        format!("GET /{fill} HTTP/1.1\r\nHost: h\r\n\r\n").into_bytes()
    };
    for step in [1, 4096, 10_000] {
        let fits = run(line_of(limits.target_bytes_max).chunks(step));
        assert_eq!((fits.requests.len(), fits.error), (1, None));
        let over = run(line_of(limits.target_bytes_max + 1).chunks(step));
        assert_eq!(over.error, Some(Error::TargetTooLong));
    }
    let fields = |count: usize| {
        let mut head = "GET / HTTP/1.1\r\nHost: h\r\n".to_owned();
        head.push_str(&"A: b\r\n".repeat(count - 1));
        head + "\r\n"
    };
    let most = crate::http::request::HEADERS_MAX;
    assert_eq!(run([fields(most).as_bytes()]).requests.len(), 1);
    assert_eq!(
        run([fields(most + 1).as_bytes()]).error,
        Some(Error::TooManyHeaders)
    );
}

#[test]
fn a_refused_body_is_read_over_so_that_the_refusal_is_read() {
    let now = Instant::now();
    let mut session = Session::new(Limits::default(), now);
    let head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n";
    assert_eq!(session.receive(now, head), Err(Error::BodyTooLarge));
    assert!(sent(&mut session).starts_with("HTTP/1.1 413 "));
    assert!(!session.is_closing(), "the peer is still sending");
    session.receive(now, &[b'x'; 60_000]).expect("read over");
    assert!(!session.is_closing());
    let due = session.next_timeout().expect("not for ever");
    assert_eq!(due, now + LINGER);
    session.handle_timeout(due).expect("no second error");
    assert!(session.is_closing());
    // Nor for any number of bytes.
    let mut session = Session::new(Limits::default(), now);
    let _ = session.receive(now, head);
    let mut read = 0_u64;
    while !session.is_closing() {
        session.receive(now, &[b'x'; 60_000]).expect("read over");
        read += 60_000;
        assert!(read < LINGER_BYTES_MAX + 60_000);
    }
}

#[test]
fn slow_peers_are_ended_by_the_clock() {
    let limits = Limits::default();
    let start = Instant::now();
    // A connection that never says a word is closed without one.
    let mut session = Session::new(limits, start);
    let due = session.next_timeout().expect("set");
    assert_eq!(due, start + limits.head_timeout);
    session
        .handle_timeout(due - Duration::from_nanos(1))
        .expect("early");
    assert!(!session.is_closing());
    session.handle_timeout(due).expect("no error");
    assert!(session.is_closing() && session.transmit().is_empty());
    // One byte each second does not stretch the head's time.
    let mut session = Session::new(limits, start);
    let mut now = start;
    for byte in b"GET / HTTP/1" {
        now += Duration::from_secs(1);
        if session.handle_timeout(now) == Err(Error::HeadTimeout) {
            break;
        }
        session.receive(now, &[*byte]).expect("valid so far");
    }
    assert!(session.is_closing());
    assert_eq!(now, start + Duration::from_secs(1) + limits.head_timeout);
    assert!(sent(&mut session).starts_with("HTTP/1.1 408 "));
    // Nor does it a body's.
    let mut session = Session::new(limits, start);
    let head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99\r\n\r\na";
    session.receive(start, head).expect("valid");
    let due = start + limits.body_timeout;
    session
        .receive(due - Duration::from_secs(1), b"b")
        .expect("valid");
    assert_eq!(session.handle_timeout(due), Err(Error::BodyTimeout));
    assert!(sent(&mut session).starts_with("HTTP/1.1 408 "));
    // A kept connection is closed silently when it idles.
    let mut session = Session::new(limits, start);
    session
        .receive(start, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        .expect("valid");
    session.poll_event().expect("whole");
    let later = start + Duration::from_secs(100);
    session.respond(later, Response::text("x")).expect("valid");
    while session.transmit().pop().is_some() {}
    session.receive(later, b"\r\n\r\n").expect("blank lines");
    let due = later + limits.keep_alive_timeout;
    assert_eq!(session.next_timeout(), Some(due));
    session.handle_timeout(due).expect("no error");
    assert!(session.is_closing() && session.transmit().is_empty());
}

#[test]
fn after_the_end_nothing_happens() {
    let now = Instant::now();
    let mut session = Session::new(Limits::default(), now);
    assert!(session.receive(now, b"\0").is_err());
    assert!(session.is_closing());
    let answer = sent(&mut session);
    assert!(answer.starts_with("HTTP/1.1 400 "));
    let later = now + Duration::from_secs(1000);
    assert_eq!(session.receive(later, b"GET / HTTP/1.1\r\n\r\n"), Ok(()));
    assert_eq!(session.handle_timeout(later), Ok(()));
    assert_eq!(session.poll_event(), None);
    assert_eq!(session.next_timeout(), None);
    assert!(session.transmit().is_empty());
}

#[test]
fn an_upgrade_hands_over_what_came_behind_the_request() {
    let now = Instant::now();
    let mut session = Session::new(Limits::default(), now);
    let wire = b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\n\
        Upgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n\r\n\x81\x80";
    session.receive(now, wire).expect("valid");
    let Some(Event::Request(request)) = session.poll_event() else {
        panic!("whole")
    };
    assert!(request.is_websocket_upgrade());
    session.receive(now, b"more").expect("kept");
    let response = Response::new(Status::SwitchingProtocols)
        .with_header("Connection", "Upgrade")
        .with_header("Upgrade", "websocket");
    let (mut transmit, leftover) = session.upgrade(response);
    let head = transmit.pop().expect("a head");
    assert!(head.starts_with(b"HTTP/1.1 101 Switching Protocols\r\n"));
    assert!(!head.windows(14).any(|w| w == b"Content-Length"));
    assert!(transmit.is_empty());
    assert_eq!(&leftover[..], b"\x81\x80more");
    let plain = run([&b"GET /ws HTTP/1.1\r\nHost: h\r\n\r\n"[..]]);
    assert!(!plain.requests[0].is_websocket_upgrade());
}

#[test]
fn flipped_and_cut_requests_never_panic() {
    let wire = b"POST /whip/a/b?token=%41 HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\
        Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for index in 0..wire.len() {
        for bit in 0..8 {
            let mut flipped = wire.to_vec();
            flipped[index] ^= 1 << bit;
            let whole = run([&flipped[..]]);
            let bytes = run(flipped.chunks(1));
            assert_eq!(whole.requests, bytes.requests, "bit {bit} of {index}");
            assert_eq!(whole.error, bytes.error, "bit {bit} of {index}");
        }
        let cut = run([&wire[..index]]);
        assert_eq!((cut.requests, cut.error), (vec![], None));
    }
}

#[test]
fn a_debug_line_of_a_request_shows_no_token() {
    let seen = run([
        &b"GET /a/b?token=sesame HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer sesame\r\n\r\n"[..],
    ]);
    let line = format!("{:?}", seen.requests[0]);
    assert!(line.contains("/a/b") && !line.contains("sesame"), "{line}");
}

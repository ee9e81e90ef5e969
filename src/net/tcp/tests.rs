use std::collections::VecDeque;
use std::net::{TcpListener as StdListener, TcpStream as StdStream};
use std::thread;

use bytes::Bytes;
use mio::{Events, Interest, Poll, Token};
use socket2::SockRef;

use super::*;

/// Takes as much at a time as its script says; an error if it says so.
struct Script(VecDeque<Result<usize, io::ErrorKind>>, Vec<u8>);

impl Write for Script {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let all: Vec<u8> = slices.iter().flat_map(|s| s.iter().copied()).collect();
        let step = self.0.pop_front().unwrap_or(Ok(usize::MAX));
        let taken = step.map_err(io::Error::from)?.min(all.len());
        self.1.extend_from_slice(&all[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn queue(parts: &[&'static [u8]]) -> TransmitQueue {
    let mut queue = TransmitQueue::new();
    for part in parts {
        queue.push(Bytes::from_static(part));
    }
    queue
}

fn script(steps: &[Result<usize, io::ErrorKind>]) -> Script {
    Script(steps.iter().copied().collect(), Vec::new())
}

#[test]
fn writing_stops_for_four_reasons() {
    use io::ErrorKind::{BrokenPipe, Interrupted, WouldBlock};
    let parts: &[&[u8]] = &[b"hello", b" ", b"world"];
    for (steps, budget, taken, outcome) in [
        (&[][..], 100, 11, WriteOutcome::Empty),
        (&[Err(Interrupted)], 100, 11, WriteOutcome::Empty),
        (&[Ok(7)], 100, 7, WriteOutcome::Blocked),
        (&[Err(WouldBlock)], 100, 0, WriteOutcome::Blocked),
        (&[Err(BrokenPipe)], 100, 0, WriteOutcome::Failed(BrokenPipe)),
        (
            &[Ok(0)],
            100,
            0,
            WriteOutcome::Failed(io::ErrorKind::WriteZero),
        ),
    ] {
        let mut queue = queue(parts);
        let mut stream = script(steps);
        assert_eq!(
            write_queue(&mut stream, &mut queue, budget),
            (taken, outcome),
            "{steps:?}"
        );
        assert_eq!(stream.1, b"hello world"[..taken]);
        assert_eq!(queue.len(), 11 - taken);
    }
}

#[test]
fn a_long_queue_is_written_in_vectors_up_to_the_budget() {
    let mut queue = TransmitQueue::new();
    for n in 0..SLICES_MAX * 3 {
        queue.push(Bytes::from(vec![n as u8; 10]));
    }
    let mut stream = script(&[]);
    let (taken, outcome) = write_queue(&mut stream, &mut queue, SLICES_MAX * 10 + 1);
    assert_eq!((taken, outcome), (SLICES_MAX * 20, WriteOutcome::Budget));
    let (taken, outcome) = write_queue(&mut stream, &mut queue, usize::MAX);
    assert_eq!((taken, outcome), (SLICES_MAX * 10, WriteOutcome::Empty));
    assert!(
        stream
            .1
            .iter()
            .enumerate()
            .all(|(i, b)| *b == (i / 10) as u8)
    );
}

#[test]
fn a_short_read_is_the_last_one_unless_the_end_is_announced() {
    let mut buffer = [0; 8];
    assert_eq!(
        read_once(&mut &b"abc"[..], &mut buffer, false),
        ReadOutcome::Last(3)
    );
    assert_eq!(
        read_once(&mut &b"abc"[..], &mut buffer, true),
        ReadOutcome::More(3)
    );
    assert_eq!(
        read_once(&mut &[7; 9][..], &mut buffer, false),
        ReadOutcome::More(8)
    );
    assert_eq!(
        read_once(&mut &b""[..], &mut buffer, false),
        ReadOutcome::End
    );
}

#[test]
fn like_messages_are_told_now_and_then() {
    let mut throttle = Throttle::default();
    let start = Instant::now();
    assert_eq!(throttle.count(start), Some(1));
    assert_eq!(throttle.count(start + Duration::from_secs(1)), None);
    assert_eq!(throttle.count(start + Duration::from_secs(9)), None);
    assert_eq!(throttle.count(start + Duration::from_secs(10)), Some(3));
}

/// A connection and its peer, with send and receive buffers as small as the system has.
fn pair() -> (Connection, StdStream) {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    SockRef::from(&listener)
        .set_send_buffer_size(4_096)
        .unwrap();
    // Not only a full buffer makes the kernel refuse: unsent bytes beyond this do too.
    SockRef::from(&listener)
        .set_tcp_notsent_lowat(2_048)
        .unwrap();
    let peer = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    peer.set_recv_buffer_size(4_096).unwrap();
    peer.connect(&listener.local_addr().unwrap().into())
        .unwrap();
    let (stream, _) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    (
        Connection::new(TcpStream::from_std(stream), 0, 0),
        peer.into(),
    )
}

/// Case 52: a megabyte goes through a socket buffer of four kilobytes: each time the
/// kernel refuses, its word that it takes more does come, edge-triggered as it is.
#[test]
fn a_large_frame_passes_a_small_socket_buffer_without_a_lost_wakeup() {
    const LENGTH: usize = 1 << 20;
    let (mut connection, mut peer) = pair();
    let mut poll = Poll::new().unwrap();
    poll.registry()
        .register(
            &mut connection.stream,
            Token(0),
            Interest::READABLE | Interest::WRITABLE,
        )
        .unwrap();
    let frame: Vec<u8> = (0..LENGTH).map(|n| (n % 251) as u8).collect();
    let mut queue = TransmitQueue::new();
    let whole = Bytes::from(frame.clone());
    for piece in 0..LENGTH / 1_024 {
        queue.push(whole.slice(piece * 1_024..(piece + 1) * 1_024));
    }
    let reader = thread::spawn(move || {
        let mut got = vec![0; LENGTH];
        peer.read_exact(&mut got).unwrap();
        got
    });
    let mut events = Events::with_capacity(4);
    let mut refusals = 0;
    loop {
        match connection.write(&mut queue).1 {
            WriteOutcome::Empty => break,
            WriteOutcome::Budget => continue,
            WriteOutcome::Failed(kind) => panic!("{kind}"),
            WriteOutcome::Blocked => refusals += 1,
        }
        while connection.is_blocked {
            poll.poll(&mut events, Some(Duration::from_secs(10)))
                .unwrap();
            assert!(
                !events.is_empty(),
                "an event comes, {} bytes left",
                queue.len()
            );
            connection.is_blocked = !events.iter().any(|event| event.is_writable());
        }
    }
    assert!(refusals > 10, "{refusals} refusals");
    assert_eq!(reader.join().unwrap(), frame);
}

/// The peer sends until the end and reads only then: it still gets all of our last words.
#[test]
fn last_words_reach_a_peer_that_goes_on_sending() {
    let (mut connection, mut peer) = pair();
    peer.write_all(b"more and more").unwrap();
    connection.state = State::Closing {
        rest: queue(&[b"good", b"bye"]),
        is_shut_down: false,
        until: Instant::now(),
    };
    assert!(!connection.write_rest(), "waits for the peer's FIN");
    peer.write_all(b" and more").unwrap();
    let mut got = Vec::new();
    peer.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"goodbye");
    drop(peer);
    let mut buffer = [0; 64];
    connection.has_fin = true;
    let mut outcome = ReadOutcome::Last(0);
    for _ in 0..100 {
        outcome = connection.read(&mut buffer);
        if matches!(outcome, ReadOutcome::End | ReadOutcome::Failed(_)) {
            break;
        }
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(outcome, ReadOutcome::End);
}

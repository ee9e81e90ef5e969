use std::net::UdpSocket as StdSocket;
use std::time::Duration;

use super::*;
use crate::config::Sockets;
use crate::net::interfaces::local_addresses;

fn bind(listen: &str) -> Udp {
    let socket = sockopt::udp_socket(listen.parse().unwrap(), &Sockets::default()).unwrap();
    let local = socket.local_addr().unwrap().as_socket().unwrap();
    let addresses = Addresses::new(local, &[], local_addresses().unwrap());
    Udp::new(socket, addresses, true).unwrap()
}

fn peer(address: &str) -> StdSocket {
    let socket = StdSocket::bind(address).unwrap();
    let timeout = Some(Duration::from_secs(5));
    socket.set_read_timeout(timeout).unwrap();
    socket
}

/// The candidate of `udp` with the address `ip`.
fn candidate(udp: &Udp, ip: &str) -> SocketAddr {
    let ip = ip.parse().unwrap();
    udp.addresses()
        .candidate(ip)
        .filter(|c| c.ip() == ip)
        .unwrap()
}

fn datagrams(source: SocketAddr, to: SocketAddr, sizes: &[usize]) -> Vec<Datagram> {
    let contents = sizes
        .iter()
        .enumerate()
        .map(|(i, size)| vec![i as u8; *size]);
    contents
        .map(|contents| Datagram {
            source,
            destination: to,
            segment: contents.len(),
            contents,
        })
        .collect()
}

/// The same as one train: all sizes are equal but the last.
fn train(source: SocketAddr, to: SocketAddr, sizes: &[usize]) -> Datagram {
    let singles = datagrams(source, to, sizes);
    Datagram {
        source,
        destination: to,
        contents: singles.into_iter().flat_map(|d| d.contents).collect(),
        segment: sizes[0],
    }
}

/// Receives `sizes.len()` datagrams and checks that each is whole, in order, from `source`.
fn expect(peer: &StdSocket, source: SocketAddr, sizes: &[usize]) {
    let mut buffer = [0; 4_096];
    for (i, size) in sizes.iter().enumerate() {
        let (length, from) = peer.recv_from(&mut buffer).expect("a datagram in time");
        assert_eq!((length, from), (*size, source), "datagram {i}");
        assert!(
            buffer[..length].iter().all(|b| *b == i as u8),
            "datagram {i}"
        );
    }
}

/// Reads until `count` datagrams came.
fn receive(udp: &mut Udp, count: usize) -> Vec<(SocketAddr, SocketAddr, Vec<u8>)> {
    let mut got = Vec::new();
    let end = std::time::Instant::now() + Duration::from_secs(5);
    while got.len() < count && std::time::Instant::now() < end {
        udp.receive(|from, to, bytes| {
            got.push((from, to, bytes.to_vec()));
            ControlFlow::Continue(())
        });
    }
    got
}

#[test]
fn a_train_to_one_peer_leaves_in_one_message() {
    let mut udp = bind("127.0.0.1:0");
    if !udp.has_gso() {
        return;
    }
    let one = peer("127.0.0.1:0");
    let two = peer("127.0.0.1:0");
    let source = candidate(&udp, "127.0.0.1");
    let (sizes_one, sizes_two) = ([1_200, 1_200, 1_200, 700], [1_100; 3]);
    let all = [
        train(source, one.local_addr().unwrap(), &sizes_one),
        train(source, two.local_addr().unwrap(), &sizes_two),
    ];

    let mut groups = Vec::new();
    udp.group(&all, &mut groups);
    let counts: Vec<usize> = groups.iter().map(|group| group.count).collect();
    assert_eq!(counts, [4, 3]);

    udp.send(&all);
    assert_eq!(udp.counters().send_calls, 1, "all messages in one call");
    assert_eq!(udp.counters().sent, 7);
    expect(&one, source, &sizes_one);
    expect(&two, source, &sizes_two);

    // Without GSO each goes by itself, in the same call.
    udp.gso = false;
    udp.send(&all);
    assert_eq!(udp.counters().send_calls, 2);
    assert_eq!(udp.counters().sent, 14);
    expect(&one, source, &sizes_one);
    expect(&two, source, &sizes_two);
}

#[test]
fn trains_are_cut_where_the_kernel_wants_it() {
    let mut udp = bind("127.0.0.1:0");
    udp.gso = true;
    let at = |n: u16| SocketAddr::from(([127, 0, 0, 1], n));
    let counts = |sizes: &[usize]| {
        let mut groups = Vec::new();
        udp.group(&[train(at(1), at(2), sizes)], &mut groups);
        let counts: Vec<usize> = groups.iter().map(|group| group.count).collect();
        counts
    };
    assert_eq!(counts(&[100]), [1]);
    assert_eq!(counts(&[100, 50]), [2]);
    assert_eq!(counts(&[100; 130]), [64, 64, 2], "segments of one message");
    assert_eq!(counts(&[1_200; 64]), [54, 10], "bytes of one message");
}

#[test]
fn more_than_one_batch_of_messages_is_sent_in_order() {
    let mut udp = bind("127.0.0.1:0");
    let peer = peer("127.0.0.1:0");
    let source = candidate(&udp, "127.0.0.1");
    // Growing sizes never make a run.
    let sizes: Vec<usize> = (100..200).collect();
    udp.send(&datagrams(source, peer.local_addr().unwrap(), &sizes));
    assert_eq!(udp.counters().send_calls, 4);
    expect(&peer, source, &sizes);
}

#[test]
fn a_dual_stack_socket_tells_where_a_datagram_came_to_and_answers_from_there() {
    let mut udp = bind("[::]:0");
    for ip in ["127.0.0.1", "::1"] {
        if !local_addresses().unwrap().contains(&ip.parse().unwrap()) {
            continue;
        }
        let here = candidate(&udp, ip);
        let peer = peer(if here.is_ipv4() {
            "127.0.0.1:0"
        } else {
            "[::1]:0"
        });
        peer.send_to(b"hello", here).unwrap();
        let got = receive(&mut udp, 1);
        let peer_address = peer.local_addr().unwrap();
        assert_eq!(got, [(peer_address, here, b"hello".to_vec())]);
        let sizes = [900, 900, 400];
        udp.send(&datagrams(here, peer_address, &sizes));
        expect(&peer, here, &sizes);
    }
}

#[test]
fn an_answer_leaves_by_the_address_that_was_asked() {
    // Every 127.x.y.z is an address of this machine; left alone the kernel would
    // answer from 127.0.0.1.
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let mut udp = bind(listen);
        let port = candidate(&udp, "127.0.0.1").port();
        let asked = SocketAddr::from(([127, 0, 0, 7], port));
        let peer = peer("127.0.0.1:0");
        peer.send_to(b"?", asked).unwrap();
        let got = receive(&mut udp, 1);
        let (from, to, _) = got[0];
        assert!(
            udp.addresses().candidates().contains(&to),
            "{to} is announced"
        );
        udp.send(&datagrams(to, from, &[10, 10, 5]));
        expect(&peer, asked, &[10, 10, 5]);
    }
}

#[test]
fn a_turn_takes_no_more_than_its_budget() {
    let mut udp = bind("127.0.0.1:0");
    let here = candidate(&udp, "127.0.0.1");
    let peer = peer("127.0.0.1:0");
    let budget = RECEIVE_BATCH * BATCHES_PER_TURN;
    for _ in 0..budget + 10 {
        peer.send_to(&[7; 20], here).unwrap();
    }
    let mut got = 0;
    let mut count = |_, _, _: &[u8]| {
        got += 1;
        ControlFlow::Continue(())
    };
    assert_eq!(udp.receive(&mut count), Remaining::Some);
    assert_eq!(udp.counters().received, budget as u64);
    assert_eq!(udp.receive(&mut count), Remaining::Nothing);
    assert_eq!(got, budget + 10);
}

#[test]
fn what_is_left_of_a_batch_when_time_is_up_comes_with_the_next_turn() {
    let mut udp = bind("127.0.0.1:0");
    let here = candidate(&udp, "127.0.0.1");
    let peer = peer("127.0.0.1:0");
    for n in 0..5 {
        peer.send_to(&[n; 20], here).unwrap();
    }
    let mut got = Vec::new();
    for _ in 0..5 {
        let remaining = udp.receive(|_, _, bytes| {
            got.push(bytes[0]);
            ControlFlow::Break(())
        });
        assert_eq!(remaining, Remaining::Some);
    }
    assert_eq!(got, [0, 1, 2, 3, 4]);
    let remaining = udp.receive(|_, _, _| ControlFlow::Break(()));
    assert_eq!(remaining, Remaining::Nothing);
}

#[test]
fn too_long_datagrams_are_thrown_away_and_counted() {
    let mut udp = bind("127.0.0.1:0");
    let here = candidate(&udp, "127.0.0.1");
    let peer = peer("127.0.0.1:0");
    peer.send_to(&[1; 2_049], here).unwrap();
    peer.send_to(&[2; 2_048], here).unwrap();
    let got = receive(&mut udp, 1);
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].2, [2; 2_048]);
    assert_eq!(udp.counters().received_too_long, 1);
}

#[test]
fn what_cannot_be_sent_is_counted_and_the_rest_goes() {
    let mut udp = bind("127.0.0.1:0");
    let source = candidate(&udp, "127.0.0.1");
    let peer = peer("127.0.0.1:0");
    let here = peer.local_addr().unwrap();
    // A socket on 127.0.0.1 has no way to the outside, and none to port 0.
    let mut all = datagrams(source, here, &[100]);
    all.extend(datagrams(source, "192.0.2.1:9".parse().unwrap(), &[50]));
    all.extend(datagrams(source, "127.0.0.1:0".parse().unwrap(), &[60]));
    all.extend(datagrams(source, here, &[70_000]));
    let mut last = datagrams(source, here, &[0, 100]);
    all.push(last.remove(1));
    udp.send(&all);
    let counters = udp.counters();
    assert_eq!((counters.sent, counters.dropped_refused), (2, 3));
    expect(&peer, source, &[100, 100]);
}

#[test]
fn a_refused_gso_message_turns_gso_off_and_goes_in_single_datagrams() {
    let mut udp = bind("127.0.0.1:0");
    let source = candidate(&udp, "127.0.0.1");
    let peer = peer("127.0.0.1:0");
    let sizes = [500, 500, 300];
    let all = [train(source, peer.local_addr().unwrap(), &sizes)];
    udp.gso = true;
    let group = Group {
        train: 0,
        bytes: 0..1_300,
        count: 3,
        local: None,
    };
    udp.refused(&all, &group, &io::Error::from_raw_os_error(libc::EIO));
    assert!(!udp.has_gso());
    expect(&peer, source, &sizes);
    udp.send(&all);
    assert_eq!(udp.counters().sent, 6);
    expect(&peer, source, &sizes);
}

#[test]
fn a_message_to_a_bad_address_leaves_gso_on() {
    let mut udp = bind("127.0.0.1:0");
    let source = candidate(&udp, "127.0.0.1");
    let gso = udp.has_gso();
    let nowhere = "127.0.0.1:0".parse().unwrap();
    udp.send(&[train(source, nowhere, &[500, 500])]);
    assert_eq!(udp.counters().dropped_refused, 2);
    assert_eq!(udp.has_gso(), gso);
}

#[test]
fn a_full_send_buffer_drops_and_counts() {
    let sockets = Sockets {
        udp_send_buffer_bytes: 4_096,
        ..Sockets::default()
    };
    let socket = sockopt::udp_socket("127.0.0.1:0".parse().unwrap(), &sockets).unwrap();
    let local = socket.local_addr().unwrap().as_socket().unwrap();
    let addresses = Addresses::new(local, &[], local_addresses().unwrap());
    let mut udp = Udp::new(socket, addresses, false).unwrap();
    // What waits in the receiver's buffer is charged to the sender on loopback.
    let peer = peer("127.0.0.1:0");
    let sizes = [1_000; 100];
    udp.send(&datagrams(local, peer.local_addr().unwrap(), &sizes));
    let counters = udp.counters();
    assert_eq!(counters.sent + counters.dropped_full, 100);
    assert_eq!(counters.dropped_refused, 0);
}

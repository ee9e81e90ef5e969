//! A session's connection to its peer: which address is served, how it ends, what it costs
//! when idle, and that whoever is not the peer changes nothing.

#[path = "common/browser.rs"]
mod browser;
#[path = "webrtc/link.rs"]
mod link;

use std::net::SocketAddr;
use std::time::Duration;

use browser::{BrowserConfig, Does, Kind, Seen, Sent};
use link::{
    Flight, Link, MOBILE, WIFI, address, engine_with, is_media, payload, play, publish,
    received_rtp, seen_rtp,
};
use rtmp_gateway::media::TrackKind;
use rtmp_gateway::webrtc::{
    CloseReason, Credentials, EngineConfig, Event, Pair, Received, Transport,
};

// ---- Addresses ----

#[test]
fn tcp_carries_a_viewer() {
    let mut config = BrowserConfig::new(Does::View);
    config.addresses = vec![(address("198.51.100.10:51000"), true)];
    let mut link = Link::connected(config);
    play(&mut link, 1, 3);
    link.run_for(Duration::from_millis(100));
    assert_eq!(seen_rtp(&link, Kind::Video).len(), 75);
    let selected: Pair = link.session.stats().selected.unwrap();
    assert_eq!(selected.transport, Transport::Tcp);
    // The connection is lost: nothing is sent into it any more.
    link.session
        .handle_disconnect(selected.remote, selected.local);
    assert_eq!(link.session.stats().selected, None);
    let since = link.now;
    let now = link.now;
    link.session
        .write_video(now, &[payload(0, 100)], 0, now, true);
    link.session.flush(now);
    assert_eq!(link.sent_to(selected.remote, since), 0);
}

#[test]
fn tcp_carries_a_publisher() {
    let mut config = BrowserConfig::new(Does::Publish);
    config.addresses = vec![(address("198.51.100.10:51000"), true)];
    let mut link = Link::connected(config);
    publish(&mut link, 25);
    link.run_for(Duration::from_millis(100));
    assert_eq!(received_rtp(&link, TrackKind::Video).len(), 75);
}

#[test]
fn a_client_with_two_addresses_is_served_where_it_nominates() {
    let mut config = BrowserConfig::new(Does::View);
    config.addresses = vec![(address(WIFI), false), (address(MOBILE), false)];
    let mut link = Link::connected(config);
    let first = link.session.stats().selected.unwrap().remote;
    let other = if first == address(WIFI) {
        address(MOBILE)
    } else {
        address(WIFI)
    };
    // Now it nominates the other one, whose priority is far lower, and goes on checking
    // the first without nominating it, as browsers do with a spare.
    link.is_lost =
        Box::new(|flight| matches!(flight, Flight::ToServer(sent) if sent.contents[0] < 2));
    for (from, nominate) in [(other, true), (first, false)] {
        let check = link.browser.check_from(from, nominate);
        link.inject(check);
    }
    link.run_for(Duration::from_millis(15));
    let since = link.now;
    play(&mut link, 1, 2);
    assert_eq!(link.session.stats().selected.unwrap().remote, other);
    let media_to = |link: &Link, to: SocketAddr| {
        link.sent
            .iter()
            .filter(|(at, datagram)| *at >= since && datagram.destination == to)
            .filter(|(_, datagram)| is_media(&datagram.contents))
            .count()
    };
    assert_eq!(media_to(&link, other), 100);
    assert_eq!(media_to(&link, first), 0);
    assert_eq!(seen_rtp(&link, Kind::Video).len(), 50);
}

#[test]
fn media_follows_a_peer_that_moves_and_comes_back() {
    let mut link = Link::connected(BrowserConfig::new(Does::View));
    play(&mut link, 1, 1);
    for to in [MOBILE, WIFI, MOBILE, WIFI] {
        // The old network is gone: what is sent there is lost, nothing comes from there.
        let to = address(to);
        link.is_lost = Box::new(move |flight| match flight {
            Flight::ToBrowser(datagram) => datagram.destination != to,
            Flight::ToServer(sent) => sent.source != to,
        });
        // A browser checks before it nominates.
        for nominate in [false, true] {
            let check = link.browser.check_from(to, nominate);
            link.inject(check);
            link.run_for(Duration::from_millis(15));
        }
        assert_eq!(link.session.stats().selected.unwrap().remote, to);
        let before = seen_rtp(&link, Kind::Video).len();
        play(&mut link, 1, 1);
        link.run_for(Duration::from_millis(20));
        assert_eq!(seen_rtp(&link, Kind::Video).len() - before, 25);
    }
}

#[test]
fn a_new_pair_is_reported_once_and_strangers_are_ignored() {
    let mut link = Link::connected(BrowserConfig::new(Does::View));
    let new_pairs = |link: &Link| {
        link.received
            .iter()
            .filter(|received| **received == Received::NewPair)
            .count()
    };
    assert_eq!(new_pairs(&link), 1);
    let stranger = address("192.0.2.66:6666");
    let dropped = link.session.stats().datagrams_dropped;
    let forged = link.browser.forged_check_from(stranger);
    link.inject(forged);
    for contents in [vec![22, 254, 253, 0, 0], vec![128, 102, 0, 1], vec![0; 30]] {
        link.inject(Sent {
            tcp: false,
            source: stranger,
            destination: address(link::SERVER),
            contents,
        });
    }
    let since = link.now;
    link.run_for(Duration::from_millis(50));
    assert_eq!(link.session.stats().datagrams_dropped - dropped, 4);
    assert_eq!(link.sent_to(stranger, since), 0);
    assert_eq!(link.session.stats().selected.unwrap().remote, address(WIFI));
    play(&mut link, 1, 1);
}

#[test]
fn an_ice_restart_changes_the_credentials_and_not_the_session() {
    let mut link = Link::connected(BrowserConfig::new(Does::View));
    let credentials = Credentials {
        ufrag: link.session.id().ufrag(0x1234_5678),
        password: "another-password-of-some-length".into(),
    };
    let trickle = "a=ice-ufrag:same\r\na=candidate:1 1 udp 1 192.0.2.9 9 typ host\r\n";
    assert_eq!(
        link.session.handle_fragment(trickle, &credentials),
        Ok(None)
    );
    let restart = "a=ice-ufrag:anew\r\na=ice-pwd:a-new-password-of-the-browser\r\n";
    let reply = link
        .session
        .handle_fragment(restart, &credentials)
        .unwrap()
        .expect("a restart");
    assert!(reply.contains(&format!("a=ice-ufrag:{}\r\n", credentials.ufrag)));
    assert!(reply.contains("a=candidate:1 1 udp"));
    assert!(reply.contains("a=ice-lite\r\n"));
    // Repeating it changes nothing, and media goes on.
    assert_eq!(
        link.session.handle_fragment(restart, &credentials),
        Ok(None)
    );
    play(&mut link, 1, 1);
    assert_eq!(seen_rtp(&link, Kind::Video).len(), 25);
}

// ---- The end ----

#[test]
fn a_closed_page_ends_the_session_at_once() {
    let mut link = Link::connected(BrowserConfig::new(Does::View));
    link.browser.close(link.now);
    link.run_for(Duration::from_millis(50));
    assert_eq!(
        link.events.last().unwrap().1,
        Event::Closed(CloseReason::DtlsClosed)
    );
    assert!(link.session.is_closed() && link.session.next_timeout().is_none());
    let now = link.now;
    assert!(
        !link
            .session
            .write_video(now, &[payload(0, 10)], 0, now, true)
    );
}

#[test]
fn our_close_reaches_the_page() {
    for does in [Does::View, Does::Publish] {
        let mut link = Link::connected(BrowserConfig::new(does));
        link.session.close(link.now);
        link.run_for(Duration::from_millis(50));
        assert!(link.seen.iter().any(|(_, s)| matches!(s, Seen::Closed)));
        assert!(
            !link
                .events
                .iter()
                .any(|(_, e)| matches!(e, Event::Closed(_)))
        );
    }
}

#[test]
fn a_silent_peer_is_given_up() {
    let mut link = Link::connected(BrowserConfig::new(Does::View));
    link.is_lost = Box::new(|flight| matches!(flight, Flight::ToServer(_)));
    let silent_since = link.now;
    link.run_for(Duration::from_secs(30));
    let (at, event) = link.events.last().unwrap();
    assert_eq!(*event, Event::Closed(CloseReason::IceDisconnected));
    let after = *at - silent_since;
    assert!(
        after > Duration::from_secs(11) && after <= Duration::from_secs(15),
        "{after:?}"
    );
}

#[test]
fn a_publisher_that_only_sends_media_stays() {
    // ffmpeg checks once and never again, but its media shows that it lives.
    let mut link = Link::connected(BrowserConfig::new(Does::Publish));
    link.is_lost = Box::new(|flight| match flight {
        Flight::ToServer(sent) => !is_media(&sent.contents),
        Flight::ToBrowser(_) => false,
    });
    publish(&mut link, 25 * 40);
    assert!(link.session.is_connected());
    let (at, _) = link
        .events
        .iter()
        .rfind(|(_, event)| matches!(event, Event::Rtp(_)))
        .unwrap();
    assert!(link.now - *at < Duration::from_millis(100));
    assert!(link.session.request_keyframe(link.now));
}

#[test]
fn a_peer_that_never_comes_is_given_up() {
    let mut link = Link::new(BrowserConfig::new(Does::View));
    link.is_lost = Box::new(|_| true);
    link.run_for(Duration::from_secs(20));
    assert_eq!(
        link.events.last().unwrap().1,
        Event::Closed(CloseReason::HandshakeTimeout)
    );
}

#[test]
fn an_idle_session_sleeps() {
    let engine = engine_with(EngineConfig {
        stats_interval: None,
        ..EngineConfig::default()
    });
    let mut link = Link::with(BrowserConfig::new(Does::View), &engine, |_| ());
    link.connect();
    link.run_for(Duration::from_secs(2));
    link.wakes = 0;
    link.run_for(Duration::from_secs(60));
    assert!(link.session.is_connected());
    assert!(link.wakes <= 20, "{} wake-ups in a minute", link.wakes);
}

// ---- Bad input ----

#[test]
fn malformed_datagrams_of_the_peer_harm_nothing() {
    let mut link = Link::connected(BrowserConfig::new(Does::Publish));
    publish(&mut link, 5);
    make_noise(&mut link);
    assert!(link.session.is_connected());
    let before = received_rtp(&link, TrackKind::Video).len();
    publish(&mut link, 5);
    link.run_for(Duration::from_millis(50));
    assert_eq!(received_rtp(&link, TrackKind::Video).len() - before, 15);
}

#[test]
fn malformed_datagrams_of_a_viewer_harm_nothing() {
    let mut link = Link::connected(BrowserConfig::new(Does::View));
    play(&mut link, 1, 3);
    let sent = link.sent.len();
    make_noise(&mut link);
    link.run_for(Duration::from_millis(50));
    assert!(link.session.is_connected());
    let asks = |event: &Event| *event == Event::KeyframeRequested;
    assert!(!link.events.iter().any(|(_, event)| asks(event)));
    assert!(link.sent.len() - sent < 20, "noise is not answered");
    let before = seen_rtp(&link, Kind::Video).len();
    play(&mut link, 1, 3);
    link.run_for(Duration::from_millis(50));
    assert_eq!(seen_rtp(&link, Kind::Video).len() - before, 75);
}

fn xorshift(mut seed: u32) -> impl FnMut() -> u32 {
    move || {
        seed ^= seed << 13;
        seed ^= seed >> 17;
        seed ^= seed << 5;
        seed
    }
}

/// Thousands of datagrams that look like something, from the peer's address.
fn make_noise(link: &mut Link) {
    let source = address(WIFI);
    let server = address(link::SERVER);
    let mut random = xorshift(0x1234_5678);
    let firsts = [
        0, 1, 3, 20, 22, 25, 63, 64, 127, 128, 143, 144, 191, 192, 255,
    ];
    for round in 0..6_000_usize {
        let len = (random() % 200) as usize;
        let mut contents: Vec<u8> = (0..len).map(|_| random() as u8).collect();
        if let Some(first) = contents.first_mut() {
            *first = firsts[round % firsts.len()];
        }
        if round % 3 == 0 {
            // RTCP, RTP of known and unknown payload types, STUN with the right cookie.
            let second = [200, 201, 205, 206, 207, 203, 102, 103, 111, 96, 1];
            if let Some(byte) = contents.get_mut(1) {
                *byte = second[round % second.len()];
            }
            if let Some(cookie) = contents.get_mut(4..8)
                && round % 2 == 0
            {
                cookie.copy_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
            }
        }
        link.session
            .handle_datagram(link.now, Transport::Udp, source, server, &contents);
    }
}

/// What a bad path, or somebody on it, makes of a handshake.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Harm {
    Twice,
    Cut,
    Flipped,
    Reversed,
}

#[test]
fn a_handshake_comes_through_all_that_a_path_does_to_it() {
    for harm in [Harm::Twice, Harm::Cut, Harm::Flipped, Harm::Reversed] {
        for setup_passive in [false, true] {
            for seed in 1..=8_u32 {
                let mut config = BrowserConfig::new(Does::View);
                config.setup_passive = setup_passive;
                let mut link = Link::new(config);
                let mut random = xorshift(seed.wrapping_mul(0x9e37_79b9));
                let held = std::rc::Rc::new(std::cell::RefCell::new(Vec::<Sent>::new()));
                let hold = std::rc::Rc::clone(&held);
                link.is_lost = Box::new(move |flight| match flight {
                    Flight::ToServer(sent) if matches!(sent.contents[0], 20..=63) => {
                        hold.borrow_mut().push(sent.clone());
                        true
                    }
                    _ => false,
                });
                for _ in 0..700 {
                    link.run_for(Duration::from_millis(20));
                    let mut flight = std::mem::take(&mut *held.borrow_mut());
                    if harm == Harm::Reversed {
                        flight.reverse();
                    }
                    for sent in flight {
                        let mut harmed = sent.clone();
                        let bit = random() as usize % (harmed.contents.len() * 8);
                        match harm {
                            Harm::Twice => link.inject(harmed),
                            Harm::Cut => {
                                // Behind a whole record it would be a shorter flight, not a
                                // damaged one.
                                let at = (bit / 8).max(1);
                                let ends_record = ends_record(&harmed.contents, at);
                                harmed.contents.truncate(at - usize::from(ends_record));
                                link.inject(harmed);
                            }
                            Harm::Flipped => {
                                harmed.contents[bit / 8] ^= 1 << (bit % 8);
                                link.inject(harmed);
                            }
                            Harm::Reversed => {}
                        }
                        link.inject(sent);
                    }
                    if link.session.is_connected() || link.session.is_closed() {
                        break;
                    }
                }
                // Before there are keys nobody can tell a changed bit from the peer's wish.
                assert!(
                    link.session.is_connected() || harm == Harm::Flipped,
                    "{harm:?} {setup_passive} {seed}: {:?}",
                    link.events
                );
                if link.session.is_connected() {
                    link.is_lost = Box::new(|_| false);
                    link.run_for(Duration::from_secs(1));
                    play(&mut link, 1, 2);
                    link.run_for(Duration::from_millis(50));
                    assert_eq!(seen_rtp(&link, Kind::Video).len(), 50);
                }
            }
        }
    }
}

/// Whether a DTLS record (RFC 6347 section 4.1) of a datagram ends at `at`.
fn ends_record(datagram: &[u8], at: usize) -> bool {
    let mut end = 0;
    while end < at {
        let Some(length) = datagram.get(end + 11..end + 13) else {
            return false;
        };
        end += 13 + usize::from(u16::from_be_bytes([length[0], length[1]]));
    }
    end == at
}

#[test]
fn flipped_bits_and_replays_of_real_datagrams_change_nothing() {
    let mut link = Link::connected(BrowserConfig::new(Does::Publish));
    let kept = std::rc::Rc::new(std::cell::RefCell::new(Vec::<Sent>::new()));
    let keep = std::rc::Rc::clone(&kept);
    link.is_lost = Box::new(move |flight| {
        if let Flight::ToServer(sent) = flight {
            keep.borrow_mut().push(sent.clone());
        }
        false
    });
    publish(&mut link, 30);
    link.run_for(Duration::from_millis(100));
    link.is_lost = Box::new(|_| false);
    let genuine = received_rtp(&link, TrackKind::Video).len();
    let kept = kept.borrow().clone();
    assert!(kept.len() > 100);
    for (index, sent) in kept.iter().enumerate() {
        // A replay, one flipped bit, a truncation.
        link.inject(sent.clone());
        let mut flipped = sent.clone();
        let bit = (index * 131) % (flipped.contents.len() * 8);
        flipped.contents[bit / 8] ^= 1 << (bit % 8);
        link.inject(flipped);
        let mut cut = sent.clone();
        cut.contents.truncate(sent.contents.len() * (index % 7) / 7);
        link.inject(cut);
    }
    link.run_for(Duration::from_millis(100));
    assert!(link.session.is_connected());
    assert_eq!(received_rtp(&link, TrackKind::Video).len(), genuine);
    publish(&mut link, 5);
    link.run_for(Duration::from_millis(50));
    assert_eq!(received_rtp(&link, TrackKind::Video).len(), genuine + 15);
}

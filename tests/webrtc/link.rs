//! One gateway session and one browser with a network between them, on one virtual clock.

#![allow(dead_code, missing_docs)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rtmp_gateway::media::TrackKind;
use rtmp_gateway::webrtc::{
    Credentials, Datagram, Engine, EngineConfig, Event, Params, Received, Role, Rtp, Session,
    SessionId, Transport, tcp_framing,
};

use crate::browser::{Browser, BrowserConfig, Does, Kind, Seen, Sent};

pub const SERVER: &str = "203.0.113.1:8000";

#[derive(Clone, Debug)]
pub enum Flight {
    ToBrowser(Datagram),
    ToServer(Sent),
}

pub struct Link {
    pub now: Instant,
    pub start: Instant,
    pub session: Session,
    pub browser: Browser,
    pub answer: String,
    pub latency: Duration,
    /// Says which datagrams are lost.
    pub is_lost: Box<dyn FnMut(&Flight) -> bool>,
    pub events: Vec<(Instant, Event)>,
    pub seen: Vec<(Instant, Seen)>,
    /// Everything the session sent, lost or not.
    pub sent: Vec<(Instant, Datagram)>,
    pub received: Vec<Received>,
    /// How often the session asked to be woken.
    pub wakes: usize,
    flights: Vec<(Instant, Flight)>,
}

pub fn engine() -> Engine {
    engine_with(EngineConfig::default())
}

pub fn engine_with(config: EngineConfig) -> Engine {
    Engine::new(EngineConfig {
        candidates: vec![SERVER.parse().unwrap()],
        ..config
    })
    .unwrap()
}

pub fn params(role: Role) -> Params {
    let id = SessionId(42);
    Params {
        role,
        id,
        credentials: Credentials {
            ufrag: id.ufrag(0xdead_beef),
            password: "a-password-of-thirty-two-letters".into(),
        },
        seed: 7,
        stream_profile: None,
    }
}

impl Link {
    pub fn new(config: BrowserConfig) -> Self {
        Self::with(config, &engine(), |_| ())
    }

    pub fn with(
        config: BrowserConfig,
        engine: &Engine,
        prepare: impl FnOnce(&mut Session),
    ) -> Self {
        let mut link = Self::with_offer(config, engine, str::to_owned);
        prepare(&mut link.session);
        link
    }

    /// A link whose offer is changed on its way.
    pub fn with_offer(
        config: BrowserConfig,
        engine: &Engine,
        change: impl FnOnce(&str) -> String,
    ) -> Self {
        let role = match config.does {
            Does::Publish => Role::Publisher,
            Does::View => Role::Viewer,
        };
        let now = Instant::now();
        let mut browser = Browser::new(config, now);
        let offer = change(browser.offer());
        let (session, answer) = Session::answer(engine, params(role), &offer, now).unwrap();
        browser.accept_answer(&answer);
        Self {
            now,
            start: now,
            session,
            browser,
            answer,
            latency: Duration::from_millis(10),
            is_lost: Box::new(|_| false),
            events: Vec::new(),
            seen: Vec::new(),
            sent: Vec::new(),
            received: Vec::new(),
            wakes: 0,
            flights: Vec::new(),
        }
    }

    /// A link whose peers have connected.
    pub fn connected(config: BrowserConfig) -> Self {
        let mut link = Self::new(config);
        link.connect();
        link
    }

    pub fn connect(&mut self) {
        for _ in 0..100 {
            self.run_for(Duration::from_millis(100));
            let browser_is_up = self.seen.iter().any(|(_, s)| matches!(s, Seen::Connected));
            if self.session.is_connected() && browser_is_up {
                return;
            }
        }
        panic!(
            "no connection after {:?}: {:?}",
            self.now - self.start,
            self.session
        );
    }

    /// Puts a datagram onto the wire towards the session.
    pub fn inject(&mut self, sent: Sent) {
        self.flights
            .push((self.now + self.latency, Flight::ToServer(sent)));
    }

    pub fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        let mut turns = 0;
        loop {
            self.collect();
            let next = [
                self.session.next_timeout(),
                Some(self.browser.next_timeout()),
                self.flights.iter().map(|(at, _)| *at).min(),
            ]
            .into_iter()
            .flatten()
            .min();
            let Some(next) = next.filter(|next| *next <= end) else {
                break;
            };
            self.now = self.now.max(next);
            turns += 1;
            assert!(turns < 200_000, "the link does not come to rest");
            self.deliver();
            if self.session.next_timeout().is_some_and(|at| at <= self.now) {
                self.wakes += 1;
                self.session.handle_timeout(self.now);
            }
            if self.browser.next_timeout() <= self.now {
                self.browser.handle_timeout(self.now);
            }
        }
        self.now = end;
    }

    fn deliver(&mut self) {
        let mut index = 0;
        while index < self.flights.len() {
            if self.flights[index].0 > self.now {
                index += 1;
                continue;
            }
            // `remove` and not `swap_remove`: the order on the wire is kept.
            match self.flights.remove(index).1 {
                Flight::ToBrowser(datagram) => self.browser.handle_datagram(
                    self.now,
                    datagram.transport == Transport::Tcp,
                    datagram.source,
                    datagram.destination,
                    &datagram.contents,
                ),
                Flight::ToServer(sent) => {
                    let received = self.session.handle_datagram(
                        self.now,
                        if sent.tcp {
                            Transport::Tcp
                        } else {
                            Transport::Udp
                        },
                        sent.source,
                        sent.destination,
                        &through_tcp(sent.tcp, &sent.contents),
                    );
                    self.received.push(received);
                }
            }
            self.collect();
        }
    }

    fn collect(&mut self) {
        let mut datagrams = Vec::new();
        self.session.take_datagrams(&mut datagrams);
        for datagram in datagrams.iter().flat_map(singly) {
            self.sent.push((self.now, datagram.clone()));
            self.fly(Flight::ToBrowser(datagram));
        }
        let mut sent = Vec::new();
        self.browser.take_datagrams(&mut sent);
        for datagram in sent {
            self.fly(Flight::ToServer(datagram));
        }
        while let Some(event) = self.session.poll_event() {
            self.events.push((self.now, event));
        }
        while let Some(seen) = self.browser.poll_event() {
            self.seen.push((self.now, seen));
        }
    }

    fn fly(&mut self, flight: Flight) {
        if !(self.is_lost)(&flight) {
            self.flights.push((self.now + self.latency, flight));
        }
    }

    /// Whether anything went to this address since an instant.
    pub fn sent_to(&self, address: SocketAddr, since: Instant) -> usize {
        self.sent
            .iter()
            .filter(|(at, datagram)| *at >= since && datagram.destination == address)
            .count()
    }
}

/// What arrives on TCP has been through the framing of both sides.
fn through_tcp(tcp: bool, contents: &[u8]) -> Vec<u8> {
    if !tcp {
        return contents.to_vec();
    }
    let framed = tcp_framing::frame(contents).unwrap();
    let mut reader = tcp_framing::FrameReader::new();
    let (first, second) = framed.split_at(framed.len() / 2);
    let mut input = first;
    assert_eq!(reader.read(&mut input), Ok(None));
    let mut input = second;
    reader.read(&mut input).unwrap().unwrap().to_vec()
}

/// A payload of `len` bytes that says who it is.
pub fn payload(number: u32, len: usize) -> Arc<[u8]> {
    let mut bytes = vec![0x41; len];
    bytes[1..5].copy_from_slice(&number.to_be_bytes());
    bytes.into()
}

pub fn number_of(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload[1..5].try_into().unwrap())
}

pub const FRAME: Duration = Duration::from_millis(40);

/// Writes `seconds` of a picture at 25 fps and sound at 50 packets/s, both captured at the
/// moment they are written, on clocks that began at `base`.
pub fn play(link: &mut Link, seconds: u32, packets_per_frame: u32) {
    let base = link.start;
    for frame in 0..seconds * 25 {
        let now = link.now;
        let since = now - base;
        let video_time = since.as_micros() as u64 * 90 / 1_000;
        let payloads: Vec<_> = (0..packets_per_frame)
            .map(|packet| payload(frame * packets_per_frame + packet, 1_000))
            .collect();
        for half in 0..2 {
            let now = link.now;
            let audio_time = (now - base).as_micros() as u64 * 48 / 1_000;
            let sound = payload(frame * 2 + half, 160);
            assert!(link.session.write_audio(now, &sound, audio_time, now));
            if half == 0 {
                assert!(
                    link.session
                        .write_video(now, &payloads, video_time, now, true)
                );
            }
            link.session.flush(now);
            link.run_for(FRAME / 2);
        }
    }
}

pub fn seen_rtp(link: &Link, wanted: Kind) -> Vec<(u64, u64, bool, u32)> {
    link.seen
        .iter()
        .filter_map(|(_, seen)| match seen {
            Seen::Rtp {
                kind,
                sequence,
                rtp_time,
                marker,
                payload,
                ..
            } if *kind == wanted => Some((*sequence, *rtp_time, *marker, number_of(payload))),
            _ => None,
        })
        .collect()
}

pub fn received_rtp(link: &Link, wanted: TrackKind) -> Vec<Rtp> {
    link.events
        .iter()
        .filter_map(|(_, event)| match event {
            Event::Rtp(rtp) if rtp.kind == wanted => Some(rtp.clone()),
            _ => None,
        })
        .collect()
}

pub fn publish(link: &mut Link, frames: u32) {
    for frame in 0..frames {
        let now = link.now;
        let payloads: Vec<_> = (0..3)
            .map(|packet| payload(frame * 3 + packet, 900))
            .collect();
        link.browser
            .write(now, Kind::Video, &payloads, frame * 3_600);
        link.browser
            .write(now, Kind::Audio, &[payload(frame, 100)], frame * 1_920);
        link.run_for(FRAME);
    }
}

pub fn is_media(contents: &[u8]) -> bool {
    let [first, second, ..] = contents else {
        return false;
    };
    first >> 6 == 2 && !(64..96).contains(&(second & 0x7f))
}

pub const WIFI: &str = "198.51.100.10:50000";
pub const MOBILE: &str = "192.0.2.77:40000";

pub fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The datagrams of a train.
fn singly(train: &Datagram) -> impl Iterator<Item = Datagram> {
    train.packets().map(|packet| Datagram {
        contents: packet.to_vec(),
        segment: packet.len(),
        ..train.clone()
    })
}

//! [`World`]: the gateway with its peers in memory, under a virtual clock.
//!
//! Everything that is on its way has a time of arrival; [`World::run_for`] goes from one event
//! to the next. Loss, delay and jitter of datagrams are drawn from a seed, so a failure
//! is replayed by its seed.
//!
//! | module | what it adds |
//! | --- | --- |
//! | `members` | clients of rooms and calls |
//! | `browsers` | WHIP and WHEP peers and their network |
//! | `link` | how their datagrams travel |
//! | `phones` | mini-programs |
//! | `sources` | what publishers send, and when |
//! | `time` | the virtual clock and everything on its way |

mod browsers;
mod link;
mod members;
mod phones;
mod sources;
#[path = "../../../tools/rtmp-flood/tags/mod.rs"]
pub mod tags;
mod time;

use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rtmp_gateway::config::Config;
use rtmp_gateway::gateway::{CallbackRequest, ConnId, Gateway, Input, Listener};
use rtmp_gateway::rtmp::client::{Client, ClientOptions, Event, Goal, RtmpUrl};
use rtmp_gateway::transcode::{Completed, Job, Worker};

use super::clip::{AUDIO, Clip, Feed, VIDEO};

pub use browsers::BrowserPeer;
#[allow(unused_imports, reason = "each test file uses its part")]
pub use link::{Burst, Cap, Link};
use members::Members;
use sources::FlvSource;
use time::OnWay;

/// Where the gateway's UDP socket is.
pub const CANDIDATE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 8000);

/// The time of day when the world begins: since 1970.
pub const UNIX_START: Duration = Duration::from_secs(1_800_000_000);

pub struct World {
    pub now: Instant,
    pub start: Instant,
    pub gateway: Gateway,
    /// How datagrams travel that have no link of their own.
    pub link: Link,
    /// When the gateway said that it has stopped.
    pub stopped: Option<Instant>,
    /// If there, every datagram to the gateway is noted: source, destination, contents.
    pub tap: Option<Vec<(SocketAddr, SocketAddr, Vec<u8>)>>,
    /// Calls of the gateway's inputs, to see that it does not spin.
    pub inputs: u64,
    /// Connections that the gateway asked to be written to at once, at most.
    pub most_transmits: usize,
    /// What nobody hears, see [`World::nobody_hears`].
    pub unheard: Option<Unheard>,
    /// Callbacks that the gateway asked for, in order; the test does them.
    pub callbacks: Vec<CallbackRequest>,
    rtmp: BTreeMap<ConnId, RtmpPeer>,
    /// Connections without a peer of ours: what the gateway sent, and whether it closed.
    raw: BTreeMap<ConnId, Raw>,
    browsers: Vec<BrowserPeer>,
    members: Members,
    legs: Vec<phones::Leg>,
    workers: Vec<Worker>,
    /// While there, what the workers are given waits here: they are overloaded.
    held_jobs: Option<Vec<(usize, Job)>>,
    /// How long a worker takes for a job.
    pub worker_delay: Duration,
    /// Jobs that are being worked on, by the time when they are done.
    late_work: VecDeque<(Instant, Completed)>,
    on_way: BinaryHeap<std::cmp::Reverse<OnWay>>,
    sequence: u64,
    next_conn: u64,
    random: u64,
}

/// An RTMP client of the world.
pub struct RtmpPeer {
    pub client: Client,
    pub events: Vec<(Instant, Event)>,
    /// Whether the gateway closed its connection.
    pub closed: bool,
    /// When it did.
    pub closed_at: Option<Instant>,
    /// A peer that does not read leaves everything in the gateway's queue.
    pub reads: bool,
    /// Bytes a second that it reads; `None`: at once.
    rate: Option<u64>,
    /// What the two kernels hold of a slow reader's bytes.
    socket: VecDeque<u8>,
    is_draining: bool,
    source: Option<FlvSource>,
}

impl RtmpPeer {
    /// The status codes that it got, in order.
    pub fn statuses(&self) -> Vec<&str> {
        let events = self.events.iter();
        events
            .filter_map(|(_, event)| match event {
                Event::Status { code, .. } => Some(code.as_str()),
                _ => None,
            })
            .collect()
    }

    /// When it first got the status `wanted`.
    pub fn status_at(&self, wanted: &str) -> Option<Instant> {
        let mut events = self.events.iter();
        events
            .find(|(_, event)| matches!(event, Event::Status { code, .. } if code == wanted))
            .map(|(at, _)| *at)
    }
}

/// What nobody hears.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unheard {
    pub tcp_bytes: u64,
    pub datagrams: u64,
}

#[derive(Default)]
pub struct Raw {
    pub received: Vec<u8>,
    pub closed: bool,
}

/// The answer to an HTTP request.
#[derive(Clone, Debug)]
pub struct HttpAnswer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl HttpAnswer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl World {
    pub fn new() -> Self {
        Self::with_config(Config::default())
    }

    pub fn with_config(config: Config) -> Self {
        let now = Instant::now();
        let world = rtmp_gateway::gateway::World {
            candidates: vec![CANDIDATE],
            workers: 2,
            seed: [7; 32],
            unix_time: UNIX_START,
        };
        Self {
            now,
            start: now,
            gateway: Gateway::new(Arc::new(config), world, now).expect("a gateway"),
            link: Link::default(),
            stopped: None,
            tap: None,
            inputs: 0,
            most_transmits: 0,
            unheard: None,
            callbacks: Vec::new(),
            rtmp: BTreeMap::new(),
            raw: BTreeMap::new(),
            browsers: Vec::new(),
            members: Members::default(),
            legs: Vec::new(),
            workers: vec![Worker::new(), Worker::new()],
            held_jobs: None,
            worker_delay: Duration::ZERO,
            late_work: VecDeque::new(),
            on_way: BinaryHeap::new(),
            sequence: 0,
            next_conn: 1,
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    pub fn seed(mut self, seed: u64) -> Self {
        self.random ^= seed.wrapping_mul(0xd134_2543_de82_ef95);
        self
    }

    /// From now on nobody hears the gateway: what it sends to RTMP clients and browsers is counted
    /// and thrown away, and browsers are gone without a word, so that what remains is the gateway's
    /// own work. Its sessions end when it misses them.
    pub fn nobody_hears(&mut self) {
        self.unheard = Some(Unheard::default());
        self.browsers.clear();
    }

    /// What is drawn from now on depends on nothing that was before.
    pub fn reseed(&mut self, seed: u64) {
        self.random = seed.wrapping_mul(0xd134_2543_de82_ef95);
    }

    /// Virtual time since the world began.
    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Pipelines that the workers hold.
    pub fn pipelines(&self) -> usize {
        self.workers.iter().map(Worker::len).sum()
    }

    /// The workers do nothing more, or go on and do all that waits.
    pub fn hold_workers(&mut self, hold: bool) {
        if hold {
            self.held_jobs.get_or_insert_default();
            return;
        }
        for (worker, job) in self.held_jobs.take().unwrap_or_default() {
            if let Some(done) = self.workers[worker].run(job) {
                self.input(Input::Transcoded(done));
            }
        }
    }

    // ---- RTMP ----

    pub fn rtmp(&mut self, goal: Goal, path: &str) -> ConnId {
        self.rtmp_with(goal, path, ClientOptions::default())
    }

    pub fn rtmp_with(&mut self, goal: Goal, path: &str, options: ClientOptions) -> ConnId {
        let url = RtmpUrl::parse(&format!("rtmp://gateway.test/{path}")).expect("a URL");
        let conn = self.connect(Listener::Rtmp);
        let seed = self.draw();
        self.rtmp.insert(
            conn,
            RtmpPeer {
                client: Client::new(url, goal, options, seed),
                events: Vec::new(),
                closed: false,
                closed_at: None,
                reads: true,
                rate: None,
                socket: VecDeque::new(),
                is_draining: false,
                source: None,
            },
        );
        self.pump_rtmp(conn);
        conn
    }

    /// An RTMP publisher of the clip in real time.
    pub fn rtmp_publish(&mut self, path: &str) -> ConnId {
        self.rtmp_publish_feed(path, Clip::load().feed())
    }

    /// An RTMP publisher of anything in real time.
    pub fn rtmp_publish_feed(&mut self, path: &str, feed: Feed) -> ConnId {
        let conn = self.rtmp(Goal::Publish, path);
        self.rtmp_mut(conn).source = Some(FlvSource::new(feed, self.now));
        conn
    }

    /// The clip with only some of its tracks, and timestamps that begin at an offset.
    pub fn rtmp_publish_tracks(
        &mut self,
        path: &str,
        video: bool,
        audio: bool,
        offset: u32,
    ) -> ConnId {
        let mut feed = Clip::load().feed().offset(offset);
        if !video {
            feed = feed.only(AUDIO);
        }
        if !audio {
            feed = feed.only(VIDEO);
        }
        self.rtmp_publish_feed(path, feed)
    }

    /// What a publisher sends from now on for so long leaves it all at once, afterwards.
    pub fn rtmp_stalls(&mut self, conn: ConnId, millis: u64) {
        let until = self.now + Duration::from_millis(millis);
        if let Some(source) = &mut self.rtmp_mut(conn).source {
            source.stalled_until = Some(until);
        }
    }

    /// What a publisher of [`World::rtmp_with`] sends.
    pub fn feed(&mut self, conn: ConnId, feed: Feed) {
        self.rtmp_mut(conn).source = Some(FlvSource::new(feed, self.now));
    }

    /// The other end of any connection goes away.
    pub fn hang_up_raw(&mut self, conn: ConnId) {
        if let Some(peer) = self.rtmp.get_mut(&conn) {
            peer.source = None;
        }
        self.hang_up(conn);
    }

    /// A publisher that has stopped publishes again on its connection.
    pub fn rtmp_feed_again(&mut self, conn: ConnId, feed: Feed) {
        let source = FlvSource::new(feed, self.now);
        let peer = self.rtmp_mut(conn);
        peer.source = Some(source);
        peer.client.start_again();
        self.pump_rtmp(conn);
    }

    pub fn rtmp_play(&mut self, path: &str) -> ConnId {
        self.rtmp(Goal::Play, path)
    }

    pub fn rtmp_peer(&self, conn: ConnId) -> &RtmpPeer {
        &self.rtmp[&conn]
    }

    pub fn rtmp_mut(&mut self, conn: ConnId) -> &mut RtmpPeer {
        self.rtmp.get_mut(&conn).expect("a peer")
    }

    /// Writes what a client queued by a direct call.
    pub fn pump_rtmp(&mut self, conn: ConnId) {
        let Some(peer) = self.rtmp.get_mut(&conn) else {
            return;
        };
        let mut bytes = Vec::new();
        while let Some(part) = peer.client.transmit().pop() {
            bytes.extend_from_slice(&part);
        }
        if !bytes.is_empty() {
            self.send_to_gateway(conn, bytes);
        }
    }

    /// Lets a client call a command, as `pause`.
    pub fn rtmp_call(&mut self, conn: ConnId, name: &str, argument: bool) {
        use rtmp_gateway::rtmp::amf0::Value;
        let values = vec![Value::Null, Value::Boolean(argument)];
        self.rtmp_mut(conn).client.call(name, 0.0, values);
        self.pump_rtmp(conn);
    }

    /// The client ends its stream as ffmpeg does and closes.
    pub fn rtmp_stop(&mut self, conn: ConnId) {
        let peer = self.rtmp_mut(conn);
        peer.source = None;
        peer.client.close();
        self.pump_rtmp(conn);
        self.hang_up(conn);
    }

    /// The client is gone without a word, but its kernel closes.
    pub fn rtmp_kill(&mut self, conn: ConnId) {
        self.rtmp_mut(conn).source = None;
        self.hang_up(conn);
    }

    /// The client's network is gone: nothing comes or goes, and nobody is told.
    pub fn rtmp_freeze(&mut self, conn: ConnId) {
        let peer = self.rtmp_mut(conn);
        peer.source = None;
        peer.rate = Some(0);
    }

    /// How many bytes a second a client reads from now on; `None`: all at once.
    pub fn rtmp_reads(&mut self, conn: ConnId, rate: Option<u64>) {
        self.rtmp_mut(conn).rate = rate;
        self.drain_socket(conn);
        self.transmit(conn);
        self.input(Input::Timeout);
    }

    /// A reader that had stopped reads again.
    pub fn resume_reading(&mut self, conn: ConnId) {
        self.rtmp_mut(conn).reads = true;
        self.transmit(conn);
        self.input(Input::Timeout);
    }

    // ---- Raw connections and HTTP ----

    pub fn connect(&mut self, listener: Listener) -> ConnId {
        self.connect_from(listener, SocketAddr::from(([198, 51, 100, 7], 40_000)))
    }

    pub fn connect_from(&mut self, listener: Listener, peer: SocketAddr) -> ConnId {
        let conn = ConnId(self.next_conn);
        self.next_conn += 1;
        self.raw.insert(conn, Raw::default());
        self.input(Input::Accepted {
            conn,
            listener,
            peer,
            local: CANDIDATE,
        });
        conn
    }

    /// Bytes that arrive at once.
    pub fn raw_send(&mut self, conn: ConnId, bytes: &[u8]) {
        if !self.raw[&conn].closed {
            self.input(Input::Received { conn, bytes });
        }
    }

    pub fn raw_peer(&self, conn: ConnId) -> &Raw {
        &self.raw[&conn]
    }

    pub fn http(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> HttpAnswer {
        let path = path.strip_prefix("http://gateway.test").unwrap_or(path);
        let conn = self.connect(Listener::Http);
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: gateway.test\r\n");
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += &format!(
            "Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        self.raw_send(conn, request.as_bytes());
        let text = String::from_utf8(self.raw[&conn].received.clone()).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a response");
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .expect("a status");
        HttpAnswer {
            status,
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    /// What the API says of a stream.
    pub fn stream(&mut self, name: &str) -> Option<serde_json::Value> {
        let answer = self.http("GET", &format!("/api/v1/streams/{name}"), &[], "");
        (answer.status == 200).then(|| serde_json::from_str(&answer.body).expect("JSON"))
    }

    /// What the API says of all streams.
    pub fn streams(&mut self) -> serde_json::Value {
        let answer = self.http("GET", "/api/v1/streams", &[], "");
        assert_eq!(answer.status, 200);
        serde_json::from_str(&answer.body).expect("JSON")
    }

    /// The value of a line of `/metrics`; zero if there is no such line.
    pub fn metric(&mut self, line: &str) -> f64 {
        let page = self.http("GET", "/metrics", &[], "").body;
        page.lines()
            .find_map(|l| l.strip_prefix(line)?.strip_prefix(' '))
            .map_or(0.0, |value| value.parse().expect("a number"))
    }
}

/// The FLV bodies that a player got, by kind, with their timestamps.
pub fn media(peer: &RtmpPeer, kind: u8) -> Vec<(Instant, u32, Bytes)> {
    peer.events
        .iter()
        .filter_map(|(at, event)| match event {
            Event::Video { timestamp, payload } if kind == VIDEO => {
                Some((*at, *timestamp, payload.clone()))
            }
            Event::Audio { timestamp, payload } if kind == AUDIO => {
                Some((*at, *timestamp, payload.clone()))
            }
            _ => None,
        })
        .collect()
}

/// The coded ones of them: second byte 1.
pub fn coded(peer: &RtmpPeer, kind: u8) -> Vec<(Instant, u32, Bytes)> {
    let mut all = media(peer, kind);
    all.retain(|(_, _, body)| body[1] == 1);
    all
}

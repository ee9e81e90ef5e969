//! WHIP and WHEP peers and their network.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rtmp_gateway::gateway::{ConnId, Listener};

use super::link::{Link, PathState, Way};
use super::sources::RtpSource;
use super::time::What;
use super::{HttpAnswer, World};
use crate::common::browser::{Browser, BrowserConfig, Does, Kind, Seen, Sent};
use crate::common::clip::{Clip, RtpPicture, opus_tone};

/// A browser of the world.
pub struct BrowserPeer {
    pub browser: Browser,
    pub seen: Vec<(Instant, Seen)>,
    /// The URL of its session.
    pub session: String,
    pub etag: String,
    /// The answer to its offer.
    pub answer: String,
    /// While false, its datagrams and those to it are lost.
    pub online: bool,
    /// Of its addresses, those whose network is down.
    pub dead: BTreeSet<IpAddr>,
    /// The address that the gateway sees instead of its own.
    pub nat: Option<IpAddr>,
    /// How its datagrams travel to the gateway, if not as the others'.
    pub up: Option<Link>,
    /// And the gateway's to it.
    pub down: Option<Link>,
    pub(super) paths: [PathState; 2],
    /// When datagrams arrived at each of its addresses, as the gateway knows them.
    pub arrived: BTreeMap<SocketAddr, Vec<Instant>>,
    /// Its ICE-TCP connection, if it uses one.
    pub(super) tcp: Option<ConnId>,
    pub source: Option<RtpSource>,
}

impl World {
    /// A browser that plays; `Err` is the refusal.
    pub fn whep(&mut self, path: &str) -> Result<usize, HttpAnswer> {
        let config = BrowserConfig::new(Does::View);
        self.browse(&format!("/whep/{path}"), config, &[])
    }

    /// A browser that publishes the clip's pictures and a tone; `Err` is the refusal.
    pub fn whip(&mut self, path: &str) -> Result<usize, HttpAnswer> {
        self.whip_with(path, true, true, &[])
    }

    /// The same with only some of the tracks in its offer.
    pub fn whip_with(
        &mut self,
        path: &str,
        video: bool,
        audio: bool,
        headers: &[(&str, &str)],
    ) -> Result<usize, HttpAnswer> {
        let mut config = BrowserConfig::new(Does::Publish);
        if !video {
            config.h264.clear();
        }
        if !audio {
            config.opus = None;
        }
        self.whip_as(path, config, headers)
    }

    /// The same for a browser of the test's making.
    pub fn whip_as(
        &mut self,
        path: &str,
        config: BrowserConfig,
        headers: &[(&str, &str)],
    ) -> Result<usize, HttpAnswer> {
        let browser = self.browse(&format!("/whip/{path}"), config, headers)?;
        self.publish_from(browser, Clip::load().rtp_pictures());
        Ok(browser)
    }

    /// What a browser that publishes sends.
    pub(super) fn publish_from(&mut self, browser: usize, pictures: Vec<RtpPicture>) {
        let rtp = [self.draw() as u32, self.draw() as u32];
        let source = RtpSource::new(pictures, opus_tone(500), self.now, rtp);
        self.browsers[browser].source = Some(source);
    }

    pub fn browse(
        &mut self,
        path: &str,
        config: BrowserConfig,
        headers: &[(&str, &str)],
    ) -> Result<usize, HttpAnswer> {
        let mut browser = self.new_browser(config);
        let mut all = vec![("Content-Type", "application/sdp")];
        all.extend_from_slice(headers);
        let answer = self.http("POST", path, &all, browser.offer());
        if answer.status != 201 {
            return Err(answer);
        }
        browser.accept_answer(&answer.body);
        let session = answer.header("Location").expect("a Location").to_owned();
        let etag = answer.header("ETag").expect("an ETag").to_owned();
        let index = self.keep_browser(browser, session, etag, answer.body);
        self.pump_browser(index);
        Ok(index)
    }

    /// A browser whose offer goes another way than by HTTP.
    pub(super) fn add_browser(&mut self, config: BrowserConfig) -> usize {
        let browser = self.new_browser(config);
        self.keep_browser(browser, String::new(), String::new(), String::new())
    }

    /// The answer to its offer.
    pub(super) fn accept_sdp(&mut self, index: usize, sdp: &str) {
        self.browsers[index].browser.accept_answer(sdp);
        self.browsers[index].answer = sdp.to_owned();
        self.pump_browser(index);
    }

    fn new_browser(&self, mut config: BrowserConfig) -> Browser {
        for (address, _) in &mut config.addresses {
            address.set_port(FIRST_PORT + self.browsers.len() as u16);
        }
        Browser::new(config, self.now)
    }

    fn keep_browser(
        &mut self,
        browser: Browser,
        session: String,
        etag: String,
        answer: String,
    ) -> usize {
        self.browsers.push(BrowserPeer {
            browser,
            seen: Vec::new(),
            session,
            etag,
            answer,
            online: true,
            dead: BTreeSet::new(),
            nat: None,
            up: None,
            down: None,
            paths: [PathState::default(); 2],
            arrived: BTreeMap::new(),
            tcp: None,
            source: None,
        });
        self.browsers.len() - 1
    }

    pub fn browser(&self, index: usize) -> &BrowserPeer {
        &self.browsers[index]
    }

    pub fn browser_mut(&mut self, index: usize) -> &mut BrowserPeer {
        &mut self.browsers[index]
    }

    /// What a publishing browser sends.
    pub fn source_mut(&mut self, index: usize) -> &mut RtpSource {
        self.browsers[index].source.as_mut().expect("a publisher")
    }

    /// A publishing browser mutes its microphone (no packets at all) or goes on.
    pub fn whip_sound(&mut self, index: usize, on: bool) {
        self.source_mut(index).audio = on;
    }

    /// The viewer sends a PLI.
    pub fn request_keyframe(&mut self, index: usize) {
        let now = self.now;
        self.browsers[index].browser.request_keyframe(now);
        self.pump_browser(index);
    }

    /// The page is closed.
    pub fn close_browser(&mut self, index: usize) {
        let now = self.now;
        self.browsers[index].source = None;
        self.browsers[index].browser.close(now);
        self.pump_browser(index);
    }

    /// The virtual time since `from` at which the browser first saw something.
    pub fn first_seen(
        &self,
        index: usize,
        from: Instant,
        wanted: impl Fn(&Seen) -> bool,
    ) -> Option<Duration> {
        let mut seen = self.browsers[index].seen.iter();
        seen.find(|(at, seen)| *at >= from && wanted(seen))
            .map(|(at, _)| *at - from)
    }

    /// When the browser's transport was up.
    pub fn connected_at(&self, index: usize) -> Option<Instant> {
        let start = self.start;
        self.first_seen(index, start, |seen| matches!(seen, Seen::Connected))
            .map(|after| start + after)
    }

    /// Lets one browser publish what another one was shown and played since `from`, as a page
    /// that passes it on; answers where to go on.
    pub fn pass_on(&mut self, viewer: usize, publisher: usize, from: usize) -> usize {
        let seen: Vec<Seen> = self.browsers[viewer].seen[from..]
            .iter()
            .map(|(_, seen)| seen.clone())
            .collect();
        let mut picture = Vec::new();
        let mut taken = from;
        for (at, seen) in seen.into_iter().enumerate() {
            if let Seen::Rtp {
                kind,
                rtp_time,
                marker,
                payload,
                ..
            } = seen
            {
                picture.push(payload);
                if kind == Kind::Video && !marker {
                    continue;
                }
                let now = self.now;
                let browser = &mut self.browsers[publisher].browser;
                browser.write(now, kind, &std::mem::take(&mut picture), rtp_time as u32);
                self.pump_browser(publisher);
            }
            taken = from + at + 1;
        }
        taken
    }

    pub(super) fn pump_browser(&mut self, index: usize) {
        let mut sent = Vec::new();
        self.browsers[index].browser.take_datagrams(&mut sent);
        for sent in sent {
            self.send_datagram(index, sent);
        }
        while let Some(seen) = self.browsers[index].browser.poll_event() {
            let now = self.now;
            let peer = &mut self.browsers[index];
            if matches!(seen, Seen::KeyframeRequested)
                && let Some(source) = &mut peer.source
            {
                source.key_requested(now);
            }
            peer.seen.push((now, seen));
        }
    }

    /// A datagram of a browser goes on its way.
    pub fn send_datagram(&mut self, index: usize, sent: Sent) {
        let peer = &self.browsers[index];
        if !peer.online || peer.dead.contains(&sent.source.ip()) {
            return;
        }
        if sent.tcp {
            self.send_framed(index, sent.source, sent.contents);
            return;
        }
        let ip = peer.nat.unwrap_or(sent.source.ip());
        let source = SocketAddr::new(ip, sent.source.port());
        for delay in self.travel(index, Way::Up, sent.contents.len()) {
            let what = What::UdpToGateway {
                source,
                destination: sent.destination,
                bytes: sent.contents.clone(),
            };
            self.send(delay, what);
        }
    }

    /// A datagram of the gateway goes to the browser whose port it names.
    pub(super) fn send_to_browser(
        &mut self,
        source: SocketAddr,
        destination: SocketAddr,
        contents: Vec<u8>,
    ) {
        let port = usize::from(destination.port());
        let known = |index: &usize| *index < self.browsers.len();
        let Some(browser) = port.checked_sub(usize::from(FIRST_PORT)).filter(known) else {
            return;
        };
        for delay in self.travel(browser, Way::Down, contents.len()) {
            let what = What::UdpToBrowser {
                browser,
                source,
                destination,
                bytes: contents.clone(),
            };
            self.send(delay, what);
        }
    }

    pub(super) fn datagram_arrived(
        &mut self,
        browser: usize,
        source: SocketAddr,
        destination: SocketAddr,
        bytes: &[u8],
    ) {
        let now = self.now;
        let peer = &mut self.browsers[browser];
        let is_nat = peer.nat == Some(destination.ip());
        let is_stale = peer.nat.is_some() && !is_nat;
        if !peer.online || is_stale || peer.dead.contains(&destination.ip()) {
            return;
        }
        peer.arrived.entry(destination).or_default().push(now);
        let local = if is_nat { HOME } else { destination.ip() };
        let local = SocketAddr::new(local, destination.port());
        peer.browser
            .handle_datagram(now, false, source, local, bytes);
        self.pump_browser(browser);
    }

    /// RFC 4571 frames of the gateway, cut anywhere.
    pub(super) fn frames_arrived(&mut self, browser: usize, conn: ConnId, bytes: &[u8]) {
        let now = self.now;
        let raw = self.raw.get_mut(&conn).expect("a connection");
        raw.received.extend_from_slice(bytes);
        let mut framed = std::mem::take(&mut raw.received);
        while let Some((head, rest)) = framed.split_first_chunk::<2>() {
            let size = usize::from(u16::from_be_bytes(*head));
            if rest.len() < size {
                break;
            }
            let datagram = rest[..size].to_vec();
            framed.drain(..2 + size);
            let destination = SocketAddr::new(HOME, FIRST_PORT + browser as u16);
            let peer = &mut self.browsers[browser];
            let source = super::CANDIDATE;
            peer.browser
                .handle_datagram(now, true, source, destination, &datagram);
        }
        self.raw.get_mut(&conn).expect("a connection").received = framed;
        self.pump_browser(browser);
    }

    pub(super) fn browser_of_tcp(&self, conn: ConnId) -> Option<usize> {
        self.browsers.iter().position(|peer| peer.tcp == Some(conn))
    }

    /// An ICE-TCP connection is opened with the first datagram that wants one.
    fn send_framed(&mut self, index: usize, source: SocketAddr, contents: Vec<u8>) {
        let conn = match self.browsers[index].tcp {
            Some(conn) => conn,
            None => {
                let conn = self.connect_from(Listener::IceTcp, source);
                self.browsers[index].tcp = Some(conn);
                conn
            }
        };
        let mut bytes = (contents.len() as u16).to_be_bytes().to_vec();
        bytes.extend_from_slice(&contents);
        self.send_to_gateway(conn, bytes);
    }
}

/// The address that browsers have unless they are given others.
const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 10));

/// The port of the first browser; the others follow.
const FIRST_PORT: u16 = 50_000;

//! [`Call`]: one call between a simulated mini-program and a simulated browser, from the sign-in to
//! the end.
//!
//! ```text
//!  SigningIn ──both ok──▶ Ready ──due──▶ Inviting ──incoming──▶ Ringing ──accept──▶ Talking
//!                                                                                     │ hold
//!                                                        Over ◀──call.ended── Ending ◀┘
//! ```

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Interest, Registry, Token};
use serde_json::{Value, json};

use super::browser::RtcLeg;
use super::media::CallMedia;
use super::phone::Leg;
use super::signal::Signal;
use crate::http::HttpUrl;
use crate::tags::{LivePlayer, LivePusher, Phone, Tag};
use crate::webrtc::Crypto;

/// What all calls share.
pub struct Shared {
    /// Where the signalling is.
    pub url: HttpUrl,
    /// The same, looked up.
    pub server: SocketAddr,
    /// Shown at sign-in.
    pub token: Option<String>,
    /// DTLS.
    pub crypto: Crypto,
    /// What phones send.
    pub phone: Phone,
    /// What browsers send.
    pub media: CallMedia,
    /// How long a callee lets it ring.
    pub answer_after: Duration,
    /// For bytes in passing.
    pub buffer: Box<[u8]>,
    /// Tells runs apart at the gateway.
    pub run: u32,
}

/// One call.
pub struct Call {
    number: usize,
    /// The mini-program rings.
    phone_rings: bool,
    /// Where it is.
    pub state: State,
    signals: [Option<Signal>; 2],
    /// Id of the last request of each side that is waited for.
    asked: [Vec<(u64, Asked)>; 2],
    call: Option<String>,
    room: Option<String>,
    /// When the callee accepts.
    accept_at: Option<Instant>,
    /// When it accepted.
    pub accepted: Option<Instant>,
    push: Option<Leg<LivePusher>>,
    play: Option<Leg<LivePlayer>>,
    publish: Option<RtcLeg>,
    subscribe: Option<RtcLeg>,
    /// What the tags and connections brought, once they are gone.
    pub outcome: Option<Outcome>,
}

/// Where a call is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Both sides connect.
    SigningIn,
    /// Both are signed in.
    Ready,
    /// The caller waits.
    Inviting,
    /// The call stands.
    Talking,
    /// One side hung up.
    Ending,
    /// It is over, for this reason if it did not go as planned.
    Over(Option<String>),
}

/// What a request was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Invite,
    Accept,
    Publish,
    Subscribe,
    Hangup,
}

/// What both sides saw and heard.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// From accepting to picture and sound on both sides.
    pub setup: Option<Duration>,
    /// Until the mini-program had the browser's picture, and its sound.
    pub phone: [Option<Duration>; 2],
    /// Until the browser had the mini-program's picture, and its sound.
    pub browser: [Option<Duration>; 2],
    /// Pictures and sounds that the mini-program got.
    pub phone_got: [u64; 2],
    /// Pictures and sounds that the browser got.
    pub browser_got: [u64; 2],
    /// Things that came too late to be shown in time by the mini-program.
    pub stutters: u64,
    /// Pictures that the mini-program could not decode.
    pub undecodable: u64,
    /// Sounds that came too late for the browser.
    pub sounds_late: u64,
    /// Sounds that never came to the browser.
    pub sounds_missing: u64,
}

const PHONE: usize = 0;
const BROWSER: usize = 1;

/// Tokens of one call.
pub const TOKENS: usize = 6;
const PUSH: usize = 2;
const PLAY: usize = 3;
const PUBLISH: usize = 4;
const SUBSCRIBE: usize = 5;

impl Call {
    /// A call whose two sides sign in.
    ///
    /// # Errors
    /// A short reason.
    pub fn new(number: usize, shared: &Shared, registry: &Registry) -> Result<Self, String> {
        let mut signals = [None, None];
        for (side, signal) in signals.iter_mut().enumerate() {
            let kind = ["rtmp", "webrtc"][side];
            let mut hello = json!({ "type": "hello", "version": 1, "kind": kind, "user": user(shared, number, side) });
            if let Some(token) = &shared.token {
                hello["token"] = token.as_str().into();
            }
            let told = |error: std::io::Error| crate::http::tcp_reason(error.kind());
            let mut made = Signal::new(shared.server, &shared.url, hello).map_err(told)?;
            if let Some(stream) = made.stream() {
                let interest = Interest::READABLE | Interest::WRITABLE;
                registry
                    .register(stream, token_of(number, side), interest)
                    .map_err(told)?;
            }
            *signal = Some(made);
        }
        Ok(Self {
            number,
            phone_rings: number.is_multiple_of(2),
            state: State::SigningIn,
            signals,
            asked: [Vec::new(), Vec::new()],
            call: None,
            room: None,
            accept_at: None,
            accepted: None,
            push: None,
            play: None,
            publish: None,
            subscribe: None,
            outcome: None,
        })
    }

    /// Rings.
    pub fn begin(&mut self, shared: &Shared) {
        self.state = State::Inviting;
        let to = user(shared, self.number, self.callee());
        self.ask(
            self.caller(),
            Asked::Invite,
            "call.invite",
            json!({ "to": to, "audio": true, "video": true }),
        );
    }

    /// One side hangs up.
    pub fn end(&mut self) {
        if self.state != State::Talking {
            return;
        }
        self.outcome = Some(self.look());
        self.state = State::Ending;
        let call = self.call.clone();
        self.ask(
            self.callee(),
            Asked::Hangup,
            "call.hangup",
            json!({ "call": call }),
        );
        if let Some(push) = &mut self.push {
            push.tag.stop();
        }
        if let Some(play) = &mut self.play {
            play.tag.stop();
        }
    }

    /// It cannot go on.
    pub fn fail(&mut self, reason: &str) {
        if !matches!(self.state, State::Over(_)) {
            self.outcome.get_or_insert_default();
            self.over(Some(reason.to_owned()));
        }
    }

    /// A socket of the call is ready.
    pub fn on_ready(
        &mut self,
        slot: usize,
        now: Instant,
        shared: &mut Shared,
        registry: &Registry,
    ) {
        let buffer = &mut shared.buffer;
        let result = match slot {
            PHONE | BROWSER => self.signal_ready(slot, now, shared, registry),
            PUSH => self.push.as_mut().map_or(Ok(()), |leg| {
                leg.on_ready(now, buffer);
                Ok(())
            }),
            PLAY => self.play.as_mut().map_or(Ok(()), |leg| {
                leg.on_ready(now, buffer);
                Ok(())
            }),
            PUBLISH => (self.publish.as_mut()).map_or(Ok(()), |leg| leg.on_ready(now, buffer)),
            SUBSCRIBE => (self.subscribe.as_mut()).map_or(Ok(()), |leg| leg.on_ready(now, buffer)),
            _ => Ok(()),
        };
        self.settle(result, now, shared, registry);
    }

    /// When [`Self::on_due`] is due.
    pub fn next_due(&self, shared: &Shared) -> Option<Instant> {
        let signals = self.signals.iter().flatten().map(Signal::next_due);
        let rtc = [&self.publish, &self.subscribe];
        let rtc = rtc
            .into_iter()
            .flatten()
            .map(|leg| leg.next_due(&shared.media));
        signals
            .chain(rtc)
            .chain([
                self.accept_at,
                self.push.as_ref().and_then(|leg| leg.tag.next_timeout()),
                self.play.as_ref().and_then(|leg| leg.tag.next_timeout()),
            ])
            .flatten()
            .min()
    }

    /// Does what is due.
    pub fn on_due(&mut self, now: Instant, shared: &Shared, registry: &Registry) {
        let result = self.try_due(now, shared);
        self.settle(result, now, shared, registry);
    }

    fn try_due(&mut self, now: Instant, shared: &Shared) -> Result<(), String> {
        for signal in self.signals.iter_mut().flatten() {
            signal.on_due(now)?;
        }
        if self.accept_at.is_some_and(|at| at <= now) {
            self.accept_at = None;
            self.accepted = Some(Instant::now());
            let call = self.call.clone();
            self.ask(
                self.callee(),
                Asked::Accept,
                "call.accept",
                json!({ "call": call, "audio": true, "video": true }),
            );
        }
        if let Some(leg) = &mut self.push {
            leg.on_due(now);
        }
        if let Some(leg) = &mut self.play {
            leg.on_due(now);
        }
        for leg in [&mut self.publish, &mut self.subscribe]
            .into_iter()
            .flatten()
        {
            leg.on_due(now, &shared.media)?;
        }
        Ok(())
    }

    fn settle(
        &mut self,
        result: Result<(), String>,
        now: Instant,
        shared: &Shared,
        registry: &Registry,
    ) {
        if let Some(leg) = &mut self.push {
            leg.pump(now, rtmp_server(leg.tag.url(), shared), registry);
        }
        if let Some(leg) = &mut self.play {
            leg.pump(now, rtmp_server(leg.tag.url(), shared), registry);
        }
        if let Err(reason) = result {
            self.fail(&reason);
        }
    }

    fn signal_ready(
        &mut self,
        side: usize,
        now: Instant,
        shared: &Shared,
        registry: &Registry,
    ) -> Result<(), String> {
        let Some(signal) = &mut self.signals[side] else {
            return Ok(());
        };
        for message in signal.on_ready(now)? {
            self.message(side, &message, now, shared, registry)?;
        }
        Ok(())
    }

    fn message(
        &mut self,
        side: usize,
        message: &Value,
        now: Instant,
        shared: &Shared,
        registry: &Registry,
    ) -> Result<(), String> {
        match message["type"].as_str().unwrap_or_default() {
            "ok" | "error" => self.answered(side, message, now, shared, registry),
            "call.incoming" => {
                self.call = message["call"].as_str().map(str::to_owned);
                let call = self.call.clone();
                self.send(side, "call.ringing", json!({ "call": call }))?;
                self.accept_at = Some(now + shared.answer_after);
                Ok(())
            }
            "call.accepted" => self.enter(side, message, now, shared, registry),
            "member.joined" if self.state == State::Talking => {
                self.meet(side, &message["member"], now, shared, registry)
            }
            "call.ended" => {
                match self.state {
                    State::Ending => self.over(None),
                    _ => {
                        let reason = message["reason"].as_str().unwrap_or_default();
                        self.fail(&format!("ended_{reason}"));
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn answered(
        &mut self,
        side: usize,
        message: &Value,
        now: Instant,
        shared: &Shared,
        registry: &Registry,
    ) -> Result<(), String> {
        if message["type"] == "error" {
            let reason = message["reason"].as_str().unwrap_or_default();
            return Err(format!("refused_{reason}"));
        }
        // Only the answer to `hello` has it.
        if message["session"].is_string() {
            self.asked[side].push((0, Asked::Hangup));
            if self.state == State::SigningIn && self.asked.iter().all(|asked| !asked.is_empty()) {
                self.asked = [Vec::new(), Vec::new()];
                self.state = State::Ready;
            }
            return Ok(());
        }
        let id = message["id"].as_u64();
        let Some(at) = self.asked[side]
            .iter()
            .position(|(asked, _)| Some(*asked) == id)
        else {
            return Ok(());
        };
        let (_, asked) = self.asked[side].swap_remove(at);
        match asked {
            Asked::Invite => Ok(()),
            Asked::Accept => self.enter(side, message, now, shared, registry),
            Asked::Publish | Asked::Subscribe => {
                let leg = match asked {
                    Asked::Publish => &mut self.publish,
                    _ => &mut self.subscribe,
                };
                let sdp = message["answer"].as_str().ok_or("no_answer")?;
                leg.as_mut().map_or(Ok(()), |leg| leg.answer(now, sdp))
            }
            // The other side's `call.ended` is waited for.
            Asked::Hangup => Ok(()),
        }
    }

    /// A side has become a member of the call's room.
    fn enter(
        &mut self,
        side: usize,
        message: &Value,
        now: Instant,
        shared: &Shared,
        registry: &Registry,
    ) -> Result<(), String> {
        self.state = State::Talking;
        self.room = message["room"].as_str().map(str::to_owned);
        if side == PHONE {
            let url = message["push"]["url"].as_str().ok_or("no_push_url")?;
            let leg = Leg::push(
                url,
                &shared.phone,
                self.number as u64,
                token_of(self.number, PUSH),
            )?;
            self.push = Some(leg);
        } else {
            let leg = self.offer(true, now, shared, registry)?;
            self.publish = Some(leg);
        }
        for member in message["members"].as_array().into_iter().flatten() {
            self.meet(side, member, now, shared, registry)?;
        }
        Ok(())
    }

    /// A side learns of the other one.
    fn meet(
        &mut self,
        side: usize,
        member: &Value,
        now: Instant,
        shared: &Shared,
        registry: &Registry,
    ) -> Result<(), String> {
        if side == PHONE && self.play.is_none() {
            let url = member["play"]["url"].as_str().ok_or("no_play_url")?;
            let token = token_of(self.number, PLAY);
            self.play = Some(Leg::play(url, self.number as u64 + 1, token)?);
        } else if side == BROWSER && self.subscribe.is_none() {
            let id = member["member"].as_str().unwrap_or_default().to_owned();
            let (leg, offer) = self.rtc_leg(false, now, shared, registry)?;
            self.subscribe = Some(leg);
            let fields = json!({ "room": self.room, "member": id, "offer": offer });
            self.ask(BROWSER, Asked::Subscribe, "subscribe", fields);
        }
        Ok(())
    }

    fn offer(
        &mut self,
        is_publisher: bool,
        now: Instant,
        shared: &Shared,
        registry: &Registry,
    ) -> Result<RtcLeg, String> {
        let (leg, offer) = self.rtc_leg(is_publisher, now, shared, registry)?;
        let fields = json!({ "room": self.room, "offer": offer });
        self.ask(BROWSER, Asked::Publish, "publish", fields);
        Ok(leg)
    }

    fn rtc_leg(
        &mut self,
        is_publisher: bool,
        now: Instant,
        shared: &Shared,
        registry: &Registry,
    ) -> Result<(RtcLeg, String), String> {
        let (mut leg, offer) = RtcLeg::new(shared.server, is_publisher, &shared.crypto, now)?;
        let slot = if is_publisher { PUBLISH } else { SUBSCRIBE };
        registry
            .register(
                &mut leg.udp,
                token_of(self.number, slot),
                Interest::READABLE,
            )
            .map_err(|error| crate::http::tcp_reason(error.kind()))?;
        Ok((leg, offer))
    }

    fn ask(&mut self, side: usize, asked: Asked, kind: &str, fields: Value) {
        match self.send(side, kind, fields) {
            Ok(id) => self.asked[side].push((id, asked)),
            Err(reason) => self.fail(&reason),
        }
    }

    fn send(&mut self, side: usize, kind: &str, fields: Value) -> Result<u64, String> {
        let signal = self.signals[side].as_mut().ok_or("signal_closed")?;
        signal.request(kind, fields)
    }

    fn caller(&self) -> usize {
        if self.phone_rings { PHONE } else { BROWSER }
    }

    fn callee(&self) -> usize {
        1 - self.caller()
    }

    /// What has come so far.
    fn look(&self) -> Outcome {
        let Some(accepted) = self.accepted else {
            return Outcome::default();
        };
        let since = |at: Option<Instant>| at.map(|at| at.saturating_duration_since(accepted));
        let mut outcome = Outcome::default();
        if let Some(leg) = &self.play {
            let seen = &leg.tag.seen;
            outcome.phone = [since(seen.first_picture), since(seen.first_sound)];
            outcome.phone_got = [seen.pictures, seen.sounds];
            outcome.stutters = seen.stutters;
            outcome.undecodable = seen.undecodable;
        }
        if let Some(leg) = &self.subscribe {
            let seen = &leg.seen;
            outcome.browser = [since(seen.first_picture), since(seen.first_sound)];
            outcome.browser_got = [seen.pictures, seen.sounds];
            outcome.sounds_late = seen.sounds_late;
            outcome.sounds_missing = seen.sounds_missing;
        }
        let all: Option<Vec<Duration>> = outcome.phone.into_iter().chain(outcome.browser).collect();
        outcome.setup = all.and_then(|all| all.into_iter().max());
        outcome
    }

    /// Whether picture and sound are there on both sides.
    pub fn is_set_up(&self) -> bool {
        self.look().setup.is_some()
    }

    fn over(&mut self, reason: Option<String>) {
        self.state = State::Over(reason);
        // Dropping the sockets closes them.
        self.signals = [None, None];
        (self.push, self.play) = (None, None);
        (self.publish, self.subscribe) = (None, None);
    }
}

/// Names a socket of a call.
fn token_of(number: usize, slot: usize) -> Token {
    Token(number * TOKENS + slot)
}

fn user(shared: &Shared, number: usize, side: usize) -> String {
    format!("{}{number}-{}", ["phone", "browser"][side], shared.run)
}

/// The gateway's RTMP port on the machine that the signalling is on: a name that the gateway made
/// up for itself need not mean anything here.
fn rtmp_server(url: &rtmp_gateway::rtmp::client::RtmpUrl, shared: &Shared) -> SocketAddr {
    SocketAddr::new(shared.server.ip(), url.port())
}

//! Callbacks: an operator's HTTP server is told what happens, and asked whether it may.
//!
//! The requests are made outside of the loop by the world: [`Output::Callback`] asks for one,
//! [`Input::Callback`] brings what came of it. A question has a deadline of its own here, so
//! nothing waits longer than the configuration says, whatever the world does. What is asked
//! about is held by the one who asks ([`Asker`]); media that flows never waits.
//!
//! Bounded: questions by `queue_max` here, news by the queue of the world; what is beyond is
//! counted, a question as one that was not answered.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use serde_json::{Map, Value};

use super::admission::Admitted;
use super::conversations::{is_members_stream, refused};
use super::{Connection, Fate, Gateway, Output, Owner};
use crate::config::{self, CallbackEvent};
use crate::http::Status;
use crate::http::prometheus::{Exposition, Kind};
use crate::ids::ConnId;
use crate::signaling::Action;
use crate::signaling::conversations::{Decision, Ticket};

/// A request that the world is to make: POST, `application/json`, redirects not followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallbackRequest {
    /// Its name in [`Callback`].
    pub id: u64,
    /// Whether somebody waits for its answer. Others may be tried again, in their order.
    pub is_question: bool,
    /// The body.
    pub body: String,
    /// `X-Gateway-Timestamp` and `X-Gateway-Signature`, if requests are signed.
    pub signature: Option<(String, String)>,
}

/// What came of a [`CallbackRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callback {
    /// Its name.
    pub id: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took, tries and queue included.
    pub took: Duration,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered.
    Answered {
        /// The status code.
        status: u16,
        /// The body, cut where it is too long.
        body: Vec<u8>,
    },
    /// No connection, no answer in time, or no HTTP.
    Failed(String),
    /// The queue was full.
    Dropped,
}

/// What is held until a question is answered.
#[derive(Debug)]
pub(super) enum Asker {
    /// An RTMP connection: its NetStreams may not begin anything.
    RtmpConnect(ConnId),
    /// A request of a NetStream to publish or play, by its number on the connection.
    RtmpStream(ConnId, u64),
    /// A WHIP or WHEP request.
    Http(ConnId, Box<Action>, Box<Admitted>),
    /// A sign-in or what a session wants, with what is decided if the answer is yes.
    Member(Ticket, Box<Decision>),
}

/// A question that waits for its answer.
#[derive(Debug)]
struct Asked {
    /// Who asks; `None`: it has left.
    asker: Option<Asker>,
    /// What is told if it is let in but does not begin, so that the server does not count on it.
    end: Option<(CallbackEvent, Value)>,
}

/// What a question came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Go on.
    Allowed,
    /// Refuse; a sentence for the peer.
    Refused(String),
}

/// The gateway's side of callbacks.
pub(super) struct Callbacks {
    settings: config::Callback,
    key: Option<hmac::Key>,
    next: u64,
    /// Questions that wait for their answers.
    asked: BTreeMap<u64, Asked>,
    counters: Counters,
}

/// Since the start.
#[derive(Debug, Default)]
struct Counters {
    sent: BTreeMap<&'static str, u64>,
    refused: u64,
    failed: u64,
    dropped: u64,
    answered: u64,
    waited: Duration,
}

impl Callbacks {
    pub(super) fn new(settings: &config::Callback) -> Self {
        let secret = settings.secret.reveal();
        Self {
            key: (!secret.is_empty()).then(|| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())),
            settings: settings.clone(),
            next: 1,
            asked: BTreeMap::new(),
            counters: Counters::default(),
        }
    }

    fn wants(&self, event: CallbackEvent) -> bool {
        !self.settings.url.is_empty() && self.settings.events.contains(&event)
    }

    /// When the health of streams is to be told first.
    pub(super) fn health_at(&self, now: Instant) -> Option<Instant> {
        self.wants(CallbackEvent::Health)
            .then(|| now + self.settings.health_interval)
    }

    /// The request that tells of `event`.
    fn request(
        &mut self,
        event: CallbackEvent,
        unix: Duration,
        fields: Value,
        is_question: bool,
    ) -> CallbackRequest {
        let id = self.next;
        self.next += 1;
        let mut body = Map::new();
        body.insert("event".into(), event.name().into());
        body.insert("id".into(), id.into());
        body.insert("time".into(), (unix.as_millis() as u64).into());
        if let Value::Object(fields) = fields {
            body.extend(fields.into_iter().filter(|(_, value)| !value.is_null()));
        }
        let body = Value::Object(body).to_string();
        let signature = self.key.as_ref().map(|key| {
            let time = unix.as_secs().to_string();
            let tag = hmac::sign(key, format!("{time}.{body}").as_bytes());
            let hex: String = tag.as_ref().iter().map(|b| format!("{b:02x}")).collect();
            (time, format!("sha256={hex}"))
        });
        *self.counters.sent.entry(event.name()).or_default() += 1;
        CallbackRequest {
            id,
            is_question,
            body,
            signature,
        }
    }

    /// What an answer means; `None`: nothing, the question counts as unanswered.
    fn verdict(outcome: &Outcome) -> Option<Verdict> {
        #[derive(Default, serde::Deserialize)]
        struct Answer {
            allow: Option<bool>,
            reason: Option<String>,
        }
        let Outcome::Answered { status, body } = outcome else {
            return None;
        };
        let answer: Answer = serde_json::from_slice(body).unwrap_or_default();
        let is_allowed = match status {
            200..300 => answer.allow != Some(false),
            400..500 => false,
            _ => return None,
        };
        let reason = answer.reason.as_deref().unwrap_or("this is not allowed");
        Some(if is_allowed {
            Verdict::Allowed
        } else {
            let fit = reason.chars().filter(|c| !c.is_control());
            Verdict::Refused(fit.take(REASON_CHARS_MAX).collect())
        })
    }

    /// When nothing was answered.
    fn unanswered(&self) -> Verdict {
        if self.settings.required {
            Verdict::Refused("whoever decides on this does not answer".into())
        } else {
            Verdict::Allowed
        }
    }

    /// Forgets what `conn` waits for. The questions stay: a yes is to be taken back.
    pub(super) fn forget(&mut self, conn: ConnId) {
        for asked in self.asked.values_mut() {
            let of = match &asked.asker {
                Some(Asker::RtmpConnect(of) | Asker::RtmpStream(of, _) | Asker::Http(of, ..)) => {
                    Some(*of)
                }
                // Conversations wait for their ticket, and know who has gone meanwhile.
                Some(Asker::Member(..)) | None => None,
            };
            if of == Some(conn) {
                asked.asker = None;
            }
        }
    }

    /// What is told when somebody was let in by `event` but does not begin.
    fn end_of(&self, event: CallbackEvent, fields: &Value) -> Option<(CallbackEvent, Value)> {
        let end = match event {
            CallbackEvent::Publish => CallbackEvent::Unpublish,
            CallbackEvent::Play => CallbackEvent::Stop,
            CallbackEvent::Join => CallbackEvent::Leave,
            CallbackEvent::Call => CallbackEvent::Call,
            _ => return None,
        };
        let mut facts = Map::new();
        for name in ["protocol", "client", "user", "stream", "room", "to"] {
            if let Some(value) = fields.get(name) {
                facts.insert(name.into(), value.clone());
            }
        }
        facts.insert("duration_ms".into(), 0.into());
        if matches!(end, CallbackEvent::Leave | CallbackEvent::Call) {
            facts.insert("reason".into(), "not_begun".into());
        }
        if end == CallbackEvent::Call {
            facts.insert("state".into(), "ended".into());
        }
        Some((end, Value::Object(facts)))
    }

    pub(super) fn metrics(&self, page: &mut Exposition) {
        let counters = &self.counters;
        let name = "rtmp_gateway_callbacks_total";
        let mut family = page.family(name, "Callbacks, by event.", Kind::Counter);
        for event in CallbackEvent::ALL {
            let count = counters.sent.get(event.name()).copied().unwrap_or(0);
            family.sample(&[("event", event.name())], count);
        }
        for (name, help, count) in [
            (
                "rtmp_gateway_callbacks_refused_total",
                "Questions answered by no.",
                counters.refused,
            ),
            (
                "rtmp_gateway_callbacks_failed_total",
                "Callbacks without an answer in time, or with a useless one.",
                counters.failed,
            ),
            (
                "rtmp_gateway_callbacks_dropped_total",
                "Callbacks that a queue had no room for.",
                counters.dropped,
            ),
            (
                "rtmp_gateway_callbacks_answered_total",
                "Callbacks answered.",
                counters.answered,
            ),
        ] {
            page.family(name, help, Kind::Counter).sample(&[], count);
        }
        page.family(
            "rtmp_gateway_callback_seconds_total",
            "Time that answers took.",
            Kind::Counter,
        )
        .sample(&[], counters.waited.as_secs_f64());
        page.family(
            "rtmp_gateway_callbacks_pending",
            "Questions that wait for their answers.",
            Kind::Gauge,
        )
        .sample(&[], self.asked.len());
    }
}

impl Gateway {
    /// Tells of `event`, if anybody is to be told. Never waits.
    pub(super) fn notify_callback(&mut self, event: CallbackEvent, fields: impl FnOnce() -> Value) {
        if self.callbacks.wants(event) {
            let unix = self.clock.unix(self.now);
            let request = self.callbacks.request(event, unix, fields(), false);
            self.outputs.push_back(Output::Callback(request));
        }
    }

    /// Asks about `event`. Answers `asker` back if nobody is to be asked: it goes on at once.
    /// Else it is held, and [`Self::callback_verdict`] comes with it later.
    pub(super) fn ask_callback(
        &mut self,
        now: Instant,
        event: CallbackEvent,
        fields: impl FnOnce() -> Value,
        asker: Asker,
    ) -> Option<Asker> {
        if !self.callbacks.wants(event) {
            return Some(asker);
        }
        let unix = self.clock.unix(now);
        let id = self.callbacks.next;
        let mut end = None;
        if self.callbacks.asked.len() >= self.callbacks.settings.queue_max {
            // Judged in the next turn, when whoever asks is ready for it.
            self.callbacks.counters.dropped += 1;
            self.callbacks.next += 1;
            self.deadlines.arm(Owner::Callback(id), Some(now));
        } else {
            let fields = fields();
            end = self.callbacks.end_of(event, &fields);
            let request = self.callbacks.request(event, unix, fields, true);
            self.outputs.push_back(Output::Callback(request));
            let until = now + self.callbacks.settings.timeout;
            self.deadlines.arm(Owner::Callback(id), Some(until));
        }
        let asker = Some(asker);
        self.callbacks.asked.insert(id, Asked { asker, end });
        None
    }

    /// The world has done a request.
    pub(super) fn callback_done(&mut self, now: Instant, done: Callback) {
        let counters = &mut self.callbacks.counters;
        match &done.outcome {
            Outcome::Answered { .. } => {
                counters.answered += 1;
                counters.waited += done.took;
            }
            Outcome::Failed(reason) => log::debug!("callback {}: {reason}", done.id),
            Outcome::Dropped => counters.dropped += 1,
        }
        let verdict = Callbacks::verdict(&done.outcome);
        if verdict.is_none() && done.outcome != Outcome::Dropped {
            counters.failed += 1;
        }
        // It may have come too late, or be news.
        let Some(asked) = self.callbacks.asked.remove(&done.id) else {
            return;
        };
        self.deadlines.disarm(Owner::Callback(done.id));
        if verdict.is_none() {
            log::warn!("callback {}: no use: {:?}", done.id, done.outcome);
        }
        let verdict = verdict.unwrap_or_else(|| self.callbacks.unanswered());
        self.callback_verdict(now, asked, verdict);
    }

    /// A question was not answered in time.
    pub(super) fn callback_late(&mut self, now: Instant, id: u64) {
        if let Some(asked) = self.callbacks.asked.remove(&id) {
            self.callbacks.counters.failed += 1;
            log::warn!("callback {id}: not answered in time");
            let verdict = self.callbacks.unanswered();
            self.callback_verdict(now, asked, verdict);
        }
    }

    /// Goes on with what was held.
    fn callback_verdict(&mut self, now: Instant, asked: Asked, verdict: Verdict) {
        let is_allowed = verdict == Verdict::Allowed;
        if !is_allowed {
            self.callbacks.counters.refused += 1;
            self.stats.error("callback_refused");
        }
        let begun = match asked.asker {
            Some(asker) => self.asker_judged(now, asker, verdict),
            None => false,
        };
        if let Some((event, facts)) = asked.end.filter(|_| is_allowed && !begun) {
            self.notify_callback(event, || facts);
        }
    }

    /// Tells who asked; answers whether what it wanted has begun.
    fn asker_judged(&mut self, now: Instant, asker: Asker, verdict: Verdict) -> bool {
        let mut begun = false;
        match asker {
            Asker::RtmpConnect(conn) => self.with_connection(conn, |gateway, it| match it {
                Connection::Rtmp(rtmp) => gateway.rtmp_connect_judged(now, rtmp, verdict),
                _ => Fate::Live,
            }),
            Asker::RtmpStream(conn, number) => {
                self.with_connection(conn, |gateway, it| match it {
                    Connection::Rtmp(rtmp) => {
                        begun = gateway.rtmp_stream_judged(now, rtmp, number, verdict);
                        gateway.rtmp_events(now, rtmp)
                    }
                    _ => Fate::Live,
                });
            }
            Asker::Http(conn, action, admitted) => {
                self.with_connection(conn, |gateway, it| match it {
                    Connection::Http(http) => {
                        let response = gateway.http_judged(now, http, *action, *admitted, verdict);
                        begun = response.status() == Status::Created;
                        gateway.http_go_on(now, http, response)
                    }
                    _ => Fate::Live,
                });
            }
            Asker::Member(ticket, decision) => {
                let decision = match verdict {
                    Verdict::Allowed => *decision,
                    Verdict::Refused(why) => refused(why),
                };
                begun = self.conversations.decided(now, ticket, decision);
            }
        }
        begun
    }

    /// What is told of the present publisher of `key` when it has left; nothing if nobody is
    /// to be told.
    pub(super) fn publisher_facts(&self, now: Instant, key: &str) -> Option<Value> {
        if !self.callbacks.wants(CallbackEvent::Unpublish) || is_members_stream(key) {
            return None;
        }
        let stream = self.hub.get(self.hub.find(key)?)?;
        let publisher = stream.publisher.as_ref()?;
        Some(serde_json::json!({
            "protocol": publisher.protocol,
            // The address; the program may stand behind it.
            "client": publisher.client.split(' ').next(),
            "user": publisher.user,
            "stream": key,
            "duration_ms": now.duration_since(publisher.since).as_millis() as u64,
        }))
    }

    /// Tells that a publisher has left.
    pub(super) fn tell_unpublished(&mut self, facts: Option<Value>) {
        if let Some(facts) = facts {
            self.notify_callback(CallbackEvent::Unpublish, || facts);
        }
    }

    /// Tells how each published stream is.
    pub(super) fn tell_health(&mut self, now: Instant) {
        for stream in self.api_published(now) {
            self.notify_callback(
                CallbackEvent::Health,
                || serde_json::json!({ "stream": stream.name, "health": stream }),
            );
        }
        self.deadlines
            .arm(Owner::Health, self.callbacks.health_at(now));
    }
}

/// Bounds the sentence that a server gives for a refusal.
const REASON_CHARS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn answered(status: u16, body: &str) -> Option<Verdict> {
        Callbacks::verdict(&Outcome::Answered {
            status,
            body: body.into(),
        })
    }

    #[test]
    fn an_answer_lets_in_refuses_or_says_nothing() {
        let refused = |text: &str| Some(Verdict::Refused(text.into()));
        assert_eq!(answered(200, ""), Some(Verdict::Allowed));
        assert_eq!(answered(204, "no JSON"), Some(Verdict::Allowed));
        assert_eq!(answered(200, r#"{"allow":true}"#), Some(Verdict::Allowed));
        let full = r#"{"allow":false,"reason":"The school is full.\n"}"#;
        assert_eq!(answered(200, full), refused("The school is full."));
        assert_eq!(answered(403, ""), refused("this is not allowed"));
        assert_eq!(
            answered(404, r#"{"allow":true,"reason":"x"}"#),
            refused("x")
        );
        for status in [100, 301, 302, 500, 503, 999] {
            assert_eq!(answered(status, r#"{"allow":true}"#), None, "{status}");
        }
        assert_eq!(Callbacks::verdict(&Outcome::Dropped), None);
        let long = format!(r#"{{"allow":false,"reason":"{}"}}"#, "é".repeat(900));
        assert_eq!(answered(200, &long), refused(&"é".repeat(REASON_CHARS_MAX)));
    }

    #[test]
    fn a_request_is_signed_over_its_time_and_body() {
        let mut callbacks = Callbacks::new(&config::Callback {
            url: "http://a/".into(),
            secret: Secret::new("key"),
            ..config::Callback::default()
        });
        let fields = serde_json::json!({ "user": null, "stream": "live/a" });
        let time = Duration::from_millis(1_800_000_000_250);
        let request = callbacks.request(CallbackEvent::Publish, time, fields, true);
        let body = r#"{"event":"publish","id":1,"stream":"live/a","time":1800000000250}"#;
        assert_eq!(request.body, body);
        let (at, signature) = request.signature.expect("signed");
        assert_eq!(at, "1800000000");
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"key");
        let tag = hmac::sign(&key, format!("1800000000.{body}").as_bytes());
        let hex: String = tag.as_ref().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(signature, format!("sha256={hex}"));
    }
}

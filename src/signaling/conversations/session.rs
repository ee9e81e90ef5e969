//! Sessions: sign-in and resume, the events a client has not seen, the answers it may ask for
//! again.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use super::{CallKey, MemberKey};
use super::{Conversations, Decision, Identity, No, Owner, Pending, Question, SessionKey, no};
use crate::access;
use crate::ids::ConnId;
use crate::signaling::message::answer::{self, CallState, Done, Welcome};
use crate::signaling::message::event::{ByeReason, CallEnd, Event};
use crate::signaling::message::{Hello, Kind, Name, Reason, RequestId, Resume, Title};

/// One WebSocket.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) session: Option<SessionKey>,
    pub(super) heard_at: Instant,
    /// When the gateway last asked for a sign of life.
    pub(super) asked_at: Option<Instant>,
    pub(super) meter: RateMeter,
    pub(super) rtmp_base: String,
    /// Its close was asked for: nothing more is taken.
    pub(super) is_closing: bool,
    /// The `hello` that waits for the gateway's word, or that was answered, with the answer.
    hello: Option<(RequestId, Option<String>)>,
}

impl Link {
    pub(super) fn new(now: Instant, rtmp_base: String) -> Self {
        Self {
            session: None,
            heard_at: now,
            asked_at: None,
            meter: RateMeter::new(now),
            rtmp_base,
            is_closing: false,
            hello: None,
        }
    }

    pub(super) fn heard(&mut self, now: Instant) {
        self.heard_at = now;
        self.asked_at = None;
    }
}

/// Allows so many messages a second, and as many at once.
#[derive(Debug)]
pub(super) struct RateMeter {
    since: Instant,
    /// Messages in the second that began then.
    count: u32,
    /// Seconds in a row in which there were too many, and whether this one is counted.
    strikes: u32,
    is_struck: bool,
}

impl RateMeter {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            count: 0,
            strikes: 0,
            is_struck: false,
        }
    }

    /// Counts a message; answers whether it is within the rate.
    pub(super) fn take(&mut self, now: Instant, rate: u32) -> bool {
        if now.saturating_duration_since(self.since).as_secs() >= 1 {
            if !self.is_struck {
                self.strikes = 0;
            }
            (self.since, self.count, self.is_struck) = (now, 0, false);
        }
        self.count = self.count.saturating_add(1);
        let allowed = self.count <= rate;
        if !allowed && !self.is_struck {
            self.is_struck = true;
            self.strikes += 1;
        }
        allowed
    }

    /// Whether there were too many for too long, or far too many at once.
    pub(super) fn is_too_much(&self, rate: u32) -> bool {
        self.strikes > STRIKES_MAX || self.count > rate.saturating_mul(BURST_MAX)
    }
}

/// A signed-in client.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) secret: String,
    pub(super) user: Name,
    pub(super) title: Title,
    pub(super) kind: Kind,
    pub(super) rights: access::Identity,
    pub(super) conn: Option<ConnId>,
    /// When it lost its WebSocket.
    pub(super) alone_since: Option<Instant>,
    pub(super) rtmp_base: String,
    pub(super) member: Option<MemberKey>,
    pub(super) call: Option<CallKey>,
    pub(super) watches: bool,
    /// How its last calls ended.
    pub(super) ended: VecDeque<(CallKey, CallEnd)>,
    seq: u64,
    /// Events that the client may not have seen.
    events: VecDeque<(u64, String)>,
    answers: VecDeque<(RequestId, String)>,
    answers_bytes: usize,
    /// Requests that wait for something.
    unanswered: Vec<RequestId>,
}

impl Session {
    /// Numbers and keeps an event; answers it with where to send it.
    pub(super) fn note(&mut self, event: &Event) -> (Option<ConnId>, String) {
        self.seq += 1;
        let text = event.encode(self.seq);
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back((self.seq, text.clone()));
        (self.conn, text)
    }

    /// Who it is, for whoever asks by other ways.
    pub(super) fn identity(&self) -> access::Identity {
        let mut identity = self.rights.clone();
        identity.user = Some(self.user.to_string());
        identity
    }

    fn acknowledge(&mut self, seq: u64) {
        while self.events.front().is_some_and(|(known, _)| *known <= seq) {
            self.events.pop_front();
        }
    }

    fn remember(&mut self, id: &RequestId, text: String) {
        self.unanswered.retain(|waiting| waiting != id);
        self.answers_bytes += text.len();
        self.answers.push_back((id.clone(), text));
        while self.answers.len() > ANSWERS_MAX || self.answers_bytes > ANSWERS_BYTES_MAX {
            let Some((_, text)) = self.answers.pop_front() else {
                break;
            };
            self.answers_bytes -= text.len();
        }
    }

    /// How a call of this session ended, if it has.
    pub(super) fn end_of(&self, call: CallKey) -> Option<&CallEnd> {
        let mut ended = self.ended.iter();
        ended.find(|(key, _)| *key == call).map(|(_, end)| end)
    }

    pub(super) fn note_end(&mut self, call: CallKey, end: CallEnd) {
        if self.ended.len() == ENDED_CALLS_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back((call, end));
    }
}

impl Conversations {
    pub(super) fn hello(&mut self, now: Instant, conn: ConnId, id: RequestId, hello: Hello) {
        let Some(link) = self.links.get_mut(&conn) else {
            return;
        };
        match &link.hello {
            Some((earlier, Some(answer))) if *earlier == id => {
                let answer = answer.clone();
                return self.send(conn, answer);
            }
            Some((earlier, None)) if *earlier == id => return,
            Some((_, None)) => {
                let text = "An earlier hello is not answered yet.".to_owned();
                return self.refuse(conn, &id, No(Reason::WrongState, text));
            }
            Some(_) if link.session.is_some() => {
                let text = "This connection is signed in.".to_owned();
                return self.refuse(conn, &id, No(Reason::WrongState, text));
            }
            _ => {}
        }
        if hello.version != VERSION {
            let text = format!("This gateway speaks version {VERSION}.");
            return self.refuse(conn, &id, No(Reason::UnsupportedVersion, text));
        }
        if self.is_draining {
            let text = "The gateway is about to stop.".to_owned();
            return self.refuse(conn, &id, No(Reason::Draining, text));
        }
        if let Some(resume) = &hello.resume {
            return match self.by_secret.get(&resume.session).copied() {
                Some(key) => self.resume(now, conn, &id, key, resume),
                None => {
                    let text = "The session is gone; sign in anew.".to_owned();
                    self.refuse(conn, &id, No(Reason::NoSuchSession, text));
                }
            };
        }
        link.hello = Some((id.clone(), None));
        let question = Question::Hello {
            conn,
            hello: hello.clone(),
        };
        self.ask(Pending::Hello { conn, id, hello }, question);
    }

    pub(super) fn hello_decided(
        &mut self,
        now: Instant,
        conn: ConnId,
        id: RequestId,
        hello: Hello,
        decision: Decision,
    ) -> bool {
        // It may have closed while the answer was awaited.
        let link = self.links.get_mut(&conn);
        let Some(link) = link.filter(|link| !link.is_closing) else {
            return false;
        };
        link.hello = None;
        let result = match decision {
            Decision::Allowed(Some(identity)) => self.sign_in(now, conn, &hello, identity),
            Decision::Allowed(None) => no(Reason::Unauthorized, "Nobody was recognised."),
            Decision::Denied(reason, text) => no(reason, text),
        };
        match result {
            Ok(key) => {
                self.welcome(now, conn, &id, key, false);
                true
            }
            Err(denial) => {
                let is_stranger = matches!(denial.0, Reason::Unauthorized | Reason::TokenExpired);
                self.refuse(conn, &id, denial);
                if is_stranger {
                    self.close_link(conn, ByeReason::Unauthorized);
                }
                false
            }
        }
    }

    fn sign_in(
        &mut self,
        now: Instant,
        conn: ConnId,
        hello: &Hello,
        identity: Identity,
    ) -> Result<SessionKey, No> {
        let Identity {
            user,
            title,
            rights,
        } = identity;
        if self.is_draining {
            return no(Reason::Draining, "The gateway is about to stop.");
        }
        let devices_max = self.settings.devices_per_user_max;
        let devices = self.users.get(&user).map_or(0, |user| user.sessions.len());
        if devices >= devices_max && !self.drop_dead_device(now, &user) {
            let text = format!("{user} is signed in on {devices_max} devices, which is the limit.");
            return no(Reason::TooManyDevices, text);
        }
        if self.sessions.len() >= self.settings.sessions_max {
            let text = "The gateway has as many sessions as it may have.";
            return no(Reason::TooManySessions, text);
        }
        let key = SessionKey(self.next_key());
        let secret = self.secrets.name();
        let link = self.links.get_mut(&conn);
        let rtmp_base = link.map_or_else(String::new, |link| link.rtmp_base.clone());
        let shown = hello.name.clone().filter(|name| !name.as_str().is_empty());
        let session = Session {
            secret: secret.clone(),
            title: shown.or(title).unwrap_or_else(|| Title::from(&user)),
            user: user.clone(),
            kind: hello.kind,
            rights,
            conn: None,
            alone_since: None,
            rtmp_base,
            member: None,
            call: None,
            watches: false,
            ended: VecDeque::new(),
            seq: 0,
            events: VecDeque::new(),
            answers: VecDeque::new(),
            answers_bytes: 0,
            unanswered: Vec::new(),
        };
        self.by_secret.insert(secret, key);
        self.sessions.insert(key, session);
        self.users
            .entry(user.clone())
            .or_default()
            .sessions
            .push(key);
        self.counts.sessions += 1;
        self.review_user(&user);
        Ok(key)
    }

    fn resume(
        &mut self,
        now: Instant,
        conn: ConnId,
        id: &RequestId,
        key: SessionKey,
        resume: &Resume,
    ) {
        let before = self.sessions.get(&key).and_then(|session| session.conn);
        if let Some(before) = before {
            if let Some(link) = self.links.get_mut(&before) {
                link.session = None;
            }
            self.close_link(before, ByeReason::Replaced);
        }
        self.counts.resumed += 1;
        self.acknowledge(key, resume.seq);
        self.welcome(now, conn, id, key, true);
        let missed: Vec<String> = self.sessions.get(&key).map_or_else(Vec::new, |session| {
            let events = session.events.iter();
            events.map(|(_, text)| text.clone()).collect()
        });
        for text in missed {
            self.send(conn, text);
        }
    }

    /// Ties a session to a connection and tells its client where it stands.
    fn welcome(
        &mut self,
        now: Instant,
        conn: ConnId,
        id: &RequestId,
        key: SessionKey,
        resumed: bool,
    ) {
        let Some(link) = self.links.get_mut(&conn) else {
            return;
        };
        link.session = Some(key);
        let rtmp_base = link.rtmp_base.clone();
        if let Some(session) = self.sessions.get_mut(&key) {
            session.conn = Some(conn);
            session.alone_since = None;
            session.rtmp_base = rtmp_base;
        }
        self.deadlines.disarm(Owner::Session(key));
        let Some(session) = self.sessions.get(&key) else {
            return;
        };
        let (member, call) = (session.member, session.call);
        let room = member.and_then(|member| self.room_state(now, member));
        let call = call.and_then(|call| self.call_state(now, key, call));
        let Some(session) = self.sessions.get(&key) else {
            return;
        };
        let done = Done::Welcome(Box::new(Welcome {
            session: session.secret.clone(),
            user: session.user.clone(),
            name: session.title.clone(),
            kind: session.kind,
            resumed,
            heartbeat_ms: self.settings.heartbeat.as_millis() as u64,
            resume_ms: self.settings.resume.as_millis() as u64,
            rooms: room.into_iter().collect(),
            calls: call.into_iter().collect::<Vec<CallState>>(),
        }));
        log::info!(
            "call {key} {conn}: {} {}",
            session.user,
            if resumed { "is back" } else { "signed in" }
        );
        let text = answer::ok(id, &done);
        if let Some(link) = self.links.get_mut(&conn) {
            link.hello = Some((id.clone(), Some(text.clone())));
        }
        self.send(conn, text);
    }

    pub(super) fn acknowledge(&mut self, key: SessionKey, seq: u64) {
        if let Some(session) = self.sessions.get_mut(&key) {
            session.acknowledge(seq);
        }
    }

    /// Whether a request came before: it gets its first answer again, or waits for it.
    pub(super) fn is_repeated(&mut self, key: SessionKey, id: &RequestId) -> bool {
        let Some(session) = self.sessions.get(&key) else {
            return true;
        };
        if session.unanswered.contains(id) {
            return true;
        }
        let mut answers = session.answers.iter();
        let Some((_, text)) = answers.find(|(known, _)| known == id) else {
            return false;
        };
        let (conn, text) = (session.conn, text.clone());
        self.counts.repeated += 1;
        if let Some(conn) = conn {
            self.send(conn, text);
        }
        true
    }

    /// Answers a request, and keeps the answer for a client that did not get it.
    pub(super) fn answer(&mut self, key: SessionKey, id: &RequestId, result: Result<Done, No>) {
        if !self.sessions.contains_key(&key) {
            return;
        }
        let text = match result {
            Ok(done) => answer::ok(id, &done),
            Err(No(reason, text)) => {
                self.count_error(reason);
                answer::error(Some(id), reason, &text)
            }
        };
        if let Some(session) = self.sessions.get_mut(&key) {
            session.remember(id, text.clone());
            if let Some(conn) = session.conn {
                self.send(conn, text);
            }
        }
    }

    /// A request will be answered later: the same one again is not done twice.
    pub(super) fn note_unanswered(&mut self, key: SessionKey, id: &RequestId) {
        if let Some(session) = self.sessions.get_mut(&key) {
            session.unanswered.push(id.clone());
        }
    }

    pub(super) fn note_pending(&mut self, pending: &Pending) {
        match pending {
            Pending::Hello { .. } => {}
            Pending::Create { session, id, .. }
            | Pending::Join { session, id, .. }
            | Pending::Invite { session, id, .. }
            | Pending::Offer { session, id, .. } => {
                let (session, id) = (*session, id.clone());
                let is_noted = self
                    .sessions
                    .get(&session)
                    .is_some_and(|session| session.unanswered.contains(&id));
                if !is_noted {
                    self.note_unanswered(session, &id);
                }
            }
        }
    }

    /// The kinds of a user's devices.
    pub(super) fn kinds_of(&self, sessions: &[SessionKey]) -> Vec<Kind> {
        let kinds: BTreeSet<Kind> = sessions
            .iter()
            .filter_map(|key| Some(self.sessions.get(key)?.kind))
            .collect();
        kinds.into_iter().collect()
    }
}

/// The version of the protocol.
const VERSION: u64 = 1;

/// Bounds the events kept for a client that has not said it saw them. Of more, the oldest are
/// gone; the answer to its `hello` tells the state all the same.
const EVENTS_MAX: usize = 256;

/// Bounds the answers kept for requests that are sent again, and their bytes together.
const ANSWERS_MAX: usize = 64;
const ANSWERS_BYTES_MAX: usize = 128 << 10;

/// Bounds the ends of calls that a session remembers.
const ENDED_CALLS_MAX: usize = 8;

/// So many seconds in a row with too many messages are forgiven.
const STRIKES_MAX: u32 = 3;

/// So many times the rate in one second are not.
const BURST_MAX: u32 = 10;

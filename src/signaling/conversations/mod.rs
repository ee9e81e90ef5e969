//! [`Conversations`]: who is signed in, who is in which room and who calls whom, as one state
//! machine. `PROTOCOL.md` in the folder above is what it does, seen from a client.
//!
//! WebSocket messages, facts about media and time go in; messages, ends of media and questions
//! come out of [`Conversations::poll_output`]. It owns no socket and no stream: the gateway
//! says what flows, and ends what is to end.
//!
//! | module | owns |
//! | --- | --- |
//! | `session` | sign-in, resume, events and answers of a session |
//! | `life` | heartbeats and the end of connections and sessions |
//! | `presence` | users, and who is told about them |
//! | `rooms` | rooms and their members |
//! | `calls` | invitations and what becomes of them |
//! | `media` | what members send and receive, by RTMP and by WebRTC |
//! | `urls` | a room as a member sees it, with its URLs |
//! | `tokens` | the secrets in RTMP URLs |
//! | `setup` | how long calls take until both see and hear |
//! | `report` | what operators are told |
//! | `output` | what is asked of the gateway |

mod calls;
mod life;
mod media;
mod output;
mod presence;
mod report;
mod rooms;
mod session;
mod setup;
mod tokens;
mod urls;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::time::Instant;

use super::message::answer::{self, Done};
use super::message::event::Event;
use super::message::{Hello, Incoming, Means, Name, Reason, Request, RequestId};
use crate::config::Signaling;
use crate::deadlines::Deadlines;
use crate::ids::{ConnId, PeerId, StreamId};
use crate::secrets::Secrets;

use calls::Call;
use media::{Leg, Waiting};
pub use output::{CallNews, Decision, Identity, Notice, Offer, Output, Question};
use presence::User;
pub use report::{CallReport, Counts, MemberReport, RoomReport, Sizes};
use rooms::{Member, Room};
use session::{Link, Session};
pub use setup::SetUpTimes;
pub use tokens::TokenError;
use tokens::Tokens;

macro_rules! keys {
    ($( #[$doc:meta] $name:ident $letter:literal; )*) => { $(
        #[$doc]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($letter, "{}"), self.0)
            }
        }
    )* };
}

keys! {
    /// A session, for the log: its secret is another one.
    SessionKey "u";
    /// A room.
    RoomKey "r";
    /// A member of a room; never used twice, as its stream's name.
    MemberKey "m";
    /// A call.
    CallKey "c";
    /// A question that the gateway has still to answer.
    Ticket "t";
}

/// Keys that are names in messages too.
trait Named: fmt::Display {
    fn name(&self) -> Name {
        Name::new(self.to_string()).expect("a letter and digits")
    }
}

impl Named for MemberKey {}
impl Named for CallKey {}

/// A refusal: the reason and a text for people.
#[derive(Debug)]
struct No(Reason, String);

fn no<T>(reason: Reason, text: impl Into<String>) -> Result<T, No> {
    Err(No(reason, text.into()))
}

/// What waits for the gateway's word.
#[derive(Debug)]
enum Pending {
    Hello {
        conn: ConnId,
        id: RequestId,
        hello: Hello,
    },
    Create {
        session: SessionKey,
        id: RequestId,
        room: Name,
        members_max: Option<usize>,
    },
    Join {
        session: SessionKey,
        id: RequestId,
        room: Name,
        create: bool,
        means: Means,
    },
    Invite {
        session: SessionKey,
        id: RequestId,
        to: Name,
        means: Means,
    },
    Offer {
        session: SessionKey,
        id: RequestId,
        holder: MemberKey,
        stream: MemberKey,
    },
}

/// Whom a deadline belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Owner {
    /// A WebSocket: our `ping`, or its end.
    Link(ConnId),
    /// A session without a WebSocket.
    Session(SessionKey),
    /// A room without members.
    Room(RoomKey),
    /// A member whose media may have stopped.
    Member(MemberKey),
    /// A call that nobody answered.
    Call(CallKey),
    /// A `subscribe` that waits for media: of whom, to whom.
    Waiting(MemberKey, MemberKey),
}

/// All sessions, rooms and calls. See the [module](self).
pub struct Conversations {
    settings: Signaling,
    secrets: Secrets,
    links: BTreeMap<ConnId, Link>,
    sessions: BTreeMap<SessionKey, Session>,
    by_secret: HashMap<String, SessionKey>,
    users: BTreeMap<Name, User>,
    rooms: BTreeMap<RoomKey, Room>,
    room_names: BTreeMap<Name, RoomKey>,
    members: BTreeMap<MemberKey, Member>,
    calls: BTreeMap<CallKey, Call>,
    tokens: Tokens,
    legs: BTreeMap<PeerId, Leg>,
    streams: HashMap<StreamId, MemberKey>,
    waiting: BTreeMap<(MemberKey, MemberKey), Waiting>,
    pending: BTreeMap<Ticket, Pending>,
    deadlines: Deadlines<Owner>,
    outputs: VecDeque<Output>,
    last_key: u64,
    counts: Counts,
    set_up: SetUpTimes,
    is_draining: bool,
}

impl Conversations {
    /// Nobody is there yet.
    pub fn new(settings: Signaling, secrets: Secrets) -> Self {
        Self {
            settings,
            secrets,
            links: BTreeMap::new(),
            sessions: BTreeMap::new(),
            by_secret: HashMap::new(),
            users: BTreeMap::new(),
            rooms: BTreeMap::new(),
            room_names: BTreeMap::new(),
            members: BTreeMap::new(),
            calls: BTreeMap::new(),
            tokens: Tokens::default(),
            legs: BTreeMap::new(),
            streams: HashMap::new(),
            waiting: BTreeMap::new(),
            pending: BTreeMap::new(),
            deadlines: Deadlines::new(),
            outputs: VecDeque::new(),
            last_key: 0,
            counts: Counts::default(),
            set_up: SetUpTimes::default(),
            is_draining: false,
        }
    }

    /// A WebSocket came. RTMP URLs for its client begin with `rtmp_base`, as in
    /// `rtmp://gateway.example`.
    pub fn connected(&mut self, now: Instant, conn: ConnId, rtmp_base: String) {
        self.links.insert(conn, Link::new(now, rtmp_base));
        self.arm_link(conn);
    }

    /// A text message came.
    pub fn text_received(&mut self, now: Instant, conn: ConnId, text: &str) {
        let Some(link) = self.links.get_mut(&conn) else {
            return;
        };
        link.heard(now);
        let rate = self.settings.messages_per_second_max;
        let allowed = link.meter.take(now, rate);
        self.counts.messages += 1;
        let incoming = match Incoming::decode(text) {
            _ if link.is_closing => return,
            Ok(Incoming::Pong) if allowed => return,
            Ok(incoming) => incoming,
            Err(refusal) => {
                self.count_error(refusal.reason);
                let text = answer::error(refusal.id.as_ref(), refusal.reason, &refusal.text);
                self.send(conn, text);
                if !allowed {
                    self.end_if_too_fast(conn);
                }
                return;
            }
        };
        let Incoming::Request(id, request) = incoming else {
            self.end_if_too_fast(conn);
            return;
        };
        if !allowed {
            let text = format!("More than {rate} messages a second came.");
            self.refuse(conn, &id, No(Reason::TooManyMessages, text));
            self.end_if_too_fast(conn);
            return;
        }
        if let Request::Hello(hello) = request {
            self.hello(now, conn, id, hello);
            return;
        }
        let Some(session) = self.links.get(&conn).and_then(|link| link.session) else {
            let text = "The first message must be hello.".to_owned();
            self.refuse(conn, &id, No(Reason::HelloRequired, text));
            return;
        };
        if !self.is_repeated(session, &id) {
            self.request(now, session, id, request);
        }
    }

    /// A control frame came.
    pub fn heard(&mut self, now: Instant, conn: ConnId) {
        let rate = self.settings.messages_per_second_max;
        if let Some(link) = self.links.get_mut(&conn) {
            link.heard(now);
            if !link.meter.take(now, rate) {
                self.end_if_too_fast(conn);
            }
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// Does what is due. `last_sign` tells when something of a publisher's or player's session
    /// last moved.
    pub fn handle_timeout(&mut self, now: Instant, last_sign: &dyn Fn(PeerId) -> Option<Instant>) {
        for _ in 0..DUE_PER_TURN {
            let Some(owner) = self.deadlines.pop_due(now) else {
                return;
            };
            match owner {
                Owner::Link(conn) => self.link_due(now, conn),
                Owner::Session(session) => self.session_due(now, session, last_sign),
                Owner::Room(room) => self.room_due(now, room),
                Owner::Member(member) => self.review_flow(now, member),
                Owner::Call(call) => self.ring_due(now, call),
                Owner::Waiting(stream, holder) => self.waiting_due(now, stream, holder),
            }
        }
    }

    /// The gateway's word on a question. Answers whether what was asked for began: who asked may
    /// be gone, or something else may stand against it by now.
    pub fn decided(&mut self, now: Instant, ticket: Ticket, decision: Decision) -> bool {
        let Some(pending) = self.pending.remove(&ticket) else {
            return false;
        };
        let denial = match &decision {
            Decision::Allowed(_) => None,
            Decision::Denied(reason, text) => Some(No(*reason, text.clone())),
        };
        match pending {
            Pending::Hello { conn, id, hello } => {
                self.hello_decided(now, conn, id, hello, decision)
            }
            Pending::Create {
                session,
                id,
                room,
                members_max,
            } => {
                let result = match denial {
                    Some(denial) => Err(denial),
                    None => self.create_room(now, session, room, members_max),
                };
                let begun = matches!(result, Ok(Done::Room { .. }));
                self.answer(session, &id, result);
                begun
            }
            Pending::Join {
                session,
                id,
                room,
                create,
                means,
            } => {
                let result = match denial {
                    Some(denial) => Err(denial),
                    None => self.join_room(now, session, &room, create, means),
                };
                let begun = matches!(result, Ok(Done::Joined(_)));
                self.answer(session, &id, result);
                begun
            }
            Pending::Invite {
                session,
                id,
                to,
                means,
            } => {
                let result = match denial {
                    Some(denial) => Err(denial),
                    None => self.invite(now, session, &to, means),
                };
                let begun = matches!(result, Ok(Done::Call(_)));
                self.answer(session, &id, result);
                begun
            }
            // Answered by `offer_answered`.
            offer @ Pending::Offer { .. } => {
                self.pending.insert(ticket, offer);
                false
            }
        }
    }

    /// Ends everything and tells everybody.
    pub fn drain(&mut self, now: Instant) {
        self.is_draining = true;
        self.end_all(now);
    }

    fn request(&mut self, now: Instant, session: SessionKey, id: RequestId, request: Request) {
        let result = match request {
            // Taken before.
            Request::Hello(_) => return,
            Request::Ping { seq } => {
                self.acknowledge(session, seq);
                Ok(Done::Nothing {})
            }
            Request::Users { watch } => self.list_users(session, watch),
            Request::RoomCreate { room, members_max } => {
                let room = room.unwrap_or_else(|| self.made_up_room());
                return self.ask_create(session, id, room, members_max);
            }
            Request::RoomJoin {
                room,
                create,
                means,
            } => return self.ask_join(now, session, id, room, create, means),
            Request::RoomLeave { room } => self.leave_room(now, session, &room),
            Request::RoomUrls { room } => self.urls(now, session, &room),
            Request::RoomMute { room, audio, video } => self.mute(session, &room, audio, video),
            Request::Publish { room, offer } => {
                return self.publish(session, id, &room, offer);
            }
            Request::Subscribe {
                room,
                member,
                offer,
            } => return self.subscribe(now, session, id, &room, &member, offer),
            Request::MediaClose { media } => self.close_media(session, &media),
            Request::CallInvite { to, means } => {
                return self.ask_invite(now, session, id, to, means);
            }
            Request::CallRinging { call } => self.ringing(session, &call),
            Request::CallAccept { call, means } => self.accept(now, session, &call, means),
            Request::CallReject { call } => self.hang_up(now, session, &call),
            Request::CallHangup { call } => self.hang_up(now, session, &call),
        };
        self.answer(session, &id, result);
    }

    /// Asks the gateway something; the answer comes by [`Self::decided`].
    fn ask(&mut self, pending: Pending, question: Question) {
        let ticket = Ticket(self.next_key());
        self.note_pending(&pending);
        self.pending.insert(ticket, pending);
        self.outputs.push_back(Output::Ask(ticket, question));
    }

    fn next_key(&mut self) -> u64 {
        self.last_key += 1;
        self.last_key
    }

    fn send(&mut self, conn: ConnId, text: String) {
        self.outputs.push_back(Output::Send { conn, text });
    }

    /// Refuses a request of a connection that has no session, or too fast a one.
    fn refuse(&mut self, conn: ConnId, id: &RequestId, No(reason, text): No) {
        self.count_error(reason);
        self.send(conn, answer::error(Some(id), reason, &text));
    }

    fn notice(&mut self, notice: Notice) {
        self.outputs.push_back(Output::Notice(notice));
    }

    /// Tells a session something; kept until the client has seen it.
    fn tell(&mut self, key: SessionKey, event: &Event) {
        if let Some(session) = self.sessions.get_mut(&key) {
            let (conn, text) = session.note(event);
            if let Some(conn) = conn {
                self.send(conn, text);
            }
        }
    }
}

/// Deadlines that one turn calls at most.
const DUE_PER_TURN: usize = 256;

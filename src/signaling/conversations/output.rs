//! What rooms and calls ask of the gateway: messages and ends, questions and their answers, and what
//! an operator may want to know.

use std::time::Duration;

use super::super::message::event::ByeReason;
use super::super::message::{Hello, Kind, Means, Name, Reason, Title};
use super::Ticket;
use crate::access;
use crate::ids::{ConnId, PeerId};

/// What the gateway has to do.
#[derive(Debug)]
pub enum Output {
    /// Send a text message.
    Send {
        /// To whom.
        conn: ConnId,
        /// The message.
        text: String,
    },
    /// Close a WebSocket.
    Close {
        /// Which.
        conn: ConnId,
        /// Why.
        reason: ByeReason,
    },
    /// Say by [`Conversations::decided`](super::Conversations::decided) whether somebody may do something.
    Ask(Ticket, Question),
    /// Answer an offer by [`Conversations::offer_answered`](super::Conversations::offer_answered).
    Offer(Ticket, Offer),
    /// End a publisher's or player's session.
    End(PeerId),
    /// A member is gone: end its stream with all who play it.
    EndStream(String),
    /// Something happened that an operator may want to know.
    Notice(Notice),
}

/// What somebody wants to do.
#[derive(Clone, Debug)]
pub enum Question {
    /// Sign in.
    Hello {
        /// On which connection.
        conn: ConnId,
        /// What it said.
        hello: Hello,
    },
    /// Make a room.
    Create {
        /// Who.
        user: Name,
        /// What it may do.
        rights: access::Identity,
        /// Which room.
        room: Name,
    },
    /// Join a room, making it if it is not there.
    Join {
        /// On which connection, if it still has one.
        conn: Option<ConnId>,
        /// How its media goes.
        kind: Kind,
        /// Who.
        user: Name,
        /// What it may do.
        rights: access::Identity,
        /// Which room.
        room: Name,
    },
    /// Call somebody.
    Invite {
        /// On which connection, if it still has one.
        conn: Option<ConnId>,
        /// How its media goes.
        kind: Kind,
        /// What the caller is going to send.
        means: Means,
        /// Who.
        user: Name,
        /// What it may do.
        rights: access::Identity,
        /// Whom.
        to: Name,
    },
}

/// Who somebody turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: Name,
    /// What others are shown, unless the client says something else.
    pub title: Option<Title>,
    /// What the user may do.
    pub rights: access::Identity,
}

/// The answer to a [`Question`].
#[derive(Clone, Debug)]
pub enum Decision {
    /// Yes; for a sign-in: as whom.
    Allowed(Option<Identity>),
    /// No: the reason, and a text for people.
    Denied(Reason, String),
}

/// An offer of a member.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Whose WebSocket it came by.
    pub conn: Option<ConnId>,
    /// Who made it.
    pub identity: access::Identity,
    /// The name of the stream to publish or to play.
    pub stream: String,
    /// The secret that lets a publisher take over from itself; `None`: the offer is to play.
    pub publish: Option<String>,
    /// The offer.
    pub sdp: String,
}

/// What an operator may want to know.
#[derive(Clone, Debug)]
pub enum Notice {
    /// A member left a room that is not a call's.
    Left {
        /// The room.
        room: Name,
        /// Who left.
        user: Name,
        /// As which member.
        member: Name,
        /// As in `member.left` and `room.closed`.
        reason: &'static str,
        /// For how long it was one.
        stayed: Duration,
    },
    /// A call went on.
    Call {
        /// The call.
        call: Name,
        /// Who calls.
        from: Name,
        /// Whom.
        to: Name,
        /// What became of it.
        news: CallNews,
    },
}

/// What became of a call.
#[derive(Clone, Debug)]
pub enum CallNews {
    /// The callee's devices were told.
    Calling,
    /// One of them rings.
    Ringing,
    /// It was accepted.
    Accepted,
    /// It is over.
    Ended {
        /// As in `call.ended`.
        reason: &'static str,
        /// Who ended it, if somebody did.
        by: Option<Name>,
        /// For how long both talked, if it was accepted.
        talked: Option<Duration>,
        /// How long it took from the acceptance until both saw and heard each other, if they did.
        set_up: Option<Duration>,
    },
}

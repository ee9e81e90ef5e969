//! What the gateway tells of its own accord.

use serde::{Deserialize, Serialize};

use super::answer::{MemberInfo, RoomState, UserInfo};
use super::{Kind, Means, Name, Title};

/// A numbered event of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
#[allow(missing_docs)] // PROTOCOL.md says what each is for, and a test that it does.
pub enum Event {
    #[serde(rename = "user")]
    User(UserInfo),
    #[serde(rename = "member.joined")]
    MemberJoined { room: Name, member: MemberInfo },
    #[serde(rename = "member.media")]
    MemberMedia {
        room: Name,
        member: Name,
        audio: bool,
        video: bool,
    },
    #[serde(rename = "member.muted")]
    MemberMuted {
        room: Name,
        member: Name,
        audio: bool,
        video: bool,
    },
    #[serde(rename = "member.left")]
    MemberLeft {
        room: Name,
        member: Name,
        reason: LeftReason,
    },
    #[serde(rename = "room.closed")]
    RoomClosed { room: Name, reason: ClosedReason },
    #[serde(rename = "media.ended")]
    MediaEnded { media: Name, reason: MediaReason },
    #[serde(rename = "call.incoming")]
    CallIncoming {
        call: Name,
        from: Caller,
        #[serde(flatten)]
        means: Means,
        expires_ms: u64,
    },
    #[serde(rename = "call.ringing")]
    CallRinging { call: Name },
    #[serde(rename = "call.accepted")]
    CallAccepted {
        call: Name,
        #[serde(flatten)]
        room: RoomState,
    },
    #[serde(rename = "call.ended")]
    CallEnded {
        call: Name,
        #[serde(flatten)]
        end: CallEnd,
    },
}

impl Event {
    /// The types there are, with those that have no number.
    pub const TYPES: &[&str] = &[
        "user",
        "member.joined",
        "member.media",
        "member.muted",
        "member.left",
        "room.closed",
        "media.ended",
        "call.incoming",
        "call.ringing",
        "call.accepted",
        "call.ended",
        "ping",
        "bye",
    ];

    /// The event as the text of a message.
    pub fn encode(&self, seq: u64) -> String {
        #[derive(Serialize)]
        struct Numbered<'a> {
            #[serde(flatten)]
            event: &'a Event,
            seq: u64,
        }
        super::answer::to_text(&Numbered { event: self, seq })
    }
}

/// Who calls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Caller {
    /// The user.
    pub user: Name,
    /// What people are shown.
    pub name: Title,
    /// How the caller's client sends and receives media.
    pub kind: Kind,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallEnd {
    /// Why.
    pub reason: EndReason,
    /// Whose doing it was, if somebody's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<Name>,
    /// How long they talked, if they did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
}

macro_rules! words {
    ($( #[$doc:meta] $name:ident { $( #[$word_doc:meta] $word:ident = $text:literal, )* } )*) => { $(
        #[$doc]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $( #[$word_doc] #[serde(rename = $text)] $word, )*
        }

        impl $name {
            /// All there are.
            pub const ALL: &[Self] = &[$( Self::$word ),*];

            /// Its name in the protocol.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$word => $text, )* }
            }
        }
    )* };
}

words! {
    /// Why a member is not in its room any more.
    LeftReason {
        /// It said so.
        Left = "left",
        /// Neither heartbeat nor media.
        Lost = "lost",
    }

    /// Why a room is no more.
    ClosedReason {
        /// The gateway stops.
        Drain = "drain",
        /// The call whose room it was is over.
        CallEnded = "call_ended",
    }

    /// Why a PeerConnection is no more.
    MediaReason {
        /// Nothing came for too long.
        Timeout = "timeout",
        /// Another one took its place.
        Replaced = "replaced",
        /// The member that was watched is gone.
        MemberLeft = "member_left",
        /// The client closed it.
        Closed = "closed",
        /// Anything else.
        Error = "error",
    }

    /// Why a call is over.
    EndReason {
        /// The callee said no.
        Rejected = "rejected",
        /// The caller gave up.
        Cancelled = "cancelled",
        /// The callee did not answer in time.
        NoAnswer = "no_answer",
        /// Another device of the callee took it.
        AnsweredElsewhere = "answered_elsewhere",
        /// Another device of the callee said no.
        RejectedElsewhere = "rejected_elsewhere",
        /// One of the two hung up.
        Hangup = "hangup",
        /// The other side died.
        Lost = "lost",
        /// The gateway stops.
        Drain = "drain",
    }

    /// Why the gateway closes a WebSocket.
    ByeReason {
        /// The session goes on with another WebSocket.
        Replaced = "replaced",
        /// The gateway stops.
        Drain = "drain",
        /// Too fast, for too long.
        TooManyMessages = "too_many_messages",
        /// Nothing was heard for too long.
        Heartbeat = "heartbeat",
        /// No valid sign-in.
        Unauthorized = "unauthorized",
    }
}

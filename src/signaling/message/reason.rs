//! [`Reason`]: why a request was refused, by the name that programs read.

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($( $(#[$doc:meta])* $name:ident = $text:literal, )*) => {
        /// Why a request was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Reason {
            $( $(#[$doc])* #[serde(rename = $text)] $name, )*
        }

        impl Reason {
            /// All there are.
            pub const ALL: &[Self] = &[$( Self::$name ),*];

            /// Its name in the protocol.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$name => $text, )* }
            }
        }
    };
}

reasons! {
    /// The message cannot be read.
    BadMessage = "bad_message",
    /// No such type.
    UnknownType = "unknown_type",
    /// Another version of the protocol.
    UnsupportedVersion = "unsupported_version",
    /// Not signed in.
    HelloRequired = "hello_required",
    /// The token is missing or wrong.
    Unauthorized = "unauthorized",
    /// The token is too old.
    TokenExpired = "token_expired",
    /// The token does not allow this.
    Forbidden = "forbidden",
    /// The operator said no.
    Refused = "refused",
    /// Too fast.
    TooManyMessages = "too_many_messages",
    /// The limit of sessions, or of media sessions.
    TooManySessions = "too_many_sessions",
    /// The limit of devices of one user.
    TooManyDevices = "too_many_devices",
    /// The limit of rooms.
    TooManyRooms = "too_many_rooms",
    /// The limit of calls.
    TooManyCalls = "too_many_calls",
    /// The limit of members of one room.
    RoomFull = "room_full",
    /// The session to resume is gone.
    NoSuchSession = "no_such_session",
    /// There is no such room.
    NoSuchRoom = "no_such_room",
    /// There is no such member.
    NoSuchMember = "no_such_member",
    /// There is no such call, or it is none of the session's.
    NoSuchCall = "no_such_call",
    /// There is no such media, or it is none of the session's.
    NoSuchMedia = "no_such_media",
    /// Another one's room has this name.
    RoomExists = "room_exists",
    /// A session is in one room at a time.
    AlreadyInRoom = "already_in_room",
    /// The session is not in that room.
    NotInRoom = "not_in_room",
    /// The user is not there.
    Offline = "offline",
    /// The user talks or is being rung.
    Busy = "busy",
    /// The session itself talks or rings.
    BusyYourself = "busy_yourself",
    /// Nobody rings himself.
    Yourself = "yourself",
    /// Another device took the call.
    AnsweredElsewhere = "answered_elsewhere",
    /// Not now.
    WrongState = "wrong_state",
    /// The SDP offer cannot be answered.
    OfferRefused = "offer_refused",
    /// Nothing flows from the member.
    NotPublished = "not_published",
    /// Not for this kind of client.
    WrongKind = "wrong_kind",
    /// The gateway stops.
    Draining = "draining",
}

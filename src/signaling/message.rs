//! The messages of `PROTOCOL.md` beside this file: what a client sends is decoded into a
//! [`Request`], what the gateway sends is encoded from an [`Event`] or an answer.
//!
//! Each type stands in both directions for `serde`, so that clients written in Rust, and the
//! test that holds the document to this code, use the same words.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use reason::Reason;

pub mod answer;
pub mod event;
mod reason;

/// A name in the protocol: 1 to 64 characters `A-Z a-z 0-9 - _ . @`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Name(String);

impl Name {
    /// The name, if the text is one.
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        let fits = (1..=NAME_CHARS_MAX).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte))
            // A path segment like these would not come back as it was.
            && !matches!(text.as_str(), "." | "..");
        fits.then_some(Self(text))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(text).ok_or("an id must be 1 to 64 of the characters A-Z a-z 0-9 - _ . @")
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What people are shown for a user: at most 64 characters, none of them a control character.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Title(String);

impl Title {
    /// The title, if the text is one.
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        let fits = text.chars().count() <= NAME_CHARS_MAX && !text.chars().any(char::is_control);
        fits.then_some(Self(text))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Title {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(text).ok_or("a name must have at most 64 characters, none a control character")
    }
}

impl From<&Name> for Title {
    fn from(name: &Name) -> Self {
        Self(name.0.clone())
    }
}

/// How a client sends and receives media.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// By RTMP URLs: a mini-program.
    Rtmp,
    /// By offers and answers: a browser.
    Webrtc,
}

/// The client's name for one of its requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum RequestId {
    /// A number.
    Number(serde_json::Number),
    /// A text of at most 64 bytes.
    Text(String),
}

/// What a client sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming {
    /// A request, to be answered.
    Request(RequestId, Request),
    /// The answer to the gateway's `ping`.
    Pong,
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "type")]
#[allow(missing_docs)] // PROTOCOL.md says what each is for, and a test that it does.
pub enum Request {
    #[serde(rename = "hello")]
    Hello(Hello),
    #[serde(rename = "ping")]
    Ping {
        #[serde(default)]
        seq: u64,
    },
    #[serde(rename = "users")]
    Users {
        #[serde(default)]
        watch: bool,
    },
    #[serde(rename = "room.create")]
    RoomCreate {
        room: Option<Name>,
        members_max: Option<usize>,
    },
    #[serde(rename = "room.join")]
    RoomJoin {
        room: Name,
        #[serde(default)]
        create: bool,
        #[serde(flatten)]
        means: Means,
    },
    #[serde(rename = "room.leave")]
    RoomLeave { room: Name },
    #[serde(rename = "room.urls")]
    RoomUrls { room: Name },
    #[serde(rename = "room.mute")]
    RoomMute {
        room: Name,
        audio: bool,
        video: bool,
    },
    #[serde(rename = "publish")]
    Publish { room: Name, offer: String },
    #[serde(rename = "subscribe")]
    Subscribe {
        room: Name,
        member: Name,
        offer: String,
    },
    #[serde(rename = "media.close")]
    MediaClose { media: Name },
    #[serde(rename = "call.invite")]
    CallInvite {
        to: Name,
        #[serde(flatten)]
        means: Means,
    },
    #[serde(rename = "call.ringing")]
    CallRinging { call: Name },
    #[serde(rename = "call.accept")]
    CallAccept {
        call: Name,
        #[serde(flatten)]
        means: Means,
    },
    #[serde(rename = "call.reject")]
    CallReject { call: Name },
    #[serde(rename = "call.hangup")]
    CallHangup { call: Name },
}

/// The first message of a client.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Hello {
    /// The protocol's version: 1.
    pub version: u64,
    /// How it sends and receives media.
    pub kind: Kind,
    /// What it shows to be let in.
    pub token: Option<String>,
    /// Who it wants to be.
    pub user: Option<Name>,
    /// What others are shown.
    pub name: Option<Title>,
    /// The session to go on with.
    pub resume: Option<Resume>,
}

/// Which session goes on.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Resume {
    /// Its secret.
    pub session: String,
    /// The last event seen.
    #[serde(default)]
    pub seq: u64,
}

/// What a member is going to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Means {
    /// Sound.
    #[serde(default = "yes")]
    pub audio: bool,
    /// A picture.
    #[serde(default = "yes")]
    pub video: bool,
}

const fn yes() -> bool {
    true
}

/// Why a message is not done: what to answer it with.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The request, if the message says which.
    pub id: Option<RequestId>,
    /// For programs.
    pub reason: Reason,
    /// For people.
    pub text: String,
}

impl Incoming {
    /// Decodes one text message.
    ///
    /// # Errors
    /// The answer to send.
    pub fn decode(text: &str) -> Result<Self, Refusal> {
        let refuse = |id: Option<RequestId>, reason, text: String| Refusal { id, reason, text };
        let bad = |id, text: &str| refuse(id, Reason::BadMessage, text.to_owned());
        let value: Value = serde_json::from_str(text)
            .map_err(|_| bad(None, "The message is not one JSON object."))?;
        let Value::Object(message) = value else {
            return Err(bad(None, "The message is not a JSON object."));
        };
        let id = request_id(&message);
        let Some(kind) = message.get("type").and_then(Value::as_str) else {
            return Err(bad(id, "The message has no type."));
        };
        if kind == "pong" {
            return Ok(Self::Pong);
        }
        if !Request::TYPES.contains(&kind) {
            return Err(refuse(
                id,
                Reason::UnknownType,
                "There is no such type of message.".to_owned(),
            ));
        }
        let Some(id) = id else {
            let text = "A request needs an id: a number, or a text of at most 64 bytes.";
            return Err(bad(None, text));
        };
        match serde_json::from_value(Value::Object(message)) {
            Ok(request) => Ok(Self::Request(id, request)),
            // What is wrong, without the peer's own text, which may hold a token.
            Err(error) => Err(bad(Some(id), &complaint(&error))),
        }
    }
}

impl Request {
    /// The types of the requests there are.
    pub const TYPES: &[&str] = &[
        "hello",
        "ping",
        "users",
        "room.create",
        "room.join",
        "room.leave",
        "room.urls",
        "room.mute",
        "publish",
        "subscribe",
        "media.close",
        "call.invite",
        "call.ringing",
        "call.accept",
        "call.reject",
        "call.hangup",
    ];
}

fn request_id(message: &Map<String, Value>) -> Option<RequestId> {
    match message.get("id")? {
        Value::Number(number) => Some(RequestId::Number(number.clone())),
        Value::String(text) if text.len() <= NAME_CHARS_MAX => Some(RequestId::Text(text.clone())),
        _ => None,
    }
}

fn complaint(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.starts_with("missing field")
        || text.starts_with("an id")
        || text.starts_with("a name")
    {
        true => format!("The message is not as it should be: {text}."),
        false => "A field of the message is of the wrong type or length.".to_owned(),
    }
}

/// Bounds names, titles and the text of a request's id.
const NAME_CHARS_MAX: usize = 64;

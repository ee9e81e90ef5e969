//! What a request is answered with.

use serde::{Deserialize, Serialize};

use super::event::{ByeReason, CallEnd};
use super::{Kind, Name, Reason, RequestId, Title};

/// What an `ok` holds beside its `id`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
#[allow(missing_docs)] // Named after the requests they answer.
pub enum Done {
    Welcome(Box<Welcome>),
    Users { users: Vec<UserInfo> },
    Room { room: Name },
    Joined(Box<RoomState>),
    Urls(Box<Urls>),
    Media { media: Name, answer: String },
    Call(Box<CallState>),
    Nothing {},
}

/// The answer to `hello`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// The secret to resume with.
    pub session: String,
    /// Who the client is.
    pub user: Name,
    /// What others are shown.
    pub name: Title,
    /// How it sends and receives media.
    pub kind: Kind,
    /// Whether an earlier session goes on.
    pub resumed: bool,
    /// How often to `ping`.
    pub heartbeat_ms: u64,
    /// How long the session lives without a WebSocket.
    pub resume_ms: u64,
    /// The rooms it is in.
    pub rooms: Vec<RoomState>,
    /// The calls it is part of.
    pub calls: Vec<CallState>,
}

/// A user as others see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UserInfo {
    /// Who.
    pub user: Name,
    /// What people are shown.
    pub name: Title,
    /// What its devices are.
    pub kinds: Vec<Kind>,
    /// Whether it can be called.
    pub state: UserState,
}

/// Whether a user can be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UserState {
    /// Yes.
    Free,
    /// All its devices ring or talk.
    Busy,
    /// It has no device.
    Offline,
}

/// A room as one of its members sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoomState {
    /// Its name.
    pub room: Name,
    /// Which member this is.
    pub member: Name,
    /// The others.
    pub members: Vec<MemberInfo>,
    /// Where an RTMP member publishes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push: Option<PushUrl>,
}

/// A member as another one sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberInfo {
    /// Which member.
    pub member: Name,
    /// Who it is.
    pub user: Name,
    /// What people are shown.
    pub name: Title,
    /// How it sends and receives media.
    pub kind: Kind,
    /// Whether its sound flows.
    pub audio: bool,
    /// Whether its picture flows.
    pub video: bool,
    /// Whether it is going to send sound.
    pub means_audio: bool,
    /// Whether it is going to send a picture.
    pub means_video: bool,
    /// Whether it said that its sound is off.
    pub muted_audio: bool,
    /// Whether it said that its picture is off.
    pub muted_video: bool,
    /// Where an RTMP member plays it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub play: Option<PlayUrl>,
}

/// Where to publish.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PushUrl {
    /// Sound and picture.
    pub url: String,
    /// Within which time it must be used first.
    pub expires_ms: u64,
}

/// Where to play a member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlayUrl {
    /// Sound and picture.
    pub url: String,
    /// Sound alone.
    pub audio_url: String,
}

/// The answer to `room.urls`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Urls {
    /// The room.
    pub room: Name,
    /// Where to publish.
    pub push: PushUrl,
    /// Where to play each of the others.
    pub play: Vec<MemberUrl>,
}

/// Where to play which member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberUrl {
    /// The member.
    pub member: Name,
    /// Where.
    #[serde(flatten)]
    pub play: PlayUrl,
}

/// A call as one of the two sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallState {
    /// Its name.
    pub call: Name,
    /// How far it is.
    pub state: CallPhase,
    /// The other user; only in the answer to `hello`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with: Option<Name>,
    /// Its room, once it is accepted.
    #[serde(default, flatten, skip_serializing_if = "Option::is_none")]
    pub room: Option<RoomState>,
    /// How it ended, once it did.
    #[serde(default, flatten, skip_serializing_if = "Option::is_none")]
    pub end: Option<CallEnd>,
}

/// How far a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallPhase {
    /// The other one is being rung.
    Inviting,
    /// This one is being rung.
    Incoming,
    /// They talk.
    Accepted,
    /// It is over.
    Ended,
}

/// An `ok` as the text of a message.
pub fn ok(id: &RequestId, done: &Done) -> String {
    #[derive(Serialize)]
    struct Answer<'a> {
        r#type: &'static str,
        id: &'a RequestId,
        #[serde(flatten)]
        done: &'a Done,
    }
    to_text(&Answer {
        r#type: "ok",
        id,
        done,
    })
}

/// An `error` as the text of a message.
pub fn error(id: Option<&RequestId>, reason: Reason, message: &str) -> String {
    #[derive(Serialize)]
    struct Answer<'a> {
        r#type: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a RequestId>,
        reason: Reason,
        message: &'a str,
    }
    to_text(&Answer {
        r#type: "error",
        id,
        reason,
        message,
    })
}

/// The gateway's `ping`.
pub fn ping() -> &'static str {
    "{\"type\":\"ping\"}"
}

/// The last message before the gateway closes a WebSocket.
pub fn bye(reason: ByeReason) -> String {
    format!("{{\"type\":\"bye\",\"reason\":\"{}\"}}", reason.as_str())
}

pub(super) fn to_text(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("our own values have string keys and no failing parts")
}

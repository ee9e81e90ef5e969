//! What operators are told: counts, and lists of rooms and calls.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;

use super::Conversations;
use crate::signaling::message::event::EndReason;
use crate::signaling::message::{Kind, Reason};

/// Counters since the start. Only ever grow.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Text messages taken.
    pub messages: u64,
    /// Requests that came again and got their first answer.
    pub repeated: u64,
    /// Sign-ins.
    pub sessions: u64,
    /// Sessions that went on with another WebSocket.
    pub resumed: u64,
    /// WebSockets closed because nothing was heard.
    pub heartbeats_missed: u64,
    /// Rooms made, without those of calls.
    pub rooms: u64,
    /// Invitations.
    pub calls: u64,
    ended: BTreeMap<EndReason, u64>,
    errors: BTreeMap<Reason, u64>,
}

impl Counts {
    pub(super) fn calls_ended(&mut self, reason: EndReason) {
        *self.ended.entry(reason).or_default() += 1;
    }

    /// Calls that ended for a reason.
    pub fn ended(&self, reason: EndReason) -> u64 {
        self.ended.get(&reason).copied().unwrap_or_default()
    }

    /// Requests that were refused for a reason.
    pub fn errors(&self, reason: Reason) -> u64 {
        self.errors.get(&reason).copied().unwrap_or_default()
    }
}

/// A room, for the API.
#[derive(Clone, Debug, Serialize)]
pub struct RoomReport {
    room: String,
    owner: String,
    members_max: usize,
    age_s: f64,
    /// The call whose room it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    call: Option<String>,
    members: Vec<MemberReport>,
}

/// A member, for the API.
#[derive(Clone, Debug, Serialize)]
pub struct MemberReport {
    member: String,
    user: String,
    kind: Kind,
    /// The stream that it publishes, now or later.
    stream: String,
    audio: bool,
    video: bool,
    muted_audio: bool,
    muted_video: bool,
    /// Whether its WebSocket is there.
    signaling: bool,
    /// Publishers' and players' sessions.
    legs: usize,
    age_s: f64,
}

/// A call, for the API.
#[derive(Clone, Debug, Serialize)]
pub struct CallReport {
    call: String,
    from: String,
    to: String,
    state: &'static str,
    age_s: f64,
    /// How long they have been talking.
    #[serde(skip_serializing_if = "Option::is_none")]
    talk_s: Option<f64>,
    /// From the acceptance until both saw and heard each other.
    #[serde(skip_serializing_if = "Option::is_none")]
    set_up_ms: Option<u64>,
}

/// How much there is of everything, for metrics and for tests that see whether all is freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Sizes {
    pub websockets: usize,
    pub sessions: usize,
    pub users: usize,
    pub rooms: usize,
    pub members: usize,
    pub calls: usize,
    pub legs: usize,
    pub tokens: usize,
    /// Requests that wait for something.
    pub waiting: usize,
}

impl Conversations {
    /// Counters since the start.
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// How much there is.
    pub fn sizes(&self) -> Sizes {
        Sizes {
            websockets: self.links.len(),
            sessions: self.sessions.len(),
            users: self.users.len(),
            rooms: self.rooms.len(),
            members: self.members.len(),
            calls: self.calls.len(),
            legs: self.legs.len(),
            tokens: self.tokens.len(),
            waiting: self.waiting.len() + self.pending.len(),
        }
    }

    /// All rooms, by name.
    pub fn rooms(&self, now: Instant) -> Vec<RoomReport> {
        let keys = self.room_names.values();
        keys.filter_map(|key| {
            let room = self.rooms.get(key)?;
            let members = room.members.iter();
            Some(RoomReport {
                room: room.name.to_string(),
                owner: room.owner.to_string(),
                members_max: room.members_max,
                age_s: now.duration_since(room.since).as_secs_f64(),
                call: room.call.map(|call| call.to_string()),
                members: members
                    .filter_map(|key| {
                        let member = self.members.get(key)?;
                        let session = self.sessions.get(&member.session);
                        Some(MemberReport {
                            member: key.to_string(),
                            user: member.user.to_string(),
                            kind: member.kind,
                            stream: super::urls::stream_name(&room.name, *key),
                            audio: member.audio.on,
                            video: member.video.on,
                            muted_audio: member.muted.audio,
                            muted_video: member.muted.video,
                            signaling: session.is_some_and(|session| session.conn.is_some()),
                            legs: member.legs.len(),
                            age_s: now.duration_since(member.since).as_secs_f64(),
                        })
                    })
                    .collect(),
            })
        })
        .collect()
    }

    /// All calls that are not over, oldest first.
    pub fn calls(&self, now: Instant) -> Vec<CallReport> {
        let calls = self.calls.iter();
        calls
            .map(|(key, call)| {
                let talk = call.talk.as_ref();
                CallReport {
                    call: key.to_string(),
                    from: call.caller_user.to_string(),
                    to: call.callee_user.to_string(),
                    state: match talk {
                        Some(_) => "accepted",
                        None => "inviting",
                    },
                    age_s: now.duration_since(call.since).as_secs_f64(),
                    talk_s: talk.map(|talk| now.duration_since(talk.since).as_secs_f64()),
                    set_up_ms: talk.and_then(|talk| Some(talk.took?.as_millis() as u64)),
                }
            })
            .collect()
    }

    pub(super) fn count_error(&mut self, reason: Reason) {
        *self.counts.errors.entry(reason).or_default() += 1;
    }
}

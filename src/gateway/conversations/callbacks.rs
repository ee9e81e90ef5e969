//! What an operator's server is asked and told of sign-ins, rooms and calls.

use std::time::Instant;

use serde_json::{Value, json};

use crate::config::CallbackEvent;
use crate::gateway::callback::Asker;
use crate::gateway::{Connection, Gateway};
use crate::ids::ConnId;
use crate::signaling::conversations::{CallNews, Decision, Notice, Question, Ticket};
use crate::signaling::message::{Hello, Reason};

impl Gateway {
    /// Decides on a question by the rules, then asks, then lets what it is about begin.
    pub(super) fn ask_member(&mut self, now: Instant, ticket: Ticket, question: Question) {
        let decision = self.decide(&question);
        let asked = match decision {
            Decision::Denied(..) => None,
            Decision::Allowed(_) => self.facts(&question, &decision),
        };
        let Some((event, fields)) = asked else {
            self.conversations.decided(now, ticket, decision);
            return;
        };
        let asker = Asker::Member(ticket, Box::new(decision));
        let go_on = self.ask_callback(now, event, || fields, asker);
        if let Some(Asker::Member(ticket, decision)) = go_on {
            self.conversations.decided(now, ticket, *decision);
        }
    }

    /// What is to be asked, and its fields; nothing about an empty room.
    fn facts(&self, question: &Question, decision: &Decision) -> Option<(CallbackEvent, Value)> {
        Some(match question {
            Question::Hello { conn, hello } => {
                let Decision::Allowed(Some(identity)) = decision else {
                    return None;
                };
                let Hello {
                    kind, token, name, ..
                } = hello;
                let fields = json!({
                    "protocol": PROTOCOL,
                    "client": self.client(Some(*conn)),
                    "kind": kind,
                    "user": identity.user,
                    "name": name.as_ref().or(identity.title.as_ref()),
                    "token": token,
                });
                (CallbackEvent::Connect, fields)
            }
            Question::Create { .. } => return None,
            Question::Join {
                conn,
                kind,
                user,
                room,
                ..
            } => {
                let fields = json!({
                    "protocol": PROTOCOL,
                    "client": self.client(*conn),
                    "kind": kind,
                    "user": user,
                    "room": room,
                });
                (CallbackEvent::Join, fields)
            }
            Question::Invite {
                conn,
                kind,
                means,
                user,
                to,
                ..
            } => {
                let fields = json!({
                    "protocol": PROTOCOL,
                    "client": self.client(*conn),
                    "kind": kind,
                    "user": user,
                    "to": to,
                    "audio": means.audio,
                    "video": means.video,
                    "state": "invite",
                });
                (CallbackEvent::Call, fields)
            }
        })
    }

    fn client(&self, conn: Option<ConnId>) -> Option<String> {
        match self.connections.get(&conn?)? {
            Connection::WebSocket(websocket) => Some(websocket.peer.to_string()),
            _ => None,
        }
    }

    /// Tells what happened in rooms and calls.
    pub(super) fn tell_notice(&mut self, notice: Notice) {
        match notice {
            Notice::Left {
                room,
                user,
                member,
                reason,
                stayed,
            } => self.notify_callback(CallbackEvent::Leave, || {
                json!({
                    "protocol": PROTOCOL,
                    "user": user,
                    "room": room,
                    "member": member,
                    "reason": reason,
                    "duration_ms": stayed.as_millis() as u64,
                })
            }),
            Notice::Call {
                call,
                from,
                to,
                news,
            } => self.notify_callback(CallbackEvent::Call, || {
                let mut fields = json!({
                    "protocol": PROTOCOL,
                    "state": state(&news),
                    "call": call,
                    "user": from,
                    "to": to,
                });
                if let CallNews::Ended {
                    reason,
                    by,
                    talked,
                    set_up,
                } = news
                {
                    fields["reason"] = json!(reason);
                    fields["by"] = json!(by);
                    fields["duration_ms"] = json!(talked.map(|span| span.as_millis() as u64));
                    fields["set_up_ms"] = json!(set_up.map(|span| span.as_millis() as u64));
                }
                fields
            }),
        }
    }
}

/// The operator's server said no, in these words.
pub(in crate::gateway) fn refused(why: String) -> Decision {
    Decision::Denied(Reason::Refused, why)
}

fn state(news: &CallNews) -> &'static str {
    match news {
        CallNews::Calling => "calling",
        CallNews::Ringing => "ringing",
        CallNews::Accepted => "accepted",
        CallNews::Ended { .. } => "ended",
    }
}

/// What rooms and calls are spoken over.
const PROTOCOL: &str = "websocket";

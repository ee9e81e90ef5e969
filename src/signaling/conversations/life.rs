//! Life and death: heartbeats, connections that close, sessions that end.

use std::time::Instant;

use super::{Conversations, Output, Owner, SessionKey};
use crate::ids::{ConnId, PeerId};
use crate::signaling::message::Name;
use crate::signaling::message::answer;
use crate::signaling::message::event::{ByeReason, ClosedReason, EndReason, LeftReason};

impl Conversations {
    /// A WebSocket is gone. That ends nothing by itself.
    pub fn disconnected(&mut self, now: Instant, conn: ConnId) {
        self.deadlines.disarm(Owner::Link(conn));
        let Some(link) = self.links.remove(&conn) else {
            return;
        };
        if let Some(key) = link.session {
            self.leave_alone(now, key);
        }
    }

    /// A session has lost its WebSocket.
    fn leave_alone(&mut self, now: Instant, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        session.conn = None;
        session.alone_since = Some(now);
        log::debug!("call {key}: {} has no WebSocket now", session.user);
        self.deadlines
            .arm(Owner::Session(key), Some(now + self.settings.resume));
    }

    pub(super) fn arm_link(&mut self, conn: ConnId) {
        if let Some(link) = self.links.get(&conn) {
            let next = link.asked_at.unwrap_or(link.heard_at) + self.settings.heartbeat;
            let end = link.heard_at + self.settings.heartbeat_timeout;
            self.deadlines.arm(Owner::Link(conn), Some(next.min(end)));
        }
    }

    pub(super) fn link_due(&mut self, now: Instant, conn: ConnId) {
        let (heartbeat, timeout) = (self.settings.heartbeat, self.settings.heartbeat_timeout);
        let Some(link) = self.links.get_mut(&conn) else {
            return;
        };
        if link.is_closing {
            return;
        }
        if now >= link.heard_at + timeout {
            self.counts.heartbeats_missed += 1;
            self.close_link(conn, ByeReason::Heartbeat);
            return;
        }
        if now >= link.asked_at.unwrap_or(link.heard_at) + heartbeat {
            link.asked_at = Some(now);
            self.send(conn, answer::ping().to_owned());
        }
        self.arm_link(conn);
    }

    pub(super) fn end_if_too_fast(&mut self, conn: ConnId) {
        let rate = self.settings.messages_per_second_max;
        let link = self.links.get(&conn);
        if link.is_some_and(|link| link.meter.is_too_much(rate)) {
            self.close_link(conn, ByeReason::TooManyMessages);
        }
    }

    /// Says goodbye; the gateway closes the connection and says [`Self::disconnected`].
    pub(super) fn close_link(&mut self, conn: ConnId, reason: ByeReason) {
        let Some(link) = self.links.get_mut(&conn) else {
            return;
        };
        if std::mem::replace(&mut link.is_closing, true) {
            return;
        }
        self.deadlines.disarm(Owner::Link(conn));
        self.send(conn, answer::bye(reason));
        self.outputs.push_back(Output::Close { conn, reason });
    }

    /// A session has been without a WebSocket for its time. Its media may keep it alive.
    pub(super) fn session_due(
        &mut self,
        now: Instant,
        key: SessionKey,
        last_sign: &dyn Fn(PeerId) -> Option<Instant>,
    ) {
        let Some(session) = self.sessions.get(&key) else {
            return;
        };
        let Some(alone_since) = session.alone_since else {
            return;
        };
        let mut end = alone_since + self.settings.resume;
        let legs = session
            .member
            .and_then(|member| self.members.get(&member))
            .map_or(&[][..], |member| &member.legs);
        for sign in legs.iter().filter_map(|peer| last_sign(*peer)) {
            end = end.max(sign + self.settings.media_grace);
        }
        if now < end {
            self.deadlines.arm(Owner::Session(key), Some(end));
        } else {
            self.end_session(now, key);
        }
    }

    /// Ends a session with everything that is its own.
    fn end_session(&mut self, now: Instant, key: SessionKey) {
        if let Some(call) = self.sessions.get(&key).and_then(|session| session.call) {
            self.lose_call(now, key, call);
        }
        if let Some(member) = self.sessions.get(&key).and_then(|session| session.member) {
            self.remove_member(now, member, LeftReason::Lost);
        }
        self.deadlines.disarm(Owner::Session(key));
        let Some(session) = self.sessions.remove(&key) else {
            return;
        };
        self.by_secret.remove(&session.secret);
        log::info!("call {key}: {} is gone", session.user);
        self.forget_device(&session.user, key);
    }

    /// Ends a session of `user` that has neither WebSocket nor media, to make room for another
    /// one of the same user: an app that was killed and started again has lost its secret.
    pub(super) fn drop_dead_device(&mut self, now: Instant, user: &Name) -> bool {
        let Some(user) = self.users.get(user) else {
            return false;
        };
        let dead = user.sessions.iter().copied().find(|key| {
            let session = self.sessions.get(key);
            session.is_some_and(|session| session.alone_since.is_some() && !self.has_legs(session))
        });
        if let Some(key) = dead {
            self.end_session(now, key);
        }
        dead.is_some()
    }

    /// The gateway stops: calls and rooms end, and everybody is told.
    pub(super) fn end_all(&mut self, now: Instant) {
        let calls: Vec<_> = self.calls.keys().copied().collect();
        for call in calls {
            self.end_call(now, call, EndReason::Drain, None, None);
        }
        let rooms: Vec<_> = self.rooms.keys().copied().collect();
        for room in rooms {
            self.close_room(now, room, ClosedReason::Drain, None);
        }
        let links: Vec<_> = self.links.keys().copied().collect();
        for conn in links {
            self.close_link(conn, ByeReason::Drain);
        }
        let sessions: Vec<_> = self.sessions.keys().copied().collect();
        for key in sessions {
            self.end_session(now, key);
        }
    }
}

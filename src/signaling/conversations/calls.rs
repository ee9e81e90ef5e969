//! Calls: an invitation, what becomes of it, and a room of two.
//!
//! ```text
//!   invite ──► Inviting ──── accept, invitations that cross ────► Accepted ── hangup, lost ──► over
//!                 └── reject, cancel, no answer, lost ──► over
//! ```

use std::time::{Duration, Instant};

use super::setup::SetUp;
use super::{
    CallKey, CallNews, Conversations, Named, No, Notice, Owner, Pending, Question, RoomKey,
    SessionKey, no,
};
use crate::signaling::message::answer::{CallPhase, CallState, Done};
use crate::signaling::message::event::{CallEnd, Caller, ClosedReason, EndReason, Event};
use crate::signaling::message::{Means, Name, Reason, RequestId};

/// A call that is not over.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) caller: SessionKey,
    pub(super) caller_user: Name,
    pub(super) callee_user: Name,
    /// What the caller is going to send.
    means: Means,
    /// The callee's devices that are rung.
    ringing: Vec<SessionKey>,
    /// Whether the caller knows that one of them rings.
    has_rung: bool,
    pub(super) talk: Option<Talk>,
    pub(super) since: Instant,
}

/// An accepted call.
#[derive(Debug)]
pub(super) struct Talk {
    pub(super) callee: SessionKey,
    pub(super) room: RoomKey,
    pub(super) since: Instant,
    /// Until both see and hear each other.
    pub(super) set_up: Option<SetUp>,
    /// How long that took.
    pub(super) took: Option<Duration>,
}

impl Call {
    fn sessions(&self) -> Vec<SessionKey> {
        let mut all = vec![self.caller];
        match &self.talk {
            Some(talk) => all.push(talk.callee),
            None => all.extend(&self.ringing),
        }
        all
    }
}

impl Conversations {
    pub(super) fn ask_invite(
        &mut self,
        now: Instant,
        session: SessionKey,
        id: RequestId,
        to: Name,
        means: Means,
    ) {
        let Some(asking) = self.sessions.get(&session) else {
            return;
        };
        let question = Question::Invite {
            conn: asking.conn,
            kind: asking.kind,
            means,
            user: asking.user.clone(),
            rights: asking.rights.clone(),
            to: to.clone(),
        };
        // What cannot be is not asked for.
        if let Err(denial) = self.may_invite(session, &to) {
            return self.answer(session, &id, Err(denial));
        }
        if let Some(call) = self.crossing(session, &to) {
            let result = self.take_call(now, session, call, means);
            return self.answer(session, &id, result);
        }
        let pending = Pending::Invite {
            session,
            id,
            to,
            means,
        };
        self.ask(pending, question);
    }

    pub(super) fn invite(
        &mut self,
        now: Instant,
        session: SessionKey,
        to: &Name,
        means: Means,
    ) -> Result<Done, No> {
        let devices = self.may_invite(session, to)?;
        if let Some(call) = self.crossing(session, to) {
            return self.take_call(now, session, call, means);
        }
        let Some(calling) = self.sessions.get_mut(&session) else {
            return Ok(Done::Nothing {});
        };
        let caller = Caller {
            user: calling.user.clone(),
            name: calling.title.clone(),
            kind: calling.kind,
        };
        let mut key = CallKey(self.last_key + 1);
        // A room may have the name that this call would have.
        while self.room_names.contains_key(&key.name()) {
            key.0 += 1;
        }
        self.last_key = key.0;
        if let Some(calling) = self.sessions.get_mut(&session) {
            calling.call = Some(key);
        }
        for device in &devices {
            if let Some(device) = self.sessions.get_mut(device) {
                device.call = Some(key);
            }
        }
        let call = Call {
            caller: session,
            caller_user: caller.user.clone(),
            callee_user: to.clone(),
            means,
            ringing: devices.clone(),
            has_rung: false,
            talk: None,
            since: now,
        };
        self.calls.insert(key, call);
        self.counts.calls += 1;
        log::info!("call {key}: {} calls {to}", caller.user);
        let ring = self.settings.ring;
        self.deadlines.arm(Owner::Call(key), Some(now + ring));
        let event = Event::CallIncoming {
            call: key.name(),
            from: caller.clone(),
            means,
            expires_ms: ring.as_millis() as u64,
        };
        for device in devices {
            self.tell(device, &event);
        }
        self.review_user(&caller.user);
        self.review_user(to);
        self.call_notice(key, CallNews::Calling);
        Ok(Done::Call(Box::new(state(key, CallPhase::Inviting))))
    }

    /// The devices that an invitation would ring.
    fn may_invite(&self, session: SessionKey, to: &Name) -> Result<Vec<SessionKey>, No> {
        let Some(calling) = self.sessions.get(&session) else {
            return Ok(Vec::new());
        };
        if self.is_draining {
            return no(Reason::Draining, "The gateway is about to stop.");
        }
        if calling.user == *to {
            return no(Reason::Yourself, "Nobody can call himself.");
        }
        if self.crossing(session, to).is_some() {
            return Ok(Vec::new());
        }
        if calling.call.is_some() {
            return no(Reason::BusyYourself, "This session is in a call.");
        }
        if calling.member.is_some() {
            return no(Reason::AlreadyInRoom, "Leave the room before you call.");
        }
        let devices = self.users.get(to).map_or(&[][..], |user| &user.sessions);
        if devices.is_empty() {
            return no(Reason::Offline, format!("{to} is not there."));
        }
        let free: Vec<SessionKey> = devices
            .iter()
            .copied()
            .filter(|device| self.is_free(*device))
            .collect();
        if free.is_empty() {
            return no(Reason::Busy, format!("{to} is in a call."));
        }
        if self.calls.len() >= self.settings.calls_max {
            return no(
                Reason::TooManyCalls,
                "The gateway has as many calls as it may have.",
            );
        }
        Ok(free)
    }

    /// The invitation by which `to` rings the user of `session` already.
    fn crossing(&self, session: SessionKey, to: &Name) -> Option<CallKey> {
        let session = self.sessions.get(&session)?;
        let key = session.call?;
        let call = self.calls.get(&key)?;
        let crosses =
            call.talk.is_none() && call.caller_user == *to && call.callee_user == session.user;
        crosses.then_some(key)
    }

    pub(super) fn ringing(&mut self, session: SessionKey, name: &Name) -> Result<Done, No> {
        let Some((key, call)) = self.find_call(name) else {
            return self.not_there(session, name);
        };
        if !call.ringing.contains(&session) {
            return self.not_there(session, name);
        }
        if !std::mem::replace(&mut call.has_rung, true) {
            let caller = call.caller;
            self.tell(caller, &Event::CallRinging { call: key.name() });
            self.call_notice(key, CallNews::Ringing);
        }
        Ok(Done::Nothing {})
    }

    pub(super) fn accept(
        &mut self,
        now: Instant,
        session: SessionKey,
        name: &Name,
        means: Means,
    ) -> Result<Done, No> {
        let Some((key, call)) = self.find_call(name) else {
            return self.not_there(session, name);
        };
        if let Some(talk) = &call.talk
            && talk.callee == session
        {
            return self.accepted_answer(now, session, key);
        }
        if call.caller == session {
            return no(Reason::WrongState, "The caller cannot accept.");
        }
        if call.talk.is_some() || !call.ringing.contains(&session) {
            return self.not_there(session, name);
        }
        self.take_call(now, session, key, means)
    }

    /// The call is accepted on this device.
    fn take_call(
        &mut self,
        now: Instant,
        session: SessionKey,
        key: CallKey,
        means: Means,
    ) -> Result<Done, No> {
        if self
            .sessions
            .get(&session)
            .is_some_and(|s| s.member.is_some())
        {
            return no(Reason::AlreadyInRoom, "Leave the room before you accept.");
        }
        let Some(call) = self.calls.get_mut(&key) else {
            return no(Reason::NoSuchCall, "There is no such call.");
        };
        let (caller, caller_means) = (call.caller, call.means);
        let caller_user = call.caller_user.clone();
        let others = std::mem::take(&mut call.ringing);
        self.deadlines.disarm(Owner::Call(key));
        let room = self.insert_room(now, key.name(), caller_user.clone(), 2, Some(key));
        let from = self.add_member(now, room, caller, caller_means);
        let to = self.add_member(now, room, session, means);
        if let Some(call) = self.calls.get_mut(&key) {
            call.talk = Some(Talk {
                callee: session,
                room,
                since: now,
                set_up: SetUp::new(now, (from, caller_means), (to, means)),
                took: None,
            });
        }
        let by = self.sessions.get(&session).map(|s| s.user.clone());
        log::info!("call {key}: accepted");
        for other in others {
            if other != session {
                let end = CallEnd {
                    reason: EndReason::AnsweredElsewhere,
                    by: by.clone(),
                    duration_ms: None,
                };
                self.leave_call(other, key, end, true);
            }
        }
        if let Some(room) = self.room_state(now, from) {
            let event = Event::CallAccepted {
                call: key.name(),
                room,
            };
            self.tell(caller, &event);
        }
        if let Some(by) = by {
            self.review_user(&by);
        }
        self.call_notice(key, CallNews::Accepted);
        self.accepted_answer(now, session, key)
    }

    fn accepted_answer(
        &mut self,
        now: Instant,
        session: SessionKey,
        key: CallKey,
    ) -> Result<Done, No> {
        let member = self.sessions.get(&session).and_then(|s| s.member);
        let room = member.and_then(|member| self.room_state(now, member));
        Ok(Done::Call(Box::new(CallState {
            room,
            ..state(key, CallPhase::Accepted)
        })))
    }

    /// `call.hangup` and `call.reject`: what it means depends on who says it, and when.
    pub(super) fn hang_up(
        &mut self,
        now: Instant,
        session: SessionKey,
        name: &Name,
    ) -> Result<Done, No> {
        let Some((key, call)) = self.find_call(name) else {
            return self.not_there(session, name);
        };
        if !call.sessions().contains(&session) {
            return self.not_there(session, name);
        }
        let reason = match &call.talk {
            Some(_) => EndReason::Hangup,
            None if call.caller == session => EndReason::Cancelled,
            None => EndReason::Rejected,
        };
        let by = self.sessions.get(&session).map(|s| s.user.clone());
        self.end_call(now, key, reason, by, Some(session));
        Ok(Done::Nothing {})
    }

    /// One side of a call has died.
    pub(super) fn lose_call(&mut self, now: Instant, session: SessionKey, key: CallKey) {
        let Some(call) = self.calls.get_mut(&key) else {
            return;
        };
        call.ringing.retain(|device| *device != session);
        let goes_on = call.talk.is_none() && call.caller != session && !call.ringing.is_empty();
        if goes_on {
            if let Some(session) = self.sessions.get_mut(&session) {
                session.call = None;
            }
            return;
        }
        let by = self.sessions.get(&session).map(|s| s.user.clone());
        self.end_call(now, key, EndReason::Lost, by, Some(session));
    }

    /// Nobody answered.
    pub(super) fn ring_due(&mut self, now: Instant, key: CallKey) {
        if self.calls.get(&key).is_some_and(|call| call.talk.is_none()) {
            self.end_call(now, key, EndReason::NoAnswer, None, None);
        }
    }

    /// A call is over; everybody who knew of it is told but `silent`, whose request ended it.
    pub(super) fn end_call(
        &mut self,
        now: Instant,
        key: CallKey,
        reason: EndReason,
        by: Option<Name>,
        silent: Option<SessionKey>,
    ) {
        self.deadlines.disarm(Owner::Call(key));
        let Some(call) = self.calls.remove(&key) else {
            return;
        };
        let talked = call
            .talk
            .as_ref()
            .map(|talk| now.duration_since(talk.since));
        let talked_ms = talked.map(|talked| talked.as_millis() as u64);
        log::info!("call {key}: over ({}), {talked_ms:?} ms", reason.as_str());
        self.counts.calls_ended(reason);
        let mut sessions = call.sessions();
        // Whoever died is not among those that are rung any more.
        sessions.extend(silent.filter(|silent| !sessions.contains(silent)));
        for session in sessions {
            let is_other_device =
                reason == EndReason::Rejected && session != call.caller && Some(session) != silent;
            let end = CallEnd {
                reason: match is_other_device {
                    true => EndReason::RejectedElsewhere,
                    false => reason,
                },
                by: by.clone(),
                duration_ms: talked_ms,
            };
            self.leave_call(session, key, end, Some(session) != silent);
        }
        if let Some(talk) = &call.talk {
            let reason = match reason {
                EndReason::Drain => ClosedReason::Drain,
                _ => ClosedReason::CallEnded,
            };
            self.close_room(now, talk.room, reason, silent);
        }
        self.review_user(&call.caller_user);
        self.review_user(&call.callee_user);
        self.notice(Notice::Call {
            call: key.name(),
            from: call.caller_user,
            to: call.callee_user,
            news: CallNews::Ended {
                reason: reason.as_str(),
                by,
                talked,
                set_up: call.talk.and_then(|talk| talk.took),
            },
        });
    }

    /// Tells what became of a call that is not over.
    fn call_notice(&mut self, key: CallKey, news: CallNews) {
        if let Some(call) = self.calls.get(&key) {
            let (from, to) = (call.caller_user.clone(), call.callee_user.clone());
            let call = key.name();
            self.notice(Notice::Call {
                call,
                from,
                to,
                news,
            });
        }
    }

    /// A session has no part in a call any more.
    fn leave_call(&mut self, session: SessionKey, key: CallKey, end: CallEnd, is_told: bool) {
        let Some(leaving) = self.sessions.get_mut(&session) else {
            return;
        };
        if leaving.call == Some(key) {
            leaving.call = None;
        }
        leaving.note_end(key, end.clone());
        if is_told {
            let call = key.name();
            self.tell(session, &Event::CallEnded { call, end });
        }
    }

    /// The answer about a call that is not, or no more, this session's.
    fn not_there(&self, session: SessionKey, name: &Name) -> Result<Done, No> {
        let ended = call_key(name).and_then(|key| {
            let end = self.sessions.get(&session)?.end_of(key)?;
            Some((key, end.clone()))
        });
        match ended {
            Some((_, end)) if end.reason == EndReason::AnsweredElsewhere => no(
                Reason::AnsweredElsewhere,
                "Another device has taken the call.",
            ),
            Some((key, end)) => Ok(Done::Call(Box::new(CallState {
                end: Some(end),
                ..state(key, CallPhase::Ended)
            }))),
            None => no(Reason::NoSuchCall, format!("There is no call {name}.")),
        }
    }

    /// A call as `session` sees it, for a client that resumes.
    pub(super) fn call_state(
        &mut self,
        now: Instant,
        session: SessionKey,
        key: CallKey,
    ) -> Option<CallState> {
        let call = self.calls.get(&key)?;
        let is_caller = call.caller == session;
        let with = match is_caller {
            true => call.callee_user.clone(),
            false => call.caller_user.clone(),
        };
        let phase = match &call.talk {
            Some(_) => CallPhase::Accepted,
            None if is_caller => CallPhase::Inviting,
            None => CallPhase::Incoming,
        };
        let member = self.sessions.get(&session)?.member;
        let member = member.filter(|_| phase == CallPhase::Accepted);
        Some(CallState {
            with: Some(with),
            room: member.and_then(|member| self.room_state(now, member)),
            ..state(key, phase)
        })
    }

    pub(super) fn is_call_name(&self, name: &Name) -> bool {
        call_key(name).is_some_and(|key| self.calls.contains_key(&key))
    }

    pub(super) fn call_rooms(&self) -> usize {
        self.calls
            .values()
            .filter(|call| call.talk.is_some())
            .count()
    }

    fn find_call(&mut self, name: &Name) -> Option<(CallKey, &mut Call)> {
        let key = call_key(name)?;
        Some((key, self.calls.get_mut(&key)?))
    }
}

fn state(key: CallKey, phase: CallPhase) -> CallState {
    CallState {
        call: key.name(),
        state: phase,
        with: None,
        room: None,
        end: None,
    }
}

/// The key that a call of this name has. `c05` is no name of call 5.
fn call_key(name: &Name) -> Option<CallKey> {
    let key = CallKey(name.as_str().strip_prefix('c')?.parse().ok()?);
    (key.to_string() == name.as_str()).then_some(key)
}

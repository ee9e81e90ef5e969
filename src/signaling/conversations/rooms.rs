//! Rooms and their members.

use std::time::Instant;

use super::{
    CallKey, Conversations, MemberKey, Named, No, Notice, Output, Owner, Pending, Question,
    RoomKey, SessionKey, Ticket, no,
};
use crate::ids::{PeerId, StreamId};
use crate::signaling::message::answer::Done;
use crate::signaling::message::event::{ClosedReason, EndReason, Event, LeftReason, MediaReason};
use crate::signaling::message::{Kind, Means, Name, Reason, RequestId, Title};

use super::media::Flow;
use super::urls::stream_name;

/// A room.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) name: Name,
    /// Who made it.
    pub(super) owner: Name,
    pub(super) members_max: usize,
    pub(super) members: Vec<MemberKey>,
    /// The call whose room it is.
    pub(super) call: Option<CallKey>,
    pub(super) since: Instant,
}

/// A session in a room. To the others it is the same whichever way its media takes.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) session: SessionKey,
    pub(super) room: RoomKey,
    pub(super) user: Name,
    pub(super) title: Title,
    pub(super) kind: Kind,
    pub(super) means: Means,
    pub(super) muted: Means,
    pub(super) audio: Flow,
    pub(super) video: Flow,
    /// Its stream while it publishes, and after.
    pub(super) stream: Option<StreamId>,
    /// What it publishes and plays.
    pub(super) legs: Vec<PeerId>,
    /// PeerConnections that it made so far.
    pub(super) media_made: u64,
    pub(super) since: Instant,
}

impl Conversations {
    pub(super) fn made_up_room(&mut self) -> Name {
        Name::new(format!("room-{}", self.secrets.name())).expect("letters and digits")
    }

    pub(super) fn ask_create(
        &mut self,
        session: SessionKey,
        id: RequestId,
        room: Name,
        members_max: Option<usize>,
    ) {
        let Some(asking) = self.sessions.get(&session) else {
            return;
        };
        let question = Question::Create {
            user: asking.user.clone(),
            rights: asking.rights.clone(),
            room: room.clone(),
        };
        let pending = Pending::Create {
            session,
            id,
            room,
            members_max,
        };
        self.ask(pending, question);
    }

    pub(super) fn create_room(
        &mut self,
        now: Instant,
        session: SessionKey,
        name: Name,
        members_max: Option<usize>,
    ) -> Result<Done, No> {
        let Some(session) = self.sessions.get(&session) else {
            return Ok(Done::Nothing {});
        };
        let user = session.user.clone();
        if let Some(key) = self.room_names.get(&name) {
            let own = self
                .rooms
                .get(key)
                .is_some_and(|room| room.owner == user && room.call.is_none());
            return match own {
                true => Ok(Done::Room { room: name }),
                false => no(Reason::RoomExists, format!("Room {name} is another one's.")),
            };
        }
        self.make_room(now, name.clone(), user, members_max)?;
        Ok(Done::Room { room: name })
    }

    fn make_room(
        &mut self,
        now: Instant,
        name: Name,
        owner: Name,
        members_max: Option<usize>,
    ) -> Result<RoomKey, No> {
        if self.is_draining {
            return no(Reason::Draining, "The gateway is about to stop.");
        }
        if self.is_call_name(&name) {
            return no(Reason::RoomExists, format!("{name} is a call."));
        }
        if self.rooms.len() - self.call_rooms() >= self.settings.rooms_max {
            return no(
                Reason::TooManyRooms,
                "The gateway has as many rooms as it may have.",
            );
        }
        let most = self.settings.room_members_max;
        let members_max = members_max.unwrap_or(most).clamp(1, most);
        log::info!("room {name}: made by {owner}");
        self.counts.rooms += 1;
        let key = self.insert_room(now, name, owner, members_max, None);
        self.deadlines
            .arm(Owner::Room(key), Some(now + self.settings.empty_room));
        Ok(key)
    }

    pub(super) fn insert_room(
        &mut self,
        now: Instant,
        name: Name,
        owner: Name,
        members_max: usize,
        call: Option<CallKey>,
    ) -> RoomKey {
        let key = RoomKey(self.next_key());
        self.room_names.insert(name.clone(), key);
        let room = Room {
            name,
            owner,
            members_max,
            members: Vec::new(),
            call,
            since: now,
        };
        self.rooms.insert(key, room);
        key
    }

    pub(super) fn ask_join(
        &mut self,
        now: Instant,
        session: SessionKey,
        id: RequestId,
        room: Name,
        create: bool,
        means: Means,
    ) {
        let Some(asking) = self.sessions.get(&session) else {
            return;
        };
        // Who is in already is not asked again.
        if asking.member.is_some() {
            let result = self.join_room(now, session, &room, create, means);
            return self.answer(session, &id, result);
        }
        let question = Question::Join {
            conn: asking.conn,
            kind: asking.kind,
            user: asking.user.clone(),
            rights: asking.rights.clone(),
            room: room.clone(),
        };
        let pending = Pending::Join {
            session,
            id,
            room,
            create,
            means,
        };
        self.ask(pending, question);
    }

    pub(super) fn join_room(
        &mut self,
        now: Instant,
        session: SessionKey,
        name: &Name,
        create: bool,
        means: Means,
    ) -> Result<Done, No> {
        let Some(joining) = self.sessions.get(&session) else {
            return Ok(Done::Nothing {});
        };
        let (user, call) = (joining.user.clone(), joining.call);
        if let Some(member) = joining.member {
            let is_in = self.room_of(member).is_some_and(|room| room.name == *name);
            return match self.room_state(now, member).filter(|_| is_in) {
                Some(state) => Ok(Done::Joined(Box::new(state))),
                None => no(
                    Reason::AlreadyInRoom,
                    "This session is in another room; leave it first.",
                ),
            };
        }
        if call.is_some() {
            return no(Reason::WrongState, "This session is in a call.");
        }
        let key = match self.room_names.get(name) {
            Some(key) => *key,
            None if create => self.make_room(now, name.clone(), user, None)?,
            None => return no(Reason::NoSuchRoom, format!("There is no room {name}.")),
        };
        let Some(room) = self.rooms.get(&key) else {
            return no(Reason::NoSuchRoom, format!("There is no room {name}."));
        };
        if room.call.is_some() {
            return no(Reason::Forbidden, format!("{name} is a call of others."));
        }
        if room.members.len() >= room.members_max {
            let text = format!(
                "Room {name} has {} members, which is its limit.",
                room.members_max
            );
            return no(Reason::RoomFull, text);
        }
        let member = self.add_member(now, key, session, means);
        match self.room_state(now, member) {
            Some(state) => Ok(Done::Joined(Box::new(state))),
            None => no(Reason::NoSuchRoom, format!("There is no room {name}.")),
        }
    }

    /// Puts a session into a room and tells the others.
    pub(super) fn add_member(
        &mut self,
        now: Instant,
        room: RoomKey,
        session: SessionKey,
        means: Means,
    ) -> MemberKey {
        let key = MemberKey(self.next_key());
        self.deadlines.disarm(Owner::Room(room));
        let Some(joining) = self.sessions.get_mut(&session) else {
            return key;
        };
        joining.member = Some(key);
        let nothing = Means {
            audio: false,
            video: false,
        };
        let member = Member {
            session,
            room,
            user: joining.user.clone(),
            title: joining.title.clone(),
            kind: joining.kind,
            means,
            muted: nothing,
            audio: Flow::default(),
            video: Flow::default(),
            stream: None,
            legs: Vec::new(),
            media_made: 0,
            since: now,
        };
        let user = member.user.clone();
        self.members.insert(key, member);
        let Some(room) = self.rooms.get_mut(&room) else {
            return key;
        };
        let name = room.name.clone();
        let others = room.members.clone();
        room.members.push(key);
        let is_call = room.call.is_some();
        log::info!("room {name}: {user} joined as {key}");
        for other in others.iter().filter(|_| !is_call) {
            let Some(info) = self.member_info(now, *other, key) else {
                continue;
            };
            let event = Event::MemberJoined {
                room: name.clone(),
                member: info,
            };
            self.tell_member(*other, &event);
        }
        key
    }

    pub(super) fn leave_room(
        &mut self,
        now: Instant,
        session: SessionKey,
        name: &Name,
    ) -> Result<Done, No> {
        let Ok(member) = self.member_in(session, name) else {
            self.forget_joins(session, name);
            return Ok(Done::Nothing {});
        };
        let call = self.room_of(member).and_then(|room| room.call);
        match call {
            // The room of a call is the call.
            Some(call) => {
                let by = self.sessions.get(&session).map(|s| s.user.clone());
                self.end_call(now, call, EndReason::Hangup, by, Some(session));
            }
            None => self.remove_member(now, member, LeftReason::Left),
        }
        Ok(Done::Nothing {})
    }

    /// Whoever leaves a room does not want to be let into it any more.
    fn forget_joins(&mut self, session: SessionKey, name: &Name) {
        let joins = |pending: &Pending| match pending {
            Pending::Join {
                session: of, room, ..
            } => *of == session && room == name,
            _ => false,
        };
        let all = self.pending.iter();
        let forgotten: Vec<Ticket> = all
            .filter(|(_, pending)| joins(pending))
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in forgotten {
            if let Some(Pending::Join { id, .. }) = self.pending.remove(&ticket) {
                let text = format!("Room {name} was left before it was joined.");
                self.answer(session, &id, no(Reason::NotInRoom, text));
            }
        }
    }

    /// A member is no more, with all it sends and receives; the others are told.
    pub(super) fn remove_member(&mut self, now: Instant, key: MemberKey, reason: LeftReason) {
        let Some(member) = self.take_member(key) else {
            return;
        };
        let Some(room) = self.rooms.get_mut(&member.room) else {
            return;
        };
        room.members.retain(|other| *other != key);
        let (name, others) = (room.name.clone(), room.members.clone());
        log::info!(
            "room {name}: {} ({key}) {} after {:.1} s",
            member.user,
            reason.as_str(),
            now.duration_since(member.since).as_secs_f64()
        );
        for other in &others {
            self.tokens.forget(key, *other);
            self.tokens.forget(*other, key);
        }
        self.end_watching(&others, key);
        let event = Event::MemberLeft {
            room: name.clone(),
            member: key.name(),
            reason,
        };
        for other in &others {
            self.tell_member(*other, &event);
        }
        self.outputs
            .push_back(Output::EndStream(stream_name(&name, key)));
        if others.is_empty() {
            self.deadlines.arm(
                Owner::Room(member.room),
                Some(now + self.settings.empty_room),
            );
        }
        self.notice(Notice::Left {
            room: name,
            user: member.user,
            member: key.name(),
            reason: reason.as_str(),
            stayed: now.duration_since(member.since),
        });
    }

    /// Takes a member out of everything but its room's list.
    fn take_member(&mut self, key: MemberKey) -> Option<Member> {
        let mut member = self.members.remove(&key)?;
        for peer in std::mem::take(&mut member.legs) {
            self.end_leg(peer, None);
        }
        self.deadlines.disarm(Owner::Member(key));
        self.tokens.forget(key, key);
        if let Some(stream) = member.stream {
            self.streams.remove(&stream);
        }
        self.drop_waiting(key);
        if let Some(session) = self.sessions.get_mut(&member.session) {
            session.member = None;
        }
        Some(member)
    }

    /// A room ends with all its members. `silent` is the session that asked for it.
    pub(super) fn close_room(
        &mut self,
        now: Instant,
        key: RoomKey,
        reason: ClosedReason,
        silent: Option<SessionKey>,
    ) {
        let Some(room) = self.rooms.get(&key) else {
            return;
        };
        let (name, members) = (room.name.clone(), room.members.clone());
        let is_call = room.call.is_some();
        for member in &members {
            for other in &members {
                self.tokens.forget(*member, *other);
            }
        }
        for member in members {
            let Some(gone) = self.take_member(member) else {
                continue;
            };
            self.outputs
                .push_back(Output::EndStream(stream_name(&name, member)));
            if Some(gone.session) != silent {
                let event = Event::RoomClosed {
                    room: name.clone(),
                    reason,
                };
                self.tell(gone.session, &event);
            }
            if !is_call {
                self.notice(Notice::Left {
                    room: name.clone(),
                    user: gone.user,
                    member: member.name(),
                    reason: reason.as_str(),
                    stayed: now.duration_since(gone.since),
                });
            }
        }
        self.drop_room(now, key);
    }

    /// A room has been empty for its time.
    pub(super) fn room_due(&mut self, now: Instant, key: RoomKey) {
        if self
            .rooms
            .get(&key)
            .is_some_and(|room| room.members.is_empty())
        {
            self.drop_room(now, key);
        }
    }

    fn drop_room(&mut self, now: Instant, key: RoomKey) {
        self.deadlines.disarm(Owner::Room(key));
        if let Some(room) = self.rooms.remove(&key) {
            self.room_names.remove(&room.name);
            let after = now.duration_since(room.since).as_secs_f64();
            log::info!("room {}: ended after {after:.1} s", room.name);
        }
    }

    pub(super) fn mute(
        &mut self,
        session: SessionKey,
        name: &Name,
        audio: bool,
        video: bool,
    ) -> Result<Done, No> {
        let key = self.member_in(session, name)?;
        let Some(member) = self.members.get_mut(&key) else {
            return no(Reason::NotInRoom, "This session is not in the room.");
        };
        let muted = Means { audio, video };
        if std::mem::replace(&mut member.muted, muted) != muted {
            let event = Event::MemberMuted {
                room: name.clone(),
                member: key.name(),
                audio,
                video,
            };
            self.tell_others(key, &event);
        }
        Ok(Done::Nothing {})
    }

    /// The membership of a session in the room of this name.
    pub(super) fn member_in(&self, session: SessionKey, name: &Name) -> Result<MemberKey, No> {
        let member = self.sessions.get(&session).and_then(|s| s.member);
        let member = member.filter(|member| {
            let room = self.room_of(*member);
            room.is_some_and(|room| room.name == *name)
        });
        member.ok_or_else(|| {
            let reason = match self.room_names.contains_key(name) {
                true => Reason::NotInRoom,
                false => Reason::NoSuchRoom,
            };
            No(reason, format!("This session is not in room {name}."))
        })
    }

    pub(super) fn room_of(&self, member: MemberKey) -> Option<&Room> {
        self.rooms.get(&self.members.get(&member)?.room)
    }

    pub(super) fn tell_member(&mut self, member: MemberKey, event: &Event) {
        if let Some(session) = self.members.get(&member).map(|member| member.session) {
            self.tell(session, event);
        }
    }

    pub(super) fn tell_others(&mut self, key: MemberKey, event: &Event) {
        let others = self.room_of(key).map(|room| room.members.clone());
        for other in others.unwrap_or_default() {
            if other != key {
                self.tell_member(other, event);
            }
        }
    }

    /// Ends what `members` receive of one that is gone.
    fn end_watching(&mut self, members: &[MemberKey], gone: MemberKey) {
        let legs = members.iter().filter_map(|member| self.members.get(member));
        let legs: Vec<PeerId> = legs
            .flat_map(|member| member.legs.iter().copied())
            .collect();
        for peer in legs {
            if self.legs.get(&peer).is_some_and(|leg| leg.stream == gone) {
                self.end_leg(peer, Some(MediaReason::MemberLeft));
            }
        }
    }
}

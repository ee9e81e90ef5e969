//! What members send and receive: RTMP publishers and players let in by their tokens, WebRTC
//! sessions made by offers on the WebSocket. Each is a *leg* of the member that holds it.

use std::time::{Duration, Instant};

use super::session::Session;
use super::urls::stream_name;
use super::{
    Conversations, MemberKey, Named, No, Offer, Output, Owner, Pending, SessionKey, Ticket,
    TokenError, no,
};
use crate::access;
use crate::ids::{PeerId, StreamId};
use crate::media::TrackKind;
use crate::signaling::ROOM_APP;
use crate::signaling::message::answer::Done;
use crate::signaling::message::event::{Event, MediaReason};
use crate::signaling::message::{Kind, Name, Reason, RequestId};

/// One publisher's or player's session.
#[derive(Debug)]
pub(super) struct Leg {
    /// Whose it is.
    pub(super) holder: MemberKey,
    /// Whose stream it is about; the holder's own if it publishes.
    pub(super) stream: MemberKey,
    /// Its name in messages, if it was made by an offer.
    media: Option<Name>,
}

/// Whether a member's sound or picture flows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flow {
    pub(super) on: bool,
    last: Option<Instant>,
}

/// A `subscribe` to a member from whom nothing flows yet.
#[derive(Debug)]
pub(super) struct Waiting {
    session: SessionKey,
    id: RequestId,
    sdp: String,
    until: Instant,
    /// Sound flows, and the picture has this long to follow.
    release_at: Option<Instant>,
}

impl Conversations {
    /// Whether somebody may publish or play this stream of a room, and who that is.
    ///
    /// # Errors
    /// Who shows no token for it is a stranger.
    pub fn may_enter(
        &mut self,
        now: Instant,
        stream: &str,
        publishes: bool,
        token: Option<&str>,
    ) -> Result<access::Identity, TokenError> {
        let (holder, _) = self.holder_of(now, stream, publishes, token)?;
        let member = self.members.get(&holder).ok_or(TokenError::Invalid)?;
        let session = self.sessions.get(&member.session);
        session.map(Session::identity).ok_or(TokenError::Invalid)
    }

    /// Somebody publishes or plays this stream of a room: it is a leg from now on. The gateway
    /// says [`Self::leg_ended`] when it is over.
    ///
    /// # Errors
    /// As [`Self::may_enter`], which it was asked before.
    pub fn let_in(
        &mut self,
        now: Instant,
        peer: PeerId,
        stream: &str,
        publishes: bool,
        token: Option<&str>,
    ) -> Result<(), TokenError> {
        let (holder, key) = self.holder_of(now, stream, publishes, token)?;
        self.add_leg(peer, holder, key, None);
        Ok(())
    }

    /// Whose token lets somebody publish or play whose stream.
    fn holder_of(
        &mut self,
        now: Instant,
        stream: &str,
        publishes: bool,
        token: Option<&str>,
    ) -> Result<(MemberKey, MemberKey), TokenError> {
        let key = self.member_of_stream(stream).ok_or(TokenError::Invalid)?;
        let holder = self.tokens.use_for(now, token, key, publishes)?;
        Ok((holder, key))
    }

    /// A member publishes on this stream of the hub from now on.
    pub fn publishes(&mut self, peer: PeerId, stream: StreamId) {
        let Some(key) = self.legs.get(&peer).map(|leg| leg.holder) else {
            return;
        };
        let Some(member) = self.members.get_mut(&key) else {
            return;
        };
        if let Some(before) = member.stream.replace(stream) {
            self.streams.remove(&before);
        }
        self.streams.insert(stream, key);
        // Nothing of a browser comes before it is connected, so those that wait can connect
        // meanwhile.
        if matches!(peer, PeerId::Webrtc(_)) {
            self.release_waiting(key);
        }
    }

    /// Whether anything is to be told of a stream of the hub.
    pub fn knows_stream(&self, stream: StreamId) -> bool {
        self.streams.contains_key(&stream)
    }

    /// A frame came.
    pub fn flowed(&mut self, now: Instant, stream: StreamId, kind: TrackKind) {
        let Some(key) = self.streams.get(&stream).copied() else {
            return;
        };
        let Some(member) = self.members.get_mut(&key) else {
            return;
        };
        let flow = match kind {
            TrackKind::Audio => &mut member.audio,
            TrackKind::Video => &mut member.video,
        };
        flow.last = Some(now);
        if std::mem::replace(&mut flow.on, true) {
            return;
        }
        self.deadlines
            .arm(Owner::Member(key), Some(now + self.settings.media_grace));
        self.tell_flow(key);
        self.media_for_waiting(now, key);
    }

    /// A member's media may have stopped.
    pub(super) fn review_flow(&mut self, now: Instant, key: MemberKey) {
        let grace = self.settings.media_grace;
        let Some(member) = self.members.get_mut(&key) else {
            return;
        };
        let mut next: Option<Instant> = None;
        let mut has_stopped = false;
        for flow in [&mut member.audio, &mut member.video] {
            if let (true, Some(last)) = (flow.on, flow.last) {
                let end = last + grace;
                if end <= now {
                    flow.on = false;
                    has_stopped = true;
                } else {
                    next = Some(next.map_or(end, |next| next.min(end)));
                }
            }
        }
        self.deadlines.arm(Owner::Member(key), next);
        if has_stopped {
            self.tell_flow(key);
        }
    }

    fn tell_flow(&mut self, key: MemberKey) {
        let (Some(member), Some(room)) = (self.members.get(&key), self.room_of(key)) else {
            return;
        };
        let event = Event::MemberMedia {
            room: room.name.clone(),
            member: key.name(),
            audio: member.audio.on,
            video: member.video.on,
        };
        log::debug!(
            "room {}: {key} audio {} video {}",
            room.name,
            member.audio.on,
            member.video.on
        );
        self.tell_others(key, &event);
    }

    /// A publisher's or player's session is over, by whatever it was.
    pub fn leg_ended(&mut self, peer: PeerId, reason: MediaReason) {
        let Some(leg) = self.legs.remove(&peer) else {
            return;
        };
        if let Some(member) = self.members.get_mut(&leg.holder) {
            member.legs.retain(|other| *other != peer);
        }
        if let Some(media) = leg.media {
            let event = Event::MediaEnded { media, reason };
            self.tell_member(leg.holder, &event);
        }
    }

    /// Ends a leg; its holder is told if there is a reason to.
    pub(super) fn end_leg(&mut self, peer: PeerId, reason: Option<MediaReason>) {
        let Some(leg) = self.legs.remove(&peer) else {
            return;
        };
        if let Some(member) = self.members.get_mut(&leg.holder) {
            member.legs.retain(|other| *other != peer);
        }
        if let (Some(media), Some(reason)) = (leg.media, reason) {
            let event = Event::MediaEnded { media, reason };
            self.tell_member(leg.holder, &event);
        }
        self.outputs.push_back(Output::End(peer));
    }

    fn add_leg(&mut self, peer: PeerId, holder: MemberKey, stream: MemberKey, media: Option<Name>) {
        let Some(member) = self.members.get_mut(&holder) else {
            return;
        };
        let same = |other: &&PeerId| {
            let leg = self.legs.get(other);
            leg.is_some_and(|leg| leg.stream == stream)
        };
        // A player that comes again has lost its connection, whatever our kernel thinks. A
        // publisher is displaced by the hub.
        let before: Vec<PeerId> = member.legs.iter().filter(same).copied().collect();
        member.legs.push(peer);
        self.legs.insert(
            peer,
            Leg {
                holder,
                stream,
                media,
            },
        );
        let spare = match holder == stream {
            true => 0,
            false => before.len().saturating_sub(SAME_LEGS_MAX - 1),
        };
        for peer in before.into_iter().take(spare) {
            self.end_leg(peer, Some(MediaReason::Replaced));
        }
    }

    pub(super) fn publish(&mut self, session: SessionKey, id: RequestId, room: &Name, sdp: String) {
        let member = self.webrtc_member(session, room);
        match member {
            Ok(member) => self.ask_answer(session, id, member, member, sdp),
            Err(denial) => self.answer(session, &id, Err(denial)),
        }
    }

    pub(super) fn subscribe(
        &mut self,
        now: Instant,
        session: SessionKey,
        id: RequestId,
        room: &Name,
        member: &Name,
        sdp: String,
    ) {
        let found = self.webrtc_member(session, room).and_then(|holder| {
            let stream = self.room_of(holder).and_then(|room| {
                let mut members = room.members.iter().copied();
                members.find(|key| key.name() == *member)
            });
            match stream {
                Some(stream) if stream != holder => Ok((holder, stream)),
                _ => no(
                    Reason::NoSuchMember,
                    format!("There is no other member {member} in the room."),
                ),
            }
        });
        let (holder, stream) = match found {
            Ok(found) => found,
            Err(denial) => return self.answer(session, &id, Err(denial)),
        };
        let is_ready = self.members.get(&stream).is_some_and(|member| {
            let publishes_webrtc = member.legs.iter().any(|peer| {
                let leg = self.legs.get(peer);
                matches!(peer, PeerId::Webrtc(_)) && leg.is_some_and(|leg| leg.stream == stream)
            });
            publishes_webrtc || member.video.on || (member.audio.on && !member.means.video)
        });
        self.drop_one_waiting((stream, holder));
        if is_ready {
            return self.ask_answer(session, id, holder, stream, sdp);
        }
        let wait = self.settings.subscribe_wait;
        if wait.is_zero() {
            let text = format!("Nothing flows from {member} yet.");
            return self.answer(session, &id, Err(No(Reason::NotPublished, text)));
        }
        let until = now + wait;
        self.note_unanswered(session, &id);
        let waiting = Waiting {
            session,
            id,
            sdp,
            until,
            release_at: None,
        };
        self.waiting.insert((stream, holder), waiting);
        self.deadlines
            .arm(Owner::Waiting(stream, holder), Some(until));
        self.media_for_waiting(now, stream);
    }

    /// Something flows from a member: whoever waits for it gets an answer, at once if there is
    /// nothing more to come, else when the picture has had its time.
    fn media_for_waiting(&mut self, now: Instant, stream: MemberKey) {
        let Some(member) = self.members.get(&stream) else {
            return;
        };
        if member.video.on || (member.audio.on && !member.means.video) {
            return self.release_waiting(stream);
        }
        if !member.audio.on {
            return;
        }
        let of_it = (stream, MemberKey(0))..=(stream, MemberKey(u64::MAX));
        for (_, waiting) in self.waiting.range_mut(of_it) {
            waiting.release_at.get_or_insert(now + PICTURE_FOLLOWS);
        }
        let of_it = (stream, MemberKey(0))..=(stream, MemberKey(u64::MAX));
        for ((stream, holder), waiting) in self.waiting.range(of_it) {
            self.deadlines
                .arm(Owner::Waiting(*stream, *holder), waiting.release_at);
        }
    }

    fn release_waiting(&mut self, stream: MemberKey) {
        let of_it = (stream, MemberKey(0))..=(stream, MemberKey(u64::MAX));
        let keys: Vec<_> = self.waiting.range(of_it).map(|(key, _)| *key).collect();
        for key in keys {
            self.release(key);
        }
    }

    fn release(&mut self, key: (MemberKey, MemberKey)) {
        self.deadlines.disarm(Owner::Waiting(key.0, key.1));
        if let Some(waiting) = self.waiting.remove(&key) {
            let Waiting {
                session, id, sdp, ..
            } = waiting;
            self.ask_answer(session, id, key.1, key.0, sdp);
        }
    }

    pub(super) fn waiting_due(&mut self, now: Instant, stream: MemberKey, holder: MemberKey) {
        let key = (stream, holder);
        let Some(waiting) = self.waiting.get(&key) else {
            return;
        };
        if waiting.release_at.is_some_and(|at| at <= now) {
            self.release(key);
        } else if waiting.until <= now {
            self.drop_one_waiting(key);
        } else {
            let next = waiting.release_at.unwrap_or(waiting.until);
            self.deadlines
                .arm(Owner::Waiting(stream, holder), Some(next));
        }
    }

    /// A `subscribe` waits in vain.
    fn drop_one_waiting(&mut self, key: (MemberKey, MemberKey)) {
        self.deadlines.disarm(Owner::Waiting(key.0, key.1));
        if let Some(waiting) = self.waiting.remove(&key) {
            let text = format!("Nothing flows from {}.", key.0);
            let denial = No(Reason::NotPublished, text);
            self.answer(waiting.session, &waiting.id, Err(denial));
        }
    }

    /// Nobody waits for a member that is gone, nor does it wait itself.
    pub(super) fn drop_waiting(&mut self, gone: MemberKey) {
        let keys = self.waiting.keys().copied();
        let keys: Vec<_> = keys
            .filter(|(stream, holder)| *stream == gone || *holder == gone)
            .collect();
        for key in keys {
            self.drop_one_waiting(key);
        }
    }

    fn webrtc_member(&self, session: SessionKey, room: &Name) -> Result<MemberKey, No> {
        let key = self.member_in(session, room)?;
        match self.members.get(&key).map(|member| member.kind) {
            Some(Kind::Webrtc) => Ok(key),
            _ => no(
                Reason::WrongKind,
                "An RTMP member publishes and plays by its URLs.",
            ),
        }
    }

    /// Has the gateway answer an offer.
    fn ask_answer(
        &mut self,
        session: SessionKey,
        id: RequestId,
        holder: MemberKey,
        stream: MemberKey,
        sdp: String,
    ) {
        let Some(room) = self.room_of(holder).map(|room| room.name.clone()) else {
            return;
        };
        let publish = (holder == stream).then(|| {
            // The same for each of its offers: each takes over from the one before.
            format!("member {holder}")
        });
        let pending = Pending::Offer {
            session,
            id,
            holder,
            stream,
        };
        self.note_pending(&pending);
        let ticket = Ticket(self.next_key());
        self.pending.insert(ticket, pending);
        let Some(from) = self.sessions.get(&session) else {
            return;
        };
        let offer = Offer {
            conn: from.conn,
            identity: from.identity(),
            stream: stream_name(&room, stream),
            publish,
            sdp,
        };
        self.outputs.push_back(Output::Offer(ticket, offer));
    }

    /// The gateway's word on an offer: the session that it leads to and the answer, or why there
    /// is none. Answers whether somebody still wants the session; else it is to be ended.
    pub fn offer_answered(
        &mut self,
        ticket: Ticket,
        result: Result<(PeerId, String), (Reason, String)>,
    ) -> bool {
        let Some(Pending::Offer {
            session,
            id,
            holder,
            stream,
        }) = self.pending.remove(&ticket)
        else {
            return false;
        };
        let (peer, answer) = match result {
            Ok(answered) => answered,
            Err((reason, text)) => {
                self.answer(session, &id, Err(No(reason, text)));
                return false;
            }
        };
        let Some(member) = self.members.get_mut(&holder) else {
            let denial = No(Reason::NotInRoom, "The membership is over.".to_owned());
            self.answer(session, &id, Err(denial));
            return false;
        };
        member.media_made += 1;
        let letter = if holder == stream { "p" } else { "s" };
        let media = Name::new(format!("{letter}{}", member.media_made)).expect("fits");
        let before: Vec<PeerId> = member.legs.clone();
        for before in before {
            let leg = self.legs.get(&before);
            if leg.is_some_and(|leg| leg.stream == stream) && holder != stream {
                self.end_leg(before, Some(MediaReason::Replaced));
            }
        }
        self.add_leg(peer, holder, stream, Some(media.clone()));
        self.answer(session, &id, Ok(Done::Media { media, answer }));
        true
    }

    pub(super) fn close_media(&mut self, session: SessionKey, media: &Name) -> Result<Done, No> {
        let member = self.sessions.get(&session).and_then(|s| s.member);
        let legs = member
            .and_then(|member| self.members.get(&member))
            .map_or(&[][..], |member| &member.legs);
        let peer = legs.iter().copied().find(|peer| {
            let leg = self.legs.get(peer);
            leg.is_some_and(|leg| leg.media.as_ref() == Some(media))
        });
        match peer {
            Some(peer) => {
                self.end_leg(peer, None);
                Ok(Done::Nothing {})
            }
            None => no(Reason::NoSuchMedia, format!("There is no media {media}.")),
        }
    }

    /// The member whose stream has this name.
    fn member_of_stream(&self, name: &str) -> Option<MemberKey> {
        let (room, member) = name
            .strip_prefix(ROOM_APP)?
            .strip_prefix('/')?
            .split_once('/')?;
        let room = self.room_names.get(&Name::new(room)?)?;
        let members = &self.rooms.get(room)?.members;
        members
            .iter()
            .copied()
            .find(|key| key.to_string() == member)
    }
}

/// How long a picture may come behind the first sound, before those that wait are answered
/// without knowing its profile.
const PICTURE_FOLLOWS: Duration = Duration::from_millis(300);

/// Bounds what one member plays of one stream: sound and picture apart, and a retry each.
const SAME_LEGS_MAX: usize = 4;

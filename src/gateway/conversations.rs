//! What rooms and calls ask of the rest of the gateway, and what the rest tells them.

mod callbacks;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use super::admission::Admitted;
use super::{Connection, Fate, Gateway, Owner};
use crate::access::{Holder, Refusal, Resource, Right};
use crate::http::Status;
use crate::hub::Patience;
use crate::ids::{PeerId, StreamId};
use crate::media::TrackKind;
use crate::signaling::conversations::{
    Conversations, Decision, Identity, Offer, Output, Question, Ticket,
};
use crate::signaling::message::{Hello, Name, Reason, Title};
use crate::signaling::{ROOM_APP, offer};
pub(super) use callbacks::refused;

impl Gateway {
    /// Does what rooms and calls ask until they ask for nothing more. Nothing may be at work.
    pub(super) fn drive_conversations(&mut self, now: Instant) {
        while let Some(output) = self.conversations.poll_output() {
            match output {
                Output::Send { conn, text } => self.websocket_send(conn, &text),
                Output::Close { conn, reason } => self.websocket_close(conn, reason),
                Output::Ask(ticket, question) => self.ask_member(now, ticket, question),
                Output::Offer(ticket, offer) => self.answer_member(now, ticket, offer),
                Output::End(peer) => self.end_leg(now, peer),
                Output::EndStream(name) => self.end_members_stream(now, &name),
                Output::Notice(notice) => self.tell_notice(notice),
            }
        }
        self.deadlines
            .arm(Owner::Conversations, self.conversations.next_timeout());
    }

    pub(super) fn conversations_due(&mut self, now: Instant) {
        let Self {
            conversations,
            connections,
            sessions,
            ..
        } = self;
        conversations.handle_timeout(now, &|peer| match peer {
            PeerId::Rtmp { conn, .. } => match connections.get(&conn)? {
                Connection::Rtmp(rtmp) => Some(rtmp.moved_at),
                _ => None,
            },
            PeerId::Webrtc(session) => Some(sessions.get(&session)?.heard_at),
        });
    }

    /// Who somebody is, and who may do what: the one place where it is decided.
    fn decide(&mut self, question: &Question) -> Decision {
        let judged = match question {
            Question::Hello { hello, .. } => return self.decide_hello(hello),
            Question::Create { rights, room, .. } | Question::Join { rights, room, .. } => {
                rights.require(Right::Room, Resource::Room(room.as_str()))
            }
            Question::Invite { rights, .. } => rights.require(Right::Call, Resource::Any),
        };
        match judged {
            Ok(()) => Decision::Allowed(None),
            Err(refusal) => self.deny(refusal),
        }
    }

    fn decide_hello(&mut self, hello: &Hello) -> Decision {
        let identity = match self.judge(hello.token.as_deref()) {
            Ok(identity) => identity,
            Err(refusal) => return self.deny(refusal),
        };
        let may = |right| identity.require(right, Resource::Any);
        if let (Err(refusal), Err(_)) = (may(Right::Room), may(Right::Call)) {
            return self.deny(refusal);
        }
        let known = identity.user.clone().and_then(Name::new);
        let user = match (known, &hello.user) {
            (Some(known), Some(wanted)) if known != *wanted => {
                let text = format!("The token is that of {known}, not of {wanted}.");
                return Decision::Denied(Reason::Unauthorized, text);
            }
            (Some(known), _) => known,
            (None, Some(wanted)) => wanted.clone(),
            (None, None) => {
                let text = "Neither the token nor the field user says who this is.";
                return Decision::Denied(Reason::Unauthorized, text.to_owned());
            }
        };
        Decision::Allowed(Some(Identity {
            user,
            title: identity.name.clone().and_then(Title::new),
            rights: identity,
        }))
    }

    fn deny(&mut self, refusal: Refusal) -> Decision {
        self.stats.error(refusal.reason());
        let reason = match refusal {
            Refusal::Expired => Reason::TokenExpired,
            Refusal::Forbidden(_) | Refusal::Reserved => Reason::Forbidden,
            _ => Reason::Unauthorized,
        };
        Decision::Denied(reason, format!("This is refused: {refusal}."))
    }

    /// Whether an RTMP client that shows a token of a room may publish or play a stream of it.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn admit_member(
        &mut self,
        now: Instant,
        right: Right,
        key: &str,
        token: Option<&str>,
    ) -> Result<Admitted, String> {
        let publishes = right == Right::Publish;
        match self.conversations.may_enter(now, key, publishes, token) {
            Ok(identity) => Ok(Admitted {
                holder: Holder::new(token, None),
                identity,
            }),
            Err(error) => {
                self.stats.error(error.reason());
                Err(error.to_string())
            }
        }
    }

    /// How RTMP URLs begin for a client that reached us as `host`.
    pub(super) fn rtmp_base(&self, host: Option<&str>) -> String {
        let rtmp = &self.config.rtmp;
        if !rtmp.public_url.is_empty() {
            return rtmp.public_url.clone();
        }
        let host = host.unwrap_or("localhost");
        // The colons of an IPv6 address stand in brackets.
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        match rtmp.listen.port() {
            RTMP_PORT => format!("rtmp://{name}"),
            port => format!("rtmp://{name}:{port}"),
        }
    }

    /// Answers the offer of a member of a room.
    fn answer_member(&mut self, now: Instant, ticket: Ticket, offer: Offer) {
        let connection = offer.conn.and_then(|conn| self.connections.get(&conn));
        let client = match connection {
            Some(Connection::WebSocket(websocket)) => websocket.peer,
            _ => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        };
        let direction = match offer.publish {
            Some(_) => offer::Direction::Send,
            None => offer::Direction::Receive,
        };
        if let Err(error) = offer::check(offer.sdp.as_bytes(), direction) {
            self.stats.error(error.reason());
            let refusal = (Reason::OfferRefused, error.to_string());
            self.conversations.offer_answered(ticket, Err(refusal));
            return;
        }
        let Offer {
            identity,
            stream,
            publish,
            sdp,
            ..
        } = offer;
        let publishes = publish.is_some();
        let who = Admitted {
            holder: Holder::new(publish.as_deref(), None),
            identity,
        };
        let opened = match publishes {
            true => self.open_publisher(now, client, &stream, who, &sdp),
            false => self.open_viewer(now, client, &stream, who, &sdp),
        };
        match opened {
            Ok(opened) => {
                let peer = PeerId::Webrtc(opened.id);
                let answered = Ok((peer, opened.sdp));
                if !self.conversations.offer_answered(ticket, answered) {
                    self.end_session(now, opened.id, "its member is gone");
                } else if publishes {
                    self.conversations.publishes(peer, opened.stream);
                }
            }
            Err(refused) => {
                let reason = match refused.status {
                    Status::ServiceUnavailable => Reason::TooManySessions,
                    Status::Conflict => Reason::NotPublished,
                    _ => Reason::OfferRefused,
                };
                self.conversations
                    .offer_answered(ticket, Err((reason, refused.text)));
            }
        }
    }

    fn end_leg(&mut self, now: Instant, peer: PeerId) {
        match peer {
            PeerId::Rtmp {
                conn,
                message_stream,
            } => self.with_connection(conn, |gateway, connection| match connection {
                Connection::Rtmp(rtmp) => gateway.rtmp_end_leg(now, rtmp, message_stream),
                _ => Fate::Live,
            }),
            PeerId::Webrtc(session) => self.end_session(now, session, "its member ended it"),
        }
    }

    /// A member is gone: so is its stream.
    fn end_members_stream(&mut self, now: Instant, name: &str) {
        let Some(id) = self.hub.find(name) else {
            return;
        };
        if let Some(stream) = self.hub.get_mut(id) {
            stream.patience = Patience::Over;
        }
        self.reap_stream(now, id);
    }

    /// Whoever plays a member's stream waits for it as long as it is one.
    pub(super) fn keep_members_stream(&mut self, id: StreamId) {
        if let Some(stream) = self.hub.get_mut(id)
            && is_members_stream(&stream.key)
        {
            stream.patience = Patience::Kept;
        }
    }
}

/// What a player got so far, until the conversation it belongs to knows of the first picture
/// and of the first sound.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FirstSent {
    audio: bool,
    video: bool,
}

impl FirstSent {
    pub(super) fn note(
        &mut self,
        conversations: &mut Conversations,
        now: Instant,
        peer: PeerId,
        has_sent: impl Fn(TrackKind) -> bool,
    ) {
        let kinds = [
            (TrackKind::Audio, &mut self.audio),
            (TrackKind::Video, &mut self.video),
        ];
        for (kind, known) in kinds {
            if !*known && has_sent(kind) {
                *known = true;
                conversations.first_sent(now, peer, kind);
            }
        }
    }
}

/// Whether a stream is that of a member of a room: others neither publish nor play it.
pub(super) fn is_members_stream(key: &str) -> bool {
    key.strip_prefix(ROOM_APP)
        .is_some_and(|rest| rest.starts_with('/'))
}

/// The port that RTMP URLs need not name.
const RTMP_PORT: u16 = 1935;

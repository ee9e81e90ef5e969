//! Requests that wait for a callback's answer.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Playing, RtmpConnection};
use crate::access::Right;
use crate::config::CallbackEvent;
use crate::gateway::admission::Admitted;
use crate::gateway::callback::{Asker, Verdict};
use crate::gateway::conversations::is_members_stream;
use crate::gateway::{Fate, Gateway};
use crate::rtmp::command::ConnectInfo;
use crate::rtmp::session::{
    CloseReason, Event, Level, PlayRefusal, PlayRequest, PublishRefusal, PublishRequest,
};
use crate::rtmp::stream_name::StreamName;

/// One request that waits.
pub(super) struct Held {
    /// A NetStream may go on to another request before the answer to its first comes.
    number: u64,
    message_stream: u32,
    request: Request,
    admitted: Admitted,
    /// What a publisher sent without waiting.
    early: Vec<Event>,
    early_bytes: usize,
}

/// What is asked for.
pub(super) enum Request {
    Publish(PublishRequest),
    Play(PlayRequest),
}

impl Request {
    pub(super) fn name(&self) -> &StreamName {
        match self {
            Self::Publish(request) => &request.name,
            Self::Play(request) => &request.name,
        }
    }
}

impl RtmpConnection {
    /// A NetStream goes on to something else: what it waited for is over.
    pub(super) fn release(&mut self, message_stream: u32) {
        self.held
            .retain(|held| held.message_stream != message_stream);
    }

    fn refuse(&mut self, message_stream: u32, request: &Request, why: &str) {
        let key = &request.name().key;
        match request {
            Request::Publish(_) => {
                log::warn!("{}: may not publish {key}: {why}", self.tag());
                let text = format!("Publishing {key} is refused: {why}.");
                self.session
                    .reject_publish(message_stream, PublishRefusal::BadAuth, &text);
            }
            Request::Play(_) => {
                log::warn!("{}: may not play {key}: {why}", self.tag());
                let text = format!("Playing {key} is refused: {why}.");
                self.session
                    .reject_play(message_stream, PlayRefusal::BadAuth, &text);
            }
        }
    }
}

impl Gateway {
    /// Asks whether the connection may be, if anybody is to be asked.
    pub(super) fn rtmp_ask_connect(
        &mut self,
        now: Instant,
        rtmp: &mut RtmpConnection,
        info: &ConnectInfo,
    ) {
        let fields = || {
            json!({
                "protocol": "rtmp",
                "client": rtmp.peer.to_string(),
                "program": info.flash_version,
                "app": info.app,
            })
        };
        let asker = Asker::RtmpConnect(rtmp.conn);
        let asked = self.ask_callback(now, CallbackEvent::Connect, fields, asker);
        rtmp.is_asked_about = asked.is_none();
    }

    /// Judges a request by its token, then asks, then begins.
    pub(super) fn rtmp_request(
        &mut self,
        now: Instant,
        rtmp: &mut RtmpConnection,
        message_stream: u32,
        request: Request,
    ) {
        let right = match request {
            Request::Publish(_) => Right::Publish,
            Request::Play(_) => Right::Play,
        };
        let name = request.name();
        let judged = match is_members_stream(&name.key) {
            true => self.admit_member(now, right, &name.key, name.token()),
            false => self
                .admit(right, &name.key, name.token())
                .map_err(|refusal| refusal.to_string()),
        };
        let admitted = match judged {
            Ok(admitted) => admitted,
            Err(refusal) => {
                rtmp.refuse(message_stream, &request, &refusal);
                return;
            }
        };
        rtmp.held_made += 1;
        let number = rtmp.held_made;
        rtmp.held.push(Held {
            number,
            message_stream,
            request,
            admitted,
            early: Vec::new(),
            early_bytes: 0,
        });
        if !rtmp.is_asked_about {
            self.rtmp_ask_stream(now, rtmp, number);
        }
    }

    fn rtmp_ask_stream(&mut self, now: Instant, rtmp: &mut RtmpConnection, number: u64) {
        let mut all = rtmp.held.iter();
        let Some(held) = all.find(|held| held.number == number) else {
            return;
        };
        // Members of rooms were asked about when they joined or called.
        if is_members_stream(&held.request.name().key) {
            self.rtmp_let_in(now, rtmp, number);
            return;
        }
        let event = match held.request {
            Request::Publish(_) => CallbackEvent::Publish,
            Request::Play(_) => CallbackEvent::Play,
        };
        let fields = || {
            let info = rtmp.session.connect_info();
            json!({
                "protocol": "rtmp",
                "client": rtmp.peer.to_string(),
                "program": info.and_then(|info| info.flash_version.as_deref()),
                "user": held.admitted.identity.user,
                "stream": held.request.name().key,
                "token": held.request.name().token(),
            })
        };
        let asker = Asker::RtmpStream(rtmp.conn, number);
        if self.ask_callback(now, event, fields, asker).is_some() {
            self.rtmp_let_in(now, rtmp, number);
        }
    }

    /// A NetStream may begin what it asked for; answers whether it has begun.
    fn rtmp_let_in(&mut self, now: Instant, rtmp: &mut RtmpConnection, number: u64) -> bool {
        let Some(at) = rtmp.held.iter().position(|held| held.number == number) else {
            return false;
        };
        let held = rtmp.held.swap_remove(at);
        let message_stream = held.message_stream;
        match held.request {
            Request::Publish(request) => {
                let begun = self.rtmp_publish(now, rtmp, message_stream, request, held.admitted);
                for event in held.early {
                    self.rtmp_media(now, rtmp, event);
                }
                begun
            }
            Request::Play(request) => {
                let user = held.admitted.identity.user;
                self.rtmp_play(now, rtmp, message_stream, request, user)
            }
        }
    }

    /// The answer about a connection.
    pub(in crate::gateway) fn rtmp_connect_judged(
        &mut self,
        now: Instant,
        rtmp: &mut RtmpConnection,
        verdict: Verdict,
    ) -> Fate {
        rtmp.is_asked_about = false;
        match verdict {
            Verdict::Allowed => {
                let waiting: Vec<u64> = rtmp.held.iter().map(|held| held.number).collect();
                for number in waiting {
                    self.rtmp_ask_stream(now, rtmp, number);
                }
            }
            Verdict::Refused(why) => {
                log::warn!("{}: may not connect: {why}", rtmp.tag());
                let text = format!("Connecting is refused: {why}.");
                rtmp.held.clear();
                let code = "NetConnection.Connect.Rejected";
                rtmp.session.send_status(0, Level::Error, code, &text);
                rtmp.session.close(CloseReason::Kicked(&text));
            }
        }
        self.rtmp_events(now, rtmp)
    }

    /// The answer about a request of a NetStream, which may have gone on to something else;
    /// answers whether it has begun.
    pub(in crate::gateway) fn rtmp_stream_judged(
        &mut self,
        now: Instant,
        rtmp: &mut RtmpConnection,
        number: u64,
        verdict: Verdict,
    ) -> bool {
        match verdict {
            Verdict::Allowed => self.rtmp_let_in(now, rtmp, number),
            Verdict::Refused(why) => {
                let is_it = |held: &Held| held.number == number;
                if let Some(at) = rtmp.held.iter().position(is_it) {
                    let held = rtmp.held.swap_remove(at);
                    rtmp.refuse(held.message_stream, &held.request, &why);
                }
                false
            }
        }
    }

    /// Keeps the media of a publisher that does not wait to be let in, within bounds; answers
    /// the event back if it is not to be kept.
    pub(super) fn rtmp_hold_media(
        &mut self,
        rtmp: &mut RtmpConnection,
        event: Event,
    ) -> Option<Event> {
        let (message_stream, bytes) = match &event {
            Event::Video {
                stream_id, payload, ..
            }
            | Event::Audio {
                stream_id, payload, ..
            } => (*stream_id, payload.len()),
            _ => return Some(event),
        };
        let is_it = |held: &Held| held.message_stream == message_stream;
        let Some(at) = rtmp.held.iter().position(is_it) else {
            return Some(event);
        };
        let held = &mut rtmp.held[at];
        held.early_bytes += bytes;
        if held.early.len() < EARLY_MESSAGES_MAX && held.early_bytes <= EARLY_BYTES_MAX {
            held.early.push(event);
        } else {
            let held = rtmp.held.swap_remove(at);
            self.stats.error("publish_too_early");
            let why = "too much was sent before it was let in";
            rtmp.refuse(message_stream, &held.request, why);
        }
        None
    }

    /// A NetStream that played is over.
    pub(super) fn rtmp_play_ended(
        &mut self,
        now: Instant,
        rtmp: &RtmpConnection,
        playing: &Playing,
    ) {
        rtmp.tell_end(now, playing);
        let client = rtmp.peer.to_string();
        let after = now.duration_since(playing.since);
        if !is_members_stream(&playing.key) {
            self.notify_callback(CallbackEvent::Stop, || {
                let user = playing.user.as_deref();
                stopped("rtmp", &client, user, &playing.key, after)
            });
        }
    }
}

/// What is told of a player that left.
pub(in crate::gateway) fn stopped(
    protocol: &str,
    client: &str,
    user: Option<&str>,
    key: &str,
    after: Duration,
) -> Value {
    json!({
        "protocol": protocol,
        "client": client,
        "user": user,
        "stream": key,
        "duration_ms": after.as_millis() as u64,
    })
}

/// Messages that a publisher may send before it is let in: some seconds of both tracks.
const EARLY_MESSAGES_MAX: usize = 512;

/// Bytes of them: a large key frame and what follows it.
const EARLY_BYTES_MAX: usize = 4 << 20;

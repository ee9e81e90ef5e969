//! Requests that wait for a callback's answer.

use std::time::Instant;

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
        rtmp.held.push(Held {
            message_stream,
            request,
            admitted,
            early: Vec::new(),
            early_bytes: 0,
        });
        if !rtmp.is_asked_about {
            self.rtmp_ask_stream(now, rtmp, message_stream);
        }
    }

    fn rtmp_ask_stream(&mut self, now: Instant, rtmp: &mut RtmpConnection, message_stream: u32) {
        let mut all = rtmp.held.iter();
        let Some(held) = all.find(|held| held.message_stream == message_stream) else {
            return;
        };
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
        let asker = Asker::RtmpStream(rtmp.conn, message_stream);
        if self.ask_callback(now, event, fields, asker).is_some() {
            self.rtmp_let_in(now, rtmp, message_stream);
        }
    }

    /// A NetStream may begin what it asked for.
    fn rtmp_let_in(&mut self, now: Instant, rtmp: &mut RtmpConnection, message_stream: u32) {
        let is_it = |held: &Held| held.message_stream == message_stream;
        let Some(at) = rtmp.held.iter().position(is_it) else {
            return;
        };
        let held = rtmp.held.swap_remove(at);
        match held.request {
            Request::Publish(request) => {
                self.rtmp_publish(now, rtmp, message_stream, request, held.admitted);
                for event in held.early {
                    self.rtmp_media(now, rtmp, event);
                }
            }
            Request::Play(request) => self.rtmp_play(now, rtmp, message_stream, request),
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
                let waiting: Vec<u32> = rtmp.held.iter().map(|h| h.message_stream).collect();
                for message_stream in waiting {
                    self.rtmp_ask_stream(now, rtmp, message_stream);
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

    /// The answer about a NetStream. It may have gone on to something else.
    pub(in crate::gateway) fn rtmp_stream_judged(
        &mut self,
        now: Instant,
        rtmp: &mut RtmpConnection,
        message_stream: u32,
        verdict: Verdict,
    ) -> Fate {
        match verdict {
            Verdict::Allowed => self.rtmp_let_in(now, rtmp, message_stream),
            Verdict::Refused(why) => {
                let is_it = |held: &Held| held.message_stream == message_stream;
                if let Some(at) = rtmp.held.iter().position(is_it) {
                    let held = rtmp.held.swap_remove(at);
                    rtmp.refuse(message_stream, &held.request, &why);
                }
            }
        }
        self.rtmp_events(now, rtmp)
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
        self.notify_callback(CallbackEvent::Stop, || {
            stopped("rtmp", &client, &playing.key, after.as_millis() as u64)
        });
    }
}

/// What is told of a player that left.
pub(in crate::gateway) fn stopped(
    protocol: &str,
    client: &str,
    key: &str,
    duration_ms: u64,
) -> Value {
    json!({
        "protocol": protocol,
        "client": client,
        "stream": key,
        "duration_ms": duration_ms,
    })
}

/// Messages that a publisher may send before it is let in: some seconds of both tracks.
const EARLY_MESSAGES_MAX: usize = 512;

/// Bytes of them: a large key frame and what follows it.
const EARLY_BYTES_MAX: usize = 4 << 20;

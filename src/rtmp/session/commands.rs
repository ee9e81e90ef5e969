//! What a client asks for, and what it is answered without a decision.

use std::time::Instant;

use super::{
    Error, Event, Level, NetStream, PlayRefusal, PlayRequest, PublishRefusal, PublishRequest, Role,
    Session, State, reply,
};
use crate::rtmp::amf0::Value;
use crate::rtmp::command::{Command, ConnectInfo, PlayStart, PublishKind, Request};
use crate::rtmp::message::Message;
use crate::rtmp::stream_name::{QUERY_BYTES_MAX, StreamName, StreamNameError};

impl Session {
    pub(super) fn on_command(&mut self, now: Instant, message: &Message) -> Result<(), Error> {
        let command = Command::decode(message, self.limits.amf)?;
        let transaction_id = command.transaction_id;
        let request = match (command.request(), &self.state) {
            (Request::Connect(info), State::Connecting) => {
                return self.on_connect(now, transaction_id, *info);
            }
            (request, State::Connected(_)) => request,
            _ => {
                return Err(Error::NotConnected {
                    type_id: message.type_id,
                });
            }
        };
        let stream_id = message.stream_id;
        match request {
            Request::CreateStream => self.on_create_stream(transaction_id),
            Request::Publish { name, kind } => self.on_publish(now, stream_id, &name, kind),
            Request::Play { name, start, reset } => {
                self.on_play(now, stream_id, &name, start, reset);
            }
            Request::CloseStream => self.stop(now, stream_id),
            Request::DeleteStream { stream_id: named } => {
                let stream_id = named.unwrap_or(stream_id);
                self.stop(now, stream_id);
                self.streams.retain(|stream| stream.id != stream_id);
            }
            Request::ReceiveAudio { on } => self.on_receive_audio(stream_id, on),
            Request::ReceiveVideo { on } => self.on_receive_video(stream_id, on),
            Request::Pause { on } => self.on_pause(stream_id, on),
            Request::Seek { .. } => self.on_seek(stream_id),
            Request::ReleaseStream { .. } | Request::CheckBandwidth => {
                self.answer(transaction_id, Value::Undefined);
            }
            Request::FcPublish { .. } => {
                self.calls_back_fc_publish = true;
                self.answer(transaction_id, Value::Undefined);
            }
            Request::FcUnpublish { name } => self.on_fc_unpublish(now, transaction_id, &name),
            Request::FcSubscribe { .. } => {
                self.answer(transaction_id, Value::Undefined);
                let code = "NetStream.Play.Start";
                let text = "Started playing stream.";
                self.command(
                    0,
                    &reply::notice("onFCSubscribe", Level::Status, code, text),
                );
            }
            // A live stream has no length.
            Request::GetStreamLength => self.answer(transaction_id, Value::Number(0.0)),
            Request::Reply => {}
            Request::Connect(_) => self.refuse(transaction_id, "Connected already."),
            Request::Unknown => {
                self.stats.commands_unknown += 1;
                self.refuse(transaction_id, "No such procedure.");
            }
        }
        Ok(())
    }

    fn on_connect(
        &mut self,
        now: Instant,
        transaction_id: f64,
        info: ConnectInfo,
    ) -> Result<(), Error> {
        let url_bytes = info.tc_url.as_ref().map_or(0, String::len);
        if info.app.len() > QUERY_BYTES_MAX || url_bytes > QUERY_BYTES_MAX {
            return Err(Error::AddressTooLong);
        }
        if let Some(description) = self.refusal.take() {
            self.command(0, &reply::connect_rejected(transaction_id, &description));
            self.finish("connect_refused");
            return Ok(());
        }
        self.queue_windows();
        self.command(
            0,
            &reply::connect_result(transaction_id, &info, self.limits.announce_enhanced),
        );
        self.events
            .push_back(Event::Connect(Box::new(info.clone())));
        self.state = State::Connected(Box::new(info));
        self.arm(now);
        Ok(())
    }

    fn on_create_stream(&mut self, transaction_id: f64) {
        match self.create_stream(0) {
            Some(stream_id) => {
                let value = Value::Number(f64::from(stream_id));
                self.command(0, &reply::result(transaction_id, value));
            }
            None => {
                self.note_refusal(TOO_MANY_STREAMS);
                self.refuse(transaction_id, "Too many streams.");
            }
        }
    }

    fn on_publish(&mut self, now: Instant, stream_id: u32, raw_name: &str, kind: PublishKind) {
        let Some(stream_id) = self.take_stream(now, stream_id, raw_name) else {
            let code = PublishRefusal::Failed.code();
            self.send_status(stream_id, Level::Error, code, "Too many streams.");
            self.note_refusal(TOO_MANY_STREAMS);
            return;
        };
        self.set_role(stream_id, Role::PublishAsked);
        self.arm(now);
        match self.resolve(raw_name) {
            Ok(name) => {
                self.count_request(stream_id);
                self.events.push_back(Event::Publish {
                    stream_id,
                    request: Box::new(PublishRequest { name, kind }),
                });
            }
            Err(error) => {
                self.note_refusal(error.reason());
                self.refuse_publish(stream_id, PublishRefusal::BadName, &error.to_string());
            }
        }
    }

    fn on_play(
        &mut self,
        now: Instant,
        stream_id: u32,
        raw_name: &str,
        start: PlayStart,
        reset: bool,
    ) {
        let Some(stream_id) = self.take_stream(now, stream_id, raw_name) else {
            let code = PlayRefusal::Failed.code();
            self.send_status(stream_id, Level::Error, code, "Too many streams.");
            self.note_refusal(TOO_MANY_STREAMS);
            return;
        };
        self.set_role(stream_id, Role::PlayAsked { reset });
        self.arm(now);
        let name = match self.resolve(raw_name) {
            Ok(name) => name,
            Err(error) => {
                self.note_refusal(error.reason());
                self.refuse_play(stream_id, PlayRefusal::StreamNotFound, &error.to_string());
                return;
            }
        };
        self.count_request(stream_id);
        let Some(stream) = self.stream_mut(stream_id) else {
            return;
        };
        let request = Box::new(PlayRequest {
            name,
            start,
            receive_audio: stream.receive_audio,
            receive_video: stream.receive_video,
        });
        self.events.push_back(Event::Play { stream_id, request });
    }

    /// FMLE, OBS and ffmpeg send it before deleteStream; what it names is over.
    fn on_fc_unpublish(&mut self, now: Instant, transaction_id: f64, raw_name: &str) {
        let code = "NetStream.Unpublish.Success";
        let text = "Stopped publishing.";
        if self.calls_back_fc_publish {
            self.command(
                0,
                &reply::notice("onFCUnpublish", Level::Status, code, text),
            );
        }
        self.answer(transaction_id, Value::Undefined);
        let named = self
            .streams
            .iter()
            .find(|stream| stream.role.is_publisher() && *stream.raw_name == *raw_name)
            .map(|stream| stream.id);
        if let Some(stream_id) = named {
            self.stop(now, stream_id);
        }
    }

    /// Section 7.2.2.4: a stream that is wanted again is announced anew.
    fn on_receive_audio(&mut self, stream_id: u32, on: bool) {
        let Some(stream) = self.stream_mut(stream_id) else {
            return;
        };
        let was_on = std::mem::replace(&mut stream.receive_audio, on);
        if was_on != on && stream.role.is_player() {
            self.events.push_back(Event::ReceiveAudio { stream_id, on });
            self.tell_of_resumption(stream_id, on);
        }
    }

    /// Section 7.2.2.5, as above.
    fn on_receive_video(&mut self, stream_id: u32, on: bool) {
        let Some(stream) = self.stream_mut(stream_id) else {
            return;
        };
        let was_on = std::mem::replace(&mut stream.receive_video, on);
        if was_on != on && stream.role.is_player() {
            self.events.push_back(Event::ReceiveVideo { stream_id, on });
            self.tell_of_resumption(stream_id, on);
        }
    }

    fn tell_of_resumption(&mut self, stream_id: u32, on: bool) {
        if on && self.role(stream_id) == Some(Role::Playing) {
            self.on_seek(stream_id);
            let text = "Started playing stream.";
            self.send_status(stream_id, Level::Status, "NetStream.Play.Start", text);
        }
    }

    /// Section 7.2.2.8.
    fn on_pause(&mut self, stream_id: u32, on: bool) {
        if !self.role(stream_id).is_some_and(Role::is_player) {
            return;
        }
        self.events.push_back(Event::Pause { stream_id, on });
        let (code, text) = if on {
            ("NetStream.Pause.Notify", "Paused.")
        } else {
            ("NetStream.Unpause.Notify", "Resumed.")
        };
        self.send_status(stream_id, Level::Status, code, text);
    }

    /// Section 7.2.2.7. A live stream has one position. ffplay drops everything until it is told
    /// that its seek is done, so it is.
    fn on_seek(&mut self, stream_id: u32) {
        if self.role(stream_id).is_some_and(Role::is_player) {
            let text = "The stream is live and goes on.";
            self.send_status(stream_id, Level::Status, "NetStream.Seek.Notify", text);
        }
    }

    /// The NetStream for a publish or play on `stream_id`, free of what it did before.
    ///
    /// Some clients do not wait for the answer to createStream, or never ask, and name the
    /// connection itself (0) or a number of their own.
    fn take_stream(&mut self, now: Instant, stream_id: u32, raw_name: &str) -> Option<u32> {
        let known = if stream_id == 0 {
            let mut idle = self.streams.iter().filter(|s| s.role == Role::Idle);
            idle.next_back().map(|stream| stream.id)
        } else {
            let mut streams = self.streams.iter();
            streams.find(|s| s.id == stream_id).map(|s| s.id)
        };
        let stream_id = match known {
            Some(stream_id) => stream_id,
            None => self.create_stream(stream_id)?,
        };
        self.stop(now, stream_id);
        self.stream_mut(stream_id)?.raw_name = raw_name.into();
        Some(stream_id)
    }

    /// A new NetStream with the ID `wanted`, or the lowest free one for 0, so that a connection
    /// that publishes again gets the same one. `None` at the limit.
    fn create_stream(&mut self, wanted: u32) -> Option<u32> {
        if self.streams.len() >= self.limits.net_streams_max {
            return None;
        }
        let is_free = |id: &u32| self.streams.iter().all(|stream| stream.id != *id);
        let id = if wanted == 0 {
            (1..=u32::MAX).find(is_free)?
        } else {
            Some(wanted).filter(is_free)?
        };
        self.streams.push(NetStream {
            id,
            role: Role::Idle,
            request: 0,
            raw_name: Box::default(),
            receive_audio: true,
            receive_video: true,
        });
        Some(id)
    }

    fn count_request(&mut self, stream_id: u32) {
        self.requests.queued += 1;
        let request = self.requests.queued;
        if let Some(stream) = self.stream_mut(stream_id) {
            stream.request = request;
        }
    }

    /// Ends what a NetStream does.
    fn stop(&mut self, now: Instant, stream_id: u32) {
        let Some(role) = self.role(stream_id) else {
            return;
        };
        if role.is_publisher() {
            self.events.push_back(Event::Unpublish { stream_id });
            let text = "Stopped publishing.";
            self.send_status(
                stream_id,
                Level::Status,
                "NetStream.Unpublish.Success",
                text,
            );
        } else if role.is_player() {
            self.events.push_back(Event::StopPlay { stream_id });
        } else {
            return;
        }
        self.set_role(stream_id, Role::Idle);
        self.arm(now);
    }

    fn resolve(&self, raw_name: &str) -> Result<StreamName, StreamNameError> {
        let Some(info) = self.connect_info() else {
            return Err(StreamNameError::MissingApp);
        };
        StreamName::resolve(info.tc_url.as_deref(), &info.app, raw_name)
    }

    /// `_result`, if the client expects an answer.
    fn note_refusal(&mut self, reason: &'static str) {
        self.events.push_back(Event::Refused { reason });
    }

    fn answer(&mut self, transaction_id: f64, value: Value) {
        if transaction_id != 0.0 {
            self.command(0, &reply::result(transaction_id, value));
        }
    }

    /// `_error`, if the client expects an answer.
    fn refuse(&mut self, transaction_id: f64, description: &str) {
        if transaction_id != 0.0 {
            let code = "NetConnection.Call.Failed";
            self.command(0, &reply::error(transaction_id, code, description));
        }
    }
}

/// The reason of a refusal past [`Limits::net_streams_max`](super::Limits::net_streams_max).
const TOO_MANY_STREAMS: &str = "net_streams_max";

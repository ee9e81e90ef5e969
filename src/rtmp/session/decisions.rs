//! What the gateway decides: the methods of [`Session`] that it calls on its own account.

use super::{
    COMMAND_CSID, CloseReason, Event, Level, PlayRefusal, PublishRefusal, Role, Session, reply,
};
use crate::rtmp::command::Command;
use crate::rtmp::message::{Control, UserControl};

/// Each does nothing when the NetStream is not in the state that it is meant for: the peer may
/// have gone on since the event. A decision is about the request whose event was polled last for
/// the NetStream, never about one that is still queued.
impl Session {
    /// Will not have this peer: its connect is going to be answered by
    /// `NetConnection.Connect.Rejected` with `description`, and the session ends.
    ///
    /// For peers that are known to be unwelcome when they are accepted; a connect
    /// that was answered already stands.
    pub fn refuse_connect(&mut self, description: &str) {
        self.refusal = Some(description.into());
    }

    /// The peer may publish on `stream_id`.
    pub fn accept_publish(&mut self, stream_id: u32) {
        if self.decided_role(stream_id) != Some(Role::PublishAsked) {
            return;
        }
        self.set_role(stream_id, Role::Publishing);
        if self.calls_back_fc_publish {
            let code = "NetStream.Publish.Start";
            let callback = reply::notice("onFCPublish", Level::Status, code, STARTED_PUBLISHING);
            self.command(stream_id, &callback);
        }
        self.send_status(
            stream_id,
            Level::Status,
            "NetStream.Publish.Start",
            STARTED_PUBLISHING,
        );
    }

    /// The peer may not publish, or no longer, on `stream_id`. It is told why, and the
    /// session ends unless another NetStream of it is in use.
    pub fn reject_publish(&mut self, stream_id: u32, refusal: PublishRefusal, description: &str) {
        if !self.decided_role(stream_id).is_some_and(Role::is_publisher) {
            return;
        }
        self.forget_media(stream_id);
        self.refuse_publish(stream_id, refusal, description);
    }

    /// The peer may play on `stream_id`, or the publisher that it was held for has come: what
    /// is sent by [`send_shared`](Self::send_shared) from now on reaches it.
    pub fn accept_play(&mut self, stream_id: u32) {
        match self.decided_role(stream_id) {
            Some(Role::PlayAsked { reset }) => self.begin_play(stream_id, reset),
            Some(Role::Held) => self.send_status(
                stream_id,
                Level::Status,
                "NetStream.Play.PublishNotify",
                "Stream is now published.",
            ),
            _ => return,
        }
        // No data messages here, though Flash servers sent two: ffmpeg 5.1 shows them as a stream
        // `Data: none` that carries nothing.
        self.set_role(stream_id, Role::Playing);
    }

    /// The publisher of a held player has come: the same as
    /// [`accept_play`](Self::accept_play) for a player that is held.
    pub fn publish_notify(&mut self, stream_id: u32) {
        if self.decided_role(stream_id) == Some(Role::Held) {
            self.accept_play(stream_id);
        }
    }

    /// Nobody publishes yet what the peer wants to play: it is told that it plays, so that it
    /// waits.
    pub fn hold_play(&mut self, stream_id: u32) {
        if let Some(Role::PlayAsked { reset }) = self.decided_role(stream_id) {
            self.begin_play(stream_id, reset);
            self.set_role(stream_id, Role::Held);
        }
    }

    /// The peer may not play, or no longer, on `stream_id`. It is told why, and the session ends
    /// unless another NetStream of it is in use.
    pub fn reject_play(&mut self, stream_id: u32, refusal: PlayRefusal, description: &str) {
        if !self.decided_role(stream_id).is_some_and(Role::is_player) {
            return;
        }
        self.refuse_play(stream_id, refusal, description);
    }

    /// The publisher is gone: ffmpeg and rtmpdump exit when they hear it. A player that stays
    /// is held for the next publisher.
    pub fn unpublish_notify(&mut self, stream_id: u32) {
        if !matches!(
            self.decided_role(stream_id),
            Some(Role::Playing | Role::Held)
        ) {
            return;
        }
        // StreamEOF alone is not enough: both programs would wait for the TCP timeout.
        self.queue(&Control::User(UserControl::StreamEof(stream_id)).to_message());
        self.send_status(
            stream_id,
            Level::Status,
            "NetStream.Play.UnpublishNotify",
            "Stream is no longer published.",
        );
        self.send_status(
            stream_id,
            Level::Status,
            "NetStream.Play.Stop",
            "Stopped playing.",
        );
        self.set_role(stream_id, Role::Held);
    }

    /// Sends an onStatus; `stream_id` 0 is the connection itself. For what has no method
    /// of its own, such as a warning that a track is not carried.
    pub fn send_status(&mut self, stream_id: u32, level: Level, code: &str, description: &str) {
        if !self.is_closed() {
            self.command(stream_id, &reply::status(level, code, description));
        }
    }

    /// Ends the session: players are told that their stream is over, publishers why they have
    /// to stop. What is queued is to be flushed before the connection is closed.
    pub fn close(&mut self, reason: CloseReason<'_>) {
        if self.is_closed() {
            return;
        }
        if reason == CloseReason::ShuttingDown
            && self.connect_info().is_some_and(|info| info.can_reconnect())
        {
            self.send_status(
                0,
                Level::Status,
                "NetConnection.Connect.ReconnectRequest",
                "The server is shutting down.",
            );
        }
        let roles: Vec<_> = self.streams.iter().map(|s| (s.id, s.role)).collect();
        for (stream_id, role) in roles {
            match role {
                Role::Idle => {}
                Role::PublishAsked | Role::Publishing => {
                    self.tell_publisher_of_end(stream_id, reason);
                }
                Role::PlayAsked { .. } => {
                    let code = PlayRefusal::Failed.code();
                    self.send_status(stream_id, Level::Error, code, description(reason));
                }
                Role::Held | Role::Playing => self.unpublish_notify(stream_id),
            }
        }
        self.finish(reason.reason());
    }

    fn tell_publisher_of_end(&mut self, stream_id: u32, reason: CloseReason<'_>) {
        let (level, code) = match reason {
            CloseReason::Finished => (Level::Status, "NetStream.Unpublish.Success"),
            CloseReason::Replaced => (Level::Error, PublishRefusal::BadName.code()),
            CloseReason::ShuttingDown => (Level::Error, "NetConnection.Connect.AppShutdown"),
            CloseReason::Kicked(_) => (Level::Error, PublishRefusal::Failed.code()),
        };
        self.send_status(stream_id, level, code, description(reason));
    }

    /// StreamBegin and the two statuses that players wait for.
    fn begin_play(&mut self, stream_id: u32, reset: bool) {
        self.queue(&Control::User(UserControl::StreamBegin(stream_id)).to_message());
        if reset {
            self.send_status(
                stream_id,
                Level::Status,
                "NetStream.Play.Reset",
                "Playing and resetting stream.",
            );
        }
        self.send_status(
            stream_id,
            Level::Status,
            "NetStream.Play.Start",
            "Started playing stream.",
        );
    }

    pub(super) fn refuse_publish(
        &mut self,
        stream_id: u32,
        refusal: PublishRefusal,
        description: &str,
    ) {
        self.send_status(stream_id, Level::Error, refusal.code(), description);
        self.drop_role(stream_id, refusal.reason());
    }

    pub(super) fn refuse_play(&mut self, stream_id: u32, refusal: PlayRefusal, description: &str) {
        self.send_status(stream_id, Level::Error, refusal.code(), description);
        self.drop_role(stream_id, refusal.reason());
    }

    /// Takes back what is queued of a refused publisher.
    fn forget_media(&mut self, stream_id: u32) {
        self.events.retain(|event| match event {
            Event::Video { stream_id: id, .. }
            | Event::Audio { stream_id: id, .. }
            | Event::Metadata { stream_id: id, .. } => *id != stream_id,
            _ => true,
        });
    }

    /// Takes a refused NetStream out of use.
    fn drop_role(&mut self, stream_id: u32, reason: &'static str) {
        self.set_role(stream_id, Role::Idle);
        if self.streams.iter().all(|stream| stream.role == Role::Idle) {
            self.finish(reason);
        } else {
            // Something is in use, so the time of the last sign of life is what counts.
            self.arm(self.life.last_sign);
        }
    }

    pub(super) fn finish(&mut self, reason: &'static str) {
        self.end();
        self.events.push_back(Event::Closed { reason });
    }

    pub(super) fn set_role(&mut self, stream_id: u32, role: Role) {
        if let Some(stream) = self.stream_mut(stream_id) {
            stream.role = role;
        }
    }

    pub(super) fn command(&mut self, stream_id: u32, command: &Command) {
        self.reply(&command.to_message(COMMAND_CSID, stream_id));
    }
}

fn description(reason: CloseReason<'_>) -> &str {
    match reason {
        CloseReason::ShuttingDown => "The server is shutting down.",
        CloseReason::Replaced => "Another publisher took over the stream.",
        CloseReason::Kicked(text) => text,
        CloseReason::Finished => "The stream is over.",
    }
}

const STARTED_PUBLISHING: &str = "Started publishing stream.";

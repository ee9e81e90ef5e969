//! The HTTP port: the page, the API, WHIP and WHEP.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;

use super::admission::Admitted;
use super::callback::{Asker, Verdict};
use super::conversations::is_members_stream;
use super::{Drain, Fate, Gateway, StreamId};
use crate::access::Right;
use crate::config::CallbackEvent;
use crate::http::{self, Limits, Request, Response, Status, websocket};
use crate::hub::{Announced, ClaimError, Publisher};
use crate::ids::{ConnId, PeerId, SessionId};
use crate::media::{TrackConfig, TrackKind};
use crate::signaling::message::event::MediaReason;
use crate::signaling::{Action, EntityTag, Patch, PatchKind, Route, Token, answer};
use crate::webrtc::{Params, Role};

/// One HTTP connection.
pub(super) struct HttpConnection {
    pub(super) conn: ConnId,
    pub(super) session: http::Session,
    pub(super) peer: SocketAddr,
    /// The answer that makes it a WebSocket, and how RTMP URLs for its client begin.
    pub(super) upgrade: Option<(Response, String)>,
}

impl Gateway {
    pub(super) fn http_accepted(
        &mut self,
        now: Instant,
        conn: ConnId,
        peer: SocketAddr,
    ) -> HttpConnection {
        self.stats.session("http");
        let http = &self.config.http;
        let limits = Limits {
            head_bytes_max: http.head_bytes_max,
            body_bytes_max: http.body_bytes_max,
            head_timeout: http.request_timeout,
            body_timeout: http.request_timeout,
            keep_alive_timeout: http.keep_alive_timeout,
            ..Limits::default()
        };
        HttpConnection {
            conn,
            session: http::Session::new(limits, now),
            peer,
            upgrade: None,
        }
    }

    pub(super) fn http_received(
        &mut self,
        now: Instant,
        http: &mut HttpConnection,
        bytes: &[u8],
    ) -> Fate {
        let result = http.session.receive(now, bytes);
        self.http_requests(now, http, result)
    }

    pub(super) fn http_timeout(&mut self, now: Instant, http: &mut HttpConnection) -> Fate {
        let result = http.session.handle_timeout(now);
        self.http_requests(now, http, result)
    }

    /// The connection took some bytes: a request that was held back may go on.
    pub(super) fn http_transmitted(&mut self, now: Instant, http: &mut HttpConnection) -> Fate {
        self.http_requests(now, http, Ok(()))
    }

    fn http_requests(
        &mut self,
        now: Instant,
        http: &mut HttpConnection,
        mut result: Result<(), http::Error>,
    ) -> Fate {
        while result.is_ok()
            && let Some(http::Event::Request(request)) = http.session.poll_event()
        {
            if matches!(Route::of(&request), Route::WebSocket)
                && request.is_websocket_upgrade()
                && self.drain == Drain::Running
            {
                let rtmp_base = self.rtmp_base(request.host.as_deref());
                http.upgrade = Some((websocket::accept(&request), rtmp_base));
                return Fate::Upgrade;
            }
            log::debug!("http {} {}: {request:?}", http.conn, http.peer);
            if let Some(response) = self.http_respond(now, http, &request) {
                result = self.http_answer(now, http, response);
            }
        }
        if let Err(error) = result {
            self.stats.error(error.reason());
            log::debug!("http {} {}: {error}", http.conn, http.peer);
        }
        if http.session.is_closing() {
            Fate::Close
        } else {
            Fate::Live
        }
    }

    fn http_answer(
        &mut self,
        now: Instant,
        http: &mut HttpConnection,
        mut response: Response,
    ) -> Result<(), http::Error> {
        self.apply_http_settings(&mut response);
        let status = response.status();
        log::debug!("http {} {}: {status:?}", http.conn, http.peer);
        let responses = &mut self.stats.http_responses;
        *responses.entry(status.code()).or_default() += 1;
        http.session.respond(now, response)
    }

    /// `None`: the request is held, its answer comes later.
    fn http_respond(
        &mut self,
        now: Instant,
        http: &HttpConnection,
        request: &Request,
    ) -> Option<Response> {
        Some(match Route::of(request) {
            Route::Page(asset) => asset.respond(request),
            Route::ApiStreams => match self.api_reader(request) {
                Ok(reader) => Response::json(&self.api_streams(now, &reader)).with_cors(),
                Err(refusal) => refusal,
            },
            Route::ApiStream { name } => match self.api_reader(request) {
                Ok(reader) => match self.api_stream(now, &name, &reader) {
                    Some(stream) => Response::json(&stream).with_cors(),
                    None => crate::signaling::route::unknown_stream(),
                },
                Err(refusal) => refusal,
            },
            Route::Metrics => match self.admit_to_metrics(request) {
                Ok(()) => self.metrics(now),
                Err(refusal) => refusal,
            },
            Route::ApiRooms => match self.admit_to_rooms(request) {
                Ok(()) => Response::json(&self.api_rooms(now)).with_cors(),
                Err(refusal) => refusal,
            },
            Route::ApiCalls => match self.admit_to_rooms(request) {
                Ok(()) => Response::json(&self.api_calls(now)).with_cors(),
                Err(refusal) => refusal,
            },
            Route::WebSocket if self.drain == Drain::Running => websocket::refuse(),
            Route::WebSocket => Refused::draining().into_response(),
            Route::Healthz if self.drain == Drain::Running => Response::text("ok\n"),
            Route::Healthz => {
                answer::unavailable("draining", "The gateway is about to stop.", RETRY)
            }
            Route::Signaling(action) => return self.signaling(now, http, action),
            Route::Answer(response) => response,
        })
    }

    /// What the operator said about origins and about how this port is reached.
    fn apply_http_settings(&self, response: &mut Response) {
        const ORIGIN: &str = "Access-Control-Allow-Origin";
        let http = &self.config.http;
        match http.cors_allow_origin.as_str() {
            "*" => {}
            "" => {
                for name in [
                    ORIGIN,
                    "Access-Control-Expose-Headers",
                    "Access-Control-Allow-Methods",
                    "Access-Control-Allow-Headers",
                    "Access-Control-Max-Age",
                ] {
                    response.remove_header(name);
                }
            }
            origin => response.replace_header(ORIGIN, origin),
        }
        if !http.public_url.is_empty()
            && let Some(path) = response.header("Location")
        {
            let url = format!("{}{path}", http.public_url);
            response.replace_header("Location", url);
        }
    }

    /// `None`: the request is held until a callback is answered.
    fn signaling(
        &mut self,
        now: Instant,
        http: &HttpConnection,
        action: Action,
    ) -> Option<Response> {
        match action {
            Action::Publish { .. } | Action::Play { .. } => self.ask_stream(now, http, action),
            Action::Patch(patch) => Some(self.whxp_patch(&patch)),
            Action::Delete { session, token } => Some(self.whxp_delete(now, &session, token)),
            Action::Answer(response) => Some(response),
        }
    }

    /// Judges a WHIP or WHEP request by its token, then asks, then begins.
    fn ask_stream(
        &mut self,
        now: Instant,
        http: &HttpConnection,
        action: Action,
    ) -> Option<Response> {
        let (protocol, right, event) = match action {
            Action::Publish { .. } => ("whip", Right::Publish, CallbackEvent::Publish),
            _ => ("whep", Right::Play, CallbackEvent::Play),
        };
        let (Action::Publish {
            app, stream, token, ..
        }
        | Action::Play {
            app, stream, token, ..
        }) = &action
        else {
            return Some(answer::unknown_session());
        };
        let client = http.peer;
        let key = format!("{app}/{stream}");
        let token = token.clone();
        let token = token.as_ref().map(Token::as_str);
        let admitted = match self.admit(right, &key, token) {
            Ok(admitted) => admitted,
            Err(refusal) => {
                log::warn!(
                    "{protocol} {client}: may not {} {key}: {refusal}",
                    right.name()
                );
                return Some(answer::refused(refusal));
            }
        };
        let user = admitted.identity.user.clone();
        let fields = || {
            json!({
                "protocol": protocol,
                "client": client.to_string(),
                "user": user,
                "stream": key,
                "token": token,
            })
        };
        let asker = Asker::Http(http.conn, Box::new(action), Box::new(admitted));
        match self.ask_callback(now, event, fields, asker)? {
            Asker::Http(_, action, admitted) => Some(self.let_in(now, client, *action, *admitted)),
            _ => None,
        }
    }

    /// A WHIP or WHEP request may begin what it asked for.
    fn let_in(
        &mut self,
        now: Instant,
        client: SocketAddr,
        action: Action,
        admitted: Admitted,
    ) -> Response {
        match action {
            Action::Publish {
                app, stream, offer, ..
            } => self.whip_publish(now, client, &format!("{app}/{stream}"), admitted, &offer),
            Action::Play {
                app, stream, offer, ..
            } => self.whep_play(now, client, &format!("{app}/{stream}"), admitted, &offer),
            _ => answer::unknown_session(),
        }
    }

    /// The answer about a WHIP or WHEP request.
    pub(super) fn http_judged(
        &mut self,
        now: Instant,
        http: &HttpConnection,
        action: Action,
        admitted: Admitted,
        verdict: Verdict,
    ) -> Response {
        match verdict {
            Verdict::Allowed => self.let_in(now, http.peer, action, admitted),
            Verdict::Refused(why) => {
                log::warn!("http {} {}: refused: {why}", http.conn, http.peer);
                let detail = format!("This is refused: {why}.");
                answer::problem(Status::Forbidden, "refused", &detail)
            }
        }
    }

    /// Answers a request that was held, and takes up those behind it.
    pub(super) fn http_go_on(
        &mut self,
        now: Instant,
        http: &mut HttpConnection,
        response: Response,
    ) -> Fate {
        let result = self.http_answer(now, http, response);
        self.http_requests(now, http, result)
    }

    fn whip_publish(
        &mut self,
        now: Instant,
        client: SocketAddr,
        key: &str,
        admitted: Admitted,
        offer: &str,
    ) -> Response {
        match self.open_publisher(now, client, key, admitted, offer) {
            Ok(opened) => {
                answer::created(&opened.resource, &EntityTag::of_generation(0), opened.sdp)
            }
            Err(refused) => refused.into_response(),
        }
    }

    /// Has a WebRTC publisher come in, by WHIP or as a member of a room.
    pub(super) fn open_publisher(
        &mut self,
        now: Instant,
        client: SocketAddr,
        key: &str,
        who: Admitted,
        offer: &str,
    ) -> Result<Opened, Refused> {
        if self.drain != Drain::Running {
            return Err(Refused::draining());
        }
        // Who takes the place of another needs none of its own.
        let displaced = self.hub.displaced_by(key, &who.holder, now);
        let takes_over = matches!(displaced, Some(PeerId::Webrtc(_)));
        if !takes_over && self.publishers >= self.config.webrtc.publishers_max {
            self.stats.error("publishers_max");
            let text = "The gateway has as many WebRTC publishers as it may have.";
            return Err(Refused::unavailable("publishers_max", text));
        }
        let id = self.next_session_id();
        let peer = PeerId::Webrtc(id);
        let params = self.session_params(id, Role::Publisher);
        let (session, sdp) = self.answer_offer(now, params, offer)?;
        let publisher = Publisher {
            peer,
            user: who.identity.user.clone(),
            holder: who.holder.clone(),
            protocol: "whip",
            client: client.to_string(),
            since: now,
            last_media: now,
        };
        let announced = Announced {
            video: session.has_track(TrackKind::Video),
            audio: session.has_track(TrackKind::Audio),
        };
        let before = self.publisher_facts(now, key);
        let (stream, displaced) = match self.hub.claim(key, publisher, announced) {
            Ok(claimed) => claimed,
            Err(error) => {
                self.conversations.leg_ended(peer, MediaReason::Error);
                self.stats.error(match error {
                    ClaimError::Busy => "publish_busy",
                    ClaimError::TooManyStreams => "streams_max",
                });
                log::warn!("whip {client}: may not publish {key}: {error}");
                let text = format!("Stream {key} is refused: {error}.");
                return Err(match error {
                    ClaimError::Busy => Refused {
                        status: Status::Conflict,
                        reason: "stream_busy",
                        text,
                        retry: Some(RETRY),
                    },
                    ClaimError::TooManyStreams => Refused::unavailable("streams_max", &text),
                });
            }
        };
        self.stats.session("whip");
        log::info!("whip {id} {client}: publishes {key}");
        let resource = self.add_publisher(now, session, stream, client, who);
        if let Some(displaced) = displaced {
            self.tell_unpublished(before);
            self.displace(now, displaced);
        }
        if is_members_stream(key) {
            self.keep_members_stream(stream);
            self.conversations.publishes(peer, stream);
        }
        self.publisher_came(now, stream);
        Ok(Opened {
            id,
            stream,
            resource,
            sdp,
        })
    }

    fn whep_play(
        &mut self,
        now: Instant,
        client: SocketAddr,
        key: &str,
        admitted: Admitted,
        offer: &str,
    ) -> Response {
        match self.open_viewer(now, client, key, admitted, offer) {
            Ok(opened) => {
                answer::created(&opened.resource, &EntityTag::of_generation(0), opened.sdp)
            }
            Err(refused) => refused.into_response(),
        }
    }

    /// Has a WebRTC viewer come in, by WHEP or as a member of a room.
    pub(super) fn open_viewer(
        &mut self,
        now: Instant,
        client: SocketAddr,
        key: &str,
        who: Admitted,
        offer: &str,
    ) -> Result<Opened, Refused> {
        if self.drain != Drain::Running {
            return Err(Refused::draining());
        }
        if self.sessions.len() - self.publishers >= self.config.webrtc.viewers_max {
            self.stats.error("viewers_max");
            let text = "The gateway has as many WebRTC viewers as it may have.";
            return Err(Refused::unavailable("viewers_max", text));
        }
        let live = self
            .hub
            .find(key)
            .filter(|id| self.is_live_or_returning(*id));
        let Some(stream_id) = live else {
            self.stats.error("play_stream_not_found");
            return Err(Refused {
                status: Status::Conflict,
                reason: "stream_not_published",
                text: format!("Stream {key} is not published now."),
                retry: Some(ABSENT_RETRY),
            });
        };
        let id = self.next_session_id();
        let stream_profile = self.hub.get(stream_id).and_then(|stream| {
            let track = stream.video.as_ref()?;
            match &*track.config {
                TrackConfig::H264(config) => Some(config.info().profile_level_id()),
                _ => None,
            }
        });
        let params = Params {
            stream_profile,
            ..self.session_params(id, Role::Viewer)
        };
        let (session, sdp) = self.answer_offer(now, params, offer)?;
        self.stats.session("whep");
        log::info!("whep {id} {client}: plays {key}");
        let resource = self.add_viewer(now, session, stream_id, client, who);
        Ok(Opened {
            id,
            stream: stream_id,
            resource,
            sdp,
        })
    }

    fn is_live_or_returning(&self, id: StreamId) -> bool {
        self.hub
            .get(id)
            .is_some_and(|stream| stream.publisher.is_some() || stream.unpublished.is_some())
    }

    fn whxp_patch(&mut self, patch: &Patch) -> Response {
        let Some(id) = self.resources.get(&patch.session).copied() else {
            return answer::unknown_session();
        };
        let holder = self.holder(patch.token.as_ref());
        let Some(peer) = self.sessions.get_mut(&id) else {
            return answer::unknown_session();
        };
        if !peer.may_change(&holder) {
            return answer::unauthorized(patch.token.as_ref());
        }
        let tag = EntityTag::of_generation(peer.ice_generation);
        match patch.kind(&tag, peer.session.remote_ufrag().unwrap_or_default()) {
            Err(response) => response,
            // Checks from whatever address the peer has are answered: as an ICE-lite agent
            // the gateway needs no candidates of the peer.
            Ok(PatchKind::Trickle) => answer::trickled(),
            Ok(PatchKind::Restart) => self.restart_ice(id, patch),
        }
    }

    fn whxp_delete(&mut self, now: Instant, session: &str, token: Option<Token>) -> Response {
        let Some(id) = self.resources.get(session).copied() else {
            return answer::unknown_session();
        };
        let holder = self.holder(token.as_ref());
        let allowed = self
            .sessions
            .get(&id)
            .is_some_and(|peer| peer.may_change(&holder));
        if !allowed {
            return answer::unauthorized(token.as_ref());
        }
        self.end_session_cleanly(now, id);
        answer::deleted()
    }

    fn next_session_id(&mut self) -> SessionId {
        let id = SessionId(self.next_session);
        self.next_session += 1;
        id
    }
}

/// A WebRTC session that came in.
pub(super) struct Opened {
    pub(super) id: SessionId,
    pub(super) stream: StreamId,
    /// The secret of its URL.
    resource: String,
    pub(super) sdp: String,
}

/// Why a WebRTC session did not come in.
pub(super) struct Refused {
    pub(super) status: Status,
    pub(super) reason: &'static str,
    pub(super) text: String,
    pub(super) retry: Option<Duration>,
}

impl Refused {
    fn unavailable(reason: &'static str, text: &str) -> Self {
        Self {
            status: Status::ServiceUnavailable,
            reason,
            text: text.to_owned(),
            retry: Some(RETRY),
        }
    }

    fn draining() -> Self {
        Self::unavailable("draining", "The gateway is about to stop.")
    }

    fn into_response(self) -> Response {
        match (self.status, self.retry) {
            (Status::Conflict, retry) => answer::conflict(self.reason, &self.text, retry),
            (_, Some(retry)) => answer::unavailable(self.reason, &self.text, retry),
            (status, None) => answer::offer_refused(status, self.reason, &self.text),
        }
    }
}

/// When a client that met a limit may come again.
const RETRY: Duration = Duration::from_secs(2);

/// When a viewer may ask again for a stream that is not published.
const ABSENT_RETRY: Duration = Duration::from_secs(1);

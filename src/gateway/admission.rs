//! Who is let in: tokens are judged where something begins.
//!
//! | what | right | no or a bad token | a good one that does not reach so far |
//! | --- | --- | --- | --- |
//! | RTMP publish, play | `publish`, `play` on the stream | onStatus of level error with the reason, then closed | the same |
//! | WHIP, WHEP | `publish`, `play` on the stream | 401 | 403 |
//! | API | `api`; a token with `play` alone: the streams it reaches, without addresses | 401 | 403 |
//! | metrics | `api`, if the configuration says so | 401 | 403 |
//!
//! The page, its files and `/healthz` are open: they tell nothing.

use std::time::{Duration, Instant};

use super::Gateway;
use super::conversations::is_members_stream;
use crate::access::{Holder, Identity, Kind, Refusal, Resource, Right};
use crate::http::{Request, Response};
use crate::signaling::{Token, answer};

/// The time of day, from what the world told last and the time that has passed since.
#[derive(Clone, Copy, Debug)]
pub(super) struct WallClock {
    at: Instant,
    unix: Duration,
}

impl WallClock {
    /// It was `unix` since 1970 at `at`.
    pub(super) fn new(at: Instant, unix: Duration) -> Self {
        Self { at, unix }
    }

    /// The time since 1970.
    pub(super) fn unix(&self, now: Instant) -> Duration {
        self.unix + now.saturating_duration_since(self.at)
    }
}

/// Who came in, and by what it may later be known as the same.
#[derive(Clone, Debug)]
pub(super) struct Admitted {
    pub(super) identity: Identity,
    pub(super) holder: Holder,
}

impl Gateway {
    /// Takes note of the time of day, for tokens that expire. Without it the gateway goes on
    /// from the time it was told last.
    pub fn set_unix_time(&mut self, now: Instant, unix: Duration) {
        self.clock = WallClock::new(now, unix);
    }

    /// Who shows `token`.
    ///
    /// # Errors
    /// Why nobody is let in with it.
    pub(super) fn judge(&self, token: Option<&str>) -> Result<Identity, Refusal> {
        self.access.judge(token, self.clock.unix(self.now))
    }

    /// Whether who shows `token` may publish or play the stream `key`.
    ///
    /// Streams of members of rooms have tokens of their own, and are not asked for here.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn admit(
        &mut self,
        right: Right,
        key: &str,
        token: Option<&str>,
    ) -> Result<Admitted, Refusal> {
        let judged = match is_members_stream(key) {
            true => Err(Refusal::Reserved),
            false => self.judge(token).and_then(|identity| {
                identity.require(right, Resource::Stream(key))?;
                Ok(identity)
            }),
        };
        match judged {
            Ok(identity) => Ok(Admitted {
                holder: Holder::new(token, Some(&identity)),
                identity,
            }),
            Err(refusal) => {
                self.stats.error(refusal.reason());
                Err(refusal)
            }
        }
    }

    /// Whose sessions may be changed with `token`. One that has expired is still the same one.
    pub(super) fn holder(&self, token: Option<&Token>) -> Holder {
        let token = token.map(Token::as_str);
        Holder::new(token, self.judge(token).ok().as_ref())
    }

    /// What a reader of the API may see.
    ///
    /// # Errors
    /// The response, if it is nothing.
    pub(super) fn api_reader(&mut self, request: &Request) -> Result<Reader, Response> {
        let token = Token::of(request);
        let judged = self
            .judge(token.as_ref().map(Token::as_str))
            .and_then(|identity| {
                let api = identity.require(Right::Api, Resource::Any);
                // Names that cannot be guessed are not told to everybody.
                let may_play =
                    identity.kind != Kind::Anonymous && identity.allows(Right::Play, Resource::Any);
                match (api, may_play) {
                    (Ok(()), _) => Ok(Reader::Operator),
                    (Err(_), true) => Ok(Reader::Viewer(Box::new(identity))),
                    (Err(refusal), false) => Err(refusal),
                }
            });
        judged.map_err(|refusal| self.refuse_request(refusal))
    }

    /// Whether the lists of rooms and calls may be read.
    ///
    /// # Errors
    /// The response, if they may not.
    pub(super) fn admit_to_rooms(&mut self, request: &Request) -> Result<(), Response> {
        let token = Token::of(request);
        self.judge(token.as_ref().map(Token::as_str))
            .and_then(|identity| identity.require(Right::Api, Resource::Any))
            .map_err(|refusal| self.refuse_request(refusal))
    }

    /// Whether the metrics may be read.
    ///
    /// # Errors
    /// The response, if they may not.
    pub(super) fn admit_to_metrics(&mut self, request: &Request) -> Result<(), Response> {
        if !self.config.access.guard_metrics {
            return Ok(());
        }
        let token = Token::of(request);
        self.judge(token.as_ref().map(Token::as_str))
            .and_then(|identity| identity.require(Right::Api, Resource::Any))
            .map_err(|refusal| self.refuse_request(refusal))
    }

    fn refuse_request(&mut self, refusal: Refusal) -> Response {
        self.stats.error(refusal.reason());
        answer::refused(refusal)
    }
}

/// Who reads the API.
#[derive(Clone, Debug)]
pub(super) enum Reader {
    /// Sees everything.
    Operator,
    /// Sees the streams it may play, and nobody's address.
    Viewer(Box<Identity>),
}

impl Reader {
    /// Whether it may know of the stream `key`.
    pub(super) fn sees(&self, key: &str) -> bool {
        match self {
            Self::Operator => true,
            Self::Viewer(identity) => identity.allows(Right::Play, Resource::Stream(key)),
        }
    }

    /// Whether it may know who publishes and plays.
    pub(super) fn sees_clients(&self) -> bool {
        matches!(self, Self::Operator)
    }
}

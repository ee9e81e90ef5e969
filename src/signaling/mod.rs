//! Signaling over HTTP and WebSocket: which [`Route`] a request takes, and WHIP (RFC 9725) and WHEP
//! (draft-ietf-wish-whep) as an [`Action`] to take and the answer to give.
//!
//! | module | owns |
//! | --- | --- |
//! | [`route`] | the URLs of the gateway's HTTP port |
//! | [`action`] | endpoints and session URLs: what a request asks for |
//! | [`answer`] | the responses of both protocols, errors included |
//! | [`offer`] | the rules for an offer that both protocols add to those of WebRTC |
//! | [`entity_tag`] | `ETag` and `If-Match` of a session |
//! | [`sdpfrag`] | the body of a PATCH (RFC 8840) |
//! | [`message`] | the messages of `PROTOCOL.md`, spoken over WebSocket |
//! | [`conversations`] | rooms and calls: what those messages do |
//!
//! All but the last is a pure function of one request: who may publish what, which session
//! an id means and what an offer leads to is for the gateway to say.

use std::fmt;

use crate::http::Request;

pub mod action;
pub mod answer;
pub mod conversations;
pub mod entity_tag;
pub mod message;
pub mod offer;
pub mod route;
pub mod sdpfrag;

pub use action::{Action, Patch, PatchKind};
pub use entity_tag::{EntityTag, IfMatch};
pub use route::Route;
pub use sdpfrag::Fragment;

/// The app whose streams are those of room members: `room/{room}/{member}`.
pub const ROOM_APP: &str = "room";

/// What a peer showed to be let in: a bearer token, or `?token=`. Not shown by `Debug`, so
/// that no log has it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token of this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The one of `request`: a bearer token (RFC 6750 section 2.1), else `?token=`; an
    /// empty one is none.
    pub fn of(request: &Request) -> Option<Self> {
        let bearer = request.headers.get("authorization").and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        bearer
            .filter(|token| !token.is_empty())
            .or_else(|| request.query("token").filter(|token| !token.is_empty()))
            .map(Self::new)
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

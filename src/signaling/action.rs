//! [`Action`]: what a WHIP or WHEP request asks of the gateway.
//!
//! | resource | URL | methods |
//! | --- | --- | --- |
//! | WHIP endpoint | `/whip/{app}/{stream}` | POST |
//! | WHEP endpoint | `/whep/{app}/{stream}` | POST |
//! | session | `/session/{id}` | PATCH, DELETE |
//!
//! GET, HEAD and OPTIONS work on each. The app may have several levels: the last segment is
//! the stream. The id is a secret: who knows the session URL owns the session.

use super::offer::{self, Direction};
use super::{EntityTag, Fragment, IfMatch, Token, answer};
use crate::http::{Method, Request, Response, Status};

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Publish a stream with this offer (WHIP). Answer with [`answer::created`].
    Publish {
        /// One segment or several, joined by slashes.
        app: String,
        /// One segment.
        stream: String,
        /// What the peer showed.
        token: Option<Token>,
        /// An offer that keeps the rules of [`offer`].
        offer: String,
    },
    /// Play a stream with this offer (WHEP). Answer with [`answer::created`].
    Play {
        /// One segment or several, joined by slashes.
        app: String,
        /// One segment.
        stream: String,
        /// What the peer showed.
        token: Option<Token>,
        /// An offer that keeps the rules of [`offer`].
        offer: String,
    },
    /// Add candidates to a session or restart its ICE: ask [`Patch::kind`].
    Patch(Patch),
    /// End a session. Answer with [`answer::deleted`].
    Delete {
        /// The id in the session URL.
        session: String,
        /// What the peer showed.
        token: Option<Token>,
    },
    /// Nothing: this is the answer.
    Answer(Response),
}

/// A PATCH of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// The id in the session URL.
    pub session: String,
    /// What the peer showed.
    pub token: Option<Token>,
    /// Which ICE session the peer means.
    pub if_match: Option<IfMatch>,
    /// What it says.
    pub fragment: Fragment,
}

/// What a [`Patch`] turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// Candidates for the current ICE session. Answer with [`answer::trickled`].
    Trickle,
    /// New credentials. Answer with [`answer::restarted`] or [`answer::restart_refused`].
    Restart,
}

impl Patch {
    /// Judges the PATCH against the session's current tag and the peer's current ufrag.
    ///
    /// `*` with new credentials is a restart (RFC 9725 section 4.3.3); with the current
    /// ones, or none, it is a trickle: mediamtx' reader sends every candidate like that.
    ///
    /// # Errors
    /// The response: 428 without a condition, 412 for a stale one, 422 for new
    /// credentials under the tag of the ICE session they would replace.
    pub fn kind(&self, current: &EntityTag, ufrag: &str) -> Result<PatchKind, Response> {
        let Some(if_match) = &self.if_match else {
            return Err(answer::precondition_required());
        };
        if !if_match.matches(current) {
            return Err(answer::precondition_failed());
        }
        let credentials = self.fragment.credentials.as_ref();
        match credentials.is_some_and(|credentials| credentials.ufrag != ufrag) {
            false => Ok(PatchKind::Trickle),
            true if *if_match == IfMatch::Any => Ok(PatchKind::Restart),
            true => Err(answer::problem(
                Status::UnprocessableContent,
                "restart_needs_any",
                "New ICE credentials need If-Match: *.",
            )),
        }
    }
}

/// A WHIP or WHEP resource.
enum Resource {
    Endpoint {
        direction: Direction,
        app: String,
        stream: String,
    },
    Session(String),
    /// A URL below ours that names nothing.
    Nothing(&'static str),
}

impl Action {
    /// What `request` asks for; `None` if its path belongs to neither WHIP nor WHEP.
    pub fn parse(request: &Request) -> Option<Self> {
        let (root, rest) = request.path.split_first()?;
        let resource = match root.as_str() {
            "whip" => endpoint(Direction::Send, rest),
            "whep" => endpoint(Direction::Receive, rest),
            "session" => session(rest),
            _ => return None,
        };
        Some(match resource {
            Resource::Endpoint {
                direction,
                app,
                stream,
            } => at_endpoint(request, direction, app, stream),
            Resource::Session(id) => at_session(request, id),
            Resource::Nothing(detail) => Self::Answer(answer::problem(
                Status::NotFound,
                "no_such_resource",
                detail,
            )),
        })
    }
}

fn at_endpoint(request: &Request, direction: Direction, app: String, stream: String) -> Action {
    match request.method {
        Method::Post => {}
        method => return Action::Answer(at_any(method, ENDPOINT_METHODS)),
    }
    if let Some(refusal) = wrong_type(request, answer::SDP) {
        return Action::Answer(refusal);
    }
    let offer = match offer::check(&request.body, direction) {
        Ok(offer) => offer.to_owned(),
        Err(error) => {
            let detail = error.to_string();
            let refusal = answer::offer_refused(error.status(), error.reason(), &detail);
            return Action::Answer(refusal);
        }
    };
    let token = Token::of(request);
    match direction {
        Direction::Send => Action::Publish {
            app,
            stream,
            token,
            offer,
        },
        Direction::Receive => Action::Play {
            app,
            stream,
            token,
            offer,
        },
    }
}

fn at_session(request: &Request, session: String) -> Action {
    let token = Token::of(request);
    match request.method {
        // `If-Match` on DELETE is ignored (RFC 9725 section 4.2).
        Method::Delete => return Action::Delete { session, token },
        Method::Patch => {}
        method => return Action::Answer(at_any(method, SESSION_METHODS)),
    }
    if let Some(refusal) = wrong_type(request, answer::SDPFRAG) {
        return Action::Answer(refusal);
    }
    match Fragment::decode(&request.body) {
        Ok(fragment) => Action::Patch(Patch {
            session,
            token,
            if_match: IfMatch::parse(&request.headers),
            fragment,
        }),
        Err(error) => Action::Answer(answer::problem(
            Status::BadRequest,
            error.reason(),
            &error.to_string(),
        )),
    }
}

/// The methods that mean the same everywhere, and those that mean nothing.
fn at_any(method: Method, methods: &'static str) -> Response {
    match method {
        // A preflight carries no token (RFC 9725 section 4.2), so none is asked for.
        Method::Options => Response::new(Status::NoContent)
            .with_header("Allow", methods)
            .with_header("Access-Control-Allow-Methods", methods)
            .with_header("Access-Control-Allow-Headers", ALLOWED_HEADERS)
            .with_header("Access-Control-Max-Age", "86400")
            .with_header("Accept-Post", answer::SDP)
            .with_header("Accept-Patch", answer::SDPFRAG)
            .with_cors(),
        // Kept for later versions: "2xx with no content" (RFC 9725 section 4.2).
        Method::Get | Method::Head => Response::new(Status::NoContent).with_cors(),
        _ => answer::problem(
            Status::MethodNotAllowed,
            "method_not_allowed",
            "This resource does not know the method.",
        )
        .with_header("Allow", methods),
    }
}

fn wrong_type(request: &Request, wanted: &str) -> Option<Response> {
    if request.content_type().as_deref() == Some(wanted) {
        return None;
    }
    let detail = format!("The body must be {wanted}.");
    let refusal = answer::problem(
        Status::UnsupportedMediaType,
        "unsupported_media_type",
        &detail,
    )
    .with_header("Accept-Post", answer::SDP)
    .with_header("Accept-Patch", answer::SDPFRAG);
    Some(refusal)
}

fn endpoint(direction: Direction, segments: &[String]) -> Resource {
    let name = stream_name(segments);
    let Some((app, stream)) = name.as_deref().and_then(|name| name.rsplit_once('/')) else {
        return Resource::Nothing("The URL must name an app and a stream: /whip/{app}/{stream}.");
    };
    Resource::Endpoint {
        direction,
        app: app.to_owned(),
        stream: stream.to_owned(),
    }
}

/// The name these segments give a stream: joined by slashes (an escaped slash is one too), a
/// slash at the end dropped. `None` if a level is empty, `.` or `..`, or if the name is
/// longer than [`NAME_BYTES_MAX`].
pub(super) fn stream_name(segments: &[String]) -> Option<String> {
    let name = segments.join("/");
    let name = name.strip_suffix('/').unwrap_or(&name);
    let is_level = |level: &str| !matches!(level, "" | "." | "..");
    (name.len() <= NAME_BYTES_MAX && name.split('/').all(is_level)).then(|| name.to_owned())
}

fn session(segments: &[String]) -> Resource {
    match segments {
        [id] if is_session_id(id) => Resource::Session(id.clone()),
        _ => Resource::Nothing("There is no such session."),
    }
}

fn is_session_id(id: &str) -> bool {
    (1..=SESSION_ID_BYTES_MAX).contains(&id.len())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

const ENDPOINT_METHODS: &str = "OPTIONS, GET, HEAD, POST";
const SESSION_METHODS: &str = "OPTIONS, GET, HEAD, PATCH, DELETE";
const ALLOWED_HEADERS: &str = "Authorization, Content-Type, If-Match";

/// Bounds the name of a stream, app included: a longer one is answered with 404.
pub const NAME_BYTES_MAX: usize = 256;
/// Bounds a session's id; ours have far fewer.
const SESSION_ID_BYTES_MAX: usize = 64;

#[cfg(test)]
pub(super) mod tests;

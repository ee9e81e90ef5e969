//! The responses of WHIP and WHEP. All of them, errors too, can be read by a page of
//! another origin: without that, `fetch` shows it nothing but "failed".

use std::time::Duration;

use super::sdpfrag::Fragment;
use super::{EntityTag, Token};
use crate::access::Refusal;
use crate::http::{Response, Status, target};

/// 201 to an offer, with the answer, the session URL and its entity tag. OBS 30 takes no
/// other status of success.
///
/// `Location` is an absolute path without a query: OBS drops a query, and a scheme of our
/// own choice would be wrong behind a proxy that ends TLS.
pub fn created(session: &str, tag: &EntityTag, sdp: String) -> Response {
    Response::new(Status::Created)
        .with_header("Location", session_path(session))
        .with_header("ETag", tag.as_str().to_owned())
        .with_header("Accept-Patch", SDPFRAG)
        .with_header("Cache-Control", "no-store")
        .with_body(SDP, sdp)
        .with_cors()
}

/// 204 to a PATCH whose candidates were taken (or needlessly sent): no body, no tag.
pub fn trickled() -> Response {
    Response::new(Status::NoContent).with_cors()
}

/// 200 to a PATCH that restarted ICE, with our new credentials and candidates and the new
/// tag.
pub fn restarted(tag: &EntityTag, fragment: &Fragment) -> Response {
    Response::new(Status::Ok)
        .with_header("ETag", tag.as_str().to_owned())
        .with_header("Cache-Control", "no-store")
        .with_body(SDPFRAG, fragment.encode())
        .with_cors()
}

/// 200 to DELETE. OBS 30 takes no other status of success.
pub fn deleted() -> Response {
    Response::new(Status::Ok).with_cors()
}

/// 404 for a session that is not (or no longer) there.
pub fn unknown_session() -> Response {
    problem(
        Status::NotFound,
        "unknown_session",
        "There is no such session; it may have ended.",
    )
}

/// 401: no token was shown, or not that of the session (RFC 6750 section 3).
pub fn unauthorized(shown: Option<&Token>) -> Response {
    let (challenge, reason, detail) = match shown {
        None => (
            "Bearer realm=\"rtmp-gateway\"",
            "token_missing",
            "A token is needed: send it as a bearer token or as ?token= in the URL.",
        ),
        Some(_) => (
            "Bearer realm=\"rtmp-gateway\", error=\"invalid_token\"",
            "token_invalid",
            "The token is not valid for this stream.",
        ),
    };
    problem(Status::Unauthorized, reason, detail).with_header("WWW-Authenticate", challenge)
}

/// 401 or 403: who asks is not let in (RFC 6750 section 3.1).
pub fn refused(refusal: Refusal) -> Response {
    let (status, error) = match refusal {
        Refusal::Missing => return unauthorized(None),
        Refusal::Forbidden(_) => (Status::Forbidden, "insufficient_scope"),
        Refusal::Reserved => {
            let detail = format!("This is refused: {refusal}.");
            return problem(Status::Forbidden, refusal.reason(), &detail);
        }
        _ => (Status::Unauthorized, "invalid_token"),
    };
    let detail = format!("This is refused: {refusal}.");
    // The sentence has quotes, which would end the parameter.
    let challenge = format!(
        "Bearer realm=\"rtmp-gateway\", error=\"{error}\", error_description=\"{}\"",
        refusal.to_string().replace('"', "'")
    );
    problem(status, refusal.reason(), &detail).with_header("WWW-Authenticate", challenge)
}

/// 409: the stream is not in a state for this. For a player whose publisher is absent,
/// `retry_after` says when to ask again (draft-ietf-wish-whep section 4.2).
pub fn conflict(reason: &str, detail: &str, retry_after: Option<Duration>) -> Response {
    retry(problem(Status::Conflict, reason, detail), retry_after)
}

/// 503: the gateway is at a limit or about to stop.
pub fn unavailable(reason: &str, detail: &str, retry_after: Duration) -> Response {
    retry(
        problem(Status::ServiceUnavailable, reason, detail),
        Some(retry_after),
    )
}

/// 400, 406 or 422 to an offer that cannot work, with the reason as a name and a sentence.
pub fn offer_refused(status: Status, reason: &str, detail: &str) -> Response {
    problem(status, reason, detail)
}

/// 428 to a PATCH without `If-Match` (RFC 9725 section 4.3.1).
pub fn precondition_required() -> Response {
    problem(
        Status::PreconditionRequired,
        "if_match_missing",
        "A PATCH needs If-Match with the session's ETag.",
    )
}

/// 412 to a PATCH that means an earlier ICE session.
pub fn precondition_failed() -> Response {
    problem(
        Status::PreconditionFailed,
        "if_match_stale",
        "The ETag is not that of the session's current ICE session.",
    )
}

/// 422 to a PATCH for an ICE restart that is not possible; the session goes on.
pub fn restart_refused() -> Response {
    problem(
        Status::UnprocessableContent,
        "restart_refused",
        "This session cannot restart ICE; end it and send a new offer.",
    )
}

/// An error that any origin may read.
pub fn problem(status: Status, reason: &str, detail: &str) -> Response {
    Response::problem(status, reason, detail).with_cors()
}

/// The path of a session URL.
pub fn session_path(session: &str) -> String {
    format!("/session/{}", target::encode(session))
}

/// Seconds, rounded up, so that nobody comes too early.
fn retry(response: Response, after: Option<Duration>) -> Response {
    let Some(after) = after else { return response };
    let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
    response.with_header("Retry-After", seconds.max(1).to_string())
}

/// The media type of offers and answers.
pub const SDP: &str = "application/sdp";
/// The media type of a PATCH.
pub const SDPFRAG: &str = "application/trickle-ice-sdpfrag";

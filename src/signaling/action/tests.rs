use std::time::{Duration, Instant};

use super::*;
use crate::http::{Event, Limits, Session};
use crate::signaling::sdpfrag::Credentials;

const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n\
    m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:0\r\na=sendrecv\r\na=rtcp-mux\r\n";
const FRAGMENT: &str = "a=ice-ufrag:abcd\r\na=ice-pwd:asd88fgpdd777uzjYhagZg\r\n\
    m=audio 9 RTP/AVP 0\r\na=mid:0\r\na=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n";

/// A request as it comes out of a session.
pub(in crate::signaling) fn request(
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Request {
    let mut wire = format!("{method} {target} HTTP/1.1\r\nHost: gw\r\n");
    for (name, value) in headers {
        wire.push_str(&format!("{name}: {value}\r\n"));
    }
    wire.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    let now = Instant::now();
    let mut session = Session::new(Limits::default(), now);
    session.receive(now, wire.as_bytes()).expect("valid");
    let Some(Event::Request(request)) = session.poll_event() else {
        panic!("whole")
    };
    request
}

fn post(target: &str, headers: &[(&str, &str)]) -> Action {
    let mut all = vec![("Content-Type", "application/sdp")];
    all.extend_from_slice(headers);
    Action::parse(&request("POST", target, &all, OFFER)).expect("ours")
}

fn patch(headers: &[(&str, &str)], body: &str) -> Action {
    let mut all = vec![("Content-Type", "application/trickle-ice-sdpfrag")];
    all.extend_from_slice(headers);
    Action::parse(&request("PATCH", "/session/s1", &all, body)).expect("ours")
}

fn answered(action: Action) -> Response {
    match action {
        Action::Answer(response) => {
            let origin = response.header("access-control-allow-origin");
            assert_eq!(origin, Some("*"), "{response:?}");
            response
        }
        action => panic!("not answered: {action:?}"),
    }
}

fn status_of(method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Status {
    let request = request(method, target, headers, body);
    answered(Action::parse(&request).expect("ours")).status()
}

#[test]
fn a_post_names_app_and_stream() {
    let names = |action| match action {
        Action::Publish { app, stream, .. } | Action::Play { app, stream, .. } => (app, stream),
        action => panic!("{action:?}"),
    };
    let name = |app: &str, stream: &str| (app.to_owned(), stream.to_owned());
    assert_eq!(names(post("/whip/live/demo", &[])), name("live", "demo"));
    assert_eq!(names(post("/whip/live/demo/", &[])), name("live", "demo"));
    assert_eq!(names(post("/whep/a/b/c", &[])), name("a/b", "c"));
    assert_eq!(names(post("/whep/a%2Fb/c", &[])), name("a/b", "c"));
    // No name is taken by the gateway's own URLs.
    assert_eq!(names(post("/whip/session/x", &[])), name("session", "x"));
    assert!(matches!(post("/whip/a/b", &[]), Action::Publish { .. }));
    assert!(matches!(post("/whep/a/b", &[]), Action::Play { .. }));
    let long = "x".repeat(NAME_BYTES_MAX);
    for target in [
        "/whip",
        "/whip/",
        "/whip/a",
        "/whip/a/",
        "/whip//b",
        "/whip/a/../b",
    ] {
        let response = answered(post(target, &[]));
        assert_eq!(response.status(), Status::NotFound, "{target}");
    }
    let response = answered(post(&format!("/whip/a/{long}"), &[]));
    assert_eq!(response.status(), Status::NotFound);
    assert_eq!(Action::parse(&request("POST", "/", &[], "")), None);
    assert_eq!(Action::parse(&request("GET", "/whipx/a/b", &[], "")), None);
}

#[test]
fn a_token_comes_as_bearer_or_in_the_query() {
    let token = |target: &str, headers: &[(&str, &str)]| match post(target, headers) {
        Action::Publish { token, .. } => token.map(|token| token.as_str().to_owned()),
        action => panic!("{action:?}"),
    };
    let bearer = [("Authorization", "bearer  a+/b=")];
    assert_eq!(token("/whip/a/b", &bearer).as_deref(), Some("a+/b="));
    assert_eq!(
        token("/whip/a/b?token=q", &bearer).as_deref(),
        Some("a+/b=")
    );
    assert_eq!(
        token("/whip/a/b?x=1&token=a+b", &[]).as_deref(),
        Some("a+b")
    );
    // OBS without a token, and another scheme.
    let none = [("Authorization", "Bearer")];
    assert_eq!(token("/whip/a/b?token=", &none), None);
    let basic = [("Authorization", "Basic YTpi")];
    assert_eq!(token("/whip/a/b", &basic), None);
    assert!(!format!("{:?}", post("/whip/a/b?token=sesame", &[])).contains("sesame"));
}

/// CASES 60 and 61.
#[test]
fn created_has_all_that_clients_look_for() {
    let tag = EntityTag::of_generation(0);
    let response = answer::created("aB3-_", &tag, "v=0\r\n".to_owned());
    assert_eq!(response.status().code(), 201);
    assert_eq!(response.header("location"), Some("/session/aB3-_"));
    assert_eq!(response.header("content-type"), Some("application/sdp"));
    assert_eq!(response.header("etag"), Some("\"ice-0\""), "strong, quoted");
    let sdpfrag = Some("application/trickle-ice-sdpfrag");
    assert_eq!(response.header("accept-patch"), sdpfrag);
    assert_eq!(response.header("link"), None);
    assert_eq!(&response.body()[..], b"v=0\r\n");
    let exposed = response.header("access-control-expose-headers");
    for name in [
        "Location",
        "ETag",
        "Link",
        "Accept-Patch",
        "WWW-Authenticate",
        "Retry-After",
    ] {
        assert!(exposed.is_some_and(|names| names.contains(name)), "{name}");
    }
    // The path leads back to the session without a query.
    let delete = request("DELETE", "/session/aB3-_", &[("If-Match", "\"no\"")], "");
    let session = "aB3-_".to_owned();
    let token = None;
    assert_eq!(
        Action::parse(&delete),
        Some(Action::Delete { session, token })
    );
}

/// CASE 62.
#[test]
fn a_patch_is_judged_by_its_condition() {
    let tag = EntityTag::of_generation(3);
    let kind = |headers: &[(&str, &str)], ufrag: &str| match patch(headers, FRAGMENT) {
        Action::Patch(patch) => {
            assert_eq!(patch.session, "s1");
            assert_eq!(patch.fragment.candidates.len(), 1);
            patch
                .kind(&tag, ufrag)
                .map_err(|response| response.status())
        }
        action => panic!("{action:?}"),
    };
    let trickle = Ok(PatchKind::Trickle);
    assert_eq!(kind(&[("If-Match", "\"ice-3\"")], "abcd"), trickle);
    assert_eq!(kind(&[("If-Match", "\"x\" , \"ice-3\"")], "abcd"), trickle);
    assert_eq!(kind(&[("If-Match", "*")], "abcd"), trickle);
    assert_eq!(kind(&[("If-Match", "*")], "other"), Ok(PatchKind::Restart));
    let stale = Err(Status::PreconditionFailed);
    assert_eq!(kind(&[("If-Match", "\"ice-2\"")], "abcd"), stale);
    assert_eq!(kind(&[("If-Match", "W/\"ice-3\"")], "abcd"), stale);
    assert_eq!(kind(&[("If-Match", "ice-3")], "abcd"), stale);
    assert_eq!(kind(&[("If-Match", "")], "abcd"), stale);
    assert_eq!(kind(&[], "abcd"), Err(Status::PreconditionRequired));
    let unprocessable = Err(Status::UnprocessableContent);
    assert_eq!(kind(&[("If-Match", "\"ice-3\"")], "other"), unprocessable);
    // Without credentials it can only be a trickle.
    let Action::Patch(bare) = patch(&[("If-Match", "*")], "a=end-of-candidates") else {
        panic!("a patch")
    };
    assert_eq!(bare.kind(&tag, "abcd"), Ok(PatchKind::Trickle));
    let sdp = [("Content-Type", "application/sdp"), ("If-Match", "*")];
    assert_eq!(
        status_of("PATCH", "/session/s1", &sdp, FRAGMENT),
        Status::UnsupportedMediaType
    );
    assert_eq!(
        answered(patch(&[("If-Match", "*")], "")).status(),
        Status::BadRequest
    );
    for target in [
        "/session",
        "/session/",
        "/session/a/b",
        "/session/a%2fb",
        "/session/%20",
    ] {
        assert_eq!(
            status_of("DELETE", target, &[], ""),
            Status::NotFound,
            "{target}"
        );
    }
    assert_eq!(answer::unknown_session().status(), Status::NotFound);
}

#[test]
fn a_restart_is_answered_with_new_credentials_and_a_new_tag() {
    let fragment = Fragment {
        credentials: Some(Credentials {
            ufrag: "new1".to_owned(),
            pwd: "x".repeat(22),
        }),
        ..Fragment::default()
    };
    let response = answer::restarted(&EntityTag::of_generation(1), &fragment);
    assert_eq!(response.status(), Status::Ok);
    assert_eq!(response.header("etag"), Some("\"ice-1\""));
    let body = std::str::from_utf8(response.body()).expect("text");
    assert!(body.contains("a=ice-ufrag:new1\r\n") && body.contains("a=ice-lite\r\n"));
    assert_eq!(answer::trickled().header("etag"), None);
    assert_eq!(answer::trickled().status(), Status::NoContent);
    assert_eq!(answer::deleted().status(), Status::Ok);
}

/// CASE 64, as far as the text of the request shows it; one of 1 MB never gets here.
#[test]
fn requests_that_are_no_offer_are_refused() {
    let sdp = [("Content-Type", "application/sdp")];
    let status =
        |headers: &[(&str, &str)], body: &str| status_of("POST", "/whip/live/demo", headers, body);
    assert_eq!(status(&[], OFFER), Status::UnsupportedMediaType);
    assert_eq!(
        status(&[("Content-Type", "text/plain")], OFFER),
        Status::UnsupportedMediaType
    );
    assert_eq!(status(&sdp, ""), Status::BadRequest);
    assert_eq!(status(&sdp, "hello"), Status::BadRequest);
    let unprocessable = Status::UnprocessableContent;
    assert_eq!(
        status(&sdp, &OFFER.replace("a=rtcp-mux", "")),
        unprocessable
    );
    let two = format!("{OFFER}m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=rtcp-mux\r\n");
    assert_eq!(status(&sdp, &two), unprocessable);
    let with_charset = [("Content-Type", "Application/SDP; charset=utf-8")];
    let valid = request("POST", "/whip/live/demo", &with_charset, OFFER);
    assert!(matches!(
        Action::parse(&valid),
        Some(Action::Publish { .. })
    ));
}

/// CASE 67.
#[test]
fn offers_of_the_wrong_direction_are_refused() {
    let sdp = [("Content-Type", "application/sdp")];
    let receiving = OFFER.replace("sendrecv", "recvonly");
    let sending = OFFER.replace("sendrecv", "sendonly");
    for (target, offer) in [("/whip/a/b", receiving), ("/whep/a/b", sending)] {
        let refusal = request("POST", target, &sdp, &offer);
        let refusal = answered(Action::parse(&refusal).expect("ours"));
        assert_eq!(refusal.status(), Status::UnprocessableContent);
        let body: serde_json::Value = serde_json::from_slice(refusal.body()).expect("JSON");
        assert_eq!(body["reason"], "offer_wrong_direction");
    }
}

/// CASE 65.
#[test]
fn a_preflight_needs_no_token_and_a_refusal_names_the_scheme() {
    for (target, methods) in [
        ("/whip/live/demo", "POST"),
        ("/whep/live/demo", "POST"),
        ("/session/s1", "PATCH, DELETE"),
    ] {
        let preflight = request(
            "OPTIONS",
            target,
            &[
                ("Origin", "https://example.org"),
                ("Access-Control-Request-Method", "POST"),
                (
                    "Access-Control-Request-Headers",
                    "authorization,content-type",
                ),
            ],
            "",
        );
        let response = answered(Action::parse(&preflight).expect("ours"));
        assert_eq!(response.status(), Status::NoContent);
        let allowed = response.header("access-control-allow-methods");
        assert!(allowed.is_some_and(|all| all.contains(methods)), "{target}");
        let headers = response.header("access-control-allow-headers");
        assert_eq!(headers, Some("Authorization, Content-Type, If-Match"));
        assert_eq!(response.header("accept-post"), Some("application/sdp"));
    }
    let missing = answer::unauthorized(None);
    let challenge = missing.header("www-authenticate").unwrap_or_default();
    assert!(challenge.starts_with("Bearer ") && !challenge.contains("error"));
    let wrong = answer::unauthorized(Some(&Token::new("x")));
    let challenge = wrong.header("www-authenticate").unwrap_or_default();
    assert!(challenge.contains("error=\"invalid_token\""));
    for response in [missing, wrong] {
        assert_eq!(response.status(), Status::Unauthorized);
        assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    }
}

/// CASE 66, the answer.
#[test]
fn an_absent_publisher_says_when_to_ask_again() {
    let wait = |millis| {
        let after = Some(Duration::from_millis(millis));
        let response = answer::conflict("no_publisher", "Nobody publishes.", after);
        assert_eq!(response.status(), Status::Conflict);
        response.header("retry-after").map(str::to_owned)
    };
    assert_eq!(wait(0).as_deref(), Some("1"));
    assert_eq!(wait(1000).as_deref(), Some("1"));
    assert_eq!(wait(1001).as_deref(), Some("2"));
    let taken = answer::conflict("stream_taken", "Somebody publishes.", None);
    assert_eq!(taken.header("retry-after"), None);
    let full = answer::unavailable("draining", "Stopping.", Duration::from_secs(5));
    assert_eq!(full.status(), Status::ServiceUnavailable);
    assert_eq!(full.header("retry-after"), Some("5"));
}

#[test]
fn reading_gives_nothing_and_other_methods_are_refused_with_those_allowed() {
    for target in ["/whip/a/b", "/whep/a/b", "/session/s1"] {
        for method in ["GET", "HEAD"] {
            assert_eq!(status_of(method, target, &[], ""), Status::NoContent);
        }
        let put = request("PUT", target, &[], "");
        let response = answered(Action::parse(&put).expect("ours"));
        assert_eq!(response.status(), Status::MethodNotAllowed);
        assert!(response.header("allow").is_some());
    }
    assert_eq!(
        status_of("DELETE", "/whip/a/b", &[], ""),
        Status::MethodNotAllowed
    );
    assert_eq!(
        status_of("POST", "/session/s1", &[], ""),
        Status::MethodNotAllowed
    );
}

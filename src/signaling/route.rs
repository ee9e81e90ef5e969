//! [`Route`]: the URLs of the HTTP port.

use super::{Action, action, answer};
use crate::http::page::Asset;
use crate::http::{Method, Request, Response, Status};

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/` and its files: answer with [`Asset::respond`].
    Page(&'static Asset),
    /// `/api/v1/streams`: all live streams.
    ApiStreams,
    /// `/api/v1/streams/{app}/{stream}`: one of them.
    ApiStream {
        /// App and stream, joined by a slash.
        name: String,
    },
    /// `/api/v1/rooms`: all rooms.
    ApiRooms,
    /// `/api/v1/calls`: all calls.
    ApiCalls,
    /// `/ws`: rooms and calls, over WebSocket.
    WebSocket,
    /// `/metrics`: Prometheus text.
    Metrics,
    /// `/healthz`: whether new sessions are taken.
    Healthz,
    /// WHIP or WHEP.
    Signaling(Action),
    /// None of these: this is the answer.
    Answer(Response),
}

impl Route {
    /// The route of `request`. HEAD goes where GET goes; the session leaves the body out.
    pub fn of(request: &Request) -> Self {
        if let Some(action) = Action::parse(request) {
            return match action {
                Action::Answer(response) => Self::Answer(response),
                action => Self::Signaling(action),
            };
        }
        let segments: Vec<&str> = request.path.iter().map(String::as_str).collect();
        let route = match segments[..] {
            ["api", "v1", "streams"] | ["api", "v1", "streams", ""] => Self::ApiStreams,
            ["api", "v1", "streams", ..] => {
                let name = request.path.get(3..).and_then(action::stream_name);
                match name {
                    Some(name) => Self::ApiStream { name },
                    None => return Self::Answer(unknown_stream()),
                }
            }
            ["api", "v1", "rooms"] => Self::ApiRooms,
            ["api", "v1", "calls"] => Self::ApiCalls,
            ["ws"] => Self::WebSocket,
            ["metrics"] => Self::Metrics,
            ["healthz"] => Self::Healthz,
            _ => match Asset::find(&request.path) {
                Some(asset) => Self::Page(asset),
                None => return Self::Answer(not_found()),
            },
        };
        match request.method {
            Method::Get | Method::Head => route,
            Method::Options => Self::Answer(
                Response::new(Status::NoContent)
                    .with_header("Allow", METHODS)
                    .with_header("Access-Control-Allow-Methods", METHODS)
                    .with_cors(),
            ),
            _ => Self::Answer(
                answer::problem(
                    Status::MethodNotAllowed,
                    "method_not_allowed",
                    "This resource can only be read.",
                )
                .with_header("Allow", METHODS),
            ),
        }
    }
}

/// 404 for a stream that is not live.
pub fn unknown_stream() -> Response {
    answer::problem(
        Status::NotFound,
        "unknown_stream",
        "There is no live stream of this name.",
    )
}

fn not_found() -> Response {
    answer::problem(
        Status::NotFound,
        "no_such_resource",
        "There is nothing here; the page at / shows what the gateway offers.",
    )
}

const METHODS: &str = "OPTIONS, GET, HEAD";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signaling::action::tests::request;

    fn get(target: &str) -> Route {
        Route::of(&request("GET", target, &[], ""))
    }

    #[test]
    fn each_url_has_its_route() {
        assert!(matches!(get("/"), Route::Page(_)));
        assert!(matches!(get("/?play=live/demo"), Route::Page(_)));
        assert!(matches!(get("/app.js"), Route::Page(_)));
        assert_eq!(get("/api/v1/streams"), Route::ApiStreams);
        assert_eq!(get("/api/v1/streams/"), Route::ApiStreams);
        for target in ["/api/v1/streams/a/b/c", "/api/v1/streams/a%2Fb%2fc"] {
            let name = "a/b/c".to_owned();
            assert_eq!(get(target), Route::ApiStream { name });
        }
        assert_eq!(get("/metrics"), Route::Metrics);
        assert_eq!(get("/healthz"), Route::Healthz);
        let delete = request("DELETE", "/session/x", &[], "");
        assert!(matches!(Route::of(&delete), Route::Signaling(_)));
    }

    #[test]
    fn what_is_not_there_or_not_allowed_says_so() {
        let status = |route| match route {
            Route::Answer(response) => response.status(),
            route => panic!("{route:?}"),
        };
        for target in [
            "/nothing",
            "/app.js/",
            "//",
            "/index.html/../app.js",
            "/api/v1/streams/../x",
            "/api/v2/streams",
        ] {
            assert_eq!(status(get(target)), Status::NotFound, "{target}");
        }
        let post = Route::of(&request("POST", "/metrics", &[], ""));
        assert_eq!(status(post), Status::MethodNotAllowed);
        let options = Route::of(&request("OPTIONS", "/api/v1/streams", &[], ""));
        assert_eq!(status(options), Status::NoContent);
    }
}

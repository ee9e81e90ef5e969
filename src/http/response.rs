//! [`Response`]: what the gateway answers, and its bytes.

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::Bytes;
use serde::Serialize;

use super::Version;

/// The statuses the gateway uses (RFC 9110 section 15, RFC 6585).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the specifications")]
pub enum Status {
    SwitchingProtocols = 101,
    Ok = 200,
    Created = 201,
    NoContent = 204,
    NotModified = 304,
    BadRequest = 400,
    Unauthorized = 401,
    Forbidden = 403,
    NotFound = 404,
    MethodNotAllowed = 405,
    NotAcceptable = 406,
    RequestTimeout = 408,
    Conflict = 409,
    PreconditionFailed = 412,
    ContentTooLarge = 413,
    UriTooLong = 414,
    UnsupportedMediaType = 415,
    ExpectationFailed = 417,
    UnprocessableContent = 422,
    UpgradeRequired = 426,
    PreconditionRequired = 428,
    TooManyRequests = 429,
    HeaderFieldsTooLarge = 431,
    InternalServerError = 500,
    NotImplemented = 501,
    ServiceUnavailable = 503,
    VersionNotSupported = 505,
}

impl Status {
    /// The three digits.
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// The reason phrase; also the title of a problem body.
    pub const fn phrase(self) -> &'static str {
        match self {
            Self::SwitchingProtocols => "Switching Protocols",
            Self::Ok => "OK",
            Self::Created => "Created",
            Self::NoContent => "No Content",
            Self::NotModified => "Not Modified",
            Self::BadRequest => "Bad Request",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "Not Found",
            Self::MethodNotAllowed => "Method Not Allowed",
            Self::NotAcceptable => "Not Acceptable",
            Self::RequestTimeout => "Request Timeout",
            Self::Conflict => "Conflict",
            Self::PreconditionFailed => "Precondition Failed",
            Self::ContentTooLarge => "Content Too Large",
            Self::UriTooLong => "URI Too Long",
            Self::UnsupportedMediaType => "Unsupported Media Type",
            Self::ExpectationFailed => "Expectation Failed",
            Self::UnprocessableContent => "Unprocessable Content",
            Self::UpgradeRequired => "Upgrade Required",
            Self::PreconditionRequired => "Precondition Required",
            Self::TooManyRequests => "Too Many Requests",
            Self::HeaderFieldsTooLarge => "Request Header Fields Too Large",
            Self::InternalServerError => "Internal Server Error",
            Self::NotImplemented => "Not Implemented",
            Self::ServiceUnavailable => "Service Unavailable",
            Self::VersionNotSupported => "HTTP Version Not Supported",
        }
    }

    /// Whether such a response has neither a body nor a length (RFC 9110 section 6.4.1).
    const fn is_bodiless(self) -> bool {
        matches!(
            self,
            Self::SwitchingProtocols | Self::NoContent | Self::NotModified
        )
    }
}

/// One response. The session adds `Content-Length`, `Connection` and `Server`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    status: Status,
    headers: Vec<(&'static str, Cow<'static, str>)>,
    body: Bytes,
    close: bool,
}

/// A problem body (RFC 9457); `reason` is our extension member: a name for programs.
#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    reason: &'a str,
}

impl Response {
    /// A response without a body.
    pub fn new(status: Status) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Bytes::new(),
            close: false,
        }
    }

    /// 200 with `value` as JSON, never to be cached.
    pub fn json(value: &impl Serialize) -> Self {
        Self::new(Status::Ok)
            .with_header("Cache-Control", "no-store")
            .with_body("application/json", encode_json(value))
    }

    /// 200 with plain text, never to be cached.
    pub fn text(text: impl Into<String>) -> Self {
        Self::new(Status::Ok)
            .with_header("Cache-Control", "no-store")
            .with_body("text/plain; charset=utf-8", text.into())
    }

    /// An error as a problem body: `reason` is a short snake_case name for programs,
    /// `detail` a sentence for people that says what to do.
    pub fn problem(status: Status, reason: &str, detail: &str) -> Self {
        let problem = Problem {
            r#type: "about:blank",
            title: status.phrase(),
            status: status.code(),
            detail,
            reason,
        };
        Self::new(status)
            .with_header("Cache-Control", "no-store")
            .with_body("application/problem+json", encode_json(&problem))
    }

    /// Sets the body and its media type.
    pub fn with_body(self, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let mut response = self.with_header("Content-Type", content_type);
        response.body = body.into();
        response
    }

    /// Appends a header field. Control characters, with which a value from a peer could
    /// begin another field, are left out.
    pub fn with_header(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        let mut value = value.into();
        if value.chars().any(char::is_control) {
            value = value.chars().filter(|c| !c.is_control()).collect();
        }
        self.headers.push((name, value));
        self
    }

    /// Gives the header field of this name another value, if it is there.
    pub fn replace_header(&mut self, name: &str, value: impl Into<String>) {
        let mut value: String = value.into();
        value.retain(|c| !c.is_control());
        let found = self
            .headers
            .iter_mut()
            .find(|(key, _)| key.eq_ignore_ascii_case(name));
        if let Some((_, present)) = found {
            *present = value.into();
        }
    }

    /// Takes the header fields of this name out.
    pub fn remove_header(&mut self, name: &str) {
        self.headers
            .retain(|(key, _)| !key.eq_ignore_ascii_case(name));
    }

    /// Lets pages of any origin read this response and the headers WHIP and WHEP need.
    /// Without it on an error, `fetch` shows a page nothing but "failed".
    pub fn with_cors(self) -> Self {
        self.with_header("Access-Control-Allow-Origin", "*")
            .with_header("Access-Control-Expose-Headers", EXPOSED_HEADERS)
    }

    /// Asks for the connection to be closed behind this response.
    pub fn close(mut self) -> Self {
        self.close = true;
        self
    }

    /// The status.
    pub const fn status(&self) -> Status {
        self.status
    }

    /// The first header field of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| &**value)
    }

    /// The body.
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// Whether the connection is to be closed behind it.
    pub(super) const fn closes(&self) -> bool {
        self.close
    }

    /// The head on the wire, blank line included.
    pub(super) fn encode_head(&self, version: Version, keep_alive: bool) -> Bytes {
        let mut head = String::with_capacity(384);
        let (code, phrase) = (self.status.code(), self.status.phrase());
        // RFC 9110 section 2.5: the server's own highest version, whatever the peer's.
        let mut line = |name: &str, value: &str| {
            // Writing to a `String` cannot fail.
            let _ = write!(head, "{name}{value}\r\n");
        };
        line("HTTP/1.1 ", &format!("{code} {phrase}"));
        line("Server: ", SERVER);
        if !self.status.is_bodiless() {
            line("Content-Length: ", &self.body.len().to_string());
        }
        for (name, value) in &self.headers {
            line(&format!("{name}: "), value);
        }
        if self.status != Status::SwitchingProtocols {
            match (keep_alive, version) {
                (false, _) => line("Connection: ", "close"),
                (true, Version::Http10) => line("Connection: ", "keep-alive"),
                (true, Version::Http11) => {}
            }
        }
        head.push_str("\r\n");
        Bytes::from(head)
    }

    /// The body on the wire: empty where there may be none.
    pub(super) fn wire_body(self, to_head_request: bool) -> Bytes {
        match to_head_request || self.status.is_bodiless() {
            true => Bytes::new(),
            false => self.body,
        }
    }
}

fn encode_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("our own values have string keys and no failing parts")
}

const SERVER: &str = concat!("rtmp-gateway/", env!("CARGO_PKG_VERSION"));

/// What a page of another origin may read besides the body.
const EXPOSED_HEADERS: &str =
    "Location, ETag, Link, Accept-Patch, Accept-Post, Retry-After, WWW-Authenticate";

#[cfg(test)]
mod tests {
    use super::*;

    fn head(response: &Response) -> String {
        let head = response.encode_head(Version::Http11, true);
        String::from_utf8(head.to_vec()).expect("text")
    }

    #[test]
    fn a_problem_is_json_for_programs_and_people() {
        let response = Response::problem(Status::Conflict, "no_publisher", "Say \"please\".");
        let body: serde_json::Value = serde_json::from_slice(response.body()).expect("JSON");
        assert_eq!(body["status"], 409);
        assert_eq!(body["title"], "Conflict");
        assert_eq!(body["reason"], "no_publisher");
        assert_eq!(body["detail"], "Say \"please\".");
        assert_eq!(
            response.header("content-type"),
            Some("application/problem+json")
        );
    }

    #[test]
    fn the_head_has_what_the_specification_wants() {
        let ok = head(&Response::text("hello"));
        assert!(
            ok.starts_with("HTTP/1.1 200 OK\r\nServer: rtmp-gateway/"),
            "{ok}"
        );
        assert!(ok.contains("\r\nContent-Length: 5\r\n"), "{ok}");
        assert!(ok.ends_with("\r\n\r\n"), "{ok}");
        assert!(!ok.contains("Connection"), "{ok}");
        let none = head(&Response::new(Status::NoContent));
        assert!(!none.contains("Content-Length"), "{none}");
        let empty = head(&Response::new(Status::Ok));
        assert!(empty.contains("Content-Length: 0\r\n"), "{empty}");
    }

    #[test]
    fn a_header_value_cannot_begin_another_header() {
        let value = "x\r\nSet-Cookie: a\0b";
        let sent = head(&Response::new(Status::Ok).with_header("X-Test", value));
        assert!(sent.contains("X-Test: xSet-Cookie: ab\r\n"), "{sent}");
    }
}

//! [`Request`]: a request's head, taken apart, and its body once it is whole.

use std::fmt;

use bytes::Bytes;

use super::Error;
use super::target::{Target, is_host};

/// The methods the gateway knows; any other is answered with 501.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of RFC 9110 section 9 and RFC 5789")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
}

impl Method {
    fn parse(name: &str) -> Option<Self> {
        // Methods are case-sensitive (RFC 9110 section 9.1).
        Some(match name {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "PATCH" => Self::Patch,
            "DELETE" => Self::Delete,
            "OPTIONS" => Self::Options,
            _ => return None,
        })
    }
}

/// The peer's version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Version {
    Http10,
    Http11,
}

/// Header fields in the order they came. Names compare without regard to case.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// The value of the first field of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self
            .0
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        Some(value)
    }

    /// The values of all fields of this name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The elements of all fields of this name, taken as comma-separated lists; empty
    /// elements are left out (RFC 9110 section 5.6.1).
    pub fn list<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.all(name)
            .flat_map(|value| value.split(','))
            .map(|element| element.trim_matches([' ', '\t']))
            .filter(|element| !element.is_empty())
    }

    /// Whether a comma-separated list has this element, in any case.
    pub fn has(&self, name: &str, element: &str) -> bool {
        self.list(name)
            .any(|found| found.eq_ignore_ascii_case(element))
    }
}

/// One request, whole.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The decoded path segments, see [`Target::path`].
    pub path: Vec<String>,
    /// The decoded query, see [`Target::query`].
    pub query: Vec<(String, String)>,
    /// The version of the protocol.
    pub version: Version,
    /// The header fields.
    pub headers: Headers,
    /// Name or address and port the peer meant: the authority of an absolute-form
    /// target, else `Host`. Always there in HTTP/1.1. The peer may have put in anything.
    pub host: Option<String>,
    /// The body; empty if there is none.
    pub body: Bytes,
}

impl Request {
    /// The value of the first query parameter of this name.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The media type of the body in lower case, without its parameters; `None` if the
    /// request does not name one.
    pub fn content_type(&self) -> Option<String> {
        let value = self.headers.get("content-type")?;
        let essence = value.split(';').next().unwrap_or_default().trim();
        (!essence.is_empty()).then(|| essence.to_ascii_lowercase())
    }

    /// Whether this is a well-formed opening handshake of a WebSocket (RFC 6455 section
    /// 4.2.1). [`super::Session::upgrade`] then takes the connection over.
    pub fn is_websocket_upgrade(&self) -> bool {
        self.method == Method::Get
            && self.version == Version::Http11
            && self.headers.has("connection", "upgrade")
            && self.headers.has("upgrade", "websocket")
            && self.headers.get("sec-websocket-version") == Some("13")
            && self.headers.get("sec-websocket-key").is_some()
    }
}

/// Shows what was asked for, but no header and no query value: these carry tokens.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} /{}", self.method, self.path.join("/"))?;
        write!(f, " ({} body bytes)", self.body.len())
    }
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
}

/// A request whose body is still to come, and what its head says about the connection.
pub(super) struct Head {
    pub request: Request,
    pub framing: Framing,
    /// Whether the peer keeps the connection for another request.
    pub keep_alive: bool,
    /// Whether the peer waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
}

impl Head {
    /// Parses a whole head, blank line included.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut fields);
        let status = parsed.parse(bytes).map_err(|error| match error {
            httparse::Error::Version => Error::UnsupportedVersion,
            httparse::Error::TooManyHeaders => Error::TooManyHeaders,
            _ => Error::MalformedHead,
        })?;
        if status.is_partial() {
            return Err(Error::MalformedHead);
        }
        let (Some(name), Some(target), Some(version)) =
            (parsed.method, parsed.path, parsed.version)
        else {
            return Err(Error::MalformedHead);
        };
        let method = Method::parse(name).ok_or(Error::UnsupportedMethod)?;
        let version = match version {
            0 => Version::Http10,
            _ => Version::Http11,
        };
        let headers = Headers(
            parsed
                .headers
                .iter()
                .map(|field| {
                    let value = String::from_utf8_lossy(field.value);
                    (field.name.to_owned(), value.trim().to_owned())
                })
                .collect(),
        );
        let target = Target::parse(method, target)?;
        let host = host(version, &headers)?;
        let framing = framing(version, &headers)?;
        let expects_continue = expects_continue(version, &headers)?;
        let keep_alive = match version {
            Version::Http11 => !headers.has("connection", "close"),
            Version::Http10 => {
                headers.has("connection", "keep-alive") && !headers.has("connection", "close")
            }
        };
        Ok(Self {
            request: Request {
                method,
                path: target.path,
                query: target.query,
                version,
                headers,
                // RFC 9112 section 3.2.2: the target's authority wins.
                host: target.authority.or(host),
                body: Bytes::new(),
            },
            framing,
            keep_alive,
            expects_continue,
        })
    }
}

/// RFC 9112 section 3.2: exactly one `Host` in HTTP/1.1, at most one in HTTP/1.0. An empty
/// one is legal and says nothing.
fn host(version: Version, headers: &Headers) -> Result<Option<String>, Error> {
    let mut hosts = headers.all("host");
    let host = hosts.next();
    if hosts.next().is_some() || (host.is_none() && version == Version::Http11) {
        return Err(Error::BadHost);
    }
    match host {
        None | Some("") => Ok(None),
        Some(host) if is_host(host) => Ok(Some(host.to_owned())),
        Some(_) => Err(Error::BadHost),
    }
}

/// RFC 9112 section 6: refuses whatever two servers in a row could understand differently.
fn framing(version: Version, headers: &Headers) -> Result<Framing, Error> {
    let mut lengths = headers.all("content-length").flat_map(|v| v.split(','));
    if headers.all("transfer-encoding").next().is_some() {
        if lengths.next().is_some() || version == Version::Http10 {
            return Err(Error::AmbiguousFraming);
        }
        let mut codings = headers.list("transfer-encoding");
        let first = codings.next().ok_or(Error::AmbiguousFraming)?;
        let last = codings.last().unwrap_or(first);
        return if !last.eq_ignore_ascii_case("chunked") {
            Err(Error::AmbiguousFraming)
        } else if headers.list("transfer-encoding").count() > 1 {
            Err(Error::UnsupportedCoding)
        } else {
            Ok(Framing::Chunked)
        };
    }
    let Some(length) = lengths.next() else {
        return Ok(Framing::Length(0));
    };
    let length = length.trim_matches([' ', '\t']);
    if lengths.any(|other| other.trim_matches([' ', '\t']) != length) {
        return Err(Error::BadContentLength);
    }
    // `parse` would take a plus sign.
    if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Error::BadContentLength);
    }
    // More digits than fit are too many bytes all the same.
    length
        .parse()
        .map(Framing::Length)
        .map_err(|_| Error::BodyTooLarge)
}

/// RFC 9110 section 10.1.1. HTTP/1.0 peers do not know the interim response.
fn expects_continue(version: Version, headers: &Headers) -> Result<bool, Error> {
    match headers.get("expect") {
        None => Ok(false),
        Some(_) if version == Version::Http10 => Ok(false),
        Some(value) if value.eq_ignore_ascii_case("100-continue") => Ok(true),
        Some(_) => Err(Error::UnsupportedExpectation),
    }
}

/// Bounds the header fields of a request: browsers send about 15, proxies add a few. One
/// more is answered with 431.
pub const HEADERS_MAX: usize = 64;

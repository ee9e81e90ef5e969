//! [`HttpCall`]: one request of WHIP or WHEP on a connection of its own, without blocking.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};

use mio::net::TcpStream;

/// `http://host[:port]/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl {
    /// Host and port as they stand in the address.
    pub authority: String,
    /// With its query.
    pub path: String,
}

impl HttpUrl {
    /// Takes an address apart.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rest = text
            .strip_prefix("http://")
            .ok_or_else(|| format!("{text:?} does not begin with http://"))?;
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        if authority.is_empty() {
            return Err(format!("{text:?} has no host"));
        }
        Ok(Self {
            authority: authority.to_owned(),
            path: path.to_owned(),
        })
    }

    /// The address of the server. Blocks while the name is looked up.
    pub fn resolve(&self) -> Result<SocketAddr, String> {
        let has_port = self.authority.rsplit_once(':').is_some_and(|(_, port)| {
            !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
        });
        let authority = match has_port {
            true => self.authority.clone(),
            false => format!("{}:80", self.authority),
        };
        first_address(&authority)
    }

    /// What a `Location` header field means that came in answer to this address.
    pub fn join(&self, location: &str) -> Self {
        match Self::parse(location) {
            Ok(url) => url,
            Err(_) => Self {
                authority: self.authority.clone(),
                path: match location.starts_with('/') {
                    true => location.to_owned(),
                    false => {
                        let end = self.path.rfind('/').map_or(0, |at| at + 1);
                        format!("{}{location}", &self.path[..end])
                    }
                },
            },
        }
    }
}

/// The first address of `host:port`, IPv4 before IPv6.
pub fn first_address(authority: &str) -> Result<SocketAddr, String> {
    let all: Vec<SocketAddr> = authority
        .to_socket_addrs()
        .map_err(|error| format!("{authority}: {error}"))?
        .collect();
    let first = all.iter().find(|address| address.is_ipv4()).or(all.first());
    first
        .copied()
        .ok_or_else(|| format!("{authority} has no address"))
}

/// What the server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Such as 201.
    pub status: u16,
    /// Where the session is.
    pub location: Option<String>,
    /// The body.
    pub body: String,
}

/// A request under way.
#[derive(Debug)]
pub struct HttpCall {
    /// To be registered with the loop, and taken out of it at the end.
    pub stream: TcpStream,
    request: Vec<u8>,
    written: usize,
    input: Vec<u8>,
    has_end: bool,
}

impl HttpCall {
    /// A request to `address`. It is sent when the connection stands.
    pub fn new(
        address: SocketAddr,
        url: &HttpUrl,
        method: &str,
        body: Option<&str>,
    ) -> std::io::Result<Self> {
        Ok(Self::on(TcpStream::connect(address)?, url, method, body))
    }

    /// The same on a connection that is being made.
    pub fn on(stream: TcpStream, url: &HttpUrl, method: &str, body: Option<&str>) -> Self {
        let HttpUrl { authority, path } = url;
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\
             User-Agent: rtmp-flood/{}\r\n",
            env!("CARGO_PKG_VERSION")
        );
        if let Some(body) = body {
            request += &format!(
                "Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
        } else {
            request += "\r\n";
        }
        Self {
            stream,
            request: request.into_bytes(),
            written: 0,
            input: Vec::new(),
            has_end: false,
        }
    }

    /// Goes on after readiness; the answer once it is there.
    ///
    /// # Errors
    /// A short reason.
    pub fn advance(&mut self, buffer: &mut [u8]) -> Result<Option<Response>, String> {
        if let Ok(Some(error)) = self.stream.take_error() {
            return Err(tcp_reason(error.kind()));
        }
        while self.written < self.request.len() {
            match self.stream.write(&self.request[self.written..]) {
                Ok(0) => return Err("http_closed".into()),
                Ok(count) => self.written += count,
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::NotConnected => return Ok(None),
                    ErrorKind::Interrupted => {}
                    kind => return Err(tcp_reason(kind)),
                },
            }
        }
        while !self.has_end {
            match self.stream.read(buffer) {
                Ok(0) => self.has_end = true,
                Ok(count) => self.input.extend_from_slice(&buffer[..count]),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => break,
                    ErrorKind::Interrupted => {}
                    kind => return Err(tcp_reason(kind)),
                },
            }
            if self.input.len() > RESPONSE_BYTES_MAX {
                return Err("http_too_long".into());
            }
        }
        match parse(&self.input, self.has_end)? {
            Some(response) => Ok(Some(response)),
            None if self.has_end => Err("http_closed".into()),
            None => Ok(None),
        }
    }
}

/// The answer in `input`; `None` if it is not all there.
fn parse(input: &[u8], has_end: bool) -> Result<Option<Response>, String> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut fields);
    let malformed = |_| "http_malformed".to_owned();
    let httparse::Status::Complete(length) = head.parse(input).map_err(malformed)? else {
        return Ok(None);
    };
    let field = |name: &str| {
        let mut fields = head.headers.iter();
        let field = fields.find(|field| field.name.eq_ignore_ascii_case(name))?;
        Some(String::from_utf8_lossy(field.value).trim().to_owned())
    };
    let rest = &input[length..];
    let status = head.code.unwrap_or(0);
    let is_chunked = field("transfer-encoding").is_some_and(|value| value.contains("chunked"));
    let body = if status == 204 || status == 304 {
        Some(Vec::new())
    } else if is_chunked {
        unchunked(rest)?
    } else if let Some(length) = field("content-length") {
        let length: usize = length.parse().map_err(|_| "http_malformed".to_owned())?;
        rest.get(..length).map(<[u8]>::to_vec)
    } else {
        has_end.then(|| rest.to_vec())
    };
    Ok(body.map(|body| Response {
        status,
        location: field("location"),
        body: String::from_utf8_lossy(&body).into_owned(),
    }))
}

/// A body in chunks (RFC 9112 section 7.1); `None` if it is not all there.
fn unchunked(mut rest: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let mut body = Vec::new();
    loop {
        let size = httparse::parse_chunk_size(rest).map_err(|_| "http_malformed".to_owned())?;
        let httparse::Status::Complete((at, size)) = size else {
            return Ok(None);
        };
        if size == 0 {
            return Ok(Some(body));
        }
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let Some(chunk) = at.checked_add(size).and_then(|end| rest.get(at..end)) else {
            return Ok(None);
        };
        body.extend_from_slice(chunk);
        let Some(after) = rest.get(at + size + 2..) else {
            return Ok(None);
        };
        rest = after;
    }
}

/// What became of a TCP connection, as a short name.
pub fn tcp_reason(kind: ErrorKind) -> String {
    match kind {
        ErrorKind::ConnectionRefused => "tcp_refused".into(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => {
            "tcp_reset".into()
        }
        ErrorKind::TimedOut => "tcp_timeout".into(),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => "tcp_unreachable".into(),
        ErrorKind::AddrNotAvailable | ErrorKind::AddrInUse => "no_local_port".into(),
        other => format!("tcp_{other:?}").to_lowercase(),
    }
}

/// An answer is an SDP of some kilobytes.
const RESPONSE_BYTES_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let url = HttpUrl::parse("http://h:8080/whep/live/s?token=x").expect("good");
        assert_eq!(
            (&url.authority[..], &url.path[..]),
            ("h:8080", "/whep/live/s?token=x")
        );
        assert_eq!(HttpUrl::parse("http://h").expect("good").path, "/");
        assert!(HttpUrl::parse("https://h/x").is_err());
        assert!(HttpUrl::parse("http:///x").is_err());
    }

    #[test]
    fn a_location_may_be_relative() {
        let url = HttpUrl::parse("http://h:8080/whep/live/s").expect("good");
        for (location, path) in [
            ("http://other/whep/1", "/whep/1"),
            ("/whep/session/1", "/whep/session/1"),
            ("s/1", "/whep/live/s/1"),
        ] {
            assert_eq!(url.join(location).path, path);
        }
        assert_eq!(url.join("/x").authority, "h:8080");
        assert_eq!(url.join("http://other/x").authority, "other");
    }

    #[test]
    fn answers_are_read_in_every_framing() {
        let expected = Some(Response {
            status: 201,
            location: Some("/s/1".into()),
            body: "v=0 sdp".into(),
        });
        for (head, body, needs_end) in [
            ("Content-Length: 7\r\n", "v=0 sdp", false),
            (
                "Transfer-Encoding: chunked\r\n",
                "4\r\nv=0 \r\n3\r\nsdp\r\n0\r\n\r\n",
                false,
            ),
            ("", "v=0 sdp", true),
        ] {
            let text = format!("HTTP/1.1 201 Created\r\nlocation: /s/1\r\n{head}\r\n{body}");
            assert_eq!(
                parse(text.as_bytes(), needs_end),
                Ok(expected.clone()),
                "{head}"
            );
            for end in 0..text.len() - 5 {
                assert_eq!(
                    parse(&text.as_bytes()[..end], false),
                    Ok(None),
                    "{head} {end}"
                );
            }
        }
        assert!(parse(b"SSH-2.0\r\n\r\n", false).is_err());
    }
}

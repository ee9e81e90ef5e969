//! [`RtmpUrl`]: `rtmp://host[:port]/app[/more]/stream[?query]`.

use std::fmt;

/// The parts of an RTMP address as a client needs them.
///
/// The last path segment is the stream name and takes the query along, as with ffmpeg; what
/// stands before it is the app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RtmpUrl {
    host: String,
    port: u16,
    app: String,
    stream: String,
}

/// Why a text is no RTMP address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlError {
    /// It does not begin with `rtmp://`.
    Scheme,
    /// The host is empty or its brackets do not match.
    Host,
    /// The port is no number from 1 to 65 535.
    Port,
    /// It needs an app and a stream name.
    Path,
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            UrlError::Scheme => "the address does not begin with rtmp://",
            UrlError::Host => "the address has no valid host",
            UrlError::Port => "the port is not a number from 1 to 65535",
            UrlError::Path => "the address needs an app and a stream name",
        })
    }
}

impl std::error::Error for UrlError {}

impl RtmpUrl {
    /// Reads an address. IPv6 hosts stand in brackets; the port is 1935 by default.
    ///
    /// # Errors
    /// See [`UrlError`].
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let rest = text.strip_prefix("rtmp://").ok_or(UrlError::Scheme)?;
        let (authority, path) = rest.split_once('/').ok_or(UrlError::Path)?;
        let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
            let (host, port) = rest.split_once(']').ok_or(UrlError::Host)?;
            match port.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if port.is_empty() => (host, None),
                None => return Err(UrlError::Host),
            }
        } else {
            match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            }
        };
        if host.is_empty() || host.contains(['[', ']', '@']) {
            return Err(UrlError::Host);
        }
        let port = match port {
            Some(port) => port.parse().map_err(|_| UrlError::Port)?,
            None => DEFAULT_PORT,
        };
        if port == 0 {
            return Err(UrlError::Port);
        }
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path, None),
        };
        let (app, name) = path.rsplit_once('/').ok_or(UrlError::Path)?;
        if app.is_empty() || name.is_empty() {
            return Err(UrlError::Path);
        }
        Ok(Self {
            host: host.to_owned(),
            port,
            app: app.to_owned(),
            stream: match query {
                Some(query) => format!("{name}?{query}"),
                None => name.to_owned(),
            },
        })
    }

    /// The host without brackets: a name or an address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// 1 to 65 535.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The app of the connect command.
    pub fn app(&self) -> &str {
        &self.app
    }

    /// The stream name with its query.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// The address without the stream name.
    pub fn tc_url(&self) -> String {
        let (open, close) = if self.host.contains(':') {
            ("[", "]")
        } else {
            ("", "")
        };
        format!(
            "rtmp://{open}{}{close}:{}/{}",
            self.host, self.port, self.app
        )
    }
}

impl fmt::Display for RtmpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tc_url(), self.stream)
    }
}

/// The registered port of RTMP.
const DEFAULT_PORT: u16 = 1935;

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (String, u16, String, String) {
        let url = RtmpUrl::parse(text).expect("an address");
        (url.host, url.port, url.app, url.stream)
    }

    #[test]
    fn addresses_are_taken_apart() {
        let owned = |host: &str, port, app: &str, stream: &str| {
            (host.to_owned(), port, app.to_owned(), stream.to_owned())
        };
        assert_eq!(parts("rtmp://h/live/s"), owned("h", 1935, "live", "s"));
        assert_eq!(
            parts("rtmp://h:1936/live/room1/s?token=a/b&vhost=x"),
            owned("h", 1936, "live/room1", "s?token=a/b&vhost=x")
        );
        assert_eq!(
            parts("rtmp://[::1]/live/s"),
            owned("::1", 1935, "live", "s")
        );
        assert_eq!(
            parts("rtmp://[fe80::1]:80/live/s"),
            owned("fe80::1", 80, "live", "s")
        );
    }

    #[test]
    fn an_address_is_written_as_it_was_read() {
        for text in ["rtmp://h:1935/live/s", "rtmp://[::1]:1936/a/b/s?k=v"] {
            assert_eq!(RtmpUrl::parse(text).expect("an address").to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_by_name() {
        for (text, error) in [
            ("http://h/live/s", UrlError::Scheme),
            ("", UrlError::Scheme),
            ("rtmp://", UrlError::Path),
            ("rtmp://h", UrlError::Path),
            ("rtmp://h/live", UrlError::Path),
            ("rtmp://h/live/", UrlError::Path),
            ("rtmp://h//s", UrlError::Path),
            ("rtmp:///live/s", UrlError::Host),
            ("rtmp://[::1/live/s", UrlError::Host),
            ("rtmp://[::1]x/live/s", UrlError::Host),
            ("rtmp://h:/live/s", UrlError::Port),
            ("rtmp://h:0/live/s", UrlError::Port),
            ("rtmp://h:65536/live/s", UrlError::Port),
        ] {
            assert_eq!(RtmpUrl::parse(text), Err(error), "{text}");
        }
    }
}

//! Which stream a publisher or player means.
//!
//! RTMP programs spread one address over three strings: tcUrl and app in the connect
//! command, and the stream name in publish and play. Where the query ends up depends
//! on the program: ffmpeg leaves it on the stream name, OBS and FMLE put what stands in the
//! server field into app and tcUrl. This module brings all of them to one [`StreamName`].
//!
//! The mapping, in order:
//!
//! 1. Everything from the first `?` or `#` of app, and of the stream name, is query.
//!    `app...key...value` is the old way to write `app?key=value`.
//! 2. Without an app, the path of tcUrl is the app. tcUrl's query joins in either case.
//! 3. Path segments are percent-decoded. Empty ones, a `_definst_` (the default instance of
//!    Flash Media Server) and a leading `mp4:`, `flv:` or `f4v:` of the name are dropped.
//! 4. The segments of app and name stand in one row: the last is the name, the rest is the
//!    app. So `live` + `room/s` and `live/room` + `s` are the same stream.
//! 5. Query pairs of the name come first, then those of app, then those of tcUrl; equal pairs
//!    once. `vhost` or its synonym `domain` is read from there; the host of tcUrl is not a vhost.

use std::fmt;

/// A stream's address, free of the habits of the program that gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamName {
    /// All path segments but the last, joined by `/`. Never empty.
    pub app: String,
    /// The last path segment. Never empty.
    pub name: String,
    /// `app/name`, the stream's key, without the query. At most
    /// [`KEY_BYTES_MAX`] bytes, no control characters.
    pub key: String,
    /// Decoded query pairs, the most specific first. At most [`QUERY_PAIRS_MAX`].
    pub query: Vec<(String, String)>,
    /// The virtual host that the query names.
    pub vhost: Option<String>,
}

/// Why an address names no stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamNameError {
    /// The stream name is empty, or only query.
    EmptyName,
    /// Neither app nor tcUrl nor the name says an app.
    MissingApp,
    /// A path or query is longer than its limit, or the query has too many pairs.
    TooLong,
    /// A percent-encoding that is not UTF-8, a control character, or a segment `.` or `..`.
    BadCharacter,
}

impl StreamNameError {
    /// A short name for counters.
    pub const fn reason(&self) -> &'static str {
        match self {
            StreamNameError::EmptyName => "stream_name_empty",
            StreamNameError::MissingApp => "stream_name_without_app",
            StreamNameError::TooLong => "stream_name_too_long",
            StreamNameError::BadCharacter => "stream_name_bad_character",
        }
    }
}

impl fmt::Display for StreamNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StreamNameError::EmptyName => "the stream name is empty",
            StreamNameError::MissingApp => "the address needs an app and a stream name",
            StreamNameError::TooLong => "the stream name or its query is too long",
            StreamNameError::BadCharacter => "the stream name has characters that are not allowed",
        })
    }
}

impl std::error::Error for StreamNameError {}

impl StreamName {
    /// Resolves what connect said (`tc_url`, `app`) and what publish or play said (`stream`).
    ///
    /// # Errors
    /// See [`StreamNameError`]; the text of its `Display` is fit for the peer.
    pub fn resolve(tc_url: Option<&str>, app: &str, stream: &str) -> Result<Self, StreamNameError> {
        let url_path = tc_url.map_or("", path_of_url);
        for part in [url_path, app, stream] {
            if part.len() > QUERY_BYTES_MAX {
                return Err(StreamNameError::TooLong);
            }
        }
        let (url_path, url_query) = split_query(url_path);
        let (app_path, app_query) = split_query(app);
        let (name_path, name_query) = split_query(stream);

        let mut segments = path_segments(app_path)?;
        if segments.is_empty() {
            segments = path_segments(url_path)?;
        }
        let in_app = segments.len();
        segments.extend(path_segments(strip_prefix_of_container(name_path))?);
        if segments.len() == in_app {
            return Err(StreamNameError::EmptyName);
        }
        let name = segments.pop().ok_or(StreamNameError::EmptyName)?;
        if segments.is_empty() {
            return Err(StreamNameError::MissingApp);
        }
        let app = segments.join("/");
        let key = format!("{app}/{name}");
        if key.len() > KEY_BYTES_MAX {
            return Err(StreamNameError::TooLong);
        }

        let mut query = Vec::new();
        for text in [name_query, app_query, url_query] {
            collect_query(text, &mut query)?;
        }
        let vhost = query
            .iter()
            .find(|(name, value)| matches!(name.as_str(), "vhost" | "domain") && !value.is_empty())
            .map(|(_, value)| value.clone());
        Ok(Self {
            app,
            name,
            key,
            query,
            vhost,
        })
    }

    /// The first value of a query key.
    pub fn query_value(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// What the peer shows to be let in: the query's `token`.
    pub fn token(&self) -> Option<&str> {
        self.query_value("token")
    }
}

/// The path and query of `scheme://authority/path?query`, without the first `/`.
fn path_of_url(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    // The authority of an IPv6 host has no `/` either.
    rest.split_once('/').map_or("", |(_, path)| path)
}

/// Splits at the first `?`, `#` or `...`; the separator goes.
fn split_query(text: &str) -> (&str, &str) {
    let marks = [("?", 1), ("#", 1), ("...", 3)];
    let first = marks
        .iter()
        .filter_map(|&(mark, len)| text.find(mark).map(|at| (at, len)))
        .min();
    match first {
        Some((at, len)) => (
            text.get(..at).unwrap_or(""),
            text.get(at + len..).unwrap_or(""),
        ),
        None => (text, ""),
    }
}

/// VLC and mpv put the container's name before names of files.
fn strip_prefix_of_container(name: &str) -> &str {
    let name = name.trim_start_matches('/');
    ["mp4:", "flv:", "f4v:"]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))
        .unwrap_or(name)
}

/// The decoded segments of a path that mean something.
fn path_segments(path: &str) -> Result<Vec<String>, StreamNameError> {
    let decoded = percent_decode(path)?;
    let mut segments = Vec::new();
    for segment in decoded.split('/') {
        match segment {
            "" | "_definst_" => {}
            // They would not survive in the path of a WHEP URL.
            "." | ".." => return Err(StreamNameError::BadCharacter),
            _ => segments.push(segment.to_owned()),
        }
    }
    Ok(segments)
}

fn collect_query(text: &str, into: &mut Vec<(String, String)>) -> Result<(), StreamNameError> {
    // `?a...b` is written by nobody in a real query, `...` between key and value is the old form.
    let old_form = !text.contains('=') && text.contains("...");
    let mut pairs = Vec::new();
    if old_form {
        let mut parts = text.split("...");
        while let Some(key) = parts.next() {
            pairs.push((key, parts.next().unwrap_or("")));
        }
    } else {
        for pair in text.split(['?', '&', '#']) {
            pairs.push(pair.split_once('=').unwrap_or((pair, "")));
        }
    }
    for (key, value) in pairs {
        if key.is_empty() {
            continue;
        }
        let pair = (percent_decode(key)?, percent_decode(value)?);
        if into.contains(&pair) {
            continue;
        }
        if into.len() == QUERY_PAIRS_MAX {
            return Err(StreamNameError::TooLong);
        }
        into.push(pair);
    }
    Ok(())
}

/// Decodes `%xx`; what is no such thing stays as it is. `+` stays: tokens contain it.
fn percent_decode(text: &str) -> Result<String, StreamNameError> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'%'
            && let Some(&[high, low]) = tail.first_chunk::<2>()
            && let (Some(high), Some(low)) = (hex_digit(high), hex_digit(low))
        {
            decoded.push(high << 4 | low);
            rest = tail.get(2..).unwrap_or_default();
        } else {
            decoded.push(byte);
            rest = tail;
        }
    }
    let decoded = String::from_utf8(decoded).map_err(|_| StreamNameError::BadCharacter)?;
    if decoded.chars().any(char::is_control) {
        return Err(StreamNameError::BadCharacter);
    }
    Ok(decoded)
}

const fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// The longest `app/name`: it stands in logs, metrics and URLs. A longer one is refused.
pub const KEY_BYTES_MAX: usize = 256;
/// The longest app or stream name with its query; signed tokens are long. A longer one is refused.
pub const QUERY_BYTES_MAX: usize = 4096;
/// The most query pairs; vendors' signatures use six. More are refused.
pub const QUERY_PAIRS_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(tc_url: &str, app: &str, stream: &str) -> StreamName {
        StreamName::resolve(Some(tc_url), app, stream).expect("a stream name")
    }

    fn key(tc_url: &str, app: &str, stream: &str) -> String {
        resolve(tc_url, app, stream).key
    }

    /// Case 16.
    #[test]
    fn the_query_may_ride_on_app_or_name() {
        let on_name = resolve("rtmp://h/live/room1", "live/room1", "s?token=abc");
        let on_app = resolve("rtmp://h/live/room1?token=abc", "live/room1?token=abc", "s");
        let on_url = resolve("rtmp://h/live/room1?token=abc", "live/room1", "s");
        for name in [&on_name, &on_app, &on_url] {
            assert_eq!(name.key, "live/room1/s");
            assert_eq!(name.app, "live/room1");
            assert_eq!(name.name, "s");
            assert_eq!(name.token(), Some("abc"));
            assert_eq!(name.query.len(), 1);
        }
    }

    /// Case 17.
    #[test]
    fn the_habits_of_the_field_give_one_key() {
        for (tc_url, app, stream) in [
            ("rtmp://h/live", "live", "s"),
            ("rtmp://h/live", "live/", "s/"),
            ("rtmp://h/live", "/live", "/s"),
            ("rtmp://h/live", "live//", "//s"),
            ("rtmp://h/live", "live/_definst_", "s"),
            ("rtmp://h/live", "live", "_definst_/s"),
            ("rtmp://h/live", "live", "mp4:s"),
            ("rtmp://h/live", "live", "/flv:s"),
            ("rtmp://h/live", "live", "%73"),
            ("rtmp://h/live", "", "s"),
            ("rtmp://[::1]:1935/live", "", "s"),
            ("rtmp://h:1935/live/?vhost=x.com", "", "s"),
            ("rtmp://h", "", "live/s"),
            ("rtmp://h/", "", "live%2Fs"),
            ("rtmp://h/live", "live...vhost...x.com", "s"),
            ("rtmp://h/live", "live", "s#vhost=x.com"),
            ("", "live", "s"),
        ] {
            assert_eq!(
                key(tc_url, app, stream),
                "live/s",
                "{tc_url} {app} {stream}"
            );
        }
        let name = StreamName::resolve(None, "live", "s").expect("no tcUrl is needed");
        assert_eq!(name.key, "live/s");
        assert_eq!(key("", "live", "room/s"), key("", "live/room", "s"));
    }

    #[test]
    fn the_vhost_is_read_from_every_place() {
        for (tc_url, app, stream) in [
            ("rtmp://h/live", "live?vhost=x.com", "s"),
            ("rtmp://h/live", "live?domain=x.com", "s"),
            ("rtmp://h/live", "live", "s?k=v&vhost=x.com"),
            ("rtmp://h/live?vhost=x.com", "live", "s"),
            ("rtmp://h/live", "live...vhost...x.com", "s"),
            ("rtmp://h/live", "live...k...v...vhost...x.com", "s"),
            ("rtmp://h/live", "live", "s#vhost=x.com"),
        ] {
            let name = resolve(tc_url, app, stream);
            assert_eq!(
                name.vhost.as_deref(),
                Some("x.com"),
                "{tc_url} {app} {stream}"
            );
        }
        assert_eq!(resolve("rtmp://x.com/live", "live", "s").vhost, None);
        assert_eq!(resolve("", "live?vhost=", "s").vhost, None);
    }

    #[test]
    fn the_more_specific_query_wins() {
        let name = resolve(
            "rtmp://h/live?token=c",
            "live?token=b&k=v",
            "s?token=a&flag",
        );
        assert_eq!(name.token(), Some("a"));
        assert_eq!(name.query_value("k"), Some("v"));
        assert_eq!(name.query_value("flag"), Some(""));
        assert_eq!(name.query_value("none"), None);
    }

    #[test]
    fn query_values_are_decoded_and_keep_what_tokens_are_made_of() {
        let name = resolve("", "live", "s?token=a%2Bb+c/d==&name=%E4%BD%A0&bad=%zz%4");
        assert_eq!(name.token(), Some("a+b+c/d=="));
        assert_eq!(name.query_value("name"), Some("\u{4f60}"));
        assert_eq!(name.query_value("bad"), Some("%zz%4"));
    }

    #[test]
    fn what_names_no_stream_is_refused_by_name() {
        let error = |app: &str, stream: &str| {
            StreamName::resolve(Some("rtmp://h"), app, stream).expect_err("refused")
        };
        assert_eq!(error("live", ""), StreamNameError::EmptyName);
        assert_eq!(error("live/s", "?token=abc"), StreamNameError::EmptyName);
        assert_eq!(error("live", "/"), StreamNameError::EmptyName);
        assert_eq!(error("live", "mp4:"), StreamNameError::EmptyName);
        assert_eq!(error("", "s"), StreamNameError::MissingApp);
        assert_eq!(error("live", "a%0ab"), StreamNameError::BadCharacter);
        assert_eq!(error("live", "a\u{7}"), StreamNameError::BadCharacter);
        assert_eq!(error("live", "s?k=%00"), StreamNameError::BadCharacter);
        assert_eq!(error("live", "%ff"), StreamNameError::BadCharacter);
        assert_eq!(error("live/..", "s"), StreamNameError::BadCharacter);
    }

    #[test]
    fn lengths_are_bounded_exactly() {
        let resolve = |stream: &str| StreamName::resolve(None, "live", stream);
        let longest = "n".repeat(KEY_BYTES_MAX - "live/".len());
        assert!(resolve(&longest).is_ok());
        assert_eq!(resolve(&(longest + "n")), Err(StreamNameError::TooLong));
        let query = |pairs: usize| {
            let pairs: Vec<_> = (0..pairs).map(|i| format!("k{i}=v")).collect();
            format!("s?{}", pairs.join("&"))
        };
        assert!(resolve(&query(QUERY_PAIRS_MAX)).is_ok());
        assert_eq!(
            resolve(&query(QUERY_PAIRS_MAX + 1)),
            Err(StreamNameError::TooLong)
        );
        assert!(resolve(&format!("s?t={}", "x".repeat(QUERY_BYTES_MAX - 4))).is_ok());
        assert_eq!(
            resolve(&format!("s?t={}", "x".repeat(QUERY_BYTES_MAX - 3))),
            Err(StreamNameError::TooLong)
        );
    }

    #[test]
    fn any_text_returns() {
        let pieces = [
            "%", "...", "?", "#", "/", "=", "&", "\u{e9}", "%e4", "a", ":", "//",
        ];
        for a in pieces {
            for b in pieces {
                for c in pieces {
                    let text = format!("{a}{b}{c}");
                    let _ = StreamName::resolve(Some(&text), &text, &text);
                    let _ = StreamName::resolve(None, "live", &text);
                }
            }
        }
    }
}

//! The request target (RFC 9112 section 3.2) and percent-encoding (RFC 3986 section 2.1).

use super::{Error, Method};

/// A request target, taken apart and decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// The decoded path segments: `/a/b` is `["a", "b"]`, `/a/` is `["a", ""]` and `/` is
    /// empty. None has a control character; one may have a decoded slash.
    pub path: Vec<String>,
    /// The decoded query, in order. A plus sign stays one (RFC 3986), so that a base64
    /// token survives unescaped; a pair without `=` has an empty value.
    pub query: Vec<(String, String)>,
    /// The authority of an absolute-form target, which replaces `Host`.
    pub authority: Option<String>,
}

impl Target {
    /// Parses a request target in origin form, absolute form, or (for `OPTIONS`)
    /// asterisk form, which has an empty path.
    ///
    /// # Errors
    /// [`Error::MalformedTarget`] for any other form, for broken percent-encoding, and for
    /// a path or query that is not UTF-8 or has control characters once decoded.
    pub fn parse(method: Method, target: &str) -> Result<Self, Error> {
        if target == "*" && method == Method::Options {
            return Ok(Self::default());
        }
        let (authority, rest) = if target.starts_with('/') {
            (None, target)
        } else {
            let (authority, rest) = split_absolute(target)?;
            (Some(authority.to_owned()), rest)
        };
        // A fragment is never sent (RFC 9112 section 3.2.1).
        if rest.contains('#') {
            return Err(Error::MalformedTarget);
        }
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = match path.strip_prefix('/').unwrap_or(path) {
            "" => Vec::new(),
            path => path.split('/').map(decode).collect::<Result<_, _>>()?,
        };
        let query = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                Ok((decode(key)?, decode(value)?))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            path,
            query,
            authority,
        })
    }
}

/// Splits `http://host:port/path?query` into authority and what follows.
fn split_absolute(target: &str) -> Result<(&str, &str), Error> {
    let (scheme, rest) = target.split_once("://").ok_or(Error::MalformedTarget)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(Error::MalformedTarget);
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    if is_host(authority) {
        Ok((authority, rest))
    } else {
        Err(Error::MalformedTarget)
    }
}

/// Whether `host` can be the value of `Host`: a name or address with an optional port,
/// without user information.
pub(super) fn is_host(host: &str) -> bool {
    !host.is_empty()
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+,;=".contains(&byte))
}

/// Undoes percent-encoding.
///
/// # Errors
/// [`Error::MalformedTarget`] for a percent sign without two hexadecimal digits, and if
/// the result is not UTF-8 or has a control character.
pub fn decode(text: &str) -> Result<String, Error> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' {
            let high = bytes.next().and_then(hex).ok_or(Error::MalformedTarget)?;
            let low = bytes.next().and_then(hex).ok_or(Error::MalformedTarget)?;
            high << 4 | low
        } else {
            byte
        });
    }
    let decoded = String::from_utf8(decoded).map_err(|_| Error::MalformedTarget)?;
    if decoded.chars().any(char::is_control) {
        return Err(Error::MalformedTarget);
    }
    Ok(decoded)
}

/// Percent-encodes all but the unreserved characters, for one path segment.
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            for digit in [byte >> 4, byte & 15] {
                encoded.push(char::from_digit(digit.into(), 16).expect("four bits are one digit"));
            }
        }
    }
    encoded
}

fn hex(byte: u8) -> Option<u8> {
    u8::try_from(char::from(byte).to_digit(16)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(target: &str) -> Result<Target, Error> {
        Target::parse(Method::Get, target)
    }

    fn path(target: &str) -> Vec<String> {
        parse(target).expect("valid").path
    }

    #[test]
    fn paths_are_cut_and_decoded() {
        assert!(path("/").is_empty());
        assert!(path("/?a=b").is_empty());
        assert_eq!(path("/whip/live/demo"), ["whip", "live", "demo"]);
        assert_eq!(path("/a//b/"), ["a", "", "b", ""]);
        assert_eq!(path("/l%69ve/%E4%BD%A0%20x"), ["live", "你 x"]);
        assert_eq!(path("/a%2fb/c"), ["a/b", "c"]);
        assert_eq!(path("/a+b"), ["a+b"]);
    }

    #[test]
    fn queries_are_pairs_in_order_and_keep_their_plus_signs() {
        let query = parse("/x?token=a+b%3D&&flag&k=v=w&=e")
            .expect("valid")
            .query;
        let pairs: Vec<(&str, &str)> = query.iter().map(|(k, v)| (&**k, &**v)).collect();
        assert_eq!(
            pairs,
            [("token", "a+b="), ("flag", ""), ("k", "v=w"), ("", "e")]
        );
    }

    #[test]
    fn absolute_form_gives_its_authority() {
        let target = parse("http://gw.example:8080/a?b=c").expect("valid");
        assert_eq!(target.authority.as_deref(), Some("gw.example:8080"));
        assert_eq!(target.path, ["a"]);
        let target = parse("HTTPS://[::1]").expect("valid");
        assert_eq!(target.authority.as_deref(), Some("[::1]"));
        assert!(target.path.is_empty());
        assert_eq!(parse("http://h?q").expect("valid").query.len(), 1);
    }

    #[test]
    fn asterisk_form_is_for_options() {
        let target = Target::parse(Method::Options, "*").expect("valid");
        assert!(target.path.is_empty());
        assert!(parse("*").is_err());
    }

    #[test]
    fn broken_targets_are_refused() {
        for target in [
            "",
            "a",
            "ftp://h/",
            "http:///x",
            "http://u@h/",
            "h:80",
            "/%",
            "/%4",
            "/%zz",
            "/%+1",
            "/%ff",
            "/%00",
            "/a%0d%0aSet-Cookie:x",
            "/?a=%",
            "/?%7f=1",
            "/a#b",
        ] {
            assert_eq!(parse(target), Err(Error::MalformedTarget), "{target:?}");
        }
    }

    #[test]
    fn encoding_is_undone_by_decoding() {
        let text = "a/b c%?&#é-._~";
        assert_eq!(encode("a/b"), "a%2fb");
        assert_eq!(decode(&encode(text)).as_deref(), Ok(text));
    }
}

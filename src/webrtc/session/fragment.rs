//! Reads the SDP fragment of a PATCH request (RFC 8840 section 9).

use std::fmt;

/// The body of a PATCH request is no SDP fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FragmentError {
    /// Longer than 16 KiB.
    TooLarge,
    /// A line that is not of the form `x=...`, counted from 1.
    Malformed {
        /// Which.
        line: usize,
    },
    /// Neither candidates nor credentials.
    Empty,
}

impl FragmentError {
    /// The HTTP status that suits.
    pub fn status(self) -> u16 {
        match self {
            FragmentError::TooLarge => 413,
            FragmentError::Malformed { .. } | FragmentError::Empty => 400,
        }
    }
}

impl fmt::Display for FragmentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FragmentError::TooLarge => {
                write!(f, "the fragment is longer than {FRAGMENT_BYTES_MAX} bytes")
            }
            FragmentError::Malformed { line } => {
                write!(f, "line {line} of the fragment is not SDP")
            }
            FragmentError::Empty => f.write_str("the fragment has no ICE attribute"),
        }
    }
}

impl std::error::Error for FragmentError {}

/// The peer's `ice-ufrag` and `ice-pwd`, if the fragment has both.
pub(super) fn credentials(body: &str) -> Result<Option<(&str, &str)>, FragmentError> {
    if body.len() > FRAGMENT_BYTES_MAX {
        return Err(FragmentError::TooLarge);
    }
    let mut ufrag = None;
    let mut password = None;
    let mut has_ice = false;
    for (index, line) in body.lines().enumerate() {
        let line = line.trim_end();
        if line.is_empty() {
            continue;
        }
        let Some(("a" | "m" | "c" | "s" | "o" | "v" | "t", value)) = line.split_once('=') else {
            return Err(FragmentError::Malformed { line: index + 1 });
        };
        let (name, value) = value.split_once(':').unwrap_or((value, ""));
        match name {
            "ice-ufrag" => ufrag = ufrag.or(Some(value)),
            "ice-pwd" => password = password.or(Some(value)),
            "candidate" | "end-of-candidates" => {}
            _ => continue,
        }
        has_ice = true;
    }
    if !has_ice {
        return Err(FragmentError::Empty);
    }
    Ok(ufrag.zip(password))
}

/// The longest fragment that is read; a hundred candidates fit.
const FRAGMENT_BYTES_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_browsers_send() {
        let trickle = "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\n\
                       m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n\
                       a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host\r\n\
                       a=end-of-candidates\r\n";
        assert_eq!(
            credentials(trickle),
            Ok(Some(("EsAw", "P2uYro0UCOQ4zxjKXaWCBui1")))
        );
        assert_eq!(credentials("a=end-of-candidates\n"), Ok(None));
    }

    #[test]
    fn refuses_what_is_none() {
        assert_eq!(credentials(""), Err(FragmentError::Empty));
        assert_eq!(
            credentials("a=mid:0\r\n{\"candidate\": 1}"),
            Err(FragmentError::Malformed { line: 2 })
        );
        assert_eq!(
            credentials(&"a=candidate:1\n".repeat(2_000)),
            Err(FragmentError::TooLarge)
        );
    }
}

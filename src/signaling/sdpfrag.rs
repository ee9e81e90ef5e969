//! [`Fragment`]: `application/trickle-ice-sdpfrag` (RFC 8840 section 9), the body of a
//! PATCH and of the answer to an ICE restart.

use std::fmt::{self, Write as _};

/// What a peer tells after its offer: candidates, or the credentials of a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    /// The ICE credentials the candidates belong to; new ones ask for a restart.
    pub credentials: Option<Credentials>,
    /// In the order they stand.
    pub candidates: Vec<Candidate>,
    /// Whether the peer says that no more will come.
    pub end_of_candidates: bool,
}

/// An ICE user fragment and its password (RFC 8839 section 5.4).
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// 4 to 256 ICE characters.
    pub ufrag: String,
    /// 22 to 256 ICE characters.
    pub pwd: String,
}

/// Does not show the password.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", self.ufrag)
    }
}

/// One trickled candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The `mid` of the section it stands in, if there is one.
    pub mid: Option<String>,
    /// `candidate:` and what follows, as in an SDP attribute; visible ASCII, not parsed.
    pub line: String,
}

/// What is wrong with a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Nothing is there.
    Empty,
    /// A line is no SDP line, or has other than visible ASCII characters and blanks.
    MalformedLine,
    /// A user fragment without a password or the other way round, or with characters or a
    /// length that are not allowed.
    BadCredentials,
    /// Sections of one bundle with different credentials.
    TwoCredentials,
    /// A line is longer than [`LINE_BYTES_MAX`].
    LineTooLong,
    /// There are more than [`CANDIDATES_MAX`].
    TooManyCandidates,
}

impl Error {
    /// A short name for counters.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Empty => "fragment_empty",
            Self::MalformedLine => "fragment_malformed_line",
            Self::BadCredentials => "fragment_bad_credentials",
            Self::TwoCredentials => "fragment_two_credentials",
            Self::LineTooLong => "fragment_line_too_long",
            Self::TooManyCandidates => "fragment_too_many_candidates",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "The fragment is empty.",
            Self::MalformedLine => "A line of the fragment is not SDP.",
            Self::BadCredentials => "ice-ufrag and ice-pwd must come together and be valid.",
            Self::TwoCredentials => "All media are bundled, so they share one ICE session.",
            Self::LineTooLong => "A line of the fragment is too long.",
            Self::TooManyCandidates => "The fragment has too many candidates.",
        })
    }
}

impl std::error::Error for Error {}

impl Fragment {
    /// Parses a fragment. Attributes it does not know are read over.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn decode(body: &[u8]) -> Result<Self, Error> {
        let mut fragment = Self::default();
        let mut section = Section::default();
        let mut is_empty = true;
        for line in body.split(|&byte| byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                continue;
            }
            is_empty = false;
            if line.len() > LINE_BYTES_MAX {
                return Err(Error::LineTooLong);
            }
            let line = std::str::from_utf8(line)
                .ok()
                .filter(|line| line.bytes().all(|byte| matches!(byte, b' '..=b'~')))
                .ok_or(Error::MalformedLine)?;
            match line.split_once('=') {
                Some(("m", _)) => section = fragment.end_section(section)?,
                Some(("a", attribute)) => fragment.read_attribute(&mut section, attribute)?,
                Some((kind, _)) if kind.len() == 1 => {}
                _ => return Err(Error::MalformedLine),
            }
        }
        if is_empty {
            return Err(Error::Empty);
        }
        fragment.end_section(section)?;
        Ok(fragment)
    }

    fn read_attribute(&mut self, section: &mut Section, attribute: &str) -> Result<(), Error> {
        let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
        match name {
            "ice-ufrag" => section.ufrag = Some(value.to_owned()),
            "ice-pwd" => section.pwd = Some(value.to_owned()),
            "mid" => {
                section.mid = Some(value.to_owned());
                // RFC 8840 wants it before the candidates; not all write it there.
                for candidate in self.candidates.iter_mut().skip(section.first_candidate) {
                    candidate.mid = section.mid.clone();
                }
            }
            "candidate" => {
                if self.candidates.len() == CANDIDATES_MAX {
                    return Err(Error::TooManyCandidates);
                }
                self.candidates.push(Candidate {
                    mid: section.mid.clone(),
                    line: attribute.to_owned(),
                });
            }
            "end-of-candidates" => self.end_of_candidates = true,
            _ => {}
        }
        Ok(())
    }

    /// Takes over the credentials of a section that ends, and begins the next one.
    fn end_section(&mut self, section: Section) -> Result<Section, Error> {
        let credentials = match (section.ufrag, section.pwd) {
            (None, None) => None,
            (Some(ufrag), Some(pwd)) if is_ice_text(&ufrag, 4) && is_ice_text(&pwd, 22) => {
                Some(Credentials { ufrag, pwd })
            }
            _ => return Err(Error::BadCredentials),
        };
        match (&self.credentials, credentials) {
            (Some(first), Some(other)) if *first != other => return Err(Error::TwoCredentials),
            (None, Some(first)) => self.credentials = Some(first),
            _ => {}
        }
        Ok(Section {
            first_candidate: self.candidates.len(),
            ..Section::default()
        })
    }

    /// The fragment as text, all candidates in one section: the answer of an ICE-lite
    /// server to a restart.
    pub fn encode(&self) -> String {
        let mut text = String::from("a=ice-lite\r\na=ice-options:trickle ice2\r\n");
        if let Some(Credentials { ufrag, pwd }) = &self.credentials {
            // Writing to a `String` cannot fail.
            let _ = write!(text, "a=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\n");
        }
        let mut mid = None;
        for candidate in &self.candidates {
            if candidate.mid.is_some() && candidate.mid != mid {
                mid.clone_from(&candidate.mid);
                let mid = mid.as_deref().unwrap_or_default();
                let _ = write!(text, "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:{mid}\r\n");
            }
            let _ = write!(text, "a={}\r\n", candidate.line);
        }
        if self.end_of_candidates {
            text.push_str("a=end-of-candidates\r\n");
        }
        text
    }
}

/// The part of a fragment before, between or behind its `m=` lines.
#[derive(Default)]
struct Section {
    mid: Option<String>,
    ufrag: Option<String>,
    pwd: Option<String>,
    /// Where its candidates begin among all.
    first_candidate: usize,
}

fn is_ice_text(text: &str, bytes_min: usize) -> bool {
    (bytes_min..=256).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}

/// Bounds one line; a candidate of a browser has about 120 bytes.
pub const LINE_BYTES_MAX: usize = 1024;
/// Bounds the candidates of one fragment. A host with many interfaces and VPNs has about
/// 20; the gateway is ICE-lite and needs none of them.
pub const CANDIDATES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// As Chromium's fields are put together by whip-whep-js.
    const TRICKLE: &str = "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\n\
        a=group:BUNDLE 0 1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n\
        a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag EsAw\r\n\
        a=candidate:2 1 tcp 1518280447 x-1.local 9 typ host tcptype active\r\n\
        a=end-of-candidates\r\n";

    #[test]
    fn a_trickled_fragment_gives_credentials_and_candidates() {
        for text in [TRICKLE.to_owned(), TRICKLE.replace("\r\n", "\n")] {
            let fragment = Fragment::decode(text.as_bytes()).expect("valid");
            let credentials = fragment.credentials.expect("there");
            assert_eq!(credentials.ufrag, "EsAw");
            assert_eq!(credentials.pwd, "P2uYro0UCOQ4zxjKXaWCBui1");
            assert_eq!(fragment.candidates.len(), 2);
            assert_eq!(fragment.candidates[0].mid.as_deref(), Some("0"));
            assert!(fragment.candidates[1].line.starts_with("candidate:2 1 tcp"));
            assert!(fragment.end_of_candidates);
        }
    }

    #[test]
    fn credentials_may_stand_in_the_section_and_the_mid_at_its_end() {
        let text = "m=audio 9 RTP/AVP 0\na=candidate:1 a\na=ice-pwd:asd88fgpdd777uzjYhagZg\n\
            a=ice-ufrag:8hhY\na=mid:a\nm=video 9 RTP/AVP 0\na=mid:b\na=candidate:2 b\n";
        let fragment = Fragment::decode(text.as_bytes()).expect("valid");
        assert_eq!(fragment.credentials.expect("there").ufrag, "8hhY");
        let mids: Vec<_> = fragment
            .candidates
            .iter()
            .map(|c| c.mid.as_deref())
            .collect();
        assert_eq!(mids, [Some("a"), Some("b")]);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let fragment = Fragment::decode(TRICKLE.as_bytes()).expect("valid");
        let again = Fragment::decode(fragment.encode().as_bytes());
        assert_eq!(again, Ok(fragment));
    }

    #[test]
    fn broken_fragments_are_refused_by_name() {
        let pwd = "a=ice-pwd:asd88fgpdd777uzjYhagZg\n";
        let long = "x".repeat(LINE_BYTES_MAX);
        let many = "a=candidate:x\n".repeat(CANDIDATES_MAX + 1);
        let two = format!("a=ice-ufrag:aaaa\n{pwd}m=a\na=ice-ufrag:bbbb\n{pwd}");
        let bad = Error::BadCredentials;
        for (text, error) in [
            ("", Error::Empty),
            ("\r\n\r\n", Error::Empty),
            ("hello", Error::MalformedLine),
            ("{\"candidate\":\"\"}", Error::MalformedLine),
            ("ab=c", Error::MalformedLine),
            ("a=candidate:\u{e9}", Error::MalformedLine),
            ("a=candidate:1\r2", Error::MalformedLine),
            ("a=candidate:1\u{0}", Error::MalformedLine),
            ("a=ice-ufrag:abcd", bad),
            (pwd, bad),
            (&format!("a=ice-ufrag:abc\n{pwd}"), bad),
            (&format!("a=ice-ufrag:ab d\n{pwd}"), bad),
            ("a=ice-ufrag:abcd\na=ice-pwd:short", bad),
            (&two, Error::TwoCredentials),
            (&format!("a={long}"), Error::LineTooLong),
            (&many, Error::TooManyCandidates),
        ] {
            assert_eq!(Fragment::decode(text.as_bytes()), Err(error), "{text:?}");
        }
    }

    #[test]
    fn cut_and_flipped_fragments_return() {
        let bytes = TRICKLE.as_bytes();
        for index in 0..bytes.len() {
            let _ = Fragment::decode(&bytes[..index]);
            for bit in 0..8 {
                let mut flipped = bytes.to_vec();
                flipped[index] ^= 1 << bit;
                if let Ok(fragment) = Fragment::decode(&flipped) {
                    let again = Fragment::decode(fragment.encode().as_bytes());
                    let again = again.expect("what is written is valid");
                    assert_eq!(again.credentials, fragment.credentials);
                    assert_eq!(again.candidates.len(), fragment.candidates.len());
                }
            }
        }
    }
}

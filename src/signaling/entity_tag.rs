//! [`EntityTag`] and [`IfMatch`]: which ICE session of a WHIP or WHEP session a request
//! means (RFC 9725 section 4.3, RFC 9110 sections 8.8.3 and 13.1.1).

use std::fmt;

use crate::http::Headers;

/// A strong entity tag, with its quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntityTag(String);

impl EntityTag {
    /// The tag of a session's `generation`: 0 at first, one more at each ICE restart. Tags
    /// need to differ within one session URL only.
    pub fn of_generation(generation: u32) -> Self {
        Self(format!("\"ice-{generation}\""))
    }

    /// The value of `ETag`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EntityTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The condition of a PATCH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IfMatch {
    /// `*`: whatever the current ICE session is. This is how a restart is asked for.
    Any,
    /// One of these tags, quotes included.
    Tags(Vec<String>),
}

impl IfMatch {
    /// The condition in `headers`, if there is one.
    pub fn parse(headers: &Headers) -> Option<Self> {
        let mut elements = headers.list("if-match").peekable();
        headers.get("if-match")?;
        if elements.peek() == Some(&"*") {
            return Some(Self::Any);
        }
        Some(Self::Tags(elements.map(str::to_owned).collect()))
    }

    /// Whether the condition holds: the strong comparison of RFC 9110 section 8.8.3.2, so
    /// a weak tag never matches.
    pub fn matches(&self, current: &EntityTag) -> bool {
        match self {
            Self::Any => true,
            Self::Tags(tags) => tags.contains(&current.0),
        }
    }
}

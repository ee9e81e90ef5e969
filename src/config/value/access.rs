//! Rights, events and secrets.

use std::fmt;

use toml::de::DeValue;

use super::{Value, kind, one_of, string};

/// What somebody may be allowed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Right {
    /// Publish streams.
    Publish,
    /// Play streams.
    Play,
    /// Join rooms.
    Room,
    /// Call and be called.
    Call,
    /// Read the API and the metrics.
    Api,
}

impl Right {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::Publish, Self::Play, Self::Room, Self::Call, Self::Api];

    /// Its word in the configuration and in tokens.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Play => "play",
            Self::Room => "room",
            Self::Call => "call",
            Self::Api => "api",
        }
    }

    /// The right of this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|right| right.name() == word)
    }
}

/// What an operator's server is told or asked of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallbackEvent {
    /// Somebody connected. Asked.
    Connect,
    /// Somebody wants to publish. Asked.
    Publish,
    /// It does not publish any more.
    Unpublish,
    /// Somebody wants to play. Asked.
    Play,
    /// It does not play any more.
    Stop,
    /// Somebody wants to join a room. Asked.
    Join,
    /// It is not in the room any more.
    Leave,
    /// Somebody wants to call somebody. Asked; what becomes of the call is told.
    Call,
    /// How a stream is, now and then.
    Health,
}

impl CallbackEvent {
    /// All there are.
    pub const ALL: [Self; 9] = [
        Self::Connect,
        Self::Publish,
        Self::Unpublish,
        Self::Play,
        Self::Stop,
        Self::Join,
        Self::Leave,
        Self::Call,
        Self::Health,
    ];

    /// Its word in the configuration and in requests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Publish => "publish",
            Self::Unpublish => "unpublish",
            Self::Play => "play",
            Self::Stop => "stop",
            Self::Join => "join",
            Self::Leave => "leave",
            Self::Call => "call",
            Self::Health => "health",
        }
    }
}

/// Each at most once, in the order of the file.
impl Value for Vec<CallbackEvent> {
    type Bound = ();

    fn read(value: &DeValue<'_>, (): &()) -> Result<Self, String> {
        let list = list(value, "[\"publish\", \"play\"]")?;
        let mut events = Self::new();
        for entry in list {
            let words = CallbackEvent::ALL.map(|event| (event.name(), event));
            let event = one_of(entry.get_ref(), words)?;
            if !events.contains(&event) {
                events.push(event);
            }
        }
        Ok(events)
    }

    fn show(&self) -> String {
        let words: Vec<String> = self.iter().map(|e| format!("{:?}", e.name())).collect();
        format!("[{}]", words.join(", "))
    }
}

/// Each at most once, in the order of the file.
impl Value for Vec<Right> {
    type Bound = ();

    fn read(value: &DeValue<'_>, (): &()) -> Result<Self, String> {
        let list = list(value, "[\"play\"]")?;
        let mut rights = Self::new();
        for entry in list {
            let words = Right::ALL.map(|right| (right.name(), right));
            let right = one_of(entry.get_ref(), words)?;
            if !rights.contains(&right) {
                rights.push(right);
            }
        }
        Ok(rights)
    }

    fn show(&self) -> String {
        let words: Vec<String> = self.iter().map(|r| format!("{:?}", r.name())).collect();
        format!("[{}]", words.join(", "))
    }
}

pub(super) fn list<'v, 'i>(
    value: &'v DeValue<'i>,
    example: &str,
) -> Result<&'v toml::de::DeArray<'i>, String> {
    value
        .as_array()
        .ok_or_else(|| format!("must be a list like {example}, not {}", kind(value)))
}

/// A text that is not to be seen: neither `Debug` nor an error shows it.
///
/// In the file it stands as it is, or as `"env:NAME"` or `"file:PATH"`, so that the file
/// can be shown to others.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A secret of this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn resolve(text: &str) -> Result<String, String> {
        if let Some(name) = text.strip_prefix("env:") {
            return std::env::var(name)
                .map_err(|_| format!("the environment variable {name} is not set"));
        }
        if let Some(path) = text.strip_prefix("file:") {
            return std::fs::read_to_string(path)
                .map_err(|error| format!("the file {path} cannot be read: {error}"));
        }
        Ok(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() {
            "Secret()"
        } else {
            "Secret(..)"
        })
    }
}

impl Value for Secret {
    type Bound = ();

    fn read(value: &DeValue<'_>, (): &()) -> Result<Self, String> {
        let text = string(value)?;
        let resolved = Self::resolve(text)?;
        let secret = resolved.trim();
        if secret.is_empty() && !text.is_empty() {
            return Err("is named but empty".into());
        }
        if secret.len() > SECRET_BYTES_MAX {
            return Err(format!("is longer than {SECRET_BYTES_MAX} bytes"));
        }
        Ok(Self(secret.to_owned()))
    }

    /// Never the text.
    fn show(&self) -> String {
        if self.is_empty() { "\"\"" } else { "\"...\"" }.into()
    }
}

/// Bounds a secret and a list of public keys; eight keys in PEM are a tenth of it.
const SECRET_BYTES_MAX: usize = 16_384;

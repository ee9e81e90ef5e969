//! The types a key may have: how each is read from TOML, held to its range and shown.
//! Those of `[access]` stand in `access`.

mod access;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use log::LevelFilter;
use toml::de::DeValue;

pub use access::{CallbackEvent, Right, Secret};

/// A type that a key of the configuration may have.
pub(super) trait Value: Sized {
    /// What limits it: a range, a check, or nothing.
    type Bound;

    /// Reads it, or says what would be right.
    fn read(value: &DeValue<'_>, bound: &Self::Bound) -> Result<Self, String>;

    /// The value as TOML text.
    fn show(&self) -> String;
}

macro_rules! integers {
    ($($type:ty),*) => { $(
        impl Value for $type {
            type Bound = RangeInclusive<u64>;

            fn read(value: &DeValue<'_>, bound: &Self::Bound) -> Result<Self, String> {
                let number = integer(value, bound)?;
                Self::try_from(number).map_err(|_| format!("{number} is too large"))
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )* };
}

integers!(u8, u32, usize);

/// A whole number of milliseconds in the file.
impl Value for Duration {
    type Bound = RangeInclusive<u64>;

    fn read(value: &DeValue<'_>, bound: &Self::Bound) -> Result<Self, String> {
        integer(value, bound).map(Self::from_millis)
    }

    fn show(&self) -> String {
        self.as_millis().to_string()
    }
}

impl Value for f64 {
    type Bound = RangeInclusive<f64>;

    fn read(value: &DeValue<'_>, bound: &Self::Bound) -> Result<Self, String> {
        let text = match value {
            DeValue::Float(float) => float.as_str(),
            DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str(),
            other => return Err(format!("must be a number, not {}", kind(other))),
        };
        let (min, max) = (bound.start(), bound.end());
        text.parse()
            .ok()
            .filter(|number| bound.contains(number))
            .ok_or_else(|| format!("{text} is not between {min:?} and {max:?}"))
    }

    fn show(&self) -> String {
        format!("{self:?}")
    }
}

impl Value for bool {
    type Bound = ();

    fn read(value: &DeValue<'_>, (): &()) -> Result<Self, String> {
        value
            .as_bool()
            .ok_or_else(|| format!("must be true or false, not {}", kind(value)))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for String {
    type Bound = fn(&str) -> Result<(), String>;

    fn read(value: &DeValue<'_>, bound: &Self::Bound) -> Result<Self, String> {
        let text = string(value)?;
        bound(text).map_err(|reason| format!("{text:?} {reason}"))?;
        Ok(text.to_owned())
    }

    fn show(&self) -> String {
        format!("{self:?}")
    }
}

/// `"1.2.3.4:1935"`, `"[::1]:1935"`, or `":1935"` for every address.
impl Value for SocketAddr {
    type Bound = ();

    fn read(value: &DeValue<'_>, (): &()) -> Result<Self, String> {
        let text = string(value)?;
        let any = text.strip_prefix(':').and_then(|port| port.parse().ok());
        if let Some(port) = any {
            return Ok(Self::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port));
        }
        text.parse().map_err(|_| {
            format!(
                "{text:?} is not an IP address with a port like \"127.0.0.1:1935\" or \"[::]:1935\""
            )
        })
    }

    fn show(&self) -> String {
        format!("\"{self}\"")
    }
}

impl Value for LevelFilter {
    type Bound = ();

    fn read(value: &DeValue<'_>, (): &()) -> Result<Self, String> {
        one_of(value, Self::iter().map(|level| (word(level), level)))
    }

    fn show(&self) -> String {
        format!("\"{}\"", word(*self))
    }
}

const fn word(level: LevelFilter) -> &'static str {
    match level {
        LevelFilter::Off => "off",
        LevelFilter::Error => "error",
        LevelFilter::Warn => "warn",
        LevelFilter::Info => "info",
        LevelFilter::Debug => "debug",
        LevelFilter::Trace => "trace",
    }
}

/// What a new player of a stream is started from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GopCache {
    /// The last IDR and all that followed it.
    Gop,
    /// The last IDR alone.
    Idr,
    /// Nothing: the next IDR.
    Off,
}

impl Value for GopCache {
    type Bound = ();

    fn read(value: &DeValue<'_>, (): &()) -> Result<Self, String> {
        one_of(
            value,
            [("gop", Self::Gop), ("idr", Self::Idr), ("off", Self::Off)],
        )
    }

    fn show(&self) -> String {
        match self {
            Self::Gop => "\"gop\"",
            Self::Idr => "\"idr\"",
            Self::Off => "\"off\"",
        }
        .into()
    }
}

/// How long messages to an RTMP player are gathered, to leave in one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// Not at all while writes are few, a little longer than a sound lasts when they are many.
    Auto,
    /// For so long.
    Fixed(Duration),
}

impl Value for Merge {
    type Bound = RangeInclusive<u64>;

    fn read(value: &DeValue<'_>, bound: &Self::Bound) -> Result<Self, String> {
        match value {
            DeValue::String(_) => one_of(value, [("auto", Self::Auto)]),
            _ => Duration::read(value, bound).map(Self::Fixed),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Auto => "\"auto\"".into(),
            Self::Fixed(span) => span.show(),
        }
    }
}

/// What a browser, which cannot show B-frames, gets from a stream that has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BFramePolicy {
    /// The stream without them.
    Drop,
    /// No picture, and a reason.
    Refuse,
    /// All of it, as it comes.
    Pass,
}

impl Value for BFramePolicy {
    type Bound = ();

    fn read(value: &DeValue<'_>, (): &()) -> Result<Self, String> {
        one_of(
            value,
            [
                ("drop", Self::Drop),
                ("refuse", Self::Refuse),
                ("pass", Self::Pass),
            ],
        )
    }

    fn show(&self) -> String {
        match self {
            Self::Drop => "\"drop\"",
            Self::Refuse => "\"refuse\"",
            Self::Pass => "\"pass\"",
        }
        .into()
    }
}

/// An address under which clients reach the WebRTC port, as in `"203.0.113.7"` or, where
/// a NAT maps the port too, `"203.0.113.7:18000"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicAddress {
    /// The address.
    pub ip: IpAddr,
    /// The port, where it is not that of `webrtc.listen`.
    pub port: Option<u16>,
}

impl fmt::Display for PublicAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}", SocketAddr::new(self.ip, port)),
            None => write!(f, "{}", self.ip),
        }
    }
}

/// A list with at most as many entries as the bound says.
impl Value for Vec<PublicAddress> {
    type Bound = usize;

    fn read(value: &DeValue<'_>, bound: &usize) -> Result<Self, String> {
        let Some(list) = value.as_array() else {
            return Err(format!(
                "must be a list like [\"203.0.113.7\"], not {}",
                kind(value)
            ));
        };
        if list.len() > *bound {
            return Err(format!("has {} entries, at most {bound}", list.len()));
        }
        list.iter()
            .map(|entry| public_address(string(entry.get_ref())?))
            .collect()
    }

    fn show(&self) -> String {
        let entries: Vec<String> = self.iter().map(|entry| format!("\"{entry}\"")).collect();
        format!("[{}]", entries.join(", "))
    }
}

fn public_address(text: &str) -> Result<PublicAddress, String> {
    let address = match (text.parse::<IpAddr>(), text.parse::<SocketAddr>()) {
        (Ok(ip), _) => PublicAddress { ip, port: None },
        (_, Ok(address)) => PublicAddress {
            ip: address.ip(),
            port: Some(address.port()),
        },
        _ => {
            return Err(format!(
                "{text:?} is not an IP address (a name is not looked up)"
            ));
        }
    };
    if address.ip.is_unspecified() || address.ip.is_multicast() || address.port == Some(0) {
        return Err(format!("{text:?} is not an address a client can reach"));
    }
    Ok(address)
}

fn integer(value: &DeValue<'_>, bound: &RangeInclusive<u64>) -> Result<u64, String> {
    let Some(integer) = value.as_integer() else {
        return Err(format!("must be a whole number, not {}", kind(value)));
    };
    u64::from_str_radix(integer.as_str(), integer.radix())
        .ok()
        .filter(|number| bound.contains(number))
        .ok_or_else(|| {
            let (min, max) = (bound.start(), bound.end());
            format!("{integer} is not between {min} and {max}")
        })
}

fn string<'v>(value: &'v DeValue<'_>) -> Result<&'v str, String> {
    value
        .as_str()
        .ok_or_else(|| format!("must be a text in quotes, not {}", kind(value)))
}

fn one_of<T>(
    value: &DeValue<'_>,
    words: impl IntoIterator<Item = (&'static str, T)>,
) -> Result<T, String> {
    let text = string(value)?;
    let mut known = Vec::new();
    for (word, meaning) in words {
        if word == text {
            return Ok(meaning);
        }
        known.push(format!("{word:?}"));
    }
    Err(format!("{text:?} is none of {}", known.join(", ")))
}

/// What a TOML value is, for people.
const fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

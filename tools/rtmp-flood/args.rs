//! The command line: what is asked of a run.
//!
//! `parser` fills the [`Plan`], `units` reads numbers with their units.

mod parser;
pub mod units;

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use parser::Parser;

/// What `--help` says.
pub const HELP: &str = include_str!("args/help.txt");

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sends by RTMP.
    Publish,
    /// Receives by RTMP.
    Play,
    /// Sends by WebRTC.
    Whip,
    /// Receives by WebRTC.
    Whep,
}

impl Role {
    const ALL: [Role; 4] = [Role::Publish, Role::Play, Role::Whip, Role::Whep];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Role::Publish => "publish",
            Role::Play => "play",
            Role::Whip => "whip",
            Role::Whep => "whep",
        }
    }

    /// Whether it sends media.
    pub fn sends(self) -> bool {
        matches!(self, Role::Publish | Role::Whip)
    }

    fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    fn scheme(self) -> &'static str {
        match self {
            Role::Publish | Role::Play => "rtmp://",
            Role::Whip | Role::Whep => "http://",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Clients that do the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// What they do.
    pub role: Role,
    /// Where, with `{n}`.
    pub url: String,
    /// How many.
    pub count: u32,
    /// How many begin in each second.
    pub ramp_per_second: f64,
    /// How many are replaced in each second.
    pub churn_per_second: f64,
    /// Bits per second of the pictures, of one publisher after the other; the clip's own if
    /// there are none.
    pub bit_rates: Vec<u64>,
    /// When the first one begins.
    pub after: Duration,
    /// Whether the measurement begins without them.
    pub late: bool,
}

impl Group {
    /// The address of one client.
    pub fn url_of(&self, number: u32) -> String {
        let mut out = String::new();
        let mut rest = &self.url[..];
        while let Some((before, after)) = rest.split_once('{') {
            out.push_str(before);
            let (inside, after) = after.split_once('}').unwrap_or((after, ""));
            let shown = match inside.strip_prefix("n%") {
                Some(modulus) => number % modulus.parse().unwrap_or(1).max(1),
                None => number,
            };
            out.push_str(&shown.to_string());
            rest = after;
        }
        out + rest
    }

    /// The bits per second of one publisher's pictures; `None`: as they are.
    pub fn bit_rate_of(&self, number: u32) -> Option<u64> {
        let count = self.bit_rates.len().max(1);
        self.bit_rates.get(number as usize % count).copied()
    }
}

/// What happens to datagrams of this tool's own.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Impairment {
    /// The part that is lost, 0 to 1.
    pub loss: f64,
    /// How late they are.
    pub delay: Duration,
    /// The most that is added to it.
    pub jitter: Duration,
}

/// What ends a run with status 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bounds {
    /// Median of the delivery latency.
    pub p50: Option<Duration>,
    /// What 99 % of pictures keep.
    pub p99: Option<Duration>,
    /// What all keep.
    pub latency: Option<Duration>,
    /// Set-up time that 99 % of clients keep.
    pub setup: Option<Duration>,
    /// Time to the first key frame that 99 % of clients keep.
    pub first_key: Option<Duration>,
    /// CPU of the server, 1 is a core.
    pub cpu: Option<f64>,
    /// Clients that failed or were cut off.
    pub failed: u64,
    /// Pictures.
    pub lost: u64,
}

/// A run.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// All clients.
    pub groups: Vec<Group>,
    /// How long is measured.
    pub duration: Duration,
    /// From when all have begun to the measurement.
    pub settle: Duration,
    /// How long a client may take.
    pub connect_timeout: Duration,
    /// What is published.
    pub file: Option<PathBuf>,
    /// For datagrams.
    pub impairment: Impairment,
    /// For all that is random.
    pub seed: u64,
    /// The server's process.
    pub pid: Option<u32>,
    /// Where the report goes as JSON.
    pub json: Option<PathBuf>,
    /// No progress.
    pub quiet: bool,
    /// What must hold.
    pub bounds: Bounds,
}

/// What the arguments ask for.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Show [`HELP`].
    Help,
    /// Show the version.
    Version,
    /// Run.
    Run(Box<Plan>),
}

impl Command {
    /// Reads the arguments after the program's name.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let arguments: Result<Vec<String>, OsString> =
            arguments.map(OsString::into_string).collect();
        let arguments = arguments.map_err(|raw| format!("{raw:?} is no text"))?;
        let mut words = arguments.iter().map(String::as_str);
        let role = match words.next() {
            None | Some("--help" | "-h" | "help") => return Ok(Command::Help),
            Some("--version" | "-V") => return Ok(Command::Version),
            Some("mixed") => None,
            Some(name) => Some(Role::of(name).ok_or_else(|| format!("unknown role {name:?}"))?),
        };
        let mut parser = Parser::new();
        if let Some(role) = role {
            let url = words.next().ok_or_else(|| format!("{role} needs a URL"))?;
            parser.group(role, 1, url)?;
        }
        while let Some(word) = words.next() {
            if matches!(word, "--help" | "-h") {
                return Ok(Command::Help);
            }
            let Some(name) = word.strip_prefix("--") else {
                return Err(format!("unknown argument {word:?}"));
            };
            let (name, mut value) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (name, None),
            };
            if name == "quiet" {
                parser.plan.quiet = true;
                continue;
            }
            let mut value = || {
                (value.take().or_else(|| words.next()))
                    .ok_or_else(|| format!("--{name} needs a value"))
            };
            match Role::of(name) {
                Some(asked) if role.is_none() => parser.mixed_group(asked, value()?)?,
                _ => parser.option(name, &mut value)?,
            }
        }
        parser.finish().map(|plan| Command::Run(Box::new(plan)))
    }
}

/// Bit rates of one group: each has a clip in memory.
pub const BIT_RATES_MAX: usize = 32;

#[cfg(test)]
mod tests;

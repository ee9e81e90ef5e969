//! The command line: what is asked of a run.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// What `--help` says.
pub const HELP: &str = "\
rtmp-flood loads a media server with publishers and players and tells how it does.

Usage: rtmp-flood ROLE URL [options]
       rtmp-flood mixed --ROLE 'COUNT@URL [key=value ...]' ... [options]

Roles: publish  send a stream by RTMP           rtmp://host[:port]/app/stream
       play     receive a stream by RTMP        rtmp://host[:port]/app/stream
       whip     send a stream by WebRTC         http://host[:port]/path
       whep     receive a stream by WebRTC      http://host[:port]/path
In a URL {n} is the number of the client, {n%10} that number modulo 10.

Clients:
  --count N         how many (1)
  --ramp 200/s      how many begin in each second (200)
  --churn 10/s      how many leave in each second of the measurement, each followed
                    by a new one (0)
  --after 5s        begin so long after the start. The measurement does not wait for
                    clients with this key (0; players in mixed: 1s)
  In mixed these stand behind the URL as ramp=, churn= and after=, or before all
  groups as options.
  --connect-timeout 10s  how long one may take until media may flow

Run:
  --duration 10s    how long is measured, from 1s after all have begun
  --settle 1s       the time between
  --file clip.flv   what is published: H.264 without B-frames and AAC (a built-in clip)
  --bitrate 1M      bit/s of the pictures: they are filled up to it (as they are)
  --loss 2%         datagrams of this tool's own that are lost, each way (0)
  --delay 40ms      datagrams of this tool's own that are late, each way (0)
  --jitter 10ms     the most that is added to the delay at random (0)
  --seed N          for all that is random (1)

Report:
  --pid PID         also tell CPU and memory of the server's process
  --json FILE       also write the report as JSON; - is standard output
  --quiet           no line each second

Bounds, which end the run with status 1 if they are broken. So do failed clients,
lost pictures and disorder in any case:
  --max-p50 10ms  --max-p99 50ms  --max-latency 1s     delivery of pictures
  --max-setup 100ms  --max-first-key 100ms             99 % of all clients
  --max-cpu 50%                                        of one core, needs --pid
  --max-failed N  --max-lost N                         clients, pictures (0)

Exit status: 0 clean, 1 not clean or a bound broken, 2 wrong arguments.
";

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
    /// Bits per second of its pictures.
    pub video_bps: Option<u64>,
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

struct Parser {
    plan: Plan,
    /// What new groups begin with, and what the options change.
    template: Group,
    /// Groups with an `after` of their own.
    with_after: Vec<bool>,
}

impl Parser {
    fn new() -> Self {
        Self {
            plan: Plan {
                groups: Vec::new(),
                duration: Duration::from_secs(10),
                settle: Duration::from_secs(1),
                connect_timeout: Duration::from_secs(10),
                file: None,
                video_bps: None,
                impairment: Impairment::default(),
                seed: 1,
                pid: None,
                json: None,
                quiet: false,
                bounds: Bounds::default(),
            },
            template: Group {
                role: Role::Play,
                url: String::new(),
                count: 1,
                ramp_per_second: 200.0,
                churn_per_second: 0.0,
                after: Duration::ZERO,
                late: false,
            },
            with_after: Vec::new(),
        }
    }

    fn group(&mut self, role: Role, count: u32, url: &str) -> Result<(), String> {
        if !url.starts_with(role.scheme()) {
            return Err(format!(
                "{role} needs a URL with {}, not {url:?}",
                role.scheme()
            ));
        }
        if count == 0 {
            return Err("a count of 0".into());
        }
        self.plan.groups.push(Group {
            role,
            count,
            url: url.to_owned(),
            ..self.template.clone()
        });
        self.with_after.push(false);
        Ok(())
    }

    /// `COUNT@URL key=value ...`
    fn mixed_group(&mut self, role: Role, text: &str) -> Result<(), String> {
        let mut words = text.split_whitespace();
        let first = words.next().unwrap_or_default();
        let (count, url) = first
            .split_once('@')
            .ok_or_else(|| format!("--{role} needs COUNT@URL, not {first:?}"))?;
        self.group(role, number(count)?, url)?;
        for word in words {
            let (key, value) = word
                .split_once('=')
                .ok_or_else(|| format!("{word:?} is no key=value"))?;
            if !self.client_option(self.plan.groups.len() - 1, key, value)? {
                return Err(format!("unknown key {key:?}"));
            }
        }
        Ok(())
    }

    /// What may differ between groups; answers whether it was such a key.
    fn client_option(&mut self, index: usize, key: &str, value: &str) -> Result<bool, String> {
        let group = &mut self.plan.groups[index];
        match key {
            "ramp" => group.ramp_per_second = positive(rate(value)?, "a ramp of 0")?,
            "churn" => group.churn_per_second = rate(value)?,
            "after" => {
                group.after = duration(value)?;
                group.late = true;
                self.with_after[index] = true;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn option<'a>(
        &mut self,
        name: &str,
        value: &mut impl FnMut() -> Result<&'a str, String>,
    ) -> Result<(), String> {
        let plan = &mut self.plan;
        match name {
            "count" => {
                let count: u32 = number(value()?)?;
                match &mut plan.groups[..] {
                    [group] if count > 0 => group.count = count,
                    [_] => return Err("a count of 0".into()),
                    _ => return Err("--count: in mixed the count stands before the URL".into()),
                }
            }
            "ramp" | "churn" | "after" => {
                let value = value()?;
                match plan.groups.len() {
                    0 => {
                        // For the groups to come: read with a group that is thrown away.
                        self.plan.groups.push(self.template.clone());
                        self.with_after.push(false);
                        self.client_option(0, name, value)?;
                        self.template = self.plan.groups.pop().expect("just pushed");
                        self.with_after.pop();
                    }
                    count => {
                        for index in 0..count {
                            self.client_option(index, name, value)?;
                        }
                    }
                }
            }
            "duration" => plan.duration = duration(value()?)?,
            "settle" => plan.settle = duration(value()?)?,
            "connect-timeout" => plan.connect_timeout = duration(value()?)?,
            "file" => plan.file = Some(value()?.into()),
            "bitrate" => plan.video_bps = Some(bit_rate(value()?)?),
            "loss" => plan.impairment.loss = part(value()?)?,
            "delay" => plan.impairment.delay = duration(value()?)?,
            "jitter" => plan.impairment.jitter = duration(value()?)?,
            "seed" => plan.seed = number(value()?)?,
            "pid" => plan.pid = Some(number(value()?)?),
            "json" => plan.json = Some(value()?.into()),
            "max-p50" => plan.bounds.p50 = Some(duration(value()?)?),
            "max-p99" => plan.bounds.p99 = Some(duration(value()?)?),
            "max-latency" => plan.bounds.latency = Some(duration(value()?)?),
            "max-setup" => plan.bounds.setup = Some(duration(value()?)?),
            "max-first-key" => plan.bounds.first_key = Some(duration(value()?)?),
            "max-cpu" => plan.bounds.cpu = Some(part(value()?)?),
            "max-failed" => plan.bounds.failed = number(value()?)?,
            "max-lost" => plan.bounds.lost = number(value()?)?,
            _ => return Err(format!("unknown option --{name}")),
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Plan, String> {
        let plan = &mut self.plan;
        if plan.groups.is_empty() {
            return Err("mixed needs groups, as in --play 100@rtmp://localhost/live/s".into());
        }
        if plan.bounds.cpu.is_some() && plan.pid.is_none() {
            return Err("--max-cpu needs --pid".into());
        }
        if plan.duration.is_zero() {
            return Err("a duration of 0".into());
        }
        // Players wait for the publishers of the same run.
        if plan.groups.iter().any(|group| group.role.sends()) {
            for (group, with_after) in plan.groups.iter_mut().zip(self.with_after) {
                if !group.role.sends() && !with_after && group.after.is_zero() {
                    group.after = PLAYERS_AFTER;
                }
            }
        }
        Ok(self.plan)
    }
}

/// When players begin in a run with publishers: these are up by then.
const PLAYERS_AFTER: Duration = Duration::from_secs(1);

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is no number that fits here"))
}

fn positive(value: f64, complaint: &str) -> Result<f64, String> {
    if value > 0.0 {
        Ok(value)
    } else {
        Err(complaint.into())
    }
}

/// A number that is not negative.
fn amount(text: &str, whole: &str) -> Result<f64, String> {
    let value: f64 = text
        .parse()
        .map_err(|_| format!("{whole:?} is no number"))?;
    if value.is_finite() && value >= 0.0 {
        Ok(value)
    } else {
        Err(format!("{whole:?} is out of range"))
    }
}

/// `50ms`, `10s`, `2m`; seconds without a unit.
fn duration(text: &str) -> Result<Duration, String> {
    for (unit, seconds) in [
        ("us", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("", 1.0),
    ] {
        if let Some(value) = text.strip_suffix(unit) {
            let seconds = amount(value, text)? * seconds;
            return Duration::try_from_secs_f64(seconds)
                .map_err(|_| format!("{text:?} is out of range"));
        }
    }
    unreachable!("the empty unit fits every text");
}

/// `200/s` or `200`.
fn rate(text: &str) -> Result<f64, String> {
    amount(text.strip_suffix("/s").unwrap_or(text), text)
}

/// `2%`, or a part of 1.
fn part(text: &str) -> Result<f64, String> {
    match text.strip_suffix('%') {
        Some(percent) => Ok(amount(percent, text)? / 100.0),
        None => amount(text, text),
    }
}

/// `1M`, `500k` or `500000`.
fn bit_rate(text: &str) -> Result<u64, String> {
    let (value, factor) = match text.strip_suffix(['M', 'm']) {
        Some(value) => (value, 1e6),
        None => match text.strip_suffix(['k', 'K']) {
            Some(value) => (value, 1e3),
            None => (text, 1.0),
        },
    };
    Ok((amount(value, text)? * factor) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[&str]) -> Result<Command, String> {
        Command::parse(line.iter().map(OsString::from))
    }

    fn plan(line: &[&str]) -> Plan {
        match parse(line).expect("good arguments") {
            Command::Run(plan) => *plan,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_role_with_options() {
        let plan = plan(&[
            "play",
            "rtmp://h/live/s{n%10}",
            "--count",
            "1000",
            "--ramp=500/s",
            "--churn",
            "10/s",
            "--duration",
            "15s",
            "--max-p99",
            "50ms",
            "--loss",
            "2%",
            "--bitrate",
            "1.5M",
        ]);
        let [group] = &plan.groups[..] else {
            panic!("{plan:?}");
        };
        assert_eq!((group.role, group.count), (Role::Play, 1_000));
        assert_eq!(
            (group.ramp_per_second, group.churn_per_second),
            (500.0, 10.0)
        );
        assert_eq!(group.after, Duration::ZERO);
        assert_eq!(plan.duration, Duration::from_secs(15));
        assert_eq!(plan.bounds.p99, Some(Duration::from_millis(50)));
        assert_eq!(plan.impairment.loss, 0.02);
        assert_eq!(plan.video_bps, Some(1_500_000));
        assert_eq!(group.url_of(27), "rtmp://h/live/s7");
    }

    #[test]
    fn groups_have_keys_of_their_own() {
        let plan = plan(&[
            "mixed",
            "--ramp",
            "50",
            "--publish",
            "1@rtmp://h/live/s",
            "--play",
            "100@rtmp://h/live/s",
            "--whep",
            "400@http://h:8080/whep/live/s ramp=200/s after=5s",
        ]);
        let shape: Vec<_> = plan
            .groups
            .iter()
            .map(|g| {
                (
                    g.role,
                    g.count,
                    g.ramp_per_second,
                    g.after.as_secs(),
                    g.late,
                )
            })
            .collect();
        assert_eq!(
            shape,
            [
                (Role::Publish, 1, 50.0, 0, false),
                (Role::Play, 100, 50.0, 1, false),
                (Role::Whep, 400, 200.0, 5, true),
            ]
        );
    }

    #[test]
    fn numbers_are_put_into_urls() {
        let mut plan = plan(&["whep", "http://h/{n}/x{n}"]);
        assert_eq!(plan.groups[0].url_of(12), "http://h/12/x12");
        plan.groups[0].url = "http://h/plain".into();
        assert_eq!(plan.groups[0].url_of(12), "http://h/plain");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, told) in [
            (&["plai", "x"][..], "unknown role \"plai\""),
            (&["play"], "play needs a URL"),
            (
                &["play", "http://h/x"],
                "play needs a URL with rtmp://, not \"http://h/x\"",
            ),
            (&["whep", "http://h/x", "--count", "0"], "a count of 0"),
            (&["whep", "http://h/x", "--ramp", "0"], "a ramp of 0"),
            (&["whep", "http://h/x", "--count"], "--count needs a value"),
            (
                &["whep", "http://h/x", "--duration", "soon"],
                "\"soon\" is no number",
            ),
            (
                &["whep", "http://h/x", "--loss", "-1%"],
                "\"-1%\" is out of range",
            ),
            (
                &["whep", "http://h/x", "--max-cpu", "50%"],
                "--max-cpu needs --pid",
            ),
            (
                &["whep", "http://h/x", "--cuont", "1"],
                "unknown option --cuont",
            ),
            (
                &["mixed"],
                "mixed needs groups, as in --play 100@rtmp://localhost/live/s",
            ),
            (
                &["mixed", "--play", "rtmp://h/a/b"],
                "--play needs COUNT@URL, not \"rtmp://h/a/b\"",
            ),
            (
                &["mixed", "--play", "1@rtmp://h/a/b colour=red"],
                "unknown key \"colour\"",
            ),
        ] {
            assert_eq!(parse(line), Err(told.to_owned()), "{line:?}");
        }
    }

    #[test]
    fn help_and_version_are_found() {
        assert_eq!(parse(&[]), Ok(Command::Help));
        assert_eq!(
            parse(&["play", "rtmp://h/a/b", "--help"]),
            Ok(Command::Help)
        );
        assert_eq!(parse(&["--version"]), Ok(Command::Version));
    }

    #[test]
    fn units_are_read() {
        for (text, micros) in [
            ("50ms", 50_000),
            ("1.5s", 1_500_000),
            ("2m", 120_000_000),
            ("3", 3_000_000),
            ("7us", 7),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_micros(micros)), "{text}");
        }
        assert_eq!(bit_rate("500k"), Ok(500_000));
        assert_eq!(part("0.5"), Ok(0.5));
    }
}

//! [`Options`] of `rtmp-flood call`.

use std::time::Duration;

use crate::args::units::{duration, number, rate};
use crate::http::HttpUrl;

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The gateway's signalling.
    pub url: HttpUrl,
    /// How many calls.
    pub calls: usize,
    /// Calls that begin in a second.
    pub rate: f64,
    /// How long all of them stand together.
    pub hold: Duration,
    /// How long a callee lets it ring.
    pub answer_after: Duration,
    /// Shown at sign-in.
    pub token: Option<String>,
    /// Where the report goes as JSON; `-` is standard output.
    pub json: Option<String>,
    /// The gateway's process.
    pub pid: Option<u32>,
    /// Without a line a second.
    pub quiet: bool,
    /// Bound of the report.
    pub max_setup_p99: Option<Duration>,
}

impl Options {
    /// Reads the arguments behind `call`; `None`: help is wanted.
    ///
    /// # Errors
    /// For people.
    pub fn parse(arguments: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut options = Self {
            url: HttpUrl::parse("http://localhost:8080/ws")?,
            calls: 10,
            rate: 10.0,
            hold: Duration::from_secs(10),
            answer_after: Duration::from_millis(200),
            token: None,
            json: None,
            pid: None,
            quiet: false,
            max_setup_p99: None,
        };
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let mut value = || {
                let missing = || format!("{argument} needs a value");
                arguments.next().ok_or_else(missing)
            };
            match argument.as_str() {
                "--help" | "-h" => return Ok(None),
                "--calls" => options.calls = number::<usize>(&value()?)?.clamp(1, CALLS_MAX),
                "--rate" => options.rate = rate(&value()?)?,
                "--hold" => options.hold = duration(&value()?)?,
                "--answer-after" => options.answer_after = duration(&value()?)?,
                "--token" => options.token = Some(value()?),
                "--json" => options.json = Some(value()?),
                "--pid" => options.pid = Some(number(&value()?)?),
                "--quiet" => options.quiet = true,
                "--max-setup-p99" => options.max_setup_p99 = Some(duration(&value()?)?),
                url if url.starts_with("ws://") => {
                    options.url = HttpUrl::parse(&url.replacen("ws", "http", 1))?;
                }
                other => return Err(format!("unknown argument {other:?}")),
            }
        }
        Ok(Some(options))
    }
}

/// Help for people.
pub const HELP: &str = "\
rtmp-flood call: calls between simulated mini-programs and browsers

  rtmp-flood call [OPTIONS] [ws://HOST:PORT/ws]

One side of each call is a mini-program (RTMP: live-pusher and live-player), the other a browser
(WebRTC: one connection each way); they ring in turn. All stand together for a while, then one side
of each hangs up. Not clean, and exit status 1: a call that fails, a side without picture or sound,
sound that is missing or late, a picture that cannot be decoded, a bound that is broken.

  --calls N              how many (default 10)
  --rate N               how many begin in a second (default 10)
  --hold TIME            how long all stand (default 10s)
  --answer-after TIME    how long it rings (default 200ms)
  --token TEXT           shown at sign-in
  --pid PID              the gateway's process: its CPU and memory are told
  --max-setup-p99 TIME   bound on the time from accepting to picture and sound on both sides
  --json FILE            the report as JSON; - is standard output
  --quiet                no line a second
";

/// Users, ports and files of one machine.
const CALLS_MAX: usize = 5_000;

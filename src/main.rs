//! The program: arguments, configuration, logging, and then the [loop](rtmp_gateway::net).

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use log::{LevelFilter, info};
use rtmp_gateway::access::Access;
use rtmp_gateway::config::Config;
use rtmp_gateway::demo;
use rtmp_gateway::net::Server;

/// The configuration that is read if it is there and no other is named.
const DEFAULT_FILE: &str = "gateway.toml";

const HELP: &str = "\
rtmp-gateway joins RTMP publishers and players to browsers (WebRTC), both ways.

Usage: rtmp-gateway [options]

  --config FILE  read this configuration (else ./gateway.toml if it is there,
                 else the defaults that the shipped gateway.toml explains)
  --check        look at the configuration, say what is wrong with it, and end
  --demo         also publish a built-in clip as live/demo, to have something to see
  --version      say the version and end
  --help         say this and end

Exit status: 0 done, 1 failed, 2 wrong arguments or configuration.
RUST_LOG overrides the level of the log, as in RUST_LOG=debug.
";

/// Exit status for what the user can put right before the program runs.
const STATUS_USAGE: u8 = 2;

fn main() -> ExitCode {
    let command = match Command::parse(std::env::args_os().skip(1)) {
        Ok(command) => command,
        Err(reason) => {
            eprintln!("rtmp-gateway: {reason}\nTry: rtmp-gateway --help");
            return ExitCode::from(STATUS_USAGE);
        }
    };
    match command {
        Command::Help => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Command::Version => {
            println!("rtmp-gateway {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Command::Run(options) => run(options),
    }
}

fn run(options: Options) -> ExitCode {
    let (config, origin) = match load(options.config.as_deref()) {
        Ok(loaded) => loaded,
        Err(reason) => {
            eprintln!("{reason}");
            return ExitCode::from(STATUS_USAGE);
        }
    };
    if options.check {
        println!("{origin}: ok");
        return ExitCode::SUCCESS;
    }
    start_log(config.log.level);
    let version = env!("CARGO_PKG_VERSION");
    info!("rtmp-gateway {version}, configuration: {origin}");
    match serve(config, options.demo) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(config: Config, with_demo: bool) -> Result<(), Box<dyn std::error::Error>> {
    let mut server = Server::bind(config)?;
    server.watch_signals()?;
    if with_demo {
        demo::start(server.rtmp_addr)?;
    }
    server.run()?;
    info!("done");
    Ok(())
}

/// The configuration and where it is from.
fn load(file: Option<&Path>) -> Result<(Config, String), String> {
    let default = Path::new(DEFAULT_FILE);
    let path = match file {
        Some(path) => path,
        None if default.exists() => default,
        None => {
            return Ok((
                Config::default(),
                format!("defaults, no {DEFAULT_FILE} here"),
            ));
        }
    };
    match Config::load(path) {
        Ok(config) => match Access::new(&config.access) {
            Ok(_) => Ok((config, path.display().to_string())),
            Err(error) => Err(format!("{}: {error}", path.display())),
        },
        Err(error) => Err(error.to_string()),
    }
}

/// One line for each record: time in UTC, level, module, message. The libraries inside
/// speak of what they do from `warn` on.
fn start_log(level: LevelFilter) {
    let own = level.to_string();
    let others = level.min(LevelFilter::Warn);
    let filter = format!("{others},rtmp_gateway={own}");
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(filter))
        .format(|out, record| {
            let time = out.timestamp_millis();
            let style = out.default_level_style(record.level());
            let level = record.level();
            let target = short(record.target());
            writeln!(
                out,
                "{time} {style}{level:<5}{style:#} {target}: {}",
                record.args()
            )
        })
        .init();
}

/// The part of a target that tells most: our floor (`rtmp` of `rtmp_gateway::rtmp::session`), or
/// the library (`str0m` of `str0m::ice::agent`).
fn short(target: &str) -> &str {
    let mut parts = target.split("::");
    match (parts.next(), parts.next()) {
        (Some("rtmp_gateway"), Some(floor)) => floor,
        (Some("rtmp_gateway"), None) => "main",
        (first, _) => first.unwrap_or(target),
    }
}

/// What the arguments ask for.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    Help,
    Version,
    Run(Options),
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    config: Option<PathBuf>,
    check: bool,
    demo: bool,
}

impl Command {
    fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let mut options = Options::default();
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let text = argument.to_string_lossy();
            let (name, value) = match text.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name, Some(value)),
                _ => (&*text, None),
            };
            match (name, value) {
                ("--help" | "-h", None) => return Ok(Self::Help),
                ("--version" | "-V", None) => return Ok(Self::Version),
                ("--check", None) => options.check = true,
                ("--demo", None) => options.demo = true,
                ("--config" | "-c", value) => {
                    let file = match value {
                        Some(value) => PathBuf::from(value),
                        None => match arguments.next() {
                            Some(file) => PathBuf::from(file),
                            None => return Err("--config needs a file".into()),
                        },
                    };
                    if options.config.replace(file).is_some() {
                        return Err("--config is given twice".into());
                    }
                }
                ("--help" | "--version" | "--check" | "--demo", Some(_)) => {
                    return Err(format!("{name} takes no value"));
                }
                _ => return Err(format!("unknown argument {text:?}")),
            }
        }
        Ok(Self::Run(options))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Command, String> {
        Command::parse(arguments.iter().map(OsString::from))
    }

    #[test]
    fn arguments_are_understood_or_refused_by_name() {
        let run = |options| Ok(Command::Run(options));
        let config = Some(PathBuf::from("my.toml"));
        for (arguments, expected) in [
            (&[][..], run(Options::default())),
            (&["--help"], Ok(Command::Help)),
            (&["--demo", "-h"], Ok(Command::Help)),
            (&["--version"], Ok(Command::Version)),
            (
                &["--config", "my.toml", "--demo"],
                run(Options {
                    config: config.clone(),
                    demo: true,
                    check: false,
                }),
            ),
            (
                &["--check", "--config=my.toml"],
                run(Options {
                    config,
                    demo: false,
                    check: true,
                }),
            ),
            (&["--config"], Err("--config needs a file".into())),
            (
                &["-c", "a", "-c", "b"],
                Err("--config is given twice".into()),
            ),
            (&["--demo=1"], Err("--demo takes no value".into())),
            (&["--deom"], Err("unknown argument \"--deom\"".into())),
            (
                &["gateway.toml"],
                Err("unknown argument \"gateway.toml\"".into()),
            ),
        ] {
            assert_eq!(parse(arguments), expected, "{arguments:?}");
        }
    }

    #[test]
    fn targets_are_shown_short() {
        for (target, shown) in [
            ("rtmp_gateway::rtmp::session", "rtmp"),
            ("rtmp_gateway", "main"),
            ("str0m::ice::agent", "str0m"),
            ("dimpl", "dimpl"),
            ("", ""),
        ] {
            assert_eq!(short(target), shown);
        }
    }
}

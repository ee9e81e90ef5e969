//! `rtmp-flood`: loads a media server with publishers and players over RTMP, WHIP and WHEP,
//! and tells how it does.
//!
//! One thread, one loop ([`flood`]), thousands of clients: a player's media is not kept but
//! looked at in passing ([`skim`], [`rtp`]), for the send time that the publisher put into each
//! picture ([`stamp`]) and for everything that must be in order ([`watch`]).

mod args;
mod call;
mod clip;
mod clock;
mod flood;
mod histogram;
mod http;
mod link;
mod process;
mod progress;
mod report;
mod rtmp;
mod rtp;
mod scope;
mod sender;
mod skim;
mod stamp;
#[allow(dead_code, reason = "the tests use what calls do not")]
mod tags;
mod tally;
mod watch;
mod webrtc;

use std::path::Path;
use std::process::ExitCode;

use args::{Command, HELP, Plan};
use flood::Flood;

/// Exit status for what the user can put right before the program runs.
const STATUS_USAGE: u8 = 2;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == "call") {
        return call::main(arguments.map(|argument| argument.to_string_lossy().into_owned()));
    }
    match Command::parse(std::env::args_os().skip(1)) {
        Ok(Command::Help) => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Ok(Command::Version) => {
            println!("rtmp-flood {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Ok(Command::Run(plan)) => run(*plan),
        Err(reason) => {
            eprintln!("rtmp-flood: {reason}\nTry: rtmp-flood --help");
            ExitCode::from(STATUS_USAGE)
        }
    }
}

fn run(plan: Plan) -> ExitCode {
    let clients: u64 = plan.groups.iter().map(|group| u64::from(group.count)).sum();
    match process::raise_file_limit() {
        // Two sockets for a client by WebRTC while it asks, and some for ourselves.
        Ok(limit) if limit < 2 * clients + 32 => {
            eprintln!("rtmp-flood: {limit} open files may be too few, raise `ulimit -n`");
        }
        Ok(_) => {}
        Err(error) => eprintln!("rtmp-flood: the limit of open files is unknown: {error}"),
    }
    let flood = match Flood::new(plan.clone()) {
        Ok(flood) => flood,
        Err(reason) => {
            eprintln!("rtmp-flood: {reason}");
            return ExitCode::from(STATUS_USAGE);
        }
    };
    let report = match flood.run() {
        Ok(report) => report,
        Err(reason) => {
            eprintln!("rtmp-flood: {reason}");
            return ExitCode::FAILURE;
        }
    };
    let complaints = report.complaints(&plan.bounds, &plan.impairment);
    if let Some(file) = &plan.json {
        let text = format!("{:#}\n", report.to_json(&complaints));
        if file == Path::new("-") {
            print!("{text}");
        } else if let Err(error) = std::fs::write(file, text) {
            eprintln!("rtmp-flood: {}: {error}", file.display());
            return ExitCode::FAILURE;
        }
    }
    if plan.json.as_deref() != Some(Path::new("-")) {
        print!("{report}");
    }
    if complaints.is_empty() {
        return ExitCode::SUCCESS;
    }
    for complaint in &complaints {
        eprintln!("not clean: {complaint}");
    }
    ExitCode::FAILURE
}

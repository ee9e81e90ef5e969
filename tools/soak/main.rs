//! Soaks the gateway: publishers restarting, players and viewers joining and leaving,
//! takeovers and sudden deaths, for as long as was asked; then everything leaves, and
//! what the process holds must be back where it was. `tools/soak/run` builds and starts it.

#[allow(dead_code, unused_imports)]
#[path = "../../tests/e2e/support/mod.rs"]
mod support;

mod soak;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use soak::{Plan, Programs, WarmUp};
use support::namespace;

fn main() -> ExitCode {
    let program = |name: &str| {
        PathBuf::from(std::env::var_os(name).unwrap_or_else(|| panic!("{name} names a program")))
    };
    let mut minutes = 10.0;
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().and_then(|value| value.parse::<f64>().ok());
        match (word.as_str(), value) {
            ("--minutes", Some(value)) if value > 0.0 && value < 100_000.0 => minutes = value,
            _ => {
                eprintln!("usage: tools/soak/run [--minutes N]");
                return ExitCode::from(2);
            }
        }
    }
    let programs = Programs {
        gateway: program("RTMP_GATEWAY"),
        flood: program("RTMP_FLOOD"),
    };
    namespace::enter();
    let plan = Plan {
        round: Duration::from_secs(20),
        lasts: Duration::from_secs_f64(minutes * 60.0),
        warm_up: WarmUp::Round,
    };
    let complaints = soak::run(&programs, &plan);
    for complaint in &complaints {
        eprintln!("not clean: {complaint}");
    }
    ExitCode::from(u8::from(!complaints.is_empty()))
}

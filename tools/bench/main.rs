//! The standard load matrix: the gateway and nginx in turn, each run against a fresh server,
//! round after round, medians side by side in one Markdown table. `tools/bench/run` builds
//! what it needs and starts it.
//!
//! CPU is time of the server's process over the measured window, in percent of one core. It counts
//! only with its delivered quality beside it: latency, pictures received of those expected,
//! and whether the load tool found the run clean.
//!
//! | module | what it has |
//! | --- | --- |
//! | `rows` | what is run and what each figure may be at most |
//! | `sample` | one run of one row |
//! | `server` | the gateway or nginx for one run |
//! | `table` | what is printed |

mod rows;
mod sample;
mod server;
mod table;

use std::process::ExitCode;

use rows::{ROWS, Row};
use sample::Sample;
use server::{Kind, Programs};
use table::Table;

/// What is asked for.
struct Options {
    rounds: u32,
    seconds: u32,
    may_pin: bool,
    into_readme: bool,
    wanted: Vec<String>,
}

/// What became of a run of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Each budget is kept.
    Met,
    /// Some budget is not kept.
    NotMet,
    /// Some row could not be measured.
    Failed,
}

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => return ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("bench: {reason}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(Verdict::Met) => ExitCode::SUCCESS,
        Ok(Verdict::NotMet) => ExitCode::from(1),
        Ok(Verdict::Failed) => ExitCode::from(3),
        Err(reason) => {
            eprintln!("bench: {reason}");
            ExitCode::from(3)
        }
    }
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut options = Self {
            rounds: 3,
            seconds: 8,
            may_pin: true,
            into_readme: false,
            wanted: Vec::new(),
        };
        while let Some(word) = words.next() {
            let mut number = || {
                let value = words.next().and_then(|value| value.parse().ok());
                value
                    .filter(|value| *value > 0)
                    .ok_or(format!("{word} needs a number"))
            };
            match &word[..] {
                "--quick" => (options.rounds, options.seconds) = (1, 4),
                "--rounds" => options.rounds = number()?,
                "--seconds" => options.seconds = number()?,
                "--no-pin" => options.may_pin = false,
                "--readme" => options.into_readme = true,
                "--list" => {
                    ROWS.iter().for_each(|row| println!("{}", row.name));
                    return Ok(None);
                }
                name if ROWS.iter().any(|row| row.name.starts_with(name)) => {
                    options.wanted.push(word);
                }
                _ => return Err(format!("no row begins with {word:?}; --list names them")),
            }
        }
        Ok(Some(options))
    }

    fn wants(&self, row: &Row) -> bool {
        let is_named = |wish: &String| row.name.starts_with(wish.as_str());
        self.wanted.is_empty() || self.wanted.iter().any(is_named)
    }
}

fn run(options: &Options) -> Result<Verdict, String> {
    let programs = Programs::find(options.may_pin)?;
    let mut table = Table::new(&programs, options.rounds, options.seconds);
    for row in ROWS.iter().filter(|row| options.wants(row)) {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        // In turn, so that what else the machine does hits both.
        for round in 1..=options.rounds {
            let measure = |kind, samples: &mut Vec<Result<Sample, String>>| {
                eprintln!("bench: {} {kind:?} {round} of {}", row.name, options.rounds);
                samples.push(Sample::measure(row, kind, &programs, options.seconds));
            };
            measure(row.gateway, &mut ours);
            if row.with_nginx && programs.nginx.is_some() {
                measure(Kind::Nginx, &mut theirs);
            }
        }
        table.add(row, &ours, &theirs);
    }
    let text = table.finish();
    println!("{text}");
    if options.into_readme {
        table::into_readme(&text)?;
    }
    Ok(table.verdict())
}

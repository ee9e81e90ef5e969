//! Micro-benchmarks of what every packet goes through.
//!
//! `cargo bench` times each operation with divan. With `--count NAME CALLS` it only prepares one
//! operation, runs it so many times and says how many units that was: this is what
//! `tools/bench/instructions` runs under callgrind.

#[path = "../../tests/common/mod.rs"]
mod common;
mod operations;

use divan::Bencher;
use operations::{OPERATIONS, Operation};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["--names"] => {
            for Operation {
                name, unit, calls, ..
            } in OPERATIONS
            {
                println!("{name}\t{calls}\t{unit}");
            }
        }
        ["--count", name, calls, ..] => {
            let calls: u32 = calls.parse().expect("a number of calls");
            let mut prepared = (operation(name).prepare)();
            println!("{}", (0..calls).map(|_| (prepared.run)()).sum::<u64>());
        }
        _ => divan::main(),
    }
}

fn operation(name: &str) -> &'static Operation {
    let found = OPERATIONS.iter().find(|operation| operation.name == name);
    found.expect("a name that --names tells")
}

fn short() -> impl Iterator<Item = &'static str> {
    names(|calls| calls >= 50)
}

fn long() -> impl Iterator<Item = &'static str> {
    names(|calls| calls < 50)
}

fn names(wanted: fn(u32) -> bool) -> impl Iterator<Item = &'static str> {
    let operations = OPERATIONS.iter();
    (operations.filter(move |operation| wanted(operation.calls))).map(|operation| operation.name)
}

/// One piece, again and again. Divided by its units: per message, picture, packet.
#[divan::bench(args = short())]
fn piece(bencher: Bencher<'_, '_>, name: &str) {
    let mut prepared = (operation(name).prepare)();
    let units = (prepared.run)();
    bencher
        .counter(divan::counter::ItemsCount::new(units))
        .bench_local(|| (prepared.run)());
}

/// One virtual second of a whole gateway. Sessions whose peers hear nothing end after a while, so
/// each sample has a gateway of its own.
#[divan::bench(args = long(), sample_count = 5, sample_size = 1)]
fn gateway(bencher: Bencher<'_, '_>, name: &str) {
    let units = ((operation(name).prepare)().run)();
    bencher
        .counter(divan::counter::ItemsCount::new(units))
        .with_inputs(|| (operation(name).prepare)())
        .bench_local_refs(|prepared| (prepared.run)());
}

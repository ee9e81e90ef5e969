//! `rtmp-flood call`: calls between simulated mini-programs and browsers, so many a second, and how
//! long it takes from accepting one to picture and sound on both sides.
//!
//! | module | owns |
//! | --- | --- |
//! | [`conversation`] | one call |
//! | [`signal`] | its signalling |
//! | [`phone`] | the mini-program's media, by [`crate::tags`] |
//! | [`browser`] | the browser's media |
//! | [`media`] | what browsers send |
//! | [`report`] | what is told at the end |

mod browser;
mod conversation;
mod media;
mod options;
mod phone;
mod report;
mod signal;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mio::{Events, Poll};

use crate::process::{Usage, raise_file_limit};
use crate::tags::Phone;
use crate::webrtc::Crypto;
use conversation::{Call, Shared, State, TOKENS};
use media::CallMedia;
use options::Options;
use report::Report;

/// Runs `rtmp-flood call` with these arguments.
pub fn main(arguments: impl Iterator<Item = String>) -> ExitCode {
    let options = match Options::parse(arguments) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{}", options::HELP);
            return ExitCode::SUCCESS;
        }
        Err(reason) => {
            eprintln!("rtmp-flood call: {reason}\nTry: rtmp-flood call --help");
            return ExitCode::from(2);
        }
    };
    // Six sockets for a call, and some for ourselves. A limit that is too low shows in failed calls.
    let _ = raise_file_limit();
    match run(&options) {
        Ok(report) => report.tell(&options),
        Err(reason) => {
            eprintln!("rtmp-flood call: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<Report, String> {
    let told = |error: io::Error| error.to_string();
    let phone = Phone::new();
    let mut shared = Shared {
        server: options.url.resolve()?,
        url: options.url.clone(),
        token: options.token.clone(),
        crypto: Crypto::new()?,
        media: CallMedia::new(&phone)?,
        phone,
        answer_after: options.answer_after,
        buffer: vec![0; 64 * 1024].into(),
        run: std::process::id(),
    };
    let mut poll = Poll::new().map_err(told)?;
    let mut events = Events::with_capacity(1_024);
    let mut calls: Vec<Call> = Vec::new();
    for number in 0..options.calls {
        calls.push(Call::new(number, &shared, poll.registry())?);
    }
    let usage = || match options.pid {
        Some(pid) => Usage::of(Some(pid)).map(Some).map_err(told),
        None => Ok(None),
    };
    let mut timers = Timers::new(calls.len());
    let start = Instant::now();
    let interval = Duration::from_secs_f64(1.0 / options.rate);
    let mut begun = 0;
    // Counted while all calls stand.
    let mut window: Option<(Instant, Option<Usage>)> = None;
    let mut measured = None;
    let mut end_at: Option<Instant> = None;
    let mut tell_at = start + TELL_INTERVAL;
    let mut ready_at: Option<Instant> = None;
    loop {
        let now = Instant::now();
        let signed_in = calls
            .iter()
            .filter(|call| call.state != State::SigningIn)
            .count();
        if ready_at.is_none() && (signed_in == calls.len() || now > start + SIGN_IN_TIME) {
            ready_at = Some(now);
        }
        if let Some(ready_at) = ready_at {
            while begun < calls.len() && ready_at + interval * begun as u32 <= now {
                match calls[begun].state {
                    State::Ready => calls[begun].begin(&shared),
                    _ => calls[begun].fail("not_signed_in"),
                }
                begun += 1;
            }
        }
        let all_begun = begun == calls.len();
        if all_begun && window.is_none() {
            let late = ready_at.is_some_and(|at| now > at + interval * begun as u32 + SETUP_TIME);
            let is_up = |call: &Call| matches!(call.state, State::Over(_)) || call.is_set_up();
            if late || calls.iter().all(is_up) {
                window = Some((now, usage()?));
                end_at = Some(now + options.hold);
            }
        }
        if end_at.is_some_and(|at| at <= now) {
            end_at = None;
            if let Some((from, before)) = &window {
                measured = Some((now - *from, *before, usage()?));
            }
            for call in &mut calls {
                match call.state {
                    State::Talking => call.end(),
                    State::Over(_) => {}
                    _ => call.fail("never_stood"),
                }
            }
            tell_at = now + END_TIME;
        }
        let over = calls
            .iter()
            .filter(|call| matches!(call.state, State::Over(_)))
            .count();
        if over == calls.len() {
            break;
        }
        if now >= tell_at {
            if measured.is_some() {
                for call in &mut calls {
                    call.fail("end_not_told");
                }
                break;
            }
            tell_at = now + TELL_INTERVAL;
            if !options.quiet {
                let up = calls.iter().filter(|call| call.is_set_up()).count();
                eprintln!(
                    "{:5.1} s  {signed_in} signed in  {begun} begun  {up} up  {over} over",
                    (now - start).as_secs_f64()
                );
            }
        }
        while let Some(number) = timers.take(now) {
            calls[number].on_due(now, &shared, poll.registry());
            timers.arm(number, calls[number].next_due(&shared));
        }
        let wait = timers
            .next()
            .map_or(TURN, |at| at.saturating_duration_since(now).min(TURN));
        match poll.poll(&mut events, Some(wait)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.to_string()),
        }
        let now = Instant::now();
        for event in &events {
            let (number, slot) = (event.token().0 / TOKENS, event.token().0 % TOKENS);
            if let Some(call) = calls.get_mut(number) {
                call.on_ready(slot, now, &mut shared, poll.registry());
                timers.arm(number, call.next_due(&shared));
            }
        }
        // Beginning and ending a call move its timers too.
        if begun < calls.len() || measured.is_some() || ready_at.is_none() {
            for (number, call) in calls.iter().enumerate() {
                timers.arm(number, call.next_due(&shared));
            }
        }
    }
    Ok(Report::new(calls, measured))
}

/// When which call is due; each stands here at most a few times.
struct Timers {
    heap: BinaryHeap<Reverse<(Instant, usize)>>,
    armed: Vec<Option<Instant>>,
}

impl Timers {
    fn new(calls: usize) -> Self {
        Self {
            heap: BinaryHeap::new(),
            armed: vec![None; calls],
        }
    }

    fn arm(&mut self, number: usize, due: Option<Instant>) {
        if self.armed[number] != due {
            self.armed[number] = due;
            self.heap.extend(due.map(|due| Reverse((due, number))));
        }
    }

    fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((due, _))| *due)
    }

    fn take(&mut self, now: Instant) -> Option<usize> {
        while self.next()? <= now {
            let Reverse((due, number)) = self.heap.pop()?;
            // Others were armed anew since.
            if self.armed[number] == Some(due) {
                self.armed[number] = None;
                return Some(number);
            }
        }
        None
    }
}

/// How long a turn waits at most.
const TURN: Duration = Duration::from_millis(50);
const TELL_INTERVAL: Duration = Duration::from_secs(1);
/// For both sides of all calls to sign in.
const SIGN_IN_TIME: Duration = Duration::from_secs(10);
/// For the last call to get picture and sound.
const SETUP_TIME: Duration = Duration::from_secs(10);
/// For the other side to be told of the end.
const END_TIME: Duration = Duration::from_secs(5);

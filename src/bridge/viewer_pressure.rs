//! [`Pressure`]: how much the path to one viewer carries, judged by what its receiver reports.
//!
//! No estimate is made while all is well: a viewer gets the stream as it comes. Lasting
//! loss, or packets that wait longer and longer in front of a bottleneck, put it under a
//! budget, which is a little less than what arrived of late. The budget is tried to be raised
//! every second or two: only more traffic shows that there is room for more. A trial ends with the
//! next report, or before that by what the viewer asks to have repeated. Where the viewer answers
//! echoes (`probe`), these begin a trial as soon as there is room, and end it.
//!
//! ```text
//!            a long queue, or loss and a queue: at once; loss alone: twice in a row
//!   Open ──────────────────────────────────────────────────────► Hold ◄──────────┐
//!     ▲                                the path's queue runs empty │             │ loss,
//!     │                                                            ▼             │ a queue
//!     │       the whole stream fits                  ┌──────────► Steady ────────┤
//!     └───────────────────────────────────── Trial ◄─┘                           │
//!                     fits, but is not all:  └──┴────────────────────────────────┘
//!                     the next trial
//! ```
//!
//! Much loss without a queue, once, is an outage that is over, for nothing is reported in one: what
//! comes after it is sent as before.
//!
//! Loss that stays though less is sent is the path's own (a radio link): the viewer gets all
//! of the stream again, with retransmissions, and only more than that much loss counts
//! from then on.

mod budget;
mod probe;

use std::time::{Duration, Instant};

use budget::{Budget, HOLD_MIN};
use probe::Probe;

/// What a receiver report says of the picture, and what was sent until it came.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// Share of packets lost since the report before, 0 to 1.
    pub loss: f64,
    /// Round trip, if it could be measured.
    pub rtt: Option<Duration>,
    /// Bytes sent to the viewer in all, repetitions and sound among them.
    pub bytes_sent: u64,
    /// What the whole stream takes, in bits a second.
    pub stream_bps: f64,
    /// What its sound takes of that, in bits a second.
    pub audio_bps: f64,
}

/// What a viewer gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// All of the stream.
    #[default]
    All,
    /// Sound, and what fits of the picture.
    Thinned,
    /// Sound alone, and now and then a key frame to see whether more fits.
    Sound,
    /// Nothing for a moment: not even sound arrives.
    Nothing,
}

impl Level {
    /// Its name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Level::All => "all",
            Level::Thinned => "thinned",
            Level::Sound => "sound",
            Level::Nothing => "nothing",
        }
    }
}

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Pressure {
    /// On the heap, because few viewers have one.
    budget: Option<Box<Budget>>,
    /// The shortest round trip of late: one without a queue.
    base_rtt: Option<Duration>,
    last: Option<Seen>,
    /// Bad reports in a row.
    bad: u32,
    /// Loss that sending less did not cure.
    own_loss: f64,
    /// Times that it came under a budget.
    pub times: u64,
}

/// A report that was seen.
#[derive(Clone, Copy, Debug)]
struct Seen {
    at: Instant,
    bytes_sent: u64,
    rtt: Option<Duration>,
}

impl Pressure {
    /// What the viewer gets now.
    pub fn level(&self) -> Level {
        let Some(budget) = &self.budget else {
            return Level::All;
        };
        budget.level()
    }

    /// Whether the viewer gets all that comes.
    pub const fn is_open(&self) -> bool {
        self.budget.is_none()
    }

    /// Bits a second that the path is given, if there is a budget.
    pub fn budget_bps(&self) -> Option<f64> {
        self.budget.as_ref().map(|budget| budget.bps())
    }

    /// Bits a second for the picture, if there is a budget.
    pub fn video_bps(&self) -> Option<f64> {
        self.budget.as_ref().map(|budget| budget.paced_bps())
    }

    /// Whether all of the stream is sent, if only to see whether it fits.
    pub fn tries_all(&self) -> bool {
        self.budget.as_ref().is_none_or(|budget| budget.tries_all())
    }

    /// The path does not carry what was sent to try it.
    pub fn trial_failed(&mut self, now: Instant) {
        if let Some(budget) = &mut self.budget {
            budget.trial_failed(now, HOLD_MIN);
        }
    }

    /// Until when no picture may leave.
    pub fn held_until(&self) -> Option<Instant> {
        self.budget.as_ref()?.held_until()
    }

    /// A key frame could be sent. Without room for pictures that is done now and then all the
    /// same: nothing else shows whether there is room again.
    pub fn admits_key(&mut self, now: Instant) -> bool {
        self.budget
            .as_mut()
            .is_none_or(|budget| budget.admits_key(now))
    }

    /// Looks what time has brought; to be called before anything is sent while there is a budget.
    /// `repeated` is how many packets the viewer had repeated in all.
    pub fn poll(&mut self, now: Instant, repeated: u64) {
        let Some(budget) = &mut self.budget else {
            return;
        };
        // Where nothing is sent nothing is reported either.
        let is_reported = self.last.is_some_and(|seen| now < seen.at + REPORT_OLD);
        budget.poll(now, repeated, self.own_loss, is_reported);
    }

    /// Whether a train of `bits` that is about to leave is to have an echo asked for at each end.
    pub fn wants_echoes(&self, now: Instant, bits: f64) -> bool {
        let budget = self.budget.as_ref();
        budget.is_some_and(|budget| budget.wants_echoes(now, bits))
    }

    /// How many bits are to be sent for no other purpose, between two echoes, because no pictures leave
    /// that would tell of the path; 0 for an echo alone.
    pub fn padding(&self, now: Instant) -> Option<f64> {
        self.budget.as_ref()?.padding(now)
    }

    /// A train of `bits` has left between the echoes of these numbers.
    pub fn asked_echoes(&mut self, now: Instant, front: u64, back: u64, bits: f64) {
        if let Some(budget) = &mut self.budget {
            budget.probe.asked(now, front, back, bits);
        }
    }

    /// Takes an echo in. `repeated` and `bytes_sent` are what the viewer had repeated, and what was
    /// sent to it, in all.
    pub fn echo(
        &mut self,
        now: Instant,
        number: u64,
        rtt: Duration,
        repeated: u64,
        bytes_sent: u64,
    ) {
        let Some(budget) = &mut self.budget else {
            return;
        };
        let echo = budget.probe.answered(number, rtt);
        if budget.echo(now, echo, repeated, bytes_sent) {
            self.budget = None;
        }
    }

    /// Takes a report in.
    pub fn report(&mut self, now: Instant, report: Report) {
        let queue = self.queue(report.rtt);
        let last = self.last.replace(Seen {
            at: now,
            bytes_sent: report.bytes_sent,
            rtt: report.rtt,
        });
        let Some(last) = last else { return };
        let passed = now.saturating_duration_since(last.at);
        if passed < REPORT_INTERVAL_MIN {
            self.last = Some(last);
            return;
        }
        let sent = report.bytes_sent.saturating_sub(last.bytes_sent);
        // What left and did not arrive has been lost, or is in the queue that grew.
        let growth = match (report.rtt, last.rtt) {
            (Some(rtt), Some(before)) => rtt.saturating_sub(before),
            _ => Duration::ZERO,
        };
        let sent_bps = sent as f64 * 8.0 / passed.as_secs_f64();
        let arrived_bps = sent as f64 * 8.0 * (1.0 - report.loss) / (passed + growth).as_secs_f64();
        let excess = report.loss - self.own_loss;
        let is_dire = excess >= LOSS_DIRE
            || queue >= QUEUE_DIRE
            || (excess >= LOSS_WITH_QUEUE && queue >= QUEUE_HIGH);
        let is_bad = is_dire || excess >= LOSS_HIGH || queue >= QUEUE_HIGH;
        // Much loss and no queue is an outage, which is over: nothing is reported in one.
        let is_over = queue < QUEUE_LOW && self.bad == 0;
        self.bad = if is_bad { self.bad + 1 } else { 0 };
        match &mut self.budget {
            None if (is_dire && !is_over) || self.bad >= 2 => {
                self.times += 1;
                self.bad = 0;
                let probe = Probe::new(self.base_rtt);
                let budget = Budget::new(now, report, sent_bps, arrived_bps, queue, probe);
                self.budget = Some(Box::new(budget));
            }
            None => {}
            Some(budget) => {
                budget.note_stream(report);
                let is_ours = budget.judge_cure(now, report.loss, sent_bps, queue);
                if !is_ours {
                    self.own_loss = self.own_loss.max(report.loss);
                    self.budget = None;
                } else if is_bad {
                    budget.bad(now, report.loss, queue);
                } else if excess < LOSS_LOW && queue < QUEUE_LOW && budget.good(now) {
                    self.budget = None;
                }
            }
        }
        self.own_loss = self
            .own_loss
            .min(report.loss.max(self.own_loss * OWN_LOSS_KEPT));
    }

    /// How long packets wait on their way, beyond what the path itself takes.
    fn queue(&mut self, rtt: Option<Duration>) -> Duration {
        let Some(rtt) = rtt else {
            return Duration::ZERO;
        };
        let base = self.base_rtt.get_or_insert(rtt);
        if rtt < *base {
            *base = rtt;
        } else if self.budget.is_none() {
            // The path may have become a longer one.
            *base += (rtt - *base) / BASE_RISE_DIVISOR;
        }
        rtt.saturating_sub(*base)
    }
}

/// Loss from which a viewer comes under a budget: at once if there is some queue, after two
/// reports, and at once with a long queue. Below the first two retransmission does better than sending less.
const LOSS_DIRE: f64 = 0.30;
const LOSS_HIGH: f64 = 0.15;
const LOSS_WITH_QUEUE: f64 = 0.04;

/// Loss below which a report is good.
const LOSS_LOW: f64 = 0.05;

/// Waits in the path's queue, judged as the losses are; below the last one a report is good.
const QUEUE_DIRE: Duration = Duration::from_millis(400);
const QUEUE_HIGH: Duration = Duration::from_millis(150);
const QUEUE_LOW: Duration = Duration::from_millis(80);

/// A report older than this is as good as none.
const REPORT_OLD: Duration = Duration::from_millis(2_000);

/// Reports that follow faster say nothing new.
const REPORT_INTERVAL_MIN: Duration = Duration::from_millis(300);

/// Loss of the path's own is forgotten by so much with each report that has less.
const OWN_LOSS_KEPT: f64 = 0.95;

/// The base round trip follows longer ones this slowly, in a minute or two.
const BASE_RISE_DIVISOR: u32 = 64;

#[cfg(test)]
mod tests;

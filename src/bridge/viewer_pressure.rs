//! [`Pressure`]: how much the path to one viewer carries, judged by what its receiver reports.
//!
//! No estimate is made while all is well: a viewer gets the stream as it comes. Lasting
//! loss, or packets that wait longer and longer in front of a bottleneck, put it under a
//! budget, which is a little less than what arrived of late. The budget is tried to be raised
//! every [`TRIAL_AFTER`]: only more traffic shows that there is room for more. A trial ends with the
//! next report, or before that by what the viewer asks to have repeated.
//!
//! ```text
//!            much loss, or some and a queue: at once; a little less: twice in a row
//!   Open ──────────────────────────────────────────────────────► Hold ◄──────────┐
//!     ▲                                the path's queue runs empty │             │ loss,
//!     │                                                            ▼             │ a queue
//!     │       the whole stream fits                  ┌──────────► Steady ────────┤
//!     └───────────────────────────────────── Trial ◄─┘                           │
//!                     fits, but is not all:  └──┴────────────────────────────────┘
//!                     the next trial
//! ```
//!
//! Loss that stays though less is sent is the path's own (a radio link): the viewer gets all
//! of the stream again, with retransmissions, and only more than that much loss counts
//! from then on.

use std::time::{Duration, Instant};

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

#[derive(Clone, Copy, Debug)]
struct Budget {
    phase: Phase,
    /// What is sent at present, and what is known to fit.
    bps: f64,
    fits_bps: f64,
    /// What the step of the trial before this one sent.
    confirmed_bps: f64,
    audio_bps: f64,
    stream_bps: f64,
    /// When it began, and with what loss and rate.
    since: Instant,
    first_loss: f64,
    first_bps: f64,
    /// Reports since then whose loss was as high, though less was sent.
    uncured: u32,
    /// Reports in a row that hardly anything arrived.
    dead: u32,
    /// Trials in a row that failed.
    failed: u32,
    /// When a key frame was last sent to see whether there is room.
    key_tried: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// The path's queue runs empty: no pictures, or nothing at all.
    Hold { until: Instant, silent: bool },
    /// At the budget.
    Steady { since: Instant, good: u32 },
    /// Above it, to see whether more fits.
    Trial {
        since: Instant,
        repeated: u64,
        good: u32,
    },
}

impl Pressure {
    /// What the viewer gets now.
    pub fn level(&self) -> Level {
        let Some(budget) = &self.budget else {
            return Level::All;
        };
        match budget.phase {
            Phase::Hold { silent: true, .. } => Level::Nothing,
            _ if budget.video_bps() < VIDEO_BPS_MIN => Level::Sound,
            _ => Level::Thinned,
        }
    }

    /// Whether the viewer gets all that comes.
    pub const fn is_open(&self) -> bool {
        self.budget.is_none()
    }

    /// Bits a second that the path is given, if there is a budget.
    pub fn budget_bps(&self) -> Option<f64> {
        self.budget.as_ref().map(|budget| budget.bps)
    }

    /// Bits a second for the picture, if there is a budget.
    pub fn video_bps(&self) -> Option<f64> {
        self.budget
            .as_ref()
            .map(|budget| budget.video_bps().max(VIDEO_BPS_MIN))
    }

    /// Until when no picture may leave.
    pub fn held_until(&self) -> Option<Instant> {
        match self.budget.as_ref()?.phase {
            Phase::Hold { until, .. } => Some(until),
            Phase::Steady { .. } | Phase::Trial { .. } => None,
        }
    }

    /// A key frame could be sent. Without room for pictures that is done now and then all the
    /// same: nothing else shows whether there is room again.
    pub fn admits_key(&mut self, now: Instant) -> bool {
        let level = self.level();
        let Some(budget) = &mut self.budget else {
            return true;
        };
        let waited = now.saturating_duration_since(budget.key_tried);
        match level {
            Level::All | Level::Thinned => true,
            Level::Sound if waited >= KEY_TRIED_INTERVAL => {
                budget.key_tried = now;
                true
            }
            Level::Sound | Level::Nothing => false,
        }
    }

    /// Looks what time has brought; to be called before anything is sent while there is a budget.
    /// `repeated` is how many packets the viewer had repeated in all.
    pub fn poll(&mut self, now: Instant, repeated: u64) {
        let Some(budget) = &mut self.budget else {
            return;
        };
        match budget.phase {
            Phase::Hold { until, .. } if now >= until => {
                budget.phase = Phase::Steady {
                    since: until,
                    good: 0,
                };
            }
            Phase::Steady { since, good } if now >= since + TRIAL_AFTER => {
                // Where nothing is sent nothing is reported either.
                let is_old = |seen: Seen| now >= seen.at + REPORT_OLD;
                if good > budget.failed.min(FAILED_MAX) || self.last.is_none_or(is_old) {
                    budget.begin_trial(now, repeated);
                }
            }
            Phase::Trial {
                since,
                repeated: before,
                ..
            } => {
                let again = repeated.saturating_sub(before) as f64;
                let seconds = now.saturating_duration_since(since).as_secs_f64();
                // A packet is some 8 kbit.
                let sent = budget.bps / 8_000.0 * seconds;
                if again >= REPEATED_MIN && again > sent * (REPEATED_SHARE + self.own_loss) {
                    budget.failed += 1;
                    let fits = budget.fits_bps;
                    budget.lower(now, fits, HOLD_MIN);
                } else if now >= since + TRIAL_MAX {
                    // Nobody reports: what is known to fit must do.
                    budget.bps = budget.fits_bps;
                    budget.phase = Phase::Steady {
                        since: now,
                        good: 0,
                    };
                }
            }
            Phase::Hold { .. } | Phase::Steady { .. } => {}
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
        self.bad = if is_bad { self.bad + 1 } else { 0 };
        match &mut self.budget {
            None if is_dire || self.bad >= 2 => {
                self.times += 1;
                self.bad = 0;
                let budget = Budget::new(now, report, sent_bps, arrived_bps, queue);
                self.budget = Some(Box::new(budget));
            }
            None => {}
            Some(budget) => {
                budget.audio_bps = report.audio_bps;
                budget.stream_bps = report.stream_bps;
                let is_ours = budget.judge_cure(now, report.loss, sent_bps, queue);
                if !is_ours {
                    self.own_loss = self.own_loss.max(report.loss);
                    self.budget = None;
                } else if is_bad {
                    budget.note_dead(now, report.loss);
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

impl Budget {
    fn new(now: Instant, report: Report, sent_bps: f64, arrived_bps: f64, queue: Duration) -> Self {
        let mut budget = Self {
            phase: Phase::Steady {
                since: now,
                good: 0,
            },
            bps: 0.0,
            fits_bps: 0.0,
            confirmed_bps: 0.0,
            audio_bps: report.audio_bps,
            stream_bps: report.stream_bps,
            since: now,
            first_loss: report.loss,
            first_bps: sent_bps,
            uncured: 0,
            dead: 0,
            failed: 0,
            key_tried: now,
        };
        budget.lower(now, arrived_bps * HEADROOM, queue);
        budget
    }

    fn video_bps(&self) -> f64 {
        self.bps - self.audio_bps
    }

    /// Whether the loss is of our making: it is not if it stays though much less is sent.
    fn judge_cure(&mut self, now: Instant, loss: f64, sent_bps: f64, queue: Duration) -> bool {
        let is_settled = now.saturating_duration_since(self.since) >= SETTLED;
        let stays = self.first_loss > LOSS_LOW
            && loss >= self.first_loss * UNCURED_SHARE
            && loss < LOSS_DIRE
            && queue < QUEUE_LOW
            && sent_bps < self.first_bps * CLEARLY_LESS;
        if is_settled && stays {
            self.uncured += 1;
        } else if !stays {
            self.uncured = 0;
        }
        self.uncured < UNCURED_REPORTS
    }

    /// A bad report: less arrives than is sent.
    fn bad(&mut self, now: Instant, loss: f64, queue: Duration) {
        match self.phase {
            Phase::Steady { since, .. } if now >= since + REPORT_AGE => {
                // How much arrived says little: pictures were held back.
                self.lower(now, self.fits_bps * HEADROOM.min(1.0 - loss), queue);
            }
            Phase::Trial { since, .. } if now >= since + REPORT_AGE / 3 => {
                self.failed += 1;
                self.lower(now, self.fits_bps, queue);
            }
            _ => {}
        }
    }

    /// A good report. Answers whether the whole stream fits.
    fn good(&mut self, now: Instant) -> bool {
        self.dead = 0;
        if let Phase::Steady { since, good } = &mut self.phase
            && now >= *since + REPORT_AGE
        {
            *good += 1;
        }
        let Phase::Trial {
            since,
            repeated,
            good,
        } = &mut self.phase
        else {
            return false;
        };
        if now < *since + REPORT_AGE / 2 {
            return false;
        }
        *good += 1;
        if self.bps > self.stream_bps * ENOUGH {
            return *good >= GOOD_REPORTS;
        }
        // What the step before sent fits for certain: this one's report may be too early.
        let repeated = *repeated;
        let (before, present) = (self.confirmed_bps, self.bps);
        self.fits_bps = self.fits_bps.max(before);
        self.failed = 0;
        self.step_up(now, repeated, present);
        false
    }

    fn begin_trial(&mut self, now: Instant, repeated: u64) {
        self.step_up(now, repeated, self.fits_bps);
    }

    fn step_up(&mut self, now: Instant, repeated: u64, from_bps: f64) {
        let more = (from_bps * TRIAL).max(from_bps + TRIAL_STEP_BPS);
        self.confirmed_bps = from_bps;
        self.bps = more.min((self.stream_bps * ALL).max(BPS_MIN));
        self.phase = Phase::Trial {
            since: now,
            repeated,
            good: 0,
        };
    }

    fn lower(&mut self, now: Instant, fits_bps: f64, queue: Duration) {
        self.fits_bps = fits_bps.max(BPS_MIN);
        self.bps = self.fits_bps;
        if !matches!(self.phase, Phase::Hold { silent: true, .. }) {
            self.phase = Phase::Hold {
                // Sound goes on, so that the queue falls more slowly than it is long.
                until: now + (queue * 3 / 2).clamp(HOLD_MIN, HOLD_MAX),
                silent: false,
            };
        }
    }

    fn note_dead(&mut self, now: Instant, loss: f64) {
        self.dead = if loss >= LOSS_DEAD { self.dead + 1 } else { 0 };
        if self.dead >= DEAD_REPORTS {
            self.dead = 0;
            self.phase = Phase::Hold {
                until: now + SILENCE,
                silent: true,
            };
        }
    }
}

/// Loss from which a viewer comes under a budget: at once, after two reports, and with a
/// queue. Below the first two retransmission does better than sending less.
const LOSS_DIRE: f64 = 0.30;
const LOSS_HIGH: f64 = 0.15;
const LOSS_WITH_QUEUE: f64 = 0.04;

/// Loss below which a report is good.
const LOSS_LOW: f64 = 0.05;

/// Loss at which next to nothing arrives, and reports of it in a row before even sound stops
/// for [`SILENCE`].
const LOSS_DEAD: f64 = 0.6;
const DEAD_REPORTS: u32 = 3;
const SILENCE: Duration = Duration::from_secs(2);

/// Waits in the path's queue, judged as the losses are; below the last one a report is good.
const QUEUE_DIRE: Duration = Duration::from_millis(400);
const QUEUE_HIGH: Duration = Duration::from_millis(150);
const QUEUE_LOW: Duration = Duration::from_millis(80);

/// What is sent of what arrived.
const HEADROOM: f64 = 0.85;

/// How long no picture leaves, so that the path's queue runs empty.
const HOLD_MIN: Duration = Duration::from_millis(200);
const HOLD_MAX: Duration = Duration::from_millis(1_500);

/// How soon a trial follows the end of the one before, if a report was good, and one more for each
/// trial that failed, up to [`FAILED_MAX`]; and how much more it sends. A path that recovers
/// is used again within two to four seconds, and one that does not is not filled all the time.
const FAILED_MAX: u32 = 1;
const TRIAL_AFTER: Duration = Duration::from_millis(1_000);
const TRIAL: f64 = 2.0;
const TRIAL_STEP_BPS: f64 = 128_000.0;

/// A trial of all of the stream is of so much more; and so many good reports end a trial: the
/// round trip of the first may be older than it.
const ALL: f64 = 1.25;
const GOOD_REPORTS: u32 = 2;

/// A trial that nobody reports of ends.
const TRIAL_MAX: Duration = Duration::from_millis(4_000);

/// A trial that fills the path is over when so many packets, and such a part of them, were to be
/// repeated.
const REPEATED_MIN: f64 = 4.0;
const REPEATED_SHARE: f64 = 0.04;

/// A budget so many times the stream is none.
const ENOUGH: f64 = 1.1;

/// The smallest budget: about the sound of a call.
const BPS_MIN: f64 = 32_000.0;

/// Pictures are left out altogether below this: not one key frame of the smallest size in
/// some seconds.
const VIDEO_BPS_MIN: f64 = 48_000.0;

/// How often a key frame is tried where there is no room for pictures.
const KEY_TRIED_INTERVAL: Duration = Duration::from_secs(2);

/// Reports that follow faster say nothing new.
const REPORT_INTERVAL_MIN: Duration = Duration::from_millis(300);

/// What a report speaks of may be this old, and beyond the second one is as good as none.
const REPORT_AGE: Duration = Duration::from_millis(1_200);
const REPORT_OLD: Duration = Duration::from_millis(2_000);

/// How long after it came under a budget loss is held against it, in how many reports, what
/// share of the first loss it must still be, and how much less must have been sent.
const SETTLED: Duration = Duration::from_millis(1_500);
const UNCURED_REPORTS: u32 = 2;
const UNCURED_SHARE: f64 = 0.6;
const CLEARLY_LESS: f64 = 0.9;

/// Loss of the path's own is forgotten by so much with each report that has less.
const OWN_LOSS_KEPT: f64 = 0.95;

/// The base round trip follows longer ones this slowly, in a minute or two.
const BASE_RISE_DIVISOR: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// A path with a bottleneck and its queue, reported on once a second.
    struct Path {
        now: Instant,
        pressure: Pressure,
        sent: f64,
        /// Bits in the queue, and the most there were in the last second.
        queued: f64,
        worst: Duration,
        repeated: f64,
    }

    const STREAM: f64 = 1_000_000.0;
    const STEP: f64 = 0.02;

    impl Path {
        fn new() -> Self {
            Self {
                now: Instant::now(),
                pressure: Pressure::default(),
                sent: 0.0,
                queued: 0.0,
                worst: Duration::ZERO,
                repeated: 0.0,
            }
        }

        /// A second in which the stream, or the budget, is sent through `cap` bits a second with
        /// a queue of 300 ms; `own` is the path's own loss. Answers the share lost.
        fn second(&mut self, cap: f64, own: f64) -> f64 {
            let (mut into, mut lost) = (0.0, 0.0);
            self.worst = Duration::ZERO;
            for _ in 0..50 {
                self.now += Duration::from_secs_f64(STEP);
                self.pressure.poll(self.now, self.repeated as u64);
                let rate = match self.pressure.held_until() {
                    Some(_) => 64_000.0,
                    None => self.pressure.budget_bps().map_or(STREAM, |b| b.min(STREAM)),
                };
                let bits = rate * STEP;
                self.sent += bits / 8.0;
                self.queued = (self.queued + bits * (1.0 - own) - cap * STEP).max(0.0);
                let dropped = (self.queued - cap * 0.3).max(0.0);
                self.queued -= dropped;
                self.repeated += (dropped + bits * own) / 8_000.0;
                into += bits;
                lost += dropped + bits * own;
                self.worst = self.worst.max(Duration::from_secs_f64(self.queued / cap));
            }
            let rtt = Duration::from_millis(40) + Duration::from_secs_f64(self.queued / cap);
            self.pressure.report(
                self.now,
                Report {
                    loss: (lost / into).min(1.0),
                    rtt: Some(rtt),
                    bytes_sent: self.sent as u64,
                    stream_bps: STREAM,
                    audio_bps: 64_000.0,
                },
            );
            lost / into
        }
    }

    #[test]
    fn ordinary_loss_thins_nothing() {
        let mut path = Path::new();
        for n in 0..120 {
            // 0 to 10 %, one time 14.
            let own = if n == 60 {
                0.14
            } else {
                f64::from(n % 11) / 100.0
            };
            path.second(10e6, own);
            assert!(path.pressure.is_open(), "second {n}");
        }
    }

    #[test]
    fn a_cap_leads_to_a_budget_near_it_little_loss_and_no_standing_queue() {
        for cap in [900_000.0, 700_000.0, 400_000.0, 200_000.0] {
            let mut path = Path::new();
            for _ in 0..5 {
                path.second(10e6, 0.0);
            }
            for _ in 0..10 {
                path.second(cap, 0.0);
            }
            let (mut budgets, mut lost, mut empty) = (0.0, 0.0, 0);
            for _ in 0..60 {
                lost += path.second(cap, 0.0);
                budgets += path.pressure.budget_bps().unwrap_or(STREAM);
                empty += u32::from(path.queued < cap * 0.05);
            }
            assert!(lost / 60.0 < 0.04, "{cap}: {} lost", lost / 60.0);
            assert!(empty >= 15, "{cap}: no queue in {empty} seconds");
            let share = budgets / 60.0 / cap;
            assert!((0.7..1.35).contains(&share), "{cap}: {share}");
        }
    }

    #[test]
    fn some_seconds_after_the_end_of_a_cap_all_is_sent() {
        for before in 20..30 {
            let mut path = Path::new();
            for _ in 0..5 {
                path.second(10e6, 0.0);
            }
            for _ in 0..before {
                path.second(700_000.0, 0.0);
            }
            for _ in 0..4 {
                path.second(10e6, 0.0);
            }
            let budget = path.pressure.budget_bps().unwrap_or(STREAM);
            assert!(budget >= STREAM * 0.99, "{before}: {budget}");
            for _ in 0..3 {
                path.second(10e6, 0.0);
            }
            assert!(path.pressure.is_open(), "{before}");
        }
    }

    #[test]
    fn loss_that_sending_less_does_not_cure_is_the_paths_own() {
        let mut path = Path::new();
        for _ in 0..5 {
            path.second(10e6, 0.0);
        }
        let thinned = (0..60)
            .filter(|_| {
                path.second(10e6, 0.2);
                !path.pressure.is_open()
            })
            .count();
        assert!(thinned <= 6, "{thinned} of 60 s");
        assert_eq!(path.pressure.times, 1);
        // A real bottleneck is still seen.
        for _ in 0..4 {
            path.second(400_000.0, 0.2);
        }
        assert!(!path.pressure.is_open());
    }

    #[test]
    fn where_nothing_arrives_even_sound_stops_and_comes_back() {
        let mut path = Path::new();
        for _ in 0..5 {
            path.second(10e6, 0.0);
        }
        let mut levels = Vec::new();
        for _ in 0..12 {
            path.second(10e6, 0.9);
            levels.push(path.pressure.level());
        }
        assert!(levels.contains(&Level::Sound), "{levels:?}");
        assert!(levels.contains(&Level::Nothing), "{levels:?}");
        for _ in 0..16 {
            path.second(10e6, 0.0);
        }
        assert_eq!(path.pressure.level(), Level::All);
    }

    #[test]
    fn without_room_for_pictures_a_key_frame_is_tried_now_and_then() {
        let mut path = Path::new();
        for _ in 0..5 {
            path.second(10e6, 0.0);
        }
        while path.pressure.level() != Level::Sound {
            path.second(10e6, 0.5);
        }
        let start = path.now;
        let tries = (0..100)
            .filter(|n| {
                path.pressure
                    .admits_key(start + Duration::from_millis(100) * *n)
            })
            .count();
        assert!((4..=5).contains(&tries), "{tries} in ten seconds");
    }
}

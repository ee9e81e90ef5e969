//! [`Budget`]: what a viewer's path is given while it does not carry all, and the phases it goes
//! through. The drawing is in the [module above](super).

use std::time::{Duration, Instant};

use super::probe::{Echo, Probe};
use super::{LOSS_DIRE, LOSS_LOW, Level, QUEUE_LOW, Report};

#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
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
    pub(super) probe: Probe,
    /// Clear echoes that are to come before trains are made up: the path carried next to nothing.
    closed: u32,
    /// Trains in a row that came through as fast as all of the stream has to.
    wide: u32,
    /// Trials that such trains began and that failed.
    misled: u32,
    /// The present trial, as its echoes judge it.
    tried: Option<Tried>,
}

/// A trial of all of the stream.
#[derive(Clone, Copy, Debug)]
struct Tried {
    since: Instant,
    /// What had been sent when its first echo came.
    bytes_sent: u64,
    /// Echoes that had not waited.
    clear: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Phase {
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

impl Budget {
    pub(super) fn new(
        now: Instant,
        report: Report,
        sent_bps: f64,
        arrived_bps: f64,
        queue: Duration,
        probe: Probe,
    ) -> Self {
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
            probe,
            closed: 0,
            wide: 0,
            misled: 0,
            tried: None,
        };
        budget.lower(now, arrived_bps * HEADROOM, queue);
        budget
    }

    pub(super) fn level(&self) -> Level {
        match self.phase {
            Phase::Hold { silent: true, .. } => Level::Nothing,
            _ if self.video_bps() < VIDEO_BPS_MIN => Level::Sound,
            _ => Level::Thinned,
        }
    }

    pub(super) fn bps(&self) -> f64 {
        self.bps
    }

    /// Bits a second for the picture.
    pub(super) fn paced_bps(&self) -> f64 {
        self.video_bps().max(VIDEO_BPS_MIN)
    }

    /// Until when no picture may leave.
    pub(super) fn held_until(&self) -> Option<Instant> {
        match self.phase {
            Phase::Hold { until, .. } => Some(until),
            Phase::Steady { .. } | Phase::Trial { .. } => None,
        }
    }

    pub(super) fn tries_all(&self) -> bool {
        matches!(self.phase, Phase::Trial { .. }) && self.bps > self.stream_bps * ENOUGH
    }

    pub(super) fn trial_failed(&mut self, now: Instant, queue: Duration) {
        if matches!(self.phase, Phase::Trial { .. }) {
            self.failed += 1;
            self.tried = None;
            self.lower(now, self.fits_bps, queue);
        }
    }

    /// See [`Pressure::admits_key`](super::Pressure::admits_key).
    pub(super) fn admits_key(&mut self, now: Instant) -> bool {
        let waited = now.saturating_duration_since(self.key_tried);
        match self.level() {
            Level::All | Level::Thinned => true,
            Level::Sound if waited >= KEY_TRIED_INTERVAL => {
                self.key_tried = now;
                true
            }
            Level::Sound | Level::Nothing => false,
        }
    }

    pub(super) fn note_stream(&mut self, report: Report) {
        self.audio_bps = report.audio_bps;
        self.stream_bps = report.stream_bps;
    }

    /// Looks what time has brought. `is_reported`: of late there was a report.
    pub(super) fn poll(&mut self, now: Instant, repeated: u64, own_loss: f64, is_reported: bool) {
        match self.phase {
            Phase::Hold { until, .. } if now >= until => {
                self.phase = Phase::Steady {
                    since: until,
                    good: 0,
                };
            }
            Phase::Steady { since, good } if now >= since + TRIAL_AFTER => {
                if good > self.good_needed() || !is_reported {
                    self.begin_trial(now, repeated);
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
                let sent = self.bps / 8_000.0 * seconds;
                if again >= REPEATED_MIN && again > sent * (REPEATED_SHARE + own_loss) {
                    self.trial_failed(now, HOLD_MIN);
                } else if now >= since + TRIAL_MAX {
                    // Nobody reports: what is known to fit must do.
                    self.bps = self.fits_bps;
                    self.phase = Phase::Steady {
                        since: now,
                        good: 0,
                    };
                }
            }
            Phase::Hold { .. } | Phase::Steady { .. } => {}
        }
    }

    /// See [`Pressure::wants_echoes`](super::Pressure::wants_echoes).
    pub(super) fn wants_echoes(&self, now: Instant, bits: f64) -> bool {
        bits >= self.train_bits() && self.probe.is_due(now, ECHO_INTERVAL)
    }

    /// See [`Pressure::padding`](super::Pressure::padding).
    pub(super) fn padding(&self, now: Instant) -> Option<f64> {
        let (interval, bits) = match self.phase {
            Phase::Hold { .. } => return None,
            Phase::Steady { .. } if self.closed > 0 => (CLOSED_INTERVAL, 0.0),
            Phase::Steady { .. } => (PADDING_INTERVAL, self.train_bits()),
            Phase::Trial { .. } => (ECHO_INTERVAL, 0.0),
        };
        self.probe.is_due(now, interval).then_some(bits)
    }

    /// A train that is held up for as long as can be told where all of the stream just fits.
    fn train_bits(&self) -> f64 {
        self.stream_bps * WIDE * TRAIN_SECONDS
    }

    /// Takes an echo in. Answers whether the whole stream fits.
    pub(super) fn echo(
        &mut self,
        now: Instant,
        echo: Echo,
        repeated: u64,
        bytes_sent: u64,
    ) -> bool {
        if echo.queue < QUEUE_CLEAR {
            self.closed = self.closed.saturating_sub(1);
        }
        match self.phase {
            Phase::Steady { .. } => {
                let Some(rate_bps) = echo.rate_bps else {
                    return false;
                };
                let is_wide = echo.queue < QUEUE_CLEAR && rate_bps >= self.stream_bps * WIDE;
                self.wide = match is_wide {
                    true if rate_bps >= self.stream_bps * WIDE_OPEN => self.wide + WIDE_TRAINS,
                    true => self.wide + 1,
                    false => 0,
                };
                if self.wide >= WIDE_TRAINS * (1 + self.misled.min(MISLED_MAX)) {
                    self.wide = 0;
                    self.step_up(now, repeated, self.fits_bps);
                    self.bps = (self.stream_bps * ALL).max(BPS_MIN);
                    self.tried = Some(Tried {
                        since: now,
                        bytes_sent,
                        clear: 0,
                    });
                }
                false
            }
            Phase::Trial { .. } if self.tries_all() => {
                if echo.queue >= QUEUE_FULL {
                    self.misled += u32::from(self.tried.is_some());
                    self.trial_failed(now, echo.queue);
                    return false;
                }
                let stream_bps = self.stream_bps;
                let tried = self.tried.get_or_insert(Tried {
                    since: now,
                    bytes_sent,
                    clear: 0,
                });
                tried.clear += u32::from(echo.queue < QUEUE_CLEAR);
                let seconds = now.saturating_duration_since(tried.since).as_secs_f64();
                let sent = bytes_sent.saturating_sub(tried.bytes_sent) as f64 * 8.0;
                seconds >= TRIED_SECONDS
                    && tried.clear >= CLEAR_ECHOES
                    && sent >= stream_bps * TRIED_SECONDS * ENOUGH_SENT
            }
            Phase::Hold { .. } | Phase::Trial { .. } => false,
        }
    }

    fn video_bps(&self) -> f64 {
        self.bps - self.audio_bps
    }

    /// Whether the loss is of our making: it is not if it stays though much less is sent.
    pub(super) fn judge_cure(
        &mut self,
        now: Instant,
        loss: f64,
        sent_bps: f64,
        queue: Duration,
    ) -> bool {
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
    pub(super) fn bad(&mut self, now: Instant, loss: f64, queue: Duration) {
        self.note_dead(now, loss);
        if loss >= LOSS_DEAD {
            self.closed = CLOSED_ECHOES;
        }
        match self.phase {
            Phase::Steady { since, .. } if now >= since + REPORT_AGE => {
                // How much arrived says little: pictures were held back.
                self.lower(now, self.fits_bps * HEADROOM.min(1.0 - loss), queue);
            }
            Phase::Trial { since, .. } if now >= since + REPORT_AGE / 3 => {
                self.trial_failed(now, queue);
            }
            _ => {}
        }
    }

    /// A good report. Answers whether the whole stream fits.
    pub(super) fn good(&mut self, now: Instant) -> bool {
        self.dead = 0;
        let age = match self.is_eager() {
            true => REPORT_AGE / 2,
            false => REPORT_AGE,
        };
        if let Phase::Steady { since, good } = &mut self.phase
            && now >= *since + age
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

    /// Whether the trouble may still be a short one.
    fn is_eager(&self) -> bool {
        self.failed < EAGER_TRIALS
    }

    /// Good reports that a trial waits for beyond the first.
    fn good_needed(&self) -> u32 {
        match self.is_eager() {
            true => 0,
            false => self.failed.min(FAILED_MAX),
        }
    }

    fn begin_trial(&mut self, now: Instant, repeated: u64) {
        self.step_up(now, repeated, self.fits_bps);
        if self.is_eager() && self.fits_bps >= self.stream_bps * NEAR {
            self.bps = (self.stream_bps * ALL).max(BPS_MIN);
        }
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

/// Loss at which next to nothing arrives, and reports of it in a row before even sound stops
/// for [`SILENCE`].
const LOSS_DEAD: f64 = 0.6;
const DEAD_REPORTS: u32 = 3;
const SILENCE: Duration = Duration::from_secs(2);

/// What is sent of what arrived.
const HEADROOM: f64 = 0.85;

/// How long no picture leaves, so that the path's queue runs empty.
pub(super) const HOLD_MIN: Duration = Duration::from_millis(200);
const HOLD_MAX: Duration = Duration::from_millis(1_500);

/// How soon a trial follows the end of the one before, if a report was good, and one more for each
/// trial that failed, up to [`FAILED_MAX`]; and how much more it sends. A path that recovers
/// is used again within two to five seconds where echoes do not show it sooner, and one that does not
/// is not filled all the time.
const FAILED_MAX: u32 = 1;
const TRIAL_AFTER: Duration = Duration::from_millis(1_000);
const TRIAL: f64 = 2.0;
const TRIAL_STEP_BPS: f64 = 128_000.0;

/// A trial of all of the stream is of so much more; and so many good reports end a trial: the
/// round trip of the first may be older than it.
const ALL: f64 = 1.25;
const GOOD_REPORTS: u32 = 2;

/// So many trials come sooner and, where so much of the stream is known to fit, are of all of it
/// at once: most troubles are short. When they failed the cap is a lasting one, and
/// trials cost the sound that shares its queue.
const EAGER_TRIALS: u32 = 1;
const NEAR: f64 = 0.2;

/// A trial that nobody reports of ends.
const TRIAL_MAX: Duration = Duration::from_millis(4_000);

/// A trial that fills the path is over when so many packets, and such a part of them, were to be
/// repeated.
const REPEATED_MIN: f64 = 4.0;
const REPEATED_SHARE: f64 = 0.04;

/// How often echoes are asked for where trains leave that often, or in a trial; and how often where
/// the train has to be made up, some 6 % of what all of the stream takes.
const ECHO_INTERVAL: Duration = Duration::from_millis(100);
const PADDING_INTERVAL: Duration = Duration::from_millis(400);

/// See [`Budget::closed`].
const CLOSED_ECHOES: u32 = 2;
const CLOSED_INTERVAL: Duration = Duration::from_millis(200);

/// How long a train takes where all of the stream just fits: well above what clocks and radio
/// schedulers are out by.
const TRAIN_SECONDS: f64 = 0.02;

/// A wait that is none; and one that shows that a trial fills the path.
const QUEUE_CLEAR: Duration = Duration::from_millis(40);
const QUEUE_FULL: Duration = Duration::from_millis(120);

/// A path is tried for the whole stream when so many trains in a row came through so many times as
/// fast as the stream is; so many times more where that was wrong, as with a limit that lets
/// short bursts pass. One that was so much faster leaves no doubt.
const WIDE: f64 = 1.3;
const WIDE_OPEN: f64 = 4.0;
const WIDE_TRAINS: u32 = 3;
const MISLED_MAX: u32 = 4;

/// A trial has shown that all fits after so long, so many echoes that had not waited, and this
/// part of what the stream is in that time.
const TRIED_SECONDS: f64 = 0.4;
const CLEAR_ECHOES: u32 = 3;
const ENOUGH_SENT: f64 = 0.8;

/// A budget so many times the stream is none.
const ENOUGH: f64 = 1.1;

/// The smallest budget: about the sound of a call.
const BPS_MIN: f64 = 32_000.0;

/// Pictures are left out altogether below this: not one key frame of the smallest size in
/// some seconds.
const VIDEO_BPS_MIN: f64 = 48_000.0;

/// How often a key frame is tried where there is no room for pictures.
const KEY_TRIED_INTERVAL: Duration = Duration::from_secs(2);

/// What a report speaks of may be this old.
const REPORT_AGE: Duration = Duration::from_millis(1_200);

/// How long after it came under a budget loss is held against it, in how many reports, what
/// share of the first loss it must still be, and how much less must have been sent.
const SETTLED: Duration = Duration::from_millis(1_500);
const UNCURED_REPORTS: u32 = 2;
const UNCURED_SHARE: f64 = 0.6;
const CLEARLY_LESS: f64 = 0.9;

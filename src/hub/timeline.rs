//! How a publisher's timestamps become times on its stream's clock: unwrapping, rebasing,
//! restarts, jumps and sender reports, in this one place.
//!
//! - [`RtmpTimeline`]: milliseconds that wrap at 2^32 or, with ffmpeg and OBS, at 2^31.
//! - [`RtpTimeline`]: one RTP clock a track. Both are placed by arrival from the first frame
//!   on, at once; when sender reports come, the picture moves to where they say it belongs
//!   against the sound, by slewing and never by a jump.
//!
//! `live` is in both the point of the stream's clock that is live now
//! ([`super::LiveClock`]): a restarted publisher goes on there, so that players see time
//! advance by the gap.

use std::time::{Duration, Instant};

use crate::media::{MediaTime, TrackKind};

/// One publisher's RTMP timestamps.
#[derive(Debug, Default)]
pub struct RtmpTimeline {
    video: Option<RtmpTrack>,
    audio: Option<RtmpTrack>,
    /// Times a timestamp jumped beyond what the elapsed time explains.
    pub jumps: u64,
}

/// Where a frame belongs on the stream's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// When it is to be decoded, later than the frame before.
    pub dts: MediaTime,
    /// What its timestamp says.
    pub meant: MediaTime,
}

#[derive(Clone, Copy, Debug)]
struct RtmpTrack {
    raw: u32,
    /// `raw` without its wraps.
    unwrapped: i64,
    /// What is added to `unwrapped` to get to the stream's clock, in milliseconds.
    shift: i64,
    /// The last time given, in milliseconds of the stream's clock.
    out: i64,
    arrival: Instant,
    jumped: Option<Instant>,
}

impl RtmpTimeline {
    /// The decoding time of a frame with RTMP timestamp `raw` that arrived at `now`.
    ///
    /// Never goes back within a track, and pictures always go on. Sequence headers are not frames: ffmpeg gives
    /// them timestamp 0 wherever the stream begins.
    pub fn map(&mut self, kind: TrackKind, raw: u32, now: Instant, live: MediaTime) -> MediaTime {
        self.place(kind, raw, now, live).dts
    }

    /// The same with the time as the publisher meant it. GStreamer's rtmp2sink gives the first
    /// frames, which its muxer would have to give negative times, all timestamp 0: they are to be
    /// decoded one after the other, but their composition times count from that 0.
    pub fn place(&mut self, kind: TrackKind, raw: u32, now: Instant, live: MediaTime) -> Placed {
        let (track, other) = match kind {
            TrackKind::Video => (self.video, self.audio),
            TrackKind::Audio => (self.audio, self.video),
        };
        let mapped = match (track, other) {
            (Some(track), other) => {
                // Two pictures never share a moment; two pieces of sound may, by rounding.
                let least_step = i64::from(kind == TrackKind::Video);
                let (mapped, jumped) = track.next(raw, now, other, least_step);
                self.jumps += u64::from(jumped);
                mapped
            }
            (None, Some(other)) => RtmpTrack::beside(&other, raw, now),
            (None, None) => RtmpTrack::first(raw, now, live),
        };
        match kind {
            TrackKind::Video => self.video = Some(mapped),
            TrackKind::Audio => self.audio = Some(mapped),
        }
        Placed {
            dts: MediaTime::from_millis(mapped.out),
            meant: MediaTime::from_millis(mapped.unwrapped + mapped.shift),
        }
    }
}

impl RtmpTrack {
    fn first(raw: u32, now: Instant, live: MediaTime) -> Self {
        let unwrapped = i64::from(raw);
        let out = live.as_millis();
        Self {
            raw,
            unwrapped,
            shift: out - unwrapped,
            out,
            arrival: now,
            jumped: None,
        }
    }

    /// The first frame of the second track: both share one origin.
    fn beside(other: &Self, raw: u32, now: Instant) -> Self {
        let unwrapped = other.unwrapped + unwrap_step(other.raw, raw);
        let out = unwrapped + other.shift;
        // A track that begins far from the one that runs has another origin.
        let (shift, out) = if (out - other.out).abs() > JUMP_FORWARD_MS {
            (other.out - unwrapped, other.out)
        } else {
            (other.shift, out)
        };
        Self {
            raw,
            unwrapped,
            shift,
            out,
            arrival: now,
            jumped: None,
        }
    }

    fn next(
        mut self,
        raw: u32,
        now: Instant,
        other: Option<Self>,
        least_step: i64,
    ) -> (Self, bool) {
        let step = unwrap_step(self.raw, raw);
        let elapsed = now.saturating_duration_since(self.arrival).as_millis() as i64;
        let expected = self.out + elapsed;
        self.raw = raw;
        self.unwrapped += step;
        self.arrival = now;
        let jumped = step < -JUMP_BACK_MS || step > elapsed + JUMP_FORWARD_MS;
        if jumped {
            // The other track may have jumped already; both must move by the same amount.
            let beside = other
                .filter(|o| {
                    o.jumped
                        .is_some_and(|at| now.duration_since(at) < JUMP_TOGETHER)
                })
                .map(|o| o.shift)
                .filter(|shift| (self.unwrapped + shift - expected).abs() < JUMP_BACK_MS);
            self.shift = beside.unwrap_or(expected.max(self.out + 1) - self.unwrapped);
            self.jumped = Some(now);
        }
        self.out = (self.unwrapped + self.shift).max(self.out + least_step);
        (self, jumped)
    }
}

/// The step from one RTMP timestamp to the next.
///
/// Taken modulo 2^31, which is right for both wraps in the field: RTMP 1.0 section 3 has 32
/// bits, but ffmpeg and OBS keep 31 (their FLV writers mask the top bit).
fn unwrap_step(from: u32, to: u32) -> i64 {
    let step = i64::from(to.wrapping_sub(from) & 0x7fff_ffff);
    if step > 1 << 30 {
        step - (1 << 31)
    } else {
        step
    }
}

/// A step back that is more than interleaving explains.
const JUMP_BACK_MS: i64 = 1_000;

/// A step forward, beyond the time that passed, that is no stall but another clock.
const JUMP_FORWARD_MS: i64 = 5_000;

/// Within this time two tracks' jumps are one.
const JUMP_TOGETHER: Duration = Duration::from_secs(10);

/// One publisher's RTP timestamps and sender reports.
#[derive(Debug, Default)]
pub struct RtpTimeline {
    video: Option<RtpTrack>,
    audio: Option<RtpTrack>,
    /// Sender reports that were not believed.
    pub absurd_reports: u64,
    /// Times an RTP clock was placed anew because it left the arrival time behind.
    pub jumps: u64,
}

#[derive(Debug)]
struct RtpTrack {
    rate_hz: u32,
    /// What is added to the RTP time to get to the stream's clock.
    offset: MediaTime,
    /// Where `offset` is moving to.
    target: MediaTime,
    slewed: Instant,
    /// How far `offset` was moved in all.
    slewed_by: MediaTime,
    /// The newest sender report: NTP time and the RTP time of the same instant.
    report: Option<(MediaTime, u64)>,
    /// The least (arrival − mapped time) of the present window, and when it began.
    least_delay: Option<(MediaTime, Instant)>,
    /// That of the last full window.
    usual_delay: MediaTime,
    /// When the last frame arrived.
    arrived: Instant,
    out: MediaTime,
}

impl RtpTimeline {
    /// The time on the stream's clock of RTP time `rtp_time` (extended to 64 bits) of a
    /// clock of `rate_hz`, in a frame that arrived at `now`.
    ///
    /// Never goes back within a track.
    pub fn map(
        &mut self,
        kind: TrackKind,
        rtp_time: u64,
        rate_hz: u32,
        now: Instant,
        live: MediaTime,
    ) -> MediaTime {
        let both_reported = self.both_reported();
        let slot = match kind {
            TrackKind::Video => &mut self.video,
            TrackKind::Audio => &mut self.audio,
        };
        let units = units(rtp_time, rate_hz);
        let track = slot.get_or_insert_with(|| RtpTrack {
            rate_hz,
            offset: live - units,
            target: live - units,
            slewed: now,
            slewed_by: MediaTime::ZERO,
            report: None,
            least_delay: None,
            usual_delay: MediaTime::ZERO,
            arrived: now,
            out: MediaTime::from_ticks(i64::MIN),
        });
        if (units + track.offset - live).abs() > REANCHOR {
            track.offset = live - units;
            track.target = track.offset;
            track.report = None;
            track.least_delay = None;
            self.jumps += 1;
        }
        if now.saturating_duration_since(track.arrived) >= PAUSE {
            track.resume(live - units);
        }
        track.arrived = track.arrived.max(now);
        track.follow_arrival(live - (units + track.offset), now, !both_reported);
        track.slew(now);
        track.out = (units + track.offset).max(track.out + MediaTime::from_ticks(1));
        track.out
    }

    /// Takes note of a sender report (RFC 3550 section 6.4.1): `rtp_time` was at `ntp`.
    pub fn sender_report(&mut self, kind: TrackKind, ntp: MediaTime, rtp_time: u64) {
        let slot = match kind {
            TrackKind::Video => &mut self.video,
            TrackKind::Audio => &mut self.audio,
        };
        let Some(track) = slot else { return };
        if ntp == MediaTime::ZERO {
            self.absurd_reports += 1;
            return;
        }
        track.report = Some((ntp, rtp_time));
        let Some(skew) = self.skew() else { return };
        if skew.abs() > SKEW_MAX {
            self.absurd_reports += 1;
            return;
        }
        // The sound keeps its clock, because its samples are counted on; the picture moves.
        if let Some(video) = &mut self.video {
            video.target = video.offset + skew;
        }
    }

    /// How far the picture is mapped early against the sound, by the sender reports; what
    /// the slewing has still to correct. `None` before both tracks have reported.
    pub fn skew(&self) -> Option<MediaTime> {
        let video = self.video.as_ref()?.reported_origin()?;
        let audio = self.audio.as_ref()?.reported_origin()?;
        Some(video - audio)
    }

    /// How far the track was moved so far from where its first frame's arrival put it.
    pub fn correction(&self, kind: TrackKind) -> MediaTime {
        let track = match kind {
            TrackKind::Video => &self.video,
            TrackKind::Audio => &self.audio,
        };
        track
            .as_ref()
            .map_or(MediaTime::ZERO, |track| track.slewed_by)
    }

    fn both_reported(&self) -> bool {
        let reported =
            |track: &Option<RtpTrack>| track.as_ref().is_some_and(|track| track.report.is_some());
        reported(&self.video) && reported(&self.audio)
    }
}

impl RtpTrack {
    /// NTP time minus mapped time: equal on two tracks that are mapped in sync.
    fn reported_origin(&self) -> Option<MediaTime> {
        let (ntp, rtp_time) = self.report?;
        Some(ntp - (units(rtp_time, self.rate_hz) + self.offset))
    }

    /// The track goes on after a pause in which the clocks ran apart by nobody knows what: it
    /// is placed as late as it used to be, `arrival` being the offset of no delay at all.
    fn resume(&mut self, arrival: MediaTime) {
        self.offset = arrival - self.usual_delay;
        self.target = self.offset;
        self.report = None;
        self.least_delay = None;
    }

    /// The least delayed arrivals of a window say where the track belongs, as long as nothing
    /// better does: the first frame may have been late.
    fn follow_arrival(&mut self, delay: MediaTime, now: Instant, decides: bool) {
        match &mut self.least_delay {
            Some((least, since)) if now.duration_since(*since) < ARRIVAL_WINDOW => {
                *least = delay.min(*least);
            }
            Some((least, _)) => {
                self.usual_delay = *least;
                if decides {
                    self.target = self.offset + *least;
                }
                self.least_delay = Some((delay, now));
            }
            None => self.least_delay = Some((delay, now)),
        }
    }

    fn slew(&mut self, now: Instant) {
        let passed = MediaTime::from_duration(now.saturating_duration_since(self.slewed));
        let most = (passed.ticks() / SLEW_DIVISOR).min(SLEW_STEP_MAX.ticks());
        let step = (self.target - self.offset).ticks().clamp(-most, most);
        self.offset += MediaTime::from_ticks(step);
        self.slewed_by += MediaTime::from_ticks(step);
        self.slewed = self.slewed.max(now);
    }
}

fn units(rtp_time: u64, rate_hz: u32) -> MediaTime {
    MediaTime::from_units(i64::try_from(rtp_time).unwrap_or(i64::MAX), rate_hz)
}

/// A mapped time this far from its arrival is of another clock (a laptop woke up, a track
/// was replaced) and is placed anew.
const REANCHOR: MediaTime = MediaTime::from_millis(3_000);

/// Reports that put sound and picture further apart than this are not believed.
const SKEW_MAX: MediaTime = MediaTime::from_millis(2_000);

/// One part in a hundred: 10 ms of correction a second, which nobody sees.
const SLEW_DIVISOR: i64 = 100;

/// A track that sent nothing for so long is placed anew: two clocks run apart by up to 2 ms in
/// that time.
const PAUSE: Duration = Duration::from_secs(5);

/// The most that one frame is moved by, however long the track was silent before it.
const SLEW_STEP_MAX: MediaTime = MediaTime::from_millis(10);

/// The window in which the least delayed frame is looked for.
const ARRIVAL_WINDOW: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;

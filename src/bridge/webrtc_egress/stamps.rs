//! The time that a viewer is told: RTP stamps, and the instants that sender reports give for them.

use std::time::Instant;

use crate::hub::Stream;
use crate::media::MediaTime;

/// The stamp of a picture that is sent now though it is older: what one that has just come
/// would carry. A publisher that paused while its timestamps stood still is behind the live
/// point for good, and stamps at that point would be ahead of all that follow.
pub(super) fn sending_time(now: Instant, stream: &Stream) -> MediaTime {
    let live = stream.live(now);
    let Some(newest) = stream.ring.newest_picture() else {
        return live;
    };
    let waited = MediaTime::from_duration(now.saturating_duration_since(newest.arrival));
    live.min(newest.live_pts() + waited + JITTER_MAX)
}

/// A time of the stream's clock on an RTP clock, before the session's own random offset.
pub(super) fn rtp_time(time: MediaTime, rate_hz: u32) -> u64 {
    (time + RTP_ORIGIN).as_units(rate_hz).max(0) as u64
}

/// The instant that sender reports give for a time of the stream's clock: when it was live,
/// and [`REPORT_LEAD`] earlier.
pub(super) fn report_instant(stream: &Stream, time: MediaTime, now: Instant) -> Instant {
    stream.instant_of(time - REPORT_LEAD, now)
}

/// Pictures with a composition time are stamped ahead of their arrival, and a report cannot
/// speak of the future. Only the distance of sound and picture counts, so both are
/// reported as if this much older.
const REPORT_LEAD: MediaTime = MediaTime::from_millis(1_000);

/// Times a little before a stream's origin (sound that began before the picture, codec
/// delays taken out) are still positive RTP times.
const RTP_ORIGIN: MediaTime = MediaTime::from_millis(10_000);

/// RTP clock of H.264 (RFC 6184 section 8.2.1).
pub(super) const VIDEO_RATE_HZ: u32 = 90_000;

/// RTP clock of Opus (RFC 7587 section 4.1).
pub(super) const AUDIO_RATE_HZ: u32 = 48_000;

/// A picture this much later than the least delayed one is no sign of another clock.
const JITTER_MAX: MediaTime = MediaTime::from_millis(100);

//! What a viewer gets before it is live: the cached group of pictures, paced, or its key frame
//! alone as a still.

use std::time::{Duration, Instant};

use super::stamps::sending_time;
use super::{Phase, Served, Viewer};
use crate::hub::{BrowserView, Stream};
use crate::media::{MediaTime, TrackKind};
use crate::webrtc;

/// How a catch-up goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pace {
    next_send: Instant,
    bits_per_second: f64,
    /// Packets sent of the backlog.
    packets: usize,
    /// What the session had repeated when it began.
    repeated_before: Option<u64>,
}

impl Viewer {
    /// Writes the still if it is due, and arranges for it to be sent again: a page that is
    /// not set up yet lets a lone picture go by.
    pub(super) fn write_still(
        &mut self,
        now: Instant,
        stream: &Stream,
        session: &mut webrtc::Session,
        served: &mut Served,
    ) {
        let Some((at, sent)) = self
            .still
            .filter(|_| self.phase == Phase::AwaitKey && self.pressure.is_open())
        else {
            self.still = None;
            return;
        };
        if at <= now {
            let start = stream.ring.gop_start();
            if let Some(entry) = start.and_then(|start| stream.ring.get(start)) {
                let stamp = sending_time(now, stream);
                served.packets += self.write(now, stream, session, entry, stamp);
            }
            let again = STILL_AGAIN.get(sent);
            self.still = again.map(|wait| (now + *wait, sent + 1));
        }
        served.again = self.still.map(|(at, _)| at);
    }

    /// Where the cached group of pictures begins, if it is fit to be sent.
    pub(super) fn backlog(&self, stream: &Stream) -> Option<u64> {
        let start = stream.ring.gop_start()?;
        let fits = self.limits.fast_start
            && self.pressure.tries_all()
            && stream.ring.lag(start) <= MediaTime::from_duration(self.limits.fast_start_max)
            && stream.ring.gop_bytes() <= BACKLOG_BYTES_MAX
            && stream.ring.head() - start <= BACKLOG_FRAMES_MAX
            // In decoding order, times of sending would show B-frames in the wrong order.
            && (stream.health.b_frames == 0 || stream.health.is_in_order_for_browsers);
        fits.then_some(start)
    }

    pub(super) fn begin_catch_up(&mut self, now: Instant, stream: &Stream, start: u64) {
        let span = stream.ring.lag(start).as_secs_f64().max(0.5);
        let own_rate = stream.ring.gop_bytes() as f64 * 8.0 / span;
        let bits_per_second =
            (own_rate * self.limits.fast_start_rate).clamp(CATCH_UP_BITS_MIN, CATCH_UP_BITS_MAX);
        self.video = start;
        self.begun = None;
        self.phase = Phase::CatchUp(Pace {
            next_send: now,
            bits_per_second,
            packets: 0,
            repeated_before: None,
        });
    }

    pub(super) fn catch_up(
        &mut self,
        now: Instant,
        stream: &Stream,
        session: &mut webrtc::Session,
        mut pace: Pace,
        served: &mut Served,
    ) {
        self.pressure.poll(now, session.repeated());
        if !self.pressure.tries_all() {
            // There was no room after all.
            self.begun = None;
            self.phase = Phase::AwaitKey;
            self.video = stream.ring.head();
            return;
        }
        // A newer key frame is live: what lies before it is not worth sending.
        if let Some(newest) = stream.ring.gop_start()
            && newest > self.video
        {
            self.video = newest;
            self.begun = None;
            self.phase = Phase::Live;
            return;
        }
        let before = *pace.repeated_before.get_or_insert(session.repeated());
        let repeated = session.repeated() - before;
        if repeated >= REPEATED_MIN && repeated * REPEATED_SHARE > pace.packets as u64 {
            // The path does not carry the pace: more of it would drown the sound as well.
            self.pressure.trial_failed(now);
            self.begun = None;
            self.phase = Phase::AwaitKey;
            self.video = stream.ring.head();
            return;
        }
        if !self.pressure.is_open() {
            self.catch_up_paced(now, stream, session, pace, served);
            return;
        }
        while pace.next_send <= now {
            let Some(entry) = stream.ring.get(self.video) else {
                self.phase = Phase::Live;
                return;
            };
            self.video += 1;
            if entry.frame.codec.kind() != TrackKind::Video || entry.browser == BrowserView::Skip {
                continue;
            }
            let packets = self.write(now, stream, session, entry, sending_time(now, stream));
            served.packets += packets;
            pace.packets += packets;
            let bits = entry.frame.payload.len() as f64 * 8.0;
            pace.next_send += Duration::from_secs_f64(bits / pace.bits_per_second);
        }
        self.phase = Phase::CatchUp(pace);
        served.again = Some(pace.next_send);
    }

    /// The same at the pace of a trial, which knows no bursts.
    fn catch_up_paced(
        &mut self,
        now: Instant,
        stream: &Stream,
        session: &mut webrtc::Session,
        mut pace: Pace,
        served: &mut Served,
    ) {
        while let Some(entry) = stream.ring.get(self.video) {
            if entry.frame.codec.kind() != TrackKind::Video || entry.browser == BrowserView::Skip {
                self.video += 1;
                continue;
            }
            if let Some(at) = self.slice_at.filter(|at| *at > now) {
                served.again = Some(at);
                self.phase = Phase::CatchUp(pace);
                return;
            }
            let before = served.packets;
            self.write_slice(
                now,
                stream,
                session,
                entry,
                sending_time(now, stream),
                served,
            );
            pace.packets += served.packets - before;
            if self.begun.is_none() {
                self.video += 1;
            }
        }
        self.phase = Phase::Live;
    }
}

/// A backlog beyond this is not sent: the browser's socket buffer overran above 1.2 MB in
/// one burst, paced it held four.
const BACKLOG_BYTES_MAX: usize = 4 << 20;

/// Frames in a backlog at most, for slow decoders.
const BACKLOG_FRAMES_MAX: u64 = 600;

/// The slowest and fastest pace of a catch-up, in bits a second.
const CATCH_UP_BITS_MIN: f64 = 2e6;
const CATCH_UP_BITS_MAX: f64 = 40e6;

/// A catch-up of which more than one packet in so many had to be repeated is given up; a few
/// are the noise of a radio link, and giving up costs the picture up to the next key frame.
const REPEATED_SHARE: u64 = 16;
const REPEATED_MIN: u64 = 12;

/// How long after a still it is sent again, each time.
const STILL_AGAIN: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(600)];

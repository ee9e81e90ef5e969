//! Live pictures: in slices where they are large, and under pressure those that fit.

use std::time::{Duration, Instant};

use super::stamps::{VIDEO_RATE_HZ, report_instant, rtp_time};
use super::{HEADERS, Phase, Served, Viewer, payloads};
use crate::bridge::viewer_pressure::Level;
use crate::hub::{BrowserView, Entry, Stream};
use crate::media::{MediaTime, TrackKind};
use crate::webrtc::{self, ECHO_PADDING_MAX};

/// A picture of which some packets have left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun {
    packets: usize,
    stamp: MediaTime,
}

impl Viewer {
    /// Sends what is there, a slice at a time where it is much or the path is under pressure.
    pub(super) fn send_live(
        &mut self,
        now: Instant,
        stream: &Stream,
        session: &mut webrtc::Session,
        served: &mut Served,
    ) {
        if !self.pressure.is_open() {
            self.pressure.poll(now, session.repeated());
            self.leave_out(stream);
            served.wants_key = self.wants_key(now);
            self.probe_path(now, session, served);
        }
        while let Some(entry) = stream.ring.get(self.video) {
            if entry.frame.codec.kind() != TrackKind::Video
                || (self.begun.is_none() && !self.wants(now, stream, entry))
            {
                self.video += 1;
                continue;
            }
            let wait = self.slice_at.max(self.pressure.held_until());
            if let Some(at) = wait.filter(|at| *at > now) {
                served.again = Some(served.again.map_or(at, |earlier| earlier.min(at)));
                return;
            }
            self.write_slice(now, stream, session, entry, entry.live_pts(), served);
            if self.begun.is_none() {
                self.video += 1;
            }
        }
    }

    /// Where no pictures leave that would tell how wide the path is, something else has to.
    fn probe_path(&mut self, now: Instant, session: &mut webrtc::Session, served: &mut Served) {
        let Some(bits) = self.pressure.padding(now) else {
            return;
        };
        let slice_tells = self.begun.is_some()
            && bits <= SLICE_BITS_PACED
            && self.slice_at.is_some_and(|at| at <= now + SLICE_SOON);
        if slice_tells && bits > 0.0 {
            return;
        }
        let Some(front) = session.ask_echo(now, 0) else {
            return;
        };
        let packet_bits = (ECHO_PADDING_MAX as f64 + ECHO_BYTES) * 8.0;
        let packets = (bits / packet_bits).ceil() as usize;
        let mut back = front;
        for _ in 0..packets.min(PADDING_PACKETS_MAX) {
            back = session.ask_echo(now, ECHO_PADDING_MAX).unwrap_or(back);
        }
        let bits = (back - front) as f64 * packet_bits;
        self.pressure.asked_echoes(now, front, back, bits);
        served.packets += 1;
    }

    /// Under pressure, what waits too long is left out up to a key frame: the newest one if it
    /// is there already. A key frame that has begun to leave does so to its end.
    fn leave_out(&mut self, stream: &Stream) {
        let begun_key = self.begun.is_some()
            && stream
                .ring
                .get(self.video)
                .is_some_and(|entry| entry.frame.key);
        if self.phase != Phase::Live || begun_key {
            return;
        }
        let newest_key = stream.ring.gop_start().filter(|start| *start > self.video);
        let waits_max = match newest_key {
            Some(_) => WAITS_KEY_MAX,
            None => WAITS_MAX,
        };
        if stream.ring.lag(self.video) <= waits_max {
            return;
        }
        let to = newest_key.unwrap_or(stream.ring.head());
        let pictures = stream.ring.since(self.video).take_while(|(at, _)| *at < to);
        self.thinned += pictures
            .filter(|(_, entry)| entry.frame.codec.kind() == TrackKind::Video)
            .count() as u64;
        self.begun = None;
        self.video = to;
        if newest_key.is_none() {
            self.phase = Phase::AwaitKey;
        }
    }

    /// Writes as much of a picture as may leave now; `begun` is there as long as some is left.
    pub(super) fn write_slice(
        &mut self,
        now: Instant,
        stream: &Stream,
        session: &mut webrtc::Session,
        entry: &Entry,
        stamp: MediaTime,
        served: &mut Served,
    ) {
        let stamp = match self.begun {
            Some(begun) => begun.stamp,
            None => self.stamp(stamp),
        };
        let from = self.begun.map_or(0, |begun| begun.packets);
        let payloads = entry
            .rtp
            .get_or_init(|| payloads(entry, self.limits.payload_bytes));
        let budget = self.pressure.video_bps();
        let most = match budget {
            None => SLICE_PACKETS,
            Some(_) => SLICE_PACKETS_PACED,
        };
        let left = payloads.get(from..).unwrap_or_default();
        let slice = left.get(..most).unwrap_or(left);
        let is_last = slice.len() == left.len();
        let capture = report_instant(stream, stamp, now);
        let rtp_time = rtp_time(stamp, VIDEO_RATE_HZ);
        let bits = slice
            .iter()
            .map(|p| p.len() as f64 * 8.0 * HEADERS)
            .sum::<f64>();
        let is_train = self.pressure.wants_echoes(now, bits);
        let front = is_train.then(|| session.ask_echo(now, 0)).flatten();
        session.write_video(now, slice, rtp_time, capture, is_last);
        if let Some(front) = front
            && let Some(back) = session.ask_echo(now, 0)
        {
            self.pressure.asked_echoes(now, front, back, bits);
        }
        served.packets += slice.len();
        self.begun = (!is_last).then_some(Begun {
            packets: from + slice.len(),
            stamp,
        });
        let rate = match budget {
            None if is_last => {
                self.slice_at = None;
                return;
            }
            None => SLICE_BPS,
            Some(bps) => bps,
        };
        // Time that was not used is not saved up.
        let begin = self.slice_at.map_or(now, |at| at.max(now - SLICE_LATE_MAX));
        self.slice_at = Some(begin + Duration::from_secs_f64(bits / rate));
    }

    /// Whether a picture is to be sent as things stand.
    fn wants(&mut self, now: Instant, stream: &Stream, entry: &Entry) -> bool {
        if entry.browser == BrowserView::Skip {
            return false;
        }
        if self.phase == Phase::AwaitKey {
            if !entry.frame.key || !self.pressure.admits_key(now) {
                self.thinned += u64::from(!self.pressure.is_open());
                return false;
            }
            self.phase = Phase::Live;
        }
        if !self.pressure.is_open() && !entry.frame.key {
            let waits = stream.ring.lag(self.video);
            if self.pressure.level() != Level::Thinned {
                // The key frame was a trial.
                self.phase = Phase::AwaitKey;
                self.thinned += 1;
                return false;
            }
            if entry.frame.disposable && waits > WAITS_DISPOSABLE_MAX {
                self.thinned += 1;
                return false;
            }
        }
        true
    }
}

/// Packets of a picture that leave at once, some 75 kB, and the rate of the slices: a key frame
/// of 300 kB takes 36 ms.
const SLICE_PACKETS: usize = 64;
const SLICE_BPS: f64 = 50e6;

/// The same for a viewer under pressure.
const SLICE_PACKETS_PACED: usize = 4;
/// What such a slice tells about, if it is full: see [`Viewer::probe_path`].
const SLICE_BITS_PACED: f64 = 4.0 * 1_150.0 * 8.0;

/// A slice that leaves so soon is waited for.
const SLICE_SOON: Duration = Duration::from_millis(200);

/// What an echo takes beside its padding, and the longest train of them.
const ECHO_BYTES: f64 = 150.0;
const PADDING_PACKETS_MAX: usize = 8;

/// A slice that was served late by so much does not delay the next one.
const SLICE_LATE_MAX: Duration = Duration::from_millis(20);

/// Under pressure pictures wait here: those that no other refers to so long; the others so long
/// before a newer key frame goes first, and so long before all up to the next one is left out.
/// Shorter waits mean fewer pictures: what fits of a group depends on it.
const WAITS_DISPOSABLE_MAX: MediaTime = MediaTime::from_millis(100);
const WAITS_KEY_MAX: MediaTime = MediaTime::from_millis(250);
const WAITS_MAX: MediaTime = MediaTime::from_millis(800);

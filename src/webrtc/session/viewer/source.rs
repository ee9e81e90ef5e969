//! One track on its way to a viewer: its numbering, what was sent lately, and how it arrives.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::srtp::{KeyError, Sealer};
use super::{TRAIN_BYTES_MAX, TRAIN_PACKETS_MAX};
use crate::media::TrackKind;
use crate::webrtc::answer::Source as Announced;
use crate::webrtc::negotiate::Media;
use crate::webrtc::session::{Said, StreamStart};

/// A track that we send.
pub(super) struct Source {
    pub(super) kind: TrackKind,
    pub(super) ssrc: u32,
    pt: u8,
    /// Payload type and SSRC of retransmissions.
    repeats: Option<(u8, u32)>,
    mid: Box<[u8]>,
    /// The first 16 bits are what rolled over (RFC 3711 section 3.3.1).
    next_sequence: u64,
    next_repeat: u64,
    rtp_time_offset: u32,
    /// The viewer has reported on this source: it knows whose it is without a mid.
    is_known: bool,
    /// The RTP time last sent and the instant it stands for.
    latest: Option<(u32, Instant)>,
    reported: Option<Instant>,
    packets: u32,
    payload_bytes: u32,
    history: History,
    /// The last FIR that was heeded.
    pub(super) fir: Option<u8>,
}

/// What may be kept and sent again.
#[derive(Clone, Copy, Debug)]
pub(super) struct HistoryLimits {
    pub(super) packets: usize,
    pub(super) duration: Duration,
    /// Repeated bytes for each byte that is sent.
    pub(super) ratio: Option<f32>,
}

/// The packets sent last, the newest at the end, without holes in their numbers.
struct History {
    limits: HistoryLimits,
    began: Instant,
    sent: VecDeque<Sent>,
    /// Bytes that may be repeated now.
    allowance: f32,
}

struct Sent {
    payload: Arc<[u8]>,
    rtp_time: u32,
    /// Milliseconds since the history began.
    at: u32,
    /// When it was last repeated, likewise; 0 for never.
    repeated_at: u32,
    marker: bool,
}

impl Source {
    pub(super) fn new(
        media: &Media,
        ids: [u32; 2],
        bits: u64,
        limits: HistoryLimits,
        now: Instant,
    ) -> Self {
        let has_repeats = media.rtx_pt.is_some();
        let packets = if has_repeats { limits.packets } else { 0 };
        Self {
            kind: media.kind,
            ssrc: ids[0],
            pt: media.pt,
            repeats: media.rtx_pt.map(|pt| (pt, ids[1])),
            mid: media.mid.as_bytes().into(),
            // 1 to 32,768: see `StreamStart`.
            next_sequence: (bits & 0x7fff) + 1,
            next_repeat: (bits >> 16 & 0x7fff) + 1,
            rtp_time_offset: (bits >> 32) as u32,
            is_known: false,
            latest: None,
            reported: None,
            packets: 0,
            payload_bytes: 0,
            history: History {
                limits: HistoryLimits { packets, ..limits },
                began: now,
                sent: VecDeque::new(),
                allowance: REPEAT_BURST,
            },
            fir: None,
        }
    }

    /// What the answer says of it.
    pub(super) fn announced(&self, cname: &str) -> Announced {
        Announced {
            ssrc: self.ssrc,
            rtx_ssrc: self.repeats.map(|(_, ssrc)| ssrc),
            cname: cname.to_owned(),
        }
    }

    /// Sets where the numbering begins, before anything was sent.
    pub(super) fn set_start(&mut self, start: StreamStart) {
        if self.latest.is_none() {
            self.next_sequence = u64::from(start.sequence);
            self.rtp_time_offset = start.rtp_time;
        }
    }

    /// Whether anything was sent.
    pub(super) fn has_begun(&self) -> bool {
        self.latest.is_some()
    }

    /// The numbers of a sender report at `now`: RTP time, packets, bytes of payload. The RTP
    /// time goes on from the last one that was sent.
    pub(super) fn report(&self, now: Instant) -> Option<(u32, u32, u32)> {
        let (rtp_time, instant) = self.latest?;
        let since = now.saturating_duration_since(instant).as_nanos();
        let passed = since * u128::from(clock_rate(self.kind)) / 1_000_000_000;
        let rtp_time = rtp_time.wrapping_add(passed as u32);
        Some((rtp_time, self.packets, self.payload_bytes))
    }

    /// Whether `distance` has passed since it was last reported on; then that is now.
    pub(super) fn is_report_due(&mut self, now: Instant, distance: Duration) -> bool {
        let is_due = self
            .reported
            .is_none_or(|at| now.saturating_duration_since(at) >= distance);
        if is_due && self.latest.is_some() {
            self.reported = Some(now);
        }
        is_due
    }

    /// The viewer has reported on it.
    pub(super) fn note_report(&mut self) {
        self.is_known = true;
    }

    /// Seals one frame, or a part of one: its payloads in order, as few trains as their sizes allow.
    /// A picture's marker goes on the last if the picture `ends` with it.
    #[expect(clippy::too_many_arguments, reason = "what one frame consists of")]
    pub(super) fn write(
        &mut self,
        now: Instant,
        sealer: &Sealer,
        mid_extension: Option<u8>,
        payloads: &[Arc<[u8]>],
        rtp_time: u32,
        capture: Instant,
        ends: bool,
        said: &mut Vec<Said>,
    ) -> Result<(), KeyError> {
        let rtp_time = rtp_time.wrapping_add(self.rtp_time_offset);
        self.latest = Some((rtp_time, capture));
        let extension = mid_extension.filter(|_| !self.is_known);
        let head = HEADER_BYTES + extension.map_or(0, |_| mid_bytes(&self.mid));
        let overhead = head + sealer.overhead();
        let keeps = self.history.limits.packets > 0;
        let at = self.history.millis(now);
        let mut rest = payloads;
        while !rest.is_empty() {
            let (run, after) = rest.split_at(train_length(rest, overhead));
            let bytes: usize = run.iter().map(|payload| payload.len() + overhead).sum();
            let mut contents = Vec::with_capacity(bytes);
            for (index, payload) in run.iter().enumerate() {
                let is_last = after.is_empty() && index + 1 == run.len();
                let marker = self.kind == TrackKind::Video && ends && is_last;
                let sequence = self.next_sequence;
                self.next_sequence += 1;
                let header_at = contents.len();
                let pt = self.pt | (u8::from(marker) << 7);
                header(
                    &mut contents,
                    extension.is_some(),
                    pt,
                    sequence,
                    rtp_time,
                    self.ssrc,
                );
                if let Some(id) = extension {
                    write_mid(&mut contents, id, &self.mid);
                }
                sealer.seal_rtp(&mut contents, header_at, self.ssrc, sequence, &[], payload)?;
                self.packets = self.packets.wrapping_add(1);
                self.payload_bytes = self.payload_bytes.wrapping_add(payload.len() as u32);
                if keeps {
                    self.history.push(Sent {
                        payload: Arc::clone(payload),
                        rtp_time,
                        at,
                        repeated_at: 0,
                        marker,
                    });
                }
            }
            let segment = run[0].len() + overhead;
            said.push(Said::Send { contents, segment });
            rest = after;
        }
        Ok(())
    }

    /// Sends a packet again (RFC 4588 section 4), if it is still here, was not repeated within
    /// `again_after`, and its share of the link is not used up. Whether it was sent.
    pub(super) fn repeat(
        &mut self,
        now: Instant,
        sealer: &Sealer,
        mid_extension: Option<u8>,
        sequence: u16,
        again_after: Duration,
        said: &mut Vec<Said>,
    ) -> Result<bool, KeyError> {
        let Some((pt, ssrc)) = self.repeats else {
            return Ok(false);
        };
        let extension = mid_extension.filter(|_| !self.is_known);
        let newest = self.next_sequence.wrapping_sub(1) as u16;
        let back = usize::from(newest.wrapping_sub(sequence));
        let Some(sent) = self.history.take_repeat(now, back, again_after) else {
            return Ok(false);
        };
        let head = HEADER_BYTES + extension.map_or(0, |_| mid_bytes(&self.mid));
        let size = head + 2 + sent.payload.len() + sealer.overhead();
        let mut contents = Vec::with_capacity(size);
        let pt = pt | (u8::from(sent.marker) << 7);
        let index = self.next_repeat;
        self.next_repeat += 1;
        header(
            &mut contents,
            extension.is_some(),
            pt,
            index,
            sent.rtp_time,
            ssrc,
        );
        if let Some(id) = extension {
            write_mid(&mut contents, id, &self.mid);
        }
        let original = sequence.to_be_bytes();
        sealer.seal_rtp(&mut contents, 0, ssrc, index, &original, &sent.payload)?;
        let segment = contents.len();
        said.push(Said::Send { contents, segment });
        Ok(true)
    }
}

impl History {
    fn millis(&self, now: Instant) -> u32 {
        let since = now.saturating_duration_since(self.began).as_millis();
        // Never 0, which stands for never; 49 days wrap, and then a packet is kept longer.
        (since as u32).max(1)
    }

    fn push(&mut self, sent: Sent) {
        let bytes = sent.payload.len() as f32;
        if let Some(ratio) = self.limits.ratio {
            self.allowance = (self.allowance + bytes * ratio).min(REPEAT_BURST);
        }
        let at = sent.at;
        self.sent.push_back(sent);
        let duration = self.limits.duration.as_millis() as u32;
        while let Some(oldest) = self.sent.front()
            && (self.sent.len() > self.limits.packets || at.wrapping_sub(oldest.at) > duration)
        {
            self.sent.pop_front();
        }
    }

    /// The packet so many before the newest one, if it may be repeated; then it is noted.
    fn take_repeat(&mut self, now: Instant, back: usize, again_after: Duration) -> Option<&Sent> {
        let at = self.millis(now);
        let index = self.sent.len().checked_sub(back + 1)?;
        let sent = self.sent.get_mut(index)?;
        let again_after = again_after.as_millis() as u32;
        let bytes = sent.payload.len() as f32;
        let is_recent = sent.repeated_at != 0 && at.wrapping_sub(sent.repeated_at) < again_after;
        let is_old = at.wrapping_sub(sent.at) > self.limits.duration.as_millis() as u32;
        if is_recent || is_old || (self.limits.ratio.is_some() && self.allowance < bytes) {
            return None;
        }
        self.allowance -= bytes;
        sent.repeated_at = at;
        Some(sent)
    }
}

/// How many of `payloads` leave as one train: all of the first one's size but the last, which
/// may be shorter.
fn train_length(payloads: &[Arc<[u8]>], overhead: usize) -> usize {
    let Some(first) = payloads.first() else {
        return 0;
    };
    let by_bytes = TRAIN_BYTES_MAX / (first.len() + overhead);
    let limit = by_bytes.clamp(1, TRAIN_PACKETS_MAX).min(payloads.len());
    let equal = payloads[..limit]
        .iter()
        .take_while(|payload| payload.len() == first.len())
        .count();
    let has_shorter = payloads[..limit]
        .get(equal)
        .is_some_and(|next| next.len() < first.len());
    equal + usize::from(has_shorter)
}

/// RFC 3550 section 5.1.
fn header(out: &mut Vec<u8>, extended: bool, pt: u8, sequence: u64, rtp_time: u32, ssrc: u32) {
    let mut header = [0; HEADER_BYTES];
    header[0] = 0x80 | (u8::from(extended) << 4);
    header[1] = pt;
    header[2..4].copy_from_slice(&(sequence as u16).to_be_bytes());
    header[4..8].copy_from_slice(&rtp_time.to_be_bytes());
    header[8..].copy_from_slice(&ssrc.to_be_bytes());
    out.extend_from_slice(&header);
}

/// Bytes of the header extension with a mid (RFC 8285 section 4.2, RFC 8843 section 15).
fn mid_bytes(mid: &[u8]) -> usize {
    4 + (1 + mid.len()).next_multiple_of(4)
}

fn write_mid(out: &mut Vec<u8>, id: u8, mid: &[u8]) {
    let end = out.len() + mid_bytes(mid);
    let words = (mid_bytes(mid) / 4 - 1) as u8;
    out.extend_from_slice(&[0xbe, 0xde, 0, words]);
    out.push((id << 4) | (mid.len() - 1) as u8);
    out.extend_from_slice(mid);
    out.resize(end, 0);
}

/// Whether a mid fits the one-byte form of an extension.
pub(super) fn fits_extension(id: u8, mid: &[u8]) -> bool {
    (1..=14).contains(&id) && (1..=16).contains(&mid.len())
}

/// RFC 6184 section 8.2.1, RFC 7587 section 4.1.
fn clock_rate(kind: TrackKind) -> u32 {
    match kind {
        TrackKind::Video => 90_000,
        TrackKind::Audio => 48_000,
    }
}

const HEADER_BYTES: usize = 12;

/// Bytes that may be repeated at once, whatever was sent before: a lost key frame of two
/// seconds of a good stream. From then on [`HistoryLimits::ratio`] is the rate.
const REPEAT_BURST: f32 = 131_072.0;

#[cfg(test)]
mod tests;

//! [`Outgoing`]: media on its way to a viewer, and the viewer's reports about it.
//!
//! A viewer gets a hundred packets and more in a second, and a large stream has a thousand of
//! them: what one packet costs decides how many a machine serves. So this path is our own. The
//! DTLS handshake gives the keys; a frame's payloads, shared by all viewers, are sealed
//! straight into one buffer, which leaves as a train: datagrams of equal size, cut apart by
//! the kernel. There is no queue, no timer for a packet and no allocation for one.
//!
//! | module | what |
//! | --- | --- |
//! | `srtp` | keys, sealing and opening |
//! | `rtcp` | reports as bytes |
//! | `source` | one track: numbering, retransmission |

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use dimpl::Output;
use str0m::crypto::dtls::DtlsInstance;

use super::{CloseReason, Event, Said, Stats, StreamStart};
use crate::media::TrackKind;
use crate::webrtc::Engine;
use crate::webrtc::answer;
use crate::webrtc::dtls::Instance;
use crate::webrtc::engine::Epoch;
use crate::webrtc::negotiate::Plan;
use crate::webrtc::sdp::Fingerprint;

mod rtcp;
mod source;
mod srtp;

use rtcp::{Reception, Report};
use source::{HistoryLimits, Source};
use srtp::{KeyError, Opener, Sealer};

/// See the module's documentation.
pub(super) struct Outgoing {
    dtls: Instance,
    /// When DTLS is to be called, once it has begun.
    dtls_timeout: Option<Instant>,
    is_client: bool,
    /// Of the peer's certificate, as its offer says; `None` once it was found to be true.
    fingerprint: Option<Fingerprint>,
    keys: Option<(Sealer, Opener)>,
    is_connected: bool,
    sources: Vec<Source>,
    cname: String,
    mid_extension: Option<u8>,
    epoch: Epoch,
    /// When sender reports are due; `None` while nothing was sent.
    report_at: Option<Instant>,
    /// Who wants to know its round trip: its SSRC, its time, when it asked.
    reference: Option<(u32, u32, Instant)>,
    round_trip: Option<Duration>,
}

impl Outgoing {
    /// The tracks of `plan`, and what the answer says of each.
    pub(super) fn new(
        engine: &Engine,
        plan: &Plan,
        seed: u64,
        now: Instant,
    ) -> Result<(Self, Vec<Option<answer::Source>>), String> {
        let mut dtls = engine.new_dtls(now).map_err(|error| error.to_string())?;
        dtls.set_active(plan.dtls_active);
        let mut random = Random(seed);
        let cname = format!("{:016x}", random.next());
        let config = &engine.config;
        let limits = HistoryLimits {
            packets: config.rtx_cache_packets,
            duration: config.rtx_cache_duration,
            ratio: config.rtx_ratio_cap,
        };
        let mut taken = Vec::new();
        let sources: Vec<Source> = plan
            .media
            .iter()
            .map(|media| {
                let ids = [random.ssrc(&mut taken), random.ssrc(&mut taken)];
                Source::new(media, ids, random.next(), limits, now)
            })
            .collect();
        let announced = sources.iter().map(|s| Some(s.announced(&cname))).collect();
        let mids_fit = |id: &u8| {
            let mut mids = plan.media.iter().map(|media| media.mid.as_bytes());
            mids.all(|mid| source::fits_extension(*id, mid))
        };
        let outgoing = Self {
            dtls,
            dtls_timeout: None,
            is_client: plan.dtls_active,
            fingerprint: Some(plan.fingerprint.clone()),
            keys: None,
            is_connected: false,
            sources,
            cname,
            mid_extension: plan.mid_extension.filter(mids_fit),
            epoch: engine.epoch.unwrap_or(Epoch::arbitrary(now)),
            report_at: None,
            reference: None,
            round_trip: None,
        };
        Ok((outgoing, announced))
    }

    /// The peer has proved its address: DTLS may begin.
    pub(super) fn start(&mut self, now: Instant, said: &mut Vec<Said>) {
        self.dtls_timeout = Some(now);
        self.handle_timeout(now, said);
    }

    /// Takes a datagram that is not STUN; whether it was of use.
    pub(super) fn handle_datagram(
        &mut self,
        now: Instant,
        bytes: &[u8],
        said: &mut Vec<Said>,
        stats: &mut Stats,
    ) -> bool {
        match bytes {
            [20..=63, ..] => {
                if self.dtls_timeout.is_none() {
                    return false;
                }
                // It tells the time of the answer.
                let handled = self
                    .dtls
                    .handle_timeout(now)
                    .and_then(|()| self.dtls.handle_packet(bytes));
                if let Err(error) = handled {
                    said.push(Said::failed(&error));
                    return true;
                }
                self.poll_dtls(said);
                true
            }
            // RTCP (RFC 5761 section 4). A viewer's RTP is of no interest.
            [128..=191, 192..=223, ..] => self.handle_reports(now, bytes, said, stats),
            _ => false,
        }
    }

    /// Too early a call does nothing.
    pub(super) fn handle_timeout(&mut self, now: Instant, said: &mut Vec<Said>) {
        if self.dtls_timeout.is_some_and(|at| at <= now) {
            if let Err(error) = self.dtls.handle_timeout(now) {
                said.push(Said::failed(&error));
                return;
            }
            self.poll_dtls(said);
        }
        if self.report_at.is_some_and(|at| at + REPORT_SLACK <= now) {
            self.flush(now, said);
        }
    }

    /// When [`Outgoing::handle_timeout`] is due.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let report_at = self.report_at.map(|at| at + REPORT_SLACK);
        [self.dtls_timeout, report_at].into_iter().flatten().min()
    }

    pub(super) fn has_track(&self, kind: TrackKind) -> bool {
        self.sources.iter().any(|source| source.kind == kind)
    }

    /// See [`super::Session::set_stream_start`].
    pub(super) fn set_stream_start(&mut self, kind: TrackKind, start: StreamStart) {
        if let Some(source) = self.sources.iter_mut().find(|s| s.kind == kind) {
            source.set_start(start);
        }
    }

    /// Sends one frame; whether it could be.
    #[expect(clippy::too_many_arguments, reason = "what one frame consists of")]
    pub(super) fn write(
        &mut self,
        kind: TrackKind,
        now: Instant,
        payloads: &[Arc<[u8]>],
        rtp_time: u32,
        capture: Instant,
        ends: bool,
        said: &mut Vec<Said>,
        stats: &mut Stats,
    ) -> bool {
        let (Some((sealer, _)), Some(source)) = (
            &self.keys,
            self.sources.iter_mut().find(|source| source.kind == kind),
        ) else {
            return false;
        };
        if !source.has_begun() {
            // The first report at once: until one has come, lips are in sync by chance.
            self.report_at = Some(now);
        }
        let capture = capture.min(now);
        let mid = self.mid_extension;
        let written = source.write(now, sealer, mid, payloads, rtp_time, capture, ends, said);
        if written.is_err() {
            said.push(Said::failed(&"SRTP"));
            return false;
        }
        let stats = stats.track(kind);
        stats.packets += payloads.len() as u64;
        stats.bytes += payloads.iter().map(|p| p.len() as u64).sum::<u64>();
        true
    }

    /// Adds the reports that are due to what was written.
    pub(super) fn flush(&mut self, now: Instant, said: &mut Vec<Said>) {
        if self.report_at.is_none_or(|at| at > now) {
            return;
        }
        self.report_at = Some(now + REPORT_INTERVAL);
        let mut report = Vec::with_capacity(REPORT_BYTES);
        self.write_reports(now, REPORT_DISTANCE, &mut report);
        self.send_report(report, said);
    }

    /// Says good-bye by RTCP and DTLS.
    pub(super) fn close(&mut self, now: Instant, said: &mut Vec<Said>) {
        if self.report_at.take().is_some() {
            let mut report = Vec::with_capacity(REPORT_BYTES);
            let sources = self.write_reports(now, Duration::ZERO, &mut report);
            rtcp::goodbye(&mut report, &sources);
            self.send_report(report, said);
        }
        if self.dtls_timeout.is_some() && self.dtls.close().is_ok() {
            self.poll_dtls(said);
        }
    }

    fn poll_dtls(&mut self, said: &mut Vec<Said>) {
        let mut buffer = vec![0; self.dtls.output_bytes_max()];
        loop {
            match self.dtls.poll_output(&mut buffer) {
                Output::Packet(packet) => said.push(Said::send(packet.to_vec())),
                Output::BufferTooSmall { needed } => buffer.resize(needed, 0),
                Output::Timeout(at) => {
                    self.dtls_timeout = Some(at);
                    return;
                }
                Output::PeerCert(certificate) => {
                    let is_it = self
                        .fingerprint
                        .take()
                        .is_some_and(|f| is_of(&f, certificate));
                    if !is_it {
                        said.push(Said::failed(&"the certificate is not the offer's"));
                        self.keys = None;
                        return;
                    }
                }
                // Once, and for who has shown the offer's certificate: the same keys with their
                // counters begun anew would seal two packets alike.
                Output::KeyingMaterial(material, profile)
                    if self.keys.is_none() && self.fingerprint.is_none() =>
                {
                    match srtp::contexts(&material, profile, self.is_client) {
                        Ok(keys) => self.keys = Some(keys),
                        Err(KeyError) => said.push(Said::failed(&"no keys for SRTP")),
                    }
                }
                Output::Connected => self.is_connected = true,
                Output::CloseNotify => {
                    said.push(Said::Closed(CloseReason::DtlsClosed));
                }
                // A data channel was answered, and nobody listens.
                Output::ApplicationData(_) | _ => {}
            }
            if self.is_connected && self.fingerprint.is_none() && self.keys.is_some() {
                self.is_connected = false;
                said.push(Said::Connected);
            }
        }
    }

    fn handle_reports(
        &mut self,
        now: Instant,
        bytes: &[u8],
        said: &mut Vec<Said>,
        stats: &mut Stats,
    ) -> bool {
        let Some((sealer, opener)) = &mut self.keys else {
            return false;
        };
        let mut bytes = bytes.to_vec();
        let Some(opened) = opener.open_rtcp(&mut bytes) else {
            return false;
        };
        let (mut result, mut asks) = (Ok(()), false);
        rtcp::decode(opened, |report| match report {
            Report::Reception(block) => {
                if let Some(source) = self.sources.iter_mut().find(|s| s.ssrc == block.ssrc) {
                    source.note_report();
                    let track = stats.track(source.kind);
                    track.loss = Some(f32::from(block.fraction_lost) / 256.0);
                    if let Some(round_trip) = round_trip(&self.epoch, now, &block) {
                        track.rtt = Some(round_trip);
                        self.round_trip = Some(round_trip);
                    }
                    if source.kind == TrackKind::Video {
                        said.push(Said::Event(Event::ReceiverReport {
                            loss: f32::from(block.fraction_lost) / 256.0,
                            rtt: track.rtt,
                        }));
                    }
                }
            }
            Report::Nack { ssrc, lost } => {
                let Some(source) = self.sources.iter_mut().find(|s| s.ssrc == ssrc) else {
                    return;
                };
                stats.track(source.kind).nacks += 1;
                let again_after = self.round_trip.map_or(REPEAT_AGAIN_MAX, |rtt| {
                    rtt.clamp(REPEAT_AGAIN_MIN, REPEAT_AGAIN_MAX)
                });
                for sequence in lost.sequences() {
                    let mid = self.mid_extension;
                    match source.repeat(now, sealer, mid, sequence, again_after, said) {
                        Ok(sent) => stats.track(source.kind).repeated += u64::from(sent),
                        Err(error) => result = Err(error),
                    }
                }
            }
            Report::KeyframeRequest { ssrc, fir } => {
                if let Some(source) = self.sources.iter_mut().find(|s| s.ssrc == ssrc)
                    && source.kind == TrackKind::Video
                    // A FIR is sent until it is answered (RFC 5104 section 4.3.1.2).
                    && (fir.is_none() || source.fir != fir)
                {
                    source.fir = fir.or(source.fir);
                    asks = true;
                }
            }
            Report::ReferenceTime { from, ntp_middle } => {
                self.reference = Some((from, ntp_middle, now));
            }
        });
        if asks {
            stats.video.plis += 1;
            said.push(Said::Event(Event::KeyframeRequested));
        }
        if result.is_err() {
            said.push(Said::failed(&"SRTP"));
        }
        true
    }

    /// Begins a compound: what was sent of each track that was not reported on for `distance`,
    /// their name, and the answer to who asked for its round trip. Which sources it is about.
    fn write_reports(
        &mut self,
        now: Instant,
        distance: Duration,
        report: &mut Vec<u8>,
    ) -> Vec<u32> {
        let ntp = self.epoch.ntp(now);
        let mut sources = Vec::with_capacity(self.sources.len());
        for source in &mut self.sources {
            if !source.is_report_due(now, distance) {
                continue;
            }
            if let Some((rtp_time, packets, bytes)) = source.report(now) {
                rtcp::sender_report(report, source.ssrc, ntp, rtp_time, packets, bytes);
                sources.push(source.ssrc);
            }
        }
        rtcp::source_description(report, &sources, &self.cname);
        if let (Some((to, ntp_middle, at)), Some(ssrc)) = (self.reference.take(), sources.first()) {
            let delay = now.saturating_duration_since(at).as_micros() * 65_536 / 1_000_000;
            rtcp::reference_answer(report, *ssrc, to, ntp_middle, delay as u32);
        }
        sources
    }

    fn send_report(&mut self, mut report: Vec<u8>, said: &mut Vec<Said>) {
        let Some((sealer, _)) = &mut self.keys else {
            return;
        };
        match sealer.seal_rtcp(&mut report) {
            Ok(()) => said.push(Said::send(report)),
            Err(KeyError) => said.push(Said::failed(&"SRTCP")),
        }
    }
}

/// Whether a certificate is the one that the offer spoke of (RFC 8122 section 5).
fn is_of(fingerprint: &Fingerprint, certificate: &[u8]) -> bool {
    let algorithm = match fingerprint.hash.as_str() {
        "sha-256" => &digest::SHA256,
        "sha-1" => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        _ => return false,
    };
    digest::digest(algorithm, certificate).as_ref() == fingerprint.bytes
}

/// RFC 3550 section 6.4.1. Nonsense has none.
fn round_trip(epoch: &Epoch, now: Instant, block: &Reception) -> Option<Duration> {
    if block.last_report == 0 {
        return None;
    }
    let now = (epoch.ntp(now) >> 16) as u32;
    let units = now
        .wrapping_sub(block.last_report)
        .wrapping_sub(block.delay);
    // Rounded times can make a short one come out below zero.
    let units = if units.wrapping_neg() < ROUNDING_MAX {
        0
    } else {
        units
    };
    let round_trip = Duration::from_secs_f64(f64::from(units) / 65_536.0);
    (round_trip < ROUND_TRIP_MAX).then_some(round_trip)
}

/// Numbers from a seed (SplitMix64).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One that is not among `taken`; 0 and 1 stand for nobody in browsers' reports.
    fn ssrc(&mut self, taken: &mut Vec<u32>) -> u32 {
        loop {
            let ssrc = (self.next() >> 32) as u32;
            if ssrc > 1 && !taken.contains(&ssrc) {
                taken.push(ssrc);
                return ssrc;
            }
        }
    }
}

/// The most datagrams and bytes of one train: what the kernel takes as one message.
pub(super) const TRAIN_PACKETS_MAX: usize = 64;
pub(super) const TRAIN_BYTES_MAX: usize = 65_000;

/// How often a viewer is told how sound and picture belong together.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Reports of one track are at least so far apart: a browser draws a line through the first two,
/// and a tick of rounding between close ones would tilt it.
const REPORT_DISTANCE: Duration = Duration::from_millis(500);

/// A report that is due waits so long for media to leave with.
const REPORT_SLACK: Duration = Duration::from_millis(50);

/// Two sender reports, two names, an answer, a good-bye, and what sealing adds.
const REPORT_BYTES: usize = 208;

/// A packet is not repeated again before a round trip, within these bounds.
const REPEAT_AGAIN_MIN: Duration = Duration::from_millis(5);
const REPEAT_AGAIN_MAX: Duration = Duration::from_millis(50);

/// In 1/65,536 s: two milliseconds.
const ROUNDING_MAX: u32 = 131;

/// A longer one is a report of something else.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;

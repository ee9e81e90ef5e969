//! [`WebrtcIngest`]: RTP packets of one WebRTC publisher become frames of its stream.
//!
//! Pictures are put together and judged by [`FrameAssembler`], sound is put in order by
//! [`Reorder`]; the timeline places both by arrival at once and by sender reports later.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::rtmp_ingest::updated;
use crate::codec::h264::{AccessUnit, AvcConfig};
use crate::codec::opus;
use crate::hub::{RtpTimeline, Stream};
use crate::media::{Codec, Frame, MediaTime, TrackConfig, TrackKind};
use crate::rtp::frame_assembler::{self, FrameAssembler};
use crate::rtp::reorder::{self, Reorder};

/// How a publisher's packets are put together.
#[derive(Clone, Copy, Debug)]
pub struct IngestLimits {
    /// For pictures.
    pub video: frame_assembler::Limits,
    /// For sound.
    pub audio: reorder::Limits,
}

/// One RTP packet as the transport gave it.
#[derive(Clone, Debug)]
pub struct RtpPacket {
    /// Which track it belongs to.
    pub kind: TrackKind,
    /// The sequence number, extended to 64 bits; retransmitted packets have their original one.
    pub sequence: u64,
    /// The RTP time, extended to 64 bits.
    pub rtp_time: u64,
    /// The marker bit.
    pub marker: bool,
    /// The payload; empty for padding.
    pub payload: Bytes,
}

/// What came of handling packets or time.
#[derive(Debug, Default)]
pub struct Ingested {
    /// Whether pictures were put into the stream.
    pub video: bool,
    /// The sound that was put into the stream, for the transcoder.
    pub audio: Vec<Frame>,
    /// The publisher must be asked for a key frame; the assembler says why.
    pub keyframe_needed: bool,
}

/// One WebRTC publisher's way into its stream.
#[derive(Debug)]
pub struct WebrtcIngest {
    assembler: FrameAssembler,
    reorder: Reorder,
    timeline: RtpTimeline,
    avc: Option<AvcConfig>,
    /// Sound packets that were lost for good.
    pub audio_lost: u64,
    /// Payloads that made no sense.
    pub malformed: u64,
    newest_video: Option<u64>,
    newest_audio: Option<u64>,
}

impl WebrtcIngest {
    /// The way in of a publisher that has not sent anything yet.
    pub fn new(limits: IngestLimits) -> Self {
        Self {
            assembler: FrameAssembler::new(limits.video),
            reorder: Reorder::new(limits.audio),
            timeline: RtpTimeline::default(),
            avc: None,
            audio_lost: 0,
            malformed: 0,
            newest_video: None,
            newest_audio: None,
        }
    }

    /// Counters of the picture's packets.
    pub fn video_counters(&self) -> &frame_assembler::Counters {
        self.assembler.counters()
    }

    /// For how long what waits for lost packets has waited.
    pub fn held(&self, now: Instant) -> Duration {
        self.assembler.held(now).max(self.reorder.held(now))
    }

    /// How long a lost picture packet is waited for at present, and a lost sound packet.
    pub fn waits(&self) -> (Duration, Duration) {
        (self.assembler.hole_wait(), self.reorder.wait())
    }

    /// How far the picture has still to move to be in sync with the sound.
    pub fn skew(&self) -> Option<MediaTime> {
        self.timeline.skew()
    }

    /// How far the picture and the sound were moved so far, to be in sync.
    pub fn corrections(&self) -> (MediaTime, MediaTime) {
        (
            self.timeline.correction(TrackKind::Video),
            self.timeline.correction(TrackKind::Audio),
        )
    }

    /// Sender reports that were not believed.
    pub const fn absurd_reports(&self) -> u64 {
        self.timeline.absurd_reports
    }

    /// Tells how long a retransmission takes.
    pub fn set_rtt(&mut self, rtt: Duration) {
        self.assembler.set_rtt(rtt);
    }

    /// Takes a packet.
    pub fn packet(&mut self, now: Instant, stream: &mut Stream, packet: RtpPacket) -> Ingested {
        // Padding, and what was not accepted, may be on another clock.
        match packet.kind {
            _ if packet.payload.is_empty() => {}
            TrackKind::Video => self.newest_video = Some(packet.rtp_time),
            TrackKind::Audio => self.newest_audio = Some(packet.rtp_time),
        }
        match packet.kind {
            TrackKind::Video => self.assembler.push(
                now,
                frame_assembler::Packet {
                    sequence: packet.sequence,
                    rtp_time: packet.rtp_time,
                    marker: packet.marker,
                    payload: packet.payload,
                },
            ),
            TrackKind::Audio => {
                self.reorder
                    .push(now, packet.sequence, packet.rtp_time, packet.payload);
            }
        }
        self.drain(now, stream)
    }

    /// Takes a sender report: `rtp_time` was at NTP time `ntp`.
    pub fn sender_report(&mut self, kind: TrackKind, ntp: MediaTime, rtp_time: u32) {
        let newest = match kind {
            TrackKind::Video => self.newest_video,
            TrackKind::Audio => self.newest_audio,
        };
        // A report before the first packet has no clock to be on.
        let Some(newest) = newest else { return };
        self.timeline
            .sender_report(kind, ntp, extend(rtp_time, newest));
    }

    /// RTP clocks that were placed anew.
    pub const fn timestamp_jumps(&self) -> u64 {
        self.timeline.jumps
    }

    /// When [`WebrtcIngest::handle_timeout`] has something to do.
    pub fn next_timeout(&self) -> Option<Instant> {
        [self.assembler.next_timeout(), self.reorder.next_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Gives up what was waited for too long.
    pub fn handle_timeout(&mut self, now: Instant, stream: &mut Stream) -> Ingested {
        self.assembler.handle_timeout(now);
        self.reorder.handle_timeout(now);
        self.drain(now, stream)
    }

    /// A player needs a key frame that only the publisher can give. It is asked for now or, if
    /// that was just done, when the interval allows; and again, because requests get lost,
    /// while pictures come and none is a key frame.
    pub fn want_keyframe(&mut self, now: Instant, stream: &mut Stream) -> Ingested {
        self.assembler.request_keyframe(now);
        self.drain(now, stream)
    }

    fn drain(&mut self, now: Instant, stream: &mut Stream) -> Ingested {
        let mut ingested = Ingested::default();
        while let Some(output) = self.assembler.poll(now) {
            match output {
                frame_assembler::Output::AccessUnit { rtp_time, unit, .. } => {
                    ingested.video |= self.picture(now, stream, rtp_time, unit);
                }
                frame_assembler::Output::KeyframeNeeded { reason } => {
                    log::debug!("{}: asking for a key frame: {}", stream.key, reason.name());
                    ingested.keyframe_needed = true;
                }
            }
        }
        while let Some(output) = self.reorder.poll(now) {
            match output {
                reorder::Output::Packet {
                    rtp_time, payload, ..
                } => {
                    ingested
                        .audio
                        .extend(self.sound(now, stream, rtp_time, payload));
                }
                reorder::Output::Lost { count } => self.audio_lost += count,
            }
        }
        ingested
    }

    fn picture(
        &mut self,
        now: Instant,
        stream: &mut Stream,
        rtp_time: u64,
        unit: AccessUnit,
    ) -> bool {
        if !self.configure(stream, &unit) || unit.vcl_count == 0 {
            return false;
        }
        let live = stream.live(now);
        let dts = self
            .timeline
            .map(TrackKind::Video, rtp_time, VIDEO_RATE_HZ, now, live);
        let frame = Frame {
            codec: Codec::H264,
            dts,
            pts: dts,
            key: unit.idr,
            disposable: unit.disposable,
            payload: unit.payload,
        };
        stream.publish(frame, now);
        true
    }

    /// Takes over new parameter sets; answers whether pictures can be decoded at all.
    fn configure(&mut self, stream: &mut Stream, unit: &AccessUnit) -> bool {
        match updated(self.avc.as_ref(), unit) {
            Ok(None) => {}
            Ok(Some(config)) => {
                stream.configure(TrackConfig::H264(config.clone()));
                self.avc = Some(config);
            }
            Err(error) => {
                self.malformed += 1;
                log::debug!("{}: unusable parameter sets: {error}", stream.key);
            }
        }
        self.avc.is_some()
    }

    fn sound(
        &mut self,
        now: Instant,
        stream: &mut Stream,
        rtp_time: u64,
        payload: Bytes,
    ) -> Option<Frame> {
        if opus::packet_duration(&payload).is_err() {
            self.malformed += 1;
            return None;
        }
        let channels = stream
            .audio
            .as_ref()
            .map_or(0, |track| match *track.config {
                TrackConfig::Opus { channels } => channels,
                _ => 0,
            });
        // The channel count only ever grows: a codec may fall back to mono for a while.
        let channels = channels.max(opus::channels(&payload));
        stream.configure(TrackConfig::Opus { channels });
        let live = stream.live(now);
        let dts = self
            .timeline
            .map(TrackKind::Audio, rtp_time, AUDIO_RATE_HZ, now, live);
        let frame = Frame {
            codec: Codec::Opus,
            dts,
            pts: dts,
            key: true,
            disposable: false,
            payload,
        };
        stream.publish(frame.clone(), now);
        Some(frame)
    }
}

/// The 64-bit RTP time nearest to `near` whose low 32 bits are `rtp_time`.
fn extend(rtp_time: u32, near: u64) -> u64 {
    let step = rtp_time.wrapping_sub(near as u32) as i32;
    near.saturating_add_signed(i64::from(step))
}

/// RTP clock of H.264 (RFC 6184 section 8.2.1).
const VIDEO_RATE_HZ: u32 = 90_000;

/// RTP clock of Opus (RFC 7587 section 4.1).
const AUDIO_RATE_HZ: u32 = 48_000;

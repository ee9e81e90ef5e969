//! [`RtmpIngest`]: FLV tags of one RTMP publisher become frames of its stream.
//!
//! The bit stream is believed over the container: parameter sets in the picture replace
//! the record's, a key frame is one that holds an IDR picture, the rate and channels of the
//! sound come from its AudioSpecificConfig.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::b_frames::InOrder;
use crate::codec::aac::{AacError, AudioSpecificConfig};
use crate::codec::h264::{AccessUnit, AvcConfig, H264Error};
use crate::hub::{BrowserView, Placed, RtmpTimeline, Stream};
use crate::media::{Codec, Frame, MediaTime, TrackConfig, TrackKind};
use crate::rtmp::flv::{AudioTag, FlvError, VideoTag};

/// What is done with pictures that refer to later ones, which browsers cannot show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BFrames {
    /// WebRTC viewers are shown the pictures between them.
    Drop,
    /// The publisher is refused.
    Refuse,
    /// Everybody gets everything.
    Pass,
}

/// Why a publisher cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IngestError {
    /// A codec that cannot reach the other side untouched.
    UnsupportedCodec(String),
    /// The configuration refuses streams with B-frames.
    BFramesRefused,
}

impl BFrames {
    /// What is wrong with a stream that has B-frames, and its cure; `needs_b` says whether P
    /// pictures refer to them.
    const fn advice(self, needs_b: bool) -> &'static str {
        match self {
            BFrames::Drop if needs_b => {
                "B-frames that others refer to: browsers are shown little more than the key frames. \
                 Set them to 0 in the encoder (OBS: Max B-frames 0 or x264 option bframes=0; \
                 ffmpeg: -bf 0), or at least b-pyramid=none"
            }
            BFrames::Drop => {
                "B-frames: browsers are shown only the pictures between them. Set them to 0 in the \
                 encoder (OBS: Max B-frames 0 or x264 option bframes=0; ffmpeg: -bf 0)"
            }
            BFrames::Refuse => {
                "B-frames: the stream is refused. Set them to 0 in the encoder (OBS: Max B-frames 0 \
                 or x264 option bframes=0; ffmpeg: -bf 0)"
            }
            BFrames::Pass => {
                "B-frames: in browsers the picture nearly stands still. Set them to 0 in the encoder \
                 (OBS: Max B-frames 0 or x264 option bframes=0; ffmpeg: -bf 0), or streams.b_frames \
                 to \"drop\""
            }
        }
    }
}

impl IngestError {
    /// A short name for counters.
    pub const fn reason(&self) -> &'static str {
        match self {
            IngestError::UnsupportedCodec(_) => "unsupported_codec",
            IngestError::BFramesRefused => "b_frames_refused",
        }
    }
}

impl fmt::Display for IngestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IngestError::UnsupportedCodec(name) => {
                write!(
                    f,
                    "{name} is not supported: publish H.264 video and AAC audio"
                )
            }
            IngestError::BFramesRefused => f.write_str(
                "the video has B-frames, which browsers cannot show: set bframes=0 in the encoder",
            ),
        }
    }
}

impl std::error::Error for IngestError {}

/// One RTMP publisher's way into its stream.
#[derive(Debug)]
pub struct RtmpIngest {
    timeline: RtmpTimeline,
    video: Option<AvcConfig>,
    /// Bytes of a NAL unit's length, 1 to 4.
    length_size: u8,
    audio: Option<Arc<TrackConfig>>,
    b_frames: BFrames,
    /// What browsers get, where the pictures may be out of order.
    in_order: Option<InOrder>,
    seen_idr: bool,
    /// Whether a picture was put into the stream.
    has_begun: bool,
    /// Frames that could not be used, by any reason.
    pub malformed: u64,
}

impl RtmpIngest {
    /// The way in of a publisher that has not sent anything yet.
    pub fn new(b_frames: BFrames) -> Self {
        Self {
            timeline: RtmpTimeline::default(),
            video: None,
            length_size: 4,
            audio: None,
            b_frames,
            in_order: None,
            seen_idr: false,
            has_begun: false,
            malformed: 0,
        }
    }

    /// Timestamps that jumped so far.
    pub const fn timestamp_jumps(&self) -> u64 {
        self.timeline.jumps
    }

    /// Takes a video message; answers whether it put a frame into the stream.
    ///
    /// A tag that makes no sense is counted and costs only itself.
    pub fn video(
        &mut self,
        now: Instant,
        stream: &mut Stream,
        timestamp: u32,
        body: &Bytes,
    ) -> Result<bool, IngestError> {
        match VideoTag::decode(body) {
            Ok(VideoTag::SequenceHeader(record)) => {
                match AvcConfig::decode(&record) {
                    Ok((config, length_size)) => {
                        self.length_size = length_size;
                        self.configure(stream, config);
                    }
                    // The parameter sets are to come in the pictures.
                    Err(H264Error::NoParameterSets { length_size }) => {
                        self.length_size = length_size;
                    }
                    Err(error) => self.complain(stream, &error),
                }
                Ok(false)
            }
            Ok(VideoTag::Coded {
                composition_time_ms,
                payload,
                ..
            }) => match AccessUnit::from_avcc(&payload, self.length_size) {
                Ok(mut unit) => {
                    unit.payload = kept_of(unit.payload, body.len());
                    self.picture(now, stream, timestamp, composition_time_ms, unit)
                }
                Err(error) => {
                    self.complain(stream, &error);
                    Ok(false)
                }
            },
            Ok(VideoTag::EndOfSequence | VideoTag::Ignored(_)) => Ok(false),
            Err(error) => self.tag_error(stream, error),
        }
    }

    /// Takes an audio message; answers the frame that it put into the stream, for the
    /// transcoder.
    pub fn audio(
        &mut self,
        now: Instant,
        stream: &mut Stream,
        timestamp: u32,
        body: &Bytes,
    ) -> Result<Option<Frame>, IngestError> {
        match AudioTag::decode(body) {
            Ok(AudioTag::SequenceHeader(bytes)) => {
                match AudioSpecificConfig::decode(&bytes) {
                    Ok(config) if config.is_supported() => {
                        self.audio = Some(stream.configure(TrackConfig::Aac(config)));
                    }
                    Ok(config) => {
                        return Err(IngestError::UnsupportedCodec(format!(
                            "AAC object type {}",
                            config.object_type()
                        )));
                    }
                    Err(error) => self.complain_audio(stream, &error),
                }
                Ok(None)
            }
            Ok(AudioTag::Coded(payload)) => {
                if self.audio.is_none() || payload.is_empty() {
                    self.malformed += 1;
                    return Ok(None);
                }
                let dts = self
                    .timeline
                    .map(TrackKind::Audio, timestamp, now, stream.live(now));
                let frame = Frame {
                    codec: Codec::Aac,
                    dts,
                    pts: dts,
                    key: true,
                    disposable: false,
                    payload: kept_of(payload, body.len()),
                };
                stream.publish(frame.clone(), now);
                Ok(Some(frame))
            }
            Ok(AudioTag::Silence | AudioTag::Ignored(_)) => Ok(None),
            Err(error) => self.tag_error(stream, error).map(|_| None),
        }
    }

    fn picture(
        &mut self,
        now: Instant,
        stream: &mut Stream,
        timestamp: u32,
        composition_time_ms: i32,
        unit: AccessUnit,
    ) -> Result<bool, IngestError> {
        self.configure_in_band(stream, &unit);
        if self.video.is_none() || unit.vcl_count == 0 {
            self.malformed += u64::from(unit.vcl_count > 0);
            return Ok(false);
        }
        if unit.has_b_slices {
            stream.health.b_frames += 1;
            if self.b_frames == BFrames::Refuse {
                self.advise(stream);
                return Err(IngestError::BFramesRefused);
            }
        }
        // A source with intra refresh never sends an IDR picture: its recovery points
        // are the best start there is.
        let key = unit.idr || (unit.recovery_point && !self.seen_idr);
        self.seen_idr |= unit.idr;
        // Players that stayed from the publisher before would take it for one of that one's.
        if !key && !self.has_begun {
            return Ok(false);
        }
        self.has_begun = true;
        let Placed { dts, meant } =
            self.timeline
                .place(TrackKind::Video, timestamp, now, stream.live(now));
        let composition = MediaTime::from_millis(i64::from(composition_time_ms));
        // Wirecast sends negative ones, which are passed on as they are.
        let pts = if composition < MediaTime::ZERO {
            dts + composition
        } else {
            (meant + composition).max(dts)
        };
        let frame = Frame {
            codec: Codec::H264,
            dts,
            pts,
            key,
            disposable: unit.disposable,
            payload: unit.payload.clone(),
        };
        let browser = match &mut self.in_order {
            Some(in_order) => in_order.view(&unit, key),
            None => BrowserView::Same,
        };
        stream.health.is_in_order_for_browsers = self.in_order.is_some();
        self.advise(stream);
        stream.publish_as(frame, browser, now);
        Ok(true)
    }

    /// Says once, and keeps saying in the API, what is wrong with a stream of B-frames.
    fn advise(&self, stream: &mut Stream) {
        if stream.health.b_frames == 0 {
            return;
        }
        let needs_b = self.in_order.as_ref().is_some_and(InOrder::has_needed_b);
        let advice = self.b_frames.advice(needs_b);
        if stream.health.b_frames_advice != Some(advice) {
            stream.health.b_frames_advice = Some(advice);
            log::warn!("{}: {advice}", stream.key);
        }
    }

    /// Parameter sets inside the picture are newer than the record's.
    fn configure_in_band(&mut self, stream: &mut Stream, unit: &AccessUnit) {
        match updated(self.video.as_ref(), unit) {
            Ok(None) => {}
            Ok(Some(config)) => self.configure(stream, config),
            Err(error) => self.complain(stream, &error),
        }
    }

    fn configure(&mut self, stream: &mut Stream, config: AvcConfig) {
        stream.configure(TrackConfig::H264(config.clone()));
        if self.video.as_ref() != Some(&config) {
            let is_wanted = self.b_frames == BFrames::Drop && config.info().may_reorder();
            self.in_order = is_wanted.then(|| InOrder::new(&config));
        }
        self.video = Some(config);
    }

    fn tag_error(&mut self, stream: &Stream, error: FlvError) -> Result<bool, IngestError> {
        match error {
            FlvError::UnsupportedCodec { name } => {
                Err(IngestError::UnsupportedCodec(name.to_string()))
            }
            other => {
                self.malformed += 1;
                log::debug!("{}: a tag was not understood: {other}", stream.key);
                Ok(false)
            }
        }
    }

    fn complain(&mut self, stream: &Stream, error: &H264Error) {
        self.malformed += 1;
        if self.malformed.is_power_of_two() {
            log::warn!(
                "{}: bad H.264 ({} so far): {error}",
                stream.key,
                self.malformed
            );
        }
    }

    fn complain_audio(&mut self, stream: &Stream, error: &AacError) {
        self.malformed += 1;
        if self.malformed.is_power_of_two() {
            log::warn!(
                "{}: bad AudioSpecificConfig ({} bad tags so far): {error}",
                stream.key,
                self.malformed
            );
        }
    }
}

/// What of a message of `length` bytes is kept: a slice of it keeps the whole message in memory, so
/// a small part, as of a picture that is mostly filler, is copied.
fn kept_of(part: Bytes, length: usize) -> Bytes {
    if part.len() >= length / 2 || length < SMALL_BYTES {
        return part;
    }
    Bytes::copy_from_slice(&part)
}

/// A message that is not worth looking whether all of it is kept.
const SMALL_BYTES: usize = 256;

/// What the parameter sets in `unit` make of the `present` configuration; `None` if they
/// change nothing.
pub(super) fn updated(
    present: Option<&AvcConfig>,
    unit: &AccessUnit,
) -> Result<Option<AvcConfig>, H264Error> {
    match present {
        Some(present) => present.updated(&unit.sps, &unit.pps),
        None if unit.sps.is_empty() => Ok(None),
        None => AvcConfig::from_parameter_sets(unit.sps.clone(), unit.pps.clone()).map(Some),
    }
}

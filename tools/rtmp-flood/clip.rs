//! [`Clip`]: what publishers send, from the built-in clip or an FLV file, over and over.
//!
//! Pictures are brought to slices alone once, at start. For each picture sent, the
//! [`Stamp`] and, where a higher bit rate was asked for, filling is put behind the last
//! slice: decoders do not look there.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use rtmp_gateway::codec::aac::AudioSpecificConfig;
use rtmp_gateway::codec::h264::{AccessUnit, AvcConfig, avcc_nal_units, nal_type, nal_unit_type};
use rtmp_gateway::media::{Codec, Frame, MediaTime};
use rtmp_gateway::rtmp::amf0::{self, AmfLimits};
use rtmp_gateway::rtmp::flv::{AudioTag, FileReader, VideoTag};
use rtmp_gateway::rtmp::message::type_id;
use rtmp_gateway::rtmp::metadata::StreamMetadata;
use rtmp_gateway::rtmp::session::SharedMessage;
use rtmp_gateway::rtp::h264_packetizer::packetize;
use rtmp_gateway::transcode::{Job, OpusSettings, PipelineId, Spec, Work, Worker};

use crate::stamp::{STAMP_BYTES, Stamp};

/// A clip that begins anew without a seam.
pub struct Clip {
    /// What `onMetaData` tells.
    pub metadata: StreamMetadata,
    /// Parameter sets of the pictures.
    pub avc: AvcConfig,
    /// How the sound is decoded, if there is any.
    pub aac: Option<AudioSpecificConfig>,
    video: Vec<Picture>,
    audio: Vec<Sound>,
    /// 20 ms each; empty unless WHIP publishers need it.
    opus: Vec<Arc<[u8]>>,
    /// In the order of sending, for RTMP.
    rtmp: Vec<Due>,
    /// The same with Opus, for WHIP.
    whip: Vec<Due>,
    /// From its beginning to where it begins anew.
    pub duration: Duration,
}

struct Picture {
    at: Duration,
    key: bool,
    composition_time_ms: i32,
    /// AVCC with four-byte lengths, slices only.
    slices: Bytes,
    /// Where the length of the last slice stands.
    last_length_at: usize,
    /// Bytes of all slices without their lengths.
    slice_bytes: u32,
    /// Bytes of filling.
    filling: usize,
}

struct Sound {
    at: Duration,
    payload: Bytes,
}

/// One thing to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// From the beginning of the clip.
    pub at: Duration,
    /// What.
    pub what: What,
}

/// Index of what is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A picture.
    Video(usize),
    /// A piece of sound.
    Audio(usize),
}

/// How a clip is to be made.
#[derive(Clone, Debug, Default)]
pub struct ClipOptions {
    /// Bits per second of the pictures; the clip's own if `None`.
    pub video_bps: Option<u64>,
    /// Whether Opus is needed.
    pub opus: bool,
}

impl Clip {
    /// Reads the clip of `rtmp-gateway --demo`.
    pub fn built_in(options: &ClipOptions) -> Result<Self, String> {
        Self::decode(Bytes::from_static(BUILT_IN), options)
    }

    /// Reads an FLV file with H.264 without B-frames and, if it has sound, AAC.
    pub fn load(path: &Path, options: &ClipOptions) -> Result<Self, String> {
        let file = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Self::decode(Bytes::from(file), options)
            .map_err(|error| format!("{}: {error}", path.display()))
    }

    fn decode(file: Bytes, options: &ClipOptions) -> Result<Self, String> {
        let told = |error: &dyn std::fmt::Display| error.to_string();
        let mut metadata = StreamMetadata::default();
        let (mut avc, mut aac) = (None, None);
        let (mut video, mut audio) = (Vec::new(), Vec::new());
        for tag in FileReader::new(file).map_err(|e| told(&e))?.tags() {
            // A file that was cut off is good up to there.
            let Ok(tag) = tag else { break };
            let at = Duration::from_millis(tag.timestamp.into());
            match tag.type_id {
                type_id::VIDEO => match VideoTag::decode(&tag.payload).map_err(|e| told(&e))? {
                    VideoTag::SequenceHeader(record) => {
                        avc = Some(AvcConfig::decode(&record).map_err(|e| told(&e))?);
                    }
                    VideoTag::Coded {
                        composition_time_ms,
                        payload,
                        ..
                    } => {
                        let (_, length_size) =
                            avc.as_ref().ok_or("pictures before their header")?;
                        // Without the SEI: what is counted on its way are slices.
                        let nals: Result<Vec<&[u8]>, _> =
                            avcc_nal_units(&payload, *length_size).collect();
                        let slices = nals.map_err(|e| told(&e))?.into_iter().filter(|nal| {
                            nal.first()
                                .is_some_and(|&h| nal_unit_type(h) != nal_type::SEI)
                        });
                        let unit = AccessUnit::from_nal_units(slices).map_err(|e| told(&e))?;
                        if unit.has_picture() {
                            video.push(Picture::new(at, composition_time_ms, &unit));
                        }
                    }
                    VideoTag::EndOfSequence | VideoTag::Ignored(_) => {}
                },
                type_id::AUDIO => match AudioTag::decode(&tag.payload).map_err(|e| told(&e))? {
                    AudioTag::SequenceHeader(config) => {
                        let config = AudioSpecificConfig::decode(&config).map_err(|e| told(&e))?;
                        aac = Some(config);
                    }
                    AudioTag::Coded(payload) => audio.push(Sound { at, payload }),
                    AudioTag::Silence | AudioTag::Ignored(_) => {}
                },
                _ => {
                    let values = amf0::decode_all(&tag.payload, AmfLimits::default());
                    if let Some(values) = values.unwrap_or_default().get(1) {
                        metadata = StreamMetadata::decode(values);
                    }
                }
            }
        }
        let (avc, _) = avc.ok_or("no H.264")?;
        if !video.first().is_some_and(|picture| picture.key) {
            return Err("it does not begin with a key frame".into());
        }
        let video_end = end(video.iter().map(|picture| picture.at));
        let duration = video_end.max(end(audio.iter().map(|sound| sound.at)));
        if let Some(bps) = options.video_bps {
            fill(&mut video, bps, duration)?;
        }
        let mut clip = Self {
            metadata,
            avc,
            aac,
            video,
            audio,
            opus: Vec::new(),
            rtmp: Vec::new(),
            whip: Vec::new(),
            duration,
        };
        if options.opus {
            clip.make_opus();
        }
        let sounds = clip.audio.iter().map(|sound| sound.at);
        clip.rtmp = merge(&clip.video, sounds);
        let sounds = (0..clip.opus.len()).map(|index| OPUS_FRAME * index as u32);
        clip.whip = merge(&clip.video, sounds);
        Ok(clip)
    }

    /// What is sent by RTMP, in order.
    pub fn rtmp(&self) -> &[Due] {
        &self.rtmp
    }

    /// What is sent by WHIP, in order.
    pub fn whip(&self) -> &[Due] {
        &self.whip
    }

    /// Mean bits per second of the pictures as they are sent.
    pub fn video_bps(&self) -> u64 {
        let bytes: usize = self.video.iter().map(Picture::sent_bytes).sum();
        (bytes as f64 * 8.0 / self.duration.as_secs_f64()) as u64
    }

    /// Pictures per second.
    pub fn frames_per_second(&self) -> f64 {
        self.video.len() as f64 / self.duration.as_secs_f64()
    }

    /// Whether it is a key frame.
    pub fn is_key(&self, what: What) -> bool {
        matches!(what, What::Video(index) if self.video[index].key)
    }

    /// The headers of an RTMP stream.
    pub fn rtmp_headers(&self, chunk_size: u32) -> Vec<SharedMessage> {
        let video = SharedMessage::avc_sequence_header(0, &self.avc.encode(), chunk_size);
        let audio = self
            .aac
            .iter()
            .map(|config| SharedMessage::aac_sequence_header(0, config.bytes(), chunk_size));
        std::iter::once(video).chain(audio).collect()
    }

    /// A message of [`rtmp`](Self::rtmp). `stamp` is asked for pictures only; the bytes of the
    /// slices are put in here.
    pub fn rtmp_message(
        &self,
        what: What,
        timestamp: u32,
        chunk_size: u32,
        stamp: impl FnOnce() -> Stamp,
        scratch: &mut Vec<u8>,
    ) -> SharedMessage {
        match what {
            What::Audio(index) => {
                SharedMessage::aac(timestamp, &self.audio[index].payload, chunk_size)
            }
            What::Video(index) => {
                let picture = &self.video[index];
                picture.stamped(stamp(), scratch);
                let (key, offset) = (picture.key, picture.composition_time_ms);
                SharedMessage::avc(timestamp, key, offset, scratch, chunk_size)
            }
        }
    }

    /// The RTP payloads of something of [`whip`](Self::whip).
    pub fn rtp_payloads(
        &self,
        what: What,
        stamp: impl FnOnce() -> Stamp,
        scratch: &mut Vec<u8>,
    ) -> Vec<Arc<[u8]>> {
        match what {
            What::Audio(index) => vec![Arc::clone(&self.opus[index])],
            What::Video(index) => {
                let picture = &self.video[index];
                picture.stamped(stamp(), scratch);
                let sets = picture.key.then(|| (self.avc.sps(), self.avc.pps()));
                packetize(scratch, sets, RTP_PAYLOAD_BYTES_MAX)
            }
        }
    }

    fn make_opus(&mut self) {
        let Some(config) = self.aac.clone() else {
            return;
        };
        let pipeline = PipelineId(0);
        let settings = OpusSettings::default();
        let mut worker = Worker::new();
        let mut opus = Vec::new();
        let mut run = |work| {
            if let Some(done) = worker.run(Job { pipeline, work }) {
                opus.extend(
                    done.frames
                        .into_iter()
                        .map(|frame| Arc::from(&frame.payload[..])),
                );
            }
        };
        run(Work::Open(Box::new(Spec::AacToOpus { config, settings })));
        for sound in &self.audio {
            let at = MediaTime::from_millis(sound.at.as_millis() as i64);
            run(Work::Frame(Frame {
                codec: Codec::Aac,
                dts: at,
                pts: at,
                key: true,
                disposable: false,
                payload: sound.payload.clone(),
            }));
        }
        // A whole number per turn, or the sound would run away from the pictures.
        let count = self.duration.as_millis() / OPUS_FRAME.as_millis();
        opus.truncate(count as usize);
        if let Some(last) = opus.last().cloned() {
            opus.resize(count as usize, last);
        }
        self.opus = opus;
    }
}

impl Picture {
    fn new(at: Duration, composition_time_ms: i32, unit: &AccessUnit) -> Self {
        let slices = unit.payload.clone();
        let (mut last_length_at, mut next) = (0, 0);
        while let Some(length) = slices.get(next..).and_then(|rest| rest.first_chunk()) {
            last_length_at = next;
            next += 4 + u32::from_be_bytes(*length) as usize;
        }
        Self {
            at,
            key: unit.idr,
            composition_time_ms,
            last_length_at,
            slice_bytes: slices.len() as u32 - 4 * u32::from(unit.vcl_count),
            slices,
            filling: 0,
        }
    }

    fn sent_bytes(&self) -> usize {
        self.slices.len() + self.filling + STAMP_BYTES
    }

    /// Writes the picture with its stamp.
    fn stamped(&self, stamp: Stamp, out: &mut Vec<u8>) {
        let added = self.filling + STAMP_BYTES;
        let stamp = Stamp {
            slice_bytes: self.slice_bytes + added as u32,
            ..stamp
        };
        out.clear();
        out.extend_from_slice(&self.slices);
        out.resize(self.slices.len() + self.filling, FILLING);
        out.extend_from_slice(&stamp.encode());
        let last = (out.len() - self.last_length_at - 4) as u32;
        out[self.last_length_at..][..4].copy_from_slice(&last.to_be_bytes());
    }
}

/// Fills the pictures up to a bit rate, each in proportion to its size: key frames stay as
/// much larger than the others as they are.
fn fill(video: &mut [Picture], bps: u64, duration: Duration) -> Result<(), String> {
    let own: usize = video.iter().map(Picture::sent_bytes).sum();
    let wanted = (bps as f64 / 8.0 * duration.as_secs_f64()) as usize;
    if wanted < own {
        let own_bps = own as f64 * 8.0 / duration.as_secs_f64();
        return Err(format!(
            "its pictures have {own_bps:.0} bit/s, a bit rate can only be raised"
        ));
    }
    let (mut sizes, mut filled) = (0, 0);
    for picture in video {
        sizes += picture.sent_bytes();
        let share = (wanted - own) as u128 * sizes as u128 / own as u128;
        picture.filling = share as usize - filled;
        filled += picture.filling;
    }
    Ok(())
}

/// Where the next one of some times would be, in whole milliseconds as they are.
fn end(times: impl Iterator<Item = Duration>) -> Duration {
    let times: Vec<u64> = times.map(|time| time.as_millis() as u64).collect();
    let (Some(first), Some(last)) = (times.first(), times.last()) else {
        return Duration::ZERO;
    };
    let steps = (times.len() as u64 - 1).max(1);
    let step = (last.saturating_sub(*first) + steps / 2) / steps;
    Duration::from_millis(last + step)
}

/// Pictures and sound in the order of their times.
fn merge(video: &[Picture], audio: impl Iterator<Item = Duration>) -> Vec<Due> {
    let video = (video.iter().enumerate()).map(|(index, picture)| Due {
        at: picture.at,
        what: What::Video(index),
    });
    let audio = audio.enumerate().map(|(index, at)| Due {
        at,
        what: What::Audio(index),
    });
    let mut all: Vec<Due> = video.chain(audio).collect();
    all.sort_by_key(|due| due.at);
    all
}

/// Made by `tools/make-demo-clip`.
static BUILT_IN: &[u8] = include_bytes!("../../src/demo/clip.flv");

/// No zero and no start code can come of it.
const FILLING: u8 = 0xb5;

/// What an Opus frame of the transcoder lasts.
pub const OPUS_FRAME: Duration = Duration::from_millis(20);

/// As browsers send.
const RTP_PAYLOAD_BYTES_MAX: usize = 1_160;

#[cfg(test)]
mod tests {
    use rtmp_gateway::codec::h264::avcc_nal_units;

    use super::*;

    fn clip(options: ClipOptions) -> Clip {
        Clip::built_in(&options).expect("a good clip")
    }

    fn stamp() -> Stamp {
        Stamp {
            publisher: 1,
            number: 2,
            sent_us: 3,
            slice_bytes: 0,
        }
    }

    #[test]
    fn the_built_in_clip_is_400_pictures_of_25_per_second() {
        let clip = clip(ClipOptions::default());
        assert_eq!(clip.duration, Duration::from_secs(16));
        assert_eq!((clip.video.len(), clip.audio.len()), (400, 750));
        assert_eq!(clip.rtmp().len(), 1_150);
        assert!(clip.rtmp().is_sorted_by_key(|due| due.at));
        assert_eq!(clip.frames_per_second(), 25.0);
    }

    #[test]
    fn opus_fills_the_clip_exactly() {
        let clip = clip(ClipOptions {
            opus: true,
            ..ClipOptions::default()
        });
        assert_eq!(clip.opus.len(), 800);
        assert_eq!(clip.whip().len(), 1_200);
    }

    #[test]
    fn a_stamped_picture_is_valid_avcc_and_tells_its_size() {
        let clip = clip(ClipOptions {
            video_bps: Some(1_000_000),
            ..ClipOptions::default()
        });
        let mut scratch = Vec::new();
        for picture in &clip.video {
            picture.stamped(stamp(), &mut scratch);
            assert_eq!(scratch.len(), picture.sent_bytes());
            let nals: Result<Vec<&[u8]>, _> = avcc_nal_units(&scratch, 4).collect();
            let nals = nals.expect("valid lengths");
            let bytes: usize = nals.iter().map(|nal| nal.len()).sum();
            let read = Stamp::decode(nals.last().expect("a slice")).expect("a stamp");
            assert_eq!(read.slice_bytes as usize, bytes);
            assert_eq!((read.number, read.sent_us), (2, 3));
        }
    }

    #[test]
    fn a_bit_rate_is_reached_and_never_lowered() {
        let clip = clip(ClipOptions {
            video_bps: Some(1_000_000),
            ..ClipOptions::default()
        });
        let bps = clip.video_bps();
        assert!((999_000..=1_000_000).contains(&bps), "{bps}");
        let low = Clip::built_in(&ClipOptions {
            video_bps: Some(10_000),
            ..ClipOptions::default()
        });
        let told = low.map(|_| ()).expect_err("too low");
        assert!(told.ends_with("a bit rate can only be raised"), "{told}");
    }

    #[test]
    fn what_is_no_flv_file_is_refused() {
        let outcome = Clip::decode(Bytes::from_static(b"GIF89a..."), &ClipOptions::default());
        assert!(outcome.is_err());
        let silent = Clip::decode(
            Bytes::from_static(b"FLV\x01\x00\0\0\0\x09\0\0\0\0"),
            &ClipOptions::default(),
        );
        assert_eq!(silent.map(|_| ()), Err("no H.264".into()));
    }

    #[test]
    fn flv_headers_are_those_of_the_classic_form() {
        // The players of this tool read them so.
        assert_eq!(
            rtmp_gateway::rtmp::flv::avc_header(true, 0),
            [0x17, 1, 0, 0, 0]
        );
    }
}

//! The demo clip as a source of real H.264 and AAC, and a tone in Opus.

use std::sync::Arc;

use bytes::Bytes;
use rtmp_gateway::codec::h264::{AccessUnit, AvcConfig};
use rtmp_gateway::rtmp::flv::{AudioTag, FileReader, Tag, VideoTag};
use rtmp_gateway::rtp::h264_packetizer::packetize;

/// One message of the clip, as an RTMP publisher sends it.
#[derive(Clone, Debug)]
pub struct Clip {
    pub tags: Arc<[Tag]>,
    /// Milliseconds after which it begins again.
    pub length_ms: u32,
}

/// The type of an FLV tag.
pub const VIDEO: u8 = 9;
pub const AUDIO: u8 = 8;

impl Clip {
    pub fn load() -> Self {
        Self::of(include_bytes!("../../src/demo/clip.flv"))
    }

    /// 180x320, Baseline.
    pub fn small() -> Self {
        Self::of(include_bytes!("../fixtures/flv/small.flv"))
    }

    /// With B-frames that no picture refers to.
    pub fn b_frames() -> Self {
        Self::of(include_bytes!("../fixtures/flv/b_frames.flv"))
    }

    /// With B-frames that others refer to, too.
    pub fn b_pyramid() -> Self {
        Self::of(include_bytes!("../fixtures/flv/b_pyramid.flv"))
    }

    fn of(bytes: &'static [u8]) -> Self {
        let bytes = Bytes::from_static(bytes);
        let tags: Vec<Tag> = FileReader::new(bytes)
            .expect("an FLV file")
            .tags()
            .map(|tag| tag.expect("a whole tag"))
            .filter(|tag| tag.type_id == VIDEO || tag.type_id == AUDIO)
            .filter(|tag| !is_end_of_sequence(tag))
            .collect();
        let video: Vec<&Tag> = tags
            .iter()
            .filter(|tag| tag.type_id == VIDEO && is_coded(tag))
            .collect();
        let first = video.first().expect("pictures").timestamp;
        let length_ms = video.last().expect("pictures").timestamp + 40 - first;
        Self {
            tags: tags.into(),
            length_ms,
        }
    }

    /// The clip as an RTMP publisher sends it, looped without end.
    pub fn feed(&self) -> Feed {
        Feed {
            headers: self.headers().cloned().collect(),
            frames: Box::new(self.frames()),
            offset: Some(0),
            ppm: 0,
        }
    }

    /// Only the sequence headers.
    pub fn headers(&self) -> impl Iterator<Item = &Tag> {
        self.tags.iter().filter(|tag| !is_coded(tag))
    }

    /// Coded frames with their time in milliseconds, looped without end.
    pub fn frames(&self) -> impl Iterator<Item = (u64, Tag)> + use<> {
        let coded: Vec<Tag> = self
            .tags
            .iter()
            .filter(|tag| is_coded(tag))
            .cloned()
            .collect();
        let length = u64::from(self.length_ms);
        (0..).flat_map(move |round| {
            let coded = coded.clone();
            coded
                .into_iter()
                .map(move |tag| (round * length + u64::from(tag.timestamp), tag))
        })
    }

    pub fn avc(&self) -> AvcConfig {
        self.tags
            .iter()
            .filter(|tag| tag.type_id == VIDEO)
            .find_map(|tag| match VideoTag::decode(&tag.payload) {
                Ok(VideoTag::SequenceHeader(record)) => {
                    Some(AvcConfig::decode(&record).expect("a record").0)
                }
                _ => None,
            })
            .expect("a record")
    }

    /// Access units in the neutral form; every 50th is an IDR.
    pub fn access_units(&self) -> Vec<AccessUnit> {
        self.tags
            .iter()
            .filter(|tag| tag.type_id == VIDEO)
            .filter_map(|tag| match VideoTag::decode(&tag.payload) {
                Ok(VideoTag::Coded { payload, .. }) => {
                    Some(AccessUnit::from_avcc(&payload, 4).expect("a picture"))
                }
                _ => None,
            })
            .collect()
    }

    /// The same as RTP payloads, as a browser sends them.
    pub fn rtp_pictures(&self) -> Vec<RtpPicture> {
        let avc = self.avc();
        self.access_units()
            .into_iter()
            .map(|unit| RtpPicture {
                key: unit.idr,
                payloads: packetize(
                    &unit.payload,
                    unit.idr.then(|| (avc.sps(), avc.pps())),
                    1_160,
                ),
            })
            .collect()
    }
}

/// What an RTMP publisher sends: sequence headers, then frames with their time in milliseconds.
pub struct Feed {
    pub headers: Vec<Tag>,
    pub frames: Box<dyn Iterator<Item = (u64, Tag)>>,
    /// What is added to the times to get timestamps; `None`: tags keep their own.
    pub offset: Option<u32>,
    /// By how much the publisher's clock is too fast, in millionths.
    pub ppm: i64,
}

impl Feed {
    /// Its frames' timestamps begin at `offset`.
    pub fn offset(self, offset: u32) -> Self {
        Self {
            offset: Some(offset),
            ..self
        }
    }

    /// Each frame's timestamp is the one in its tag.
    pub fn own_timestamps(self) -> Self {
        Self {
            offset: None,
            ..self
        }
    }

    /// Goes over to another one after `millis`, as an encoder that is set anew in mid-stream.
    pub fn then(mut self, millis: u64, next: Feed) -> Self {
        let headers = next.headers.into_iter().map(move |tag| (millis, tag));
        let frames = next.frames.map(move |(time, tag)| (time + millis, tag));
        let first = self.frames.take_while(move |(time, _)| *time < millis);
        self.frames = Box::new(first.chain(headers).chain(frames));
        self
    }

    /// Only pictures (9) or sound (8).
    pub fn only(mut self, kind: u8) -> Self {
        self.headers.retain(|tag| tag.type_id == kind);
        self.frames = Box::new(self.frames.filter(move |(_, tag)| tag.type_id == kind));
        self
    }

    /// Ends after `millis`.
    pub fn until(mut self, millis: u64) -> Self {
        self.frames = Box::new(self.frames.take_while(move |(time, _)| *time < millis));
        self
    }

    /// Begins at `millis` with whatever comes then.
    pub fn from(mut self, millis: u64) -> Self {
        let frames = self.frames.skip_while(move |(time, _)| *time < millis);
        self.frames = Box::new(frames.map(move |(time, tag)| (time - millis, tag)));
        self
    }

    /// A key frame only every `count` pictures; in place of the clip's others stand copies of
    /// the pictures before them.
    pub fn gop(mut self, count: u64) -> Self {
        let mut pictures = 0;
        let mut key = None;
        let mut last = None;
        self.frames = Box::new(self.frames.map(move |(time, mut tag)| {
            if tag.type_id != VIDEO {
                return (time, tag);
            }
            let is_key = tag.payload[0] >> 4 == 1;
            let first = key.get_or_insert_with(|| tag.payload.clone());
            if pictures % count == 0 {
                tag.payload = first.clone();
            } else if is_key {
                tag.payload = last.clone().expect("a picture went before");
            }
            if tag.payload[0] >> 4 != 1 {
                last = Some(tag.payload.clone());
            }
            pictures += 1;
            (time, tag)
        }));
        self
    }

    /// Changes each frame.
    pub fn map(mut self, change: impl FnMut((u64, Tag)) -> (u64, Tag) + 'static) -> Self {
        self.frames = Box::new(self.frames.map(change));
        self
    }
}

/// One picture on its way from a browser.
#[derive(Clone, Debug)]
pub struct RtpPicture {
    pub key: bool,
    pub payloads: Vec<Arc<[u8]>>,
}

fn is_coded(tag: &Tag) -> bool {
    match tag.type_id {
        VIDEO => matches!(VideoTag::decode(&tag.payload), Ok(VideoTag::Coded { .. })),
        _ => matches!(AudioTag::decode(&tag.payload), Ok(AudioTag::Coded(_))),
    }
}

fn is_end_of_sequence(tag: &Tag) -> bool {
    tag.type_id == VIDEO && matches!(VideoTag::decode(&tag.payload), Ok(VideoTag::EndOfSequence))
}

/// `count` packets of 20 ms with a 440 Hz tone.
pub fn opus_tone(count: usize) -> Vec<Arc<[u8]>> {
    let mut encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Audio)
        .expect("an encoder");
    let mut packet = [0_u8; 1_275];
    (0..count)
        .map(|n| {
            let pcm: Vec<i16> = (0..960)
                .map(|i| {
                    let t = (n * 960 + i) as f64 / 48_000.0;
                    ((t * 440.0 * std::f64::consts::TAU).sin() * 8_000.0) as i16
                })
                .collect();
            let size = encoder.encode(&pcm, &mut packet).expect("a packet");
            Arc::from(&packet[..size])
        })
        .collect()
}

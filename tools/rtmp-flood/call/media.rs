//! [`CallMedia`]: a face and a voice as a browser sends them: the phone's clip as RTP payloads, its
//! sound as mono Opus.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rtmp_gateway::codec::aac::AudioSpecificConfig;
use rtmp_gateway::codec::h264::AvcConfig;
use rtmp_gateway::media::{Codec, Frame, MediaTime};
use rtmp_gateway::rtmp::flv::{AudioTag, VideoTag};
use rtmp_gateway::rtp::h264_packetizer::packetize;
use rtmp_gateway::transcode::{Job, OpusSettings, PipelineId, Spec, Work, Worker};

use crate::tags::Phone;
use crate::tags::phone::{LENGTH, Size};

/// RTP payloads of one picture or sound, in order.
type Payloads = Arc<[Arc<[u8]>]>;

/// A clip of [`LENGTH`] that repeats; its first picture is its only key frame.
pub struct CallMedia {
    pictures: Vec<Payloads>,
    sounds: Vec<Payloads>,
}

/// Something to send.
pub struct Due {
    /// Picture or sound.
    pub is_video: bool,
    /// In the clock of its track.
    pub rtp_time: u32,
    /// RTP payloads.
    pub payloads: Payloads,
}

/// Where a sender is in the clip.
pub struct Playing {
    began: Instant,
    picture: u64,
    sound: u64,
    /// Which picture of the clip is next; a key frame that is wanted moves it to the first.
    at: usize,
}

impl CallMedia {
    /// Makes the payloads, once for all calls.
    ///
    /// # Errors
    /// If the clip is not what it should be.
    pub fn new(phone: &Phone) -> Result<Self, String> {
        let clip = phone.clip(Size::Full);
        let Ok(VideoTag::SequenceHeader(record)) = VideoTag::decode(&clip.video_header) else {
            return Err("the clip has no parameter sets".into());
        };
        let (avc, _) = AvcConfig::decode(&record).map_err(|error| error.to_string())?;
        let mut pictures = Vec::new();
        for (_, body) in &clip.video {
            if let Ok(VideoTag::Coded { key, payload, .. }) = VideoTag::decode(body) {
                let sets = key.then(|| (avc.sps(), avc.pps()));
                pictures.push(packetize(&payload, sets, RTP_PAYLOAD_BYTES_MAX).into());
            }
        }
        Ok(Self {
            pictures,
            sounds: opus(clip)?,
        })
    }

    fn picture_at(&self, number: u64) -> Duration {
        LENGTH / self.pictures.len() as u32 * number as u32
    }
}

/// The clip's sound as Opus packets of 20 ms, as many as fill it.
fn opus(clip: &crate::tags::phone::Clip) -> Result<Vec<Payloads>, String> {
    let Ok(AudioTag::SequenceHeader(config)) = AudioTag::decode(&clip.audio_header) else {
        return Err("the clip has no sound".into());
    };
    let config = AudioSpecificConfig::decode(&config).map_err(|error| error.to_string())?;
    let settings = OpusSettings::default();
    let pipeline = PipelineId(0);
    let mut worker = Worker::new();
    let mut packets = Vec::new();
    let open = Work::Open(Box::new(Spec::AacToOpus { config, settings }));
    let frames = clip.audio.iter().filter_map(|(at, body)| {
        let Ok(AudioTag::Coded(payload)) = AudioTag::decode(body) else {
            return None;
        };
        let at = MediaTime::from_duration(*at);
        Some(Work::Frame(Frame {
            codec: Codec::Aac,
            dts: at,
            pts: at,
            key: true,
            disposable: false,
            payload,
        }))
    });
    for work in std::iter::once(open).chain(frames) {
        let Some(done) = worker.run(Job { pipeline, work }) else {
            continue;
        };
        packets.extend(
            done.frames
                .into_iter()
                .map(|frame| -> Payloads { Arc::new([Arc::from(&frame.payload[..])]) }),
        );
    }
    let count = (LENGTH.as_millis() / SOUND.as_millis()) as usize;
    packets.truncate(count);
    // The encoder keeps the last packet to itself.
    let last = packets.last().cloned().ok_or("no Opus came out")?;
    packets.resize(count, last);
    Ok(packets)
}

impl Playing {
    /// From the beginning of the clip, now.
    pub fn new(now: Instant) -> Self {
        Self {
            began: now,
            picture: 0,
            sound: 0,
            at: 0,
        }
    }

    /// The next picture is a key frame.
    pub fn want_key(&mut self) {
        self.at = 0;
    }

    /// When [`Self::take`] has something.
    pub fn next_due(&self, media: &CallMedia) -> Instant {
        self.began
            + media
                .picture_at(self.picture)
                .min(SOUND * self.sound as u32)
    }

    /// Takes what is due, one at a time.
    pub fn take(&mut self, media: &CallMedia, now: Instant) -> Option<Due> {
        if self.next_due(media) > now {
            return None;
        }
        let (picture, sound) = (media.picture_at(self.picture), SOUND * self.sound as u32);
        if picture <= sound {
            let payloads = Arc::clone(media.pictures.get(self.at)?);
            self.at = (self.at + 1) % media.pictures.len();
            self.picture += 1;
            return Some(Due {
                is_video: true,
                rtp_time: (picture.as_micros() * 90 / 1_000) as u32,
                payloads,
            });
        }
        let payloads = media.sounds.get(self.sound as usize % media.sounds.len())?;
        self.sound += 1;
        Some(Due {
            is_video: false,
            rtp_time: (sound.as_micros() * 48 / 1_000) as u32,
            payloads: Arc::clone(payloads),
        })
    }
}

const SOUND: Duration = Duration::from_millis(20);
const RTP_PAYLOAD_BYTES_MAX: usize = 1_160;

//! [`Phone`]: what the camera and the microphone of a phone give, encoded.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rtmp_gateway::rtmp::flv::{AudioTag, FileReader, VideoTag};
use rtmp_gateway::rtmp::message::type_id;

/// Which picture a phone sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// 360x640 at 15 pictures a second.
    Full,
    /// 180x320 at 15 pictures a second, for a weak uplink.
    Small,
    /// The waiting picture of an app in the background: 360x640, five a second.
    Away,
}

/// Three clips that may be repeated and changed at their beginning, and a tone.
#[derive(Clone)]
pub struct Phone {
    clips: Arc<[Clip; 3]>,
}

/// One of the clips, as FLV tag bodies.
pub struct Clip {
    /// The sequence header of the pictures.
    pub video_header: Bytes,
    /// Time from the beginning and body of each picture; the first is a key frame.
    pub video: Vec<(Duration, Bytes)>,
    /// The sequence header of the sound.
    pub audio_header: Bytes,
    /// Time from the beginning and body of each AAC frame.
    pub audio: Vec<(Duration, Bytes)>,
}

impl Phone {
    /// Reads the clips that are part of the program.
    pub fn new() -> Self {
        let files: [&'static [u8]; 3] = [
            include_bytes!("../../../tests/fixtures/flv/phone_360x640.flv"),
            include_bytes!("../../../tests/fixtures/flv/phone_180x320.flv"),
            include_bytes!("../../../tests/fixtures/flv/phone_away.flv"),
        ];
        Self {
            clips: Arc::new(files.map(|file| Clip::decode(Bytes::from_static(file)))),
        }
    }

    /// The clip of a size.
    pub fn clip(&self, size: Size) -> &Clip {
        let [full, small, away] = &*self.clips;
        match size {
            Size::Full => full,
            Size::Small => small,
            Size::Away => away,
        }
    }
}

impl Default for Phone {
    fn default() -> Self {
        Self::new()
    }
}

impl Clip {
    fn decode(file: Bytes) -> Self {
        let reader = FileReader::new(file).expect("the file is part of the program");
        let (mut video_header, mut audio_header) = (Bytes::new(), Bytes::new());
        let (mut video, mut audio) = (Vec::new(), Vec::new());
        for tag in reader.tags() {
            let tag = tag.expect("the file is whole");
            match tag.type_id {
                type_id::VIDEO => match VideoTag::decode(&tag.payload) {
                    Ok(VideoTag::SequenceHeader(_)) => video_header = tag.payload,
                    Ok(VideoTag::Coded { .. }) => video.push(tag.payload),
                    _ => {}
                },
                type_id::AUDIO => match AudioTag::decode(&tag.payload) {
                    Ok(AudioTag::SequenceHeader(_)) => audio_header = tag.payload,
                    Ok(AudioTag::Coded(_)) => audio.push(tag.payload),
                    _ => {}
                },
                _ => {}
            }
        }
        // Evenly spaced, whatever the file's milliseconds say: it repeats without a seam.
        let video_step = LENGTH / video.len() as u32;
        let spaced = |bodies: Vec<Bytes>, step: Duration| {
            let at = (0u32..).map(|index| step * index);
            at.zip(bodies).collect()
        };
        // The first frame is the encoder's run-in.
        let audio = audio.split_off(audio.len() - SOUNDS);
        Self {
            video_header,
            video: spaced(video, video_step),
            audio_header,
            audio: spaced(audio, LENGTH / SOUNDS as u32),
        }
    }
}

/// Of each clip.
pub const LENGTH: Duration = Duration::from_millis(3_200);
/// AAC frames of 1024 samples at 48 kHz in [`LENGTH`].
const SOUNDS: usize = 150;

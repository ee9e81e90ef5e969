//! `onMetaData`: what a stream says about itself before its media (FLV 10.1 Annex E.5).
//!
//! Players wait for tracks that are announced here (ffmpeg 5.1 shows nothing for 14 s when one
//! of them does not come), so [`StreamMetadata`] announces a track only when it is told of one.
//! What publishers say is a hint: values are missing, wrong or outdated, and the
//! bitstream wins.

use bytes::Bytes;

use super::amf0::{self, Value};

/// A stream's description in neutral values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StreamMetadata {
    /// The video track, if there is one.
    pub video: Option<VideoMetadata>,
    /// The audio track, if there is one.
    pub audio: Option<AudioMetadata>,
    /// The program that made the stream.
    pub encoder: Option<String>,
}

/// What is known of a video track.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct VideoMetadata {
    /// Pixels, 1 to 65 535.
    pub width: Option<u32>,
    /// Pixels, 1 to 65 535.
    pub height: Option<u32>,
    /// Pictures per second, above 0 and at most 1 000.
    pub frame_rate_hz: Option<f64>,
    /// Kilobits per second.
    pub bitrate_kbps: Option<f64>,
}

/// What is known of an audio track.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AudioMetadata {
    /// Samples per second, 1 to 192 000.
    pub sample_rate_hz: Option<u32>,
    /// 1 to 64.
    pub channels: Option<u8>,
    /// Kilobits per second.
    pub bitrate_kbps: Option<f64>,
}

impl StreamMetadata {
    /// Reads the object or associative array of an `onMetaData` message.
    ///
    /// Everything is optional; a value that makes no sense counts as missing. A track
    /// is announced when any of its fields is there.
    pub fn decode(values: &Value) -> Self {
        let number = |keys: &[&str]| keys.iter().find_map(|key| values.get(key)?.as_f64());
        let has = |keys: &[&str]| keys.iter().any(|key| values.get(key).is_some());
        let video = VideoMetadata {
            width: number(&["width"]).and_then(|n| whole(n, 65_535)),
            height: number(&["height"]).and_then(|n| whole(n, 65_535)),
            frame_rate_hz: number(&["framerate", "videoframerate"])
                .filter(|&rate| rate > 0.0 && rate <= FRAME_RATE_HZ_MAX),
            bitrate_kbps: number(&["videodatarate"]).filter(|&rate| is_bitrate(rate)),
        };
        let audio = AudioMetadata {
            sample_rate_hz: number(&["audiosamplerate"]).and_then(|n| whole(n, 192_000)),
            channels: number(&["audiochannels"])
                .and_then(|n| whole(n, 64))
                .and_then(|n| u8::try_from(n).ok())
                .or_else(|| {
                    let stereo = values.get("stereo")?.as_bool()?;
                    Some(if stereo { 2 } else { 1 })
                }),
            bitrate_kbps: number(&["audiodatarate"]).filter(|&rate| is_bitrate(rate)),
        };
        Self {
            video: (has(&["videocodecid"]) || video != VideoMetadata::default()).then_some(video),
            audio: (has(&["audiocodecid"]) || audio != AudioMetadata::default()).then_some(audio),
            encoder: values
                .get("encoder")
                .and_then(Value::as_str)
                .map(|text| text.chars().take(ENCODER_CHARS_MAX).collect()),
        }
    }

    /// The body of the data message for players: `onMetaData` and an associative array.
    pub fn encode(&self) -> Bytes {
        let mut body = Vec::with_capacity(256);
        amf0::encode(&Value::string("onMetaData"), &mut body);
        amf0::encode(&self.values(), &mut body);
        body.into()
    }

    /// The body of the data message for servers: the same behind `@setDataFrame`.
    pub fn encode_for_publishing(&self) -> Bytes {
        let mut body = Vec::with_capacity(256);
        amf0::encode(&Value::string("@setDataFrame"), &mut body);
        amf0::encode(&Value::string("onMetaData"), &mut body);
        amf0::encode(&self.values(), &mut body);
        body.into()
    }

    /// The associative array.
    pub fn values(&self) -> Value {
        let mut pairs = Vec::new();
        let mut put = |key: &str, value: Value| pairs.push((key.to_owned(), value));
        if let Some(video) = self.video {
            if let (Some(width), Some(height)) = (video.width, video.height) {
                put("width", Value::Number(f64::from(width)));
                put("height", Value::Number(f64::from(height)));
            }
            if let Some(rate) = video.frame_rate_hz {
                put("framerate", Value::Number(rate));
            }
            if let Some(rate) = video.bitrate_kbps {
                put("videodatarate", Value::Number(rate));
            }
            put("videocodecid", Value::Number(VIDEO_CODEC_ID_AVC));
        }
        if let Some(audio) = self.audio {
            if let Some(rate_hz) = audio.sample_rate_hz {
                put("audiosamplerate", Value::Number(f64::from(rate_hz)));
                put("audiosamplesize", Value::Number(16.0));
            }
            if let Some(channels) = audio.channels {
                put("audiochannels", Value::Number(f64::from(channels)));
                put("stereo", Value::Boolean(channels > 1));
            }
            if let Some(rate) = audio.bitrate_kbps {
                put("audiodatarate", Value::Number(rate));
            }
            put("audiocodecid", Value::Number(AUDIO_CODEC_ID_AAC));
        }
        if let Some(encoder) = &self.encoder {
            put("encoder", Value::string(encoder.as_str()));
        }
        Value::EcmaArray(pairs)
    }
}

/// A whole number from 1 to `max`; fractions are rounded.
fn whole(number: f64, max: u32) -> Option<u32> {
    let rounded = number.round();
    // Out of range and NaN fail the comparison, so the cast is exact.
    (rounded >= 1.0 && rounded <= f64::from(max)).then_some(rounded as u32)
}

fn is_bitrate(kbps: f64) -> bool {
    kbps > 0.0 && kbps <= BITRATE_KBPS_MAX
}

/// FLV CodecID of H.264 (E.4.3.1).
const VIDEO_CODEC_ID_AVC: f64 = 7.0;
/// FLV SoundFormat of AAC (E.4.2.1).
const AUDIO_CODEC_ID_AAC: f64 = 10.0;
/// A faster stream than this is a wrong value; it counts as missing.
const FRAME_RATE_HZ_MAX: f64 = 1_000.0;
/// A fatter stream than 1 Gbit/s is a wrong value; it counts as missing.
const BITRATE_KBPS_MAX: f64 = 1_000_000.0;
/// How much of the encoder's name is kept: it goes into logs and the API.
const ENCODER_CHARS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> StreamMetadata {
        StreamMetadata {
            video: Some(VideoMetadata {
                width: Some(360),
                height: Some(640),
                frame_rate_hz: Some(15.0),
                bitrate_kbps: Some(700.0),
            }),
            audio: Some(AudioMetadata {
                sample_rate_hz: Some(48_000),
                channels: Some(1),
                bitrate_kbps: None,
            }),
            encoder: Some("gateway".to_owned()),
        }
    }

    fn decode_body(body: &Bytes) -> Vec<Value> {
        amf0::decode_all(body, amf0::AmfLimits::default()).expect("AMF0")
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        for metadata in [
            full(),
            StreamMetadata {
                audio: None,
                ..full()
            },
            StreamMetadata {
                video: None,
                ..full()
            },
            StreamMetadata::default(),
        ] {
            let values = decode_body(&metadata.encode());
            assert_eq!(values.first().and_then(Value::as_str), Some("onMetaData"));
            assert_eq!(
                StreamMetadata::decode(values.last().expect("values")),
                metadata
            );
            let values = decode_body(&metadata.encode_for_publishing());
            assert_eq!(values.len(), 3);
        }
    }

    #[test]
    fn only_tracks_that_flow_are_announced() {
        let audio_only = StreamMetadata {
            video: None,
            ..full()
        };
        let values = audio_only.values();
        for key in ["width", "height", "framerate", "videocodecid"] {
            assert_eq!(values.get(key), None, "{key}");
        }
        assert_eq!(values.get("audiocodecid"), Some(&Value::Number(10.0)));
        assert_eq!(values.get("stereo"), Some(&Value::Boolean(false)));
        let video_only = StreamMetadata {
            audio: None,
            ..full()
        };
        assert_eq!(video_only.values().get("audiocodecid"), None);
        assert_eq!(
            video_only.values().get("videocodecid"),
            Some(&Value::Number(7.0))
        );
    }

    #[test]
    fn a_codec_id_alone_announces_its_track() {
        let values = Value::object([("videocodecid", Value::string("avc1"))]);
        let metadata = StreamMetadata::decode(&values);
        assert_eq!(metadata.video, Some(VideoMetadata::default()));
        assert_eq!(metadata.audio, None);
    }

    #[test]
    fn nonsense_counts_as_missing() {
        let values = Value::object([
            ("width", Value::Number(f64::NAN)),
            ("height", Value::Number(-1.0)),
            ("framerate", Value::Number(f64::INFINITY)),
            ("videodatarate", Value::string("much")),
            ("audiosamplerate", Value::Number(1e300)),
            ("audiochannels", Value::Number(0.0)),
            ("stereo", Value::Boolean(true)),
            ("encoder", Value::string("x".repeat(1_000))),
        ]);
        let metadata = StreamMetadata::decode(&values);
        assert_eq!(metadata.video, None);
        let audio = metadata.audio.expect("stereo announces sound");
        assert_eq!((audio.sample_rate_hz, audio.channels), (None, Some(2)));
        assert_eq!(metadata.encoder.map(|text| text.len()), Some(64));
        for value in [Value::Null, Value::Number(1.0), Value::StrictArray(vec![])] {
            assert_eq!(StreamMetadata::decode(&value), StreamMetadata::default());
        }
    }
}

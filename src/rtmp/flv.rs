//! What RTMP video and audio messages carry: FLV tag bodies.
//!
//! Owns the decoding of classic bodies (FLV 10.1 Annex E.4.2 and E.4.3) and of
//! Enhanced RTMP v1 and v2 bodies with the FourCCs `avc1` and `mp4a`, the headers
//! of the classic bodies that the gateway sends, and the walk over FLV tags as they
//! stand in files and in aggregate messages.
//!
//! Timestamps are not read here: a tag body knows its composition time only.

use std::fmt;

use bytes::Bytes;

use crate::wire::{Reader, Truncated};

pub use tags::{FileReader, Tag, Tags};

mod tags;

#[cfg(test)]
mod tests;

/// The body of a video message (type 8) as far as the gateway cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VideoTag {
    /// An AVCDecoderConfigurationRecord (ISO/IEC 14496-15 section 5.3.3).
    SequenceHeader(Bytes),
    /// One access unit in AVCC form.
    Coded {
        /// Whether the publisher calls it a key frame. The bitstream knows better.
        key: bool,
        /// PTS minus DTS in milliseconds, -8 388 608 to 8 388 607. Negative values are real.
        composition_time_ms: i32,
        /// Length-prefixed NAL units, never empty.
        payload: Bytes,
    },
    /// The publisher's video ended; it has key frame bits but no picture.
    EndOfSequence,
    /// Nothing to decode; the text says what it was.
    Ignored(&'static str),
}

/// The body of an audio message (type 9) as far as the gateway cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AudioTag {
    /// An AudioSpecificConfig (ISO/IEC 14496-3 section 1.6.2.1).
    SequenceHeader(Bytes),
    /// One raw AAC access unit, never empty.
    Coded(Bytes),
    /// An empty message: the publisher is silent for now (Enhanced RTMP v2,
    /// "Enhanced Audio").
    Silence,
    /// Nothing to decode; the text says what it was.
    Ignored(&'static str),
}

/// Why a tag body or an FLV file was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlvError {
    /// The body ended inside its header.
    Truncated,
    /// A codec that the gateway does not carry.
    UnsupportedCodec {
        /// The codec's usual name, for logs and for the publisher.
        name: &'static str,
    },
    /// The file does not begin as FLV 10.1 Annex E.2 says.
    NotAnFlvFile,
}

impl FlvError {
    /// A short name for counters.
    pub const fn reason(&self) -> &'static str {
        match self {
            FlvError::Truncated => "flv_truncated",
            FlvError::UnsupportedCodec { .. } => "flv_unsupported_codec",
            FlvError::NotAnFlvFile => "flv_not_a_file",
        }
    }
}

impl fmt::Display for FlvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FlvError::Truncated => f.write_str("tag body ends inside its header"),
            FlvError::UnsupportedCodec { name } => {
                write!(f, "{name} is not supported, only H.264 and AAC are")
            }
            FlvError::NotAnFlvFile => f.write_str("not an FLV file"),
        }
    }
}

impl std::error::Error for FlvError {}

impl From<Truncated> for FlvError {
    fn from(_: Truncated) -> Self {
        FlvError::Truncated
    }
}

impl VideoTag {
    /// Decodes the payload of a video message; what follows the header is shared, not copied.
    ///
    /// # Errors
    /// [`FlvError::Truncated`] for a header cut short and [`FlvError::UnsupportedCodec`] for
    /// everything but H.264. Neither harms the tags that follow.
    pub fn decode(body: &Bytes) -> Result<Self, FlvError> {
        let mut reader = Reader::new(body);
        let Ok(first) = reader.u8() else {
            // SRS issue 3767: empty messages are seen in the field.
            return Ok(VideoTag::Ignored("empty message"));
        };
        if first & 0x80 != 0 {
            return Self::decode_enhanced(body, reader, first);
        }
        let frame_type = first >> 4;
        if frame_type == FRAME_TYPE_COMMAND {
            return Ok(VideoTag::Ignored("command frame"));
        }
        let codec_id = first & 0x0f;
        if codec_id != CODEC_ID_AVC {
            return Err(FlvError::UnsupportedCodec {
                name: classic_video_codec_name(codec_id),
            });
        }
        // E.4.3.2 AVCVIDEOPACKET.
        match reader.u8()? {
            0 => {
                reader.i24()?;
                Ok(Self::sequence_header(rest_of(body, &reader)))
            }
            1 => {
                let composition_time_ms = reader.i24()?;
                Ok(Self::coded(
                    frame_type,
                    composition_time_ms,
                    rest_of(body, &reader),
                ))
            }
            // ffmpeg 5.1 ends with `17 02 00 00 00`.
            2 => Ok(VideoTag::EndOfSequence),
            _ => Ok(VideoTag::Ignored("unknown AVCPacketType")),
        }
    }

    /// Enhanced RTMP v2, "Enhanced Video", ExVideoTagHeader and ExVideoTagBody.
    fn decode_enhanced(body: &Bytes, mut reader: Reader<'_>, first: u8) -> Result<Self, FlvError> {
        let frame_type = (first >> 4) & 0x07;
        let packet_type = skip_mod_ex(&mut reader, first & 0x0f)?;
        if frame_type == FRAME_TYPE_COMMAND && packet_type != VIDEO_PACKET_METADATA {
            return Ok(VideoTag::Ignored("command frame"));
        }
        let (packet_type, four_cc, content) = if packet_type == VIDEO_PACKET_MULTITRACK {
            match first_track(body, &mut reader)? {
                Some(track) => (track.packet_type, track.four_cc, track.content),
                None => return Ok(VideoTag::Ignored("track other than 0")),
            }
        } else {
            let four_cc = reader.array()?;
            (packet_type, four_cc, rest_of(body, &reader))
        };
        if packet_type == VIDEO_PACKET_METADATA {
            return Ok(VideoTag::Ignored("video metadata"));
        }
        if &four_cc != b"avc1" {
            return Err(FlvError::UnsupportedCodec {
                name: four_cc_name(four_cc),
            });
        }
        match packet_type {
            0 => Ok(Self::sequence_header(content)),
            1 => {
                let composition_time_ms = Reader::new(&content).i24()?;
                Ok(Self::coded(
                    frame_type,
                    composition_time_ms,
                    content.slice(3..),
                ))
            }
            2 => Ok(VideoTag::EndOfSequence),
            3 => Ok(Self::coded(frame_type, 0, content)),
            _ => Ok(VideoTag::Ignored("unknown VideoPacketType")),
        }
    }

    fn sequence_header(record: Bytes) -> Self {
        if record.is_empty() {
            VideoTag::Ignored("empty decoder configuration record")
        } else {
            VideoTag::SequenceHeader(record)
        }
    }

    fn coded(frame_type: u8, composition_time_ms: i32, payload: Bytes) -> Self {
        if payload.is_empty() {
            return VideoTag::Ignored("picture without NAL units");
        }
        VideoTag::Coded {
            // 4 is the "generated key frame" of servers.
            key: matches!(frame_type, 1 | 4),
            composition_time_ms,
            payload,
        }
    }
}

impl AudioTag {
    /// Decodes the payload of an audio message; what follows the header is shared, not copied.
    ///
    /// The rate, size and channel bits are not looked at: for AAC they are fixed and wrong
    /// (E.4.2.1), the AudioSpecificConfig is right.
    ///
    /// # Errors
    /// [`FlvError::Truncated`] for a header cut short and [`FlvError::UnsupportedCodec`] for
    /// everything but AAC. Neither harms the tags that follow.
    pub fn decode(body: &Bytes) -> Result<Self, FlvError> {
        let mut reader = Reader::new(body);
        let Ok(first) = reader.u8() else {
            return Ok(AudioTag::Silence);
        };
        let sound_format = first >> 4;
        match sound_format {
            SOUND_FORMAT_ENHANCED => return Self::decode_enhanced(body, reader, first),
            SOUND_FORMAT_AAC => {}
            other => {
                return Err(FlvError::UnsupportedCodec {
                    name: classic_audio_codec_name(other),
                });
            }
        }
        // E.4.2.2 AACAUDIODATA.
        match reader.u8()? {
            0 => Ok(Self::sequence_header(rest_of(body, &reader))),
            1 => Ok(Self::coded(rest_of(body, &reader))),
            _ => Ok(AudioTag::Ignored("unknown AACPacketType")),
        }
    }

    /// Enhanced RTMP v2, "Enhanced Audio", ExAudioTagHeader and ExAudioTagBody.
    fn decode_enhanced(body: &Bytes, mut reader: Reader<'_>, first: u8) -> Result<Self, FlvError> {
        let packet_type = skip_mod_ex(&mut reader, first & 0x0f)?;
        let (packet_type, four_cc, content) = if packet_type == AUDIO_PACKET_MULTITRACK {
            match first_track(body, &mut reader)? {
                Some(track) => (track.packet_type, track.four_cc, track.content),
                None => return Ok(AudioTag::Ignored("track other than 0")),
            }
        } else {
            let four_cc = reader.array()?;
            (packet_type, four_cc, rest_of(body, &reader))
        };
        if &four_cc != b"mp4a" {
            return Err(FlvError::UnsupportedCodec {
                name: four_cc_name(four_cc),
            });
        }
        match packet_type {
            0 => Ok(Self::sequence_header(content)),
            1 => Ok(Self::coded(content)),
            2 => Ok(AudioTag::Ignored("end of sequence")),
            4 => Ok(AudioTag::Ignored("multichannel configuration")),
            _ => Ok(AudioTag::Ignored("unknown AudioPacketType")),
        }
    }

    fn sequence_header(config: Bytes) -> Self {
        if config.is_empty() {
            AudioTag::Ignored("empty AudioSpecificConfig")
        } else {
            AudioTag::SequenceHeader(config)
        }
    }

    fn coded(frame: Bytes) -> Self {
        if frame.is_empty() {
            AudioTag::Ignored("empty AAC frame")
        } else {
            AudioTag::Coded(frame)
        }
    }
}

/// The five bytes before the NAL units of an access unit.
///
/// `composition_time_ms` is cut to what 24 bits with sign hold.
pub const fn avc_header(key: bool, composition_time_ms: i32) -> [u8; 5] {
    let clamped = if composition_time_ms < -SI24_MAX - 1 {
        -SI24_MAX - 1
    } else if composition_time_ms > SI24_MAX {
        SI24_MAX
    } else {
        composition_time_ms
    };
    let [_, high, middle, low] = clamped.to_be_bytes();
    [if key { 0x17 } else { 0x27 }, 1, high, middle, low]
}

/// The five bytes before an AVCDecoderConfigurationRecord.
pub const AVC_SEQUENCE_HEADER: [u8; 5] = [0x17, 0, 0, 0, 0];

/// The whole body that ends a publisher's video, as ffmpeg sends it.
pub const AVC_END_OF_SEQUENCE: [u8; 5] = [0x17, 2, 0, 0, 0];

/// The two bytes before an AudioSpecificConfig.
pub const AAC_SEQUENCE_HEADER: [u8; 2] = [0xaf, 0];

/// The two bytes before a raw AAC access unit.
pub const AAC_HEADER: [u8; 2] = [0xaf, 1];

/// What a multitrack body says about track 0.
struct Track {
    packet_type: u8,
    four_cc: [u8; 4],
    content: Bytes,
}

/// Skips the ModEx prefixes and answers the packet type behind them.
///
/// Each names how long it is, so those of unknown meaning are skipped as well. The one that
/// is known adds nanoseconds to the timestamp, which a millisecond bridge has no use for.
fn skip_mod_ex(reader: &mut Reader<'_>, mut packet_type: u8) -> Result<u8, FlvError> {
    while packet_type == PACKET_TYPE_MOD_EX {
        let mut size = usize::from(reader.u8()?) + 1;
        if size == 256 {
            size = usize::from(reader.u16()?) + 1;
        }
        reader.take(size)?;
        packet_type = reader.u8()? & 0x0f;
    }
    Ok(packet_type)
}

/// Finds track 0 in a multitrack body, which begins at the reader.
///
/// OBS 31 sends its further renditions as `OneTrack` packets with their own track
/// numbers beside an unwrapped track 0, so the number decides in every form.
fn first_track(body: &Bytes, reader: &mut Reader<'_>) -> Result<Option<Track>, FlvError> {
    let types = reader.u8()?;
    let (multitrack_type, packet_type) = (types >> 4, types & 0x0f);
    let common = if multitrack_type == MULTITRACK_MANY_CODECS {
        None
    } else {
        Some(reader.array()?)
    };
    while !reader.is_empty() {
        let four_cc = match common {
            Some(four_cc) => four_cc,
            None => reader.array()?,
        };
        let track_id = reader.u8()?;
        let size = if multitrack_type == MULTITRACK_ONE {
            reader.len()
        } else {
            usize::try_from(reader.u24()?).map_err(|_| FlvError::Truncated)?
        };
        let start = body.len() - reader.len();
        reader.take(size)?;
        if track_id == 0 {
            return Ok(Some(Track {
                packet_type,
                four_cc,
                content: body.slice(start..start + size),
            }));
        }
    }
    Ok(None)
}

/// What `reader`, which reads the end of `body`, has not read yet.
fn rest_of(body: &Bytes, reader: &Reader<'_>) -> Bytes {
    body.slice(body.len() - reader.len()..)
}

const fn classic_video_codec_name(codec_id: u8) -> &'static str {
    match codec_id {
        1 => "JPEG",
        2 => "Sorenson H.263",
        3 => "Screen video",
        4 => "VP6",
        5 => "VP6 with alpha",
        6 => "Screen video 2",
        // Not in the specification; used by Chinese CDNs and their encoders.
        12 => "HEVC",
        13 => "AV1",
        _ => "unknown video codec",
    }
}

const fn classic_audio_codec_name(sound_format: u8) -> &'static str {
    match sound_format {
        0 | 3 => "Linear PCM",
        1 => "ADPCM",
        2 | 14 => "MP3",
        4..=6 => "Nellymoser",
        7 => "G.711 A-law",
        8 => "G.711 mu-law",
        11 => "Speex",
        // Not in the specification; used by some WebRTC gateways.
        13 => "Opus",
        _ => "unknown audio codec",
    }
}

const fn four_cc_name(four_cc: [u8; 4]) -> &'static str {
    match &four_cc {
        b"avc1" => "H264",
        b"hvc1" | b"hev1" => "HEVC",
        b"vvc1" => "VVC",
        b"av01" => "AV1",
        b"vp08" => "VP8",
        b"vp09" => "VP9",
        b"mp4a" => "AAC",
        b"Opus" => "Opus",
        b".mp3" => "MP3",
        b"ac-3" => "AC-3",
        b"ec-3" => "E-AC-3",
        b"fLaC" => "FLAC",
        _ => "unknown FourCC",
    }
}

/// E.4.3.1 CodecID of H.264.
const CODEC_ID_AVC: u8 = 7;
/// E.4.3.1 FrameType of a message to the player instead of a picture.
const FRAME_TYPE_COMMAND: u8 = 5;
/// E.4.2.1 SoundFormat of AAC.
const SOUND_FORMAT_AAC: u8 = 10;
/// Enhanced RTMP v2: SoundFormat 9 means that an ExAudioTagHeader follows.
const SOUND_FORMAT_ENHANCED: u8 = 9;
/// VideoPacketType of HDR metadata.
const VIDEO_PACKET_METADATA: u8 = 4;
/// VideoPacketType that opens a multitrack body.
const VIDEO_PACKET_MULTITRACK: u8 = 6;
/// AudioPacketType that opens a multitrack body.
const AUDIO_PACKET_MULTITRACK: u8 = 5;
/// VideoPacketType and AudioPacketType of a prefix.
const PACKET_TYPE_MOD_EX: u8 = 7;
/// AvMultitrackType of a body with one track and no track size.
const MULTITRACK_ONE: u8 = 0;
/// AvMultitrackType of a body whose tracks each name their codec.
const MULTITRACK_MANY_CODECS: u8 = 2;
/// The largest composition time (SI24).
const SI24_MAX: i32 = 0x7f_ffff;

//! AAC: [`AudioSpecificConfig`] (ISO/IEC 14496-3 section 1.6.2.1), which alone tells how the frames
//! of a track are to be decoded, and frames of silence.
//!
//! The rate, size and channel bits of an FLV audio tag say nothing for AAC (FLV 10.1 section
//! E.4.2.1); nothing here asks for them.

use std::fmt;

use bytes::Bytes;

use super::bits::BitReader;
use crate::wire::Truncated;

/// Why AAC bytes were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AacError {
    /// The bytes ended before the value did.
    Truncated,
    /// audioObjectType 0, which is none.
    NoObjectType,
    /// A samplingFrequencyIndex that is reserved: 13 or 14.
    ReservedRate(u8),
    /// A sampling rate that AAC has not, in Hz.
    Rate(u32),
    /// A channelConfiguration that is reserved.
    ReservedChannels(u8),
    /// A program_config_element without channels.
    NoChannels,
    /// A number of channels that an encoder of the gateway does not make.
    Channels(u8),
    /// More bytes than [`CONFIG_BYTES_MAX`].
    TooLarge(usize),
}

impl AacError {
    /// A short name for counters.
    pub const fn reason(&self) -> &'static str {
        match self {
            AacError::Truncated => "aac_truncated",
            AacError::NoObjectType => "aac_no_object_type",
            AacError::ReservedRate(_) | AacError::Rate(_) => "aac_rate",
            AacError::ReservedChannels(_) | AacError::NoChannels | AacError::Channels(_) => {
                "aac_channels"
            }
            AacError::TooLarge(_) => "aac_config_too_large",
        }
    }
}

impl fmt::Display for AacError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AacError::Truncated => f.write_str("AudioSpecificConfig ends early"),
            AacError::NoObjectType => f.write_str("AudioSpecificConfig of object type 0"),
            AacError::ReservedRate(index) => {
                write!(f, "AudioSpecificConfig with reserved rate index {index}")
            }
            AacError::Rate(rate_hz) => write!(f, "AAC at {rate_hz} Hz"),
            AacError::ReservedChannels(configuration) => {
                write!(f, "AAC with reserved channel configuration {configuration}")
            }
            AacError::NoChannels => f.write_str("AAC program without channels"),
            AacError::Channels(channels) => write!(f, "AAC with {channels} channels"),
            AacError::TooLarge(len) => write!(f, "AudioSpecificConfig of {len} bytes"),
        }
    }
}

impl std::error::Error for AacError {}

impl From<Truncated> for AacError {
    fn from(_: Truncated) -> Self {
        AacError::Truncated
    }
}

/// How the AAC frames of a track are to be decoded.
///
/// Keeps the bytes it was read from: they go on to players as they came. Two are equal when these
/// bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudioSpecificConfig {
    bytes: Bytes,
    object_type: u8,
    core_object_type: u8,
    sample_rate_hz: u32,
    extension_rate_hz: Option<u32>,
    channels: u8,
    frame_samples: u16,
    sbr: Sbr,
    parametric_stereo: bool,
}

/// What the configuration says about spectral band replication, which doubles rate and frame length
/// of what is heard (section 1.6.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sbr {
    /// Said to be there, by object type 5 or 29 or by the backward-compatible extension.
    Present,
    /// Said not to be there.
    Absent,
    /// Not said: it may be in the frames all the same. Only a decoder finds out.
    Implicit,
}

impl AudioSpecificConfig {
    /// Parses an AudioSpecificConfig. Bytes behind it are kept and not read.
    ///
    /// An object type that the gateway cannot decode is no error, see
    /// [`AudioSpecificConfig::is_supported`]: RTMP players may get it all the same.
    pub fn decode(bytes: &[u8]) -> Result<Self, AacError> {
        if bytes.len() > CONFIG_BYTES_MAX {
            return Err(AacError::TooLarge(bytes.len()));
        }
        let mut reader = BitReader::new(bytes);
        let object_type = read_object_type(&mut reader)?;
        let mut config = Self {
            bytes: Bytes::copy_from_slice(bytes),
            object_type,
            core_object_type: object_type,
            sample_rate_hz: read_rate(&mut reader)?,
            extension_rate_hz: None,
            channels: 0,
            frame_samples: 1024,
            sbr: Sbr::Implicit,
            parametric_stereo: false,
        };
        let channel_configuration = reader.bits(4)? as u8;
        if matches!(
            object_type,
            object_type::SBR | object_type::PARAMETRIC_STEREO
        ) {
            config.sbr = Sbr::Present;
            config.parametric_stereo = object_type == object_type::PARAMETRIC_STEREO;
            config.extension_rate_hz = Some(read_rate(&mut reader)?);
            config.core_object_type = read_object_type(&mut reader)?;
            if config.core_object_type == object_type::ER_BSAC {
                reader.bits(4)?; // extensionChannelConfiguration
            }
        }
        if has_ga_specific_config(config.core_object_type) {
            config.read_ga_specific(&mut reader, channel_configuration)?;
            if !has_ep_config(config.core_object_type) && config.sbr != Sbr::Present {
                // A cut extension is as good as none.
                let _ = config.read_sync_extension(&mut reader);
            }
        } else {
            // The other object types describe themselves otherwise; none is supported, and all have
            // these channels.
            config.channels = channels_of(channel_configuration)?;
        }
        Ok(config)
    }

    /// A configuration of AAC-LC without SBR, two bytes for the 13 standard rates.
    ///
    /// # Errors
    /// For a rate above 96 kHz or below 7350 Hz, and for channels other than 1 and 2.
    pub fn lc(rate_hz: u32, channels: u8) -> Result<Self, AacError> {
        if !(RATE_HZ_MIN..=RATE_HZ_MAX).contains(&rate_hz) {
            return Err(AacError::Rate(rate_hz));
        }
        if !(1..=2).contains(&channels) {
            return Err(AacError::Channels(channels));
        }
        // audioObjectType 2 in 5 bits, the rate's index in 4, channelConfiguration in 4, then the
        // three flags of GASpecificConfig, all 0.
        let index = RATES_HZ.iter().position(|rate| *rate == rate_hz);
        let (bits, count) = match index {
            // An index below 13.
            Some(index) => (
                0b00010 << 11 | (index as u64) << 7 | u64::from(channels) << 3,
                16,
            ),
            None => {
                let head = 0b00010 << 4 | EXPLICIT_RATE;
                let tail = u64::from(rate_hz) << 7 | u64::from(channels) << 3;
                (head << 31 | tail, 40)
            }
        };
        let bytes = bits.to_be_bytes();
        let bytes = bytes.get(8 - count / 8..).unwrap_or_default();
        Self::decode(bytes)
    }

    /// The configuration as it came.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// audioObjectType as announced: 2 for LC, 5 for HE-AAC, 29 for HE-AAC v2.
    pub const fn object_type(&self) -> u8 {
        self.object_type
    }

    /// audioObjectType of the core coder: 2 also where [`AudioSpecificConfig::object_type`] is 5 or
    /// 29.
    pub const fn core_object_type(&self) -> u8 {
        self.core_object_type
    }

    /// The rate of the core coder, in which [`AudioSpecificConfig::frame_samples`] counts, in Hz.
    pub const fn sample_rate_hz(&self) -> u32 {
        self.sample_rate_hz
    }

    /// The rate of what is heard, in Hz, as far as the configuration tells: with [`Sbr::Implicit`]
    /// it may be the double.
    pub const fn output_sample_rate_hz(&self) -> u32 {
        match (self.sbr, self.extension_rate_hz) {
            (Sbr::Present, Some(rate_hz)) => rate_hz,
            _ => self.sample_rate_hz,
        }
    }

    /// Channels of the core coder, low-frequency channel included; at least 1.
    pub const fn channels(&self) -> u8 {
        self.channels
    }

    /// Channels of what is heard: 2 where parametric stereo makes them out of 1.
    pub const fn output_channels(&self) -> u8 {
        if self.parametric_stereo && self.channels == 1 {
            2
        } else {
            self.channels
        }
    }

    /// Samples of one frame at the rate of the core coder: 1024 or 960.
    pub const fn frame_samples(&self) -> u16 {
        self.frame_samples
    }

    /// What is said about spectral band replication.
    pub const fn sbr(&self) -> Sbr {
        self.sbr
    }

    /// Whether parametric stereo is announced.
    pub const fn parametric_stereo(&self) -> bool {
        self.parametric_stereo
    }

    /// Whether the gateway can decode it: LC, HE-AAC and HE-AAC v2 (object types 2, 5, 29) with
    /// frames of 1024 samples, one to eight channels and a rate of 7350 Hz to 96 kHz. Main, SSR, LTP,
    /// the scalable and the low-delay types are not.
    pub const fn is_supported(&self) -> bool {
        self.core_object_type == object_type::LC
            && self.frame_samples == 1024
            && matches!(self.channels, 1..=8)
            && self.sample_rate_hz >= RATE_HZ_MIN
            && self.output_sample_rate_hz() <= RATE_HZ_MAX
    }

    /// The name of what is announced.
    pub const fn profile_name(&self) -> &'static str {
        match (self.object_type, self.sbr, self.parametric_stereo) {
            (object_type::LC, Sbr::Present, true) => "HE-AAC v2",
            (object_type::LC, Sbr::Present, false) => "HE-AAC",
            (1, ..) => "AAC Main",
            (object_type::LC, ..) => "AAC-LC",
            (3, ..) => "AAC SSR",
            (4, ..) => "AAC LTP",
            (object_type::SBR, ..) => "HE-AAC",
            (6, ..) => "AAC Scalable",
            (17, ..) => "ER AAC LC",
            (19, ..) => "ER AAC LTP",
            (23, ..) => "ER AAC LD",
            (object_type::PARAMETRIC_STEREO, ..) => "HE-AAC v2",
            (39, ..) => "ER AAC ELD",
            (42, ..) => "USAC",
            _ => "unknown AAC",
        }
    }

    /// GASpecificConfig(), section 4.4.1.
    fn read_ga_specific(
        &mut self,
        reader: &mut BitReader<'_>,
        channel_configuration: u8,
    ) -> Result<(), AacError> {
        let short_frames = reader.bit()?;
        self.frame_samples = if short_frames { 960 } else { 1024 };
        if reader.bit()? {
            reader.skip(14)?; // coreCoderDelay
        }
        let extension = reader.bit()?;
        self.channels = if channel_configuration == 0 {
            read_program_channels(reader)?
        } else {
            channels_of(channel_configuration)?
        };
        if matches!(self.core_object_type, 6 | 20) {
            reader.skip(3)?; // layerNr
        }
        if extension {
            match self.core_object_type {
                object_type::ER_BSAC => reader.skip(16)?, // numOfSubFrame, layer_length
                17 | 19 | 20 | 23 => reader.skip(3)?,     // the resilience flags
                _ => {}
            }
            reader.bit()?; // extensionFlag3
        }
        Ok(())
    }

    /// The backward-compatible extension at the end of the configuration, section 1.6.2.1: decoders
    /// that do not know it do not read it. ffmpeg 5.1.9 appends it to LC to say that there is no
    /// SBR: `12 10 56 e5 00`.
    fn read_sync_extension(&mut self, reader: &mut BitReader<'_>) -> Result<(), AacError> {
        if reader.bits_remaining() < 16 || reader.bits(11)? != SYNC_EXTENSION_SBR {
            return Ok(());
        }
        if read_object_type(reader)? != object_type::SBR {
            return Ok(());
        }
        if !reader.bit()? {
            self.sbr = Sbr::Absent;
            return Ok(());
        }
        self.extension_rate_hz = Some(read_rate(reader)?);
        self.sbr = Sbr::Present;
        if reader.bits_remaining() >= 12 && reader.bits(11)? == SYNC_EXTENSION_PS {
            self.parametric_stereo = reader.bit()?;
        }
        Ok(())
    }
}

/// A raw_data_block of AAC-LC that decodes as silence, for any sampling rate and frames of 1024
/// samples.
///
/// One single_channel_element or channel_pair_element with max_sfb 0, that is, without a spectral
/// line; anything but 1 channel is answered with the block for 2.
pub fn silent_frame(channels: u8) -> Bytes {
    Bytes::from_static(match channels {
        1 => &SILENT_MONO,
        _ => &SILENT_STEREO,
    })
}

fn read_object_type(reader: &mut BitReader<'_>) -> Result<u8, AacError> {
    // At most 31, or 32 + 63.
    match reader.bits(5)? as u8 {
        0 => Err(AacError::NoObjectType),
        OBJECT_TYPE_ESCAPE => Ok(32 + reader.bits(6)? as u8),
        value => Ok(value),
    }
}

fn read_rate(reader: &mut BitReader<'_>) -> Result<u32, AacError> {
    let index = reader.bits(4)?;
    if u64::from(index) == EXPLICIT_RATE {
        let rate_hz = reader.bits(24)?;
        return if (1..=2 * RATE_HZ_MAX).contains(&rate_hz) {
            Ok(rate_hz)
        } else {
            Err(AacError::Rate(rate_hz))
        };
    }
    // Four bits: the index fits both types.
    RATES_HZ
        .get(index as usize)
        .copied()
        .ok_or(AacError::ReservedRate(index as u8))
}

/// Channels of a channelConfiguration, table 1.19.
fn channels_of(configuration: u8) -> Result<u8, AacError> {
    match configuration {
        1..=6 => Ok(configuration),
        7 | 12 | 14 => Ok(8),
        11 => Ok(7),
        other => Err(AacError::ReservedChannels(other)),
    }
}

/// The channels of a program_config_element(), section 4.4.1.1, read to its end.
fn read_program_channels(reader: &mut BitReader<'_>) -> Result<u8, AacError> {
    reader.skip(4 + 2 + 4)?; // element_instance_tag, object_type, sampling_frequency_index
    let front = reader.bits(4)?;
    let side = reader.bits(4)?;
    let back = reader.bits(4)?;
    let low_frequency = reader.bits(2)?;
    let associated_data = reader.bits(3)? as usize;
    let coupling = reader.bits(4)? as usize;
    // mono_mixdown, stereo_mixdown, matrix_mixdown with what each brings.
    for bits in [4, 4, 3] {
        if reader.bit()? {
            reader.skip(bits)?;
        }
    }
    let mut channels = low_frequency;
    for _ in 0..front + side + back {
        let is_pair = reader.bit()?;
        reader.skip(4)?; // element_tag_select
        channels += if is_pair { 2 } else { 1 };
    }
    reader.skip(4 * low_frequency as usize + 4 * associated_data + 5 * coupling)?;
    // byte_alignment() counts from the begin of the AudioSpecificConfig.
    reader.skip((8 - reader.position() % 8) % 8)?;
    let comment = reader.bits(8)? as usize;
    reader.skip(8 * comment)?;
    // At most 2 * 45 + 3.
    match u8::try_from(channels) {
        Ok(channels @ 1..) => Ok(channels),
        _ => Err(AacError::NoChannels),
    }
}

/// Whether GASpecificConfig follows, section 1.6.2.1.
const fn has_ga_specific_config(object_type: u8) -> bool {
    matches!(
        object_type,
        1 | 2 | 3 | 4 | 6 | 7 | 17 | 19 | 20 | 21 | 22 | 23
    )
}

/// Whether epConfig follows, which stands before the backward-compatible extension.
const fn has_ep_config(object_type: u8) -> bool {
    matches!(object_type, 17 | 19..=27 | 39)
}

/// audioObjectType values, table 1.17.
mod object_type {
    pub(super) const LC: u8 = 2;
    pub(super) const SBR: u8 = 5;
    pub(super) const ER_BSAC: u8 = 22;
    pub(super) const PARAMETRIC_STEREO: u8 = 29;
}

/// The rates of samplingFrequencyIndex 0 to 12, table 1.18; 13 and 14 are reserved.
const RATES_HZ: [u32; 13] = [
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000,
    7_350,
];

/// samplingFrequencyIndex that is followed by the rate in 24 bits.
const EXPLICIT_RATE: u64 = 15;

/// audioObjectType that is followed by six more bits.
const OBJECT_TYPE_ESCAPE: u8 = 31;

/// Lowest and highest rate of AAC that the gateway decodes and makes; one outside is not supported.
const RATE_HZ_MIN: u32 = 7_350;
const RATE_HZ_MAX: u32 = 96_000;

/// syncExtensionType that announces SBR, and the one that announces parametric stereo.
const SYNC_EXTENSION_SBR: u32 = 0x2b7;
const SYNC_EXTENSION_PS: u32 = 0x548;

/// Longest AudioSpecificConfig in bytes; real ones have 2 to 7, with a program_config_element up to
/// some 300. A longer one is an error.
pub const CONFIG_BYTES_MAX: usize = 512;

/// single_channel_element: tag 0, global_gain 100, long window, max_sfb 0, no tools; then END.
const SILENT_MONO: [u8; 6] = [0x00, 0xc8, 0x00, 0x80, 0x23, 0x80];

/// channel_pair_element with common_window and both channels as above; then END.
const SILENT_STEREO: [u8; 9] = [0x21, 0x00, 0x49, 0x90, 0x02, 0x19, 0x00, 0x23, 0x80];

#[cfg(test)]
mod tests;

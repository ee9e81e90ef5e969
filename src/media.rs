//! The words every protocol of the gateway converts to and from: [`MediaTime`],
//! [`Frame`], [`TrackKind`] and the codec configurations of a track.
//!
//! No protocol knows another; each knows this module. Nothing here reads a clock
//! or parses a wire format.

use std::fmt;
use std::ops::{Add, AddAssign, Neg, Sub};
use std::time::Duration;

use bytes::Bytes;

use crate::codec::aac::AudioSpecificConfig;
use crate::codec::h264::AvcConfig;

/// A point or a span on a stream's media clock, in ticks of 1/70 560 000 s.
///
/// The unit is the smallest that divides by every rate the gateway meets (1 kHz
/// of RTMP, 90 kHz of RTP video, every audio rate from 8 to 48 kHz), so that
/// converting to any of them and back loses nothing. 64 bits hold 4 100 years: the
/// clock never wraps.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MediaTime(i64);

impl MediaTime {
    /// The origin of a stream's clock, and the empty span.
    pub const ZERO: Self = Self(0);

    /// Ticks in one second.
    pub const TICKS_PER_SECOND: i64 = 70_560_000;

    /// A time from raw ticks.
    pub const fn from_ticks(ticks: i64) -> Self {
        Self(ticks)
    }

    /// The raw ticks.
    pub const fn ticks(self) -> i64 {
        self.0
    }

    /// A time from milliseconds, the unit of RTMP timestamps.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(Self::TICKS_PER_SECOND / 1_000))
    }

    /// Whole milliseconds, rounded down.
    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(Self::TICKS_PER_SECOND / 1_000)
    }

    /// Milliseconds rounded to the nearest, as an RTMP timestamp wants them.
    pub const fn as_millis_rounded(self) -> i64 {
        const MILLI: i64 = MediaTime::TICKS_PER_SECOND / 1_000;
        self.0.saturating_add(MILLI / 2).div_euclid(MILLI)
    }

    /// A time from `units` of a clock of `rate_hz`.
    ///
    /// Exact for 1, 8, 16, 24, 32, 48 and 90 kHz and for 11.025, 22.05 and 44.1 kHz.
    pub const fn from_units(units: i64, rate_hz: u32) -> Self {
        let ticks = units as i128 * Self::TICKS_PER_SECOND as i128 / rate_hz as i128;
        Self(ticks as i64)
    }

    /// The time in units of a clock of `rate_hz`, rounded to the nearest.
    pub const fn as_units(self, rate_hz: u32) -> i64 {
        let scaled = self.0 as i128 * rate_hz as i128 + Self::TICKS_PER_SECOND as i128 / 2;
        scaled.div_euclid(Self::TICKS_PER_SECOND as i128) as i64
    }

    /// Seconds, for figures that people read.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / Self::TICKS_PER_SECOND as f64
    }

    /// A span equal to `duration`, rounded down to a tick.
    pub const fn from_duration(duration: Duration) -> Self {
        // Seconds and the rest apart: 64 bits are enough for either, and divide ten times faster.
        let rest = duration.subsec_nanos() as i64 * Self::TICKS_PER_SECOND / 1_000_000_000;
        let seconds = duration.as_secs();
        if seconds > (i64::MAX / Self::TICKS_PER_SECOND - 1) as u64 {
            return Self(i64::MAX);
        }
        Self(seconds as i64 * Self::TICKS_PER_SECOND + rest)
    }

    /// The span as a [`Duration`]; zero if it is negative.
    pub const fn to_duration(self) -> Duration {
        if self.0 <= 0 {
            return Duration::ZERO;
        }
        let nanos = self.0 as u128 * 1_000_000_000 / Self::TICKS_PER_SECOND as u128;
        Duration::from_nanos(nanos as u64)
    }

    /// The distance from zero.
    pub const fn abs(self) -> Self {
        Self(self.0.saturating_abs())
    }
}

impl Add for MediaTime {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for MediaTime {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for MediaTime {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Neg for MediaTime {
    type Output = Self;
    fn neg(self) -> Self {
        Self(self.0.saturating_neg())
    }
}

impl fmt::Debug for MediaTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}s", self.as_secs_f64())
    }
}

/// What a track carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TrackKind {
    /// H.264.
    Video,
    /// AAC or Opus.
    Audio,
}

/// The codec of a frame's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// H.264 access units in AVCC form with 4-byte lengths (ISO/IEC 14496-15).
    H264,
    /// Raw AAC access units, described by an AudioSpecificConfig.
    Aac,
    /// Opus packets at 48 kHz (RFC 6716).
    Opus,
}

impl Codec {
    /// What a track of this codec carries.
    pub const fn kind(self) -> TrackKind {
        match self {
            Codec::H264 => TrackKind::Video,
            Codec::Aac | Codec::Opus => TrackKind::Audio,
        }
    }

    /// The name people know it by.
    pub const fn name(self) -> &'static str {
        match self {
            Codec::H264 => "H264",
            Codec::Aac => "AAC",
            Codec::Opus => "Opus",
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One coded picture or one coded piece of sound, in the neutral form.
///
/// Cloning is cheap: the payload is shared.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// What codec the payload is in.
    pub codec: Codec,
    /// When the frame is to be decoded, on the stream's clock.
    pub dts: MediaTime,
    /// When the frame is to be shown or heard. Equals `dts` for sound.
    pub pts: MediaTime,
    /// Whether decoding can begin here: for video, an IDR picture is inside.
    pub key: bool,
    /// Whether no other frame refers to this one (every slice has
    /// `nal_ref_idc` 0), so that dropping it harms nothing else.
    pub disposable: bool,
    /// For H.264 the access unit in AVCC form with 4-byte lengths, without parameter
    /// sets, access unit delimiters and filler; for audio the raw codec frame.
    pub payload: Bytes,
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Frame({} dts {:?} pts {:?}{}{} {} bytes)",
            self.codec,
            self.dts,
            self.pts,
            if self.key { " key" } else { "" },
            if self.disposable { " disposable" } else { "" },
            self.payload.len()
        )
    }
}

/// How a track's payloads are to be decoded. A property of the track with a
/// version of its own, not a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrackConfig {
    /// H.264 with its parameter sets.
    H264(AvcConfig),
    /// AAC with its AudioSpecificConfig.
    Aac(AudioSpecificConfig),
    /// Opus; `channels` is what the encoder is known to send (1 or 2).
    Opus {
        /// 1 or 2.
        channels: u8,
    },
}

impl TrackConfig {
    /// The codec that this configures.
    pub const fn codec(&self) -> Codec {
        match self {
            TrackConfig::H264(_) => Codec::H264,
            TrackConfig::Aac(_) => Codec::Aac,
            TrackConfig::Opus { .. } => Codec::Opus,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rate_of_the_field_is_exact() {
        for rate in [
            1_000, 8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 90_000,
        ] {
            assert_eq!(MediaTime::TICKS_PER_SECOND % rate, 0, "{rate}");
            for units in [-7, -1, 0, 1, 959, 1024, 1 << 33] {
                let time = MediaTime::from_units(units, rate as u32);
                assert_eq!(time.as_units(rate as u32), units, "{units} at {rate}");
            }
        }
    }

    #[test]
    fn milliseconds_round_as_rtmp_wants() {
        // 1024 samples at 44.1 kHz: 23.22 ms, then 46.44, then 69.66.
        let step = |n: i64| MediaTime::from_units(n * 1024, 44_100);
        assert_eq!(step(1).as_millis_rounded(), 23);
        assert_eq!(step(2).as_millis_rounded(), 46);
        assert_eq!(step(3).as_millis_rounded(), 70);
        assert_eq!(step(3).as_millis(), 69);
        assert_eq!(MediaTime::from_millis(-1).as_millis(), -1);
    }

    #[test]
    fn durations_convert_both_ways() {
        let time = MediaTime::from_duration(Duration::from_millis(1_500));
        assert_eq!(time.as_millis(), 1_500);
        assert_eq!(time.to_duration(), Duration::from_millis(1_500));
        assert_eq!((-time).to_duration(), Duration::ZERO);
        let odd = Duration::new(86_400, 999_999_999);
        let ticks = odd.as_nanos() * MediaTime::TICKS_PER_SECOND as u128 / 1_000_000_000;
        assert_eq!(MediaTime::from_duration(odd).ticks() as u128, ticks);
        assert_eq!(MediaTime::from_duration(Duration::MAX).ticks(), i64::MAX);
    }
}

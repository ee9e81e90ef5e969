//! Opus packets: what the TOC byte and the frame packing say, RFC 6716 section 3.
//!
//! Nothing is decoded; a packet that this module refuses must not reach a decoder.

use std::fmt;

/// The clock of every Opus RTP stream, in Hz (RFC 7587 section 4.1).
pub const SAMPLE_RATE_HZ: u32 = 48_000;

/// The longest packet in samples at 48 kHz: 120 ms (RFC 6716 section 3.2.5, R5).
pub const PACKET_SAMPLES_MAX: u32 = 5_760;

/// The longest frame of a packet in bytes (RFC 6716 section 3.2.1, R2).
pub const FRAME_BYTES_MAX: usize = 1_275;

/// Why an Opus packet was refused. Each variant names the requirement of RFC 6716 section 3.4 that
/// it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpusError {
    /// No byte at all (R1).
    Empty,
    /// A frame of more than 1275 bytes (R2).
    FrameTooLong(usize),
    /// Code 1 with an even number of bytes, so that the two frames differ (R3), or code 3 with
    /// bytes left over (R6).
    UnevenFrames,
    /// A length past the end of the packet (R4, R6, R7).
    Truncated,
    /// Code 3 without frames (R5).
    NoFrames,
    /// More than 120 ms, by samples at 48 kHz (R5).
    TooLong(u32),
}

impl OpusError {
    /// A short name for counters.
    pub const fn reason(&self) -> &'static str {
        match self {
            OpusError::Empty => "opus_empty",
            OpusError::FrameTooLong(_) => "opus_frame_too_long",
            OpusError::UnevenFrames => "opus_uneven_frames",
            OpusError::Truncated => "opus_truncated",
            OpusError::NoFrames => "opus_no_frames",
            OpusError::TooLong(_) => "opus_packet_too_long",
        }
    }
}

impl fmt::Display for OpusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpusError::Empty => f.write_str("empty Opus packet"),
            OpusError::FrameTooLong(len) => write!(f, "Opus frame of {len} bytes"),
            OpusError::UnevenFrames => {
                f.write_str("Opus packet that does not divide by its frames")
            }
            OpusError::Truncated => f.write_str("Opus packet ends early"),
            OpusError::NoFrames => f.write_str("Opus packet without frames"),
            OpusError::TooLong(samples) => write!(f, "Opus packet of {samples} samples"),
        }
    }
}

impl std::error::Error for OpusError {}

/// What a well-formed packet says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// 1 or 2, by the stereo flag; may change from packet to packet.
    pub channels: u8,
    /// The coder that made it.
    pub mode: Mode,
    /// Samples of one frame at 48 kHz: 120, 240, 480, 960, 1920 or 2880.
    pub frame_samples: u32,
    /// Frames in the packet, 1 to 48.
    pub frames: u8,
    /// Bytes of coded frames, without headers and padding. 0 or 1 per frame is discontinuous
    /// transmission.
    pub coded_bytes: usize,
}

/// The coder of a packet, RFC 6716 table 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Linear prediction, for speech. May carry redundancy for the packet before (in-band FEC).
    Silk,
    /// Both.
    Hybrid,
    /// Transform coding, for music. Never carries FEC.
    Celt,
}

impl Packet {
    /// Reads the TOC byte and the packing of a packet, and checks all its lengths.
    pub fn decode(packet: &[u8]) -> Result<Self, OpusError> {
        let (&toc, body) = packet.split_first().ok_or(OpusError::Empty)?;
        let (mode, frame_samples) = configuration(toc);
        let (frames, coded_bytes) = match toc & 0x03 {
            0 => (1, one_frame(body)?),
            1 if body.len() % 2 == 0 => {
                one_frame(body.get(body.len() / 2..).unwrap_or_default())?;
                (2, body.len())
            }
            1 => return Err(OpusError::UnevenFrames),
            2 => {
                let (first, rest) = frame_len(body)?;
                let second = rest.len().checked_sub(first).ok_or(OpusError::Truncated)?;
                check_len(second)?;
                (2, rest.len())
            }
            _ => arbitrary_frames(body)?,
        };
        let samples = frame_samples * u32::from(frames);
        if samples > PACKET_SAMPLES_MAX {
            return Err(OpusError::TooLong(samples));
        }
        Ok(Self {
            channels: channels(packet),
            mode,
            frame_samples,
            frames,
            coded_bytes,
        })
    }

    /// How many samples at 48 kHz the packet lasts, 120 to [`PACKET_SAMPLES_MAX`].
    pub const fn samples(&self) -> u32 {
        self.frame_samples * self.frames as u32
    }
}

/// How many samples at 48 kHz a packet lasts, 120 to [`PACKET_SAMPLES_MAX`].
pub fn packet_duration(packet: &[u8]) -> Result<u32, OpusError> {
    Packet::decode(packet).map(|packet| packet.samples())
}

/// 1 or 2 by the stereo flag of the TOC byte; 1 for an empty packet.
pub fn channels(packet: &[u8]) -> u8 {
    match packet.first() {
        Some(toc) if toc & 0x04 != 0 => 2,
        _ => 1,
    }
}

/// Whether a packet stands for silence or comfort noise: a TOC byte and at most one byte more, as
/// libopus sends in discontinuous transmission.
pub fn is_dtx(packet: &[u8]) -> bool {
    matches!(packet.len(), 1 | 2)
}

/// Coder and samples of a frame by the five configuration bits of the TOC byte, RFC 6716 table 2.
const fn configuration(toc: u8) -> (Mode, u32) {
    let configuration = toc >> 3;
    let step = configuration & 0x03;
    match configuration {
        // 10, 20, 40, 60 ms.
        0..=11 => match step {
            0 => (Mode::Silk, 480),
            1 => (Mode::Silk, 960),
            2 => (Mode::Silk, 1_920),
            _ => (Mode::Silk, 2_880),
        },
        // 10 or 20 ms.
        12..=15 => (Mode::Hybrid, 480 << (step & 1)),
        // 2.5, 5, 10, 20 ms.
        _ => (Mode::Celt, 120 << step),
    }
}

/// Code 3, RFC 6716 section 3.2.5: how many frames, and their bytes.
fn arbitrary_frames(body: &[u8]) -> Result<(u8, usize), OpusError> {
    let (&head, mut rest) = body.split_first().ok_or(OpusError::Truncated)?;
    let frames = head & 0x3f;
    if frames == 0 {
        return Err(OpusError::NoFrames);
    }
    if frames > FRAMES_MAX {
        // 48 frames of 2.5 ms fill 120 ms.
        return Err(OpusError::TooLong(u32::from(frames) * 120));
    }
    if head & 0x40 != 0 {
        let mut padding = 0usize;
        loop {
            let (&byte, more) = rest.split_first().ok_or(OpusError::Truncated)?;
            rest = more;
            // 255 stands for 254 bytes and another length byte.
            padding += usize::from(byte.min(254));
            if byte != 255 {
                break;
            }
        }
        let kept = rest
            .len()
            .checked_sub(padding)
            .ok_or(OpusError::Truncated)?;
        rest = rest.get(..kept).unwrap_or_default();
    }
    if head & 0x80 == 0 {
        let count = usize::from(frames);
        if rest.len() % count != 0 {
            return Err(OpusError::UnevenFrames);
        }
        check_len(rest.len() / count)?;
        return Ok((frames, rest.len()));
    }
    let mut coded = 0;
    for _ in 1..frames {
        let (len, more) = frame_len(rest)?;
        coded += len;
        rest = more;
    }
    let last = rest.len().checked_sub(coded).ok_or(OpusError::Truncated)?;
    check_len(last)?;
    Ok((frames, rest.len()))
}

/// A frame length of one or two bytes (RFC 6716 section 3.2.1), and what follows it.
fn frame_len(bytes: &[u8]) -> Result<(usize, &[u8]), OpusError> {
    match bytes {
        [first @ 0..=251, rest @ ..] => Ok((usize::from(*first), rest)),
        [first, second, rest @ ..] => Ok((usize::from(*second) * 4 + usize::from(*first), rest)),
        _ => Err(OpusError::Truncated),
    }
}

fn one_frame(frame: &[u8]) -> Result<usize, OpusError> {
    check_len(frame.len())?;
    Ok(frame.len())
}

fn check_len(len: usize) -> Result<(), OpusError> {
    if len > FRAME_BYTES_MAX {
        return Err(OpusError::FrameTooLong(len));
    }
    Ok(())
}

/// Most frames of a packet: 120 ms of 2.5 ms each.
const FRAMES_MAX: u8 = 48;

#[cfg(test)]
mod tests {
    use super::*;

    fn toc(configuration: u8, stereo: bool, code: u8) -> u8 {
        configuration << 3 | u8::from(stereo) << 2 | code
    }

    #[test]
    fn every_configuration_has_the_duration_of_table_2() {
        let tenths_of_ms = [
            [100, 200, 400, 600],
            [100, 200, 400, 600],
            [100, 200, 400, 600],
            [100, 200, 100, 200],
            [25, 50, 100, 200],
            [25, 50, 100, 200],
            [25, 50, 100, 200],
            [25, 50, 100, 200],
        ];
        for configuration in 0..32u8 {
            let [row, column] = [configuration / 4, configuration % 4].map(usize::from);
            let expected = tenths_of_ms[row][column] * 48 / 10;
            let packet = [toc(configuration, false, 0), 0xaa, 0xbb, 0xcc];
            assert_eq!(packet_duration(&packet), Ok(expected), "{configuration}");
            let mode = Packet::decode(&packet).expect("whole").mode;
            let wanted = match configuration {
                0..=11 => Mode::Silk,
                12..=15 => Mode::Hybrid,
                _ => Mode::Celt,
            };
            assert_eq!(mode, wanted);
        }
    }

    #[test]
    fn chromiums_packet_is_20_ms_of_celt_stereo() {
        // TOC 0xfc: configuration 31, stereo, one frame.
        let packet = Packet::decode(&[0xfc, 1, 2, 3, 4]).expect("whole");
        assert_eq!((packet.samples(), packet.channels), (960, 2));
        assert_eq!((packet.frames, packet.coded_bytes), (1, 4));
        // TOC 0x78: hybrid, fullband, 20 ms, mono, what Chromium sends for speech.
        assert_eq!(channels(&[0x78, 1]), 1);
        assert_eq!(packet_duration(&[0x78, 1, 2]), Ok(960));
    }

    #[test]
    fn packings_of_two_frames() {
        assert_eq!(packet_duration(&[toc(31, false, 1), 1, 2, 3, 4]), Ok(1_920));
        assert_eq!(
            packet_duration(&[toc(31, false, 1), 1, 2, 3]),
            Err(OpusError::UnevenFrames)
        );
        // The first frame of 1 byte, the second of 2.
        assert_eq!(packet_duration(&[toc(31, false, 2), 1, 9, 8, 8]), Ok(1_920));
        assert_eq!(
            packet_duration(&[toc(31, false, 2), 4, 9, 8, 8]),
            Err(OpusError::Truncated)
        );
        // A two-byte length: 252 + 4 * 1 = 256.
        let mut long = vec![toc(31, false, 2), 252, 1];
        long.extend([0; 256]);
        assert_eq!(Packet::decode(&long).map(|p| p.coded_bytes), Ok(256));
        long.pop();
        assert_eq!(packet_duration(&long), Err(OpusError::Truncated));
    }

    #[test]
    fn code_3_counts_its_frames_to_120_ms() {
        // Six frames of 20 ms, constant bit rate, one byte each.
        let packet = [toc(31, true, 3), 6, 1, 2, 3, 4, 5, 6];
        assert_eq!(packet_duration(&packet), Ok(PACKET_SAMPLES_MAX));
        let packet = [toc(31, true, 3), 7, 1, 2, 3, 4, 5, 6, 7];
        assert_eq!(packet_duration(&packet), Err(OpusError::TooLong(6_720)));
        // 48 frames of 2.5 ms without a byte each.
        assert_eq!(packet_duration(&[toc(28, false, 3), 48]), Ok(5_760));
        assert_eq!(
            packet_duration(&[toc(28, false, 3), 49]),
            Err(OpusError::TooLong(5_880))
        );
        assert_eq!(
            packet_duration(&[toc(28, false, 3), 0]),
            Err(OpusError::NoFrames)
        );
        assert_eq!(
            packet_duration(&[toc(31, true, 3)]),
            Err(OpusError::Truncated)
        );
        assert_eq!(
            packet_duration(&[toc(31, true, 3), 2, 1]),
            Err(OpusError::UnevenFrames)
        );
        // Variable bit rate: lengths 1 and 2, the third frame is the rest; two bytes of padding.
        let packet = [toc(31, false, 3), 0xc3, 2, 1, 2, 9, 8, 8, 7, 0, 0];
        let packet = Packet::decode(&packet).expect("whole");
        assert_eq!((packet.frames, packet.coded_bytes), (3, 4));
        // Padding longer than the packet.
        assert_eq!(
            packet_duration(&[toc(31, false, 3), 0x41, 200, 1]),
            Err(OpusError::Truncated)
        );
    }

    #[test]
    fn limits_are_exact() {
        let mut packet = vec![toc(31, false, 0)];
        packet.resize(1 + FRAME_BYTES_MAX, 0);
        assert_eq!(packet_duration(&packet), Ok(960));
        packet.push(0);
        assert_eq!(
            packet_duration(&packet),
            Err(OpusError::FrameTooLong(FRAME_BYTES_MAX + 1))
        );
        assert_eq!(packet_duration(&[]), Err(OpusError::Empty));
        assert_eq!(channels(&[]), 1);
    }

    #[test]
    fn one_byte_packets_are_silence_of_their_duration() {
        assert_eq!(packet_duration(&[0xf8]), Ok(960));
        assert!(is_dtx(&[0xf8]));
        assert!(is_dtx(&[0xf8, 0xff]));
        assert!(!is_dtx(&[0xf8, 0xff, 0xfe]));
        assert!(!is_dtx(&[]));
    }

    /// What libopus says about a packet is what this module says.
    #[test]
    fn agrees_with_libopus_on_all_short_packets() {
        let mut bytes = [0u8; 4];
        let mut accepted = 0;
        for toc in 0..=255u8 {
            for second in 0..=255u8 {
                for len in 1..=4 {
                    bytes[0] = toc;
                    bytes[1] = second;
                    bytes[2] = second.wrapping_mul(7) % 4;
                    bytes[3] = toc % 5;
                    let packet = &bytes[..len];
                    let theirs = opus::packet::parse(packet).is_ok();
                    let ours = packet_duration(packet);
                    assert_eq!(ours.is_ok(), theirs, "{packet:02x?}: {ours:?}");
                    if let Ok(samples) = ours {
                        accepted += 1;
                        let count = opus::packet::get_nb_samples(packet, SAMPLE_RATE_HZ);
                        assert_eq!(count.ok(), usize::try_from(samples).ok(), "{packet:02x?}");
                    }
                }
            }
        }
        assert!(accepted > 50_000, "{accepted}");
    }

    #[test]
    fn damaged_packets_are_answered() {
        let whole = [toc(31, false, 3), 0xc3, 2, 1, 2, 9, 8, 8, 7, 0, 0];
        for len in 0..whole.len() {
            let _ = packet_duration(&whole[..len]);
        }
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole;
            damaged[bit / 8] ^= 1 << (bit % 8);
            if let Ok(samples) = packet_duration(&damaged) {
                assert!((120..=PACKET_SAMPLES_MAX).contains(&samples));
            }
        }
    }
}

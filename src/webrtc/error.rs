//! [`OfferError`]: every reason for which an offer is refused, by name.

use std::fmt;

use super::Role;
use super::sdp::Direction;

/// Why an offer cannot become a session. [`fmt::Display`] gives the sentence for the
/// body of the HTTP answer, [`OfferError::status`] the code (RFC 9725 section 4.2 leaves
/// the choice among 4xx codes to the server).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OfferError {
    // ---- Not an offer ----
    /// Longer than [`super::OFFER_BYTES_MAX`].
    TooLarge {
        /// Its length in bytes.
        len: usize,
    },
    /// It does not begin with `v=0`, or has no line of SDP.
    NotSdp,
    /// A line that cannot be read.
    Malformed {
        /// Counted from 1.
        line: usize,
        /// What is wrong there.
        what: &'static str,
    },
    /// More than [`super::MEDIA_SECTIONS_MAX`] m-lines.
    TooManyMediaSections,

    // ---- What a WebRTC offer must have ----
    /// No usable audio or video m-line.
    NoMedia,
    /// No `a=fingerprint`, so DTLS would trust anybody.
    NoFingerprint,
    /// A fingerprint of a hash that we do not compute.
    UnsupportedFingerprint {
        /// As the offer names it.
        hash: String,
    },
    /// No `a=ice-ufrag` or `a=ice-pwd`.
    NoIceCredentials,
    /// Both sides ICE-lite: nobody would check anything (RFC 8445 section 6.1.1).
    IceLite,
    /// `a=setup` with a value other than actpass, active and passive.
    UnsupportedSetup,
    /// Several m-lines without a BUNDLE group over all of them.
    NoBundle,
    /// An m-line without `a=rtcp-mux`.
    NoRtcpMux,
    /// An m-line whose transport is not UDP/TLS/RTP/SAVPF.
    UnsupportedTransport,
    /// Two m-lines with one `a=mid`, or a `mid` that is empty or longer than 16 characters.
    BadMid,

    // ---- What this endpoint takes ----
    /// An m-line of a kind other than audio, video and data channel.
    UnsupportedMedia,
    /// More than one video m-line.
    TwoVideos,
    /// More than one audio m-line.
    TwoAudios,
    /// The direction contradicts the endpoint.
    WrongDirection {
        /// What the peer wanted to be.
        role: Role,
        /// What it offered.
        direction: Direction,
    },
    /// No H.264 among the video codecs.
    NoH264 {
        /// What was offered instead.
        codecs: String,
    },
    /// H.264 only with packetization-mode 0 (which is also what a missing `fmtp` means).
    H264SingleNalOnly,
    /// H.264 only in profiles that RTMP players cannot decode (4:4:4, 10 bits, ...).
    H264ProfileUnsupported,
    /// No Opus among the audio codecs.
    NoOpus {
        /// What was offered instead.
        codecs: String,
    },

    // ---- Ours ----
    /// The library refused what we made of the offer; a bug worth a report.
    Internal(String),
}

impl OfferError {
    /// The HTTP status that suits.
    pub fn status(&self) -> u16 {
        match self {
            OfferError::NotSdp | OfferError::Malformed { .. } => 400,
            OfferError::TooLarge { .. } => 413,
            OfferError::NoH264 { .. }
            | OfferError::H264SingleNalOnly
            | OfferError::H264ProfileUnsupported
            | OfferError::NoOpus { .. } => 406,
            OfferError::Internal(_) => 500,
            _ => 422,
        }
    }

    /// The name under which it is counted.
    pub fn reason(&self) -> &'static str {
        match self {
            OfferError::TooLarge { .. } => "offer_too_large",
            OfferError::NotSdp => "offer_not_sdp",
            OfferError::Malformed { .. } => "offer_malformed",
            OfferError::TooManyMediaSections => "offer_too_many_media",
            OfferError::NoMedia => "offer_no_media",
            OfferError::NoFingerprint => "offer_no_fingerprint",
            OfferError::UnsupportedFingerprint { .. } => "offer_fingerprint_unsupported",
            OfferError::NoIceCredentials => "offer_no_ice_credentials",
            OfferError::IceLite => "offer_ice_lite",
            OfferError::UnsupportedSetup => "offer_setup_unsupported",
            OfferError::NoBundle => "offer_no_bundle",
            OfferError::NoRtcpMux => "offer_no_rtcp_mux",
            OfferError::UnsupportedTransport => "offer_transport_unsupported",
            OfferError::BadMid => "offer_bad_mid",
            OfferError::UnsupportedMedia => "offer_media_unsupported",
            OfferError::TwoVideos => "offer_two_videos",
            OfferError::TwoAudios => "offer_two_audios",
            OfferError::WrongDirection { .. } => "offer_wrong_direction",
            OfferError::NoH264 { .. } => "offer_no_h264",
            OfferError::H264SingleNalOnly => "offer_h264_single_nal_only",
            OfferError::H264ProfileUnsupported => "offer_h264_profile_unsupported",
            OfferError::NoOpus { .. } => "offer_no_opus",
            OfferError::Internal(_) => "offer_internal",
        }
    }
}

impl fmt::Display for OfferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OfferError::TooLarge { len } => write!(
                f,
                "the offer is {len} bytes long, more than {}",
                super::OFFER_BYTES_MAX
            ),
            OfferError::NotSdp => f.write_str("the body is not an SDP offer"),
            OfferError::Malformed { line, what } => {
                write!(f, "line {line} of the offer: {what}")
            }
            OfferError::TooManyMediaSections => f.write_str("the offer has too many m-lines"),
            OfferError::NoMedia => f.write_str("the offer has no audio or video to negotiate"),
            OfferError::NoFingerprint => f.write_str("the offer has no a=fingerprint"),
            OfferError::UnsupportedFingerprint { hash } => write!(
                f,
                "the offer's fingerprint uses {hash}; sha-256 and sha-1 are supported"
            ),
            OfferError::NoIceCredentials => f.write_str("the offer has no a=ice-ufrag or a=ice-pwd"),
            OfferError::IceLite => {
                f.write_str("the offer says a=ice-lite; this server is ICE-lite itself")
            }
            OfferError::UnsupportedSetup => {
                f.write_str("a=setup of the offer is neither actpass nor active nor passive")
            }
            OfferError::NoBundle => f.write_str("the offer does not bundle all its m-lines (a=group:BUNDLE)"),
            OfferError::NoRtcpMux => f.write_str("an m-line of the offer has no a=rtcp-mux"),
            OfferError::UnsupportedTransport => {
                f.write_str("an m-line's transport is not UDP/TLS/RTP/SAVPF")
            }
            OfferError::BadMid => {
                f.write_str("an a=mid of the offer is missing, repeated or longer than 16 characters")
            }
            OfferError::UnsupportedMedia => {
                f.write_str("the offer has an m-line that is neither audio nor video nor a data channel")
            }
            OfferError::TwoVideos => f.write_str("the offer has more than one video m-line"),
            OfferError::TwoAudios => f.write_str("the offer has more than one audio m-line"),
            OfferError::WrongDirection { role, direction } => write!(
                f,
                "a {role} must offer {}, the offer says {direction}",
                match role {
                    Role::Publisher => "sendonly",
                    Role::Viewer => "recvonly",
                }
            ),
            OfferError::NoH264 { codecs } => {
                write!(f, "the offer has no H.264 video (it has {codecs})")
            }
            OfferError::H264SingleNalOnly => {
                f.write_str("the offer has H.264 only with packetization-mode 0; 1 is needed")
            }
            OfferError::H264ProfileUnsupported => f.write_str(
                "the offer has H.264 only in profiles beyond High; Baseline, Main or High is needed",
            ),
            OfferError::NoOpus { codecs } => {
                write!(f, "the offer has no Opus audio (it has {codecs})")
            }
            OfferError::Internal(what) => write!(f, "the offer could not be accepted: {what}"),
        }
    }
}

impl std::error::Error for OfferError {}

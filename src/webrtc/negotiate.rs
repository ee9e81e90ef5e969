//! What we make of an offer: which m-lines, payload types and extensions a session has
//! (RFC 9725 section 4.2, draft-ietf-wish-whep section 4, RFC 6184 section 8.2.2).
//!
//! One H.264 payload type with packetization-mode 1 and one Opus payload type, or a
//! named refusal: no half-working sessions.

use log::{debug, warn};

use super::sdp::{Codec, Direction, Fingerprint, Kind, Offer, Section, Setup};
use super::{OfferError, Role};
use crate::media::TrackKind;

/// What becomes of one m-line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Index into [`Plan::media`].
    Media(usize),
    /// A publisher's data channel: accepted, and then ignored. A viewer's is refused: nothing
    /// would come through it.
    Data,
    /// Answered with port 0.
    Refused,
}

/// One media m-line of the session.
#[derive(Clone, Debug)]
pub(super) struct Media {
    pub(super) kind: TrackKind,
    pub(super) mid: String,
    pub(super) pt: u8,
    /// The payload type of retransmissions (RFC 4588), when offered.
    pub(super) rtx_pt: Option<u8>,
    /// What else an audio m-line offers, RED and comfort noise say (RFC 3389): not accepted, and
    /// sent by some all the same, in the same sequence.
    pub(super) refused_pts: Vec<u8>,
    /// The `fmtp` parameters of the answer.
    pub(super) fmtp: String,
    /// The `rtcp-fb` values of the answer.
    pub(super) feedback: Vec<&'static str>,
    /// The header extensions of the answer.
    pub(super) extensions: Vec<(u8, &'static str)>,
    /// Whether the peer resends what we report as lost.
    pub(super) nack: bool,
    /// The peer's SSRC and its retransmission SSRC, when the offer names them.
    pub(super) remote_ssrc: Option<(u32, Option<u32>)>,
}

/// A negotiated session, before the library knows of it.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) role: Role,
    /// One for each m-line of the offer.
    pub(super) fates: Vec<Fate>,
    pub(super) media: Vec<Media>,
    pub(super) fingerprint: Fingerprint,
    /// We send the ClientHello.
    pub(super) dtls_active: bool,
    /// Ids of the header extensions that packets carry.
    pub(super) mid_extension: Option<u8>,
    pub(super) transport_cc_extension: Option<u8>,
    /// The offer has no profile in which the stream may be sent: it goes out under another.
    pub(super) profile_mismatch: bool,
}

impl Plan {
    pub(super) fn has_data(&self) -> bool {
        self.fates.contains(&Fate::Data)
    }
}

/// Judges an offer.
///
/// `stream_profile` is profile-level-id of the stream that a viewer will get, when it is
/// known: `[profile_idc, constraint flags, level_idc]`.
pub(super) fn negotiate(
    offer: &Offer,
    role: Role,
    stream_profile: Option<[u8; 3]>,
) -> Result<Plan, OfferError> {
    let mut fates = Vec::with_capacity(offer.sections.len());
    let mut media: Vec<Media> = Vec::new();
    let mut profile_mismatch = false;
    for section in &offer.sections {
        let fate = match section.kind {
            _ if is_disabled(offer, section) => Fate::Refused,
            Kind::Application if role == Role::Publisher && is_data_channel(section) => Fate::Data,
            Kind::Application => Fate::Refused,
            Kind::Other => return Err(OfferError::UnsupportedMedia),
            Kind::Video | Kind::Audio => {
                let (accepted, mismatch) = accept_section(section, role, stream_profile, &media)?;
                profile_mismatch |= mismatch;
                media.push(accepted);
                Fate::Media(media.len() - 1)
            }
        };
        fates.push(fate);
    }
    if media.is_empty() {
        let inactive = offer
            .sections
            .iter()
            .any(|section| section.direction == Direction::Inactive);
        return Err(if inactive {
            OfferError::WrongDirection {
                role,
                direction: Direction::Inactive,
            }
        } else {
            OfferError::NoMedia
        });
    }
    check_bundle(offer, &fates)?;
    let accepted: Vec<&Section> = offer
        .sections
        .iter()
        .zip(&fates)
        .filter(|(_, fate)| **fate != Fate::Refused)
        .map(|(section, _)| section)
        .collect();
    let transport = Transport::agree(offer, &accepted)?;
    let mid_extension = common_extension(&media, MID_URI);
    let transport_cc_extension = common_extension(&media, TRANSPORT_CC_URI);
    for media in &mut media {
        // An extension whose id differs between m-lines is answered on none of them.
        media.extensions.retain(|(id, uri)| {
            let agreed = match *uri {
                MID_URI => mid_extension,
                _ => transport_cc_extension,
            };
            agreed == Some(*id)
        });
        if transport_cc_extension.is_none() {
            media.feedback.retain(|value| *value != "transport-cc");
        }
    }
    Ok(Plan {
        role,
        fates,
        media,
        fingerprint: transport.fingerprint,
        dtls_active: transport.dtls_active,
        mid_extension,
        transport_cc_extension,
        profile_mismatch,
    })
}

/// Switched off by the offerer: inactive, or port 0 outside of the bundle (RFC 8843
/// section 7.5.3; in it, port 0 says that the section shares a transport).
fn is_disabled(offer: &Offer, section: &Section) -> bool {
    let is_bundled = section
        .mid
        .as_ref()
        .is_some_and(|mid| offer.bundle.as_ref().is_some_and(|b| b.contains(mid)));
    section.direction == Direction::Inactive || (section.port == 0 && !is_bundled)
}

fn is_data_channel(section: &Section) -> bool {
    section.proto.ends_with("/DTLS/SCTP") && section.first_format == "webrtc-datachannel"
}

fn accept_section(
    section: &Section,
    role: Role,
    stream_profile: Option<[u8; 3]>,
    before: &[Media],
) -> Result<(Media, bool), OfferError> {
    let kind = if section.kind == Kind::Video {
        TrackKind::Video
    } else {
        TrackKind::Audio
    };
    if before.iter().any(|media| media.kind == kind) {
        return Err(match kind {
            TrackKind::Video => OfferError::TwoVideos,
            TrackKind::Audio => OfferError::TwoAudios,
        });
    }
    let wrong = match role {
        Role::Publisher => Direction::RecvOnly,
        Role::Viewer => Direction::SendOnly,
    };
    if section.direction == wrong {
        return Err(OfferError::WrongDirection {
            role,
            direction: wrong,
        });
    }
    let known_transport = ["/TLS/RTP/SAVPF", "/TLS/RTP/SAVP", "RTP/SAVPF"];
    if !known_transport
        .iter()
        .any(|end| section.proto.ends_with(end))
    {
        return Err(OfferError::UnsupportedTransport);
    }
    if !section.rtcp_mux {
        return Err(OfferError::NoRtcpMux);
    }
    let (codec, mismatch) = match kind {
        TrackKind::Video => choose_h264(section, role, stream_profile)?,
        TrackKind::Audio => (choose_opus(section)?, false),
    };
    let rtx_pt = (kind == TrackKind::Video)
        .then(|| retransmission_of(section, codec.pt))
        .flatten();
    // A viewer is resent lost packets only by RTX; a publisher without RTX resends the
    // packet itself (OBS).
    let nack = kind == TrackKind::Video
        && codec.has_feedback("nack")
        && (role == Role::Publisher || rtx_pt.is_some());
    let mut feedback = Vec::new();
    if kind == TrackKind::Video {
        if nack {
            feedback.push("nack");
        }
        feedback.extend(
            ["nack pli", "ccm fir"]
                .iter()
                .filter(|value| codec.has_feedback(value)),
        );
    }
    let mut extensions = Vec::new();
    // A mid outside of the library's alphabet would be sent as another one.
    if let Some(id) = section.extension_id(MID_URI)
        && section.mid.as_deref().is_some_and(is_plain_mid)
    {
        extensions.push((id, MID_URI));
    }
    if role == Role::Publisher
        && codec.has_feedback("transport-cc")
        && let Some(id) = section.extension_id(TRANSPORT_CC_URI)
    {
        extensions.push((id, TRANSPORT_CC_URI));
        feedback.push("transport-cc");
    }
    let media = Media {
        kind,
        // Without BUNDLE a single m-line may do without; the library wants a name.
        mid: section.mid.clone().unwrap_or_else(|| "0".to_owned()),
        pt: codec.pt,
        rtx_pt,
        refused_pts: refused_pts(section, kind, codec.pt),
        fmtp: answer_fmtp(kind, role, codec),
        feedback,
        extensions,
        nack,
        remote_ssrc: remote_ssrc(section, role),
    };
    Ok((media, mismatch))
}

fn refused_pts(section: &Section, kind: TrackKind, accepted: u8) -> Vec<u8> {
    let offered = section.codecs.iter().map(|codec| codec.pt);
    let refused = offered.filter(|pt| kind == TrackKind::Audio && *pt != accepted);
    refused.take(REFUSED_PTS_MAX).collect()
}

/// Payload types of one m-line that are told from noise; Chromium 156 offers eight for audio.
const REFUSED_PTS_MAX: usize = 32;

/// The id of an extension, if every m-line that has it gives it the same.
fn common_extension(media: &[Media], uri: &str) -> Option<u8> {
    let mut ids = media.iter().flat_map(|media| {
        media
            .extensions
            .iter()
            .filter(|(_, known)| *known == uri)
            .map(|(id, _)| *id)
    });
    let first = ids.next()?;
    ids.all(|id| id == first).then_some(first)
}

fn remote_ssrc(section: &Section, role: Role) -> Option<(u32, Option<u32>)> {
    if role == Role::Viewer {
        return None;
    }
    let is_repair = |ssrc: u32| section.retransmissions.iter().any(|(_, r)| *r == ssrc);
    let mut mains = section.ssrcs.iter().filter(|ssrc| !is_repair(**ssrc));
    let main = *mains.next()?;
    // Several sources are simulcast layers without rid; which one is sent then, since
    // the answer accepts no simulcast, shows by itself.
    if mains.next().is_some() || main == 0 {
        return None;
    }
    let repair = section
        .retransmissions
        .iter()
        .find(|(of, _)| *of == main)
        .map(|(_, repair)| *repair);
    Some((main, repair))
}

fn retransmission_of(section: &Section, pt: u8) -> Option<u8> {
    section
        .codecs
        .iter()
        .find(|codec| {
            codec.is_named("rtx")
                && codec.parameter("apt").and_then(|apt| apt.parse().ok()) == Some(pt)
        })
        .map(|codec| codec.pt)
}

fn choose_opus(section: &Section) -> Result<&Codec, OfferError> {
    section
        .codecs
        .iter()
        .find(|codec| codec.is_named("opus") && codec.clock_rate_hz == 48_000)
        .ok_or_else(|| OfferError::NoOpus {
            codecs: section.codec_names(),
        })
}

/// The payload type for the picture, and whether its profile contradicts the stream's.
fn choose_h264(
    section: &Section,
    role: Role,
    stream_profile: Option<[u8; 3]>,
) -> Result<(&Codec, bool), OfferError> {
    let all: Vec<&Codec> = section
        .codecs
        .iter()
        .filter(|codec| codec.is_named("H264") && codec.clock_rate_hz == 90_000)
        .collect();
    if all.is_empty() {
        return Err(OfferError::NoH264 {
            codecs: section.codec_names(),
        });
    }
    let usable: Vec<(&Codec, [u8; 3])> = all
        .into_iter()
        .filter(|codec| codec.parameter("packetization-mode") == Some("1"))
        .map(|codec| (codec, profile_level_id(codec)))
        .collect();
    if usable.is_empty() {
        return Err(OfferError::H264SingleNalOnly);
    }
    if role == Role::Publisher {
        // The offer's order is the publisher's wish.
        return usable
            .iter()
            .find(|(_, id)| Profile::of(*id) != Profile::Beyond)
            .map(|(codec, _)| (*codec, false))
            .ok_or(OfferError::H264ProfileUnsupported);
    }
    let level = stream_profile.map_or(0, |id| id[2]);
    let ranked = usable.iter().enumerate().min_by_key(|(index, (_, id))| {
        (
            suitability(Profile::of(*id), stream_profile),
            // Among equals a level that admits the stream, then the offer's order.
            id[2] < level,
            *index,
        )
    });
    let Some((_, (codec, id))) = ranked else {
        return Err(OfferError::H264SingleNalOnly);
    };
    let mismatch = suitability(Profile::of(*id), stream_profile) >= MISMATCH;
    if mismatch {
        warn!(
            "the viewer offers no H.264 profile for the stream's {:02x?}; \
             it is sent under {:02x?}, which Chromium decodes and Safari may not",
            stream_profile.unwrap_or_default(),
            id
        );
    } else {
        debug!(
            "H.264 payload type {} with profile-level-id {id:02x?}",
            codec.pt
        );
    }
    Ok((codec, mismatch))
}

/// `profile-level-id`; what its absence means is in RFC 6184 section 8.1.
fn profile_level_id(codec: &Codec) -> [u8; 3] {
    codec
        .parameter("profile-level-id")
        .filter(|text| text.len() == 6)
        .and_then(|text| u32::from_str_radix(text, 16).ok())
        .map_or([0x42, 0x00, 0x0a], |id| {
            let [_, profile, flags, level] = id.to_be_bytes();
            [profile, flags, level]
        })
}

/// The profiles of RFC 6184 table 5 that browsers know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Profile {
    ConstrainedBaseline,
    Baseline,
    Main,
    ConstrainedHigh,
    High,
    /// Extended, 4:4:4, more than 8 bits: what phones and RTMP players cannot decode.
    Beyond,
}

impl Profile {
    fn of([profile_idc, flags, _]: [u8; 3]) -> Self {
        let constrained = flags & 0x40 != 0;
        match profile_idc {
            0x42 if constrained => Profile::ConstrainedBaseline,
            0x42 => Profile::Baseline,
            0x4d if flags & 0x80 != 0 => Profile::ConstrainedBaseline,
            0x4d => Profile::Main,
            0x64 if flags & 0x0c == 0x0c => Profile::ConstrainedHigh,
            0x64 => Profile::High,
            _ => Profile::Beyond,
        }
    }
}

/// How well an offered profile suits a stream: 0 best, from [`MISMATCH`] on a lie.
fn suitability(offered: Profile, stream: Option<[u8; 3]>) -> u8 {
    use Profile::{Baseline, Beyond, ConstrainedBaseline, ConstrainedHigh, High, Main};
    let stream = stream.map_or(ConstrainedBaseline, Profile::of);
    // The profiles whose decoders decode the stream, nearest first. x264's Baseline and
    // its progressive High stay within the constrained forms, whatever their flags say.
    let fitting: &[Profile] = match stream {
        ConstrainedBaseline | Baseline => {
            &[ConstrainedBaseline, Baseline, Main, ConstrainedHigh, High]
        }
        Main => &[Main, High, ConstrainedHigh],
        ConstrainedHigh => &[ConstrainedHigh, High],
        High => &[High, ConstrainedHigh],
        Beyond => &[Beyond],
    };
    if offered == stream {
        return 0;
    }
    if let Some(place) = fitting.iter().position(|profile| *profile == offered) {
        return 1 + place as u8;
    }
    // Nothing fits: what browsers decode anything under, first.
    match offered {
        ConstrainedBaseline => MISMATCH,
        Baseline => MISMATCH + 1,
        Main => MISMATCH + 2,
        ConstrainedHigh => MISMATCH + 3,
        High => MISMATCH + 4,
        Beyond => MISMATCH + 5,
    }
}

/// From this suitability on the stream does not conform to what the answer says.
const MISMATCH: u8 = 100;

fn answer_fmtp(kind: TrackKind, role: Role, codec: &Codec) -> String {
    match kind {
        TrackKind::Video => {
            let [profile, flags, level] = profile_level_id(codec);
            format!(
                "level-asymmetry-allowed=1;packetization-mode=1;\
                 profile-level-id={profile:02x}{flags:02x}{level:02x}"
            )
        }
        TrackKind::Audio => {
            let wants_stereo = ["stereo", "sprop-stereo"]
                .iter()
                .any(|name| codec.parameter(name) == Some("1"));
            // To a viewer we may send stereo at any time; a publisher sends it if it said so.
            match (role, wants_stereo) {
                (Role::Viewer, _) => "minptime=10;stereo=1;sprop-stereo=1;useinbandfec=1",
                (Role::Publisher, true) => "minptime=10;stereo=1;useinbandfec=1",
                (Role::Publisher, false) => "minptime=10;useinbandfec=1",
            }
            .to_owned()
        }
    }
}

/// BUNDLE over all that is accepted (RFC 9725 section 4.4.1), with distinct mids.
fn check_bundle(offer: &Offer, fates: &[Fate]) -> Result<(), OfferError> {
    let accepted: Vec<&Section> = offer
        .sections
        .iter()
        .zip(fates)
        .filter(|(_, fate)| **fate != Fate::Refused)
        .map(|(section, _)| section)
        .collect();
    if accepted.len() > 1 || offer.bundle.is_some() {
        let bundle = offer.bundle.as_ref().ok_or(OfferError::NoBundle)?;
        for section in &accepted {
            let mid = section.mid.as_ref().ok_or(OfferError::BadMid)?;
            if !bundle.contains(mid) {
                return Err(OfferError::NoBundle);
            }
        }
    }
    let mut seen: Vec<String> = Vec::new();
    for section in &offer.sections {
        let Some(mid) = &section.mid else { continue };
        let is_token = mid.bytes().all(|byte| byte.is_ascii_graphic());
        // The library knows mids by their letters and digits only.
        let folded: String = mid
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .collect();
        if mid.is_empty() || mid.len() > MID_BYTES_MAX || !is_token || seen.contains(&folded) {
            return Err(OfferError::BadMid);
        }
        seen.push(folded);
    }
    Ok(())
}

fn is_plain_mid(mid: &str) -> bool {
    mid.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// What the accepted m-lines say of the one transport they share.
struct Transport {
    fingerprint: Fingerprint,
    dtls_active: bool,
}

impl Transport {
    fn agree(offer: &Offer, accepted: &[&Section]) -> Result<Self, OfferError> {
        let levels = || {
            accepted
                .iter()
                .map(|section| &section.transport)
                .chain([&offer.transport])
        };
        let fingerprints: Vec<&Fingerprint> =
            levels().flat_map(|level| &level.fingerprints).collect();
        let known = |hash: &str, len: usize| {
            fingerprints
                .iter()
                .find(|fingerprint| fingerprint.hash == hash && fingerprint.bytes.len() == len)
        };
        let fingerprint = match (
            known("sha-256", 32).or(known("sha-1", 20)),
            fingerprints.first(),
        ) {
            (Some(fingerprint), _) => (*fingerprint).clone(),
            (None, Some(other)) => {
                return Err(OfferError::UnsupportedFingerprint {
                    hash: other.hash.clone(),
                });
            }
            (None, None) => return Err(OfferError::NoFingerprint),
        };
        // We never send checks, so the peer's credentials are of no use to us; but an
        // offer without them comes from something that does not speak ICE.
        let has = |value: fn(&super::sdp::TransportAttributes) -> Option<&String>| {
            levels().any(|level| value(level).is_some_and(|text| !text.is_empty()))
        };
        if !has(|level| level.ice_ufrag.as_ref()) || !has(|level| level.ice_pwd.as_ref()) {
            return Err(OfferError::NoIceCredentials);
        }
        if offer.ice_lite {
            return Err(OfferError::IceLite);
        }
        // Without the attribute the answerer is passive in practice (RFC 8842 section 5.3).
        let dtls_active = match levels().find_map(|level| level.setup) {
            None | Some(Setup::ActPass | Setup::Active) => false,
            Some(Setup::Passive) => true,
            Some(Setup::Other) => return Err(OfferError::UnsupportedSetup),
        };
        Ok(Self {
            fingerprint,
            dtls_active,
        })
    }
}

/// RFC 9143.
pub(super) const MID_URI: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
/// draft-holmer-rmcat-transport-wide-cc-extensions-01.
pub(super) const TRANSPORT_CC_URI: &str =
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";

/// The longest mid: what the library's fixed-size name holds, and what the one-byte header
/// extension can carry.
const MID_BYTES_MAX: usize = 16;

#[cfg(test)]
mod tests;

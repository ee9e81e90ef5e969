//! One media m-line of a session.

use str0m::change::DirectApi;
use str0m::media::{MediaKind, Mid, Pt};
use str0m::rtp::Ssrc;

use crate::media::TrackKind;
use crate::webrtc::Role;
use crate::webrtc::answer::Source;
use crate::webrtc::negotiate::Media;

/// Where the numbering of a track begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamStart {
    /// The first sequence number; below 32,768, so that no loss at the beginning leaves
    /// the peer with another rollover counter (RFC 3711 section 3.3.1).
    pub sequence: u16,
    /// What is added to every RTP time that is written.
    pub rtp_time: u32,
}

/// One media m-line.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) mid: Mid,
    pub(super) pt: Pt,
    pub(super) rtx_pt: Option<u8>,
    pub(super) nack: bool,
    pub(super) source: Option<(Ssrc, Option<Ssrc>)>,
    /// Whether the library knows of the outgoing source. It learns with the first packet:
    /// until then it would send reports that map the present to RTP time 0.
    pub(super) is_declared: bool,
    pub(super) next_sequence: u64,
    pub(super) rtp_time_offset: u32,
    /// The peer's SSRC, when it was named or learned.
    pub(super) remote_ssrc: Option<u32>,
    pub(super) remote_rtx_ssrc: Option<u32>,
}

impl Track {
    /// Declares the m-line to the library; what the answer says of its source, if we send.
    pub(super) fn open(
        api: &mut DirectApi<'_>,
        role: Role,
        media: &Media,
        seed: u64,
    ) -> (Self, Option<Source>) {
        let mid = Mid::from(media.mid.as_str());
        let kind = match media.kind {
            TrackKind::Video => MediaKind::Video,
            TrackKind::Audio => MediaKind::Audio,
        };
        let cname = api.declare_media(mid, kind).cname().to_owned();
        let bits = mix(seed, media.kind);
        let mut track = Self {
            mid,
            pt: Pt::new_with_value(media.pt),
            rtx_pt: media.rtx_pt,
            nack: media.nack,
            source: None,
            is_declared: false,
            // 1 to 32,768: see `StreamStart`.
            next_sequence: (bits & 0x7fff) + 1,
            rtp_time_offset: (bits >> 32) as u32,
            remote_ssrc: None,
            remote_rtx_ssrc: None,
        };
        let source = match role {
            Role::Viewer => Some(track.choose_source(api, cname)),
            Role::Publisher => {
                track.expect_source(api, media.remote_ssrc);
                None
            }
        };
        (track, source)
    }

    fn choose_source(&mut self, api: &DirectApi<'_>, cname: String) -> Source {
        let ssrc = api.new_ssrc();
        let rtx = self.rtx_pt.map(|_| {
            loop {
                let rtx = api.new_ssrc();
                if rtx != ssrc {
                    break rtx;
                }
            }
        });
        self.source = Some((ssrc, rtx));
        Source {
            ssrc: *ssrc,
            rtx_ssrc: rtx.map(|rtx| *rtx),
            cname,
        }
    }

    fn expect_source(&mut self, api: &mut DirectApi<'_>, named: Option<(u32, Option<u32>)>) {
        let Some((ssrc, rtx)) = named else { return };
        let rtx = rtx.filter(|_| self.rtx_pt.is_some());
        api.expect_stream_rx(Ssrc::from(ssrc), rtx.map(Ssrc::from), self.mid, None)
            .suppress_nack(!self.nack);
        self.remote_ssrc = Some(ssrc);
        self.remote_rtx_ssrc = rtx;
    }

    /// Whether the SSRC is one of the peer's that the library knows of.
    pub(super) fn knows(&self, ssrc: u32) -> bool {
        self.remote_ssrc == Some(ssrc) || self.remote_rtx_ssrc == Some(ssrc)
    }

    /// Takes an SSRC for this track's if the payload type is this track's. Whether it was.
    pub(super) fn learn(&mut self, api: &mut DirectApi<'_>, pt: u8, ssrc: u32) -> bool {
        if *self.pt == pt {
            if let Some(old) = self.remote_ssrc.replace(ssrc) {
                api.remove_stream_rx(Ssrc::from(old));
            }
            api.expect_stream_rx(Ssrc::from(ssrc), None, self.mid, None)
                .suppress_nack(!self.nack);
            true
        } else if self.rtx_pt == Some(pt)
            && let Some(main) = self.remote_ssrc
        {
            self.remote_rtx_ssrc = Some(ssrc);
            api.expect_stream_rx(Ssrc::from(main), Some(Ssrc::from(ssrc)), self.mid, None);
            true
        } else {
            false
        }
    }
}

/// What a header of RTP says of its sender.
pub(super) struct RtpSource {
    pub(super) pt: u8,
    pub(super) ssrc: u32,
    pub(super) has_extensions: bool,
}

/// Reads what looks like RTP (RFC 3550 section 5.1).
pub(super) fn rtp_source(bytes: &[u8]) -> Option<RtpSource> {
    let [first, second, ..] = bytes else {
        return None;
    };
    let pt = second & 0x7f;
    // RTCP lies in 64..=95 of the second byte (RFC 5761 section 4).
    if first >> 6 != 2 || (64..96).contains(&pt) {
        return None;
    }
    let ssrc = bytes.get(8..12)?.first_chunk::<4>()?;
    Some(RtpSource {
        pt,
        ssrc: u32::from_be_bytes(*ssrc),
        has_extensions: first & 0x10 != 0,
    })
}

/// Spreads a seed over the tracks (SplitMix64).
fn mix(seed: u64, kind: TrackKind) -> u64 {
    let step: u64 = match kind {
        TrackKind::Video => 1,
        TrackKind::Audio => 2,
    };
    let mut z = seed.wrapping_add(step.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

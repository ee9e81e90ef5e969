//! One media m-line of a publisher.

use str0m::change::DirectApi;
use str0m::media::{MediaKind, Mid, Pt};
use str0m::rtp::Ssrc;

use crate::media::TrackKind;
use crate::webrtc::negotiate::Media;

/// One media m-line.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) mid: Mid,
    pub(super) pt: Pt,
    pub(super) rtx_pt: Option<u8>,
    /// Payload types that were offered for it and not accepted.
    pub(super) refused_pts: Vec<u8>,
    pub(super) nack: bool,
    /// The peer's SSRC, when it was named or learned.
    pub(super) remote_ssrc: Option<u32>,
    pub(super) remote_rtx_ssrc: Option<u32>,
}

impl Track {
    /// Declares the m-line to the library.
    pub(super) fn open(api: &mut DirectApi<'_>, media: &Media) -> Self {
        let mid = Mid::from(media.mid.as_str());
        let kind = match media.kind {
            TrackKind::Video => MediaKind::Video,
            TrackKind::Audio => MediaKind::Audio,
        };
        api.declare_media(mid, kind);
        let mut track = Self {
            mid,
            pt: Pt::new_with_value(media.pt),
            rtx_pt: media.rtx_pt,
            refused_pts: media.refused_pts.clone(),
            nack: media.nack,
            remote_ssrc: None,
            remote_rtx_ssrc: None,
        };
        track.expect_source(api, media.remote_ssrc);
        track
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

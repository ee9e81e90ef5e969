//! How the library is set up: RTP mode, one codec per track, and one peer at one address.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use str0m::format::{Codec, FormatParams};
use str0m::media::{Frequency, Pt};
use str0m::rtp::Extension;
use str0m::{IceCreds, Rtc, RtcConfig};

use crate::media::TrackKind;
use crate::webrtc::Engine;
use crate::webrtc::negotiate::Plan;

pub(super) fn rtc_config(engine: &Engine, plan: &Plan) -> RtcConfig {
    let mut config = Rtc::builder()
        .set_rtp_mode(true)
        .set_ice_lite(true)
        .set_local_ice_credentials(virtual_credentials())
        .set_crypto_provider(Arc::clone(&engine.crypto))
        .set_dtls_cert(engine.certificate())
        .set_stats_interval(engine.config.stats_interval)
        .clear_codecs()
        .clear_extension_map();
    if let Some(id) = plan.mid_extension {
        config = config.set_extension(id, Extension::RtpMid);
    }
    if let Some(id) = plan.transport_cc_extension {
        config = config.set_extension(id, Extension::TransportSequenceNumber);
    }
    for media in &plan.media {
        // Known to the library only to be authenticated and to keep their places in the sequence.
        let is_used = |pt: &u8| {
            let mut media = plan.media.iter();
            media.any(|media| media.pt == *pt || media.rtx_pt == Some(*pt))
        };
        for pt in media.refused_pts.iter().filter(|pt| !is_used(pt)) {
            config.codec_config().add_config(
                Pt::new_with_value(*pt),
                None,
                Codec::Opus,
                Frequency::FORTY_EIGHT_KHZ,
                Some(2),
                FormatParams::default(),
            );
        }
        let pt = Pt::new_with_value(media.pt);
        let rtx = media.rtx_pt.map(Pt::new_with_value);
        let codecs = config.codec_config();
        match media.kind {
            // In RTP mode the profile has no effect beyond the SDP, which is ours.
            TrackKind::Video => codecs.add_h264(pt, rtx, true, 0x42e01f),
            TrackKind::Audio => codecs.add_config(
                pt,
                None,
                Codec::Opus,
                Frequency::FORTY_EIGHT_KHZ,
                Some(2),
                FormatParams::default(),
            ),
        }
    }
    config
}

pub(super) fn virtual_credentials() -> IceCreds {
    IceCreds {
        ufrag: VIRTUAL_UFRAG.to_owned(),
        pass: VIRTUAL_PASSWORD.to_owned(),
    }
}

/// The one pair that the library knows: addresses for documentation (RFC 5737), which no
/// packet ever carries.
pub(super) const VIRTUAL_LOCAL: SocketAddr =
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 8000));
pub(super) const VIRTUAL_PEER: SocketAddr =
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 2), 8000));
/// Not secret: datagrams from outside never reach the library's own ICE.
pub(super) const VIRTUAL_UFRAG: &str = "gateway";
pub(super) const VIRTUAL_PASSWORD: &str = "only-between-us-and-str0m";

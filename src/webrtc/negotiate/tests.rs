use super::*;

const CHROMIUM_VIEWER: &str =
    include_str!("../../../tests/fixtures/offers/chromium-156-recvonly.sdp");
const CHROMIUM_PUBLISHER: &str =
    include_str!("../../../tests/fixtures/offers/chromium-156-sendonly.sdp");
const FIREFOX_VIEWER: &str =
    include_str!("../../../tests/fixtures/offers/firefox-128-recvonly.sdp");
const FIREFOX_PUBLISHER: &str =
    include_str!("../../../tests/fixtures/offers/firefox-128-sendonly.sdp");
const SAFARI_VIEWER: &str = include_str!("../../../tests/fixtures/offers/safari-17-recvonly.sdp");
const SAFARI_PUBLISHER: &str =
    include_str!("../../../tests/fixtures/offers/safari-17-sendonly.sdp");
const OBS: &str = include_str!("../../../tests/fixtures/offers/obs-30-whip.sdp");
const FFMPEG: &str = include_str!("../../../tests/fixtures/offers/ffmpeg-8-whip.sdp");
const GSTREAMER: &str = include_str!("../../../tests/fixtures/offers/gstreamer-1.24-whip.sdp");

const CONSTRAINED_BASELINE: [u8; 3] = [0x42, 0xc0, 0x1f];
const MAIN: [u8; 3] = [0x4d, 0x40, 0x28];
const HIGH: [u8; 3] = [0x64, 0x00, 0x28];

fn plan(offer: &str, role: Role, profile: Option<[u8; 3]>) -> Result<Plan, OfferError> {
    negotiate(&Offer::decode(offer)?, role, profile)
}

fn viewer(offer: &str, profile: [u8; 3]) -> Plan {
    plan(offer, Role::Viewer, Some(profile)).unwrap()
}

fn publisher(offer: &str) -> Plan {
    plan(offer, Role::Publisher, None).unwrap()
}

fn refusal(offer: &str, role: Role) -> OfferError {
    plan(offer, role, None).unwrap_err()
}

fn media(plan: &Plan, kind: TrackKind) -> &Media {
    plan.media.iter().find(|media| media.kind == kind).unwrap()
}

fn video_pts(plan: &Plan) -> (u8, Option<u8>) {
    let video = media(plan, TrackKind::Video);
    (video.pt, video.rtx_pt)
}

// ---- Profiles ----

/// Case 32.
#[test]
fn a_viewer_gets_the_payload_type_of_the_streams_profile() {
    let cases = [
        (CHROMIUM_VIEWER, CONSTRAINED_BASELINE, 108, Some(109), false),
        (CHROMIUM_VIEWER, MAIN, 116, Some(117), false),
        // No High in this Chromium: 42e01f, which it decodes all the same.
        (CHROMIUM_VIEWER, HIGH, 108, Some(109), true),
        (FIREFOX_VIEWER, CONSTRAINED_BASELINE, 126, Some(127), false),
        (FIREFOX_VIEWER, HIGH, 126, Some(127), true),
        (SAFARI_VIEWER, CONSTRAINED_BASELINE, 98, Some(99), false),
        (SAFARI_VIEWER, HIGH, 96, Some(97), false),
        (SAFARI_VIEWER, MAIN, 96, Some(97), false),
    ];
    for (offer, profile, pt, rtx, mismatch) in cases {
        let plan = viewer(offer, profile);
        assert_eq!(video_pts(&plan), (pt, rtx), "{profile:02x?}");
        assert_eq!(plan.profile_mismatch, mismatch, "{profile:02x?}");
    }
}

#[test]
fn without_a_known_profile_constrained_baseline_is_chosen() {
    for (offer, pt) in [
        (CHROMIUM_VIEWER, 108),
        (FIREFOX_VIEWER, 126),
        (SAFARI_VIEWER, 98),
    ] {
        let plan = plan(offer, Role::Viewer, None).unwrap();
        assert_eq!(video_pts(&plan).0, pt);
        assert!(!plan.profile_mismatch);
    }
}

#[test]
fn x264_baseline_without_constraint_flags_fits_constrained_baseline() {
    let plan = viewer(FIREFOX_VIEWER, [0x42, 0x00, 0x1f]);
    assert_eq!(video_pts(&plan).0, 126);
    assert!(!plan.profile_mismatch);
}

#[test]
fn among_equal_profiles_the_level_decides() {
    let offer = CHROMIUM_VIEWER.replace("profile-level-id=42001f", "profile-level-id=42e034");
    assert_eq!(video_pts(&viewer(&offer, [0x42, 0xc0, 0x28])).0, 102);
    assert_eq!(video_pts(&viewer(&offer, [0x42, 0xc0, 0x1e])).0, 102);
}

/// Case 70: ffmpeg offers High, 640032.
#[test]
fn a_publishers_first_usable_profile_is_taken() {
    for (profile, flags) in [
        ("42e01f", 1),
        ("42001f", 1),
        ("4d001f", 1),
        ("64001f", 1),
        ("640c1f", 1),
        ("640032", 1),
        ("4D401F", 1),
    ] {
        let offer = FFMPEG.replace("640032", profile);
        let plan = publisher(&offer);
        assert_eq!(video_pts(&plan), (106, None), "{profile} {flags}");
        let fmtp = &media(&plan, TrackKind::Video).fmtp;
        assert!(fmtp.ends_with(&format!("profile-level-id={}", profile.to_lowercase())));
    }
    // 4:4:4 first, something usable behind it.
    let offer =
        CHROMIUM_PUBLISHER.replacen("profile-level-id=42001f", "profile-level-id=f4001f", 1);
    assert_ne!(video_pts(&publisher(&offer)).0, 102);
}

// ---- Real programs ----

#[test]
fn every_publisher_of_the_field_is_accepted() {
    let chromium = publisher(CHROMIUM_PUBLISHER);
    assert_eq!(video_pts(&chromium), (102, Some(103)));
    assert_eq!(
        media(&chromium, TrackKind::Video).remote_ssrc,
        Some((1_422_561_941, Some(736_096_030)))
    );
    assert!(chromium.transport_cc_extension.is_some() && chromium.mid_extension.is_some());
    assert!(!chromium.dtls_active);

    let firefox = publisher(FIREFOX_PUBLISHER);
    assert_eq!(video_pts(&firefox), (126, Some(127)));
    assert_eq!(firefox.media.len(), 2);
    let has_transport_cc = |media: &Media| media.feedback.contains(&"transport-cc");
    assert!(has_transport_cc(media(&firefox, TrackKind::Video)));
    assert!(!has_transport_cc(media(&firefox, TrackKind::Audio)));

    assert_eq!(video_pts(&publisher(SAFARI_PUBLISHER)), (96, Some(97)));

    let obs = publisher(OBS);
    assert_eq!(video_pts(&obs), (96, None));
    assert!(media(&obs, TrackKind::Video).nack);
    assert!(media(&obs, TrackKind::Audio).fmtp.contains("stereo=1"));
    assert_eq!(obs.mid_extension, Some(1));

    let ffmpeg = publisher(FFMPEG);
    assert!(ffmpeg.dtls_active);
    assert!(!media(&ffmpeg, TrackKind::Video).nack);
    assert_eq!(ffmpeg.mid_extension, None);
    assert_eq!(
        media(&ffmpeg, TrackKind::Video).remote_ssrc,
        Some((3_778_112_044, None))
    );

    let gstreamer = publisher(GSTREAMER);
    assert_eq!(video_pts(&gstreamer), (96, Some(97)));
    assert_eq!(media(&gstreamer, TrackKind::Audio).pt, 98);
    assert_eq!(media(&gstreamer, TrackKind::Audio).mid, "audio1");
}

#[test]
fn every_viewer_of_the_field_is_accepted() {
    for offer in [CHROMIUM_VIEWER, FIREFOX_VIEWER, SAFARI_VIEWER] {
        let plan = viewer(offer, CONSTRAINED_BASELINE);
        let video = media(&plan, TrackKind::Video);
        assert_eq!(video.feedback, ["nack", "nack pli", "ccm fir"]);
        // No feedback per packet from viewers: it would cost more than it tells.
        assert_eq!(plan.transport_cc_extension, None);
        assert!(plan.mid_extension.is_some());
        assert!(
            media(&plan, TrackKind::Audio)
                .fmtp
                .contains("stereo=1;sprop-stereo=1")
        );
    }
}

#[test]
fn line_ends_do_not_matter() {
    let lf = CHROMIUM_VIEWER.replace("\r\n", "\n");
    assert_eq!(video_pts(&viewer(&lf, MAIN)), (116, Some(117)));
    let padded = format!("\r\n\r\n{CHROMIUM_VIEWER}\r\n");
    assert_eq!(video_pts(&viewer(&padded, MAIN)), (116, Some(117)));
}

#[test]
fn sendrecv_is_tolerated_and_inactive_lines_are_refused_alone() {
    let offer = CHROMIUM_VIEWER.replace("a=recvonly", "a=sendrecv");
    assert_eq!(viewer(&offer, MAIN).media.len(), 2);
    assert_eq!(plan(&offer, Role::Publisher, None).unwrap().media.len(), 2);
    let (video, audio) = CHROMIUM_VIEWER.split_once("m=audio").unwrap();
    let offer = format!(
        "{video}m=audio{}",
        audio.replace("a=recvonly", "a=inactive")
    );
    let plan = viewer(&offer, MAIN);
    assert_eq!(plan.fates, [Fate::Media(0), Fate::Refused]);
}

#[test]
fn a_data_channel_beside_media_is_accepted_from_a_publisher_and_refused_to_a_viewer() {
    let with_data = |offer: &str| {
        offer.replace("a=group:BUNDLE 0 1", "a=group:BUNDLE 0 1 2")
            + "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\n\
               a=mid:2\r\na=sctp-port:5000\r\n"
    };
    let offer = Offer::decode(&with_data(CHROMIUM_PUBLISHER)).unwrap();
    let plan = negotiate(&offer, Role::Publisher, None).unwrap();
    assert_eq!(plan.fates, [Fate::Media(0), Fate::Media(1), Fate::Data]);
    assert!(plan.has_data());
    let plan = viewer(&with_data(CHROMIUM_VIEWER), MAIN);
    assert_eq!(plan.fates, [Fate::Media(0), Fate::Media(1), Fate::Refused]);
}

#[test]
fn a_single_track_needs_no_bundle() {
    let (video, _) = CHROMIUM_VIEWER.split_once("m=audio").unwrap();
    let offer = video
        .replace("a=group:BUNDLE 0 1\r\n", "")
        .replace("a=mid:0\r\n", "");
    let plan = viewer(&offer, MAIN);
    assert_eq!(plan.media.len(), 1);
    assert_eq!(plan.mid_extension, None);
}

#[test]
fn simulcast_layers_leave_the_source_open() {
    let offer = CHROMIUM_PUBLISHER.replace(
        "a=ssrc-group:FID 1422561941 736096030\r\n",
        "a=ssrc-group:SIM 1422561941 5 6\r\na=ssrc-group:FID 1422561941 736096030\r\n\
         a=ssrc:5 cname:x\r\na=ssrc:6 cname:x\r\n",
    );
    assert_eq!(
        media(&publisher(&offer), TrackKind::Video).remote_ssrc,
        None
    );
}

#[test]
fn extensions_whose_ids_differ_are_left_out() {
    let (video, audio) = CHROMIUM_VIEWER.split_once("m=audio").unwrap();
    let offer = format!(
        "{video}m=audio{}",
        audio.replace("a=extmap:9 ", "a=extmap:8 ")
    );
    let plan = viewer(&offer, MAIN);
    assert_eq!(plan.mid_extension, None);
    assert!(plan.media.iter().all(|media| media.extensions.is_empty()));
}

// ---- Refusals ----

/// Every kind of bad offer with its error and status.
#[test]
fn every_offer_that_cannot_work_has_a_name() {
    let whip = CHROMIUM_PUBLISHER;
    let whep = CHROMIUM_VIEWER;
    let without = |offer: &str, prefix: &str| -> String {
        offer
            .split_inclusive('\n')
            .filter(|line| !line.starts_with(prefix))
            .collect()
    };
    let large = format!("{whep}{}", "a=x\r\n".repeat(20_000));
    let many = format!("{whep}{}", "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n".repeat(20));
    let cases: Vec<(String, Role, &str, u16)> = vec![
        (large, Role::Viewer, "offer_too_large", 413),
        (String::new(), Role::Viewer, "offer_not_sdp", 400),
        ("hello".into(), Role::Viewer, "offer_not_sdp", 400),
        ("{\"type\":\"offer\"}".into(), Role::Viewer, "offer_not_sdp", 400),
        ("v=0\r\nnonsense\r\n".into(), Role::Viewer, "offer_malformed", 400),
        ("v=0\r\nm=video\r\n".into(), Role::Viewer, "offer_malformed", 400),
        (whep.replace("a=rtpmap:108 H264/90000", "a=rtpmap:108 H264"), Role::Viewer, "offer_malformed", 400),
        (whep.replace(":56:A0", ":5G:A0").replace("256 56", "256 5G"), Role::Viewer, "offer_malformed", 400),
        ("v=0\r\ns=-\r\n".into(), Role::Viewer, "offer_no_media", 422),
        (many, Role::Viewer, "offer_too_many_media", 422),
        (whep.replace("a=recvonly", "a=sendonly"), Role::Viewer, "offer_wrong_direction", 422),
        (whep.replace("a=recvonly", "a=inactive"), Role::Viewer, "offer_wrong_direction", 422),
        (whip.replace("a=sendonly", "a=recvonly"), Role::Publisher, "offer_wrong_direction", 422),
        (whip.replace("a=sendonly", "a=inactive"), Role::Publisher, "offer_wrong_direction", 422),
        (whep.replace("H264/90000", "H265/90000"), Role::Viewer, "offer_no_h264", 406),
        (whep.replace("packetization-mode=1", "packetization-mode=0"), Role::Viewer, "offer_h264_single_nal_only", 406),
        (without(FFMPEG, "a=fmtp:106"), Role::Publisher, "offer_h264_single_nal_only", 406),
        (FFMPEG.replace("640032", "f40032"), Role::Publisher, "offer_h264_profile_unsupported", 406),
        (whep.replace("opus/48000/2", "speex/16000"), Role::Viewer, "offer_no_opus", 406),
        (without(whep, "a=fingerprint"), Role::Viewer, "offer_no_fingerprint", 422),
        (whep.replace("a=fingerprint:sha-256", "a=fingerprint:sha-512"), Role::Viewer, "offer_fingerprint_unsupported", 422),
        (without(whep, "a=ice-ufrag"), Role::Viewer, "offer_no_ice_credentials", 422),
        (without(whep, "a=ice-pwd"), Role::Viewer, "offer_no_ice_credentials", 422),
        (whep.replace("a=extmap-allow-mixed", "a=ice-lite"), Role::Viewer, "offer_ice_lite", 422),
        (whep.replace("a=setup:actpass", "a=setup:holdconn"), Role::Viewer, "offer_setup_unsupported", 422),
        (without(whep, "a=group:BUNDLE"), Role::Viewer, "offer_no_bundle", 422),
        (whep.replace("a=group:BUNDLE 0 1", "a=group:BUNDLE 0"), Role::Viewer, "offer_no_bundle", 422),
        (without(whep, "a=rtcp-mux"), Role::Viewer, "offer_no_rtcp_mux", 422),
        (whep.replace("UDP/TLS/RTP/SAVPF", "RTP/AVP"), Role::Viewer, "offer_transport_unsupported", 422),
        (without(whep, "a=mid:1"), Role::Viewer, "offer_bad_mid", 422),
        (whep.replace("a=mid:1", "a=mid:0"), Role::Viewer, "offer_bad_mid", 422),
        (whep.replace("a=mid:1", "a=mid:a-very-long-name-of-it")
             .replace("BUNDLE 0 1", "BUNDLE 0 a-very-long-name-of-it"), Role::Viewer, "offer_bad_mid", 422),
        (whep.replace("m=audio", "m=text"), Role::Viewer, "offer_media_unsupported", 422),
        (whep.replace("m=audio", "m=video"), Role::Viewer, "offer_two_videos", 422),
        (whep.replace("m=video", "m=audio").replacen("VP8/90000", "opus/48000", 1), Role::Viewer, "offer_two_audios", 422),
        ("v=0\r\na=group:BUNDLE 0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:0\r\n".into(),
         Role::Viewer, "offer_no_media", 422),
    ];
    for (offer, role, reason, status) in cases {
        let error = refusal(&offer, role);
        assert_eq!(error.reason(), reason, "{error:?}");
        assert_eq!(error.status(), status, "{error:?}");
        // A sentence for a person, in one line.
        let text = error.to_string();
        assert!(
            text.len() > 20 && text.len() < 200 && !text.contains('\n'),
            "{text}"
        );
    }
}

#[test]
fn the_codecs_that_were_offered_are_named() {
    let offer = CHROMIUM_VIEWER.replace("H264/90000", "H265/90000");
    assert_eq!(
        refusal(&offer, Role::Viewer),
        OfferError::NoH264 {
            codecs: "VP8, VP9, H265, AV1".into()
        }
    );
}

#[test]
fn the_wrong_direction_is_explained() {
    let error = refusal(CHROMIUM_VIEWER, Role::Publisher);
    assert_eq!(
        error.to_string(),
        "a publisher must offer sendonly, the offer says recvonly"
    );
}

// ---- Nothing crashes ----

#[test]
fn truncated_and_mutated_offers_are_judged_without_panic() {
    // All of the short ones, samples of the long ones.
    let offers = [
        (FFMPEG, 1),
        (OBS, 3),
        (GSTREAMER, 7),
        (FIREFOX_VIEWER, 31),
        (CHROMIUM_PUBLISHER, 61),
    ];
    for (offer, step) in offers {
        for end in (0..offer.len()).step_by(step) {
            if let Some(text) = offer.get(..end) {
                let _ = plan(text, Role::Publisher, None);
            }
        }
        for bit in (0..offer.len() * 8).step_by(step) {
            let mut bytes = offer.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(text) = String::from_utf8(bytes) {
                let _ = plan(&text, Role::Viewer, Some(HIGH));
                let _ = plan(&text, Role::Publisher, None);
            }
        }
    }
}

#[test]
fn a_flood_of_wildcard_feedback_stays_small() {
    let mut offer = String::from("v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF");
    for pt in 0..128 {
        offer.push_str(&format!(" {pt}"));
    }
    offer.push_str("\r\n");
    while offer.len() < 60_000 {
        offer.push_str("a=rtcp-fb:* x\r\na=extmap:1 u\r\na=ssrc:1 x\r\n");
    }
    let offer = Offer::decode(&offer).unwrap();
    assert!(offer.sections[0].codecs[0].feedback.len() <= 16);
    assert!(offer.sections[0].extensions.len() <= 64);
}

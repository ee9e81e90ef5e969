//! Writes the SDP answer (RFC 8866, RFC 8829) and the fragment that answers an ICE restart
//! (RFC 8840).

use std::fmt::Write as _;

use super::ice::Credentials;
use super::negotiate::{Fate, Media, Plan};
use super::sdp::{Offer, Section};
use super::{Engine, Role};
use crate::media::TrackKind;

/// What we send on an m-line of a viewer.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) ssrc: u32,
    pub(super) rtx_ssrc: Option<u32>,
    pub(super) cname: String,
}

/// The whole answer. `sources` has one entry for each of `plan.media`.
pub(super) fn encode(
    engine: &Engine,
    offer: &Offer,
    plan: &Plan,
    credentials: &Credentials,
    session: u64,
    sources: &[Option<Source>],
) -> String {
    let mut out = String::with_capacity(2_048);
    // 2^62 - 1 is the largest that Firefox reads.
    let origin = session & ((1 << 62) - 1);
    push(&mut out, format_args!("v=0"));
    push(&mut out, format_args!("o=- {origin} 2 IN IP4 127.0.0.1"));
    push(&mut out, format_args!("s=-"));
    push(&mut out, format_args!("t=0 0"));
    if offer.bundle.is_some() {
        let mids: Vec<&str> = accepted(offer, plan)
            .filter_map(|section| section.mid.as_deref())
            .collect();
        push(&mut out, format_args!("a=group:BUNDLE {}", mids.join(" ")));
    }
    if plan.role == Role::Viewer {
        push(&mut out, format_args!("a=msid-semantic: WMS {STREAM_ID}"));
    }
    push(&mut out, format_args!("a=ice-lite"));
    let mut candidates = Some(&*engine.candidate_lines);
    for (section, fate) in offer.sections.iter().zip(&plan.fates) {
        match fate {
            Fate::Refused => refuse(&mut out, section),
            Fate::Data => {
                push(
                    &mut out,
                    format_args!("m=application 9 {} webrtc-datachannel", section.proto),
                );
                transport(&mut out, engine, plan, credentials, candidates.take());
                mid(&mut out, section);
                push(&mut out, format_args!("a=sctp-port:5000"));
                push(&mut out, format_args!("a=max-message-size:262144"));
            }
            Fate::Media(index) => {
                let Some(media) = plan.media.get(*index) else {
                    continue;
                };
                let source = sources.get(*index).and_then(Option::as_ref);
                media_line(&mut out, section, media);
                transport(&mut out, engine, plan, credentials, candidates.take());
                mid(&mut out, section);
                describe(&mut out, plan.role, media, source);
            }
        }
    }
    out
}

/// The answer to an ICE restart: new credentials, the same candidates.
pub(super) fn encode_fragment(engine: &Engine, tag: &Tag, credentials: &Credentials) -> String {
    let mut out = String::with_capacity(512);
    push(&mut out, format_args!("a=ice-lite"));
    push(&mut out, format_args!("a=ice-options:trickle"));
    push(&mut out, format_args!("{}", tag.media_line));
    push(&mut out, format_args!("a=mid:{}", tag.mid));
    push(&mut out, format_args!("a=ice-ufrag:{}", credentials.ufrag));
    push(&mut out, format_args!("a=ice-pwd:{}", credentials.password));
    out.push_str(&engine.candidate_lines);
    push(&mut out, format_args!("a=end-of-candidates"));
    out
}

/// The m-line that carries the transport of the bundle, remembered for ICE restarts.
#[derive(Clone, Debug)]
pub(super) struct Tag {
    pub(super) media_line: String,
    pub(super) mid: String,
}

impl Tag {
    pub(super) fn of(offer: &Offer, plan: &Plan) -> Self {
        let section = accepted(offer, plan).next();
        let media = section.map_or("video", |section| section.media.as_str());
        let proto = section.map_or("UDP/TLS/RTP/SAVPF", |section| section.proto.as_str());
        let format = section.map_or("0", |section| section.first_format.as_str());
        Self {
            media_line: format!("m={media} 9 {proto} {format}"),
            mid: section
                .and_then(|section| section.mid.clone())
                .unwrap_or_else(|| "0".to_owned()),
        }
    }
}

fn accepted<'a>(offer: &'a Offer, plan: &'a Plan) -> impl Iterator<Item = &'a Section> {
    offer
        .sections
        .iter()
        .zip(&plan.fates)
        .filter(|(_, fate)| **fate != Fate::Refused)
        .map(|(section, _)| section)
}

fn push(out: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = write!(out, "{line}\r\n");
}

/// RFC 3264 section 6: a refused m-line keeps its place, with port 0.
fn refuse(out: &mut String, section: &Section) {
    let (media, proto, format) = (&section.media, &section.proto, &section.first_format);
    push(out, format_args!("m={media} 0 {proto} {format}"));
    push(out, format_args!("c=IN IP4 0.0.0.0"));
    mid(out, section);
    push(out, format_args!("a=inactive"));
}

fn media_line(out: &mut String, section: &Section, media: &Media) {
    let (kind, proto, pt) = (&section.media, &section.proto, media.pt);
    match media.rtx_pt {
        Some(rtx) => push(out, format_args!("m={kind} 9 {proto} {pt} {rtx}")),
        None => push(out, format_args!("m={kind} 9 {proto} {pt}")),
    }
}

fn mid(out: &mut String, section: &Section) {
    if let Some(mid) = &section.mid {
        push(out, format_args!("a=mid:{mid}"));
    }
}

/// What stands on every accepted m-line; the candidates only on the first, which speaks
/// for the bundle (RFC 8843 section 10).
fn transport(
    out: &mut String,
    engine: &Engine,
    plan: &Plan,
    credentials: &Credentials,
    candidates: Option<&str>,
) {
    push(out, format_args!("c=IN IP4 0.0.0.0"));
    if let Some(candidates) = candidates {
        out.push_str(candidates);
        push(out, format_args!("a=end-of-candidates"));
    }
    push(out, format_args!("a=ice-ufrag:{}", credentials.ufrag));
    push(out, format_args!("a=ice-pwd:{}", credentials.password));
    push(out, format_args!("a=ice-options:trickle"));
    push(out, format_args!("a=fingerprint:{}", engine.fingerprint));
    let setup = if plan.dtls_active {
        "active"
    } else {
        "passive"
    };
    push(out, format_args!("a=setup:{setup}"));
}

fn describe(out: &mut String, role: Role, media: &Media, source: Option<&Source>) {
    for (id, uri) in &media.extensions {
        push(out, format_args!("a=extmap:{id} {uri}"));
    }
    let pt = media.pt;
    let (track, rtpmap) = match media.kind {
        TrackKind::Video => ("video", "H264/90000"),
        TrackKind::Audio => ("audio", "opus/48000/2"),
    };
    match role {
        Role::Publisher => push(out, format_args!("a=recvonly")),
        Role::Viewer => {
            push(out, format_args!("a=sendonly"));
            // One stream for both tracks: browsers keep lips in sync only within one.
            push(out, format_args!("a=msid:{STREAM_ID} {track}"));
        }
    }
    push(out, format_args!("a=rtcp-mux"));
    push(out, format_args!("a=rtpmap:{pt} {rtpmap}"));
    for value in &media.feedback {
        push(out, format_args!("a=rtcp-fb:{pt} {value}"));
    }
    push(out, format_args!("a=fmtp:{pt} {}", media.fmtp));
    if let Some(rtx) = media.rtx_pt {
        push(out, format_args!("a=rtpmap:{rtx} rtx/90000"));
        push(out, format_args!("a=fmtp:{rtx} apt={pt}"));
    }
    let Some(source) = source else { return };
    if let Some(rtx) = source.rtx_ssrc {
        push(out, format_args!("a=ssrc-group:FID {} {rtx}", source.ssrc));
    }
    for ssrc in [Some(source.ssrc), source.rtx_ssrc].into_iter().flatten() {
        push(out, format_args!("a=ssrc:{ssrc} cname:{}", source.cname));
        push(out, format_args!("a=ssrc:{ssrc} msid:{STREAM_ID} {track}"));
    }
}

/// The id of the one MediaStream that a viewer gets.
const STREAM_ID: &str = "gateway";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webrtc::EngineConfig;
    use crate::webrtc::negotiate::negotiate;

    fn answer(offer: &str, role: Role) -> String {
        let engine = Engine::new(EngineConfig {
            candidates: vec!["203.0.113.9:8000".parse().unwrap()],
            tcp: false,
            ..EngineConfig::default()
        })
        .unwrap();
        let offer = Offer::decode(offer).unwrap();
        let plan = negotiate(&offer, role, Some([0x4d, 0x40, 0x1f])).unwrap();
        let credentials = Credentials {
            ufrag: "ours".into(),
            password: "our-password-of-22-letters".into(),
        };
        let sources: Vec<Option<Source>> = plan
            .media
            .iter()
            .enumerate()
            .map(|(index, media)| {
                (role == Role::Viewer).then(|| Source {
                    ssrc: 100 + index as u32,
                    rtx_ssrc: media.rtx_pt.map(|_| 200 + index as u32),
                    cname: "cname".into(),
                })
            })
            .collect();
        encode(&engine, &offer, &plan, &credentials, 7, &sources)
            .lines()
            .filter(|line| !line.starts_with("a=fingerprint:sha-256 "))
            .map(|line| format!("{line}\n"))
            .collect()
    }

    #[test]
    fn a_viewers_answer_line_by_line() {
        let offer = include_str!("../../tests/fixtures/offers/chromium-156-recvonly.sdp");
        assert_eq!(
            answer(offer, Role::Viewer),
            "\
v=0
o=- 7 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1
a=msid-semantic: WMS gateway
a=ice-lite
m=video 9 UDP/TLS/RTP/SAVPF 116 117
c=IN IP4 0.0.0.0
a=candidate:1 1 udp 2130706431 203.0.113.9 8000 typ host
a=end-of-candidates
a=ice-ufrag:ours
a=ice-pwd:our-password-of-22-letters
a=ice-options:trickle
a=setup:passive
a=mid:0
a=extmap:9 urn:ietf:params:rtp-hdrext:sdes:mid
a=sendonly
a=msid:gateway video
a=rtcp-mux
a=rtpmap:116 H264/90000
a=rtcp-fb:116 nack
a=rtcp-fb:116 nack pli
a=rtcp-fb:116 ccm fir
a=fmtp:116 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=4d001f
a=rtpmap:117 rtx/90000
a=fmtp:117 apt=116
a=ssrc-group:FID 100 200
a=ssrc:100 cname:cname
a=ssrc:100 msid:gateway video
a=ssrc:200 cname:cname
a=ssrc:200 msid:gateway video
m=audio 9 UDP/TLS/RTP/SAVPF 111
c=IN IP4 0.0.0.0
a=ice-ufrag:ours
a=ice-pwd:our-password-of-22-letters
a=ice-options:trickle
a=setup:passive
a=mid:1
a=extmap:9 urn:ietf:params:rtp-hdrext:sdes:mid
a=sendonly
a=msid:gateway audio
a=rtcp-mux
a=rtpmap:111 opus/48000/2
a=fmtp:111 minptime=10;stereo=1;sprop-stereo=1;useinbandfec=1
a=ssrc:101 cname:cname
a=ssrc:101 msid:gateway audio
"
        );
    }

    #[test]
    fn ffmpegs_answer_line_by_line() {
        let offer = include_str!("../../tests/fixtures/offers/ffmpeg-8-whip.sdp");
        assert_eq!(
            answer(offer, Role::Publisher),
            "\
v=0
o=- 7 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1
a=ice-lite
m=audio 9 UDP/TLS/RTP/SAVPF 111
c=IN IP4 0.0.0.0
a=candidate:1 1 udp 2130706431 203.0.113.9 8000 typ host
a=end-of-candidates
a=ice-ufrag:ours
a=ice-pwd:our-password-of-22-letters
a=ice-options:trickle
a=setup:active
a=mid:0
a=recvonly
a=rtcp-mux
a=rtpmap:111 opus/48000/2
a=fmtp:111 minptime=10;useinbandfec=1
m=video 9 UDP/TLS/RTP/SAVPF 106
c=IN IP4 0.0.0.0
a=ice-ufrag:ours
a=ice-pwd:our-password-of-22-letters
a=ice-options:trickle
a=setup:active
a=mid:1
a=recvonly
a=rtcp-mux
a=rtpmap:106 H264/90000
a=fmtp:106 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=640032
"
        );
    }

    #[test]
    fn a_refused_line_keeps_its_place() {
        let offer = include_str!("../../tests/fixtures/offers/chromium-156-recvonly.sdp");
        let (video, audio) = offer.split_once("m=audio").unwrap();
        let offer = format!(
            "{}m=audio{audio}",
            video.replace("a=recvonly", "a=inactive")
        );
        let answer = answer(&offer, Role::Viewer);
        assert!(answer.contains("a=group:BUNDLE 1\n"));
        assert!(answer.contains("m=video 0 UDP/TLS/RTP/SAVPF 96\n"));
        // The candidates move to the first line that lives.
        let (refused, accepted) = answer.split_once("m=audio").unwrap();
        assert!(!refused.contains("a=candidate") && accepted.contains("a=candidate"));
    }
}

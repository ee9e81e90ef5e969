//! A browser without a screen: a real WebRTC peer (full ICE, DTLS, SRTP) in memory, with
//! the clock and the network in the test's hands.
//!
//! It makes offers as WHIP and WHEP clients do, publishes RTP packets that the test
//! writes, or receives and tells what came.

#![allow(dead_code, missing_docs)]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::crypto::dtls::DtlsProvider;
use str0m::format::{Codec, FormatParams};
use str0m::ice::{StunMessage, TransId};
use str0m::media::{Direction, Frequency, KeyframeRequestKind, MediaKind, Mid, Pt};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{ExtensionMap, RtpWrite};
use str0m::{Candidate, Event, Input, Output, Rtc};

/// What the browser does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    Publish,
    View,
}

/// A track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Video,
    Audio,
}

/// How the browser is made.
#[derive(Clone, Debug)]
pub struct BrowserConfig {
    pub does: Does,
    /// H.264 payload types in order of preference: number, profile-level-id. Empty: no video.
    pub h264: Vec<(u8, u32)>,
    /// Whether each of them has a retransmission payload type (the number plus one).
    pub rtx: bool,
    /// The Opus payload type. `None`: no audio.
    pub opus: Option<u8>,
    /// Other audio payload types that are offered: RED, comfort noise.
    pub other_audio: Vec<u8>,
    /// Local addresses; `true` for TCP.
    pub addresses: Vec<(SocketAddr, bool)>,
    /// Offer `a=setup:passive`, as ffmpeg's WHIP muxer does.
    pub setup_passive: bool,
    /// Offer header extensions. ffmpeg offers none.
    pub extensions: bool,
    /// Offer a data channel too.
    pub data_channel: bool,
    /// The sequence number of the first packet of each track.
    pub first_sequence: u64,
    /// Bytes to send instead of the certificate; the offer has their fingerprint.
    pub certificate: Option<Vec<u8>>,
    /// DTLS other than the library's.
    pub dtls: Option<&'static dyn DtlsProvider>,
}

impl BrowserConfig {
    pub fn new(does: Does) -> Self {
        Self {
            does,
            h264: vec![(102, 0x42001f), (108, 0x42e01f), (116, 0x4d001f)],
            rtx: true,
            opus: Some(111),
            other_audio: Vec::new(),
            addresses: vec![(SocketAddr::from(([198, 51, 100, 10], 50_000)), false)],
            setup_passive: false,
            extensions: true,
            data_channel: false,
            first_sequence: 100,
            certificate: None,
            dtls: None,
        }
    }
}

/// A datagram that the browser sends.
#[derive(Clone, Debug)]
pub struct Sent {
    pub tcp: bool,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub contents: Vec<u8>,
}

/// What happened at the browser.
#[derive(Clone, Debug)]
pub enum Seen {
    Connected,
    Rtp {
        kind: Kind,
        sequence: u64,
        rtp_time: u64,
        marker: bool,
        payload: Arc<[u8]>,
        at: Instant,
    },
    SenderReport {
        kind: Kind,
        ntp: SystemTime,
        rtp_time: u32,
        at: Instant,
    },
    KeyframeRequested,
    ChannelOpen,
    Closed,
}

struct Track {
    /// Whether anything was written.
    written: bool,
    kind: Kind,
    mid: Mid,
    pt: Pt,
    has_rtx: bool,
    sequence: u64,
}

pub struct Browser {
    pub rtc: Rtc,
    config: BrowserConfig,
    pending: Option<SdpPendingOffer>,
    offer: String,
    tracks: Vec<Track>,
    /// Ours and the server's fragment, and the server's password, for checks of our own.
    local_ufrag: String,
    remote_ufrag: String,
    remote_password: String,
    remote: Option<SocketAddr>,
    created: Instant,
    timeout: Instant,
    sent: Vec<Sent>,
    seen: VecDeque<Seen>,
}

impl Browser {
    pub fn new(config: BrowserConfig, now: Instant) -> Self {
        let mut crypto = str0m::crypto::from_feature_flags();
        crypto.dtls_provider = config.dtls.unwrap_or(crypto.dtls_provider);
        let mut builder = Rtc::builder().set_rtp_mode(true).clear_codecs();
        if let Some(certificate) = &config.certificate {
            let mut made = crypto.dtls_provider.generate_certificate().unwrap();
            made.certificate.clone_from(certificate);
            builder = builder.set_dtls_cert(made);
        }
        builder = builder.set_crypto_provider(Arc::new(crypto));
        if !config.extensions {
            builder = builder.set_extension_map(ExtensionMap::empty());
        }
        for (pt, profile) in &config.h264 {
            let rtx = config.rtx.then(|| Pt::new_with_value(pt + 1));
            builder
                .codec_config()
                .add_h264(Pt::new_with_value(*pt), rtx, true, *profile);
        }
        if let Some(pt) = config.opus {
            builder.codec_config().add_config(
                Pt::new_with_value(pt),
                None,
                Codec::Opus,
                Frequency::FORTY_EIGHT_KHZ,
                Some(2),
                FormatParams {
                    min_p_time: Some(10),
                    use_inband_fec: Some(true),
                    ..FormatParams::default()
                },
            );
        }
        for pt in &config.other_audio {
            builder.codec_config().add_config(
                Pt::new_with_value(*pt),
                None,
                Codec::PCMU,
                Frequency::EIGHT_KHZ,
                None,
                FormatParams::default(),
            );
        }
        let mut rtc = builder.build(now);
        for (address, tcp) in &config.addresses {
            let protocol = if *tcp { "tcp" } else { "udp" };
            rtc.add_local_candidate(Candidate::host(*address, protocol).unwrap());
        }
        let direction = match config.does {
            Does::Publish => Direction::SendOnly,
            Does::View => Direction::RecvOnly,
        };
        let mut api = rtc.sdp_api();
        let mut kinds = Vec::new();
        if config.opus.is_some() {
            kinds.push((Kind::Audio, MediaKind::Audio));
        }
        if !config.h264.is_empty() {
            kinds.push((Kind::Video, MediaKind::Video));
        }
        let mut tracks = Vec::new();
        for (kind, media) in kinds {
            let mid = api.add_media(media, direction, Some("stream".into()), None, None);
            tracks.push(Track {
                kind,
                mid,
                pt: Pt::new_with_value(0),
                has_rtx: false,
                sequence: config.first_sequence,
                written: false,
            });
        }
        if config.data_channel {
            api.add_channel("chat".into());
        }
        let (offer, pending) = api.apply().unwrap();
        let mut offer = offer.to_sdp_string();
        if config.setup_passive {
            offer = offer.replace("a=setup:actpass", "a=setup:passive");
        }
        let local_ufrag = attribute(&offer, "ice-ufrag").unwrap();
        Self {
            rtc,
            config,
            pending: Some(pending),
            offer,
            tracks,
            local_ufrag,
            remote_ufrag: String::new(),
            remote_password: String::new(),
            remote: None,
            created: now,
            timeout: now,
            sent: Vec::new(),
            seen: VecDeque::new(),
        }
    }

    /// The offer, as it goes into the body of the POST.
    pub fn offer(&self) -> &str {
        &self.offer
    }

    /// Takes the answer of the 201.
    pub fn accept_answer(&mut self, answer: &str) {
        self.remote_ufrag = attribute(answer, "ice-ufrag").unwrap();
        self.remote_password = attribute(answer, "ice-pwd").unwrap();
        let candidate = attribute(answer, "candidate").unwrap();
        let words: Vec<&str> = candidate.split(' ').collect();
        self.remote = Some(SocketAddr::new(
            words[4].parse().unwrap(),
            words[5].parse().unwrap(),
        ));
        for track in &mut self.tracks {
            let name = match track.kind {
                Kind::Video => "m=video",
                Kind::Audio => "m=audio",
            };
            let line = answer.lines().find(|line| line.starts_with(name)).unwrap();
            let mut formats = line.split(' ').skip(3);
            track.pt = Pt::new_with_value(formats.next().unwrap().parse().unwrap());
            track.has_rtx = formats.next().is_some();
        }
        let answer = SdpAnswer::from_sdp_string(answer).expect("the answer is SDP");
        let pending = self.pending.take().expect("one answer per offer");
        self.rtc
            .sdp_api()
            .accept_answer(pending, answer)
            .expect("the answer fits the offer");
        self.drain();
        // The library starts its clock with the first timeout, whatever it says before.
        self.timeout = self.created;
    }

    pub fn handle_datagram(
        &mut self,
        now: Instant,
        tcp: bool,
        source: SocketAddr,
        destination: SocketAddr,
        bytes: &[u8],
    ) {
        let protocol = if tcp { Protocol::Tcp } else { Protocol::Udp };
        if let Ok(receive) = Receive::new(protocol, source, destination, bytes) {
            if self.rtc.handle_input(Input::Receive(now, receive)).is_err() {
                // As a page: it gives up.
                self.rtc.disconnect();
                self.seen.push_back(Seen::Closed);
            }
            self.drain();
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.rtc.handle_input(Input::Timeout(now)).unwrap();
        self.drain();
    }

    pub fn next_timeout(&self) -> Instant {
        self.timeout
    }

    pub fn take_datagrams(&mut self, into: &mut Vec<Sent>) {
        into.append(&mut self.sent);
    }

    pub fn poll_event(&mut self) -> Option<Seen> {
        self.seen.pop_front()
    }

    /// Publishes one frame's packets; the marker goes on the last.
    pub fn write(&mut self, now: Instant, kind: Kind, payloads: &[Arc<[u8]>], rtp_time: u32) {
        self.write_captured(now, now, kind, payloads, rtp_time);
    }

    /// The same for a frame that was captured at `capture`, of which sender reports tell.
    pub fn write_captured(
        &mut self,
        now: Instant,
        capture: Instant,
        kind: Kind,
        payloads: &[Arc<[u8]>],
        rtp_time: u32,
    ) {
        let Some(track) = self.tracks.iter_mut().find(|track| track.kind == kind) else {
            return;
        };
        let mut api = self.rtc.direct_api();
        let stream = api.stream_tx_by_mid(track.mid, None).unwrap();
        if !std::mem::replace(&mut track.written, true) && track.has_rtx {
            // Browsers repeat what they are asked for, however much that is.
            stream.set_rtx_cache(1_024, Duration::from_secs(1), None);
        }
        for (index, payload) in payloads.iter().enumerate() {
            let sequence = track.sequence;
            track.sequence += 1;
            let is_last = index + 1 == payloads.len();
            stream.write_rtp(
                RtpWrite::new(
                    track.pt,
                    sequence.into(),
                    rtp_time,
                    capture,
                    Arc::clone(payload),
                )
                .marker(kind == Kind::Video && is_last)
                .nackable(track.has_rtx),
            );
        }
        self.handle_timeout(now);
    }

    /// A sound packet of another payload type, at its place in the sequence.
    pub fn write_other(&mut self, now: Instant, pt: u8, payload: Arc<[u8]>, rtp_time: u32) {
        let Some(track) = self.tracks.iter_mut().find(|t| t.kind == Kind::Audio) else {
            return;
        };
        let mut api = self.rtc.direct_api();
        let stream = api.stream_tx_by_mid(track.mid, None).unwrap();
        let sequence = track.sequence;
        track.sequence += 1;
        let pt = Pt::new_with_value(pt);
        stream.write_rtp(RtpWrite::new(pt, sequence.into(), rtp_time, now, payload));
        self.handle_timeout(now);
    }

    /// One packet from an SSRC of the test's choice, as of a browser with many sources.
    pub fn write_from(&mut self, now: Instant, kind: Kind, ssrc: u32, payload: Arc<[u8]>) {
        let Some(track) = self.tracks.iter().find(|track| track.kind == kind) else {
            return;
        };
        let mut api = self.rtc.direct_api();
        // One source at a time: of several on one track the library polls any.
        let old = api
            .stream_tx_by_mid(track.mid, None)
            .map(|stream| stream.ssrc());
        old.map(|old| api.remove_stream_tx(old));
        api.declare_stream_tx(ssrc.into(), None, track.mid, None)
            .write_rtp(RtpWrite::new(track.pt, 1_u64.into(), 0, now, payload));
        self.handle_timeout(now);
    }

    /// A viewer's PLI.
    pub fn request_keyframe(&mut self, now: Instant) {
        let mid = self
            .tracks
            .iter()
            .find(|track| track.kind == Kind::Video)
            .unwrap()
            .mid;
        let mut api = self.rtc.direct_api();
        let stream = api.stream_rx_by_mid(mid, None).expect("video has come");
        stream.request_keyframe(KeyframeRequestKind::Pli);
        self.handle_timeout(now);
    }

    /// A connectivity check from an address of the test's choice, properly signed, as a
    /// browser sends when it moves to another network.
    pub fn check_from(&self, source: SocketAddr, nominate: bool) -> Sent {
        self.signed_check(source, nominate, &self.remote_password)
    }

    /// The same from somebody who does not know the password.
    pub fn forged_check_from(&self, source: SocketAddr) -> Sent {
        self.signed_check(source, true, "guessed-guessed-guessed")
    }

    fn signed_check(&self, source: SocketAddr, nominate: bool, password: &str) -> Sent {
        let username = format!("{}:{}", self.remote_ufrag, self.local_ufrag);
        let message =
            StunMessage::binding_request(&username, TransId::new(), true, 77, 1_000, nominate);
        let crypto = str0m::crypto::from_feature_flags();
        let mut contents = vec![0; 512];
        let len = message
            .to_bytes(Some(password.as_bytes()), &mut contents, |key, parts| {
                crypto.sha1_hmac_provider.sha1_hmac(key, parts)
            })
            .unwrap();
        contents.truncate(len);
        Sent {
            tcp: false,
            source,
            destination: self.remote.expect("answered"),
            contents,
        }
    }

    /// Closes as a page does: DTLS close_notify.
    pub fn close(&mut self, now: Instant) {
        self.rtc.close().unwrap();
        self.handle_timeout(now);
    }

    fn drain(&mut self) {
        loop {
            match self.rtc.poll_output().unwrap() {
                Output::Timeout(at) => {
                    self.timeout = at;
                    return;
                }
                Output::Transmit(transmit) => self.sent.push(Sent {
                    tcp: transmit.proto == Protocol::Tcp,
                    source: transmit.source,
                    destination: transmit.destination,
                    contents: transmit.contents.into(),
                }),
                Output::Event(event) => self.on_event(event),
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        let kind_of = |pt: Pt| {
            self.tracks
                .iter()
                .find(|track| track.pt == pt)
                .map(|track| track.kind)
        };
        let seen = match event {
            Event::Connected => Seen::Connected,
            Event::RtpPacket(packet) => {
                let Some(kind) = kind_of(packet.header.payload_type) else {
                    return;
                };
                Seen::Rtp {
                    kind,
                    sequence: *packet.seq_no,
                    rtp_time: packet.time.numer(),
                    marker: packet.header.marker,
                    payload: packet.payload,
                    at: packet.timestamp,
                }
            }
            Event::SenderFeedback(feedback) => {
                let Some(track) = self.tracks.iter().find(|t| t.mid == feedback.mid) else {
                    return;
                };
                Seen::SenderReport {
                    kind: track.kind,
                    ntp: feedback.sender_info.ntp_time,
                    rtp_time: feedback.sender_info.rtp_time.numer() as u32,
                    at: feedback.received_at,
                }
            }
            Event::KeyframeRequest(_) => Seen::KeyframeRequested,
            Event::ChannelOpen(..) => Seen::ChannelOpen,
            Event::Closed => Seen::Closed,
            _ => return,
        };
        self.seen.push_back(seen);
    }
}

/// The value of the first `a=name:` line.
pub fn attribute(sdp: &str, name: &str) -> Option<String> {
    let prefix = format!("a={name}:");
    sdp.lines()
        .find_map(|line| line.strip_prefix(&prefix))
        .map(|value| value.trim_end().to_owned())
}

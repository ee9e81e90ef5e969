//! [`RtcLeg`]: one PeerConnection of a simulated browser: its picture and voice on the way to the
//! gateway, or the other side's on the way back.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::UdpSocket;
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::media::{Direction, MediaKind, Mid, Pt};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{RtpPacket, RtpWrite};
use str0m::{Candidate, Event, Input, Output, Rtc};

use super::media::{CallMedia, Playing};
use crate::http::tcp_reason;
use crate::webrtc::{Crypto, build_rtc, with_one_candidate};

/// One PeerConnection.
pub struct RtcLeg {
    /// To be registered.
    pub udp: UdpSocket,
    local: SocketAddr,
    server: SocketAddr,
    remote: Option<SocketAddr>,
    rtc: Rtc,
    pending: Option<SdpPendingOffer>,
    timeout: Instant,
    video: Track,
    audio: Track,
    /// What it sends, once it is connected.
    sends: Option<Playing>,
    is_publisher: bool,
    /// What came.
    pub seen: RtcSeen,
}

struct Track {
    mid: Mid,
    pt: Option<u8>,
    sequence: u64,
}

/// What a subscription brought.
#[derive(Clone, Debug, Default)]
pub struct RtcSeen {
    /// When the first key frame was whole.
    pub first_picture: Option<Instant>,
    /// When the first sound came.
    pub first_sound: Option<Instant>,
    /// Pictures.
    pub pictures: u64,
    /// Opus packets.
    pub sounds: u64,
    /// Opus packets that are missing between others.
    pub sounds_missing: u64,
    /// Opus packets that came more than [`LATE`] after the time that the soonest of them suggest.
    pub sounds_late: u64,
    last_sound: Option<u64>,
    last_picture: Option<u64>,
    /// The least of arrival minus RTP time so far, µs.
    soonest_us: Option<i64>,
}

impl RtcLeg {
    /// A connection with its offer.
    ///
    /// # Errors
    /// A short reason.
    pub fn new(
        server: SocketAddr,
        is_publisher: bool,
        crypto: &Crypto,
        now: Instant,
    ) -> Result<(Self, String), String> {
        let io_reason = |error: std::io::Error| tcp_reason(error.kind());
        // The address that packets to the server leave from.
        let probe = std::net::UdpSocket::bind((unspecified(server), 0)).map_err(io_reason)?;
        probe.connect(server).map_err(io_reason)?;
        let local = probe.local_addr().map_err(io_reason)?.ip();
        let udp = UdpSocket::bind(SocketAddr::new(local, 0)).map_err(io_reason)?;
        let local = udp.local_addr().map_err(io_reason)?;
        let mut rtc = build_rtc(crypto, now);
        rtc.add_local_candidate(Candidate::host(local, "udp").map_err(|_| "no_local_candidate")?);
        let direction = match is_publisher {
            true => Direction::SendOnly,
            false => Direction::RecvOnly,
        };
        let mut api = rtc.sdp_api();
        let mut track = |kind| Track {
            mid: api.add_media(kind, direction, Some("call".into()), None, None),
            pt: None,
            sequence: 1,
        };
        let (audio, video) = (track(MediaKind::Audio), track(MediaKind::Video));
        let (offer, pending) = api.apply().ok_or("no_offer")?;
        let leg = Self {
            udp,
            local,
            server,
            remote: None,
            rtc,
            pending: Some(pending),
            timeout: now,
            video,
            audio,
            sends: None,
            is_publisher,
            seen: RtcSeen::default(),
        };
        Ok((leg, offer.to_sdp_string()))
    }

    /// The gateway answered.
    ///
    /// # Errors
    /// A short reason.
    pub fn answer(&mut self, now: Instant, sdp: &str) -> Result<(), String> {
        let pending = self.pending.take().ok_or("answered_twice")?;
        let (remote, sdp) =
            with_one_candidate(sdp, self.server, self.local).ok_or("answer_without_candidate")?;
        for (track, name) in [(&mut self.video, "m=video "), (&mut self.audio, "m=audio ")] {
            let line = sdp.lines().find(|line| line.starts_with(name));
            let pt = line.and_then(|line| line.split(' ').nth(3));
            track.pt = pt.and_then(|pt| pt.trim().parse().ok());
        }
        let answer = SdpAnswer::from_sdp_string(&sdp).map_err(|_| "answer_malformed")?;
        (self.rtc.sdp_api())
            .accept_answer(pending, answer)
            .map_err(|_| "answer_does_not_fit")?;
        self.udp.connect(remote).map_err(|e| tcp_reason(e.kind()))?;
        self.remote = Some(remote);
        self.input(Input::Timeout(now), now)
    }

    /// The socket can be read.
    ///
    /// # Errors
    /// A short reason.
    pub fn on_ready(&mut self, now: Instant, buffer: &mut [u8]) -> Result<(), String> {
        let Some(remote) = self.remote else {
            return Ok(());
        };
        loop {
            match self.udp.recv(buffer) {
                Ok(count) => {
                    let received =
                        Receive::new(Protocol::Udp, remote, self.local, &buffer[..count]);
                    if let Ok(receive) = received {
                        self.input(Input::Receive(now, receive), now)?;
                    }
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return Ok(()),
                    ErrorKind::Interrupted | ErrorKind::ConnectionRefused => {}
                    kind => return Err(tcp_reason(kind)),
                },
            }
        }
    }

    /// When [`Self::on_due`] is due.
    pub fn next_due(&self, media: &CallMedia) -> Option<Instant> {
        let timeout = self.remote.map(|_| self.timeout);
        let sends = self.sends.as_ref().map(|playing| playing.next_due(media));
        [timeout, sends].into_iter().flatten().min()
    }

    /// Sends what is due, and keeps the connection alive.
    ///
    /// # Errors
    /// A short reason.
    pub fn on_due(&mut self, now: Instant, media: &CallMedia) -> Result<(), String> {
        let mut is_written = false;
        if let Some(playing) = &mut self.sends {
            while let Some(due) = playing.take(media, now) {
                is_written = true;
                let (track, is_video) = match due.is_video {
                    true => (&mut self.video, true),
                    false => (&mut self.audio, false),
                };
                let Some(pt) = track.pt else { continue };
                let mut api = self.rtc.direct_api();
                let stream = api.stream_tx_by_mid(track.mid, None).ok_or("no_stream")?;
                let count = due.payloads.len();
                for (index, payload) in due.payloads.iter().enumerate() {
                    let sequence = track.sequence.into();
                    track.sequence += 1;
                    let pt = Pt::new_with_value(pt);
                    let write = RtpWrite::new(pt, sequence, due.rtp_time, now, Arc::clone(payload));
                    let is_last = is_video && index + 1 == count;
                    stream.write_rtp(write.marker(is_last).nackable(is_video));
                }
            }
        }
        if is_written || (self.remote.is_some() && self.timeout <= now) {
            self.input(Input::Timeout(now), now)?;
        }
        Ok(())
    }

    fn input(&mut self, input: Input<'_>, now: Instant) -> Result<(), String> {
        let failed = |_| "webrtc_error".to_owned();
        self.rtc.handle_input(input).map_err(failed)?;
        loop {
            match self.rtc.poll_output().map_err(failed)? {
                Output::Timeout(at) => {
                    self.timeout = at;
                    return Ok(());
                }
                Output::Transmit(transmit) => {
                    // What the kernel does not take is lost, as on any link.
                    let _ = self.udp.send(&transmit.contents);
                }
                Output::Event(Event::Connected) => {
                    self.sends = self.is_publisher.then(|| Playing::new(now));
                }
                Output::Event(Event::RtpPacket(packet)) => self.packet(now, &packet),
                Output::Event(Event::KeyframeRequest(_)) => {
                    if let Some(playing) = &mut self.sends {
                        playing.want_key();
                    }
                }
                Output::Event(_) => {}
            }
        }
    }

    fn packet(&mut self, now: Instant, packet: &RtpPacket) {
        let pt = Some(*packet.header.payload_type);
        let seen = &mut self.seen;
        if pt == self.audio.pt && !packet.payload.is_empty() {
            seen.sound(now, *packet.seq_no, packet.time.numer());
        } else if pt == self.video.pt && packet.header.marker {
            let is_key = is_key_part(&packet.payload);
            seen.picture(now, packet.time.numer(), is_key);
        }
    }
}

impl RtcSeen {
    fn sound(&mut self, now: Instant, sequence: u64, rtp_time: u64) {
        let first = *self.first_sound.get_or_insert(now);
        self.sounds += 1;
        if let Some(last) = self.last_sound.filter(|&last| sequence > last) {
            self.sounds_missing += sequence - last - 1;
        }
        self.last_sound = Some(self.last_sound.unwrap_or(sequence).max(sequence));
        let media_us = (rtp_time * 1_000 / 48) as i64;
        let behind = (now - first).as_micros() as i64 - media_us;
        let soonest = self
            .soonest_us
            .map_or(behind, |soonest| soonest.min(behind));
        self.soonest_us = Some(soonest);
        if behind - soonest > LATE.as_micros() as i64 {
            self.sounds_late += 1;
        }
    }

    /// The last packet of a picture came. The first picture is the key frame of the start: a gateway
    /// that keeps its promise sends nothing before it.
    fn picture(&mut self, now: Instant, rtp_time: u64, is_key: bool) {
        if self.first_picture.is_none() {
            if !is_key {
                return;
            }
            self.first_picture = Some(now);
        }
        if self.last_picture.replace(rtp_time) != Some(rtp_time) {
            self.pictures += 1;
        }
    }
}

/// Whether an RTP payload is (part of) an IDR slice (RFC 6184 section 5.2).
fn is_key_part(payload: &[u8]) -> bool {
    match payload {
        [first, second, ..] if first & 0x1f == 28 => second & 0x1f == 5,
        [first, ..] => first & 0x1f == 5,
        [] => false,
    }
}

fn unspecified(like: SocketAddr) -> std::net::IpAddr {
    match like {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// What a browser's jitter buffer takes without a word; more is heard.
const LATE: Duration = Duration::from_millis(120);

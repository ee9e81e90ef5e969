//! [`RtcPeer`]: a publisher by WHIP or viewer by WHEP (RFC 9725), on sockets of its own.
//!
//! ```text
//!  Asking ──201──▶ Connecting ──DTLS──▶ up ──leave──▶ Leaving ──answered──▶ gone
//!    POST             ICE                               DELETE
//! ```

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::{TcpStream, UdpSocket};
use rtmp_gateway::webrtc::dtls;
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::config::DtlsCert;
use str0m::crypto::CryptoProvider;
use str0m::format::{Codec, FormatParams};
use str0m::media::{Direction, Frequency, KeyframeRequestKind, MediaKind, Mid, Pt};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{RtpPacket, RtpWrite};
use str0m::{Candidate, Event, IceConnectionState, Input, Output, Rtc};

use crate::clip::What;
use crate::http::{HttpCall, HttpUrl, Response, tcp_reason};
use crate::link::Way;
use crate::rtp::{RtpPictures, RtpSound, VideoPacket};
use crate::scope::Scope;
use crate::sender::Sender;
use crate::watch::{Picture, Watch};

/// What all sessions share: made once, because it costs a millisecond.
#[derive(Clone)]
pub struct Crypto {
    provider: Arc<CryptoProvider>,
    certificate: DtlsCert,
}

impl Crypto {
    /// # Errors
    /// If the library fails its own tests.
    pub fn new() -> Result<Self, String> {
        let told = |error: str0m::crypto::CryptoError| error.to_string();
        Ok(Self {
            provider: Arc::new(dtls::crypto_provider().map_err(told)?),
            certificate: dtls::certificate().map_err(told)?,
        })
    }
}

/// One session.
pub struct RtcPeer {
    /// The request under way. Its socket is to be registered with the loop.
    pub http: Option<HttpCall>,
    /// The socket of the media. To be registered as well.
    pub udp: UdpSocket,
    local: SocketAddr,
    server: SocketAddr,
    url: HttpUrl,
    session_url: Option<HttpUrl>,
    remote: Option<SocketAddr>,
    /// When the answer to the offer came.
    answered: Option<Instant>,
    rtc: Rtc,
    pending: Option<SdpPendingOffer>,
    timeout: Instant,
    video: Track,
    audio: Track,
    pictures: RtpPictures,
    sound: RtpSound,
    sender: Option<Sender>,
    is_publisher: bool,
    /// No key frame is asked for before.
    ask_again: Instant,
}

struct Track {
    mid: Mid,
    pt: Option<u8>,
    is_nackable: bool,
    sequence: u64,
}

impl RtcPeer {
    /// Begins with the offer.
    ///
    /// # Errors
    /// A short reason.
    pub fn new(
        server: SocketAddr,
        url: HttpUrl,
        is_publisher: bool,
        crypto: &Crypto,
        now: Instant,
    ) -> Result<Self, String> {
        let io_reason = |error: std::io::Error| tcp_reason(error.kind());
        let stream = TcpStream::connect(server).map_err(io_reason)?;
        // Where packets to the server leave, they come back to.
        let local = stream.local_addr().map_err(io_reason)?.ip();
        let udp = UdpSocket::bind(SocketAddr::new(local, 0)).map_err(io_reason)?;
        let local = udp.local_addr().map_err(io_reason)?;
        let mut rtc = build_rtc(crypto, now);
        let candidate = Candidate::host(local, "udp").map_err(|_| "no_local_candidate")?;
        rtc.add_local_candidate(candidate);
        let direction = match is_publisher {
            true => Direction::SendOnly,
            false => Direction::RecvOnly,
        };
        let mut api = rtc.sdp_api();
        let mut track = |kind| Track {
            mid: api.add_media(kind, direction, Some("flood".into()), None, None),
            pt: None,
            is_nackable: false,
            sequence: 1,
        };
        let (audio, video) = (track(MediaKind::Audio), track(MediaKind::Video));
        let (offer, pending) = api.apply().ok_or("no_offer")?;
        let http = HttpCall::on(stream, &url, "POST", Some(&offer.to_sdp_string()));
        Ok(Self {
            http: Some(http),
            udp,
            local,
            server,
            url,
            session_url: None,
            remote: None,
            answered: None,
            rtc,
            pending: Some(pending),
            timeout: now,
            video,
            audio,
            pictures: RtpPictures::default(),
            sound: RtpSound::default(),
            sender: None,
            is_publisher,
            ask_again: now,
        })
    }

    /// The socket of the request is ready; answers whether the request is done with.
    pub fn on_http(&mut self, watch: &mut Watch, scope: &mut Scope<'_>) -> Result<bool, String> {
        let Some(http) = &mut self.http else {
            return Ok(false);
        };
        let Some(response) = http.advance(&mut scope.buffers.tcp)? else {
            return Ok(false);
        };
        if self.pending.is_some() {
            self.on_answer(&response, watch, scope)?;
        }
        Ok(true)
    }

    /// The socket of the media can be read.
    pub fn on_datagrams(&mut self, watch: &mut Watch, scope: &mut Scope<'_>) -> Result<(), String> {
        loop {
            let mut buffer = std::mem::take(&mut scope.buffers.udp);
            let received = self.udp.recv(&mut buffer);
            scope.now = Instant::now();
            let outcome = match &received {
                Ok(count) => {
                    let bytes = &buffer[..*count];
                    match scope.link.pass(scope.now, scope.token, Way::In, bytes) {
                        true => self.receive(bytes, watch, scope),
                        false => Ok(()),
                    }
                }
                Err(_) => Ok(()),
            };
            scope.buffers.udp = buffer;
            outcome?;
            match received {
                Ok(_) => {}
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return Ok(()),
                    ErrorKind::Interrupted => {}
                    // ICE finds out whether anybody is there.
                    ErrorKind::ConnectionRefused => {}
                    kind => return Err(format!("udp_{kind:?}").to_lowercase()),
                },
            }
        }
    }

    /// A datagram came, perhaps later than it did.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        watch: &mut Watch,
        scope: &mut Scope<'_>,
    ) -> Result<(), String> {
        let Some(remote) = self.remote else {
            return Ok(());
        };
        if !self.is_publisher && is_rtp(bytes) {
            scope.tally.flow.bytes += bytes.len() as u64;
            scope.tally.flow.packets += 1;
        }
        let Ok(receive) = Receive::new(Protocol::Udp, remote, self.local, bytes) else {
            return Ok(());
        };
        self.input(Input::Receive(scope.now, receive), watch, scope)
    }

    /// A datagram leaves that was kept back.
    pub fn send(&mut self, bytes: &[u8]) {
        // What the kernel does not take is lost, as on any link.
        let _ = self.udp.send(bytes);
    }

    /// When something is to be done.
    pub fn next_due(&self, scope: &Scope<'_>) -> Option<Instant> {
        let timeout = self.remote.map(|_| self.timeout);
        let sender = self.sender.as_ref().zip(scope.clip);
        let due = sender.map(|(sender, clip)| sender.due(clip.whip()));
        match (timeout, due) {
            (Some(timeout), Some(due)) => Some(timeout.min(due)),
            (timeout, due) => timeout.or(due),
        }
    }

    /// Does what is due.
    pub fn on_due(&mut self, watch: &mut Watch, scope: &mut Scope<'_>) -> Result<(), String> {
        let mut is_written = false;
        if let (Some(sender), Some(clip)) = (&mut self.sender, scope.clip) {
            while let Some(ready) = sender.take(clip.whip(), scope.now) {
                is_written = true;
                let now_us = scope.clock.us(scope.now);
                let scratch = &mut scope.buffers.scratch;
                let payloads = clip.rtp_payloads(ready.what, || sender.stamp(now_us), scratch);
                let (track, rate_hz) = match ready.what {
                    What::Video(_) => (&mut self.video, 90_000),
                    What::Audio(_) => (&mut self.audio, 48_000),
                };
                match ready.what {
                    What::Video(_) => scope.tally.flow.pictures += 1,
                    What::Audio(_) => scope.tally.flow.sounds += 1,
                }
                let Some(pt) = track.pt else {
                    continue;
                };
                // Wraps as RTP's does.
                let rtp_time = (ready.time.as_micros() * rate_hz / 1_000_000) as u32;
                let mut api = self.rtc.direct_api();
                let stream = api.stream_tx_by_mid(track.mid, None).ok_or("no_stream")?;
                let count = payloads.len();
                for (index, payload) in payloads.into_iter().enumerate() {
                    let pt = Pt::new_with_value(pt);
                    let marker = index + 1 == count && matches!(ready.what, What::Video(_));
                    let sequence = track.sequence.into();
                    track.sequence += 1;
                    let write = RtpWrite::new(pt, sequence, rtp_time, scope.now, payload);
                    stream.write_rtp(write.marker(marker).nackable(track.is_nackable));
                }
            }
        }
        if is_written || self.timeout <= scope.now {
            self.input(Input::Timeout(scope.now), watch, scope)?;
        }
        Ok(())
    }

    /// Ends the session with a DELETE; answers whether there is one to wait for.
    pub fn leave(&mut self) -> bool {
        self.http = None;
        let Some(url) = self.session_url.take() else {
            return false;
        };
        self.http = HttpCall::new(self.server, &url, "DELETE", None).ok();
        self.sender = None;
        self.remote = None;
        self.http.is_some()
    }

    /// The server's answer to the offer.
    fn on_answer(
        &mut self,
        response: &Response,
        watch: &mut Watch,
        scope: &mut Scope<'_>,
    ) -> Result<(), String> {
        if response.status / 100 != 2 {
            return Err(format!("http_{}", response.status));
        }
        let pending = self.pending.take().ok_or("http_twice")?;
        self.answered = Some(scope.now);
        self.session_url = (response.location.as_ref()).map(|location| self.url.join(location));
        let (remote, sdp) = with_one_candidate(&response.body, self.server, self.local)
            .ok_or("answer_without_candidate")?;
        for (track, name) in [(&mut self.video, "m=video "), (&mut self.audio, "m=audio ")] {
            let line = sdp.lines().find(|line| line.starts_with(name));
            let mut formats = line.into_iter().flat_map(|line| line.split(' ').skip(3));
            track.pt = formats.next().and_then(|pt| pt.trim().parse().ok());
            track.is_nackable = formats.next().is_some();
        }
        let answer = SdpAnswer::from_sdp_string(&sdp).map_err(|_| "answer_malformed")?;
        self.rtc
            .sdp_api()
            .accept_answer(pending, answer)
            .map_err(|_| "answer_does_not_fit")?;
        self.udp.connect(remote).map_err(|e| tcp_reason(e.kind()))?;
        self.remote = Some(remote);
        self.input(Input::Timeout(scope.now), watch, scope)
    }

    /// One change, then everything that follows from it.
    fn input(
        &mut self,
        input: Input<'_>,
        watch: &mut Watch,
        scope: &mut Scope<'_>,
    ) -> Result<(), String> {
        let failed = |_| "webrtc_error".to_owned();
        self.rtc.handle_input(input).map_err(failed)?;
        loop {
            match self.rtc.poll_output().map_err(failed)? {
                Output::Timeout(at) => {
                    self.timeout = at;
                    return Ok(());
                }
                Output::Transmit(transmit) => {
                    let bytes: &[u8] = &transmit.contents;
                    if self.is_publisher && is_rtp(bytes) {
                        scope.tally.flow.bytes += bytes.len() as u64;
                        scope.tally.flow.packets += 1;
                    }
                    if scope.link.pass(scope.now, scope.token, Way::Out, bytes) {
                        let _ = self.udp.send(bytes);
                    }
                }
                Output::Event(event) => self.on_event(event, watch, scope)?,
            }
        }
    }

    fn on_event(
        &mut self,
        event: Event,
        watch: &mut Watch,
        scope: &mut Scope<'_>,
    ) -> Result<(), String> {
        match event {
            Event::Connected => {
                watch.ask(scope.now);
                watch.ready(scope.now, scope.tally);
                if let (true, Some(clip)) = (self.is_publisher, scope.clip) {
                    let publisher = scope.random.next() as u32;
                    let sender = Sender::new(publisher, clip.duration, scope.now);
                    let answered = self.answered.unwrap_or(scope.now);
                    scope.published.insert(sender.publisher(), answered);
                    self.sender = Some(sender);
                }
            }
            Event::RtpPacket(packet) => self.on_packet(&packet, watch, scope),
            Event::KeyframeRequest(_) => {
                if let (Some(sender), Some(clip)) = (&mut self.sender, scope.clip)
                    && scope.now >= self.ask_again
                {
                    self.ask_again = scope.now + KEY_FRAME_INTERVAL;
                    sender.jump(clip.whip(), scope.now, |what| clip.is_key(what));
                }
            }
            Event::IceConnectionStateChange(IceConnectionState::Disconnected) => {
                return Err("ice_disconnected".into());
            }
            Event::Closed => return Err("closed_by_server".into()),
            _ => {}
        }
        Ok(())
    }

    fn on_packet(&mut self, packet: &RtpPacket, watch: &mut Watch, scope: &mut Scope<'_>) {
        let pt = Some(*packet.header.payload_type);
        let rtp_time = packet.time.numer();
        if pt == self.audio.pt {
            if !packet.payload.is_empty() && self.sound.push(*packet.seq_no, scope.tally) {
                watch.sound(rtp_time, 48_000, scope.tally);
            }
            return;
        }
        if pt != self.video.pt {
            return;
        }
        let (at, at_us) = (scope.now, scope.clock.us(scope.now));
        let measured_from_us = scope.measured_from_us;
        let published = &*scope.published;
        let parts = VideoPacket::new(rtp_time, packet.header.marker, &packet.payload);
        let pictures = &mut self.pictures;
        let mut needs_key = false;
        pictures.push(at, *packet.seq_no, parts, scope.tally, |picture, tally| {
            if picture.has_sps {
                watch.headers();
            }
            watch.picture(
                Picture {
                    at,
                    at_us,
                    key: picture.key,
                    timestamp: picture.rtp_time,
                    slice_bytes: picture.slice_bytes,
                    stamp: picture.stamp,
                    published: (picture.stamp)
                        .and_then(|stamp| published.get(&stamp.publisher).copied()),
                },
                measured_from_us,
                tally,
            );
            needs_key = !watch.has_key();
        });
        // As browsers do.
        if (needs_key || self.pictures.needs_key()) && at >= self.ask_again {
            self.ask_again = at + KEY_FRAME_INTERVAL;
            if let Some(stream) = self.rtc.direct_api().stream_rx_by_mid(self.video.mid, None) {
                watch.ask_key();
                stream.request_keyframe(KeyframeRequestKind::Pli);
            }
        }
    }
}

/// An `Rtc` that offers what Chromium does, in RTP mode.
pub fn build_rtc(crypto: &Crypto, now: Instant) -> Rtc {
    let mut builder = Rtc::builder()
        .set_rtp_mode(true)
        .set_crypto_provider(Arc::clone(&crypto.provider))
        .set_dtls_cert(crypto.certificate.clone())
        .clear_codecs();
    let codecs = builder.codec_config();
    // What Chromium offers of the mode that everybody takes.
    for (pt, profile) in [
        (102, 0x42_00_1f),
        (108, 0x42_e0_1f),
        (116, 0x4d_00_1f),
        (120, 0x64_00_1f),
    ] {
        let rtx = Pt::new_with_value(pt + 1);
        codecs.add_h264(Pt::new_with_value(pt), Some(rtx), true, profile);
    }
    codecs.add_config(
        Pt::new_with_value(111),
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
    builder.build(now)
}

/// The answer with the one of its candidates that is used: on the server's own address if
/// there is one, else the first that can be reached over our socket.
pub fn with_one_candidate(
    sdp: &str,
    server: SocketAddr,
    local: SocketAddr,
) -> Option<(SocketAddr, String)> {
    let all = || {
        sdp.lines()
            .filter_map(|line| Some((line, candidate(line)?)))
    };
    let reachable = || all().filter(|(_, address)| address.is_ipv4() == local.is_ipv4());
    let (chosen, remote) =
        (reachable().find(|(_, address)| address.ip() == server.ip())).or(reachable().next())?;
    let kept = sdp.lines().filter(|line| {
        let is_candidate = line.starts_with("a=candidate:");
        !is_candidate || *line == chosen
    });
    let mut seen = false;
    let mut out = String::new();
    for line in kept {
        // Bundled sections repeat it.
        if line == chosen && std::mem::replace(&mut seen, true) {
            continue;
        }
        out += line.trim_end();
        out += "\r\n";
    }
    Some((remote, out))
}

/// The address in a line with a UDP candidate.
fn candidate(line: &str) -> Option<SocketAddr> {
    let mut words = line.trim_end().strip_prefix("a=candidate:")?.split(' ');
    let transport = words.nth(2)?;
    if !transport.eq_ignore_ascii_case("udp") {
        return None;
    }
    let address = words.nth(1)?.parse().ok()?;
    Some(SocketAddr::new(address, words.next()?.parse().ok()?))
}

/// Whether a datagram is RTP and not RTCP, DTLS or STUN (RFC 7983, RFC 5761).
fn is_rtp(bytes: &[u8]) -> bool {
    matches!(bytes, [128..=191, second, ..] if !(192..=223).contains(second))
}

/// Between two requests of a key frame, and between two answers to such.
const KEY_FRAME_INTERVAL: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n\
        a=candidate:1 1 udp 100 192.0.2.7 8000 typ host\r\n\
        a=candidate:2 1 tcp 90 127.0.0.1 8000 typ host tcptype passive\r\n\
        a=candidate:3 1 UDP 80 127.0.0.1 8000 typ host\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 102 103\r\n\
        a=candidate:3 1 UDP 80 127.0.0.1 8000 typ host\r\n";

    #[test]
    fn the_servers_own_address_is_preferred() {
        let local = "127.0.0.1:5000".parse().expect("good");
        for (server, used) in [
            ("127.0.0.1:80", "127.0.0.1:8000"),
            ("192.0.2.9:80", "192.0.2.7:8000"),
        ] {
            let server = server.parse().expect("good");
            let (remote, sdp) = with_one_candidate(ANSWER, server, local).expect("one");
            assert_eq!(remote, used.parse().expect("good"));
            assert_eq!(sdp.matches("a=candidate").count(), 1, "{sdp}");
        }
        let local = "[::1]:5000".parse().expect("good");
        assert_eq!(with_one_candidate(ANSWER, local, local), None);
    }

    #[test]
    fn media_is_told_from_everything_else() {
        assert!(is_rtp(&[0x80, 102, 0, 1]));
        assert!(is_rtp(&[0x90, 0x80 | 102, 0, 1]));
        for other in [
            &[0x80, 200, 0, 1][..],
            &[0x00, 1, 0, 0],
            &[22, 254, 253],
            &[],
        ] {
            assert!(!is_rtp(other));
        }
    }
}

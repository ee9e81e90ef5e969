//! Each SRTP profile against the library's own implementation of it.
//!
//! Which profile is used the libraries decide by themselves, and always for the same one. So the
//! handshake is left out: both ends are given their keys.

use std::fmt;
use std::time::{Duration, Instant};

use dimpl::{KeyingMaterial, SrtpProfile};
use str0m::crypto::CryptoError;
use str0m::crypto::dtls::{
    DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, ProtocolVersion,
};

use super::*;
use crate::webrtc::session::{End, Params, Session, State};
use crate::webrtc::{Credentials, EngineConfig, Role, SessionId, Transport};

#[path = "../../../../tests/common/browser.rs"]
mod browser;

use browser::{Browser, BrowserConfig, Does, Kind, Seen};

/// DTLS that is done before it has begun.
struct Agreed {
    profile: SrtpProfile,
    certificate: Vec<u8>,
}

impl Agreed {
    fn material(&self) -> KeyingMaterial {
        let bytes: Vec<u8> = (0..self.profile.keying_material_len() as u8).collect();
        KeyingMaterial::new(&bytes)
    }
}

impl fmt::Debug for Agreed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Agreed({:?})", self.profile)
    }
}

impl DtlsProvider for &'static Agreed {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        let real = str0m::crypto::from_feature_flags();
        real.dtls_provider.generate_certificate()
    }

    fn new_dtls(
        &self,
        _certificate: &DtlsCert,
        now: Instant,
        _version: DtlsVersion,
        _mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        Ok(Box::new(Done {
            agreed: self,
            now,
            told: 0,
        }))
    }
}

#[derive(Debug)]
struct Done {
    agreed: &'static Agreed,
    now: Instant,
    told: usize,
}

impl DtlsInstance for Done {
    fn set_active(&mut self, _active: bool) {}

    fn handle_packet(&mut self, _packet: &[u8]) -> Result<(), DtlsImplError> {
        Ok(())
    }

    fn poll_output<'a>(&mut self, buffer: &'a mut [u8]) -> DtlsOutput<'a> {
        self.told += 1;
        match self.told {
            1 => {
                let buffer = &mut buffer[..self.agreed.certificate.len()];
                buffer.copy_from_slice(&self.agreed.certificate);
                DtlsOutput::PeerCert(buffer)
            }
            2 => DtlsOutput::Connected,
            3 => DtlsOutput::KeyingMaterial(self.agreed.material(), self.agreed.profile),
            _ => DtlsOutput::Timeout(self.now + Duration::from_secs(3_600)),
        }
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.now = now;
        Ok(())
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        Ok(data.len())
    }

    fn is_active(&self) -> bool {
        true
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        None
    }

    fn is_closing(&self) -> bool {
        false
    }

    fn is_closed(&self) -> bool {
        false
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        Ok(())
    }
}

struct Rig {
    now: Instant,
    session: Session,
    browser: Browser,
    seen: Vec<Seen>,
    events: Vec<Event>,
    /// Every so many media datagrams one is lost.
    loses: Option<usize>,
    sent: usize,
}

impl Rig {
    fn new(profile: SrtpProfile) -> Self {
        let now = Instant::now();
        let engine = Engine::new(EngineConfig {
            candidates: vec!["203.0.113.1:8000".parse().unwrap()],
            ..EngineConfig::default()
        })
        .unwrap();
        let certificate = engine.certificate().certificate;
        let agreed: &'static Agreed = Box::leak(Box::new(Agreed {
            profile,
            certificate,
        }));
        let mut config = BrowserConfig::new(Does::View);
        config.dtls = Some(Box::leak(Box::new(agreed)));
        let mut browser = Browser::new(config, now);
        let id = SessionId(42);
        let params = Params {
            role: Role::Viewer,
            id,
            credentials: Credentials {
                ufrag: id.ufrag(7),
                password: "a-password-of-thirty-two-letters".into(),
            },
            seed: 7,
            stream_profile: None,
        };
        let (session, answer) = Session::answer(&engine, params, browser.offer(), now).unwrap();
        browser.accept_answer(&answer);
        let mut rig = Self {
            now,
            session,
            browser,
            seen: Vec::new(),
            events: Vec::new(),
            loses: None,
            sent: 0,
        };
        rig.run_ms(500);
        assert!(rig.session.stats().selected.is_some());
        let End::Viewer(end) = &mut rig.session.end else {
            panic!("a viewer");
        };
        end.keys = srtp::contexts(&agreed.material(), profile, false).ok();
        end.fingerprint = None;
        rig.session.state = State::Connected;
        // The browser had its keys first, and may have spoken.
        rig.session.stats.datagrams_dropped = 0;
        rig
    }

    fn run_ms(&mut self, millis: usize) {
        for _ in 0..millis {
            self.now += Duration::from_millis(1);
            self.session.handle_timeout(self.now);
            if self.browser.next_timeout() <= self.now {
                self.browser.handle_timeout(self.now);
            }
            let mut sent = Vec::new();
            self.browser.take_datagrams(&mut sent);
            for sent in sent {
                let (from, to) = (sent.source, sent.destination);
                self.session
                    .handle_datagram(self.now, Transport::Udp, from, to, &sent.contents);
            }
            let mut datagrams = Vec::new();
            self.session.take_datagrams(&mut datagrams);
            for train in datagrams {
                for packet in train.packets() {
                    self.sent += 1;
                    let is_media = packet.len() > 500;
                    if is_media
                        && self
                            .loses
                            .is_some_and(|every| self.sent.is_multiple_of(every))
                    {
                        continue;
                    }
                    let (from, to) = (train.source, train.destination);
                    self.browser
                        .handle_datagram(self.now, false, from, to, packet);
                }
            }
            self.events
                .extend(std::iter::from_fn(|| self.session.poll_event()));
            self.seen
                .extend(std::iter::from_fn(|| self.browser.poll_event()));
        }
    }
}

#[test]
fn media_repetitions_and_reports_of_each_profile_are_understood() {
    for profile in [
        SrtpProfile::AES128_CM_SHA1_80,
        SrtpProfile::AEAD_AES_128_GCM,
        SrtpProfile::AEAD_AES_256_GCM,
    ] {
        let mut rig = Rig::new(profile);
        // Past a rollover of the sequence, so that its counter takes part.
        let start = StreamStart {
            sequence: 65_400,
            rtp_time: 0,
        };
        rig.session.set_stream_start(TrackKind::Video, start);
        rig.loses = Some(29);
        let mut expected = Vec::new();
        for frame in 0..120_u32 {
            let payloads: Vec<Arc<[u8]>> = (0..5_u32)
                .map(|n| {
                    let mut bytes = vec![0x41; 900 + n as usize * 7];
                    bytes[1..5].copy_from_slice(&(frame * 5 + n).to_be_bytes());
                    bytes.into()
                })
                .collect();
            expected.extend(payloads.iter().cloned());
            let (now, time) = (rig.now, u64::from(frame) * 2_700);
            assert!(rig.session.write_video(now, &payloads, time, now, true));
            let sound: Arc<[u8]> = vec![7; 80].into();
            let time = u64::from(frame) * 1_440;
            assert!(rig.session.write_audio(now, &sound, time, now));
            rig.session.flush(now);
            rig.run_ms(30);
        }
        rig.loses = None;
        rig.browser.request_keyframe(rig.now);
        rig.run_ms(1_000);
        let mut pictures: Vec<Arc<[u8]>> = Vec::new();
        let (mut sounds, mut reports) = (0, 0);
        for seen in &rig.seen {
            match seen {
                Seen::Rtp {
                    kind: Kind::Video,
                    payload,
                    ..
                } => pictures.push(Arc::clone(payload)),
                Seen::Rtp { .. } => sounds += 1,
                Seen::SenderReport { .. } => reports += 1,
                _ => {}
            }
        }
        pictures.sort_by_key(|payload| payload[1..5].to_vec());
        // Nothing mends the very last packet, which no later one shows to be missing.
        assert!(
            pictures.len() >= expected.len() - 1,
            "{profile:?} {}",
            pictures.len()
        );
        assert!(pictures == expected[..pictures.len()], "{profile:?}");
        assert_eq!(sounds, 120, "{profile:?}");
        assert!(reports >= 6, "{profile:?} {reports}");
        let stats = rig.session.stats();
        assert!(stats.video.repeated >= 10, "{profile:?} {stats:?}");
        assert!(stats.video.rtt.is_some(), "{profile:?} {stats:?}");
        assert!(
            rig.events.contains(&Event::KeyframeRequested),
            "{profile:?}"
        );
        assert_eq!(stats.datagrams_dropped, 0, "{profile:?} {stats:?}");
    }
}

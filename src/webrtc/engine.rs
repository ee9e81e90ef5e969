//! [`Engine`]: what all WebRTC sessions share.

use std::fmt;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::config::DtlsCert;
use str0m::crypto::{CryptoError, CryptoProvider};

use super::dtls;

/// The settings of all sessions.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The addresses that answers announce as host candidates, best first. Unspecified
    /// addresses and port 0 are left out.
    pub candidates: Vec<SocketAddr>,
    /// Whether the same addresses are announced for TCP too (passive, RFC 6544).
    pub tcp: bool,
    /// How long a peer has from the answer until DTLS is up. Then its session is closed.
    pub handshake_timeout: Duration,
    /// How long a connected peer may be silent (no check, no media, no report). Browsers
    /// check every 2.5 s at the latest.
    pub silence_timeout: Duration,
    /// How many sent video packets a viewer's session keeps for retransmission: 32 bytes each
    /// beside the payload, which all viewers share.
    pub rtx_cache_packets: usize,
    /// For how long it keeps them.
    pub rtx_cache_duration: Duration,
    /// Retransmitted bytes may be at most this share of all that was sent within a
    /// second; beyond, requests are dropped, because an overfull link must not be filled
    /// with repetitions. `None`: no limit.
    pub rtx_ratio_cap: Option<f32>,
    /// How often round trip, loss and report counters of publishers are refreshed; each costs a
    /// wake-up. Those of viewers are always up to date. `None`: never.
    pub stats_interval: Option<Duration>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            candidates: Vec::new(),
            tcp: true,
            handshake_timeout: Duration::from_secs(15),
            silence_timeout: Duration::from_secs(15),
            rtx_cache_packets: 256,
            rtx_cache_duration: Duration::from_secs(1),
            rtx_ratio_cap: Some(0.3),
            stats_interval: Some(Duration::from_secs(2)),
        }
    }
}

/// An instant and its NTP time (RFC 5905 section 6): seconds since 1900, and 32 bits of their
/// fraction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Epoch {
    at: Instant,
    ntp: u64,
}

impl Epoch {
    fn new(at: Instant, unix_time: Duration) -> Self {
        let ntp = ntp_units(unix_time).wrapping_add(UNIX_EPOCH_NTP_SECONDS << 32);
        Self { at, ntp }
    }

    /// One that says nothing about the time of day (RFC 3550 section 6.4.1).
    pub(super) fn arbitrary(at: Instant) -> Self {
        Self::new(at, Duration::ZERO)
    }

    /// What the clock shows at `now`.
    pub(super) fn ntp(&self, now: Instant) -> u64 {
        match now.checked_duration_since(self.at) {
            Some(since) => self.ntp.wrapping_add(ntp_units(since)),
            None => self.ntp.wrapping_sub(ntp_units(self.at - now)),
        }
    }
}

fn ntp_units(duration: Duration) -> u64 {
    let fraction = (u64::from(duration.subsec_nanos()) << 32) / 1_000_000_000;
    (duration.as_secs() << 32) | fraction
}

/// From 1900 to 1970.
const UNIX_EPOCH_NTP_SECONDS: u64 = 2_208_988_800;

/// The engine could not be made.
#[derive(Debug)]
pub enum EngineError {
    /// No address to announce: no peer could ever connect.
    NoCandidates,
    /// The cryptographic library failed its own tests, or has no randomness.
    Crypto(String),
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EngineError::NoCandidates => {
                f.write_str("no usable address to announce to WebRTC peers")
            }
            EngineError::Crypto(error) => write!(f, "cryptography: {error}"),
        }
    }
}

impl std::error::Error for EngineError {}

/// See the module's documentation. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(super) config: Arc<EngineConfig>,
    pub(super) crypto: Arc<CryptoProvider>,
    certificate: Arc<DtlsCert>,
    /// What sender reports call the present; without it, a time that only begins somewhere.
    pub(super) epoch: Option<Epoch>,
    /// `sha-256 AB:CD:...` of the certificate.
    pub(super) fingerprint: Arc<str>,
    /// The candidate lines of every answer, each ended with CRLF.
    pub(super) candidate_lines: Arc<str>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Makes the certificate and verifies the cryptography: some milliseconds, once.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub fn new(config: EngineConfig) -> Result<Self, EngineError> {
        let crypto_error =
            |error: str0m::crypto::CryptoError| EngineError::Crypto(error.to_string());
        let crypto = dtls::crypto_provider().map_err(crypto_error)?;
        let certificate = dtls::certificate().map_err(crypto_error)?;
        let candidate_lines = candidate_lines(&config);
        if candidate_lines.is_empty() {
            return Err(EngineError::NoCandidates);
        }
        let digest = crypto.sha256_provider.sha256(&certificate.certificate);
        let digest: Vec<String> = digest.iter().map(|byte| format!("{byte:02X}")).collect();
        Ok(Self {
            config: Arc::new(config),
            crypto: Arc::new(crypto),
            certificate: Arc::new(certificate),
            epoch: None,
            fingerprint: format!("sha-256 {}", digest.join(":")).into(),
            candidate_lines: candidate_lines.into(),
        })
    }

    /// Tells the time of day at `at`, since 1970, for the sender reports of all sessions that
    /// begin from now on.
    pub fn set_wallclock(&mut self, at: Instant, unix_time: Duration) {
        self.epoch = Some(Epoch::new(at, unix_time));
    }

    /// DTLS of one session, with the certificate of all.
    pub(super) fn new_dtls(&self, now: Instant) -> Result<dtls::Instance, CryptoError> {
        dtls::instance(&self.certificate, now)
    }

    /// The settings.
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    pub(super) fn certificate(&self) -> DtlsCert {
        DtlsCert {
            certificate: self.certificate.certificate.clone(),
            private_key: self.certificate.private_key.clone(),
        }
    }
}

/// Host candidates, UDP before TCP and IPv4 before IPv6 (RFC 8839 section 5.1): ffmpeg's
/// WHIP muxer takes the first UDP one and can do nothing with the others.
fn candidate_lines(config: &EngineConfig) -> String {
    let mut addresses: Vec<SocketAddr> = config
        .candidates
        .iter()
        .copied()
        .filter(|address| !address.ip().is_unspecified() && address.port() != 0)
        .collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    let mut lines = String::new();
    let mut foundation = 0;
    for tcp in [false, true] {
        if tcp && !config.tcp {
            continue;
        }
        for (place, address) in addresses.iter().enumerate() {
            foundation += 1;
            let type_preference: u32 = if tcp { 90 } else { 126 };
            let local_preference = 65_535_u32.saturating_sub(place as u32);
            let priority = (type_preference << 24) | (local_preference << 8) | 255;
            let (protocol, suffix) = if tcp {
                ("tcp", " tcptype passive")
            } else {
                ("udp", "")
            };
            let (ip, port) = (address.ip(), address.port());
            // Writing to a string does not fail.
            let _ = write!(
                lines,
                "a=candidate:{foundation} 1 {protocol} {priority} {ip} {port} typ host{suffix}\r\n"
            );
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_ordered_for_simple_clients() {
        let config = EngineConfig {
            candidates: vec![
                "[2001:db8::1]:8000".parse().unwrap(),
                "203.0.113.9:8000".parse().unwrap(),
                "0.0.0.0:8000".parse().unwrap(),
            ],
            ..EngineConfig::default()
        };
        assert_eq!(
            candidate_lines(&config),
            "a=candidate:1 1 udp 2130706431 203.0.113.9 8000 typ host\r\n\
             a=candidate:2 1 udp 2130706175 2001:db8::1 8000 typ host\r\n\
             a=candidate:3 1 tcp 1526726655 203.0.113.9 8000 typ host tcptype passive\r\n\
             a=candidate:4 1 tcp 1526726399 2001:db8::1 8000 typ host tcptype passive\r\n"
        );
    }

    #[test]
    fn an_engine_without_addresses_is_refused() {
        assert!(matches!(
            Engine::new(EngineConfig::default()),
            Err(EngineError::NoCandidates)
        ));
    }
}

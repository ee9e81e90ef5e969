//! DTLS for every session from one verified configuration.
//!
//! The library's own back-end builds a configuration for each connection, and building
//! one runs the known-answer tests of every cipher, hash and key exchange: 0.9 ms of
//! CPU, three quarters of what a join costs. Here it is built once per process. The
//! same place sets what the library does not expose: how soon a lost flight is resent.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use dimpl::DtlsCertificate;
use str0m::crypto::dtls::{
    DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, ProtocolVersion,
};
use str0m::crypto::{CryptoError, CryptoProvider};

/// The cryptography of all sessions: the library's, with the DTLS of this module.
///
/// # Errors
/// If the back-end fails its own tests, which means the build is broken.
pub fn crypto_provider() -> Result<CryptoProvider, CryptoError> {
    // Built here, so that the first join does not pay and a failure shows at start.
    PROVIDER.config()?;
    Ok(CryptoProvider {
        dtls_provider: &PROVIDER,
        ..str0m::crypto::from_feature_flags()
    })
}

/// A fresh self-signed ECDSA certificate, valid for the life of the process.
///
/// # Errors
/// If the system has no randomness to give.
pub fn certificate() -> Result<DtlsCert, CryptoError> {
    PROVIDER
        .generate_certificate()
        .ok_or_else(|| CryptoError::Other("no certificate could be made".into()))
}

/// DTLS of one connection, for who does without the library.
///
/// # Errors
/// As [`crypto_provider`].
pub(super) fn instance(certificate: &DtlsCert, now: Instant) -> Result<dimpl::Dtls, CryptoError> {
    PROVIDER.instance(certificate, now)
}

static PROVIDER: CachedProvider = CachedProvider(OnceLock::new());

#[derive(Debug)]
struct CachedProvider(OnceLock<Arc<dimpl::Config>>);

impl CachedProvider {
    fn config(&self) -> Result<Arc<dimpl::Config>, CryptoError> {
        if let Some(config) = self.0.get() {
            return Ok(Arc::clone(config));
        }
        let config = dimpl::Config::builder()
            // ICE has proved the peer's address before DTLS begins.
            .use_server_cookie(false)
            .flight_start_rto(FLIGHT_START_RTO)
            .flight_retries(FLIGHT_RETRIES)
            .handshake_timeout(HANDSHAKE_TIMEOUT)
            .build()
            .map_err(|error| CryptoError::Other(format!("DTLS configuration: {error}")))?;
        Ok(Arc::clone(self.0.get_or_init(|| Arc::new(config))))
    }

    fn instance(&self, certificate: &DtlsCert, now: Instant) -> Result<dimpl::Dtls, CryptoError> {
        // 1.2 whatever is asked: with 1.3 the client's order of SRTP profiles counts,
        // and Chromium 156 then ends on AES-CM-SHA1, the dearest one to send.
        let certificate = DtlsCertificate {
            certificate: certificate.certificate.clone(),
            private_key: certificate.private_key.clone(),
        };
        Ok(dimpl::Dtls::new_12(self.config()?, certificate, now))
    }
}

impl DtlsProvider for CachedProvider {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        dimpl::certificate::generate_self_signed_certificate().ok()
    }

    fn new_dtls(
        &self,
        certificate: &DtlsCert,
        now: Instant,
        _version: DtlsVersion,
        _mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        Ok(Box::new(Instance(self.instance(certificate, now)?)))
    }
}

struct Instance(dimpl::Dtls);

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Instance")
    }
}

impl DtlsInstance for Instance {
    fn set_active(&mut self, active: bool) {
        self.0.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.0.handle_packet(packet)
    }

    fn poll_output<'a>(&mut self, buffer: &'a mut [u8]) -> DtlsOutput<'a> {
        self.0.poll_output(buffer)
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.0.handle_timeout(now)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.0.send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.0.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.0.protocol_version()
    }

    fn is_closing(&self) -> bool {
        self.0.is_closing()
    }

    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.0.close()
    }
}

/// When the first packet of a lost flight is sent again. The default of a second makes
/// every join over a lossy link take that second; a round trip is rarely longer than this.
const FLIGHT_START_RTO: Duration = Duration::from_millis(250);
/// Doubling from 250 ms, six retries cover 16 s.
const FLIGHT_RETRIES: usize = 6;
/// After this a handshake fails, whatever was retried.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_configuration_serves_every_connection() {
        crypto_provider().unwrap();
        let first = PROVIDER.config().unwrap();
        let second = PROVIDER.config().unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!(first.flight_start_rto(), FLIGHT_START_RTO);
    }
}

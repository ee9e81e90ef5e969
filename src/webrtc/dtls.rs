//! DTLS for every session from one verified configuration.
//!
//! The library's own back-end builds a configuration for each connection, and building
//! one runs the known-answer tests of every cipher, hash and key exchange: 0.9 ms of
//! CPU, three quarters of what a join costs. Here it is built once per process. The
//! same place sets what the library does not expose: how soon a lost flight is resent; and it
//! puts a peer's flights in the form that the library goes on from ([`messages`]).

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use dimpl::DtlsCertificate;
use str0m::crypto::dtls::{
    DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, ProtocolVersion,
};
use str0m::crypto::{CryptoError, CryptoProvider};

use messages::{Messages, RECORD_HEADER_BYTES};

mod messages;

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
pub(super) fn instance(certificate: &DtlsCert, now: Instant) -> Result<Instance, CryptoError> {
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

    fn instance(&self, certificate: &DtlsCert, now: Instant) -> Result<Instance, CryptoError> {
        // 1.2 whatever is asked: with 1.3 the client's order of SRTP profiles counts,
        // and Chromium 156 then ends on AES-CM-SHA1, the dearest one to send.
        let certificate = DtlsCertificate {
            certificate: certificate.certificate.clone(),
            private_key: certificate.private_key.clone(),
        };
        Ok(Instance {
            dtls: dimpl::Dtls::new_12(self.config()?, certificate, now),
            received: 0,
            messages: Messages::default(),
            is_connected: false,
        })
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
        Ok(Box::new(self.instance(certificate, now)?))
    }
}

/// DTLS of one connection.
///
/// dimpl 0.9 panics when it is to hand out a certificate into a buffer that is too short for
/// it, and how long it is the peer decides. No certificate is longer than what has come, so
/// that is counted, and bounded.
pub(super) struct Instance {
    dtls: dimpl::Dtls,
    /// Bytes that came before the handshake was done.
    received: usize,
    /// The peer's messages up to then.
    messages: Messages,
    is_connected: bool,
}

impl Instance {
    /// How long a buffer has to be for any output to fit.
    pub(super) fn output_bytes_max(&self) -> usize {
        if self.is_connected {
            OUTPUT_BYTES
        } else {
            self.received.max(OUTPUT_BYTES)
        }
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Instance")
    }
}

impl DtlsInstance for Instance {
    fn set_active(&mut self, active: bool) {
        self.dtls.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        // Invalid records are silently discarded (RFC 6347 section 4.1.2.7); dimpl ends the
        // connection over some.
        if !holds_whole_records(packet) {
            return Ok(());
        }
        if self.is_connected {
            return self.dtls.handle_packet(packet);
        }
        self.received += packet.len();
        if self.received > HANDSHAKE_BYTES_MAX {
            return Err(DtlsImplError::ReceiveQueueFull);
        }
        let mut rest = packet;
        while let Some((record, behind)) = split_record(rest) {
            self.messages
                .take(record, |record| self.dtls.handle_packet(record))?;
            rest = behind;
        }
        Ok(())
    }

    fn poll_output<'a>(&mut self, buffer: &'a mut [u8]) -> DtlsOutput<'a> {
        let bytes_max = self.output_bytes_max();
        if buffer.len() >= bytes_max {
            let output = self.dtls.poll_output(buffer);
            self.is_connected |= matches!(output, DtlsOutput::Connected);
            return output;
        }
        let mut long = vec![0; bytes_max];
        let output = self.dtls.poll_output(&mut long);
        self.is_connected |= matches!(output, DtlsOutput::Connected);
        match output {
            // A certificate that is cut is not the offer's, and fails its connection.
            DtlsOutput::PeerCert(bytes) => DtlsOutput::PeerCert(copied(bytes, buffer)),
            DtlsOutput::Packet(bytes) => DtlsOutput::Packet(copied(bytes, buffer)),
            DtlsOutput::ApplicationData(bytes) => {
                DtlsOutput::ApplicationData(copied(bytes, buffer))
            }
            DtlsOutput::BufferTooSmall { needed } => DtlsOutput::BufferTooSmall { needed },
            DtlsOutput::Connected => DtlsOutput::Connected,
            DtlsOutput::KeyingMaterial(keys, profile) => DtlsOutput::KeyingMaterial(keys, profile),
            DtlsOutput::Timeout(at) => DtlsOutput::Timeout(at),
            // Kinds that a later version may know would be lost here: it ends.
            DtlsOutput::CloseNotify | _ => DtlsOutput::CloseNotify,
        }
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.dtls.handle_timeout(now)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.dtls.send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.dtls.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.dtls.protocol_version()
    }

    fn is_closing(&self) -> bool {
        self.dtls.is_closing()
    }

    fn is_closed(&self) -> bool {
        self.dtls.is_closed()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.dtls.close()
    }
}

/// Whether a datagram consists of whole DTLS 1.2 records (RFC 6347 section 4.1), as every
/// datagram does that arrived as it was sent.
fn holds_whole_records(packet: &[u8]) -> bool {
    let mut rest = packet;
    while let Some((_, behind)) = split_record(rest) {
        rest = behind;
    }
    rest.is_empty() && !packet.is_empty()
}

/// The first record of `bytes`, if it is whole, and what is behind it.
fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let header = bytes.first_chunk::<RECORD_HEADER_BYTES>()?;
    let [.., high, low] = *header;
    let length = usize::from(u16::from_be_bytes([high, low]));
    bytes.split_at_checked(RECORD_HEADER_BYTES + length)
}

/// As much of `bytes` as `buffer` holds.
fn copied<'a>(bytes: &[u8], buffer: &'a mut [u8]) -> &'a [u8] {
    let length = bytes.len().min(buffer.len());
    buffer[..length].copy_from_slice(&bytes[..length]);
    &buffer[..length]
}

/// Enough for every output but a long certificate: packets are cut to the path's MTU.
const OUTPUT_BYTES: usize = 2_000;
/// What a peer may send in a handshake, with all its repetitions: ten times what a browser
/// needs over a bad link. More ends its session.
const HANDSHAKE_BYTES_MAX: usize = 65_536;
/// When the first packet of a lost flight is sent again. The default of a second makes
/// every join over a lossy link take that second; a round trip is rarely longer than this.
const FLIGHT_START_RTO: Duration = Duration::from_millis(250);
/// Doubling from 250 ms, six retries cover 16 s.
const FLIGHT_RETRIES: usize = 6;
/// After this a handshake fails, whatever was retried.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;

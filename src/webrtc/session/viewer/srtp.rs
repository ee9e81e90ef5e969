//! SRTP and SRTCP of one viewer (RFC 3711, RFC 7714): what is sent is sealed, reports that
//! come back are opened.
//!
//! The keys come from the DTLS handshake (RFC 5764 section 4.2). A payload is sealed from
//! the buffer that all viewers share straight into the datagram, without a copy between.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{
    AES_128, AES_256, Algorithm, EncryptingKey, EncryptionContext, UnboundCipherKey,
};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use dimpl::{KeyingMaterial, SrtpProfile};

/// The keys of a session could not be made: they are shorter than their profile says, or the
/// profile is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyError;

/// Seals what we send.
pub(super) struct Sealer {
    rtp: Cipher,
    rtcp: Cipher,
    /// Of the next report; 31 bits.
    rtcp_index: u32,
}

/// Opens the peer's reports. Its RTP is of no interest.
pub(super) struct Opener {
    rtcp: Cipher,
    sources: Vec<Window>,
}

/// Which reports of one source came, so that none counts twice (RFC 3711 section 3.3.2).
struct Window {
    ssrc: u32,
    highest: u32,
    /// Bit n: the one n before the highest came.
    seen: u64,
}

enum Cipher {
    Gcm { key: LessSafeKey, salt: [u8; 12] },
    Counter(Box<Counter>),
}

/// Counter mode, and a signature of 80 bits.
struct Counter {
    key: EncryptingKey,
    salt: [u8; 14],
    signature: hmac::Key,
}

/// What the master keys are for (RFC 3711 section 4.3.2).
#[derive(Clone, Copy)]
enum Use {
    Rtp,
    Rtcp,
}

/// Makes both directions from what DTLS negotiated. `is_client` tells our part in DTLS.
pub(super) fn contexts(
    material: &KeyingMaterial,
    profile: SrtpProfile,
    is_client: bool,
) -> Result<(Sealer, Opener), KeyError> {
    let (key_len, salt_len) = match profile {
        SrtpProfile::AES128_CM_SHA1_80 => (16, 14),
        SrtpProfile::AEAD_AES_128_GCM => (16, 12),
        SrtpProfile::AEAD_AES_256_GCM => (32, 12),
        _ => return Err(KeyError),
    };
    let bytes: &[u8] = material;
    let (client_key, rest) = bytes.split_at_checked(key_len).ok_or(KeyError)?;
    let (server_key, rest) = rest.split_at_checked(key_len).ok_or(KeyError)?;
    let (client_salt, rest) = rest.split_at_checked(salt_len).ok_or(KeyError)?;
    let server_salt = rest.get(..salt_len).ok_or(KeyError)?;
    let client = Master::new(profile, client_key, client_salt)?;
    let server = Master::new(profile, server_key, server_salt)?;
    let (ours, theirs) = if is_client {
        (client, server)
    } else {
        (server, client)
    };
    let sealer = Sealer {
        rtp: ours.cipher(Use::Rtp)?,
        rtcp: ours.cipher(Use::Rtcp)?,
        rtcp_index: 0,
    };
    let opener = Opener {
        rtcp: theirs.cipher(Use::Rtcp)?,
        sources: Vec::new(),
    };
    Ok((sealer, opener))
}

/// One direction's master key and salt.
struct Master {
    profile: SrtpProfile,
    key: EncryptingKey,
    key_len: usize,
    /// Filled up with zeros where the profile's is shorter.
    salt: [u8; 14],
}

impl Master {
    fn new(profile: SrtpProfile, key: &[u8], salt: &[u8]) -> Result<Self, KeyError> {
        let mut full = [0; 14];
        full.get_mut(..salt.len())
            .ok_or(KeyError)?
            .copy_from_slice(salt);
        Ok(Self {
            profile,
            key: counter_key(key)?,
            key_len: key.len(),
            salt: full,
        })
    }

    fn cipher(&self, purpose: Use) -> Result<Cipher, KeyError> {
        let first = match purpose {
            Use::Rtp => 0,
            Use::Rtcp => 3,
        };
        let mut key = [0; 32];
        let key = &mut key[..self.key_len];
        self.derive(first, key)?;
        if self.profile == SrtpProfile::AES128_CM_SHA1_80 {
            let (mut signature, mut salt) = ([0; 20], [0; 14]);
            self.derive(first + 1, &mut signature)?;
            self.derive(first + 2, &mut salt)?;
            return Ok(Cipher::Counter(Box::new(Counter {
                key: counter_key(key)?,
                salt,
                signature: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &signature),
            })));
        }
        let mut salt = [0; 12];
        self.derive(first + 2, &mut salt)?;
        let algorithm = match self.key_len {
            16 => &AES_128_GCM,
            _ => &AES_256_GCM,
        };
        let key = UnboundKey::new(algorithm, key).map_err(|_| KeyError)?;
        Ok(Cipher::Gcm {
            key: LessSafeKey::new(key),
            salt,
        })
    }

    /// The key stream of a label (RFC 3711 section 4.3.3, with a key derivation rate of 0).
    fn derive(&self, label: u8, out: &mut [u8]) -> Result<(), KeyError> {
        let mut start = [0; 16];
        start[..14].copy_from_slice(&self.salt);
        start[7] ^= label;
        apply_key_stream(&self.key, start, out)
    }
}

fn counter_key(key: &[u8]) -> Result<EncryptingKey, KeyError> {
    let algorithm: &'static Algorithm = match key.len() {
        16 => &AES_128,
        _ => &AES_256,
    };
    UnboundCipherKey::new(algorithm, key)
        .and_then(EncryptingKey::ctr)
        .map_err(|_| KeyError)
}

fn apply_key_stream(
    key: &EncryptingKey,
    start: [u8; 16],
    bytes: &mut [u8],
) -> Result<(), KeyError> {
    let start = EncryptionContext::Iv128(FixedLength::from(start));
    key.less_safe_encrypt(bytes, start)
        .map(|_| ())
        .map_err(|_| KeyError)
}

impl Sealer {
    /// Bytes that sealing adds to an RTP packet.
    pub(super) fn overhead(&self) -> usize {
        match self.rtp {
            Cipher::Gcm { .. } => GCM_TAG,
            Cipher::Counter(_) => SHA1_TAG,
        }
    }

    /// Appends to `out`, which ends with the packet's header from `header_at` on, the sealed
    /// payload: `prefix`, then `payload`. `index` is the sequence number with its rollovers.
    pub(super) fn seal_rtp(
        &self,
        out: &mut Vec<u8>,
        header_at: usize,
        ssrc: u32,
        index: u64,
        prefix: &[u8],
        payload: &[u8],
    ) -> Result<(), KeyError> {
        let body_at = out.len();
        match &self.rtp {
            Cipher::Gcm { key, salt } => {
                let nonce = gcm_nonce(salt, ssrc, index);
                if prefix.is_empty() {
                    out.resize(body_at + payload.len() + GCM_TAG, 0);
                    let (head, body) = out.split_at_mut(body_at);
                    let (body, tag) = body.split_at_mut(payload.len());
                    let aad = Aad::from(&head[header_at..]);
                    return key
                        .seal_out_of_place_scatter(nonce, aad, payload, body, &[], tag)
                        .map_err(|_| KeyError);
                }
                out.extend_from_slice(prefix);
                out.extend_from_slice(payload);
                seal_gcm(key, nonce, out, header_at, body_at)
            }
            Cipher::Counter(counter) => {
                let Counter {
                    key,
                    salt,
                    signature,
                } = &**counter;
                out.extend_from_slice(prefix);
                out.extend_from_slice(payload);
                apply_key_stream(key, counter_start(salt, ssrc, index), &mut out[body_at..])?;
                let mut context = hmac::Context::with_key(signature);
                context.update(&out[header_at..]);
                context.update(&((index >> 16) as u32).to_be_bytes());
                out.extend_from_slice(&context.sign().as_ref()[..SHA1_TAG]);
                Ok(())
            }
        }
    }

    /// Seals a compound report in place; it names its first source in bytes 4 to 8.
    pub(super) fn seal_rtcp(&mut self, report: &mut Vec<u8>) -> Result<(), KeyError> {
        let ssrc = first_source(report).ok_or(KeyError)?;
        let index = self.rtcp_index;
        if index > RTCP_INDEX_MAX {
            // After 68 years of a report a second.
            return Err(KeyError);
        }
        self.rtcp_index += 1;
        let word = (index | RTCP_ENCRYPTED).to_be_bytes();
        match &self.rtcp {
            Cipher::Gcm { key, salt } => {
                let aad = gcm_report_aad(report, word);
                let nonce = gcm_nonce(salt, ssrc, u64::from(index));
                let tag = key
                    .seal_in_place_separate_tag(nonce, Aad::from(aad), &mut report[RTCP_CLEAR..])
                    .map_err(|_| KeyError)?;
                report.extend_from_slice(tag.as_ref());
                report.extend_from_slice(&word);
            }
            Cipher::Counter(counter) => {
                let Counter {
                    key,
                    salt,
                    signature,
                } = &**counter;
                let start = counter_start(salt, ssrc, u64::from(index));
                apply_key_stream(key, start, &mut report[RTCP_CLEAR..])?;
                report.extend_from_slice(&word);
                let tag = hmac::sign(signature, report);
                report.extend_from_slice(&tag.as_ref()[..SHA1_TAG]);
            }
        }
        Ok(())
    }
}

impl Opener {
    /// Opens a compound report in place. `None`: not the peer's, not whole, or seen before.
    pub(super) fn open_rtcp<'a>(&mut self, bytes: &'a mut [u8]) -> Option<&'a [u8]> {
        let ssrc = first_source(bytes)?;
        let (index, length) = match &self.rtcp {
            Cipher::Gcm { key, salt } => {
                let sealed_len = bytes.len().checked_sub(4)?;
                let word: [u8; 4] = *bytes.get(sealed_len..)?.first_chunk()?;
                let index = report_index(word)?;
                let length = sealed_len.checked_sub(GCM_TAG)?;
                let aad = gcm_report_aad(bytes, word);
                let nonce = gcm_nonce(salt, ssrc, u64::from(index));
                let sealed = bytes.get_mut(RTCP_CLEAR..sealed_len)?;
                key.open_in_place(nonce, Aad::from(aad), sealed).ok()?;
                (index, length)
            }
            Cipher::Counter(counter) => {
                let Counter {
                    key,
                    salt,
                    signature,
                } = &**counter;
                let signed_len = bytes.len().checked_sub(SHA1_TAG)?;
                let (signed, tag) = bytes.split_at_checked(signed_len)?;
                let expected = hmac::sign(signature, signed);
                verify_slices_are_equal(&expected.as_ref()[..SHA1_TAG], tag).ok()?;
                let length = signed_len.checked_sub(4)?;
                let word: [u8; 4] = *signed.get(length..)?.first_chunk()?;
                let index = report_index(word)?;
                let start = counter_start(salt, ssrc, u64::from(index));
                apply_key_stream(key, start, bytes.get_mut(RTCP_CLEAR..length)?).ok()?;
                (index, length)
            }
        };
        self.is_new(ssrc, index).then(|| bytes.get(..length))?
    }

    /// Takes note of an authentic report; whether it is the first of its number.
    fn is_new(&mut self, ssrc: u32, index: u32) -> bool {
        let Some(window) = self.sources.iter_mut().find(|w| w.ssrc == ssrc) else {
            if self.sources.len() >= SOURCES_MAX {
                return false;
            }
            self.sources.push(Window {
                ssrc,
                highest: index,
                seen: 1,
            });
            return true;
        };
        if index > window.highest {
            let step = index - window.highest;
            window.seen = window.seen.checked_shl(step).unwrap_or(0) | 1;
            window.highest = index;
            return true;
        }
        let age = window.highest - index;
        let Some(bit) = 1_u64.checked_shl(age) else {
            return false;
        };
        let is_new = window.seen & bit == 0;
        window.seen |= bit;
        is_new
    }
}

/// RFC 7714 sections 8.1 and 9.1: `index` is a sequence number with its rollovers, or a
/// report's.
fn gcm_nonce(salt: &[u8; 12], ssrc: u32, index: u64) -> Nonce {
    let mut nonce = *salt;
    for (byte, part) in nonce[2..6].iter_mut().zip(ssrc.to_be_bytes()) {
        *byte ^= part;
    }
    for (byte, part) in nonce[6..].iter_mut().zip(&index.to_be_bytes()[2..]) {
        *byte ^= part;
    }
    Nonce::assume_unique_for_key(nonce)
}

/// RFC 3711 section 4.1.1.
fn counter_start(salt: &[u8; 14], ssrc: u32, index: u64) -> [u8; 16] {
    let mut start = [0; 16];
    start[..14].copy_from_slice(salt);
    for (byte, part) in start[4..8].iter_mut().zip(ssrc.to_be_bytes()) {
        *byte ^= part;
    }
    for (byte, part) in start[8..14].iter_mut().zip(&index.to_be_bytes()[2..]) {
        *byte ^= part;
    }
    start
}

fn seal_gcm(
    key: &LessSafeKey,
    nonce: Nonce,
    out: &mut Vec<u8>,
    header_at: usize,
    body_at: usize,
) -> Result<(), KeyError> {
    let (head, body) = out.split_at_mut(body_at);
    let tag = key
        .seal_in_place_separate_tag(nonce, Aad::from(&head[header_at..]), body)
        .map_err(|_| KeyError)?;
    out.extend_from_slice(tag.as_ref());
    Ok(())
}

/// RFC 7714 section 9.2: the header, then the word with the index.
fn gcm_report_aad(report: &[u8], word: [u8; 4]) -> [u8; 12] {
    let mut aad = [0; 12];
    let header = report.get(..RTCP_CLEAR).unwrap_or(&[0; RTCP_CLEAR]);
    aad[..RTCP_CLEAR].copy_from_slice(header);
    aad[RTCP_CLEAR..].copy_from_slice(&word);
    aad
}

fn report_index(word: [u8; 4]) -> Option<u32> {
    let word = u32::from_be_bytes(word);
    // RFC 5764 section 4.1.2 knows no profile without encryption of reports that we offer.
    (word & RTCP_ENCRYPTED != 0).then_some(word & RTCP_INDEX_MAX)
}

fn first_source(report: &[u8]) -> Option<u32> {
    let bytes: &[u8; 4] = report.get(4..RTCP_CLEAR)?.first_chunk()?;
    Some(u32::from_be_bytes(*bytes))
}

/// Bytes of a report that stay readable: its header and first source.
const RTCP_CLEAR: usize = 8;
const RTCP_ENCRYPTED: u32 = 1 << 31;
const RTCP_INDEX_MAX: u32 = RTCP_ENCRYPTED - 1;
const GCM_TAG: usize = 16;
const SHA1_TAG: usize = 10;

/// Sources of reports that are told apart: browsers use one or two.
const SOURCES_MAX: usize = 16;

#[cfg(test)]
mod tests;

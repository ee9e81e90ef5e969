//! STUN binding requests and their answers, as an ICE-lite agent needs them
//! (RFC 8489, RFC 8445 section 7.3).
//!
//! Ours, and not the library's, for three reasons: the library chooses among nominated
//! pairs by priority and not by the last nomination, it refuses requests without
//! PRIORITY (ffmpeg 8's WHIP muxer sends none), and its view of a peer that changes
//! address lags by up to 15 s.

use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::hmac;

use crate::wire::{Reader, Truncated, WriteExt};

/// The short-term credential of one side: requests to us are signed with our password.
pub(super) struct Password(hmac::Key);

impl Password {
    pub(super) fn new(password: &str) -> Self {
        Self(hmac::Key::new(
            hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            password.as_bytes(),
        ))
    }
}

/// A well-formed binding request whose signature nobody has verified yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct BindingRequest<'a> {
    bytes: &'a [u8],
    /// Where MESSAGE-INTEGRITY begins, counted from the header.
    integrity_at: usize,
    integrity: &'a [u8],
    transaction: [u8; 12],
    /// USERNAME up to the colon: the fragment of the side that is asked, ours. What follows
    /// is the peer's; the signature says enough about it.
    pub(super) local_ufrag: &'a str,
    /// The peer nominates this pair (RFC 8445 section 7.1.2).
    pub(super) use_candidate: bool,
    /// The peer takes itself for the controlled agent.
    pub(super) controlled: bool,
}

impl<'a> BindingRequest<'a> {
    /// Reads a datagram; `None` for all that is no binding request with a USERNAME and a
    /// MESSAGE-INTEGRITY: such messages are dropped in silence (RFC 8445 section 7.3
    /// would answer 400, which only helps a scanner).
    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let header = Header::decode(&mut reader)
            .ok()
            .filter(|header| header.message_type == BINDING_REQUEST)?;
        if usize::from(header.length) != reader.len() || header.length % 4 != 0 {
            return None;
        }
        let mut username = None;
        let mut use_candidate = false;
        let mut controlled = false;
        loop {
            let at = bytes.len() - reader.len();
            let (kind, value) = attribute(&mut reader).ok()?;
            match kind {
                USERNAME if username.is_none() => {
                    username = Some(std::str::from_utf8(value).ok()?.split_once(':')?.0);
                }
                USE_CANDIDATE => use_candidate = true,
                ICE_CONTROLLED => controlled = true,
                // What follows it is not protected by it (RFC 8489 section 14.5).
                MESSAGE_INTEGRITY if value.len() == INTEGRITY_BYTES => {
                    let local_ufrag = username?;
                    return Some(Self {
                        bytes,
                        integrity_at: at,
                        integrity: value,
                        transaction: header.transaction,
                        local_ufrag,
                        use_candidate,
                        controlled,
                    });
                }
                _ => {}
            }
        }
    }

    /// Whether the request was signed with `password` (RFC 8489 section 14.5).
    pub(super) fn is_signed_with(&self, password: &Password) -> bool {
        is_signed(self.bytes, self.integrity_at, self.integrity, password)
    }

    /// The success response: what address the request came from.
    pub(super) fn success(&self, source: SocketAddr, password: &Password) -> Vec<u8> {
        let mut out = header(BINDING_SUCCESS, self.transaction);
        put_xor_mapped_address(&mut out, source, self.transaction);
        finish(out, password)
    }

    /// The 487 that makes a peer take the controlling role: an ICE-lite agent is always
    /// controlled when its peer is a full one (RFC 8445 section 6.1.1).
    pub(super) fn role_conflict(&self, password: &Password) -> Vec<u8> {
        const REASON: &[u8] = b"Role Conflict";
        let mut out = header(BINDING_ERROR, self.transaction);
        let mut value = vec![0, 0, 4, 87];
        value.extend_from_slice(REASON);
        put_attribute(&mut out, ERROR_CODE, &value);
        finish(out, password)
    }
}

/// A nominating binding request of our own making: it tells the library, which
/// sees one peer at one address, that the connection lives.
pub(super) fn nomination(
    local_ufrag: &str,
    remote_ufrag: &str,
    password: &Password,
    transaction: [u8; 12],
) -> Vec<u8> {
    let mut out = header(BINDING_REQUEST, transaction);
    let username = format!("{local_ufrag}:{remote_ufrag}");
    put_attribute(&mut out, USERNAME, username.as_bytes());
    put_attribute(&mut out, PRIORITY, &0x6e00_1eff_u32.to_be_bytes());
    put_attribute(&mut out, ICE_CONTROLLING, &1_u64.to_be_bytes());
    put_attribute(&mut out, USE_CANDIDATE, &[]);
    finish(out, password)
}

/// A binding request of a controlled agent, which nominates nothing: only its answer is of interest.
/// `username` is the peer's fragment, a colon and ours; `password` the peer's; `padding` are bytes
/// that make it longer and that the peer passes over (RFC 8489 section 14).
pub(super) fn echo(
    username: &str,
    password: &Password,
    transaction: [u8; 12],
    padding: usize,
) -> Vec<u8> {
    let mut out = header(BINDING_REQUEST, transaction);
    put_attribute(&mut out, USERNAME, username.as_bytes());
    put_attribute(&mut out, PRIORITY, &0x6e00_1eff_u32.to_be_bytes());
    put_attribute(&mut out, ICE_CONTROLLED, &1_u64.to_be_bytes());
    if padding > 0 {
        put_attribute(&mut out, UNKNOWN_OPTIONAL, &vec![0; padding]);
    }
    finish(out, password)
}

/// The transaction of a success response that was signed with `password`; `None` for anything
/// else.
pub(super) fn answered(bytes: &[u8], password: &Password) -> Option<[u8; 12]> {
    let mut reader = Reader::new(bytes);
    let header = Header::decode(&mut reader)
        .ok()
        .filter(|header| header.message_type == BINDING_SUCCESS)?;
    if usize::from(header.length) != reader.len() {
        return None;
    }
    loop {
        let at = bytes.len() - reader.len();
        let (kind, value) = attribute(&mut reader).ok()?;
        if kind == MESSAGE_INTEGRITY {
            let is_signed = is_signed(bytes, at, value, password);
            return is_signed.then_some(header.transaction);
        }
    }
}

/// Whether `integrity`, the value of the attribute at `integrity_at`, signs what stands before it
/// (RFC 8489 section 14.5).
fn is_signed(bytes: &[u8], integrity_at: usize, integrity: &[u8], password: &Password) -> bool {
    let Some((kind, rest)) = bytes
        .get(..integrity_at)
        .and_then(|signed| signed.split_first_chunk::<2>())
    else {
        return false;
    };
    let Some(rest) = rest.get(2..) else {
        return false;
    };
    let length = integrity_at + ATTRIBUTE_HEADER_BYTES + INTEGRITY_BYTES - HEADER_BYTES;
    let Ok(length) = u16::try_from(length) else {
        return false;
    };
    // The length counts up to the signature, whatever attributes follow it.
    let mut signed = Vec::with_capacity(integrity_at);
    signed.extend_from_slice(kind);
    signed.put_u16_be(length);
    signed.extend_from_slice(rest);
    hmac::verify(&password.0, &signed, integrity).is_ok()
}

/// Whether the datagram looks like STUN: first byte (RFC 7983) and magic cookie.
pub(super) fn is_stun(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| *first < 4)
        && bytes.get(4..8) == Some(&MAGIC_COOKIE.to_be_bytes())
}

/// Whether it is STUN that answers something: class success or error (RFC 8489 section 5).
pub(super) fn is_response(bytes: &[u8]) -> bool {
    is_stun(bytes) && bytes.first().is_some_and(|first| first & 1 != 0)
}

struct Header {
    message_type: u16,
    length: u16,
    transaction: [u8; 12],
}

impl Header {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Truncated> {
        let message_type = reader.u16()?;
        let length = reader.u16()?;
        if reader.u32()? != MAGIC_COOKIE {
            return Err(Truncated);
        }
        Ok(Self {
            message_type,
            length,
            transaction: reader.array()?,
        })
    }
}

/// One attribute; the padding to four bytes is consumed with it.
fn attribute<'a>(reader: &mut Reader<'a>) -> Result<(u16, &'a [u8]), Truncated> {
    let kind = reader.u16()?;
    let length = usize::from(reader.u16()?);
    let value = reader.take(length)?;
    reader.take(length.next_multiple_of(4) - length)?;
    Ok((kind, value))
}

/// A message header whose length `put_attribute` keeps right.
fn header(message_type: u16, transaction: [u8; 12]) -> Vec<u8> {
    let mut out = Vec::with_capacity(RESPONSE_BYTES);
    out.put_u16_be(message_type);
    out.put_u16_be(0);
    out.put_u32_be(MAGIC_COOKIE);
    out.extend_from_slice(&transaction);
    out
}

fn put_attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.put_u16_be(kind);
    out.put_u16_be(value.len() as u16);
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
    let end = out.len();
    set_length(out, end);
}

fn set_length(out: &mut [u8], end: usize) {
    let length = (end - HEADER_BYTES) as u16;
    out[2..4].copy_from_slice(&length.to_be_bytes());
}

fn put_xor_mapped_address(out: &mut Vec<u8>, address: SocketAddr, transaction: [u8; 12]) {
    let mut value = Vec::with_capacity(20);
    value.push(0);
    value.push(if address.is_ipv4() { 1 } else { 2 });
    value.put_u16_be(address.port() ^ (MAGIC_COOKIE >> 16) as u16);
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    mask[4..].copy_from_slice(&transaction);
    let xor = |octets: &[u8], value: &mut Vec<u8>| {
        value.extend(octets.iter().zip(mask).map(|(octet, mask)| octet ^ mask));
    };
    match address.ip() {
        IpAddr::V4(ip) => xor(&ip.octets(), &mut value),
        IpAddr::V6(ip) => xor(&ip.octets(), &mut value),
    }
    put_attribute(out, XOR_MAPPED_ADDRESS, &value);
}

/// Signs the message and adds the FINGERPRINT, which some peers demand.
fn finish(mut out: Vec<u8>, password: &Password) -> Vec<u8> {
    let end = out.len() + ATTRIBUTE_HEADER_BYTES + INTEGRITY_BYTES;
    set_length(&mut out, end);
    let tag = hmac::sign(&password.0, &out);
    put_attribute(&mut out, MESSAGE_INTEGRITY, tag.as_ref());
    let end = out.len() + 8;
    set_length(&mut out, end);
    let crc = crc32(&out) ^ FINGERPRINT_XOR;
    put_attribute(&mut out, FINGERPRINT, &crc.to_be_bytes());
    out
}

/// CRC-32 of ITU V.42, bit by bit: a response is some 80 bytes, twice in five seconds.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let carry = (crc & 1).wrapping_neg();
            crc = (crc >> 1) ^ (0xedb8_8320 & carry);
        }
    }
    !crc
}

const HEADER_BYTES: usize = 20;
const ATTRIBUTE_HEADER_BYTES: usize = 4;
const INTEGRITY_BYTES: usize = 20;
/// Enough for a signed response with an IPv6 address.
const RESPONSE_BYTES: usize = 96;

const MAGIC_COOKIE: u32 = 0x2112_a442;
const FINGERPRINT_XOR: u32 = 0x5354_554e;

const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_ERROR: u16 = 0x0111;

const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const PRIORITY: u16 = 0x0024;
const USE_CANDIDATE: u16 = 0x0025;
const FINGERPRINT: u16 = 0x8028;
const ICE_CONTROLLED: u16 = 0x8029;
const ICE_CONTROLLING: u16 = 0x802a;
/// Of the range that nobody has to understand (RFC 8489 section 18.3), assigned to nobody.
const UNKNOWN_OPTIONAL: u16 = 0xfffe;

/// Checks that other modules' tests need and no gateway sends.
#[cfg(test)]
pub(super) mod tests_only {
    use super::*;

    /// A check that nominates nothing and, as ffmpeg's, has no PRIORITY.
    pub(crate) fn plain_check(local: &str, remote: &str, password: &Password) -> Vec<u8> {
        let mut out = header(BINDING_REQUEST, [9; 12]);
        put_attribute(&mut out, USERNAME, format!("{local}:{remote}").as_bytes());
        finish(out, password)
    }

    /// A check of a peer in the controlled role.
    pub(crate) fn controlled_check(local: &str, remote: &str, password: &Password) -> Vec<u8> {
        let mut out = header(BINDING_REQUEST, [9; 12]);
        put_attribute(&mut out, USERNAME, format!("{local}:{remote}").as_bytes());
        put_attribute(&mut out, ICE_CONTROLLED, &5_u64.to_be_bytes());
        finish(out, password)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        text.split_whitespace()
            .map(|byte| u8::from_str_radix(byte, 16).unwrap())
            .collect()
    }

    /// RFC 5769 section 2.1: sample request; the password of the same section.
    fn sample_request() -> Vec<u8> {
        hex("00 01 00 58 21 12 a4 42 b7 e7 a7 01 bc 34 d6 86 fa 87 df ae
             80 22 00 10 53 54 55 4e 20 74 65 73 74 20 63 6c 69 65 6e 74
             00 24 00 04 6e 00 01 ff
             80 29 00 08 93 2f f9 b1 51 26 3b 36
             00 06 00 09 65 76 74 6a 3a 68 36 76 59 20 20 20
             00 08 00 14 9a ea a7 0c bf d8 cb 56 78 1e f2 b5 b2 d3 f2 49 c1 b5 71 a2
             80 28 00 04 e5 7a 3b cf")
    }

    const SAMPLE_PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBt";

    #[test]
    fn reads_and_verifies_the_sample_of_rfc_5769() {
        let bytes = sample_request();
        let request = BindingRequest::decode(&bytes).unwrap();
        assert_eq!(request.local_ufrag, "evtj");
        assert!(request.controlled && !request.use_candidate);
        assert!(request.is_signed_with(&Password::new(SAMPLE_PASSWORD)));
        assert!(!request.is_signed_with(&Password::new("another")));
    }

    #[test]
    fn writes_the_sample_response_of_rfc_5769() {
        // Section 2.2, without its SOFTWARE attribute: address and XOR are the same.
        let bytes = sample_request();
        let request = BindingRequest::decode(&bytes).unwrap();
        let response = request.success(
            "192.0.2.1:32853".parse().unwrap(),
            &Password::new(SAMPLE_PASSWORD),
        );
        assert_eq!(
            &response[20..32],
            &hex("00 20 00 08 00 01 a1 47 e1 12 a6 43")[..]
        );
        assert_eq!(
            usize::from(u16::from_be_bytes([response[2], response[3]])),
            response.len() - 20
        );
        let crc = crc32(&response[..response.len() - 8]) ^ FINGERPRINT_XOR;
        assert!(response.ends_with(&crc.to_be_bytes()));
    }

    #[test]
    fn the_fingerprint_of_the_sample_is_what_we_compute() {
        let bytes = sample_request();
        let crc = crc32(&bytes[..bytes.len() - 8]) ^ FINGERPRINT_XOR;
        assert_eq!(crc, 0xe57a_3bcf);
    }

    #[test]
    fn our_nomination_reads_back() {
        let password = Password::new("secret-secret-secret-12");
        let bytes = nomination("here", "there", &password, [7; 12]);
        let request = BindingRequest::decode(&bytes).unwrap();
        assert!(request.use_candidate && !request.controlled);
        assert!(request.is_signed_with(&password));
    }

    #[test]
    fn every_flipped_bit_is_refused_or_harmless() {
        let password = Password::new(SAMPLE_PASSWORD);
        let sample = sample_request();
        // All before the fingerprint is signed.
        for bit in 0..(sample.len() - 8) * 8 {
            let mut bytes = sample.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Some(request) = BindingRequest::decode(&bytes) {
                // The length field is recomputed for the signature, so a flip there
                // is caught by the length check instead.
                assert!(!request.is_signed_with(&password), "bit {bit}");
            }
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        let sample = sample_request();
        for length in 0..sample.len() {
            assert!(BindingRequest::decode(&sample[..length]).is_none());
        }
    }

    #[test]
    fn role_conflict_is_487() {
        let bytes = sample_request();
        let request = BindingRequest::decode(&bytes).unwrap();
        let reply = request.role_conflict(&Password::new(SAMPLE_PASSWORD));
        assert_eq!(&reply[..2], &[0x01, 0x11]);
        assert_eq!(&reply[20..28], &hex("00 09 00 11 00 00 04 57")[..]);
    }
}

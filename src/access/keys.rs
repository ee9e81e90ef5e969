//! [`Keys`]: what JWTs are verified with.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey};

use super::base64;

/// The configured keys.
pub(super) struct Keys {
    hs256: Option<hmac::Key>,
    public: Vec<(Algorithm, ParsedPublicKey)>,
}

/// How a JWT is signed. There are no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// HMAC with SHA-256 (RFC 7518 section 3.2).
    Hs256,
    /// ECDSA on P-256 with SHA-256 (RFC 7518 section 3.4).
    Es256,
    /// Ed25519 (RFC 8037 section 3.1).
    EdDsa,
}

impl Algorithm {
    /// The algorithm of this `alg`, which is compared as it is: `none` in whatever
    /// spelling is none of these.
    pub(super) fn parse(name: &str) -> Option<Self> {
        match name {
            "HS256" => Some(Self::Hs256),
            "ES256" => Some(Self::Es256),
            "EdDSA" | "Ed25519" => Some(Self::EdDsa),
            _ => None,
        }
    }
}

impl Keys {
    /// Keys of a secret and of PEM blocks, either of which may be empty.
    ///
    /// # Errors
    /// The setting that is wrong, as a field name, and why.
    pub(super) fn new(secret: &str, pem: &str) -> Result<Self, (&'static str, String)> {
        if !secret.is_empty() && secret.len() < SECRET_BYTES_MIN {
            return Err((
                "access.jwt_secret",
                format!(
                    "must have at least {SECRET_BYTES_MIN} bytes (RFC 7518 section 3.2), as \
                     `openssl rand -base64 32` gives"
                ),
            ));
        }
        let hs256 =
            (!secret.is_empty()).then(|| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()));
        let public = read_pem(pem).map_err(|reason| ("access.jwt_public_key", reason))?;
        Ok(Self { hs256, public })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.hs256.is_none() && self.public.is_empty()
    }

    /// Whether there is a key for `algorithm`.
    pub(super) fn has(&self, algorithm: Algorithm) -> bool {
        match algorithm {
            Algorithm::Hs256 => self.hs256.is_some(),
            _ => self.public.iter().any(|(of, _)| *of == algorithm),
        }
    }

    /// Whether `signature` is that of `message` by a key of this very algorithm.
    pub(super) fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        match algorithm {
            Algorithm::Hs256 => self
                .hs256
                .as_ref()
                .is_some_and(|key| hmac::verify(key, message, signature).is_ok()),
            _ => self
                .public
                .iter()
                .filter(|(of, _)| *of == algorithm)
                .any(|(_, key)| key.verify_sig(message, signature).is_ok()),
        }
    }
}

fn read_pem(text: &str) -> Result<Vec<(Algorithm, ParsedPublicKey)>, String> {
    let mut keys = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("-----BEGIN ") {
        let (label, after) = after
            .split_once("-----")
            .ok_or("has a PEM line that is cut")?;
        let end = format!("-----END {label}-----");
        let (body, after) = after
            .split_once(&end)
            .ok_or("has a PEM block without its end")?;
        rest = after;
        match label {
            "PUBLIC KEY" => {}
            "PRIVATE KEY" | "EC PRIVATE KEY" => {
                return Err(
                    "is a private key, which only the maker of tokens should have: take its \
                     public key (openssl pkey -in FILE -pubout)"
                        .into(),
                );
            }
            other => return Err(format!("has a PEM block {other:?}, not \"PUBLIC KEY\"")),
        }
        if keys.len() == PUBLIC_KEYS_MAX {
            return Err(format!("has more than {PUBLIC_KEYS_MAX} keys"));
        }
        let body: String = body.split_ascii_whitespace().collect();
        let der = base64::decode_padded(&body).ok_or("has a PEM block that is not base64")?;
        keys.push(public_key(&der)?);
    }
    if keys.is_empty() && !text.is_empty() {
        return Err(
            "has no PEM block \"-----BEGIN PUBLIC KEY-----\" (is \"file:\" missing?)".into(),
        );
    }
    Ok(keys)
}

/// A SubjectPublicKeyInfo (RFC 5280 section 4.1) of one of the two kinds.
fn public_key(der: &[u8]) -> Result<(Algorithm, ParsedPublicKey), String> {
    let rejected = |error| format!("has a key that is rejected: {error}");
    if let Some(point) = der.strip_prefix(P256_PREFIX) {
        let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).map_err(rejected)?;
        return Ok((Algorithm::Es256, key));
    }
    if let Some(point) = der.strip_prefix(ED25519_PREFIX) {
        let key = ParsedPublicKey::new(&ED25519, point).map_err(rejected)?;
        return Ok((Algorithm::EdDsa, key));
    }
    Err("has a key that is neither P-256 (ES256, uncompressed) nor Ed25519 (EdDSA)".into())
}

/// RFC 7518 section 3.2: at least as long as the hash.
const SECRET_BYTES_MIN: usize = 32;

/// Bounds the signatures that one token can make us try.
const PUBLIC_KEYS_MAX: usize = 8;

/// SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING of 65 bytes } (RFC 5480).
const P256_PREFIX: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// SEQUENCE { SEQUENCE { id-Ed25519 }, BIT STRING of 32 bytes } (RFC 8410).
const ED25519_PREFIX: &[u8] = &[
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

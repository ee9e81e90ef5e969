//! Tokens as an operator's own server makes them.

use aws_lc_rs::hmac;

/// The key of the tests, for `access.jwt_secret`.
pub const SECRET: &str = "a key of the tests, 32 bytes or more";

/// A JWT by HS256 with these claims.
pub fn hs256(claims: &serde_json::Value) -> String {
    let header = encode(br#"{"alg":"HS256","typ":"JWT"}"#);
    let message = format!("{header}.{}", encode(claims.to_string().as_bytes()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let signature = hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", encode(signature.as_ref()))
}

/// `base64url` without padding (RFC 7515 section 2).
fn encode(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let word = part
            .iter()
            .fold(0u32, |word, byte| word << 8 | u32::from(*byte));
        let word = word << (8 * (3 - part.len()));
        for place in 0..=part.len() {
            text.push(char::from(
                ALPHABET[(word >> (18 - 6 * place) & 63) as usize],
            ));
        }
    }
    text
}

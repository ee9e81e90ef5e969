//! [`Verifier`]: a JWT in compact form and what its claims say.

use std::time::Duration;

use serde::Deserialize;

use super::keys::{Algorithm, Keys};
use super::{Identity, Kind, Refusal, Right, Scope, SettingsError, base64};
use crate::config;

/// Judges JWTs.
pub(super) struct Verifier {
    keys: Keys,
    audience: String,
    issuer: String,
    leeway: Duration,
    require_expiry: bool,
}

/// RFC 7515 section 4.1. What it says of keys (`jwk`, `jku`, `x5c`, `kid`) is not asked.
#[derive(Deserialize)]
struct Header {
    alg: String,
    crit: Option<serde::de::IgnoredAny>,
}

/// RFC 7519 section 4.1, and ours. Claims that are not ours are of no interest.
#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
    name: Option<String>,
    rights: Option<Vec<String>>,
    rooms: Option<Vec<String>>,
    streams: Option<Vec<String>>,
    exp: Option<f64>,
    nbf: Option<f64>,
    aud: Option<Audience>,
    iss: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Verifier {
    /// `None` if there are no keys.
    pub(super) fn new(settings: &config::Access) -> Result<Option<Self>, SettingsError> {
        let (secret, pem) = (&settings.jwt_secret, &settings.jwt_public_key);
        let keys = Keys::new(secret.reveal(), pem.reveal())
            .map_err(|(key, reason)| SettingsError { key, reason })?;
        Ok((!keys.is_empty()).then(|| Self {
            keys,
            audience: settings.jwt_audience.clone(),
            issuer: settings.jwt_issuer.clone(),
            leeway: settings.jwt_leeway,
            require_expiry: settings.jwt_require_expiry,
        }))
    }

    /// Who shows this token. Its claims are looked at only once its signature is verified.
    pub(super) fn judge(&self, token: &str, unix_now: Duration) -> Result<Identity, Refusal> {
        // header.payload.signature, nothing more (RFC 7515 section 7.1).
        let (message, signature) = token.rsplit_once('.').ok_or(Refusal::Unknown)?;
        let (header, payload) = message.split_once('.').ok_or(Refusal::Unknown)?;
        let header = base64::decode_url(header).ok_or(Refusal::Malformed)?;
        let header: Header = serde_json::from_slice(&header).map_err(|_| Refusal::Malformed)?;
        // Extensions that must be understood are not (section 4.1.11).
        if header.crit.is_some() {
            return Err(Refusal::Algorithm);
        }
        let algorithm = Algorithm::parse(&header.alg)
            .filter(|algorithm| self.keys.has(*algorithm))
            .ok_or(Refusal::Algorithm)?;
        let payload = base64::decode_url(payload).ok_or(Refusal::Malformed)?;
        let signature = base64::decode_url(signature).ok_or(Refusal::Malformed)?;
        if !self.keys.verify(algorithm, message.as_bytes(), &signature) {
            return Err(Refusal::Signature);
        }
        let claims = serde_json::from_slice(&payload).map_err(|_| Refusal::Malformed)?;
        self.judge_claims(claims, unix_now.as_secs_f64())
    }

    fn judge_claims(&self, claims: Claims, now: f64) -> Result<Identity, Refusal> {
        let leeway = self.leeway.as_secs_f64();
        match claims.exp {
            Some(exp) if now >= exp + leeway => return Err(Refusal::Expired),
            None if self.require_expiry => return Err(Refusal::NoExpiry),
            _ => {}
        }
        if claims.nbf.is_some_and(|nbf| now + leeway < nbf) {
            return Err(Refusal::NotYetValid);
        }
        if !self.audience.is_empty() && !claims.aud.is_some_and(|a| a.names(&self.audience)) {
            return Err(Refusal::Audience);
        }
        if !self.issuer.is_empty() && claims.iss.as_ref() != Some(&self.issuer) {
            return Err(Refusal::Issuer);
        }
        let user = claims
            .sub
            .filter(|sub| is_id(sub))
            .ok_or(Refusal::Claim("sub"))?;
        if claims.name.as_ref().is_some_and(|name| !is_name(name)) {
            return Err(Refusal::Claim("name"));
        }
        let rights = claims.rights.unwrap_or_default();
        Ok(Identity {
            kind: Kind::Token,
            user: Some(user),
            name: claims.name,
            // A right of a later version, or of another service, is none here.
            rights: rights
                .iter()
                .filter_map(|word| Right::parse(word))
                .collect(),
            rooms: claims.rooms.map_or(Scope::All, Scope::Only),
            streams: claims.streams.map_or(Scope::All, Scope::Only),
            // Rounded down; what is out of range is as good as never.
            expires: claims.exp.map(|exp| exp.max(0.0) as u64),
        })
    }
}

impl Audience {
    fn names(&self, wanted: &str) -> bool {
        match self {
            Self::One(audience) => audience == wanted,
            Self::Many(all) => all.iter().any(|audience| audience == wanted),
        }
    }
}

/// Whether this is fit for a user's id.
pub(super) fn is_id(text: &str) -> bool {
    (1..=ID_BYTES_MAX).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte))
}

/// Whether this can be shown to people.
fn is_name(text: &str) -> bool {
    text.chars().count() <= NAME_CHARS_MAX && !text.chars().any(char::is_control)
}

/// Bounds a user's id.
const ID_BYTES_MAX: usize = 64;

/// Bounds a name that is shown to people.
const NAME_CHARS_MAX: usize = 64;

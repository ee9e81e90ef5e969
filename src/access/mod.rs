//! Who may do what: judges a token, or none, and answers an [`Identity`] with rights.
//!
//! | module | owns |
//! | --- | --- |
//! | `jwt` | JSON Web Tokens (RFC 7519) in compact form (RFC 7515) and their claims |
//! | `keys` | what they are verified with: HS256, ES256 (RFC 7518), EdDSA (RFC 8037) |
//! | `base64` | the two alphabets, strictly |
//!
//! Pure: the time comes in. A token is judged when something begins; what has begun goes on
//! after the token has expired. The algorithm of a JWT is decided by the configured keys: a
//! token that names another one is refused before anything is computed, so an HMAC made
//! with a public key, `none`, or a curve of its choice get nowhere.

mod base64;
mod jwt;
mod keys;

use std::fmt;
use std::time::Duration;

use aws_lc_rs::{constant_time, digest};

use crate::config;
pub use crate::config::Right;
use jwt::Verifier;

/// Judges tokens.
pub struct Access {
    anonymous: Option<Identity>,
    secret: Option<Fingerprint>,
    jwt: Option<Verifier>,
}

/// Who somebody is and what it may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// How it is known.
    pub kind: Kind,
    /// The claim `sub`: 1 to 64 characters `A-Z a-z 0-9 - _ . @`. There with
    /// [`Kind::Token`] only.
    pub user: Option<String>,
    /// The claim `name`: what others are shown.
    pub name: Option<String>,
    rights: Rights,
    rooms: Scope,
    streams: Scope,
    /// When its token expires, in seconds since 1970.
    pub expires: Option<u64>,
}

/// How somebody is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Not at all: no token, or one that means nothing here.
    Anonymous,
    /// By the static secret of the configuration.
    Secret,
    /// By a JWT.
    Token,
}

/// What a right is used on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource<'a> {
    /// A stream by its key, as `live/alice`.
    Stream(&'a str),
    /// A room by its name.
    Room(&'a str),
    /// Nothing that has a name.
    Any,
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No token, and nothing is allowed without one.
    Missing,
    /// Neither the secret nor a JWT that a configured key could verify.
    Unknown,
    /// Not a JWT: its parts, their encoding, or their JSON.
    Malformed,
    /// Its algorithm is not that of a configured key.
    Algorithm,
    /// Its signature is not by a configured key.
    Signature,
    /// Its time is over.
    Expired,
    /// Its time has not come.
    NotYetValid,
    /// It does not say when it expires.
    NoExpiry,
    /// It was made for another service.
    Audience,
    /// It was made by someone else.
    Issuer,
    /// A claim is missing or of the wrong form; the claim's name.
    Claim(&'static str),
    /// The token is good, but does not allow this.
    Forbidden(Right),
    /// The name is one of those that are kept for rooms.
    Reserved,
}

impl Refusal {
    /// A short name for counters and programs.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Missing => "token_missing",
            Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
            Self::Forbidden(_) => "forbidden",
            Self::Reserved => "reserved_name",
            Self::Unknown
            | Self::Malformed
            | Self::Algorithm
            | Self::Signature
            | Self::NoExpiry
            | Self::Audience
            | Self::Issuer
            | Self::Claim(_) => "token_invalid",
        }
    }
}

/// A sentence fit for the peer.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "a token is needed (?token=...)",
            Self::Unknown => "the token is not known here",
            Self::Malformed => "the token is malformed",
            Self::Algorithm => "the token is signed by an algorithm that is not taken here",
            Self::Signature => "the token's signature is wrong",
            Self::Expired => "the token has expired",
            Self::NotYetValid => "the token is not valid yet",
            Self::NoExpiry => "the token does not say when it expires",
            Self::Audience => "the token is for another service",
            Self::Issuer => "the token is by another issuer",
            Self::Reserved => "such names are for members of a room",
            Self::Claim(name) => return write!(f, "the token's claim {name} is missing or wrong"),
            Self::Forbidden(right) => {
                return write!(f, "the right \"{}\" does not reach so far", right.name());
            }
        })
    }
}

impl std::error::Error for Refusal {}

/// Why no tokens can be judged by these settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError {
    /// The key of the configuration, as in `access.jwt_secret`.
    pub key: &'static str,
    /// What is wrong with it. Never shows it.
    pub reason: String,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.reason)
    }
}

impl std::error::Error for SettingsError {}

impl Access {
    /// Judges by these settings.
    ///
    /// # Errors
    /// If a key is too short or no key.
    pub fn new(settings: &config::Access) -> Result<Self, SettingsError> {
        let anonymous = Identity {
            kind: Kind::Anonymous,
            rights: settings.anonymous.iter().copied().collect(),
            ..Identity::anything(Kind::Anonymous)
        };
        let secret = settings.secret.reveal();
        Ok(Self {
            anonymous: (!settings.anonymous.is_empty()).then_some(anonymous),
            secret: (!secret.is_empty()).then(|| Fingerprint::of(secret)),
            jwt: Verifier::new(settings)?,
        })
    }

    /// Who shows `token` at `unix_now`, the time since 1970. An empty token is none.
    ///
    /// A token that is shown must be good. Only where no secret and no key is configured
    /// it means nothing to us, and whoever shows it is anonymous.
    ///
    /// # Errors
    /// Why nobody is let in with it.
    pub fn judge(&self, token: Option<&str>, unix_now: Duration) -> Result<Identity, Refusal> {
        let anonymous = || self.anonymous.clone().ok_or(Refusal::Missing);
        let Some(token) = token.filter(|token| !token.is_empty()) else {
            return anonymous();
        };
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refusal::Malformed);
        }
        if self.secret == Some(Fingerprint::of(token)) {
            return Ok(Identity::anything(Kind::Secret));
        }
        match &self.jwt {
            Some(jwt) => jwt.judge(token, unix_now),
            None if self.secret.is_some() => Err(Refusal::Unknown),
            None => anonymous(),
        }
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("anonymous", &self.anonymous)
            .field("has_secret", &self.secret.is_some())
            .field("takes_jwt", &self.jwt.is_some())
            .finish()
    }
}

impl Identity {
    /// Somebody who may do everything.
    fn anything(kind: Kind) -> Self {
        Self {
            kind,
            user: None,
            name: None,
            rights: Right::ALL.into_iter().collect(),
            rooms: Scope::All,
            streams: Scope::All,
            expires: None,
        }
    }

    /// Whether `right` may be used on `resource`.
    pub fn allows(&self, right: Right, resource: Resource<'_>) -> bool {
        self.rights.has(right)
            && match resource {
                Resource::Stream(key) => self.streams.covers(key),
                Resource::Room(name) => self.rooms.covers(name),
                Resource::Any => true,
            }
    }

    /// The same as an answer. Without a token the answer is that one is missing.
    ///
    /// # Errors
    /// [`Refusal::Missing`] or [`Refusal::Forbidden`].
    pub fn require(&self, right: Right, resource: Resource<'_>) -> Result<(), Refusal> {
        match (self.allows(right, resource), self.kind) {
            (true, _) => Ok(()),
            (false, Kind::Anonymous) => Err(Refusal::Missing),
            (false, _) => Err(Refusal::Forbidden(right)),
        }
    }
}

/// A set of rights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rights(u8);

impl Rights {
    fn has(self, right: Right) -> bool {
        self.0 & (1 << right as u8) != 0
    }
}

impl FromIterator<Right> for Rights {
    fn from_iter<I: IntoIterator<Item = Right>>(rights: I) -> Self {
        Self(rights.into_iter().fold(0, |set, r| set | 1 << r as u8))
    }
}

/// Which names a token is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Scope {
    All,
    /// Names, or beginnings of names where the last character is `*`.
    Only(Vec<String>),
}

impl Scope {
    fn covers(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(patterns) => patterns.iter().any(|p| match p.strip_suffix('*') {
                Some(beginning) => name.starts_with(beginning),
                None => p == name,
            }),
        }
    }
}

/// Whose a stream or session is: who shows the same token, or is the same user, may take it over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    token: Option<Fingerprint>,
    user: Option<Fingerprint>,
}

impl Holder {
    /// Who shows `token` and is `identity`, if it was judged to be somebody.
    pub fn new(token: Option<&str>, identity: Option<&Identity>) -> Self {
        let user = identity.and_then(|identity| identity.user.as_deref());
        Self {
            token: token.filter(|t| !t.is_empty()).map(Fingerprint::of),
            user: user.map(Fingerprint::of),
        }
    }

    /// Whether this is nobody in particular: no token was shown.
    pub fn is_nobody(&self) -> bool {
        self.token.is_none()
    }

    /// Whether both are the same one. Nobody in particular is never the same.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.token.is_some() && self.token == other.token)
            || (self.user.is_some() && self.user == other.user)
    }
}

/// The SHA-256 of a text. Compared in constant time, and the text is not kept.
#[derive(Clone, Eq)]
struct Fingerprint([u8; digest::SHA256_OUTPUT_LEN]);

impl Fingerprint {
    fn of(text: &str) -> Self {
        let mut bytes = [0; digest::SHA256_OUTPUT_LEN];
        let digest = digest::digest(&digest::SHA256, text.as_bytes());
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }
}

impl PartialEq for Fingerprint {
    fn eq(&self, other: &Self) -> bool {
        constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

/// Bounds a token; a longer one is malformed. RTMP carries 4,096 bytes of query, HTTP more.
pub const TOKEN_BYTES_MAX: usize = 8_192;

#[cfg(test)]
mod tests;

//! [`Tokens`]: the secrets in RTMP URLs. Each is bound to the member that holds it and to the
//! stream that it publishes (its own) or plays (another's).

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::{Duration, Instant};

use super::MemberKey;
use crate::secrets::Secrets;

/// All tokens that are valid, or were and may be renewed.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    grants: HashMap<String, Grant>,
    /// One for each holder and stream.
    of: BTreeMap<(MemberKey, MemberKey), String>,
}

#[derive(Debug)]
struct Grant {
    holder: MemberKey,
    stream: MemberKey,
    /// Until when it must be used first; `None`: it was.
    until: Option<Instant>,
}

/// Why a publisher or player of a room is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// No token was shown, or none that there is.
    Invalid,
    /// It is for another stream or the other direction.
    Misused,
    /// It was not used in time.
    Expired,
}

impl TokenError {
    /// A short name for counters.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Invalid => "room_token_invalid",
            Self::Misused => "room_token_misused",
            Self::Expired => "room_token_expired",
        }
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "the stream belongs to a room and needs the token of a member",
            Self::Misused => "the token is for another stream or the other direction",
            Self::Expired => "the token is too old; ask for room.urls",
        })
    }
}

impl std::error::Error for TokenError {}

impl Tokens {
    /// The token with which `holder` may publish or play `stream`, to be used within `ttl` if it
    /// never was.
    pub(super) fn issue(
        &mut self,
        now: Instant,
        ttl: Duration,
        secrets: &mut Secrets,
        holder: MemberKey,
        stream: MemberKey,
    ) -> String {
        if let Some(text) = self.of.get(&(holder, stream))
            && let Some(grant) = self.grants.get_mut(text)
        {
            match &mut grant.until {
                None => return text.clone(),
                Some(until) if now < *until => {
                    *until = now + ttl;
                    return text.clone();
                }
                Some(_) => {}
            }
        }
        self.forget(holder, stream);
        let text = secrets.name();
        let grant = Grant {
            holder,
            stream,
            until: Some(now + ttl),
        };
        self.grants.insert(text.clone(), grant);
        self.of.insert((holder, stream), text.clone());
        text
    }

    /// Whose token lets somebody publish or play `stream`. From now on it does not expire.
    pub(super) fn use_for(
        &mut self,
        now: Instant,
        text: Option<&str>,
        stream: MemberKey,
        publishes: bool,
    ) -> Result<MemberKey, TokenError> {
        let grant = text.and_then(|text| self.grants.get_mut(text));
        let grant = grant.ok_or(TokenError::Invalid)?;
        if grant.stream != stream || (grant.holder == stream) != publishes {
            return Err(TokenError::Misused);
        }
        if grant.until.is_some_and(|until| until <= now) {
            return Err(TokenError::Expired);
        }
        grant.until = None;
        Ok(grant.holder)
    }

    /// A token is no more.
    pub(super) fn forget(&mut self, holder: MemberKey, stream: MemberKey) {
        if let Some(text) = self.of.remove(&(holder, stream)) {
            self.grants.remove(&text);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.grants.len()
    }
}

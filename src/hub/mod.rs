//! The hub: streams by name, who publishes each and who plays it.
//!
//! Knows no protocol and no socket. A stream comes to be by its first publisher or by a
//! player that waits for one, and goes when both are gone.

mod live_clock;
mod live_stamp;
mod meter;
mod ring;
mod stream;
mod surge;
mod timeline;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use live_clock::LiveClock;
pub use meter::{Meter, Rate};
pub use ring::{BrowserView, Entry, Ring, RingLimits};
pub use stream::{Announced, Patience, Publisher, Stream, Track, VideoHealth};
pub use surge::Surge;
pub use timeline::{Placed, RtmpTimeline, RtpTimeline};

use crate::access::Holder;
use crate::ids::{IdMap, PeerId, StreamId};

/// What the hub allows.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Streams at most, published or waited for.
    pub streams_max: usize,
    /// A publisher that was silent for this long can be replaced by anybody.
    pub takeover_silence: Duration,
    /// How long a stream whose publisher left keeps its players.
    pub publisher_grace: Duration,
    /// What each stream may hold.
    pub ring: RingLimits,
}

/// Why a stream could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimError {
    /// Another publisher is live on it.
    Busy,
    /// There are as many streams as the configuration allows.
    TooManyStreams,
}

impl fmt::Display for ClaimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ClaimError::Busy => "the stream is being published by someone else",
            ClaimError::TooManyStreams => "the gateway has as many streams as it may have",
        })
    }
}

impl std::error::Error for ClaimError {}

/// All streams.
#[derive(Debug)]
pub struct Hub {
    streams: IdMap<StreamId, Stream>,
    by_key: HashMap<Arc<str>, StreamId>,
    next: u64,
    /// Streams that players wait for and that nobody has published.
    waited_for: usize,
    limits: Limits,
}

impl Hub {
    /// A hub without streams.
    pub fn new(limits: Limits) -> Self {
        Self {
            streams: IdMap::default(),
            by_key: HashMap::new(),
            next: 1,
            waited_for: 0,
            limits,
        }
    }

    /// Makes `publisher` the publisher of `key`.
    ///
    /// A live publisher is only displaced by the same holder, or after it was silent
    /// for `takeover_silence`; it is answered as the second value, and is to be told.
    pub fn claim(
        &mut self,
        key: &str,
        publisher: Publisher,
        announced: Announced,
    ) -> Result<(StreamId, Option<PeerId>), ClaimError> {
        let known = self.find(key);
        let is_waited_for =
            known.is_some_and(|id| self.get(id).is_some_and(Stream::is_only_waited_for));
        if (known.is_none() || is_waited_for)
            && self.streams.len() - self.waited_for >= self.limits.streams_max
        {
            return Err(ClaimError::TooManyStreams);
        }
        let id = known.unwrap_or_else(|| self.insert(key));
        self.waited_for -= usize::from(is_waited_for);
        let silence = self.limits.takeover_silence;
        let stream = self.streams.get_mut(&id).expect("it was opened above");
        let displaced = displaced(stream, &publisher.holder, publisher.since, silence)?;
        if displaced.is_some() {
            stream.end(publisher.since);
        }
        stream.begin(publisher, announced);
        Ok((id, displaced))
    }

    /// The publisher of `key` that `holder` would displace at `now`.
    pub fn displaced_by(&self, key: &str, holder: &Holder, now: Instant) -> Option<PeerId> {
        let stream = self.get(self.find(key)?)?;
        let silence = self.limits.takeover_silence;
        displaced(stream, holder, now, silence).ok().flatten()
    }

    /// The stream of `key`, made if there is none, so that a player can wait on it.
    pub fn open(&mut self, key: &str) -> Result<StreamId, ClaimError> {
        if let Some(id) = self.by_key.get(key) {
            return Ok(*id);
        }
        // Those that are only waited for have room of their own, so that players of nothing
        // cannot keep publishers out.
        if self.waited_for >= self.limits.streams_max {
            return Err(ClaimError::TooManyStreams);
        }
        self.waited_for += 1;
        Ok(self.insert(key))
    }

    fn insert(&mut self, key: &str) -> StreamId {
        let id = StreamId(self.next);
        self.next += 1;
        let key: Arc<str> = key.into();
        self.streams
            .insert(id, Stream::new(key.clone(), self.limits.ring));
        self.by_key.insert(key, id);
        id
    }

    /// The publisher `peer` leaves; answers whether it was the one.
    pub fn unpublish(&mut self, id: StreamId, peer: PeerId, now: Instant) -> bool {
        match self.streams.get_mut(&id) {
            Some(stream) if stream.publisher.as_ref().is_some_and(|p| p.peer == peer) => {
                stream.end(now);
                true
            }
            _ => false,
        }
    }

    /// Removes the stream if nobody needs it: no publisher, and no players or no hope. Answers
    /// the players that were left on it.
    pub fn reap(&mut self, id: StreamId, now: Instant) -> Option<Stream> {
        let stream = self.streams.get(&id)?;
        let hopeless = match stream.patience {
            Patience::Grace => stream.unpublished.is_some_and(|left| {
                now.saturating_duration_since(left) >= self.limits.publisher_grace
            }),
            Patience::Kept => false,
            Patience::Over => true,
        };
        let is_awaited = stream.has_players() && !hopeless;
        if stream.publisher.is_some() || is_awaited {
            return None;
        }
        self.waited_for -= usize::from(stream.is_only_waited_for());
        self.by_key.remove(&stream.key);
        self.streams.remove(&id)
    }

    /// When [`Hub::reap`] has to look at a stream again.
    pub fn reap_at(&self, id: StreamId) -> Option<Instant> {
        let stream = self.streams.get(&id)?;
        if stream.patience == Patience::Kept {
            return None;
        }
        stream
            .unpublished
            .map(|left| left + self.limits.publisher_grace)
    }

    /// The stream of a name.
    pub fn find(&self, key: &str) -> Option<StreamId> {
        self.by_key.get(key).copied()
    }

    /// A stream.
    pub fn get(&self, id: StreamId) -> Option<&Stream> {
        self.streams.get(&id)
    }

    /// A stream, to be changed.
    pub fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.streams.get_mut(&id)
    }

    /// All streams, sorted by name.
    pub fn sorted(&self) -> Vec<(StreamId, &Stream)> {
        let mut all: Vec<_> = self
            .streams
            .iter()
            .map(|(id, stream)| (*id, stream))
            .collect();
        all.sort_by(|a, b| a.1.key.cmp(&b.1.key));
        all
    }

    /// How many streams there are.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Whether there is no stream.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }
}

/// Whom `holder` displaces as publisher of `stream`, if there is one.
fn displaced(
    stream: &Stream,
    holder: &Holder,
    now: Instant,
    silence: Duration,
) -> Result<Option<PeerId>, ClaimError> {
    match &stream.publisher {
        Some(present) if !present.holder.is_same(holder) && stream.is_active(now, silence) => {
            Err(ClaimError::Busy)
        }
        present => Ok(present.as_ref().map(|present| present.peer)),
    }
}

#[cfg(test)]
mod tests;

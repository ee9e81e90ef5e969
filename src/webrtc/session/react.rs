//! What a session does by itself: it answers checks, passes datagrams to its end, and does what
//! that says.

use std::time::Instant;

use log::debug;

use super::{CloseReason, Datagram, End, Event, Received, Said, Session, State};
use crate::webrtc::ice::{Checked, Pair};

impl Session {
    pub(super) fn silence_deadline(&self) -> Instant {
        self.ice.last_heard() + self.engine.config.silence_timeout
    }

    pub(super) fn handle_check(&mut self, now: Instant, pair: Pair, bytes: &[u8]) -> Received {
        let before = self.ice.selected();
        let (reply, received) = match self.ice.handle_check(now, pair, bytes) {
            Checked::Ignored => return self.handle_echo(now, pair, bytes),
            Checked::Conflict { reply } => (reply, Received::Accepted),
            Checked::Answered { reply, new_pair } => {
                let received = if new_pair {
                    Received::NewPair
                } else {
                    Received::Accepted
                };
                (reply, received)
            }
        };
        let segment = reply.len();
        self.push_datagram(pair, reply, segment);
        if self.ice.selected() != before {
            debug!("[rtc {}] sends to {:?}", self.id.0, self.ice.selected());
        }
        if self.ice.selected().is_some() {
            self.keep_alive(now);
        }
        received
    }

    fn handle_echo(&mut self, now: Instant, pair: Pair, bytes: &[u8]) -> Received {
        let echoes = self.echoes.as_mut();
        let Some((number, rtt)) = echoes.and_then(|echoes| echoes.answered(now, bytes)) else {
            return Received::Dropped;
        };
        self.ice.handle_traffic(now, pair);
        self.events.push_back(Event::Echo { number, rtt });
        Received::Accepted
    }

    pub(super) fn handle_traffic(&mut self, now: Instant, pair: Pair, bytes: &[u8]) -> Received {
        if !self.ice.handle_traffic(now, pair) {
            return Received::Dropped;
        }
        self.keep_alive(now);
        let (said, stats) = (&mut self.said, &mut self.stats);
        let is_taken = match &mut self.end {
            End::Publisher(end) => end.handle_datagram(now, bytes, said, stats),
            End::Viewer(end) => end.handle_datagram(now, bytes, said, stats),
        };
        self.listen();
        if is_taken {
            Received::Accepted
        } else {
            Received::Dropped
        }
    }

    /// The peer lives; the first sign of it begins DTLS.
    fn keep_alive(&mut self, now: Instant) {
        let (said, stats) = (&mut self.said, &mut self.stats);
        match &mut self.end {
            End::Publisher(end) => end.keep_alive(now, said, stats),
            End::Viewer(end) => {
                if !std::mem::replace(&mut self.has_started, true) {
                    end.start(now, said);
                }
            }
        }
        self.listen();
    }

    /// Does what the end of this session has said.
    pub(super) fn listen(&mut self) {
        if self.said.is_empty() {
            return;
        }
        let mut all = std::mem::take(&mut self.said);
        for said in all.drain(..) {
            match said {
                Said::Send { contents, segment } => {
                    if let Some(pair) = self.ice.selected() {
                        self.push_datagram(pair, contents, segment);
                    }
                }
                Said::Connected => {
                    if let State::Connecting { .. } = self.state {
                        self.state = State::Connected;
                        self.events.push_back(Event::Connected);
                    }
                }
                Said::Event(event) => self.events.push_back(event),
                Said::Closed(reason) => self.end(reason),
            }
        }
        self.said = all;
    }

    pub(super) fn push_datagram(&mut self, pair: Pair, contents: Vec<u8>, segment: usize) {
        self.stats.datagrams_sent += contents.len().div_ceil(segment.max(1)) as u64;
        self.stats.bytes_sent += contents.len() as u64;
        self.datagrams.push(Datagram {
            transport: pair.transport,
            source: pair.local,
            destination: pair.remote,
            contents,
            segment,
        });
    }

    pub(super) fn end(&mut self, reason: CloseReason) {
        if !self.is_closed() {
            self.state = State::Closed;
            self.events.push_back(Event::Closed(reason));
        }
    }
}

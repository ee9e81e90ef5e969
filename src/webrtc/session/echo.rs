//! [`Echoes`]: round trips that are measured when one wants to know.
//!
//! Receivers report once a second; a viewer whose path is tried for more needs to be judged sooner.
//! Every full ICE agent answers a binding request that is signed with its password (RFC 8445
//! section 7.3), which an ICE-lite agent has no other use for.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::viewer::Random;
use crate::webrtc::stun::{self, Password};

/// See the module's documentation.
pub(super) struct Echoes {
    /// The peer's fragment, a colon and ours.
    username: String,
    password: Password,
    random: Random,
    /// Those without an answer, oldest first.
    asked: VecDeque<Asked>,
    next: u64,
}

struct Asked {
    number: u64,
    transaction: [u8; 12],
    at: Instant,
}

impl Echoes {
    /// `password` is the peer's.
    pub(super) fn new(username: String, password: &str, seed: u64) -> Self {
        Self {
            username,
            password: Password::new(password),
            random: Random::new(seed),
            asked: VecDeque::new(),
            next: 0,
        }
    }

    /// A request, longer by `padding` bytes than it has to be, and its number, which grows by one
    /// with each.
    pub(super) fn ask(&mut self, now: Instant, padding: usize) -> (u64, Vec<u8>) {
        if self.asked.len() >= ASKED_MAX {
            self.asked.pop_front();
        }
        let number = self.next;
        self.next += 1;
        let mut transaction = [0; 12];
        let (begin, end) = transaction.split_at_mut(8);
        begin.copy_from_slice(&self.random.next().to_be_bytes());
        end.copy_from_slice(&self.random.next().to_be_bytes()[..4]);
        self.asked.push_back(Asked {
            number,
            transaction,
            at: now,
        });
        let request = stun::echo(&self.username, &self.password, transaction, padding);
        (number, request)
    }

    /// Takes what may be an answer: the number of its request, and how long it took.
    pub(super) fn answered(&mut self, now: Instant, bytes: &[u8]) -> Option<(u64, Duration)> {
        let transaction = stun::answered(bytes, &self.password)?;
        let is_its = |asked: &Asked| asked.transaction == transaction;
        let at = self.asked.iter().position(is_its)?;
        let asked = self.asked.remove(at)?;
        Some((asked.number, now.saturating_duration_since(asked.at)))
    }
}

/// Requests that are waited for; the oldest is forgotten for one more.
const ASKED_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWORD: &str = "password-of-22-characters";

    /// What a full agent answers.
    fn answer(request: &[u8]) -> Vec<u8> {
        let decoded = stun::BindingRequest::decode(request).expect("a request");
        assert_eq!(decoded.local_ufrag, "theirs");
        assert!(decoded.controlled && !decoded.use_candidate);
        let password = Password::new(PASSWORD);
        assert!(decoded.is_signed_with(&password));
        decoded.success(([203, 0, 113, 1], 8_000).into(), &password)
    }

    #[test]
    fn each_answer_counts_once_and_only_if_it_is_signed() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut echoes = Echoes::new("theirs:ours".into(), PASSWORD, 7);
        let (first, request) = echoes.ask(start, 0);
        let (second, later) = echoes.ask(after(10), 1_100);
        assert_eq!((first, second), (0, 1));
        let answer_to_later = answer(&later);
        assert_eq!(
            echoes.answered(after(50), &answer_to_later),
            Some((1, Duration::from_millis(40)))
        );
        assert_eq!(echoes.answered(after(51), &answer_to_later), None);
        let mut forged = answer(&request);
        for at in 0..forged.len() - 8 {
            forged[at] ^= 1;
            assert_eq!(echoes.answered(after(60), &forged), None, "byte {at}");
            forged[at] ^= 1;
        }
        assert_eq!(echoes.answered(after(60), &request), None, "no answer");
        assert_eq!(
            echoes.answered(after(60), &forged),
            Some((0, Duration::from_millis(60)))
        );
    }

    #[test]
    fn requests_without_answers_are_forgotten_one_by_one() {
        let now = Instant::now();
        let mut echoes = Echoes::new("theirs:ours".into(), PASSWORD, 7);
        let requests: Vec<_> = (0..ASKED_MAX + 1).map(|_| echoes.ask(now, 0).1).collect();
        assert_eq!(echoes.answered(now, &answer(&requests[0])), None);
        assert!(echoes.answered(now, &answer(&requests[1])).is_some());
    }
}

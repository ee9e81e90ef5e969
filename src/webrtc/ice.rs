//! [`IceLite`]: the ICE-lite agent of one session (RFC 8445 sections 2.5 and 7.3).
//!
//! It answers connectivity checks, remembers which candidate pairs proved themselves, and
//! decides on which of them we send:
//!
//! - before any nomination, on the first pair that passed a check (RFC 8445 section 12.1);
//! - then on the pair that was nominated **last**. Browsers nominate only the pair they
//!   have selected, so this follows a phone from Wi-Fi to its mobile network with the
//!   first check from there. Peers that put USE-CANDIDATE into every check (aggressive
//!   nomination of RFC 5245) do not make it flutter: a pair takes over when its nomination
//!   is new, when the selected pair was checked without one, or when it fell silent.
//!
//! Nothing without a valid MESSAGE-INTEGRITY changes anything. Roles: the peer controls.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Transport;
use super::stun::{BindingRequest, Password};

/// Our fragment and password, as they stand in the answer.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// `ice-ufrag`: 4 to 256 letters, digits, `+`, `/`.
    pub ufrag: String,
    /// `ice-pwd`: 22 to 256 such characters.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The password is a secret and has no place in a log.
        write!(f, "Credentials({})", self.ufrag)
    }
}

/// A candidate pair: how the peer's datagrams reach us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pair {
    /// UDP, or the framed TCP of RFC 6544.
    pub transport: Transport,
    /// The peer's address.
    pub remote: SocketAddr,
    /// Ours: one of the announced candidates.
    pub local: SocketAddr,
}

/// What became of a datagram that looked like STUN.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Checked {
    /// Not a check that we owe an answer.
    Ignored,
    /// Authenticated; `reply` goes back where it came from.
    Answered {
        reply: Vec<u8>,
        /// The pair was not known before.
        new_pair: bool,
    },
    /// Authenticated, but the peer takes itself for the controlled agent.
    Conflict { reply: Vec<u8> },
}

struct Local {
    ufrag: String,
    password: Password,
}

impl Local {
    fn new(credentials: &Credentials) -> Self {
        Self {
            ufrag: credentials.ufrag.clone(),
            password: Password::new(&credentials.password),
        }
    }

    fn has_signed(&self, request: &BindingRequest<'_>) -> bool {
        request.local_ufrag == self.ufrag && request.is_signed_with(&self.password)
    }
}

struct Path {
    pair: Pair,
    last_heard: Instant,
    /// Whether the last check of the pair nominated it.
    nominated: bool,
}

/// See the module's documentation.
pub(super) struct IceLite {
    local: Local,
    /// What was valid before a restart; good until the first nomination after it, so that
    /// the old pairs stay alive meanwhile (RFC 8445 section 9).
    previous: Option<Local>,
    paths: Vec<Path>,
    selected: Option<Pair>,
    last_heard: Instant,
}

impl IceLite {
    pub(super) fn new(credentials: &Credentials, now: Instant) -> Self {
        Self {
            local: Local::new(credentials),
            previous: None,
            paths: Vec::new(),
            selected: None,
            last_heard: now,
        }
    }

    /// Takes a datagram that looks like STUN.
    pub(super) fn handle_check(&mut self, now: Instant, pair: Pair, bytes: &[u8]) -> Checked {
        let Some(request) = BindingRequest::decode(bytes) else {
            return Checked::Ignored;
        };
        let (credentials, is_current) = if self.local.has_signed(&request) {
            (&self.local, true)
        } else if let Some(previous) = &self.previous
            && previous.has_signed(&request)
        {
            (previous, false)
        } else {
            return Checked::Ignored;
        };
        if request.controlled {
            return Checked::Conflict {
                reply: request.role_conflict(&credentials.password),
            };
        }
        let reply = request.success(pair.remote, &credentials.password);
        let nominates = request.use_candidate && is_current;
        let new_pair = self.note_check(now, pair, nominates);
        if nominates {
            self.previous = None;
        }
        Checked::Answered { reply, new_pair }
    }

    /// Takes note of any other datagram; whether its pair has passed a check.
    pub(super) fn handle_traffic(&mut self, now: Instant, pair: Pair) -> bool {
        let Some(path) = self.paths.iter_mut().find(|path| path.pair == pair) else {
            return false;
        };
        path.last_heard = now;
        self.last_heard = now;
        true
    }

    /// Forgets a pair whose TCP connection is gone.
    pub(super) fn remove(&mut self, pair: Pair) {
        self.paths.retain(|path| path.pair != pair);
        if self.selected == Some(pair) {
            self.selected = self
                .paths
                .iter()
                .max_by_key(|path| (path.nominated, path.last_heard))
                .map(|path| path.pair);
        }
    }

    /// Begins an ICE restart with new credentials of ours.
    pub(super) fn restart(&mut self, credentials: &Credentials) {
        self.previous = Some(std::mem::replace(&mut self.local, Local::new(credentials)));
        for path in &mut self.paths {
            path.nominated = false;
        }
    }

    /// Our present fragment.
    pub(super) fn local_ufrag(&self) -> &str {
        &self.local.ufrag
    }

    /// Where to send.
    pub(super) fn selected(&self) -> Option<Pair> {
        self.selected
    }

    /// When the peer was last heard on any pair; before that, when the session began.
    pub(super) fn last_heard(&self) -> Instant {
        self.last_heard
    }

    /// Whether the pair was new.
    fn note_check(&mut self, now: Instant, pair: Pair, nominates: bool) -> bool {
        self.last_heard = now;
        let known = self.paths.iter_mut().find(|path| path.pair == pair);
        let new_pair = known.is_none();
        let was_nominated = if let Some(path) = known {
            path.last_heard = now;
            std::mem::replace(&mut path.nominated, nominates)
        } else {
            self.insert(now, pair, nominates);
            false
        };
        if self.takes_over(now, pair, nominates, was_nominated) {
            self.selected = Some(pair);
        }
        new_pair
    }

    fn takes_over(&self, now: Instant, pair: Pair, nominates: bool, was_nominated: bool) -> bool {
        let selected = self
            .paths
            .iter()
            .find(|path| Some(path.pair) == self.selected);
        let Some(selected) = selected else {
            return true;
        };
        let is_silent = now.saturating_duration_since(selected.last_heard) >= SILENT_AFTER;
        if nominates {
            !was_nominated || !selected.nominated || is_silent
        } else {
            selected.pair != pair && !selected.nominated && is_silent
        }
    }

    fn insert(&mut self, now: Instant, pair: Pair, nominated: bool) {
        if self.paths.len() >= PATHS_MAX {
            let oldest = self
                .paths
                .iter()
                .enumerate()
                .filter(|(_, path)| Some(path.pair) != self.selected)
                .min_by_key(|(_, path)| path.last_heard)
                .map(|(index, _)| index);
            if let Some(index) = oldest {
                self.paths.swap_remove(index);
            }
        }
        self.paths.push(Path {
            pair,
            last_heard: now,
            nominated,
        });
    }
}

/// Candidate pairs remembered per session; one more forgets the longest silent one. A
/// phone with two networks, IPv4 and IPv6, UDP and TCP has eight.
pub(super) const PATHS_MAX: usize = 8;

/// A pair this long without any datagram gives way to one that is nominated. Browsers
/// send media, reports or checks far more often than that while a pair works.
const SILENT_AFTER: Duration = Duration::from_millis(1_500);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webrtc::stun;

    fn credentials(ufrag: &str) -> Credentials {
        Credentials {
            ufrag: ufrag.into(),
            password: "password-of-22-characters".into(),
        }
    }

    fn pair(port: u16) -> Pair {
        Pair {
            transport: Transport::Udp,
            remote: SocketAddr::from(([198, 51, 100, 7], port)),
            local: SocketAddr::from(([203, 0, 113, 1], 8000)),
        }
    }

    /// A check; without `nominate` the attribute is turned into an unknown optional one.
    fn check(ufrag: &str, nominate: bool) -> Vec<u8> {
        let password = Password::new(&credentials(ufrag).password);
        if nominate {
            return stun::nomination(ufrag, "peer", &password, [3; 12]);
        }
        stun::tests_only::plain_check(ufrag, "peer", &password)
    }

    struct Rig {
        ice: IceLite,
        now: Instant,
    }

    impl Rig {
        fn new() -> Self {
            let now = Instant::now();
            Self {
                ice: IceLite::new(&credentials("ours"), now),
                now,
            }
        }

        fn check(&mut self, port: u16, nominate: bool) -> Checked {
            let bytes = check("ours", nominate);
            self.ice.handle_check(self.now, pair(port), &bytes)
        }

        fn selected(&self) -> Option<u16> {
            self.ice.selected().map(|pair| pair.remote.port())
        }
    }

    #[test]
    fn the_first_checked_pair_is_used_until_one_is_nominated() {
        let mut rig = Rig::new();
        assert!(matches!(
            rig.check(1, false),
            Checked::Answered { new_pair: true, .. }
        ));
        assert_eq!(rig.selected(), Some(1));
        rig.check(2, false);
        assert_eq!(rig.selected(), Some(1));
        rig.check(2, true);
        assert_eq!(rig.selected(), Some(2));
    }

    #[test]
    fn the_last_nomination_wins_and_may_come_back() {
        let mut rig = Rig::new();
        rig.check(1, true);
        rig.check(2, true);
        assert_eq!(rig.selected(), Some(2));
        // The browser goes on checking its spare pair, without nominating it.
        rig.check(1, false);
        assert_eq!(rig.selected(), Some(2));
        rig.check(1, true);
        assert_eq!(rig.selected(), Some(1));
    }

    #[test]
    fn aggressive_nomination_does_not_flutter() {
        let mut rig = Rig::new();
        for port in [1, 2, 3] {
            rig.check(port, true);
        }
        for _ in 0..10 {
            rig.now += Duration::from_millis(500);
            for port in [1, 2, 3] {
                rig.check(port, true);
                assert_eq!(rig.selected(), Some(3));
            }
        }
        // Only when the selected one falls silent does another take over.
        rig.now += Duration::from_millis(1_600);
        rig.check(2, true);
        assert_eq!(rig.selected(), Some(2));
    }

    #[test]
    fn a_wrong_signature_changes_nothing() {
        let mut rig = Rig::new();
        rig.check(1, true);
        let bytes = stun::nomination("ours", "peer", &Password::new("guessed"), [1; 12]);
        assert_eq!(
            rig.ice.handle_check(rig.now, pair(666), &bytes),
            Checked::Ignored
        );
        assert!(!rig.ice.handle_traffic(rig.now, pair(666)));
        assert_eq!(rig.selected(), Some(1));
    }

    #[test]
    fn paths_are_bounded_and_the_selected_one_stays() {
        let mut rig = Rig::new();
        rig.check(1, true);
        for port in 2..1_000 {
            rig.now += Duration::from_millis(1);
            rig.check(port, false);
        }
        assert_eq!(rig.ice.paths.len(), PATHS_MAX);
        assert_eq!(rig.selected(), Some(1));
    }

    #[test]
    fn a_restart_keeps_the_old_pair_until_the_new_nomination() {
        let mut rig = Rig::new();
        rig.check(1, true);
        rig.ice.restart(&credentials("anew"));
        assert!(matches!(rig.check(1, true), Checked::Answered { .. }));
        assert_eq!(rig.selected(), Some(1));
        rig.ice
            .handle_check(rig.now, pair(2), &check("anew", false));
        assert_eq!(rig.selected(), Some(1));
        rig.ice.handle_check(rig.now, pair(2), &check("anew", true));
        assert_eq!(rig.selected(), Some(2));
        assert_eq!(rig.check(1, true), Checked::Ignored);
    }

    #[test]
    fn a_closed_tcp_connection_falls_back() {
        let mut rig = Rig::new();
        rig.check(1, true);
        rig.check(2, true);
        rig.ice.remove(pair(2));
        assert_eq!(rig.selected(), Some(1));
        rig.ice.remove(pair(1));
        assert_eq!(rig.selected(), None);
    }

    #[test]
    fn a_controlled_peer_is_told_to_change_roles() {
        let mut rig = Rig::new();
        let password = Password::new(&credentials("ours").password);
        let bytes = stun::tests_only::controlled_check("ours", "peer", &password);
        assert!(matches!(
            rig.ice.handle_check(rig.now, pair(1), &bytes),
            Checked::Conflict { .. }
        ));
        assert_eq!(rig.selected(), None);
    }
}

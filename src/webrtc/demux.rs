//! [`Demux`]: which session a datagram belongs to, without asking each session.
//!
//! All sessions share one UDP port. A connectivity check names its session in its USERNAME;
//! once that session has verified the signature, the peer's address is remembered, and
//! DTLS, RTP and RTCP, which name nobody, are routed by it (RFC 7983, RFC 5761).

use std::collections::HashMap;
use std::net::SocketAddr;

use super::Transport;
use super::ice::PATHS_MAX;
use super::stun::{self, BindingRequest};
use crate::ids::SessionId;

impl SessionId {
    /// The `ice-ufrag` by which checks find this session: `random` keeps it from
    /// being guessed, the number follows. 9 to 24 characters of the ICE alphabet.
    pub fn ufrag(self, random: u32) -> String {
        format!("{random:08x}{:x}", self.0)
    }

    /// The number inside a fragment that [`SessionId::ufrag`] made.
    fn from_ufrag(ufrag: &str) -> Option<Self> {
        let number = ufrag.get(8..)?;
        u64::from_str_radix(number, 16).ok().map(Self)
    }
}

/// Where a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// To this session, which judges it.
    Session(SessionId),
    /// A connectivity check for a session that does not exist (any more): the peer
    /// missed the end of it. Counted and dropped.
    UnknownStun,
    /// Neither STUN nor from an address that proved itself. Counted and dropped.
    Drop,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Demux {
    addresses: HashMap<(Transport, SocketAddr), SessionId>,
    /// The addresses of each session, oldest first: at most [`ADDRESSES_MAX`].
    sessions: HashMap<SessionId, Vec<(Transport, SocketAddr)>>,
}

impl Demux {
    /// No sessions, no memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a session known.
    pub fn insert(&mut self, id: SessionId) {
        self.sessions.entry(id).or_default();
    }

    /// Forgets a session and all its addresses.
    pub fn remove(&mut self, id: SessionId) {
        for address in self.sessions.remove(&id).unwrap_or_default() {
            if self.addresses.get(&address) == Some(&id) {
                self.addresses.remove(&address);
            }
        }
    }

    /// Finds the session of a datagram. The address is the peer's, IPv4-mapped IPv6
    /// addresses turned back into IPv4.
    pub fn route(&self, transport: Transport, source: SocketAddr, bytes: &[u8]) -> Route {
        if stun::is_response(bytes) {
            // It says nothing of whose it is: an answer comes from where we asked.
            let known = self.addresses.get(&(transport, source));
            return known.map_or(Route::UnknownStun, |id| Route::Session(*id));
        }
        if stun::is_stun(bytes) {
            let id = BindingRequest::decode(bytes)
                .and_then(|request| SessionId::from_ufrag(request.local_ufrag))
                .filter(|id| self.sessions.contains_key(id));
            return id.map_or(Route::UnknownStun, Route::Session);
        }
        let is_known_kind = matches!(bytes.first(), Some(20..=63 | 128..=191));
        match self.addresses.get(&(transport, source)) {
            Some(id) if is_known_kind => Route::Session(*id),
            _ => Route::Drop,
        }
    }

    /// Remembers an address that a session's check has authenticated, also if it was
    /// another session's before: a reloaded page may come from the same port.
    pub fn bind(&mut self, transport: Transport, source: SocketAddr, id: SessionId) {
        let Some(addresses) = self.sessions.get_mut(&id) else {
            return;
        };
        let address = (transport, source);
        if self.addresses.insert(address, id) == Some(id) {
            return;
        }
        addresses.retain(|known| *known != address);
        if addresses.len() >= ADDRESSES_MAX {
            let oldest = addresses.remove(0);
            if self.addresses.get(&oldest) == Some(&id) {
                self.addresses.remove(&oldest);
            }
        }
        addresses.push(address);
    }

    /// Forgets an address: its TCP connection is gone.
    pub fn unbind(&mut self, transport: Transport, source: SocketAddr) {
        let address = (transport, source);
        if let Some(id) = self.addresses.remove(&address)
            && let Some(addresses) = self.sessions.get_mut(&id)
        {
            addresses.retain(|known| *known != address);
        }
    }

    /// How many addresses are remembered.
    pub fn address_count(&self) -> usize {
        self.addresses.len()
    }
}

/// Addresses remembered per session; one more forgets the oldest, which comes back with
/// its next check. Twice what the session itself remembers as pairs.
pub const ADDRESSES_MAX: usize = 2 * PATHS_MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webrtc::stun::{Password, nomination};

    fn source(port: u16) -> SocketAddr {
        SocketAddr::from(([198, 51, 100, 1], port))
    }

    fn check(ufrag: &str) -> Vec<u8> {
        nomination(ufrag, "peer", &Password::new("any"), [0; 12])
    }

    const DTLS: &[u8] = &[22, 254, 253, 0];
    const RTP: &[u8] = &[128, 96, 0, 1];

    #[test]
    fn the_ufrag_carries_the_number() {
        for number in [0, 1, 0xffff, u64::MAX] {
            let ufrag = SessionId(number).ufrag(0x0123_abcd);
            assert!((9..=24).contains(&ufrag.len()));
            assert_eq!(SessionId::from_ufrag(&ufrag), Some(SessionId(number)));
        }
        for bad in [
            "",
            "short",
            "12345678",
            "12345678zz",
            "1234567\u{e9}\u{e9}1",
        ] {
            assert_eq!(SessionId::from_ufrag(bad), None, "{bad}");
        }
    }

    #[test]
    fn answers_go_by_the_address_that_was_asked() {
        let mut demux = Demux::new();
        demux.insert(SessionId(7));
        demux.bind(Transport::Udp, source(1), SessionId(7));
        let request = check("peer");
        let request = BindingRequest::decode(&request).expect("a request");
        let answer = request.success(source(9), &Password::new("any"));
        let route = |port| demux.route(Transport::Udp, source(port), &answer);
        assert_eq!(route(1), Route::Session(SessionId(7)));
        assert_eq!(route(2), Route::UnknownStun);
    }

    #[test]
    fn checks_go_by_name_and_the_rest_by_address() {
        let mut demux = Demux::new();
        let id = SessionId(7);
        demux.insert(id);
        let bytes = check(&id.ufrag(1));
        assert_eq!(
            demux.route(Transport::Udp, source(1), &bytes),
            Route::Session(id)
        );
        // Not before the session has said that the check was authentic.
        assert_eq!(demux.route(Transport::Udp, source(1), DTLS), Route::Drop);
        demux.bind(Transport::Udp, source(1), id);
        for bytes in [DTLS, RTP] {
            assert_eq!(
                demux.route(Transport::Udp, source(1), bytes),
                Route::Session(id)
            );
            assert_eq!(demux.route(Transport::Tcp, source(1), bytes), Route::Drop);
        }
        for noise in [&[][..], &[5], &[64, 0], &[200, 1, 2, 3], &[0; 20]] {
            assert_eq!(demux.route(Transport::Udp, source(1), noise), Route::Drop);
        }
        demux.remove(id);
        assert_eq!(demux.route(Transport::Udp, source(1), RTP), Route::Drop);
        assert_eq!(
            demux.route(Transport::Udp, source(1), &bytes),
            Route::UnknownStun
        );
        assert_eq!(demux.address_count(), 0);
    }

    #[test]
    fn addresses_are_bounded_per_session() {
        let mut demux = Demux::new();
        demux.insert(SessionId(1));
        demux.insert(SessionId(2));
        demux.bind(Transport::Udp, source(60_000), SessionId(2));
        for port in 1..1_000 {
            demux.bind(Transport::Udp, source(port), SessionId(1));
        }
        assert_eq!(demux.address_count(), ADDRESSES_MAX + 1);
        assert_eq!(
            demux.route(Transport::Udp, source(999), RTP),
            Route::Session(SessionId(1))
        );
        assert_eq!(demux.route(Transport::Udp, source(1), RTP), Route::Drop);
    }

    #[test]
    fn a_reused_address_belongs_to_the_newer_session() {
        let mut demux = Demux::new();
        demux.insert(SessionId(1));
        demux.insert(SessionId(2));
        demux.bind(Transport::Udp, source(5), SessionId(1));
        demux.bind(Transport::Udp, source(5), SessionId(2));
        demux.remove(SessionId(1));
        assert_eq!(
            demux.route(Transport::Udp, source(5), RTP),
            Route::Session(SessionId(2))
        );
        demux.unbind(Transport::Udp, source(5));
        assert_eq!(demux.route(Transport::Udp, source(5), RTP), Route::Drop);
        demux.bind(Transport::Udp, source(5), SessionId(2));
        // A session that is gone binds nothing.
        demux.bind(Transport::Udp, source(6), SessionId(1));
        assert_eq!(demux.address_count(), 1);
    }
}

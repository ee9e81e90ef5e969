//! The addresses of the UDP socket: which are announced to clients (candidates), to which
//! of them a datagram came, and by which address of this machine one leaves.
//!
//! Sessions know candidates only. Without a NAT a candidate is an address of an
//! interface, and both directions are the identity. Behind one, `webrtc.public_addresses` are
//! the candidates, and what arrives at a local address is taken as sent to the public
//! one of its family.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::config::PublicAddress;

/// Candidates announced at most: an answer has each as a line or two, and every client
/// tries every one. What is beyond is left out.
const CANDIDATES_MAX: usize = 16;

/// Peers remembered at most that reached us by an address other than their candidate's.
/// When there are more, all are forgotten: each is learnt again with its next datagram,
/// and until then the kernel chooses the address.
const DETOURS_MAX: usize = 8_192;

/// Translates between the addresses of this machine and the candidates.
pub(super) struct Addresses {
    candidates: Vec<SocketAddr>,
    /// Addresses of this machine.
    local: Vec<IpAddr>,
    /// Where a peer sent to an address that is not its candidate's: peer to local address.
    detours: HashMap<SocketAddr, IpAddr>,
}

impl Addresses {
    /// For a socket bound to `listen`, on a machine with the addresses `local`.
    pub(super) fn new(listen: SocketAddr, public: &[PublicAddress], local: Vec<IpAddr>) -> Self {
        let candidates: Vec<SocketAddr> = if !public.is_empty() {
            let port = |address: &PublicAddress| address.port.unwrap_or(listen.port());
            public
                .iter()
                .map(|a| SocketAddr::new(a.ip, port(a)))
                .collect()
        } else if !listen.ip().is_unspecified() {
            vec![listen]
        } else {
            local
                .iter()
                .filter(|ip| listen.is_ipv6() || ip.is_ipv4())
                .filter(|ip| is_announced(**ip))
                .map(|ip| SocketAddr::new(*ip, listen.port()))
                .collect()
        };
        Self {
            candidates: candidates.into_iter().take(CANDIDATES_MAX).collect(),
            local,
            detours: HashMap::new(),
        }
    }

    /// What is announced to clients.
    pub(super) fn candidates(&self) -> &[SocketAddr] {
        &self.candidates
    }

    /// The candidate to which a client sent what came to the address `local`. None if there
    /// is none of its family: nobody was told to send there.
    pub(super) fn candidate(&self, local: IpAddr) -> Option<SocketAddr> {
        let same = self.candidates.iter().find(|c| c.ip() == local);
        let family = || {
            let mut all = self.candidates.iter();
            all.find(|c| c.is_ipv4() == local.is_ipv4())
        };
        same.or_else(family).copied()
    }

    /// Like [`Addresses::candidate`], for a datagram of `peer`; remembers how the peer
    /// reaches us if that is not what was announced.
    pub(super) fn arrived(&mut self, peer: SocketAddr, local: IpAddr) -> Option<SocketAddr> {
        let candidate = self.candidate(local)?;
        if candidate.ip() != local {
            if self.detours.len() >= DETOURS_MAX && !self.detours.contains_key(&peer) {
                self.detours.clear();
            }
            self.detours.insert(peer, local);
        } else if !self.detours.is_empty() {
            self.detours.remove(&peer);
        }
        Some(candidate)
    }

    /// The local address by which a datagram from `candidate` to `peer` leaves; none
    /// leaves it to the kernel.
    pub(super) fn departure(&self, candidate: SocketAddr, peer: SocketAddr) -> Option<IpAddr> {
        if !self.detours.is_empty()
            && let Some(local) = self.detours.get(&peer)
        {
            return Some(*local);
        }
        let ip = candidate.ip();
        self.local.contains(&ip).then_some(ip)
    }
}

/// The addresses of this machine's interfaces that are up: those of the network first, then
/// loopback, IPv4 before IPv6.
pub(super) fn local_addresses() -> io::Result<Vec<IpAddr>> {
    let interfaces = if_addrs::get_if_addrs()?;
    let up = interfaces
        .iter()
        .filter(|i| i.is_loopback() || i.is_oper_up());
    let mut addresses: Vec<IpAddr> = up.map(if_addrs::Interface::ip).collect();
    addresses.sort_by_key(|ip| (ip.is_loopback(), ip.is_ipv6()));
    addresses.dedup();
    Ok(addresses)
}

/// Link-local addresses mean nothing without an interface, and str0m refuses them.
fn is_announced(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_link_local() && !ip.is_unspecified(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local() && !ip.is_unspecified(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn addresses(listen: &str, public: &[&str], local: &[&str]) -> Addresses {
        let public: Vec<PublicAddress> = public
            .iter()
            .map(|text| match text.parse::<SocketAddr>() {
                Ok(address) => PublicAddress {
                    ip: address.ip(),
                    port: Some(address.port()),
                },
                Err(_) => PublicAddress {
                    ip: text.parse().unwrap(),
                    port: None,
                },
            })
            .collect();
        Addresses::new(listen.parse().unwrap(), &public, ips(local))
    }

    fn shown(addresses: &Addresses) -> Vec<String> {
        addresses
            .candidates()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    const LOCAL: &[&str] = &[
        "192.0.2.2",
        "2001:db8::2",
        "fe80::1",
        "169.254.1.1",
        "127.0.0.1",
        "::1",
    ];

    #[test]
    fn candidates_follow_what_the_socket_hears() {
        assert_eq!(
            shown(&addresses("[::]:8000", &[], LOCAL)),
            [
                "192.0.2.2:8000",
                "[2001:db8::2]:8000",
                "127.0.0.1:8000",
                "[::1]:8000"
            ]
        );
        assert_eq!(
            shown(&addresses("0.0.0.0:8000", &[], LOCAL)),
            ["192.0.2.2:8000", "127.0.0.1:8000"]
        );
        assert_eq!(
            shown(&addresses("127.0.0.1:8000", &[], LOCAL)),
            ["127.0.0.1:8000"]
        );
        assert_eq!(
            shown(&addresses(
                "[::]:8000",
                &["203.0.113.7", "203.0.113.8:18000"],
                LOCAL
            )),
            ["203.0.113.7:8000", "203.0.113.8:18000"]
        );
    }

    #[test]
    fn without_a_nat_what_comes_to_an_address_leaves_by_it() {
        let mut addresses = addresses("[::]:8000", &[], LOCAL);
        let peer = "198.51.100.9:5000".parse().unwrap();
        for local in ips(&["192.0.2.2", "127.0.0.1", "::1"]) {
            let candidate = addresses.arrived(peer, local).unwrap();
            assert_eq!(candidate, SocketAddr::new(local, 8000));
            assert_eq!(addresses.departure(candidate, peer), Some(local));
        }
        assert!(addresses.detours.is_empty());
    }

    #[test]
    fn behind_a_nat_local_addresses_are_taken_as_the_public_one() {
        let mut addresses = addresses("[::]:8000", &["203.0.113.7"], LOCAL);
        let peer = "198.51.100.9:5000".parse().unwrap();
        let public: SocketAddr = "203.0.113.7:8000".parse().unwrap();
        assert_eq!(addresses.departure(public, peer), None);
        let [local, loopback] = ips(&["192.0.2.2", "127.0.0.1"])[..] else {
            panic!()
        };
        assert_eq!(addresses.arrived(peer, local), Some(public));
        assert_eq!(addresses.departure(public, peer), Some(local));
        assert_eq!(addresses.arrived(peer, loopback), Some(public));
        assert_eq!(addresses.departure(public, peer), Some(loopback));
        assert_eq!(
            addresses.arrived(peer, ips(&["2001:db8::2"])[0]),
            None,
            "no IPv6 announced"
        );
    }

    #[test]
    fn remembered_peers_are_bounded() {
        let mut addresses = addresses("[::]:8000", &["203.0.113.7"], LOCAL);
        let local = ips(&["192.0.2.2"])[0];
        for port in 0..=DETOURS_MAX {
            let peer = SocketAddr::new(ips(&["198.51.100.9"])[0], port as u16);
            addresses.arrived(peer, local);
            assert!(addresses.detours.len() <= DETOURS_MAX);
        }
        assert_eq!(addresses.detours.len(), 1);
    }

    #[test]
    fn this_machine_has_a_loopback_address() {
        let local = local_addresses().unwrap();
        assert!(local.contains(&ips(&["127.0.0.1"])[0]), "{local:?}");
    }
}

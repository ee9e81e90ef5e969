//! Options of sockets and of the process, with what to do where the system refuses them.
//!
//! Everything a TCP connection needs is set on its listener: on Linux accepted sockets
//! take over the listener's options, so a new connection costs no call here.
//!
//! One of the two modules with `unsafe` (the other is [`super::batch`]): the options that
//! `socket2` does not know.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use libc::c_int;
use log::{info, warn};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::config::Sockets;

/// A listening TCP socket with the options of `sockets`. Falls back to IPv4 alone
/// if `address` is `[::]` and the system has no IPv6.
pub(super) fn tcp_listener(address: SocketAddr, sockets: &Sockets) -> io::Result<Socket> {
    let socket = bound(address, Type::STREAM, Protocol::TCP, |socket| {
        // A restarted gateway takes its port back while old connections die away.
        socket.set_reuse_address(true)?;
        // Before listen(): the window scale is agreed on in the SYN.
        let (send, receive) = (
            sockets.tcp_send_buffer_bytes,
            sockets.tcp_receive_buffer_bytes,
        );
        set_buffers(socket, send, receive)
    })?;
    socket.set_tcp_nodelay(sockets.tcp_nodelay)?;
    if sockets.tcp_notsent_lowat_bytes > 0 {
        let lowat = socket.set_tcp_notsent_lowat(sockets.tcp_notsent_lowat_bytes);
        tell("sockets.tcp_notsent_lowat_bytes", lowat);
    }
    if sockets.tcp_user_timeout > Duration::ZERO {
        let timeout = socket.set_tcp_user_timeout(Some(sockets.tcp_user_timeout));
        tell("sockets.tcp_user_timeout_ms", timeout);
    }
    if !sockets.tcp_congestion.is_empty() {
        // Refused without the module, or if it is not among the allowed ones: the fallback
        // is named at start by `congestion`.
        let _ = socket.set_tcp_congestion(sockets.tcp_congestion.as_bytes());
    }
    socket.listen(c_int::try_from(sockets.tcp_backlog).unwrap_or(c_int::MAX))?;
    Ok(socket)
}

/// The congestion control that accepted connections of `listener` will use.
pub(super) fn congestion(listener: SockRef<'_>) -> String {
    let name = listener.tcp_congestion().unwrap_or_default();
    let name: Vec<u8> = name.into_iter().take_while(|&b| b != 0).collect();
    String::from_utf8_lossy(&name).into_owned()
}

/// The UDP socket of all sessions. Falls back like [`tcp_listener`].
pub(super) fn udp_socket(address: SocketAddr, sockets: &Sockets) -> io::Result<Socket> {
    let socket = bound(address, Type::DGRAM, Protocol::UDP, |socket| {
        let (send, receive) = (
            sockets.udp_send_buffer_bytes,
            sockets.udp_receive_buffer_bytes,
        );
        set_buffers(socket, send, receive)
    })?;
    // Each datagram tells to which of our addresses it came; the answer leaves by it. And no
    // packet is refused for what some router said about its path: ours fit the least
    // MTU of IPv6, and an ICMP message is easily forged.
    if socket.local_addr()?.is_ipv6() {
        set(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
        let discover = libc::IPV6_PMTUDISC_INTERFACE;
        let set_v6 = set(
            &socket,
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
            discover,
        );
        tell("IPV6_MTU_DISCOVER", set_v6);
    } else {
        set(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
    }
    // On a dual-stack socket this one is for its IPv4 traffic.
    let discover = libc::IP_PMTUDISC_INTERFACE;
    let set_v4 = set(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, discover);
    tell("IP_MTU_DISCOVER", set_v4);
    Ok(socket)
}

/// Tells if the system gave `socket` smaller buffers than were asked for in bytes by
/// the keys of `sockets` that begin with `prefix`.
pub(super) fn tell_clamped_buffers(socket: &Socket, prefix: &str, send: usize, receive: usize) {
    // Linux doubles what it is asked for, to pay for its own bookkeeping, and answers the
    // doubled size.
    let tell = |direction, sysctl, asked: usize, got: io::Result<usize>| {
        let got = got.unwrap_or_default() / 2;
        if got < asked {
            warn!(
                "sockets.{prefix}_{direction}_buffer_bytes = {asked}: the system gives {got}, \
                 raise net.core.{sysctl}"
            );
        }
    };
    tell("send", "wmem_max", send, socket.send_buffer_size());
    tell("receive", "rmem_max", receive, socket.recv_buffer_size());
}

/// Raises the limit of open files as far as the process may and answers it.
pub(super) fn raise_file_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a live rlimit, which the call fills in.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: the pointer is to a live rlimit, which the call only reads.
        check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    }
    Ok(limit.rlim_cur)
}

/// An address as our peers would write it: an IPv4 peer of a dual-stack socket shows
/// as `::ffff:a.b.c.d` and is a.b.c.d.
pub(super) fn unmapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(ip) => SocketAddr::new(ip.into(), v6.port()),
            None => address,
        },
        SocketAddr::V4(_) => address,
    }
}

fn bound(
    address: SocketAddr,
    kind: Type,
    protocol: Protocol,
    options: impl Fn(&Socket) -> io::Result<()>,
) -> io::Result<Socket> {
    let bind = |address: SocketAddr| {
        let socket = Socket::new(
            Domain::for_address(address),
            kind.nonblocking().cloexec(),
            Some(protocol),
        )?;
        if address.is_ipv6() {
            // Whatever net.ipv6.bindv6only says: `[::]` is every address, IPv4 too.
            socket.set_only_v6(!address.ip().is_unspecified())?;
        }
        options(&socket)?;
        socket.bind(&address.into())?;
        Ok(socket)
    };
    match bind(address) {
        Err(error) if is_without_ipv6(&error) && address.ip() == Ipv6Addr::UNSPECIFIED => {
            let ipv4 = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port());
            info!("{address}: no IPv6 on this system ({error}), taking {ipv4}");
            bind(ipv4)
        }
        result => result,
    }
}

fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::EPROTONOSUPPORT)
    )
}

/// Sets both buffer sizes; zero leaves one alone.
fn set_buffers(socket: &Socket, send: usize, receive: usize) -> io::Result<()> {
    if send > 0 {
        socket.set_send_buffer_size(send)?;
    }
    if receive > 0 {
        socket.set_recv_buffer_size(receive)?;
    }
    Ok(())
}

/// An option that we can do without: tells why it is not set.
fn tell(what: impl fmt::Display, result: io::Result<()>) {
    if let Err(error) = result {
        warn!("{what}: the system refuses it ({error}), going on without");
    }
}

fn set(socket: &Socket, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of one live c_int, which the call reads.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            mem::size_of::<c_int>() as libc::socklen_t,
        )
    })
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Acknowledges at once what was read from a connection (`TCP_QUICKACK`), instead of up to
/// 40 ms later. The kernel forgets it by itself, so it is said anew after each read.
pub(super) fn acknowledge_at_once(socket: SockRef<'_>) {
    // Without it a connection begins more slowly, no more.
    let _ = socket.set_tcp_quickack(true);
}

/// Whether the system cuts a large UDP send into packets (`UDP_SEGMENT`, Linux 4.18).
pub(super) fn has_udp_gso(socket: BorrowedFd<'_>) -> bool {
    let mut value: c_int = 0;
    let mut length = mem::size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the pointers are to one live c_int and its length, which the call fills in.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_UDP,
            libc::UDP_SEGMENT,
            (&raw mut value).cast(),
            &mut length,
        )
    })
    .is_ok()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn accepted_connections_take_over_the_listeners_options() {
        let sockets = Sockets {
            tcp_congestion: "reno".into(),
            tcp_notsent_lowat_bytes: 12_345,
            tcp_user_timeout: Duration::from_millis(4_321),
            ..Sockets::default()
        };
        let listener = tcp_listener("127.0.0.1:0".parse().unwrap(), &sockets).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let _client = TcpStream::connect(address).unwrap();
        listener.set_nonblocking(false).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(accepted.tcp_nodelay().unwrap());
        assert_eq!(accepted.tcp_notsent_lowat().unwrap(), 12_345);
        let timeout = accepted.tcp_user_timeout().unwrap();
        assert_eq!(timeout, Some(sockets.tcp_user_timeout));
        assert_eq!(congestion(SockRef::from(&accepted)), "reno");
    }

    #[test]
    fn an_unknown_congestion_control_leaves_the_systems_own() {
        let sockets = Sockets {
            tcp_congestion: "no_such_cc".into(),
            ..Sockets::default()
        };
        let listener = tcp_listener("127.0.0.1:0".parse().unwrap(), &sockets).unwrap();
        let plain = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(
            congestion(SockRef::from(&listener)),
            congestion(SockRef::from(&plain))
        );
    }

    #[test]
    fn every_address_means_ipv4_too() {
        let listener = tcp_listener("[::]:0".parse().unwrap(), &Sockets::default()).unwrap();
        let port = listener.local_addr().unwrap().as_socket().unwrap().port();
        TcpStream::connect(("127.0.0.1", port)).expect("reached over IPv4");
    }

    #[test]
    fn mapped_addresses_are_shown_as_ipv4() {
        for (given, shown) in [
            ("[::ffff:192.0.2.7]:5", "192.0.2.7:5"),
            ("[2001:db8::1]:5", "[2001:db8::1]:5"),
            ("192.0.2.7:5", "192.0.2.7:5"),
        ] {
            assert_eq!(unmapped(given.parse().unwrap()), shown.parse().unwrap());
        }
    }

    #[test]
    fn the_file_limit_is_at_its_hard_limit() {
        let limit = raise_file_limit().unwrap();
        assert!(limit >= 64, "{limit}");
        assert_eq!(raise_file_limit().unwrap(), limit);
    }
}

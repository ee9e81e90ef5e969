//! Many datagrams in one system call: `recvmmsg`, and `sendmmsg` with UDP GSO.
//!
//! Owns the buffers and the layout of what the kernel reads and writes, nothing else: which
//! datagrams go together, and what a refusal means, is [`super::udp`]'s.
//!
//! The other module with `unsafe` beside [`super::sockopt`]: these calls take structures
//! full of pointers, and no crate in the tree wraps them.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use libc::{c_int, c_uint, c_void, cmsghdr, iovec, mmsghdr, msghdr, sockaddr_storage};
use socket2::SockAddr;

use super::sockopt::unmapped;
use crate::gateway::Datagram;

/// Datagrams of one `recvmmsg`. More saves little (0.55 instead of 0.71 us each at 32).
pub(super) const RECEIVE_BATCH: usize = 32;

/// Bytes kept for one received datagram. WebRTC peers send at most 1500; a longer one is
/// reported as cut off.
const DATAGRAM_BYTES_MAX: usize = 2_048;

/// Messages of one `sendmmsg`.
pub(super) const SEND_BATCH: usize = 32;

/// Packets that the kernel takes in one GSO message (`UDP_MAX_SEGMENTS` of old kernels).
pub(super) const SEGMENTS_MAX: usize = 64;

/// Control data of one message: at most an `in6_pktinfo` and a segment size.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 64]);

// SAFETY: `CMSG_SPACE` only computes with its argument.
const _: () = assert!(
    unsafe {
        libc::CMSG_SPACE(mem::size_of::<libc::in6_pktinfo>() as c_uint)
            + libc::CMSG_SPACE(mem::size_of::<u16>() as c_uint)
    } as usize
        <= mem::size_of::<Control>()
);

/// Buffers for one `recvmmsg` and what the last one brought.
pub(super) struct ReceiveBatch {
    /// [`RECEIVE_BATCH`] times [`DATAGRAM_BYTES_MAX`] bytes.
    bytes: Box<[u8]>,
    names: Box<[sockaddr_storage]>,
    controls: Box<[Control]>,
    results: Vec<ReceiveResult>,
    /// How many of them were taken.
    taken: usize,
}

#[derive(Clone, Copy)]
struct ReceiveResult {
    length: usize,
    local: Option<IpAddr>,
    cut_off: bool,
}

/// One datagram of a batch. IPv4 addresses are shown as such on every socket.
pub(super) struct Received<'a> {
    /// Who sent it.
    pub(super) source: SocketAddr,
    /// To which of our addresses.
    pub(super) local: Option<IpAddr>,
    /// Its contents.
    pub(super) bytes: &'a [u8],
    /// Whether it was longer than the buffer, so that its end is lost.
    pub(super) cut_off: bool,
}

impl ReceiveBatch {
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; RECEIVE_BATCH * DATAGRAM_BYTES_MAX].into(),
            // SAFETY: plain data for which all zeroes are valid.
            names: vec![unsafe { mem::zeroed() }; RECEIVE_BATCH].into(),
            controls: vec![Control([0; 64]); RECEIVE_BATCH].into(),
            results: Vec::with_capacity(RECEIVE_BATCH),
            taken: 0,
        }
    }

    /// Takes what waits in `socket`, at most [`RECEIVE_BATCH`] datagrams. Fewer than that
    /// means that no more waited.
    ///
    /// # Errors
    /// As the system says; `WouldBlock` when nothing waits.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.results.clear();
        self.taken = 0;
        // SAFETY: both structures are plain data for which all zeroes are valid.
        let mut messages: [mmsghdr; RECEIVE_BATCH] = unsafe { mem::zeroed() };
        let mut parts: [iovec; RECEIVE_BATCH] = unsafe { mem::zeroed() };
        let buffers = self.bytes.chunks_exact_mut(DATAGRAM_BYTES_MAX);
        for ((((message, part), buffer), name), control) in messages
            .iter_mut()
            .zip(&mut parts)
            .zip(buffers)
            .zip(&mut self.names)
            .zip(&mut self.controls)
        {
            part.iov_base = buffer.as_mut_ptr().cast();
            part.iov_len = buffer.len();
            let header = &mut message.msg_hdr;
            header.msg_name = ptr::from_mut(name).cast();
            header.msg_namelen = mem::size_of::<sockaddr_storage>() as libc::socklen_t;
            header.msg_iov = part;
            header.msg_iovlen = 1;
            header.msg_control = control.0.as_mut_ptr().cast();
            header.msg_controllen = mem::size_of::<Control>();
        }
        // SAFETY: every pointer in `messages` was just taken from a live buffer of the length
        // beside it, and all of them outlive the call.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                RECEIVE_BATCH as c_uint,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        for message in messages.iter().take(count) {
            self.results.push(ReceiveResult {
                length: message.msg_len as usize,
                local: local_address(&message.msg_hdr),
                cut_off: message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            });
        }
        Ok(count)
    }

    /// The next one that the last [`ReceiveBatch::receive`] brought.
    pub(super) fn next(&mut self) -> Option<Received<'_>> {
        loop {
            let index = self.taken;
            let result = *self.results.get(index)?;
            self.taken += 1;
            // The kernel names no other family than the socket's, and a length within the buffer.
            let source = self.names.get(index).and_then(source_address);
            let start = index * DATAGRAM_BYTES_MAX;
            if let Some(source) = source
                && self.bytes.len() >= start + result.length
            {
                return Some(Received {
                    source: unmapped(source),
                    local: result.local,
                    bytes: &self.bytes[start..][..result.length],
                    cut_off: result.cut_off,
                });
            }
        }
    }
}

/// The address in a name that the kernel filled in.
fn source_address(name: &sockaddr_storage) -> Option<SocketAddr> {
    let family = c_int::from(name.ss_family);
    let name = ptr::from_ref(name);
    match family {
        libc::AF_INET => {
            // SAFETY: the storage is larger than a `sockaddr_in`, aligned for every
            // address and initialised throughout; any bytes make a valid one.
            let v4 = unsafe { *name.cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::new(ip.into(), u16::from_be(v4.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above, for `sockaddr_in6`.
            let v6 = unsafe { *name.cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            let port = u16::from_be(v6.sin6_port);
            // The scope tells link-local addresses of several interfaces apart.
            Some(SocketAddrV6::new(ip, port, 0, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}

/// The address a received message was sent to, from its control data.
fn local_address(header: &msghdr) -> Option<IpAddr> {
    // SAFETY: the kernel left valid control messages in the first `msg_controllen` bytes of
    // the buffer, which is alive and aligned for `cmsghdr`; the macros stay inside it, and
    // each payload is as long as its type says, read without regard to its alignment.
    unsafe {
        let mut next = libc::CMSG_FIRSTHDR(header);
        while let Some(control) = next.as_ref() {
            let data = libc::CMSG_DATA(control);
            match (control.cmsg_level, control.cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info: libc::in_pktinfo = ptr::read_unaligned(data.cast());
                    let octets = info.ipi_addr.s_addr.to_ne_bytes();
                    return Some(Ipv4Addr::from(octets).into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info: libc::in6_pktinfo = ptr::read_unaligned(data.cast());
                    return Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).to_canonical());
                }
                _ => next = libc::CMSG_NXTHDR(header, control),
            }
        }
    }
    None
}

/// One message to be sent: a datagram, or several of one train, which the kernel cuts apart
/// again (GSO).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// Index of the train.
    pub(super) train: usize,
    /// Which of its bytes.
    pub(super) bytes: Range<usize>,
    /// How many datagrams these are, 1 to [`SEGMENTS_MAX`].
    pub(super) count: usize,
    /// The local address it leaves by; the kernel chooses if there is none.
    pub(super) local: Option<IpAddr>,
}

/// Space for one `sendmmsg`. Holds pointers only while a call runs.
pub(super) struct SendBatch {
    messages: Vec<mmsghdr>,
    parts: Vec<iovec>,
    names: Vec<SockAddr>,
    controls: Vec<Control>,
}

// SAFETY: the pointers in `messages` and `parts` are written and used within one call of
// `send`, which clears them first; between calls nothing follows them.
unsafe impl Send for SendBatch {}

impl SendBatch {
    pub(super) fn new() -> Self {
        Self {
            messages: Vec::with_capacity(SEND_BATCH),
            parts: Vec::with_capacity(SEND_BATCH),
            names: Vec::with_capacity(SEND_BATCH),
            controls: Vec::with_capacity(SEND_BATCH),
        }
    }

    /// Sends the first [`SEND_BATCH`] of `groups` of `datagrams` and answers how many the
    /// kernel took. `is_ipv6` is the family of `socket`.
    ///
    /// # Errors
    /// Why the first one was refused; then none was sent.
    pub(super) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        is_ipv6: bool,
        datagrams: &[Datagram],
        groups: &[Group],
    ) -> io::Result<usize> {
        self.messages.clear();
        self.parts.clear();
        self.names.clear();
        self.controls.clear();
        for group in groups.iter().take(SEND_BATCH) {
            self.prepare(is_ipv6, &datagrams[group.train], group);
        }
        // SAFETY: every pointer in `messages` leads into `parts`, `names`, `controls` or a
        // datagram. None of these moved since: the vectors were never filled beyond the
        // capacity they were made with, and all outlive the call, which only reads them.
        let count = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                self.messages.as_mut_ptr(),
                self.messages.len() as c_uint,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    /// Appends one message: the part of `train` that `group` names.
    fn prepare(&mut self, is_ipv6: bool, train: &Datagram, group: &Group) {
        assert!(self.names.len() < SEND_BATCH && group.count <= SEGMENTS_MAX);
        self.names.push(destination(train.destination, is_ipv6));
        self.controls.push(Control([0; 64]));
        let bytes = &train.contents[group.bytes.clone()];
        self.parts.push(iovec {
            iov_base: bytes.as_ptr().cast_mut().cast::<c_void>(),
            iov_len: bytes.len(),
        });
        let name = &self.names[self.names.len() - 1];
        let part = self.parts.last_mut().expect("one was just pushed");
        let control = self.controls.last_mut().expect("one was just pushed");

        // SAFETY: plain data for which all zeroes are valid.
        let mut message: mmsghdr = unsafe { mem::zeroed() };
        let header = &mut message.msg_hdr;
        header.msg_name = name.as_ptr().cast_mut().cast();
        header.msg_namelen = name.len();
        header.msg_iov = part;
        header.msg_iovlen = 1;
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = mem::size_of::<Control>();
        let mut writer = ControlWriter::new(header);
        if let Some(local) = group.local {
            writer.local_address(local, is_ipv6);
        }
        if group.count > 1
            && let Ok(size) = u16::try_from(train.segment)
        {
            writer.push(libc::IPPROTO_UDP, libc::UDP_SEGMENT, size);
        }
        header.msg_controllen = writer.used;
        if header.msg_controllen == 0 {
            header.msg_control = ptr::null_mut();
        }
        self.messages.push(message);
    }
}

/// The form of `address` that a socket of the family takes.
fn destination(address: SocketAddr, is_ipv6: bool) -> SockAddr {
    match address {
        SocketAddr::V4(v4) if is_ipv6 => {
            SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()).into()
        }
        other => other.into(),
    }
}

/// Writes control messages into the buffer of one header.
struct ControlWriter {
    next: *mut cmsghdr,
    header: msghdr,
    used: usize,
}

impl ControlWriter {
    /// For the buffer that `header` names, which is zeroed and aligned.
    fn new(header: &msghdr) -> Self {
        Self {
            // SAFETY: the header names a live buffer of the length it says.
            next: unsafe { libc::CMSG_FIRSTHDR(header) },
            header: *header,
            used: 0,
        }
    }

    fn local_address(&mut self, local: IpAddr, is_ipv6: bool) {
        let (level, kind) = (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO);
        let v6 = |ip: Ipv6Addr| libc::in6_pktinfo {
            ipi6_addr: libc::in6_addr {
                s6_addr: ip.octets(),
            },
            ipi6_ifindex: 0,
        };
        match local {
            IpAddr::V6(ip) => self.push(level, kind, v6(ip)),
            IpAddr::V4(ip) if is_ipv6 => self.push(level, kind, v6(ip.to_ipv6_mapped())),
            IpAddr::V4(ip) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr {
                        s_addr: u32::from_ne_bytes(ip.octets()),
                    },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                self.push(libc::IPPROTO_IP, libc::IP_PKTINFO, info);
            }
        }
    }

    fn push<T: Copy>(&mut self, level: c_int, kind: c_int, value: T) {
        let size = mem::size_of::<T>() as c_uint;
        // SAFETY: these two only compute with their argument.
        let (length, space) = unsafe { (libc::CMSG_LEN(size), libc::CMSG_SPACE(size)) };
        assert!(
            !self.next.is_null() && self.used + space as usize <= mem::size_of::<Control>(),
            "an address and a segment size fit, as is checked at compile time"
        );
        // SAFETY: `next` points into the control buffer with room for this message, as was
        // just looked at; its payload is written without regard to its alignment.
        unsafe {
            (*self.next).cmsg_level = level;
            (*self.next).cmsg_type = kind;
            (*self.next).cmsg_len = length as _;
            ptr::write_unaligned(libc::CMSG_DATA(self.next).cast(), value);
            self.next = libc::CMSG_NXTHDR(&self.header, self.next);
        }
        self.used += space as usize;
    }
}

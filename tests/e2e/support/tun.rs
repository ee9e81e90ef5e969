//! The two system calls under [`super::network`] that the standard library has no word
//! for: a TUN device, and the change of a thread into another network namespace.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

/// A new TUN device of the calling thread's network namespace: each read of the file,
/// which never blocks, is an IP packet that was sent there; each write is one that comes
/// in. The device is gone with the file.
///
/// # Errors
/// When the kernel has no TUN, or does not allow it.
pub fn open(name: &str) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")?;
    let mut request = InterfaceRequest {
        name: [0; 16],
        flags: IFF_TUN | IFF_NO_PI,
        rest: [0; 22],
    };
    for (to, from) in request.name.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    // SAFETY: the request is a live `struct ifreq` in the layout of the kernel, which
    // reads and writes no more than that.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF as _, &mut request) };
    match result {
        0 => Ok(file),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Moves the calling thread, and whatever it starts from now on, into the network
/// namespace that `namespace` (a file of `/proc/*/ns/net`) stands for.
///
/// # Errors
/// When the kernel does not allow it.
pub fn enter(namespace: &File) -> io::Result<()> {
    // SAFETY: a call without pointers, on a file that is open.
    match unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `struct ifreq` of netdevice(7), as TUNSETIFF reads it.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// linux/if_tun.h: IP packets with nothing before them.
const TUNSETIFF: u32 = 0x4004_54ca;
const IFF_TUN: u16 = 0x0001;
const IFF_NO_PI: u16 = 0x1000;

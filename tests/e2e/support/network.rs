//! A place behind a bad network: a second network namespace, joined to that of the test
//! by links of our own.
//!
//! Each link is a pair of TUN devices with a thread between them, which puts every IP
//! packet through an [`Impairment`]. So TCP with its congestion control and UDP meet the
//! same losses, delays and queues as outside, and neither end knows.
//!
//! ```text
//!  near: the test, the gateway        │       far: the client
//!  10.77.N.1 near0 ─▶ ─── Impairment (up, down) ─── ◀─ far0 10.77.N.2
//! ```

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use super::impairment::{Conditions, Counts, Impairment};
use super::process::Process;
use super::{tun, wait_for};

/// The far place and the links to it. Gone on drop, with what runs there.
pub struct Network {
    home: File,
    far: File,
    links: Vec<Link>,
    /// Keeps the far namespace, which is its own.
    _keeper: Process,
}

/// A direction, as the near side sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the near side, where the gateway is, to the far one.
    Down,
    /// From the far side to the near one.
    Up,
}

impl Network {
    /// A far place with so many links.
    ///
    /// # Panics
    /// When namespaces or TUN devices cannot be had: run as root, or where users may make
    /// namespaces, with `/dev/net/tun`.
    pub fn new(links: u8) -> Self {
        let home = namespace_of("self");
        let mut command = Command::new("unshare");
        command.args(["--net", "sleep", "3600"]);
        let keeper = Process::spawn("far namespace", &mut command);
        let pid = keeper.id();
        let own = std::fs::read_link("/proc/self/ns/net").expect("/proc is there");
        wait_for("the far namespace", Duration::from_secs(5), || {
            let its = std::fs::read_link(format!("/proc/{pid}/ns/net")).ok()?;
            (its != own).then_some(())
        });
        let mut network = Self {
            home,
            far: namespace_of(&pid.to_string()),
            links: Vec::new(),
            _keeper: keeper,
        };
        network.in_far(|| ip(&["link", "set", "lo", "up"]));
        for number in 0..links {
            let near = device("near", number, 1);
            let far = network.in_far(|| device("far", number, 2));
            network.links.push(Link::new(near, far, u64::from(number)));
        }
        network
    }

    /// Does something on the far side: what it starts and which sockets it opens stay
    /// there.
    pub fn in_far<T>(&self, action: impl FnOnce() -> T) -> T {
        /// Comes home even when the action panics.
        struct Return<'a>(&'a File);
        impl Drop for Return<'_> {
            fn drop(&mut self) {
                tun::enter(self.0).expect("the way home is open");
            }
        }
        tun::enter(&self.far).expect("the far namespace is there");
        let _return = Return(&self.home);
        action()
    }

    /// The near end's address of link `number`.
    pub fn near_address(number: usize) -> String {
        format!("10.77.{number}.1")
    }

    /// A URL of the gateway as the far side reaches it, by the first link.
    pub fn from_far(url: &str) -> String {
        url.replace("127.0.0.1", &Self::near_address(0))
    }

    /// Changes the conditions of one direction of link `number`.
    pub fn set_way(&self, number: usize, way: Way, conditions: Conditions) {
        let link = self.links.get(number).expect("there is such a link");
        link.shared.ways()[way as usize].set(conditions, Instant::now());
        link.waker.wake().expect("the relay listens");
    }

    /// Changes the conditions of both directions of the first link.
    pub fn set(&self, conditions: Conditions) {
        self.set_way(0, Way::Down, conditions);
        self.set_way(0, Way::Up, conditions);
    }

    /// What became of the packets of one direction of the first link.
    pub fn counts(&self, way: Way) -> Counts {
        let link = self.links.first().expect("there is a link");
        link.shared.ways()[way as usize].counts()
    }
}

/// One pair of devices with the thread between them.
struct Link {
    shared: Arc<Shared>,
    waker: Waker,
    relay: Option<JoinHandle<()>>,
}

struct Shared {
    /// By [`Way`].
    ways: Mutex<[Impairment; 2]>,
    is_over: AtomicBool,
}

impl Shared {
    fn ways(&self) -> MutexGuard<'_, [Impairment; 2]> {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    fn new(near: File, far: File, seed: u64) -> Self {
        let shared = Arc::new(Shared {
            ways: Mutex::new([Impairment::new(seed * 2 + 1), Impairment::new(seed * 2 + 2)]),
            is_over: AtomicBool::new(false),
        });
        let poll = Poll::new().expect("epoll works");
        let waker = Waker::new(poll.registry(), Token(2)).expect("a waker");
        for (token, device) in [&near, &far].into_iter().enumerate() {
            let fd = device.as_raw_fd();
            poll.registry()
                .register(&mut SourceFd(&fd), Token(token), Interest::READABLE)
                .expect("a device can be polled");
        }
        let relay = thread::spawn({
            let shared = Arc::clone(&shared);
            move || relay(poll, [near, far], &shared)
        });
        Self {
            shared,
            waker,
            relay: Some(relay),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        let _ = self.waker.wake();
        if let Some(relay) = self.relay.take() {
            let _ = relay.join();
        }
    }
}

/// Moves packets between `devices` (near, far) until it is over.
fn relay(mut poll: Poll, mut devices: [File; 2], shared: &Shared) {
    let mut events = Events::with_capacity(8);
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    while !shared.is_over.load(Ordering::Acquire) {
        let due = {
            let ways = shared.ways();
            ways.iter().filter_map(Impairment::next_due).min()
        };
        let timeout = due.map(|due| due.saturating_duration_since(Instant::now()));
        if poll.poll(&mut events, timeout).is_err() {
            continue; // A signal.
        }
        let mut ways = shared.ways();
        for (from, way) in ways.iter_mut().enumerate() {
            // `Way::Down` reads from the near device and writes to the far one.
            while let Ok(length @ 1..) = devices[from].read(&mut buffer) {
                way.push(buffer[..length].to_vec(), Instant::now());
            }
            while let Some(packet) = way.pop(Instant::now()) {
                // A device whose queue is full loses the packet, as the network does.
                let _ = devices[1 - from].write(&packet);
            }
        }
    }
}

/// A device that is up with an address: `{side}{number}`, `10.77.{number}.{host}`.
fn device(side: &str, number: u8, host: u8) -> File {
    let name = format!("{side}{number}");
    let device = tun::open(&name)
        .unwrap_or_else(|error| panic!("no TUN device ({error}): run as root, with /dev/net/tun"));
    // No router is asked for, and no second address family to try. Where there is no
    // IPv6 there is nothing to switch off.
    let switch = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
    let _ = std::fs::write(switch, "1");
    let address = format!("10.77.{number}.{host}/24");
    ip(&["address", "add", &address, "dev", &name]);
    ip(&["link", "set", &name, "up"]);
    device
}

fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "ip {arguments:?}"
    );
}

fn namespace_of(process: &str) -> File {
    // A thread has a namespace of its own; "self" would be the main thread's.
    let path = match process {
        "self" => "/proc/thread-self/ns/net".to_owned(),
        pid => format!("/proc/{pid}/ns/net"),
    };
    File::open(path).expect("a namespace is a file")
}

/// More than the MTU of a TUN device, which is 1,500 bytes.
const PACKET_BYTES_MAX: usize = 4_096;

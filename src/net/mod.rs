//! The world: sockets, threads, signals and the clock. The one floor that does I/O.
//!
//! [`Server`] is a gateway with its sockets. Bound, it has its addresses; run, it is the
//! [loop](event_loop) until it is stopped. Everything above this floor and below it in the
//! drawing of the crate is told what happened and says what to do, and never waits.
//!
//! | module | owns |
//! | --- | --- |
//! | `event_loop` | the turn: what is done in which order, and how much of it |
//! | `tcp` | listeners, connections: reading in pieces, writing by vectors, closing |
//! | `udp`, `batch` | the UDP socket: batches, GSO, what is dropped |
//! | `interfaces` | candidate addresses, and which local one belongs to which |
//! | `workers` | the threads that transcode audio |
//! | `callbacks` | the threads that ask an operator's server, if there is one |
//! | `sockopt` | options of sockets and their fallbacks |
//! | `signals`, `token` | drain on a signal; ids of connections |

mod batch;
mod callbacks;
mod event_loop;
mod interfaces;
mod signals;
mod sockopt;
mod tcp;
mod token;
mod udp;
mod workers;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use log::{info, warn};
use mio::net::TcpListener;
use mio::{Poll, Waker};
use socket2::{SockRef, Socket};

use crate::config::Config;
use crate::gateway::{Gateway, Listener, World};
use callbacks::Callbacks;
use event_loop::{EventLoop, Parts};
use interfaces::Addresses;
use tcp::{Listening, Throttle};
use udp::Udp;
use workers::Workers;

pub use udp::Counters as UdpCounters;

/// Tries to find a port number that is free for both UDP and TCP, when any will do.
const PORT_TRIES: usize = 16;

/// File descriptors beside those of connections: sockets, pipes, logs, with room.
const OTHER_FILES: u64 = 64;

/// A gateway with its sockets.
pub struct Server {
    /// Where RTMP is spoken.
    pub rtmp_addr: SocketAddr,
    /// Where HTTP is spoken.
    pub http_addr: SocketAddr,
    /// Where WebRTC is spoken, over UDP and, if configured, over TCP.
    pub udp_addr: SocketAddr,
    event_loop: EventLoop,
    stopper: Stopper,
}

impl Server {
    /// Binds every socket that `config` names and makes the gateway. Port 0 takes any free one.
    ///
    /// # Errors
    /// The key and address of the first socket that cannot be had, or what else failed.
    pub fn bind(mut config: Config) -> Result<Self, BindError> {
        if config.audio.workers == 0 {
            // From here on it is a number, for the gateway too.
            config.audio.workers = thread::available_parallelism().map_or(1, NonZero::get);
        }
        report_file_limit(&config);
        let system = |what: &'static str| move |error| BindError::System { what, error };
        let poll = Poll::new().map_err(system("poll"))?;
        let waker = Waker::new(poll.registry(), token::WAKER).map_err(system("waker"))?;
        let waker = Arc::new(waker);

        let rtmp = listen("rtmp.listen", config.rtmp.listen, &config)?;
        let http = listen("http.listen", config.http.listen, &config)?;
        let (udp_socket, ice_tcp) = webrtc_sockets(&config)?;
        let (rtmp_addr, http_addr) = (local_address(&rtmp), local_address(&http));
        let udp_addr = local_address(&udp_socket);
        // Port 0 became a real one, which members of rooms are told.
        config.rtmp.listen.set_port(rtmp_addr.port());
        report_options(&config, &rtmp, &udp_socket);

        let local = interfaces::local_addresses().map_err(system("interfaces"))?;
        let addresses = Addresses::new(udp_addr, &config.webrtc.public_addresses, local);
        let candidates = addresses.candidates().to_vec();
        let udp = Udp::new(udp_socket, addresses, config.sockets.udp_gso);
        let udp = udp.map_err(system("udp"))?;
        report_access(&config);
        report_addresses(&config, rtmp_addr, http_addr, udp_addr, &candidates, &udp);

        let limits = (config.rtmp.connections_max, config.http.connections_max);
        let mut listeners = vec![
            listening(rtmp, Listener::Rtmp, limits.0),
            listening(http, Listener::Http, limits.1),
        ];
        if let Some(socket) = ice_tcp {
            let limit = config.webrtc.tcp_connections_max;
            listeners.push(listening(socket, Listener::IceTcp, limit));
        }

        let audio = &config.audio;
        let workers = Workers::spawn(audio.workers, audio.worker_queue_frames_max, &waker);
        let workers = workers.map_err(system("audio workers"))?;
        let mut seed = [0; 32];
        aws_lc_rs::rand::fill(&mut seed).map_err(|_| BindError::Random)?;
        let callbacks = match config.callback.url.as_str() {
            "" => None,
            _ => Some(Callbacks::spawn(&config.callback, &waker).map_err(system("callbacks"))?),
        };
        let close_linger = config.sockets.close_linger;
        let world = World {
            candidates,
            workers: config.audio.workers,
            seed,
            unix_time: unix_time(),
        };
        let gateway = Gateway::new(Arc::new(config), world, Instant::now())
            .map_err(|error| BindError::Gateway(error.to_string()))?;

        let requests = Arc::new(Requests::default());
        let event_loop = EventLoop::new(Parts {
            poll,
            gateway,
            udp,
            listeners,
            workers,
            callbacks,
            requests: Arc::clone(&requests),
            close_linger,
        });
        Ok(Self {
            rtmp_addr,
            http_addr,
            udp_addr,
            event_loop: event_loop.map_err(system("poll"))?,
            stopper: Stopper { waker, requests },
        })
    }

    /// Lets `SIGTERM` and `SIGINT` drain this server; a second one ends the process.
    ///
    /// # Errors
    /// If the handlers cannot be installed.
    pub fn watch_signals(&mut self) -> io::Result<()> {
        self.event_loop.watch_signals()
    }

    /// A handle that stops this server from another thread.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Runs until stopped.
    ///
    /// # Errors
    /// Only if the kernel cannot be waited for.
    pub fn run(self) -> io::Result<()> {
        self.event_loop.run()
    }
}

/// Stops a running [`Server`].
#[derive(Clone)]
pub struct Stopper {
    waker: Arc<Waker>,
    requests: Arc<Requests>,
}

impl Stopper {
    /// As a signal would: no new sessions, players told, then the end.
    pub fn drain(&self) {
        self.ask(&self.requests.drain);
    }

    /// At once, with this turn of the loop.
    pub fn stop(&self) {
        self.ask(&self.requests.stop);
    }

    fn ask(&self, request: &AtomicBool) {
        request.store(true, Ordering::Relaxed);
        if let Err(error) = self.waker.wake() {
            warn!("cannot wake the loop: {error}");
        }
    }
}

/// What a [`Stopper`] asked for.
#[derive(Default)]
struct Requests {
    drain: AtomicBool,
    stop: AtomicBool,
}

/// Why a server cannot start.
#[derive(Debug)]
pub enum BindError {
    /// A socket cannot be had.
    Socket {
        /// The key of the configuration that asks for it.
        key: &'static str,
        /// The address it asks for.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
    /// Something of the system cannot be had.
    System {
        /// What.
        what: &'static str,
        /// Why not.
        error: io::Error,
    },
    /// The system gives no random numbers.
    Random,
    /// The gateway refuses its configuration.
    Gateway(String),
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket {
                key,
                address,
                error,
            } => write!(f, "{key}: cannot listen on {address}: {error}"),
            Self::System { what, error } => write!(f, "{what}: {error}"),
            Self::Random => write!(f, "the system gives no random numbers"),
            Self::Gateway(reason) => write!(f, "{reason}"),
        }
    }
}

impl std::error::Error for BindError {}

fn listen(key: &'static str, address: SocketAddr, config: &Config) -> Result<Socket, BindError> {
    sockopt::tcp_listener(address, &config.sockets).map_err(|error| BindError::Socket {
        key,
        address,
        error,
    })
}

/// The UDP socket and, if configured, a TCP listener on the same port number.
fn webrtc_sockets(config: &Config) -> Result<(Socket, Option<Socket>), BindError> {
    let key = "webrtc.listen";
    let address = config.webrtc.listen;
    let udp = || {
        sockopt::udp_socket(address, &config.sockets).map_err(|error| BindError::Socket {
            key,
            address,
            error,
        })
    };
    let mut tries = if address.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        let udp = udp()?;
        if !config.webrtc.tcp {
            return Ok((udp, None));
        }
        tries -= 1;
        match listen(key, local_address(&udp), config) {
            Ok(tcp) => return Ok((udp, Some(tcp))),
            Err(error) if tries == 0 => return Err(error),
            Err(_) => {}
        }
    }
}

fn listening(socket: Socket, kind: Listener, connections_max: usize) -> Listening {
    Listening {
        socket: TcpListener::from_std(socket.into()),
        kind,
        connections_max,
        connections: 0,
        ready: false,
        refused: Throttle::default(),
    }
}

fn local_address(socket: &Socket) -> SocketAddr {
    let address = socket.local_addr().ok().and_then(|a| a.as_socket());
    address.expect("a bound IP socket has an address")
}

fn report_file_limit(config: &Config) {
    let sockets = config.rtmp.connections_max
        + config.http.connections_max
        + config.webrtc.tcp_connections_max;
    let wanted = sockets as u64 + OTHER_FILES;
    match sockopt::raise_file_limit() {
        Ok(limit) if limit < wanted => warn!(
            "limit of open files is {limit}, the connections allowed by the configuration need \
             {wanted}: raise the hard limit (ulimit -Hn, LimitNOFILE) or lower connections_max"
        ),
        Ok(limit) => info!("limit of open files is {limit}, {wanted} may be needed"),
        Err(error) => warn!("limit of open files cannot be raised: {error}"),
    }
}

/// The time of day; before 1970 it is 1970.
fn unix_time() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

/// What nobody needs a token for is said at every start, so that nobody leaves it open
/// unawares.
fn report_access(config: &Config) {
    let access = &config.access;
    if !access.anonymous.is_empty() {
        let rights: Vec<&str> = access.anonymous.iter().map(|right| right.name()).collect();
        warn!(
            "everybody who reaches the ports may, without a token: {} (access.anonymous)",
            rights.join(", ")
        );
    }
    if !access.secret.is_empty() {
        warn!("whoever knows access.secret may do everything: it is for development");
    }
}

fn report_options(config: &Config, tcp: &Socket, udp: &Socket) {
    let sockets = &config.sockets;
    let (send, receive) = (
        sockets.tcp_send_buffer_bytes,
        sockets.tcp_receive_buffer_bytes,
    );
    sockopt::tell_clamped_buffers(tcp, "tcp", send, receive);
    let (send, receive) = (
        sockets.udp_send_buffer_bytes,
        sockets.udp_receive_buffer_bytes,
    );
    sockopt::tell_clamped_buffers(udp, "udp", send, receive);
    let (asked, used) = (
        &sockets.tcp_congestion,
        sockopt::congestion(SockRef::from(tcp)),
    );
    if asked.is_empty() || *asked == used {
        info!("TCP congestion control is {used}");
    } else {
        warn!(
            "sockets.tcp_congestion = \"{asked}\" is not to be had, falling back to {used} \
             (modprobe tcp_{asked}; net.ipv4.tcp_allowed_congestion_control)"
        );
    }
}

fn report_addresses(
    config: &Config,
    rtmp: SocketAddr,
    http: SocketAddr,
    webrtc: SocketAddr,
    candidates: &[SocketAddr],
    udp: &Udp,
) {
    let list: Vec<String> = candidates.iter().map(ToString::to_string).collect();
    info!("RTMP on {rtmp}, HTTP on {http}");
    info!(
        "WebRTC on {webrtc}, UDP{}{}, clients are told {}",
        if config.webrtc.tcp { " and TCP" } else { "" },
        if udp.has_gso() { " with GSO" } else { "" },
        list.join(", ")
    );
    if candidates.iter().all(|c| c.ip().is_loopback()) {
        warn!("clients elsewhere cannot reach these addresses: set webrtc.public_addresses");
    }
}

//! [`Config`]: everything an operator can set, read from one TOML file.
//!
//! The table below is the only place that names a key: its field, its type, its default
//! and its range. `gateway.toml` at the top of the project explains each of them, and
//! `tests/config_example.rs` holds the two against one another.
//!
//! A file is read whole before anything is refused, so that every unknown key and every
//! bad value is told at once, each with its file, key and line.

mod reader;
mod value;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use log::LevelFilter;

pub use value::{BFramePolicy, CallbackEvent, GopCache, Merge, PublicAddress, Right, Secret};

use reader::{Document, Section};
use value::Value;

/// Declares the sections: for each key its field (`as` its name in the file where a unit
/// is to be said), type, default and permitted range. Makes the structs, their defaults,
/// the reading and the list of keys.
macro_rules! sections {
    ($(
        $(#[$section_doc:meta])*
        $section:ident: $Section:ident {
            $(
                $(#[$doc:meta])*
                $field:ident $(as $key:ident)?: $type:ty = $default:expr, $bound:expr;
            )*
        }
    )*) => {
        /// The configuration of one gateway. `Config::default()` is what the shipped
        /// `gateway.toml` says.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Config {
            $( $(#[$section_doc])* pub $section: $Section, )*
        }

        $(
            $(#[$section_doc])*
            #[derive(Clone, Debug, PartialEq)]
            pub struct $Section {
                $( $(#[$doc])* pub $field: $type, )*
            }

            impl Default for $Section {
                fn default() -> Self {
                    Self { $( $field: $default, )* }
                }
            }

            impl $Section {
                const KEYS: &[&str] = &[$( key_name!($field $(as $key)?) ),*];

                fn read(&mut self, section: &mut Section<'_, '_>) {
                    $(
                        section.read(
                            key_name!($field $(as $key)?),
                            &mut self.$field,
                            $bound,
                        );
                    )*
                }
            }
        )*

        /// Section names with the keys each may hold.
        const SECTIONS: &[(&str, &[&str])] = &[$( (stringify!($section), $Section::KEYS) ),*];

        impl Config {
            fn read(&mut self, document: &mut Document<'_, '_>) {
                $( document.section(stringify!($section), |s| self.$section.read(s)); )*
            }

            /// Every key there is, with its value in this configuration: what the test
            /// of the shipped file and `--check` walk through.
            pub fn keys(&self) -> Vec<Key> {
                vec![$( $( Key {
                    section: stringify!($section),
                    name: key_name!($field $(as $key)?),
                    value: Value::show(&self.$section.$field),
                }, )* )*]
            }
        }
    };
}

/// The name of a key in the file: that of its field, unless another one is given.
macro_rules! key_name {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident as $key:ident) => {
        stringify!($key)
    };
}

sections! {
    /// What is logged.
    log: Log {
        /// The least severe level that is shown. `RUST_LOG` overrides it.
        level: LevelFilter = LevelFilter::Info, ();
    }

    /// RTMP publishers and players.
    rtmp: Rtmp {
        /// TCP address of the RTMP server.
        listen: SocketAddr = any(1935), ();
        /// Connections at once; one more is closed on arrival.
        connections_max: usize = 4_000, 1..=1_000_000;
        /// From TCP accept to the end of the handshake.
        handshake_timeout as handshake_timeout_ms: Duration = millis(5_000), 100..=60_000;
        /// Silence of a client that neither publishes nor plays.
        idle_timeout as idle_timeout_ms: Duration = millis(30_000), 1_000..=3_600_000;
        /// Silence of a publisher after which its stream ends.
        publish_idle_timeout as publish_idle_timeout_ms: Duration = millis(15_000), 1_000..=600_000;
        /// How long a player that came before its publisher is held; zero: refused at once.
        play_wait as play_wait_ms: Duration = millis(30_000), 0..=3_600_000;
        /// Payload of the chunks we send, in bytes.
        chunk_size: u32 = 60_000, 128..=65_536;
        /// How long messages to a player are gathered for one write.
        merge as merge_ms: Merge = Merge::Auto, 0..=1_000;
        /// Window acknowledgement size and peer bandwidth we announce, in bytes.
        ack_window_bytes: u32 = 2_500_000, 1_000..=1_000_000_000;
        /// Largest message taken from a peer, in bytes.
        message_bytes_max: usize = 4 << 20, 65_536..=16_777_215;
        /// Bytes of half-received messages one connection may hold.
        partial_bytes_max: usize = 8 << 20, 65_536..=268_435_456;
        /// How clients of rooms and calls reach this server; empty: as they reached `http`.
        public_url: String = String::new(), rtmp_url;
        /// Whether Enhanced RTMP (FourCC `avc1`, `mp4a`) is announced. It is taken in any case.
        enhanced: bool = true, ();
    }

    /// The page, the API, WHIP and WHEP.
    http: Http {
        /// TCP address of the HTTP server.
        listen: SocketAddr = any(8080), ();
        /// Connections at once; one more is closed on arrival.
        connections_max: usize = 4_000, 1..=1_000_000;
        /// Largest request line with header fields, in bytes.
        head_bytes_max: usize = 16_384, 1_024..=1_048_576;
        /// Largest request body (an SDP offer), in bytes.
        body_bytes_max: usize = 65_536, 1_024..=16_777_216;
        /// From a request's first byte to its last.
        request_timeout as request_timeout_ms: Duration = millis(10_000), 100..=600_000;
        /// Silence between two requests of one connection.
        keep_alive_timeout as keep_alive_timeout_ms: Duration = millis(30_000), 0..=3_600_000;
        /// `Access-Control-Allow-Origin`; empty: no CORS header fields.
        cors_allow_origin: String = "*".into(), header_text;
        /// How clients reach this server, put before the path of a session's `Location`.
        public_url: String = String::new(), http_url;
    }

    /// Who may do what.
    access: Access {
        /// What everybody may do without a token.
        anonymous: Vec<Right> = Right::ALL.to_vec(), ();
        /// A token that may do everything; empty: there is none.
        secret: Secret = Secret::default(), ();
        /// The key of JWTs signed by HS256; empty: none are taken.
        jwt_secret: Secret = Secret::default(), ();
        /// Public keys, in PEM, of JWTs signed by ES256 or EdDSA; empty: none are taken.
        jwt_public_key: Secret = Secret::default(), ();
        /// What a JWT's `aud` must name; empty: anything.
        jwt_audience: String = String::new(), short_text;
        /// What a JWT's `iss` must be; empty: anything.
        jwt_issuer: String = String::new(), short_text;
        /// How far the clocks of whoever makes JWTs and of this machine may differ.
        jwt_leeway as jwt_leeway_ms: Duration = millis(30_000), 0..=600_000;
        /// Whether a JWT must say when it expires.
        jwt_require_expiry: bool = true, ();
        /// Whether `/metrics` needs the right `api`.
        guard_metrics: bool = true, ();
    }

    /// An HTTP server of the operator's that is told what happens, and asked.
    callback: Callback {
        /// Where it is; empty: nobody is told.
        url: String = String::new(), callback_url;
        /// What it is told or asked of.
        events: Vec<CallbackEvent> = CallbackEvent::ALL.to_vec(), ();
        /// How long an answer may take.
        timeout as timeout_ms: Duration = millis(3_000), 100..=20_000;
        /// Whether somebody is refused when there is no answer.
        required: bool = true, ();
        /// The key that requests are signed with; empty: they are not.
        secret: Secret = Secret::default(), ();
        /// Questions that may wait for an answer, and news that may wait to be sent.
        queue_max: usize = 1_000, 8..=100_000;
        /// How often the health of each stream is told.
        health_interval as health_interval_ms: Duration = millis(30_000), 1_000..=3_600_000;
    }

    /// WebRTC publishers (WHIP) and viewers (WHEP).
    webrtc: WebRtc {
        /// UDP address of all sessions.
        listen: SocketAddr = any(8000), ();
        /// Whether ICE-TCP is offered on the same port number.
        tcp: bool = true, ();
        /// ICE-TCP connections at once; one more is closed on arrival.
        tcp_connections_max: usize = 1_000, 1..=1_000_000;
        /// Addresses announced to clients; empty: those of the interfaces.
        public_addresses: Vec<PublicAddress> = Vec::new(), 16;
        /// WHIP sessions at once; one more is answered with 503.
        publishers_max: usize = 500, 0..=100_000;
        /// WHEP sessions at once; one more is answered with 503.
        viewers_max: usize = 2_000, 0..=100_000;
        /// From the answer to the end of the DTLS handshake.
        connect_timeout as connect_timeout_ms: Duration = millis(15_000), 1_000..=120_000;
        /// Silence of a publisher (no media packet) after which its session ends.
        publish_idle_timeout as publish_idle_timeout_ms: Duration = millis(15_000), 1_000..=600_000;
        /// RTP payload of a video packet we send, in bytes.
        payload_bytes_max: usize = 1_160, 500..=1_400;
        /// Sent packets kept per viewer to answer NACKs.
        rtx_packets_max: usize = 1_000, 16..=4_096;
        /// How long a sent packet is kept to answer NACKs.
        rtx_duration as rtx_duration_ms: Duration = millis(1_000), 100..=10_000;
        /// Retransmitted bytes over sent bytes, at most.
        rtx_ratio_max: f64 = 0.3, 0.0..=1.0;
        /// How long a hole in a publisher's video waits for its retransmission.
        hole_wait as hole_wait_ms: Duration = millis(250), 0..=2_000;
        /// How long a missing audio packet of a publisher is waited for.
        audio_reorder_wait as audio_reorder_wait_ms: Duration = millis(120), 0..=1_000;
        /// Least time between two key frame requests to one publisher.
        keyframe_request_interval as keyframe_request_interval_ms: Duration = millis(500), 50..=10_000;
    }

    /// Streams, their cache and their players.
    streams: Streams {
        /// Streams at once; one more publisher is refused.
        streams_max: usize = 1_000, 1..=100_000;
        /// What a new player is started from.
        gop_cache: GopCache = GopCache::Gop, ();
        /// Bytes of one stream's cached GOP.
        gop_bytes_max: usize = 16 << 20, 65_536..=1_073_741_824;
        /// Media time of one stream's cached GOP.
        gop_duration_max as gop_duration_ms_max: Duration = millis(12_000), 100..=120_000;
        /// Frames of one stream's cached GOP.
        gop_frames_max: usize = 2_000, 10..=100_000;
        /// Silence of a publisher after which another one may take its stream over.
        publisher_takeover_silence as publisher_takeover_silence_ms: Duration = millis(3_000), 200..=600_000;
        /// How long players are kept after their publisher left.
        publisher_grace as publisher_grace_ms: Duration = millis(15_000), 0..=3_600_000;
        /// How far a player may fall behind in media time.
        player_queue_duration_max as player_queue_ms_max: Duration = millis(3_000), 100..=60_000;
        /// How far a player may fall behind in bytes.
        player_queue_bytes_max: usize = 8 << 20, 65_536..=1_073_741_824;
        /// The longest part of a cached GOP that a WebRTC viewer catches up on.
        fast_start_max as fast_start_max_ms: Duration = millis(4_000), 0..=30_000;
        /// Pace of catching up, as a multiple of the stream's bit rate.
        fast_start_rate: f64 = 3.0, 1.5..=20.0;
        /// What a browser gets from a stream with B-frames.
        b_frames: BFramePolicy = BFramePolicy::Drop, ();
    }

    /// Audio transcoding.
    audio: Audio {
        /// Worker threads; zero: one for each core.
        workers: usize = 0, 0..=256;
        /// Frames that wait for one worker; one more is dropped.
        worker_queue_frames_max: usize = 256, 8..=65_536;
        /// How long a transcoder goes on after its last listener left.
        idle_stop as idle_stop_ms: Duration = millis(2_000), 0..=600_000;
        /// Opus bit rate for one channel, in bit/s.
        opus_bitrate_mono: u32 = 64_000, 6_000..=256_000;
        /// Opus bit rate for two channels, in bit/s.
        opus_bitrate_stereo: u32 = 96_000, 6_000..=510_000;
        /// Effort of the Opus encoder.
        opus_complexity: u8 = 1, 0..=10;
        /// AAC bit rate for one channel, in bit/s.
        aac_bitrate_mono: u32 = 64_000, 16_000..=192_000;
        /// AAC bit rate for two channels, in bit/s.
        aac_bitrate_stereo: u32 = 128_000, 32_000..=320_000;
    }

    /// Rooms and calls, over WebSocket.
    signaling: Signaling {
        /// How often each side is heard at least.
        heartbeat as heartbeat_ms: Duration = millis(10_000), 500..=600_000;
        /// Silence after which a WebSocket is closed.
        heartbeat_timeout as heartbeat_timeout_ms: Duration = millis(25_000), 1_000..=3_600_000;
        /// How long a session without WebSocket and media lives.
        resume as resume_ms: Duration = millis(30_000), 0..=3_600_000;
        /// Silence of a member's media after which it does not flow.
        media_grace as media_grace_ms: Duration = millis(5_000), 500..=600_000;
        /// How long a call rings.
        ring as ring_ms: Duration = millis(45_000), 1_000..=600_000;
        /// Within which time an RTMP URL must be used first.
        token_ttl as token_ttl_ms: Duration = millis(120_000), 1_000..=86_400_000;
        /// How long a room without members lives.
        empty_room as empty_room_ms: Duration = millis(60_000), 0..=86_400_000;
        /// How long `subscribe` waits for media.
        subscribe_wait as subscribe_wait_ms: Duration = millis(10_000), 0..=600_000;
        /// Members of one room; one more is refused.
        room_members_max: usize = 16, 2..=1_000;
        /// Rooms at once, without those of calls; one more is refused.
        rooms_max: usize = 1_000, 0..=100_000;
        /// Calls at once; one more is refused.
        calls_max: usize = 1_000, 0..=100_000;
        /// Sessions at once; one more is refused.
        sessions_max: usize = 5_000, 0..=1_000_000;
        /// Sessions of one user; one more is refused.
        devices_per_user_max: usize = 4, 1..=1_000;
        /// Messages a second of one WebSocket; more are refused, then it is closed.
        messages_per_second_max: u32 = 50, 1..=10_000;
        /// Largest message, in bytes.
        message_bytes_max: usize = 65_536, 1_024..=1_048_576;
    }

    /// Options of the sockets.
    sockets: Sockets {
        /// `TCP_NODELAY` of every accepted connection.
        tcp_nodelay: bool = true, ();
        /// `TCP_CONGESTION` of every accepted connection; empty: the system's choice.
        tcp_congestion: String = "bbr".into(), congestion_name;
        /// `TCP_NOTSENT_LOWAT`, in bytes; zero: the system's choice.
        tcp_notsent_lowat_bytes: u32 = 65_536, 0..=1_073_741_824;
        /// `TCP_USER_TIMEOUT`; zero: the system's choice.
        tcp_user_timeout as tcp_user_timeout_ms: Duration = millis(20_000), 0..=3_600_000;
        /// Connections the kernel completes before we accept them.
        tcp_backlog: u32 = 1_024, 1..=65_535;
        /// `SO_SNDBUF` of TCP, in bytes; zero: the kernel tunes it.
        tcp_send_buffer_bytes: usize = 0, 0..=1_073_741_823;
        /// `SO_RCVBUF` of TCP, in bytes; zero: the kernel tunes it.
        tcp_receive_buffer_bytes: usize = 0, 0..=1_073_741_823;
        /// How long a connection being closed may take to deliver what is queued.
        close_linger as close_linger_ms: Duration = millis(2_000), 0..=60_000;
        /// `SO_SNDBUF` of the UDP socket, in bytes.
        udp_send_buffer_bytes: usize = 4 << 20, 0..=1_073_741_823;
        /// `SO_RCVBUF` of the UDP socket, in bytes.
        udp_receive_buffer_bytes: usize = 4 << 20, 0..=1_073_741_823;
        /// Whether packets of equal size leave in one system call (UDP GSO).
        udp_gso: bool = true, ();
    }
}

/// One key of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its section, as in `[rtmp]`.
    pub section: &'static str,
    /// Its name, as in `listen`.
    pub name: &'static str,
    /// Its value as TOML text.
    pub value: String,
}

impl Config {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// Everything that is wrong with it, or why it cannot be read.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&file, &text),
            Err(error) => Err(ConfigError {
                problems: vec![Problem {
                    key: String::new(),
                    reason: format!("cannot be read: {error}"),
                    line: None,
                }],
                file,
            }),
        }
    }

    /// Reads `text`; `file` is how errors name it. Keys that are not there keep their
    /// default.
    ///
    /// # Errors
    /// Everything that is wrong with the text.
    pub fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        let mut problems = reader::read(text, SECTIONS, |document| config.read(document));
        if problems.is_empty() {
            problems = config.contradictions();
        }
        if problems.is_empty() {
            return Ok(config);
        }
        Err(ConfigError {
            file: file.to_owned(),
            problems,
        })
    }

    /// What no single key can tell: values that do not go together.
    fn contradictions(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut refuse = |key: &str, reason: String| {
            problems.push(Problem {
                key: key.to_owned(),
                reason,
                line: None,
            });
        };
        let mut listeners = vec![
            ("rtmp.listen", self.rtmp.listen),
            ("http.listen", self.http.listen),
        ];
        if self.webrtc.tcp {
            listeners.push(("webrtc.listen", self.webrtc.listen));
        }
        for (index, (key, address)) in listeners.iter().enumerate() {
            for (other, taken) in &listeners[..index] {
                if overlap(*address, *taken) {
                    refuse(key, format!("{address} is taken by {other} = \"{taken}\""));
                }
            }
        }
        if self.rtmp.partial_bytes_max < self.rtmp.message_bytes_max {
            refuse(
                "rtmp.partial_bytes_max",
                format!(
                    "{} is less than rtmp.message_bytes_max = {}: the largest message would \
                     never be whole",
                    self.rtmp.partial_bytes_max, self.rtmp.message_bytes_max
                ),
            );
        }
        for address in &self.webrtc.public_addresses {
            let listen = self.webrtc.listen.ip();
            if !covers(listen, address.ip) && (listen.is_ipv4() != address.ip.is_ipv4()) {
                refuse(
                    "webrtc.public_addresses",
                    format!("{address} is of another family than webrtc.listen, {listen}"),
                );
            }
        }
        problems
    }
}

/// Why a configuration was refused: everything that is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, as it was named to us.
    pub file: String,
    /// At least one.
    pub problems: Vec<Problem>,
}

/// One thing wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key with its section, as in `rtmp.listen`; empty when it is about the file.
    pub key: String,
    /// What is wrong with it and what would be right.
    pub reason: String,
    /// Its line in the file, from 1.
    pub line: Option<usize>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{}: ", self.file)?;
            if !problem.key.is_empty() {
                write!(f, "{}: ", problem.key)?;
            }
            write!(f, "{}", problem.reason)?;
            if let Some(line) = problem.line {
                write!(f, " (line {line})")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// `port` on every address, IPv6 and IPv4.
const fn any(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Whether two TCP listeners cannot both be had. Port 0 asks for any free one.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && a.port() != 0 && (covers(a.ip(), b.ip()) || covers(b.ip(), a.ip()))
}

/// Whether a socket bound to `listen` also takes what comes for `ip`.
fn covers(listen: IpAddr, ip: IpAddr) -> bool {
    match listen {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => true,
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => ip.is_ipv4(),
        _ => listen == ip,
    }
}

/// A header field's value (RFC 9110 section 5.5), without the bytes above ASCII.
fn header_text(text: &str) -> Result<(), String> {
    let fits = text.len() <= 256 && text.bytes().all(|b| (0x20..0x7f).contains(&b));
    fits.then_some(())
        .ok_or_else(|| "must be at most 256 printable ASCII characters".into())
}

fn http_url(text: &str) -> Result<(), String> {
    let host = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    let fits = match host {
        Some(host) => !host.is_empty() && !host.ends_with('/') && !host.contains([' ', '"', '?']),
        None => text.is_empty(),
    };
    if !fits {
        return Err("must be like \"https://gateway.example\", without a slash at its end".into());
    }
    header_text(text)
}

/// HTTP only: whoever needs TLS puts a proxy beside the gateway.
fn callback_url(text: &str) -> Result<(), String> {
    if text.starts_with("https://") {
        return Err("is https, which needs a proxy on this machine: name that one".into());
    }
    let host = text.strip_prefix("http://").unwrap_or_default();
    let is_url = !(host.is_empty() || host.starts_with('/') || text.contains(['@', '"', ' ', '#']));
    if !is_url && !text.is_empty() {
        return Err("must be like \"http://127.0.0.1:9000/hook\"".into());
    }
    header_text(text)
}

/// Text that is compared with a claim of a token.
fn short_text(text: &str) -> Result<(), String> {
    (text.len() <= 256)
        .then_some(())
        .ok_or_else(|| "must be at most 256 bytes".into())
}

fn rtmp_url(text: &str) -> Result<(), String> {
    let fits = match text.strip_prefix("rtmp://") {
        Some(host) => !host.is_empty() && !host.contains(['/', ' ', '"', '?']),
        None => text.is_empty(),
    };
    if !fits {
        return Err("must be like \"rtmp://gateway.example\", without a slash at its end".into());
    }
    header_text(text)
}

/// Linux bounds the name of a congestion control by `TCP_CA_NAME_MAX`, 16 with its end.
fn congestion_name(text: &str) -> Result<(), String> {
    let fits = text.len() < 16
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    fits.then_some(())
        .ok_or_else(|| "must be a name like \"bbr\" or \"cubic\"".into())
}

#[cfg(test)]
mod tests;

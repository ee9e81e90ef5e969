//! The gateway as its users meet it: the program, a config file, its ports.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::process::Process;
use super::{scratch_dir, wait_for};

/// A running gateway on free ports of the loopback; ended on drop.
pub struct Gateway {
    process: Process,
    rtmp_port: u16,
    http_port: u16,
    webrtc_port: u16,
}

impl Gateway {
    /// Starts `program` with a config of its own and waits until it is healthy.
    pub fn start(program: impl AsRef<Path>) -> Self {
        Self::start_with(program, &[], "")
    }

    /// The same with further arguments and lines at the end of the config.
    pub fn start_with(program: impl AsRef<Path>, args: &[&str], more_config: &str) -> Self {
        Self::start_on(program, "127.0.0.1", args, more_config)
    }

    /// The same on another address, such as that of all interfaces, `0.0.0.0`, the
    /// loopback among them.
    pub fn start_on(
        program: impl AsRef<Path>,
        address: &str,
        args: &[&str],
        more_config: &str,
    ) -> Self {
        let ports @ (rtmp_port, http_port, webrtc_port) = free_ports();
        let config = write_config(address, ports, more_config);
        let mut command = Command::new(program.as_ref());
        command.arg("--config").arg(&config).args(args);
        if std::env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", "info,rtmp_gateway=debug");
        }
        let mut gateway = Self {
            process: Process::spawn("gateway", &mut command),
            rtmp_port,
            http_port,
            webrtc_port,
        };
        wait_for("the gateway is healthy", Duration::from_secs(10), || {
            assert!(gateway.process.is_running(), "the gateway ended at once");
            matches!(gateway.try_get("/healthz"), Some((200, _))).then_some(())
        });
        gateway
    }

    /// `rtmp://.../live/{name}`.
    pub fn rtmp(&self, name: &str) -> String {
        format!("rtmp://127.0.0.1:{}/live/{name}", self.rtmp_port)
    }

    /// The WHIP endpoint of `live/{name}`.
    pub fn whip(&self, name: &str) -> String {
        self.http(&format!("/whip/live/{name}"))
    }

    /// The WHEP endpoint of `live/{name}`.
    pub fn whep(&self, name: &str) -> String {
        self.http(&format!("/whep/live/{name}"))
    }

    /// An HTTP URL of the gateway.
    pub fn http(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.http_port)
    }

    /// GETs `path`: the status and the body.
    ///
    /// # Panics
    /// When there is no answer.
    pub fn get(&self, path: &str) -> (u16, String) {
        self.try_get(path)
            .unwrap_or_else(|| panic!("GET {path}: no answer"))
    }

    /// Waits until the API lists `live/{name}` as a live stream.
    pub fn wait_until_live(&self, name: &str) {
        let wanted = format!("\"live/{name}\"");
        wait_for(
            &format!("live/{name} is live"),
            Duration::from_secs(15),
            || {
                let (_, body) = self.get("/api/v1/streams");
                // By text, so that the shape of the answer stays the API tests' business.
                (body.contains(&wanted) || body.contains(&format!("\"{name}\""))).then_some(())
            },
        );
    }

    /// The port of RTMP.
    pub fn rtmp_port(&self) -> u16 {
        self.rtmp_port
    }

    /// The port of HTTP.
    pub fn http_port(&self) -> u16 {
        self.http_port
    }

    /// The port of WebRTC, for UDP and TCP.
    pub fn webrtc_port(&self) -> u16 {
        self.webrtc_port
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    fn try_get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http_port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let mut request = String::new();
        write!(
            request,
            "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\r\n",
            self.http_port
        )
        .ok()?;
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    }
}

/// Three ports nobody uses now: TCP, TCP, and one free for TCP and UDP alike.
/// Inside a namespace nobody else can take them before the gateway does.
fn free_ports() -> (u16, u16, u16) {
    let listen = || TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = |listener: &TcpListener| listener.local_addr().expect("bound").port();
    let (rtmp, http) = (listen(), listen());
    let both = wait_for(
        "a port free for TCP and UDP",
        Duration::from_secs(5),
        || {
            let tcp = listen();
            UdpSocket::bind(("127.0.0.1", port(&tcp)))
                .is_ok()
                .then_some(port(&tcp))
        },
    );
    (port(&rtmp), port(&http), both)
}

fn write_config(address: &str, ports: (u16, u16, u16), more: &str) -> PathBuf {
    let (rtmp, http, webrtc) = ports;
    let path = scratch_dir("gateway").join(format!("gateway-{rtmp}.toml"));
    let text = format!(
        "[rtmp]\nlisten = \"{address}:{rtmp}\"\n\n\
         [http]\nlisten = \"{address}:{http}\"\n\n\
         [webrtc]\nlisten = \"{address}:{webrtc}\"\n{more}\n"
    );
    std::fs::write(&path, text).expect("the config can be written");
    path
}

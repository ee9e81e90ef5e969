//! [`Server`]: the gateway or nginx, fresh for each run, on ports of its own, ended by its
//! process.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ours, with lines for the section `[rtmp]` of its configuration.
    Gateway(&'static str),
    /// The peer.
    Nginx,
}

/// Where the programs are, and on which cores they run.
#[derive(Clone)]
pub struct Programs {
    /// The gateway.
    pub gateway: PathBuf,
    /// The load tool.
    pub flood: PathBuf,
    /// The peer and its module, if there is one.
    pub nginx: Option<(PathBuf, PathBuf)>,
    /// Whether server and load tool have a core each.
    pub is_pinned: bool,
}

/// A server that ends with this value.
pub struct Server {
    child: Child,
    /// The process that does the work.
    pub pid: u32,
    /// Its RTMP port.
    pub rtmp: u16,
    /// Its HTTP port, if it has one.
    pub http: u16,
    /// From the start of the process to where it took the first connection.
    pub start: Duration,
    directory: PathBuf,
}

impl Programs {
    /// From the environment that `run` prepares.
    ///
    /// # Errors
    /// What is missing.
    pub fn find(may_pin: bool) -> Result<Self, String> {
        let there = |variable: &str| {
            let path = std::env::var_os(variable).map(PathBuf::from);
            let path = path.ok_or_else(|| format!("{variable} is not set"))?;
            match path.exists() {
                true => Ok(path),
                false => Err(format!("{} is not there", path.display())),
            }
        };
        let nginx = there("NGINX").and_then(|program| Ok((program, there("NGINX_RTMP_MODULE")?)));
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let has_taskset = Command::new("taskset").arg("-V").output().is_ok();
        Ok(Self {
            gateway: there("RTMP_GATEWAY")?,
            flood: there("RTMP_FLOOD")?,
            nginx: nginx.ok(),
            is_pinned: may_pin && cores > 1 && has_taskset,
        })
    }

    /// The load tool on its core.
    pub fn flood(&self) -> Command {
        self.on_core(1, &self.flood)
    }

    /// `program`, to be run on that core if each has its own.
    fn on_core(&self, core: usize, program: &Path) -> Command {
        if !self.is_pinned {
            return Command::new(program);
        }
        // It becomes the program, so the process is the program's.
        let mut command = Command::new("taskset");
        command.args(["-c", &core.to_string()]).arg(program);
        command
    }
}

impl Server {
    /// Starts one and waits until it listens.
    ///
    /// # Errors
    /// Why it does not, with what it said.
    pub fn start(programs: &Programs, kind: Kind) -> Result<Self, String> {
        let [rtmp, http, webrtc] = free_ports();
        let name = format!("rtmp-gateway-bench-{}-{rtmp}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let told = |what: &str, error: std::io::Error| format!("{what}: {error}");
        fs::create_dir_all(&directory).map_err(|e| told("no directory", e))?;
        let (config, mut command) = match kind {
            Kind::Gateway(lines) => (
                format!(
                    "[log]\nlevel = \"warn\"\n[rtmp]\nlisten = \"127.0.0.1:{rtmp}\"\n{lines}\n\
                     [http]\nlisten = \"127.0.0.1:{http}\"\n\
                     [webrtc]\nlisten = \"127.0.0.1:{webrtc}\"\n"
                ),
                programs.on_core(0, &programs.gateway),
            ),
            // One worker, low delay, nothing recorded or logged: as in the peers' baselines.
            Kind::Nginx => {
                let (program, module) = programs.nginx.as_ref().ok_or("there is no nginx")?;
                let config = format!(
                    "load_module {};\ndaemon off; master_process off; worker_processes 1;\n\
                     worker_rlimit_nofile 8192; error_log stderr crit; pid nginx.pid;\n\
                     events {{ worker_connections 8000; }}\n\
                     rtmp {{ server {{ listen 127.0.0.1:{rtmp}; chunk_size 4096; access_log off;\n\
                     application live {{ live on; record off; }} }} }}\n",
                    module.display()
                );
                (config, programs.on_core(0, program))
            }
        };
        let file = directory.join("server.conf");
        fs::write(&file, config).map_err(|e| told("no configuration", e))?;
        match kind {
            Kind::Gateway(_) => command.arg("--config").arg(&file),
            Kind::Nginx => command.arg("-c").arg(&file).arg("-p").arg(&directory),
        };
        let log = fs::File::create(directory.join("log")).map_err(|e| told("no log", e))?;
        let begun = Instant::now();
        let child = command
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|e| told("it does not start", e))?;
        let mut server = Self {
            pid: child.id(),
            child,
            rtmp,
            http,
            start: Duration::ZERO,
            directory,
        };
        server.wait(begun)?;
        Ok(server)
    }

    /// One number of the gateway's metrics, summed over all labels.
    pub fn metric(&self, name: &str) -> Result<f64, String> {
        let told = |error: std::io::Error| format!("/metrics: {error}");
        let mut stream = TcpStream::connect(("127.0.0.1", self.http)).map_err(told)?;
        (stream.set_read_timeout(Some(PATIENCE))).map_err(told)?;
        let request = "GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).map_err(told)?;
        let mut page = String::new();
        stream.read_to_string(&mut page).map_err(told)?;
        let values = page.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let is_whole = rest.starts_with([' ', '{']);
            (rest.rsplit(' ').next().filter(|_| is_whole))?
                .parse::<f64>()
                .ok()
        });
        let values: Vec<f64> = values.collect();
        match values.is_empty() {
            true => Err(format!("/metrics has no {name}")),
            false => Ok(values.iter().sum()),
        }
    }

    fn wait(&mut self, begun: Instant) -> Result<(), String> {
        while TcpStream::connect(("127.0.0.1", self.rtmp)).is_err() {
            let has_ended = self.child.try_wait().is_ok_and(|status| status.is_some());
            if has_ended || begun.elapsed() > PATIENCE {
                let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
                let line = log.lines().next().unwrap_or("it said nothing");
                return Err(format!("the server does not listen: {line}"));
            }
            thread::sleep(Duration::from_micros(200));
        }
        self.start = begun.elapsed();
        // What it does after its start is not of the run.
        thread::sleep(Duration::from_millis(200));
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Ports that nobody uses now.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] =
        std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("bound").port())
}

/// A server that takes longer does not work.
const PATIENCE: Duration = Duration::from_secs(10);

//! A process without file descriptors left: those who wait are served as soon as there are
//! some again, and the loop does not spin meanwhile. In a process of its own, because the
//! limit is one of the process.
#![allow(unsafe_code)] // setrlimit: std has no word for it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::thread;
use std::time::Duration;

use rtmp_gateway::config::Config;
use rtmp_gateway::net::Server;

const FILES_MAX: u64 = 64;

#[test]
fn who_came_when_no_files_were_left_is_served_later() {
    let limit = libc::rlimit {
        rlim_cur: FILES_MAX,
        rlim_max: FILES_MAX,
    };
    // SAFETY: the pointer is to a live rlimit, which the call only reads.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
    let mut config = Config::default();
    config.rtmp.listen.set_port(0);
    config.http.listen.set_port(0);
    config.webrtc.listen.set_port(0);
    config.audio.workers = 1;
    let server = Server::bind(config).expect("any port will do");
    let address = (Ipv4Addr::LOCALHOST, server.http_addr.port());
    let stopper = server.stopper();
    let running = thread::spawn(|| server.run());

    // Each client takes one descriptor, and one more when it is accepted.
    let mut clients: Vec<TcpStream> = Vec::new();
    while let Ok(mut client) = TcpStream::connect(address) {
        let _ = client.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let _ = client.set_read_timeout(Some(Duration::from_secs(10)));
        clients.push(client);
    }
    let mut last = clients.pop().expect("some could connect");
    let before = cpu_time();
    thread::sleep(Duration::from_millis(300));
    let spent = cpu_time() - before;
    assert!(spent < Duration::from_millis(150), "spins: {spent:?}");
    drop(clients);
    let mut byte = [0];
    assert_eq!(last.read(&mut byte).expect("an answer"), 1);

    stopper.stop();
    running.join().expect("no panic").expect("no error");
}

/// Processor time of this process so far.
fn cpu_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a live timespec, which the call fills in.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    assert_eq!(result, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

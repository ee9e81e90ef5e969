//! A network with loopback alone for each test.
//!
//! A test runs itself again, as the only test of a new process, under
//! `unshare` with network, process and mount namespaces of its own. So the
//! gateway and the browser see no interface but `lo`, nothing leaves the
//! machine, and whatever a test forgets to end is gone with its namespace.
//! Where the kernel does not allow that (a locked-down container), the test
//! runs in place; all ports are free ones in any case.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use std::{env, thread};

/// Runs `story` in a namespace of its own, one story at a time.
///
/// The tests judge real time on a machine that may be small, so they do not run
/// side by side. The test's name is read from the closure's type: call this as
/// the whole body of the test function.
///
/// # Panics
/// When the story fails or is not over after [`STORY_LIMIT`].
pub fn alone<F: FnOnce()>(story: F) {
    if env::var_os(INSIDE).is_some() {
        return story();
    }
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(mut command) = unshared_self() else {
        eprintln!("no namespaces here: the test runs in the open network");
        return story();
    };
    // "e2e::rtmp_to_whep::plays_stereo::{{closure}}" names the test "rtmp_to_whep::plays_stereo".
    let path = std::any::type_name::<F>();
    let name = path
        .trim_end_matches("::{{closure}}")
        .split_once("::")
        .map_or(path, |(_, name)| name);
    let mut child = command
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("unshare starts");
    let mut stdout = child.stdout.take().expect("stdout is piped");
    let mut stderr = child.stderr.take().expect("stderr is piped");
    let out = thread::spawn(move || {
        let mut text = Vec::new();
        let _ = stdout.read_to_end(&mut text);
        text
    });
    let err = thread::spawn(move || {
        let mut text = Vec::new();
        let _ = stderr.read_to_end(&mut text);
        text
    });
    let start = Instant::now();
    let status = loop {
        match child.try_wait().expect("the child can be waited for") {
            Some(status) => break Some(status),
            None if start.elapsed() > STORY_LIMIT => {
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
            None => thread::sleep(Duration::from_millis(20)),
        }
    };
    let out = String::from_utf8_lossy(&out.join().unwrap_or_default()).into_owned();
    let err = String::from_utf8_lossy(&err.join().unwrap_or_default()).into_owned();
    // Indented, so that whoever sums up "test result:" lines does not count twice.
    for line in out.lines().chain(err.lines()) {
        println!("    {line}");
    }
    match status {
        None => panic!("{name}: not over after {STORY_LIMIT:?}"),
        Some(status) => assert!(
            status.success() && out.contains("1 passed"),
            "{name}: failed inside its namespace, {status}"
        ),
    }
}

/// For a program that is no test: runs it again with the same arguments inside,
/// and exits with it. Returns when this is already inside, or there is no inside.
pub fn enter() {
    if env::var_os(INSIDE).is_some() {
        return;
    }
    let Some(mut command) = unshared_self() else {
        eprintln!("no namespaces here: this runs in the open network");
        return;
    };
    let status = command.args(env::args_os().skip(1)).status();
    let code = status.expect("unshare starts").code().unwrap_or(1);
    std::process::exit(code);
}

/// A command that starts this program inside; its arguments are still to be added.
fn unshared_self() -> Option<Command> {
    let mut command = Command::new("unshare");
    command
        .args(unshare_args()?)
        .args(["sh", "-c", r#"ip link set lo up && exec "$0" "$@""#])
        .arg(env::current_exe().expect("the program knows its path"))
        .env(INSIDE, "1");
    Some(command)
}

/// The arguments under which `unshare` works here, tried once: as root, else
/// with a user namespace, else `None`.
fn unshare_args() -> Option<&'static [&'static str]> {
    static ARGS: OnceLock<Option<&'static [&'static str]>> = OnceLock::new();
    *ARGS.get_or_init(|| {
        let ways: [&[&str]; 2] = [
            &[
                "--net",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "--",
            ],
            &[
                "--map-root-user",
                "--net",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "--",
            ],
        ];
        ways.into_iter().find(|args| {
            Command::new("unshare")
                .args(*args)
                .args(["ip", "link", "set", "lo", "up"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        })
    })
}

/// Set in the environment of a test that is already inside.
const INSIDE: &str = "RTMP_GATEWAY_E2E_INSIDE";

/// The longest a single test may take. The slowest takes about 30 s on two busy
/// cores; a test that hangs is ended with everything it started.
const STORY_LIMIT: Duration = Duration::from_secs(180);

//! Child processes that cannot outlive their test and keep what they said.

use std::io::{Read, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::wait_for;

/// A running program. Its output is read by threads all the time, so that it
/// never blocks; it is killed on drop, and shown when the test is failing.
pub struct Process {
    name: String,
    child: Child,
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
}

impl Process {
    /// Starts `command` with its output captured and its input a pipe.
    ///
    /// # Panics
    /// When the program cannot be started; `tools/install-deps --test` installs
    /// what the tests need.
    pub fn spawn(name: &str, command: &mut Command) -> Self {
        let mut process = Self::spawn_with_stdout(name, command);
        let stdout = process.child.stdout.take().expect("stdout is piped");
        collect(stdout, &process.stdout);
        process
    }

    /// The same, but the caller takes the standard output from
    /// [`Process::child_mut`].
    pub fn spawn_with_stdout(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "{name}: {:?} does not start ({error}); run tools/install-deps --test",
                    command.get_program()
                )
            });
        let stderr = Arc::default();
        collect(child.stderr.take().expect("stderr is piped"), &stderr);
        Self {
            name: name.to_owned(),
            child,
            stdout: Arc::default(),
            stderr,
        }
    }

    /// Kills it at once, as a crash would (SIGKILL).
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end in good order (SIGINT).
    pub fn interrupt(&mut self) {
        let pid = self.child.id();
        let status = Command::new("sh")
            .args(["-c", &format!("kill -INT {pid}")])
            .status()
            .expect("sh starts");
        assert!(status.success(), "{}: no such process", self.name);
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// When it is still running after `limit`.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("{} ends by itself", self.name);
        wait_for(&what, limit, || {
            self.child.try_wait().expect("a child can be waited for")
        })
    }

    /// Writes to its standard input; errors are left to show in what it does.
    pub fn write_stdin(&mut self, bytes: &[u8]) -> bool {
        self.child
            .stdin
            .as_mut()
            .is_some_and(|stdin| stdin.write_all(bytes).is_ok())
    }

    /// The process itself.
    pub fn child_mut(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// True until it has ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it wrote to its standard error so far.
    pub fn stderr(&self) -> String {
        text(&self.stderr)
    }

    /// What it wrote to its standard output so far.
    pub fn stdout(&self) -> String {
        text(&self.stdout)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            // The readers see the end of the pipes in a moment.
            thread::sleep(Duration::from_millis(50));
            for (stream, said) in [("stdout", self.stdout()), ("stderr", self.stderr())] {
                let lines: Vec<&str> = said.lines().collect();
                let tail = lines.len().saturating_sub(SHOWN_LINES_MAX);
                for line in lines.get(tail..).unwrap_or_default() {
                    eprintln!("[{} {stream}] {line}", self.name);
                }
            }
        }
    }
}

/// Reads `pipe` to its end into `into`, on a thread of its own.
fn collect(mut pipe: impl Read + Send + 'static, into: &Arc<Mutex<Vec<u8>>>) {
    let into = Arc::clone(into);
    thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            let mut into = into.lock().unwrap_or_else(PoisonError::into_inner);
            into.extend_from_slice(buffer.get(..count).unwrap_or_default());
        }
    });
}

fn text(of: &Arc<Mutex<Vec<u8>>>) -> String {
    String::from_utf8_lossy(&of.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
}

/// Lines of each output shown when a test fails: enough for a log's end.
const SHOWN_LINES_MAX: usize = 60;

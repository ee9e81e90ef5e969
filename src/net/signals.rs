//! `SIGTERM` and `SIGINT`: the first one drains, the second one ends the process at
//! once, even if the loop is stuck.
//!
//! `SIGPIPE` needs nothing: Rust programs ignore it, and a write to a closed connection is an
//! error of that connection.

use std::io::{self, Read};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use mio::net::UnixStream;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

/// Exit status after a second signal.
const STATUS_KILLED: i32 = 1;

/// The reading end of a pipe that the handlers write to.
pub(super) struct Signals {
    pipe: UnixStream,
}

impl Signals {
    /// Installs the handlers, for the whole process.
    pub(super) fn install() -> io::Result<Self> {
        let (reader, writer) = StdStream::pair()?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // In this order: the flag is not yet up when the first signal looks at it.
            flag::register_conditional_shutdown(signal, STATUS_KILLED, Arc::clone(&asked))?;
            flag::register(signal, Arc::clone(&asked))?;
            low_level::pipe::register(signal, writer.try_clone()?)?;
        }
        Ok(Self {
            pipe: UnixStream::from_std(reader),
        })
    }

    /// What is to be registered with the poll.
    pub(super) fn source(&mut self) -> &mut UnixStream {
        &mut self.pipe
    }

    /// Whether a signal came since the last call.
    pub(super) fn take(&mut self) -> bool {
        let mut bytes = [0; 64];
        let mut came = false;
        while let Ok(1..) = self.pipe.read(&mut bytes) {
            came = true;
        }
        came
    }
}

//! What the end-to-end tests and `tools/measure.rs` stand on: a network of
//! their own, the gateway as a process, real RTMP programs, a real browser, and
//! the ears and eyes that judge what arrives.

pub mod analysis;
pub mod browser;
pub mod cdp;
pub mod ffmpeg;
pub mod flv;
pub mod gateway;
pub mod impairment;
pub mod lab;
pub mod mini_program;
pub mod namespace;
pub mod network;
pub mod process;
pub mod rtmp_tools;
#[path = "../../../tools/rtmp-flood/tags/mod.rs"]
pub mod tags;
pub mod tun;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub use browser::{Browser, Tab};
pub use ffmpeg::Source;
pub use gateway::Gateway;
pub use impairment::{Burst, Conditions, Order};
pub use lab::{Lab, assert_lip_sync};
pub use mini_program::MiniProgram;
pub use namespace::alone;
pub use network::{Network, Way};
pub use process::Process;

/// Asks `ready` every 20 ms until it answers, at most for `limit`.
///
/// # Panics
/// When the time is over; `what` names what was waited for.
pub fn wait_for<T>(what: &str, limit: Duration, mut ready: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The middle value; of an even count the upper one of the two.
///
/// # Panics
/// When there is no value.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    *sorted
        .get(sorted.len() / 2)
        .expect("a median needs a value")
}

/// A fresh directory for the files of one test, below the target directory
/// where there is one. Its contents stay for the curious until the next run.
pub fn scratch_dir(name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let base = option_env!("CARGO_TARGET_TMPDIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = base.join(format!("{name}-{}-{number}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("the scratch directory can be made");
    dir
}

/// Where screenshots go: `target/e2e`.
pub fn screenshot_dir() -> PathBuf {
    let base = option_env!("CARGO_TARGET_TMPDIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = base.parent().unwrap_or(&base).join("e2e");
    std::fs::create_dir_all(&dir).expect("target/e2e can be made");
    dir
}

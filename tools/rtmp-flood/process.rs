//! What the system tells about a process: its CPU time and its memory. And the limit of open
//! files of our own.
//!
//! `unsafe` for the two calls about that limit, which no crate in the tree wraps.
#![allow(unsafe_code)]

use std::io;
use std::time::Duration;

/// What a process used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time of its threads.
    pub cpu: Duration,
    /// Resident memory, bytes.
    pub rss_bytes: u64,
}

impl Usage {
    /// Of the process with this number; of our own with `None`.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn of(pid: Option<u32>) -> io::Result<Self> {
        let directory = pid.map_or("/proc/self".to_owned(), |pid| format!("/proc/{pid}"));
        let stat = std::fs::read_to_string(format!("{directory}/stat"))?;
        let statm = std::fs::read_to_string(format!("{directory}/statm"))?;
        let usage = Self::parse(&stat, &statm);
        let mut usage = usage.ok_or(io::Error::from(io::ErrorKind::InvalidData))?;
        // Finer than ticks, but without threads that have ended.
        if let Some(cpu) = scheduled(&directory) {
            usage.cpu = cpu;
        }
        Ok(usage)
    }

    fn parse(stat: &str, statm: &str) -> Option<Self> {
        // The name in parentheses may hold anything: counted from behind it.
        let (_, fields) = stat.rsplit_once(')')?;
        let mut fields = fields.split_whitespace().skip(11);
        let user: u64 = fields.next()?.parse().ok()?;
        let system: u64 = fields.next()?.parse().ok()?;
        let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
        Some(Self {
            cpu: Duration::from_millis((user + system) * (1_000 / TICKS_PER_SECOND)),
            rss_bytes: pages * PAGE_BYTES,
        })
    }
}

/// CPU time of the threads that a process has now, exact to the nanosecond, where the kernel
/// counts it (`CONFIG_SCHED_INFO`).
fn scheduled(directory: &str) -> Option<Duration> {
    let threads = std::fs::read_dir(format!("{directory}/task")).ok()?;
    let mut sum = Duration::ZERO;
    for thread in threads {
        let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        sum += Duration::from_nanos(text.split_whitespace().next()?.parse().ok()?);
    }
    Some(sum)
}

/// `USER_HZ` of Linux, the same on every machine that people run servers on.
const TICKS_PER_SECOND: u64 = 100;
const PAGE_BYTES: u64 = 4_096;

/// Raises the limit of open files as far as the process may and answers it.
///
/// # Errors
/// As the system says.
pub fn raise_file_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a live rlimit, which the call fills in.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: the pointer is to a live rlimit, which the call only reads.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_is_passed_over() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 1 0 0 0 250 50 7 8 20 0 3 0 1 2 3";
        let usage = Usage::parse(stat, "5000 1234 800 1 0 2 0").expect("good");
        assert_eq!(usage.cpu, Duration::from_secs(3));
        assert_eq!(usage.rss_bytes, 1_234 * 4_096);
    }

    #[test]
    fn our_own_is_known_and_no_one_elses_invented() {
        assert!(Usage::of(None).expect("we run").rss_bytes > 0);
        assert!(Usage::of(Some(u32::MAX)).is_err());
    }
}

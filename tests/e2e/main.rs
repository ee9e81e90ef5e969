//! The gateway as its users meet it: the program as a process, ffmpeg, rtmpdump
//! and GStreamer on one side, a real Chromium on the other.
//!
//! Each test runs alone, in a network namespace that has only loopback
//! (`support/namespace.rs`). Facts are judged strictly (what arrives, whether it
//! decodes, what it looks and sounds like), times with room for a busy machine.

// tools/measure.rs uses what the tests do not.
#[allow(dead_code, unused_imports)]
mod support;

#[path = "../../tools/soak/soak.rs"]
mod soak;

mod bad_network;
mod calls;
mod hostile;
mod instruments;
mod leaks;
mod page;
mod rtmp_to_rtmp;
mod rtmp_to_whep;
mod whip_to_rtmp;
mod whip_to_whep;

/// The gateway under test.
const GATEWAY: &str = env!("CARGO_BIN_EXE_rtmp-gateway");

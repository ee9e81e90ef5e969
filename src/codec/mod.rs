//! Bit streams: what H.264, AAC and Opus payloads say about themselves.
//!
//! Pure parsing and writing; nothing here knows of containers' protocols,
//! networks or clocks.

pub mod aac;
mod bits;
pub mod h264;
pub mod opus;

//! RTMP 1.0 (Adobe, December 2012) with the parts of Enhanced RTMP v1/v2 that real
//! encoders use. Everything here is sans-IO: bytes and time in, bytes and events out.
//!
//! From the wire up: [`handshake`], [`chunk`] (section 5.3), [`message`] (sections 5.4
//! and 7.1), [`amf0`] and [`amf3`], [`command`] and [`flv`], and the two ends of a
//! connection, [`session`] (server) and [`client`].

pub mod amf0;
pub mod amf3;
pub mod chunk;
pub mod client;
pub mod command;
pub mod flv;
pub mod handshake;
pub mod message;
pub mod metadata;
pub mod session;
pub mod stream_name;

pub use session::{Session, SharedMessage};

//! HTTP/1.1 for the server's side: [`Session`] turns the bytes of one connection into
//! [`Request`]s and [`Response`]s into bytes (RFC 9110, RFC 9112).
//!
//! | module | owns |
//! | --- | --- |
//! | [`session`] | one connection: its state, its timers, what waits to be sent |
//! | [`request`] | a request head: method, target, headers, framing of its body |
//! | [`target`] | the request target and percent-encoding (RFC 3986) |
//! | [`body`] | a body by length or in chunks |
//! | [`response`] | a response, its bytes, and the JSON problem body (RFC 9457) |
//! | [`prometheus`] | the text format of `/metrics` |
//! | [`page`] | the files of the page at `/` |
//! | [`websocket`] | a connection that became a WebSocket (RFC 6455) |
//!
//! Nothing here knows what a stream is, reads a clock or owns a socket.

use std::time::Duration;

pub mod body;
pub mod error;
pub mod page;
pub mod prometheus;
pub mod request;
pub mod response;
pub mod session;
pub mod target;
pub mod websocket;

pub use error::Error;
pub use request::{Headers, Method, Request, Version};
pub use response::{Response, Status};
pub use session::{Event, Session};
pub use websocket::WebSocket;

/// What one connection may use. Reaching a limit ends the connection with the
/// status named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request's head, request line and blank line included: 431.
    pub head_bytes_max: usize,
    /// Bytes of a request line: 414.
    pub target_bytes_max: usize,
    /// Bytes of a request's body after chunks are joined: 413.
    pub body_bytes_max: usize,
    /// From the first byte of a head (or from accepting the connection) to its last: 408.
    /// It bounds the whole head, so bytes sent one by one do not stretch it.
    pub head_timeout: Duration,
    /// From the end of a head to the end of its body: 408.
    pub body_timeout: Duration,
    /// How long a connection is kept between two requests, and how long a peer may
    /// leave its responses unread: a silent close.
    pub keep_alive_timeout: Duration,
}

impl Default for Limits {
    /// An SDP offer of a browser has 3 to 8 KB, so 64 KiB leave room for any that makes
    /// sense; heads of browsers have less than 2 KB.
    fn default() -> Self {
        Self {
            head_bytes_max: 16 * 1024,
            target_bytes_max: 8 * 1024,
            body_bytes_max: 64 * 1024,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            keep_alive_timeout: Duration::from_secs(60),
        }
    }
}

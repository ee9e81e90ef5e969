//! The two media tags of a WeChat mini-program, simulated: what `<live-pusher>` and
//! `<live-player>` do on the wire, and the state codes that they tell their page.
//!
//! | module | owns |
//! | --- | --- |
//! | [`phone`] | what a phone's camera and microphone give, by size |
//! | [`pusher`] | [`LivePusher`] |
//! | [`player`] | [`LivePlayer`] and its playing clock |
//! | [`line`] | the connection under both: connect, three retries, give up |
//!
//! Sans-IO like the gateway: bytes and time go in, bytes and codes come out, so the same clients
//! serve the World, real sockets and the load tool. Their habits are those that Tencent's
//! documents and WeChat's community tell of: retries three times three seconds apart, a picture
//! that changes its size with the uplink, a waiting picture in the background, a cache of 0.2 to
//! 0.8 seconds in RTC mode.

pub mod line;
pub mod phone;
pub mod player;
pub mod pusher;

use std::time::Instant;

use rtmp_gateway::rtmp::client::RtmpUrl;
use rtmp_gateway::transmit::TransmitQueue;

pub use line::Output;
pub use phone::Phone;
pub use player::LivePlayer;
pub use pusher::LivePusher;

/// What both tags have in common: the world's side of them.
pub trait Tag {
    /// The TCP connection stands.
    fn handle_connected(&mut self);
    /// Bytes came.
    fn handle_received(&mut self, now: Instant, bytes: &[u8]);
    /// The connection is gone, or could not be made.
    fn handle_closed(&mut self, now: Instant);
    /// Does what is due: sends media, tries again.
    fn handle_timeout(&mut self, now: Instant);
    /// When [`Self::handle_timeout`] is due.
    fn next_timeout(&self) -> Option<Instant>;
    /// The next thing to do.
    fn poll_output(&mut self) -> Option<Output>;
    /// What is to be written.
    fn transmit(&mut self) -> &mut TransmitQueue;
    /// Where it connects to.
    fn url(&self) -> &RtmpUrl;
    /// The page stops it.
    fn stop(&mut self);
    /// Whether it has given up or was stopped.
    fn is_over(&self) -> bool;
}

/// State codes, by the names of their documentation.
pub mod code {
    /// The RTMP connection stands.
    pub const PUSH_CONNECTED: i32 = 1001;
    /// The server lets us publish.
    pub const PUSH_BEGAN: i32 = 1002;
    /// The camera is open.
    pub const CAMERA_OPENED: i32 = 1003;
    /// The picture has another size from now on.
    pub const PUSH_RESOLUTION_CHANGED: i32 = 1005;
    /// Encoding began.
    pub const ENCODER_STARTED: i32 = 1008;
    /// The connection was lost; trying again.
    pub const PUSH_RECONNECTING: i32 = 1102;
    /// All tries failed.
    pub const PUSH_GAVE_UP: i32 = -1307;
    /// No TCP connection.
    pub const CONNECT_FAILED: i32 = 3002;
    /// The server refused or closed.
    pub const SERVER_CLOSED: i32 = 3004;
    /// Reading or writing failed.
    pub const SOCKET_FAILED: i32 = 3005;
    /// The RTMP connection stands.
    pub const PLAY_CONNECTED: i32 = 2001;
    /// The server says that it plays.
    pub const PLAY_STREAM_BEGAN: i32 = 2002;
    /// The first key frame is there.
    pub const PLAY_FIRST_PICTURE: i32 = 2003;
    /// Something is shown or heard.
    pub const PLAY_BEGAN: i32 = 2004;
    /// The server ended the stream.
    pub const PLAY_ENDED: i32 = 2006;
    /// The picture has another size from now on.
    pub const PLAY_RESOLUTION_CHANGED: i32 = 2009;
    /// The connection was lost; trying again.
    pub const PLAY_RECONNECTING: i32 = 2103;
    /// Something came too late to be shown in time.
    pub const PLAY_STUTTER: i32 = 2105;
    /// Timestamps or pictures do not follow one another.
    pub const PLAY_DISCONTINUITY: i32 = 2107;
    /// All tries failed.
    pub const PLAY_GAVE_UP: i32 = -2301;
}

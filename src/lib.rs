//! An RTMP ↔ WebRTC gateway: RTMP publishers and players on one side, browsers on the
//! other, joined in one process without touching the picture.
//!
//! Everything but [`net`] is sans-IO: bytes and time go in, bytes and events come out. So
//! the whole gateway with its peers runs inside a test under a virtual clock. Imports
//! point down:
//!
//! | floor | modules |
//! | --- | --- |
//! | process | `main`, [`demo`] |
//! | world | [`net`] |
//! | gateway | [`gateway`] |
//! | bridge | [`bridge`] |
//! | services | [`hub`], [`transcode`], [`signaling`], [`access`] |
//! | settings | [`config`], which protocols do not know |
//! | protocols | [`rtmp`], [`rtp`], [`http`], [`webrtc`] |
//! | bit streams | [`codec`] |
//! | words | [`media`], [`ids`], [`wire`], [`transmit`], [`deadlines`], [`secrets`] |

pub mod access;
pub mod bridge;
pub mod codec;
pub mod config;
pub mod deadlines;
pub mod demo;
pub mod gateway;
pub mod http;
pub mod hub;
pub mod ids;
pub mod media;
pub mod net;
pub mod rtmp;
pub mod rtp;
pub mod secrets;
pub mod signaling;
pub mod transcode;
pub mod transmit;
pub mod webrtc;
pub mod wire;

//! An RTMP ↔ WebRTC gateway: RTMP publishers and players on one side, browsers on the
//! other, joined in one process without touching the picture.

pub mod bridge;
pub mod codec;
pub mod config;
pub mod gateway;
pub mod http;
pub mod hub;
pub mod ids;
pub mod media;
pub mod rtmp;
pub mod rtp;
pub mod signaling;
pub mod transcode;
pub mod transmit;
pub mod webrtc;
pub mod wire;

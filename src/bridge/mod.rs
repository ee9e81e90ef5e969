//! The bridge: each protocol's media to and from the neutral [`crate::media::Frame`].
//!
//! | module | from | to |
//! | --- | --- | --- |
//! | [`rtmp_ingest`] | FLV tags of an RTMP publisher | frames of a stream |
//! | [`webrtc_ingest`] | RTP packets of a WebRTC publisher | frames of a stream |
//! | [`rtmp_egress`] | frames of a stream | chunks for an RTMP player |
//! | [`webrtc_egress`] | frames of a stream | RTP packets for a WebRTC viewer |
//! | [`viewer_pressure`] | a viewer's reports | how much of the stream it gets |
//!
//! `sound_pace` keeps a viewer from more sound than its browser can play.
//!
//! Each works on one stream and one session that it is handed; none knows of sockets
//! or of the other sessions.

mod b_frames;
pub mod rtmp_egress;
pub mod rtmp_ingest;
mod sound_pace;
pub mod viewer_pressure;
pub mod webrtc_egress;
pub mod webrtc_ingest;

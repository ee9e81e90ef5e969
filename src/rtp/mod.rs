//! RTP payloads: H.264 cut into packets and put together again (RFC 6184), and audio packets put in
//! order.
//!
//! Headers, encryption and retransmission belong to `webrtc`; here a packet is its extended
//! sequence number, its extended timestamp, its marker and its payload.

pub mod frame_assembler;
pub mod h264_depacketizer;
pub mod h264_packetizer;
pub mod reorder;
mod ring;

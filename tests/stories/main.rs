//! Whole stories in memory: the gateway with RTMP clients and browsers under a virtual clock,
//! one module for each promise. One binary, because linking costs more than running.

#[path = "../common/mod.rs"]
mod common;

mod audio_bridge;
mod call_life;
mod callbacks;
mod calls;
mod changing_streams;
mod clocks;
mod drift;
mod fan_out;
mod late_player;
mod lifecycle;
mod lip_sync;
mod live_edge;
mod lossy_network;
mod mini_program;
mod network_paths;
mod observability;
mod pictures_change;
mod publisher_restart;
mod room_limits;
mod rooms;
mod rtmp_fanout;
mod rtmp_play;
mod slow_player;
mod takeover;
mod there_and_back;
mod viewer_pressure;
mod viewer_recovery;
mod whep_session;
mod whip_session;
mod who_may;

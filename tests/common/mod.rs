//! What the in-memory tests are made of: a [`world::World`] with a whole gateway, RTMP clients,
//! virtual browsers and the links between them, under one virtual clock.

#![allow(dead_code, reason = "each test file uses its part")]

pub mod browser;
pub mod clip;
pub mod jwt;
pub mod screen;
pub mod watch;
pub mod world;

//! A session against scripted peers and against our own client, in memory.

mod hostile;
mod lifecycle;
mod media;
mod peer;
mod play;
mod publish;
mod recorded;

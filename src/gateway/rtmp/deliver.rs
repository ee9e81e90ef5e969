//! Messages on their way to RTMP players, a slice of the players at a time.
//!
//! What a player costs is what its writes cost the kernel. A stream of 1 Mbit/s has 72
//! messages a second (25 pictures, 47 sounds of 48 kHz); for a thousand players they
//! are gathered to 25 writes of 6.2 KB each ([`super::batches`]). Measured on loopback, 2
//! vCPUs under KVM, Linux 6.18, by `tools/bench/run play-1000` and by a bare loop of the same
//! `writev` calls to as many sockets, which is the limit that the kernel sets:
//!
//! | | kernel, us | ours, us | CPU per 100 players |
//! | --- | --- | --- | --- |
//! | a write of 6.2 KB, bare | 10.5 | - | 2.6 % |
//! | the same, this gateway | 9 to 11 | 1 to 2 | 2.8 to 3.1 % |
//! | a write of 52 KB (`merge_ms = 320`), bare | 30 | - | 0.9 % |
//! | the same, this gateway | 32 | 1 to 4 | 1.0 % |
//! | a write for each message of 2.1 KB, bare | 8.2 | - | 5.9 % |
//! | the same, nginx-rtmp | 7 to 8 | 1 | 6.2 to 6.7 % |
//!
//! In one such write 17 % of the time wakes the reader, 5 % copies, and a third is the
//! reader's half of the loopback, which a network card's driver does not have. Ours are a
//! look-up of the connection, a clone of some six shared buffers into its queue, and the
//! queue's way through the loop. Fewer writes are all that is left to gain, at the price of
//! delay.

use std::time::Instant;

use super::batches::{Arrived, Walk};
use super::{Playing, RtmpConnection};
use crate::gateway::{Connection, Gateway, Output, Owner};
use crate::hub::Hub;
use crate::ids::{ConnId, IdMap, PeerId, StreamId};
use crate::media::Codec;
use crate::signaling::conversations::Conversations;

impl Gateway {
    /// A stream has a message for its RTMP players.
    pub(in crate::gateway) fn rtmp_news(&mut self, now: Instant, id: StreamId) {
        let Some(stream) = self.hub.get(id) else {
            return;
        };
        let players = stream.rtmp_players();
        if players == 0 {
            return;
        }
        let arrived = match stream.ring.newest().map(|entry| &entry.frame) {
            _ if !stream.announced.video => Arrived::Start,
            Some(frame) if frame.codec == Codec::H264 && frame.key => Arrived::Start,
            Some(frame) if frame.codec == Codec::H264 => Arrived::Picture,
            _ => Arrived::Sound,
        };
        let due = self.batches.mark(now, id, players, arrived);
        self.arm_batch(id, due);
    }

    /// A stream's window may have ended.
    pub(in crate::gateway) fn end_rtmp_window(&mut self, now: Instant, id: StreamId) {
        let due = self.batches.end_window(now, id);
        self.arm_batch(id, due);
    }

    /// Serves players until a slice's work is done.
    pub(in crate::gateway) fn serve_rtmp_slice(&mut self, now: Instant) {
        let mut work = 0;
        while work < SLICE_WORK
            && let Some(mut walk) = self.batches.take()
        {
            work += self.walk(now, &mut walk, SLICE_WORK - work);
        }
    }

    /// The connection took what it was given: a player that is behind gets more.
    pub(in crate::gateway) fn rtmp_transmitted(&mut self, conn: ConnId) {
        let Some(Connection::Rtmp(rtmp)) = self.connections.get_mut(&conn) else {
            return;
        };
        rtmp.moved_at = self.now;
        let queued = serve(&self.hub, rtmp, self.config.rtmp.chunk_size);
        note_first(&mut self.conversations, self.now, rtmp);
        if queued > 0 {
            self.outputs.push_back(Output::Transmit(conn));
        }
    }

    /// Gives the players of a connection that is worked on what is due to them.
    pub(super) fn serve_connection(&mut self, rtmp: &mut RtmpConnection) {
        serve(&self.hub, rtmp, self.config.rtmp.chunk_size);
        note_first(&mut self.conversations, self.now, rtmp);
        for playing in &rtmp.playing {
            if !playing.player.has_started() {
                self.batches.await_start(playing.stream);
            }
        }
    }

    /// Gives a player of a connection that is worked on all there is, for its stream ends.
    pub(super) fn serve_rest(&mut self, rtmp: &mut RtmpConnection, message_stream: u32) {
        let chunk_size = self.config.rtmp.chunk_size;
        let mut playing = rtmp.playing.iter_mut();
        if let Some(playing) = playing.find(|p| p.message_stream == message_stream)
            && let Some(stream) = self.hub.get(playing.stream)
        {
            let (player, session) = (&mut playing.player, &mut rtmp.session);
            player.serve_rest(stream, session, chunk_size);
        }
    }

    fn arm_batch(&mut self, id: StreamId, due: Option<Instant>) {
        if due.is_some() {
            self.deadlines.arm(Owner::Batch(id), due);
        }
    }

    /// Serves players of one stream; puts the walk back if it is not through.
    fn walk(&mut self, now: Instant, walk: &mut Walk, budget: usize) -> usize {
        let chunk_size = self.config.rtmp.chunk_size;
        let mut work = 1;
        let (mut lacks_key, mut is_through) = (false, true);
        if let Some(stream) = self.hub.get(walk.stream) {
            walk.note_roster(now, stream.rtmp_roster());
            let players = stream.rtmp_list();
            while walk.visited < players.len() {
                if work >= budget {
                    is_through = false;
                    break;
                }
                let player = players[walk.start.wrapping_add(walk.visited) % players.len()];
                walk.visited += 1;
                let Some((rtmp, at)) = player_of(&mut self.connections, player) else {
                    continue;
                };
                let playing = &mut rtmp.playing[at];
                let queued = playing.player.serve(stream, &mut rtmp.session, chunk_size);
                walk.slowest = walk.slowest.min(playing.player.cursor(stream));
                let has_sent = |kind| playing.player.has_sent(kind);
                playing
                    .first
                    .note(&mut self.conversations, now, player, has_sent);
                walk.is_awaited |= !playing.player.has_started();
                lacks_key |= playing.player.take_lack_of_key();
                if queued > 0 {
                    work += 1 + queued / BYTES_LIKE_A_WRITE;
                    self.outputs.push_back(Output::Transmit(rtmp.conn));
                }
            }
        }
        if lacks_key
            && let Some(stream) = self.hub.get(walk.stream)
            && let Some(publisher) = &stream.publisher
            && let PeerId::Webrtc(session) = publisher.peer
        {
            self.ask_for_keyframe(now, session);
        }
        if !is_through {
            self.batches.put_back(*walk);
            return work;
        }
        if let Some(stream) = self.hub.get_mut(walk.stream) {
            stream.rtmp_served_to(walk.slowest);
        }
        let due = self.batches.finish(now, *walk);
        self.arm_batch(walk.stream, due);
        work
    }
}

/// Gives a connection's players what is due to them; answers how many bytes that is.
fn serve(hub: &Hub, rtmp: &mut RtmpConnection, chunk_size: u32) -> usize {
    let mut queued = 0;
    for Playing { stream, player, .. } in &mut rtmp.playing {
        if let Some(stream) = hub.get(*stream) {
            queued += player.serve(stream, &mut rtmp.session, chunk_size);
        }
    }
    queued
}

/// Tells conversations what a connection's players got for the first time.
fn note_first(conversations: &mut Conversations, now: Instant, rtmp: &mut RtmpConnection) {
    let conn = rtmp.conn;
    for playing in &mut rtmp.playing {
        let peer = PeerId::Rtmp {
            conn,
            message_stream: playing.message_stream,
        };
        let has_sent = |kind| playing.player.has_sent(kind);
        playing.first.note(conversations, now, peer, has_sent);
    }
}

/// The connection of a player and which of those playing there it is.
fn player_of(
    connections: &mut IdMap<ConnId, Connection>,
    player: PeerId,
) -> Option<(&mut RtmpConnection, usize)> {
    let PeerId::Rtmp {
        conn,
        message_stream,
    } = player
    else {
        return None;
    };
    let Connection::Rtmp(rtmp) = connections.get_mut(&conn)? else {
        return None;
    };
    let mut playing = rtmp.playing.iter();
    let at = playing.position(|playing| playing.message_stream == message_stream)?;
    Some((rtmp, at))
}

/// Work of one slice, in writes: a third of a millisecond. What the walk touched of a player is
/// still in the processor's cache when its write comes, which a write for a hundred others
/// in between would not leave there.
const SLICE_WORK: usize = 32;

/// Bytes that cost as much as one more write does.
const BYTES_LIKE_A_WRITE: usize = 16 << 10;

//! Frames on their way to WebRTC viewers, a slice at a time. RTMP players have
//! slices of their own: `rtmp::deliver`.

use std::time::Instant;

use super::fanout::Pass;
use super::sessions::PeerRole;
use super::{Gateway, Owner};
use crate::ids::{PeerId, SessionId};
use crate::media::TrackKind;

impl Gateway {
    /// Serves viewers until a slice's work is done.
    pub(super) fn serve_slice(&mut self, now: Instant) {
        let mut work = 0;
        while work < SLICE_WORK
            && let Some(mut pass) = self.fanout.take()
        {
            work += self.serve_pass(now, &mut pass, SLICE_WORK - work);
        }
    }

    /// Serves players of one stream; puts the pass back if it is not through.
    fn serve_pass(&mut self, now: Instant, pass: &mut Pass, budget: usize) -> usize {
        let mut work = 0;
        loop {
            let Some(stream) = self.hub.get(pass.stream) else {
                return work;
            };
            pass.note_roster(stream.webrtc_roster());
            // Serving somebody may end it: the list is looked at anew each time.
            let players = stream.webrtc_list();
            if pass.visited >= players.len() {
                break;
            }
            if work >= budget {
                self.fanout.put_back(*pass);
                return work;
            }
            let peer = players[pass.start.wrapping_add(pass.visited) % players.len()];
            pass.visited += 1;
            let PeerId::Webrtc(session) = peer else {
                continue;
            };
            let (cost, cursor) = self.serve_webrtc(now, session, pass);
            work += cost;
            pass.slowest = pass.slowest.min(cursor);
        }
        if let Some(stream) = self.hub.get_mut(pass.stream) {
            stream.webrtc_served_to(pass.slowest);
        }
        self.fanout.finish(*pass);
        work
    }

    fn serve_webrtc(&mut self, now: Instant, session: SessionId, pass: &Pass) -> (usize, u64) {
        let (Some(stream), Some(peer)) =
            (self.hub.get(pass.stream), self.sessions.get_mut(&session))
        else {
            return (1, u64::MAX);
        };
        let PeerRole::Viewer(viewer) = &mut peer.role else {
            return (1, u64::MAX);
        };
        let served = match pass.kind {
            TrackKind::Audio => viewer.serve_audio(now, stream, &mut peer.session),
            TrackKind::Video => viewer.serve_video(now, stream, &mut peer.session),
        };
        let cursor = viewer.cursor(stream);
        let sent = |kind| viewer.has_sent(kind);
        peer.first
            .note(&mut self.conversations, now, PeerId::Webrtc(session), sent);
        if let Some(again) = served.again {
            peer.pace_at = Some(again);
            self.deadlines.arm(Owner::Session(session), Some(again));
        }
        if served.packets > 0 {
            self.flush_session(now, session);
        }
        if served.wants_key {
            self.want_keyframe_of(now, pass.stream);
        }
        (1 + served.packets, cursor)
    }
}

/// Work of one slice, in RTP packets: about a millisecond, so that an IDR
/// for a thousand viewers lets everything else through some sixty times.
const SLICE_WORK: usize = 512;

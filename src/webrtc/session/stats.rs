//! Figures of a session for the API and the metrics.

use std::time::Duration;

use str0m::stats::MediaIngressStats;

use crate::media::TrackKind;
use crate::webrtc::Pair;

/// Counters since the session began, and the latest quality figures.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Datagrams made, checks' answers and reports among them.
    pub datagrams_sent: u64,
    /// Their bytes, without UDP and IP headers.
    pub bytes_sent: u64,
    /// Datagrams taken.
    pub datagrams_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// Datagrams refused: wrong signatures, unknown addresses or payload types, noise.
    pub datagrams_dropped: u64,
    /// The picture.
    pub video: TrackStats,
    /// The sound.
    pub audio: TrackStats,
    /// Where we send.
    pub selected: Option<Pair>,
}

/// Figures of one track: of what a publisher sends us, or of what a viewer gets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrackStats {
    /// RTP packets, without retransmissions.
    pub packets: u64,
    /// Payload bytes of them.
    pub bytes: u64,
    /// Reports of lost packets: ours to a publisher, a viewer's to us.
    pub nacks: u64,
    /// Packets sent again because a viewer reported them lost.
    pub repeated: u64,
    /// Requests for an IDR, PLI and FIR: ours to a publisher, a viewer's to us.
    pub plis: u64,
    /// Round trip.
    pub rtt: Option<Duration>,
    /// Share of packets lost lately, 0 to 1.
    pub loss: Option<f32>,
}

impl Stats {
    pub(super) fn track(&mut self, kind: TrackKind) -> &mut TrackStats {
        match kind {
            TrackKind::Video => &mut self.video,
            TrackKind::Audio => &mut self.audio,
        }
    }

    /// Round trip, from whichever track has one.
    pub fn rtt(&self) -> Option<Duration> {
        self.video.rtt.or(self.audio.rtt)
    }
}

impl TrackStats {
    /// Packets and bytes are counted at arrival.
    pub(super) fn update_ingress(&mut self, stats: &MediaIngressStats) {
        self.nacks = stats.nacks;
        self.rtt = stats.rtt.or(self.rtt);
        self.loss = stats.loss.or(self.loss);
    }
}

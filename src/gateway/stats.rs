//! [`Stats`]: what the gateway counts over its life, by named reasons.

use std::collections::BTreeMap;

/// Counters since the start. Only ever grow.
#[derive(Debug, Default)]
pub struct Stats {
    /// Bytes taken from TCP peers.
    pub tcp_received_bytes: u64,
    /// Datagrams taken.
    pub datagrams_received: u64,
    /// Bytes in them.
    pub datagram_received_bytes: u64,
    /// Datagrams given out.
    pub datagrams_sent: u64,
    /// Bytes in them.
    pub datagram_sent_bytes: u64,
    /// Datagrams that belong to no session, by what they looked like.
    pub datagrams_unrouted: u64,
    /// Sessions begun, by kind: `rtmp`, `rtmp_publish`, `rtmp_play`, `http`, `whip`, `whep`.
    pub sessions: BTreeMap<&'static str, u64>,
    /// Ends that were nobody's wish, by reason.
    pub errors: BTreeMap<&'static str, u64>,
    /// HTTP responses by status code.
    pub http_responses: BTreeMap<u16, u64>,
    /// Key frames asked of WebRTC publishers.
    pub keyframe_requests_sent: u64,
    /// Key frames that viewers asked for.
    pub keyframe_requests_received: u64,
    /// Times that a viewer's path did not carry its stream.
    pub viewers_thinned: u64,
    /// Echoes that viewers answered; only those are asked whose path did not carry all.
    pub echoes_answered: u64,
    /// Audio frames that the transcoder did not take because it was behind.
    pub transcode_dropped_frames: u64,
    /// Errors of codecs.
    pub transcode_errors: u64,
    /// Sound made up because it was missing, in samples per channel at 48 kHz.
    pub transcode_concealed_samples: u64,
    /// Samples of silence that were put in where nothing came.
    pub transcode_silence_samples: u64,
    /// Time that workers spent, in microseconds.
    pub transcode_busy_us: u64,
    /// Audio frames that the transcoder gave back.
    pub transcode_frames: u64,
}

impl Stats {
    /// Counts the begin of a session of `kind`.
    pub fn session(&mut self, kind: &'static str) {
        *self.sessions.entry(kind).or_default() += 1;
    }

    /// Counts an end for `reason`.
    pub fn error(&mut self, reason: &'static str) {
        *self.errors.entry(reason).or_default() += 1;
    }
}

//! What is wrong with a stream, in words and with the cure, and how much media is held where.
//!
//! | held by | at most | then |
//! | --- | --- | --- |
//! | the ingest, for lost packets | twice `webrtc.hole_wait_ms`, or four round trips and 200 ms up to 1.6 s; `webrtc.audio_reorder_wait_ms` | the picture goes on at the next key frame, sound is made up |
//! | the transcoder | 64 jobs, above a second of sound | sound is dropped |
//! | an RTMP player | `streams.queue_duration_ms`, `streams.queue_bytes` | it goes on at the newest key frame |
//! | a WebRTC viewer | the same; 800 ms while its path is too narrow; sound 500 ms | the same; sound is dropped |

use std::time::{Duration, Instant};

use serde::Serialize;

use super::sessions::PeerRole;
use super::{Connection, Gateway};
use crate::hub::Stream;
use crate::ids::{PeerId, StreamId};
use crate::media::{MediaTime, TrackConfig};

/// Media time that waits inside the gateway.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Held {
    /// For packets that were lost on the way in.
    pub(super) ingest_ms: u64,
    /// At the transcoder.
    pub(super) transcode_ms: u64,
    /// For the slowest player.
    pub(super) players_ms: u64,
}

/// What an operator should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Warning {
    /// A name for programs.
    code: &'static str,
    /// What is wrong, and what to do.
    text: String,
}

/// What warnings are made of.
pub(super) struct Facts<'a> {
    pub(super) now: Instant,
    pub(super) stream: &'a Stream,
    pub(super) held: &'a Held,
    pub(super) timestamp_jumps: u64,
    pub(super) malformed: u64,
    /// Pictures that came whole and that did not, of a WebRTC publisher.
    pub(super) frames: Option<(u64, u64)>,
    /// Viewers whose path does not carry the stream.
    pub(super) thinned: usize,
}

/// All that is wrong at present.
pub(super) fn warnings(facts: &Facts<'_>) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut warn = |code, text: String| warnings.push(Warning { code, text });
    let stream = facts.stream;
    let health = &stream.health;
    if health.b_frames > 0 {
        warn(
            "b_frames",
            "The video has B-frames, which browsers cannot show in order: switch them off in the \
             encoder (x264: bframes=0 or -bf 0; OBS: B-frames 0, or tune zerolatency)."
                .to_owned(),
        );
    }
    let Some(publisher) = &stream.publisher else {
        return warnings;
    };
    let is_rtmp = matches!(publisher.peer, PeerId::Rtmp { .. });
    let silent = facts.now.saturating_duration_since(publisher.last_media);
    if silent >= SILENT {
        warn(
            "silent",
            format!(
                "The publisher has sent nothing for {:.0} s: look at its network and its encoder.",
                silent.as_secs_f64()
            ),
        );
    }
    if let Some(gop) = health.gop.filter(|gop| is_rtmp && *gop > GOP_MAX) {
        warn(
            "rare_key_frames",
            format!(
                "A key frame comes only every {:.1} s: whoever joins or loses one waits so long. Set \
                 the keyframe interval to 2 s.",
                gop.as_secs_f64()
            ),
        );
    }
    let newest = stream.ring.newest_picture().map(|entry| entry.frame.dts);
    let since_key = newest.and_then(|newest| health.since_key(newest));
    let is_missing = since_key.map_or(
        // Frames and no key frame at all.
        stream
            .video
            .as_ref()
            .is_some_and(|track| track.meter.frames > FRAMES_WITHOUT_KEY),
        |since| since > KEY_MISSING,
    );
    if is_rtmp && is_missing {
        warn(
            "no_key_frame",
            "No key frame has come for a long time: nobody can begin to watch. Set the keyframe \
             interval to 2 s, and no intra refresh."
                .to_owned(),
        );
    }
    if facts.timestamp_jumps > 0 {
        warn(
            "timestamps",
            format!(
                "The publisher's timestamps jumped {} times: players saw a pause or a skip. Look at \
                 its capture device and its clock.",
                facts.timestamp_jumps
            ),
        );
    }
    if facts.malformed > 0 {
        warn(
            "malformed",
            format!(
                "{} frames or packets of the publisher made no sense and were left out.",
                facts.malformed
            ),
        );
    }
    if let Some((whole, dropped)) = facts.frames
        && dropped > 0
        && dropped * LOST_SHARE > whole + dropped
    {
        warn(
            "uplink_loss",
            format!(
                "{dropped} of {} pictures were lost on the way from the publisher: its network is \
                 weak. A lower bit rate helps.",
                whole + dropped
            ),
        );
    }
    if facts.held.transcode_ms > TRANSCODE_LATE_MS {
        warn(
            "transcode_late",
            "The sound waits to be transcoded: the machine has too few cores for its streams."
                .to_owned(),
        );
    }
    if facts.held.players_ms > PLAYER_LATE_MS {
        warn(
            "player_late",
            format!(
                "A player is {:.1} s behind: its network or its decoder is too slow for the bit rate.",
                facts.held.players_ms as f64 / 1e3
            ),
        );
    }
    if facts.thinned > 0 {
        warn(
            "viewers_thinned",
            format!(
                "{} viewers get less than the whole stream: their networks do not carry its bit rate.",
                facts.thinned
            ),
        );
    }
    if let Some(TrackConfig::H264(config)) = stream.video.as_ref().map(|track| &*track.config)
        && config.info().width == 0
    {
        warn(
            "no_size",
            "The picture's size is unknown: its parameter sets are broken.".to_owned(),
        );
    }
    warnings
}

impl Gateway {
    /// Media time of a stream that waits inside the gateway.
    pub(super) fn held(&self, now: Instant, id: StreamId, stream: &Stream) -> Held {
        let peer = stream.publisher.as_ref().map(|publisher| publisher.peer);
        let ingest = match peer {
            Some(PeerId::Webrtc(session)) => match self.sessions.get(&session).map(|p| &p.role) {
                Some(PeerRole::Publisher(ingest)) => ingest.held(now),
                _ => Duration::ZERO,
            },
            _ => Duration::ZERO,
        };
        let pending = self
            .transcoding
            .of_stream(id)
            .map_or(0, |pipeline| pipeline.pending);
        let players = stream.players();
        let slowest = players
            .filter_map(|player| self.player_lag(player, stream))
            .max();
        Held {
            ingest_ms: ingest.as_millis() as u64,
            transcode_ms: pending as u64 * JOB_MS,
            players_ms: slowest.map_or(0, |lag| lag.as_millis().max(0) as u64),
        }
    }

    /// Media time that a player is behind.
    pub(super) fn player_lag(&self, player: PeerId, stream: &Stream) -> Option<MediaTime> {
        match player {
            PeerId::Rtmp {
                conn,
                message_stream,
            } => {
                let Connection::Rtmp(rtmp) = self.connections.get(&conn)? else {
                    return None;
                };
                let playing = rtmp
                    .playing
                    .iter()
                    .find(|playing| playing.message_stream == message_stream)?;
                Some(playing.player.lag(stream))
            }
            PeerId::Webrtc(session) => match &self.sessions.get(&session)?.role {
                PeerRole::Viewer(viewer) => Some(viewer.lag(stream)),
                PeerRole::Publisher(_) => None,
            },
        }
    }

    /// Viewers that do not get all of a stream, because their paths do not carry it.
    pub(super) fn thinned_viewers(&self, stream: &Stream) -> usize {
        let is_thinned = |player: &PeerId| {
            match player {
            PeerId::Webrtc(session) => self.sessions.get(session).is_some_and(|peer| {
                matches!(&peer.role, PeerRole::Viewer(viewer) if viewer.budget_bps().is_some())
            }),
            PeerId::Rtmp { .. } => false,
        }
        };
        stream.players().filter(is_thinned).count()
    }
}

/// About the media time of one transcode job: a frame of 20 to 23 ms.
const JOB_MS: u64 = 20;

/// A publisher without media for so long is worth a word.
const SILENT: Duration = Duration::from_secs(2);

/// Rarer key frames make a start slow.
const GOP_MAX: MediaTime = MediaTime::from_millis(4_500);

/// Without a key frame for so long, or from the beginning for so many frames, nobody can join.
const KEY_MISSING: MediaTime = MediaTime::from_millis(15_000);
const FRAMES_WITHOUT_KEY: u64 = 250;

/// One lost picture in so many is worth a word.
const LOST_SHARE: u64 = 50;

/// Waits beyond these are worth a word.
const TRANSCODE_LATE_MS: u64 = 300;
const PLAYER_LATE_MS: u64 = 2_000;

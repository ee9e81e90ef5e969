//! What `/api/v1/streams` tells.

use std::time::Instant;

use serde::Serialize;

use super::admission::Reader;
use super::health::{self, Facts, Held, Warning};
use super::rtmp::Playing;
use super::sessions::PeerRole;
use super::{Connection, Gateway};
use crate::hub::{Stream, Track};
use crate::ids::{PeerId, StreamId};
use crate::media::{Codec, MediaTime, TrackConfig};
use crate::signaling::conversations::{CallReport, RoomReport, Sizes};

/// The answer to `GET /api/v1/streams`.
#[derive(Debug, Serialize)]
pub(super) struct StreamList {
    /// Where to publish and play by RTMP; the host is the one this was asked of.
    rtmp_port: u16,
    streams: Vec<StreamInfo>,
}

/// One stream from ingest to its players.
#[derive(Debug, Serialize)]
pub(super) struct StreamInfo {
    pub(super) name: String,
    app: String,
    stream: String,
    /// `null` while players wait for the publisher to (re)appear.
    publisher: Option<PublisherInfo>,
    tracks: Vec<TrackInfo>,
    players: Players,
    transcode: TranscodeInfo,
    cache: CacheInfo,
    held: Held,
    /// What is wrong with it, and the cure.
    warnings: Vec<Warning>,
    #[serde(skip_serializing_if = "Option::is_none")]
    player_list: Option<Vec<PlayerInfo>>,
}

#[derive(Debug, Serialize)]
struct PublisherInfo {
    protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    uptime_s: f64,
    silent_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ingest: Option<IngestInfo>,
}

/// What went wrong on the way in.
#[derive(Debug, Default, Serialize)]
struct IngestInfo {
    malformed: u64,
    timestamp_jumps: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtp: Option<RtpInfo>,
}

#[derive(Debug, Serialize)]
struct RtpInfo {
    round_trip_ms: Option<f64>,
    frames: u64,
    frames_dropped: u64,
    holes: u64,
    audio_packets_lost: u64,
    /// How far the picture is still ahead of the sound by the sender reports.
    skew_ms: Option<i64>,
    /// How far the picture and the sound were moved so far, to be in sync.
    video_correction_ms: i64,
    audio_correction_ms: i64,
    absurd_sender_reports: u64,
    /// How long a lost packet is waited for at present.
    picture_wait_ms: u64,
    sound_wait_ms: u64,
}

#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum TrackInfo {
    Video {
        codec: &'static str,
        profile: &'static str,
        level: String,
        width: u32,
        height: u32,
        fps: f64,
        bitrate_bps: u64,
        gop_ms: Option<i64>,
        /// From the last key frame to the newest picture.
        since_key_ms: Option<i64>,
        key_frames: u64,
        b_frames: u64,
        /// Pictures that browsers did not get because of them.
        b_frames_dropped: u64,
        /// What is wrong, and its cure.
        #[serde(skip_serializing_if = "Option::is_none")]
        advice: Option<&'static str>,
    },
    Audio {
        codec: &'static str,
        sample_rate_hz: u32,
        channels: u8,
        bitrate_bps: u64,
    },
}

#[derive(Debug, Serialize)]
struct Players {
    rtmp: usize,
    whep: usize,
}

#[derive(Debug, Serialize)]
struct TranscodeInfo {
    aac_to_opus: bool,
    opus_to_aac: bool,
    queue: usize,
    bitrate_bps: u64,
    /// How far the sound's timestamps are ahead of its samples, and how much of that was
    /// made good so far by stretching them.
    offset_ms: f64,
    correction_ms: f64,
}

#[derive(Debug, Serialize)]
struct CacheInfo {
    gop_bytes: usize,
    gop_ms: i64,
    bytes: usize,
}

#[derive(Debug, Serialize)]
struct PlayerInfo {
    id: String,
    protocol: &'static str,
    client: String,
    uptime_s: f64,
    lag_ms: i64,
    skips: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    queued_bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    round_trip_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_frame_requests: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replays: Option<u64>,
    /// What the path to it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<PathInfo>,
}

/// How much of a stream a viewer's path carries.
#[derive(Debug, Serialize)]
struct PathInfo {
    /// "all", "thinned", "sound" or "nothing".
    gets: &'static str,
    /// What it is thought to carry while that is not all.
    budget_bps: Option<u64>,
    /// Of the last reports.
    loss_percent: Option<f64>,
    packets_repeated: u64,
    /// Times that it did not carry all.
    times_thinned: u64,
    /// Pictures, and sounds, left out for it.
    left_out: u64,
}

/// The answer to `GET /api/v1/rooms`.
#[derive(Debug, Serialize)]
pub(super) struct RoomList {
    rooms: Vec<RoomReport>,
    /// How much there is of everything.
    totals: Sizes,
}

/// The answer to `GET /api/v1/calls`.
#[derive(Debug, Serialize)]
pub(super) struct CallList {
    calls: Vec<CallReport>,
    totals: Sizes,
}

impl Gateway {
    /// All rooms.
    pub(super) fn api_rooms(&self, now: Instant) -> RoomList {
        RoomList {
            rooms: self.conversations.rooms(now),
            totals: self.conversations.sizes(),
        }
    }

    /// All calls.
    pub(super) fn api_calls(&self, now: Instant) -> CallList {
        CallList {
            calls: self.conversations.calls(now),
            totals: self.conversations.sizes(),
        }
    }

    /// All streams, by name.
    pub(super) fn api_streams(&mut self, now: Instant, reader: &Reader) -> StreamList {
        let streams = self
            .hub
            .sorted()
            .into_iter()
            .filter(|(_, stream)| reader.sees(&stream.key))
            .map(|(id, stream)| self.stream_info(now, id, stream, reader))
            .collect();
        StreamList {
            rtmp_port: self.config.rtmp.listen.port(),
            streams,
        }
    }

    /// The streams that have a publisher.
    pub(super) fn api_published(&self, now: Instant) -> Vec<StreamInfo> {
        let streams = self.hub.sorted().into_iter();
        streams
            .filter(|(_, stream)| stream.publisher.is_some())
            .map(|(id, stream)| self.stream_info(now, id, stream, &Reader::Operator))
            .collect()
    }

    /// Everything about one stream, from ingest to each player.
    pub(super) fn api_stream(
        &mut self,
        now: Instant,
        name: &str,
        reader: &Reader,
    ) -> Option<StreamInfo> {
        let id = self.hub.find(name).filter(|_| reader.sees(name))?;
        if !reader.sees_clients() {
            return Some(self.stream_info(now, id, self.hub.get(id)?, reader));
        }
        let players = self.hub.get(id)?.players().collect::<Vec<_>>();
        let list = players
            .into_iter()
            .filter_map(|p| self.player_info(now, id, p))
            .collect();
        let mut info = self.stream_info(now, id, self.hub.get(id)?, reader);
        info.player_list = Some(list);
        Some(info)
    }

    fn stream_info(
        &self,
        now: Instant,
        id: StreamId,
        stream: &Stream,
        reader: &Reader,
    ) -> StreamInfo {
        let (app, name) = stream.key.rsplit_once('/').unwrap_or(("", &stream.key));
        let pipeline = self.transcoding.of_stream(id);
        let target = pipeline.map(|pipeline| pipeline.target);
        let ingest = stream
            .publisher
            .as_ref()
            .and_then(|publisher| self.ingest_info(publisher.peer));
        let held = self.held(now, id, stream);
        let facts = Facts {
            now,
            stream,
            held: &held,
            timestamp_jumps: ingest.as_ref().map_or(0, |ingest| ingest.timestamp_jumps),
            malformed: ingest.as_ref().map_or(0, |ingest| ingest.malformed),
            frames: ingest
                .as_ref()
                .and_then(|ingest| ingest.rtp.as_ref())
                .map(|rtp| (rtp.frames, rtp.frames_dropped)),
            thinned: self.thinned_viewers(stream),
        };
        StreamInfo {
            warnings: health::warnings(&facts),
            held,
            name: stream.key.to_string(),
            app: app.to_owned(),
            stream: name.to_owned(),
            publisher: stream.publisher.as_ref().map(|publisher| PublisherInfo {
                protocol: publisher.protocol,
                client: reader.sees_clients().then(|| publisher.client.clone()),
                user: publisher.user.clone().filter(|_| reader.sees_clients()),
                uptime_s: seconds(now, publisher.since),
                silent_ms: now.duration_since(publisher.last_media).as_millis() as u64,
                ingest,
            }),
            tracks: [&stream.video, &stream.audio]
                .into_iter()
                .flatten()
                .map(|track| track_info(now, stream, track))
                .collect(),
            players: Players {
                rtmp: stream.rtmp_players(),
                whep: stream.webrtc_players(),
            },
            transcode: TranscodeInfo {
                aac_to_opus: target == Some(Codec::Opus),
                opus_to_aac: target == Some(Codec::Aac),
                queue: pipeline.map_or(0, |pipeline| pipeline.pending),
                offset_ms: pipeline.map_or(0.0, |pipeline| in_ms(pipeline.sync.ahead)),
                correction_ms: pipeline.map_or(0.0, |pipeline| in_ms(pipeline.sync.corrected)),
                bitrate_bps: stream
                    .transcoded
                    .as_ref()
                    .map_or(0, |track| track.meter.rate(now).bits_per_second),
            },
            cache: CacheInfo {
                gop_bytes: stream.ring.gop_bytes(),
                gop_ms: stream
                    .ring
                    .gop_start()
                    .map_or(0, |start| stream.ring.lag(start).as_millis()),
                bytes: stream.ring.bytes(),
            },
            player_list: None,
        }
    }

    fn ingest_info(&self, peer: PeerId) -> Option<IngestInfo> {
        match peer {
            PeerId::Rtmp {
                conn,
                message_stream,
            } => {
                let Connection::Rtmp(rtmp) = self.connections.get(&conn)? else {
                    return None;
                };
                let ingest = rtmp.ingest(message_stream)?;
                Some(IngestInfo {
                    malformed: ingest.malformed,
                    timestamp_jumps: ingest.timestamp_jumps(),
                    rtp: None,
                })
            }
            PeerId::Webrtc(session) => {
                let peer = self.sessions.get(&session)?;
                let PeerRole::Publisher(ingest) = &peer.role else {
                    return None;
                };
                let video = ingest.video_counters();
                Some(IngestInfo {
                    malformed: ingest.malformed + video.malformed,
                    timestamp_jumps: ingest.timestamp_jumps(),
                    rtp: Some(RtpInfo {
                        round_trip_ms: peer.round_trip_ms(),
                        frames: video.frames,
                        frames_dropped: video.dropped,
                        holes: video.holes,
                        audio_packets_lost: ingest.audio_lost,
                        skew_ms: ingest.skew().map(|skew| skew.as_millis_rounded()),
                        video_correction_ms: ingest.corrections().0.as_millis_rounded(),
                        audio_correction_ms: ingest.corrections().1.as_millis_rounded(),
                        absurd_sender_reports: ingest.absurd_reports(),
                        picture_wait_ms: ingest.waits().0.as_millis() as u64,
                        sound_wait_ms: ingest.waits().1.as_millis() as u64,
                    }),
                })
            }
        }
    }

    fn player_info(&mut self, now: Instant, id: StreamId, player: PeerId) -> Option<PlayerInfo> {
        let stream = self.hub.get(id)?;
        match player {
            PeerId::Rtmp {
                conn,
                message_stream,
            } => {
                let Connection::Rtmp(rtmp) = self.connections.get_mut(&conn)? else {
                    return None;
                };
                let queued = rtmp.session.transmit().len();
                let is_it = |playing: &&Playing| playing.message_stream == message_stream;
                let playing = rtmp.playing.iter().find(is_it)?;
                Some(PlayerInfo {
                    id: conn.to_string(),
                    protocol: "rtmp",
                    client: rtmp.peer.to_string(),
                    uptime_s: seconds(now, playing.since),
                    lag_ms: playing.player.lag(stream).as_millis(),
                    skips: playing.player.skips,
                    queued_bytes: Some(queued),
                    round_trip_ms: None,
                    key_frame_requests: None,
                    replays: None,
                    path: None,
                })
            }
            PeerId::Webrtc(session) => {
                let peer = self.sessions.get(&session)?;
                let PeerRole::Viewer(viewer) = &peer.role else {
                    return None;
                };
                Some(PlayerInfo {
                    id: session.to_string(),
                    protocol: "whep",
                    client: peer.client.to_string(),
                    uptime_s: seconds(now, peer.since),
                    lag_ms: viewer.lag(stream).as_millis(),
                    skips: viewer.skips,
                    queued_bytes: None,
                    round_trip_ms: peer.round_trip_ms(),
                    key_frame_requests: Some(peer.keyframe_requests),
                    replays: Some(viewer.replays),
                    path: Some(PathInfo {
                        gets: viewer.level().name(),
                        budget_bps: viewer.budget_bps(),
                        loss_percent: peer
                            .session
                            .loss()
                            .map(|loss| rounded(f64::from(loss) * 1e2)),
                        packets_repeated: peer.session.repeated(),
                        times_thinned: viewer.times_thinned(),
                        left_out: viewer.thinned,
                    }),
                })
            }
        }
    }
}

/// Milliseconds with one decimal.
fn in_ms(time: MediaTime) -> f64 {
    (time.as_secs_f64() * 1e4).round() / 10.0
}

/// Seconds since then, to the tenth.
fn seconds(now: Instant, since: Instant) -> f64 {
    (now.duration_since(since).as_secs_f64() * 10.0).round() / 10.0
}

/// To the hundredth.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn track_info(now: Instant, stream: &Stream, track: &Track) -> TrackInfo {
    let rate = track.meter.rate(now);
    match &*track.config {
        TrackConfig::H264(config) => {
            let info = config.info();
            TrackInfo::Video {
                codec: "H264",
                profile: info.profile_name(),
                level: format!("{}.{}", info.level_idc / 10, info.level_idc % 10),
                width: info.width,
                height: info.height,
                fps: rounded(rate.frames_per_second),
                bitrate_bps: rate.bits_per_second,
                gop_ms: stream.health.gop.map(|gop| gop.as_millis_rounded()),
                since_key_ms: stream
                    .ring
                    .newest_picture()
                    .and_then(|newest| stream.health.since_key(newest.frame.dts))
                    .map(MediaTime::as_millis_rounded),
                key_frames: stream.health.key_frames,
                b_frames: stream.health.b_frames,
                b_frames_dropped: stream.health.b_frames_dropped,
                advice: stream.health.b_frames_advice,
            }
        }
        TrackConfig::Aac(config) => TrackInfo::Audio {
            codec: "AAC",
            sample_rate_hz: config.output_sample_rate_hz(),
            channels: config.output_channels(),
            bitrate_bps: rate.bits_per_second,
        },
        TrackConfig::Opus { channels } => TrackInfo::Audio {
            codec: "Opus",
            sample_rate_hz: crate::codec::opus::SAMPLE_RATE_HZ,
            channels: *channels,
            bitrate_bps: rate.bits_per_second,
        },
    }
}

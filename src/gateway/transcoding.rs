//! [`Transcoding`]: which streams' sound is transcoded now, and by which worker.
//!
//! A pipeline exists only while somebody needs it, once for a stream. All its jobs go to
//! the one worker it was given, the least busy one at the time.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Output;
use crate::codec::aac::AudioSpecificConfig;
use crate::hub::Stream;
use crate::ids::StreamId;
use crate::media::{Codec, Frame, MediaTime, TrackConfig};
use crate::transcode::{AacSettings, Job, OpusSettings, PipelineId, Spec, Sync, Work};

/// How sound is transcoded.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Towards WebRTC.
    pub opus: OpusSettings,
    /// Towards RTMP.
    pub aac: AacSettings,
    /// How long a pipeline goes on after its last listener left.
    pub idle_stop: Duration,
    /// How many workers there are.
    pub workers: usize,
}

/// The pipelines of all streams.
#[derive(Debug)]
pub struct Transcoding {
    pipelines: HashMap<PipelineId, Pipeline>,
    by_stream: HashMap<StreamId, PipelineId>,
    /// Pipelines of each worker.
    load: Vec<usize>,
    next: u64,
    settings: Settings,
}

/// One stream's pipeline.
#[derive(Debug)]
pub struct Pipeline {
    /// Whose sound it is.
    pub stream: StreamId,
    /// What it makes.
    pub target: Codec,
    /// The worker that has it.
    pub worker: usize,
    /// Jobs handed out and not come back.
    pub pending: usize,
    /// How its input's timestamps stood to the samples after the last job.
    pub sync: Sync,
    source: Arc<TrackConfig>,
    fed: Instant,
    idle_since: Option<Instant>,
    /// When it was last opened anew after a failure, and how often in a row.
    reopened: Option<(Instant, u32)>,
}

impl Transcoding {
    /// No pipelines.
    pub fn new(settings: Settings) -> Self {
        Self {
            pipelines: HashMap::new(),
            by_stream: HashMap::new(),
            load: vec![0; settings.workers.max(1)],
            next: 1,
            settings,
        }
    }

    /// Starts or lets go the pipeline of `stream`, as its players and its sound demand.
    /// Answers when to look again.
    pub fn review(
        &mut self,
        now: Instant,
        id: StreamId,
        stream: &mut Stream,
        out: &mut VecDeque<Output>,
    ) -> Option<Instant> {
        let target = stream.transcode_target();
        if let Some(pipeline_id) = self.by_stream.get(&id).copied() {
            let pipeline = self
                .pipelines
                .get_mut(&pipeline_id)
                .expect("both maps agree");
            if target == Some(pipeline.target) {
                pipeline.idle_since = None;
                return self.advance(now, pipeline_id, stream, out);
            }
            let since = *pipeline.idle_since.get_or_insert(now);
            let stop = since + self.settings.idle_stop;
            if target.is_none() && stream.publisher.is_some() && now < stop {
                return Some(stop);
            }
            self.close(id, out);
            stream.end_transcoded();
        }
        let target = target?;
        let source = match &stream.audio {
            Some(track) => track.config.clone(),
            None => {
                // Announced and not come: silence is made for it after a while.
                let publisher = stream.publisher.as_ref()?;
                let patience = publisher.since + SILENCE_FOR_ABSENT_AFTER;
                if now < patience {
                    return Some(patience);
                }
                Arc::new(TrackConfig::Opus { channels: 1 })
            }
        };
        self.open(now, id, stream, target, source, out);
        Some(now + ADVANCE_INTERVAL)
    }

    /// Hands a published frame to the stream's pipeline, if there is one.
    pub fn feed(
        &mut self,
        now: Instant,
        id: StreamId,
        stream: &Stream,
        frame: &Frame,
        out: &mut VecDeque<Output>,
    ) -> bool {
        let Some(pipeline_id) = self.by_stream.get(&id).copied() else {
            return true;
        };
        let pipeline = self
            .pipelines
            .get_mut(&pipeline_id)
            .expect("both maps agree");
        if pipeline.idle_since.is_some() {
            return true;
        }
        let Some(track) = &stream.audio else {
            return true;
        };
        if pipeline.pending >= PENDING_MAX {
            return false;
        }
        pipeline.fed = now;
        if !Arc::ptr_eq(&pipeline.source, &track.config) {
            pipeline.source = track.config.clone();
            if let Some(spec) = spec(&track.config, &self.settings) {
                pipeline.submit(pipeline_id, Work::Reconfigure(Box::new(spec)), out);
            }
        }
        pipeline.submit(pipeline_id, Work::Frame(frame.clone()), out);
        true
    }

    /// A job came back; answers the stream that it is for.
    pub fn completed(&mut self, id: PipelineId, sync: Sync) -> Option<(StreamId, Codec)> {
        let pipeline = self.pipelines.get_mut(&id)?;
        pipeline.pending = pipeline.pending.saturating_sub(1);
        pipeline.sync = sync;
        Some((pipeline.stream, pipeline.target))
    }

    /// A worker had no room for a job.
    pub fn refused(&mut self, id: PipelineId) {
        if let Some(pipeline) = self.pipelines.get_mut(&id) {
            pipeline.pending = pipeline.pending.saturating_sub(1);
        }
    }

    /// A job failed as a whole: its codec crashed, or could not be had. Opens the pipeline anew,
    /// ever more rarely while that does not help; answers whether it did.
    pub fn failed(&mut self, now: Instant, id: PipelineId, out: &mut VecDeque<Output>) -> bool {
        let Some(pipeline) = self.pipelines.get_mut(&id) else {
            return false;
        };
        let failures = match pipeline.reopened {
            None => 0,
            Some((at, failures)) => {
                let worked = now.saturating_duration_since(at);
                let wait = REOPEN_INTERVAL * (1 << failures.min(REOPEN_DOUBLINGS_MAX));
                if worked < wait {
                    return false;
                }
                if worked < REOPEN_FORGIVEN {
                    failures + 1
                } else {
                    0
                }
            }
        };
        let Some(spec) = spec(&pipeline.source, &self.settings) else {
            return false;
        };
        pipeline.reopened = Some((now, failures));
        pipeline.submit(id, Work::Open(Box::new(spec)), out);
        true
    }

    /// The pipeline of a stream.
    pub fn of_stream(&self, id: StreamId) -> Option<&Pipeline> {
        self.pipelines.get(self.by_stream.get(&id)?)
    }

    /// How many pipelines there are.
    pub fn len(&self) -> usize {
        self.pipelines.len()
    }

    /// Jobs handed out and not come back, of all pipelines.
    pub fn pending(&self) -> usize {
        self.pipelines
            .values()
            .map(|pipeline| pipeline.pending)
            .sum()
    }

    /// Ends the pipeline of a stream.
    pub fn close(&mut self, id: StreamId, out: &mut VecDeque<Output>) {
        let Some(pipeline_id) = self.by_stream.remove(&id) else {
            return;
        };
        if let Some(mut pipeline) = self.pipelines.remove(&pipeline_id) {
            self.load[pipeline.worker] -= 1;
            pipeline.submit(pipeline_id, Work::Close, out);
        }
    }

    fn open(
        &mut self,
        now: Instant,
        id: StreamId,
        stream: &mut Stream,
        target: Codec,
        source: Arc<TrackConfig>,
        out: &mut VecDeque<Output>,
    ) {
        let Some(spec) = spec(&source, &self.settings) else {
            return;
        };
        // What comes out is known before it does, so that players can be told at once.
        let config = match (target, &*source) {
            (Codec::Opus, TrackConfig::Aac(config)) => Some(TrackConfig::Opus {
                channels: config.output_channels().min(2),
            }),
            (Codec::Aac, TrackConfig::Opus { channels }) => {
                AudioSpecificConfig::lc(OPUS_RATE_HZ, *channels)
                    .ok()
                    .map(TrackConfig::Aac)
            }
            _ => None,
        };
        let Some(config) = config else { return };
        stream.configure_transcoded(config);
        let worker = (0..self.load.len())
            .min_by_key(|worker| self.load[*worker])
            .expect("there is at least one worker");
        let pipeline_id = PipelineId(self.next);
        self.next += 1;
        self.load[worker] += 1;
        let mut pipeline = Pipeline {
            stream: id,
            target,
            worker,
            pending: 0,
            sync: Sync::default(),
            source,
            fed: now,
            idle_since: None,
            reopened: None,
        };
        pipeline.submit(pipeline_id, Work::Open(Box::new(spec)), out);
        self.pipelines.insert(pipeline_id, pipeline);
        self.by_stream.insert(id, pipeline_id);
        log::debug!(
            "{}: transcoding sound to {target} on worker {worker}",
            stream.key
        );
    }

    /// RTMP players stop when a track stops, so silence goes on for sound that does not come.
    fn advance(
        &mut self,
        now: Instant,
        pipeline_id: PipelineId,
        stream: &Stream,
        out: &mut VecDeque<Output>,
    ) -> Option<Instant> {
        let pipeline = self.pipelines.get_mut(&pipeline_id)?;
        if pipeline.target != Codec::Aac {
            return None;
        }
        let silent_for = now.saturating_duration_since(pipeline.fed);
        if silent_for >= SILENT_AFTER
            && pipeline.pending < PENDING_MAX
            && stream.publisher.is_some()
            && stream.has_clock()
        {
            let to = stream.live(now) - MediaTime::from_duration(SILENCE_BEHIND_LIVE);
            pipeline.submit(pipeline_id, Work::Advance(to), out);
        }
        Some(now + ADVANCE_INTERVAL)
    }
}

impl Pipeline {
    /// Whether it is at work, and on this.
    pub fn makes(&self, target: Codec) -> bool {
        self.target == target && self.idle_since.is_none()
    }

    fn submit(&mut self, id: PipelineId, work: Work, out: &mut VecDeque<Output>) {
        if !matches!(work, Work::Close) {
            self.pending += 1;
        }
        out.push_back(Output::Transcode {
            worker: self.worker,
            job: Job { pipeline: id, work },
        });
    }
}

fn spec(source: &TrackConfig, settings: &Settings) -> Option<Spec> {
    match source {
        TrackConfig::Aac(config) => Some(Spec::AacToOpus {
            config: config.clone(),
            settings: settings.opus,
        }),
        TrackConfig::Opus { channels } => Some(Spec::OpusToAac {
            channels: *channels,
            settings: settings.aac,
        }),
        TrackConfig::H264(_) => None,
    }
}

/// Opus decodes to this rate, and AAC is made at it.
const OPUS_RATE_HZ: u32 = 48_000;

/// How often a pipeline is looked after.
const ADVANCE_INTERVAL: Duration = Duration::from_millis(100);

/// Sound that did not come for this long is filled in: longer than any jitter buffer of
/// ours holds a packet back.
const SILENT_AFTER: Duration = Duration::from_millis(250);

/// Silence ends this far behind the live point, so that sound that resumes finds its place.
const SILENCE_BEHIND_LIVE: Duration = Duration::from_millis(200);

/// A publisher that announced sound and sent none for this long is taken for silent.
const SILENCE_FOR_ABSENT_AFTER: Duration = Duration::from_millis(500);

/// Jobs of one stream that a worker may have at once, above a second of sound. A publisher
/// that sends its sound faster than it can be transcoded loses the rest and leaves
/// room in the worker's queue for the others.
const PENDING_MAX: usize = 64;

/// The wait between the first two attempts to open a pipeline anew; it doubles each time, up to
/// a minute. A frame that crashes its worker takes the worker's other pipelines with it,
/// so whoever sends such frames gets few chances to do so.
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);
const REOPEN_DOUBLINGS_MAX: u32 = 6;

/// A pipeline that worked for so long begins to count anew.
const REOPEN_FORGIVEN: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Holder;
    use crate::hub::{Announced, Hub, Limits, Publisher, RingLimits};
    use crate::ids::{PeerId, SessionId};

    const SETTINGS: Settings = Settings {
        opus: OpusSettings {
            bitrate_mono_bps: 64_000,
            bitrate_stereo_bps: 96_000,
            complexity: 5,
        },
        aac: AacSettings {
            bitrate_mono_bps: 64_000,
            bitrate_stereo_bps: 128_000,
        },
        idle_stop: Duration::from_secs(2),
        workers: 1,
    };

    fn opened(out: &mut VecDeque<Output>) -> Vec<PipelineId> {
        out.drain(..)
            .filter_map(|output| match output {
                Output::Transcode {
                    job:
                        Job {
                            pipeline,
                            work: Work::Open(_),
                        },
                    ..
                } => Some(pipeline),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn a_pipeline_that_crashed_is_opened_anew_and_not_too_often() {
        let now = Instant::now();
        let mut hub = Hub::new(Limits {
            streams_max: 1,
            takeover_silence: Duration::ZERO,
            publisher_grace: Duration::ZERO,
            ring: RingLimits {
                gop_duration: Duration::ZERO,
                gop_bytes: 0,
                gop_frames: 0,
                queue_duration: Duration::ZERO,
                queue_bytes: 0,
            },
        });
        let publisher = Publisher {
            peer: PeerId::Webrtc(SessionId(1)),
            user: None,
            holder: Holder::default(),
            protocol: "rtmp",
            client: String::new(),
            since: now,
            last_media: now,
        };
        let (id, _) = hub
            .claim("live/a", publisher, Announced::default())
            .expect("free");
        let stream = hub.get_mut(id).expect("claimed");
        let config = AudioSpecificConfig::lc(48_000, 2).expect("in range");
        stream.configure(TrackConfig::Aac(config));
        stream.add_player(PeerId::Webrtc(SessionId(2)));
        let mut transcoding = Transcoding::new(SETTINGS);
        let mut out = VecDeque::new();
        transcoding.review(now, id, stream, &mut out);
        let pipeline = opened(&mut out)[0];
        // Every frame of 20 ms fails for five minutes.
        let mut attempts = Vec::new();
        for n in 0..15_000 {
            let at = Duration::from_millis(20) * n;
            if transcoding.failed(now + at, pipeline, &mut out) {
                attempts.push(at.as_secs());
            }
        }
        assert_eq!(attempts, [0, 1, 3, 7, 15, 31, 63, 127, 191, 255]);
        assert_eq!(opened(&mut out).len(), attempts.len());
        assert!(
            !transcoding.failed(now, PipelineId(9), &mut out),
            "closed meanwhile"
        );
    }
}

//! A browser's [`Screen`], and the [`Figures`] by which a person would judge it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rtmp_gateway::rtp::frame_assembler::{FrameAssembler, Limits, Output, Packet};

use super::browser::{Kind, Seen};
use super::world::World;

/// A picture or a sound on its way: when it was sent, and when it arrived.
pub type Trip = (Instant, Option<Instant>);

/// What a player got.
#[derive(Debug, Default)]
pub struct Figures {
    /// Share of the pictures sent.
    pub delivered: f64,
    /// Pauses of the picture beyond [`FREEZE`].
    pub freezes: usize,
    /// The longest of them, in ms.
    pub longest: u128,
    /// Mean time in ms from when the first missing picture was due to the next one shown: both
    /// are taken as if the path took as long as for the quickest picture.
    pub recovery: u128,
    /// Later than the least delayed picture, in ms: half of them and one in a hundred.
    pub late: (u128, u128),
    /// Share of the sound that was made up.
    pub concealed: f64,
    /// Later than the least delayed sound, in ms: one in a hundred.
    pub sound_late: u128,
    /// Key frames asked of the publisher, or by the viewer.
    pub asked: usize,
}

impl Figures {
    /// Of what was sent in a time; the sounds that never came are for the caller to count.
    pub fn of(pictures: &[Trip], sounds: &[Trip]) -> Self {
        let arrivals: Vec<Instant> = pictures.iter().filter_map(|(_, at)| *at).collect();
        let pauses = arrivals.windows(2).map(|pair| pair[1] - pair[0]);
        let pauses: Vec<Duration> = pauses.filter(|pause| *pause > FREEZE).collect();
        let trips = pictures
            .iter()
            .filter_map(|(sent, at)| Some(at.as_ref()?.duration_since(*sent)));
        let quickest = trips.min().unwrap_or_default();
        let mut recoveries = Vec::new();
        let mut lost_since = None;
        for (sent, arrived) in pictures {
            match (arrived, lost_since) {
                (None, None) => lost_since = Some(*sent + quickest),
                (Some(at), Some(since)) => {
                    recoveries.push(at.saturating_duration_since(since));
                    lost_since = None;
                }
                _ => {}
            }
        }
        let total: Duration = recoveries.iter().sum();
        let late = lateness(pictures);
        Self {
            delivered: arrivals.len() as f64 / pictures.len().max(1) as f64,
            freezes: pauses.len(),
            longest: pauses.iter().max().map_or(0, Duration::as_millis),
            recovery: total.as_millis() / recoveries.len().max(1) as u128,
            late: (at_share(&late, 0.5), at_share(&late, 0.99)),
            concealed: 0.0,
            sound_late: at_share(&lateness(sounds), 0.99),
            asked: 0,
        }
    }

    /// Of what a viewer saw and heard of the times `from` to `until`, each taken as due when the
    /// least delayed one would have arrived.
    pub fn of_viewer(
        world: &World,
        viewer: usize,
        screen: &Screen,
        span: (Instant, Instant),
    ) -> Self {
        let in_span = |(due, _): &Trip| (span.0..span.1).contains(due);
        let pictures = trips(&screen.shown, 90_000, 3_600);
        let pictures: Vec<Trip> = pictures.into_iter().filter(in_span).collect();
        let heard = world.browser(viewer).seen.iter();
        let heard: Vec<(Instant, u64)> = heard
            .filter_map(|(at, seen)| match seen {
                Seen::Rtp {
                    kind: Kind::Audio,
                    rtp_time,
                    ..
                } => Some((*at, *rtp_time)),
                _ => None,
            })
            .collect();
        let sounds = trips(&heard, 48_000, 960);
        let sounds: Vec<Trip> = sounds.into_iter().filter(in_span).collect();
        let missing = sounds.iter().filter(|(_, at)| at.is_none()).count();
        Self {
            concealed: missing as f64 / sounds.len().max(1) as f64,
            ..Self::of(&pictures, &sounds)
        }
    }
}

/// One trip for each `step` of the RTP clock, whether anything came of it or not. Pictures from a
/// cache are stamped between the steps: a step in which several came counts once.
fn trips(got: &[(Instant, u64)], rate_hz: u32, step: u64) -> Vec<Trip> {
    let base = got.iter().map(|(_, time)| *time).min().unwrap_or(0);
    let ticks = |time: u64| Duration::from_secs_f64(time as f64 / f64::from(rate_hz));
    // What comes last is live: half a step to both sides of its stamp is its step.
    let last = got.last().map_or(0, |(_, time)| time - base);
    let phase = last % step;
    let mut steps = BTreeMap::new();
    for (at, time) in got {
        let place = (time - base + step + step / 2 - phase) / step;
        steps.entry(place).or_insert((*at, time - base));
    }
    let zero = got.iter().map(|(at, time)| *at - ticks(time - base)).min();
    let (Some(zero), Some((first, _)), Some((end, _))) =
        (zero, steps.first_key_value(), steps.last_key_value())
    else {
        return Vec::new();
    };
    (*first..=*end)
        .map(|n| match steps.get(&n) {
            Some((at, time)) => (zero + ticks(*time), Some(*at)),
            None => (zero + ticks(n * step + phase - step), None),
        })
        .collect()
}

/// How much longer each took than the quickest one, sorted.
fn lateness(trips: &[Trip]) -> Vec<Duration> {
    let took = trips
        .iter()
        .filter_map(|(sent, arrived)| Some(arrived.as_ref()?.duration_since(*sent)));
    let mut took: Vec<Duration> = took.collect();
    took.sort_unstable();
    let least = took.first().copied().unwrap_or_default();
    took.iter().map(|took| *took - least).collect()
}

fn at_share(sorted: &[Duration], share: f64) -> u128 {
    let at = (sorted.len() as f64 * share) as usize;
    sorted.get(at).map_or(0, Duration::as_millis)
}

/// A browser's screen: whole pictures in order, none that refers to a lost one.
pub struct Screen {
    assembler: FrameAssembler,
    looked_at: usize,
    /// When, and with what RTP time.
    pub shown: Vec<(Instant, u64)>,
}

impl Screen {
    pub fn new(rtt: Duration) -> Self {
        let mut assembler = FrameAssembler::new(Limits::default());
        assembler.set_rtt(rtt);
        Self {
            assembler,
            looked_at: 0,
            shown: Vec::new(),
        }
    }

    /// Runs the world while the screen looks every 5 ms, and asks for a key frame when it needs
    /// one. Answers how often it asked.
    pub fn run_ms(&mut self, world: &mut World, viewer: usize, ms: u64) -> usize {
        let mut asked = 0;
        for _ in 0..ms / 5 {
            world.run_ms(5);
            if self.look(world, viewer) {
                asked += 1;
                world.request_keyframe(viewer);
            }
        }
        asked
    }

    /// Takes what came; answers whether a key frame is to be asked for.
    fn look(&mut self, world: &World, viewer: usize) -> bool {
        let seen = &world.browser(viewer).seen;
        for (at, seen) in seen.iter().skip(self.looked_at) {
            if let Seen::Rtp {
                kind: Kind::Video,
                sequence,
                rtp_time,
                marker,
                payload,
                ..
            } = seen
            {
                let packet = Packet {
                    sequence: *sequence,
                    rtp_time: *rtp_time,
                    marker: *marker,
                    payload: bytes::Bytes::copy_from_slice(payload),
                };
                self.assembler.push(*at, packet);
            }
        }
        self.looked_at = seen.len();
        self.assembler.handle_timeout(world.now);
        let mut asks = false;
        while let Some(output) = self.assembler.poll(world.now) {
            match output {
                Output::AccessUnit { rtp_time, .. } => self.shown.push((world.now, rtp_time)),
                Output::KeyframeNeeded { .. } => asks = true,
                _ => {}
            }
        }
        asks
    }
}

/// A pause that a person notices: the statistics of browsers take it for a freeze (three
/// times the usual distance, and 150 ms more than it).
pub const FREEZE: Duration = Duration::from_millis(190);

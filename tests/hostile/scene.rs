//! [`Scene`]: a gateway at work for innocent people, and the proof that they go unharmed.

use std::collections::BTreeMap;
use std::time::Duration;

use rtmp_gateway::config::Config;
use rtmp_gateway::gateway::{ConnId, Listener};

use crate::common::browser::{Kind, Seen};
use crate::common::clip::{AUDIO, VIDEO};
use crate::common::world::{World, media};
use crate::hostile::speaker::Speaker;

/// An RTMP publisher with an RTMP player and a browser as viewer; and a browser as publisher
/// with an RTMP player.
pub struct Scene {
    pub world: World,
    publisher: ConnId,
    player: ConnId,
    viewer: usize,
    camera: usize,
    camera_player: ConnId,
}

impl Scene {
    pub fn new() -> Self {
        Self::with_config(Config::default())
    }

    pub fn with_config(config: Config) -> Self {
        let mut world = World::with_config(config);
        let publisher = world.rtmp_publish("live/innocent");
        let camera = world.whip("live/camera").expect("taken");
        world.run_ms(500);
        let player = world.rtmp_play("live/innocent");
        let camera_player = world.rtmp_play("live/camera");
        let viewer = world.whep("live/innocent").expect("taken");
        world.run_ms(2_500);
        let scene = Self {
            world,
            publisher,
            player,
            viewer,
            camera,
            camera_player,
        };
        scene.assert_unharmed();
        scene
    }

    /// Everybody is still there and got everything, without a gap, up to now.
    pub fn assert_unharmed(&self) {
        for conn in [self.publisher, self.player, self.camera_player] {
            assert!(!self.world.rtmp_peer(conn).closed, "{conn} was closed");
        }
        let player = self.world.rtmp_peer(self.player);
        self.assert_steady("RTMP video", &stamps(player, VIDEO), 40..=40);
        self.assert_steady("RTMP audio", &stamps(player, AUDIO), 15..=30);
        let player = self.world.rtmp_peer(self.camera_player);
        self.assert_steady("camera video", &stamps(player, VIDEO), 38..=42);
        self.assert_steady("camera audio", &stamps(player, AUDIO), 20..=23);
        for (kind, step) in [(Kind::Video, 0..=10_000), (Kind::Audio, 960..=960)] {
            let seen = self.world.browser(self.viewer).seen.iter();
            let packets: Vec<_> = seen
                .filter_map(|(at, seen)| match seen {
                    Seen::Rtp {
                        kind: of,
                        sequence,
                        rtp_time,
                        ..
                    } if *of == kind => Some((*at, *sequence, *rtp_time)),
                    _ => None,
                })
                .collect();
            for pair in packets.windows(2) {
                assert_eq!(pair[1].1, pair[0].1 + 1, "{kind:?}: a packet is missing");
                assert!(
                    step.contains(&(pair[1].2 - pair[0].2)),
                    "{kind:?}: {pair:?}"
                );
            }
            let newest = packets.last().expect("media").0;
            let silent = self.world.now - newest;
            assert!(silent <= SILENCE_MAX, "{kind:?} stopped {silent:?} ago");
        }
        assert!(!self.closed(self.viewer) && !self.closed(self.camera));
    }

    fn closed(&self, browser: usize) -> bool {
        self.world
            .browser(browser)
            .seen
            .iter()
            .any(|(_, seen)| matches!(seen, Seen::Closed))
    }

    fn assert_steady(
        &self,
        what: &str,
        stamps: &[(std::time::Instant, u32)],
        step: std::ops::RangeInclusive<u32>,
    ) {
        for pair in stamps.windows(2) {
            let passed = pair[1].1.wrapping_sub(pair[0].1);
            assert!(
                step.contains(&passed),
                "{what}: {passed} ms after {}",
                pair[0].1
            );
        }
        let silent = self.world.now - stamps.last().expect("media").0;
        assert!(silent <= SILENCE_MAX, "{what} stopped {silent:?} ago");
    }

    /// What `/metrics` says: the value of each sample by its name with labels.
    pub fn metrics(&mut self) -> Metrics {
        metrics(&mut self.world)
    }
}

/// A connection that says what `speaker` has to say.
pub fn open(scene: &mut Scene, speaker: &mut Speaker) -> ConnId {
    let conn = scene.world.connect(Listener::Rtmp);
    scene.world.raw_send(conn, &speaker.take());
    conn
}

/// The samples of `/metrics` by name with labels.
pub struct Metrics(BTreeMap<String, f64>);

pub fn metrics(world: &mut World) -> Metrics {
    let answer = world.http("GET", "/metrics", &[], "");
    assert_eq!(answer.status, 200);
    let samples = answer.body.lines().filter(|line| !line.starts_with('#'));
    Metrics(
        samples
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(name, value)| (name.to_owned(), value.parse().expect("a number")))
            .collect(),
    )
}

impl Metrics {
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).map_or(0, |value| *value as u64)
    }

    /// What was refused or ended, for one reason.
    pub fn error(&self, reason: &str) -> u64 {
        self.get(&format!("rtmp_gateway_errors_total{{reason=\"{reason}\"}}"))
    }

    /// For all reasons.
    pub fn errors(&self) -> u64 {
        let errors = self
            .0
            .iter()
            .filter(|(name, _)| name.starts_with("rtmp_gateway_errors_total"));
        errors.map(|(_, value)| *value as u64).sum()
    }

    /// Open connections of a kind.
    pub fn connections(&self, kind: &str) -> u64 {
        self.get(&format!("rtmp_gateway_connections{{kind=\"{kind}\"}}"))
    }
}

fn stamps(peer: &crate::common::world::RtmpPeer, kind: u8) -> Vec<(std::time::Instant, u32)> {
    // The second byte of a sequence header is 0.
    let coded = media(peer, kind)
        .into_iter()
        .filter(|(_, _, body)| body.get(1) == Some(&1));
    coded.map(|(at, timestamp, _)| (at, timestamp)).collect()
}

/// A picture lasts 40 ms, an audio frame 23; some are on their way.
const SILENCE_MAX: Duration = Duration::from_millis(120);

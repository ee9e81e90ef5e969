//! Real clients on a bad network: a browser, then ffmpeg and rtmpdump, behind a link with
//! losses, delay, jitter, too little bandwidth, and none at all.
//!
//! In both stories ffmpeg publishes what the browser watches, while the browser publishes
//! what rtmpdump plays, as in a call. What is judged is what the two people would notice.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::GATEWAY;
use crate::support::rtmp_tools::Rtmpdump;
use crate::support::{
    Browser, Burst, Conditions, Gateway, Lab, Network, Order, Process, Source, Way, alone,
    analysis, flv, median, scratch_dir, wait_for,
};

/// Which leg is behind the bad link.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leg {
    Webrtc,
    Rtmp,
}

#[test]
fn a_browser_behind_a_bad_network_sees_and_is_seen() {
    alone(|| call(Leg::Webrtc));
}

#[test]
fn rtmp_clients_behind_a_bad_network_see_and_are_seen() {
    alone(|| call(Leg::Rtmp));
}

/// A laptop with a cable and a radio: one of its two paths is cut, and the same session
/// goes on by the other one.
#[test]
fn a_browser_with_two_paths_keeps_its_picture_when_one_is_cut() {
    alone(|| {
        let network = Network::new(2);
        for (link, way) in [(0, Way::Down), (0, Way::Up), (1, Way::Down), (1, Way::Up)] {
            network.set_way(link, way, good());
        }
        let gateway = Gateway::start_on(GATEWAY, "0.0.0.0", &[], "");
        let source = Source::default();
        let _publisher = source.publish(&gateway.rtmp("x"));
        gateway.wait_until_live("x");
        let whep = Network::from_far(&gateway.whep("x"));
        network.in_far(|| {
            let browser = Browser::start();
            let lab = Lab::open(&browser);
            lab.play("viewer", &whep);
            lab.wait_for_picture("viewer", Duration::from_secs(10));
            let selected = || lab.tab().eval(SELECTED).as_str().map(str::to_owned);
            let first = wait_for("a path is chosen", Duration::from_secs(5), selected);
            let cut = usize::from(first == Network::near_address(1));
            assert_eq!(first, Network::near_address(cut));
            thread::sleep(Duration::from_secs(1));
            lab.forget("viewer");
            let down = Conditions {
                is_up: false,
                ..good()
            };
            network.set_way(cut, Way::Down, down);
            network.set_way(cut, Way::Up, down);
            wait_for("the other path is chosen", PATH_FOUND_WITHIN, || {
                selected().filter(|address| *address == Network::near_address(1 - cut))
            });
            thread::sleep(Duration::from_secs(2));
            let before = lab.report("viewer");
            thread::sleep(WATCHED);
            let report = lab.report("viewer");
            let rate = report.picture_rate(&before);
            let stood_ms = report.number("/longestHoldMs");
            println!("the picture stood for {stood_ms:.0} ms, then {rate:.1} a second");
            assert!(rate > 18.0, "{rate} pictures a second by the other path");
            assert_eq!(report.text("/state"), "connected");
        });
    });
}

/// The gateway's address of the path that the browser has chosen.
const SELECTED: &str = r"lab.players.viewer.pc.getStats().then((stats) => {
  for (const entry of stats.values()) {
    if (entry.type === 'transport' && entry.selectedCandidatePairId) {
      return stats.get(stats.get(entry.selectedCandidatePairId).remoteCandidateId).address;
    }
  }
})";

/// Chromium takes up to some seconds to give a silent path up.
const PATH_FOUND_WITHIN: Duration = Duration::from_secs(12);

/// A span of the call under conditions of its own.
struct Phase {
    name: &'static str,
    conditions: Conditions,
    /// How long they hold.
    lasts: Duration,
    /// Whether the good network is back afterwards, and what comes then is judged too.
    then_recovers: bool,
    /// What is asked of pictures at each end, while it holds.
    limits: Limits,
}

/// What a person puts up with.
#[derive(Clone, Copy)]
struct Limits {
    /// The least part of the pictures of the good network.
    share: f64,
    /// The longest time the picture may stand.
    stood_ms: f64,
    /// How much later than on the good network the most punctual picture may come, besides
    /// what the browser itself keeps it back for ([`HELD_MAX_MS`]).
    late_ms: f64,
    /// The most between sound and picture, as a median.
    lip_sync_ms: f64,
}

const NO_LIMITS: Limits = Limits {
    share: 0.0,
    stood_ms: f64::INFINITY,
    late_ms: f64::INFINITY,
    lip_sync_ms: f64::INFINITY,
};

fn phases() -> [Phase; 5] {
    [
        Phase {
            name: "2 % loss, 40 ms round trip",
            conditions: Conditions {
                loss: 0.02,
                ..good()
            },
            lasts: Duration::from_secs(4),
            then_recovers: false,
            limits: Limits {
                share: 0.7,
                stood_ms: 700.0,
                late_ms: 400.0,
                lip_sync_ms: 400.0,
            },
        },
        Phase {
            name: "5 % loss in bursts, 100 ms round trip",
            conditions: Conditions {
                burst: Some(Burst {
                    loss: 0.05,
                    packets: 3.0,
                }),
                delay: Duration::from_millis(50),
                ..good()
            },
            lasts: Duration::from_secs(4),
            then_recovers: false,
            limits: Limits {
                share: 0.5,
                stood_ms: 1_200.0,
                late_ms: 800.0,
                lip_sync_ms: 400.0,
            },
        },
        Phase {
            name: "30 ms jitter, order mixed",
            conditions: Conditions {
                jitter: Duration::from_millis(30),
                order: Order::Mixed,
                duplicate: 0.01,
                ..good()
            },
            lasts: Duration::from_secs(4),
            then_recovers: false,
            limits: Limits {
                share: 0.7,
                stood_ms: 700.0,
                late_ms: 800.0,
                lip_sync_ms: 400.0,
            },
        },
        Phase {
            name: "too little bandwidth",
            conditions: Conditions {
                rate_bps: 500_000,
                queue_bytes_max: 32 << 10,
                ..good()
            },
            lasts: Duration::from_secs(8),
            then_recovers: true,
            limits: NO_LIMITS,
        },
        Phase {
            name: "nothing gets through",
            conditions: Conditions {
                is_up: false,
                ..good()
            },
            lasts: Duration::from_secs(3),
            then_recovers: true,
            limits: NO_LIMITS,
        },
    ]
}

/// Everyday internet.
fn good() -> Conditions {
    Conditions {
        delay: Duration::from_millis(20),
        ..Conditions::default()
    }
}

/// A person at the live edge.
const LIVE: Limits = Limits {
    share: 0.7,
    stood_ms: 800.0,
    late_ms: 600.0,
    lip_sync_ms: 600.0,
};

/// How much more than on the good network Chromium may keep pictures back after a stall. Its
/// jitter buffers grow with what they have seen, and shrink over a minute.
const HELD_MAX_MS: f64 = 1_500.0;

/// How long is watched where nothing else tells it.
const WATCHED: Duration = Duration::from_millis(2_500);

/// How soon after the network has recovered a player is to be at the live edge again.
const RECOVERY: Duration = Duration::from_secs(2);

fn call(leg: Leg) {
    let network = Network::new(1);
    network.set(good());
    let gateway = Gateway::start_on(GATEWAY, "0.0.0.0", &[], "");
    let source = Source {
        is_numbered: true,
        ..Source::default()
    };
    match leg {
        Leg::Webrtc => {
            let _publisher = source.publish(&gateway.rtmp("x"));
            let dump = Rtmpdump::play(&gateway.rtmp("cam"));
            gateway.wait_until_live("x");
            let whep = Network::from_far(&gateway.whep("x"));
            let whip = Network::from_far(&gateway.whip("cam"));
            network.in_far(|| {
                let browser = Browser::start();
                judge(&network, &browser, &whep, &whip, &dump);
            });
            assert_has_echoes(&gateway);
        }
        Leg::Rtmp => {
            let (_publisher, dump): (Process, Rtmpdump) = network.in_far(|| {
                let publisher = source.publish(&Network::from_far(&gateway.rtmp("x")));
                let dump = Rtmpdump::play(&Network::from_far(&gateway.rtmp("cam")));
                (publisher, dump)
            });
            gateway.wait_until_live("x");
            let browser = Browser::start();
            let (whep, whip) = (gateway.whep("x"), gateway.whip("cam"));
            judge(&network, &browser, &whep, &whip, &dump);
        }
    }
}

/// A browser behind a narrow path tells how narrow it is.
fn assert_has_echoes(gateway: &Gateway) {
    let (_, metrics) = gateway.get("/metrics");
    let of = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.trim().parse::<f64>().ok())
            .expect("a counter")
    };
    let thinned = of("rtmp_gateway_viewers_thinned_total ");
    let echoes = of("rtmp_gateway_echoes_answered_total ");
    println!("thinned {thinned} times, {echoes} echoes");
    assert!(thinned > 0.0 && echoes > 0.0, "no echo was answered");
}

/// Lets the call go through all phases and judges both ends.
fn judge(network: &Network, browser: &Browser, whep: &str, whip: &str, dump: &Rtmpdump) {
    let lab = Lab::open(browser);
    lab.publish("cam", whip, json!({ "toneHz": OWN_TONE_HZ }));
    lab.play("viewer", whep);
    lab.wait_for_picture("viewer", Duration::from_secs(10));
    dump.first_picture(Duration::from_secs(10));
    thread::sleep(Duration::from_secs(2));
    lab.tab().eval(READ_NUMBERS);
    lab.forget("viewer");
    let mut ends = Ends::new(&lab, dump);
    thread::sleep(WATCHED);
    ends.take_base();

    let mut complaints = Vec::new();
    for phase in phases() {
        network.set(phase.conditions);
        ends.skip();
        thread::sleep(phase.lasts);
        let seen = ends.look(phase.name, &phase.limits);
        if seen.is_empty() || phase.then_recovers {
            complaints.extend(seen);
        } else {
            complaints.extend(ends.look_again(phase.name, &phase.limits));
        }
        if phase.then_recovers {
            network.set(good());
            thread::sleep(RECOVERY);
            let name = format!("{}: after it", phase.name);
            complaints.extend(ends.look_again(&name, &LIVE));
        }
    }
    println!("down {:?}", network.counts(Way::Down));
    println!("up   {:?}", network.counts(Way::Up));
    let report = lab.report("viewer");
    println!(
        "viewer: lost {}, nack {}, pli {}, freezes {} of {:.1} s",
        report.number("/video/packetsLost"),
        report.number("/video/nackCount"),
        report.number("/video/pliCount"),
        report.number("/video/freezeCount"),
        report.number("/video/totalFreezesDuration"),
    );
    // Nothing broken was passed on: the player's recording decodes, and has its tone.
    let file = scratch_dir("bad_network").join("cam.flv");
    flv::write(&file, &dump.tags());
    let faults = analysis::decode_faults(&file);
    if !faults.is_empty() {
        complaints.push(format!("the player's recording: {faults}"));
    }
    let pitch = analysis::pitch_hz(&analysis::samples(&file, 0));
    if (pitch - OWN_TONE_HZ).abs() > OWN_TONE_HZ * 0.02 {
        complaints.push(format!("the player's tone is {pitch:.0} Hz"));
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// The two people: one before the page, one before rtmpdump.
struct Ends<'a> {
    lab: &'a Lab<'a>,
    dump: &'a Rtmpdump,
    started: Instant,
    /// The lateness of a picture that came on the good network, for the page and for
    /// rtmpdump.
    base_ms: (f64, f64),
    /// How long the page's browser kept pictures back then.
    base_held_ms: f64,
    /// Pictures a second on the good network.
    base_rate: (f64, f64),
    /// From when on pictures count, at either end.
    since: (f64, Instant),
    lip_syncs: usize,
}

impl<'a> Ends<'a> {
    fn new(lab: &'a Lab<'a>, dump: &'a Rtmpdump) -> Self {
        let mut ends = Self {
            lab,
            dump,
            started: Instant::now(),
            base_ms: (0.0, 0.0),
            base_held_ms: 0.0,
            base_rate: (0.0, 0.0),
            since: (0.0, Instant::now()),
            lip_syncs: 0,
        };
        ends.skip();
        ends
    }

    /// What was seen since [`Ends::skip`] is how it is on the good network.
    fn take_base(&mut self) {
        let (page, player) = (self.page(), self.player());
        self.base_ms = (page.late_ms, player.late_ms);
        self.base_held_ms = page.held_ms;
        self.base_rate = (page.rate, player.rate);
        println!("{:<45} page {page}  player {player}", "a good network");
    }

    /// Forgets what was seen so far.
    fn skip(&mut self) {
        self.since = (self.shown().0, Instant::now());
        self.lip_syncs = self.lab.report("viewer").numbers("/lipSyncMs").len();
    }

    /// Tells what was seen since, and what is wrong with it.
    fn look(&mut self, phase: &str, limits: &Limits) -> Vec<String> {
        let (page, player) = (self.page(), self.player());
        println!("{phase:<45} page {page}  player {player}");
        let mut complaints = Vec::new();
        let ends = [
            ("page", page, self.base_rate.0),
            ("player", player, self.base_rate.1),
        ];
        for (end, seen, base_rate) in ends {
            let mut complain =
                |what: String| complaints.push(format!("{phase}: the {end}: {what}"));
            if seen.rate < limits.share * base_rate {
                let rate = seen.rate;
                complain(format!("{rate:.1} pictures a second of {base_rate:.1}"));
            }
            if seen.stood_ms > limits.stood_ms {
                complain(format!("the picture stood for {:.0} ms", seen.stood_ms));
            }
            let held_ms = seen.held_ms - self.base_held_ms;
            let on_the_way_ms = match end {
                "page" => seen.late_ms - held_ms,
                _ => seen.late_ms,
            };
            if on_the_way_ms > limits.late_ms || seen.late_ms > limits.late_ms + HELD_MAX_MS {
                let (late, way) = (seen.late_ms, on_the_way_ms);
                complain(format!(
                    "{late:.0} ms later than before, {way:.0} on the way"
                ));
            }
            if let Some(hz) = seen.pitch_hz
                && limits.share > 0.0
                && (hz.is_nan() || (hz - TONE_HZ).abs() > TONE_HZ * 0.02)
            {
                complain(format!("the tone is {hz:.0} Hz"));
            }
            if seen.lip_sync_ms.abs() > limits.lip_sync_ms {
                complain(format!("sound minus picture {:.0} ms", seen.lip_sync_ms));
            }
        }
        complaints
    }

    /// Looks at what comes now. On a busy machine a span may be spoilt by others: up to
    /// three are looked at, and one has to keep the limits.
    fn look_again(&mut self, phase: &str, limits: &Limits) -> Vec<String> {
        let mut complaints = Vec::new();
        for _ in 0..3 {
            self.skip();
            thread::sleep(WATCHED);
            complaints = self.look(phase, limits);
            if complaints.is_empty() {
                break;
            }
        }
        complaints
    }

    /// The page's clock, and its pictures since it was last asked.
    fn shown(&self) -> (f64, Vec<Picture>) {
        let answer = self
            .lab
            .tab()
            .eval("({ now: performance.now(), shown: lab.players.viewer.shown.splice(0) })");
        let shown = answer["shown"].as_array().cloned().unwrap_or_default();
        let pictures = shown.iter().filter_map(|triple| {
            let at_ms = triple[0].as_f64()?;
            let late = at_ms - triple[1].as_f64()? * PICTURE_MS - self.base_ms.0;
            // The number tells the time modulo 41 seconds.
            let turn = 1_024.0 * PICTURE_MS;
            Some(Picture {
                at_ms,
                late_ms: (late + turn / 2.0).rem_euclid(turn) - turn / 2.0,
                held_ms: triple[2].as_f64().unwrap_or(f64::NAN),
            })
        });
        (
            answer["now"].as_f64().unwrap_or(f64::NAN),
            pictures.collect(),
        )
    }

    fn page(&self) -> Seen {
        let (now, pictures) = self.shown();
        let report = self.lab.report("viewer");
        let lip_syncs = report.numbers("/lipSyncMs");
        Seen {
            lip_sync_ms: middle(lip_syncs.get(self.lip_syncs..).unwrap_or_default()),
            pitch_hz: Some(report.number("/pitchHz/0")),
            ..Seen::new(self.since.0, now, &pictures)
        }
    }

    fn player(&self) -> Seen {
        let ms = |at: Instant| at.duration_since(self.started).as_secs_f64() * 1000.0;
        let tags = self.dump.tags();
        let pictures: Vec<Picture> = tags
            .iter()
            .filter(|tag| tag.is_picture() && tag.arrival >= self.since.1)
            .map(|tag| Picture {
                at_ms: ms(tag.arrival),
                late_ms: ms(tag.arrival) - f64::from(tag.timestamp_ms) - self.base_ms.1,
                held_ms: f64::NAN,
            })
            .collect();
        Seen::new(ms(self.since.1), ms(Instant::now()), &pictures)
    }
}

/// One picture that was seen.
struct Picture {
    /// When, on the clock of that end.
    at_ms: f64,
    /// How much later than on the good network.
    late_ms: f64,
    /// How long the browser itself kept it back.
    held_ms: f64,
}

/// What one of them saw in a while.
struct Seen {
    /// Pictures a second.
    rate: f64,
    /// The longest time the picture stood.
    stood_ms: f64,
    /// How late the most punctual picture was; without end where there was none. A busy
    /// machine makes some late; who is behind for good has none in time.
    late_ms: f64,
    /// The same of the last one.
    last_late_ms: f64,
    /// How long the browser kept pictures back, as the median.
    held_ms: f64,
    /// Sound minus picture, as the median.
    lip_sync_ms: f64,
    /// The tone, where it is listened to.
    pitch_hz: Option<f64>,
}

impl Seen {
    /// From the pictures between `from_ms` and `to_ms`.
    fn new(from_ms: f64, to_ms: f64, pictures: &[Picture]) -> Self {
        let mut last = from_ms;
        let mut stood_ms: f64 = 0.0;
        for at in pictures.iter().map(|picture| picture.at_ms).chain([to_ms]) {
            stood_ms = stood_ms.max(at - last);
            last = last.max(at);
        }
        let each = |value: fn(&Picture) -> f64| pictures.iter().map(value).collect::<Vec<_>>();
        let never = |picture: Option<&Picture>| picture.map_or(f64::INFINITY, |it| it.late_ms);
        Self {
            rate: pictures.len() as f64 * 1000.0 / (to_ms - from_ms),
            stood_ms,
            late_ms: (pictures.iter())
                .map(|picture| picture.late_ms)
                .fold(f64::INFINITY, f64::min),
            last_late_ms: never(pictures.last()),
            held_ms: middle(&each(|picture| picture.held_ms)),
            lip_sync_ms: f64::NAN,
            pitch_hz: None,
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:4.1}/s, stood {:4.0} ms, late {:5.0} (last {:5.0}) ms",
            self.rate, self.stood_ms, self.late_ms, self.last_late_ms
        )?;
        match self.pitch_hz {
            Some(hz) => write!(
                f,
                ", held {:3.0} ms, sound {:4.0} ms, {hz:3.0} Hz",
                self.held_ms, self.lip_sync_ms
            ),
            None => Ok(()),
        }
    }
}

/// The median, or NaN of nothing.
fn middle(values: &[f64]) -> f64 {
    match values {
        [] => f64::NAN,
        _ => median(values),
    }
}

/// Reads the number that each picture shows ([`Source::is_numbered`]).
const READ_NUMBERS: &str = r"(() => {
  const player = lab.players.viewer;
  player.shown = [];
  const pen = new OffscreenCanvas(20, 2).getContext('2d', { willReadFrequently: true });
  player.onPicture = (picture, video) => {
    const w = video.videoWidth, h = video.videoHeight;
    pen.drawImage(video, 0, h * 29 / 32, w, h / 16, 0, 0, 20, 2);
    const row = pen.getImageData(0, 0, 20, 1).data;
    let number = 0;
    for (let bit = 9; bit >= 0; bit--) number = number * 2 + (row[bit * 8 + 1] + row[bit * 8 + 5] > 256 ? 1 : 0);
    player.shown.push([picture.presentationTime, number, picture.presentationTime - picture.receiveTime]);
  };
})()";

/// Between two pictures of ffmpeg's.
const PICTURE_MS: f64 = 40.0;

/// The tone on the page, and the one of the page's own.
const TONE_HZ: f64 = 440.0;
const OWN_TONE_HZ: f64 = 520.0;

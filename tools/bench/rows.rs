//! The matrix: what is run, what is read from it, and the budget that each figure has.

use crate::server::Kind;

use Unit::{Frames, Kilobytes, Megabytes, Milliseconds, Percent};

/// One load, and what is read from it.
pub struct Row {
    /// What it is asked for by.
    pub name: &'static str,
    /// The gateway with what it needs for this.
    pub gateway: Kind,
    /// Whether nginx can do it.
    pub with_nginx: bool,
    /// How it is measured.
    pub job: Job,
    /// Its lines of the table.
    pub figures: &'static [Figure],
}

/// How a row is measured.
pub enum Job {
    /// One run of the load tool. `RTMP` and `HTTP` stand for the server's addresses, `group` is
    /// the group of its report that counts.
    Flood {
        arguments: &'static [&'static str],
        group: usize,
    },
    /// The same load with and without viewers that come and go: what one of them costs.
    Joins { per_second: u32 },
    /// A server that nobody uses.
    Idle,
}

/// One line of the table.
pub struct Figure {
    /// Names the value of a sample.
    pub key: &'static str,
    /// For people.
    pub what: &'static str,
    pub unit: Unit,
    /// What it may be at most.
    pub budget: Option<f64>,
}

/// What a figure is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Percent of one core.
    Percent,
    Milliseconds,
    Kilobytes,
    Megabytes,
    Frames,
}

const fn figure(key: &'static str, what: &'static str, unit: Unit, budget: f64) -> Figure {
    Figure {
        key,
        what,
        unit,
        budget: Some(budget),
    }
}

/// A figure that has no budget.
const fn plain(key: &'static str, what: &'static str, unit: Unit) -> Figure {
    Figure {
        key,
        what,
        unit,
        budget: None,
    }
}

const DEFAULTS: Kind = Kind::Gateway("");

/// All of it. 1 Mbit/s of H.264 at 25 fps with a key frame each 2 s, and AAC, unless the
/// arguments say otherwise.
pub const ROWS: &[Row] = &[
    Row {
        name: "play-60",
        gateway: DEFAULTS,
        with_nginx: true,
        job: Job::Flood {
            arguments: &["--publish", "1@RTMP/live/s", "--play", "60@RTMP/live/s"],
            group: 1,
        },
        figures: &[
            figure(
                "p50",
                "RTMP to 60 RTMP players: latency p50",
                Milliseconds,
                0.6,
            ),
            figure("p99", "latency p99", Milliseconds, 2.0),
            plain("cpu100", "CPU per 100 players", Percent),
        ],
    },
    Row {
        name: "play-1000",
        gateway: DEFAULTS,
        with_nginx: true,
        job: Job::Flood {
            arguments: &["--publish", "1@RTMP/live/s", "--play", "1000@RTMP/live/s"],
            group: 1,
        },
        figures: &[
            figure(
                "cpu100",
                "RTMP to 1,000 RTMP players: CPU per 100",
                Percent,
                1.7,
            ),
            figure("p99", "latency p99", Milliseconds, 30.0),
            figure("kb", "memory per player", Kilobytes, 8.0),
        ],
    },
    Row {
        name: "play-merged",
        gateway: Kind::Gateway("merge_ms = 330"),
        with_nginx: false,
        job: Job::Flood {
            arguments: &["--publish", "1@RTMP/live/s", "--play", "1000@RTMP/live/s"],
            group: 1,
        },
        figures: &[
            figure(
                "cpu100",
                "RTMP to 1,000 RTMP players, `merge_ms = 330`: CPU per 100",
                Percent,
                0.6,
            ),
            figure("p99", "latency p99", Milliseconds, 360.0),
        ],
    },
    Row {
        name: "ingest-500",
        gateway: DEFAULTS,
        with_nginx: true,
        job: Job::Flood {
            arguments: &["--publish", "500@RTMP/live/p{n}"],
            group: 0,
        },
        figures: &[
            figure("cpu", "500 RTMP publishers: CPU of each", Percent, 0.04),
            // 60 KB, and the cached GOP: 2 s of 1.096 Mbit/s.
            figure(
                "kb",
                "memory of each, its GOP of up to 274 KB included",
                Kilobytes,
                334.0,
            ),
            figure("opus_frames", "Opus made for nobody", Frames, 0.0),
        ],
    },
    Row {
        name: "late-play",
        gateway: DEFAULTS,
        with_nginx: true,
        job: Job::Flood {
            arguments: &[
                "--publish",
                "1@RTMP/live/s",
                "--play",
                "5@RTMP/live/s churn=20/s",
            ],
            group: 1,
        },
        figures: &[figure(
            "after_play_p50",
            "late RTMP player: `play` to its first key frame, p50",
            Milliseconds,
            0.3,
        )],
    },
    Row {
        name: "storm-play",
        gateway: DEFAULTS,
        with_nginx: true,
        job: Job::Flood {
            arguments: &[
                "--publish",
                "1@RTMP/live/s",
                "--play",
                "100@RTMP/live/s",
                "--play",
                "1000@RTMP/live/s ramp=1000/s after=3s",
            ],
            group: 1,
        },
        figures: &[figure(
            "p99",
            "100 RTMP players while 1,000 join within 1 s: latency p99",
            Milliseconds,
            50.0,
        )],
    },
    Row {
        name: "whep-3",
        gateway: DEFAULTS,
        with_nginx: false,
        job: Job::Flood {
            arguments: &["--publish", "1@RTMP/live/s", "--whep", "3@HTTP/whep/live/s"],
            group: 1,
        },
        figures: &[
            figure(
                "p50",
                "RTMP to 3 WHEP viewers: latency p50",
                Milliseconds,
                0.3,
            ),
            figure("p99", "latency p99", Milliseconds, 2.0),
        ],
    },
    Row {
        name: "whep-400",
        gateway: DEFAULTS,
        with_nginx: false,
        job: Job::Flood {
            arguments: &[
                "--publish",
                "1@RTMP/live/s",
                "--whep",
                "400@HTTP/whep/live/s",
            ],
            group: 1,
        },
        figures: &[
            figure(
                "cpu",
                "RTMP to 400 WHEP viewers: CPU of each",
                Percent,
                0.06,
            ),
            figure("p99", "latency p99", Milliseconds, 25.0),
            figure("kb", "memory of each", Kilobytes, 180.0),
        ],
    },
    Row {
        name: "whep-1000",
        gateway: DEFAULTS,
        with_nginx: false,
        job: Job::Flood {
            arguments: &[
                "--publish",
                "1@RTMP/live/s",
                "--whep",
                "1000@HTTP/whep/live/s ramp=200/s",
            ],
            group: 1,
        },
        figures: &[
            figure(
                "turn_ms",
                "RTMP to 1,000 WHEP viewers: longest turn",
                Milliseconds,
                10.0,
            ),
            plain("cpu", "CPU of each", Percent),
            plain("p99", "latency p99", Milliseconds),
        ],
    },
    Row {
        name: "join-whep",
        gateway: DEFAULTS,
        with_nginx: false,
        job: Job::Flood {
            arguments: &[
                "--publish",
                "1@RTMP/live/s",
                "--whep",
                "5@HTTP/whep/live/s churn=10/s",
            ],
            group: 1,
        },
        figures: &[
            figure(
                "first_key_p50",
                "WHEP join: POST to its first key frame, p50",
                Milliseconds,
                30.0,
            ),
            figure("first_key_p99", "p99", Milliseconds, 100.0),
        ],
    },
    Row {
        name: "join-cpu",
        gateway: DEFAULTS,
        with_nginx: false,
        job: Job::Joins { per_second: 40 },
        figures: &[figure(
            "join_ms",
            "CPU time of one WHEP join, catch-up and end included",
            Milliseconds,
            0.4,
        )],
    },
    Row {
        name: "storm-whep",
        gateway: DEFAULTS,
        with_nginx: false,
        job: Job::Flood {
            arguments: &[
                "--publish",
                "1@RTMP/live/s",
                "--whep",
                "100@HTTP/whep/live/s",
                "--whep",
                "200@HTTP/whep/live/s ramp=200/s after=3s",
            ],
            group: 1,
        },
        figures: &[figure(
            "p99",
            "100 WHEP viewers while 200 join within 1 s: latency p99",
            Milliseconds,
            50.0,
        )],
    },
    Row {
        name: "whip-play",
        gateway: DEFAULTS,
        with_nginx: false,
        job: Job::Flood {
            arguments: &["--whip", "1@HTTP/whip/live/w", "--play", "60@RTMP/live/w"],
            group: 1,
        },
        figures: &[
            plain("p50", "WHIP to 60 RTMP players: latency p50", Milliseconds),
            plain("p99", "latency p99", Milliseconds),
            plain("cpu100", "CPU per 100 players", Percent),
        ],
    },
    Row {
        name: "whip-answer",
        gateway: DEFAULTS,
        with_nginx: false,
        job: Job::Flood {
            arguments: &[
                "--play",
                "20@RTMP/live/w{n}",
                "--whip",
                "20@HTTP/whip/live/w{n} ramp=10/s after=2s",
            ],
            group: 0,
        },
        figures: &[figure(
            "after_publish_p50",
            "WHIP answer to the first key frame at a waiting RTMP player, p50",
            Milliseconds,
            40.0,
        )],
    },
    Row {
        name: "opus",
        gateway: DEFAULTS,
        with_nginx: false,
        job: Job::Flood {
            arguments: &[
                "--publish",
                "20@RTMP/live/s{n}",
                "--whep",
                "20@HTTP/whep/live/s{n}",
            ],
            group: 1,
        },
        figures: &[figure(
            "opus",
            "AAC to Opus: CPU of one stream",
            Percent,
            0.45,
        )],
    },
    Row {
        name: "idle",
        gateway: DEFAULTS,
        with_nginx: true,
        job: Job::Idle,
        figures: &[
            figure(
                "binary_mb",
                "nobody there: program file, stripped",
                Megabytes,
                8.0,
            ),
            figure("idle_mb", "memory", Megabytes, 8.0),
            figure(
                "start_ms",
                "start of the process to its first connection",
                Milliseconds,
                10.0,
            ),
            figure("idle_cpu", "CPU", Percent, 0.0),
        ],
    },
];

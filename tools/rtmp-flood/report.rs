//! [`Report`]: what a run says at its end, and whether it was clean.
//!
//! `text` is the same for people.

mod text;

use std::time::Duration;

use serde_json::{Value, json};

use crate::args::{Bounds, Impairment, Role};
use crate::histogram::Histogram;
use crate::progress::millis;
use crate::tally::{Flow, Tally};

/// A run in numbers.
#[derive(Clone, Debug)]
pub struct Report {
    /// How long was measured.
    pub window: Duration,
    /// Each group.
    pub groups: Vec<GroupReport>,
    /// CPU of this process, 1 is a core: near that, it measures itself.
    pub own_cpu: f64,
    /// Memory of this process.
    pub own_rss_bytes: u64,
    /// The server's process.
    pub server: Option<ServerReport>,
    /// Datagrams lost on purpose.
    pub datagrams_lost: u64,
    /// Bit rate of the pictures sent and how many in a second, for each clip.
    pub sources: Vec<(u64, f64)>,
}

/// One group in numbers.
#[derive(Clone, Debug)]
pub struct GroupReport {
    /// What its clients do.
    pub role: Role,
    /// Where.
    pub url: String,
    /// How many were asked for.
    pub count: u32,
    /// What came or was sent in the measurement.
    pub flow: Flow,
    /// Everything else.
    pub tally: Tally,
}

/// The server's process in numbers.
#[derive(Clone, Copy, Debug)]
pub struct ServerReport {
    /// 1 is a core.
    pub cpu: f64,
    /// At the end of the measurement.
    pub rss_bytes: u64,
    /// Before the first client.
    pub rss_idle_bytes: u64,
}

impl Report {
    /// What was not clean, and what bounds are broken. Empty is good.
    pub fn complaints(&self, bounds: &Bounds, impairment: &Impairment) -> Vec<String> {
        let mut complaints = Vec::new();
        let is_lossy = impairment.loss > 0.0;
        let failures: u64 = self.groups.iter().map(|group| group.tally.failures()).sum();
        if failures > bounds.failed {
            let reasons = self.groups.iter().flat_map(|group| {
                let tally = &group.tally;
                let named = |(reason, count)| format!("{} {count} {reason}", group.role);
                tally.failed.iter().chain(&tally.dropped).map(named)
            });
            let reasons: Vec<String> = reasons.collect();
            complaints.push(format!("{failures} clients failed: {}", reasons.join(", ")));
        }
        let lost: u64 = self
            .groups
            .iter()
            .map(|group| group.tally.faults.lost)
            .sum();
        if lost > bounds.lost {
            complaints.push(format!("{lost} pictures lost, at most {}", bounds.lost));
        }
        for GroupReport { role, tally, .. } in &self.groups {
            let faults = &tally.faults;
            let is_fault =
                faults.of_order() > 0 || (faults.of_loss() > 0 && !is_lossy && bounds.lost == 0);
            if is_fault {
                let named = faults.named().into_iter().filter(|(_, count)| *count > 0);
                let named: Vec<String> = named
                    .map(|(name, count)| format!("{name} {count}"))
                    .collect();
                complaints.push(format!("{role} is not in order: {}", named.join(", ")));
            }
            let times = [
                ("latency p50", &tally.latency, 0.5, bounds.p50),
                ("latency p99", &tally.latency, 0.99, bounds.p99),
                ("latency", &tally.latency, 1.0, bounds.latency),
                ("set-up p99", &tally.setup, 0.99, bounds.setup),
                (
                    "first key frame p99",
                    &tally.first_key,
                    0.99,
                    bounds.first_key,
                ),
            ];
            for (name, histogram, part, bound) in times {
                let is_receiver_only = !name.starts_with("set-up");
                let Some(bound) = bound else { continue };
                match histogram.quantile(part) {
                    Some(time) if time > bound => complaints.push(format!(
                        "{role} {name} {} ms, at most {}",
                        millis(time),
                        millis(bound)
                    )),
                    Some(_) => {}
                    // A bound on what nobody measured does not hold.
                    None if role.sends() && is_receiver_only => {}
                    None => complaints.push(format!("{role} {name}: nothing was measured")),
                }
            }
        }
        if let (Some(bound), Some(server)) = (bounds.cpu, &self.server)
            && server.cpu > bound
        {
            complaints.push(format!(
                "server CPU {:.1} % of a core, at most {:.1} %",
                server.cpu * 100.0,
                bound * 100.0
            ));
        }
        complaints
    }

    /// For programs. Times are ms.
    pub fn to_json(&self, complaints: &[String]) -> Value {
        let seconds = self.window.as_secs_f64();
        let groups: Vec<Value> = self
            .groups
            .iter()
            .map(|group| group.to_json(seconds))
            .collect();
        let up: u64 = self.groups.iter().map(|group| group.tally.up).sum();
        json!({
            "clean": complaints.is_empty(),
            "complaints": complaints,
            "window_s": seconds,
            "groups": groups,
            "sources": (self.sources.iter())
                .map(|(bps, fps)| json!({ "video_bps": bps, "fps": fps }))
                .collect::<Vec<_>>(),
            "datagrams_lost": self.datagrams_lost,
            "flood": { "cpu_percent": self.own_cpu * 100.0, "rss_bytes": self.own_rss_bytes },
            "server": self.server.map(|server| json!({
                "cpu_percent": server.cpu * 100.0,
                "rss_bytes": server.rss_bytes,
                "rss_idle_bytes": server.rss_idle_bytes,
                "cpu_percent_per_client": server.cpu * 100.0 / up.max(1) as f64,
                "rss_bytes_per_client":
                    server.rss_bytes.saturating_sub(server.rss_idle_bytes) / up.max(1),
            })),
        })
    }
}

impl GroupReport {
    fn to_json(&self, seconds: f64) -> Value {
        let tally = &self.tally;
        let faults: serde_json::Map<String, Value> = (tally.faults.named().into_iter())
            .map(|(name, count)| (name.to_owned(), count.into()))
            .collect();
        json!({
            "role": self.role.name(),
            "url": self.url,
            "count": self.count,
            "started": tally.started,
            "connected": tally.connected,
            "up": tally.up,
            "left": tally.left,
            "failed": tally.failed,
            "dropped": tally.dropped,
            "setup_ms": times(&tally.setup),
            "first_key_ms": times(&tally.first_key),
            "first_key_after_play_ms": times(&tally.first_key_after),
            "first_key_after_publish_ms": times(&tally.first_key_waiting),
            "live_ms": times(&tally.live),
            "latency_ms": times(&tally.latency),
            "pictures": self.flow.pictures,
            "pictures_expected": self.flow.expected(),
            "sounds": self.flow.sounds,
            "packets": self.flow.packets,
            "bytes": self.flow.bytes,
            "mbit_per_s": self.flow.bytes as f64 * 8e-6 / seconds,
            "faults": faults,
        })
    }
}

/// Quantiles in ms.
fn times(histogram: &Histogram) -> Value {
    let ms = |time: Option<Duration>| time.map(|time| time.as_secs_f64() * 1e3);
    json!({
        "count": histogram.count(),
        "mean": ms(histogram.mean()),
        "p50": ms(histogram.quantile(0.5)),
        "p95": ms(histogram.quantile(0.95)),
        "p99": ms(histogram.quantile(0.99)),
        "max": ms(histogram.max()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::Faults;

    fn report(change: impl FnOnce(&mut Tally)) -> Report {
        let mut tally = Tally {
            started: 2,
            connected: 2,
            up: 2,
            ..Tally::default()
        };
        (1..=100).for_each(|ms| tally.latency.record(Duration::from_millis(ms)));
        change(&mut tally);
        Report {
            window: Duration::from_secs(10),
            groups: vec![GroupReport {
                role: Role::Play,
                url: "rtmp://h/live/s".into(),
                count: 2,
                flow: tally.flow,
                tally,
            }],
            own_cpu: 0.1,
            own_rss_bytes: 1,
            server: Some(ServerReport {
                cpu: 0.5,
                rss_bytes: 3_000,
                rss_idle_bytes: 1_000,
            }),
            datagrams_lost: 0,
            sources: Vec::new(),
        }
    }

    fn complaints(report: &Report, bounds: Bounds) -> Vec<String> {
        report.complaints(&bounds, &Impairment::default())
    }

    #[test]
    fn a_clean_run_has_nothing_to_complain_of() {
        let bounds = Bounds {
            p50: Some(Duration::from_millis(51)),
            latency: Some(Duration::from_millis(101)),
            cpu: Some(0.5),
            ..Bounds::default()
        };
        assert!(complaints(&report(|_| {}), bounds).is_empty());
    }

    #[test]
    fn each_bound_is_held() {
        let ms = |ms| Some(Duration::from_millis(ms));
        for bounds in [
            Bounds {
                p50: ms(49),
                ..Bounds::default()
            },
            Bounds {
                p99: ms(98),
                ..Bounds::default()
            },
            Bounds {
                latency: ms(99),
                ..Bounds::default()
            },
            Bounds {
                cpu: Some(0.49),
                ..Bounds::default()
            },
            // Nothing was measured: not kept.
            Bounds {
                setup: ms(1_000),
                ..Bounds::default()
            },
            Bounds {
                first_key: ms(1_000),
                ..Bounds::default()
            },
        ] {
            let found = complaints(&report(|_| {}), bounds.clone());
            assert_eq!(found.len(), 1, "{bounds:?} {found:?}");
        }
    }

    #[test]
    fn failures_and_faults_are_not_clean() {
        let failed = report(|tally| *tally.failed.entry("tcp_refused".into()).or_default() += 3);
        assert_eq!(
            complaints(&failed, Bounds::default()),
            ["3 clients failed: play 3 tcp_refused"]
        );
        let allowed = Bounds {
            failed: 3,
            ..Bounds::default()
        };
        assert!(complaints(&failed, allowed).is_empty());
        let disorder = report(|tally| tally.faults.disorder = 1);
        assert_eq!(
            complaints(&disorder, Bounds::default()),
            ["play is not in order: disorder 1"]
        );
    }

    #[test]
    fn on_a_lossy_link_only_disorder_counts_beside_what_was_bounded() {
        let faults = Faults {
            lost: 5,
            breaks: 1,
            rtp_lost: 7,
            ..Faults::default()
        };
        let lossy = report(|tally| tally.faults = faults);
        let impairment = Impairment {
            loss: 0.02,
            ..Impairment::default()
        };
        let bounds = Bounds {
            lost: 5,
            ..Bounds::default()
        };
        assert!(lossy.complaints(&bounds, &impairment).is_empty());
        assert_eq!(lossy.complaints(&Bounds::default(), &impairment).len(), 1);
    }

    #[test]
    fn programs_and_people_are_told_the_same() {
        let report = report(|_| {});
        let json = report.to_json(&[]);
        assert_eq!(json["clean"], true);
        assert_eq!(json["groups"][0]["latency_ms"]["count"], 100);
        assert_eq!(json["server"]["rss_bytes_per_client"], 1_000);
        let text = report.to_string();
        assert!(text.contains("CPU 50.0 % of a core"), "{text}");
        assert!(text.contains("in order"), "{text}");
    }
}

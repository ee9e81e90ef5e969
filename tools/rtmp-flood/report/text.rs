//! The report as tables for people.

use std::fmt;

use super::{GroupReport, Report};
use crate::histogram::Histogram;
use crate::progress::millis;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.window.as_secs_f64();
        writeln!(f, "\nmeasured {seconds:.1} s\n")?;
        write_table(f, &self.clients(seconds), 1)?;
        writeln!(f)?;
        let times = self.times();
        if times.len() > 1 {
            write_table(f, &times, 2)?;
            writeln!(f)?;
        }
        for (index, group) in self.groups.iter().enumerate() {
            group.write_faults(f, index)?;
        }
        let up: u64 = self.groups.iter().map(|group| group.tally.up).sum();
        if let Some(server) = &self.server {
            let rss = server.rss_bytes as f64;
            let each = (rss - server.rss_idle_bytes as f64) / up.max(1) as f64;
            writeln!(
                f,
                "server     CPU {:.1} % of a core, {:.4} % for each of {up} clients; \
                 {:.1} MB, {:.1} KB for each",
                server.cpu * 100.0,
                server.cpu * 100.0 / up.max(1) as f64,
                rss / 1e6,
                each / 1e3
            )?;
        }
        write!(
            f,
            "flood      CPU {:.1} % of a core; {:.1} MB",
            self.own_cpu * 100.0,
            self.own_rss_bytes as f64 / 1e6
        )?;
        for (bps, fps) in &self.sources {
            let mbps = *bps as f64 / 1e6;
            write!(f, "; sent pictures of {mbps:.2} Mbit/s, {fps:.1} fps")?;
        }
        if self.datagrams_lost > 0 {
            write!(f, "; {} datagrams lost on purpose", self.datagrams_lost)?;
        }
        writeln!(f)
    }
}

impl Report {
    /// What the clients of each group did.
    fn clients(&self, seconds: f64) -> Vec<Vec<String>> {
        let head = [
            "",
            "started",
            "connected",
            "up",
            "failed",
            "dropped",
            "left",
            "pictures",
            "expected",
            "sounds",
            "packets/s",
            "Mbit/s",
            "MB",
        ];
        let rows = self.groups.iter().enumerate().map(|(index, group)| {
            let (tally, flow) = (&group.tally, &group.flow);
            let sum =
                |counts: &std::collections::BTreeMap<String, u64>| -> u64 { counts.values().sum() };
            let bytes = flow.bytes as f64;
            vec![
                group.label(index),
                tally.started.to_string(),
                tally.connected.to_string(),
                tally.up.to_string(),
                sum(&tally.failed).to_string(),
                sum(&tally.dropped).to_string(),
                tally.left.to_string(),
                flow.pictures.to_string(),
                flow.expected().to_string(),
                flow.sounds.to_string(),
                format!("{:.0}", flow.packets as f64 / seconds),
                format!("{:.1}", bytes * 8e-6 / seconds),
                format!("{:.1}", bytes / 1e6),
            ]
        });
        let head = head.map(str::to_owned).to_vec();
        std::iter::once(head).chain(rows).collect()
    }

    /// How long things took, ms.
    fn times(&self) -> Vec<Vec<String>> {
        let head = ["ms", "", "count", "mean", "p50", "p95", "p99", "max"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for (index, group) in self.groups.iter().enumerate() {
            let tally = &group.tally;
            for (name, histogram) in [
                ("set-up", &tally.setup),
                ("first key frame", &tally.first_key),
                ("  after play", &tally.first_key_after),
                ("  after publish", &tally.first_key_waiting),
                ("live", &tally.live),
                ("latency", &tally.latency),
            ] {
                if let Some(cells) = quantiles(histogram) {
                    let named = [group.label(index), name.to_owned()];
                    rows.push(named.into_iter().chain(cells).collect());
                }
            }
        }
        rows
    }
}

impl GroupReport {
    /// What it is called in the tables.
    fn label(&self, index: usize) -> String {
        format!("{} {}", index + 1, self.role)
    }

    fn write_faults(&self, f: &mut fmt::Formatter<'_>, index: usize) -> fmt::Result {
        let tally = &self.tally;
        let mut told: Vec<String> = Vec::new();
        for (verb, counts) in [("failed", &tally.failed), ("dropped", &tally.dropped)] {
            told.extend(
                (counts.iter()).map(|(reason, count)| format!("{count} {verb} ({reason})")),
            );
        }
        told.extend(
            (tally.faults.named().into_iter())
                .filter(|(_, count)| *count > 0)
                .map(|(name, count)| format!("{name} {count}")),
        );
        let verdict = match told.is_empty() {
            true => "in order".to_owned(),
            false => told.join(", "),
        };
        writeln!(f, "{:<11}{}: {verdict}", self.label(index), self.url)
    }
}

fn quantiles(histogram: &Histogram) -> Option<Vec<String>> {
    let mut cells = vec![histogram.count().to_string(), millis(histogram.mean()?)];
    for part in [0.5, 0.95, 0.99] {
        cells.push(millis(histogram.quantile(part)?));
    }
    cells.push(millis(histogram.max()?));
    Some(cells)
}

/// Writes rows of the same number of cells: `names` columns of text, then numbers.
fn write_table(f: &mut fmt::Formatter<'_>, rows: &[Vec<String>], names: usize) -> fmt::Result {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(String::len).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells.map(|(column, (cell, &width))| match column < names {
            true => format!("{cell:<width$}"),
            false => format!("{cell:>width$}"),
        });
        let cells: Vec<String> = cells.collect();
        writeln!(f, "{}", cells.join("  "))?;
    }
    Ok(())
}

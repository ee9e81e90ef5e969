//! [`Table`]: the figures as Markdown.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::process::Command;

use crate::Verdict;
use crate::rows::{Figure, Row, Unit};
use crate::sample::Sample;
use crate::server::Programs;

/// What is printed at the end; each line goes to standard error when it is known.
pub struct Table {
    head: String,
    lines: Vec<String>,
    notes: BTreeSet<String>,
    others: Vec<f64>,
    verdict: Verdict,
}

type Samples<'a> = &'a [Result<Sample, String>];

impl Table {
    /// Without lines.
    pub fn new(programs: &Programs, rounds: u32, seconds: u32) -> Self {
        let placed = match programs.is_pinned {
            true => "server and load tool on a core each",
            false => "server and load tool placed by the scheduler",
        };
        let peer = match &programs.nginx {
            Some((program, _)) => version(Command::new(program).arg("-v")),
            None => "no nginx".to_owned(),
        };
        let runs = match rounds {
            1 => "one run of each".to_owned(),
            _ => format!("medians of {rounds} runs in turn"),
        };
        let head = format!(
            "{}; {placed}, loopback; {} and {peer}; {runs}, {seconds} s measured in each.",
            machine(),
            version(Command::new(&programs.gateway).arg("--version")),
        );
        Self {
            head,
            lines: Vec::new(),
            notes: BTreeSet::new(),
            others: Vec::new(),
            verdict: Verdict::Met,
        }
    }

    /// The lines of one row.
    pub fn add(&mut self, row: &Row, ours: Samples<'_>, theirs: Samples<'_>) {
        for (who, samples) in [("gateway", ours), ("nginx", theirs)] {
            for sample in samples {
                match sample {
                    Ok(sample) => {
                        self.others.push(sample.others);
                        for complaint in &sample.complaints {
                            self.note(format!("{} ({who}): not clean: {complaint}", row.name));
                        }
                    }
                    Err(reason) => {
                        self.verdict = Verdict::Failed;
                        self.note(format!("{} ({who}): failed: {reason}", row.name));
                    }
                }
            }
        }
        let delivered = match (delivered(ours), delivered(theirs)) {
            (None, _) => String::new(),
            (Some(ours), None) => ours,
            (Some(ours), Some(theirs)) => format!("{ours} / {theirs}"),
        };
        for (index, figure) in row.figures.iter().enumerate() {
            let goes_on = if index == 0 { "" } else { "… " };
            let (own, peer) = (median(figure, ours), median(figure, theirs));
            let ratio = own.zip(peer).filter(|(_, peer)| *peer > 0.0);
            let met = self.judge(figure, own, ours);
            let line = format!(
                "| {goes_on}{} | {} | {} | {} | {} | {met} | {delivered} |",
                figure.what,
                own.map_or("failed".into(), |value| figure.unit.show(value)),
                peer.map_or(String::new(), |value| figure.unit.show(value)),
                ratio.map_or(String::new(), |(own, peer)| format!("{:.2}", own / peer)),
                (figure.budget).map_or(String::new(), |value| figure.unit.show(value)),
            );
            eprintln!("{line}");
            self.lines.push(line);
        }
    }

    /// All of it.
    pub fn finish(&mut self) -> String {
        let mut text = format!(
            "{}\n\n| what | gateway | nginx | ratio | budget | met | delivered |\n\
             | --- | --- | --- | --- | --- | --- | --- |\n{}\n",
            self.head,
            self.lines.join("\n")
        );
        self.others.sort_by(f64::total_cmp);
        if let (Some(middle), Some(most)) =
            (self.others.get(self.others.len() / 2), self.others.last())
        {
            let _ = write!(
                text,
                "\nOther processes took {middle:.0} % of a core meanwhile (median of the runs), at most {most:.0} %."
            );
        }
        for note in &self.notes {
            let _ = write!(text, "\n- {note}");
        }
        text
    }

    /// Of all lines.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    fn note(&mut self, note: String) {
        eprintln!("bench: {note}");
        if self.notes.len() < NOTES_MAX {
            self.notes.insert(note);
        }
    }

    fn judge(&mut self, figure: &Figure, own: Option<f64>, ours: Samples<'_>) -> &'static str {
        let Some(own) = own else {
            self.verdict = Verdict::Failed;
            return "?";
        };
        let Some(budget) = figure.budget else {
            return "";
        };
        let clean = ours
            .iter()
            .flatten()
            .filter(|sample| sample.complaints.is_empty());
        if 2 * clean.count() <= ours.len() {
            self.verdict = self.verdict.max(Verdict::NotMet);
            return "no: not clean";
        }
        if own > budget {
            self.verdict = self.verdict.max(Verdict::NotMet);
            return "no";
        }
        "yes"
    }
}

impl Unit {
    fn show(self, value: f64) -> String {
        let digits = match value.abs() {
            0.0 => 0,
            ..0.1 => 3,
            ..10.0 => 2,
            ..100.0 => 1,
            _ => 0,
        };
        let unit = match self {
            Unit::Percent => "%",
            Unit::Milliseconds => "ms",
            Unit::Kilobytes => "KB",
            Unit::Megabytes => "MB",
            Unit::Frames => "frames",
        };
        let number = format!("{value:.digits$}");
        let number = match number.contains('.') {
            true => number.trim_end_matches('0').trim_end_matches('.'),
            false => &number,
        };
        format!("{number} {unit}")
    }
}

/// Puts the table between the markers of the README.
///
/// # Errors
/// If it has none.
pub fn into_readme(text: &str) -> Result<(), String> {
    const FILE: &str = "README.md";
    let readme = fs::read_to_string(FILE).map_err(|error| format!("{FILE}: {error}"))?;
    let (before, rest) = readme
        .split_once(BEGIN)
        .ok_or(format!("{FILE} has no {BEGIN}"))?;
    let (_, after) = rest.split_once(END).ok_or(format!("{FILE} has no {END}"))?;
    let readme = format!("{before}{BEGIN}\n{text}\n{END}{after}");
    fs::write(FILE, readme).map_err(|error| format!("{FILE}: {error}"))
}

/// The middle of what the runs said.
fn median(figure: &Figure, samples: Samples<'_>) -> Option<f64> {
    let samples = samples.iter().flatten();
    let mut values: Vec<f64> = (samples.filter_map(|sample| sample.values.get(figure.key)))
        .copied()
        .collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// The least of what was delivered.
fn delivered(samples: Samples<'_>) -> Option<String> {
    let parts = samples
        .iter()
        .flatten()
        .filter_map(|sample| sample.delivered);
    let least = parts.min_by(f64::total_cmp)?;
    // Rounded down: only all is all.
    Some(format!("{} %", (least * 1e4).floor() / 1e2))
}

/// The machine in one line.
fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = (cpu.lines())
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown CPU", |(_, model)| model.trim());
    let cores = cpu.lines().filter(|line| line.starts_with("processor"));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let virtual_machine = match cpu.contains(" hypervisor") {
        true => " (virtual)",
        false => "",
    };
    let kernel = kernel.trim();
    format!(
        "{} × {model}{virtual_machine}, Linux {kernel}",
        cores.count()
    )
}

/// What a program says of itself.
fn version(command: &mut Command) -> String {
    let Ok(output) = command.output() else {
        return "?".into();
    };
    let text = match output.stdout.is_empty() {
        true => output.stderr,
        false => output.stdout,
    };
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().next().unwrap_or("?").trim();
    line.trim_start_matches("nginx version: ").to_owned()
}

/// More of them say the same again.
const NOTES_MAX: usize = 24;

const BEGIN: &str = "<!-- bench: written by tools/bench/run --readme -->";
const END: &str = "<!-- end of bench -->";

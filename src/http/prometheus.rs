//! [`Exposition`]: the Prometheus text format, version 0.0.4.
//!
//! Conventions: names begin with `rtmp_gateway_` and end in their unit (`_seconds`,
//! `_bytes`; base units only), counters in `_total`. All samples of one family stand
//! together behind its `# HELP` and `# TYPE`.

use std::fmt::{Display, Write as _};

use super::{Response, Status};

/// How a family's values behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up only; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// A page of metrics being written.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

/// One family of an [`Exposition`]; samples are written through it.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut String,
    name: &'a str,
}

impl Exposition {
    /// An empty page.
    pub const fn new() -> Self {
        Self {
            text: String::new(),
        }
    }

    /// Begins a family: `help` is one sentence.
    ///
    /// # Panics
    /// In debug builds, if `name` breaks a convention of this module.
    pub fn family<'a>(&'a mut self, name: &'a str, help: &str, kind: Kind) -> Family<'a> {
        debug_assert!(
            name.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
                && (kind == Kind::Counter) == name.ends_with("_total"),
            "{name} breaks the naming conventions"
        );
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        // Writing to a `String` cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family {
            text: &mut self.text,
            name,
        }
    }

    /// Writes a family that counts values by upper bounds, each with how many are not above it.
    pub fn histogram(
        &mut self,
        name: &str,
        help: &str,
        buckets: impl Iterator<Item = (f64, u64)>,
        count: u64,
        sum: f64,
    ) {
        let text = &mut self.text;
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} histogram");
        for (bound, below) in buckets {
            let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {below}");
        }
        let _ = writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {count}");
        let _ = writeln!(text, "{name}_sum {sum}\n{name}_count {count}");
    }

    /// The page as a response.
    pub fn into_response(self) -> Response {
        Response::new(Status::Ok)
            .with_header("Cache-Control", "no-store")
            .with_body("text/plain; version=0.0.4; charset=utf-8", self.text)
    }

    /// The page as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Family<'_> {
    /// Writes one sample; label values may hold anything.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        self.text.push_str(self.name);
        for (index, (key, label)) in labels.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            self.text.push_str(key);
            self.text.push_str("=\"");
            for character in label.chars() {
                match character {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    other => self.text.push(other),
                }
            }
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        // Writing to a `String` cannot fail.
        let _ = writeln!(self.text, " {value}");
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_stand_together_with_their_labels_escaped() {
        let mut page = Exposition::new();
        page.family(
            "rtmp_gateway_received_bytes_total",
            "Bytes read from sockets.",
            Kind::Counter,
        )
        .sample(&[("protocol", "rtmp")], 12)
        .sample(&[("protocol", "a\"b\\c\nd"), ("x", "")], 1.5);
        page.family("rtmp_gateway_streams", "Live\nstreams \\.", Kind::Gauge)
            .sample(&[], 0);
        assert_eq!(
            page.as_str(),
            "# HELP rtmp_gateway_received_bytes_total Bytes read from sockets.\n\
             # TYPE rtmp_gateway_received_bytes_total counter\n\
             rtmp_gateway_received_bytes_total{protocol=\"rtmp\"} 12\n\
             rtmp_gateway_received_bytes_total{protocol=\"a\\\"b\\\\c\\nd\",x=\"\"} 1.5\n\
             # HELP rtmp_gateway_streams Live\\nstreams \\\\.\n\
             # TYPE rtmp_gateway_streams gauge\n\
             rtmp_gateway_streams 0\n"
        );
        let response = page.into_response();
        let content_type = response.header("content-type").unwrap_or_default();
        assert!(content_type.starts_with("text/plain; version=0.0.4"));
    }

    #[test]
    #[should_panic(expected = "conventions")]
    fn a_counter_is_named_like_one() {
        let _ = Exposition::new().family("rtmp_gateway_errors", "Errors.", Kind::Counter);
    }
}

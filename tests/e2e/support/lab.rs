//! The laboratory: a page of our own, from an origin of its own, that plays and
//! publishes with the browser's bare API and measures (`lab.js`).

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::browser::{Browser, Tab};
use super::{median, wait_for};

/// A laboratory page in a tab. It is cross-origin to the gateway, so each call
/// also proves the CORS headers.
pub struct Lab<'a> {
    tab: Tab<'a>,
}

impl<'a> Lab<'a> {
    /// Opens the page in a new tab.
    pub fn open(browser: &'a Browser) -> Self {
        let tab = browser.open(&serve(), 800, 600);
        Self { tab }
    }

    /// Plays a WHEP URL under a name; returns the SDP answer.
    pub fn play(&self, name: &str, url: &str) -> String {
        self.call("play", &[json!(name), json!(url)])
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Publishes to a WHIP URL under a name; returns the SDP answer. `settings`
    /// may have `width`, `height`, `fps`, `toneHz`.
    pub fn publish(&self, name: &str, url: &str, settings: Value) -> String {
        self.call("publish", &[json!(name), json!(url), settings])
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Ends a player or publisher by DELETE; returns the status.
    pub fn stop(&self, name: &str) -> i64 {
        self.call("stop", &[json!(name)]).as_i64().unwrap_or(0)
    }

    /// Starts the measurements of a player anew.
    pub fn forget(&self, name: &str) {
        self.call("forget", &[json!(name)]);
    }

    /// What a player or publisher measured so far.
    pub fn report(&self, name: &str) -> Report {
        Report(self.call("report", &[json!(name)]))
    }

    /// Waits until a player shows its first picture.
    pub fn wait_for_picture(&self, name: &str, limit: Duration) -> Report {
        wait_for(&format!("{name} shows a picture"), limit, || {
            let report = self.report(name);
            report.0["firstPictureMs"].is_number().then_some(report)
        })
    }

    /// The tab.
    pub fn tab(&self) -> &Tab<'a> {
        &self.tab
    }

    fn call(&self, function: &str, arguments: &[Value]) -> Value {
        let arguments: Vec<String> = arguments.iter().map(Value::to_string).collect();
        self.tab
            .eval(&format!("lab.{function}({})", arguments.join(", ")))
    }
}

/// Asserts that a player's sound is within `limit_ms` of its picture, as the
/// median over some seconds.
///
/// A browser that came to its stream a moment ago, on a machine that is short
/// of CPU, needs some seconds until its buffers have settled: three spans are
/// looked at, and one has to keep the limit.
///
/// # Panics
/// When none does.
pub fn assert_lip_sync(lab: &Lab<'_>, name: &str, limit_ms: f64) {
    let mut spans = Vec::new();
    for _ in 0..3 {
        lab.forget(name);
        thread::sleep(Duration::from_secs(5));
        let report = lab.report(name);
        let offsets = report.numbers("/lipSyncMs");
        assert!(
            offsets.len() >= 2,
            "flashes and beeps are to be seen and heard: {report:?}"
        );
        println!(
            "sound minus picture: {:.0} ms {offsets:.0?}, the browser's own estimate {:.0} ms",
            median(&offsets),
            report.number("/playoutMs")
        );
        if median(&offsets).abs() <= limit_ms {
            return;
        }
        spans.push(offsets);
    }
    panic!("sound is more than {limit_ms} ms from the picture: {spans:.0?}");
}

/// What the page measured (`lab.report` in `lab.js`).
#[derive(Debug)]
pub struct Report(pub Value);

impl Report {
    /// A number by JSON pointer; NaN when there is none, which fails each
    /// comparison.
    pub fn number(&self, pointer: &str) -> f64 {
        self.0
            .pointer(pointer)
            .and_then(Value::as_f64)
            .unwrap_or(f64::NAN)
    }

    /// The numbers of an array by JSON pointer.
    pub fn numbers(&self, pointer: &str) -> Vec<f64> {
        self.0
            .pointer(pointer)
            .and_then(Value::as_array)
            .map(|values| values.iter().filter_map(Value::as_f64).collect())
            .unwrap_or_default()
    }

    /// A text by JSON pointer.
    pub fn text(&self, pointer: &str) -> &str {
        self.0
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// Decoded pictures a second between an earlier report and this one.
    pub fn picture_rate(&self, earlier: &Report) -> f64 {
        let pictures = self.number("/video/framesDecoded") - earlier.number("/video/framesDecoded");
        pictures * 1000.0 / (self.number("/now") - earlier.number("/now"))
    }
}

/// Serves the page from a thread that lives as long as the test.
fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head);
            let page = concat!(
                "<!doctype html><meta charset=utf-8><title>lab</title><link rel=icon href=data:,>",
                "<body style='background:#222'><script>\n",
                include_str!("lab.js"),
                "\n</script>"
            );
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\
                 Connection: close\r\n\r\n{page}",
                page.len()
            );
        }
    });
    format!("http://{address}/")
}

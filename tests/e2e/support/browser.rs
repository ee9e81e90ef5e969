//! Headless Chromium and its tabs.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::cdp::Connection;
use super::process::Process;
use super::{scratch_dir, screenshot_dir, wait_for};

/// A running browser with a profile of its own; ended on drop.
pub struct Browser {
    // Before the process, so that the socket closes first.
    connection: Connection,
    _process: Process,
    profile: PathBuf,
}

impl Browser {
    /// Starts headless Chromium.
    ///
    /// # Panics
    /// When there is no `chromium`; `tools/install-deps --test` installs it.
    pub fn start() -> Self {
        let profile = scratch_dir("chromium");
        let mut command = Command::new("chromium");
        command
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.display()))
            .env("HOME", &profile)
            .arg("about:blank");
        let mut process = Process::spawn("chromium", &mut command);
        let port_file = profile.join("DevToolsActivePort");
        let (port, path) = wait_for("chromium starts", Duration::from_secs(30), || {
            assert!(process.is_running(), "chromium ended at once");
            let text = std::fs::read_to_string(&port_file).ok()?;
            let (port, path) = text.split_once('\n')?;
            Some((port.parse().ok()?, path.trim().to_owned()))
        });
        Self {
            connection: Connection::open(port, &path),
            _process: process,
            profile,
        }
    }

    /// Opens `url` in a new window of the given size and waits until it has
    /// loaded. Windows, because a tab in the background draws nothing.
    pub fn open(&self, url: &str, width: u32, height: u32) -> Tab<'_> {
        let target = self.connection.call(
            None,
            "Target.createTarget",
            json!({ "url": "about:blank", "newWindow": true, "width": width, "height": height }),
        );
        let attached = self.connection.call(
            None,
            "Target.attachToTarget",
            json!({ "targetId": target["targetId"], "flatten": true }),
        );
        let tab = Tab {
            connection: &self.connection,
            session: attached["sessionId"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        };
        tab.call("Runtime.enable", json!({}));
        tab.call("Log.enable", json!({}));
        tab.call("Page.enable", json!({}));
        tab.set_size(width, height, false);
        tab.call("Page.navigate", json!({ "url": url }));
        wait_for(&format!("{url} loads"), Duration::from_secs(15), || {
            let state = tab.eval("location.href + ' ' + document.readyState");
            let state = state.as_str().unwrap_or_default();
            (!state.starts_with("about:") && state.ends_with("complete")).then_some(())
        });
        tab
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for line in self.connection.console() {
                eprintln!("[page] {line}");
            }
        }
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}

/// One tab.
pub struct Tab<'a> {
    connection: &'a Connection,
    session: String,
}

impl Tab<'_> {
    /// Evaluates an expression in the page, waits for it when it is a promise,
    /// and returns its value.
    ///
    /// # Panics
    /// When the script throws.
    pub fn eval(&self, expression: &str) -> Value {
        let result = self.call(
            "Runtime.evaluate",
            json!({
                "expression": expression,
                "awaitPromise": true,
                "returnByValue": true,
                "userGesture": true,
            }),
        );
        let details = &result["exceptionDetails"];
        assert!(
            details.is_null(),
            "{expression}\nthrew: {} {}",
            details["text"].as_str().unwrap_or_default(),
            details["exception"]["description"]
                .as_str()
                .map_or_else(|| details["exception"]["value"].to_string(), str::to_owned)
        );
        result["result"]["value"].clone()
    }

    /// Sets the size of the view; `phone` also makes it a touch screen with two
    /// pixels to the point.
    pub fn set_size(&self, width: u32, height: u32, phone: bool) {
        self.call(
            "Emulation.setDeviceMetricsOverride",
            json!({
                "width": width,
                "height": height,
                "deviceScaleFactor": if phone { 2 } else { 1 },
                "mobile": phone,
            }),
        );
    }

    /// Writes a picture of the view to `target/e2e/{name}.png`.
    pub fn screenshot(&self, name: &str) -> PathBuf {
        let shot = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        let path = screenshot_dir().join(format!("{name}.png"));
        let png = decode_base64(shot["data"].as_str().unwrap_or_default());
        std::fs::write(&path, png).expect("the screenshot can be written");
        path
    }

    /// Calls a method of the protocol for this tab.
    pub fn call(&self, method: &str, params: Value) -> Value {
        self.connection.call(Some(&self.session), method, params)
    }

    /// Console lines of all tabs so far.
    pub fn console(&self) -> Vec<String> {
        self.connection.console()
    }
}

/// RFC 4648 section 4; anything outside the alphabet is skipped.
fn decode_base64(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0_u32, 0);
    for letter in text.bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}

/// No sandbox, because tests may run as root in a container; nothing that calls
/// out; sound and camera without questions; timers at full speed although
/// nobody looks.
const FLAGS: &[&str] = &[
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--disable-breakpad",
    "--disable-domain-reliability",
    "--metrics-recording-only",
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
    // Without another interface than `lo` there would be no candidate at all.
    "--allow-loopback-in-peer-connection",
    // Without it a page of complaints about a missing D-Bus.
    "--log-level=3",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
];

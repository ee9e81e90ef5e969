//! A small client of the Chrome DevTools Protocol: one WebSocket, requests that
//! wait for their answer, console messages kept.

use std::cell::RefCell;
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

/// A connection to a browser.
pub struct Connection {
    inner: RefCell<Inner>,
}

struct Inner {
    socket: WebSocket<TcpStream>,
    next_id: u64,
    /// Console lines and uncaught exceptions, for the report of a failed test.
    console: Vec<String>,
}

impl Connection {
    /// Connects to the browser's debugging port.
    ///
    /// # Panics
    /// When the browser does not answer.
    pub fn open(port: u16, path: &str) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the debugging port answers");
        stream
            .set_read_timeout(Some(ANSWER_LIMIT))
            .expect("a timeout can be set");
        let url = format!("ws://127.0.0.1:{port}{path}");
        let (socket, _) = tungstenite::client(url, stream).expect("the debugging socket opens");
        Self {
            inner: RefCell::new(Inner {
                socket,
                next_id: 1,
                console: Vec::new(),
            }),
        }
    }

    /// Calls `method` and waits for its result; `session` is a tab's.
    ///
    /// # Panics
    /// When the browser answers with an error, or not at all.
    pub fn call(&self, session: Option<&str>, method: &str, params: Value) -> Value {
        let mut inner = self.inner.borrow_mut();
        let id = inner.next_id;
        inner.next_id += 1;
        let mut request = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = session {
            request["sessionId"] = json!(session);
        }
        inner
            .socket
            .send(Message::text(request.to_string()))
            .expect("the browser takes requests");
        loop {
            let message = inner
                .socket
                .read()
                .unwrap_or_else(|error| panic!("{method}: no answer from the browser: {error}"));
            let Message::Text(text) = message else {
                continue;
            };
            let answer: Value = serde_json::from_str(&text).expect("the browser speaks JSON");
            if answer["id"] == json!(id) {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
            inner.note(&answer);
        }
    }

    /// What the pages wrote to their consoles so far.
    pub fn console(&self) -> Vec<String> {
        self.inner.borrow().console.clone()
    }
}

impl Inner {
    /// Keeps console lines and exceptions.
    fn note(&mut self, event: &Value) {
        let params = &event["params"];
        let line = match event["method"].as_str() {
            Some("Runtime.consoleAPICalled") => {
                let args = params["args"].as_array().cloned().unwrap_or_default();
                let words: Vec<String> = args
                    .iter()
                    .map(|arg| match &arg["value"] {
                        Value::Null => arg["description"].as_str().unwrap_or("?").to_owned(),
                        Value::String(text) => text.clone(),
                        other => other.to_string(),
                    })
                    .collect();
                format!(
                    "{}: {}",
                    params["type"].as_str().unwrap_or("log"),
                    words.join(" ")
                )
            }
            Some("Runtime.exceptionThrown") => {
                let details = &params["exceptionDetails"];
                format!(
                    "exception: {} {}",
                    details["text"].as_str().unwrap_or_default(),
                    details["exception"]["description"]
                        .as_str()
                        .unwrap_or_default()
                )
            }
            Some("Log.entryAdded") => format!(
                "{}: {} {}",
                params["entry"]["level"].as_str().unwrap_or("log"),
                params["entry"]["text"].as_str().unwrap_or_default(),
                params["entry"]["url"].as_str().unwrap_or_default()
            ),
            _ => return,
        };
        self.console.push(line);
    }
}

/// The longest a single call may take; page scripts that wait keep below it.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

//! Clients of rooms and calls: a WebSocket each, and its media by RTMP or by WebRTC.

use std::collections::BTreeMap;
use std::time::Instant;

use rtmp_gateway::gateway::{ConnId, Listener};
use rtmp_gateway::rtmp::client::Goal;
use serde_json::{Value, json};

use super::World;
use crate::common::browser::{BrowserConfig, Does};
use crate::common::clip::Clip;

/// A client of the world.
#[derive(Default)]
pub struct Member {
    pub conn: Option<ConnId>,
    /// Everything it got, in order, with its time.
    pub got: Vec<(Instant, Value)>,
    /// What its WebSocket was closed with.
    pub close_code: Option<u16>,
    /// The secret to resume with.
    pub session: String,
    next_id: u64,
    input: Vec<u8>,
    upgraded: bool,
}

impl Member {
    /// The number of the last event.
    pub fn seq(&self) -> u64 {
        let seqs = self.got.iter().filter_map(|(_, m)| m["seq"].as_u64());
        seqs.max().unwrap_or(0)
    }

    /// All events of a type.
    pub fn events(&self, kind: &str) -> Vec<&Value> {
        let all = self.got.iter().map(|(_, message)| message);
        all.filter(|m| m["type"] == kind && m.get("id").is_none())
            .collect()
    }

    /// The last event of a type.
    pub fn event(&self, kind: &str) -> &Value {
        let all = self.events(kind);
        all.last()
            .unwrap_or_else(|| panic!("no {kind}: {:#?}", self.got))
    }

    /// The last answer to a request.
    pub fn answer(&self, id: u64) -> Option<&Value> {
        let mut all = self.got.iter().map(|(_, message)| message);
        all.rfind(|message| message["id"] == id)
    }
}

/// What of a connection's bytes belongs to which member.
#[derive(Default)]
pub struct Members {
    pub all: Vec<Member>,
    pub(super) of_conn: BTreeMap<ConnId, usize>,
}

impl World {
    /// Opens a WebSocket that has not said hello.
    pub fn ws(&mut self) -> usize {
        let member = self.members.all.len();
        self.members.all.push(Member::default());
        self.ws_again(member);
        member
    }

    /// Opens another WebSocket for a client.
    pub fn ws_again(&mut self, member: usize) {
        let conn = self.connect(Listener::Http);
        self.members.of_conn.insert(conn, member);
        let client = &mut self.members.all[member];
        client.conn = Some(conn);
        client.upgraded = false;
        client.close_code = None;
        client.input.clear();
        let request = "GET /ws HTTP/1.1\r\nHost: gateway.test:8080\r\nUpgrade: websocket\r\n\
                       Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        self.raw_send(conn, request.as_bytes());
        assert!(self.members.all[member].upgraded, "no upgrade");
    }

    /// Signs in; panics if that is refused.
    pub fn sign_in(&mut self, user: &str, kind: &str) -> usize {
        let member = self.ws();
        let answer = self.hello(member, json!({"kind": kind, "user": user}));
        assert_eq!(answer["type"], "ok", "{answer}");
        member
    }

    /// Says hello with these fields; answers what came back.
    pub fn hello(&mut self, member: usize, fields: Value) -> Value {
        let mut hello = json!({"type": "hello", "version": 1});
        merge(&mut hello, fields);
        let answer = self.ask(member, hello);
        if let Some(session) = answer["session"].as_str() {
            self.members.all[member].session = session.to_owned();
        }
        answer
    }

    /// Signs in on a new WebSocket with the session of before.
    pub fn resume(&mut self, member: usize) -> Value {
        self.ws_again(member);
        let (session, seq) = {
            let client = &self.members.all[member];
            (client.session.clone(), client.seq())
        };
        self.hello(
            member,
            json!({"kind": "webrtc", "resume": {"session": session, "seq": seq}}),
        )
    }

    /// A request with an id of its own; answers its answer, `null` if none came yet.
    pub fn ask(&mut self, member: usize, mut request: Value) -> Value {
        let client = &mut self.members.all[member];
        client.next_id += 1;
        let id = client.next_id;
        request["id"] = json!(id);
        self.say(member, &request);
        self.members.all[member]
            .answer(id)
            .cloned()
            .unwrap_or(Value::Null)
    }

    /// A request that must be done.
    pub fn ask_ok(&mut self, member: usize, request: Value) -> Value {
        let answer = self.ask(member, request);
        assert_eq!(answer["type"], "ok", "{answer}");
        answer
    }

    /// Sends one message, which arrives at once.
    pub fn say(&mut self, member: usize, message: &Value) {
        self.say_text(member, &message.to_string());
    }

    pub fn say_text(&mut self, member: usize, text: &str) {
        self.say_frame(member, 0x81, text.as_bytes());
    }

    /// Sends a frame with this first byte.
    pub fn say_frame(&mut self, member: usize, first: u8, payload: &[u8]) {
        let Some(conn) = self.members.all[member].conn else {
            return;
        };
        let mut bytes = vec![first];
        match payload.len() {
            len @ 0..126 => bytes.push(0x80 | len as u8),
            len @ 126..65_536 => {
                bytes.push(0x80 | 126);
                bytes.extend((len as u16).to_be_bytes());
            }
            len => {
                bytes.push(0x80 | 127);
                bytes.extend((len as u64).to_be_bytes());
            }
        }
        let mask = [0x12, 0x34, 0x56, 0x78];
        bytes.extend(mask);
        let masked = payload.iter().zip(mask.iter().cycle());
        bytes.extend(masked.map(|(byte, mask)| byte ^ mask));
        self.raw_send(conn, &bytes);
    }

    /// The client's WebSocket is gone; its media goes on.
    pub fn drop_ws(&mut self, member: usize) {
        if let Some(conn) = self.members.all[member].conn.take() {
            self.hang_up_raw(conn);
            self.run_ms(2);
        }
    }

    pub fn member(&self, member: usize) -> &Member {
        &self.members.all[member]
    }

    /// Sends `ping` for all clients for so long, so that nobody is given up.
    pub fn run_alive(&mut self, millis: u64) {
        let mut left = millis;
        while left > 0 {
            let step = left.min(5_000);
            self.run_ms(step);
            left -= step;
            for member in 0..self.members.all.len() {
                if self.members.all[member].conn.is_some() && left > 0 {
                    let seq = self.members.all[member].seq();
                    self.ask(member, json!({"type": "ping", "seq": seq}));
                }
            }
        }
    }

    /// What stands behind the host of an RTMP URL.
    pub fn push_url(&mut self, url: &str) -> ConnId {
        self.rtmp_publish(path_of(url))
    }

    pub fn play_url(&mut self, url: &str) -> ConnId {
        self.rtmp(Goal::Play, path_of(url))
    }

    /// A WebRTC member publishes the clip and a tone; answers its browser.
    pub fn publish_offer(&mut self, member: usize, room: &str) -> usize {
        let index = self.add_browser(BrowserConfig::new(Does::Publish));
        let offer = self.browser(index).browser.offer().to_owned();
        let answer = self.ask_ok(
            member,
            json!({"type": "publish", "room": room, "offer": offer}),
        );
        self.accept_answer(index, &answer);
        self.source_clip(index);
        index
    }

    /// A WebRTC member wants to watch another one; answers its browser and its request's id.
    pub fn subscribe_offer(&mut self, member: usize, room: &str, other: &str) -> (usize, u64) {
        let index = self.add_browser(BrowserConfig::new(Does::View));
        let offer = self.browser(index).browser.offer().to_owned();
        let request = json!({
            "type": "subscribe", "room": room, "member": other, "offer": offer,
        });
        let answer = self.ask(member, request);
        let id = self.members.all[member].next_id;
        if answer["type"] == "ok" {
            self.accept_answer(index, &answer);
        }
        (index, id)
    }

    /// The answer to a `subscribe` that had to wait.
    pub fn accept_late(&mut self, member: usize, subscribed: (usize, u64)) {
        let answer = self.members.all[member].answer(subscribed.1).cloned();
        let answer = answer.expect("an answer");
        self.accept_answer(subscribed.0, &answer);
    }

    pub fn accept_answer(&mut self, browser: usize, answer: &Value) {
        assert_eq!(answer["type"], "ok", "{answer}");
        let sdp = answer["answer"].as_str().expect("an answer");
        self.accept_sdp(browser, sdp);
    }

    fn source_clip(&mut self, index: usize) {
        let pictures = Clip::load().rtp_pictures();
        self.publish_from(index, pictures);
    }

    /// Takes what came on a member's connection.
    pub(super) fn ws_arrived(&mut self, conn: ConnId, bytes: &[u8]) -> bool {
        let Some(member) = self.members.of_conn.get(&conn).copied() else {
            return false;
        };
        let now = self.now;
        let client = &mut self.members.all[member];
        if client.conn != Some(conn) {
            return true;
        }
        client.input.extend_from_slice(bytes);
        if !client.upgraded {
            let head = String::from_utf8_lossy(&client.input).into_owned();
            let Some(end) = head.find("\r\n\r\n") else {
                return true;
            };
            assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
            assert!(head.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
            client.input.drain(..end + 4);
            client.upgraded = true;
        }
        while let Some((opcode, payload)) = take_frame(&mut client.input) {
            match opcode {
                1 => {
                    let value = serde_json::from_slice(&payload).expect("JSON");
                    client.got.push((now, value));
                }
                8 => {
                    let code = payload.first_chunk::<2>();
                    client.close_code = code.map(|code| u16::from_be_bytes(*code));
                }
                10 => client.got.push((now, json!({"frame": "pong"}))),
                other => panic!("opcode {other}"),
            }
        }
        true
    }
}

/// An unmasked frame, whole.
fn take_frame(input: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let [first, second, ..] = input[..] else {
        return None;
    };
    assert_eq!(first & 0xf0, 0x80, "whole, and without extensions");
    let (head, len) = match second {
        126 => (
            4,
            usize::from(u16::from_be_bytes([*input.get(2)?, *input.get(3)?])),
        ),
        127 => (
            10,
            u64::from_be_bytes(*input.get(2..)?.first_chunk()?) as usize,
        ),
        len => (2, usize::from(len)),
    };
    if input.len() < head + len {
        return None;
    }
    let payload = input[head..head + len].to_vec();
    input.drain(..head + len);
    Some((first & 0x0f, payload))
}

fn path_of(url: &str) -> &str {
    let rest = url.strip_prefix("rtmp://gateway.test/");
    rest.unwrap_or_else(|| panic!("{url} is not of this gateway"))
}

fn merge(into: &mut Value, fields: Value) {
    let Value::Object(fields) = fields else {
        panic!("{fields} is no object");
    };
    for (key, value) in fields {
        into[key] = value;
    }
}

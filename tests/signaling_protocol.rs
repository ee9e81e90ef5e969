//! Holds `PROTOCOL.md` and `asyncapi.json` to the code: each example is read or written by it,
//! and each type and reason of the code stands in both.

use std::collections::BTreeSet;

use rtmp_gateway::signaling::message::answer::{
    CallState, MemberInfo, RoomState, Urls, UserInfo, Welcome,
};
use rtmp_gateway::signaling::message::event::{
    ByeReason, ClosedReason, EndReason, Event, LeftReason, MediaReason,
};
use rtmp_gateway::signaling::message::{Incoming, Reason, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const PROTOCOL: &str = include_str!("../src/signaling/PROTOCOL.md");
const ASYNCAPI: &str = include_str!("../src/signaling/asyncapi.json");

/// The examples, each with whether the client sends it. What is left out in one (`{...}`) is
/// given here.
fn examples() -> Vec<(bool, Value)> {
    let member = "{\"member\":\"m3\",\"user\":\"anna\",\"name\":\"Anna\",\"kind\":\"rtmp\",\"audio\":true,\
                  \"video\":true,\"means_audio\":true,\"means_video\":true,\"muted_audio\":false,\
                  \"muted_video\":false}";
    let text = PROTOCOL
        .replace(
            "{ as in \"members\", with \"play\" for an rtmp receiver }",
            member,
        )
        .replace("\"members\":[...]", "\"members\":[]")
        .replace(
            "\"push\":{...}",
            "\"push\":{\"url\":\"rtmp://HOST/x\",\"expires_ms\":1}",
        );
    let mut found = Vec::new();
    for (arrow, is_clients) in [("\u{2192} {", true), ("\u{2190} {", false)] {
        for part in text.split(arrow).skip(1) {
            let json = format!("{{{part}");
            let mut values = serde_json::Deserializer::from_str(&json).into_iter::<Value>();
            let value = values.next().expect("an example");
            let line = json.lines().next().unwrap_or_default();
            found.push((is_clients, value.unwrap_or_else(|e| panic!("{e}: {line}"))));
        }
    }
    found
}

/// Whether a value is one of these, and nothing is lost of it.
fn fits<T: DeserializeOwned + Serialize>(value: &Value) -> bool {
    serde_json::from_value::<T>(value.clone())
        .is_ok_and(|read| serde_json::to_value(read).expect("JSON") == *value)
}

#[test]
fn every_example_is_read_or_written_by_the_code() {
    let examples = examples();
    assert!(examples.len() > 40, "{}", examples.len());
    for (is_clients, mut value) in examples {
        let kind = value["type"].as_str().expect("a type").to_owned();
        if is_clients {
            let read = Incoming::decode(&value.to_string());
            assert!(read.is_ok(), "{value}: {read:?}");
            continue;
        }
        let object = value.as_object_mut().expect("an object");
        match kind.as_str() {
            "ping" => {}
            "bye" => {
                let reason = object["reason"].as_str().expect("a reason");
                assert!(ByeReason::ALL.iter().any(|known| known.as_str() == reason));
            }
            "error" => {
                let reason = object["reason"].as_str().expect("a reason");
                assert!(Reason::ALL.iter().any(|known| known.as_str() == reason));
            }
            "ok" => {
                object.remove("type");
                object.remove("id");
                let users = object.get("users").cloned().unwrap_or(Value::Null);
                let keys: Vec<&str> = object.keys().map(String::as_str).collect();
                let known = keys.is_empty()
                    || keys == ["room"]
                    || keys == ["answer", "media"]
                    || (keys == ["users"] && fits::<Vec<UserInfo>>(&users))
                    || fits::<Welcome>(&value)
                    || fits::<RoomState>(&value)
                    || fits::<Urls>(&value)
                    || fits::<CallState>(&value);
                assert!(known, "{value}");
            }
            _ => {
                let seq = object.remove("seq");
                assert!(seq.is_some_and(|seq| seq.is_u64()), "{value}");
                assert!(fits::<Event>(&value), "{value}");
            }
        }
    }
}

#[test]
fn every_type_has_an_example() {
    let examples = examples();
    let of = |is_clients: bool| -> BTreeSet<String> {
        let all = examples
            .iter()
            .filter(|(clients, _)| *clients == is_clients);
        all.map(|(_, value)| value["type"].as_str().expect("a type").to_owned())
            .collect()
    };
    let (sent, got) = (of(true), of(false));
    for kind in Request::TYPES {
        assert!(sent.contains(*kind), "no example of {kind}");
    }
    for kind in Event::TYPES {
        let quoted = format!("\"type\":\"{kind}\"");
        assert!(
            got.contains(*kind) || PROTOCOL.contains(&quoted),
            "no example of {kind}"
        );
    }
}

#[test]
fn every_reason_is_explained() {
    let words = Reason::ALL.iter().map(|r| r.as_str());
    let words = words
        .chain(LeftReason::ALL.iter().map(|r| r.as_str()))
        .chain(ClosedReason::ALL.iter().map(|r| r.as_str()))
        .chain(MediaReason::ALL.iter().map(|r| r.as_str()))
        .chain(EndReason::ALL.iter().map(|r| r.as_str()))
        .chain(ByeReason::ALL.iter().map(|r| r.as_str()));
    for word in words {
        assert!(
            PROTOCOL.contains(&format!("`{word}`")),
            "{word} is not in PROTOCOL.md"
        );
        assert!(
            ASYNCAPI.contains(&format!("\"{word}\"")),
            "{word} is not in asyncapi.json"
        );
    }
}

#[test]
fn the_description_for_programs_has_the_same_messages() {
    let api: Value = serde_json::from_str(ASYNCAPI).expect("JSON");
    let messages = api["components"]["messages"].as_object().expect("messages");
    let mut expected: BTreeSet<String> = BTreeSet::new();
    expected.extend(Request::TYPES.iter().map(|kind| format!("request.{kind}")));
    expected.extend(Event::TYPES.iter().map(|kind| format!("event.{kind}")));
    expected.extend(["request.pong", "answer.ok", "answer.error"].map(str::to_owned));
    let described: BTreeSet<String> = messages.keys().cloned().collect();
    assert_eq!(described, expected);
    // Each example has the fields that are required, and no others.
    for (is_clients, value) in examples() {
        let kind = value["type"].as_str().expect("a type");
        let name = match (is_clients, kind) {
            (_, "ok" | "error") => format!("answer.{kind}"),
            (true, _) => format!("request.{kind}"),
            (false, _) => format!("event.{kind}"),
        };
        let schema = &messages[&name]["payload"];
        for required in schema["required"].as_array().expect("fields") {
            let field = required.as_str().expect("a name");
            assert!(!value[field].is_null(), "{name} needs {field}: {value}");
        }
        if kind != "ok" {
            for field in value.as_object().expect("an object").keys() {
                assert!(
                    !schema["properties"][field].is_null(),
                    "{name} has no {field}"
                );
            }
        }
    }
    let member = &api["components"]["schemas"]["member"]["properties"];
    let info = json!({
        "member": "m", "user": "u", "name": "n", "kind": "rtmp", "audio": true, "video": true,
        "means_audio": true, "means_video": true, "muted_audio": true, "muted_video": true,
        "play": {"url": "u", "audio_url": "a"},
    });
    assert!(fits::<MemberInfo>(&info));
    let fields: BTreeSet<&String> = info.as_object().expect("an object").keys().collect();
    let described: BTreeSet<&String> = member.as_object().expect("fields").keys().collect();
    assert_eq!(fields, described);
}

//! The commands that a server says by itself, as bodies.

use crate::rtmp::amf0::Value;
use crate::rtmp::command::{Command, ConnectInfo};

/// The level of an onStatus (section 7.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// All is well.
    Status,
    /// Something is amiss and the stream goes on.
    Warning,
    /// What was asked for will not happen. ffmpeg prints the description and exits.
    Error,
}

impl Level {
    const fn name(self) -> &'static str {
        match self {
            Level::Status => "status",
            Level::Warning => "warning",
            Level::Error => "error",
        }
    }
}

/// The answer to a connect that is accepted.
pub(super) fn connect_result(
    transaction_id: f64,
    info: &ConnectInfo,
    announce_enhanced: bool,
) -> Command {
    let mut properties = vec![
        pair("fmsVer", Value::string("FMS/3,0,1,123")),
        pair("capabilities", Value::Number(31.0)),
    ];
    let mut information = vec![
        pair("level", Value::string("status")),
        pair("code", Value::string("NetConnection.Connect.Success")),
        pair("description", Value::string("Connection succeeded.")),
        pair("objectEncoding", Value::Number(info.object_encoding)),
    ];
    // Enhanced RTMP leaves open which of the two objects a client looks into: servers and
    // clients in the field are found on both sides.
    if announce_enhanced {
        let enhanced = enhanced_capabilities(info);
        properties.extend(enhanced.clone());
        information.extend(enhanced);
    }
    Command::new(
        "_result",
        transaction_id,
        vec![Value::Object(properties), Value::Object(information)],
    )
}

/// What is said of Enhanced RTMP to a client that spoke of it first.
fn enhanced_capabilities(info: &ConnectInfo) -> Vec<(String, Value)> {
    let mut pairs = Vec::new();
    if info.has_four_cc_list {
        let list = ["avc1", "mp4a"].map(Value::string).into();
        pairs.push(pair("fourCcList", Value::StrictArray(list)));
    }
    if info.has_four_cc_info {
        let can_forward = || Value::Number(f64::from(FOUR_CC_CAN_FORWARD));
        pairs.push(pair(
            "videoFourCcInfoMap",
            Value::object([("avc1", can_forward())]),
        ));
        pairs.push(pair(
            "audioFourCcInfoMap",
            Value::object([("mp4a", can_forward())]),
        ));
    }
    if let Some(caps) = info.caps_ex {
        let common = caps & (CAPS_EX_RECONNECT | CAPS_EX_MOD_EX);
        pairs.push(pair("capsEx", Value::Number(f64::from(common))));
    }
    pairs
}

/// The answer to a connect that is refused.
pub(super) fn connect_rejected(transaction_id: f64, description: &str) -> Command {
    error(
        transaction_id,
        "NetConnection.Connect.Rejected",
        description,
    )
}

/// `_result` with a null command object and one value.
pub(super) fn result(transaction_id: f64, value: Value) -> Command {
    Command::new("_result", transaction_id, vec![Value::Null, value])
}

/// `_error` with its reason.
pub(super) fn error(transaction_id: f64, code: &str, description: &str) -> Command {
    let information = information(Level::Error, code, description);
    Command::new("_error", transaction_id, vec![Value::Null, information])
}

/// `onStatus`, which has transaction ID 0 whatever the command's was (section 7.2.2).
pub(super) fn status(level: Level, code: &str, description: &str) -> Command {
    notice("onStatus", level, code, description)
}

/// A command to the client that carries an information object: `onFCPublish` and its like.
pub(super) fn notice(name: &str, level: Level, code: &str, description: &str) -> Command {
    let information = information(level, code, description);
    Command::new(name, 0.0, vec![Value::Null, information])
}

fn information(level: Level, code: &str, description: &str) -> Value {
    Value::object([
        ("level", Value::string(level.name())),
        ("code", Value::string(code)),
        ("description", Value::string(description)),
    ])
}

fn pair(key: &str, value: Value) -> (String, Value) {
    (key.to_owned(), value)
}

/// Enhanced RTMP v2, FourCcInfoMask: passes the codec on without touching it.
const FOUR_CC_CAN_FORWARD: u8 = 4;
/// Enhanced RTMP v2, CapsExMask.
const CAPS_EX_RECONNECT: u8 = 1;
/// Enhanced RTMP v2, CapsExMask.
const CAPS_EX_MOD_EX: u8 = 4;

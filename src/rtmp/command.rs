//! Command messages (RTMP 1.0 section 7.2) as types.
//!
//! [`Command`] is any command, of either side, as it stands on the wire. [`Request`] is what a
//! client asks of a server, with missing and odd arguments settled.

use std::fmt;

use bytes::Bytes;

use super::amf0::{self, AmfError, AmfLimits, Value};
use super::message::{Message, type_id};

/// A command message: name, transaction ID, command object and arguments.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// The procedure's name, or `_result`, `_error`, `onStatus`.
    pub name: String,
    /// 0 when no answer is expected. Some clients send no number at all, which reads as 0.
    pub transaction_id: f64,
    /// The command object, then the arguments.
    pub values: Vec<Value>,
}

/// Why a command could not be read. Ends the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// The body is not AMF.
    Amf(AmfError),
    /// The first value is not a string.
    NoName,
}

impl CommandError {
    /// A short name for counters.
    pub fn reason(&self) -> &'static str {
        match self {
            CommandError::Amf(error) => error.reason(),
            CommandError::NoName => "command_without_name",
        }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommandError::Amf(error) => write!(f, "command is malformed: {error}"),
            CommandError::NoName => f.write_str("command does not begin with its name"),
        }
    }
}

impl std::error::Error for CommandError {}

impl Command {
    /// A command to be sent.
    pub fn new(name: &str, transaction_id: f64, values: Vec<Value>) -> Self {
        Self {
            name: name.to_owned(),
            transaction_id,
            values,
        }
    }

    /// Reads a command message of type 20 or 17.
    ///
    /// # Errors
    /// See [`CommandError`]. A message of another type has no name.
    pub fn decode(message: &Message, limits: AmfLimits) -> Result<Self, CommandError> {
        let body = message.amf0_body().ok_or(CommandError::NoName)?;
        let mut values = amf0::decode_all(body, limits)
            .map_err(CommandError::Amf)?
            .into_iter();
        let Some(Value::String(name)) = values.next() else {
            return Err(CommandError::NoName);
        };
        let transaction_id = values
            .next()
            .and_then(|value| value.as_f64())
            .filter(|id| id.is_finite())
            .unwrap_or(0.0);
        Ok(Self {
            name,
            transaction_id,
            values: values.collect(),
        })
    }

    /// The body in AMF0, which both object encodings understand.
    pub fn encode(&self) -> Bytes {
        let mut body = Vec::with_capacity(256);
        amf0::encode(&Value::string(self.name.as_str()), &mut body);
        amf0::encode(&Value::Number(self.transaction_id), &mut body);
        for value in &self.values {
            amf0::encode(value, &mut body);
        }
        body.into()
    }

    /// The message that carries the command at timestamp 0.
    pub fn to_message(&self, csid: u32, stream_id: u32) -> Message {
        Message {
            csid,
            timestamp: 0,
            type_id: type_id::COMMAND_AMF0,
            stream_id,
            payload: self.encode(),
        }
    }

    /// The command object, or the first value of a reply.
    pub fn object(&self) -> Option<&Value> {
        self.values.first()
    }

    /// The argument `index` behind the command object.
    pub fn argument(&self, index: usize) -> Option<&Value> {
        self.values.get(index + 1)
    }

    /// What a client asks for.
    pub fn request(&self) -> Request {
        let name = || {
            let text = self.argument(0).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        let number = |index| self.argument(index).and_then(Value::as_f64);
        match self.name.as_str() {
            "connect" => Request::Connect(Box::new(ConnectInfo::decode(self.object()))),
            "createStream" => Request::CreateStream,
            "releaseStream" => Request::ReleaseStream { name: name() },
            "FCPublish" => Request::FcPublish { name: name() },
            "FCUnpublish" => Request::FcUnpublish { name: name() },
            "FCSubscribe" => Request::FcSubscribe { name: name() },
            "publish" => Request::Publish {
                name: name(),
                kind: PublishKind::decode(self.argument(1)),
            },
            "play" => Request::Play {
                name: name(),
                start: PlayStart::decode(number(1)),
                // Section 7.2.2.1: a boolean or a number, true by default.
                reset: is_on(self.argument(3), true),
            },
            // Section 7.2.2.2: one object; a live stream has nothing to switch between
            // but streams.
            "play2" => Request::Play {
                name: self
                    .argument(0)
                    .and_then(|options| options.get("streamName"))
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned(),
                start: PlayStart::LiveOrRecorded,
                reset: true,
            },
            "deleteStream" => Request::DeleteStream {
                stream_id: number(0).and_then(stream_id),
            },
            "closeStream" => Request::CloseStream,
            "receiveAudio" => Request::ReceiveAudio {
                on: is_on(self.argument(0), true),
            },
            "receiveVideo" => Request::ReceiveVideo {
                on: is_on(self.argument(0), true),
            },
            "pause" | "pauseRaw" => Request::Pause {
                on: is_on(self.argument(0), true),
            },
            "seek" => Request::Seek {
                position_ms: number(0).unwrap_or(0.0),
            },
            "getStreamLength" => Request::GetStreamLength,
            "_checkbw" | "checkBandwidth" => Request::CheckBandwidth,
            "_result" | "_error" | "onStatus" => Request::Reply,
            _ => Request::Unknown,
        }
    }
}

/// What a client asks of a server.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Section 7.2.1.1.
    Connect(Box<ConnectInfo>),
    /// Section 7.2.1.3.
    CreateStream,
    /// FMLE, OBS and ffmpeg send it before they publish; nothing depends on the answer.
    ReleaseStream {
        /// The stream name as sent.
        name: String,
    },
    /// FMLE, OBS and ffmpeg announce what they will publish.
    FcPublish {
        /// The stream name as sent.
        name: String,
    },
    /// FMLE, OBS and ffmpeg announce the end of what they publish.
    FcUnpublish {
        /// The stream name as sent.
        name: String,
    },
    /// rtmpdump sends it before it plays.
    FcSubscribe {
        /// The stream name as sent.
        name: String,
    },
    /// Section 7.2.2.6.
    Publish {
        /// The stream name as sent, query and all.
        name: String,
        /// Missing reads as live.
        kind: PublishKind,
    },
    /// Sections 7.2.2.1 and 7.2.2.2.
    Play {
        /// The stream name as sent, query and all.
        name: String,
        /// Where to start.
        start: PlayStart,
        /// Whether an earlier playlist is dropped.
        reset: bool,
    },
    /// Section 7.2.2.3.
    DeleteStream {
        /// `None` when the argument is missing or no message stream ID.
        stream_id: Option<u32>,
    },
    /// The stream that the message is on stops; its ID stays.
    CloseStream,
    /// Section 7.2.2.4.
    ReceiveAudio {
        /// Whether audio is wanted.
        on: bool,
    },
    /// Section 7.2.2.5.
    ReceiveVideo {
        /// Whether video is wanted.
        on: bool,
    },
    /// Section 7.2.2.8.
    Pause {
        /// Pause, or resume.
        on: bool,
    },
    /// Section 7.2.2.7.
    Seek {
        /// Milliseconds.
        position_ms: f64,
    },
    /// ffmpeg asks for it before it plays.
    GetStreamLength,
    /// ffmpeg and librtmp call it when they are told `onBWDone`.
    CheckBandwidth,
    /// An answer to something.
    Reply,
    /// Anything else.
    Unknown,
}

/// Publishing type (section 7.2.2.6). All are live here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishKind {
    /// `live`, missing, or no type of the specification.
    Live,
    /// `record`.
    Record,
    /// `append`.
    Append,
}

impl PublishKind {
    fn decode(value: Option<&Value>) -> Self {
        match value.and_then(Value::as_str) {
            Some("record") => PublishKind::Record,
            Some("append") => PublishKind::Append,
            _ => PublishKind::Live,
        }
    }
}

/// The start argument of play (section 7.2.2.1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PlayStart {
    /// -2, missing, or any other negative number: live, else recorded, else wait.
    LiveOrRecorded,
    /// -1: only live.
    Live,
    /// From this many seconds into a recording; a live stream plays live.
    Position(f64),
}

impl PlayStart {
    fn decode(start: Option<f64>) -> Self {
        match start {
            Some(start) if start >= 0.0 => PlayStart::Position(start),
            // ffmpeg and rtmpdump send the specification's values times 1 000.
            Some(start) if start == -1.0 || start == -1_000.0 => PlayStart::Live,
            _ => PlayStart::LiveOrRecorded,
        }
    }
}

/// The command object of connect (section 7.2.1.1 and Enhanced RTMP v2).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectInfo {
    /// The application, query and all, as sent; may be empty.
    pub app: String,
    /// The address the client connected to.
    pub tc_url: Option<String>,
    /// The client's program, such as `FMLE/3.0 (compatible; FMSc/1.0)`.
    pub flash_version: Option<String>,
    /// The page that holds the player.
    pub page_url: Option<String>,
    /// 0 is AMF0, 3 is AMF0 and AMF3.
    pub object_encoding: f64,
    /// Whether the client lists FourCCs in the form of Enhanced RTMP v1 (`fourCcList`).
    pub has_four_cc_list: bool,
    /// Whether the client lists FourCCs in the form of Enhanced RTMP v2
    /// (`videoFourCcInfoMap`, `audioFourCcInfoMap`).
    pub has_four_cc_info: bool,
    /// `capsEx` of Enhanced RTMP v2: 1 reconnect, 2 multitrack, 4 ModEx, 8 nanosecond offsets.
    pub caps_ex: Option<u8>,
}

impl ConnectInfo {
    /// Reads the command object; nothing in it is required.
    fn decode(object: Option<&Value>) -> Self {
        let get = |key: &str| object.and_then(|object| object.get(key));
        let text = |key: &str| get(key).and_then(Value::as_str).map(str::to_owned);
        Self {
            app: text("app").unwrap_or_default(),
            tc_url: text("tcUrl"),
            flash_version: text("flashVer"),
            page_url: text("pageUrl"),
            object_encoding: get("objectEncoding").and_then(Value::as_f64).unwrap_or(0.0),
            has_four_cc_list: get("fourCcList").is_some(),
            has_four_cc_info: get("videoFourCcInfoMap").is_some()
                || get("audioFourCcInfoMap").is_some(),
            // A cast from f64 saturates, so a nonsense value is only a nonsense bit set.
            caps_ex: get("capsEx").and_then(Value::as_f64).map(|caps| caps as u8),
        }
    }

    /// Whether the client understands a request to connect again (Enhanced RTMP v2).
    pub fn can_reconnect(&self) -> bool {
        self.caps_ex.is_some_and(|caps| caps & 1 != 0)
    }
}

/// A boolean argument; some clients send numbers.
fn is_on(value: Option<&Value>, default: bool) -> bool {
    match value {
        Some(Value::Boolean(on)) => *on,
        Some(Value::Number(number)) => *number != 0.0,
        _ => default,
    }
}

/// A message stream ID out of an AMF number.
pub(super) fn stream_id(number: f64) -> Option<u32> {
    // In range and whole, so the cast is exact.
    (number >= 0.0 && number <= f64::from(u32::MAX) && number.fract() == 0.0)
        .then_some(number as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(name: &str, values: Vec<Value>) -> Request {
        let command = Command::new(name, 2.0, values);
        let message = command.to_message(3, 1);
        let decoded = Command::decode(&message, AmfLimits::default()).expect("a command");
        // NaN is not equal to itself, so the texts are compared.
        assert_eq!(format!("{decoded:?}"), format!("{command:?}"));
        decoded.request()
    }

    /// Case 23, the part that concerns arguments.
    #[test]
    fn play_arguments_may_be_in_thousands_or_missing() {
        let start = |arguments: &[f64]| {
            let mut values = vec![Value::Null, Value::string("s")];
            values.extend(arguments.iter().map(|&number| Value::Number(number)));
            match request("play", values) {
                Request::Play { name, start, reset } => {
                    assert_eq!((name.as_str(), reset), ("s", true));
                    start
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(start(&[]), PlayStart::LiveOrRecorded);
        assert_eq!(start(&[-2.0]), PlayStart::LiveOrRecorded);
        assert_eq!(start(&[-2_000.0]), PlayStart::LiveOrRecorded);
        assert_eq!(start(&[-1.0, -1.0]), PlayStart::Live);
        assert_eq!(start(&[-1_000.0]), PlayStart::Live);
        assert_eq!(start(&[0.0]), PlayStart::Position(0.0));
        assert_eq!(start(&[f64::NAN]), PlayStart::LiveOrRecorded);
    }

    #[test]
    fn publish_types_default_to_live() {
        for (argument, kind) in [
            (None, PublishKind::Live),
            (Some(Value::string("live")), PublishKind::Live),
            (Some(Value::string("record")), PublishKind::Record),
            (Some(Value::string("append")), PublishKind::Append),
            (Some(Value::string("default")), PublishKind::Live),
            (Some(Value::Null), PublishKind::Live),
        ] {
            let mut values = vec![Value::Null, Value::string("s")];
            values.extend(argument);
            let expected = Request::Publish {
                name: "s".to_owned(),
                kind,
            };
            assert_eq!(request("publish", values), expected);
        }
    }

    #[test]
    fn odd_arguments_have_a_meaning() {
        assert_eq!(
            request("deleteStream", vec![Value::Null, Value::Number(1.0)]),
            Request::DeleteStream { stream_id: Some(1) }
        );
        for odd in [-1.0, 0.5, 1e10, f64::NAN] {
            assert_eq!(
                request("deleteStream", vec![Value::Null, Value::Number(odd)]),
                Request::DeleteStream { stream_id: None }
            );
        }
        assert_eq!(
            request("receiveVideo", vec![Value::Null, Value::Number(0.0)]),
            Request::ReceiveVideo { on: false }
        );
        assert_eq!(
            request("receiveAudio", vec![]),
            Request::ReceiveAudio { on: true }
        );
        assert_eq!(request("doSomething", vec![]), Request::Unknown);
        assert_eq!(
            request("publish", vec![]),
            Request::Publish {
                name: String::new(),
                kind: PublishKind::Live
            }
        );
    }

    #[test]
    fn connect_needs_no_field() {
        let Request::Connect(info) = request("connect", vec![]) else {
            panic!("a connect");
        };
        assert_eq!(*info, ConnectInfo::default());
        let object = Value::object([
            ("tcUrl", Value::string("rtmp://h/live")),
            ("app", Value::string("live")),
            ("objectEncoding", Value::Number(3.0)),
            ("capsEx", Value::Number(5.0)),
            ("fourCcList", Value::StrictArray(vec![Value::string("*")])),
        ]);
        let Request::Connect(info) = request("connect", vec![object]) else {
            panic!("a connect");
        };
        assert_eq!(info.app, "live");
        assert_eq!(info.object_encoding, 3.0);
        assert!(info.can_reconnect() && info.has_four_cc_list && !info.has_four_cc_info);
    }

    /// Case 11, the part that concerns commands.
    #[test]
    fn a_type_17_command_is_read_as_type_20() {
        let command = Command::new("createStream", 4.0, vec![Value::Null]);
        let body = [&[0], command.encode().as_ref()].concat();
        let message = Message {
            csid: 3,
            timestamp: 0,
            type_id: type_id::COMMAND_AMF3,
            stream_id: 0,
            payload: body.into(),
        };
        assert_eq!(Command::decode(&message, AmfLimits::default()), Ok(command));
    }

    #[test]
    fn a_command_without_name_is_an_error_and_one_without_transaction_is_not() {
        let decode = |body: &[u8]| {
            let message = Message {
                csid: 3,
                timestamp: 0,
                type_id: type_id::COMMAND_AMF0,
                stream_id: 0,
                payload: Bytes::copy_from_slice(body),
            };
            Command::decode(&message, AmfLimits::default())
        };
        assert_eq!(decode(&[]), Err(CommandError::NoName));
        assert_eq!(decode(&[5]), Err(CommandError::NoName));
        let command = decode(&[2, 0, 1, b'x']).expect("a name is enough");
        assert_eq!((command.name.as_str(), command.transaction_id), ("x", 0.0));
        assert!(matches!(
            decode(&[2, 0, 9, b'x']),
            Err(CommandError::Amf(_))
        ));
    }
}

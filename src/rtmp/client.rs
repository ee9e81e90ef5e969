//! [`Client`]: the client's side of one RTMP connection, without its socket. It publishes or
//! plays one stream.
//!
//! ```text
//!  Handshaking ──▶ Connecting ──▶ Creating ──▶ Starting ──▶ Publishing | Playing ──▶ Closed
//!         S0 S1 S2       _result       ▲   _result      onStatus  │        close, error
//!                                      └─ start_again ── Stopped ◀─┘ stop
//! ```
//!
//! It says what ffmpeg says, in the same order, and is cheap: thousands run on one core, and a
//! [`SharedMessage`] can be sent by all of them. It owns no timer; whoever owns the socket
//! decides how long to wait.

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;

use super::amf0::{self, AmfLimits, Value};
use super::chunk::{ChunkError, ChunkLimits, ChunkReader, ChunkWriter};
use super::command::{Command, CommandError, stream_id};
use super::handshake::{ClientHandshake, Form, HandshakeError};
use super::message::{Control, Message, MessageError, UserControl, type_id};
use super::metadata::StreamMetadata;
use super::session::SharedMessage;
use crate::transmit::TransmitQueue;

pub use url::{RtmpUrl, UrlError};

mod url;

#[cfg(test)]
mod tests;

/// What a client connects for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Send a stream.
    Publish,
    /// Receive a stream.
    Play,
}

/// How a client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// The form of the handshake. Default simple, which costs no HMAC.
    pub handshake: Form,
    /// The chunk size it sends with, 128 to 65 536. Default 60 000, as ffmpeg.
    pub chunk_size_out: u32,
    /// What its chunk reader accepts and holds.
    pub chunks: ChunkLimits,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            handshake: Form::Simple,
            chunk_size_out: 60_000,
            chunks: ChunkLimits::default(),
        }
    }
}

/// The client's side of one connection. See the module's text.
#[derive(Debug)]
pub struct Client {
    url: RtmpUrl,
    goal: Goal,
    state: State,
    reader: ChunkReader,
    writer: ChunkWriter,
    chunk_size_out: u32,
    transmit: TransmitQueue,
    events: VecDeque<Event>,
    /// 0 until createStream is answered.
    stream_id: u32,
    received: u64,
    acknowledged: u64,
    /// Bytes between two acknowledgements, as the server asked; 0: never asked.
    ack_window: u64,
}

#[derive(Debug)]
enum State {
    Handshaking(Box<ClientHandshake>),
    Connecting,
    Creating,
    Starting,
    /// Publishing or playing.
    Running,
    /// Connected, with nothing going on.
    Stopped,
    Closed,
}

/// What happened on a client.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The server accepted the connection.
    Connected,
    /// Media may be sent.
    Publishing,
    /// The server says that it plays; media follows when there is a publisher.
    Playing,
    /// Any onStatus, or the reason in an `_error` of connect or createStream.
    Status {
        /// `status`, `warning` or `error`.
        level: String,
        /// Such as `NetStream.Publish.Start`.
        code: String,
        /// For people.
        description: String,
    },
    /// A video message.
    Video {
        /// Milliseconds.
        timestamp: u32,
        /// An FLV tag body.
        payload: Bytes,
    },
    /// An audio message.
    Audio {
        /// Milliseconds.
        timestamp: u32,
        /// An FLV tag body.
        payload: Bytes,
    },
    /// The values of an `onMetaData`.
    Metadata(Value),
    /// The end, by [`Client::close`] or by a status of level `error`. The last event.
    Closed,
}

/// Why a client ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// The server broke a rule of the handshake.
    Handshake(HandshakeError),
    /// The server broke a rule of the chunk stream or reached a limit of it.
    Chunk(ChunkError),
    /// The server sent a control message that makes no sense.
    Message(MessageError),
    /// The server sent a command that makes no sense.
    Command(CommandError),
}

impl ClientError {
    /// A short name for counters.
    pub fn reason(&self) -> &'static str {
        match self {
            ClientError::Handshake(error) => error.reason(),
            ClientError::Chunk(error) => error.reason(),
            ClientError::Message(error) => error.reason(),
            ClientError::Command(error) => error.reason(),
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Handshake(error) => error.fmt(f),
            ClientError::Chunk(error) => error.fmt(f),
            ClientError::Message(error) => error.fmt(f),
            ClientError::Command(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ClientError {}

impl From<HandshakeError> for ClientError {
    fn from(error: HandshakeError) -> Self {
        ClientError::Handshake(error)
    }
}

impl From<ChunkError> for ClientError {
    fn from(error: ChunkError) -> Self {
        ClientError::Chunk(error)
    }
}

impl From<MessageError> for ClientError {
    fn from(error: MessageError) -> Self {
        ClientError::Message(error)
    }
}

impl From<CommandError> for ClientError {
    fn from(error: CommandError) -> Self {
        ClientError::Command(error)
    }
}

impl Client {
    /// A client whose C0 and C1 are queued. `seed` fills the random parts of the handshake.
    pub fn new(url: RtmpUrl, goal: Goal, options: ClientOptions, seed: u64) -> Self {
        let mut transmit = TransmitQueue::new();
        let handshake = ClientHandshake::start(seed, options.handshake, &mut transmit);
        Self {
            url,
            goal,
            state: State::Handshaking(Box::new(handshake)),
            reader: ChunkReader::new(options.chunks),
            writer: ChunkWriter::new(),
            chunk_size_out: options.chunk_size_out,
            transmit,
            events: VecDeque::new(),
            stream_id: 0,
            received: 0,
            acknowledged: 0,
            ack_window: 0,
        }
    }

    /// Takes bytes from the server, cut anywhere.
    ///
    /// # Errors
    /// An error ends the client. Events from before can still be taken.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        let outcome = self.consume(bytes);
        if outcome.is_err() {
            self.state = State::Closed;
        } else {
            self.count_received(bytes.len() as u64);
        }
        outcome
    }

    /// The first of three parts of [`receive`](Self::receive), for a caller that reads the chunk
    /// stream itself because it wants no copy of the media: consumes the handshake from
    /// `input`; `true` when it is over and what is left in `input` are chunks.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn receive_handshake(&mut self, input: &mut &[u8]) -> Result<bool, ClientError> {
        let State::Handshaking(handshake) = &mut self.state else {
            return Ok(true);
        };
        match handshake.read(input, &mut self.transmit) {
            Ok(true) => {
                self.state = State::Connecting;
                self.connect();
                Ok(true)
            }
            Ok(false) => Ok(false),
            Err(error) => {
                self.state = State::Closed;
                Err(error.into())
            }
        }
    }

    /// The second part: takes a message that the caller put together. Audio and video may be
    /// kept back, all others must come.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn receive_message(&mut self, message: Message) -> Result<(), ClientError> {
        if self.is_closed() || matches!(self.state, State::Handshaking(_)) {
            return Ok(());
        }
        let outcome = self.on_message(message);
        if outcome.is_err() {
            self.state = State::Closed;
        }
        outcome
    }

    /// The third part: counts what came, media too, and acknowledges where the server wants it.
    pub fn count_received(&mut self, bytes: u64) {
        self.received += bytes;
        if self.ack_window > 0
            && !self.is_closed()
            && self.received - self.acknowledged >= self.ack_window
        {
            self.acknowledged = self.received;
            // Section 5.4.3: the low 32 bits are what is meant.
            self.queue(&Control::Acknowledgement(self.received as u32).to_message());
        }
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What is to be written to the server.
    pub fn transmit(&mut self) -> &mut TransmitQueue {
        &mut self.transmit
    }

    /// Sends an FLV video tag body: `header` and `payload` one after the other.
    pub fn send_video(&mut self, timestamp: u32, header: &[u8], payload: &[u8]) {
        self.send_shared(&SharedMessage::video(
            timestamp,
            header,
            payload,
            self.chunk_size_out,
        ));
    }

    /// Sends an FLV audio tag body: `header` and `payload` one after the other.
    pub fn send_audio(&mut self, timestamp: u32, header: &[u8], payload: &[u8]) {
        self.send_shared(&SharedMessage::audio(
            timestamp,
            header,
            payload,
            self.chunk_size_out,
        ));
    }

    /// Sends `@setDataFrame` with `onMetaData`.
    pub fn send_metadata(&mut self, timestamp: u32, metadata: &StreamMetadata) {
        self.send_shared(&SharedMessage::data(
            timestamp,
            &metadata.encode_for_publishing(),
            self.chunk_size_out,
        ));
    }

    /// Sends a message that other clients with the same chunk size send too. Nothing is sent
    /// before [`Event::Publishing`] or after the end.
    pub fn send_shared(&mut self, message: &SharedMessage) {
        if !matches!(self.state, State::Running) || self.goal != Goal::Publish {
            return;
        }
        if message.chunk_size() != self.writer.chunk_size() {
            self.queue(&Control::SetChunkSize(message.chunk_size()).to_message());
        }
        message.queue(self.stream_id, &mut self.transmit);
    }

    /// Ends what is published or played, as ffmpeg does, and keeps the connection.
    pub fn stop(&mut self) {
        if self.stream_id == 0 || self.is_closed() {
            return;
        }
        if self.goal == Goal::Publish {
            let name = Value::string(self.url.stream());
            self.command(0, "FCUnpublish", 6.0, vec![Value::Null, name]);
        }
        let stream_id = Value::Number(f64::from(self.stream_id));
        self.command(0, "deleteStream", 7.0, vec![Value::Null, stream_id]);
        self.stream_id = 0;
        self.state = State::Stopped;
    }

    /// Publishes or plays once more on the same connection after [`stop`](Self::stop).
    pub fn start_again(&mut self) {
        if matches!(self.state, State::Stopped) {
            self.state = State::Creating;
            self.create_stream();
        }
    }

    /// Ends what is published or played and the client with it: what is queued is to be
    /// flushed, then the connection closed.
    pub fn close(&mut self) {
        if !self.is_closed() {
            self.stop();
            self.finish();
        }
    }

    /// Calls a command of the NetStream, or of the connection before there is one: for what has
    /// no method of its own, such as `receiveVideo` and `pause`.
    pub fn call(&mut self, name: &str, transaction_id: f64, values: Vec<Value>) {
        if matches!(self.state, State::Handshaking(_) | State::Closed) {
            return;
        }
        self.command(self.stream_id, name, transaction_id, values);
    }

    /// Whether it has ended.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Whether media flows, or may flow.
    pub fn is_running(&self) -> bool {
        matches!(self.state, State::Running)
    }

    /// The address it was made for.
    pub fn url(&self) -> &RtmpUrl {
        &self.url
    }

    fn consume(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        let mut input = bytes;
        while !self.is_closed() {
            if !self.receive_handshake(&mut input)? {
                break;
            }
            let Some(message) = self.reader.read(&mut input)? else {
                break;
            };
            self.on_message(message)?;
        }
        Ok(())
    }

    fn on_message(&mut self, message: Message) -> Result<(), ClientError> {
        let (timestamp, payload) = (message.timestamp, message.payload.clone());
        match message.type_id {
            type_id::VIDEO => self.events.push_back(Event::Video { timestamp, payload }),
            type_id::AUDIO => self.events.push_back(Event::Audio { timestamp, payload }),
            type_id::DATA_AMF0 | type_id::DATA_AMF3 => self.on_data(&message),
            type_id::COMMAND_AMF0 | type_id::COMMAND_AMF3 => {
                let command = Command::decode(&message, AmfLimits::default())?;
                self.on_command(&command);
            }
            _ => self.on_control(Control::decode(&message)?),
        }
        Ok(())
    }

    fn on_control(&mut self, control: Option<Control>) {
        match control {
            Some(Control::WindowAckSize(window)) => self.ack_window = u64::from(window),
            Some(Control::User(UserControl::PingRequest(time))) => {
                self.queue(&Control::User(UserControl::PingResponse(time)).to_message());
            }
            _ => {}
        }
    }

    fn on_data(&mut self, message: &Message) {
        let values = message
            .amf0_body()
            .and_then(|body| amf0::decode_all(body, AmfLimits::default()).ok())
            .unwrap_or_default();
        let mut values = values.into_iter();
        if values.next().as_ref().and_then(Value::as_str) == Some("onMetaData")
            && let Some(values) = values.next()
        {
            self.events.push_back(Event::Metadata(values));
        }
    }

    fn on_command(&mut self, command: &Command) {
        let answers = |transaction_id: f64| command.transaction_id == transaction_id;
        match (command.name.as_str(), &self.state) {
            ("_result", State::Connecting) if answers(TRANSACTION_CONNECT) => {
                self.state = State::Creating;
                self.events.push_back(Event::Connected);
                self.create_stream();
            }
            ("_result", State::Creating) if answers(TRANSACTION_CREATE_STREAM) => {
                let id = command.argument(0).and_then(Value::as_f64);
                match id.and_then(stream_id).filter(|&id| id != 0) {
                    Some(id) => {
                        self.stream_id = id;
                        self.state = State::Starting;
                        self.start();
                    }
                    None => self.finish(),
                }
            }
            ("_error", State::Connecting) if answers(TRANSACTION_CONNECT) => {
                self.on_status(command);
                self.finish();
            }
            ("_error", State::Creating) if answers(TRANSACTION_CREATE_STREAM) => {
                self.on_status(command);
                self.finish();
            }
            ("onStatus", _) => self.on_status(command),
            _ => {}
        }
    }

    fn on_status(&mut self, command: &Command) {
        let information = command.argument(0);
        let text = |key: &str| {
            let text = information.and_then(|object| object.get(key)?.as_str());
            text.unwrap_or_default().to_owned()
        };
        let (level, code) = (text("level"), text("code"));
        let is_error = level == "error" && command.name == "onStatus";
        if matches!(self.state, State::Starting) {
            match (self.goal, code.as_str()) {
                (Goal::Publish, "NetStream.Publish.Start") => {
                    self.state = State::Running;
                    self.events.push_back(Event::Publishing);
                }
                (Goal::Play, "NetStream.Play.Start") => {
                    self.state = State::Running;
                    self.events.push_back(Event::Playing);
                }
                _ => {}
            }
        }
        self.events.push_back(Event::Status {
            level,
            code,
            description: text("description"),
        });
        if is_error {
            self.finish();
        }
    }

    fn connect(&mut self) {
        self.queue(&Control::SetChunkSize(self.chunk_size_out).to_message());
        let mut object = vec![
            ("app".to_owned(), Value::string(self.url.app())),
            ("flashVer".to_owned(), Value::string(FLASH_VERSION)),
            ("tcUrl".to_owned(), Value::string(self.url.tc_url())),
        ];
        if self.goal == Goal::Publish {
            object.push(("type".to_owned(), Value::string("nonprivate")));
        }
        self.command(
            0,
            "connect",
            TRANSACTION_CONNECT,
            vec![Value::Object(object)],
        );
    }

    fn create_stream(&mut self) {
        if self.goal == Goal::Publish {
            let name = || vec![Value::Null, Value::string(self.url.stream())];
            let (release, announce) = (name(), name());
            self.command(0, "releaseStream", 2.0, release);
            self.command(0, "FCPublish", 3.0, announce);
        }
        self.command(
            0,
            "createStream",
            TRANSACTION_CREATE_STREAM,
            vec![Value::Null],
        );
    }

    fn start(&mut self) {
        let name = Value::string(self.url.stream());
        match self.goal {
            Goal::Publish => {
                let values = vec![Value::Null, name, Value::string("live")];
                self.command(self.stream_id, "publish", 5.0, values);
            }
            Goal::Play => {
                // Live or recorded, in the thousands of ffmpeg and rtmpdump.
                let values = vec![Value::Null, name, Value::Number(-2_000.0)];
                self.command(self.stream_id, "play", 5.0, values);
                let buffer = UserControl::SetBufferLength {
                    stream_id: self.stream_id,
                    millis: BUFFER_MS,
                };
                self.queue(&Control::User(buffer).to_message());
            }
        }
    }

    fn command(&mut self, stream_id: u32, name: &str, transaction_id: f64, values: Vec<Value>) {
        let command = Command::new(name, transaction_id, values);
        self.queue(&command.to_message(COMMAND_CSID, stream_id));
    }

    fn queue(&mut self, message: &Message) {
        let bytes = self.writer.write(message);
        self.transmit.push(bytes);
    }

    fn finish(&mut self) {
        self.state = State::Closed;
        self.events.push_back(Event::Closed);
    }
}

/// The chunk stream of commands; media goes on those of [`SharedMessage`].
const COMMAND_CSID: u32 = 3;
/// What the client calls itself, in the form that servers know.
const FLASH_VERSION: &str = "FMLE/3.0 (compatible; rtmp-gateway)";
/// The buffer that a player announces, as ffmpeg.
const BUFFER_MS: u32 = 3_000;
const TRANSACTION_CONNECT: f64 = 1.0;
const TRANSACTION_CREATE_STREAM: f64 = 4.0;

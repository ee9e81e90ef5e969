//! A scripted RTMP peer that says exactly what a test tells it to.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::rtmp::amf0::{self, AmfLimits, Value};
use crate::rtmp::chunk::{ChunkLimits, ChunkReader, ChunkWriter};
use crate::rtmp::command::Command;
use crate::rtmp::message::{Control, Message, type_id};
use crate::rtmp::session::{Error, Event, Limits, Session};

/// A session and the peer's ends of its chunk streams.
pub struct Peer {
    pub session: Session,
    pub now: Instant,
    writer: ChunkWriter,
    reader: ChunkReader,
    /// Bytes of the server's handshake that are still to be skipped.
    handshake_left: usize,
}

impl Peer {
    /// A peer that has done nothing yet.
    pub fn new(limits: Limits) -> Self {
        let now = Instant::now();
        Self {
            session: Session::new(limits, 7, now),
            now,
            writer: ChunkWriter::new(),
            reader: ChunkReader::new(ChunkLimits::default()),
            handshake_left: 1 + 2 * 1536,
        }
    }

    /// A peer that is through with the handshake and connected to the app `live`.
    pub fn connected() -> Self {
        Self::connected_with(Limits::default())
    }

    pub fn connected_with(limits: Limits) -> Self {
        let mut peer = Self::new(limits);
        peer.send_bytes(&handshake()).expect("a handshake");
        peer.connect("live", "rtmp://h/live");
        peer
    }

    /// Connects and takes the answers and the event off.
    pub fn connect(&mut self, app: &str, tc_url: &str) {
        let object = Value::object([
            ("app", Value::string(app)),
            ("tcUrl", Value::string(tc_url)),
        ]);
        self.command(0, "connect", 1.0, vec![object]);
        let replies = self.replies();
        assert!(replies.iter().any(|reply| reply.name() == "_result"));
        assert!(matches!(self.session.poll_event(), Some(Event::Connect(_))));
    }

    /// Asks for a NetStream and answers its ID.
    pub fn create_stream(&mut self) -> u32 {
        self.command(0, "createStream", 4.0, vec![Value::Null]);
        let replies = self.replies();
        let result = replies.iter().rfind(|reply| reply.name() == "_result");
        let id = result.and_then(|reply| reply.command.as_ref()?.argument(0)?.as_f64());
        id.expect("createStream is answered") as u32
    }

    /// Publishes `name` on a new NetStream and is accepted.
    pub fn publish(&mut self, name: &str) -> u32 {
        let stream_id = self.create_stream();
        let values = vec![Value::Null, Value::string(name), Value::string("live")];
        self.command(stream_id, "publish", 5.0, values);
        assert!(matches!(
            self.session.poll_event(),
            Some(Event::Publish { .. })
        ));
        self.session.accept_publish(stream_id);
        assert_eq!(
            self.codes(),
            [(stream_id, "NetStream.Publish.Start".to_owned())]
        );
        stream_id
    }

    /// Plays `name` on a new NetStream and is accepted.
    pub fn play(&mut self, name: &str) -> u32 {
        let stream_id = self.create_stream();
        let values = vec![Value::Null, Value::string(name)];
        self.command(stream_id, "play", 5.0, values);
        assert!(matches!(
            self.session.poll_event(),
            Some(Event::Play { .. })
        ));
        self.session.accept_play(stream_id);
        self.replies();
        stream_id
    }

    /// Says a command in AMF0.
    pub fn command(&mut self, stream_id: u32, name: &str, id: f64, values: Vec<Value>) {
        let command = Command::new(name, id, values);
        self.send(&command.to_message(3, stream_id))
            .expect("the session goes on");
    }

    /// Says a message.
    pub fn send(&mut self, message: &Message) -> Result<(), Error> {
        let bytes = self.writer.write(message);
        self.send_bytes(&bytes)
    }

    /// Sends what is ready-made.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.session.receive(self.now, bytes)
    }

    /// The chunks of `messages`, not sent.
    pub fn encode(&mut self, messages: &[Message]) -> Vec<u8> {
        let chunks = messages.iter().map(|message| self.writer.write(message));
        chunks.collect::<Vec<_>>().concat()
    }

    /// Everything that the session has said since the last call.
    pub fn replies(&mut self) -> Vec<Reply> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.session.transmit().pop() {
            bytes.extend_from_slice(&chunk);
        }
        let skipped = self.handshake_left.min(bytes.len());
        self.handshake_left -= skipped;
        let mut input = &bytes[skipped..];
        let mut replies = Vec::new();
        while let Some(message) = self.reader.read(&mut input).expect("well-formed chunks") {
            replies.push(Reply::new(message));
        }
        replies
    }

    /// The onStatus codes among the replies, with their streams.
    pub fn codes(&mut self) -> Vec<(u32, String)> {
        let replies = self.replies();
        replies.iter().filter_map(Reply::code).collect()
    }

    /// All events.
    pub fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.session.poll_event()).collect()
    }

    /// Lets time pass without a word and calls the session when it wants to be called.
    pub fn wait(&mut self, span: Duration) -> Result<(), Error> {
        let end = self.now + span;
        while let Some(due) = self.session.next_timeout().filter(|&due| due <= end) {
            self.now = self.now.max(due);
            self.session.handle_timeout(self.now)?;
        }
        self.now = end;
        Ok(())
    }
}

/// One message of the server.
#[derive(Debug)]
pub struct Reply {
    pub message: Message,
    pub command: Option<Command>,
}

impl Reply {
    fn new(message: Message) -> Self {
        let command = Command::decode(&message, AmfLimits::default()).ok();
        Self {
            command: command.filter(|_| message.type_id == type_id::COMMAND_AMF0),
            message,
        }
    }

    /// The command's name, or nothing.
    pub fn name(&self) -> &str {
        self.command.as_ref().map_or("", |command| &command.name)
    }

    /// The control message that it is.
    pub fn control(&self) -> Option<Control> {
        Control::decode(&self.message).expect("well-formed control")
    }

    /// The AMF values of a data message.
    pub fn data(&self) -> Option<Vec<Value>> {
        (self.message.type_id == type_id::DATA_AMF0)
            .then(|| amf0::decode_all(&self.message.payload, AmfLimits::default()).expect("AMF0"))
    }

    /// Stream and code of an onStatus.
    pub fn code(&self) -> Option<(u32, String)> {
        let command = self.command.as_ref()?;
        if command.name != "onStatus" {
            return None;
        }
        assert_eq!(command.transaction_id, 0.0, "section 7.2.2");
        Some((self.message.stream_id, self.text("code")?))
    }

    /// A text of the information object.
    pub fn text(&self, key: &str) -> Option<String> {
        let information = self.command.as_ref()?.argument(0)?;
        information.get(key)?.as_str().map(str::to_owned)
    }
}

/// C0, C1 and C2 of a client that uses the simple form and does not care about S1.
pub fn handshake() -> Vec<u8> {
    let mut bytes = vec![0; 1 + 2 * 1536];
    bytes[0] = 3;
    bytes
}

/// A media message.
pub fn media(type_id: u8, stream_id: u32, timestamp: u32, payload: &[u8]) -> Message {
    Message {
        csid: if type_id == type_id::AUDIO { 4 } else { 6 },
        timestamp,
        type_id,
        stream_id,
        payload: Bytes::copy_from_slice(payload),
    }
}

/// A data message of these values.
pub fn data(stream_id: u32, values: &[Value]) -> Message {
    let mut body = Vec::new();
    for value in values {
        amf0::encode(value, &mut body);
    }
    media(type_id::DATA_AMF0, stream_id, 0, &body)
}

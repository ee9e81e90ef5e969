//! [`Speaker`]: the bytes of an RTMP client that says whatever the test wants.

use bytes::Bytes;
use rtmp_gateway::rtmp::amf0::Value;
use rtmp_gateway::rtmp::chunk::ChunkWriter;
use rtmp_gateway::rtmp::command::Command;
use rtmp_gateway::rtmp::message::{Control, Message};

pub struct Speaker {
    writer: ChunkWriter,
    out: Vec<u8>,
}

impl Speaker {
    /// One that has said its handshake (C0, C1 and C2) and connected to the app `live`.
    pub fn connected() -> Self {
        let mut speaker = Self {
            writer: ChunkWriter::new(),
            out: handshake(),
        };
        let object = Value::object([
            ("app", Value::string("live")),
            ("tcUrl", Value::string("rtmp://gateway.test/live")),
        ]);
        speaker.command(0, "connect", 1.0, vec![object]);
        speaker
    }

    /// The same, and it publishes `name` on message stream 1.
    pub fn publisher(name: &str) -> Self {
        let mut speaker = Self::connected();
        speaker.call(0, "createStream", vec![]);
        speaker.call(
            1,
            "publish",
            vec![Value::string(name), Value::string("live")],
        );
        speaker
    }

    pub fn command(&mut self, stream_id: u32, name: &str, transaction: f64, values: Vec<Value>) {
        let message = Command::new(name, transaction, values).to_message(3, stream_id);
        self.message(&message);
    }

    /// A command with the command object `null`.
    pub fn call(&mut self, stream_id: u32, name: &str, mut values: Vec<Value>) {
        values.insert(0, Value::Null);
        self.command(stream_id, name, 2.0, values);
    }

    pub fn media(&mut self, type_id: u8, stream_id: u32, timestamp: u32, body: &[u8]) {
        let payload = Bytes::copy_from_slice(body);
        self.message(&Message {
            csid: 6,
            timestamp,
            type_id,
            stream_id,
            payload,
        });
    }

    pub fn control(&mut self, control: Control) {
        self.message(&control.to_message());
        if let Control::SetChunkSize(bytes) = control {
            self.writer.set_chunk_size(bytes);
        }
    }

    pub fn message(&mut self, message: &Message) {
        self.out.extend_from_slice(&self.writer.write(message));
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// What was said since the last call.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }
}

/// C0, C1 and C2 of a client that uses the simple form.
pub fn handshake() -> Vec<u8> {
    let mut bytes = vec![0; 1 + 2 * 1_536];
    bytes[0] = 3;
    bytes
}

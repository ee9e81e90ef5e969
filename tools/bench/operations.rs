//! [`Operation`]: the pieces of the gateway that every packet goes through, each ready to be run
//! again and again: timed by `cargo bench`, counted by `tools/bench/instructions`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rtmp_gateway::codec::aac::AudioSpecificConfig;
use rtmp_gateway::codec::h264::AccessUnit;
use rtmp_gateway::hub::{Ring, RingLimits};
use rtmp_gateway::media::{Codec, Frame, MediaTime, TrackConfig};
use rtmp_gateway::rtmp::amf0::{self, AmfLimits, Value};
use rtmp_gateway::rtmp::chunk::{ChunkLimits, ChunkReader, ChunkWriter};
use rtmp_gateway::rtmp::flv::AudioTag;
use rtmp_gateway::rtmp::message::{Message, type_id};
use rtmp_gateway::rtmp::session::SharedMessage;
use rtmp_gateway::rtp::frame_assembler::{FrameAssembler, Limits, Output, Packet};
use rtmp_gateway::rtp::h264_packetizer::packetize;
use rtmp_gateway::transcode::{Job, OpusSettings, PipelineId, Spec, Work, Worker};

use crate::common::clip::{AUDIO, Clip};
use crate::common::world::World;

/// Something that can be run again and again.
pub struct Operation {
    /// As in the table.
    pub name: &'static str,
    /// What one of [`Prepared::units`] is.
    pub unit: &'static str,
    /// How many times it is run to be counted: what is short is run more often.
    pub calls: u32,
    /// Makes it ready.
    pub prepare: fn() -> Prepared,
}

/// An operation with all that it needs.
pub struct Prepared {
    /// Runs it once; answers how many units that was.
    pub run: Box<dyn FnMut() -> u64>,
}

/// All of them.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        name: "chunk_writer",
        unit: "message",
        calls: 200,
        prepare: chunk_writer,
    },
    Operation {
        name: "chunk_reader",
        unit: "message",
        calls: 200,
        prepare: chunk_reader,
    },
    Operation {
        name: "amf0_decode",
        unit: "connect command",
        calls: 1_000,
        prepare: amf0_decode,
    },
    Operation {
        name: "amf0_encode",
        unit: "connect command",
        calls: 1_000,
        prepare: amf0_encode,
    },
    Operation {
        name: "packetizer",
        unit: "picture",
        calls: 200,
        prepare: packetizer,
    },
    Operation {
        name: "frame_assembler",
        unit: "packet",
        calls: 200,
        prepare: frame_assembler,
    },
    Operation {
        name: "hub_ring",
        unit: "frame and cursor",
        calls: 50,
        prepare: hub_ring,
    },
    Operation {
        name: "aac_to_opus",
        unit: "frame of 20 ms",
        calls: 50,
        prepare: aac_to_opus,
    },
    Operation {
        name: "rtmp_player",
        unit: "player's second",
        calls: 2,
        prepare: rtmp_players,
    },
    Operation {
        name: "whep_viewer",
        unit: "datagram",
        calls: 2,
        prepare: whep_viewers,
    },
];

/// The pictures of a second and more, a key frame among them.
fn pictures() -> Vec<AccessUnit> {
    Clip::load().access_units().into_iter().take(50).collect()
}

/// A picture as the message that all players share.
fn chunk_writer() -> Prepared {
    let pictures = pictures();
    let run = move || {
        for (number, picture) in pictures.iter().enumerate() {
            let message =
                SharedMessage::avc(number as u32 * 40, picture.idr, 0, &picture.payload, CHUNK);
            black_box(message.len());
        }
        pictures.len() as u64
    };
    Prepared { run: Box::new(run) }
}

/// A publisher's bytes, as a socket hands them over.
fn chunk_reader() -> Prepared {
    let pictures = pictures();
    let mut writer = ChunkWriter::new();
    let message = |csid, type_id, stream_id, timestamp, payload| Message {
        csid,
        timestamp,
        type_id,
        stream_id,
        payload,
    };
    let size = Bytes::copy_from_slice(&CHUNK.to_be_bytes());
    let mut bytes = writer
        .write(&message(2, type_id::SET_CHUNK_SIZE, 0, 0, size))
        .to_vec();
    for (number, picture) in pictures.iter().enumerate() {
        let body = [&[0x17, 1, 0, 0, 0][..], &picture.payload].concat();
        let time = number as u32 * 40;
        bytes.extend_from_slice(&writer.write(&message(6, type_id::VIDEO, 1, time, body.into())));
    }
    let run = move || {
        let mut reader = ChunkReader::new(ChunkLimits::default());
        let mut messages = 0;
        for piece in bytes.chunks(16 << 10) {
            let mut input = piece;
            while let Some(message) = reader.read(&mut input).expect("good chunks") {
                black_box(&message.payload);
                messages += 1;
            }
        }
        messages
    };
    Prepared { run: Box::new(run) }
}

/// What ffmpeg sends first.
fn connect() -> Vec<Value> {
    vec![
        Value::string("connect"),
        Value::Number(1.0),
        Value::object([
            ("app", Value::string("live")),
            ("type", Value::string("nonprivate")),
            (
                "flashVer",
                Value::string("FMLE/3.0 (compatible; Lavf59.27.100)"),
            ),
            ("tcUrl", Value::string("rtmp://gateway.test:1935/live")),
        ]),
    ]
}

fn amf0_decode() -> Prepared {
    let mut bytes = Vec::new();
    connect()
        .iter()
        .for_each(|value| amf0::encode(value, &mut bytes));
    let run = move || {
        black_box(amf0::decode_all(&bytes, AmfLimits::default()).expect("good values"));
        1
    };
    Prepared { run: Box::new(run) }
}

fn amf0_encode() -> Prepared {
    let (values, mut bytes) = (connect(), Vec::new());
    let run = move || {
        bytes.clear();
        values
            .iter()
            .for_each(|value| amf0::encode(value, &mut bytes));
        black_box(&bytes);
        1
    };
    Prepared { run: Box::new(run) }
}

/// A picture as the RTP payloads that all viewers share.
fn packetizer() -> Prepared {
    let (avc, pictures) = (Clip::load().avc(), pictures());
    let run = move || {
        for picture in &pictures {
            let sets = picture.idr.then(|| (avc.sps(), avc.pps()));
            black_box(packetize(&picture.payload, sets, PAYLOAD));
        }
        pictures.len() as u64
    };
    Prepared { run: Box::new(run) }
}

/// A publisher's RTP packets back to pictures.
fn frame_assembler() -> Prepared {
    let pictures = Clip::load().rtp_pictures();
    let packets = pictures
        .iter()
        .take(50)
        .enumerate()
        .flat_map(|(number, picture)| {
            let last = picture.payloads.len() - 1;
            (picture.payloads.iter().enumerate()).map(move |(index, payload)| {
                let payload = Bytes::copy_from_slice(payload);
                (number as u64 * 3_600, index == last, payload)
            })
        });
    let packets: Vec<(u64, bool, Bytes)> = packets.collect();
    let now = Instant::now();
    let run = move || {
        let mut assembler = FrameAssembler::new(Limits::default());
        for (sequence, (rtp_time, marker, payload)) in packets.iter().enumerate() {
            let packet = Packet {
                sequence: sequence as u64,
                rtp_time: *rtp_time,
                marker: *marker,
                payload: payload.clone(),
            };
            assembler.push(now, packet);
            while let Some(output) = assembler.poll(now) {
                black_box(matches!(output, Output::AccessUnit { .. }));
            }
        }
        packets.len() as u64
    };
    Prepared { run: Box::new(run) }
}

/// A stream's ring with 100 players, each of which takes each frame.
fn hub_ring() -> Prepared {
    const CURSORS: u64 = 100;
    let config = Arc::new(TrackConfig::H264(Clip::load().avc()));
    let pictures = pictures();
    let mut ring = Ring::new(RingLimits {
        gop_duration: Duration::from_secs(12),
        gop_bytes: 16 << 20,
        gop_frames: 2_000,
        queue_duration: Duration::from_secs(3),
        queue_bytes: 8 << 20,
    });
    let mut cursors = [0; CURSORS as usize];
    let (mut time, now) = (MediaTime::ZERO, Instant::now());
    let run = move || {
        for picture in &pictures {
            let frame = Frame {
                codec: Codec::H264,
                dts: time,
                pts: time,
                key: picture.idr,
                disposable: false,
                payload: picture.payload.clone(),
            };
            time += MediaTime::from_millis(40);
            ring.push(frame, Arc::clone(&config), now);
            for cursor in &mut cursors {
                while let Some(entry) = ring.get(*cursor) {
                    black_box(entry.is_for(Codec::Aac));
                    *cursor += 1;
                }
                black_box(ring.is_too_far_behind(*cursor));
            }
            ring.trim(ring.head());
        }
        pictures.len() as u64 * CURSORS
    };
    Prepared { run: Box::new(run) }
}

/// A piece of the clip's sound, 48 kHz stereo, through a worker with the default settings.
fn aac_to_opus() -> Prepared {
    let clip = Clip::load();
    let pipeline = PipelineId(1);
    let mut worker = Worker::new();
    let config = (clip.headers()).find_map(|tag| match AudioTag::decode(&tag.payload) {
        Ok(AudioTag::SequenceHeader(config)) => AudioSpecificConfig::decode(&config).ok(),
        _ => None,
    });
    worker.run(Job {
        pipeline,
        work: Work::Open(Box::new(Spec::AacToOpus {
            config: config.expect("a configuration"),
            settings: OpusSettings::default(),
        })),
    });
    let units = clip.frames().filter_map(|(_, tag)| {
        let coded = tag.type_id == AUDIO;
        match coded.then(|| AudioTag::decode(&tag.payload)) {
            Some(Ok(AudioTag::Coded(payload))) => Some(payload),
            _ => None,
        }
    });
    let mut units = units.zip(0..);
    let run = move || {
        let made = units.by_ref().take(10).map(|(payload, number)| {
            let time = MediaTime::from_units(number * 1_024, 48_000);
            let frame = Frame {
                codec: Codec::Aac,
                dts: time,
                pts: time,
                key: true,
                disposable: false,
                payload,
            };
            let work = Work::Frame(frame);
            let done = worker.run(Job { pipeline, work }).expect("an answer");
            done.frames.len() as u64
        });
        made.sum()
    };
    Prepared { run: Box::new(run) }
}

/// The whole gateway with an RTMP publisher and 50 RTMP players, whose sockets take everything.
fn rtmp_players() -> Prepared {
    const PLAYERS: u64 = 50;
    let mut world = World::new();
    world.rtmp_publish("live/s");
    world.run_ms(500);
    (0..PLAYERS).for_each(|_| {
        world.rtmp_play("live/s");
    });
    world.run_ms(1_500);
    world.nobody_hears();
    let run = move || {
        world.run_ms(1_000);
        black_box(world.unheard);
        PLAYERS
    };
    Prepared { run: Box::new(run) }
}

/// The whole gateway with an RTMP publisher of pictures alone and 20 WHEP viewers: the
/// conversion of sound, which is once for all, would hide what a viewer costs.
fn whep_viewers() -> Prepared {
    const VIEWERS: usize = 20;
    let mut world = World::new();
    world.rtmp_publish_tracks("live/s", true, false, 0);
    world.run_ms(500);
    let viewers: Vec<usize> = (0..VIEWERS)
        .map(|_| {
            world
                .whep("live/s")
                .map_err(|answer| answer.status)
                .expect("let in")
        })
        .collect();
    let is_up =
        |world: &World| (viewers.iter()).all(|viewer| world.connected_at(*viewer).is_some());
    assert!(world.run_until_ms(3_000, is_up), "not connected");
    // Behind the cached start.
    world.run_ms(2_000);
    world.nobody_hears();
    let mut before = 0;
    let run = move || {
        world.run_ms(1_000);
        let sent = world.unheard.map_or(0, |unheard| unheard.datagrams);
        sent - std::mem::replace(&mut before, sent)
    };
    Prepared { run: Box::new(run) }
}

/// As ffmpeg and the gateway cut.
const CHUNK: u32 = 60_000;
/// As the gateway sends.
const PAYLOAD: usize = 1_160;

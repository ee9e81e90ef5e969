//! What an attacker can make the gateway hold, in bytes of heap: the bounds of `gateway.toml`
//! and little more.

mod common;
mod hostile;

use common::browser::{BrowserConfig, Does, Kind};
use common::clip::{AUDIO, Clip, VIDEO};
use common::world::World;
use hostile::bare::Bare;
use hostile::heap::{Heap, held, peak_of};
use hostile::speaker::{Speaker, handshake};
use rtmp_gateway::config::Config;
use rtmp_gateway::gateway::{ConnId, Input, Listener};
use rtmp_gateway::rtmp::amf0::Value;
use rtmp_gateway::rtmp::message::{Control, UserControl};

#[global_allocator]
static HEAP: Heap = Heap;

const KB: isize = 1 << 10;
const MB: isize = 1 << 20;

/// A gateway with one connection that has said what `speaker` says.
fn attacked(speaker: &mut Speaker) -> (Bare, ConnId) {
    let mut bare = Bare::new(Config::default());
    let conn = bare.connect(Listener::Rtmp);
    bare.send(conn, &speaker.take());
    (bare, conn)
}

/// A header of 11 bytes (fmt 0) that promises a message.
fn promise(csid: u32, length: u32) -> Vec<u8> {
    let mut bytes = match csid {
        0..64 => vec![csid as u8],
        64..320 => vec![0, (csid - 64) as u8],
        _ => vec![1, (csid - 64) as u8, ((csid - 64) >> 8) as u8],
    };
    bytes.extend_from_slice(&[0, 0, 0]);
    bytes.extend_from_slice(&length.to_be_bytes()[1..]);
    bytes.extend_from_slice(&[VIDEO, 1, 0, 0, 0]);
    bytes
}

#[test]
fn promises_on_many_chunk_streams_cost_nothing() {
    let (mut bare, conn) = attacked(&mut Speaker::publisher("x"));
    let peak = peak_of(|| {
        let size = [2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 0, 0, 1];
        bare.send(conn, &size);
        for csid in 3..5_000 {
            let mut bytes = promise(csid, 4 << 20);
            bytes.push(0);
            bare.send(conn, &bytes);
        }
    });
    assert_eq!(bare.closed, 1, "at the first chunk stream too many");
    assert!(peak < 64 * KB, "{peak} bytes");
}

#[test]
fn half_messages_are_held_to_the_limit() {
    let (mut bare, conn) = attacked(&mut Speaker::publisher("x"));
    // Chunks that are one byte shorter than their messages.
    let chunk = (4_u32 << 20) - 1;
    let payload = vec![0; chunk as usize];
    let mut size = vec![2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0];
    size.extend_from_slice(&chunk.to_be_bytes());
    bare.send(conn, &size);
    let peak = peak_of(|| {
        for csid in 3..60 {
            bare.send(conn, &promise(csid, chunk + 1));
            bare.send(conn, &payload);
        }
    });
    assert_eq!(bare.closed, 1);
    assert!(peak < 8 * MB + 256 * KB, "{peak} bytes");
}

#[test]
fn a_connection_that_has_not_asked_to_publish_holds_little() {
    for listener in [Listener::Rtmp, Listener::Http, Listener::IceTcp] {
        let mut bare = Bare::new(Config::default());
        let before = held();
        for _ in 0..1_000 {
            bare.connect(listener);
        }
        let idle = (held() - before) / 1_000;
        println!("{listener:?}: {idle} bytes");
        assert!(
            idle < 8 * KB,
            "{listener:?}: {idle} bytes for an idle connection"
        );
    }
    let mut bare = Bare::new(Config::default());
    let before = held();
    for _ in 0..1_000 {
        let conn = bare.connect(Listener::Rtmp);
        bare.send(conn, &handshake());
    }
    let half = (held() - before) / 1_000;
    println!("after C2: {half} bytes");
    assert!(
        half < 8 * KB,
        "{half} bytes after a handshake, its answers not read"
    );
}

#[test]
fn amf_bombs_are_bounded() {
    let four = 4_000_000;
    let nulls: Vec<u8> = vec![5; four];
    let arrays: Vec<u8> = [10, 0, 0, 0, 1].repeat(four / 5);
    let objects: Vec<u8> = [3, 0, 1, b'a'].repeat(four / 4);
    let strings: Vec<u8> = [2, 0, 0].repeat(four / 3);
    let typed: Vec<u8> = [16, 0, 0, 0, 1, b'a'].repeat(four / 6);
    let long = {
        let mut bytes = vec![12, 0xff, 0xff, 0xff, 0xff];
        bytes.resize(four, b'a');
        bytes
    };
    let count = [8, 0xff, 0xff, 0xff, 0xff, 0, 1, b'a', 5].to_vec();
    for (index, bomb) in [nulls, arrays, objects, strings, typed, long, count]
        .iter()
        .enumerate()
    {
        for (type_id, stream_id) in [(20, 0), (20, 1), (17, 1), (18, 1), (15, 1)] {
            let mut speaker = Speaker::publisher("x");
            let (mut bare, conn) = attacked(&mut speaker);
            let mut body = vec![2, 0, 1, b'x', 0, 0, 0, 0, 0, 0, 0, 0, 0];
            if type_id == 17 || type_id == 15 {
                body.insert(0, 0);
            }
            body.extend_from_slice(bomb);
            speaker.media(type_id, stream_id, 0, &body);
            let bytes = speaker.take();
            let peak = peak_of(|| bare.send(conn, &bytes));
            assert!(
                peak < 12 * MB,
                "bomb {index} of type {type_id}: {peak} bytes"
            );
        }
    }
}

#[test]
fn aggregate_bombs_are_bounded() {
    let mut tag = vec![AUDIO, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    tag.extend_from_slice(&[0, 0, 0, 11]);
    for one in [tag, {
        let mut tag = vec![AUDIO, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0xaf, 0];
        tag.extend_from_slice(&[0, 0, 0, 13]);
        tag
    }] {
        let mut speaker = Speaker::publisher("x");
        let (mut bare, conn) = attacked(&mut speaker);
        speaker.media(22, 1, 0, &one.repeat(4_000_000 / one.len()));
        let bytes = speaker.take();
        let peak = peak_of(|| bare.send(conn, &bytes));
        assert!(peak < 5 * MB, "{peak} bytes");
    }
}

#[test]
fn who_asks_and_does_not_read_is_closed() {
    type Ask = fn(&mut Speaker);
    let asks: [(&str, Ask); 6] = [
        ("ping", |speaker| {
            speaker.control(Control::User(UserControl::PingRequest(1)))
        }),
        ("call", |speaker| speaker.call(0, "nonsense", vec![])),
        ("createStream", |speaker| {
            speaker.call(0, "createStream", vec![])
        }),
        ("play", |speaker| {
            speaker.call(1, "play", vec![Value::string("nobody")])
        }),
        ("publish", |speaker| {
            speaker.call(1, "publish", vec![Value::string("mine")])
        }),
        ("FCSubscribe", |speaker| {
            speaker.call(0, "FCSubscribe", vec![Value::string("a")])
        }),
    ];
    for (what, ask) in asks {
        let mut speaker = Speaker::connected();
        let (mut bare, conn) = attacked(&mut speaker);
        let peak = peak_of(|| {
            for _ in 0..2_000 {
                for _ in 0..20 {
                    ask(&mut speaker);
                }
                let bytes = speaker.take();
                bare.send(conn, &bytes);
            }
        });
        assert_eq!(bare.closed, 1, "{what}");
        assert!(peak < 4 * MB, "{what}: {peak} bytes");
    }
}

#[test]
fn a_reader_of_nothing_does_not_grow_its_http_connection() {
    let mut bare = Bare::new(Config::default());
    let conn = bare.connect(Listener::Http);
    let requests = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1_000);
    let peak = peak_of(|| {
        for _ in 0..100 {
            bare.send(conn, &requests);
        }
        bare.run_ms(60_000);
    });
    assert_eq!(bare.closed, 1);
    assert!(peak < MB, "{peak} bytes");
}

#[test]
fn a_stream_of_huge_pictures_is_cached_to_the_limit() {
    let mut speaker = Speaker::publisher("huge");
    for header in Clip::load().headers() {
        speaker.media(header.type_id, 1, 0, &header.payload);
    }
    let (mut bare, conn) = attacked(&mut speaker);
    // A player that reads nothing holds the ring's end back.
    let mut player = Speaker::connected();
    player.call(1, "play", vec![Value::string("huge")]);
    let sloth = bare.connect(Listener::Rtmp);
    bare.send(sloth, &player.take());
    speaker.control(Control::SetChunkSize(1 << 20));
    let picture = {
        let mut body = vec![0x17, 1, 0, 0, 0];
        let size = 4_000_000_u32;
        body.extend_from_slice(&size.to_be_bytes());
        body.push(0x65);
        body.resize(9 + size as usize, 0x55);
        body
    };
    let peak = peak_of(|| {
        for n in 0..40 {
            speaker.media(VIDEO, 1, n * 40, &picture);
            let bytes = speaker.take();
            bare.send(conn, &bytes);
            bare.run_ms(40);
        }
    });
    // 16 MiB of cache with what is chunked for players, one message on its way in, one out,
    // and what this test says itself.
    assert!(peak < 2 * 16 * MB + 5 * 4 * MB, "{peak} bytes");
}

#[test]
fn standing_timestamps_and_empty_frames_do_not_fill_memory() {
    let mut speaker = Speaker::publisher("empty");
    for header in Clip::load().headers() {
        speaker.media(header.type_id, 1, 0, &header.payload);
    }
    let (mut bare, conn) = attacked(&mut speaker);
    let mut player = Speaker::connected();
    player.call(1, "play", vec![Value::string("empty")]);
    let sloth = bare.connect(Listener::Rtmp);
    bare.send(sloth, &player.take());
    let peak = peak_of(|| {
        for _ in 0..300 {
            for _ in 0..200 {
                speaker.media(AUDIO, 1, 0, &[0xaf, 1, 0]);
            }
            let bytes = speaker.take();
            bare.send(conn, &bytes);
        }
    });
    assert!(peak < 8 * MB, "{peak} bytes for 60,000 frames");
}

/// What a stream holds when each of its cached sounds came with much that is of no use.
fn held_by_waste(mut waste: impl FnMut(&mut Speaker, u32)) -> isize {
    let clip = Clip::load();
    let mut speaker = Speaker::publisher("waste");
    for header in clip.headers() {
        speaker.media(header.type_id, 1, 0, &header.payload);
    }
    let (mut bare, conn) = attacked(&mut speaker);
    speaker.control(Control::SetChunkSize(1 << 20));
    speaker.media(VIDEO, 1, 0, &picture_with(0x65, 0));
    peak_of(|| {
        for n in 1..1_500 {
            waste(&mut speaker, n);
            speaker.media(AUDIO, 1, n, &[0xaf, 1, 0x21]);
            let bytes = speaker.take();
            bare.send(conn, &bytes);
        }
        assert_eq!(bare.closed, 0);
    })
}

/// A picture of one small slice behind so many bytes of filler.
fn picture_with(slice: u8, filler: u32) -> Vec<u8> {
    let mut body = vec![if slice == 0x65 { 0x17 } else { 0x27 }, 1, 0, 0, 0];
    if filler > 0 {
        body.extend_from_slice(&filler.to_be_bytes());
        body.push(0x0c);
        body.resize(body.len() + filler as usize - 1, 0xff);
    }
    body.extend_from_slice(&[0, 0, 0, 4, slice, 0x9a, 0x21, 0x3f]);
    body
}

#[test]
fn what_is_kept_does_not_keep_what_is_dropped() {
    let broken = |size: usize| {
        let mut body = vec![0x27, 1, 0, 0, 0];
        body.resize(size, 0xff);
        body
    };
    let filler =
        held_by_waste(|speaker, n| speaker.media(VIDEO, 1, n, &picture_with(0x41, 30_000)));
    let pictures = held_by_waste(|speaker, n| speaker.media(VIDEO, 1, n, &broken(8_000)));
    let elsewhere = held_by_waste(|speaker, n| speaker.media(VIDEO, 7, n, &broken(8_000)));
    let aggregates = held_by_waste(|speaker, n| {
        let part = |type_id: u8, body: &[u8]| {
            let mut tag = vec![type_id];
            tag.extend_from_slice(&(body.len() as u32).to_be_bytes()[1..]);
            tag.extend_from_slice(&n.to_be_bytes()[1..]);
            tag.extend_from_slice(&[0, 0, 0, 0]);
            tag.extend_from_slice(body);
            tag.extend_from_slice(&(body.len() as u32 + 11).to_be_bytes());
            tag
        };
        let parts = [part(VIDEO, &broken(8_000)), part(AUDIO, &[0xaf, 1, 0x21])];
        speaker.media(22, 1, n, &parts.concat());
    });
    for held in [filler, pictures, elsewhere, aggregates] {
        assert!(
            held < 3 * MB,
            "{filler} {pictures} {elsewhere} {aggregates} bytes"
        );
    }
}

#[test]
fn sessions_that_never_connect_are_bounded_and_freed() {
    let mut bare = Bare::new(Config::default());
    bare.reads = true;
    let offer = include_str!("fixtures/offers/obs-30-whip.sdp");
    let mut round = |from: u32| {
        let before = held();
        for n in from..from + 400 {
            let conn = bare.connect(Listener::Http);
            let request = format!(
                "POST /whip/live/n{n} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
                 Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{offer}",
                offer.len()
            );
            bare.send(conn, request.as_bytes());
        }
        let each = (held() - before) / 400;
        bare.run_ms(20_000);
        (each, held())
    };
    let (each, _) = round(0);
    println!("{each} bytes for a WHIP session that has not connected");
    assert!(each < 256 * KB, "{each} bytes");
    // The first rounds leave tables behind that are as large as they needed; from then on nothing.
    let [.., settled] = [400, 800, 1_200].map(|from| round(from).1);
    let [.., end] = [1_600, 2_000, 2_400].map(|from| round(from).1);
    let left = end - settled;
    assert!(left < 16 * KB, "{left} bytes are left of 1200 sessions");
}

#[test]
fn a_publisher_of_countless_sources_is_bounded() {
    let mut world = World::new();
    let config = BrowserConfig::new(Does::Publish);
    let bad = world.browse("/whip/live/bad", config, &[]).expect("taken");
    world.run_ms(500);
    let mut datagrams = Vec::new();
    for ssrc in 1_000_000..1_040_000 {
        let now = world.now;
        let browser = &mut world.browser_mut(bad).browser;
        browser.write_from(now, Kind::Video, ssrc, vec![0x41, 1, 2, 3].into());
        browser.take_datagrams(&mut datagrams);
    }
    assert!(datagrams.len() >= 40_000, "{} datagrams", datagrams.len());
    let before = held();
    for sent in &datagrams {
        world.input(Input::Datagram {
            source: sent.source,
            destination: sent.destination,
            bytes: &sent.contents,
        });
    }
    let grown = held() - before;
    assert!(grown < 512 * KB, "{grown} bytes for 40,000 sources");
}

/// Heap of a gateway that has so many viewers of one stream, all of whom play.
fn weight_with(viewers: usize) -> isize {
    let mut world = World::new();
    world.rtmp_publish_feed("live/a", Clip::load().feed());
    world.run_ms(500);
    for _ in 0..viewers {
        world.whep("live/a").expect("accepted");
    }
    world.run_ms(3_000);
    let other = World::new().gateway;
    let before = held();
    drop(std::mem::replace(&mut world.gateway, other));
    before - held()
}

#[test]
fn a_viewer_is_light() {
    let each = (weight_with(21) - weight_with(1)) / 20;
    println!("{each} bytes for a viewer that plays");
    assert!(each < 96 * KB, "{each} bytes");
}

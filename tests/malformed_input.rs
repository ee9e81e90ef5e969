//! Damaged bytes on every way into the gateway, while innocent people publish, play and
//! watch: nothing panics, nobody else is disturbed, what is closed is counted by a named
//! reason, and nothing is left behind.
//!
//! Damage is drawn from seeds; a failure names its seed.

mod common;
mod hostile;

use std::net::SocketAddr;

use common::browser::{Browser, BrowserConfig, Does, Kind};
use common::clip::{Clip, opus_tone};
use hostile::Random;
use hostile::scene::Scene;
use hostile::speaker::Speaker;
use rtmp_gateway::gateway::{ConnId, Input, Listener};

const FFMPEG: &[u8] = include_bytes!("fixtures/rtmp/ffmpeg_publish.bin");
const GSTREAMER: &[u8] = include_bytes!("fixtures/rtmp/gstreamer_publish.bin");
const FFMPEG_PLAY: &[u8] = include_bytes!("fixtures/rtmp/ffmpeg_play.bin");
const RTMPDUMP_PLAY: &[u8] = include_bytes!("fixtures/rtmp/rtmpdump_play.bin");

const OFFERS: [&str; 9] = [
    include_str!("fixtures/offers/chromium-156-recvonly.sdp"),
    include_str!("fixtures/offers/chromium-156-sendonly.sdp"),
    include_str!("fixtures/offers/ffmpeg-8-whip.sdp"),
    include_str!("fixtures/offers/firefox-128-recvonly.sdp"),
    include_str!("fixtures/offers/firefox-128-sendonly.sdp"),
    include_str!("fixtures/offers/gstreamer-1.24-whip.sdp"),
    include_str!("fixtures/offers/obs-30-whip.sdp"),
    include_str!("fixtures/offers/safari-17-recvonly.sdp"),
    include_str!("fixtures/offers/safari-17-sendonly.sdp"),
];

/// Sends `pieces` over a connection of its own. Whether the gateway closed it.
fn say(scene: &mut Scene, listener: Listener, peer: SocketAddr, pieces: &[&[u8]]) -> bool {
    let conn = scene.world.connect_from(listener, peer);
    for piece in pieces {
        scene.world.raw_send(conn, piece);
    }
    let closed = scene.world.raw_peer(conn).closed;
    if !closed {
        disconnect(scene, conn);
    }
    closed
}

fn disconnect(scene: &mut Scene, conn: ConnId) {
    scene.world.input(Input::Disconnected { conn, error: None });
}

fn stranger(n: u64) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, (n >> 14) as u8], 1_024 + (n & 0x3fff) as u16))
}

#[test]
fn damaged_rtmp_sessions_harm_nobody() {
    let mut scene = Scene::new();
    let base = scene.metrics();
    let mut counted = base.errors();
    for seed in 0..600 {
        let mut random = Random::new(seed);
        let good = *random.of(&[FFMPEG, GSTREAMER, FFMPEG_PLAY, RTMPDUMP_PLAY]);
        // Half of the damage goes behind the handshake, which swallows what it gets.
        let keep = random.below(2) * 3_073;
        let mut bytes = good[..keep].to_vec();
        bytes.extend_from_slice(&random.damage(&good[keep..]));
        let pieces = random.cut(&bytes);
        if say(&mut scene, Listener::Rtmp, stranger(seed), &pieces) {
            let errors = scene.metrics().errors();
            assert!(errors > counted, "seed {seed}: closed for no reason");
            counted = errors;
        }
        scene.world.run_ms(4);
    }
    for seed in 0..100 {
        let mut random = Random::new(seed);
        let len = random.below(10_000);
        let noise = random.bytes(len);
        say(&mut scene, Listener::Rtmp, stranger(seed), &[&noise]);
        scene.world.run_ms(4);
    }
    scene.assert_unharmed();
    scene.world.run_ms(100);
    let after = scene.metrics();
    assert_eq!(after.connections("rtmp"), base.connections("rtmp"));
    assert_eq!(
        after.get("rtmp_gateway_streams"),
        base.get("rtmp_gateway_streams")
    );
    assert!(after.errors() > base.errors() + 100, "{}", after.errors());
}

#[test]
fn damaged_requests_harm_nobody() {
    let mut scene = Scene::new();
    let base = scene.metrics();
    let mut statuses = std::collections::BTreeMap::<String, u32>::new();
    for seed in 0..900 {
        let mut random = Random::new(seed);
        let good = request(&mut random);
        let bytes = random.damage(&good);
        let conn = scene.world.connect_from(Listener::Http, stranger(seed));
        for piece in random.cut(&bytes) {
            scene.world.raw_send(conn, piece);
        }
        let peer = scene.world.raw_peer(conn);
        let answer = String::from_utf8_lossy(&peer.received).into_owned();
        let status = answer.split(' ').nth(1).unwrap_or("none").to_owned();
        // 501 and 505 say what is not supported; other 5xx would be our fault.
        let is_ours = status.starts_with('5') && !["501", "505"].contains(&&*status);
        assert!(!is_ours, "seed {seed}: {answer}");
        *statuses.entry(status).or_default() += 1;
        if !peer.closed {
            disconnect(&mut scene, conn);
        }
        scene.world.run_ms(4);
    }
    println!("{statuses:?}");
    assert!(statuses.len() > 4, "{statuses:?}");
    scene.assert_unharmed();
    assert_eq!(
        scene.metrics().connections("http"),
        base.connections("http")
    );
}

/// A good request of some kind.
fn request(random: &mut Random) -> Vec<u8> {
    let offer = random.of(&OFFERS);
    let fragment = "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\nm=audio 9 RTP/AVP 0\r\n\
        a=mid:0\r\na=candidate:1 1 udp 1 198.51.100.1 5000 typ host\r\n";
    let (line, kind, body) = match random.below(8) {
        0 | 1 => ("POST /whip/live/attack", "application/sdp", *offer),
        2 | 3 => ("POST /whep/live/innocent", "application/sdp", *offer),
        4 => (
            "PATCH /whip/session/0123456789",
            "application/trickle-ice-sdpfrag",
            fragment,
        ),
        5 => ("DELETE /whep/session/0123456789", "text/plain", ""),
        6 => (
            "GET /api/v1/streams?stream=live%2Finnocent",
            "text/plain",
            "",
        ),
        _ => ("OPTIONS /whip/live/attack", "text/plain", ""),
    };
    let token = if random.below(2) == 0 {
        ""
    } else {
        "Authorization: Bearer secret\r\n"
    };
    if random.below(3) == 0 {
        return format!(
            "{line} HTTP/1.1\r\nHost: a\r\n{token}Content-Type: {kind}\r\n\
             Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        )
        .into_bytes();
    }
    format!(
        "{line} HTTP/1.1\r\nHost: a\r\n{token}Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[test]
fn damaged_offers_are_answered_and_leave_no_session() {
    let mut scene = Scene::new();
    let base = scene.metrics();
    let mut refused = 0;
    let mut taken = 0;
    for seed in 0..700 {
        let mut random = Random::new(seed);
        let offer = random.of(&OFFERS).as_bytes().to_vec();
        let offer = match random.below(3) {
            0 => damage_lines(&mut random, &offer),
            _ => random.damage(&offer),
        };
        let path = *random.of(&["/whip/live/attack", "/whep/live/innocent"]);
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
             Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n",
            offer.len()
        )
        .into_bytes();
        request.extend_from_slice(&offer);
        let conn = scene.world.connect_from(Listener::Http, stranger(seed));
        scene.world.raw_send(conn, &request);
        let peer = scene.world.raw_peer(conn);
        assert!(
            peer.closed,
            "seed {seed}: a request that closes is answered and closed"
        );
        let answer = String::from_utf8_lossy(&peer.received).into_owned();
        let status = answer.split(' ').nth(1).expect("a status").to_owned();
        match &*status {
            "201" => {
                taken += 1;
                let location = answer
                    .lines()
                    .find_map(|line| line.strip_prefix("Location: "));
                let path = location.expect("a Location").trim().to_owned();
                let deleted = scene.world.http("DELETE", &path, &[], "");
                assert_eq!(deleted.status, 200, "seed {seed}");
            }
            "400" | "406" | "409" | "415" | "422" => refused += 1,
            other => panic!("seed {seed}: {other}: {answer}"),
        }
        scene.world.run_ms(2);
    }
    println!("{refused} refused, {taken} taken");
    assert!(
        refused > 100 && taken > 20,
        "{refused} refused, {taken} taken"
    );
    scene.assert_unharmed();
    let after = scene.metrics();
    for gauge in [
        "rtmp_gateway_webrtc_sessions{role=\"publisher\"}",
        "rtmp_gateway_webrtc_sessions{role=\"viewer\"}",
        "rtmp_gateway_streams",
    ] {
        assert_eq!(after.get(gauge), base.get(gauge), "{gauge}");
    }
}

/// Lines left out, repeated, exchanged or given absurd numbers: what byte damage seldom does.
fn damage_lines(random: &mut Random, offer: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(offer).into_owned();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for _ in 0..1 + random.below(4) {
        let at = random.below(lines.len());
        let other = random.below(lines.len());
        match random.below(5) {
            0 => drop(lines.remove(at)),
            1 => {
                let line = lines[at].clone();
                lines.insert(other, line);
            }
            2 => lines.swap(at, other),
            3 => {
                let number =
                    *random.of(&["0", "-1", "65536", "4294967296", "99999999999999999999"]);
                let is_digit = |c: char| c.is_ascii_digit();
                if let Some(from) = lines[at].find(is_digit) {
                    let rest = lines[at][from..].find(|c| !is_digit(c));
                    let to = rest.map_or(lines[at].len(), |len| from + len);
                    lines[at].replace_range(from..to, number);
                }
            }
            _ => {
                let line = lines[at].clone();
                for _ in 0..300 {
                    lines.insert(at, line.clone());
                }
            }
        }
    }
    (lines.join("\r\n") + "\r\n").into_bytes()
}

#[test]
fn damaged_and_repeated_datagrams_of_live_sessions_are_ignored() {
    let mut scene = Scene::new();
    let base = scene.metrics();
    // What innocent browsers sent, DTLS handshakes of new ones too.
    scene.world.tap = Some(Vec::new());
    scene.world.whep("live/innocent").expect("taken");
    scene.world.run_ms(1_500);
    let tapped = scene.world.tap.take().expect("it was set");
    for what in [0..=3, 20..=63, 128..=191] {
        let count = tapped
            .iter()
            .filter(|(_, _, bytes)| what.contains(&bytes[0]))
            .count();
        assert!(count >= 2, "{count} of {what:?}");
    }
    for seed in 0..4_000 {
        let mut random = Random::new(seed);
        let (source, destination, bytes) = random.of(&tapped).clone();
        let bytes = match random.below(6) {
            // A replay is authentic; it must not be heard twice.
            0 if bytes[0] > 63 => bytes,
            _ => random.damage(&bytes),
        };
        let source = if random.below(4) == 0 {
            stranger(seed)
        } else {
            source
        };
        scene.world.input(Input::Datagram {
            source,
            destination,
            bytes: &bytes,
        });
        if seed % 8 == 0 {
            scene.world.run_ms(5);
        }
    }
    for seed in 0..1_000 {
        let mut random = Random::new(seed);
        let len = random.below(1_500);
        let mut bytes = random.bytes(len);
        if let Some(first) = bytes.first_mut() {
            *first = *random.of(&[0, 1, 20, 22, 25, 63, 128, 144, 191, 255]);
        }
        let (source, destination, _) = random.of(&tapped).clone();
        scene.world.input(Input::Datagram {
            source,
            destination,
            bytes: &bytes,
        });
    }
    scene.world.run_ms(200);
    scene.assert_unharmed();
    let after = scene.metrics();
    let unrouted = "rtmp_gateway_datagrams_unrouted_total";
    assert!(
        after.get(unrouted) > base.get(unrouted) + 500,
        "{}",
        after.get(unrouted)
    );
}

#[test]
fn a_live_publisher_of_garbage_tags_harms_nobody() {
    let clip = Clip::load();
    for seed in 0..12 {
        let mut random = Random::new(seed);
        let mut scene = Scene::new();
        let mut speaker = Speaker::publisher("bad");
        let conn = scene.world.connect_from(Listener::Rtmp, stranger(seed));
        scene.world.raw_send(conn, &speaker.take());
        // Half of the time it begins as it should, and what follows meets real decoders.
        if seed % 2 == 0 {
            for tag in clip.headers() {
                speaker.media(tag.type_id, 1, 0, &tag.payload);
            }
            scene.world.raw_send(conn, &speaker.take());
        }
        scene.world.rtmp_play("live/bad");
        scene.world.whep("live/bad").expect("it is live");
        scene.world.run_ms(100);
        for n in 0..250 {
            let tag = random.of(&clip.tags);
            let body = match random.below(4) {
                0 => tag.payload.to_vec(),
                1 => {
                    let len = random.below(200);
                    let mut noise = tag.payload[..2].to_vec();
                    noise.extend_from_slice(&random.bytes(len));
                    noise
                }
                // The head of a tag says what it is; the damage goes behind it.
                2 => {
                    let mut body = tag.payload[..5.min(tag.payload.len())].to_vec();
                    body.extend_from_slice(&random.damage(&tag.payload[body.len()..]));
                    body
                }
                _ => random.damage(&tag.payload),
            };
            speaker.media(tag.type_id, 1, n * 20, &body);
            scene.world.raw_send(conn, &speaker.take());
            if scene.world.raw_peer(conn).closed {
                assert!(
                    scene.metrics().error("unsupported_codec") > 0,
                    "seed {seed}"
                );
                break;
            }
            scene.world.run_ms(10);
        }
        scene.assert_unharmed();
    }
}

#[test]
fn a_browser_that_publishes_garbage_rtp_harms_nobody() {
    let pictures = Clip::load().rtp_pictures();
    let sound = opus_tone(50);
    for seed in 0..8 {
        let mut random = Random::new(seed);
        let mut scene = Scene::new();
        let config = BrowserConfig::new(Does::Publish);
        let bad = scene
            .world
            .browse("/whip/live/bad", config, &[])
            .expect("taken");
        scene.world.run_ms(500);
        scene.world.rtmp_play("live/bad");
        scene.world.whep("live/bad").expect("it is live");
        let mut rtp_time = 0_u32;
        for _ in 0..400 {
            let picture = random.of(&pictures);
            let mut payloads: Vec<std::sync::Arc<[u8]>> = picture.payloads.clone();
            for payload in &mut payloads {
                match random.below(4) {
                    0 => *payload = random.damage(payload).into(),
                    1 => {
                        let len = random.below(60);
                        *payload = random.bytes(len).into();
                    }
                    _ => {}
                }
            }
            rtp_time = match random.below(10) {
                0 => random.draw() as u32,
                1 => rtp_time,
                _ => rtp_time.wrapping_add(1_800),
            };
            let packet = random.of(&sound);
            let packet = match random.below(3) {
                0 => random.damage(packet),
                1 => random.bytes(1_200),
                _ => packet.to_vec(),
            };
            let now = scene.world.now;
            let browser: &mut Browser = &mut scene.world.browser_mut(bad).browser;
            browser.write(now, Kind::Video, &payloads, rtp_time);
            browser.write(now, Kind::Audio, &[packet.into()], rtp_time / 2);
            scene.world.run_ms(10);
        }
        scene.assert_unharmed();
    }
}

#[test]
fn ice_tcp_garbage_is_closed_or_dropped() {
    let mut scene = Scene::new();
    let base = scene.metrics();
    for seed in 0..400 {
        let mut random = Random::new(seed);
        let len = random.below(4_000);
        let mut bytes = random.bytes(len);
        if random.below(2) == 0 {
            // Whole frames of noise.
            bytes = (0..20)
                .flat_map(|_| {
                    let len = random.below(300);
                    let mut frame = (len as u16).to_be_bytes().to_vec();
                    frame.extend_from_slice(&random.bytes(len));
                    frame
                })
                .collect();
        }
        let pieces = random.cut(&bytes);
        say(&mut scene, Listener::IceTcp, stranger(seed), &pieces);
        scene.world.run_ms(2);
    }
    scene.assert_unharmed();
    let after = scene.metrics();
    assert!(after.error("ice_tcp_frame_too_long") > 100);
    assert_eq!(after.connections("ice_tcp"), 0);
    // One that says nothing is closed, and counted.
    scene.world.connect_from(Listener::IceTcp, stranger(1));
    scene.world.run_ms(11_000);
    let after = scene.metrics();
    assert_eq!(after.connections("ice_tcp"), 0);
    assert_eq!(after.error("ice_tcp_idle"), base.error("ice_tcp_idle") + 1);
    scene.assert_unharmed();
}

use super::*;

/// All bytes of ffmpeg 5.1.9 as a publisher: digest C1.
const FFMPEG: &[u8] = include_bytes!("../../../tests/fixtures/rtmp/ffmpeg_publish.bin");
/// All bytes of rtmpdump 2.4 as a player: simple C1.
const RTMPDUMP: &[u8] = include_bytes!("../../../tests/fixtures/rtmp/rtmpdump_play.bin");

fn drain(out: &mut TransmitQueue) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(bytes) = out.pop() {
        all.extend_from_slice(&bytes);
    }
    all
}

/// Feeds `bytes` in pieces that end at `cuts`; answers what the server said and what
/// it left of the last piece.
fn serve(bytes: &[u8], cuts: &[usize]) -> (Vec<u8>, Vec<u8>) {
    let mut server = ServerHandshake::new(7);
    let mut out = TransmitQueue::new();
    let mut done = false;
    let mut left = Vec::new();
    let mut from = 0;
    for &to in cuts.iter().chain([&bytes.len()]) {
        let mut piece = &bytes[from..to];
        done = server.read(&mut piece, &mut out).expect("a handshake");
        left.extend_from_slice(piece);
        assert!(done || piece.is_empty());
        from = to;
    }
    assert!(done);
    (drain(&mut out), left)
}

fn block(bytes: &[u8]) -> Block {
    Block::try_from(bytes).expect("1536 bytes")
}

#[test]
fn a_simple_c1_is_echoed() {
    let (answer, left) = serve(RTMPDUMP, &[]);
    assert_eq!(answer.len(), 3_073);
    assert_eq!(answer[0], 3);
    assert_eq!(answer[1..9], [0; 8], "time and version of S1");
    assert_eq!(answer[1_537..], RTMPDUMP[1..1_537], "S2 is C1");
    assert_eq!(left, RTMPDUMP[3_073..], "connect stays");
}

#[test]
fn a_digest_c1_of_ffmpeg_validates_and_gets_digests() {
    let c1 = block(&FFMPEG[1..1_537]);
    let (scheme, c1_digest) = find_digest(&c1, PLAYER_KEY).expect("ffmpeg's digest");
    assert_eq!(scheme, Scheme::First);

    let (answer, left) = serve(FFMPEG, &[]);
    assert_eq!(left, FFMPEG[3_073..]);
    let s1 = block(&answer[1..1_537]);
    assert_eq!(s1[4..8], SERVER_SOFTWARE_VERSION);
    assert_eq!(find_digest(&s1, SERVER_KEY).expect("S1's digest").0, scheme);
    let s2 = block(&answer[1_537..]);
    assert_eq!(answer_digest(s2, &c1_digest, SERVER_KEY), s2);
}

#[test]
fn both_schemes_are_found_and_answered_in_kind() {
    for scheme in [Scheme::First, Scheme::Second] {
        // Many seeds, so that offsets of all sizes come up.
        for seed in 0..64 {
            let mut c1 = Random(seed).block();
            set_head(&mut c1, CLIENT_SOFTWARE_VERSION);
            imprint_digest(&mut c1, scheme, PLAYER_KEY);
            assert_eq!(find_digest(&c1, PLAYER_KEY).expect("a digest").0, scheme);
            let answer = answer_c1(&c1, seed + 1);
            let s1 = block(&answer[1..1_537]);
            assert_eq!(find_digest(&s1, SERVER_KEY).expect("a digest").0, scheme);
        }
    }
}

#[test]
fn a_digest_with_one_wrong_bit_is_answered_simply() {
    let mut bytes = FFMPEG[..3_073].to_vec();
    bytes[1_000] ^= 1;
    let (answer, _) = serve(&bytes, &[]);
    assert_eq!(answer[1_537..], bytes[1..1_537]);
    assert_eq!(answer[5..9], [0; 4]);
}

#[test]
fn the_largest_digest_offsets_stay_inside_the_block() {
    // 4 × 255 mod 728 = 292; 727 is the largest remainder.
    for sum in [[255, 255, 255, 255], [255, 255, 217, 0], [0; 4]] {
        let mut c1 = [0xff; BLOCK_BYTES];
        c1[8..12].copy_from_slice(&sum);
        c1[772..776].copy_from_slice(&sum);
        assert!(find_digest(&c1, PLAYER_KEY).is_none());
        for scheme in [Scheme::First, Scheme::Second] {
            assert!(scheme.digest_offset(&c1) + DIGEST_BYTES <= BLOCK_BYTES);
        }
    }
}

/// CASE 1: C0 and C1 one byte per read, C2 and connect in one segment.
#[test]
fn case_01_bytes_one_by_one_then_c2_glued_to_connect() {
    for bytes in [FFMPEG, RTMPDUMP] {
        let cuts: Vec<usize> = (1..=1_537).collect();
        let (answer, left) = serve(bytes, &cuts);
        assert_eq!((answer, left), serve(bytes, &[]));
    }
}

#[test]
fn every_cut_gives_the_same_answer() {
    let bytes = &FFMPEG[..3_100];
    let whole = serve(bytes, &[]);
    for cut in 1..bytes.len() {
        assert_eq!(serve(bytes, &[cut]), whole, "cut at {cut}");
    }
}

#[test]
fn the_server_answers_when_c1_is_whole_and_not_before() {
    let mut server = ServerHandshake::new(1);
    let mut out = TransmitQueue::new();
    assert_eq!(server.read(&mut &RTMPDUMP[..1_536], &mut out), Ok(false));
    assert!(out.is_empty());
    assert_eq!(
        server.read(&mut &RTMPDUMP[1_536..1_537], &mut out),
        Ok(false)
    );
    assert_eq!(out.len(), 3_073);
    assert_eq!(server.read(&mut &[][..], &mut out), Ok(false));
    assert_eq!(out.len(), 3_073);
}

/// CASE 2: HTTP on the RTMP port is named at its first byte.
#[test]
fn case_02_http_is_not_rtmp() {
    let mut server = ServerHandshake::new(1);
    let mut out = TransmitQueue::new();
    let mut input = &b"GET / HTTP/1.1\r\n"[..];
    let error = server.read(&mut input, &mut out).expect_err("not RTMP");
    assert_eq!(error, HandshakeError::NotRtmp { first: 0x47 });
    assert_eq!(error.reason(), "not_rtmp");
    assert!(out.is_empty());
    for (first, is_rtmp) in [(0, true), (6, true), (31, true), (32, false), (255, false)] {
        let answer = ServerHandshake::new(1).read(&mut &[first][..], &mut out);
        assert_eq!(answer.is_ok(), is_rtmp, "{first}");
    }
}

#[test]
fn an_unknown_version_is_answered_with_3() {
    let mut bytes = RTMPDUMP[..3_073].to_vec();
    bytes[0] = 6;
    let (answer, _) = serve(&bytes, &[]);
    assert_eq!(answer[0], 3);
}

/// Both halves against each other, with every byte of it in a read of its own.
fn shake(form: Form, client_seed: u64) -> (Vec<u8>, Vec<u8>) {
    let (mut to_server, mut to_client) = (TransmitQueue::new(), TransmitQueue::new());
    let mut client = ClientHandshake::start(client_seed, form, &mut to_server);
    let mut server = ServerHandshake::new(99);
    let (mut client_sent, mut server_sent) = (Vec::new(), Vec::new());
    let (mut client_done, mut server_done) = (false, false);
    while !(client_done && server_done) {
        let (up, down) = (drain(&mut to_server), drain(&mut to_client));
        assert!(!up.is_empty() || !down.is_empty(), "both wait");
        for byte in up.chunks(1) {
            server_done = server.read(&mut &byte[..], &mut to_client).expect("up");
        }
        for byte in down.chunks(1) {
            client_done = client.read(&mut &byte[..], &mut to_server).expect("down");
        }
        client_sent.extend(up);
        server_sent.extend(down);
    }
    (client_sent, server_sent)
}

#[test]
fn client_and_server_agree_in_both_forms() {
    let (client, server) = shake(Form::Simple, 5);
    assert_eq!(client[1_537..], server[1..1_537], "C2 is S1");
    assert_eq!(server[1_537..], client[1..1_537], "S2 is C1");

    let (client, server) = shake(Form::Digest, 5);
    let (_, s1_digest) = find_digest(&block(&server[1..1_537]), SERVER_KEY).expect("S1");
    let c2 = block(&client[1_537..]);
    assert_eq!(answer_digest(c2, &s1_digest, PLAYER_KEY), c2);
    assert_ne!(client[1_537..1_637], client[1..101]);
    assert_ne!(shake(Form::Digest, 6).0, client, "the seed matters");
}

#[test]
fn a_digest_client_echoes_a_simple_server() {
    let mut to_server = TransmitQueue::new();
    let mut client = ClientHandshake::start(1, Form::Digest, &mut to_server);
    drain(&mut to_server);
    let mut server = vec![3];
    server.extend_from_slice(&[0x5a; 3_072]);
    server.extend_from_slice(b"more");
    let mut input = &server[..];
    assert_eq!(client.read(&mut input, &mut to_server), Ok(true));
    assert_eq!(input, b"more");
    assert_eq!(drain(&mut to_server), [0x5a; 1_536]);
}

#[test]
fn the_client_names_what_answered() {
    for (first, expected) in [
        (0x48, HandshakeError::NotRtmp { first: 0x48 }),
        (6, HandshakeError::VersionUnsupported { version: 6 }),
    ] {
        let mut out = TransmitQueue::new();
        let mut client = ClientHandshake::start(1, Form::Simple, &mut out);
        assert_eq!(client.read(&mut &[first][..], &mut out), Err(expected));
        assert!(!expected.to_string().is_empty());
    }
}

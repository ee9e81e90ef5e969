use super::*;

/// A client's frame: masked with zeros, which is a mask like any other.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..126 => bytes.push(0x80 | len as u8),
        len => {
            bytes.push(0x80 | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

fn websocket() -> WebSocket {
    WebSocket::new(100, TransmitQueue::new(), Bytes::new())
}

fn sent(websocket: &mut WebSocket) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(part) = websocket.transmit().pop() {
        all.extend_from_slice(&part);
    }
    all
}

fn all(websocket: &mut WebSocket) -> Result<Vec<Event>, Error> {
    let mut events = Vec::new();
    while let Some(event) = websocket.poll_event()? {
        events.push(event);
    }
    Ok(events)
}

#[test]
fn the_key_of_the_specification() {
    assert_eq!(
        accept_key("dGhlIHNhbXBsZSBub25jZQ=="),
        "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    );
    assert_eq!(base64(b"a"), "YQ==");
    assert_eq!(base64(b"ab"), "YWI=");
    assert_eq!(base64(b""), "");
}

#[test]
fn text_in_fragments_with_a_ping_between_cut_anywhere() {
    let mut bytes = frame(0x01, b"Hel");
    bytes.extend(frame(0x89, b"there?"));
    bytes.extend(frame(0x80, b"lo"));
    bytes.extend(frame(0x81, b"two"));
    for cut in 0..bytes.len() {
        let mut websocket = WebSocket::new(
            100,
            TransmitQueue::new(),
            Bytes::copy_from_slice(&bytes[..cut]),
        );
        let mut events = all(&mut websocket).unwrap();
        websocket.receive(&bytes[cut..]);
        events.extend(all(&mut websocket).unwrap());
        let text = |text: &str| Event::Text(text.to_owned());
        assert_eq!(events, [Event::Heard, text("Hello"), text("two")], "{cut}");
        assert_eq!(sent(&mut websocket), b"\x8a\x06there?");
    }
}

#[test]
fn a_close_is_answered_and_ends_it() {
    let mut websocket = websocket();
    websocket.receive(&frame(0x88, &[0x03, 0xe8]));
    assert_eq!(all(&mut websocket), Ok(vec![Event::Closed]));
    assert_eq!(sent(&mut websocket), b"\x88\x02\x03\xe8");
    assert!(websocket.is_over());
    websocket.send("late").unwrap();
    assert!(websocket.transmit().is_empty());
}

#[test]
fn our_close_says_why() {
    let mut websocket = websocket();
    websocket.send("bye").unwrap();
    websocket.close(Close::Policy);
    assert_eq!(sent(&mut websocket), b"\x81\x03bye\x88\x02\x03\xf0");
    websocket.receive(&frame(0x81, b"more"));
    assert_eq!(all(&mut websocket), Ok(vec![]));
}

#[test]
fn what_breaks_a_rule_ends_it_with_its_code() {
    for (bytes, error, code) in [
        (frame(0x82, b"binary"), Error::Binary, 1003_u16),
        (frame(0x81, b"\xff\xfe"), Error::NotUtf8, 1007),
        (frame(0x81, &[b'x'; 101]), Error::TooLong, 1009),
        // No mask.
        (vec![0x81, 0x01, b'x'], Error::Malformed, 1002),
        // A reserved bit, without an extension.
        (frame(0xc1, b"x"), Error::Malformed, 1002),
        // A fragmented ping.
        (frame(0x09, b"x"), Error::Malformed, 1002),
        // A continuation of nothing.
        (frame(0x80, b"x"), Error::Malformed, 1002),
        // A length with its top bit set.
        (
            [&[0x81, 0xff][..], &[0xff; 12]].concat(),
            Error::TooLong,
            1009,
        ),
    ] {
        let mut websocket = websocket();
        websocket.receive(&bytes);
        assert_eq!(all(&mut websocket), Err(error), "{bytes:02x?}");
        assert!(websocket.is_over());
        let frame = [&[0x88, 0x02][..], &code.to_be_bytes()].concat();
        assert_eq!(sent(&mut websocket), frame, "{error}");
    }
}

#[test]
fn fragments_together_are_bounded() {
    let mut websocket = websocket();
    websocket.receive(&frame(0x01, &[b'x'; 60]));
    assert_eq!(all(&mut websocket), Ok(vec![]));
    websocket.receive(&frame(0x80, &[b'x'; 60]));
    assert_eq!(all(&mut websocket), Err(Error::TooLong));
}

#[test]
fn a_peer_that_does_not_read_is_let_go() {
    let mut websocket = websocket();
    let text = "x".repeat(100 << 10);
    let mut results = (0..6).map(|_| websocket.send(&text));
    assert!(results.by_ref().take(5).all(|result| result.is_ok()));
    assert_eq!(results.next(), Some(Err(Error::Unread)));
    drop(results);
    assert!(websocket.is_over());
}

#[test]
fn flipped_bits_never_panic() {
    let mut bytes = frame(0x81, b"{\"type\":\"ping\"}");
    bytes.extend(frame(0x89, b"x"));
    bytes.extend(frame(0x81, &[b'y'; 99]));
    for at in 0..bytes.len() * 8 {
        let mut broken = bytes.clone();
        broken[at / 8] ^= 1 << (at % 8);
        for cut in [broken.len(), at / 8 + 1] {
            let mut websocket = websocket();
            websocket.receive(&broken[..cut]);
            let _ = all(&mut websocket);
        }
    }
}

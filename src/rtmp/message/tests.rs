use super::*;

fn message(type_id: u8, payload: &[u8]) -> Message {
    Message {
        csid: 4,
        timestamp: 1_000,
        type_id,
        stream_id: 1,
        payload: Bytes::copy_from_slice(payload),
    }
}

#[test]
fn control_messages_read_and_write_back() {
    let user = |event| Control::User(event);
    for (control, type_id, payload) in [
        (Control::SetChunkSize(4_096), 1, &[0, 0, 0x10, 0][..]),
        (Control::Abort { csid: 6 }, 2, &[0, 0, 0, 6]),
        (Control::Acknowledgement(u32::MAX), 3, &[0xff; 4]),
        (Control::WindowAckSize(2_500_000), 5, &[0, 0x26, 0x25, 0xa0]),
        (
            Control::SetPeerBandwidth {
                window: 2_500_000,
                limit: BandwidthLimit::Dynamic,
            },
            6,
            &[0, 0x26, 0x25, 0xa0, 2],
        ),
        (user(UserControl::StreamBegin(1)), 4, &[0, 0, 0, 0, 0, 1]),
        (user(UserControl::StreamEof(1)), 4, &[0, 1, 0, 0, 0, 1]),
        (user(UserControl::StreamDry(1)), 4, &[0, 2, 0, 0, 0, 1]),
        (
            user(UserControl::SetBufferLength {
                stream_id: 1,
                millis: 3_000,
            }),
            4,
            &[0, 3, 0, 0, 0, 1, 0, 0, 0x0b, 0xb8],
        ),
        (
            user(UserControl::StreamIsRecorded(1)),
            4,
            &[0, 4, 0, 0, 0, 1],
        ),
        (user(UserControl::PingRequest(5)), 4, &[0, 6, 0, 0, 0, 5]),
        (user(UserControl::PingResponse(5)), 4, &[0, 7, 0, 0, 0, 5]),
        (user(UserControl::Other(31)), 4, &[0, 31]),
    ] {
        let written = control.to_message();
        assert_eq!(written.type_id, type_id);
        assert_eq!(written.payload, payload, "{control:?}");
        assert_eq!((written.csid, written.stream_id), (2, 0));
        assert_eq!(Control::decode(&written), Ok(Some(control)));
        // Whatever is behind the fields changes nothing.
        let longer = message(type_id, &[payload, &[9; 4]].concat());
        assert_eq!(Control::decode(&longer), Ok(Some(control)));
        for length in 0..payload.len() {
            let shorter = message(type_id, &payload[..length]);
            let error = Control::decode(&shorter).expect_err("too short");
            assert_eq!(error, MessageError::ControlTooShort { type_id, length });
        }
    }
    assert_eq!(Control::decode(&message(8, &[])), Ok(None));
}

/// CASE 15: the four bytes of a ping come back as they are.
#[test]
fn case_15_a_ping_is_echoed() {
    let ping = message(4, &[0, 6, 0xde, 0xad, 0xbe, 0xef]);
    let Ok(Some(Control::User(UserControl::PingRequest(clock)))) = Control::decode(&ping) else {
        panic!("a ping");
    };
    let pong = Control::User(UserControl::PingResponse(clock)).to_message();
    assert_eq!(pong.payload[..], [0, 7, 0xde, 0xad, 0xbe, 0xef]);
}

/// CASE 11: types 15, 16 and 17 are 18, 19 and 20 behind a format byte.
#[test]
fn case_11_the_format_byte_is_left_out() {
    let body = [2, 0, 1, b'a'];
    for type_id in [18, 19, 20] {
        assert_eq!(message(type_id, &body).amf0_body(), Some(&body[..]));
    }
    for type_id in [15, 16, 17] {
        let formatted = [&[0], &body[..]].concat();
        assert_eq!(message(type_id, &formatted).amf0_body(), Some(&body[..]));
        assert_eq!(message(type_id, &body).amf0_body(), Some(&body[..]));
        assert_eq!(message(type_id, &[]).amf0_body(), Some(&[][..]));
    }
    assert_eq!(message(8, &body).amf0_body(), None);
}

/// One message of an aggregate, with its back pointer.
fn tag(type_id: u8, timestamp: u32, data: &[u8]) -> Vec<u8> {
    let mut out = vec![type_id];
    out.put_u24_be(data.len() as u32);
    out.put_u24_be(timestamp);
    out.push((timestamp >> 24) as u8);
    out.put_u24_be(77);
    out.extend_from_slice(data);
    out.put_u32_be(11 + data.len() as u32);
    out
}

fn split(payload: &[u8]) -> Result<Vec<Message>, MessageError> {
    message(type_id::AGGREGATE, payload).aggregate().collect()
}

#[test]
fn an_aggregate_counts_from_its_own_timestamp() {
    let payload = [
        tag(8, 0x0100_0000, b"aa"),
        tag(9, 0x0100_0017, b"vvv"),
        tag(8, 0x00ff_fff0, b""),
    ]
    .concat();
    let messages = split(&payload).expect("an aggregate");
    let seen: Vec<_> = messages
        .iter()
        .map(|m| (m.type_id, m.timestamp, m.stream_id, &m.payload[..]))
        .collect();
    assert_eq!(
        seen,
        [
            (8, 1_000, 1, &b"aa"[..]),
            (9, 1_023, 1, b"vvv"),
            (8, 984, 1, b""),
        ]
    );
    assert_eq!(split(&[]), Ok(vec![]));
}

#[test]
fn an_aggregate_wraps_as_timestamps_do() {
    let payload = [tag(8, u32::MAX, b"a"), tag(8, 4, b"b")].concat();
    let messages = split(&payload).expect("an aggregate");
    assert_eq!(messages[1].timestamp, 1_005);
}

#[test]
fn the_last_back_pointer_may_be_cut() {
    let payload = tag(8, 0, b"abc");
    for missing in 0..=4 {
        let messages = split(&payload[..payload.len() - missing]).expect("an aggregate");
        assert_eq!(messages[0].payload[..], b"abc"[..]);
    }
}

#[test]
fn broken_aggregates_end_by_name() {
    let payload = [tag(8, 0, b"abc"), tag(9, 1, b"defg")].concat();
    let first = tag(8, 0, b"abc").len();
    for end in first + 1..payload.len() - 4 {
        let mut messages = message(22, &payload[..end]).aggregate();
        assert!(matches!(messages.next(), Some(Ok(_))));
        assert_eq!(
            messages.next(),
            Some(Err(MessageError::AggregateTruncated { index: 2 })),
            "{end}"
        );
        assert_eq!(messages.next(), None);
    }
    assert_eq!(
        split(&tag(22, 0, &tag(8, 0, b"a"))),
        Err(MessageError::AggregateNested { index: 1 })
    );
    let max = AGGREGATE_MESSAGES_MAX;
    assert_eq!(split(&tag(8, 0, b"").repeat(max)).map(|m| m.len()), Ok(max));
    assert_eq!(
        split(&tag(8, 0, b"").repeat(max + 1)),
        Err(MessageError::AggregateTooLong { max })
    );
}

#[test]
fn every_flipped_bit_of_an_aggregate_returns() {
    let payload = [tag(8, 0, b"abc"), tag(9, 1, b"defg")].concat();
    for bit in 0..payload.len() * 8 {
        let mut flipped = payload.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(messages) = split(&flipped) {
            assert!(messages.iter().map(|m| m.payload.len()).sum::<usize>() <= flipped.len());
        }
    }
}

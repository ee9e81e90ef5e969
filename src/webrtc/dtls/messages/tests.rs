use super::*;

fn fragment(number: u16, length: usize, offset: usize, bytes: &[u8]) -> Vec<u8> {
    let u24 = |value: usize| u32::try_from(value).unwrap().to_be_bytes()[1..].to_vec();
    let mut made = vec![11];
    made.extend(u24(length));
    made.extend(number.to_be_bytes());
    made.extend(u24(offset));
    made.extend(u24(bytes.len()));
    made.extend_from_slice(bytes);
    made
}

fn record(fragments: &[Vec<u8>]) -> Vec<u8> {
    let body = fragments.concat();
    let mut made = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 7];
    made.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    made.extend(body);
    made
}

fn taken(messages: &mut Messages, record: &[u8]) -> Vec<Vec<u8>> {
    let mut handed_on = Vec::new();
    let taken = messages.take(record, |record| {
        handed_on.push(record.to_vec());
        Ok::<(), ()>(())
    });
    taken.unwrap();
    handed_on
}

#[test]
fn pieces_in_any_order_and_overlapping_become_one_message() {
    let mut messages = Messages::default();
    let body: Vec<u8> = (0..100).collect();
    let piece = |from: usize, to: usize| record(&[fragment(0, 100, from, &body[from..to])]);
    for (from, to) in [(50, 70), (20, 55), (90, 100), (50, 70), (70, 90)] {
        assert!(taken(&mut messages, &piece(from, to)).is_empty());
    }
    let whole = record(&[fragment(0, 100, 0, &body)]);
    assert_eq!(taken(&mut messages, &piece(0, 30)), [whole]);
    // Repeated: as it came.
    assert_eq!(taken(&mut messages, &piece(3, 9)), [piece(3, 9)]);
}

#[test]
fn messages_wait_for_those_before_them() {
    let mut messages = Messages::default();
    let [first, second, third] = [0, 1, 2].map(|number| fragment(number, 2, 0, &[7, 8]));
    let both = record(&[second.clone(), third.clone()]);
    assert!(taken(&mut messages, &both).is_empty());
    let expected = [&first, &second, &third].map(|one| record(std::slice::from_ref(one)));
    assert_eq!(taken(&mut messages, &record(&[first])), expected);
    // One without a body is whole at once.
    let empty = record(&[fragment(3, 0, 0, &[])]);
    assert_eq!(taken(&mut messages, &empty), std::slice::from_ref(&empty));
}

#[test]
fn what_is_no_plain_handshake_goes_on_untouched() {
    let mut messages = Messages::default();
    let mut protected = record(&[fragment(0, 2, 0, &[7, 8])]);
    protected[4] = 1;
    let mut cipher_spec = record(&[]);
    cipher_spec[0] = 20;
    let cut = record(&[fragment(0, 2, 0, &[7, 8])[..9].to_vec()]);
    let beyond = record(&[fragment(0, 2, 1, &[7, 8])]);
    let long = record(&[fragment(0, 20_000, 0, &[7, 8])]);
    for other in [protected, cipher_spec, cut, beyond, long] {
        assert_eq!(taken(&mut messages, &other), std::slice::from_ref(&other));
    }
}

#[test]
fn what_is_kept_is_bounded() {
    let mut messages = Messages::default();
    for number in 0..=u16::MAX {
        assert!(taken(&mut messages, &record(&[fragment(number, 9_000, 1, &[1])])).is_empty());
    }
    assert_eq!(messages.parts.len(), AHEAD_MAX);
    for offset in 0..4_000 {
        taken(
            &mut messages,
            &record(&[fragment(0, 9_000, 2 * offset, &[1])]),
        );
    }
    let first = messages.parts[0].as_ref().unwrap();
    assert!(first.spans.len() <= SPANS_MAX);
}

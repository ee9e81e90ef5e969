use super::*;

/// Bytes from spaced hex.
fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).expect("hex"))
        .collect()
}

fn decode(text: &str) -> Result<Vec<Value>, AmfError> {
    decode_all(&hex(text), AmfLimits::default())
}

fn one(text: &str) -> Value {
    let mut values = decode(text).expect("AMF0");
    assert_eq!(values.len(), 1);
    values.remove(0)
}

fn text(value: &str) -> Value {
    Value::string(value)
}

/// Each type that is written as it is read.
const PLAIN: &[&str] = &[
    "00 3f f0 00 00 00 00 00 00",
    "01 01",
    "01 00",
    "02 00 04 6c 69 76 65",
    "02 00 00",
    "03 00 03 61 70 70 02 00 04 6c 69 76 65 00 00 09",
    "05",
    "06",
    "08 00 00 00 01 00 01 61 01 01 00 00 09",
    "0a 00 00 00 02 05 00 40 00 00 00 00 00 00 00",
    "0b 42 6b 8d 59 f5 80 00 00 00 00",
    "0d",
    "10 00 03 41 2e 42 00 01 78 05 00 00 09",
];

#[test]
fn every_type_reads_and_writes_back() {
    let values = [
        Value::Number(1.0),
        Value::Boolean(true),
        Value::Boolean(false),
        text("live"),
        text(""),
        Value::object([("app", text("live"))]),
        Value::Null,
        Value::Undefined,
        Value::EcmaArray(vec![("a".into(), Value::Boolean(true))]),
        Value::StrictArray(vec![Value::Null, Value::Number(2.0)]),
        Value::Date(946_684_800_000.0),
        Value::Unsupported,
        Value::TypedObject {
            class_name: "A.B".into(),
            properties: vec![("x".into(), Value::Null)],
        },
    ];
    for (bytes, value) in PLAIN.iter().zip(values) {
        assert_eq!(one(bytes), value, "{bytes}");
        let mut out = Vec::new();
        encode(&value, &mut out);
        assert_eq!(out, hex(bytes), "{value:?}");
    }
}

#[test]
fn a_command_is_a_row_of_values() {
    let values = decode("02 00 07 63 6f 6e 6e 65 63 74 00 3f f0 00 00 00 00 00 00 05");
    assert_eq!(
        values,
        Ok(vec![text("connect"), Value::Number(1.0), Value::Null])
    );
    assert_eq!(decode(""), Ok(vec![]));
}

#[test]
fn long_strings_and_documents_are_strings() {
    assert_eq!(one("0c 00 00 00 02 68 69"), text("hi"));
    assert_eq!(one("0f 00 00 00 04 3c 61 2f 3e"), text("<a/>"));
    for (length, marker) in [(65_535, 0x02), (65_536, 0x0c)] {
        let value = text(&"x".repeat(length));
        let mut out = Vec::new();
        encode(&value, &mut out);
        assert_eq!(out[0], marker);
        assert_eq!(decode_all(&out, AmfLimits::default()), Ok(vec![value]));
    }
}

#[test]
fn broken_utf8_is_replaced_and_an_overlong_name_cut_at_a_character() {
    assert_eq!(one("02 00 03 61 ff 62"), text("a\u{fffd}b"));
    let name = "é".repeat(40_000);
    let mut out = Vec::new();
    encode(&Value::Object(vec![(name.clone(), Value::Null)]), &mut out);
    let values = decode_all(&out, AmfLimits::default()).expect("AMF0");
    let properties = values[0].properties().expect("an object");
    assert_eq!(properties[0].0, name[..65_534]);
}

/// CASE 12: the count of an associative array lies, the end marker does not.
#[test]
fn case_12_ecma_array_counts_are_hints() {
    let entries: String = (0..13)
        .map(|i| format!("00 01 {:02x} 01 01 ", b'a' + i))
        .collect();
    for count in ["00 00 00 00", "00 00 00 0d", "00 00 03 e8", "ff ff ff ff"] {
        let value = one(&format!("08 {count} {entries} 00 00 09"));
        assert_eq!(value.properties().map(<[_]>::len), Some(13), "{count}");
        assert_eq!(value.get("m"), Some(&Value::Boolean(true)));
    }
}

/// CASE 12: nesting of a thousand is refused, in each container.
#[test]
fn case_12_nesting_is_bounded() {
    let max = AmfLimits::default().depth_max;
    for opening in [
        "03 00 01 61",
        "08 00 00 00 01 00 01 61",
        "0a 00 00 00 01",
        "10 00 01 43 00 01 61",
    ] {
        let deep = opening.to_owned() + " ";
        assert_eq!(
            decode(&deep.repeat(1_000)),
            Err(AmfError::TooDeep { max }),
            "{opening}"
        );
    }
    let array = "0a 00 00 00 01 ";
    assert!(decode(&(array.repeat(max) + "05")).is_ok());
    assert!(decode(&(array.repeat(max + 1) + "05")).is_err());
    // A stack is no nesting.
    assert!(decode(&"03 00 00 09 ".repeat(1_000)).is_ok());
}

/// CASE 12: lengths and counts past the end allocate nothing.
#[test]
fn case_12_claims_past_the_end_are_truncated() {
    for bytes in [
        "02 ff ff 61",
        "0c ff ff ff ff 61",
        "0f ff ff ff ff 61",
        "0a ff ff ff ff 05 05",
        "08 ff ff ff ff 00 01 61 05",
        "03 ff ff 61",
        "10 00 01",
    ] {
        assert_eq!(decode(bytes), Err(AmfError::Truncated), "{bytes}");
    }
}

#[test]
fn values_and_text_are_bounded_over_the_whole_body() {
    let limits = AmfLimits {
        depth_max: 4,
        values_max: 10,
        string_bytes_max: 8,
    };
    assert!(decode_all(&[5; 10], limits).is_ok());
    assert_eq!(
        decode_all(&[5; 11], limits),
        Err(AmfError::TooManyValues { max: 10 })
    );
    let nested = hex("0a 00 00 00 0a 05 05 05 05 05 05 05 05 05 05");
    assert_eq!(
        decode_all(&nested, limits),
        Err(AmfError::TooManyValues { max: 10 })
    );
    let name_and_text = |last: &str| hex(&format!("03 00 04 61 61 61 61 02 {last} 00 00 09"));
    assert!(decode_all(&name_and_text("00 04 62 62 62 62"), limits).is_ok());
    assert_eq!(
        decode_all(&name_and_text("00 05 62 62 62 62 62"), limits),
        Err(AmfError::StringsTooLong { max: 8 })
    );
}

#[test]
fn references_keep_their_place() {
    assert_eq!(
        decode("07 00 01 05"),
        Ok(vec![Value::Unsupported, Value::Null])
    );
}

#[test]
fn reserved_and_unknown_markers_are_refused_by_number() {
    for marker in [0x04, 0x09, 0x0e, 0x12, 0xff] {
        assert_eq!(
            decode_all(&[marker, 0, 0, 0, 0], AmfLimits::default()),
            Err(AmfError::UnknownMarker { marker })
        );
    }
}

#[test]
fn an_empty_name_is_a_name_unless_the_end_follows() {
    let value = one("03 00 00 05 00 01 61 06 00 00 09");
    assert_eq!(value.get(""), Some(&Value::Null));
    assert_eq!(value.get("a"), Some(&Value::Undefined));
}

#[test]
fn the_last_of_two_properties_of_one_name_counts() {
    let value = one("03 00 01 61 01 00 00 01 61 01 01 00 00 09");
    assert_eq!(value.get("a"), Some(&Value::Boolean(true)));
    assert_eq!(value.get("b"), None);
    assert_eq!(Value::Null.get("a"), None);
}

/// CASE 11: marker 0x11 switches to AMF3 for one value.
#[test]
fn case_11_the_switch_to_amf3_is_not_sticky() {
    // The AMF3 integer 5, then an AMF0 boolean: in AMF3, 01 would be null.
    assert_eq!(
        decode("11 04 05 01 01"),
        Ok(vec![Value::Number(5.0), Value::Boolean(true)])
    );
    // Inside an object, too.
    assert_eq!(
        one("03 00 01 61 11 06 03 78 00 01 62 01 01 00 00 09"),
        Value::object([("a", text("x")), ("b", Value::Boolean(true))])
    );
}

#[test]
fn what_comes_before_an_error_is_not_lost() {
    let (values, error) = decode_prefix(&hex("02 00 01 61 05 ee"), AmfLimits::default());
    assert_eq!(values, [text("a"), Value::Null]);
    assert_eq!(error, Some(AmfError::UnknownMarker { marker: 0xee }));
}

/// The connect of ffmpeg 5.1.9 as a publisher, without its chunk header.
#[test]
fn reads_what_ffmpeg_says() {
    let stream = include_bytes!("../../../tests/fixtures/rtmp/ffmpeg_publish.bin");
    // One chunk header of 12 bytes, then a second one inside, after 128.
    let (head, tail) = stream[3_073 + 12..].split_at(128);
    let body = [head, &tail[1..1 + 0x98 - 128]].concat();
    let values = decode_all(&body, AmfLimits::default()).expect("connect");
    let [command, transaction, object] = &values[..] else {
        panic!("three values: {values:?}");
    };
    assert_eq!(command.as_str(), Some("connect"));
    assert_eq!(transaction.as_f64(), Some(1.0));
    assert_eq!(
        object.get("app").and_then(Value::as_str),
        Some("live/room1")
    );
    assert_eq!(
        object.get("tcUrl").and_then(Value::as_str),
        Some("rtmp://127.0.0.1:19351/live/room1")
    );
}

#[test]
fn every_truncation_and_every_flipped_bit_returns() {
    let mut all: Vec<u8> = PLAIN.iter().flat_map(|bytes| hex(bytes)).collect();
    all.extend(hex(
        "0c 00 00 00 02 68 69 07 00 01 11 0a 0b 01 03 61 04 01 01",
    ));
    let limits = AmfLimits::default();
    let whole = decode_all(&all, limits).expect("all types");
    for end in 0..all.len() {
        let (values, _) = decode_prefix(&all[..end], limits);
        assert!(values.len() <= whole.len());
    }
    for bit in 0..all.len() * 8 {
        let mut flipped = all.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let (values, _) = decode_prefix(&flipped, limits);
        let mut out = Vec::new();
        values.iter().for_each(|value| encode(value, &mut out));
    }
}

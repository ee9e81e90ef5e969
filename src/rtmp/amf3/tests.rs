use super::*;

/// Bytes from spaced hex.
fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).expect("hex"))
        .collect()
}

fn read(text: &str) -> Result<Value, AmfError> {
    decode(&hex(text), AmfLimits::default())
}

fn text(value: &str) -> Value {
    Value::string(value)
}

fn numbers(values: &[f64]) -> Value {
    Value::StrictArray(values.iter().copied().map(Value::Number).collect())
}

#[test]
fn plain_values() {
    for (bytes, value) in [
        ("00", Value::Undefined),
        ("01", Value::Null),
        ("02", Value::Boolean(false)),
        ("03", Value::Boolean(true)),
        ("04 00", Value::Number(0.0)),
        ("04 7f", Value::Number(127.0)),
        ("04 81 00", Value::Number(128.0)),
        ("04 ff 7f", Value::Number(16_383.0)),
        ("04 81 80 00", Value::Number(16_384.0)),
        ("04 ff ff 7f", Value::Number(2_097_151.0)),
        ("04 80 c0 80 00", Value::Number(2_097_152.0)),
        ("04 bf ff ff ff", Value::Number(268_435_455.0)),
        ("04 c0 80 80 00", Value::Number(-268_435_456.0)),
        ("04 ff ff ff ff", Value::Number(-1.0)),
        ("05 3f f8 00 00 00 00 00 00", Value::Number(1.5)),
        ("06 05 68 69", text("hi")),
        ("06 01", text("")),
        ("07 09 3c 61 2f 3e", text("<a/>")),
        ("0b 09 3c 61 2f 3e", text("<a/>")),
        (
            "08 01 42 6b 8d 59 f5 80 00 00",
            Value::Date(946_684_800_000.0),
        ),
        ("0c 07 01 02 03", Value::Unsupported),
    ] {
        assert_eq!(read(bytes), Ok(value), "{bytes}");
    }
}

#[test]
fn arrays_are_dense_or_named_or_both() {
    assert_eq!(read("09 05 01 04 01 04 02"), Ok(numbers(&[1.0, 2.0])));
    assert_eq!(read("09 01 01"), Ok(numbers(&[])));
    assert_eq!(
        read("09 03 03 61 03 01 04 07"),
        Ok(Value::EcmaArray(vec![
            ("a".into(), Value::Boolean(true)),
            ("0".into(), Value::Number(7.0)),
        ]))
    );
}

#[test]
fn objects_with_sealed_and_dynamic_names() {
    // Dynamic, no sealed names, no class: what a Flash object literal is.
    assert_eq!(
        read("0a 0b 01 07 61 70 70 06 09 6c 69 76 65 01"),
        Ok(Value::object([("app", text("live"))]))
    );
    // Class "C", one sealed name, not dynamic.
    assert_eq!(
        read("0a 13 03 43 03 78 04 05"),
        Ok(Value::TypedObject {
            class_name: "C".into(),
            properties: vec![("x".into(), Value::Number(5.0))],
        })
    );
    // One sealed name, and dynamic.
    assert_eq!(
        read("0a 1b 01 03 78 04 05 03 79 04 06 01"),
        Ok(Value::object([
            ("x", Value::Number(5.0)),
            ("y", Value::Number(6.0))
        ]))
    );
}

#[test]
fn strings_and_traits_are_sent_once() {
    // ["hi", "hi"], then two objects of one shape whose name "x" is string 1.
    assert_eq!(
        read("09 09 01 06 05 68 69 06 00 0a 13 01 03 78 04 01 0a 01 06 02"),
        Ok(Value::StrictArray(vec![
            text("hi"),
            text("hi"),
            Value::object([("x", Value::Number(1.0))]),
            Value::object([("x", text("x"))]),
        ]))
    );
}

#[test]
fn an_object_by_reference_keeps_its_place() {
    // [{}, the first object again, 9]; the array is object 0.
    assert_eq!(
        read("09 07 01 0a 0b 01 01 0a 02 04 09"),
        Ok(Value::StrictArray(vec![
            Value::object([]),
            Value::Unsupported,
            Value::Number(9.0)
        ]))
    );
    // An array inside itself.
    assert_eq!(
        read("09 03 01 09 00"),
        Ok(Value::StrictArray(vec![Value::Unsupported]))
    );
}

#[test]
fn references_to_nothing_are_refused() {
    for (bytes, index, known) in [
        ("06 00", 0, 0),
        ("06 fe 7e", 8_127, 0),
        ("0a 00", 0, 0),
        ("0a 01", 0, 0),
        ("0a 05", 1, 0),
        ("09 03 01 0a 02", 1, 1),
    ] {
        assert_eq!(
            read(bytes),
            Err(AmfError::ReferenceOutOfRange { index, known }),
            "{bytes}"
        );
    }
}

#[test]
fn vectors_and_dictionaries() {
    assert_eq!(
        read("0d 05 00 ff ff ff ff 00 00 00 02"),
        Ok(numbers(&[-1.0, 2.0]))
    );
    assert_eq!(
        read("0e 03 00 ff ff ff ff"),
        Ok(numbers(&[4_294_967_295.0]))
    );
    assert_eq!(
        read("0f 03 00 3f f8 00 00 00 00 00 00"),
        Ok(numbers(&[1.5]))
    );
    assert_eq!(read("10 05 00 01 04 01 04 02"), Ok(numbers(&[1.0, 2.0])));
    assert_eq!(
        read("11 05 00 06 03 61 03 04 07 02"),
        Ok(Value::EcmaArray(vec![
            ("a".into(), Value::Boolean(true)),
            ("7".into(), Value::Boolean(false)),
        ]))
    );
}

#[test]
fn flex_wrappers_are_looked_through_and_other_classes_refused() {
    let class = |name: &str| {
        let bytes = name
            .bytes()
            .map(|b| format!("{b:02x} "))
            .collect::<String>();
        format!("0a 07 {:02x} {bytes}", name.len() * 2 + 1)
    };
    let collection = class("flex.messaging.io.ArrayCollection");
    assert_eq!(
        read(&format!("{collection} 09 03 01 04 01")),
        Ok(numbers(&[1.0]))
    );
    assert_eq!(read(&class("a.B")), Err(AmfError::Externalizable));
}

#[test]
fn unknown_markers_are_refused_by_number() {
    for marker in [0x12, 0xff] {
        assert_eq!(
            decode(&[marker, 1], AmfLimits::default()),
            Err(AmfError::UnknownMarker3 { marker })
        );
    }
}

/// CASE 12: nothing that one byte can refer to multiplies without bound.
#[test]
fn case_12_references_do_not_amplify() {
    let limits = AmfLimits::default();
    // A string of 4 kB, referred to ten thousand times: 40 MB if nobody counted.
    let mut bytes = hex("09 ce 21 01 06 c0 01");
    bytes.extend_from_slice(&[b'x'; 4_096]);
    bytes.extend(hex("06 00").repeat(9_999));
    assert_eq!(
        decode(&bytes, limits),
        Err(AmfError::StringsTooLong {
            max: limits.string_bytes_max
        })
    );
    // Traits with two million names that are one string.
    let mut bytes = hex("0a 83 ff ff 83 01 03 61");
    bytes.extend_from_slice(&[0; 100_000]);
    assert_eq!(
        decode(&bytes, limits),
        Err(AmfError::TooManyValues {
            max: limits.values_max
        })
    );
    // Depth.
    let bytes = hex("09 03 01").repeat(1_000);
    assert_eq!(
        decode(&bytes, limits),
        Err(AmfError::TooDeep {
            max: limits.depth_max
        })
    );
}

#[test]
fn every_truncation_and_every_flipped_bit_returns() {
    for example in [
        "09 09 01 06 05 68 69 06 00 0a 13 01 03 78 04 01 0a 01 06 02",
        "0a 1b 01 03 78 04 05 03 79 05 3f f8 00 00 00 00 00 00 01",
        "09 03 03 61 03 01 0c 07 01 02 03",
        "11 05 00 06 03 61 03 04 07 02",
        "10 05 00 01 0d 03 00 00 00 00 01 0f 03 00 3f f8 00 00 00 00 00 00",
        "08 01 42 6b 8d 59 f5 80 00 00",
        "0b 09 3c 61 2f 3e",
    ] {
        let bytes = hex(example);
        let limits = AmfLimits::default();
        assert!(decode(&bytes, limits).is_ok(), "{example}");
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end], limits).is_err(), "{example} to {end}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let _ = decode(&flipped, limits);
        }
    }
}

//! Base64 (RFC 4648), decoded strictly: one text for one value, so that a signature cannot be
//! written in two ways.

/// `base64url` without padding (RFC 7515 section 2). `None` if anything about it is wrong:
/// a character of another alphabet, padding, an impossible length, bits left over.
pub(super) fn decode_url(text: &str) -> Option<Vec<u8>> {
    decode(text.as_bytes(), b'-', b'_')
}

/// The body of a PEM block, its white space taken out: `base64` with its padding.
pub(super) fn decode_padded(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let bare = text.strip_suffix("==").or_else(|| text.strip_suffix('='));
    decode(bare.unwrap_or(text).as_bytes(), b'+', b'/')
}

fn decode(text: &[u8], of_62: u8, of_63: u8) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    let (mut bits, mut count) = (0u32, 0);
    for &character in text {
        let value = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            c if c == of_62 => 62,
            c if c == of_63 => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
            bits &= (1 << count) - 1;
        }
    }
    // Six bits left over are a character too many; others must be zero.
    (count < 6 && bits == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_of_rfc_4648_are_decoded() {
        for (text, padded, value) in [
            ("", "", ""),
            ("Zg", "Zg==", "f"),
            ("Zm8", "Zm8=", "fo"),
            ("Zm9v", "Zm9v", "foo"),
            ("Zm9vYg", "Zm9vYg==", "foob"),
            ("Zm9vYmE", "Zm9vYmE=", "fooba"),
            ("Zm9vYmFy", "Zm9vYmFy", "foobar"),
        ] {
            assert_eq!(decode_url(text).as_deref(), Some(value.as_bytes()));
            assert_eq!(decode_padded(padded).as_deref(), Some(value.as_bytes()));
        }
        assert_eq!(decode_url("-_8"), Some(vec![0xfb, 0xff]));
        assert_eq!(decode_padded("+/8="), Some(vec![0xfb, 0xff]));
    }

    #[test]
    fn what_could_be_written_otherwise_is_refused() {
        for text in [
            "Z", "Zg=", "Zg==", "Zh", "Zm9", "Zm8\n", "+/8", "Zmé", "A====",
        ] {
            assert_eq!(decode_url(text), None, "{text}");
        }
        for text in ["Zg", "Zg=", "Zh==", "-_8=", "Z===", "===="] {
            assert_eq!(decode_padded(text), None, "{text}");
        }
    }
}

//! Reads an FLV byte stream as a player program writes it, tag by tag, with the
//! time of arrival: what came over the wire, with nothing smoothed.

use std::io::Read;
use std::path::Path;
use std::time::Instant;

/// One tag.
#[derive(Clone, Debug)]
pub struct Tag {
    /// 8 audio, 9 video, 18 script data.
    pub kind: u8,
    /// The extended timestamp, ms.
    pub timestamp_ms: u32,
    /// The tag's body.
    pub body: Vec<u8>,
    /// When its last byte was read.
    pub arrival: Instant,
}

impl Tag {
    /// Coded AAC, not its configuration.
    pub fn is_sound(&self) -> bool {
        self.kind == 8 && self.body.get(1) == Some(&1)
    }

    /// Coded H.264, not its configuration and not the end of the sequence.
    pub fn is_picture(&self) -> bool {
        self.kind == 9 && self.body.get(1) == Some(&1) && self.body.len() > 9
    }

    /// A picture that starts a GOP, and truly is an IDR (its slices are type 5).
    pub fn is_idr(&self) -> bool {
        self.is_picture() && self.nal_types().contains(&5)
    }

    /// The configuration record of H.264 or AAC.
    pub fn is_sequence_header(&self) -> bool {
        matches!(self.kind, 8 | 9) && self.body.get(1) == Some(&0)
    }

    /// The types of the NAL units of a picture with 4-byte lengths.
    pub fn nal_types(&self) -> Vec<u8> {
        let mut types = Vec::new();
        let mut rest = self.body.get(5..).unwrap_or_default();
        while let Some((length, tail)) = rest.split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*length) as usize;
            if let Some(first) = tail.first() {
                types.push(first & 0x1f);
            }
            rest = tail.get(length..).unwrap_or_default();
        }
        types
    }
}

/// Reads the next tag; `None` at the end of the stream. The file header must
/// have been read with [`read_header`].
pub fn read_tag(from: &mut impl Read) -> Option<Tag> {
    let mut head = [0; 11];
    from.read_exact(&mut head).ok()?;
    let [kind, s0, s1, s2, t0, t1, t2, t3, ..] = head;
    let mut body = vec![0; u32::from_be_bytes([0, s0, s1, s2]) as usize];
    from.read_exact(&mut body).ok()?;
    let arrival = Instant::now();
    from.read_exact(&mut [0; 4]).ok()?;
    Some(Tag {
        kind: kind & 0x1f,
        timestamp_ms: u32::from_be_bytes([t3, t0, t1, t2]),
        body,
        arrival,
    })
}

/// Reads the file header; false when this is no FLV.
pub fn read_header(from: &mut impl Read) -> bool {
    let mut header = [0; 13];
    from.read_exact(&mut header).is_ok() && header.starts_with(b"FLV\x01")
}

/// All tags of a file's bytes.
pub fn tags_of(mut bytes: &[u8]) -> Vec<Tag> {
    assert!(read_header(&mut bytes), "not an FLV file");
    std::iter::from_fn(|| read_tag(&mut bytes)).collect()
}

/// Writes tags into a file as they are.
///
/// # Panics
/// When the file cannot be written.
pub fn write(file: &Path, tags: &[Tag]) {
    let mut bytes = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
    for tag in tags {
        let length = u32::try_from(tag.body.len()).expect("a tag is short");
        let [t3, t0, t1, t2] = tag.timestamp_ms.to_be_bytes();
        bytes.push(tag.kind);
        bytes.extend_from_slice(&length.to_be_bytes()[1..]);
        bytes.extend_from_slice(&[t0, t1, t2, t3, 0, 0, 0]);
        bytes.extend_from_slice(&tag.body);
        bytes.extend_from_slice(&(length + 11).to_be_bytes());
    }
    std::fs::write(file, bytes).expect("the file can be written");
}

/// Asserts what every player may rely on: configuration before the first frame
/// of its track, the first picture an IDR, and no timestamp going back within a
/// track.
///
/// # Panics
/// When one of these is broken, with the place.
pub fn assert_in_order(tags: &[Tag]) {
    for kind in [8, 9] {
        let track: Vec<&Tag> = tags.iter().filter(|tag| tag.kind == kind).collect();
        let first = track
            .first()
            .unwrap_or_else(|| panic!("no tag of type {kind}"));
        assert!(
            first.is_sequence_header(),
            "the first tag of type {kind} is not the configuration: {:02x?}",
            first.body.get(..8)
        );
        let coded: Vec<&&Tag> = track
            .iter()
            .filter(|tag| tag.is_sound() || tag.is_picture())
            .collect();
        for pair in coded.windows(2) {
            let [a, b] = pair else { continue };
            assert!(
                a.timestamp_ms <= b.timestamp_ms,
                "type {kind}: {} ms after {} ms",
                b.timestamp_ms,
                a.timestamp_ms
            );
            // Two pictures never share a moment.
            assert!(
                kind == 8 || a.timestamp_ms < b.timestamp_ms,
                "two pictures at {} ms",
                a.timestamp_ms
            );
        }
    }
    let first_picture = tags
        .iter()
        .find(|tag| tag.is_picture())
        .expect("there is a picture");
    assert!(
        first_picture.is_idr(),
        "the first picture is no IDR: NAL types {:?}",
        first_picture.nal_types()
    );
}

//! What a viewer got, put together again and held against the rules.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant, SystemTime};

use super::browser::{Kind, Seen};
use super::world::BrowserPeer;

/// One access unit that a viewer got.
#[derive(Clone, Debug)]
pub struct Picture {
    /// When its last packet came.
    pub at: Instant,
    pub rtp_time: u64,
    pub nals: Vec<Vec<u8>>,
    pub packets: usize,
}

impl Picture {
    pub fn is_key(&self) -> bool {
        self.nals.iter().any(|nal| nal[0] & 0x1f == 5)
    }

    /// The SPS in front of it.
    pub fn sps(&self) -> Option<&[u8]> {
        let mut nals = self.nals.iter();
        nals.find(|nal| nal[0] & 0x1f == 7).map(Vec::as_slice)
    }

    /// All but its parameter sets with 4-byte lengths, as in the neutral form.
    pub fn avcc(&self) -> Vec<u8> {
        let slices = self
            .nals
            .iter()
            .filter(|nal| matches!(nal[0] & 0x1f, 1..=6));
        slices
            .flat_map(|nal| {
                (nal.len() as u32)
                    .to_be_bytes()
                    .into_iter()
                    .chain(nal.iter().copied())
            })
            .collect()
    }
}

/// One Opus packet that a viewer got.
#[derive(Clone, Debug)]
pub struct Sound {
    pub at: Instant,
    pub rtp_time: u64,
    pub payload: Vec<u8>,
}

/// The pictures of a viewer whose path loses nothing.
///
/// Panics if the sequence has a gap, a marker is missing or misplaced, a time goes back, or a
/// key frame does not begin with SPS and PPS in one packet.
pub fn pictures(peer: &BrowserPeer) -> Vec<Picture> {
    let mut pictures: Vec<Picture> = Vec::new();
    let mut fragment = Vec::new();
    let mut expected = None;
    let mut is_open = false;
    for (at, seen) in &peer.seen {
        let Seen::Rtp {
            kind: Kind::Video,
            sequence,
            rtp_time,
            marker,
            payload,
            ..
        } = seen
        else {
            continue;
        };
        assert_eq!(
            *sequence,
            *expected.get_or_insert(*sequence),
            "gap in the pictures' sequence"
        );
        expected = Some(sequence + 1);
        if !is_open {
            if let Some(last) = pictures.last() {
                assert!(*rtp_time > last.rtp_time, "time of a picture goes back");
            }
            pictures.push(Picture {
                at: *at,
                rtp_time: *rtp_time,
                nals: Vec::new(),
                packets: 0,
            });
        }
        let picture = pictures.last_mut().expect("it was just made");
        assert_eq!(picture.rtp_time, *rtp_time, "marker missing");
        picture.at = *at;
        picture.packets += 1;
        depacketize(payload, &mut fragment, &mut picture.nals);
        is_open = !marker;
        if *marker && picture.is_key() {
            let kinds: Vec<u8> = picture.nals.iter().map(|nal| nal[0] & 0x1f).collect();
            assert_eq!(kinds[..2], [7, 8], "parameter sets before a key frame");
        }
    }
    pictures
}

fn depacketize(payload: &[u8], fragment: &mut Vec<u8>, nals: &mut Vec<Vec<u8>>) {
    match payload[0] & 0x1f {
        24 => {
            let mut rest = &payload[1..];
            while let Some((size, after)) = rest.split_first_chunk::<2>() {
                let size = usize::from(u16::from_be_bytes(*size));
                nals.push(after[..size].to_vec());
                rest = &after[size..];
            }
        }
        28 => {
            if payload[1] & 0x80 != 0 {
                assert!(fragment.is_empty());
                fragment.push(payload[0] & 0xe0 | payload[1] & 0x1f);
            }
            fragment.extend_from_slice(&payload[2..]);
            if payload[1] & 0x40 != 0 {
                nals.push(std::mem::take(fragment));
            }
        }
        1..=23 => nals.push(payload.to_vec()),
        other => panic!("packet type {other}"),
    }
}

/// The sound of a viewer whose path loses nothing. Panics if the sequence has a gap.
pub fn sounds(peer: &BrowserPeer) -> Vec<Sound> {
    let mut expected = None;
    let mut sounds = Vec::new();
    for (at, seen) in &peer.seen {
        let Seen::Rtp {
            kind: Kind::Audio,
            sequence,
            rtp_time,
            payload,
            ..
        } = seen
        else {
            continue;
        };
        assert_eq!(
            *sequence,
            *expected.get_or_insert(*sequence),
            "gap in the sound's sequence"
        );
        expected = Some(sequence + 1);
        sounds.push(Sound {
            at: *at,
            rtp_time: *rtp_time,
            payload: payload.to_vec(),
        });
    }
    sounds
}

/// The sender reports of a track: arrival, NTP time and RTP time.
pub fn reports(peer: &BrowserPeer, wanted: Kind) -> Vec<(Instant, SystemTime, u32)> {
    let seen = peer.seen.iter();
    seen.filter_map(|(at, seen)| match seen {
        Seen::SenderReport {
            kind,
            ntp,
            rtp_time,
            ..
        } if *kind == wanted => Some((*at, *ntp, *rtp_time)),
        _ => None,
    })
    .collect()
}

/// The NTP time, in seconds since `epoch`, at which a report puts an RTP time.
pub fn ntp_seconds(
    report: &(Instant, SystemTime, u32),
    rtp_time: u64,
    rate_hz: u32,
    epoch: SystemTime,
) -> f64 {
    let (_, ntp, reported) = report;
    let since = match ntp.duration_since(epoch) {
        Ok(after) => after.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    };
    let step = (rtp_time as u32).wrapping_sub(*reported) as i32;
    since + f64::from(step) / f64::from(rate_hz)
}

/// Decoded mono sound of Opus packets that follow one another, at 48 kHz.
pub fn decode_opus(packets: &[Sound]) -> Vec<f32> {
    let mut decoder = opus::Decoder::new(48_000, opus::Channels::Mono).expect("a decoder");
    let mut pcm = Vec::new();
    for packet in packets {
        let mut frame = [0.0; 5_760];
        let count = decoder
            .decode_float(&packet.payload, &mut frame, false)
            .expect("sound");
        pcm.extend_from_slice(&frame[..count]);
    }
    pcm
}

/// The samples at which a sound begins after silence of at least 100 ms at 48 kHz.
pub fn onsets(pcm: &[f32]) -> Vec<usize> {
    let mut quiet = 0;
    let mut found = Vec::new();
    for (at, sample) in pcm.iter().enumerate() {
        if sample.abs() > 0.05 {
            if quiet > 4_800 {
                found.push(at);
            }
            quiet = 0;
        } else {
            quiet += 1;
        }
    }
    found
}

/// Whether `span` lies within a range of milliseconds.
#[track_caller]
pub fn assert_ms(span: Duration, range: RangeInclusive<u64>) {
    let millis = span.as_millis() as u64;
    assert!(range.contains(&millis), "{millis} ms, not {range:?}");
}

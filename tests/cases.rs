//! The cases that the gateway must get right: for each, a test that names it by `case_NN`, or by
//! "Case NN" in its comment.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Number and promise of each case.
const CASES: [(u8, &str); 72] = [
    (
        1,
        "a handshake in single bytes, and one glued to the first command",
    ),
    (2, "HTTP on the RTMP port, and peers that say nothing"),
    (3, "chunk sizes from 1 to 2^31 - 1; 0 is refused"),
    (4, "a chunk size that changes in mid-message"),
    (5, "a first chunk without a full header"),
    (6, "chunk stream ids of one, two and three bytes"),
    (7, "extended timestamps, and extended deltas"),
    (8, "timestamps that wrap at 2^32"),
    (9, "sound between the chunks of a picture"),
    (10, "an Abort, and the message after it"),
    (11, "AMF3 commands and data"),
    (
        12,
        "AMF arrays with wrong counts, deep nesting, lengths past the end",
    ),
    (13, "large messages announced on thousands of chunk streams"),
    (
        14,
        "more than 4 GiB on one connection; peers that never acknowledge",
    ),
    (15, "pings, and clients that do not answer them"),
    (16, "one stream whichever place carries the query"),
    (17, "vhosts, default instances, prefixes and IPv6 in URLs"),
    (18, "commands that nobody knows"),
    (19, "publishing without waiting for createStream"),
    (20, "publishing again on the same connection"),
    (21, "a refusal that the user sees"),
    (22, "a player before its publisher"),
    (23, "every start argument of play"),
    (24, "receiveVideo off and on again"),
    (25, "every AudioSpecificConfig in use"),
    (26, "NAL unit lengths of one and two bytes"),
    (27, "several parameter sets, in-band ones, Annex B"),
    (28, "sequence headers at 0 and media hours later"),
    (29, "command frames and the codecs of enhanced RTMP"),
    (30, "a new picture size in mid-stream"),
    (31, "B-frames, and composition times without any"),
    (32, "H.264 profiles and packetization modes of offers"),
    (33, "a storm of key frame requests"),
    (34, "Opus of 44.1 kHz AAC without gap or drift"),
    (35, "16 kHz sound without bursts"),
    (36, "a publisher that returns with timestamps from 0"),
    (37, "sender reports that keep lips and voice together"),
    (38, "a large key frame paced, and its losses repeated"),
    (
        39,
        "sequence numbers and RTP times that begin near their wrap",
    ),
    (40, "a fragment that is lost in the middle"),
    (41, "a picture of 900 packets, and pictures without end"),
    (42, "a repeated packet that comes too late"),
    (43, "parameter sets before a picture that is no key frame"),
    (44, "RTP clocks that wrap in mid-stream"),
    (45, "five percent of the sound lost"),
    (46, "Opus packets of every length, mono and stereo"),
    (47, "AAC timestamps from sample counts"),
    (48, "a day of clock drift"),
    (49, "sound or pictures that were announced and do not come"),
    (50, "a browser that changes its picture size"),
    (51, "an offer without H.264"),
    (52, "sockets that take little at a time"),
    (53, "a thousand connections that do nothing"),
    (54, "a publisher whose network is gone"),
    (55, "a still picture for minutes"),
    (56, "a WebSocket that is lost and resumed"),
    (57, "a room server that is gone"),
    (58, "both ends hang up at once"),
    (59, "overloaded transcoding"),
    (60, "the answer to a WHIP offer"),
    (61, "clients that take the session URL apart"),
    (62, "PATCH with every If-Match"),
    (63, "DELETE, again, and by strangers"),
    (64, "offers that cannot work"),
    (65, "preflights and tokens"),
    (66, "a viewer of nothing"),
    (67, "offers of the wrong direction"),
    (68, "a peer whose address changes"),
    (69, "RTP and RTCP that nobody asked for"),
    (70, "High profile by WHIP"),
    (71, "ffmpeg through RTMP and back"),
    (72, "RTMP through WebRTC and back"),
];

/// What does not apply: the room service is built in, so there is no link to an outer one that
/// could go down. Sessions that go silent are case 54.
const BUILT_IN: [u8; 1] = [57];

#[test]
fn every_case_names_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut named = BTreeSet::new();
    for part in ["src", "tests"] {
        collect(&root.join(part), &mut named);
    }
    let missing: Vec<_> = CASES
        .iter()
        .filter(|(number, _)| !named.contains(number) && !BUILT_IN.contains(number))
        .collect();
    assert!(missing.is_empty(), "no test names {missing:?}");
    assert!(CASES.iter().map(|(number, _)| *number).eq(1..=72));
}

fn collect(folder: &Path, named: &mut BTreeSet<u8>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, named);
        } else if path.extension().is_some_and(|kind| kind == "rs") && !path.ends_with("cases.rs") {
            let text = fs::read_to_string(&path).expect("a source file");
            names_in(&text.to_lowercase(), named);
        }
    }
}

/// Numbers behind `case_`, "case " or "cases ": a list of them goes on with commas and "and".
fn names_in(text: &str, named: &mut BTreeSet<u8>) {
    for (at, _) in text.match_indices("case") {
        let after = &text[at + 4..];
        let after = after.strip_prefix('s').unwrap_or(after);
        let Some(mut list) = after.strip_prefix(['_', ' ']) else {
            continue;
        };
        loop {
            let digits = list.len() - list.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let Ok(number) = list[..digits].parse() else {
                break;
            };
            named.insert(number);
            list = &list[digits..];
            let next = [", ", " and ", "_and_"];
            let Some(rest) = next.iter().find_map(|join| list.strip_prefix(join)) else {
                break;
            };
            list = rest;
        }
    }
}

#[test]
fn lists_of_cases_are_read_whole() {
    let mut named = BTreeSet::new();
    names_in("/// cases 3, 14 and 15: case_09_x, case 2", &mut named);
    assert_eq!(named, BTreeSet::from([2, 3, 9, 14, 15]));
}

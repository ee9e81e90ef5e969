//! [`Tally`]: what the clients of one group counted.

use std::collections::BTreeMap;

use crate::histogram::Histogram;

/// Counters of one group. Rates and latency are of the measurement; what can go wrong is
/// counted from the first to the last moment.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Clients that began.
    pub started: u64,
    /// Clients whose media could flow.
    pub connected: u64,
    /// Clients that are up now.
    pub up: u64,
    /// Clients that never got so far, by reason.
    pub failed: BTreeMap<String, u64>,
    /// Clients that were cut off later, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Clients that left as planned.
    pub left: u64,
    /// From the beginning to where media may flow.
    pub setup: Histogram,
    /// From the beginning to the first key frame.
    pub first_key: Histogram,
    /// From the play command, or from DTLS being up, to the first key frame.
    pub first_key_after: Histogram,
    /// From the publisher being let in to the first key frame, of players that were there
    /// before it.
    pub first_key_waiting: Histogram,
    /// From the beginning to where pictures come as they are sent.
    pub live: Histogram,
    /// From a picture being sent to its last byte being read.
    pub latency: Histogram,
    /// The same, of the last second, for the progress line.
    pub latency_now: Histogram,
    /// Media.
    pub flow: Flow,
    /// What was wrong.
    pub faults: Faults,
}

/// What came or was sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flow {
    /// On the wire, above TCP or UDP.
    pub bytes: u64,
    /// RTMP messages or RTP packets.
    pub packets: u64,
    /// Pictures.
    pub pictures: u64,
    /// Pictures that should have come and did not.
    pub missing: u64,
    /// Pieces of sound.
    pub sounds: u64,
}

impl Flow {
    /// What came since `before`.
    pub fn since(&self, before: &Flow) -> Flow {
        Flow {
            bytes: self.bytes - before.bytes,
            packets: self.packets - before.packets,
            pictures: self.pictures - before.pictures,
            missing: self.missing - before.missing,
            sounds: self.sounds - before.sounds,
        }
    }

    /// Pictures that were to come: what came and what is missing.
    pub fn expected(&self) -> u64 {
        self.pictures + self.missing
    }
}

/// What was wrong with what came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Pictures that are missing between others.
    pub lost: u64,
    /// Places where pictures are missing and the next is a key frame: the server left out what
    /// the client was too slow for.
    pub skips: u64,
    /// Clients that caught up with a cache and were moved on to a newer key frame: no fault.
    pub cut_starts: u64,
    /// Places where pictures are missing and the next is none: decoders show damage.
    pub breaks: u64,
    /// Pictures that came after a later one, or twice.
    pub disorder: u64,
    /// Timestamps that went back.
    pub timestamps: u64,
    /// Pictures that are not whole.
    pub short: u64,
    /// Clients whose first picture is no key frame, or came without parameter sets.
    pub bad_start: u64,
    /// Clients that got no picture at all, though they were up for two seconds.
    pub no_picture: u64,
    /// Clients whose pictures stopped coming.
    pub stalled: u64,
    /// Pictures without a stamp: from another publisher, not judged.
    pub unstamped: u64,
    /// Places where sound is missing.
    pub sound_gaps: u64,
    /// RTP packets that are missing.
    pub rtp_lost: u64,
    /// Pictures and sound that a publisher could not get rid of: the server reads too slowly.
    pub unsent: u64,
}

impl Faults {
    /// Each with its name.
    pub fn named(&self) -> [(&'static str, u64); 14] {
        [
            ("lost", self.lost),
            ("skips", self.skips),
            ("cut_starts", self.cut_starts),
            ("breaks", self.breaks),
            ("disorder", self.disorder),
            ("timestamps", self.timestamps),
            ("short", self.short),
            ("bad_start", self.bad_start),
            ("no_picture", self.no_picture),
            ("stalled", self.stalled),
            ("unstamped", self.unstamped),
            ("sound_gaps", self.sound_gaps),
            ("rtp_lost", self.rtp_lost),
            ("unsent", self.unsent),
        ]
    }

    /// What is wrong on any link, whatever it loses.
    pub fn of_order(&self) -> u64 {
        self.disorder + self.timestamps + self.no_picture + self.stalled + self.unsent
    }

    /// What is wrong unless datagrams are lost.
    pub fn of_loss(&self) -> u64 {
        self.skips + self.breaks + self.short + self.bad_start + self.sound_gaps + self.rtp_lost
    }
}

impl Tally {
    /// Clients that failed or were cut off.
    pub fn failures(&self) -> u64 {
        self.failed.values().chain(self.dropped.values()).sum()
    }
}

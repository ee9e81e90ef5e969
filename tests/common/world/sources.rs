//! What publishers send, and when.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rtmp_gateway::rtmp::client::Client;
use rtmp_gateway::rtmp::flv::Tag;

use crate::common::browser::{Browser, Kind, Seen};
use crate::common::clip::{AUDIO, Feed, RtpPicture, VIDEO};

/// An RTMP publisher's frames in real time.
pub struct FlvSource {
    feed: Feed,
    next: Option<(u64, Tag)>,
    /// When frame time zero is sent.
    origin: Instant,
    /// By how much its clock is too fast, in millionths.
    ppm: i64,
    /// Nothing leaves before, and then all that waited.
    pub stalled_until: Option<Instant>,
}

impl FlvSource {
    pub fn new(mut feed: Feed, now: Instant) -> Self {
        let next = feed.frames.next();
        Self {
            ppm: feed.ppm,
            feed,
            next,
            origin: now,
            stalled_until: None,
        }
    }

    pub fn begin(&mut self, now: Instant, client: &mut Client) {
        self.origin = now;
        for tag in std::mem::take(&mut self.feed.headers) {
            // ffmpeg gives headers timestamp 0 wherever the stream begins.
            send(client, 0, &tag);
        }
    }

    pub fn next_at(&self) -> Option<Instant> {
        let (time, _) = self.next.as_ref()?;
        let at = self.origin + by_clock(Duration::from_millis(*time), self.ppm);
        Some(self.stalled_until.map_or(at, |until| at.max(until)))
    }

    pub fn play(&mut self, now: Instant, client: &mut Client) {
        if self.stalled_until.is_some_and(|until| until > now) {
            return;
        }
        self.stalled_until = None;
        while self.next_at().is_some_and(|at| at <= now) {
            let (time, tag) = self.next.take().expect("it was just seen");
            let timestamp = match self.feed.offset {
                Some(offset) => (time as u32).wrapping_add(offset),
                None => tag.timestamp,
            };
            send(client, timestamp, &tag);
            self.next = self.feed.frames.next();
        }
    }
}

/// How long `span` of a clock takes that is `ppm` too fast.
fn by_clock(span: Duration, ppm: i64) -> Duration {
    let nanos = span.as_nanos() as i64;
    Duration::from_nanos((nanos - nanos / 1_000_000 * ppm) as u64)
}

fn send(client: &mut Client, timestamp: u32, tag: &Tag) {
    match tag.type_id {
        VIDEO => client.send_video(timestamp, &[], &tag.payload),
        AUDIO => client.send_audio(timestamp, &[], &tag.payload),
        _ => {}
    }
}

/// A WHIP publisher's packets in real time.
pub struct RtpSource {
    pictures: Arc<[RtpPicture]>,
    sound: Arc<[Arc<[u8]>]>,
    origin: Instant,
    next_picture: u64,
    next_sound: u64,
    /// Which picture of the clip goes next; a key frame request moves it to a key frame.
    at: usize,
    video_rtp: u32,
    audio_rtp: u32,
    pub video: bool,
    pub audio: bool,
    /// Whether key frames come only when asked for, as browsers do it.
    pub keys_on_request: bool,
    /// How long after its capture a picture leaves: sender reports know of it.
    pub video_delay: Duration,
    /// Index in the clip and RTP time of the pictures sent.
    pub sent_pictures: Vec<(Instant, usize, u32)>,
    pub sent_sounds: u64,
    /// When each sound left: index and time.
    pub sound_times: Vec<(Instant, u64)>,
    /// Key frame requests that come before are lost.
    pub deaf_until: Option<Instant>,
    key_wanted: bool,
    /// By how much the clocks of the pictures and of the sound are too fast, in millionths.
    pub ppm: [i64; 2],
}

impl RtpSource {
    pub fn new(
        pictures: Vec<RtpPicture>,
        sound: Vec<Arc<[u8]>>,
        origin: Instant,
        [video_rtp, audio_rtp]: [u32; 2],
    ) -> Self {
        Self {
            pictures: pictures.into(),
            sound: sound.into(),
            origin,
            next_picture: 0,
            next_sound: 0,
            at: 0,
            video_rtp,
            audio_rtp,
            video: true,
            audio: true,
            keys_on_request: false,
            video_delay: Duration::ZERO,
            sent_pictures: Vec::new(),
            sent_sounds: 0,
            sound_times: Vec::new(),
            deaf_until: None,
            key_wanted: false,
            ppm: [0; 2],
        }
    }

    /// Where the two RTP clocks stand at the beginning.
    pub fn set_rtp_times(&mut self, video: u32, audio: u32) {
        self.video_rtp = video;
        self.audio_rtp = audio;
    }

    pub fn set_pictures(&mut self, pictures: Vec<RtpPicture>) {
        self.pictures = pictures.into();
        self.at = 0;
    }

    pub fn set_sound(&mut self, sound: Vec<Arc<[u8]>>) {
        self.sound = sound.into();
    }

    pub fn next_at(&self) -> Instant {
        self.picture_at().min(self.sound_at())
    }

    fn picture_at(&self) -> Instant {
        self.origin + by_clock(PICTURE * self.next_picture as u32, self.ppm[0])
    }

    fn sound_at(&self) -> Instant {
        self.origin + by_clock(SOUND * self.next_sound as u32, self.ppm[1])
    }

    /// The next picture is a key frame.
    pub fn key_requested(&mut self, now: Instant) {
        self.key_wanted |= self.deaf_until.is_none_or(|until| now >= until);
    }

    /// Sends what is due; before the connection is up, time passes unheard.
    pub fn play(&mut self, now: Instant, browser: &mut Browser, seen: &[(Instant, Seen)]) {
        let connected = seen.iter().any(|(_, seen)| matches!(seen, Seen::Connected));
        while self.picture_at() <= now {
            if connected && self.video {
                self.send_picture(now, browser);
            }
            self.next_picture += 1;
        }
        while self.sound_at() <= now {
            if connected && self.audio {
                let rtp_time = self.audio_rtp.wrapping_add((self.next_sound * 960) as u32);
                let packet = self.sound[self.next_sound as usize % self.sound.len()].clone();
                browser.write(now, Kind::Audio, &[packet], rtp_time);
                self.sent_sounds += 1;
                self.sound_times.push((now, self.next_sound));
            }
            self.next_sound += 1;
        }
    }

    fn send_picture(&mut self, now: Instant, browser: &mut Browser) {
        let count = self.pictures.len();
        if std::mem::take(&mut self.key_wanted) || self.sent_pictures.is_empty() {
            while !self.pictures[self.at % count].key {
                self.at += 1;
            }
        } else if self.keys_on_request {
            while self.pictures[self.at % count].key {
                self.at += 1;
            }
        }
        let index = self.at % count;
        self.at = index + 1;
        let rtp_time = self
            .video_rtp
            .wrapping_add((self.next_picture * 3_600) as u32);
        let payloads = &self.pictures[index].payloads;
        let capture = now - self.video_delay;
        browser.write_captured(now, capture, Kind::Video, payloads, rtp_time);
        self.sent_pictures.push((now, index, rtp_time));
    }
}

const PICTURE: Duration = Duration::from_millis(40);
const SOUND: Duration = Duration::from_millis(20);

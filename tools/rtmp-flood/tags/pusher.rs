//! [`LivePusher`]: `<live-pusher>`.

use std::time::{Duration, Instant};

use rtmp_gateway::rtmp::client::{Event, Goal, RtmpUrl};
use rtmp_gateway::rtmp::metadata::{AudioMetadata, StreamMetadata, VideoMetadata};
use rtmp_gateway::transmit::TransmitQueue;

use super::Tag;
use super::code;
use super::line::{Line, Output};
use super::phone::{LENGTH, Phone, Size};

/// A publisher. See the [parent](super) for its shape.
pub struct LivePusher {
    line: Line,
    phone: Phone,
    camera: bool,
    microphone: bool,
    /// What is sent now; changes take effect with the next key frame.
    size: Size,
    wanted: Size,
    is_away: bool,
    /// When the clip that is being sent began, and how much of it was sent.
    began: Option<Began>,
    /// Pictures sent.
    pub pictures: u64,
    /// AAC frames sent.
    pub sounds: u64,
}

/// Where in its clip a pusher is.
struct Began {
    /// RTMP timestamps count from here.
    first: Instant,
    clip: Instant,
    picture: usize,
    sound: usize,
}

impl LivePusher {
    /// One that connects at once; `enable-camera` and `enable-mic` as given.
    pub fn new(url: RtmpUrl, phone: Phone, [camera, microphone]: [bool; 2], seed: u64) -> Self {
        let mut line = Line::new(url, Goal::Publish, seed);
        line.tell(code::CAMERA_OPENED);
        line.tell(code::ENCODER_STARTED);
        Self {
            line,
            phone,
            camera,
            microphone,
            size: Size::Full,
            wanted: Size::Full,
            is_away: false,
            began: None,
            pictures: 0,
            sounds: 0,
        }
    }

    /// The uplink got weak, or well again: from the next key frame on the picture has another size.
    pub fn set_uplink(&mut self, is_weak: bool) {
        self.wanted = if is_weak { Size::Small } else { Size::Full };
    }

    /// WeChat goes to the background or comes back. The microphone goes on.
    pub fn set_background(&mut self, is_away: bool) {
        self.is_away = is_away;
    }

    /// `muted`: silence is not sent at all.
    pub fn set_muted(&mut self, is_muted: bool) {
        self.microphone = !is_muted;
    }

    fn lost(&mut self, now: Instant) {
        self.began = None;
        let code = match self.line.lost(now) {
            true => code::PUSH_RECONNECTING,
            false => code::PUSH_GAVE_UP,
        };
        self.line.tell(code);
    }

    fn begin(&mut self, now: Instant) {
        self.began = Some(Began {
            first: now,
            clip: now,
            picture: 0,
            sound: 0,
        });
        self.size = self.wanted_size();
        let metadata = self.metadata();
        if let Some(client) = self.line.client() {
            client.send_metadata(0, &metadata);
        }
        self.send_headers(0);
    }

    fn wanted_size(&self) -> Size {
        if self.is_away {
            Size::Away
        } else {
            self.wanted
        }
    }

    fn metadata(&self) -> StreamMetadata {
        let (width, height) = match self.size {
            Size::Full | Size::Away => (360, 640),
            Size::Small => (180, 320),
        };
        let mut metadata = StreamMetadata::default();
        if self.camera {
            metadata.video = Some(VideoMetadata {
                width: Some(width),
                height: Some(height),
                frame_rate_hz: Some(15.0),
                ..VideoMetadata::default()
            });
        }
        if self.microphone {
            metadata.audio = Some(AudioMetadata {
                sample_rate_hz: Some(48_000),
                channels: Some(1),
                ..AudioMetadata::default()
            });
        }
        metadata
    }

    fn send_headers(&mut self, timestamp: u32) {
        let clip = self.phone.clip(self.size);
        let (video, audio) = (clip.video_header.clone(), clip.audio_header.clone());
        let (camera, microphone) = (self.camera, self.microphone);
        if let Some(client) = self.line.client() {
            if camera {
                client.send_video(timestamp, &[], &video);
            }
            if microphone {
                client.send_audio(timestamp, &[], &audio);
            }
        }
        self.line.transmit_soon();
    }

    /// When the next picture or sound is due.
    fn next_media(&self) -> Option<Instant> {
        let began = self.began.as_ref()?;
        let clip = self.phone.clip(self.size);
        let at = |due: Option<&(Duration, bytes::Bytes)>| due.map(|(at, _)| began.clip + *at);
        let next = [
            at(clip.video.get(began.picture)),
            at(clip.audio.get(began.sound)),
        ];
        // At the end of the clip the next one is due.
        Some(
            next.into_iter()
                .flatten()
                .min()
                .unwrap_or(began.clip + LENGTH),
        )
    }

    fn send_next(&mut self) {
        let Some(began) = &mut self.began else { return };
        let clip = self.phone.clip(self.size);
        let (picture, sound) = (clip.video.get(began.picture), clip.audio.get(began.sound));
        let is_video = match (picture, sound) {
            (Some((picture, _)), Some((sound, _))) => picture <= sound,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => {
                began.clip += LENGTH;
                (began.picture, began.sound) = (0, 0);
                let timestamp = millis(began.clip - began.first);
                self.next_clip(timestamp);
                return;
            }
        };
        let due = if is_video { picture } else { sound };
        let Some((at, body)) = due.cloned() else {
            return;
        };
        let timestamp = millis(began.clip + at - began.first);
        if is_video {
            began.picture += 1;
        } else {
            began.sound += 1;
        }
        let is_on = if is_video {
            self.camera
        } else {
            self.microphone
        };
        let Some(client) = self.line.client().filter(|_| is_on) else {
            return;
        };
        if is_video {
            client.send_video(timestamp, &[], &body);
            self.pictures += 1;
        } else {
            client.send_audio(timestamp, &[], &body);
            self.sounds += 1;
        }
        self.line.transmit_soon();
    }

    /// A clip ends: what was asked for meanwhile takes effect.
    fn next_clip(&mut self, timestamp: u32) {
        let wanted = self.wanted_size();
        if wanted == self.size {
            return;
        }
        self.size = wanted;
        self.line.tell(code::PUSH_RESOLUTION_CHANGED);
        self.send_headers(timestamp);
    }
}

impl Tag for LivePusher {
    fn handle_connected(&mut self) {
        self.line.handle_connected();
    }

    fn handle_received(&mut self, now: Instant, bytes: &[u8]) {
        for event in self.line.receive(bytes) {
            match event {
                Event::Connected => self.line.tell(code::PUSH_CONNECTED),
                Event::Publishing => {
                    self.line.succeeded();
                    self.line.tell(code::PUSH_BEGAN);
                    self.begin(now);
                }
                Event::Closed => {
                    self.line.tell(code::SERVER_CLOSED);
                    self.lost(now);
                }
                _ => {}
            }
        }
        self.handle_timeout(now);
    }

    fn handle_closed(&mut self, now: Instant) {
        if self.line.is_down() {
            return;
        }
        let was_up = self.line.client().is_some();
        self.line.tell(if was_up {
            code::SOCKET_FAILED
        } else {
            code::CONNECT_FAILED
        });
        self.lost(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.line.handle_timeout(now);
        while self.next_media().is_some_and(|due| due <= now) {
            self.send_next();
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        let both = [self.next_media(), self.line.next_timeout()];
        both.into_iter().flatten().min()
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.line.poll_output()
    }

    fn transmit(&mut self) -> &mut TransmitQueue {
        self.line.transmit()
    }

    fn url(&self) -> &RtmpUrl {
        self.line.url()
    }

    fn stop(&mut self) {
        self.began = None;
        self.line.stop();
    }

    fn is_over(&self) -> bool {
        self.line.is_down()
    }
}

/// RTMP's clock, which wraps.
fn millis(time: Duration) -> u32 {
    time.as_millis() as u32
}

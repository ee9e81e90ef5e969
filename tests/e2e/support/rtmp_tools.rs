//! rtmpdump and GStreamer as publishers and players.

use std::io::BufReader;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::flv::{self, Tag};
use super::process::Process;
use super::wait_for;

/// rtmpdump playing a stream: the tags it got, as they came.
///
/// rtmpdump probes nothing and holds nothing back, therefore it is also the
/// stop-watch for the first picture.
pub struct Rtmpdump {
    process: Process,
    started: Instant,
    tags: Arc<Mutex<Vec<Tag>>>,
}

impl Rtmpdump {
    /// Starts to play `url`.
    pub fn play(url: &str) -> Self {
        // Without stdbuf its standard output would hold back up to 4 KB.
        let mut command = Command::new("stdbuf");
        command.args([
            "-o0", "rtmpdump", "--quiet", "--live", "--rtmp", url, "--flv", "-",
        ]);
        let started = Instant::now();
        let mut process = Process::spawn_with_stdout("rtmpdump", &mut command);
        let stdout = process.child_mut().stdout.take().expect("stdout is piped");
        let tags: Arc<Mutex<Vec<Tag>>> = Arc::default();
        let into = Arc::clone(&tags);
        thread::spawn(move || {
            let mut stdout = BufReader::with_capacity(64 << 10, stdout);
            if flv::read_header(&mut stdout) {
                while let Some(tag) = flv::read_tag(&mut stdout) {
                    into.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(tag);
                }
            }
        });
        Self {
            process,
            started,
            tags,
        }
    }

    /// Waits for the first picture and tells when it came.
    pub fn first_picture(&self, limit: Duration) -> Instant {
        wait_for("rtmpdump gets a picture", limit, || {
            self.tags()
                .iter()
                .find(|tag| tag.is_picture())
                .map(|tag| tag.arrival)
        })
    }

    /// When the program was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The tags so far.
    pub fn tags(&self) -> Vec<Tag> {
        self.tags
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The number of pictures so far.
    pub fn pictures(&self) -> usize {
        self.tags().iter().filter(|tag| tag.is_picture()).count()
    }

    /// The program.
    pub fn process_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// GStreamer publishing a test picture and a 440 Hz tone by `rtmp2sink`.
pub fn gstreamer_publish(url: &str) -> Process {
    let mut command = Command::new("gst-launch-1.0");
    command
        .args([
            "-q",
            "flvmux",
            "streamable=true",
            "name=mux",
            "!",
            "rtmp2sink",
        ])
        .arg(format!("location={url}"))
        .args(["videotestsrc", "is-live=true", "pattern=ball", "!"])
        .args(["video/x-raw,width=640,height=360,framerate=25/1", "!"])
        .args([
            "x264enc",
            "tune=zerolatency",
            "speed-preset=veryfast",
            "bitrate=800",
        ])
        .args(["key-int-max=50", "!", "video/x-h264,profile=main", "!"])
        .args(["h264parse", "!", "queue", "!", "mux."])
        .args([
            "audiotestsrc",
            "is-live=true",
            "freq=440",
            "volume=0.2",
            "!",
        ])
        .args([
            "audio/x-raw,rate=44100,channels=2",
            "!",
            "audioconvert",
            "!",
        ])
        .args(["avenc_aac", "!", "aacparse", "!", "queue", "!", "mux."]);
    Process::spawn("GStreamer publisher", &mut command)
}

/// GStreamer playing a stream by `rtmp2src` into an FLV file.
pub fn gstreamer_record(url: &str, file: &Path) -> Process {
    let mut command = Command::new("gst-launch-1.0");
    command
        .args(["-q", "rtmp2src"])
        .arg(format!("location={url}"))
        .args(["!", "filesink", "buffer-mode=unbuffered"])
        .arg(format!("location={}", file.display()));
    Process::spawn("GStreamer player", &mut command)
}

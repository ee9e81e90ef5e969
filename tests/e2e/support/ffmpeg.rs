//! ffmpeg as publisher and as player.

use std::path::Path;
use std::process::Command;

use super::process::Process;

/// What ffmpeg publishes: a moving picture and a quiet tone, and once a second,
/// at the same instant, a white flash in the upper left corner and a loud beep.
/// From that everything is judged: size, rate, pitch, and lip sync.
#[derive(Clone, Debug)]
pub struct Source {
    /// Width of the picture.
    pub width: u32,
    /// Height of the picture.
    pub height: u32,
    /// Pictures a second.
    pub fps: u32,
    /// Seconds from one IDR to the next.
    pub gop_seconds: u32,
    /// x264's name of the profile: `baseline`, `main`, `high`.
    pub profile: &'static str,
    /// Slices of each picture.
    pub slices: u32,
    /// Sample rate of the AAC.
    pub audio_rate_hz: u32,
    /// The tone of each channel: one or two entries.
    pub tones_hz: &'static [u32],
    /// Video bits a second.
    pub video_bits: u32,
    /// Ends by itself after so many seconds; 0 = never.
    pub seconds: u32,
    /// Whether each picture shows its own number, modulo 1,024: ten cells along the lower
    /// edge, from the left, black or white, the lowest bit first.
    pub is_numbered: bool,
    /// x264's preset.
    pub preset: &'static str,
    /// B-frames between two others, always so many; without any, x264 is set to no delay.
    pub b_frames: u32,
    /// x264's word for which pictures may refer to B-frames.
    pub pyramid: &'static str,
}

impl Default for Source {
    fn default() -> Self {
        Self {
            width: 640,
            height: 360,
            fps: 25,
            gop_seconds: 2,
            profile: "baseline",
            slices: 1,
            audio_rate_hz: 48_000,
            tones_hz: &[440],
            video_bits: 800_000,
            seconds: 0,
            is_numbered: false,
            preset: "veryfast",
            b_frames: 0,
            pyramid: "normal",
        }
    }
}

impl Source {
    /// Publishes to an RTMP URL in real time until killed.
    pub fn publish(&self, url: &str) -> Process {
        Process::spawn("ffmpeg publisher", &mut self.command(url))
    }

    /// The command that does so.
    pub fn command(&self, url: &str) -> Command {
        let mut picture = format!(
            "testsrc2=size={}x{}:rate={},\
             drawbox=x=0:y=0:w=iw/4:h=ih/4:color=black:t=fill,\
             drawbox=x=0:y=0:w=iw/4:h=ih/4:color=white:t=fill:enable='lt(mod(n,{}),{FLASH_FRAMES})'",
            self.width, self.height, self.fps, self.fps
        );
        if self.is_numbered {
            picture.push_str(",drawbox=x=0:y=ih*7/8:w=iw:h=ih/8:color=black:t=fill");
            for bit in 0..10 {
                picture.push_str(&format!(
                    ",drawbox=x=iw*{bit}/10:y=ih*7/8:w=iw/10:h=ih/8:color=white:t=fill\
                     :enable='gte(mod(n,{}),{})'",
                    2 << bit,
                    1 << bit
                ));
            }
        }
        // A 100 ms beep at each full second over the channel's own quiet tone.
        let channels: Vec<String> = self
            .tones_hz
            .iter()
            .map(|tone| {
                format!("0.1*sin(2*PI*{tone}*t)+0.6*sin(2*PI*{BEEP_HZ}*t)*lt(mod(t,1),0.1)")
            })
            .collect();
        let sound = format!(
            "aevalsrc=exprs={}:s={}:c={}",
            channels.join("|").replace(',', "\\,"),
            self.audio_rate_hz,
            if channels.len() == 2 {
                "stereo"
            } else {
                "mono"
            }
        );
        let bits = self.video_bits.to_string();
        let mut command = quiet();
        for input in [&picture, &sound] {
            command.args(["-re", "-f", "lavfi", "-i", input]);
        }
        command.args(["-c:v", "libx264", "-preset", self.preset]);
        if self.b_frames == 0 {
            command.args(["-tune", "zerolatency"]);
        }
        command
            .args(["-bf", &self.b_frames.to_string(), "-b_strategy", "0"])
            .args(["-pix_fmt", "yuv420p", "-sc_threshold", "0"])
            .args(["-profile:v", self.profile])
            .args(["-g", &(self.fps * self.gop_seconds).to_string()])
            .args(["-b:v", &bits, "-maxrate", &bits, "-bufsize", &bits])
            // zerolatency alone cuts pictures into as many slices as there are
            // cores; the count is made a fact of the test instead.
            .args([
                "-x264-params",
                &format!(
                    "sliced-threads=0:slices={}:b-pyramid={}",
                    self.slices, self.pyramid
                ),
            ])
            .args(["-threads", "1", "-c:a", "aac", "-b:a", "96k"]);
        if self.seconds > 0 {
            command.args(["-t", &self.seconds.to_string()]);
        }
        command.args(["-f", "flv", url]);
        command
    }
}

/// Publishes a file over and over as it is, without encoding, in real time.
pub fn publish_file(file: &Path, url: &str) -> Process {
    let mut command = quiet();
    command
        .args(["-re", "-stream_loop", "-1", "-i"])
        .arg(file)
        .args(["-c", "copy", "-f", "flv", url]);
    Process::spawn("ffmpeg publisher", &mut command)
}

/// Plays an RTMP URL: decodes everything from the first packet on and fails on
/// the first error; with `seconds` it ends after as much media, else with the
/// stream. What it says on standard error is the list of faults.
pub fn decode(url: &str, seconds: Option<u32>) -> Process {
    let mut command = quiet();
    command.args(["-xerror", "-i", url]);
    if let Some(seconds) = seconds {
        command.args(["-t", &seconds.to_string()]);
    }
    command.args(["-f", "null", "-"]);
    Process::spawn("ffmpeg player", &mut command)
}

/// Plays an RTMP URL into a file as it is, without decoding.
pub fn record(url: &str, seconds: Option<u32>, file: &Path) -> Process {
    let mut command = quiet();
    command.args(["-y", "-i", url, "-c", "copy"]);
    if let Some(seconds) = seconds {
        command.args(["-t", &seconds.to_string()]);
    }
    command.args(["-f", "flv"]).arg(file);
    Process::spawn("ffmpeg recorder", &mut command)
}

/// ffmpeg that says nothing but warnings and errors.
fn quiet() -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-nostdin", "-loglevel", "warning"]);
    command
}

/// The pitch of the beep, far from every tone used.
pub const BEEP_HZ: u32 = 1760;

/// The flash stays for three pictures.
const FLASH_FRAMES: u32 = 3;

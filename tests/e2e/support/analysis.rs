//! Ears and eyes for recorded files: pitch, flashes and beeps, decode errors.

use std::path::Path;
use std::process::{Command, Stdio};

use super::ffmpeg::BEEP_HZ;
use super::median;

/// Decodes a whole file and returns everything ffmpeg complains about: empty
/// when it is clean.
pub fn decode_faults(file: &Path) -> String {
    let output = Command::new("ffmpeg")
        .args([
            "-hide_banner",
            "-nostdin",
            "-loglevel",
            "repeat+warning",
            "-xerror",
            "-i",
        ])
        .arg(file)
        // Whether each frame decodes is asked here; the order of timestamps is
        // judged elsewhere, and at a publisher's own start they may stand still.
        .args(["-fps_mode", "passthrough", "-enc_time_base", "-1"])
        .args(["-af", "asetpts=N/SR/TB", "-f", "null", "-"])
        .output()
        .expect("ffmpeg starts");
    // A picture that changes its size is scaled for the null output, which grumbles.
    let mut faults: String = String::from_utf8_lossy(&output.stderr)
        .lines()
        .filter(|line| !line.contains("deprecated pixel format"))
        .collect();
    if !output.status.success() {
        faults.push_str(&output.status.to_string());
    }
    faults
}

/// `codec_name,profile,width,height,sample_rate,channels` of each stream, as
/// ffprobe tells it.
pub fn describe(file: &Path) -> String {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-of", "compact=nk=0:p=0", "-show_entries"])
        .arg("stream=codec_name,profile,width,height,sample_rate,channels")
        .arg(file)
        .output()
        .expect("ffprobe starts");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The sound of one channel of a file, as 48 kHz samples.
pub fn samples(file: &Path, channel: u32) -> Vec<f32> {
    let output = Command::new("ffmpeg")
        .args(["-hide_banner", "-nostdin", "-loglevel", "error", "-i"])
        .arg(file)
        .args(["-map", "0:a:0", "-af", &format!("pan=mono|c0=c{channel}")])
        .args(["-ar", "48000", "-f", "s16le", "-"])
        .stderr(Stdio::inherit())
        .output()
        .expect("ffmpeg starts");
    output
        .stdout
        .chunks_exact(2)
        .filter_map(|pair| <[u8; 2]>::try_from(pair).ok())
        .map(|pair| f32::from(i16::from_le_bytes(pair)) / 32768.0)
        .collect()
}

/// The pitch of the lasting tone, Hz: the median over windows of 0.3 s, so that
/// the beep once a second does not count.
///
/// # Panics
/// When there is less than a second of sound.
pub fn pitch_hz(samples: &[f32]) -> f64 {
    let window = RATE_HZ * 3 / 10;
    let pitches: Vec<f64> = samples
        .get(RATE_HZ / 4..)
        .unwrap_or_default()
        .chunks_exact(window)
        .take(12)
        .map(|window| {
            (100..2_000)
                .step_by(2)
                .map(|hz| (power(window, f64::from(hz)), f64::from(hz)))
                .max_by(|a, b| a.0.total_cmp(&b.0))
                .map_or(0.0, |(_, hz)| hz)
        })
        .collect();
    assert!(
        pitches.len() >= 3,
        "too little sound: {} samples",
        samples.len()
    );
    median(&pitches)
}

/// Sound minus picture, ms, for each flash of the file that has a beep near it.
/// Positive: the sound is late.
pub fn lip_sync_ms(file: &Path) -> Vec<f64> {
    let flashes = flashes(file);
    let beeps = beeps(file);
    flashes
        .iter()
        .filter_map(|flash| {
            beeps
                .iter()
                .map(|beep| (beep - flash) * 1000.0)
                .filter(|offset| offset.abs() < 500.0)
                .min_by(|a, b| a.abs().total_cmp(&b.abs()))
        })
        .collect()
}

/// The times (s) at which the corner of the picture turns white.
fn flashes(file: &Path) -> Vec<f64> {
    let light = Command::new("ffmpeg")
        .args(["-hide_banner", "-nostdin", "-loglevel", "error", "-i"])
        .arg(file)
        .args(["-map", "0:v:0", "-vsync", "passthrough", "-vf"])
        .arg("crop=iw/6:ih/6:iw/24:ih/24,scale=1:1:flags=area,format=gray")
        .args(["-f", "rawvideo", "-"])
        .output()
        .expect("ffmpeg starts")
        .stdout;
    let times = frame_times(file, "v:0");
    assert_eq!(light.len(), times.len(), "one brightness a picture");
    light
        .windows(2)
        .zip(times.iter().skip(1))
        .filter(|(pair, _)| matches!(pair, [before, after] if *before < 110 && *after > 150))
        .map(|(_, time)| *time)
        .collect()
}

/// The times (s) at which the beep starts.
fn beeps(file: &Path) -> Vec<f64> {
    let start = frame_times(file, "a:0").first().copied().unwrap_or(0.0);
    let samples = samples(file, 0);
    let step = RATE_HZ / 200; // 5 ms
    let mut beeps = Vec::new();
    let mut quiet_steps = 0;
    for (index, window) in samples.chunks_exact(step).enumerate() {
        if power(window, f64::from(BEEP_HZ)) > 0.02 {
            if quiet_steps > 40 {
                beeps.push(start + (index * step) as f64 / RATE_HZ as f64);
            }
            quiet_steps = 0;
        } else {
            quiet_steps += 1;
        }
    }
    beeps
}

/// The presentation times (s) of a stream's frames.
fn frame_times(file: &Path, stream: &str) -> Vec<f64> {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-select_streams", stream, "-of", "csv=p=0"])
        .args(["-show_entries", "frame=pts_time"])
        .arg(file)
        .output()
        .expect("ffprobe starts");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.trim_end_matches(',').parse().ok())
        .collect()
}

/// The power of one frequency in a window (Goertzel), as the square of its
/// amplitude.
fn power(window: &[f32], hz: f64) -> f64 {
    let turn = std::f64::consts::TAU * hz / RATE_HZ as f64;
    let factor = 2.0 * turn.cos();
    let (mut last, mut before) = (0.0, 0.0);
    for sample in window {
        let next = f64::from(*sample) + factor * last - before;
        before = last;
        last = next;
    }
    let sum = last * last + before * before - factor * last * before;
    sum * 4.0 / (window.len() as f64).powi(2)
}

/// All sound is judged at this rate.
const RATE_HZ: usize = 48_000;

//! `--demo`: publishes a built-in clip to the own RTMP port as `live/demo`, in real time and
//! over and over, so that there is something to see without any other program.
//!
//! It is an ordinary publisher in a thread of its own, with a blocking socket. Its timestamps
//! run on when the clip begins anew: to players it is one endless stream.

use std::io::{self, IoSlice, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use log::{debug, info, warn};

use crate::rtmp::amf0::{self, AmfLimits};
use crate::rtmp::client::{Client, ClientOptions, Event, Goal, RtmpUrl};
use crate::rtmp::flv::{AudioTag, FileReader, FlvError, Tag, VideoTag};
use crate::rtmp::message::type_id;
use crate::rtmp::metadata::StreamMetadata;

/// Application and name of the stream.
pub const STREAM: &str = "live/demo";

/// The clip: H.264 without B-frames and AAC, made by `tools/`.
static CLIP: &[u8] = include_bytes!("demo/clip.flv");

/// Pause before the next attempt when the gateway did not take the stream: somebody
/// else may be publishing under its name.
const RETRY: Duration = Duration::from_secs(2);

/// How long the gateway may take for an answer or to take bytes before the connection is
/// given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Publishes to the RTMP server at `address`, from a thread that ends with the process.
///
/// # Errors
/// If the clip is broken or there is no thread to be had.
pub fn start(address: SocketAddr) -> Result<(), Box<dyn std::error::Error>> {
    let clip = Clip::decode(Bytes::from_static(CLIP))?;
    let address = reachable(address);
    let url = RtmpUrl::parse(&format!("rtmp://{address}/{STREAM}"))?;
    let publish = move || {
        for attempt in 0.. {
            if let Err(error) = publish(address, url.clone(), &clip, attempt) {
                warn!("{STREAM}: {error}, again in {} s", RETRY.as_secs());
            }
            thread::sleep(RETRY);
        }
    };
    thread::Builder::new().name("demo".into()).spawn(publish)?;
    Ok(())
}

/// Publishes until the connection ends.
fn publish(address: SocketAddr, url: RtmpUrl, clip: &Clip, seed: u64) -> io::Result<()> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let client = Client::new(url, Goal::Publish, ClientOptions::default(), seed);
    let mut connection = Connection { stream, client };
    let patience = Instant::now() + PATIENCE;
    while !connection.client.is_running() {
        if Instant::now() > patience {
            return Err(io::ErrorKind::TimedOut.into());
        }
        connection.wait(patience)?;
    }
    info!(
        "{STREAM}: publishing the built-in clip of {:?}",
        clip.duration
    );
    connection.client.send_metadata(0, &clip.metadata);
    let begin = Instant::now();
    for message in clip.play() {
        let due = begin + message.at;
        while Instant::now() < due {
            connection.wait(due)?;
        }
        // RTMP timestamps wrap after 49 days (RTMP 1.0 section 5.3.1), as this does.
        let timestamp = message.at.as_millis() as u32;
        let client = &mut connection.client;
        match message.type_id {
            type_id::VIDEO => client.send_video(timestamp, &[], &message.payload),
            _ => client.send_audio(timestamp, &[], &message.payload),
        }
        connection.flush()?;
    }
    Ok(())
}

/// The client with its socket.
struct Connection {
    stream: TcpStream,
    client: Client,
}

impl Connection {
    /// Writes what is queued, then reads what the server says until `until` at the latest.
    fn wait(&mut self, until: Instant) -> io::Result<()> {
        self.flush()?;
        // Zero would mean for ever.
        let time = until.saturating_duration_since(Instant::now());
        let time = time.max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(time))?;
        let mut buffer = [0; 4_096];
        match self.stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                let received = self.client.receive(&buffer[..count]);
                received.map_err(io::Error::other)?;
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock
                | io::ErrorKind::TimedOut
                | io::ErrorKind::Interrupted => {}
                _ => return Err(error),
            },
        }
        while let Some(event) = self.client.poll_event() {
            debug!("{STREAM}: {event:?}");
            match event {
                Event::Status {
                    level,
                    code,
                    description,
                } if level == "error" => {
                    return Err(io::Error::other(format!("{code} {description}")));
                }
                Event::Closed => return Err(io::ErrorKind::ConnectionAborted.into()),
                _ => {}
            }
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        let queue = self.client.transmit();
        while !queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); 8];
            let filled = queue.gather(&mut slices);
            match self.stream.write_vectored(&slices[..filled]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(taken) => queue.advance(taken),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A clip that can be played over and over.
struct Clip {
    metadata: StreamMetadata,
    headers: Vec<Tag>,
    media: Vec<Tag>,
    /// From its beginning to where it begins anew.
    duration: Duration,
}

/// One message, due at a time from the beginning of all.
struct Due {
    at: Duration,
    type_id: u8,
    payload: Bytes,
}

impl Clip {
    fn decode(file: Bytes) -> Result<Self, FlvError> {
        let mut clip = Self {
            metadata: StreamMetadata::default(),
            headers: Vec::new(),
            media: Vec::new(),
            duration: Duration::ZERO,
        };
        for tag in FileReader::new(file)?.tags() {
            let tag = tag?;
            match tag.type_id {
                type_id::VIDEO => match VideoTag::decode(&tag.payload)? {
                    VideoTag::SequenceHeader(_) => clip.headers.push(tag),
                    VideoTag::Coded { .. } => clip.media.push(tag),
                    VideoTag::EndOfSequence | VideoTag::Ignored(_) => {}
                },
                type_id::AUDIO => match AudioTag::decode(&tag.payload)? {
                    AudioTag::SequenceHeader(_) => clip.headers.push(tag),
                    AudioTag::Coded(_) => clip.media.push(tag),
                    AudioTag::Silence | AudioTag::Ignored(_) => {}
                },
                _ => {
                    let values = amf0::decode_all(&tag.payload, AmfLimits::default());
                    if let Some(values) = values.unwrap_or_default().get(1) {
                        clip.metadata = StreamMetadata::decode(values);
                    }
                }
            }
        }
        let video = track_duration(&clip.media, type_id::VIDEO);
        let audio = track_duration(&clip.media, type_id::AUDIO);
        clip.duration = video.max(audio);
        Ok(clip)
    }

    /// All messages, without end unless the clip is empty. Headers come once: nothing in
    /// them changes.
    fn play(&self) -> impl Iterator<Item = Due> {
        let rounds = if self.media.is_empty() { 0 } else { u32::MAX };
        let headers = self.headers.iter().map(|tag| Due::new(tag, Duration::ZERO));
        headers.chain((0..rounds).flat_map(|round| {
            let base = self.duration * round;
            self.media.iter().map(move |tag| Due::new(tag, base))
        }))
    }
}

impl Due {
    fn new(tag: &Tag, base: Duration) -> Self {
        Self {
            at: base + Duration::from_millis(tag.timestamp.into()),
            type_id: tag.type_id,
            payload: tag.payload.clone(),
        }
    }
}

/// Where the next frame of a track would be: its last one and one more step.
fn track_duration(media: &[Tag], type_id: u8) -> Duration {
    let track = media.iter().filter(|tag| tag.type_id == type_id);
    let times: Vec<u64> = track.map(|tag| tag.timestamp.into()).collect();
    let (Some(first), Some(last)) = (times.first(), times.last()) else {
        return Duration::ZERO;
    };
    let steps = (times.len() as u64 - 1).max(1);
    // Rounded: the timestamps are, and their mean step is exact in the long run.
    let step = (last.saturating_sub(*first) + steps / 2) / steps;
    Duration::from_millis(last + step)
}

/// Where a listener on `address` is reached from this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        // A listener on [::] hears IPv4 too.
        return SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port());
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clip() -> Clip {
        Clip::decode(Bytes::from_static(CLIP)).expect("a good clip")
    }

    #[test]
    fn the_clip_has_both_tracks_and_begins_with_a_key_frame() {
        let clip = clip();
        assert_eq!(clip.headers.len(), 2);
        assert!(clip.metadata.video.is_some() && clip.metadata.audio.is_some());
        let first = clip.media.iter().find(|tag| tag.type_id == type_id::VIDEO);
        let first = VideoTag::decode(&first.expect("video").payload);
        assert!(matches!(first, Ok(VideoTag::Coded { key: true, .. })));
        assert!(
            clip.duration > Duration::from_secs(5),
            "{:?}",
            clip.duration
        );
        assert!(CLIP.len() < 1 << 20, "{} bytes in every binary", CLIP.len());
    }

    #[test]
    fn timestamps_run_on_when_the_clip_begins_anew() {
        let clip = clip();
        for kind in [type_id::VIDEO, type_id::AUDIO] {
            let one_round = clip.media.iter().filter(|tag| tag.type_id == kind).count();
            let track = clip.play().skip(2).filter(|due| due.type_id == kind);
            let times: Vec<Duration> = track.take(one_round * 2).map(|due| due.at).collect();
            let steps: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
            let (least, most) = (steps.iter().min(), steps.iter().max());
            let seam = steps[one_round - 1];
            let slack = Duration::from_millis(2);
            assert!(Some(&(seam + slack)) >= least, "{seam:?} {least:?}");
            assert!(
                Some(&seam) <= most.map(|m| *m + slack).as_ref(),
                "{seam:?} {most:?}"
            );
        }
    }

    #[test]
    fn headers_come_once() {
        let clip = clip();
        let count = clip.headers.len() + clip.media.len() * 2;
        let is_header = |due: &Due| match due.type_id {
            type_id::VIDEO => matches!(
                VideoTag::decode(&due.payload),
                Ok(VideoTag::SequenceHeader(_))
            ),
            _ => matches!(
                AudioTag::decode(&due.payload),
                Ok(AudioTag::SequenceHeader(_))
            ),
        };
        assert_eq!(clip.play().take(count).filter(is_header).count(), 2);
    }

    #[test]
    fn every_address_is_reached_over_loopback() {
        for (listen, reached) in [
            ("[::]:1935", "127.0.0.1:1935"),
            ("0.0.0.0:1935", "127.0.0.1:1935"),
            ("[::1]:1935", "[::1]:1935"),
            ("192.0.2.1:1935", "192.0.2.1:1935"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()), reached.parse().unwrap());
        }
    }
}

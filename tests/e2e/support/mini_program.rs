//! A mini-program on a phone: its own signalling code under Node, and its media tags on real
//! sockets, one for each URL it is given.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rtmp_gateway::rtmp::client::RtmpUrl;
use rtmp_gateway::transmit::TransmitQueue;
use serde_json::{Value, json};

use super::tags::player::Seen;
use super::tags::{LivePlayer, LivePusher, Output, Phone, Tag};
use super::{Process, scratch_dir, wait_for};

/// A mini-program that is signed in.
pub struct MiniProgram {
    process: Process,
    state: Arc<Mutex<State>>,
    is_over: Arc<AtomicBool>,
    pages: Option<JoinHandle<()>>,
}

/// What its pages know.
#[derive(Default)]
struct State {
    /// The last state of its conversation, as `phone.mjs` tells it.
    conversation: Value,
    /// Reasons of what was refused.
    refused: Vec<String>,
    /// State codes of the pusher.
    push_codes: Vec<i32>,
    /// State codes and sights of the players, by the user they show.
    players: BTreeMap<String, (Vec<i32>, Seen)>,
}

/// A tag on its thread.
struct Running {
    url: String,
    stop: Arc<AtomicBool>,
}

impl MiniProgram {
    /// Signs in at `ws_url` as `user`.
    pub fn start(ws_url: &str, user: &str) -> Self {
        let script =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/support/phone/phone.mjs");
        let mut command = Command::new("node");
        command
            .env("NODE_PATH", "/usr/share/nodejs")
            .arg(script)
            .args([ws_url, user]);
        let mut process = Process::spawn_with_stdout("mini-program", &mut command);
        let stdout = process.child_mut().stdout.take().expect("it is piped");
        let state: Arc<Mutex<State>> = Arc::default();
        let is_over = Arc::new(AtomicBool::new(false));
        let pages = {
            let (state, is_over) = (Arc::clone(&state), Arc::clone(&is_over));
            thread::spawn(move || run_pages(BufReader::new(stdout), &state, &is_over))
        };
        let program = Self {
            process,
            state,
            is_over,
            pages: Some(pages),
        };
        program.wait("it is signed in", 10, |now| now["online"] == "online");
        program
    }

    /// Has it do something; see `phone.mjs`.
    pub fn act(&mut self, action: &str) {
        self.act_with(action, json!({}));
    }

    /// The same with fields.
    pub fn act_with(&mut self, action: &str, mut fields: Value) {
        fields["do"] = action.into();
        assert!(self.process.write_stdin(format!("{fields}\n").as_bytes()));
    }

    /// What its conversation is like now.
    pub fn conversation(&self) -> Value {
        self.lock(|state| state.conversation.clone())
    }

    /// Reasons of what was refused so far.
    pub fn refused(&self) -> Vec<String> {
        self.lock(|state| state.refused.clone())
    }

    /// Waits until its conversation is like this.
    ///
    /// # Panics
    /// When it takes longer than `seconds`.
    pub fn wait(&self, what: &str, seconds: u64, is_so: impl Fn(&Value) -> bool) {
        wait_for(what, Duration::from_secs(seconds), || {
            is_so(&self.conversation()).then_some(())
        });
    }

    /// State codes of the pusher so far.
    pub fn push_codes(&self) -> Vec<i32> {
        self.lock(|state| state.push_codes.clone())
    }

    /// What it saw and heard of a user, and the state codes of that player.
    pub fn of(&self, user: &str) -> (Vec<i32>, Seen) {
        self.lock(|state| state.players.get(user).cloned().unwrap_or_default())
    }

    /// Writes what it got of a user into an FLV file, for eyes and ears.
    pub fn record(&self, user: &str) -> std::path::PathBuf {
        let (_, seen) = self.of(user);
        let mut file = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
        for (timestamp, is_video, body) in seen.kept.unwrap_or_default() {
            let size = u32::try_from(body.len()).expect("a message is below 4 GB");
            file.push(if is_video { 9 } else { 8 });
            file.extend_from_slice(&size.to_be_bytes()[1..]);
            let [highest, low @ ..] = timestamp.to_be_bytes();
            file.extend_from_slice(&low);
            file.extend_from_slice(&[highest, 0, 0, 0]);
            file.extend_from_slice(&body);
            file.extend_from_slice(&(size + 11).to_be_bytes());
        }
        let path = scratch_dir("mini-program").join(format!("{user}.flv"));
        std::fs::write(&path, file).expect("the file can be written");
        path
    }

    fn lock<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for MiniProgram {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // Its output ends with it, and the pages with that.
        self.process.kill();
        if let Some(pages) = self.pages.take() {
            let _ = pages.join();
        }
    }
}

/// Reads states and keeps the tags as the call page would: a pusher for the push URL, a player for
/// each member; a new URL is a new tag.
fn run_pages(lines: impl BufRead, state: &Arc<Mutex<State>>, is_over: &Arc<AtomicBool>) {
    let mut pusher: Option<Running> = None;
    let mut players: BTreeMap<String, Running> = BTreeMap::new();
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    for line in lines.lines().map_while(Result::ok) {
        let Ok(told) = serde_json::from_str::<Value>(&line) else {
            continue;
        };
        if let Some(reason) = told["refused"].as_str() {
            lock().refused.push(reason.to_owned());
            continue;
        }
        if told["state"].is_null() {
            lock().conversation["online"] = told["online"].clone();
            continue;
        }
        let push = told["push"].as_str().map(str::to_owned);
        if pusher.as_ref().map(|tag| &tag.url) != push.as_ref() {
            stop(pusher.take());
            pusher = push.map(|url| {
                let told = Arc::clone(state);
                run_tag(url, is_over, move |url, stop| {
                    let tag = LivePusher::new(url, Phone::new(), [true, true], 7);
                    run_pusher(tag, stop, &told);
                })
            });
        }
        let members: BTreeMap<String, (String, String)> = told["members"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|member| {
                let text = |key: &str| member[key].as_str().map(str::to_owned);
                Some((text("member")?, (text("url")?, text("user")?)))
            })
            .collect();
        players.retain(|member, tag| {
            let stays = members.get(member).is_some_and(|(url, _)| *url == tag.url);
            if !stays {
                tag.stop.store(true, Ordering::Relaxed);
            }
            stays
        });
        for (member, (url, user)) in members {
            players.entry(member).or_insert_with(|| {
                let told = Arc::clone(state);
                run_tag(url, is_over, move |url, stop| {
                    let mut tag = LivePlayer::new(url, 8);
                    tag.keep();
                    run_player(tag, &user, stop, &told);
                })
            });
        }
        lock().conversation = told;
    }
    stop(pusher);
    for (_, tag) in players {
        stop(Some(tag));
    }
}

fn stop(tag: Option<Running>) {
    if let Some(tag) = tag {
        tag.stop.store(true, Ordering::Relaxed);
    }
}

fn run_tag(
    url: String,
    is_over: &Arc<AtomicBool>,
    run: impl FnOnce(RtmpUrl, &dyn Fn() -> bool) + Send + 'static,
) -> Running {
    let stop = Arc::new(AtomicBool::new(false));
    let parsed = RtmpUrl::parse(&url).expect("the gateway gives whole URLs");
    let (is_stopped, is_over) = (Arc::clone(&stop), Arc::clone(is_over));
    thread::spawn(move || {
        run(parsed, &|| {
            is_stopped.load(Ordering::Relaxed) || is_over.load(Ordering::Relaxed)
        });
    });
    Running { url, stop }
}

fn run_pusher(mut tag: LivePusher, is_stopped: &dyn Fn() -> bool, state: &Mutex<State>) {
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    run_loop(
        &mut tag,
        is_stopped,
        &mut |code| lock().push_codes.push(code),
        &mut |_| {},
    );
}

fn run_player(
    mut tag: LivePlayer,
    user: &str,
    is_stopped: &dyn Fn() -> bool,
    state: &Mutex<State>,
) {
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    lock().players.entry(user.to_owned()).or_default();
    run_loop(
        &mut tag,
        is_stopped,
        &mut |code| {
            if let Some((codes, _)) = lock().players.get_mut(user) {
                codes.push(code);
            }
        },
        &mut |tag: &mut LivePlayer| {
            if let Some((_, seen)) = lock().players.get_mut(user) {
                // What was kept is moved over, not copied again and again.
                let kept = tag.seen.kept.replace(Vec::new()).unwrap_or_default();
                let mut all = seen.kept.take().unwrap_or_default();
                *seen = tag.seen.clone();
                // The first seconds are enough for eyes and ears.
                let room = KEPT_MAX - all.len().min(KEPT_MAX);
                all.extend(kept.into_iter().take(room));
                seen.kept = Some(all);
            }
        },
    );
}

/// Runs a tag on a socket until it is stopped.
fn run_loop<T: Tag>(
    tag: &mut T,
    is_stopped: &dyn Fn() -> bool,
    tell: &mut dyn FnMut(i32),
    look: &mut dyn FnMut(&mut T),
) {
    let mut link = Link::default();
    loop {
        while let Some(output) = tag.poll_output() {
            match output {
                Output::Connect => match link.connect(tag.url()) {
                    Ok(()) => tag.handle_connected(),
                    Err(_) => tag.handle_closed(Instant::now()),
                },
                Output::Transmit => link.write(tag.transmit()),
                Output::Close => {
                    link.write(tag.transmit());
                    link.close();
                }
                Output::Code(code) => tell(code),
            }
        }
        look(tag);
        if is_stopped() {
            if tag.is_over() {
                return;
            }
            tag.stop();
            continue;
        }
        match link.read() {
            Got::Bytes(bytes) => tag.handle_received(Instant::now(), &bytes),
            Got::End => tag.handle_closed(Instant::now()),
            Got::Nothing => {}
        }
        if tag.next_timeout().is_some_and(|at| at <= Instant::now()) {
            tag.handle_timeout(Instant::now());
        }
    }
}

/// A tag's TCP connection, whose reads wait a little.
#[derive(Default)]
struct Link {
    stream: Option<TcpStream>,
    arrivals: Option<Receiver<Vec<u8>>>,
}

enum Got {
    Bytes(Vec<u8>),
    Nothing,
    End,
}

impl Link {
    fn connect(&mut self, url: &RtmpUrl) -> std::io::Result<()> {
        let stream = TcpStream::connect((url.host(), url.port()))?;
        stream.set_nodelay(true)?;
        let (arrived, arrivals) = mpsc::channel();
        let reader = stream.try_clone()?;
        thread::spawn(move || read_all(reader, &arrived));
        *self = Self {
            stream: Some(stream),
            arrivals: Some(arrivals),
        };
        Ok(())
    }

    /// A broken connection shows in the next read.
    fn write(&mut self, queue: &mut TransmitQueue) {
        while let Some(part) = queue.pop() {
            if let Some(stream) = &mut self.stream {
                let _ = stream.write_all(&part);
            }
        }
    }

    fn read(&mut self) -> Got {
        let Some(arrivals) = &self.arrivals else {
            thread::sleep(READ_FOR);
            return Got::Nothing;
        };
        match arrivals.recv_timeout(READ_FOR) {
            Ok(bytes) => Got::Bytes(bytes),
            Err(mpsc::RecvTimeoutError::Timeout) => Got::Nothing,
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                self.close();
                Got::End
            }
        }
    }

    fn close(&mut self) {
        if let Some(stream) = self.stream.take() {
            // The reader's thread sees the end.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        self.arrivals = None;
    }
}

fn read_all(mut from: TcpStream, arrived: &Sender<Vec<u8>>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let bytes = buffer.get(..count).unwrap_or_default().to_vec();
        if arrived.send(bytes).is_err() {
            return;
        }
    }
}

/// Messages kept of a player: about ten seconds.
const KEPT_MAX: usize = 640;

/// How exactly media are sent: a picture is due every 67 ms.
const READ_FOR: Duration = Duration::from_millis(4);

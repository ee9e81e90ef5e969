//! [`Line`]: the connection under a tag, with WeChat's way to try again.
//!
//! ```text
//!  connect ──► Connecting ──► Up ──(lost)──► Waiting 3 s ──► connect   (three times)
//!                  └──(refused)──► Waiting                      └──► Down
//! ```

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rtmp_gateway::rtmp::client::{Client, ClientOptions, Event, Goal, RtmpUrl};
use rtmp_gateway::transmit::TransmitQueue;

/// What the world has to do for a tag, or is told by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Open a TCP connection to the host of the tag's URL; say `handle_connected` or `handle_closed`.
    Connect,
    /// Write what `transmit` holds.
    Transmit,
    /// Close the connection after what `transmit` holds; what comes on it is of no interest.
    Close,
    /// The tag tells its page a state code; see [`super::code`].
    Code(i32),
}

/// The connection of one tag.
pub struct Line {
    url: RtmpUrl,
    goal: Goal,
    seed: u64,
    client: Option<Client>,
    state: State,
    retries_left: u8,
    outputs: VecDeque<Output>,
    none: TransmitQueue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Up,
    Waiting(Instant),
    Down,
}

impl Line {
    /// A line that asks to be connected at once.
    pub fn new(url: RtmpUrl, goal: Goal, seed: u64) -> Self {
        let mut line = Self {
            url,
            goal,
            seed,
            client: None,
            state: State::Down,
            retries_left: RETRIES,
            outputs: VecDeque::new(),
            none: TransmitQueue::new(),
        };
        line.connect();
        line
    }

    /// The TCP connection stands.
    pub fn handle_connected(&mut self) {
        if self.state != State::Connecting {
            return;
        }
        self.state = State::Up;
        self.seed = self
            .seed
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(1);
        let client = Client::new(
            self.url.clone(),
            self.goal,
            ClientOptions::default(),
            self.seed,
        );
        self.client = Some(client);
        self.outputs.push_back(Output::Transmit);
    }

    /// Bytes came; answers what they meant.
    pub fn receive(&mut self, bytes: &[u8]) -> Vec<Event> {
        let Some(client) = &mut self.client else {
            return Vec::new();
        };
        // What is broken ends in `Event::Closed` or in the server's close.
        let is_broken = client.receive(bytes).is_err();
        let mut events: Vec<Event> = std::iter::from_fn(|| client.poll_event()).collect();
        if is_broken {
            events.push(Event::Closed);
        }
        self.outputs.push_back(Output::Transmit);
        events
    }

    /// The connection is gone, or could not be made. Answers whether it is tried again.
    pub fn lost(&mut self, now: Instant) -> bool {
        if self.state == State::Down {
            return false;
        }
        if self.client.take().is_some() {
            self.outputs.push_back(Output::Close);
        }
        if self.retries_left == 0 {
            self.state = State::Down;
            return false;
        }
        self.retries_left -= 1;
        self.state = State::Waiting(now + RETRY_AFTER);
        true
    }

    /// Media flows: the next loss has all its retries.
    pub fn succeeded(&mut self) {
        self.retries_left = RETRIES;
    }

    /// Ends it, as the page asked.
    pub fn stop(&mut self) {
        if let Some(client) = &mut self.client {
            client.close();
            self.outputs.push_back(Output::Close);
        }
        self.state = State::Down;
    }

    /// Tries again if it is time.
    pub fn handle_timeout(&mut self, now: Instant) {
        if matches!(self.state, State::Waiting(until) if until <= now) {
            self.connect();
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Waiting(until) => Some(until),
            State::Connecting | State::Up | State::Down => None,
        }
    }

    /// The client of a connection that stands.
    pub fn client(&mut self) -> Option<&mut Client> {
        self.client.as_mut()
    }

    /// Whether it has given up or was stopped.
    pub fn is_down(&self) -> bool {
        self.state == State::Down
    }

    /// Tells the page.
    pub fn tell(&mut self, code: i32) {
        self.outputs.push_back(Output::Code(code));
    }

    /// There is something to be written.
    pub fn transmit_soon(&mut self) {
        if self.outputs.back() != Some(&Output::Transmit) {
            self.outputs.push_back(Output::Transmit);
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What is to be written.
    pub fn transmit(&mut self) -> &mut TransmitQueue {
        match &mut self.client {
            Some(client) => client.transmit(),
            None => &mut self.none,
        }
    }

    /// Where it connects to.
    pub fn url(&self) -> &RtmpUrl {
        &self.url
    }

    fn connect(&mut self) {
        self.state = State::Connecting;
        self.outputs.push_back(Output::Connect);
    }
}

/// "network lost after 3 retries" (-1307), "auto reconnect (3 tries)" (2103).
const RETRIES: u8 = 3;
/// The SDK's default.
const RETRY_AFTER: Duration = Duration::from_secs(3);

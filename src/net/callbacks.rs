//! The threads that make HTTP requests for the gateway: callbacks.
//!
//! A blocking client in a few threads, so that a slow server holds up nothing but itself. Some
//! threads serve questions, which somebody waits for; one sends news, in their order, and tries
//! again a few times. Both queues are bounded, results come back over a channel, and the
//! loop is woken for them.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use log::error;
use mio::Waker;
use ureq::Agent;

use crate::config;
use crate::gateway::{Callback, CallbackRequest, Outcome};

/// Questions that are asked at the same time.
const QUESTION_THREADS: usize = 4;

/// How often a piece of news is sent at most.
const NEWS_TRIES: u32 = 3;

/// Between two tries.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Bounds what is read of an answer.
const ANSWER_BYTES_MAX: u64 = 16 * 1024;

/// Bounds the head of an answer.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// How long dropping this waits for news that are still to be sent.
const LAST_NEWS: Duration = Duration::from_secs(1);

/// The threads. Dropping it ends them after the request each is at.
pub(super) struct Callbacks {
    questions: Option<Sender<Job>>,
    news: Option<Sender<Job>>,
    results: Receiver<Callback>,
    /// Disconnected when all news are sent.
    sent: Receiver<()>,
}

struct Job {
    request: CallbackRequest,
    begin: Instant,
}

impl Callbacks {
    /// Starts the threads; `waker` is called after each result.
    ///
    /// # Errors
    /// If a thread cannot be had.
    pub(super) fn spawn(settings: &config::Callback, waker: &Arc<Waker>) -> io::Result<Self> {
        let (questions, asked) = bounded(settings.queue_max);
        let (news, told) = bounded(settings.queue_max);
        // Results are taken with every turn of the loop; should it be late, threads wait.
        let (done, results) = bounded(settings.queue_max);
        let (alive, sent) = bounded(0);
        let client = Client {
            agent: agent(settings),
            url: settings.url.clone(),
            done,
            waker: Arc::clone(waker),
        };
        for index in 0..QUESTION_THREADS {
            let (client, asked) = (client.clone(), asked.clone());
            let builder = thread::Builder::new().name(format!("callback-{index}"));
            builder.spawn(move || client.run(&asked, 1))?;
        }
        let builder = thread::Builder::new().name("callback-news".into());
        builder.spawn(move || {
            client.run(&told, NEWS_TRIES);
            drop(alive);
        })?;
        Ok(Self {
            questions: Some(questions),
            news: Some(news),
            results,
            sent,
        })
    }

    /// Hands a request to the threads.
    ///
    /// # Errors
    /// What came of it, if its queue is full.
    pub(super) fn submit(&self, request: CallbackRequest) -> Result<(), Callback> {
        let id = request.id;
        let queue = match request.is_question {
            true => &self.questions,
            false => &self.news,
        };
        let begin = Instant::now();
        let job = Job { request, begin };
        let sent = queue.as_ref().map(|queue| queue.try_send(job));
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err(Callback {
                id,
                outcome: Outcome::Dropped,
                took: Duration::ZERO,
            }),
        }
    }

    /// A result that has come, if there is one.
    pub(super) fn take(&self) -> Option<Callback> {
        self.results.try_recv().ok()
    }
}

impl Drop for Callbacks {
    fn drop(&mut self) {
        self.questions = None;
        self.news = None;
        // Results have nobody to take them, and must not hold the threads up.
        let until = Instant::now() + LAST_NEWS;
        while Instant::now() < until {
            while self.results.try_recv().is_ok() {}
            match self.sent.recv_timeout(Duration::from_millis(10)) {
                Err(crossbeam_channel::RecvTimeoutError::Timeout) => {}
                _ => return,
            }
        }
    }
}

fn agent(settings: &config::Callback) -> Agent {
    Agent::config_builder()
        .timeout_global(Some(settings.timeout))
        // An answer from elsewhere is none.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .proxy(None)
        .max_response_header_size(HEAD_BYTES_MAX)
        .user_agent(concat!("rtmp-gateway/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent()
}

/// What one thread works with.
#[derive(Clone)]
struct Client {
    agent: Agent,
    url: String,
    done: Sender<Callback>,
    waker: Arc<Waker>,
}

impl Client {
    fn run(&self, jobs: &Receiver<Job>, tries: u32) {
        while let Ok(job) = jobs.recv() {
            let mut outcome = self.post(&job.request);
            for _ in 1..tries {
                let is_useless = match &outcome {
                    Outcome::Answered { status, .. } => *status >= 500,
                    _ => true,
                };
                if !is_useless {
                    break;
                }
                thread::sleep(RETRY_AFTER);
                outcome = self.post(&job.request);
            }
            let done = Callback {
                id: job.request.id,
                outcome,
                took: job.begin.elapsed(),
            };
            if self.done.send(done).is_err() {
                return;
            }
            if let Err(error) = self.waker.wake() {
                error!("callbacks: cannot wake the loop: {error}");
            }
        }
    }

    fn post(&self, request: &CallbackRequest) -> Outcome {
        match self.exchange(request) {
            Ok((status, body)) => Outcome::Answered { status, body },
            Err(error) => Outcome::Failed(error.to_string()),
        }
    }

    fn exchange(&self, request: &CallbackRequest) -> Result<(u16, Vec<u8>), ureq::Error> {
        let mut post = self
            .agent
            .post(&self.url)
            .header("Content-Type", "application/json");
        if let Some((time, signature)) = &request.signature {
            post = post
                .header("X-Gateway-Timestamp", time)
                .header("X-Gateway-Signature", signature);
        }
        let mut response = post.send(request.body.as_bytes())?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX);
        Ok((status, body.read_to_vec()?))
    }
}

//! The threads that transcode audio.
//!
//! Each has one bounded queue of jobs and one [`Worker`] with the codecs of the streams
//! pinned to it. Results come back over one channel, and the loop is woken for
//! them. A thread that cannot keep up has its frames refused; the loop never waits for one.

use std::collections::BTreeSet;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use log::error;
use mio::Waker;

use crate::transcode::{Completed, Job, PipelineId, Work, Worker};

/// Places in each queue beyond those for frames. Opening and closing of pipelines must
/// not be lost when frames are, or their codecs would stay; there are a few of them per
/// stream.
const CONTROL_RESERVE: usize = 1_024;

/// The pool. Dropping it ends the threads after the job each is at.
pub(super) struct Workers {
    /// None once the pool is being dropped.
    queues: Vec<Sender<Job>>,
    queue_frames_max: usize,
    /// None once the pool is being dropped.
    results: Option<Receiver<Completed>>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `count` threads, each with a queue for `queue_frames_max` frames; `waker` is
    /// called after each result.
    pub(super) fn spawn(
        count: usize,
        queue_frames_max: usize,
        waker: &Arc<Waker>,
    ) -> io::Result<Self> {
        Self::spawn_with(count, queue_frames_max, waker, || {
            let mut worker = Worker::new();
            move |job| worker.run(job)
        })
    }

    /// The same with other workers: `make` makes the state of a thread, at its start
    /// and after a panic.
    fn spawn_with<M, R>(
        count: usize,
        queue_frames_max: usize,
        waker: &Arc<Waker>,
        make: M,
    ) -> io::Result<Self>
    where
        M: Fn() -> R + Clone + Send + 'static,
        R: FnMut(Job) -> Option<Completed>,
    {
        let count = count.max(1);
        // As many results as there can be jobs. Should the loop be late, the threads wait for
        // it, their queues fill up, and frames are refused: everything stays bounded.
        let (result_sender, results) = bounded(count * queue_frames_max);
        let mut queues = Vec::with_capacity(count);
        let mut threads = Vec::with_capacity(count);
        for index in 0..count {
            let (sender, jobs) = bounded(queue_frames_max + CONTROL_RESERVE);
            let thread = WorkerThread {
                name: format!("audio-{index}"),
                jobs,
                results: result_sender.clone(),
                waker: Arc::clone(waker),
                open: BTreeSet::new(),
            };
            let make = make.clone();
            let builder = thread::Builder::new().name(thread.name.clone());
            threads.push(builder.spawn(move || thread.run(make))?);
            queues.push(sender);
        }
        Ok(Self {
            queues,
            queue_frames_max,
            results: Some(results),
            threads,
        })
    }

    /// Hands `job` to thread number `worker`.
    ///
    /// # Errors
    /// Whose job it was, if that thread has too many already.
    pub(super) fn submit(&self, worker: usize, job: Job) -> Result<(), PipelineId> {
        let pipeline = job.pipeline;
        let queue = &self.queues[worker % self.queues.len()];
        let is_media = matches!(job.work, Work::Frame(_) | Work::Advance(_));
        if is_media && queue.len() >= self.queue_frames_max {
            return Err(pipeline);
        }
        queue.try_send(job).map_err(|_| pipeline)
    }

    /// A result that has come, if there is one.
    pub(super) fn take(&self) -> Option<Completed> {
        self.results.as_ref()?.try_recv().ok()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // Without senders a thread ends when its queue is empty, without the receiver
        // with its next result.
        self.queues.clear();
        self.results = None;
        for thread in self.threads.drain(..) {
            // A thread catches its panics; there is nothing to be learnt here.
            let _ = thread.join();
        }
    }
}

/// What one thread works with.
struct WorkerThread {
    name: String,
    jobs: Receiver<Job>,
    results: Sender<Completed>,
    waker: Arc<Waker>,
    /// Pipelines that are lost if the worker panics.
    open: BTreeSet<PipelineId>,
}

impl WorkerThread {
    fn run<R: FnMut(Job) -> Option<Completed>>(mut self, make: impl Fn() -> R) {
        let mut worker = make();
        while let Ok(job) = self.jobs.recv() {
            let pipeline = job.pipeline;
            match job.work {
                Work::Close => self.open.remove(&pipeline),
                Work::Open(_) => self.open.insert(pipeline),
                _ => false,
            };
            let begin = Instant::now();
            // After a panic the worker is thrown away, so that nobody sees it half changed.
            let result = catch_unwind(AssertUnwindSafe(|| worker(job)));
            let delivered = match result {
                Ok(None) => true,
                Ok(Some(completed)) => self.deliver(Completed {
                    busy: begin.elapsed(),
                    ..completed
                }),
                Err(_) => {
                    // A bug; the panic hook has said where.
                    let lost = std::mem::take(&mut self.open);
                    error!(
                        "{}: panicked at a job of pipeline {}, {} pipelines lost",
                        self.name,
                        pipeline.0,
                        lost.len()
                    );
                    worker = make();
                    lost.into_iter().all(|pipeline| {
                        self.deliver(Completed {
                            pipeline,
                            errors: 1,
                            error: Some("the transcoder failed".into()),
                            ..Completed::default()
                        })
                    })
                }
            };
            if !delivered {
                return;
            }
        }
    }

    /// Whether somebody is still there to take results.
    fn deliver(&self, completed: Completed) -> bool {
        let sent = self.results.send(completed).is_ok();
        if sent && let Err(error) = self.waker.wake() {
            error!("{}: cannot wake the loop: {error}", self.name);
        }
        sent
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use mio::{Events, Poll, Token};

    use super::*;
    use crate::media::MediaTime;

    fn job(pipeline: u64, work: Work) -> Job {
        Job {
            pipeline: PipelineId(pipeline),
            work,
        }
    }

    fn advance(pipeline: u64, to: i64) -> Job {
        job(pipeline, Work::Advance(MediaTime::from_ticks(to)))
    }

    fn completed(pipeline: PipelineId) -> Completed {
        Completed {
            pipeline,
            ..Completed::default()
        }
    }

    /// Waits for results as the loop does.
    fn wait(poll: &mut Poll, workers: &Workers, count: usize) -> Vec<Completed> {
        let mut events = Events::with_capacity(8);
        let mut got = Vec::new();
        while got.len() < count {
            poll.poll(&mut events, Some(Duration::from_secs(5)))
                .unwrap();
            assert!(
                !events.is_empty(),
                "woken in time, {} of {count}",
                got.len()
            );
            got.extend(std::iter::from_fn(|| workers.take()));
        }
        got
    }

    fn poll() -> (Poll, Arc<Waker>) {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        (poll, waker)
    }

    #[test]
    fn jobs_of_one_worker_come_back_in_order_with_the_time_they_took() {
        let (mut poll, waker) = poll();
        let workers = Workers::spawn_with(2, 64, &waker, || {
            |job: Job| {
                thread::sleep(Duration::from_millis(1));
                Some(completed(job.pipeline))
            }
        })
        .unwrap();
        for n in 0..20 {
            workers.submit(1, advance(n, 0)).unwrap();
        }
        let got = wait(&mut poll, &workers, 20);
        let order: Vec<u64> = got.iter().map(|c| c.pipeline.0).collect();
        assert_eq!(order, (0..20).collect::<Vec<_>>());
        assert!(got.iter().all(|c| c.busy >= Duration::from_millis(1)));
    }

    #[test]
    fn a_full_queue_refuses_frames_but_not_control() {
        let (_poll, waker) = poll();
        let (hold, held) = mpsc::channel::<()>();
        let held = Arc::new(std::sync::Mutex::new(held));
        let workers = Workers::spawn_with(1, 8, &waker, move || {
            let held = Arc::clone(&held);
            move |job: Job| {
                let _ = held.lock().unwrap().recv();
                Some(completed(job.pipeline))
            }
        })
        .unwrap();
        // One is being worked at, sooner or later; eight wait.
        let taken = (0..32)
            .filter(|n| workers.submit(0, advance(*n, 0)).is_ok())
            .count();
        assert!((8..=9).contains(&taken), "{taken}");
        assert_eq!(workers.submit(0, job(3, Work::Close)), Ok(()));
        assert_eq!(workers.submit(7, advance(5, 0)), Err(PipelineId(5)));
        drop(hold);
    }

    #[test]
    fn a_panic_loses_the_pipelines_of_its_worker_and_tells_so() {
        let (mut poll, waker) = poll();
        let workers = Workers::spawn_with(1, 64, &waker, || {
            |job: Job| match job.work {
                Work::Advance(to) if to.ticks() == 13 => panic!("on purpose"),
                _ => Some(completed(job.pipeline)),
            }
        })
        .unwrap();
        for pipeline in [1, 2, 3] {
            workers
                .submit(0, job(pipeline, Work::Open(spec())))
                .unwrap();
        }
        workers.submit(0, job(2, Work::Close)).unwrap();
        workers.submit(0, advance(1, 13)).unwrap();
        workers.submit(0, advance(9, 0)).unwrap();
        let got = wait(&mut poll, &workers, 7);
        let lost = |c: &&Completed| c.error.is_some();
        let lost: Vec<u64> = got.iter().filter(lost).map(|c| c.pipeline.0).collect();
        assert_eq!(lost, [1, 3]);
        assert_eq!(got[6].pipeline, PipelineId(9), "the thread goes on");
    }

    #[test]
    fn dropping_the_pool_ends_its_threads_even_when_nobody_takes_results() {
        let (_poll, waker) = poll();
        let workers =
            Workers::spawn_with(1, 8, &waker, || |job: Job| Some(completed(job.pipeline))).unwrap();
        for n in 0..100 {
            let _ = workers.submit(0, advance(n, 0));
        }
        drop(workers);
    }

    fn spec() -> Box<crate::transcode::Spec> {
        Box::new(crate::transcode::Spec::OpusToAac {
            channels: 2,
            settings: crate::transcode::AacSettings::default(),
        })
    }
}

//! The worker: the pipelines of the streams that are pinned to it.

use std::collections::HashMap;

use super::aac_to_opus::AacToOpus;
use super::opus_to_aac::OpusToAac;
use super::{Completed, Error, Job, PipelineId, Spec, Sync, Work};

/// Most pipelines of one worker. Each has some 100 kB of codec state, and a core does
/// about 150 of them in real time: beyond this many it could not keep up anyway. Opening
/// one more fails.
pub const PIPELINES_MAX: usize = 1_024;

/// Owns pipelines and works off their jobs, one after the other. No job panics, whatever
/// its frames hold. A worker moves to its thread and stays there.
#[derive(Default)]
pub struct Worker {
    pipelines: HashMap<PipelineId, Pipeline>,
}

enum Pipeline {
    AacToOpus(Box<AacToOpus>),
    OpusToAac(Box<OpusToAac>),
}

impl Worker {
    /// A worker without pipelines.
    pub fn new() -> Self {
        Self::default()
    }

    /// Does a job. Nothing comes of closing.
    pub fn run(&mut self, job: Job) -> Option<Completed> {
        let mut done = Completed {
            pipeline: job.pipeline,
            ..Completed::default()
        };
        let result = match job.work {
            Work::Open(spec) => self.open(job.pipeline, *spec, &mut done),
            Work::Close => {
                self.pipelines.remove(&job.pipeline);
                return None;
            }
            work => match self.pipelines.get_mut(&job.pipeline) {
                Some(pipeline) => {
                    let result = pipeline.run(work, &mut done);
                    done.sync = pipeline.sync();
                    result
                }
                None => {
                    done.errors += 1;
                    Err(Error::NoPipeline)
                }
            },
        };
        if let Err(error) = result {
            done.error = Some(error.to_string());
        }
        Some(done)
    }

    /// How many pipelines there are.
    pub fn len(&self) -> usize {
        self.pipelines.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.pipelines.is_empty()
    }

    fn open(&mut self, id: PipelineId, spec: Spec, done: &mut Completed) -> Result<(), Error> {
        self.pipelines.remove(&id);
        if self.pipelines.len() >= PIPELINES_MAX {
            done.errors += 1;
            return Err(Error::TooManyPipelines);
        }
        let pipeline = Pipeline::open(spec).inspect_err(|_| done.errors += 1)?;
        done.config = Some(match &pipeline {
            Pipeline::AacToOpus(pipeline) => pipeline.track_config(),
            Pipeline::OpusToAac(pipeline) => pipeline.track_config(),
        });
        self.pipelines.insert(id, pipeline);
        Ok(())
    }
}

impl Pipeline {
    fn open(spec: Spec) -> Result<Self, Error> {
        Ok(match spec {
            Spec::AacToOpus { config, settings } => {
                Pipeline::AacToOpus(Box::new(AacToOpus::new(config, settings)?))
            }
            Spec::OpusToAac { channels, settings } => {
                Pipeline::OpusToAac(Box::new(OpusToAac::new(channels, settings)?))
            }
        })
    }

    fn sync(&self) -> Sync {
        match self {
            Pipeline::AacToOpus(pipeline) => pipeline.sync(),
            Pipeline::OpusToAac(pipeline) => pipeline.sync(),
        }
    }

    fn run(&mut self, work: Work, done: &mut Completed) -> Result<(), Error> {
        match (self, work) {
            (Pipeline::AacToOpus(pipeline), Work::Frame(frame)) => pipeline.frame(frame, done),
            (Pipeline::OpusToAac(pipeline), Work::Frame(frame)) => pipeline.frame(&frame, done),
            (Pipeline::AacToOpus(pipeline), Work::Advance(to)) => pipeline.advance(to, done),
            (Pipeline::OpusToAac(pipeline), Work::Advance(to)) => pipeline.advance(to, done),
            (pipeline, Work::Reconfigure(spec)) => {
                let changed = match (pipeline, *spec) {
                    (Pipeline::AacToOpus(pipeline), Spec::AacToOpus { config, settings }) => {
                        pipeline.reconfigure(config, settings, done)
                    }
                    (Pipeline::OpusToAac(pipeline), Spec::OpusToAac { channels, settings }) => {
                        pipeline.reconfigure(channels, settings, done)
                    }
                    _ => Err(Error::Direction),
                };
                return changed.inspect_err(|_| done.errors += 1);
            }
            (_, Work::Open(_) | Work::Close) => {}
        }
        Ok(())
    }
}

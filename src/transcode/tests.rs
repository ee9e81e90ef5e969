//! Whole pipelines, from encoded input to decoded output.

mod aac_to_opus;
mod opus_to_aac;

use super::testing::{AacSource, Rig, opus_packets, tone};
use super::*;
use crate::media::Codec;

fn opus_to_aac(channels: u8) -> Spec {
    Spec::OpusToAac {
        channels,
        settings: AacSettings::default(),
    }
}

fn aac_to_opus(config: AudioSpecificConfig) -> Spec {
    Spec::AacToOpus {
        config,
        settings: OpusSettings::default(),
    }
}

#[test]
fn a_worker_may_move_to_its_thread() {
    fn is_send<T: Send>() {}
    is_send::<Worker>();
    is_send::<Job>();
    is_send::<Completed>();
}

#[test]
fn work_for_no_pipeline_is_answered() {
    let mut worker = Worker::new();
    let pipeline = PipelineId(7);
    let work = Work::Advance(MediaTime::ZERO);
    let done = worker.run(Job { pipeline, work }).unwrap();
    assert_eq!(done.pipeline, pipeline);
    assert_eq!(done.errors, 1);
    assert_eq!(done.error.as_deref(), Some("no such pipeline"));
    let work = Work::Close;
    assert!(worker.run(Job { pipeline, work }).is_none());
}

#[test]
fn codecs_that_do_not_open_say_why() {
    let mut worker = Worker::new();
    let mut open = |spec| {
        let done = worker.run(Job {
            pipeline: PipelineId(1),
            work: Work::Open(Box::new(spec)),
        });
        (done.unwrap().error, worker.len())
    };
    assert_eq!(open(opus_to_aac(3)), (Some("3 channels".into()), 0));
    // Audio object type 1, AAC Main.
    let main = AudioSpecificConfig::decode(&[0x0a, 0x10]);
    if let Ok(main) = main {
        let (error, pipelines) = open(aac_to_opus(main));
        assert!(error.unwrap().contains("object type 1"));
        assert_eq!(pipelines, 0);
    }
    assert_eq!(open(opus_to_aac(1)), (None, 1));
}

#[test]
fn a_pipeline_keeps_its_direction_and_ends_with_close() {
    let mut rig = Rig::open(opus_to_aac(2));
    let done = rig.run(Work::Reconfigure(Box::new(aac_to_opus(
        AudioSpecificConfig::lc(48_000, 2).unwrap(),
    ))));
    assert!(done.error.unwrap().contains("direction"));
    assert_eq!(done.errors, 1);
    assert_eq!(rig.worker.len(), 1);
    let pipeline = rig.pipeline;
    let work = Work::Close;
    assert!(rig.worker.run(Job { pipeline, work }).is_none());
    assert!(rig.worker.is_empty());
}

#[test]
fn pipelines_are_bounded() {
    let mut worker = Worker::new();
    let mut open = |id| {
        let done = worker.run(Job {
            pipeline: PipelineId(id),
            work: Work::Open(Box::new(opus_to_aac(1))),
        });
        done.unwrap().error
    };
    for id in 0..PIPELINES_MAX as u64 {
        assert_eq!(open(id), None);
    }
    // One again is a replacement, one more is too many.
    assert_eq!(open(0), None);
    assert!(open(u64::MAX - 1).unwrap().contains("more than"));
}

#[test]
fn frames_of_another_codec_or_size_are_errors() {
    let config = AudioSpecificConfig::lc(48_000, 2).unwrap();
    for (spec, codec) in [
        (opus_to_aac(2), Codec::Opus),
        (aac_to_opus(config), Codec::Aac),
    ] {
        let mut rig = Rig::open(spec);
        for payload in [vec![], vec![0; PAYLOAD_BYTES_MAX + 1]] {
            rig.feed(codec, MediaTime::ZERO, payload.into());
        }
        rig.feed(Codec::H264, MediaTime::ZERO, vec![1; 10].into());
        assert_eq!(rig.totals.errors, 3);
        assert!(rig.frames.is_empty());
    }
}

#[test]
fn timestamps_at_the_ends_of_time_do_no_harm() {
    let source = AacSource::lc(44_100, 2, &tone(440.0, 44_100, 2, 44_100));
    let packets = opus_packets(2, 960, &tone(440.0, 48_000, 2, 48_000));
    let times =
        [0, i64::MAX, i64::MIN, -1, i64::MAX / 2, 0, i64::MIN / 2].map(MediaTime::from_ticks);
    for (spec, codec, payload) in [
        (opus_to_aac(2), Codec::Opus, &packets[3]),
        (
            aac_to_opus(source.config.clone()),
            Codec::Aac,
            &source.units[3],
        ),
    ] {
        for first in times {
            let mut rig = Rig::open(spec.clone());
            for time in times {
                rig.feed(codec, first, payload.clone());
                rig.feed(codec, time, payload.clone());
                rig.feed(codec, time, payload.clone());
                rig.run(Work::Advance(time));
                rig.feed(codec, first, payload.clone());
            }
            assert!(rig.frames.len() < 3_000, "{}", rig.frames.len());
        }
    }
}

//! Sound between the two worlds: in time, in tune, and only while somebody listens.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rtmp_gateway::codec::aac::AudioSpecificConfig;
use rtmp_gateway::media::{Codec, Frame, MediaTime, TrackConfig};
use rtmp_gateway::rtmp::flv::Tag;
use rtmp_gateway::transcode::{AacSettings, Job, PipelineId, Spec, Work, Worker};

use crate::common::browser::{BrowserConfig, Does, Kind};
use crate::common::clip::{AUDIO, Clip, Feed, VIDEO, opus_tone};
use crate::common::watch::{decode_opus, onsets, sounds};
use crate::common::world::{World, coded};

/// The clip's pictures with a beep of 100 ms at each whole second, of exact time.
pub fn beeping_clip() -> Feed {
    let mut encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::LowDelay)
        .expect("an encoder");
    let lookahead = encoder.get_lookahead().expect("known") as i64;
    let mut worker = Worker::new();
    let pipeline = PipelineId(1);
    let spec = Spec::OpusToAac {
        channels: 1,
        settings: AacSettings::default(),
    };
    let opened = worker
        .run(Job {
            pipeline,
            work: Work::Open(Box::new(spec)),
        })
        .expect("open");
    let Some(TrackConfig::Aac(config)) = opened.config else {
        panic!("no configuration")
    };
    let mut frames = Vec::new();
    for n in 0..1_000_i64 {
        let pcm: Vec<f32> = (n * 960..(n + 1) * 960)
            .map(|at| {
                // Opus gives it back later by its lookahead.
                let at = at + lookahead;
                let in_second = at % 48_000;
                let t = at as f32 / 48_000.0;
                let on = in_second < 4_800;
                if on {
                    (t * 1_000.0 * std::f32::consts::TAU).sin() * 0.5
                } else {
                    0.0
                }
            })
            .collect();
        let payload = encoder.encode_vec_float(&pcm, 1_200).expect("a packet");
        let time = MediaTime::from_units(n * 960, 48_000);
        let frame = Frame {
            codec: Codec::Opus,
            dts: time,
            pts: time,
            key: true,
            disposable: false,
            payload: Bytes::from(payload),
        };
        let done = worker
            .run(Job {
                pipeline,
                work: Work::Frame(frame),
            })
            .expect("sound");
        frames.extend(done.frames);
    }
    let clip = Clip::load();
    let mut header = vec![0xaf, 0];
    header.extend_from_slice(config.bytes());
    let headers = clip.headers().filter(|tag| tag.type_id == VIDEO).cloned();
    let audio_header = Tag {
        type_id: AUDIO,
        timestamp: 0,
        payload: header.into(),
    };
    let headers = headers.chain([audio_header]).collect();
    let mut all: Vec<(u64, Tag)> = frames
        .into_iter()
        .filter(|frame| frame.pts >= MediaTime::ZERO)
        .map(|frame| {
            let mut body = vec![0xaf, 1];
            body.extend_from_slice(&frame.payload);
            let time = frame.pts.as_millis_rounded() as u64;
            (
                time,
                Tag {
                    type_id: AUDIO,
                    timestamp: 0,
                    payload: body.into(),
                },
            )
        })
        .collect();
    let pictures = clip.feed().only(VIDEO).until(19_000).frames;
    all.extend(pictures);
    all.sort_by_key(|(time, _)| *time);
    Feed {
        headers,
        frames: Box::new(all.into_iter()),
        offset: Some(0),
        ppm: 0,
    }
}

#[test]
fn a_tone_keeps_its_pitch_and_loudness_on_its_way_to_a_viewer() {
    let mut world = World::new();
    world.rtmp_publish_feed("live/a", beeping_clip());
    world.run_ms(500);
    let viewer = world.whep("live/a").expect("accepted");
    world.run_ms(6_000);
    let heard = sounds(world.browser(viewer));
    let pcm = decode_opus(&heard);
    let beeps = onsets(&pcm);
    assert!(beeps.len() >= 5, "{beeps:?}");
    for pair in beeps.windows(2) {
        assert!(
            (47_900..=48_100).contains(&(pair[1] - pair[0])),
            "{beeps:?}"
        );
    }
    let body = &pcm[beeps[2] + 960..beeps[2] + 3_840];
    let rms = (body.iter().map(|s| s * s).sum::<f32>() / body.len() as f32).sqrt();
    assert!((0.30..0.41).contains(&rms), "{rms}, not 0.354");
    let crossings = body
        .windows(2)
        .filter(|p| p[0] < 0.0 && p[1] >= 0.0)
        .count();
    assert!(
        (59..=61).contains(&crossings),
        "{crossings} periods, not 60"
    );
}

/// Cases 45 and 47: 21, 21, 22 ms, from sample counts.
#[test]
fn aac_timestamps_step_by_samples_from_the_beginning() {
    let mut world = World::new();
    let player = world.rtmp_play("live/a");
    world.run_ms(10);
    let browser = world.whip("live/a").expect("accepted");
    world.run_ms(60_000);
    let audio = coded(world.rtmp_peer(player), AUDIO);
    let times: Vec<u32> = audio.iter().map(|(_, time, _)| *time).collect();
    let first = times[0];
    assert!(first < 200, "{first}");
    for (n, time) in times.iter().enumerate() {
        let exact = f64::from(first) + n as f64 * 1_024.0 / 48.0;
        assert!(
            (f64::from(*time) - exact).abs() <= 1.0,
            "{n}: {time} {exact}"
        );
    }
    assert!(times.windows(2).all(|p| (21..=22).contains(&(p[1] - p[0]))));
    let sent = world.source_mut(browser).sent_sounds as f64 * 20.0;
    let got = times.len() as f64 * 1_024.0 / 48.0;
    assert!((sent - got).abs() < 200.0, "{sent} ms sent, {got} ms got");
}

/// Case 49: sound was announced and does not come; players start all the same.
#[test]
fn announced_sound_that_does_not_come_is_silence() {
    let mut world = World::new();
    let player = world.rtmp_play("live/a");
    world.run_ms(10);
    let began = world.now;
    let browser = world.whip("live/a").expect("accepted");
    world.source_mut(browser).audio = false;
    world.run_ms(5_000);
    let audio = coded(world.rtmp_peer(player), AUDIO);
    assert!(
        (audio[0].0 - began).as_millis() < 1_500,
        "{:?}",
        audio[0].0 - began
    );
    assert!(audio.len() > 150, "{}", audio.len());
    assert!(
        audio
            .windows(2)
            .all(|p| (21..=22).contains(&(p[1].1 - p[0].1)))
    );
    // It comes at last.
    world.source_mut(browser).audio = true;
    world.run_ms(3_000);
    let audio = coded(world.rtmp_peer(player), AUDIO);
    assert!(
        audio
            .windows(2)
            .all(|p| (21..=22).contains(&(p[1].1 - p[0].1)))
    );
    let late = world.now - audio.last().unwrap().0;
    assert!(late.as_millis() < 100, "{late:?}");
    let loud = audio
        .iter()
        .rev()
        .take(50)
        .map(|(_, _, body)| body.len())
        .sum::<usize>()
        / 50;
    assert!(loud > 100, "{loud} bytes a frame are no silence");
}

/// A browser whose microphone is muted sends nothing for a while.
#[test]
fn sound_that_stops_and_resumes_stays_on_its_clock() {
    let mut world = World::new();
    let player = world.rtmp_play("live/a");
    world.run_ms(10);
    let browser = world.whip("live/a").expect("accepted");
    world.run_ms(3_000);
    world.source_mut(browser).audio = false;
    world.run_ms(4_000);
    world.source_mut(browser).audio = true;
    world.run_ms(3_000);
    let peer = world.rtmp_peer(player);
    let audio = coded(peer, AUDIO);
    let video = coded(peer, VIDEO);
    assert!(
        audio
            .windows(2)
            .all(|p| (21..=22).contains(&(p[1].1 - p[0].1)))
    );
    let apart = i64::from(audio.last().unwrap().1) - i64::from(video.last().unwrap().1);
    assert!(apart.abs() < 120, "{apart}");
    let waits = audio.windows(2).map(|p| p[1].0 - p[0].0).max().unwrap();
    assert!(waits.as_millis() <= 400, "{waits:?}");
}

/// Sound is transcoded from the first listener on, and not beyond the last.
#[test]
fn transcoding_follows_its_listeners() {
    let mut world = World::new();
    world.rtmp_publish("live/a");
    world.rtmp_play("live/a");
    world.run_ms(1_000);
    let transcode = |world: &mut World| world.stream("live/a").unwrap()["transcode"].clone();
    assert_eq!(transcode(&mut world)["aac_to_opus"], false);
    assert_eq!(world.pipelines(), 0);
    let viewer = world.whep("live/a").expect("accepted");
    world.run_ms(1_000);
    assert_eq!(transcode(&mut world)["aac_to_opus"], true);
    assert_eq!(transcode(&mut world)["queue"], 0);
    assert_eq!(world.pipelines(), 1);
    let another = world.whep("live/a").expect("accepted");
    world.run_ms(500);
    assert_eq!(world.pipelines(), 1, "once for all");
    world.close_browser(viewer);
    world.run_ms(3_000);
    assert_eq!(world.pipelines(), 1);
    world.close_browser(another);
    world.run_ms(1_000);
    assert_eq!(world.pipelines(), 1, "goes on for a moment");
    world.run_ms(1_500);
    assert_eq!(world.pipelines(), 0);
    assert_eq!(transcode(&mut world)["aac_to_opus"], false);
    let back = world.whep("live/a").expect("accepted");
    world.run_ms(1_000);
    let all = sounds(world.browser(back));
    assert!(all.len() > 40, "{}", all.len());
    assert!(
        all.windows(2)
            .all(|pair| pair[1].rtp_time - pair[0].rtp_time == 960)
    );
}

#[test]
fn webrtc_to_webrtc_sound_is_untouched_and_costs_nothing() {
    let mut world = World::new();
    world.whip("live/a").expect("accepted");
    world.run_ms(1_000);
    let viewer = world.whep("live/a").expect("accepted");
    world.run_ms(2_000);
    assert_eq!(world.pipelines(), 0);
    let tone: Vec<Arc<[u8]>> = opus_tone(500);
    for sound in sounds(world.browser(viewer)) {
        assert!(tone.iter().any(|packet| **packet == *sound.payload));
    }
}

/// Case 46: packets of every length, mono and stereo, of one frame and of many, and of a single byte,
/// after one another: as much AAC as there was sound, none of it made up.
#[test]
fn case_46_packets_of_every_length_and_both_channel_counts_keep_the_time() {
    // Each encoder makes 600 ms.
    let lengths = [120, 240, 480, 960, 1_920, 2_880, 5_760];
    let mut packets: Vec<Arc<[u8]>> = Vec::new();
    for length in lengths.into_iter().chain(lengths.into_iter().rev()) {
        for channels in [opus::Channels::Mono, opus::Channels::Stereo] {
            for application in [opus::Application::Voip, opus::Application::LowDelay] {
                let mut encoder =
                    opus::Encoder::new(48_000, channels, application).expect("an encoder");
                let pcm = vec![0.1_f32; length * channels as usize];
                for _ in 0..28_800 / length {
                    let packet = encoder.encode_vec_float(&pcm, 4_000).expect("a packet");
                    packets.push(packet.into());
                }
            }
        }
        // 20 ms of nothing, as in discontinuous transmission, and twice that in two frames.
        packets.extend([&[0xf8_u8][..], &[0xf9]].map(Arc::from));
    }
    let codes: BTreeSet<u8> = packets.iter().map(|packet| packet[0] & 3).collect();
    assert!(codes.len() >= 3, "{codes:?}");

    let mut world = World::new();
    let player = world.rtmp_play("live/a");
    world.run_ms(10);
    let browser = world.whip("live/a").expect("accepted");
    world.whip_sound(browser, false);
    world.run_ms(1_000);
    let faults = |world: &mut World| {
        ["transcode_concealed_seconds", "transcode_errors"]
            .map(|name| world.metric(&format!("rtmp_gateway_{name}_total")))
    };
    let before = faults(&mut world);
    let begun = world.now;
    let mut samples = 0_u32;
    for packet in packets {
        let due = begun + Duration::from_micros(u64::from(samples) * 125 / 6);
        world.run_ms(due.saturating_duration_since(world.now).as_millis() as u64);
        let now = world.now;
        let rtp_time = samples;
        samples += opus::packet::get_nb_samples(&packet, 48_000).expect("whole") as u32;
        let peer = &mut world.browser_mut(browser).browser;
        peer.write(now, Kind::Audio, &[packet], rtp_time);
    }
    world.run_ms(50);
    let audio = coded(world.rtmp_peer(player), AUDIO);
    assert!(
        audio
            .windows(2)
            .all(|p| (21..=22).contains(&(p[1].1 - p[0].1)))
    );
    // But for the beginning of the silence before.
    assert_eq!(faults(&mut world), before);
    // From the third second on, when the silence before is out.
    let from = begun + Duration::from_secs(2);
    let made = audio.iter().filter(|(at, _, _)| *at > from).count();
    let expected = (samples as usize - 2 * 48_000) / 1_024;
    assert!(made.abs_diff(expected) <= 3, "{made} of {expected}");
    let stream = world.stream("live/a").unwrap();
    assert_eq!(stream["tracks"][1]["channels"], 2);
}

/// Case 46: comfort noise and RED that were refused come all the same. Their places in the sequence
/// count, so that nothing waits for them, and they are never heard.
#[test]
fn case_46_payload_types_that_were_refused_are_passed_over() {
    let mut config = BrowserConfig::new(Does::Publish);
    config.other_audio = vec![13, 63];
    let mut world = World::new();
    let player = world.rtmp_play("live/a");
    world.run_ms(10);
    let browser = world.whip_as("live/a", config, &[]).expect("accepted");
    world.run_ms(1_000);
    for n in 0..200_u32 {
        let now = world.now;
        let pt = [13, 63][n as usize % 2];
        let peer = &mut world.browser_mut(browser).browser;
        peer.write_other(now, pt, vec![n as u8; 1 + n as usize % 40].into(), n * 80);
        world.run_ms(20);
    }
    world.run_ms(1_000);
    let audio = coded(world.rtmp_peer(player), AUDIO);
    let steps = audio.windows(2).map(|pair| pair[1].1 - pair[0].1);
    assert!(steps.clone().all(|step| (21..=22).contains(&step)));
    let made_up = world.metric("rtmp_gateway_transcode_concealed_seconds_total");
    assert_eq!(made_up, 0.0);
    assert_eq!(world.metric("rtmp_gateway_transcode_errors_total"), 0.0);
    // None came later for one that was missing.
    let pauses = audio.windows(2).map(|pair| pair[1].0 - pair[0].0);
    assert!(pauses.max().unwrap() <= Duration::from_millis(41));
    // 6 s of sound, less what AAC holds back.
    let length = audio.len() as f64 * 1_024.0 / 48.0;
    assert!((5_900.0..=6_010.0).contains(&length), "{length} ms");
}

/// A publisher that changes its sound's rate goes on being heard.
#[test]
fn a_new_audio_configuration_in_mid_stream_goes_on() {
    let clip = Clip::load();
    let other = AudioSpecificConfig::lc(32_000, 1).expect("a configuration");
    let mut header = vec![0xaf, 0];
    header.extend_from_slice(other.bytes());
    let header = Tag {
        type_id: AUDIO,
        timestamp: 0,
        payload: header.into(),
    };
    let silence = rtmp_gateway::codec::aac::silent_frame(1);
    let mut body = vec![0xaf, 1];
    body.extend_from_slice(&silence);
    let frame = Tag {
        type_id: AUDIO,
        timestamp: 0,
        payload: body.into(),
    };
    let mut feed = clip.feed();
    let first = clip.feed().until(3_000).frames;
    let video = clip
        .feed()
        .only(VIDEO)
        .until(10_000)
        .frames
        .skip_while(|(time, _)| *time < 3_000);
    let sound = (0..200_u64).map(move |n| (3_000 + n * 32, frame.clone()));
    let mut second: Vec<(u64, Tag)> = video.chain(sound).collect();
    second.sort_by_key(|(time, _)| *time);
    feed.frames = Box::new(first.chain([(3_000, header)]).chain(second));
    let mut world = World::new();
    world.rtmp_publish_feed("live/a", feed);
    world.run_ms(500);
    let viewer = world.whep("live/a").expect("accepted");
    let player = world.rtmp_play("live/a");
    world.run_ms(6_000);
    let all = sounds(world.browser(viewer));
    assert!(
        all.windows(2)
            .all(|pair| pair[1].rtp_time - pair[0].rtp_time == 960)
    );
    assert!(all.len() > 280, "{}", all.len());
    let headers = crate::common::world::media(world.rtmp_peer(player), AUDIO);
    let headers: Vec<_> = headers.iter().filter(|(_, _, body)| body[1] == 0).collect();
    assert_eq!(headers.len(), 2, "the new header before the new sound");
}

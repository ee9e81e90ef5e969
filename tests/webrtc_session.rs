//! A gateway session and a real WebRTC peer, in memory: they connect, media flows both ways,
//! losses are mended and clocks are right.

#[path = "common/browser.rs"]
mod browser;
#[path = "webrtc/link.rs"]
mod link;

use std::time::{Duration, Instant, SystemTime};

use browser::{BrowserConfig, Does, Kind, Seen, Sent};
use link::{
    FRAME, Flight, Link, engine_with, is_media, number_of, payload, play, publish, received_rtp,
    seen_rtp,
};
use rtmp_gateway::media::TrackKind;
use rtmp_gateway::webrtc::{CloseReason, EngineConfig, Event, Session, StreamStart, Transport};

// ---- Viewers ----

#[test]
fn a_viewer_gets_video_and_audio_in_order() {
    let mut link = Link::connected(BrowserConfig::new(Does::View));
    assert!(link.session.ready_video() && link.session.ready_audio());
    play(&mut link, 2, 3);
    link.run_for(Duration::from_millis(100));
    let video = seen_rtp(&link, Kind::Video);
    assert_eq!(video.len(), 150);
    for (index, (sequence, _, marker, number)) in video.iter().enumerate() {
        assert_eq!(*sequence, video[0].0 + index as u64);
        assert_eq!(*number, index as u32);
        assert_eq!(*marker, index % 3 == 2);
    }
    assert_eq!(seen_rtp(&link, Kind::Audio).len(), 100);
    let stats = link.session.stats();
    assert_eq!(stats.selected.unwrap().transport, Transport::Udp);
    assert!(
        stats
            .rtt()
            .is_some_and(|rtt| rtt < Duration::from_millis(60))
    );
}

#[test]
fn it_connects_quickly() {
    let mut link = Link::new(BrowserConfig::new(Does::View));
    link.run_for(Duration::from_millis(400));
    let (at, _) = link
        .events
        .iter()
        .find(|(_, event)| *event == Event::Connected)
        .expect("connected");
    // One round trip for ICE, two for DTLS 1.2, and the browser's own pacing of checks.
    assert!(
        *at - link.start < Duration::from_millis(200),
        "{:?}",
        *at - link.start
    );
}

#[test]
fn a_lost_dtls_flight_costs_a_quarter_second() {
    let mut link = Link::new(BrowserConfig::new(Does::View));
    let mut lost = 0;
    link.is_lost = Box::new(move |flight| {
        let Flight::ToBrowser(datagram) = flight else {
            return false;
        };
        let is_dtls = matches!(datagram.contents.first(), Some(20..=63));
        lost += usize::from(is_dtls);
        is_dtls && lost == 1
    });
    link.connect();
    let (at, _) = &link.events[0];
    assert!(
        *at - link.start < Duration::from_millis(500),
        "{:?}",
        *at - link.start
    );
}

/// Case 39, towards a viewer.
#[test]
fn case_39_sequence_numbers_and_times_wrap_in_mid_stream() {
    let engine = engine_with(EngineConfig::default());
    let mut link = Link::with(BrowserConfig::new(Does::View), &engine, |session| {
        for kind in [TrackKind::Video, TrackKind::Audio] {
            session.set_stream_start(
                kind,
                StreamStart {
                    sequence: 32_767,
                    rtp_time: u32::MAX - 100_000,
                },
            );
        }
    });
    link.connect();
    // 40,000 packets pass both 32,768 and 65,536.
    play(&mut link, 40, 40);
    link.run_for(Duration::from_millis(100));
    let video = seen_rtp(&link, Kind::Video);
    assert_eq!(video.len(), 40_000);
    assert_eq!(video[0].0, 32_767);
    assert!(video.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1));
    // The browser extends the time on its own; it must go on past the wrap.
    assert!(video.windows(2).all(|pair| pair[1].1 >= pair[0].1));
    assert!(video.last().unwrap().1 > 1 << 32);
    assert_reports_fit(&link);
}

#[test]
fn lost_packets_are_sent_again() {
    let mut link = Link::connected(BrowserConfig::new(Does::View));
    let mut count = 0;
    link.is_lost = Box::new(move |flight| {
        let Flight::ToBrowser(datagram) = flight else {
            return false;
        };
        count += usize::from(is_media(&datagram.contents) && datagram.contents.len() > 500);
        is_media(&datagram.contents) && datagram.contents.len() > 500 && count % 20 == 0
    });
    play(&mut link, 4, 3);
    link.is_lost = Box::new(|_| false);
    link.run_for(Duration::from_secs(1));
    let mut numbers: Vec<u32> = seen_rtp(&link, Kind::Video)
        .iter()
        .map(|(.., number)| *number)
        .collect();
    numbers.sort_unstable();
    // Nothing mends the very last packet, which no later one shows to be missing.
    assert!(numbers.len() >= 299, "{} of 300", numbers.len());
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1));
    assert!(link.session.stats().video.nacks > 0);
}

#[test]
fn a_viewer_without_rtx_gets_no_repetitions_and_is_not_told_of_nack() {
    let mut config = BrowserConfig::new(Does::View);
    config.rtx = false;
    let mut link = Link::connected(config);
    assert!(!link.answer.contains("rtx"));
    assert!(!link.answer.contains(" nack\r\n"));
    assert!(link.answer.contains(" nack pli\r\n"));
    play(&mut link, 1, 3);
    link.run_for(Duration::from_millis(100));
    assert_eq!(seen_rtp(&link, Kind::Video).len(), 75);
}

#[test]
fn a_pli_is_an_event() {
    let mut link = Link::connected(BrowserConfig::new(Does::View));
    play(&mut link, 1, 1);
    link.browser.request_keyframe(link.now);
    link.run_for(Duration::from_millis(100));
    let requests = link
        .events
        .iter()
        .filter(|(_, event)| *event == Event::KeyframeRequested)
        .count();
    assert_eq!(requests, 1);
    assert_eq!(link.session.stats().video.plis, 1);
}

/// All sender reports of a link whose media was captured when it was written, both clocks
/// beginning at `link.start`: each says the same origin, within 20 ms.
fn assert_reports_fit(link: &Link) {
    let mut origins = Vec::new();
    for (_, seen) in &link.seen {
        let Seen::SenderReport {
            kind,
            ntp,
            rtp_time,
            ..
        } = seen
        else {
            continue;
        };
        let (rate, first) = match kind {
            Kind::Video => (90_000.0, seen_rtp(link, Kind::Video)[0].1),
            Kind::Audio => (48_000.0, seen_rtp(link, Kind::Audio)[0].1),
        };
        let since_first = f64::from(rtp_time.wrapping_sub(first as u32) as i32) / rate;
        let ntp = ntp
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs_f64();
        origins.push((*kind, ntp - since_first));
    }
    for kind in [Kind::Video, Kind::Audio] {
        assert!(origins.iter().any(|(k, _)| *k == kind), "{kind:?}");
    }
    for (kind, origin) in &origins {
        assert!(
            (origin - origins[0].1).abs() < 0.020,
            "{kind:?}: {origin} against {}",
            origins[0].1
        );
    }
}

#[test]
fn sender_reports_put_picture_and_sound_on_one_clock() {
    let mut link = Link::connected(BrowserConfig::new(Does::View));
    // The publisher is late: three seconds without media, then it begins.
    link.run_for(Duration::from_secs(3));
    let reports = |link: &Link| {
        link.seen
            .iter()
            .filter(|(_, seen)| matches!(seen, Seen::SenderReport { .. }))
            .count()
    };
    assert_eq!(
        reports(&link),
        0,
        "no report before media: it would be wrong"
    );
    let began = link.now;
    play(&mut link, 5, 2);
    assert!(reports(&link) >= 8);
    let (first, _) = link
        .seen
        .iter()
        .find(|(_, seen)| matches!(seen, Seen::SenderReport { .. }))
        .unwrap();
    assert!(*first - began < Duration::from_secs(1));
    assert_reports_fit(&link);
}

/// A browser draws a line through the first two reports of a track: a tick of rounding between
/// close ones would tilt it by hundreds of milliseconds a second.
#[test]
fn case_37_reports_of_a_track_keep_their_distance() {
    let gaps = [0, 20, 100, 1_000, 30_000, 300_000, 700_000, 990_000];
    for gap in gaps.map(Duration::from_micros) {
        let mut link = Link::connected(BrowserConfig::new(Does::View));
        let since = |at: Instant, rate_khz| (at - link.start).as_micros() as u64 * rate_khz / 1_000;
        let now = link.now;
        let time = since(now, 48);
        assert!(link.session.write_audio(now, &payload(0, 160), time, now));
        link.session.flush(now);
        let begun = now + gap;
        let time = since(begun, 90);
        link.run_for(gap);
        let picture = [payload(0, 160)];
        assert!(link.session.write_video(begun, &picture, time, begun, true));
        link.session.flush(begun);
        link.run_for(Duration::from_millis(1));
        play(&mut link, 4, 1);
        for kind in [Kind::Video, Kind::Audio] {
            let told: Vec<Instant> = link
                .seen
                .iter()
                .filter(
                    |(_, seen)| matches!(seen, Seen::SenderReport { kind: k, .. } if *k == kind),
                )
                .map(|(at, _)| *at)
                .collect();
            let first = if kind == Kind::Video { begun } else { now };
            assert_eq!(told[0], first + link.latency, "{kind:?} {gap:?}");
            for pair in told.windows(2) {
                let apart = pair[1] - pair[0];
                let range = Duration::from_millis(500)..=Duration::from_millis(1_550);
                assert!(range.contains(&apart), "{kind:?} {gap:?} {apart:?}");
            }
        }
    }
}

#[test]
fn a_capture_time_in_the_future_does_not_spoil_the_reports() {
    let mut link = Link::connected(BrowserConfig::new(Does::View));
    for frame in 0..75_u32 {
        let now = link.now;
        let time = (now - link.start).as_micros() as u64;
        let future = now + Duration::from_millis(300);
        link.session
            .write_video(now, &[payload(frame, 500)], time * 90 / 1_000, future, true);
        link.session
            .write_audio(now, &payload(frame, 100), time * 48 / 1_000, future);
        link.session.flush(now);
        link.run_for(FRAME);
    }
    assert_reports_fit(&link);
}

#[test]
fn nothing_is_taken_before_the_connection_or_from_a_publisher() {
    let mut link = Link::new(BrowserConfig::new(Does::View));
    let (now, sound) = (link.now, payload(1, 100));
    assert!(!link.session.write_audio(now, &sound, 0, now));
    link.connect();
    let now = link.now;
    assert!(!link.session.write_video(now, &[], 0, now, true));
    let mut link = Link::connected(BrowserConfig::new(Does::Publish));
    let now = link.now;
    assert!(!link.session.ready_video() && !link.session.write_audio(now, &sound, 0, now));
}

#[test]
fn a_video_only_viewer_is_served() {
    let mut config = BrowserConfig::new(Does::View);
    config.opus = None;
    let mut link = Link::connected(config);
    assert!(link.session.ready_video() && !link.session.ready_audio());
    let now = link.now;
    assert!(!link.session.write_audio(now, &payload(0, 10), 0, now));
}

#[test]
fn a_viewers_data_channel_is_refused_and_does_no_harm() {
    let mut config = BrowserConfig::new(Does::View);
    config.data_channel = true;
    let mut link = Link::connected(config);
    play(&mut link, 1, 2);
    assert_eq!(seen_rtp(&link, Kind::Video).len(), 50);
    assert!(link.answer.contains("m=application 0 "), "{}", link.answer);
}

#[test]
fn both_tracks_are_in_one_stream() {
    let link = Link::new(BrowserConfig::new(Does::View));
    let streams: Vec<&str> = link
        .answer
        .lines()
        .filter_map(|line| line.strip_prefix("a=msid:"))
        .filter_map(|value| value.split(' ').next())
        .collect();
    assert_eq!(streams, ["gateway", "gateway"]);
}

// ---- Publishers ----

#[test]
fn a_publisher_is_heard() {
    let mut link = Link::connected(BrowserConfig::new(Does::Publish));
    publish(&mut link, 50);
    link.run_for(Duration::from_millis(100));
    let video = received_rtp(&link, TrackKind::Video);
    assert_eq!(video.len(), 150);
    for (index, rtp) in video.iter().enumerate() {
        assert_eq!(number_of(&rtp.payload), index as u32);
        assert_eq!(rtp.marker, index % 3 == 2);
        assert_eq!(rtp.sequence, video[0].sequence + index as u64);
        assert_eq!(rtp.rtp_time, (index / 3) as u64 * 3_600);
    }
    assert_eq!(received_rtp(&link, TrackKind::Audio).len(), 50);
    let reports: Vec<_> = link
        .events
        .iter()
        .filter(|(_, event)| matches!(event, Event::SenderReport { .. }))
        .collect();
    assert!(reports.len() >= 2);
    assert_eq!(link.session.stats().video.packets, 150);
    // Feedback for the browser's bandwidth estimate: RTCP leaves in small pieces.
    assert!(link.answer.contains("transport-cc"));
}

#[test]
fn a_publisher_is_asked_for_a_keyframe() {
    let mut link = Link::connected(BrowserConfig::new(Does::Publish));
    publish(&mut link, 5);
    assert!(link.session.request_keyframe(link.now));
    link.run_for(Duration::from_millis(100));
    let asked = |link: &Link| {
        link.seen
            .iter()
            .filter(|(_, seen)| matches!(seen, Seen::KeyframeRequested))
            .count()
    };
    assert_eq!(asked(&link), 1);
}

#[test]
fn a_publisher_resends_what_was_lost() {
    let mut link = Link::connected(BrowserConfig::new(Does::Publish));
    let mut count = 0;
    link.is_lost = Box::new(move |flight| {
        let Flight::ToServer(sent) = flight else {
            return false;
        };
        let is_video = is_media(&sent.contents) && sent.contents.len() > 500;
        count += usize::from(is_video);
        is_video && count % 25 == 0
    });
    publish(&mut link, 100);
    link.is_lost = Box::new(|_| false);
    link.run_for(Duration::from_secs(1));
    let mut sequences: Vec<u64> = received_rtp(&link, TrackKind::Video)
        .iter()
        .map(|rtp| rtp.sequence)
        .collect();
    sequences.sort_unstable();
    sequences.dedup();
    assert!(sequences.len() >= 299, "{} of 300", sequences.len());
}

#[test]
fn a_repetition_without_rtx_is_asked_for_and_taken_once() {
    // OBS answers a NACK with the packet itself.
    let mut config = BrowserConfig::new(Does::Publish);
    config.rtx = false;
    let mut link = Link::connected(config);
    assert!(link.answer.contains(" nack\r\n"));
    let kept = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let keep = std::rc::Rc::clone(&kept);
    let mut count = 0;
    link.is_lost = Box::new(move |flight| {
        let Flight::ToServer(sent) = flight else {
            return false;
        };
        let is_video = is_media(&sent.contents) && sent.contents.len() > 500;
        count += usize::from(is_video);
        let is_kept = is_video && count == 10;
        if is_kept {
            keep.borrow_mut().push(sent.clone());
        }
        is_kept
    });
    publish(&mut link, 5);
    assert_eq!(received_rtp(&link, TrackKind::Video).len(), 14);
    let late: Sent = kept.borrow()[0].clone();
    link.inject(late.clone());
    link.inject(late);
    link.run_for(Duration::from_millis(50));
    let numbers: Vec<u32> = received_rtp(&link, TrackKind::Video)
        .iter()
        .map(|rtp| number_of(&rtp.payload))
        .collect();
    assert_eq!(numbers.iter().filter(|number| **number == 9).count(), 1);
    link.run_for(Duration::from_secs(2));
    assert!(link.session.stats().video.nacks > 0);
}

#[test]
fn a_publisher_without_mid_and_ssrc_lines_is_recognised_by_payload_type() {
    let mut config = BrowserConfig::new(Does::Publish);
    config.extensions = false;
    let now = Instant::now();
    let mut browser = browser::Browser::new(config.clone(), now);
    let offer: String = browser
        .offer()
        .lines()
        .filter(|line| !line.starts_with("a=ssrc"))
        .map(|line| format!("{line}\r\n"))
        .collect();
    assert!(!offer.contains("a=extmap:"));
    let (session, answer) = Session::answer(
        &link::engine(),
        link::params(rtmp_gateway::webrtc::Role::Publisher),
        &offer,
        now,
    )
    .unwrap();
    browser.accept_answer(&answer);
    let mut link = Link::new(config);
    link.session = session;
    link.browser = browser;
    link.now = now;
    link.connect();
    publish(&mut link, 50);
    link.run_for(Duration::from_millis(100));
    assert_eq!(received_rtp(&link, TrackKind::Video).len(), 150);
    assert_eq!(received_rtp(&link, TrackKind::Audio).len(), 50);
}

#[test]
fn an_offer_with_setup_passive_makes_us_the_dtls_client() {
    let mut config = BrowserConfig::new(Does::Publish);
    config.setup_passive = true;
    config.extensions = false;
    let mut link = Link::connected(config);
    assert!(link.answer.contains("a=setup:active"));
    publish(&mut link, 10);
    link.run_for(Duration::from_millis(100));
    assert_eq!(received_rtp(&link, TrackKind::Video).len(), 30);
}

// ---- Who they are ----

/// The session's end, which came before anything was connected.
fn failure(link: &Link) -> String {
    let mut events = link.events.iter().map(|(_, event)| event);
    match events.next() {
        Some(Event::Closed(CloseReason::Error(error))) => error.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_certificate_that_is_not_the_offers_gets_nothing() {
    for does in [Does::View, Does::Publish] {
        for setup_passive in [false, true] {
            let mut config = BrowserConfig::new(does);
            config.setup_passive = setup_passive;
            let mut link =
                Link::with_offer(config, &engine_with(EngineConfig::default()), |offer| {
                    let mine = browser::attribute(offer, "fingerprint").unwrap();
                    let other = mine.replace('A', "B").replace('1', "2").replace('C', "D");
                    offer.replace(&mine, &other)
                });
            link.run_for(Duration::from_secs(2));
            let error = failure(&link);
            assert!(
                error.to_lowercase().contains("certificate") || error.contains("ingerprint"),
                "{error}"
            );
            assert!(!link.session.ready_video() && !link.session.is_connected());
            assert!(!link.sent.iter().any(|(_, sent)| is_media(&sent.contents)));
        }
    }
}

#[test]
fn a_certificate_of_any_length_ends_its_own_session_at_most() {
    for does in [Does::View, Does::Publish] {
        for setup_passive in [false, true] {
            for length in [1, 1_990, 2_100, 8_000] {
                let mut config = BrowserConfig::new(does);
                config.setup_passive = setup_passive;
                config.certificate = Some(vec![0x30; length]);
                let mut link = Link::new(config);
                link.run_for(Duration::from_secs(20));
                assert!(!link.session.is_connected());
                assert!(
                    matches!(
                        link.events.as_slice(),
                        [(
                            _,
                            Event::Closed(CloseReason::Error(_) | CloseReason::HandshakeTimeout)
                        )]
                    ),
                    "{:?}",
                    link.events
                );
            }
        }
    }
}

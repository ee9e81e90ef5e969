use super::*;
use crate::access::Holder;
use crate::codec::aac::AudioSpecificConfig;
use crate::ids::{ConnId, SessionId};
use crate::media::TrackConfig;

const LIMITS: Limits = Limits {
    streams_max: 3,
    takeover_silence: Duration::from_secs(3),
    publisher_grace: Duration::from_secs(10),
    ring: RingLimits {
        gop_duration: Duration::from_secs(10),
        gop_bytes: 1 << 20,
        gop_frames: 600,
        queue_duration: Duration::from_secs(2),
        queue_bytes: 1 << 20,
    },
};

fn peer(n: u64) -> PeerId {
    PeerId::Rtmp {
        conn: ConnId(n),
        message_stream: 1,
    }
}

fn publisher(n: u64, token: Option<&str>, since: Instant) -> Publisher {
    Publisher {
        peer: peer(n),
        user: None,
        holder: Holder::new(token, None),
        protocol: "rtmp",
        client: String::new(),
        since,
        last_media: since,
    }
}

fn both() -> Announced {
    Announced {
        video: true,
        audio: true,
    }
}

#[test]
fn a_second_publisher_is_refused_while_the_first_is_live() {
    let start = Instant::now();
    let mut hub = Hub::new(LIMITS);
    hub.claim("live/a", publisher(1, None, start), both())
        .expect("free");
    let soon = start + Duration::from_secs(2);
    assert_eq!(
        hub.claim("live/a", publisher(2, None, soon), both()).err(),
        Some(ClaimError::Busy)
    );
    assert_eq!(
        hub.claim("live/a", publisher(2, Some("x"), soon), both())
            .err(),
        Some(ClaimError::Busy)
    );
}

#[test]
fn the_same_token_takes_over_at_once() {
    let start = Instant::now();
    let mut hub = Hub::new(LIMITS);
    let (id, _) = hub
        .claim("live/a", publisher(1, Some("x"), start), both())
        .expect("free");
    let (again, displaced) = hub
        .claim("live/a", publisher(2, Some("x"), start), both())
        .expect("same token");
    assert_eq!((again, displaced), (id, Some(peer(1))));
    assert!(
        !hub.unpublish(id, peer(1), start),
        "the displaced one ends nothing"
    );
}

#[test]
fn a_silent_publisher_is_taken_over_by_anybody() {
    let start = Instant::now();
    let mut hub = Hub::new(LIMITS);
    hub.claim("live/a", publisher(1, None, start), both())
        .expect("free");
    let later = start + Duration::from_secs(3);
    let (_, displaced) = hub
        .claim("live/a", publisher(2, None, later), both())
        .expect("silent");
    assert_eq!(displaced, Some(peer(1)));
}

#[test]
fn players_keep_a_stream_for_the_grace_time() {
    let start = Instant::now();
    let mut hub = Hub::new(LIMITS);
    let (id, _) = hub
        .claim("live/a", publisher(1, None, start), both())
        .expect("free");
    let viewer = PeerId::Webrtc(SessionId(9));
    hub.get_mut(id).expect("open").add_player(viewer);
    assert!(hub.unpublish(id, peer(1), start));
    assert!(hub.reap(id, start + Duration::from_secs(9)).is_none());
    let ended = hub
        .reap(id, start + Duration::from_secs(10))
        .expect("hopeless");
    assert_eq!(ended.players().collect::<Vec<_>>(), [viewer]);
    assert_eq!(hub.find("live/a"), None);
}

#[test]
fn a_stream_without_players_goes_with_its_publisher() {
    let start = Instant::now();
    let mut hub = Hub::new(LIMITS);
    let (id, _) = hub
        .claim("live/a", publisher(1, None, start), both())
        .expect("free");
    hub.unpublish(id, peer(1), start);
    assert!(hub.reap(id, start).is_some());
    assert!(hub.is_empty());
}

#[test]
fn a_waiting_player_keeps_a_stream_that_never_was_published() {
    let start = Instant::now();
    let mut hub = Hub::new(LIMITS);
    let id = hub.open("live/a").expect("room");
    hub.get_mut(id).expect("open").add_player(peer(5));
    assert!(hub.reap(id, start + Duration::from_secs(3_600)).is_none());
    hub.get_mut(id).expect("open").remove_player(peer(5));
    assert!(hub.reap(id, start).is_some());
}

#[test]
fn streams_are_bounded() {
    let mut hub = Hub::new(LIMITS);
    for key in ["a/1", "a/2", "a/3"] {
        hub.open(key).expect("room");
    }
    assert_eq!(hub.open("a/4"), Err(ClaimError::TooManyStreams));
    assert!(hub.open("a/1").is_ok());
}

#[test]
fn streams_that_are_waited_for_leave_publishers_their_room() {
    let start = Instant::now();
    let mut hub = Hub::new(LIMITS);
    for key in ["w/1", "w/2", "w/3"] {
        hub.open(key).expect("room to wait");
    }
    for (conn, key) in [(1, "p/1"), (2, "w/1"), (3, "p/3")] {
        hub.claim(key, publisher(conn, None, start), both())
            .expect("room to publish");
    }
    for key in ["p/4", "w/2"] {
        let refused = hub.claim(key, publisher(4, None, start), both());
        assert_eq!(
            refused.map(|_| ()),
            Err(ClaimError::TooManyStreams),
            "{key}"
        );
    }
    hub.open("w/4").expect("the room of w/1");
    assert!(hub.open("w/5").is_err());
    for key in ["w/2", "w/3", "w/4"] {
        let id = hub.find(key).expect("it waits");
        hub.reap(id, start).expect("nobody waits");
    }
    for key in ["w/5", "w/6", "w/7"] {
        hub.open(key).expect("room again");
    }
}

fn aac() -> TrackConfig {
    TrackConfig::Aac(AudioSpecificConfig::lc(48_000, 2).expect("in range"))
}

#[test]
fn a_new_publisher_begins_without_tracks_and_keeps_what_is_the_same() {
    let start = Instant::now();
    let mut hub = Hub::new(LIMITS);
    let (id, _) = hub
        .claim("live/a", publisher(1, Some("x"), start), both())
        .expect("free");
    let stream = hub.get_mut(id).expect("open");
    let sound = stream.configure(aac());
    let opus = stream.configure_transcoded(TrackConfig::Opus { channels: 2 });
    let revision = stream.revision();
    hub.claim(
        "live/a",
        publisher(2, Some("x"), start),
        Announced::default(),
    )
    .expect("same token");
    let stream = hub.get_mut(id).expect("open");
    assert!(stream.audio.is_none() && stream.transcoded.is_none());
    assert_eq!(stream.transcode_target(), None);
    assert_ne!(stream.revision(), revision);
    assert!(Arc::ptr_eq(&sound, &stream.configure(aac())));
    assert!(Arc::ptr_eq(
        &opus,
        &stream.configure_transcoded(TrackConfig::Opus { channels: 2 })
    ));
    let revision = stream.revision();
    stream.configure(aac());
    assert_eq!(stream.revision(), revision, "nothing changed");
}

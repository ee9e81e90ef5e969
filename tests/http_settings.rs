//! What the operator says in `[http]` about origins and addresses is what clients get.

mod common;

use common::world::{HttpAnswer, World};
use rtmp_gateway::config::Config;

fn world(change: impl FnOnce(&mut Config)) -> World {
    let mut config = Config::default();
    change(&mut config);
    World::with_config(config)
}

/// A preflight, a read and a refusal: all of them are for pages of other origins.
fn answers(world: &mut World) -> [HttpAnswer; 3] {
    [
        world.http("OPTIONS", "/whep/live/a", &[], ""),
        world.http("GET", "/api/v1/streams", &[], ""),
        world.http(
            "POST",
            "/whep/live/a",
            &[("Content-Type", "text/plain")],
            "x",
        ),
    ]
}

#[test]
fn any_origin_may_read_by_default() {
    for answer in answers(&mut World::new()) {
        assert_eq!(
            answer.header("access-control-allow-origin"),
            Some("*"),
            "{}",
            answer.head
        );
    }
}

#[test]
fn only_the_named_origin_may_read() {
    let mut world = world(|config| config.http.cors_allow_origin = "https://a.example".into());
    for answer in answers(&mut world) {
        let origin = answer.header("access-control-allow-origin");
        assert_eq!(origin, Some("https://a.example"), "{}", answer.head);
    }
}

#[test]
fn without_an_origin_no_cors_fields_are_sent() {
    let mut world = world(|config| config.http.cors_allow_origin = String::new());
    for answer in answers(&mut world) {
        let head = answer.head.to_ascii_lowercase();
        assert!(!head.contains("access-control-"), "{head}");
    }
}

#[test]
fn sessions_are_under_the_public_url() {
    for (public_url, start) in [
        ("", "/session/"),
        (
            "https://gateway.example",
            "https://gateway.example/session/",
        ),
        ("https://example.org/gw", "https://example.org/gw/session/"),
    ] {
        let mut world = world(|config| config.http.public_url = public_url.into());
        let offer = include_str!("fixtures/offers/chromium-156-sendonly.sdp");
        let answer = world.http(
            "POST",
            "/whip/live/a",
            &[("Content-Type", "application/sdp")],
            offer,
        );
        assert_eq!(answer.status, 201, "{}", answer.body);
        let location = answer.header("location").expect("a session URL");
        assert!(location.starts_with(start), "{location}");
    }
}

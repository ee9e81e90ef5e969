//! Holds the README to the code: what it names is there, and what it promises in numbers is
//! what the program does by default.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use common::world::World;
use rtmp_gateway::config::Config;

const README: &str = include_str!("../README.md");
const MAIN: &str = include_str!("../src/main.rs");

/// What may stand at the top of the repository, beside files with a leading dot.
const TOP_LEVEL: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "gateway.toml",
    "src",
    "tests",
    "tools",
];

/// Parts of log lines that the README quotes, and where they come from.
const LOG_LINES: &[(&str, &str)] = &[
    (
        "left live/x after 12.0 s and never connected",
        "s and never connected",
    ),
    ("(the peer fell silent)", "the peer fell silent"),
    (
        "may not publish live/x: the stream is being published",
        "the stream is being published",
    ),
    (
        "is not supported: publish H.264 video and AAC audio",
        "is not supported: publish H.264",
    ),
    ("the video has B-frames", "the video has B-frames"),
];

#[test]
fn files_it_names_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut named = BTreeSet::new();
    for part in README.split("](").skip(1) {
        let target = part.split(')').next().unwrap_or_default();
        if !target.contains("://") && !target.starts_with('#') {
            named.insert(target);
        }
    }
    for word in README.split(|c: char| !(c.is_alphanumeric() || "/._-".contains(c))) {
        let word = word.trim_end_matches('.');
        if ["tools/", "tests/", "src/"]
            .iter()
            .any(|folder| word.starts_with(folder))
        {
            named.insert(word);
        }
    }
    assert!(named.len() > 10, "{named:?}");
    for path in named {
        assert!(root.join(path).exists(), "{path} is not there");
    }
}

#[test]
fn sections_it_links_to_are_there() {
    let anchor = |heading: &str| -> String {
        let lower = heading.trim_start_matches(['#', ' ']).to_lowercase();
        let kept = lower
            .chars()
            .filter(|c| c.is_alphanumeric() || " -".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    let headings = README.lines().filter(|line| line.starts_with('#'));
    let anchors: BTreeSet<String> = headings.map(anchor).collect();
    for part in README.split("](#").skip(1) {
        let target = part.split(')').next().unwrap_or_default();
        assert!(anchors.contains(target), "#{target} is not in {anchors:?}");
    }
}

#[test]
fn options_it_names_are_known() {
    let mut found = 0;
    for start in ["tools/run --", "rtmp-gateway --"] {
        for part in README.split(start).skip(1) {
            let option = part
                .split(|c: char| !c.is_alphanumeric())
                .next()
                .unwrap_or_default();
            assert!(MAIN.contains(&format!("(\"--{option}\"")), "--{option}");
            found += 1;
        }
    }
    assert!(found >= 2);
}

#[test]
fn ports_and_times_are_the_defaults() {
    let config = Config::default();
    let [rtmp, http, media] =
        [config.rtmp.listen, config.http.listen, config.webrtc.listen].map(|at| at.port());
    for host in ["http://HOST:", "http://localhost:", " localhost:"] {
        let uses: Vec<&str> = README.split(host).skip(1).collect();
        assert!(!uses.is_empty(), "{host}");
        for rest in uses {
            let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
            assert_eq!(
                port,
                http.to_string(),
                "{host}{}",
                &rest[..rest.len().min(30)]
            );
        }
    }
    // An RTMP URL without a port means this one.
    assert_eq!(rtmp, 1935);
    for text in [
        format!(
            "{rtmp} TCP (RTMP), {http} TCP (page, WHIP, WHEP), {media} UDP **and** TCP (media)"
        ),
        format!("-p {rtmp}:{rtmp} -p {http}:{http} -p {media}:{media}/udp -p {media}:{media}/tcp"),
        format!("RTMP, port {rtmp}"),
        format!("WHIP, port {http}"),
        format!("UDP and TCP port {media}"),
        format!(
            "sent nothing for {} s",
            config.streams.publisher_takeover_silence.as_secs()
        ),
        format!(
            "keeps its players for {} s",
            config.streams.publisher_grace.as_secs()
        ),
        format!("held for {} s", config.rtmp.play_wait.as_secs()),
        format!("ends within {} s", config.sockets.close_linger.as_secs()),
    ] {
        assert!(README.contains(&text), "not in the README: {text}");
    }
}

#[test]
fn configuration_keys_it_names_exist() {
    let keys = Config::default().keys();
    let sections: BTreeSet<&str> = keys.iter().map(|key| key.section).collect();
    let mut found = 0;
    // What stands in a fence is a program, and no key.
    let spans = README.split('`').skip(1).step_by(2);
    for word in spans.filter(|span| span.matches('\n').count() < 2) {
        if let Some((section, name)) = word.split_once('.')
            && sections.contains(section)
        {
            let known = keys
                .iter()
                .any(|key| key.section == section && key.name == name);
            assert!(known, "{word} is no key");
            found += 1;
        }
        // `name = value`, with or without its section beside it.
        if let Some((name, _)) = word.split_once(" = ") {
            assert!(
                keys.iter().any(|key| key.name == name),
                "{word}: no such key"
            );
            found += 1;
        }
    }
    assert!(found >= 5, "{found}");
}

#[test]
fn metrics_are_listed_completely() {
    let mut world = World::new();
    world.rtmp_publish("live/a");
    world.run_ms(2_500);
    world.whep("live/a").expect("a viewer");
    world.run_ms(1_000);
    // An error, for the family that is otherwise empty.
    world.whep("live/absent").expect_err("nobody publishes it");
    let page = world.http("GET", "/metrics", &[], "").body;
    let shown: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    let listed: BTreeSet<&str> = README
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| word.starts_with("rtmp_gateway_"))
        .collect();
    assert_eq!(listed, shown);
    for name in &shown {
        assert!(
            page.lines().any(|line| line.starts_with(name)),
            "{name} has no sample: the test's world does not reach it"
        );
    }
}

#[test]
fn urls_answer_and_the_example_has_the_fields_of_the_api() {
    let mut world = World::new();
    world.rtmp_publish("live/demo");
    world.run_ms(1_000);
    world.whep("live/demo").expect("a viewer");
    world.run_ms(1_000);
    for path in [
        "/",
        "/?play=live/demo",
        "/api/v1/streams",
        "/metrics",
        "/healthz",
    ] {
        assert!(README.contains(path), "{path}");
        assert_eq!(world.http("GET", path, &[], "").status, 200, "{path}");
    }
    let answer = world.http("GET", "/api/v1/streams/live/demo", &[], "");
    assert_eq!(answer.status, 200);
    let example = README
        .split("```console")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let example = example.expect("an example of the API");
    let mut found = 0;
    for part in example.split("\":").filter(|part| part.contains('"')) {
        let Some((_, field)) = part.rsplit_once('"') else {
            continue;
        };
        if field.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !field.is_empty() {
            assert!(
                answer.body.contains(&format!("\"{field}\":")),
                "{field}: {}",
                answer.body
            );
            found += 1;
        }
    }
    assert!(found > 25, "{found}");
}

#[test]
fn log_lines_it_quotes_are_written() {
    let mut source = String::new();
    read_all(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut source,
    );
    for (quoted, written) in LOG_LINES {
        assert!(
            README.contains(quoted),
            "the README does not quote {quoted:?}"
        );
        // Long texts are broken across source lines.
        assert!(source.contains(written), "no source writes {written:?}");
    }
}

#[test]
fn nothing_else_stands_at_the_top() {
    let root = env!("CARGO_MANIFEST_DIR");
    // Only what is kept in the repository: a player's recording may lie around.
    let Ok(listing) = Command::new("git").args(["-C", root, "ls-files"]).output() else {
        return;
    };
    let listing = String::from_utf8_lossy(&listing.stdout);
    for path in listing.lines() {
        let top = path.split('/').next().unwrap_or_default();
        assert!(
            top.starts_with('.') || TOP_LEVEL.contains(&top),
            "{top} is not expected there"
        );
    }
}

fn read_all(folder: &Path, into: &mut String) {
    for entry in fs::read_dir(folder).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            read_all(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&fs::read_to_string(&path).expect("a source"));
        }
    }
}

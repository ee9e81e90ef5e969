//! The shipped `gateway.toml` says what the program does: it holds every key there is, each
//! with its default, and above each stands what it means, its default and its unit.

use rtmp_gateway::config::{Config, Key};

const FILE: &str = include_str!("../gateway.toml");

#[test]
fn the_shipped_file_equals_the_defaults() {
    let config = Config::parse("gateway.toml", FILE).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config, Config::default());
}

#[test]
fn every_key_is_there_and_explained() {
    let mut complaints = Vec::new();
    for key in Config::default().keys() {
        if let Err(complaint) = check(&key) {
            complaints.push(format!("{}.{}: {complaint}", key.section, key.name));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn keys_stand_in_the_order_of_the_source() {
    let mut section = "";
    let mut found = Vec::new();
    for line in FILE.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some((name, _)) = line.split_once(" = ")
            && !line.starts_with('#')
        {
            found.push((section, name));
        }
    }
    let keys = Config::default().keys();
    let known: Vec<_> = keys.iter().map(|key| (key.section, key.name)).collect();
    assert_eq!(found, known);
}

/// Looks at the line of `key` and at the comment right above it.
fn check(key: &Key) -> Result<(), String> {
    let heading = format!("[{}]", key.section);
    let lines: Vec<&str> = FILE
        .lines()
        .skip_while(|line| *line != heading)
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .collect();
    let setting = format!("{} = {}", key.name, key.value);
    let Some(at) = lines.iter().position(|line| *line == setting) else {
        return Err(format!("no line \"{setting}\" under {heading}"));
    };
    let comment: Vec<&str> = lines[..at]
        .iter()
        .rev()
        .map_while(|line| line.strip_prefix("# "))
        .collect();
    if comment.len() < 2 {
        return Err("no explanation above it".into());
    }
    // A word has no unit.
    let expected = match unit(key.name).filter(|_| !key.value.starts_with('"')) {
        Some(unit) => format!("Default: {} {unit}.", key.value),
        None => format!("Default: {}.", key.value),
    };
    if comment[0] != expected {
        return Err(format!("\"{}\" is not \"# {expected}\"", comment[0]));
    }
    Ok(())
}

/// The unit that a key's name promises.
fn unit(name: &str) -> Option<&'static str> {
    let has = |part: &str| name.split('_').any(|word| word == part);
    if has("ms") {
        Some("milliseconds")
    } else if has("bytes") || name == "chunk_size" {
        Some("bytes")
    } else if has("bitrate") {
        Some("bit/s")
    } else if has("packets") {
        Some("packets")
    } else {
        None
    }
}

//! What command lines mean, and what is wrong with others.

use super::units::{bit_rate, duration, part};
use super::*;

fn parse(line: &[&str]) -> Result<Command, String> {
    Command::parse(line.iter().map(OsString::from))
}

fn plan(line: &[&str]) -> Plan {
    match parse(line).expect("good arguments") {
        Command::Run(plan) => *plan,
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_role_with_options() {
    let plan = plan(&[
        "play",
        "rtmp://h/live/s{n%10}",
        "--count",
        "1000",
        "--ramp=500/s",
        "--churn",
        "10/s",
        "--duration",
        "15s",
        "--max-p99",
        "50ms",
        "--loss",
        "2%",
        "--bitrate",
        "1.5M",
    ]);
    let [group] = &plan.groups[..] else {
        panic!("{plan:?}");
    };
    assert_eq!((group.role, group.count), (Role::Play, 1_000));
    assert_eq!(
        (group.ramp_per_second, group.churn_per_second),
        (500.0, 10.0)
    );
    assert_eq!(group.after, Duration::ZERO);
    assert_eq!(plan.duration, Duration::from_secs(15));
    assert_eq!(plan.bounds.p99, Some(Duration::from_millis(50)));
    assert_eq!(plan.impairment.loss, 0.02);
    assert_eq!(group.bit_rates, [1_500_000]);
    assert_eq!(group.url_of(27), "rtmp://h/live/s7");
}

#[test]
fn groups_have_keys_of_their_own() {
    let plan = plan(&[
        "mixed",
        "--ramp",
        "50",
        "--publish",
        "1@rtmp://h/live/s",
        "--play",
        "100@rtmp://h/live/s",
        "--whep",
        "400@http://h:8080/whep/live/s ramp=200/s after=5s",
    ]);
    let shape: Vec<_> = plan
        .groups
        .iter()
        .map(|g| {
            (
                g.role,
                g.count,
                g.ramp_per_second,
                g.after.as_secs(),
                g.late,
            )
        })
        .collect();
    assert_eq!(
        shape,
        [
            (Role::Publish, 1, 50.0, 0, false),
            (Role::Play, 100, 50.0, 1, false),
            (Role::Whep, 400, 200.0, 5, true),
        ]
    );
}

#[test]
fn publishers_take_turns_at_the_bit_rates() {
    let plan = plan(&[
        "mixed",
        "--publish",
        "4@rtmp://h/live/s{n} bitrate=500k,1M,2M",
        "--whip",
        "1@http://h/whip/w",
    ]);
    let rates = |group: usize| (0..4).map(move |n| plan.groups[group].bit_rate_of(n));
    let rates = [0, 1].map(|group| rates.clone()(group).collect::<Vec<_>>());
    let [k500, m1, m2] = [500_000, 1_000_000, 2_000_000].map(Some);
    assert_eq!(rates, [vec![k500, m1, m2, k500], vec![None; 4]]);
}

#[test]
fn numbers_are_put_into_urls() {
    let mut plan = plan(&["whep", "http://h/{n}/x{n}"]);
    assert_eq!(plan.groups[0].url_of(12), "http://h/12/x12");
    plan.groups[0].url = "http://h/plain".into();
    assert_eq!(plan.groups[0].url_of(12), "http://h/plain");
}

#[test]
fn what_is_wrong_is_said() {
    for (line, told) in [
        (&["plai", "x"][..], "unknown role \"plai\""),
        (&["play"], "play needs a URL"),
        (
            &["play", "http://h/x"],
            "play needs a URL with rtmp://, not \"http://h/x\"",
        ),
        (&["whep", "http://h/x", "--count", "0"], "a count of 0"),
        (&["whep", "http://h/x", "--ramp", "0"], "a ramp of 0"),
        (&["whep", "http://h/x", "--count"], "--count needs a value"),
        (
            &["whep", "http://h/x", "--duration", "soon"],
            "\"soon\" is no number",
        ),
        (
            &["whep", "http://h/x", "--loss", "-1%"],
            "\"-1%\" is out of range",
        ),
        (
            &["whep", "http://h/x", "--max-cpu", "50%"],
            "--max-cpu needs --pid",
        ),
        (
            &["whep", "http://h/x", "--cuont", "1"],
            "unknown option --cuont",
        ),
        (
            &["mixed"],
            "mixed needs groups, as in --play 100@rtmp://localhost/live/s",
        ),
        (
            &["mixed", "--play", "rtmp://h/a/b"],
            "--play needs COUNT@URL, not \"rtmp://h/a/b\"",
        ),
        (
            &["mixed", "--play", "1@rtmp://h/a/b colour=red"],
            "unknown key \"colour\"",
        ),
    ] {
        assert_eq!(parse(line), Err(told.to_owned()), "{line:?}");
    }
}

#[test]
fn help_and_version_are_found() {
    assert_eq!(parse(&[]), Ok(Command::Help));
    assert_eq!(
        parse(&["play", "rtmp://h/a/b", "--help"]),
        Ok(Command::Help)
    );
    assert_eq!(parse(&["--version"]), Ok(Command::Version));
}

#[test]
fn units_are_read() {
    for (text, micros) in [
        ("50ms", 50_000),
        ("1.5s", 1_500_000),
        ("2m", 120_000_000),
        ("3", 3_000_000),
        ("7us", 7),
    ] {
        assert_eq!(duration(text), Ok(Duration::from_micros(micros)), "{text}");
    }
    assert_eq!(bit_rate("500k"), Ok(500_000));
    assert_eq!(part("0.5"), Ok(0.5));
}

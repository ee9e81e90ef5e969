//! Imports point down, and no protocol knows another: each source file is read, and each
//! path into the crate that it names is held against the floors below.

use std::fs;
use std::path::{Path, PathBuf};

/// Floors from the top; modules of one floor are named together.
const FLOORS: &[&[&str]] = &[
    &["main", "lib", "demo"],
    &["net"],
    &["gateway"],
    &["bridge"],
    &["hub", "transcode", "signaling", "access"],
    // Read by whoever decides. Protocols are given their limits and need not know it.
    &["config"],
    &["rtmp", "rtp", "http", "webrtc"],
    &["codec"],
    &["wire", "media", "transmit", "ids", "deadlines", "secrets"],
];

/// Modules of these floors must not know one another.
const STRANGERS: &[&str] = &["rtmp", "rtp", "http", "webrtc"];

/// Paths that point up all the same, each with its reason.
const EXCEPTIONS: &[(&str, &str)] = &[
    // A track's configuration is the codec's own record of it.
    ("media", "codec"),
];

/// The crate under its own name, as `main` uses it.
const CRATE: &str = "rtmp_gateway";

#[test]
fn imports_point_down() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&source, &mut files);
    assert!(!files.is_empty(), "no sources in {}", source.display());
    let mut complaints = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("a readable source");
        let name = file.strip_prefix(&source).expect("inside");
        let module = module_of(name);
        for (line, target) in crate_paths(&text) {
            if let Some(complaint) = judge(&module, &target) {
                complaints.push(format!("src/{}:{line}: {complaint}", name.display()));
            }
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn every_module_has_a_floor() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in fs::read_dir(source).expect("a directory") {
        let path = entry.expect("an entry").path();
        let module = module_of(Path::new(path.file_name().expect("a name")));
        assert!(floor(&module).is_some(), "src/{module} stands on no floor");
    }
}

/// What is wrong with `module` naming `target`.
fn judge(module: &str, target: &str) -> Option<String> {
    // Names that are no modules are items of the crate's root: none so far.
    let (own, other) = (floor(module)?, floor(target)?);
    if module == target || EXCEPTIONS.contains(&(module, target)) {
        return None;
    }
    if STRANGERS.contains(&module) && STRANGERS.contains(&target) {
        return Some(format!("{module} knows {target}, another protocol"));
    }
    (other < own).then(|| format!("{module} knows {target}, which stands above it"))
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The module of the crate's root that a file belongs to, by its path inside `src`.
fn module_of(path: &Path) -> String {
    let first = path.iter().next().expect("a name").to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// The modules of the root that `text` names, each with its line: `crate::a::b` and
/// `use crate::{a, b::c}` in every way they can be written.
fn crate_paths(text: &str) -> Vec<(usize, String)> {
    let code = without_comments(text);
    let mut found = Vec::new();
    for prefix in ["crate::", &format!("{CRATE}::")] {
        for (at, _) in code.match_indices(prefix) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let line = 1 + code[..at].matches('\n').count();
            let rest = code[at + prefix.len()..].trim_start();
            if let Some(list) = rest.strip_prefix('{') {
                found.extend(first_names(list).into_iter().map(|name| (line, name)));
            } else {
                found.push((line, word(rest)));
            }
        }
    }
    found
}

/// The first name of each entry of a list whose opening brace is already taken.
fn first_names(list: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut depth = 0;
    let mut entry = String::new();
    for character in list.chars() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(word(std::mem::take(&mut entry).trim())),
            _ => {}
        }
        if depth == 0 && character != ',' {
            entry.push(character);
        }
    }
    names.push(word(entry.trim()));
    names.retain(|name| !name.is_empty());
    names
}

fn word(text: &str) -> String {
    let is_part = |c: &char| c.is_alphanumeric() || *c == '_';
    text.chars().take_while(is_part).collect()
}

/// Takes line comments out: documentation may name what the code may not. Lines stay lines.
fn without_comments(text: &str) -> String {
    let code = |line: &str| match line.find("//") {
        Some(at) => line[..at].to_owned(),
        None => line.to_owned(),
    };
    text.lines().map(code).collect::<Vec<_>>().join("\n")
}

#[test]
fn paths_are_found_however_they_are_written() {
    let text = "use crate::codec::h264::AvcConfig;
// use crate::never;
use crate::{
    hub::{Stream, gop}, media,
    rtmp::session,
};
fn f() -> crate::wire::Reader { mycrate::not(); rtmp_gateway::net::g() } /// crate::nor
";
    let mut names: Vec<_> = crate_paths(text);
    names.sort();
    let expected = [
        (1, "codec"),
        (3, "hub"),
        (3, "media"),
        (3, "rtmp"),
        (7, "net"),
        (7, "wire"),
    ];
    let names: Vec<(usize, &str)> = names.iter().map(|(n, s)| (*n, s.as_str())).collect();
    assert_eq!(names, expected);
}

#[test]
fn what_points_up_is_told() {
    for (module, target, is_fine) in [
        ("net", "gateway", true),
        ("gateway", "net", false),
        ("rtmp", "codec", true),
        ("rtmp", "http", false),
        ("rtmp", "hub", false),
        ("hub", "rtmp", true),
        ("media", "codec", true),
        ("wire", "codec", false),
        ("main", "net", true),
        ("net", "demo", false),
    ] {
        assert_eq!(
            judge(module, target).is_none(),
            is_fine,
            "{module} {target}"
        );
    }
}

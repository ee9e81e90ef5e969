//! The plain JavaScript of the mini-program, by Node: see `tools/miniprogram/test`. Against the
//! gateway it runs in `tests/e2e/calls.rs`.

use std::path::Path;
use std::process::Command;

#[test]
fn signalling_of_the_mini_program_keeps_its_promises() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new("node")
        .arg("--test")
        .arg(root.join("tools/miniprogram/test"))
        .output()
        .expect("node is there: tools/install-deps --test installs it");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    // A folder without tests would pass as well.
    let passed = said.lines().find_map(|line| line.strip_prefix("# pass "));
    assert!(passed.is_some_and(|count| count != "0"), "{said}");
}

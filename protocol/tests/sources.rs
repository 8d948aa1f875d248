//! Every handler cites its source, and every rule has a test.

use std::fs;
use std::path::{Path, PathBuf};

/// R32 to R34 are of the disk, and tested where the disk is: in the crate `storage`.
const LAST: u32 = 31;

/// What only hands on to handlers that cite theirs.
const DISPATCHERS: [&str; 3] = ["on_message", "on_timeout", "on_time"];
/// What has no citation yet and wants one.
const UNCITED: [&str; 2] = ["on_standing", "on_reply"];

/// Every Rust file below a folder of this crate, with its text.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of this crate") {
            let path = entry.expect("a file of this crate").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("UTF-8");
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} has no sources");
    found
}

/// The name of the handler that a line starts, if it does.
fn handler(line: &str) -> Option<&str> {
    let (before, name) = line.trim_start().split_once("fn ")?;
    if !before.is_empty() && !before.starts_with("pub") {
        return None;
    }
    name.starts_with("on_").then(|| name.split(['(', '<']).next().unwrap_or(name))
}

/// Whether the doc comment that ends right above `lines[at]` has a line starting with `source:`.
fn cites(lines: &[&str], at: usize) -> bool {
    let above = lines[..at].iter().rev().map(|line| line.trim_start());
    let mut docs =
        above.filter(|line| !line.starts_with("#[")).map_while(|l| l.strip_prefix("///"));
    docs.any(|doc| doc.trim_start().starts_with("source:"))
}

/// The rule that the test function of this line is named after: `fn r07_…` and `fn r7_…` are R7's.
fn rule_tested(line: &str) -> Option<u32> {
    let name = line.trim_start().strip_prefix("fn r")?;
    let (number, _) = name.split_once('_')?;
    number.parse().ok()
}

#[test]
fn every_handler_cites_its_source() {
    let (mut handlers, mut uncited) = (0, Vec::new());
    for (path, text) in sources("src") {
        let lines: Vec<_> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let Some(name) = handler(line) else { continue };
            handlers += 1;
            let is_excused = DISPATCHERS.contains(&name) || UNCITED.contains(&name);
            if !is_excused && !cites(&lines, at) {
                uncited.push(format!("{}: {name}", path.display()));
            }
        }
    }
    assert!(handlers > 30, "only {handlers} handlers were found: this test reads too little");
    assert!(uncited.is_empty(), "no `source:` line: {uncited:#?}");
}

#[test]
fn every_rule_has_a_test_named_after_it() {
    let texts = sources("src").into_iter().chain(sources("tests"));
    let tested: Vec<u32> = texts
        .flat_map(|(_, text)| text.lines().filter_map(rule_tested).collect::<Vec<_>>())
        .collect();
    for rule in 1..=LAST {
        assert!(tested.contains(&rule), "no test is named r{rule:02}_…");
    }
}

#[test]
fn a_citation_is_looked_for_in_the_comment_right_above() {
    let lines = [
        "/// Does.",
        "///",
        "/// source: R1",
        "#[must_use]",
        "pub fn on_it() {",
        "/// Not.",
        "pub fn on_that()",
    ];
    assert_eq!((handler(lines[4]), handler(lines[6])), (Some("on_it"), Some("on_that")));
    assert!(cites(&lines, 4) && !cites(&lines, 6));
    assert_eq!((rule_tested("    fn r07_x() {"), rule_tested("fn r7_x()")), (Some(7), Some(7)));
    assert_eq!((rule_tested("fn run_it()"), rule_tested("// fn r9_x()")), (None, None));
}

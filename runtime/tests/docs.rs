//! What the pages say is where, is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The folder of the workspace.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in a workspace")
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join(name)).expect(name)
}

/// The crates' folders.
fn members() -> Vec<String> {
    let manifest = page("Cargo.toml");
    let list = manifest.split_once("members = [").expect("a workspace has members").1;
    let list = list.split(']').next().unwrap_or(list);
    list.split('"').skip(1).step_by(2).map(ToOwned::to_owned).collect()
}

/// The text of every Rust file of the workspace.
fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders: Vec<_> = members().iter().map(|member| root().join(member)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the workspace") {
            let path = entry.expect("a file of the workspace").path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("UTF-8");
                found.push((path, text));
            }
        }
    }
    assert!(found.len() > 100, "only {} sources were found", found.len());
    found
}

/// What stands between backticks, in order.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Whether a token names something in code: an identifier, or a path of them.
fn is_name(token: &str) -> bool {
    !token.is_empty()
        && token.split("::").all(|part| {
            let mut chars = part.chars();
            chars.next().is_some_and(|first| first.is_alphabetic() || first == '_')
                && chars.all(|c| c.is_alphanumeric() || c == '_')
        })
}

/// Every rule of PROTOCOL says where it is kept: files that are there, and names that code has.
#[test]
fn every_rule_is_kept_where_the_page_says() {
    let page = page("docs/PROTOCOL.md");
    let sources = sources();
    let words: BTreeSet<&str> = sources
        .iter()
        .flat_map(|(_, text)| text.split(|c: char| !c.is_alphanumeric() && c != '_'))
        .collect();
    let (mut checked, mut missing) = (0, Vec::new());
    for rule in page.split("\n#### ").skip(1) {
        let title = rule.lines().next().unwrap_or_default();
        let Some((_, place)) = rule.split_once("**Where.**") else {
            missing.push(format!("{title}: it does not say where"));
            continue;
        };
        let place = place.split("**Status:**").next().unwrap_or(place);
        for token in quoted(place) {
            let is_there = match token {
                path if path.contains('/') && !path.contains(' ') => root().join(path).exists(),
                file if file.ends_with(".rs") => {
                    sources.iter().any(|(path, _)| path.ends_with(file))
                }
                name if is_name(name) => name.split("::").all(|part| words.contains(part)),
                _ => continue, // a formula
            };
            checked += 1;
            if !is_there {
                missing.push(format!("{title}: `{token}`"));
            }
        }
    }
    assert!(checked > 100, "only {checked} places were found: this test reads too little");
    assert!(missing.is_empty(), "{missing:#?}");
}

/// Prose in comments is as wide as code; charts, and what quotes a source, may be wider.
#[test]
fn comments_keep_within_100_columns() {
    const COLUMNS_MAX: usize = 100;
    let mut wide = Vec::new();
    for (path, text) in sources() {
        let mut is_chart = false;
        for (number, line) in (1..).zip(text.lines()) {
            let Some(comment) = line.trim_start().strip_prefix("//") else { continue };
            let comment = comment.trim_start_matches(['/', '!']).trim_start();
            is_chart ^= comment.starts_with("```");
            let is_source = comment.starts_with("source:");
            if line.chars().count() > COLUMNS_MAX && !is_chart && !is_source {
                wide.push(format!("{}:{number}", path.display()));
            }
        }
    }
    assert!(wide.is_empty(), "wider than {COLUMNS_MAX} columns: {wide:#?}");
}

/// Every crate is in ARCHITECTURE's map, and what each row tells to begin with is there.
#[test]
fn the_code_map_has_every_crate_and_nothing_that_is_not_there() {
    let page = page("docs/ARCHITECTURE.md");
    let map = page.split_once("## The code map").expect("there is a map").1;
    let map = map.split("\n## ").next().unwrap_or(map);
    let (mut crates, mut missing, mut files) = (BTreeSet::new(), Vec::new(), 0);
    let mut folder = None;
    for row in map.lines().filter(|line| line.starts_with("| ")).skip(1) {
        let mut cells = row.split('|').skip(1);
        let name = cells.next().and_then(|cell| quoted(cell).next());
        if let Some(name) = name {
            crates.insert(name.to_owned());
            folder = Some(root().join(name));
        }
        let folder = folder.as_ref().expect("the first row names a crate");
        let mut before = PathBuf::new();
        for file in quoted(cells.nth(1).unwrap_or_default()).filter(|it| it.ends_with(".rs")) {
            files += 1;
            // `sockets/handshake.rs`, `links.rs`: the second is beside the first.
            let beside = before.parent().map(|folder| folder.join(file)).unwrap_or_default();
            let known = [PathBuf::from(file), beside];
            let is_there = |path: &PathBuf| {
                folder.join("src").join(path).exists() || folder.join(path).exists()
            };
            match known.iter().find(|path| is_there(path)) {
                Some(path) => before.clone_from(path),
                None => missing.push(format!("{}: {file}", folder.display())),
            }
        }
    }
    assert!(files > 20, "only {files} files were found: this test reads too little");
    assert!(missing.is_empty(), "not there: {missing:#?}");
    let mut expected: BTreeSet<_> = members().into_iter().collect();
    expected.insert("fuzz".to_owned()); // a workspace of its own
    assert_eq!(crates, expected, "the crates of the map, and those that there are");
}

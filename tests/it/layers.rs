//! What `src/ARCHITECTURE.md` says of files is true: each is there, and a module uses none that stands below
//! it in the list of layers. And the items that it and the README name are there.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

const DOCUMENT: &str = include_str!("../../src/ARCHITECTURE.md");
const README: &str = include_str!("../../README.md");

/// The row of each top-level module, and of those below that have one of their own, in the table under "Layers", counted from the top.
fn rows() -> HashMap<String, usize> {
    let (_, layers) = DOCUMENT.split_once("\n## Layers\n").expect("a heading");
    let table = layers.lines().skip_while(|line| !line.starts_with("| `"));
    let table = table.take_while(|line| line.starts_with('|'));
    let mut rows = HashMap::new();
    for (row, line) in table.enumerate() {
        let names = line.split('|').nth(1).unwrap_or_default();
        for name in names.split(',').map(|name| name.trim().trim_matches('`')) {
            let earlier = rows.insert(name.to_owned(), row);
            assert_eq!(earlier, None, "{name} is in the table twice");
        }
    }
    rows
}

/// The files below `src/` that are neither tests nor a crate's root.
fn files(below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() && name != "tests" {
            found.extend(files(&path));
        }
        let is_other = ["tests", "scratch", "lib", "main"]
            .iter()
            .any(|other| name == format!("{other}.rs"));
        if path.extension().is_some_and(|extension| extension == "rs") && !is_other {
            found.push(path);
        }
    }
    found
}

/// The module that each name at the crate's root comes from.
fn root_names() -> HashMap<String, String> {
    let root = include_str!("../../src/lib.rs");
    let mut names = HashMap::new();
    // Those inside its modules are indented.
    for used in root.split("\npub use ").skip(1) {
        let used = used.split(';').next().unwrap_or_default();
        let mut words = used
            .split(|character: char| !character.is_alphanumeric() && character != '_')
            .filter(|word| !word.is_empty());
        let module = words.next().expect("a module");
        names.extend(words.map(|word| (word.to_owned(), module.to_owned())));
    }
    names
}

/// What stands between backticks: every second piece.
fn quoted(document: &str) -> impl Iterator<Item = &str> {
    document.split('`').skip(1).step_by(2)
}

fn is_in_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Every `crate::…` in a line, up to the next `::` or whatever else comes.
fn used(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::").skip(1).map(|rest| {
        let end = rest.find(|character: char| !character.is_alphanumeric() && character != '_');
        &rest[..end.unwrap_or(rest.len())]
    })
}

#[test]
fn a_module_uses_none_that_stands_below_it() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (rows, roots) = (rows(), root_names());
    let (mut wrong, mut seen) = (Vec::new(), HashSet::new());
    for path in files(&source) {
        let inside = path.strip_prefix(&source).unwrap();
        let top = inside.iter().next().unwrap().to_str().unwrap();
        let top = top.strip_suffix(".rs").unwrap_or(top);
        // A module inside of another may stand elsewhere.
        let inner = inside.parent().and_then(Path::to_str).unwrap_or_default();
        let name = if rows.contains_key(inner) { inner } else { top };
        seen.insert(name.to_owned());
        let Some(own) = rows.get(name) else {
            wrong.push(format!("{name} is in no row"));
            continue;
        };
        let text = fs::read_to_string(&path).unwrap();
        let product = text.split("\n#[cfg(test)]\nmod tests {").next();
        let lines = product.unwrap_or_default().lines().enumerate();
        for (number, line) in lines.filter(|(_, line)| !line.trim_start().starts_with("//")) {
            for name in used(line) {
                let module = roots.get(name).map_or(name, String::as_str);
                match rows.get(module) {
                    Some(row) if row <= own => {}
                    _ => wrong.push(format!("src/{}:{}: {name}", inside.display(), number + 1)),
                }
            }
        }
    }
    let stale: Vec<_> = rows.keys().filter(|name| !seen.contains(*name)).collect();
    assert!(wrong.is_empty(), "below their users:\n{}", wrong.join("\n"));
    assert!(stale.is_empty(), "in the table, but gone: {stale:?}");
    assert!(seen.len() > 20, "only {seen:?} were read");
}

#[test]
fn every_file_that_is_named_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let is_path = |text: &&str| {
        let is_plain = |character: char| character.is_alphanumeric() || "_./-".contains(character);
        let ends = [".rs", ".md", ".sh", "/"];
        text.chars().all(is_plain) && ends.iter().any(|end| text.ends_with(end))
    };
    let named: HashSet<_> = quoted(DOCUMENT).filter(is_path).collect();
    // What a host writes below its data directory is no file of ours.
    let on_disk = [
        "archives/",
        "releases/",
        "staging/",
        "data/",
        "logs/",
        "incoming/",
        "operations/",
    ];
    let gone: Vec<_> = named
        .iter()
        .filter(|path| !on_disk.contains(path))
        .filter(|path| {
            ![root, &root.join("src")]
                .iter()
                .any(|base| base.join(path).exists())
        })
        .collect();
    assert!(gone.is_empty(), "named, but gone: {gone:?}");
    assert!(named.len() > 80, "only {} files are named", named.len());
}

#[test]
fn every_item_that_is_named_is_there() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut words = HashSet::new();
    for path in files(&source) {
        let text = fs::read_to_string(&path).unwrap();
        let code = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            words.extend(
                line.split(|character| !is_in_word(character))
                    .map(str::to_owned),
            );
        }
    }
    // `Host::shutdown`, `keeper::serve` and `Session`, but not `PLUGIN_DATA_DIR`.
    let is_item = |text: &&str| {
        let mut parts = text.split("::");
        let is_type = text.starts_with(char::is_uppercase) && text.contains(char::is_lowercase);
        parts.all(|part| !part.is_empty() && part.chars().all(is_in_word))
            && (is_type || text.contains("::"))
    };
    let documents = [DOCUMENT, README];
    let named: HashSet<_> = documents
        .into_iter()
        .flat_map(quoted)
        .filter(is_item)
        .collect();
    let is_gone = |item: &&&str| item.split("::").any(|part| !words.contains(part));
    let gone: Vec<_> = named.iter().filter(is_gone).collect();
    assert!(gone.is_empty(), "named, but gone: {gone:?}");
    assert!(named.len() > 60, "only {} items are named", named.len());
}

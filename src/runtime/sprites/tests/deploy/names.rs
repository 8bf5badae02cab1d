//! Names of files that mean something to a shell; a directory may have any.

use std::fs;
use std::os::unix::fs::symlink;

use super::{Sprite, of_directory, tree};
use crate::testing::TestDir;

/// If a shell or a tool reads one of these as anything but a name, a file is missing or there is one more.
const NAMES: [&str; 24] = [
    "two words",
    " both ends ",
    "single'quote",
    "double\"quote",
    "back\\slash\\n",
    "new\nline",
    "\n",
    "carriage\r",
    "tab\t",
    "-rf",
    "--help",
    "-",
    "*",
    "?[a]{b,c}",
    "~",
    "$HOME",
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned;",
    "x[$(touch pwned)]",
    "]=1 | touch pwned",
    "@",
    "überall/日本語/🦀",
    "...",
];

#[test]
fn every_name_is_only_a_name() {
    let dir = TestDir::new("deploy");
    for name in NAMES {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
        // As a directory, too.
        let path = dir.path().join("dirs").join(name);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("file"), name).unwrap();
        let empty = dir.path().join("empty dirs").join(name);
        fs::create_dir_all(empty).unwrap();
    }
    let expected = tree(dir.path());
    let sprite = Sprite::new();
    let first = of_directory(dir.path());
    sprite.deploy(&first).unwrap();
    let deployed = |release| {
        let mut found = tree(&sprite.of(release, ""));
        assert!(found.remove(".complete").is_some());
        found
    };
    assert_eq!(deployed(&first), expected);
    sprite.fake.forget_calls();
    sprite.deploy(&first).unwrap();
    assert_eq!(sprite.fake.calls().0.len(), 1);

    // And as the plugin's own, which the next release has copied.
    for name in NAMES {
        let path = sprite.of(&first, "own").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, name).unwrap();
        symlink(name, path.with_extension("link")).unwrap();
    }
    let own = tree(&sprite.of(&first, "own"));
    fs::write(dir.path().join("more"), "").unwrap();
    let second = of_directory(dir.path());
    sprite.deploy(&second).unwrap();
    assert_eq!(tree(&sprite.of(&second, "own")), own);
    sprite.assert_nothing_ran();
    assert_eq!(sprite.names(""), ["current", "data", "releases"]);
}

#[test]
fn what_changes_after_it_was_read_is_not_uploaded() {
    let dir = TestDir::new("deploy");
    let file = dir.path().join("file");
    for spoil in ["other", "longer than before", ""] {
        fs::write(&file, "first").unwrap();
        let release = of_directory(dir.path());
        fs::write(&file, spoil).unwrap();
        let sprite = Sprite::new();
        let error = sprite.deploy(&release).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("file: it has changed meanwhile"), "{text}");
        assert_eq!(sprite.uploads(), 0);
    }
}

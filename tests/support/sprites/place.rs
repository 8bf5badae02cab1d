//! Where a sprite's files are on this machine, and what its commands are told of it.
//!
//! A sprite has a machine of its own; the fake has a directory for each. The paths that a command is given
//! (directory, program, arguments, variables) are moved there where they begin with one of the sprite's own
//! top-level directories, the rest of the machine is this one's. What stands *in* files is not changed.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// The home directory, which every sprite has.
pub(super) const HOME: &str = "/home/sprite";

/// The root of one sprite's files.
#[derive(Clone, Debug)]
pub(super) struct Place {
    root: PathBuf,
}

impl Place {
    pub(super) fn make(root: PathBuf) -> Self {
        let place = Self { root };
        fs::create_dir_all(place.of(HOME)).expect("a home directory");
        place
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where a path of the sprite is, `..` not leading out of it.
    pub(super) fn of(&self, path: &str) -> PathBuf {
        let mut inside = PathBuf::new();
        for component in Path::new(path).components() {
            match component {
                Component::Normal(name) => inside.push(name),
                Component::ParentDir => drop(inside.pop()),
                _ => {}
            }
        }
        self.root.join(inside)
    }

    /// The sprite's own directories that no other machine has.
    fn own(&self) -> Vec<String> {
        let mut own = vec![HOME.to_owned()];
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        // Those that this machine has too are its own, or no interpreter would be found.
        own.extend(
            names
                .map(|name| format!("/{name}"))
                .filter(|path| !Path::new(path).exists()),
        );
        own
    }

    /// A text with each path of the sprite's moved to where it is.
    pub(super) fn moved(&self, text: &str) -> String {
        let root = self.root.to_str().expect("a path in UTF-8");
        let mut text = text.to_owned();
        for own in self.own() {
            let mut moved = String::new();
            let mut rest = text.as_str();
            while let Some(at) = rest.find(&own) {
                let (before, found) = rest.split_at(at);
                let after = &found[own.len()..];
                moved += before;
                // Neither in the middle of a path nor of a name.
                let begins = !moved.ends_with(is_name);
                if begins && !after.starts_with(|next| next != '/' && is_name(next)) {
                    moved += root;
                }
                moved += &own;
                rest = after;
            }
            text = moved + rest;
        }
        text
    }
}

fn is_name(character: char) -> bool {
    character.is_alphanumeric() || "/._-".contains(character)
}

//! The rules for entry names: which may become a path below a release directory, and which path.
//!
//! Names are never decoded: `%2e%2e` or a full-width slash, which resemble a parent directory or a
//! separator to people or to other software, are ordinary characters here, as they are to the system.
//! Device names of Windows, such as `aux` or `con.txt`, are ordinary names where this crate runs, and real
//! packages have them.

use crate::error::PackageError;
use crate::text;

/// The limit on one part of a path, as on common file systems.
const PART_LIMIT: usize = 255;
/// Leaves room for the release directory's own path below the system's limit of 4,096.
pub(super) const PATH_LIMIT: usize = 1_024;
/// The marker that completes a release; the archive must not bring its own.
pub(super) const MARKER: &str = ".complete";

/// A checked path, relative to the release directory: parts separated by `/`, none of them empty,
/// `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EntryPath {
    /// Empty for the release directory itself, as in `./`.
    pub(super) path: String,
    /// Whether the name ends with a slash.
    pub(super) is_dir: bool,
}

impl EntryPath {
    /// Checks an entry's name. `.` as a part of the path is dropped, because some tools write
    /// `./manifest.json`; everything else is accepted as it is or refused.
    ///
    /// # Errors
    /// A [`PackageError`] for each way in which a name is bad.
    pub(super) fn parse(name: &[u8]) -> Result<Self, PackageError> {
        let shown = || shown(name);
        let name =
            std::str::from_utf8(name).map_err(|_| PackageError::NotUtf8 { entry: shown() })?;
        let invalid = |problem| PackageError::InvalidName {
            entry: shown(),
            problem,
        };
        if name.is_empty() {
            return Err(invalid("it is empty"));
        }
        if name.len() > PATH_LIMIT {
            return Err(PackageError::NameTooLong {
                entry: shown(),
                limit: PATH_LIMIT,
            });
        }
        if name.contains('\0') {
            return Err(invalid("it contains a NUL"));
        }
        if name.contains(char::is_control) {
            return Err(invalid("it contains a control character"));
        }
        if name.contains('\\') {
            return Err(PackageError::Backslash { entry: shown() });
        }
        if name.starts_with('/') {
            return Err(PackageError::AbsolutePath { entry: shown() });
        }
        let is_dir = name.ends_with('/');
        let mut path = String::with_capacity(name.len());
        for part in name.strip_suffix('/').unwrap_or(name).split('/') {
            if part.is_empty() {
                return Err(invalid("a part of its path is empty"));
            }
            if part == "." {
                continue;
            }
            if is_parent(part) {
                return Err(PackageError::ParentPath { entry: shown() });
            }
            if has_drive_letter(part) {
                return Err(PackageError::DriveLetter { entry: shown() });
            }
            if part.len() > PART_LIMIT {
                return Err(PackageError::NameTooLong {
                    entry: shown(),
                    limit: PART_LIMIT,
                });
            }
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(part);
        }
        if path.is_empty() && !is_dir {
            return Err(invalid("it names the directory itself"));
        }
        let first = path.split('/').next().unwrap_or_default();
        if folded(first) == MARKER {
            return Err(PackageError::Reserved { entry: shown() });
        }
        Ok(Self { path, is_dir })
    }
}

/// Returns the path as a file system that ignores case sees it.
///
/// It is converted character by character, so that the parents of a folded path are the folded parents of the
/// path; and to capitals first, because some small letters share one capital. Accents that are one character
/// and accents that are two are not compared: where that matters, unpacking the second file fails
/// ([`PackageError::Collision`]).
pub(super) fn folded(path: &str) -> String {
    if path.is_ascii() {
        return path.to_ascii_lowercase();
    }
    path.chars()
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
        .collect()
}

/// Returns the directories above a path, outermost first.
pub(super) fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(end, _)| &path[..end])
}

/// Returns the path of the file of the release that `command` names, if it does: it has a slash, is relative,
/// and does not leave the release directory.
pub(super) fn command_path(command: &str) -> Option<String> {
    command.contains('/').then(|| inside(command)).flatten()
}

/// Returns where a relative path leads, unless it leaves the release directory or is that directory.
pub(super) fn inside(path: &str) -> Option<String> {
    if path.starts_with('/') {
        return None;
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

/// Returns a name as errors store it: with replacement characters, and shortened if it is very long.
pub(super) fn shown(name: &[u8]) -> String {
    const SHOWN: usize = 200;
    text::cut(&String::from_utf8_lossy(name), SHOWN).into_owned()
}

/// Checks for `..`, and for what some systems treat alike: they ignore dots and spaces at the end of a name.
fn is_parent(part: &str) -> bool {
    part.bytes().all(|byte| matches!(byte, b'.' | b' '))
        && part.bytes().filter(|byte| *byte == b'.').count() > 1
}

fn has_drive_letter(part: &str) -> bool {
    matches!(part.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_matches;

    #[test]
    fn good_names() {
        for (name, path, is_dir) in [
            ("main", "main", false),
            ("bin/main", "bin/main", false),
            ("bin/", "bin", true),
            ("./", "", true),
            ("./bin/./main", "bin/main", false),
            ("a b/ü…/.hidden", "a b/ü…/.hidden", false),
            ("a..b/..c/d..", "a..b/..c/d..", false),
            ("x/.complete", "x/.complete", false),
            (".completed", ".completed", false),
            ("ab:c", "ab:c", false),
            ("%2e%2e/x", "%2e%2e/x", false),
        ] {
            let parsed = EntryPath::parse(name.as_bytes()).unwrap();
            assert_eq!(
                (parsed.path.as_str(), parsed.is_dir),
                (path, is_dir),
                "{name}"
            );
        }
    }

    #[test]
    fn each_bad_name_has_its_own_error_which_names_it() {
        type Check = fn(&PackageError) -> bool;
        let parent: Check = |error| matches!(error, PackageError::ParentPath { .. });
        let absolute: Check = |error| matches!(error, PackageError::AbsolutePath { .. });
        let backslash: Check = |error| matches!(error, PackageError::Backslash { .. });
        let drive: Check = |error| matches!(error, PackageError::DriveLetter { .. });
        let invalid: Check = |error| matches!(error, PackageError::InvalidName { .. });
        let reserved: Check = |error| matches!(error, PackageError::Reserved { .. });
        for (name, check) in [
            ("..", parent),
            ("../x", parent),
            ("a/../b", parent),
            ("a/..", parent),
            ("a/../", parent),
            ("./../x", parent),
            (".. /x", parent),
            ("a/.../b", parent),
            ("a/.. ./b", parent),
            (" ../b", parent),
            ("/etc/passwd", absolute),
            ("/", absolute),
            ("//host/share", absolute),
            ("..\\x", backslash),
            ("a\\b", backslash),
            ("\\\\host\\share", backslash),
            ("C:/x", drive),
            ("c:", drive),
            ("a/c:x", drive),
            ("", invalid),
            ("a//b", invalid),
            ("a//", invalid),
            (".", invalid),
            ("a\0b", invalid),
            ("a\nb", invalid),
            ("a\u{85}b", invalid),
            (".complete", reserved),
            (".Complete", reserved),
            ("./.complete", reserved),
            (".complete/x", reserved),
        ] {
            let error = EntryPath::parse(name.as_bytes()).unwrap_err();
            assert!(check(&error), "{name:?}: {error:?}");
            let message = error.to_string();
            assert!(message.contains(&format!("{name:?}")), "{message}");
        }
        let error = EntryPath::parse(b"caf\xe9").unwrap_err();
        assert_matches!(error, PackageError::NotUtf8 { .. });
    }

    #[test]
    fn lengths_are_bounded() {
        let limit = |name: String| match EntryPath::parse(name.as_bytes()) {
            Err(PackageError::NameTooLong { entry, limit }) => {
                assert!(entry.len() < 230 && name.starts_with(&entry[..200]));
                Some(limit)
            }
            other => {
                other.unwrap();
                None
            }
        };
        assert_eq!(limit("x".repeat(255)), None);
        assert_eq!(limit("x".repeat(256)), Some(255));
        assert_eq!(limit("x/".repeat(512)), None);
        assert_eq!(limit("x/".repeat(512) + "x"), Some(1_024));
    }

    #[test]
    fn folding_ignores_case_only() {
        for (one, other) in [
            ("Main", "mAIN"),
            ("Ä/x", "ä/X"),
            ("ΟΔΟΣ", "οδος"),
            ("\u{212a}", "k"),
        ] {
            assert_eq!(folded(one), folded(other), "{one} {other}");
        }
        assert_ne!(folded("a"), folded("ä"));
    }

    #[test]
    fn ancestors_are_the_folders_above() {
        assert_eq!(ancestors("a/b/c").collect::<Vec<_>>(), ["a", "a/b"]);
        assert_eq!(ancestors("a").count(), 0);
    }

    #[test]
    fn commands_that_name_a_file_of_the_release() {
        for (command, path) in [
            ("./main", Some("main")),
            ("bin/main", Some("bin/main")),
            ("bin//./main", Some("bin/main")),
            ("bin/../main", Some("main")),
            ("main", None),
            ("/bin/sh", None),
            ("../main", None),
            ("bin/../../main", None),
            ("./", None),
            ("", None),
        ] {
            assert_eq!(command_path(command).as_deref(), path, "{command:?}");
        }
    }
}

//! `review`: checks whether a plugin can be started from its files as its manifest says, and what its author
//! may have overlooked. Installing, updating and `validate` share it. `check` decides what makes an archive
//! itself bad.

use std::collections::HashSet;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde::{Serialize, Serializer};

use super::archive::Archive;
use super::entry::Entry;
use super::open_dir::open_file;
use super::path::{command_path, inside};
use super::permissions::executable;
use super::warning::PackageWarning;
use crate::error::{CommandProblem, Error, PackageError};
use crate::process::resolve;
use crate::protocol::manifest::Manifest;
use crate::text::BYTE_ORDER_MARK;

/// The most warnings of a review: a manifest may have any number of members.
const WARNING_LIMIT: usize = 100;
/// How much of a first line Linux reads.
const LOOKED_AT: u64 = 256;
/// The file name extensions of scripts.
const SCRIPTS: [&str; 15] = [
    "cjs", "jar", "js", "jsx", "lua", "mjs", "php", "pl", "py", "pyc", "rb", "sh", "ts", "tsx",
    "wasm",
];
/// The directory that macOS adds to archives.
const ADDED_BY_MACOS: &str = "__MACOSX";

/// Where the files of a plugin are.
#[derive(Clone, Copy)]
enum PluginFiles<'a> {
    /// In an archive, to be unpacked, which makes the file that `command` names executable.
    Archive(&'a Archive),
    /// In a directory, where it runs as it is.
    Directory(&'a Path),
}

/// The findings about a plugin.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Review {
    /// Why it can never be started; a package that has any is not installed. They are serialised as their
    /// texts.
    #[serde(serialize_with = "texts")]
    pub problems: Vec<Error>,
    /// What its author may have overlooked, in a sentence each; at most 100. It can be installed all the same.
    pub warnings: Vec<String>,
}

fn texts<S: Serializer>(errors: &[Error], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(errors.iter().map(ToString::to_string))
}

/// Checks whether a plugin can be started from the files in its archive as its manifest says. Installing and
/// updating do that too.
///
/// Problems are a command that is missing or cannot be started, and a directory that everything in the archive
/// is below; their kind is [`ErrorKind::InvalidPackage`](crate::ErrorKind::InvalidPackage). Warnings are about
/// members and events of the manifest that are not known, empty fields, and commands and arguments that may not
/// mean what they seem to; some are about this machine: its `PATH`, and a command that is an absolute path.
///
/// An archive has a directory on top if everything else is below it, including its manifest, and neither the
/// command nor an argument names a file by its path from there. What macOS adds to archives does not count.
///
/// # Blocking
/// For unpacking the beginning of the command's file.
pub fn review(archive: &Archive, manifest: &Manifest) -> Review {
    Review::of(PluginFiles::Archive(archive), manifest)
}

/// Checks whether a plugin can be started from a directory, where it runs as it is, as its manifest says: see
/// [`review`].
///
/// # Blocking
/// For reading the beginning of the command's file.
pub fn review_directory(directory: &Path, manifest: &Manifest) -> Review {
    Review::of(PluginFiles::Directory(directory), manifest)
}

impl Review {
    fn of(files: PluginFiles<'_>, manifest: &Manifest) -> Self {
        let mut review = Self::default();
        review.members(manifest);
        let directory_on_top = files.directory_on_top(manifest);
        if manifest.command.is_empty() {
            review.problems.push(PackageError::NoCommand.into());
        } else if let Some(directory) = directory_on_top {
            // It is the cause of whatever else is missing.
            let problem = PackageError::DirectoryOnTop {
                directory: directory.to_owned(),
                meant: command_path(&manifest.command).and_then(|path| files.meant(&path)),
            };
            review.problems.push(problem.into());
        } else {
            if let Some(problem) = review.command(files, &manifest.command) {
                let command = manifest.command.clone();
                let problem = PackageError::Command { command, problem };
                review.problems.push(problem.into());
            }
            review.arguments(files, &manifest.args);
        }
        review.warnings.truncate(WARNING_LIMIT);
        review
    }

    fn warn(&mut self, warning: PackageWarning) {
        self.warnings.push(warning.to_string());
    }

    /// Returns why the command cannot be started, if so.
    fn command(&mut self, files: PluginFiles<'_>, command: &str) -> Option<CommandProblem> {
        let line = || {
            let (program, rest) = command.trim().split_once(char::is_whitespace)?;
            Some(CommandProblem::CommandLine {
                program: program.to_owned(),
                rest: rest.trim_start().to_owned(),
            })
        };
        if !command.contains('/') {
            let on_path = is_on_path(command);
            if !on_path && let Some(problem) = line() {
                return Some(problem);
            }
            if files.has(command) {
                self.warn(PackageWarning::CommandIsNoPath { command });
            }
            if !on_path {
                self.warn(PackageWarning::CommandNotOnPath { command });
            }
            return None;
        }
        let path = command_path(command);
        match files {
            PluginFiles::Archive(archive) => {
                let Some(path) = path else {
                    if !Path::new(command).is_file()
                        && let Some(problem) = line()
                    {
                        return Some(problem);
                    }
                    self.warn(PackageWarning::CommandOutside { command });
                    return None;
                };
                let Some(entry) = archive.file(&path) else {
                    if archive.dirs.contains(&path) {
                        return Some(CommandProblem::NotAFile);
                    }
                    let meant = files.meant(&path);
                    return line().or(Some(CommandProblem::NotInArchive { meant }));
                };
                if executable(entry.mode()) & 0o100 == 0 {
                    return Some(CommandProblem::NotMadeExecutable);
                }
                if entry.mode() & 0o111 == 0 {
                    self.warn(PackageWarning::CommandMadeExecutable { command });
                }
                first_line_problem(&archive.beginning(entry, LOOKED_AT))
            }
            // It is started where it is, so its path may lead anywhere.
            PluginFiles::Directory(directory) => {
                let file = directory.join(command);
                match fs::metadata(&file) {
                    Err(error) => line().or(Some(CommandProblem::NotFound {
                        reason: error.to_string(),
                    })),
                    Ok(metadata) if !metadata.is_file() => Some(CommandProblem::NotAFile),
                    Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => {
                        Some(CommandProblem::NotExecutable)
                    }
                    Ok(_) => first_line_problem(&beginning(&file)),
                }
            }
        }
    }

    /// Warns of the first argument that names a script which does not exist. Later arguments belong to the
    /// script.
    fn arguments(&mut self, files: PluginFiles<'_>, arguments: &[String]) {
        let script = arguments.iter().find(|argument| is_script(argument));
        if let Some(argument) = script
            && !files.has(argument)
        {
            self.warn(PackageWarning::ArgumentNotThere { argument });
        }
    }

    fn members(&mut self, manifest: &Manifest) {
        for (member, meant) in manifest.unknown_members().take(WARNING_LIMIT) {
            self.warn(PackageWarning::UnknownMember { member, meant });
        }
        for event in manifest.unknown_events().take(WARNING_LIMIT) {
            self.warn(PackageWarning::UnknownEvent { event });
        }
        for (field, value) in [
            ("description", &manifest.description),
            ("version", &manifest.version),
        ] {
            if value.is_empty() {
                self.warn(PackageWarning::EmptyField { field });
            }
        }
    }
}

impl PluginFiles<'_> {
    /// Checks whether there is a file of this path, seen from where the plugin runs.
    fn has(self, path: &str) -> bool {
        match self {
            Self::Archive(archive) => {
                inside(path).is_some_and(|path| archive.file(&path).is_some())
            }
            Self::Directory(directory) => directory.join(path).is_file(),
        }
    }

    /// Returns how to write this path, if the file is beside the manifest and not at the top.
    fn meant(self, path: &str) -> Option<String> {
        let Self::Archive(archive) = self else {
            return None;
        };
        let (parent, _) = archive.manifest_path().rsplit_once('/')?;
        let beside = format!("{parent}/{path}");
        archive
            .file(&beside)
            .is_some()
            .then(|| format!("./{beside}"))
    }

    /// Returns the directory that everything in an archive is below, unless its author accounts for it by
    /// naming files by their paths from the archive's root.
    fn directory_on_top(&self, manifest: &Manifest) -> Option<&str> {
        let Self::Archive(archive) = self else {
            return None;
        };
        let (top, _) = archive.manifest_path().split_once('/')?;
        let is_below = |path: &str| path.split('/').next() == Some(top);
        let all = archive.entries().iter().all(|entry| {
            let path = entry.path();
            is_below(path) || path.split('/').next() == Some(ADDED_BY_MACOS) || path == ".DS_Store"
        });
        let paths: HashSet<&str> = archive
            .entries()
            .iter()
            .map(Entry::path)
            .chain(archive.dirs.iter().map(String::as_str))
            .collect();
        // The directory may have the command's name, which is a file's.
        let command = command_path(&manifest.command)
            .is_some_and(|path| is_below(&path) && archive.file(&path).is_some());
        let argument = manifest
            .args
            .iter()
            .filter_map(|argument| inside(argument))
            .any(|path| is_below(&path) && paths.contains(&*path));
        let known = command || argument;
        (all && !known).then_some(top)
    }
}

impl Archive {
    fn file(&self, path: &str) -> Option<&Entry> {
        let mut files = self.entries().iter().filter(|entry| !entry.is_dir());
        files.find(|entry| entry.path() == path)
    }
}

/// Checks whether an argument names a script by a relative path: it is not an option or a URL, contains only
/// characters that such paths have, does not leave the directory, and has the extension of a script.
fn is_script(argument: &str) -> bool {
    let plain = |character: char| {
        character.is_alphanumeric() || matches!(character, '/' | '\\' | '.' | '_' | '-' | '+' | '@')
    };
    !argument.starts_with(['-', '@'])
        && argument.chars().all(plain)
        && inside(argument).is_some()
        && argument.rsplit_once('.').is_some_and(|(name, end)| {
            !name.is_empty()
                && SCRIPTS
                    .iter()
                    .any(|script| script.eq_ignore_ascii_case(end))
        })
}

/// Returns what prevents the system from understanding the first line of a script.
fn first_line_problem(beginning: &[u8]) -> Option<CommandProblem> {
    if let Some(rest) = beginning.strip_prefix(BYTE_ORDER_MARK.as_bytes())
        && rest.starts_with(b"#!")
    {
        return Some(CommandProblem::ByteOrderMark);
    }
    let line = beginning.strip_prefix(b"#!")?.split(|byte| *byte == b'\n');
    let ends = line.take(1).all(|line| line.ends_with(b"\r"));
    ends.then_some(CommandProblem::CarriageReturn)
}

/// Returns the beginning of a file, as far as it can be read: executing it takes no permission to read.
fn beginning(file: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok((file, _)) = open_file(file) {
        let _ = file.take(LOOKED_AT).read_to_end(&mut bytes);
    }
    bytes
}

/// Checks whether a program of this name would be found when a plugin is started.
fn is_on_path(command: &str) -> bool {
    let path = std::env::var_os("PATH");
    resolve(command, Path::new("/"), path.as_deref()).is_ok()
}

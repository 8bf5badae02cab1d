//! Errors of archives.

use std::io;
use std::path::PathBuf;

use super::ErrorKind;
use crate::text::Foreign;

/// Why an archive cannot be used.
///
/// Entry names come from the archive and may hold anything, so messages show them quoted and
/// escaped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PackageError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", Foreign::new(&.path.to_string_lossy()))]
    Io {
        /// What was being done.
        action: &'static str,
        /// The path it was done to.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The archive cannot be read from its source: its reader fails, or the system does not read its
    /// file.
    #[error("cannot read the archive: {source}")]
    Unreadable {
        /// The error of the reader or the system.
        source: io::Error,
    },
    /// The operation was cancelled. Nothing is left behind.
    #[error("unpacking was cancelled")]
    Cancelled,

    /// The archive is over its limit.
    #[error("the archive is over the limit of {limit} bytes")]
    ArchiveTooLarge {
        /// The limit.
        limit: u64,
    },
    /// Not a zip archive at all.
    #[error("not a zip archive: {problem}")]
    NotAnArchive {
        /// What is missing.
        problem: &'static str,
    },
    /// A zip archive, but a damaged or misleading one.
    #[error("the archive is malformed: {}", Foreign::new(.problem))]
    Malformed {
        /// What is wrong.
        problem: String,
    },
    /// The archive has no entries.
    #[error("the archive is empty")]
    Empty,
    /// The archive has more entries, files and directories together, than the limits on both allow.
    #[error("the archive has {found} entries, over the limit of {limit}")]
    TooManyEntries {
        /// Entries found.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// The central directory is larger than the limits on files and directories allow.
    #[error("the archive's central directory has {size} bytes, over the limit of {limit}")]
    DirectoryTooLarge {
        /// Its size in bytes.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The archive has more files than the limit.
    #[error("the archive has {found} files, over the limit of {limit}")]
    TooManyFiles {
        /// Files found.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// The archive has more directories than the limit, counting those that only the paths of files imply.
    #[error("the archive needs more than the limit of {limit} directories")]
    TooManyDirectories {
        /// The limit.
        limit: usize,
    },

    /// The name is not UTF-8.
    #[error(
        "archive entry {entry:?} has a name that is not UTF-8; make the archive with UTF-8 names"
    )]
    NotUtf8 {
        /// The entry, with replacement characters.
        entry: String,
    },
    /// The path starts at the root of the file system.
    #[error("archive entry {entry:?} is an absolute path; make it relative")]
    AbsolutePath {
        /// The entry.
        entry: String,
    },
    /// The path goes upward.
    #[error("archive entry {entry:?} goes to a parent directory")]
    ParentPath {
        /// The entry.
        entry: String,
    },
    /// The path has a backslash.
    #[error("archive entry {entry:?} has a backslash; separate directories with /")]
    Backslash {
        /// The entry.
        entry: String,
    },
    /// The path has a drive letter.
    #[error("archive entry {entry:?} has a drive letter; make it relative")]
    DriveLetter {
        /// The entry.
        entry: String,
    },
    /// No file can have this name.
    #[error("archive entry {entry:?} has an invalid name: {problem}")]
    InvalidName {
        /// The entry.
        entry: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The name, or one part of its path, is too long. Long names are shown cut.
    #[error("archive entry {entry:?} has a name over {limit} bytes")]
    NameTooLong {
        /// The start of the entry's name.
        entry: String,
        /// The limit: 255 for one part, 1,024 for the whole path.
        limit: usize,
    },
    /// The name is reserved for the host's own use.
    #[error("archive entry {entry:?} has a reserved name; rename it")]
    Reserved {
        /// The entry.
        entry: String,
    },
    /// Two entries with the same path.
    #[error("archive entry {entry:?} is there twice")]
    Duplicate {
        /// The entry.
        entry: String,
    },
    /// Two paths that are the same on a file system that ignores case.
    #[error("archive entries {entry:?} and {other:?} differ only in case")]
    CaseCollision {
        /// The later entry.
        entry: String,
        /// The earlier one.
        other: String,
    },
    /// A path that is the same as an earlier entry's on the file system it is unpacked to: some treat an
    /// accented letter and a letter with a combining accent as equal.
    #[error("archive entry {entry:?} has the same name as another one on this file system")]
    Collision {
        /// The later entry.
        entry: String,
    },
    /// A path that has to be both a file and a directory.
    #[error(
        "archive entry {entry:?} cannot be next to {other:?}: one path is both file and directory"
    )]
    FileIsDirectory {
        /// The later entry.
        entry: String,
        /// The earlier one.
        other: String,
    },

    /// A symbolic link.
    #[error("archive entry {entry:?} is a link; put the file itself into the archive")]
    Link {
        /// The entry.
        entry: String,
    },
    /// A device, pipe or socket.
    #[error("archive entry {entry:?} is a {kind}; only files and directories are allowed")]
    SpecialFile {
        /// The entry.
        entry: String,
        /// What it is.
        kind: &'static str,
    },
    /// An encrypted entry.
    #[error("archive entry {entry:?} is encrypted; make the archive without a password")]
    Encrypted {
        /// The entry.
        entry: String,
    },
    /// A compression method other than stored and deflate.
    #[error("archive entry {entry:?} uses compression method {method}; use deflate or none")]
    UnsupportedMethod {
        /// The entry.
        entry: String,
        /// The method's number in the zip format.
        method: u16,
    },
    /// A directory entry that has content.
    #[error("archive entry {entry:?} is a directory with content")]
    DirectoryWithContent {
        /// The entry.
        entry: String,
    },
    /// Headers of one entry that contradict each other or point outside the archive.
    #[error("archive entry {entry:?} is malformed: {problem}")]
    BadEntry {
        /// The entry.
        entry: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// Two entries that share bytes of the archive.
    #[error("archive entries {entry:?} and {other:?} overlap")]
    Overlap {
        /// The one that starts later.
        entry: String,
        /// The one that starts earlier.
        other: String,
    },

    /// One file is over its limit, unpacked.
    #[error("archive entry {entry:?} has {size} bytes, over the limit of {limit} for one file")]
    FileTooLarge {
        /// The entry.
        entry: String,
        /// Its size, unpacked.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// All files together are over their limit, unpacked.
    #[error("with archive entry {entry:?} the files have {size} bytes, over the limit of {limit}")]
    TotalTooLarge {
        /// The entry with which the limit is passed.
        entry: String,
        /// The size so far, that entry included.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// An entry unpacks to fewer bytes than its header says.
    #[error("archive entry {entry:?} has {found} bytes, its header says {declared}")]
    SizeMismatch {
        /// The entry.
        entry: String,
        /// The size in its header.
        declared: u64,
        /// The size found.
        found: u64,
    },
    /// An entry does not unpack: it is damaged, or larger than its header says.
    #[error("archive entry {entry:?} cannot be unpacked: {source}")]
    Content {
        /// The entry.
        entry: String,
        /// What the decoder says.
        source: io::Error,
    },

    /// Something in a plugin's directory that cannot be taken to where the plugin runs.
    #[cfg_attr(not(feature = "sprites"), allow(dead_code))]
    #[error("cannot take {} to where the plugin runs: {problem}", Foreign::new(&.path.to_string_lossy()))]
    NotPortable {
        /// Its path.
        path: PathBuf,
        /// Why not, and what to do about it.
        problem: &'static str,
    },
    /// One file is larger than the service takes that runs the plugin.
    #[cfg_attr(not(feature = "sprites"), allow(dead_code))]
    #[error(
        "{} has {size} bytes, and the service that runs the plugin takes files of up to {limit}; split it, or \
         have the plugin fetch it into PLUGIN_DATA_DIR", Foreign::new(.entry)
    )]
    TooLargeForService {
        /// The file.
        entry: String,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },

    /// The plugin wrote more next to its program than an update migrates.
    #[error(
        "the plugin's own files in {} are at least {files} with {bytes} bytes, over the limit of \
         {file_limit} files or {byte_limit} bytes; only PLUGIN_DATA_DIR may grow larger", .dir.display()
    )]
    MigrationTooLarge {
        /// The release directory that they are in.
        dir: PathBuf,
        /// Files, links, directories and other entries found; counting ends with the first over the limit.
        files: usize,
        /// Bytes found so far.
        bytes: u64,
        /// The limit on files, links and directories.
        file_limit: usize,
        /// The limit on bytes.
        byte_limit: u64,
    },

    /// The plugin wrote so many or so deep directories next to its program that listing them takes more
    /// memory than an update may use.
    #[error(
        "the paths of the plugin's own files in {} take more than the limit of {limit} bytes; only \
         PLUGIN_DATA_DIR may grow larger", .dir.display()
    )]
    MigrationPathsTooLarge {
        /// The release directory that they are in.
        dir: PathBuf,
        /// The limit.
        limit: u64,
    },

    /// What was to be packed is over a limit.
    #[error("{problem}{}; {IGNORE_HINT}", most_is_in(.largest))]
    TooLargeToPack {
        /// Which limit.
        problem: Box<Self>,
        /// The largest directories, and how many bytes in how many files they have.
        largest: Vec<(String, u64, usize)>,
    },

    /// The manifest names no command.
    #[error(
        "manifest.json: field `command` is missing or empty, so a host cannot start it; it can only \
         connect by itself, as with run --external"
    )]
    NoCommand,
    /// The manifest's command cannot be started.
    #[error("the command {:?} {problem}", Foreign::new(.command))]
    Command {
        /// The command.
        command: String,
        /// Why it cannot be started.
        problem: CommandProblem,
    },
    /// Everything in the archive, the manifest too, is below one directory.
    #[error(
        "everything in the archive is in the directory {:?}, but paths begin at the archive's root; \
         zip from inside the directory: cd {:?} && zip -r ../plugin.zip .{}",
        Foreign::new(.directory), Foreign::new(.directory), or_write(.meant.as_deref())
    )]
    DirectoryOnTop {
        /// The directory.
        directory: String,
        /// The path of the file that `command` would name in that case.
        meant: Option<String>,
    },

    /// No file is called `manifest.json`.
    #[error("the archive has no manifest.json")]
    NoManifest,
    /// The manifest is over its limit.
    #[error("the manifest {entry:?} has {size} bytes, over the limit of {limit}")]
    ManifestTooLarge {
        /// The entry.
        entry: String,
        /// Its size, unpacked, as far as it was read.
        size: u64,
        /// The limit.
        limit: u64,
    },
}

const IGNORE_HINT: &str = "leave out what the plugin does not need by naming it in .pluginignore";

fn most_is_in(largest: &[(String, u64, usize)]) -> String {
    let dirs = largest.iter().map(|(path, bytes, files)| {
        format!(
            "{:?} with {bytes} bytes in {files} files",
            Foreign::new(path)
        )
    });
    let dirs: Vec<_> = dirs.collect();
    if dirs.is_empty() {
        String::new()
    } else {
        format!("; the largest directories are {}", dirs.join(", "))
    }
}

fn or_write(meant: Option<&str>) -> String {
    meant
        .map(|meant| {
            format!(
                "; or keep the directory, and so write {:?}",
                Foreign::new(meant)
            )
        })
        .unwrap_or_default()
}

/// Why the command of a package cannot be started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CommandProblem {
    /// There is no such file in the archive.
    #[error(
        "is not in the archive{}", .meant.as_deref().map(|meant| format!(
            "; paths begin at the archive's root, so write {:?}", Foreign::new(meant)
        )).unwrap_or_default()
    )]
    NotInArchive {
        /// The path of a file of that name beside the manifest.
        meant: Option<String>,
    },
    /// There is no such file in the plugin's directory.
    #[error("cannot be found: {reason}")]
    NotFound {
        /// The system's error.
        reason: String,
    },
    /// The command is a directory, or something else that is not a file.
    #[error("is not a file")]
    NotAFile,
    /// The file has no execute bit.
    #[error("is not executable; chmod +x makes it so")]
    NotExecutable,
    /// The owner of the file may neither read nor execute it, so unpacking does not make it executable.
    #[error(
        "is not executable, and is not made so when unpacked, since its owner may not read it; \
         chmod 755 before zipping"
    )]
    NotMadeExecutable,
    /// The command is a whole command line, and no file has that name.
    #[error(
        "is a whole command line; put the program in `command`, {:?}, and the rest in `args`: {:?}",
        Foreign::new(.program), Foreign::new(.rest)
    )]
    CommandLine {
        /// The part before the first space.
        program: String,
        /// The part after it.
        rest: String,
    },
    /// The command is a script whose first line ends with a carriage return, which the system takes for a
    /// part of the interpreter's name.
    #[error(
        "is a script whose first line ends with a carriage return, as on Windows; save it with line \
         feeds alone (dos2unix does that)"
    )]
    CarriageReturn,
    /// The command is a script with a byte order mark before `#!`, which the system then does not recognize.
    #[error("is a script with a byte order mark before #!; save it as UTF-8 without one")]
    ByteOrderMark,
}

impl PackageError {
    pub(super) fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } | Self::Unreadable { source } => ErrorKind::of_io(source),
            Self::Cancelled => ErrorKind::Cancelled,
            Self::TooLargeToPack { problem, .. } => problem.kind(),
            Self::ArchiveTooLarge { .. }
            | Self::TooManyEntries { .. }
            | Self::DirectoryTooLarge { .. }
            | Self::TooManyFiles { .. }
            | Self::TooManyDirectories { .. }
            | Self::FileTooLarge { .. }
            | Self::TotalTooLarge { .. }
            | Self::TooLargeForService { .. }
            | Self::ManifestTooLarge { .. } => ErrorKind::PackageTooLarge,
            Self::MigrationTooLarge { .. } | Self::MigrationPathsTooLarge { .. } => {
                ErrorKind::MigrationTooLarge
            }
            _ => ErrorKind::InvalidPackage,
        }
    }

    /// Whether the same operation on the same archive can only fail the same way again. False when
    /// the system refused (a full disk may be emptied), when the plugin's own files are too large
    /// (it may remove some) and after a cancellation; true when the archive is missing.
    pub(crate) fn is_permanent(&self) -> bool {
        match self {
            Self::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
            Self::Unreadable { .. }
            | Self::MigrationTooLarge { .. }
            | Self::MigrationPathsTooLarge { .. }
            | Self::Cancelled => false,
            _ => true,
        }
    }
}

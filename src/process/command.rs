//! Resolving the manifest's `command` to an executable file, and explaining why a spawn failed.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Access, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{SpawnError, StartError};

/// Finds the program that `command` names: with a slash in it, a path relative to the working
/// directory (or absolute); without one, the first match on `path`
/// ([Top-level fields](crate::protocol#top-level-fields)).
///
/// # Errors
/// [`StartError::NoCommand`], or [`StartError::Spawn`] that says what is wrong with the file.
pub(crate) fn resolve(
    command: &str,
    working_directory: &Path,
    path: Option<&OsStr>,
) -> Result<PathBuf, StartError> {
    if command.is_empty() {
        return Err(StartError::NoCommand);
    }
    let failed = |command: PathBuf, source| StartError::Spawn { command, source };
    if command.contains('/') {
        // `components` removes `.` parts, which only make messages and process lists harder to read.
        let program: PathBuf = working_directory.join(command).components().collect();
        return match check(&program) {
            Ok(()) => Ok(program),
            Err(source) => Err(failed(program, source)),
        };
    }
    let mut found = SpawnError::NotOnPath;
    for dir in path.map(std::env::split_paths).into_iter().flatten() {
        // An empty or relative entry would run a file from the host's current directory.
        if !dir.is_absolute() {
            continue;
        }
        let program = dir.join(command);
        match check(&program) {
            Ok(()) => return Ok(program),
            // A directory of that name is skipped, as a shell does.
            Err(SpawnError::NotFound | SpawnError::NotAFile) => {}
            Err(source) => found = source,
        }
    }
    Err(failed(PathBuf::from(command), found))
}

fn check(program: &Path) -> Result<(), SpawnError> {
    let metadata = match std::fs::metadata(program) {
        Ok(metadata) if !metadata.is_file() => return Err(SpawnError::NotAFile),
        Ok(metadata) => metadata,
        // `stat` needs no permission but to search the directories above the file.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(SpawnError::NotSearchable);
        }
        Err(error) => return Err(classify(error)),
    };
    match rustix::fs::access(program, Access::EXEC_OK) {
        Ok(()) => Ok(()),
        Err(Errno::ACCESS) => Err(not_executable(program, metadata.mode())),
        Err(error) => Err(classify(error.into())),
    }
}

/// Explains why the system does not execute a file with this mode.
fn not_executable(program: &Path, mode: u32) -> SpawnError {
    /// The execute bits of owner, group and others.
    const EXECUTABLE: u32 = 0o111;
    if mode & EXECUTABLE == 0 {
        return SpawnError::NotExecutable;
    }
    match is_mounted_noexec(program) {
        Ok(true) => SpawnError::NoExecMount,
        Ok(false) => SpawnError::NotForThisUser,
        // The file has been removed or hidden meanwhile.
        Err(_) => SpawnError::PermissionDenied,
    }
}

#[cfg(target_os = "linux")]
fn is_mounted_noexec(path: &Path) -> Result<bool, Errno> {
    use rustix::fs::{StatVfsMountFlags, statvfs};
    Ok(statvfs(path)?.f_flag.contains(StatVfsMountFlags::NOEXEC))
}

/// Mount flags are read on Linux only.
#[cfg(not(target_os = "linux"))]
fn is_mounted_noexec(_path: &Path) -> Result<bool, Errno> {
    Ok(false)
}

fn classify(error: io::Error) -> SpawnError {
    const NOT_A_DIR: i32 = Errno::NOTDIR.raw_os_error();
    const EXEC_FORMAT: i32 = Errno::NOEXEC.raw_os_error();
    const TOO_LONG: i32 = Errno::TOOBIG.raw_os_error();
    match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::NotFound, _) | (_, Some(NOT_A_DIR)) => SpawnError::NotFound,
        (io::ErrorKind::PermissionDenied, _) => SpawnError::PermissionDenied,
        (io::ErrorKind::ExecutableFileBusy, _) => SpawnError::Busy(Arc::new(error)),
        (_, Some(EXEC_FORMAT)) => SpawnError::WrongFormat,
        (_, Some(TOO_LONG)) => SpawnError::TooLong,
        _ => SpawnError::Io(Arc::new(error)),
    }
}

/// Turns a failed spawn into an error that says what is wrong. Opens the program's file, which the plugin
/// may have replaced by something else meanwhile.
pub(crate) fn spawn_error(
    program: &Path,
    working_directory: &Path,
    error: io::Error,
) -> StartError {
    let mut source = classify(error);
    // The file may have changed since `resolve` checked it.
    if matches!(source, SpawnError::PermissionDenied)
        && let Err(seen) = check(program)
    {
        source = seen;
    }
    // ENOENT may mean the directory, the file, or what the file needs to run.
    if matches!(source, SpawnError::NotFound) {
        if !working_directory.exists() {
            source = SpawnError::NoWorkingDirectory;
        } else if program.exists() {
            // The file is there, so its interpreter or loader is not.
            source = match interpreter(program) {
                Some(name) => SpawnError::NoInterpreter(name),
                None => SpawnError::NoLoader,
            };
        }
    }
    StartError::Spawn {
        command: program.to_owned(),
        source,
    }
}

/// Returns the interpreter that the first line of a script names. A carriage return at its end, as files
/// written on Windows have, is kept, so that the error shows it.
fn interpreter(program: &Path) -> Option<String> {
    /// The part of a first line that Linux reads, in bytes.
    const LINE_LIMIT: u64 = 256;
    let mut start = Vec::new();
    let file = open_regular(program).ok()?;
    file.take(LINE_LIMIT).read_to_end(&mut start).ok()?;
    let line = start
        .strip_prefix(b"#!")?
        .split(|&byte| byte == b'\n')
        .next()?;
    let line = String::from_utf8_lossy(line);
    let line = line.trim_start_matches([' ', '\t']);
    Some(line.split([' ', '\t']).next()?.to_owned())
}

/// Opens a regular file for reading, and nothing else: opening a named pipe waits for a writer, and
/// opening a device may do anything. Links are followed, since a program may be one.
#[cfg(target_os = "linux")]
fn open_regular(path: &Path) -> io::Result<File> {
    use std::os::fd::AsRawFd as _;
    // `O_PATH` opens no device and waits for no writer, and what is opened through /proc below is certain
    // to be the file that was checked.
    let found = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    if FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) != FileType::RegularFile {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    File::open(format!("/proc/self/fd/{}", found.as_raw_fd()))
}

/// Opens a regular file for reading. Without `O_PATH` a device is opened before it can be refused.
#[cfg(not(target_os = "linux"))]
fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestDir;

    fn message(command: &str, path: &str) -> String {
        resolve(command, Path::new("/nowhere"), Some(OsStr::new(path)))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_bare_name_is_looked_up_on_path() {
        let found = resolve(
            "sh",
            Path::new("/nowhere"),
            Some(OsStr::new("/nowhere:/bin")),
        )
        .unwrap();
        assert_eq!(found, Path::new("/bin/sh"));
        assert_eq!(
            message("no-such-program", "/bin"),
            "could not start no-such-program: not found on PATH; the plugin's own files are named \
             with ./ in front"
        );
    }

    #[test]
    fn a_path_is_relative_to_the_working_directory() {
        assert_eq!(
            resolve("./sh", Path::new("/bin"), None).unwrap(),
            Path::new("/bin/sh")
        );
        assert_eq!(
            message("./tool", "/bin"),
            "could not start /nowhere/tool: not found"
        );
    }

    #[test]
    fn a_file_without_the_mode_is_not_executable() {
        assert_eq!(
            message("/etc/passwd", ""),
            "could not start /etc/passwd: not executable; chmod +x makes it so"
        );
        assert_eq!(message("/etc/", ""), "could not start /etc: not a file");
        assert_eq!(
            message("/etc/passwd/x", ""),
            "could not start /etc/passwd/x: not found"
        );
    }

    #[test]
    fn a_missing_interpreter_is_named() {
        let dir = TestDir::new("command");
        let path = dir.path().join("script");
        for (script, name) in [
            ("#!/no/such -x\n", Some("/no/such")),
            ("#! /bin/sh\r\necho\n", Some("/bin/sh\r")),
            ("#!/no/end", Some("/no/end")),
            ("\u{7f}ELF", None),
        ] {
            std::fs::write(&path, script).unwrap();
            assert_eq!(interpreter(&path).as_deref(), name, "{script:?}");
            let error = spawn_error(&path, Path::new("/"), io::ErrorKind::NotFound.into());
            assert!(error.is_permanent(), "{error}");
            let word = if name.is_some() {
                "interpreter_not_found"
            } else {
                "loader_not_found"
            };
            let StartError::Spawn { source, .. } = error else {
                panic!("{error:?}");
            };
            assert_eq!(source.as_str(), word);
        }
    }

    #[test]
    fn a_named_pipe_in_the_place_of_the_program_holds_nobody_up() {
        let dir = TestDir::new("command");
        let path = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        assert_eq!(check(&path).unwrap_err().as_str(), "not_a_file");
        // As if it had come there after that, and what the system tried to execute before.
        assert_eq!(interpreter(&path), None);
        let error = spawn_error(&path, Path::new("/"), io::ErrorKind::NotFound.into());
        assert!(error.is_permanent(), "{error}");
    }

    #[test]
    fn what_else_keeps_a_program_from_being_spawned_is_told_apart() {
        let word = |program: &str, dir: &str, error: io::Error| match spawn_error(
            Path::new(program),
            Path::new(dir),
            error,
        ) {
            StartError::Spawn { source, .. } => source.as_str(),
            other => panic!("{other:?}"),
        };
        let system = |error: Errno| io::Error::from(error);
        assert_eq!(word("/no/such", "/", system(Errno::NOENT)), "not_found");
        assert_eq!(
            word("/bin/sh", "/no/such", system(Errno::NOENT)),
            "no_working_directory"
        );
        assert_eq!(
            word("/bin/sh", "/", system(Errno::ACCESS)),
            "permission_denied"
        );
        assert_eq!(word("/bin/sh", "/", system(Errno::NOEXEC)), "wrong_format");
        assert_eq!(word("/bin/sh", "/", system(Errno::TXTBSY)), "busy");
        assert_eq!(word("/bin/sh", "/", system(Errno::TOOBIG)), "too_long");
        assert_eq!(word("/bin/sh", "/", system(Errno::AGAIN)), "other");
    }

    #[test]
    fn no_command_says_so() {
        assert_eq!(message("", "/bin"), "the manifest names no command");
    }

    #[test]
    fn path_entries_that_are_not_absolute_are_passed_over() {
        let message = message("sh", ":bin:.");
        assert!(
            message.starts_with("could not start sh: not found on PATH"),
            "{message}"
        );
    }
}

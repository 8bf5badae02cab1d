//! From the manifest's `command` to a file that can be executed.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::Access;

use crate::error::{SpawnError, StartError};

/// Finds the program that `command` names: with a slash in it, a path relative to the working
/// directory (or absolute); without one, the first match on `path`
/// (protocol file, section 3.1).
///
/// # Errors
/// [`StartError::NoCommand`], or [`StartError::Spawn`] with `NotFound` or `NotExecutable`.
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
        let program = working_directory.join(command);
        return match check(&program) {
            Ok(()) => Ok(program),
            Err(source) => Err(failed(program, source)),
        };
    }
    let mut found = SpawnError::NotFound;
    for folder in path.map(std::env::split_paths).into_iter().flatten() {
        // An empty or relative entry would run what lies in whatever folder we happen to be in.
        if !folder.is_absolute() {
            continue;
        }
        let program = folder.join(command);
        match check(&program) {
            Ok(()) => return Ok(program),
            Err(SpawnError::NotFound) => {}
            Err(source) => found = source,
        }
    }
    Err(failed(PathBuf::from(command), found))
}

fn check(program: &Path) -> Result<(), SpawnError> {
    match std::fs::metadata(program) {
        Ok(metadata) if !metadata.is_file() => return Err(SpawnError::NotExecutable),
        Ok(_) => {}
        Err(error) => return Err(classify(error)),
    }
    match rustix::fs::access(program, Access::EXEC_OK) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::ACCESS) => Err(SpawnError::NotExecutable),
        Err(error) => Err(classify(error.into())),
    }
}

fn classify(error: io::Error) -> SpawnError {
    const NOT_A_FOLDER: i32 = rustix::io::Errno::NOTDIR.raw_os_error();
    const EXEC_FORMAT: i32 = rustix::io::Errno::NOEXEC.raw_os_error();
    match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::NotFound, _) | (_, Some(NOT_A_FOLDER)) => SpawnError::NotFound,
        (io::ErrorKind::PermissionDenied, _) => SpawnError::PermissionDenied,
        (_, Some(EXEC_FORMAT)) => SpawnError::WrongFormat,
        _ => SpawnError::Io(Arc::new(error)),
    }
}

/// What a failed spawn means.
pub(crate) fn spawn_error(program: &Path, error: io::Error) -> StartError {
    let mut source = classify(error);
    if matches!(source, SpawnError::NotFound) && program.exists() {
        // The file is there, so it is the interpreter in its first line that is not.
        source = SpawnError::Io(Arc::new(io::Error::new(
            io::ErrorKind::NotFound,
            "the interpreter that its first line names is not found",
        )));
    }
    StartError::Spawn {
        command: program.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            "could not start no-such-program: not found"
        );
    }

    #[test]
    fn a_path_is_relative_to_the_working_directory() {
        assert_eq!(
            resolve("./sh", Path::new("/bin"), None).unwrap(),
            Path::new("/bin/./sh")
        );
        assert_eq!(
            message("./tool", "/bin"),
            "could not start /nowhere/./tool: not found"
        );
    }

    #[test]
    fn a_file_without_the_mode_is_not_executable() {
        assert_eq!(
            message("/etc/passwd", ""),
            "could not start /etc/passwd: not executable"
        );
        assert_eq!(
            message("/etc/", ""),
            "could not start /etc/: not executable"
        );
        assert_eq!(
            message("/etc/passwd/x", ""),
            "could not start /etc/passwd/x: not found"
        );
    }

    #[test]
    fn no_command_says_so() {
        assert_eq!(message("", "/bin"), "the manifest names no command");
    }

    #[test]
    fn path_entries_that_are_not_absolute_are_passed_over() {
        assert_eq!(message("sh", ":bin:."), "could not start sh: not found");
    }
}

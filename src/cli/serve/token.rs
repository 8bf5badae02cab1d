//! The token that the HTTP API asks for: the one that is named, or one that is generated and kept in the data
//! directory. Plugins run as the same user, so a token in a file is no secret from them.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use data_encoding::HEXLOWER;
use rustix::process::geteuid;

use super::settings::Secret;
use crate::cli::error::CliError;
use crate::cli::private_file::{self, open_named, open_own, read_short};

/// The file with the token that was generated.
pub(super) const FILE: &str = "admin-token";
const SHORTEST: usize = 16;
/// More than any token has that is used.
const LONGEST: usize = 256;
/// Random bytes of a token that is generated: too many to guess.
const RANDOM: usize = 32;
/// Bits of a file's mode: others may read it; others may write it.
const READABLE: u32 = 0o044;
const WRITABLE: u32 = 0o022;

/// A token in a file, and what is wrong with the file.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) token: Secret,
    pub(super) warning: Option<String>,
}

/// Returns what is wrong with a token, without a word of it.
///
/// # Errors
/// A text that says how a token is written.
pub(super) fn check(token: &str) -> Result<(), String> {
    if !(SHORTEST..=LONGEST).contains(&token.len()) {
        return Err(format!(
            "a token has {SHORTEST} to {LONGEST} characters, and this one {}",
            token.len()
        ));
    }
    if token.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(())
    } else {
        Err("a token consists of visible ASCII characters, without spaces".to_owned())
    }
}

/// Reads the token in a file that the user has named, which may be a link, as secrets in containers are.
///
/// # Errors
/// A text that says what is wrong with the file or the token.
pub(super) fn read(path: &Path) -> Result<Found, String> {
    let shown = path.display();
    let file = open_named(path).map_err(|error| format!("cannot open {shown}: {error}"))?;
    from_file(file, path)
}

/// Returns the token that was generated at the first start with this directory, which is now if there is none.
///
/// # Errors
/// [`CliError`]: for invalid arguments, as with a file that is named, when the file has no token or something else
/// is in its place, so that a service manager does not start the server again; for a failure when it cannot be
/// written.
pub(super) fn generated(data: &Path) -> Result<Found, CliError> {
    let path = data.join(FILE);
    match open_own(&path, OpenOptions::new().read(true)) {
        Ok(file) => from_file(file, &path).map_err(|problem| {
            CliError::usage(format!(
                "{problem}; without the file a new token is generated"
            ))
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let token = random()?;
            private_file::put(&path, format!("{}\n", token.0).as_bytes()).map_err(
                CliError::cannot(format!("keep a token in {}", path.display())),
            )?;
            Ok(Found {
                token,
                warning: None,
            })
        }
        Err(error) => Err(CliError::usage(format!(
            "cannot read the token in {}: {error}",
            path.display()
        ))),
    }
}

/// Generates a token.
///
/// # Errors
/// [`CliError`] when the system has no randomness.
pub(super) fn random() -> Result<Secret, CliError> {
    let mut random = [0; RANDOM];
    getrandom::fill(&mut random).map_err(CliError::cannot("generate a token"))?;
    Ok(Secret(HEXLOWER.encode(&random)))
}

fn from_file(file: File, path: &Path) -> Result<Found, String> {
    let shown = path.display();
    let metadata = file.metadata();
    let metadata = metadata.map_err(|error| format!("cannot look at {shown}: {error}"))?;
    // Users who can write it choose the token.
    let is_foreign = ![0, geteuid().as_raw()].contains(&metadata.uid());
    if is_foreign || metadata.mode() & WRITABLE != 0 {
        return Err(format!(
            "other users can write to {shown}; make it yours, and `chmod 600` it"
        ));
    }
    // Not refused: containers are given secrets so, and have no other users.
    let warning = (metadata.mode() & READABLE != 0)
        .then(|| format!("other users can read the token in {shown}; `chmod 600` it"));
    // One more for the line end.
    let text = read_short(file, LONGEST as u64 + 1)
        .map_err(|error| format!("cannot read the token in {shown}: {error}"))?;
    let token = text.trim_end();
    check(token).map_err(|problem| format!("{shown}: {problem}"))?;
    Ok(Found {
        token: Secret(token.to_owned()),
        warning,
    })
}

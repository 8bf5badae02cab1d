//! Making a release ready on a sprite: nothing is done if it is there, else its files are uploaded and a script
//! on the sprite completes it.
//!
//! What is noticed of a release that was deployed: that it is gone with its sprite, that its listing is missing
//! or is not that of the package, and that it was not completed. What the plugin does with the files of its
//! package is **not** noticed, as it is not with a plugin on this machine: it may change its own files, and
//! comparing them would cost a request for each. Removing `.complete` has the release made anew.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use data_encoding::HEXLOWER;

use super::client::Client;
use super::interrupt::Within;
use super::release::{BASE, Outline, Release};
use super::script::{self, ScriptEnd};
use super::upload::upload;
use crate::error::{Error, PackageError, SpritesError, SpritesProblem, StartError};
use crate::package::MigrationLimits;
use crate::text::Foreign;

pub(super) const SCRIPT: &str = include_str!("deploy.sh");

const COMPLETE: &str = "complete the plugin's release on the sprite";

/// Why a release was not made ready.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeployError {
    /// The service or the sprite.
    #[error(transparent)]
    Service(#[from] SpritesError),
    /// The package, or the plugin's own files.
    #[error(transparent)]
    Package(#[from] PackageError),
}

impl From<DeployError> for StartError {
    fn from(error: DeployError) -> Self {
        match error {
            DeployError::Service(error) => Error::from(error).into(),
            DeployError::Package(PackageError::Cancelled) => Self::Cancelled,
            DeployError::Package(error) => Self::Unpack(Arc::new(error)),
        }
    }
}

/// Makes a release ready on a sprite that is there, and on which it [is not](is_deployed).
///
/// Its files are uploaded, four at once, without those that an attempt before this one has uploaded. A script
/// then checks them, copies the plugin's own files from the release that `current` names (see
/// [`migrate_files`](crate::package::migrate_files), whose rules hold, but that what has a path of more than
/// 3,500 bytes is left behind too), moves the release to its place, and removes all others but the one that
/// was used before it and those whose SHA-256 are `kept`. `own_files` bounds what is copied. The plugin's data is
/// not touched.
///
/// No program of the plugin's may be running on the sprite, nor another deployment.
///
/// # Blocking
/// Within what is given. If that is over, or cancelled, the script may run on for ten seconds.
///
/// # Errors
/// None of them needs anything to be cleaned up: the next attempt goes on from there.
/// - [`DeployError::Service`]: of the service, [`SpritesProblem::Damaged`] if files arrived damaged, or
///   [`SpritesProblem::Script`] if the script failed, such as for a full disk.
/// - [`DeployError::Package`]: a file is too large for the service, or cannot be read; or the plugin's own
///   files are over their limits.
pub(crate) fn deploy(
    client: &Client,
    sprite: &str,
    release: &Arc<Release>,
    own_files: &MigrationLimits,
    kept: &[&str],
    within: Within<'_>,
) -> Result<(), DeployError> {
    deploy_by(SCRIPT, client, sprite, release, own_files, kept, within)
}

/// Deploys with another script: tests end it in the middle.
pub(super) fn deploy_by(
    script: &str,
    client: &Client,
    sprite: &str,
    release: &Arc<Release>,
    own_files: &MigrationLimits,
    kept: &[&str],
    within: Within<'_>,
) -> Result<(), DeployError> {
    release.check()?;
    let sums = upload(client, sprite, release, within)?;
    let (arguments, input) = given(release, &sums, own_files, kept);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let end = script::run(client, sprite, script, &arguments, &input, within)?;
    judge(&end, own_files)
}

/// Whether a release is ready on a sprite that is there: whether the listing on it is that of the release. What
/// cannot be read as a file is not. One request, and nothing is changed: **whoever starts the plugin writes the
/// SHA-256 of its release into `current`**, since it may be that of going back to an older one.
///
/// # Blocking
/// Within what is given.
///
/// # Errors
/// Of the service.
pub(crate) fn is_deployed(
    client: &Client,
    sprite: &str,
    release: &Outline,
    within: Within<'_>,
) -> Result<bool, SpritesError> {
    let path = format!("{}/.complete", release.dir());
    match client.read_file(sprite, &path, within) {
        Ok(listing) => Ok(listing == release.listing),
        Err(error) => match error.problem {
            SpritesProblem::NotFound | SpritesProblem::TooLarge { .. } => Ok(false),
            // The plugin may have put a directory in its place.
            SpritesProblem::Refused { status, .. } if !matches!(status, 401 | 403) => Ok(false),
            _ => Err(error),
        },
    }
}

/// Returns the arguments of the script and its standard input.
fn given(
    release: &Release,
    sums: &[[u8; 32]],
    own_files: &MigrationLimits,
    kept: &[&str],
) -> (Vec<String>, Vec<u8>) {
    let listing = &release.outline().listing[..];
    let mut expected = String::new();
    for (file, sum) in release.files.files().iter().zip(sums) {
        // As `sha256sum -z` prints it. Writing to a string succeeds.
        let _ = write!(expected, "{}  ./{}\0", HEXLOWER.encode(sum), file.path);
    }
    let numbers = [
        listing.len() as u64,
        expected.len() as u64,
        own_files.files as u64,
        own_files.bytes,
        own_files.memory() as u64,
    ]
    // More than the shell can count to is no limit.
    .map(|number| number.min(i64::MAX as u64).to_string());
    let mut arguments = vec![BASE.to_owned(), release.sha256().to_owned()];
    arguments.extend(numbers);
    arguments.push(kept.join(" "));
    let input = [listing, expected.as_bytes()].concat();
    (arguments, input)
}

/// Returns what the end of the script means.
fn judge(end: &ScriptEnd, own_files: &MigrationLimits) -> Result<(), DeployError> {
    let stdout = String::from_utf8_lossy(&end.stdout);
    let mut lines = stdout.lines();
    let words: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let problem = match (end.code, &words[..]) {
        (0, [copied, bytes, left]) => {
            log::debug!("copied {copied} files of the plugin's own, of {bytes} bytes");
            if *left != "0" {
                let names: Vec<&str> = lines.collect();
                let names = names.join(" ");
                let names = Foreign::new(&names);
                log::warn!("{left} files of the plugin's own were not copied: {names}");
            }
            return Ok(());
        }
        (66, ["paths", ..]) => {
            return Err(PackageError::MigrationPathsTooLarge {
                dir: PathBuf::from(BASE),
                limit: own_files.memory() as u64,
            }
            .into());
        }
        (66, ["files", files, bytes]) => {
            return Err(PackageError::MigrationTooLarge {
                dir: PathBuf::from(BASE),
                files: files.parse().unwrap_or(usize::MAX),
                bytes: bytes.parse().unwrap_or(u64::MAX),
                file_limit: own_files.files,
                byte_limit: own_files.bytes,
            }
            .into());
        }
        (65, _) => SpritesProblem::Damaged,
        (67, _) => SpritesProblem::Broken(std::io::ErrorKind::UnexpectedEof.into()),
        (code, _) => SpritesProblem::Script {
            code: Some(code),
            message: String::from_utf8_lossy(&end.stderr).trim().into(),
        },
    };
    let action = COMPLETE;
    Err(SpritesError { action, problem }.into())
}

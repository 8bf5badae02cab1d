//! Uploading the files of a release to its staging directory, where an attempt before this one may have left
//! some.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::client::Client;
use super::deploy::DeployError;
use super::interrupt::Within;
use super::lanes::for_each;
use super::release::Release;
use crate::error::{PackageError, SpritesError, SpritesProblem};

const ACTION: &str = "upload the plugin to the sprite";

/// What is in the staging directory, by path below it.
#[derive(Default)]
struct Present {
    /// The sizes of files.
    files: HashMap<String, u64>,
    dirs: HashSet<String>,
}

struct Upload {
    client: Client,
    sprite: String,
    release: Arc<Release>,
    staging: String,
}

/// Uploads what is not there yet, and returns the SHA-256 of every file, in the order of the release. A file
/// counts as there if it has the right size; the script that completes the release looks at its content.
///
/// Up to four files are in memory at once: 64 MiB, since the service takes none above 16 MiB; and as many of all
/// deployments as there is [room](Client::upload_room) for.
pub(super) fn upload(
    client: &Client,
    sprite: &str,
    release: &Arc<Release>,
    within: Within<'_>,
) -> Result<Vec<[u8; 32]>, DeployError> {
    let upload = Arc::new(Upload {
        client: client.clone(),
        sprite: sprite.to_owned(),
        release: release.clone(),
        staging: release.staging(),
    });
    let present = upload.present(within)?;
    let count = release.files.files().len();
    let sums = Arc::new(Mutex::new(vec![[0; 32]; count]));
    let filled = sums.clone();
    let work = move |number, within: Within<'_>| {
        let sum = upload.file(number, &present, within)?;
        if let Some(place) = filled.lock().get_mut(number) {
            *place = sum;
        }
        Ok(())
    };
    for_each(ACTION, count, client.threads(), within, work)?;
    let sums = sums.lock().clone();
    Ok(sums)
}

impl Upload {
    /// Uploads a file unless it is there; returns its SHA-256.
    fn file(
        &self,
        number: usize,
        present: &Present,
        within: Within<'_>,
    ) -> Result<[u8; 32], DeployError> {
        let Some(file) = self.release.files.files().get(number) else {
            return Ok([0; 32]);
        };
        let room = self.client.upload_room().take(file.size, within);
        let _room = room.map_err(|problem| SpritesError {
            action: ACTION,
            problem,
        })?;
        let cancel = || within.check().is_err();
        let content = match self.release.files.read(file, &cancel) {
            Err(PackageError::Cancelled) => {
                let problem = within.check().err().unwrap_or(SpritesProblem::Cancelled);
                let action = ACTION;
                return Err(SpritesError { action, problem }.into());
            }
            content => content?,
        };
        if present.files.get(&file.path) != Some(&file.size) {
            let path = format!("{}/{}", self.staging, file.path);
            let client = &self.client;
            client.write_file(&self.sprite, &path, &content, file.mode, within)?;
        }
        Ok(Sha256::digest(&content).into())
    }

    /// Lists the staging directory, and those directories of the release that are in it: one request if
    /// there is none, and one for each directory that is there.
    fn present(self: &Arc<Self>, within: Within<'_>) -> Result<Present, DeployError> {
        let mut present = Present::default();
        match self.client.list_files(&self.sprite, &self.staging, within) {
            Err(error) if error.is_not_found() => return Ok(present),
            listed => present.add("", listed),
        }?;
        let mut depth = 0;
        loop {
            depth += 1;
            let dirs = self.release.files.dirs().iter();
            let here: Vec<String> = dirs
                .filter(|dir| dir.split('/').count() == depth)
                .filter(|dir| present.dirs.contains(*dir))
                .cloned()
                .collect();
            if here.is_empty() {
                return Ok(present);
            }
            let count = here.len();
            let found = Arc::new(Mutex::new(std::mem::take(&mut present)));
            let (upload, shared) = (self.clone(), found.clone());
            let list = move |number: usize, within: Within<'_>| {
                let Some(dir) = here.get(number) else {
                    return Ok(());
                };
                let path = format!("{}/{dir}", upload.staging);
                let listed = upload.client.list_files(&upload.sprite, &path, within);
                Ok(shared.lock().add(dir, listed)?)
            };
            for_each(ACTION, count, self.client.threads(), within, list)?;
            present = std::mem::take(&mut found.lock());
        }
    }
}

impl Present {
    /// Adds what is in a directory. What cannot be listed is not there, and will be uploaded.
    fn add(
        &mut self,
        dir: &str,
        listed: Result<Vec<super::files::FileEntry>, SpritesError>,
    ) -> Result<(), SpritesError> {
        let entries = match listed {
            Ok(entries) => entries,
            Err(error)
                if matches!(
                    error.problem,
                    SpritesProblem::NotFound | SpritesProblem::TooLarge { .. }
                ) =>
            {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        for entry in entries {
            let path = if dir.is_empty() {
                entry.name
            } else {
                format!("{dir}/{}", entry.name)
            };
            if entry.is_dir {
                self.dirs.insert(path);
            } else {
                self.files.insert(path, entry.size);
            }
        }
        Ok(())
    }
}

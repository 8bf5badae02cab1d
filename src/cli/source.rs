//! Turns the paths of the command line into records: of a directory, an archive, or the manifest of an
//! external plugin.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use plugin_runner::package::{self, Archive, PackageLimits, Review};
use plugin_runner::protocol::Manifest;
use plugin_runner::store::{PluginKind, Record, Source};
use plugin_runner::text::escape;
use plugin_runner::{InstallationId, PluginMode, Xid};
use sha2::{Digest as _, Sha256};

use super::error::CliError;
use super::manifest_file::{MANIFEST, ManifestFile, is_manifest};

/// How a zip archive begins.
const ARCHIVE_START: &[u8] = b"PK\x03\x04";

/// A plugin of this run.
#[derive(Debug)]
pub(crate) struct NamedPlugin {
    pub(crate) record: Record,
    /// The manifest's id, with a number where several plugins share it.
    pub(crate) name: Arc<str>,
}

/// Assigns each plugin a name of its own to show.
pub(crate) fn named(records: Vec<Record>) -> Vec<NamedPlugin> {
    let mut totals: HashMap<String, u32> = HashMap::new();
    for record in &records {
        *totals.entry(record.manifest.id.clone()).or_default() += 1;
    }
    let mut numbers: HashMap<String, u32> = HashMap::new();
    records
        .into_iter()
        .map(|record| {
            let id = &record.manifest.id;
            let number = numbers.entry(id.clone()).or_default();
            *number += 1;
            let name = if totals.get(id) == Some(&1) {
                id.as_str().into()
            } else {
                format!("{id}#{number}").into()
            };
            NamedPlugin { record, name }
        })
        .collect()
}

/// Returns the plugin in a directory or an archive.
pub(crate) fn supervised(path: &Path) -> Result<Record, CliError> {
    let (manifest, source) = read(path)?;
    if manifest.command.is_empty() {
        return Err(
            "the manifest names no command, so there is nothing to run; give the manifest to \
             --external if the plugin connects by itself"
                .into(),
        );
    }
    Ok(Record::supervised(manifest, source))
}

/// Returns an external plugin with the manifest in this file, and a new token.
pub(crate) fn external(path: &Path) -> Result<Record, CliError> {
    if path.is_dir() {
        let manifest = path.join(MANIFEST);
        let manifest = manifest.display();
        return Err(format!(
            "this is a directory; --external takes the manifest itself, such as {manifest}"
        )
        .into());
    }
    let file = ManifestFile::read(path)?;
    if file.bytes().starts_with(ARCHIVE_START) {
        return Err(format!(
            "this is an archive; --external takes the {MANIFEST} of a plugin that connects by itself"
        )
        .into());
    }
    Ok(Record::external(file.parse()?)?)
}

/// Returns whether the program that this plugin runs is a file of its archive, which is unpacked first.
pub(crate) fn unpacks_its_program(record: &Record) -> bool {
    let command = &record.manifest.command;
    let is_own_file = command.contains('/') && Path::new(command).is_relative();
    is_own_file && matches!(record.kind, PluginKind::Supervised(Source::Archive(_)))
}

/// Returns an id that is the same in every run with these files, so that a plugin finds its data again;
/// `occurrence` distinguishes files that are named twice.
pub(crate) fn lasting_id(record: &Record, path: &Path, occurrence: usize) -> InstallationId {
    let mode = match record.mode() {
        PluginMode::Supervised => "supervised",
        PluginMode::External => "external",
    };
    let digest = Sha256::new()
        .chain_update(mode)
        .chain_update([0])
        .chain_update(path.as_os_str().as_encoded_bytes())
        .chain_update([0])
        .chain_update(occurrence.to_be_bytes())
        .finalize();
    let mut bytes = [0; 12];
    bytes.copy_from_slice(&digest[..12]);
    Xid::from_bytes(bytes).into()
}

fn read(path: &Path) -> Result<(Manifest, Source), CliError> {
    // Absolute, since the plugin is started again long after.
    let absolute = path.canonicalize().map_err(CliError::cannot("open it"))?;
    if absolute.is_dir() {
        let file = ManifestFile::in_directory(path)?;
        let manifest = file.parse()?;
        tell(
            &file,
            &manifest,
            &package::review_directory(path, &manifest),
        );
        return Ok((manifest, Source::Directory(absolute)));
    }
    if is_manifest(path) {
        return Err(
            "this is the manifest; give the directory that it is in, or --external for a plugin that \
             connects by itself"
                .into(),
        );
    }
    let archive =
        Archive::open(&absolute, &PackageLimits::default()).map_err(|error| error.to_string())?;
    let file = ManifestFile::json(archive.manifest_bytes().to_vec());
    let manifest = file.parse()?;
    tell(&file, &manifest, &package::review(&archive, &manifest));
    Ok((manifest, Source::Archive(absolute)))
}

/// Warns of what an installation would refuse or warn of. The plugin is run all the same: its author sees
/// what comes of it.
fn tell(file: &ManifestFile, manifest: &Manifest, found: &Review) {
    let problems = found
        .problems
        .iter()
        // A missing command has an error of its own.
        .filter(|_| !manifest.command.is_empty());
    let problems = problems.map(ToString::to_string);
    for text in problems.chain(found.warnings.iter().cloned()) {
        let text = file.renamed(&text);
        log::warn!("plugin {:.1024}: {text}", escape(&manifest.id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str) -> Record {
        let manifest = Manifest {
            id: id.to_owned(),
            ..Manifest::default()
        };
        Record::supervised(manifest, Source::Directory("/x".into()))
    }

    #[test]
    fn plugins_with_one_id_are_told_apart() {
        let names: Vec<_> = named(vec![record("a"), record("b"), record("a")])
            .into_iter()
            .map(|plugin| plugin.name.to_string())
            .collect();
        assert_eq!(names, ["a#1", "b", "a#2"]);
    }

    #[test]
    fn ids_last_and_are_distinct() {
        let id = |path: &str, occurrence| lasting_id(&record("a"), Path::new(path), occurrence);
        assert_eq!(id("/x", 0), id("/x", 0));
        assert_ne!(id("/x", 0), id("/x", 1));
        assert_ne!(id("/x", 0), id("/y", 0));
        // A valid xid, or plugins could not use it.
        assert!(id("/x", 0).to_string().parse::<InstallationId>().is_ok());
    }
}

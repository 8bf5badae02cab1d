//! `plugin-runner dev package`: packs a plugin's directory, and prints what was left out.

use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use plugin_runner::package::{self, PackageLimits, Packed};
use plugin_runner::text::escape;

use super::error::{CliError, SHOWN};
use super::manifest_file::ManifestFile;

/// The arguments of `dev package`.
#[derive(Args, Debug)]
pub(crate) struct PackageArguments {
    /// The plugin's directory, with manifest.json or manifest.yaml.
    #[arg(value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    /// The archive to write [default: the manifest's id with .zip, in the working directory].
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the archive if it exists.
    #[arg(long)]
    force: bool,
}

/// Packs a directory.
///
/// # Errors
/// [`CliError`]: it is no plugin's, would not be installed, or the archive cannot be written.
pub(crate) fn package(arguments: &PackageArguments) -> Result<(), CliError> {
    let directory = &arguments.directory;
    let about = |failure: CliError| failure.about(directory.display());
    let metadata = fs::metadata(directory).map_err(CliError::cannot("open it"));
    if !metadata.map_err(about)?.is_dir() {
        return Err(about("this is a file; give the plugin's directory".into()));
    }
    let file = ManifestFile::in_directory(directory).map_err(about)?;
    let manifest = file.parse().map_err(about)?;
    let output = arguments
        .output
        .clone()
        .unwrap_or_else(|| format!("{}.zip", manifest.id).into());
    if !arguments.force && output.symlink_metadata().is_ok() {
        return Err(exists(&output));
    }
    let limits = PackageLimits::default();
    let packed = package::pack(directory, file.bytes(), Some(&output), &limits)
        .map_err(|error| about(file.renamed(&error.to_string()).into()))?;
    if let Err(error) = packed.write(&output, arguments.force) {
        // It was made meanwhile.
        let is_there = !arguments.force && output.symlink_metadata().is_ok();
        return Err(if is_there {
            exists(&output)
        } else {
            error.into()
        });
    }
    let mut stdout = io::stdout().lock();
    let printed = stdout
        .write_all(report(&file, &packed, &output).as_bytes())
        .and_then(|()| stdout.flush());
    match printed {
        // A reader that has left is no failure.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(CliError::cannot("write to standard output")(error))
        }
        _ => Ok(()),
    }
}

fn exists(output: &Path) -> CliError {
    let output = output.display();
    format!("{output} exists; --force replaces it, and --output names another").into()
}

fn report(file: &ManifestFile, packed: &Packed, output: &Path) -> String {
    let mut lines: Vec<(&str, String)> = Vec::new();
    for (path, why) in &packed.left_out {
        lines.push(("left out", format!("{path}: {why}")));
    }
    for warning in &packed.warnings {
        lines.push(("warning", file.renamed(warning)));
    }
    let archive = &packed.archive;
    let (files, bytes) = (archive.files().count(), archive.size());
    let (output, sha256) = (output.display(), archive.sha256());
    let what = format!("{output} has {files} files in {bytes} bytes, SHA-256 {sha256}");
    lines.push(("ok", what));
    let lines = lines
        .iter()
        .map(|(kind, what)| format!("{kind}: {:.SHOWN$}\n", escape(what)));
    lines.collect()
}

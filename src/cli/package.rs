//! `plugin-runner dev package`: packs a plugin's directory, and prints what was left out.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use plugin_runner::package::{self, PackageLimits, Packed};
use plugin_runner::text::escape;
use serde_json::json;

use super::client::output;
use super::error::{CliError, SHOWN};
use super::manifest_file::ManifestFile;

const EXAMPLES: &str = "\
Examples:
  plugin-runner dev package ./hello --output hello-1.0.0.zip
  plugin-runner dev package ./hello --force --json";

/// The arguments of `dev package`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
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
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
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
    let path = arguments
        .output
        .clone()
        .unwrap_or_else(|| format!("{}.zip", manifest.id).into());
    if !arguments.force && path.symlink_metadata().is_ok() {
        return Err(exists(&path));
    }
    let limits = PackageLimits::default();
    let packed = package::pack(directory, file.bytes(), Some(&path), &limits)
        .map_err(|error| about(file.renamed(&error.to_string()).into()))?;
    if let Err(error) = packed.write(&path, arguments.force) {
        // It was made meanwhile.
        let is_there = !arguments.force && path.symlink_metadata().is_ok();
        return Err(if is_there {
            exists(&path)
        } else {
            error.into()
        });
    }
    if arguments.json {
        let archive = &packed.archive;
        let left_out = packed.left_out.iter();
        let warnings = packed.warnings.iter();
        output::json(&json!({
            "path": path.to_string_lossy(),
            "id": manifest.id,
            "version": manifest.version,
            "files": archive.files().count(),
            "bytes": archive.size(),
            "sha256": archive.sha256().to_string(),
            "left_out": left_out.map(|(path, why)| json!({ "path": path, "why": why })).collect::<Vec<_>>(),
            "warnings": warnings.map(|warning| file.renamed(warning)).collect::<Vec<_>>(),
        }))
    } else {
        output::print(&report(&file, &packed, &path))
    }
}

fn exists(output: &Path) -> CliError {
    let output = output.display();
    format!("{output} exists; --force replaces it, and --output names another").into()
}

fn report(file: &ManifestFile, packed: &Packed, output: &Path) -> String {
    let mut lines: Vec<(&str, String)> = Vec::new();
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
    left_out(&packed.left_out) + &lines.collect::<String>()
}

/// Returns a line for each path that was left out.
pub(crate) fn left_out(paths: &[(String, &'static str)]) -> String {
    let lines = paths.iter();
    let lines = lines.map(|(path, why)| format!("left out: {:.SHOWN$}: {why}\n", escape(path)));
    lines.collect()
}

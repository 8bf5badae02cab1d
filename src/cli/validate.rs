//! `plugin-runner validate`: prints everything that is wrong with a directory or an archive, not only the
//! first problem.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use plugin_runner::package::{self, Archive, PackageLimits, Review};
use plugin_runner::protocol::Manifest;
use plugin_runner::text::escape;
use serde_json::{Value, json};

use super::client::output;
use super::data_dir::DataDir;
use super::error::{CliError, SHOWN, Status};
use super::manifest_file::{ManifestFile, is_manifest};
use super::run::say;

/// What was found.
#[derive(Debug, Default)]
struct ValidationReport {
    problems: Vec<String>,
    warnings: Vec<String>,
    /// The manifest, if it could be used.
    manifest: Option<Manifest>,
    /// Files and their bytes, for an archive.
    size: Option<(usize, u64)>,
}

const EXAMPLES: &str = "\
Examples:
  plugin-runner validate ./hello
  plugin-runner validate hello.zip hello-2.zip --json";

/// The arguments of `validate`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ValidateArguments {
    /// Directories with manifest.json or manifest.yaml, and zip archives.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// Print one JSON object for each path.
    #[arg(long)]
    json: bool,
}

/// Prints the problems of each plugin, or a summary if it has none.
///
/// # Errors
/// [`CliError`] when one has problems, or is not a plugin at all; of several, each is said.
pub(crate) fn validate(arguments: &ValidateArguments) -> Result<(), CliError> {
    let several = arguments.paths.len() > 1;
    let mut outcome = Ok(());
    for path in &arguments.paths {
        let Err(failure) = one(path, several, arguments.json) else {
            continue;
        };
        if !several {
            return Err(failure);
        }
        say(&failure.to_string());
        outcome = Err(failure.said());
    }
    outcome
}

fn one(path: &Path, several: bool, json: bool) -> Result<(), CliError> {
    let found = find(path);
    let printed = match &found {
        Ok(findings) if json => output::json(&findings.object(path)),
        Err(failure) if json => {
            let problem = failure.to_string();
            output::json(
                &ValidationReport {
                    problems: vec![problem],
                    ..ValidationReport::default()
                }
                .object(path),
            )
        }
        Ok(findings) => output::print(&findings.report(path, several)),
        Err(_) => Ok(()),
    };
    match printed {
        // What was found counts, also when nothing reads it.
        Err(failure) if failure.status() == Status::Done => {}
        printed => printed?,
    }
    match found
        .map_err(|failure| failure.about(path.display()))?
        .problems
        .len()
    {
        0 => Ok(()),
        1 => Err(format!("{} has a problem", path.display()).into()),
        count => Err(format!("{} has {count} problems", path.display()).into()),
    }
}

fn find(path: &Path) -> Result<ValidationReport, CliError> {
    let metadata = fs::metadata(path).map_err(CliError::cannot("open it"))?;
    if metadata.is_dir() {
        Ok(directory(path))
    } else if is_manifest(path) {
        Err("this is the manifest; give the directory that it is in".into())
    } else {
        archive(path)
    }
}

fn directory(path: &Path) -> ValidationReport {
    let mut findings = ValidationReport::default();
    match ManifestFile::in_directory(path) {
        Ok(file) => {
            findings.manifest(&file);
            findings.review(&file, |manifest| package::review_directory(path, manifest));
        }
        Err(failure) => findings.problems.push(failure.to_string()),
    }
    findings
}

fn archive(path: &Path) -> Result<ValidationReport, CliError> {
    let limits = PackageLimits::default();
    let mut findings = ValidationReport::default();
    let problems = Archive::problems(path, &limits);
    if !problems.is_empty() {
        let problems = problems.iter().map(ToString::to_string);
        findings.problems.extend(problems);
        return Ok(findings);
    }
    let archive = Archive::open(path, &limits).map_err(|error| error.to_string())?;
    let (files, bytes) = (
        archive.files().count(),
        archive.files().map(|(_, size)| size),
    );
    findings.size = Some((files, bytes.sum()));
    let file = ManifestFile::json(archive.manifest_bytes().to_vec());
    findings.manifest(&file);
    findings.review(&file, |manifest| package::review(&archive, manifest));
    let manifest = findings.manifest.as_ref();
    let command = manifest.map_or("", |manifest| &manifest.command);
    // Damage inside an entry shows only when it is unpacked.
    let scratch = DataDir::temporary()?;
    let unpacked = package::unpack(&archive, scratch.path(), command, &limits, &|| false);
    if let Err(error) = unpacked {
        findings.problems.push(error.to_string());
    }
    Ok(findings)
}

impl ValidationReport {
    fn manifest(&mut self, file: &ManifestFile) {
        match file.check() {
            Ok(manifest) => self.manifest = Some(manifest),
            Err(problems) => self.problems.extend(problems),
        }
    }

    /// Adds what an installation would find.
    fn review(&mut self, file: &ManifestFile, review: impl FnOnce(&Manifest) -> Review) {
        if let Some(manifest) = &self.manifest {
            let found = review(manifest);
            let problems = found.problems.iter().map(ToString::to_string);
            self.problems
                .extend(problems.map(|problem| file.renamed(&problem)));
            let warnings = found.warnings.iter();
            self.warnings
                .extend(warnings.map(|warning| file.renamed(warning)));
        }
    }

    fn object(&self, path: &Path) -> Value {
        let manifest = self.manifest.as_ref();
        json!({
            "path": path.to_string_lossy(),
            "valid": self.problems.is_empty(),
            "problems": self.problems,
            "warnings": self.warnings,
            "id": manifest.map(|manifest| &manifest.id),
            "version": manifest.map(|manifest| &manifest.version),
            "transport": manifest.map(|manifest| manifest.transport.to_string()),
            "files": self.size.map(|(files, _)| files),
            "bytes": self.size.map(|(_, bytes)| bytes),
        })
    }

    /// Returns a line for each problem and warning, with the path where it stands among others.
    fn report(&self, path: &Path, named: bool) -> String {
        let mut text = String::new();
        let mut put = |kind: &str, what: &str| {
            let name = if named && kind != "ok" {
                format!("{}: ", path.display())
            } else {
                String::new()
            };
            // Writing to a string succeeds.
            let _ = writeln!(text, "{kind}: {:.SHOWN$}", escape(&format!("{name}{what}")));
        };
        for problem in &self.problems {
            put("problem", problem);
        }
        for warning in &self.warnings {
            put("warning", warning);
        }
        if !self.problems.is_empty() {
            return text;
        }
        if let Some(manifest) = &self.manifest {
            let mut what = format!("{} is plugin {}", path.display(), manifest.id);
            if !manifest.version.is_empty() {
                let _ = write!(what, ", version {:?}", manifest.version);
            }
            let _ = write!(what, ", over {}", manifest.transport);
            if let Some((files, bytes)) = self.size {
                let files = counted(files as u64, "file");
                let _ = write!(what, ", {files} of {}", counted(bytes, "byte"));
            }
            put("ok", &what);
        }
        text
    }
}

fn counted(count: u64, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many() {
        assert_eq!(counted(1, "file"), "1 file");
        assert_eq!(counted(0, "byte"), "0 bytes");
    }
}

//! `plugin-runner validate`: prints everything that is wrong with a directory or an archive, not only the
//! first problem.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use plugin_runner::package::{self, Archive, PackageLimits, Review};
use plugin_runner::protocol::Manifest;
use plugin_runner::text::escape;

use super::data_dir::DataDir;
use super::error::{CliError, SHOWN};
use super::manifest_file::{ManifestFile, is_manifest};

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

/// Prints the problems of a plugin, or a summary if it has none.
///
/// # Errors
/// [`CliError`] when it has problems, or is not a plugin at all.
pub(crate) fn validate(path: &Path) -> Result<(), CliError> {
    let findings = find(path).map_err(|failure| failure.about(path.display()))?;
    print(&findings.report(path))?;
    match findings.problems.len() {
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

/// A reader that has left is no failure.
fn print(text: &str) -> Result<(), CliError> {
    let mut output = io::stdout().lock();
    let written = output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(CliError::cannot("write to standard output")),
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

    fn report(&self, path: &Path) -> String {
        let mut text = String::new();
        let mut put = |kind: &str, what: &str| {
            // Writing to a string succeeds.
            let _ = writeln!(text, "{kind}: {:.SHOWN$}", escape(what));
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

//! `plugin-runner validate`: everything that is wrong with a folder or an archive, not only the
//! first thing.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use plugin_runner::error::{ManifestError, PackageError};
use plugin_runner::package::{self, Archive, PackageLimits};
use plugin_runner::protocol::Manifest;
use plugin_runner::text::Foreign;

use super::failure::{Failure, SHOWN};
use super::folder::DataFolder;
use super::source::{MANIFEST, is_manifest, no_manifest, read_manifest};

/// What was found.
#[derive(Debug, Default)]
struct Findings {
    problems: Vec<String>,
    warnings: Vec<String>,
    /// The manifest, if it could be used.
    manifest: Option<Manifest>,
    /// Files and their bytes, for an archive.
    size: Option<(usize, u64)>,
}

/// Where a command leads.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    /// To a file of the plugin: its path from the plugin's folder.
    Own(PathBuf),
    /// To a program of the system, by name.
    Bare,
    /// Out of the plugin's folder.
    Outside,
}

/// Prints what is wrong with a plugin, or what it is.
///
/// # Errors
/// [`Failure`] when it has problems, or is no plugin at all.
pub(crate) fn validate(path: &Path) -> Result<(), Failure> {
    let metadata = fs::metadata(path).map_err(|error| {
        Failure::failed(format!("cannot open it: {error}")).about(path.display())
    })?;
    let findings = if metadata.is_dir() {
        folder(path)
    } else if is_manifest(path) {
        return Err(
            Failure::failed("this is the manifest; give the folder that it is in")
                .about(path.display()),
        );
    } else {
        archive(path)?
    };
    print(&findings.report(path))?;
    match findings.problems.len() {
        0 => Ok(()),
        1 => Err(Failure::failed(format!("{} has a problem", path.display()))),
        count => Err(Failure::failed(format!(
            "{} has {count} problems",
            path.display()
        ))),
    }
}

/// Nobody reading is no failure.
fn print(text: &str) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    let written = output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush());
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::failed(format!(
            "cannot write to standard output: {error}"
        ))),
        _ => Ok(()),
    }
}

fn folder(path: &Path) -> Findings {
    let mut findings = Findings::default();
    let file = path.join(MANIFEST);
    if !file.exists() {
        findings.problems.push(no_manifest(path));
        return findings;
    }
    match read_manifest(&file) {
        Ok(json) => findings.manifest(&json),
        Err(failure) => findings.problems.push(failure.about(MANIFEST).to_string()),
    }
    if let Some(manifest) = findings.manifest.take() {
        findings.command_in_folder(path, &manifest);
        findings.manifest = Some(manifest);
    }
    findings
}

fn archive(path: &Path) -> Result<Findings, Failure> {
    let limits = PackageLimits::default();
    let mut findings = Findings::default();
    let problems = Archive::problems(path, &limits);
    if !problems.is_empty() {
        let problems = problems.iter().map(PackageError::to_string);
        findings.problems.extend(problems);
        return Ok(findings);
    }
    let archive =
        Archive::open(path, &limits).map_err(|error| Failure::failed(error.to_string()))?;
    let files = archive.entries().iter().filter(|entry| !entry.is_folder());
    findings.size = Some(files.fold((0, 0), |(files, bytes), entry| {
        (files + 1, bytes + entry.size())
    }));
    findings.manifest(archive.manifest_bytes());
    let command = findings
        .manifest
        .as_ref()
        .map(|manifest| manifest.command.clone());
    if let Some(manifest) = findings.manifest.take() {
        findings.command_in_archive(&archive, &manifest);
        findings.manifest = Some(manifest);
    }
    // Damage inside an entry shows only when it is unpacked.
    let scratch = DataFolder::temporary()?;
    let unpacked = package::unpack(
        &archive,
        scratch.path(),
        command.as_deref().unwrap_or_default(),
        &limits,
        &|| false,
    );
    if let Err(error) = unpacked {
        findings.problems.push(error.to_string());
    }
    Ok(findings)
}

impl Findings {
    fn manifest(&mut self, json: &[u8]) {
        let manifest = match Manifest::parse(json) {
            Ok(manifest) => manifest,
            Err(ManifestError::Invalid { problems }) => {
                let problems = problems
                    .iter()
                    .map(|problem| format!("{MANIFEST}: {problem}"));
                self.problems.extend(problems);
                return;
            }
            Err(error) => {
                self.problems.push(error.to_string());
                return;
            }
        };
        for event in manifest.unknown_events() {
            self.warnings.push(format!(
                "{MANIFEST}: Storyden has no event {event:?}; it comes only from a host that \
                 defines it"
            ));
        }
        for (field, value) in [
            ("description", &manifest.description),
            ("version", &manifest.version),
        ] {
            if value.is_empty() {
                self.warnings
                    .push(format!("{MANIFEST}: field `{field}` is missing or empty"));
            }
        }
        if manifest.command.is_empty() {
            self.problems.push(format!(
                "{MANIFEST}: field `command` is missing or empty, so a host cannot start it; it can \
                 only connect by itself, as with run --external"
            ));
        }
        self.manifest = Some(manifest);
    }

    fn command_in_folder(&mut self, folder: &Path, manifest: &Manifest) {
        let command = &manifest.command;
        match Command::of(command) {
            _ if command.is_empty() => {}
            Command::Bare => self.bare_command(command, folder.join(command).is_file()),
            // Started where it stands, so it counts wherever that is.
            Command::Own(_) | Command::Outside => match fs::metadata(folder.join(command)) {
                Ok(metadata) if !metadata.is_file() => {
                    self.problems
                        .push(format!("the command {command:?} is not a file"));
                }
                Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => {
                    self.problems.push(format!(
                        "the command {command:?} is not executable; chmod +x makes it so"
                    ));
                }
                Ok(_) => {}
                Err(error) => self
                    .problems
                    .push(format!("the command {command:?} cannot be found: {error}")),
            },
        }
    }

    fn command_in_archive(&mut self, archive: &Archive, manifest: &Manifest) {
        let command = &manifest.command;
        let file = |path: &Path| {
            archive
                .entries()
                .iter()
                .find(|entry| !entry.is_folder() && Path::new(entry.path()) == path)
        };
        match Command::of(command) {
            _ if command.is_empty() => {}
            Command::Bare => self.bare_command(command, file(Path::new(command)).is_some()),
            Command::Outside => self.warnings.push(format!(
                "the command {command:?} is outside the archive, and must be there on every host"
            )),
            Command::Own(path) => match file(&path) {
                Some(entry) if entry.mode() & 0o111 == 0 => self.warnings.push(format!(
                    "the command {command:?} is not executable; it is made so when unpacked"
                )),
                Some(_) => {}
                None => {
                    let mut problem = format!("the command {command:?} is not in the archive");
                    let parent = Path::new(archive.manifest_path()).parent();
                    let beside = parent.map(|parent| parent.join(&path));
                    if let Some(beside) = beside.filter(|beside| file(beside).is_some()) {
                        // Writing to a string succeeds.
                        let _ = write!(
                            problem,
                            "; paths begin at the archive's root, so write \"./{}\"",
                            beside.display()
                        );
                    }
                    self.problems.push(problem);
                }
            },
        }
    }

    /// A name without a slash is looked up on `PATH`, even if a file of that name lies there.
    fn bare_command(&mut self, command: &str, lies_there: bool) {
        let found = std::env::var_os("PATH").is_some_and(|path| {
            std::env::split_paths(&path).any(|folder| folder.join(command).is_file())
        });
        if lies_there {
            self.warnings.push(format!(
                "the command {command:?} is looked up on PATH; to run the plugin's own file write \
                 \"./{command}\""
            ));
        }
        if !found {
            self.warnings.push(format!(
                "the command {command:?} is not on this machine's PATH"
            ));
        }
    }

    fn report(&self, path: &Path) -> String {
        let mut text = String::new();
        let mut put = |kind: &str, what: &str| {
            // Writing to a string succeeds.
            let what = what.replace('\n', " ");
            let _ = writeln!(text, "{kind}: {}", Foreign::new(&what).limited_to(SHOWN));
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

impl Command {
    fn of(command: &str) -> Self {
        if !command.contains('/') {
            return Self::Bare;
        }
        let mut path = PathBuf::new();
        for component in Path::new(command).components() {
            match component {
                Component::CurDir => {}
                Component::Normal(part) => path.push(part),
                Component::ParentDir if path.pop() => {}
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                    return Self::Outside;
                }
            }
        }
        Self::Own(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many() {
        assert_eq!(counted(1, "file"), "1 file");
        assert_eq!(counted(0, "byte"), "0 bytes");
    }

    #[test]
    fn where_commands_lead() {
        let own = |path: &str| Command::Own(path.into());
        for (command, leads) in [
            ("python3", Command::Bare),
            ("./main", own("main")),
            ("bin/../main", own("main")),
            ("bin//main", own("bin/main")),
            ("../main", Command::Outside),
            ("a/../../main", Command::Outside),
            ("/usr/bin/env", Command::Outside),
        ] {
            assert_eq!(Command::of(command), leads, "{command}");
        }
    }
}

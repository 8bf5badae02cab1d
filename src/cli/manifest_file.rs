//! The file in which an author writes a plugin's manifest: `manifest.json`, or `manifest.yaml`, which is read as
//! the JSON that it stands for.

use std::io::Read as _;
use std::path::Path;

use plugin_runner::Error;
use plugin_runner::protocol::Manifest;

use super::error::CliError;
use super::private_file::open_named;
use super::yaml::YamlDocument;

/// The manifest's name in an archive, and in a directory.
pub(crate) const MANIFEST: &str = "manifest.json";
/// The other name that it may have in a directory.
const YAML: &str = "manifest.yaml";
/// What the library reads of an archive's.
const JSON_LIMIT: u64 = 1024 * 1024;
/// Far more than an author writes; the work for each byte is more than for JSON.
const YAML_LIMIT: u64 = 64 * 1024;

/// A manifest as JSON that has not been checked.
#[derive(Debug)]
pub(crate) struct ManifestFile {
    name: &'static str,
    json: Vec<u8>,
    /// The YAML that it was, if so.
    yaml: Option<YamlDocument>,
}

impl ManifestFile {
    /// Reads the manifest of a plugin's directory.
    ///
    /// # Errors
    /// There is none, there are two, or it cannot be read.
    pub(crate) fn in_directory(dir: &Path) -> Result<Self, CliError> {
        let is_there = |name: &str| dir.join(name).exists();
        let name = match (is_there(MANIFEST), is_there(YAML)) {
            (true, false) => MANIFEST,
            (false, true) => YAML,
            (true, true) => {
                return Err(format!(
                    "both {MANIFEST} and {YAML} are in this directory, and only one can count; remove the other"
                )
                .into());
            }
            (false, false) if is_there("manifest.yml") => {
                return Err(format!(
                    "no {MANIFEST} or {YAML} in this directory; rename its manifest.yml to {YAML}"
                )
                .into());
            }
            (false, false) => {
                return Err(format!(
                    "no {MANIFEST} or {YAML} in this directory, so it is not a plugin's"
                )
                .into());
            }
        };
        Self::read(&dir.join(name)).map_err(|failure| failure.about(name))
    }

    /// Reads a manifest that may have any name; one that ends with `.yaml` or `.yml` is YAML.
    ///
    /// # Errors
    /// It cannot be read, is too large, or is no YAML. Whether it is JSON is not checked.
    pub(crate) fn read(path: &Path) -> Result<Self, CliError> {
        let is_yaml = path
            .extension()
            .is_some_and(|end| end == "yaml" || end == "yml");
        if !is_yaml {
            return Ok(Self::json(bounded(path, JSON_LIMIT)?));
        }
        let text = bounded(path, YAML_LIMIT)?;
        let text = str::from_utf8(&text).map_err(CliError::cannot("read it as UTF-8"))?;
        let yaml = YamlDocument::parse(text)?;
        Ok(Self {
            name: YAML,
            json: serde_json::to_vec_pretty(&yaml.value)
                .map_err(CliError::cannot("convert it to JSON"))?,
            yaml: Some(yaml),
        })
    }

    /// Takes the manifest of an archive.
    pub(crate) const fn json(json: Vec<u8>) -> Self {
        Self {
            name: MANIFEST,
            json,
            yaml: None,
        }
    }

    /// Returns what the library says of a plugin with this file's name in the place of the one in an archive.
    pub(crate) fn renamed(&self, text: &str) -> String {
        match text.strip_prefix(MANIFEST) {
            Some(rest) => format!("{}{rest}", self.name),
            None => text.to_owned(),
        }
    }

    /// Returns the JSON.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.json
    }

    /// Decodes and checks it.
    ///
    /// # Errors
    /// All that is wrong with it, in one sentence.
    pub(crate) fn parse(&self) -> Result<Manifest, CliError> {
        Manifest::parse(&self.json).map_err(|error| match &self.yaml {
            Some(_) => self.problems(&error).join("; ").into(),
            None => error.to_string().into(),
        })
    }

    /// Decodes and checks it.
    ///
    /// # Errors
    /// Each thing that is wrong with it, in a sentence that names the file.
    pub(crate) fn check(&self) -> Result<Manifest, Vec<String>> {
        Manifest::parse(&self.json).map_err(|error| self.problems(&error))
    }

    fn problems(&self, error: &Error) -> Vec<String> {
        let problems = error.problems();
        if problems.is_empty() {
            return vec![error.to_string()];
        }
        let told = problems.iter().map(|problem| {
            let line = self.yaml.as_ref().and_then(|yaml| {
                let line = yaml.line(&problem.field)?;
                Some(format!(" line {line}:"))
            });
            let bare = self.yaml.as_ref().is_some_and(|yaml| {
                yaml.is_bare(&problem.field) && problem.message.starts_with("must be a string")
            });
            let quote = if bare { "; put it in quotes" } else { "" };
            let name = self.name;
            format!("{name}:{} {problem}{quote}", line.unwrap_or_default())
        });
        told.collect()
    }
}

/// Returns whether this path names a manifest where its directory is meant.
pub(crate) fn is_manifest(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name == MANIFEST || name == YAML)
}

fn bounded(path: &Path, limit: u64) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    let file = open_named(path).map_err(CliError::cannot("read it"))?;
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(CliError::cannot("read it"))?;
    if bytes.len() as u64 > limit {
        return Err(format!("a manifest has at most {limit} bytes").into());
    }
    Ok(bytes)
}

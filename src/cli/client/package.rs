//! `Package`: what is installed, in a file or a directory that this program reads, or at a URL that the host fetches.

use std::io::Read;
use std::path::Path;

use plugin_runner::package::{self, Archive, PackageLimits};
use plugin_runner::protocol::Manifest;
use plugin_runner::text::escape;
use serde::de::DeserializeOwned;
use serde_json::json;
use ureq::http::Method;

use super::api::{Api, Upload};
use super::progress::Transfer;
use crate::cli::error::CliError;
use crate::cli::manifest_file::{ManifestFile, is_manifest};

const ZIP: &str = "application/zip";

/// What can be installed.
pub(super) enum Package {
    /// Read, checked and in memory.
    Archive {
        archive: Box<Archive>,
        manifest: Box<Manifest>,
        /// What its author may have overlooked, if it was packed here.
        warnings: Vec<String>,
        /// What was left out, and why, if it was packed here.
        left_out: Vec<(String, &'static str)>,
    },
    Url(String),
}

impl Package {
    /// Reads the package at a path, or takes a URL as it is. A directory is packed in memory.
    ///
    /// # Errors
    /// [`CliError`] says what is there instead of a package, or why it could not be installed.
    pub(super) fn open(named: &str) -> Result<Self, CliError> {
        if named.starts_with("http://") || named.starts_with("https://") {
            return Ok(Self::Url(named.to_owned()));
        }
        let path = Path::new(named);
        let about = |failure: CliError| failure.about(escape(named));
        let found = std::fs::metadata(path).map_err(|error| {
            about(match error.kind() {
                std::io::ErrorKind::NotFound => {
                    "there is no such file or directory; a package is a zip archive, a plugin's directory, or a URL"
                        .into()
                }
                _ => CliError::cannot("open it")(error),
            })
        })?;
        if found.is_dir() {
            return Self::packed(path).map_err(about);
        }
        let is_json = path.extension().is_some_and(|end| end == "json");
        if is_json || is_manifest(path) {
            return Err(about(
                "a manifest is no package; name the directory that it is in, or --external for a plugin that runs elsewhere"
                    .into(),
            ));
        }
        let archive = Archive::open(path, &PackageLimits::default());
        let archive = archive.map_err(|error| about(error.into()))?;
        let manifest = Manifest::parse(archive.manifest_bytes());
        let manifest = manifest.map_err(|error| about(error.into()))?;
        Ok(Self::Archive {
            archive: Box::new(archive),
            manifest: Box::new(manifest),
            warnings: Vec::new(),
            left_out: Vec::new(),
        })
    }

    /// Packs a plugin's directory in memory.
    ///
    /// # Errors
    /// [`CliError`] says what is there instead, or why it could not be installed.
    pub(super) fn in_directory(directory: &Path) -> Result<Self, CliError> {
        let about = |failure: CliError| failure.about(directory.display());
        let found = std::fs::metadata(directory).map_err(CliError::cannot("open it"));
        if !found.map_err(about)?.is_dir() {
            return Err(about("this is a file; give the plugin's directory".into()));
        }
        Self::packed(directory).map_err(about)
    }

    fn packed(directory: &Path) -> Result<Self, CliError> {
        let file = ManifestFile::in_directory(directory)?;
        let manifest = file.parse()?;
        let packed = package::pack(directory, file.bytes(), None, &PackageLimits::default());
        let packed = packed.map_err(|error| file.renamed(&error.to_string()))?;
        let warnings = packed.warnings.iter();
        Ok(Self::Archive {
            archive: Box::new(packed.archive),
            manifest: Box::new(manifest),
            warnings: warnings.map(|warning| file.renamed(warning)).collect(),
            left_out: packed.left_out,
        })
    }

    /// Returns the id of the plugin in it, if it was read.
    pub(super) fn id(&self) -> Option<&str> {
        match self {
            Self::Archive { manifest, .. } => Some(&manifest.id),
            Self::Url(_) => None,
        }
    }

    /// Sends it to the host, and shows how far that is. `sha256` is what it must have.
    ///
    /// # Errors
    /// As [`Api::upload`].
    pub(super) fn send<T: DeserializeOwned>(
        &self,
        api: &Api,
        method: Method,
        path: &str,
        sha256: Option<&str>,
    ) -> Result<T, CliError> {
        let path = match sha256 {
            Some(sha256) => format!("{path}?sha256={sha256}"),
            None => path.to_owned(),
        };
        match self {
            Self::Archive { archive, .. } => {
                let content = archive.content();
                let length = content
                    .size()
                    .map_err(CliError::cannot("read the package"))?;
                let transfer = Transfer::new("uploading", Some(length));
                let mut reader: Box<dyn Read> = Box::new(transfer.reading(content.reader()));
                api.upload(
                    method,
                    &path,
                    Upload {
                        content_type: ZIP,
                        length,
                        content: &mut *reader,
                    },
                )
            }
            Self::Url(url) => {
                let body = json!({ "mode": "supervised", "url": url });
                super::progress::waiting("the host fetches the package", || {
                    api.change(method, &path, Some(&body))
                })
            }
        }
    }
}

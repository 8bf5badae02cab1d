//! `AdminFile`: the file in the data directory that tells programs on this machine where the server is.

use std::path::{Path, PathBuf};
use std::time::SystemTime;
use std::{fs, io};

use serde_json::json;

use crate::cli::error::CliError;
use crate::cli::private_file;

pub(crate) const FILE: &str = "admin.json";

/// The file, there for as long as this is. A killed server leaves its own, which the next one replaces; `pid`
/// tells whether its server runs.
#[derive(Debug)]
pub(super) struct AdminFile {
    path: PathBuf,
}

impl AdminFile {
    /// Writes the file. The one with the token is named, relative to the directory, unless the token is in no file.
    ///
    /// # Errors
    /// [`CliError`] when it cannot be written.
    pub(super) fn write(
        data: &Path,
        url: &str,
        rpc_url: &str,
        token_file: Option<&Path>,
    ) -> Result<Self, CliError> {
        let path = data.join(FILE);
        let content = json!({
            "url": url,
            "rpc_url": rpc_url,
            "token_file": token_file,
            "pid": std::process::id(),
            "started_at": humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
        });
        private_file::put(&path, format!("{content}\n").as_bytes())
            .map_err(CliError::cannot(format!("write {}", path.display())))?;
        Ok(Self { path })
    }
}

impl Drop for AdminFile {
    fn drop(&mut self) {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                log::warn!("cannot remove {}: {error}", self.path.display());
            }
            _ => {}
        }
    }
}

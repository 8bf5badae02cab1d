//! The local runtime: a plugin's archive is unpacked below the data folder, or its folder used as
//! it is, and its command becomes a child process of the host.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Preparation, Runtime};
use crate::error::{Error, Result, StartError};
use crate::id::InstallationId;
use crate::package::{self, Archive, PackageLimits};
use crate::process::{Environment, ProcessCommand, ProcessLimits, descendants, resolve};
use crate::protocol::manifest::Transport;
use crate::store::{PluginKind, Source};

/// Where the plugin's own files go, surviving updates.
const DATA_VARIABLE: &str = "PLUGIN_DATA_DIR";
/// What the plugin connects to (protocol file, section 5.1).
pub(crate) const URL_VARIABLE: &str = "STORYDEN_RPC_URL";
/// Says that the plugin talks over its standard input and output.
pub(crate) const TRANSPORT_VARIABLE: &str = "PLUGIN_RUNNER_TRANSPORT";

#[derive(Debug)]
pub(crate) struct LocalRuntime {
    data: PathBuf,
    package_limits: PackageLimits,
    /// Names of the host's variables that plugins get beyond the allowlist.
    passed_variables: Vec<String>,
    /// For plugins whose records say nothing else.
    process_limits: ProcessLimits,
}

impl LocalRuntime {
    pub(crate) fn new(
        data: PathBuf,
        package_limits: PackageLimits,
        passed_variables: Vec<String>,
        process_limits: ProcessLimits,
    ) -> Self {
        Self {
            data,
            package_limits,
            passed_variables,
            process_limits,
        }
    }

    fn working_directory(
        &self,
        preparation: &Preparation<'_>,
        root: &Path,
    ) -> Result<PathBuf, StartError> {
        let record = preparation.record;
        match &record.kind {
            PluginKind::Supervised(Source::Folder(folder)) => {
                folder.canonicalize().map_err(|error| {
                    prepare(Error::io(
                        format!("open plugin folder {}", folder.display()),
                        error,
                    ))
                })
            }
            PluginKind::Supervised(Source::Archive(path)) => {
                let cancel = || preparation.cancel.is_cancelled();
                let unpack = |error| {
                    if cancel() {
                        StartError::Cancelled
                    } else {
                        StartError::Unpack(Arc::new(error))
                    }
                };
                let archive =
                    Archive::open_unless(path, &self.package_limits, &cancel).map_err(unpack)?;
                package::unpack(
                    &archive,
                    root,
                    &record.manifest.command,
                    &self.package_limits,
                    &cancel,
                )
                .map_err(unpack)
            }
            PluginKind::External(_) => Err(prepare(Error::Unsupported(
                "an external plugin is not started by the host",
            ))),
        }
    }
}

impl Runtime for LocalRuntime {
    fn prepare(&self, preparation: &Preparation<'_>) -> Result<ProcessCommand, StartError> {
        let record = preparation.record;
        if record.manifest.command.is_empty() {
            return Err(StartError::NoCommand);
        }
        let own_limits = &record.overrides.process_limits;
        own_limits.validate().map_err(prepare)?;
        let root = installation_folder(&self.data, record.id).map_err(prepare)?;
        let working_directory = self.working_directory(preparation, &root)?;
        let data = package::data_folder(&root).map_err(|error| prepare(error.into()))?;

        let mut environment = Environment::allowed(
            std::env::vars_os(),
            self.passed_variables.iter().map(String::as_str),
        );
        for (name, value) in &record.overrides.environment {
            environment.set(name, value);
        }
        environment.set(DATA_VARIABLE, data);
        match (record.manifest.transport, preparation.connection_url) {
            (Transport::Stdio, _) => environment.set(TRANSPORT_VARIABLE, "stdio"),
            (Transport::WebSocket, Some(url)) => environment.set(URL_VARIABLE, url),
            (Transport::WebSocket, None) => return Err(StartError::NoAddress),
        }
        // Last: no record may take it away.
        if let Some(cookie) = &preparation.cookie {
            environment.set(descendants::VARIABLE, cookie);
        }
        let path = environment.get("PATH").map(OsString::from);
        Ok(ProcessCommand {
            program: resolve(
                &record.manifest.command,
                &working_directory,
                path.as_deref(),
            )?,
            args: record.manifest.args.clone(),
            working_directory,
            environment: environment.into_variables(),
            stdin: record.manifest.transport == Transport::Stdio,
            limits: own_limits.or(&self.process_limits),
        })
    }
}

/// `<data>/<installation id>`, made if need be.
pub(crate) fn installation_folder(data: &Path, id: InstallationId) -> Result<PathBuf> {
    let folder = std::path::absolute(data)
        .map_err(|error| Error::io(format!("data folder {}", data.display()), error))?
        .join(id.to_string());
    std::fs::create_dir_all(&folder)
        .map_err(|error| Error::io(format!("create {}", folder.display()), error))?;
    Ok(folder)
}

fn prepare(error: Error) -> StartError {
    StartError::Prepare(Box::new(error))
}

//! Where supervised plugins run: the provider's name, and the trait by which a provider prepares a run.
//! Supervision (restarting, stopping) is in `reaper`.

pub(crate) mod local;
#[cfg(feature = "sprites")]
#[allow(dead_code, unused_imports, reason = "no run uses the client yet")]
pub(crate) mod sprites;

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result, StartError};
use crate::process::ProcessCommand;
use crate::reaper::Cancel;
use crate::state::UnknownName;
use crate::store::{Record, Store};

/// Where supervised plugins run ([State names](crate::protocol#state-names)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RuntimeProvider {
    /// Nowhere: supervised plugins are disabled, and external ones work.
    None,
    /// As child processes of the host.
    #[default]
    Local,
    /// In remote sandboxes. Not implemented yet: loading a supervised plugin fails with
    /// [`Error::Unsupported`].
    Sprites,
}

impl RuntimeProvider {
    /// Returns the name used in settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Local => "local",
            Self::Sprites => "sprites",
        }
    }
}

impl fmt::Display for RuntimeProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for RuntimeProvider {
    type Err = Error;

    /// Parses a name, ignoring case and surrounding space; an empty text is `local`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): there is no such provider.
    fn from_str(text: &str) -> Result<Self, Error> {
        match text.trim().to_lowercase().as_str() {
            "none" => Ok(Self::None),
            "" | "local" => Ok(Self::Local),
            "sprites" => Ok(Self::Sprites),
            _ => Err(UnknownName::new("plugin runtime provider", text, &[]).into()),
        }
    }
}

/// The input of [`Runtime::prepare`].
pub(crate) struct Preparation<'a> {
    pub(crate) record: &'a Record,
    /// The store that may hold its archive.
    pub(crate) store: &'a dyn Store,
    /// The URL that the plugin connects to; `None` for stdio.
    pub(crate) connection_url: Option<&'a str>,
    /// Identifies the process and its descendants; `None` if orphans are not searched for.
    pub(crate) cookie: Option<String>,
    pub(crate) cancel: &'a Cancel,
}

/// Prepares runs of supervised plugins.
pub(crate) trait Runtime: Send + Sync + fmt::Debug {
    /// Unpacks the plugin if needed and returns the command to run. Called on a short-lived thread; may take
    /// long, but returns soon after `cancel` is set.
    fn prepare(&self, preparation: &Preparation<'_>) -> Result<ProcessCommand, StartError>;
}

/// Returns the error of starting a supervised plugin with a provider that cannot run it.
pub(crate) fn unavailable(provider: RuntimeProvider) -> Error {
    match provider {
        RuntimeProvider::None => Error::Disabled,
        RuntimeProvider::Local => Error::Unsupported("the local runtime is not available"),
        RuntimeProvider::Sprites => {
            Error::Unsupported("the runtime provider 'sprites' is not built in yet; use 'local'")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_the_seed_reads_them() {
        assert_eq!(
            "".parse::<RuntimeProvider>().unwrap(),
            RuntimeProvider::Local
        );
        assert_eq!(
            "  Local ".parse::<RuntimeProvider>().unwrap(),
            RuntimeProvider::Local
        );
        assert_eq!(
            "NONE".parse::<RuntimeProvider>().unwrap(),
            RuntimeProvider::None
        );
        assert_eq!(
            "sprites".parse::<RuntimeProvider>().unwrap(),
            RuntimeProvider::Sprites
        );
        assert_eq!(
            "docker".parse::<RuntimeProvider>().unwrap_err().to_string(),
            "unknown plugin runtime provider: \"docker\""
        );
    }
}

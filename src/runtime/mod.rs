//! Where supervised plugins run: the provider's name, and what each provider needs to get a run
//! ready. Supervision itself (restarting, stopping) is the reaper's.

pub(crate) mod local;

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result, StartError, UnknownName};
use crate::process::ProcessCommand;
use crate::reaper::Cancel;
use crate::store::{Record, Store};

/// Where supervised plugins run (protocol file, section 13.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RuntimeProvider {
    /// Nowhere: supervised plugins are disabled. External ones work.
    None,
    /// As child processes of the host.
    #[default]
    Local,
    /// In remote sandboxes. Not built in yet: loading a supervised plugin then says
    /// [`Error::Unsupported`].
    Sprites,
}

impl RuntimeProvider {
    /// The name in settings.
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
    type Err = UnknownName;

    /// Trims, ignores case; empty is `local`.
    fn from_str(text: &str) -> Result<Self, UnknownName> {
        match text.trim().to_lowercase().as_str() {
            "none" => Ok(Self::None),
            "" | "local" => Ok(Self::Local),
            "sprites" => Ok(Self::Sprites),
            _ => Err(UnknownName::new("plugin runtime provider", text)),
        }
    }
}

/// What a runtime gets to prepare a run with.
pub(crate) struct Preparation<'a> {
    pub(crate) record: &'a Record,
    /// Where its archive may be.
    pub(crate) store: &'a dyn Store,
    /// What the plugin connects to; `None` for stdio.
    pub(crate) connection_url: Option<&'a str>,
    /// What the process and its descendants are known by; `None` when they are not looked for.
    pub(crate) cookie: Option<String>,
    pub(crate) cancel: &'a Cancel,
}

/// Gets supervised plugins ready to run.
pub(crate) trait Runtime: Send + Sync + fmt::Debug {
    /// Unpacks if needed and builds the command. Called on a thread of its own; may take long, but
    /// gives up soon after `cancel` is set.
    fn prepare(&self, preparation: &Preparation<'_>) -> Result<ProcessCommand, StartError>;
}

/// The error of starting a supervised plugin where no runtime is there for it.
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
        assert_eq!("".parse(), Ok(RuntimeProvider::Local));
        assert_eq!("  Local ".parse(), Ok(RuntimeProvider::Local));
        assert_eq!("NONE".parse(), Ok(RuntimeProvider::None));
        assert_eq!("sprites".parse(), Ok(RuntimeProvider::Sprites));
        assert_eq!(
            "docker".parse::<RuntimeProvider>().unwrap_err().to_string(),
            "unknown plugin runtime provider: \"docker\""
        );
    }
}

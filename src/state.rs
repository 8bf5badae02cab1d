//! The wanted and the reported states of a plugin, with the protocol's exact strings
//! ([State names](crate::protocol#state-names)). The cell that holds a session's state is in `session`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::text::Foreign;

macro_rules! names {
    ($(#[$doc:meta])* $name:ident, $what:literal { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $text)] $variant,)+
        }

        impl $name {
            /// All of them, in the order of their numbers.
            pub(crate) const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Returns the protocol's exact string.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = Error;

            /// Reads the protocol's exact string.
            ///
            /// # Errors
            /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): the text is any other.
            fn from_str(text: &str) -> Result<Self, Error> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(UnknownName::new($what, text, &[$($text,)+]).into()),
                }
            }
        }
    };
}

names! {
    /// How the plugin is run.
    PluginMode, "plugin mode" {
        /// The host runs it from a package, as a child process.
        Supervised = "supervised",
        /// It runs elsewhere and connects with its token.
        External = "external",
    }
}

names! {
    /// The state that the administrator wants; stored in the record.
    ActiveState, "active state" {
        /// The plugin should be running and connected.
        Active = "active",
        /// The plugin should be stopped.
        Inactive = "inactive",
    }
}

names! {
    /// The current state; never stored.
    ReportedState, "reported state" {
        /// Neither running nor wanted.
        Inactive = "inactive",
        /// The process is being prepared and spawned.
        Starting = "starting",
        /// The process runs (or, for an external plugin, is wanted) and is not connected.
        Connecting = "connecting",
        /// Connected; calls are possible.
        Active = "active",
        /// A stop was requested and something is still running.
        Stopping = "stopping",
        /// Given up, with a reason; an explicit start leaves this state.
        Errored = "errored",
        /// Waiting for the back-off before the next start.
        Restarting = "restarting",
    }
}

/// A name that is not one of a fixed set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what}: {:?}{}", Foreign::new(.name), one_of(.known))]
pub(crate) struct UnknownName {
    what: &'static str,
    name: Arc<str>,
    known: &'static [&'static str],
}

impl UnknownName {
    /// `known` are the names to be shown, if any.
    pub(crate) fn new(what: &'static str, name: &str, known: &'static [&'static str]) -> Self {
        Self {
            what,
            name: name.into(),
            known,
        }
    }
}

fn one_of(known: &[&str]) -> String {
    match known {
        [] => String::new(),
        known => format!("; it is one of {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_the_protocols() {
        for text in [
            "inactive",
            "starting",
            "connecting",
            "active",
            "stopping",
            "errored",
            "restarting",
        ] {
            let state: ReportedState = text.parse().unwrap();
            assert_eq!(state.to_string(), text);
            assert_eq!(
                serde_json::to_string(&state).unwrap(),
                format!("\"{text}\"")
            );
        }
        assert_eq!(
            "supervised".parse::<PluginMode>().unwrap(),
            PluginMode::Supervised
        );
        assert_eq!(
            "external".parse::<PluginMode>().unwrap(),
            PluginMode::External
        );
        assert_eq!(
            "active".parse::<ActiveState>().unwrap(),
            ActiveState::Active
        );
        assert_eq!(
            "error".parse::<ReportedState>().unwrap_err().to_string(),
            "unknown reported state: \"error\"; it is one of inactive, starting, connecting, active, stopping, errored, \
             restarting"
        );
    }
}

//! What a host does while it is killed, and when exactly that happens.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a host is told to do. Ids are those of installations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Operation {
    /// Starts what is wanted active.
    Boot,
    /// Installs a plugin, and waits until it is active.
    Install {
        is_stdio: bool,
        version: u64,
    },
    Update {
        id: String,
        is_stdio: bool,
        version: u64,
    },
    Activate {
        id: String,
    },
    Deactivate {
        id: String,
    },
    Remove {
        id: String,
        keeps_data: bool,
    },
    /// Ends what runs, and can do no more. Plugins are wanted as they were.
    ShutDown,
    /// Says which plugins there are.
    Show,
}

/// When the host is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// When the service has got that request of the operation's, counted from 0, and has done nothing yet.
    Asked(usize),
    /// When the service has done what that request asks for, and the answer is on its way.
    Answered(usize),
    /// When that request is under way; the service does what it asks for only later.
    Late(usize),
    /// When the socket of the program that the operation starts first is open, and nothing has come over it.
    Opened,
    /// When the plugin's program has begun.
    Begun,
    /// When the operation is done.
    Done,
    /// After so long a time, wherever the operation is by then.
    After(Duration),
}

impl Operation {
    pub(super) fn name(&self) -> String {
        let text = format!("{self:?}");
        text.split(' ').next().unwrap_or_default().to_owned()
    }
}

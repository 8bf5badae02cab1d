//! What the program prints on standard output, as text. `printer` writes it.

mod human;
mod json;
mod paint;

use std::time::{Duration, SystemTime};

use plugin_runner::text::escape;
use plugin_runner::{InstallationId, StateChange};
use serde_json::Value;

pub(crate) use human::Human;
pub(crate) use json::{Json, json_line, push_escaped};
pub(crate) use paint::{Paint, harmless};

use super::lines::Line;

/// The format of the output.
#[derive(Debug)]
pub(crate) enum Format {
    /// For people: a line each, the plugin's name first.
    Human(Human),
    /// For programs: a JSON object each.
    Json(Json),
}

/// What is printed besides states and the plugins' output.
#[derive(Debug)]
pub(crate) enum Notice {
    /// Where an external plugin connects to.
    External {
        plugin: InstallationId,
        at: SystemTime,
        /// With its token.
        url: String,
    },
    /// A ping was answered after this time, or failed.
    Ping {
        plugin: InstallationId,
        at: SystemTime,
        outcome: Result<Duration, String>,
    },
    /// A plugin has called the host, and this was the answer.
    Call {
        plugin: InstallationId,
        at: SystemTime,
        method: String,
        params: Value,
        answer: Result<Value, String>,
    },
    /// What came of a command, or of a change of files.
    Reply {
        /// `None` if it is of all plugins.
        plugin: Option<InstallationId>,
        at: SystemTime,
        command: String,
        outcome: Result<Value, String>,
        took: Option<Duration>,
    },
}

impl Format {
    /// Appends what is printed for a state change.
    pub(crate) fn state(&self, change: &StateChange, to: &mut String) {
        match self {
            Self::Human(human) => human.state(change, to),
            Self::Json(json) => json.state(change, to),
        }
    }

    /// Appends what is printed for a line of output.
    pub(crate) fn line(&self, line: &Line, to: &mut String) {
        if line.lost > 0 {
            self.lost(line.plugin, line.lost, to);
        }
        match self {
            Self::Human(human) => human.line(line, to),
            Self::Json(json) => json.line(line, to),
        }
    }

    /// Appends what is printed for a notice.
    pub(crate) fn notice(&self, notice: &Notice, to: &mut String) {
        match self {
            Self::Human(human) => human.notice(notice, to),
            Self::Json(json) => json.notice(notice, to),
        }
    }
    /// Appends what is printed when lines of output were left out.
    pub(crate) fn lost(&self, plugin: InstallationId, lost: u64, to: &mut String) {
        match self {
            Self::Human(human) => human.lost(plugin, lost, to),
            Self::Json(json) => log::warn!(
                "plugin {:.1024} ({plugin}): {lost} lines of output left out, because they are not read fast \
                 enough; the plugin's log, which --data keeps, has them",
                escape(json.plugin(plugin))
            ),
        }
    }
}

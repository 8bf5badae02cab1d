//! The runs of a plugin: starting it again, and how the last ones ended.

use std::time::Duration;

use serde::Serialize;

use super::call::{Call, json};
use super::installation::{Plugin, rfc3339};
use super::problem::Problem;
use crate::error::{Error, Result as LibraryResult};
use crate::http::Response;
use crate::id::InstallationId;
use crate::manager::Manager;
use crate::plugin_log::Followed;
use crate::session::{self, RunEnd};
use crate::state::{PluginMode, ReportedState};
use crate::text;

/// How many lines of a log are its last words, and how many bytes of each are shown: as many as of the output in
/// a problem's details.
const LAST_LINES: usize = 20;
const LINE_BYTES: usize = 1024;

#[derive(Serialize)]
struct History<'a> {
    /// What is wrong now.
    problem: Option<&'a session::Problem>,
    runs: Vec<ShownRun<'a>>,
    last_lines: Vec<String>,
}

#[derive(Serialize)]
struct ShownRun<'a> {
    run: u64,
    started_at: String,
    ended_at: String,
    problem: &'a session::Problem,
    given_up: bool,
}

impl<'a> From<&'a RunEnd> for ShownRun<'a> {
    fn from(end: &'a RunEnd) -> Self {
        Self {
            run: end.run,
            started_at: rfc3339(end.started_at),
            ended_at: rfc3339(end.ended_at),
            problem: &end.problem,
            given_up: end.given_up,
        }
    }
}

/// Stops the plugin and starts it again; waits for it as long as an update would.
pub(super) fn restart(call: &mut Call<'_, '_>) -> Result<Response, Problem> {
    let id = call.id()?;
    let manager = call.manager();
    let installation = manager.get(id)?;
    let state = installation.reported_state();
    if installation.record().mode() == PluginMode::External && state != ReportedState::Active {
        let message = Some("it is run elsewhere, and connects again by itself".into());
        return Err(Error::State { state, message }.into());
    }
    let timeout = manager.settings().activate_timeout;
    let session = manager.begin_restart(id, timeout)?;
    call.wait(timeout, |part| {
        session.wait_for(ReportedState::Active, part)
    })?;
    json(200, &Plugin::new(&manager.get(id)?))
}

pub(super) fn history(call: &mut Call<'_, '_>) -> Result<Response, Problem> {
    let manager = call.manager();
    let installation = manager.get(call.id()?)?;
    let id = installation.id();
    let session = manager.host().session(id);
    let runs = session.map_or_else(Vec::new, |session| session.restart_history());
    let last_lines = match installation.record().mode() {
        PluginMode::Supervised => last_lines(manager, id)?,
        PluginMode::External => Vec::new(),
    };
    let history = History {
        problem: installation.problem(),
        runs: runs.iter().rev().map(ShownRun::from).collect(),
        last_lines,
    };
    json(200, &history)
}

/// Returns the last lines of its log, each cut.
fn last_lines(manager: &Manager, id: InstallationId) -> LibraryResult<Vec<String>> {
    let mut follower = manager.follow_log(id)?.last(LAST_LINES)?;
    let mut lines = Vec::new();
    // It may print faster than this reads.
    while lines.len() < LAST_LINES {
        match follower.next(Duration::ZERO) {
            Ok(Followed::Line(line)) => lines.push(text::cut(&line, LINE_BYTES).into_owned()),
            Ok(Followed::Gap { .. }) => {}
            Err(Error::Timeout { .. }) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(lines)
}

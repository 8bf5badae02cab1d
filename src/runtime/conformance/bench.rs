//! `Bench`: a host with the runtime and one plugin, and what a check does with them.

use std::fs;
use std::io::{Cursor, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crossbeam_channel::Receiver;
use parking_lot::{Condvar, Mutex};
use serde_json::{Value, json};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::probe::{Notes, Plan, Probe};
use super::{Configure, Limits, Outcome};
use crate::config::Timeouts;
use crate::deadline::Deadline;
use crate::host::Host;
use crate::id::InstallationId;
use crate::manager::{Manager, ManagerSettings, PackageSource};
use crate::process::ExitReason;
use crate::reaper::StopReport;
use crate::reaper::policy::RestartPolicy;
use crate::session::{Problem, Session, StateChange, Supervised};
use crate::state::ReportedState;
use crate::store::Overrides;

/// An argument of the plugin's, in its manifest.
pub(super) const ARGUMENT: &str = "an argument  of 'two' words, or $MORE";
/// A variable of the plugin's, in its record.
pub(super) const VARIABLE: (&str, &str) = ("CONFORMANCE", "it's  $HOME; * & ü");

/// Everything that the plugin has printed.
#[derive(Debug, Default)]
struct Lines {
    lines: Mutex<Vec<String>>,
    changed: Condvar,
}

/// A host with the runtime, and a plugin that is installed and not started.
pub(super) struct Bench {
    pub(super) limits: Limits,
    pub(super) host: Host,
    pub(super) manager: Manager,
    pub(super) id: InstallationId,
    notes: Arc<Notes>,
    lines: Arc<Lines>,
    dir: TemporaryDir,
}

/// A directory that is removed when it is dropped.
struct TemporaryDir(PathBuf);

impl Drop for TemporaryDir {
    fn drop(&mut self) {
        // A container may have left what only its own user can remove.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Bench {
    pub(super) fn new(limits: Limits, configure: &mut Configure<'_>) -> Outcome<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("plugin-runner-conformance-{}-{count}", std::process::id());
        let dir = TemporaryDir(std::env::temp_dir().join(name));
        fs::create_dir(&dir.0)?;

        let (notes, lines) = (Arc::<Notes>::default(), Arc::<Lines>::default());
        let (own_notes, tapped) = (notes.clone(), lines.clone());
        let builder = configure(Host::builder().data_dir(&dir.0), &dir.0);
        let host = builder
            .data_dir(&dir.0)
            .timeouts(
                Timeouts::default()
                    .connect(limits.step)
                    .stop_grace(limits.grace)
                    .stop(limits.step),
            )
            // Every run counts as a good one, and after its end none follows by itself.
            .restart_policy(
                RestartPolicy::default()
                    .max_restart_attempts(0)
                    .crash_threshold(Duration::from_secs(24 * 60 * 60)),
            )
            .on_output(move |_, _, line| {
                tapped.lines.lock().push(line.text.clone().into_owned());
                tapped.changed.notify_all();
            })
            .wrap_runtime(move |runtime| Arc::new(Probe::new(runtime, own_notes, limits)))
            .build()?;
        let settings = ManagerSettings::default().activate_timeout(limits.step);
        let manager = Manager::with_settings(host.clone(), settings)?;
        let installation = manager.install(PackageSource::bytes(package(1)?))?;
        let id = installation.id();
        manager.set_overrides(id, Overrides::default().environment([VARIABLE]))?;
        Ok(Self {
            limits,
            host,
            manager,
            id,
            notes,
            lines,
            dir,
        })
    }

    pub(super) fn session(&self) -> Outcome<Session> {
        // Loaded when it is needed first, since the runtime may not accept it.
        let loaded = self.host.load(self.id);
        Ok(loaded.map_err(|error| format!("the plugin cannot be loaded: {error}"))?)
    }

    pub(super) fn supervised(&self) -> Outcome<Supervised> {
        let session = self.session()?;
        Ok(session.supervised().ok_or("the plugin is not supervised")?)
    }

    /// Installs the next version over the first.
    pub(super) fn update(&self) -> Outcome {
        self.manager
            .update_package(self.id, PackageSource::bytes(package(2)?))?;
        Ok(())
    }

    /// Starts the plugin, and waits until it is active.
    pub(super) fn start(&self) -> Outcome {
        self.supervised()?.start()?;
        self.session()?
            .wait_for(ReportedState::Active, self.limits.step)
            .map_err(|error| {
                format!("after a start, the plugin does not become active: {error}")
            })?;
        Ok(())
    }

    pub(super) fn stop(&self) -> Outcome<StopReport> {
        let stopped = self.supervised()?.stop(self.limits.step);
        Ok(stopped.map_err(|error| format!("a stop does not end the plugin: {error}"))?)
    }

    /// Has the plugin do this, and returns what it printed about it. Double quotes and backslashes are lost.
    pub(super) fn ask(&self, what: &str) -> Outcome<String> {
        let session = self.session()?;
        let reply = session.call_raw("tell", &json!({"what": what}), self.limits.step);
        let reply: Value = reply.and_then(|reply| reply.read()).map_err(|error| {
            format!("the plugin does not answer when it is asked `{what}`: {error}")
        })?;
        let said = reply["said"].as_str().ok_or("it says nothing")?;
        Ok(said.trim_end().to_owned())
    }

    /// Checks what the plugin says.
    pub(super) fn expect(&self, what: &str, expected: &str, meaning: &str) -> Outcome {
        let found = self.ask(what)?;
        if found == expected {
            return Ok(());
        }
        Err(format!("{meaning}: expected {expected:?}, found {found:?}").into())
    }

    /// Has the plugin do this to itself; it has answered before it does.
    pub(super) fn act(&self, what: &str) -> Outcome {
        self.session()?
            .call_raw("act", &json!({"what": what}), self.limits.step)
            .map_err(|error| format!("the plugin does not answer: {error}"))?;
        Ok(())
    }

    /// Checks that nothing is left of the runs before this one, and that none began before another had ended.
    pub(super) fn expect_alone(&self) -> Outcome {
        self.expect("alone", "", "a run is not the only one")
    }

    /// Waits for a line of the plugin's.
    pub(super) fn expect_line(&self, line: &str) -> Outcome {
        let deadline = Deadline::after(self.limits.step).instant();
        let mut lines = self.lines.lines.lock();
        while !lines.iter().any(|found| found == line) {
            let waited = self.lines.changed.wait_until(&mut lines, deadline);
            if waited.timed_out() {
                let limit = self.limits.step;
                return Err(format!("{line:?} does not reach the log within {limit:?}").into());
            }
        }
        Ok(())
    }

    pub(super) fn changes(&self) -> Receiver<StateChange> {
        self.host.subscribe()
    }

    /// Has the plugin do what ends it, and returns how it ended.
    pub(super) fn end_by(&self, what: &str) -> Outcome<(ExitReason, Problem)> {
        let changes = self.changes();
        self.act(what)?;
        let states = [ReportedState::Restarting, ReportedState::Errored];
        let awaited = format!("the end of a plugin that did `{what}`");
        let change = wait_for(&changes, &states, self.limits.soon, &awaited)?;
        let problem = change.problem.ok_or("no problem is told")?;
        let exit = problem.exit().ok_or("no exit is told")?;
        Ok((exit, problem))
    }

    /// Starts the plugin in another way than the host does; returns what was found.
    pub(super) fn start_as(&self, plan: Plan) -> Outcome {
        let changes = self.changes();
        self.notes.plan(plan);
        self.supervised()?.start()?;
        let states = [ReportedState::Errored];
        let limit = self.limits.step * 2;
        wait_for(&changes, &states, limit, "the return of `start`")?;
        match self.notes.take_finding() {
            Some(Ok(())) => Ok(()),
            Some(Err(found)) => Err(found.into()),
            None => Err(self
                .session()?
                .error_message()
                .unwrap_or_else(|| "it did not start".to_owned())
                .into()),
        }
    }

    /// Returns the method of a handle's that took longest, if that was too long.
    pub(super) fn blocked(&self) -> Option<String> {
        self.notes.blocked()
    }

    /// Ends the host, of which nothing may be left.
    pub(super) fn end(self) -> Outcome {
        let report = self.host.shutdown(self.limits.step);
        if !report.is_complete() {
            return Err(format!("at the end, the host cannot shut down: {report:?}").into());
        }
        drop(self.dir);
        Ok(())
    }
}

/// Waits for a change to one of these states, for `limit` at most.
pub(super) fn wait_for(
    changes: &Receiver<StateChange>,
    states: &[ReportedState],
    limit: Duration,
    awaited: &str,
) -> Outcome<StateChange> {
    let deadline = Deadline::after(limit).instant();
    loop {
        let change = changes.recv_deadline(deadline);
        let change = change.map_err(|_| format!("{awaited} is not seen within {limit:?}"))?;
        if states.contains(&change.to) {
            return Ok(change);
        }
    }
}

/// Returns the package of this version.
fn package(version: u32) -> Outcome<Vec<u8>> {
    let manifest = json!({
        "id": "conformance",
        "author": "conformance",
        "name": "Conformance",
        "version": version.to_string(),
        "command": "./plugin.sh",
        "args": [ARGUMENT],
        "transport": "stdio",
    });
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content, mode) in [
        ("manifest.json", manifest.to_string(), 0o644),
        ("plugin.sh", include_str!("plugin.sh").to_owned(), 0o755),
        ("version", version.to_string(), 0o644),
    ] {
        let options = SimpleFileOptions::default().unix_permissions(mode);
        zip.start_file(name, options)?;
        zip.write_all(content.as_bytes())?;
    }
    Ok(zip.finish()?.into_inner())
}

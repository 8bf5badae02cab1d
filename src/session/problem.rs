//! `Problem`: why a run ended or a connection was lost, for people, for programs, and as the protocol's error
//! details. `supervision` and `run` make them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::error::StartError;
use crate::process::{ExitReason, ProcessLimits};
use crate::reaper::{Cause, EndCause, EndedRun};

/// Why a plugin ended, does not start, or has lost its connection. Cheap to clone.
///
/// [`Display`](std::fmt::Display) shows it as one sentence for people. It serialises as
/// [`to_json`](Self::to_json) returns it, always with `error`. What a plugin printed and said is in it as it
/// was received: show it with [`escape`](crate::text::escape).
#[derive(Clone, PartialEq, Eq)]
pub struct Problem(Arc<ProblemFacts>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct ProblemFacts {
    message: Arc<str>,
    /// The run that has ended; `None` for a lost connection.
    run: Option<RunFacts>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct RunFacts {
    /// The runtime's name.
    provider: &'static str,
    cause: EndCause,
    /// Whether it is why nothing was started.
    at_start: bool,
    spawn_error: Option<&'static str>,
    limit: Option<&'static str>,
    restarts: u32,
    restart_after: Option<Duration>,
    active_for: Option<Duration>,
    process: Option<ProcessFacts>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ProcessFacts {
    /// `None` if it was no process of this machine.
    pid: Option<u32>,
    exit: ExitReason,
    /// The same in words.
    exit_status: String,
    core_dumped: bool,
    uptime: Duration,
    limits: ProcessLimits,
    output: Vec<String>,
}

impl Problem {
    /// The problem of a plugin that has lost its connection.
    pub(super) fn lost(message: impl Into<Arc<str>>) -> Self {
        let message = message.into();
        Self(Arc::new(ProblemFacts { message, run: None }))
    }

    /// The problem of a run that has ended.
    pub(super) fn of_run(
        ended: &EndedRun,
        message: String,
        provider: &'static str,
        restart_after: Option<Duration>,
        output: Vec<String>,
    ) -> Self {
        let (at_start, spawn_error, limit) = match &ended.cause {
            Cause::Start(StartError::Spawn { source, .. }) => (true, Some(source.as_str()), None),
            Cause::Start(StartError::NoCommand) => (true, Some("no_command"), None),
            Cause::Start(StartError::Limit { limit, .. }) => (true, None, Some(*limit)),
            Cause::Start(_) => (true, None, None),
            _ => (false, None, None),
        };
        let process = ended.exit.as_ref().map(|end| ProcessFacts {
            pid: end.pid,
            exit: end.reason,
            exit_status: end.to_string(),
            core_dumped: end.core_dumped,
            uptime: ended.uptime,
            limits: end.limits.clone(),
            output,
        });
        Self(Arc::new(ProblemFacts {
            message: message.into(),
            run: Some(RunFacts {
                provider,
                cause: ended.end_cause(),
                at_start,
                spawn_error,
                limit,
                restarts: ended.restarts.count,
                restart_after,
                active_for: ended.active_for,
                process,
            }),
        }))
    }

    /// Returns the same without the last output, for keeping many.
    pub(super) fn without_output(&self) -> Self {
        let mut facts = (*self.0).clone();
        if let Some(process) = facts.run.as_mut().and_then(|run| run.process.as_mut()) {
            process.output = Vec::new();
        }
        Self(Arc::new(facts))
    }

    pub(super) fn shared_message(&self) -> Arc<str> {
        self.0.message.clone()
    }

    /// Whether the process exited or was killed, without the host's doing, and not with 0.
    pub(super) fn is_unclean_exit(&self) -> bool {
        let by_itself = matches!(
            self.cause(),
            Some(EndCause::Exited | EndCause::KilledBySignal)
        );
        by_itself && !self.exit().is_some_and(ExitReason::is_clean)
    }

    fn process(&self) -> Option<&ProcessFacts> {
        self.0.run.as_ref()?.process.as_ref()
    }

    /// Returns what went wrong, in words: `exit status 3`, in the words of Storyden's host for an exit.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Returns why the run ended or could not start; `None` for a lost connection whose process lives, or is not
    /// the host's.
    pub fn cause(&self) -> Option<EndCause> {
        Some(self.0.run.as_ref()?.cause)
    }

    /// Returns in which phase it was: `start` if it could not be started, `exit` if it ended; `None` for a lost
    /// connection.
    pub fn phase(&self) -> Option<&'static str> {
        Some(self.0.run.as_ref()?.phase())
    }

    /// Returns how the process ended; `None` if there was none, and for a lost connection.
    pub fn exit(&self) -> Option<ExitReason> {
        Some(self.process()?.exit)
    }

    /// Returns the id of the process, which may have been reused; `None` if there was none, and where it ran
    /// elsewhere.
    pub fn pid(&self) -> Option<u32> {
        self.process()?.pid
    }

    /// Returns how long the process lived.
    pub fn uptime(&self) -> Option<Duration> {
        Some(self.process()?.uptime)
    }

    /// Returns the time from when the plugin first became active until its end; `None` if it never was active.
    pub fn active_for(&self) -> Option<Duration> {
        self.0.run.as_ref()?.active_for
    }

    /// Returns the limit that could not be set, by its name in [`ProcessLimits`].
    pub fn limit(&self) -> Option<&'static str> {
        self.0.run.as_ref()?.limit
    }

    /// Returns the limits that were in force when the process ended.
    pub fn limits(&self) -> Option<&ProcessLimits> {
        Some(&self.process()?.limits)
    }

    /// Returns how often the plugin was started in a row, this time included; 0 for a lost connection.
    pub fn attempts(&self) -> u32 {
        self.0.run.as_ref().map_or(0, |run| run.restarts + 1)
    }

    /// Returns the wait before the next start; `None` if there is none. A request to start or to stop may cut it
    /// short.
    pub fn restart_after(&self) -> Option<Duration> {
        self.0.run.as_ref()?.restart_after
    }

    /// Returns the last lines of the plugin's output, at most 20, each cut to 1 KiB. A run in the history has
    /// none.
    pub fn output(&self) -> &[String] {
        self.process().map_or(&[], |process| &process.output)
    }

    /// Returns all of this in the form of [`Session::error_details`](crate::Session::error_details), which lists
    /// the keys; empty for a lost connection.
    pub fn to_json(&self) -> Map<String, Value> {
        let mut details = Map::new();
        let Some(run) = &self.0.run else {
            return details;
        };
        let mut put = |key: &str, value: Value| drop(details.insert(key.to_owned(), value));
        put("runtime_provider", run.provider.into());
        if let Some(word) = run.spawn_error {
            put("spawn_error", word.into());
        }
        if let Some(limit) = run.limit {
            put("limit", limit.into());
        }
        put("stage", run.phase().into());
        put("error", self.message().into());
        put("cause", run.cause.as_str().into());
        put("restarts", run.restarts.into());
        // The first start counts as an attempt.
        put("attempts", (run.restarts + 1).into());
        if let Some(after) = run.restart_after {
            put("restarting_after_seconds", after.as_secs_f64().into());
        }
        if let Some(active_for) = run.active_for {
            put("active_seconds", active_for.as_secs_f64().into());
        }
        if let Some(process) = &run.process {
            put("exit_status", process.exit_status.as_str().into());
            if !process.exit.is_clean() {
                put("exit_code", process.exit.code().into());
            }
            if let ExitReason::Signal(signal) = process.exit {
                put("signal", signal.into());
                if let Some(name) = process.exit.signal_name() {
                    put("signal_name", name.into());
                }
            }
            if process.core_dumped {
                put("core_dumped", true.into());
            }
            if let Some(pid) = process.pid {
                put("pid", pid.into());
            }
            put("uptime_seconds", process.uptime.as_secs_f64().into());
            let limits = process.limits.to_json();
            if !limits.is_empty() {
                put("limits", limits.into());
            }
            put("output", json!(process.output));
        }
        details
    }
}

impl RunFacts {
    const fn phase(&self) -> &'static str {
        if self.at_start { "start" } else { "exit" }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_unclean_exit() {
            f.write_str("it ended with ")?;
        }
        f.write_str(self.message())?;
        match self.restart_after() {
            Some(after) => write!(f, "; it is started again in {after:?}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut details = self.to_json();
        details.insert("error".to_owned(), self.message().into());
        details.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crashed(exit: ExitReason, exit_status: &str) -> Problem {
        Problem(Arc::new(ProblemFacts {
            message: exit_status.into(),
            run: Some(RunFacts {
                provider: "local",
                cause: EndCause::Exited,
                at_start: false,
                spawn_error: None,
                limit: None,
                restarts: 2,
                restart_after: Some(Duration::from_millis(1500)),
                active_for: None,
                process: Some(ProcessFacts {
                    pid: Some(7),
                    exit,
                    exit_status: exit_status.to_owned(),
                    core_dumped: false,
                    uptime: Duration::from_millis(250),
                    limits: ProcessLimits::default().open_files(64),
                    output: vec!["last words".to_owned()],
                }),
            }),
        }))
    }

    #[test]
    fn a_crash_is_one_sentence_and_all_of_it_is_in_the_details() {
        let problem = crashed(ExitReason::Code(3), "exit status 3");
        assert_eq!(
            problem.to_string(),
            "it ended with exit status 3; it is started again in 1.5s"
        );
        let details = json!({
            "runtime_provider": "local", "stage": "exit", "error": "exit status 3", "cause": "exited",
            "restarts": 2, "attempts": 3, "restarting_after_seconds": 1.5, "exit_status": "exit status 3",
            "exit_code": 3, "pid": 7, "uptime_seconds": 0.25, "limits": {"open_files": 64},
            "output": ["last words"],
        });
        assert_eq!(Value::from(problem.to_json()), details);
        assert_eq!(serde_json::to_value(&problem).unwrap(), details);
        assert_eq!(problem.attempts(), 3);
        let kept = problem.without_output();
        assert_eq!((kept.exit(), kept.output()), (problem.exit(), &[][..]));
    }

    #[test]
    fn an_exit_with_0_and_a_lost_connection_have_words_of_their_own() {
        let clean = crashed(ExitReason::Code(0), "process exited cleanly");
        assert_eq!(
            clean.to_string(),
            "process exited cleanly; it is started again in 1.5s"
        );
        assert_eq!(clean.to_json().get("exit_code"), None);
        let lost = Problem::lost("connection lost");
        assert_eq!(lost.to_string(), "connection lost");
        assert_eq!((lost.cause(), lost.attempts()), (None, 0));
        assert!(lost.to_json().is_empty());
        assert_eq!(
            serde_json::to_value(&lost).unwrap(),
            json!({"error": "connection lost"})
        );
    }
}

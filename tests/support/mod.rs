//! What the tests share. Everything here waits on conditions, with a deadline that only a true hang
//! reaches; nothing sleeps.

pub(crate) mod alone;
pub(crate) mod attack;
pub(crate) mod attacker;
pub(crate) mod disk;
pub(crate) mod event_stream;
pub(crate) mod events;
pub(crate) mod frames;
pub(crate) mod host;
pub(crate) mod http;
pub(crate) mod lifeline;
pub(crate) mod lock;
pub(crate) mod log_lines;
pub(crate) mod output;
pub(crate) mod peer;
pub(crate) mod plugin;
pub(crate) mod session;
// What unit tests use too.
#[path = "../../src/testing.rs"]
mod testing;

use std::fs;
use std::path::Path;
use std::time::Duration;

use plugin_runner::error::Phase;
use plugin_runner::{Error, ErrorKind, ReportedState, Result};
use serde_json::{Map, Value};

pub(crate) use testing::{LONG, TestDir, assert_matches, wait_until, wait_within};

/// Waits for something to come.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut get: impl FnMut() -> Option<T>) -> T {
    let mut got = None;
    wait_until(what, || {
        got = get();
        got.is_some()
    });
    got.unwrap()
}

/// What is in a directory, sorted; nothing if it is not there.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    names
}

/// The error of this kind with which something must have failed.
#[track_caller]
pub(crate) fn failed<T>(kind: ErrorKind, result: Result<T>) -> Error {
    let Err(error) = result else {
        panic!("it succeeded");
    };
    assert_eq!(error.kind(), kind, "{error}");
    error
}

/// What ran out of time, and how much that was.
#[track_caller]
pub(crate) fn timed_out(error: &Error) -> (Phase, Duration) {
    match *error {
        Error::Timeout { phase, limit, .. } => (phase, limit),
        ref other => panic!("no timeout but {other:?}"),
    }
}

/// The state that refused the request.
#[track_caller]
pub(crate) fn refusing_state(error: &Error) -> ReportedState {
    match *error {
        Error::State { state, .. } => state,
        ref other => panic!("not refused by a state but by {other:?}"),
    }
}

/// A JSON object.
pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        other => panic!("{other} is no object"),
    }
}

/// The value of a variable of the environment, if it is set.
pub(crate) fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let number = text.parse().ok();
    Some(number.unwrap_or_else(|| panic!("{variable} is no number: {text:?}")))
}

/// Says that a test, or a part of it, is skipped, and why. Where all tests are required to run, that is a
/// failure.
#[track_caller]
pub(crate) fn skipped(test: &str, why: &str) {
    let text = format!("skipped: {test}: {why}");
    let required = std::env::var_os("PLUGIN_RUNNER_REQUIRE_ALL").is_some();
    assert!(!required, "{text}");
    println!("{text}");
}

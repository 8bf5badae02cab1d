//! What the tests share. Everything here waits on conditions, with a deadline that only a true hang
//! reaches; nothing sleeps.

pub(crate) mod alone;
pub(crate) mod attack;
pub(crate) mod attacker;
pub(crate) mod disk;
pub(crate) mod events;
pub(crate) mod folder;
pub(crate) mod frames;
pub(crate) mod host;
pub(crate) mod http;
pub(crate) mod lifeline;
pub(crate) mod lock;
pub(crate) mod output;
pub(crate) mod peer;
pub(crate) mod plugin;

use std::time::{Duration, Instant};

/// How long anything may take, also on a machine that is busy with other things.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// Waits for a condition.
#[track_caller]
pub(crate) fn wait_until(what: &str, is_so: impl FnMut() -> bool) {
    wait_within(what, LONG, is_so);
}

/// Waits for a condition, without using much of a processor that others are busy with.
#[track_caller]
pub(crate) fn wait_within(what: &str, within: Duration, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited {within:?} for {what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
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

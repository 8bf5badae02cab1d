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

use std::time::Duration;

/// How long anything may take. Long enough for a machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Says that a test, or a part of it, is skipped, and why. Where all tests are required to run, that is a
/// failure.
#[track_caller]
pub(crate) fn skipped(test: &str, why: &str) {
    let text = format!("skipped: {test}: {why}");
    let required = std::env::var_os("PLUGIN_RUNNER_REQUIRE_ALL").is_some();
    assert!(!required, "{text}");
    println!("{text}");
}

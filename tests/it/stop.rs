//! Stopping child processes, beyond what every runtime does.

use std::time::Duration;

use plugin_runner::report::ExitReason;

use crate::runtimes::stop::{ignoring, stop};
use crate::support::host::TestHost;

const TERMINATE: i32 = 15;

#[test]
fn a_plugin_that_ignores_sigint_is_terminated() {
    let grace = Duration::from_secs(4);
    let host = TestHost::with("stop-terminated", |setup| {
        setup.timeouts(|timeouts| timeouts.stop_grace(grace));
    });
    let report = stop(&ignoring(&host, "INT"));
    assert_eq!(report.exit, Some(ExitReason::Signal(TERMINATE)));
    assert!(!report.killed, "{report:?}");
    assert!(report.took >= grace / 2, "{report:?}");
}

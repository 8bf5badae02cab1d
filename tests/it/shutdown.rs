//! Ending a host: in order, reported, and with nothing left.

use std::time::Duration;

use crate::support::host::TestHost;
use crate::support::plugin::{printed_url, shell};

#[test]
fn a_host_without_time_to_end_kills_and_says_so() {
    let mut host = TestHost::new("shutdown-late");
    let session = host.install(shell(
        &host,
        "deaf",
        r#"trap "" INT TERM; echo "url -"; exec sleep 1000"#,
    ));
    session.supervised().unwrap().start().unwrap();
    printed_url(&host, &session, 0);
    let report = host.shutdown(Duration::from_millis(1));
    // No time for grace. That it is gone may be seen only after the deadline, and counts then too.
    if report.threads.is_empty() {
        assert_eq!(report.killed, [session.id()], "{report:?}");
        assert!(report.is_complete(), "{report:?}");
    }
    // On a machine that is too busy for that it goes on all the same, until nothing is left.
    drop(host.take());
    host.expect_no_threads();
}

//! What all tests share: unit tests, and through `tests/support` those that are programs of their own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Asserts that a value matches a pattern; returns what stands behind `=>`, if that is there.
macro_rules! assert_matches {
    ($value:expr, $pattern:pat => $result:expr) => {
        match $value {
            $pattern => $result,
            ref other => panic!("expected {}: {other:?}", stringify!($pattern)),
        }
    };
    ($value:expr, $pattern:pat $(if $guard:expr)?) => {
        assert_matches!($value, $pattern $(if $guard)?, "expected {}", stringify!($pattern))
    };
    ($value:expr, $pattern:pat $(if $guard:expr)?, $($context:tt)+) => {
        match $value {
            $pattern $(if $guard)? => {}
            ref other => panic!("{}: {other:?}", format_args!($($context)+)),
        }
    };
}
pub(crate) use assert_matches;

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

/// A directory of one test's own, removed at its end.
#[derive(Debug)]
pub(crate) struct TestDir(PathBuf);

impl TestDir {
    pub(crate) fn new(test: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("plugin-runner-{test}-{}-{count}", std::process::id());
        // Cargo has a place for tests that are programs of their own.
        let above =
            option_env!("CARGO_TARGET_TMPDIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let path = above.join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path.canonicalize().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        let removed = std::fs::remove_dir_all(&self.0);
        // Some tests have removed it themselves, and some have locked something up.
        if removed.is_err() && self.0.exists() {
            let mut unlock = Command::new("chmod");
            let _ = unlock.args(["-R", "u+rwX"]).arg(&self.0).status();
            let _ = std::fs::remove_dir_all(&self.0);
        }
        if !std::thread::panicking() {
            assert!(!self.0.exists(), "{removed:?}");
        }
    }
}

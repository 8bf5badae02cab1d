//! What unit tests share.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Asserts that a value matches a pattern.
macro_rules! assert_matches {
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
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited {LONG:?} for {what}");
        std::thread::yield_now();
    }
}

/// A directory of one test's own, removed at its end.
pub(crate) struct TestDir(PathBuf);

impl TestDir {
    pub(crate) fn new(test: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("plugin-runner-{test}-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path.canonicalize().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        if std::fs::remove_dir_all(&self.0).is_err() {
            // A test has locked something up.
            let unlock = Command::new("chmod")
                .args(["-R", "u+rwX"])
                .arg(&self.0)
                .status();
            let _ = unlock.and_then(|_| std::fs::remove_dir_all(&self.0));
        }
    }
}

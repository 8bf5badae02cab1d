//! The program of hostile plugins, `tests/fixtures/attacker.c`, which says what it can do.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Compiles it, once for each process that asks.
pub(crate) fn attacker() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/attacker.c");
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("attacker");
        let own = program.with_extension(std::process::id().to_string());
        let compiled = Command::new("cc")
            .args(["-O1", "-pthread", source, "-o"])
            .arg(&own)
            .status()
            .expect("a C compiler");
        assert!(compiled.success(), "{source}: {compiled}");
        // One that is being executed cannot be written, but it can be replaced.
        std::fs::rename(&own, &program).unwrap();
        program
    })
}

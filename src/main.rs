//! The `plugin-runner` program. All of it is in `cli`; the library knows nothing of it.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before there is any thread or child: descriptors that our parent left open are not for plugins.
    // The library leaves the descriptors of its embedder alone.
    close_fds::set_fds_cloexec(3, &[]);
    cli::main()
}

//! The `plugin-runner` program. All of it is in `cli`; the library knows nothing of it.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    // First of all, while there is neither a thread nor a child: what our parent left open is not for
    // plugins. The library leaves the descriptors of its embedder alone.
    close_fds::set_fds_cloexec(3, &[]);
    cli::main()
}

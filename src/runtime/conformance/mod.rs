//! Checks that an implementation of [`Runtime`](super::Runtime) does what the host relies on.
//!
//! It is for the tests of a runtime of one's own, with the feature `conformance`:
//!
//! ```no_run
//! use plugin_runner::runtime::{Launch, Run, Runtime, conformance};
//!
//! #[derive(Debug)]
//! struct Plain;
//!
//! impl Runtime for Plain {
//!     fn name(&self) -> &'static str {
//!         "plain"
//!     }
//!
//!     fn start(&self, launch: &Launch<'_>) -> plugin_runner::Result<Run> {
//!         launch.spawn(launch.command()?)
//!     }
//! }
//!
//! let checked = conformance::check(&mut |builder, _| builder.runtime(Plain));
//! checked.unwrap_or_else(|violation| panic!("{violation}"));
//! ```
//!
//! Each promise is a check with a name, which a [`Violation`] has. A check builds a host of its own, in an
//! empty directory, and installs a plugin: a script for `/bin/sh` that speaks over its standard input and
//! output, and uses `cat`, `mkdir`, `sleep`, `tr` and `wc`. These have to be there where the runtime starts plugins.
//!
//! The checks show what an embedder cannot see otherwise, such as a second run beside the first one. They do not
//! take away the service behind a runtime: how it behaves while that cannot be reached is for tests of its own
//! ([`RunHandle`](super::RunHandle), [`RunExit::lost`](super::RunExit::lost)). A violation is told by its symptom:
//! with a [`signal`](super::RunHandle::signal) that blocks, for example, a plugin is killed that would have ended.
//!
//! Every wait has a deadline: a minute for whatever is waited for, such as a start, an answer, a line in the log
//! or a stop; five seconds for what has to happen soon, such as the notice of an end or the return of a cancelled
//! start; a second for whatever must not block. The grace of a stop is three seconds. With a runtime that is
//! quick, all checks together take about a minute, most of it graces, and up to twice that on a busy machine.

mod bench;
mod ending;
mod files;
mod probe;
mod starting;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use bench::Bench;

use crate::host::HostBuilder;
pub use crate::store::conformance::Violation;

/// The outcome of a check: what is wrong, in words or as an error of the host's.
type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// A check, by the name that a [`Violation`] has.
type Check = (&'static str, fn(&mut Bench) -> Outcome);

/// What adds the runtime to a host that is built.
type Configure<'a> = dyn FnMut(HostBuilder, &Path) -> HostBuilder + 'a;

/// The deadlines of a check.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// For whatever is waited for.
    step: Duration,
    /// For what has to happen soon.
    soon: Duration,
    /// For what must not block.
    instant: Duration,
    /// The grace of a stop.
    grace: Duration,
}

const LIMITS: Limits = Limits {
    step: Duration::from_secs(60),
    soon: Duration::from_secs(5),
    instant: Duration::from_secs(1),
    grace: Duration::from_secs(3),
};

/// Checks what the host relies on with every runtime.
///
/// `configure` is called for each check, with the builder of its host and the host's data directory, which is
/// empty and is removed afterwards. It adds the runtime with [`HostBuilder::runtime`], and whatever else that needs.
/// Data directory, timeouts, restart policy and output tap are the check's own.
///
/// # Blocking
/// About a minute with a runtime that is quick; each wait of a check has a [deadline](self).
///
/// # Errors
/// The first promise that is not kept.
pub fn check(
    configure: &mut dyn FnMut(HostBuilder, &Path) -> HostBuilder,
) -> Result<(), Violation> {
    for (name, check) in [starting::CHECKS, files::CHECKS, ending::CHECKS].concat() {
        run(name, check, LIMITS, configure)?;
    }
    Ok(())
}

/// Runs one check on a host of its own, which has to end then.
fn run(
    check: &'static str,
    body: fn(&mut Bench) -> Outcome,
    limits: Limits,
    configure: &mut Configure<'_>,
) -> Result<(), Violation> {
    let outcome = Bench::new(limits, configure).and_then(|mut bench| {
        body(&mut bench)?;
        bench.end()
    });
    outcome.map_err(|found| Violation {
        check,
        found: found.to_string(),
    })
}

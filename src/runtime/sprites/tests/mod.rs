//! The client with a server that misbehaves as each test says, and runs with the fake of the service. What needs
//! no connection is tested beside it.

mod certificate;
#[cfg(target_os = "linux")]
mod deploy;
mod exec;
#[cfg(target_os = "linux")]
#[path = "../../../../tests/support/sprites/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "has every switch, whichever are used"
)]
pub(super) mod fake;
mod http;
mod program;
mod run;
mod server;
mod sessions;
mod tls;

use std::time::Duration;

use self::server::Server;
use super::interrupt::Interrupt;
use super::{Client, ClientSettings, Within};
use crate::deadline::Deadline;
use crate::error::{SpritesError, SpritesProblem};
use crate::testing::LONG;
use crate::thread::Threads;

/// Waited out by the tests of what takes too long.
const SHORT: Duration = Duration::from_millis(300);

const TOKEN: &str = "org/id/secret-token";

/// A client of one server, and what cancels its calls.
struct Setup {
    client: Client,
    interrupt: Interrupt,
    threads: Threads,
}

impl Setup {
    fn of(server: &Server) -> Self {
        Self::at(format!("http://127.0.0.1:{}/", server.port()), Vec::new())
    }

    fn at(base_url: String, roots: Vec<rustls::pki_types::CertificateDer<'static>>) -> Self {
        let settings = ClientSettings {
            base_url,
            token: TOKEN.to_owned(),
            roots,
        };
        Self::with(settings, 1)
    }

    fn with(settings: ClientSettings, threads: usize) -> Self {
        let threads = Threads::with_limit(threads);
        Self {
            client: Client::new(settings, threads.clone()).unwrap(),
            interrupt: Interrupt::new().unwrap(),
            threads,
        }
    }

    fn within(&self, limit: Duration) -> Within<'_> {
        Within::new(limit, &self.interrupt)
    }

    fn long(&self) -> Within<'_> {
        self.within(LONG)
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        let left = self.threads.join_all(Deadline::after(LONG));
        assert!(left == 0 || std::thread::panicking(), "a thread is left");
    }
}

/// Returns why a call failed, after looking for the token in all that could be shown of it.
#[track_caller]
fn problem<T>(outcome: Result<T, SpritesError>) -> SpritesProblem {
    let Err(error) = outcome else {
        panic!("did not fail");
    };
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("secret-token"), "{shown}");
    error.problem
}

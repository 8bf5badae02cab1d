//! The HTTP API for administrators, [`AdminServer`]: what a [`Manager`] can do, for other programs and for
//! people. Its paths, bodies and statuses are those of Storyden's API for plugins, and more beyond it.
//!
//! What lives here: which operations there are, who may ask for them, and how results and errors look. What
//! does not: HTTP itself (`http`), and what an operation does (`manager`, `host`).

mod access;
mod call;
mod configuration;
mod installation;
mod logs;
mod metrics;
mod openapi;
mod overrides;
mod package;
mod plugins;
mod probes;
mod problem;
mod routes;
mod rpc;
mod runs;
mod settings;
mod stream;
mod usage;
mod versions;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

pub use settings::AdminSettings;

use crate::error::Result;
use crate::http::{HttpSettings, Request, Response, Server};
use crate::manager::Manager;
use crate::text::Foreign;
use access::Access;
use problem::Problem;

/// An HTTP server on one address, through which administrators manage plugins. Dropping it stops it without
/// waiting. `GET /api/openapi.json` describes every operation, with an example, in OpenAPI 3.1.
///
/// ```no_run
/// use plugin_runner::admin::{AdminServer, AdminSettings};
/// use plugin_runner::{Host, Manager};
///
/// # fn main() -> plugin_runner::Result<()> {
/// let manager = Manager::new(Host::builder().build()?)?;
/// let token = "3d8b1f0a52c94e7d9f61";
/// let admin = AdminServer::start(manager, "127.0.0.1:8001", token, AdminSettings::default())?;
/// println!("{}/api/plugins", admin.url());
/// # Ok(())
/// # }
/// ```
///
/// # Plugins that the host does not run
/// With [`RuntimeProvider::None`](crate::RuntimeProvider::None) whatever needs a runtime is refused with 403:
/// adding a plugin from a package, replacing its package, and starting it. All else is possible, external
/// plugins among it. (Storyden refuses every operation then, since it has no plugins at all.)
///
/// # Limits
/// A request's head has at most 16 KiB, and comes within 10 s. A JSON body has at most 4 MiB, and a package as many
/// bytes as [`PackageLimits`](crate::PackageLimits) allow; either comes within 30 s and a second for each 16 KiB. A
/// client has 10 s for each 64 KiB of an answer, and for each event of a stream. An idle connection is closed after
/// a minute.
///
/// # Security
/// Every request but `/healthz` and `/readyz` needs the token, as `Authorization: Bearer …`; it is compared in
/// constant time, and is in no log. Whoever has it can run programs as this process's user. There is no TLS: on
/// another address than a loopback one, put a proxy with TLS in front of it.
///
/// So that no web page that an administrator visits can use it, a request must name in `Host` an IP address,
/// `localhost` or one of [`AdminSettings::allow_hosts`], and an `Origin`, if there is one, must be the server's
/// own or one of [`AdminSettings::allow_origins`].
#[must_use = "dropping it stops the server"]
pub struct AdminServer {
    server: Server,
    api: Arc<Api>,
}

/// What operations work with.
struct Api {
    manager: Manager,
    access: Access,
    /// Whether it was logged that the server is not ready, and not yet that it is again.
    is_failing: AtomicBool,
}

impl AdminServer {
    /// Binds a literal address, such as `127.0.0.1:8001` (port 0 takes a free one), and serves the API to
    /// everyone who has the token. It keeps the manager until it has stopped. Does not block.
    ///
    /// # Errors
    /// - [`Error::Setting`](crate::Error::Setting) when `address` is no literal address, `token` has fewer than
    ///   16 characters or others than visible ASCII ones, or the settings cannot work.
    /// - [`Error::Io`](crate::Error::Io) when the address cannot be bound, or no thread can be started.
    /// - [`Error::ThreadLimit`](crate::Error::ThreadLimit) when no thread is left.
    pub fn start(
        manager: Manager,
        address: &str,
        token: &str,
        settings: AdminSettings,
    ) -> Result<Self> {
        settings.validate()?;
        let http = HttpSettings {
            connections: settings.connections,
            refusal_body: Problem::of_refusal,
            ..HttpSettings::default()
        };
        let threads = manager.host().threads().clone();
        let access = Access::new(token, settings)?;
        let api = Arc::new(Api {
            manager,
            access,
            is_failing: AtomicBool::new(false),
        });
        let served = api.clone();
        let server = Server::start(address, http, threads, move |request: &mut Request<'_>| {
            served.answer(request)
        })?;
        Ok(Self { server, api })
    }

    /// Returns the address that it is bound to.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Returns the URL for programs on this machine, such as `http://127.0.0.1:8001`.
    pub fn url(&self) -> String {
        crate::listener::base_url(self.address())
    }

    /// Replaces [`AdminSettings::allow_origins`], from the next request on.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) when one of them is no origin; then nothing has changed.
    pub fn set_allowed_origins(&self, origins: Vec<String>) -> Result<()> {
        self.api.access.set_allowed_origins(origins)
    }

    /// Stops accepting, ends streams, and lets requests that have begun finish. Those that still wait for a plugin
    /// after a quarter of the time are answered with 503, and after half of it whatever waits for a client is cut
    /// off. Returns how many requests are left, which wait for an operation on a plugin; the host's shutdown ends
    /// those.
    ///
    /// # Blocking
    /// Until all connections have ended, at most for the timeout.
    pub fn stop(&self, timeout: Duration) -> usize {
        self.server.stop(timeout)
    }
}

impl Api {
    fn answer(&self, request: &mut Request<'_>) -> Response {
        let began = Instant::now();
        let answer = match self.access.judge_source(request) {
            Ok(origin) => {
                let answer = routes::answer(self, request);
                origin.mark(answer.unwrap_or_else(Problem::respond))
            }
            Err(problem) => problem.respond(),
        };
        // Without the query, in which a client may have put what is secret.
        log::debug!(
            "{} {}: {} after {:?}, from {}",
            Foreign::new(request.method()),
            Foreign::new(request.path()),
            answer.status(),
            began.elapsed(),
            request.peer()
        );
        answer
    }
}

impl fmt::Debug for AdminServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminServer")
            .field("address", &self.address())
            .finish_non_exhaustive()
    }
}

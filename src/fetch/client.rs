//! `Client`: makes one HTTP request at a time, to exactly the addresses that were checked, without
//! redirects, proxies, cookies or decoding. It records how far the request has come, for errors.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ureq::config::Config;
use ureq::http::header::CONNECTION;
use ureq::http::{Response, Uri};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    ConnectionDetails, Connector, NextTimeout, RustlsConnector, TcpConnector, Transport,
};
use ureq::{Agent, Body, Timeout};

use super::settings::FetchSettings;
use super::target::Target;
use crate::deadline::Deadline;
use crate::error::{FetchError, FetchStep};

const USER_AGENT: &str = concat!("plugin-runner/", env!("CARGO_PKG_VERSION"));

/// How far a fetch has come, and with which host.
#[derive(Debug)]
pub(super) struct FetchProgress(Mutex<(FetchStep, String)>);

/// Makes requests. A clone is another handle to the same client.
#[derive(Clone)]
pub(super) struct Client {
    agent: Agent,
    pinned: PinnedResolver,
    pub(super) progress: Arc<FetchProgress>,
    /// The time for connecting and the time for everything, to be named in errors.
    limits: (Duration, Duration),
}

impl FetchProgress {
    pub(super) fn begin(&self, host: &str) {
        *self.0.lock() = (FetchStep::LookUp, host.into());
    }

    fn reached(&self, step: FetchStep) {
        self.0.lock().0 = step;
    }

    pub(super) fn step(&self) -> FetchStep {
        self.0.lock().0
    }

    pub(super) fn host(&self) -> String {
        self.0.lock().1.clone()
    }

    fn timeout(&self, limit: Duration) -> FetchError {
        FetchError::Timeout {
            host: self.host(),
            step: self.step(),
            limit,
        }
    }
}

impl Client {
    /// `time` is the time for everything; here it is only named in errors, as is the first host.
    pub(super) fn new(settings: &FetchSettings, time: Duration, host: &str) -> Self {
        let progress = Mutex::new((FetchStep::LookUp, host.to_owned()));
        let progress = Arc::new(FetchProgress(progress));
        let config = Agent::config_builder()
            // By default it is the environment's proxy, which would look up the host itself.
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .max_idle_connections(0)
            .timeout_connect(Some(settings.connect))
            .user_agent(USER_AGENT)
            .accept_encoding("identity")
            .build();
        let reached = |step| StepTracker {
            progress: progress.clone(),
            step,
        };
        let connector = TcpConnector::default()
            .chain(reached(FetchStep::Tls))
            .chain(RustlsConnector::default())
            .chain(reached(FetchStep::Response));
        let pinned = PinnedResolver::default();
        Self {
            agent: Agent::with_parts(config, connector, pinned.clone()),
            pinned,
            progress,
            limits: (settings.connect, time),
        }
    }

    /// Requests the target from one of these addresses. Blocks until the head of the response is there,
    /// at most until the deadline.
    pub(super) fn get(
        &self,
        target: &Target,
        addresses: Vec<SocketAddr>,
        deadline: Deadline,
    ) -> Result<Response<Body>, FetchError> {
        self.progress.reached(FetchStep::Connect);
        *self.pinned.0.lock() = PinnedAddresses {
            uri: target.uri().clone(),
            addresses,
        };
        let response = self
            .agent
            .get(target.uri())
            .header(CONNECTION, "close")
            .config()
            .timeout_global(Some(deadline.remaining()))
            .build()
            .call()
            .map_err(|error| self.failure(error))?;
        self.progress.reached(FetchStep::Body);
        Ok(response)
    }

    /// Ends a request that another thread makes, at once unless it is still connecting. Later requests
    /// fail.
    pub(super) fn shut_down(&self) {
        self.agent.clone().shutdown();
    }

    /// Returns the error for a fetch whose time has run out.
    pub(super) fn timeout(&self) -> FetchError {
        self.progress.timeout(self.limits.1)
    }

    /// Returns what an error of the HTTP client means at the step where it happened.
    pub(super) fn failure(&self, error: ureq::Error) -> FetchError {
        match error {
            ureq::Error::Timeout(Timeout::Connect) => return self.progress.timeout(self.limits.0),
            ureq::Error::Timeout(_) => return self.timeout(),
            _ => {}
        }
        let host = self.progress.host();
        let source = error.into_io();
        match self.progress.step() {
            FetchStep::LookUp => FetchError::LookUp { host, source },
            FetchStep::Connect => FetchError::Connect { host, source },
            FetchStep::Tls => FetchError::Tls { host, source },
            step => FetchError::Broken { host, step, source },
        }
    }
}

/// Resolves a URL to the addresses that were checked for it, and any other URL to none.
#[derive(Clone, Debug, Default)]
struct PinnedResolver(Arc<Mutex<PinnedAddresses>>);

#[derive(Debug, Default)]
struct PinnedAddresses {
    uri: Uri,
    addresses: Vec<SocketAddr>,
}

impl Resolver for PinnedResolver {
    fn resolve(
        &self,
        uri: &Uri,
        _: &Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let checked = self.0.lock();
        if checked.uri != *uri {
            return Err(ureq::Error::HostNotFound);
        }
        let mut resolved = self.empty();
        // The client has room for sixteen.
        for address in checked.addresses.iter().take(16) {
            resolved.push(*address);
        }
        Ok(resolved)
    }
}

/// A link in the chain of connectors that records that the links before it are done.
#[derive(Debug)]
struct StepTracker {
    progress: Arc<FetchProgress>,
    step: FetchStep,
}

impl<In: Transport> Connector<In> for StepTracker {
    type Out = In;

    fn connect(
        &self,
        _: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<In>, ureq::Error> {
        self.progress.reached(self.step);
        Ok(chained)
    }
}

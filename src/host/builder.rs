//! The settings of a host, checked when it is built.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{AccessLog, Host, HostShared, LiveHandshakes, Owner};
use crate::auth::connection_url;
use crate::config::{Limits, Timeouts};
use crate::error::{Error, Result, RpcError};
use crate::health::Health;
use crate::id::InstallationId;
use crate::keeper::Keeper;
use crate::keeper::link::KeeperLink;
use crate::package::{ArchiveCache, PackageLimits};
use crate::plugin_log::{LogLine, LogSettings, Logs};
use crate::process::ProcessLimits;
use crate::process::orphans::{self, Cookie, OrphanScanner};
use crate::protocol::jsonrpc::ResultObject;
use crate::protocol::method::Method;
use crate::reaper::Reaper;
use crate::reaper::policy::RestartPolicy;
use crate::rpc::Params;
use crate::rpc::handling::typed;
use crate::rpc::spin_limit;
use crate::runtime::local::{Local, LocalPlugins};
#[cfg(feature = "sprites")]
use crate::runtime::sprites::{Sprites, SpritesHost, SpritesSettings};
use crate::runtime::{Runtime, RuntimeProvider};
use crate::session::context::{
    Addresses, Drain, HostContext, HostServices, HostSettings, OutputTap,
};
use crate::session::health::HealthMonitor;
use crate::session::services::Methods;
use crate::session::{CallEvent, CallHook, InboundCall, Services, Subscribers};
use crate::settings::require;
use crate::store::{MemoryStore, Store};
use crate::thread::Threads;

/// Builds a [`Host`]. Every setting has a default that works.
#[must_use = "a builder does nothing until `build`"]
pub struct HostBuilder {
    data_dir: PathBuf,
    provider: RuntimeProvider,
    #[cfg(feature = "sprites")]
    sprites: Option<SpritesSettings>,
    /// Counts instead of the provider.
    runtime: Option<Arc<dyn Runtime>>,
    limits: Limits,
    timeouts: Timeouts,
    policy: RestartPolicy,
    health: Health,
    package_limits: PackageLimits,
    log_settings: LogSettings,
    output_tap: Option<OutputTap>,
    on_call: Option<CallHook>,
    passed_variables: Vec<String>,
    process_limits: ProcessLimits,
    rpc_base_url: Option<String>,
    services: Arc<dyn Services>,
    methods: Methods,
    store: Arc<dyn Store>,
    thread_limit: Option<usize>,
    keeper: Keeper,
    find_descendants: bool,
    #[cfg(feature = "conformance")]
    runtime_wrapper: Option<RuntimeWrapper>,
}

/// What a runtime is replaced by that is to be checked.
#[cfg(feature = "conformance")]
type RuntimeWrapper = Box<dyn FnOnce(Arc<dyn Runtime>) -> Arc<dyn Runtime> + Send + Sync>;

impl Default for HostBuilder {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("./data/plugins"),
            provider: RuntimeProvider::default(),
            #[cfg(feature = "sprites")]
            sprites: None,
            runtime: None,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            policy: RestartPolicy::default(),
            health: Health::default(),
            package_limits: PackageLimits::default(),
            log_settings: LogSettings::default(),
            output_tap: None,
            on_call: None,
            passed_variables: Vec::new(),
            process_limits: ProcessLimits::default(),
            rpc_base_url: None,
            services: Arc::new(()),
            methods: Methods::default(),
            store: Arc::new(MemoryStore::default()),
            thread_limit: None,
            keeper: Keeper::default(),
            find_descendants: true,
            #[cfg(feature = "conformance")]
            runtime_wrapper: None,
        }
    }
}

impl HostBuilder {
    /// The directory for unpacked packages, logs and plugin data. Default `./data/plugins`.
    pub fn data_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.data_dir = directory.into();
        self
    }

    /// Where supervised plugins run. Default [`RuntimeProvider::Local`].
    pub fn runtime_provider(mut self, provider: RuntimeProvider) -> Self {
        self.provider = provider;
        self
    }

    /// Runs supervised plugins on sprites, the remote sandboxes of this account, each plugin on one of its own; sets
    /// the provider to [`RuntimeProvider::Sprites`]. Needs the feature `sprites`. [`build`](Self::build) refuses it
    /// without, or with, what follows:
    ///
    /// - [`rpc_base_url`](Self::rpc_base_url) has to be an address at which sprites reach this host, so not
    ///   `localhost`. Take `wss://`: with `ws://` everything that plugins and host say can be read on the way, which
    ///   is not refused. The module `sdk` has no TLS; plugins that use it take stdio.
    /// - The [store](Self::store) has to keep [notes](Store#notes), and should be one that lasts: sprites of a store
    ///   that is gone, such as the default one in memory, are found by no later host, and are paid for until
    ///   they are deleted at the service.
    /// - [`process_limits`](Self::process_limits) cannot be set. A plugin that has
    ///   [limits of its own](crate::Overrides::process_limits) is not installed, updated or loaded.
    #[cfg(feature = "sprites")]
    pub fn sprites(mut self, settings: SpritesSettings) -> Self {
        self.sprites = Some(settings);
        self.runtime_provider(RuntimeProvider::Sprites)
    }

    /// Runs supervised plugins in a place of the embedder's own, instead of one that
    /// [`runtime_provider`](Self::runtime_provider) names.
    pub fn runtime(mut self, runtime: impl Runtime + 'static) -> Self {
        self.runtime = Some(Arc::new(runtime));
        self
    }

    /// Puts another runtime in front of the one that runs the plugins, whichever that is.
    #[cfg(feature = "conformance")]
    pub(crate) fn wrap_runtime(
        mut self,
        wrapper: impl FnOnce(Arc<dyn Runtime>) -> Arc<dyn Runtime> + Send + Sync + 'static,
    ) -> Self {
        self.runtime_wrapper = Some(Box::new(wrapper));
        self
    }

    /// All bounds; see [`Limits`] for the defaults.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// All timeouts; see [`Timeouts`] for the defaults.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// When plugins that ended are restarted; see [`RestartPolicy`] for the defaults.
    pub fn restart_policy(mut self, policy: RestartPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// How connections are checked for signs of life; see [`Health`] for the defaults.
    pub fn health(mut self, health: Health) -> Self {
        self.health = health;
        self
    }

    /// Limits of archives; see [`PackageLimits`] for the defaults.
    pub fn package_limits(mut self, limits: PackageLimits) -> Self {
        self.package_limits = limits;
        self
    }

    /// Sizes of plugin logs; see [`LogSettings`] for the defaults.
    pub fn log_settings(mut self, settings: LogSettings) -> Self {
        self.log_settings = settings;
        self
    }

    /// A function that receives every line of output of every supervised plugin, with the id of the
    /// installation and that of the manifest. It runs on the threads that drain the output and must not
    /// block. If it panics, the panic is logged and it receives nothing more of that plugin.
    pub fn on_output(
        mut self,
        tap: impl Fn(InstallationId, &str, &LogLine<'_>) + Send + Sync + 'static,
    ) -> Self {
        self.output_tap = Some(Arc::new(tap));
        self
    }

    /// A function that receives every call to a plugin and from one when it has ended, for metrics and
    /// traces: the method, how long it took, and how it ended. Events that are delivered are calls of the
    /// method `event`. Not received are health pings, and calls from a plugin whose handler did not run
    /// because too many were in progress or the connection had ended;
    /// [`Session::counters`](crate::Session::counters) counts them.
    ///
    /// It runs on the thread that ends the call, which is the caller's own or a worker's, and delays it. It must
    /// not block: what waits in it for an event may wait for the worker it runs on. If it panics, that
    /// is logged the first time, and the call ends as it would have.
    ///
    /// ```
    /// use plugin_runner::Host;
    ///
    /// # fn main() -> plugin_runner::Result<()> {
    /// let host = Host::builder()
    ///     .on_call(|call| {
    ///         if let Some(error) = call.error() {
    ///             let from = if call.is_from_plugin() { "from" } else { "to" };
    ///             let (method, took) = (call.method(), call.duration());
    ///             eprintln!("call {from} {}: {method:?} failed after {took:?}: {error}", call.plugin());
    ///         }
    ///     })
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_call(mut self, hook: impl Fn(&CallEvent<'_>) + Send + Sync + 'static) -> Self {
        self.on_call = Some(CallHook::new(hook));
        self
    }

    /// Passes this variable of the host's environment on to plugins, beyond the allowlist: `PATH`,
    /// `HOME`, `USER`, `LOGNAME`, `SHELL`, `TMPDIR`, `LANG`, `LC_*`, `TZ`, `SSL_CERT_FILE`,
    /// `SSL_CERT_DIR`, `XDG_*` and the proxy variables.
    pub fn pass_variable(mut self, name: impl Into<String>) -> Self {
        self.passed_variables.push(name.into());
        self
    }

    /// Resource limits for the processes of supervised plugins, unless a record has its own. Default: those
    /// of the host itself.
    pub fn process_limits(mut self, limits: ProcessLimits) -> Self {
        self.process_limits = limits;
        self
    }

    /// The base URL that plugins connect to, for an embedder that listens itself, such as
    /// `http://127.0.0.1:8000`. They connect with `wss` if its scheme is `https` or `wss`, else with `ws`, and to
    /// `/rpc`, whatever its path is. Nothing checks that there is a listener. Default: that of the oldest
    /// bound listener.
    pub fn rpc_base_url(mut self, url: impl Into<String>) -> Self {
        self.rpc_base_url = Some(url.into());
        self
    }

    /// Answers the protocol's calls from plugins. Default: none, `()`.
    pub fn services(mut self, services: impl Services + 'static) -> Self {
        self.services = Arc::new(services);
        self
    }

    /// Registers a method of the embedder's own for plugins to call, with types for params and reply. The
    /// reply must encode to a JSON object. Params that do not decode to a `P` are answered with -32602 and
    /// the field that is at fault. Of a method without params, `P` is an empty struct or
    /// [`IgnoredAny`](serde::de::IgnoredAny); [`Map::new()`](serde_json::Map::new) is an empty reply. A handler
    /// fails with an [`RpcError`], which is the answer:
    /// `RpcError::new(RpcError::HANDLER_FAILED, error.to_string())`.
    ///
    /// Handlers follow the rules of [`Services`]. The protocol's three methods come first, then registered
    /// ones, then [`Services::call`]. Registering another handler for a name replaces the first.
    ///
    /// ```
    /// use plugin_runner::Host;
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Deserialize)]
    /// struct Greet {
    ///     name: String,
    /// }
    ///
    /// #[derive(Serialize)]
    /// struct Greeting {
    ///     text: String,
    /// }
    ///
    /// # fn main() -> plugin_runner::Result<()> {
    /// let host = Host::builder()
    ///     .method("greet", |call, Greet { name }| {
    ///         let text = format!("{} greets {name}", call.manifest().name);
    ///         Ok(Greeting { text })
    ///     })
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn method<P: DeserializeOwned, R: Serialize>(
        self,
        name: impl Into<String>,
        handler: impl Fn(&InboundCall, P) -> Result<R, RpcError> + Send + Sync + 'static,
    ) -> Self {
        self.method_raw(name, typed(handler))
    }

    /// [`method`](Self::method) with the name and the types of a [`Method`], which a plugin in Rust can share:
    /// `.on(|call, Greet { name }| …)`.
    pub fn on<M: Method>(
        self,
        handler: impl Fn(&InboundCall, M) -> Result<M::Reply, RpcError> + Send + Sync + 'static,
    ) -> Self {
        self.method(M::NAME, handler)
    }

    /// [`method`](Self::method) with params and result in raw form.
    pub fn method_raw(
        mut self,
        name: impl Into<String>,
        handler: impl Fn(&InboundCall, &Params) -> Result<ResultObject, RpcError>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.methods.insert(name.into(), Arc::new(handler));
        self
    }

    /// Where records are kept. Default: in memory.
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = store;
        self
    }

    /// How many threads the host may have at once. Default: derived from the system's limits.
    pub fn thread_limit(mut self, limit: usize) -> Self {
        self.thread_limit = Some(limit);
        self
    }

    /// The process that ends the plugins of a host that was killed. Default [`Keeper::Shell`].
    pub fn keeper(mut self, keeper: Keeper) -> Self {
        self.keeper = keeper;
        self
    }

    /// Whether descendants that left their plugin's process group are found and killed when the plugin
    /// ends and when the host does. Default true. A random number in their environment
    /// (`PLUGIN_RUNNER_COOKIE`) marks them, which only Linux shows. These escape: a process that was given
    /// another environment, overwrote its own or keeps it from being read, that runs as a user whose
    /// processes the host may not inspect, or that `/proc` does not show.
    ///
    /// Descendants that are found and cannot be ended are reported as
    /// [`ErrorKind::DescendantsLeft`](crate::ErrorKind::DescendantsLeft).
    pub fn find_descendants(mut self, yes: bool) -> Self {
        self.find_descendants = yes;
        self
    }

    /// Checks the settings and starts the host's reaper thread.
    ///
    /// # Blocking
    /// Not at all; with [`sprites`](Self::sprites) for the store's I/O.
    ///
    /// # Errors
    /// - [`Error::Setting`] names an invalid setting, or one that is missing.
    /// - [`Error::Unsupported`]: the feature that the runtime provider needs is not built in.
    /// - With [`sprites`](Self::sprites), [the store's](Store#errors).
    /// - [`Error::ThreadLimit`] or [`Error::Io`] when the thread cannot be started.
    ///
    /// Whether the data directory can be written to is checked when a plugin starts, not here.
    pub fn build(mut self) -> Result<Host> {
        self.limits.validate()?;
        self.timeouts.validate()?;
        self.policy.validate()?;
        self.health.validate()?;
        self.log_settings.validate()?;
        self.process_limits.validate()?;
        if let Some(url) = &self.rpc_base_url {
            // Any token will do: it is the base that is being checked.
            connection_url(url, None, "").map_err(|error| Error::Setting {
                name: "rpc_base_url",
                problem: error.to_string().into(),
            })?;
        }
        require(
            self.thread_limit != Some(0),
            "thread_limit",
            "must be at least one",
        )?;
        let threads = Threads::with_limit(self.thread_limit.unwrap_or_else(Threads::default_limit));
        // Then no process of a plugin is on this machine.
        let is_elsewhere = self.runtime.is_none() && self.provider == RuntimeProvider::Sprites;
        let runtime = self.take_runtime(&threads)?;
        #[cfg(feature = "conformance")]
        let runtime = match self.runtime_wrapper {
            Some(wrapper) => runtime.map(wrapper),
            None => runtime,
        };
        let cookie = (!is_elsewhere && self.find_descendants && orphans::ARE_FOUND)
            .then(Cookie::generate)
            .transpose()?;
        let scanner = cookie.clone().map(OrphanScanner::new);
        let keeper = KeeperLink::new(self.keeper, cookie, threads.clone());
        let local = LocalPlugins {
            data: self.data_dir.clone(),
            package_limits: self.package_limits.clone(),
            passed_variables: self.passed_variables,
            process_limits: RwLock::new(self.process_limits),
            archive_cache: ArchiveCache::default(),
            keeper: keeper.clone(),
            scanner: scanner.clone(),
            threads: threads.clone(),
        };
        let reaper = Reaper::start(&threads, keeper, scanner).inspect_err(|_| {
            // It may have a thread by now.
            if let Some(runtime) = &runtime {
                runtime.shut_down();
            }
        })?;
        let settings = HostSettings {
            data_dir: self.data_dir,
            limits: self.limits,
            package_limits: self.package_limits,
            spin: spin_limit(),
            timeouts: self.timeouts,
            policy: self.policy,
            log: self.log_settings,
            output_tap: self.output_tap,
            on_call: self.on_call,
            health: self.health,
        };
        let services = HostServices {
            reaper,
            health: HealthMonitor::new(threads.clone()),
            threads,
            store: self.store,
            runtime,
            local,
            logs: Logs::default(),
            subscribers: Subscribers::default(),
            addresses: Addresses::new(self.rpc_base_url),
            handlers: self.services,
            methods: self.methods,
            on_reconnect: RwLock::default(),
        };
        let context = HostContext {
            settings,
            services,
            totals: Box::default(),
            drain: Drain::default(),
            shut_down: false.into(),
        };
        let shared = Arc::new(HostShared {
            context: Arc::new(context),
            sessions: RwLock::new(BTreeMap::new()),
            listeners: Mutex::default(),
            handshakes: LiveHandshakes::default(),
            access: AccessLog::default(),
            stopping: Mutex::default(),
            ended: Mutex::new(None),
        });
        Ok(Host {
            owner: Arc::new(Owner { shared }),
        })
    }

    /// Makes what runs supervised plugins; `None` if they are disabled.
    fn take_runtime(&mut self, threads: &Threads) -> Result<Option<Arc<dyn Runtime>>> {
        if let Some(runtime) = self.runtime.take() {
            return Ok(Some(runtime));
        }
        match self.provider {
            RuntimeProvider::None => Ok(None),
            RuntimeProvider::Local => Ok(Some(Arc::new(Local))),
            #[cfg(feature = "sprites")]
            RuntimeProvider::Sprites => Ok(Some(Arc::new(Sprites::new(SpritesHost {
                settings: self.sprites.take().unwrap_or_default(),
                store: &self.store,
                threads,
                package_limits: &self.package_limits,
                process_limits: &self.process_limits,
                rpc_base_url: self.rpc_base_url.as_deref(),
            })?))),
            #[cfg(not(feature = "sprites"))]
            RuntimeProvider::Sprites => {
                let _ = threads;
                Err(Error::Unsupported(
                    "this program was built without the feature 'sprites'",
                ))
            }
        }
    }
}

impl fmt::Debug for HostBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostBuilder")
            .field("data_dir", &self.data_dir)
            .field("provider", &self.provider)
            .finish_non_exhaustive()
    }
}

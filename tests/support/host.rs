//! A host for one test: listening, with a folder of its own, and gone without a trace at the end.

use std::fs;
use std::mem::take;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plugin_runner::fuzzing::thread_counter;
use plugin_runner::listener::Listener;
use plugin_runner::protocol::Transport;
use plugin_runner::store::Record;
use plugin_runner::{
    Host, HostBuilder, Limits, ReportedState, RestartPolicy, Session, Supervised, Timeouts,
};

use super::events::Events;
use super::lifeline::Lifelines;
use super::output::Output;
use super::plugin::{external, fixture};
use super::{LONG, TestDir, wait_until};

/// Nobody who behaves takes so long to stop, and nobody who does not holds up a test for much.
pub(crate) const STOP_GRACE: Duration = Duration::from_secs(5);

/// Settings of a [`TestHost`]: patient where a test waits for success, quick where it waits for a
/// timer.
pub(crate) struct Setup {
    test: &'static str,
    timeouts: Timeouts,
    limits: Limits,
    policy: RestartPolicy,
    listening: bool,
    configure: Box<dyn FnOnce(HostBuilder) -> HostBuilder>,
    elsewhere: Option<Elsewhere>,
}

/// What a builder is told where plugins run elsewhere, and need the URL of the listener.
type Elsewhere = Box<dyn FnOnce(HostBuilder, String) -> HostBuilder>;

impl Setup {
    pub(crate) fn new(test: &'static str) -> Self {
        let timeouts = Timeouts::default()
            .connect(LONG)
            .handshake(LONG)
            .disconnect_grace(LONG)
            .stop_grace(STOP_GRACE)
            .stop(LONG);
        Self {
            test,
            timeouts,
            limits: Limits::default(),
            policy: RestartPolicy::default()
                .max_backoff(Duration::from_millis(20))
                .crash_backoff(Duration::from_millis(20))
                .requested_restart_delay(Duration::from_millis(20)),
            listening: true,
            configure: Box::new(|builder| builder),
            elsewhere: None,
        }
    }

    /// With some settings changed.
    pub(crate) fn with(test: &'static str, change: impl FnOnce(&mut Self)) -> Self {
        let mut setup = Self::new(test);
        change(&mut setup);
        setup
    }

    pub(crate) fn timeouts(&mut self, change: impl FnOnce(Timeouts) -> Timeouts) {
        self.timeouts = change(take(&mut self.timeouts));
    }

    pub(crate) fn limits(&mut self, change: impl FnOnce(Limits) -> Limits) {
        self.limits = change(take(&mut self.limits));
    }

    pub(crate) fn policy(&mut self, change: impl FnOnce(RestartPolicy) -> RestartPolicy) {
        self.policy = change(take(&mut self.policy));
    }

    /// A host without a listener.
    pub(crate) fn deaf(&mut self) {
        self.listening = false;
    }

    /// Every run counts as a good one, and after its crash the plugin is not started again while the
    /// test lasts.
    pub(crate) fn stay_down_after_a_crash(&mut self) {
        self.policy(|policy| {
            policy
                .crash_threshold(Duration::ZERO)
                .crash_backoff(Duration::from_secs(3600))
        });
    }

    /// What else the host's builder is told.
    pub(crate) fn configure(&mut self, change: impl FnOnce(HostBuilder) -> HostBuilder + 'static) {
        self.configure = Box::new(change);
    }

    /// The same, with the base URL of the listener, which has an address before the host is built.
    pub(crate) fn run_elsewhere(
        &mut self,
        change: impl FnOnce(HostBuilder, String) -> HostBuilder + 'static,
    ) {
        self.elsewhere = Some(Box::new(change));
    }

    pub(crate) fn start(self) -> TestHost {
        let folder = TestDir::new(self.test);
        let output = Output::default();
        let builder = Host::builder()
            .data_dir(folder.path().join("data"))
            .timeouts(self.timeouts)
            .limits(self.limits)
            .restart_policy(self.policy)
            .on_output(output.tap());
        let mut builder = (self.configure)(builder);
        let mut address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut reserved = None;
        if let Some(change) = self.elsewhere {
            let (socket, port) = reserve();
            address.set_port(port);
            reserved = Some(socket);
            builder = change(builder, format!("http://{address}"));
        }
        let host = builder.build().unwrap();
        let listen = || host.listen(&address.to_string()).unwrap();
        let listener = self.listening.then(listen);
        TestHost {
            threads: Box::new(thread_counter(&host)),
            host: Some(host),
            listener,
            _reserved: reserved,
            output,
            lifelines: Lifelines::new(),
            folder,
        }
    }
}

/// A host under test. Dropping it shuts it down and asserts that nothing is left of it: no thread,
/// no process, no folder.
pub(crate) struct TestHost {
    host: Option<Host>,
    threads: Box<dyn Fn() -> usize + Send + Sync>,
    listener: Option<Listener>,
    /// Keeps the listener's port for it, where that must be known before.
    _reserved: Option<OwnedFd>,
    pub(crate) output: Output,
    pub(crate) lifelines: Lifelines,
    folder: TestDir,
}

impl Deref for TestHost {
    type Target = Host;

    fn deref(&self) -> &Host {
        self.host.as_ref().unwrap()
    }
}

impl TestHost {
    /// With the usual settings.
    pub(crate) fn new(test: &'static str) -> Self {
        Setup::new(test).start()
    }

    /// With some settings changed.
    pub(crate) fn with(test: &'static str, change: impl FnOnce(&mut Setup)) -> Self {
        Setup::with(test, change).start()
    }

    /// With the usual settings, and with a fixture that runs these actions and is active.
    #[track_caller]
    pub(crate) fn running(
        test: &'static str,
        transport: Transport,
        actions: &[&str],
    ) -> (Self, Session) {
        let host = Self::new(test);
        let session = host.run(fixture(&host, transport, actions));
        (host, session)
    }

    /// With the usual settings, and with an external plugin that is loaded; returns the path and query that
    /// it connects to as well.
    pub(crate) fn with_external(test: &'static str) -> (Self, Session, String) {
        let host = Self::new(test);
        let (session, target) = external(&host, "outside");
        (host, session, target)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.as_ref().unwrap().address()
    }

    /// A folder for the test's own files.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `<data>/<installation id>`.
    pub(crate) fn installation_folder(&self, session: &Session) -> PathBuf {
        self.folder
            .path()
            .join("data")
            .join(session.id().to_string())
    }

    pub(crate) fn events(&self) -> Events {
        Events::of(self)
    }

    /// Stores and loads.
    pub(crate) fn install(&self, record: Record) -> Session {
        let id = record.id;
        self.store().put(record).unwrap();
        self.load(id).unwrap()
    }

    /// Stores, loads, and starts.
    #[track_caller]
    pub(crate) fn start(&self, record: Record) -> Session {
        let session = self.install(record);
        session.supervised().unwrap().start().unwrap();
        session
    }

    /// Stores, loads, starts, and waits until active.
    #[track_caller]
    pub(crate) fn run(&self, record: Record) -> Session {
        let session = self.start(record);
        active(&session);
        session
    }

    /// Takes the host out, so that its last handle can be dropped by the test.
    pub(crate) fn take(&mut self) -> Host {
        self.listener = None;
        self.host.take().unwrap()
    }

    /// How many threads of the host live, also after it was taken out.
    pub(crate) fn thread_count(&self) -> usize {
        (self.threads)()
    }

    /// Waits until all of the host's threads have ended.
    #[track_caller]
    pub(crate) fn expect_no_threads(&self) {
        self.expect_threads(0);
    }

    /// How many threads the host has when nothing is loaded and its keeper is watched, which has not been
    /// started yet.
    pub(crate) fn threads_with_keeper(&self) -> usize {
        self.thread_count() + 1
    }

    /// Waits until so many of the host's threads are left.
    #[track_caller]
    pub(crate) fn expect_threads(&self, number: usize) {
        wait_until(&format!("{number} threads to be left"), || {
            self.thread_count() == number
        });
    }
}

/// A port on which nothing else listens while the socket is there. It may be bound once more by whoever
/// names it, as listeners of the standard library are, and is given to nobody who takes any.
pub(crate) fn reserve() -> (OwnedFd, u16) {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname};
    use rustix::net::{socket_with, sockopt};
    let flags = SocketFlags::CLOEXEC;
    let reserved = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
    sockopt::set_socket_reuseaddr(&reserved, true).unwrap();
    bind(&reserved, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let address = SocketAddr::try_from(getsockname(&reserved).unwrap()).unwrap();
    (reserved, address.port())
}

/// What is done with a plugin whose process is the host's.
#[track_caller]
pub(crate) fn supervised(session: &Session) -> Supervised {
    session.supervised().unwrap()
}

/// Waits until the plugin is active.
#[track_caller]
pub(crate) fn active(session: &Session) {
    if let Err(error) = session.wait_for(ReportedState::Active, LONG) {
        panic!(
            "not active: {error}; details {:#?}",
            session.error_details()
        );
    }
}

impl Drop for TestHost {
    fn drop(&mut self) {
        let report = self.host.take().map(|host| host.shutdown(LONG));
        if std::thread::panicking() {
            return;
        }
        if let Some(report) = report {
            assert!(report.is_complete(), "{report:?}");
        }
        assert_eq!(self.thread_count(), 0, "threads are left");
        self.lifelines.expect_all_dead();
        let staging = fs::read_dir(self.folder.path().join("data"))
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().path().join("staging"))
            // A plugin may have put a link there, which leads elsewhere.
            .filter(|staging| !staging.is_symlink())
            .flat_map(fs::read_dir)
            .flatten()
            .count();
        assert_eq!(staging, 0, "files are left in a staging folder");
    }
}

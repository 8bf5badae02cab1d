//! A runtime of the tests' own: what starts returns, and how runs behave, is each test's to say.

use std::fmt;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use plugin_runner::report::ExitReason;
use plugin_runner::runtime::{
    Launch, Run, RunExit, RunHandle, RunPipes, Runtime, RuntimeProvider, StopSignal,
};
use plugin_runner::store::{Record, Store};
use plugin_runner::{Error, ErrorKind, InstallationId, ReportedState, Result, Session};
use serde_json::{Value, json};

use crate::support::events::Events;
use crate::support::host::{Setup, TestHost};
use crate::support::plugin::{command, over_stdio};
use crate::support::{LONG, wait_for};

pub(super) const NAME: &str = "own";

type Starting = dyn Fn(&Launch<'_>) -> Result<Run> + Send + Sync;
type Clearing = dyn Fn(&Launch<'_>) -> Result<()> + Send + Sync;
type Accepting = dyn Fn(&Record) -> Result<()> + Send + Sync;
type Removing = dyn Fn(InstallationId, bool) -> Result<()> + Send + Sync;
type Removed = dyn Fn(InstallationId, bool) -> Option<String> + Send + Sync;

/// A runtime that does what it was told, and `start`s nothing else. A clone is the same.
#[derive(Clone)]
pub(super) struct Own {
    start: Arc<Starting>,
    clear: Arc<Clearing>,
    accept: Arc<Accepting>,
    removing: Arc<Removing>,
    removed: Arc<Removed>,
    outlives_host: Option<&'static str>,
    calls: Arc<Mutex<Vec<&'static str>>>,
    runs: Arc<Mutex<Vec<Remote>>>,
}

impl Own {
    pub(super) fn new() -> Self {
        let runs = Arc::<Mutex<Vec<Remote>>>::default();
        let own = runs.clone();
        let start = move |_: &Launch<'_>| Ok(begin(&own, Behaviour::default()));
        Self {
            start: Arc::new(start),
            clear: Arc::new(|_| Ok(())),
            accept: Arc::new(|_| Ok(())),
            removing: Arc::new(|_, _| Ok(())),
            removed: Arc::new(|_, _| None),
            outlives_host: None,
            calls: Arc::default(),
            runs,
        }
    }

    /// With runs that behave so.
    pub(super) fn behaving(behaviour: Behaviour) -> Self {
        Self::new().on_start(move |own, _| Ok(own.begin(behaviour)))
    }

    pub(super) fn on_start(
        mut self,
        start: impl Fn(&Self, &Launch<'_>) -> Result<Run> + Send + Sync + 'static,
    ) -> Self {
        let own = self.clone();
        self.start = Arc::new(move |launch| start(&own, launch));
        self
    }

    /// Its first starts fail with these kinds, one after the other.
    pub(super) fn failing_with(self, kinds: Vec<ErrorKind>) -> Self {
        let kinds = Mutex::new(kinds.into_iter());
        self.on_start(move |own, _| match kinds.lock().next() {
            Some(kind) => Err(Error::new(kind, format!("{kind}: on purpose"))),
            None => Ok(own.begin(Behaviour::default())),
        })
    }

    pub(super) fn on_clear(
        mut self,
        clear: impl Fn(&Launch<'_>) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.clear = Arc::new(clear);
        self
    }

    pub(super) fn on_accept(
        mut self,
        accept: impl Fn(&Record) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.accept = Arc::new(accept);
        self
    }

    pub(super) fn on_removal(
        mut self,
        removing: impl Fn(InstallationId, bool) -> Result<()> + Send + Sync + 'static,
        removed: impl Fn(InstallationId, bool) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        (self.removing, self.removed) = (Arc::new(removing), Arc::new(removed));
        self
    }

    pub(super) fn outliving(mut self, why: &'static str) -> Self {
        self.outlives_host = Some(why);
        self
    }

    /// Begins a run.
    pub(super) fn begin(&self, behaviour: Behaviour) -> Run {
        begin(&self.runs, behaviour)
    }

    /// The run number `number`, counted from 0, once it has begun.
    #[track_caller]
    pub(super) fn run(&self, number: usize) -> Remote {
        wait_for(&format!("run {number}"), || {
            self.runs.lock().get(number).cloned()
        })
    }

    /// Starts a plugin, and has its first run end with status 5, which is noticed.
    #[track_caller]
    pub(super) fn ends_once(&self, host: &TestHost) -> (Session, Events) {
        let mut events = host.events();
        let session = host.start(plugin(host, "examined"));
        events.until(session.id(), ReportedState::Active);
        self.run(0).end(RunExit::new(ExitReason::Code(5)));
        let change = events.until(session.id(), ReportedState::Restarting);
        assert_eq!(change.message(), Some("exit status 5"));
        (session, events)
    }

    /// How many runs have begun.
    pub(super) fn count(&self) -> usize {
        self.runs.lock().len()
    }

    /// Which of its methods were called, in order; without `accept` and `outlives_host`.
    pub(super) fn calls(&self) -> Vec<&'static str> {
        self.calls.lock().clone()
    }

    /// A host with this runtime.
    pub(super) fn host(&self, test: &'static str) -> TestHost {
        self.host_with(test, |_| {})
    }

    /// The same with some settings changed.
    pub(super) fn host_with(
        &self,
        test: &'static str,
        change: impl FnOnce(&mut Setup),
    ) -> TestHost {
        let own = self.clone();
        TestHost::with(test, |setup| {
            // What counts is the runtime of the embedder's.
            setup.configure(|builder| {
                let builder = builder.runtime_provider(RuntimeProvider::None);
                builder.runtime(own)
            });
            change(setup);
        })
    }
}

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Own")
    }
}

impl Runtime for Own {
    fn name(&self) -> &'static str {
        NAME
    }

    fn accept(&self, record: &Record, _store: &dyn Store) -> Result<()> {
        (self.accept)(record)
    }

    fn start(&self, launch: &Launch<'_>) -> Result<Run> {
        self.calls.lock().push("start");
        (self.start)(launch)
    }

    fn outlives_host(&self) -> Option<&'static str> {
        self.outlives_host
    }

    fn clear(&self, launch: &Launch<'_>) -> Result<()> {
        self.calls.lock().push("clear");
        (self.clear)(launch)
    }

    fn removing(&self, id: InstallationId, keep_data: bool) -> Result<()> {
        self.calls.lock().push("removing");
        (self.removing)(id, keep_data)
    }

    fn removed(&self, id: InstallationId, is_gone: bool) -> Option<String> {
        self.calls.lock().push("removed");
        (self.removed)(id, is_gone)
    }

    fn shut_down(&self) {
        self.calls.lock().push("shut_down");
    }
}

/// How a run behaves that is in nobody's hands but the test's.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Behaviour {
    /// The methods of its handle's that panic.
    pub(super) panics_in: &'static [&'static str],
    /// Which signals it does not heed.
    pub(super) ignores: &'static [StopSignal],
    /// What it takes to find out how it ended.
    pub(super) examine: Option<fn()>,
    /// It has no pipes.
    pub(super) is_mute: bool,
    /// It reads nothing from its standard input.
    pub(super) is_deaf: bool,
    pub(super) pid: Option<u32>,
}

/// A run as the test sees it.
#[derive(Clone, Debug)]
pub(super) struct Remote(Arc<RemoteState>);

#[derive(Debug)]
struct RemoteState {
    signals: Mutex<Vec<StopSignal>>,
    /// Dropped at its end.
    life: Mutex<Option<io::PipeWriter>>,
    exit: Mutex<RunExit>,
    /// The plugin's side of its pipes.
    pipes: Vec<UnixStream>,
    is_silent: AtomicBool,
    dropped: Mutex<bool>,
}

/// A run as the host has it.
#[derive(Debug)]
struct OwnRun {
    remote: Remote,
    behaviour: Behaviour,
    ended: io::PipeReader,
}

fn begin(runs: &Mutex<Vec<Remote>>, behaviour: Behaviour) -> Run {
    let (ended, life) = io::pipe().unwrap();
    let [(stdin, input), (stdout, output), (stderr, errors)] =
        [(); 3].map(|()| UnixStream::pair().unwrap());
    let pipes = [&input, &output, &errors].map(|pipe| pipe.try_clone().unwrap());
    let remote = Remote(Arc::new(RemoteState {
        signals: Mutex::default(),
        life: Mutex::new(Some(life)),
        exit: Mutex::new(RunExit::new(ExitReason::Code(0))),
        pipes: Vec::from(pipes),
        is_silent: AtomicBool::new(false),
        dropped: Mutex::default(),
    }));
    runs.lock().push(remote.clone());
    if behaviour.is_mute {
        remote.close_pipes();
    }
    let it = remote.clone();
    let heeds_end = !behaviour.ignores.contains(&StopSignal::Interrupt);
    // Ends when the run does, which closes its pipes.
    thread::spawn(move || {
        if behaviour.is_deaf {
            return;
        }
        it.answer(&input, &output);
        // Most plugins end with their standard input, if only that has ended.
        if heeds_end {
            it.end(RunExit::new(ExitReason::Code(0)));
        }
    });
    let pipes = RunPipes {
        stdin: Some(stdin.into()),
        stdout: Some(stdout.into()),
        stderr: Some(stderr.into()),
    };
    let pipes = if behaviour.is_mute {
        RunPipes::default()
    } else {
        pipes
    };
    let handle = OwnRun {
        remote,
        behaviour,
        ended,
    };
    Run::new(handle, pipes)
}

impl Remote {
    /// Answers every call, as a plugin over stdio.
    fn answer(&self, input: &UnixStream, mut output: &UnixStream) {
        for line in BufReader::new(input).lines().map_while(io::Result::ok) {
            if self.0.is_silent.load(Ordering::SeqCst) {
                continue;
            }
            let call: Value = serde_json::from_str(&line).unwrap();
            let result = json!({"method": call["method"], "pong": true});
            let answer = json!({"jsonrpc": "2.0", "id": call["id"], "result": result});
            if writeln!(output, "{answer}").is_err() {
                return;
            }
        }
    }

    /// Ends it, unless it has ended.
    pub(super) fn end(&self, exit: RunExit) {
        let mut life = self.0.life.lock();
        if life.is_some() {
            *self.0.exit.lock() = exit;
            self.close_pipes();
            life.take();
        }
    }

    /// Loses the connection, and goes on running.
    pub(super) fn close_pipes(&self) {
        for pipe in &self.0.pipes {
            let _ = pipe.shutdown(Shutdown::Both);
        }
    }

    /// Answers nothing any more.
    pub(super) fn fall_silent(&self) {
        self.0.is_silent.store(true, Ordering::SeqCst);
    }

    /// What it prints on its standard error.
    pub(super) fn print(&self, text: &str) {
        writeln!(&self.0.pipes[2], "{text}").unwrap();
    }

    /// Waits for the end of its standard input.
    #[track_caller]
    pub(super) fn expect_end_of_input(&self) {
        let mut input = &self.0.pipes[0];
        input.set_read_timeout(Some(LONG)).unwrap();
        let mut rest = Vec::new();
        input.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"");
    }

    pub(super) fn signals(&self) -> Vec<StopSignal> {
        self.0.signals.lock().clone()
    }

    pub(super) fn is_dropped(&self) -> bool {
        *self.0.dropped.lock()
    }
}

impl OwnRun {
    fn panic_in(&self, method: &str) {
        assert!(!self.behaviour.panics_in.contains(&method), "on purpose");
    }
}

impl RunHandle for OwnRun {
    fn describe(&self) -> String {
        self.panic_in("describe");
        "run of the tests' own".to_owned()
    }

    fn pid(&self) -> Option<u32> {
        self.panic_in("pid");
        self.behaviour.pid
    }

    fn ended(&self) -> BorrowedFd<'_> {
        self.panic_in("ended");
        self.ended.as_fd()
    }

    fn signal(&self, signal: StopSignal, _kill_in: Duration) {
        self.remote.0.signals.lock().push(signal);
        self.panic_in("signal");
        if !self.behaviour.ignores.contains(&signal) {
            let number = match signal {
                StopSignal::Interrupt => 2,
                StopSignal::Terminate => 15,
                StopSignal::Kill => 9,
            };
            self.remote.end(RunExit::new(ExitReason::Signal(number)));
        }
    }

    fn examine(&self) -> Option<Box<dyn FnOnce() + Send>> {
        self.panic_in("examine");
        let examine = self.behaviour.examine?;
        Some(Box::new(examine))
    }

    fn finish(self: Box<Self>) -> RunExit {
        self.panic_in("finish");
        self.remote.0.exit.lock().clone()
    }
}

impl Drop for OwnRun {
    fn drop(&mut self) {
        self.remote.end(RunExit::new(ExitReason::Signal(9)));
        *self.remote.0.dropped.lock() = true;
    }
}

/// The record of a plugin over stdio, which a runtime of the tests' own needs no program for.
pub(super) fn plugin(host: &TestHost, id: &str) -> Record {
    over_stdio(command(host, id, "./none", &[]))
}

//! Runtimes that keep their promises, and runtimes that break one each.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open};

use super::*;
use crate::deadline::Deadline;
use crate::error::{Error as HostError, ErrorKind, Result as HostResult};
use crate::id::InstallationId;
use crate::poll;
use crate::process::{ExitReason, PluginCommand};
use crate::protocol::environment::{DATA_VARIABLE, TRANSPORT_VARIABLE};
use crate::runtime::{Launch, Run, RunExit, RunHandle, RunPipes, Runtime, StopSignal};
use crate::store::{Record, Store};

/// Short enough to wait for. The runtime that breaks no promise is not checked with them.
const SHORT: Limits = Limits {
    step: Duration::from_secs(8),
    soon: Duration::from_secs(3),
    instant: Duration::from_millis(500),
    grace: Duration::from_millis(1500),
};
/// Longer than what has to happen soon.
const LATE: Duration = Duration::from_secs(5);

/// One promise that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Shouts,
    Refuses,
    ForgetsVariables,
    ForgetsTransport,
    ForgetsArguments,
    RunsElsewhere,
    CopiesFiles,
    ChangesData,
    LosesErrors,
    LosesOutput,
    IgnoresCancellation,
    CallsCancellationFailure,
    FailsToClear,
    FailsToRemove,
    LeavesThings,
    StartsTwice,
    LosesStatus,
    LosesSignals,
    EndsLate,
    EndsEarly,
    IgnoresAsking,
    IgnoresKill,
    KeepsWhatIsDropped,
    Blocks,
    LeavesDescendants,
}

/// The runtime of this machine with a fault.
#[derive(Clone, Debug)]
struct Broken {
    fault: Fault,
    starts: Arc<AtomicU32>,
    kept: Arc<Mutex<Kept>>,
}

/// What lives for as long as the test.
#[derive(Debug, Default)]
struct Kept {
    runs: Vec<Box<dyn RunHandle>>,
    pipes: Vec<OwnedFd>,
    /// The leaders of process groups that nothing else ends.
    groups: Vec<Pid>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        for group in &self.groups {
            let _ = kill_process_group(*group, Signal::KILL);
        }
    }
}

impl Broken {
    fn change(&self, command: &mut PluginCommand) {
        let number = self.starts.fetch_add(1, Ordering::SeqCst);
        let environment = &mut command.environment;
        match self.fault {
            Fault::ForgetsVariables => drop(environment.remove(OsStr::new("CONFORMANCE"))),
            Fault::ForgetsTransport => drop(environment.remove(OsStr::new(TRANSPORT_VARIABLE))),
            Fault::ForgetsArguments => command.args.clear(),
            Fault::RunsElsewhere => command.directory = "/".into(),
            Fault::ChangesData => {
                let data = environment.get_mut(OsStr::new(DATA_VARIABLE)).unwrap();
                let changed = Path::new(data).join(format!("changed-{number}"));
                fs::create_dir(&changed).unwrap();
                *data = changed.into();
            }
            Fault::CopiesFiles => {
                let copy = Path::new(&environment[OsStr::new(DATA_VARIABLE)])
                    .join(format!("copy-{number}"));
                fs::create_dir(&copy).unwrap();
                // The package's files, and none of the plugin's own.
                for name in ["manifest.json", "plugin.sh", "version"] {
                    fs::copy(command.directory.join(name), copy.join(name)).unwrap();
                }
                command.program = copy.join("plugin.sh");
                command.directory = copy;
            }
            _ => {}
        }
    }

    fn break_handle(&self, run: Run) -> Run {
        let Run {
            handle,
            mut pipes,
            afterwards,
        } = run;
        match self.fault {
            Fault::LosesErrors => self.kept.lock().pipes.extend(pipes.stderr.take()),
            Fault::LosesOutput => self.kept.lock().pipes.extend(pipes.stdout.take()),
            Fault::IgnoresKill => {
                let pid = Pid::from_raw(i32::try_from(handle.pid().unwrap()).unwrap());
                self.kept.lock().groups.extend(pid);
            }
            _ => {}
        }
        let (reader, writer) = io::pipe().unwrap();
        let watch = handle.ended().try_clone_to_owned().unwrap();
        let early = Arc::new(Mutex::new(Some(writer)));
        let at_end = early.clone();
        let delay = if self.fault == Fault::EndsLate {
            LATE
        } else {
            Duration::ZERO
        };
        thread::spawn(move || {
            let mut watched = [PollFd::new(&watch, PollFlags::IN)];
            let _ = poll::wait(
                &mut watched,
                Some(Deadline::after(Duration::from_secs(120))),
            );
            wait(delay);
            at_end.lock().take();
        });
        Run {
            handle: Box::new(Faulty {
                fault: self.fault,
                handle: Some(handle),
                kept: self.kept.clone(),
                ended: reader,
                early,
            }),
            pipes,
            afterwards,
        }
    }
}

/// Lets time pass, as a fault does.
fn wait(time: Duration) {
    let until = Instant::now() + time;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        thread::park_timeout(left);
    }
}

impl Runtime for Broken {
    fn name(&self) -> &'static str {
        match self.fault {
            Fault::Shouts => "Broken",
            _ => "broken",
        }
    }

    fn accept(&self, _record: &Record, _store: &dyn Store) -> HostResult<()> {
        match self.fault {
            Fault::Refuses => Err(HostError::Unsupported("no plugin is good enough")),
            _ => Ok(()),
        }
    }

    fn start(&self, launch: &Launch<'_>) -> HostResult<Run> {
        if self.fault == Fault::IgnoresCancellation {
            // A stop has time to come.
            let mut watched = [PollFd::from_borrowed_fd(launch.cancelled(), PollFlags::IN)];
            poll::wait(
                &mut watched,
                Some(Deadline::after(Duration::from_millis(200))),
            )
            .unwrap();
            if launch.is_cancelled() {
                wait(LATE);
            }
        }
        if self.fault == Fault::CallsCancellationFailure && launch.is_cancelled() {
            return Err(HostError::new(
                ErrorKind::RuntimeUnavailable,
                "cannot be reached",
            ));
        }
        let mut command = launch.command()?;
        self.change(&mut command);
        match self.fault {
            Fault::LeavesDescendants => return Ok(bare(command, &mut self.kept.lock().groups)),
            // The host would find and end one that it has spawned itself.
            Fault::EndsEarly => {
                let run = bare(command, &mut self.kept.lock().groups);
                return Ok(self.break_handle(run));
            }
            _ => {}
        }
        if self.fault == Fault::StartsTwice {
            let twin = launch.spawn(command.clone())?;
            let mut kept = self.kept.lock();
            kept.runs.push(twin.handle);
            let pipes = twin.pipes;
            kept.pipes.extend(
                [pipes.stdin, pipes.stdout, pipes.stderr]
                    .into_iter()
                    .flatten(),
            );
        }
        Ok(self.break_handle(launch.spawn(command)?))
    }

    fn clear(&self, _launch: &Launch<'_>) -> HostResult<()> {
        match self.fault {
            Fault::FailsToClear => Err(HostError::Unsupported("nothing is cleared here")),
            _ => Ok(()),
        }
    }

    fn removing(&self, _id: InstallationId, _keep_data: bool) -> HostResult<()> {
        match self.fault {
            Fault::FailsToRemove => Err(HostError::Unsupported("nothing is removed here")),
            _ => Ok(()),
        }
    }

    fn removed(&self, _id: InstallationId, _is_gone: bool) -> Option<String> {
        (self.fault == Fault::LeavesThings).then(|| "all of it is still there".to_owned())
    }
}

/// A handle with a fault.
#[derive(Debug)]
struct Faulty {
    fault: Fault,
    handle: Option<Box<dyn RunHandle>>,
    kept: Arc<Mutex<Kept>>,
    ended: io::PipeReader,
    early: Arc<Mutex<Option<io::PipeWriter>>>,
}

impl RunHandle for Faulty {
    fn describe(&self) -> String {
        "broken run".to_owned()
    }

    fn ended(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    fn signal(&self, signal: StopSignal, kill_in: Duration) {
        match (self.fault, signal) {
            (Fault::IgnoresAsking, StopSignal::Interrupt | StopSignal::Terminate)
            | (Fault::IgnoresKill, StopSignal::Kill) => return,
            (Fault::EndsEarly, _) => drop(self.early.lock().take()),
            (Fault::Blocks, _) => wait(SHORT.instant * 2),
            _ => {}
        }
        self.handle.as_ref().unwrap().signal(signal, kill_in);
    }

    fn finish(mut self: Box<Self>) -> RunExit {
        let handle = self.handle.take().unwrap();
        if self.fault == Fault::EndsEarly {
            self.kept.lock().runs.push(handle);
            return RunExit::new(ExitReason::Code(0));
        }
        let exit = handle.finish();
        match (self.fault, exit.reason) {
            (Fault::LosesStatus, _) => RunExit::new(ExitReason::Code(0)),
            (Fault::LosesSignals, ExitReason::Signal(_)) => RunExit::new(ExitReason::Code(1)),
            _ => exit,
        }
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        if self.fault == Fault::KeepsWhatIsDropped {
            self.kept.lock().runs.extend(self.handle.take());
        }
    }
}

/// A process whose descendants are not known.
#[derive(Debug)]
struct Bare {
    child: Child,
    pidfd: OwnedFd,
}

fn bare(plugin: PluginCommand, groups: &mut Vec<Pid>) -> Run {
    let mut child = Command::new(plugin.program)
        .args(plugin.args)
        .current_dir(plugin.directory)
        .env_clear()
        .envs(plugin.environment)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    groups.push(Pid::from_child(&child));
    let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
    let pipes = RunPipes {
        stdin: child.stdin.take().map(Into::into),
        stdout: child.stdout.take().map(Into::into),
        stderr: child.stderr.take().map(Into::into),
    };
    Run::new(Bare { child, pidfd }, pipes)
}

impl RunHandle for Bare {
    fn describe(&self) -> String {
        "bare process".to_owned()
    }

    fn ended(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    fn signal(&self, signal: StopSignal, _kill_in: Duration) {
        let signal = match signal {
            StopSignal::Interrupt => Signal::INT,
            StopSignal::Terminate => Signal::TERM,
            StopSignal::Kill => Signal::KILL,
        };
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    fn finish(mut self: Box<Self>) -> RunExit {
        let status = self.child.wait().unwrap();
        let code = status.code().map(ExitReason::Code);
        let signal = status.signal().map(ExitReason::Signal);
        RunExit::new(code.or(signal).unwrap())
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the check of this name with a runtime that has this fault; returns what it finds.
#[track_caller]
fn caught(fault: Fault, name: &str) -> String {
    let all = [starting::CHECKS, files::CHECKS, ending::CHECKS].concat();
    let (name, body) = all.into_iter().find(|(one, _)| *one == name).expect(name);
    let kept = Arc::<Mutex<Kept>>::default();
    let runtime = Broken {
        fault,
        starts: Arc::default(),
        kept: kept.clone(),
    };
    let checked = run(name, body, SHORT, &mut |builder, _| {
        builder.runtime(runtime.clone())
    });
    match checked {
        Err(violation) => violation.to_string(),
        Ok(()) => panic!("{fault:?} is not caught by {name}"),
    }
}

#[test]
fn the_runtime_of_this_machine_keeps_its_promises() {
    check(&mut |builder, _| builder).unwrap();
}

#[test]
fn each_broken_promise_is_caught_by_its_check() {
    use Fault::*;

    let faults = [
        (Shouts, "its_name_is_in_lower_case", "\"Broken\""),
        (
            Refuses,
            "a_plugin_is_accepted_and_becomes_active",
            "no plugin is good enough",
        ),
        (
            LosesOutput,
            "a_plugin_is_accepted_and_becomes_active",
            "has no standard input and output",
        ),
        (
            ForgetsVariables,
            "the_environment_is_that_of_the_record",
            "a variable of the record's",
        ),
        (
            ForgetsTransport,
            "the_environment_is_that_of_the_record",
            "how to talk to the host",
        ),
        (
            ForgetsArguments,
            "the_arguments_are_those_of_the_manifest",
            "the number of arguments",
        ),
        (
            LosesErrors,
            "what_it_prints_reaches_the_log",
            "\"to its errors\" does not reach the log",
        ),
        (
            IgnoresCancellation,
            "a_cancelled_start_returns_soon_and_leaves_nothing",
            "after it was cancelled",
        ),
        (
            CallsCancellationFailure,
            "a_cancelled_start_returns_soon_and_leaves_nothing",
            "instead of `cancelled`",
        ),
        (
            IgnoresCancellation,
            "a_stop_at_any_moment_of_a_start_leaves_nothing",
            "a stop",
        ),
        (
            FailsToClear,
            "what_earlier_hosts_left_can_be_cleared",
            "nothing is cleared here",
        ),
        (
            RunsElsewhere,
            "it_runs_where_its_files_are",
            "a file of the package's",
        ),
        (
            ChangesData,
            "its_data_is_kept_over_runs",
            "expected \"2\", found \"1\"",
        ),
        (
            CopiesFiles,
            "its_own_files_are_kept_over_a_restart_and_an_update",
            "after a restart",
        ),
        (
            FailsToRemove,
            "a_plugin_can_be_removed",
            "nothing is removed here",
        ),
        (
            LeavesThings,
            "a_plugin_can_be_removed",
            "all of it is still there",
        ),
        (
            LosesStatus,
            "an_exit_status_is_reported_soon",
            "exits with 3",
        ),
        (LosesSignals, "a_signal_is_reported_soon", "SIGKILL"),
        (
            EndsLate,
            "an_exit_status_is_reported_soon",
            "is not seen within 3s",
        ),
        (
            EndsEarly,
            "no_run_begins_before_the_last_has_ended",
            "a run is not the only one",
        ),
        (
            StartsTwice,
            "no_run_begins_before_the_last_has_ended",
            "a run is not the only one",
        ),
        (
            IgnoresAsking,
            "a_signal_asks_it_to_end_before_it_is_killed",
            "is killed",
        ),
        (
            IgnoresKill,
            "what_ignores_signals_is_killed_and_that_is_told",
            "does not end the plugin",
        ),
        (
            LeavesDescendants,
            "what_a_run_has_started_ends_with_it",
            "still writes its children",
        ),
        (
            KeepsWhatIsDropped,
            "a_handle_that_is_dropped_ends_its_run",
            "lives for longer than",
        ),
        (Blocks, "no_method_of_a_handle_blocks", "must not block"),
    ];
    // Most of the time they wait.
    for some in faults.chunks(5) {
        thread::scope(|scope| {
            for (fault, check, expected) in some {
                scope.spawn(move || {
                    let found = caught(*fault, check);
                    assert!(found.contains(expected), "{fault:?}: {found}");
                });
            }
        });
    }
}

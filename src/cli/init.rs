//! The program as the first process of a container: it starts itself again as its only child, passes signals on,
//! and reaps whatever else is given to it. So the host, which is that child, has no children but its own.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, wait};
use signal_hook::consts::{
    SIGALRM, SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH,
};
use signal_hook::iterator::Signals;

use super::error::CliError;

/// What people and container runtimes send. What the child does not handle has its default effect on it, which
/// the kernel would not let it have on a first process.
const PASSED_ON: [i32; 9] = [
    SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGTERM, SIGCONT, SIGWINCH,
];
/// Names the process that the service manager's watchdog watches.
const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// Returns whether this is the first process of its system or container.
pub(crate) fn is_first_process() -> bool {
    getpid().is_init()
}

/// Runs this program, with the same arguments, as the only child, and returns how that ends: with its status, or
/// with 128 and the number of the signal that killed it. Everything else ends with it, since the kernel ends what
/// a first process leaves.
///
/// # Errors
/// The child cannot be started.
pub(crate) fn run() -> Result<ExitCode, CliError> {
    // First, so that no signal is lost. They are received from here on, and passed on once there is a child.
    let signals = PASSED_ON.into_iter().chain([SIGCHLD]);
    let mut signals = Signals::new(signals).map_err(CliError::cannot("listen for signals"))?;
    let child = start().map_err(CliError::cannot(
        "start this program again as a child of the first process",
    ))?;
    for signal in signals.forever() {
        if signal == SIGCHLD {
            if let Some(status) = reap(child) {
                return Ok(exit_code(status));
            }
        } else if let Some(signal) = Signal::from_named_raw(signal) {
            // It is not reaped, so the id is its own, though it may have ended.
            let _ = kill_process(child, signal);
        }
    }
    Err("the signals of the first process have ended".into())
}

/// Starts the child. Only [`reap`] waits for it.
fn start() -> io::Result<Pid> {
    let mut arguments = env::args_os();
    let name = arguments.next();
    // Where there is no /proc, the name may lead to the program, as it led the caller.
    let program = env::current_exe().or_else(|error| name.clone().map(PathBuf::from).ok_or(error));
    let mut command = Command::new(program?);
    command.args(arguments);
    if let Some(name) = name {
        command.arg0(name);
    }
    // A watchdog that was meant for the first process is the host's.
    let own = OsString::from(std::process::id().to_string());
    if env::var_os(WATCHDOG_PID).is_some_and(|pid| pid == own) {
        command.env_remove(WATCHDOG_PID);
    }
    Ok(Pid::from_child(&command.spawn()?))
}

/// Reaps every process that has ended. Returns the status of the child, if that has.
fn reap(child: Pid) -> Option<WaitStatus> {
    let mut ended = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == child => ended = Some(status),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) | Err(_) => return ended,
        }
    }
}

fn exit_code(status: WaitStatus) -> ExitCode {
    let signal = status.terminating_signal().map(|signal| 128 + signal);
    let code = status.exit_status().or(signal);
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

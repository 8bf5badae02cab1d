//! Talking with plugins: what is read from standard input is done, one command after the other.
//!
//! Two threads do that, which end with the process: one may be reading, and the other waiting for a plugin.

use std::io::{self, BufRead, BufReader, IsTerminal as _};
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};
use plugin_runner::InstallationId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::getpgrp;
use rustix::termios::tcgetpgrp;
use serde_json::{Map, Value};

use super::line::{Command, Line};
use super::stage::Stage;
use crate::cli::error::CliError;
use crate::cli::run::say;

/// Bytes of a line, its end included.
const LINE: u64 = 1024 * 1024;
/// Lines that wait: a reader that is ahead of the plugins waits itself.
const LINES: usize = 16;
/// How often it is looked whether the terminal is this program's.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 250_000_000,
};

/// Where commands come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// A terminal, whose end ends nothing.
    Terminal,
    /// A program or a file, with whose end the run ends.
    Piped,
    None,
}

/// A line, or what could not be read and why.
type Read = Result<String, (&'static str, String)>;

/// A configuration that a plugin begins with.
pub(super) type Configured = (InstallationId, Map<String, Value>);

/// How the talk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Talked {
    /// Commands that failed.
    pub(super) failed: usize,
}

impl Input {
    /// Finds out where commands come from; `asked` if the user wants them from whatever standard input is.
    pub(super) fn find(asked: bool) -> Self {
        match (asked, io::stdin().is_terminal()) {
            (_, true) => Self::Terminal,
            (true, false) => Self::Piped,
            (false, false) => Self::None,
        }
    }
}

/// Starts talking: first the configurations that plugins begin with, then what is read. Returns the channel of the
/// end.
///
/// # Errors
/// [`CliError`] when a thread cannot be started.
pub(super) fn start(
    stage: Arc<Stage>,
    input: Input,
    configurations: Vec<Configured>,
) -> Result<Receiver<Talked>, CliError> {
    let (sender, lines) = bounded(LINES);
    let (done, ended) = bounded(1);
    if input != Input::None {
        spawn("stdin", move || read(input, &sender))?;
    }
    spawn("talk", move || {
        let mut failed = 0;
        for (id, configuration) in configurations {
            let plugin = stage.plugins.iter().find(|plugin| plugin.id == id);
            let name = plugin.map(|plugin| plugin.name.to_string());
            let is_done = stage.perform(name.as_deref(), &Command::Configure(configuration));
            failed += usize::from(!is_done);
        }
        if input == Input::None {
            return;
        }
        if let Some(talked) = talk(&stage, input, &lines, failed) {
            // The receiver is gone if the end came first.
            let _ = done.send(talked);
        } else {
            // A terminal that is closed ends nothing, so the channel must not seem to.
            thread::park();
            drop(done);
        }
    })?;
    Ok(ended)
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), CliError> {
    let started = thread::Builder::new().name(name.to_owned()).spawn(body);
    started
        .map(drop)
        .map_err(CliError::cannot(format!("start the thread {name}")))
}

/// Does what lines say until the last one; `None` if that ends nothing.
fn talk(stage: &Stage, input: Input, lines: &Receiver<Read>, mut failed: usize) -> Option<Talked> {
    for text in lines {
        let text = match text {
            Ok(text) => text,
            Err((what, problem)) => {
                failed += 1;
                stage.show(None, what.to_owned(), Err(problem), None);
                continue;
            }
        };
        if text.trim().is_empty() {
            continue;
        }
        match Line::parse(&text, &stage.names()) {
            Ok(Line {
                command: Command::Quit,
                ..
            }) => return Some(Talked { failed }),
            Ok(Line { plugin, command }) => {
                failed += usize::from(!stage.perform(plugin.as_deref(), &command));
            }
            Err(problem) => {
                failed += 1;
                stage.show(None, text.trim().to_owned(), Err(problem), None);
            }
        }
    }
    if input == Input::Piped {
        return Some(Talked { failed });
    }
    say("no more commands; Ctrl-C ends the run");
    None
}

/// Reads lines until the end. A terminal is read only while this program is in its foreground: the system would stop
/// the whole program otherwise.
fn read(input: Input, lines: &Sender<Read>) {
    let mut stdin = BufReader::new(io::stdin());
    // Within a line that is too long.
    let mut is_skipping = false;
    loop {
        if input == Input::Terminal && stdin.buffer().is_empty() && !is_readable() {
            continue;
        }
        let mut line = Vec::new();
        let read = match io::Read::take(&mut stdin, LINE).read_until(b'\n', &mut line) {
            Ok(0) => return,
            Ok(_) => {
                let is_whole = line.ends_with(b"\n");
                let is_rest = is_skipping;
                is_skipping = !is_whole && (is_rest || line.len() as u64 == LINE);
                match (is_rest, is_skipping) {
                    (true, _) => continue,
                    (false, true) => Err((
                        "a line",
                        format!("it has more than {LINE} bytes, and is left out"),
                    )),
                    (false, false) => Ok(String::from_utf8_lossy(&line).into_owned()),
                }
            }
            Err(error) => Err(("standard input", error.to_string())),
        };
        let is_last = matches!(read, Err(("standard input", _)));
        if lines.send(read).is_err() || is_last {
            return;
        }
    }
}

/// Waits a moment for something to read; returns whether there is, and this program may.
fn is_readable() -> bool {
    let stdin = io::stdin();
    let mut polled = [PollFd::new(&stdin, PollFlags::IN)];
    if poll(&mut polled, Some(&LOOK)).is_err() {
        return false;
    }
    let is_there = !polled[0].revents().is_empty();
    if !is_there {
        return false;
    }
    let is_ours = tcgetpgrp(&stdin).is_ok_and(|group| group == getpgrp());
    if !is_ours {
        // What is there stays there; it is looked at again.
        thread::park_timeout(std::time::Duration::from_millis(250));
    }
    is_ours
}

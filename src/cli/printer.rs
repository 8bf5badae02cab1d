//! The thread that writes to standard output. No other does, so that a slow reader blocks neither
//! plugins nor signals.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select};
use plugin_runner::StateChange;

use super::error::CliError;
use super::lines::{Line, LineQueue};
use super::output::{Format, Notice};

/// Notices that may wait; over it the newest are left out. Those of external plugins come first.
const NOTICES: usize = 1024;

/// A handle to the thread.
#[derive(Debug)]
pub(crate) struct Printer {
    finish: Sender<()>,
    /// Receives the result of the thread, at the end or when standard output has failed.
    done: Receiver<io::Result<()>>,
}

/// Returns the channel of notices, for [`notify`] and [`Printer::start`].
pub(crate) fn notices() -> (Sender<Notice>, Receiver<Notice>) {
    bounded(NOTICES)
}

impl Printer {
    /// Starts printing all that comes through these channels.
    pub(crate) fn start(
        format: Format,
        changes: Receiver<StateChange>,
        lines: Arc<LineQueue>,
        notices: Receiver<Notice>,
    ) -> Result<Self, CliError> {
        let (finish, finished) = bounded(1);
        let (sender, done) = bounded(1);
        let body = PrinterLoop {
            format,
            changes,
            lines,
            notices,
            finished,
        };
        thread::Builder::new()
            .name("printer".to_owned())
            .spawn(move || {
                // The receiver may be gone.
                let _ = sender.send(body.run());
            })
            .map_err(CliError::cannot("start the printer"))?;
        Ok(Self { finish, done })
    }

    /// Returns the channel on which the thread reports that standard output cannot be written any more.
    pub(crate) const fn done(&self) -> &Receiver<io::Result<()>> {
        &self.done
    }

    /// Prints what is there, for at most `patience`. A thread that is stuck in a write is left behind;
    /// the end of the process ends it.
    pub(crate) fn finish(self, patience: Duration) {
        let _ = self.finish.try_send(());
        let _ = self.done.recv_timeout(patience);
    }
}

/// Has a notice printed, or drops it if too many wait. Never blocks.
pub(crate) fn notify(notices: &Sender<Notice>, notice: Notice) {
    if let Err(TrySendError::Full(_)) = notices.try_send(notice) {
        log::debug!("a notice is not shown, because the output is not read fast enough");
    }
}

struct PrinterLoop {
    format: Format,
    changes: Receiver<StateChange>,
    lines: Arc<LineQueue>,
    notices: Receiver<Notice>,
    finished: Receiver<()>,
}

/// What was received and is not printed yet.
#[derive(Default)]
struct Pending {
    notice: Option<Notice>,
    change: Option<StateChange>,
    line: Option<Line>,
    finishing: bool,
}

impl PrinterLoop {
    fn run(self) -> io::Result<()> {
        let mut pending = Pending::default();
        let mut text = String::new();
        loop {
            self.fill(&mut pending);
            self.format_next(&mut pending, &mut text);
            if text.is_empty() {
                if pending.finishing {
                    break;
                }
                self.wait(&mut pending);
                continue;
            }
            write(&text)?;
            text.clear();
        }
        for (plugin, lost) in self.lines.lost() {
            self.format.lost(plugin, lost, &mut text);
        }
        write(&text)
    }

    /// Takes what is there, without waiting.
    fn fill(&self, pending: &mut Pending) {
        if pending.notice.is_none() {
            pending.notice = self.notices.try_recv().ok();
        }
        if pending.change.is_none() {
            pending.change = self.changes.try_recv().ok();
        }
        if pending.line.is_none() {
            pending.line = self.lines.try_take();
        }
    }

    /// Appends the next thing to print, if there is any.
    fn format_next(&self, pending: &mut Pending, text: &mut String) {
        if let Some(notice) = pending.notice.take() {
            self.format.notice(&notice, text);
            return;
        }
        // In the order of time, though they come through two channels.
        let line_first = match (&pending.change, &pending.line) {
            (Some(change), Some(line)) => line.at <= change.at,
            (_, line) => line.is_some(),
        };
        if line_first {
            if let Some(line) = pending.line.take() {
                self.format.line(&line, text);
            }
        } else if let Some(change) = pending.change.take() {
            if change.missed > 0 {
                let missed = change.missed;
                log::warn!(
                    "{missed} state changes left out, because the output is not read fast enough"
                );
            }
            self.format.state(&change, text);
        }
    }

    /// Waits for something to print, or for the end.
    fn wait(&self, pending: &mut Pending) {
        // A channel whose other end is gone means that the host is gone, so that nothing more comes.
        select! {
            recv(self.changes) -> change => match change {
                Ok(change) => pending.change = Some(change),
                Err(_) => pending.finishing = true,
            },
            recv(self.lines.channel()) -> line => {
                pending.line = line.ok().map(|line| self.lines.taken(line));
            }
            recv(self.notices) -> notice => match notice {
                Ok(notice) => pending.notice = Some(notice),
                Err(_) => pending.finishing = true,
            },
            recv(self.finished) -> _ => pending.finishing = true,
        }
    }
}

/// One write to a line, so that lines of several programs on one terminal do not mix.
fn write(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}

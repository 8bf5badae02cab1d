//! Signals that ask the program to end, or to reload its configuration, as channels.

use std::io;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded, unbounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{self, Handle};

/// A signal that comes within this time after the first belongs to it: the terminal sends one to the whole
/// foreground, and a wrapper such as `timeout` passes on another.
const ONE_REQUEST: Duration = Duration::from_millis(500);

/// What SIGHUP asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hangup {
    /// The end: the terminal has gone.
    End,
    /// That the configuration is read again.
    Reload,
}

/// Sends a message for each SIGINT, SIGTERM or SIGHUP that is a request of its own. From now on none of them
/// ends the process by itself.
#[derive(Debug)]
pub(crate) struct Signals {
    /// Unbounded, but fed by people.
    received: Receiver<()>,
    /// One that waits stands for all of them.
    reloads: Receiver<()>,
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Signals {
    /// Starts the thread that turns signals into messages.
    pub(crate) fn listen(hangup: Hangup) -> io::Result<Self> {
        let mut signals = iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        let handle = signals.handle();
        let (sender, received) = unbounded();
        let (reload, reloads) = bounded(1);
        let thread = thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                let mut requests = Requests::default();
                for signal in signals.forever() {
                    log::info!("signal {signal}");
                    if signal == SIGHUP && hangup == Hangup::Reload {
                        let _ = reload.try_send(());
                        continue;
                    }
                    if requests.is_one(Instant::now()) && sender.send(()).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self {
            received,
            reloads,
            handle,
            thread: Some(thread),
        })
    }

    /// Returns the channel of requests to end.
    pub(crate) const fn received(&self) -> &Receiver<()> {
        &self.received
    }

    /// Returns the channel of requests to reload.
    pub(crate) const fn reloads(&self) -> &Receiver<()> {
        &self.reloads
    }
}

/// Finds out which signals are requests of their own.
#[derive(Default)]
struct Requests {
    first: Option<Instant>,
}

impl Requests {
    fn is_one(&mut self, now: Instant) -> bool {
        match self.first {
            None => {
                self.first = Some(now);
                true
            }
            Some(first) => now.saturating_duration_since(first) >= ONE_REQUEST,
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_soon_after_the_first_belongs_to_it() {
        let mut requests = Requests::default();
        let began = Instant::now();
        let asked: Vec<_> = [0, 0, 499, 500, 501, 900]
            .into_iter()
            .map(|after| requests.is_one(began + Duration::from_millis(after)))
            .collect();
        assert_eq!(asked, [true, false, false, true, true, true]);
    }
}

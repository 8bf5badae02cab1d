//! Signals that ask the program to end, as a channel.

use std::io;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, unbounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{self, Handle};

/// Gives one message for each SIGINT, SIGTERM or SIGHUP from the start on. None of them ends the
/// process by itself any more.
#[derive(Debug)]
pub(crate) struct Signals {
    /// Unbounded, but fed by people.
    received: Receiver<()>,
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Signals {
    /// Starts the thread that turns signals into messages.
    pub(crate) fn listen() -> io::Result<Self> {
        let mut signals = iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        let handle = signals.handle();
        let (sender, received) = unbounded();
        let thread = thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                for signal in signals.forever() {
                    log::info!("signal {signal}");
                    if sender.send(()).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self {
            received,
            handle,
            thread: Some(thread),
        })
    }

    pub(crate) const fn received(&self) -> &Receiver<()> {
        &self.received
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

//! The thread that pings a plugin every second and shows the round trip, for the sample's run.

use std::io;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use plugin_runner::protocol::method::Ping;
use plugin_runner::{Error, ReportedState, Session};

use super::output::Notice;
use super::printer::notify;

const EVERY: Duration = Duration::from_secs(1);
/// How long an answer may take; also bounds how long the thread outlives a stop.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Pings until it is dropped.
#[derive(Debug)]
pub(crate) struct Pings {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Pings {
    pub(crate) fn start(session: Session, notices: Sender<Notice>) -> io::Result<Self> {
        let (stop, stopped) = bounded(0);
        let thread = thread::Builder::new()
            .name("pings".to_owned())
            .spawn(move || run(&session, &notices, &stopped))?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Pings {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(session: &Session, notices: &Sender<Notice>, stopped: &Receiver<()>) {
    while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
        if session.reported_state() != ReportedState::Active {
            continue;
        }
        let began = Instant::now();
        let outcome = match session.call(&Ping {}, TIMEOUT) {
            Ok(_) => Ok(began.elapsed()),
            // It ended meanwhile, which its state shows.
            Err(Error::State { .. } | Error::NotLoaded(_) | Error::ShutDown) => continue,
            Err(error) if error.is_disconnected() => continue,
            Err(error) => Err(error.to_string()),
        };
        let plugin = session.id();
        let at = SystemTime::now();
        notify(
            notices,
            Notice::Ping {
                plugin,
                at,
                outcome,
            },
        );
    }
}

//! Waking a thread that waits in `poll`, and ending one that waits for time to pass.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::event::{PollFd, Timespec, poll};

/// Wakes a [`Sleeper`], now or when it next sleeps.
#[derive(Clone, Debug)]
pub(super) struct Waker(Arc<UnixStream>);

/// The other end of a [`Waker`].
#[derive(Debug)]
pub(super) struct Sleeper(UnixStream);

pub(super) fn pair() -> (Waker, Sleeper) {
    let (waker, sleeper) = UnixStream::pair().expect("a pair of sockets");
    waker.set_nonblocking(true).expect("a socket");
    sleeper.set_nonblocking(true).expect("a socket");
    (Waker(Arc::new(waker)), Sleeper(sleeper))
}

impl Waker {
    pub(super) fn wake(&self) {
        // A full buffer wakes as well.
        let _ = (&*self.0).write(&[0]);
    }
}

impl Sleeper {
    pub(super) fn clear(&self) {
        while matches!((&self.0).read(&mut [0; 64]), Ok(1..)) {}
    }
}

impl AsFd for Sleeper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits for descriptors, at most until a moment.
pub(super) fn wait(descriptors: &mut [PollFd<'_>], until: Option<Instant>) {
    let left = until.map(|until| until.saturating_duration_since(Instant::now()));
    // Rounded up, or it would be asked again too early.
    let left = left.map(|left| left + Duration::from_millis(1));
    let left = left.map(|left| Timespec::try_from(left).expect("a duration that fits"));
    let _ = poll(descriptors, left.as_ref());
}

/// The end of the server, for whoever waits for time to pass.
#[derive(Debug, Default)]
pub(super) struct End {
    has_come: Mutex<bool>,
    comes: Condvar,
}

impl End {
    pub(super) fn come(&self) {
        *self.has_come.lock() = true;
        self.comes.notify_all();
    }

    pub(super) fn has_come(&self) -> bool {
        *self.has_come.lock()
    }

    /// Waits, unless the end comes.
    pub(super) fn wait(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut has_come = self.has_come.lock();
        while !*has_come && !self.comes.wait_until(&mut has_come, until).timed_out() {}
    }
}

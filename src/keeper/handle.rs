//! `KeeperHandle`: the keeper's process, for waiting for it and signalling it while another thread may reap
//! it.

use std::fmt;
#[cfg(target_os = "linux")]
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};

use crate::deadline::Deadline;
use crate::poll;

/// How often the end is polled for on systems without pidfds.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A child of this process.
#[derive(Debug)]
pub(super) struct KeeperHandle {
    pid: Pid,
    /// The pidfd; `None` if the system has none.
    #[cfg(target_os = "linux")]
    descriptor: Option<OwnedFd>,
}

/// What happened to a running child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Changed {
    /// A signal stopped it.
    Stopped(i32),
    Ended,
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped(signal) => write!(f, "was stopped by signal {signal}"),
            Self::Ended => f.write_str("has ended"),
        }
    }
}

impl KeeperHandle {
    pub(super) fn of(pid: Pid) -> Self {
        Self {
            pid,
            #[cfg(target_os = "linux")]
            descriptor: rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
                .ok()
                // Linux 5.3 has pidfds but cannot wait for them.
                .filter(|found| {
                    let options =
                        WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
                    let looked = waitid(WaitId::PidFd(found.as_fd()), options);
                    !matches!(looked, Err(Errno::INVAL))
                }),
        }
    }

    fn id(&self) -> WaitId<'_> {
        #[cfg(target_os = "linux")]
        if let Some(descriptor) = &self.descriptor {
            return WaitId::PidFd(descriptor.as_fd());
        }
        WaitId::Pid(self.pid)
    }

    /// Waits without a limit until the process has ended or is stopped.
    pub(super) fn wait_for_change(&self) {
        let options = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while matches!(waitid(self.id(), options), Err(Errno::INTR)) {}
    }

    /// Returns whether the process has ended or is stopped.
    pub(super) fn has_changed(&self) -> Option<Changed> {
        let options = WaitIdOptions::STOPPED
            | WaitIdOptions::EXITED
            | WaitIdOptions::NOWAIT
            | WaitIdOptions::NOHANG;
        loop {
            return match waitid(self.id(), options) {
                Ok(None) => None,
                Ok(Some(status)) => Some(
                    status
                        .stopping_signal()
                        .map_or(Changed::Ended, Changed::Stopped),
                ),
                Err(Errno::INTR) => continue,
                // The system or the embedder has reaped it.
                Err(_) => Some(Changed::Ended),
            };
        }
    }

    /// Waits until the process has ended; returns whether it has.
    pub(super) fn ends_until(&self, deadline: Deadline) -> bool {
        #[cfg(target_os = "linux")]
        if let Some(descriptor) = &self.descriptor {
            return matches!(poll::readable(descriptor.as_fd(), deadline), Ok(true));
        }
        while self.has_changed() != Some(Changed::Ended) {
            if deadline.has_passed() {
                return false;
            }
            let _ = poll::wait(&mut [], Some(Deadline::after(POLL_INTERVAL).min(deadline)));
        }
        true
    }

    pub(super) fn signal(&self, signal: Signal) {
        #[cfg(target_os = "linux")]
        if let Some(descriptor) = &self.descriptor {
            let _ = rustix::process::pidfd_send_signal(descriptor, signal);
            return;
        }
        let _ = rustix::process::kill_process(self.pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_stop_and_an_end_are_noticed_and_nothing_is_reaped() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let handle = KeeperHandle::of(Pid::from_child(&child));
        assert_eq!(handle.has_changed(), None);
        handle.signal(Signal::STOP);
        handle.wait_for_change();
        let stopped = Some(Changed::Stopped(Signal::STOP.as_raw()));
        assert_eq!(handle.has_changed(), stopped);
        assert_eq!(handle.has_changed(), stopped, "it is only looked at");
        handle.signal(Signal::KILL);
        assert!(handle.ends_until(Deadline::after(Duration::from_secs(30))));
        handle.wait_for_change();
        assert_eq!(handle.has_changed(), Some(Changed::Ended));
        assert!(!child.wait().unwrap().success());
        assert_eq!(handle.has_changed(), Some(Changed::Ended), "and reaped");
        // Nothing to wait for, and nobody to signal.
        handle.wait_for_change();
        handle.signal(Signal::KILL);
    }
}

//! Fault points: named places in the code where a test can hold a thread, or take away the effect of
//! what comes next, so that races are brought about on purpose and not by luck.
//!
//! Without the private feature `_fault` nothing of this is public or in the program. With it, a point
//! that is not armed costs the reading of one atomic number.

#![cfg_attr(
    not(feature = "_fault"),
    expect(
        unreachable_pub,
        reason = "the names are public with the feature alone"
    )
)]

#[cfg(feature = "_fault")]
pub use armed::{Hold, Loss, hold, kill, lose};

use crate::id::InstallationId;

/// A run is about to be prepared, on its own thread.
pub const PREPARING: &str = "preparing";
/// The process exists, and nothing has been told of it.
pub const SPAWNED: &str = "spawned";
/// The end of the process has been noticed; its group lives and it is not reaped.
pub const EXITED: &str = "exited";
/// The process is reaped; what follows is not decided.
pub const REAPED: &str = "reaped";
/// What the system's files say of a kill is about to be read, on its own thread.
pub const INQUEST: &str = "inquest";
/// The group is about to be signalled; losing it is a process that cannot be killed.
pub const SIGNALLING: &str = "signalling";
/// A search for descendants begins; losing it is one that can stop and kill nothing.
pub const LOOKING: &str = "looking";
/// A new connection has been admitted and has spent its token; it is not attached.
pub const RESERVED: &str = "reserved";
/// The connection is the session's; its answer to the handshake is not yet read.
pub const ATTACHED: &str = "attached";

/// The package of a new plugin is there and good; nothing of it is in place.
pub const RECEIVED: &str = "received";
/// A release is in place, and no record names its archive.
pub const UNPACKED: &str = "unpacked";
/// The archive is stored, and no record names it.
pub const ARCHIVED: &str = "archived";
/// The record is stored; what is not needed any more is still there.
pub const RECORDED: &str = "recorded";
/// What the plugin wrote beside its program is in the new release.
pub const MIGRATED: &str = "migrated";
/// A new version is active, and the record still names the one before.
pub const TRIED: &str = "tried";
/// A plugin that is to be removed is stopped; its record is there.
pub const UNLOADED: &str = "unloaded";
/// The record of a plugin that is removed is gone; its files are there.
pub const UNRECORDED: &str = "unrecorded";
/// The record says what the plugin is about to be asked to take.
pub const PROPOSED: &str = "proposed";
/// The plugin has taken a configuration, which is not the stored one yet.
pub const AGREED: &str = "agreed";

/// Passes a point: waits if a test holds the thread there.
#[inline]
pub(crate) fn point(name: &'static str, plugin: InstallationId) {
    #[cfg(feature = "_fault")]
    armed::point(name, plugin);
    #[cfg(not(feature = "_fault"))]
    let _ = (name, plugin);
}

/// Returns whether what comes next is to have no effect.
#[inline]
pub(crate) fn is_lost(name: &'static str, plugin: InstallationId) -> bool {
    #[cfg(feature = "_fault")]
    return armed::is_lost(name, plugin);
    #[cfg(not(feature = "_fault"))]
    {
        let _ = (name, plugin);
        false
    }
}

#[cfg(feature = "_fault")]
mod armed {
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
    use std::time::Duration;

    use crossbeam_channel::{Receiver, Sender, bounded};
    use parking_lot::Mutex;

    use crate::id::InstallationId;

    struct Armed {
        number: u64,
        name: &'static str,
        /// `None` is any.
        plugin: Option<InstallationId>,
        effect: Effect,
    }

    impl Armed {
        fn is_at(&self, name: &str, plugin: InstallationId) -> bool {
            self.name == name && self.plugin.is_none_or(|own| own == plugin)
        }
    }

    enum Effect {
        /// How the thread that comes reports, and what it waits for; `None` once one has come.
        Hold(Option<(Sender<()>, Receiver<()>)>),
        Lose,
        /// Kills the process, after this many have passed.
        Kill(u32),
    }

    static POINTS: Mutex<Vec<Armed>> = Mutex::new(Vec::new());
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    static LAST: AtomicU64 = AtomicU64::new(0);

    fn arm(name: &'static str, plugin: Option<InstallationId>, effect: Effect) -> u64 {
        let number = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        let mut points = POINTS.lock();
        points.push(Armed {
            number,
            name,
            plugin,
            effect,
        });
        COUNT.store(points.len(), Ordering::SeqCst);
        number
    }

    fn disarm(number: u64) {
        let mut points = POINTS.lock();
        points.retain(|armed| armed.number != number);
        COUNT.store(points.len(), Ordering::SeqCst);
    }

    /// A point at which the next thread that comes there for this plugin is held. Dropping it lets
    /// the thread go.
    #[derive(Debug)]
    pub struct Hold {
        number: u64,
        reached: Receiver<()>,
        /// Dropped to let the thread go.
        _release: Sender<()>,
    }

    /// Holds the next thread that comes to the point for this plugin, that one alone.
    pub fn hold(name: &'static str, plugin: InstallationId) -> Hold {
        let (reach, reached) = bounded(1);
        let (release, released) = bounded(0);
        Hold {
            number: arm(name, Some(plugin), Effect::Hold(Some((reach, released)))),
            reached,
            _release: release,
        }
    }

    impl Hold {
        /// Waits until a thread is held there. Returns whether one came in time.
        pub fn reached(&self, timeout: Duration) -> bool {
            self.reached.recv_timeout(timeout).is_ok()
        }

        /// Lets the thread go.
        pub fn release(self) {}
    }

    impl Drop for Hold {
        fn drop(&mut self) {
            disarm(self.number);
        }
    }

    /// A point at which, for this plugin, what comes next has no effect. Dropping it ends that.
    #[derive(Debug)]
    pub struct Loss(u64);

    /// Takes away the effect of what comes after the point, for this plugin.
    pub fn lose(name: &'static str, plugin: InstallationId) -> Loss {
        Loss(arm(name, Some(plugin), Effect::Lose))
    }

    impl Drop for Loss {
        fn drop(&mut self) {
            disarm(self.0);
        }
    }

    /// Kills the process when a thread comes to the point, for any plugin, after `spared` others have
    /// passed it: as if the host had crashed at that very moment.
    pub fn kill(name: &'static str, spared: u32) {
        arm(name, None, Effect::Kill(spared));
    }

    pub(super) fn point(name: &'static str, plugin: InstallationId) {
        if COUNT.load(Ordering::SeqCst) == 0 {
            return;
        }
        let held = {
            let mut points = POINTS.lock();
            points
                .iter_mut()
                .filter(|armed| armed.is_at(name, plugin))
                .find_map(|armed| match &mut armed.effect {
                    Effect::Hold(held) => held.take(),
                    Effect::Lose => None,
                    Effect::Kill(0) => kill_self(),
                    Effect::Kill(spared) => {
                        *spared -= 1;
                        None
                    }
                })
        };
        if let Some((reach, released)) = held {
            let _ = reach.send(());
            // Nothing is ever sent: it ends when the hold is dropped.
            let _ = released.recv();
        }
    }

    pub(super) fn is_lost(name: &'static str, plugin: InstallationId) -> bool {
        if COUNT.load(Ordering::SeqCst) == 0 {
            return false;
        }
        let points = POINTS.lock();
        points
            .iter()
            .any(|armed| armed.is_at(name, plugin) && matches!(armed.effect, Effect::Lose))
    }

    /// No destructor runs and nothing is flushed.
    fn kill_self() -> ! {
        use rustix::process::{Signal, getpid, kill_process};
        let _ = kill_process(getpid(), Signal::KILL);
        std::process::abort()
    }
}

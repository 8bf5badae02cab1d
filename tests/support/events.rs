//! State changes as a subscriber hears them.

use std::fmt::Debug;
use std::time::Instant;

use crossbeam_channel::Receiver;
use plugin_runner::{Host, InstallationId, PluginMode, ReportedState, Session, StateChange};

use super::LONG;

/// What is known about the problem that a change is about, by the keys of error details.
pub(crate) trait Details {
    fn details(&self) -> serde_json::Map<String, serde_json::Value>;
}

impl Details for StateChange {
    fn details(&self) -> serde_json::Map<String, serde_json::Value> {
        let details = self.problem.as_ref().map(plugin_runner::Problem::to_json);
        details.unwrap_or_default()
    }
}

/// Hears every state change from its making on, and loses none.
#[derive(Debug)]
pub(crate) struct Events {
    receiver: Receiver<StateChange>,
    last: Option<u64>,
    /// The last one that somebody was given.
    heard: Option<StateChange>,
}

impl Events {
    pub(crate) fn of(host: &Host) -> Self {
        Self {
            receiver: host.subscribe(),
            last: None,
            heard: None,
        }
    }

    /// The next change of this plugin; those of others are passed over.
    #[track_caller]
    pub(crate) fn next(&mut self, plugin: InstallationId) -> StateChange {
        self.next_awaiting(plugin, &"any change of state")
    }

    #[track_caller]
    fn next_awaiting(&mut self, plugin: InstallationId, awaited: &dyn Debug) -> StateChange {
        let deadline = Instant::now() + LONG;
        loop {
            let Ok(change) = self.receiver.recv_deadline(deadline) else {
                panic!(
                    "not in time: {awaited:?}; the last change was {:?}",
                    self.heard
                );
            };
            assert_eq!(change.missed, 0, "{change:?}");
            if let Some(last) = self.last.replace(change.sequence) {
                assert_eq!(change.sequence, last + 1, "a gap before {change:?}");
            }
            if change.plugin == plugin {
                self.heard = Some(change.clone());
                return change;
            }
        }
    }

    /// The plugin's next changes must be these, in this order and without others in between. Gives
    /// the last one.
    #[track_caller]
    pub(crate) fn expect(
        &mut self,
        plugin: InstallationId,
        states: &[ReportedState],
    ) -> StateChange {
        let mut seen = Vec::new();
        let mut last = None;
        for _ in states {
            let change = self.next(plugin);
            seen.push(change.to);
            assert!(
                states.starts_with(&seen),
                "expected {states:?}, saw {seen:?}: {change:?}"
            );
            last = Some(change);
        }
        last.expect("states to expect")
    }

    /// Those that have been heard of already. Each must be legal, and follow the one before.
    #[track_caller]
    pub(crate) fn heard(&mut self, session: &Session) -> Vec<StateChange> {
        let changes: Vec<_> = self.receiver.try_iter().collect();
        let mut state = None;
        for change in &changes {
            assert!(
                is_legal(session.mode(), change),
                "{change:?} of {changes:#?}"
            );
            let before = state.replace(change.to).unwrap_or(change.from);
            assert_eq!(before, change.from, "{changes:#?}");
        }
        changes
    }

    /// The plugin's next change to this state, passing over others.
    #[track_caller]
    pub(crate) fn until(&mut self, plugin: InstallationId, state: ReportedState) -> StateChange {
        loop {
            let change = self.next_awaiting(plugin, &state);
            if change.to == state {
                return change;
            }
        }
    }
}

/// Whether the design knows such a change of state.
pub(crate) fn is_legal(mode: PluginMode, change: &StateChange) -> bool {
    use ReportedState::{Active, Connecting, Errored, Inactive, Restarting, Starting, Stopping};
    let to = change.to;
    match mode {
        PluginMode::Supervised => match change.from {
            Inactive => to == Starting,
            // A stop may be heard before anything was prepared.
            Starting => matches!(to, Connecting | Restarting | Errored | Stopping | Inactive),
            Connecting => matches!(to, Active | Stopping | Restarting | Errored),
            Active => matches!(to, Connecting | Stopping | Restarting | Errored),
            Stopping => to == Inactive,
            // While it backs off there is nothing to be stopped but the waiting.
            // Stopping while what the run before left is still being looked for.
            Restarting | Errored => matches!(to, Starting | Stopping | Inactive),
        },
        PluginMode::External => matches!(
            (change.from, to),
            (Inactive, Connecting)
                | (Connecting, Active | Inactive)
                | (Active, Connecting | Inactive)
        ),
    }
}

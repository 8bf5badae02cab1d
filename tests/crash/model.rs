//! What must be in the folder: everything that was acknowledged, and either side of what was not.

use std::collections::{BTreeMap, BTreeSet};

use plugin_runner::{ActiveState, InstallationId};

use crate::driver::RELEASES;
use crate::operation::{Entry, Operation};

/// What is known of one plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) external: bool,
    pub(crate) version: u64,
    pub(crate) active: ActiveState,
    pub(crate) configured: Option<u64>,
    /// Of the plugin's own settings.
    pub(crate) overridden: Option<u64>,
    /// What the plugin wrote beside its program.
    pub(crate) own: Option<u64>,
    /// The versions that can be gone back to, the one that was used last first, and what each wrote.
    pub(crate) kept: Vec<(u64, Option<u64>)>,
}

/// Everything that is known.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) plugins: BTreeMap<InstallationId, Known>,
    /// The tokens of external plugins, where they were acknowledged.
    pub(crate) tokens: BTreeMap<InstallationId, String>,
    /// Plugins that are removed, whose data was to be kept.
    pub(crate) kept: BTreeSet<InstallationId>,
    under_way: BTreeMap<usize, Operation>,
}

impl Model {
    /// Takes in a line of the driver's; gives whether it acknowledges an operation.
    pub(crate) fn note(&mut self, entry: &Entry) -> bool {
        match entry {
            Entry::Begin { thread, operation } => {
                self.under_way.insert(*thread, operation.clone());
                false
            }
            Entry::Done {
                thread,
                operation,
                id,
                token,
            } => {
                self.under_way.remove(thread);
                self.apply(operation, *id, token.clone());
                true
            }
            Entry::Failed {
                operation, error, ..
            } => panic!("{operation:?} failed: {error}"),
        }
    }

    /// What had begun and was not acknowledged.
    pub(crate) fn under_way(&self) -> Vec<&Operation> {
        self.under_way.values().collect()
    }

    /// Forgets that; its outcome is known.
    pub(crate) fn settle(&mut self) {
        self.under_way.clear();
    }

    fn apply(&mut self, operation: &Operation, new: Option<InstallationId>, token: Option<String>) {
        if let (Some(id), Some(known)) = (new, begun_as(operation)) {
            self.plugins.insert(id, known);
        }
        let about = new.or(subject(operation));
        if let (Some(id), Some(token)) = (about, token) {
            self.tokens.insert(id, token);
        }
        let Some(id) = subject(operation) else { return };
        if let Operation::Remove { keep_data, .. } = operation {
            self.plugins.remove(&id);
            self.tokens.remove(&id);
            if *keep_data {
                self.kept.insert(id);
            }
        } else {
            let known = self.plugins.get_mut(&id).unwrap();
            *known = after(known, operation);
        }
    }
}

/// The plugin that the operation is about, if it is there already.
pub(crate) fn subject(operation: &Operation) -> Option<InstallationId> {
    match operation {
        Operation::Install { .. } | Operation::InstallExternal { .. } => None,
        Operation::Update { id, .. }
        | Operation::UpdateManifest { id, .. }
        | Operation::Rollback { id, .. }
        | Operation::Activate { id }
        | Operation::Deactivate { id }
        | Operation::Configure { id, .. }
        | Operation::Rotate { id }
        | Operation::SetOverrides { id, .. }
        | Operation::Restart { id }
        | Operation::Remove { id, .. }
        | Operation::Write { id, .. } => Some(*id),
    }
}

/// What the operation makes, if it makes a plugin.
pub(crate) fn begun_as(operation: &Operation) -> Option<Known> {
    let (external, version, active) = match operation {
        Operation::Install { version } => (false, *version, ActiveState::Inactive),
        Operation::InstallExternal { version } => (true, *version, ActiveState::Active),
        _ => return None,
    };
    Some(Known {
        external,
        version,
        active,
        configured: None,
        overridden: None,
        own: None,
        kept: Vec::new(),
    })
}

/// What the plugin is after the operation.
pub(crate) fn after(known: &Known, operation: &Operation) -> Known {
    let mut known = known.clone();
    match operation {
        Operation::UpdateManifest { version, .. } => known.version = *version,
        Operation::Update { version, .. } if *version != known.version => {
            known.kept.retain(|kept| kept.0 != *version);
            known.kept.insert(0, (known.version, known.own));
            known.kept.truncate(RELEASES - 1);
            known.version = *version;
        }
        Operation::Rollback { version, .. } => {
            let place = known.kept.iter().position(|kept| kept.0 == *version);
            let (version, own) = known.kept.remove(place.unwrap());
            known.kept.insert(0, (known.version, known.own));
            (known.version, known.own) = (version, own);
        }
        Operation::Activate { .. } => known.active = ActiveState::Active,
        Operation::Deactivate { .. } => known.active = ActiveState::Inactive,
        Operation::Configure { value, .. } => known.configured = Some(*value),
        Operation::SetOverrides { value, .. } => known.overridden = Some(*value),
        Operation::Write { text, .. } => known.own = Some(*text),
        _ => {}
    }
    known
}

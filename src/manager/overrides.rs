//! What is stored with a plugin besides what it consists of: its own settings, and the embedder's labels.

use std::collections::BTreeMap;

use super::{Installation, Manager, ManagerInner};
use crate::error::{Error, Result};
use crate::fault;
use crate::id::InstallationId;
use crate::process::orphans::VARIABLE as COOKIE_VARIABLE;
use crate::protocol::environment::{DATA_VARIABLE, TRANSPORT_VARIABLE, URL_VARIABLE};
use crate::settings::require;
use crate::state::PluginMode;
use crate::store::{Overrides, Record};
use crate::text::Foreign;

impl Manager {
    /// Replaces the plugin's own settings, all of them: what `overrides` does not set is the host's again.
    ///
    /// Nothing changes at once for a process or a connection that is there. The environment and the limits
    /// of a supervised plugin apply from its next start on, and so does all else; for an external plugin,
    /// all that applies to it does from its next connection on. [`restart`](Self::restart) brings about
    /// either.
    ///
    /// # Blocking
    /// At most [`busy_timeout`](super::ManagerSettings::busy_timeout) for other operations on it, for the
    /// store, and while the [runtime](crate::runtime::Runtime::accept) looks at the package.
    ///
    /// # Errors
    /// An error changes nothing.
    /// - [`Error::Setting`] with the setting that is invalid.
    /// - [`Error::NotInstalled`].
    /// - [`ErrorKind::RecordDamaged`](crate::ErrorKind::RecordDamaged): its record is damaged.
    /// - What the [runtime refuses](crate::runtime::Runtime::accept), such as limits that cannot be set there.
    /// - [`ErrorKind::Busy`](crate::ErrorKind::Busy): another operation on it is in progress.
    /// - [The store's](crate::store::Store#errors), or [`Error::ShutDown`].
    pub fn set_overrides(&self, id: InstallationId, overrides: Overrides) -> Result<Installation> {
        self.change_overrides(id, |own| *own = overrides)
    }

    /// Changes the plugin's own settings as [`set_overrides`](Self::set_overrides) does, while no other operation
    /// on it is in progress.
    pub(crate) fn change_overrides(
        &self,
        id: InstallationId,
        change: impl FnOnce(&mut Overrides),
    ) -> Result<Installation> {
        let inner = &self.inner;
        inner.change(id, "set_overrides", |record| {
            change(&mut record.overrides);
            check(&record.overrides)?;
            match (record.mode(), inner.check_runtime()) {
                (PluginMode::Supervised, Ok(())) => inner.check_accepted(record),
                // Where it cannot run anyway there is nothing to be asked.
                _ => Ok(()),
            }
        })
    }

    /// Replaces the embedder's labels of a plugin, all of them. [`Record::labels`] says what they may be.
    ///
    /// # Blocking
    /// As [`set_overrides`](Self::set_overrides).
    ///
    /// # Errors
    /// Those of [`set_overrides`](Self::set_overrides);
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) also with the label that is too long, or the
    /// number of labels.
    pub fn set_labels<K: Into<String>, V: Into<String>>(
        &self,
        id: InstallationId,
        labels: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Installation> {
        let labels = owned(labels);
        self.inner.change(id, "set_labels", |record| {
            record.labels = labels;
            Ok(())
        })
    }

    /// Sets, or with `None` removes, who or what added a plugin: see [`Record::added_by`].
    ///
    /// # Blocking
    /// As [`set_overrides`](Self::set_overrides).
    ///
    /// # Errors
    /// Those of [`set_overrides`](Self::set_overrides);
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) also if it is too long.
    pub fn set_added_by<'a>(
        &self,
        id: InstallationId,
        added_by: impl Into<Option<&'a str>>,
    ) -> Result<Installation> {
        let added_by = added_by.into().map(str::to_owned);
        self.inner.change(id, "set_added_by", |record| {
            record.added_by = added_by;
            Ok(())
        })
    }
}

pub(super) fn owned<K: Into<String>, V: Into<String>>(
    labels: impl IntoIterator<Item = (K, V)>,
) -> BTreeMap<String, String> {
    let labels = labels.into_iter();
    labels
        .map(|(key, value)| (key.into(), value.into()))
        .collect()
}

impl ManagerInner {
    /// Changes the record of a plugin, and nothing else.
    fn change(
        &self,
        id: InstallationId,
        operation: &'static str,
        change: impl FnOnce(&mut Record) -> Result<()>,
    ) -> Result<Installation> {
        let _operation = self.begin(id, operation)?;
        let mut record = self.sound_record(id)?;
        change(&mut record)?;
        record.validate()?;
        self.store().put(record.clone())?;
        fault::point(fault::RECORDED, id);
        Ok(self.view(record))
    }
}

/// Variables of the connection between host and plugin.
const SET_BY_HOST: [&str; 4] = [
    URL_VARIABLE,
    TRANSPORT_VARIABLE,
    DATA_VARIABLE,
    COOKIE_VARIABLE,
];

/// Checks settings that could never apply.
fn check(overrides: &Overrides) -> Result<()> {
    for (name, value) in &overrides.environment {
        let invalid = |problem: &str| {
            // The value may be a secret.
            let name = Foreign::new(name).limited_to(100);
            Err(Error::setting("environment", format!("{name:?} {problem}")))
        };
        if name.is_empty() || name.contains(['=', '\0']) {
            return invalid("cannot be the name of a variable");
        }
        if SET_BY_HOST.contains(&&**name) {
            return invalid("is set by the host");
        }
        if value.contains('\0') {
            return invalid("has a value with a zero byte");
        }
    }
    require(
        overrides.outbound_message != Some(0),
        "outbound_message",
        "must be at least one",
    )?;
    if let Some(health) = &overrides.health {
        health.validate()?;
    }
    overrides.process_limits.validate()
}

//! External plugins: installing one, another manifest, another token.

use super::{Installation, Manager, ManagerInner};
use crate::auth::{ExternalCredential, ExternalToken};
use crate::deadline::Deadline;
use crate::duplex::close_code;
use crate::error::{Error, Result};
use crate::id::InstallationId;
use crate::protocol::manifest::Manifest;
use crate::state::ActiveState;
use crate::store::{PluginKind, Record};
use crate::text::{Foreign, PluginName};

/// An external plugin that was just installed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct InstalledExternal {
    /// The plugin.
    pub installation: Installation,
    /// What it connects with: [`ExternalToken::connection_url`] makes the URL of it that the
    /// plugin needs. Unless
    /// [`keep_external_tokens`](super::ManagerSettings::keep_external_tokens) is set this is the only
    /// time that it is to be had.
    pub token: ExternalToken,
}

impl Manager {
    /// Installs a plugin that somebody else runs, and loads it, so that it may connect.
    ///
    /// # Blocking
    /// For the store's own I/O.
    ///
    /// # Errors
    /// Nothing is left of it then, unless the store fails once more in undoing it, which is logged.
    /// - [`Error::Manifest`] with all that is wrong with it.
    /// - [`Error::Operation`]: the limit on installations.
    /// - [`Error::Token`]: the system gives no random bytes.
    /// - Those of [`Host::load`](crate::Host::load), and the store's.
    pub fn install_external(&self, manifest: Manifest) -> Result<InstalledExternal> {
        let inner = &self.inner;
        check(&manifest)?;
        let mut record = Record::external(manifest)?;
        let id = record.id;
        let _operation = inner.begin(id, "install_external")?;
        let _room = inner.reserve_installation(id, None)?;
        let token = inner.renew_token(&mut record)?;
        inner.store().put(record.clone())?;
        if let Err(error) = inner.host.load(id) {
            if let Err(left) = inner.store().delete(id) {
                let plugin = PluginName {
                    manifest_id: &record.manifest.id,
                    id,
                };
                log::error!("{plugin}: not installed, but its record is there: {left}");
            }
            return Err(error);
        }
        let plugin = Foreign::new(&record.manifest.id);
        log::info!("plugin {plugin}: installed as {id}");
        Ok(InstalledExternal {
            installation: inner.view(record),
            token,
        })
    }

    /// Replaces the manifest of an external plugin. Its connection, if there is one, is ended with the
    /// advice to come back (close code 1012); from then on the new one counts. Its token stays. A damaged
    /// record is put right, but for what could not be read: a configuration, or the token, which has to
    /// be [replaced](Self::rotate_token) then.
    ///
    /// # Blocking
    /// For the store, for other operations on it, and until the connection is closed, at most the host's
    /// stop timeout.
    ///
    /// # Errors
    /// Nothing has changed then.
    /// - [`Error::NotInstalled`].
    /// - [`Error::Unsupported`] for a supervised plugin, whose manifest is in its package.
    /// - [`Error::Manifest`] with all that is wrong with it.
    /// - [`Error::Operation`]: another operation on it is under way.
    /// - The store's.
    pub fn update_manifest(&self, id: InstallationId, manifest: Manifest) -> Result<Installation> {
        let inner = &self.inner;
        check(&manifest)?;
        let _operation = inner.begin(id, "update_manifest")?;
        let mut record = ManagerInner::external(inner.record(id)?)?;
        let renamed = record.manifest.id != manifest.id;
        record.manifest = manifest;
        if record.damage.take().is_some() {
            // Always so, and nobody else would put it right.
            record = record.with_active_state(ActiveState::Active);
        }
        inner.store().put(record.clone())?;
        let reason = "manifest updated";
        if renamed {
            // A session has its name for life.
            inner.host.unload_with(id, close_code::RESTART, reason)?;
        } else {
            inner.drop_connection(id, close_code::RESTART, reason);
        }
        inner.load_again(id);
        Ok(inner.view(record))
    }

    /// Replaces the token of an external plugin. The old one counts no more from then on: the connection
    /// that was made with it, if there is one, is ended for good (close code 1008 `token rotated`).
    ///
    /// # Blocking
    /// As [`update_manifest`](Self::update_manifest).
    ///
    /// # Errors
    /// Nothing has changed then.
    /// - [`Error::NotInstalled`].
    /// - [`Error::Unsupported`] for a supervised plugin, which gets a new token at each start.
    /// - [`Error::Store`]: its record is damaged.
    /// - [`Error::Token`]: the system gives no random bytes.
    /// - [`Error::Operation`]: another operation on it is under way.
    /// - The store's.
    pub fn rotate_token(&self, id: InstallationId) -> Result<ExternalToken> {
        let inner = &self.inner;
        let _operation = inner.begin(id, "rotate_token")?;
        let mut record = ManagerInner::external(inner.sound_record(id)?)?;
        let token = inner.renew_token(&mut record)?;
        inner.store().put(record)?;
        inner.drop_connection(id, close_code::POLICY_VIOLATION, "token rotated");
        inner.load_again(id);
        Ok(token)
    }
}

fn check(manifest: &Manifest) -> Result<()> {
    let problems = manifest.problems();
    if problems.is_empty() {
        Ok(())
    } else {
        Err(crate::error::ManifestError::Invalid { problems }.into())
    }
}

impl ManagerInner {
    /// Gives the record a new token, and the token.
    fn renew_token(&self, record: &mut Record) -> Result<ExternalToken> {
        let token = ExternalToken::generate()?;
        record.kind = PluginKind::External(if self.settings.keep_external_tokens {
            ExternalCredential::new(token.clone())
        } else {
            ExternalCredential::from_digest(token.digest())
        });
        Ok(token)
    }

    fn drop_connection(&self, id: InstallationId, code: u16, reason: &str) {
        if let Some(session) = self.host.session(id) {
            let deadline = Deadline::after(self.context().settings.timeouts.stop);
            session.drop_connection(code, reason, deadline);
        }
    }

    /// Loads a plugin that should be; that it cannot be is not what the operation fails with, and shows
    /// in its status.
    pub(super) fn load_again(&self, id: InstallationId) {
        match self.host.load(id) {
            Ok(_) => drop(self.failures.lock().remove(&id)),
            Err(error) => self.failed_to_load(id, &error),
        }
    }

    pub(super) fn failed_to_load(&self, id: InstallationId, error: &Error) {
        log::error!("{}: cannot be loaded: {error}", self.display_name(id));
        self.failures.lock().insert(id, error.to_string().into());
    }
}

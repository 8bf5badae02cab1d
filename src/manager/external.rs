//! External plugins: installing one, and replacing its manifest or its token.

use super::{Installation, Manager, ManagerInner};
use crate::auth::ExternalToken;
use crate::deadline::Deadline;
use crate::duplex::close_code;
use crate::error::{Error, Result};
use crate::id::InstallationId;
use crate::protocol::manifest::Manifest;
use crate::state::ActiveState;
use crate::store::{PluginKind, Record};
use crate::text::{Foreign, PluginName};

impl Manager {
    /// Installs a plugin that the host does not run, and loads it, so that it may connect. Returns it with
    /// the token that it connects with; [`ExternalToken::connection_url`] returns the URL that the plugin
    /// needs. Unless [`keep_external_tokens`](super::ManagerSettings::keep_external_tokens) is set, the
    /// token is available only here.
    ///
    /// # Blocking
    /// For the store's own I/O.
    ///
    /// # Errors
    /// An error leaves nothing behind, unless the store also fails while undoing it, which is logged.
    /// - [`ErrorKind::InvalidManifest`](crate::ErrorKind::InvalidManifest), with all problems of the manifest.
    /// - [`ErrorKind::InstallationLimit`](crate::ErrorKind::InstallationLimit): the limit on installations is reached.
    /// - [`ErrorKind::Io`](crate::ErrorKind::Io): the system returned no random bytes.
    /// - Those of [`Host::load`](crate::Host::load), and [the store's](crate::store::Store#errors).
    pub fn install_external(&self, manifest: Manifest) -> Result<(Installation, ExternalToken)> {
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
                log::error!("{plugin}: not installed, but its record is still stored: {left}");
            }
            return Err(error);
        }
        inner.revised();
        let plugin = Foreign::new(&record.manifest.id);
        log::info!("plugin {plugin}: installed as {id}");
        Ok((inner.view(record), token))
    }

    /// Replaces the manifest of an external plugin. If the plugin is connected, its connection is closed with
    /// the advice to reconnect (close code 1012), and the new manifest applies from then on. Its token stays.
    /// A damaged record is repaired, except for what could not be read: the configuration, or the token, which
    /// has to be [replaced](Self::rotate_token) then.
    ///
    /// # Blocking
    /// At most [`busy_timeout`](super::ManagerSettings::busy_timeout) for other operations on it; until the
    /// connection is closed, at most [`Timeouts::stop`](crate::Timeouts::stop); and for the store.
    ///
    /// # Errors
    /// An error changes nothing.
    /// - [`Error::NotInstalled`].
    /// - [`Error::Unsupported`]: the plugin is supervised, so that its manifest is in its package.
    /// - [`ErrorKind::InvalidManifest`](crate::ErrorKind::InvalidManifest), with all problems of the manifest.
    /// - [`ErrorKind::Busy`](crate::ErrorKind::Busy): another operation on it is in progress.
    /// - [The store's](crate::store::Store#errors), or [`Error::ShutDown`].
    pub fn update_manifest(&self, id: InstallationId, manifest: Manifest) -> Result<Installation> {
        let inner = &self.inner;
        check(&manifest)?;
        let _operation = inner.begin(id, "update_manifest")?;
        let mut record = ManagerInner::external(inner.record(id)?)?;
        let renamed = record.manifest.id != manifest.id;
        record.manifest = manifest;
        if record.damage.take().is_some() {
            // An external plugin always is, and nothing else would repair that.
            record.set_active_state(ActiveState::Active);
        }
        inner.store().put(record.clone())?;
        inner.revised();
        let reason = "manifest updated";
        if renamed {
            // The name of a session cannot change.
            inner.host.unload_with(id, close_code::RESTART, reason)?;
        } else {
            inner.drop_connection(id, close_code::RESTART, reason);
        }
        inner.load_again(id);
        Ok(inner.view(record))
    }

    /// Replaces the token of an external plugin. The old token is invalid from then on: a connection that was
    /// made with it is closed for good (close code 1008 `token rotated`).
    ///
    /// # Blocking
    /// As [`update_manifest`](Self::update_manifest).
    ///
    /// # Errors
    /// An error changes nothing.
    /// - [`Error::NotInstalled`].
    /// - [`Error::Unsupported`]: the plugin is supervised, and receives a new token at each start.
    /// - [`ErrorKind::RecordDamaged`](crate::ErrorKind::RecordDamaged): its record is damaged.
    /// - [`ErrorKind::Io`](crate::ErrorKind::Io): the system returned no random bytes.
    /// - [`ErrorKind::Busy`](crate::ErrorKind::Busy): another operation on it is in progress.
    /// - [The store's](crate::store::Store#errors), or [`Error::ShutDown`].
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
    /// Sets a new token in the record, and returns it.
    fn renew_token(&self, record: &mut Record) -> Result<ExternalToken> {
        let token = ExternalToken::generate()?;
        record.kind = if self.settings.keep_external_tokens {
            PluginKind::external(token.clone())
        } else {
            PluginKind::known_by(token.binary_digest())
        };
        Ok(token)
    }

    fn drop_connection(&self, id: InstallationId, code: u16, reason: &str) {
        if let Some(session) = self.host.session(id) {
            let deadline = Deadline::after(self.context().settings.timeouts.stop);
            session.drop_connection(code, reason, deadline);
        }
    }

    /// Loads a plugin that should be loaded. If that fails, the operation does not: the plugin's status shows
    /// the reason.
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

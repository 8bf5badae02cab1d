//! `Record`: what is stored of one installed plugin, and the bounds of it that every store keeps. A
//! [`Store`](super::Store) keeps it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::kind::{PluginKind, Source};
use super::overrides::Overrides;
use super::release::{RELEASES, Release, is_digest};
use crate::auth::ExternalToken;
use crate::error::{Result, StoreError};
use crate::id::InstallationId;
use crate::protocol::configuration::{Configuration, MemberNames};
use crate::protocol::manifest::Manifest;
use crate::state::{ActiveState, PluginMode};
use crate::text::Foreign;

/// The most labels that a record has.
const LABELS: usize = 32;
/// The most bytes of a label's key.
const KEY_BYTES: usize = 63;
/// The most bytes of a label's value, of `added_by` and of a release's version.
pub(super) const TEXT_BYTES: usize = 256;

/// One installed plugin.
///
/// It serialises completely, so that a store may keep it whole, for example as JSON. The output contains
/// the token of an external plugin if the record does. [`Debug`](std::fmt::Debug) shows no token, and of the
/// configuration and the environment only names.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Record {
    /// The host's id for this installation.
    pub id: InstallationId,
    /// The plugin's manifest.
    pub manifest: Manifest,
    /// How the plugin is run, and what that takes.
    pub kind: PluginKind,
    /// The state that the administrator wants.
    pub active_state: ActiveState,
    /// When `active_state` last changed.
    pub active_state_changed_at: SystemTime,
    /// The stored configuration; empty if the plugin was never configured.
    pub configuration: Configuration,
    /// A configuration that was sent to the plugin and not stored, of which it is unknown whether the
    /// plugin has applied it. As long as it is set, the stored configuration is sent again when the
    /// plugin next connects.
    // Stored by the name that it had first, here and in the database.
    #[serde(
        rename = "unsettled_configuration",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub pending_configuration: Option<Configuration>,
    /// The time of the installation.
    pub added_at: SystemTime,
    /// Settings of this plugin that replace the host's.
    #[serde(default)]
    pub overrides: Overrides,
    /// Who or what added the plugin, in the embedder's words; the host only keeps it. At most 256 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added_by: Option<String>,
    /// Whatever the embedder wants to know of the plugin; the host only keeps it. At most 32; a key has 1 to
    /// 63 bytes of `a-z`, `0-9`, `.`, `_`, `/` and `-`, a value at most 256 bytes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The releases of a plugin from the store that are kept: the one in use, and those that the plugin can go
    /// [back](crate::Manager::rollback) to, the one that was used last first. At most 16. The manager keeps this
    /// list, and the archives that it names in the store. Empty in a record from before there were such lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub releases: Vec<Release>,
    /// The parts of the record that the store could not read, and why. Their fields have stand-ins, and
    /// the plugin is not started. Never stored.
    #[serde(skip)]
    pub damage: Option<Arc<str>>,
}

impl Record {
    /// Makes the record of a newly installed supervised plugin: inactive, with a new id.
    pub fn supervised(manifest: Manifest, source: Source) -> Self {
        let id = InstallationId::generate();
        let mut record = Self::new(id, manifest, PluginKind::Supervised(source));
        record.releases = record.kept_releases();
        for release in &mut record.releases {
            release.used_from = Some(record.added_at);
        }
        record
    }

    /// Makes the record of a newly installed external plugin: wanted active, with a new id and token. The
    /// token stays in the record, so that it can be handed to the plugin
    /// ([`external_token`](Self::external_token)); see [`PluginKind::external_by_digest`].
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if the system returns no random bytes.
    pub fn external(manifest: Manifest) -> Result<Self> {
        let id = InstallationId::generate();
        let kind = PluginKind::external(ExternalToken::generate()?);
        Ok(Self::new(id, manifest, kind))
    }

    /// Makes a record of its parts, for a store that reads back what it kept: all other fields are as
    /// after installation ([State names](crate::protocol#state-names)), and can be set.
    pub fn new(id: InstallationId, manifest: Manifest, kind: PluginKind) -> Self {
        let active_state = match kind {
            PluginKind::Supervised(_) => ActiveState::Inactive,
            PluginKind::External { .. } => ActiveState::Active,
        };
        let now = SystemTime::now();
        Self {
            id,
            manifest,
            kind,
            active_state,
            active_state_changed_at: now,
            configuration: Configuration::new(),
            pending_configuration: None,
            added_at: now,
            overrides: Overrides::default(),
            added_by: None,
            labels: BTreeMap::new(),
            releases: Vec::new(),
            damage: None,
        }
    }

    /// Makes the record of a plugin of which a store can read no more than the id, with the reason as its
    /// [`damage`](Self::damage): so one bad record is shown, where an error would hide all the others.
    ///
    /// Every field is a stand-in, and may be set to what can still be read. An archive that the record named is
    /// kept in any case. The reason is logged and shown: it must quote no token, environment or configuration.
    pub fn damaged(id: InstallationId, why: impl Into<Arc<str>>) -> Self {
        let nowhere = PluginKind::Supervised(Source::Directory(PathBuf::new()));
        Self {
            active_state_changed_at: SystemTime::UNIX_EPOCH,
            added_at: SystemTime::UNIX_EPOCH,
            damage: Some(why.into()),
            ..Self::new(id, Manifest::default(), nowhere)
        }
    }

    /// Checks what every store refuses: a record with [`damage`](Self::damage), and
    /// [`added_by`](Self::added_by), [`labels`](Self::labels) and [`releases`](Self::releases) that are longer or
    /// more than they may be.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput), which names what is wrong and its bound, or
    /// [`RecordDamaged`](crate::ErrorKind::RecordDamaged).
    pub fn validate(&self) -> Result<()> {
        let id = self.id;
        if let Some(problem) = self.damage.clone() {
            return Err(StoreError::DamagedRecord { id, problem }.into());
        }
        match self.excess() {
            Some(problem) => {
                let problem = problem.into();
                Err(StoreError::Unstorable { id, problem }.into())
            }
            None => Ok(()),
        }
    }

    /// Says which of the fields that have bounds is out of them.
    fn excess(&self) -> Option<String> {
        if let Some(added_by) = &self.added_by
            && added_by.len() > TEXT_BYTES
        {
            let length = added_by.len();
            return Some(format!(
                "added_by has {length} bytes; at most {TEXT_BYTES} are allowed"
            ));
        }
        if self.labels.len() > LABELS {
            let count = self.labels.len();
            return Some(format!(
                "it has {count} labels; at most {LABELS} are allowed"
            ));
        }
        if self.releases.len() > RELEASES {
            let count = self.releases.len();
            return Some(format!(
                "it names {count} releases; at most {RELEASES} are allowed"
            ));
        }
        for release in &self.releases {
            if !is_digest(&release.sha256) {
                let shown = Foreign::new(&release.sha256).limited_to(64);
                return Some(format!(
                    "it names the release {shown:?}, which is not a SHA-256"
                ));
            }
            if release.version.len() > TEXT_BYTES {
                return Some(format!(
                    "the version of a release has {} bytes; at most {TEXT_BYTES} are allowed",
                    release.version.len()
                ));
            }
        }
        self.labels.iter().find_map(|(key, value)| {
            // A long key is cut off where it is shown.
            let shown = Foreign::new(key).limited_to(2 * KEY_BYTES);
            if key.is_empty() || key.len() > KEY_BYTES || !key.bytes().all(is_of_a_key) {
                return Some(format!(
                    "the label {shown:?} has a key of {} bytes; a key has 1 to {KEY_BYTES} bytes of \
                     a-z 0-9 . _ / -",
                    key.len()
                ));
            }
            (value.len() > TEXT_BYTES).then(|| {
                format!(
                    "the label {shown:?} has a value of {} bytes; at most {TEXT_BYTES} are allowed",
                    value.len()
                )
            })
        })
    }

    /// Sets the state that the administrator wants; a change is dated now.
    pub fn set_active_state(&mut self, state: ActiveState) {
        if self.active_state != state {
            self.active_state = state;
            self.active_state_changed_at = SystemTime::now();
        }
    }

    /// Whether this is the record of the external plugin with this token. The time that the answer takes
    /// reveals nothing of the token: digests are compared, and no token can be computed from those.
    pub fn has_token(&self, token: &ExternalToken) -> bool {
        self.kind.token_digest() == Some(token.binary_digest())
    }

    /// The token of an external plugin, if it is kept.
    pub fn external_token(&self) -> Option<&ExternalToken> {
        match &self.kind {
            PluginKind::External { token, .. } => token.as_ref(),
            PluginKind::Supervised(_) => None,
        }
    }

    /// The SHA-256 of the plugin's archive, if that is in the store.
    pub fn stored_archive(&self) -> Option<&str> {
        match &self.kind {
            PluginKind::Supervised(Source::Stored { sha256, .. }) => Some(sha256),
            _ => None,
        }
    }

    /// Returns the [`releases`](Self::releases) with the one in use in front, also where the record does not list
    /// it. Empty if the plugin does not run from an archive in the store.
    pub(crate) fn kept_releases(&self) -> Vec<Release> {
        let PluginKind::Supervised(Source::Stored { sha256, size }) = &self.kind else {
            return Vec::new();
        };
        let (mut kept, others): (Vec<Release>, Vec<Release>) =
            (self.releases.iter().cloned()).partition(|release| release.sha256 == *sha256);
        if kept.is_empty() {
            kept.push(Release::new(sha256, *size, &self.manifest.version));
        }
        kept.extend(others);
        kept
    }

    /// Whether a release with this SHA-256 is among those that are kept.
    pub(crate) fn has_release(&self, sha256: &str) -> bool {
        (self.releases.iter()).any(|release| release.sha256 == sha256)
    }

    /// Has the plugin run from another package, from now on. The release that it ran from stays among those that
    /// are kept.
    pub(crate) fn set_release(&mut self, manifest: Manifest, sha256: &str, size: u64) {
        if self.stored_archive() != Some(sha256) {
            let now = SystemTime::now();
            let mut kept = self.kept_releases();
            if let Some(last) = kept.first_mut() {
                last.used_until = Some(now);
            }
            kept.retain(|release| release.sha256 != sha256);
            let mut release = Release::new(sha256, size, &manifest.version);
            release.used_from = Some(now);
            kept.insert(0, release);
            self.releases = kept;
        }
        self.manifest = manifest;
        let sha256 = sha256.to_owned();
        self.kind = PluginKind::Supervised(Source::Stored { sha256, size });
    }

    /// Whether the plugin is supervised or external.
    pub fn mode(&self) -> PluginMode {
        match self.kind {
            PluginKind::Supervised(_) => PluginMode::Supervised,
            PluginKind::External { .. } => PluginMode::External,
        }
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Destructured, so that a new field cannot be forgotten here.
        let Self {
            id,
            manifest,
            kind,
            active_state,
            active_state_changed_at,
            configuration,
            pending_configuration,
            added_at,
            overrides,
            added_by,
            labels,
            releases,
            damage,
        } = self;
        f.debug_struct("Record")
            .field("id", id)
            .field("manifest", manifest)
            .field("kind", kind)
            .field("active_state", active_state)
            .field("active_state_changed_at", active_state_changed_at)
            .field("configuration", &MemberNames(configuration))
            .field(
                "pending_configuration",
                &pending_configuration.as_ref().map(MemberNames),
            )
            .field("added_at", added_at)
            .field("overrides", overrides)
            .field("added_by", added_by)
            .field("labels", labels)
            .field("releases", releases)
            .field("damage", damage)
            .finish()
    }
}

fn is_of_a_key(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._/-".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn record() -> Record {
        let manifest = Manifest::parse(br#"{"id":"p","author":"a","name":"P"}"#).unwrap();
        Record::supervised(manifest, Source::Directory("/p".into()))
    }

    #[track_caller]
    fn refused(record: &Record) -> String {
        let error = record.validate().unwrap_err();
        let kind = error.kind();
        assert!(
            matches!(kind, ErrorKind::InvalidInput | ErrorKind::RecordDamaged),
            "{kind}"
        );
        let text = error.to_string();
        let prefix = format!("the record of plugin {} ", record.id);
        text.strip_prefix(&prefix).expect(&text).to_owned()
    }

    #[test]
    fn what_is_out_of_bounds_is_named_with_its_bound() {
        let mut largest = record();
        largest.added_by = Some("x".repeat(256));
        largest.labels = (10..42)
            .map(|number| (format!("{number}{}", "k".repeat(61)), "v".repeat(256)))
            .collect();
        largest.validate().unwrap();

        let mut long = record();
        long.added_by = Some("ü".repeat(129));
        assert_eq!(
            refused(&long),
            "cannot be stored: added_by has 258 bytes; at most 256 are allowed"
        );
        largest.labels.insert("one-more".into(), String::new());
        assert_eq!(
            refused(&largest),
            "cannot be stored: it has 33 labels; at most 32 are allowed"
        );
        let labelled = |key: &str, value: &str| {
            let mut record = record();
            record.labels.insert(key.into(), value.into());
            refused(&record)
        };
        assert_eq!(
            labelled("team\n", "a"),
            r#"cannot be stored: the label "team\n" has a key of 5 bytes; a key has 1 to 63 bytes of a-z 0-9 . _ / -"#
        );
        assert_eq!(
            labelled("team", &"v".repeat(257)),
            r#"cannot be stored: the label "team" has a value of 257 bytes; at most 256 are allowed"#
        );
        let long = labelled(&"k".repeat(1 << 20), "a");
        assert!(long.len() < 400, "{} bytes", long.len());
        for key in ["", "Team", "a b", "ü", "a:b"] {
            assert!(
                labelled(key, "").contains("a key has 1 to 63 bytes"),
                "{key}"
            );
        }
        let mut damaged = record();
        damaged.damage = Some("configuration is cut off".into());
        assert!(refused(&damaged).starts_with("is damaged: configuration is cut off;"));
    }

    #[test]
    fn debug_shows_names_and_no_secret() {
        const MARKER: &str = "sdprt_Storyden0Plugin1Secret2Vector3ab";
        let token = ExternalToken::parse(MARKER).unwrap();
        let mut record = record();
        record.kind = PluginKind::external(token);
        record.configuration.insert("city".into(), MARKER.into());
        record.pending_configuration = Some(record.configuration.clone());
        (record.overrides.environment).push(("CITY".into(), MARKER.into()));
        let text = format!("{record:?} {record:#?}");
        assert!(!text.contains(&MARKER[6..]), "{text}");
        for part in [
            r#" configuration: {"city"}, pending_configuration: Some({"city"})"#,
            r#"environment: ["CITY"]"#,
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_record_without_labels_is_written_as_before_there_were_any() {
        let mut record = record();
        let text = serde_json::to_string(&record).unwrap();
        assert!(
            !text.contains("added_by") && !text.contains("labels"),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
        record.added_by = Some("anna".into());
        record.labels.insert("team".into(), "ops".into());
        let text = serde_json::to_string(&record).unwrap();
        assert!(
            text.ends_with(r#","added_by":"anna","labels":{"team":"ops"}}"#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
    }
}

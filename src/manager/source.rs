//! `PackageSource`: where a package comes from. `received` reads it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a package, a zip archive with a manifest, comes from.
///
/// ```no_run
/// use plugin_runner::manager::PackageSource;
///
/// let from_a_file = PackageSource::file("fire-bot.zip");
/// let from_memory = PackageSource::bytes(std::fs::read("fire-bot.zip")?);
/// let checked = PackageSource::file("fire-bot.zip").sha256("9f86d081884c7d65…");
/// # std::io::Result::Ok(())
/// ```
#[must_use]
pub struct PackageSource<'a> {
    pub(super) origin: Origin<'a>,
    pub(super) sha256: Option<Arc<str>>,
    pub(super) added_by: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
}

pub(super) enum Origin<'a> {
    Bytes(Arc<[u8]>),
    Reader(Box<dyn Read + 'a>),
    File(PathBuf),
    #[cfg(feature = "fetch")]
    Url(String),
}

impl<'a> PackageSource<'a> {
    fn new(origin: Origin<'a>) -> Self {
        Self {
            origin,
            sha256: None,
            added_by: None,
            labels: BTreeMap::new(),
        }
    }

    /// A package in memory. An [`Arc`](std::sync::Arc) is not copied.
    pub fn bytes(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self::new(Origin::Bytes(bytes.into()))
    }

    /// A package that is read to its end, such as an upload; it is never held in memory whole. While the
    /// reader blocks, the installation waits.
    pub fn reader(reader: impl Read + 'a) -> Self {
        Self::new(Origin::Reader(Box::new(reader)))
    }

    /// A package in a file, which is copied; it is never held in memory whole.
    pub fn file(path: impl AsRef<Path>) -> Self {
        Self::new(Origin::File(path.as_ref().to_owned()))
    }

    /// A package on an HTTP server; it is never held in memory whole.
    ///
    /// Packages are fetched by `https` and `http` only, and only from the public internet: a host that is
    /// or resolves to a private or local address is refused, and the connection goes to exactly the
    /// addresses that were checked. The same holds after every redirect, of which at most five are
    /// followed. Connecting to one host takes ten seconds at most, TLS handshake included. No cookies and
    /// no credentials are sent. A proxy in the environment is **not** used: it would look up the host
    /// itself, and nothing would be checked. Certificates must be from the authorities that Mozilla trusts,
    /// which are compiled in; the system's own are not read.
    ///
    /// [`fetch_timeout`](crate::ManagerSettings::fetch_timeout) limits the time, and
    /// [`fetch_allowed_hosts`](crate::ManagerSettings::fetch_allowed_hosts) allows private addresses. All three need
    /// the feature `fetch`.
    #[cfg(feature = "fetch")]
    pub fn url(url: impl Into<String>) -> Self {
        Self::new(Origin::Url(url.into()))
    }

    /// Refuses the package unless it has this SHA-256, in hexadecimal.
    pub fn sha256(mut self, sha256: impl AsRef<str>) -> Self {
        self.sha256 = Some(sha256.as_ref().trim().to_lowercase().into());
        self
    }

    /// Says who or what adds the plugin ([`Record::added_by`](crate::store::Record::added_by)). It is stored
    /// with a plugin that is installed from this; an update does not change it.
    pub fn added_by(mut self, who: impl Into<String>) -> Self {
        self.added_by = Some(who.into());
        self
    }

    /// Sets the plugin's [labels](crate::store::Record::labels). They are stored with a plugin that is
    /// installed from this; an update does not change them.
    pub fn labels<K: Into<String>, V: Into<String>>(
        mut self,
        labels: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        self.labels = super::overrides::owned(labels);
        self
    }
}

impl fmt::Debug for PackageSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = match &self.origin {
            Origin::Bytes(bytes) => format!("{} bytes", bytes.len()),
            Origin::Reader(_) => "reader".to_owned(),
            Origin::File(path) => path.display().to_string(),
            // It may hold secrets.
            #[cfg(feature = "fetch")]
            Origin::Url(_) => "URL".to_owned(),
        };
        f.debug_struct("PackageSource")
            .field("origin", &origin)
            .field("sha256", &self.sha256)
            .finish()
    }
}

//! Settings of a manager, and the check that they can work.

use std::time::Duration;

use crate::error::Result;
#[cfg(feature = "fetch")]
use crate::fetch::FetchSettings;
use crate::package::MigrationLimits;
use crate::settings::{require, settings};
use crate::store::RELEASES;

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;

settings! {
    /// All limits and timeouts of a [`Manager`](crate::Manager).
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// use plugin_runner::{Host, Manager, ManagerSettings};
    ///
    /// # fn main() -> plugin_runner::Result<()> {
    /// let settings = ManagerSettings::default()
    ///     .installations(50)
    ///     .activate_timeout(Duration::from_secs(60));
    /// let manager = Manager::with_settings(Host::builder().build()?, settings)?;
    /// # Ok(())
    /// # }
    /// ```
    pub struct ManagerSettings {
        /// How many plugins may be installed. Default 10,000.
        installations: usize = 10_000;
        /// Bytes of all archives in the store together. Default 20 GiB.
        archive_bytes: u64 = 20 * GIB;
        /// How many releases of a plugin are kept, 1 to 16: the one in use, and those that were used before it and
        /// that the plugin can go [back](crate::Manager::rollback) to. Each takes the room of its directory and
        /// of its archive, which counts against [`archive_bytes`](Self::archive_bytes). An update removes what is
        /// over this number once it has succeeded, beginning with the one that was used longest ago. While an
        /// update is in progress, and after one that failed, there is one directory more; on a sprite there may be
        /// one more until the next update. Default 2.
        releases: usize = 2;
        /// Timeout for receiving, checking and unpacking a package. Default 5 min.
        install_timeout: Duration = Duration::from_secs(300);
        /// How long an operation waits for another one on the same installation. Default 30 s.
        busy_timeout: Duration = Duration::from_secs(30);
        /// How long an update waits for the new version of a plugin to become active, and after a rollback
        /// for the previous one. Default 5 min, because real plugins compile themselves at their first
        /// start.
        activate_timeout: Duration = Duration::from_secs(300);
        /// How many plugins are starting at once at [`boot`](crate::Manager::boot); one that has been starting
        /// for 30 s makes room for the next. Default 8.
        boot_parallel: usize = 8;
        /// Keeps the tokens of external plugins themselves, so that they can be shown again, as Storyden's
        /// HTTP API does. Otherwise only their digests are kept, and each token is shown once, when it is
        /// created. Applies to tokens that are created from then on. Default false.
        keep_external_tokens: bool = false;
        /// Bytes of the files beside its program that a plugin wrote and that an update migrates to the new
        /// version, all together. With more, the update fails. Default 256 MiB.
        migrated_bytes: u64 = MigrationLimits::default().bytes;
        /// The number of those files, of links and directories, and of sockets and the like. With more, the
        /// update fails. Default 10,000.
        ///
        /// For each of them, their paths may take 1 KiB of memory: 10 MiB by default, and never less than
        /// 1 MiB. The names of directories that have not been listed yet may take 16 MiB.
        migrated_files: usize = MigrationLimits::default().files;
        /// Time for fetching a package by URL, from the look-up of the host to the last byte, redirects
        /// included. Default 30 s. Needs the feature `fetch`.
        #[cfg(feature = "fetch")]
        fetch_timeout: Duration = Duration::from_secs(30);
        #[cfg(feature = "fetch")]
        fetch_allowed_hosts: Vec<String> = Vec::new(), by_hand;
    }
}

impl ManagerSettings {
    /// Hosts that may be fetched from although their address is private or local, each as `host:port`,
    /// such as `packages.internal:443` or `[::1]:8080`. This is for a server of packages inside your own
    /// network. Everyone who may name the URL of a package can then reach these hosts. Default none.
    /// Needs the feature `fetch`.
    #[cfg(feature = "fetch")]
    #[must_use]
    pub fn fetch_allowed_hosts<Host: Into<String>>(
        mut self,
        hosts: impl IntoIterator<Item = Host>,
    ) -> Self {
        self.fetch_allowed_hosts = hosts.into_iter().map(Into::into).collect();
        self
    }

    #[cfg(feature = "fetch")]
    pub(super) fn fetch(&self) -> FetchSettings {
        FetchSettings::new(self.fetch_timeout, self.fetch_allowed_hosts.clone())
    }

    pub(super) fn migration(&self) -> MigrationLimits {
        MigrationLimits {
            bytes: self.migrated_bytes,
            files: self.migrated_files,
        }
    }

    /// Checks whether a manager could work with these settings; [`Manager::with_settings`](crate::Manager::with_settings)
    /// does the same. For programs that check their configuration before they start anything.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) names the first that is invalid.
    pub fn validate(&self) -> Result<()> {
        require(
            self.boot_parallel > 0,
            "boot_parallel",
            "must be at least 1",
        )?;
        require(
            (1..=RELEASES).contains(&self.releases),
            "releases",
            format!("must be 1 to {RELEASES}"),
        )?;
        let positive = [
            ("install_timeout", self.install_timeout),
            ("activate_timeout", self.activate_timeout),
        ];
        for (name, value) in positive {
            require(!value.is_zero(), name, "must be longer than zero")?;
        }
        #[cfg(feature = "fetch")]
        self.fetch().check()?;
        Ok(())
    }
}

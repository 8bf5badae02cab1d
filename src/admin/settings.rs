//! Settings of an admin server, and the check that they can work.

use super::access::{check_origins, is_host_name};
use crate::error::{Error, Result};
use crate::settings::{require, settings};

settings! {
    /// The settings of an [`AdminServer`](super::AdminServer).
    pub struct AdminSettings {
        /// Names by which clients may reach the server, such as `plugins.example.org`, without ports, beside
        /// IP addresses and `localhost`. Default none.
        allow_hosts: Vec<String> = Vec::new();
        /// Origins whose web pages may use the API, such as `https://admin.example.org`, beside the server's
        /// own. Default none.
        allow_origins: Vec<String> = Vec::new();
        /// Connections that are served at once. When there are more, the one that has been idle longest is
        /// closed; if none is idle, the new one is refused with 503. Default 256.
        connections: usize = 256;
    }
}

impl AdminSettings {
    /// Checks whether a server could work with these settings; [`AdminServer::start`](super::AdminServer::start)
    /// does the same. For programs that check their configuration before they start anything.
    ///
    /// # Errors
    /// [`Error::Setting`] names the first that is invalid.
    pub fn validate(&self) -> Result<()> {
        require(self.connections > 0, "connections", "must be at least 1")?;
        if let Some(wrong) = self.allow_hosts.iter().find(|host| !is_host_name(host)) {
            return Err(Error::setting(
                "allow_hosts",
                format!(
                    "{wrong:?} is no host name; write it as in plugins.example.org, without a port"
                ),
            ));
        }
        check_origins(&self.allow_origins)
    }
}

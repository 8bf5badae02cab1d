//! Settings of an admin server, and the check that they can work.

use crate::error::Result;
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
    pub(super) fn validate(&self) -> Result<()> {
        require(self.connections > 0, "connections", "must be at least 1")
    }
}

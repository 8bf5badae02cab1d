//! `FetchSettings`: how long fetching a package may take, and where it may go.

use std::time::Duration;

use super::target::HostPort;
use crate::error::{Error, Result};
use crate::settings::{require, settings};

settings! {
    /// How packages are fetched by URL ([Archive](crate::protocol#archive)).
    ///
    /// Packages are fetched by `https` and `http` only, and only from the public internet: a host that is
    /// or resolves to a private or local address is refused, and the connection goes to exactly the
    /// addresses that were checked. The same holds after every redirect. No cookies and no credentials are
    /// sent. A proxy in the environment is **not** used: it would look up the host itself, and nothing
    /// would be checked. Certificates must be from the authorities that Mozilla trusts, which are compiled
    /// in; the system's own are not read.
    pub struct FetchSettings {
        /// Time for the whole fetch, from the look-up of the host to the last byte, redirects included.
        /// Default 30 s.
        timeout: Duration = Duration::from_secs(30);
        /// Time for connecting to one host, TLS handshake included. Its addresses share it. Default 10 s.
        connect: Duration = Duration::from_secs(10);
        /// The most redirects that are followed. Default 5.
        redirects: usize = 5;
        /// Hosts that may be fetched from although their address is private or local, each as
        /// `host:port`, such as `packages.internal:443` or `[::1]:8080`. This is for a server of packages
        /// inside your own network. Everyone who may name the URL of a package can then reach these hosts.
        /// Default none.
        allowed_hosts: Vec<String> = Vec::new(), by_hand;
    }
}

impl FetchSettings {
    /// Sets [`allowed_hosts`](Self::allowed_hosts).
    #[must_use]
    pub fn allowed_hosts<Host: Into<String>>(
        mut self,
        hosts: impl IntoIterator<Item = Host>,
    ) -> Self {
        self.allowed_hosts = hosts.into_iter().map(Into::into).collect();
        self
    }

    /// Checks the settings, and returns the allowed hosts in the form in which they are compared.
    pub(super) fn validate(&self) -> Result<Vec<HostPort>> {
        for (name, value) in [("timeout", self.timeout), ("connect", self.connect)] {
            require(!value.is_zero(), name, "must be longer than zero")?;
        }
        self.allowed_hosts
            .iter()
            .map(|text| {
                HostPort::parse(text).map_err(|problem| {
                    let problem = format!("{text:?} is not a host:port: {problem}");
                    Error::setting("allowed_hosts", problem)
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        let settings = FetchSettings::default();
        assert!(settings.validate().unwrap().is_empty());
        let zero = settings.clone().timeout(Duration::ZERO);
        assert_eq!(
            zero.validate().unwrap_err().to_string(),
            "setting timeout: must be longer than zero"
        );
        for entry in [
            "packages.internal",
            "",
            ":80",
            "[::1]",
            "user@host:80",
            "host:0",
            "h/p:80",
        ] {
            let error = settings
                .clone()
                .allowed_hosts([entry])
                .validate()
                .unwrap_err();
            assert!(error.to_string().contains("host:port"), "{entry}: {error}");
        }
        let usable = settings.allowed_hosts(["Packages.Internal.:443", "[::1]:80", "10.0.0.1:1"]);
        assert_eq!(usable.validate().unwrap().len(), 3);
    }
}

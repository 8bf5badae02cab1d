//! `FetchSettings`: how long fetching a package may take, and where it may go.

use std::time::Duration;

use super::target::HostPort;
use crate::error::{Error, Result};
use crate::settings::require;

/// The settings of a manager that concern fetching, and its constants.
#[derive(Clone, Debug)]
pub(crate) struct FetchSettings {
    /// The time for the whole fetch.
    pub(super) timeout: Duration,
    /// The time for connecting to one host.
    pub(super) connect: Duration,
    /// The most redirects that are followed.
    pub(super) redirects: usize,
    /// Hosts that may be fetched from although their address is private, each as `host:port`.
    pub(super) allowed_hosts: Vec<String>,
}

impl FetchSettings {
    pub(crate) fn new(timeout: Duration, allowed_hosts: Vec<String>) -> Self {
        Self {
            timeout,
            connect: Duration::from_secs(10),
            redirects: 5,
            allowed_hosts,
        }
    }

    /// Checks the settings.
    pub(crate) fn check(&self) -> Result<()> {
        self.validate().map(|_| ())
    }

    /// Checks the settings, and returns the allowed hosts in the form in which they are compared.
    pub(super) fn validate(&self) -> Result<Vec<HostPort>> {
        require(
            !self.timeout.is_zero(),
            "fetch_timeout",
            "must be longer than zero",
        )?;
        self.allowed_hosts
            .iter()
            .zip(1..)
            .map(|(text, number)| {
                HostPort::parse(text).map_err(|problem| {
                    // Not quoted: it may be a URL, with a secret in it.
                    let problem = format!("number {number} is not a host:port: {problem}");
                    Error::setting("fetch_allowed_hosts", problem)
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
        let allowing = |hosts: &[&str]| {
            let hosts = hosts.iter().copied().map(str::to_owned).collect();
            FetchSettings::new(Duration::from_secs(1), hosts)
        };
        assert!(allowing(&[]).validate().unwrap().is_empty());
        let zero = FetchSettings::new(Duration::ZERO, Vec::new());
        assert_eq!(
            zero.validate().unwrap_err().to_string(),
            "setting fetch_timeout: must be longer than zero"
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
            let error = allowing(&[entry]).validate().unwrap_err();
            assert!(error.to_string().contains("host:port"), "{entry}: {error}");
        }
        let usable = allowing(&["Packages.Internal.:443", "[::1]:80", "10.0.0.1:1"]);
        assert_eq!(usable.validate().unwrap().len(), 3);
    }
}

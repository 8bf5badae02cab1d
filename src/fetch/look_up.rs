//! Resolves a host to the addresses that may be connected to. Which addresses are public is in `address`.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};

use super::address::is_public;
use super::target::{HostPort, ServerHost, Target};
use crate::error::FetchError;

/// Looks up a name. It may block for as long as the system's resolver takes.
pub(super) type LookUp = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Asks the system's resolver, which also reads `/etc/hosts`.
pub(super) fn ask_system(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok((name, port).to_socket_addrs()?.collect())
}

/// Returns the addresses of the target's host: at least one, and all of them public unless host and port
/// are allowed.
///
/// One private address refuses them all: a name that has both kinds is a trap or a mistake.
pub(super) fn addresses(
    target: &Target,
    allowed: &[HostPort],
    look_up: &LookUp,
) -> Result<Vec<SocketAddr>, FetchError> {
    let HostPort { host, port } = target.host_port();
    let found = match host {
        ServerHost::Address(address) => vec![SocketAddr::new(*address, *port)],
        ServerHost::Name(name) => look_up(name, *port)
            .and_then(|found| {
                if found.is_empty() {
                    return Err(io::Error::new(io::ErrorKind::NotFound, "it has no address"));
                }
                Ok(found)
            })
            .map_err(|source| FetchError::LookUp {
                host: target.name().to_owned(),
                source,
            })?,
    };
    let private = found.iter().find(|address| !is_public(address.ip()));
    match private {
        Some(address) if !allowed.contains(target.host_port()) => Err(FetchError::PrivateAddress {
            host: target.name().to_owned(),
            address: address.ip(),
        }),
        _ => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_matches;

    fn check(url: &str, allowed: &[&str], found: &[&str]) -> Result<Vec<SocketAddr>, FetchError> {
        let found: Vec<SocketAddr> = found.iter().map(|text| text.parse().unwrap()).collect();
        let allowed: Vec<HostPort> = allowed
            .iter()
            .map(|text| HostPort::parse(text).unwrap())
            .collect();
        addresses(&Target::parse(url).unwrap(), &allowed, &move |_, _| {
            Ok(found.clone())
        })
    }

    #[test]
    fn every_address_must_be_public() {
        let public = ["8.8.8.8:80", "[2606:4700::1111]:80"];
        assert_eq!(check("http://host/", &[], &public).unwrap().len(), 2);
        let error = check("http://host/", &[], &["8.8.8.8:80", "10.0.0.1:80"]).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("host is at 10.0.0.1, a private")
        );
        let error = check("http://host/", &[], &["[::ffff:7f00:1]:80"]).unwrap_err();
        assert_matches!(error, FetchError::PrivateAddress { .. });
        let error = check("http://host/", &[], &[]).unwrap_err();
        assert_matches!(error, FetchError::LookUp { .. });
    }

    #[test]
    fn an_address_in_the_url_is_checked_too() {
        for url in [
            "http://127.0.0.1/",
            "https://[::1]/",
            "http://169.254.169.254./x",
        ] {
            let error = check(url, &["127.0.0.1:8080", "[::1]:80"], &[]).unwrap_err();
            assert_matches!(error, FetchError::PrivateAddress { .. });
        }
    }

    #[test]
    fn an_allowed_place_is_host_and_port() {
        let local = ["127.0.0.1:80"];
        assert!(check("http://host/", &["HOST.:80"], &local).is_ok());
        assert!(check("http://host/", &["host:81", "other:80"], &local).is_err());
        // Not the address that an allowed name happens to have.
        assert!(check("http://127.0.0.1/", &["host:80"], &local).is_err());
        assert!(check("http://127.0.0.1:8080/", &["127.0.0.1:8080"], &[]).is_ok());
    }
}

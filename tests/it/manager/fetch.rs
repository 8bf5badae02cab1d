//! Packages by URL: that they are installed as any other, and that what goes wrong with the server is
//! told and leaves nothing. What servers can do wrong is in the unit tests of fetching.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;

use plugin_runner::{ErrorKind, ManagerSettings};

use super::*;

/// Serves one answer, once; then its thread ends.
pub(crate) fn serve(answer: Vec<u8>) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) > 0 {
            head.push(byte[0]);
        }
        // It may have seen enough.
        let _ = stream.write_all(&answer);
    });
    (address, thread)
}

pub(crate) fn ok(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

pub(crate) fn fetching_from(address: SocketAddr) -> ManagerSettings {
    settings()
        .fetch_timeout(LONG)
        .fetch_allowed_hosts([address.to_string()])
}

/// A manager that may fetch from this server.
fn allowing(address: SocketAddr) -> Managed {
    Managed::with("fetch", fetching_from(address))
}

#[test]
fn a_package_is_installed_and_updated_from_a_url() {
    let makes = Managed::new("makes");
    for version in ["1", "2"] {
        let package = makes.package(version, &[]);
        let (address, served) = serve(ok(&package));
        let managed = allowing(address);
        let source = PackageSource::url(format!("http://{address}/fire-bot.zip?key=secret"));
        let id = if version == "1" {
            managed.install(source).unwrap().id()
        } else {
            let id = managed.installed(managed.package("1", &[]));
            let updated = managed.update_package(id, source).unwrap();
            assert_eq!(updated.installation.id(), id);
            id
        };
        served.join().unwrap();
        let mut fetched = Vec::new();
        let mut reader = managed.manager.package(id).unwrap().reader();
        reader.read_to_end(&mut fetched).unwrap();
        assert_eq!(fetched, package);
        managed.activate(id, LONG).unwrap();
        assert_eq!(managed.answering_version(id), version);
        managed.expect_nothing_left_over();
    }
}

#[test]
fn a_fault_of_the_server_is_reported_and_leaves_nothing() {
    let package = Managed::new("makes").package("1", &[]);
    let mut short = ok(&package);
    short.truncate(short.len() - 1);
    let rows: [(&str, Vec<u8>, ErrorKind); 4] = [
        (
            "not found",
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
            ErrorKind::FetchRefused,
        ),
        ("cut off", short, ErrorKind::FetchFailed),
        (
            "into the cloud's metadata",
            b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest\r\n\r\n".to_vec(),
            ErrorKind::PrivateAddress,
        ),
        (
            "more than allowed",
            ok(&vec![0; 2 << 20]),
            ErrorKind::PackageTooLarge,
        ),
    ];
    for (what, answer, kind) in rows {
        let (address, served) = serve(answer);
        let limits = plugin_runner::package::PackageLimits::default().archive_size(1 << 20);
        let host = TestHost::with("fetch", |setup| {
            setup.configure(|builder| builder.package_limits(limits));
        });
        let managed = Managed::of(host, fetching_from(address));
        let source = PackageSource::url(format!("http://{address}/?key=secret"));
        let error = managed.install(source).unwrap_err();
        served.join().unwrap();
        let text = error.to_string();
        assert!(!text.contains("secret"), "{what}: {text}");
        assert_eq!(error.kind(), kind, "{what}: {text}");
        managed.expect_nothing_at_all();
    }
}

#[test]
fn an_update_from_a_url_with_another_digest_is_refused() {
    let makes = Managed::new("makes");
    let (address, served) = serve(ok(&makes.package("2", &[])));
    let managed = allowing(address);
    let id = managed.running(managed.package("1", &[]));
    let before = managed.get(id).unwrap();
    let url = format!("http://{address}/fire-bot.zip");
    let source = PackageSource::url(url).sha256("0".repeat(64));
    let error = managed.update_package(id, source).unwrap_err();
    served.join().unwrap();
    assert_eq!(error.kind(), ErrorKind::DigestMismatch);
    assert_eq!(managed.get(id).unwrap().record(), before.record());
    assert_eq!(managed.answering_version(id), "1");
    assert_eq!(managed.releases(id).len(), 1);
    managed.expect_nothing_left_over();
}

#[test]
fn a_private_address_is_refused_unless_it_is_allowed() {
    let managed = Managed::new("private");
    for url in [
        "http://127.0.0.1:1/",
        "http://localhost:1/",
        "http://[::1]:1/",
        "http://10.0.0.1/",
    ] {
        let error = managed.install(PackageSource::url(url)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PrivateAddress, "{url}");
    }
    managed.expect_nothing_at_all();
}

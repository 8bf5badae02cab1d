//! Where it may go: names, private addresses, redirects and proxies.

use std::io;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::server::{Server, write};
use super::{
    FetchSettings, cause, failure, fetch, fetch_request, fetcher, request, settings, with_names,
};
use crate::error::FetchError;
use crate::testing::assert_matches;

#[test]
fn a_name_is_looked_up_once_and_connected_to_there() {
    let server = Server::with("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let address = server.address;
    let asked = Arc::new(AtomicUsize::new(0));
    let place = format!("packages.test:{}", address.port());
    let settings = FetchSettings {
        allowed_hosts: vec![place.clone()],
        ..settings(&[])
    };
    let names = with_names(settings, {
        let asked = asked.clone();
        // A second answer would lead elsewhere.
        move |name, port| {
            assert_eq!((name, port), ("packages.test", address.port()));
            match asked.fetch_add(1, Ordering::SeqCst) {
                0 => Ok(vec![address]),
                _ => Ok(vec![([127, 0, 0, 1], 1).into()]),
            }
        }
    });
    let url = format!("http://Packages.TEST.:{}/", address.port());
    assert_eq!(fetch_request(&names, &request(&url)).unwrap(), b"ok");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert!(
        server.heads()[0]
            .to_ascii_lowercase()
            .contains(&format!("host: {place}\r\n"))
    );
}

#[test]
fn a_name_with_a_private_address_is_refused() {
    for private in [
        "10.1.2.3",
        "127.0.0.1",
        "169.254.169.254",
        "::1",
        "::ffff:10.0.0.1",
        "fd00::1",
    ] {
        let private = SocketAddr::new(private.parse().unwrap(), 443);
        let names = with_names(settings(&[]), move |_, port| {
            Ok(vec![([8, 8, 8, 8], port).into(), private])
        });
        let refused = failure(fetch_request(
            &names,
            &request("https://example.org/a?secret"),
        ));
        assert_eq!(
            refused.to_string(),
            format!(
                "example.org is at {}, a private or local address; if it is meant, add its host:port to \
                 the hosts that may be fetched from (`fetch_allowed_hosts`)",
                private.ip()
            )
        );
        assert!(!refused.is_retryable());
    }
    let names = with_names(settings(&[]), |_, _| Err(io::Error::other("no such name")));
    let unknown = failure(fetch_request(&names, &request("https://example.org/")));
    assert_matches!(cause(&unknown), FetchError::LookUp { .. });
    assert!(unknown.to_string().contains("no such name"), "{unknown}");
}

/// Runs itself once more, as a process with that environment.
#[test]
fn a_proxy_of_the_environment_is_not_asked() {
    const PLACE: &str = "PLUGIN_RUNNER_TEST_PLACE";
    if let Ok(place) = std::env::var(PLACE) {
        let settings = FetchSettings {
            allowed_hosts: vec![place.clone()],
            ..settings(&[])
        };
        let url = format!("http://{place}/");
        let fetched = fetch_request(&fetcher(settings), &request(&url));
        assert_eq!(fetched.unwrap(), b"direct");
        return;
    }
    let server = Server::with("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\ndirect");
    let proxy = Server::with("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nproxy");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "fetch::tests::hosts::a_proxy_of_the_environment_is_not_asked",
        ])
        .env(PLACE, server.host_port());
    for name in ["http_proxy", "https_proxy", "all_proxy"] {
        command
            .env(name, proxy.url(""))
            .env(name.to_uppercase(), proxy.url(""));
    }
    command.env_remove("no_proxy").env_remove("NO_PROXY");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
    assert!(proxy.heads().is_empty(), "the proxy was asked");
    assert_eq!(server.heads().len(), 1);
}

/// Redirects from /n to /n-1, and gives a package at /0.
fn chain(status: u16) -> Server {
    Server::start(move |path, stream| {
        let answer = match path[1..].parse().unwrap() {
            0 => "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nend".to_owned(),
            left @ 1_u32.. => format!(
                "HTTP/1.1 {status} x\r\nLocation: {}\r\nContent-Length: 2\r\n\r\nno",
                left - 1
            ),
        };
        write(stream, answer.as_bytes());
    })
}

#[test]
fn five_redirects_are_followed_and_six_are_not() {
    for status in [301, 302, 303, 307, 308] {
        assert_eq!(fetch(&chain(status), "/1").unwrap(), b"end");
    }
    let server = chain(302);
    assert_eq!(fetch(&server, "/5").unwrap(), b"end");
    let failure = failure(fetch(&server, "/6"));
    assert_matches!(
        cause(&failure),
        FetchError::TooManyRedirects { limit: 5, .. }
    );
    assert_eq!(server.heads().len(), 6 + 6);

    let none = fetcher(FetchSettings {
        redirects: 0,
        ..settings(&[&server])
    });
    assert!(fetch_request(&none, &request(&server.url("/0"))).is_ok());
    assert!(fetch_request(&none, &request(&server.url("/1"))).is_err());
}

#[test]
fn a_redirect_to_where_nobody_may_go_is_refused() {
    let forbidden = Server::raw(|_| {});
    let port = forbidden.address.port();
    let place = &forbidden.host_port();
    for (location, expected) in [
        ("http://10.0.0.1/", "10.0.0.1 is at 10.0.0.1, a private"),
        (
            "http://169.254.169.254/latest/meta-data/",
            "169.254.169.254 is at",
        ),
        (
            &format!("http://127.0.0.1:{port}/"),
            &format!("{place} is at 127.0.0.1"),
        ),
        (
            &format!("http://localhost:{port}/"),
            &format!("localhost:{port} is at 127.0.0.1"),
        ),
        (
            &format!("//127.0.0.1:{port}"),
            &format!("{place} is at 127.0.0.1"),
        ),
        (
            &format!("http://[::ffff:127.0.0.1]:{port}/"),
            "[::ffff:127.0.0.1]:",
        ),
        (
            &format!("http://0x7f.1:{port}/"),
            "redirects, and the URL cannot be used: its host looks like",
        ),
        (
            &format!("http://2130706433:{port}/"),
            "redirects, and the URL cannot be used: its host looks like",
        ),
        (
            "file:///etc/passwd",
            "redirects, and the URL's scheme is \"file\"",
        ),
        (
            "gopher://example.org/",
            "redirects, and the URL's scheme is \"gopher\"",
        ),
        (
            "http://user:secret@example.org/",
            "redirects, and the URL of example.org has a user name",
        ),
        ("http:///", "redirects, and the URL names no host"),
    ] {
        let redirecting = Server::with(format!("HTTP/1.1 302 x\r\nLocation: {location}\r\n\r\n"));
        let names = with_names(settings(&[&redirecting]), |_, port| {
            Ok(vec![([127, 0, 0, 1], port).into()])
        });
        let failure = failure(fetch_request(&names, &request(&redirecting.url("/"))));
        let text = failure.to_string();
        assert!(text.contains(expected), "{location}: {text}");
        assert!(!text.contains("secret"), "{text}");
    }
    assert!(forbidden.heads().is_empty(), "somebody connected");

    let server = Server::with("HTTP/1.1 302 x\r\n\r\n");
    let failure = failure(fetch(&server, "/"));
    assert!(failure.to_string().contains("no Location"), "{failure}");
}

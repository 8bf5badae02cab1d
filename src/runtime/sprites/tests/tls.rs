//! TLS: certificates from an authority of the test's own, good and bad.

use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::sync::Arc;

use super::certificate::{Authority, Certificate};
use super::exec::{echo, upgrade, write_and_read_back};
use super::server::{Server, Then, json, kept, write};
use super::{Setup, problem};
use crate::error::SpritesProblem;
use crate::testing::{LONG, assert_matches};

fn config(certificate: Certificate) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certificate.key));
    let chain = vec![CertificateDer::from(certificate.der)];
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap()
}

fn secure(certificate: Certificate) -> Server {
    Server::secure(config(certificate), |_, seen, peer| {
        if seen.target.contains("/exec") {
            return upgrade(seen, peer, echo);
        }
        write(peer, kept(&json(200, r#"{"name":"pr-a"}"#)).as_bytes());
        Then::Keep
    })
}

fn setup(server: &Server, authority: &Authority) -> Setup {
    let roots = vec![CertificateDer::from(authority.der())];
    Setup::at(format!("https://localhost:{}", server.port()), roots)
}

#[test]
fn requests_and_sockets_go_over_tls() {
    let authority = Authority::new("test root");
    let server = secure(authority.issue("localhost", "20991231235959Z"));
    let setup = setup(&server, &authority);
    for _ in 0..3 {
        setup.client.sprite("pr-a", setup.long()).unwrap();
    }
    assert_eq!(server.connections(), 1, "the connection was not used again");
    drop(setup);
}

#[test]
fn both_halves_of_a_socket_work_over_tls() {
    let authority = Authority::new("test root");
    let server = secure(authority.issue("localhost", "20991231235959Z"));
    let setup = setup(&server, &authority);
    write_and_read_back(&setup, 4 * 1024 * 1024);
}

#[test]
fn a_certificate_that_does_not_hold_is_refused_each_with_its_error() {
    let authority = Authority::new("test root");
    let other = Authority::new("other root");
    for (certificate, text) in [
        (
            authority.issue("example.org", "20991231235959Z"),
            "not valid for",
        ),
        (authority.issue("localhost", "20200101000000Z"), "expired"),
        (other.issue("localhost", "20991231235959Z"), "UnknownIssuer"),
        (Certificate::self_signed("localhost"), "UnknownIssuer"),
    ] {
        let server = secure(certificate);
        let setup = setup(&server, &authority);
        for problem in [
            problem(setup.client.sprite("pr-a", setup.long())),
            problem(setup.client.attach("s", "7", false, setup.long()).map(drop)),
        ] {
            assert!(problem.to_string().contains(text), "{text}: {problem}");
            assert_matches!(problem, SpritesProblem::Insecure(_));
        }
        assert_eq!(server.seen().len(), 0, "the token was sent");
        assert_eq!(server.connections(), 2, "it was tried again");
    }
}

#[test]
fn well_known_authorities_are_trusted_only_if_none_is_named() {
    let authority = Authority::new("test root");
    let server = secure(authority.issue("localhost", "20991231235959Z"));
    let url = format!("https://localhost:{}", server.port());
    let setup = Setup::at(url, Vec::new());
    let unknown = problem(setup.client.sprite("pr-a", setup.long()));
    assert_matches!(unknown, SpritesProblem::Insecure(_));
}

#[test]
fn a_server_that_speaks_no_tls_is_refused() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        write(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n");
        super::server::wait_for_end(&mut stream);
    });
    let setup = Setup::at(format!("https://127.0.0.1:{port}"), Vec::new());
    let problem = problem(setup.client.sprite("pr-a", setup.long()));
    assert_matches!(problem, SpritesProblem::Insecure(_));
    thread.join().unwrap();
}

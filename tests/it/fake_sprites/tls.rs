//! Certificates right and wrong, as an HTTP client with the fake's root sees them.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tungstenite::Message;
use ureq::Agent;
use ureq::tls::{Certificate as Trusted, RootCerts, TlsConfig};

use crate::sprites::{Certificate, Fake, Root};
use crate::support::http::{Answer, Request, connect};
use crate::support::peer::Peer;

use super::script;

fn status(fake: &Fake, root: &Root) -> Result<u16, ureq::Error> {
    let roots = [Trusted::from_der(root.der()).to_owned()];
    let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&roots));
    let agent: Agent = Agent::config_builder()
        .tls_config(tls.build())
        .timeout_global(Some(Duration::from_secs(30)))
        .build()
        .into();
    let bearer = format!("Bearer {}", fake.token());
    let request = agent.get(format!("{}/v1/sprites", fake.url()));
    let response = request.header("Authorization", bearer).call()?;
    Ok(response.status().as_u16())
}

#[test]
fn only_the_right_certificate_is_taken() {
    let (fake, root) = Fake::over_tls(Certificate::Right);
    assert_eq!(status(&fake, &root).unwrap(), 200);
    let (other, other_root) = Fake::over_tls(Certificate::Right);
    let unknown = status(&fake, &other_root).unwrap_err().to_string();
    assert!(unknown.contains("UnknownIssuer"), "{unknown}");
    other.finish();
    fake.finish();
    for (certificate, word) in [
        (Certificate::OtherHost, "not valid for name"),
        (Certificate::Expired, "expired"),
        (Certificate::SelfSigned, "UnknownIssuer"),
    ] {
        let (fake, root) = Fake::over_tls(certificate);
        let refused = status(&fake, &root).unwrap_err().to_string();
        assert!(refused.contains(word), "{certificate:?}: {refused}");
        assert_eq!(fake.calls().count("*"), 0);
        fake.finish();
    }
}

#[test]
fn sockets_work_over_tls() {
    let (fake, root) = Fake::over_tls(Certificate::Right);
    let mut roots = RootCertStore::empty();
    let trusted = CertificateDer::from(root.der().to_vec());
    roots.add(trusted).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots);
    let config = Arc::new(config.with_no_client_auth());
    let send = |request: Request, body: &str| {
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(config.clone(), name).unwrap();
        let mut stream = StreamOwned::new(connection, connect(fake.address()));
        let bearer = format!("Bearer {}", fake.token());
        let request = request.with("Authorization", &bearer);
        let text = request.to_text() + body;
        stream.write_all(text.as_bytes()).unwrap();
        stream
    };
    let body = r#"{"name": "one"}"#;
    let create = Request::get("/v1/sprites").method("POST");
    let create = create.with("Content-Length", &body.len().to_string());
    let created = send(create, body);
    crate::support::wait_until("a sprite", || fake.sprites() == ["one"]);
    drop(created);
    let request = Request::upgrade(&script("while read -r line; do echo $line; done"));
    let mut peer = Peer::upgraded(Answer::read(send(request, "")));
    assert_eq!(peer.receive()["type"], "session_info");
    for round in 0..100 {
        let line = format!("\0{round}\n").into_bytes();
        peer.socket.send(Message::binary(line)).unwrap();
        let echo = peer.socket.read().unwrap().into_data();
        assert_eq!(echo, format!("\x01{round}\n"));
    }
    peer.socket.send(Message::binary(b"\x04".to_vec())).unwrap();
    assert_eq!(peer.socket.read().unwrap().into_data(), b"\x03\0"[..]);
    fake.finish();
}

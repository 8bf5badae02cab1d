//! TLS for the fake: a root that is made when a test runs, and certificates right and wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use data_encoding::BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// What is wrong with a server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Certificate {
    /// Nothing: it is for `localhost`, and the root has signed it.
    Right,
    /// It is for another host.
    OtherHost,
    Expired,
    /// It is signed by itself, the root has nothing to do with it.
    SelfSigned,
}

/// A root certificate.
#[derive(Clone, Debug)]
pub(crate) struct Root(Vec<u8>);

impl Root {
    pub(crate) fn der(&self) -> &[u8] {
        &self.0
    }

    /// As in files.
    pub(crate) fn pem(&self) -> String {
        let text = BASE64.encode(&self.0);
        let lines: Vec<_> = text
            .as_bytes()
            .chunks(64)
            .map(String::from_utf8_lossy)
            .collect();
        format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            lines.join("\n")
        )
    }
}

/// A new root, and the configuration of a server with a certificate of this kind.
pub(super) fn make(certificate: Certificate) -> (Root, Arc<ServerConfig>) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let root_key = KeyPair::generate().expect("a key");
    let mut root = CertificateParams::new(Vec::new()).expect("no names");
    // Of its own, or another root would be taken for the one that has signed.
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    root.distinguished_name = named(&format!("root {count}"));
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_certificate = root.self_signed(&root_key).expect("a certificate");
    let issuer = Issuer::new(root, root_key);

    let key = KeyPair::generate().expect("a key");
    let name = match certificate {
        Certificate::OtherHost => "elsewhere.example",
        _ => "localhost",
    };
    let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    params.distinguished_name = named(name);
    if certificate == Certificate::Expired {
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
    }
    let signed = match certificate {
        Certificate::SelfSigned => params.self_signed(&key),
        _ => params.signed_by(&key, &issuer),
    };
    let chain: Vec<CertificateDer<'static>> = vec![signed.expect("a certificate").der().clone()];
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a key and its certificate");
    (Root(root_certificate.der().to_vec()), Arc::new(config))
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

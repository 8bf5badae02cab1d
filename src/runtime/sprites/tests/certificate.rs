//! Certificates for the tests, made while they run: just enough of X.509, in DER.

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};

/// A certificate and its private key in PKCS#8.
pub(super) struct Certificate {
    pub(super) der: Vec<u8>,
    pub(super) key: Vec<u8>,
}

/// An authority whose certificate is signed by itself.
pub(super) struct Authority {
    name: &'static str,
    certificate: Certificate,
}

/// `ecdsa-with-SHA256`, `id-ecPublicKey`, `prime256v1`, `commonName`, `subjectAltName`, `basicConstraints`.
const SIGNATURE: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
const PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
const CURVE: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const COMMON_NAME: &[u8] = &[0x55, 4, 3];
const ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];

const FAR: &str = "20991231235959Z";

impl Authority {
    pub(super) fn new(name: &'static str) -> Self {
        let key = new_key();
        // cA is true.
        let constraints = sequence(&[der(0x01, &[0xff])]);
        let extension = extension(CONSTRAINTS, &constraints);
        let der = certificate(name, &key, name, &key, FAR, &extension);
        let certificate = Certificate { der, key };
        Self { name, certificate }
    }

    pub(super) fn der(&self) -> Vec<u8> {
        self.certificate.der.clone()
    }

    /// Makes a certificate for a host, which ends at this time.
    pub(super) fn issue(&self, host: &str, end: &str) -> Certificate {
        let key = new_key();
        let der = certificate(
            self.name,
            &self.certificate.key,
            host,
            &key,
            end,
            &for_host(host),
        );
        Certificate { der, key }
    }
}

impl Certificate {
    pub(super) fn self_signed(host: &str) -> Self {
        let key = new_key();
        let der = certificate(host, &key, host, &key, FAR, &for_host(host));
        Self { der, key }
    }
}

fn new_key() -> Vec<u8> {
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random);
    key.unwrap().as_ref().to_vec()
}

fn read_key(pkcs8: &[u8]) -> EcdsaKeyPair {
    let random = SystemRandom::new();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8, &random).unwrap()
}

fn for_host(host: &str) -> Vec<u8> {
    extension(ALTERNATIVE_NAME, &sequence(&[der(0x82, host.as_bytes())]))
}

fn extension(id: &[u8], value: &[u8]) -> Vec<u8> {
    sequence(&[der(0x06, id), der(0x04, value)])
}

fn certificate(
    issuer: &str,
    issuer_key: &[u8],
    subject: &str,
    subject_key: &[u8],
    end: &str,
    extension: &[u8],
) -> Vec<u8> {
    let algorithm = sequence(&[der(0x06, SIGNATURE)]);
    let public = read_key(subject_key).public_key().as_ref().to_vec();
    let to_be_signed = sequence(&[
        // Version 3.
        der(0xa0, &der(0x02, &[2])),
        der(0x02, &[1]),
        algorithm.clone(),
        name(issuer),
        sequence(&[der(0x18, b"20200101000000Z"), der(0x18, end.as_bytes())]),
        name(subject),
        sequence(&[
            sequence(&[der(0x06, PUBLIC_KEY), der(0x06, CURVE)]),
            bits(&public),
        ]),
        der(0xa3, &sequence(&[extension.to_vec()])),
    ]);
    let random = SystemRandom::new();
    let signature = read_key(issuer_key).sign(&random, &to_be_signed).unwrap();
    sequence(&[to_be_signed, algorithm, bits(signature.as_ref())])
}

fn name(common: &str) -> Vec<u8> {
    let attribute = sequence(&[der(0x06, COMMON_NAME), der(0x0c, common.as_bytes())]);
    sequence(&[der(0x31, &attribute)])
}

fn bits(bytes: &[u8]) -> Vec<u8> {
    der(0x03, &[&[0], bytes].concat())
}

fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    der(0x30, &parts.concat())
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut encoded = vec![tag];
    match u8::try_from(length) {
        Ok(short @ ..0x80) => encoded.push(short),
        Ok(long) => encoded.extend([0x81, long]),
        Err(_) => {
            encoded.push(0x82);
            encoded.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
    }
    encoded.extend_from_slice(content);
    encoded
}

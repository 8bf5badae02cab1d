//! Uploading, downloading and replacing the package of a plugin.

use std::io::Write as _;
use std::net::Shutdown;
use std::sync::Arc;

use plugin_runner::admin::AdminSettings;
use plugin_runner::package::PackageLimits;
use plugin_runner::protocol::Transport;
use plugin_runner::store::{PluginKind, Source};
use plugin_runner::{InstallationId, ReportedState};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Api, TOKEN};
use crate::manager::store::FailingStore;
use crate::manager::{Managed, settings};
use crate::support::host::TestHost;
use crate::support::http::{Answer, connect};
use crate::support::plugin::manifest;

impl Api {
    /// Sends the head of an upload, and this beginning of the body; returns the whole answer.
    fn upload_part(&self, headers: &str, begin: &[u8]) -> Answer {
        let stream = connect(self.server.address());
        let head = format!(
            "POST /api/plugins HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\
             Content-Type: application/zip\r\nConnection: close\r\n{headers}\r\n\r\n"
        );
        (&stream).write_all(head.as_bytes()).unwrap();
        // The server may have ended the connection by then.
        let _ = (&stream).write_all(begin);
        let _ = stream.shutdown(Shutdown::Write);
        Answer::read(stream)
    }
}

#[track_caller]
fn kind(answer: &Answer) -> String {
    let problem: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(
        answer.header("Content-Type"),
        Some("application/problem+json")
    );
    assert_eq!(problem["status"], answer.status);
    problem["kind"].as_str().unwrap().to_owned()
}

fn sha256(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
}

#[test]
fn a_package_is_downloaded_as_it_was_uploaded() {
    let api = Api::new("admin-download");
    let zip = api
        .managed
        .package_of("fire-bot", "1", Transport::WebSocket, &[]);
    let plugin = api.managed.installed(zip.clone());
    let path = format!("/api/plugins/{plugin}/package");
    let length = zip.len().to_string();
    for (method, body) in [("GET", &zip[..]), ("HEAD", &[])] {
        let answer = api.send(method, &path, &[], b"");
        assert_eq!(answer.status, 200, "{method}");
        assert_eq!(answer.response.body(), body, "{method}");
        assert_eq!(answer.header("Content-Type"), Some("application/zip"));
        assert_eq!(answer.header("Content-Length"), Some(&*length));
        assert_eq!(
            answer.header("Content-Disposition"),
            Some("attachment; filename=fire-bot.zip")
        );
    }
    let (outside, _) = api.managed.install_external(manifest("outside")).unwrap();
    let path = format!("/api/plugins/{}/package", outside.id());
    assert_eq!(api.get(&path).problem(400).0, "unsupported");
    let unknown = format!("/api/plugins/{}/package", InstallationId::generate());
    assert_eq!(api.get(&unknown).problem(404).0, "not_installed");
    api.end();
}

#[test]
fn a_package_that_is_missing_is_not_found() {
    let store = Arc::new(FailingStore::default());
    let managed = Managed::over(store.clone(), "admin-missing", settings());
    let plugin = managed.installed(managed.package("1", &[]));
    let mut record = managed.get(plugin).unwrap().record().clone();
    let (sha256, size) = ("0".repeat(64), 1);
    record.kind = PluginKind::Supervised(Source::Stored { sha256, size });
    store.damage(record, "its source is another");
    let api = Api::of(managed, AdminSettings::default());
    let (kind, detail) = api
        .get(&format!("/api/plugins/{plugin}/package"))
        .problem(404);
    assert_eq!(kind, "record_damaged");
    assert!(detail.contains("missing"), "{detail}");
    api.end();
}

#[test]
fn a_package_is_replaced_by_another_version() {
    let api = Api::new("admin-update");
    let plugin = api.managed.running(api.managed.package("1", &[]));
    let path = format!("/api/plugins/{plugin}/package");
    let second = api.managed.package("2", &[]);
    let updated = api.zip("PATCH", &path, &second).value(200);
    assert_eq!(updated["version"], "2");
    assert_eq!(updated["status"]["active_state"], "active");
    assert_eq!(updated, api.shown(plugin));
    assert_eq!(api.managed.answering_version(plugin), "2");
    let rows = [
        (
            api.managed
                .package_of("other", "3", Transport::WebSocket, &[]),
            409,
            "other_plugin",
        ),
        (b"PK".to_vec(), 400, "invalid_package"),
        (Vec::new(), 400, "invalid_package"),
        (
            api.managed.package("3", &["exit-at", "start", "42"]),
            502,
            "rolled_back",
        ),
    ];
    for (zip, status, expected) in rows {
        let (kind, detail) = api.zip("PATCH", &path, &zip).problem(status);
        assert_eq!(kind, expected, "{detail}");
        let session = api.managed.session(plugin);
        session
            .wait_for(ReportedState::Active, crate::support::LONG)
            .unwrap();
        assert_eq!(api.managed.answering_version(plugin), "2");
    }
    let answer = api.json("PATCH", &path, &json!({"url": "https://a.example/"}));
    assert_eq!(answer.problem(415).0, "unsupported_media_type");
    let (outside, _) = api.managed.install_external(manifest("outside")).unwrap();
    let outside = format!("/api/plugins/{}/package", outside.id());
    assert_eq!(
        api.zip("PATCH", &outside, &second).problem(400).0,
        "unsupported"
    );
    let unknown = format!("/api/plugins/{}/package", InstallationId::generate());
    assert_eq!(
        api.zip("PATCH", &unknown, &second).problem(404).0,
        "not_installed"
    );
    api.end();
}

#[test]
fn a_pinned_package_is_the_one_or_nothing_changes() {
    let api = Api::new("admin-pinned");
    let (first, second) = (api.managed.package("1", &[]), api.managed.package("2", &[]));
    let pinned = |path: &str, pin: &str| format!("{path}?sha256={pin}");
    let wrong = [
        (sha256(&second), "digest_mismatch"),
        (String::new(), "invalid_setting"),
        ("0f".to_owned(), "invalid_setting"),
    ];
    for (pin, expected) in &wrong {
        let answer = api.zip("POST", &pinned("/api/plugins", pin), &first);
        assert_eq!(answer.problem(400).0, *expected);
    }
    // A pin that would be ignored is none.
    let pin = sha256(&first);
    for query in [
        format!("sha265={pin}"),
        format!("sha256={pin}&sha256={pin}"),
        "a".to_owned(),
    ] {
        let answer = api.zip("POST", &format!("/api/plugins?{query}"), &first);
        let (kind, detail) = answer.problem(400);
        assert_eq!(kind, "invalid_input");
        assert!(detail.contains("sha256"), "{detail}");
    }
    api.managed.expect_nothing_at_all();
    let pin = sha256(&first).to_uppercase();
    let added = api
        .zip("POST", &pinned("/api/plugins", &pin), &first)
        .value(200);
    let path = format!("/api/plugins/{}/package", added["id"].as_str().unwrap());
    for (pin, expected) in [(sha256(&first), "digest_mismatch"), wrong[2].clone()] {
        let answer = api.zip("PATCH", &pinned(&path, &pin), &second);
        assert_eq!(answer.problem(400).0, expected);
        assert_eq!(api.get(&path).response.body(), &first);
    }
    let updated = api.zip("PATCH", &pinned(&path, &sha256(&second)), &second);
    assert_eq!(updated.value(200)["version"], "2");
    api.end();
}

#[test]
fn an_upload_over_the_limit_is_refused_before_it_is_sent() {
    let api = Api::new("admin-announced");
    let announced = format!(
        "Content-Length: {}\r\nExpect: 100-continue",
        60 * 1024 * 1024
    );
    let answer = api.upload_part(&announced, b"");
    assert_eq!((answer.status, &*kind(&answer)), (413, "package_too_large"));
    assert!(answer.body.contains("52428800"), "{}", answer.body);
    api.managed.expect_nothing_at_all();
    api.end();
}

#[test]
fn an_upload_that_is_not_whole_leaves_nothing() {
    let limits = PackageLimits::default().archive_size(100_000);
    let host = TestHost::with("admin-part", |setup| {
        setup.configure(|builder| builder.package_limits(limits));
    });
    let api = Api::of(Managed::of(host, settings()), AdminSettings::default());
    let chunk = [b"10000\r\n".to_vec(), vec![7; 0x10000], b"\r\n".to_vec()].concat();
    let chunks = [&chunk[..], &chunk].concat();
    for (what, headers, body, status, expected) in [
        (
            "over the limit",
            "Transfer-Encoding: chunked",
            &chunks,
            413,
            "package_too_large",
        ),
        (
            "cut off",
            "Transfer-Encoding: chunked",
            &chunk,
            400,
            "invalid_body",
        ),
        (
            "cut off",
            "Content-Length: 99999",
            &chunk,
            400,
            "invalid_body",
        ),
        (
            "malformed",
            "Transfer-Encoding: chunked",
            &vec![b'z'; 5000],
            400,
            "invalid_body",
        ),
    ] {
        let answer = api.upload_part(headers, body);
        assert_eq!(answer.status, status, "{what}: {}", answer.body);
        assert_eq!(kind(&answer), expected, "{what}");
        api.managed.expect_nothing_at_all();
    }
    api.end();
}

//! Handshakes in a plugin's name that are refused: counted by reason, and told where the plugin's
//! people look.

use parking_lot::Mutex;
use plugin_runner::auth::ExternalToken;
use plugin_runner::duplex::memory;
use plugin_runner::plugin_log::LogStream;
use plugin_runner::store::{PluginKind, Record};
use plugin_runner::{InstallationId, ReportedState, Session};

use crate::support::LONG;
use crate::support::alone::run_alone;
use crate::support::host::{TestHost, active};
use crate::support::http::{FORGED, Request};
use crate::support::peer::Peer;
use crate::support::plugin::{manifest, printed_url, target, url_printer};

/// Knocks, and must be refused with this status.
#[track_caller]
fn refused(host: &TestHost, target: &str, status: u16) {
    let answer = Request::upgrade(target).send(host.address());
    assert_eq!(answer.status, status, "{}", answer.body);
    if status == 401 {
        // Nobody outside learns which tokens were good once.
        assert_eq!(answer.body, "unauthenticated\n");
    }
}

/// The host's line about a refusal with these words, once it is in the plugin's output.
#[track_caller]
fn told(host: &TestHost, session: &Session, words: &str) -> String {
    host.output.wait_for(words, |line| {
        let is_it = line.plugin == session.id()
            && line.stream == LogStream::Host
            && line.text.contains(words);
        is_it.then(|| line.text.clone())
    })
}

/// A path and query in a supervised plugin's name, with a token that it never had.
fn forged(id: InstallationId) -> String {
    format!("/rpc?plugin_id={id}&token={FORGED}")
}

#[test]
fn refusals_are_told_in_the_plugins_log_once_for_each_reason() {
    let host = TestHost::new("refusals");
    let session = host.install(url_printer(&host, "inside"));
    let supervised = session.supervised().unwrap();
    supervised.start().unwrap();
    let first = target(&printed_url(&host, &session, 0));
    let peer = Peer::connect(host.address(), &first);
    active(&session);
    for _ in 0..3 {
        refused(&host, &first, 401);
    }
    let line = told(&host, &session, "spent");
    assert!(line.starts_with("[plugin-runner] a connection from 127.0.0.1:"));
    assert!(
        line.ends_with(" was refused with 401: its token is spent or was rotated"),
        "{line}"
    );
    refused(&host, &forged(session.id()), 401);
    let line = told(&host, &session, "its token is wrong");
    assert!(line.contains(" was refused with 401: "), "{line}");
    drop(peer);
    session.wait_for(ReportedState::Connecting, LONG).unwrap();

    // The next run's token, and with a connection in its way that the embedder made.
    supervised.stop(LONG).unwrap();
    supervised.start().unwrap();
    let second = target(&printed_url(&host, &session, 1));
    session.wait_for(ReportedState::Connecting, LONG).unwrap();
    refused(&host, &first, 401);
    let no_upgrade = Request::upgrade(&second).without("Upgrade");
    assert_eq!(no_upgrade.send(host.address()).status, 426);
    let line = told(&host, &session, "426");
    assert!(line.contains("a WebSocket handshake is expected"), "{line}");
    let (ours, _theirs) = memory::pair(16);
    host.connect(session.id(), ours, "").unwrap();
    refused(&host, &second, 503);
    let line = told(&host, &session, "503");
    assert!(
        line.ends_with("503: the plugin is already connected"),
        "{line}"
    );

    let counters = session.counters();
    assert_eq!(counters.refused_spent_token, 4, "{counters:?}");
    assert_eq!(counters.refused_wrong_token, 1, "{counters:?}");
    assert_eq!(counters.refused_malformed, 1, "{counters:?}");
    assert_eq!(counters.refused_already_connected, 1, "{counters:?}");
    // Each reason once in a minute, and the file has what the tap heard.
    let texts = host.output.texts(session.id());
    let lines = texts.iter().filter(|text| text.contains("was refused"));
    assert_eq!(lines.count(), 4, "{texts:#?}");
    let log = host.installation_folder(&session).join("logs/output.log");
    let log = std::fs::read_to_string(log).unwrap();
    assert_eq!(log.matches("was refused").count(), 4, "{log}");
}

#[test]
fn refusals_of_an_external_plugin_are_told_in_the_hosts_log() {
    run_alone("refusals::alone::an_external_plugins_refusals_are_warned_of");
}

/// Tests that take the process's logger, so that they need a process of their own.
mod alone {
    use super::*;

    /// A logger that keeps what is warned of.
    struct Warnings(Mutex<Vec<String>>);

    impl log::Log for Warnings {
        fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
            metadata.level() <= log::Level::Warn
        }

        fn log(&self, record: &log::Record<'_>) {
            if self.enabled(record.metadata()) {
                self.0.lock().push(record.args().to_string());
            }
        }

        fn flush(&self) {}
    }

    #[test]
    #[ignore = "takes the process's logger; run by another test, in a process of its own"]
    fn an_external_plugins_refusals_are_warned_of() {
        static WARNINGS: Warnings = Warnings(Mutex::new(Vec::new()));
        log::set_logger(&WARNINGS).unwrap();
        log::set_max_level(log::LevelFilter::Warn);

        let host = TestHost::new("refusals-external");
        let record = Record::external(manifest("outside")).unwrap();
        let old = record.external_token().unwrap().clone();
        let session = host.install(record.clone());
        let id = session.id();
        let with = |token: &str| format!("/rpc?token={token}");
        let peer = Peer::connect(host.address(), &with(old.expose()));
        active(&session);
        for _ in 0..2 {
            refused(&host, &with(old.expose()), 503);
        }
        drop(peer);
        session.wait_for(ReportedState::Connecting, LONG).unwrap();
        // Who replaces it in the store need not tell the host.
        let new = ExternalToken::generate().unwrap();
        let mut changed = record;
        changed.kind = PluginKind::external(new.clone());
        host.store().put(changed).unwrap();
        for _ in 0..3 {
            refused(&host, &with(old.expose()), 401);
        }
        refused(
            &host,
            &format!("{}&plugin_id={id}", with(old.expose())),
            401,
        );
        let stranger = ExternalToken::generate().unwrap();
        refused(&host, &with(stranger.expose()), 401);
        refused(
            &host,
            &format!("{}&plugin_id={id}", with(stranger.expose())),
            401,
        );
        let other = InstallationId::generate();
        let new = with(new.expose());
        refused(&host, &format!("{new}&plugin_id={other}"), 401);
        session
            .set_active_state(plugin_runner::ActiveState::Inactive)
            .unwrap();
        refused(&host, &new, 503);

        let counters = session.counters();
        assert_eq!(counters.refused_already_connected, 2, "{counters:?}");
        assert_eq!(counters.refused_spent_token, 4, "{counters:?}");
        assert_eq!(counters.refused_wrong_token, 2, "{counters:?}");
        assert_eq!(counters.refused_not_wanted, 1, "{counters:?}");
        // Their threads tell after they have answered.
        drop(host);
        let warnings = WARNINGS.0.lock();
        let told: Vec<_> = warnings
            .iter()
            .filter_map(|line| line.strip_prefix("plugin outside: a connection from 127.0.0.1:"))
            .map(|line| line.split_once(" was refused with ").unwrap().1)
            .collect();
        assert_eq!(
            told,
            [
                "503: the plugin is already connected",
                "401: its token is spent or was rotated",
                "401: its token is wrong, or another plugin's",
                "503: the plugin is not wanted now; it is inactive",
            ]
        );
    }
}

//! Plugins with variables of their own: those that run, fail in every way, are updated and removed.

use std::time::Duration;

use plugin_runner::store::Overrides;

use super::*;
use crate::support::plugin::TRANSPORTS;

pub(super) fn secretive() -> Overrides {
    Overrides::default().environment([("API_PASSWORD", VARIABLE)])
}

impl Watched {
    /// A plugin that runs this script, with a secret in its environment.
    #[track_caller]
    pub(super) fn shell(&self, id: &str, script: &str) -> InstallationId {
        let manifest = Manifest {
            command: "/bin/sh".to_owned(),
            args: vec!["-c".to_owned(), script.to_owned()],
            events_consumed: vec!["happened".to_owned()],
            ..manifest(id)
        };
        self.keeping_secrets(self.package_with(&manifest, &[]))
    }

    #[track_caller]
    fn keeping_secrets(&self, package: Vec<u8>) -> InstallationId {
        let evidence = &self.evidence;
        let source = PackageSource::bytes(package).added_by("Ada");
        evidence.debug(&source);
        let installed = self.install(source).unwrap();
        evidence.both(&installed);
        let overrides = secretive();
        evidence.debug(&overrides);
        evidence.both(&self.set_overrides(installed.id(), overrides).unwrap());
        installed.id()
    }
}

pub(super) fn run(evidence: &Arc<Evidence>) {
    for transport in TRANSPORTS {
        lives(evidence, transport);
    }
    fails(evidence);
}

/// Plugins to which all goes well, or that are put back.
fn lives(evidence: &Arc<Evidence>, transport: Transport) {
    let watched = Watched::new(evidence, settings());
    let package = |version, words: &[&str]| watched.package_of("lives", version, transport, words);
    let id = watched.keeping_secrets(package("1", &[]));
    evidence.both(&watched.activate(id, LONG).unwrap());
    assert_eq!(watched.answering_version(id), "1");
    evidence.both(&watched.restart(id, LONG).unwrap());
    let configuration = object(json!({ "password": CONFIGURED }));
    watched.configure(id, configuration).unwrap();
    watched.look();
    evidence.both(&watched.update(id, package("2", &[])).unwrap());
    let bad = package("3", &["exit-at", "start", "7"]);
    evidence.failed(watched.update(id, bad));
    assert_eq!(watched.answering_version(id), "2");
    for bad in [
        Overrides::default().environment([("PASSWORD", format!("{VARIABLE}\0"))]),
        Overrides::default().environment([("PASS=WORD", VARIABLE)]),
        secretive().outbound_message(0),
    ] {
        evidence.debug(&bad);
        evidence.failed(watched.set_overrides(id, bad));
    }
    evidence.both(&watched.boot(LONG).unwrap());
    let supervised = watched.session(id).supervised().unwrap();
    evidence.both(&supervised.stop(LONG).unwrap());
    evidence.both(&watched.deactivate(id, LONG).unwrap());
    watched.look();
    evidence.both(&watched.remove_keeping_data(id).unwrap());
}

/// Plugins whose runs end in each way that a test can cause.
fn fails(evidence: &Arc<Evidence>) {
    let watched = Watched::with(evidence, settings(), |setup| {
        setup.timeouts(|timeouts| {
            let short = Duration::from_millis(300);
            timeouts.connect(short).stop_grace(short)
        });
    });
    for script in [
        "exit 7",
        "exit 0",
        "kill -KILL $$",
        "exec sleep 1000",
        "trap '' INT TERM; while :; do sleep 0.1; done",
        "exec ./there-is-no-such-program",
    ] {
        let id = watched.shell("failing", script);
        evidence.failed(watched.activate(id, LONG));
        watched.look();
        evidence.both(&watched.boot(LONG).unwrap());
        evidence.both(&watched.deactivate(id, LONG).unwrap());
        evidence.both(&watched.remove(id).unwrap());
    }
    // More than the system takes: it is never started.
    let id = watched.shell("over", "exit 0");
    let long = VARIABLE.repeat(20_000);
    let overrides = Overrides::default().environment([("LONG", long)]);
    watched.set_overrides(id, overrides).unwrap();
    let error = evidence.failed(watched.activate(id, LONG));
    assert!(error.to_string().contains("too long"), "{error}");
    evidence.error(&error);
}

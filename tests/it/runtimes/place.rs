//! Where the plugins of a test run, and what a test has to know of that.

use std::path::PathBuf;

use plugin_runner::protocol::{Manifest, Transport};
use plugin_runner::store::{Record, Source};
use plugin_runner::{InstallationId, RuntimeProvider, Session};

use crate::support::host::{Setup, TestHost};
use crate::support::lock::Lock;
use crate::support::plugin::{in_touch, manifest, package};

/// The place of one test. It outlives the test's hosts.
pub(crate) struct Place {
    test: &'static str,
    kind: Kind,
}

enum Kind {
    /// This machine.
    Local,
}

impl Place {
    pub(crate) fn local(test: &'static str) -> Self {
        Self {
            test,
            kind: Kind::Local,
        }
    }

    pub(crate) fn provider(&self) -> RuntimeProvider {
        match self.kind {
            Kind::Local => RuntimeProvider::Local,
        }
    }

    /// Whether plugins are children of this process.
    pub(crate) fn has_children(&self) -> bool {
        match self.kind {
            Kind::Local => true,
        }
    }

    /// Whether what a plugin leaves behind outside of its process group is found and killed.
    pub(crate) fn finds_descendants(&self) -> bool {
        match self.kind {
            Kind::Local => true,
        }
    }

    /// A host whose plugins run here, with the usual settings.
    pub(crate) fn host(&self) -> TestHost {
        self.host_with(|_| {})
    }

    /// The same with some settings changed.
    pub(crate) fn host_with(&self, change: impl FnOnce(&mut Setup)) -> TestHost {
        TestHost::with(self.test, |setup| {
            change(setup);
            match self.kind {
                Kind::Local => {}
            }
        })
    }

    /// A host with the usual settings, and a fixture that runs these actions on it and is active.
    #[track_caller]
    pub(crate) fn running(&self, transport: Transport, actions: &[&str]) -> (TestHost, Session) {
        let host = self.host();
        let session = host.run(packed(&host, transport, actions));
        (host, session)
    }

    /// `PLUGIN_DATA_DIR` of a plugin that has been started, as this machine sees it.
    #[track_caller]
    pub(crate) fn data(&self, host: &TestHost, id: InstallationId) -> PathBuf {
        match self.kind {
            Kind::Local => local_directory(host, id).join("data"),
        }
    }

    /// The directory of a plugin's releases, likewise.
    #[track_caller]
    pub(crate) fn releases(&self, host: &TestHost, id: InstallationId) -> PathBuf {
        match self.kind {
            Kind::Local => local_directory(host, id).join("releases"),
        }
    }

    /// The lock of a fixture that is `alone`.
    #[track_caller]
    pub(crate) fn lock(&self, host: &TestHost, id: InstallationId) -> Lock {
        Lock::in_folder(self.data(host, id))
    }

    /// Asserts that the plugins of the host, of which it has only one, have lived one at a time.
    #[track_caller]
    pub(crate) fn expect_one_at_a_time(&self, host: &TestHost) {
        match self.kind {
            // None, if each had ended by the time it was counted.
            Kind::Local => assert!(host.lifelines.most_at_once() <= 1, "two lived at once"),
        }
    }

    /// Ends it, after its hosts: nothing may be left.
    pub(crate) fn finish(self) {
        match self.kind {
            Kind::Local => {}
        }
    }
}

fn local_directory(host: &TestHost, id: InstallationId) -> PathBuf {
    host.folder().join("data").join(id.to_string())
}

/// The scripted plugin in Rust, in an archive; see `tests/fixtures/plugin` for what it can do. What is packed is a
/// script that becomes it: the program itself is larger than every service takes.
pub(crate) fn packed(host: &TestHost, transport: Transport, args: &[&str]) -> Record {
    packed_as(host, &format!("fixture-{transport}"), transport, args)
}

/// The same with an id of its own.
pub(crate) fn packed_as(host: &TestHost, id: &str, transport: Transport, args: &[&str]) -> Record {
    let manifest = Manifest {
        command: "./run".to_owned(),
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        transport,
        ..manifest(id)
    };
    let program = env!("CARGO_BIN_EXE_plugin-runner-fixture");
    let script = format!("#!/bin/sh\nexec '{program}' \"$@\"\n");
    let files: [(&str, &[u8], u32); 1] = [("run", script.as_bytes(), 0o755)];
    let archive = package(host.folder(), &format!("{id}.zip"), &manifest, &files);
    in_touch(host, Record::supervised(manifest, Source::Archive(archive)))
}

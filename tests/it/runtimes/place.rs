//! Where the plugins of a test run, and what a test has to know of that.

use std::path::PathBuf;
#[cfg(feature = "sprites")]
use std::sync::Arc;

use plugin_runner::protocol::{Manifest, Transport};
#[cfg(feature = "sprites")]
use plugin_runner::runtime::SpritesSettings;
use plugin_runner::store::{Record, Source};
use plugin_runner::{InstallationId, RuntimeProvider, Session};

#[cfg(feature = "sprites")]
use crate::sprites::Fake;
use crate::support::host::{Setup, TestHost};
use crate::support::lifeline::Lifeline;
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
    /// The sprites of an account.
    #[cfg(feature = "sprites")]
    Sprites(Arc<Fake>),
}

/// Where a sprite keeps everything of its plugin's.
#[cfg(feature = "sprites")]
const BASE: &str = "/home/sprite/plugin-runner";

impl Place {
    pub(crate) fn local(test: &'static str) -> Self {
        Self {
            test,
            kind: Kind::Local,
        }
    }

    /// In sprites of a fake service of the test's own.
    #[cfg(feature = "sprites")]
    pub(crate) fn sprites(test: &'static str) -> Self {
        Self {
            test,
            kind: Kind::Sprites(Arc::new(Fake::start())),
        }
    }

    /// The service.
    #[cfg(feature = "sprites")]
    pub(crate) fn fake(&self) -> &Fake {
        match &self.kind {
            Kind::Sprites(fake) => fake,
            Kind::Local => panic!("there is no service here"),
        }
    }

    /// The name of a plugin's sprite, if it has one by now.
    #[cfg(feature = "sprites")]
    pub(crate) fn sprite(&self, id: InstallationId) -> Option<String> {
        let (names, id) = (self.fake().sprites(), id.to_string());
        names.into_iter().find(|name| name.ends_with(&id))
    }

    pub(crate) fn provider(&self) -> RuntimeProvider {
        match self.kind {
            Kind::Local => RuntimeProvider::Local,
            #[cfg(feature = "sprites")]
            Kind::Sprites(_) => RuntimeProvider::Sprites,
        }
    }

    /// What the details of a plugin's end say of its process.
    pub(crate) fn pid(&self, process: &Lifeline) -> Option<u32> {
        self.has_children().then_some(process.pid)
    }

    /// The signals that a plugin is told to stop with, before it is killed.
    pub(crate) fn signals(&self) -> &'static [(&'static str, i32)] {
        match self.kind {
            Kind::Local => &[("SIGINT", 2), ("SIGTERM", 15)],
            // The service has one signal and the kill done in one request.
            #[cfg(feature = "sprites")]
            Kind::Sprites(_) => &[("SIGINT", 2)],
        }
    }

    /// How many threads a host has when nothing is loaded any more.
    pub(crate) fn idle_threads(&self, host: &TestHost) -> usize {
        match self.kind {
            Kind::Local => host.threads_with_keeper(),
            #[cfg(feature = "sprites")]
            Kind::Sprites(_) => host.thread_count(),
        }
    }

    /// Whether plugins are children of this process.
    pub(crate) fn has_children(&self) -> bool {
        self.provider() == RuntimeProvider::Local
    }

    /// Whether what a plugin leaves behind outside of its process group is found and killed.
    pub(crate) fn finds_descendants(&self) -> bool {
        self.provider() == RuntimeProvider::Local
    }

    /// A host whose plugins run here, with the usual settings.
    pub(crate) fn host(&self) -> TestHost {
        self.host_with(|_| {})
    }

    /// The same with some settings changed.
    pub(crate) fn host_with(&self, change: impl FnOnce(&mut Setup)) -> TestHost {
        TestHost::with(self.test, |setup| {
            change(setup);
            match &self.kind {
                Kind::Local => {}
                #[cfg(feature = "sprites")]
                Kind::Sprites(fake) => {
                    let (token, service) = (fake.token().to_owned(), fake.url());
                    setup.run_elsewhere(move |builder, url| {
                        let settings = SpritesSettings::new(token).api_url(service);
                        builder
                            .runtime_provider(RuntimeProvider::Sprites)
                            .sprites(settings)
                            .rpc_base_url(url)
                    });
                }
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
        match &self.kind {
            Kind::Local => local_directory(host, id).join("data"),
            #[cfg(feature = "sprites")]
            Kind::Sprites(fake) => on_sprite(fake, id, "data"),
        }
    }

    /// The directory of a plugin's releases, likewise.
    #[track_caller]
    pub(crate) fn releases(&self, host: &TestHost, id: InstallationId) -> PathBuf {
        match &self.kind {
            Kind::Local => local_directory(host, id).join("releases"),
            #[cfg(feature = "sprites")]
            Kind::Sprites(fake) => on_sprite(fake, id, "releases"),
        }
    }

    /// The lock of a fixture that is `alone`.
    #[track_caller]
    pub(crate) fn lock(&self, host: &TestHost, id: InstallationId) -> Lock {
        match &self.kind {
            Kind::Local => Lock::in_folder(self.data(host, id)),
            // There may be no sprite yet.
            #[cfg(feature = "sprites")]
            Kind::Sprites(fake) => {
                let fake = Arc::downgrade(fake);
                Lock::found(move || on_sprite(&fake.upgrade().unwrap(), id, "data"))
            }
        }
    }

    /// Asserts that the plugins of the host, of which it has only one, have lived one at a time.
    #[track_caller]
    pub(crate) fn expect_one_at_a_time(&self, host: &TestHost) {
        match self.kind {
            // None, if each had ended by the time it was counted.
            Kind::Local => {}
            #[cfg(feature = "sprites")]
            Kind::Sprites(_) => self.expect_lone_sessions(),
        }
        assert!(host.lifelines.most_at_once() <= 1, "two lived at once");
    }

    /// Ends it, after its hosts: nothing may be left.
    pub(crate) fn finish(self) {
        match &self.kind {
            Kind::Local => {}
            #[cfg(feature = "sprites")]
            Kind::Sprites(fake) => {
                self.expect_lone_sessions();
                for name in fake.sprites() {
                    assert!(fake.sessions(&name).is_empty(), "one outlived its host");
                }
            }
        }
        #[cfg(feature = "sprites")]
        if let Kind::Sprites(fake) = self.kind {
            Arc::into_inner(fake).unwrap().finish();
        }
    }

    /// Asserts that no sprite has ever had two sessions at once.
    #[cfg(feature = "sprites")]
    #[track_caller]
    pub(crate) fn expect_lone_sessions(&self) {
        for name in self.fake().sprites() {
            assert!(
                self.fake().most_sessions(&name) <= 1,
                "two at once on {name}"
            );
        }
    }
}

/// Where something of a plugin's sprite is on this machine; where nothing is, if it has none yet.
#[cfg(feature = "sprites")]
fn on_sprite(fake: &Fake, id: InstallationId, name: &str) -> PathBuf {
    let id = id.to_string();
    let sprite = fake.sprites().into_iter().find(|name| name.ends_with(&id));
    let path = sprite.and_then(|sprite| fake.path(&sprite, &format!("{BASE}/{name}")));
    path.unwrap_or_else(|| format!("/nonexistent/{id}/{name}").into())
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

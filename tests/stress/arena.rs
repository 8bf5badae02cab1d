//! A host and its plugins. The host may be shut down and followed by another, with the same records
//! and the same folders; the plugins stay.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use plugin_runner::listener::Listener;
use plugin_runner::protocol::{Manifest, Transport};
use plugin_runner::store::{MemoryStore, Record, Source, Store};
use plugin_runner::{
    ActiveState, Host, InstallationId, PluginMode, ReportedState, RestartPolicy, Session, Timeouts,
};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::oracle::{Verdict, check_changes};
use crate::support::attacker::attacker;
use crate::support::lifeline::{Lifeline, Lifelines};
use crate::support::lock::Lock;
use crate::support::plugin::{With as _, manifest};
use crate::support::{LONG, TestDir};

/// The event that every plugin consumes.
pub(crate) const EVENT: &str = "EventStressed";
/// Between the first signal of a stop and the kill.
pub(crate) const GRACE: Duration = Duration::from_millis(150);
/// URLs of earlier runs that are remembered of each plugin.
const URLS: usize = 4;

/// What may be expected of a plugin that was asked to run and is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nature {
    /// It becomes active, and answers.
    Answers,
    /// It becomes active.
    Connects,
    /// It never becomes active, or does not stay so.
    Fails,
}

pub(crate) struct Plugin {
    pub(crate) id: InstallationId,
    pub(crate) name: String,
    pub(crate) nature: Nature,
    /// The token of an external one.
    pub(crate) token: Option<String>,
    pub(crate) lifelines: Lifelines,
    pub(crate) lock: Lock,
    /// What its runs were told to connect to, the newest last.
    urls: Arc<Mutex<Vec<String>>>,
}

pub(crate) struct Arena {
    pub(crate) plugins: Vec<Plugin>,
    folder: TestDir,
    store: Arc<MemoryStore>,
    policy: RestartPolicy,
    verdict: Arc<Verdict>,
    generation: RwLock<Generation>,
    replacing: Mutex<()>,
}

/// One host of an arena.
struct Generation {
    host: Host,
    listener: Listener,
    checker: JoinHandle<HashMap<InstallationId, ReportedState>>,
}

impl Plugin {
    pub(crate) fn is_external(&self) -> bool {
        self.token.is_some()
    }

    /// The processes that live now: its own, and its descendants.
    pub(crate) fn living(&self) -> Vec<Lifeline> {
        self.lifelines.living()
    }

    pub(crate) fn signal_all(&self, signal: Signal) -> usize {
        let living = self.living();
        for lifeline in &living {
            let pid = rustix::process::Pid::from_raw(lifeline.pid.cast_signed()).unwrap();
            // If it lives after this was opened, it is what was opened, and not a later process.
            if let Ok(process) = pidfd_open(pid, PidfdFlags::empty())
                && lifeline.is_alive()
            {
                let _ = pidfd_send_signal(process, signal);
            }
        }
        living.len()
    }

    /// What an earlier run than the current one was told to connect to.
    pub(crate) fn earlier_url(&self) -> Option<String> {
        let urls = self.urls.lock();
        let earlier = urls.len().checked_sub(2)?;
        Some(urls[earlier].clone())
    }
}

/// What the fixtures do, over which transports, and what comes of it.
pub(crate) type Cast<'a> = &'a [(&'a [&'a str], Nature)];

impl Arena {
    pub(crate) fn new(
        name: &str,
        verdict: &Arc<Verdict>,
        policy: RestartPolicy,
        cast: Cast<'_>,
        external: usize,
    ) -> Arc<Self> {
        let folder = TestDir::new(&format!("stress-{name}"));
        let store = Arc::new(MemoryStore::default());
        let mut plugins = Vec::new();
        for (number, (args, nature)) in cast.iter().enumerate() {
            let transport = match number % 2 {
                0 => Transport::WebSocket,
                _ => Transport::Stdio,
            };
            let lifelines = Lifelines::new();
            let name = format!("{number}-{}-{transport}", args[0]);
            let files = folder.path().join(format!("plugin-{name}"));
            fs::create_dir_all(&files).unwrap();
            let mut manifest = Manifest {
                command: env!("CARGO_BIN_EXE_plugin-runner-fixture").to_owned(),
                args: ["alone", "echo-env"]
                    .iter()
                    .chain(*args)
                    .map(|&arg| arg.to_owned())
                    .collect(),
                events_consumed: vec![EVENT.to_owned()],
                ..manifest(&name)
            };
            manifest.transport = transport;
            let record = Record::supervised(manifest, Source::Directory(files))
                .variable("FIXTURE_LIFELINE", lifelines.address())
                .variable("FIXTURE_ATTACKER", attacker().to_str().unwrap());
            plugins.push(Plugin {
                id: record.id,
                name,
                nature: *nature,
                token: None,
                lifelines,
                lock: Lock::in_folder(folder.path().join(format!("data/{}/data", record.id))),
                urls: Arc::default(),
            });
            store.put(record).unwrap();
        }
        for number in 0..external {
            let name = format!("external-{number}");
            let manifest = Manifest {
                events_consumed: vec![EVENT.to_owned()],
                ..manifest(&name)
            };
            let record = Record::external(manifest).unwrap();
            let token = record.external_token().unwrap();
            plugins.push(Plugin {
                id: record.id,
                name,
                nature: Nature::Connects,
                token: Some(token.expose().to_owned()),
                lifelines: Lifelines::new(),
                lock: Lock::in_folder(folder.path().join("external")),
                urls: Arc::default(),
            });
            store.put(record).unwrap();
        }
        let generation = begin(&folder, &store, &plugins, &policy, verdict);
        let arena = Arc::new(Self {
            plugins,
            folder,
            store,
            policy,
            verdict: verdict.clone(),
            generation: RwLock::new(generation),
            replacing: Mutex::new(()),
        });
        arena.load_all();
        arena
    }

    pub(crate) fn host(&self) -> Host {
        self.generation.read().host.clone()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.generation.read().listener.address()
    }

    /// The session of a plugin that is loaded.
    pub(crate) fn session(&self, plugin: &Plugin) -> Option<Session> {
        self.host().session(plugin.id)
    }

    pub(crate) fn load_all(&self) {
        let host = self.host();
        for plugin in &self.plugins {
            if let Err(error) = host.load(plugin.id) {
                self.verdict
                    .violate(format!("cannot load {}: {error}", plugin.name));
            }
        }
    }

    /// Changes what the store says about the plugin, for when it is loaded next.
    pub(crate) fn want(&self, plugin: &Plugin, state: ActiveState) {
        let record = self.store.get(plugin.id).unwrap().unwrap();
        self.store
            .put(record.with(|record| record.set_active_state(state)))
            .unwrap();
    }

    /// Shuts the host down and puts another in its place; false if somebody is at it already.
    pub(crate) fn replace_host(&self) -> bool {
        let Some(_replacing) = self.replacing.try_lock() else {
            return false;
        };
        self.shut_down();
        let next = begin(
            &self.folder,
            &self.store,
            &self.plugins,
            &self.policy,
            &self.verdict,
        );
        let last = std::mem::replace(&mut *self.generation.write(), next);
        self.bury(last);
        true
    }

    /// Shuts the host down; nothing may be left of it.
    pub(crate) fn shut_down(&self) {
        let host = self.host();
        let report = std::thread::scope(|scope| {
            // Somebody with less patience wants the same.
            scope.spawn(|| host.shutdown(Duration::from_millis(5)));
            host.shutdown(LONG)
        });
        // If that one came first, so little time was all there was, and the rest ends later.
        let end = Instant::now() + LONG;
        while host.thread_count() > 0 && Instant::now() < end {
            std::thread::yield_now();
        }
        if host.thread_count() > 0 {
            self.verdict
                .violate(format!("shutdown left something: {report:?}"));
        }
        for plugin in &self.plugins {
            if plugin.lock.is_held() {
                let name = &plugin.name;
                self.verdict
                    .violate(format!("a process of {name} outlived its host's shutdown"));
            }
        }
    }

    /// Ends the last generation; the host has been shut down. Others may hold it for a moment.
    fn bury(&self, generation: Generation) {
        let Generation {
            host,
            listener,
            checker,
        } = generation;
        drop((host, listener));
        let states = checker.join().unwrap();
        for plugin in &self.plugins {
            let state = states[&plugin.id];
            if state != ReportedState::Inactive {
                self.verdict.violate(format!(
                    "{} was {state} when its host was gone",
                    plugin.name
                ));
            }
        }
    }

    /// Ends everything; nothing may be left.
    pub(crate) fn end(self: Arc<Self>) {
        self.shut_down();
        let arena = Arc::into_inner(self).expect("nobody else uses it any more");
        let Self {
            plugins,
            folder,
            verdict,
            generation,
            ..
        } = arena;
        let generation = generation.into_inner();
        drop((generation.host, generation.listener));
        drop(generation.checker.join().unwrap());
        for plugin in &plugins {
            for lifeline in plugin.living() {
                if !lifeline.ends_within(LONG) {
                    verdict.violate(format!("a process of {} is left", plugin.name));
                }
            }
            if let Some(pids) = plugin.lock.second_processes() {
                verdict.violate(format!("{} had more than one: {pids:?}", plugin.name));
            }
        }
        for entry in fs::read_dir(folder.path().join("data"))
            .into_iter()
            .flatten()
        {
            let staging = entry.unwrap().path().join("staging");
            let left = fs::read_dir(&staging).into_iter().flatten().count();
            if left > 0 {
                verdict.violate(format!("{left} files are left in {}", staging.display()));
            }
        }
    }
}

fn begin(
    folder: &TestDir,
    store: &Arc<MemoryStore>,
    plugins: &[Plugin],
    policy: &RestartPolicy,
    verdict: &Arc<Verdict>,
) -> Generation {
    let timeouts = Timeouts::default()
        .connect(Duration::from_secs(5))
        .call(Duration::from_secs(5))
        .disconnect_grace(Duration::from_millis(300))
        .stop_grace(GRACE)
        .stop(LONG)
        .write_stall(Duration::from_secs(2));
    let urls: HashMap<_, _> = plugins
        .iter()
        .map(|plugin| (plugin.id, plugin.urls.clone()))
        .collect();
    let host = Host::builder()
        .data_dir(folder.path().join("data"))
        .store(store.clone())
        .restart_policy(policy.clone())
        .timeouts(timeouts)
        .method_raw("double", |call, params| {
            // A handler may use the session that it was called from.
            let _ = call.session().reported_state();
            let params: serde_json::Value = params.read()?;
            let doubled = params["number"].as_u64().unwrap_or(0) * 2;
            Ok(serde_json::Map::from_iter([("doubled".to_owned(), doubled.into())]).into())
        })
        .on_output(move |plugin, _, line| {
            let Some((_, url)) = line.text.split_once(r#""STORYDEN_RPC_URL":""#) else {
                return;
            };
            let (url, _) = url.split_once('"').unwrap();
            let mut urls = urls[&plugin].lock();
            if urls.len() == URLS {
                urls.remove(0);
            }
            urls.push(url.to_owned());
        })
        .build()
        .unwrap();
    let listener = host.listen("127.0.0.1:0").unwrap();
    let modes = plugins.iter().map(|plugin| {
        let mode = if plugin.is_external() {
            PluginMode::External
        } else {
            PluginMode::Supervised
        };
        (plugin.id, mode)
    });
    let checker = check_changes(verdict, host.subscribe(), modes.collect());
    Generation {
        host,
        listener,
        checker,
    }
}

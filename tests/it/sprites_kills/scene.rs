//! One account, one store and the host on them; what must be true of all three after a kill.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::driver::{Driver, Said, Settings, Shown};
use super::operation::{Moment, Operation};
use crate::fake_sprites;
use crate::sprites::{Fake, Fault, Switches};
use crate::support::{LONG, TestDir, wait_until};

const BASE: &str = "/home/sprite/plugin-runner";
/// When a request is done that comes late: the next host is there by then, or still under way.
const LATE: Duration = Duration::from_millis(500);
/// A file that the plugin is said to have written beside its program.
const OWN_FILE: &str = "own.txt";
/// The sprites of others on the account.
const FOREIGN: [&str; 3] = [
    "storyden-plugin-cv37hl5hq8s3lq3ugrl0",
    "pr-abcdefgh-cv37hl5hq8s3lq3ugrl0",
    "notes",
];

/// What is known of a plugin.
#[derive(Clone, Debug)]
struct Known {
    /// What may be true of it, while it is not known what an operation came to.
    versions: BTreeSet<u64>,
    is_wanted: BTreeSet<bool>,
    may_be_gone: bool,
    /// Its sprite, if that is to stay when it is gone.
    kept: Option<String>,
    /// The ids of its processes so far.
    starts: Vec<String>,
    /// What its own file holds, once it has one.
    own_text: Option<String>,
}

pub(super) struct Scene {
    pub(super) fake: Fake,
    settings: Settings,
    driver: Option<Driver>,
    plugins: BTreeMap<String, Known>,
    /// The version of a plugin that may have been installed.
    installing: Option<u64>,
    versions: u64,
    /// The sprites of removed plugins that are kept for their data.
    kept: BTreeSet<String>,
    /// The number of a request that a host has made and the service does after its end.
    late: Option<usize>,
    /// What the next host's boot meets, after so many requests.
    pub(super) next_fault: Option<(usize, Fault)>,
    folder: TestDir,
}

impl Scene {
    /// With a host that has booted, and no plugin.
    pub(super) fn new(test: &str) -> Self {
        let (fake, folder) = (Fake::start(), TestDir::new(test));
        for name in FOREIGN {
            assert_eq!(fake_sprites::create(&fake, name).status, 201);
        }
        let settings = Settings {
            folder: folder.path().join("data"),
            url: fake.url(),
            token: fake.token().to_owned(),
        };
        fs::create_dir(&settings.folder).unwrap();
        let mut scene = Self {
            driver: Some(Driver::start(&settings)),
            fake,
            settings,
            plugins: BTreeMap::new(),
            installing: None,
            versions: 0,
            kept: BTreeSet::new(),
            late: None,
            next_fault: None,
            folder,
        };
        scene.act(&Operation::Boot);
        scene
    }

    /// A version that there was not before.
    pub(super) fn version(&mut self) -> u64 {
        self.versions += 1;
        self.versions
    }

    pub(super) fn install(&mut self, is_stdio: bool) -> Operation {
        let version = self.version();
        Operation::Install { is_stdio, version }
    }

    pub(super) fn update(&mut self, id: &str, is_stdio: bool) -> Operation {
        Operation::Update {
            id: id.to_owned(),
            is_stdio,
            version: self.version(),
        }
    }

    /// The plugins that there are, and whether they are wanted active.
    pub(super) fn plugins(&self) -> Vec<(String, bool)> {
        let plugins = self.plugins.iter();
        plugins
            .map(|(id, known)| (id.clone(), known.is_wanted.contains(&true)))
            .collect()
    }

    /// Has the host do something to its end, and looks at what came of it.
    #[track_caller]
    pub(super) fn act(&mut self, operation: &Operation) {
        self.begin(operation);
        let said = self.driver().wait();
        self.ended(operation, &said);
        self.check();
    }

    /// Has the host do something, and kills it at that moment; starts it again, and looks at what there is then.
    /// Returns whether the moment came.
    #[track_caller]
    pub(super) fn kill(&mut self, operation: &Operation, moment: Moment) -> bool {
        if *operation == Operation::Boot {
            // Another one is to be killed at its boot.
            self.driver = None;
            self.driver = Some(Driver::start(&self.settings));
        }
        let before = self.arm(moment);
        self.begin(operation);
        let (has_come, said) = self.wait_for(moment, before);
        let said = said.or(self.driver.take().unwrap().kill());
        if let Some(said) = said {
            self.ended(operation, &said);
        }
        self.fake.set(|switches| {
            *switches = Switches::default();
            if let Some((skipped, fault)) = self.next_fault.take() {
                switches.next(skipped, "*", Fault::Delay(Duration::ZERO));
                switches.next(1, "*", fault);
            }
        });
        self.driver = Some(Driver::start(&self.settings));
        self.act(&Operation::Boot);
        self.fake.set(|switches| *switches = Switches::default());
        has_come
    }

    /// Kills the host, has every sprite fall asleep, and boots another host.
    #[track_caller]
    pub(super) fn kill_and_sleep(&mut self, sleep: fn(&Fake, &str)) {
        self.driver = None;
        for sprite in self.own_sprites() {
            sleep(&self.fake, &sprite);
        }
        self.driver = Some(Driver::start(&self.settings));
        self.act(&Operation::Boot);
    }

    /// Has the service wait at that moment. Returns what was asked and begun before.
    fn arm(&mut self, moment: Moment) -> (usize, usize) {
        let before = (self.fake.calls().0.len(), self.begun());
        let (at, fault) = match moment {
            Moment::Asked(at) => (at, Fault::Hang),
            // It is done, and not said: one byte of the answer at most.
            Moment::Answered(at) => (at, Fault::Trickle(Duration::from_secs(1))),
            Moment::Late(at) => {
                self.late = Some(self.fake.calls().0.len() + at);
                (at, Fault::Delay(LATE))
            }
            Moment::Opened => {
                self.fake.set(|switches| switches.silence = true);
                return before;
            }
            Moment::Begun | Moment::Done | Moment::After(_) => return before,
        };
        self.fake.set(|switches| {
            switches.next(at, "*", Fault::Delay(Duration::ZERO));
            switches.next(1, "*", fault);
        });
        before
    }

    /// Waits for the moment, or until the operation is done. Returns whether it came, and what was said.
    #[track_caller]
    fn wait_for(&self, moment: Moment, (asked, begun): (usize, usize)) -> (bool, Option<Said>) {
        let start = Instant::now();
        loop {
            let calls = || {
                let mut calls = self.fake.calls().0;
                calls.drain(..asked);
                calls
            };
            let has_come = match moment {
                Moment::Asked(at) | Moment::Late(at) => calls().len() > at,
                Moment::Answered(at) => calls().get(at).is_some_and(|call| call.status.is_some()),
                Moment::Opened => calls().iter().any(|call| call.status == Some(101)),
                Moment::Begun => self.begun() > begun,
                Moment::Done => false,
                Moment::After(time) => start.elapsed() >= time,
            };
            if has_come {
                return (true, None);
            }
            if let Some(said) = self.driver_ref().hear() {
                return (moment == Moment::Done, Some(said));
            }
            assert!(
                start.elapsed() < LONG,
                "{moment:?} does not come: {:#?}",
                calls()
            );
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    fn begin(&mut self, operation: &Operation) {
        match operation {
            Operation::Boot | Operation::Show | Operation::ShutDown => {}
            Operation::Install { version, .. } => {
                self.installing = Some(*version);
            }
            Operation::Update { id, version, .. } => {
                self.known(id).versions.insert(*version);
            }
            Operation::Activate { id } => drop(self.known(id).is_wanted.insert(true)),
            Operation::Deactivate { id } => drop(self.known(id).is_wanted.insert(false)),
            Operation::Remove { id, keeps_data } => {
                let sprite = self.sprite(id);
                let known = self.known(id);
                known.may_be_gone = true;
                known.kept = sprite.filter(|_| *keeps_data);
            }
        }
        self.driver().tell(operation);
    }

    /// An operation has been acknowledged.
    #[track_caller]
    fn ended(&mut self, operation: &Operation, said: &Said) {
        assert!(matches!(said, Said::Done), "{operation:?}: {said:?}");
        match operation {
            Operation::Boot | Operation::Show | Operation::ShutDown => {}
            Operation::Install { version, .. } => {
                assert_eq!(self.installing, Some(*version));
            }
            Operation::Update { id, version, .. } => {
                self.known(id).versions = [*version].into();
            }
            Operation::Activate { id } => self.known(id).is_wanted = [true].into(),
            Operation::Deactivate { id } => self.known(id).is_wanted = [false].into(),
            Operation::Remove { id, .. } => {
                let known = self.plugins.remove(id);
                self.kept.extend(known.and_then(|known| known.kept));
            }
        }
    }

    fn known(&mut self, id: &str) -> &mut Known {
        self.plugins.get_mut(id).unwrap()
    }

    fn driver(&mut self) -> &mut Driver {
        self.driver.as_mut().unwrap()
    }

    fn driver_ref(&self) -> &Driver {
        self.driver.as_ref().unwrap()
    }

    /// The name of a plugin's sprite, if it has one.
    fn sprite(&self, id: &str) -> Option<String> {
        let mut sprites = self.own_sprites().into_iter();
        sprites.find(|name| name.ends_with(id))
    }

    fn own_sprites(&self) -> Vec<String> {
        let mut sprites = self.fake.sprites();
        sprites.retain(|name| !FOREIGN.contains(&&**name));
        sprites
    }

    fn path(&self, sprite: &str, path: &str) -> PathBuf {
        let path = format!("{BASE}/{path}");
        self.fake.path(sprite, &path).unwrap_or_default()
    }

    fn starts(&self, sprite: &str) -> Vec<String> {
        let starts = fs::read_to_string(self.path(sprite, "data/starts"));
        let starts = starts.unwrap_or_default();
        starts.lines().map(str::to_owned).collect()
    }

    /// How many processes have begun on the sprites that there are.
    fn begun(&self) -> usize {
        let sprites = self.own_sprites().into_iter();
        sprites.map(|sprite| self.starts(&sprite).len()).sum()
    }

    /// Looks at everything, when the host has booted or done something.
    #[track_caller]
    fn check(&mut self) {
        self.driver().tell(&Operation::Show);
        let shown = match self.driver().wait() {
            Said::Plugins(shown) => shown,
            other => panic!("{other:?}"),
        };
        let installing = self.installing.take();
        for plugin in &shown {
            self.expect_known(plugin, installing);
            self.expect_well(plugin);
        }
        let names: BTreeSet<_> = shown.iter().map(|plugin| &*plugin.id).collect();
        self.plugins.retain(|id, known| {
            let is_there = names.contains(&**id);
            assert!(is_there || known.may_be_gone, "{id} is gone: {known:?}");
            if !is_there {
                self.kept.extend(known.kept.take());
            }
            is_there
        });
        wait_until("the sprites of removed plugins to be deleted", || {
            let sprites = self.own_sprites();
            let is_needed = |sprite: &String| {
                self.kept.contains(sprite) || names.iter().any(|id| sprite.ends_with(id))
            };
            sprites.iter().all(is_needed)
        });
        for kept in &self.kept {
            assert!(!self.starts(kept).is_empty(), "the data on {kept} is gone");
            assert!(self.fake.sessions(kept).is_empty(), "it runs on");
        }
        for name in FOREIGN {
            assert!(self.fake.sprites().iter().any(|sprite| sprite == name));
        }
        if self.late.is_none() {
            self.expect_nothing_uploaded_twice();
        }
    }

    /// What the store says of a plugin is possible, and from now on known.
    #[track_caller]
    fn expect_known(&mut self, plugin: &Shown, installing: Option<u64>) {
        let version = plugin.version.parse().unwrap();
        let is_new = installing == Some(version);
        if is_new {
            let known = Known {
                versions: [version].into(),
                is_wanted: [false, true].into(),
                may_be_gone: false,
                kept: None,
                starts: Vec::new(),
                own_text: None,
            };
            self.plugins.insert(plugin.id.clone(), known);
        }
        let known = self.known(&plugin.id);
        assert!(known.versions.contains(&version), "{plugin:?}: {known:?}");
        assert!(
            known.is_wanted.contains(&plugin.is_wanted),
            "{plugin:?}: {known:?}"
        );
        known.versions = [version].into();
        known.is_wanted = [plugin.is_wanted].into();
        known.may_be_gone = false;
        known.kept = None;
    }

    /// A plugin is as it is wanted, with all it had; and it never ran twice.
    #[track_caller]
    fn expect_well(&mut self, plugin: &Shown) {
        assert!(plugin.ends.is_empty(), "{plugin:?}");
        let sprite = self.sprite(&plugin.id);
        if !plugin.is_wanted {
            assert_eq!(plugin.state, "Inactive", "{plugin:?}");
        }
        let Some(sprite) = sprite else {
            assert!(!plugin.is_wanted, "{plugin:?} has no sprite");
            return;
        };
        let before = self.known(&plugin.id).starts.clone();
        let starts = self.starts(&sprite);
        assert!(
            starts.starts_with(&before),
            "{plugin:?}: {before:?}, {starts:?}"
        );
        assert_eq!(
            starts.iter().collect::<BTreeSet<_>>().len(),
            starts.len(),
            "{starts:?}"
        );
        assert!(!self.path(&sprite, "data/not-alone").exists(), "{plugin:?}");
        // One that does nothing may come late.
        let most = if self.late.is_some() { 2 } else { 1 };
        assert!(self.fake.most_sessions(&sprite) <= most, "{plugin:?}");
        self.known(&plugin.id).starts.clone_from(&starts);
        if !plugin.is_wanted {
            wait_until("its programs to be gone", || {
                self.fake.sessions(&sprite).is_empty()
            });
            return;
        }
        assert_eq!(plugin.state, "Active", "{plugin:?}");
        let sessions: Vec<_> = self.fake.sessions(&sprite);
        let mut sessions: Vec<_> = sessions.iter().map(u32::to_string).collect();
        if self.late.is_some() {
            sessions.retain(|id| starts.contains(id));
        }
        assert_eq!(Some(&*sessions), starts.last().map(std::slice::from_ref));
        let own = self.path(&sprite, &format!("releases/{}/{OWN_FILE}", plugin.sha256));
        let found = fs::read_to_string(&own).ok();
        assert_eq!(found, self.known(&plugin.id).own_text, "{plugin:?}");
        let text = format!("after {} starts", starts.len());
        fs::write(own, &text).unwrap();
        self.known(&plugin.id).own_text = Some(text);
    }

    /// A file that has once been uploaded is not uploaded again.
    #[track_caller]
    fn expect_nothing_uploaded_twice(&self) {
        let calls = self.fake.calls();
        let mut uploads = BTreeMap::<_, usize>::new();
        for call in calls.of("PUT */fs/write") {
            if call.status.is_some_and(|status| status < 300) {
                let path = call.query.iter().find(|(name, _)| name == "path").unwrap();
                *uploads.entry((&call.request, &path.1)).or_default() += 1;
            }
        }
        uploads.retain(|_, count| *count > 1);
        assert!(uploads.is_empty(), "uploaded again: {uploads:#?}");
    }

    /// What the service was asked for in all.
    pub(super) fn summary(&self) -> String {
        let calls = self.fake.calls();
        let count = |pattern| calls.count(pattern);
        format!(
            "{} requests: {} creates, {} uploads, {} programs, {} kills, {} deletions",
            calls.0.len(),
            count("POST /v1/sprites"),
            count("PUT *"),
            calls
                .of("GET */exec")
                .filter(|call| call.status == Some(101))
                .count(),
            count("POST */kill"),
            count("DELETE *"),
        )
    }

    /// Waits until what a host that is gone has asked for late is done, and boots another host after that.
    pub(super) fn wait_for_late(&mut self) {
        let late = self.late.unwrap();
        wait_until("a late request to be done", || {
            self.fake.calls().0[late].status.is_some()
        });
        self.kill(&Operation::Boot, Moment::Done);
    }

    /// Ends the host, and the service: nothing is left.
    pub(super) fn finish(mut self) {
        self.driver = None;
        self.fake.finish();
        drop(self.folder);
    }
}

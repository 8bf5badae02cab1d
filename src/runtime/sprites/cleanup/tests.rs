//! With the fake of the service: what is deleted, what never is, and when no thread is left.

mod failures;

use std::collections::BTreeMap;
use std::sync::Once;

use super::sweep::PERIOD;
use super::*;
use crate::deadline::Deadline;
use crate::error::ErrorKind;
use crate::package::{Archive, ArchiveContent};
use crate::protocol::manifest::Manifest;
use crate::runtime::sprites::ClientSettings;
use crate::runtime::sprites::tests::fake::{Answer, Fake, Fault, Switches};
use crate::store::{MemoryStore, Record, Source};
use crate::testing::{LONG, assert_matches, wait_until};

const DELETE: &str = "DELETE /v1/sprites/*";
const LIST: &str = "GET /v1/sprites";

/// A store, of which a method fails where a test says so.
#[derive(Debug, Default)]
struct FailingStore {
    inner: MemoryStore,
    failing: Mutex<&'static str>,
}

impl FailingStore {
    fn fail(&self, method: &'static str) {
        *self.failing.lock() = method;
    }

    fn pass(&self, method: &str) -> Result<()> {
        if *self.failing.lock() == method {
            return Err(Error::new(ErrorKind::StoreBusy, "it is locked"));
        }
        Ok(())
    }

    fn noted(&self) -> Vec<String> {
        self.inner.notes(TO_DELETE).unwrap().into_keys().collect()
    }
}

impl Store for FailingStore {
    fn get(&self, id: InstallationId) -> Result<Option<Record>> {
        self.pass("get")?;
        self.inner.get(id)
    }

    fn list(&self) -> Result<Vec<Record>> {
        self.pass("list")?;
        self.inner.list()
    }

    fn put(&self, record: Record) -> Result<()> {
        self.inner.put(record)
    }

    fn delete(&self, id: InstallationId) -> Result<()> {
        self.inner.delete(id)
    }

    fn put_archive(&self, archive: &Archive) -> Result<()> {
        self.inner.put_archive(archive)
    }

    fn get_archive(&self, sha256: &str) -> Result<Option<ArchiveContent>> {
        self.inner.get_archive(sha256)
    }

    fn delete_archive(&self, sha256: &str) -> Result<()> {
        self.inner.delete_archive(sha256)
    }

    fn list_archives(&self) -> Result<BTreeMap<String, u64>> {
        self.inner.list_archives()
    }

    fn notes(&self, prefix: &str) -> Result<BTreeMap<String, String>> {
        self.pass("notes")?;
        if *self.failing.lock() == "no notes" {
            return Err(Error::Unsupported("no notes"));
        }
        self.inner.notes(prefix)
    }

    fn set_note(&self, key: &str, value: Option<&str>) -> Result<()> {
        self.pass("set_note")?;
        self.inner.set_note(key, value)
    }
}

/// A store on an account, and the hosts that use it one after the other.
struct Setup<'a> {
    fake: &'a Fake,
    store: Arc<FailingStore>,
    threads: Threads,
}

impl<'a> Setup<'a> {
    fn on(fake: &'a Fake) -> Self {
        Self {
            fake,
            store: Arc::default(),
            threads: Threads::with_limit(2),
        }
    }

    fn client(&self) -> Client {
        let settings = ClientSettings {
            base_url: self.fake.url(),
            token: self.fake.token().to_owned(),
            roots: Vec::new(),
        };
        Client::new(settings, self.threads.clone()).unwrap()
    }

    fn try_host(&self, sweep: bool) -> Result<Cleanup> {
        let store = self.store.clone();
        Cleanup::start(self.client(), store, self.threads.clone(), sweep)
    }

    fn host(&self) -> Cleanup {
        self.try_host(false).unwrap()
    }

    fn make(&self, name: &str) {
        let interrupt = Interrupt::new().unwrap();
        let within = Within::new(LONG, &interrupt);
        self.client().create_sprite(name, within).unwrap();
    }

    /// A plugin that is installed and has a sprite.
    fn install(&self, cleanup: &Cleanup) -> InstallationId {
        let id = self.orphan(cleanup);
        self.record(id);
        id
    }

    /// A sprite whose plugin is not installed.
    fn orphan(&self, cleanup: &Cleanup) -> InstallationId {
        let id = InstallationId::generate();
        self.make(&cleanup.name_of(id));
        id
    }

    fn record(&self, id: InstallationId) {
        let source = Source::Directory("/plugins".into());
        let mut record = Record::supervised(Manifest::default(), source);
        record.id = id;
        self.store.put(record).unwrap();
    }

    fn remove(&self, cleanup: &Cleanup, id: InstallationId) {
        cleanup.note_removal(id, false).unwrap();
        self.store.delete(id).unwrap();
        assert!(cleanup.remove(id));
    }

    #[track_caller]
    fn wait_for_the_thread(&self) {
        let left = self.threads.join_all(Deadline::after(LONG));
        assert_eq!(left, 0, "{:?} live", self.threads.names());
    }

    fn refuse_deletions(&self) {
        let refused = Fault::Answer(refused());
        self.fake
            .set(|switches| switches.next(1_000, DELETE, refused));
    }

    fn deletions(&self) -> usize {
        self.fake.calls().count(DELETE)
    }
}

impl Drop for Setup<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.wait_for_the_thread();
        }
    }
}

fn refused() -> Answer {
    Answer::json(403, &serde_json::json!({"error": "forbidden"}))
}

#[test]
fn a_removal_deletes_its_sprite_alone_and_leaves_no_note_and_no_thread() {
    let fake = Fake::start();
    let setup = Setup::on(&fake);
    let cleanup = setup.host();
    let [kept, gone] = [setup.install(&cleanup), setup.install(&cleanup)];
    setup.make("storyden-plugin-x");
    assert_eq!(setup.threads.count(), 0, "there is nothing to do");
    setup.remove(&cleanup, gone);
    setup.wait_for_the_thread();
    let mut left = [cleanup.name_of(kept), "storyden-plugin-x".to_owned()];
    left.sort();
    assert_eq!(fake.sprites(), left);
    assert_eq!(setup.store.noted(), [""; 0]);
    assert_eq!(setup.deletions(), 1);

    // One that never had a sprite.
    let never = InstallationId::generate();
    setup.remove(&cleanup, never);
    setup.wait_for_the_thread();
    assert_eq!((setup.store.noted().len(), setup.deletions()), (0, 2));
    drop(setup);
    fake.finish();
}

#[test]
fn what_fails_is_kept_noted_and_tried_again() {
    let fake = Fake::start();
    let setup = Setup::on(&fake);
    let cleanup = setup.host();
    let id = setup.install(&cleanup);
    setup.refuse_deletions();
    setup.remove(&cleanup, id);
    wait_until("two attempts", || setup.deletions() == 2);
    let note = format!("{TO_DELETE}{}", cleanup.name_of(id));
    assert_eq!(setup.store.noted(), [note]);
    fake.set(|switches| *switches = Switches::default());
    setup.wait_for_the_thread();
    assert_eq!((fake.sprites().len(), setup.store.noted().len()), (0, 0));

    // The service has done it, and the store does not take that in at first.
    let id = setup.install(&cleanup);
    cleanup.note_removal(id, false).unwrap();
    setup.store.delete(id).unwrap();
    setup.store.fail("set_note");
    cleanup.remove(id);
    wait_until("the sprite to go", || fake.sprites().is_empty());
    assert_eq!(setup.store.noted().len(), 1);
    setup.store.fail("");
    setup.wait_for_the_thread();
    assert_eq!(setup.store.noted(), [""; 0]);
    drop(setup);
    fake.finish();
}

#[test]
fn a_store_that_fails_lets_nothing_be_deleted() {
    let fake = Fake::start();
    let setup = Setup::on(&fake);
    let cleanup = setup.host();
    let id = setup.install(&cleanup);
    cleanup.note_removal(id, false).unwrap();
    setup.store.delete(id).unwrap();
    setup.store.fail("get");
    cleanup.remove(id);
    let shared = cleanup.shared.clone();
    wait_until("the first attempt", || {
        let state = shared.state.lock();
        state.pending.get(&id).is_some_and(|retry| retry.failed > 0)
    });
    assert_eq!((setup.deletions(), setup.store.noted().len()), (0, 1));
    setup.store.fail("");
    setup.wait_for_the_thread();
    assert_eq!((fake.sprites().len(), setup.store.noted().len()), (0, 0));
    drop(setup);
    fake.finish();
}

#[test]
fn what_a_host_leaves_is_deleted_by_the_next() {
    let fake = Fake::start();
    let setup = Setup::on(&fake);
    let cleanup = setup.host();
    let id = setup.install(&cleanup);
    setup.refuse_deletions();
    setup.remove(&cleanup, id);
    wait_until("the first attempt", || setup.deletions() > 0);
    cleanup.stop();
    setup.wait_for_the_thread();
    fake.set(|switches| *switches = Switches::default());
    // It has ended, and begins nothing any more.
    cleanup.remove(id);
    assert_eq!((setup.threads.count(), fake.sprites().len()), (0, 1));

    let next = setup.host();
    setup.wait_for_the_thread();
    assert_eq!((fake.sprites().len(), setup.store.noted().len()), (0, 0));
    assert_eq!(next.name_of(id), cleanup.name_of(id));
    drop(setup);
    fake.finish();
}

#[test]
fn a_removal_that_was_cut_short_before_the_record_went_keeps_the_sprite() {
    let fake = Fake::start();
    let setup = Setup::on(&fake);
    let before = setup.host();
    let [begun, done] = [setup.install(&before), setup.install(&before)];
    before.note_removal(begun, false).unwrap();
    before.note_removal(done, false).unwrap();
    setup.store.delete(done).unwrap();
    let foreign = format!("{TO_DELETE}pr-abcdefgh-{begun}");
    setup.store.set_note(&foreign, Some("")).unwrap();
    before.stop();

    // The store fails, and nothing is decided.
    for method in ["notes", "get", "set_note"] {
        setup.store.fail(method);
        let error = setup.try_host(false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StoreBusy, "{method}");
        assert_eq!(setup.store.noted().len(), 3, "{method}");
    }
    setup.store.fail("");
    let after = setup.host();
    setup.wait_for_the_thread();
    assert_eq!(fake.sprites(), [after.name_of(begun)]);
    assert_eq!(setup.store.noted(), [foreign]);
    assert_eq!(setup.deletions(), 1);
    drop(setup);
    fake.finish();
}

#[test]
fn a_sprite_whose_plugin_is_installed_is_never_deleted() {
    let fake = Fake::start();
    let setup = Setup::on(&fake);
    let cleanup = setup.host();
    let id = setup.install(&cleanup);
    cleanup.note_removal(id, false).unwrap();
    cleanup.remove(id);
    setup.wait_for_the_thread();
    assert_eq!((setup.deletions(), setup.store.noted().len()), (0, 1));
    drop(setup);
    fake.finish();
}

#[test]
fn a_stop_ends_it_at_once_whatever_it_waits_for() {
    let fake = Fake::start();
    let setup = Setup::on(&fake);
    let cleanup = setup.host();
    let id = setup.install(&cleanup);
    fake.set(|switches| switches.next(1, DELETE, Fault::Hang));
    setup.remove(&cleanup, id);
    wait_until("the first attempt", || setup.deletions() == 1);
    cleanup.stop();
    setup.wait_for_the_thread();
    assert_eq!(setup.store.noted().len(), 1);

    let sweeping = setup.try_host(true).unwrap();
    wait_until("its first look", || fake.calls().count(LIST) == 1);
    assert_eq!(setup.threads.names(), ["sprites-cleanup"]);
    sweeping.stop();
    setup.wait_for_the_thread();
    assert_eq!(fake.calls().count(LIST), 1, "the next look is far away");
    drop(setup);
    fake.finish();
}

#[test]
fn a_removal_says_why_its_sprite_is_left_and_a_stop_ends_its_wait() {
    let fake = Fake::start();
    let setup = Setup::on(&fake);
    let cleanup = setup.host();
    let removed = |id| {
        cleanup.note_removal(id, false).unwrap();
        setup.store.delete(id).unwrap();
        cleanup.removed(id, true)
    };
    assert_eq!(removed(setup.install(&cleanup)), None);
    let refused = setup.install(&cleanup);
    fake.set(|switches| switches.next(1, DELETE, Fault::Answer(self::refused())));
    let left = removed(refused).unwrap();
    let name = cleanup.name_of(refused);
    assert!(
        left.starts_with(&format!("the sprite {name} is not deleted yet: ")),
        "{left}"
    );
    assert!(left.contains("status 403"), "{left}");

    let [first, second, late] = [(); 3].map(|()| setup.install(&cleanup));
    fake.set(|switches| switches.next(1, DELETE, Fault::Hang));
    let before = setup.deletions();
    setup.remove(&cleanup, first);
    wait_until("its attempt", || setup.deletions() > before);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| removed(second));
        wait_until("the next one", || {
            cleanup.shared.state.lock().pending.contains_key(&second)
        });
        let began = Instant::now();
        cleanup.stop();
        let left = waiting.join().unwrap().unwrap();
        assert!(left.contains(&cleanup.name_of(second)), "{left}");
        assert!(began.elapsed() < REMOVAL_TIME / 2, "{:?}", began.elapsed());
    });
    let left = removed(late).unwrap();
    assert!(left.contains("the host is shut down"), "{left}");
    drop(setup);
    fake.finish();
}

#[test]
fn a_store_without_notes_is_refused_with_the_way_out() {
    let fake = Fake::start();
    let setup = Setup::on(&fake);
    setup.store.fail("no notes");
    let error = setup.try_host(false).unwrap_err();
    assert_matches!(error, Error::Setting { name: "store", .. });
    assert!(error.to_string().contains("SqliteStore"), "{error}");
    drop(setup);
    fake.finish();
}

#[test]
fn stores_that_share_an_account_with_each_other_and_with_storyden_lose_nothing() {
    let fake = Fake::start();
    let [ours, theirs] = [Setup::on(&fake), Setup::on(&fake)];
    let [cleanup, other] = [ours.host(), theirs.host()];
    assert_ne!(cleanup.shared.names.prefix(), other.shared.names.prefix());
    let orphan = ours.orphan(&cleanup);
    ours.install(&cleanup);
    theirs.install(&other);
    theirs.orphan(&other);
    let prefix = cleanup.shared.names.prefix().to_owned();
    for name in [
        format!("storyden-plugin-{orphan}"),
        format!("storyden-plugin-{}", InstallationId::generate()),
        format!("{prefix}{orphan}-old"),
        format!("{prefix}notes"),
        format!("{}{orphan}", prefix.trim_end_matches('-')),
        format!("pr-{orphan}"),
        "dev".to_owned(),
    ] {
        ours.make(&name);
    }
    // The service's clock is of no matter.
    fake.set(|switches| switches.clock_offset = 3_600);
    let all = fake.sprites();
    let (mut sightings, start) = (Sightings::default(), Instant::now());
    let look = |sightings: &mut Sightings, after| cleanup.shared.sweep(sightings, start + after);
    look(&mut sightings, Duration::ZERO).unwrap();
    look(&mut sightings, Duration::from_secs(599)).unwrap();
    assert_eq!(fake.sprites(), all);
    fake.set(|switches| switches.clock_offset = -3_600);
    look(&mut sightings, PERIOD).unwrap();
    look(&mut sightings, 2 * PERIOD).unwrap();
    let mut left = all.clone();
    left.retain(|name| *name != cleanup.name_of(orphan));
    assert_eq!(fake.sprites(), left);
    let deleted: Vec<_> = fake.calls().of(DELETE).cloned().collect();
    assert_eq!(deleted.len(), 1);
    // Nothing but its own names was asked for.
    for call in fake.calls().of(LIST) {
        assert!(call.query.contains(&("prefix".to_owned(), prefix.clone())));
    }
    drop([ours, theirs]);
    fake.finish();
}

/// What is logged at info, by all tests of this program.
static LINES: Lines = Lines(Mutex::new(Vec::new()));

struct Lines(Mutex<Vec<String>>);

impl log::Log for Lines {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() == log::Level::Info
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.lock().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

#[test]
fn a_list_or_a_store_that_fails_decides_nothing_and_a_few_go_at_a_time_by_name() {
    static LOGGING: Once = Once::new();
    LOGGING.call_once(|| {
        log::set_logger(&LINES).expect("the only logger of the unit tests");
        log::set_max_level(log::LevelFilter::Info);
    });
    let fake = Fake::start();
    let setup = Setup::on(&fake);
    let cleanup = setup.host();
    // More than a page has.
    let mut orphans: Vec<_> = (0..101).map(|_| setup.orphan(&cleanup)).collect();
    orphans.sort();
    let (mut sightings, start) = (Sightings::default(), Instant::now());
    let look = |sightings: &mut Sightings, after| cleanup.shared.sweep(sightings, start + after);
    look(&mut sightings, Duration::ZERO).unwrap();

    fake.set(|switches| {
        switches.next(1, LIST, Fault::Delay(Duration::ZERO));
        switches.next(1, LIST, Fault::Answer(refused()));
    });
    fake.forget_calls();
    let error = look(&mut sightings, PERIOD).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RuntimeRefused);
    assert_eq!(fake.calls().count(LIST), 2, "a page came, and the next not");
    for method in ["list", "get"] {
        setup.store.fail(method);
        let error = look(&mut sightings, PERIOD).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StoreBusy, "{method}");
    }
    setup.store.fail("");
    assert_eq!((fake.sprites().len(), setup.deletions()), (101, 0));

    // It is installed between the looks.
    setup.record(orphans[1]);
    look(&mut sightings, PERIOD).unwrap();
    let gone: Vec<_> = [0, 2, 3, 4, 5]
        .map(|place| cleanup.name_of(orphans[place]))
        .into();
    assert_eq!((fake.sprites().len(), setup.deletions()), (96, 5));
    assert!(gone.iter().all(|name| !fake.sprites().contains(name)));
    let lines = LINES.0.lock().clone();
    for name in &gone {
        assert!(lines.iter().any(|line| line.contains(name)), "{lines:?}");
    }

    // One that cannot be deleted ends the round, and holds up no later one.
    fake.set(|switches| switches.next(1, DELETE, Fault::Answer(refused())));
    assert!(look(&mut sightings, 2 * PERIOD).is_err());
    look(&mut sightings, 2 * PERIOD).unwrap();
    assert_eq!(fake.sprites().len(), 91);
    assert!(fake.sprites().contains(&cleanup.name_of(orphans[6])));
    drop(setup);
    fake.finish();
}

#[test]
fn the_waits_grow_to_ten_minutes_and_the_service_may_ask_for_longer_ones() {
    let waits: Vec<_> = (0..7).map(|failed| wait(failed, None).as_secs()).collect();
    assert_eq!(waits, [1, 5, 30, 120, 600, 600, 600]);
    let asked = |failed, seconds| wait(failed, Some(Duration::from_secs(seconds))).as_secs();
    assert_eq!(asked(0, 60), 60);
    assert_eq!(asked(2, 1), 30);
    assert_eq!(asked(0, 100_000), 600);
}

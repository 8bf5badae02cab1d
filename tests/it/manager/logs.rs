//! Following what an installed plugin prints, also while it is not loaded.

use std::thread;
use std::time::Duration;

use plugin_runner::ReportedState;
use plugin_runner::plugin_log::{Followed, Follower, LogSettings};

use super::store::{Done, FailingStore};
use super::*;
use crate::support::assert_matches;

/// What the plugin prints without being asked to.
const UNASKED: [&str; 2] = ["started", "connected"];

/// The next line that the plugin was asked to print.
fn next(follower: &mut Follower, timeout: Duration) -> Result<String, Error> {
    loop {
        match follower.next(timeout)? {
            Followed::Line(line) if UNASKED.contains(&&*line) => {}
            Followed::Line(line) => return Ok(line),
            other => panic!("not a line: {other:?}"),
        }
    }
}

#[track_caller]
fn line(follower: &mut Follower) -> String {
    next(follower, LONG).unwrap()
}

#[track_caller]
fn nothing(follower: &mut Follower) {
    let nothing = next(follower, Duration::ZERO);
    assert!(nothing.is_err_and(|error| error.is_timeout()));
}

impl Managed {
    /// A manager whose plugins' logs have room for a few lines in each file.
    fn with_small_logs(test: &'static str) -> Self {
        let host = TestHost::with(test, |setup| {
            let log = LogSettings::default().max_file_size(30).keep(1000);
            setup.configure(|builder| builder.log_settings(log));
        });
        Self::of(host, settings())
    }

    /// Lets the plugin print a line, and waits until it is logged.
    #[track_caller]
    fn print(&self, id: InstallationId, text: &str) {
        call(&self.session(id), "log", &json!({ "line": text })).unwrap();
        self.host
            .output
            .wait_for(text, |line| (line.text == text).then_some(()));
    }

    /// Lets it print these lines in a run that ends, and is unloaded.
    #[track_caller]
    fn run_printing(&self, id: InstallationId, lines: impl IntoIterator<Item = u32>) {
        self.activate(id, LONG).unwrap();
        for number in lines {
            self.print(id, &format!("line {number}"));
        }
        self.deactivate(id, LONG).unwrap();
        self.host.unload(id).unwrap();
    }
}

#[test]
fn a_plugin_that_has_never_run_is_waited_for_and_not_started() {
    let managed = Managed::new("log-before");
    let id = managed.installed(managed.package("1", &[]));
    let _ = managed.host.unload(id);
    let mut follower = managed.follow_log(id).unwrap();
    let mut from_end = managed.follow_log(id).unwrap().from_end().unwrap();
    nothing(&mut follower);
    assert!(managed.host.session(id).is_none());
    let installed = managed.get(id).unwrap();
    assert_eq!(installed.reported_state(), ReportedState::Inactive);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| line(&mut follower));
        managed.run_printing(id, 1..=1);
        assert_eq!(waiting.join().unwrap(), "line 1");
    });
    assert_eq!(line(&mut from_end), "line 1");
    nothing(&mut from_end);
}

#[test]
fn it_goes_on_through_rotation_unloading_loading_and_updates() {
    let managed = Managed::with_small_logs("log-goes-on");
    let id = managed.installed(managed.package("1", &[]));
    let mut early = managed.follow_log(id).unwrap();
    managed.run_printing(id, 1..=10);
    // Of one that is not loaded, whose log nothing else holds.
    let mut late = managed.follow_log(id).unwrap();
    for follower in [&mut early, &mut late] {
        for number in 1..=10 {
            assert_eq!(line(follower), format!("line {number}"));
        }
        nothing(follower);
    }
    managed.run_printing(id, 11..=20);
    managed.update(id, managed.package("2", &[])).unwrap();
    managed.run_printing(id, 21..=30);
    let logs = names(&managed.folder(id).join("logs"));
    assert!(logs.len() > 5, "{logs:?}");
    drop(late);
    let mut late = managed.follow_log(id).unwrap().last(10).unwrap();
    for number in 11..=30 {
        let expected = format!("line {number}");
        assert_eq!(line(&mut early), expected);
        if number > 20 {
            assert_eq!(line(&mut late), expected);
        }
    }
    nothing(&mut early);
    nothing(&mut late);
}

#[test]
fn the_embedder_hears_each_line_once_when_the_log_was_opened_before_the_plugin_was_loaded() {
    let managed = Managed::new("log-tap");
    let id = managed.installed(managed.package("1", &[]));
    let _ = managed.host.unload(id);
    let follower = managed.follow_log(id).unwrap();
    managed.run_printing(id, 1..=3);
    let mut heard = managed.host.output.texts(id);
    heard.retain(|line| !UNASKED.contains(&&**line));
    assert_eq!(heard, ["line 1", "line 2", "line 3"]);
    drop(follower);
}

#[test]
fn only_an_installed_plugin_that_the_host_runs_has_a_log() {
    let managed = Managed::new("log-refused");
    let unknown = InstallationId::generate();
    let error = managed.follow_log(unknown).unwrap_err();
    assert_matches!(error, Error::NotInstalled(id) if id == unknown);
    assert!(!managed.folder(unknown).exists());
    managed.install_external(manifest("outside")).unwrap();
    let outside = managed.list().unwrap()[0].id();
    let error = managed.follow_log(outside).unwrap_err();
    assert_matches!(error, Error::Unsupported(_));
    managed.remove(outside).unwrap();
    let error = managed.follow_log(outside).unwrap_err();
    assert_matches!(error, Error::NotInstalled(id) if id == outside);
}

#[test]
fn it_ends_with_the_plugin_that_was_not_even_loaded() {
    let managed = Managed::with_small_logs("log-removed");
    let id = managed.installed(managed.package("1", &[]));
    managed.run_printing(id, 1..=5);
    let mut follower = managed.follow_log(id).unwrap().last(1).unwrap();
    thread::scope(|scope| {
        let ended = scope.spawn(|| {
            assert_eq!(line(&mut follower), "line 5");
            follower.next(LONG).unwrap_err()
        });
        managed.remove(id).unwrap();
        assert_matches!(ended.join().unwrap(), Error::NotInstalled(removed) if removed == id);
    });
    let error = managed.follow_log(id).unwrap_err();
    assert_matches!(error, Error::NotInstalled(removed) if removed == id);
    managed.expect_nothing_at_all();
}

#[test]
fn a_log_that_is_opened_while_its_plugin_is_removed_leaves_nothing() {
    let store = Arc::new(FailingStore::default());
    let managed = Managed::over(store.clone(), "log-meets-removal", settings());
    let id = managed.installed(managed.package("1", &[]));
    let held = store.hold(Done::Get);
    thread::scope(|scope| {
        let followed = scope.spawn(|| managed.follow_log(id));
        held.expect(LONG);
        managed.remove(id).unwrap();
        // It goes on with the record that it has read.
        drop(held);
        let error = followed.join().unwrap().unwrap_err();
        assert_matches!(error, Error::NotInstalled(removed) if removed == id);
    });
    managed.expect_nothing_at_all();
}

#[test]
fn a_host_that_is_shut_down_still_shows_what_was_printed() {
    let managed = Managed::new("log-after");
    let id = managed.running(managed.package("1", &[]));
    managed.print(id, "the last");
    let report = managed.host.shutdown(LONG);
    assert!(report.is_complete(), "{report:?}");
    let mut follower = managed.follow_log(id).unwrap().last(1).unwrap();
    assert_eq!(line(&mut follower), "the last");
    nothing(&mut follower);
}

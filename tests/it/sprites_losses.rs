//! What is lost of a sprite or of the way to it: its connection in the middle, the sprite itself, its files. The plugin is
//! not to blame: nothing of that is counted as a restart, which these hosts allow none of, and it is active again
//! with whatever is left.

use std::fs;
use std::ops::Deref;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use plugin_runner::ReportedState::Restarting;
use plugin_runner::manager::PackageSource;
use plugin_runner::plugin_log::{Followed, Follower};
use plugin_runner::protocol::{Manifest, Transport};
use plugin_runner::report::EndCause;
use plugin_runner::runtime::SpritesSettings;
use plugin_runner::store::{Record, Source};
use plugin_runner::{
    ErrorKind, InstallationId, Manager, ManagerSettings, RuntimeProvider, Session,
};
use serde_json::json;

use crate::fake_sprites;
use crate::sprites::{Answer, Fake, Fault, SocketFault};
use crate::support::events::Details as _;
use crate::support::host::{TestHost, active, supervised};
use crate::support::lifeline::Lifeline;
use crate::support::plugin::{TRANSPORTS, call, manifest, package};
use crate::support::{LONG, failed, names, number, wait_until, wait_within};

const BASE: &str = "/home/sprite/plugin-runner";

/// For what waits for several steps of a ladder.
const LADDER: Duration = Duration::from_secs(90);

/// What plugins are told to do: to hold a lock for as long as they live, and to leave a line in their data.
const STARTS: &[&str] = &["alone", "write-file", "starts"];

/// A host whose plugins run on sprites.
struct Stage {
    host: TestHost,
    fake: Fake,
}

impl Deref for Stage {
    type Target = TestHost;

    fn deref(&self) -> &TestHost {
        &self.host
    }
}

impl Stage {
    fn new(test: &'static str) -> Self {
        let fake = Fake::start();
        let settings = SpritesSettings::new(fake.token()).api_url(fake.url());
        let host = TestHost::with(test, |setup| {
            setup.policy(|policy| {
                policy
                    .max_restart_attempts(0)
                    .crash_threshold(Duration::from_secs(3600))
            });
            setup.run_elsewhere(move |builder, url| {
                builder
                    .runtime_provider(RuntimeProvider::Sprites)
                    .sprites(settings)
                    .rpc_base_url(url)
            });
        });
        Self { host, fake }
    }

    /// An archive of the scripted plugin, or of what `script` says instead.
    fn archive(&self, version: &str, transport: Transport, script: Option<&str>) -> PathBuf {
        let manifest = Self::manifest(version, transport);
        let become_it = format!(
            "export FIXTURE_LIFELINE={}\nexec '{}' \"$@\"",
            self.lifelines.address(),
            env!("CARGO_BIN_EXE_plugin-runner-fixture"),
        );
        let script = format!("#!/bin/sh\n{}\n", script.unwrap_or(&become_it));
        let files: [(&str, &[u8], u32); 2] = [
            ("run", script.as_bytes(), 0o755),
            ("assets/note.txt", b"packed", 0o644),
        ];
        let name = format!("{version}-{transport}.zip");
        package(self.folder(), &name, &manifest, &files)
    }

    fn manifest(version: &str, transport: Transport) -> Manifest {
        let words = ["version", version].into_iter();
        let words = words.chain(STARTS.iter().copied());
        Manifest {
            command: "./run".to_owned(),
            args: words.map(str::to_owned).collect(),
            version: version.to_owned(),
            transport,
            ..manifest("lossy")
        }
    }

    #[track_caller]
    fn running(&self, transport: Transport) -> Plugin<'_> {
        let archive = self.archive("1", transport, None);
        let manifest = Self::manifest("1", transport);
        let session = self.run(Record::supervised(manifest, Source::Archive(archive)));
        Plugin {
            stage: self,
            process: self.lifelines.next(),
            session,
        }
    }

    fn sprite(&self, id: InstallationId) -> String {
        let mut sprites = self.fake.sprites().into_iter();
        sprites
            .find(|name| name.ends_with(&id.to_string()))
            .unwrap()
    }

    fn path(&self, id: InstallationId, path: &str) -> PathBuf {
        let path = format!("{BASE}/{path}");
        self.fake.path(&self.sprite(id), &path).unwrap()
    }

    /// Deletes a sprite from elsewhere.
    #[track_caller]
    fn delete(&self, sprite: &str) {
        let target = format!("/v1/sprites/{sprite}");
        let answer = fake_sprites::call(&self.fake, "DELETE", &target, "");
        assert_eq!(answer.status, 204);
    }

    fn uploads(&self) -> usize {
        self.fake.calls().count("PUT */fs/write")
    }
}

/// A plugin that is active.
struct Plugin<'a> {
    stage: &'a Stage,
    session: Session,
    process: Lifeline,
}

impl Plugin<'_> {
    fn sprite(&self) -> String {
        self.stage.sprite(self.session.id())
    }

    /// The process is the one that is known, and there never were two.
    #[track_caller]
    fn expect_well(&self) {
        active(&self.session);
        let answer = call(&self.session, "describe", &json!({})).unwrap();
        assert_eq!(answer["pid"], self.process.pid);
        let sprite = self.sprite();
        assert_eq!(self.stage.fake.sessions(&sprite), [self.process.pid]);
        assert_eq!(self.stage.fake.most_sessions(&sprite), 1);
        let path = self.stage.path(self.session.id(), "data/not-alone");
        assert!(!path.exists());
    }

    /// Another process has come, and no restart was counted.
    #[track_caller]
    fn expect_next(&mut self) {
        let before = self.process.pid;
        self.process = self.stage.lifelines.next();
        assert_ne!(self.process.pid, before);
        self.expect_well();
        let history = self.session.restart_history();
        let last = history.last().unwrap();
        assert_eq!(last.problem.cause(), Some(EndCause::ConnectionLost));
        assert!(!last.given_up, "{last:?}");
    }

    fn starts(&self) -> usize {
        let starts = self.stage.path(self.session.id(), "data/starts");
        fs::read_to_string(starts).unwrap().lines().count()
    }

    #[track_caller]
    fn stop(&self) {
        supervised(&self.session).stop(LONG).unwrap();
    }

    #[track_caller]
    fn start(&mut self) {
        supervised(&self.session).start().unwrap();
        self.process = self.stage.lifelines.next();
        active(&self.session);
    }

    /// Follows its log from now on.
    fn log(&self) -> Follower {
        self.session.follow_log().unwrap().from_end().unwrap()
    }
}

/// Waits until a line of the log has all of these words.
#[track_caller]
fn expect_logged(log: &mut Follower, words: &[&str]) {
    let deadline = Instant::now() + LONG;
    loop {
        let line = match log.next(deadline.saturating_duration_since(Instant::now())) {
            Ok(Followed::Line(line)) => line,
            other => panic!("no line with {words:?}: {other:?}"),
        };
        if words.iter().all(|word| line.contains(word)) {
            return;
        }
    }
}

/// The session's announcement and what the plugin says when it starts: once they are there, it has its environment.
const FIRST: usize = 3;

/// A fault of the socket at each frame from [`FIRST`] on.
fn cuts() -> impl Iterator<Item = SocketFault> {
    let ends = |at| {
        [
            SocketFault::CutAfterSent(at),
            SocketFault::CutWithin(at + 1),
            SocketFault::CloseAfterSent(at, 1000),
        ]
    };
    (FIRST..FIRST + 4).flat_map(ends)
}

/// Has the plugin print lines until it has printed enough.
#[track_caller]
fn print_until(plugin: &Plugin<'_>, is_enough: impl Fn() -> bool) {
    let mut number = 0;
    wait_within("the socket to be lost", LADDER, || {
        let line = json!({"line": format!("line {number}"), "stream": "stderr"});
        number += 1;
        let _ = call(&plugin.session, "log", &line);
        is_enough()
    });
}

#[test]
fn a_gap_is_in_the_log_wherever_the_socket_was_cut_and_the_process_is_the_same() {
    let stage = Stage::new("losses-gap");
    let mut plugin = stage.running(Transport::WebSocket);
    for cut in cuts() {
        println!("{cut:?}");
        plugin.stop();
        let mut log = plugin.log();
        let attached = stage.fake.calls().count("GET */exec/*");
        stage.fake.set(|switches| switches.sockets.push_back(cut));
        plugin.start();
        print_until(&plugin, || {
            stage.fake.calls().count("GET */exec/*") > attached
        });
        expect_logged(&mut log, &["lost", "is back after", "may be missing"]);
        let line = json!({"line": "after the gap", "stream": "stderr"});
        call(&plugin.session, "log", &line).unwrap();
        expect_logged(&mut log, &["after the gap"]);
        plugin.expect_well();
    }
    let history = plugin.session.restart_history();
    let is_stop = |cause| cause == Some(EndCause::Stopped);
    assert!(
        history.iter().all(|end| is_stop(end.problem.cause())),
        "{history:?}"
    );
    plugin.stop();
}

#[test]
fn a_stdio_plugin_whose_socket_was_cut_is_ended_and_comes_back_uncounted() {
    let stage = Stage::new("losses-stream");
    let mut plugin = stage.running(Transport::Stdio);
    for cut in cuts() {
        println!("{cut:?}");
        plugin.stop();
        stage.fake.set(|switches| switches.sockets.push_back(cut));
        let mut events = stage.events();
        plugin.start();
        let before = plugin.process.pid;
        print_until(&plugin, || !plugin.process.is_alive());
        let change = events.until(plugin.session.id(), Restarting);
        assert_eq!(change.details()["cause"], "connection_lost", "{change:?}");
        assert_eq!(change.details()["restarts"], 0, "{change:?}");
        plugin.expect_next();
        assert_ne!(plugin.process.pid, before);
    }
    plugin.stop();
}

/// The service is away for longer than a plugin may run on without its socket, and for less.
#[test]
fn a_service_that_is_away_for_a_minute_costs_no_restart() {
    if number("PLUGIN_RUNNER_LONG").is_none_or(|number| number == 0) {
        return;
    }
    for transport in TRANSPORTS {
        for seconds in [45, 75] {
            println!("{transport}, {seconds} s");
            let stage = Stage::new("losses-minute");
            let mut plugin = stage.running(transport);
            let before = stage.uploads();
            stage.fake.set(|switches| switches.away = true);
            let (began, time) = (Instant::now(), Duration::from_secs(seconds));
            wait_within("the outage to be over", LADDER, || began.elapsed() >= time);
            stage.fake.set(|switches| switches.away = false);
            if transport == Transport::WebSocket && seconds < 60 {
                let sprite = plugin.sprite();
                wait_within("its socket", LADDER, || stage.fake.attached(&sprite) == 1);
                plugin.expect_well();
                assert_eq!(plugin.session.restart_history(), []);
            } else {
                plugin.process.expect_end();
                plugin.expect_next();
                assert_eq!(plugin.starts(), 2);
            }
            assert_eq!(stage.uploads(), before);
            plugin.stop();
        }
    }
}

#[test]
fn a_date_to_wait_for_is_no_reason_to_wait() {
    let stage = Stage::new("losses-date");
    // An hour from now by a clock that is right, or now by one that is an hour off.
    let later = SystemTime::now() + Duration::from_secs(3600);
    let date = rfc7231(later);
    for pattern in ["POST /v1/sprites", "PUT */fs/write", "GET */exec"] {
        for status in [429, 503] {
            let answer = Answer::error(status, "busy", "later").with("Retry-After", &date);
            stage
                .fake
                .set(|switches| switches.next(1, pattern, Fault::Answer(answer)));
        }
    }
    let plugin = stage.running(Transport::Stdio);
    assert_eq!(plugin.session.restart_history(), []);
    plugin.stop();
}

/// A date as in headers.
fn rfc7231(time: SystemTime) -> String {
    let seconds = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let output = std::process::Command::new("date")
        .args(["-u", "-d", &format!("@{seconds}"), "+%a, %d %b %Y %T GMT"])
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_sprite_that_was_deleted_elsewhere_is_made_again() {
    for transport in TRANSPORTS {
        println!("{transport}");
        let stage = Stage::new("losses-deleted");
        let mut plugin = stage.running(transport);
        let uploads = stage.uploads();
        stage.delete(&plugin.sprite());
        plugin.process.expect_end();
        plugin.expect_next();
        assert_eq!(plugin.starts(), 1, "its data was on the sprite");
        assert_eq!(stage.uploads(), 2 * uploads);

        plugin.stop();
        stage.delete(&plugin.sprite());
        plugin.start();
        plugin.expect_well();
        assert_eq!(stage.uploads(), 3 * uploads);
        assert_eq!(stage.fake.sprites().len(), 1);
        plugin.stop();
    }
}

#[test]
fn a_stop_of_what_was_deleted_elsewhere_is_done_at_once() {
    for transport in TRANSPORTS {
        let stage = Stage::new("losses-deleted-at-stop");
        let plugin = stage.running(transport);
        let sprite = plugin.sprite();
        std::thread::scope(|scope| {
            scope.spawn(|| stage.delete(&sprite));
            plugin.stop();
        });
        plugin.process.expect_end();
    }
}

/// Each of the requests of a start finds that the sprite is gone, or, where it was made just now, is not there yet.
#[test]
fn a_sprite_that_goes_during_a_start_is_no_failure_of_the_plugin() {
    let missing = Answer::json(404, &json!({"error": "sprite not found"}));
    for pattern in [
        "GET */fs/read",
        "GET */fs/list",
        "PUT */fs/write",
        "GET */exec",
    ] {
        for skipped in 0..3 {
            println!("{pattern}, {skipped}");
            let stage = Stage::new("losses-going");
            stage.fake.set(|switches| {
                switches.next(skipped, pattern, Fault::Delay(Duration::ZERO));
                switches.next(1, pattern, Fault::Answer(missing.clone()));
            });
            let plugin = stage.running(Transport::Stdio);
            plugin.expect_well();
            plugin.stop();
        }
    }
}

#[test]
fn a_sprite_that_was_made_again_elsewhere_is_filled_again() {
    for transport in TRANSPORTS {
        println!("{transport}");
        let stage = Stage::new("losses-again");
        let mut plugin = stage.running(transport);
        let (sprite, uploads) = (plugin.sprite(), stage.uploads());
        plugin.stop();
        stage.delete(&sprite);
        assert_eq!(fake_sprites::create(&stage.fake, &sprite).status, 201);
        plugin.start();
        plugin.expect_well();
        assert_eq!(stage.uploads(), 2 * uploads);
        assert_eq!(plugin.starts(), 1);

        // The same in the middle of its life.
        stage.delete(&sprite);
        assert_eq!(fake_sprites::create(&stage.fake, &sprite).status, 201);
        plugin.process.expect_end();
        plugin.expect_next();
        assert_eq!(stage.uploads(), 3 * uploads);
        plugin.stop();
    }
}

#[test]
fn a_release_without_its_marker_is_brought_again_and_what_the_plugin_wrote_is_kept() {
    let stage = Stage::new("losses-marker");
    let mut plugin = stage.running(Transport::WebSocket);
    let id = plugin.session.id();
    let releases = stage.path(id, "releases");
    let release = releases.join(&names(&releases)[0]);
    for damage in ["gone", "torn", "another's"] {
        println!("{damage}");
        plugin.stop();
        fs::write(release.join("own.txt"), damage).unwrap();
        fs::write(release.join("assets/note.txt"), "half").unwrap();
        let marker = release.join(".complete");
        let whole = fs::read(&marker).unwrap();
        match damage {
            "gone" => fs::remove_file(&marker).unwrap(),
            "torn" => fs::write(&marker, &whole[..whole.len() / 2]).unwrap(),
            _ => fs::write(&marker, [b"x", &*whole].concat()).unwrap(),
        }
        let uploads = stage.uploads();
        plugin.start();
        plugin.expect_well();
        assert!(stage.uploads() > uploads);
        let note = fs::read_to_string(release.join("assets/note.txt"));
        assert_eq!(note.unwrap(), "packed");
        let own = fs::read_to_string(release.join("own.txt"));
        assert_eq!(own.unwrap(), damage);
        assert_eq!(fs::read(marker).unwrap(), whole);
    }
    assert_eq!(plugin.starts(), 4);
    plugin.stop();
}

#[test]
fn a_version_that_fails_leaves_the_files_of_the_one_before_as_they_were() {
    let stage = Stage::new("losses-back");
    let settings = ManagerSettings::default().activate_timeout(LONG);
    let manager = Manager::with_settings((*stage.host).clone(), settings).unwrap();
    for transport in TRANSPORTS {
        println!("{transport}");
        let first = PackageSource::file(stage.archive("1", transport, None));
        let id = manager.install(first).unwrap().id();
        manager.activate(id, LONG).unwrap();
        let own = |sha256: &str, file: &str| stage.path(id, &format!("releases/{sha256}/{file}"));
        let sha256 = |id| {
            manager
                .get(id)
                .unwrap()
                .record()
                .stored_archive()
                .unwrap()
                .to_owned()
        };
        let old = sha256(id);
        fs::create_dir(own(&old, "state")).unwrap();
        fs::write(own(&old, "state/own.txt"), "of the first").unwrap();

        // It has all that the first wrote, changes it, and fails.
        let script = "cat state/own.txt > $PLUGIN_DATA_DIR/seen
            echo changed > state/own.txt; echo more > state/more.txt; exit 7";
        let failing = PackageSource::file(stage.archive("2", transport, Some(script)));
        failed(ErrorKind::RolledBack, manager.update_package(id, failing));
        assert_eq!(sha256(id), old);
        active(&manager.session(id).unwrap());
        assert_eq!(names(&own(&old, "state")), ["own.txt"]);
        let kept = fs::read_to_string(own(&old, "state/own.txt")).unwrap();
        assert_eq!(kept, "of the first");
        let seen = fs::read_to_string(stage.path(id, "data/seen")).unwrap();
        assert_eq!(seen, "of the first");

        // A good one takes them along, and leaves those of the first for going back.
        let third = PackageSource::file(stage.archive("3", transport, None));
        manager.update_package(id, third).unwrap();
        let new = sha256(id);
        assert_ne!(new, old);
        let moved = fs::read_to_string(own(&new, "state/own.txt")).unwrap();
        assert_eq!(moved, "of the first");
        fs::write(own(&new, "state/own.txt"), "of the third").unwrap();
        let kept = fs::read_to_string(own(&old, "state/own.txt")).unwrap();
        assert_eq!(kept, "of the first");
        let mut releases = [old, new];
        releases.sort_unstable();
        assert_eq!(names(&stage.path(id, "releases")), releases);
        let starts = fs::read_to_string(stage.path(id, "data/starts")).unwrap();
        assert_eq!(starts.lines().count(), 3);
        manager.remove(id).unwrap();
    }
    wait_until("the sprites to be deleted", || {
        stage.fake.sprites().is_empty()
    });
}

//! Plugins that put named pipes, links and folders in the place of files that a host opens: their own program, and
//! what the host keeps of their package. Nobody else's calls are held up, and the host ends in time.
//!
//! `PLUGIN_RUNNER_PIPES=100` is how many rounds there are.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use plugin_runner::protocol::{Manifest, Transport};
use plugin_runner::store::{Record, Source};
use plugin_runner::{ReportedState, Session};
use serde_json::json;

use crate::support::attack::{Attack, trials};
use crate::support::host::TestHost;
use crate::support::plugin::{call, command, executable, fixture, manifest, over_stdio, package};
use crate::support::{LONG, wait_until};

/// Innocent plugins, each called all the while by a thread of its own.
const INNOCENTS: usize = 10;
/// No call takes longer, however busy the machine is.
const CALL: Duration = Duration::from_secs(5);
/// What a shutdown has.
const SHUTDOWN: Duration = Duration::from_secs(20);

/// A plugin whose program is this script, which may replace itself.
fn script(host: &TestHost, id: &str, script: &str) -> Record {
    let folder = host.folder().join(format!("plugin-{id}"));
    fs::create_dir_all(&folder).unwrap();
    let program = folder.join("program");
    executable(&program, script.as_bytes());
    over_stdio(command(host, id, program.to_str().unwrap(), &[]))
}

/// A plugin of a package with this script as its program.
fn packaged(host: &TestHost, id: &str, script: &str) -> Record {
    let manifest = Manifest {
        command: "./program".to_owned(),
        transport: Transport::Stdio,
        ..manifest(id)
    };
    let files: [(&str, &[u8], u32); 1] = [("program", script.as_bytes(), 0o755)];
    let archive = package(host.folder(), &format!("{id}.zip"), &manifest, &files);
    Record::supervised(manifest, Source::Archive(archive))
}

/// Puts something in the place of a file. Nothing is ever removed, only moved aside, and links lead to a folder of the
/// test's own: a host that follows them removes what it finds there.
const REPLACES: &str = r#"#!/bin/sh
replace() {
    old=$1; new="$1.new.$$"; shift
    "$@" "$new" && mv -fT "$old" "$old.was.$$"; mv -fT "$new" "$old"
}
link() { ln -s 'DECOY' "$1"; }
here=$(dirname "$0")
"#;

const LINKS_STAGING: &str = r#"cd "$here/../.." && [ -d releases ] && replace staging link"#;

/// What links lead to.
struct Decoy(PathBuf);

impl Decoy {
    /// A folder with what a host might take for its own leftovers.
    fn new(host: &TestHost) -> Self {
        let decoy = Self(host.folder().join("decoy"));
        fs::create_dir_all(decoy.0.join("kept")).unwrap();
        fs::create_dir_all(decoy.0.join("alone")).unwrap();
        for file in ["kept/file", "file", "kept.lock", ".hidden.lock"] {
            fs::write(decoy.0.join(file), file).unwrap();
        }
        decoy
    }

    fn script(&self, what: &str) -> String {
        let replaces = REPLACES.replace("DECOY", self.0.to_str().unwrap());
        format!("{replaces}{what}\nexit 1\n")
    }

    /// All is as it was, and nothing has come to it.
    #[track_caller]
    fn expect_untouched(&self) {
        let names = |folder: &Path| {
            let entries = fs::read_dir(folder).unwrap().flatten();
            let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
            names.sort();
            names
        };
        let there = names(&self.0);
        assert_eq!(
            there,
            [".hidden.lock", "alone", "file", "kept", "kept.lock"]
        );
        assert_eq!(names(&self.0.join("kept")), ["file"]);
        let content = fs::read_to_string(self.0.join("kept/file")).unwrap();
        assert_eq!(content, "kept/file");
    }
}

/// All that is done in one round, by plugins that crash in a loop.
fn attacks(host: &TestHost, decoy: &Decoy, round: usize) -> (Vec<Session>, Attack) {
    let name = |what: &str| format!("{what}-{round}");
    let mut records = vec![
        script(host, &name("pipe"), &decoy.script("replace \"$0\" mkfifo")),
        script(host, &name("folder"), &decoy.script("replace \"$0\" mkdir")),
        script(host, &name("link"), &decoy.script("replace \"$0\" link")),
        packaged(
            host,
            &name("complete"),
            &decoy.script("cd \"$here\" && replace .complete mkfifo"),
        ),
        packaged(host, &name("staging"), &decoy.script(LINKS_STAGING)),
        packaged(
            host,
            &name("program"),
            &decoy.script("cd \"$here\" && replace program mkfifo"),
        ),
    ];
    // Another plugin exchanges this one's program, at any moment between two looks at it.
    let victim = name("victim");
    records.push(script(host, &victim, ""));
    let program = host.folder().join(format!("plugin-{victim}/program"));
    // Not a script: its shell would open the pipe once more, and wait there until it has to be connected.
    fs::copy("/bin/false", &program).unwrap();
    let attack = Attack::of(host, &name("swap"));
    let swapping = attack.record(host, &name("swap"), &["swap", program.to_str().unwrap()]);
    records.push(swapping);
    let sessions = records
        .into_iter()
        .map(|record| host.install(record))
        .collect();
    (sessions, attack)
}

#[test]
fn plugins_that_replace_files_by_pipes_hold_up_nobody() {
    let mut host = TestHost::with("pipes", |setup| {
        setup.policy(|policy| {
            policy
                .max_restart_attempts(6)
                .max_backoff(Duration::from_millis(5))
        });
    });
    let innocents: Vec<Session> = (0..INNOCENTS)
        .map(|number| {
            let mut record = fixture(&host, Transport::Stdio, &["behave"]);
            record.manifest.id = format!("innocent-{number}");
            host.run(record)
        })
        .collect();
    let decoy = Decoy::new(&host);
    let over = AtomicBool::new(false);
    let rounds = trials("PLUGIN_RUNNER_PIPES", 3);
    let slowest = std::thread::scope(|scope| {
        let callers: Vec<_> = innocents
            .iter()
            .map(|innocent| scope.spawn(|| call_until(innocent, &over)))
            .collect();
        // Ends the callers also if a round panics.
        let _over = Over(&over);
        for round in 0..rounds {
            attack_once(&host, &decoy, round);
        }
        over.store(true, Ordering::SeqCst);
        let slowest = callers.into_iter().map(|caller| caller.join().unwrap());
        slowest.max().unwrap()
    });
    println!("pipes: {rounds} rounds, the slowest innocent call took {slowest:?}");
    assert!(slowest < CALL, "an innocent call took {slowest:?}");
    let began = Instant::now();
    let report = host.take().shutdown(SHUTDOWN);
    assert!(report.is_complete(), "{report:?}");
    assert!(began.elapsed() < SHUTDOWN, "{:?}", began.elapsed());
}

#[test]
fn a_link_in_the_place_of_staging_leads_a_host_nowhere() {
    let host = TestHost::with("staging-link", |setup| {
        setup.policy(|policy| policy.max_restart_attempts(2));
    });
    let decoy = Decoy::new(&host);
    let session = host.start(packaged(&host, "staging", &decoy.script(LINKS_STAGING)));
    wait_until("the plugin to be given up", || {
        session.reported_state() == ReportedState::Errored
    });
    decoy.expect_untouched();
    // A new session looks for what the last one left.
    host.unload(session.id()).unwrap();
    let again = host.load(session.id()).unwrap();
    again.supervised().unwrap().start().unwrap();
    wait_until("the plugin to be given up again", || {
        again.reported_state() == ReportedState::Errored
    });
    decoy.expect_untouched();
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Calls one after the other; gives how long the slowest took.
fn call_until(session: &Session, over: &AtomicBool) -> Duration {
    let mut slowest = Duration::ZERO;
    while !over.load(Ordering::SeqCst) {
        let began = Instant::now();
        call(session, "echo", &json!({})).unwrap();
        slowest = slowest.max(began.elapsed());
        // They are to notice, not to be a load of their own.
        std::thread::park_timeout(Duration::from_millis(5));
    }
    slowest
}

#[track_caller]
fn attack_once(host: &TestHost, decoy: &Decoy, round: usize) {
    let (sessions, attack) = attacks(host, decoy, round);
    for session in &sessions {
        session.supervised().unwrap().start().unwrap();
    }
    attack.wait_until_ready();
    let (swapping, crashing) = sessions.split_last().unwrap();
    for session in crashing {
        let what = format!("{} to be given up", session.manifest().id);
        wait_until(&what, || session.reported_state() == ReportedState::Errored);
    }
    // And once more, with whatever is in place now.
    for session in crashing {
        session.supervised().unwrap().start().unwrap();
    }
    for session in crashing.iter().chain([swapping]) {
        let began = Instant::now();
        session.supervised().unwrap().stop(LONG).unwrap();
        assert!(began.elapsed() < CALL, "a stop took {:?}", began.elapsed());
        let id = session.id();
        host.unload(id).unwrap();
    }
    attack.expect_all_dead(Duration::ZERO);
    decoy.expect_untouched();
}

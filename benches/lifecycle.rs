//! The life of supervised plugins: from the load until active, the first time and warm; stopping;
//! from a crash until it is noticed and until the next process is up and active, with a back-off of
//! zero; many at once. Beside each what the system takes for the same by itself: the same program
//! spawned, killed, waited for, until its first line of output.
//!
//! `cargo bench --bench lifecycle` measures; run by `cargo test` it does everything once. Figures are
//! from one run: quote the ratios, machines differ.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Cursor, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, unbounded};
use plugin_runner::listener::Listener;
use plugin_runner::protocol::method::Ping;
use plugin_runner::store::{Record, Source};
use plugin_runner::{
    ActiveState, Host, HostBuilder, InstallationId, ReportedState, RestartPolicy, Session,
    StateChange,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use support::plugins::{Folder, builder, fixture, manifest};
use support::{Bench, By, Case, Effort, LONG, Sample, Target, Unit};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

const TRANSPORTS: [&str; 2] = ["stdio", "websocket"];

const SPAWNED: &str = "spawn, first line";
const KILLED: &str = "kill + wait";
const RESPAWNED: &str = "kill + wait, spawn, first line";

fn main() {
    let bench = Bench::new("lifecycle", "supervised plugins come and go");
    first_start(&bench);
    warm_start(&bench);
    stop(&bench);
    for transport in ["none", "stdio", "websocket"] {
        crash(&bench, transport);
    }
    many(&bench);
}

/// From the load until active, with an archive that nobody has seen before.
fn first_start(bench: &Bench) {
    let starts = bench.pick(1, 2, 5);
    let folder = Folder::new("first");
    let archive = archive(bench, &folder, "plugin.zip", &[]);
    let archive = archive.as_path();
    let alone = folder.path().join("alone");
    let system = Case::new("unpack + fsync, spawn, first line", || {
        || {
            times(Unit::Milliseconds, starts, || {
                fs::create_dir(&alone).unwrap();
                let began = Instant::now();
                let program = unpack(archive, &alone);
                let child = spawn(&program, PLAIN);
                let took = began.elapsed();
                end(child);
                fs::remove_dir_all(&alone).unwrap();
                took
            })
        }
    });
    let mut cases = vec![system.unit(Unit::Milliseconds)];
    for transport in TRANSPORTS {
        let case = Case::new(transport, move || {
            let host = Running::start(&format!("first-{transport}"));
            move || {
                times(Unit::Milliseconds, starts, || {
                    let id = host.install(archive, transport);
                    let took = host.load(id);
                    host.host.unload(id).unwrap();
                    fs::remove_dir_all(host.folder.path().join(id.to_string())).unwrap();
                    took
                })
            }
        });
        let with = "unpack + fsync, spawn, first line";
        cases.push(
            case.unit(Unit::Milliseconds)
                .against(with, By::P50, Target::None),
        );
    }
    bench.group("load to active, first time", cases);
}

/// From the load until active, with an archive that is unpacked already.
fn warm_start(bench: &Bench) {
    let starts = bench.pick(1, 10, 20);
    let folder = Folder::new("warm");
    let small = archive(bench, &folder, "small.zip", &[]);
    // What reading and hashing it would cost could not be overlooked.
    let mebibytes = bench.pick(1, 40, 40);
    let besides = vec![0; mebibytes * 1024 * 1024];
    let large = archive(bench, &folder, "large.zip", &besides);
    drop(besides);
    let system = Case::new(SPAWNED, || {
        || {
            times(Unit::Microseconds, starts, || {
                let began = Instant::now();
                let child = spawn(&fixture(), PLAIN);
                let took = began.elapsed();
                end(child);
                took
            })
        }
    });
    let mut cases = vec![system];
    let rows = [
        ("stdio".to_owned(), "stdio", &small),
        ("websocket".to_owned(), "websocket", &small),
        (
            format!("stdio, archive of {mebibytes} MiB"),
            "stdio",
            &large,
        ),
    ];
    for (name, transport, archive) in rows {
        let case = Case::new(name.clone(), move || {
            let host = Running::start(&format!("warm, {name}"));
            let id = host.install(archive, transport);
            move || {
                times(Unit::Microseconds, starts, || {
                    let took = host.load(id);
                    host.host.unload(id).unwrap();
                    took
                })
            }
        });
        cases.push(case.against(SPAWNED, By::P50, Target::AtMost(4.0)));
    }
    bench.group("load to active, warm", cases);
}

/// From the request until nothing is left.
fn stop(bench: &Bench) {
    let stops = bench.pick(1, 10, 20);
    let system = Case::new("signal + wait", || {
        || {
            times(Unit::Microseconds, stops, || {
                let mut child = spawn(&fixture(), PLAIN);
                let began = Instant::now();
                kill_process(Pid::from_child(&child), Signal::INT).unwrap();
                child.wait().unwrap();
                began.elapsed()
            })
        }
    });
    let mut cases = vec![system];
    for transport in TRANSPORTS {
        let case = Case::new(transport, move || {
            let host = Running::start(&format!("stop-{transport}"));
            let id = host.install_program(transport, &["behave"]);
            let session = host.host.load(id).unwrap();
            session.set_active_state(ActiveState::Inactive).unwrap();
            session.wait_for(ReportedState::Inactive, LONG).unwrap();
            move || {
                // The host goes last.
                let _host = &host;
                times(Unit::Microseconds, stops, || {
                    session.set_active_state(ActiveState::Active).unwrap();
                    session.wait_for(ReportedState::Active, LONG).unwrap();
                    let began = Instant::now();
                    let report = session.supervised().unwrap().stop(LONG).unwrap();
                    let took = began.elapsed();
                    assert!(!report.killed && report.exit.is_some());
                    took
                })
            }
        });
        cases.push(case.against("signal + wait", By::Difference, Target::None));
    }
    bench.group("stop", cases);
}

/// From the end of a process until it is noticed, the next is up, and that is active; `none` is a
/// plugin that never connects.
fn crash(bench: &Bench, transport: &'static str) {
    let crashes = bench.pick(2, 20, 40);
    let system = |name, figure: fn(&Crash) -> Duration| {
        Case::new(name, move || {
            let mut current = Current(Some(spawn(&fixture(), TELLING)));
            move || {
                times(Unit::Microseconds, crashes, || {
                    let mut child = current.0.take().unwrap();
                    let began = Instant::now();
                    child.kill().unwrap();
                    child.wait().unwrap();
                    let noticed = began.elapsed();
                    current.0 = Some(spawn(&fixture(), TELLING));
                    let up = began.elapsed();
                    let active = up;
                    figure(&Crash {
                        noticed,
                        up,
                        active,
                    })
                })
            }
        })
    };
    let host = RefCell::new(None);
    let row = |name: &str, figure: fn(&Crash) -> Duration| {
        let host = &host;
        Case::new(name, move || {
            move || {
                let mut host = host.borrow_mut();
                let host = host.get_or_insert_with(|| Crashing::start(transport));
                times(Unit::Microseconds, crashes, || figure(&host.crash()))
            }
        })
    };
    let mut cases = vec![
        system(KILLED, |crash| crash.noticed),
        row("noticed", |crash| crash.noticed).against(KILLED, By::Difference, Target::None),
        system(RESPAWNED, |crash| crash.up),
        row("next up", |crash| crash.up).against(
            RESPAWNED,
            By::Difference,
            Target::AtMost(1_000.0),
        ),
    ];
    if transport != "none" {
        let active = row("next active", |crash| crash.active);
        cases.push(active.against(RESPAWNED, By::Difference, Target::None));
    }
    let title = match transport {
        "none" => "crash of one not connected".to_owned(),
        transport => format!("crash, active over {transport}"),
    };
    bench.group(&title, cases);
}

/// What one crash took, from the kill on.
struct Crash {
    noticed: Duration,
    up: Duration,
    active: Duration,
}

/// A plugin that is killed again and again.
struct Crashing {
    _running: Running,
    session: Session,
    /// Where the next process says that it is up, and when.
    ups: Receiver<(Pid, Instant)>,
    changes: Receiver<StateChange>,
    settled: ReportedState,
    current: Pid,
}

impl Crashing {
    fn start(transport: &str) -> Self {
        let (up, ups) = unbounded();
        let policy = RestartPolicy::default()
            .max_restart_attempts(u32::MAX)
            .max_backoff(Duration::ZERO);
        let running = Running::with(&format!("crash-{transport}"), |builder| {
            builder.restart_policy(policy).on_output(move |_, _, line| {
                if let Some(pid) = pid(&line.text) {
                    let _ = up.send((pid, Instant::now()));
                }
            })
        });
        let changes = running.host.subscribe();
        let (transport, args, settled) = match transport {
            "none" => ("websocket", TELLING, ReportedState::Connecting),
            transport => (
                transport,
                ["echo-env", "behave"].as_slice(),
                ReportedState::Active,
            ),
        };
        let id = running.install_program(transport, args);
        let session = running.host.load(id).unwrap();
        let (current, _) = ups.recv_timeout(LONG).unwrap();
        until(&changes, settled);
        Self {
            _running: running,
            session,
            ups,
            changes,
            settled,
            current,
        }
    }

    fn crash(&mut self) -> Crash {
        if self.settled == ReportedState::Active {
            // What follows a connection is over when it answers.
            assert!(self.session.call(&Ping {}, LONG).unwrap().pong);
        }
        // So is what followed the crash before.
        let since = Instant::now();
        while is_looking() {
            assert!(since.elapsed() < LONG, "a look does not end");
            std::thread::yield_now();
        }
        let (began, began_at) = (Instant::now(), SystemTime::now());
        kill_process(self.current, Signal::KILL).unwrap();
        // By the times in the changes: the receiver's own way to them, which yields the processor to
        // whatever else there is, is not what is measured.
        let noticed = until(&self.changes, ReportedState::Restarting);
        let noticed = noticed.duration_since(began_at).unwrap();
        let (next, at) = self.ups.recv_timeout(LONG).unwrap();
        let up = at - began;
        let active = until(&self.changes, self.settled);
        let active = active.duration_since(began_at).unwrap();
        assert_ne!(self.current, next);
        self.current = next;
        Crash {
            noticed,
            up,
            active,
        }
    }
}

/// Whether what an ended process left is being looked for; where there is no `/proc` it never is.
fn is_looking() -> bool {
    let threads = fs::read_dir("/proc/self/task");
    threads.into_iter().flatten().flatten().any(|thread| {
        let name = fs::read_to_string(thread.path().join("comm"));
        name.is_ok_and(|name| name == "look\n")
    })
}

/// Waits for the next change to this state; gives when it was.
fn until(changes: &Receiver<StateChange>, state: ReportedState) -> SystemTime {
    loop {
        let change = changes.recv_timeout(LONG).unwrap();
        if change.to == state {
            return change.at;
        }
    }
}

/// From the load of the first until the last is active.
fn many(bench: &Bench) {
    let count = bench.pick(3, 50, 50);
    let starts = bench.pick(1, 1, 2);
    let system = Case::new("spawn, first lines", || {
        || {
            times(Unit::Milliseconds, starts, || {
                let began = Instant::now();
                let mut children: Vec<Child> =
                    (0..count).map(|_| begin(&fixture(), PLAIN)).collect();
                children.iter_mut().for_each(first_line);
                let took = began.elapsed();
                children.into_iter().for_each(end);
                took
            })
        }
    });
    let mut cases = vec![system.unit(Unit::Milliseconds)];
    for transport in TRANSPORTS {
        let case = Case::new(transport, move || {
            let host = Running::start(&format!("many-{transport}"));
            let ids: Vec<InstallationId> = (0..count)
                .map(|_| host.install_program(transport, &["behave"]))
                .collect();
            move || {
                times(Unit::Milliseconds, starts, || {
                    let began = Instant::now();
                    let sessions: Vec<Session> =
                        ids.iter().map(|id| host.host.load(*id).unwrap()).collect();
                    for session in &sessions {
                        session.wait_for(ReportedState::Active, LONG).unwrap();
                    }
                    let took = began.elapsed();
                    for id in &ids {
                        host.host.unload(*id).unwrap();
                    }
                    took
                })
            }
        });
        cases.push(case.unit(Unit::Milliseconds).against(
            "spawn, first lines",
            By::P50,
            Target::None,
        ));
    }
    bench.group(&format!("launch of {count} at once"), cases);
}

/// A host that listens, in a folder of its own.
struct Running {
    host: Host,
    _listener: Listener,
    /// Goes last.
    folder: Folder,
}

impl Running {
    fn start(name: &str) -> Self {
        Self::with(name, |builder| builder)
    }

    fn with(name: &str, settings: impl FnOnce(HostBuilder) -> HostBuilder) -> Self {
        let folder = Folder::new(name);
        let host = settings(builder(&folder)).build().unwrap();
        let listener = host.listen("127.0.0.1:0").unwrap();
        Self {
            host,
            _listener: listener,
            folder,
        }
    }

    /// Stores a plugin from an archive, to be active once it is loaded.
    fn install(&self, archive: &Path, transport: &str) -> InstallationId {
        let source = Source::Archive(archive.to_owned());
        self.put("./plugin".as_ref(), &["behave"], transport, source)
    }

    /// Stores the fixture as a plugin, to be active once it is loaded.
    fn install_program(&self, transport: &str, args: &[&str]) -> InstallationId {
        let folder = fixture().parent().unwrap().to_owned();
        self.put(&fixture(), args, transport, Source::Directory(folder))
    }

    fn put(
        &self,
        command: &Path,
        args: &[&str],
        transport: &str,
        source: Source,
    ) -> InstallationId {
        let manifest = manifest(&json!({
            "id": "bench", "author": "bench", "name": "bench",
            "command": command, "args": args, "transport": transport,
        }));
        let mut record = Record::supervised(manifest, source);
        record.set_active_state(ActiveState::Active);
        let id = record.id;
        self.host.store().put(record).unwrap();
        id
    }

    /// Loads a plugin and waits until it is active; gives how long that took.
    fn load(&self, id: InstallationId) -> Duration {
        let began = Instant::now();
        let session = self.host.load(id).unwrap();
        session.wait_for(ReportedState::Active, LONG).unwrap();
        began.elapsed()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let report = self.host.shutdown(LONG);
        assert!(report.is_complete(), "{report:?}");
    }
}

/// A sample of durations.
fn times(unit: Unit, count: usize, measure: impl FnMut() -> Duration) -> Sample {
    let times: Vec<Duration> = std::iter::repeat_with(measure).take(count).collect();
    Sample::of_times(unit, &times)
}

/// What makes the fixture print a first line and wait; and one that holds its process id.
const PLAIN: &[&str] = &["hang-at", "start"];
const TELLING: &[&str] = &["echo-env", "hang-at", "start"];

/// Spawns the program and waits for its first line.
fn spawn(program: &Path, args: &[&str]) -> Child {
    let mut child = begin(program, args);
    first_line(&mut child);
    child
}

fn begin(program: &Path, args: &[&str]) -> Child {
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn first_line(child: &mut Child) {
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.as_mut().unwrap());
    output.read_line(&mut line).unwrap();
    let told = pid(&line);
    assert!(line == "started\n" || told == Some(Pid::from_child(child)));
}

/// A process that takes turns with the next; the last one ends with it.
struct Current(Option<Child>);

impl Drop for Current {
    fn drop(&mut self) {
        if let Some(child) = self.0.take() {
            end(child);
        }
    }
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The process id in the first line that the fixture prints.
fn pid(line: &str) -> Option<Pid> {
    let said: Value = serde_json::from_str(line).ok()?;
    Pid::from_raw(i32::try_from(said["pid"].as_i64()?).ok()?)
}

/// Writes an archive with the fixture, and a file besides if it is to be large.
fn archive(bench: &Bench, folder: &Folder, name: &str, besides: &[u8]) -> PathBuf {
    let program = match bench.effort() {
        // Packing the program of a development build takes half a minute.
        Effort::Smoke => format!("#!/bin/sh\nexec {} \"$@\"\n", fixture().display()).into_bytes(),
        Effort::Quick | Effort::Full => fs::read(fixture()).unwrap(),
    };
    let path = folder.path().join(name);
    let mut zip = ZipWriter::new(File::create(&path).unwrap());
    let deflated = SimpleFileOptions::default();
    let stored = deflated.compression_method(CompressionMethod::Stored);
    let files = [
        ("manifest.json", b"{}".as_slice(), deflated),
        ("plugin", &program, deflated.unix_permissions(0o755)),
        ("besides", besides, stored),
    ];
    for (name, content, options) in files {
        zip.start_file(name, options).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap();
    path
}

/// Unpacks an archive with nothing but what that takes; gives the program in it.
fn unpack(archive: &Path, folder: &Path) -> PathBuf {
    let bytes = fs::read(archive).unwrap();
    let mut zip = ZipArchive::new(Cursor::new(bytes)).unwrap();
    for index in 0..zip.len() {
        let mut entry = zip.by_index(index).unwrap();
        let mut file = File::create_new(folder.join(&*entry.name().unwrap())).unwrap();
        std::io::copy(&mut entry, &mut file).unwrap();
        file.set_permissions(fs::Permissions::from_mode(0o755))
            .unwrap();
        file.sync_all().unwrap();
    }
    File::open(folder).unwrap().sync_all().unwrap();
    folder.join("plugin")
}

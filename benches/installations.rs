//! A thousand installations in a database: installing one more, listing, getting, starting a hundred at
//! boot; and an archive at its limit of 50 MiB in and out, with the memory that takes. Beside installing
//! checking, unpacking and storing the same archive by hand, each file synced; beside listing and
//! getting the same in memory; beside the boot the same plugins loaded all at once, without a manager.
//!
//! `cargo bench --bench installations` measures; run by `cargo test` it does everything once with fewer.
//! Figures are from one run and one disk: quote the ratios.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::cell::RefCell;
use std::fs::{self, File};
use std::hint::black_box;
use std::io::{Cursor, Write as _};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use plugin_runner::manager::PackageSource;
use plugin_runner::package::{Archive, PackageLimits, unpack};
use plugin_runner::store::{MemoryStore, SqliteStore, Store};
use plugin_runner::{ActiveState, InstallationId, Manager, ReportedState};
use serde_json::json;
use support::plugins::{Folder, builder, fixture};
use support::{Bench, By, Case, LONG, Sample, Target, Unit, latencies};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

const BY_HAND: &str = "check, unpack, store, by hand";
const IN_MEMORY: &str = "in memory";
const ALL_AT_ONCE: &str = "load all at once";
/// Milliseconds.
const LIST_TARGET: f64 = 10.0;
const INSTALL_TARGET: f64 = 2.0;
/// KiB.
const MEMORY_TARGET: f64 = 8.0 * 1024.0;

/// Set for the process in which an archive comes in or goes out: what it does.
const ROLE: &str = "INSTALLATIONS_ROLE";
/// The archive that it is about.
const ARCHIVE: &str = "INSTALLATIONS_ARCHIVE";

fn main() {
    if let Ok(role) = std::env::var(ROLE) {
        return memory(&role);
    }
    let bench = Bench::new("installations", "plugins are installed and kept");
    many(&bench);
    boot(&bench);
    large(&bench);
}

fn manager(folder: &Folder) -> Manager {
    let store = Arc::new(SqliteStore::open(folder.path()).unwrap());
    Manager::new(builder(folder).store(store).build().unwrap()).unwrap()
}

/// A package of its own for each number: a manifest and a program of a few KiB.
fn package(number: usize, command: &Path) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default();
    let manifest = json!({
        "id": "bench", "author": "bench", "name": "bench", "version": number.to_string(),
        "command": command, "args": ["behave"], "transport": "stdio",
        "events_consumed": ["EventThreadPublished", "EventNodeUpdated"],
        "configuration_schema": {"fields": [
            {"type": "string", "id": "channel", "label": "Channel", "description": "Where to"},
            {"type": "number", "id": "limit", "label": "Limit", "description": "How much", "default": 5},
        ]},
    });
    zip.start_file("manifest.json", options).unwrap();
    zip.write_all(manifest.to_string().as_bytes()).unwrap();
    zip.start_file("program", options).unwrap();
    zip.write_all(&number.to_le_bytes().repeat(512)).unwrap();
    zip.finish().unwrap().into_inner()
}

fn many(bench: &Bench) {
    let count = bench.pick(5, 100, 1_000);
    let folder = Folder::new("many");
    let manager = manager(&folder);
    let program = fixture();
    let began = Instant::now();
    let ids: Vec<InstallationId> = (0..count)
        .map(|number| {
            let source = PackageSource::bytes(package(number, &program));
            manager.install(source).unwrap().id()
        })
        .collect();
    println!("{count} installed in {:.1?}", began.elapsed());
    let memory = MemoryStore::default();
    for record in manager.host().store().list().unwrap() {
        memory.put(record).unwrap();
    }
    let at_once = bench.pick(1, 5, 20);
    let number = RefCell::new(count);
    let next = || {
        *number.borrow_mut() += 1;
        package(*number.borrow(), &program)
    };
    let (by_hand, manager, memory) = (folder.path().join("by-hand"), &manager, &memory);
    let cases = vec![
        Case::new(BY_HAND, || {
            || {
                fs::create_dir(&by_hand).unwrap();
                let packages: Vec<_> = (0..at_once).map(|_| next()).collect();
                let mut packages = packages.into_iter();
                let sample = latencies(at_once, || {
                    install_by_hand(&by_hand, packages.next().unwrap());
                });
                fs::remove_dir_all(&by_hand).unwrap();
                sample
            }
        }),
        Case::new("install", || {
            || {
                let packages: Vec<_> = (0..at_once).map(|_| next()).collect();
                let mut packages = packages.into_iter();
                let mut installed = Vec::new();
                let sample = latencies(at_once, || {
                    let source = PackageSource::bytes(packages.next().unwrap());
                    installed.push(manager.install(source).unwrap().id());
                });
                for id in installed {
                    manager.remove(id).unwrap();
                }
                sample
            }
        })
        .against(BY_HAND, By::P50, Target::AtMost(INSTALL_TARGET)),
    ];
    let rounds = bench.pick(1, 2, 5);
    bench.group_of(&format!("one more than {count}"), rounds, cases);

    let lists = bench.pick(1, 5, 20);
    let target = if count == 1_000 {
        Target::AtMost(LIST_TARGET)
    } else {
        Target::None
    };
    let cases = vec![
        Case::new(IN_MEMORY, move || {
            move || times(lists, || assert_eq!(memory.list().unwrap().len(), count))
        }),
        Case::new("list", move || {
            move || times(lists, || assert_eq!(manager.list().unwrap().len(), count))
        })
        .against(IN_MEMORY, By::P50, Target::None)
        .absolute(target),
    ];
    let cases = cases.into_iter().map(|case| case.unit(Unit::Milliseconds));
    bench.group_of(&format!("all of {count}"), rounds, cases.collect());

    let gets = bench.pick(5, 500, 2_000);
    let ids = &ids;
    let cases = vec![
        Case::new(IN_MEMORY, move || {
            let mut ids = ids.iter().cycle();
            move || {
                latencies(gets, || {
                    black_box(memory.get(*ids.next().unwrap()).unwrap().unwrap());
                })
            }
        }),
        Case::new("get", move || {
            let mut ids = ids.iter().cycle();
            move || {
                latencies(gets, || {
                    black_box(manager.get(*ids.next().unwrap()).unwrap());
                })
            }
        })
        .against(IN_MEMORY, By::P50, Target::None),
    ];
    bench.group_of(&format!("one of {count}"), rounds, cases);
}

/// What an installation cannot do without, as somebody would write it who does only that: no crash is
/// thought of, but all is on the disk.
fn install_by_hand(folder: &Path, bytes: Vec<u8>) {
    let limits = PackageLimits::default();
    let archive = Archive::from_bytes(bytes.as_slice(), &limits).unwrap();
    let id = InstallationId::generate().to_string();
    unpack(&archive, &folder.join(&id), "program", &limits, &|| false).unwrap();
    for (name, content) in [("zip", &*bytes), ("record", archive.manifest_bytes())] {
        let mut file = File::create_new(folder.join(&id).with_extension(name)).unwrap();
        file.write_all(content).unwrap();
        file.sync_all().unwrap();
    }
    File::open(folder).unwrap().sync_all().unwrap();
}

fn boot(bench: &Bench) {
    let count = bench.pick(3, 20, 100);
    let folder = Folder::new("boot");
    let program = fixture();
    {
        let manager = manager(&folder);
        for number in 0..count {
            let source = PackageSource::bytes(package(number, &program));
            let installed = manager.install(source).unwrap();
            let mut record = installed.record().clone();
            record.set_active_state(ActiveState::Active);
            manager.host().store().put(record).unwrap();
        }
    }
    let folder = &folder;
    let cases = vec![
        Case::new(ALL_AT_ONCE, move || {
            move || {
                let store = Arc::new(SqliteStore::open(folder.path()).unwrap());
                let host = builder(folder).store(store).build().unwrap();
                let began = Instant::now();
                let records = host.store().list().unwrap();
                let sessions: Vec<_> = records
                    .iter()
                    .map(|record| host.load(record.id).unwrap())
                    .collect();
                for session in &sessions {
                    session.wait_for(ReportedState::Active, LONG).unwrap();
                }
                let took = began.elapsed();
                assert!(host.shutdown(LONG).is_complete());
                single(took)
            }
        }),
        Case::new("boot", move || {
            move || {
                let manager = manager(folder);
                let report = manager.boot(LONG).unwrap();
                assert_eq!(report.active.len(), count);
                assert!(manager.host().shutdown(LONG).is_complete());
                single(report.took)
            }
        })
        .against(ALL_AT_ONCE, By::P50, Target::None),
    ];
    let cases = cases.into_iter().map(|case| case.unit(Unit::Milliseconds));
    bench.group_of(
        &format!("boot of {count} active"),
        bench.pick(1, 2, 5),
        cases.collect(),
    );
}

/// An archive at its limit, with the memory that it takes beyond what was there before.
fn large(bench: &Bench) {
    let mebibytes = bench.pick(4, 49, 49);
    let folder = Folder::new("large");
    let manager = manager(&folder);
    let path = folder.path().join("large.zip");
    {
        let mut zip = ZipWriter::new(File::create(&path).unwrap());
        let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        zip.start_file("manifest.json", stored).unwrap();
        zip.write_all(br#"{"id":"large","author":"bench","name":"large","command":"./0"}"#)
            .unwrap();
        for number in 0..mebibytes {
            zip.start_file(number.to_string(), stored).unwrap();
            let content: Vec<u8> = (0..1_u32 << 18)
                .flat_map(|word| word.wrapping_mul(2_654_435_761).to_le_bytes())
                .collect();
            zip.write_all(&content).unwrap();
        }
        zip.finish().unwrap();
    }
    let (manager, path) = (&manager, &path);
    let rounds = bench.pick(1, 2, 5);
    let target = Target::AtMost(MEMORY_TARGET);
    let cases = [
        "install from a file",
        "install from a reader",
        "package, read to its end",
    ]
    .map(|role| Case::new(role, move || move || in_a_process(role, path)).absolute(target));
    let cases = cases.into_iter().map(|case| case.unit(Unit::KibiBytes));
    bench.group_of(
        &format!("memory for an archive of {mebibytes} MiB"),
        rounds,
        cases.collect(),
    );
    let cases = vec![
        Case::new("copy, check, unpack + fsync", move || {
            let alone = folder_of(path, "alone");
            move || {
                fs::create_dir(&alone).unwrap();
                let sample = times(1, || {
                    let copy = alone.join("copy.zip");
                    fs::copy(path, &copy).unwrap();
                    File::open(&copy).unwrap().sync_all().unwrap();
                    let limits = PackageLimits::default();
                    let archive = Archive::open(&copy, &limits).unwrap();
                    unpack(&archive, &alone.join("root"), "./0", &limits, &|| false).unwrap();
                });
                fs::remove_dir_all(&alone).unwrap();
                sample
            }
        }),
        Case::new("install from a file", move || {
            move || {
                let mut installed = None;
                let sample = times(1, || {
                    installed = Some(manager.install(PackageSource::file(path)).unwrap().id());
                });
                manager.remove(installed.unwrap()).unwrap();
                sample
            }
        })
        .against(
            "copy, check, unpack + fsync",
            By::P50,
            Target::AtMost(INSTALL_TARGET),
        ),
    ];
    let cases = cases.into_iter().map(|case| case.unit(Unit::Milliseconds));
    bench.group_of(
        &format!("time for an archive of {mebibytes} MiB"),
        rounds,
        cases.collect(),
    );
}

fn folder_of(path: &Path, name: &str) -> std::path::PathBuf {
    path.parent().unwrap().join(name)
}

fn single(took: Duration) -> Sample {
    Sample::single(Unit::Milliseconds.of(took))
}

/// So many times, in milliseconds.
fn times(count: usize, mut run: impl FnMut()) -> Sample {
    let times: Vec<Duration> = (0..count)
        .map(|_| {
            let began = Instant::now();
            run();
            began.elapsed()
        })
        .collect();
    Sample::of_times(Unit::Milliseconds, &times)
}

/// What an archive adds to the most memory of a process that does this with it first of all, in KiB: in
/// one that has done it before, what it has kept would hide it.
fn in_a_process(role: &str, archive: &Path) -> Sample {
    let output = Command::new(std::env::current_exe().unwrap())
        .env(ROLE, role)
        .env(ARCHIVE, archive)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{role}: {text}");
    Sample::single(text.trim().parse().unwrap())
}

/// The life of such a process.
fn memory(role: &str) {
    let path = std::env::var_os(ARCHIVE).unwrap();
    let folder = Folder::new("memory");
    let manager = manager(&folder);
    let grown = match role {
        "install from a file" => {
            let before = reset_peak();
            manager.install(PackageSource::file(&path)).unwrap();
            peak() - before
        }
        "install from a reader" => {
            let source = PackageSource::reader(File::open(&path).unwrap());
            let before = reset_peak();
            manager.install(source).unwrap();
            peak() - before
        }
        _ => {
            let id = manager.install(PackageSource::file(&path)).unwrap().id();
            let before = reset_peak();
            let mut reader = manager.package(id).unwrap().reader();
            let copied = std::io::copy(&mut reader, &mut std::io::sink()).unwrap();
            assert_eq!(copied, fs::metadata(&path).unwrap().len());
            peak() - before
        }
    };
    println!("{grown}");
}

/// Forgets the most memory that this process ever had; gives what it has, in KiB.
fn reset_peak() -> f64 {
    fs::write("/proc/self/clear_refs", "5").unwrap();
    status("VmRSS:")
}

/// The most memory that this process had since then, in KiB.
fn peak() -> f64 {
    status("VmHWM:")
}

fn status(name: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let text = line.unwrap().trim().trim_end_matches(" kB");
    text.parse().unwrap()
}

//! The store in a directory. Here are two processes that want it, disks that are full or cannot be
//! written, and what a large archive costs; what one process with room enough can see is below.

use std::fs;
use std::io::{Cursor, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use plugin_runner::package::{Archive, ArchiveContent, PackageLimits};
use plugin_runner::store::conformance::{self, Persistent};
use plugin_runner::store::{Record, Source, SqliteStore, Store};
use plugin_runner::{Error, ErrorKind, InstallationId, Result};
use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::TestDir;
use crate::support::alone::{Driver, command, run_under};
use crate::support::disk::{self, run_on_a_disk};
use crate::support::plugin::manifest;

mod archives;
mod damage;
mod migration;
mod opening;
mod reading;
mod records;
mod writing;

/// What a store that is open has in its directory beside archives.
const FILES: [&str; 4] = [
    "owner.lock",
    "plugins.sqlite",
    "plugins.sqlite-wal",
    "plugins.sqlite-shm",
];

/// Names the store's directory, in the test's own process.
const STORE_DIR: &str = "TEST_STORE_DIR";

#[test]
fn a_killed_owner_gives_the_folder_up_though_its_children_live() {
    let dir = TestDir::new("owner");
    let start = || {
        let mut test = command("sqlite_store::alone::an_owner_with_a_child");
        Driver::start(test.env(STORE_DIR, dir.path()))
    };
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let mut owner = start();
        let child = owner.wait_for("child ");
        let child = Pid::from_raw(child.parse().unwrap()).unwrap();
        acknowledged.push(owner.wait_for("put "));
        // Ids of one second that two processes made are in no order.
        acknowledged.sort();

        let error = store_error(SqliteStore::open(dir.path()).map(drop));
        assert_eq!(error.kind(), ErrorKind::StoreInUse);
        let told = format!("in use by process {};", owner.pid().as_raw_nonzero());
        assert!(error.to_string().contains(&told), "{error}");
        let reader = SqliteStore::open_read_only(dir.path()).unwrap();
        assert_eq!(ids(&reader), acknowledged, "round {round}");

        owner.kill();
        assert_eq!(ids(&reader), acknowledged, "round {round}");
        let notes: Vec<_> = reader.notes("put/").unwrap().into_keys().collect();
        let expected: Vec<_> = acknowledged.iter().map(|id| format!("put/{id}")).collect();
        assert_eq!(notes, expected, "round {round}");
        // One of us, and then the next in another process.
        let store = SqliteStore::open(dir.path()).unwrap();
        assert_eq!(ids(&store), acknowledged, "round {round}");
        kill_process(child, Signal::KILL).unwrap();
    }
}

#[test]
fn files_are_private_whatever_the_umask() {
    for umask in ["000", "777"] {
        let dir = TestDir::new("umask");
        let script = format!("umask {umask}; exec \"$@\"");
        run_under(
            Command::new("sh")
                .args(["-c", &script, "sh"])
                .env(STORE_DIR, dir.path()),
            "sqlite_store::alone::everything_is_private",
        );
    }
}

#[test]
fn a_large_archive_is_never_in_memory() {
    let dir = TestDir::new("large");
    let said = run_under(
        Command::new("env").env(STORE_DIR, dir.path()),
        "sqlite_store::alone::an_archive_goes_in_and_out_in_chunks",
    );
    print!("{said}");
}

#[test]
fn a_full_or_read_only_disk_is_reported_and_survived() {
    run_on_a_disk(
        4,
        &[
            "sqlite_store::alone::a_disk_is_full_for_a_while",
            "sqlite_store::alone::a_disk_is_read_only_for_a_while",
        ],
    );
}

/// Run by others, in processes of their own.
mod alone {
    use super::*;

    #[test]
    #[ignore = "is killed; run by another test, in a process of its own"]
    fn an_owner_with_a_child() {
        let store = SqliteStore::open(dir()).unwrap();
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        println!("child {}", child.id());
        let record = record("kept");
        store.put(record.clone()).unwrap();
        let key = format!("put/{}", record.id);
        store.set_note(&key, Some("")).unwrap();
        println!("put {}", record.id);
        // Until it is killed.
        let _ = std::io::stdin().read_line(&mut String::new());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    #[ignore = "with an umask; run by another test, in a process of its own"]
    fn everything_is_private() {
        let dir = dir().join("store");
        let store = SqliteStore::open(&dir).unwrap();
        store.put(record("kept")).unwrap();
        let archive = archive("a", 10);
        store.put_archive(&archive).unwrap();
        assert_eq!(mode(&dir), 0o700);
        assert_eq!(mode(&dir.join("archives")), 0o700);
        let archive = format!("archives/{}.zip", archive.sha256());
        for name in FILES.into_iter().chain([&*archive]) {
            assert_eq!(mode(&dir.join(name)), 0o600, "{name}");
        }
    }

    #[test]
    #[ignore = "looks at the whole process; run by another test, in a process of its own"]
    fn an_archive_goes_in_and_out_in_chunks() {
        const SIZE: usize = 49 << 20;
        const ALLOWED: u64 = 8 << 20;
        let dir = dir();
        let path = dir.join("upload.zip");
        fs::write(&path, package_bytes("a", SIZE)).unwrap();
        let store = SqliteStore::open(dir.join("store")).unwrap();

        let before = peak_from_here();
        let file = ArchiveContent::from(fs::File::open(&path).unwrap());
        let archive = Archive::from_content(file, &PackageLimits::default(), &|| false).unwrap();
        store.put_archive(&archive).unwrap();
        let content = store.get_archive(archive.sha256()).unwrap().unwrap();
        let mut reader = content.reader();
        let mut buffer = vec![0; 64 * 1024];
        let mut size = 0;
        loop {
            let length = reader.read(&mut buffer).unwrap();
            if length == 0 {
                break;
            }
            size += length as u64;
        }
        assert_eq!(size, fs::metadata(&path).unwrap().len());
        let taken = peak() - before;
        println!("{} KiB for an archive of {} KiB", taken >> 10, size >> 10);
        assert!(taken <= ALLOWED, "{taken} bytes");
    }

    #[test]
    #[ignore = "mounts; run by another test, in a namespace of its own"]
    fn a_disk_is_full_for_a_while() {
        let disk = disk::mounted().unwrap();
        let data = disk.join("data");
        let store = SqliteStore::open(&data).unwrap();
        let kept = record("kept");
        store.put(kept.clone()).unwrap();
        let known = archive("a", 1_000);
        store.put_archive(&known).unwrap();

        // Some of it fits.
        let large = archive("a", 2 << 20);
        let ballast = disk::fill(&disk, 256 << 10);
        let error = store_error(store.put_archive(&large));
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        assert!(
            error.to_string().contains(data.to_str().unwrap()),
            "{error}"
        );
        assert_eq!(archives(&data), 1, "something is left of what did not fit");
        fs::remove_file(&ballast).unwrap();
        // Nothing fits.
        let ballast = disk::fill(&disk, 0);
        let mut grown = kept.clone();
        grown
            .configuration
            .insert("long".to_owned(), "x".repeat(1 << 20).into());
        for _ in 0..3 {
            let error = store_error(store.put(grown.clone()));
            assert_eq!(error.kind(), ErrorKind::StorageFull);
            let path = data.join("plugins.sqlite");
            assert!(
                error.to_string().ends_with(path.to_str().unwrap()),
                "{error}"
            );
            let error = store_error(store.put_archive(&large));
            assert_eq!(error.kind(), ErrorKind::StorageFull);
            assert_eq!(store.list().unwrap(), std::slice::from_ref(&kept));
        }
        let reader = SqliteStore::open_read_only(&data).unwrap();
        assert_eq!(reader.list().unwrap(), std::slice::from_ref(&kept));
        assert!(store.get_archive(known.sha256()).unwrap().is_some());
        // A first one cannot be made, and nothing stays of the attempt.
        let other = disk.join("other");
        let error = store_error(SqliteStore::open(&other).map(|_| ()));
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        fs::remove_file(&ballast).unwrap();

        store.put_archive(&large).unwrap();
        store.delete_archive(large.sha256()).unwrap();
        store.put(grown.clone()).unwrap();
        drop(store);
        let store = SqliteStore::open(&data).unwrap();
        assert_eq!(store.list().unwrap(), [grown]);
        assert_eq!(archives(&data), 1);
        drop(SqliteStore::open(&other).unwrap());
        // Closing and opening take no room that is not there.
        let ballast = disk::fill(&disk, 64 << 10);
        drop(store);
        let opened = SqliteStore::open(&data);
        fs::remove_file(&ballast).unwrap();
        assert_eq!(opened.unwrap().list().unwrap().len(), 1);
    }

    #[test]
    #[ignore = "mounts; run by another test, in a namespace of its own"]
    fn a_disk_is_read_only_for_a_while() {
        let disk = disk::mounted().unwrap();
        let data = disk.join("data");
        let kept = record("kept");
        let known = archive("a", 1_000);
        let store = SqliteStore::open(&data).unwrap();
        store.put(kept.clone()).unwrap();
        store.put_archive(&known).unwrap();
        // As a crash of the owner leaves it.
        let crashed = disk.join("crashed");
        fs::create_dir(&crashed).unwrap();
        for name in FILES.into_iter().filter(|name| name.starts_with("plugins")) {
            fs::copy(data.join(name), crashed.join(name)).unwrap();
        }
        drop(store);
        let remount = |how: &str| {
            let options = format!("remount,{how}");
            disk::mount("mount", &["-o", &options], &disk);
        };
        remount("ro");
        for dir in [&data, &disk.join("other")] {
            let error = store_error(SqliteStore::open(dir).map(drop));
            assert_eq!(error.kind(), ErrorKind::ReadOnly);
            assert!(
                error.to_string().starts_with(dir.to_str().unwrap()),
                "{error}"
            );
        }
        for dir in [&data, &crashed] {
            let reader = SqliteStore::open_read_only(dir).unwrap();
            assert_eq!(reader.list().unwrap(), std::slice::from_ref(&kept));
        }
        let reader = SqliteStore::open_read_only(&data).unwrap();
        assert!(reader.get_archive(known.sha256()).unwrap().is_some());
        remount("rw");
        let store = SqliteStore::open(&data).unwrap();
        assert_eq!(store.list().unwrap(), [kept]);
        store.put(record("kept")).unwrap();
    }
}

/// The most memory that the process has had, in bytes; from now on that is counted anew.
fn peak_from_here() -> u64 {
    fs::write("/proc/self/clear_refs", "5").unwrap();
    peak()
}

fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let text = line.unwrap().trim().trim_end_matches(" kB");
    text.parse::<u64>().unwrap() << 10
}

fn dir() -> PathBuf {
    std::env::var_os(STORE_DIR).unwrap().into()
}

fn record(name: &str) -> Record {
    Record::supervised(manifest(name), Source::Directory("/plugins".into()))
}

fn archive(name: &str, size: usize) -> Archive {
    Archive::from_bytes(package_bytes(name, size), &PackageLimits::default()).unwrap()
}

fn package_bytes(name: &str, size: usize) -> Vec<u8> {
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in [
        ("manifest.json", name.as_bytes().to_vec()),
        ("content", vec![7; size]),
    ] {
        writer.start_file(name, options).unwrap();
        writer.write_all(&content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn ids(store: &SqliteStore) -> Vec<String> {
    let records = store.list().unwrap();
    records.iter().map(|record| record.id.to_string()).collect()
}

#[track_caller]
fn store_error(result: Result<()>) -> Error {
    result.unwrap_err()
}

/// How many archives there are in a store's directory, finished or not.
fn archives(path: &Path) -> usize {
    fs::read_dir(path.join("archives")).unwrap().count()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A directory for a store, which is removed at the end.
struct StoreDir(TestDir);

impl StoreDir {
    fn new() -> Self {
        Self(TestDir::new("store"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn open(&self) -> SqliteStore {
        SqliteStore::open(self.path()).unwrap()
    }

    /// Opening must fail so.
    #[track_caller]
    fn refused(&self) -> Error {
        store_error(SqliteStore::open(self.path()).map(drop))
    }

    fn reader(&self) -> SqliteStore {
        SqliteStore::open_read_only(self.path()).unwrap()
    }

    /// Opening to read must fail so.
    #[track_caller]
    fn reader_refused(&self) -> Error {
        store_error(SqliteStore::open_read_only(self.path()).map(drop))
    }

    fn database(&self) -> PathBuf {
        self.path().join("plugins.sqlite")
    }

    /// The database itself, while no store has it.
    fn sqlite(&self) -> Connection {
        let connection = Connection::open(self.database()).unwrap();
        connection
            .pragma_update(None, "foreign_keys", true)
            .unwrap();
        connection
    }

    /// The version of the tables that are there.
    fn schema(&self) -> u32 {
        self.sqlite()
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .unwrap()
    }

    fn execute(&self, sql: &str) {
        self.sqlite().execute_batch(sql).unwrap();
    }

    /// All files below the directory, by their names in it, with what is in them.
    fn content(&self) -> Vec<(String, Vec<u8>)> {
        let mut files = Vec::new();
        let mut directories = vec![self.path().to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else {
                    let name = path.strip_prefix(self.path()).unwrap();
                    let name = name.to_str().unwrap().to_owned();
                    files.push((name, fs::read(&path).unwrap()));
                }
            }
        }
        files.sort();
        files
    }

    fn files(&self) -> Vec<String> {
        self.content().into_iter().map(|(name, _)| name).collect()
    }
}

/// A new directory for each new store.
struct Subject(Option<StoreDir>);

impl Persistent for Subject {
    fn open_empty(&mut self) -> Arc<dyn Store> {
        self.0 = Some(StoreDir::new());
        self.reopen()
    }

    fn reopen(&mut self) -> Arc<dyn Store> {
        Arc::new(self.0.as_ref().unwrap().open())
    }

    fn damage(&mut self, id: InstallationId) -> bool {
        let dir = self.0.as_ref().unwrap();
        dir.execute(&format!(
            "UPDATE installation SET manifest = '{{' WHERE id = '{id}'"
        ));
        true
    }
}

#[test]
fn it_keeps_a_stores_promises() {
    conformance::check_persistent(&mut Subject(None)).unwrap();
}

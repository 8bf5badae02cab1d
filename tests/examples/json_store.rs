//! A store of one's own: a JSON file for each plugin. `cargo run --example json_store -- DIR` installs an
//! external plugin the first time, and shows all; a file that cannot be read is shown as a damaged record.
//!
//! A file is written under another name, synced to the disk and then renamed, so that a crash leaves either
//! the old one or the new one. Only one process at a time may use the directory. Each question reads the
//! disk; with many plugins, a store should keep the records in memory as well.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use plugin_runner::package::{Archive, ArchiveContent};
use plugin_runner::protocol::Manifest;
use plugin_runner::store::validate_note;
use plugin_runner::{Error, Host, InstallationId, Manager, Record, Result, Store};

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args_os().nth(1).ok_or("usage: json_store DIR")?;
    let store = Arc::new(JsonStore::open(&dir)?);
    let host = Host::builder().data_dir(dir).store(store).build()?;
    let manager = Manager::new(host.clone())?;
    manager.boot(Duration::from_secs(300))?;
    if manager.list()?.is_empty() {
        let manifest = br#"{"id": "outside", "author": "example", "name": "Outside"}"#;
        manager.install_external(Manifest::parse(manifest)?)?;
    }
    for plugin in manager.list()? {
        let why = plugin.message().unwrap_or("as it should be");
        println!("{} is {}: {why}", plugin.id(), plugin.reported_state());
    }
    host.shutdown(Duration::from_secs(10));
    Ok(())
}

/// Records as `<id>.json`, archives as `archives/<sha256>.zip`, notes together as `notes.json`.
#[derive(Debug)]
pub(crate) struct JsonStore {
    dir: PathBuf,
    /// Held while a file is written, of which there is one at a time.
    writing: Mutex<()>,
    /// Held while a name appears, changes or goes, so that a list misses none.
    names: RwLock<()>,
    /// Held while the notes are read and written back.
    noting: Mutex<()>,
}

impl JsonStore {
    /// Opens the directory, which is created if it is missing. Records hold tokens, so nobody else may read it.
    pub(crate) fn open(dir: impl Into<PathBuf>) -> Result<Self> {
        let dir = dir.into();
        let archives = dir.join("archives");
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&archives);
        made.map_err(failed("create", &archives))?;
        Ok(Self {
            dir,
            writing: Mutex::default(),
            names: RwLock::default(),
            noting: Mutex::default(),
        })
    }

    fn record(&self, id: InstallationId) -> PathBuf {
        self.dir.join(format!("{id}.json"))
    }

    /// What is not a digest could lead to any file, and gets the name of one that is never there.
    fn archive(&self, sha256: &str) -> PathBuf {
        let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let is_digest = sha256.len() == 64 && sha256.bytes().all(is_digit);
        let name = if is_digest { sha256 } else { "none" };
        self.dir.join("archives").join(format!("{name}.zip"))
    }

    fn write(&self, path: &Path, content: &mut dyn Read) -> Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let unfinished = self.dir.join("unfinished");
        let mut write = || {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            let mut file = options.open(&unfinished)?;
            io::copy(content, &mut file)?;
            file.sync_all()?;
            self.change_names(path, || fs::rename(&unfinished, path))
        };
        write().map_err(failed("write", path))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        match self.change_names(path, || fs::remove_file(path)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(failed("remove", path)),
        }
    }

    fn change_names(&self, path: &Path, change: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        {
            let _names = self.names.write().unwrap_or_else(PoisonError::into_inner);
            change()?;
        }
        // The name is on the disk only when its directory is.
        File::open(path.parent().unwrap_or(path))?.sync_all()
    }

    /// Returns the files in a directory whose names end so, by the rest of the name.
    fn files(&self, dir: &Path, end: &str) -> Result<Vec<(String, PathBuf)>> {
        let _names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let mut files = Vec::new();
        for entry in fs::read_dir(dir).map_err(failed("read", dir))? {
            let path = entry.map_err(failed("read", dir))?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if let Some(name) = name.and_then(|name| name.strip_suffix(end)) {
                files.push((name.to_owned(), path));
            }
        }
        Ok(files)
    }
}

impl Store for JsonStore {
    fn get(&self, id: InstallationId) -> Result<Option<Record>> {
        let path = self.record(id);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.map_err(failed("read", &path))?,
        };
        let record = match serde_json::from_slice::<Record>(&text) {
            Ok(record) if record.id == id => record,
            Ok(_) => Record::damaged(id, "its file is another plugin's"),
            // The error's own words might quote a secret.
            Err(error) => {
                let (line, column) = (error.line(), error.column());
                let why = format!("its file cannot be read: line {line}, column {column}");
                Record::damaged(id, why)
            }
        };
        Ok(Some(record))
    }

    fn list(&self) -> Result<Vec<Record>> {
        let files = self.files(&self.dir, ".json")?.into_iter();
        let mut ids: Vec<InstallationId> = files.filter_map(|(id, _)| id.parse().ok()).collect();
        ids.sort_unstable();
        // One that was deleted meanwhile is not an error.
        let records = ids.into_iter().map(|id| self.get(id));
        records.filter_map(Result::transpose).collect()
    }

    fn put(&self, record: Record) -> Result<()> {
        record.validate()?;
        let path = self.record(record.id);
        let text = serde_json::to_vec_pretty(&record).map_err(failed("write", &path))?;
        // What would be damaged when it is read must not be acknowledged.
        serde_json::from_slice::<Record>(&text).map_err(failed("write", &path))?;
        self.write(&path, &mut text.as_slice())
    }

    fn delete(&self, id: InstallationId) -> Result<()> {
        self.remove(&self.record(id))
    }

    fn put_archive(&self, archive: &Archive) -> Result<()> {
        let path = self.archive(archive.sha256());
        if fs::metadata(&path).is_ok_and(|found| found.len() == archive.size()) {
            return Ok(());
        }
        self.write(&path, &mut archive.content().reader())
    }

    fn get_archive(&self, sha256: &str) -> Result<Option<ArchiveContent>> {
        let path = self.archive(sha256);
        match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            opened => Ok(Some(opened.map_err(failed("open", &path))?.into())),
        }
    }

    fn delete_archive(&self, sha256: &str) -> Result<()> {
        self.remove(&self.archive(sha256))
    }

    fn list_archives(&self) -> Result<BTreeMap<String, u64>> {
        let mut sizes = BTreeMap::new();
        for (sha256, path) in self.files(&self.dir.join("archives"), ".zip")? {
            if let Ok(found) = fs::metadata(&path)
                && path == self.archive(&sha256)
            {
                sizes.insert(sha256, found.len());
            }
        }
        Ok(sizes)
    }

    fn notes(&self, prefix: &str) -> Result<BTreeMap<String, String>> {
        let path = self.dir.join("notes.json");
        let text = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
            read => read.map_err(failed("read", &path))?,
        };
        let mut notes: BTreeMap<String, String> =
            serde_json::from_slice(&text).map_err(failed("read", &path))?;
        notes.retain(|key, _| key.starts_with(prefix));
        Ok(notes)
    }

    fn set_note(&self, key: &str, value: Option<&str>) -> Result<()> {
        validate_note(key, value)?;
        let _noting = self.noting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut notes = self.notes("")?;
        match value {
            Some(value) => notes.insert(key.to_owned(), value.to_owned()),
            None => notes.remove(key),
        };
        let path = self.dir.join("notes.json");
        let text = serde_json::to_vec_pretty(&notes).map_err(failed("write", &path))?;
        self.write(&path, &mut text.as_slice())
    }
}

fn failed<E: Into<io::Error>>(what: &str, path: &Path) -> impl Fn(E) -> Error {
    let context = format!("{what} {}", path.display());
    move |error| Error::io(context.as_str(), error)
}

//! The file system of a sprite.

use std::fs;
use std::io::{Error, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::UNIX_EPOCH;

use serde_json::{Value, json};

use super::clock::Moment;
use super::http::{Answer, Request};
use super::place::Place;

/// The largest file that can be written.
pub(crate) const LARGEST: usize = 16 * 1024 * 1024;

/// One request to `fs/...`.
pub(super) struct Files<'a> {
    place: &'a Place,
    request: &'a Request,
    body: Value,
}

/// What went wrong with which path.
struct Failed(Error, String);

type Result<T> = std::result::Result<T, Failed>;

impl<'a> Files<'a> {
    pub(super) fn new(place: &'a Place, request: &'a Request) -> Self {
        Self {
            place,
            request,
            body: request.json(),
        }
    }

    /// Does what is asked for.
    pub(super) fn answer(&self, operation: &str, bare_errors: bool) -> Answer {
        let done = match (self.request.method.as_str(), operation) {
            ("GET", "read") => self.read(),
            ("PUT", "write") if self.request.body.len() > LARGEST => {
                let message = "file too large";
                return Answer::json(413, &json!({"error": message, "code": "EFBIG"}));
            }
            ("PUT", "write") => self.write(),
            ("GET", "list") => self.list(),
            ("DELETE", "delete") => self.delete(),
            ("POST", "rename") => self.rename(),
            ("POST", "copy") => self.copy(),
            ("POST", "chmod") => self.chmod(),
            _ => return Answer::error(404, "not_found", "no such operation"),
        };
        done.unwrap_or_else(|Failed(error, path)| refused(&error, &path, bare_errors))
    }

    /// A text of the query, or of the JSON body.
    fn text(&self, name: &str) -> Option<&str> {
        let in_body = || self.body.get(name).and_then(Value::as_str);
        self.request.query(name).or_else(in_body)
    }

    fn is_true(&self, name: &str) -> bool {
        self.request.is_true(name) || self.body.get(name) == Some(&Value::Bool(true))
    }

    /// An absolute path of the sprite.
    fn path(&self, name: &str) -> Result<String> {
        let invalid = || Failed(ErrorKind::InvalidInput.into(), String::new());
        let path = self.text(name).filter(|path| !path.is_empty());
        let below = Path::new(self.text("workingDir").unwrap_or("/"));
        let path = below.join(path.ok_or_else(invalid)?);
        Ok(path.to_str().expect("joined from texts").to_owned())
    }

    fn read(&self) -> Result<Answer> {
        let path = self.path("path")?;
        let bytes = fs::read(self.place.of(&path)).map_err(of(&path))?;
        Ok(Answer::new(200, "application/octet-stream", bytes))
    }

    fn write(&self) -> Result<Answer> {
        let path = self.path("path")?;
        let place = self.place.of(&path);
        let mode = self.text("mode").unwrap_or("0644");
        let mode =
            mode_of(mode).ok_or_else(|| Failed(ErrorKind::InvalidInput.into(), path.clone()))?;
        // One source has the first name, one the second, one says that it is the default.
        let wanted = self.text("mkdirParents").or(self.text("mkdir"));
        if wanted != Some("false") {
            let parent = place.parent().unwrap_or(self.place.root());
            fs::create_dir_all(parent).map_err(of(&path))?;
        }
        let mut options = fs::File::options();
        let options = options.write(true).create(true).truncate(true).mode(mode);
        let mut file = options.open(&place).map_err(of(&path))?;
        file.write_all(&self.request.body).map_err(of(&path))?;
        file.set_permissions(fs::Permissions::from_mode(mode))
            .map_err(of(&path))?;
        let size = self.request.body.len();
        let body = json!({"path": path, "size": size, "mode": format!("{mode:04o}")});
        Ok(Answer::json(200, &body))
    }

    fn list(&self) -> Result<Answer> {
        let path = self.path("path")?;
        let place = self.place.of(&path);
        let mut entries = Vec::new();
        if place.symlink_metadata().map_err(of(&path))?.is_dir() {
            self.children(&place, &path, &mut entries)?;
        } else {
            entries.push(entry(&place, &path).map_err(of(&path))?);
        }
        let count = entries.len();
        // So it was seen on the live service.
        let entries = if entries.is_empty() {
            Value::Null
        } else {
            Value::Array(entries)
        };
        let body = json!({"path": path, "entries": entries, "count": count});
        Ok(Answer::json(200, &body))
    }

    fn children(&self, place: &Path, path: &str, entries: &mut Vec<Value>) -> Result<()> {
        let mut names: Vec<_> = fs::read_dir(place)
            .map_err(of(path))?
            .flatten()
            .filter_map(|child| child.file_name().into_string().ok())
            .collect();
        names.sort_unstable();
        for name in names {
            let (place, path) = (
                place.join(&name),
                format!("{}/{name}", path.trim_end_matches('/')),
            );
            entries.push(entry(&place, &path).map_err(of(&path))?);
            let is_directory = place.symlink_metadata().is_ok_and(|data| data.is_dir());
            if self.is_true("recursive") && is_directory {
                self.children(&place, &path, entries)?;
            }
        }
        Ok(())
    }

    fn delete(&self) -> Result<Answer> {
        let path = self.path("path")?;
        let place = self.place.of(&path);
        let is_directory = place.symlink_metadata().map_err(of(&path))?.is_dir();
        match (is_directory, self.is_true("recursive")) {
            (false, _) => fs::remove_file(&place),
            (true, false) => fs::remove_dir(&place),
            (true, true) => fs::remove_dir_all(&place),
        }
        .map_err(of(&path))?;
        Ok(Answer::json(200, &json!({"deleted": [path], "count": 1})))
    }

    fn rename(&self) -> Result<Answer> {
        let (source, dest) = (self.path("source")?, self.path("dest")?);
        fs::rename(self.place.of(&source), self.place.of(&dest)).map_err(of(&source))?;
        Ok(Answer::json(200, &json!({"source": source, "dest": dest})))
    }

    fn copy(&self) -> Result<Answer> {
        let (source, dest) = (self.path("source")?, self.path("dest")?);
        let (mut copied, mut bytes) = (Vec::new(), 0);
        self.copy_one(&source, &dest, &mut copied, &mut bytes)?;
        let count = copied.len();
        let body = json!({"copied": copied, "count": count, "totalBytes": bytes});
        Ok(Answer::json(200, &body))
    }

    fn copy_one(
        &self,
        source: &str,
        dest: &str,
        copied: &mut Vec<Value>,
        bytes: &mut u64,
    ) -> Result<()> {
        let (from, to) = (self.place.of(source), self.place.of(dest));
        if !from.symlink_metadata().map_err(of(source))?.is_dir() {
            *bytes += fs::copy(&from, &to).map_err(of(source))?;
            copied.push(json!({"source": source, "dest": dest}));
            return Ok(());
        }
        if !self.is_true("recursive") {
            return Err(Failed(ErrorKind::IsADirectory.into(), source.to_owned()));
        }
        fs::create_dir_all(&to).map_err(of(dest))?;
        for child in fs::read_dir(&from).map_err(of(source))?.flatten() {
            let name = child.file_name().into_string().unwrap_or_default();
            let (source, dest) = (format!("{source}/{name}"), format!("{dest}/{name}"));
            self.copy_one(&source, &dest, copied, bytes)?;
        }
        Ok(())
    }

    fn chmod(&self) -> Result<Answer> {
        let path = self.path("path")?;
        let mode = self.text("mode").and_then(mode_of);
        let mode = mode.ok_or_else(|| Failed(ErrorKind::InvalidInput.into(), path.clone()))?;
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(self.place.of(&path), permissions).map_err(of(&path))?;
        let affected = json!({"path": path, "mode": format!("{mode:04o}")});
        Ok(Answer::json(
            200,
            &json!({"affected": [affected], "count": 1}),
        ))
    }
}

fn of(path: &str) -> impl FnOnce(Error) -> Failed {
    let path = path.to_owned();
    move |error| Failed(error, path)
}

fn mode_of(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 8).ok().map(|mode| mode & 0o777)
}

fn entry(place: &Path, path: &str) -> std::io::Result<Value> {
    let data = place.symlink_metadata()?;
    let kind = match data.file_type() {
        kind if kind.is_dir() => "directory",
        kind if kind.is_symlink() => "symlink",
        _ => "file",
    };
    let modified = data.modified()?.duration_since(UNIX_EPOCH);
    let modified = Moment::at(modified.map_or(0, |since| since.as_secs()));
    Ok(json!({
        "name": path.rsplit('/').next(), "path": path, "type": kind, "size": data.len(),
        "mode": format!("{:04o}", data.mode() & 0o7777), "modTime": modified.rfc3339(),
        "isDir": data.is_dir(),
    }))
}

/// The answer to what failed: the operating system's words, and unless `bare` its name for them.
fn refused(error: &Error, path: &str, bare: bool) -> Answer {
    let (status, code, words) = match error.kind() {
        ErrorKind::NotFound => (404, "ENOENT", "no such file or directory"),
        ErrorKind::AlreadyExists => (400, "EEXIST", "file exists"),
        ErrorKind::NotADirectory => (400, "ENOTDIR", "not a directory"),
        ErrorKind::IsADirectory => (400, "EISDIR", "is a directory"),
        ErrorKind::PermissionDenied => (400, "EACCES", "permission denied"),
        ErrorKind::DirectoryNotEmpty => (400, "ENOTEMPTY", "directory not empty"),
        ErrorKind::InvalidInput => (400, "EINVAL", "invalid argument"),
        _ => (500, "EIO", "input/output error"),
    };
    if bare {
        return Answer::json(status, &json!({"error": words}));
    }
    Answer::json(status, &json!({"error": words, "code": code, "path": path}))
}

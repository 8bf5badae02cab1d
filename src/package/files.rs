//! `PackageFiles`: the files of a plugin, one at a time, for whoever takes them to another machine. `unpack` is
//! for this one.

use std::ffi::OsStr;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use data_encoding::HEXLOWER;
use rustix::fs::FileType;
use sha2::{Digest as _, Sha256};

use super::archive::{Archive, POLL_BYTES, poll, read_entry};
use super::layout::failed;
use super::limits::{DIRECTORIES, PackageLimits};
use super::open_dir::OpenDir;
use super::path::{MARKER, PATH_LIMIT, command_path, folded};
use super::permissions::{MAX_MODE, executable};
use crate::error::PackageError;

/// The files and directories of a plugin. The content of a file is read when it is asked for.
#[derive(Debug)]
pub(crate) struct PackageFiles {
    sha256: String,
    /// Each before what is in it.
    dirs: Vec<String>,
    files: Vec<PackageFile>,
    source: FilesSource,
}

#[derive(Debug)]
enum FilesSource {
    Archive(Box<Archive>),
    Directory(OpenDir),
}

/// One file of a plugin.
#[derive(Clone, Debug)]
pub(crate) struct PackageFile {
    /// Its path below the release directory, parts separated by `/`, never leading upward.
    pub(crate) path: String,
    pub(crate) size: u64,
    /// The permissions that it is to have, at most 0755.
    pub(crate) mode: u32,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    /// Its place among the entries of the archive.
    Entry(usize),
    /// The SHA-256 of a file in a directory.
    Content([u8; 32]),
}

impl PackageFiles {
    /// Returns the files of an archive. Their permissions are those that [`unpack`](super::unpack()) sets,
    /// but no umask applies; the file that `command` names is made executable.
    pub(crate) fn of_archive(archive: Archive, command: &str) -> Self {
        let command = command_path(command);
        let entries = archive.entries().iter().enumerate();
        let files = entries.filter(|(_, entry)| !entry.is_dir());
        let files = files.map(|(number, entry)| PackageFile {
            path: entry.path().to_owned(),
            size: entry.size(),
            mode: if command.as_deref() == Some(entry.path()) {
                executable(entry.mode())
            } else {
                entry.mode()
            },
            place: Place::Entry(number),
        });
        Self {
            sha256: archive.sha256().to_owned(),
            dirs: archive.dirs.clone(),
            files: files.collect(),
            source: FilesSource::Archive(Box::new(archive)),
        }
    }

    /// Returns what is in a directory, which may itself be a link. Permissions are those of the files, less
    /// what is over 0755. What is read later must be what is read now.
    ///
    /// # Blocking
    /// For reading all of it once. `cancel` is called for each entry and before each MiB.
    ///
    /// # Errors
    /// - [`PackageError::NotPortable`]: a link, a pipe, a socket or a device, a name that is not UTF-8 or too
    ///   long, or one that is the host's own.
    /// - The errors of limits.
    /// - [`PackageError::Io`] and [`PackageError::Cancelled`].
    pub(crate) fn of_directory(
        dir: &Path,
        limits: &PackageLimits,
        cancel: &dyn Fn() -> bool,
    ) -> Result<Self, PackageError> {
        let top = OpenDir::follow(dir).map_err(failed("open directory", dir))?;
        let mut found = Found {
            top: &top,
            limits,
            cancel,
            total: 0,
            dirs: Vec::new(),
            files: Vec::new(),
        };
        let mut waiting = vec![String::new()];
        while let Some(dir) = waiting.pop() {
            waiting.extend(found.list(&dir)?);
        }
        let Found {
            mut dirs,
            mut files,
            ..
        } = found;
        dirs.sort_unstable();
        files.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        Ok(Self {
            sha256: identity(&dirs, &files),
            dirs,
            files,
            source: FilesSource::Directory(top),
        })
    }

    /// Returns what tells these files from others: the SHA-256 of the archive, or that of all paths,
    /// permissions and contents in the directory, in lower-case hexadecimal.
    pub(crate) fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Returns every directory that is needed or is there, each before what is in it.
    pub(crate) fn dirs(&self) -> &[String] {
        &self.dirs
    }

    pub(crate) fn files(&self) -> &[PackageFile] {
        &self.files
    }

    /// Reads one of the files, which takes as much memory as it is long.
    ///
    /// # Blocking
    /// For reading it. `cancel` is called before each MiB.
    ///
    /// # Errors
    /// - [`PackageError::Content`], [`PackageError::SizeMismatch`], [`PackageError::Unreadable`]: see
    ///   [`read_entry`].
    /// - [`PackageError::Io`]: the system refused, or the file has changed since it was first read.
    /// - [`PackageError::Cancelled`].
    pub(crate) fn read(
        &self,
        file: &PackageFile,
        cancel: &dyn Fn() -> bool,
    ) -> Result<Vec<u8>, PackageError> {
        match (&self.source, &file.place) {
            (FilesSource::Archive(archive), Place::Entry(number)) => {
                let mut content = Vec::new();
                let Some(entry) = archive.entries().get(*number) else {
                    return Ok(content);
                };
                poll(cancel)?;
                let mut polled = 0;
                read_entry(&mut archive.zip.clone(), entry, |chunk| {
                    content.extend_from_slice(chunk);
                    if content.len() - polled >= POLL_BYTES {
                        polled = content.len();
                        poll(cancel)?;
                    }
                    Ok(())
                })?;
                Ok(content)
            }
            (FilesSource::Directory(top), Place::Content(digest)) => {
                let changed = || {
                    let error = std::io::Error::other("it has changed meanwhile");
                    top.failed("read", &file.path)(error)
                };
                let content = read_file(top, &file.path, file.size, cancel)?;
                let (content, _) = content.ok_or_else(changed)?;
                if Sha256::digest(&content)[..] != digest[..] {
                    return Err(changed());
                }
                Ok(content)
            }
            _ => Ok(Vec::new()),
        }
    }
}

/// What was found in a directory so far.
struct Found<'a> {
    top: &'a OpenDir,
    limits: &'a PackageLimits,
    cancel: &'a dyn Fn() -> bool,
    total: u64,
    dirs: Vec<String>,
    files: Vec<PackageFile>,
}

impl Found<'_> {
    /// Takes what is in one of the directories; returns the directories in it.
    fn list(&mut self, dir: &str) -> Result<Vec<String>, PackageError> {
        let here = self.top.below(Path::new(dir));
        let here = here.map_err(self.top.failed("open directory", dir))?;
        let mut below = Vec::new();
        for entry in here.list().map_err(failed("list", here.path()))? {
            poll(self.cancel)?;
            let entry = entry.map_err(failed("list", here.path()))?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            let portable = |problem| PackageError::NotPortable {
                path: here.at(name),
                problem,
            };
            let path = join(dir, name).map_err(portable)?;
            match here.kind(name).map_err(here.failed("look at", name))? {
                Some(FileType::Directory) => {
                    if self.dirs.len() >= DIRECTORIES {
                        return Err(PackageError::TooManyDirectories { limit: DIRECTORIES });
                    }
                    self.dirs.push(path.clone());
                    below.push(path);
                }
                Some(FileType::RegularFile) => self.file(path)?,
                Some(FileType::Symlink) => {
                    return Err(portable("it is a link; put what it leads to in its place"));
                }
                Some(_) => {
                    return Err(portable("it is neither a file nor a directory; remove it"));
                }
                // It was removed meanwhile.
                None => {}
            }
        }
        Ok(below)
    }

    fn file(&mut self, path: String) -> Result<(), PackageError> {
        let limit = self.limits.files;
        if self.files.len() >= limit {
            let found = limit + 1;
            return Err(PackageError::TooManyFiles { found, limit });
        }
        let most = self.limits.file_size;
        let Some((content, mode)) = read_file(self.top, &path, most, self.cancel)? else {
            return Ok(());
        };
        let size = content.len() as u64;
        self.limits.check_file(&path, size, &mut self.total)?;
        self.files.push(PackageFile {
            path,
            size,
            mode,
            place: Place::Content(Sha256::digest(&content).into()),
        });
        Ok(())
    }
}

/// Returns the path of something in a directory, or why it cannot be used.
fn join(dir: &str, name: &OsStr) -> Result<String, &'static str> {
    let name = name
        .to_str()
        .ok_or("its name is not UTF-8; give it one that is")?;
    if dir.is_empty() && folded(name) == MARKER {
        return Err("its name is the host's own; rename it");
    }
    let path = if dir.is_empty() {
        name.to_owned()
    } else {
        format!("{dir}/{name}")
    };
    if path.len() > PATH_LIMIT {
        return Err("its path is over the limit of 1,024 bytes; shorten it");
    }
    Ok(path)
}

/// Reads a file of a directory without following links, and one byte more than it may have; returns it with
/// its permissions, or `None` if it is no file any more.
fn read_file(
    top: &OpenDir,
    path: &str,
    most: u64,
    cancel: &dyn Fn() -> bool,
) -> Result<Option<(Vec<u8>, u32)>, PackageError> {
    let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
    let above = top.below(Path::new(above));
    let above = above.map_err(top.failed("open directory", path))?;
    let opened = above.open_file(name).map_err(top.failed("open", path))?;
    let Some((file, metadata)) = opened else {
        return Ok(None);
    };
    let mut content = Vec::new();
    let mut limited = file.take(most.saturating_add(1));
    loop {
        poll(cancel)?;
        let mut chunk = limited.by_ref().take(POLL_BYTES as u64);
        let count = chunk.read_to_end(&mut content);
        if count.map_err(top.failed("read", path))? == 0 {
            break;
        }
    }
    Ok(Some((content, metadata.permissions().mode() & MAX_MODE)))
}

/// Returns the SHA-256 of all that is uploaded. Every part has an end of its own, so no two directories are
/// read as one.
fn identity(dirs: &[String], files: &[PackageFile]) -> String {
    let mut digest = Sha256::new();
    digest.update("plugin-runner directory 1\0");
    for dir in dirs {
        digest.update(format!("d {dir}\0"));
    }
    for file in files {
        digest.update(format!("f {:04o} {} {}\0", file.mode, file.size, file.path));
        if let Place::Content(content) = &file.place {
            digest.update(content);
        }
    }
    HEXLOWER.encode(&digest.finalize())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::super::testing::{Builder, Item};
    use super::*;
    use crate::testing::{TestDir, assert_matches};

    #[test]
    fn an_archives_files_are_read_one_by_one_as_unpacking_would_write_them() {
        let content = vec![7; 3_000_000];
        let archive = Builder::new([
            Item::stored("manifest.json", b"{}"),
            Item::dir("empty/"),
            Item::deflated("bin/run", &content).unix(0o640),
            Item::stored("tool", b"tool").unix(0o4777),
        ])
        .archive();
        let sha256 = archive.sha256().to_owned();
        let files = PackageFiles::of_archive(archive, "./bin/run");
        assert_eq!(files.sha256(), sha256);
        assert_eq!(files.dirs(), ["bin", "empty"]);
        let shown: Vec<_> = files
            .files()
            .iter()
            .map(|file| (&*file.path, file.size, file.mode))
            .collect();
        assert_eq!(
            shown,
            [
                ("manifest.json", 2, 0o644),
                ("bin/run", 3_000_000, 0o750),
                ("tool", 4, 0o755)
            ]
        );
        let read = |number: usize| files.read(&files.files()[number], &|| false).unwrap();
        assert_eq!(read(2), b"tool");
        assert_eq!(read(1), content);
        let cancelled = files.read(&files.files()[1], &|| true);
        assert_matches!(cancelled, Err(PackageError::Cancelled));
    }

    #[test]
    fn a_directory_is_known_by_its_paths_permissions_and_contents() {
        let dir = TestDir::new("deploy");
        let file = dir.path().join("file");
        fs::write(&file, "one").unwrap();
        let identity = || {
            let files =
                PackageFiles::of_directory(dir.path(), &PackageLimits::default(), &|| false);
            files.unwrap().sha256().to_owned()
        };
        let mut seen = vec![identity()];
        assert_eq!(identity(), seen[0]);
        let changes: [&dyn Fn(); 4] = [
            &|| fs::write(&file, "two").unwrap(),
            &|| fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap(),
            &|| fs::create_dir(dir.path().join("empty")).unwrap(),
            &|| fs::rename(&file, dir.path().join("empty/file")).unwrap(),
        ];
        for change in changes {
            change();
            let now = identity();
            assert!(!seen.contains(&now), "a change goes unnoticed");
            seen.push(now);
        }
    }

    #[test]
    fn links_and_special_files_are_refused_by_name() {
        let dir = TestDir::new("deploy");
        let bad = dir.path().join("sub/bad");
        fs::create_dir(dir.path().join("sub")).unwrap();
        let read = || PackageFiles::of_directory(dir.path(), &PackageLimits::default(), &|| false);
        let refused = || {
            let error = read().unwrap_err();
            assert_matches!(error, PackageError::NotPortable { .. });
            assert!(error.is_permanent());
            error.to_string()
        };
        symlink("/nowhere", &bad).unwrap();
        let text = refused();
        assert!(text.contains("sub/bad") && text.contains("link"), "{text}");
        fs::remove_file(&bad).unwrap();
        let socket = UnixListener::bind(&bad).unwrap();
        let text = refused();
        assert!(
            text.contains("sub/bad") && text.contains("neither"),
            "{text}"
        );
        drop(socket);
        fs::remove_file(&bad).unwrap();
        let name = dir.path().join(OsStr::from_bytes(b"caf\xe9"));
        fs::write(&name, "").unwrap();
        assert!(refused().contains("UTF-8"));
        fs::remove_file(&name).unwrap();
        for name in [".complete", ".Complete"] {
            fs::write(dir.path().join(name), "").unwrap();
            assert!(refused().contains("the host's own"));
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("sub/.complete"), "").unwrap();
        assert_eq!(read().unwrap().files().len(), 1);
    }

    #[test]
    fn a_directory_has_the_limits_of_a_package() {
        let dir = TestDir::new("deploy");
        for number in 0..3 {
            fs::write(dir.path().join(number.to_string()), "12345").unwrap();
        }
        let read =
            |limits: PackageLimits| PackageFiles::of_directory(dir.path(), &limits, &|| false);
        let limits = PackageLimits::default;
        assert_matches!(
            read(limits().files(2)).unwrap_err(),
            PackageError::TooManyFiles { limit: 2, .. }
        );
        assert_matches!(
            read(limits().file_size(4)).unwrap_err(),
            PackageError::FileTooLarge { limit: 4, .. }
        );
        assert_matches!(
            read(limits().total_size(14)).unwrap_err(),
            PackageError::TotalTooLarge { limit: 14, .. }
        );
        read(limits().files(3).file_size(5).total_size(15)).unwrap();
        let cancelled = PackageFiles::of_directory(dir.path(), &limits(), &|| true);
        assert_matches!(cancelled.unwrap_err(), PackageError::Cancelled);
    }
}

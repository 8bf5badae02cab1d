//! Files of this program's own in a data directory, to which plugins may write too: opened without following what
//! they may have put in the place, read with a bound, and written whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// Opens a file of this program's in a data directory. Plugins may write to the directory too: a link that
/// one has put there is not followed, and a named pipe does not block.
///
/// # Errors
/// What the system reports, and that it is no regular file.
pub(crate) fn open_own(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    open_regular(path, options, OFlags::NOFOLLOW)
}

/// Opens a file that the user has named, for reading: links are followed, but a named pipe does not block.
///
/// # Errors
/// As [`open_own`].
pub(crate) fn open_named(path: &Path) -> io::Result<File> {
    open_regular(path, OpenOptions::new().read(true), OFlags::empty())
}

fn open_regular(path: &Path, options: &mut OpenOptions, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::NONBLOCK;
    let file = options
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("not a regular file"))
    }
}

/// Reads a file of at most `limit` bytes.
///
/// # Errors
/// What the system reports, that it is longer, or that it is not UTF-8.
pub(crate) fn read_short(file: File, limit: u64) -> io::Result<String> {
    let mut text = String::new();
    file.take(limit + 1).read_to_string(&mut text)?;
    if text.len() as u64 > limit {
        return Err(io::Error::other(format!("longer than {limit} bytes")));
    }
    Ok(text)
}

/// Writes a file that only its owner may read, in the place of what has its name: it is there whole or not at
/// all, whenever this process ends.
///
/// # Errors
/// What the system reports.
pub(crate) fn put(path: &Path, content: &[u8]) -> io::Result<()> {
    let unfinished = unfinished(path);
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    let put = written.and_then(|()| fs::rename(&unfinished, path));
    if put.is_err() {
        // The error that is returned counts.
        let _ = fs::remove_file(&unfinished);
    }
    put
}

/// Returns the path to which a file is written before it is renamed.
pub(crate) fn unfinished(path: &Path) -> PathBuf {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    unfinished.into()
}

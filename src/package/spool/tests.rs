//! Receiving, and what stays in the directory: nothing that is not in use.

use std::fs;
use std::path::PathBuf;

use super::super::testing::{Builder, NEVER, cancelled_at_each_moment, mode};
use super::super::{Archive, PackageLimits};
use super::*;
use crate::testing::{TestDir, assert_matches};

fn receive(dir: &Path, source: &mut dyn Read, limit: u64) -> Result<Spool, PackageError> {
    let (data, name) = (dir.parent().unwrap(), dir.file_name().unwrap());
    Spool::receive(data, name.to_str().unwrap(), source, limit, NEVER)
}

/// Where the copy is.
fn path(spool: &Spool) -> PathBuf {
    spool.dir.at(&spool.name)
}

fn sweep(dir: &Path) {
    let (data, name) = (dir.parent().unwrap(), dir.file_name().unwrap());
    Spool::sweep(data, name.to_str().unwrap());
}

fn count(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

/// Returns what it has in small parts and between interruptions, and then fails.
struct Failing<'a>(&'a [u8], bool);

impl Read for Failing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        if self.1 {
            return Err(ErrorKind::Interrupted.into());
        }
        let count = self.0.len().min(7).min(buffer.len());
        let (part, rest) = self.0.split_at(count);
        buffer[..count].copy_from_slice(part);
        self.0 = rest;
        if count == 0 {
            return Err(io::Error::from_raw_os_error(
                rustix::io::Errno::CONNRESET.raw_os_error(),
            ));
        }
        Ok(count)
    }
}

#[test]
fn an_archive_is_received_checked_and_forgotten() {
    let dir = TestDir::new("package");
    let inside = dir.path().join("a/spool");
    let bytes = Builder::plugin([]).bytes();
    let spool = receive(&inside, &mut &bytes[..], bytes.len() as u64).unwrap();
    assert_eq!((mode(&inside), mode(path(&spool))), (0o700, 0o600));
    assert_eq!(fs::read(path(&spool)).unwrap(), bytes);

    let limits = PackageLimits::default();
    let archive = Archive::check(spool.content(), &limits, NEVER).unwrap();
    let in_memory = Archive::from_bytes(&*bytes, &limits).unwrap();
    assert_eq!(archive.sha256(), in_memory.sha256());
    drop(spool);
    assert_eq!(count(&inside), 0);
    // Open files outlive their names.
    let mut again = Vec::new();
    archive.content().reader().read_to_end(&mut again).unwrap();
    assert_eq!(again, bytes);
}

#[test]
fn one_that_was_moved_on_stays_there() {
    let dir = TestDir::new("package");
    let spool = receive(dir.path(), &mut &b"x"[..], 1).unwrap();
    let there = dir.path().join("there");
    fs::rename(path(&spool), &there).unwrap();
    drop(spool);
    assert_eq!(fs::read(there).unwrap(), b"x");
}

#[test]
fn over_the_limit_no_more_is_read() {
    let dir = TestDir::new("package");
    let mut endless = io::repeat(b'x').take(10 << 20);
    let error = receive(dir.path(), &mut endless, 1 << 20).unwrap_err();
    let limit = 1 << 20;
    assert_matches!(error, PackageError::ArchiveTooLarge { limit: found } if found == limit);
    let read = (10 << 20) - endless.limit();
    assert!(read <= limit + CHUNK as u64, "{read}");
    assert_eq!(count(dir.path()), 0);

    let bytes = vec![b'x'; 3 * CHUNK];
    assert!(receive(dir.path(), &mut &bytes[..], bytes.len() as u64).is_ok());
    assert!(receive(dir.path(), &mut &bytes[..], bytes.len() as u64 - 1).is_err());
    assert!(receive(dir.path(), &mut io::empty(), 0).is_ok());
}

#[test]
fn a_source_that_fails_is_told_from_a_disk_that_does() {
    let dir = TestDir::new("package");
    let error = receive(dir.path(), &mut Failing(b"some bytes", false), 100).unwrap_err();
    assert_matches!(error, PackageError::Unreadable { .. });
    assert!(!error.is_permanent());
    assert_eq!(count(dir.path()), 0);

    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    let error = receive(&file, &mut &b"x"[..], 100).unwrap_err();
    assert_matches!(error, PackageError::Io { .. });
    assert!(error.to_string().contains("/file"), "{error}");
}

#[test]
fn a_source_that_lies_is_an_error() {
    struct Liar;
    impl Read for Liar {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            Ok(buffer.len() + 1)
        }
    }
    let dir = TestDir::new("package");
    let error = receive(dir.path(), &mut Liar, u64::MAX).unwrap_err();
    assert_matches!(error, PackageError::Unreadable { .. });
}

#[test]
fn cancelling_at_any_moment_leaves_nothing() {
    let dir = TestDir::new("package");
    let bytes = vec![b'x'; 2 * CHUNK + 1];
    let (moments, _) = cancelled_at_each_moment(|cancel| {
        let result = Spool::receive(dir.path(), "in", &mut &bytes[..], u64::MAX, cancel);
        assert!(result.is_ok() || count(&dir.path().join("in")) == 0);
        result
    });
    assert_eq!(moments, 4);
}

#[test]
fn what_a_crash_left_is_swept_and_what_is_in_use_is_not() {
    let dir = TestDir::new("package");
    sweep(&dir.path().join("missing"));
    let live = receive(dir.path(), &mut &b"live"[..], 100).unwrap();
    fs::write(dir.path().join("dead.part"), "half").unwrap();
    fs::write(dir.path().join("other.zip"), "x").unwrap();
    std::os::unix::fs::symlink(path(&live), dir.path().join("link.part")).unwrap();
    fs::create_dir(dir.path().join("folder.part")).unwrap();
    sweep(dir.path());
    assert_eq!(fs::read(path(&live)).unwrap(), b"live");
    for gone in ["dead.part", "link.part", "folder.part"] {
        assert!(dir.path().join(gone).symlink_metadata().is_err(), "{gone}");
    }
    assert!(dir.path().join("other.zip").exists());
}

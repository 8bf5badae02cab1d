//! For tests: zip archives that may lie in every header, temporary directories, and what is in them.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{self, Metadata, Permissions};
use std::io::{Cursor, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::archive::Archive;
use super::layout::find_release_dir;
use super::listing::Listing;
use super::untracked::{UntrackedFile, UntrackedKind, list_untracked};
use super::{MigratedFiles, MigrationLimits, PackageLimits, unpack_once};
use crate::error::PackageError;
use crate::testing::TestDir;

pub(super) const NEVER: &dyn Fn() -> bool = &|| false;

pub(super) const REGULAR: u32 = 0o100_000;

/// One entry, with everything that its two headers say.
#[derive(Clone)]
pub(super) struct Item {
    pub(super) name: Vec<u8>,
    /// The name in the local header, where it differs.
    pub(super) local_name: Option<Vec<u8>>,
    pub(super) system: u8,
    pub(super) flags: u16,
    pub(super) method: u16,
    pub(super) local_method: Option<u16>,
    pub(super) attributes: u32,
    /// As it stands in the archive.
    pub(super) packed: Vec<u8>,
    pub(super) packed_size: u32,
    pub(super) size: u32,
    pub(super) checksum: u32,
    /// Checksum, packed size and size in the local header, where they differ.
    pub(super) local_content: Option<[u32; 3]>,
    /// Extra field of the central record.
    pub(super) extra: Vec<u8>,
    /// Extra field of the local header.
    pub(super) local_extra: Vec<u8>,
    /// Where the record says the local header stands, where that is not true. No local header is
    /// written then.
    pub(super) header: Option<u32>,
}

impl Item {
    pub(super) fn stored(name: &str, content: &[u8]) -> Self {
        let size = u32::try_from(content.len()).unwrap();
        Self {
            name: name.as_bytes().to_vec(),
            local_name: None,
            system: 3,
            flags: 0,
            method: 0,
            local_method: None,
            attributes: (REGULAR | 0o644) << 16,
            packed: content.to_vec(),
            packed_size: size,
            size,
            checksum: checksum(content),
            local_content: None,
            extra: Vec::new(),
            local_extra: Vec::new(),
            header: None,
        }
    }

    pub(super) fn deflated(name: &str, content: &[u8]) -> Self {
        let packed = deflate(content);
        Self {
            method: 8,
            packed_size: u32::try_from(packed.len()).unwrap(),
            packed,
            ..Self::stored(name, content)
        }
    }

    pub(super) fn dir(name: &str) -> Self {
        Self::stored(name, b"").unix(0o040_755)
    }

    /// Type and permissions as Unix has them.
    pub(super) fn unix(mut self, mode: u32) -> Self {
        self.attributes = mode << 16;
        self
    }

    pub(super) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

/// A whole archive.
#[derive(Clone, Default)]
pub(super) struct Builder {
    pub(super) prefix: Vec<u8>,
    pub(super) items: Vec<Item>,
    pub(super) count: Option<u16>,
    pub(super) between: Vec<u8>,
    pub(super) comment: Vec<u8>,
    pub(super) after: Vec<u8>,
}

impl Builder {
    pub(super) fn new(items: impl IntoIterator<Item = Item>) -> Self {
        Self {
            items: items.into_iter().collect(),
            ..Self::default()
        }
    }

    /// The items after a manifest.
    pub(super) fn plugin(items: impl IntoIterator<Item = Item>) -> Self {
        let manifest = Item::stored("manifest.json", b"{}");
        Self::new(std::iter::once(manifest).chain(items))
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.prefix.clone();
        let mut directory = Vec::new();
        for item in &self.items {
            let header = item
                .header
                .unwrap_or_else(|| u32::try_from(bytes.len()).unwrap());
            if item.header.is_none() {
                let name = item.local_name.as_ref().unwrap_or(&item.name);
                bytes.extend(b"PK\x03\x04\x14\0");
                let method = item.local_method.unwrap_or(item.method);
                item.common(method, item.local_content, &mut bytes);
                bytes.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
                bytes.extend(u16::try_from(item.local_extra.len()).unwrap().to_le_bytes());
                bytes.extend(name);
                bytes.extend(&item.local_extra);
                bytes.extend(&item.packed);
            }
            directory.extend(b"PK\x01\x02\x14");
            directory.push(item.system);
            directory.extend([20, 0]);
            item.common(item.method, None, &mut directory);
            directory.extend(u16::try_from(item.name.len()).unwrap().to_le_bytes());
            directory.extend(u16::try_from(item.extra.len()).unwrap().to_le_bytes());
            directory.extend([0; 6]);
            directory.extend(item.attributes.to_le_bytes());
            directory.extend(header.to_le_bytes());
            directory.extend(&item.name);
            directory.extend(&item.extra);
        }
        let count = self
            .count
            .unwrap_or_else(|| u16::try_from(self.items.len()).unwrap());
        let start = bytes.len();
        bytes.extend(&directory);
        bytes.extend(&self.between);
        bytes.extend(end(count, directory.len(), start, self.comment.len()));
        bytes.extend(&self.comment);
        bytes.extend(&self.after);
        bytes
    }

    pub(super) fn archive(&self) -> Archive {
        Archive::from_bytes(self.bytes(), &PackageLimits::default()).unwrap()
    }
}

impl Item {
    /// What both headers have in common, from the flags to the sizes.
    fn common(&self, method: u16, content: Option<[u32; 3]>, bytes: &mut Vec<u8>) {
        bytes.extend(self.flags.to_le_bytes());
        bytes.extend(method.to_le_bytes());
        bytes.extend([0, 0, 0x21, 0]);
        for field in content.unwrap_or([self.checksum, self.packed_size, self.size]) {
            bytes.extend(field.to_le_bytes());
        }
    }
}

/// The end of central directory.
pub(super) fn end(count: u16, length: usize, start: usize, comment: usize) -> Vec<u8> {
    let mut bytes = b"PK\x05\x06\0\0\0\0".to_vec();
    bytes.extend(count.to_le_bytes());
    bytes.extend(count.to_le_bytes());
    bytes.extend(u32::try_from(length).unwrap().to_le_bytes());
    bytes.extend(u32::try_from(start).unwrap().to_le_bytes());
    bytes.extend(u16::try_from(comment).unwrap().to_le_bytes());
    bytes
}

/// An archive that ends with records of zip64; each field of them may lie.
pub(super) struct Zip64 {
    pub(super) before: Vec<u8>,
    pub(super) count: u64,
    pub(super) length: u64,
    pub(super) start: u64,
    pub(super) record_size: u64,
    pub(super) disks: u32,
    /// Whether they are written at all.
    pub(super) records: bool,
    /// Whether count, length and start stand in the 16 or 32 bits of the end record besides.
    pub(super) narrow: [bool; 3],
    pub(super) true_fields: (u16, u32, u32),
    pub(super) after: Vec<u8>,
}

impl Zip64 {
    pub(super) fn of(builder: &Builder) -> Self {
        let mut before = builder.bytes();
        let end = before.split_off(before.len() - 22);
        let field = |at: usize| u32::from_le_bytes(end[at..at + 4].try_into().unwrap());
        let count = u16::from_le_bytes([end[10], end[11]]);
        Self {
            before,
            count: count.into(),
            length: field(12).into(),
            start: field(16).into(),
            record_size: 44,
            disks: 1,
            records: true,
            narrow: [false; 3],
            true_fields: (count, field(12), field(16)),
            after: Vec::new(),
        }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.before.clone();
        let record = bytes.len() as u64;
        if self.records {
            bytes.extend(b"PK\x06\x06");
            bytes.extend(self.record_size.to_le_bytes());
            bytes.extend([45, 3, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            for field in [self.count, self.count, self.length, self.start] {
                bytes.extend(field.to_le_bytes());
            }
            bytes.extend(b"PK\x06\x07\0\0\0\0");
            bytes.extend(record.to_le_bytes());
            bytes.extend(self.disks.to_le_bytes());
        }
        let (count, length, start) = self.true_fields;
        let [narrow_count, narrow_length, narrow_start] = self.narrow;
        let wide = |narrow, field| if narrow { field } else { u32::MAX };
        bytes.extend(end(
            if narrow_count { count } else { u16::MAX },
            wide(narrow_length, length) as usize,
            wide(narrow_start, start) as usize,
            0,
        ));
        bytes.extend(&self.after);
        bytes
    }
}

pub(super) fn checksum(content: &[u8]) -> u32 {
    !content.iter().fold(!0_u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            sum >> 1 ^ (0xedb8_8320 & (sum & 1).wrapping_neg())
        })
    })
}

fn deflate(content: &[u8]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Deflated);
    writer.start_file("x", options).unwrap();
    writer.write_all(content).unwrap();
    let mut archive = zip::ZipArchive::new(writer.finish().unwrap()).unwrap();
    let mut packed = Vec::new();
    archive
        .by_index_raw(0)
        .unwrap()
        .read_to_end(&mut packed)
        .unwrap();
    packed
}

/// Unpacks an archive, whose command is `./bin/main`.
pub(super) fn unpacked(root: &Path, archive: &Archive) -> Result<PathBuf, PackageError> {
    let limits = PackageLimits::default();
    unpack_once(archive, root, "./bin/main", &limits, NEVER)
}

/// The listing of a release directory, if that is whole.
pub(super) fn listing(release: &Path) -> Option<Listing> {
    let release = find_release_dir(release).unwrap()?;
    Listing::read(&release).unwrap()
}

/// What an update migrates unless it is told otherwise.
pub(super) const MIGRATION_LIMITS: MigrationLimits = MigrationLimits {
    bytes: 256 << 20,
    files: 10_000,
};

/// How many files, links and directories of a release are the plugin's own, and the bytes of those files.
pub(super) fn own_files(release: &Path) -> (usize, u64) {
    let (mut files, mut bytes) = (0, 0);
    let limits = MigrationLimits {
        files: usize::MAX,
        bytes: u64::MAX,
    };
    if let Some(release) = find_release_dir(release).unwrap() {
        let mut count = |item: UntrackedFile| {
            files += usize::from(item.untracked);
            if let UntrackedKind::File { size } = item.kind {
                bytes += size;
            }
        };
        list_untracked(
            &release,
            &limits,
            &mut MigratedFiles::default(),
            &mut count,
            NEVER,
        )
        .unwrap();
    }
    (files, bytes)
}

/// Does some work again and again, cancelled one question later each time, until it succeeds. Returns
/// how often it was cancelled before, and what it returned then.
#[track_caller]
pub(super) fn cancelled_at_each_moment<T>(
    mut work: impl FnMut(&dyn Fn() -> bool) -> Result<T, PackageError>,
) -> (u32, T) {
    let mut moment = 0;
    loop {
        let asked = Cell::new(0);
        let result = work(&|| {
            asked.set(asked.get() + 1);
            asked.get() > moment
        });
        match result {
            Err(PackageError::Cancelled) => moment += 1,
            other => return (moment, other.unwrap()),
        }
    }
}

/// A question whether to cancel that is answered with no, and does something when it is asked the nth time.
pub(super) fn when_asked(nth: u32, act: impl Fn()) -> impl Fn() -> bool {
    let asked = Cell::new(0);
    move || {
        asked.set(asked.get() + 1);
        if asked.get() == nth {
            act();
        }
        false
    }
}

/// What there is below a directory, the directory itself not included.
pub(super) fn walk(dir: &Path) -> Vec<(PathBuf, Metadata)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let metadata = path.symlink_metadata().unwrap();
        if metadata.is_dir() {
            found.extend(walk(&path));
        }
        found.push((path, metadata));
    }
    found
}

/// In what a change would show: mode, time of the last change, and the content of a file.
type Seen = (u32, i64, i64, Option<Vec<u8>>);

/// The directory and everything in it.
pub(super) fn tree(dir: &Path) -> BTreeMap<PathBuf, Seen> {
    let all = walk(dir).into_iter();
    all.chain([(dir.to_owned(), dir.symlink_metadata().unwrap())])
        .map(|(path, seen)| {
            let content = seen.is_file().then(|| fs::read(&path).unwrap());
            (
                path,
                (seen.mode(), seen.ctime(), seen.ctime_nsec(), content),
            )
        })
        .collect()
}

pub(super) fn mode(path: impl AsRef<Path>) -> u32 {
    let metadata = path.as_ref().symlink_metadata().unwrap();
    metadata.permissions().mode() & 0o7777
}

pub(super) fn set_mode(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

pub(super) fn make_pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Makes a socket that nothing listens to.
pub(super) fn make_socket(path: &Path) {
    // Bound elsewhere: its path there may be too long for one.
    let dir = TestDir::new("package");
    let socket = dir.path().join("socket");
    drop(UnixListener::bind(&socket).unwrap());
    fs::rename(socket, path).unwrap();
}

//! `Checker`: judges the entries of an archive by what its headers say.

use std::collections::HashMap;
use std::ops::Range;

use super::central_directory::{CentralDirectory, CentralRecord, Content, Zip};
use super::content::Bytes;
use super::entry::{Entry, EntryKind, mode};
use super::limits::{DIRECTORIES, PackageLimits};
use super::listing::MAX_FILES;
use super::path::{EntryPath, shown};
use super::tree::Tree;
use crate::error::PackageError;

const STORED: u16 = 0;
const DEFLATED: u16 = 8;

/// Checks entries one by one and collects the problems.
pub(super) struct Checker<'a> {
    archive: Bytes<'a>,
    directory_start: u64,
    zip: &'a Zip,
    limits: &'a PackageLimits,
    /// The library's number for each record, by the offset of the record.
    numbers: HashMap<u64, usize>,
    pub(super) problems: Vec<PackageError>,
    pub(super) entries: Vec<Entry>,
    pub(super) tree: Tree,
    ranges: Vec<(Range<u64>, String)>,
    files: usize,
    total: u64,
}

impl<'a> Checker<'a> {
    pub(super) fn new(
        archive: Bytes<'a>,
        directory: &CentralDirectory<'_>,
        zip: &'a Zip,
        limits: &'a PackageLimits,
    ) -> Self {
        let numbers = (0..zip.len())
            .filter_map(|index| {
                Some((zip.by_index_data(index).ok()?.central_header_start(), index))
            })
            .collect();
        Self {
            archive,
            directory_start: directory.start,
            zip,
            limits,
            numbers,
            problems: Vec::new(),
            entries: Vec::new(),
            tree: Tree::new(DIRECTORIES),
            ranges: Vec::new(),
            files: 0,
            total: 0,
        }
    }

    /// Checks one entry, up to its first problem.
    pub(super) fn entry(&mut self, record: &CentralRecord<'_>) -> Result<(), PackageError> {
        let path = EntryPath::parse(record.name)?;
        let entry = || shown(record.name);
        let is_dir = match EntryKind::of(record, path.is_dir) {
            EntryKind::File => false,
            EntryKind::TestDir => true,
            EntryKind::Link => return Err(PackageError::Link { entry: entry() }),
            EntryKind::Special(kind) => {
                return Err(PackageError::SpecialFile {
                    entry: entry(),
                    kind,
                });
            }
        };
        if record.is_encrypted() {
            return Err(PackageError::Encrypted { entry: entry() });
        }
        if !matches!(record.method, STORED | DEFLATED) {
            return Err(PackageError::UnsupportedMethod {
                entry: entry(),
                method: record.method,
            });
        }
        // The library identifies a record by its name, so it has lost all but the last of each name.
        let Some(&index) = self.numbers.get(&record.offset) else {
            return Err(PackageError::Duplicate { entry: entry() });
        };
        let bad = |problem| PackageError::BadEntry {
            entry: entry(),
            problem,
        };
        let data = self
            .zip
            .by_index_data(index)
            .map_err(|_| bad("it cannot be read"))?;
        if data.name_raw() != record.name {
            return Err(bad("it has two names; make the archive with UTF-8 names"));
        }
        let (size, packed) = (data.size(), data.compressed_size());
        let content = Content {
            checksum: data.crc32(),
            packed,
            size,
        };
        let header = data.header_start();
        let start = record.content_start(self.archive, header, content)?;
        let end = start
            .checked_add(packed)
            .filter(|end| *end <= self.directory_start)
            .ok_or_else(|| bad("its content is not in the archive"))?;
        self.ranges.push((header..end, entry()));

        if is_dir {
            if size > 0 {
                return Err(PackageError::DirectoryWithContent { entry: entry() });
            }
            if path.path.is_empty() {
                return Ok(());
            }
        } else {
            self.files += 1;
            self.limits.check_file(&path.path, size, &mut self.total)?;
            if record.method == STORED && packed != size {
                return Err(PackageError::SizeMismatch {
                    entry: entry(),
                    declared: size,
                    found: packed,
                });
            }
        }
        self.tree.add(&path.path, is_dir)?;
        self.entries.push(Entry {
            path: path.path,
            is_dir,
            size,
            mode: if is_dir { 0o755 } else { mode(record) },
            index,
        });
        Ok(())
    }

    pub(super) fn totals(&mut self) {
        // The listing of a release can hold no more.
        let (found, limit) = (self.files, self.limits.files.min(MAX_FILES));
        if found > limit {
            self.problems
                .push(PackageError::TooManyFiles { found, limit });
        }
    }

    /// Finds entries that share bytes: with those, a small archive unpacks to a huge one.
    pub(super) fn overlaps(&mut self) {
        self.ranges.sort_by_key(|(range, _)| range.start);
        let mut furthest: Option<&(Range<u64>, String)> = None;
        for this in &self.ranges {
            if let Some(earlier) = furthest
                && earlier.0.end > this.0.start
            {
                self.problems.push(PackageError::Overlap {
                    entry: this.1.clone(),
                    other: earlier.1.clone(),
                });
            }
            if furthest.is_none_or(|earlier| earlier.0.end < this.0.end) {
                furthest = Some(this);
            }
        }
    }
}

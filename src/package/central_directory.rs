//! The central directory of a zip archive, parsed by ourselves before the zip library sees it.
//!
//! The library keeps its entries in a map by name, so that of two entries with one name only the last is
//! seen; it also searches for a central directory in lenient ways. Here it is parsed strictly, without
//! allocating anything whose size the archive chooses, and the two readings are compared: as a whole here,
//! entry by entry in `check`.

use std::collections::HashSet;

use zip::ZipArchive;
use zip::read::{ArchiveOffset, Config};
use zip::result::ZipError;

use super::content::{ArchiveReader, Bytes, unreadable};
use super::end_record::EndRecord;
use super::path::shown;
use crate::error::PackageError;

const RECORD_SIGNATURE: &[u8; 4] = b"PK\x01\x02";
const RECORD_LENGTH: usize = 46;
const LOCAL_SIGNATURE: &[u8; 4] = b"PK\x03\x04";
const LOCAL_LENGTH: usize = 30;
/// Encryption: traditional, strong, and masked headers.
const ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;
/// The local header was written before the content was known.
const SIZES_LATER: u16 = 1 << 3;
const ZIP64_EXTRA: u16 = 1;

pub(super) type Zip = ZipArchive<ArchiveReader>;

/// The central directory: its offset, and its records in order.
pub(super) struct CentralDirectory<'a> {
    pub(super) start: u64,
    pub(super) records: Vec<CentralRecord<'a>>,
}

/// One record of the central directory: what both readings have to agree on, and what the library
/// does not return.
pub(super) struct CentralRecord<'a> {
    /// Its offset in the archive.
    pub(super) offset: u64,
    /// The number of the system that the entry was made on.
    pub(super) system: u8,
    pub(super) flags: u16,
    pub(super) method: u16,
    pub(super) external_attributes: u32,
    pub(super) name: &'a [u8],
}

/// What a header says about an entry's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) checksum: u32,
    /// Bytes in the archive.
    pub(super) packed: u64,
    /// Bytes, unpacked.
    pub(super) size: u64,
}

impl<'a> CentralDirectory<'a> {
    /// Parses the central directory.
    ///
    /// # Errors
    /// [`PackageError::Malformed`].
    pub(super) fn parse(end: &EndRecord, bytes: &'a [u8]) -> Result<Self, PackageError> {
        let mut records = Vec::with_capacity(end.count);
        let mut offset = 0;
        for _ in 0..end.count {
            let (record, next) =
                CentralRecord::read(bytes, end.start, offset).ok_or_else(|| {
                    malformed("its central directory has fewer records than it counts")
                })?;
            records.push(record);
            offset = next;
        }
        if offset != bytes.len() {
            return Err(malformed(
                "its central directory has more records than it counts",
            ));
        }
        Ok(Self {
            start: end.start,
            records,
        })
    }

    /// Has the zip library read the same archive, and checks that it finds the same.
    ///
    /// # Errors
    /// [`PackageError::Malformed`] and [`PackageError::Unreadable`].
    pub(super) fn open(&self, reader: ArchiveReader) -> Result<Zip, PackageError> {
        let config = Config {
            archive_offset: ArchiveOffset::Known(0),
        };
        let zip = ZipArchive::with_config(config, reader).map_err(|error| match error {
            ZipError::Io(source) if source.raw_os_error().is_some() => unreadable(source),
            error => PackageError::Malformed {
                problem: error.to_string(),
            },
        })?;
        let names: HashSet<&[u8]> = self.records.iter().map(|record| record.name).collect();
        if zip.central_directory_start() != self.start || zip.len() != names.len() {
            return Err(malformed("it has two central directories, or hidden names"));
        }
        Ok(zip)
    }
}

impl<'a> CentralRecord<'a> {
    /// Returns the record at this offset of the directory, which begins at `start`, and the next offset.
    fn read(bytes: &'a [u8], start: u64, offset: usize) -> Option<(Self, usize)> {
        let rest = bytes.get(offset..)?.strip_prefix(RECORD_SIGNATURE)?;
        let mut fields = FieldReader(rest);
        let made_by = fields.u16()?;
        let _needs = fields.u16()?;
        let flags = fields.u16()?;
        let method = fields.u16()?;
        // Time, date, checksum and both sizes: the library returns those.
        fields.skip(2 + 2 + 4 + 4 + 4)?;
        let name_length = usize::from(fields.u16()?);
        let extra_length = usize::from(fields.u16()?);
        let comment_length = usize::from(fields.u16()?);
        // Disk and internal attributes.
        fields.skip(2 + 2)?;
        let external_attributes = fields.u32()?;
        let name_start = offset + RECORD_LENGTH;
        let name = bytes.get(name_start..name_start + name_length)?;
        let next = name_start + name_length + extra_length + comment_length;
        if next > bytes.len() {
            return None;
        }
        let [_, system] = made_by.to_le_bytes();
        let record = Self {
            offset: start + offset as u64,
            system,
            flags,
            method,
            external_attributes,
            name,
        };
        Some((record, next))
    }

    pub(super) const fn is_encrypted(&self) -> bool {
        self.flags & ENCRYPTED != 0
    }

    /// Compares the entry's local header with this record, and with what the library found in it. Returns
    /// the offset of its content.
    ///
    /// # Errors
    /// [`PackageError::BadEntry`] and [`PackageError::Unreadable`].
    pub(super) fn content_start(
        &self,
        archive: Bytes<'_>,
        header: u64,
        content: Content,
    ) -> Result<u64, PackageError> {
        let bad = |problem| PackageError::BadEntry {
            entry: shown(self.name),
            problem,
        };
        let outside = || bad("its content is not in the archive");
        let fixed = archive.range(header, LOCAL_LENGTH)?;
        let fixed = fixed.as_deref().ok_or_else(outside)?;
        let mut fields = FieldReader(fixed.strip_prefix(LOCAL_SIGNATURE).ok_or_else(outside)?);
        let mut read = || {
            let _needs = fields.u16()?;
            let (flags, method) = (fields.u16()?, fields.u16()?);
            // Time and date.
            fields.skip(2 + 2)?;
            let (checksum, packed, size) = (fields.u32()?, fields.u32()?, fields.u32()?);
            let (name, extra) = (usize::from(fields.u16()?), usize::from(fields.u16()?));
            Some((flags, method, (checksum, packed, size), name, extra))
        };
        let (flags, method, local, name_length, extra_length) = read().ok_or_else(outside)?;
        let names = header + LOCAL_LENGTH as u64;
        let names_length = name_length + extra_length;
        let variable = archive.range(names, names_length)?.ok_or_else(outside)?;
        let (name, extra) = variable.split_at(name_length);
        if name != self.name {
            return Err(bad("its two headers have different names"));
        }
        if method != self.method || (flags ^ self.flags) & ENCRYPTED != 0 {
            return Err(bad("its two headers have different methods"));
        }
        if !content.agrees_with(local, extra, flags) {
            return Err(bad("its two headers have different sizes or checksums"));
        }
        Ok(names + names_length as u64)
    }
}

impl Content {
    /// Checks whether a local header says the same: its checksum, packed size and size. A header that was
    /// written before the content may have zeros instead.
    fn agrees_with(&self, local: (u32, u32, u32), extra: &[u8], flags: u16) -> bool {
        let (checksum, packed, size) = local;
        let mut wide = zip64_sizes(extra);
        let mut widened = |size: u32| {
            if size == u32::MAX {
                wide.next()
            } else {
                Some(size.into())
            }
        };
        // In this order in the extra field.
        let (size, packed) = (widened(size), widened(packed));
        let unsaid = |value| flags & SIZES_LATER != 0 && value == 0;
        let agree = |local: Option<u64>, central| {
            local.is_some_and(|local| local == central || unsaid(local))
        };
        agree(Some(checksum.into()), self.checksum.into())
            && agree(size, self.size)
            && agree(packed, self.packed)
    }
}

/// Returns the sizes in the zip64 part of an extra field; none if there is no such part.
fn zip64_sizes(extra: &[u8]) -> impl Iterator<Item = u64> {
    let mut fields = FieldReader(extra);
    let mut found = &[][..];
    while let (Some(kind), Some(length)) = (fields.u16(), fields.u16()) {
        let Some(part) = fields.bytes(length.into()) else {
            break;
        };
        if kind == ZIP64_EXTRA {
            found = part;
            break;
        }
    }
    let (sizes, _) = found.as_chunks::<8>();
    sizes.iter().map(|size| u64::from_le_bytes(*size))
}

/// Reads consecutive little-endian numbers.
pub(super) struct FieldReader<'a>(pub(super) &'a [u8]);

impl<'a> FieldReader<'a> {
    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(super) fn skip(&mut self, count: usize) -> Option<()> {
        self.bytes(count).map(drop)
    }
}

pub(super) fn malformed(problem: &str) -> PackageError {
    PackageError::Malformed {
        problem: problem.to_owned(),
    }
}

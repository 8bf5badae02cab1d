//! `EndRecord`: where an archive ends, and what its end says about the central directory.
//!
//! Readers differ in which of several ends they take and in when they use the records of zip64: some
//! whenever there are any, some only when a field of the end record refers to them. So an archive is
//! accepted here only if it has one end whichever way it is read: each field of the end record agrees with
//! those records, or refers to them.

use super::central_directory::{FieldReader, malformed};
use super::content::Bytes;
use crate::error::PackageError;

const SIGNATURE: &[u8; 4] = b"PK\x05\x06";
const LENGTH: usize = 22;
const ZIP64_SIGNATURE: &[u8; 4] = b"PK\x06\x06";
/// Without a vendor's own data, which readers expect in different places.
const ZIP64_LENGTH: usize = 56;
const LOCATOR_SIGNATURE: &[u8; 4] = b"PK\x06\x07";
const LOCATOR_LENGTH: usize = 20;

/// How many bytes may follow the end record: about as much as the longest comment, or as the padding that
/// other readers skip.
const LONGEST_TAIL: usize = 64 * 1024;

/// Bytes of central directory that an archive may have for each entry that it may have: the record itself,
/// its name, and what tools add. The directory is read into memory whole, by two readers.
const LENGTH_PER_ENTRY: usize = 1_024;

/// Where the central directory is, according to the end of the archive.
pub(super) struct EndRecord {
    pub(super) start: u64,
    pub(super) length: usize,
    /// The number of its records.
    pub(super) count: usize,
}

impl EndRecord {
    /// Reads the end of an archive and checks it against the limits.
    ///
    /// # Errors
    /// [`PackageError::NotAnArchive`], [`PackageError::Empty`], [`PackageError::TooManyEntries`],
    /// [`PackageError::DirectoryTooLarge`], [`PackageError::Malformed`] and
    /// [`PackageError::Unreadable`].
    pub(super) fn find(archive: Bytes<'_>, entry_limit: usize) -> Result<Self, PackageError> {
        let end = WideEndRecord::find(archive)?;
        // If it does not fit into memory, reading it fails.
        let native = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let (count, length, limit) = (native(end.count), native(end.length), entry_limit);
        if count > limit {
            return Err(PackageError::TooManyEntries {
                found: count,
                limit,
            });
        }
        if end.start.checked_add(end.length) != Some(end.at) {
            return Err(malformed("its central directory is not where it should be"));
        }
        if count == 0 && length == 0 {
            return Err(PackageError::Empty);
        }
        let limit = entry_limit.saturating_mul(LENGTH_PER_ENTRY) as u64;
        if end.length > limit {
            return Err(PackageError::DirectoryTooLarge {
                size: end.length,
                limit,
            });
        }
        Ok(Self {
            start: end.start,
            length,
            count,
        })
    }
}

/// The end of an archive, in fields that are wide enough for zip64.
struct WideEndRecord {
    /// Where the records of the end begin, which is where the central directory has to end.
    at: u64,
    count: u64,
    length: u64,
    start: u64,
}

impl WideEndRecord {
    /// Finds the end record, and the records of zip64 before it. Its comment may be followed by nothing, one
    /// line end, or zeros: 64 KiB of comment and zeros together, which is as far as other readers search.
    ///
    /// # Errors
    /// [`PackageError::NotAnArchive`], [`PackageError::Malformed`] and [`PackageError::Unreadable`].
    fn find(archive: Bytes<'_>) -> Result<Self, PackageError> {
        let not_an_archive = |problem| PackageError::NotAnArchive { problem };
        let longest = LENGTH + LONGEST_TAIL;
        let tail_length = usize::try_from(archive.size()).map_or(longest, |size| size.min(longest));
        let tail_start = archive.size() - tail_length as u64;
        let tail = archive.range(tail_start, tail_length)?.unwrap_or_default();
        let Some(end) = find_record(&tail) else {
            return Err(not_an_archive(if archive.contain(SIGNATURE)? {
                "something comes after its end"
            } else {
                "it has no end of central directory, so it is something else or cut off"
            }));
        };
        let mut fields = FieldReader(&tail[end + SIGNATURE.len()..]);
        let mut read = || {
            let disks = (fields.u16()?, fields.u16()?);
            let counts = (fields.u16()?, fields.u16()?);
            Some((disks, counts, fields.u32()?, fields.u32()?))
        };
        let (disks, (on_disk, count), length, start) =
            read().ok_or_else(|| not_an_archive("its end is cut off"))?;
        if disks != (0, 0) || on_disk != count {
            return Err(in_parts());
        }
        let refers = count == u16::MAX || length == u32::MAX || start == u32::MAX;
        let end = tail_start + end as u64;
        if let Some(wide) = Self::zip64(archive, end, refers)? {
            let agree = (count == u16::MAX || u64::from(count) == wide.count)
                && (length == u32::MAX || u64::from(length) == wide.length)
                && (start == u32::MAX || u64::from(start) == wide.start);
            return if agree {
                Ok(wide)
            } else {
                Err(malformed("it has two different ends, one of them of zip64"))
            };
        }
        // The count is not checked: 65,535 may be the true one.
        if length == u32::MAX || start == u32::MAX {
            return Err(malformed(
                "its end refers to zip64 records that are not there",
            ));
        }
        Ok(Self {
            at: end,
            count: count.into(),
            length: length.into(),
            start: start.into(),
        })
    }

    /// Reads the records of zip64 that stand before the end record, if there are any.
    fn zip64(archive: Bytes<'_>, end: u64, refers: bool) -> Result<Option<Self>, PackageError> {
        let at = |back: usize, length| match end.checked_sub(back as u64) {
            Some(start) => archive.range(start, length),
            None => Ok(None),
        };
        let back = LOCATOR_LENGTH + ZIP64_LENGTH;
        let locator = at(LOCATOR_LENGTH, LOCATOR_LENGTH)?.unwrap_or_default();
        let record = at(back, ZIP64_LENGTH)?.unwrap_or_default();
        let Some(locator) = locator.strip_prefix(LOCATOR_SIGNATURE) else {
            return Ok(None);
        };
        let Some(record) = record.strip_prefix(ZIP64_SIGNATURE) else {
            // What resembles the one without the other may be the end of a comment.
            return if refers { Err(damaged()) } else { Ok(None) };
        };
        let mut fields = FieldReader(locator);
        let mut read = || Some((fields.u32()?, fields.u64()?, fields.u32()?));
        let (disk, place, disks) = read().ok_or_else(damaged)?;
        let mut fields = FieldReader(record);
        let mut read = || {
            // The length of what follows the field itself.
            let rest = fields.u64()?;
            // The versions that made it and that it needs.
            fields.skip(2 + 2)?;
            let disks = (fields.u32()?, fields.u32()?);
            let counts = (fields.u64()?, fields.u64()?);
            Some((rest, disks, counts, fields.u64()?, fields.u64()?))
        };
        let (rest, own_disks, (on_disk, count), length, start) = read().ok_or_else(damaged)?;
        if (disk, disks) != (0, 1) || own_disks != (0, 0) || on_disk != count {
            return Err(in_parts());
        }
        let at = end - back as u64;
        if place != at || rest != ZIP64_LENGTH as u64 - 12 {
            return Err(damaged());
        }
        Ok(Some(Self {
            at,
            count,
            length,
            start,
        }))
    }
}

/// Finds the end record in the last bytes of an archive: the last one whose comment ends where the archive
/// ends, or which only padding follows.
fn find_record(tail: &[u8]) -> Option<usize> {
    let last = tail.len().checked_sub(LENGTH)?;
    let zeros = tail
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at + 1);
    (0..=last).rev().find(|start| {
        let end = &tail[*start..];
        let comment = u16::from_le_bytes([end[LENGTH - 2], end[LENGTH - 1]]);
        let over = start + LENGTH + usize::from(comment);
        end.starts_with(SIGNATURE)
            && tail
                .get(over..)
                .is_some_and(|after| over >= zeros || matches!(after, b"\n" | b"\r\n"))
    })
}

fn in_parts() -> PackageError {
    malformed("it is a part of an archive in several parts")
}

fn damaged() -> PackageError {
    malformed("its zip64 records are damaged")
}

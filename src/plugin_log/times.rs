//! `Times`: when the bytes of a log were written, to about a second, in a file beside its index.
//!
//! It is a hint. What is not in it, or damaged, is unknown, and no error: a log from before it existed, or a disk that
//! is full. The plugin may change it as it may change the log.

use std::io::{self, Write as _};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::file::{FILE_MODE, LogFile};
use super::timestamp::since_epoch;
use crate::id::Xid;
use crate::package::OpenDir;

pub(super) const TIMES: &str = "output.times";
const NEW_TIMES: &str = "output.times.new";

/// How long one record is for.
pub(super) const STEP: Duration = Duration::from_secs(1);
/// The name of the log, before the records.
const HEADER: usize = 20;
const RECORD: usize = 16;
/// With them the file has 4 MiB. Over it the older half is dropped, so that of a plugin that prints without a pause
/// the last day and a half is known.
const MOST_RECORDS: usize = 256 * 1024;

/// What is in the log from this position on, up to that of the next record, was written within a second after this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    position: u64,
    /// Milliseconds since 1970.
    at: u64,
}

impl Record {
    fn parse(bytes: &[u8; RECORD]) -> Self {
        let word = |from: usize| {
            let mut word = [0; RECORD / 2];
            word.copy_from_slice(&bytes[from..from + RECORD / 2]);
            u64::from_le_bytes(word)
        };
        Self {
            position: word(0),
            at: word(RECORD / 2),
        }
    }

    fn bytes(self) -> [u8; RECORD] {
        let mut bytes = [0; RECORD];
        bytes[..RECORD / 2].copy_from_slice(&self.position.to_le_bytes());
        bytes[RECORD / 2..].copy_from_slice(&self.at.to_le_bytes());
        bytes
    }
}

/// The times as they are written.
#[derive(Debug)]
pub(super) struct Times {
    file: Arc<LogFile>,
    records: usize,
}

impl Times {
    /// Begins the file anew, with those of its records that are of this log and between these positions.
    pub(super) fn begin(directory: &OpenDir, log: Xid, kept: Range<u64>) -> io::Result<Self> {
        let old = LogFile::read_from(directory, TIMES).ok().flatten();
        let mut records = old
            .and_then(|file| read(&file, log).ok())
            .unwrap_or_default();
        // The one before the first position says when what is behind that was written.
        let first = records.partition_point(|record| record.position <= kept.start);
        let end = records.partition_point(|record| record.position <= kept.end);
        let most = end.saturating_sub(MOST_RECORDS / 2);
        let first = first.saturating_sub(1).max(most);
        records = records[first..end.max(first)].to_vec();
        let mut bytes = log.to_string().into_bytes();
        bytes.extend(records.iter().flat_map(|record| record.bytes()));
        directory.unlink(NEW_TIMES)?;
        let mut file = directory.create_file(NEW_TIMES, FILE_MODE)?;
        file.write_all(&bytes)?;
        directory.rename(NEW_TIMES, directory, TIMES)?;
        Ok(Self {
            file: Arc::new(LogFile::of(file)?),
            records: records.len(),
        })
    }

    pub(super) fn file(&self) -> Arc<LogFile> {
        Arc::clone(&self.file)
    }

    pub(super) fn is_full(&self) -> bool {
        self.records >= MOST_RECORDS
    }

    /// Notes that what is in the log from this position on is written at this time.
    pub(super) fn note(&mut self, position: u64, now: SystemTime) -> io::Result<()> {
        let at = since_epoch(now);
        let record = Record { position, at };
        self.file.file().write_all(&record.bytes())?;
        self.records += 1;
        Ok(())
    }

    /// Makes all unknown: without the records that are missing, the last would be taken for the time of all after it.
    pub(super) fn clear(&self) {
        let _ = self.file.file().set_len(0);
    }
}

/// Returns all records, which are in order.
fn read(file: &LogFile, log: Xid) -> io::Result<Vec<Record>> {
    let most = HEADER + MOST_RECORDS * RECORD;
    let most = usize::try_from(file.length()?).map_or(most, |length| length.min(most));
    let mut bytes = vec![0; most];
    let mut length = 0;
    while length < bytes.len() {
        match file.read_at(&mut bytes[length..], length as u64)? {
            0 => break,
            count => length += count,
        }
    }
    let records = bytes[..length].strip_prefix(log.to_string().as_bytes());
    let (records, _) = records.ok_or(io::ErrorKind::InvalidData)?.as_chunks();
    let records: Vec<_> = records.iter().map(Record::parse).collect();
    let is_sorted = records.is_sorted_by_key(|record| record.position);
    is_sorted
        .then_some(records)
        .ok_or(io::ErrorKind::InvalidData.into())
}

/// Returns when the byte at a position was written, if that is known, and for which bytes that holds as well.
pub(super) fn find(file: &LogFile, position: u64) -> io::Result<(Range<u64>, Option<SystemTime>)> {
    let length = usize::try_from(file.length()?).unwrap_or(usize::MAX);
    let records = (length.saturating_sub(HEADER) / RECORD).min(MOST_RECORDS);
    let record = |index: usize| {
        let mut bytes = [0; RECORD];
        match file.read_at(&mut bytes, (HEADER + index * RECORD) as u64)? {
            RECORD => Ok(Record::parse(&bytes)),
            _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
        }
    };
    // Those before `low` are at the position or before it, and those from `high` on behind it.
    let (mut low, mut high) = (0, records);
    let (mut start, mut end, mut at) = (0, u64::MAX, None);
    while low < high {
        let middle = usize::midpoint(low, high);
        let found = record(middle)?;
        if found.position <= position {
            (low, start, at) = (middle + 1, found.position, Some(found.at));
        } else {
            (high, end) = (middle, found.position);
        }
    }
    // Where a plugin made a hole in the file there are zeros.
    let at = at.filter(|at| *at > 0);
    let at = at.and_then(|at| UNIX_EPOCH.checked_add(Duration::from_millis(at)));
    Ok((start..end, at))
}

/// Returns from which position on all was written at this time or later, and what was in the second before it. `None`
/// if it is not known of all before it that it was earlier; `u64::MAX` if all was earlier.
pub(super) fn since(file: &LogFile, log: Xid, time: SystemTime) -> Option<u64> {
    let records = read(file, log).ok()?;
    let time = since_epoch(time.checked_sub(STEP).unwrap_or(UNIX_EPOCH));
    let earlier = |record: &Record| record.at <= time;
    let last = records.iter().rposition(earlier)?;
    let next = records.get(last + 1);
    Some(next.map_or(u64::MAX, |record| record.position))
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::super::scratch::Scratch;
    use super::*;

    const LOG: &str = "d5k1vvc5o2dtjn9ct4bg";

    fn log() -> Xid {
        LOG.parse().unwrap()
    }

    fn time(milliseconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(milliseconds)
    }

    fn at(times: &Times, position: u64) -> Option<u64> {
        let (holds, at) = find(&times.file(), position).unwrap();
        assert!(holds.contains(&position), "{holds:?}");
        at.map(since_epoch)
    }

    fn from(times: &Times, time: u64) -> Option<u64> {
        since(&times.file(), log(), self::time(time))
    }

    #[test]
    fn times_are_found_and_kept_with_the_files_that_they_are_of() {
        let scratch = Scratch::new("times");
        let directory = file::make_directory(&scratch.logs()).unwrap();
        let begin = |log, kept| Times::begin(&directory, log, kept).unwrap();
        let mut times = begin(log(), 0..50);
        assert_eq!((at(&times, 0), from(&times, 0)), (None, None));
        for (position, now) in [(50, 10_000), (100, 20_000), (200, 21_000)] {
            times.note(position, time(now)).unwrap();
        }
        let known = [
            (49, None),
            (50, Some(10_000)),
            (99, Some(10_000)),
            (100, Some(20_000)),
        ];
        for (position, time) in known.into_iter().chain([(u64::MAX - 1, Some(21_000))]) {
            assert_eq!(at(&times, position), time, "{position}");
        }
        for (time, position) in [
            // What is before the first may be from then.
            (10_999, None),
            (11_000, Some(100)),
            (20_999, Some(100)),
            (21_000, Some(200)),
            (22_000, Some(u64::MAX)),
        ] {
            assert_eq!(from(&times, time), position, "{time}");
        }
        // The files before 150 are gone, and what was behind 199 was lost.
        let times = begin(log(), 150..199);
        assert_eq!(times.records, 1);
        assert_eq!((at(&times, 150), at(&times, 99)), (Some(20_000), None));
        // Of another log.
        let times = begin(Xid::generate(), 0..199);
        assert_eq!((times.records, at(&times, 150)), (0, None));
    }

    #[test]
    fn there_is_a_bound_and_the_newest_are_kept() {
        let scratch = Scratch::new("times-bound");
        let directory = file::make_directory(&scratch.logs()).unwrap();
        let records = (0..MOST_RECORDS as u64 + 10).map(|it| Record {
            position: it,
            at: it * 1000,
        });
        let mut bytes = LOG.as_bytes().to_vec();
        bytes.extend(records.flat_map(Record::bytes));
        std::fs::write(scratch.logs().join(TIMES), bytes).unwrap();
        let times = Times::begin(&directory, log(), 0..u64::MAX).unwrap();
        assert_eq!(times.records, MOST_RECORDS / 2);
        let newest = MOST_RECORDS as u64 - 1;
        assert_eq!(at(&times, newest), Some(newest * 1000));
        assert!(!times.is_full());
    }

    #[test]
    fn whatever_a_plugin_puts_there_is_unknown() {
        let scratch = Scratch::new("times-odd");
        let directory = file::make_directory(&scratch.logs()).unwrap();
        let path = scratch.logs().join(TIMES);
        let record = |position, at| Record { position, at }.bytes();
        let unordered = [LOG.as_bytes(), &record(9, 9), &record(8, 9)].concat();
        for odd in [
            &b""[..],
            b"x",
            &LOG.as_bytes()[..19],
            &unordered,
            &[0xff; 5000],
        ] {
            std::fs::write(&path, odd).unwrap();
            let times = Times::begin(&directory, log(), 0..1000).unwrap();
            assert_eq!((times.records, at(&times, 9)), (0, None), "{odd:?}");
        }
        std::fs::remove_file(&path).unwrap();
        let target = scratch.path().join("target");
        std::fs::write(&target, &unordered).unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        let mut times = Times::begin(&directory, log(), 0..1000).unwrap();
        times.note(7, time(7000)).unwrap();
        assert_eq!(at(&times, 9), Some(7000));
        assert_eq!(std::fs::read(&target).unwrap(), unordered);
        // While it is open: a hole, another order, and no end.
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(1 << 42).unwrap();
        assert_eq!(at(&times, 9), None);
        assert_eq!(since(&times.file(), log(), time(1)), None);
        std::fs::write(&path, [&unordered, &[0xff; 5][..]].concat()).unwrap();
        let _ = find(&times.file(), 9).unwrap();
        times.clear();
        assert_eq!(at(&times, 9), None);
    }
}

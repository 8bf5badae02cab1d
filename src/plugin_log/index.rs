//! `Index`: where in the log each of its files begins, kept in a file beside them. By it a place in the log is the
//! same one after a rotation, after a restart of the host, and in a copy of the directory.
//!
//! It is written when a file is begun, and never for a line. What it does not say is found out from the lengths
//! of the files: a log from before it existed, or a host that died between two steps. The plugin may change or
//! remove it; then places from before are gone.

use std::fmt;
use std::io::{self, Read as _, Write as _};

use super::file::{CURRENT, FILE_MODE};
use super::timestamp::Timestamp;
use crate::id::Xid;
use crate::package::OpenDir;

pub(super) const INDEX: &str = "output.index";
const NEW_INDEX: &str = "output.index.new";

/// Bytes of an index that are read: with them it is one of more than 100,000 files.
const MOST_BYTES: u64 = 8 * 1024 * 1024;

/// No log has come that far. Positions after it can be added to without a check.
const MOST_POSITION: u64 = 1 << 62;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Index {
    /// Names the log. An index that is made anew has a new one.
    pub(super) log: Xid,
    /// How many bytes of the log are before each old file; oldest first.
    pub(super) old: Vec<(Timestamp, u64)>,
    /// How many are before the current file.
    pub(super) current: u64,
}

impl Index {
    /// Returns the index of a log that has none yet.
    pub(super) fn new() -> Self {
        Self {
            log: Xid::generate(),
            old: Vec::new(),
            current: 0,
        }
    }

    /// Reads the index in a log's directory; returns `None` if there is none.
    pub(super) fn read_from(directory: &OpenDir) -> io::Result<Option<Self>> {
        let Some((file, _)) = directory.open_file(INDEX)? else {
            return Ok(None);
        };
        let mut text = String::new();
        file.take(MOST_BYTES).read_to_string(&mut text)?;
        let index = Self::parse(&text).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Some(index))
    }

    /// Writes the index into a log's directory, wholly or not at all.
    pub(super) fn write_to(&self, directory: &OpenDir) -> io::Result<()> {
        directory.unlink(NEW_INDEX)?;
        let mut file = directory.create_file(NEW_INDEX, FILE_MODE)?;
        file.write_all(self.to_string().as_bytes())?;
        directory.rename(NEW_INDEX, directory, INDEX)
    }

    /// Returns where each of these old files begins, and where the current file does. They come in their order,
    /// each with its length.
    pub(super) fn starts(&self, files: &[(Timestamp, u64)]) -> (Vec<u64>, u64) {
        let last_known = self.old.last().map(|(stamp, _)| *stamp);
        let mut end = 0_u64;
        let starts = files.iter().map(|(stamp, length)| {
            let known = self.old.binary_search_by_key(stamp, |(stamp, _)| *stamp);
            let start = match known {
                Ok(known) => self.old[known].1,
                // It was the current file when the index was written, or came after that.
                Err(_) if Some(*stamp) > last_known => end.max(self.current),
                Err(_) => end,
            };
            end = start.saturating_add(*length);
            start
        });
        let starts = starts.collect();
        (starts, end.max(self.current))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let log = lines.next()?.parse().ok()?;
        let mut old = Vec::new();
        for line in &mut lines {
            let (start, name) = line.split_once(' ')?;
            let start = start.parse().ok().filter(|start| *start < MOST_POSITION)?;
            if name == CURRENT {
                let ordered = old.is_sorted_by(|(stamp, start), (next_stamp, next_start)| {
                    stamp < next_stamp && start <= next_start
                });
                let index = Self {
                    log,
                    old,
                    current: start,
                };
                return (ordered && lines.next().is_none()).then_some(index);
            }
            old.push((Timestamp::from_file_name(name)?, start));
        }
        None
    }
}

/// A line with the name of the log, and one for each file, oldest first: how many bytes of the log are before it.
impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.log)?;
        for (stamp, start) in &self.old {
            writeln!(f, "{start} {}", stamp.file_name())?;
        }
        writeln!(f, "{} {CURRENT}", self.current)
    }
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::super::scratch::Scratch;
    use super::*;

    const TEXT: &str = "d5k1vvc5o2dtjn9ct4bg\n\
        70 output-2026-02-21T11-50-22.965.log\n\
        90 output-2026-02-21T11-50-22.966.log\n\
        90 output.log\n";

    fn stamp(millisecond: u32) -> Timestamp {
        let name = format!("output-2026-02-21T11-50-22.{millisecond:03}.log");
        Timestamp::from_file_name(&name).unwrap()
    }

    fn index() -> Index {
        Index {
            log: "d5k1vvc5o2dtjn9ct4bg".parse().unwrap(),
            old: vec![(stamp(965), 70), (stamp(966), 90)],
            current: 90,
        }
    }

    #[test]
    fn an_index_is_read_as_it_was_written() {
        assert_eq!(index().to_string(), TEXT);
        assert_eq!(Index::parse(TEXT), Some(index()));
        let new = Index::new();
        assert_eq!(Index::parse(&new.to_string()), Some(new));
    }

    #[test]
    fn what_is_no_index_is_refused() {
        for (from, to) in [
            (TEXT, ""),
            (TEXT, "\n"),
            ("d5k", "5k"),
            ("90 output.log\n", "90 output.log"),
            ("90 output.log\n", ""),
            ("90 output.log\n", "90 output.log\n\n"),
            ("90 output.log\n", "90 output.log\n90 output.log\n"),
            ("90 output.log", "-90 output.log"),
            ("90 output.log", "4611686018427387904 output.log"),
            ("90 output-", "60 output-"),
            ("22.966", "22.965"),
            ("22.966", "22.964"),
            ("22.966", "22.96"),
            ("90 output-", "90  output-"),
        ] {
            let text = TEXT.replacen(from, to, 1);
            assert_ne!(text, TEXT, "{from}");
            assert_eq!(Index::parse(&text), None, "{text}");
        }
    }

    #[test]
    fn where_files_begin_is_known_though_some_came_or_went_since() {
        let index = index();
        let starts = |files: &[(u32, u64)]| {
            let files = files.iter().map(|(at, length)| (stamp(*at), *length));
            index.starts(&files.collect::<Vec<_>>())
        };
        assert_eq!(starts(&[(965, 20), (966, 0)]), (vec![70, 90], 90));
        // Removed, or removed by hand.
        assert_eq!(starts(&[(966, 0)]), (vec![90], 90));
        assert_eq!(starts(&[(965, 20)]), (vec![70], 90));
        assert_eq!(starts(&[]), (vec![], 90));
        // Rotated since, and the host died before it could say so.
        assert_eq!(
            starts(&[(965, 20), (966, 0), (967, 5), (970, 6)]),
            (vec![70, 90, 90, 95], 101)
        );
        assert_eq!(starts(&[(967, 5)]), (vec![90], 95));
        // Put there by hand.
        assert_eq!(starts(&[(900, 5), (966, 0)]), (vec![0, 90], 90));
        // A log from before there was an index.
        let (found, current) = Index::new().starts(&[(stamp(1), 10), (stamp(2), 20)]);
        assert_eq!((found, current), (vec![0, 10], 30));
        let vast = [(stamp(1), u64::MAX), (stamp(2), 20)];
        assert_eq!(Index::new().starts(&vast), (vec![0, u64::MAX], u64::MAX));
    }

    #[test]
    fn it_is_replaced_whatever_a_host_that_died_has_left() {
        let scratch = Scratch::new("index");
        let directory = file::make_directory(&scratch.logs()).unwrap();
        assert_eq!(Index::read_from(&directory).unwrap(), None);
        std::fs::write(scratch.logs().join(NEW_INDEX), "half").unwrap();
        for index in [Index::new(), index()] {
            index.write_to(&directory).unwrap();
            assert_eq!(Index::read_from(&directory).unwrap(), Some(index));
            assert!(!scratch.logs().join(NEW_INDEX).exists());
        }
    }

    #[test]
    fn one_without_end_is_not_read_to_it() {
        let scratch = Scratch::new("index-vast");
        let directory = file::make_directory(&scratch.logs()).unwrap();
        let file = std::fs::File::create(scratch.logs().join(INDEX)).unwrap();
        file.set_len(1 << 42).unwrap();
        let error = Index::read_from(&directory).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}

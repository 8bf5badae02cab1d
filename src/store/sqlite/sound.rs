//! Whether the file of a database is all there. SQLite checks what is in the pages; of pages that are
//! cut off it takes some for empty.

use std::collections::HashSet;
use std::io::{BufReader, ErrorKind, Read, Result};
use std::path::Path;

use super::folder::{Folder, open_file};
use super::schema::APPLICATION;

/// Bytes at the beginning of a database that describe it.
pub(super) const HEADER: usize = 100;
const MAGIC: &[u8] = b"SQLite format 3\0";
/// Of a journal that SQLite would roll back.
const JOURNAL_MAGIC: &[u8] = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7";
const LOG_HEADER: usize = 32;
const LOG_MAGIC: u32 = 0x377f_0682;
const FRAME_HEADER: usize = 24;

/// What is wrong with a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unsound {
    /// Not ours.
    Foreign,
    /// Ours, and not whole, or perhaps not even that.
    Damaged(String),
}

/// Looks at the files of the database as they are, without SQLite. **Nobody else in this process may
/// have the database open**: closing a file drops the locks that SQLite has on it.
///
/// # Errors
/// What the system says.
pub(super) fn check(folder: &Folder) -> Result<Option<Unsound>> {
    let damaged = |problem: String| Ok(Some(Unsound::Damaged(problem)));
    let file = open_file(&folder.database())?;
    let size = file.metadata()?.len();
    if size == 0 {
        return damaged("it is empty".to_owned());
    }
    let mut header = Vec::with_capacity(HEADER);
    file.take(HEADER as u64).read_to_end(&mut header)?;
    if !header.starts_with(&MAGIC[..header.len().min(MAGIC.len())]) {
        return damaged("it is no database".to_owned());
    }
    if header.len() < HEADER {
        return damaged(format!("only {size} bytes of it are there"));
    }
    if number(&header, 68) != APPLICATION {
        return Ok(Some(Unsound::Foreign));
    }
    if begins_with(&folder.journal(), JOURNAL_MAGIC)? {
        return damaged(
            "another program was interrupted while it wrote; open it once with sqlite3".to_owned(),
        );
    }
    let page_size = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65_536,
        size => u64::from(size),
    };
    if page_size == 0 {
        return damaged("its pages have no size".to_owned());
    }
    let log = Log::read(folder)?;
    let pages = log.pages.unwrap_or_else(|| number(&header, 28));
    let whole = u32::try_from(size / page_size).unwrap_or(u32::MAX);
    let lost = (whole..pages).find(|page| !log.logged.contains(&(page + 1)));
    match lost {
        Some(page) => damaged(format!(
            "of its {pages} pages, page {} is cut off",
            u64::from(page) + 1
        )),
        None => Ok(None),
    }
}

/// What has been committed and is not in the database itself yet.
#[derive(Default)]
struct Log {
    /// How many pages the database has after it.
    pages: Option<u32>,
    /// The pages that are in the log.
    logged: HashSet<u32>,
}

impl Log {
    /// Reads the log as far as it is valid, as SQLite does.
    fn read(folder: &Folder) -> Result<Self> {
        let mut log = Self::default();
        let mut file = match open_file(&folder.log()) {
            Ok(file) => BufReader::new(file),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(log),
            Err(error) => return Err(error),
        };
        let mut header = [0; LOG_HEADER];
        if !fill(&mut file, &mut header)? {
            return Ok(log);
        }
        let magic = number(&header, 0);
        let page_size = number(&header, 8) as usize;
        if magic & !1 != LOG_MAGIC || !(512..=65_536).contains(&page_size) {
            return Ok(log);
        }
        let big_endian = magic & 1 == 1;
        let mut sum = checksum([0, 0], &header[..24], big_endian);
        if sum != [number(&header, 24), number(&header, 28)] {
            return Ok(log);
        }
        let mut frame = vec![0; FRAME_HEADER + page_size];
        let mut uncommitted = HashSet::new();
        while fill(&mut file, &mut frame)? {
            sum = checksum(sum, &frame[..8], big_endian);
            sum = checksum(sum, &frame[FRAME_HEADER..], big_endian);
            let valid =
                frame[8..16] == header[16..24] && sum == [number(&frame, 16), number(&frame, 20)];
            if !valid {
                break;
            }
            uncommitted.insert(number(&frame, 0));
            let pages = number(&frame, 4);
            if pages > 0 {
                log.pages = Some(pages);
                log.logged.extend(uncommitted.drain());
            }
        }
        Ok(log)
    }
}

fn begins_with(path: &Path, magic: &[u8]) -> Result<bool> {
    let mut found = Vec::new();
    match open_file(path) {
        Ok(file) => file.take(magic.len() as u64).read_to_end(&mut found)?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    Ok(found == magic)
}

/// Reads exactly so much; false at the end, also where there is a little left.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// The log's checksum (SQLite's file format, section 4.2) over whole pairs of words.
fn checksum([mut first, mut second]: [u32; 2], bytes: &[u8], big_endian: bool) -> [u32; 2] {
    let word = |at: usize| {
        let number = number(bytes, at);
        if big_endian {
            number
        } else {
            number.swap_bytes()
        }
    };
    for at in (0..bytes.len()).step_by(8) {
        first = first.wrapping_add(word(at)).wrapping_add(second);
        second = second.wrapping_add(word(at + 4)).wrapping_add(first);
    }
    [first, second]
}

/// A big-endian number, as all are in these files.
fn number(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4]
        .iter()
        .fold(0, |number, &byte| number << 8 | u32::from(byte))
}

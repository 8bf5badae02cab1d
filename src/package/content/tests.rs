//! Reading content in memory and in a file, which must return the same.

use std::fs;
use std::io::Write as _;

use super::*;
use crate::testing::{TestDir, assert_matches};

/// The same bytes in memory, and in a file whose own position is somewhere.
fn both(dir: &TestDir, bytes: &[u8]) -> [ArchiveContent; 2] {
    let path = dir.path().join("content");
    fs::write(&path, bytes).unwrap();
    let mut file = File::open(&path).unwrap();
    file.seek(SeekFrom::Start(7)).unwrap();
    [bytes.to_vec().into(), file.into()]
}

fn counting(length: usize) -> Vec<u8> {
    (0..length)
        .map(|number| u8::try_from(number % 251).unwrap())
        .collect()
}

#[test]
fn readers_have_their_own_positions() {
    let dir = TestDir::new("package");
    let bytes = counting(3 * BUFFER + 5);
    for content in both(&dir, &bytes) {
        assert_eq!(content.size().unwrap(), bytes.len() as u64);
        let mut one = content.open();
        let mut start = [0; 10];
        one.read_exact(&mut start).unwrap();
        assert_eq!(start, bytes[..10]);
        let mut other = one.clone();
        for reader in [&mut other, &mut one, &mut content.open()] {
            let skipped = usize::try_from(reader.stream_position().unwrap()).unwrap();
            let mut rest = Vec::new();
            reader.read_to_end(&mut rest).unwrap();
            assert!(rest == bytes[skipped..], "{content:?}");
            assert_eq!(reader.read(&mut start).unwrap(), 0);
        }
    }
}

#[test]
fn seeking_and_reading_in_all_sizes_gives_what_stands_there() {
    let dir = TestDir::new("package");
    let bytes = counting(2 * BUFFER + 100);
    let length = bytes.len() as u64;
    for content in both(&dir, &bytes) {
        let mut reader = content.open();
        let mut target = vec![0; BUFFER + 1];
        let mut state = 1_u64;
        for _ in 0..2_000 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let position = (state >> 33) % (length + 10);
            let count = [1, 4, 30, 8_192, BUFFER - 1, BUFFER, BUFFER + 1]
                [usize::try_from(state >> 40).unwrap() % 7];
            let to = match state >> 60 {
                0..8 => SeekFrom::Start(position),
                8..12 => SeekFrom::End(position.cast_signed() - length.cast_signed()),
                _ => {
                    let here = reader.stream_position().unwrap();
                    SeekFrom::Current(position.cast_signed() - here.cast_signed())
                }
            };
            assert_eq!(reader.seek(to).unwrap(), position);
            let start = usize::try_from(position).unwrap().min(bytes.len());
            let count = reader.read(&mut target[..count]).unwrap();
            assert!(count > 0 || start == bytes.len());
            assert!(target[..count] == bytes[start..start + count]);
        }
        let error = reader.seek(SeekFrom::Current(-1 << 40)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn ranges_chunks_and_searches_are_the_same_in_both() {
    let dir = TestDir::new("package");
    let mut bytes = vec![b'.'; FILE_CHUNK + 100];
    for (name, position) in [
        ("start", 0),
        ("seam", FILE_CHUNK - 2),
        ("end", bytes.len() - 3),
    ] {
        bytes[position..position + name.len()].copy_from_slice(name.as_bytes());
    }
    for content in both(&dir, &bytes) {
        let all = Bytes::of(&content).unwrap();
        let size = all.size();
        let range = |start, length| all.range(start, length).unwrap();
        assert_eq!(range(0, 5).unwrap()[..], *b"start");
        assert_eq!(range(size - 3, 3).unwrap()[..], *b"end");
        assert_eq!(range(size, 0).unwrap()[..], *b"");
        for (start, length) in [(size, 1), (size - 3, 4), (size + 1, 0), (u64::MAX, 2)] {
            assert_eq!(range(start, length), None, "{start} {length}");
        }
        for (few, expected) in [
            ("start", true),
            ("seam", true),
            ("end", true),
            ("ends", false),
        ] {
            assert_eq!(all.contain(few.as_bytes()).unwrap(), expected, "{few}");
        }
        let mut again = Vec::new();
        all.chunks(1_000, |chunk| {
            assert!(chunk.len() <= 1_000);
            again.extend_from_slice(chunk);
            Ok(())
        })
        .unwrap();
        assert!(again == bytes);
    }
}

#[test]
fn a_file_that_cannot_be_read_is_said_to_be_so() {
    let dir = TestDir::new("package");
    let mut file = File::create(dir.path().join("content")).unwrap();
    file.write_all(&[b'x'; 100]).unwrap();
    let content = ArchiveContent::from(file);
    let all = Bytes::of(&content).unwrap();
    for error in [
        all.range(0, 1).unwrap_err(),
        all.chunks(1, |_| Ok(())).unwrap_err(),
    ] {
        assert_matches!(error, PackageError::Unreadable { .. });
        assert!(!error.is_permanent());
    }
    assert!(content.open().read(&mut [0]).is_err());
}

#[test]
fn a_file_that_was_changed_just_now_is_not_known() {
    let at = |seconds, nanoseconds| FileIdentity {
        device: 1,
        inode: 2,
        size: 3,
        content_changed: (0, 0),
        inode_changed: (seconds, nanoseconds),
    };
    let now = |milliseconds| SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds);
    assert!(!at(10, 1_000_000).is_settled(now(10_001)));
    assert!(!at(10, 1_000_000).is_settled(now(10_051)));
    assert!(at(10, 1_000_000).is_settled(now(10_052)));
    // Whole seconds: perhaps a file system that knows no others.
    assert!(!at(10, 0).is_settled(now(11_900)));
    assert!(!at(10, 0).is_settled(now(100_000)), "no clock gave it");
    // Clocks that disagree, and nonsense.
    assert!(!at(10, 1).is_settled(now(9_000)));
    assert!(!at(-10, 1).is_settled(now(9_000)));
}

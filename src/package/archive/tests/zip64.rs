//! The end of an archive: records of zip64 in a small one, and what may come after the end. What is
//! accepted is what other readers accept; what is refused is refused for its true reason.

use std::fs;
use std::process::Command;

use super::*;
use crate::package::testing::{Zip64, unpacked};

/// An archive of three entries whose end is given.
fn ended(end: impl FnOnce(&mut Zip64)) -> Vec<u8> {
    let plugin = Builder::plugin([Item::deflated("a", &[1; 300]), Item::stored("b", b"b")]);
    let mut zip64 = Zip64::of(&plugin);
    end(&mut zip64);
    zip64.bytes()
}

fn with_after(after: &[u8]) -> Vec<u8> {
    let plugin = Builder::plugin([Item::deflated("a", &[1; 300]), Item::stored("b", b"b")]);
    [&plugin.bytes()[..], after].concat()
}

/// What other readers take, too.
fn good() -> Vec<(&'static str, Vec<u8>)> {
    let comment = Builder {
        comment: b"zeros come".to_vec(),
        after: vec![0; 1000],
        ..Builder::plugin([Item::deflated("a", &[1; 300]), Item::stored("b", b"b")])
    };
    vec![
        ("plain", with_after(b"")),
        ("zip64, all fields wide", ended(|_| {})),
        ("zip64, none wide", ended(|end| end.narrow = [true; 3])),
        (
            "zip64, count wide",
            ended(|end| end.narrow = [false, true, true]),
        ),
        (
            "zip64, start wide",
            ended(|end| end.narrow = [true, true, false]),
        ),
        (
            "zip64 and a line end",
            ended(|end| end.after = b"\n".to_vec()),
        ),
        ("zip64 and zeros", ended(|end| end.after = vec![0; 512])),
        ("a line end", with_after(b"\n")),
        ("a line end of Windows", with_after(b"\r\n")),
        ("a zero", with_after(b"\0")),
        ("64 KiB of zeros", with_after(&vec![0; 64 * 1024])),
        ("a comment and zeros", comment.bytes()),
    ]
}

#[test]
fn small_archives_with_zip64_records_or_a_padded_end_are_good() {
    for (name, bytes) in good() {
        let archive = open_bytes(bytes, &PackageLimits::default());
        let archive = archive.unwrap_or_else(|error| panic!("{name}: {error}"));
        let entries: Vec<_> = archive.entries().iter().map(Entry::path).collect();
        assert_eq!(entries, ["manifest.json", "a", "b"], "{name}");
        let dir = TestDir::new("package");
        let release = unpacked(dir.path(), &archive);
        let release = release.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(fs::read(release.join("a")).unwrap(), [1; 300], "{name}");
    }
}

#[test]
fn what_is_not_taken_of_an_end_is_refused_for_its_true_reason() {
    let many = PackageLimits::default().entries() as u64 + 1;
    for (name, bytes, reason) in [
        (
            "65,535 without records of zip64",
            ended(|end| end.records = false),
            "refers to zip64 records that are not there",
        ),
        (
            "too many, counted in zip64",
            ended(|end| end.count = many),
            "has 6145 entries, over the limit of 6144",
        ),
        (
            "a vast directory",
            ended(|end| end.length = u64::MAX),
            "not where it should be",
        ),
        (
            "a directory elsewhere",
            ended(|end| end.start = 1 << 40),
            "not where it should be",
        ),
        (
            "two counts",
            ended(|end| (end.count, end.narrow) = (2, [true; 3])),
            "two different ends",
        ),
        (
            "fewer than there are",
            ended(|end| end.count = 2),
            "more records than it counts",
        ),
        ("another disk", ended(|end| end.disks = 2), "several parts"),
        (
            "a record of another length",
            ended(|end| end.record_size = 45),
            "zip64 records are damaged",
        ),
        (
            "zeros of over 64 KiB",
            with_after(&vec![0; 64 * 1024 + 1]),
            "something comes after its end",
        ),
        (
            "two line ends",
            with_after(b"\n\n"),
            "something comes after its end",
        ),
        (
            "a line end after zeros",
            with_after(b"\0\n"),
            "something comes after its end",
        ),
    ] {
        let error = open_bytes(bytes, &PackageLimits::default()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(reason), "{name}: {text}");
    }
}

/// Sizes in fields of 64 bits, as Python's `force_zip64` writes them, into files and into pipes.
const PYTHON: &str = r#"
import io, sys, zipfile
class Pipe(io.RawIOBase):
    def __init__(self, inner): self.inner = inner
    def writable(self): return True
    def seekable(self): return False
    def write(self, data): return self.inner.write(data)
for name, wrap in [("forced", lambda file: file), ("piped", Pipe)]:
    with open(name + ".zip", "wb") as file, zipfile.ZipFile(wrap(file), "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, text in [("manifest.json", "{}"), ("a", "x" * 300)]:
            with archive.open(entry, "w", force_zip64=True) as out:
                out.write(text.encode())
for name in sys.argv[1:]:
    names = zipfile.ZipFile(name).namelist()
    assert names == ["manifest.json", "a", "b"], (name, names)
"#;

#[test]
fn what_python_writes_and_reads_is_good() {
    let dir = TestDir::new("package");
    let files = good().into_iter().enumerate().map(|(number, (_, bytes))| {
        let name = format!("{number}.zip");
        fs::write(dir.path().join(&name), bytes).unwrap();
        name
    });
    let output = Command::new("python3")
        .args(["-c", PYTHON])
        .args(files)
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for name in ["forced.zip", "piped.zip"] {
        let archive =
            Archive::open_unless(&dir.path().join(name), &PackageLimits::default(), NEVER);
        let archive = archive.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(archive.manifest_bytes(), b"{}", "{name}");
        assert_eq!(archive.entries()[1].size(), 300, "{name}");
    }
}

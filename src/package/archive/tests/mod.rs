//! What archives are refused for, and what good ones contain. Here what concerns an archive as a whole,
//! and what the tests share.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;

use super::super::testing::{Builder, Item, REGULAR, cancelled_at_each_moment, make_pipe};
use super::*;
use crate::testing::{TestDir, assert_matches};

thread_local! {
    /// Without a name, and used again and again: some tests open thousands.
    static FILE: Arc<std::fs::File> = {
        let dir = TestDir::new("package");
        let path = dir.path().join("private");
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path);
        Arc::new(options.unwrap())
    };
}

fn open(builder: &Builder) -> Result<Archive, PackageError> {
    open_bytes(builder.bytes(), &PackageLimits::default())
}

/// Opens an archive in memory and in a file, which must come to the same.
fn open_bytes(bytes: Vec<u8>, limits: &PackageLimits) -> Result<Archive, PackageError> {
    let file = FILE.with(Arc::clone);
    file.set_len(0).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    let in_file = Archive::check(ArchiveContent::File(file), limits, NEVER);
    let in_memory = Archive::check(Arc::<[u8]>::from(bytes).into(), limits, NEVER);
    assert_eq!(format!("{in_file:?}"), format!("{in_memory:?}"));
    if let (Ok(one), Ok(other)) = (&in_file, &in_memory) {
        assert_eq!(one.entries(), other.entries());
        assert_eq!(one.manifest_bytes(), other.manifest_bytes());
    }
    in_memory
}

macro_rules! assert_refused {
    ($error:expr, $pattern:pat, $($text:literal),+) => {
        let error = $error;
        assert_matches!(error, $pattern);
        let message = error.to_string();
        $(assert!(message.contains($text), "{message}");)+
    };
}

// After the macro, which they use.
mod sizes;
mod zip64;

#[test]
fn a_good_archive_gives_its_content() {
    let builder = Builder::new([
        Item::stored("manifest.json", b"{\"id\":\"x\"}"),
        Item::dir("bin/"),
        Item::deflated("bin/main", &vec![7; 100_000]).unix(REGULAR | 0o6755),
        Item::stored("./lib/empty", b""),
        Item::stored("windows", b"x").with(|item| (item.system, item.attributes) = (0, 0x20)),
        Item::dir("./"),
    ]);
    let archive = open(&builder).unwrap();
    assert_eq!(archive.manifest_bytes(), b"{\"id\":\"x\"}");
    assert_eq!(archive.manifest_path(), "manifest.json");
    let mut content = Vec::new();
    let mut reader = archive.content().reader();
    reader.read_to_end(&mut content).unwrap();
    assert_eq!(content, builder.bytes());
    assert_eq!(archive.size(), content.len() as u64);
    let entries: Vec<_> = archive
        .entries()
        .iter()
        .map(|entry| (entry.path(), entry.is_dir(), entry.size(), entry.mode()))
        .collect();
    assert_eq!(
        entries,
        [
            ("manifest.json", false, 10, 0o644),
            ("bin", true, 0, 0o755),
            ("bin/main", false, 100_000, 0o755),
            ("lib/empty", false, 0, 0o644),
            ("windows", false, 1, 0o644),
        ]
    );
    assert_eq!(archive.dirs, ["bin", "lib"]);
}

#[test]
fn the_hash_is_that_of_the_file() {
    let builder = Builder {
        comment: b"abc".to_vec(),
        ..Builder::plugin([])
    };
    let dir = TestDir::new("package");
    let path = dir.path().join("x.sdx");
    std::fs::write(&path, builder.bytes()).unwrap();
    let archive = Archive::open_unless(&path, &PackageLimits::default(), NEVER).unwrap();
    assert_eq!(
        archive.sha256(),
        "a2740f8aa8b8f6712b04fc926af1b19d4500ecfe5fab957339051e7da1da8a33"
    );
    assert!(Archive::problems(&path, &PackageLimits::default()).is_empty());
}

#[test]
fn archives_of_the_zip_library_are_good() {
    use std::io::Write as _;
    let mut writer = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    writer.add_directory("bin", options).unwrap();
    for name in ["manifest.json", "bin/main", "ü"] {
        writer
            .start_file(name, options.unix_permissions(0o600))
            .unwrap();
        writer.write_all(name.as_bytes()).unwrap();
    }
    let bytes = writer.finish().unwrap().into_inner();
    let archive = open_bytes(bytes, &PackageLimits::default()).unwrap();
    assert_eq!(archive.manifest_bytes(), b"manifest.json");
    assert_eq!(archive.entries().len(), 4);
}

#[test]
fn an_entry_whose_sizes_come_after_its_content_is_good() {
    // As Go's and streaming writers do: flag 3, and zeros in the local header.
    let mut bytes = Builder::plugin([]).bytes();
    let directory = bytes.len() - 22 - (46 + 13);
    for flags in [6, directory + 8] {
        bytes[flags] |= 1 << 3;
    }
    bytes[14..26].fill(0);
    let archive = open_bytes(bytes, &PackageLimits::default()).unwrap();
    assert_eq!(archive.manifest_bytes(), b"{}");
}

#[test]
fn reading_checking_and_hashing_can_be_cancelled_at_any_moment() {
    let dir = TestDir::new("package");
    let path = dir.path().join("large.zip");
    let builder = Builder::plugin([Item::stored("large", &vec![1; 3 * POLL_BYTES])]);
    std::fs::write(&path, builder.bytes()).unwrap();
    let limits = PackageLimits::default();
    let (moments, archive) =
        cancelled_at_each_moment(|cancel| Archive::open_unless(&path, &limits, cancel));
    assert_eq!(archive.entries().len(), 2);
    // Four chunks and the end, two entries, and the four chunks again.
    assert_eq!(moments, 5 + 2 + 4);

    let (moments, archive) = cancelled_at_each_moment(|cancel| {
        let content = std::fs::File::open(&path).unwrap().into();
        Archive::check(content, &limits, cancel)
    });
    assert_eq!(archive.entries().len(), 2);
    assert!(moments >= 2 + 3, "{moments}");
}

#[test]
fn a_private_file_that_cannot_be_read_is_not_a_bad_archive() {
    let dir = TestDir::new("package");
    let path = dir.path().join("plugin.zip");
    std::fs::write(&path, Builder::plugin([]).bytes()).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let error = Archive::check(file.into(), &PackageLimits::default(), NEVER).unwrap_err();
    assert_refused!(&error, PackageError::Unreadable { .. }, "cannot read");
    assert!(!error.is_permanent());
}

#[test]
fn a_named_pipe_is_refused_without_waiting_for_a_writer() {
    let dir = TestDir::new("package");
    let path = dir.path().join("pipe.zip");
    make_pipe(&path);
    assert_refused!(
        Archive::open_unless(&path, &PackageLimits::default(), NEVER).unwrap_err(),
        PackageError::Io { .. },
        "pipe.zip",
        "not a regular file"
    );
}

// What is not an archive.

#[test]
fn a_second_archive_in_the_comment_is_refused() {
    // Readers that search from the back for any end record find the one in the comment, although
    // its own comment does not reach to the end of the file.
    let first = Builder::plugin([Item::stored("harmless", b"x")]);
    let length = first.bytes().len();
    let hidden = Builder {
        prefix: vec![0; length],
        items: vec![
            Item::stored("manifest.json", b"{\"other\":1}"),
            Item::stored("other", b"y"),
        ],
        ..Builder::default()
    };
    let mut comment = hidden.bytes()[length..].to_vec();
    comment.extend(b"tail");
    let outer = Builder { comment, ..first };
    let library = zip::ZipArchive::new(io::Cursor::new(outer.bytes())).unwrap();
    assert_eq!(library.index_for_name("other"), Some(1));
    assert_refused!(
        open(&outer).unwrap_err(),
        PackageError::Malformed { .. },
        "two central directories"
    );
}

#[test]
fn damage_anywhere_never_panics() {
    let bytes = Builder::plugin([
        Item::deflated("a/b", &[1; 300]),
        Item::dir("c/"),
        Item::stored("d", b"d"),
    ])
    .bytes();
    for position in 0..bytes.len() {
        for value in [0, 1, 0x50, 0x7f, 0xff] {
            let mut damaged = bytes.clone();
            damaged[position] = value;
            let _ = open_bytes(damaged, &PackageLimits::default());
        }
        let cut = bytes[..position].to_vec();
        assert!(open_bytes(cut, &PackageLimits::default()).is_err());
    }
}

// The manifest.

#[test]
fn the_manifest_nearest_the_root_counts_and_then_the_first() {
    let path = |names: &[&str]| {
        let items = names.iter().map(|name| Item::stored(name, name.as_bytes()));
        let archive = open(&Builder::new(items)).unwrap();
        assert_eq!(archive.manifest_bytes(), archive.manifest_path().as_bytes());
        archive.manifest_path().to_owned()
    };
    assert_eq!(
        path(&["a/b/manifest.json", "a/manifest.json"]),
        "a/manifest.json"
    );
    assert_eq!(path(&["a/manifest.json", "manifest.json"]), "manifest.json");
    assert_eq!(
        path(&["z/manifest.json", "a/manifest.json"]),
        "z/manifest.json"
    );
}

// All at once.

#[test]
fn all_problems_are_given_in_order_and_open_gives_the_first() {
    let builder = Builder::new([
        Item::stored("../up", b""),
        Item::stored("link", b"x").unix(0o120_777),
        Item::stored("good", b"x"),
        Item::stored("good", b"x"),
        Item::stored("locked", b"x").with(|item| item.flags = 1),
    ]);
    let dir = TestDir::new("package");
    let path = dir.path().join("bad.zip");
    std::fs::write(&path, builder.bytes()).unwrap();
    let limits = PackageLimits::default();
    let problems = Archive::problems(&path, &limits);
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let words = [
        "parent directory",
        "is a link",
        "is there twice",
        "is encrypted",
        "no manifest.json",
    ];
    assert_eq!(problems.len(), words.len(), "{problems:?}");
    for (problem, words) in problems.iter().zip(words) {
        assert!(problem.contains(words), "{problem}");
    }
    assert_matches!(
        Archive::open_unless(&path, &limits, NEVER),
        Err(PackageError::ParentPath { .. })
    );
}

#[test]
fn errors_of_the_system_name_the_path() {
    let dir = TestDir::new("package");
    let limits = PackageLimits::default();
    let missing = dir.path().join("missing.zip");
    assert_refused!(
        Archive::open_unless(&missing, &limits, NEVER).unwrap_err(),
        PackageError::Io { .. },
        "missing.zip"
    );
    assert_refused!(
        Archive::open_unless(dir.path(), &limits, NEVER).unwrap_err(),
        PackageError::Io { .. },
        "not a regular file"
    );
}

//! Archives and entries over their limits.

use super::*;
use crate::testing::assert_matches;

#[test]
fn declared_sizes_over_the_limits_are_refused() {
    let mut limits = PackageLimits::default();
    let open = |builder: &Builder, limits: &PackageLimits| {
        open_bytes(builder.bytes(), limits).unwrap_err()
    };
    let large = Item::deflated("large", b"x").with(|item| item.size = 52_428_801);
    assert_refused!(
        open(&Builder::plugin([large]), &limits),
        PackageError::FileTooLarge {
            size: 52_428_801,
            limit: 52_428_800,
            ..
        },
        "\"large\""
    );

    let files = (0..5).map(|number| {
        Item::deflated(&format!("file{number}"), b"x").with(|item| item.size = 50_000_000)
    });
    assert_refused!(
        open(&Builder::plugin(files), &limits),
        PackageError::TotalTooLarge {
            size: 250_000_002,
            limit: 209_715_200,
            ..
        },
        "\"file4\""
    );

    let manifest = Item::deflated("manifest.json", b"x").with(|item| item.size = 1_048_577);
    assert_refused!(
        open(&Builder::new([manifest]), &limits),
        PackageError::ManifestTooLarge {
            size: 1_048_577,
            limit: 1_048_576,
            ..
        },
        "\"manifest.json\""
    );

    let plugin = Builder::plugin([]);
    limits.archive_size = plugin.bytes().len() as u64;
    assert!(Archive::from_bytes(plugin.bytes(), &limits).is_ok());
    limits.archive_size -= 1;
    assert_matches!(open(&plugin, &limits), PackageError::ArchiveTooLarge { .. });
}

#[test]
fn a_file_over_the_limit_is_refused_before_it_is_read() {
    let dir = TestDir::new("package");
    let path = dir.path().join("large");
    let file = std::fs::File::create(&path).unwrap();
    // All holes: reading it would take longer than the test may.
    file.set_len(1 << 40).unwrap();
    assert_matches!(
        Archive::open_unless(&path, &PackageLimits::default(), NEVER),
        Err(PackageError::ArchiveTooLarge { limit: 52_428_800 })
    );
}

#[test]
fn too_many_entries_files_or_folders_are_refused() {
    let limits = PackageLimits::default().files(3);
    let open = |builder: &Builder| open_bytes(builder.bytes(), &limits);
    let file = |name: &str| Item::stored(name, b"");
    let directory = |number: usize| Item::dir(&format!("x{number}/"));

    assert!(open(&Builder::plugin([file("a"), file("x/y/b")])).is_ok());
    assert!(open(&Builder::plugin((0..4_096).map(directory))).is_ok());
    assert_matches!(
        open(&Builder::plugin([file("a"), file("b"), file("c")])),
        Err(PackageError::TooManyFiles { found: 4, limit: 3 })
    );
    assert_matches!(
        open(&Builder::plugin((0..=4_096).map(directory))),
        Err(PackageError::TooManyDirectories { limit: 4_096 })
    );
    // Judged by the count alone: there are not even that many records.
    let builder = Builder {
        count: Some(4_100),
        ..Builder::plugin([])
    };
    assert_matches!(
        open(&builder),
        Err(PackageError::TooManyEntries {
            found: 4_100,
            limit: 4_099
        })
    );
}

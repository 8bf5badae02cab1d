//! What single entries may not be: their names, kinds, methods and places.

use super::*;

// Names.

#[test]
fn bad_names_are_refused() {
    for name in ["../x", "/x", "a\\b", "C:/x", "a//b", "a\0b", ".complete"] {
        let message = refusal(Item::stored(name, b"")).to_string();
        assert!(message.contains(&format!("{name:?}")), "{message}");
    }
    let cp437 = Item::stored("x", b"").with(|item| item.name = b"caf\x82".to_vec());
    assert_refused!(refusal(cp437), PackageError::NotUtf8 { .. }, "caf");
}

#[test]
fn duplicates_are_refused() {
    for items in [
        [Item::stored("a", b"1"), Item::stored("a", b"2")],
        [Item::stored("a", b"1"), Item::stored("./a", b"2")],
        [Item::folder("a/"), Item::folder("a/")],
    ] {
        assert_refused!(
            open(&Builder::plugin(items)).unwrap_err(),
            PackageError::Duplicate { .. },
            "\"a",
            "twice"
        );
    }
    // Even if the records are the same in every byte.
    let twice = Builder::new([
        Item::stored("manifest.json", b"{}"),
        Item::stored("manifest.json", b"{}").with(|item| item.header = Some(0)),
    ]);
    assert_refused!(
        open(&twice).unwrap_err(),
        PackageError::Duplicate { .. },
        "\"manifest.json\""
    );
}

#[test]
fn paths_that_collide_are_refused() {
    let items = [Item::stored("Main", b"1"), Item::stored("main", b"2")];
    assert_refused!(
        open(&Builder::plugin(items)).unwrap_err(),
        PackageError::CaseCollision { .. },
        "\"main\"",
        "\"Main\""
    );
    let items = [Item::stored("a", b"1"), Item::stored("a/b", b"2")];
    assert_refused!(
        open(&Builder::plugin(items)).unwrap_err(),
        PackageError::FileIsFolder { .. },
        "\"a\"",
        "\"a/b\""
    );
}

#[test]
fn a_second_name_in_the_local_header_is_refused() {
    let item = Item::stored("good", b"x").with(|item| item.local_name = Some(b"evil".to_vec()));
    assert_refused!(
        refusal(item),
        PackageError::BadEntry { .. },
        "\"good\"",
        "different names"
    );
}

#[test]
fn a_second_name_in_a_unicode_path_field_is_refused() {
    let item = Item::stored("good", b"x").with(|item| {
        item.extra = [0x75, 0x70, 9, 0, 1].to_vec();
        item.extra.extend(checksum(b"good").to_le_bytes());
        item.extra.extend(b"evil");
    });
    assert_refused!(
        refusal(item),
        PackageError::BadEntry { .. },
        "\"good\"",
        "two names"
    );
}

// Kinds.

#[test]
fn links_are_refused_whatever_system_they_claim() {
    for system in [0, 3, 10, 19] {
        let link = Item::stored("link", b"/etc/passwd")
            .unix(0o120_777)
            .with(|item| item.system = system);
        assert_refused!(refusal(link), PackageError::Link { .. }, "\"link\"");
    }
}

#[test]
fn devices_pipes_and_sockets_are_refused() {
    for (kind, name) in [
        (0o060_000, "block device"),
        (0o020_000, "character device"),
        (0o010_000, "named pipe"),
        (0o140_000, "socket"),
        (0o110_000, "unknown type"),
    ] {
        let error = refusal(Item::stored("special", b"").unix(kind | 0o644));
        assert!(
            matches!(error, PackageError::SpecialFile { .. }),
            "{error:?}"
        );
        let message = error.to_string();
        assert!(
            message.contains("\"special\"") && message.contains(name),
            "{message}"
        );
    }
}

#[test]
fn folders_with_content_are_refused() {
    for item in [
        Item::stored("a/", b"x"),
        Item::stored("a", b"x").unix(0o040_755),
        Item::stored("a", b"x").with(|item| (item.system, item.attributes) = (0, 0x10)),
    ] {
        assert_refused!(refusal(item), PackageError::FolderWithContent { .. }, "\"a");
    }
}

#[test]
fn encrypted_entries_are_refused() {
    for bit in [0, 6, 13] {
        let item = Item::stored("secret", b"x").with(|item| item.flags = 1 << bit);
        assert_refused!(refusal(item), PackageError::Encrypted { .. }, "\"secret\"");
    }
}

#[test]
fn unsupported_methods_are_refused() {
    for method in [1, 9, 12, 14, 93, 99] {
        let item = Item::stored("odd", b"x").with(|item| item.method = method);
        assert_refused!(
            refusal(item),
            PackageError::UnsupportedMethod { .. },
            "\"odd\""
        );
    }
    let item = Item::stored("odd", b"x").with(|item| item.local_method = Some(8));
    assert_refused!(refusal(item), PackageError::BadEntry { .. }, "\"odd\"");
}

// Sizes and places.

#[test]
fn content_outside_the_archive_is_refused() {
    for change in [
        (|item| item.header = Some(100_000)) as fn(&mut Item),
        |item| item.header = Some(1),
        |item| item.header = Some(u32::MAX - 1),
        |item| item.packed_size = 1_000_000,
    ] {
        let item = Item::deflated("far", b"x").with(change);
        assert_refused!(
            refusal(item),
            PackageError::BadEntry { .. },
            "\"far\"",
            "not in the archive"
        );
    }
}

#[test]
fn overlapping_entries_are_refused() {
    // One compressed block that many entries use, each in a local header that lies inside the
    // content of the one before: a small archive that unpacks to any size.
    let inner = Builder::new([Item::stored("inner", b"kernel")]).bytes();
    let inner = &inner[..inner.len() - 22 - 46 - 5];
    let outer = Item::stored("outer", inner);
    // Manifest, then the header of the outer entry.
    let header = u32::try_from((30 + 13 + 2) + (30 + 5)).unwrap();
    let items = [
        outer,
        Item::stored("inner", b"kernel").with(|item| item.header = Some(header)),
    ];
    assert_refused!(
        open(&Builder::plugin(items)).unwrap_err(),
        PackageError::Overlap { .. },
        "\"inner\"",
        "\"outer\""
    );
}

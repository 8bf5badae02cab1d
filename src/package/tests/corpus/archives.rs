//! Archives that are hostile as a whole: in their sizes, formats, numbers and manifests.

use super::{BadManifest, Corpus, Refused, Unpacks};
use crate::package::testing::{Builder, Item, Zip64, end};

impl Corpus {
    /// Small ones that become large, and headers that lie about how large.
    pub(super) fn sizes(&mut self) {
        let zeros = vec![0; 2 * 1024 * 1024];
        let declared = |size| Item::deflated("bomb", &zeros).with(|item| item.size = size);
        self.plugin(
            "a bomb that says so",
            [declared(1 << 30)],
            "FileTooLarge",
            "52428800",
        );
        self.plugin(
            "a bomb that says nothing",
            [declared(0)],
            "Content",
            "\"bomb\"",
        );
        self.plugin(
            "a bomb that says little",
            [declared(1_000)],
            "Content",
            "\"bomb\"",
        );
        self.plugin(
            "larger than it is",
            [declared(3 << 20)],
            "SizeMismatch",
            "2097152",
        );
        let many = (0..100).map(|number| {
            Item::deflated(&format!("bomb{number}"), b"").with(|item| item.size = 50 << 20)
        });
        self.plugin("many bombs", many, "TotalTooLarge", "209715200");
        let inner = Builder::plugin([Item::stored("../x", b""), declared(1_000)]).bytes();
        let nested = [
            Item::stored("inner.zip", &inner),
            Item::stored("lib/inner.jar", &inner),
        ];
        self.good(
            "archives inside stay files",
            nested,
            &["inner.zip", "lib/inner.jar"],
        );

        let packed = |change: fn(&mut Item)| Item::deflated("x", &[7; 5_000]).with(change);
        self.plugin(
            "checksum of another",
            [packed(|item| item.checksum ^= 1)],
            "Content",
            "\"x\"",
        );
        let cut = packed(|item| item.packed_size -= 1);
        self.plugin("content cut off", [cut], "Content", "\"x\"");
        let noise = packed(|item| item.packed.fill(0xff));
        self.plugin("content that is noise", [noise], "Content", "\"x\"");
        for change in [
            (|item| item.packed_size = 100_000) as fn(&mut Item),
            |item| item.header = Some(100_000),
            |item| item.header = Some(1),
            |item| item.header = Some(u32::MAX - 1),
        ] {
            let words = "not in the archive";
            self.plugin("content past the end", [packed(change)], "BadEntry", words);
        }
        let stored = Item::stored("x", b"four").with(|item| item.size = 5);
        let words = "\"x\" has 4 bytes, its header says 5";
        self.plugin("stored with two sizes", [stored], "SizeMismatch", words);
        for (field, name) in ["checksum", "packed size", "size"].into_iter().enumerate() {
            let item = Item::deflated("x", b"content").with(|item| {
                let mut content = [item.checksum, item.packed_size, item.size];
                content[field] += 1;
                item.local_content = Some(content);
            });
            let words = "different sizes or checksums";
            self.plugin(
                &format!("two headers, another {name}"),
                [item.clone()],
                "BadEntry",
                words,
            );
            let later = item.with(|item| item.flags = 1 << 3);
            let name = format!("two headers, another {name}, though said to come later");
            self.plugin(&name, [later], "BadEntry", words);
        }
        let wide = |size: u64| {
            Item::stored("x", b"content").with(|item| {
                item.local_content = Some([item.checksum, u32::MAX, u32::MAX]);
                item.local_extra = vec![1, 0, 16, 0];
                item.local_extra.extend(size.to_le_bytes());
                item.local_extra.extend(7_u64.to_le_bytes());
            })
        };
        self.good("sizes in a field of zip64", [wide(7)], &["x"]);
        let words = "different sizes or checksums";
        self.plugin(
            "other sizes in a field of zip64",
            [wide(8)],
            "BadEntry",
            words,
        );
    }

    /// What no reader should have to cope with.
    pub(super) fn formats(&mut self) {
        for (name, bit) in [("traditional", 0), ("strong", 6), ("masked", 13)] {
            let item = Item::stored("x", b"x").with(|item| item.flags = 1 << bit);
            self.plugin(
                &format!("encrypted, {name}"),
                [item],
                "Encrypted",
                "password",
            );
        }
        let aes = Item::stored("x", b"x").with(|item| (item.flags, item.method) = (1, 99));
        self.plugin("encrypted with AES", [aes], "Encrypted", "password");
        for method in [1, 6, 9, 12, 14, 93, 95, 98, 99, u16::MAX] {
            let item = Item::stored("x", b"x").with(|item| item.method = method);
            self.plugin(
                &format!("method {method}"),
                [item],
                "UnsupportedMethod",
                "\"x\"",
            );
        }
        let plugin = Builder::plugin([Item::deflated("x", &[7; 5_000])]);
        let bytes = plugin.bytes();
        let mut add = |name: &str, bytes: &[u8], error, words| {
            self.add(name, bytes.to_vec(), Refused(error, words));
        };
        add("no bytes", b"", "NotAnArchive", "not a zip archive");
        add("two bytes", b"PK", "NotAnArchive", "not a zip archive");
        add(
            "a script",
            b"#!/bin/sh\nexec x\n",
            "NotAnArchive",
            "not a zip archive",
        );
        add(
            "gzip",
            b"\x1f\x8b\x08\0\0\0\0\0\0\x03",
            "NotAnArchive",
            "not a zip archive",
        );
        add("no entries", &Builder::default().bytes(), "Empty", "empty");
        add(
            "cut in half",
            &bytes[..bytes.len() / 2],
            "NotAnArchive",
            "cut off",
        );
        let after = [&bytes[..], b"garbage"].concat();
        add(
            "something after the end",
            &after,
            "NotAnArchive",
            "after its end",
        );
        let twice = [&bytes[..], &bytes[..]].concat();
        add(
            "an archive after the end",
            &twice,
            "Malformed",
            "not where it should be",
        );
        let before = [b"#!/bin/sh\n", &bytes[..]].concat();
        add(
            "something before the start",
            &before,
            "Malformed",
            "not where it should be",
        );
        let comment = Builder {
            comment: bytes.clone(),
            ..Builder::plugin([])
        };
        add(
            "an archive in the comment",
            &comment.bytes(),
            "Malformed",
            "not where it should be",
        );
        let between = Builder {
            between: b"gap".to_vec(),
            ..Builder::plugin([])
        };
        let words = "central directory";
        add("a gap before the end", &between.bytes(), "Malformed", words);
        for (name, count) in [("too few", 1), ("too many", 3), ("none", 0)] {
            let counted = Builder {
                count: Some(count),
                ..plugin.clone()
            };
            add(
                &format!("{name} records counted"),
                &counted.bytes(),
                "Malformed",
                "records than it counts",
            );
        }
        let mut parts = bytes.clone();
        parts[bytes.len() - 18] = 1;
        add(
            "the second of two parts",
            &parts,
            "Malformed",
            "several parts",
        );
        let mut wide = bytes[..bytes.len() - 22].to_vec();
        wide.extend(end(2, u32::MAX as usize, u32::MAX as usize, 0));
        let words = "zip64 records that are not there";
        add("zip64 without its records", &wide, "Malformed", words);
        let wide = Zip64::of(&plugin);
        let lost = Zip64 {
            disks: 0,
            ..Zip64::of(&plugin)
        };
        let words = "several parts";
        add("zip64 of no disk", &lost.bytes(), "Malformed", words);
        let zeros = [&bytes[..], &vec![0; 64 * 1024 + 1]].concat();
        let words = "after its end";
        add("zeros without end", &zeros, "NotAnArchive", words);
        let zeros = [&bytes[..], &vec![0; 64 * 1024]].concat();
        for (name, bytes) in [
            ("zip64 without need", wide.bytes()),
            ("64 KiB of zeros", zeros),
        ] {
            self.add(name, bytes, Unpacks(vec!["x".to_owned()]));
        }
    }

    /// More of everything than anybody needs.
    pub(super) fn crowds(&mut self) {
        let crowd = |count: u32| (0..count).map(|number| Item::stored(&format!("{number}"), b""));
        let files = crowd(3_000);
        self.plugin("3,000 files", files, "TooManyFiles", "3001 files");
        let dirs = (0..5_000).map(|number| Item::dir(&format!("{number}/")));
        self.plugin("5,000 folders", dirs, "TooManyDirectories", "4096");
        let deep = "x/".repeat(505);
        let shared = (0..4_000).map(|number| Item::stored(&format!("{deep}{number}/f"), b""));
        self.plugin(
            "4,000 deep below one folder",
            shared,
            "TooManyDirectories",
            "4096",
        );
        let own = (0..1_000).map(|number| Item::stored(&format!("{number}/{deep}f"), b""));
        self.plugin("1,000 deep folders", own, "TooManyDirectories", "4096");
        let large = (0..110).map(|number| {
            Item::stored(&format!("{number}"), b"").with(|item| item.extra = vec![0; 60_000])
        });
        self.plugin(
            "a large directory",
            large,
            "DirectoryTooLarge",
            "over the limit of 6291456",
        );
        let count = |found: u16| Builder {
            count: Some(found),
            ..Builder::new(crowd(100_000))
        };
        // In 16 bits: all that fits, and what is left over.
        let words = "over the limit of 6144";
        self.add(
            "100,000 entries",
            count(u16::MAX).bytes(),
            Refused("TooManyEntries", words),
        );
        let wrapped = count(u16::try_from(100_000 - 65_536).unwrap());
        self.add(
            "100,000 entries, wrapped",
            wrapped.bytes(),
            Refused("TooManyEntries", words),
        );
        // And in 64: the count that is true.
        let wide = Zip64 {
            count: 100_000,
            ..Zip64::of(&count(10))
        };
        self.add(
            "100,000 entries, counted by zip64",
            wide.bytes(),
            Refused("TooManyEntries", "has 100000 entries"),
        );
        let few = count(10).bytes();
        self.add(
            "100,000 entries, 10 counted",
            few,
            Refused("Malformed", "more records"),
        );
    }

    pub(super) fn manifests(&mut self) {
        let mut add = |name: &str, items: Vec<Item>, expected| {
            self.add(name, Builder::new(items).bytes(), expected);
        };
        let manifest = |content: &[u8]| Item::stored("manifest.json", content);
        for name in [
            "x",
            "MANIFEST.JSON",
            "Manifest.json",
            "manifest.yaml",
            "xmanifest.json",
            "manifest.json/",
            "manifest.json/x",
        ] {
            let items = vec![Item::stored(name, b"")];
            let missing = Refused("NoManifest", "no manifest.json");
            add(&format!("no manifest but {name}"), items, missing);
        }
        // Even if the records are the same in every byte.
        let same = manifest(b"{}").with(|item| item.header = Some(0));
        for second in [manifest(b"{\"id\":1}"), same] {
            let twice = vec![manifest(b"{}"), second];
            let refused = Refused("Duplicate", "\"manifest.json\" is there twice");
            add("two manifests", twice, refused);
        }
        let link = manifest(b"x").unix(0o120_777);
        add(
            "a link as manifest",
            vec![link],
            Refused("Link", "\"manifest.json\""),
        );
        let locked = manifest(b"{}").with(|item| item.flags = 1);
        add(
            "an encrypted manifest",
            vec![locked],
            Refused("Encrypted", "\"manifest.json\""),
        );
        let large = Item::deflated("manifest.json", &vec![b' '; (1 << 20) + 1]);
        add(
            "a large manifest",
            vec![large.clone()],
            Refused("ManifestTooLarge", "1048577"),
        );
        let lying = large.with(|item| item.size = 2);
        let damaged = manifest(b"{}").with(|item| item.checksum ^= 1);
        for (name, item) in [("lies", lying), ("is damaged", damaged)] {
            let refused = Refused("Content", "\"manifest.json\"");
            add(&format!("a manifest that {name}"), vec![item], refused);
        }
        let short = Item::deflated("manifest.json", b"{}").with(|item| item.size = 100);
        let refused = Refused("SizeMismatch", "has 2 bytes, its header says 100");
        add("a manifest that is short", vec![short], refused);
        for (name, content) in [
            ("empty", &b""[..]),
            ("noise", b"\xff\xfe\x00"),
            ("cut off", b"{\"id\":"),
            ("YAML inside", b"id: x\n"),
            ("two values", b"{}{}"),
        ] {
            let name = format!("a manifest that is no JSON: {name}");
            add(
                &name,
                vec![manifest(content)],
                BadManifest("not valid JSON"),
            );
        }
        let list = vec![manifest(b"[]")];
        add(
            "a manifest that is a list",
            list,
            BadManifest("not a JSON object but an array"),
        );
        let depth = [b"[".repeat(500_000), b"]".repeat(500_000)].concat();
        let deep = vec![Item::deflated("manifest.json", &depth)];
        add(
            "a manifest of brackets",
            deep,
            BadManifest("not valid JSON"),
        );
    }
}

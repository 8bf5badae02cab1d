//! Entries that are hostile, or look it: by their names, by what they are, by what they share.

use super::Corpus;
use crate::package::testing::{Builder, Item, REGULAR, checksum};

impl Corpus {
    /// Names that lead out of the directory, or would if they were read differently.
    pub(super) fn names(&mut self) {
        for (error, names) in [
            (
                "ParentPath",
                &[
                    "..",
                    "../x",
                    "../../../../../../../../etc/cron.d/x",
                    "a/../../x",
                    "a/b/../../../x",
                    "./../x",
                    "a/./../../x",
                    "a/..",
                    "../",
                    ".. /x",
                    ".../x",
                    ".. ./x",
                    " ../x",
                    "a/.. /x",
                ][..],
            ),
            (
                "AbsolutePath",
                &["/", "/etc/passwd", "//host/share/x", "///x"],
            ),
            (
                "Backslash",
                &[
                    "..\\x",
                    "a\\..\\..\\x",
                    "\\x",
                    "\\\\host\\share\\x",
                    "\\\\?\\C:\\x",
                    "../a\\b",
                ],
            ),
            ("DriveLetter", &["C:/x", "c:x", "Z:", "a/C:/x"]),
            (
                "InvalidName",
                &[
                    "",
                    ".",
                    "a//b",
                    "a//",
                    "x\0",
                    "x\0.txt",
                    "..\0/x",
                    "x\n",
                    "x\u{1b}[2J",
                    "x\u{7f}",
                ],
            ),
            (
                "Reserved",
                &[
                    ".complete",
                    "./.complete",
                    ".COMPLETE",
                    ".complete/",
                    ".complete/x",
                ],
            ),
        ] {
            for name in names {
                self.plugin(
                    &format!("name {name:?}"),
                    [Item::stored(name, b"")],
                    error,
                    "",
                );
            }
        }
        // The shortest letter has more than one byte in these; none is UTF-8.
        for name in [
            &b"\xc0\xae\xc0\xae/x"[..],
            b"\xe0\x80\xae\xe0\x80\xae/x",
            b"\xc0\xafx",
            b"x\xff",
        ] {
            let item = Item::stored("x", b"").with(|item| item.name = name.to_vec());
            self.plugin(&format!("name {name:x?}"), [item], "NotUtf8", "UTF-8");
        }
        for (what, name) in [("part", "x".repeat(256)), ("path", "x/".repeat(600) + "x")] {
            self.plugin(
                &format!("a long {what}"),
                [Item::stored(&name, b"")],
                "NameTooLong",
                "over",
            );
        }
        for name in [
            "%2e%2e/x",
            "..%2fx",
            "%2e%2e%5cx",
            "%c0%ae%c0%ae/x",
            "&period;&period;/x",
            "\u{ff0e}\u{ff0e}/x",
            "\u{2024}\u{2024}/x",
            "\u{2025}/x",
            "..\u{ff0f}x",
            "..\u{2215}x",
            "..\u{2044}x",
            "..\u{ff3c}x",
            "\u{202e}gnp.exe",
            "~/x",
            "$HOME/x",
            "-rf",
            "..x",
            "x..",
            "x. ",
            "CON",
            "nul.txt",
            "aux/com1",
            ".sdxlock",
            "data/x",
            "logs/output.log",
            "releases/x",
            "staging/x.lock",
            "x/.complete",
        ] {
            self.good(
                &format!("harmless name {name:?}"),
                [Item::stored(name, b"")],
                &[name],
            );
        }
    }

    /// What is not a file or a directory, or has rights that it should not have.
    pub(super) fn kinds(&mut self) {
        for system in [0, 3, 7, 10, 14, 19, 255] {
            let made = |item: Item| item.with(|item| item.system = system);
            for (kind, mode, error) in [
                ("link", 0o120_777, "Link"),
                ("block device", 0o060_644, "SpecialFile"),
                ("character device", 0o020_644, "SpecialFile"),
                ("named pipe", 0o010_644, "SpecialFile"),
                ("socket", 0o140_644, "SpecialFile"),
                ("unknown type", 0o150_644, "SpecialFile"),
                ("unknown type", 0o110_644, "SpecialFile"),
            ] {
                let item = made(Item::stored("x", b"/etc/passwd").unix(mode));
                let name = format!("{kind} {mode:o} of system {system}");
                self.plugin(&name, [item.clone()], error, "\"x\"");
                self.plugin(&name, [item], error, kind);
            }
            let link = made(Item::stored("x/", b"/tmp").unix(0o120_777));
            let below = Item::stored("x/below", b"evil");
            let name = format!("file below a link of system {system}");
            self.plugin(&name, [link, below], "Link", "\"x/\"");
            let modes = [0o4755, 0o2755, 0o1777, 0o7777].map(|mode| {
                made(Item::stored(&format!("mode{mode:o}"), b"#!/bin/sh\n").unix(REGULAR | mode))
            });
            let name = format!("setuid, setgid and sticky of system {system}");
            self.good(
                &name,
                modes,
                &["mode4755", "mode2755", "mode1777", "mode7777"],
            );
        }
        // A name to link to, in the fields that PKWARE and ASi gave for that.
        let mut pkware = vec![0x0d, 0, 12 + 11, 0];
        pkware.extend([0; 12]);
        pkware.extend(b"/etc/passwd");
        let mut asi = vec![0x6e, 0x75, 14 + 11, 0];
        asi.extend([0, 0, 0, 0, 0o377, 0o241, 11, 0, 0, 0, 0, 0, 0, 0]);
        asi.extend(b"/etc/passwd");
        for (name, extra) in [("PKWARE", pkware), ("ASi", asi)] {
            let item = Item::stored("x", b"").with(|item| {
                item.local_extra.clone_from(&extra);
                item.extra = extra;
            });
            self.good(&format!("link in a field of {name}"), [item], &["x"]);
        }
        for (name, item) in [
            ("name", Item::stored("x/", b"x")),
            ("mode", Item::stored("x", b"x").unix(0o040_755)),
            (
                "attribute of DOS",
                Item::stored("x", b"x").with(|item| (item.system, item.attributes) = (0, 0x10)),
            ),
        ] {
            let name = format!("folder by its {name}, with content");
            self.plugin(&name, [item], "DirectoryWithContent", "\"x");
        }
    }

    /// Entries that share bytes, paths or names.
    pub(super) fn collisions(&mut self) {
        let kernel = Item::stored("a", &[7; 1_000]);
        let second = Item::stored("b", &[7; 1_000]).with(|item| item.header = Some(45));
        let words = "different names";
        self.plugin(
            "two records of one header",
            [kernel, second],
            "BadEntry",
            words,
        );
        let inner = Builder::new([Item::stored("inner", b"kernel")]).bytes();
        let inner = &inner[..inner.len() - 22 - 46 - 5];
        let header = u32::try_from((30 + 13 + 2) + (30 + 5)).unwrap();
        let item = Item::stored("inner", b"kernel").with(|item| item.header = Some(header));
        self.plugin(
            "one entry inside another",
            [Item::stored("outer", inner), item],
            "Overlap",
            "\"inner\" and \"outer\"",
        );
        for (name, one, other, error) in [
            ("twice", "a", "a", "Duplicate"),
            ("twice, spelled differently", "a", "./a", "Duplicate"),
            ("twice, in a folder", "b/a", "b/./a", "Duplicate"),
            ("case", "Readme", "README", "CaseCollision"),
            (
                "case, not English",
                "Straße/x",
                "STRASSE/y",
                "CaseCollision",
            ),
            ("case of a folder", "Lib/x", "lib/y", "CaseCollision"),
            ("a file that is a folder", "a", "a/b", "FileIsDirectory"),
            ("a folder that is a file", "a/b", "a", "FileIsDirectory"),
        ] {
            let items = [one, other].map(|name| Item::stored(name, b""));
            self.plugin(name, items, error, "");
        }
        let dirs = [Item::dir("a/"), Item::dir("a/")];
        self.plugin("a folder twice", dirs, "Duplicate", "\"a");
        if cfg!(target_os = "linux") {
            // Elsewhere they may be one file, and are refused while unpacking.
            let names = ["caf\u{e9}", "cafe\u{301}"];
            let items = names.map(|name| Item::stored(name, b""));
            self.good("one character and two", items, &names);
        }
        let local = Item::stored("x", b"").with(|item| item.local_name = Some(b"../x".to_vec()));
        self.plugin(
            "two headers, another name",
            [local],
            "BadEntry",
            "different names",
        );
        let local = Item::stored("x", b"").with(|item| item.local_method = Some(8));
        self.plugin(
            "two headers, another method",
            [local],
            "BadEntry",
            "different methods",
        );
        let unicode = Item::stored("x", b"").with(|item| {
            item.extra = [0x75, 0x70, 9, 0, 1].to_vec();
            item.extra.extend(checksum(b"x").to_le_bytes());
            item.extra.extend(b"../x");
        });
        self.plugin(
            "another name in a field",
            [unicode],
            "BadEntry",
            "two names",
        );
    }
}

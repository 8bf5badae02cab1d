//! For tests: a corpus of hostile archives, and of harmless ones that look hostile, each with what
//! must come of it. What each check does in detail is tested where it lives; here is that none of
//! them can be got round, that each refusal says why, that it is quick, and that nothing stays.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use super::testing::{Builder, Folder, Item, REGULAR, checksum, end};
use super::{Archive, PackageLimits, unpack};
use crate::error::PackageError;
use crate::protocol::Manifest;

/// Far more than any of them takes, also on a busy machine.
const QUICK: Duration = Duration::from_secs(60);

enum Expected {
    /// The error of this name, whose text has these words.
    Refused(&'static str, &'static str),
    /// It unpacks to these files besides the manifest, all of them plain, and nothing else.
    Unpacks(Vec<String>),
    /// It unpacks, and its manifest is refused with these words.
    BadManifest(&'static str),
}
use Expected::{BadManifest, Refused, Unpacks};

struct Row {
    name: String,
    bytes: Vec<u8>,
    expected: Expected,
}

#[derive(Default)]
struct Corpus(Vec<Row>);

impl Corpus {
    fn add(&mut self, name: &str, bytes: Vec<u8>, expected: Expected) {
        self.0.push(Row {
            name: name.to_owned(),
            bytes,
            expected,
        });
    }

    /// Adds a plugin with these entries besides the manifest.
    fn plugin(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = Item>,
        error: &'static str,
        words: &'static str,
    ) {
        let bytes = Builder::plugin(items).bytes();
        self.add(name, bytes, Refused(error, words));
    }

    /// Adds a plugin that is good.
    fn good(&mut self, name: &str, items: impl IntoIterator<Item = Item>, files: &[&str]) {
        let files = files.iter().map(|file| (*file).to_owned()).collect();
        self.add(name, Builder::plugin(items).bytes(), Unpacks(files));
    }

    /// Names that lead out of the folder, or would if somebody read them differently.
    fn names(&mut self) {
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

    /// What is not a file or a folder, or has rights that it should not have.
    fn kinds(&mut self) {
        for system in [0, 3, 7, 10, 14, 19, 255] {
            let made = |item: Item| item.with(|item| item.system = system);
            for (kind, mode, error) in [
                ("link", 0o120_777, "Link"),
                ("block device", 0o060_644, "SpecialFile"),
                ("character device", 0o020_644, "SpecialFile"),
                ("named pipe", 0o010_644, "SpecialFile"),
                ("socket", 0o140_644, "SpecialFile"),
                ("door", 0o150_644, "SpecialFile"),
            ] {
                let item = made(Item::stored("x", b"/etc/passwd").unix(mode));
                self.plugin(
                    &format!("{kind} of system {system}"),
                    [item],
                    error,
                    "\"x\"",
                );
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
        self.plugin(
            "folder with content",
            [Item::stored("x/", b"x")],
            "FolderWithContent",
            "\"x/\"",
        );
    }

    /// Small ones that become large, and headers that lie about how large.
    fn sizes(&mut self) {
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
        let far = packed(|item| item.packed_size = 100_000);
        self.plugin(
            "content past the end",
            [far],
            "BadEntry",
            "not in the archive",
        );
        let stored = Item::stored("x", b"four").with(|item| item.size = 5);
        self.plugin("stored with two sizes", [stored], "SizeMismatch", "\"x\"");
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

    /// Entries that share bytes, paths or names.
    fn collisions(&mut self) {
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
            "inner",
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
            ("a file that is a folder", "a", "a/b", "FileIsFolder"),
            ("a folder that is a file", "a/b", "a", "FileIsFolder"),
        ] {
            let items = [one, other].map(|name| Item::stored(name, b""));
            self.plugin(name, items, error, "");
        }
        let folders = [Item::folder("a/"), Item::folder("a/")];
        self.plugin("a folder twice", folders, "Duplicate", "\"a");
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

    /// What no reader should have to cope with.
    fn formats(&mut self) {
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
            "",
        );
        let between = Builder {
            between: b"gap".to_vec(),
            ..Builder::plugin([])
        };
        add("a gap before the end", &between.bytes(), "Malformed", "");
        for (name, count) in [("too few", 1), ("too many", 3), ("none", 0)] {
            let counted = Builder {
                count: Some(count),
                ..plugin.clone()
            };
            add(
                &format!("{name} records counted"),
                &counted.bytes(),
                "Malformed",
                "records",
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
        add("zip64 without need", &wide, "Malformed", "zip64");
    }

    /// More of everything than anybody needs.
    fn crowds(&mut self) {
        let crowd = |count: u32| (0..count).map(|number| Item::stored(&format!("{number}"), b""));
        let files = crowd(3_000);
        self.plugin("3,000 files", files, "TooManyFiles", "3001 files");
        let folders = (0..5_000).map(|number| Item::folder(&format!("{number}/")));
        self.plugin("5,000 folders", folders, "TooManyFolders", "4096");
        let deep = "x/".repeat(505);
        let shared = (0..4_000).map(|number| Item::stored(&format!("{deep}{number}/f"), b""));
        self.plugin(
            "4,000 deep below one folder",
            shared,
            "TooManyFolders",
            "4096",
        );
        let own = (0..1_000).map(|number| Item::stored(&format!("{number}/{deep}f"), b""));
        self.plugin("1,000 deep folders", own, "TooManyFolders", "4096");
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
        let few = count(10).bytes();
        self.add(
            "100,000 entries, 10 counted",
            few,
            Refused("Malformed", "more records"),
        );
    }

    fn manifests(&mut self) {
        let mut add = |name: &str, items: Vec<Item>, expected| {
            self.add(name, Builder::new(items).bytes(), expected);
        };
        let manifest = |content: &[u8]| Item::stored("manifest.json", content);
        let missing = || Refused("NoManifest", "no manifest.json");
        add("no manifest", vec![Item::stored("x", b"")], missing());
        add(
            "a manifest in capitals",
            vec![Item::stored("MANIFEST.JSON", b"{}")],
            missing(),
        );
        add(
            "a manifest of YAML",
            vec![Item::stored("manifest.yaml", b"id: x")],
            missing(),
        );
        add(
            "a folder as manifest",
            vec![Item::folder("manifest.json/")],
            missing(),
        );
        let twice = vec![manifest(b"{}"), manifest(b"{\"id\":1}")];
        add(
            "two manifests",
            twice,
            Refused("Duplicate", "\"manifest.json\""),
        );
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
        add(
            "a large manifest that lies",
            vec![lying],
            Refused("Content", "\"manifest.json\""),
        );
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

fn corpus() -> Vec<Row> {
    let mut corpus = Corpus::default();
    corpus.names();
    corpus.kinds();
    corpus.sizes();
    corpus.collisions();
    corpus.formats();
    corpus.crowds();
    corpus.manifests();
    corpus.0
}

fn try_it(bytes: Vec<u8>, root: &Path) -> Result<Archive, PackageError> {
    let limits = PackageLimits::default();
    let archive = Archive::from_bytes(bytes, &limits)?;
    unpack(&archive, root, "./x", &limits, &|| false)?;
    Ok(archive)
}

/// The files below a folder, each of which must be a plain one, without rights that an archive
/// must not give.
#[track_caller]
fn plain_files(folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let mode = metadata.permissions().mode();
            assert_eq!(mode & 0o7000, 0, "{} has mode {mode:o}", path.display());
            if metadata.is_dir() {
                waiting.push(path);
            } else {
                assert!(metadata.is_file(), "{} is no file", path.display());
                assert_eq!(metadata.nlink(), 1, "{} is a link", path.display());
                let path = path.strip_prefix(folder).unwrap();
                files.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    files.sort();
    files
}

#[test]
fn every_hostile_archive_is_refused_for_what_it_is_and_leaves_nothing() {
    let rows = corpus();
    assert!(rows.len() > 200, "{} rows", rows.len());
    for Row {
        name,
        bytes,
        expected,
    } in rows
    {
        let folder = Folder::new();
        let root = folder.path().join("one/two");
        let begun = Instant::now();
        let result = try_it(bytes, &root);
        let took = begun.elapsed();
        assert!(took < QUICK, "{name}: took {took:?}");
        println!(
            "{name:50} {took:>10.1?} {}",
            match &result {
                Ok(_) => "good".to_owned(),
                Err(error) => error.to_string().chars().take(100).collect(),
            }
        );
        let mut left = plain_files(folder.path());
        match (expected, result) {
            (Refused(variant, words), Err(error)) => {
                let debug = format!("{error:?}");
                assert!(
                    debug.split([' ', '{']).next() == Some(variant),
                    "{name}: expected {variant}, got {debug}"
                );
                let text = error.to_string();
                assert!(text.contains(words), "{name}: no {words:?} in {text:?}");
                assert!(error.is_permanent(), "{name}");
            }
            (Unpacks(mut files), Ok(archive)) => {
                let release = format!("one/two/releases/{}/", archive.sha256());
                left.retain(|file| *file != format!("{release}.complete"));
                files.push("manifest.json".to_owned());
                for file in &mut files {
                    file.insert_str(0, &release);
                }
                files.sort();
                assert_eq!(left, files, "{name}");
                continue;
            }
            (BadManifest(words), Ok(archive)) => {
                let error = Manifest::parse(archive.manifest_bytes()).unwrap_err();
                let text = error.to_string();
                assert!(text.contains(words), "{name}: no {words:?} in {text:?}");
                continue;
            }
            (_, Ok(_)) => panic!("{name} was taken for good"),
            (_, Err(error)) => panic!("{name}: {error:?}"),
        }
        assert_eq!(left, [""; 0], "{name}");
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            usize::from(root.exists()),
            "{name}"
        );
    }
}

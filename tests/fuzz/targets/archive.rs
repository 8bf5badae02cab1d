//! Archives: what is accepted keeps every rule, and unpacks within its limits and its folder to plain
//! files and folders and nothing else; what is refused leaves nothing.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use plugin_runner::fuzzing::archive_entries;
use plugin_runner::package::{Archive, PackageLimits, unpack};
use plugin_runner::{Error, ErrorKind};

use super::Target;
use crate::random::Random;

pub(crate) const TARGET: Target = Target {
    name: "archive",
    generate,
    words: &[
        b"PK\x01\x02",
        b"PK\x03\x04",
        b"PK\x05\x06",
        b"PK\x06\x06",
        b"PK\x06\x07",
        b"../",
        b"/",
        b"\\",
        b"..",
        b"C:",
        b"manifest.json",
        b".complete",
        b"\x01\0\x10\0",
        b"up\x06\0",
        b"\xed\xa1\0\0",
        b"\xff\xff\xff\xff",
    ],
    longest: 32 * 1024,
    check,
    runs: 2_500,
};

/// One in so many accepted archives is unpacked.
const UNPACKED: u8 = 32;

const MIB: u64 = 1024 * 1024;

fn limits() -> PackageLimits {
    PackageLimits::default()
        .archive_size(24 * 1024)
        .file_size(4 * 1024)
        .total_size(12 * 1024)
        .files(8)
}

/// One entry, with what its two headers say.
struct Item {
    name: Vec<u8>,
    local_name: Vec<u8>,
    made_by: u16,
    flags: u16,
    method: u16,
    attributes: u32,
    packed: Vec<u8>,
    packed_size: u32,
    size: u32,
    checksum: u32,
    extra: Vec<u8>,
    header: Option<u32>,
}

fn generate(random: &mut Random) -> Vec<u8> {
    // How often something is not as it should be.
    let slips = random.pick(&[0, 0, 40, 10]);
    let mut archive = Vec::new();
    let mut directory = Vec::new();
    let mut count: u16 = 0;
    let manifest = random.below(4);
    for index in 0..=random.length(8) {
        let name = if index == manifest || index == 0 && !random.one_in(8) {
            "manifest.json".to_owned()
        } else {
            name(random)
        };
        let item = item(random, &name, slips);
        let start = u32::try_from(archive.len()).unwrap();
        if item.header.is_none() {
            archive.extend(b"PK\x03\x04\x14\0");
            item.common(&mut archive);
            archive.extend(u16::try_from(item.local_name.len()).unwrap().to_le_bytes());
            archive.extend([0, 0]);
            archive.extend(&item.local_name);
            archive.extend(&item.packed);
        }
        directory.extend(b"PK\x01\x02");
        directory.extend(item.made_by.to_le_bytes());
        directory.extend([20, 0]);
        item.common(&mut directory);
        for length in [item.name.len(), item.extra.len(), 0, 0, 0] {
            directory.extend(u16::try_from(length).unwrap().to_le_bytes());
        }
        directory.extend(item.attributes.to_le_bytes());
        directory.extend(item.header.unwrap_or(start).to_le_bytes());
        directory.extend(&item.name);
        directory.extend(&item.extra);
        count += 1;
    }
    let start = u32::try_from(archive.len()).unwrap();
    let length = u32::try_from(directory.len()).unwrap();
    archive.extend(directory);
    let [count, length, start] = ending(random, &mut archive, [count.into(), length, start]);
    archive.extend(b"PK\x05\x06\0\0\0\0");
    let count = u16::try_from(count).unwrap_or(u16::MAX);
    archive.extend(count.to_le_bytes());
    archive.extend(count.to_le_bytes());
    archive.extend(length.to_le_bytes());
    archive.extend(start.to_le_bytes());
    let most = random.pick(&[0, 0, 0, 0, 0, 40]);
    let comment = random.length(most);
    archive.extend(u16::try_from(comment).unwrap().to_le_bytes());
    let comment = random.bytes(comment);
    archive.extend(comment);
    if random.one_in(8) {
        let zeros = random.length(200);
        let padding = random.pick(&[&b"\n"[..], b"\r\n", b"\n\n", b"\0\n", &[0; 200][..zeros]]);
        archive.extend(padding);
    }
    archive
}

/// Adds records of zip64 to some archives, and gives what the end record is to say after them.
fn ending(random: &mut Random, archive: &mut Vec<u8>, narrow: [u32; 3]) -> [u32; 3] {
    if !random.one_in(4) {
        return narrow;
    }
    let slip = |random: &mut Random, field: u64| match random.below(40) {
        0 => field + 1,
        1 => random.pick(&[0, 65_535, 0xffff_ffff, 1 << 40, u64::MAX]),
        _ => field,
    };
    let record = archive.len() as u64;
    let [count, length, start] = narrow.map(u64::from);
    archive.extend(b"PK\x06\x06");
    archive.extend(slip(random, 44).to_le_bytes());
    archive.extend([45, 3, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let count = slip(random, count);
    for field in [count, count, slip(random, length), slip(random, start)] {
        archive.extend(field.to_le_bytes());
    }
    archive.extend(b"PK\x06\x07\0\0\0\0");
    archive.extend(slip(random, record).to_le_bytes());
    archive.extend([1, 0, 0, 0]);
    narrow.map(|field| if random.one_in(2) { field } else { u32::MAX })
}

fn name(random: &mut Random) -> String {
    let parts = 1 + random.length(3);
    let mut name = String::new();
    for part in 0..parts {
        if part > 0 {
            name.push('/');
        }
        let plain = random.text(b"abcABC012._- ", 1 + parts);
        name.push_str(match random.below(24) {
            0 => random.pick(&[
                "..",
                "...",
                ".",
                "",
                "C:",
                ".complete",
                "\\",
                "/",
                ".. ",
                "a\0b",
            ]),
            1 => random.pick(&[
                "ä",
                "Ä",
                "ß",
                "\u{212a}",
                "K",
                "k",
                "\u{130}",
                "manifest.json",
            ]),
            2..12 => random.pick(&["bin", "lib", "a", "b", "c", "d"]),
            _ => &plain,
        });
    }
    if random.one_in(6) {
        name.push('/');
    }
    name
}

fn item(random: &mut Random, name: &str, slips: usize) -> Item {
    let slip = |random: &mut Random| slips > 0 && random.one_in(slips);
    let folder = name.ends_with('/');
    let most = random.pick(&[0, 10, 200, 255, 256, 257, 4_000, 4_096, 4_100]);
    let length = if folder { 0 } else { random.length(most) };
    let content = if name == "manifest.json" {
        b"{}".to_vec()
    } else {
        random.text(b"ab\n", length).into_bytes()
    };
    let (method, packed) = match random.below(2) {
        0 => (0, content.clone()),
        _ => (8, deflate(random, &content)),
    };
    let mode = if folder { 0o040_755 } else { 0o100_644 };
    let mut item = Item {
        name: name.as_bytes().to_vec(),
        local_name: name.as_bytes().to_vec(),
        made_by: random.pick(&[0x031e, 0x031e, 0x0014, 0x0a14, 0x131e]),
        flags: random.pick(&[0, 0, 1 << 11]),
        method,
        attributes: mode << 16,
        packed_size: u32::try_from(packed.len()).unwrap(),
        size: u32::try_from(content.len()).unwrap(),
        packed,
        checksum: checksum(&content),
        extra: Vec::new(),
        header: None,
    };
    if random.one_in(4) {
        let bits = random.pick(&[
            0o100_755, 0o100_777, 0o100_666, 0o100_664, 0o100_002, 0o104_755, 0o106_777, 0o101_666,
            0o107_777, 0o000_600, 0o000_666, 0o100_000, 0o100_444, 0o100_111, 0,
        ]);
        item.attributes = bits << 16;
    }
    if slip(random) {
        let kinds = [
            0o120_777, 0o060_600, 0o020_600, 0o010_600, 0o140_600, 0o040_755, 0o170_000,
        ];
        item.attributes = random.pick(&kinds) << 16 | random.pick(&[0, 0x10]);
    }
    if slip(random) {
        item.flags = random.pick(&[1, 8, 1 << 6, 1 << 13, 0xffff]);
    }
    if slip(random) {
        item.method = random.pick(&[1, 8, 9, 12, 14, 93, 99, 0]);
    }
    if slip(random) {
        item.size = random.pick(&[0, 1, 4_096, 4_097, 0xffff_fffe, u32::MAX]);
    }
    if slip(random) {
        item.packed_size = random.pick(&[0, 1, 4_096, 0xffff_fffe, u32::MAX]);
    }
    if slip(random) {
        item.checksum ^= 1;
    }
    if slip(random) {
        item.local_name = self::name(random).into_bytes();
    }
    if slip(random) {
        // Zip64 sizes, Unicode names, and nonsense.
        let tag = random.pick(&[0x0001_u16, 0x7075, 0x5455, 0x7875, 0xcafe]);
        let length = random.length(32);
        item.extra.extend(tag.to_le_bytes());
        item.extra
            .extend(u16::try_from(length).unwrap().to_le_bytes());
        item.extra.extend(random.bytes(length));
    }
    if slip(random) {
        // The content of another entry, once more.
        item.header = Some(random.pick(&[0, 1, 43, 0xffff_fffe]));
    }
    item
}

impl Item {
    /// What both headers have in common, from the flags to the sizes.
    fn common(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.flags.to_le_bytes());
        bytes.extend(self.method.to_le_bytes());
        bytes.extend([0, 0, 0x21, 0]);
        bytes.extend(self.checksum.to_le_bytes());
        bytes.extend(self.packed_size.to_le_bytes());
        bytes.extend(self.size.to_le_bytes());
    }
}

fn checksum(content: &[u8]) -> u32 {
    !content.iter().fold(!0_u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            sum >> 1 ^ (0xedb8_8320 & (sum & 1).wrapping_neg())
        })
    })
}

/// A deflate stream of this content: blocks that are stored, or coded with the fixed codes, where
/// repeated bytes become copies (RFC 1951).
fn deflate(random: &mut Random, content: &[u8]) -> Vec<u8> {
    let mut bits = Bits::default();
    let mut rest = content;
    loop {
        let length = if random.one_in(2) {
            rest.len()
        } else {
            random.length(rest.len())
        };
        let (block, later) = rest.split_at(length);
        rest = later;
        bits.push(u32::from(rest.is_empty()), 1);
        if random.one_in(3) {
            bits.push(0, 2);
            bits.align();
            let length = u16::try_from(block.len()).unwrap();
            bits.bytes.extend(length.to_le_bytes());
            bits.bytes.extend((!length).to_le_bytes());
            bits.bytes.extend(block);
        } else {
            bits.push(1, 2);
            bits.fixed(block);
        }
        if rest.is_empty() {
            bits.align();
            return bits.bytes;
        }
    }
}

#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: u32,
}

impl Bits {
    /// Least significant bit first.
    fn push(&mut self, value: u32, count: u32) {
        for bit in 0..count {
            if self.used == 0 {
                self.bytes.push(0);
            }
            *self.bytes.last_mut().unwrap() |= u8::from(value >> bit & 1 == 1) << self.used;
            self.used = (self.used + 1) % 8;
        }
    }

    fn align(&mut self) {
        self.used = 0;
    }

    /// A Huffman code, most significant bit first.
    fn code(&mut self, code: u32, count: u32) {
        self.push(code.reverse_bits() >> (32 - count), count);
    }

    /// With the fixed codes: literals, and the shortest copy at distance one for runs.
    fn fixed(&mut self, block: &[u8]) {
        let mut at = 0;
        while at < block.len() {
            let byte = block[at];
            if at > 0 && block.len() - at >= 3 && block[at - 1..at + 3] == [byte; 4] {
                // Length 3 is code 257, distance 1 is code 0.
                self.code(1, 7);
                self.code(0, 5);
                at += 3;
                continue;
            }
            match u32::from(byte) {
                literal @ 0..144 => self.code(0x30 + literal, 8),
                literal => self.code(0x190 + literal - 144, 9),
            }
            at += 1;
        }
        self.code(0, 7);
    }
}

fn check(input: &[u8]) -> bool {
    let limits = limits();
    let archive = match Archive::from_bytes(input, &limits) {
        Ok(archive) => archive,
        Err(error) => {
            let told = error.to_string();
            assert!(told.len() < 2_000 && !told.contains('\n'), "{told:?}");
            assert!(is_refusal(&error), "{error}");
            return false;
        }
    };
    accepted(&archive);
    let sum = input.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    if sum % UNPACKED == 0 {
        unpacked(&archive, &limits);
    }
    true
}

fn accepted(archive: &Archive) {
    assert!(archive.size() <= 50 * MIB);
    assert!(archive.manifest_bytes().len() as u64 <= MIB);
    assert_eq!(archive.sha256().len(), 64);
    let files: Vec<_> = archive.files().collect();
    assert!(files.len() <= 2_048);
    let total: u64 = files.iter().map(|(_, size)| size).sum();
    assert!(total <= 200 * MIB);
    let mut paths = HashSet::new();
    for (path, mode) in archive_entries(archive) {
        // Nobody else may write to it, and nobody becomes another one by executing it.
        assert_eq!(mode & !0o755, 0, "{path}");
        assert_ne!(mode, 0, "{path}");
        assert!(!path.contains(|character: char| character.is_control() || character == '\\'));
        assert!(path.len() <= 1_024 && !path.is_empty());
        for part in path.split('/') {
            assert!(!matches!(part, "" | "." | ".."), "{path}");
        }
        assert!(!path.to_ascii_lowercase().starts_with(".complete/"));
        assert!(paths.insert(path.to_lowercase()), "{path} twice");
    }
    let manifest = files
        .iter()
        .find(|(path, _)| *path == archive.manifest_path());
    let (manifest, size) = manifest.expect("the manifest is one of the files");
    assert_eq!(*size, archive.manifest_bytes().len() as u64);
    let depth = |path: &str| path.matches('/').count();
    let name = |path: &str| path.rsplit('/').next().map(str::to_owned);
    assert_eq!(name(manifest).as_deref(), Some("manifest.json"));
    for (path, size) in &files {
        assert!(*size <= 50 * MIB);
        assert!(name(path).as_deref() != Some("manifest.json") || depth(path) >= depth(manifest));
    }
}

fn unpacked(archive: &Archive, limits: &PackageLimits) {
    let scratch = Scratch::new();
    let root = scratch.0.join("installation");
    fs::create_dir(&root).unwrap();
    let command = format!("./{}", archive.manifest_path());
    let result = unpack(archive, &root, &command, limits, &|| false);
    let release = root.join("releases").join(archive.sha256());
    let found = walk(&root);
    match result {
        Ok(path) => {
            assert_eq!(path, release);
            let mut expected = BTreeMap::new();
            let modes: BTreeMap<_, _> = archive_entries(archive).collect();
            for (path, size) in archive.files() {
                let on_disk = release.join(path);
                let mode = fs::metadata(&on_disk).unwrap().permissions().mode() & 0o7777;
                let mut allowed = modes[path];
                if path == archive.manifest_path() {
                    // The command, for all who may read it.
                    allowed |= (allowed & 0o444) >> 2;
                }
                // The umask may take more.
                assert_eq!(mode & !allowed, 0, "{path}: {mode:o}");
                expected.insert(on_disk, Some(size));
            }
            let marker = release.join(".complete");
            // Three lines come before the files.
            let listing = fs::read_to_string(&marker).unwrap();
            assert_eq!(listing.lines().count(), expected.len() + 3);
            let size = fs::metadata(&marker).unwrap().len();
            expected.insert(marker, Some(size));
            let files: BTreeMap<_, _> = found
                .iter()
                .filter(|(_, size)| size.is_some())
                .map(|(path, size)| (path.clone(), *size))
                .collect();
            assert_eq!(files, expected);
            let folders = found.len() - files.len();
            // The release itself, `releases` and `staging` besides.
            assert!(folders <= 4_096 + 3, "{found:?}");
            let manifest = release.join(archive.manifest_path());
            assert_eq!(fs::read(manifest).unwrap(), archive.manifest_bytes());
        }
        Err(error) => {
            // Names that only this file system takes for one, or has no room for, are the system's refusal.
            assert!(
                is_refusal(&error) || error.kind() == ErrorKind::Io,
                "{error}"
            );
            assert!(
                found.iter().all(|(_, size)| size.is_none()) && found.len() <= 2,
                "left: {found:?}"
            );
        }
    }
    assert_eq!(
        walk(&scratch.0).len(),
        found.len() + 1,
        "outside its folder"
    );
}

/// Whether an archive was refused for what is in it.
fn is_refusal(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::InvalidPackage | ErrorKind::PackageTooLarge
    )
}

/// All below a folder: files with their size, folders without. Nothing else may be there.
fn walk(folder: &Path) -> Vec<(PathBuf, Option<u64>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        let mode = metadata.permissions().mode();
        assert_eq!(mode & 0o7022, 0, "{}: {mode:o}", path.display());
        if metadata.is_dir() {
            found.push((path.clone(), None));
            found.extend(walk(&path));
        } else {
            assert!(metadata.is_file(), "{}", path.display());
            found.push((path, Some(metadata.len())));
        }
    }
    found
}

/// A folder for one archive, in memory where there is such a place.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let shared_memory = PathBuf::from("/dev/shm");
        let above = if shared_memory.is_dir() {
            shared_memory
        } else {
            std::env::temp_dir()
        };
        let name = format!("plugin-runner-fuzz-{}-{number}", std::process::id());
        let path = above.join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Files may have no permissions at all, but folders do.
        let _ = fs::remove_dir_all(&self.0);
    }
}

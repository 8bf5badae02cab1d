//! Archives of one, of many and of very many files, up to the limits on sizes: reading and checking
//! one, and unpacking it until it is on the disk. Beside the one reading and hashing the same bytes;
//! beside the other inflating the same archive to memory, and writing the same files and syncing them,
//! each by itself or the file system once. And the memory that both steps add at their peak, with the
//! archive in memory and in a private file.
//!
//! `cargo bench --bench package` measures; run by `cargo test` it does everything once with fewer and
//! smaller files. Figures are from one run and one disk: quote the ratios.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::fs::{self, File};
use std::io::{Cursor, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use plugin_runner::package::{Archive, PackageLimits, unpack};
use sha2::{Digest as _, Sha256};
use support::plugins::Folder;
use support::{Bench, By, Case, Sample, Target, Unit};
use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

const HASHED: &str = "read + SHA-256";
const INFLATED: &str = "inflate to memory";
const SYNCED_EACH: &str = "write + fsync each";
const SYNCED_ONCE: &str = "write + syncfs";

fn main() {
    let bench = Bench::new("package", "archives are checked and unpacked");
    let archives = [
        (1, 49_000, 5),
        (100, 10, 5),
        (100, 1_900, 3),
        (2_000, 80, 2),
    ];
    for (files, kibibytes, rounds) in archives {
        let size = bench.pick(16, kibibytes * 1024, kibibytes * 1024);
        let files = bench.pick(files.min(100), files, files);
        group(&bench, files, size, rounds);
    }
    if cfg!(target_os = "linux") {
        memory(&bench);
    }
}

/// What a large archive that does not pack adds to the memory of the process at its peak, from opening
/// it until it is unpacked.
fn memory(bench: &Bench) {
    const LIMIT: Target = Target::AtMost(8.0 * 1024.0);
    let dir = Folder::new("package");
    // Packing it makes it a little larger, and it has to stay below the limit on archives.
    let size = bench.pick(16, 44_000, 44_000) * 1024;
    let path = archive(&dir, 1, &noise(size));
    let limits = PackageLimits::default();
    let installed = |name: &str, open: fn(&Path, &PackageLimits) -> Archive| {
        let (path, limits) = (&path, &limits);
        let root = dir.path().join("installation");
        Case::new(name, move || {
            move || {
                let before = reset_peak();
                let archive = open(path, limits);
                unpack(&archive, &root, "./0", limits, &|| false).unwrap();
                let added = peak() - before;
                fs::remove_dir_all(&root).unwrap();
                Sample::single(added)
            }
        })
        .unit(Unit::KibiBytes)
    };
    let cases = vec![
        installed("in memory", |path, limits| {
            Archive::open(path, limits).unwrap()
        }),
        installed("in its file", open_in_file).absolute(LIMIT),
    ];
    bench.group_of("peak memory", bench.pick(1, 2, 3), cases);
}

fn open_in_file(path: &Path, limits: &PackageLimits) -> Archive {
    let content = File::open(path).unwrap().into();
    Archive::from_content(content, limits, &|| false).unwrap()
}

/// Resets the highest resident memory. Returns what is resident now, in KiB.
fn reset_peak() -> f64 {
    fs::write("/proc/self/clear_refs", "5").unwrap();
    peak()
}

/// The highest resident memory, in KiB.
fn peak() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.unwrap().trim().trim_end_matches(" kB");
    number.parse().unwrap()
}

/// All rows of an archive with so many files of so many bytes.
fn group(bench: &Bench, files: usize, size: usize, rounds: usize) {
    let title = format!("{files} × {} KiB", size.div_ceil(1024));
    let dir = Folder::new("package");
    let content = content(size);
    let path = archive(&dir, files, &content);
    let open = || Archive::open(&path, &PackageLimits::default()).unwrap();
    let hashed = Case::new(HASHED, || {
        || {
            timed(|| {
                let bytes = fs::read(&path).unwrap();
                assert_ne!(Sha256::digest(bytes)[..], [0; 32]);
            })
        }
    });
    let checked = Case::new("check", || {
        || {
            timed(|| {
                assert_eq!(open().files().count(), files + 1);
            })
        }
    });
    let checked_in_file = Case::new("check in its file", || {
        || {
            timed(|| {
                let archive = open_in_file(&path, &PackageLimits::default());
                assert_eq!(archive.files().count(), files + 1);
            })
        }
    });
    let inflated = Case::new(INFLATED, || {
        let bytes = fs::read(&path).unwrap();
        move || {
            timed(|| {
                let mut zip = ZipArchive::new(Cursor::new(&bytes)).unwrap();
                let mut memory = Vec::with_capacity(size);
                for index in 1..=files {
                    memory.clear();
                    std::io::copy(&mut zip.by_index(index).unwrap(), &mut memory).unwrap();
                    assert_eq!(memory.len(), size);
                }
            })
        }
    });
    let written = |name: &str, each: bool| {
        let (dir, content) = (dir.path().join("bare"), &content);
        Case::new(name, move || {
            move || {
                fs::create_dir(&dir).unwrap();
                let sample = timed(|| write(&dir, files, content, each));
                fs::remove_dir_all(&dir).unwrap();
                sample
            }
        })
    };
    let root = dir.path().join("installation");
    let unpacked = Case::new("unpack", || {
        let archive = open();
        move || {
            let mut release = PathBuf::new();
            let limits = PackageLimits::default();
            let sample = timed(|| {
                release = unpack(&archive, &root, "./0", &limits, &|| false).unwrap();
            });
            let last = release.join((files - 1).to_string());
            assert_eq!(fs::metadata(last).unwrap().len(), size as u64);
            fs::remove_dir_all(&root).unwrap();
            sample
        }
    });
    let mut cases = vec![
        hashed,
        checked.against(HASHED, By::P50, Target::None),
        checked_in_file.against(HASHED, By::P50, Target::None),
        inflated,
        written(SYNCED_ONCE, false),
    ];
    let mut unpacked = unpacked.against(INFLATED, By::P50, Target::None).against(
        SYNCED_ONCE,
        By::P50,
        Target::None,
    );
    // With more of them it takes half a minute where the disk has to be waited for.
    if files <= 100 {
        cases.push(written(SYNCED_EACH, true));
        unpacked = unpacked.against(SYNCED_EACH, By::P50, Target::None);
    }
    cases.push(unpacked);
    let cases = cases.into_iter().map(|case| case.unit(Unit::Milliseconds));
    bench.group_of(&title, bench.pick(1, 2, rounds), cases.collect());
}

fn timed(run: impl FnOnce()) -> Sample {
    let began = Instant::now();
    run();
    let took: Duration = began.elapsed();
    Sample::single(Unit::Milliseconds.of(took))
}

/// Numbers without a pattern, the same ones each time.
fn numbers() -> impl FnMut() -> u64 {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

/// Something that does not pack.
fn noise(size: usize) -> Vec<u8> {
    let mut next = numbers();
    let mut noise = Vec::with_capacity(size + 8);
    while noise.len() < size {
        noise.extend_from_slice(&next().to_le_bytes());
    }
    noise.truncate(size);
    noise
}

/// Something that packs as well as a text: to about a fifth.
fn content(size: usize) -> Vec<u8> {
    let mut next = numbers();
    let words: Vec<[u8; 16]> = (0..256)
        .map(|_| (u128::from(next()) << 64 | u128::from(next())).to_le_bytes())
        .collect();
    let mut content = Vec::with_capacity(size + 16);
    while content.len() < size {
        let random = next();
        let word = words[usize::try_from(random % 256).unwrap()];
        content.extend_from_slice(&word[..12 + usize::try_from(random >> 32 & 3).unwrap()]);
    }
    content.truncate(size);
    content
}

/// Writes an archive of a manifest and so many files of this content.
fn archive(dir: &Folder, files: usize, content: &[u8]) -> PathBuf {
    let path = dir.path().join("plugin.zip");
    let mut zip = ZipWriter::new(File::create(&path).unwrap());
    // It is not the packing that is measured.
    let options = SimpleFileOptions::default().compression_level(Some(1));
    zip.start_file("manifest.json", options).unwrap();
    zip.write_all(b"{}").unwrap();
    for number in 0..files {
        zip.start_file(number.to_string(), options).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap();
    path
}

/// Writes so many files of this content, and waits until they are on the disk.
fn write(dir: &Path, files: usize, content: &[u8], each: bool) {
    for number in 0..files {
        let mut file = File::create_new(dir.join(number.to_string())).unwrap();
        file.write_all(content).unwrap();
        if each {
            file.sync_all().unwrap();
        }
    }
    let dir = File::open(dir).unwrap();
    if each {
        dir.sync_all().unwrap();
    } else {
        sync_file_system(&dir);
    }
}

#[cfg(target_os = "linux")]
fn sync_file_system(dir: &File) {
    rustix::fs::syncfs(dir).unwrap();
}

#[cfg(not(target_os = "linux"))]
fn sync_file_system(dir: &File) {
    dir.sync_all().unwrap();
}

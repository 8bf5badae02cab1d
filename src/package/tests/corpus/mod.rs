//! For tests: a corpus of hostile archives, and of harmless ones that look hostile, each with what
//! must come of it. What each check does in detail is tested where it lives; here is that none of
//! them can be got round, that each refusal says why, that it is quick, and that nothing stays.

mod archives;
mod entries;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::PackageError;
use crate::package::testing::{Builder, Item, NEVER, walk};
use crate::package::{Archive, ArchiveContent, PackageLimits, unpack_once};
use crate::protocol::Manifest;
use crate::testing::TestDir;

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

fn try_it(content: ArchiveContent, root: &Path) -> Result<Archive, PackageError> {
    let limits = PackageLimits::default();
    let archive = Archive::check(content, &limits, NEVER)?;
    unpack_once(&archive, root, "./x", &limits, NEVER)?;
    Ok(archive)
}

/// The files below a directory, each of which must be a plain one, without rights that an archive
/// must not set.
#[track_caller]
fn plain_files(dir: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for (path, metadata) in walk(dir) {
        let mode = metadata.permissions().mode();
        assert_eq!(mode & 0o7000, 0, "{} has mode {mode:o}", path.display());
        if !metadata.is_dir() {
            assert!(metadata.is_file(), "{} is no file", path.display());
            assert_eq!(metadata.nlink(), 1, "{} is a link", path.display());
            let path = path.strip_prefix(dir).unwrap();
            files.push(path.to_str().unwrap().to_owned());
        }
    }
    files.sort();
    files
}

#[test]
fn every_hostile_archive_is_refused_for_what_it_is_and_leaves_nothing() {
    refuse_all(ArchiveContent::from);
}

#[test]
fn so_it_is_in_a_file() {
    let dir = TestDir::new("package");
    let path = dir.path().join("private");
    refuse_all(|bytes| {
        fs::write(&path, bytes).unwrap();
        fs::File::open(&path).unwrap().into()
    });
}

fn refuse_all(mut content: impl FnMut(Vec<u8>) -> ArchiveContent) {
    let rows = corpus();
    assert!(rows.len() > 200, "{} rows", rows.len());
    for Row {
        name,
        bytes,
        expected,
    } in rows
    {
        let dir = TestDir::new("package");
        let root = dir.path().join("one/two");
        let content = content(bytes);
        let begun = Instant::now();
        let result = try_it(content, &root);
        let took = begun.elapsed();
        assert!(took < QUICK, "{name}: took {took:?}");
        println!(
            "{name:50} {took:>10.1?} {}",
            match &result {
                Ok(_) => "good".to_owned(),
                Err(error) => error.to_string().chars().take(100).collect(),
            }
        );
        let mut left = plain_files(dir.path());
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
            fs::read_dir(dir.path()).unwrap().count(),
            usize::from(root.exists()),
            "{name}"
        );
    }
}

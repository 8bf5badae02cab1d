//! Deploying releases to sprites of the fake service.

mod attempts;
mod names;
mod own_files;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::Setup;
use super::fake::Fake;
use crate::package::{Archive, MigrationLimits, PackageFiles, PackageLimits};
use crate::runtime::sprites::deploy::{DeployError, deploy, is_deployed};
use crate::runtime::sprites::release::{BASE, Release};
use crate::runtime::sprites::{Client, ClientSettings, Within};

const SPRITE: &str = "pr-tests-1";

const LIMITS: MigrationLimits = MigrationLimits {
    bytes: 1024 * 1024,
    files: 100,
};

/// A sprite of its own, and a client.
struct Sprite {
    fake: Fake,
    setup: Setup,
}

fn setup(fake: &Fake, threads: usize) -> Setup {
    let settings = ClientSettings {
        base_url: fake.url(),
        token: fake.token().to_owned(),
        roots: Vec::new(),
    };
    Setup::with(settings, threads)
}

/// What a start does about a release; returns where it is.
fn make_ready(
    client: &Client,
    release: &Arc<Release>,
    kept: &[&str],
    within: Within<'_>,
) -> Result<String, DeployError> {
    release.check()?;
    if !is_deployed(client, SPRITE, release.outline(), within)? {
        deploy(client, SPRITE, release, &LIMITS, kept, within)?;
    }
    Ok(release.outline().dir())
}

impl Sprite {
    fn new() -> Self {
        let fake = Fake::start();
        let setup = setup(&fake, 16);
        setup.client.create_sprite(SPRITE, setup.long()).unwrap();
        fake.forget_calls();
        Self { fake, setup }
    }

    fn deploy(&self, release: &Arc<Release>) -> Result<String, DeployError> {
        self.deploy_keeping(&[], release)
    }

    /// The same for a plugin of which these releases are kept.
    fn deploy_keeping(&self, kept: &[&str], release: &Arc<Release>) -> Result<String, DeployError> {
        make_ready(&self.setup.client, release, kept, self.setup.long())
    }

    /// The same by a host that has so many threads left. With one, no request is under way when another fails.
    fn deploy_with(&self, threads: usize, release: &Arc<Release>) -> Result<String, DeployError> {
        let setup = setup(&self.fake, threads);
        make_ready(&setup.client, release, &[], setup.long())
    }

    /// Where a path below the base directory is on this machine.
    fn path(&self, path: &str) -> PathBuf {
        let path = format!("{BASE}/{path}");
        self.fake.path(SPRITE, &path).unwrap()
    }

    /// Where a file of a release is, once it is deployed.
    fn of(&self, release: &Release, path: &str) -> PathBuf {
        self.path(&format!("releases/{}/{path}", release.sha256()))
    }

    fn current(&self) -> String {
        let current = fs::read_to_string(self.path("current")).unwrap();
        current.trim_end().to_owned()
    }

    /// The names in a directory below the base directory.
    fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        names
    }

    fn uploads(&self) -> usize {
        self.fake.calls().count("PUT */fs/write")
    }

    /// Asserts that no command in the name of a file was run, which would be `touch pwned`.
    #[track_caller]
    fn assert_nothing_ran(&self) {
        let root = tree(&self.fake.path(SPRITE, "/").unwrap());
        let made = root.keys().find(|path| {
            let name = path.rsplit('/').next();
            name == Some("pwned")
        });
        assert_eq!(made, None);
    }

    /// Asserts that a release is in its place, with nothing else beside it, and that nothing is left over.
    #[track_caller]
    fn assert_deployed(&self, release: &Release, files: &[(&str, &str, u32)]) {
        let mut expected = BTreeMap::new();
        for (path, content, mode) in files {
            for (above, _) in path.match_indices('/') {
                expected.insert(path[..above].to_owned(), (0o755, None));
            }
            if path.ends_with('/') {
                continue;
            }
            let content = content.as_bytes().to_vec();
            expected.insert((*path).to_owned(), (*mode, Some(content)));
        }
        let mut found = tree(&self.of(release, ""));
        let complete = found.remove(".complete").map(|(_, content)| content);
        assert_eq!(complete, Some(Some(release.outline().listing.clone())));
        assert_eq!(found, expected);
        assert_eq!(self.current(), release.sha256());
        assert_eq!(self.names(""), ["current", "data", "releases"]);
    }
}

/// Everything below a directory: its permissions and, for a file, what is in it.
fn tree(dir: &Path) -> BTreeMap<String, (u32, Option<Vec<u8>>)> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(here) = waiting.pop() {
        for entry in fs::read_dir(here).unwrap() {
            let path = entry.unwrap().path();
            let data = path.symlink_metadata().unwrap();
            let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
            let mode = data.permissions().mode() & 0o7777;
            let content = data.is_file().then(|| fs::read(&path).unwrap());
            if data.is_dir() {
                waiting.push(path);
            }
            found.insert(name, (mode, content));
        }
    }
    found
}

/// A release of an archive with these files, beside its manifest; directories end with a slash.
fn release(files: &[(&str, &str, u32)]) -> Arc<Release> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let manifest = [("manifest.json", "{}", 0o644)];
    for (name, content, mode) in manifest.iter().chain(files) {
        let options = SimpleFileOptions::default().unix_permissions(*mode);
        if let Some(dir) = name.strip_suffix('/') {
            zip.add_directory(dir, options).unwrap();
        } else {
            zip.start_file(*name, options).unwrap();
            zip.write_all(content.as_bytes()).unwrap();
        }
    }
    let bytes = zip.finish().unwrap().into_inner();
    let archive = Archive::from_bytes(bytes, &PackageLimits::default()).unwrap();
    Arc::new(Release::new(PackageFiles::of_archive(archive, "./run")))
}

/// A release of what is in a directory.
fn of_directory(dir: &Path) -> Arc<Release> {
    let files = PackageFiles::of_directory(dir, &PackageLimits::default(), &|| false);
    Arc::new(Release::new(files.unwrap()))
}

/// A release of some files with different content.
fn of_many(count: usize) -> Arc<Release> {
    let files: Vec<_> = (0..count)
        .map(|number| {
            (
                format!("dir-{}/file-{number}", number % 7),
                number.to_string(),
            )
        })
        .collect();
    let files: Vec<_> = files
        .iter()
        .map(|(name, content)| (&**name, &**content, 0o644))
        .collect();
    release(&files)
}

#[test]
fn a_cold_start_uploads_and_a_warm_one_asks_once() {
    let sprite = Sprite::new();
    let files = [
        ("manifest.json", "{}", 0o644),
        ("run", "#!/bin/sh\n", 0o755),
        ("lib/deep/module.py", "pass\n", 0o640),
        ("empty", "", 0o600),
        ("cache/", "", 0),
        ("a/b/", "", 0),
    ];
    let package = [
        ("run", "#!/bin/sh\n", 0o644),
        ("lib/deep/module.py", "pass\n", 0o640),
        ("empty", "", 0o600),
        ("cache/", "", 0o700),
        ("a/b/", "", 0o755),
    ];
    let release = release(&package);
    let dir = sprite.deploy(&release).unwrap();
    assert_eq!(dir, format!("{BASE}/releases/{}", release.sha256()));
    sprite.assert_deployed(&release, &files);
    assert_eq!(sprite.names("data"), [""; 0]);
    assert_eq!(sprite.uploads(), 4);
    assert_eq!(sprite.fake.calls().count("GET */exec"), 1);

    sprite.fake.forget_calls();
    assert_eq!(sprite.deploy(&release).unwrap(), dir);
    let calls = sprite.fake.calls();
    let requests: Vec<_> = calls.0.iter().map(|call| &*call.request).collect();
    assert_eq!(requests, [format!("GET /v1/sprites/{SPRITE}/fs/read")]);
}

#[test]
fn a_sprite_that_was_made_again_is_deployed_to_again() {
    let sprite = Sprite::new();
    let release = of_many(3);
    sprite.deploy(&release).unwrap();
    let (client, setup) = (&sprite.setup.client, &sprite.setup);
    client.delete_sprite(SPRITE, setup.long()).unwrap();
    let gone = sprite.deploy_with(1, &release).unwrap_err();
    assert!(
        matches!(&gone, DeployError::Service(error) if error.is_not_found()),
        "{gone}"
    );
    client.create_sprite(SPRITE, setup.long()).unwrap();
    sprite.fake.forget_calls();
    sprite.deploy(&release).unwrap();
    assert_eq!(sprite.uploads(), 4);
    assert_eq!(sprite.current(), release.sha256());
}

#[test]
fn two_hundred_files_are_uploaded_with_errors_as_bare_as_they_were_seen() {
    let sprite = Sprite::new();
    sprite.fake.set(|switches| switches.bare_file_errors = true);
    let release = of_many(200);
    sprite.deploy(&release).unwrap();
    assert_eq!(sprite.uploads(), 201);
    let found = tree(&sprite.of(&release, ""));
    assert_eq!(found.len(), 200 + 7 + 2);
    let (_, content) = &found["dir-1/file-127"];
    assert_eq!(content.as_deref(), Some(b"127".as_slice()));
}

#[test]
fn a_plugin_without_a_single_file_is_deployed() {
    let dir = crate::testing::TestDir::new("deploy");
    fs::create_dir(dir.path().join("only")).unwrap();
    let sprite = Sprite::new();
    let release = of_directory(dir.path());
    sprite.deploy(&release).unwrap();
    sprite.assert_deployed(&release, &[("only/", "", 0)]);
}

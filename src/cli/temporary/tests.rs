use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

use rustix::fs::{FileType, mkdirat};

use super::*;

/// A place for temporary directories, and one beside it that has to stay as it is.
struct Place {
    root: PathBuf,
}

impl Place {
    fn new() -> Self {
        let name = format!("plugin-runner-place-{}", Xid::generate());
        let root = std::env::temp_dir().join(name);
        fs::create_dir_all(root.join("tmp")).unwrap();
        fs::create_dir_all(root.join("outside/inner")).unwrap();
        fs::write(root.join("outside/inner/file"), "kept").unwrap();
        Self { root }
    }

    fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// What a killed process leaves.
    fn leftover(&self) -> PathBuf {
        let (path, lock) = create(&self.tmp()).unwrap();
        drop(lock.expect("locks in the temporary directory"));
        fs::create_dir(path.join("plugin")).unwrap();
        fs::write(path.join("plugin/data"), "x").unwrap();
        path
    }

    /// What a killed process leaves, under another name.
    fn named(&self, name: impl AsRef<Path>) -> PathBuf {
        let path = self.tmp().join(name);
        fs::rename(self.leftover(), &path).unwrap();
        path
    }

    fn sweep(&self) {
        remove_leftovers(&self.tmp(), Instant::now() + Duration::from_secs(60));
    }

    fn count(&self) -> usize {
        fs::read_dir(self.tmp()).unwrap().count()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let outside = fs::read(self.root.join("outside/inner/file"));
        remove_tree(CWD, &self.root, Duration::from_secs(60)).unwrap();
        if !std::thread::panicking() {
            assert_eq!(outside.unwrap(), b"kept");
        }
    }
}

fn ours() -> String {
    format!("{PREFIX}{}-{}", u32::MAX, Xid::generate())
}

#[test]
fn a_directory_that_is_being_made_or_used_stays_at_every_step() {
    let place = Place::new();
    let path = place.tmp().join(ours());
    fs::create_dir(&path).unwrap();
    place.sweep();
    let (lock, new) = new_lock(&path).unwrap();
    place.sweep();
    lock.try_lock().unwrap();
    place.sweep();
    fs::rename(&new, path.join(LOCK)).unwrap();
    place.sweep();
    assert!(path.join(LOCK).exists(), "removed while it was used");
    drop(lock);
    place.sweep();
    assert!(!path.exists());
}

#[test]
fn what_a_process_has_left_is_removed_whatever_is_in_it_and_what_links_lead_to_is_not() {
    let place = Place::new();
    let path = place.leftover();
    let outside = place.root.join("outside");
    symlink(&outside, path.join("link")).unwrap();
    symlink(&outside, path.join("plugin/link")).unwrap();
    fs::hard_link(outside.join("inner/file"), path.join("file")).unwrap();
    rustix::fs::mknodat(CWD, path.join("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    // Deeper than a process has descriptors.
    let mut dir = open_dir(CWD, &path).unwrap();
    for _ in 0..5_000 {
        mkdirat(&dir, "deep", Mode::RWXU).unwrap();
        dir = open_dir(&dir, "deep").unwrap();
    }
    drop(dir);
    for dir in [path.join("plugin"), path] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o500)).unwrap();
    }
    place.sweep();
    assert_eq!(place.count(), 0);
}

#[test]
fn other_names_are_none_of_ours() {
    let place = Place::new();
    let id = Xid::generate().to_string();
    let mut names = vec![
        format!("{PREFIX}1"),
        format!("{PREFIX}1-"),
        format!("{PREFIX}-{id}"),
        format!("{PREFIX}01-{id}"),
        format!("{PREFIX}+1-{id}"),
        format!("{PREFIX}-1-{id}"),
        format!("{PREFIX}4294967296-{id}"),
        format!("{PREFIX}1-{}", &id[1..]),
        format!(
            "{PREFIX}1-{}",
            id.to_uppercase().replace(|c: char| c.is_ascii_digit(), "A")
        ),
        format!("{PREFIX}1-{id}~"),
        format!("{PREFIX}1-{id}-1"),
        format!("{PREFIX}1 -{id}"),
        format!(" {PREFIX}1-{id}"),
        format!(".{PREFIX}1-{id}"),
    ];
    names.push(format!("{PREFIX}test-{id}"));
    for name in &names {
        place.named(name);
    }
    place.named(OsStr::from_bytes(
        format!("{PREFIX}1-{id}\u{fffd}").as_bytes(),
    ));
    let good = place.named(format!("{PREFIX}1-{id}"));
    let before = place.count();
    place.sweep();
    assert!(!good.exists());
    assert_eq!(place.count(), before - 1);
}

#[test]
fn what_only_looks_like_a_directory_of_ours_stays() {
    let place = Place::new();
    let tmp = place.tmp();
    // A file, links, and a pipe in the place of the directory.
    fs::write(tmp.join(ours()), "").unwrap();
    let elsewhere = place.root.join(ours());
    fs::rename(place.leftover(), &elsewhere).unwrap();
    symlink(&elsewhere, tmp.join(ours())).unwrap();
    symlink("nowhere", tmp.join(ours())).unwrap();
    rustix::fs::mknodat(CWD, tmp.join(ours()), FileType::Fifo, Mode::RWXU, 0).unwrap();
    // No lock, as of an earlier version.
    fs::remove_file(place.leftover().join(LOCK)).unwrap();
    // Something else in the place of the lock, which is neither followed nor waited for.
    let free = elsewhere.join(LOCK);
    let replacements: [&dyn Fn(&Path); 3] = [
        &|lock| symlink(&free, lock).unwrap(),
        &|lock| rustix::fs::mknodat(CWD, lock, FileType::Fifo, Mode::RWXU, 0).unwrap(),
        &|lock| fs::create_dir(lock).unwrap(),
    ];
    for replace in replacements {
        let lock = place.leftover().join(LOCK);
        fs::remove_file(&lock).unwrap();
        replace(&lock);
    }
    // Named as a directory that is kept, by a run and by a server.
    for name in data_dir::OF_A_SERVER.into_iter().chain([data_dir::LOCK]) {
        fs::write(place.leftover().join(name), "").unwrap();
    }
    let before = place.count();
    place.sweep();
    assert_eq!(place.count(), before);
    assert!(free.exists());
    // The pattern alone is not what kept them.
    place.leftover();
    place.sweep();
    assert_eq!(place.count(), before);
}

#[test]
fn what_belongs_to_others_stays() {
    if !geteuid().is_root() {
        println!("skipped: only root can make files of others");
        return;
    }
    let place = Place::new();
    chown(place.leftover(), Some(65534), None).unwrap();
    chown(place.leftover().join(LOCK), Some(65534), None).unwrap();
    place.sweep();
    assert_eq!(place.count(), 2);
}

#[test]
fn what_is_removed_in_part_is_found_again() {
    let place = Place::new();
    let path = place.leftover();
    let name = path.file_name().unwrap().to_str().unwrap();
    let above = open_dir(CWD, place.tmp()).unwrap();
    let error = remove_leftover(&above, name, Instant::now()).unwrap_err();
    assert!(error.to_string().contains("in time"), "{error}");
    assert!(path.join(LOCK).exists());
    // A time that is over at once.
    remove_leftovers(&place.tmp(), Instant::now());
    assert!(path.exists());
    place.sweep();
    assert_eq!(place.count(), 0);
}

#[test]
fn of_very_many_one_run_removes_a_bounded_number() {
    let place = Place::new();
    for _ in 0..=AT_MOST {
        place.leftover();
    }
    place.sweep();
    assert_eq!(place.count(), 1);
    place.sweep();
    assert_eq!(place.count(), 0);
}

#[test]
fn several_at_once_are_in_no_way_of_each_other() {
    let place = Place::new();
    for _ in 0..50 {
        place.leftover();
    }
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let (path, lock) = create(&place.tmp()).unwrap();
                    place.sweep();
                    assert!(path.join(LOCK).exists(), "removed while it was used");
                    remove(&path).unwrap();
                    drop(lock);
                }
            });
        }
    });
    assert_eq!(place.count(), 0);
}

//! `--watch`: a thread that starts plugins again when their files have changed.
//!
//! What the system reports (inotify) is a hint to look soon; a look at all files decides, and there is one every two
//! seconds anyway. So nothing is missed in directories that are made and filled at once, or where nothing is reported.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use plugin_runner::package;
use serde_json::json;

use super::stage::{Stage, Staged};
use crate::cli::error::CliError;
use crate::cli::run::say;

/// Between two looks without a hint.
const EVERY: Duration = Duration::from_secs(2);
/// How long nothing must have been reported before the look: files are written one after the other.
const QUIET: Duration = Duration::from_millis(200);
/// That many starts within this time look like a plugin that changes its own files.
const STARTS: usize = 4;
const WITHIN: Duration = Duration::from_secs(15);

/// What tells whether a file has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    size: u64,
    modified: (i64, i64),
    inode: u64,
}

type Files = BTreeMap<PathBuf, Stamp>;

/// A plugin that is watched.
struct Watched {
    /// Its place among the plugins of the run.
    place: usize,
    path: PathBuf,
    files: Files,
    /// Why files that are new are not noticed, if they are not.
    problem: Option<String>,
    /// When it was started again.
    starts: Vec<Instant>,
}

/// Starts watching. The thread ends with the process.
///
/// # Errors
/// [`CliError`] when there is nothing to watch, or no thread can be started.
pub(super) fn start(stage: Arc<Stage>) -> Result<(), CliError> {
    let watched: Vec<_> = stage
        .watched()
        .filter_map(|(plugin, path)| {
            let place = stage
                .plugins
                .iter()
                .position(|other| other.id == plugin.id)?;
            let mut watched = Watched {
                place,
                path: path.clone(),
                files: Files::new(),
                problem: None,
                starts: Vec::new(),
            };
            watched.files = watched.look(&plugin.name);
            Some(watched)
        })
        .collect();
    if watched.is_empty() {
        return Err(CliError::usage(
            "--watch needs a plugin's directory or archive",
        ));
    }
    let started = thread::Builder::new()
        .name("watch".to_owned())
        .spawn(move || run(&stage, watched));
    started.map(drop).map_err(CliError::cannot("watch files"))
}

fn run(stage: &Stage, mut watched: Vec<Watched>) {
    let hints = Hints::new();
    loop {
        let directories = watched.iter().flat_map(Watched::directories);
        hints.wait(directories);
        for one in &mut watched {
            let Some(plugin) = stage.plugins.get(one.place) else {
                continue;
            };
            let now = one.look(&plugin.name);
            if now == one.files {
                continue;
            }
            let changed = changed(&one.files, &now);
            one.files = now;
            one.start_again(stage, plugin, &changed);
        }
    }
}

impl Watched {
    fn directories(&self) -> impl Iterator<Item = PathBuf> {
        let parents = self.files.keys().filter_map(|path| path.parent());
        let mut directories: Vec<_> = parents.map(Path::to_owned).collect();
        directories.push(self.path.clone());
        directories.dedup();
        directories.into_iter()
    }

    /// Returns what is there now. What cannot be read is not there: a file may be replaced at this moment, and it is
    /// looked at again. If the directory cannot be listed, the files that are known are looked at.
    fn look(&mut self, name: &str) -> Files {
        if !self.path.is_dir() {
            return stamps([self.path.clone()]);
        }
        let packed = match package::packed_files(&self.path) {
            Ok(packed) => {
                self.problem = None;
                packed
                    .into_iter()
                    .map(|file| self.path.join(file))
                    .collect()
            }
            Err(error) => {
                let problem = error.to_string();
                if self.problem.as_ref() != Some(&problem) {
                    say(&format!("{name}: new files are not noticed: {problem}"));
                    self.problem = Some(problem);
                }
                self.files.keys().cloned().collect::<Vec<_>>()
            }
        };
        let others = ["manifest.json", "manifest.yaml", ".pluginignore"];
        let others = others.map(|name| self.path.join(name));
        stamps(packed.into_iter().chain(others))
    }

    fn start_again(&mut self, stage: &Stage, plugin: &Staged, changed: &str) {
        let now = Instant::now();
        self.starts
            .retain(|start| now.duration_since(*start) < WITHIN);
        self.starts.push(now);
        if self.starts.len() == STARTS {
            say(&format!(
                "{} was started again {STARTS} times within {WITHIN:?}; if it changes {changed} itself, name that in \
                 .pluginignore",
                plugin.name
            ));
        }
        let outcome = stage.restart(plugin);
        let outcome = outcome.map(|_| json!("started again"));
        stage.show(
            Some(plugin.id),
            format!("{changed} has changed"),
            outcome,
            None,
        );
    }
}

/// Returns what tells whether these files change, without those that are not there.
fn stamps(paths: impl IntoIterator<Item = PathBuf>) -> Files {
    let stamped = paths.into_iter().filter_map(|path| {
        let found = fs::metadata(&path).ok()?;
        let stamp = Stamp {
            size: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            inode: found.ino(),
        };
        Some((path, stamp))
    });
    stamped.collect()
}

/// Names one of the files that differ.
fn changed(before: &Files, now: &Files) -> String {
    let differs = |(path, stamp): &(&PathBuf, &Stamp)| before.get(*path) != Some(stamp);
    let new = now.iter().find(differs).map(|(path, _)| path);
    let gone = before.keys().find(|path| !now.contains_key(*path));
    let path = new.or(gone).and_then(|path| path.file_name());
    path.map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

#[cfg(target_os = "linux")]
use linux::Hints;

#[cfg(target_os = "linux")]
mod linux {
    use std::os::fd::OwnedFd;
    use std::path::PathBuf;
    use std::thread;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

    use super::{EVERY, QUIET};

    /// Directories that are watched; those beyond are looked at every two seconds.
    const WATCHES: usize = 1000;

    /// Reports of the system that something has changed somewhere.
    pub(super) struct Hints(Option<OwnedFd>);

    impl Hints {
        pub(super) fn new() -> Self {
            Self(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok())
        }

        /// Waits until something was reported in one of these directories and nothing more is, or for two seconds.
        pub(super) fn wait(&self, directories: impl Iterator<Item = PathBuf>) {
            let Some(queue) = &self.0 else {
                thread::park_timeout(EVERY);
                return;
            };
            let kinds = WatchFlags::CREATE
                | WatchFlags::CLOSE_WRITE
                | WatchFlags::MOVED_TO
                | WatchFlags::MOVED_FROM
                | WatchFlags::DELETE
                | WatchFlags::ATTRIB;
            for directory in directories.take(WATCHES) {
                // Without it the look every two seconds has to do.
                let _ = inotify::add_watch(queue, &directory, kinds);
            }
            let mut wait = EVERY;
            while is_reported(queue, wait) {
                drain(queue);
                wait = QUIET;
            }
        }
    }

    fn is_reported(queue: &OwnedFd, wait: std::time::Duration) -> bool {
        let wait = Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(1),
            tv_nsec: i64::from(wait.subsec_nanos()),
        };
        let mut polled = [PollFd::new(queue, PollFlags::IN)];
        poll(&mut polled, Some(&wait)).is_ok_and(|ready| ready > 0)
    }

    fn drain(queue: &OwnedFd) {
        let mut events = [0_u8; 16 * 1024];
        while rustix::io::read(queue, &mut events).is_ok_and(|size| size > 0) {}
    }
}

#[cfg(not(target_os = "linux"))]
struct Hints;

#[cfg(not(target_os = "linux"))]
impl Hints {
    const fn new() -> Self {
        Self
    }

    fn wait(&self, _: impl Iterator<Item = PathBuf>) {
        thread::park_timeout(EVERY);
    }
}

//! `PluginLog`: what all that write to a plugin's log and read from it share. How files are written is in
//! `rotate`, how they are read in `follow`.

use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::file::CURRENT;
use super::follow::Follower;
use super::line::{LineBatch, LogStream, LogTap};
use super::queue::{LogQueue, marked};
use super::rotate::{Files, RotatingFile};
use super::settings::LogSettings;
use super::tail::Tail;
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::id::{InstallationId, Xid};
use crate::thread::panic_text;

/// Lines kept in memory for error details.
const TAIL_LINES: usize = 20;

/// How often it is looked whether a file has become too old: as often as files are kept, within these.
const SOONEST_LOOK: Duration = Duration::from_secs(1);
const LATEST_LOOK: Duration = Duration::from_secs(60 * 60);

/// The log of one plugin, shared between all that write to it and read from it.
///
/// There must be no second one for the same directory at the same time, in this process or another: they would
/// rotate each other's file away. [`Logs`](super::registry::Logs) sees to that within a host.
///
/// A failing disk never stops a plugin: what cannot be written is dropped and counted (see
/// [`lost_lines`](Self::lost_lines)), and noted in the log itself once it can be written again. The tail and the
/// tap get those lines all the same.
pub(crate) struct PluginLog {
    /// Tells it from other logs, in places.
    name: Xid,
    directory: PathBuf,
    settings: LogSettings,
    /// `None` when files are switched off. Locked before the view, and held during I/O.
    writer: Option<Mutex<RotatingFile>>,
    view: Mutex<View>,
    /// Notified when the view has changed.
    changed: Condvar,
    tap: Option<LogTap>,
    tap_panicked: AtomicBool,
    lost: AtomicU64,
    /// The same for all logs of the host, since it was built.
    lost_in_all: Arc<AtomicU64>,
    /// Where the host's notes go: the queue of the newest run.
    notes: Mutex<Weak<LogQueue>>,
}

/// What can be known of the log without touching the disk.
pub(super) struct View {
    pub(super) files: Files,
    /// One higher after every write.
    pub(super) generation: u64,
    /// The installation has been removed; set once.
    removed: Option<InstallationId>,
    tail: Tail,
}

impl View {
    /// Takes the files over if they have changed. Returns those from before, which may be closed when they are
    /// dropped.
    fn replace_files(&mut self, files: Option<Files>) -> Option<Files> {
        files.map(|files| std::mem::replace(&mut self.files, files))
    }
}

impl PluginLog {
    /// Opens the log in a directory, usually `<data>/<installation id>/logs`, and goes on with what is
    /// there. Creates the directory with mode 0700 and `output.log` with mode 0600 if need be. The tap,
    /// if any, is called with every line.
    ///
    /// The plugin may write to all of that. A link, a named pipe or a socket in the place of the directory is
    /// removed, now and whenever a file is begun. Only regular files count as old logs.
    ///
    /// Waits for the disk only.
    ///
    /// # Errors
    /// - [`Error::Setting`]: a setting is invalid.
    /// - [`Error::Io`]: the directory or the file cannot be created or opened, the parent directory is a link, or
    ///   `output.log` is a link or something else than a file.
    pub(crate) fn open(
        directory: impl Into<PathBuf>,
        settings: LogSettings,
        tap: Option<LogTap>,
    ) -> Result<Self> {
        settings.validate()?;
        let directory = directory.into();
        let mut files = Files::default();
        let mut name = None;
        let writer = if settings.enabled {
            let mut writer = RotatingFile::open(&directory, &settings).map_err(|error| {
                let path = directory.join(CURRENT);
                Error::io(format!("open log {}", path.display()), error)
            })?;
            files = writer.changed_files().unwrap_or_default();
            name = Some(writer.log());
            Some(Mutex::new(writer))
        } else {
            None
        };
        let view = View {
            files,
            generation: 0,
            removed: None,
            tail: Tail::new(TAIL_LINES),
        };
        Ok(Self {
            name: name.unwrap_or_else(Xid::generate),
            directory,
            settings,
            writer,
            view: Mutex::new(view),
            changed: Condvar::new(),
            tap,
            tap_panicked: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            lost_in_all: Arc::default(),
            notes: Mutex::default(),
        })
    }

    /// Counts lost lines here too from now on, beside those of other logs.
    pub(crate) fn counting_into(mut self, lost_in_all: Arc<AtomicU64>) -> Self {
        self.lost_in_all = lost_in_all;
        self
    }

    /// Logs lines, calls the tap with each, and empties the batch. Waits for the disk and for other threads
    /// that are logging, without limit: a stuck disk holds up every thread that logs.
    pub(crate) fn write(&self, batch: &mut LineBatch) {
        if batch.is_empty() {
            return;
        }
        let mut writer = self.writer.as_ref().map(Mutex::lock);
        let mut files = None;
        if let Some(writer) = &mut writer {
            let lost = writer.write(batch.bytes());
            self.count_lost(lost);
            files = writer.changed_files();
        }
        // Within the writer's lock, so that the tail has the order of the file.
        let mut view = self.view.lock();
        view.tail.extend(batch.bytes());
        view.generation += 1;
        let replaced = view.replace_files(files);
        drop(view);
        drop(writer);
        // Outside the locks, because it may close a file.
        drop(replaced);
        self.changed.notify_all();
        self.call_tap(batch);
        batch.clear();
    }

    /// Returns how often [`remove_aged`](Self::remove_aged) is to be called.
    pub(super) fn aging_interval(&self) -> Duration {
        self.settings.max_age.clamp(SOONEST_LOOK, LATEST_LOOK)
    }

    /// Removes old files over their age, if there are any. Waits as [`write`](Self::write) does.
    pub(super) fn remove_aged(&self) {
        let Some(writer) = &self.writer else { return };
        let mut writer = writer.lock();
        writer.remove_aged();
        let files = writer.changed_files();
        let replaced = self.view.lock().replace_files(files);
        drop(writer);
        drop(replaced);
    }

    /// Queues a line of the host's own, marked as such, for the thread that logs the newest run. Never waits.
    /// Returns whether the line will be written: false while no run's output is being logged, or if the queue
    /// is full.
    pub(crate) fn note(&self, note: &str) -> bool {
        let queue = self.notes.lock().upgrade();
        queue.is_some_and(|queue| queue.put_note(note))
    }

    /// Logs a line of the host's own, marked as such, also while no run's output is being logged. Waits as
    /// [`write`](Self::write) does.
    pub(crate) fn write_note(&self, note: &str) {
        let mut batch = LineBatch::default();
        let line = marked(note);
        batch.push_cut(LogStream::Host, line.as_bytes(), self.settings.max_line);
        self.write(&mut batch);
    }

    /// Sends notes to this queue from now on.
    pub(super) fn take_notes_into(&self, queue: &Arc<LogQueue>) {
        *self.notes.lock() = Arc::downgrade(queue);
    }

    /// Returns the last lines that were logged, oldest first, for error details. Each is cut to 1 KiB and
    /// converted to UTF-8. Never waits for the disk.
    pub(crate) fn tail(&self) -> Vec<String> {
        self.view.lock().tail.lines()
    }

    /// Empties the tail, so that it holds the lines of a new process only. The files stay.
    pub(crate) fn clear_tail(&self) {
        self.view.lock().tail.clear();
    }

    /// Returns how many lines are not in the log: they could not be written, or a plugin over stdio printed
    /// them faster than they could be. Counted since the log was opened, or since they were last taken.
    pub(crate) fn lost_lines(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Returns [`lost_lines`](Self::lost_lines) and starts counting again, for the next session.
    pub(crate) fn take_lost_lines(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }

    /// Counts lines that are not in the log, such as those that were dropped before they came here.
    pub(super) fn count_lost(&self, lines: u64) {
        self.lost.fetch_add(lines, Ordering::Relaxed);
        self.lost_in_all.fetch_add(lines, Ordering::Relaxed);
    }

    /// Follows the log from the oldest line there is. With [`enabled`](LogSettings::enabled) off no line ever
    /// comes.
    pub(crate) fn follow(self: &Arc<Self>) -> Follower {
        Follower::new(Arc::clone(self))
    }

    /// Says that the installation has been removed: followers end once they have read what is there.
    pub(super) fn end(&self, id: InstallationId) {
        let mut view = self.view.lock();
        view.removed = Some(id);
        view.generation += 1;
        drop(view);
        self.changed.notify_all();
    }

    /// Calls the closure with the view. The closure must be short and do no I/O.
    pub(super) fn view<T>(&self, look: impl FnOnce(&View) -> T) -> T {
        look(&self.view.lock())
    }

    /// Waits until the generation is another, at most until the deadline. Returns whether it is.
    ///
    /// # Errors
    /// [`Error::NotInstalled`] when it will never be, because the installation has been removed.
    pub(super) fn wait_for_change(&self, generation: u64, deadline: Deadline) -> Result<bool> {
        let mut view = self.view.lock();
        while view.generation == generation {
            if let Some(id) = view.removed {
                return Err(Error::NotInstalled(id));
            }
            let wait = self.changed.wait_until(&mut view, deadline.instant());
            if wait.timed_out() {
                return Ok(view.generation != generation);
            }
        }
        Ok(true)
    }

    /// Returns what tells it from other logs. It is the same when it is opened again, unless it has no files.
    pub(super) fn name(&self) -> Xid {
        self.name
    }

    /// Returns the directory of the log.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the settings it was opened with.
    pub(crate) fn settings(&self) -> &LogSettings {
        &self.settings
    }

    fn call_tap(&self, batch: &LineBatch) {
        let Some(tap) = &self.tap else { return };
        for line in batch.lines() {
            if self.tap_panicked.load(Ordering::Relaxed) {
                return;
            }
            if let Err(panic) = panic::catch_unwind(AssertUnwindSafe(|| tap(&line))) {
                self.tap_panicked.store(true, Ordering::Relaxed);
                log::error!(
                    "the tap on log {} panicked and is not called again: {}",
                    self.directory.display(),
                    panic_text(&*panic)
                );
            }
        }
    }
}

impl fmt::Debug for PluginLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginLog")
            .field("directory", &self.directory)
            .field("settings", &self.settings)
            .field("lost_lines", &self.lost_lines())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::line::LogStream;
    use super::super::scratch::Scratch;
    use super::*;
    use crate::line_splitter::CONTINUES;
    use crate::testing::assert_matches;

    fn open(scratch: &Scratch, settings: LogSettings) -> PluginLog {
        PluginLog::open(scratch.logs(), settings, None).unwrap()
    }

    fn text(log: &PluginLog) -> Vec<u8> {
        fs::read(log.directory().join(CURRENT)).unwrap()
    }

    #[test]
    fn it_can_be_shared() {
        fn check<T: Send + Sync + 'static>() {}
        check::<PluginLog>();
    }

    #[test]
    fn the_file_has_the_bytes_as_they_were_printed() {
        let scratch = Scratch::new("bytes");
        let log = open(&scratch, LogSettings::default());
        log.write_line(LogStream::Stdout, b"out \xff\xfe\x1b[1m\r");
        log.write_line(LogStream::Stderr, b"err\n");
        log.write_line(LogStream::Host, b"");
        log.write_line(LogStream::Host, b"two\nlines");
        assert_eq!(
            text(&log),
            b"out \xff\xfe\x1b[1m\r\nerr\n\ntwo\nlines\n".as_slice()
        );
        assert_eq!(
            log.tail(),
            ["out \u{fffd}\u{fffd}\u{1b}[1m", "err", "", "two", "lines"]
        );
    }

    #[test]
    fn a_long_line_is_cut_with_a_mark() {
        let scratch = Scratch::new("long");
        let log = open(&scratch, LogSettings::default().max_line(100));
        log.write_line(LogStream::Stdout, &[b'x'; 150]);
        let piece = 100 - CONTINUES.len();
        let expected = format!(
            "{}{CONTINUES}\n{}\n",
            "x".repeat(piece),
            "x".repeat(150 - piece)
        );
        assert_eq!(text(&log), expected.as_bytes());
    }

    #[test]
    fn the_tap_gets_every_line_with_its_stream() {
        let scratch = Scratch::new("tap");
        let (sender, receiver) = crossbeam_channel::unbounded();
        let tap: LogTap = Arc::new(move |line| {
            let _ = sender.send((line.stream, line.text.to_string()));
        });
        let log = PluginLog::open(scratch.logs(), LogSettings::default(), Some(tap)).unwrap();
        log.write_line(LogStream::Stdout, b"a\nb");
        log.write_line(LogStream::Stderr, b"\xffc\r\n");
        let lines: Vec<_> = receiver.try_iter().collect();
        assert_eq!(
            lines,
            [
                (LogStream::Stdout, "a".to_owned()),
                (LogStream::Stdout, "b".to_owned()),
                (LogStream::Stderr, "\u{fffd}c".to_owned()),
            ]
        );
    }

    #[test]
    fn a_panicking_tap_is_not_called_again_and_nothing_else_suffers() {
        let scratch = Scratch::new("panics");
        let calls = Arc::new(AtomicU64::new(0));
        let tap: LogTap = Arc::new({
            let calls = Arc::clone(&calls);
            move |_| {
                calls.fetch_add(1, Ordering::Relaxed);
                panic!("on purpose");
            }
        });
        let log = PluginLog::open(scratch.logs(), LogSettings::default(), Some(tap)).unwrap();
        log.write_line(LogStream::Stdout, b"1\n2");
        log.write_line(LogStream::Stdout, b"3");
        assert_eq!(text(&log), b"1\n2\n3\n");
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn lost_lines_are_counted_and_still_in_the_tail() {
        let scratch = Scratch::new("lost");
        let log = open(&scratch, LogSettings::default());
        fs::remove_dir_all(scratch.logs()).unwrap();
        fs::write(scratch.logs(), "in the way").unwrap();
        log.write_line(LogStream::Stdout, b"1\n2");
        log.write_line(LogStream::Stderr, b"3");
        assert_eq!(log.lost_lines(), 3);
        assert_eq!(log.tail(), ["1", "2", "3"]);
        fs::remove_file(scratch.logs()).unwrap();
        log.write_line(LogStream::Stdout, b"4");
        assert_eq!(log.lost_lines(), 3);
        let text = String::from_utf8(text(&log)).unwrap();
        assert!(
            text.starts_with("[plugin-runner] 3 lines are missing here, the log could not be"),
            "{text}"
        );
        assert!(text.ends_with("\n4\n"), "{text}");
    }

    #[test]
    fn without_files_the_tail_still_works() {
        let scratch = Scratch::new("disabled");
        let settings = LogSettings::default().enabled(false);
        let log = open(&scratch, settings);
        log.write_line(LogStream::Stdout, b"1\n2\n3");
        assert_eq!(log.tail(), ["1", "2", "3"]);
        assert_eq!(log.lost_lines(), 0);
        assert!(!scratch.logs().exists());
        log.clear_tail();
        assert!(log.tail().is_empty());
    }

    #[test]
    fn what_cannot_be_opened_is_named() {
        let scratch = Scratch::new("unopened");
        fs::write(scratch.logs(), "in the way").unwrap();
        let error = PluginLog::open(scratch.logs(), LogSettings::default(), None).unwrap_err();
        let expected = format!("cannot open log {}/output.log: ", scratch.logs().display());
        assert!(error.to_string().starts_with(&expected), "{error}");
        let settings = LogSettings::default().max_line(0);
        assert_matches!(
            PluginLog::open(scratch.logs(), settings, None),
            Err(Error::Setting {
                name: "max_line",
                ..
            })
        );
    }
}

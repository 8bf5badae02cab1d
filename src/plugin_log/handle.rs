//! `PluginLog`: the handle that everybody who logs for a plugin shares, and what it shares with
//! followers. How files are written is in `rotate`, how they are read in `follow`.

use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};

use super::file::CURRENT;
use super::follow::Follower;
use super::line::{Batch, LogStream, LogTap};
use super::notes::Notes;
use super::rotate::{Files, RotatingFile};
use super::settings::LogSettings;
use super::tail::Tail;
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::thread::panic_text;

/// The log of one plugin. Shared by reference or in an `Arc` between all who log for it.
///
/// There must be no second one for the same folder at the same time, in this process or another:
/// they would rotate each other's file away. Followers may be as many as there are readers.
///
/// A failing disk never stops a plugin: what cannot be written is dropped and counted (see
/// [`lost_lines`](Self::lost_lines)), and noted in the log itself once it can be written again.
/// The tail and the tap get those lines all the same. A log that is slow, because of its disk or its
/// tap, never delays a plugin's calls either: what a plugin prints over stdio between its messages
/// waits in a queue of 16,384 lines or 1 MiB (or one line, if that is longer). What finds no room there
/// is counted and noted too, and reaches neither tail nor tap.
pub struct PluginLog {
    directory: PathBuf,
    settings: LogSettings,
    /// None when files are switched off. Outside the view's lock in order, and held during I/O.
    writer: Option<Mutex<RotatingFile>>,
    shared: Arc<Shared>,
    tap: Option<LogTap>,
    tap_panicked: AtomicBool,
    lost: AtomicU64,
    /// What the host has to say here.
    pub(super) notes: Notes,
}

/// What followers hold on to.
pub(super) struct Shared {
    view: Mutex<View>,
    changed: Condvar,
}

/// What can be known of the log without touching the disk.
pub(super) struct View {
    pub(super) files: Files,
    /// One higher after every write.
    pub(super) generation: u64,
    /// The `PluginLog` is gone; another may take over the folder.
    pub(super) closed: bool,
    tail: Tail,
}

impl PluginLog {
    /// Opens the log in a folder, usually `<data>/<installation id>/logs`, and goes on with what is
    /// there. Makes the folder with mode 0700 and `output.log` with mode 0600 if need be. The tap,
    /// if any, is called with every line.
    ///
    /// The plugin may write to all of that. A link, a named pipe or a socket in the place of the folder is
    /// removed, now and whenever a file is begun; what is no regular file is not taken for an old log.
    ///
    /// Waits for the disk only.
    ///
    /// # Errors
    /// - [`Error::Setting`]: a setting cannot work.
    /// - [`Error::Io`]: the folder or the file cannot be made or opened, the directory above the folder is
    ///   a link, or `output.log` is a link or something else than a file.
    pub fn open(
        directory: impl Into<PathBuf>,
        settings: LogSettings,
        tap: Option<LogTap>,
    ) -> Result<Self> {
        settings.validate()?;
        let directory = directory.into();
        let mut files = Files::default();
        let writer = if settings.enabled {
            let mut writer = RotatingFile::open(&directory, &settings).map_err(|error| {
                let path = directory.join(CURRENT);
                Error::io(format!("open log {}", path.display()), error)
            })?;
            files = writer.changed_files().unwrap_or_default();
            Some(Mutex::new(writer))
        } else {
            None
        };
        let view = View {
            files,
            generation: 0,
            closed: false,
            tail: Tail::new(settings.tail_lines),
        };
        Ok(Self {
            directory,
            settings,
            writer,
            shared: Arc::new(Shared {
                view: Mutex::new(view),
                changed: Condvar::new(),
            }),
            tap,
            tap_panicked: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            notes: Notes::default(),
        })
    }

    /// Logs a line: the bytes as they are, and `\n`. If there are line ends inside, these are
    /// several lines; one at the very end is the line's own. A line over
    /// [`max_line`](LogSettings::max_line) is cut.
    ///
    /// Waits for the disk and for others who are logging, without limit; a stuck disk holds up
    /// whoever logs. Then calls the tap.
    pub fn write_line(&self, stream: LogStream, line: &[u8]) {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut batch = Batch::default();
        batch.push_cut(stream, line, self.settings.max_line);
        self.write(&batch);
    }

    /// Logs many lines at once. Waits as [`write_line`](Self::write_line) does.
    pub(crate) fn write(&self, batch: &Batch) {
        if batch.is_empty() {
            return;
        }
        let mut writer = self.writer.as_ref().map(Mutex::lock);
        let mut files = None;
        if let Some(writer) = &mut writer {
            let lost = writer.write(batch.bytes());
            self.lost.fetch_add(lost, Ordering::Relaxed);
            files = writer.changed_files();
        }
        // Within the writer's lock, so that the tail has the order of the file.
        let mut view = self.shared.view.lock();
        view.tail.extend(batch.bytes());
        view.generation += 1;
        let replaced = files.map(|files| std::mem::replace(&mut view.files, files));
        drop(view);
        drop(writer);
        // May close a file, hence outside the locks.
        drop(replaced);
        self.shared.changed.notify_all();
        self.call_tap(batch);
    }

    /// The last lines that were logged, oldest first, for error details. Each is cut to 1 KiB and
    /// made UTF-8. Never waits for the disk.
    pub fn tail(&self) -> Vec<String> {
        self.shared.view.lock().tail.lines()
    }

    /// Empties the tail, so that it holds the lines of a new process only. The files stay.
    pub fn clear_tail(&self) {
        self.shared.view.lock().tail.clear();
    }

    /// How many lines are not in the log since this was opened: they could not be written, or a
    /// plugin over stdio printed them faster than they could be.
    pub fn lost_lines(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Lines were dropped before they came here.
    pub(super) fn count_lost(&self, lines: u64) {
        self.lost.fetch_add(lines, Ordering::Relaxed);
    }

    /// Follows the log from the oldest line there is, woken by each write. When this `PluginLog` is
    /// dropped the follower goes on with the folder by itself, as [`Follower::open`] does.
    ///
    /// With [`enabled`](LogSettings::enabled) off no line ever comes.
    pub fn follow(&self) -> Follower {
        Follower::live(Arc::clone(&self.shared), self.directory.clone())
    }

    /// The folder of the log.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The settings it was opened with.
    pub fn settings(&self) -> &LogSettings {
        &self.settings
    }

    fn call_tap(&self, batch: &Batch) {
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

impl Drop for PluginLog {
    fn drop(&mut self) {
        let mut view = self.shared.view.lock();
        view.closed = true;
        view.generation += 1;
        drop(view);
        self.shared.changed.notify_all();
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

impl Shared {
    /// Looks at the view. The closure must be short and do no I/O.
    pub(super) fn view<T>(&self, look: impl FnOnce(&View) -> T) -> T {
        look(&self.view.lock())
    }

    /// Waits until the generation is another, at most until the deadline. Gives whether it is.
    pub(super) fn wait_for_change(&self, generation: u64, deadline: Deadline) -> bool {
        let mut view = self.view.lock();
        while view.generation == generation {
            let wait = self.changed.wait_until(&mut view, deadline.instant());
            if wait.timed_out() {
                return view.generation != generation;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::line::CONTINUES;
    use super::super::scratch::Scratch;
    use super::*;

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
        let log = open(&scratch, LogSettings::default().with_max_line(100));
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
        let settings = LogSettings::default()
            .with_enabled(false)
            .with_tail_lines(2);
        let log = open(&scratch, settings);
        log.write_line(LogStream::Stdout, b"1\n2\n3");
        assert_eq!(log.tail(), ["2", "3"]);
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
        let expected = format!("open log {}/output.log: ", scratch.logs().display());
        assert!(error.to_string().starts_with(&expected), "{error}");
        let settings = LogSettings::default().with_max_line(0);
        assert!(matches!(
            PluginLog::open(scratch.logs(), settings, None),
            Err(Error::Setting {
                name: "max_line",
                ..
            })
        ));
    }
}

//! For tests: a directory that is removed at its end, and writing a line to a log.

use std::path::{Path, PathBuf};

use super::handle::PluginLog;
use super::index::INDEX;
use super::line::{LineBatch, LogStream};
use super::times::TIMES;
use crate::testing::TestDir;

pub(super) struct Scratch(TestDir);

impl Scratch {
    pub(super) fn new(name: &str) -> Self {
        Self(TestDir::new(name))
    }

    /// The log's directory; not made yet.
    pub(super) fn logs(&self) -> PathBuf {
        self.0.path().join("logs")
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl PluginLog {
    /// Logs a line as a plugin prints it: with line ends inside it is several lines, and a long one is cut.
    pub(super) fn write_line(&self, stream: LogStream, line: &[u8]) {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut batch = LineBatch::default();
        batch.push_cut(stream, line, self.settings().max_line);
        self.write(&mut batch);
    }
}

/// The names in a directory, sorted, without those of the log's index and times.
pub(super) fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != INDEX && name != TIMES)
        .collect();
    names.sort();
    names
}

//! What plugins print, as the host's output tap hears it.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use plugin_runner::InstallationId;
use plugin_runner::plugin_log::{LogLine, LogStream};

use super::LONG;

/// One line of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OutputLine {
    pub(crate) plugin: InstallationId,
    pub(crate) name: String,
    pub(crate) stream: LogStream,
    pub(crate) text: String,
}

/// All lines so far. Cloning gives another handle.
#[derive(Clone, Debug, Default)]
pub(crate) struct Output(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    lines: Mutex<Vec<OutputLine>>,
    changed: Condvar,
}

impl Output {
    /// What to give to `HostBuilder::on_output`.
    pub(crate) fn tap(
        &self,
    ) -> impl Fn(InstallationId, &str, &LogLine<'_>) + Send + Sync + 'static {
        let inner = self.0.clone();
        move |plugin, name, line| {
            inner.lines.lock().push(OutputLine {
                plugin,
                name: name.to_owned(),
                stream: line.stream,
                text: line.text.clone().into_owned(),
            });
            inner.changed.notify_all();
        }
    }

    /// The first line that `wanted` gives something for, also one that came before.
    #[track_caller]
    pub(crate) fn wait_for<T>(&self, what: &str, wanted: impl Fn(&OutputLine) -> Option<T>) -> T {
        self.wait_for_nth(what, 0, wanted)
    }

    /// As [`wait_for`](Self::wait_for), passing over the first `skipped` of them.
    #[track_caller]
    pub(crate) fn wait_for_nth<T>(
        &self,
        what: &str,
        skipped: usize,
        wanted: impl Fn(&OutputLine) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + LONG;
        let mut lines = self.0.lines.lock();
        loop {
            if let Some(found) = lines.iter().filter_map(&wanted).nth(skipped) {
                return found;
            }
            let late = self.0.changed.wait_until(&mut lines, deadline).timed_out();
            assert!(!late, "no output {what} in time; there was {lines:#?}");
        }
    }

    /// The text of the plugin's lines so far.
    pub(crate) fn texts(&self, plugin: InstallationId) -> Vec<String> {
        let lines = self.0.lines.lock();
        lines
            .iter()
            .filter(|line| line.plugin == plugin)
            .map(|line| line.text.clone())
            .collect()
    }
}

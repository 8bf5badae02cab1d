//! Lines of plugins' output on their way to the terminal.
//!
//! The threads that drain plugins' output put them in and must never wait, whatever standard output
//! does. So each plugin has a share of its own, beyond which its lines are left out and counted; a
//! plugin that floods takes nothing from the others. The plugins' log files hold every line.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::SystemTime;

use crossbeam_channel::{Receiver, Sender, unbounded};
use plugin_runner::InstallationId;
use plugin_runner::plugin_log::LogStream;

/// Lines of one plugin that may wait.
const LINE_LIMIT: usize = 8 * 1024;
/// Bytes of one plugin that may wait.
const BYTE_LIMIT: usize = 4 * 1024 * 1024;

/// Lines that wait to be printed.
#[derive(Debug)]
pub(crate) struct LineQueue {
    /// Unbounded in itself; what is in it is bounded by the shares.
    sender: Sender<Line>,
    receiver: Receiver<Line>,
    shares: HashMap<InstallationId, Share>,
}

/// One line of output.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) plugin: InstallationId,
    pub(crate) stream: LogStream,
    pub(crate) text: String,
    pub(crate) at: SystemTime,
    /// Lines of this plugin that were left out right before this one.
    pub(crate) lost: u64,
}

#[derive(Debug, Default)]
struct Share {
    lines: AtomicUsize,
    bytes: AtomicUsize,
    lost: AtomicU64,
}

impl LineQueue {
    /// Returns a queue for the output of these plugins.
    pub(crate) fn new(plugins: impl IntoIterator<Item = InstallationId>) -> Self {
        let (sender, receiver) = unbounded();
        let shares = plugins.into_iter().map(|id| (id, Share::default()));
        Self {
            sender,
            receiver,
            shares: shares.collect(),
        }
    }

    /// Puts a line in, or counts it as left out. Never blocks.
    pub(crate) fn push(&self, plugin: InstallationId, stream: LogStream, text: &str) {
        let Some(share) = self.shares.get(&plugin) else {
            return;
        };
        let length = text.len();
        // Two threads of one plugin may pass both checks at once, which does no harm.
        if share.lines.load(Ordering::Relaxed) >= LINE_LIMIT
            || share.bytes.load(Ordering::Relaxed) + length > BYTE_LIMIT
        {
            share.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        share.lines.fetch_add(1, Ordering::Relaxed);
        share.bytes.fetch_add(length, Ordering::Relaxed);
        let line = Line {
            plugin,
            stream,
            text: text.to_owned(),
            at: SystemTime::now(),
            lost: share.lost.swap(0, Ordering::Relaxed),
        };
        // Cannot fail: the receiver is here.
        let _ = self.sender.send(line);
    }

    /// Returns the channel, to wait on; a line received from it goes through [`taken`](Self::taken).
    pub(crate) const fn channel(&self) -> &Receiver<Line> {
        &self.receiver
    }

    /// Takes a line if there is one.
    pub(crate) fn try_take(&self) -> Option<Line> {
        self.receiver.try_recv().ok().map(|line| self.taken(line))
    }

    /// Frees the room of a received line.
    pub(crate) fn taken(&self, line: Line) -> Line {
        if let Some(share) = self.shares.get(&line.plugin) {
            share.lines.fetch_sub(1, Ordering::Relaxed);
            share.bytes.fetch_sub(line.text.len(), Ordering::Relaxed);
        }
        line
    }

    /// Returns the plugins of which lines were left out since the last that was put in, and how many.
    pub(crate) fn lost(&self) -> Vec<(InstallationId, u64)> {
        self.shares
            .iter()
            .map(|(id, share)| (*id, share.lost.swap(0, Ordering::Relaxed)))
            .filter(|(_, lost)| *lost > 0)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted_and_takes_nothing_from_others() {
        let (loud, quiet) = (InstallationId::generate(), InstallationId::generate());
        let queue = LineQueue::new([loud, quiet]);
        for _ in 0..LINE_LIMIT + 5 {
            queue.push(loud, LogStream::Stdout, "x");
        }
        queue.push(quiet, LogStream::Stderr, "still here");
        let taken: Vec<Line> = std::iter::from_fn(|| queue.try_take()).collect();
        assert_eq!(taken.len(), LINE_LIMIT + 1);
        let last = taken.last().unwrap();
        assert_eq!((last.plugin, last.lost), (quiet, 0));

        // There is room again, and the next line has the number.
        queue.push(loud, LogStream::Stdout, "y");
        let next = queue.try_take().unwrap();
        assert_eq!((next.text.as_str(), next.lost), ("y", 5));
        assert!(queue.lost().is_empty());
    }

    #[test]
    fn bytes_are_bounded_too() {
        let plugin = InstallationId::generate();
        let queue = LineQueue::new([plugin]);
        let line = "x".repeat(BYTE_LIMIT / 2);
        for _ in 0..3 {
            queue.push(plugin, LogStream::Stdout, &line);
        }
        assert_eq!(std::iter::from_fn(|| queue.try_take()).count(), 2);
        assert_eq!(queue.lost(), [(plugin, 1)]);
    }
}

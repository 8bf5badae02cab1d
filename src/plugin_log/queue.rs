//! `LogQueue`: a way into the log for threads that must not wait for the disk. The thread that reads a plugin's
//! messages puts in the other lines that the plugin prints on the same pipe ([`LineFeed`]), and anything in the
//! host puts in notes about the plugin ([`PluginLog::note`]). The log's own thread (`pump`) takes them out.
//! What finds no room is refused: a line is counted as lost, and a note is said elsewhere.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use parking_lot::Mutex;

use super::handle::PluginLog;
use super::line::{LineBatch, LogStream};

/// Lines that may wait for the log's thread.
pub(crate) const MAX_LINES: usize = 16 * 1024;

/// Bytes of lines that may wait for the log's thread. A single line may be longer, if nothing else
/// waits. The thread itself holds as much again while it writes.
pub(crate) const MAX_BYTES: usize = 1024 * 1024;

/// What waits for the log's thread during one run.
pub(crate) struct LogQueue {
    waiting: Mutex<QueuedLines>,
    /// Wakes the log's thread.
    wake: PipeWriter,
    /// Here and not with the thread: a pipe that nothing can read any more would send a signal to the writer.
    wakened: PipeReader,
}

#[derive(Default)]
struct QueuedLines {
    /// Each without its end.
    lines: Vec<(LogStream, Vec<u8>)>,
    bytes: usize,
    /// Lines of the plugin's refused since the last that was accepted.
    missing: u64,
    /// The log's thread has been woken and has not taken the lines yet, so at most two bytes are in the pipe
    /// and writing one never blocks.
    woken: bool,
    /// There is a [`LineFeed`].
    fed: bool,
    /// The log's thread takes nothing more.
    closed: bool,
}

impl LogQueue {
    pub(crate) fn new() -> io::Result<Arc<Self>> {
        let (wakened, wake) = io::pipe()?;
        Ok(Arc::new(Self {
            waiting: Mutex::default(),
            wake,
            wakened,
        }))
    }

    /// Puts a line in, without waiting. Returns false if there is no room, or nothing takes it any more.
    fn put(&self, stream: LogStream, line: &[u8]) -> bool {
        let mut waiting = self.waiting.lock();
        let bytes = waiting.bytes.saturating_add(line.len());
        let fits = waiting.lines.len() < MAX_LINES && (waiting.bytes == 0 || bytes <= MAX_BYTES);
        if waiting.closed || !fits {
            waiting.missing += u64::from(stream != LogStream::Host);
            return false;
        }
        waiting.say_what_is_missing();
        waiting.lines.push((stream, line.to_vec()));
        waiting.bytes = bytes;
        self.wake(&mut waiting);
        true
    }

    /// As [`PluginLog::note`].
    pub(super) fn put_note(&self, note: &str) -> bool {
        self.put(LogStream::Host, marked(note).as_bytes())
    }

    fn wake(&self, waiting: &mut QueuedLines) {
        if !std::mem::replace(&mut waiting.woken, true)
            && let Err(error) = (&self.wake).write_all(b".")
        {
            log::debug!("cannot wake the thread of a log: {error}");
        }
    }

    /// For `poll`: readable when lines have come, and when the last [`LineFeed`] has gone.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.wakened.as_fd()
    }

    pub(super) fn is_fed(&self) -> bool {
        self.waiting.lock().fed
    }

    /// Takes the lines that are there, once the descriptor can be read. Returns whether a [`LineFeed`] may bring
    /// more.
    pub(super) fn take(&self, batch: &mut LineBatch, max_line: usize) -> bool {
        // Before taking: what comes later wakes again.
        let _ = (&self.wakened).read(&mut [0; 8]);
        self.empty(batch, max_line)
    }

    /// Takes the last lines. From now on all are refused.
    pub(super) fn close(&self, batch: &mut LineBatch, max_line: usize) {
        self.waiting.lock().closed = true;
        self.empty(batch, max_line);
    }

    fn empty(&self, batch: &mut LineBatch, max_line: usize) -> bool {
        let mut waiting = self.waiting.lock();
        waiting.say_what_is_missing();
        waiting.woken = false;
        waiting.bytes = 0;
        let lines = std::mem::take(&mut waiting.lines);
        let fed = waiting.fed;
        drop(waiting);
        for (stream, line) in lines {
            batch.push_cut(stream, &line, max_line);
        }
        fed
    }
}

/// Returns a line of the host's own as it is logged.
pub(super) fn marked(note: &str) -> String {
    format!("[plugin-runner] {note}")
}

impl QueuedLines {
    /// Puts a note in the place of lines that were refused.
    fn say_what_is_missing(&mut self) {
        let (lines, they) = match std::mem::take(&mut self.missing) {
            0 => return,
            1 => ("1 line is".to_owned(), "it"),
            missing => (format!("{missing} lines are"), "they"),
        };
        let note = format!(
            "[plugin-runner] {lines} missing here, {they} came faster than the log could be written"
        );
        self.lines.push((LogStream::Host, note.into()));
    }
}

/// Puts a plugin's lines into the queue. The log's thread goes on until this is dropped.
pub(crate) struct LineFeed {
    log: Arc<PluginLog>,
    queue: Arc<LogQueue>,
    stream: LogStream,
}

impl LineFeed {
    /// A queue has one feed at most.
    pub(crate) fn new(log: Arc<PluginLog>, queue: Arc<LogQueue>, stream: LogStream) -> Self {
        queue.waiting.lock().fed = true;
        Self { log, queue, stream }
    }

    /// Puts a line in, given without its end. Never waits: a line that finds no room is lost, which
    /// [`PluginLog::lost_lines`] counts and the log says where the line is missing.
    pub(crate) fn put(&self, line: &[u8]) {
        if !self.queue.put(self.stream, line) {
            self.log.count_lost(1);
        }
    }
}

impl Drop for LineFeed {
    fn drop(&mut self) {
        let mut waiting = self.queue.waiting.lock();
        waiting.fed = false;
        self.queue.wake(&mut waiting);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossbeam_channel::Receiver;

    use super::super::pump::{Outputs, pump};
    use super::super::scratch::Scratch;
    use super::super::{LogSettings, LogTap};
    use super::*;
    use crate::deadline::Deadline;
    use crate::poll;

    /// Returns a log, and where its lines arrive as texts.
    fn log(scratch: &Scratch) -> (Arc<PluginLog>, Receiver<String>) {
        let (sender, texts) = crossbeam_channel::unbounded();
        let tap: LogTap = Arc::new(move |line| {
            let _ = sender.send(line.text.to_string());
        });
        let settings = LogSettings::default().max_line(100);
        let log = PluginLog::open(scratch.logs(), settings, Some(tap)).unwrap();
        (Arc::new(log), texts)
    }

    fn fed_queue(log: &Arc<PluginLog>) -> (LineFeed, Arc<LogQueue>) {
        let queue = LogQueue::new().unwrap();
        let feed = LineFeed::new(log.clone(), queue.clone(), LogStream::Stdout);
        (feed, queue)
    }

    /// Lets the log's thread do its part, from a stop that has come already to the end of the queue.
    fn drain(log: &PluginLog, queue: Arc<LogQueue>) {
        let (stopped, _) = io::pipe().unwrap();
        let outputs = Outputs {
            stdout: None,
            stderr: None,
            queue,
        };
        pump(outputs, log, stopped.into());
    }

    fn texts(batch: &LineBatch) -> Vec<String> {
        batch.lines().map(|line| line.text.into_owned()).collect()
    }

    #[test]
    fn lines_are_logged_in_order_and_cut_to_the_end_also_after_the_stop() {
        let scratch = Scratch::new("queue-order");
        let (log, texts) = log(&scratch);
        let (feed, queue) = fed_queue(&log);
        let putting = std::thread::spawn(move || {
            for number in 0..1000 {
                feed.put(number.to_string().as_bytes());
            }
            feed.put(&[b'x'; 150]);
        });
        drain(&log, queue);
        putting.join().unwrap();
        let texts: Vec<String> = texts.try_iter().collect();
        assert_eq!(texts.len(), 1002);
        assert!((0..1000).all(|number| texts[number] == number.to_string()));
        assert!(texts[1000].ends_with(super::super::CONTINUES) && texts[1001].ends_with('x'));
        assert_eq!(log.lost_lines(), 0);
    }

    #[test]
    fn over_the_limit_of_lines_each_hole_is_told_where_it_is() {
        let scratch = Scratch::new("queue-lines");
        let (log, texts) = log(&scratch);
        let (feed, queue) = fed_queue(&log);
        for _ in 0..MAX_LINES + 2 {
            feed.put(b"early");
        }
        let mut batch = LineBatch::default();
        assert!(queue.take(&mut batch, 100));
        log.write(&mut batch);
        feed.put(b"late");
        for _ in 0..MAX_LINES {
            feed.put(b"later");
        }
        drop(feed);
        drain(&log, queue);
        let texts: Vec<String> = texts.try_iter().collect();
        let notes = texts
            .iter()
            .enumerate()
            .filter(|(_, text)| text.starts_with('['));
        let notes: Vec<_> = notes.map(|(place, text)| (place, text.as_str())).collect();
        let came = "missing here, it came faster than the log could be written";
        let one = format!("[plugin-runner] 1 line is {came}");
        let two = one
            .replace("1 line is", "2 lines are")
            .replace("it came", "they came");
        assert_eq!(notes, [(MAX_LINES, &*two), (2 * MAX_LINES + 1, &*one)]);
        assert_eq!(texts[MAX_LINES + 1], "late");
        assert_eq!(log.lost_lines(), 3);
    }

    #[test]
    fn over_the_limit_of_bytes_only_what_comes_first_may_be_longer() {
        let scratch = Scratch::new("queue-bytes");
        let (log, _) = log(&scratch);
        let (feed, queue) = fed_queue(&log);
        let long = vec![b'x'; MAX_BYTES + 1];
        feed.put(&long);
        feed.put(b"no room");
        assert_eq!(log.lost_lines(), 1);
        let mut batch = LineBatch::default();
        queue.take(&mut batch, 100);
        feed.put(&long[..MAX_BYTES]);
        assert_eq!(log.lost_lines(), 1, "there was room again");
        feed.put(&long);
        assert_eq!(log.lost_lines(), 2);
        queue.take(&mut batch, 100);
        assert_eq!(queue.waiting.lock().bytes, 0);
    }

    #[test]
    fn what_is_put_in_when_nobody_takes_it_any_more_is_counted() {
        let scratch = Scratch::new("queue-alone");
        let (log, _) = log(&scratch);
        let (feed, queue) = fed_queue(&log);
        queue.close(&mut LineBatch::default(), 100);
        feed.put(b"unheard");
        assert_eq!(log.lost_lines(), 1);
    }

    #[test]
    fn notes_go_to_the_queue_of_the_newest_run() {
        let scratch = Scratch::new("queue-notes");
        let (log, _) = log(&scratch);
        assert!(!log.note("too early"));
        let first = LogQueue::new().unwrap();
        log.take_notes_into(&first);
        assert!(log.note("one") && log.note("two"));
        assert!(poll::readable(first.descriptor(), Deadline::after(Duration::ZERO)).unwrap());
        let mut batch = LineBatch::default();
        first.take(&mut batch, 1000);
        assert_eq!(
            texts(&batch),
            ["[plugin-runner] one", "[plugin-runner] two"]
        );
        assert!(log.note("three"));
        let second = LogQueue::new().unwrap();
        log.take_notes_into(&second);
        assert!(log.note("four"));
        // The end of the first takes nothing from the second.
        batch.clear();
        first.close(&mut batch, 1000);
        assert_eq!(texts(&batch), ["[plugin-runner] three"]);
        assert!(log.note("five"));
        batch.clear();
        second.close(&mut batch, 1000);
        assert_eq!(
            texts(&batch),
            ["[plugin-runner] four", "[plugin-runner] five"]
        );
        assert!(!log.note("too late"));
    }

    #[test]
    fn a_note_is_refused_when_the_queue_is_full_and_no_line_counts_as_missing() {
        let scratch = Scratch::new("queue-full");
        let (log, _) = log(&scratch);
        let (feed, queue) = fed_queue(&log);
        log.take_notes_into(&queue);
        for _ in 0..MAX_LINES {
            feed.put(b"x");
        }
        assert!(!log.note("no room"));
        let mut batch = LineBatch::default();
        queue.take(&mut batch, 1000);
        assert_eq!(texts(&batch), vec!["x"; MAX_LINES]);
        assert_eq!(log.lost_lines(), 0);
        assert!(log.note("room again"));
    }
}

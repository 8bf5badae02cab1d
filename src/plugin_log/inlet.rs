//! A way into the log for threads that must not wait: lines are put into a queue of bounded length,
//! from which the log's own thread (`pump`) takes them. What does not fit is dropped and counted.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender};

use super::handle::PluginLog;
use super::line::{Batch, LogStream};

/// Lines that may wait for the log's thread.
pub(crate) const MAX_LINES: usize = 16 * 1024;

/// Bytes of lines that may wait for the log's thread. A single line may be longer, if nothing else
/// waits. The thread itself holds as much again while it writes.
pub(crate) const MAX_BYTES: usize = 1024 * 1024;

/// The end where lines are put in. The log's thread goes on until this is dropped.
pub(crate) struct Inlet {
    log: Arc<PluginLog>,
    lines: Sender<Waiting>,
    queue: Arc<Queue>,
    /// Wakes the log's thread. Last, so that nothing is put in after the end that the thread sees.
    wake: PipeWriter,
}

/// The end where the log's thread takes them.
pub(crate) struct Outlet {
    stream: LogStream,
    lines: Receiver<Waiting>,
    queue: Arc<Queue>,
}

/// A line, and how many were dropped right before it.
struct Waiting {
    missing: u64,
    line: Vec<u8>,
}

struct Queue {
    bytes: AtomicUsize,
    /// Lines dropped since the last that was taken in.
    missing: AtomicU64,
    /// The log's thread has been woken and has not looked yet, so at most two bytes are in the pipe
    /// and writing one never blocks.
    woken: AtomicBool,
    /// Held by both ends: a pipe that nobody can read any more would send a signal to the writer.
    wakened: PipeReader,
}

/// A queue into this log, both ends of it.
pub(crate) fn inlet(stream: LogStream, log: Arc<PluginLog>) -> io::Result<(Inlet, Outlet)> {
    let (wakened, wake) = io::pipe()?;
    // Its bounds are kept where lines are put in: one with room for all would take it from the start,
    // for every plugin.
    let (sender, receiver) = crossbeam_channel::unbounded();
    let queue = Arc::new(Queue {
        bytes: AtomicUsize::new(0),
        missing: AtomicU64::new(0),
        woken: AtomicBool::new(false),
        wakened,
    });
    let outlet = Outlet {
        stream,
        lines: receiver,
        queue: queue.clone(),
    };
    let inlet = Inlet {
        log,
        lines: sender,
        queue,
        wake,
    };
    Ok((inlet, outlet))
}

impl Inlet {
    /// Puts a line in, given without its end. Never waits: a line that finds no room is lost, which
    /// [`PluginLog::lost_lines`] counts and the log says where the line is missing.
    ///
    /// For one thread at a time, or the order is anybody's.
    pub(crate) fn put(&self, line: &[u8]) {
        let queue = &self.queue;
        let held = queue.bytes.fetch_add(line.len(), Ordering::AcqRel);
        let fits = self.lines.len() < MAX_LINES
            && (held == 0 || held.saturating_add(line.len()) <= MAX_BYTES);
        let missing = queue.missing.swap(0, Ordering::AcqRel);
        let put = fits && {
            let line = line.to_vec();
            self.lines.send(Waiting { missing, line }).is_ok()
        };
        if put {
            self.wake();
        } else {
            queue.bytes.fetch_sub(line.len(), Ordering::AcqRel);
            queue.missing.fetch_add(missing + 1, Ordering::AcqRel);
            self.log.count_lost(1);
        }
    }

    fn wake(&self) {
        if !self.queue.woken.swap(true, Ordering::AcqRel)
            && let Err(error) = (&self.wake).write_all(b".")
        {
            log::debug!("cannot wake the thread of a log: {error}");
        }
    }
}

impl Outlet {
    /// For `poll`: readable when lines have come, and for good once the inlet is gone.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.queue.wakened.as_fd()
    }

    /// Takes the lines that are there, once the descriptor can be read. Gives whether more may come.
    pub(super) fn take(&self, batch: &mut Batch, max_line: usize) -> bool {
        let mut bytes = [0; 8];
        let more = !matches!((&self.queue.wakened).read(&mut bytes), Ok(0));
        // Before looking: what comes after the look wakes again.
        self.queue.woken.store(false, Ordering::SeqCst);
        for waiting in self.lines.try_iter().take(self.lines.len()) {
            note(waiting.missing, batch);
            self.queue
                .bytes
                .fetch_sub(waiting.line.len(), Ordering::AcqRel);
            batch.push_cut(self.stream, &waiting.line, max_line);
        }
        if self.lines.is_empty() {
            note(self.queue.missing.swap(0, Ordering::AcqRel), batch);
        }
        more
    }
}

fn note(missing: u64, batch: &mut Batch) {
    let (lines, they) = match missing {
        0 => return,
        1 => ("1 line is".to_owned(), "it"),
        _ => (format!("{missing} lines are"), "they"),
    };
    let note = format!(
        "[plugin-runner] {lines} missing here, {they} came faster than the log could be written"
    );
    batch.push(LogStream::Host, note.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::pump::{Outputs, pump};
    use super::super::scratch::Scratch;
    use super::super::{LogSettings, LogTap};
    use super::*;

    /// A log whose lines are heard as texts.
    fn log(scratch: &Scratch) -> (Arc<PluginLog>, Receiver<String>) {
        let (sender, texts) = crossbeam_channel::unbounded();
        let tap: LogTap = Arc::new(move |line| {
            let _ = sender.send(line.text.to_string());
        });
        let settings = LogSettings::default().with_max_line(100);
        let log = PluginLog::open(scratch.logs(), settings, Some(tap)).unwrap();
        (Arc::new(log), texts)
    }

    /// Lets the log's thread do its part, from a stop that has come already to the end of the queue.
    fn drain(log: &PluginLog, outlet: Outlet) {
        let (stopped, _) = io::pipe().unwrap();
        let outputs = Outputs {
            lines: Some(outlet),
            ..Outputs::default()
        };
        pump(outputs, log, stopped.into());
    }

    #[test]
    fn lines_are_logged_in_order_and_cut_to_the_end_also_after_the_stop() {
        let scratch = Scratch::new("inlet-order");
        let (log, texts) = log(&scratch);
        let (inlet, outlet) = inlet(LogStream::Stdout, log.clone()).unwrap();
        let putting = std::thread::spawn(move || {
            for number in 0..1000 {
                inlet.put(number.to_string().as_bytes());
            }
            inlet.put(&[b'x'; 150]);
        });
        drain(&log, outlet);
        putting.join().unwrap();
        let texts: Vec<String> = texts.try_iter().collect();
        assert_eq!(texts.len(), 1002);
        assert!((0..1000).all(|number| texts[number] == number.to_string()));
        assert!(texts[1000].ends_with(super::super::CONTINUES) && texts[1001].ends_with('x'));
        assert_eq!(log.lost_lines(), 0);
    }

    #[test]
    fn over_the_limit_of_lines_each_hole_is_told_where_it_is() {
        let scratch = Scratch::new("inlet-lines");
        let (log, texts) = log(&scratch);
        let (inlet, outlet) = inlet(LogStream::Stdout, log.clone()).unwrap();
        for _ in 0..MAX_LINES + 2 {
            inlet.put(b"early");
        }
        let mut batch = Batch::default();
        assert!(outlet.take(&mut batch, 100));
        log.write(&batch);
        inlet.put(b"late");
        for _ in 0..MAX_LINES {
            inlet.put(b"later");
        }
        drop(inlet);
        drain(&log, outlet);
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
        let scratch = Scratch::new("inlet-bytes");
        let (log, _) = log(&scratch);
        let (inlet, outlet) = inlet(LogStream::Stdout, log.clone()).unwrap();
        let long = vec![b'x'; MAX_BYTES + 1];
        inlet.put(&long);
        inlet.put(b"no room");
        assert_eq!(log.lost_lines(), 1);
        let mut batch = Batch::default();
        outlet.take(&mut batch, 100);
        inlet.put(&long[..MAX_BYTES]);
        assert_eq!(log.lost_lines(), 1, "there was room again");
        inlet.put(&long);
        assert_eq!(log.lost_lines(), 2);
        outlet.take(&mut batch, 100);
        assert_eq!(inlet.queue.bytes.load(Ordering::Acquire), 0);
    }

    #[test]
    fn what_is_put_in_when_nobody_takes_it_any_more_is_counted() {
        let scratch = Scratch::new("inlet-alone");
        let (log, _) = log(&scratch);
        let (inlet, outlet) = inlet(LogStream::Stdout, log.clone()).unwrap();
        drop(outlet);
        inlet.put(b"unheard");
        assert_eq!(log.lost_lines(), 1);
    }
}

//! What the host has to say in a plugin's log, from threads that must not wait for the disk: notes, which
//! the log's own thread (`pump`) takes while there is one. Where there is none, whoever has a note is told
//! so, and says it elsewhere.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use parking_lot::Mutex;

use super::handle::PluginLog;
use super::line::{Batch, LogStream};

/// Notes that may wait for the log's thread.
const MAX_NOTES: usize = 32;

/// The notes of one log that wait for its thread.
#[derive(Default)]
pub(super) struct Notes(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    waiting: Vec<String>,
    /// Wakes the thread that takes them; none while nobody does.
    wake: Option<PipeWriter>,
    /// The number of the last that began to take them. Over a restart there may be two for a moment.
    takers: u64,
}

/// The right to take a log's notes, which the log's thread has.
pub(super) struct Taker<'log> {
    notes: &'log Notes,
    number: u64,
    wakened: PipeReader,
}

impl Notes {
    /// Takes them from now on, in the place of whoever did before.
    pub(super) fn begin(&self) -> io::Result<Taker<'_>> {
        let (wakened, wake) = io::pipe()?;
        let mut inner = self.0.lock();
        if !inner.waiting.is_empty() {
            // Those have woken the one before, who may be past looking.
            (&wake).write_all(b".")?;
        }
        inner.takers += 1;
        inner.wake = Some(wake);
        let number = inner.takers;
        drop(inner);
        Ok(Taker {
            notes: self,
            number,
            wakened,
        })
    }

    /// Puts a note in, without waiting for anything. False when nobody takes them, or not fast enough.
    fn put(&self, note: &str) -> bool {
        let mut inner = self.0.lock();
        let Some(wake) = &inner.wake else {
            return false;
        };
        if inner.waiting.len() >= MAX_NOTES {
            return false;
        }
        // A byte for the first of those that wait, so that the pipe holds few and never blocks. It can be
        // read: its reader goes only once this end has been taken out.
        if inner.waiting.is_empty()
            && let Err(error) = (&*wake).write_all(b".")
        {
            log::debug!("cannot wake the thread of a log: {error}");
            return false;
        }
        inner.waiting.push(format!("[plugin-runner] {note}"));
        true
    }
}

impl PluginLog {
    /// Has the log's thread write a line of the host's own, marked as such. Never waits; returns whether
    /// the line will be written, which it is not while no run's output is being logged.
    pub(crate) fn note(&self, note: &str) -> bool {
        self.notes.put(note)
    }
}

impl Taker<'_> {
    /// For `poll`: readable when notes have come.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.wakened.as_fd()
    }

    /// Takes the notes that are there, once the descriptor can be read.
    pub(super) fn take(&self, batch: &mut Batch, max_line: usize) {
        let mut bytes = [0; 8];
        // Before looking: what comes after the look wakes again.
        let _ = (&self.wakened).read(&mut bytes);
        let waiting = std::mem::take(&mut self.notes.0.lock().waiting);
        push(&waiting, batch, max_line);
    }

    /// Takes the last notes: whoever has one from now on is told that nobody takes it.
    pub(super) fn end(self, batch: &mut Batch, max_line: usize) {
        let waiting = self.retire();
        push(&waiting, batch, max_line);
    }

    /// Lets go, unless another has taken over; returns what is left then.
    fn retire(&self) -> Vec<String> {
        let mut inner = self.notes.0.lock();
        if inner.takers != self.number {
            return Vec::new();
        }
        inner.wake = None;
        std::mem::take(&mut inner.waiting)
    }
}

impl Drop for Taker<'_> {
    fn drop(&mut self) {
        self.retire();
    }
}

fn push(notes: &[String], batch: &mut Batch, max_line: usize) {
    for note in notes {
        batch.push_cut(LogStream::Host, note.as_bytes(), max_line);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::deadline::Deadline;
    use crate::poll;

    fn texts(batch: &Batch) -> Vec<String> {
        batch.lines().map(|line| line.text.into_owned()).collect()
    }

    #[test]
    fn a_note_is_taken_by_whoever_takes_them_now() {
        let notes = Notes::default();
        assert!(!notes.put("too early"));
        let first = notes.begin().unwrap();
        assert!(notes.put("one") && notes.put("two"));
        let mut batch = Batch::default();
        first.take(&mut batch, 1000);
        assert_eq!(
            texts(&batch),
            ["[plugin-runner] one", "[plugin-runner] two"]
        );
        batch.clear();
        let second = notes.begin().unwrap();
        assert!(notes.put("three"));
        // The first is not asked any more, and its end takes nothing from the second.
        first.end(&mut batch, 1000);
        assert!(batch.is_empty());
        assert!(notes.put("four"));
        second.end(&mut batch, 1000);
        assert_eq!(
            texts(&batch),
            ["[plugin-runner] three", "[plugin-runner] four"]
        );
        assert!(!notes.put("too late"));
    }

    #[test]
    fn a_note_for_one_who_is_relieved_wakes_the_next() {
        let notes = Notes::default();
        let first = notes.begin().unwrap();
        assert!(notes.put("x"));
        let second = notes.begin().unwrap();
        let mut batch = Batch::default();
        first.end(&mut batch, 1000);
        assert!(batch.is_empty());
        let now = Deadline::after(Duration::ZERO);
        assert!(poll::readable(second.descriptor(), now).unwrap());
        second.take(&mut batch, 1000);
        assert_eq!(texts(&batch), ["[plugin-runner] x"]);
        assert!(!poll::readable(second.descriptor(), now).unwrap());
    }

    #[test]
    fn what_is_not_taken_is_bounded() {
        let notes = Notes::default();
        let taker = notes.begin().unwrap();
        assert!((0..MAX_NOTES).all(|_| notes.put("x")));
        assert!(!notes.put("x"));
        let mut batch = Batch::default();
        taker.take(&mut batch, 1000);
        assert_eq!(texts(&batch).len(), MAX_NOTES);
        assert!(notes.put("x"));
        drop(taker);
        assert!(!notes.put("x"));
    }
}

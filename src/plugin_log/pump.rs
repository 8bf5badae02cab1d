//! `pump`: the body of the thread that drains a child's output into its log. `session` starts the thread.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

use super::handle::PluginLog;
use super::line::{LineBatch, LogStream};
use super::queue::LogQueue;
use crate::deadline::Deadline;
use crate::line_splitter::LineSplitter;
use crate::poll;

/// Bytes read at once from a pipe; what a pipe holds on Linux.
const READ_SIZE: usize = 64 * 1024;

/// Bytes of each pipe that are still read once the pump was asked to stop. A process that holds the pipe
/// may write faster than the pump reads.
const DRAIN_LIMIT: usize = 1024 * 1024;

/// How long lines are still taken from the queue once the pump was asked to stop. Its feed is dropped when
/// the connection ends, which the host brings about well before.
const LAST_LINES: Duration = Duration::from_secs(5);

/// Where a child's output comes from: pipes, and lines that another thread read already.
pub(crate) struct Outputs {
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
    pub(crate) queue: Arc<LogQueue>,
}

/// Logs what comes, line by line, until all outputs have ended, or until `stop` can be read or has
/// lost its other end: descendants of the child may hold its pipes open for ever. After the stop,
/// what is in the pipes already is still logged, up to 1 MiB of each, and what is put into the queue
/// until its feed is dropped, for five seconds at most.
///
/// A last line without end is logged when its pipe ends. Everything that one round reads goes to
/// the log in one write. Meanwhile the host's own notes are logged too ([`PluginLog::note`]), and old files
/// are removed when they are over their age, however much or little is printed.
///
/// Blocks in `poll` and in the log, in nothing else. The pipes are set to non-blocking, which the
/// writing ends do not notice.
pub(crate) fn pump(outputs: Outputs, log: &PluginLog, stop: OwnedFd) {
    let max_line = log.settings().max_line;
    let queue = &outputs.queue;
    let streams = [
        (LogStream::Stdout, outputs.stdout),
        (LogStream::Stderr, outputs.stderr),
    ];
    let mut pipes: Vec<OutputPipe> = streams
        .into_iter()
        .filter_map(|(stream, descriptor)| Some(OutputPipe::new(stream, descriptor?, max_line)))
        .collect();
    log.take_notes_into(queue);
    let mut buffer = vec![0; READ_SIZE];
    let mut batch = LineBatch::default();
    let mut fed = queue.is_fed();
    let mut look = Deadline::after(log.aging_interval());
    while !pipes.is_empty() || fed {
        let Some((pipes_ready, queue_ready)) = wait(&pipes, queue, &stop, look) else {
            break;
        };
        for (pipe, ready) in pipes.iter_mut().zip(pipes_ready) {
            if ready {
                pipe.read(&mut buffer, &mut batch);
            }
        }
        pipes.retain(|pipe| !pipe.ended);
        if queue_ready {
            fed = queue.take(&mut batch, max_line);
        }
        log.write(&mut batch);
        if look.has_passed() {
            log.remove_aged();
            look = Deadline::after(log.aging_interval());
        }
    }
    for mut pipe in pipes {
        let mut drained = 0;
        while drained < DRAIN_LIMIT {
            let count = pipe.read(&mut buffer, &mut batch);
            if count == 0 {
                break;
            }
            drained += count;
            log.write(&mut batch);
        }
        pipe.end(&mut batch);
        log.write(&mut batch);
    }
    let deadline = Deadline::after(LAST_LINES);
    while fed && poll::readable(queue.descriptor(), deadline).unwrap_or(false) {
        fed = queue.take(&mut batch, max_line);
        log.write(&mut batch);
    }
    queue.close(&mut batch, max_line);
    log.write(&mut batch);
}

/// Waits until something can be read, or until the deadline, and returns which of the pipes can be, and whether
/// the queue; `None` to stop.
fn wait(
    pipes: &[OutputPipe],
    queue: &LogQueue,
    stop: &OwnedFd,
    deadline: Deadline,
) -> Option<(Vec<bool>, bool)> {
    let descriptors = pipes.iter().map(|pipe| pipe.descriptor.as_fd());
    let mut polled: Vec<PollFd<'_>> = descriptors
        .chain([queue.descriptor(), stop.as_fd()])
        .map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN))
        .collect();
    if let Err(error) = poll::wait(&mut polled, Some(deadline)) {
        // Out of memory, in practice. Stopping here beats spinning.
        log::error!("cannot wait for a plugin's output: {error}");
        return None;
    }
    // Hang-ups and errors count as readable: reading tells which it is.
    let mut ready: Vec<bool> = polled
        .iter()
        .map(|polled| !polled.revents().is_empty())
        .collect();
    let stopped = ready.pop().unwrap_or(true);
    let queue = ready.pop().unwrap_or(false);
    (!stopped).then_some((ready, queue))
}

/// The reading end of one of the child's outputs.
struct OutputPipe {
    stream: LogStream,
    descriptor: OwnedFd,
    splitter: LineSplitter,
    ended: bool,
}

impl OutputPipe {
    fn new(stream: LogStream, descriptor: OwnedFd, max_line: usize) -> Self {
        // A child can reopen its pipe for reading and take away what `poll` has seen.
        let set = fcntl_getfl(&descriptor)
            .and_then(|flags| fcntl_setfl(&descriptor, flags | OFlags::NONBLOCK));
        if let Err(error) = set {
            log::warn!("cannot set a plugin's output to non-blocking: {error}");
        }
        Self {
            stream,
            descriptor,
            splitter: LineSplitter::new(max_line),
            ended: false,
        }
    }

    /// Reads once, and puts the lines into the batch. Returns the number of bytes: 0 if there is nothing now,
    /// or if the pipe has ended.
    fn read(&mut self, buffer: &mut [u8], batch: &mut LineBatch) -> usize {
        let stream = self.stream;
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.descriptor, &mut *buffer)) {
            Ok(0) => {
                self.end(batch);
                0
            }
            Ok(count) => {
                self.splitter
                    .push(&buffer[..count], |line| batch.push(stream, line));
                count
            }
            Err(Errno::AGAIN) => 0,
            Err(error) => {
                log::warn!("cannot read a plugin's output: {error}");
                self.end(batch);
                0
            }
        }
    }

    fn end(&mut self, batch: &mut LineBatch) {
        self.ended = true;
        self.splitter.finish(|line| batch.push(self.stream, line));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{self, PipeWriter, Write};
    use std::process::{Child, Command, Stdio};
    use std::thread::{self, JoinHandle};

    use crossbeam_channel::Receiver;

    use super::super::scratch::{Scratch, names};
    use super::super::{LogSettings, LogTap};
    use super::*;
    use crate::testing::{LONG, wait_until};

    /// A pump that runs, and the lines that it logged.
    struct Running {
        lines: Receiver<(LogStream, String)>,
        stop: Option<PipeWriter>,
        thread: JoinHandle<()>,
    }

    impl Running {
        fn start(scratch: &Scratch, stdout: Option<OwnedFd>, stderr: Option<OwnedFd>) -> Self {
            let (sender, lines) = crossbeam_channel::unbounded();
            let tap: LogTap = Arc::new(move |line| {
                let _ = sender.send((line.stream, line.text.to_string()));
            });
            let settings = LogSettings::default().max_line(100);
            let log = PluginLog::open(scratch.logs(), settings, Some(tap)).unwrap();
            let (stopped, stop) = io::pipe().unwrap();
            let outputs = Outputs {
                stdout,
                stderr,
                queue: LogQueue::new().unwrap(),
            };
            let thread = thread::spawn(move || pump(outputs, &log, stopped.into()));
            Self {
                lines,
                stop: Some(stop),
                thread,
            }
        }

        fn of_child(scratch: &Scratch, script: &str) -> (Self, Child) {
            let mut child = Command::new("sh")
                .args(["-c", script])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let stdout = child.stdout.take().map(OwnedFd::from);
            let stderr = child.stderr.take().map(OwnedFd::from);
            (Self::start(scratch, stdout, stderr), child)
        }

        #[track_caller]
        fn line(&self) -> (LogStream, String) {
            self.lines.recv_timeout(LONG).unwrap()
        }

        /// Waits until the pump has ended. Returns the lines that were not taken.
        fn ended(self) -> Vec<(LogStream, String)> {
            // The pump's end drops the log, and the tap with it.
            let mut lines = Vec::new();
            loop {
                match self.lines.recv_timeout(LONG) {
                    Ok(line) => lines.push(line),
                    Err(error) => {
                        assert!(error.is_disconnected(), "the pump did not end");
                        self.thread.join().unwrap();
                        return lines;
                    }
                }
            }
        }
    }

    fn texts(lines: &[(LogStream, String)], stream: LogStream) -> Vec<&str> {
        lines
            .iter()
            .filter(|line| line.0 == stream)
            .map(|line| line.1.as_str())
            .collect()
    }

    #[test]
    fn both_outputs_of_a_child_are_logged_to_their_ends() {
        let scratch = Scratch::new("outputs");
        let (running, mut child) = Running::of_child(
            &scratch,
            "echo out 1; echo err 1 >&2; printf 'no \\377 text\\n'; printf 'no end'; printf end >&2",
        );
        let lines = running.ended();
        assert!(child.wait().unwrap().success());
        assert_eq!(
            texts(&lines, LogStream::Stdout),
            ["out 1", "no \u{fffd} text", "no end"]
        );
        assert_eq!(texts(&lines, LogStream::Stderr), ["err 1", "end"]);
        let file = fs::read(scratch.logs().join("output.log")).unwrap();
        assert!(file.windows(5).any(|bytes| bytes == b"no \xff "));
        assert_eq!(file.last(), Some(&b'\n'));
    }

    #[test]
    fn one_output_may_end_long_before_the_other() {
        let scratch = Scratch::new("one-ends");
        let (running, mut child) = Running::of_child(
            &scratch,
            "exec 2>&-; i=0; while [ $i -lt 1000 ]; do echo $i; i=$((i+1)); done",
        );
        let lines = running.ended();
        assert!(child.wait().unwrap().success());
        assert_eq!(texts(&lines, LogStream::Stdout).len(), 1000);
        assert_eq!(lines[999].1, "999");
    }

    #[test]
    fn a_flood_is_logged_whole_and_does_not_stop_the_child() {
        let scratch = Scratch::new("flood");
        let (running, mut child) = Running::of_child(
            &scratch,
            "(head -c 3000000 /dev/zero | tr '\\0' x) >&2; yes | head -n 500000",
        );
        let lines = running.ended();
        assert!(child.wait().unwrap().success());
        assert_eq!(texts(&lines, LogStream::Stdout).len(), 500_000);
        // Without one line end: cut, and nothing missing.
        let length: usize = texts(&lines, LogStream::Stderr)
            .iter()
            .map(|line| line.bytes().filter(|byte| *byte == b'x').count())
            .sum();
        assert_eq!(length, 3_000_000);
    }

    #[test]
    fn it_stops_though_a_grandchild_holds_the_pipes() {
        let scratch = Scratch::new("grandchild");
        let (mut running, mut child) =
            Running::of_child(&scratch, "sleep 1000 & echo $!; printf 'no end'");
        let grandchild: i32 = running.line().1.parse().unwrap();
        assert!(child.wait().unwrap().success());
        // Written before the child ended, so it is in the pipe if it was not read already.
        drop(running.stop.take());
        assert_eq!(running.ended(), [(LogStream::Stdout, "no end".to_owned())]);
        let grandchild = rustix::process::Pid::from_raw(grandchild).unwrap();
        rustix::process::kill_process(grandchild, rustix::process::Signal::KILL).unwrap();
    }

    #[test]
    fn it_stops_though_somebody_never_ceases_to_write() {
        let scratch = Scratch::new("ceaseless");
        let (mut running, mut child) = Running::of_child(&scratch, "exec yes");
        assert_eq!(running.line().1, "y");
        drop(running.stop.take());
        running.ended();
        // Its pipe is gone, so it dies of that.
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn after_the_stop_what_is_in_the_pipes_is_still_logged() {
        let scratch = Scratch::new("drained");
        let (stdout, mut out) = io::pipe().unwrap();
        let (stderr, mut err) = io::pipe().unwrap();
        out.write_all(b"1\n2\n").unwrap();
        err.write_all(b"3\n4").unwrap();
        // Stopped before it starts, and both pipes stay open.
        let (stopped, stop) = io::pipe().unwrap();
        drop(stop);
        let log = PluginLog::open(scratch.logs(), LogSettings::default(), None).unwrap();
        let outputs = Outputs {
            stdout: Some(stdout.into()),
            stderr: Some(stderr.into()),
            queue: LogQueue::new().unwrap(),
        };
        pump(outputs, &log, stopped.into());
        assert_eq!(log.tail(), ["1", "2", "3", "4"]);
        drop((out, err));
    }

    #[test]
    fn old_files_go_though_nothing_is_printed() {
        let scratch = Scratch::new("aging-pump");
        let age = Duration::from_secs(1);
        let settings = LogSettings::default().max_file_size(2).max_age(age);
        let log = PluginLog::open(scratch.logs(), settings, None).unwrap();
        log.write_line(LogStream::Stdout, b"1\n2\n3");
        let (stdout, out) = io::pipe().unwrap();
        let outputs = Outputs {
            stdout: Some(stdout.into()),
            stderr: None,
            queue: LogQueue::new().unwrap(),
        };
        let (stopped, stop) = io::pipe().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| pump(outputs, &log, stopped.into()));
            wait_until("the old files to be removed", || {
                names(&scratch.logs()) == ["output.log"]
            });
            drop((stop, out));
        });
        assert_eq!(fs::read(scratch.logs().join("output.log")).unwrap(), b"3\n");
    }

    #[test]
    fn a_byte_stops_it_as_well_and_without_pipes_there_is_nothing_to_do() {
        let scratch = Scratch::new("byte");
        let (stdout, out) = io::pipe().unwrap();
        let mut running = Running::start(&scratch, Some(stdout.into()), None);
        running.stop.as_mut().unwrap().write_all(b".").unwrap();
        assert!(running.ended().is_empty());
        drop(out);
        assert!(Running::start(&scratch, None, None).ended().is_empty());
    }
}

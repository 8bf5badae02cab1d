//! The log of a server on standard error: text, or one JSON object per line. Its level can change while it runs.
//!
//! Lines are written by a thread of their own. Who reads them may stop reading, as a terminal does after Ctrl-S
//! and a log collector that hangs: that must keep neither plugins nor signals waiting.

use std::io;
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anstyle::{AnsiColor, Style};
use log::{Level, LevelFilter, Log, Metadata, Record};
use parking_lot::{Condvar, Mutex};
use plugin_runner::text::escape;
use serde::Serialize;

use super::settings::LogFormat;
use crate::cli::error::CliError;
use crate::cli::output::{Paint, json_line};

/// Ten lines for each request.
const LEFT_OUT: &str = "ureq";
/// Bytes of lines that may wait to be written; over it the newest are lost.
const WAITING: usize = 1024 * 1024;
/// How long the end of the program waits until they are.
const LAST: Duration = Duration::from_secs(2);

static QUEUE: LazyLock<Queue> = LazyLock::new(Queue::default);

/// Begins to log. What is below the level that is set last is left out.
///
/// # Errors
/// [`CliError`] when the thread that writes cannot be started.
pub(super) fn start(format: LogFormat, level: LevelFilter) -> Result<(), CliError> {
    let logger = match format {
        LogFormat::Json => Logger::Json,
        LogFormat::Text => Logger::Text(Paint::for_stream(&io::stderr())),
    };
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || QUEUE.write_to(&io::stderr(), &|lost| logger.line_of(lost)))
        .map_err(CliError::cannot("start the thread that writes the log"))?;
    // Fails only if there is a logger already. It gets all levels: `log` itself knows the one that counts.
    let _ = log::set_boxed_logger(Box::new(logger));
    set_level(level);
    Ok(())
}

/// Sets the least important level that is logged.
pub(super) fn set_level(level: LevelFilter) {
    log::set_max_level(level);
}

/// Lines that wait to be written.
#[derive(Default)]
struct Queue {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Default)]
struct Lines {
    text: String,
    /// How many did not fit in behind these.
    lost: u64,
    is_writing: bool,
}

impl Queue {
    /// Has a line written, or counts it as lost. Never blocks.
    fn push(&self, line: &str) {
        let mut lines = self.lines.lock();
        if lines.text.len() + line.len() > WAITING {
            lines.lost += 1;
        } else {
            lines.text.push_str(line);
        }
        self.changed.notify_all();
    }

    /// Writes whatever comes, for as long as the program runs. What was lost is told where it is missing.
    fn write_to(&self, mut output: impl io::Write, lost: &dyn Fn(u64) -> String) {
        loop {
            let mut lines = self.lines.lock();
            lines.is_writing = false;
            self.changed.notify_all();
            while lines.text.is_empty() && lines.lost == 0 {
                self.changed.wait(&mut lines);
            }
            let mut text = std::mem::take(&mut lines.text);
            let missing = std::mem::take(&mut lines.lost);
            lines.is_writing = true;
            drop(lines);
            if missing > 0 {
                text.push_str(&lost(missing));
            }
            for line in text.split_inclusive('\n') {
                // In one write, and without standard error there is no other way.
                let _ = output.write_all(line.as_bytes());
            }
        }
    }

    /// Waits until everything is written, at most for so long.
    fn flush(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut lines = self.lines.lock();
        while lines.is_writing || !lines.text.is_empty() {
            if self.changed.wait_until(&mut lines, deadline).timed_out() {
                return;
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Logger {
    Text(Paint),
    Json,
}

/// The members come in this order.
#[derive(Serialize)]
struct JsonRecord<'a> {
    time: String,
    level: String,
    target: &'a str,
    message: String,
}

impl Logger {
    fn line(self, level: Level, target: &str, message: String) -> String {
        let now = SystemTime::now();
        match self {
            Self::Json => json_line(&JsonRecord {
                time: humantime::format_rfc3339_millis(now).to_string(),
                level: level.as_str().to_lowercase(),
                target,
                message,
            }),
            Self::Text(paint) => {
                let time = humantime::format_rfc3339_millis(now);
                let level_shown = paint.with(style(level), &format!("[{level}]"));
                let target = match level {
                    Level::Debug | Level::Trace => format!("{target}: "),
                    _ => String::new(),
                };
                // One line, whatever the message has.
                format!("{time} {level_shown} {target}{}\n", escape(&message))
            }
        }
    }

    fn line_of(self, lost: u64) -> String {
        let message =
            format!("{lost} lines of the log are lost, because it is not read fast enough");
        self.line(Level::Warn, module_path!(), message)
    }
}

fn style(level: Level) -> Style {
    let colour = match level {
        Level::Error => AnsiColor::Red,
        Level::Warn => AnsiColor::Yellow,
        Level::Info => AnsiColor::Blue,
        Level::Debug => AnsiColor::Cyan,
        Level::Trace => AnsiColor::White,
    };
    colour.on_default()
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level() && !metadata.target().starts_with(LEFT_OUT)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let message = record.args().to_string();
            QUEUE.push(&self.line(record.level(), record.target(), message));
        }
    }

    /// Waits until everything is written, for at most two seconds.
    fn flush(&self) {
        QUEUE.flush(LAST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::{Receiver, Sender, bounded};

    /// An output that writes when it may.
    struct Held(Receiver<()>, Sender<String>);

    impl io::Write for Held {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            let _ = self.1.send(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_not_read_waits_up_to_a_limit_and_the_rest_is_counted() {
        let queue: &'static Queue = Box::leak(Box::default());
        let (allow, allowed) = bounded(0);
        let (written, read) = bounded(1024);
        let output = Held(allowed, written);
        thread::spawn(move || queue.write_to(output, &|lines| format!("lost {lines}\n")));
        let line = format!("{}\n", "x".repeat(WAITING / 4 - 1));
        queue.push("first\n");
        while !queue.lines.lock().is_writing {
            thread::yield_now();
        }
        // Nothing is written, and nothing blocks.
        for _ in 0..7 {
            queue.push(&line);
        }
        queue.flush(Duration::from_millis(10));
        assert!(queue.lines.lock().is_writing, "it was not waited for");
        drop(allow);
        queue.flush(Duration::from_secs(60));
        let lines: Vec<_> = read.try_iter().collect();
        assert_eq!(lines.len(), 6);
        assert_eq!((&*lines[0], &*lines[5]), ("first\n", "lost 3\n"));
        assert!(lines[1..5].iter().all(|found| *found == line));
    }

    #[test]
    fn a_message_is_one_line() {
        let logger = Logger::Text(Paint::new(false));
        let line = logger.line(Level::Warn, "t", "a\n[ERROR] \u{1b}[2J".to_owned());
        assert!(line.ends_with(" [WARN] a\\n[ERROR] \\u{1b}[2J\n"), "{line}");
        assert_eq!(line.lines().count(), 1);
        let line = logger.line(Level::Debug, "t", "a".to_owned());
        assert!(line.ends_with(" [DEBUG] t: a\n"), "{line}");
    }
}

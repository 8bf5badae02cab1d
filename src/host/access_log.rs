//! `AccessLog`: a line of the log for each attempt to connect, at most so many a second. What a line says is up
//! to `listener`.

use std::fmt;
use std::time::{Duration, Instant};

use log::Level;
use parking_lot::Mutex;

/// The target of these lines.
const TARGET: &str = "plugin_runner::access";
/// The most lines in a second.
const PER_SECOND: u32 = 50;
const SECOND: Duration = Duration::from_secs(1);

/// The lines of all listeners of a host, at most [`PER_SECOND`] a second. How many were left out is said before
/// the first line of a later second, and at the end of the host.
#[derive(Debug, Default)]
pub(crate) struct AccessLog(Mutex<Window>);

/// The lines of one second.
#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    written: u32,
    left_out: u64,
}

impl Window {
    /// Returns whether a line may be written, and how many were left out before it.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        let is_over = |began| now.saturating_duration_since(began) >= SECOND;
        if self.began.is_none_or(is_over) {
            self.began = Some(now);
            self.written = 0;
        }
        if self.written == PER_SECOND {
            self.left_out += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

impl AccessLog {
    /// Returns whether lines of this level are written at all: if not, nothing need be found out for one.
    pub(crate) fn is_on(level: Level) -> bool {
        log::log_enabled!(target: TARGET, level)
    }

    /// Writes a line, if it may.
    pub(crate) fn write(&self, level: Level, line: impl fmt::Display) {
        if !Self::is_on(level) {
            return;
        }
        let admitted = self.0.lock().admit(Instant::now());
        if let Some(left_out) = admitted {
            say_left_out(left_out);
            log::log!(target: TARGET, level, "{line}");
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        say_left_out(self.0.get_mut().left_out);
    }
}

fn say_left_out(count: u64) {
    if count > 0 {
        log::info!(
            target: TARGET,
            "{count} more lines were left out: at most {PER_SECOND} are written in a second"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_lines_are_written_in_a_second_and_the_rest_is_counted() {
        let mut window = Window::default();
        let begin = Instant::now();
        for _ in 0..PER_SECOND {
            assert_eq!(window.admit(begin), Some(0));
        }
        let late = begin + Duration::from_millis(999);
        for _ in 0..3 {
            assert_eq!(window.admit(late), None);
        }
        assert_eq!(window.admit(begin + SECOND), Some(3));
        for _ in 1..PER_SECOND {
            assert_eq!(window.admit(begin + SECOND), Some(0));
        }
        assert_eq!(window.admit(begin + SECOND), None);
        assert_eq!(window.admit(begin + 10 * SECOND), Some(1));
    }
}

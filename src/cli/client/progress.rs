//! What is shown on a terminal while something takes long. Elsewhere nothing is.

use std::io::Read;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Between two pictures.
const TICK: Duration = Duration::from_millis(125);

/// Does something that may take long, and shows on standard error, if it is a terminal, what and for how long.
pub(super) fn waiting<T>(doing: &str, body: impl FnOnce() -> T) -> T {
    let bar = ProgressBar::new_spinner();
    style(&bar, "{spinner} {wide_msg} {elapsed}");
    bar.set_message(doing.to_owned());
    bar.enable_steady_tick(TICK);
    let done = body();
    bar.finish_and_clear();
    done
}

/// Bytes that go one way. Nothing is left of it on the terminal when this is dropped.
pub(super) struct Transfer {
    bar: ProgressBar,
}

impl Transfer {
    /// Without a length only what has gone is shown.
    pub(super) fn new(doing: &'static str, length: Option<u64>) -> Self {
        let bar = match length {
            Some(length) => ProgressBar::new(length),
            None => ProgressBar::no_length(),
        };
        style(
            &bar,
            "{msg} {wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec}",
        );
        bar.set_message(doing);
        Self { bar }
    }

    /// Counts what is read.
    pub(super) fn reading(&self, reader: impl Read) -> impl Read {
        self.bar.wrap_read(reader)
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A template is the program's own, and cannot be wrong.
fn style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
}

//! What is shown on a terminal while something takes long. Elsewhere nothing is.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Between two pictures.
const TICK: Duration = Duration::from_millis(125);

/// Does something that may take long, and shows on standard error, if it is a terminal, what and for how long.
pub(super) fn waiting<T>(doing: &str, body: impl FnOnce() -> T) -> T {
    let bar = ProgressBar::new_spinner();
    // The text is the program's own, and cannot be wrong.
    if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.set_message(doing.to_owned());
    bar.enable_steady_tick(TICK);
    let done = body();
    bar.finish_and_clear();
    done
}

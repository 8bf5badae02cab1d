//! Asking the user at the terminal.

use std::io::{self, IsTerminal as _, Write as _};

use crate::cli::error::CliError;

/// Bytes of an answer.
const ANSWER: usize = 1024;

/// Whether anybody can be asked.
pub(super) fn is_possible() -> bool {
    io::stdin().is_terminal()
}

/// Asks, and returns whether the answer is yes. Where standard input is no terminal the answer is yes: the
/// author of a script has decided.
///
/// # Errors
/// [`CliError`] when the answer cannot be read.
pub(super) fn confirmed(question: &str) -> Result<bool, CliError> {
    if !is_possible() {
        return Ok(true);
    }
    // Not on standard output, which may be for a program.
    let _ = io::stderr().write_all(format!("{question} [y/N] ").as_bytes());
    let mut answer = String::new();
    io::BufRead::read_line(
        &mut io::Read::take(io::stdin().lock(), ANSWER as u64),
        &mut answer,
    )
    .map_err(CliError::cannot("read the answer"))?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

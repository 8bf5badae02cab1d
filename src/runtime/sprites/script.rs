//! Runs a script of ours on a sprite to its end.

use std::time::Duration;

use super::client::Client;
use super::exec::{ExecCommand, ExecEvent};
use super::interrupt::Within;
use crate::error::{SpritesError, SpritesProblem};

/// Reads the script from standard input, where the rest is its own: a URL has no room for it. What the plugin
/// has put into the profiles of the shell is not read.
const READ_SCRIPT: &str = r#"eval "$(head -c "$1")""#;

/// How long it may run on after the connection was lost, or closed here. The next start ends it earlier.
const DETACHED: Duration = Duration::from_secs(10);

/// The most bytes that are kept: of the standard output the first, of errors the last.
const OUTPUT_LIMIT: usize = 64 * 1024;
const ERRORS_LIMIT: usize = 2 * 1024;

/// What became of a script.
pub(super) struct ScriptEnd {
    pub(super) code: i32,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

/// Runs a bash script with these arguments, the first of which is `$2`, and this standard input. If it is
/// cancelled or out of time, the script ends soon after.
///
/// # Errors
/// Those of the connection; [`SpritesProblem::Script`]: the service cannot start it.
pub(super) fn run(
    client: &Client,
    sprite: &str,
    script: &str,
    arguments: &[&str],
    input: &[u8],
    within: Within<'_>,
) -> Result<ScriptEnd, SpritesError> {
    let size = script.len().to_string();
    let mut command = vec!["bash", "--noprofile", "--norc", "-c", READ_SCRIPT];
    command.extend(["plugin-runner", &size]);
    command.extend(arguments);
    let exec = ExecCommand {
        command: &command,
        environment: &[],
        directory: "/",
        has_stdin: true,
        detached_limit: DETACHED,
    };
    let (mut reader, writer) = client.start(sprite, &exec, within)?;
    // It prints nothing to speak of before it has read all of this, so nothing has to be read meanwhile. If it
    // ended before, it says why.
    let sent = writer
        .write(script.as_bytes(), within)
        .and_then(|()| writer.write(input, within))
        .and_then(|()| writer.end_stdin(within));
    let unsent = match sent {
        Err(error) if matches!(error.problem, SpritesProblem::Broken(_)) => Some(error),
        sent => sent.map(|()| None)?,
    };
    let (mut stdout, mut stderr, mut problem) = (Vec::new(), Vec::new(), None);
    loop {
        match reader.next_within(within) {
            Ok(ExecEvent::Stdout(bytes)) => {
                let room = OUTPUT_LIMIT - stdout.len();
                stdout.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
            Ok(ExecEvent::Stderr(bytes)) => {
                stderr.extend_from_slice(&bytes);
                let above = stderr.len().saturating_sub(ERRORS_LIMIT);
                stderr.drain(..above);
            }
            Ok(ExecEvent::Problem(said)) => problem = Some(said),
            Ok(ExecEvent::Session { .. }) => {}
            Ok(ExecEvent::Exit(code)) => {
                return Ok(ScriptEnd {
                    code,
                    stdout,
                    stderr,
                });
            }
            Err(error) => {
                let Some(message) = problem else {
                    return Err(unsent.unwrap_or(error));
                };
                let (code, message) = (None, message.into());
                let problem = SpritesProblem::Script { code, message };
                return Err(SpritesError { problem, ..error });
            }
        }
    }
}

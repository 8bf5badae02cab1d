//! Signals: their names, and the kill over HTTP with what it tells of its progress.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::session::Session;

/// How long a process may take to be gone after SIGKILL.
const KILLED: Duration = Duration::from_secs(30);

/// A signal by its name, with or without `SIG`.
pub(super) fn signal(name: &str) -> Option<Signal> {
    let name = name.to_ascii_uppercase();
    Some(match name.strip_prefix("SIG").unwrap_or(&name) {
        "INT" => Signal::INT,
        "TERM" => Signal::TERM,
        "HUP" => Signal::HUP,
        "KILL" => Signal::KILL,
        "QUIT" => Signal::QUIT,
        "USR1" => Signal::USR1,
        "USR2" => Signal::USR2,
        _ => return None,
    })
}

/// Signals a session's process group, and after the time SIGKILLs it. `tell` is given each line as it comes.
/// A time of 0 means the signal alone, as the SDKs assume.
pub(super) fn kill(
    session: &Session,
    name: &str,
    signal: Signal,
    time: Duration,
    mut tell: impl FnMut(Value),
) {
    let pid: u32 = session.id.parse().expect("a process id");
    session.signal(signal);
    let message = format!("sent {name} to process group {pid}");
    tell(json!({"type": "signal", "message": message, "signal": name, "pid": pid}));
    let mut code = session.wait(time);
    if code.is_some() {
        tell(json!({"type": "exited", "message": "process exited"}));
    } else if !time.is_zero() {
        tell(json!({"type": "timeout", "message": format!("no exit within {time:?}")}));
        session.signal(Signal::KILL);
        code = session.wait(KILLED);
        tell(match code {
            Some(_) => json!({"type": "killed", "message": "process killed"}),
            None => json!({"type": "error", "message": "the process does not die"}),
        });
    }
    tell(json!({"type": "complete", "exit_code": code.unwrap_or(0)}));
}

//! The program on a terminal: sizes, Ctrl-C, and the terminal afterwards.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use rustix::process::Signal;

use super::Place;
use crate::terminal::Terminal;

#[test]
fn a_terminal_tells_what_is_typed_its_size_and_ctrl_c() {
    // Not a shell: a signal may end the `read` of one.
    const PROGRAM: &str = r#"
import os, signal, sys
def size(*_):
    columns, lines = os.get_terminal_size()
    print(lines, columns, flush=True)
signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.signal(signal.SIGWINCH, size)
size()
for line in sys.stdin:
    print("got", line.strip(), flush=True)
"#;
    let mut program = Command::new("python3");
    program.args(["-c", PROGRAM]);
    let mut terminal = Terminal::start(&program, 40, 10);
    terminal.wait_for("10 40");
    terminal.type_line("this");
    terminal.wait_for("got this");
    terminal.resize(200, 50);
    terminal.wait_for("50 200");
    terminal.type_line("that");
    terminal.wait_for("got that");
    terminal.interrupt();
    let (status, _) = terminal.end();
    assert_eq!(status.signal(), Some(Signal::INT.as_raw()), "{status}");
}

#[test]
#[should_panic(expected = "the cursor is hidden")]
fn a_hidden_cursor_is_noticed() {
    let mut shell = Command::new("printf");
    shell.arg("\\033[?25lgone");
    Terminal::start(&shell, 40, 10).end();
}

#[test]
#[should_panic(expected = "the terminal does not echo")]
fn a_silent_terminal_is_noticed() {
    let mut shell = Command::new("stty");
    shell.arg("-echo");
    Terminal::start(&shell, 40, 10).end();
}

#[test]
fn a_run_takes_commands_and_ends_with_ctrl_c() {
    let place = Place::new();
    let mut terminal = Terminal::start(place.command("run ./hello").env("NO_COLOR", "1"), 100, 30);
    terminal.wait_for("* active");
    terminal.type_line("call ping");
    terminal.wait_for("{}");
    terminal.interrupt();
    let (status, text) = terminal.end();
    assert_eq!(status.code(), Some(0), "{text}");
    place.scratch.assert_nothing_left();
}

#[test]
fn a_followed_log_ends_with_ctrl_c() {
    let place = Place::served();
    place.ok("install hello.zip --activate");
    let mut terminal = Terminal::start(&place.command("logs hello --follow"), 100, 30);
    terminal.wait_for("pid ");
    terminal.interrupt();
    let (status, text) = terminal.end();
    let is_interrupted = status.signal() == Some(Signal::INT.as_raw());
    assert!(is_interrupted || status.success(), "{status}: {text}");
}

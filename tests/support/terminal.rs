//! `Terminal`: a program on a terminal of its own, as a person runs it.
//!
//! The terminal is the program's controlling one, so that Ctrl-C is a signal and a resize is told. Taking a terminal
//! needs a system call of the child's own, which `setsid` of util-linux makes before it becomes the program.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};

use crate::support::LONG;
use crate::support::alone::Watched;

/// What shows or hides something that a program must put back: the text, and whether it changes the terminal.
const SWITCHES: [(&str, &str, &str); 2] = [
    ("the cursor is hidden", "\x1b[?25l", "\x1b[?25h"),
    ("the other screen is shown", "\x1b[?1049h", "\x1b[?1049l"),
];

/// A program on a terminal.
pub(crate) struct Terminal {
    child: Child,
    /// The side of the terminal on which a person types.
    outer: File,
    /// The program's side, kept open so that its state can be asked for after the program's end.
    inner: File,
    before: Termios,
    screen: Arc<Screen>,
    reader: Option<JoinHandle<()>>,
}

/// All that was written to the terminal.
#[derive(Default)]
struct Screen {
    text: Mutex<Vec<u8>>,
    more: Condvar,
}

impl Terminal {
    /// Starts a program on a terminal of this size.
    pub(crate) fn start(command: &Command, width: u16, height: u16) -> Self {
        let outer = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&outer).unwrap();
        unlockpt(&outer).unwrap();
        let outer = File::from(outer);
        resize(&outer, width, height);
        let name = ptsname(&outer, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let inner = File::from(rustix::fs::open(name.as_c_str(), flags, Mode::empty()).unwrap());
        let before = tcgetattr(&inner).unwrap();

        let mut with_terminal = Command::new("setsid");
        with_terminal
            .arg("--ctty")
            .arg(command.get_program())
            .args(command.get_args())
            .env("TERM", "xterm-256color")
            .env_remove("COLUMNS")
            .env_remove("LINES")
            .stdin(inner.try_clone().unwrap())
            .stdout(inner.try_clone().unwrap())
            .stderr(inner.try_clone().unwrap());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => with_terminal.env(name, value),
                None => with_terminal.env_remove(name),
            };
        }
        if let Some(directory) = command.get_current_dir() {
            with_terminal.current_dir(directory);
        }
        let child = with_terminal.spawn().unwrap();
        // It has copies of the terminal.
        drop(with_terminal);

        let screen = Arc::new(Screen::default());
        let (mut output, shown) = (outer.try_clone().unwrap(), Arc::clone(&screen));
        let reader = thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The read fails once all have closed the program's side.
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                shown.text.lock().extend_from_slice(&buffer[..count]);
                shown.more.notify_all();
            }
        });
        Self {
            child,
            outer,
            inner,
            before,
            screen,
            reader: Some(reader),
        }
    }

    /// Everything that was written to it, with the terminal's control sequences.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.screen.text.lock()).into_owned()
    }

    /// Waits until this was written.
    #[track_caller]
    pub(crate) fn wait_for(&self, wanted: &str) {
        self.wait_for_times(wanted, 1);
    }

    /// Waits until this was written so many times.
    #[track_caller]
    pub(crate) fn wait_for_times(&self, wanted: &str, times: usize) {
        let deadline = Instant::now() + LONG;
        let mut text = self.screen.text.lock();
        while String::from_utf8_lossy(&text).matches(wanted).count() < times {
            let timed_out = self.screen.more.wait_until(&mut text, deadline).timed_out();
            assert!(
                !timed_out,
                "waited {LONG:?} for {wanted:?} to be shown {times} times; on the terminal is:\n{}",
                String::from_utf8_lossy(&text).escape_debug()
            );
        }
    }

    /// Types these bytes.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.outer.write_all(bytes).unwrap();
    }

    /// Types a line.
    pub(crate) fn type_line(&mut self, line: &str) {
        self.send(format!("{line}\r").as_bytes());
    }

    /// Types Ctrl-C.
    pub(crate) fn interrupt(&mut self) {
        self.send(b"\x03");
    }

    /// Sends the program a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Changes the size, which the program is told with a signal.
    pub(crate) fn resize(&self, width: u16, height: u16) {
        resize(&self.outer, width, height);
    }

    /// Waits for the program's end, and checks that the terminal is as it was before. Returns how it ended, and all
    /// that was written.
    #[track_caller]
    pub(crate) fn end(mut self) -> (ExitStatus, String) {
        Watched::new(Pid::from_child(&self.child)).expect_end("the program on the terminal");
        let status = self.child.wait().unwrap();
        let after = tcgetattr(&self.inner).unwrap();
        // The last copy of the program's side: the reader ends when it has read everything.
        self.inner = File::open("/dev/null").unwrap();
        self.reader.take().unwrap().join().unwrap();
        let text = self.text();
        let shown = text.escape_debug();
        assert!(
            after
                .local_modes
                .contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG),
            "the terminal does not echo, or takes no lines or no Ctrl-C, after:\n{shown}"
        );
        assert_eq!(
            after.local_modes, self.before.local_modes,
            "after:\n{shown}"
        );
        assert_eq!(
            after.input_modes, self.before.input_modes,
            "after:\n{shown}"
        );
        assert_eq!(
            after.output_modes, self.before.output_modes,
            "after:\n{shown}"
        );
        for (what, on, off) in SWITCHES {
            assert!(
                text.rfind(on) <= text.rfind(off),
                "{what} at the end of:\n{shown}"
            );
        }
        (status, text)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn resize(terminal: &File, width: u16, height: u16) {
    let size = Winsize {
        ws_row: height,
        ws_col: width,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).unwrap();
}

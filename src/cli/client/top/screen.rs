//! `Screen`: a terminal that is drawn on and whose keys are read, and that is afterwards as it was before.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};
use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};
use signal_hook::low_level::{pipe, unregister};

use super::picture::Size;

/// The other screen, no cursor, and no second line for what is wider than the terminal.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
/// Where the system does not know.
const USUAL: Size = Size {
    width: 80,
    height: 24,
};
const CTRL_C: u8 = 3;

/// What a wait has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happened {
    /// Somebody wants it to end, or the terminal has gone.
    End,
    /// Something else, or nothing in time.
    Other,
}

pub(super) struct Screen {
    input: File,
    output: File,
    before: Termios,
    /// A byte for each signal, and for each time that the waker is used.
    woken: UnixStream,
    waker: UnixStream,
    is_ended: Arc<AtomicBool>,
    signals: Vec<SigId>,
}

impl Screen {
    /// Takes the terminal. What it was is put back when this is dropped, and before a panic is said. From now on
    /// signals that ask the program to end are told by [`wait`](Self::wait).
    ///
    /// # Errors
    /// What the system reports; then the terminal is as it was.
    pub(super) fn open(input: OwnedFd, output: OwnedFd) -> io::Result<Self> {
        let before = tcgetattr(&input)?;
        let (woken, waker) = UnixStream::pair()?;
        let mut screen = Self {
            input: input.into(),
            output: output.into(),
            before: before.clone(),
            woken,
            waker,
            is_ended: Arc::default(),
            signals: Vec::new(),
        };
        screen.listen()?;
        screen.restore_on_panic()?;
        let mut modes = before;
        // Keys come one by one and unseen. Ctrl-C is one of them, and Ctrl-Z, which would leave the other screen to
        // the shell, is none that counts.
        modes.local_modes -=
            LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG | LocalModes::IEXTEN;
        modes.special_codes[SpecialCodeIndex::VMIN] = 1;
        modes.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&screen.input, OptionalActions::Now, &modes)?;
        screen.output.write_all(ENTER.as_bytes())?;
        Ok(screen)
    }

    fn listen(&mut self) -> io::Result<()> {
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // Before the byte, which is when it is looked at.
            let flag = signal_hook::flag::register(signal, Arc::clone(&self.is_ended))?;
            self.signals.push(flag);
        }
        for signal in [SIGINT, SIGTERM, SIGHUP, SIGWINCH] {
            self.signals
                .push(pipe::register(signal, self.waker.try_clone()?)?);
        }
        Ok(())
    }

    /// Or a panic would be said on the screen that goes away.
    fn restore_on_panic(&self) -> io::Result<()> {
        let (input, output) = (self.input.try_clone()?, self.output.try_clone()?);
        let before = self.before.clone();
        let said = panic::take_hook();
        panic::set_hook(Box::new(move |about| {
            restore(&input, &output, &before);
            said(about);
        }));
        Ok(())
    }

    /// Returns what ends a wait when a byte is written to it.
    ///
    /// # Errors
    /// What the system reports.
    pub(super) fn waker(&self) -> io::Result<UnixStream> {
        self.waker.try_clone()
    }

    pub(super) fn size(&self) -> Size {
        match tcgetwinsize(&self.output) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => Size {
                width: size.ws_col.into(),
                height: size.ws_row.into(),
            },
            _ => USUAL,
        }
    }

    /// Shows these lines and nothing else. They must fit.
    ///
    /// # Errors
    /// What the system reports.
    pub(super) fn draw(&mut self, lines: &[String]) -> io::Result<()> {
        let mut frame = "\x1b[H".to_owned();
        for (index, line) in lines.iter().enumerate() {
            if index > 0 {
                frame.push_str("\r\n");
            }
            let is_last = index + 1 == lines.len();
            // What was there goes first: behind a line of the whole width there is no room to say so.
            frame.push_str(if is_last { "\x1b[J" } else { "\x1b[K" });
            frame.push_str(line);
        }
        self.output.write_all(frame.as_bytes())
    }

    /// Waits for a key, a signal or the waker, at most for this time.
    ///
    /// # Errors
    /// What the system reports.
    pub(super) fn wait(&mut self, timeout: Duration) -> io::Result<Happened> {
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        let mut polled = [
            PollFd::new(&self.input, PollFlags::IN),
            PollFd::new(&self.woken, PollFlags::IN),
        ];
        match poll(&mut polled, Some(&timeout)) {
            Ok(_) => {}
            // Its byte is there at the next look.
            Err(Errno::INTR) => return Ok(Happened::Other),
            Err(error) => return Err(error.into()),
        }
        let [has_keys, is_woken] = polled.map(|polled| !polled.revents().is_empty());
        let mut bytes = [0; 64];
        if is_woken {
            let _ = self.woken.read(&mut bytes)?;
        }
        let mut is_ended = self.is_ended.load(Ordering::SeqCst);
        if has_keys {
            let count = self.input.read(&mut bytes)?;
            let keys = &bytes[..count];
            is_ended |= count == 0 || keys.iter().any(|key| matches!(*key, b'q' | b'Q' | CTRL_C));
        }
        Ok(if is_ended {
            Happened::End
        } else {
            Happened::Other
        })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore(&self.input, &self.output, &self.before);
        for signal in self.signals.drain(..) {
            unregister(signal);
        }
    }
}

/// A terminal that has gone needs nothing.
fn restore(input: &File, mut output: &File, before: &Termios) {
    let _ = output.write_all(LEAVE.as_bytes());
    let _ = tcsetattr(input, OptionalActions::Now, before);
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Mode, OFlags};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// Both sides of a terminal: that of a person, and the program's.
    fn terminal() -> (File, File) {
        let outer = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&outer).unwrap();
        unlockpt(&outer).unwrap();
        let name = ptsname(&outer, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let inner = rustix::fs::open(name.as_c_str(), flags, Mode::empty()).unwrap();
        (outer.into(), inner.into())
    }

    fn open(inner: &File) -> Screen {
        let copy = || inner.try_clone().unwrap().into();
        Screen::open(copy(), copy()).unwrap()
    }

    fn shown(outer: &mut File) -> String {
        let mut bytes = [0; 4096];
        let count = outer.read(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    }

    fn modes(inner: &File) -> String {
        format!("{:?}", tcgetattr(inner).unwrap())
    }

    #[test]
    fn keys_are_told_apart_and_the_terminal_is_put_back() {
        let (mut outer, inner) = terminal();
        let before = modes(&inner);
        let mut screen = open(&inner);
        assert_ne!(modes(&inner), before);
        outer.write_all(b"x\x1a").unwrap();
        assert_eq!(screen.wait(LONG).unwrap(), Happened::Other);
        screen.waker().unwrap().write_all(&[0]).unwrap();
        assert_eq!(screen.wait(LONG).unwrap(), Happened::Other);
        screen.draw(&["a".to_owned(), "b".to_owned()]).unwrap();
        outer.write_all(b"q").unwrap();
        assert_eq!(screen.wait(LONG).unwrap(), Happened::End);
        drop(screen);
        assert_eq!(modes(&inner), before);
        let shown = shown(&mut outer);
        assert_eq!(
            shown,
            format!("{ENTER}\u{1b}[H\u{1b}[Ka\r\r\n\u{1b}[Jb{LEAVE}"),
        );
    }

    #[test]
    fn the_terminal_is_put_back_before_a_panic_is_said() {
        let (mut outer, inner) = terminal();
        let before = modes(&inner);
        let while_said = Arc::new(parking_lot::Mutex::new(String::new()));
        let (seen, terminal) = (while_said.clone(), inner.try_clone().unwrap());
        let said = panic::take_hook();
        let this = std::thread::current().id();
        panic::set_hook(Box::new(move |about| {
            if std::thread::current().id() == this {
                *seen.lock() = modes(&terminal);
            }
            said(about);
        }));
        let panicked = panic::catch_unwind(|| {
            let _screen = open(&inner);
            panic!("on purpose");
        });
        assert!(panicked.is_err());
        assert_eq!(*while_said.lock(), before);
        assert_eq!(modes(&inner), before);
        assert!(shown(&mut outer).starts_with(&format!("{ENTER}{LEAVE}")));
    }
}

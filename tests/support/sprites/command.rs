//! What an exec asks for, and the child process that it becomes.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::http::Request;
use super::place::{HOME, Place};

/// What a command is given where the client gives it no variables.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One exec, as it was asked for.
#[derive(Debug)]
pub(super) struct Asked {
    argv: Vec<String>,
    program: String,
    /// `None` stands for the default environment.
    env: Option<Vec<String>>,
    pub(super) dir: String,
    pub(super) tty: bool,
    pub(super) size: (u16, u16),
    stdin: bool,
    /// How long it runs on without a client. `None` is for ever.
    pub(super) max_run: Option<Duration>,
}

/// A child, and what it reads and writes.
pub(super) struct Started {
    pub(super) child: Child,
    pub(super) stdin: Option<File>,
    pub(super) stdout: File,
    /// `None` with a terminal, to which both streams go.
    pub(super) stderr: Option<File>,
}

impl Asked {
    /// `None` for parameters that are wrong.
    pub(super) fn read(request: &Request, default_max_run: Duration) -> Option<Self> {
        let tty = request.is_true("tty");
        let mut argv: Vec<_> = request.query_all("cmd").map(str::to_owned).collect();
        let path = request.query("path").map(str::to_owned);
        let program = path.or(argv.first().cloned());
        let program = program.unwrap_or_else(|| "bash".to_owned());
        if argv.is_empty() {
            argv.push(program.clone());
        }
        let env: Vec<_> = request.query_all("env").map(str::to_owned).collect();
        if env.iter().any(|variable| !variable.contains('=')) {
            return None;
        }
        let max_run = match request.query("max_run_after_disconnect") {
            Some(text) => duration(text)?,
            None if tty => Duration::ZERO,
            None => default_max_run,
        };
        let number = |name, default| match request.query(name) {
            Some(text) => text.parse().ok(),
            None => Some(default),
        };
        Some(Self {
            argv,
            program,
            env: (!env.is_empty()).then_some(env),
            dir: request.query("dir").unwrap_or(HOME).to_owned(),
            tty,
            size: (number("cols", 80)?, number("rows", 24)?),
            stdin: request.query("stdin").map_or(tty, |stdin| stdin == "true"),
            max_run: (!max_run.is_zero()).then_some(max_run),
        })
    }

    /// As it is listed: the program's path and the arguments.
    pub(super) fn text(&self) -> String {
        let arguments = self.argv.iter().skip(1);
        let words = std::iter::once(&self.program).chain(arguments);
        words.map(String::as_str).collect::<Vec<_>>().join(" ")
    }

    pub(super) fn start(&self, place: &Place) -> io::Result<Started> {
        let program = if self.program.starts_with('/') && place.of(&self.program).exists() {
            let path = place.of(&self.program);
            path.to_str().expect("joined from texts").to_owned()
        } else {
            place.moved(&self.program)
        };
        let mut command = Command::new(program);
        command
            .arg0(place.moved(&self.argv[0]))
            .args(self.argv[1..].iter().map(|word| place.moved(word)))
            .current_dir(place.of(&self.dir))
            .env_clear()
            .process_group(0);
        if let Some(env) = &self.env {
            for (name, value) in env.iter().filter_map(|variable| variable.split_once('=')) {
                command.env(name, place.moved(value));
            }
        } else {
            let home = place.moved(HOME);
            command.env("PATH", DEFAULT_PATH).env("HOME", home);
            command.env("LANG", "C.UTF-8").env("USER", "sprite");
        }
        if self.tty {
            self.start_on_terminal(command)
        } else {
            self.start_on_pipes(command)
        }
    }

    fn start_on_pipes(&self, mut command: Command) -> io::Result<Started> {
        let stdin = if self.stdin {
            Stdio::piped()
        } else {
            Stdio::null()
        };
        command.stdin(stdin);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().map(OwnedFd::from).expect("a pipe");
        let stderr = child.stderr.take().map(OwnedFd::from).expect("a pipe");
        let stdin = child.stdin.take().map(OwnedFd::from);
        for pipe in [Some(&stdout), Some(&stderr), stdin.as_ref()]
            .into_iter()
            .flatten()
        {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        Ok(Started {
            child,
            stdin: stdin.map(File::from),
            stdout: stdout.into(),
            stderr: Some(stderr.into()),
        })
    }

    /// The terminal is not the child's controlling one, for which unsafe code would be needed: `^D` ends
    /// input, `^C` is no signal.
    fn start_on_terminal(&self, mut command: Command) -> io::Result<Started> {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&terminal)?;
        unlockpt(&terminal)?;
        resize(&terminal, self.size);
        let name = ptsname(&terminal, Vec::new())?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let inner = rustix::fs::open(name.as_c_str(), flags, Mode::empty())?;
        command.stdin(inner.try_clone()?);
        command.stdout(inner.try_clone()?).stderr(inner);
        let child = command.spawn()?;
        rustix::io::ioctl_fionbio(&terminal, true)?;
        Ok(Started {
            child,
            stdin: Some(File::from(terminal.try_clone()?)),
            stdout: terminal.into(),
            stderr: None,
        })
    }
}

/// Gives a terminal so many columns and rows.
pub(super) fn resize(terminal: impl std::os::fd::AsFd, (cols, rows): (u16, u16)) {
    let size = Winsize {
        ws_row: rows,
        ws_col: cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let _ = tcsetwinsize(terminal, size);
}

/// A duration as `90`, `1.5s`, `1m30s` or `250ms`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (mut sum, mut rest) = (0.0, text);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|next: char| !next.is_ascii_digit() && next != '.');
        let (number, after) = rest.split_at(end.unwrap_or(rest.len()));
        let end = after.find(|next: char| next.is_ascii_digit());
        let (unit, after) = after.split_at(end.unwrap_or(after.len()));
        let factor = match unit {
            "h" => 3_600.0,
            "m" => 60.0,
            "s" | "" => 1.0,
            "ms" => 0.001,
            _ => return None,
        };
        sum += number.parse::<f64>().ok()? * factor;
        rest = after;
    }
    Duration::try_from_secs_f64(sum).ok()
}
